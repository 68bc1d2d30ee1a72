#ifndef THINWIRE_COMM_DETAIL_PARTICIPANT_ROUNDS_HPP
#define THINWIRE_COMM_DETAIL_PARTICIPANT_ROUNDS_HPP

#include <thinwire/comm/participant.hpp>

#include <algorithm>

namespace thinwire {

/// A breach of the rules. Only the run shows a peer out, for good and for everyone.
inline void participant::strike(peer_id peer) {
    const control_change ban{control_change::kind::ban, peer, "", ""};
    if (++peers_[peer].strikes % std::max(settings_.max_strikes, 1) == 0 && !satisfied(state_, ban)) enqueue(ban);
}

/// The peer shows that it computes: rounds stay open for it again, and how late it was is a measurement.
inline void participant::awake(peer_state& p, timestamp now) {
    p.waited = true;
    if (p.missed) patience_.add(now - *p.missed, settings_.max_deadline);
    p.missed.reset();
}

/// Takes a payload into the open round; one that may not be in it is refused, and its author told.
inline void participant::collect(const pool_key& key, timestamp now) {
    const held_payload& held = pool_.at(key);
    if (!leading() || key.round != final_ || storing_ || tentative_ || held.session == 0) return;
    peer_state& p = peers_[key.author];
    awake(p, now);
    if (p.excluded || collected_.contains(key.author)) return;
    if (p.waited && final_ >= p.waited_from) p.pause /= 2;
    const auto rejected = [&](const std::string& why) {
        p.excluded = true;
        if (key.author == settings_.self)
            effects_.push_back(rejected_effect{key.round, why});
        else if (p.link != 0)
            send(p.link, reject_message{key.round, why}, now);
    };
    if (settings_.validate)
        if (const result<ok> verdict = settings_.validate(key.round, key.author, *held.bytes); !verdict) {
            strike(key.author);
            return rejected(verdict.error().message);
        }
    std::size_t total = held.bytes->size();
    for (const auto& [peer, c] : collected_) total += c.size;
    if (total > settings_.max_commit || collected_.size() == wire_limits::max_contributors)
        return rejected("the round's payloads together exceed the limit");
    collected_[key.author] = {key.author, key.content, held.bytes, static_cast<std::uint32_t>(held.bytes->size())};
    if (!first_payload_) first_payload_ = now;
}

inline void participant::tune(const std::function<void(participant_settings&)>& change, timestamp now) {
    if (over_) return;
    change(settings_);
    if (settings_.waits_for_slow)
        for (auto& [peer, p] : peers_) p.pause = p.waited_from = 0;
    settle(now);
}

/// Enough peers for the first round.
inline bool participant::assembled() const {
    if (!first_round_) return true;
    const auto present = std::ranges::count_if(
        links_, [](const auto& l) { return l.second.at == phase::linked && l.second.hello.contributes; });
    return present + (settings_.contributes ? 1 : 0) >= settings_.min_peers;
}

/// Whether the round stays open for a peer: not for one that is silent, though its link may take long to end.
inline bool participant::expected(peer_id peer, const peer_state& p, timestamp now) const {
    if (!p.waited || p.excluded || collected_.contains(peer) || final_ < p.waited_from) return false;
    if (peer == settings_.self) return settings_.contributes;
    return p.link != 0 && links_.at(p.link).hello.contributes && now < p.heard + settings_.takeover;
}

inline std::optional<timestamp> participant::deadline() const {
    if (storing_ || tentative_ || stopping_ || !assembled() || state_.paused) return std::nullopt;
    if (promoted_ != 0) return promoted_by_;
    if (!collected_.empty()) return *first_payload_ + patience_.wait(settings_.min_deadline, settings_.max_deadline);
    if (change_since_) return *change_since_ + settings_.max_deadline;
    return std::nullopt;
}

/// Whether those who are here decide in a view: a record with another one would wait for who is away, maybe for ever.
/// A link that was not heard lately may be to one that is gone, its disk with it.
inline bool participant::decided_here(const run_view& view) const {
    return view.quorum([&](const view_member& m) {
        return is(m, linked(m.peer)) &&
               (m.peer == settings_.self || settled_ < peers_.at(m.peer).heard + settings_.takeover);
    });
}

/// Those who stay are to go on without one that goes: who is away does not hold them up either, and enters again.
inline void participant::drop_absent(run_view& view) const {
    std::erase_if(view.members, [&](const view_member& m) { return !is(m, linked(m.peer)); });
}

/// Who has caught up enters; who left or is long gone goes.
inline run_view participant::next_roster(timestamp now) const {
    run_view next = state_.view;
    auto& members = next.members;
    std::erase_if(members, [&](const view_member& m) {
        if (m.peer == settings_.self) return leaving_;
        const peer_state& p = peers_.at(m.peer);
        return p.link == 0 && (p.left || now >= p.gone + settings_.absence);
    });
    std::map<peer_id, std::size_t> place;
    std::size_t contribute = 0;
    for (std::size_t i = 0; i < members.size(); ++i) {
        place.emplace(members[i].peer, i);
        contribute += members[i].contributes ? 1 : 0;
    }
    for (const auto& [link, l] : links_) {
        if (l.at != phase::linked || !l.has_said || state_.banned.contains(l.peer) || state_.revoked(l.hello.key))
            continue;
        const view_member entry{l.peer,          l.hello.incarnation, l.hello.votes, l.hello.contributes,
                                l.hello.address, l.hello.key};
        // What the log lacks already would come as a snapshot, for which a round would wait.
        const bool caught_up = l.says.final + 2 >= final_ && l.says.final >= log_begin_;
        const bool place_left = !entry.contributes || contribute < settings_.max_contributors;
        if (const auto at = place.find(l.peer); at != place.end()) {
            view_member& m = members[at->second];
            // Another incarnation takes the place of the one that lost its log; its own log counts from here on.
            if (m.incarnation == entry.incarnation || caught_up) m = entry;
        } else if (caught_up && place_left && members.size() < wire_limits::max_members) {
            contribute += entry.contributes ? 1 : 0;
            members.push_back(entry);
        }
    }
    view_member own{settings_.self,        settings_.incarnation, settings_.votes,
                    settings_.contributes, settings_.address,     settings_.key};
    if (view_member* self = next.find(settings_.self)) {
        // The others know the host of ":port", this peer does not.
        if (own.address.starts_with(':') && self->address.ends_with(own.address)) own.address = self->address;
        *self = own;
    } else if (!leaving_ && members.size() < wire_limits::max_members &&  // it stands in
               (!own.contributes || contribute < settings_.max_contributors))
        members.push_back(own);
    if (leaving_ && !decided_here(next)) drop_absent(next);
    return next;
}

/// What the next record makes of the state: the roster, then the requests, each unless those who are here could not
/// decide then; a removal takes those who are away along rather than wait for them.
inline participant::next_step participant::next_state(timestamp now) const {
    next_step next{state_, {}};
    next.state.stopped = false;
    if (run_view roster = next_roster(now); decided_here(roster)) next.state.view = std::move(roster);
    for (const control_change& c : changes_) {
        const bool promotes = c.what == control_change::kind::promote;
        const bool removes = c.what == control_change::kind::remove || c.what == control_change::kind::ban;
        if (promotes) {  // one that is away cannot take over
            const view_member* m = next.state.view.find(c.peer);
            if (m == nullptr || !is(*m, linked(c.peer))) continue;
        }
        run_state with = next.state;
        with.apply(c);
        if (removes && !decided_here(with.view)) drop_absent(with.view);
        if (with.view == next.state.view || decided_here(with.view))
            next.state = std::move(with);
        else if (!promotes)
            next.postponed.push_back(c);
    }
    return next;
}

inline bool participant::change_due(timestamp now) {
    if (!std::exchange(roster_changed_, false)) return change_since_.has_value();
    const bool due = next_state(now).state != state_;
    if (due && !change_since_) change_since_ = now;
    if (!due) change_since_.reset();
    return due;
}

/// This sequencer is to give way to a peer, which is first in the view and votes.
inline void participant::make_way(peer_id peer, const run_state& state, timestamp now) {
    const view_member* m = state.view.find(peer);
    if (m == nullptr || !m->votes || state.view.members.front().peer != peer || peer == settings_.self) return;
    promoted_ = peer;
    promoted_by_ = now + settings_.takeover;
}

/// A sequencer gives way to the peer that was promoted, and closes no round until it has caught up; and, when nobody
/// can dial it, now and then to one that everybody can: two that only dial out need it between them.
inline bool participant::stand_aside(timestamp now) {
    if (promoted_ != 0) {
        const link_state* l = linked(promoted_);
        if (l == nullptr || now >= promoted_by_) {
            promoted_ = 0;
        } else {
            if (l->says.final != final_) return true;
            promoted_ = 0;
            step_down(term_, now + 2 * settings_.takeover);
            return true;
        }
    }
    if (!settings_.address.empty() || (assembled() && !collected_.empty())) return false;
    if (stood_aside_ && now < *stood_aside_ + settings_.absence) return false;
    const bool better = std::ranges::any_of(state_.view.members, [&](const view_member& m) {
        const link_state* l = linked(m.peer);
        return m.votes && !m.address.empty() && m.peer != settings_.self && is(m, l) && l->says.final == final_;
    });
    if (!better) return false;
    stood_aside_ = now;
    step_down(term_, now + 2 * settings_.takeover);
    return true;
}

/// Closes the round when nobody is left to wait for. A change of the state goes with the round's payloads; alone it
/// goes when nobody computes, or when it is urgent.
inline void participant::consider(timestamp now) {
    if (storing_ || tentative_ || stopping_) return;
    if (stand_aside(now)) return;
    const bool change = change_due(now);
    const bool urgent =
        change && (leaving_ || std::ranges::any_of(changes_, [](const auto& c) {
                       return c.what == control_change::kind::stop || c.what == control_change::kind::remove;
                   }));
    if (urgent) return close_round(!state_.paused, now);
    if (!assembled()) {
        if (!collected_.empty()) first_payload_ = now;
        // What is asked for may be what lets the others in. And they may be missing because nobody can dial this one:
        // who can be dialled is to enter, and then to lead.
        const bool asked = change && !changes_.empty() && now >= *change_since_ + settings_.takeover;
        if (asked || (change && settings_.address.empty() && final_ > 0)) close_round(false, now);
        return;
    }
    const bool waits = std::ranges::any_of(peers_, [&](const auto& p) { return expected(p.first, p.second, now); });
    if (state_.paused || collected_.empty()) {
        if (change && (state_.paused || !waits || now >= *change_since_ + settings_.max_deadline))
            close_round(false, now);
        return;
    }
    if (!waits) {
        patience_.add(now - *first_payload_, settings_.max_deadline);
        return close_round(true, now);
    }
    if (now < *first_payload_ + patience_.wait(settings_.min_deadline, settings_.max_deadline)) return;
    for (auto& [peer, p] : peers_) {
        if (!expected(peer, p, now)) continue;
        p.waited = false;
        p.missed = *first_payload_;
        if (settings_.waits_for_slow) continue;
        p.pause = std::clamp<std::uint64_t>(2 * p.pause, 1, max_pause);
        p.waited_from = final_ + 1 + p.pause;
    }
    close_round(true, now);
}

inline void participant::close_round(bool contributions, timestamp now) {
    const auto [next, postponed] = next_state(now);
    auto record = std::make_shared<commit_record>();
    record->term = term_;
    record->round = final_;
    for (const auto& [peer, c] : collected_) {
        const view_member* m = next.view.find(peer);
        if (m == nullptr) m = state_.view.find(peer);
        if (contributions && m != nullptr && m->contributes) record->contributions.push_back(c);
    }
    if (next != state_) record->control = encode_state(next);
    if (!record->control && record->contributions.empty()) {  // of peers alone that are not in the view
        collected_.clear();
        change_since_.reset();
        return first_payload_.reset();
    }
    dismissed_.clear();
    for (const control_change& c : changes_)
        if (c.what == control_change::kind::promote)
            make_way(c.peer, next, now);
        else if (satisfied(next, c) && (c.what == control_change::kind::remove || c.what == control_change::kind::ban))
            dismissed_.insert(c.peer);
        else if (satisfied(next, c) && c.what == control_change::kind::revoke)
            for (const auto& [link, l] : links_)
                if (l.at == phase::linked && l.hello.key == c.key) dismissed_.insert(l.peer);
    changes_ = postponed;
    change_since_.reset();
    roster_changed_ = true;
    store(std::move(record), false);
    propose(now);
}

/// The record under way goes to everyone who has a say in it or follows it.
inline void participant::propose(timestamp now) {
    for (const auto& [link, l] : links_) propose_to(link, now);
}

/// A record that may have to be finished, in the term of this sequencer.
inline void participant::propose_again(const commit_record& open, timestamp now) {
    auto again = std::make_shared<commit_record>(open);
    again->term = term_;
    store(std::move(again), false);
    propose(now);
}

inline void participant::propose_to(link_id link, timestamp now) {
    if (!is_linked(link)) return;
    const commit_record* open = storing_ ? &storing_->record : tentative_.get();
    if (open == nullptr || open->term != term_) return;
    link_state& l = links_.at(link);
    const std::pair<std::uint64_t, std::uint64_t> what{term_, open->round + 1};
    if (l.proposed == what || l.says.final > open->round) return;
    bool member = state_.view.find(l.peer) != nullptr;
    if (!member && open->control)
        if (const auto next = decode_state(*open->control)) member = next->view.find(l.peer) != nullptr;
    if (!member) return;
    l.proposed = what;
    auto header = std::make_shared<commit_record>(*open);
    for (committed_payload& c : header->contributions) {
        c.size = static_cast<std::uint32_t>(c.payload->size());
        c.payload = nullptr;
    }
    send(link, record_message{term_, false, std::move(header)}, now);
}

/// The record is final once those who stored it decide, in the view and in the one that it makes. One that is further
/// does not count: a later sequencer may have brought it there. pull() asks it what it holds.
inline void participant::count_stored(timestamp now) {
    if (!leading() || !tentative_ || tentative_->term != term_) return;
    const bool decided = quorums([&](const view_member& m) {
        const link_state* l = linked(m.peer);
        if (!is(m, l)) return false;
        if (m.peer == settings_.self) return true;
        return l->says.final == final_ && l->says.accepted == term_;
    });
    if (decided) finalize(now);
}

// ------------------------------------------------------------------------------------------------------ requests

inline bool participant::satisfied(const run_state& state, const control_change& c) {
    using kind = control_change::kind;
    switch (c.what) {
        case kind::pause: return state.paused;
        case kind::resume: return !state.paused;
        case kind::stop: return state.stopped;
        case kind::set: {
            const auto it = state.values.find(c.key);
            return c.value.empty() ? it == state.values.end() : it != state.values.end() && it->second == c.value;
        }
        case kind::remove: return state.view.find(c.peer) == nullptr;
        case kind::ban: return state.banned.contains(c.peer);
        case kind::pardon: return !state.banned.contains(c.peer);
        case kind::allow: {
            const auto it = state.keys.find(c.key);
            return it != state.keys.end() && it->second;
        }
        case kind::revoke: return state.revoked(c.key);
        case kind::promote: {
            const view_member* m = state.view.find(c.peer);
            return m == nullptr || !m->votes || state.view.members.front().peer == c.peer;
        }
    }
    return true;
}

inline void participant::request(const control_change& change, timestamp now) {
    if (over_ || change.key.size() > wire_limits::max_text || change.value.size() > wire_limits::max_text) return;
    // Also where it takes back one that is on its way.
    const bool takes_back = std::ranges::any_of(requests_, [&](const auto& c) { return same_object(c, change); });
    if (change.what == control_change::kind::promote && leading()) make_way(change.peer, state_, now);
    if (!takes_back && satisfied(state_, change) && change.what != control_change::kind::stop &&
        (change.what != control_change::kind::promote || leading()))
        return;
    enqueue(change);
    if (leading()) forget_satisfied();
    settle(now);
}

/// The newest word about an object counts.
inline void participant::enqueue(const control_change& change) {
    const auto same = [&](const control_change& c) { return same_object(c, change); };
    std::erase_if(requests_, same);
    requests_.push_back(change);
    requests_told_ = {};
    if (!leading()) return;
    std::erase_if(changes_, same);
    changes_.push_back(change);
    roster_changed_ = true;
}

/// Hands this peer's requests to the sequencer, again to each new one until the state shows them.
inline void participant::send_requests(timestamp now) {
    if (requests_.empty() || linked(sequencer_) == nullptr) return;
    const link_id link = peers_[sequencer_].link;
    if (requests_told_ == std::pair{link, term_}) return;  // in a term of its own it does not know what it was told
    requests_told_ = {link, term_};
    for (const control_change& c : requests_) send(link, request_message{c}, now);
    // It is about this moment: not to be said again to a later sequencer.
    std::erase_if(requests_, [](const control_change& c) { return c.what == control_change::kind::promote; });
    forget_satisfied();
}

/// What only took back another request is not said again.
inline void participant::forget_satisfied() {
    std::erase_if(requests_, [&](const control_change& c) {
        return c.what != control_change::kind::stop && satisfied(state_, c);
    });
}

/// Whether two changes are about the same, so that the later one counts.
inline bool participant::same_object(const control_change& a, const control_change& b) {
    enum object : std::uint8_t { none, pausing, stopping, setting, member, key, front };
    constexpr object by_kind[] = {none, pausing, pausing, stopping, setting, member, member, member, key, key, front};
    static_assert(std::size(by_kind) == 1 + static_cast<std::size_t>(control_change::last_kind));
    const object about = by_kind[static_cast<std::size_t>(a.what)];
    if (about != by_kind[static_cast<std::size_t>(b.what)]) return false;
    if (about == member) return a.peer == b.peer;
    return (about != setting && about != key) || a.key == b.key;
}

inline void participant::on(link_id, request_message& m, timestamp now) {
    if (!leading()) return;
    if (m.change.what == control_change::kind::promote) make_way(m.change.peer, state_, now);
    std::erase_if(changes_, [&](const control_change& c) { return same_object(c, m.change); });
    const bool of_the_whole = same_object(m.change, {control_change::kind::pause, 0, "", ""}) ||
                              m.change.what == control_change::kind::stop;  // postponed ones never keep it out
    if (changes_.size() >= max_waiting && !of_the_whole) return;
    changes_.push_back(std::move(m.change));
    roster_changed_ = true;
}

}  // namespace thinwire

#endif  // THINWIRE_COMM_DETAIL_PARTICIPANT_ROUNDS_HPP
