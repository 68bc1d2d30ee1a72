#ifndef THINWIRE_BACKEND_CPU_DETAIL_AVX2_ROWS_HPP
#define THINWIRE_BACKEND_CPU_DETAIL_AVX2_ROWS_HPP

#include <thinwire/backend/cpu/detail/avx2_math.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>

#if THINWIRE_X86_DISPATCH

/// Operations on rows for AVX2; signatures and meaning are those of detail::row_kernels.
namespace thinwire::cpu::detail::avx2 {

THINWIRE_TARGET_AVX2 inline float dot(const float* a, const float* b, std::size_t n) noexcept {
    vec s0 = all(0.0F), s1 = s0, s2 = s0, s3 = s0;
    std::size_t i = 0;
    for (; i + 4 * width <= n; i += 4 * width) {
        s0 = fma(_mm256_loadu_ps(a + i), _mm256_loadu_ps(b + i), s0);
        s1 = fma(_mm256_loadu_ps(a + i + 8), _mm256_loadu_ps(b + i + 8), s1);
        s2 = fma(_mm256_loadu_ps(a + i + 16), _mm256_loadu_ps(b + i + 16), s2);
        s3 = fma(_mm256_loadu_ps(a + i + 24), _mm256_loadu_ps(b + i + 24), s3);
    }
    for (; i < n; i += width) s0 = fma(load(a + i, n - i), load(b + i, n - i), s0);
    return sum(add(add(s0, s1), add(s2, s3)));
}

THINWIRE_TARGET_AVX2 inline void add_scaled(float* y, const float* x, float a, std::size_t n) noexcept {
    for (std::size_t i = 0; i < n; i += width) store(y + i, fma(load(x + i, n - i), all(a), load(y + i, n - i)), n - i);
}

THINWIRE_TARGET_AVX2 inline void add_to(float* y, const float* x, std::size_t n) noexcept {
    for (std::size_t i = 0; i < n; i += width) store(y + i, add(load(y + i, n - i), load(x + i, n - i)), n - i);
}

THINWIRE_TARGET_AVX2 inline void rms_norm(float* y, float* rstd, const float* x, const float* weight, std::size_t rows,
                                          std::size_t n, float eps) noexcept {
    for (std::size_t r = 0; r < rows; ++r, x += n, y += n) {
        const float scale = 1.0F / std::sqrt(dot(x, x, n) / static_cast<float>(n) + eps);
        rstd[r] = scale;
        for (std::size_t i = 0; i < n; i += width)
            store(y + i, mul(mul(load(x + i, n - i), all(scale)), load(weight + i, n - i)), n - i);
    }
}

THINWIRE_TARGET_AVX2 inline void rms_norm_backward(float* dx, float* dweight, const float* dy, const float* x,
                                                   const float* weight, const float* rstd, std::size_t rows,
                                                   std::size_t n) noexcept {
    for (std::size_t r = 0; r < rows; ++r, dx += n, dy += n, x += n) {
        const vec scale = all(rstd[r]);
        vec total = all(0.0F);
        for (std::size_t i = 0; i < n; i += width) {
            const vec product = mul(load(dy + i, n - i), mul(load(x + i, n - i), scale));
            store(dweight + i, add(load(dweight + i, n - i), product), n - i);
            total = fma(product, load(weight + i, n - i), total);
        }
        const vec mean = all(sum(total) / static_cast<float>(n));
        for (std::size_t i = 0; i < n; i += width) {
            const vec normal = mul(load(x + i, n - i), scale);
            const vec g = mul(load(dy + i, n - i), load(weight + i, n - i));
            store(dx + i, mul(scale, minus_product(g, normal, mean)), n - i);
        }
    }
}

THINWIRE_TARGET_AVX2 inline void layer_norm(float* y, float* mean, float* rstd, const float* x, const float* weight,
                                            const float* bias, std::size_t rows, std::size_t n, float eps) noexcept {
    for (std::size_t r = 0; r < rows; ++r, x += n, y += n) {
        vec total = all(0.0F);
        for (std::size_t i = 0; i < n; i += width) total = add(total, load(x + i, n - i));
        mean[r] = sum(total) / static_cast<float>(n);
        const vec center = all(mean[r]);
        vec squares = all(0.0F);
        for (std::size_t i = 0; i < n; i += width) {
            const vec d = first_or(sub(load(x + i, n - i), center), all(0.0F), n - i);
            squares = fma(d, d, squares);
        }
        rstd[r] = 1.0F / std::sqrt(sum(squares) / static_cast<float>(n) + eps);
        const vec scale = all(rstd[r]);
        for (std::size_t i = 0; i < n; i += width) {
            const vec normal = mul(sub(load(x + i, n - i), center), scale);
            store(y + i, fma(normal, load(weight + i, n - i), load(bias + i, n - i)), n - i);
        }
    }
}

THINWIRE_TARGET_AVX2 inline void layer_norm_backward(float* dx, float* dweight, float* dbias, const float* dy,
                                                     const float* x, const float* weight, const float* mean,
                                                     const float* rstd, std::size_t rows, std::size_t n) noexcept {
    for (std::size_t r = 0; r < rows; ++r, dx += n, dy += n, x += n) {
        const vec center = all(mean[r]), scale = all(rstd[r]);
        vec total = all(0.0F), correlation = all(0.0F);
        for (std::size_t i = 0; i < n; i += width) {
            const vec d = load(dy + i, n - i);
            const vec product = mul(d, mul(sub(load(x + i, n - i), center), scale));
            store(dweight + i, add(load(dweight + i, n - i), product), n - i);
            store(dbias + i, add(load(dbias + i, n - i), d), n - i);
            const vec w = load(weight + i, n - i);
            total = fma(d, w, total);
            correlation = fma(product, w, correlation);
        }
        const vec mean_g = all(sum(total) / static_cast<float>(n));
        const vec mean_gx = all(sum(correlation) / static_cast<float>(n));
        for (std::size_t i = 0; i < n; i += width) {
            const vec normal = mul(sub(load(x + i, n - i), center), scale);
            const vec g = sub(mul(load(dy + i, n - i), load(weight + i, n - i)), mean_g);
            store(dx + i, mul(scale, minus_product(g, normal, mean_gx)), n - i);
        }
    }
}

THINWIRE_TARGET_AVX2 inline void rotate_pairs(float* low, float* high, const float* cosine, const float* sine,
                                              std::size_t half, bool inverse) noexcept {
    for (std::size_t i = 0; i < half; i += width) {
        const std::size_t left = half - i;
        const vec a = load(low + i, left), b = load(high + i, left), c = load(cosine + i, left);
        const vec s = inverse ? negate(load(sine + i, left)) : load(sine + i, left);
        store(low + i, minus_product(mul(a, c), b, s), left);
        store(high + i, fma(b, c, mul(a, s)), left);
    }
}

THINWIRE_TARGET_AVX2 inline double cross_entropy(float* logits, std::int32_t target, std::size_t n,
                                                 float gradient_scale) noexcept {
    vec top = all(logits[0]);
    for (std::size_t i = 0; i < n; i += width) top = _mm256_max_ps(top, first_or(load(logits + i, n - i), top, n - i));
    const vec most = all(maximum(top));
    vec total = all(0.0F);
    for (std::size_t i = 0; i < n; i += width)
        total = add(total, first_or(exp(sub(load(logits + i, n - i), most)), all(0.0F), n - i));
    const float whole = sum(total);
    const auto at = static_cast<std::size_t>(target);
    const double loss = std::log(static_cast<double>(whole)) + static_cast<double>(_mm256_cvtss_f32(most)) -
                        static_cast<double>(logits[at]);
    if (gradient_scale == 0.0F) return loss;
    const vec scale = all(gradient_scale / whole);
    for (std::size_t i = 0; i < n; i += width)
        store(logits + i, mul(exp(sub(load(logits + i, n - i), most)), scale), n - i);
    logits[at] -= gradient_scale;
    return loss;
}

THINWIRE_TARGET_AVX2 inline float softmax(float* s, std::size_t valid, std::size_t padded, float scale) noexcept {
    vec top = all(s[0]);
    for (std::size_t i = 0; i < valid; i += width)
        top = _mm256_max_ps(top, first_or(load(s + i, valid - i), top, valid - i));
    const float most = maximum(top) * scale;
    vec total = all(0.0F);
    for (std::size_t i = 0; i < valid; i += width) {
        const vec e = exp(_mm256_fmsub_ps(load(s + i, valid - i), all(scale), all(most)));
        const vec kept = first_or(e, all(0.0F), valid - i);
        total = add(total, kept);
        store(s + i, kept, valid - i);
    }
    const float whole = sum(total);
    const vec share = all(1.0F / whole);
    for (std::size_t i = 0; i < valid; i += width) store(s + i, mul(load(s + i, valid - i), share), valid - i);
    for (std::size_t i = valid; i < padded; ++i) s[i] = 0.0F;
    return most + std::log(whole);
}

THINWIRE_TARGET_AVX2 inline void softmax_backward(float* s, float* dp, std::size_t valid, std::size_t padded,
                                                  float scale, float lse) noexcept {
    vec whole = all(0.0F), product = all(0.0F);
    for (std::size_t i = 0; i < valid; i += width) {
        const std::size_t left = valid - i;
        const vec p = first_or(exp(_mm256_fmsub_ps(load(s + i, left), all(scale), all(lse))), all(0.0F), left);
        store(s + i, p, left);
        whole = add(whole, p);
        product = fma(p, load(dp + i, left), product);
    }
    const vec mean = all(sum(product) / sum(whole));
    for (std::size_t i = 0; i < valid; i += width) {
        const std::size_t left = valid - i;
        store(dp + i, mul(mul(load(s + i, left), all(scale)), sub(load(dp + i, left), mean)), left);
    }
    for (std::size_t i = valid; i < padded; ++i) s[i] = dp[i] = 0.0F;
}

THINWIRE_TARGET_AVX2 inline void silu_mul(float* y, const float* gate, const float* up, std::size_t n) noexcept {
    for (std::size_t i = 0; i < n; i += width) {
        const vec g = load(gate + i, n - i);
        store(y + i, mul(mul(g, sigmoid(g)), load(up + i, n - i)), n - i);
    }
}

THINWIRE_TARGET_AVX2 inline void silu_mul_backward(float* dgate, float* dup, const float* dy, const float* gate,
                                                   const float* up, std::size_t n) noexcept {
    for (std::size_t i = 0; i < n; i += width) {
        const vec g = load(gate + i, n - i), d = load(dy + i, n - i), u = load(up + i, n - i);
        const vec share = sigmoid(g);
        const vec silu = mul(g, share);
        const vec slope = fma(silu, sub(all(1.0F), share), share);
        store(dgate + i, mul(mul(d, u), slope), n - i);
        store(dup + i, mul(d, silu), n - i);
    }
}

/// tanh's argument in gelu's second form is half of this: sqrt(8/pi) (x + 0.044715 x^3).
THINWIRE_AVX2_INLINE vec gelu_argument(vec x) noexcept {
    return mul(x, fma(mul(x, x), all(1.59576912F * 0.044715F), all(1.59576912F)));
}

THINWIRE_TARGET_AVX2 inline void gelu(float* y, const float* x, std::size_t n, bool tanh_form) noexcept {
    for (std::size_t i = 0; i < n; i += width) {
        const vec v = load(x + i, n - i);
        store(y + i, mul(v, tanh_form ? sigmoid(gelu_argument(v)) : normal_cdf(v)), n - i);
    }
}

THINWIRE_TARGET_AVX2 inline void gelu_backward(float* dx, const float* dy, const float* x, std::size_t n,
                                               bool tanh_form) noexcept {
    for (std::size_t i = 0; i < n; i += width) {
        const vec v = load(x + i, n - i);
        vec slope;
        if (tanh_form) {
            const vec share = sigmoid(gelu_argument(v));
            const vec inner = fma(mul(v, v), all(3.0F * 1.59576912F * 0.044715F), all(1.59576912F));
            slope = fma(mul(mul(v, share), sub(all(1.0F), share)), inner, share);
        } else {
            const vec density = mul(all(0.39894228F), exp(mul(mul(v, v), all(-0.5F))));
            slope = fma(v, density, normal_cdf(v));
        }
        store(dx + i, mul(load(dy + i, n - i), slope), n - i);
    }
}

}  // namespace thinwire::cpu::detail::avx2

#endif
#endif  // THINWIRE_BACKEND_CPU_DETAIL_AVX2_ROWS_HPP
