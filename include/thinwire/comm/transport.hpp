#ifndef THINWIRE_COMM_TRANSPORT_HPP
#define THINWIRE_COMM_TRANSPORT_HPP

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

namespace thinwire {

/// Identifies a peer within a run.
using peer_id = std::uint64_t;

/// What one peer published for a round.
struct contribution {
    peer_id peer = 0;
    std::span<const std::byte> payload;
};

/// What all replicas apply for a round, in this order.
struct commit {
    std::uint64_t round = 0;
    std::span<const contribution> contributions;
};

/// Anything that carries payloads between peers.
///
/// `exchange(round, payload)` publishes this peer's payload for `round`, waits for the commit and returns one or
/// more consecutive commits, the first of which is that of `round`. More than one come when the others went on
/// without this peer: it applies them all and contributes next to the round after the last. The payload may be
/// missing from its commit; its sender then takes it back into its momentum. All peers see equal commits.
/// The returned bytes stay valid until the next call. Called from one thread.
template <class T>
concept transport = requires(T& t, std::uint64_t round, std::span<const std::byte> payload) {
    { t.self() } -> std::convertible_to<peer_id>;
    { t.exchange(round, payload) } -> std::convertible_to<std::span<const commit>>;
};

}  // namespace thinwire

#endif  // THINWIRE_COMM_TRANSPORT_HPP
