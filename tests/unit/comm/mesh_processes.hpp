#ifndef THINWIRE_TESTS_UNIT_COMM_MESH_PROCESSES_HPP
#define THINWIRE_TESTS_UNIT_COMM_MESH_PROCESSES_HPP

#include "unit/comm/mesh_simulator.hpp"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace mesh {

inline void world::start(peer_id peer) {
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
    s.key = "key " + std::to_string(peer);
    s.contributes = static_cast<int>(peer) <= options_.contributors;
    for (peer_id other = 1; other <= static_cast<peer_id>(std::min(options_.peers, 8)); ++other)
        if (other != peer && !address(other).empty()) s.seeds.push_back(address(other));
    if (peer == 1 || disks_[peer].used || chance(50)) s.run = run_;
    if (!d.used) {
        d = disk{};
        d.incarnation = 1'000'000 + p->number;
        if (peer == 1 && !founded_) {
            founded_ = d.used = true;
            s.state.view.members = {{1, d.incarnation, true, true, address(1), s.key}};
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
inline void world::fold(disk& d) {
    const std::size_t count = std::min<std::size_t>(d.replica_round - d.log_begin, d.log.size());
    for (std::size_t i = 0; i < count; ++i)
        if (d.log[i]->control) d.base = decode_state(*d.log[i]->control).value();
    if (count > 0) d.begin_term = d.log[count - 1]->term;
    d.log.erase(d.log.begin(), d.log.begin() + static_cast<std::ptrdiff_t>(count));
    d.log_begin += count;
}

/// What a driver finds on the disk.
inline void world::restore(process& p, const disk& d, participant_settings& s) {
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

inline void world::configure(participant_settings& s) const {
    s.min_deadline = 100'000;
    s.waits_for_slow = options_.waits_for_slow;
    s.max_deadline = 2'000'000;
    s.handshake_timeout = 1'000'000;
    s.keepalive_interval = options_.keepalive;
    s.keepalive_timeout = 12 * options_.keepalive;
    s.takeover = 4 * options_.keepalive;
    s.absence = 20 * options_.keepalive;
    s.leave_timeout = 2'000'000;
    s.connect_timeout = 3'600'000'000;
    s.reconnect_timeout = 25'000'000;  // longer than the trouble and what follows from it last
    s.attempt_timeout = 1'000'000;
    s.last_pause = 500'000;
    s.window = 4000;
    s.recent = 4000;
    s.mesh = options_.mesh;
    s.max_commit = limits().max_commit;
    s.max_strikes = strict_ ? 3 : 1'000'000;
    s.sign = [key = s.key](std::span<const std::byte> what) { return sign(key, what); };
    s.verify = [](std::string_view key, std::span<const std::byte> what, const signature_bytes& made) {
        return sign(key, what) == made;
    };
    s.validate = [](std::uint64_t, peer_id author, std::span<const std::byte> payload) -> result<ok> {
        if (acceptable(author, payload)) return ok{};
        return failure{errc::out_of_range, "it does not begin with its author"};
    };
}

/// Performs what the machine asks for, lets the replica go on, sets the timer.
inline void world::settle(const process_ptr& p) {
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
inline bool world::advance(const process_ptr& p) {
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
    to(p, now_ + 1000 + below(options_.compute), [this, p, round] {
        p->computing = false;
        if (p->round != round) return;  // its replica was replaced
        auto& [sent_round, sent] = disks_[p->peer].sent;
        if (sent && sent_round == round && chance(50)) {  // by the process before this one
            p->hostile = false;
            p->offered = sent;
            p->machine->payload_ready(round, p->offered, clock(*p));
            return;
        }
        byte_writer out;
        out.put(std::exchange(p->hostile, false) ? ~p->peer : p->peer);
        out.put(p->number);
        out.put(round);
        for (timestamp i = below(static_cast<timestamp>(options_.payload_words)); i > 0; --i) out.put(random_.bits32());
        if (options_.payload_words < 1000 && below(1500) == 0)
            for (std::uint32_t i = 0; i < 70'000 + random_.below(70'000); ++i) out.put(i);
        p->offered = share(out.take());
        made_.insert(digest_of(*p->offered));
        sent_round = round;
        sent = p->offered;
        p->machine->payload_ready(round, p->offered, clock(*p));
    });
    return false;
}

inline void world::take(process& p, const commit_record& record) {
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

inline void world::save(const process_ptr& p) {
    disk& d = disks_[p->peer];
    if (d.log_begin + d.log.size() < p->round || !p->writing.empty()) return;
    d.final = std::max(d.final, p->round);
    d.replica_round = p->round;
    d.replica = p->state;
    p->machine->snapshot_published(p->round, encode(p->round, p->state), clock(*p));
}

inline shared_bytes world::encode(std::uint64_t round, const digest& state) const {
    byte_writer out;
    out.put(round);
    out.put(std::span<const std::byte>(state.bytes));
    std::vector<std::byte> bytes = out.take();
    if (large_snapshots_ && round % 64 == 0) bytes.resize(bytes.size() + wire_limits::max_piece);
    return share(std::move(bytes));
}

/// The process is gone. Of what it was writing, the first records are on the disk.
inline void world::kill(const process_ptr& p) {
    if (!p->alive) return;
    p->alive = false;
    p->deferred.clear();
    disk& d = disks_[p->peer];
    if (!buggy(*p, bug::acknowledges_before_storing))
        while (!p->writing.empty() && chance(50)) {
            write(d, p->writing.front());
            p->writing.pop_front();
        }
    if (p->voting && chance(50)) std::tie(d.voted_term, d.voted_for) = *p->voting;
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

inline void world::write(disk& d, const commit_ptr& record) {
    const std::size_t at = record->round - d.log_begin;
    require(at <= d.log.size() && at + 1 >= d.log.size(),
            "round " + std::to_string(record->round) + " is stored where the log has " + std::to_string(d.log.size()));
    d.log.resize(at);
    d.log.push_back(record);
}

inline void world::complete_write(process& p) {
    disk& d = disks_[p.peer];
    write(d, p.writing.front());
    p.writing.pop_front();
}

inline void world::revive(peer_id peer, timestamp wait) {
    const process_ptr old = now_at_[peer];
    after(wait, [this, peer, old] {
        if (now_at_[peer] == old && !finishing_) start(peer);
    });
}

}  // namespace mesh

#endif  // THINWIRE_TESTS_UNIT_COMM_MESH_PROCESSES_HPP
