#ifndef THINWIRE_BACKEND_CPU_DETAIL_KERNELS_HPP
#define THINWIRE_BACKEND_CPU_DETAIL_KERNELS_HPP

#include <thinwire/backend/cpu/detail/avx2_rows.hpp>
#include <thinwire/backend/cpu/detail/avx2_tile.hpp>
#include <thinwire/backend/cpu/detail/avx512_tile.hpp>
#include <thinwire/backend/cpu/detail/gemm.hpp>
#include <thinwire/backend/cpu/detail/scalar_rows.hpp>
#include <thinwire/backend/cpu/detail/scalar_tile.hpp>
#include <thinwire/core/isa.hpp>

#include <cstddef>
#include <cstdint>

namespace thinwire::cpu::detail {

/// Operations on a run of elements or of contiguous rows of n elements, on one thread. Those named as operations of
/// nn::backend mean what they mean there; gradients of weights are added.
struct row_kernels {
    float (*dot)(const float* a, const float* b, std::size_t n);
    void (*add_scaled)(float* y, const float* x, float a, std::size_t n);  ///< y += a x
    void (*add_to)(float* y, const float* x, std::size_t n);               ///< y += x
    void (*rms_norm)(float* y, float* rstd, const float* x, const float* weight, std::size_t rows, std::size_t n,
                     float eps);
    void (*rms_norm_backward)(float* dx, float* dweight, const float* dy, const float* x, const float* weight,
                              const float* rstd, std::size_t rows, std::size_t n);
    void (*layer_norm)(float* y, float* mean, float* rstd, const float* x, const float* weight, const float* bias,
                       std::size_t rows, std::size_t n, float eps);
    void (*layer_norm_backward)(float* dx, float* dweight, float* dbias, const float* dy, const float* x,
                                const float* weight, const float* mean, const float* rstd, std::size_t rows,
                                std::size_t n);
    /// One head of rope: the pairs are (low[i], high[i]).
    void (*rotate_pairs)(float* low, float* high, const float* cosine, const float* sine, std::size_t half,
                         bool inverse);
    /// One row with target >= 0.
    double (*cross_entropy)(float* logits, std::int32_t target, std::size_t n, float gradient_scale);
    /// s = softmax(scale s) over the first `valid` >= 1 entries, zeros from there to `padded`; the log-sum-exp.
    float (*softmax)(float* s, std::size_t valid, std::size_t padded, float scale);
    /// s becomes p = exp(scale s - lse), and dp the gradient scale p (dp - sum(p dp) / sum(p)), over `valid` >= 1
    /// entries; zeros in both from there to `padded`. The mean from the very numbers it is taken from, where
    /// dout . o would do on paper, so that a saturated softmax has no gradient instead of rounding errors.
    void (*softmax_backward)(float* s, float* dp, std::size_t valid, std::size_t padded, float scale, float lse);
    void (*silu_mul)(float* y, const float* gate, const float* up, std::size_t n);
    void (*silu_mul_backward)(float* dgate, float* dup, const float* dy, const float* gate, const float* up,
                              std::size_t n);
    void (*gelu)(float* y, const float* x, std::size_t n, bool tanh_form);
    void (*gelu_backward)(float* dx, const float* dy, const float* x, std::size_t n, bool tanh_form);
};

inline constexpr row_kernels scalar_rows = {scalar::dot,
                                            scalar::add_scaled,
                                            scalar::add_to,
                                            scalar::rms_norm,
                                            scalar::rms_norm_backward,
                                            scalar::layer_norm,
                                            scalar::layer_norm_backward,
                                            scalar::rotate_pairs,
                                            scalar::cross_entropy,
                                            scalar::softmax,
                                            scalar::softmax_backward,
                                            scalar::silu_mul,
                                            scalar::silu_mul_backward,
                                            scalar::gelu,
                                            scalar::gelu_backward};

#if THINWIRE_X86_DISPATCH
inline constexpr row_kernels avx2_rows = {avx2::dot,
                                          avx2::add_scaled,
                                          avx2::add_to,
                                          avx2::rms_norm,
                                          avx2::rms_norm_backward,
                                          avx2::layer_norm,
                                          avx2::layer_norm_backward,
                                          avx2::rotate_pairs,
                                          avx2::cross_entropy,
                                          avx2::softmax,
                                          avx2::softmax_backward,
                                          avx2::silu_mul,
                                          avx2::silu_mul_backward,
                                          avx2::gelu,
                                          avx2::gelu_backward};
#endif

/// AVX-512 has its own micro-kernel for matrix products; the row operations are bound by memory and use AVX2.
[[nodiscard]] inline const gemm_kernels& gemm_kernels_for(isa level) noexcept {
#if THINWIRE_X86_DISPATCH
    if (level == isa::avx512) return gemm_kernels_of<avx512_tile>;
    if (level == isa::avx2) return gemm_kernels_of<avx2_tile>;
#endif
    static_cast<void>(level);
    return gemm_kernels_of<scalar_tile>;
}

[[nodiscard]] inline const row_kernels& row_kernels_for(isa level) noexcept {
#if THINWIRE_X86_DISPATCH
    if (level != isa::scalar) return avx2_rows;
#endif
    static_cast<void>(level);
    return scalar_rows;
}

}  // namespace thinwire::cpu::detail

#endif  // THINWIRE_BACKEND_CPU_DETAIL_KERNELS_HPP
