#include <thinwire/codec/top_k.hpp>
#include <thinwire/core/random.hpp>
#include <thinwire/transform/chunk_grid.hpp>
#include <thinwire/transform/kernels.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <numbers>
#include <utility>
#include <vector>

using namespace thinwire;

TEST_CASE("chunk_side: the largest divisor not above the target") {
    CHECK(chunk_side(50257, 64) == 29);
    CHECK(chunk_side(50280, 64) == 60);
    CHECK(chunk_side(32000, 64) == 64);
    CHECK(chunk_side(2730, 64) == 42);
    CHECK(chunk_side(127, 64) == 1);
    CHECK(chunk_side(61, 64) == 61);
    CHECK(chunk_side(7, 4) == 1);
}

TEST_CASE("chunk_grid: chunks cover a tensor once") {
    for (const shape& s : {shape{}, shape{130}, shape{12, 5}, shape{127, 61}, shape{3, 2, 96, 160}, shape{1, 1}}) {
        const chunk_grid grid(s, 64);
        std::vector<int> seen(s.count());
        for (std::size_t chunk = 0; chunk < grid.count(); ++chunk)
            for (std::size_t r = 0; r < grid.rows(); ++r)
                for (std::size_t c = 0; c < grid.cols(); ++c) ++seen.at(grid.offset(chunk) + r * grid.stride() + c);
        INFO(to_string(s));
        for (const int times : seen) REQUIRE(times == 1);
    }
    CHECK(chunk_grid({130}, 64).rows() == 1);
    CHECK_THROWS_AS(chunk_grid({4}, 0), value_error);
    CHECK_THROWS_AS(chunk_grid({4}, 257), value_error);
}

TEST_CASE("cut_dimension: the target's side and a rest, where the largest divisor is below half the target") {
    const auto cut = [](std::size_t n, std::size_t target, chunk_cut how) {
        const dimension_cut found = cut_dimension(n, target, how);
        CHECK(found.side * found.count + found.rest == n);
        CHECK(found.rest < found.side);
        return std::pair(found.side, found.rest);
    };
    struct expectation {
        std::size_t n, side, rest;
    };
    for (const expectation& e : {expectation{8191, 64, 63},
                                 {50257, 64, 17},
                                 {8193, 64, 1},
                                 {131, 64, 3},
                                 {67, 64, 3},
                                 {62, 62, 0},
                                 {61, 61, 0},
                                 {1, 1, 0},
                                 {96, 48, 0},
                                 {2 * 37, 37, 0},
                                 {2 * 101, 64, 10},
                                 {32 * 101, 32, 0},
                                 {31 * 101, 64, 59},
                                 {8192, 64, 0}}) {
        CAPTURE(e.n);
        CHECK(cut(e.n, 64, chunk_cut::remainder) == std::pair(e.side, e.rest));
        CHECK(cut(e.n, 64, chunk_cut::divisors) == std::pair(chunk_side(e.n, 64), std::size_t{0}));
    }
    CHECK(cut(13, 1, chunk_cut::remainder) == std::pair<std::size_t, std::size_t>(1, 0));
    CHECK(cut(13, 7, chunk_cut::remainder) == std::pair<std::size_t, std::size_t>(7, 6));
}

TEST_CASE("chunk_regions: each is cut evenly, together they cover a tensor once; divisors: one region") {
    struct expectation {
        shape sides;
        std::size_t regions, chunks;
    };
    for (const expectation& e : {expectation{{67, 67}, 4, 4},
                                 {{131}, 2, 3},
                                 {{3, 67, 130}, 4, 3 * 2 * 3},
                                 {{2, 3, 67, 64}, 2, 6 * 2},
                                 {{128, 8191}, 2, 2 * 128},
                                 {{8191, 130}, 4, 128 * 3},
                                 {{127, 61}, 2, 2},
                                 {{64, 1}, 1, 1},
                                 {{1, 67}, 2, 2},
                                 {{67, 1}, 2, 2},
                                 {{}, 1, 1},
                                 {{3, 2, 96, 160}, 1, 6 * 2 * 4}}) {
        INFO(to_string(e.sides));
        const std::vector<chunk_grid> regions = chunk_regions(e.sides, 64, chunk_cut::remainder);
        CHECK(regions.size() == e.regions);
        std::vector<int> seen(e.sides.count());
        std::size_t found = 0;
        for (const chunk_grid& grid : regions) {
            found += grid.count();
            for (std::size_t chunk = 0; chunk < grid.count(); ++chunk)
                for (std::size_t r = 0; r < grid.rows(); ++r)
                    for (std::size_t c = 0; c < grid.cols(); ++c) ++seen.at(grid.offset(chunk) + r * grid.stride() + c);
        }
        CHECK(found == e.chunks);
        for (const int times : seen) REQUIRE(times == 1);
        const std::vector<chunk_grid> even = chunk_regions(e.sides, 64, chunk_cut::divisors);
        REQUIRE(even.size() == 1);
        const chunk_grid grid(e.sides, 64);
        CHECK(even[0].rows() == grid.rows());
        CHECK(even[0].cols() == grid.cols());
        CHECK(even[0].count() == grid.count());
    }
    CHECK_THROWS_AS(static_cast<void>(chunk_regions({4}, 0, chunk_cut::remainder)), value_error);
    CHECK_THROWS_AS(static_cast<void>(chunk_regions({4}, 257, chunk_cut::remainder)), value_error);
}

TEST_CASE("dct_entry: the cosine to the last of its 22 bits") {
    for (const int side : {1, 2, 3, 16, 29, 61, 64, 255, 256}) {
        double worst = 0.0;
        for (int f = 0; f < side; ++f) {
            for (int x = 0; x < side; ++x) {
                const double scale = std::sqrt((f == 0 ? 1.0 : 2.0) / side);
                const double expected = scale * std::cos(std::numbers::pi * (2 * x + 1) * f / (2.0 * side)) * 0x1p22;
                worst = std::max(worst, std::abs(expected - static_cast<double>(dct_entry(side, f, x))));
                REQUIRE(dct_entry(side, f, x) == (f % 2 == 0 ? 1 : -1) * dct_entry(side, f, side - 1 - x));
            }
        }
        CHECK(worst < 0.51);
    }
}

TEST_CASE("kernels: forward is the DCT, inverse its inverse, inverse_exact the same bits at every level") {
    struct sides {
        std::size_t rows, cols;
    };
    for (const sides& chunk_sides : {sides{64, 64},
                                     {1, 7},
                                     {61, 1},
                                     {12, 5},
                                     {37, 53},
                                     {1, 256},
                                     {1, 1},
                                     {2, 128},
                                     {32, 64},
                                     {64, 32},
                                     {32, 32}}) {
        const std::size_t h = chunk_sides.rows, w = chunk_sides.cols;
        INFO(h, "x", w);
        const basis_tables rows(basis_kind::dct, h, basis().table(h)), cols(basis_kind::dct, w, basis().table(w));
        transform_scratch s(h, w);
        random_stream random(5);
        std::vector<float> input(h * w);
        for (float& value : input) value = random.normal();
        std::vector<float> exact;
        for (const isa level : {isa::scalar, isa::avx2, isa::avx512}) {
            if (level > best_isa()) continue;
            const transform_kernels& kernels = kernels_for(level);
            std::fill(s.tile.begin(), s.tile.end(), 0.0F);
            for (std::size_t i = 0; i < h * w; ++i) s.tile[i / w * cols.full() + i % w] = input[i];
            kernels.forward(rows, cols, s.tile.data(), s);
            std::vector<std::uint16_t> positions;
            std::vector<float> values;
            std::vector<double> integers;
            for (std::size_t i = 0; i < h * w; ++i) {
                positions.push_back(static_cast<std::uint16_t>(i));
                values.push_back(s.coefficients[spectrum_layout{rows, cols}.place(i)]);
                REQUIRE(spectrum_layout{rows, cols}.position(spectrum_layout{rows, cols}.place(i)) == i);
                integers.push_back(static_cast<double>(static_cast<int>(random_stream(9, i).normal() * 1e5F)) *
                                   0x1p-22);
            }
            for (std::size_t i = 0; i < h * w; i += 7) {
                double expected = 0.0;
                for (std::size_t e = 0; e < h * w; ++e)
                    expected += static_cast<double>(input[e]) * 0x1p-44 *
                                static_cast<double>(
                                    dct_entry(static_cast<int>(h), static_cast<int>(i / w), static_cast<int>(e / w))) *
                                static_cast<double>(
                                    dct_entry(static_cast<int>(w), static_cast<int>(i % w), static_cast<int>(e % w)));
                REQUIRE(std::abs(expected - static_cast<double>(values[i])) < 2e-5);
            }
            sparse_chunk<float> local(h * w);
            local.assign(positions, values, w);
            kernels.inverse(rows, cols, local, s.tile.data(), s);
            for (std::size_t i = 0; i < h * w; ++i)
                REQUIRE(std::abs(s.tile[i / w * cols.full() + i % w] - input[i]) < 5e-6F);
            sparse_chunk<double> chunk(h * w);
            chunk.assign(positions, integers, w);
            kernels.inverse_exact(rows, cols, chunk, s.tile.data(), s);
            std::vector<float> found;
            for (std::size_t i = 0; i < h * w; ++i) found.push_back(s.tile[i / w * cols.full() + i % w]);
            if (exact.empty()) exact = found;
            CHECK(std::memcmp(exact.data(), found.data(), found.size() * sizeof(float)) == 0);
        }
    }
}

TEST_CASE("inverse_exact: equal to integer arithmetic, also where all means are as large as they can be and add up") {
    for (const std::size_t side : {256U, 64U, 61U, 1U}) {
        INFO("side ", side);
        const auto n = static_cast<std::int64_t>(side);
        const auto sides = static_cast<std::int64_t>(side * side);
        const auto entry = [&](std::int64_t frequency, std::int64_t x) { return dct_entry(n, frequency, x); };
        std::vector<std::int64_t> basis;
        for (std::int64_t i = 0; i < sides; ++i) basis.push_back(entry(i / n, i % n));
        const auto at = [&](std::int64_t frequency, std::int64_t x) {
            return basis[static_cast<std::size_t>(frequency * n + x)];
        };
        // 2^22 times the sign that the basis has at one corner: no element of any chunk is larger there.
        std::vector<std::uint16_t> positions;
        std::vector<double> means;
        std::vector<std::int64_t> whole;
        for (std::int64_t i = 0; i < sides; ++i) {
            const bool negative = (at(i / n, 0) < 0) != (at(i % n, n / 3) < 0);
            positions.push_back(static_cast<std::uint16_t>(i));
            means.push_back(negative ? -1.0 : 1.0);
            whole.push_back((negative ? -1 : 1) * (std::int64_t{1} << 22U));
        }
        std::vector<std::int64_t> middle(side * side);  // [x][column], rounded half up to a multiple of 2^22
        for (std::int64_t x = 0; x < n; ++x)
            for (std::int64_t c = 0; c < n; ++c) {
                std::int64_t sum = std::int64_t{1} << 21U;
                for (std::int64_t r = 0; r < n; ++r) sum += whole[static_cast<std::size_t>(r * n + c)] * at(r, x);
                middle[static_cast<std::size_t>(x * n + c)] = sum >> 22U;
            }
        const basis_tables table(basis_kind::dct, side, thinwire::basis().table(side));
        transform_scratch s(side, side);
        sparse_chunk<double> chunk(side * side);
        chunk.assign(positions, means, side);
        for (const isa level : {isa::scalar, isa::avx2, isa::avx512}) {
            if (level > best_isa()) continue;
            kernels_for(level).inverse_exact(table, table, chunk, s.tile.data(), s);
            std::size_t wrong = 0;
            for (std::int64_t x = 0; x < n; ++x)
                for (std::int64_t y = 0; y < n; ++y) {
                    std::int64_t sum = 0;
                    for (std::int64_t c = 0; c < n; ++c) sum += middle[static_cast<std::size_t>(x * n + c)] * at(c, y);
                    const float found =
                        s.tile[static_cast<std::size_t>(x) * table.full() + static_cast<std::size_t>(y)];
                    wrong += found != static_cast<float>(static_cast<double>(sum)) ? 1U : 0U;
                }
            CHECK(wrong == 0);
        }
    }
}

TEST_CASE("apply_sign: one step each way, none at zero, tiny weights to zero") {
    for (const isa level : {isa::scalar, isa::avx2, isa::avx512}) {
        if (level > best_isa()) continue;
        std::vector<float> x = {1.0F, 1.0F, 1.0F, 1e-40F, -0.0F};
        const std::vector<float> d = {3.0F, -2.0F, 0.0F, 0.0F, 0.0F};
        kernels_for(level).apply_sign(x.data(), d.data(), x.size(), 0.25F, 0.5F, 0);
        CHECK(x == std::vector<float>{0.25F, 0.75F, 0.5F, 0.0F, 0.0F});
        CHECK_FALSE(std::signbit(x[4]));
    }
}

TEST_CASE("kernels: every basis' forward and inverse are the products with its table") {
    struct sides {
        std::size_t rows, cols;
    };
    for (const basis& b : {basis::hadamard(), basis::identity(), basis::random_orthogonal(3)})
        for (const sides& chunk_sides : {sides{64, 64}, sides{32, 64}, sides{32, 32}, sides{64, 29}, sides{1, 40}}) {
            const std::size_t h = chunk_sides.rows, w = chunk_sides.cols;
            INFO(to_string(b.kind()), " ", h, "x", w);
            const auto down = b.table(h), across = b.table(w);
            const basis_tables rows(b.kind(), h, down), cols(b.kind(), w, across);
            const spectrum_layout layout = {rows, cols};
            random_stream random(6);
            std::vector<float> input(h * w);
            for (float& value : input) value = random.normal();
            for (const isa level : {isa::scalar, isa::avx2, isa::avx512}) {
                if (level > best_isa()) continue;
                transform_scratch s(h, w);
                for (std::size_t i = 0; i < h * w; ++i) s.tile[i / w * cols.full() + i % w] = input[i];
                kernels_for(level).forward(rows, cols, s.tile.data(), s);
                std::vector<std::uint16_t> positions;
                std::vector<float> values;
                for (std::size_t i = 0; i < h * w; ++i) {
                    REQUIRE(layout.position(layout.place(i)) == i);
                    positions.push_back(static_cast<std::uint16_t>(i));
                    values.push_back(s.coefficients[layout.place(i)]);
                }
                for (std::size_t i = 0; i < h * w; i += 5) {
                    double expected = 0.0;
                    for (std::size_t e = 0; e < h * w; ++e)
                        expected += static_cast<double>(input[e]) * 0x1p-44 *
                                    static_cast<double>(down[i / w * h + e / w]) *
                                    static_cast<double>(across[i % w * w + e % w]);
                    REQUIRE(std::abs(expected - static_cast<double>(values[i])) < 2e-5);
                }
                sparse_chunk<float> all(h * w);
                all.assign(positions, values, w);
                kernels_for(level).inverse(rows, cols, all, s.tile.data(), s);
                for (std::size_t i = 0; i < h * w; ++i)
                    REQUIRE(std::abs(s.tile[i / w * cols.full() + i % w] - input[i]) < 1e-5F);
            }
        }
}

TEST_CASE("kernels: chunks of one row together, and the inverse of one, exact at every level") {
    constexpr std::size_t count = 37;
    for (const basis& b : {basis::dct(), basis::hadamard()})
        for (const std::size_t w : {std::size_t{32}, std::size_t{64}}) {
            INFO(to_string(b.kind()), " ", w);
            const auto table = b.table(w);
            const basis_tables cols(b.kind(), w, table);
            random_stream random(7);
            std::vector<float> lines(48 * w);
            for (float& value : lines) value = random.normal();
            const std::vector<std::uint16_t> positions = {0, 3, 8, 21, 31};
            const std::vector<double> means = {0x1p-22, -3 * 0x1p-22, 1.0, -1.0, 4194303 * 0x1p-22};
            for (const isa level : {isa::scalar, isa::avx2, isa::avx512}) {
                if (level > best_isa()) continue;
                transform_scratch s(1, w);
                kernels_for(level).forward_lines(cols, lines.data(), count, s);
                for (std::size_t i = 0; i < count * w; ++i) {
                    double expected = 0.0;
                    for (std::size_t x = 0; x < w; ++x)
                        expected += static_cast<double>(lines[i / w * w + x]) * 0x1p-22 *
                                    static_cast<double>(table[i % w * w + x]);
                    REQUIRE(std::abs(expected - static_cast<double>(s.coefficients[i])) < 1e-5);
                }
                std::vector<float> back(w);
                const std::vector<float> values(means.begin(), means.end());
                kernels_for(level).inverse_line_exact(cols, positions.data(), means.data(), means.size(),
                                                      s.tile.data());
                kernels_for(level).inverse_line(cols, positions.data(), values.data(), values.size(), back.data());
                for (std::size_t x = 0; x < w; ++x) {
                    std::int64_t sum = 0;
                    for (std::size_t i = 0; i < means.size(); ++i)
                        sum += static_cast<std::int64_t>(means[i] * 0x1p22) * table[positions[i] * w + x];
                    CHECK(s.tile[x] == static_cast<float>(static_cast<double>(sum)));
                    CHECK(std::abs(static_cast<double>(back[x]) - static_cast<double>(sum) * 0x1p-44) < 1e-5);
                }
            }
        }
}

TEST_CASE("kernels: scan, top_floor and mark_tops at every level") {
    random_stream random(8);
    std::vector<float> c(4096 + 2688);
    for (float& value : c) value = random.normal();
    for (const float scale : {1.0F, 1e-30F, 1e30F}) {
        std::vector<float> g(c.begin(), c.begin() + 4999);
        double expected = 0.0;
        for (float& value : g) {
            value *= scale;
            expected += static_cast<double>(value) * static_cast<double>(value);
        }
        g[1234] = scale == 1.0F ? -1e4F : g[1234];
        if (scale == 1.0F) expected += 1e8 - static_cast<double>(c[1234]) * static_cast<double>(c[1234]);
        for (const isa level : {isa::scalar, isa::avx2, isa::avx512}) {
            if (level > best_isa()) continue;
            double sum = 0.0;
            std::uint32_t largest = 0;
            kernels_for(level).scan(g.data(), g.size(), sum, largest, {});
            CHECK(std::abs(sum / expected - 1.0) < 0x1p-18);
            for (const std::size_t at : {std::size_t{0}, std::size_t{4095}, std::size_t{4998}}) {
                std::vector<float> bad = g;
                bad[at] = std::bit_cast<float>(0xffc00000U);
                double ignored = 0.0;
                std::uint32_t top = largest;
                kernels_for(level).scan(bad.data(), bad.size(), ignored, top, {});
                CHECK(top == 0x7fc00000U);
            }
        }
    }
    for (const isa level : {isa::scalar, isa::avx2, isa::avx512}) {
        if (level > best_isa()) continue;
        for (const std::size_t n : {std::size_t{4096}, std::size_t{2688}, std::size_t{48}})
            for (const std::size_t k : {std::size_t{1}, std::size_t{8}, std::size_t{32}}) {
                const std::size_t groups = top_k_groups(n, k);
                std::vector<std::uint32_t> tops(groups);
                std::vector<std::uint64_t> marks((n + 63) / 64);
                kernels_for(level).group_tops(c.data(), n, groups, tops.data());
                const std::uint32_t floor = kernels_for(level).top_floor(tops.data(), groups, k);
                kernels_for(level).mark_tops(c.data(), n, floor, marks.data());
                std::vector<std::uint32_t> sizes(groups);
                std::size_t marked = 0;
                for (std::size_t i = 0; i < n; ++i) {
                    const std::uint32_t size = std::bit_cast<std::uint32_t>(c[i]) & 0x7fffffffU;
                    sizes[i % groups] = std::max(sizes[i % groups], size);
                    const bool mark = (marks[i / 64] >> i % 64 & 1U) != 0;
                    REQUIRE(mark == (size >= floor));
                    marked += mark ? 1U : 0U;
                }
                CHECK(sizes == tops);
                CHECK(marked >= k);
                CHECK(marked <= 2 * k + 4);
            }
    }
}

TEST_CASE("inverse_fast: the inverse of few and of all coefficients where both sides are fast, at every level") {
    struct sides {
        std::size_t rows, cols;
    };
    for (const basis& b : {basis::dct(), basis::hadamard()})
        for (const sides& chunk_sides : {sides{64, 64}, sides{32, 64}, sides{64, 32}, sides{32, 32}})
            for (const std::size_t count : {std::size_t{0}, std::size_t{1}, std::size_t{8}, std::size_t{200},
                                            chunk_sides.rows * chunk_sides.cols}) {
                const std::size_t h = chunk_sides.rows, w = chunk_sides.cols, n = h * w;
                INFO(to_string(b.kind()), " ", h, "x", w, ", ", count, " coefficients");
                const auto down = b.table(h), across = b.table(w);
                const basis_tables rows(b.kind(), h, down), cols(b.kind(), w, across);
                random_stream random(11);
                std::vector<std::uint16_t> positions;
                std::vector<float> values;
                for (std::size_t i = 0; i < count; ++i) {
                    positions.push_back(static_cast<std::uint16_t>(i * n / count + random.below(n / count)));
                    values.push_back(random.normal());
                }
                for (const isa level : {isa::scalar, isa::avx2, isa::avx512}) {
                    if (level > best_isa()) continue;
                    transform_scratch s(h, w);
                    std::vector<float> tile(n, 1e9F);
                    kernels_for(level).inverse_fast(rows, cols, positions.data(), values.data(), count, tile.data(), s);
                    for (std::size_t e = 0; e<n; e += count> 200 ? 37 : 1) {
                        double expected = 0.0;
                        for (std::size_t i = 0; i < count; ++i)
                            expected += static_cast<double>(values[i]) * 0x1p-44 *
                                        static_cast<double>(down[positions[i] / w * h + e / w]) *
                                        static_cast<double>(across[positions[i] % w * w + e % w]);
                        REQUIRE(std::abs(expected - static_cast<double>(tile[e])) < 1e-5);
                    }
                }
            }
}

TEST_CASE("scan: the work in between is done once for every 512 gradients and changes no sum, at every level") {
    random_stream random(21);
    std::vector<float> g(5 * 4096 + 512);
    for (float& value : g) value = random.normal();
    for (const isa level : {isa::scalar, isa::avx2, isa::avx512}) {
        if (level > best_isa()) continue;
        double plain = 0.0, paused = 0.0;
        std::uint32_t largest = 0, top = 0;
        std::size_t calls = 0;
        std::size_t* const count = &calls;
        const auto work = [](const void* context) { ++**static_cast<std::size_t* const*>(context); };
        kernels_for(level).scan(g.data(), g.size(), plain, largest, {});
        kernels_for(level).scan(g.data(), g.size(), paused, top, {.work = work, .context = &count});
        CHECK(calls == g.size() / detail::scan_pause::gradients);
        CHECK(plain == paused);
        CHECK(largest == top);
    }
}

TEST_CASE("line_floors and mark_lines: the k-th largest magnitude of every line, with ties and zeros, at every level") {
    constexpr std::size_t lines = 48;
    for (const std::size_t n : {std::size_t{32}, std::size_t{64}}) {
        random_stream random(12);
        std::vector<float> c(lines * n), turned(lines * n);
        for (std::size_t i = 0; i < c.size(); ++i) {
            c[i] = i / n % 3 == 0 ? static_cast<float>(random.below(5)) - 2.0F : random.normal();
            turned[i % n * lines + i / n] = c[i];
        }
        for (std::size_t k = 1; k <= n; ++k)
            for (const isa level : {isa::scalar, isa::avx2, isa::avx512}) {
                if (level > best_isa()) continue;
                INFO("n ", n, ", k ", k, ", level ", to_string(level));
                std::vector<std::uint32_t> floors(lines);
                std::vector<std::uint64_t> marks(lines);
                kernels_for(level).line_floors(turned.data(), n, lines, lines, k, floors.data());
                kernels_for(level).mark_lines(c.data(), n, lines, floors.data(), marks.data());
                for (std::size_t line = 0; line < lines; ++line) {
                    std::vector<std::uint32_t> sizes;
                    std::uint64_t expected = 0;
                    for (std::size_t i = 0; i < n; ++i)
                        sizes.push_back(std::bit_cast<std::uint32_t>(c[line * n + i]) & 0x7fffffffU);
                    std::vector<std::uint32_t> sorted = sizes;
                    std::sort(sorted.begin(), sorted.end(), std::greater<>());
                    for (std::size_t i = 0; i < n; ++i)
                        expected |= (sizes[i] >= sorted[k - 1] ? std::uint64_t{1} : 0U) << i;
                    REQUIRE(floors[line] == sorted[k - 1]);
                    REQUIRE(marks[line] == expected);
                }
            }
    }
}
