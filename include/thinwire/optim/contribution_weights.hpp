#ifndef THINWIRE_OPTIM_CONTRIBUTION_WEIGHTS_HPP
#define THINWIRE_OPTIM_CONTRIBUTION_WEIGHTS_HPP

#include <thinwire/codec/payload_layout.hpp>
#include <thinwire/codec/sparse_content.hpp>
#include <thinwire/core/aligned.hpp>
#include <thinwire/optim/detail/fixed_point.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace thinwire {

/// What a contribution weighs in the mean.
enum class mean_weights : std::uint8_t {
    equal = 0,   ///< all the same
    tokens = 1,  ///< the tokens that its payload states; 0 counts as 1
};

[[nodiscard]] constexpr std::string_view to_string(mean_weights by) noexcept {
    return by == mean_weights::tokens ? "tokens" : "equal";
}

/// One contribution in the mean of a commit: its values, times factor / 256 * 2^-shift, count `weight` times.
struct contribution_weight {
    std::uint32_t weight = 1;    ///< those of a commit sum to less than 2^31
    std::uint32_t factor = 256;  ///< at most 256
    std::uint32_t shift = 0;
};

/// The length of a payload's numbers as one vector, as integers order it: exponent * 2^32 + mantissa, with a mantissa
/// of 32 bits whose highest is set, or 0. Each number is rounded to 2^-16 of the power of two above the largest: of n
/// numbers the length found is at most sqrt(n) / 2^16 of itself too small or too large. Precondition: fewer than 2^32
/// coefficients.
///
/// Exact and the same everywhere: a rounded number is an integer of at most 2^16, so the sum of the squares of n < 2^32
/// is below 2^64. Shifting it by pairs of bits into 2^62..2^64 loses nothing, and its root is rounded down.
[[nodiscard]] inline std::uint64_t norm_of(const payload_layout& layout, const sparse_content& content) noexcept {
    const auto for_each_chunk = [&](const auto& use) {
        std::size_t place = 0, chunk = 0;
        for (const payload_section& s : layout.sections)
            for (std::uint64_t i = 0; i < s.chunks; ++i, place += s.kept)
                use(std::span(content.values).subspan(place, content.counts[chunk++]));
    };
    std::uint32_t largest = 0;
    for_each_chunk([&](std::span<const float> values) {
        for (const float value : values) largest = std::max(largest, std::bit_cast<std::uint32_t>(value) & 0x7fffffffU);
    });
    const std::uint32_t top = std::max(largest >> 23U, 1U);
    std::uint64_t sum = 0;
    for_each_chunk([&](std::span<const float> values) {
        for (const float value : values) {
            const std::int64_t size = detail::fixed_of_bits(std::bit_cast<std::uint32_t>(value), top + 6);
            sum += static_cast<std::uint64_t>(size * size);
        }
    });
    if (sum == 0) return 0;
    const auto pairs = static_cast<std::uint32_t>(std::countl_zero(sum)) / 2;
    sum <<= 2 * pairs;
    std::uint64_t root = 0;
    for (std::uint64_t bit = std::uint64_t{1} << 31U; bit != 0; bit >>= 1U)
        if ((root + bit) * (root + bit) <= sum) root += bit;
    return (std::uint64_t{top + 31 - pairs} << 32U) + root;
}

namespace detail {

/// c times a length of norm_of(), rounded down. Precondition: 1 <= c <= 2^20.
[[nodiscard]] constexpr std::uint64_t scaled_norm(std::uint64_t norm, float c) noexcept {
    if (norm == 0) return 0;
    const auto bits = std::bit_cast<std::uint32_t>(c);
    const std::uint64_t mantissa = (norm & 0xffffffffU) * ((bits & 0x7fffffU) | 0x800000U);  // in 2^54..2^56
    const std::uint64_t exponent = (norm >> 32U) + (bits >> 23U) - 127;
    const std::uint64_t above = mantissa >> 55U;
    return ((exponent + above) << 32U) + (mantissa >> (23 + above));
}

/// Sets factor and shift to limit / norm, rounded down to 8 bits; to 1 for a norm within the limit.
constexpr void clip(contribution_weight& w, std::uint64_t norm, std::uint64_t limit) noexcept {
    w.factor = 256;
    w.shift = 0;
    if (norm <= limit) return;
    if (limit == 0) {
        w.factor = 0;
        w.shift = 255;  // nor does it set the unit of the mean
        return;
    }
    const std::uint64_t above = norm & 0xffffffffU, below = limit & 0xffffffffU;  // either in 2^31..2^32
    const auto octaves = static_cast<std::uint32_t>((norm >> 32U) - (limit >> 32U));
    w.factor = static_cast<std::uint32_t>((below << (below < above ? 8U : 7U)) / above);  // in 128..255
    w.shift = below < above ? octaves : octaves - 1;
}

}  // namespace detail

/// What the accepted contributions of a commit weigh, from their tokens and their lengths: the same on all replicas, in
/// integers, whatever their order.
///
/// Weights are divided by their greatest common divisor. Should their sum then not be below 2^31 (128 contributions of
/// 2^24 tokens), all are halved, rounded down but not below 1, until it is.
///
/// With a clip c > 0 and three contributions or more, those longer than c times the median of all lengths (of an even
/// number the lower of the two in the middle) are scaled down to that, or to at most 1/128 less. Fewer than three say
/// nothing about which of them is wrong: then nothing is scaled.
class contribution_weights {
 public:
    contribution_weights() = default;
    contribution_weights(mean_weights by, float clip) : by_(by), clip_(clip) {}

    [[nodiscard]] bool needs_norms() const noexcept { return clip_ > 0.0F; }

    /// Starts a commit.
    void clear() noexcept {
        weights_.clear();
        norms_.clear();
    }
    /// The next contribution; its norm counts only where it is needed.
    void add(std::uint32_t tokens, std::uint64_t norm) {
        weights_.push_back({.weight = by_ == mean_weights::tokens ? std::max(tokens, 1U) : 1});
        norms_.push_back(norm);
    }
    /// In the order of add(); empty where all count alike, so that a plain mean is the same.
    [[nodiscard]] std::span<const contribution_weight> finish() {
        reduce();
        bool alike =
            std::ranges::all_of(weights_, [&](const contribution_weight& w) { return w.weight == weights_[0].weight; });
        if (needs_norms() && norms_.size() >= 3) {
            sorted_.assign(norms_.begin(), norms_.end());
            const auto middle = sorted_.begin() + static_cast<std::ptrdiff_t>((sorted_.size() - 1) / 2);
            std::nth_element(sorted_.begin(), middle, sorted_.end());
            const std::uint64_t limit = detail::scaled_norm(*middle, clip_);
            for (std::size_t i = 0; i < norms_.size(); ++i) {
                detail::clip(weights_[i], norms_[i], limit);
                alike = alike && norms_[i] <= limit;
            }
        }
        if (alike) return {};
        return weights_;
    }
    [[nodiscard]] std::size_t memory_bytes() const noexcept { return bytes_held(weights_, norms_, sorted_); }

 private:
    static constexpr std::uint64_t most_in_all = (std::uint64_t{1} << 31U) - 1;

    void reduce() noexcept {
        std::uint32_t divisor = 0;
        for (const contribution_weight& w : weights_) divisor = std::gcd(divisor, w.weight);
        std::uint64_t sum = 0;
        for (contribution_weight& w : weights_) sum += w.weight /= divisor;
        while (sum > most_in_all) {
            sum = 0;
            for (contribution_weight& w : weights_) sum += w.weight = std::max(w.weight / 2, 1U);
        }
    }

    mean_weights by_ = mean_weights::equal;
    float clip_ = 0.0F;
    std::vector<contribution_weight> weights_;
    std::vector<std::uint64_t> norms_, sorted_;
};

}  // namespace thinwire

#endif  // THINWIRE_OPTIM_CONTRIBUTION_WEIGHTS_HPP
