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
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace thinwire {
struct control_change;  // <thinwire/comm/message.hpp>
}  // namespace thinwire

namespace thinwire::runtime {

/// Why a node could not start or go on.
enum class node_errc : std::uint8_t {
    port_in_use,       ///< another program listens there
    unreachable,       ///< nobody answered within connect_timeout, or the address cannot be used
    version_mismatch,  ///< the two sides speak different protocol versions
    run_mismatch,      ///< the run there is not the one that was asked for
    refused,           ///< the run does not want this peer: not on the list, banned, removed, or its identity is used
                       ///< by another process
    untrusted,         ///< what answers has a key that is not on the list
    peers_lost,        ///< all others were lost and none came back within reconnect_timeout
    run_stopped,       ///< the run was stopped, or this node was told to stop
    replica_diverged,  ///< this replica is ahead of the run or holds another history
    behind,            ///< no log reaches back to this replica; a newer snapshot lies in node_options::log
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

/// What a node knows of one peer of the run.
struct peer_status {
    peer_id peer = 0;
    std::string name;
    std::string about{};            ///< node_options::about of its last connection
    bool present = false;           ///< connected to this node, or it itself
    bool member = false;            ///< in the view
    bool contributes = false;       ///< a member that is no witness
    bool contributed_last = false;  ///< is in the newest commit
    std::uint64_t bytes_sent = 0;   ///< to it, all connections of this process together
    std::uint64_t bytes_received = 0;
    std::uint64_t last_round = 0;                ///< the newest commit it is in
    std::optional<double> round_trip_seconds{};  ///< smoothed by the kernel, as of the last round; nothing: not known
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
    std::uint64_t log_begin = 0;    ///< the first round in the log
    std::uint64_t log_bytes = 0;    ///< size of the log
    std::uint64_t term = 0;         ///< how often the run has chosen who orders its rounds
    peer_id sequencer = 0;          ///< who orders them now; 0: not known
    bool ordered = true;            ///< somebody ordered rounds within the last node_options::takeover
    std::size_t members = 0;        ///< in the view
    std::size_t place = 0;          ///< contributing members that entered before this node
    bool ended = false;             ///< no round follows: the run or this node was stopped, or an error ended it
    bool paused = false;
    double paused_seconds = 0;                    ///< that it was paused for so far, mostly inside exchange()
    std::map<std::string, std::string> settings;  ///< of the run: what request() set, by the newest commit
    std::vector<peer_id> banned;                  ///< by the newest commit, ascending
    std::vector<peer_id> revoked;                 ///< whose keys the run revoked, by the newest commit
};

struct node_options {
    peer_id self = 0;     ///< under TLS: 0, or peer_id_of() the identity's key; in plaintext not 0, unique in the run
    std::string name{};   ///< for people; at most 64 bytes
    std::string about{};  ///< what the others are told of this peer, for people; at most 256 bytes
    /// Where others connect: "host:port" or "[::1]:port", port 0 for any; empty: nowhere, this node only dials.
    std::string listen = "127.0.0.1:0";
    std::string advertise{};       ///< what others dial instead, as behind a router; empty: what it listens on
    std::string address{};         ///< joiner: some peers of the run to begin with, separated by commas
    digest run{};                  ///< founder: the run. Joiner: zero takes the one that it meets
    std::string manifest{};        ///< handed to those who enter, at most 1 MiB; empty for a fresh joiner, who gets it
    std::uint64_t next_round = 0;  ///< the round that this replica is to apply next
    bool fresh = true;             ///< joiner: true has no replica and wants a snapshot
    /// Folder of the run log, which each node keeps: created, or continued if it exists. What was promised to others
    /// lies there, so a copy must never run beside the original; the folder itself is locked while a node uses it. A
    /// snapshot with which the log began, not made here, lies there as <round in 20 digits>.snapshot.
    std::filesystem::path log{};
    bool log_durable = true;  ///< a round is on the device before anybody is told of it
    /// How far a segment of the log grows, in bytes and rounds: what drop_log_before() drops at once.
    std::uint64_t log_segment_bytes = std::uint64_t{64} << 20U;
    std::uint64_t log_segment_rounds = UINT64_MAX;
    bool votes = true;        ///< counts when it is decided what is final and who orders the rounds; a founder must
    bool contributes = true;  ///< false: a witness, which votes and calls follow() instead of exchange()
    std::size_t max_contributors = 65536;  ///< who would contribute is let in while the view has fewer that do
    int min_peers = 1;  ///< contributors present before the first round that this node closes, itself included
    // Times are at most a year.
    std::chrono::milliseconds connect_timeout{15000};  ///< joiner whose log names nobody: until it meets somebody
    /// How long the others are looked for when all are lost, or when none is met whom the log names.
    std::chrono::milliseconds reconnect_timeout{600000};
    std::chrono::milliseconds takeover{5000};      ///< who orders the rounds and is not heard for so long is replaced
    std::chrono::milliseconds absence{60000};      ///< who is gone for so long does not count any more until it returns
    std::chrono::milliseconds min_deadline{2000};  ///< bounds of the adaptive wait for a peer's payload
    std::chrono::milliseconds max_deadline{120000};
    bool waits_for_slow = true;  ///< see set_deadlines()
    /// Called on the node's thread, when this node orders the rounds, before a payload may be committed. Its message
    /// goes to the sender.
    std::function<result<ok>(std::uint64_t round, peer_id peer, std::span<const std::byte> payload)> validate{};
    bool awaits_check = false;  ///< this node orders no rounds until check_payloads_with() was called

    std::chrono::milliseconds handshake_timeout{5000};  ///< a connection that is not admitted by then is closed
    std::chrono::milliseconds keepalive_interval{1000};
    std::chrono::milliseconds keepalive_timeout{20000};  ///< silence that ends a connection
    std::chrono::milliseconds leave_timeout{10000};      ///< how long leave() may wait for others
    std::size_t max_payload = std::size_t{64} << 20U;    ///< bytes of one payload
    std::size_t max_connections = 256;
    /// Who this node is. Traffic is then TLS 1.3, both sides show their keys, and only those on the list may enter.
    std::shared_ptr<const runtime::identity> identity{};
    /// The file of that list (`access_list`), read again within two seconds when it changes. Connections of a key that
    /// it calls revoked are closed then. One that was taken off it, or is revoked, is revoked for the whole run by the
    /// next record, and where the run had let it in, its connections are closed by that record. A file that is gone or
    /// cannot be read changes nothing.
    std::filesystem::path access{};
    /// Instead of an identity: no encryption, nobody's name is proven, loopback addresses only.
    bool plaintext = false;
    /// Called on the node's thread with one line for the operator: a connection that was refused, of strangers and of
    /// revoked keys at most 20 a minute each; trouble with the list of keys or a snapshot; nobody orders the rounds,
    /// and somebody does again.
    std::function<void(const std::string& line)> notice{};
    /// Called on the node's thread with a key that an invite let in, what its peer calls itself, and where it came
    /// from.
    std::function<void(const public_key& key, const std::string& name, const std::string& from)> enrolled{};
    /// Does what stop() does, and also ends a join() that still waits.
    std::stop_token stop{};
};

/// The rounds, first and last, at which a replica may be to go on with the log in a folder; nothing when there is none
/// that can be read. Throws node_error(storage), io_error.
[[nodiscard]] std::optional<std::pair<std::uint64_t, std::uint64_t>> rounds_that_fit(const std::filesystem::path& log);

/// A peer of a run over TCP. All nodes are alike: each keeps the log, connects to the others, and one of them, which a
/// majority chooses and replaces when it is gone, orders the rounds (docs/protocol.md). Satisfies `transport`. Each
/// node runs one thread of its own from found() / join() until it is destroyed.
///
/// Thread safety: status(), request() and stop() from any thread; everything else from one thread at a time.
/// Every call that waits ends with a node_error when the run or the node is stopped, never hangs on a lost peer.
class node {
 public:
    /// Throws what found() or join() would for options that they refuse and an address at which they cannot listen, and
    /// changes nothing: for a caller that has something to do before, such as enrol().
    static void check(node_options options, bool founder);

    /// Begins a run, whose only member this node is at first, or goes on with its log as the member that it is.
    /// Throws value_error for options outside their range, node_error (port_in_use, unreachable for an address that
    /// cannot be used, run_mismatch for a log of another run, replica_diverged for one of another replica, storage).
    [[nodiscard]] static std::unique_ptr<node> found(node_options options);

    /// Connects to a peer of the run and from there to the others; a fresh joiner also receives the newest snapshot, in
    /// pieces from all that have it, and waits for the first one to be published. Throws value_error, node_error
    /// (unreachable, peers_lost where its log names members, version_mismatch, run_mismatch, refused, untrusted,
    /// run_stopped, replica_diverged, storage, protocol).
    [[nodiscard]] static std::unique_ptr<node> join(node_options options);

    node(const node&) = delete;
    node& operator=(const node&) = delete;
    /// Ends the connections without a goodbye when leave() was not called.
    ~node();

    [[nodiscard]] peer_id self() const noexcept;
    [[nodiscard]] digest run() const;
    [[nodiscard]] std::string manifest() const;
    /// The port it listens on; 0: none.
    [[nodiscard]] std::uint16_t port() const;

    /// Joiner that was fresh: the snapshot's bytes, once; empty otherwise.
    [[nodiscard]] std::vector<std::byte> take_snapshot();
    /// The round that snapshot is at: the first to ask catch_up for.
    [[nodiscard]] std::uint64_t snapshot_round() const;

    /// Commits from `next_round` on, in order; empty when there are no more, or an error when the node has ended, as
    /// exchange() throws it. Hands out at most about 64 MiB at a time, so that a long absence fits in memory: call it
    /// until it returns none. A caller that is still behind when it calls exchange() gets the rest there. The bytes
    /// stay valid until the next catch_up or exchange.
    [[nodiscard]] std::span<const commit> catch_up(std::uint64_t next_round);

    /// See `transport`. Throws value_error when `round` is not the next after the last commit handed out or the
    /// payload is empty or above max_payload; node_error (peers_lost, behind, run_stopped, refused, storage, protocol).
    /// A commit may hold no contribution: it then only changes who takes part, or a setting. After a restart the log
    /// may end with a round that is not known to be final: its commit may hold an earlier payload of this peer, and a
    /// payload for it that options.validate refuses, as one in flight for the round after, is not sent.
    [[nodiscard]] std::span<const commit> exchange(std::uint64_t round, std::span<const std::byte> payload);

    /// What exchange() is to a witness: waits for the commit of `round`, and gives it and those after it. Throws
    /// value_error and node_error as exchange() does.
    [[nodiscard]] std::span<const commit> follow(std::uint64_t round);

    /// What fresh joiners may get from here from now on. `round` is the next that the snapshot's owner would apply.
    /// Throws value_error for no bytes and for one before the log's begin; if drop_log_before() moves that meanwhile, a
    /// notice says so.
    void publish_snapshot(std::uint64_t round, std::vector<std::byte> bytes);

    /// The log may lose the rounds before `round`. It does as far as whole segments lie before it, the newest
    /// published snapshot, and what a present peer is still to get. Who returns from before all logs gets `behind`.
    void drop_log_before(std::uint64_t round);

    /// From now on, instead of node_options::validate.
    void check_payloads_with(
        std::function<result<ok>(std::uint64_t round, peer_id peer, std::span<const std::byte> payload)> check);

    /// From now on, instead of the options. `waits_for_slow`: who missed a round's deadline is waited for again once it
    /// computes; otherwise only now and then, after 1, 2, 4, ... 64 rounds, so that a slow peer costs the others
    /// nothing. What it sends in time counts all the same. Throws value_error unless 1 ms <= least <= most.
    void set_deadlines(std::chrono::milliseconds least, std::chrono::milliseconds most, bool waits_for_slow);

    /// From now on, instead of the option.
    void set_max_contributors(std::size_t most);

    /// From now on, instead of node_options::takeover, as a joiner that learns it from the manifest; keepalives come at
    /// least four times as often. Throws value_error below 4 ms.
    void set_takeover(std::chrono::milliseconds takeover);

    /// Has the run changed, by one of the next commits, for all at once. What another node asks for at the same time
    /// may come first; nothing is reported back, status() and later commits show it. Throws value_error for a kind that
    /// is none, and for a key or value above 512 bytes.
    void request(const control_change& change);

    /// Says goodbye, in leave_timeout and three seconds at most: the others go on without this node, which first lets
    /// another order the rounds if it does so itself. With `stop_run` the run ends for all, by a commit after which
    /// they get run_stopped; without a majority only this node ends. Nothing else may be called afterwards but
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
