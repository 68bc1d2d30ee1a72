#ifndef THINWIRE_TESTS_UNIT_COMM_MESH_SIMULATOR_HPP
#define THINWIRE_TESTS_UNIT_COMM_MESH_SIMULATOR_HPP

#include <thinwire/comm/frame.hpp>
#include <thinwire/comm/participant.hpp>
#include <thinwire/core/random.hpp>

#include "unit/comm/mesh_parts.hpp"

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace mesh {

/// Peers of one run on one thread, in virtual time. One seed decides everything.
class world {
 public:
    struct options {
        int peers = 4;
        int contributors = 1 << 20;  ///< peers above take part without computing
        int late = 0;                ///< how many of them join later, all at once
        timestamp late_at = 0;
        std::vector<std::pair<timestamp, fault>> script{};  ///< faults beside those that are drawn
        std::size_t progress = 5;  ///< rounds that the last third of the calm must have at least
        timestamp trouble = 12'000'000;
        timestamp calm = 18'000'000;
        int fault_every_ms = 400;
        timestamp compute = 250'000;    ///< the longest of a round
        timestamp keepalive = 250'000;  ///< the other timeouts grow with it
        std::size_t payload_words = 60;
        std::size_t mesh = 64;
        bool hidden = true;  ///< some peers cannot be dialled
        bool waits_for_slow = true;
        bug broken = bug::none;
        peer_id breaker = 0;  ///< who has the bug; 0: everyone
        std::array<int, fault_kinds> weights{20, 8, 8, 8, 6, 8, 12, 10, 10, 4, 3, 3, 6, 6};
    };
    world(std::uint64_t seed, options o)
        : random_(seed), options_(o), large_snapshots_(seed % 3 == 0), strict_(seed % 2 == 0), bans_(seed % 4 != 3) {
        hidden_.resize(static_cast<std::size_t>(options_.peers) + 1);
        for (int p = 3; p <= options_.peers; ++p) hidden_[static_cast<std::size_t>(p)] = options_.hidden && chance(20);
        if (std::ranges::count(hidden_, true) > 1) anchor_ = 1 + random_.below(2);
    }

    world(const world&) = delete;
    world& operator=(const world&) = delete;
    ~world() {  // what is deferred holds its process
        for (const auto& [peer, p] : now_at_) p->deferred.clear();
    }

    /// Runs to the end; throws violation.
    void run() {
        for (int p = 1; p <= options_.peers; ++p)
            at(p > options_.peers - options_.late ? options_.late_at : 0,
               [this, p] { start(static_cast<peer_id>(p)); });
        drain(0);
        if (options_.fault_every_ms > 0) after(300'000, [this] { trouble(); });
        for (const auto& [when, kind] : options_.script) at(when, [this, k = kind] { inflict(k); });
        drain(options_.trouble);
        heal();
        drain(options_.trouble + options_.calm * 2 / 3);
        const std::uint64_t before = finals_.size();
        const std::size_t frames_before = frames_;
        drain(options_.trouble + options_.calm);
        calm_rounds_ = finals_.size() - before;
        calm_frames_ = frames_ - frames_before;
        require(calm_rounds_ >= options_.progress, "no progress: round " + std::to_string(before) + " in the calm, " +
                                                       std::to_string(finals_.size()) + " later" + describe());
        require(contributors_ == std::min(present(), static_cast<std::size_t>(options_.contributors)),
                "the last record has " + std::to_string(contributors_) + " payloads" + describe());
        if (strict_) check_strikes();
        finish();
    }

    [[nodiscard]] std::size_t rounds() const noexcept { return finals_.size(); }
    [[nodiscard]] std::size_t returned() const noexcept { return returned_; }
    [[nodiscard]] std::size_t replaced() const noexcept { return replaced_; }
    [[nodiscard]] std::size_t leaders() const noexcept { return leaders_.size(); }
    [[nodiscard]] std::size_t views() const noexcept { return views_; }
    /// Of the last third of the calm: milliseconds a round, and messages that a peer sends for one.
    [[nodiscard]] double calm_round_ms() const noexcept {
        return static_cast<double>(options_.calm) / 3000.0 / static_cast<double>(calm_rounds_);
    }
    [[nodiscard]] double calm_messages() const noexcept {
        return static_cast<double>(calm_frames_) / static_cast<double>(calm_rounds_) / options_.peers;
    }
    [[nodiscard]] std::size_t faults(fault kind) const noexcept { return counts_[static_cast<std::size_t>(kind)]; }

 private:
    struct end {
        process_ptr who;
        link_id id = 0;
        bool open = true;
        timestamp arrives = 0;  ///< when the last bytes sent to it arrive: their order is kept
        bool deaf = false;      ///< nothing more reaches it
        frame_decoder decoder{limits()};
    };
    struct link {
        end ends[2];  ///< dialler, accepter
        timestamp delay = 0;
        timestamp stalled_until = 0;
    };
    using link_ptr = std::shared_ptr<link>;
    struct event {
        timestamp when = 0;
        std::uint64_t number = 0;
        std::shared_ptr<std::function<void()>> action;
        bool operator<(const event& other) const noexcept {
            return when != other.when ? when > other.when : number > other.number;
        }
    };

    static wire_limits limits() {
        wire_limits l;
        l.max_payload = std::size_t{1} << 20U;
        l.max_commit = std::size_t{8} << 20U;
        return l;
    }

    // ------------------------------------------------------------------------------------------------- time

    void at(timestamp when, std::function<void()> action) {
        events_.push(
            {std::max(when, now_), ++events_made_, std::make_shared<std::function<void()>>(std::move(action))});
    }
    void after(timestamp wait, std::function<void()> action) { at(now_ + wait, std::move(action)); }
    /// Something that happens to a process: later when it stands still, never when it is dead.
    void to(const process_ptr& p, timestamp when, std::function<void()> action) {
        at(when, [this, p, action = std::move(action)] {
            if (!p->alive || p->ended) return;
            if (p->paused_until > now_ || !p->deferred.empty()) return p->deferred.push_back(action);
            action();
            settle(p);
        });
    }
    void pause(const process_ptr& p, timestamp until) {
        p->paused_until = until;
        at(until, [this, p, until] {
            if (p->paused_until != until) return;
            for (const auto& action : std::exchange(p->deferred, {})) {
                if (!p->alive || p->ended) return;
                action();
                settle(p);
            }
        });
    }
    void drain(timestamp until) {
        while (!events_.empty() && events_.top().when <= until) {
            const event next = events_.top();
            events_.pop();
            now_ = next.when;
            (*next.action)();
        }
        now_ = until;
    }
    [[nodiscard]] timestamp below(timestamp n) {
        return static_cast<timestamp>(random_.below(static_cast<std::uint64_t>(n)));
    }
    [[nodiscard]] bool chance(int percent) { return below(100) < percent; }
    [[nodiscard]] timestamp clock(const process& p) const noexcept { return p.offset + now_ * p.rate / 1000; }
    [[nodiscard]] bool buggy(const process& p, bug b) const noexcept {
        return options_.broken == b && (options_.breaker == 0 || options_.breaker == p.peer);
    }

    // --------------------------------------------------------------------------------------------- processes

    [[nodiscard]] std::string address(peer_id peer) const {
        return hidden_[static_cast<std::size_t>(peer)] ? std::string() : "peer:" + std::to_string(peer);
    }

    void start(peer_id peer);
    static void fold(disk& d);
    void restore(process& p, const disk& d, participant_settings& s);
    void configure(participant_settings& s) const;
    void settle(const process_ptr& p);
    bool advance(const process_ptr& p);
    void take(process& p, const commit_record& record);
    void save(const process_ptr& p);
    [[nodiscard]] shared_bytes encode(std::uint64_t round, const digest& state) const;
    void kill(const process_ptr& p);
    static void write(disk& d, const commit_ptr& record);

    // ------------------------------------------------------------------------------------------------ effects

    void perform(const process_ptr& p, send_effect& e);
    void perform(const process_ptr& p, admit_effect& e);
    void perform(const process_ptr& p, close_effect& e);
    void perform(const process_ptr& p, store_effect& e);
    void complete_write(process& p);
    void perform(const process_ptr& p, vote_effect& e);
    void perform(const process_ptr& p, final_effect& e);
    void perform(const process_ptr& p, load_effect& e);
    void perform(const process_ptr& p, deliver_effect& e) { p->queue.push_back(e.record); }
    void perform(const process_ptr& p, dial_effect& e);
    void perform(const process_ptr& p, snapshot_effect& e);
    void perform(const process_ptr& p, rejected_effect& e);
    void perform(const process_ptr& p, end_effect& e);

    // ------------------------------------------------------------------------------------------------ links

    [[nodiscard]] std::pair<link_ptr, int> find(const process_ptr& p, link_id id);
    void arrive(const link_ptr& l, int side, const std::vector<std::byte>& bytes);
    void tell_closed(const link_ptr& l, int side);
    void cut(const link_ptr& l);
    [[nodiscard]] bool apart(peer_id a, peer_id b) const {
        return !group_.empty() && group_.contains(a) != group_.contains(b);
    }

    // ----------------------------------------------------------------------------------------------- faults

    [[nodiscard]] bool troubled() const noexcept { return now_ < options_.trouble; }

    void trouble();
    void inflict(fault kind);
    void ask(process& p);
    void attack(const process_ptr& p);
    void destroy(const process_ptr& p);
    [[nodiscard]] bool may_lose(peer_id peer);
    [[nodiscard]] bool may_vanish(peer_id peer);
    /// Peers that take part in the end.
    [[nodiscard]] std::size_t present() const noexcept {
        return static_cast<std::size_t>(options_.peers) - gone_.size();
    }
    void split();
    void revive(peer_id peer, timestamp wait);
    void heal();

    /// Somebody stops the run: all end, with everything and in the same state.
    void finish() {
        finishing_ = true;
        process_ptr who;
        do who = now_at_[static_cast<peer_id>(1 + below(options_.peers))];
        while (gone_.contains(who->peer));
        to(who, now_, [this, who] { who->machine->request({control_change::kind::stop, 0, "", ""}, clock(*who)); });
        drain(now_ + 10'000'000);
        require(stopped_ == present(), std::to_string(stopped_) + " peers were stopped" + describe());
    }

    /// Nobody breaks the rules but those that were told to.
    void check_strikes() const {
        for (const auto& [peer, p] : now_at_)
            for (const member_status& m : p->machine->members())
                require(m.strikes == 0 || hostile_.contains(m.peer),
                        "peer " + std::to_string(m.peer) + " has strikes at peer " + std::to_string(peer) + describe());
    }

    [[nodiscard]] std::string describe() const {
        std::string text;
        for (const auto& [peer, p] : now_at_) {
            text += "\n  peer " + std::to_string(peer) + (p->alive ? "" : " dead") + (p->ended ? " ended" : "") +
                    " round " + std::to_string(p->machine->round()) + " replica " + std::to_string(p->round) +
                    " term " + std::to_string(p->machine->term()) + " sequencer " +
                    std::to_string(p->machine->sequencer()) + (p->machine->leading() ? " leads" : "") + " view";
            for (const view_member& m : p->machine->state().view.members)
                text += " " + std::to_string(m.peer) + (disks_.at(m.peer).incarnation == m.incarnation ? "" : "!") +
                        (m.address.empty() ? "-" : "");
            if (p->machine->state().paused) text += " paused";
            const disk& d = disks_.at(peer);
            if (!d.log.empty() && d.log.back()->round == p->machine->round() && d.log.back()->control) {
                text += " next view";
                const run_state next = decode_state(*d.log.back()->control).value();
                for (const view_member& m : next.view.members)
                    text += " " + std::to_string(m.peer) + (disks_.at(m.peer).incarnation == m.incarnation ? "" : "!");
            }
        }
        return text;
    }

    random_stream random_;
    options options_;
    bool large_snapshots_;  ///< some are of more than one piece
    bool strict_;           ///< three strikes are a ban; no frame breaks on its way
    bool bans_;             ///< peers are banned and keys revoked on request
    timestamp now_ = 0;
    std::priority_queue<event> events_;
    std::uint64_t events_made_ = 0;
    digest run_ = sha256{}.update("simulated run").finish();
    std::vector<bool> hidden_;
    peer_id anchor_ = 0;  ///< never banned or revoked, where there are peers that reach each other over others alone
    bool founded_ = false;
    std::map<peer_id, disk> disks_;
    std::map<peer_id, process_ptr> now_at_;  ///< the newest process of each peer
    process_ptr leader_;
    std::vector<link_ptr> links_;
    std::map<std::pair<std::uint64_t, link_id>, std::pair<link_ptr, int>> ends_;  ///< by process and its number
    std::set<peer_id> group_;
    std::uint64_t processes_ = 0;
    std::vector<digest> finals_;  ///< of each round, whoever finds it final first
    std::vector<digest> states_;
    std::set<digest> made_;  ///< payloads of those whose they are
    std::set<digest> committed_;
    std::map<std::uint64_t, peer_id> leaders_;
    run_state newest_;
    peer_id lost_ = 0;
    std::set<peer_id> gone_;     ///< for good
    std::set<peer_id> hostile_;  ///< that attacked at some time
    timestamp left_at_ = 0;
    std::size_t proposed_ = 0;  ///< rounds below were proposed by somebody
    std::size_t contributors_ = 0, returned_ = 0, replaced_ = 0, views_ = 0, frames_ = 0, stopped_ = 0;
    std::size_t calm_rounds_ = 0, calm_frames_ = 0;
    std::array<std::size_t, fault_kinds> counts_{};
    bool finishing_ = false;
};

}  // namespace mesh

#include "unit/comm/mesh_effects.hpp"
#include "unit/comm/mesh_faults.hpp"
#include "unit/comm/mesh_processes.hpp"

#endif  // THINWIRE_TESTS_UNIT_COMM_MESH_SIMULATOR_HPP
