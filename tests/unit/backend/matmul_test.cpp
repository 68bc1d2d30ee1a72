#include <thinwire/backend/cpu/fast.hpp>

#include <doctest/doctest.h>
#include <support/backend_checks.hpp>

using namespace thinwire;

namespace {

struct product_shape {
    int m, n, k;
};

/// The largest error of an element, over 2^-24 times the sum of its terms' magnitudes. A sum of k float32 terms in any
/// order stays below k + 1; one in blocks and lanes should stay far below.
double scaled_error(cpu::fast& backend, const product_shape& s, bool transpose_a, bool transpose_b, bool accumulate) {
    random_stream random(67);
    const auto m = static_cast<std::size_t>(s.m), n = static_cast<std::size_t>(s.n), k = static_cast<std::size_t>(s.k);
    const std::vector<float> a = test::random_values(random, m * k), b = test::random_values(random, k * n);
    const std::vector<float> before = test::random_values(random, m * n);
    test::device_array<cpu::fast> c(backend, before);
    backend.matmul(c, a.data(), b.data(), s.m, s.n, s.k, transpose_a, transpose_b, accumulate);
    const std::vector<float> found = c.fetch();
    double worst = 0;
    for (std::size_t i = 0; i < m; ++i)
        for (std::size_t j = 0; j < n; ++j) {
            double exact = accumulate ? static_cast<double>(before[i * n + j]) : 0.0;
            double magnitude = std::abs(exact);
            for (std::size_t p = 0; p < k; ++p) {
                const double term = static_cast<double>(transpose_a ? a[p * m + i] : a[i * k + p]) *
                                    static_cast<double>(transpose_b ? b[j * k + p] : b[p * n + j]);
                exact += term;
                magnitude += std::abs(term);
            }
            worst = std::max(worst, std::abs(static_cast<double>(found[i * n + j]) - exact) / (magnitude * 0x1p-24));
        }
    return worst;
}

}  // namespace

TEST_CASE("matmul: rounding errors of every layout and of sizes around the blocks") {
    constexpr product_shape shapes[] = {{1, 1, 1},     {5, 1, 255},  {13, 33, 257},  {145, 31, 64}, {12, 32, 600},
                                        {289, 47, 19}, {6, 16, 256}, {11, 2050, 21}, {4, 300, 520}, {50, 64, 1}};
    for (const isa level : {isa::scalar, isa::avx2, isa::avx512}) {
        if (level > best_isa()) continue;
        CAPTURE(to_string(level));
        thread_pool pool(2);
        cpu::fast backend(pool, level);
        for (const product_shape& s : shapes) {
            CAPTURE(s.m);
            CAPTURE(s.n);
            CAPTURE(s.k);
            for (int flags = 0; flags < 8; ++flags) {
                CAPTURE(flags);
                CHECK(scaled_error(backend, s, (flags & 1) != 0, (flags & 2) != 0, (flags & 4) != 0) <
                      std::min(16.0, s.k + 2.0));
            }
        }
    }
}

TEST_CASE("matmul: nothing to sum writes zeros or leaves the sum alone; nothing to write is nothing") {
    thread_pool pool(2);
    cpu::fast backend(pool);
    const float side[6] = {};
    std::vector<float> c(6, 3.0F);
    backend.matmul(c.data(), side, side, 2, 3, 0, false, false, true);
    CHECK(c == std::vector<float>(6, 3.0F));
    backend.matmul(c.data(), side, side, 0, 3, 2, false, true, false);
    backend.matmul(c.data(), side, side, 2, 0, 2, true, false, false);
    CHECK(c == std::vector<float>(6, 3.0F));
    backend.matmul(c.data(), side, side, 2, 3, 0, false, false, false);
    CHECK(c == std::vector<float>(6, 0.0F));
}

TEST_CASE("matmul: NaN and infinity reach the result") {
    thread_pool pool(1);
    cpu::fast backend(pool);
    std::vector<float> a(20 * 20, 1.0F), b(20 * 20, 1.0F), c(20 * 20);
    a[7 * 20 + 3] = std::numeric_limits<float>::quiet_NaN();
    b[5 * 20 + 11] = std::numeric_limits<float>::infinity();
    backend.matmul(c.data(), a.data(), b.data(), 20, 20, 20, false, false, false);
    for (std::size_t i = 0; i < 20; ++i)
        for (std::size_t j = 0; j < 20; ++j) {
            CHECK(std::isnan(c[i * 20 + j]) == (i == 7));
            if (i != 7) CHECK(std::isinf(c[i * 20 + j]) == (j == 11));
        }
}
