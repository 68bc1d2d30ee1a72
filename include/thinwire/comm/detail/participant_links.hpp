#ifndef THINWIRE_COMM_DETAIL_PARTICIPANT_LINKS_HPP
#define THINWIRE_COMM_DETAIL_PARTICIPANT_LINKS_HPP

#include <thinwire/comm/participant.hpp>

#include <algorithm>
#include <iterator>
#include <limits>

namespace thinwire {

inline participant::participant(participant_settings settings, timestamp now)
    : settings_(std::move(settings)), patience_(settings_.min_deadline, settings_.max_deadline) {
    peers_[settings_.self].name = settings_.name;
    peers_[settings_.self].waited = settings_.contributes;
    alone_since_ = now;
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
            recent_bytes_ = detail::comm::weight(*last);
        } else {
            tentative_ = last;
            if (last->control)
                if (auto state = decode_state(*last->control)) tentative_state_ = std::move(*state);
        }
    }
    states_.emplace_back(final_, encode_state(state_));
    term_ = std::max(voted_term_, last_term_);
    local_ = detail::comm::outflow(settings_.fresh ? 0 : settings_.local_round);
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

// --------------------------------------------------------------------------------------------------- greeting

inline hello_message participant::introduction() const {
    hello_message hello;
    hello.run = settings_.run;
    hello.peer = settings_.self;
    hello.session = settings_.session;
    hello.name = settings_.name;
    hello.next_round = final_;
    hello.wants_snapshot = settings_.fresh || seeking_;
    hello.incarnation = settings_.incarnation;
    hello.address = settings_.address;
    hello.key = settings_.key;
    hello.log_begin = log_begin_;
    if (!recent_.empty()) hello.last = record_digest(*recent_.back());
    hello.votes = settings_.votes;
    hello.contributes = settings_.contributes;
    return hello;
}

/// Why a peer cannot be talked to, whoever dialled.
inline std::optional<refuse_message> participant::objection(const hello_message& hello) const {
    const auto no = [](refusal code, std::string text) { return refuse_message{code, std::move(text)}; };
    const std::string peer = "peer " + std::to_string(hello.peer);
    if (hello.protocol != protocol_version)
        return no(refusal::version_mismatch, "the peer speaks protocol " + std::to_string(hello.protocol) +
                                                 " (thinwire " + hello.library + "), the run protocol " +
                                                 std::to_string(protocol_version) +
                                                 " (thinwire " THINWIRE_VERSION_STRING ")");
    if (hello.run != digest{} && settings_.run != digest{} && hello.run != settings_.run)
        return no(refusal::run_mismatch,
                  "the peer is of run " + to_string(hello.run, 16) + ", this is run " + to_string(settings_.run, 16));
    if (hello.peer == 0) return no(refusal::malformed, "peer 0, expected an identity that is not 0");
    if (hello.peer == settings_.self) return no(refusal::replaced, peer + " is this peer itself");
    if (state_.banned.contains(hello.peer)) return no(refusal::banned, peer + " is banned from the run");
    if (state_.revoked(hello.key)) return no(refusal::removed, "the key of " + peer + " was revoked");
    if (const auto p = peers_.find(hello.peer); p != peers_.end() && p->second.strikes >= settings_.max_strikes)
        return no(refusal::banned, peer + " is banned after " + std::to_string(p->second.strikes) + " strikes");
    if (const auto p = peers_.find(hello.peer); p != peers_.end() && hello.session < p->second.session)
        return no(refusal::replaced, "another process, begun later, takes part as " + peer);
    if (hello.last != digest{} && hello.next_round > 0 && hello.next_round <= final_ && !recent_.empty() &&
        hello.next_round > recent_.front()->round) {
        const commit_record& mine = *recent_[hello.next_round - 1 - recent_.front()->round];
        if (record_digest(mine) != hello.last)
            return no(refusal::ahead,
                      peer + " holds another history: round " + std::to_string(hello.next_round - 1) + " differs");
    }
    return std::nullopt;
}

inline void participant::on(link_id link, hello_message& m, timestamp now) {
    if (auto no = objection(m)) {
        // Who is further may know that it was taken back.
        const bool for_good = no->code == refusal::banned || no->code == refusal::removed;
        if (for_good && m.next_round > final_) return close(link, std::move(no->text), false, now);
        return refuse(link, no->code, std::move(no->text), now);
    }
    if (settings_.run == digest{} || settings_.fresh) return close(link, "not ready to be joined", false, now);
    for (const auto& [other, l] : links_) {
        if (other == link || l.peer != m.peer || (l.at != phase::greeted && l.at != phase::dialling)) continue;
        // Both dial at once: the higher number's link stays, on both sides.
        if (settings_.self > m.peer && l.at == phase::greeted) return close(link, "dialled already", false, now);
        close(other, "dialled by the other side", false, now);
        break;
    }
    effects_.push_back(admit_effect{link, m.peer});
    send(link, welcome(link, m), now);
    connect(link, m, now);
}

/// The answer to a hello; a peer that wants a snapshot is offered the newest, and may fetch it while the link lives.
inline welcome_message participant::welcome(link_id link, const hello_message& to) {
    welcome_message answer;
    answer.run = settings_.run;
    answer.term = term_;
    answer.sequencer = sequencer_;
    answer.name = settings_.name;
    if (to.run == digest{} || to.wants_snapshot) answer.manifest = settings_.manifest;
    answer.round = final_;
    answer.self = introduction();
    answer.state = states_.back().second;
    if (to.wants_snapshot && snapshot_) {
        answer.has_snapshot = true;
        answer.snapshot_round = snapshot_->round;
        answer.snapshot_size = snapshot_->bytes->size();
        answer.snapshot_digest = snapshot_->content;
        answer.state_at = snapshot_->state;
        links_.at(link).snapshot = snapshot_->bytes;
        links_.at(link).snapshot_digest = snapshot_->content;
        links_.at(link).snapshot_round = snapshot_->round;
    }
    return answer;
}

inline void participant::on(link_id link, welcome_message& m, timestamp now) {
    const bool offered = links_.at(link).at == phase::linked;  // by a peer that dialled this one and found it behind
    if (settings_.run != digest{} && m.run != settings_.run) {
        const std::string line = links_.at(link).address + " is of run " + to_string(m.run, 16) + ", expected run " +
                                 to_string(settings_.run, 16);
        close(link, "another run", false, now);
        if (!admitted_once_) end(run_end::run_mismatch, line);
        return;
    }
    if (const peer_id expected = links_.at(link).peer; expected != 0 && expected != m.self.peer)
        return close(link, "another peer than the one that was dialled", false, now);
    if (auto no = objection(m.self)) {
        close(link, no->text, false, now);
        if (no->code == refusal::ahead && !admitted_once_) end(run_end::diverged, no->text);
        return;
    }
    const bool wanted = settings_.fresh || seeking_;
    if (wanted && (m.snapshot_round > m.round || m.snapshot_size > settings_.max_snapshot ||
                   (m.has_snapshot && (m.snapshot_size == 0 || !decode_state(*m.state_at)))))
        return broken(link, "a snapshot that cannot be", now);
    if (offered) {
        if (seeking_ && m.has_snapshot && m.snapshot_round > final_) begin_fetch(link, m, now);
        return;
    }
    if (!m.state->empty() && *m.state != *states_.back().second && !decode_state(*m.state))
        return broken(link, "a state that cannot be", now);
    if (settings_.fresh && !m.has_snapshot && !fetch_) return close(link, "it has no snapshot yet", false, now);
    settings_.run = m.run;
    if (settings_.manifest.empty()) settings_.manifest = m.manifest;
    learn_view(m.state, m.round);
    effects_.push_back(admit_effect{link, m.self.peer});
    if (!std::exchange(admitted_once_, true)) effects_.push_back(welcomed_effect{m});
    connect(link, m.self, now);
    if (m.self.wants_snapshot && snapshot_ && is_linked(link)) send(link, welcome(link, m.self), now);
    if (settings_.fresh || (seeking_ && m.snapshot_round > final_))
        if (m.has_snapshot && is_linked(link)) begin_fetch(link, m, now);
}

/// The link carries the protocol from now on. A new link of a peer takes the place of its old one; another session is
/// another process, whose momentum does not hold what the old one sent: that is dropped, and the old process told.
inline void participant::connect(link_id link, const hello_message& hello, timestamp now) {
    peer_state& p = peers_[hello.peer];
    if (p.session != hello.session) {
        std::vector<pool_key> stale;
        for (auto at = authored_.lower_bound({hello.peer, 0, digest{}});
             at != authored_.end() && std::get<0>(*at) == hello.peer; ++at) {
            const pool_key key{std::get<2>(*at), hello.peer, std::get<1>(*at)};
            if (pool_.at(key).session != hello.session) stale.push_back(key);
        }
        for (const pool_key& key : stale)
            if (!assembly_ && !storing_ && !tentative_) drop(key);
        p.excluded = false;
        p.waited = false;
    }
    if (p.link != 0) {
        if (p.session == hello.session)
            close(p.link, "replaced by a new connection of the same process", false, now);
        else
            refuse(p.link, refusal::replaced, "another process takes part as peer " + std::to_string(hello.peer), now);
    }
    link_state& l = links_.at(link);
    l.at = phase::linked;
    l.peer = hello.peer;
    l.hello = hello;
    links_due_ = std::min(links_due_, due(l));
    rank_.reset();
    p.name = hello.name;
    p.link = link;
    p.session = hello.session;
    p.heard = now;
    p.left = false;
    p.missed.reset();
    p.pause = p.waited_from = 0;
    if (first_round_ && leading()) p.waited = hello.contributes;
    if (first_round_ && first_payload_) first_payload_ = now;
    dials_.erase(hello.address);
    if (!l.address.empty()) dials_.erase(l.address);
    roster_changed_ = true;
    dial_due_ = true;
    l.told = status(now);
    if (!settings_.fresh) send(link, l.told, now);
    offer_own(link, now);
    if (leading()) propose_to(link, now);
}

inline void participant::learn_view(const shared_bytes& state, std::uint64_t round) {
    if (round <= contacts_round_ && !contacts_.view.members.empty()) return;
    if (auto s = decode_state(*state)) {
        contacts_ = std::move(*s);
        contacts_round_ = round;
        dial_due_ = true;
    }
}

/// Every member of the view has an entry in peers_; a new one without a link counts as gone from now on.
inline void participant::meet_members(timestamp now) {
    for (const view_member& m : state_.view.members)
        if (const auto [p, fresh] = peers_.try_emplace(m.peer); fresh) p->second.gone = now;
}

inline void participant::on(link_id link, refuse_message& m, timestamp now) {
    const bool final = links_.at(link).at == phase::linked || !admitted_once_;
    const std::string line = "refused: " + m.text;
    close(link, "refused", false, now);
    trouble_ = line;
    switch (m.code) {
        case refusal::replaced:
        case refusal::removed:
        case refusal::banned: return end(run_end::refused, line);
        case refusal::version_mismatch:
            if (final) end(run_end::version_mismatch, line);
            return;
        case refusal::run_mismatch:
            if (final) end(run_end::run_mismatch, line);
            return;
        case refusal::ahead: return end(run_end::diverged, line);
        default: return;
    }
}

inline void participant::on(link_id link, goodbye_message& m, timestamp now) {
    const link_state& l = links_.at(link);
    const bool known = l.at == phase::linked;
    const peer_id peer = l.peer;
    close(link, "goodbye", false, now);
    if (!known) return;
    peers_[peer].left = true;
    roster_changed_ = true;
    if (peer == sequencer_) {
        sequencer_ = 0;
        campaign_from_ = now;
    }
    if (m.stop_run && state_.stopped) stopping_ = true;
}

/// What a peer says of itself: whom it follows, how far it is.
inline void participant::on(link_id link, status_message& m, timestamp now) {
    link_state& l = links_.at(link);
    furthest_ = std::max(furthest_, m.final);
    if (l.has_said && (m.final < l.says.final || m.term < l.says.term))
        return broken(link, "a status that goes back", now);
    const status_message before = std::exchange(l.says, m);
    l.has_said = true;
    l.snapshot = nullptr;
    const peer_id peer = l.peer;
    if (m.sequencer == peer) {
        follow(link, m.term, now);
    } else {
        if (peer == sequencer_) {
            sequencer_ = 0;
            campaign_from_ = std::min(campaign_from_, now + settings_.takeover / 4);
        }
        if (m.term > term_) step_down(m.term, leading() ? now : campaign_from_);
        // It hears a sequencer that this peer does not: there is one.
        if (m.sequencer != 0 && m.sequencer != settings_.self && m.term >= term_) {
            campaign_from_ = std::max(campaign_from_, now + settings_.takeover);
            if (!m.address.empty() && linked(m.sequencer) == nullptr) {
                hint_ = {m.sequencer, m.address};
                dial_due_ = true;
            }
        } else if (m.sequencer == 0 && sequencer_ == 0 && !m.address.empty() && lacks_links() && !reaches(m.address)) {
            hint_ = {0, m.address};
            dial_due_ = true;
        }
    }
    if (!links_.contains(link)) return;
    const bool moved = before.final != m.final || before.accepted != m.accepted || before.sequencer != m.sequencer;
    peer_state& p = peers_[peer];
    if (m.active && (!before.active || m.taken > before.taken)) awake(p, now);
    if (leading() && before.final != m.final && !state_.view.find(peer)) roster_changed_ = true;
    if (leading()) {
        propose_to(link, now);
        if (moved) count_stored(now);
    }
    learn_final(now);
    if (moved && assembly_ && has(links_.at(link), assembly_->record))
        for (const committed_payload& c : assembly_->record.contributions)
            if (assembly_->lacking.contains(c.peer))
                add_source({c.payload_digest, c.peer, assembly_->record.round}, link, now);
    assemble(now);
}

// ------------------------------------------------------------------------------------------------------ dialling

/// Whether this peer keeps a link to a member of contacts_: everyone in a small view; in a large one the sequencer,
/// those who come next, and neighbours in the order of the view. `own`: own_position().
inline bool participant::wants_link(std::size_t position, std::size_t own) const {
    const auto& members = contacts_.view.members;
    if (members.size() <= settings_.mesh + 1 || position < 3 || members[position].peer == sequencer_) return true;
    if (own == members.size()) return false;
    return (position + members.size() - own) % members.size() <= std::max<std::size_t>(settings_.mesh / 2, 1);
}

/// Where this peer is in contacts_; behind the last: nowhere.
inline std::size_t participant::own_position() const {
    const auto& members = contacts_.view.members;
    const auto self =
        std::find_if(members.begin(), members.end(), [&](const view_member& m) { return m.peer == settings_.self; });
    return static_cast<std::size_t>(self - members.begin());
}

inline void participant::dial_wanted(timestamp now) {
    if (leaving_) return;
    dial_due_ = false;
    bool any = false;
    std::set<std::string> wanted;
    for (const auto& [link, l] : links_) any = any || l.at == phase::linked;
    const std::size_t own = own_position();
    const bool member = own < contacts_.view.members.size();
    for (std::size_t i = 0; i < contacts_.view.members.size(); ++i) {
        const view_member& m = contacts_.view.members[i];
        if (!wants_link(i, own) || m.peer == settings_.self || m.address.empty() || linked(m.peer) != nullptr) continue;
        const bool theirs = member && !seeking_ && !settings_.address.empty() && m.peer > settings_.self;
        if (theirs && now < peers_[m.peer].gone + settings_.attempt_timeout) continue;
        dial(m.address, m.peer, m.key, now);
        wanted.insert(m.address);
    }
    if (hint_.first != 0 ? linked(hint_.first) != nullptr : reaches(hint_.second)) hint_ = {};
    if (!hint_.second.empty()) {
        dial(hint_.second, hint_.first, "", now);
        wanted.insert(hint_.second);
    }
    if (!any)
        for (const std::string& seed : settings_.seeds) {
            dial(seed, 0, "", now);
            wanted.insert(seed);
        }
    std::erase_if(dials_, [&](const auto& d) { return d.second.link == 0 && !wanted.contains(d.first); });
}

inline void participant::dial(const std::string& address, peer_id peer, const std::string& key, timestamp now) {
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
    effects_.push_back(dial_effect{d.link, address, key});
}

// -------------------------------------------------------------------------------------------------- sending, closing

inline status_message participant::status(timestamp now) const {
    status_message s;
    s.term = term_;
    s.sequencer = hears_sequencer(now) ? sequencer_ : 0;
    s.final = final_;
    s.accepted = tentative_ ? tentative_->term : 0;
    s.taken = std::min(local_.taken(), final_);
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
/// Fewer links than the view's members, or than a mesh has.
inline bool participant::lacks_links() const {
    const auto count = static_cast<std::size_t>(
        std::count_if(links_.begin(), links_.end(), [](const auto& l) { return l.second.at == phase::linked; }));
    return count + 1 < contacts_.view.members.size() && count < settings_.mesh;
}
inline bool participant::reaches(const std::string& address) const {
    return address == settings_.address || std::any_of(links_.begin(), links_.end(), [&](const auto& l) {
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
    if (std::none_of(links_.begin(), links_.end(), [](const auto& e) { return e.second.at == phase::linked; }))
        alone_since_ = now;
}

// ---------------------------------------------------------------------------------------------------- time and end

inline void participant::settle(timestamp now) {
    if (over_) return;
    advance(now);
    if (over_) return;
    if (dial_due_) dial_wanted(now);
    if (!questions_.empty()) answer(now);
    ask_pieces(now);
    pull(now);
    if (leading()) {
        consider(now);
    } else {
        send_requests(now);
        if (const auto at = campaign_at(); at && now >= *at) campaign(true, now);
    }
    pump_local();
    announce(now);
    maybe_end(now);
}

inline void participant::tick(timestamp now) {
    if (over_) return;
    std::vector<std::pair<link_id, std::string>> dead;
    for (auto& [link, l] : links_) {
        const bool linked = l.at == phase::linked;
        if (!linked &&
            now >= l.opened + (l.at == phase::stranger ? settings_.handshake_timeout : settings_.attempt_timeout))
            dead.emplace_back(link, "no answer");
        else if (linked && now >= l.heard + settings_.keepalive_timeout)
            dead.emplace_back(link, "silent");
        else if (linked && now >= l.sent + settings_.keepalive_interval)
            send(link, settings_.fresh ? message(ping_message{}) : message(l.told = status(now)), now);
    }
    for (auto& [link, why] : dead) {
        trouble_ = why;
        close(link, std::move(why), true, now);
    }
    links_due_ = std::numeric_limits<timestamp>::max();
    for (const auto& [link, l] : links_) links_due_ = std::min(links_due_, due(l));
    if (now >= housekeeping_) {
        housekeeping_ = now + settings_.keepalive_interval;
        roster_changed_ = true;
        dial_due_ = true;
        const timestamp stall = now - 2 * settings_.takeover;
        for (auto& [key, held] : pool_)
            if (held.moving.sources().size() > 1)
                for (const link_id link : held.moving.stalled(stall))
                    if (held.moving.remove_source(link) > 0) reopen(key, held);
        std::erase_if(pulls_, [&](const auto& p) { return p.second.second < stall; });
        if (fetch_ && !fetch_->moving.has_source() && !settings_.fresh) fetch_.reset();
        if (fetch_ && !fetch_->moving.has_source())
            while (!links_.empty()) close(links_.begin()->first, "another snapshot is sought", false, now);
        if (leading() && !quorums([&](const view_member& m) {
                return m.peer == settings_.self ? is(m, nullptr) : peers_[m.peer].heard + settings_.takeover > now;
            }))
            step_down(term_, now + settings_.takeover);
        forget_stuck();
        if (assembly_) assembly_->searched = false;
        assemble(now);
    }
    for (const auto& [address, d] : dials_) dial_due_ = dial_due_ || (d.link == 0 && now >= d.next);
    settle(now);
}

/// When a link needs a tick, unless something is heard or sent before.
inline timestamp participant::due(const link_state& l) const {
    if (l.at == phase::linked)
        return std::min(l.heard + settings_.keepalive_timeout, l.sent + settings_.keepalive_interval);
    return l.opened + (l.at == phase::stranger ? settings_.handshake_timeout : settings_.attempt_timeout);
}

inline std::optional<timestamp> participant::wake_at() const {
    if (over_) return std::nullopt;
    timestamp at = std::min(housekeeping_, links_due_);
    const auto sooner = [&](std::optional<timestamp> t) { at = t ? std::min(at, *t) : at; };
    for (const auto& [address, d] : dials_)
        if (d.link == 0 && !leaving_) sooner(d.next);
    if (leading()) sooner(deadline());
    if (!leading()) sooner(campaign_at());
    if (leaving_ || stopping_) sooner(leave_by_);
    return at;
}

inline void participant::leave(timestamp now) {
    if (over_ || leaving_) return;
    leaving_ = true;
    leave_by_ = now + settings_.leave_timeout;
    settle(now);
}

inline void participant::farewell(const std::string& text, bool stop, timestamp now) {
    while (!links_.empty()) {
        const link_id link = links_.begin()->first;
        if (links_.begin()->second.at == phase::linked) {
            send(link, status(now), now);
            send(link, goodbye_message{stop, text}, now);
        }
        close(link, text, false, now);
    }
}

inline void participant::maybe_end(timestamp now) {
    if (over_) return;
    if (stopping_) {
        if (local_.next() < final_ && now < leave_by_) return;
        if (now < leave_by_ && leading())
            for (const view_member& m : state_.view.members)
                if (const link_state* l = linked(m.peer); l != nullptr && l->says.final < final_) return;
        farewell("the run is stopped", true, now);
        return end(run_end::stopped, "the run was stopped");
    }
    if (leaving_) {
        // Others must be able to go on: a sequencer waits until it is out of the view.
        bool others = false;
        for (const view_member& m : state_.view.members)
            others = others || (m.votes && m.peer != settings_.self && linked(m.peer) != nullptr);
        if (leading() && others && in(state_.view) && now < leave_by_) return;
        farewell("left the run", false, now);
        return end(run_end::left, "left the run");
    }
    const bool alone =
        std::none_of(links_.begin(), links_.end(), [](const auto& l) { return l.second.at == phase::linked; });
    if (!alone || leading()) return;
    const auto seconds = [](timestamp t) {
        return t % 1'000'000 == 0 ? std::to_string(t / 1'000'000) + " s" : std::to_string(t / 1000) + " ms";
    };
    const std::string why = trouble_.empty() ? "" : ": " + trouble_;
    if (!admitted_once_ && contacts_.view.members.empty() && now >= alone_since_ + settings_.connect_timeout)
        return end(run_end::unreachable, "cannot reach the run within " + seconds(settings_.connect_timeout) + why);
    if ((admitted_once_ || !contacts_.view.members.empty()) && now >= alone_since_ + settings_.reconnect_timeout)
        end(run_end::lost,
            "lost all other peers and could not reach one again within " + seconds(settings_.reconnect_timeout) + why);
}

inline void participant::storage_failed(const std::string& why, timestamp now) {
    if (over_) return;
    farewell("the run log failed: " + why, false, now);
    end(run_end::storage, "the run log failed: " + why);
}

inline void participant::end(run_end code, std::string text) {
    if (over_) return;
    over_ = true;
    effects_.push_back(end_effect{code, std::move(text)});
}

inline std::uint64_t participant::newest_round() const noexcept {
    std::uint64_t newest = final_;
    for (const auto& [link, l] : links_)
        if (l.at == phase::linked) newest = std::max({newest, l.hello.next_round, l.says.final});
    return newest;
}

inline std::vector<member_status> participant::members() const {
    std::vector<member_status> list;
    for (const auto& [peer, p] : peers_)
        list.push_back({peer, p.name, peer == settings_.self || p.link != 0, p.strikes, p.last_round});
    return list;
}

}  // namespace thinwire

#endif  // THINWIRE_COMM_DETAIL_PARTICIPANT_LINKS_HPP
