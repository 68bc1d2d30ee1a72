#ifndef THINWIRE_BACKEND_CPU_DETAIL_TILE_COMMON_HPP
#define THINWIRE_BACKEND_CPU_DETAIL_TILE_COMMON_HPP

#include <thinwire/config.hpp>

#include <cstddef>

/// Full unrolling of short loops over register arrays: GCC keeps such arrays in memory without it.
#if defined(__clang__)
#define THINWIRE_UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#define THINWIRE_UNROLL _Pragma("GCC unroll 16")
#else
#define THINWIRE_UNROLL
#endif

namespace thinwire::cpu::detail {

/// Where a micro-kernel puts its product: rows at multiples of `stride`, written or added.
struct tile_target {
    float* data;
    std::size_t stride;
    bool accumulate;
};

/// Part of a tile that was computed into a buffer of `width` columns goes to where it belongs.
inline void put_partial(tile_target c, const float* from, std::size_t width, std::size_t rows,
                        std::size_t columns) noexcept {
    for (std::size_t i = 0; i < rows; ++i) {
        float* to = c.data + i * c.stride;
        for (std::size_t j = 0; j < columns; ++j) to[j] = (c.accumulate ? to[j] : 0.0F) + from[i * width + j];
    }
}

}  // namespace thinwire::cpu::detail

#endif  // THINWIRE_BACKEND_CPU_DETAIL_TILE_COMMON_HPP
