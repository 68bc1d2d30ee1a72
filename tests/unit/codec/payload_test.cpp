#include <thinwire/codec/payload.hpp>
#include <thinwire/codec/top_k.hpp>
#include <thinwire/core/random.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

using namespace thinwire;

namespace {

const payload_expectation expected = {.run = {}, .round = 7, .peer = 3};

payload_layout small_layout(value_code values) {
    return {.kind = payload_kind::demo,
            .values = values,
            .k = 4,
            .chunk = 8,
            .fingerprint = 99,
            .sections = {{.chunks = 3, .chunk_size = 40, .kept = 4},
                         {.chunks = 1, .chunk_size = 3, .kept = 3},
                         {.chunks = 2, .chunk_size = 1, .kept = 1}}};
}

sparse_content some_content(const payload_layout& layout, bool full) {
    random_stream random(3);
    sparse_content content;
    content.resize(layout);
    std::size_t place = 0, chunk_number = 0;
    for (const payload_section& s : layout.sections) {
        for (std::size_t chunk = 0; chunk < s.chunks; ++chunk, place += s.kept) {
            const std::uint32_t count = full ? s.kept : static_cast<std::uint32_t>(random.below(s.kept + 1));
            content.counts[chunk_number++] = count;
            for (std::uint32_t p = 0, n = 0; n < count; ++p) {
                if (random.below(s.chunk_size - p) >= count - n) continue;
                content.positions[place + n] = static_cast<std::uint16_t>(p);
                content.values[place + n++] =
                    layout.values == value_code::sign ? (random.below(2) == 0 ? 1.0F : -1.0F) : random.normal();
            }
        }
    }
    return content;
}

std::vector<std::byte> encode(const payload_layout& layout, sparse_content& content) {
    payload_writer out({.kind = layout.kind,
                        .values = layout.values,
                        .round = 7,
                        .peer = 3,
                        .fingerprint = layout.fingerprint,
                        .k = layout.k,
                        .chunk = layout.chunk,
                        .learning_rate = 1e-3F,
                        .weight_decay = 0.1F},
                       layout.sections.size(), {});
    std::size_t place = 0, chunk = 0;
    for (const payload_section& s : layout.sections) {
        encode_section(s, layout.values,
                       {.positions = std::span(content.positions).subspan(place, s.coefficients()),
                        .values = std::span(content.values).subspan(place, s.coefficients()),
                        .counts = std::span(content.counts).subspan(chunk, s.chunks)},
                       out.bytes());
        out.end_section();
        place += s.coefficients();
        chunk += s.chunks;
    }
    return out.finish();
}

/// Makes altered bytes pass the checksum, so that what lies behind it is tested too.
void seal(std::vector<std::byte>& bytes) {
    const std::uint64_t sum = checksum64(std::span(bytes).first(bytes.size() - 8));
    for (std::size_t i = 0; i < 8; ++i) bytes[bytes.size() - 8 + i] = static_cast<std::byte>((sum >> (8 * i)) & 0xffU);
}

errc refusal(const std::vector<std::byte>& bytes, const payload_layout& layout) {
    const auto found = validate_payload(bytes, layout, expected);
    REQUIRE_FALSE(found.has_value());
    CHECK(found.error().message.starts_with("payload: "));
    return found.error().code;
}

}  // namespace

TEST_CASE("payload: what is written is read") {
    for (const value_code values : {value_code::f32, value_code::sign}) {
        const payload_layout layout = small_layout(values);
        for (const bool full : {true, false}) {
            if (!full && values == value_code::f32) continue;
            sparse_content content = some_content(layout, full), found;
            const auto bytes = encode(layout, content);
            const auto info = decode_payload(bytes, layout, expected, found);
            REQUIRE(info.has_value());
            CHECK(info->learning_rate == 1e-3F);
            CHECK(info->weight_decay == 0.1F);
            CHECK(found.counts == content.counts);
            std::vector<std::byte> again = encode(layout, found);
            CHECK(again == bytes);
        }
    }
}

TEST_CASE("payload: positions take 12 bits and signs one") {
    const payload_layout layout = {.values = value_code::sign,
                                   .k = 32,
                                   .chunk = 64,
                                   .sections = {{.chunks = 100, .chunk_size = 4096, .kept = 32}}};
    sparse_content content = some_content(layout, true);
    CHECK(encode(layout, content).size() == 128 + 4 + 1 + 100 * 32 * 13 / 8 + 8);
}

TEST_CASE("payload: every truncation, every extension and every altered byte is refused") {
    for (const value_code values : {value_code::f32, value_code::sign}) {
        const payload_layout layout = small_layout(values);
        sparse_content content = some_content(layout, values == value_code::f32);
        const auto bytes = encode(layout, content);
        for (std::size_t length = 0; length < bytes.size(); ++length)
            refusal({bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(length)}, layout);
        auto longer = bytes;
        longer.push_back(std::byte{0});
        CHECK(refusal(longer, layout) == errc::trailing);
        for (std::size_t at = 0; at < bytes.size(); ++at) {
            for (const unsigned flip : {1U, 0x80U, 0xffU}) {
                auto altered = bytes;
                altered[at] ^= static_cast<std::byte>(flip);
                refusal(altered, layout);
            }
        }
    }
}

TEST_CASE("payload: behind a good checksum, only what the encoder writes is accepted") {
    for (const value_code values : {value_code::f32, value_code::sign}) {
        const payload_layout layout = small_layout(values);
        sparse_content content = some_content(layout, values == value_code::f32);
        const auto bytes = encode(layout, content);
        int accepted = 0;
        for (std::size_t at = 0; at + 8 < bytes.size(); ++at) {
            for (unsigned flip = 1; flip < 256; ++flip) {
                auto altered = bytes;
                altered[at] ^= static_cast<std::byte>(flip);
                seal(altered);
                sparse_content found;
                if (!decode_payload(altered, layout, expected, found)) continue;
                ++accepted;
                if (at >= 128 + 4 * layout.sections.size()) REQUIRE(encode(layout, found).size() == altered.size());
                for (const float v : found.values) REQUIRE(std::abs(v) <= 0x1p100F);
            }
        }
        CHECK(accepted > 0);
    }
}

TEST_CASE("payload: random bytes are refused") {
    const payload_layout layout = small_layout(value_code::f32);
    random_stream random(17);
    for (int i = 0; i < 2000; ++i) {
        std::vector<std::byte> bytes(random.below(400));
        for (std::byte& b : bytes) b = static_cast<std::byte>(random.bits32() & 0xffU);
        refusal(bytes, layout);
        if (bytes.size() < 160) continue;
        const std::vector<std::byte> front = {std::byte{'T'}, std::byte{'W'}, std::byte{'P'}, std::byte{'L'},
                                              std::byte{1},   std::byte{0},   std::byte{0},   std::byte{0}};
        std::copy(front.begin(), front.end(), bytes.begin());
        for (std::size_t b = 0; b < 8; ++b) bytes[8 + b] = static_cast<std::byte>((bytes.size() >> (8 * b)) & 0xffU);
        seal(bytes);
        refusal(bytes, layout);
    }
}

TEST_CASE("payload: other run, round, peer, tensors; numbers that are not finite or absurd") {
    const payload_layout layout = small_layout(value_code::f32);
    sparse_content content = some_content(layout, true);
    const auto bytes = encode(layout, content);
    digest other_run;
    other_run.bytes[0] = std::byte{1};
    CHECK(validate_payload(bytes, layout, {.run = other_run, .round = 7, .peer = 3}).error().code == errc::mismatch);
    CHECK(validate_payload(bytes, layout, {.run = {}, .round = 8, .peer = 3}).error().code == errc::mismatch);
    CHECK(validate_payload(bytes, layout, {.run = {}, .round = 7, .peer = 4}).error().code == errc::mismatch);
    payload_layout other = layout;
    other.fingerprint = 1;
    CHECK(refusal(bytes, other) == errc::mismatch);
    for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
        content.values[5] = bad;
        CHECK(refusal(encode(layout, content), layout) == errc::not_finite);
    }
    content.values[5] = 1e38F;
    CHECK(refusal(encode(layout, content), layout) == errc::out_of_range);
    content.values[5] = 1.0F;
    std::swap(content.positions[0], content.positions[1]);
    CHECK(refusal(encode(layout, content), layout) == errc::out_of_range);
    content.positions[0] = content.positions[1];
    CHECK(refusal(encode(layout, content), layout) == errc::out_of_range);
}

TEST_CASE("checksum64: any single changed byte changes it, and so does the length") {
    std::vector<std::byte> bytes(100);
    const std::uint64_t base = checksum64(bytes);
    for (std::size_t at = 0; at < bytes.size(); ++at) {
        auto changed = bytes;
        changed[at] = std::byte{1};
        CHECK(checksum64(changed) != base);
        CHECK(checksum64(std::span(bytes).first(at)) != base);
    }
}

TEST_CASE("select_top_k: the largest magnitudes, ties to the lowest position, with and without group tops") {
    random_stream random(4);
    for (const std::size_t n : {4096U, 1024U, 48U}) {
        for (const std::size_t k : {1U, 2U, 8U, 32U}) {
            std::vector<float> stored(n);
            for (float& value : stored)
                value = static_cast<float>(static_cast<int>(random.below(200)) - 100);  // many ties
            std::vector<std::uint16_t> order(n);
            for (std::size_t i = 0; i < n; ++i) order[i] = static_cast<std::uint16_t>(i);
            std::stable_sort(order.begin(), order.end(),
                             [&](auto a, auto b) { return std::abs(stored[a]) > std::abs(stored[b]); });
            std::vector<std::uint16_t> best(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(k));
            std::sort(best.begin(), best.end());
            std::vector<std::uint32_t> tops(top_k_groups(n, k));
            for (std::size_t i = 0; i < n && !tops.empty(); ++i) {
                std::uint32_t bits = 0;
                std::memcpy(&bits, &stored[i], 4);
                tops[i % tops.size()] = std::max(tops[i % tops.size()], bits & 0x7fffffffU);
            }
            const auto position_of = [](std::size_t i) { return static_cast<std::uint32_t>(i); };
            std::vector<std::uint64_t> keys;
            std::vector<std::uint16_t> found(k);
            std::vector<std::uint32_t> sorted = tops;
            std::sort(sorted.begin(), sorted.end(), std::greater<>());
            const std::uint32_t floor = tops.empty() ? 0 : sorted[k - 1];
            select_top_k(stored, tops, floor, position_of, keys, found);
            CHECK(found == best);
            select_top_k(stored, {}, 0, position_of, keys, found);
            CHECK(found == best);
        }
    }
}
