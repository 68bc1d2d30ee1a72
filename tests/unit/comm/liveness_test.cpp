#include "unit/comm/machine.hpp"
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

using namespace machine;
using thinwire::timestamp;

namespace {

/// Three machines of one run that reach one another; what they send arrives at once.
struct three_machines {
    using end = std::pair<thinwire::peer_id, thinwire::link_id>;
    std::map<thinwire::peer_id, std::unique_ptr<thinwire::participant>> all;
    std::map<end, end> other;
    timestamp now = 0;

    three_machines() {
        for (const thinwire::peer_id peer : std::array<thinwire::peer_id, 3>{1, 2, 3}) {
            thinwire::participant_settings s = member_of_three::settings();
            s.self = s.session = s.incarnation = peer;
            s.address = std::to_string(peer);
            for (auto& m : s.state.view.members) m.address = std::to_string(m.peer);
            all[peer] = std::make_unique<thinwire::participant>(s, now);
        }
    }
    [[nodiscard]] thinwire::participant& of(thinwire::peer_id peer) { return *all.at(peer); }
    void perform(thinwire::peer_id peer, thinwire::effect& e) {
        thinwire::participant& self = of(peer);
        if (std::holds_alternative<thinwire::store_effect>(e)) self.stored(now);
        if (std::holds_alternative<thinwire::vote_effect>(e)) self.voted(now);
        if (const auto* d = std::get_if<thinwire::deliver_effect>(&e)) self.taken(d->record->round + 1, now);
        if (auto* s = std::get_if<thinwire::send_effect>(&e))
            if (const auto to = other.find({peer, s->link}); to != other.end())
                of(to->second.first).received(to->second.second, std::move(s->what), now);
        if (const auto* c = std::get_if<thinwire::close_effect>(&e))
            if (const auto to = other.find({peer, c->link}); to != other.end())
                of(to->second.first).link_closed(to->second.second, "closed", now);
        if (const auto* d = std::get_if<thinwire::dial_effect>(&e)) {
            const thinwire::peer_id whom = std::stoull(d->address);
            if (of(whom).over()) return self.dial_failed(d->link, "nobody is there", now);
            const end there{whom, of(whom).link_opened(now)};
            other[{peer, d->link}] = there;
            other[there] = {peer, d->link};
            self.dialled(d->link, now);
        }
    }
    void pass(timestamp length) {
        for (const timestamp until = now + length; now < until; now += one_second / 10) {
            for (bool quiet = false; !quiet;) {
                quiet = true;
                for (const auto& [peer, machine] : all)
                    for (auto& e : machine->take_effects()) {
                        quiet = false;
                        perform(peer, e);
                    }
            }
            for (const auto& [peer, machine] : all) machine->tick(now);
        }
    }
};

/// The view of three without this peer.
thinwire::shared_bytes without_one() {
    thinwire::run_state s = member_of_three::settings().state;
    s.apply({thinwire::control_change::kind::remove, 1, "", ""});
    return thinwire::encode_state(s);
}

bool asks_to_go(const sent_messages& all, thinwire::link_id link) {
    return std::ranges::any_of(only<thinwire::request_message>(all, link), [](const auto& m) {
        return m.change.what == thinwire::control_change::kind::remove && m.change.peer == 1;
    });
}

}  // namespace

// -------------------------------------------------------------------------------------------------------- leaving

TEST_CASE("leave: a member stays until the sequencer has taken it out, also where the others decide alone") {
    member_of_three one;
    one.status(one.three, 2, 3, 5, 0);
    one.sent();
    one.machine.leave(++one.now);
    sent_messages told = one.sent();
    CHECK(asks_to_go(told, one.three));
    CHECK(only<thinwire::goodbye_message>(told, one.three).empty());
    CHECK_FALSE(one.machine.over());
    one.machine.received(one.three, proposal(2, {}, without_one()), ++one.now);
    told = one.sent();
    CHECK(only<thinwire::goodbye_message>(told, one.two).empty());
    CHECK_FALSE(one.machine.over());
    one.status(one.three, 2, 3, 6, 0);
    told = one.sent();
    CHECK(only<thinwire::goodbye_message>(told, one.two).size() == 1);
    CHECK(only<thinwire::goodbye_message>(told, one.three).size() == 1);
    CHECK(one.ended == "left the run");
}

TEST_CASE("leave: a member that is not taken out goes when its time is over") {
    const timestamp most = member_of_three::settings().leave_timeout;
    member_of_three one;
    one.status(one.three, 2, 3, 5, 0);
    one.machine.leave(++one.now);
    const auto waits = [&](timestamp until) {
        while (one.now < until && !one.machine.over()) {
            one.status(one.three, 2, 3, 5, 0);
            pass(one, one_second / 2, {one.two, one.three});
        }
    };
    const timestamp began = one.now;
    waits(began + most - one_second);
    CHECK_FALSE(one.machine.over());
    waits(began + most + one_second);
    CHECK(one.ended == "left the run");
}

TEST_CASE("leave: a member that reaches no quorum goes at once") {
    thinwire::participant_settings s = member_of_three::settings();
    for (const thinwire::peer_id away : std::array<thinwire::peer_id, 4>{4, 5, 6, 7})
        s.state.view.members.push_back({away, away, true, true, "", ""});
    member_of_three one(s);
    one.machine.leave(++one.now);
    one.sent();
    CHECK(one.ended == "left the run");
}

TEST_CASE("leave: the request is sent to each sequencer that comes meanwhile") {
    member_of_three one;
    one.machine.leave(++one.now);
    one.sent();
    CHECK_FALSE(one.machine.over());
    one.status(one.three, 2, 3, 5, 0);
    CHECK(asks_to_go(one.sent(), one.three));
    one.status(one.two, 3, 2, 5, 0);
    CHECK(asks_to_go(one.sent(), one.two));
    one.status(one.three, 4, 3, 5, 0);
    CHECK(asks_to_go(one.sent(), one.three));
}

TEST_CASE("leave: all that go at the same time are gone when their time is over") {
    for (const bool led : {true, false}) {
        three_machines run;
        run.pass(led ? 2 * one_second : one_second / 5);
        for (const auto& [peer, machine] : run.all) machine->leave(run.now);
        run.pass(member_of_three::settings().leave_timeout + one_second);
        for (const auto& [peer, machine] : run.all) CHECK(machine->over());
    }
}

TEST_CASE("leave: a sequencer and a member that go at the same time leave a run that goes on") {
    three_machines run;
    run.pass(2 * one_second);
    const thinwire::peer_id first = run.of(1).sequencer();
    REQUIRE(first != 0);
    const thinwire::peer_id last = first == 3 ? 2 : 3;
    for (const auto& [peer, machine] : run.all)
        if (peer != last) machine->leave(run.now);
    run.pass(member_of_three::settings().leave_timeout + 4 * member_of_three::settings().takeover);
    for (const auto& [peer, machine] : run.all) CHECK(machine->over() == (peer != last));
    CHECK(run.of(last).leading());
    run.of(last).request({thinwire::control_change::kind::set, 0, "k", "1"}, run.now);
    run.pass(3 * member_of_three::settings().takeover);
    CHECK(run.of(last).state().values.contains("k"));
}

TEST_CASE("leave: two that go at the same time leave a run that goes on") {
    three_machines run;
    run.pass(2 * one_second);
    const thinwire::peer_id first = run.of(1).sequencer();
    REQUIRE(first != 0);
    for (const auto& [peer, machine] : run.all)
        if (peer != first) machine->leave(run.now);
    run.pass(member_of_three::settings().leave_timeout + 2 * one_second);
    for (const auto& [peer, machine] : run.all) CHECK(machine->over() == (peer != first));
    CHECK(run.of(first).state().view.members.size() == 1);
    run.of(first).request({thinwire::control_change::kind::set, 0, "k", "1"}, run.now);
    run.pass(3 * member_of_three::settings().takeover);
    CHECK(run.of(first).leading());
    CHECK(run.of(first).state().values.contains("k"));
}

TEST_CASE("leave: the request is sent, whatever was asked for in this term before") {
    for (const bool before : {false, true}) {
        CAPTURE(before);
        member_of_three one;
        one.machine.link_closed(one.three, "cut", ++one.now);  // two decides with this peer alone
        one.status(one.two, 2, 2, 5, 0);
        if (before) one.machine.request({thinwire::control_change::kind::ban, 9, "", ""}, ++one.now);
        one.sent();
        one.machine.leave(++one.now);
        CHECK(asks_to_go(one.sent(), one.two));
        CHECK_FALSE(one.machine.over());
    }
}

namespace {

/// A founder, of lone_peer::settings(2), leads, and peer 2 comes: its link.
thinwire::link_id meet_second(returned_peer& one) {
    one.run(one_second);
    const thinwire::link_id link = one.machine.link_opened(++one.now);
    thinwire::hello_message hello;
    hello.run = lone_peer::settings(2).run;
    hello.peer = hello.session = 2;
    hello.incarnation = 5;
    one.machine.received(link, hello, ++one.now);
    one.says(link, 0, 0);
    one.run(1'000);
    return link;
}

}  // namespace

TEST_CASE("leave: a sequencer waits for members that it did not hear lately, until its time is over") {
    for (const bool back : {true, false}) {
        CAPTURE(back);
        thinwire::participant_settings s = lone_peer::settings(2);
        s.address = "one";
        returned_peer one(s);
        const thinwire::link_id link = meet_second(one);
        REQUIRE(one.machine.leading());
        one.machine.leave(one.now += s.takeover + 1);
        const timestamp began = one.now;
        CHECK_FALSE(one.machine.over());
        while (one.now < began + s.leave_timeout - one_second && !one.machine.over()) {
            one.machine.tick(one.now += one_second / 10);
            one.run(0);
            if (back) one.says(link, 0, one.machine.term());
        }
        CHECK(one.machine.over() == back);
        CHECK((one.machine.state().view.find(1) == nullptr) == back);
        one.machine.tick(one.now = began + s.leave_timeout + 1);
        CHECK(one.machine.over());
    }
}

TEST_CASE("stop: a goodbye does not take a replica's last commits from it") {
    thinwire::participant_settings s = member_of_three::settings();
    s.state.stopped = true;
    s.log_begin = s.local_round = 3;
    for (const bool read : {true, false}) {
        CAPTURE(read);
        member_of_three one(s);
        one.machine.received(one.three, thinwire::goodbye_message{true, "the run is stopped"}, ++one.now);
        one.sent();
        const timestamp began = one.now;
        CHECK_FALSE(one.machine.over());
        if (read) {
            auto record = std::make_shared<thinwire::commit_record>();
            record->term = 1;
            record->round = 3;
            one.machine.loaded(record, ++one.now);
            std::vector<std::uint64_t> delivered;
            for (const auto& e : one.machine.take_effects())
                if (const auto* d = std::get_if<thinwire::deliver_effect>(&e)) delivered.push_back(d->record->round);
            CHECK(delivered == std::vector<std::uint64_t>{3, 4});
        } else {
            pass(one, s.leave_timeout - one_second, {one.two});
            CHECK_FALSE(one.machine.over());
            pass(one, 2 * one_second, {one.two});
            CHECK(one.now >= began + s.leave_timeout);
        }
        CHECK(one.machine.over());
    }
}

TEST_CASE("stop: a sequencer that waits for a member which lags never wakes in the past") {
    thinwire::participant_settings s = lone_peer::settings(2);
    s.max_deadline = one_second;
    s.min_deadline = one_second / 10;
    s.address = "one";
    returned_peer one(s);
    const thinwire::link_id link = meet_second(one);
    one.machine.request({thinwire::control_change::kind::stop, 0, "", ""}, ++one.now);
    one.run(1'000);
    REQUIRE(one.machine.state().stopped);
    REQUIRE_FALSE(one.machine.over());
    one.machine.payload_ready(one.machine.round(), bytes("a payload"), ++one.now);
    std::size_t late = 0;
    for (int ticks = 0; ticks < 1000 && one.now < 4 * one_second && !one.machine.over(); ++ticks) {
        for (const auto& e : one.machine.take_effects())
            if (const auto* d = std::get_if<thinwire::deliver_effect>(&e))
                one.machine.taken(d->record->round + 1, one.now);
        one.machine.heard(link, one.now);
        const auto at = one.machine.wake_at();
        REQUIRE(at);
        one.machine.tick(one.now = std::max(one.now + 1, *at));
        if (const auto next = one.machine.wake_at(); next && *next <= one.now) ++late;
    }
    CHECK(late == 0);
}

// ------------------------------------------------------------------------------------------------------ addresses

TEST_CASE("addresses: a sequencer that listens everywhere keeps the one that the view has of it") {
    thinwire::participant_settings s = member_of_three::settings();
    s.address = ":41234";
    s.state.view.members[0].address = "203.0.113.5:41234";
    member_of_three one(s);
    elect(one);
    one.machine.request({thinwire::control_change::kind::set, 0, "k", "1"}, ++one.now);
    const thinwire::commit_ptr record = proposed(one, 2 * s.max_deadline, {one.two, one.three});
    REQUIRE(record);
    REQUIRE(record->control);
    const auto state = thinwire::decode_state(*record->control);
    REQUIRE(state);
    REQUIRE(state->view.find(1) != nullptr);
    CHECK(state->view.find(1)->address == "203.0.113.5:41234");
}

TEST_CASE("addresses: one without a host is not dialled, but where that member said hello from") {
    thinwire::participant_settings s = returned_peer::settings(false);
    s.state.view.members[0].address = ":41234";
    s.state.view.members[0].incarnation = 2;
    returned_peer one(s);
    CHECK(one.run(3 * one_second).empty());
    const thinwire::link_id link = one.let_in(2, "198.51.100.2:41234");
    one.run(0);
    one.machine.link_closed(link, "cut", ++one.now);
    const std::vector<std::string> dialled = one.run(3 * one_second);
    CHECK(std::ranges::find(dialled, ":41234") == dialled.end());
    CHECK(std::ranges::find(dialled, "198.51.100.2:41234") != dialled.end());
}

// --------------------------------------------------------------------------------------------------------- rounds

TEST_CASE("first round: requests are answered while peers are missing, payloads wait") {
    thinwire::participant_settings s = member_of_three::settings();
    s.min_peers = 4;
    const std::array<thinwire::control_change, 3> changes{{{thinwire::control_change::kind::allow, 0, "key", ""},
                                                           {thinwire::control_change::kind::set, 0, "k", "1"},
                                                           {thinwire::control_change::kind::ban, 9, "", ""}}};
    for (const thinwire::control_change& c : changes) {
        CAPTURE(static_cast<int>(c.what));
        member_of_three one(s);
        elect(one);
        one.machine.payload_ready(5, bytes("a payload"), ++one.now);
        one.machine.received(one.two, thinwire::request_message{c}, ++one.now);
        const thinwire::commit_ptr record = proposed(one, 2 * s.max_deadline, {one.two, one.three});
        REQUIRE(record);
        CHECK(record->contributions.empty());
        REQUIRE(record->control);
        const auto state = thinwire::decode_state(*record->control);
        REQUIRE(state);
        CHECK(state->keys.contains("key") == (c.what == thinwire::control_change::kind::allow));
        CHECK(state->values.contains("k") == (c.what == thinwire::control_change::kind::set));
        CHECK(state->banned.contains(9) == (c.what == thinwire::control_change::kind::ban));
    }
}

TEST_CASE("offers: one for a payload that is here from an earlier sequencer's record is counted at once") {
    thinwire::participant_settings s = member_of_three::settings();
    s.contributes = false;
    for (const bool before : {true, false}) {
        CAPTURE(before);
        member_of_three one(s);
        one.status(one.three, 2, 3, 5, 0);
        const auto payload = bytes("a payload");
        const thinwire::offer_message offer = offer_of_two(payload);
        if (before) one.machine.received(one.two, offer, ++one.now);
        // Three's own payload never comes: the record is not stored.
        one.machine.received(one.three,
                             proposal(2, {{2, offer.content, nullptr, offer.size},
                                          {3, thinwire::digest_of(*bytes("another")), nullptr, 7}}),
                             ++one.now);
        for (const auto& f : only<thinwire::fetch_message>(one.sent(), one.three))
            if (f.content == offer.content)
                one.machine.received(one.three, thinwire::piece_message{offer.content, 0, payload}, ++one.now);
        one.machine.link_closed(one.three, "cut", ++one.now);
        elect(one);
        if (!before) {
            one.status(one.two, one.machine.term(), 1, 5, 0);
            one.machine.received(one.two, offer, ++one.now);
        }
        const thinwire::commit_ptr record = proposed(one, 1, {one.two});
        REQUIRE(record);
        REQUIRE(record->contributions.size() == 1);
        CHECK(record->contributions[0].payload_digest == offer.content);
    }
}

TEST_CASE("offers: what another asked to pass on goes to a sequencer that comes later") {
    member_of_three one;
    thinwire::offer_message offer = offer_of_two(bytes("a payload"));
    offer.relay = true;
    one.machine.received(one.two, offer, ++one.now);
    CHECK(only<thinwire::offer_message>(one.sent(), one.three).empty());
    one.status(one.three, 2, 3, 5, 0);
    const auto told = only<thinwire::offer_message>(one.sent(), one.three);
    REQUIRE(told.size() == 1);
    CHECK(told[0].author == 2);
    CHECK(told[0].content == offer.content);
}

TEST_CASE("offers: what another asked to pass on goes to a sequencer that was out of reach, once it is back") {
    member_of_three one;
    one.status(one.three, 2, 3, 5, 0);
    one.machine.link_closed(one.three, "cut", ++one.now);
    thinwire::offer_message offer = offer_of_two(bytes("a payload"));
    offer.relay = true;
    one.machine.received(one.two, offer, ++one.now);
    one.sent();
    one.three = one.machine.link_opened(++one.now);
    thinwire::hello_message hello;
    hello.run = lone_peer::settings(0).run;
    hello.peer = hello.session = hello.incarnation = 3;
    hello.next_round = 5;
    one.machine.received(one.three, hello, ++one.now);
    one.status(one.three, 2, 3, 5, 0);
    const auto told = only<thinwire::offer_message>(one.sent(), one.three);
    REQUIRE(told.size() == 1);
    CHECK(told[0].author == 2);
}

TEST_CASE("offers: the own one is made again, to be passed on, when a new sequencer is out of reach") {
    member_of_three one;
    one.machine.link_closed(one.three, "cut", ++one.now);
    one.status(one.two, 2, 2, 5, 0);
    const auto payload = bytes("a payload");
    one.machine.payload_ready(5, payload, ++one.now);
    auto told = only<thinwire::offer_message>(one.sent(), one.two);
    REQUIRE(told.size() == 1);
    CHECK_FALSE(told[0].relay);
    one.status(one.two, 3, 3, 5, 0);
    told = only<thinwire::offer_message>(one.sent(), one.two);
    REQUIRE(told.size() == 1);
    CHECK(told[0].relay);
    CHECK(told[0].content == thinwire::digest_of(*payload));
    one.status(one.two, 3, 3, 5, 0);
    CHECK(only<thinwire::offer_message>(one.sent(), one.two).empty());
}

// ---------------------------------------------------------------------------------------------------- catching up

TEST_CASE("snapshots: one that was offered to a peer that is behind can be fetched to its end") {
    const auto old = thinwire::share(std::vector<std::byte>(300U << 10U, std::byte{1}));
    member_of_three one;
    one.machine.snapshot_published(4, old, ++one.now);
    const thinwire::link_id link = stranger(one, 9, 2, true);
    one.sent();
    const thinwire::digest content = thinwire::digest_of(*old);
    const auto piece = [&](std::uint64_t offset, std::uint32_t count) {
        one.machine.received(link, thinwire::fetch_message{content, offset, count, 0}, ++one.now);
        const auto answer = one.sent_to<thinwire::piece_message>(link);
        REQUIRE(answer);
        return answer->bytes->size();
    };
    CHECK(piece(0, 256U << 10U) == 256U << 10U);
    one.machine.snapshot_published(5, thinwire::share(std::vector<std::byte>(300U << 10U, std::byte{2})), ++one.now);
    one.status(link, 1, 0, 3, 0);
    CHECK(piece(256U << 10U, 44U << 10U) == 44U << 10U);
}

TEST_CASE("snapshots: a donor that gives nothing of what it offered is left after an absence") {
    thinwire::participant_settings s = lone_peer::settings(0);
    s.fresh = true;
    s.seeds = {"donor"};
    thinwire::welcome_message offer;
    offer.run = s.run;
    offer.self.run = s.run;
    offer.self.peer = offer.self.session = offer.self.incarnation = 2;
    offer.self.next_round = offer.round = 5;
    thinwire::run_state state;
    state.view.members = {{2, 2, true, true, "donor", ""}};
    offer.state = offer.state_at = thinwire::encode_state(state);
    offer.has_snapshot = true;
    offer.snapshot_round = 5;
    offer.snapshot_size = 300U << 10U;
    offer.snapshot_digest = thinwire::digest_of(std::vector<std::byte>(300U << 10U));
    s.state = {};
    thinwire::participant machine(s, 0);
    std::set<thinwire::link_id> open;
    int dials = 0, asked = 0;
    std::optional<thinwire::timestamp> left;
    for (thinwire::timestamp now = 0; now < 3 * s.absence; now = std::max(now + 1, machine.wake_at().value())) {
        for (const thinwire::link_id link : open) machine.heard(link, now);
        machine.tick(now);
        for (auto effects = machine.take_effects(); !effects.empty(); effects = machine.take_effects())
            for (auto& e : effects) {
                if (const auto* d = std::get_if<thinwire::dial_effect>(&e)) {
                    ++dials;
                    open.insert(d->link);
                    machine.dialled(d->link, now);
                    machine.received(d->link, offer, now);
                }
                if (const auto* m = std::get_if<thinwire::send_effect>(&e))
                    asked += std::holds_alternative<thinwire::fetch_message>(m->what) ? 1 : 0;
                if (const auto* c = std::get_if<thinwire::close_effect>(&e)) {
                    open.erase(c->link);
                    if (!left && c->reason == "another snapshot is sought") left = now;
                }
            }
    }
    REQUIRE(left);
    CHECK(*left > s.absence);
    CHECK(*left < s.absence + 3 * s.keepalive_interval);
    CHECK(dials >= 2);
    CHECK(asked >= 4);
}

TEST_CASE("snapshots: of two donors slow ones are waited for, and one that gives nothing is left soon") {
    constexpr std::size_t size = 3U << 20U;
    const thinwire::shared_bytes content = thinwire::share(std::vector<std::byte>(size));
    thinwire::participant_settings s = lone_peer::settings(0);
    s.fresh = true;
    s.seeds = {"a", "b"};
    thinwire::run_state state;
    state.view.members = {{2, 2, true, true, "a", ""}, {3, 3, true, true, "b", ""}};
    s.state = {};
    thinwire::welcome_message offer;
    offer.run = offer.self.run = s.run;
    offer.self.next_round = offer.round = offer.snapshot_round = 5;
    offer.state = offer.state_at = thinwire::encode_state(state);
    offer.has_snapshot = true;
    offer.snapshot_size = size;
    offer.snapshot_digest = thinwire::digest_of(*content);
    // Seconds between two pieces of each; 0: none ever.
    timestamp of_a = 15, of_b = 15, most = 12 * 15 * one_second;
    SUBCASE("both slower than two times takeover") {}
    SUBCASE("one silent") {
        of_a = 0;
        of_b = 1;
        most = 3 * s.takeover + 12 * one_second;
    }
    thinwire::participant machine(s, 0);
    struct donor {
        timestamp every = 0, next = 0;
        std::vector<thinwire::fetch_message> asked;
    };
    std::map<thinwire::link_id, donor> donors;
    std::optional<timestamp> entered;
    timestamp now = 0;
    const auto perform = [&] {
        for (auto effects = machine.take_effects(); !effects.empty(); effects = machine.take_effects())
            for (auto& e : effects) {
                if (const auto* d = std::get_if<thinwire::dial_effect>(&e)) {
                    const bool a = d->address == "a";
                    const timestamp every = (a ? of_a : of_b) * one_second;
                    donors[d->link] = {every, a ? every : every + every / 2, {}};
                    offer.self.peer = offer.self.session = offer.self.incarnation = a ? 2U : 3U;
                    machine.dialled(d->link, now);
                    machine.received(d->link, offer, now);
                }
                if (auto* m = std::get_if<thinwire::send_effect>(&e))
                    if (const auto* f = std::get_if<thinwire::fetch_message>(&m->what))
                        donors[m->link].asked.push_back(*f);
                CHECK_FALSE(std::holds_alternative<thinwire::close_effect>(e));
                if (std::holds_alternative<thinwire::snapshot_effect>(e)) entered = now;
            }
    };
    for (; !entered && now < 2 * most; now += one_second / 2) {
        machine.tick(now);
        perform();
        for (auto& [link, d] : donors) {
            machine.heard(link, now);
            if (d.every == 0 || now < d.next || d.asked.empty()) continue;
            d.next = now + d.every;
            const thinwire::fetch_message f = d.asked.front();
            d.asked.erase(d.asked.begin());
            const auto begin = content->begin() + static_cast<std::ptrdiff_t>(f.offset);
            const thinwire::shared_bytes piece = thinwire::share(std::vector<std::byte>(begin, begin + f.count));
            machine.received(link, thinwire::piece_message{f.content, f.offset, piece}, now);
            perform();
        }
    }
    REQUIRE(entered);
    CHECK(*entered <= most);
}

TEST_CASE("views: who lacks rounds that the log here has no more is not let in yet") {
    const thinwire::participant_settings s = member_of_three::settings();
    REQUIRE(s.log_begin == 4);
    for (const std::uint64_t final : std::array<std::uint64_t, 2>{3, 4}) {
        member_of_three one;
        elect(one);
        const thinwire::link_id link = stranger(one, 9, final);
        one.machine.request({thinwire::control_change::kind::set, 0, "k", "1"}, ++one.now);
        const thinwire::commit_ptr record = proposed(one, 2 * s.max_deadline, {one.two, one.three, link});
        REQUIRE(record);
        REQUIRE(record->control);
        const auto state = thinwire::decode_state(*record->control);
        REQUIRE(state);
        CHECK((state->view.find(9) != nullptr) == (final >= s.log_begin));
    }
}

TEST_CASE("alone: a process that stood still for long looks for the others before it gives up") {
    const thinwire::participant_settings s = member_of_three::settings();
    member_of_three one;
    for (const thinwire::link_id link : {one.two, one.three}) one.machine.link_closed(link, "cut", ++one.now);
    pass(one, one_second, {});
    one.machine.tick(one.now += 3 * s.reconnect_timeout);
    one.sent();
    CHECK_FALSE(one.machine.over());
    pass(one, s.reconnect_timeout - one_second, {});
    CHECK_FALSE(one.machine.over());
    pass(one, 2 * one_second, {});
    CHECK(one.machine.over());
}
