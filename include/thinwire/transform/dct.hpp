#ifndef THINWIRE_TRANSFORM_DCT_HPP
#define THINWIRE_TRANSFORM_DCT_HPP

#include <thinwire/core/aligned.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>

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
        term = -(((term * square) >> 30U) / (n * (n + 1)));
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

/// Entry (frequency, position) of the orthonormal DCT-II of a side, times 2^22, rounded to an integer:
/// s * cos(pi * (2 * position + 1) * frequency / (2 * side)), s = sqrt(1/side) for frequency 0, else sqrt(2/side).
/// Computed with integer arithmetic alone, so that every compiler, flag and math library gives the same table.
/// Precondition: frequency, position < side <= 256.
[[nodiscard]] constexpr std::int64_t dct_entry(std::int64_t side, std::int64_t frequency,
                                               std::int64_t position) noexcept {
    if (side == 1) return std::int64_t{1} << basis_bits;
    const std::uint64_t power = (std::uint64_t{1} << (frequency == 0 ? 60U : 61U)) / static_cast<std::uint64_t>(side);
    const auto scale = static_cast<std::int64_t>(detail::integer_sqrt(power));  // 30 fraction bits
    const std::int64_t cosine = detail::integer_cos((2 * position + 1) * frequency, side);
    const std::int64_t product = scale * (cosine < 0 ? -cosine : cosine);
    const std::int64_t rounded = (product + (std::int64_t{1} << (59 - basis_bits))) >> (60 - basis_bits);
    return cosine < 0 ? -rounded : rounded;
}

/// The tables of one side's transform. Row `f`, column `x` of the basis mirrors: entry(f, side-1-x) =
/// (-1)^f entry(f, x), so half of each row is enough and halves the work.
class dct_basis {
 public:
    /// Precondition: 1 <= side <= 256.
    explicit dct_basis(std::size_t side)
        : side_(side),
          half_(round_up((side + 1) / 2)),
          full_(round_up(side)),
          analysis_even_(half_ * half_),
          analysis_odd_(half_ * half_),
          rows_even_(half_ * half_),
          rows_odd_(half_ * half_),
          synthesis_(side * full_),
          synthesis_half_(side * half_),
          exact_(side * full_),
          exact_half_(side * half_) {
        const std::size_t middle = (side + 1) / 2;
        for (std::size_t f = 0; f < side; ++f) {
            for (std::size_t x = 0; x < side; ++x) {
                const double scale = std::sqrt((f == 0 ? 1.0 : 2.0) / static_cast<double>(side));
                const double angle =
                    std::numbers::pi * static_cast<double>((2 * x + 1) * f) / (2.0 * static_cast<double>(side));
                const auto value = static_cast<float>(scale * std::cos(angle));
                const auto exact = static_cast<double>(dct_entry(
                    static_cast<std::int64_t>(side), static_cast<std::int64_t>(f), static_cast<std::int64_t>(x)));
                synthesis_[f * full_ + x] = value;
                exact_[f * full_ + x] = exact;
                if (x >= middle) continue;
                synthesis_half_[f * half_ + x] = value;
                exact_half_[f * half_ + x] = exact;
                (f % 2 == 0 ? rows_even_ : rows_odd_)[f / 2 * half_ + x] = value;
                (f % 2 == 0 ? analysis_even_ : analysis_odd_)[x * half_ + f / 2] = value;
            }
        }
    }

    [[nodiscard]] std::size_t side() const noexcept { return side_; }
    /// ceil(side / 2) and side, rounded up to the width of the tables' rows: multiples of 16.
    [[nodiscard]] std::size_t half() const noexcept { return half_; }
    [[nodiscard]] std::size_t full() const noexcept { return full_; }

    /// [frequency / 2][position] for even or odd frequencies, position < ceil(side / 2).
    [[nodiscard]] const float* rows(bool odd) const noexcept { return (odd ? rows_odd_ : rows_even_).data(); }
    /// [position][frequency / 2] for even or odd frequencies.
    [[nodiscard]] const float* analysis(bool odd) const noexcept {
        return (odd ? analysis_odd_ : analysis_even_).data();
    }

    /// [frequency][position], rows of full() and of half() entries; as float32, or as integers times 2^22 in doubles.
    template <class T>
    [[nodiscard]] const T* synthesis() const noexcept {
        if constexpr (sizeof(T) == sizeof(float))
            return synthesis_.data();
        else
            return exact_.data();
    }
    template <class T>
    [[nodiscard]] const T* synthesis_half() const noexcept {
        if constexpr (sizeof(T) == sizeof(float))
            return synthesis_half_.data();
        else
            return exact_half_.data();
    }

 private:
    [[nodiscard]] static constexpr std::size_t round_up(std::size_t n) noexcept { return (n + 15) / 16 * 16; }

    std::size_t side_, half_, full_;
    aligned_vector<float> analysis_even_, analysis_odd_, rows_even_, rows_odd_, synthesis_, synthesis_half_;
    aligned_vector<double> exact_, exact_half_;
};

}  // namespace thinwire

#endif  // THINWIRE_TRANSFORM_DCT_HPP
