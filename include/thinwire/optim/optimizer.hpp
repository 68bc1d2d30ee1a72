#ifndef THINWIRE_OPTIM_OPTIMIZER_HPP
#define THINWIRE_OPTIM_OPTIMIZER_HPP

#include <thinwire/codec/payload_layout.hpp>
#include <thinwire/comm/transport.hpp>
#include <thinwire/core/digest.hpp>
#include <thinwire/core/result.hpp>
#include <thinwire/optim/step_report.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace thinwire {

/// An optimizer whose peers meet once a round: begin_step() turns gradients into a payload, end_step() applies what
/// was committed. demo and adamw are the two here; a training loop written against this takes either.
template <class T>
concept optimizer = requires(T& o, const T& c, peer_id self, std::span<const commit> commits, const commit& one,
                             std::uint64_t round, float rate, std::uint32_t tokens, std::span<const std::byte> bytes) {
    { o.begin_step(self) } -> std::same_as<std::span<const std::byte>>;
    { o.end_step(commits) } -> std::same_as<step_report>;
    { o.apply(one) } -> std::same_as<step_report>;
    {o.set_round(round)};
    {o.set_learning_rate(rate)};
    {o.set_tokens(tokens)};
    { c.round() } -> std::same_as<std::uint64_t>;
    { c.layout() } -> std::same_as<const payload_layout&>;
    { c.in_flight() } -> std::same_as<std::span<const std::byte>>;
    { c.replica_digest() } -> std::same_as<digest>;
    { c.save_private() } -> std::same_as<std::vector<std::byte>>;
    { o.restore_private(bytes) } -> std::same_as<result<ok>>;
    { c.save_replica() } -> std::same_as<std::vector<std::byte>>;
    { o.restore_replica(bytes) } -> std::same_as<result<ok>>;
};

}  // namespace thinwire

#endif  // THINWIRE_OPTIM_OPTIMIZER_HPP
