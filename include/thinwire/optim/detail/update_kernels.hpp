#ifndef THINWIRE_OPTIM_DETAIL_UPDATE_KERNELS_HPP
#define THINWIRE_OPTIM_DETAIL_UPDATE_KERNELS_HPP

#include <thinwire/transform/detail/element_kernels.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace thinwire::detail {

/// A number that the compiler may not fold into the operation that uses it.
[[nodiscard]] inline double settled(double value) noexcept {
    keep(&value);
    return value;
}

/// As float32, what would be subnormal as 0.
[[nodiscard]] inline float normal_or_zero(double value) noexcept {
    const auto narrow = static_cast<float>(value);
    return (std::bit_cast<std::uint32_t>(narrow) & 0x7fffffffU) > 0x00800000U ? narrow : 0.0F;
}

/// 2^exponent. Precondition: -126 <= exponent <= 127.
[[nodiscard]] constexpr float power_of_two(int exponent) noexcept {
    return std::bit_cast<float>(static_cast<std::uint32_t>(exponent + 127) << 23U);
}

/// A block of floats. Each function does one IEEE operation an element and ends with a barrier, so that neither
/// contraction nor -ffast-math changes a bit; what hardware may flush to zero is zero already.
struct float_block {
    static constexpr std::size_t width = 64;
    using row = float[width];
    using lanes = vector_of<float, 4>::type;

    static void load(row& a, const float* from, std::size_t count) noexcept {
        std::memset(a, 0, sizeof a);
        std::memcpy(a, from, count * sizeof(float));
        flush_tiny<4>(a, width);
        keep(a);
    }
    static void scale(row& a, float factor) noexcept {
        for (std::size_t i = 0; i < width; i += 4) *reinterpret_cast<lanes*>(a + i) *= factor;
        keep(a);
        flush_tiny<4>(a, width);
        keep(a);
    }
    static void subtract(row& a, const row& b) noexcept {
        for (std::size_t i = 0; i < width; i += 4)
            *reinterpret_cast<lanes*>(a + i) -= *reinterpret_cast<const lanes*>(b + i);
        keep(a);
        flush_tiny<4>(a, width);
        keep(a);
    }
};

/// out = d * 2^exponent: the decoded mean of a chunk's row in true units. d are integers up to 2^53 in magnitude, as
/// floats; exponent in -169..57. Exact but for results below 2^-126, which become 0.
inline void scale_decoded(const float* d, float* out, std::size_t n, int exponent) noexcept {
    alignas(64) float_block::row block;
    for (std::size_t at = 0; at < n; at += float_block::width) {
        const std::size_t count = std::min(float_block::width, n - at);
        float_block::load(block, d + at, count);
        float_block::scale(block, power_of_two(-60));
        float_block::scale(block, power_of_two(exponent + 60));
        std::memcpy(out + at, block, count * sizeof(float));
    }
}

/// x <- factor * x - rate * d. `factor` 1 skips the product.
inline void apply_direction(float* x, const float* d, std::size_t n, float rate, float factor) noexcept {
    alignas(64) float_block::row value, step;
    const bool decay = std::bit_cast<std::uint32_t>(factor) != 0x3f800000U;
    for (std::size_t at = 0; at < n; at += float_block::width) {
        const std::size_t count = std::min(float_block::width, n - at);
        float_block::load(value, x + at, count);
        if (decay) float_block::scale(value, factor);
        float_block::load(step, d + at, count);
        float_block::scale(step, rate);
        float_block::subtract(value, step);
        std::memcpy(x + at, value, count * sizeof(float));
    }
}

}  // namespace thinwire::detail

#endif  // THINWIRE_OPTIM_DETAIL_UPDATE_KERNELS_HPP
