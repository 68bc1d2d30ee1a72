#include <thinwire/core/random.hpp>
#include <thinwire/optim/demo_options.hpp>
#include <thinwire/optim/detail/chunk_plan.hpp>
#include <thinwire/optim/detail/chunk_worker.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

using namespace thinwire;

namespace {

__extension__ typedef __int128 wide;

/// One chunk of side * side elements, all of whose coefficients may be sent.
struct one_chunk {
    std::size_t side;
    demo_options options;
    std::vector<float> memory;
    std::vector<parameter> parameters;
    detail::chunk_plan plan;
    std::vector<std::int32_t> table;

    one_chunk(std::size_t n, const basis& b)
        : side(n),
          options{.k = static_cast<int>(n * n), .chunk = static_cast<int>(n), .basis = b},
          memory(n * n),
          parameters{{.name = "x",
                      .shape = {static_cast<std::int64_t>(n), static_cast<std::int64_t>(n)},
                      .values = memory,
                      .gradient = memory}},
          plan(parameters, options),
          table(b.table(n)) {}
};

/// What exact_mean.hpp proves, in integers that cannot overflow: the means, and the chunk they transform back to.
std::vector<wide> reference(const one_chunk& c, std::span<const sparse_content* const> senders,
                            std::span<const contribution_weight> weights) {
    const std::size_t n = c.side;
    const auto weight = [&](std::size_t p) { return weights.empty() ? contribution_weight{} : weights[p]; };
    int top = 1;
    const auto field = [](float v) { return std::max<int>((std::bit_cast<std::uint32_t>(v) >> 23U) & 0xffU, 1); };
    for (std::size_t p = 0; p < senders.size(); ++p)
        for (std::size_t i = 0; i < senders[p]->counts[0]; ++i)
            top = std::max(top, field(senders[p]->values[i]) - static_cast<int>(weight(p).shift));
    std::vector<wide> sums(n * n), count(n * n);
    wide largest_sum = 0;
    for (std::size_t p = 0; p < senders.size(); ++p) {
        const sparse_content* s = senders[p];
        const contribution_weight as = weight(p);
        for (std::size_t i = 0; i < s->counts[0]; ++i) {
            const auto bits = std::bit_cast<std::uint32_t>(s->values[i]);
            const wide mantissa = (bits & 0x7fffffU) | ((bits & 0x7f800000U) == 0 ? 0U : 0x800000U);
            const int shift = std::min(2 + top - field(s->values[i]) + static_cast<int>(as.shift), 100);
            const wide size = (mantissa + (wide{1} << (shift - 1))) >> shift;
            wide& sum = sums[s->positions[i]];
            sum += ((bits >> 31U) != 0 ? -size : size) * as.weight * as.factor;
            count[s->positions[i]] += wide{256} * as.weight;
            largest_sum = std::max(largest_sum, sum < 0 ? -sum : sum);
        }
    }
    CHECK(largest_sum <= wide{1} << 61U);  // twice that and the divisor: what the proof needs
    for (std::size_t p = 0; p < n * n; ++p)
        if (count[p] > 0) {
            const wide rounded = (2 * (sums[p] < 0 ? -sums[p] : sums[p]) + count[p]) / (2 * count[p]);
            sums[p] = sums[p] < 0 ? -rounded : rounded;
        }
    std::vector<wide> middle(n * n), out(n * n);
    for (std::size_t y = 0; y < n; ++y)
        for (std::size_t col = 0; col < n; ++col) {
            wide sum = wide{1} << 21U;
            for (std::size_t r = 0; r < n; ++r) sum += sums[r * n + col] * c.table[r * n + y];
            middle[y * n + col] = sum >> 22U;
        }
    for (std::size_t y = 0; y < n; ++y)
        for (std::size_t x = 0; x < n; ++x)
            for (std::size_t col = 0; col < n; ++col) out[y * n + x] += middle[y * n + col] * c.table[col * n + x];
    return out;
}

void compare(const one_chunk& c, std::span<const sparse_content* const> senders, bool at_bound,
             std::span<const contribution_weight> weights = {}) {
    const std::vector<wide> expected = reference(c, senders, weights);
    wide largest = 0;
    for (const wide v : expected) largest = std::max(largest, v < 0 ? -v : v);
    CHECK(largest < (wide{1} << 53U));  // the bound that the proof needs
    if (at_bound) CHECK(largest > (wide{1} << 43U) * static_cast<wide>(c.side / 2));
    for (const isa level : {isa::scalar, isa::avx2, isa::avx512}) {
        if (level > best_isa()) continue;
        INFO("isa ", to_string(level));
        detail::chunk_worker worker(c.plan, kernels_for(level));
        const auto& t = c.plan.regions()[0];
        const float* found = worker.decode_mean(t, 0, {.contents = senders, .weights = weights});
        std::size_t wrong = 0;
        for (std::size_t i = 0; i < expected.size(); ++i) {
            const auto whole = static_cast<float>(static_cast<double>(static_cast<std::int64_t>(expected[i])));
            wrong += found[i / c.side * t.cols->full() + i % c.side] != whole ? 1U : 0U;
        }
        CHECK(wrong == 0);
    }
}

/// A content with the positions for which `sends` holds, and value(position).
template <class Sends, class Value>
sparse_content content_of(const one_chunk& c, const Sends& sends, const Value& value) {
    sparse_content s;
    s.resize(c.plan.layout());
    s.counts[0] = 0;
    for (std::size_t p = 0; p < c.side * c.side; ++p) {
        if (!sends(p)) continue;
        s.positions[s.counts[0]] = static_cast<std::uint16_t>(p);
        s.values[s.counts[0]++] = value(p);
    }
    return s;
}

const std::vector<basis> tested_bases = {basis::dct(), basis::hadamard(), basis::random_orthogonal(5),
                                         basis::identity()};

}  // namespace

TEST_CASE("exact decode: all coefficients at the largest mantissa, signs aligned with a basis row, 300 senders") {
    for (const std::size_t side : {256U, 64U, 61U})
        for (const basis& b : tested_bases) {
            INFO("side ", side, " basis ", to_string(b.kind()));
            const one_chunk c(side, b);
            const auto largest = [&](std::size_t p) {
                const bool negative =
                    (c.table[p / side * side + side / 5] < 0) != (c.table[p % side * side + side / 3] < 0);
                return negative ? -0x1.fffffep+99F : 0x1.fffffep+99F;
            };
            const sparse_content all = content_of(
                c, [](std::size_t) { return true; }, largest);
            const std::vector<const sparse_content*> senders(300, &all);
            compare(c, senders, b.kind() != basis_kind::identity);
            // The largest sums of weights: of many that weigh much, and of one.
            std::vector<contribution_weight> weights(127, {.weight = most_tokens});
            weights.push_back({.weight = most_tokens - 1});
            compare(c, std::span(senders).first(128), b.kind() != basis_kind::identity, weights);
            weights.assign(1, {.weight = 0x7fffffffU});
            compare(c, std::span(senders).first(1), b.kind() != basis_kind::identity, weights);
            weights.assign(300, {.factor = 255});
            weights[7] = {.weight = 0x7fffffffU - 299, .factor = 128, .shift = 1};
            compare(c, senders, false, weights);
        }
}

TEST_CASE("exact decode: mixed exponents, subnormal numbers, zeros, overlapping supports of 211 senders") {
    for (const std::size_t side : {256U, 48U, 7U})
        for (const basis& b : tested_bases)
            for (const std::uint32_t top : {1U, 24U, 120U, 227U}) {  // the largest exponent field; 1: all subnormal
                if (side == 256U && top != 120U) continue;
                INFO("side ", side, " basis ", to_string(b.kind()), " top ", top);
                const one_chunk c(side, b);
                random_stream random(31 + top, side);
                std::vector<sparse_content> contents;
                for (int i = 0; i < 5; ++i)
                    contents.push_back(content_of(
                        c, [&](std::size_t) { return random.below(3) != 0; },
                        [&](std::size_t) {
                            const std::uint32_t bits = random.bits32();
                            const auto down = static_cast<std::uint32_t>(random.below(random.below(2) == 0 ? 3 : 40));
                            const std::uint32_t exponent = top > down && top > 1 ? top - down : 0;
                            return std::bit_cast<float>((bits & 0x807fffffU) * (bits % 31 == 0 ? 0U : 1U) |
                                                        (bits % 31 == 0 ? 0U : exponent << 23U));
                        }));
                std::vector<const sparse_content*> senders;
                for (std::size_t i = 0; i < 211; ++i) senders.push_back(&contents[i % contents.size()]);
                compare(c, senders, false);
                compare(c, std::span(senders).first(2), false);
                std::vector<contribution_weight> weights;
                for (std::size_t i = 0; i < senders.size(); ++i) {
                    const bool clipped = random.below(2) == 0;
                    weights.push_back({.weight = 1 + static_cast<std::uint32_t>(random.below(10'000'000)),
                                       .factor = clipped ? 128 + static_cast<std::uint32_t>(random.below(128)) : 256,
                                       .shift = clipped ? static_cast<std::uint32_t>(random.below(40)) : 0});
                }
                weights[3] = {.weight = 5, .factor = 0, .shift = 255};
                compare(c, senders, false, weights);
                compare(c, std::span(senders).first(4), false, std::span(weights).first(4));
            }
}
