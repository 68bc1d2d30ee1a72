#include <thinwire/codec/payload_layout.hpp>
#include <thinwire/codec/value_codec.hpp>
#include <thinwire/core/random.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

using namespace thinwire;

namespace {

constexpr value_code every_code[] = {value_code::f32, value_code::sign, value_code::bf16, value_code::q4,
                                     value_code::q2};

std::vector<std::byte> encoded(const value_codec& codec, std::span<const float> values) {
    std::vector<std::byte> bytes((codec.bits(values.size()) + 7) / 8 + 8);
    bit_writer out(bytes);
    codec.encode(values, out);
    out.flush();
    REQUIRE_FALSE(out.failed());
    REQUIRE(out.position() == (codec.bits(values.size()) + 7) / 8);
    bytes.resize(out.position());
    return bytes;
}

/// The k largest of n numbers whose tails are those of e^-x (heavy) or of a normal distribution.
std::vector<float> largest_of(random_stream& random, std::size_t n, std::size_t k, bool heavy) {
    std::vector<float> all(n);
    for (float& value : all) {
        value = random.normal();
        if (heavy) value = value * std::abs(random.normal()) + 0.5F * value * value * value;
    }
    std::sort(all.begin(), all.end(), [](float a, float b) { return std::abs(a) > std::abs(b); });
    all.resize(k);
    return all;
}

double squared_error(std::span<const float> a, std::span<const float> b) {
    double sum = 0.0;
    for (std::size_t i = 0; i < a.size(); ++i)
        sum += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    return sum;
}

/// The least error that any real scale gives with these levels.
double least_error(std::span<const float> values, const std::vector<double>& levels) {
    double least = 1e300;
    for (double scale = 1e-3; scale < 10.0; scale *= 1.001) {
        double sum = 0.0;
        for (const float value : values) {
            double nearest = 1e300;
            for (const double level : levels)
                nearest = std::min(nearest, std::pow(std::abs(static_cast<double>(value)) - level * scale, 2));
            sum += nearest;
        }
        least = std::min(least, sum);
    }
    return least;
}

}  // namespace

TEST_CASE("value_codec: rounding is idempotent, and what it gives is what receivers decode") {
    random_stream random(11);
    for (const value_code code : every_code) {
        const value_codec& codec = codec_of(code);
        CHECK(codec.id() == code);
        CHECK(codec.name() == to_string(code));
        for (int turn = 0; turn < 2000; ++turn) {
            const int exponent = static_cast<int>(random.below(210)) - 115;
            std::vector<float> values(random.below(40));
            for (float& value : values)
                value = std::ldexp(random.normal() + 1e-6F, exponent - static_cast<int>(random.below(5)));
            std::vector<float> rounded = values;
            codec.round(rounded);
            std::vector<float> again = rounded;
            codec.round(again);
            REQUIRE(again == rounded);
            const auto bytes = encoded(codec, values);
            REQUIRE(bytes == encoded(codec, rounded));
            std::vector<float> decoded(values.size());
            bit_reader in(bytes);
            REQUIRE_FALSE(codec.decode(in, decoded).has_value());
            in.align();
            REQUIRE_FALSE(in.failed());
            REQUIRE(in.position() == bytes.size());
            REQUIRE(decoded == rounded);
            for (std::size_t i = 0; i < values.size(); ++i) REQUIRE((decoded[i] < 0.0F) == (values[i] < 0.0F));
        }
    }
}

TEST_CASE("value_codec: a decoder takes exactly what an encoder writes, whatever the bits") {
    random_stream random(12);
    for (const value_code code : every_code) {
        const value_codec& codec = codec_of(code);
        int accepted = 0;
        for (int turn = 0; turn < 20000; ++turn) {
            std::vector<float> values(1 + random.below(turn % 2 == 0 ? 3 : 20));
            std::vector<std::byte> bytes((codec.bits(values.size()) + 7) / 8);
            for (std::byte& b : bytes) b = static_cast<std::byte>(random.bits32() & 0xffU);
            bit_reader in(bytes);
            if (codec.decode(in, values)) continue;
            in.align();
            if (in.failed()) continue;
            ++accepted;
            for (const float value : values) REQUIRE(std::abs(value) <= 0x1p100F);
            REQUIRE(encoded(codec, values) == bytes);
        }
        CHECK(accepted > 100);
    }
}

TEST_CASE("value_codec: numbers that are not finite or absurd are refused") {
    for (const value_code code : {value_code::f32, value_code::bf16}) {
        for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
            const auto bytes = encoded(codec_of(code), std::vector<float>{1.0F, -bad});
            std::vector<float> values(2);
            bit_reader in(bytes);
            CHECK(codec_of(code).decode(in, values) == errc::not_finite);
        }
        const auto bytes = encoded(codec_of(code), std::vector<float>{0x1.1p100F});
        std::vector<float> values(1);
        bit_reader in(bytes);
        CHECK(codec_of(code).decode(in, values) == errc::out_of_range);
    }
    std::vector<std::byte> bytes = {std::byte{0xff}, std::byte{0xff}};
    std::vector<float> values(1);
    bit_reader in(bytes);
    CHECK(codec_of(value_code::q4).decode(in, values) == errc::out_of_range);
}

TEST_CASE("value_codec: bits a value") {
    CHECK(codec_of(value_code::f32).bits(32) == 1024);
    CHECK(codec_of(value_code::bf16).bits(32) == 512);
    CHECK(codec_of(value_code::sign).bits(32) == 32);
    CHECK(codec_of(value_code::q4).bits(32) == 12 + 128);
    CHECK(codec_of(value_code::q2).bits(32) == 12 + 64);
    CHECK(codec_of(value_code::q2).bits(0) == 0);
    CHECK_THROWS_AS(static_cast<void>(codec_of(static_cast<value_code>(200))), value_error);
}

TEST_CASE("value_codec: the scale is close to the best one") {
    random_stream random(13);
    for (const auto& one : {std::tuple{value_code::q4, std::vector<double>{16, 19, 23, 28, 33, 40, 48, 57}, 0.02},
                            std::tuple{value_code::q2, std::vector<double>{5, 7}, 0.06}}) {
        const auto& [found_code, levels, power] = one;
        const value_code code = found_code;
        for (const bool heavy : {false, true}) {
            for (const std::size_t k : {8U, 32U}) {
                double error = 0.0, least = 0.0, square = 0.0;
                for (int turn = 0; turn < 20; ++turn) {
                    const std::vector<float> values = largest_of(random, 1024, k, heavy);
                    std::vector<float> rounded = values;
                    codec_of(code).round(rounded);
                    error += squared_error(values, rounded);
                    least += least_error(values, levels);
                    square += squared_error(values, std::vector<float>(values.size()));
                }
                INFO(to_string(code), heavy ? " heavy" : " normal", " k ", k, " error ", error / square, " least ",
                     least / square);
                CHECK(error <= 1.15 * least);
                if (!heavy) CHECK(error <= power * square);
            }
        }
    }
}
