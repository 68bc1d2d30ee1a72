#ifndef THINWIRE_TESTS_UNIT_COMM_MACHINE_HPP
#define THINWIRE_TESTS_UNIT_COMM_MACHINE_HPP

#include <thinwire/comm/participant.hpp>

#include "unit/comm/mesh_parts.hpp"
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace machine {

inline constexpr thinwire::timestamp one_second = 1'000'000;

/// A peer alone: the founder of a run, which leads at once.
struct lone_peer {
    thinwire::participant machine;
    thinwire::timestamp now = 0;

    /// `away`: also in the view, behind this one, and not here.
    explicit lone_peer(thinwire::peer_id away = 0) : machine(settings(away), 0) { settle(); }
    static thinwire::participant_settings settings(thinwire::peer_id away) {
        thinwire::participant_settings s;
        s.run = thinwire::digest_of(std::as_bytes(std::span("run", 3)));
        s.self = 1;
        s.session = s.incarnation = 1;
        s.state.view.members = {{1, 1, true, true, "", ""}};
        if (away != 0) s.state.view.members.push_back({away, 5, true, true, "", ""});
        return s;
    }
    /// Does what the machine asks for; the control records that became final.
    void settle() {
        for (auto effects = machine.take_effects(); !effects.empty(); effects = machine.take_effects())
            for (auto& e : effects) {
                if (std::holds_alternative<thinwire::store_effect>(e)) machine.stored(++now);
                if (std::holds_alternative<thinwire::vote_effect>(e)) machine.voted(++now);
                if (const auto* d = std::get_if<thinwire::deliver_effect>(&e))
                    machine.taken(d->record->round + 1, ++now);
            }
    }
    void ask(thinwire::control_change::kind what, thinwire::peer_id peer = 0, const std::string& key = "") {
        machine.request({what, peer, key, ""}, ++now);
    }
    /// Closes a round with a payload.
    void round() {
        const std::byte payload{7};
        machine.payload_ready(machine.round(), thinwire::share({payload}), ++now);
        settle();
    }
};

/// A peer that came back to a run whose view holds it and one that is away, and to which peers connect.
struct returned_peer {
    thinwire::participant machine;
    thinwire::timestamp now = 0;
    std::vector<std::string> closed;  ///< why links were

    explicit returned_peer(const thinwire::participant_settings& s) : machine(s, 0) {}
    /// Peer 1 and, before or behind it in the view, peer 2; a log of five rounds.
    static thinwire::participant_settings settings(bool first) {
        thinwire::participant_settings s = lone_peer::settings(0);
        s.state.view.members.insert(s.state.view.members.begin() + (first ? 1 : 0), {2, 5, true, true, "stale", ""});
        auto last = std::make_shared<thinwire::commit_record>();
        last->term = 1;
        last->round = 4;
        last->control = thinwire::encode_state(s.state);
        s.log_begin = 4;
        s.last = std::move(last);
        s.last_final = true;
        s.local_round = 5;
        return s;
    }
    /// Lets a peer in that has the records from `log_begin` to `final`, or to where this one is, and hears nobody order
    /// the rounds; `names`: where another is dialled.
    thinwire::link_id let_in(thinwire::peer_id peer, const std::string& address, const std::string& names = "",
                             std::uint64_t log_begin = 0, std::uint64_t final = 0) {
        const thinwire::link_id link = machine.link_opened(++now);
        thinwire::hello_message hello;
        hello.run = lone_peer::settings(0).run;
        hello.peer = hello.session = hello.incarnation = peer;
        hello.next_round = std::max(final, machine.round());
        hello.log_begin = log_begin;
        hello.address = address;
        machine.received(link, hello, ++now);
        thinwire::status_message says;
        says.final = hello.next_round;
        says.address = names;
        machine.received(link, says, ++now);
        return link;
    }
    /// Who is linked has rounds below `final`, and has stored the record of the term behind them.
    void says(thinwire::link_id link, std::uint64_t final, std::uint64_t accepted) {
        thinwire::status_message m;
        m.term = machine.term();
        m.sequencer = 1;
        m.final = final;
        m.accepted = accepted;
        machine.received(link, m, ++now);
    }
    /// Does what the machine asks for, for so long, and votes for it; the addresses that it dials, which do not answer.
    std::vector<std::string> run(thinwire::timestamp length) {
        std::vector<std::string> dialled;
        for (const thinwire::timestamp end = now + length;;) {
            for (auto effects = machine.take_effects(); !effects.empty(); effects = machine.take_effects())
                for (auto& e : effects) {
                    if (std::holds_alternative<thinwire::store_effect>(e)) machine.stored(++now);
                    if (std::holds_alternative<thinwire::vote_effect>(e)) machine.voted(++now);
                    if (const auto* c = std::get_if<thinwire::close_effect>(&e)) closed.push_back(c->reason);
                    if (const auto* s = std::get_if<thinwire::send_effect>(&e))
                        if (const auto* c = std::get_if<thinwire::campaign_message>(&s->what))
                            machine.received(s->link, thinwire::vote_message{c->term, true, c->trial}, ++now);
                    if (const auto* d = std::get_if<thinwire::dial_effect>(&e)) {
                        dialled.push_back(d->address);
                        machine.dial_failed(d->link, "nobody is there", ++now);
                    }
                }
            const auto at = machine.wake_at();
            if (!at || *at > end) return dialled;
            machine.tick(now = std::max(now + 1, *at));
        }
    }
};

/// A member of three with a log of five rounds, linked with both of the others.
struct member_of_three : returned_peer {
    thinwire::link_id two, three;

    explicit member_of_three(thinwire::participant_settings s = settings()) : returned_peer(s) {
        two = let_in(2, "two");
        three = let_in(3, "three");
        sent();
    }
    static thinwire::participant_settings settings() {
        thinwire::participant_settings s = returned_peer::settings(false);
        s.address = "one";
        s.max_deadline = 2 * s.takeover;
        s.state.view.members.clear();
        for (const thinwire::peer_id member : std::array<thinwire::peer_id, 3>{1, 2, 3})
            s.state.view.members.push_back({member, member, true, true, "", "key " + std::to_string(member)});
        return s;
    }
    static thinwire::participant_settings with_keys() {
        thinwire::participant_settings s = settings();
        s.verify = [](std::string_view key, std::span<const std::byte> what, const thinwire::signature_bytes& made) {
            return mesh::sign(key, what) == made;
        };
        return s;
    }
    /// What it sends next, to whom; it stores and votes meanwhile.
    std::vector<std::pair<thinwire::link_id, thinwire::message>> sent() {
        std::vector<std::pair<thinwire::link_id, thinwire::message>> all;
        for (auto effects = machine.take_effects(); !effects.empty(); effects = machine.take_effects())
            for (auto& e : effects) {
                if (std::holds_alternative<thinwire::store_effect>(e)) machine.stored(++now);
                if (std::holds_alternative<thinwire::vote_effect>(e)) machine.voted(++now);
                if (auto* s = std::get_if<thinwire::send_effect>(&e)) all.emplace_back(s->link, std::move(s->what));
                if (const auto* c = std::get_if<thinwire::close_effect>(&e)) closed.push_back(c->reason);
                if (const auto* end = std::get_if<thinwire::end_effect>(&e)) ended = end->text;
            }
        return all;
    }
    template <class M>
    std::optional<M> sent_to(thinwire::link_id link) {
        std::optional<M> last;
        for (auto& [to, what] : sent())
            if (auto* m = std::get_if<M>(&what); m != nullptr && to == link) last = std::move(*m);
        return last;
    }
    /// Time passes until it asks for votes, on trial or not.
    thinwire::campaign_message campaign() {
        for (;;) {
            if (auto c = sent_to<thinwire::campaign_message>(two)) return *c;
            REQUIRE(machine.wake_at());
            machine.heard(two, now);
            machine.heard(three, now);
            machine.tick(now = std::max(now + 1, *machine.wake_at()));
        }
    }
    void status(thinwire::link_id link, std::uint64_t term, thinwire::peer_id sequencer, std::uint64_t final,
                std::uint64_t accepted) {
        thinwire::status_message m;
        m.term = term;
        m.sequencer = sequencer;
        m.final = final;
        m.accepted = accepted;
        machine.received(link, m, ++now);
    }
    std::string ended;
};

inline thinwire::shared_bytes bytes(std::string_view text) {
    const auto raw = std::as_bytes(std::span(text));
    return thinwire::share({raw.begin(), raw.end()});
}

/// Peer 2 has a payload for the open round; not signed.
inline thinwire::offer_message offer_of_two(const thinwire::shared_bytes& payload) {
    thinwire::offer_message offer;
    offer.round = 5;
    offer.author = offer.session = 2;
    offer.content = thinwire::digest_of(*payload);
    offer.size = static_cast<std::uint32_t>(payload->size());
    offer.bytes = payload;
    return offer;
}

/// What was sent, over which link, in its order.
using sent_messages = std::vector<std::pair<thinwire::link_id, thinwire::message>>;

template <class M>
std::vector<M> only(const sent_messages& all, thinwire::link_id link) {
    std::vector<M> found;
    for (const auto& [to, what] : all)
        if (const auto* m = std::get_if<M>(&what); m != nullptr && to == link) found.push_back(*m);
    return found;
}

/// So much time passes, in which those are heard; what it sends meanwhile.
inline sent_messages pass(member_of_three& one, thinwire::timestamp length,
                          const std::vector<thinwire::link_id>& heard) {
    sent_messages all = one.sent();
    for (const thinwire::timestamp end = one.now + length; one.now < end && one.machine.wake_at();) {
        for (const thinwire::link_id link : heard) one.machine.heard(link, one.now);
        one.machine.tick(one.now = std::min(end, std::max(one.now + 1, *one.machine.wake_at())));
        for (auto& m : one.sent()) all.push_back(std::move(m));
    }
    return all;
}

/// Two votes for it.
inline void elect(member_of_three& one) {
    one.campaign();
    one.machine.received(one.two, thinwire::vote_message{one.machine.term() + 1, true, true}, ++one.now);
    one.campaign();
    one.machine.received(one.two, thinwire::vote_message{one.machine.term(), true, false}, ++one.now);
    REQUIRE(one.machine.leading());
}

/// The record that it proposes to two next, or none in `length`.
inline thinwire::commit_ptr proposed(member_of_three& one, thinwire::timestamp length,
                                     const std::vector<thinwire::link_id>& heard) {
    const auto all = only<thinwire::record_message>(pass(one, length, heard), one.two);
    return all.empty() ? nullptr : all.front().record;
}

/// A proposal of the sequencer of a term for round 5.
inline thinwire::record_message proposal(std::uint64_t term, std::vector<thinwire::committed_payload> contributions,
                                         thinwire::shared_bytes control = nullptr) {
    auto record = std::make_shared<thinwire::commit_record>();
    record->term = term;
    record->round = 5;
    record->contributions = std::move(contributions);
    record->control = std::move(control);
    return {term, false, record};
}

inline thinwire::member_status known(const member_of_three& one, thinwire::peer_id peer) {
    for (const thinwire::member_status& m : one.machine.members())
        if (m.peer == peer) return m;
    return {};
}

/// Somebody dials it who has the rounds below `final`, and says so.
inline thinwire::link_id stranger(returned_peer& one, thinwire::peer_id peer, std::uint64_t final,
                                  bool wants_snapshot = false) {
    const thinwire::link_id link = one.machine.link_opened(++one.now);
    thinwire::hello_message hello;
    hello.run = lone_peer::settings(0).run;
    hello.peer = hello.session = hello.incarnation = peer;
    hello.next_round = final;
    hello.wants_snapshot = wants_snapshot;
    one.machine.received(link, hello, ++one.now);
    thinwire::status_message says;
    says.final = final;
    one.machine.received(link, says, ++one.now);
    return link;
}

}  // namespace machine

#endif  // THINWIRE_TESTS_UNIT_COMM_MACHINE_HPP
