#ifndef THINWIRE_CODEC_TOP_K_HPP
#define THINWIRE_CODEC_TOP_K_HPP

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace thinwire {

/// How many interleaved groups to take the tops of, for n stored coefficients of which k are kept: 0 where the
/// short cut of select_top_k() would not pay. A multiple of 16 that divides n when n is a power of two times 16.
[[nodiscard]] constexpr std::size_t top_k_groups(std::size_t n, std::size_t k) noexcept {
    std::size_t groups = 64;
    while (groups < 8 * k) groups *= 2;
    return 4 * groups <= n && n % groups == 0 ? groups : 0;
}

/// Chooses the k positions of largest magnitude; ties go to the lowest position. Gives them in rising order.
///
/// `stored` holds coefficients in any order and may hold others that do not count: position_of(i) is the position of
/// stored[i], or at least 2^16. When `tops` is not empty, tops[g] is the largest magnitude (as bits) among
/// stored[g], stored[g + tops.size()], ..., and at least k tops reach `floor`, so nothing below that is looked at.
/// `keys` is working memory. Precondition: at least k coefficients count; k = positions.size().
template <class Position>
void select_top_k(std::span<const float> stored, std::span<const std::uint32_t> tops, std::uint32_t floor,
                  const Position& position_of, std::vector<std::uint64_t>& keys, std::span<std::uint16_t> positions) {
    constexpr std::uint32_t none = 0x10000;
    const std::size_t k = positions.size();
    keys.clear();
    const auto offer = [&](std::size_t i, std::uint32_t least) {
        const std::uint32_t magnitude = std::bit_cast<std::uint32_t>(stored[i]) & 0x7fffffffU;
        if (magnitude < least) return;
        const std::uint32_t position = position_of(i);
        if (position < none) keys.push_back((std::uint64_t{magnitude} << 32U) | (0xffffffffU - position));
    };
    if (floor > 0 && !tops.empty()) {
        for (std::size_t g = 0; g < tops.size(); ++g)
            if (tops[g] >= floor)
                for (std::size_t i = g; i < stored.size(); i += tops.size()) offer(i, floor);
    } else {
        for (std::size_t i = 0; i < stored.size(); ++i) offer(i, 0);
    }
    if (keys.size() > k)
        std::nth_element(keys.begin(), keys.begin() + static_cast<std::ptrdiff_t>(k), keys.end(), std::greater<>());
    for (std::size_t i = 0; i < k; ++i)
        positions[i] = static_cast<std::uint16_t>(0xffffffffU - static_cast<std::uint32_t>(keys[i]));
    std::sort(positions.begin(), positions.end());
}

}  // namespace thinwire

#endif  // THINWIRE_CODEC_TOP_K_HPP
