#include <thinwire/codec/payload.hpp>
#include <thinwire/codec/payload_size.hpp>
#include <thinwire/codec/top_k.hpp>
#include <thinwire/core/random.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

using namespace thinwire;

namespace {

const payload_expectation expected = {.run = {}, .round = 7, .peer = 3};

payload_layout small_layout(value_code values) {
    return {.kind = payload_kind::demo,
            .codec = &codec_of(values),
            .k = 4,
            .chunk = 8,
            .fingerprint = 99,
            .sections = {{.chunks = 3, .chunk_size = 40, .kept = 4, .columns = 8},
                         {.chunks = 1, .chunk_size = 3, .kept = 3, .columns = 3},
                         {.chunks = 2, .chunk_size = 1, .kept = 1, .columns = 1}}};
}

constexpr value_code all_codes[] = {value_code::f32, value_code::sign, value_code::bf16, value_code::q4,
                                    value_code::q2};

/// Values as receivers would decode them.
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
                content.values[place + n++] = random.normal() + 1e-3F;
            }
            layout.codec->round(std::span(content.values).subspan(place, count));
        }
    }
    return content;
}

std::vector<std::byte> encode(const payload_layout& layout, sparse_content& content) {
    payload_writer out({.kind = layout.kind,
                        .values = layout.values(),
                        .round = 7,
                        .peer = 3,
                        .fingerprint = layout.fingerprint,
                        .k = layout.k,
                        .chunk = layout.chunk,
                        .learning_rate = 1e-3F,
                        .weight_decay = 0.1F,
                        .tokens = 4096},
                       layout.sections.size(), {});
    section_coder coder(layout);
    std::size_t place = 0, chunk = 0;
    for (const payload_section& s : layout.sections) {
        coder.encode(s, content.slice(s, place, chunk), out.begin_section());
        out.end_section();
        place += s.coefficients();
        chunk += s.chunks;
    }
    out.finish();
    return out.take();
}

result<ok> validate(std::span<const std::byte> bytes, const payload_layout& layout,
                    const payload_expectation& as = expected) {
    return payload_decoder(layout).validate(bytes, as);
}

result<payload_info> decode(std::span<const std::byte> bytes, const payload_layout& layout, sparse_content& content) {
    return payload_decoder(layout).decode(bytes, expected, content);
}

/// Positions, values and counts that are used.
bool same(const payload_layout& layout, const sparse_content& a, const sparse_content& b) {
    if (a.counts != b.counts) return false;
    std::size_t place = 0, chunk_number = 0;
    for (const payload_section& s : layout.sections)
        for (std::size_t chunk = 0; chunk < s.chunks; ++chunk, place += s.kept, ++chunk_number)
            for (std::size_t i = place; i < place + a.counts[chunk_number]; ++i)
                if (a.positions[i] != b.positions[i] || a.values[i] != b.values[i]) return false;
    return true;
}

/// Makes altered bytes pass the checksum, so that what lies behind it is tested too.
void seal(std::vector<std::byte>& bytes) {
    const std::uint64_t sum = checksum64(std::span(bytes).first(bytes.size() - 8));
    for (std::size_t i = 0; i < 8; ++i) bytes[bytes.size() - 8 + i] = static_cast<std::byte>((sum >> (8 * i)) & 0xffU);
}

errc refusal(const std::vector<std::byte>& bytes, const payload_layout& layout) {
    const auto found = validate(bytes, layout);
    REQUIRE_FALSE(found.has_value());
    CHECK(found.error().message.starts_with("payload: "));
    return found.error().code;
}

}  // namespace

TEST_CASE("payload: what is written is read") {
    for (const value_code values : all_codes) {
        const payload_layout layout = small_layout(values);
        for (const bool full : {true, false}) {
            if (!full && layout.codec->sends_zero()) continue;
            sparse_content content = some_content(layout, full), found;
            const auto bytes = encode(layout, content);
            const auto info = decode(bytes, layout, found);
            REQUIRE(info.has_value());
            CHECK(info->learning_rate == 1e-3F);
            CHECK(info->weight_decay == 0.1F);
            CHECK(info->tokens == 4096);
            CHECK(same(layout, found, content));
            std::vector<std::byte> again = encode(layout, found);
            CHECK(again == bytes);
        }
    }
}

TEST_CASE("payload: one that states a lower k is read into the places of the layout, and has the bytes of that k") {
    for (const value_code values : all_codes) {
        payload_layout layout = small_layout(values);
        layout.k = 70;  // batches of chunks are larger for a lower k than for this one
        layout.sections = {{.chunks = 5000, .chunk_size = 96, .kept = 70, .columns = 12},
                           {.chunks = 3, .chunk_size = 3, .kept = 3, .columns = 3},
                           {.chunks = 300, .chunk_size = 80, .kept = 70, .columns = 8}};
        payload_decoder reader(layout);
        section_coder coder(layout);
        for (const std::uint32_t k : {1U, 2U, 33U, 69U, 70U}) {
            CAPTURE(k);
            payload_layout lower = layout;
            lower.k = k;
            for (payload_section& s : lower.sections) s.kept = std::min(s.kept, k);
            sparse_content sent =
                some_content(lower, values == value_code::f32 || values == value_code::bf16 || k == 2);
            const auto bytes = encode(lower, sent);
            sparse_content found;
            const auto info = reader.decode(bytes, expected, found);
            REQUIRE(info.has_value());
            CHECK(info->k == k);
            payload_view view;
            REQUIRE(view.open(bytes, layout, expected).has_value());
            std::size_t at = 0, lower_at = 0, chunk = 0;
            for (std::size_t i = 0; i < layout.sections.size(); ++i) {
                const payload_section& s = layout.sections[i];
                const section_slice a = found.slice(s, at, chunk), b = sent.slice(lower.sections[i], lower_at, chunk);
                REQUIRE(std::ranges::equal(a.counts, b.counts));
                bool equal = true;
                for (std::size_t c = 0; c < s.chunks; ++c)
                    for (std::size_t n = 0; n < a.counts[c]; ++n)
                        equal = equal && a.positions[c * a.stride + n] == b.positions[c * b.stride + n] &&
                                a.values[c * a.stride + n] == b.values[c * b.stride + n];
                CHECK(equal);
                std::vector<std::byte> again;
                coder.encode(layout.section(i, k), a, again);
                REQUIRE(std::ranges::equal(again, view.section(i)));
                at += s.coefficients();
                lower_at += lower.sections[i].coefficients();
                chunk += s.chunks;
            }
        }
        for (const std::uint32_t k : {0U, 71U, 0xffffffffU}) {
            payload_layout other = layout;
            other.k = k;
            sparse_content none;
            none.resize(layout);
            CHECK(refusal(encode(other, none), layout) == errc::mismatch);
        }
    }
}

TEST_CASE("payload: the estimate is not below what is sent, and less than 2 % above it; largest_k turns it round") {
    for (const value_code values : all_codes) {
        payload_layout layout = small_layout(values);
        layout.k = 64;
        layout.sections = {{.chunks = 400, .chunk_size = 4096, .kept = 64, .columns = 64},
                           {.chunks = 12, .chunk_size = 64, .kept = 64, .columns = 64},
                           {.chunks = 90, .chunk_size = 1856, .kept = 64, .columns = 64},
                           {.chunks = 1, .chunk_size = 40, .kept = 40, .columns = 8},
                           {.chunks = 2, .chunk_size = 100, .kept = 64, .columns = 10}};
        for (const std::uint32_t k : {1U, 2U, 8U, 31U, 63U, 64U}) {
            CAPTURE(to_string(values));
            CAPTURE(k);
            payload_layout lower = layout;
            lower.k = k;
            for (std::size_t i = 0; i < layout.sections.size(); ++i) lower.sections[i] = layout.section(i, k);
            sparse_content content = some_content(lower, true);
            const std::size_t bytes = encode(lower, content).size();
            const std::uint64_t estimate = estimated_payload_bytes(layout, k);
            CHECK(estimate >= bytes);
            CHECK(static_cast<double>(estimate) < 1.02 * static_cast<double>(bytes) + 64);
            CHECK(largest_k(layout, estimate) == k);
            CHECK(largest_k(layout, estimate - 1) == k - 1);
        }
        CHECK(largest_k(layout, ~std::uint64_t{0}) == 64);
    }
}

TEST_CASE("payload: every truncation, every extension and every altered byte is refused") {
    for (const value_code values : all_codes) {
        const payload_layout layout = small_layout(values);
        sparse_content content = some_content(layout, layout.codec->sends_zero());
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
    for (const value_code values : all_codes) {
        const payload_layout layout = small_layout(values);
        sparse_content content = some_content(layout, layout.codec->sends_zero());
        const auto bytes = encode(layout, content);
        int accepted = 0;
        for (std::size_t at = 0; at + 8 < bytes.size(); ++at) {
            for (unsigned flip = 1; flip < 256; ++flip) {
                auto altered = bytes;
                altered[at] ^= static_cast<std::byte>(flip);
                seal(altered);
                sparse_content found;
                if (!decode(altered, layout, found)) continue;
                ++accepted;
                if (at >= detail::payload_header_bytes) REQUIRE(encode(layout, found) == altered);
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
                                              std::byte{2},   std::byte{0},   std::byte{0},   std::byte{0}};
        std::copy(front.begin(), front.end(), bytes.begin());
        for (std::size_t b = 116; b < 124; ++b) bytes[b] = std::byte{0};
        bytes[116] = std::byte{1};  // one section, of all that follows
        bytes[120] = static_cast<std::byte>((bytes.size() - 132) & 0xffU);
        bytes[121] = static_cast<std::byte>((bytes.size() - 132) >> 8U);
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
    CHECK(validate(bytes, layout, {.run = other_run, .round = 7, .peer = 3}).error().code == errc::mismatch);
    CHECK(validate(bytes, layout, {.run = {}, .round = 8, .peer = 3}).error().code == errc::mismatch);
    CHECK(validate(bytes, layout, {.run = {}, .round = 7, .peer = 4}).error().code == errc::mismatch);
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
}

TEST_CASE("payload: more tokens than the mean is proved for, and format 1, are refused") {
    const payload_layout layout = small_layout(value_code::sign);
    sparse_content content = some_content(layout, true);
    const auto bytes = encode(layout, content);
    const auto with_tokens = [&](std::uint32_t tokens) {
        auto altered = bytes;
        for (std::size_t i = 0; i < 4; ++i) altered[80 + i] = static_cast<std::byte>((tokens >> (8 * i)) & 0xffU);
        seal(altered);
        return altered;
    };
    for (const std::uint32_t tokens : {0U, 1U, most_tokens}) {
        sparse_content found;
        const auto info = decode(with_tokens(tokens), layout, found);
        REQUIRE(info.has_value());
        CHECK(info->tokens == tokens);
        CHECK(stated_tokens(with_tokens(tokens)) == tokens);
    }
    for (const std::uint32_t tokens : {most_tokens + 1, 0xffffffffU}) {
        CHECK(refusal(with_tokens(tokens), layout) == errc::out_of_range);
        CHECK(stated_tokens(with_tokens(tokens)) == 0);
    }
    const auto nine = with_tokens(9);
    for (const std::size_t size : {0U, 3U, 80U, 83U}) CHECK(stated_tokens(std::span(nine).first(size)) == 0);
    CHECK(stated_tokens(std::span(nine).first(84)) == 9);
    auto old = bytes;
    old[4] = std::byte{1};
    seal(old);
    CHECK(refusal(old, layout) == errc::bad_version);
    CHECK(validate(old, layout).error().message == "payload: format version 1, expected 2 (bad_version)");
}

TEST_CASE("payload: ranges of bytes leave as sections end, and sections may come from elsewhere") {
    const payload_layout layout = small_layout(value_code::q4);
    sparse_content content = some_content(layout, true);
    const auto whole = encode(layout, content);
    payload_writer out({.values = value_code::q4,
                        .round = 7,
                        .peer = 3,
                        .fingerprint = layout.fingerprint,
                        .k = layout.k,
                        .chunk = layout.chunk,
                        .learning_rate = 1e-3F,
                        .weight_decay = 0.1F,
                        .tokens = 4096},
                       layout.sections.size(), {});
    std::vector<std::byte> sent;
    const auto send = [&] {
        const auto range = out.unsent();
        CHECK_FALSE(range.empty());
        CHECK(out.unsent().empty());
        sent.insert(sent.end(), range.begin(), range.end());
    };
    send();
    CHECK(sent.size() == 120);
    section_coder coder(layout);
    std::size_t place = 0, chunk = 0;
    for (const payload_section& s : layout.sections) {
        std::vector<std::byte> elsewhere;
        coder.encode(s, content.slice(s, place, chunk), elsewhere);
        out.append_section(elsewhere);
        send();
        place += s.coefficients();
        chunk += s.chunks;
    }
    out.finish();
    send();
    CHECK(sent == whole);
    CHECK(out.take() == whole);
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

TEST_CASE("select_top_k: the largest magnitudes, ties to the lowest position, from all or from those above a floor") {
    random_stream random(4);
    for (const std::size_t n : {4096U, 2688U, 1024U, 48U}) {
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
            for (std::size_t i = 0; i < n; ++i)
                tops[i % tops.size()] =
                    std::max(tops[i % tops.size()], std::bit_cast<std::uint32_t>(stored[i]) & 0x7fffffffU);
            const auto position_of = [](std::size_t i) { return static_cast<std::uint32_t>(i); };
            std::vector<std::uint64_t> keys;
            std::vector<std::uint16_t> found(k);
            std::sort(tops.begin(), tops.end(), std::greater<>());
            for (const std::uint32_t floor : {tops[k - 1], 0U}) {
                std::vector<std::uint64_t> marks((n + 63) / 64);
                for (std::size_t i = 0; i < n; ++i)
                    if ((std::bit_cast<std::uint32_t>(stored[i]) & 0x7fffffffU) >= floor)
                        marks[i / 64] |= std::uint64_t{1} << i % 64;
                select_top_k(stored, marks, position_of, keys, found);
                CHECK(found == best);
            }
        }
    }
}
