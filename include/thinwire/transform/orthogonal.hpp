#ifndef THINWIRE_TRANSFORM_ORTHOGONAL_HPP
#define THINWIRE_TRANSFORM_ORTHOGONAL_HPP

#include <thinwire/core/random.hpp>
#include <thinwire/transform/dct.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace thinwire {

/// Entry of the Walsh-Hadamard basis of side 2^p * q (q odd), times 2^22: with frequency = d * 2^p + g and
/// position = a * q + b it is sign(g, a) * sqrt((d == 0 ? 1 : 2) / side) * cos(pi * (2 b + 1) * d / (2 q)), where
/// sign(g, a) = (-1)^popcount(reverse(g) & a), reverse = the p bits in reverse order (Paley).
/// Precondition: frequency, position < side <= 256.
[[nodiscard]] constexpr std::int64_t hadamard_entry(std::size_t side, std::size_t frequency,
                                                    std::size_t position) noexcept {
    const std::size_t power = side & (~side + 1), odd = side / power;
    const std::size_t g = frequency % power, a = position / odd;
    int flips = 0;
    for (std::size_t low = 1, high = power / 2; high > 0; low *= 2, high /= 2)
        flips += static_cast<int>((g & low) != 0 && (a & high) != 0);
    const std::int64_t size =
        detail::scaled_cosine(static_cast<std::int64_t>(side), static_cast<std::int64_t>(odd),
                              static_cast<std::int64_t>(frequency / power), static_cast<std::int64_t>(position % odd));
    return flips % 2 == 0 ? size : -size;
}

namespace detail {

/// Vectors of integers with 30 fraction bits. |x| <= 1 and every product of two of them, summed in any order, stays
/// within 64 bits.
using fixed_vector = std::span<std::int32_t>;

[[nodiscard]] inline std::int64_t fixed_product(std::span<const std::int32_t> a,
                                                std::span<const std::int32_t> b) noexcept {
    std::int64_t sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += std::int64_t{a[i]} * b[i];
    return sum;
}

/// Takes from v its parts along the first `count` rows, which are orthonormal.
inline void make_orthogonal(std::span<const std::int32_t> rows, std::size_t count, fixed_vector v) noexcept {
    const std::size_t n = v.size();
    for (std::size_t r = 0; r < count; ++r) {
        const auto row = rows.subspan(r * n, n);
        const std::int64_t along = (fixed_product(row, v) + (1 << 29)) >> 30U;
        for (std::size_t i = 0; i < n; ++i) v[i] -= static_cast<std::int32_t>((along * row[i] + (1 << 29)) >> 30U);
    }
}

/// Scales v to length 1; false where it is too short for that to be precise.
[[nodiscard]] inline bool make_unit(fixed_vector v) noexcept {
    const std::uint64_t length = integer_sqrt(static_cast<std::uint64_t>(fixed_product(v, v)));  // 30 fraction bits
    if (length < (1U << 18U)) return false;
    const auto divisor = static_cast<std::int64_t>(length);
    for (std::int32_t& x : v) {
        const std::int64_t wide = std::int64_t{x} * (std::int64_t{1} << 30U);
        x = static_cast<std::int32_t>((wide + (wide < 0 ? -divisor / 2 : divisor / 2)) / divisor);
    }
    return true;
}

}  // namespace detail

/// A matrix drawn from the uniform (Haar) distribution over the orthogonal ones, times 2^22: Gram and Schmidt's process
/// over vectors of independent, nearly normal entries (sums of twelve uniform numbers; Stewart, SIAM J. Numer. Anal.
/// 17, 1980), in 30-bit integers. Orthonormal up to the rounding of its entries. Depends on (key, stream, side) alone.
inline void fill_random_orthogonal(std::uint64_t key, std::uint64_t stream, std::size_t side,
                                   std::span<std::int32_t> table) {
    random_stream random(key, stream);
    for (std::size_t f = 0; f < side;) {
        const auto row = table.subspan(f * side, side);
        // At most 6 * 2^16 each: the length of 256 of them stays below 2^23, scaled up to 2^30 at most.
        for (std::int32_t& x : row) {
            std::int32_t sum = 0;
            for (int i = 0; i < 6; ++i) {
                const std::uint32_t bits = random.bits32();
                sum += static_cast<std::int32_t>(bits >> 16U) + static_cast<std::int32_t>(bits & 0xffffU) - 0xffff;
            }
            x = sum * 128;
        }
        bool good = detail::make_unit(row);
        for (int pass = 0; pass < 2 && good; ++pass) {
            detail::make_orthogonal(table, f, row);
            good = detail::make_unit(row);
        }
        f += good ? 1U : 0U;
    }
    constexpr int drop = 30 - basis_bits;
    for (std::int32_t& x : table) x = (x + (1 << (drop - 1))) >> drop;
}

}  // namespace thinwire

#endif  // THINWIRE_TRANSFORM_ORTHOGONAL_HPP
