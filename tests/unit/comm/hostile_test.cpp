#include "unit/comm/machine.hpp"
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <variant>
#include <vector>

using namespace machine;
using thinwire::timestamp;

namespace {

constexpr std::uint64_t leap = std::uint64_t{1} << 32U;  ///< by more no term rises at once
constexpr std::uint64_t highest = ~std::uint64_t{0};

bool votes_for_good(member_of_three& one) {
    const auto effects = one.machine.take_effects();
    return std::ranges::any_of(effects, [](const auto& e) { return std::holds_alternative<thinwire::vote_effect>(e); });
}

}  // namespace

// -------------------------------------------------------------------------------------------------------- terms

TEST_CASE("terms: one that nobody can have reached is a breach, and neither followed nor voted in") {
    const std::uint64_t term = 1;  // of its log
    for (const std::uint64_t claimed : std::array<std::uint64_t, 2>{term + leap + 1, highest}) {
        thinwire::status_message status;
        status.term = claimed;
        status.final = 5;
        const std::array<thinwire::message, 4> all{status, thinwire::campaign_message{claimed, claimed, claimed, false},
                                                   thinwire::vote_message{claimed, false, true}, proposal(claimed, {})};
        for (const thinwire::message& m : all) {
            CAPTURE(thinwire::to_string(thinwire::type_of(m)));
            member_of_three one;
            REQUIRE(one.machine.term() == term);
            one.machine.received(one.two, m, one.now += 2 * member_of_three::settings().takeover);
            CHECK_FALSE(votes_for_good(one));
            CHECK(one.machine.term() == term);
            CHECK(one.machine.sequencer() == 0);
            CHECK(known(one, 2).strikes == 1);
            CHECK_FALSE(known(one, 2).present);
            CHECK(known(one, 3).present);
        }
    }
}

TEST_CASE("terms: a far one that can be is followed") {
    member_of_three one;
    one.status(one.two, 1 + leap, 2, 5, 0);
    CHECK(one.machine.term() == 1 + leap);
    CHECK(one.machine.sequencer() == 2);
    CHECK(known(one, 2).strikes == 0);
}

TEST_CASE("terms: a sequencer leads on in its own, whatever a member or a stranger says") {
    member_of_three one;
    elect(one);
    const std::uint64_t term = one.machine.term();
    one.status(one.two, highest, 0, 5, 0);
    CHECK(one.machine.leading());
    const thinwire::link_id link = stranger(one, 9, 5);
    one.status(link, highest, 9, 5, 0);
    CHECK(one.machine.leading());
    CHECK(one.machine.term() == term);
}

// ------------------------------------------------------------------------------------------- rounds that nobody has

TEST_CASE("claims: rounds far ahead that one member claims are not sought, a quorum being no further") {
    const thinwire::participant_settings s = member_of_three::settings();
    for (const bool leads : {true, false}) {
        CAPTURE(leads);
        thinwire::participant_settings quiet = s;
        quiet.max_deadline = 2 * s.absence;  // no record is under way
        member_of_three one(quiet);
        if (leads) elect(one);
        one.two = one.let_in(2, "two", "", 5'000'000, 5'000'010);
        one.sent();
        one.closed.clear();  // of the link that it replaced
        const std::uint64_t term = one.machine.term();
        for (timestamp past = 0; past < s.absence + 2 * s.takeover && one.closed.empty(); past += one_second) {
            if (leads)
                one.status(one.three, term, 1, 5, 0);
            else
                one.status(one.three, 2, 3, 5, 0);
            pass(one, one_second, {one.two, one.three});
        }
        CHECK(one.closed.empty());
        CHECK(known(one, 3).present);
        CHECK(one.machine.leading() == leads);
        CHECK(one.machine.sequencer() == (leads ? 1 : 3));
    }
}

TEST_CASE("claims: rounds far ahead that one member claims keep no record from becoming final") {
    const thinwire::participant_settings s = member_of_three::settings();
    member_of_three one;
    elect(one);
    one.two = one.let_in(2, "two", "", 5'000'000, 5'000'010);
    one.sent();
    one.closed.clear();
    const std::uint64_t term = one.machine.term();
    one.status(one.three, term, 1, 5, 0);
    one.machine.request({thinwire::control_change::kind::set, 0, "k", "1"}, ++one.now);
    for (timestamp past = 0; past < 2 * s.max_deadline && one.machine.round() == 5; past += one_second) {
        const auto all = only<thinwire::record_message>(pass(one, one_second, {one.two, one.three}), one.three);
        if (!all.empty()) one.status(one.three, term, 1, 5, term);
    }
    CHECK(one.closed.empty());
    CHECK(one.machine.leading());
    CHECK(one.machine.round() == 6);
    CHECK(one.machine.state().values.contains("k"));
}

TEST_CASE("claims: the record under way here may be final where the log begins behind it, and is sought there") {
    const thinwire::participant_settings s = member_of_three::settings();
    member_of_three one;
    elect(one);
    const std::uint64_t term = one.machine.term();
    one.machine.request({thinwire::control_change::kind::set, 0, "k", "1"}, ++one.now);
    for (timestamp past = 0; past < 2 * s.max_deadline; past += one_second) {
        one.status(one.two, term, 1, 5, 0);
        pass(one, one_second, {one.two, one.three});
    }
    one.three = one.let_in(3, "three", "", 6, 6);
    one.sent();
    const auto sought = [&] { return std::ranges::find(one.closed, "a snapshot is sought") != one.closed.end(); };
    for (timestamp past = 0; past < s.absence + 2 * s.takeover && !sought(); past += one_second) {
        one.status(one.two, term, 1, 5, 0);
        pass(one, one_second, {one.two, one.three});
    }
    CHECK(sought());
}

TEST_CASE("claims: a stop ends the peer, though one member claims rounds behind it") {
    member_of_three one;
    one.status(one.three, 2, 3, 5, 0);
    one.two = one.let_in(2, "two", "", 5'000'000, 5'000'010);
    one.status(one.three, 2, 3, 5, 0);
    thinwire::run_state next = member_of_three::settings().state;
    next.stopped = true;
    one.machine.received(one.three, proposal(2, {}, thinwire::encode_state(next)), ++one.now);
    pass(one, one_second, {one.two, one.three});
    one.status(one.three, 2, 3, 6, 0);
    one.sent();
    REQUIRE(one.machine.round() == 6);
    one.machine.taken(6, ++one.now);
    pass(one, one_second, {one.two, one.three});
    CHECK(one.ended == "the run was stopped");
}

// ------------------------------------------------------------------------------------------------ sizes, pieces

namespace {

/// Answers what it fetches of three from a payload, for so long; whether it then has stored the record of the term.
bool serves(member_of_three& one, const thinwire::shared_bytes& payload, std::uint64_t term, timestamp length) {
    bool stored = false;
    for (const timestamp end = one.now + length; one.now < end && !stored && known(one, 3).present;) {
        sent_messages all = one.sent();
        if (std::ranges::none_of(
                all, [](const auto& m) { return std::holds_alternative<thinwire::fetch_message>(m.second); })) {
            one.status(one.three, term, 3, 5, term);
            all = pass(one, one_second / 10, {one.two, one.three});
        }
        for (const auto& f : only<thinwire::fetch_message>(all, one.three)) {
            std::vector<std::byte> part;
            if (f.offset + f.count <= payload->size()) {
                const auto from = payload->begin() + static_cast<std::ptrdiff_t>(f.offset);
                part.assign(from, from + static_cast<std::ptrdiff_t>(f.count));
            }
            one.machine.received(
                one.three, thinwire::piece_message{f.content, f.offset, thinwire::share(std::move(part))}, ++one.now);
        }
        for (const auto& s : only<thinwire::status_message>(all, one.three)) stored = stored || s.accepted == term;
    }
    return stored;
}

}  // namespace

TEST_CASE("sizes: a payload whose author named a wrong one is fetched with that of the record") {
    const auto payload = thinwire::share(std::vector<std::byte>(1000, std::byte{7}));
    for (const std::uint32_t said : std::array<std::uint32_t, 3>{10, 999, 60U << 20U}) {
        CAPTURE(said);
        member_of_three one;
        one.status(one.three, 2, 3, 5, 0);
        thinwire::offer_message offer = offer_of_two(payload);
        offer.size = said;
        offer.bytes = thinwire::share({});
        one.machine.received(one.two, offer, ++one.now);
        one.sent();
        one.machine.received(one.three, proposal(2, {{2, offer.content, nullptr, 1000}}), ++one.now);
        CHECK(serves(one, payload, 2, 30 * one_second));
        CHECK(known(one, 3).present);
        CHECK(known(one, 3).strikes == 0);
    }
}

TEST_CASE("pieces: a wrong one of a link that is gone is not laid to who gave the others") {
    const auto payload = thinwire::share(std::vector<std::byte>(300U << 10U, std::byte{7}));
    member_of_three one;
    one.status(one.three, 2, 3, 5, 0);
    thinwire::offer_message offer = offer_of_two(payload);
    offer.bytes = thinwire::share(std::vector<std::byte>(thinwire::wire_limits::max_piece, std::byte{9}));
    one.machine.received(one.two, offer, ++one.now);
    one.sent();
    one.machine.link_closed(one.two, "cut", ++one.now);
    one.machine.received(one.three, proposal(2, {{2, offer.content, nullptr, offer.size}}), ++one.now);
    CHECK(serves(one, payload, 2, 30 * one_second));
    CHECK(known(one, 3).present);
    CHECK(known(one, 3).strikes == 0);
}

TEST_CASE("sizes: who passes a signed offer on does not answer for the size that its author named elsewhere") {
    const thinwire::participant_settings s = member_of_three::with_keys();
    member_of_three one(s);
    const auto payload = bytes("a payload");
    thinwire::offer_message offer = offer_of_two(payload);
    offer.size += 5;
    offer.bytes = thinwire::share({});
    one.machine.received(one.two, offer, ++one.now);
    offer.size -= 5;
    offer.signature = mesh::sign("key 2", thinwire::statement(s.run, offer));
    one.machine.received(one.three, offer, ++one.now);
    CHECK(known(one, 3).present);
    CHECK(known(one, 3).strikes == 0);
}

// ------------------------------------------------------------------------------------------------------ refusals

namespace {

constexpr std::array<thinwire::refusal, 4> for_good{thinwire::refusal::banned, thinwire::refusal::removed,
                                                    thinwire::refusal::replaced, thinwire::refusal::ahead};

void refuse(member_of_three& one, thinwire::link_id link, thinwire::refusal code) {
    one.machine.received(link, thinwire::refuse_message{code, "no"}, ++one.now);
    one.sent();
}

}  // namespace

TEST_CASE("refusals: one of a member alone ends the link with it and nothing else") {
    for (const thinwire::refusal code : for_good)
        for (const bool ordered : {false, true}) {
            CAPTURE(static_cast<int>(code));
            member_of_three one;
            if (ordered) one.status(one.three, 2, 3, 5, 0);
            refuse(one, one.two, code);
            CHECK_FALSE(one.machine.over());
            CHECK_FALSE(known(one, 2).present);
            CHECK(known(one, 3).present);
            CHECK(one.machine.sequencer() == (ordered ? 3 : 0));
            pass(one, one_second, {one.three});
            CHECK_FALSE(one.machine.over());
        }
}

TEST_CASE("refusals: one of the sequencer ends the peer") {
    for (const thinwire::refusal code : for_good) {
        CAPTURE(static_cast<int>(code));
        member_of_three one;
        one.status(one.three, 2, 3, 5, 0);
        refuse(one, one.three, code);
        CHECK(one.machine.over());
    }
}

TEST_CASE("refusals: one of the only peer that is linked ends this one") {
    for (const thinwire::refusal code : for_good) {
        CAPTURE(static_cast<int>(code));
        member_of_three one;
        one.machine.link_closed(one.three, "cut", ++one.now);
        one.sent();
        refuse(one, one.two, code);
        CHECK(one.machine.over());
    }
}

TEST_CASE("refusals: those of a quorum of the view end the peer, whoever else is linked") {
    for (const thinwire::refusal code : for_good) {
        CAPTURE(static_cast<int>(code));
        member_of_three one;
        stranger(one, 9, 5);
        refuse(one, one.two, code);
        CHECK_FALSE(one.machine.over());
        refuse(one, one.three, code);
        CHECK(one.machine.over());
    }
}

TEST_CASE("refusals: a stranger's welcome that bans a peer does not end it when its log does not") {
    thinwire::participant_settings s = member_of_three::settings();
    s.seeds = {"seed"};
    member_of_three one(s);
    for (const thinwire::link_id link : {one.two, one.three}) one.machine.link_closed(link, "cut", ++one.now);
    std::optional<thinwire::link_id> link;
    for (int i = 0; i < 100 && !link; ++i) {
        for (const auto& e : one.machine.take_effects())
            if (const auto* d = std::get_if<thinwire::dial_effect>(&e)) link = d->link;
        if (!link) one.machine.tick(one.now = std::max(one.now + 1, *one.machine.wake_at()));
    }
    REQUIRE(link);
    thinwire::run_state state = s.state;
    state.banned.insert(1);
    thinwire::welcome_message answer;
    answer.run = answer.self.run = s.run;
    answer.state = thinwire::encode_state(state);
    answer.state_at = thinwire::share({});
    answer.round = highest;
    answer.self.peer = answer.self.session = answer.self.incarnation = 7;
    answer.self.next_round = 5;
    answer.self.address = "seven";
    one.machine.dialled(*link, ++one.now);
    one.machine.received(*link, answer, ++one.now);
    one.three = one.let_in(3, "three");
    one.status(one.three, 2, 3, 5, 0);
    one.machine.received(one.three, proposal(2, {}), ++one.now);
    one.sent();
    one.status(one.three, 2, 3, 6, 0);
    one.sent();
    CHECK(one.machine.round() == 6);
    CHECK_FALSE(one.machine.over());
    CHECK(one.ended == "");
}

// ------------------------------------------------------------------------------------- who holds others up

TEST_CASE("votes: a sequencer that one member hears and nobody else delays the election for a while only") {
    const timestamp takeover = member_of_three::settings().takeover;
    member_of_three one;
    one.status(one.three, 2, 3, 5, 0);
    one.machine.link_closed(one.three, "cut", ++one.now);
    one.three = one.let_in(3, "three");
    pass(one, takeover / 2, {one.two, one.three});
    const timestamp first = one.now;
    std::optional<timestamp> campaign;
    while (!campaign && one.now < first + 10 * takeover) {
        one.status(one.two, 2, 9, 5, 0);
        one.status(one.three, 2, 0, 5, 0);
        if (!only<thinwire::campaign_message>(pass(one, one_second, {one.two, one.three}), one.two).empty())
            campaign = one.now;
    }
    REQUIRE(campaign);
    CHECK(*campaign >= first + takeover);
    CHECK(*campaign <= first + 3 * takeover + one_second);
}

TEST_CASE("log: who says for an absence that it has nothing keeps no rounds here, nobody else's are given away") {
    const thinwire::participant_settings s = member_of_three::settings();
    member_of_three one;
    one.machine.snapshot_published(5, bytes("a snapshot"), ++one.now);
    one.status(one.three, 2, 3, 5, 0);
    REQUIRE(one.machine.log_needed_from(5) == 5);
    const thinwire::link_id nothing = stranger(one, 9, 0);
    const auto says = [&](timestamp length) {
        for (const timestamp end = one.now + length; one.now < end;) {
            one.status(one.three, 2, 3, 5, 0);
            one.status(nothing, 1, 0, 0, 0);
            pass(one, one_second, {one.two, one.three, nothing});
        }
    };
    says(s.absence / 2);
    CHECK(one.machine.log_needed_from(5) == 4);
    says(s.absence / 2 + 2 * one_second);
    CHECK(known(one, 9).present);
    CHECK(one.machine.log_needed_from(5) == 5);
    const thinwire::link_id behind = stranger(one, 8, 4);
    CHECK(one.machine.log_needed_from(5) == 4);
    one.machine.link_closed(behind, "cut", ++one.now);
}
