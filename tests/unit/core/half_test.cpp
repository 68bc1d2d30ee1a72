#include <thinwire/core/half.hpp>

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

using namespace thinwire;

TEST_CASE("float16: every value survives the way to float32 and back") {
    for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
        const float wide = from_float16(static_cast<std::uint16_t>(bits));
        if (std::isnan(wide)) {
            REQUIRE((bits & 0x7c00U) == 0x7c00U);
            REQUIRE(std::isnan(from_float16(to_float16(wide))));
        } else {
            REQUIRE(to_float16(wide) == bits);
        }
    }
}

TEST_CASE("float16: known values") {
    CHECK(from_float16(0x3c00) == 1.0F);
    CHECK(from_float16(0xc000) == -2.0F);
    CHECK(from_float16(0x7bff) == 65504.0F);
    CHECK(from_float16(0x0001) == 0x1p-24F);
    CHECK(from_float16(0x0400) == 0x1p-14F);
    CHECK(to_float16(65519.0F) == 0x7bff);
    CHECK(to_float16(65520.0F) == 0x7c00);
    CHECK(to_float16(-1e30F) == 0xfc00);
    CHECK(to_float16(0x1p-25F) == 0x0000);  // half of the smallest: ties to even
    CHECK(to_float16(0x1.8p-25F) == 0x0001);
    CHECK(to_float16(0x1.8p-24F) == 0x0002);
    CHECK(to_float16(1e-30F) == 0x0000);
    CHECK(to_float16(-0.0F) == 0x8000);
}

TEST_CASE("float16: rounds to the nearest, ties to even") {
    for (std::uint16_t bits = 0; bits < 0x7bff; ++bits) {
        const float low = from_float16(bits);
        const float high = from_float16(static_cast<std::uint16_t>(bits + 1));
        const float middle = (low + high) / 2;  // exact: float32 has 13 more bits
        const std::uint16_t even = bits % 2 == 0 ? bits : static_cast<std::uint16_t>(bits + 1);
        REQUIRE(to_float16(middle) == even);
        REQUIRE(to_float16(std::nextafter(middle, 0.0F)) == bits);
        REQUIRE(to_float16(std::nextafter(middle, 1e9F)) == bits + 1);
    }
}

TEST_CASE("bfloat16: every value survives, rounding is to nearest even") {
    for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
        const float wide = from_bfloat16(static_cast<std::uint16_t>(bits));
        if (std::isnan(wide))
            REQUIRE(std::isnan(from_bfloat16(to_bfloat16(wide))));
        else
            REQUIRE(to_bfloat16(wide) == bits);
    }
    CHECK(to_bfloat16(std::bit_cast<float>(0x3f808000U)) == 0x3f80);
    CHECK(to_bfloat16(std::bit_cast<float>(0x3f808001U)) == 0x3f81);
    CHECK(to_bfloat16(std::bit_cast<float>(0x3f818000U)) == 0x3f82);
    CHECK(to_bfloat16(std::numeric_limits<float>::max()) == 0x7f80);
    // A NaN whose payload lies in the bits that are dropped stays a NaN.
    CHECK(std::isnan(from_bfloat16(to_bfloat16(std::bit_cast<float>(0x7f800001U)))));
}
