#ifndef THINWIRE_OPTIM_DETAIL_ADAMW_KERNEL_HPP
#define THINWIRE_OPTIM_DETAIL_ADAMW_KERNEL_HPP

#include <thinwire/optim/contribution_weights.hpp>
#include <thinwire/optim/detail/update_kernels.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace thinwire::detail {

/// The numbers of one AdamW step that are the same for all elements.
struct adamw_step {
    double gradient_weight;  ///< 1 / contributors, or 1 / the sum of their weights
    double beta1_rest;       ///< 1 - beta1
    double beta2, beta2_rest;
    double root_correction;  ///< 1 / sqrt(1 - beta2^t)
    double epsilon;
    double step_size;  ///< learning rate / (1 - beta1^t)
    double decay;      ///< 1 - learning rate * weight decay
};

/// A block of elements. Each function below does one IEEE operation an element, in double, and ends with a barrier,
/// so that neither contraction nor -ffast-math changes a bit; double keeps every intermediate far from subnormal.
struct adamw_block {
    static constexpr std::size_t width = 64;
    using row = double[width];

    static void add(row& a, const row& b) noexcept {
        for (std::size_t i = 0; i < width; ++i) a[i] += b[i];
        keep(a);
    }
    static void subtract(row& a, const row& b) noexcept {
        for (std::size_t i = 0; i < width; ++i) a[i] -= b[i];
        keep(a);
    }
    static void multiply(row& a, const row& b) noexcept {
        for (std::size_t i = 0; i < width; ++i) a[i] *= b[i];
        keep(a);
    }
    static void divide(row& a, const row& b) noexcept {
        for (std::size_t i = 0; i < width; ++i) a[i] /= b[i];
        keep(a);
    }
    static void scale(row& a, double factor) noexcept {
        for (std::size_t i = 0; i < width; ++i) a[i] *= factor;
        keep(a);
    }
    static void shift(row& a, double term) noexcept {
        for (std::size_t i = 0; i < width; ++i) a[i] += term;
        keep(a);
    }
    static void root(row& a) noexcept {
        for (std::size_t i = 0; i < width; ++i) a[i] = std::sqrt(a[i]);
        keep(a);
    }
    /// Reads `count` floats as doubles, zero after them; subnormal ones as 0 whatever the hardware does with them.
    static void load(row& a, const void* from, std::size_t count) noexcept {
        alignas(64) float values[width] = {};
        std::memcpy(values, from, count * sizeof(float));
        flush_tiny<4>(values, width);
        for (std::size_t i = 0; i < width; ++i) a[i] = static_cast<double>(values[i]);
        keep(a);
    }
    /// Rounds to float, tiny ones to 0, writes `count` of them and leaves the rounded numbers in `a`.
    static void store(row& a, float* to, std::size_t count) noexcept {
        alignas(64) float values[width];
        for (std::size_t i = 0; i < width; ++i) values[i] = static_cast<float>(a[i]);
        keep(values);
        flush_tiny<4>(values, width);
        std::memcpy(to, values, count * sizeof(float));
        for (std::size_t i = 0; i < width; ++i) a[i] = static_cast<double>(values[i]);
        keep(a);
    }
};

/// One step of torch.optim.AdamW for `count` <= 64 elements. `gradients` are little-endian floats of each contributor,
/// added in their order, each times its weight (below 2^24: a product of at most 48 bits, exact) where there are
/// weights.
inline void adamw_update(const adamw_step& s, std::span<const std::byte* const> gradients,
                         std::span<const contribution_weight> weights, float* x, float* m, float* v,
                         std::size_t count) noexcept {
    using block = adamw_block;
    block::row g = {}, one, mean, square, weight, t;
    for (std::size_t i = 0; i < gradients.size(); ++i) {
        block::load(one, gradients[i], count);
        if (!weights.empty()) block::scale(one, static_cast<double>(weights[i].weight));
        block::add(g, one);
    }
    block::scale(g, s.gradient_weight);
    block::load(mean, m, count);
    std::copy(g, g + block::width, t);
    block::subtract(t, mean);
    block::scale(t, s.beta1_rest);
    block::add(mean, t);
    block::store(mean, m, count);

    block::load(square, v, count);
    block::scale(square, s.beta2);
    block::multiply(g, g);
    block::scale(g, s.beta2_rest);
    block::add(square, g);
    block::store(square, v, count);

    block::root(square);
    block::scale(square, s.root_correction);
    block::shift(square, s.epsilon);
    block::divide(mean, square);
    block::scale(mean, s.step_size);
    block::load(weight, x, count);
    block::scale(weight, s.decay);
    block::subtract(weight, mean);
    block::store(weight, x, count);
}

}  // namespace thinwire::detail

#endif  // THINWIRE_OPTIM_DETAIL_ADAMW_KERNEL_HPP
