#ifndef THINWIRE_COMM_DETAIL_PARTICIPANT_VOTES_HPP
#define THINWIRE_COMM_DETAIL_PARTICIPANT_VOTES_HPP

#include <thinwire/comm/participant.hpp>

#include <algorithm>

namespace thinwire {

/// Whether those for whom `has` holds decide: in the view, and, while a record that changes it is not final, in the
/// next view as well.
template <class Has>
bool participant::quorums(Has&& has) const {
    const run_state* next = next_in_force();
    return state_.view.quorum(has) && (next == nullptr || next->view.quorum(has));
}

/// The state after a record that changes it and is not final: of the log, or that this candidate is to propose.
inline const run_state* participant::next_in_force() const noexcept {
    const std::optional<run_state>& next = borrowed_ ? borrowed_state_ : tentative_state_;
    return next ? &*next : nullptr;
}

/// Term of the last record of the log and the round after it, one that is being stored included: what a candidate must
/// reach to get this peer's vote.
inline std::pair<std::uint64_t, std::uint64_t> participant::last() const {
    if (storing_) return {storing_->record.term, final_ + 1};
    return {last_term_, final_ + (tentative_ ? 1 : 0)};
}

/// The same of what this peer would propose.
inline std::pair<std::uint64_t, std::uint64_t> participant::claim() const {
    return borrowed_ ? std::pair(borrowed_->term, final_ + 1) : last();
}

/// Whether a sequencer is at work, as far as this peer itself can tell.
inline bool participant::hears_sequencer(timestamp now) const {
    if (leading()) return true;
    return sequencer_ != 0 && linked(sequencer_) != nullptr && now < sequencer_heard_ + settings_.takeover;
}

inline bool participant::eligible() const {
    const auto voter = [&](const run_view& view) {
        const view_member* m = view.find(settings_.self);
        return m != nullptr && m->votes && m->incarnation == settings_.incarnation;
    };
    if (settings_.checks && !settings_.validate) return false;
    if (settings_.fresh || stopping_ || (leaving_ && !needed_to_go())) return false;
    if (!voter_) voter_ = voter(state_.view);
    const run_state* next = next_in_force();
    return *voter_ || (next != nullptr && voter(next->view)) || stands_in();
}

/// Whether this peer, which is not in the view, may sequence for those who are: they may be linked with it and not with
/// each other, as after the last of them that can be dialled left. It needs their votes like every other, its own does
/// not count, and its first record lets it in where there is a place.
inline bool participant::stands_in() const {
    if (in(state_.view) || !settings_.votes || settings_.address.empty() || seeking_) return false;
    return !state_.banned.contains(settings_.self) && !state_.revoked(settings_.key);
}

/// How many come before this peer when a sequencer is sought: linked voters earlier in the view, and, for one that
/// cannot be dialled, all that can. Who stands in waits a takeover for each voter that can be dialled.
inline timestamp participant::rank() const {
    if (rank_) return *rank_;
    timestamp before = 0;
    if (!in(state_.view)) {
        before = 1;
        for (const auto& [link, l] : links_) {
            if (l.at != phase::linked || l.hello.address.empty()) continue;
            const view_member* m = state_.view.find(l.peer);
            if (m != nullptr && m->votes && is(*m, &l)) before += 4;
            if (m == nullptr && l.peer < settings_.self) ++before;
        }
        rank_ = before;
        return before;
    }
    bool earlier = true;
    for (const view_member& m : state_.view.members) {
        if (m.peer == settings_.self) {
            earlier = false;
            continue;
        }
        if (!m.votes || linked(m.peer) == nullptr) continue;
        if (m.address.empty() != settings_.address.empty() ? settings_.address.empty() : earlier) ++before;
    }
    rank_ = before;
    return before;
}

/// Whether every other voter of the view is linked and says that it hears no sequencer.
inline bool participant::none_hears() const {
    return std::ranges::all_of(state_.view.members, [&](const view_member& m) {
        if (m.peer == settings_.self || !m.votes) return true;
        const link_state* l = linked(m.peer);
        return is(m, l) && l->has_said && l->says.sequencer == 0;
    });
}

inline std::optional<timestamp> participant::campaign_at() const {
    if (leading() || role_ == role::voting || vote_storing_ || storing_ || !eligible()) return std::nullopt;
    // All are here and hear nobody: no need to wait for a sequencer that may only be slow.
    if (role_ == role::follower && !electing_ && sequencer_ == 0 && rank() == 0 && none_hears()) return 0;
    const timestamp turn = rank() * (settings_.takeover / 4);
    timestamp at = campaign_from_ + turn;
    if (role_ != role::follower) at = std::max(at, campaign_began_ + settings_.takeover + turn);
    return at;
}

/// Asks everyone for a vote; first on trial, so that a peer that cannot win disturbs nobody.
inline void participant::campaign(bool trial, timestamp now) {
    granted_ = {settings_.self};
    campaign_began_ = now;
    electing_ = false;
    sequencer_ = 0;
    role_ = trial ? role::trial : role::candidate;
    const auto [last_term, next_round] = claim();
    for (auto& [link, l] : links_)
        if (l.at == phase::linked)
            send(link, campaign_message{trial ? term_ + 1 : term_, last_term, next_round, trial}, now);
    count_votes(now);
}

/// A candidate whose log changes is none any more: the votes were given under another view (tests/model/commit.pml).
inline void participant::end_candidacy() noexcept {
    if (role_ != role::leader) role_ = role::follower;
    granted_.clear();
    borrowed_.reset();
    borrowed_state_.reset();
}

inline void participant::count_votes(timestamp now) {
    if (role_ != role::trial && role_ != role::candidate) return;
    const bool won = quorums([&](const view_member& m) { return granted_.contains(m.peer) && is(m, linked(m.peer)); });
    if (!won) return;
    if (role_ == role::candidate) return lead(now);
    if (vote_storing_) return;
    role_ = role::voting;
    voted_term_ = ++term_;
    voted_for_ = settings_.self;
    vote_storing_ = true;
    effects_.push_back(vote_effect{term_, settings_.self});
}

inline void participant::voted(timestamp now) {
    if (over_ || !vote_storing_) return;
    vote_storing_ = false;
    if (voted_for_ == settings_.self) {
        if (role_ == role::voting && term_ == voted_term_) campaign(false, now);
    } else if (const link_state* l = linked(voted_for_); l != nullptr && term_ == voted_term_) {
        send(peers_[voted_for_].link, vote_message{voted_term_, true, false}, now);
    }
    settle(now);
}

inline void participant::on(link_id link, campaign_message& m, timestamp now) {
    if (!possible(m.term)) return broken(link, "a campaign for a term that cannot be", now);
    const link_state& l = links_.at(link);
    const peer_id peer = l.peer;
    // All that this peer holds is final there, whatever the terms in which they accepted it.
    const bool knows_all = l.has_said && l.says.final >= last().second;
    const bool fresh = knows_all || std::pair(m.last_term, m.next_round) >= last();
    const bool open = m.term > voted_term_ || (m.term == voted_term_ && voted_for_ == peer);
    if (m.term < term_ || !open || !fresh || hears_sequencer(now))
        return send(link, vote_message{term_, false, m.trial}, now);
    if (m.trial) return send(link, vote_message{m.term, true, true}, now);
    if (vote_storing_) return;
    if (m.term == voted_term_) return send(link, vote_message{m.term, true, false}, now);
    if (m.term > term_) step_down(m.term, now + settings_.takeover);
    campaign_from_ = std::max(campaign_from_, now + settings_.takeover);
    role_ = role::follower;
    voted_term_ = m.term;
    voted_for_ = peer;
    vote_storing_ = electing_ = true;
    effects_.push_back(vote_effect{m.term, peer});
}

inline void participant::on(link_id link, vote_message& m, timestamp now) {
    if (!possible(m.term)) return broken(link, "a vote of a term that cannot be", now);
    const link_state& l = links_.at(link);
    if (!m.granted) {
        if (role_ == role::trial || role_ == role::candidate) borrow(link, now);
        if (m.term > term_) step_down(m.term, leading() ? now : campaign_from_);
        return;
    }
    if (m.trial != (role_ == role::trial) || m.term != (m.trial ? term_ + 1 : term_)) return;
    granted_.insert(l.peer);
    count_votes(now);
}

/// The others made this peer the sequencer. What it may not know to be final is finished first, in its own term.
inline void participant::lead(timestamp now) {
    role_ = role::leader;
    sequencer_ = settings_.self;
    assembly_.reset();
    pending_.reset();
    pulls_.clear();
    pulled_.clear();
    collected_.clear();
    first_payload_.reset();
    change_since_.reset();
    roster_changed_ = true;
    changes_.clear();
    dismissed_.clear();
    promoted_ = 0;
    for (auto& [link, l] : links_) l.proposed = {};
    for (auto& [peer, p] : peers_) {
        p.excluded = false;
        p.missed.reset();
        if (p.link == 0) p.gone = now;
        const link_state* l = linked(peer);
        p.waited = peer == settings_.self ? settings_.contributes
                                          : l != nullptr && (first_round_ ? l->hello.contributes : l->says.active);
    }
    for (const control_change& c : requests_) changes_.push_back(c);
    if (storing_) return;
    if (const commit_ptr& open = borrowed_ ? borrowed_ : tentative_) return propose_again(*open, now);
    for (const auto& [key, held] : pool_)
        if (held.bytes) collect(key, now);
}

/// No longer the sequencer, nor a candidate. `campaign_from`: when this peer would try at the earliest.
inline void participant::step_down(std::uint64_t term, timestamp campaign_from) {
    if (term > term_) hearsay_.reset();
    term_ = std::max(term_, term);
    role_ = role::follower;
    if (sequencer_ == settings_.self || term > 0) sequencer_ = 0;
    campaign_from_ = campaign_from;
    collected_.clear();
    first_payload_.reset();
    // What was promised to a later term is not accepted from an earlier one.
    if (assembly_ && !assembly_->final && !assembly_->borrowed && assembly_->record.term < term_) assembly_.reset();
    if (pending_ && pending_->term < term_) pending_.reset();
}

/// A peer says that it is the sequencer of a term.
inline void participant::follow(link_id link, std::uint64_t term, timestamp now) {
    const peer_id peer = links_.at(link).peer;
    if (term < term_ || (term == term_ && leading())) return;
    if (term > term_ || sequencer_ != peer) {
        step_down(term, now + settings_.takeover);
        sequencer_ = peer;
        offer_own(link, now);  // a member has it already, unless it was behind when it was offered
        pass_on(link, now);
    }
    role_ = role::follower;
    electing_ = false;
    hearsay_.reset();
    sequencer_heard_ = now;
    campaign_from_ = std::max(campaign_from_, now + settings_.takeover);
}

}  // namespace thinwire

#endif  // THINWIRE_COMM_DETAIL_PARTICIPANT_VOTES_HPP
