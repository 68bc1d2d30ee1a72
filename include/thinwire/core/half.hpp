#ifndef THINWIRE_CORE_HALF_HPP
#define THINWIRE_CORE_HALF_HPP

#include <bit>
#include <cstdint>

namespace thinwire {

/// The float32 that a bfloat16 stands for: exact.
[[nodiscard]] constexpr float from_bfloat16(std::uint16_t bits) noexcept {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16U);
}

/// The nearest bfloat16, ties to even; beyond the largest one gives infinity, NaN stays NaN (quiet).
[[nodiscard]] constexpr std::uint16_t to_bfloat16(float value) noexcept {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if ((bits & 0x7fffffffU) > 0x7f800000U) return static_cast<std::uint16_t>((bits >> 16U) | 0x40U);
    return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16U) & 1U)) >> 16U);
}

/// The float32 that an IEEE binary16 stands for: exact.
[[nodiscard]] constexpr float from_float16(std::uint16_t bits) noexcept {
    const std::uint32_t sign = (bits & 0x8000U) << 16U;
    const std::uint32_t exponent = (bits >> 10U) & 0x1fU;
    const std::uint32_t fraction = bits & 0x3ffU;
    if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000U | (fraction << 13U));
    if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112U) << 23U) | (fraction << 13U));
    const float magnitude = static_cast<float>(fraction) * 0x1p-24F;  // zero or subnormal
    return sign != 0 ? -magnitude : magnitude;
}

/// The nearest IEEE binary16, ties to even; beyond the largest one gives infinity, NaN stays NaN (quiet).
[[nodiscard]] constexpr std::uint16_t to_float16(float value) noexcept {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    const auto sign = static_cast<std::uint16_t>((bits >> 16U) & 0x8000U);
    const std::uint32_t magnitude = bits & 0x7fffffffU;
    if (magnitude > 0x7f800000U) return static_cast<std::uint16_t>(sign | 0x7e00U);
    if (magnitude >= 0x477ff000U) return static_cast<std::uint16_t>(sign | 0x7c00U);
    const std::uint32_t exponent = magnitude >> 23U;
    // A normal result drops 13 bits of the fraction; a subnormal one drops more, its leading bit made explicit.
    std::uint32_t significand = magnitude - (112U << 23U);
    std::uint32_t drop = 13;
    if (exponent < 113) {
        if (exponent < 102) return sign;
        significand = (magnitude & 0x7fffffU) | 0x800000U;
        drop = 126U - exponent;
    }
    const std::uint32_t half = 1U << (drop - 1U);
    const std::uint32_t odd = (significand >> drop) & 1U;
    return static_cast<std::uint16_t>(sign | ((significand + half - 1U + odd) >> drop));
}

}  // namespace thinwire

#endif  // THINWIRE_CORE_HALF_HPP
