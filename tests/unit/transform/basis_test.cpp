#include <thinwire/core/random.hpp>
#include <thinwire/transform/basis.hpp>
#include <thinwire/transform/kernels.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

using namespace thinwire;

namespace {

/// How far a table is from orthonormal: the largest magnitude in table * transpose(table) - 1.
double distance_from_orthonormal(std::size_t side, const std::vector<std::int32_t>& table) {
    double worst = 0.0;
    for (std::size_t f = 0; f < side; ++f)
        for (std::size_t g = 0; g <= f; ++g) {
            std::int64_t sum = f == g ? -(std::int64_t{1} << 44U) : 0;
            for (std::size_t x = 0; x < side; ++x) sum += std::int64_t{table[f * side + x]} * table[g * side + x];
            worst = std::max(worst, std::abs(static_cast<double>(sum)) * 0x1p-44);
        }
    return worst;
}

std::vector<basis> built_in() {
    return {basis::dct(), basis::hadamard(), basis::random_orthogonal(7), basis::random_orthogonal(7, true),
            basis::identity()};
}

}  // namespace

TEST_CASE(
    "basis: every built-in table of every side up to 128, and 256, is orthonormal up to the rounding of its entries") {
    for (const basis& b : built_in()) {
        for (std::size_t side = 1; side <= 256; side = side == 128 ? 256 : side + 1) {
            INFO(to_string(b.kind()), " ", side);
            const double distance = distance_from_orthonormal(side, b.table(side, {.round = 3, .tensor = 1}));
            // Two rows whose entries are each off by at most half of 2^-22.
            REQUIRE(distance < std::sqrt(static_cast<double>(side)) * 0x1.01p-22);
            if (b.kind() == basis_kind::random_orthogonal) REQUIRE(distance < 0x1p-20);
        }
    }
}

TEST_CASE("basis: Hadamard of a power of two is plus and minus one, its rows in order of frequency") {
    const std::vector<std::int32_t> table = basis::hadamard().table(64);
    int before = -1;
    for (const std::size_t f : {0U, 1U, 2U, 4U, 8U, 16U, 32U}) {  // twice the sign changes in every octave
        int changes = 0;
        for (std::size_t x = 0; x < 64; ++x) {
            REQUIRE(std::abs(table[f * 64 + x]) == 1 << 19);
            if (x > 0 && table[f * 64 + x] != table[f * 64 + x - 1]) ++changes;
        }
        CHECK(changes > before);
        before = changes;
    }
    CHECK(basis::hadamard().table(29) == basis::dct().table(29));
    CHECK(basis::hadamard().table(2) == basis::dct().table(2));
}

TEST_CASE("basis: random orthogonal matrices differ by seed, side, round, tensor and axis, and are reproducible") {
    const basis fixed = basis::random_orthogonal(1), fresh = basis::random_orthogonal(1, true);
    CHECK(fixed.table(16) == basis::random_orthogonal(1).table(16));
    CHECK(fixed.table(16) != basis::random_orthogonal(2).table(16));
    CHECK(fixed.table(16, {.round = 5, .tensor = 2, .axis = 1}) == fixed.table(16));
    const auto one = fresh.table(16, {.round = 5, .tensor = 2, .axis = 1});
    CHECK(one == fresh.table(16, {.round = 5, .tensor = 2, .axis = 1}));
    CHECK(one != fresh.table(16, {.round = 6, .tensor = 2, .axis = 1}));
    CHECK(one != fresh.table(16, {.round = 5, .tensor = 3, .axis = 1}));
    CHECK(one != fresh.table(16, {.round = 5, .tensor = 2, .axis = 0}));
}

TEST_CASE("basis: entries of random orthogonal matrices are spread as those of the uniform distribution") {
    // An entry of a uniform matrix of side n has mean 0, variance 1/n and fourth moment 3 / (n (n + 2)).
    constexpr std::size_t side = 16;
    constexpr int draws = 400;
    double mean = 0.0, square = 0.0, fourth = 0.0, corner = 0.0;
    for (int i = 0; i < draws; ++i) {
        const auto table = basis::random_orthogonal(static_cast<std::uint64_t>(i)).table(side);
        for (const std::int32_t entry : table) {
            const double x = entry * 0x1p-22;
            mean += x, square += x * x, fourth += x * x * x * x;
        }
        const double last = table[side * side - 1] * 0x1p-22;
        corner += last * last;
    }
    constexpr double count = draws * side * side;
    CHECK(std::abs(mean / count) < 0.003);
    CHECK(std::abs(square / count * side - 1.0) < 1e-4);
    CHECK(std::abs(fourth / count * side * (side + 2) / 3.0 - 1.0) < 0.03);
    CHECK(std::abs(corner / draws * side - 1.0) < 0.3);
}

TEST_CASE("basis: a custom table is checked") {
    const basis mirrored = basis::custom([](std::size_t side, std::span<std::int32_t> table) {
        const auto dct = basis::dct().table(side);
        for (std::size_t f = 0; f < side; ++f)
            for (std::size_t x = 0; x < side; ++x) table[f * side + x] = dct[f * side + (side - 1 - x)];
    });
    CHECK(mirrored.kind() == basis_kind::custom);
    CHECK(mirrored.table(12)[0] == basis::dct().table(12)[11]);
    const auto message = [](const basis_function& fill) {
        try {
            static_cast<void>(basis::custom(fill).table(2));
        } catch (const value_error& e) {
            return std::string(e.what());
        }
        return std::string("none");
    };
    CHECK(message([](std::size_t, std::span<std::int32_t> t) { t[0] = t[1] = t[3] = 1 << 22; }).find("rows 0 and 0") !=
          std::string::npos);
    CHECK(message([](std::size_t, std::span<std::int32_t> t) { t[0] = t[2] = 1 << 22; }).find("rows 0 and 1") !=
          std::string::npos);
    CHECK(message([](std::size_t, std::span<std::int32_t> t) { t[0] = t[3] = (1 << 22) + 1; }).find("2^22") !=
          std::string::npos);
    CHECK_THROWS_AS(static_cast<void>(basis::custom({})), value_error);
    CHECK_THROWS_AS(static_cast<void>(basis::dct().table(0)), value_error);
    CHECK_THROWS_AS(static_cast<void>(basis::dct().table(257)), value_error);
}
