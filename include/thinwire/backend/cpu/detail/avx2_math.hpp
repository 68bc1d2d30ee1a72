#ifndef THINWIRE_BACKEND_CPU_DETAIL_AVX2_MATH_HPP
#define THINWIRE_BACKEND_CPU_DETAIL_AVX2_MATH_HPP

#include <thinwire/config.hpp>

#include <cstddef>
#include <cstdint>

#if THINWIRE_X86_DISPATCH
#include <immintrin.h>

/// Small vector functions, inlined into the kernels, which carry the same target.
#define THINWIRE_AVX2_INLINE THINWIRE_TARGET_AVX2 THINWIRE_ALWAYS_INLINE

/// Eight lanes of float32 for AVX2 with FMA. `left` is how many elements remain from the pointer on: 8 or more means a
/// whole vector, fewer the first lanes only. A lane's result never depends on its place, so that cutting a tensor
/// among threads changes no bit of element-wise results.
namespace thinwire::cpu::detail::avx2 {

using vec = __m256;
inline constexpr std::size_t width = 8;

inline constexpr std::int32_t lane_masks[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};

THINWIRE_AVX2_INLINE __m256i mask(std::size_t left) noexcept {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(lane_masks + width - (left < width ? left : width)));
}
/// Missing lanes are zero.
THINWIRE_AVX2_INLINE vec load(const float* p, std::size_t left) noexcept {
    return left >= width ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, mask(left));
}
THINWIRE_AVX2_INLINE void store(float* p, vec v, std::size_t left) noexcept {
    if (left >= width)
        _mm256_storeu_ps(p, v);
    else
        _mm256_maskstore_ps(p, mask(left), v);
}
/// `v` in the first lanes, `other` in the missing ones.
THINWIRE_AVX2_INLINE vec first_or(vec v, vec other, std::size_t left) noexcept {
    return _mm256_blendv_ps(other, v, _mm256_castsi256_ps(mask(left)));
}
THINWIRE_AVX2_INLINE vec all(float a) noexcept {
    return _mm256_set1_ps(a);
}
THINWIRE_AVX2_INLINE vec add(vec a, vec b) noexcept {
    return _mm256_add_ps(a, b);
}
THINWIRE_AVX2_INLINE vec sub(vec a, vec b) noexcept {
    return _mm256_sub_ps(a, b);
}
THINWIRE_AVX2_INLINE vec mul(vec a, vec b) noexcept {
    return _mm256_mul_ps(a, b);
}
THINWIRE_AVX2_INLINE vec div(vec a, vec b) noexcept {
    return _mm256_div_ps(a, b);
}
/// a * b + c
THINWIRE_AVX2_INLINE vec fma(vec a, vec b, vec c) noexcept {
    return _mm256_fmadd_ps(a, b, c);
}
/// c - a * b
THINWIRE_AVX2_INLINE vec minus_product(vec c, vec a, vec b) noexcept {
    return _mm256_fnmadd_ps(a, b, c);
}
THINWIRE_AVX2_INLINE vec negate(vec a) noexcept {
    return _mm256_xor_ps(a, all(-0.0F));
}
THINWIRE_AVX2_INLINE vec absolute(vec a) noexcept {
    return _mm256_andnot_ps(all(-0.0F), a);
}

THINWIRE_AVX2_INLINE float sum(vec v) noexcept {
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
THINWIRE_AVX2_INLINE float maximum(vec v) noexcept {
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}

/// e^x to about one unit in the last place: x = n ln 2 + r, |r| <= ln 2 / 2, Taylor's polynomial of degree 7 in r (next
/// term 5e-9). Below -87.3 the result is 1e-38, above 88.3 it stays at 2e38; NaN stays NaN.
THINWIRE_AVX2_INLINE vec exp(vec x) noexcept {
    x = _mm256_min_ps(all(88.3F), _mm256_max_ps(all(-87.3F), x));
    const vec n = _mm256_round_ps(mul(x, all(1.44269504F)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const vec r = minus_product(minus_product(x, n, all(0.693359375F)), n, all(-2.12194440e-4F));
    vec p = fma(all(1.0F / 5040), r, all(1.0F / 720));
    p = fma(p, r, all(1.0F / 120));
    p = fma(p, r, all(1.0F / 24));
    p = fma(p, r, all(1.0F / 6));
    p = fma(p, r, all(0.5F));
    p = fma(p, r, all(1.0F));
    p = fma(p, r, all(1.0F));
    const __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), exponent));
}

/// 1 / (1 + e^-x)
THINWIRE_AVX2_INLINE vec sigmoid(vec x) noexcept {
    return div(all(1.0F), add(all(1.0F), exp(negate(x))));
}

/// The standard normal distribution function: exp(-x^2/2)/2 times t P(t), t = 1 / (1 + 0.3 |x| / sqrt 2), for negative
/// x, and 1 minus that for positive. P is our least-squares fit (relative error 2e-8) of exp(z^2) erfc(z) / t.
THINWIRE_AVX2_INLINE vec normal_cdf(vec x) noexcept {
    const vec t = div(all(1.0F), fma(all(0.3F * 0.70710678F), absolute(x), all(1.0F)));
    vec p = fma(all(-0.129435033F), t, all(0.485101104F));
    p = fma(p, t, all(-0.511236072F));
    p = fma(p, t, all(0.546406031F));
    p = fma(p, t, all(-0.0936387628F));
    p = fma(p, t, all(0.214439437F));
    p = fma(p, t, all(0.148481637F));
    p = fma(p, t, all(0.170692042F));
    p = fma(p, t, all(0.169189602F));
    const vec tail = mul(mul(mul(p, t), all(0.5F)), exp(mul(mul(x, x), all(-0.5F))));
    return _mm256_blendv_ps(sub(all(1.0F), tail), tail, x);
}

}  // namespace thinwire::cpu::detail::avx2

#endif
#endif  // THINWIRE_BACKEND_CPU_DETAIL_AVX2_MATH_HPP
