#ifndef THINWIRE_TESTS_UNIT_COMM_MESH_EFFECTS_HPP
#define THINWIRE_TESTS_UNIT_COMM_MESH_EFFECTS_HPP

#include "unit/comm/mesh_simulator.hpp"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace mesh {

inline void world::perform(const process_ptr& p, send_effect& e) {
    const auto [l, side] = find(p, e.link);
    if (!l) return;
    if (auto* c = std::get_if<campaign_message>(&e.what); c && buggy(*p, bug::claims_any_log)) {
        c->last_term = c->term;
        c->next_round = ~std::uint64_t{0};
    }
    if (const auto* r = std::get_if<record_message>(&e.what); r && !r->pulled)
        proposed_ = std::max<std::size_t>(proposed_, r->record->round + 1);
    std::vector<std::byte> frame = encode_frame(e.what);
    ++frames_;
    end& other = l->ends[1 - side];
    if (other.deaf || !other.who->alive || other.who->ended) return;
    if (troubled() && !strict_ && options_.weights[static_cast<std::size_t>(fault::corrupt)] > 0 && below(3000) == 0) {
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

inline void world::perform(const process_ptr& p, admit_effect& e) {
    if (const auto [l, side] = find(p, e.link); l)
        l->ends[side].decoder.allow({message_type::welcome, message_type::refuse, message_type::reject,
                                     message_type::fetch, message_type::piece, message_type::ping,
                                     message_type::goodbye, message_type::offer, message_type::record,
                                     message_type::status, message_type::pull, message_type::campaign,
                                     message_type::vote, message_type::request});
}

inline void world::perform(const process_ptr& p, close_effect& e) {
    const auto [l, side] = find(p, e.link);
    if (!l) return;
    l->ends[side].open = false;
    end& other = l->ends[1 - side];
    if (!other.who) return;
    other.arrives = std::max({other.arrives, now_ + l->delay, l->stalled_until});
    if (!other.deaf) to(other.who, other.arrives, [this, l = l, side = side] { tell_closed(l, 1 - side); });
}

inline void world::perform(const process_ptr& p, store_effect& e) {
    const commit_ptr record = e.record;
    p->writing.push_back(record);
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

inline void world::perform(const process_ptr& p, vote_effect& e) {
    p->voting = {e.term, e.peer};
    to(p, now_ + 50 + below(3000), [this, p] {
        disk& d = disks_[p->peer];
        std::tie(d.voted_term, d.voted_for) = *std::exchange(p->voting, std::nullopt);
        p->machine->voted(clock(*p));
    });
}

inline void world::perform(const process_ptr& p, final_effect& e) {
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
    for (const committed_payload& c : record->contributions) {
        require(committed_.insert(c.payload_digest).second, "a payload is committed twice");
        require(acceptable(c.peer, *c.payload), "a payload is committed that is to be refused");
        require(made_.contains(c.payload_digest), "a payload is committed that is not its author's");
    }
    if (record->control) {
        ++views_;
        newest_ = decode_state(*record->control).value();
    }
}

inline void world::perform(const process_ptr& p, load_effect& e) {
    const commit_ptr record = p->held.at(e.round);
    to(p, now_ + 50 + below(2000), [this, p, record] { p->machine->loaded(record, clock(*p)); });
}

inline void world::perform(const process_ptr& p, dial_effect& e) {
    const peer_id whom = std::stoull(e.address.substr(5));
    const process_ptr other = now_at_[whom];
    auto l = std::make_shared<link>();
    l->delay = 100 + below(chance(10) ? 60'000 : 3000);
    l->ends[0].who = p;
    l->ends[0].id = e.link;
    l->ends[0].decoder.allow({message_type::welcome, message_type::refuse, message_type::ping, message_type::goodbye});
    const link_id id = e.link;
    if (!other || !other->alive || other->ended || apart(p->peer, whom)) {
        if (chance(80)) to(p, now_ + l->delay, [this, p, id] { p->machine->dial_failed(id, "no route", clock(*p)); });
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

inline void world::perform(const process_ptr& p, snapshot_effect& e) {
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
    d.log_begin = d.final = p->round;
    d.begin_term = e.term;
    d.base = decode_state(*e.state).value();
    save(p);
}

inline void world::perform(const process_ptr& p, rejected_effect& e) {
    require(hostile_.contains(p->peer), "peer " + std::to_string(p->peer) + " was rejected: " + e.text);
    kill(p);  // its owner has an exception
    disks_[p->peer].sent = {};
    revive(p->peer, below(4'000'000));
}

inline void world::perform(const process_ptr& p, end_effect& e) {
    kill(p);
    p->ended = true;
    const bool shown_out = e.code == run_end::refused &&
                           (e.text.find("removed") != std::string::npos || e.text.find("banned") != std::string::npos ||
                            e.text.find("revoked") != std::string::npos);
    const bool asked = e.code == run_end::left || shown_out || (finishing_ && e.code == run_end::stopped);
    require(asked, "peer " + std::to_string(p->peer) + " ended: " + e.text);
    if (finishing_) {
        ++stopped_;
        while (!p->queue.empty()) {
            take(*p, *p->queue.front());
            p->queue.pop_front();
        }
        require(p->round == finals_.size(), "peer " + std::to_string(p->peer) + " (" + e.text + ") ends at round " +
                                                std::to_string(p->round) + " of " + std::to_string(finals_.size()));
        return;
    }
    revive(p->peer, below(troubled() ? 6'000'000 : 2'000'000));
}

inline std::pair<world::link_ptr, int> world::find(const process_ptr& p, link_id id) {
    const auto it = ends_.find({p->number, id});
    if (it == ends_.end() || !it->second.first->ends[it->second.second].open) return {nullptr, 0};
    return it->second;
}

inline void world::arrive(const link_ptr& l, int side, const std::vector<std::byte>& bytes) {
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

inline void world::tell_closed(const link_ptr& l, int side) {
    end& e = l->ends[side];
    if (!std::exchange(e.open, false) || e.id == 0) return;
    e.who->machine->link_closed(e.id, "cut", clock(*e.who));
}

inline void world::cut(const link_ptr& l) {
    for (int side = 0; side < 2; ++side) {
        l->ends[side].deaf = true;
        to(l->ends[side].who, now_ + l->delay, [this, l, side] { tell_closed(l, side); });
    }
}

}  // namespace mesh

#endif  // THINWIRE_TESTS_UNIT_COMM_MESH_EFFECTS_HPP
