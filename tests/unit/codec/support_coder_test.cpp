#include <thinwire/codec/section_coder.hpp>
#include <thinwire/core/random.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

using namespace thinwire;

namespace {

payload_layout layout_of(std::uint64_t chunks, std::uint32_t size, std::uint32_t kept,
                         value_code code = value_code::sign) {
    return {.codec = &codec_of(code), .k = kept, .sections = {{.chunks = chunks, .chunk_size = size, .kept = kept}}};
}

/// How many positions a chunk sends.
enum class amount { all, some, none };
/// Where they are.
enum class place { anywhere, front, back };

sparse_content make(const payload_layout& layout, amount how_many, place where, std::uint64_t seed) {
    random_stream random(seed);
    sparse_content content;
    content.resize(layout);
    const payload_section& s = layout.sections[0];
    for (std::size_t chunk = 0; chunk < s.chunks; ++chunk) {
        const std::uint32_t count = how_many == amount::all    ? s.kept
                                    : how_many == amount::none ? 0
                                                               : static_cast<std::uint32_t>(random.below(s.kept + 1));
        content.counts[chunk] = count;
        const std::span<std::uint16_t> positions = std::span(content.positions).subspan(chunk * s.kept, count);
        for (std::uint32_t n = 0, p = 0; n < count; ++p) {
            const bool taken = where == place::anywhere ? random.below(s.chunk_size - p) < count - n
                               : where == place::front  ? true
                                                        : s.chunk_size - p == count - n;
            if (taken) positions[n++] = static_cast<std::uint16_t>(p);
        }
        for (float& value : std::span(content.values).subspan(chunk * s.kept, count))
            value = random.below(2) == 0 ? 1.0F : -1.0F;
    }
    return content;
}

std::vector<std::byte> encode_section(const payload_layout& layout, sparse_content& content) {
    std::vector<std::byte> bytes;
    section_coder(layout).encode(layout.sections[0], content.slice(layout.sections[0], 0, 0), bytes);
    return bytes;
}

std::optional<errc> decode(const payload_layout& layout, std::span<const std::byte> bytes, sparse_content& found) {
    found.resize(layout);
    return section_coder(layout).decode(bytes, layout.sections[0], found.slice(layout.sections[0], 0, 0));
}

bool same_places(const payload_layout& layout, const sparse_content& a, const sparse_content& b) {
    if (a.counts != b.counts) return false;
    const std::size_t kept = layout.sections[0].kept;
    for (std::size_t chunk = 0; chunk < a.counts.size(); ++chunk)
        for (std::size_t i = chunk * kept; i < chunk * kept + a.counts[chunk]; ++i)
            if (a.positions[i] != b.positions[i] || a.values[i] != b.values[i]) return false;
    return true;
}

void check_round_trip(std::uint32_t size, std::uint32_t kept, std::uint64_t seed) {
    CAPTURE(size);
    CAPTURE(kept);
    const std::uint64_t chunks = std::clamp<std::uint64_t>(3000 / kept, 1, 5);
    const payload_layout layout = layout_of(chunks, size, kept);
    for (const amount how_many : {amount::all, amount::some, amount::none})
        for (const place where : {place::anywhere, place::front, place::back}) {
            sparse_content content = make(layout, how_many, where, seed), found;
            const auto bytes = encode_section(layout, content);
            REQUIRE_FALSE(decode(layout, bytes, found).has_value());
            REQUIRE(same_places(layout, content, found));
            REQUIRE(encode_section(layout, found) == bytes);
        }
}

double log2_choose(double n, double k) {
    return (std::lgamma(n + 1) - std::lgamma(k + 1) - std::lgamma(n - k + 1)) / std::log(2.0);
}

}  // namespace

TEST_CASE("support coder: every number of positions in every small chunk") {
    for (std::uint32_t size = 1; size <= 40; ++size)
        for (std::uint32_t kept = 1; kept <= size; ++kept) check_round_trip(size, kept, size);
}

TEST_CASE("support coder: chunks of any size, from one position to all") {
    random_stream random(5);
    for (int i = 0; i < 150; ++i) {
        const auto size = static_cast<std::uint32_t>(41 + random.below(4096 - 40));
        const auto most = std::uint32_t{1} << random.below(13);
        check_round_trip(size, 1 + static_cast<std::uint32_t>(random.below(std::min(most, size))),
                         static_cast<std::uint64_t>(i));
    }
    for (const std::uint32_t size : {127U, 128U, 129U, 1024U, 1856U, 2520U, 4095U, 4096U})
        for (const std::uint32_t kept : {1U, 2U, 64U, 127U, 256U, 257U, size - 1, size})
            check_round_trip(size, std::min(kept, size), kept);
}

TEST_CASE("support coder: chunks of 65536 and just below, from one position to all") {
    for (const std::uint32_t size : {65535U, 65536U})
        for (const std::uint32_t kept : {1U, 2U, 3U, 64U, 65U, 512U, 5000U, 32768U, size - 1, size})
            check_round_trip(size, kept, kept);
}

TEST_CASE("support coder: many chunks, so that batches and coders are many") {
    for (const std::uint32_t kept : {1U, 3U, 32U, 700U}) {
        const payload_layout layout = layout_of(20000 / kept + 3, 4096, kept);
        sparse_content content = make(layout, amount::some, place::anywhere, 8), found;
        REQUIRE_FALSE(decode(layout, encode_section(layout, content), found).has_value());
        CHECK(same_places(layout, content, found));
    }
}

TEST_CASE("support coder: uniform positions cost at most 1.005 of log2 C(n, k) bits, signs included in neither") {
    struct sizes {
        std::uint32_t kept, chunks;
    };
    for (const sizes of : {sizes{2, 2048}, sizes{8, 512}, sizes{32, 144}, sizes{64, 144}, sizes{32, 72}}) {
        const std::uint32_t kept = of.kept, chunks = of.chunks;
        CAPTURE(kept);
        const payload_layout layout = layout_of(chunks, 4096, kept);
        sparse_content content = make(layout, amount::all, place::anywhere, 21);
        const double values = kept * chunks / 8.0;
        const double bits = 8.0 * (static_cast<double>(encode_section(layout, content).size()) - values);
        CHECK(bits <= 1.005 * chunks * log2_choose(4096, kept));
    }
}

TEST_CASE("support coder: sections of a few chunks cost at most 6 bytes more than log2 C(n, k) bits") {
    struct sizes {
        std::uint32_t size, kept;
    };
    for (const std::uint64_t chunks : {1U, 2U, 9U})
        for (const sizes of : {sizes{4096, 8}, sizes{4096, 32}, sizes{64, 8}, sizes{1856, 32}}) {
            const std::uint32_t size = of.size, kept = of.kept;
            const payload_layout layout = layout_of(chunks, size, kept);
            double most = 0.0, sum = 0.0;
            for (std::uint64_t seed = 0; seed < 50; ++seed) {
                sparse_content content = make(layout, amount::all, place::anywhere, seed);
                const auto values = static_cast<double>((kept * chunks + 7) / 8);
                const double over = static_cast<double>(encode_section(layout, content).size()) - values -
                                    static_cast<double>(chunks) * log2_choose(size, kept) / 8.0;
                most = std::max(most, over);
                sum += over;
            }
            CAPTURE(chunks);
            CAPTURE(size);
            CAPTURE(kept);
            CHECK(sum / 50.0 <= 6.0);
            CHECK(most <= 12.0);
        }
}

TEST_CASE("support coder: altered, cut and random bytes never do harm, and what is accepted is what is written") {
    random_stream random(77);
    for (const auto& [size, kept] :
         {std::pair{4096U, 8U}, {40U, 12U}, {3000U, 100U}, {65536U, 300U}, {8U, 3U}, {7U, 7U}, {1U, 1U}}) {
        const payload_layout layout = layout_of(7, size, kept);
        int accepted = 0;
        for (int i = 0; i < 400; ++i) {
            sparse_content content = make(layout, i % 2 == 0 ? amount::all : amount::some, place::anywhere,
                                          static_cast<std::uint64_t>(i)),
                           found;
            std::vector<std::byte> bytes = encode_section(layout, content);
            if (i % 4 == 0) bytes.resize(random.below(bytes.size() + 1));
            for (std::uint64_t n = 1 + random.below(4); n > 0 && !bytes.empty(); --n)
                bytes[random.below(bytes.size())] = static_cast<std::byte>(random.bits32() & 0xffU);
            if (decode(layout, bytes, found)) continue;
            ++accepted;
            for (std::size_t chunk = 0; chunk < 7; ++chunk)
                for (std::size_t at = chunk * kept; at < chunk * kept + found.counts[chunk]; ++at) {
                    REQUIRE(found.positions[at] < size);
                    REQUIRE((at == chunk * kept || found.positions[at - 1] < found.positions[at]));
                }
            REQUIRE(encode_section(layout, found) == bytes);
        }
        CHECK(accepted > 0);
    }
}

// Places that lie close together leave the windows of likely counts on every level: the most symbols and the most bits.
TEST_CASE("support coder: sections that nobody would guess need no more memory than there is from the start") {
    random_stream random(11);
    for (const std::uint32_t size : {65536U, 65535U, 32770U, 32769U, 4096U, 4095U, 1000U, 64U, 63U, 7U})
        for (const std::uint32_t wanted : {1U, 2U, 3U, 4U, 8U, 18U, 19U, 20U, 32U, 64U, 300U}) {
            const std::uint32_t kept = std::min(wanted, size);
            CAPTURE(size);
            CAPTURE(kept);
            const payload_layout layout = layout_of(150, size, kept);
            sparse_content content;
            content.resize(layout);
            for (const std::uint32_t wider : {0U, 1U, 3U, 30U}) {
                CAPTURE(wider);
                for (std::uint32_t chunk = 0; chunk < 150; ++chunk) {
                    const std::uint32_t count =
                        chunk % 3 == 0 ? 1 + static_cast<std::uint32_t>(random.below(kept)) : kept;
                    content.counts[chunk] = count;
                    const std::uint32_t block =
                        std::min(size, std::bit_ceil(count) << std::min<std::uint32_t>(wider, 16));
                    const auto base = static_cast<std::uint32_t>(
                        chunk % 2 == 0 ? random.below((size - block) / block + 1) * block : size - block);
                    std::uint16_t* to = content.positions.data() + chunk * kept;
                    for (std::uint32_t n = 0, p = 0; n < count; ++p)
                        if (random.below(block - p) < count - n) to[n++] = static_cast<std::uint16_t>(base + p);
                }
                std::fill(content.values.begin(), content.values.end(), 1.0F);
                section_coder coder(layout);
                std::vector<std::byte> bytes;
                bytes.reserve(room_of_section(layout.sections[0], *layout.codec));
                const std::size_t memory = coder.memory_bytes(), room = bytes.capacity();
                coder.encode(layout.sections[0], content.slice(layout.sections[0], 0, 0), bytes);
                CHECK(coder.memory_bytes() == memory);
                CHECK(bytes.capacity() == room);
            }
        }
}

TEST_CASE("support coder: what is reserved for a lower k is enough for it") {
    for (const std::uint32_t k : {1U, 2U, 5U, 40U}) {
        const payload_layout most = layout_of(3000, 64, 40), layout = layout_of(3000, 64, k);
        sparse_content content = make(layout, amount::all, place::anywhere, 3);
        section_coder coder(most);
        coder.reserve(most, k);
        const std::size_t memory = coder.memory_bytes();
        std::vector<std::byte> bytes;
        coder.encode(layout.sections[0], content.slice(layout.sections[0], 0, 0), bytes);
        CHECK(coder.memory_bytes() == memory);
    }
}
