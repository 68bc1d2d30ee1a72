#include <thinwire/core/random.hpp>
#include <thinwire/optim/demo.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <memory>
#include <vector>

using namespace thinwire;

namespace {

const std::vector<basis>& bases() {
    static const std::vector<basis> all = {basis::dct(), basis::hadamard(), basis::random_orthogonal(3),
                                           basis::random_orthogonal(3, true), basis::identity()};
    return all;
}

struct basis_case {
    basis of;
    shape sides;
};
/// Every basis with tensors cut evenly, and with strips beside and below.
std::vector<basis_case> cases() {
    std::vector<basis_case> out;
    for (const basis& b : bases())
        for (const shape& sides : {shape{96, 120}, shape{67, 130}, shape{2, 67, 65}, shape{131}})
            out.push_back({b, sides});
    return out;
}

struct peer {
    std::vector<float> values, gradient;
    std::unique_ptr<demo> optimizer;

    explicit peer(const basis& b, const shape& sides, isa level = best_isa())
        : values(sides.count(), 1.0F), gradient(sides.count()) {
        random_stream random(2);
        for (float& g : gradient) g = random.normal();
        const std::array<parameter, 1> all = {
            parameter{.name = "w", .shape = sides, .values = values, .gradient = gradient}};
        optimizer = std::make_unique<demo>(all, demo_options{.k = 8, .basis = b, .level = level});
    }
    std::vector<std::byte> begin() {
        const auto payload = optimizer->begin_step(0);
        return {payload.begin(), payload.end()};
    }
};

}  // namespace

TEST_CASE("demo: with every basis what is committed leaves the momentum, and what is not stays") {
    for (const basis_case& one : cases()) {
        const basis& b = one.of;
        INFO(to_string(b.kind()), " ", b.each_round(), " ", to_string(one.sides));
        const auto squares = [](std::span<const float> m) {
            double sum = 0.0;
            for (const float x : m) sum += static_cast<double>(x) * static_cast<double>(x);
            return sum;
        };
        peer p(b, one.sides);
        static_cast<void>(p.begin());
        p.optimizer->apply({.round = 0, .contributions = {}});  // the own payload is not in it
        const std::vector<float> kept(p.optimizer->momentum(0).begin(), p.optimizer->momentum(0).end());
        for (std::size_t i = 0; i < kept.size(); ++i) REQUIRE(std::abs(kept[i] - 1e-3F * p.gradient[i]) < 1e-8F);
        std::ranges::fill(p.gradient, 0.0F);
        const std::vector<std::byte> payload = p.begin();
        const std::array<contribution, 1> list = {contribution{.peer = 0, .payload = payload}};
        sparse_content content;
        content.resize(p.optimizer->layout());
        REQUIRE(payload_decoder(p.optimizer->layout()).decode(payload, {.round = 1, .peer = 0}, content));
        const double sent = squares(content.values);  // an orthonormal transform keeps the sum of squares
        const double before = squares(p.optimizer->momentum(0));
        p.optimizer->apply({.round = 1, .contributions = list});
        CHECK(sent > 0.01 * before);
        CHECK(squares(p.optimizer->momentum(0)) == doctest::Approx(before - sent).epsilon(1e-5));
    }
}

TEST_CASE("demo: with every basis all instruction sets end with the same replica") {
    for (const basis_case& one : cases()) {
        const basis& b = one.of;
        INFO(to_string(b.kind()), " ", b.each_round(), " ", to_string(one.sides));
        digest first{};
        for (const isa level : {isa::scalar, isa::avx2, isa::avx512}) {
            if (level > best_isa()) continue;
            peer receiver(b, one.sides, level);
            peer source(b, one.sides);
            for (std::uint64_t round = 0; round < 3; ++round) {
                const std::vector<std::byte> payload = source.begin();
                const std::array<contribution, 1> list = {contribution{.peer = 0, .payload = payload}};
                const commit c = {.round = round, .contributions = list};
                CHECK(source.optimizer->apply(c).contributors == 1);
                CHECK(receiver.optimizer->apply(c).contributors == 1);
            }
            if (level == isa::scalar) first = receiver.optimizer->replica_digest();
            CHECK(receiver.optimizer->replica_digest() == first);
            CHECK(std::ranges::any_of(receiver.values, [](float x) { return x != 1.0F; }));
        }
    }
}

TEST_CASE("demo: a payload made with another basis is refused") {
    const std::vector<basis> others = {basis::dct(),
                                       basis::hadamard(),
                                       basis::random_orthogonal(3),
                                       basis::random_orthogonal(4),
                                       basis::random_orthogonal(3, true),
                                       basis::identity()};
    for (std::size_t i = 0; i < others.size(); ++i)
        for (std::size_t j = 0; j < others.size(); ++j) {
            peer a(others[i], {96, 120}), b(others[j], {96, 120});
            const std::vector<std::byte> payload = a.begin();
            const std::array<contribution, 1> list = {contribution{.peer = 0, .payload = payload}};
            CHECK(b.optimizer->apply({.round = 0, .contributions = list}).contributors == (i == j ? 1 : 0));
        }
}
