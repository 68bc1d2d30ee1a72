#ifndef THINWIRE_COMM_DETAIL_PARTICIPANT_PAYLOADS_HPP
#define THINWIRE_COMM_DETAIL_PARTICIPANT_PAYLOADS_HPP

#include <thinwire/comm/participant.hpp>

#include <algorithm>

namespace thinwire {

inline void participant::payload_ready(std::uint64_t round, shared_bytes payload, timestamp now) {
    if (over_) return;
    local_active_ = true;
    awake(peers_[settings_.self], now);
    if (round != final_ || !settings_.contributes) return settle(now);
    const pool_key key{digest_of(*payload), settings_.self, round};
    if (own_ && own_->content != key.content) drop(*own_);
    own_ = key;
    held_payload* held = hold(key, settings_.session, payload->size());
    held->bytes = std::move(payload);
    held->session = settings_.session;  // a record may have named it already: sent by this peer before it was killed
    if (settings_.sign) held->signature = settings_.sign(statement(settings_.run, offer_of(key, *held)));
    const bool member = entered();
    const offer_message offer = own_offer();
    for (const auto& [link, l] : links_)
        if (l.at == phase::linked && (member || l.peer == sequencer_)) send(link, offer, now);
    completed(key, now);
    settle(now);
}

/// Of a payload that is here, without its bytes.
inline offer_message participant::offer_of(const pool_key& key, const held_payload& held) {
    offer_message m;
    m.round = key.round;
    m.author = key.author;
    m.session = held.session;
    m.content = key.content;
    m.size = static_cast<std::uint32_t>(held.bytes->size());
    m.signature = held.signature;
    m.bytes = share({});
    return m;
}

/// The local payload with its beginning. Precondition: there is one.
inline offer_message participant::own_offer() const {
    const held_payload& held = pool_.at(*own_);
    offer_message m = offer_of(*own_, held);
    m.relay = sequencer_ != settings_.self && linked(sequencer_) == nullptr;
    const auto begin = held.bytes->begin();
    const std::size_t count = std::min(held.bytes->size(), wire_limits::max_piece);
    m.bytes = count == held.bytes->size() ? held.bytes : share({begin, begin + static_cast<std::ptrdiff_t>(count)});
    return m;
}

/// Tells a peer of the local payload. Before this peer has entered, only the sequencer needs it.
inline void participant::offer_own(link_id link, timestamp now) {
    if (!own_ || !is_linked(link)) return;
    if (entered() || links_.at(link).peer == sequencer_) send(link, own_offer(), now);
}

/// Tells the sequencer of the payloads that their authors asked to pass on.
inline void participant::pass_on(link_id link, timestamp now) {
    const peer_id to = links_.at(link).peer;
    for (const auto& [key, held] : pool_)
        if (held.relay && held.bytes && key.author != settings_.self && key.author != to)
            send(link, offer_of(key, held), now);
}

/// The entry of a payload, made when it is new. Within the bounds of on(offer_message) and of a record.
inline participant::held_payload* participant::hold(const pool_key& key, std::uint64_t session, std::size_t size) {
    const auto [it, fresh] = pool_.try_emplace(
        key, held_payload{session, false, nullptr, {}, detail::comm::transfer(key.content, key.round, size)});
    if (fresh) pool_bytes_ += size;
    return &it->second;
}

/// The same for a record's contribution, whose size is the record's: what its author told this peer may be another one.
inline participant::held_payload* participant::hold_as(const committed_payload& c, std::uint64_t round) {
    const pool_key key{c.payload_digest, c.peer, round};
    held_payload* held = hold(key, 0, c.size);
    if (held->bytes || held->moving.size() == c.size) return held;
    drop(key);
    return hold(key, 0, c.size);
}

inline void participant::drop(const pool_key& key) {
    const auto it = pool_.find(key);
    if (it == pool_.end()) return;
    if (const auto c = collected_.find(key.author); c != collected_.end() && c->second.payload_digest == key.content) {
        collected_.erase(c);
        if (collected_.empty()) first_payload_.reset();
    }
    pool_bytes_ -= it->second.moving.size();
    pool_.erase(it);  // and what `key` may be
    if (assembly_) assembly_->searched = false;
}

template <class Goes>
void participant::drop_if(Goes&& goes) {
    for (auto it = pool_.begin(); it != pool_.end();)
        if (const auto& [key, held] = *it++; goes(key, held)) drop(key);
}

/// Whether it is the author who says so. That of a link is proven, unless others are to be told. Precondition: that or
/// a member.
inline bool participant::proven(const offer_message& m, const link_state& l) const {
    if (!settings_.verify || (m.author == l.peer && !m.relay)) return true;
    const std::string& key = m.author == l.peer ? l.hello.key : state_.view.find(m.author)->key;
    return settings_.verify(key, statement(settings_.run, m), m.signature);
}

inline void participant::on(link_id link, offer_message& m, timestamp now) {
    const link_state& l = links_.at(link);
    if (settings_.fresh || m.round < final_ || m.round > final_ + 1 || m.author == settings_.self) return;
    const bool direct = m.author == l.peer;
    if (!direct && !state_.view.find(m.author)) return;
    if (direct && m.session != l.hello.session) return broken(link, "an offer of another process", now);
    if (!direct && linked(m.author) != nullptr && peers_[m.author].session != m.session) return;
    if (!proven(m, l)) return broken(link, "a payload that its author did not sign", now);
    const pool_key key{m.content, m.author, m.round};
    if (!pool_.contains(key)) {
        std::vector<pool_key> older;
        for (const auto& [other, held] : pool_) {
            if (other.author != m.author || other.round != m.round || held.session == 0) continue;
            if (direct && held.session == m.session)
                return strike(m.author);  // two for one round; its vote still counts
            older.push_back(other);
        }
        if (!older.empty() && (!direct || assembly_ || storing_ || tentative_)) return;
        for (const pool_key& other : older) drop(other);
        if (pool_bytes_ + m.size > 2 * settings_.max_commit || pool_.size() >= 2 * max_relayed) return;
    }
    held_payload* held = hold(key, m.session, m.size);
    if (held->moving.size() != m.size) {
        if (direct) broken(link, "an offer of another size", now);
        return;  // who passes it on may have been told the truth
    }
    if (held->session == 0) held->session = m.session;
    if (m.relay) {  // what is passed on is what was checked
        held->relay = true;
        held->signature = m.signature;
        held->session = m.session;
    }
    if (held->bytes) {
        if (leading()) collect(key, now);
        return;
    }
    add_source(key, link, now);
    const std::size_t first = std::min<std::size_t>(m.size, wire_limits::max_piece);
    if (!m.bytes->empty() && m.bytes->size() != first) return broken(link, "an offer with half a piece", now);
    if (!m.bytes->empty()) held->moving.put(link, 0, *m.bytes, now);
    if (!held->moving.complete()) return;
    const bool single = held->moving.only_from(link);
    held->bytes = held->moving.finish();
    if (!held->bytes) {
        drop(key);
        if (single) broken(link, "a payload that does not match its digest", now);
        return;
    }
    completed(key, now);
}

/// A payload is here in full.
inline void participant::completed(const pool_key& key, timestamp now) {
    const held_payload& held = pool_.at(key);
    if (leading()) {
        collect(key, now);
    } else if (held.relay && key.author != settings_.self && linked(sequencer_) != nullptr) {
        send(peers_[sequencer_].link, offer_of(key, held), now);
    }
    if (assembly_ && assembly_->record.round == key.round && assembly_->lacking.contains(key.author)) {
        auto& all = assembly_->record.contributions;
        const auto c = std::lower_bound(all.begin(), all.end(), key.author,
                                        [](const committed_payload& a, peer_id author) { return a.peer < author; });
        if (c->payload_digest == key.content) {
            c->payload = held.bytes;
            assembly_->lacking.erase(key.author);
        }
    }
    assemble(now);
}

// ------------------------------------------------------------------------------------------------------ pieces

/// A linked peer has a payload. One that said that it does not have it stays out.
inline void participant::add_source(const pool_key& key, link_id link, timestamp now) {
    detail::comm::transfer& t = pool_.at(key).moving;
    t.add_source(link, now);
    if (!t.from(link) || !links_.at(link).open.insert(key).second) return;
    asking_.insert(link);
}

/// Asks the links that have something open and fewer pieces on their way than they may have.
inline void participant::ask_pieces(timestamp now) {
    for (const link_id id : std::exchange(asking_, {})) {
        const auto entry = links_.find(id);
        if (entry == links_.end() || entry->second.at != phase::linked) continue;
        link_state& l = entry->second;
        // True when nothing is left to ask for.
        const auto ask_of = [&](detail::comm::transfer& t) {
            while (l.asked.size() < pieces_ahead) {
                const auto fetch = t.from(id) ? t.ask(id) : std::nullopt;
                if (!fetch) return true;
                l.asked.insert({fetch->content, fetch->offset});
                send(id, *fetch, now);
            }
            return false;
        };
        if (fetch_) ask_of(fetch_->moving);
        while (!l.open.empty() && l.asked.size() < pieces_ahead) {
            const auto held = pool_.find(*l.open.begin());
            if (held == pool_.end() || held->second.bytes || ask_of(held->second.moving)) l.open.erase(l.open.begin());
        }
    }
}

/// Pieces that were asked for are to be asked for again, of whoever has the payload.
inline void participant::reopen(const pool_key& key, const held_payload& held) {
    if (held.bytes) return;
    for (const auto& [link, since] : held.moving.sources()) {
        const auto l = links_.find(link);
        if (l == links_.end()) continue;
        l->second.open.insert(key);
        asking_.insert(link);
    }
}

inline void participant::reopen_snapshot() {
    if (!fetch_) return;
    for (const auto& [link, since] : fetch_->moving.sources()) asking_.insert(link);
}

inline void participant::lose_source(link_id link) {
    if (fetch_ && fetch_->moving.remove_source(link) > 0) reopen_snapshot();
    for (auto& [key, held] : pool_)
        if (held.moving.remove_source(link) > 0) reopen(key, held);
}

inline void participant::on(link_id link, piece_message& m, timestamp now) {
    auto& asked_pieces = links_.at(link).asked;
    const auto expected = asked_pieces.find({m.content, m.offset});
    if (expected == asked_pieces.end()) return broken(link, "a piece that was not asked for", now);
    asked_pieces.erase(expected);
    asking_.insert(link);
    const bool snapshot = fetch_ && fetch_->offer.snapshot_digest == m.content;
    // The payload that lacks it; of several with the same bytes, one that asked this link.
    auto held = pool_.end();
    for (auto it = pool_.lower_bound({m.content, 0, 0}); it != pool_.end() && it->first.content == m.content; ++it)
        if (!it->second.bytes && (held == pool_.end() || it->second.moving.expects(link, m.offset))) held = it;
    if (!snapshot && held == pool_.end()) return;
    detail::comm::transfer& t = snapshot ? fetch_->moving : held->second.moving;
    switch (t.put(link, m.offset, *m.bytes, now)) {
        case detail::comm::transfer::outcome::wrong: return broken(link, "a piece of another length", now);
        case detail::comm::transfer::outcome::missing:
            return snapshot ? reopen_snapshot() : reopen(held->first, held->second);
        case detail::comm::transfer::outcome::taken: break;
    }
    if (!t.complete()) return;
    const bool single = t.only_from(link);
    shared_bytes bytes = t.finish();
    if (!bytes) {
        // Somebody lied; with one source it is known who. Otherwise it is fetched again from one.
        if (single) return broken(link, "content that does not match its digest", now);
        for (const auto& [other, l] : links_)
            if (other != link) t.remove_source(other);
        return snapshot ? reopen_snapshot() : reopen(held->first, held->second);
    }
    if (snapshot) {
        fetch_->moving = detail::comm::transfer(m.content, 0, 0);
        return begin_log(std::move(bytes), now);
    }
    held->second.bytes = std::move(bytes);
    completed(held->first, now);
}

/// The snapshot is here: this peer has a replica, and its log begins with it, whatever log there was.
inline void participant::begin_log(shared_bytes bytes, timestamp now) {
    const fetching f = *std::exchange(fetch_, std::nullopt);
    const bool behind = f.offer.snapshot_round > final_;
    if (!settings_.fresh && (!behind || storing_ || leading())) return;  // not needed any more, or not now
    settings_.fresh = seeking_ = false;
    unserved_.reset();
    ordered_ = now;
    tentative_.reset();
    tentative_state_.reset();
    end_candidacy();
    assembly_.reset();
    pulled_.clear();
    pulls_.clear();
    recent_.clear();
    recent_bytes_ = 0;
    loaded_.clear();
    loading_.reset();
    questions_.clear();
    for (auto& [link, l] : links_) l.waiting = 0;
    drop_if([](const auto&, const auto&) { return true; });
    own_.reset();
    log_begin_ = final_ = f.offer.snapshot_round;
    state_ = decode_state(*f.offer.state_at).value();
    states_ = {{final_, f.offer.state_at}};
    rank_.reset();
    voter_.reset();
    meet_members(now);
    local_next_ = final_;
    untaken_.clear();
    untaken_weight_ = 0;
    effects_.push_back(snapshot_effect{final_, std::move(bytes), f.offer.state_at, last_term_});
    dial_due_ = true;
    for (auto& [link, l] : links_)
        if (l.at == phase::linked) send(link, l.told = status(now), now);
}

inline void participant::begin_fetch(link_id link, const welcome_message& m, timestamp now) {
    if (!fetch_ || (fetch_->offer.snapshot_digest != m.snapshot_digest && !fetch_->moving.has_source()))
        fetch_ = fetching{m, detail::comm::transfer(m.snapshot_digest, 0, m.snapshot_size)};
    if (fetch_->offer.snapshot_digest == m.snapshot_digest && fetch_->offer.snapshot_size == m.snapshot_size)
        fetch_->moving.add_source(link, now);
    reopen_snapshot();
}

/// A request that may need the log: answered at once, or when the record was loaded.
inline void participant::ask(question q, timestamp now) {
    link_state& l = links_.at(q.link);
    if (l.waiting == 0 && try_answer(q, now)) return;
    if (++l.waiting > max_waiting) return broken(q.link, "more requests than may wait", now);
    questions_.push_back(q);
}

inline void participant::answer(timestamp now) {
    for (std::size_t n = questions_.size(); n > 0; --n) {
        const question q = questions_.front();
        questions_.pop_front();
        if (try_answer(q, now))
            --links_.at(q.link).waiting;
        else
            questions_.push_back(q);
    }
}

inline bool participant::try_answer(const question& q, timestamp now) {
    if (q.fetch) {
        bool wait = false;
        const shared_bytes bytes = find_payload(q.link, q.fetch->content, q.round, wait);
        if (wait) return false;
        const fetch_message& m = *q.fetch;
        std::vector<std::byte> part;
        if (bytes && m.offset < bytes->size() && m.count <= bytes->size() - m.offset) {
            const auto begin = bytes->begin() + static_cast<std::ptrdiff_t>(m.offset);
            part.assign(begin, begin + static_cast<std::ptrdiff_t>(m.count));
        }
        send(q.link, piece_message{m.content, m.offset, share(std::move(part))}, now);
        return true;
    }
    const commit_ptr record = q.round == final_ ? tentative_ : find(q.round);
    if (!record) return false;
    auto copy = std::make_shared<commit_record>(*record);
    std::size_t room = wire_limits::max_piece;
    for (committed_payload& c : copy->contributions) {
        c.size = static_cast<std::uint32_t>(c.payload->size());
        if (c.size > room)
            c.payload = nullptr;
        else
            room -= c.size;
    }
    send(q.link, record_message{term_, true, std::move(copy)}, now);
    return true;
}

/// Content by its digest; `wait` is set when the log is asked for it.
inline shared_bytes participant::find_payload(link_id link, const digest& content, std::uint64_t round, bool& wait) {
    const link_state& l = links_.at(link);
    if (l.snapshot && l.snapshot->content == content) return l.snapshot->bytes;
    if (snapshot_ && snapshot_->content == content) return snapshot_->bytes;
    for (auto it = pool_.lower_bound({content, 0, 0}); it != pool_.end() && it->first.content == content; ++it)
        if (it->second.bytes) return it->second.bytes;
    const auto in_record = [&](const commit_record& r) -> shared_bytes {
        for (const committed_payload& c : r.contributions)
            if (c.payload_digest == content) return c.payload;
        return nullptr;
    };
    if (round == final_) {
        if (tentative_)
            if (shared_bytes found = in_record(*tentative_)) return found;
        return storing_ ? in_record(storing_->record) : nullptr;
    }
    if (round > final_ || round < log_begin_) return nullptr;
    const commit_ptr record = find(round);
    wait = record == nullptr;
    return record ? in_record(*record) : nullptr;
}

inline void participant::on(link_id link, fetch_message& m, timestamp now) {
    links_.at(link).moved = now;
    ask(question{link, m.round, m}, now);
}

inline void participant::on(link_id link, reject_message& m, timestamp) {
    if (links_.at(link).peer == sequencer_ && own_ && own_->round == m.round)
        effects_.push_back(rejected_effect{m.round, m.text});
}

}  // namespace thinwire

#endif  // THINWIRE_COMM_DETAIL_PARTICIPANT_PAYLOADS_HPP
