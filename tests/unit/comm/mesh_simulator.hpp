#ifndef THINWIRE_TESTS_UNIT_COMM_MESH_SIMULATOR_HPP
#define THINWIRE_TESTS_UNIT_COMM_MESH_SIMULATOR_HPP

#include <thinwire/comm/frame.hpp>
#include <thinwire/comm/participant.hpp>
#include <thinwire/core/random.hpp>

#include <algorithm>
#include <array>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace mesh {

using namespace thinwire;

/// What a broken invariant throws.
class violation : public std::logic_error {
    using std::logic_error::logic_error;
};
inline void require(bool holds, const std::string& what) {
    if (!holds) throw violation(what);
}

enum class fault : std::uint8_t {
    cut,          ///< a connection breaks, both ends learn of it
    silence,      ///< a connection carries nothing any more, nobody is told
    one_way,      ///< a connection carries nothing in one direction
    stall,        ///< a connection stands still for a while
    corrupt,      ///< a bit of a frame flips
    split,        ///< two groups of peers cannot reach each other for a while
    kill,         ///< a process dies: what was not synced is lost in part
    kill_leader,  ///< the same for the one that sequences
    pause,        ///< a process stands still
    leave,        ///< a process says goodbye
    lose_disk,    ///< a process dies and with it its disk
    change,       ///< not a fault: somebody asks for a setting, a pause or a resumption
    count
};
inline constexpr std::size_t fault_kinds = static_cast<std::size_t>(fault::count);

/// A driver or peer that breaks the rules, to see that the checks notice.
enum class bug : std::uint8_t { none, acknowledges_before_storing, forgets_votes, claims_any_log };

/// What a peer keeps across the death of its process.
struct disk {
    bool used = false;
    std::uint64_t incarnation = 0;
    std::uint64_t log_begin = 0;
    std::uint64_t begin_term = 0;
    std::vector<commit_ptr> log;
    std::size_t synced = 0;
    std::uint64_t final = 0;
    run_state base;
    std::uint64_t voted_term = 0;
    peer_id voted_for = 0;
    std::uint64_t replica_round = 0;
    digest replica;
};

struct process {
    peer_id peer = 0;
    std::uint64_t number = 0;
    bool alive = true;
    bool ended = false;
    std::unique_ptr<participant> machine;
    timestamp offset = 0;  ///< its clock shows offset + now * rate / 1000
    timestamp rate = 1000;
    timestamp paused_until = 0;
    std::optional<timestamp> armed;
    std::map<std::uint64_t, commit_ptr> held;  ///< what its machine believes to have stored
    std::deque<std::pair<commit_ptr, bool>> writing;
    std::optional<std::pair<std::uint64_t, peer_id>> voting;

    bool ready = false;
    std::uint64_t round = 0;
    digest state;
    std::deque<commit_ptr> queue;
    bool computing = false;
    shared_bytes offered;
};
using process_ptr = std::shared_ptr<process>;

[[nodiscard]] inline digest apply(const digest& state, const commit_record& record) {
    byte_writer out;
    out.put(record.round);
    if (record.control) out.put(std::span<const std::byte>(*record.control));
    for (const committed_payload& c : record.contributions) {
        out.put(c.peer);
        out.put(std::span<const std::byte>(*c.payload));
    }
    return sha256{}.update(state.bytes).update(out.bytes()).finish();
}

/// Peers of one run on one thread, in virtual time. One seed decides everything.
class world {
 public:
    struct options {
        int peers = 4;
        int contributors = 1 << 20;  ///< peers above take part without computing
        timestamp trouble = 12'000'000;
        timestamp calm = 18'000'000;
        int fault_every_ms = 400;
        std::size_t payload_words = 60;
        std::size_t mesh = 64;
        bool hidden = true;  ///< some peers cannot be dialled
        bool waits_for_slow = true;
        bug broken = bug::none;
        peer_id breaker = 0;  ///< who has the bug; 0: everyone
        std::array<int, fault_kinds> weights{20, 8, 8, 8, 6, 8, 12, 10, 10, 4, 3, 6};
    };
    static constexpr timestamp longest_compute = 250'000;

    world(std::uint64_t seed, options o) : random_(seed), options_(o) {
        hidden_.resize(static_cast<std::size_t>(options_.peers) + 1);
        for (int p = 3; p <= options_.peers; ++p) hidden_[static_cast<std::size_t>(p)] = options_.hidden && chance(20);
    }

    /// Runs to the end; throws violation.
    void run() {
        for (peer_id p = 1; p <= static_cast<peer_id>(options_.peers); ++p) start(p);
        if (options_.fault_every_ms > 0) after(300'000, [this] { trouble(); });
        drain(options_.trouble);
        heal();
        drain(options_.trouble + options_.calm * 2 / 3);
        const std::uint64_t before = finals_.size();
        drain(options_.trouble + options_.calm);
        require(finals_.size() >= before + 5, "no progress: round " + std::to_string(before) + " in the calm, " +
                                                  std::to_string(finals_.size()) + " later" + describe());
        require(contributors_ == static_cast<std::size_t>(std::min(options_.peers, options_.contributors)),
                "the last record has " + std::to_string(contributors_) + " payloads" + describe());
        finish();
    }

    [[nodiscard]] std::size_t rounds() const noexcept { return finals_.size(); }
    [[nodiscard]] std::size_t returned() const noexcept { return returned_; }
    [[nodiscard]] std::size_t replaced() const noexcept { return replaced_; }
    [[nodiscard]] std::size_t leaders() const noexcept { return leaders_.size(); }
    [[nodiscard]] std::size_t views() const noexcept { return views_; }
    [[nodiscard]] std::size_t frames() const noexcept { return frames_; }
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
            if (p->paused_until > now_) return to(p, p->paused_until, action);
            action();
            settle(p);
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

    void start(peer_id peer) {
        auto p = std::make_shared<process>();
        p->peer = peer;
        p->number = ++processes_;
        p->offset = below(1'000'000'000);
        p->rate = 950 + below(101);
        disk& d = disks_[peer];
        participant_settings s;
        s.self = peer;
        s.session = p->number;
        s.name = "p" + std::to_string(peer);
        s.address = address(peer);
        s.contributes = static_cast<int>(peer) <= options_.contributors;
        for (peer_id other = 1; other <= static_cast<peer_id>(std::min(options_.peers, 8)); ++other)
            if (other != peer && !address(other).empty()) s.seeds.push_back(address(other));
        if (peer == 1 || disks_[peer].used || chance(50)) s.run = run_;
        if (!d.used) {
            d = disk{};
            d.incarnation = 1'000'000 + p->number;
            if (peer == 1 && !founded_) {
                founded_ = d.used = true;
                s.state.view.members = {{1, d.incarnation, true, true, address(1), ""}};
                d.base = s.state;
                s.min_peers = chance(50) ? std::min(options_.peers, options_.contributors) : 1;
            } else {
                s.fresh = true;
            }
        }
        s.incarnation = d.incarnation;
        if (d.used && d.replica_round > d.log_begin && chance(25)) fold(d);
        if (!s.fresh) restore(*p, d, s);
        configure(s);
        p->machine = std::make_unique<participant>(s, clock(*p));
        now_at_[peer] = p;
        if (p->ready) p->machine->snapshot_published(p->round, encode(p->round, p->state), clock(*p));
        settle(p);
    }

    /// Retention: the log is cut where the replica was saved, which is final.
    static void fold(disk& d) {
        const std::size_t count = std::min<std::size_t>(d.replica_round - d.log_begin, d.log.size());
        for (std::size_t i = 0; i < count; ++i)
            if (d.log[i]->control) d.base = decode_state(*d.log[i]->control).value();
        if (count > 0) d.begin_term = d.log[count - 1]->term;
        d.log.erase(d.log.begin(), d.log.begin() + static_cast<std::ptrdiff_t>(count));
        d.log_begin += count;
        d.synced = d.log.size();
    }

    /// What a driver finds on the disk.
    void restore(process& p, const disk& d, participant_settings& s) {
        p.ready = true;
        p.round = d.replica_round;
        p.state = d.replica;
        s.local_round = p.round;
        s.log_begin = d.log_begin;
        s.begin_term = d.begin_term;
        s.state = d.base;
        s.voted_term = d.voted_term;
        s.voted_for = d.voted_for;
        if (buggy(p, bug::forgets_votes)) s.voted_term = s.voted_for = 0;
        if (d.log.empty()) return;
        s.last = d.log.back();
        s.last_final = s.last->round < d.final || s.last->round < p.round;
        for (const commit_ptr& r : d.log) {
            p.held[r->round] = r;
            if (r->control && (r != d.log.back() || s.last_final)) s.state = decode_state(*r->control).value();
        }
    }

    void configure(participant_settings& s) const {
        s.min_deadline = 100'000;
        s.waits_for_slow = options_.waits_for_slow;
        s.max_deadline = 2'000'000;
        s.handshake_timeout = 1'000'000;
        s.keepalive_interval = 250'000;
        s.keepalive_timeout = 3'000'000;
        s.takeover = 1'000'000;
        s.absence = 5'000'000;
        s.leave_timeout = 2'000'000;
        s.connect_timeout = s.reconnect_timeout = 3'600'000'000;
        s.attempt_timeout = 1'000'000;
        s.last_pause = 500'000;
        s.window = 4000;
        s.recent = 4000;
        s.mesh = options_.mesh;
        s.max_commit = limits().max_commit;
        s.max_strikes = 1'000'000;
    }

    /// Performs what the machine asks for, lets the replica go on, sets the timer.
    void settle(const process_ptr& p) {
        while (p->alive && !p->ended) {
            std::vector<effect> effects = p->machine->take_effects();
            for (effect& e : effects) std::visit([&](auto& what) { perform(p, what); }, e);
            if (effects.empty() && !advance(p)) break;
        }
        if (!p->alive || p->ended) return;
        if (p->machine->leading()) {
            const auto [it, fresh] = leaders_.try_emplace(p->machine->term(), p->peer);
            require(it->second == p->peer, "two sequencers of term " + std::to_string(p->machine->term()));
            leader_ = p;
        }
        const auto wake = p->machine->wake_at();
        if (!wake) return;
        const timestamp when = std::max(now_, (*wake - p->offset + p->rate - 1) * 1000 / p->rate + 1);
        if (p->armed && *p->armed <= when) return;
        p->armed = when;
        to(p, when, [this, p, when] {
            if (p->armed && *p->armed == when) p->armed.reset();
            p->machine->tick(clock(*p));
        });
    }

    /// The replica: applies what came, computes for its round, hands the payload in. True when that has effects.
    bool advance(const process_ptr& p) {
        if (!p->ready || p->computing) return false;
        if (!p->queue.empty()) {
            for (; !p->queue.empty(); p->queue.pop_front()) take(*p, *p->queue.front());
            p->machine->taken(p->round, clock(*p));
            if (chance(10)) save(p);
            return true;
        }
        if (p->offered || static_cast<int>(p->peer) > options_.contributors || p->round < p->machine->round() ||
            p->machine->sequencer() == 0)
            return false;
        p->computing = true;
        const std::uint64_t round = p->round;
        to(p, now_ + 1000 + below(longest_compute), [this, p, round] {
            p->computing = false;
            if (p->round != round) return;  // its replica was replaced
            byte_writer out;
            out.put(p->peer);
            out.put(p->number);
            out.put(round);
            for (timestamp i = below(static_cast<timestamp>(options_.payload_words)); i > 0; --i)
                out.put(random_.bits32());
            if (options_.payload_words < 1000 && below(1500) == 0)
                for (std::uint32_t i = 0; i < 70'000 + random_.below(70'000); ++i) out.put(i);
            p->offered = share(out.take());
            p->machine->payload_ready(round, p->offered, clock(*p));
        });
        return false;
    }

    void take(process& p, const commit_record& record) {
        require(record.round == p.round, "peer " + std::to_string(p.peer) + " at round " + std::to_string(p.round) +
                                             " is handed round " + std::to_string(record.round));
        require(record.round < finals_.size() && record_digest(record) == finals_[record.round],
                "peer " + std::to_string(p.peer) + " is handed what is not final");
        bool included = false;
        for (const committed_payload& c : record.contributions) {
            require(c.payload && digest_of(*c.payload) == c.payload_digest, "a payload does not have its digest");
            included = included || (c.peer == p.peer && p.offered && *c.payload == *p.offered);
        }
        if (p.offered && !included) {
            ++returned_;
            require(!committed_.contains(digest_of(*p.offered)), "a payload is both returned and committed");
        }
        p.offered = nullptr;
        p.state = mesh::apply(p.state, record);
        ++p.round;
        require(states_[record.round] == p.state,
                "peer " + std::to_string(p.peer) + " has another state after round " + std::to_string(record.round));
    }

    void save(const process_ptr& p) {
        disk& d = disks_[p->peer];
        if (d.log_begin + d.log.size() < p->round || !p->writing.empty()) return;
        d.synced = d.log.size();
        d.final = std::max(d.final, p->round);
        d.replica_round = p->round;
        d.replica = p->state;
        p->machine->snapshot_published(p->round, encode(p->round, p->state), clock(*p));
    }

    [[nodiscard]] static shared_bytes encode(std::uint64_t round, const digest& state) {
        byte_writer out;
        out.put(round);
        out.put(std::span<const std::byte>(state.bytes));
        std::vector<std::byte> bytes = out.take();
        if (round % 64 == 0) bytes.resize(bytes.size() + 3 * wire_limits::max_piece / 2);
        return share(std::move(bytes));
    }

    /// The process is gone. Of what it wrote and did not sync, a prefix is on the disk.
    void kill(const process_ptr& p) {
        if (!p->alive) return;
        p->alive = false;
        disk& d = disks_[p->peer];
        if (!buggy(*p, bug::acknowledges_before_storing))
            while (!p->writing.empty() && chance(50)) {
                write(d, p->writing.front().first);
                p->writing.pop_front();
            }
        if (p->voting && chance(50)) std::tie(d.voted_term, d.voted_for) = *p->voting;
        if (d.synced < d.log.size()) d.log.resize(d.synced + random_.below(d.log.size() - d.synced + 1));
        d.final = std::min<std::uint64_t>(d.final, d.log_begin + d.log.size());
        for (const link_ptr& l : links_)
            for (int side = 0; side < 2; ++side)
                if (l->ends[side].who == p && l->ends[side].open) {
                    l->ends[side].open = false;
                    end& other = l->ends[1 - side];
                    const timestamp when = std::max(other.arrives, now_ + l->delay);
                    if (!other.deaf) to(other.who, when, [this, l, side] { tell_closed(l, 1 - side); });
                }
    }
    static void write(disk& d, const commit_ptr& record) {
        const std::size_t at = record->round - d.log_begin;
        require(
            at <= d.log.size() && at + 1 >= d.log.size(),
            "round " + std::to_string(record->round) + " is stored where the log has " + std::to_string(d.log.size()));
        d.log.resize(at);
        d.synced = std::min(d.synced, at);
        d.log.push_back(record);
    }

    // ------------------------------------------------------------------------------------------------ effects

    void perform(const process_ptr& p, send_effect& e) {
        const auto [l, side] = find(p, e.link);
        if (!l) return;
        if (auto* c = std::get_if<campaign_message>(&e.what); c && buggy(*p, bug::claims_any_log)) {
            c->last_term = c->term;
            c->next_round = ~std::uint64_t{0};
        }
        if (const auto* r = std::get_if<record_message>(&e.what); r && !r->final)
            proposed_ = std::max<std::size_t>(proposed_, r->record->round + 1);
        std::vector<std::byte> frame = encode_frame(e.what);
        ++frames_;
        end& other = l->ends[1 - side];
        if (other.deaf || !other.who->alive || other.who->ended) return;
        if (troubled() && options_.weights[static_cast<std::size_t>(fault::corrupt)] > 0 && below(3000) == 0) {
            ++counts_[static_cast<std::size_t>(fault::corrupt)];
            frame[random_.below(frame.size())] ^= std::byte{4};
        }
        other.arrives = std::max({other.arrives, now_ + l->delay + below(1 + l->delay / 4), l->stalled_until});
        if (!chance(5)) {
            to(other.who, other.arrives,
               [this, l = l, side = side, bytes = std::move(frame)] { arrive(l, 1 - side, bytes); });
            return;
        }
        const auto middle = frame.begin() + static_cast<std::ptrdiff_t>(random_.below(frame.size()));
        for (std::vector<std::byte> part : {std::vector(frame.begin(), middle), std::vector(middle, frame.end())}) {
            to(other.who, other.arrives,
               [this, l = l, side = side, bytes = std::move(part)] { arrive(l, 1 - side, bytes); });
            other.arrives += below(2000);
        }
    }
    void perform(const process_ptr& p, admit_effect& e) {
        if (const auto [l, side] = find(p, e.link); l)
            l->ends[side].decoder.allow({message_type::welcome, message_type::refuse, message_type::reject,
                                         message_type::fetch, message_type::piece, message_type::ping,
                                         message_type::goodbye, message_type::offer, message_type::record,
                                         message_type::status, message_type::pull, message_type::campaign,
                                         message_type::vote, message_type::request});
    }
    void perform(const process_ptr& p, close_effect& e) {
        const auto [l, side] = find(p, e.link);
        if (!l) return;
        l->ends[side].open = false;
        end& other = l->ends[1 - side];
        if (!other.who) return;
        other.arrives = std::max({other.arrives, now_ + l->delay, l->stalled_until});
        if (!other.deaf) to(other.who, other.arrives, [this, l = l, side = side] { tell_closed(l, 1 - side); });
    }
    void perform(const process_ptr& p, store_effect& e) {
        const commit_ptr record = e.record;
        const bool durable = e.durable;
        p->writing.emplace_back(record, durable);
        if (buggy(*p, bug::acknowledges_before_storing)) {
            to(p, now_ + 400'000, [this, p] { complete_write(*p); });
            p->held[record->round] = record;
            p->machine->stored(clock(*p));
            return;
        }
        to(p, now_ + 50 + below(3000), [this, p, record] {
            complete_write(*p);
            p->held[record->round] = record;
            p->machine->stored(clock(*p));
        });
    }
    void complete_write(process& p) {
        disk& d = disks_[p.peer];
        write(d, p.writing.front().first);
        if (p.writing.front().second) d.synced = d.log.size();
        p.writing.pop_front();
    }
    void perform(const process_ptr& p, vote_effect& e) {
        p->voting = {e.term, e.peer};
        to(p, now_ + 50 + below(3000), [this, p] {
            disk& d = disks_[p->peer];
            std::tie(d.voted_term, d.voted_for) = *std::exchange(p->voting, std::nullopt);
            p->machine->voted(clock(*p));
        });
    }
    void perform(const process_ptr& p, final_effect& e) {
        const commit_ptr record = p->held.at(e.round - 1);
        disk& d = disks_[p->peer];
        if (chance(30)) d.final = std::max(d.final, std::min<std::uint64_t>(e.round, d.log_begin + d.log.size()));
        const digest said = record_digest(*record);
        require(e.round - 1 <= finals_.size(), "a round becomes final before the one below it");
        if (e.round - 1 < finals_.size()) {
            require(finals_[e.round - 1] == said, "two final records of round " + std::to_string(e.round - 1) +
                                                      ", the second at peer " + std::to_string(p->peer));
            return;
        }
        finals_.push_back(said);
        states_.push_back(mesh::apply(states_.empty() ? digest{} : states_.back(), *record));
        contributors_ = record->contributions.size();
        for (const committed_payload& c : record->contributions)
            require(committed_.insert(c.payload_digest).second, "a payload is committed twice");
        if (record->control) {
            ++views_;
            newest_ = decode_state(*record->control).value();
        }
    }
    void perform(const process_ptr& p, load_effect& e) {
        const commit_ptr record = p->held.at(e.round);
        to(p, now_ + 50 + below(2000), [this, p, record] { p->machine->loaded(record, clock(*p)); });
    }
    void perform(const process_ptr& p, deliver_effect& e) { p->queue.push_back(e.record); }
    void perform(const process_ptr& p, dial_effect& e) {
        const peer_id whom = std::stoull(e.address.substr(5));
        const process_ptr other = now_at_[whom];
        auto l = std::make_shared<link>();
        l->delay = 100 + below(chance(10) ? 60'000 : 3000);
        l->ends[0].who = p;
        l->ends[0].id = e.link;
        l->ends[0].decoder.allow(
            {message_type::welcome, message_type::refuse, message_type::ping, message_type::goodbye});
        const link_id id = e.link;
        if (!other || !other->alive || other->ended || apart(p->peer, whom)) {
            if (chance(80))
                to(p, now_ + l->delay, [this, p, id] { p->machine->dial_failed(id, "no route", clock(*p)); });
            return;
        }
        l->ends[1].who = other;
        l->ends[1].decoder.allow({message_type::hello, message_type::ping, message_type::goodbye});
        links_.push_back(l);
        ends_[{p->number, e.link}] = {l, 0};
        to(other, now_ + l->delay, [this, l, other] {
            l->ends[1].id = other->machine->link_opened(clock(*other));
            ends_[{other->number, l->ends[1].id}] = {l, 1};
        });
        l->ends[1].arrives = now_ + l->delay + 1;
        to(p, now_ + 2 * l->delay, [this, l, p, id] {
            if (l->ends[0].open) p->machine->dialled(id, clock(*p));
        });
    }
    void perform(const process_ptr&, welcomed_effect&) {}
    void perform(const process_ptr& p, snapshot_effect& e) {
        byte_reader in(*e.bytes);
        p->round = in.get<std::uint64_t>();
        const auto raw = in.get_bytes(32);
        std::copy(raw.begin(), raw.end(), p->state.bytes.begin());
        require(p->round == e.round, "a snapshot of another round");
        require(p->round == 0 || states_.at(p->round - 1) == p->state, "a snapshot of another state");
        disk& d = disks_[p->peer];
        if (p->ready) ++replaced_;
        if (p->offered) ++returned_;
        p->offered = nullptr;
        p->queue.clear();
        p->held.clear();
        p->ready = d.used = true;
        d.log.clear();
        d.synced = 0;
        d.log_begin = d.final = p->round;
        d.begin_term = e.term;
        d.base = decode_state(*e.state).value();
        save(p);
    }
    void perform(const process_ptr& p, rejected_effect& e) {
        throw violation("peer " + std::to_string(p->peer) + " was rejected: " + e.text);
    }
    void perform(const process_ptr& p, end_effect& e) {
        kill(p);
        p->ended = true;
        const bool asked = e.code == run_end::left || (finishing_ && e.code == run_end::stopped);
        require(asked, "peer " + std::to_string(p->peer) + " ended: " + e.text);
        if (finishing_) {
            ++stopped_;
            while (!p->queue.empty()) {
                take(*p, *p->queue.front());
                p->queue.pop_front();
            }
            require(p->round == finals_.size(), "peer " + std::to_string(p->peer) + " ends at round " +
                                                    std::to_string(p->round) + " of " + std::to_string(finals_.size()));
            return;
        }
        revive(p->peer, below(6'000'000));
    }

    // ------------------------------------------------------------------------------------------------ links

    [[nodiscard]] std::pair<link_ptr, int> find(const process_ptr& p, link_id id) {
        const auto it = ends_.find({p->number, id});
        if (it == ends_.end() || !it->second.first->ends[it->second.second].open) return {nullptr, 0};
        return it->second;
    }
    void arrive(const link_ptr& l, int side, const std::vector<std::byte>& bytes) {
        end& e = l->ends[side];
        if (!e.open || e.deaf || e.id == 0) return;
        participant& m = *e.who->machine;
        m.heard(e.id, clock(*e.who));
        e.decoder.feed(bytes);
        while (e.open && e.who->alive && !e.who->ended) {
            auto next = e.decoder.next();
            if (!next) return m.broken(e.id, next.error().message, clock(*e.who));
            if (!*next) return;
            m.received(e.id, std::move(**next), clock(*e.who));
            settle(e.who);
        }
    }
    void tell_closed(const link_ptr& l, int side) {
        end& e = l->ends[side];
        if (!std::exchange(e.open, false) || e.id == 0) return;
        e.who->machine->link_closed(e.id, "cut", clock(*e.who));
    }
    void cut(const link_ptr& l) {
        for (int side = 0; side < 2; ++side) {
            l->ends[side].deaf = true;
            to(l->ends[side].who, now_ + l->delay, [this, l, side] { tell_closed(l, side); });
        }
    }
    [[nodiscard]] bool apart(peer_id a, peer_id b) const {
        return !group_.empty() && group_.contains(a) != group_.contains(b);
    }

    // ----------------------------------------------------------------------------------------------- faults

    [[nodiscard]] bool troubled() const noexcept { return now_ < options_.trouble; }

    void trouble() {
        if (!troubled()) return;
        after(1000 * (1 + below(2 * options_.fault_every_ms)), [this] { trouble(); });
        std::erase_if(links_, [&](const link_ptr& l) {
            const bool over = !l->ends[0].open && !l->ends[1].open;
            if (over)
                for (const end& e : l->ends) ends_.erase({e.who->number, e.id});
            return over;
        });
        int total = 0;
        for (const int w : options_.weights) total += w;
        auto draw = static_cast<int>(below(total));
        std::size_t kind = 0;
        while (draw >= options_.weights[kind]) draw -= options_.weights[kind++];
        inflict(static_cast<fault>(kind));
    }

    void inflict(fault kind) {
        const auto done = [&] { ++counts_[static_cast<std::size_t>(kind)]; };
        const auto peer = static_cast<peer_id>(1 + below(options_.peers));
        const process_ptr victim = now_at_[peer];
        const link_ptr l = links_.empty() ? nullptr : links_[random_.below(links_.size())];
        const bool up = victim->alive && !victim->ended;
        switch (kind) {
            case fault::cut:
                if (l) cut(l), done();
                break;
            case fault::silence:
                if (l) l->ends[0].deaf = l->ends[1].deaf = true, done();
                break;
            case fault::one_way:
                if (l) l->ends[random_.below(2)].deaf = true, done();
                break;
            case fault::stall:
                if (l) l->stalled_until = now_ + below(4'000'000), done();
                break;
            case fault::split:
                split();
                done();
                break;
            case fault::kill:
                if (up) kill(victim), revive(peer, below(8'000'000)), done();
                break;
            case fault::kill_leader:
                if (leader_ && leader_->alive && !leader_->ended && leader_->machine->leading()) {
                    kill(leader_);
                    revive(leader_->peer, below(8'000'000));
                    done();
                }
                break;
            case fault::pause:
                if (up) victim->paused_until = now_ + below(6'000'000), done();
                break;
            case fault::leave:
                if (up) {
                    to(victim, now_, [this, victim] { victim->machine->leave(clock(*victim)); });
                    left_at_ = now_;
                    done();
                }
                break;
            case fault::lose_disk:
                if (may_lose(peer)) {
                    kill(victim);
                    for (const link_ptr& open : links_)  // nobody may count on it any more
                        for (int side = 0; side < 2; ++side)
                            if (open->ends[1 - side].who == victim) tell_closed(open, side);
                    disks_[peer].used = false;
                    lost_ = peer;
                    revive(peer, below(4'000'000));
                    done();
                }
                break;
            case fault::change:
                if (up) {
                    to(victim, now_, [this, victim] { ask(*victim); });
                    done();
                }
                break;
            default: break;
        }
    }

    void ask(process& p) {
        control_change c{control_change::kind::set, 0, "k", std::to_string(random_.below(5))};
        if (chance(30)) c = {newest_.paused ? control_change::kind::resume : control_change::kind::pause, 0, "", ""};
        if (chance(20)) c = {control_change::kind::promote, 1 + random_.below(now_at_.size()), "", ""};
        p.machine->request(c, clock(p));
    }

    /// A disk may go when those that stay decide without it, in every view that is in force anywhere, no record is
    /// open, and the last one that went was replaced.
    [[nodiscard]] bool may_lose(peer_id peer) {
        const process_ptr p = now_at_[peer];
        if (!p->alive || p->ended || finals_.size() < 5 || proposed_ > finals_.size() || now_ < left_at_ + 5'000'000)
            return false;
        const auto intact = [&](const view_member& m) {
            return disks_[m.peer].used && disks_[m.peer].incarnation == m.incarnation && m.peer != peer;
        };
        for (const auto& [id, d] : disks_) {
            if (!d.used || d.log_begin + d.log.size() > finals_.size()) return false;
            run_state s = d.base;
            for (std::size_t i = 0; i < d.log.size(); ++i)
                if (d.log[i]->control) s = decode_state(*d.log[i]->control).value();
            if (!s.view.quorum(intact)) return false;
        }
        for (const auto& [id, q] : now_at_)
            if (!q->writing.empty() || !q->machine->state().view.quorum(intact)) return false;
        if (lost_ != 0) {
            const view_member* m = newest_.view.find(lost_);
            if (m == nullptr || m->incarnation != disks_[lost_].incarnation) return false;
        }
        return newest_.view.quorum(intact);
    }

    void split() {
        if (!group_.empty()) return;
        for (peer_id p = 1; p <= static_cast<peer_id>(options_.peers); ++p)
            if (chance(50)) group_.insert(p);
        const timestamp until = now_ + below(6'000'000);
        for (const link_ptr& l : links_) {
            if (!l->ends[1].who || !apart(l->ends[0].who->peer, l->ends[1].who->peer)) continue;
            if (chance(50))
                l->ends[0].deaf = l->ends[1].deaf = true;
            else
                l->stalled_until = std::max(l->stalled_until, until);
        }
        at(until, [this] { group_.clear(); });
    }

    void revive(peer_id peer, timestamp wait) {
        const process_ptr old = now_at_[peer];
        after(wait, [this, peer, old] {
            if (now_at_[peer] == old && !finishing_) start(peer);
        });
    }

    /// No more faults; nobody stays paused, and what the run was asked to pause is resumed.
    void heal() {
        group_.clear();
        for (auto& [peer, p] : now_at_) {
            p->paused_until = std::min(p->paused_until, now_ + 1);
        }
        for (timestamp wait = 3'000'000; wait < 10'000'000; wait += 1'000'000)
            after(wait, [this] {
                for (auto& [peer, p] : now_at_)
                    to(p, now_, [this, p = p] {
                        p->machine->request({control_change::kind::resume, 0, "", ""}, clock(*p));
                    });
            });
    }

    /// Somebody stops the run: all end, with everything and in the same state.
    void finish() {
        finishing_ = true;
        const process_ptr who = now_at_[static_cast<peer_id>(1 + below(options_.peers))];
        to(who, now_, [this, who] { who->machine->request({control_change::kind::stop, 0, "", ""}, clock(*who)); });
        drain(now_ + 10'000'000);
        require(stopped_ == static_cast<std::size_t>(options_.peers),
                std::to_string(stopped_) + " peers were stopped" + describe());
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
    timestamp now_ = 0;
    std::priority_queue<event> events_;
    std::uint64_t events_made_ = 0;
    digest run_ = sha256{}.update("simulated run").finish();
    std::vector<bool> hidden_;
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
    std::set<digest> committed_;
    std::map<std::uint64_t, peer_id> leaders_;
    run_state newest_;
    peer_id lost_ = 0;
    timestamp left_at_ = 0;
    std::size_t proposed_ = 0;  ///< rounds below were proposed by somebody
    std::size_t contributors_ = 0, returned_ = 0, replaced_ = 0, views_ = 0, frames_ = 0, stopped_ = 0;
    std::array<std::size_t, fault_kinds> counts_{};
    bool finishing_ = false;
};

}  // namespace mesh

#endif  // THINWIRE_TESTS_UNIT_COMM_MESH_SIMULATOR_HPP
