#include <thinwire/comm/loopback.hpp>
#include <thinwire/optim/demo.hpp>
#include <thinwire/optim/muon.hpp>

#include <doctest/doctest.h>
#include <support/optim_peer.hpp>

#include <array>
#include <memory>
#include <string>
#include <thread>
#include <vector>

using namespace thinwire;
using test::finish;
using demo_peer = test::peer<demo, demo_options>;

TEST_CASE("every rule with every basis and value code: instruction sets and threads do not change the replica") {
    const std::vector<shape> shapes = {{24, 40}, {30}, {2, 16, 8}};
    const std::vector<update_rule_ptr> rules = {std::make_shared<const signum>(), std::make_shared<const sgd>(),
                                                std::make_shared<const muon>()};
    const std::vector<basis> bases = {basis::dct(), basis::hadamard(), basis::random_orthogonal(7),
                                      basis::random_orthogonal(7, true), basis::identity()};
    thread_pool pool(3);
    for (const update_rule_ptr& rule : rules) {
        for (const basis& transform : bases) {
            for (const value_code values : {value_code::f32, value_code::sign}) {
                CAPTURE(rule->name());
                CAPTURE(to_string(transform.kind()));
                CAPTURE(to_string(values));
                demo_options options = {.momentum_decay = 0.9F, .alpha = 0.5F, .k = 6, .values = values};
                options.gradient = gradient_scale::none;
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
