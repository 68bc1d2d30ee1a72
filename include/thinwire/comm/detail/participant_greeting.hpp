#ifndef THINWIRE_COMM_DETAIL_PARTICIPANT_GREETING_HPP
#define THINWIRE_COMM_DETAIL_PARTICIPANT_GREETING_HPP

#include <thinwire/comm/participant.hpp>

#include <algorithm>

namespace thinwire {

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
    hello.about = settings_.about;
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
    if (hello.peer == settings_.self) return no(refusal::replaced, peer + " is this peer, in another process");
    // Who was shown out is let in again by the run, or by this peer's owner, who may know that the run did so since.
    const auto asks = [&](const control_change& what) {
        return std::ranges::any_of(requests_, [&](const control_change& c) {
            return c.what == what.what && c.peer == what.peer && c.key == what.key;
        });
    };
    if (state_.banned.contains(hello.peer) && !asks({control_change::kind::pardon, hello.peer, "", ""}))
        return no(refusal::banned, peer + " is banned from the run");
    if (state_.revoked(hello.key) && !asks({control_change::kind::allow, 0, hello.key, ""}))
        return no(refusal::removed, "the key of " + peer + " was revoked");
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

inline std::size_t participant::contributors() const noexcept {
    return static_cast<std::size_t>(std::ranges::count(state_.view.members, true, &view_member::contributes));
}
inline std::string participant::no_place() const {
    return std::to_string(contributors()) + " peers contribute, all that the run has places for";
}

inline void participant::on(link_id link, hello_message& m, timestamp now) {
    // It goes by more names than it knows.
    if (m.peer == settings_.self && m.session == settings_.session) return close(link, "dialled itself", false, now);
    if (auto no = objection(m)) {
        // Who is further may know that it was taken back.
        const bool for_good = no->code == refusal::banned || no->code == refusal::removed;
        if (for_good && m.next_round > final_) return close(link, std::move(no->text), false, now);
        return refuse(link, no->code, std::move(no->text), now);
    }
    // Who is further than this peer knows the view better.
    if (m.contributes && m.next_round <= final_ && contributors() >= settings_.max_contributors &&
        state_.view.find(m.peer) == nullptr)
        return refuse(link, refusal::full, no_place(), now);
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
        links_.at(link).snapshot = snapshot_;
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
    admitted_once_ = true;
    connect(link, m.self, now);
    if (m.self.wants_snapshot && snapshot_ && is_linked(link)) send(link, welcome(link, m.self), now);
    if (settings_.fresh || (seeking_ && m.snapshot_round > final_))
        if (m.has_snapshot && is_linked(link)) begin_fetch(link, m, now);
}

/// The link carries the protocol from now on. A new link of a peer takes the place of its old one; another session is
/// another process, whose momentum does not hold what the old one sent: that is dropped, and the old process told.
inline void participant::connect(link_id link, const hello_message& hello, timestamp now) {
    refused_by_.erase(hello.peer);
    peer_state& p = peers_[hello.peer];
    if (!hello.address.empty()) p.address = hello.address;
    if (p.session != hello.session) {
        drop_if([&](const pool_key& key, const held_payload& held) {
            return key.author == hello.peer && held.session != hello.session && !assembly_ && !storing_ && !tentative_;
        });
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
    l.moved = now;
    links_due_ = std::min(links_due_, due(l));
    rank_.reset();
    p.name = hello.name;
    p.about = hello.about;
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
    if (std::ranges::find(settings_.seeds, l.address) != settings_.seeds.end()) found_at_[l.address] = hello.peer;
    roster_changed_ = true;
    dial_due_ = true;
    l.told = status(now);
    if (!settings_.fresh) send(link, l.told, now);
    offer_own(link, now);
    if (hello.peer == sequencer_) pass_on(link, now);
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

/// Whether a refusal for good is the run's: one member's word, where there are others to ask, is not.
inline bool participant::shown_out(peer_id by) {
    if (by != 0) refused_by_.insert(by);
    const auto refused = [&](const view_member& m) { return refused_by_.contains(m.peer); };
    if (by == 0) return links_.empty() || (alone() && !admitted_once_);  // where its owner sent it
    return settings_.fresh || links_.empty() || by == sequencer_ || state_.view.quorum(refused);
}

inline void participant::on(link_id link, refuse_message& m, timestamp now) {
    const bool final = links_.at(link).at == phase::linked || !admitted_once_;
    const std::string line = "refused: " + m.text;
    const peer_id by = links_.at(link).peer;
    close(link, "refused", false, now);
    trouble_ = line;
    switch (m.code) {
        case refusal::removed:
            if (leaving_) return depart(now);
            [[fallthrough]];
        case refusal::replaced:
        case refusal::banned:
            if (shown_out(by)) end(run_end::refused, line);
            return;
        case refusal::version_mismatch:
            if (final) end(run_end::version_mismatch, line);
            return;
        case refusal::run_mismatch:
            if (final) end(run_end::run_mismatch, line);
            return;
        case refusal::ahead:
            if (shown_out(by)) end(run_end::diverged, line);
            return;
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
    std::erase_if(changes_, [&](const auto& c) { return c.what == control_change::kind::remove && c.peer == peer; });
    roster_changed_ = true;
    if (peer == sequencer_) {
        sequencer_ = 0;
        campaign_from_ = now;
    }
    if (m.stop_run && state_.stopped && !std::exchange(stopping_, true)) leave_by_ = now + settings_.leave_timeout;
}

/// What a peer says of itself: whom it follows, how far it is.
inline void participant::on(link_id link, status_message& m, timestamp now) {
    link_state& l = links_.at(link);
    if (!possible(m.term)) return broken(link, "a status of a term that cannot be", now);
    furthest_ = std::max(furthest_, m.final);
    if (l.has_said && (m.final < l.says.final || m.term < l.says.term))
        return broken(link, "a status that goes back", now);
    const status_message before = std::exchange(l.says, m);
    // A term that begins while this peer looks on: somebody collects votes, and gets the time to lead.
    const bool contested = l.has_said && m.term > term_ && m.sequencer == 0;
    l.has_said = true;
    if (l.snapshot && m.final >= l.snapshot->round) l.snapshot = nullptr;
    if (m.final > before.final) l.moved = now;
    const peer_id peer = l.peer;
    if (m.sequencer != 0 && m.term >= term_) ordered_ = now;
    if (m.sequencer == peer) {
        follow(link, m.term, now);
    } else {
        if (peer == sequencer_) {
            sequencer_ = 0;
            campaign_from_ = std::min(campaign_from_, now + settings_.takeover / 4);
        }
        if (m.term > term_) step_down(m.term, leading() ? now : campaign_from_);
        if (contested) {
            electing_ = true;
            campaign_from_ = std::max(campaign_from_, now + settings_.takeover / 2);
        }
        // It hears a sequencer that this peer does not: there is one.
        if (m.sequencer != 0 && m.sequencer != settings_.self && m.term >= term_) {
            // Its word alone keeps nobody from an election for long.
            if (!hearsay_) hearsay_ = now;
            if (now < *hearsay_ + 2 * settings_.takeover)
                campaign_from_ = std::max(campaign_from_, now + settings_.takeover);
            // It can pass on what was offered to a sequencer before, or to nobody.
            if (linked(m.sequencer) == nullptr && l.relayed_in < m.term) {
                l.relayed_in = m.term;
                offer_own(link, now);
            }
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

}  // namespace thinwire

#endif  // THINWIRE_COMM_DETAIL_PARTICIPANT_GREETING_HPP
