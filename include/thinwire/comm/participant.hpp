#ifndef THINWIRE_COMM_PARTICIPANT_HPP
#define THINWIRE_COMM_PARTICIPANT_HPP

#include <thinwire/comm/detail/adaptive_deadline.hpp>
#include <thinwire/comm/detail/transfer.hpp>
#include <thinwire/comm/effect.hpp>
#include <thinwire/comm/message.hpp>
#include <thinwire/comm/view.hpp>
#include <thinwire/core/result.hpp>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace thinwire {

/// Decides whether a payload may be committed. Must depend on nothing but its arguments.
using payload_check = std::function<result<ok>(std::uint64_t round, peer_id peer, std::span<const std::byte> payload)>;

/// What a participant knows of a peer.
struct member_status {
    peer_id peer = 0;
    std::string name;
    std::string about;  ///< as it said when it was linked last; empty: nothing
    bool present = false;
    int strikes = 0;
};

struct participant_settings {
    digest run{};  ///< zero: whatever runs where the first link leads
    peer_id self = 0;
    std::uint64_t session = 0;      ///< of this process: greater than those of this peer's earlier ones
    std::uint64_t incarnation = 0;  ///< drawn once per log
    std::string name;
    std::string about;    ///< what this peer tells people of itself, at most wire_limits::max_about
    std::string address;  ///< where others may dial this peer; empty: nowhere
    std::string key;
    /// This peer's signature of a statement, and whether one is by the holder of a key. None, where peers have no keys:
    /// then who passes a payload on is believed about whose it is.
    std::function<signature_bytes(std::span<const std::byte> what)> sign;
    std::function<bool(std::string_view key, std::span<const std::byte> what, const signature_bytes&)> verify;
    std::string manifest;
    bool votes = true;
    bool contributes = true;
    std::vector<std::string> seeds;  ///< addresses to begin with when the view's are not known or do not answer

    // What lies on the disk. A founder's first start: a state whose view holds the founder, and nothing else.
    bool fresh = false;            ///< no replica and no log: wants a snapshot
    std::uint64_t log_begin = 0;   ///< the first round in the log
    std::uint64_t begin_term = 0;  ///< the term of the record below it: what a voter may not forget
    commit_ptr last;               ///< the last record in the log
    bool last_final = false;       ///< it is known to be final; when in doubt, not
    run_state state;               ///< before the last record, or after it when it is final
    std::uint64_t voted_term = 0;  ///< the newest vote
    peer_id voted_for = 0;
    std::uint64_t local_round = 0;  ///< the round that the local replica is to apply next

    /// A peer that contributes is let in while the view has fewer of them.
    std::size_t max_contributors = wire_limits::max_members;
    int min_peers = 1;       ///< present before the first round that this process closes, this peer included
    payload_check validate;  ///< none: everything passes
    bool checks = false;     ///< does not sequence while there is no `validate`

    timestamp min_deadline = 2'000'000;
    timestamp max_deadline = 120'000'000;
    /// False: who misses a deadline is not waited for in the next round, or the next two, four ... of them.
    bool waits_for_slow = true;
    timestamp handshake_timeout = 5'000'000;
    timestamp keepalive_interval = 1'000'000;
    timestamp keepalive_timeout = 20'000'000;
    timestamp takeover = 5'000'000;        ///< a sequencer that is not heard for so long is replaced
    timestamp absence = 60'000'000;        ///< a member without a link for so long is taken out of the view
    timestamp leave_timeout = 10'000'000;  ///< for handing over, and for others to get the last record
    timestamp connect_timeout = 15'000'000;
    timestamp reconnect_timeout = 30'000'000;
    timestamp attempt_timeout = 5'000'000;  ///< one try to connect
    timestamp first_pause = 100'000;        ///< between tries; doubles up to the last
    timestamp last_pause = 2'000'000;
    std::size_t max_links = 1200;
    std::size_t mesh = 64;                              ///< up to so many others: everyone is linked with everyone
    std::size_t max_commit = std::size_t{512} << 20U;   ///< payload bytes of one round
    std::size_t window = std::size_t{64} << 20U;        ///< bytes of commits that the replica may have untaken
    std::size_t recent = std::size_t{64} << 20U;        ///< bytes of records kept in memory
    std::size_t max_snapshot = std::size_t{16} << 30U;  ///< bytes
    int max_strikes = 3;                                ///< at one peer: then it asks for a ban
};

/// The protocol of a peer, whatever its part: a pure state machine that follows, and sequences when the others vote for
/// it. Its driver hands in events, each with the time, performs take_effects() in order after each of them, and calls
/// tick() at wake_at(). docs/protocol.md has the rules; the parts below are in detail/participant_*.hpp.
class participant {
 public:
    participant(participant_settings settings, timestamp now);

    // Links.
    /// A stranger connected: the number of its link. Numbers are never used again.
    [[nodiscard]] link_id link_opened(timestamp now);
    void dialled(link_id link, timestamp now);
    void dial_failed(link_id link, const std::string& why, timestamp now);
    void link_closed(link_id link, const std::string& why, timestamp now);
    /// Bytes came in, whether or not they end a message.
    void heard(link_id link, timestamp now);
    /// The link carried something that is no message of this protocol.
    void broken(link_id link, const std::string& why, timestamp now);
    void received(link_id link, message m, timestamp now);

    // The log.
    void stored(timestamp now);
    void voted(timestamp now);
    void loaded(commit_ptr record, timestamp now);
    /// The log cannot be written or read: this peer leaves at once.
    void storage_failed(const std::string& why, timestamp now);

    // The local replica and its owner.
    /// Its payload for `round`, of which it has everything below. Refused ones give a rejected_effect.
    void payload_ready(std::uint64_t round, shared_bytes payload, timestamp now);
    /// It has everything below `round`. Precondition: those commits were delivered.
    void taken(std::uint64_t round, timestamp now);
    void snapshot_published(std::uint64_t round, shared_bytes bytes, timestamp now);
    /// The round, `wanted` or one before, below which nobody who is here is to get anything from this peer's log.
    [[nodiscard]] std::uint64_t log_needed_from(std::uint64_t wanted) const noexcept;
    /// The log has lost the rounds below `round`. Precondition: round <= log_needed_from(round).
    void log_begins(std::uint64_t round) noexcept { log_begin_ = round; }
    /// Changes for what follows: validate, max_contributors, the deadlines, waits_for_slow, takeover,
    /// keepalive_interval.
    void tune(const std::function<void(participant_settings&)>& change, timestamp now);
    /// Has the run changed, here and everywhere, by one of the next records.
    void request(const control_change& change, timestamp now);
    /// Says goodbye; a sequencer first has itself taken out of the view and another take over.
    void leave(timestamp now);

    void tick(timestamp now);
    [[nodiscard]] std::optional<timestamp> wake_at() const;
    [[nodiscard]] std::vector<effect> take_effects() noexcept { return std::exchange(effects_, {}); }

    [[nodiscard]] bool over() const noexcept { return over_; }
    /// The run, zero while it is not known, and what those who enter are told of it.
    [[nodiscard]] const digest& run() const noexcept { return settings_.run; }
    [[nodiscard]] const std::string& manifest() const noexcept { return settings_.manifest; }
    /// When somebody last ordered the rounds, as far as this peer knows.
    [[nodiscard]] timestamp ordered() const noexcept { return ordered_; }
    /// Among those of the view that contribute, in its order: those before this peer; all, where it is not in the view.
    [[nodiscard]] std::size_t place() const noexcept;
    [[nodiscard]] bool leading() const noexcept { return role_ == role::leader; }
    /// Records below are final and in the log.
    [[nodiscard]] std::uint64_t round() const noexcept { return final_; }
    [[nodiscard]] std::uint64_t term() const noexcept { return term_; }
    [[nodiscard]] peer_id sequencer() const noexcept { return sequencer_; }
    [[nodiscard]] const run_state& state() const noexcept { return state_; }
    /// The furthest that a linked peer claims to be, or this one is.
    [[nodiscard]] std::uint64_t newest_round() const noexcept;
    /// Whether those who decide, this peer with them, are here and no further: then no more is final, whoever says so.
    [[nodiscard]] bool none_further() const;
    /// The newest state heard of, which a peer that is behind has not reached yet.
    [[nodiscard]] const run_state& newest_state() const noexcept {
        return contacts_round_ > final_ ? contacts_ : state_;
    }
    /// Whether this peer is in the view, as whom it is now.
    [[nodiscard]] bool entered() const noexcept { return in(state_.view); }
    [[nodiscard]] std::vector<member_status> members() const;

 private:
    enum class role : std::uint8_t { follower, trial, voting, candidate, leader };
    enum class phase : std::uint8_t { dialling, greeted, stranger, linked };
    /// Two authors may send the same bytes, and one may send them again.
    struct pool_key {
        digest content;
        peer_id author = 0;
        std::uint64_t round = 0;
        [[nodiscard]] auto operator<=>(const pool_key&) const = default;
    };
    struct snapshot_state {
        std::uint64_t round = 0;
        digest content;
        shared_bytes bytes;
        shared_bytes state;
    };
    struct link_state {
        phase at = phase::stranger;
        peer_id peer = 0;  ///< whom we dial or who it is; 0: not known
        std::string address;
        hello_message hello;
        timestamp opened = 0, heard = 0, sent = 0;
        status_message says, told;
        bool has_said = false;
        timestamp moved = 0;           ///< when it last came further
        std::uint64_t relayed_in = 0;  ///< the newest term in which it was asked to pass the local payload on
        std::pair<std::uint64_t, std::uint64_t> proposed{};     ///< term and round + 1 of the newest proposal it got
        std::set<pool_key> open;                                ///< what it has of which pieces may be asked for
        std::multiset<std::pair<digest, std::uint64_t>> asked;  ///< pieces on their way from it
        std::size_t waiting = 0;                                ///< its requests that wait for the log
        std::shared_ptr<const snapshot_state> snapshot;         ///< that it was offered, until it has it
    };
    struct peer_state {
        std::string name, about, address;  ///< as it said when it was linked last
        link_id link = 0;
        std::uint64_t session = 0;
        int strikes = 0;
        bool waited = false;              ///< the round stays open for it
        bool excluded = false;            ///< its payload for this round was refused
        std::optional<timestamp> missed;  ///< when the round that it missed began
        std::uint64_t pause = 0;          ///< for so many rounds it is not waited for after a miss
        std::uint64_t waited_from = 0;    ///< the round from which it is
        timestamp heard = 0;
        timestamp gone = 0;  ///< since when there is no link
        bool left = false;   ///< it said goodbye
    };
    struct dial_state {
        link_id link = 0;  ///< the try under way
        timestamp next = 0;
        timestamp pause = 0;
    };
    struct held_payload {
        std::uint64_t session = 0;
        bool relay = false;
        shared_bytes bytes;           ///< once it is complete
        signature_bytes signature{};  ///< the author's, checked where it matters: when somebody passes it on
        detail::comm::transfer moving;
    };
    /// A record on its way into the log.
    struct assembly {
        commit_record record;
        bool final = false;
        bool borrowed = false;        ///< not for the log, but to be proposed
        bool searched = false;        ///< `lacking` is known, and whoever has one of them is a source of it
        std::set<peer_id> lacking{};  ///< authors whose payload is not here
    };
    struct question {
        link_id link = 0;
        std::uint64_t round = 0;
        std::optional<fetch_message> fetch;  ///< none: the record itself
    };
    struct fetching {
        welcome_message offer;
        detail::comm::transfer moving;
    };
    static constexpr std::size_t pieces_ahead = 8;    ///< asked of one link at a time
    static constexpr std::size_t pulls_ahead = 8;     ///< rounds
    static constexpr std::size_t max_waiting = 64;    ///< requests of one link that wait for the log
    static constexpr std::size_t max_relayed = 1024;  ///< payloads held for later rounds or other authors
    static constexpr std::uint64_t max_pause = 64;    ///< rounds

    // Greeting, and what a peer says of itself: detail/participant_greeting.hpp.
    void on(link_id link, hello_message& m, timestamp now);
    void on(link_id link, welcome_message& m, timestamp now);
    void on(link_id link, refuse_message& m, timestamp now);
    void on(link_id link, goodbye_message& m, timestamp now);
    void on(link_id link, status_message& m, timestamp now);
    void on(link_id, ping_message&, timestamp) {}
    [[nodiscard]] hello_message introduction() const;
    [[nodiscard]] std::size_t contributors() const noexcept;
    [[nodiscard]] std::string no_place() const;
    [[nodiscard]] std::optional<refuse_message> objection(const hello_message& hello) const;
    void connect(link_id link, const hello_message& hello, timestamp now);
    void learn_view(const shared_bytes& state, std::uint64_t round);
    void meet_members(timestamp now);
    [[nodiscard]] welcome_message welcome(link_id link, const hello_message& to);
    void refuse(link_id link, refusal code, std::string text, timestamp now);
    [[nodiscard]] bool shown_out(peer_id by);

    // Links: detail/participant_links.hpp.
    void dial_wanted(timestamp now);
    void dial(const std::string& address, peer_id peer, timestamp now);
    [[nodiscard]] std::vector<const view_member*> wanted_links() const;
    [[nodiscard]] std::string where(const view_member& m) const;
    [[nodiscard]] std::size_t own_position() const;
    void announce(timestamp now);
    [[nodiscard]] status_message status(timestamp now) const;
    [[nodiscard]] std::string neighbour(timestamp now) const;
    [[nodiscard]] bool lacks_links() const;
    [[nodiscard]] bool reaches(const std::string& address) const;
    void send(link_id link, message m, timestamp now);
    void close(link_id link, std::string reason, bool fault, timestamp now);
    void forget(link_id link, timestamp now);
    [[nodiscard]] link_state* linked(peer_id peer);
    [[nodiscard]] const link_state* linked(peer_id peer) const { return const_cast<participant*>(this)->linked(peer); }
    [[nodiscard]] bool is_linked(link_id link) const;
    [[nodiscard]] bool alone() const noexcept;
    [[nodiscard]] bool in(const run_view& view) const noexcept;
    [[nodiscard]] bool is(const view_member& m, const link_state* l) const noexcept;

    // Time and end: detail/participant_time.hpp.
    void settle(timestamp now);
    [[nodiscard]] timestamp due(const link_state& l) const;
    [[nodiscard]] bool awaits_removal() const;
    [[nodiscard]] bool needed_to_go() const;
    void depart(timestamp now);
    void farewell(const std::string& text, bool stop, timestamp now);
    void maybe_end(timestamp now);
    void end(run_end code, std::string text);

    // Payloads: detail/participant_payloads.hpp.
    void begin_fetch(link_id link, const welcome_message& m, timestamp now);
    void on(link_id link, offer_message& m, timestamp now);
    void on(link_id link, fetch_message& m, timestamp now);
    void on(link_id link, piece_message& m, timestamp now);
    void on(link_id link, reject_message& m, timestamp now);
    [[nodiscard]] static offer_message offer_of(const pool_key& key, const held_payload& held);
    [[nodiscard]] offer_message own_offer() const;
    [[nodiscard]] bool proven(const offer_message& m, const link_state& l) const;
    void offer_own(link_id link, timestamp now);
    void pass_on(link_id link, timestamp now);
    held_payload* hold(const pool_key& key, std::uint64_t session, std::size_t size);
    held_payload* hold_as(const committed_payload& c, std::uint64_t round);
    void completed(const pool_key& key, timestamp now);
    void drop(const pool_key& key);
    template <class Goes>
    void drop_if(Goes&& goes);
    void add_source(const pool_key& key, link_id link, timestamp now);
    void ask_pieces(timestamp now);
    void reopen(const pool_key& key, const held_payload& held);
    void reopen_snapshot();
    void lose_source(link_id link);
    void begin_log(shared_bytes bytes, timestamp now);
    [[nodiscard]] shared_bytes find_payload(link_id link, const digest& content, std::uint64_t round, bool& wait);
    void answer(timestamp now);
    [[nodiscard]] bool try_answer(const question& q, timestamp now);
    void ask(question q, timestamp now);

    // The log: detail/participant_log.hpp.
    void on(link_id link, record_message& m, timestamp now);
    void on(link_id link, pull_message& m, timestamp now);
    void assemble(timestamp now);
    void search(timestamp now);
    [[nodiscard]] bool has(const link_state& l, const commit_record& r) const;
    void forget_stuck();
    void store(commit_ptr record, bool final);
    void finalize(timestamp now);
    void apply_control(const commit_record& record, run_state next, timestamp now);
    [[nodiscard]] std::uint64_t furthest_said() const;
    [[nodiscard]] bool newest() const;
    void heed(timestamp now);
    void learn_final(timestamp now);
    void advance(timestamp now);
    void pull(timestamp now);
    void borrow(link_id link, timestamp now);
    void pump_local();
    [[nodiscard]] std::uint64_t local_taken() const noexcept { return local_next_ - untaken_.size(); }
    [[nodiscard]] commit_ptr find(std::uint64_t round);
    [[nodiscard]] shared_bytes state_at(std::uint64_t round) const;

    // Rounds, while leading: detail/participant_rounds.hpp.
    void on(link_id link, request_message& m, timestamp now);
    void collect(const pool_key& key, timestamp now);
    void strike(peer_id peer);
    void enqueue(const control_change& change);
    void awake(peer_state& peer, timestamp now);
    void consider(timestamp now);
    [[nodiscard]] bool stand_aside(timestamp now);
    void make_way(peer_id peer, const run_state& state, timestamp now);
    void close_round(bool contributions, timestamp now);
    void propose(timestamp now);
    void propose_again(const commit_record& open, timestamp now);
    void propose_to(link_id link, timestamp now);
    void count_stored(timestamp now);
    struct next_step {
        run_state state;
        std::vector<control_change> postponed;  ///< requests that those who are here could not decide
    };
    [[nodiscard]] next_step next_state(timestamp now) const;
    void drop_absent(run_view& view) const;
    [[nodiscard]] run_view next_roster(timestamp now) const;
    [[nodiscard]] bool decided_here(const run_view& view) const;
    [[nodiscard]] bool change_due(timestamp now);
    [[nodiscard]] bool assembled() const;
    [[nodiscard]] bool expected(peer_id peer, const peer_state& p, timestamp now) const;
    [[nodiscard]] std::optional<timestamp> deadline() const;
    void send_requests(timestamp now);
    void forget_satisfied();
    [[nodiscard]] static bool satisfied(const run_state& state, const control_change& change);
    [[nodiscard]] static bool same_object(const control_change& a, const control_change& b);

    // Votes: detail/participant_votes.hpp.
    void on(link_id link, campaign_message& m, timestamp now);
    void on(link_id link, vote_message& m, timestamp now);
    void campaign(bool trial, timestamp now);
    void count_votes(timestamp now);
    void end_candidacy() noexcept;
    void lead(timestamp now);
    void step_down(std::uint64_t term, timestamp campaign_from);
    void follow(link_id link, std::uint64_t term, timestamp now);
    [[nodiscard]] bool hears_sequencer(timestamp now) const;
    [[nodiscard]] bool eligible() const;
    [[nodiscard]] bool stands_in() const;
    [[nodiscard]] bool none_hears() const;
    [[nodiscard]] timestamp rank() const;
    [[nodiscard]] std::optional<timestamp> campaign_at() const;
    [[nodiscard]] std::pair<std::uint64_t, std::uint64_t> last() const;
    [[nodiscard]] std::pair<std::uint64_t, std::uint64_t> claim() const;
    [[nodiscard]] const run_state* next_in_force() const noexcept;
    /// A run takes as many terms as it has elections: a leap is made up.
    [[nodiscard]] bool possible(std::uint64_t term) const noexcept {
        return term <= term_ || term - term_ <= (std::uint64_t{1} << 32U);
    }
    template <class Has>
    [[nodiscard]] bool quorums(Has&& has) const;

    participant_settings settings_;
    bool over_ = false;
    std::vector<effect> effects_;

    std::map<link_id, link_state> links_;
    link_id last_link_ = 0;
    timestamp links_due_ = 0;     ///< none of them needs a tick before
    std::uint64_t furthest_ = 0;  ///< none of them says that more rounds are final
    std::map<peer_id, peer_state> peers_;
    std::map<std::string, dial_state> dials_;
    std::map<std::string, peer_id> found_at_;  ///< who answered at a seed, whatever its address is otherwise
    /// Where a sequencer is dialled that others hear and this peer does not; or, 0, a peer when nobody hears one.
    std::pair<peer_id, std::string> hint_;
    run_state contacts_;  ///< the newest state heard of
    std::uint64_t contacts_round_ = 0;
    bool dial_due_ = true;
    status_message status_;
    bool admitted_once_ = false;
    std::set<peer_id> refused_by_;  ///< who showed this peer out, and was not linked since
    timestamp alone_since_ = 0;
    std::string trouble_;
    timestamp housekeeping_ = 0;

    std::uint64_t log_begin_ = 0;
    std::uint64_t final_ = 0;  ///< records below are final
    run_state state_;          ///< before round final_
    commit_ptr tentative_;     ///< of round final_, in the log
    std::optional<run_state> tentative_state_;
    commit_ptr borrowed_;  ///< of round final_, newer than what is in the log: this peer proposes it when it is elected
    std::optional<run_state> borrowed_state_;
    std::uint64_t last_term_ = 0;            ///< of the last record in the log
    std::optional<assembly> assembly_;       ///< of round final_
    std::optional<assembly> storing_;        ///< of round final_
    std::optional<record_message> pending_;  ///< the newest proposal, of a round after final_ or while storing
    std::map<std::uint64_t, commit_ptr> pulled_;
    std::map<std::uint64_t, std::pair<link_id, timestamp>> pulls_;
    std::size_t pull_turn_ = 0;
    bool seeking_ = false;  ///< a snapshot, though there is a log: nobody's joins on to it
    timestamp sought_ = 0;
    std::optional<timestamp> unserved_;  ///< since when the next record does not come, as nobody who is linked has it
    std::deque<commit_ptr> recent_;      ///< final, up to final_ - 1
    std::size_t recent_bytes_ = 0;
    std::vector<std::pair<std::uint64_t, shared_bytes>> states_;  ///< from which round on
    std::uint64_t local_next_ = 0;                                ///< the round to deliver next
    std::deque<std::size_t> untaken_;  ///< what those weigh that were delivered and not taken yet
    std::size_t untaken_weight_ = 0;
    std::optional<std::uint64_t> loading_;
    std::deque<commit_ptr> loaded_;
    std::deque<question> questions_;

    std::map<pool_key, held_payload> pool_;
    std::set<link_id> asking_;  ///< links of which more may be asked
    std::size_t pool_bytes_ = 0;
    std::optional<pool_key> own_;                     ///< of the local payload
    std::shared_ptr<const snapshot_state> snapshot_;  ///< the newest published; null: none
    std::optional<fetching> fetch_;
    bool local_active_ = false;

    std::uint64_t term_ = 0;
    std::uint64_t voted_term_ = 0;
    peer_id voted_for_ = 0;
    bool vote_storing_ = false;
    bool electing_ = false;  ///< somebody collects votes, and does not lead yet
    role role_ = role::follower;
    peer_id sequencer_ = 0;
    timestamp sequencer_heard_ = 0;
    timestamp settled_ = 0;
    timestamp ordered_ = 0;  ///< when somebody ordered the rounds, as far as this peer knew
    timestamp campaign_from_ = 0;
    timestamp campaign_began_ = 0;
    std::optional<timestamp> hearsay_;  ///< since when others alone hear a sequencer, nothing else having happened
    std::set<peer_id> granted_;
    mutable std::optional<timestamp> rank_;  ///< while neither links nor the view change
    mutable std::optional<bool> voter_;      ///< in state_.view

    std::map<peer_id, committed_payload> collected_;
    std::optional<timestamp> first_payload_;
    detail::comm::adaptive_deadline patience_;
    bool first_round_ = true;  ///< no record of this process's time with a payload is final
    bool roster_changed_ = true;
    std::optional<timestamp> change_since_;
    std::vector<control_change> requests_;               ///< of this peer, until the state shows them
    std::vector<control_change> changes_;                ///< of all, for the next record
    std::pair<link_id, std::uint64_t> requests_told_{};  ///< over which link and in which term
    std::set<peer_id> dismissed_;                        ///< whom the record under way removes on request
    peer_id promoted_ = 0;                               ///< to whom this sequencer gives way
    timestamp promoted_by_ = 0;                          ///< or else goes on
    std::optional<timestamp> stood_aside_;
    bool leaving_ = false;
    bool stopping_ = false;
    timestamp leave_by_ = 0;
};

}  // namespace thinwire

#include <thinwire/comm/detail/participant_greeting.hpp>
#include <thinwire/comm/detail/participant_links.hpp>
#include <thinwire/comm/detail/participant_log.hpp>
#include <thinwire/comm/detail/participant_payloads.hpp>
#include <thinwire/comm/detail/participant_rounds.hpp>
#include <thinwire/comm/detail/participant_time.hpp>
#include <thinwire/comm/detail/participant_votes.hpp>

#endif  // THINWIRE_COMM_PARTICIPANT_HPP
