#ifndef THINWIRE_COMM_DETAIL_PARTICIPANT_LOG_HPP
#define THINWIRE_COMM_DETAIL_PARTICIPANT_LOG_HPP

#include <thinwire/comm/participant.hpp>

#include <algorithm>
#include <memory>

namespace thinwire {

inline void participant::on(link_id link, record_message& m, timestamp now) {
    const commit_record& r = *m.record;
    if (!possible(r.term)) return broken(link, "a record of a term that cannot be", now);
    if (r.control && !decode_state(*r.control)) return broken(link, "a record with a control that cannot be", now);
    for (const committed_payload& c : r.contributions)
        if (c.payload && digest_of(*c.payload) != c.payload_digest)
            return broken(link, "a record whose payloads do not match their digests", now);
    if (m.pulled) {
        const auto it = pulls_.find(r.round);
        if (it == pulls_.end() || it->second.first != link) return;
        pulls_.erase(it);
        if (links_.at(link).says.final > r.round) {
            if (r.round >= final_) pulled_[r.round] = m.record;
        } else if (r.round == final_ && r.term <= term_ && std::pair(r.term, r.round + 1) > claim() && !leading() &&
                   !storing_ && (!assembly_ || (!assembly_->final && assembly_->record.term < r.term))) {
            assembly_ = assembly{r, false, true};
        }
        return;
    }
    if (r.term != m.term) return broken(link, "a proposal of another term than its own", now);
    if (m.term < term_) return send(link, links_.at(link).told = status(now), now);
    follow(link, m.term, now);
    if (sequencer_ != links_.at(link).peer || r.round < final_) return;
    if (!pending_ || std::pair(m.term, r.round) > std::pair(pending_->term, pending_->record->round)) pending_ = m;
    learn_final(now);
}

/// Goes on with what is known to come next in the log, as long as nothing is being stored.
inline void participant::advance(timestamp now) {
    while (!storing_ && !settings_.fresh && !over_) {
        const std::uint64_t before = final_;
        pulled_.erase(pulled_.begin(), pulled_.lower_bound(final_));
        if (const auto it = pulled_.find(final_); it != pulled_.end()) {
            const commit_ptr record = it->second;
            pulled_.erase(it);
            if (tentative_ && record_digest(*tentative_) == record_digest(*record)) {
                finalize(now);
            } else {
                if (leading()) step_down(term_, now + settings_.takeover);  // a later one was at work
                assembly_ = assembly{*record, true};
            }
        } else if (pending_ && pending_->record->round <= final_) {
            const record_message m = *std::exchange(pending_, std::nullopt);
            const bool accepted = tentative_ && tentative_->term == m.term;
            const bool under_way =
                assembly_ && (assembly_->final || (assembly_->record.term == m.term && !assembly_->borrowed));
            if (m.record->round == final_ && m.term == term_ && !leading() && !accepted && !under_way)
                assembly_ = assembly{*m.record, false};
        }
        learn_final(now);
        assemble(now);
        if (final_ == before && !(pending_ && pending_->record->round <= final_)) return;
    }
}

/// Fills in the payloads of the record under way from what is here, has the others fetched from whoever must have them,
/// and stores it when nothing is missing.
inline void participant::assemble(timestamp now) {
    if (!assembly_ || storing_) return;
    if (!assembly_->searched) search(now);
    if (!assembly_->lacking.empty()) return;
    const assembly done = *std::exchange(assembly_, std::nullopt);
    auto record = std::make_shared<commit_record>(done.record);
    if (done.final && tentative_ && record_digest(*tentative_) == record_digest(*record)) return finalize(now);
    if (done.borrowed && !done.final) {
        borrowed_state_.reset();
        if (record->control) borrowed_state_ = decode_state(*record->control).value();
        borrowed_ = std::move(record);
        return;
    }
    store(std::move(record), done.final);
}

/// What of the record under way is not here, and who has it.
inline void participant::search(timestamp now) {
    commit_record& r = assembly_->record;
    assembly_->searched = true;
    assembly_->lacking.clear();
    std::vector<link_id> sources;
    for (const auto& [link, l] : links_)
        if (l.at == phase::linked && has(l, r)) sources.push_back(link);
    std::map<digest, shared_bytes> accepted;
    if (tentative_)
        for (const committed_payload& t : tentative_->contributions) accepted.emplace(t.payload_digest, t.payload);
    for (committed_payload& c : r.contributions) {
        if (c.payload) continue;
        if (const auto t = accepted.find(c.payload_digest); t != accepted.end()) {
            c.payload = t->second;
        } else if (held_payload* held = hold_as(c, r.round); held->bytes) {
            c.payload = held->bytes;
        } else {
            assembly_->lacking.insert(c.peer);
            for (const link_id link : sources) add_source({c.payload_digest, c.peer, r.round}, link, now);
        }
    }
}

/// Whether a linked peer must have the payloads of a record.
inline bool participant::has(const link_state& l, const commit_record& r) const {
    return (l.says.final > r.round && l.hello.log_begin <= r.round) || l.peer == sequencer_ ||
           (l.says.final == r.round && l.says.accepted == r.term);
}

/// A final record of which a payload has no source left is asked for again, from whoever has it now.
inline void participant::forget_stuck() {
    if (!assembly_ || !assembly_->final || storing_) return;
    for (const committed_payload& c : assembly_->record.contributions) {
        if (c.payload) continue;
        const auto held = pool_.find({c.payload_digest, c.peer, assembly_->record.round});
        if (held != pool_.end() && (held->second.bytes || held->second.moving.has_source())) continue;
        drop({c.payload_digest, c.peer, assembly_->record.round});
        assembly_.reset();
        return;
    }
}

inline void participant::store(commit_ptr record, bool final) {
    storing_ = assembly{*record, final};
    effects_.push_back(store_effect{std::move(record)});
}

inline void participant::stored(timestamp now) {
    if (over_ || !storing_) return;
    const assembly done = *std::exchange(storing_, std::nullopt);
    tentative_ = std::make_shared<const commit_record>(done.record);
    tentative_state_.reset();
    if (tentative_->control)
        if (auto state = decode_state(*tentative_->control)) tentative_state_ = std::move(*state);
    last_term_ = tentative_->term;
    end_candidacy();
    if (done.final) {
        finalize(now);
    } else {
        learn_final(now);
    }
    // Elected while it was being stored: it is finished in the new term.
    if (leading() && tentative_ && tentative_->term < term_) propose_again(*tentative_, now);
    if (leading()) count_stored(now);
    settle(now);
}

/// The sequencer of this term proposes one record for a round: when it says that the round is final, that record is.
inline void participant::learn_final(timestamp now) {
    if (leading() || sequencer_ == 0) return;
    const link_state* l = linked(sequencer_);
    const bool said =
        l != nullptr && l->says.sequencer == sequencer_ && l->says.term == term_ && l->says.final > final_;
    const bool implied = pending_ && pending_->term == term_ && pending_->record->round > final_;
    if (!said && !implied) return;
    if (tentative_ && tentative_->term == term_ && !storing_) return finalize(now);
    if (assembly_ && assembly_->record.term == term_) assembly_->final = true;
    if (storing_ && storing_->record.term == term_) storing_->final = true;
}

/// The record in the log is final: everyone will hold this one.
inline void participant::finalize(timestamp now) {
    const commit_ptr record = std::exchange(tentative_, nullptr);
    std::optional<run_state> next_state = std::exchange(tentative_state_, std::nullopt);
    end_candidacy();
    ordered_ = now;  // by somebody, whether or not this peer reaches him
    hearsay_.reset();
    ++final_;
    unserved_.reset();
    effects_.push_back(final_effect{final_});
    if (assembly_ && assembly_->record.round < final_) assembly_.reset();
    recent_.push_back(record);
    recent_bytes_ += queue_weight(*record);
    while (recent_.size() > 1 && recent_bytes_ > settings_.recent) {
        recent_bytes_ -= queue_weight(*recent_.front());
        recent_.pop_front();
    }
    if (own_ && own_->round < final_) own_.reset();
    collected_.clear();
    first_payload_.reset();
    // One from before this process, or without a payload, says nothing about who computes now.
    if (!record->contributions.empty() && (!settings_.last || record->round > settings_.last->round))
        first_round_ = false;
    drop_if([&](const pool_key& key, const held_payload&) { return key.round < final_; });
    for (auto& [peer, p] : peers_) p.excluded = false;
    // Whom it brings in with a payload counts as gone for long: it is dialled at once.
    for (const committed_payload& c : record->contributions) peers_.try_emplace(c.peer);
    if (contacts_round_ > final_ && newest()) {  // nobody can have such a state
        contacts_ = state_;
        contacts_round_ = 0;
    }
    if (record->control)
        apply_control(*record, next_state ? std::move(*next_state) : decode_state(*record->control).value(), now);
    else
        heed(now);
    if (!leading() || over_) return;
    for (const auto& [key, held] : pool_)
        if (held.bytes) collect(key, now);
}

/// The most rounds that somebody who is linked says to be final.
inline std::uint64_t participant::furthest_said() const {
    std::uint64_t most = 0;
    for (const auto& [link, l] : links_)
        if (l.at == phase::linked) most = std::max(most, l.says.final);
    return most;
}

/// Nobody who is linked and can be believed says that more is final, and nothing more is here.
inline bool participant::newest() const {
    if (pulled_.lower_bound(final_) != pulled_.end()) return false;
    const std::uint64_t most = furthest_said();
    return most <= final_ || (none_further() && (leading() || most > final_ + 1));
}

/// Whether those who decide, this peer with them, are here and no further: then no more is final, whoever says so, but
/// for what they did since they last told. The record under way here may be final elsewhere; the one after it is not,
/// unless those whom it lets decide have it.
inline bool participant::none_further() const {
    const commit_record* open = storing_ ? &storing_->record : tentative_.get();
    if (open != nullptr && furthest_said() <= final_ + 1) return false;
    if (storing_ && tentative_ && record_digest(*tentative_) != record_digest(*open)) return false;
    const auto no_further = [&](const view_member& m) {
        if (m.peer == settings_.self) return is(m, nullptr);
        const link_state* l = linked(m.peer);
        if (!is(m, l) || !l->has_said) return false;
        const bool same = l->says.accepted == 0 || (open != nullptr && l->says.accepted == open->term);
        const bool behind = l->says.final < final_ || (l->says.final == final_ && same);
        return behind && settled_ < peers_.at(m.peer).heard + settings_.takeover;
    };
    if (!state_.view.quorum(no_further)) return false;
    return open == nullptr || !open->control || decode_state(*open->control).value().view.quorum(no_further);
}

/// Goes when the run has shown this peer out, by its log and by the newest state: what was taken back since is only
/// passed through.
inline void participant::heed(timestamp now) {
    const auto both = [&](const auto& holds) { return holds(state_) && holds(contacts_); };
    const bool banned = both([&](const run_state& s) { return s.banned.contains(settings_.self); });
    const bool revoked = !settings_.key.empty() && both([&](const run_state& s) { return s.revoked(settings_.key); });
    if ((!banned && !revoked) || !newest()) return;
    farewell(banned ? "banned from the run" : "its key was revoked", false, now);
    end(run_end::refused, banned ? "this peer was banned from the run" : "this peer's key was revoked");
}

inline void participant::apply_control(const commit_record& record, run_state next, timestamp now) {
    const run_state before = std::exchange(state_, std::move(next));
    states_.emplace_back(final_, record.control);
    rank_.reset();
    voter_.reset();
    roster_changed_ = true;
    change_since_.reset();
    learn_view(record.control, final_);
    meet_members(now);
    std::erase_if(requests_, [&](const control_change& c) { return satisfied(state_, c); });
    requests_told_ = {};  // the others again: the sequencer takes a bounded number at a time
    for (const peer_id peer : before.banned)
        if (!state_.banned.contains(peer)) peers_[peer].strikes = 0;
    heed(now);
    if (over_) return;
    if (state_.stopped && !before.stopped && newest()) {
        stopping_ = true;
        leave_by_ = now + settings_.leave_timeout;
    }
    if (!leading()) return;
    for (const peer_id peer : std::exchange(dismissed_, {})) {
        if (peer == settings_.self) {
            if (leaving_) return depart(now);
            farewell("removed from the run", false, now);
            return end(run_end::refused, "this peer was removed from the run");
        }
        const link_state* l = linked(peer);
        if (l == nullptr) continue;
        if (state_.banned.contains(peer))
            refuse(peers_[peer].link, refusal::banned, "banned from the run", now);
        else
            refuse(peers_[peer].link, refusal::removed,
                   state_.revoked(l->hello.key) ? "this peer's key was revoked" : "removed from the run", now);
    }
    // Those for whom no place is left; they may come when there is one.
    if (contributors() >= settings_.max_contributors) {
        std::vector<link_id> surplus;
        for (const auto& [link, l] : links_)
            if (l.at == phase::linked && l.hello.contributes && state_.view.find(l.peer) == nullptr)
                surplus.push_back(link);
        for (const link_id link : surplus) refuse(link, refusal::full, no_place(), now);
    }
    // A record of an earlier sequencer, for which this peer was gone: it enters again like everyone.
    if (!in(state_.view) && !leaving_ && !stands_in()) step_down(term_, now + settings_.takeover);
}

// ---------------------------------------------------------------------------------------------------- catching up

/// Asks for final records that others have and this peer lacks, unless the sequencer is about to say so. A sequencer
/// asks too: what it took over may be final elsewhere.
inline void participant::pull(timestamp now) {
    if (settings_.fresh || furthest_ <= final_) return;
    const auto current = [&](const auto& a) { return a && a->record.term == term_; };
    const bool under_way = (tentative_ && tentative_->term == term_) || current(assembly_) || current(storing_);
    if (under_way && !leading() && hears_sequencer(now)) return;
    const std::uint64_t most = furthest_said();
    bool served = true;
    for (std::uint64_t r = final_; r < std::min(most, final_ + pulls_ahead); ++r) {
        if (pulls_.contains(r) || pulled_.contains(r)) continue;
        if (r == final_ && ((storing_ && storing_->final) || (assembly_ && assembly_->final))) continue;
        std::vector<link_id> can;
        for (const auto& [link, l] : links_)
            if (l.at == phase::linked && l.says.final > r && l.hello.log_begin <= r) can.push_back(link);
        if (can.empty()) {
            served = false;
            break;
        }
        const link_id link = can[pull_turn_++ % can.size()];
        pulls_[r] = {link, now};
        send(link, pull_message{r}, now);
    }
    if (served) {
        if (most > final_)
            seeking_ = false;
        else
            unserved_.reset();
        return;
    }
    if (none_further()) return;
    // Somebody else's log may: but he may be gone, or one that this peer does not talk to.
    if (!unserved_) unserved_ = now;
    if (now < *unserved_ + settings_.absence)
        for (const view_member* m : wanted_links())
            if (!m->address.empty() && linked(m->peer) == nullptr) return;
    // No log reaches back this far: a snapshot is to take the place of this peer's log. What it promised and stored
    // stays promised, as a snapshot holds all of it.
    if (fetch_ || (seeking_ && now < sought_ + 2 * settings_.takeover)) return;
    if (leading()) step_down(term_, now + 2 * settings_.takeover);
    seeking_ = true;
    sought_ = now;
    while (!links_.empty()) close(links_.begin()->first, "a snapshot is sought", false, now);
}

/// A voter refuses this candidate, whose log is behind its own by the record that is not final yet. It may be that
/// nobody who has the record reaches enough voters: this candidate gets it from there, to claim and to propose. It has
/// not accepted it, so that it does not count among those who stored it before it does so in a term of its own.
inline void participant::borrow(link_id link, timestamp now) {
    const link_state& l = links_.at(link);
    const bool newer = l.says.accepted != 0 && std::pair(l.says.accepted, final_ + 1) > claim();
    if (l.says.final != final_ || !newer || pulls_.contains(final_)) return;
    pulls_[final_] = {link, now};
    send(link, pull_message{final_}, now);
}

inline void participant::on(link_id link, pull_message& m, timestamp now) {
    if (m.round > final_ || (m.round == final_ && !tentative_))
        return broken(link, "a pull of a round that was not offered", now);
    if (m.round < log_begin_) return close(link, "the log begins later by now", false, now);  // the next hello says so
    ask(question{link, m.round, std::nullopt}, now);
}

/// A final record that is in memory; otherwise asks the log for it and gives null.
inline commit_ptr participant::find(std::uint64_t round) {
    if (!recent_.empty() && round >= recent_.front()->round) return recent_[round - recent_.front()->round];
    for (const commit_ptr& record : loaded_)
        if (record->round == round) return record;
    if (!loading_) {
        loading_ = round;
        effects_.push_back(load_effect{round});
    }
    return nullptr;
}

inline void participant::loaded(commit_ptr record, timestamp now) {
    if (over_ || !loading_ || record->round != *loading_) return;
    loading_.reset();
    loaded_.push_back(std::move(record));
    std::size_t bytes = 0;
    for (const commit_ptr& r : loaded_) bytes += queue_weight(*r);
    while (loaded_.size() > 1 && (loaded_.size() > pulls_ahead || bytes > settings_.recent)) {
        bytes -= queue_weight(*loaded_.front());
        loaded_.pop_front();
    }
    settle(now);
}

inline void participant::pump_local() {
    // One record always may lie untaken.
    const auto room = [&](std::size_t more) { return untaken_.empty() || untaken_weight_ + more <= settings_.window; };
    while (!settings_.fresh && local_next_ < final_ && room(0)) {
        const commit_ptr record = find(local_next_);
        if (!record || !room(queue_weight(*record))) return;
        untaken_.push_back(queue_weight(*record));
        untaken_weight_ += untaken_.back();
        ++local_next_;
        effects_.push_back(deliver_effect{record});
    }
}

inline void participant::taken(std::uint64_t round, timestamp now) {
    if (over_ || round <= local_taken()) return;
    for (; local_taken() < round; untaken_.pop_front()) untaken_weight_ -= untaken_.front();
    settle(now);
}

inline shared_bytes participant::state_at(std::uint64_t round) const {
    shared_bytes found = states_.front().second;
    for (const auto& [from, state] : states_)
        if (from <= round) found = state;
    return found;
}

inline void participant::snapshot_published(std::uint64_t round, shared_bytes bytes, timestamp now) {
    if (over_) return;
    snapshot_ = std::make_shared<const snapshot_state>(
        snapshot_state{round, digest_of(*bytes), std::move(bytes), state_at(round)});
    while (states_.size() > 1 && states_[1].first <= round) states_.erase(states_.begin());
    settle(now);
}

inline std::uint64_t participant::log_needed_from(std::uint64_t wanted) const noexcept {
    // A snapshot without the rounds after it lets nobody in.
    std::uint64_t from = std::min(wanted, snapshot_ ? snapshot_->round : log_begin_);
    from = std::min({from, final_, local_next_});
    for (const question& q : questions_) from = std::min(from, std::max(q.round, log_begin_));
    if (loading_) from = std::min(from, std::max(*loading_, log_begin_));
    for (const auto& [link, l] : links_) {
        if (l.at != phase::linked || settled_ >= l.moved + settings_.absence) continue;  // it comes no further
        if (l.snapshot) from = std::min(from, std::max(l.snapshot->round, log_begin_));  // on its way there
        if (l.has_said) from = std::min(from, std::max(l.says.final, log_begin_));
    }
    return std::max(from, log_begin_);
}

}  // namespace thinwire

#endif  // THINWIRE_COMM_DETAIL_PARTICIPANT_LOG_HPP
