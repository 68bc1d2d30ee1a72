#include "unit/comm/machine.hpp"
#include "unit/comm/mesh_simulator.hpp"
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <string>

using namespace machine;

namespace {

struct totals {
    std::size_t broken = 0, rounds = 0, returned = 0, replaced = 0, terms = 0, states = 0;
    std::array<std::size_t, mesh::fault_kinds> faults{};
    std::string first;
};

totals run_seeds(std::uint64_t from, std::uint64_t to, mesh::world::options options = {}) {
    totals t;
    for (std::uint64_t seed = from; seed <= to; ++seed) {
        options.peers = 2 + static_cast<int>(seed % 5);
        options.waits_for_slow = seed % 4 != 0;
        mesh::world world(seed, options);
        try {
            world.run();
        } catch (const mesh::violation& broken) {
            if (t.broken++ == 0) t.first = "seed " + std::to_string(seed) + ": " + broken.what();
        }
        t.rounds += world.rounds();
        t.returned += world.returned();
        t.replaced += world.replaced();
        t.terms += world.leaders();
        t.states += world.views();
        for (std::size_t i = 0; i < t.faults.size(); ++i) t.faults[i] += world.faults(static_cast<mesh::fault>(i));
    }
    return t;
}

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
    const char* text = std::getenv(name);
    return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

}  // namespace

TEST_CASE("mesh: one final record a round, nothing lost or doubled, and the run goes on, whatever breaks") {
    const std::uint64_t one = from_environment("THINWIRE_SIM_SEED", 0);
    const std::uint64_t from = one != 0 ? one : from_environment("THINWIRE_SIM_FROM", 1);
    const std::uint64_t to = one != 0 ? one : from - 1 + from_environment("THINWIRE_SIM_SEEDS", 2000);
    const totals t = run_seeds(from, to);
    CHECK_MESSAGE(t.broken == 0, t.broken << " seeds, the first: " << t.first
                                          << "\n  again: THINWIRE_SIM_SEED=N thinwire_test_comm -tc='mesh: one*'");
    if (one != 0) return;
    const std::uint64_t seeds = to - from + 1;
    MESSAGE(seeds << " seeds: " << t.rounds << " rounds, " << t.terms << " terms, " << t.states << " states, "
                  << t.returned << " payloads returned, " << t.replaced << " logs begun anew");
    CHECK(t.rounds > 50 * seeds);
    CHECK(t.terms > 2 * seeds);
    CHECK(t.states > 2 * seeds);
    CHECK(t.returned > seeds);
    if (seeds < 1000) return;
    CHECK(t.replaced > 0);
    for (std::size_t i = 0; i < t.faults.size(); ++i) CHECK_MESSAGE(t.faults[i] > 100, "fault kind " << i);
}

namespace {

/// Peers of a large view: the sequencer dies, an eighth joins late, the run is split in two.
void check_large(int peers, int contributors, std::size_t neighbours) {
    mesh::world::options o;
    o.peers = peers;
    o.contributors = contributors;
    o.late = peers / 8;
    o.late_at = 5'000'000;
    o.fault_every_ms = 0;
    o.script = {{3'000'000, mesh::fault::kill_leader}, {6'000'000, mesh::fault::split}};
    o.trouble = 8'000'000;
    o.calm = 10'500'000;
    o.progress = 1;
    o.compute = 2'000'000;
    o.keepalive = 500'000;
    o.mesh = neighbours;
    mesh::world world(1, o);
    world.run();
    CHECK(world.faults(mesh::fault::kill_leader) == 1);
    CHECK(world.faults(mesh::fault::split) == 1);
    CHECK(world.leaders() > 1);
    MESSAGE(peers << " peers, " << std::min(peers, contributors) << " compute: " << world.rounds() << " rounds, "
                  << world.calm_round_ms() << " ms and " << world.calm_messages() << " messages a peer for one");
}

}  // namespace

TEST_CASE("mesh: many peers, 1024 in a plain build, lose their sequencer, are split, are joined, and go on") {
    // A minute of one core; with sanitizers five to ten.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(__clang__)
    constexpr std::uint64_t peers = 64;
#else
    constexpr std::uint64_t peers = 1024;
#endif
    check_large(static_cast<int>(from_environment("THINWIRE_SIM_PEERS", peers)),
                static_cast<int>(from_environment("THINWIRE_SIM_CONTRIBUTORS", 8)),
                from_environment("THINWIRE_SIM_MESH", 8));
}

TEST_CASE("mesh: a peer that acknowledges before it has stored is caught") {
    mesh::world::options o;
    o.broken = mesh::bug::acknowledges_before_storing;
    const totals t = run_seeds(1, 30, o);
    CHECK(t.broken > 0);
    MESSAGE(t.broken << " of 30 seeds, " << t.first);
}

TEST_CASE("mesh: a voter that forgets its vote is caught") {
    mesh::world::options o;
    o.broken = mesh::bug::forgets_votes;
    o.fault_every_ms = 100;
    o.weights = {0, 0, 0, 0, 0, 0, 30, 30, 10, 0, 0, 0};
    const totals t = run_seeds(1, 150, o);
    CHECK(t.broken > 0);
    MESSAGE(t.broken << " of 150 seeds, " << t.first);
    o.broken = mesh::bug::none;
    CHECK(run_seeds(1, 20, o).broken == 0);
}

TEST_CASE("mesh: a candidate that claims a log it does not have is caught") {
    mesh::world::options o;
    o.broken = mesh::bug::claims_any_log;
    o.fault_every_ms = 200;
    const totals t = run_seeds(1, 100, o);
    CHECK(t.first.find("two final records") != std::string::npos);
    MESSAGE(t.broken << " of 100 seeds, " << t.first);
}

TEST_CASE("view: weights, the tie-break, and no two disjoint quorums in any view") {
    for (std::size_t n = 1; n <= 9; ++n) {
        thinwire::run_view view;
        for (std::size_t i = 1; i <= n; ++i) view.members.push_back({i, 0, true, true, "", ""});
        if (n > 2) view.members[1].votes = false;
        const auto quorum = [&](unsigned set) {
            return view.quorum([&](const thinwire::view_member& m) { return ((set >> m.peer) & 1U) != 0; });
        };
        const unsigned all = (2U << n) - 2;
        CHECK(quorum(all));
        CHECK_FALSE(quorum(0));
        for (unsigned set = 0; set <= all; set += 2) {
            CHECK_FALSE((quorum(set) && quorum(all & ~set)));
            // Of two halves exactly one decides, so that no view stands still with all of its voters there.
            if (n <= 2) CHECK((quorum(set) || quorum(all & ~set)));
        }
    }
}

TEST_CASE("state: comes back as it was; damage and excess are refused") {
    thinwire::run_state s;
    s.view.members = {{7, 1, true, true, "a:1", "key"}, {9, 2, true, false, "", "other"}};
    s.paused = true;
    s.values = {{"k", "64"}, {"learning-rate", "0.5"}};
    s.banned = {3, 5};
    s.keys = {{"key", true}, {"other", false}};
    const auto bytes = *thinwire::encode_state(s);
    const auto back = thinwire::decode_state(bytes);
    REQUIRE(back);
    CHECK(*back == s);
    for (std::size_t cut = 0; cut < bytes.size(); ++cut)
        CHECK_FALSE(thinwire::decode_state(std::span(bytes).first(cut)));
    thinwire::random_stream random(1);
    for (int i = 0; i < 20'000; ++i) {
        auto noise = bytes;
        noise[random.below(noise.size())] = static_cast<std::byte>(random.bits32() & 0xffU);
        if (const auto other = thinwire::decode_state(noise)) CHECK(*thinwire::encode_state(*other) == noise);
    }
    s.view.members.push_back(s.view.members.front());
    CHECK_FALSE(thinwire::decode_state(*thinwire::encode_state(s)));
}

TEST_CASE("promote: the front of the view changes, for voters only, and the newest word counts") {
    thinwire::run_state s;
    for (const thinwire::peer_id p : std::array<thinwire::peer_id, 3>{1, 2, 3})
        s.view.members.push_back({p, p, p != 3, true, "", ""});
    const auto order = [&] {
        std::string text;
        for (const auto& m : s.view.members) text += std::to_string(m.peer);
        return text;
    };
    using kind = thinwire::control_change::kind;
    s.apply({kind::promote, 2, "", ""});
    CHECK(order() == "213");
    s.apply({kind::promote, 3, "", ""});
    s.apply({kind::promote, 9, "", ""});
    CHECK(order() == "213");
    s.apply({kind::promote, 1, "", ""});
    CHECK(order() == "123");
    s.apply({kind::promote, 1, "", ""});
    CHECK(order() == "123");
}

TEST_CASE("request: what only somebody who is away could decide waits, and nothing waits for it") {
    using kind = thinwire::control_change::kind;
    lone_peer one(2);
    REQUIRE(one.machine.leading());
    one.ask(kind::promote, 2);
    one.ask(kind::remove, 1);
    one.ask(kind::allow, 0, "key");
    for (std::uint64_t round = 1; round < 4; ++round) {
        one.round();
        CHECK(one.machine.round() == round);
        CHECK(one.machine.state().view.members.front().peer == 1);
        CHECK(one.machine.state().view.members.size() == 2);
    }
    CHECK(one.machine.state().keys.contains("key"));
}

TEST_CASE("request: the newest word about an object counts, and is not said again later") {
    using kind = thinwire::control_change::kind;
    lone_peer one;
    REQUIRE(one.machine.leading());
    one.ask(kind::allow, 0, "key");
    one.ask(kind::revoke, 0, "key");
    one.ask(kind::ban, 7);
    one.ask(kind::pardon, 7);
    one.ask(kind::ban, 8);
    one.round();
    CHECK(one.machine.state().revoked("key"));
    CHECK_FALSE(one.machine.state().banned.contains(7));
    CHECK(one.machine.state().banned.contains(8));
    one.ask(kind::pause);
    one.ask(kind::resume);
    one.round();
    CHECK_FALSE(one.machine.state().paused);
    one.ask(kind::pardon, 8);
    one.round();
    one.round();
    CHECK(one.machine.state().revoked("key"));
    CHECK_FALSE(one.machine.state().banned.contains(8));
    CHECK_FALSE(one.machine.state().paused);
}

TEST_CASE("links: to those that are no members are none to a member, which is looked for where they say") {
    returned_peer one(returned_peer::settings(false));
    one.let_in(3, "three");
    one.let_in(4, "four", "two");
    CHECK_FALSE(one.machine.leading());
    const std::vector<std::string> dialled = one.run(500'000);
    CHECK(std::ranges::find(dialled, "two") != dialled.end());
}

TEST_CASE("links: whom a record brings in is dialled while nobody brings it to its end") {
    for (const bool final : {false, true}) {
        thinwire::participant_settings s = returned_peer::settings(false);
        thinwire::commit_record last = *s.last;
        thinwire::run_state next = s.state;
        next.view.members.push_back({9, 9, true, true, "nine", ""});
        last.control = thinwire::encode_state(next);
        if (final) s.state = next;
        s.last = std::make_shared<const thinwire::commit_record>(last);
        s.last_final = final;
        s.local_round = 4;
        returned_peer one(s);
        const std::vector<std::string> dialled = one.run(s.attempt_timeout);
        CHECK(std::ranges::find(dialled, "nine") != dialled.end());
    }
}

TEST_CASE("first round: a sequencer that nobody can dial lets one enter that can, and gives way to it") {
    thinwire::participant_settings s = returned_peer::settings(true);
    s.min_peers = 3;
    returned_peer one(s);
    one.run(0);
    one.machine.payload_ready(5, thinwire::share({std::byte{7}}), ++one.now);
    const thinwire::link_id link = one.let_in(3, "three");
    one.run(1'000);
    one.says(link, 5, one.machine.term());
    one.run(1'000);
    REQUIRE(one.machine.leading());
    one.says(link, 6, 0);
    one.run(1'000);
    CHECK(one.machine.state().view.find(3) != nullptr);
    CHECK(one.machine.round() == 6);
    CHECK_FALSE(one.machine.leading());
}

TEST_CASE("votes: who is not in the view stands in for members that only it reaches, and enters") {
    for (const bool quorum : {false, true}) {
        thinwire::participant_settings s = returned_peer::settings(false);
        s.address = "one";
        s.max_deadline = 2 * s.takeover;  // nobody sends a payload
        s.state.view.members.clear();
        for (const thinwire::peer_id member : std::array<thinwire::peer_id, 3>{2, 3, 4})
            s.state.view.members.push_back({member, member, true, true, "", ""});
        returned_peer one(s);
        std::vector<thinwire::link_id> links = {one.let_in(2, "")};
        if (quorum) links.push_back(one.let_in(3, ""));
        one.run(2 * s.takeover);
        CHECK(one.machine.leading() == quorum);  // its own vote does not count
        for (thinwire::timestamp past = 0; past <= s.max_deadline; past += s.takeover / 2) {
            for (const thinwire::link_id link : links) one.says(link, 5, one.machine.term());
            one.run(s.takeover / 2);
        }
        CHECK(one.machine.entered() == quorum);
        CHECK(one.machine.leading() == quorum);
    }
}

TEST_CASE("votes: a candidate that knows to be final all that the voter holds is not behind") {
    thinwire::participant_settings s = returned_peer::settings(false);
    thinwire::commit_record last = *s.last;
    last.term = 3;  // the candidate accepted the same record in term 2
    s.last = std::make_shared<const thinwire::commit_record>(last);
    for (const bool final : {false, true}) {
        s.last_final = final;
        s.local_round = final ? 5 : 4;
        for (const std::uint64_t known : std::array<std::uint64_t, 2>{4, 5}) {
            returned_peer one(s);
            const thinwire::link_id link = one.let_in(3, "", "", 0, known);
            one.machine.received(link, thinwire::campaign_message{4, 2, 5, true}, one.now += 2 * s.takeover);
            bool granted = false;
            for (const auto& e : one.machine.take_effects())
                if (const auto* sent = std::get_if<thinwire::send_effect>(&e))
                    if (const auto* vote = std::get_if<thinwire::vote_message>(&sent->what)) granted = vote->granted;
            CHECK(granted == (final || known == 5));
        }
    }
}

TEST_CASE("votes: who was banned stands in for nobody") {
    thinwire::participant_settings s = returned_peer::settings(false);
    s.address = "one";
    s.state.view.members = {{2, 2, true, true, "", ""}};
    s.state.banned = {1};
    returned_peer one(s);
    one.let_in(2, "");
    one.run(3 * s.takeover);
    CHECK_FALSE(one.machine.leading());
}

TEST_CASE("catching up: a member that does not come is not waited for longer than one that is away") {
    const thinwire::participant_settings s = returned_peer::settings(false);
    returned_peer one(s);
    const thinwire::link_id link = one.let_in(3, "three", "", 9, 12);
    const auto sought = [&] { return std::ranges::find(one.closed, "a snapshot is sought") != one.closed.end(); };
    for (thinwire::timestamp past = 0; past < s.absence - s.takeover; past += s.takeover) {
        one.machine.heard(link, one.now);
        one.run(s.takeover);
        // Somebody who has it comes, and goes before it has told.
        one.machine.link_closed(one.let_in(4, "four", "", 0, 12), "cut", ++one.now);
    }
    CHECK_FALSE(sought());
    one.machine.heard(link, one.now);
    one.run(2 * s.takeover);
    CHECK(sought());
}

TEST_CASE("votes: a candidate takes over the record for which it is refused, claims it and proposes it") {
    member_of_three one;
    one.status(one.three, 1, 0, 5, 0);
    one.machine.received(one.three, thinwire::campaign_message{2, 1, 5, false}, ++one.now);  // its term is 2 now
    one.status(one.three, 3, 0, 5, 2);  // and it has accepted a record in it
    const thinwire::campaign_message first = one.campaign();
    CHECK(first.last_term == 1);
    CHECK(first.next_round == 5);
    one.machine.received(one.three, thinwire::vote_message{3, false, true}, ++one.now);
    const auto pull = one.sent_to<thinwire::pull_message>(one.three);
    REQUIRE(pull);
    CHECK(pull->round == 5);

    auto record = std::make_shared<thinwire::commit_record>();
    record->term = 2;
    record->round = 5;
    const auto payload = bytes("a payload");
    record->contributions.push_back({3, thinwire::digest_of(*payload), payload, 9});
    one.machine.received(one.three, thinwire::record_message{3, true, record}, ++one.now);
    const thinwire::campaign_message second = one.campaign();
    CHECK(second.last_term == 2);
    CHECK(second.next_round == 6);
    one.machine.received(one.two, thinwire::vote_message{second.term, true, true}, ++one.now);
    const thinwire::campaign_message real = one.campaign();
    CHECK_FALSE(real.trial);
    one.machine.received(one.two, thinwire::vote_message{real.term, true, false}, ++one.now);
    REQUIRE(one.machine.leading());
    bool proposed = false;
    for (const auto& [to, what] : one.sent()) {
        if (const auto* s = std::get_if<thinwire::status_message>(&what)) CHECK(s->accepted != 2);  // it has not
        const auto* p = std::get_if<thinwire::record_message>(&what);
        if (p == nullptr || to != one.two) continue;
        proposed = true;
        CHECK(p->record->term == real.term);
        REQUIRE(p->record->contributions.size() == 1);
        CHECK(p->record->contributions[0].payload_digest == thinwire::digest_of(*payload));
    }
    CHECK(proposed);
    one.status(one.two, real.term, 1, 5, real.term);
    CHECK(one.machine.round() == 6);
}

TEST_CASE("votes: whom a peer voted for gets the time to lead before it campaigns itself") {
    member_of_three one;
    one.status(one.two, 2, 0, 5, 0);
    one.status(one.three, 2, 0, 5, 0);
    const thinwire::timestamp takeover = member_of_three::settings().takeover;
    one.machine.received(one.three, thinwire::campaign_message{3, 1, 5, false}, one.now += 10 * takeover);
    one.status(one.two, 3, 0, 5, 0);
    one.status(one.three, 3, 0, 5, 0);
    bool voted = false;
    for (const auto& [to, what] : one.sent()) {
        if (const auto* vote = std::get_if<thinwire::vote_message>(&what)) voted = vote->granted && !vote->trial;
        if (voted) CHECK_FALSE(std::holds_alternative<thinwire::campaign_message>(what));
    }
    CHECK(voted);
    const thinwire::timestamp then = one.now;
    one.campaign();
    CHECK(one.now >= then + takeover / 2);
}

TEST_CASE("votes: a term that others begin gets the time for its sequencer, whose campaign comes later") {
    member_of_three one;
    one.status(one.two, 2, 0, 5, 0);
    one.status(one.three, 2, 0, 5, 0);
    const thinwire::timestamp takeover = member_of_three::settings().takeover;
    one.now += 10 * takeover;
    const thinwire::timestamp then = one.now;
    one.status(one.two, 3, 0, 5, 0);  // it voted for three, over whose link nothing came yet
    one.status(one.three, 3, 0, 5, 0);
    CHECK_FALSE(one.sent_to<thinwire::campaign_message>(one.two));
    one.campaign();
    CHECK(one.now >= then + takeover / 2);
}

TEST_CASE("views: none is made that needs a member which was not heard lately, though it is linked") {
    thinwire::participant_settings s = member_of_three::settings();
    std::ranges::reverse(s.state.view.members);  // of two the first decides
    const thinwire::timestamp takeover = s.takeover;
    for (const bool heard : {false, true}) {
        member_of_three one(s);
        one.campaign();
        one.machine.received(one.two, thinwire::vote_message{one.machine.term() + 1, true, true}, ++one.now);
        one.campaign();
        one.machine.received(one.two, thinwire::vote_message{one.machine.term(), true, false}, ++one.now);
        REQUIRE(one.machine.leading());
        one.now += takeover + 1;  // it stood still
        if (heard) one.machine.heard(one.two, one.now);
        one.machine.request({thinwire::control_change::kind::remove, 3, "", ""}, one.now);
        const auto proposed = one.sent_to<thinwire::record_message>(one.two);
        CHECK(proposed.has_value() == heard);
    }
}

TEST_CASE("offers: what this peer sent before it was killed is its own again, whatever names it meanwhile") {
    member_of_three one;
    const auto payload = bytes("a payload");
    thinwire::record_message proposal;
    auto record = std::make_shared<thinwire::commit_record>();
    record->term = proposal.term = 2;
    record->round = 5;
    record->contributions.push_back({1, thinwire::digest_of(*payload), nullptr, 9});
    proposal.record = record;
    one.machine.received(one.three, proposal, ++one.now);
    one.sent();
    one.machine.payload_ready(5, payload, ++one.now);
    const auto offer = one.sent_to<thinwire::offer_message>(one.two);
    REQUIRE(offer);
    CHECK(offer->session == member_of_three::settings().session);
}

TEST_CASE("offers: what is passed on carries the signature that was checked") {
    const thinwire::participant_settings s = member_of_three::with_keys();
    member_of_three one(s);
    one.status(one.three, 2, 3, 5, 0);  // it sequences
    const auto payload = bytes("a payload");
    thinwire::offer_message offer = offer_of_two(payload);
    offer.relay = true;
    offer.signature = mesh::sign("", thinwire::statement(s.run, offer));  // its hello states no key
    offer.bytes = thinwire::share({});
    one.machine.received(one.two, offer, ++one.now);
    const thinwire::signature_bytes made = std::exchange(offer.signature, {});
    offer.relay = false;
    offer.bytes = payload;
    one.machine.received(one.two, offer, ++one.now);
    const auto told = one.sent_to<thinwire::offer_message>(one.three);
    REQUIRE(told);
    CHECK(told->signature == made);
    CHECK(told->author == 2);
}

TEST_CASE("links: a peer that dials itself, by a name that it does not know, goes on") {
    member_of_three one;
    thinwire::hello_message hello;
    hello.run = member_of_three::settings().run;
    hello.peer = hello.incarnation = 1;
    hello.session = member_of_three::settings().session;
    const thinwire::link_id link = one.machine.link_opened(++one.now);
    one.machine.received(link, hello, ++one.now);
    CHECK_FALSE(one.sent_to<thinwire::refuse_message>(link));
    CHECK(one.closed.back() == "dialled itself");
}

TEST_CASE("links: those who are linked and hear nobody order the rounds look where they began") {
    thinwire::participant_settings s = member_of_three::settings();
    s.seeds = {"seed"};
    member_of_three one(s);
    const thinwire::timestamp takeover = s.takeover;
    const auto dials = [&](thinwire::timestamp length) {
        bool seed = false;
        for (const thinwire::timestamp end = one.now + length; one.now < end;) {
            one.machine.heard(one.two, one.now);
            one.machine.heard(one.three, one.now);
            for (auto& e : one.machine.take_effects())
                if (const auto* d = std::get_if<thinwire::dial_effect>(&e)) {
                    seed = seed || d->address == "seed";
                    one.machine.dial_failed(d->link, "nobody is there", ++one.now);
                }
            one.machine.tick(one.now = std::max(one.now + 1, *one.machine.wake_at()));
        }
        return seed;
    };
    CHECK_FALSE(dials(takeover));
    CHECK(dials(3 * takeover));
    // Once it answered, under whatever address, it is not dialled while it is linked.
    for (bool met = false; !met; one.machine.tick(one.now = std::max(one.now + 1, *one.machine.wake_at())))
        for (auto& e : one.machine.take_effects())
            if (const auto* d = std::get_if<thinwire::dial_effect>(&e); d != nullptr && d->address == "seed") {
                thinwire::welcome_message answer;
                answer.run = s.run;
                answer.state = thinwire::encode_state(s.state);
                answer.state_at = thinwire::share({});
                answer.self.run = s.run;
                answer.self.peer = answer.self.session = answer.self.incarnation = 3;
                answer.self.next_round = 5;
                answer.self.address = "three";
                one.machine.dialled(d->link, ++one.now);
                one.machine.received(d->link, answer, ++one.now);
                one.three = d->link;
                met = true;
                break;
            }
    CHECK_FALSE(dials(3 * takeover));
}

TEST_CASE("ban: the owner of a peer that knows of one may let its peer talk to the banned, whatever its log says") {
    thinwire::participant_settings s = member_of_three::settings();
    s.state.apply({thinwire::control_change::kind::ban, 4, "", ""});
    s.state.apply({thinwire::control_change::kind::revoke, 0, "key", ""});
    for (const bool asked : {false, true}) {
        member_of_three one(s);
        if (asked) {
            one.machine.request({thinwire::control_change::kind::pardon, 4, "", ""}, ++one.now);
            one.machine.request({thinwire::control_change::kind::allow, 0, "key", ""}, ++one.now);
        }
        for (const thinwire::peer_id peer : std::array<thinwire::peer_id, 2>{4, 5}) {
            thinwire::hello_message hello;
            hello.run = s.run;
            hello.peer = hello.session = hello.incarnation = peer;
            hello.key = peer == 5 ? "key" : "";
            const thinwire::link_id link = one.machine.link_opened(++one.now);
            one.machine.received(link, hello, ++one.now);
            CHECK(one.sent_to<thinwire::welcome_message>(link).has_value() == asked);
        }
    }
}

TEST_CASE("strikes: three have whoever counts them ask the run for a ban, which alone shows a peer out") {
    member_of_three one;
    one.status(one.three, 2, 3, 5, 0);
    REQUIRE(one.machine.sequencer() == 3);
    for (int strike = 1; strike <= 3; ++strike) {
        one.sent();
        one.machine.broken(one.two, "no message", ++one.now);
        const auto asked = one.sent_to<thinwire::request_message>(one.three);
        CHECK(asked.has_value() == (strike == 3));
        if (asked) {
            CHECK(asked->change.what == thinwire::control_change::kind::ban);
            CHECK(asked->change.peer == 2);
        }
        one.two = one.let_in(2, "two");
        CHECK(one.sent_to<thinwire::welcome_message>(one.two).has_value());
    }
}

TEST_CASE("ban: one that was taken back since does not end a peer that returns, one in force does") {
    for (const bool taken_back : {true, false}) {
        member_of_three one;
        one.status(one.three, 2, 3, 7, 0);
        REQUIRE(one.machine.round() == 5);
        thinwire::run_state banned = member_of_three::settings().state;
        banned.apply({thinwire::control_change::kind::ban, 1, "", ""});
        for (const std::uint64_t round : std::array<std::uint64_t, 2>{5, 6}) {
            auto record = std::make_shared<thinwire::commit_record>();
            record->term = 2;
            record->round = round;
            if (round == 6 && taken_back) banned.apply({thinwire::control_change::kind::pardon, 1, "", ""});
            record->control = thinwire::encode_state(banned);
            CHECK(one.ended.empty());
            one.machine.received(one.three, thinwire::record_message{2, true, record}, ++one.now);
            one.sent();
        }
        CHECK(one.machine.round() == 7);
        CHECK(one.ended.empty() == taken_back);
    }
}

TEST_CASE("offers: what another passes on counts when its author signed it, and is no strike at the author") {
    const thinwire::participant_settings s = member_of_three::with_keys();
    const auto payload = bytes("a payload");
    thinwire::offer_message offer = offer_of_two(payload);
    const auto strikes = [](const member_of_three& one, thinwire::peer_id peer) {
        for (const thinwire::member_status& m : one.machine.members())
            if (m.peer == peer) return m.strikes;
        return -1;
    };
    const auto leads = [](member_of_three& one) {
        one.campaign();
        one.machine.received(one.two, thinwire::vote_message{one.machine.term() + 1, true, true}, ++one.now);
        one.campaign();
        one.machine.received(one.two, thinwire::vote_message{one.machine.term(), true, false}, ++one.now);
        REQUIRE(one.machine.leading());
    };
    SUBCASE("unsigned") {
        member_of_three one(s);
        leads(one);
        one.machine.received(one.three, offer, ++one.now);
        CHECK(strikes(one, 3) == 1);
        CHECK(strikes(one, 2) == 0);
        one.machine.received(one.two, offer, ++one.now);  // over its own link
        CHECK(strikes(one, 2) == 0);
    }
    SUBCASE("signed for another round") {
        member_of_three one(s);
        leads(one);
        offer.round = 4;
        offer.signature = mesh::sign("key 2", thinwire::statement(s.run, offer));
        offer.round = 5;
        one.machine.received(one.three, offer, ++one.now);
        CHECK(strikes(one, 3) == 1);
    }
    SUBCASE("signed") {
        member_of_three one(s);
        leads(one);
        offer.signature = mesh::sign("key 2", thinwire::statement(s.run, offer));
        one.machine.received(one.three, offer, ++one.now);
        CHECK(strikes(one, 3) == 0);
        offer.content = thinwire::digest_of(*bytes("b payload"));
        offer.bytes = bytes("b payload");
        offer.signature = mesh::sign("key 2", thinwire::statement(s.run, offer));
        one.machine.received(one.two, offer, ++one.now);  // two for one round, both its own
        CHECK(strikes(one, 2) == 1);
        CHECK_FALSE(one.sent_to<thinwire::fetch_message>(one.two));  // the first is kept, and so is the link
        CHECK(one.closed.empty());
    }
}
