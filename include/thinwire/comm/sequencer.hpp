#ifndef THINWIRE_COMM_SEQUENCER_HPP
#define THINWIRE_COMM_SEQUENCER_HPP

#include <thinwire/comm/detail/adaptive_deadline.hpp>
#include <thinwire/comm/detail/outflow.hpp>
#include <thinwire/comm/effect.hpp>
#include <thinwire/comm/message.hpp>
#include <thinwire/core/result.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace thinwire {

/// Decides whether a payload may be committed. Must depend on nothing but its arguments.
using payload_check = std::function<result<ok>(std::uint64_t round, peer_id peer, std::span<const std::byte> payload)>;

struct sequencer_settings {
    digest run{};
    peer_id self = 0;
    std::string name;
    std::string manifest;
    std::uint64_t term = 0;
    std::uint64_t log_begin = 0;    ///< the first round in the log
    std::uint64_t next_round = 0;   ///< the first round that is not in the log
    std::uint64_t local_round = 0;  ///< the round that the local replica is to apply next
    int min_peers = 1;              ///< present before the first round closes, this one included
    payload_check validate;         ///< none: everything passes

    timestamp min_deadline = 2'000'000;
    timestamp max_deadline = 120'000'000;
    timestamp handshake_timeout = 5'000'000;
    timestamp keepalive_interval = 5'000'000;
    timestamp keepalive_timeout = 20'000'000;
    timestamp leave_timeout = 10'000'000;
    std::size_t max_links = 256;
    std::size_t max_commit = std::size_t{512} << 20U;  ///< payload bytes of one round
    std::size_t window = std::size_t{64} << 20U;       ///< bytes of commits that a receiver may have untaken
    std::size_t recent = std::size_t{64} << 20U;       ///< bytes of commits kept in memory
    int max_strikes = 3;                               ///< then a peer is banned
};

/// What a sequencer knows of a peer.
struct member_status {
    peer_id peer = 0;
    std::string name;
    bool present = false;
    int strikes = 0;
    std::optional<std::uint64_t> last_round;  ///< the newest commit it is in
};

/// The protocol of the peer that orders the rounds: a pure state machine. Its driver hands in events, each with the
/// time, performs take_effects() in order after each of them, and calls tick() at wake_at().
///
/// A round closes when everyone who is worth waiting for has sent a payload, or when the deadline passes that starts
/// with the round's first payload. Worth waiting for is who is connected and active, and did not miss the last
/// deadline; before the first round of this machine closes: everyone who is connected.
class sequencer {
 public:
    sequencer(sequencer_settings settings, timestamp now);

    // Events of links. The driver numbers them and never uses a number again.
    void link_opened(link_id link, timestamp now);
    void link_closed(link_id link, timestamp now);
    /// Bytes came in, whether or not they end a message.
    void heard(link_id link, timestamp now);
    /// The link carried something that is no message of this protocol.
    void broken(link_id link, const std::string& why, timestamp now);
    void received(link_id link, message m, timestamp now);

    // Events of the log.
    void stored(timestamp now);
    void loaded(commit_ptr record, timestamp now);
    /// The log cannot be written or read: tells everyone that the run stops, and ends.
    void storage_failed(const std::string& why, timestamp now);

    // Events of the local replica.
    /// Its payload for `round`. Refused ones give a rejected_effect.
    void payload_ready(std::uint64_t round, const shared_bytes& payload, timestamp now);
    /// It has everything below `round`. Precondition: those commits were delivered.
    void taken(std::uint64_t round, timestamp now);
    void snapshot_published(std::uint64_t round, shared_bytes bytes, timestamp now);
    /// The round, `wanted` or one before, below which nobody who is present is to get anything from the log.
    [[nodiscard]] std::uint64_t log_needed_from(std::uint64_t wanted) const noexcept;
    /// The log has lost the rounds below `round`. Precondition: round <= log_needed_from(round).
    void log_begins(std::uint64_t round) noexcept { settings_.log_begin = round; }
    /// Closes no more rounds; says goodbye when all present peers have the last commit, or after leave_timeout.
    void leave(bool stop_run, timestamp now);

    void tick(timestamp now);
    /// When to call tick(); nothing when only other events can change anything.
    [[nodiscard]] std::optional<timestamp> wake_at() const;
    [[nodiscard]] std::vector<effect> take_effects() noexcept { return std::exchange(effects_, {}); }

    /// The next round to close: commits below it are durable.
    [[nodiscard]] std::uint64_t round() const noexcept { return round_; }
    [[nodiscard]] bool over() const noexcept { return over_; }
    /// Peers that took part since this machine began, this one included, by id.
    [[nodiscard]] std::vector<member_status> members() const;

 private:
    enum class phase : std::uint8_t { greeting, parked, member };
    struct link_state {
        phase at = phase::greeting;
        peer_id peer = 0;
        std::uint64_t session = 0;
        hello_message hello;  ///< while parked
        timestamp opened = 0;
        timestamp heard = 0;
        timestamp sent = 0;
        bool flowing = false;  ///< commits may be sent
        detail::comm::outflow flow;
        std::uint64_t received = 0;
        shared_bytes snapshot;  ///< what it fetches
        digest snapshot_digest;
        std::optional<std::pair<std::uint64_t, digest>> own;  ///< the payload it sent last: round, digest
    };
    struct member_state {
        std::string name;
        link_id link = 0;
        std::uint64_t session = 0;
        bool waited = false;  ///< the round stays open for it
        int strikes = 0;
        bool excluded = false;            ///< its payload for this round was refused
        std::optional<timestamp> missed;  ///< when the round that it missed began
        std::optional<std::uint64_t> last_round;
    };

    void on(link_id link, hello_message& m, timestamp now);
    void on(link_id link, submit_message& m, timestamp now);
    void on(link_id link, progress_message& m, timestamp now);
    void on(link_id link, fetch_message& m, timestamp now);
    void on(link_id, ping_message&, timestamp) {}
    void on(link_id link, goodbye_message& m, timestamp now);
    template <class Other>
    void on(link_id link, Other&, timestamp now) {
        broken(link, "a message that only a sequencer sends", now);
    }

    void greet(link_id link, timestamp now);
    void greet_parked(timestamp now);
    [[nodiscard]] std::optional<refuse_message> objection(const hello_message& hello) const;
    void replace(member_state& member, const hello_message& hello, timestamp now);
    void refuse(link_id link, refusal code, std::string text, timestamp now);
    void strike(peer_id peer) { ++members_[peer].strikes; }

    [[nodiscard]] bool collect(peer_id peer, const shared_bytes& payload, const digest& d, timestamp now);
    void awake(member_state& member, timestamp now);
    void consider(timestamp now);
    void close_round(timestamp now);
    [[nodiscard]] bool assembled() const;
    [[nodiscard]] std::optional<timestamp> deadline() const;

    void pump(timestamp now);
    void pump(link_id link, link_state& state, timestamp now);
    void pump_local();
    [[nodiscard]] commit_ptr find(std::uint64_t round);
    [[nodiscard]] static commit_ptr without_own(const commit_ptr& record, const link_state& state);

    void say_goodbye(bool stop_run, const std::string& text, timestamp now);
    void maybe_leave(timestamp now);
    void send(link_id link, link_state& state, message m, timestamp now);
    void close(link_id link, std::string reason, bool fault);
    void forget(link_id link);
    void end(run_end code, std::string text);

    sequencer_settings settings_;
    std::map<link_id, link_state> links_;
    std::map<peer_id, member_state> members_;
    std::uint64_t round_ = 0;
    std::map<peer_id, committed_payload> collected_;
    std::size_t collected_bytes_ = 0;
    std::optional<timestamp> first_payload_;  ///< of this round, or when the first round's peers were complete
    detail::comm::adaptive_deadline patience_;
    bool first_round_ = true;
    commit_ptr storing_;
    std::deque<commit_ptr> recent_;
    std::size_t recent_bytes_ = 0;
    detail::comm::outflow local_;
    std::optional<std::uint64_t> loading_;
    commit_ptr loaded_;
    shared_bytes snapshot_;
    digest snapshot_digest_;
    std::uint64_t snapshot_round_ = 0;
    bool leaving_ = false;
    bool stop_run_ = false;
    timestamp leave_by_ = 0;
    bool over_ = false;
    std::vector<effect> effects_;
};

}  // namespace thinwire

#include <thinwire/comm/detail/sequencer_impl.hpp>

#endif  // THINWIRE_COMM_SEQUENCER_HPP
