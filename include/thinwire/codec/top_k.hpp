#ifndef THINWIRE_CODEC_TOP_K_HPP
#define THINWIRE_CODEC_TOP_K_HPP

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

namespace thinwire {

/// How many interleaved groups to take the tops of, for n stored coefficients (a multiple of 16) of which k are kept: a
/// multiple of 16; n where each would have few elements.
[[nodiscard]] constexpr std::size_t top_k_groups(std::size_t n, std::size_t k) noexcept {
    std::size_t groups = 64;
    while (groups < 8 * k) groups *= 2;
    return 4 * groups <= n ? groups : n;
}

namespace detail {

/// Calls use(i) for every bit i % 64 that is set in words[i / 64], in rising order, and clears the words.
template <class Use>
void take_marks(std::span<std::uint64_t> words, const Use& use) {
    for (std::size_t first = 0; first < words.size(); first += 64) {
        const std::size_t end = std::min(words.size(), first + 64);
        std::uint64_t used = 0;  // most words are 0: a branch for each would be hard to guess
        for (std::size_t word = first; word < end; ++word) used |= std::uint64_t{words[word] != 0} << (word - first);
        for (; used != 0; used &= used - 1) {
            const std::size_t word = first + static_cast<std::size_t>(std::countr_zero(used));
            for (std::uint64_t left = std::exchange(words[word], 0); left != 0; left &= left - 1)
                use(64 * word + static_cast<std::size_t>(std::countr_zero(left)));
        }
    }
}

/// Leaves the k largest.
inline void keep_largest(std::vector<std::uint64_t>& keys, std::size_t k) {
    if (keys.size() > k + 16) {
        std::nth_element(keys.begin(), keys.begin() + static_cast<std::ptrdiff_t>(k), keys.end(), std::greater<>());
        keys.resize(k);
    }
    for (; keys.size() > k; keys.pop_back()) {
        std::uint64_t* least = keys.data();
        for (std::uint64_t& key : keys) least = key < *least ? &key : least;
        *least = keys.back();
    }
}

}  // namespace detail

/// Chooses the k positions of largest magnitude; ties go to the lowest position. Gives them in rising order.
///
/// `stored` holds coefficients in any order and may hold others that do not count: position_of(i) is the position of
/// stored[i], or at least 2^16. Bit i % 64 of marks[i / 64] tells whether stored[i] is looked at: at least k that count
/// are, and no other is larger or ties with one of the k. `marks` is used up; positions are below 64 * marks.size().
/// `keys` is working memory. Precondition: at least k coefficients count; k = positions.size().
template <class Position>
void select_top_k(std::span<const float> stored, std::span<std::uint64_t> marks, const Position& position_of,
                  std::vector<std::uint64_t>& keys, std::span<std::uint16_t> positions) {
    constexpr std::uint32_t none = 0x10000;
    keys.clear();
    detail::take_marks(marks, [&](std::size_t i) {
        const std::uint32_t position = position_of(i);
        if (position >= none) return;
        const std::uint32_t magnitude = std::bit_cast<std::uint32_t>(stored[i]) & 0x7fffffffU;
        keys.push_back((std::uint64_t{magnitude} << 32U) | (0xffffffffU - position));
    });
    detail::keep_largest(keys, positions.size());
    for (const std::uint64_t key : keys) {  // the marks sort them
        const std::uint32_t position = 0xffffffffU - static_cast<std::uint32_t>(key);
        marks[position / 64] |= std::uint64_t{1} << position % 64;
    }
    std::size_t at = 0;
    detail::take_marks(marks, [&](std::size_t position) { positions[at++] = static_cast<std::uint16_t>(position); });
}

}  // namespace thinwire

#endif  // THINWIRE_CODEC_TOP_K_HPP
