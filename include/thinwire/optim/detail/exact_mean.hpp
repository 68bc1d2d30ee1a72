#ifndef THINWIRE_OPTIM_DETAIL_EXACT_MEAN_HPP
#define THINWIRE_OPTIM_DETAIL_EXACT_MEAN_HPP

#include <thinwire/core/aligned.hpp>
#include <thinwire/optim/contribution_weights.hpp>
#include <thinwire/optim/detail/fixed_point.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace thinwire::detail {

/// The mean of a chunk's coefficients over the peers that sent each, in integers.
///
/// Why replicas agree bit for bit, whatever compiled them:
///   1. Here: every value is a float32 taken apart by its bits: 24-bit mantissa m and exponent e. With E the largest
///      exponent in the chunk among all senders, the value becomes the integer round(m / 2^(2 + E - e)), so at most
///      2^22 in magnitude. Sums and means are integers too; the mean is rounded half away from zero.
///      Contributions that do not count alike have weights w, whose sum over all is below 2^31, factors f <= 256 and
///      shifts s (contribution_weights.hpp). A value's exponent is e - s then, here and in E, and the mean is
///      sum(w f value) / (256 sum(w)) over those that sent it: a dividend of at most 2^31 2^8 2^22 = 2^61 in magnitude,
///      a divisor below 2^39, twice the one and the other below 2^63, and since f <= 256 a mean of at most 2^22 again.
///   2. First pass of the inverse (dct_kernels.hpp): a mean v <= 2^22 times a basis entry b with |b| <= 2^22, summed
///      over a column of h <= 256 rows. A column of the basis has norm 1, so its entries sum to at most sqrt(h), and
///      rounding adds at most 1/2 to each: |sum| <= 2^22 (2^22 sqrt(h) + h/2) < 2^48 + 2^30. Kept as a double scaled by
///      2^-22 (a power of two), each term and each partial sum is a multiple of 2^-22 below 2^26 + 2^8: at most 49
///      bits, so exact in any order, fused or not. Adding 2^28 + 1/2 keeps 22 fraction bits below 2^29, 51 bits: exact.
///      Truncating a positive number is its floor, whatever the rounding mode; less 2^28 it is an integer t, |t| <=
///      2^26 + 2^8 + 1.
///   3. Second pass: sums over w <= 256 columns of t * b: |sum| <= (2^26 + 2^8 + 1) (2^22 sqrt(w) + w/2) < 2^52 + 2^36
///      < 2^53, integers in doubles: every partial sum is exact in any order. So are the sum and the difference of the
///      even and the odd half, whose terms are a partition of the same bound.
///   4. The conversion of that integer to float32 rounds but keeps zero and sign, which is all that the update uses.
///   5. An integrator's own table need not be a rounding of an orthonormal matrix: basis::table() takes one whose rows
///   B
///      satisfy B B^T = 2^44 (I + E) with every |E_ij| <= 2^-17. The norm of E is at most 256 * 2^-17 = 2^-9, and B^T B
///      has the eigenvalues of B B^T, so a column's norm is at most 2^22 sqrt(1 + 2^-9) and its entries sum to at most
///      2^22 sqrt(h) (1 + 2^-10) <= 2^26 + 2^16. In 2 that gives 2^26 + 2^16 for 2^26 + 2^8, still 49 bits and below
///      2^27, and |t| <= 2^26 + 2^16 + 1; in 3, |sum| <= (2^26 + 2^16 + 1) (2^26 + 2^16) < 2^52 + 2^44 < 2^53.
/// No step divides, none meets a subnormal number: -ffast-math has nothing to change.
class exact_mean {
 public:
    explicit exact_mean(std::size_t max_chunk_size)
        : sums_(max_chunk_size), weights_(max_chunk_size), positions_(max_chunk_size), means_(max_chunk_size) {}

    /// Starts a chunk.
    void clear() noexcept {
        for (std::size_t i = 0; i < used_; ++i) weights_[positions_[i]] = 0;
        used_ = 0;
        top_ = 1;
    }

    /// First round over the senders: finds the largest exponent.
    void measure(std::span<const float> values, std::uint32_t shift = 0) noexcept {
        std::uint32_t largest = 0;
        for (const float value : values) largest = std::max(largest, std::bit_cast<std::uint32_t>(value) & 0x7fffffffU);
        largest >>= 23U;
        top_ = std::max(top_, largest - std::min(largest, shift));
    }

    /// Second round: adds what one sender sent, where all count alike.
    void add(std::span<const std::uint16_t> positions, std::span<const float> values) noexcept {
        for (std::size_t i = 0; i < positions.size(); ++i) {
            const std::uint16_t p = positions[i];
            if (weights_[p]++ == 0) {
                sums_[p] = 0;
                positions_[used_++] = p;
            }
            sums_[p] += fixed_of_bits(std::bit_cast<std::uint32_t>(values[i]), top_);
        }
    }
    /// The same where they do not.
    void add(std::span<const std::uint16_t> positions, std::span<const float> values,
             const contribution_weight& as) noexcept {
        const auto times = static_cast<std::int64_t>(std::uint64_t{as.weight} * as.factor);
        for (std::size_t i = 0; i < positions.size(); ++i) {
            const std::uint16_t p = positions[i];
            if (weights_[p] == 0) {
                sums_[p] = 0;
                positions_[used_++] = p;
            }
            weights_[p] += as.weight;
            sums_[p] += times * fixed_of_bits(std::bit_cast<std::uint32_t>(values[i]), top_ + as.shift);
        }
    }

    /// Ends the chunk: the means, scaled by 2^-22, of all positions that somebody sent. `alike`: whether all count so.
    void finish(bool alike = true) noexcept {
        const std::int64_t unit = alike ? 1 : 256;
        for (std::size_t i = 0; i < used_; ++i) {
            const std::size_t p = positions_[i];
            const std::int64_t mean = rounded_mean(sums_[p], unit * weights_[p]);
            means_[i] = static_cast<double>(mean) * 0x1p-22;
        }
    }

    [[nodiscard]] std::span<const std::uint16_t> positions() const noexcept {
        return std::span(positions_).first(used_);
    }
    [[nodiscard]] std::span<const double> means() const noexcept { return std::span(means_).first(used_); }
    /// The inverse transform of the means is in units of 2^scale_exponent().
    [[nodiscard]] int scale_exponent() const noexcept { return static_cast<int>(top_) - 148 - 22; }
    [[nodiscard]] std::size_t memory_bytes() const noexcept { return bytes_held(sums_, weights_, positions_, means_); }

 private:
    std::uint32_t top_ = 1;
    std::size_t used_ = 0;
    std::vector<std::int64_t> sums_;
    std::vector<std::uint32_t> weights_;  ///< of those that sent it, in all
    std::vector<std::uint16_t> positions_;
    std::vector<double> means_;
};

}  // namespace thinwire::detail

#endif  // THINWIRE_OPTIM_DETAIL_EXACT_MEAN_HPP
