#ifndef THINWIRE_BACKEND_CPU_DETAIL_SCALAR_ROWS_HPP
#define THINWIRE_BACKEND_CPU_DETAIL_SCALAR_ROWS_HPP

#include <thinwire/backend/cpu/reference.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

/// Operations on rows in plain C++; signatures and meaning are those of detail::row_kernels. What the reference back
/// end has is taken from there.
namespace thinwire::cpu::detail::scalar {

inline float dot(const float* a, const float* b, std::size_t n) noexcept {
    double sum = 0.0;
    for (std::size_t i = 0; i < n; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
    return static_cast<float>(sum);
}
inline void add_scaled(float* y, const float* x, float a, std::size_t n) noexcept {
    for (std::size_t i = 0; i < n; ++i) y[i] += a * x[i];
}
inline void add_to(float* y, const float* x, std::size_t n) noexcept {
    reference{}.add(y, x, n);
}

inline void rms_norm(float* y, float* rstd, const float* x, const float* weight, std::size_t rows, std::size_t n,
                     float eps) {
    reference{}.rms_norm(y, rstd, x, weight, static_cast<int>(rows), static_cast<int>(n), eps);
}
inline void rms_norm_backward(float* dx, float* dweight, const float* dy, const float* x, const float* weight,
                              const float* rstd, std::size_t rows, std::size_t n) {
    reference{}.rms_norm_backward(dx, dweight, dy, x, weight, rstd, static_cast<int>(rows), static_cast<int>(n));
}
inline void layer_norm(float* y, float* mean, float* rstd, const float* x, const float* weight, const float* bias,
                       std::size_t rows, std::size_t n, float eps) {
    reference{}.layer_norm(y, mean, rstd, x, weight, bias, static_cast<int>(rows), static_cast<int>(n), eps);
}
inline void layer_norm_backward(float* dx, float* dweight, float* dbias, const float* dy, const float* x,
                                const float* weight, const float* mean, const float* rstd, std::size_t rows,
                                std::size_t n) {
    reference{}.layer_norm_backward(dx, dweight, dbias, dy, x, weight, mean, rstd, static_cast<int>(rows),
                                    static_cast<int>(n));
}

inline void rotate_pairs(float* low, float* high, const float* cosine, const float* sine, std::size_t half,
                         bool inverse) noexcept {
    for (std::size_t i = 0; i < half; ++i) {
        const float a = low[i], b = high[i], s = inverse ? -sine[i] : sine[i];
        low[i] = a * cosine[i] - b * s;
        high[i] = b * cosine[i] + a * s;
    }
}

inline double cross_entropy(float* logits, std::int32_t target, std::size_t n, float gradient_scale) {
    return reference{}.cross_entropy(logits, &target, 1, static_cast<int>(n), gradient_scale);
}

inline float softmax(float* s, std::size_t valid, std::size_t padded, float scale) noexcept {
    const float most = *std::max_element(s, s + valid) * scale;
    double whole = 0.0;
    for (std::size_t i = 0; i < valid; ++i) {
        s[i] = std::exp(s[i] * scale - most);
        whole += static_cast<double>(s[i]);
    }
    const auto share = static_cast<float>(1.0 / whole);
    for (std::size_t i = 0; i < valid; ++i) s[i] *= share;
    std::fill(s + valid, s + padded, 0.0F);
    return most + static_cast<float>(std::log(whole));
}
inline void softmax_backward(float* s, float* dp, std::size_t valid, std::size_t padded, float scale,
                             float lse) noexcept {
    double whole = 0.0, product = 0.0;
    for (std::size_t i = 0; i < valid; ++i) {
        s[i] = std::exp(s[i] * scale - lse);
        whole += static_cast<double>(s[i]);
        product += static_cast<double>(s[i]) * static_cast<double>(dp[i]);
    }
    const auto mean = static_cast<float>(product / whole);
    for (std::size_t i = 0; i < valid; ++i) dp[i] = s[i] * scale * (dp[i] - mean);
    std::fill(s + valid, s + padded, 0.0F);
    std::fill(dp + valid, dp + padded, 0.0F);
}

inline void silu_mul(float* y, const float* gate, const float* up, std::size_t n) {
    reference{}.silu_mul(y, gate, up, n);
}
inline void silu_mul_backward(float* dgate, float* dup, const float* dy, const float* gate, const float* up,
                              std::size_t n) {
    reference{}.silu_mul_backward(dgate, dup, dy, gate, up, n);
}
inline void gelu(float* y, const float* x, std::size_t n, bool tanh_form) {
    reference{}.gelu(y, x, n, tanh_form);
}
inline void gelu_backward(float* dx, const float* dy, const float* x, std::size_t n, bool tanh_form) {
    reference{}.gelu_backward(dx, dy, x, n, tanh_form);
}

}  // namespace thinwire::cpu::detail::scalar

#endif  // THINWIRE_BACKEND_CPU_DETAIL_SCALAR_ROWS_HPP
