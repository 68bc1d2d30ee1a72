#ifndef THINWIRE_COMM_DETAIL_SEQUENCER_IMPL_HPP
#define THINWIRE_COMM_DETAIL_SEQUENCER_IMPL_HPP

#include <thinwire/comm/sequencer.hpp>

namespace thinwire {

inline sequencer::sequencer(sequencer_settings settings, timestamp)
    : settings_(std::move(settings)),
      round_(settings_.next_round),
      patience_(settings_.min_deadline, settings_.max_deadline),
      local_(settings_.local_round) {
    member_state& self = members_[settings_.self];
    self.name = settings_.name;
    self.waited = true;
    pump_local();
}

// ---------------------------------------------------------------------------------------------------- links

inline void sequencer::link_opened(link_id link, timestamp now) {
    if (over_) return;
    link_state& state = links_[link];
    state.opened = state.heard = state.sent = now;
    if (links_.size() > settings_.max_links)
        refuse(link, refusal::full,
               "no room for another connection, " + std::to_string(settings_.max_links) + " are open", now);
}

inline void sequencer::link_closed(link_id link, timestamp now) {
    if (over_ || !links_.contains(link)) return;
    forget(link);
    consider(now);
    maybe_leave(now);
}

inline void sequencer::heard(link_id link, timestamp now) {
    if (const auto it = links_.find(link); it != links_.end()) it->second.heard = now;
}

inline void sequencer::broken(link_id link, const std::string& why, timestamp now) {
    const auto it = links_.find(link);
    if (over_ || it == links_.end()) return;
    if (it->second.at == phase::member) strike(it->second.peer);
    close(link, why, true);
    consider(now);
    maybe_leave(now);
}

inline void sequencer::received(link_id link, message m, timestamp now) {
    const auto it = links_.find(link);
    if (over_ || it == links_.end()) return;
    it->second.heard = now;
    const message_type type = type_of(m);
    const bool greeting = it->second.at == phase::greeting;
    if (greeting != (type == message_type::hello) && type != message_type::ping)
        return broken(link, "a " + std::string(to_string(type)) + (greeting ? " before" : " after") + " the hello",
                      now);
    if (it->second.at == phase::parked && type != message_type::ping && type != message_type::goodbye)
        return broken(link, "a " + std::string(to_string(type)) + " before the welcome", now);
    std::visit([&](auto& body) { on(link, body, now); }, m);
}

inline void sequencer::on(link_id link, hello_message& m, timestamp now) {
    link_state& state = links_[link];
    state.hello = std::move(m);
    state.at = phase::parked;
    greet(link, now);
}

/// Why a hello cannot be accepted, whatever happens next.
inline std::optional<refuse_message> sequencer::objection(const hello_message& hello) const {
    const auto no = [](refusal code, std::string text) { return refuse_message{code, std::move(text)}; };
    if (hello.protocol != protocol_version)
        return no(refusal::version_mismatch, "the peer speaks protocol " + std::to_string(hello.protocol) +
                                                 " (thinwire " + hello.library + "), the run protocol " +
                                                 std::to_string(protocol_version) +
                                                 " (thinwire " THINWIRE_VERSION_STRING ")");
    if (hello.run != digest{} && hello.run != settings_.run)
        return no(refusal::run_mismatch,
                  "the peer is of run " + to_string(hello.run, 16) + ", this is run " + to_string(settings_.run, 16));
    if (hello.peer == 0) return no(refusal::malformed, "peer 0, expected an identity that is not 0");
    if (hello.peer == settings_.self)
        return no(refusal::replaced, "peer " + std::to_string(hello.peer) + " is the founder itself");
    const auto member = members_.find(hello.peer);
    if (member != members_.end() && member->second.strikes >= settings_.max_strikes)
        return no(refusal::banned, "peer " + std::to_string(hello.peer) + " is banned after " +
                                       std::to_string(member->second.strikes) + " strikes");
    if (!hello.wants_snapshot && hello.next_round > round_ + (storing_ ? 1 : 0))
        return no(refusal::ahead, "the peer is at round " + std::to_string(hello.next_round) +
                                      ", the run only at round " + std::to_string(round_));
    if (!hello.wants_snapshot && hello.next_round < settings_.log_begin)
        return no(refusal::unavailable, "the log begins at round " + std::to_string(settings_.log_begin) +
                                            ", the peer is at round " + std::to_string(hello.next_round) +
                                            ": join fresh");
    return std::nullopt;
}

/// Answers the hello of a parked link, or leaves it parked: while a commit is being stored, so that a peer is never
/// told of a round that is about to pass; and for as long as there is no snapshot that it wants.
inline void sequencer::greet(link_id link, timestamp now) {
    link_state& state = links_[link];
    const hello_message& hello = state.hello;
    if (auto no = objection(hello)) return refuse(link, no->code, std::move(no->text), now);
    if (storing_ || leaving_ || (hello.wants_snapshot && !snapshot_)) return;
    member_state& member = members_[hello.peer];
    replace(member, hello, now);
    member.name = hello.name;
    member.link = link;
    member.session = hello.session;
    member.waited = first_round_;
    member.missed.reset();
    state.at = phase::member;
    state.peer = hello.peer;
    state.session = hello.session;
    welcome_message welcome;
    welcome.run = settings_.run;
    welcome.term = settings_.term;
    welcome.sequencer = settings_.self;
    welcome.name = settings_.name;
    welcome.manifest = settings_.manifest;
    welcome.round = round_;
    if (hello.wants_snapshot) {
        state.snapshot = snapshot_;
        state.snapshot_digest = snapshot_digest_;
        welcome.has_snapshot = true;
        welcome.snapshot_round = snapshot_round_;
        welcome.snapshot_size = snapshot_->size();
        welcome.snapshot_digest = snapshot_digest_;
    }
    const std::uint64_t from = hello.wants_snapshot ? snapshot_round_ : hello.next_round;
    state.flow = detail::comm::outflow(from);
    state.received = from;
    effects_.push_back(admit_effect{link, state.peer});
    send(link, state, std::move(welcome), now);
    if (first_round_ && first_payload_) first_payload_ = now;
    consider(now);
}

inline void sequencer::greet_parked(timestamp now) {
    std::vector<link_id> parked;
    for (const auto& [link, state] : links_)
        if (state.at == phase::parked) parked.push_back(link);
    for (const link_id link : parked)
        if (links_.contains(link)) greet(link, now);
}

/// A new link of a peer takes the place of its old one. Another session is another process, whose momentum does not
/// hold what the old process sent: that payload is dropped, and the old process is told.
inline void sequencer::replace(member_state& member, const hello_message& hello, timestamp now) {
    const bool same = member.session == hello.session;
    if (!same) {
        if (const auto it = collected_.find(hello.peer); it != collected_.end()) {
            collected_bytes_ -= it->second.payload->size();
            collected_.erase(it);
            if (collected_.empty()) first_payload_.reset();
        }
        member.excluded = false;
    }
    if (member.link == 0) return;
    if (same) return close(member.link, "replaced by a new connection of the same process", false);
    refuse(member.link, refusal::replaced, "another process takes part as peer " + std::to_string(hello.peer), now);
}

inline void sequencer::refuse(link_id link, refusal code, std::string text, timestamp now) {
    send(link, links_[link], refuse_message{code, text}, now);
    close(link, std::move(text), code != refusal::replaced);
}

inline void sequencer::on(link_id link, submit_message& m, timestamp now) {
    link_state& state = links_[link];
    if (m.term != settings_.term || m.round > round_)
        return broken(link,
                      "a payload for term " + std::to_string(m.term) + " round " + std::to_string(m.round) +
                          ", the run is at round " + std::to_string(round_),
                      now);
    member_state& member = members_[state.peer];
    awake(member, now);
    const digest d = digest_of(*m.payload);
    if (const auto seen = collected_.find(state.peer); m.round == round_ && seen != collected_.end()) {
        if (seen->second.payload_digest != d) return broken(link, "two different payloads for one round", now);
        state.own = {m.round, d};
        return;
    }
    if (m.round < round_ || storing_) return consider(now);
    if (member.excluded) return;
    if (settings_.validate) {
        if (const result<ok> verdict = settings_.validate(m.round, state.peer, *m.payload); !verdict) {
            strike(state.peer);
            member.excluded = true;
            const std::string text = verdict.error().message;
            if (member.strikes >= settings_.max_strikes)
                refuse(link, refusal::banned,
                       "banned after " + std::to_string(member.strikes) + " strikes, the last: " + text, now);
            else
                send(link, state, reject_message{m.round, text}, now);
            return consider(now);
        }
    }
    if (collect(state.peer, m.payload, d, now)) state.own = {m.round, d};
    consider(now);
}

inline void sequencer::on(link_id link, progress_message& m, timestamp now) {
    link_state& state = links_[link];
    if (m.term != settings_.term || m.received > state.flow.next())
        return broken(link, "progress that does not fit what was sent", now);
    state.received = std::max(state.received, m.received);
    if (m.taken > state.flow.taken()) state.flow.take(m.taken);
    state.flowing = true;
    state.snapshot.reset();
    if (m.active) awake(members_[state.peer], now);
    pump(now);
    maybe_leave(now);
}

inline void sequencer::on(link_id link, fetch_message& m, timestamp now) {
    link_state& state = links_[link];
    if (!state.snapshot || m.content != state.snapshot_digest || m.offset >= state.snapshot->size() ||
        m.count > state.snapshot->size() - m.offset)
        return broken(link, "a fetch of what was not offered", now);
    const auto begin = state.snapshot->begin() + static_cast<std::ptrdiff_t>(m.offset);
    send(link, state, piece_message{m.content, m.offset, share({begin, begin + static_cast<std::ptrdiff_t>(m.count)})},
         now);
}

inline void sequencer::on(link_id link, goodbye_message&, timestamp now) {
    close(link, "goodbye", false);
    consider(now);
    maybe_leave(now);
}

// --------------------------------------------------------------------------------------------------- rounds

/// The peer shows that it computes: rounds stay open for it again, and how late it was is a measurement.
inline void sequencer::awake(member_state& member, timestamp now) {
    member.waited = true;
    if (member.missed) patience_.add(now - *member.missed);
    member.missed.reset();
}

/// Takes a payload into the open round, unless the round would outgrow its limit: then the peer is left out.
inline bool sequencer::collect(peer_id peer, const shared_bytes& payload, const digest& d, timestamp now) {
    if (collected_bytes_ + payload->size() > settings_.max_commit ||
        collected_.size() == wire_limits::max_contributors) {
        members_[peer].excluded = true;
        return false;
    }
    collected_bytes_ += payload->size();
    collected_[peer] = committed_payload{peer, d, payload};
    if (!first_payload_) first_payload_ = now;
    return true;
}

inline void sequencer::payload_ready(std::uint64_t round, const shared_bytes& payload, timestamp now) {
    if (over_) return;
    member_state& self = members_[settings_.self];
    awake(self, now);
    if (round != round_ || storing_ || leaving_) return consider(now);
    if (settings_.validate) {
        if (const result<ok> verdict = settings_.validate(round, settings_.self, *payload); !verdict) {
            self.excluded = true;
            effects_.push_back(rejected_effect{round, verdict.error().message});
            return consider(now);
        }
    }
    const digest d = digest_of(*payload);
    if (!collect(settings_.self, payload, d, now))
        effects_.push_back(rejected_effect{round, "the round's payloads together exceed the limit"});
    consider(now);
}

/// Enough peers for the first round.
inline bool sequencer::assembled() const {
    if (!first_round_) return true;
    const auto present =
        std::count_if(links_.begin(), links_.end(), [](const auto& l) { return l.second.at == phase::member; });
    return present + 1 >= settings_.min_peers;
}

inline std::optional<timestamp> sequencer::deadline() const {
    if (storing_ || leaving_ || collected_.empty() || !assembled()) return std::nullopt;
    return *first_payload_ + patience_.wait();
}

/// Closes the round when nobody is left to wait for.
inline void sequencer::consider(timestamp now) {
    if (over_ || storing_ || leaving_ || collected_.empty()) return;
    if (!assembled()) {
        first_payload_ = now;
        return;
    }
    bool complete = true;
    for (auto& [peer, member] : members_) {
        const bool present = peer == settings_.self || member.link != 0;
        if (!present || !member.waited || member.excluded || collected_.contains(peer)) continue;
        complete = false;
    }
    if (complete) {
        patience_.add(now - *first_payload_);
        return close_round(now);
    }
    if (now < *first_payload_ + patience_.wait()) return;
    for (auto& [peer, member] : members_) {
        if (!member.waited || collected_.contains(peer)) continue;
        member.waited = false;
        member.missed = *first_payload_;
    }
    close_round(now);
}

inline void sequencer::close_round(timestamp) {
    auto record = std::make_shared<commit_record>();
    record->term = settings_.term;
    record->round = round_;
    for (auto& [peer, c] : collected_) record->contributions.push_back(std::move(c));
    collected_.clear();
    collected_bytes_ = 0;
    first_payload_.reset();
    storing_ = std::move(record);
    effects_.push_back(store_effect{storing_});
}

inline void sequencer::stored(timestamp now) {
    if (over_ || !storing_) return;
    const commit_ptr record = std::exchange(storing_, nullptr);
    ++round_;
    first_round_ = false;
    for (auto& [peer, member] : members_) member.excluded = false;
    for (const committed_payload& c : record->contributions) members_[c.peer].last_round = record->round;
    recent_.push_back(record);
    recent_bytes_ += detail::comm::weight(*record);
    while (recent_.size() > 1 && recent_bytes_ > settings_.recent) {
        recent_bytes_ -= detail::comm::weight(*recent_.front());
        recent_.pop_front();
    }
    pump(now);
    greet_parked(now);
    maybe_leave(now);
}

// -------------------------------------------------------------------------------------------------- commits

/// A commit that is in memory; otherwise asks the log for it and gives null.
inline commit_ptr sequencer::find(std::uint64_t round) {
    if (!recent_.empty() && round >= recent_.front()->round) return recent_[round - recent_.front()->round];
    if (loaded_ && loaded_->round == round) return loaded_;
    if (!loading_) {
        loading_ = round;
        effects_.push_back(load_effect{round});
    }
    return nullptr;
}

inline void sequencer::loaded(commit_ptr record, timestamp now) {
    if (over_ || !loading_ || record->round != *loading_) return;
    loading_.reset();
    loaded_ = std::move(record);
    pump(now);
}

/// Sends to everyone what there is room for.
inline void sequencer::pump(timestamp now) {
    pump_local();
    for (auto& [link, state] : links_) pump(link, state, now);
}

inline void sequencer::pump(link_id link, link_state& state, timestamp now) {
    while (state.at == phase::member && state.flowing && state.flow.next() < round_) {
        if (!state.flow.room(0, settings_.window)) return;
        const commit_ptr record = find(state.flow.next());
        if (!record || !state.flow.room(detail::comm::weight(*record), settings_.window)) return;
        state.flow.sent(detail::comm::weight(*record));
        send(link, state, commit_message{without_own(record, state)}, now);
    }
}

inline void sequencer::pump_local() {
    while (local_.next() < round_ && local_.room(0, settings_.window)) {
        const commit_ptr record = find(local_.next());
        if (!record || !local_.room(detail::comm::weight(*record), settings_.window)) return;
        local_.sent(detail::comm::weight(*record));
        effects_.push_back(deliver_effect{record});
    }
}

inline void sequencer::taken(std::uint64_t round, timestamp now) {
    if (over_) return;
    local_.take(round);
    pump(now);
}

/// The record as it goes to a link: without the payload that this link itself brought.
inline commit_ptr sequencer::without_own(const commit_ptr& record, const link_state& state) {
    if (!state.own || state.own->first != record->round) return record;
    auto copy = std::make_shared<commit_record>(*record);
    for (committed_payload& c : copy->contributions)
        if (c.peer == state.peer && c.payload_digest == state.own->second) c.payload.reset();
    return copy;
}

inline void sequencer::snapshot_published(std::uint64_t round, shared_bytes bytes, timestamp now) {
    if (over_) return;
    snapshot_round_ = round;
    snapshot_digest_ = digest_of(*bytes);
    snapshot_ = std::move(bytes);
    greet_parked(now);
}

inline std::uint64_t sequencer::log_needed_from(std::uint64_t wanted) const noexcept {
    wanted = std::min({wanted, snapshot_round_, local_.next(), loading_.value_or(wanted)});
    for (const auto& [link, state] : links_)
        if (state.at == phase::member) wanted = std::min(wanted, state.flow.next());
    return wanted;
}

// ---------------------------------------------------------------------------------------------- time and end

inline void sequencer::tick(timestamp now) {
    if (over_) return;
    std::vector<std::pair<link_id, std::string>> dead;
    for (auto& [link, state] : links_) {
        if (state.at == phase::greeting) {
            if (now >= state.opened + settings_.handshake_timeout) dead.emplace_back(link, "no hello in time");
        } else if (now >= state.heard + settings_.keepalive_timeout) {
            dead.emplace_back(link, "silent");
        } else if (now >= state.sent + settings_.keepalive_interval) {
            send(link, state, ping_message{}, now);
        }
    }
    for (auto& [link, why] : dead) close(link, std::move(why), true);
    consider(now);
    maybe_leave(now);
}

inline std::optional<timestamp> sequencer::wake_at() const {
    if (over_) return std::nullopt;
    std::optional<timestamp> at = deadline();
    const auto sooner = [&](timestamp t) { at = at ? std::min(*at, t) : t; };
    if (leaving_) sooner(leave_by_);
    for (const auto& [link, state] : links_) {
        if (state.at == phase::greeting) {
            sooner(state.opened + settings_.handshake_timeout);
        } else {
            sooner(std::min(state.heard + settings_.keepalive_timeout, state.sent + settings_.keepalive_interval));
        }
    }
    return at;
}

inline void sequencer::leave(bool stop_run, timestamp now) {
    if (over_ || leaving_) return;
    leaving_ = true;
    stop_run_ = stop_run;
    leave_by_ = now + settings_.leave_timeout;
    maybe_leave(now);
}

inline void sequencer::maybe_leave(timestamp now) {
    if (!leaving_ || over_) return;
    if (now < leave_by_) {
        if (storing_) return;
        for (const auto& [link, state] : links_)
            if (state.at == phase::member && state.flowing && state.received < round_) return;
    }
    say_goodbye(stop_run_, stop_run_ ? "it is complete or was ended" : "the founder leaves for now", now);
    end(run_end::left, "left the run");
}

inline void sequencer::storage_failed(const std::string& why, timestamp now) {
    if (over_) return;
    say_goodbye(true, "the founder's run log failed: " + why, now);
    end(run_end::storage, "the run log failed: " + why);
}

inline void sequencer::say_goodbye(bool stop_run, const std::string& text, timestamp now) {
    while (!links_.empty()) {
        const link_id link = links_.begin()->first;
        link_state& state = links_.begin()->second;
        if (state.at != phase::greeting) send(link, state, goodbye_message{stop_run, text}, now);
        close(link, "the founder leaves", false);
    }
}

inline std::vector<member_status> sequencer::members() const {
    std::vector<member_status> list;
    for (const auto& [peer, m] : members_)
        list.push_back({peer, m.name, peer == settings_.self || m.link != 0, m.strikes, m.last_round});
    return list;
}

inline void sequencer::send(link_id link, link_state& state, message m, timestamp now) {
    state.sent = now;
    effects_.push_back(send_effect{link, std::move(m)});
}

inline void sequencer::close(link_id link, std::string reason, bool fault) {
    effects_.push_back(close_effect{link, std::move(reason), fault});
    forget(link);
}

inline void sequencer::forget(link_id link) {
    const auto it = links_.find(link);
    if (it->second.at == phase::member)
        if (member_state& member = members_[it->second.peer]; member.link == link) member.link = 0;
    links_.erase(it);
}

inline void sequencer::end(run_end code, std::string text) {
    over_ = true;
    effects_.push_back(end_effect{code, std::move(text)});
}

}  // namespace thinwire

#endif  // THINWIRE_COMM_DETAIL_SEQUENCER_IMPL_HPP
