#include <thinwire/comm/loopback.hpp>
#include <thinwire/core/random.hpp>
#include <thinwire/optim/adamw.hpp>
#include <thinwire/optim/demo.hpp>
#include <thinwire/optim/schedule.hpp>

#include <doctest/doctest.h>
#include <support/optim_peer.hpp>

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

using namespace thinwire;

namespace {

using demo_peer = test::peer<demo, demo_options>;
using adamw_peer = test::peer<adamw, adamw_options>;

using test::finish;

}  // namespace

TEST_CASE("demo: options out of range name the option") {
    const auto refused = [](const demo_options& o, const std::string& word) {
        try {
            const demo_peer p(0, o);
            FAIL("accepted");
        } catch (const value_error& e) {
            CHECK(std::string(e.what()).find(word) != std::string::npos);
        }
    };
    refused({.k = 0}, "k 0");
    refused({.k = 4097}, "k 4097");
    refused({.k = 1, .chunk = 0}, "chunk 0");
    refused({.chunk = 257}, "chunk 257");
    refused({.learning_rate = std::numeric_limits<float>::quiet_NaN()}, "learning_rate");
    refused({.learning_rate = -1.0F}, "learning_rate");
    refused({.momentum_decay = 1.0F}, "momentum_decay");
    refused({.weight_decay = -0.1F}, "weight_decay");
    refused({.clip_norm = -1.0F}, "clip_norm");
    refused({.level = static_cast<isa>(static_cast<int>(isa::avx512) + 1)}, "level");
}

TEST_CASE("a gradient that is not finite is refused by name and index, and nothing changes") {
    demo_peer p(0, {});
    p.begin(0);
    p.optimizer->abandon();
    const auto before = p.optimizer->save_private();
    const digest replica = p.optimizer->replica_digest();
    p.new_gradients();
    p.gradients[1][17] = std::numeric_limits<float>::quiet_NaN();
    CHECK_THROWS_WITH_AS(static_cast<void>(p.optimizer->begin_step(0)), doctest::Contains("'tensor1': element 17"),
                         value_error);
    p.gradients[1][17] = 1e30F;
    CHECK_THROWS_AS(static_cast<void>(p.optimizer->begin_step(0)), value_error);
    CHECK(p.optimizer->save_private() == before);
    CHECK(p.optimizer->replica_digest() == replica);
    CHECK(p.optimizer->in_flight().empty());
}

TEST_CASE("demo: a contribution that does not belong is skipped alike by all") {
    demo_peer a(0, {}), b(1, {}), watcher(9, {});
    const auto from_a = a.begin(0);
    const auto from_b = b.begin(1);
    auto damaged = from_b;
    damaged[200] ^= std::byte{1};
    const std::vector<contribution> list = {{.peer = 0, .payload = from_a},
                                            {.peer = 0, .payload = from_a},
                                            {.peer = 1, .payload = damaged},
                                            {.peer = 2, .payload = from_b}};
    const step_report report = finish(*a.optimizer, 0, list);
    CHECK(report.contributors == 1);
    CHECK(report.rejected == 3);
    CHECK(report.rejection == errc::malformed);  // a second one of the same peer
    CHECK(report.own_included);
    CHECK_FALSE(finish(*b.optimizer, 0, list).own_included);
    CHECK(watcher.optimizer->apply({.round = 0, .contributions = list}).contributors == 1);
    CHECK(a.optimizer->replica_digest() == b.optimizer->replica_digest());
    CHECK(a.optimizer->replica_digest() == watcher.optimizer->replica_digest());
    CHECK_THROWS_AS(watcher.optimizer->apply({.round = 0, .contributions = list}), value_error);
}

TEST_CASE("demo: a replica with a flipped bit is reported within 16 rounds") {
    demo_peer a(0, {}), b(1, {});
    a.values[0][4000] += 1.0F;
    int disagreeing = 0;
    for (std::uint64_t round = 0; round < 16; ++round) {
        const auto from_a = a.begin(0), from_b = b.begin(1);
        const std::vector<contribution> list = {{.peer = 0, .payload = from_a}, {.peer = 1, .payload = from_b}};
        disagreeing += finish(*a.optimizer, round, list).disagreeing;
        finish(*b.optimizer, round, list);
    }
    CHECK(disagreeing > 0);
}

TEST_CASE("demo: saved with a payload in flight and restored, it goes on bit for bit") {
    for (const value_code values : {value_code::f32, value_code::sign}) {
        demo_peer a(0, {.values = values}), b(0, {.values = values});
        const auto first = a.begin(0);
        finish(*a.optimizer, 0, {{.peer = 0, .payload = first}});
        const auto second = a.begin(0);
        const auto saved = a.optimizer->save_private();
        for (std::size_t i = 0; i < a.values.size(); ++i)
            std::copy(a.values[i].begin(), a.values[i].end(), b.values[i].begin());
        b.optimizer->set_round(1);
        REQUIRE(b.optimizer->restore_private(saved).has_value());
        CHECK(b.optimizer->save_private() == saved);
        CHECK(std::ranges::equal(b.optimizer->in_flight(), second));
        b.random = a.random;
        for (demo_peer* p : {&a, &b}) CHECK_FALSE(finish(*p->optimizer, 1, {}).own_included);
        CHECK(a.begin(0) == b.begin(0));
        CHECK(a.optimizer->save_private() == b.optimizer->save_private());

        for (std::size_t length = 0; length < saved.size(); length += 97)
            CHECK_FALSE(b.optimizer->restore_private(std::span(saved).first(length)).has_value());
        for (std::size_t at = 0; at < saved.size(); at += 101) {
            auto altered = saved;
            altered[at] ^= std::byte{0x10};
            CHECK_FALSE(b.optimizer->restore_private(altered).has_value());
        }
        CHECK(a.optimizer->save_private() == b.optimizer->save_private());
    }
}

TEST_CASE("demo: weights that are newer than the payload in flight, restored before or after set_round") {
    demo_peer a(0, {.k = 4}), first(0, {.k = 4}), last(0, {.k = 4});
    for (std::uint64_t round = 0; round < 3; ++round) a.step();
    const auto payload = a.begin(0);
    const auto saved = a.optimizer->save_private();
    finish(*a.optimizer, 3, {{.peer = 0, .payload = payload}});
    first.optimizer->set_round(4);
    REQUIRE(first.optimizer->restore_private(saved).has_value());
    REQUIRE(last.optimizer->restore_private(saved).has_value());
    CHECK(std::ranges::equal(last.optimizer->in_flight(), payload));
    last.optimizer->set_round(4);
    for (demo_peer* p : {&first, &last}) {
        for (std::size_t i = 0; i < a.values.size(); ++i) std::ranges::copy(a.values[i], p->values[i].begin());
        p->random = a.random;
        CHECK(p->optimizer->in_flight().empty());
        CHECK(p->optimizer->save_private() == a.optimizer->save_private());
    }
    const auto next = a.begin(0);
    CHECK(first.begin(0) == next);
    CHECK(last.begin(0) == next);

    // An older state and older weights in an optimizer that was ahead.
    REQUIRE(last.optimizer->restore_private(saved).has_value());
    last.optimizer->set_round(3);
    CHECK(std::ranges::equal(last.optimizer->in_flight(), payload));
    CHECK(finish(*last.optimizer, 3, {{.peer = 0, .payload = payload}}).own_included);
}

TEST_CASE("demo: set_k sends what a demo of that k sends, and payloads of any k meet in a commit") {
    for (const value_code values : {value_code::f32, value_code::sign, value_code::q4}) {
        demo_options options = {.k = 64, .chunk = 16, .values = values, .error_feedback = values == value_code::q4};
        options.groups = {{.prefix = "tensor1", .learning_rate = 0.5F, .k = 100}};
        demo_options fewer = options;
        fewer.k = 9;
        fewer.groups[0].k = 9;
        demo_peer capped(0, options), plain(0, fewer);
        capped.optimizer->set_k(9);
        for (std::uint64_t round = 0; round < 4; ++round) {
            const auto a = capped.begin(0), b = plain.begin(0);
            REQUIRE(a.size() == b.size());
            constexpr std::size_t fingerprint = 56, after = 64;  // of the layout, the one thing that differs
            CHECK(std::equal(a.begin(), a.begin() + fingerprint, b.begin()));
            CHECK(std::equal(a.begin() + after, a.end() - 8, b.begin() + after));
            finish(*capped.optimizer, round, {{.peer = 0, .payload = a}});
            finish(*plain.optimizer, round, {{.peer = 0, .payload = b}});
            CHECK(capped.values == plain.values);
        }
    }
    for (const value_code values : {value_code::bf16, value_code::q2}) {
        const demo_options options = {.alpha = 0.5F, .k = 16, .chunk = 16, .values = values};
        demo_peer a(1, options), b(2, options), again(2, options), watcher(3, options);
        constexpr int of_a[] = {16, 1, 16, 7, 16}, of_b[] = {3, 16, 16, 1, 2};
        for (std::uint64_t round = 0; round < 5; ++round) {
            a.optimizer->set_k(of_a[round]);
            b.optimizer->set_k(of_b[round]);
            const auto from_a = a.begin(1), from_b = b.begin(2);
            CHECK(inspect_payload(from_b)->k == static_cast<std::uint32_t>(of_b[round]));
            if (round == 3) {  // its private state holds a payload of another k than that of the options
                for (std::size_t i = 0; i < b.values.size(); ++i)
                    std::ranges::copy(b.values[i], again.values[i].begin());
                again.optimizer->set_round(round);
                REQUIRE(again.optimizer->restore_private(b.optimizer->save_private()).has_value());
                again.random = b.random;
            }
            const std::vector<contribution> list = {{.peer = 1, .payload = from_a}, {.peer = 2, .payload = from_b}};
            for (demo_peer* p : {&a, &b, &watcher}) CHECK(finish(*p->optimizer, round, list).contributors == 2);
            if (round == 3) finish(*again.optimizer, round, list);
            if (round == 4) {
                again.optimizer->set_k(of_b[round]);
                CHECK(again.begin(2) == from_b);
            }
            CHECK(a.values == b.values);
            CHECK(a.values == watcher.values);
        }
    }
    demo_peer p(0, {.k = 16});
    CHECK_THROWS_WITH_AS(p.optimizer->set_k(17), "set_k: 17, expected 1..16 (k of the options)", value_error);
    CHECK_THROWS_WITH_AS(p.optimizer->set_k(0), "set_k: 0, expected 1..16 (k of the options)", value_error);
}

TEST_CASE("demo: threads and instruction sets do not change the replica, threads not even the payload") {
    thread_pool pool(3);
    demo_peer one(0, {.clip_norm = 1.0F}), many(0, {.clip_norm = 1.0F}, &pool),
        plain(0, {.clip_norm = 1.0F, .level = isa::scalar});
    for (std::uint64_t round = 0; round < 3; ++round) {
        const auto payload = one.begin(0);
        CHECK(many.begin(0) == payload);
        plain.begin(0);
        for (demo_peer* p : {&one, &many, &plain}) finish(*p->optimizer, round, {{.peer = 0, .payload = payload}});
        CHECK(one.optimizer->replica_digest() == many.optimizer->replica_digest());
        CHECK(one.optimizer->replica_digest() == plain.optimizer->replica_digest());
    }
}

TEST_CASE("demo: an unused tensor sends no sign values, and its weights stay") {
    demo_peer p(0, {.values = value_code::sign});
    p.new_gradients();
    std::fill(p.gradients[2].begin(), p.gradients[2].end(), 0.0F);
    const std::vector<float> before = p.values[2];
    const auto payload = p.optimizer->begin_step(0);
    finish(*p.optimizer, 0, {{.peer = 0, .payload = {payload}}});
    CHECK(p.values[2] == before);
}

TEST_CASE("adamw: replicas agree, state is saved exactly, foreign bytes are refused") {
    adamw_peer a(0, {.weight_decay = 0.1F}), b(1, {.weight_decay = 0.1F}), c(2, {.weight_decay = 0.1F});
    const auto round = [&](std::uint64_t r) {
        const auto from_a = a.begin(0), from_b = b.begin(1);
        const std::vector<contribution> list = {{.peer = 0, .payload = from_a}, {.peer = 1, .payload = from_b}};
        CHECK(finish(*a.optimizer, r, list).agreeing == 2);
        finish(*b.optimizer, r, list);
        if (c.optimizer->round() == r) c.optimizer->apply({.round = r, .contributions = list});
        CHECK(a.optimizer->replica_digest() == b.optimizer->replica_digest());
    };
    for (std::uint64_t r = 0; r < 3; ++r) round(r);
    CHECK(c.optimizer->replica_digest() == a.optimizer->replica_digest());
    const auto saved = a.optimizer->save_replica();
    adamw_peer d(3, {.weight_decay = 0.1F});
    for (std::size_t length = 0; length < saved.size(); length += 997)
        CHECK_FALSE(d.optimizer->restore_replica(std::span(saved).first(length)).has_value());
    REQUIRE(d.optimizer->restore_replica(saved).has_value());
    for (std::size_t i = 0; i < a.values.size(); ++i)
        std::copy(a.values[i].begin(), a.values[i].end(), d.values[i].begin());
    CHECK(d.optimizer->replica_digest() == a.optimizer->replica_digest());
    CHECK(d.optimizer->save_replica() == saved);
}

TEST_CASE("adamw: a foreign gradient whose square float32 cannot hold is refused, one that it can leaves no infinity") {
    for (const auto& [value, accepted] : {std::pair{0x1p60F, 1}, std::pair{0x1.8p60F, 0}, std::pair{0x1p99F, 0}}) {
        adamw_peer p(0, {.learning_rate = 1e-3F});
        const payload_layout& layout = p.optimizer->layout();
        payload_writer out(
            {.kind = payload_kind::dense, .peer = 9, .fingerprint = layout.fingerprint, .learning_rate = 1e-3F},
            layout.sections.size(), {});
        for (const payload_section& section : layout.sections) {
            byte_writer bytes(std::move(out.begin_section()));
            for (std::uint64_t e = 0; e < section.coefficients(); ++e) bytes.put(value);
            out.end_section(bytes.take());
        }
        out.finish();
        const auto payload = out.take();
        const std::vector<contribution> list = {{.peer = 9, .payload = payload}};
        CHECK(p.optimizer->apply({.round = 0, .contributions = list}).contributors == accepted);
        const auto state = p.optimizer->save_replica();
        CHECK(p.optimizer->restore_replica(state).has_value());  // refuses what is not finite
    }
}

TEST_CASE("adamw: replica state with a negative second moment is refused") {
    adamw_peer p(0, {});
    std::vector<std::byte> state = p.optimizer->save_replica();
    state[state.size() - 9] = std::byte{0x80};  // the sign and exponent of the last one
    state[state.size() - 10] = std::byte{0x80};
    const std::uint64_t sum = checksum64(std::span(state).first(state.size() - 8));
    for (std::size_t i = 0; i < 8; ++i) state[state.size() - 8 + i] = static_cast<std::byte>((sum >> (8 * i)) & 0xffU);
    const auto taken = p.optimizer->restore_replica(state);
    REQUIRE(!taken.has_value());
    CHECK(taken.error().code == errc::out_of_range);
}

TEST_CASE("loopback: a skipped payload, a member that leaves and one that returns; replicas stay equal") {
    loopback_group group(3);
    group.skip(1, 2);
    std::vector<std::unique_ptr<demo_peer>> peers;
    for (peer_id i = 0; i < 3; ++i) peers.push_back(std::make_unique<demo_peer>(i, demo_options{}));
    std::vector<int> missed(3);
    const auto run = [&](std::size_t i, std::uint64_t until) {
        while (peers[i]->optimizer->round() < until) {
            peers[i]->new_gradients();
            missed[i] += peers[i]->optimizer->step(group[i]).own_included ? 0 : 1;
        }
    };
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < 3; ++i) {
        threads.emplace_back([&, i] {
            run(i, i == 2 ? 3 : 6);
            if (i == 2) group.leave(2);
        });
    }
    for (std::thread& t : threads) t.join();
    CHECK(missed[1] == 1);
    peers[2]->new_gradients();
    const step_report caught_up = peers[2]->optimizer->step(group[2]);
    CHECK(caught_up.round == 5);
    CHECK_FALSE(caught_up.own_included);
    CHECK(caught_up.contributors == 6);
    CHECK(peers[2]->optimizer->replica_digest() == peers[0]->optimizer->replica_digest());
    CHECK(peers[1]->optimizer->replica_digest() == peers[0]->optimizer->replica_digest());
    CHECK_THROWS_AS(static_cast<void>(group[0].exchange(9, {})), value_error);
}

TEST_CASE("schedule: warm-up, cosine, and a stable phase with a final decay") {
    const schedule cosine = {
        .kind = schedule_kind::cosine, .peak = 1.0F, .warmup = 10, .total = 110, .floor_fraction = 0.1F};
    CHECK(cosine.at(0) == doctest::Approx(0.1));
    CHECK(cosine.at(9) == doctest::Approx(1.0));
    CHECK(cosine.at(10) == doctest::Approx(1.0));
    CHECK(cosine.at(60) == doctest::Approx(0.55));
    CHECK(cosine.at(110) == doctest::Approx(0.1));
    CHECK(cosine.at(5000) == doctest::Approx(0.1));
    const schedule wsd = {
        .kind = schedule_kind::wsd, .peak = 2.0F, .warmup = 4, .total = 100, .decay = 20, .floor_fraction = 0.0F};
    CHECK(wsd.at(1) == doctest::Approx(1.0));
    CHECK(wsd.at(79) == doctest::Approx(2.0));
    CHECK(wsd.at(90) == doctest::Approx(1.0));
    CHECK(wsd.at(100) == doctest::Approx(0.0));
    CHECK(schedule{.peak = 3.0F}.at(12345) == 3.0F);
}

TEST_CASE("clip: the norm over all tensors, and the factor of torch") {
    std::vector<float> x(3), g = {3.0F, 0.0F, 4.0F};
    const std::vector<parameter> p = {{.name = "p", .shape = {3}, .values = x, .gradient = g}};
    CHECK(gradient_norm(p) == doctest::Approx(5.0));
    CHECK(clip_factor(5.0, 1.0) == doctest::Approx(0.2));
    CHECK(clip_factor(0.5, 1.0) == 1.0);
    CHECK(clip_factor(5.0, 0.0) == 1.0);
}
