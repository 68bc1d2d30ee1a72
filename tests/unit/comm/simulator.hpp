#ifndef THINWIRE_TESTS_UNIT_COMM_SIMULATOR_HPP
#define THINWIRE_TESTS_UNIT_COMM_SIMULATOR_HPP

#include <thinwire/comm/machine.hpp>
#include <thinwire/core/random.hpp>

#include <algorithm>
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

namespace simulation {

using namespace thinwire;

/// What a broken invariant throws.
class violation : public std::logic_error {
    using std::logic_error::logic_error;
};
inline void require(bool holds, const std::string& what) {
    if (!holds) throw violation(what);
}

/// What a process keeps across its death: where its replica was when it last saved.
struct saved {
    std::uint64_t round = 0;
    digest state;
};

[[nodiscard]] inline digest apply(const digest& state, const commit_record& record) {
    byte_writer out;
    out.put(record.round);
    for (const committed_payload& c : record.contributions) {
        out.put(c.peer);
        out.put(std::span<const std::byte>(*c.payload));
    }
    return sha256{}.update(state.bytes).update(out.bytes()).finish();
}

/// One process of a peer: a machine and a replica that computes, contributes and applies. Its replica is a chain of
/// digests: equal prefix, equal state.
struct process {
    peer_id peer = 0;
    int number = 0;
    bool alive = true;
    bool ended = false;
    run_end end_code{};
    std::string end_text;
    std::unique_ptr<sequencer> founder;
    std::unique_ptr<follower> joiner;
    timestamp paused_until = 0;
    std::optional<timestamp> armed;

    bool ready = false;     ///< has a replica
    bool joined = false;    ///< was admitted
    std::uint64_t due = 0;  ///< catches up to this round before it computes, as a caller of catch_up() does
    std::uint64_t round = 0;
    digest state;
    std::deque<commit_ptr> queue;  ///< delivered, not taken
    bool computing = false;
    shared_bytes offered;  ///< handed in for `round`, not known what became of it
    saved disk;
};

/// Peers of one run on one thread, in virtual time, over links that delay, cut, go silent and damage bytes. One seed
/// decides everything. Peer 1 founds the run; its log and everyone's snapshots survive the death of a process.
class world {
 public:
    struct options {
        int peers = 4;
        timestamp trouble = 60'000'000;  ///< faults until then
        timestamp calm = 120'000'000;    ///< then this long without any: longer than any pause, silence and restart
        int fault_every_ms = 1500;
    };
    static constexpr timestamp longest_compute = 900'000;
    static constexpr timestamp max_deadline = 6'000'000;

    world(std::uint64_t seed, options o) : random_(seed), options_(o) {}

    /// Runs to the end; throws violation.
    void run() {
        start_founder();
        for (peer_id p = 2; p <= static_cast<peer_id>(options_.peers); ++p) start_joiner(p, true);
        at(500'000, [this] { fault(); });
        drain(options_.trouble);
        heal();
        const std::uint64_t before = log_.size();
        drain(options_.trouble + options_.calm);
        require(log_.size() >= before + 5, "no progress: round " + std::to_string(before) + " when the faults ended, " +
                                               std::to_string(log_.size()) + " later");
        require(log_.back()->contributions.size() == static_cast<std::size_t>(options_.peers),
                "the last commit holds " + std::to_string(log_.back()->contributions.size()) + " payloads");
        finish();
    }

    [[nodiscard]] std::size_t rounds() const noexcept { return log_.size(); }
    [[nodiscard]] std::size_t returned() const noexcept { return returned_; }
    [[nodiscard]] std::size_t faults() const noexcept { return faults_; }

 private:
    struct link {
        link_id id = 0;
        std::shared_ptr<process> low;   ///< the joiner
        std::shared_ptr<process> high;  ///< the founder
        bool low_open = true, high_open = true;
        bool silent = false;
        timestamp delay = 0;
        timestamp to_low = 0, to_high = 0;  ///< when the last bytes arrive: TCP keeps their order
        frame_decoder low_decoder{limits()}, high_decoder{limits()};
    };
    struct event {
        timestamp when = 0;
        std::uint64_t number = 0;
        std::function<void()> action;
        bool operator<(const event& other) const noexcept {
            return when != other.when ? when > other.when : number > other.number;
        }
    };
    using process_ptr = std::shared_ptr<process>;
    using link_ptr = std::shared_ptr<link>;

    static wire_limits limits() {
        wire_limits l;
        l.max_payload = 4096;
        l.max_commit = 65536;
        return l;
    }

    // ------------------------------------------------------------------------------------------------- time

    void at(timestamp when, std::function<void()> action) { events_.push({when, ++events_made_, std::move(action)}); }
    void after(timestamp wait, std::function<void()> action) { at(now_ + wait, std::move(action)); }
    /// Something that happens to a process: later when it is paused, never when it is dead.
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
            next.action();
        }
        now_ = until;
    }
    [[nodiscard]] timestamp below(timestamp n) {
        return static_cast<timestamp>(random_.below(static_cast<std::uint64_t>(n)));
    }
    [[nodiscard]] bool chance(int percent) { return below(100) < percent; }

    // --------------------------------------------------------------------------------------------- processes

    void start_founder() {
        auto p = std::make_shared<process>();
        p->peer = 1;
        p->number = ++processes_;
        p->disk = disks_[1];
        p->round = p->disk.round;
        p->state = p->disk.state;
        p->ready = p->joined = true;
        p->due = log_.size();
        sequencer_settings s;
        s.run = run_;
        s.self = 1;
        s.next_round = log_.size();
        s.local_round = p->round;
        s.min_peers = log_.empty() ? options_.peers : 1;
        s.max_deadline = max_deadline;
        s.min_deadline = 500'000;
        s.max_strikes = 1'000'000;
        s.window = 1500;
        s.recent = 1500;
        s.max_commit = limits().max_commit;
        p->founder = std::make_unique<sequencer>(s, now_);
        founder_ = p;
        founder_since_ = now_;
        p->founder->snapshot_published(p->round, encode(p->disk), now_);
        settle(p);
    }

    void start_joiner(peer_id peer, bool fresh) {
        auto p = std::make_shared<process>();
        p->peer = peer;
        p->number = ++processes_;
        p->disk = disks_[peer];
        fresh = fresh || p->disk.round == 0;
        if (!fresh) {
            p->round = p->disk.round;
            p->state = p->disk.state;
            p->ready = true;
        }
        follower_settings s;
        s.self = peer;
        s.session = static_cast<std::uint64_t>(p->number);
        s.run = chance(50) ? run_ : digest{};
        s.next_round = p->round;
        s.fresh = fresh;
        s.connect_timeout = s.reconnect_timeout = 600'000'000;
        p->joiner = std::make_unique<follower>(s, now_);
        joiners_[peer] = p;
        settle(p);
    }

    /// Performs what the machine asks for, lets the replica go on, sets the timer.
    void settle(const process_ptr& p) {
        while (p->alive && !p->ended) {
            const std::vector<effect> effects = p->founder ? p->founder->take_effects() : p->joiner->take_effects();
            for (const effect& e : effects) std::visit([&](const auto& what) { perform(p, what); }, e);
            if (effects.empty() && !advance(p)) break;
        }
        if (!p->alive || p->ended) return;
        const auto wake = p->founder ? p->founder->wake_at() : p->joiner->wake_at();
        if (!wake || (p->armed && *p->armed <= *wake)) return;
        p->armed = std::max(*wake, now_);
        to(p, *p->armed, [this, p] {
            p->armed.reset();
            if (p->founder)
                p->founder->tick(now_);
            else
                p->joiner->tick(now_);
        });
    }

    /// The replica: computes for its round, hands the payload in, waits for commits, applies them. True when it did
    /// something that may have effects.
    bool advance(const process_ptr& p) {
        if (!p->ready || p->computing) return false;
        if (!p->queue.empty()) {
            while (!p->queue.empty()) {
                if (!take(*p, *p->queue.front())) {
                    give_way(p);
                    return false;
                }
                p->queue.pop_front();
            }
            if (p->founder)
                p->founder->taken(p->round, now_);
            else
                p->joiner->taken(p->round, now_);
            if (chance(20)) save(p);
            return true;
        }
        if (!p->offered && p->joined && p->round >= p->due) {
            p->computing = true;
            const std::uint64_t round = p->round;
            to(p, now_ + 1000 + below(longest_compute), [this, p, round] {
                p->computing = false;
                require(p->round == round, "the replica moved while it computed");
                byte_writer out;
                out.put(p->peer);
                out.put(static_cast<std::uint64_t>(p->number));
                out.put(round);
                for (timestamp i = below(200); i > 0; --i) out.put(random_.bits32());
                p->offered = share(out.take());
                ++made_;
                if (p->founder)
                    p->founder->payload_ready(round, p->offered, now_);
                else
                    p->joiner->payload_ready(round, p->offered, now_);
            });
        }
        return false;
    }

    /// False when the process finds that it is one too many.
    [[nodiscard]] bool take(process& p, const commit_record& record) {
        require(record.round == p.round, "peer " + std::to_string(p.peer) + " at round " + std::to_string(p.round) +
                                             " is handed round " + std::to_string(record.round));
        bool included = false;
        bool impostor = false;
        for (const committed_payload& c : record.contributions) {
            require(c.payload && digest_of(*c.payload) == c.payload_digest, "a payload does not have its digest");
            if (c.peer != p.peer) continue;
            included = p.offered && *c.payload == *p.offered;
            if (p.offered && !included) {
                // What node::exchange() finds too: two processes live under one identity.
                require(twins_ > 0, "a commit holds another payload of this peer than the one it waits for");
                impostor = true;
            }
        }
        if (impostor) return false;
        if (p.offered && !included) {
            ++returned_;
            require(!committed_.contains(digest_of(*p.offered)), "a payload is both returned and committed");
        }
        p.offered = nullptr;
        p.state = simulation::apply(p.state, record);
        ++p.round;
        require(record.round < states_.size() && states_[record.round] == p.state,
                "peer " + std::to_string(p.peer) + " has another state after round " + std::to_string(record.round));
        return true;
    }

    void save(const process_ptr& p) {
        p->disk = disks_[p->peer] = saved{p->round, p->state};
        if (p->founder) p->founder->snapshot_published(p->round, encode(p->disk), now_);
    }

    [[nodiscard]] static shared_bytes encode(const saved& s) {
        byte_writer out;
        out.put(s.round);
        out.put(std::span<const std::byte>(s.state.bytes));
        std::vector<std::byte> bytes = out.take();
        bytes.resize(bytes.size() + 3 * wire_limits::max_piece / 2);
        return share(std::move(bytes));
    }

    /// A process that met another one of its peer dies; the peer's operator starts one later.
    void give_way(const process_ptr& p) {
        kill(p);
        if (joiners_[p->peer] != p) return;
        after(below(3'000'000), [this, p] {
            if (joiners_[p->peer] == p) start_joiner(p->peer, false);
        });
    }

    void kill(const process_ptr& p) {
        p->alive = false;
        for (const link_ptr& l : links_)
            if (l->low == p || l->high == p) cut(l);
    }

    // ---------------------------------------------------------------------------------------------- effects

    void perform(const process_ptr& p, const send_effect& e) {
        const link_ptr l = find(p, e.link);
        if (!l) return;
        std::vector<std::byte> frame = encode_frame(e.what);
        if (l->silent) return;
        const bool down = p == l->high;
        if (troubled() && down && below(4000) == 0) {
            ++faults_;
            frame[random_.below(frame.size())] ^= std::byte{4};
        }
        timestamp& last = down ? l->to_low : l->to_high;
        for (std::size_t begin = 0; begin < frame.size();) {
            const std::size_t most = frame.size() - begin;
            const std::size_t count = 1 + random_.below(chance(50) ? most : std::min<std::size_t>(most, 40));
            std::vector<std::byte> bytes(frame.begin() + static_cast<std::ptrdiff_t>(begin),
                                         frame.begin() + static_cast<std::ptrdiff_t>(begin + count));
            last = std::max(last, now_ + l->delay + below(5000));
            to(down ? l->low : l->high, last, [this, l, down, bytes = std::move(bytes)] { arrive(l, down, bytes); });
            begin += count;
        }
    }
    void perform(const process_ptr& p, const admit_effect& e) {
        if (const link_ptr l = find(p, e.link))
            l->high_decoder.allow({message_type::submit, message_type::progress, message_type::fetch,
                                   message_type::ping, message_type::goodbye});
    }
    void perform(const process_ptr& p, const close_effect& e) {
        const link_ptr l = find(p, e.link);
        if (!l) return;
        const bool down = p == l->high;
        (down ? l->high_open : l->low_open) = false;
        timestamp& last = down ? l->to_low : l->to_high;
        last = std::max(last, now_ + l->delay);
        if (!l->silent) to(down ? l->low : l->high, last, [this, l, down] { tell_closed(l, down); });
    }
    void perform(const process_ptr& p, const store_effect& e) {
        require(e.record->round == log_.size(),
                "round " + std::to_string(e.record->round) + " is stored as number " + std::to_string(log_.size()));
        require(!e.record->contributions.empty(), "an empty commit");
        if (last_commit_ > founder_since_)
            require(now_ - last_commit_ <= max_deadline + longest_compute + slack_, "a round took too long");
        last_commit_ = now_;
        slack_ = 0;
        for (const committed_payload& c : e.record->contributions)
            require(committed_.insert(c.payload_digest).second, "a payload is committed twice");
        states_.push_back(simulation::apply(states_.empty() ? digest{} : states_.back(), *e.record));
        log_.push_back(e.record);
        to(p, now_ + below(3000), [this, p] { p->founder->stored(now_); });
    }
    void perform(const process_ptr& p, const load_effect& e) {
        const commit_ptr record = log_.at(e.round);
        to(p, now_ + below(3000), [this, p, record] { p->founder->loaded(record, now_); });
    }
    void perform(const process_ptr& p, const deliver_effect& e) { p->queue.push_back(e.record); }
    void perform(const process_ptr& p, const dial_effect& e) {
        auto l = std::make_shared<link>();
        l->id = ++links_made_;
        l->low = p;
        l->high = founder_;
        l->delay = 200 + below(chance(20) ? 150'000 : 5000);
        const link_id dialled = e.link;
        low_ids_[{p.get(), dialled}] = l;
        low_names_[l.get()] = dialled;
        l->low_decoder.allow({message_type::welcome, message_type::refuse, message_type::reject, message_type::commit,
                              message_type::piece, message_type::ping, message_type::goodbye});
        l->high_decoder.allow({message_type::hello, message_type::ping, message_type::goodbye});
        if (!founder_->alive) {
            to(p, now_ + l->delay, [this, p, dialled] { p->joiner->dial_failed(dialled, "refused", now_); });
            return;
        }
        links_.push_back(l);
        l->to_low = l->to_high = now_ + l->delay;
        to(l->high, l->to_high, [this, l] { l->high->founder->link_opened(l->id, now_); });
        to(p, l->to_low, [this, p, dialled] { p->joiner->dialled(dialled, now_); });
    }
    void perform(const process_ptr& p, const welcomed_effect& e) {
        if (!std::exchange(p->joined, true)) p->due = e.welcome.round;
    }
    void perform(const process_ptr& p, const snapshot_effect& e) {
        byte_reader in(*e.bytes);
        p->round = in.get<std::uint64_t>();
        const auto raw = in.get_bytes(32);
        std::copy(raw.begin(), raw.end(), p->state.bytes.begin());
        require(p->round == e.round, "a snapshot of another round");
        require(p->round == 0 || states_.at(p->round - 1) == p->state, "a snapshot of another state");
        p->ready = true;
        save(p);
    }
    void perform(const process_ptr&, const vote_effect&) {}
    void perform(const process_ptr&, const final_effect&) {}
    void perform(const process_ptr& p, const rejected_effect& e) {
        throw violation("peer " + std::to_string(p->peer) + " was rejected: " + e.text);
    }
    void perform(const process_ptr& p, const end_effect& e) {
        p->ended = true;
        p->end_code = e.code;
        p->end_text = e.text;
        const bool by_replacement = e.code == run_end::refused && twins_ > 0;
        const bool by_goodbye = finishing_ && (e.code == run_end::left || e.code == run_end::stopped);
        // A frame that is damaged before the first welcome looks like a foreign program.
        const bool by_damage = e.code == run_end::protocol && faults_ > 0;
        require(by_replacement || by_goodbye || by_damage, "peer " + std::to_string(p->peer) + " ended: " + e.text);
        if (!finishing_ && joiners_[p->peer] == p)
            after(below(3'000'000), [this, p] {
                if (joiners_[p->peer] == p) start_joiner(p->peer, chance(20));
            });
    }

    // ------------------------------------------------------------------------------------------------ links

    [[nodiscard]] link_ptr find(const process_ptr& p, link_id id) {
        if (p->joiner) {
            const auto it = low_ids_.find({p.get(), id});
            return it != low_ids_.end() && it->second->low_open ? it->second : nullptr;
        }
        for (const link_ptr& l : links_)
            if (l->id == id && l->high == p) return l->high_open ? l : nullptr;
        return nullptr;
    }
    void arrive(const link_ptr& l, bool down, const std::vector<std::byte>& bytes) {
        if (!(down ? l->low_open : l->high_open) || l->silent) return;
        frame_decoder& decoder = down ? l->low_decoder : l->high_decoder;
        const link_id id = down ? low_names_[l.get()] : l->id;
        follower* low = l->low->joiner.get();
        sequencer* high = l->high->founder.get();
        if (down)
            low->heard(id, now_);
        else
            high->heard(id, now_);
        decoder.feed(bytes);
        while (down ? l->low_open : l->high_open) {
            const auto next = decoder.next();
            if (!next) {
                if (down)
                    low->broken(id, next.error().message, now_);
                else
                    high->broken(id, next.error().message, now_);
                return;
            }
            if (!*next) return;
            if (down)
                low->received(id, **next, now_);
            else
                high->received(id, **next, now_);
            settle(down ? l->low : l->high);
        }
    }
    void tell_closed(const link_ptr& l, bool down) {
        bool& open = down ? l->low_open : l->high_open;
        if (!std::exchange(open, false)) return;
        if (down)
            l->low->joiner->link_closed(low_names_[l.get()], "cut", now_);
        else
            l->high->founder->link_closed(l->id, now_);
    }
    /// The connection breaks: bytes on their way are lost, both ends learn of it after a while.
    void cut(const link_ptr& l) {
        if (l->silent) return;
        l->silent = true;
        to(l->low, now_ + l->delay, [this, l] { tell_closed(l, true); });
        to(l->high, now_ + l->delay, [this, l] { tell_closed(l, false); });
    }

    // ----------------------------------------------------------------------------------------------- faults

    [[nodiscard]] bool troubled() const noexcept { return now_ < options_.trouble; }

    void fault() {
        if (!troubled()) return;
        after(1000 * (1 + below(2 * options_.fault_every_ms)), [this] { fault(); });
        std::erase_if(links_, [](const link_ptr& l) { return !l->low_open && !l->high_open; });
        ++faults_;
        const auto peer = static_cast<peer_id>(2 + below(options_.peers - 1));
        const process_ptr victim = joiners_[peer];
        const auto kind = below(100);
        if (kind < 35) {
            if (!links_.empty()) cut(links_[random_.below(links_.size())]);
        } else if (kind < 45) {
            if (!links_.empty()) links_[random_.below(links_.size())]->silent = true;
        } else if (kind < 65) {
            kill(victim);
            after(below(20'000'000), [this, peer, victim] {
                if (joiners_[peer] == victim) start_joiner(peer, chance(20));
            });
        } else if (kind < 80) {
            victim->paused_until = now_ + below(40'000'000);
        } else if (kind < 85) {
            ++twins_;
            if (!victim->ended) start_joiner(peer, chance(20));
        } else if (kind < 90) {
            if (founder_->alive) {
                founder_->paused_until = now_ + below(15'000'000);
                slack_ += 40'000'000;
            }
        } else if (founder_->alive) {
            kill(founder_);
            after(below(10'000'000), [this] { start_founder(); });
        }
    }

    /// No more faults, and nobody stays paused or cut off for good.
    void heal() {
        for (auto& [peer, p] : joiners_) p->paused_until = std::min(p->paused_until, now_ + 1);
        founder_->paused_until = std::min(founder_->paused_until, now_ + 1);
        slack_ += 60'000'000;
    }

    /// The founder ends the run: everyone has the last commit and the same state.
    void finish() {
        finishing_ = true;
        require(founder_->alive, "no founder at the end");
        to(founder_, now_, [this] { founder_->founder->leave(true, now_); });
        drain(now_ + 30'000'000);
        require(founder_->ended, "the founder did not leave");
        for (const auto& [peer, p] : joiners_) {
            require(p->ended && p->end_code == run_end::stopped, "peer " + std::to_string(peer) + " was not stopped");
            while (!p->queue.empty()) {
                require(take(*p, *p->queue.front()), "two processes of one peer at the end");
                p->queue.pop_front();
            }
            require(p->round == log_.size(), "peer " + std::to_string(peer) + " ends at round " +
                                                 std::to_string(p->round) + " of " + std::to_string(log_.size()));
            require(p->state == states_.back(), "peer " + std::to_string(peer) + " ends in another state");
        }
    }

    random_stream random_;
    options options_;
    timestamp now_ = 0;
    std::priority_queue<event> events_;
    std::uint64_t events_made_ = 0;
    digest run_ = sha256{}.update("simulated run").finish();
    std::vector<commit_ptr> log_;
    std::vector<digest> states_;  ///< after each round
    std::map<peer_id, saved> disks_;
    process_ptr founder_;
    std::map<peer_id, process_ptr> joiners_;
    std::vector<link_ptr> links_;
    std::map<std::pair<process*, link_id>, link_ptr> low_ids_;
    std::map<link*, link_id> low_names_;
    link_id links_made_ = 0;
    int processes_ = 0;
    std::size_t made_ = 0, returned_ = 0, faults_ = 0, twins_ = 0;
    std::set<digest> committed_;
    timestamp last_commit_ = 0;
    timestamp founder_since_ = 0;
    timestamp slack_ = 0;
    bool finishing_ = false;
};

}  // namespace simulation

#endif  // THINWIRE_TESTS_UNIT_COMM_SIMULATOR_HPP
