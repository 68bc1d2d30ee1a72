#ifndef THINWIRE_CODEC_DETAIL_SPLIT_TABLES_HPP
#define THINWIRE_CODEC_DETAIL_SPLIT_TABLES_HPP

#include <thinwire/codec/payload_layout.hpp>
#include <thinwire/config.hpp>
#include <thinwire/core/aligned.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace thinwire::detail {

inline constexpr unsigned split_bits = 15;

/// How many of the 16 numbers at `at` come before the first that is not below `limit` < 2^16.
[[nodiscard]] THINWIRE_ALWAYS_INLINE std::uint32_t leading_below(const std::uint16_t* at,
                                                                 std::uint32_t limit) noexcept {
#if defined(__SSE2__)
    const __m128i limits = _mm_set1_epi16(static_cast<short>(limit)), zero = _mm_setzero_si128();
    const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
    const __m128i high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at + 8));
    const __m128i low_reach = _mm_cmpeq_epi16(_mm_subs_epu16(limits, low), zero);
    const __m128i high_reach = _mm_cmpeq_epi16(_mm_subs_epu16(limits, high), zero);
    const auto reach = static_cast<unsigned>(_mm_movemask_epi8(_mm_packs_epi16(low_reach, high_reach)));
    return static_cast<std::uint32_t>(std::countr_zero(reach | 0x10000U));
#else
    std::uint32_t count = 0;
    while (count < 16 && at[count] < limit) ++count;
    return count;
#endif
}

/// How many of c chosen places lie in the lower part of a block, as cumulative frequencies that end at 2^15. Made by
/// integer arithmetic alone: every machine has the same.
struct split_table {
    const std::uint16_t* cumulative = nullptr;  ///< symbols + 1 entries, at least 17, filled up with 65535
    std::uint32_t low = 0;                      ///< the smallest count in the window
    std::uint32_t counts = 0;                   ///< how many counts the window holds
    std::uint32_t symbols = 0;                  ///< counts, and one more when a count outside the window can be: it
                                                ///< follows in 16 raw bits. With a single symbol nothing is coded

    /// The symbol whose frequencies hold `slot` < 2^15.
    [[nodiscard]] THINWIRE_ALWAYS_INLINE std::uint32_t find(std::uint32_t slot) const noexcept {
        return symbols <= 16 ? leading_below(cumulative + 1, slot + 1) : find_wide(slot);
    }

 private:
    [[nodiscard]] std::uint32_t find_wide(std::uint32_t slot) const noexcept {
        std::uint32_t symbol = 0;
        for (std::uint32_t step = std::bit_floor(symbols - 1); step > 0; step /= 2) {
            const std::uint32_t next = std::min(symbol + step, symbols - 1);
            symbol = cumulative[next] <= slot ? next : symbol;
        }
        return symbol;
    }
};

/// Appends the cumulative frequencies to `out`; the table's pointer is left to the caller. Weights start with 2^30 at
/// the mode and follow the exact ratio of neighbours, rounded down, while they are at least 2^14.
[[nodiscard]] inline split_table make_split(std::uint64_t size, std::uint64_t half, std::uint64_t c,
                                            std::vector<std::uint64_t>& weights, std::vector<std::uint16_t>& out) {
    const std::uint64_t rest = size - half;
    const std::uint64_t lowest = c > rest ? c - rest : 0, highest = std::min(half, c);
    const std::uint64_t mode = std::clamp((c + 1) * (half + 1) / (size + 2), lowest, highest);
    constexpr std::uint64_t top = std::uint64_t{1} << 30U, least = std::uint64_t{1} << 14U;
    weights.assign(1, top);
    std::uint64_t low = mode;
    for (std::uint64_t w = top; low > lowest; --low) {
        w = w * (low * (rest + low - c)) / ((half - low + 1) * (c - low + 1));
        if (w < least) break;
        weights.push_back(w);
    }
    std::reverse(weights.begin(), weights.end());
    std::uint64_t high = mode;
    for (std::uint64_t w = top; high < highest; ++high) {
        w = w * ((half - high) * (c - high)) / ((high + 1) * (rest + high + 1 - c));
        if (w < least) break;
        weights.push_back(w);
    }
    const bool escape = low > lowest || high < highest;
    const auto counts = static_cast<std::uint32_t>(weights.size()), symbols = counts + (escape ? 1U : 0U);
    std::uint64_t sum = 0;
    for (const std::uint64_t w : weights) sum += w;
    const std::uint64_t spread = (std::uint64_t{1} << split_bits) - symbols;
    std::uint64_t given = symbols;
    for (std::uint64_t& w : weights) {
        w = w * spread / sum;
        given += w;
    }
    weights[mode - low] += (std::uint64_t{1} << split_bits) - given;
    std::uint64_t at = 0;
    out.push_back(0);
    for (const std::uint64_t w : weights) out.push_back(static_cast<std::uint16_t>(at += w + 1));
    if (escape) out.push_back(static_cast<std::uint16_t>(at + 1));
    for (std::size_t i = symbols + 1; i < 17; ++i) out.push_back(0xffffU);
    return {.low = static_cast<std::uint32_t>(low), .counts = counts, .symbols = symbols};
}

/// The tables of all nodes with at most `cached` positions that the chunks of a layout have: blocks of 2^j positions
/// cut in halves, and for chunks whose size is no power of two the blocks at their ends.
class split_tables {
 public:
    static constexpr std::uint32_t cached = 256;

    explicit split_tables(const payload_layout& layout) {
        std::uint32_t most = 0;
        for (const payload_section& s : layout.sections) {
            const unsigned levels = static_cast<unsigned>(std::bit_width(s.chunk_size - 1));
            most = std::max(most, std::min(s.kept, cached));
            for (unsigned j = 4; j <= levels; ++j) add(std::uint32_t{1} << j, most);
            for (unsigned j = 1; j <= levels; ++j) {
                const std::uint32_t end = s.chunk_size & ((std::uint32_t{2} << (j - 1)) - 1);
                if (end > std::uint32_t{1} << (j - 1)) add(end, most);
            }
        }
        for (entry& e : entries_)
            for (std::size_t i = 0; i < e.tables.size(); ++i) e.tables[i].cumulative = numbers_.data() + e.begins[i];
    }
    split_tables(const split_tables&) = delete;
    split_tables& operator=(const split_tables&) = delete;

    /// The tables of blocks of this size for 1, 2, ... positions.
    [[nodiscard]] std::span<const split_table> of(std::uint32_t size) const noexcept {
        for (const entry& e : entries_)
            if (e.size == size) return e.tables;
        return {};
    }
    /// Where a block is cut: the largest power of two below its size.
    [[nodiscard]] static std::uint32_t half_of(std::uint32_t size) noexcept { return std::bit_floor(size - 1); }
    [[nodiscard]] std::size_t memory_bytes() const noexcept {
        std::size_t sum = bytes_held(entries_, numbers_, weights_);
        for (const entry& e : entries_) sum += bytes_held(e.tables, e.begins);
        return sum;
    }

 private:
    struct entry {
        std::uint32_t size;
        std::vector<split_table> tables;
        std::vector<std::size_t> begins;  ///< of their numbers
    };

    void add(std::uint32_t size, std::uint32_t most) {
        auto at = std::find_if(entries_.begin(), entries_.end(), [&](const entry& e) { return e.size == size; });
        if (at == entries_.end()) at = entries_.insert(entries_.end(), {size, {}, {}});
        for (std::uint32_t c = static_cast<std::uint32_t>(at->tables.size()) + 1; c <= std::min(most, size); ++c) {
            at->begins.push_back(numbers_.size());
            at->tables.push_back(make_split(size, half_of(size), c, weights_, numbers_));
        }
    }

    std::vector<entry> entries_;
    std::vector<std::uint16_t> numbers_;
    std::vector<std::uint64_t> weights_;
};

}  // namespace thinwire::detail

#endif  // THINWIRE_CODEC_DETAIL_SPLIT_TABLES_HPP
