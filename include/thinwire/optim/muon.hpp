#ifndef THINWIRE_OPTIM_MUON_HPP
#define THINWIRE_OPTIM_MUON_HPP

#include <thinwire/core/error.hpp>
#include <thinwire/optim/detail/fused_gemm.hpp>
#include <thinwire/optim/detail/update_kernels.hpp>
#include <thinwire/optim/update_rule.hpp>
#include <thinwire/transform/dct.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>

namespace thinwire {

struct muon_options {
    int steps = 5;           ///< of the Newton-Schulz iteration: 1..16
    float scale = 0.2F;      ///< a matrix's update has about this root mean square for every shape
    float fallback = 0.25F;  ///< other tensors move by sign(D) times this part of the learning rate
};

/// Muon (Jordan et al., github.com/KellerJordan/Muon, 2024) on the decoded mean: phi(D) = scale * sqrt(longer side) *
/// D (D^T D)^(-1/2), approximated by `steps` of the quintic Newton-Schulz iteration with the coefficients of
/// torch.optim.Muon. Tensors without two sides above 1 fall back to sign(D), times `fallback`; embeddings and output
/// heads should too, by a parameter_group with rule signum and learning_rate = fallback.
///
/// Replicas stay bit-equal: the norm is an integer, sums are chains of fused multiply-adds in a fixed order. Without
/// hardware for those (isa::scalar on x86-64 calls the C library's fma) it is slow.
/// Working memory: for sides m <= n, rounded up to 32, 4 (2 m n + 3 m^2) bytes for the largest matrix of a model, and
/// 4 bytes for each element of all matrices.
class muon final : public update_rule {
 public:
    /// Throws value_error for an option out of range.
    explicit muon(muon_options options = {}) : options_(options) {
        if (options.steps < 1 || options.steps > 16)
            throw value_error("muon: steps " + std::to_string(options.steps) + ", expected 1..16");
        if (!(options.scale >= 0x1p-10F && options.scale <= 0x1p10F))
            throw value_error("muon: scale " + std::to_string(options.scale) + ", expected 2^-10..2^10");
        if (!(options.fallback >= 0x1p-10F && options.fallback <= 0x1p10F))
            throw value_error("muon: fallback " + std::to_string(options.fallback) + ", expected 2^-10..2^10");
    }

    [[nodiscard]] std::string name() const override {
        return "muon " + std::to_string(options_.steps) + " " +
               std::to_string(std::bit_cast<std::uint32_t>(options_.scale)) + " " +
               std::to_string(std::bit_cast<std::uint32_t>(options_.fallback));
    }
    [[nodiscard]] update_scope scope(const shape& s) const override {
        return is_matrix(s) ? update_scope::matrix : update_scope::sign;
    }
    [[nodiscard]] float rate(const shape& s) const override {
        if (!is_matrix(s)) return options_.fallback;
        const auto side = static_cast<std::uint64_t>(std::max(s[s.rank() - 1], s[s.rank() - 2]));
        const auto root = static_cast<double>(detail::integer_sqrt(std::min(side, std::uint64_t{1} << 23U) << 40U));
        return static_cast<float>(
            detail::settled(detail::settled(root * 0x1p-20) * static_cast<double>(options_.scale)));
    }
    [[nodiscard]] std::size_t workspace(std::size_t rows, std::size_t cols) const override {
        const std::size_t m = detail::round_to_panel(std::min(rows, cols));
        return 2 * m * detail::round_to_panel(std::max(rows, cols)) + 3 * m * m;
    }
    void direct_matrix(std::span<float> d, std::size_t rows, std::size_t cols,
                       update_workspace& work) const noexcept override {
        const bool tall = rows > cols;
        const std::size_t m = detail::round_to_panel(tall ? cols : rows),
                          n = detail::round_to_panel(tall ? rows : cols);
        const double weight = inverse_norm(d);
        if (weight == 0.0) return;
        float* x = work.memory.data();
        float* other = x + m * n;
        float* gram = other + m * n;
        load(d, rows, cols, weight, tall, m, n, x);
        for (int step = 0; step < options_.steps; ++step) {
            iterate(x, other, gram, m, n, work);
            std::swap(x, other);
        }
        store(x, rows, cols, tall, m, d);
    }

 private:
    static constexpr std::size_t panel = detail::panel;

    [[nodiscard]] static bool is_matrix(const shape& s) noexcept {
        return s.rank() >= 2 && s[s.rank() - 1] > 1 && s[s.rank() - 2] > 1;
    }

    [[nodiscard]] static double double_power(int exponent) noexcept {
        return std::bit_cast<double>(static_cast<std::uint64_t>(exponent + 1023) << 52U);
    }

    /// 1 / the Frobenius norm, from integers: the same everywhere. 0 for a matrix of zeros.
    [[nodiscard]] static double inverse_norm(std::span<const float> d) noexcept {
        std::uint32_t top = 0;
        for (const float v : d) top = std::max(top, std::bit_cast<std::uint32_t>(v) & 0x7fffffffU);
        if (top < 0x00800000U) return 0.0;
        const double unit = double_power(23 + 127 - static_cast<int>(top >> 23U));  // the largest becomes 2^23..2^24
        std::uint64_t sum = 0;                                                      // in units of 2^16
        for (std::size_t at = 0; at < d.size(); at += panel) {
            std::uint64_t run = 0;
            for (std::size_t i = at; i < std::min(at + panel, d.size()); ++i) {
                const std::int64_t q = static_cast<std::int32_t>(static_cast<double>(d[i]) * unit);
                run += static_cast<std::uint64_t>(q * q);
            }
            sum += run >> 16U;
        }
        const auto shift = static_cast<unsigned>(std::countl_zero(sum)) / 2 * 2;
        const auto root = static_cast<double>(detail::integer_sqrt(sum << shift));
        return detail::settled(unit / detail::settled(root * double_power(8 - static_cast<int>(shift / 2))));
    }

    /// x = d * weight in panels, transposed where it is tall.
    static void load(std::span<const float> d, std::size_t rows, std::size_t cols, double weight, bool tall,
                     std::size_t m, std::size_t n, float* x) noexcept {
        std::memset(x, 0, m * n * sizeof(float));
        for (std::size_t r = 0; r < rows; ++r) {
            for (std::size_t from = 0; from < cols; from += panel) {
                const std::size_t count = std::min(panel, cols - from);
                double scaled[panel];
                for (std::size_t i = 0; i < count; ++i)
                    scaled[i] = static_cast<double>(d[r * cols + from + i]) * weight;
                detail::keep(scaled);
                for (std::size_t i = 0; i < count; ++i) {
                    const std::size_t c = from + i;
                    x[tall ? (r / panel * m + c) * panel + r % panel : (c / panel * m + r) * panel + c % panel] =
                        static_cast<float>(scaled[i]);
                }
            }
        }
        detail::keep(x);
    }

    static void store(const float* x, std::size_t rows, std::size_t cols, bool tall, std::size_t m,
                      std::span<float> d) noexcept {
        for (std::size_t r = 0; r < rows; ++r)
            for (std::size_t c = 0; c < cols; ++c)
                d[r * cols + c] =
                    x[tall ? (r / panel * m + c) * panel + r % panel : (c / panel * m + r) * panel + c % panel];
    }

    /// out = 3.4445 x - 4.775 (x x^T) x + 2.0315 (x x^T)^2 x, as (a + (b + c A) A) x with A = x x^T: m x m.
    static void iterate(float* x, float* out, float* gram, std::size_t m, std::size_t n,
                        const update_workspace& work) noexcept {
        constexpr float a = 3.4445F, b = -4.7750F, c = 2.0315F;
        float* inner = gram + m * m;
        float* product = inner + m * m;
        detail::transpose_panels(work.pool, x, out, m, n);
        detail::fused_gemm(work.pool, work.level, x, out, gram, m, n, m, true);
        detail::keep(gram);
        for (std::size_t i = 0; i < m * m; ++i) inner[i] = c * gram[i];
        detail::keep(inner);
        add_to_diagonal(inner, m, b);
        detail::fused_gemm(work.pool, work.level, inner, gram, product, m, m, m, true);
        add_to_diagonal(product, m, a);
        detail::fused_gemm(work.pool, work.level, product, x, out, m, m, n);
    }

    static void add_to_diagonal(float* square, std::size_t m, float term) noexcept {
        detail::keep(square);
        for (std::size_t i = 0; i < m; ++i) square[(i / panel * m + i) * panel + i % panel] += term;
        detail::keep(square);
    }

    muon_options options_;
};

}  // namespace thinwire

#endif  // THINWIRE_OPTIM_MUON_HPP
