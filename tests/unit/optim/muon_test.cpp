#include <thinwire/optim/demo.hpp>
#include <thinwire/optim/muon.hpp>

#include <doctest/doctest.h>
#include <support/optim_peer.hpp>

#include <algorithm>
#include <cmath>
#include <memory>
#include <span>
#include <vector>

using namespace thinwire;
using demo_peer = test::peer<demo, demo_options>;

namespace {

std::vector<float> random_matrix(std::size_t count, float scale) {
    random_stream random(3);
    std::vector<float> d(count);
    for (float& v : d) v = scale * random.normal();
    return d;
}

std::vector<float> direction(std::vector<float> d, std::size_t rows, std::size_t cols, isa level = best_isa(),
                             thread_pool* pool = nullptr) {
    const muon rule;
    update_workspace work{.pool = pool, .level = level, .memory = aligned_vector<float>(rule.workspace(rows, cols))};
    rule.direct_matrix(d, rows, cols, work);
    return d;
}

}  // namespace

TEST_CASE("muon: the direction is nearly orthogonal, of every shape and scale") {
    for (const auto& sides : {std::pair<std::size_t, std::size_t>{40, 70}, {70, 40}, {33, 33}, {2, 100}}) {
        const std::size_t rows = sides.first, cols = sides.second;
        const std::vector<float> whole = direction(random_matrix(rows * cols, 1.0F), rows, cols);
        const bool tall = rows > cols;
        const std::size_t m = tall ? cols : rows, n = tall ? rows : cols;
        const auto at = [&](std::size_t i, std::size_t j) {
            return static_cast<double>(tall ? whole[j * cols + i] : whole[i * cols + j]);
        };
        double diagonal = 0.0;
        for (std::size_t i = 0; i < m; ++i) {
            for (std::size_t j = 0; j < m; ++j) {
                double dot = 0.0;
                for (std::size_t x = 0; x < n; ++x) dot += at(i, x) * at(j, x);
                if (i == j)
                    diagonal += dot;
                else
                    CHECK(std::abs(dot) < 0.35);  // singular values end between 0.68 and 1.14
            }
        }
        CHECK(diagonal / static_cast<double>(m) > 0.6);
        CHECK(diagonal / static_cast<double>(m) < 1.2);
        for (const float scale : {0x1p-100F, 0x1p90F})  // powers of two change nothing at all
            CHECK(direction(random_matrix(rows * cols, scale), rows, cols) == whole);
    }
    CHECK(direction(std::vector<float>(12), 3, 4) == std::vector<float>(12));
}

TEST_CASE("muon: every instruction set and number of threads gives the same bits") {
    const std::vector<float> d = random_matrix(100 * 72, 1e-3F);
    thread_pool pool(3);
    const std::vector<float> expected = direction(d, 100, 72, isa::scalar);
    for (const isa level : {isa::scalar, isa::avx2, isa::avx512}) {
        if (level > best_isa()) continue;
        CHECK(direction(d, 100, 72, level) == expected);
        CHECK(direction(d, 100, 72, level, &pool) == expected);
    }
}

TEST_CASE("muon: in demo, matrices of a batch one by one, vectors by sign; options out of range are refused") {
    const std::vector<shape> batched = {{2, 24, 40}, {30}, {24, 40}, {1, 50}, {67, 65}};
    demo_peer p(0, {.learning_rate = 0.5F, .k = 4096, .rule = std::make_shared<const muon>()}, nullptr, batched);
    const auto before = p.values;
    p.step();
    for (const std::size_t i : {1U, 3U})
        for (std::size_t e = 0; e < before[i].size(); ++e)
            CHECK(std::abs(std::abs(p.values[i][e] - before[i][e]) - 0.125F) < 1e-6F);
    struct matrix {
        std::size_t tensor, first, rows, cols;
    };
    for (const matrix& m : {matrix{0, 0, 24, 40}, {0, 960, 24, 40}, {2, 0, 24, 40}, {4, 0, 67, 65}}) {
        CAPTURE(m.tensor);
        const float rate = 0.5F * 0.2F * std::sqrt(static_cast<float>(std::max(m.rows, m.cols)));
        const auto g = std::span(p.gradients[m.tensor]).subspan(m.first, m.rows * m.cols);
        const std::vector<float> expected = direction({g.begin(), g.end()}, m.rows, m.cols);
        for (std::size_t e = 0; e < g.size(); ++e) {
            const float moved = before[m.tensor][m.first + e] - p.values[m.tensor][m.first + e];
            CHECK(std::abs(moved - rate * expected[e]) < 2e-4F);
        }
    }
    CHECK_THROWS_AS(muon({.steps = 0}), value_error);
    CHECK_THROWS_AS(muon({.scale = 0.0F}), value_error);
    CHECK_THROWS_AS(muon({.fallback = -1.0F}), value_error);
}
