#ifndef THINWIRE_TESTS_UNIT_COMM_MESH_FAULTS_HPP
#define THINWIRE_TESTS_UNIT_COMM_MESH_FAULTS_HPP

#include "unit/comm/mesh_simulator.hpp"

#include <algorithm>
#include <iterator>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace mesh {

inline void world::trouble() {
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

inline void world::inflict(fault kind) {
    const auto done = [&] { ++counts_[static_cast<std::size_t>(kind)]; };
    const auto peer = static_cast<peer_id>(1 + below(options_.peers));
    const process_ptr victim = now_at_[peer];
    const link_ptr l = links_.empty() ? nullptr : links_[random_.below(links_.size())];
    const bool up = victim && victim->alive && !victim->ended;
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
            if (up) pause(victim, now_ + below(6'000'000)), done();
            break;
        case fault::leave:
            if (up) {
                const process_ptr other = now_at_[static_cast<peer_id>(1 + below(options_.peers))];
                to(victim, now_, [this, victim] { victim->machine->leave(clock(*victim)); });
                if (other && chance(30)) to(other, now_, [this, other] { other->machine->leave(clock(*other)); });
                left_at_ = now_;
                done();
            }
            break;
        case fault::lose_disk:
            if (may_lose(peer)) {
                destroy(victim);
                revive(peer, below(4'000'000));
                done();
            }
            break;
        case fault::vanish:
            if (may_vanish(peer)) {
                destroy(victim);
                gone_.insert(peer);
                done();
            }
            break;
        case fault::attack:
            if (up && strict_ && peer != anchor_) attack(victim), done();
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

/// Dies, and its disk with it: nobody may count on it any more.
inline void world::destroy(const process_ptr& p) {
    kill(p);
    for (const link_ptr& open : links_)
        for (int side = 0; side < 2; ++side)
            if (open->ends[1 - side].who && open->ends[1 - side].who->peer == p->peer) tell_closed(open, side);
    disks_[p->peer].used = false;
    lost_ = p->peer;
}

inline void world::attack(const process_ptr& p) {
    hostile_.insert(p->peer);
    p->hostile = true;
    // A payload of somebody else's that is none; or a second one of its own.
    const process_ptr& other = now_at_[static_cast<peer_id>(1 + below(options_.peers))];
    byte_writer out;
    out.put(other->peer);
    out.put(events_made_);
    offer_message forged;
    forged.round = p->machine->round();
    forged.author = other->peer;
    forged.session = other->number;
    forged.content = digest_of(out.bytes());
    if (other->peer == p->peer) made_.insert(forged.content);
    forged.size = static_cast<std::uint32_t>(out.bytes().size());
    forged.bytes = share(out.take());
    forged.relay = chance(50);
    const std::vector<std::byte> bytes = chance(50) ? std::vector(40, std::byte{0x55}) : encode_frame(forged);
    for (const link_ptr& l : links_)
        for (int side = 0; side < 2; ++side)
            if (l->ends[side].who == p && l->ends[side].open && l->ends[1 - side].open && chance(50))
                to(l->ends[1 - side].who, std::max(l->ends[1 - side].arrives, now_ + l->delay),
                   [this, l, side, bytes] { arrive(l, 1 - side, bytes); });
}

inline void world::ask(process& p) {
    control_change c{control_change::kind::set, 0, "k", std::to_string(random_.below(5))};
    if (chance(30)) c = {newest_.paused ? control_change::kind::resume : control_change::kind::pause, 0, "", ""};
    if (chance(20)) c = {control_change::kind::promote, 1 + random_.below(now_at_.size()), "", ""};
    if (bans_ && chance(20)) {
        constexpr control_change::kind kinds[] = {control_change::kind::remove, control_change::kind::ban,
                                                  control_change::kind::pardon, control_change::kind::pardon};
        c = {kinds[random_.below(std::size(kinds))], 1 + random_.below(now_at_.size()), "", ""};
    }
    if (bans_ && chance(10)) {
        const std::string key = "key " + std::to_string(1 + random_.below(now_at_.size()));
        c = {chance(50) ? control_change::kind::revoke : control_change::kind::allow, 0, key, ""};
    }
    const bool bans_anchor = c.what == control_change::kind::ban && c.peer == anchor_;
    if (bans_anchor || (c.what == control_change::kind::revoke && c.key == "key " + std::to_string(anchor_))) return;
    p.machine->request(c, clock(p));
}

/// A disk may go when those that stay decide without it, in every view that is in force anywhere, no record is
/// open, and the last one that went was replaced.
inline bool world::may_lose(peer_id peer) {
    const process_ptr p = now_at_[peer];
    if (!p->alive || p->ended || finals_.size() < 5 || proposed_ > finals_.size() || now_ < left_at_ + 5'000'000)
        return false;
    if (std::none_of(now_at_.begin(), now_at_.end(), [&](const auto& other) {
            return other.first != peer && !gone_.contains(other.first) && !address(other.first).empty();
        }))
        return false;  // nobody could be dialled to join anew
    const auto intact = [&](const view_member& m) {
        return disks_[m.peer].used && disks_[m.peer].incarnation == m.incarnation && m.peer != peer;
    };
    for (const auto& [id, d] : disks_) {
        if (gone_.contains(id)) continue;
        if (!d.used || d.log_begin + d.log.size() > finals_.size()) return false;
        // After a restart the last record may be one that is not known to be final: both views count then.
        run_state s = d.base;
        for (const commit_ptr& r : d.log) {
            if (!r->control) continue;
            if (r->round + 1 > std::max(d.final, d.replica_round) && !s.view.quorum(intact)) return false;
            s = decode_state(*r->control).value();
        }
        if (!s.view.quorum(intact)) return false;
    }
    for (const auto& [id, q] : now_at_)
        if (!gone_.contains(id) && (!q->writing.empty() || !q->machine->state().view.quorum(intact))) return false;
    if (lost_ != 0) {
        const view_member* m = newest_.view.find(lost_);
        if (gone_.contains(lost_) ? m != nullptr : m == nullptr || m->incarnation != disks_[lost_].incarnation)
            return false;
    }
    return newest_.view.quorum(intact);
}

/// And a peer for good; but where the one that links those who cannot be dialled may be shown out, only when there is
/// no need of one.
inline bool world::may_vanish(peer_id peer) {
    const auto closed = std::count_if(now_at_.begin(), now_at_.end(), [&](const auto& other) {
        return other.first != peer && !gone_.contains(other.first) && address(other.first).empty();
    });
    return may_lose(peer) && (!bans_ || closed < 2);
}

inline void world::split() {
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

/// No more faults; nobody stays paused, and what the run was asked to pause is resumed; who is banned is pardoned, and
/// a key that was revoked let in.
inline void world::heal() {
    group_.clear();
    for (auto& [peer, p] : now_at_)
        if (p->paused_until > now_) pause(p, now_ + 1);
    for (timestamp wait = 3'000'000; wait < 14'000'000; wait += 1'000'000)
        after(wait, [this] {
            for (auto& [peer, p] : now_at_)
                to(p, now_, [this, p = p] {
                    p->machine->request({control_change::kind::resume, 0, "", ""}, clock(*p));
                    for (const peer_id banned : std::set<peer_id>(p->machine->state().banned))
                        p->machine->request({control_change::kind::pardon, banned, "", ""}, clock(*p));
                    for (const auto& [key, in] : std::map<std::string, bool>(p->machine->state().keys))
                        if (!in) p->machine->request({control_change::kind::allow, 0, key, ""}, clock(*p));
                });
        });
}

}  // namespace mesh

#endif  // THINWIRE_TESTS_UNIT_COMM_MESH_FAULTS_HPP
