#ifndef THINWIRE_RUNTIME_NODE_HPP
#define THINWIRE_RUNTIME_NODE_HPP

#include <thinwire/comm/transport.hpp>
#include <thinwire/core/digest.hpp>
#include <thinwire/core/error.hpp>
#include <thinwire/core/result.hpp>
#include <thinwire/runtime/identity.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

namespace thinwire::runtime {

/// Why a node could not start or go on.
enum class node_errc : std::uint8_t {
    port_in_use,       ///< another program listens there
    unreachable,       ///< no founder answered within connect_timeout, or the address cannot be used
    version_mismatch,  ///< the two sides speak different protocol versions
    run_mismatch,      ///< the founder's run is not the one that was asked for
    refused,           ///< the founder does not want this peer: not on its list, banned, too many, or its identity is
                       ///< used by another
    untrusted,         ///< what answers has another key than the one that was expected
    founder_lost,      ///< the connection was lost and did not come back within reconnect_timeout
    run_stopped,       ///< the founder ended the run, or this node was told to stop
    replica_diverged,  ///< this replica is ahead of the run or holds another history
    storage,           ///< the run log could not be written or read
    protocol,          ///< the other side does not keep to the protocol, or is no thinwire at all
};

/// "port_in_use", ...; for metrics and JSON.
[[nodiscard]] std::string_view to_string(node_errc code) noexcept;

/// What ends a node. The message is the one clear line for the operator.
class node_error : public thinwire::error {
 public:
    node_error(node_errc code, const std::string& line) : thinwire::error(line), code_(code) {}
    [[nodiscard]] node_errc code() const noexcept { return code_; }

 private:
    node_errc code_;
};

/// What a node knows of one peer. The founder knows all of them, a joiner itself and the founder.
struct peer_status {
    peer_id peer = 0;
    std::string name;
    bool present = false;           ///< connected and admitted
    bool contributed_last = false;  ///< is in the newest commit
    std::uint64_t bytes_sent = 0;   ///< to it, all connections of this process together
    std::uint64_t bytes_received = 0;
    std::uint64_t last_round = 0;  ///< the newest commit it is in
};

struct node_status {
    std::uint64_t round = 0;         ///< commits known: the next round to close
    std::vector<peer_status> peers;  ///< ordered by id; with this node itself
    std::uint64_t bytes_sent = 0;    ///< on the wire, frames and handshakes included
    std::uint64_t bytes_received = 0;
    double wait_seconds = 0;        ///< spent inside exchange() so far
    std::uint64_t connections = 0;  ///< accepted or dialled and established so far
    std::uint64_t refused = 0;      ///< connections closed for what they sent or did not send
    std::string last_refusal;       ///< why the newest payload of this node was refused; empty: none was
    std::uint64_t log_begin = 0;    ///< founder: the first round in the log
    std::uint64_t log_bytes = 0;    ///< founder: size of the log
};

struct node_options {
    peer_id self = 0;    ///< under TLS: 0, or peer_id_of() the identity's key; in plaintext not 0, unique in the run
    std::string name{};  ///< for people; at most 64 bytes
    std::string address = "127.0.0.1:0";  ///< founder: where to listen; joiner: the founder. "host:port" or
                                          ///< "[::1]:port"; several that a joiner tries in turn are separated by commas
    digest run{};                         ///< founder: the run. Joiner: zero takes the founder's
    std::string manifest{};               ///< founder: handed to joiners; at most 1 MiB
    std::uint64_t next_round = 0;         ///< the round that this replica is to apply next
    bool fresh = true;                    ///< joiner: true has no replica and wants a snapshot
    std::filesystem::path log{};          ///< founder: folder of the run log; created, or continued if it exists
    bool log_durable = true;              ///< founder: a round is on the device before anybody is told of it
    std::uint64_t log_segment_bytes = std::uint64_t{64} << 20U;  ///< founder: what drop_log_before() drops at once
    int min_peers = 1;  ///< founder: present (itself included) before its first round closes
    std::chrono::milliseconds connect_timeout{15000};    ///< joiner: until admitted and the snapshot begins
    std::chrono::milliseconds reconnect_timeout{30000};  ///< joiner: how long a lost founder is looked for
    std::chrono::milliseconds min_deadline{2000};        ///< founder: bounds of the adaptive wait for a peer
    std::chrono::milliseconds max_deadline{120000};
    /// Founder: called on the node's thread before a payload may be committed. Its message goes to the sender.
    std::function<result<ok>(std::uint64_t round, peer_id peer, std::span<const std::byte> payload)> validate{};

    std::chrono::milliseconds handshake_timeout{
        5000};  ///< founder: a connection that is not admitted by then is closed
    std::chrono::milliseconds keepalive_interval{5000};
    std::chrono::milliseconds keepalive_timeout{20000};  ///< silence that ends a connection
    std::chrono::milliseconds leave_timeout{10000};      ///< how long leave() may wait for others
    std::size_t max_payload = std::size_t{64} << 20U;    ///< bytes of one payload
    std::size_t max_connections = 256;
    /// Who this node is. Traffic is then TLS 1.3, both sides show their keys, and only those on the list may enter.
    std::shared_ptr<const runtime::identity> identity{};
    /// The file of that list (`access_list`), read again when it changes: connections of keys that are no longer on it
    /// are closed within two seconds.
    std::filesystem::path access{};
    /// Instead of an identity: no encryption, nobody's name is proven, loopback addresses only.
    bool plaintext = false;
    /// Called on the node's thread with one line about a connection that was refused or a key that was enrolled; at
    /// most 20 at once and 20 a minute.
    std::function<void(const std::string& line)> notice{};
    /// Does what stop() does, and also ends a join() that still waits for the founder.
    std::stop_token stop{};
};

/// A peer of a run over TCP: a star whose centre, the founder, orders the rounds and keeps the log. Satisfies
/// `transport`. Each node runs one thread of its own from found() / join() until it is destroyed.
///
/// Thread safety: status() and stop() from any thread; everything else from one thread at a time.
/// Every call that waits ends with a node_error when the run or the node is stopped, never hangs on a lost peer.
class node {
 public:
    /// Listens, opens the log and starts the run (or continues it where the log ends).
    /// Throws value_error for options outside their range, node_error (port_in_use, unreachable for an address that
    /// cannot be used, run_mismatch for a log of another run, storage).
    [[nodiscard]] static std::unique_ptr<node> found(node_options options);

    /// Connects and is admitted; a fresh joiner also receives the founder's newest snapshot (and waits for the first
    /// one to be published). Throws value_error, node_error (unreachable, version_mismatch, run_mismatch, refused,
    /// run_stopped, replica_diverged, protocol).
    [[nodiscard]] static std::unique_ptr<node> join(node_options options);

    node(const node&) = delete;
    node& operator=(const node&) = delete;
    /// Ends the connections without a goodbye when leave() was not called.
    ~node();

    [[nodiscard]] peer_id self() const noexcept;
    [[nodiscard]] digest run() const;
    [[nodiscard]] std::string manifest() const;
    /// Founder: the port it listens on. Joiner: the founder's.
    [[nodiscard]] std::uint16_t port() const;

    /// Joiner that was fresh: the snapshot's bytes, once; empty otherwise.
    [[nodiscard]] std::vector<std::byte> take_snapshot();
    /// The round that snapshot is at: the first to ask catch_up for.
    [[nodiscard]] std::uint64_t snapshot_round() const;

    /// Commits from `next_round` on, in order; empty when there are no more. Hands out at most about 64 MiB at a
    /// time, so that a long absence fits in memory: call it until it returns none. A caller that is still behind
    /// when it calls exchange() gets the rest there. The bytes stay valid until the next catch_up or exchange.
    [[nodiscard]] std::span<const commit> catch_up(std::uint64_t next_round);

    /// See `transport`. Throws value_error when `round` is not the next after the last commit handed out or the
    /// payload is empty or above max_payload; node_error (founder_lost, run_stopped, refused, storage, protocol).
    [[nodiscard]] std::span<const commit> exchange(std::uint64_t round, std::span<const std::byte> payload);

    /// Founder: what fresh joiners get from now on. `round` is the next that the snapshot's owner would apply. Throws
    /// value_error for one before the log's begin; if drop_log_before() moves that meanwhile, a notice says so.
    void publish_snapshot(std::uint64_t round, std::vector<std::byte> bytes);

    /// Founder: the log may lose the rounds before `round`. It does as far as whole segments lie before it, the newest
    /// published snapshot, and what a present peer is still to get. Who returns from an earlier round is refused.
    void drop_log_before(std::uint64_t round);

    /// Says goodbye. The founder first waits, at most leave_timeout, until the present peers have the last commit;
    /// with `stop_run` it tells them that the run is over (they get run_stopped), otherwise they look for it for
    /// their reconnect_timeout. A joiner's `stop_run` has no effect. Nothing else may be called afterwards but
    /// status().
    void leave(bool stop_run);

    /// Makes a waiting call of another thread, and every later one, throw run_stopped.
    void stop() noexcept;

    [[nodiscard]] node_status status() const;

 private:
    class implementation;
    [[nodiscard]] static std::unique_ptr<node> open(node_options options, bool founder);
    explicit node(std::unique_ptr<implementation> impl) noexcept;
    std::unique_ptr<implementation> impl_;
};

}  // namespace thinwire::runtime

#endif  // THINWIRE_RUNTIME_NODE_HPP
