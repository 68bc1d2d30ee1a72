#ifndef THINWIRE_COMM_DETAIL_PARTICIPANT_TIME_HPP
#define THINWIRE_COMM_DETAIL_PARTICIPANT_TIME_HPP

#include <thinwire/comm/participant.hpp>

#include <algorithm>
#include <limits>

namespace thinwire {

inline void participant::settle(timestamp now) {
    if (over_) return;
    if (now > settled_ + settings_.takeover) ordered_ = alone_since_ = now;  // it stood still, and knows of nothing
    settled_ = now;
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
    if (hears_sequencer(now)) ordered_ = now;
    maybe_end(now);
}

inline void participant::tick(timestamp now) {
    if (over_) return;
    std::vector<std::pair<link_id, std::string>> dead;
    for (auto& [link, l] : links_) {
        const bool linked = l.at == phase::linked;
        if (!linked && now >= due(l))
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
        if (fetch_) {
            // All that give share what this peer can take.
            const auto donors = static_cast<timestamp>(fetch_->moving.sources().size());
            for (const link_id link : fetch_->moving.idle(stall, now - donors * settings_.absence))
                if (fetch_->moving.remove_source(link) > 0) reopen_snapshot();
        }
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
    roster_changed_ = true;
    if (awaits_removal()) enqueue({control_change::kind::remove, settings_.self, "", ""});
    settle(now);
}

/// Whether those who are linked can take this peer out of the view. It stays until they have, also when they would
/// decide without it: another one may be leaving at the same time.
inline bool participant::awaits_removal() const {
    const auto here = [&](const view_member& m) { return is(m, linked(m.peer)); };
    const bool others = std::ranges::any_of(state_.view.members, [&](const view_member& m) {
        return m.votes && m.peer != settings_.self && linked(m.peer) != nullptr;
    });
    return others && in(state_.view) && state_.view.quorum(here);
}

/// Whether those who are here decide with this peer, and not without it: then it may have to sequence once more.
inline bool participant::needed_to_go() const {
    const auto others = [&](const view_member& m) { return m.peer != settings_.self && is(m, linked(m.peer)); };
    return in(state_.view) && decided_here(state_.view) && !state_.view.quorum(others);
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

/// Ends as one that left.
inline void participant::depart(timestamp now) {
    farewell("left the run", false, now);
    end(run_end::left, "left the run");
}

inline void participant::maybe_end(timestamp now) {
    if (over_) return;
    if (stopping_) {
        if (local_next_ < final_ && now < leave_by_) return;
        if (now < leave_by_ && leading())
            for (const view_member& m : state_.view.members)
                if (const link_state* l = linked(m.peer); l != nullptr && l->says.final < final_) return;
        farewell("the run is stopped", true, now);
        return end(run_end::stopped, "the run was stopped");
    }
    if (leaving_) {
        if (now < leave_by_ && awaits_removal()) return;  // others must be able to go on
        return depart(now);
    }
    const auto seconds = [](timestamp t) {
        return t % 1'000'000 == 0 ? std::to_string(t / 1'000'000) + " s" : std::to_string(t / 1000) + " ms";
    };
    if (leading()) return;
    if (!alone()) {
        if (admitted_once_ && !settings_.fresh && now >= ordered_ + settings_.reconnect_timeout)
            end(run_end::lost, "nobody ordered the rounds for " + seconds(settings_.reconnect_timeout) +
                                   ": a majority of the " + std::to_string(state_.view.members.size()) +
                                   " members was not reached");
        return;
    }
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

inline std::size_t participant::place() const noexcept {
    std::size_t before = 0;
    for (const view_member& m : state_.view.members) {
        if (m.peer == settings_.self) break;
        before += m.contributes ? 1 : 0;
    }
    return before;
}

inline std::vector<member_status> participant::members() const {
    std::vector<member_status> list;
    for (const auto& [peer, p] : peers_)
        list.push_back({peer, p.name, p.about, peer == settings_.self || p.link != 0, p.strikes});
    return list;
}

}  // namespace thinwire

#endif  // THINWIRE_COMM_DETAIL_PARTICIPANT_TIME_HPP
