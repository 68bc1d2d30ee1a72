#ifndef THINWIRE_OPTIM_DETAIL_FIXED_POINT_HPP
#define THINWIRE_OPTIM_DETAIL_FIXED_POINT_HPP

#include <thinwire/config.hpp>

#include <cstdint>

namespace thinwire::detail {

/// A float32, by its bits, as the integer round(m / 2^(2 + top - e)) with its 24-bit mantissa m and exponent field e <=
/// top: at most 2^22 in magnitude. See exact_mean.hpp. The host and every device compute the mean from these two.
[[nodiscard]] THINWIRE_HOST_DEVICE constexpr std::int64_t fixed_of_bits(std::uint32_t bits,
                                                                        std::uint32_t top) noexcept {
    const std::uint32_t field = (bits >> 23U) & 0xffU;
    const std::uint64_t mantissa = (bits & 0x7fffffU) | (field == 0 ? 0U : 0x800000U);
    const std::uint32_t shift = 2 + top - (field == 0 ? 1U : field);
    if (shift > 25) return 0;
    const auto size = static_cast<std::int64_t>((mantissa + (std::uint64_t{1} << (shift - 1))) >> shift);
    return (bits >> 31U) != 0 ? -size : size;
}

/// sum / n, rounded half away from zero. Precondition: n >= 1.
[[nodiscard]] THINWIRE_HOST_DEVICE constexpr std::int64_t rounded_mean(std::int64_t sum, std::int64_t n) noexcept {
    if (n == 1) return sum;
    const std::int64_t size = sum < 0 ? -sum : sum;
    const std::int64_t rounded = (2 * size + n) / (2 * n);
    return sum < 0 ? -rounded : rounded;
}

}  // namespace thinwire::detail

#endif  // THINWIRE_OPTIM_DETAIL_FIXED_POINT_HPP
