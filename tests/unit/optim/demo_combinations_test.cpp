#include <thinwire/codec/payload_size.hpp>
#include <thinwire/comm/loopback.hpp>
#include <thinwire/optim/demo.hpp>
#include <thinwire/optim/muon.hpp>

#include <doctest/doctest.h>
#include <support/optim_peer.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

using namespace thinwire;
using test::finish;
using demo_peer = test::peer<demo, demo_options>;

TEST_CASE("every rule with every basis and value code: instruction sets and threads do not change the replica") {
    // the last three have strips of 3 rows or 1 column
    const std::vector<shape> shapes = {{24, 40}, {30}, {2, 16, 8}, {67, 65}, {131}, {2, 67, 6}};
    const std::vector<update_rule_ptr> rules = {std::make_shared<const signum>(), std::make_shared<const sgd>(),
                                                std::make_shared<const muon>()};
    const std::vector<basis> bases = {basis::dct(), basis::hadamard(), basis::random_orthogonal(7),
                                      basis::random_orthogonal(7, true), basis::identity()};
    thread_pool pool(3);
    for (const update_rule_ptr& rule : rules) {
        for (const basis& transform : bases) {
            for (const value_code values :
                 {value_code::f32, value_code::sign, value_code::bf16, value_code::q4, value_code::q2}) {
                CAPTURE(rule->name());
                CAPTURE(to_string(transform.kind()));
                CAPTURE(to_string(values));
                demo_options options = {.momentum_decay = 0.9F, .alpha = 0.5F, .k = 6, .values = values};
                options.gradient = gradient_scale::none;
                options.error_feedback = transform.kind() != basis_kind::dct;
                options.basis = transform;
                options.rule = rule;
                options.weight_decay = 0.1F;
                demo_options plain = options;
                plain.level = isa::scalar;
                demo_peer a(0, options, &pool, shapes), b(1, plain, nullptr, shapes), watcher(2, plain, &pool, shapes);
                const digest start = a.optimizer->replica_digest();
                for (std::uint64_t round = 0; round < 2; ++round) {
                    const auto from_a = a.begin(0), from_b = b.begin(1);
                    const std::vector<contribution> list = {{.peer = 0, .payload = from_a},
                                                            {.peer = 1, .payload = from_b}};
                    CHECK(finish(*a.optimizer, round, list).agreeing == 2);
                    CHECK(finish(*b.optimizer, round, list).agreeing == 2);
                    CHECK(watcher.optimizer->apply({.round = round, .contributions = list}).contributors == 2);
                    CHECK(a.optimizer->replica_digest() == b.optimizer->replica_digest());
                    CHECK(a.optimizer->replica_digest() == watcher.optimizer->replica_digest());
                }
                CHECK(a.optimizer->replica_digest() != start);
                const auto saved = a.optimizer->save_private();
                demo_peer again(0, options, nullptr, shapes);
                again.optimizer->set_round(2);
                REQUIRE(again.optimizer->restore_private(saved).has_value());
                CHECK(again.optimizer->save_private() == saved);
            }
        }
    }
}

TEST_CASE("tensors of awkward sides: one payload for 1 to 4 threads, about as large as a neighbour's") {
    struct neighbours {
        shape awkward, even;
        std::vector<int> ks;
        double ratio;  ///< of the payloads: a strip has as many chunks as a row of chunks, or a column
    };
    const std::vector<neighbours> all = {
        {{8191, 768}, {8192, 768}, {8}, 1.02},        {{50257, 96}, {50240, 96}, {8}, 1.02},
        {{509, 1021}, {512, 1024}, {1, 8, 32}, 1.05}, {{514, 1028}, {512, 1024}, {1, 8, 32}, 1.2},
        {{8193}, {8192}, {1, 8, 32}, 1.05},           {{3, 67, 130}, {3, 64, 128}, {1, 8, 32}, 2.0}};
    for (const neighbours& pair : all)
        for (const int k : pair.ks) {
            const shape& awkward = pair.awkward;
            INFO(to_string(awkward), ", k ", k);
            demo_options options = {.k = k, .values = value_code::sign};
            demo_peer one(0, options, nullptr, {awkward});
            const auto payload = one.begin(0);
            const demo_peer neighbour(0, options, nullptr, {pair.even});
            constexpr double more_sections = 3 * 12;  // their lengths, and the ends of their coders
            CHECK(static_cast<double>(payload.size()) <
                  more_sections + pair.ratio * static_cast<double>(estimated_payload_bytes(
                                                   neighbour.optimizer->layout(), static_cast<std::uint32_t>(k))));
            const std::vector<contribution> list = {{.peer = 0, .payload = payload}};
            CHECK(finish(*one.optimizer, 0, list).own_included);
            options.level = isa::scalar;
            demo_peer plain(1, options, nullptr, {awkward});
            CHECK(plain.optimizer->apply({.round = 0, .contributions = list}).agreeing == 1);
            CHECK(plain.values == one.values);
            options.level = best_isa();
            for (int threads = pair.ks.size() == 1 ? 4 : 2; threads <= 4; ++threads) {
                thread_pool pool(threads);
                demo_peer many(0, options, &pool, {awkward});
                CHECK(many.begin(0) == payload);
                CHECK(finish(*many.optimizer, 0, list).own_included);
                CHECK(many.values == one.values);
                CHECK(many.optimizer->save_private() == one.optimizer->save_private());
            }
        }
}

TEST_CASE("a round travels while the gradient of the next is computed; the replicas end as without overlap") {
    const auto run = [](bool overlapped) {
        loopback_group group(2);
        std::array<digest, 2> ends;
        const auto train = [&](std::size_t self) {
            demo_peer p(self, {.k = 8});
            p.new_gradients();
            for (int round = 0; round < 5; ++round) {
                const auto payload = p.optimizer->begin_step(self);
                std::span<const commit> commits;
                const auto exchange = [&] { commits = group[self].exchange(p.optimizer->round(), payload); };
                if (overlapped) {
                    std::thread carrier(exchange);
                    p.new_gradients();  // on weights that lack the commit under way
                    carrier.join();
                } else {
                    exchange();
                    p.new_gradients();
                }
                p.optimizer->end_step(commits);
            }
            ends[self] = p.optimizer->replica_digest();
        };
        std::thread other(train, 1);
        train(0);
        other.join();
        CHECK(ends[0] == ends[1]);
        return ends[0];
    };
    CHECK(run(true) == run(false));
}

TEST_CASE("error feedback: what the value code rounds away stays in the momentum, and only that") {
    for (const value_code values : {value_code::bf16, value_code::q4, value_code::q2, value_code::sign}) {
        CAPTURE(to_string(values));
        demo_options options = {.gradient = gradient_scale::none, .k = 4096, .values = values};
        demo_peer without(0, options);
        options.error_feedback = true;
        demo_peer with(0, options), twice(0, options);
        without.step();
        with.step();
        double rest = 0.0, whole = 0.0;
        for (std::size_t i = 0; i < with.values.size(); ++i) {
            for (std::size_t e = 0; e < with.values[i].size(); ++e) {
                REQUIRE(without.optimizer->momentum(i)[e] == 0.0F);
                rest += std::pow(static_cast<double>(with.optimizer->momentum(i)[e]), 2.0);
                whole += std::pow(static_cast<double>(with.gradients[i][e]), 2.0);
            }
        }
        CHECK(rest > 0.0);
        CHECK(rest < (values == value_code::bf16 ? 1e-4 : 0.5) * whole);
        // Its receivers decode the same: rounding first does not change the payload.
        CHECK(with.values == without.values);
    }
}

TEST_CASE(
    "the payload passes a sink in parts as it is made; threads do not change it; a sink that throws loses nothing") {
    const std::vector<shape> shapes = {{64, 640}, {130}, {256, 256}, {31, 12}, {192, 192}, {640, 64}};
    thread_pool pool(2);
    for (const value_code values : {value_code::f32, value_code::sign, value_code::q4}) {
        demo_peer one(0, {.k = 8, .values = values}, nullptr, shapes),
            two(0, {.k = 8, .values = values}, &pool, shapes);
        for (int round = 0; round < 3; ++round) {
            const auto payload = one.begin(0);
            two.new_gradients();
            std::vector<std::byte> parts;
            int calls = 0;
            const auto whole = two.optimizer->begin_step(0, [&](std::span<const std::byte> part) {
                parts.insert(parts.end(), part.begin(), part.end());
                ++calls;
            });
            CHECK(parts == payload);
            CHECK(std::ranges::equal(whole, payload));
            CHECK(calls > 5);
            for (demo_peer* p : {&one, &two})
                finish(*p->optimizer, static_cast<std::uint64_t>(round), {{.peer = 0, .payload = payload}});
        }
        const auto payload = one.begin(0);
        two.new_gradients();
        CHECK_THROWS_AS(
            two.optimizer->begin_step(0, [](std::span<const std::byte>) { throw std::runtime_error("a full pipe"); }),
            std::runtime_error);
        CHECK(std::ranges::equal(two.optimizer->in_flight(), payload));
    }
}
