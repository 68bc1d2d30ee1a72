#ifndef THINWIRE_TRANSFORM_DCT_HPP
#define THINWIRE_TRANSFORM_DCT_HPP

#include <thinwire/config.hpp>

#include <cstdint>

namespace thinwire {

/// Fraction bits of the integer basis.
inline constexpr int basis_bits = 22;

namespace detail {

/// floor(sqrt(x)).
[[nodiscard]] constexpr std::uint64_t integer_sqrt(std::uint64_t x) noexcept {
    std::uint64_t root = 0;
    for (std::uint64_t bit = std::uint64_t{1} << 31U; bit != 0; bit >>= 1U) {
        const std::uint64_t next = root | bit;
        if (next * next <= x) root = next;
    }
    return root;
}

/// The series of cos (first = 0) or sin (first = 1) at `x`, both with 30 fraction bits, 0 <= x <= pi/4.
[[nodiscard]] constexpr std::int64_t series(std::int64_t x, int first) noexcept {
    const std::int64_t one = std::int64_t{1} << 30U;
    const std::int64_t square = (x * x) >> 30U;
    std::int64_t term = first == 0 ? one : x;
    std::int64_t sum = term;
    for (int n = first + 1; n < 16; n += 2) {
        term = -(((term * square) >> 30U) / (std::int64_t{n} * (n + 1)));
        sum += term;
    }
    return sum;
}

/// cos(pi * m / (2 * side)) with 30 fraction bits, in integers only. Precondition: side <= 256.
[[nodiscard]] constexpr std::int64_t integer_cos(std::int64_t m, std::int64_t side) noexcept {
    m %= 4 * side;  // the full circle
    if (m > 2 * side) m = 4 * side - m;
    if (m > side) return -integer_cos(2 * side - m, side);
    constexpr std::int64_t pi = 3454217652358;  // floor(pi * 2^40)
    const auto angle = [side](std::int64_t n) { return (pi * n / (2 * side)) >> 10U; };
    return 2 * m <= side ? series(angle(m), 0) : series(angle(side - m), 1);
}

}  // namespace detail

namespace detail {

/// sqrt((frequency == 0 ? 1 : 2) / scale_side) * cos(pi * (2 * position + 1) * frequency / (2 * side)), times 2^22,
/// rounded to an integer, magnitudes alike for either sign. With integer arithmetic alone.
[[nodiscard]] constexpr std::int64_t scaled_cosine(std::int64_t scale_side, std::int64_t side, std::int64_t frequency,
                                                   std::int64_t position) noexcept {
    if (scale_side == 1) return std::int64_t{1} << basis_bits;
    const std::uint64_t power =
        (std::uint64_t{1} << (frequency == 0 ? 60U : 61U)) / static_cast<std::uint64_t>(scale_side);
    const auto scale = static_cast<std::int64_t>(integer_sqrt(power));  // 30 fraction bits
    const std::int64_t cosine = integer_cos((2 * position + 1) * frequency, side);
    const std::int64_t product = scale * (cosine < 0 ? -cosine : cosine);
    const std::int64_t rounded = (product + (std::int64_t{1} << (59 - basis_bits))) >> (60 - basis_bits);
    return cosine < 0 ? -rounded : rounded;
}

}  // namespace detail

/// Entry (frequency, position) of the orthonormal DCT-II of a side, times 2^22, rounded to an integer:
/// s * cos(pi * (2 * position + 1) * frequency / (2 * side)), s = sqrt(1/side) for frequency 0, else sqrt(2/side).
/// Computed with integer arithmetic alone, so that every compiler, flag and math library gives the same table.
/// Precondition: frequency, position < side <= 256.
[[nodiscard]] constexpr std::int64_t dct_entry(std::int64_t side, std::int64_t frequency,
                                               std::int64_t position) noexcept {
    return detail::scaled_cosine(side, side, frequency, position);
}

}  // namespace thinwire

#endif  // THINWIRE_TRANSFORM_DCT_HPP
