#include <thinwire/core/permutation.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <cstdlib>
#include <limits>
#include <set>
#include <vector>

using thinwire::permutation;

TEST_CASE("permutation: every element goes to a place of its own, for every small size") {
    for (std::uint64_t size = 1; size <= 300; ++size) {
        CAPTURE(size);
        const permutation order(size, 0x1234567890abcdefULL + size);
        std::vector<int> hit(size, 0);
        for (std::uint64_t i = 0; i < size; ++i) {
            const std::uint64_t place = order(i);
            REQUIRE(place < size);
            ++hit[place];
        }
        for (const int times : hit) REQUIRE(times == 1);
    }
}

TEST_CASE("permutation: larger sizes around powers of two stay one to one") {
    for (const std::uint64_t size : {4095ULL, 4096ULL, 4097ULL, 65537ULL}) {
        const permutation order(size, 7);
        std::vector<bool> hit(size, false);
        for (std::uint64_t i = 0; i < size; ++i) {
            const std::uint64_t place = order(i);
            REQUIRE(place < size);
            REQUIRE_FALSE(hit[place]);
            hit[place] = true;
        }
    }
}

TEST_CASE("permutation: the same key gives the same order, another key another one") {
    const permutation a(1000, 1);
    const permutation b(1000, 1);
    const permutation c(1000, 2);
    int equal = 0;
    for (std::uint64_t i = 0; i < 1000; ++i) {
        CHECK(a(i) == b(i));
        equal += a(i) == c(i) ? 1 : 0;
    }
    CHECK(equal < 10);  // 1 is expected of two random orders
}

TEST_CASE("permutation: the order looks random") {
    constexpr std::uint64_t size = 10000;
    const permutation order(size, 99);
    double moved = 0.0;
    int ascents = 0;
    for (std::uint64_t i = 0; i < size; ++i) {
        moved += std::abs(static_cast<double>(order(i)) - static_cast<double>(i)) / static_cast<double>(size);
        if (i + 1 < size) ascents += order(i) < order(i + 1) ? 1 : 0;
    }
    // A random order moves by a third of the size on average and ascends half of the time; bounds of five sigma.
    CHECK(moved / static_cast<double>(size) == doctest::Approx(1.0 / 3.0).epsilon(0.04));
    CHECK(ascents > 5000 - 145);
    CHECK(ascents < 5000 + 145);
}

TEST_CASE("permutation: the largest size works and sizes outside are refused") {
    const permutation order(std::uint64_t{1} << 62U, 3);
    std::set<std::uint64_t> places;
    for (std::uint64_t i = 0; i < 1000; ++i) {
        places.insert(order(i));
        CHECK(order(i) < order.size());
    }
    CHECK(places.size() == 1000);
    CHECK_THROWS_WITH_AS(permutation(0, 1), "permutation: size 0, expected 1..2^62", thinwire::value_error);
    CHECK_THROWS_AS(permutation(std::numeric_limits<std::uint64_t>::max(), 1), thinwire::value_error);
}
