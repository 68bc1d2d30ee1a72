#ifndef THINWIRE_COMM_DETAIL_PARTICIPANT_LINKS_HPP
#define THINWIRE_COMM_DETAIL_PARTICIPANT_LINKS_HPP

#include <thinwire/comm/participant.hpp>

#include <algorithm>

namespace thinwire {

inline participant::participant(participant_settings settings, timestamp now) : settings_(std::move(settings)) {
    peers_[settings_.self].name = settings_.name;
    peers_[settings_.self].about = settings_.about;
    peers_[settings_.self].waited = settings_.contributes;
    alone_since_ = ordered_ = now;
    housekeeping_ = now;
    voted_term_ = settings_.voted_term;
    voted_for_ = settings_.voted_for;
    log_begin_ = final_ = settings_.log_begin;
    state_ = settings_.state;
    last_term_ = settings_.begin_term;
    if (const commit_ptr& last = settings_.last) {
        last_term_ = last->term;
        final_ = last->round;
        if (settings_.last_final || settings_.local_round > last->round) {
            ++final_;
            recent_.push_back(last);
            recent_bytes_ = queue_weight(*last);
        } else {
            tentative_ = last;
            if (last->control)
                if (auto state = decode_state(*last->control)) tentative_state_ = std::move(*state);
        }
    }
    states_.emplace_back(final_, encode_state(state_));
    term_ = std::max(voted_term_, last_term_);
    local_next_ = settings_.fresh ? 0 : settings_.local_round;
    contacts_ = state_;
    contacts_round_ = final_;
    const auto self_only = [&](const view_member& m) { return is(m, nullptr) && m.peer == settings_.self; };
    campaign_from_ = now + (state_.view.quorum(self_only) ? 0 : settings_.takeover);
    meet_members(now);
    // They do not know that this process began, nor where it listens: it dials without waiting for them.
    for (auto& [peer, p] : peers_) p.gone = now - settings_.attempt_timeout;
    settle(now);
}

/// Whether a member of a view is who is at the other end of a link (or, without one, this peer).
inline bool participant::is(const view_member& m, const link_state* l) const noexcept {
    if (m.peer == settings_.self) return m.incarnation == settings_.incarnation;
    return l != nullptr && l->hello.incarnation == m.incarnation;
}
inline bool participant::in(const run_view& view) const noexcept {
    const view_member* m = view.find(settings_.self);
    return m != nullptr && m->incarnation == settings_.incarnation;
}
inline participant::link_state* participant::linked(peer_id peer) {
    const auto p = peers_.find(peer);
    if (p == peers_.end() || p->second.link == 0) return nullptr;
    return &links_.at(p->second.link);
}
inline bool participant::is_linked(link_id link) const {
    const auto it = links_.find(link);
    return it != links_.end() && it->second.at == phase::linked;
}
inline bool participant::alone() const noexcept {
    return std::ranges::none_of(links_, [](const auto& l) { return l.second.at == phase::linked; });
}

// ----------------------------------------------------------------------------------------------------- events

inline link_id participant::link_opened(timestamp now) {
    const link_id link = ++last_link_;
    if (over_) return link;
    link_state& l = links_[link];
    l.opened = l.heard = l.sent = now;
    links_due_ = std::min(links_due_, due(l));
    if (links_.size() > settings_.max_links)
        refuse(link, refusal::full,
               "no room for another connection, " + std::to_string(settings_.max_links) + " are open", now);
    return link;
}

inline void participant::dialled(link_id link, timestamp now) {
    const auto it = links_.find(link);
    if (over_ || it == links_.end() || it->second.at != phase::dialling) return;
    it->second.at = phase::greeted;
    it->second.opened = it->second.heard = now;
    links_due_ = std::min(links_due_, due(it->second));
    send(link, introduction(), now);
    settle(now);
}

inline void participant::dial_failed(link_id link, const std::string& why, timestamp now) {
    if (over_ || !links_.contains(link)) return;
    trouble_ = links_.at(link).address + ": " + why;
    forget(link, now);
    settle(now);
}

inline void participant::link_closed(link_id link, const std::string& why, timestamp now) {
    const auto it = links_.find(link);
    if (over_ || it == links_.end()) return;
    trouble_ = it->second.address.empty() ? why : it->second.address + ": " + why;
    forget(link, now);
    settle(now);
}

inline void participant::heard(link_id link, timestamp now) {
    const auto it = links_.find(link);
    if (it == links_.end()) return;
    it->second.heard = now;
    if (it->second.at != phase::linked) return;
    peers_[it->second.peer].heard = now;
    if (it->second.peer == sequencer_ && it->second.says.sequencer == sequencer_) {
        sequencer_heard_ = now;
        campaign_from_ = std::max(campaign_from_, now + settings_.takeover);
    }
}

inline void participant::broken(link_id link, const std::string& why, timestamp now) {
    const auto it = links_.find(link);
    if (over_ || it == links_.end()) return;
    trouble_ = why;
    if (it->second.at == phase::linked) strike(it->second.peer);
    close(link, why, true, now);
    settle(now);
}

inline void participant::received(link_id link, message m, timestamp now) {
    const auto it = links_.find(link);
    if (over_ || it == links_.end() || it->second.at == phase::dialling) return;
    heard(link, now);
    const message_type type = type_of(m);
    const phase at = it->second.at;
    const bool greeting = type == message_type::hello || type == message_type::welcome;
    const bool offer = type == message_type::welcome && at == phase::linked;
    const bool always =
        offer || type == message_type::ping || type == message_type::goodbye || type == message_type::refuse;
    if (!always &&
        (greeting ? (type == message_type::hello ? at != phase::stranger : at != phase::greeted) : at != phase::linked))
        return broken(link, "a " + std::string(to_string(type)) + " at the wrong time", now);
    std::visit([&](auto& body) { on(link, body, now); }, m);
    settle(now);
}

// ------------------------------------------------------------------------------------------------------ dialling

/// The members of contacts_ to which this peer keeps a link: everyone in a small view; in a large one the sequencer,
/// the first three that answer, and neighbours in the order of the view.
inline std::vector<const view_member*> participant::wanted_links() const {
    const auto& members = contacts_.view.members;
    const std::size_t own = own_position();
    std::vector<const view_member*> all;
    std::size_t answering = 0;  // before this one
    for (std::size_t i = 0; i < members.size(); ++i) {
        const view_member& m = members[i];
        if (m.peer == settings_.self) {
            ++answering;
            continue;
        }
        const bool near = own < members.size() &&
                          (i + members.size() - own) % members.size() <= std::max<std::size_t>(settings_.mesh / 2, 1);
        if (members.size() <= settings_.mesh + 1 || answering < 3 || near || m.peer == sequencer_) all.push_back(&m);
        const auto d = dials_.find(where(m));
        const bool silent = m.address.empty() || (d != dials_.end() && d->second.pause >= settings_.last_pause);
        if (linked(m.peer) != nullptr || !silent) ++answering;
    }
    return all;
}

/// Where a member is dialled. One that entered with ":port", without a host, said more where it was linked.
inline std::string participant::where(const view_member& m) const {
    if (!m.address.starts_with(':')) return m.address;
    const auto p = peers_.find(m.peer);
    return p == peers_.end() ? std::string() : p->second.address;
}

/// Where this peer is in contacts_; behind the last: nowhere.
inline std::size_t participant::own_position() const {
    const auto& members = contacts_.view.members;
    return static_cast<std::size_t>(std::ranges::find(members, settings_.self, &view_member::peer) - members.begin());
}

inline void participant::dial_wanted(timestamp now) {
    if (leaving_) return;
    dial_due_ = false;
    std::set<std::string> wanted;
    const bool member = own_position() < contacts_.view.members.size();
    for (const view_member* m : wanted_links()) {
        const std::string address = where(*m);
        if (address.empty() || linked(m->peer) != nullptr) continue;
        const bool theirs = member && !seeking_ && !settings_.address.empty() && m->peer > settings_.self;
        if (theirs && now < peers_[m->peer].gone + settings_.attempt_timeout) continue;
        dial(address, m->peer, now);
        wanted.insert(address);
    }
    // Those whom a record brings in decide about it too, when nobody else brings it to its end.
    if (const run_state* next = next_in_force(); next != nullptr && (leading() || !hears_sequencer(now)))
        for (const view_member& m : next->view.members) {
            const std::string address = where(m);
            if (m.peer == settings_.self || address.empty() || linked(m.peer) != nullptr) continue;
            if (contacts_.view.find(m.peer) != nullptr || wanted.size() >= settings_.mesh) continue;
            dial(address, m.peer, now);
            wanted.insert(address);
        }
    if (hint_.first != 0 ? linked(hint_.first) != nullptr : reaches(hint_.second)) hint_ = {};
    if (!hint_.second.empty()) {
        dial(hint_.second, hint_.first, now);
        wanted.insert(hint_.second);
    }
    // Those whom it is linked with may have been left behind like this peer.
    if (alone() || now >= ordered_ + 2 * settings_.takeover)
        for (const std::string& seed : settings_.seeds) {
            const auto found = found_at_.find(seed);
            if (reaches(seed) || (found != found_at_.end() && linked(found->second) != nullptr)) continue;
            dial(seed, 0, now);
            wanted.insert(seed);
        }
    std::erase_if(dials_, [&](const auto& d) { return d.second.link == 0 && !wanted.contains(d.first); });
}

inline void participant::dial(const std::string& address, peer_id peer, timestamp now) {
    if (address == settings_.address) return;
    dial_state& d = dials_[address];
    if (d.link != 0 || now < d.next) return;
    d.link = ++last_link_;
    link_state& l = links_[d.link];
    l.at = phase::dialling;
    l.peer = peer;
    l.address = address;
    l.opened = l.heard = l.sent = now;
    links_due_ = std::min(links_due_, due(l));
    effects_.push_back(dial_effect{d.link, address});
}

// -------------------------------------------------------------------------------------------------- sending, closing

inline status_message participant::status(timestamp now) const {
    status_message s;
    s.term = term_;
    s.sequencer = hears_sequencer(now) ? sequencer_ : 0;
    s.final = final_;
    s.accepted = tentative_ ? tentative_->term : 0;
    s.taken = std::min(local_taken(), final_);
    s.active = local_active_;
    if (s.sequencer == 0) {
        s.address = neighbour(now);
    } else if (s.sequencer != settings_.self) {
        if (const link_state* l = linked(s.sequencer)) s.address = l->hello.address;
    }
    return s;
}
/// Where a linked peer is dialled, each in turn: when all return at new addresses, they find each other so.
inline std::string participant::neighbour(timestamp now) const {
    std::vector<const std::string*> all;
    for (const auto& [link, l] : links_)
        if (l.at == phase::linked && !l.hello.address.empty()) all.push_back(&l.hello.address);
    if (all.empty()) return {};
    return *all[static_cast<std::size_t>(now / settings_.keepalive_interval) % all.size()];
}
/// Whether a member is not linked, and there is room: links to those that are no members do not count for it.
inline bool participant::lacks_links() const {
    const auto count = static_cast<std::size_t>(
        std::ranges::count_if(links_, [](const auto& l) { return l.second.at == phase::linked; }));
    const auto lacks = [&](const run_view& view) {
        return std::ranges::any_of(
            view.members, [&](const view_member& m) { return m.peer != settings_.self && linked(m.peer) == nullptr; });
    };
    const run_state* next = next_in_force();
    const bool room = count < settings_.mesh || settled_ >= ordered_ + 2 * settings_.takeover;
    return room && (lacks(contacts_.view) || (next != nullptr && lacks(next->view)));
}
inline bool participant::reaches(const std::string& address) const {
    return address == settings_.address || std::ranges::any_of(links_, [&](const auto& l) {
               return l.second.at == phase::linked &&
                      (l.second.address == address || l.second.hello.address == address);
           });
}

/// Tells everyone how far this peer is, and the sequencer also what it has stored and taken.
inline void participant::announce(timestamp now) {
    if (settings_.fresh) return;
    const status_message s = status(now);
    const auto same = [](const status_message& a, const status_message& b, bool all) {
        return a.term == b.term && a.sequencer == b.sequencer && a.final == b.final &&
               (!all || (a.accepted == b.accepted && a.taken == b.taken && a.active == b.active));
    };
    if (same(s, status_, true)) return;
    status_ = s;
    for (auto& [link, l] : links_) {
        if (l.at != phase::linked || same(s, l.told, l.peer == sequencer_)) continue;
        l.told = s;
        send(link, s, now);
    }
}

inline void participant::send(link_id link, message m, timestamp now) {
    links_.at(link).sent = now;
    effects_.push_back(send_effect{link, std::move(m)});
}

inline void participant::refuse(link_id link, refusal code, std::string text, timestamp now) {
    send(link, refuse_message{code, text}, now);
    close(link, std::move(text), code != refusal::replaced, now);
}

inline void participant::close(link_id link, std::string reason, bool fault, timestamp now) {
    effects_.push_back(close_effect{link, std::move(reason), fault});
    forget(link, now);
}

inline void participant::forget(link_id link, timestamp now) {
    const auto it = links_.find(link);
    const link_state& l = it->second;
    if (const auto d = dials_.find(l.address); d != dials_.end() && d->second.link == link) {
        d->second.link = 0;
        d->second.pause =
            d->second.pause == 0 ? settings_.first_pause : std::min(2 * d->second.pause, settings_.last_pause);
        d->second.next = now + d->second.pause;
    }
    const bool was_linked = l.at == phase::linked;
    const peer_id peer = l.peer;
    lose_source(link);
    std::erase_if(questions_, [&](const question& q) { return q.link == link; });
    std::erase_if(pulls_, [&](const auto& p) { return p.second.first == link; });
    links_.erase(it);
    dial_due_ = true;
    if (!was_linked) return;
    peer_state& p = peers_[peer];
    if (p.link != link) return;
    p.link = 0;
    p.gone = now;
    rank_.reset();
    roster_changed_ = true;
    if (peer == sequencer_) campaign_from_ = std::min(campaign_from_, now + settings_.takeover / 4);
    if (alone()) alone_since_ = now;
}

}  // namespace thinwire

#endif  // THINWIRE_COMM_DETAIL_PARTICIPANT_LINKS_HPP
