#include <thinwire/core/random.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cmath>

using namespace thinwire;

TEST_CASE("philox: the known answers of its authors' Random123 library") {
    using words = std::array<std::uint32_t, 4>;
    CHECK(philox(0, 0, 0) == words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
    CHECK(philox(~0ULL, ~0ULL, ~0ULL) == words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
    CHECK(philox(0x299f31d0'a4093822ULL, 0x03707344'13198a2eULL, 0x85a308d3'243f6a88ULL) ==
          words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("random_stream: same key and stream, same numbers; another stream, others") {
    random_stream a(7, 1), b(7, 1), c(7, 2);
    bool differs = false;
    for (int i = 0; i < 100; ++i) {
        const std::uint64_t x = a.bits64();
        CHECK(x == b.bits64());
        differs = differs || x != c.bits64();
    }
    CHECK(differs);
}

TEST_CASE("random_stream: moments of uniform and normal") {
    random_stream r(11);
    const int n = 200'000;
    double uniform = 0, mean = 0, square = 0;
    for (int i = 0; i < n; ++i) {
        const float u = r.uniform();
        REQUIRE(u >= 0.0F);
        REQUIRE(u < 1.0F);
        uniform += static_cast<double>(u) / n;
        const double z = static_cast<double>(r.normal());
        mean += z / n;
        square += z * z / n;
    }
    // Five standard errors of each mean.
    CHECK(std::abs(uniform - 0.5) < 5 * 0.289 / std::sqrt(n));
    CHECK(std::abs(mean) < 5 / std::sqrt(n));
    CHECK(std::abs(square - 1) < 5 * 1.42 / std::sqrt(n));
}
