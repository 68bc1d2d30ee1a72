// thinwire 0.1.0 in one file, written by tools/amalgamate.py from include/thinwire. Change those instead.
//
// MIT License
//
// Copyright (c) 2026 thinwire contributors
//
// Permission is hereby granted, free of charge, to any person obtaining a copy
// of this software and associated documentation files (the "Software"), to deal
// in the Software without restriction, including without limitation the rights
// to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
// copies of the Software, and to permit persons to whom the Software is
// furnished to do so, subject to the following conditions:
//
// The above copyright notice and this permission notice shall be included in all
// copies or substantial portions of the Software.
//
// THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
// IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
// FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
// AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
// LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
// OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
// SOFTWARE.

// ---- thinwire/backend/cpu/buffer.hpp
#ifndef THINWIRE_BACKEND_CPU_BUFFER_HPP
#define THINWIRE_BACKEND_CPU_BUFFER_HPP

#include <algorithm>
#include <cstddef>
#include <limits>
#include <memory>
#include <new>
#include <utility>

namespace thinwire::cpu {

/// Owns numbers in host memory that begin at a multiple of 64 bytes, a cache line. Zero-filled when made.
template <class T>
class aligned_buffer {
 public:
    static constexpr std::size_t alignment = 64;

    aligned_buffer() = default;
    explicit aligned_buffer(std::size_t size)
        : data_(size == 0 ? nullptr : static_cast<T*>(::operator new (bytes(size), std::align_val_t{alignment}))),
          size_(size) {
        std::fill_n(data_.get(), size, T{});
    }
    aligned_buffer(aligned_buffer&& other) noexcept : data_(std::move(other.data_)), size_(other.size_) {
        other.size_ = 0;
    }
    aligned_buffer& operator=(aligned_buffer&& other) noexcept {
        data_ = std::move(other.data_);
        size_ = std::exchange(other.size_, 0);
        return *this;
    }

    [[nodiscard]] T* data() noexcept { return data_.get(); }
    [[nodiscard]] const T* data() const noexcept { return data_.get(); }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }

 private:
    static std::size_t bytes(std::size_t size) {
        if (size > std::numeric_limits<std::size_t>::max() / sizeof(T)) throw std::bad_array_new_length();
        return size * sizeof(T);
    }

    struct release {
        void operator()(T* p) const noexcept { ::operator delete (p, std::align_val_t{alignment}); }
    };
    std::unique_ptr<T[], release> data_;
    std::size_t size_ = 0;
};

}  // namespace thinwire::cpu

#endif  // THINWIRE_BACKEND_CPU_BUFFER_HPP

// ---- thinwire/config.hpp
#ifndef THINWIRE_CONFIG_HPP
#define THINWIRE_CONFIG_HPP

#if defined(_MSVC_LANG) ? (_MSVC_LANG < 202002L) : (__cplusplus < 202002L)
#error "thinwire needs C++20: compile with -std=c++20 or later (target_link_libraries(... thinwire::thinwire) does it)."
#endif

#if (defined(__x86_64__) || defined(_M_X64)) && (defined(__GNUC__) || defined(__clang__))
/// 1 where functions can be compiled for an instruction set of their own and chosen at run time.
#define THINWIRE_X86_DISPATCH 1
#define THINWIRE_TARGET_AVX2 __attribute__((target("avx2,fma")))
#define THINWIRE_TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#else
#define THINWIRE_X86_DISPATCH 0
#endif

#if defined(__GNUC__) || defined(__clang__)
#define THINWIRE_RESTRICT __restrict__
#define THINWIRE_ALWAYS_INLINE inline __attribute__((always_inline))
#else
#define THINWIRE_RESTRICT
#define THINWIRE_ALWAYS_INLINE inline
#endif

/// Stands before the few functions that kernels of a device share with the host.
#if defined(__CUDACC__)
#define THINWIRE_HOST_DEVICE __host__ __device__
#else
#define THINWIRE_HOST_DEVICE
#endif

#endif  // THINWIRE_CONFIG_HPP

// ---- thinwire/backend/cpu/detail/packing.hpp
#ifndef THINWIRE_BACKEND_CPU_DETAIL_PACKING_HPP
#define THINWIRE_BACKEND_CPU_DETAIL_PACKING_HPP

#include <algorithm>
#include <cstddef>

#if THINWIRE_X86_DISPATCH
#include <xmmintrin.h>
#endif

namespace thinwire::cpu::detail {

/// One side of a matrix product: `line` runs over its rows (left side) or columns (right side), `step` over the
/// summed index. Element (line, step) is data[line * line_stride + step * step_stride].
struct operand {
    const float* data;
    std::size_t line_stride;
    std::size_t step_stride;

    [[nodiscard]] operand at(std::size_t line, std::size_t step) const noexcept {
        return {data + line * line_stride + step * step_stride, line_stride, step_stride};
    }
};

/// Writes up to `Width` lines as a panel: element (line, step) to to[step * Width + line], missing lines as zeros.
template <std::size_t Width>
void pack_panel_plain(float* to, operand from, std::size_t lines, std::size_t first, std::size_t steps) noexcept {
    for (std::size_t s = first; s < steps; ++s) {
        for (std::size_t i = 0; i < lines; ++i)
            to[s * Width + i] = from.data[i * from.line_stride + s * from.step_stride];
        for (std::size_t i = lines; i < Width; ++i) to[s * Width + i] = 0.0F;
    }
}

#if THINWIRE_X86_DISPATCH

/// Full panel of lines that are contiguous along the step: transposed four by four. Returns the steps done.
template <std::size_t Width>
std::size_t pack_panel_transposed(float* to, operand from, std::size_t steps) noexcept {
    const std::size_t stride = from.line_stride;
    std::size_t s = 0;
    for (; s + 4 <= steps; s += 4) {
        for (std::size_t i = 0; i + 4 <= Width; i += 4) {
            const float* p = from.data + i * stride + s;
            __m128 a = _mm_loadu_ps(p);
            __m128 b = _mm_loadu_ps(p + stride);
            __m128 c = _mm_loadu_ps(p + 2 * stride);
            __m128 d = _mm_loadu_ps(p + 3 * stride);
            _MM_TRANSPOSE4_PS(a, b, c, d);
            float* q = to + s * Width + i;
            _mm_storeu_ps(q, a);
            _mm_storeu_ps(q + Width, b);
            _mm_storeu_ps(q + 2 * Width, c);
            _mm_storeu_ps(q + 3 * Width, d);
        }
        for (std::size_t i = Width / 4 * 4; i < Width; ++i)
            for (std::size_t j = 0; j < 4; ++j) to[(s + j) * Width + i] = from.data[i * stride + s + j];
    }
    return s;
}

/// Full panel whose lines lie beside each other at every step: rows copied.
template <std::size_t Width>
std::size_t pack_panel_copied(float* to, operand from, std::size_t steps) noexcept {
    constexpr std::size_t ahead = 12;  // steps: rows lie far apart, where the hardware does not look ahead
    for (std::size_t s = 0; s < steps; ++s) {
        const float* p = from.data + s * from.step_stride;
        float* q = to + s * Width;
        for (std::size_t i = 0; i < Width && s + ahead < steps; i += 16)
            _mm_prefetch(reinterpret_cast<const char*>(p + ahead * from.step_stride + i), _MM_HINT_T0);
        std::size_t i = 0;
        for (; i + 4 <= Width; i += 4) _mm_storeu_ps(q + i, _mm_loadu_ps(p + i));
        for (; i < Width; ++i) q[i] = p[i];
    }
    return steps;
}

#endif

/// Packs `lines` lines of `steps` steps as consecutive panels of `Width` lines, the last one filled up with zeros.
template <std::size_t Width>
void pack(float* to, operand from, std::size_t lines, std::size_t steps) noexcept {
    for (std::size_t line = 0; line < lines; line += Width) {
        const operand panel = from.at(line, 0);
        const std::size_t count = std::min(Width, lines - line);
        std::size_t done = 0;
#if THINWIRE_X86_DISPATCH
        if (count == Width && from.step_stride == 1)
            done = pack_panel_transposed<Width>(to, panel, steps);
        else if (count == Width && from.line_stride == 1)
            done = pack_panel_copied<Width>(to, panel, steps);
#endif
        pack_panel_plain<Width>(to, panel, count, done, steps);
        to += Width * steps;
    }
}

}  // namespace thinwire::cpu::detail

#endif  // THINWIRE_BACKEND_CPU_DETAIL_PACKING_HPP

// ---- thinwire/backend/cpu/detail/tile_common.hpp
#ifndef THINWIRE_BACKEND_CPU_DETAIL_TILE_COMMON_HPP
#define THINWIRE_BACKEND_CPU_DETAIL_TILE_COMMON_HPP

#include <cstddef>

/// Full unrolling of short loops over register arrays: GCC keeps such arrays in memory without it.
#if defined(__clang__)
#define THINWIRE_UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#define THINWIRE_UNROLL _Pragma("GCC unroll 16")
#else
#define THINWIRE_UNROLL
#endif

namespace thinwire::cpu::detail {

/// Where a micro-kernel puts its product: rows at multiples of `stride`, written or added.
struct tile_target {
    float* data;
    std::size_t stride;
    bool accumulate;
};

/// Part of a tile that was computed into a buffer of `width` columns goes to where it belongs.
inline void put_partial(tile_target c, const float* from, std::size_t width, std::size_t rows,
                        std::size_t columns) noexcept {
    for (std::size_t i = 0; i < rows; ++i) {
        float* to = c.data + i * c.stride;
        for (std::size_t j = 0; j < columns; ++j) to[j] = (c.accumulate ? to[j] : 0.0F) + from[i * width + j];
    }
}

}  // namespace thinwire::cpu::detail

#endif  // THINWIRE_BACKEND_CPU_DETAIL_TILE_COMMON_HPP

// ---- thinwire/backend/cpu/detail/gemm.hpp
#ifndef THINWIRE_BACKEND_CPU_DETAIL_GEMM_HPP
#define THINWIRE_BACKEND_CPU_DETAIL_GEMM_HPP

#include <algorithm>
#include <cstddef>
#include <limits>

namespace thinwire::cpu::detail {

/// The parts of a matrix product that depend on the instruction set.
struct gemm_kernels {
    std::size_t rows;     ///< of a tile
    std::size_t columns;  ///< of a tile
    void (*tile)(std::size_t steps, const float* a, const float* b, tile_target c, std::size_t m,
                 std::size_t n) noexcept;
    void (*pack_left)(float* to, operand from, std::size_t lines, std::size_t steps) noexcept;
    void (*pack_right)(float* to, operand from, std::size_t lines, std::size_t steps) noexcept;
};

template <class Tile>
constexpr gemm_kernels gemm_kernels_of = {Tile::rows, Tile::columns, Tile::run, pack<Tile::rows>, pack<Tile::columns>};

[[nodiscard]] constexpr std::size_t divide_up(std::size_t a, std::size_t b) noexcept {
    return (a + b - 1) / b;
}
[[nodiscard]] constexpr std::size_t round_up(std::size_t a, std::size_t b) noexcept {
    return divide_up(a, b) * b;
}

/// Packed sides and the size of their product. Panels of b begin at multiples of b_panel_stride floats. Tiles that
/// lie wholly right of the diagonal (column > row + diagonal) are left alone.
struct packed_product {
    const float* a;
    const float* b;
    std::size_t m, n, steps;
    std::size_t b_panel_stride;
    std::size_t diagonal = std::numeric_limits<std::size_t>::max() / 2;
};

inline void multiply_packed(const gemm_kernels& kernels, tile_target c, const packed_product& p) noexcept {
    for (std::size_t j = 0; j < p.n; j += kernels.columns) {
        const float* b = p.b + j / kernels.columns * p.b_panel_stride;
        const std::size_t n = std::min(kernels.columns, p.n - j);
        for (std::size_t i = 0; i < p.m; i += kernels.rows) {
            const std::size_t m = std::min(kernels.rows, p.m - i);
            if (j > i + m - 1 + p.diagonal) continue;
            kernels.tile(p.steps, p.a + i * p.steps, b, {c.data + i * c.stride + j, c.stride, c.accumulate}, m, n);
        }
    }
}

/// Block sizes in elements: a packed block of the left side stays in the L2 cache (144 x 256 floats: 147 KB), a panel
/// of the right side (256 x 32 floats) in L1. The sum is cut at the same steps whatever the threads and the blocks.
struct gemm_blocking {
    static constexpr std::size_t lines_left = 144;
    static constexpr std::size_t lines_right = 2048;
    static constexpr std::size_t steps = 256;
};

/// How multiply() cuts a product, and the scratch that it needs.
struct gemm_plan {
    std::size_t step_block, left_block, right_block;

    gemm_plan(const gemm_kernels& kernels, std::size_t m, std::size_t n, std::size_t steps) noexcept
        : step_block(divide_up(steps, divide_up(steps, gemm_blocking::steps))),
          left_block(std::min(gemm_blocking::lines_left, round_up(m, kernels.rows))),
          right_block(std::min(gemm_blocking::lines_right, round_up(n, kernels.columns))) {}
    [[nodiscard]] std::size_t left_size() const noexcept { return round_up(left_block * step_block, 16); }
    [[nodiscard]] std::size_t scratch_size() const noexcept { return left_size() + right_block * step_block; }
};

/// c[m, n] = (or +=) a b on one thread. steps >= 1; scratch: gemm_plan(kernels, m, n, steps).scratch_size() floats.
inline void multiply(const gemm_kernels& kernels, tile_target c, operand a, operand b, std::size_t m, std::size_t n,
                     std::size_t steps, float* scratch) noexcept {
    const gemm_plan plan(kernels, m, n, steps);
    float* const left = scratch;
    float* const right = scratch + plan.left_size();
    for (std::size_t j = 0; j < n; j += plan.right_block) {
        const std::size_t nj = std::min(plan.right_block, n - j);
        for (std::size_t s = 0; s < steps; s += plan.step_block) {
            const std::size_t ns = std::min(plan.step_block, steps - s);
            kernels.pack_right(right, b.at(j, s), nj, ns);
            for (std::size_t i = 0; i < m; i += plan.left_block) {
                const std::size_t mi = std::min(plan.left_block, m - i);
                kernels.pack_left(left, a.at(i, s), mi, ns);
                multiply_packed(
                    kernels, {c.data + i * c.stride + j, c.stride, c.accumulate || s > 0},
                    {.a = left, .b = right, .m = mi, .n = nj, .steps = ns, .b_panel_stride = ns * kernels.columns});
            }
        }
    }
}

}  // namespace thinwire::cpu::detail

#endif  // THINWIRE_BACKEND_CPU_DETAIL_GEMM_HPP

// ---- thinwire/backend/cpu/detail/avx2_math.hpp
#ifndef THINWIRE_BACKEND_CPU_DETAIL_AVX2_MATH_HPP
#define THINWIRE_BACKEND_CPU_DETAIL_AVX2_MATH_HPP

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

// ---- thinwire/backend/cpu/detail/avx2_rows.hpp
#ifndef THINWIRE_BACKEND_CPU_DETAIL_AVX2_ROWS_HPP
#define THINWIRE_BACKEND_CPU_DETAIL_AVX2_ROWS_HPP

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

// ---- thinwire/backend/cpu/detail/avx2_tile.hpp
#ifndef THINWIRE_BACKEND_CPU_DETAIL_AVX2_TILE_HPP
#define THINWIRE_BACKEND_CPU_DETAIL_AVX2_TILE_HPP

#include <cstddef>

#if THINWIRE_X86_DISPATCH
#include <immintrin.h>

namespace thinwire::cpu::detail {

/// Micro-kernel for AVX2: 6 rows by 16 columns in 12 of the 16 registers.
struct avx2_tile {
    static constexpr std::size_t rows = 6;
    static constexpr std::size_t columns = 16;

    /// c = (or +=) the sum over `steps` of the outer products of a's and b's panel rows; the first `m` rows and `n`
    /// columns of it.
    static void run(std::size_t steps, const float* a, const float* b, tile_target c, std::size_t m,
                    std::size_t n) noexcept {
        const bool wide = n > 8;
        const auto part = m > 4   ? (wide ? part_of<6, 2> : part_of<6, 1>)
                          : m > 2 ? (wide ? part_of<4, 2> : part_of<4, 1>)
                                  : (wide ? part_of<2, 2> : part_of<2, 1>);
        if (m % 2 == 0 && n % 8 == 0) return part(steps, a, b, c);
        alignas(32) float whole[rows * columns];
        part(steps, a, b, {whole, columns, false});
        put_partial(c, whole, columns, m, n);
    }

 private:
    template <std::size_t Rows, std::size_t Vectors>
    THINWIRE_TARGET_AVX2 static void part_of(std::size_t steps, const float* a, const float* b,
                                             tile_target c) noexcept {
        __m256 sum[Rows][Vectors];
        THINWIRE_UNROLL
        for (std::size_t i = 0; i < Rows; ++i) {
            THINWIRE_UNROLL
            for (std::size_t j = 0; j < Vectors; ++j) sum[i][j] = _mm256_setzero_ps();
        }
        for (std::size_t s = 0; s < steps; ++s, a += rows, b += columns) {
            __m256 right[Vectors];
            THINWIRE_UNROLL
            for (std::size_t j = 0; j < Vectors; ++j) right[j] = _mm256_loadu_ps(b + 8 * j);
            THINWIRE_UNROLL
            for (std::size_t i = 0; i < Rows; ++i) {
                const __m256 left = _mm256_set1_ps(a[i]);
                THINWIRE_UNROLL
                for (std::size_t j = 0; j < Vectors; ++j) sum[i][j] = _mm256_fmadd_ps(left, right[j], sum[i][j]);
            }
        }
        THINWIRE_UNROLL
        for (std::size_t i = 0; i < Rows; ++i) {
            THINWIRE_UNROLL
            for (std::size_t j = 0; j < Vectors; ++j) {
                float* to = c.data + i * c.stride + 8 * j;
                _mm256_storeu_ps(to, c.accumulate ? _mm256_add_ps(_mm256_loadu_ps(to), sum[i][j]) : sum[i][j]);
            }
        }
    }
};

}  // namespace thinwire::cpu::detail

#endif
#endif  // THINWIRE_BACKEND_CPU_DETAIL_AVX2_TILE_HPP

// ---- thinwire/backend/cpu/detail/avx512_tile.hpp
#ifndef THINWIRE_BACKEND_CPU_DETAIL_AVX512_TILE_HPP
#define THINWIRE_BACKEND_CPU_DETAIL_AVX512_TILE_HPP

#include <cstddef>

#if THINWIRE_X86_DISPATCH
#include <immintrin.h>

namespace thinwire::cpu::detail {

/// Micro-kernel for AVX-512: 12 rows by 32 columns in 24 of the 32 registers.
struct avx512_tile {
    static constexpr std::size_t rows = 12;
    static constexpr std::size_t columns = 32;

    /// c = (or +=) the sum over `steps` of the outer products of a's and b's panel rows; the first `m` rows and `n`
    /// columns of it.
    static void run(std::size_t steps, const float* a, const float* b, tile_target c, std::size_t m,
                    std::size_t n) noexcept {
        const bool wide = n > 16;
        const auto part = m > 8   ? (wide ? part_of<12, 2> : part_of<12, 1>)
                          : m > 4 ? (wide ? part_of<8, 2> : part_of<8, 1>)
                                  : (wide ? part_of<4, 2> : part_of<4, 1>);
        if (m % 4 == 0 && n % 16 == 0) return part(steps, a, b, c);
        alignas(64) float whole[rows * columns];
        part(steps, a, b, {whole, columns, false});
        put_partial(c, whole, columns, m, n);
    }

 private:
    template <std::size_t Rows, std::size_t Vectors>
    THINWIRE_TARGET_AVX512 static void part_of(std::size_t steps, const float* a, const float* b,
                                               tile_target c) noexcept {
        __m512 sum[Rows][Vectors];
        THINWIRE_UNROLL
        for (std::size_t i = 0; i < Rows; ++i) {
            THINWIRE_UNROLL
            for (std::size_t j = 0; j < Vectors; ++j) sum[i][j] = _mm512_setzero_ps();
        }
        for (std::size_t s = 0; s < steps; ++s, a += rows, b += columns) {
            __m512 right[Vectors];
            THINWIRE_UNROLL
            for (std::size_t j = 0; j < Vectors; ++j) right[j] = _mm512_loadu_ps(b + 16 * j);
            THINWIRE_UNROLL
            for (std::size_t i = 0; i < Rows; ++i) {
                const __m512 left = _mm512_set1_ps(a[i]);
                THINWIRE_UNROLL
                for (std::size_t j = 0; j < Vectors; ++j) sum[i][j] = _mm512_fmadd_ps(left, right[j], sum[i][j]);
            }
        }
        THINWIRE_UNROLL
        for (std::size_t i = 0; i < Rows; ++i) {
            THINWIRE_UNROLL
            for (std::size_t j = 0; j < Vectors; ++j) {
                float* to = c.data + i * c.stride + 16 * j;
                _mm512_storeu_ps(to, c.accumulate ? _mm512_add_ps(_mm512_loadu_ps(to), sum[i][j]) : sum[i][j]);
            }
        }
    }
};

}  // namespace thinwire::cpu::detail

#endif
#endif  // THINWIRE_BACKEND_CPU_DETAIL_AVX512_TILE_HPP

// ---- thinwire/nn/backend.hpp
#ifndef THINWIRE_NN_BACKEND_HPP
#define THINWIRE_NN_BACKEND_HPP

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

namespace thinwire::nn {

/// Sizes of one causal attention call. Token (b, t) is row b * tokens + t. Row r of q begins at q + r * q_stride and
/// holds `heads` vectors of `head_dim`; k and v hold `kv_heads` vectors at their strides; query head h reads
/// key/value head h / (heads / kv_heads). Rows of o and its gradient begin at multiples of o_stride.
struct attention_shape {
    int batch = 0;
    int tokens = 0;
    int heads = 0;
    int kv_heads = 0;
    int head_dim = 0;
    int q_stride = 0;
    int kv_stride = 0;
    int o_stride = 0;
};

/// What a transformer asks of the thing that computes. All tensors are float32, row-major and contiguous unless a
/// stride is named; sizes are in elements. "Adds" means accumulates into what is there. Outputs may alias inputs only
/// where said. ids and targets lie in host memory. Calls take effect in order. Every operation has its plain definition
/// in backend/cpu/reference.hpp, against which each back end is checked by the same tests.
template <class B>
concept backend = requires(B& b, float* y, const float* x, const std::int32_t* ids, int n, float a, bool flag,
                           attention_shape s, std::span<float> out, std::span<const float> in) {
    typename B::buffer;  // owns floats where the back end computes; default-constructible, movable; data(), size()
    { b.allocate(std::size_t{}) } -> std::same_as<typename B::buffer>;  // zero-filled
    // matmul(c, a, b, m, n, k, transpose_a, transpose_b, accumulate): c[m,n] = (or +=) op(a)[m,k] op(b)[k,n].
    b.matmul(y, x, x, n, n, n, flag, flag, flag);
    // add_bias(y, bias, rows, columns): every row of y += bias.  bias_backward(db, dy, rows, columns): adds column
    // sums.
    b.add_bias(y, x, n, n);
    b.bias_backward(y, x, n, n);
    // add(y, x, n): y += x.   copy(y, x, n).   fill(y, value, n).
    b.add(y, x, std::size_t{});
    b.copy(y, x, std::size_t{});
    b.fill(y, a, std::size_t{});
    // rms_norm(y, rstd, x, weight, rows, columns, eps): rstd has `rows` entries, kept for the backward pass.
    // rms_norm_backward(dx, dweight, dy, x, weight, rstd, rows, columns): writes dx (may be dy), adds dweight.
    b.rms_norm(y, y, x, x, n, n, a);
    b.rms_norm_backward(y, y, x, x, x, x, n, n);
    // layer_norm(y, mean, rstd, x, weight, bias, rows, columns, eps) and its backward:
    // layer_norm_backward(dx, dweight, dbias, dy, x, weight, mean, rstd, rows, columns): writes dx, adds the others.
    b.layer_norm(y, y, y, x, x, x, n, n, a);
    b.layer_norm_backward(y, y, y, x, x, x, x, x, n, n);
    // rope(x, cosine, sine, rows, tokens, heads, head_dim, stride, first_position, inverse): rotates in place the pairs
    // (i, i + head_dim/2) of every head; row r has position first_position + r % tokens; the tables hold head_dim/2
    // entries a position; inverse rotates back (the backward pass).
    b.rope(y, x, x, n, n, n, n, n, n, flag);
    // attention(o, lse, q, k, v, shape): o = softmax(q k^T / sqrt(head_dim), causal) v; lse[(b*heads+h)*tokens+t] is
    // the log-sum-exp of a row's scaled scores, kept for the backward pass.
    // attention_backward(dq, dk, dv, do, q, k, v, o, lse, shape): writes dq, dk, dv (strides as q, k, v).
    b.attention(y, y, x, x, x, s);
    b.attention_backward(y, y, y, x, x, x, x, x, x, s);
    // silu_mul(y, gate, up, n): y = silu(gate) * up.  silu_mul_backward(dgate, dup, dy, gate, up, n): writes both.
    b.silu_mul(y, x, x, std::size_t{});
    b.silu_mul_backward(y, y, x, x, x, std::size_t{});
    // gelu(y, x, n, tanh_form) and gelu_backward(dx, dy, x, n, tanh_form): dx may be dy.
    b.gelu(y, x, std::size_t{}, flag);
    b.gelu_backward(y, x, x, std::size_t{}, flag);
    // embedding(y, table, ids, rows, columns): row lookup.  embedding_backward(dtable, dy, ids, rows, columns): adds.
    b.embedding(y, x, ids, n, n);
    b.embedding_backward(y, x, ids, n, n);
    // cross_entropy(logits, targets, rows, vocabulary, gradient_scale) -> double: the sum over rows with target >= 0
    // of -log softmax(logits)[target]; overwrites logits with gradient_scale * d(sum)/d(logits) (rows with a negative
    // target get zeros) when gradient_scale != 0, and leaves logits alone otherwise.
    { b.cross_entropy(y, ids, n, n, a) } -> std::convertible_to<double>;
    // upload(to, from) and download(to, from): between host memory and the back end's.
    b.upload(y, in);
    b.download(out, x);
};

}  // namespace thinwire::nn

#endif  // THINWIRE_NN_BACKEND_HPP

// ---- thinwire/backend/cpu/reference.hpp
#ifndef THINWIRE_BACKEND_CPU_REFERENCE_HPP
#define THINWIRE_BACKEND_CPU_REFERENCE_HPP

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <span>
#include <vector>

namespace thinwire::cpu {

/// The plain definition of every operation of nn::backend: loops in the order of the formula, sums in double.
/// Every other back end is tested against it. `Number` is float where it serves as a back end, and double where a
/// test wants finite differences. One object serves one thread at a time.
template <class Number>
class basic_reference {
 public:
    using buffer = aligned_buffer<Number>;

    [[nodiscard]] buffer allocate(std::size_t size) { return buffer(size); }
    void upload(Number* to, std::span<const Number> from) { std::copy(from.begin(), from.end(), to); }
    void download(std::span<Number> to, const Number* from) { std::copy_n(from, to.size(), to.begin()); }

    void matmul(Number* c, const Number* a, const Number* b, int m, int n, int k, bool transpose_a, bool transpose_b,
                bool accumulate) {
        for (int i = 0; i < m; ++i) {
            for (int j = 0; j < n; ++j) {
                double sum = 0;
                for (int p = 0; p < k; ++p) {
                    const Number left = transpose_a ? a[at(p, m, i)] : a[at(i, k, p)];
                    const Number right = transpose_b ? b[at(j, k, p)] : b[at(p, n, j)];
                    sum += static_cast<double>(left) * static_cast<double>(right);
                }
                Number& out = c[at(i, n, j)];
                out = accumulate ? static_cast<Number>(static_cast<double>(out) + sum) : static_cast<Number>(sum);
            }
        }
    }

    void add_bias(Number* y, const Number* bias, int rows, int columns) {
        for (int r = 0; r < rows; ++r)
            for (int j = 0; j < columns; ++j) y[at(r, columns, j)] += bias[j];
    }
    void bias_backward(Number* dbias, const Number* dy, int rows, int columns) {
        for (int j = 0; j < columns; ++j) {
            double sum = 0;
            for (int r = 0; r < rows; ++r) sum += static_cast<double>(dy[at(r, columns, j)]);
            dbias[j] = static_cast<Number>(static_cast<double>(dbias[j]) + sum);
        }
    }

    void add(Number* y, const Number* x, std::size_t n) {
        for (std::size_t i = 0; i < n; ++i) y[i] += x[i];
    }
    void copy(Number* y, const Number* x, std::size_t n) { std::copy_n(x, n, y); }
    void fill(Number* y, Number value, std::size_t n) { std::fill_n(y, n, value); }

    void rms_norm(Number* y, Number* rstd, const Number* x, const Number* weight, int rows, int columns, Number eps) {
        for (int r = 0; r < rows; ++r) {
            const Number* row = x + at(r, columns);
            double square = 0;
            for (int j = 0; j < columns; ++j) square += wide(row[j]) * wide(row[j]);
            const double scale = 1.0 / std::sqrt(square / columns + wide(eps));
            rstd[r] = static_cast<Number>(scale);
            for (int j = 0; j < columns; ++j)
                y[at(r, columns, j)] = static_cast<Number>(wide(row[j]) * scale * wide(weight[j]));
        }
    }
    void rms_norm_backward(Number* dx, Number* dweight, const Number* dy, const Number* x, const Number* weight,
                           const Number* rstd, int rows, int columns) {
        std::vector<double> dw(static_cast<std::size_t>(columns), 0.0);
        for (int r = 0; r < rows; ++r) {
            const double scale = wide(rstd[r]);
            double dot = 0;  // of the gradient towards the normalised row with that row
            for (int j = 0; j < columns; ++j) {
                const double normal = wide(x[at(r, columns, j)]) * scale;
                const double g = wide(dy[at(r, columns, j)]);
                dot += g * wide(weight[j]) * normal;
                dw[static_cast<std::size_t>(j)] += g * normal;
            }
            for (int j = 0; j < columns; ++j) {
                const double normal = wide(x[at(r, columns, j)]) * scale;
                const double g = wide(dy[at(r, columns, j)]) * wide(weight[j]);
                dx[at(r, columns, j)] = static_cast<Number>(scale * (g - normal * dot / columns));
            }
        }
        add_to(dweight, dw);
    }

    void layer_norm(Number* y, Number* mean, Number* rstd, const Number* x, const Number* weight, const Number* bias,
                    int rows, int columns, Number eps) {
        for (int r = 0; r < rows; ++r) {
            const Number* row = x + at(r, columns);
            double sum = 0;
            for (int j = 0; j < columns; ++j) sum += wide(row[j]);
            const double centre = sum / columns;
            double variance = 0;
            for (int j = 0; j < columns; ++j) variance += (wide(row[j]) - centre) * (wide(row[j]) - centre);
            const double scale = 1.0 / std::sqrt(variance / columns + wide(eps));
            mean[r] = static_cast<Number>(centre);
            rstd[r] = static_cast<Number>(scale);
            for (int j = 0; j < columns; ++j)
                y[at(r, columns, j)] =
                    static_cast<Number>((wide(row[j]) - centre) * scale * wide(weight[j]) + wide(bias[j]));
        }
    }
    void layer_norm_backward(Number* dx, Number* dweight, Number* dbias, const Number* dy, const Number* x,
                             const Number* weight, const Number* mean, const Number* rstd, int rows, int columns) {
        std::vector<double> dw(static_cast<std::size_t>(columns), 0.0);
        std::vector<double> db(static_cast<std::size_t>(columns), 0.0);
        for (int r = 0; r < rows; ++r) {
            const double centre = wide(mean[r]);
            const double scale = wide(rstd[r]);
            double dot = 0;  // of the gradient towards the normalised row with that row
            double sum = 0;  // of that gradient
            for (int j = 0; j < columns; ++j) {
                const double normal = (wide(x[at(r, columns, j)]) - centre) * scale;
                const double g = wide(dy[at(r, columns, j)]);
                dot += g * wide(weight[j]) * normal;
                sum += g * wide(weight[j]);
                dw[static_cast<std::size_t>(j)] += g * normal;
                db[static_cast<std::size_t>(j)] += g;
            }
            for (int j = 0; j < columns; ++j) {
                const double normal = (wide(x[at(r, columns, j)]) - centre) * scale;
                const double g = wide(dy[at(r, columns, j)]) * wide(weight[j]);
                dx[at(r, columns, j)] = static_cast<Number>(scale * (g - (sum + normal * dot) / columns));
            }
        }
        add_to(dweight, dw);
        add_to(dbias, db);
    }

    void rope(Number* x, const Number* cosine, const Number* sine, int rows, int tokens, int heads, int head_dim,
              int stride, int first_position, bool inverse) {
        const int half = head_dim / 2;
        for (int r = 0; r < rows; ++r) {
            const int position = first_position + r % tokens;
            for (int h = 0; h < heads; ++h) {
                Number* head = x + at(r, stride, h * head_dim);
                for (int i = 0; i < half; ++i) {
                    const Number c = cosine[at(position, half, i)];
                    const Number s = inverse ? -sine[at(position, half, i)] : sine[at(position, half, i)];
                    const Number first = head[i];
                    const Number second = head[i + half];
                    head[i] = first * c - second * s;
                    head[i + half] = second * c + first * s;
                }
            }
        }
    }

    void attention(Number* o, Number* lse, const Number* q, const Number* k, const Number* v, nn::attention_shape s) {
        std::vector<double> score(static_cast<std::size_t>(s.tokens));
        std::vector<double> out(static_cast<std::size_t>(s.head_dim));
        for_each_query(s, [&](const query_place& p) {
            double largest = -HUGE_VAL;
            for (int j = 0; j <= p.token; ++j) {
                const double x = scaled_score(q + p.query, k + p.key(j), s.head_dim);
                score[static_cast<std::size_t>(j)] = x;
                largest = std::max(largest, x);
            }
            double total = 0;
            std::fill(out.begin(), out.end(), 0.0);
            for (int j = 0; j <= p.token; ++j) {
                const double weight = std::exp(score[static_cast<std::size_t>(j)] - largest);
                total += weight;
                for (int i = 0; i < s.head_dim; ++i)
                    out[static_cast<std::size_t>(i)] += weight * wide(v[p.key(j) + static_cast<std::size_t>(i)]);
            }
            for (int i = 0; i < s.head_dim; ++i)
                o[p.output + static_cast<std::size_t>(i)] =
                    static_cast<Number>(out[static_cast<std::size_t>(i)] / total);
            lse[p.row] = static_cast<Number>(largest + std::log(total));
        });
    }
    void attention_backward(Number* dq, Number* dk, Number* dv, const Number* dout, const Number* q, const Number* k,
                            const Number* v, const Number* o, const Number* lse, nn::attention_shape s) {
        clear_heads(dq, s.batch * s.tokens, s.q_stride, s.heads * s.head_dim);
        clear_heads(dk, s.batch * s.tokens, s.kv_stride, s.kv_heads * s.head_dim);
        clear_heads(dv, s.batch * s.tokens, s.kv_stride, s.kv_heads * s.head_dim);
        const double scale = 1.0 / std::sqrt(static_cast<double>(s.head_dim));
        const auto width = static_cast<std::size_t>(s.head_dim);
        for_each_query(s, [&](const query_place& p) {
            double delta = 0;
            for (std::size_t i = 0; i < width; ++i) delta += wide(dout[p.output + i]) * wide(o[p.output + i]);
            for (int j = 0; j <= p.token; ++j) {
                const std::size_t key = p.key(j);
                const double weight = std::exp(scaled_score(q + p.query, k + key, s.head_dim) - wide(lse[p.row]));
                double dweight = 0;
                for (std::size_t i = 0; i < width; ++i) dweight += wide(dout[p.output + i]) * wide(v[key + i]);
                const double dscore = weight * (dweight - delta) * scale;
                for (std::size_t i = 0; i < width; ++i) {
                    dv[key + i] += static_cast<Number>(weight * wide(dout[p.output + i]));
                    dq[p.query + i] += static_cast<Number>(dscore * wide(k[key + i]));
                    dk[key + i] += static_cast<Number>(dscore * wide(q[p.query + i]));
                }
            }
        });
    }

    void silu_mul(Number* y, const Number* gate, const Number* up, std::size_t n) {
        for (std::size_t i = 0; i < n; ++i)
            y[i] = static_cast<Number>(wide(gate[i]) * sigmoid(wide(gate[i])) * wide(up[i]));
    }
    void silu_mul_backward(Number* dgate, Number* dup, const Number* dy, const Number* gate, const Number* up,
                           std::size_t n) {
        for (std::size_t i = 0; i < n; ++i) {
            const double g = wide(gate[i]);
            const double s = sigmoid(g);
            const double d = wide(dy[i]);
            const double slope = s * (1.0 + g * (1.0 - s));
            dup[i] = static_cast<Number>(d * g * s);
            dgate[i] = static_cast<Number>(d * wide(up[i]) * slope);
        }
    }

    void gelu(Number* y, const Number* x, std::size_t n, bool tanh_form) {
        for (std::size_t i = 0; i < n; ++i) {
            const double v = wide(x[i]);
            const double gate = tanh_form ? 0.5 * (1.0 + std::tanh(gelu_inner(v))) : normal_cdf(v);
            y[i] = static_cast<Number>(v * gate);
        }
    }
    void gelu_backward(Number* dx, const Number* dy, const Number* x, std::size_t n, bool tanh_form) {
        for (std::size_t i = 0; i < n; ++i) {
            const double v = wide(x[i]);
            double slope = 0;
            if (tanh_form) {
                const double t = std::tanh(gelu_inner(v));
                const double inner_slope = gelu_scale * (1.0 + 3.0 * gelu_cubic * v * v);
                slope = 0.5 * (1.0 + t) + 0.5 * v * (1.0 - t * t) * inner_slope;
            } else {
                const double density = std::exp(-0.5 * v * v) / std::sqrt(2.0 * std::numbers::pi);
                slope = normal_cdf(v) + v * density;
            }
            dx[i] = static_cast<Number>(wide(dy[i]) * slope);
        }
    }

    void embedding(Number* y, const Number* table, const std::int32_t* ids, int rows, int columns) {
        for (int r = 0; r < rows; ++r)
            for (int j = 0; j < columns; ++j) y[at(r, columns, j)] = table[at(ids[r], columns, j)];
    }
    void embedding_backward(Number* dtable, const Number* dy, const std::int32_t* ids, int rows, int columns) {
        for (int r = 0; r < rows; ++r)
            for (int j = 0; j < columns; ++j) dtable[at(ids[r], columns, j)] += dy[at(r, columns, j)];
    }

    double cross_entropy(Number* logits, const std::int32_t* targets, int rows, int vocabulary, Number gradient_scale) {
        double loss = 0;
        for (int r = 0; r < rows; ++r) {
            Number* row = logits + at(r, vocabulary);
            const std::int32_t target = targets[r];
            if (target < 0) {
                if (gradient_scale != Number{0}) std::fill_n(row, vocabulary, Number{0});
                continue;
            }
            const double largest = wide(*std::max_element(row, row + vocabulary));
            double total = 0;
            for (int j = 0; j < vocabulary; ++j) total += std::exp(wide(row[j]) - largest);
            loss += largest + std::log(total) - wide(row[target]);
            if (gradient_scale == Number{0}) continue;
            for (int j = 0; j < vocabulary; ++j) {
                const double probability = std::exp(wide(row[j]) - largest) / total;
                row[j] = static_cast<Number>(wide(gradient_scale) * (probability - (j == target ? 1.0 : 0.0)));
            }
        }
        return loss;
    }

 private:
    static constexpr double gelu_cubic = 0.044715;
    static constexpr double gelu_scale = 0.79788456080286535588;  // sqrt(2 / pi)

    /// Where one query vector, its output and its keys lie.
    struct query_place {
        std::size_t row;     // of lse
        std::size_t query;   // first element of q
        std::size_t output;  // first element of o
        std::size_t first_key;
        std::size_t key_stride;
        int token;
        [[nodiscard]] std::size_t key(int j) const { return first_key + static_cast<std::size_t>(j) * key_stride; }
    };

    template <class Visit>
    static void for_each_query(nn::attention_shape s, const Visit& visit) {
        for (int b = 0; b < s.batch; ++b)
            for (int h = 0; h < s.heads; ++h)
                for (int t = 0; t < s.tokens; ++t) {
                    const int row = b * s.tokens + t;
                    const int kv_head = h / (s.heads / s.kv_heads);
                    visit(query_place{.row = at(b * s.heads + h, s.tokens, t),
                                      .query = at(row, s.q_stride, h * s.head_dim),
                                      .output = at(row, s.o_stride, h * s.head_dim),
                                      .first_key = at(b * s.tokens, s.kv_stride, kv_head * s.head_dim),
                                      .key_stride = static_cast<std::size_t>(s.kv_stride),
                                      .token = t});
                }
    }

    static double scaled_score(const Number* query, const Number* key, int head_dim) {
        double sum = 0;
        for (int i = 0; i < head_dim; ++i) sum += wide(query[i]) * wide(key[i]);
        return sum / std::sqrt(static_cast<double>(head_dim));
    }
    static void clear_heads(Number* x, int rows, int stride, int width) {
        for (int r = 0; r < rows; ++r) std::fill_n(x + at(r, stride), width, Number{0});
    }
    static void add_to(Number* y, const std::vector<double>& x) {
        for (std::size_t i = 0; i < x.size(); ++i) y[i] = static_cast<Number>(static_cast<double>(y[i]) + x[i]);
    }

    static double wide(Number x) { return static_cast<double>(x); }
    static double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }
    static double normal_cdf(double x) { return 0.5 * (1.0 + std::erf(x / std::numbers::sqrt2)); }
    static double gelu_inner(double x) { return gelu_scale * (x + gelu_cubic * x * x * x); }

    /// Offset of (row, column) in a matrix of `width` columns.
    static std::size_t at(int row, int width, int column = 0) {
        return static_cast<std::size_t>(row) * static_cast<std::size_t>(width) + static_cast<std::size_t>(column);
    }
};

using reference = basic_reference<float>;

static_assert(nn::backend<reference>);

}  // namespace thinwire::cpu

#endif  // THINWIRE_BACKEND_CPU_REFERENCE_HPP

// ---- thinwire/backend/cpu/detail/scalar_rows.hpp
#ifndef THINWIRE_BACKEND_CPU_DETAIL_SCALAR_ROWS_HPP
#define THINWIRE_BACKEND_CPU_DETAIL_SCALAR_ROWS_HPP

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

// ---- thinwire/backend/cpu/detail/scalar_tile.hpp
#ifndef THINWIRE_BACKEND_CPU_DETAIL_SCALAR_TILE_HPP
#define THINWIRE_BACKEND_CPU_DETAIL_SCALAR_TILE_HPP

#include <cstddef>

namespace thinwire::cpu::detail {

/// Micro-kernel in plain C++ for processors that no other one is written for: 4 rows by 8 columns.
struct scalar_tile {
    static constexpr std::size_t rows = 4;
    static constexpr std::size_t columns = 8;

    static void run(std::size_t steps, const float* a, const float* b, tile_target c, std::size_t m,
                    std::size_t n) noexcept {
        float sum[rows][columns] = {};
        for (std::size_t s = 0; s < steps; ++s, a += rows, b += columns) {
            THINWIRE_UNROLL
            for (std::size_t i = 0; i < rows; ++i) {
                THINWIRE_UNROLL
                for (std::size_t j = 0; j < columns; ++j) sum[i][j] += a[i] * b[j];
            }
        }
        put_partial(c, &sum[0][0], columns, m, n);
    }
};

}  // namespace thinwire::cpu::detail

#endif  // THINWIRE_BACKEND_CPU_DETAIL_SCALAR_TILE_HPP

// ---- thinwire/core/isa.hpp
#ifndef THINWIRE_CORE_ISA_HPP
#define THINWIRE_CORE_ISA_HPP

#include <string_view>

namespace thinwire {

/// Instruction sets that kernels are written for, in rising order.
enum class isa { scalar, avx2, avx512 };

[[nodiscard]] constexpr std::string_view to_string(isa level) noexcept {
    return level == isa::avx512 ? "avx512" : level == isa::avx2 ? "avx2" : "scalar";
}

/// The highest level that this processor and operating system run. Asked once, then remembered.
[[nodiscard]] inline isa best_isa() noexcept {
#if THINWIRE_X86_DISPATCH
    static const isa found = [] {
        __builtin_cpu_init();
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
            return isa::avx512;
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return isa::avx2;
        return isa::scalar;
    }();
    return found;
#else
    return isa::scalar;
#endif
}

}  // namespace thinwire

#endif  // THINWIRE_CORE_ISA_HPP

// ---- thinwire/backend/cpu/detail/kernels.hpp
#ifndef THINWIRE_BACKEND_CPU_DETAIL_KERNELS_HPP
#define THINWIRE_BACKEND_CPU_DETAIL_KERNELS_HPP

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

// ---- thinwire/backend/cpu/detail/attention.hpp
#ifndef THINWIRE_BACKEND_CPU_DETAIL_ATTENTION_HPP
#define THINWIRE_BACKEND_CPU_DETAIL_ATTENTION_HPP

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace thinwire::cpu::detail {

/// Causal attention of one (batch entry, key/value head) at a time with the micro-kernels of the matrix product: keys
/// and values are packed once, then every block of queries of each head that reads them makes a tile of scores,
/// [query_block, tokens], of which the part right of the diagonal is skipped.
class attention_block {
 public:
    /// Queries of a tile: a multiple of every micro-kernel's rows.
    static constexpr std::size_t query_block = 48;

    attention_block(const gemm_kernels& gemm, const row_kernels& rows, nn::attention_shape s) noexcept
        : gemm_(gemm),
          rows_(rows),
          tokens_(static_cast<std::size_t>(s.tokens)),
          heads_(static_cast<std::size_t>(s.heads)),
          kv_heads_(static_cast<std::size_t>(s.kv_heads)),
          dim_(static_cast<std::size_t>(s.head_dim)),
          q_stride_(static_cast<std::size_t>(s.q_stride)),
          kv_stride_(static_cast<std::size_t>(s.kv_stride)),
          o_stride_(static_cast<std::size_t>(s.o_stride)),
          tile_stride_(round_up(tokens_, gemm.columns)),
          padded_dim_(round_up(dim_, gemm.columns)),
          scale_(1.0F / std::sqrt(static_cast<float>(s.head_dim))) {}

    struct forward_arguments {
        float* o;
        float* lse;
        const float *q, *k, *v;
    };
    struct backward_arguments {
        float *dq, *dk, *dv;
        const float *dout, *q, *k, *v, *lse;
    };

    [[nodiscard]] std::size_t forward_scratch() const noexcept {
        return tile_stride_ * dim_ + tokens_ * padded_dim_ + 2 * tile_size() + left_size();
    }
    [[nodiscard]] std::size_t backward_scratch() const noexcept {
        return 2 * tile_stride_ * dim_ + tokens_ * padded_dim_ + 3 * tile_size() + left_size() +
               query_block * padded_dim_;
    }

    void forward(const forward_arguments& x, std::size_t batch, std::size_t kv_head, float* scratch) const noexcept {
        float* const keys = scratch;
        float* const values = keys + tile_stride_ * dim_;
        float* const score = values + tokens_ * padded_dim_;
        float* const packed_score = score + tile_size();
        float* const packed_q = packed_score + tile_size();
        const std::size_t kv = key_offset(batch, kv_head);
        gemm_.pack_right(keys, {x.k + kv, kv_stride_, 1}, tokens_, dim_);
        gemm_.pack_right(values, {x.v + kv, 1, kv_stride_}, dim_, tokens_);
        for_each_block(batch, kv_head, [&](const query_tile& t) {
            gemm_.pack_left(packed_q, {x.q + t.q, q_stride_, 1}, t.rows, dim_);
            scores(score, packed_q, keys, t);
            for (std::size_t i = 0; i < t.rows; ++i)
                x.lse[t.lse + i] = rows_.softmax(score + i * tile_stride_, t.first + i + 1, t.keys, scale_);
            gemm_.pack_left(packed_score, {score, tile_stride_, 1}, t.rows, t.keys);
            multiply_packed(gemm_, {x.o + t.o, o_stride_, false},
                            {.a = packed_score,
                             .b = values,
                             .m = t.rows,
                             .n = dim_,
                             .steps = t.keys,
                             .b_panel_stride = tokens_ * gemm_.columns});
        });
    }

    void backward(const backward_arguments& x, std::size_t batch, std::size_t kv_head, float* scratch) const noexcept {
        float* const keys = scratch;                           // [dim] x tokens, right side of q k^T
        float* const values = keys + tile_stride_ * dim_;      // [dim] x tokens, right side of dout v^T
        float* const key_rows = values + tile_stride_ * dim_;  // [tokens] x dim, right side of dscore k
        float* const score = key_rows + tokens_ * padded_dim_;
        float* const dscore = score + tile_size();
        float* const packed = dscore + tile_size();
        float* const left = packed + tile_size();
        float* const right = left + left_size();
        const std::size_t kv = key_offset(batch, kv_head);
        gemm_.pack_right(keys, {x.k + kv, kv_stride_, 1}, tokens_, dim_);
        gemm_.pack_right(values, {x.v + kv, kv_stride_, 1}, tokens_, dim_);
        gemm_.pack_right(key_rows, {x.k + kv, 1, kv_stride_}, dim_, tokens_);
        bool accumulate = false;
        for_each_block(batch, kv_head, [&](const query_tile& t) {
            gemm_.pack_left(left, {x.q + t.q, q_stride_, 1}, t.rows, dim_);
            scores(score, left, keys, t);
            gemm_.pack_left(left, {x.dout + t.o, o_stride_, 1}, t.rows, dim_);
            scores(dscore, left, values, t);
            for (std::size_t i = 0; i < t.rows; ++i)
                rows_.softmax_backward(score + i * tile_stride_, dscore + i * tile_stride_, t.first + i + 1, t.keys,
                                       scale_, x.lse[t.lse + i]);
            gemm_.pack_left(packed, {dscore, tile_stride_, 1}, t.rows, t.keys);
            multiply_packed(gemm_, {x.dq + t.q, q_stride_, false},
                            {.a = packed,
                             .b = key_rows,
                             .m = t.rows,
                             .n = dim_,
                             .steps = t.keys,
                             .b_panel_stride = tokens_ * gemm_.columns});
            add_transposed({x.dv + kv, kv_stride_, accumulate}, score, {x.dout + t.o, 1, o_stride_}, t, packed, right);
            add_transposed({x.dk + kv, kv_stride_, accumulate}, dscore, {x.q + t.q, 1, q_stride_}, t, packed, right);
            accumulate = true;
        });
    }

 private:
    /// Queries [first, first + rows) of one head, which read the keys [0, keys); offsets of their first elements.
    struct query_tile {
        std::size_t first, rows, keys, q, o, lse;
    };

    /// Also enough for the tile or its transpose packed as a left side.
    [[nodiscard]] std::size_t tile_size() const noexcept { return query_block * (tile_stride_ + 16); }
    [[nodiscard]] std::size_t left_size() const noexcept { return round_up(query_block * dim_, 16); }
    [[nodiscard]] std::size_t key_offset(std::size_t batch, std::size_t kv_head) const noexcept {
        return batch * tokens_ * kv_stride_ + kv_head * dim_;
    }

    /// From the last queries to the first: the first call covers all keys, so that it can write what others add to.
    template <class Work>
    void for_each_block(std::size_t batch, std::size_t kv_head, const Work& work) const noexcept {
        const std::size_t group = heads_ / kv_heads_;
        for (std::size_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
            for (std::size_t block = divide_up(tokens_, query_block); block-- > 0;) {
                const std::size_t first = block * query_block;
                const std::size_t rows = std::min(query_block, tokens_ - first);
                const std::size_t row = batch * tokens_ + first;
                work(query_tile{.first = first,
                                .rows = rows,
                                .keys = first + rows,
                                .q = row * q_stride_ + head * dim_,
                                .o = row * o_stride_ + head * dim_,
                                .lse = (batch * heads_ + head) * tokens_ + first});
            }
        }
    }

    /// tile = left right^T, in whole micro-kernels; what lies right of the diagonal is left unspecified.
    void scores(float* tile, const float* left, const float* right, const query_tile& t) const noexcept {
        multiply_packed(gemm_, {tile, tile_stride_, false},
                        {.a = left,
                         .b = right,
                         .m = round_up(t.rows, gemm_.rows),
                         .n = round_up(t.keys, gemm_.columns / 2),
                         .steps = dim_,
                         .b_panel_stride = dim_ * gemm_.columns,
                         .diagonal = t.first});
    }

    /// c[keys, dim] = (or +=) tile^T b.
    void add_transposed(tile_target c, const float* tile, operand b, const query_tile& t, float* packed,
                        float* right) const noexcept {
        gemm_.pack_left(packed, {tile, 1, tile_stride_}, t.keys, t.rows);
        gemm_.pack_right(right, b, dim_, t.rows);
        multiply_packed(gemm_, c,
                        {.a = packed,
                         .b = right,
                         .m = t.keys,
                         .n = dim_,
                         .steps = t.rows,
                         .b_panel_stride = t.rows * gemm_.columns});
    }

    const gemm_kernels& gemm_;
    const row_kernels& rows_;
    std::size_t tokens_, heads_, kv_heads_, dim_, q_stride_, kv_stride_, o_stride_;
    std::size_t tile_stride_;  ///< columns of a tile of scores
    std::size_t padded_dim_;
    float scale_;
};

}  // namespace thinwire::cpu::detail

#endif  // THINWIRE_BACKEND_CPU_DETAIL_ATTENTION_HPP

// ---- thinwire/core/error.hpp
#ifndef THINWIRE_CORE_ERROR_HPP
#define THINWIRE_CORE_ERROR_HPP

#include <stdexcept>

namespace thinwire {

/// Base of everything that thinwire throws. A message names the operation, the value and what was expected.
class error : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// Shapes or sizes that do not fit together.
class shape_error : public error {
    using error::error;
};

/// A setting or a number outside its range, or not finite.
class value_error : public error {
    using error::error;
};

/// A file or a device that could not be read or written.
class io_error : public error {
    using error::error;
};

}  // namespace thinwire

#endif  // THINWIRE_CORE_ERROR_HPP

// ---- thinwire/core/thread_pool.hpp
#ifndef THINWIRE_CORE_THREAD_POOL_HPP
#define THINWIRE_CORE_THREAD_POOL_HPP

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

namespace thinwire {

/// Threads that a caller asked for. `threads` counts the caller: thread_pool(1) starts none, and every
/// parallel_for then runs on the spot. One parallel_for at a time; not to be called from within its own tasks.
class thread_pool {
 public:
    /// Throws value_error unless 1 <= threads <= 1024, std::system_error when the system starts no more of them.
    explicit thread_pool(int threads = 1) {
        if (threads < 1 || threads > 1024)
            throw value_error("thread_pool: threads " + std::to_string(threads) + ", expected 1..1024");
        workers_.reserve(static_cast<std::size_t>(threads) - 1);
        try {
            for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { work(); });
        } catch (...) {
            stop();
            throw;
        }
    }
    thread_pool(const thread_pool&) = delete;
    thread_pool& operator=(const thread_pool&) = delete;
    ~thread_pool() { stop(); }

    [[nodiscard]] int size() const noexcept { return static_cast<int>(workers_.size()) + 1; }

    /// Calls task(i) once for every i in [0, count), in any order, on any thread; returns when all are done.
    /// `task` must not throw.
    template <class Task>
    void parallel_for(std::size_t count, const Task& task) noexcept {
        if (workers_.empty() || count <= 1) {
            for (std::size_t i = 0; i < count; ++i) task(i);
            return;
        }
        {
            const std::lock_guard lock(mutex_);
            context_ = &task;
            call_ = [](const void* context, std::size_t i) { (*static_cast<const Task*>(context))(i); };
            count_ = count;
            next_.store(0, std::memory_order_relaxed);
            busy_ = workers_.size();
            ++generation_;
        }
        wake_.notify_all();
        drain();
        std::unique_lock lock(mutex_);
        done_.wait(lock, [this] { return busy_ == 0; });
    }

 private:
    void stop() noexcept {
        {
            const std::lock_guard lock(mutex_);
            stopping_ = true;
        }
        wake_.notify_all();
        for (std::thread& worker : workers_) worker.join();
    }

    void drain() noexcept {
        for (std::size_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) call_(context_, i);
    }

    void work() noexcept {
        std::uint64_t seen = 0;
        for (;;) {
            {
                std::unique_lock lock(mutex_);
                wake_.wait(lock, [&] { return stopping_ || generation_ != seen; });
                if (stopping_) return;
                seen = generation_;
            }
            drain();
            const std::lock_guard lock(mutex_);
            if (--busy_ == 0) done_.notify_one();
        }
    }

    std::vector<std::thread> workers_;
    std::mutex mutex_;
    std::condition_variable wake_, done_;
    std::atomic<std::size_t> next_{0};
    const void* context_ = nullptr;
    void (*call_)(const void*, std::size_t) = nullptr;
    std::size_t count_ = 0;
    std::size_t busy_ = 0;
    std::uint64_t generation_ = 0;
    bool stopping_ = false;
};

}  // namespace thinwire

#endif  // THINWIRE_CORE_THREAD_POOL_HPP

// ---- thinwire/backend/cpu/fast.hpp
#ifndef THINWIRE_BACKEND_CPU_FAST_HPP
#define THINWIRE_BACKEND_CPU_FAST_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

namespace thinwire::cpu {

/// The back end for training on processors: packed and blocked matrix products with a micro-kernel per instruction
/// set, vectorised row operations, and the threads of a pool. Results do not depend on the number of threads; they do
/// on the instruction set, within rounding. Work space grows to what the largest call needed and is then reused.
/// One object serves one thread at a time; the pool must outlive it.
class fast {
 public:
    using buffer = aligned_buffer<float>;

    /// Throws value_error when this machine does not run `level`.
    explicit fast(thread_pool& pool, isa level = best_isa())
        : pool_(pool),
          gemm_(detail::gemm_kernels_for(level)),
          rows_(detail::row_kernels_for(level)),
          scratch_(static_cast<std::size_t>(pool.size())) {
        if (level > best_isa())
            throw value_error("cpu::fast: instruction set " + std::string(to_string(level)) +
                              ", expected at most this machine's " + std::string(to_string(best_isa())));
    }

    [[nodiscard]] buffer allocate(std::size_t size) { return buffer(size); }
    void upload(float* to, std::span<const float> from) { std::copy(from.begin(), from.end(), to); }
    void download(std::span<float> to, const float* from) { std::copy_n(from, to.size(), to.begin()); }

    void matmul(float* c, const float* a, const float* b, int m, int n, int k, bool transpose_a, bool transpose_b,
                bool accumulate) {
        const std::size_t rows = size(m), columns = size(n), steps = size(k);
        const detail::operand left = transpose_a ? detail::operand{a, 1, rows} : detail::operand{a, steps, 1};
        const detail::operand right = transpose_b ? detail::operand{b, steps, 1} : detail::operand{b, 1, columns};
        if (rows == 0 || columns == 0) return;
        if (steps == 0) {
            if (!accumulate) fill(c, 0.0F, rows * columns);
        } else if (rows <= few_rows && !transpose_a) {
            multiply_few(c, left, right, rows, columns, steps, accumulate);
        } else {
            multiply_blocked({c, columns, accumulate}, left, right, rows, columns, steps);
        }
    }

    void add_bias(float* y, const float* bias, int rows, int columns) {
        split_rows(rows, columns, [&](std::size_t first, std::size_t count) {
            for (std::size_t r = first; r < first + count; ++r)
                rows_.add_to(y + r * size(columns), bias, size(columns));
        });
    }
    void bias_backward(float* dbias, const float* dy, int rows, int columns) {
        const std::size_t n = size(columns);
        sum_over_rows(rows, columns, {dbias}, [&](std::size_t first, std::size_t count, float* partial) {
            for (std::size_t r = first; r < first + count; ++r) rows_.add_to(partial, dy + r * n, n);
        });
    }

    void add(float* y, const float* x, std::size_t n) {
        split_elements(n, [&](std::size_t i, std::size_t count) { rows_.add_to(y + i, x + i, count); });
    }
    void copy(float* y, const float* x, std::size_t n) {
        split_elements(n, [&](std::size_t i, std::size_t count) { std::copy_n(x + i, count, y + i); });
    }
    void fill(float* y, float value, std::size_t n) {
        split_elements(n, [&](std::size_t i, std::size_t count) { std::fill_n(y + i, count, value); });
    }

    void rms_norm(float* y, float* rstd, const float* x, const float* weight, int rows, int columns, float eps) {
        const std::size_t n = size(columns);
        split_rows(rows, columns, [&](std::size_t r, std::size_t count) {
            rows_.rms_norm(y + r * n, rstd + r, x + r * n, weight, count, n, eps);
        });
    }
    void rms_norm_backward(float* dx, float* dweight, const float* dy, const float* x, const float* weight,
                           const float* rstd, int rows, int columns) {
        const std::size_t n = size(columns);
        sum_over_rows(rows, columns, {dweight}, [&](std::size_t r, std::size_t count, float* partial) {
            rows_.rms_norm_backward(dx + r * n, partial, dy + r * n, x + r * n, weight, rstd + r, count, n);
        });
    }

    void layer_norm(float* y, float* mean, float* rstd, const float* x, const float* weight, const float* bias,
                    int rows, int columns, float eps) {
        const std::size_t n = size(columns);
        split_rows(rows, columns, [&](std::size_t r, std::size_t count) {
            rows_.layer_norm(y + r * n, mean + r, rstd + r, x + r * n, weight, bias, count, n, eps);
        });
    }
    void layer_norm_backward(float* dx, float* dweight, float* dbias, const float* dy, const float* x,
                             const float* weight, const float* mean, const float* rstd, int rows, int columns) {
        const std::size_t n = size(columns);
        sum_over_rows(rows, columns, {dweight, dbias}, [&](std::size_t r, std::size_t count, float* partial) {
            rows_.layer_norm_backward(dx + r * n, partial, partial + n, dy + r * n, x + r * n, weight, mean + r,
                                      rstd + r, count, n);
        });
    }

    void rope(float* x, const float* cosine, const float* sine, int rows, int tokens, int heads, int head_dim,
              int stride, int first_position, bool inverse) {
        const std::size_t half = size(head_dim) / 2;
        split_rows(rows, heads * head_dim, [&](std::size_t first, std::size_t count) {
            for (std::size_t r = first; r < first + count; ++r) {
                const std::size_t table = (size(first_position) + r % size(tokens)) * half;
                for (std::size_t h = 0; h < size(heads); ++h) {
                    float* const head = x + r * size(stride) + h * size(head_dim);
                    rows_.rotate_pairs(head, head + half, cosine + table, sine + table, half, inverse);
                }
            }
        });
    }

    void attention(float* o, float* lse, const float* q, const float* k, const float* v, nn::attention_shape s) {
        const detail::attention_block block(gemm_, rows_, s);
        split_heads(s, block.forward_scratch(), [&](std::size_t batch, std::size_t kv_head, float* scratch) {
            block.forward({o, lse, q, k, v}, batch, kv_head, scratch);
        });
    }
    void attention_backward(float* dq, float* dk, float* dv, const float* dout, const float* q, const float* k,
                            const float* v, const float* /*o*/, const float* lse, nn::attention_shape s) {
        const detail::attention_block block(gemm_, rows_, s);
        split_heads(s, block.backward_scratch(), [&](std::size_t batch, std::size_t kv_head, float* scratch) {
            block.backward({dq, dk, dv, dout, q, k, v, lse}, batch, kv_head, scratch);
        });
    }

    void silu_mul(float* y, const float* gate, const float* up, std::size_t n) {
        split_elements(n, [&](std::size_t i, std::size_t count) { rows_.silu_mul(y + i, gate + i, up + i, count); });
    }
    void silu_mul_backward(float* dgate, float* dup, const float* dy, const float* gate, const float* up,
                           std::size_t n) {
        split_elements(n, [&](std::size_t i, std::size_t count) {
            rows_.silu_mul_backward(dgate + i, dup + i, dy + i, gate + i, up + i, count);
        });
    }
    void gelu(float* y, const float* x, std::size_t n, bool tanh_form) {
        split_elements(n, [&](std::size_t i, std::size_t count) { rows_.gelu(y + i, x + i, count, tanh_form); });
    }
    void gelu_backward(float* dx, const float* dy, const float* x, std::size_t n, bool tanh_form) {
        split_elements(
            n, [&](std::size_t i, std::size_t count) { rows_.gelu_backward(dx + i, dy + i, x + i, count, tanh_form); });
    }

    void embedding(float* y, const float* table, const std::int32_t* ids, int rows, int columns) {
        const std::size_t n = size(columns);
        split_rows(rows, columns, [&](std::size_t first, std::size_t count) {
            for (std::size_t r = first; r < first + count; ++r) std::copy_n(table + size(ids[r]) * n, n, y + r * n);
        });
    }
    /// Rows in order within a range of columns, so that equal ids add up in one order.
    void embedding_backward(float* dtable, const float* dy, const std::int32_t* ids, int rows, int columns) {
        const std::size_t n = size(columns);
        split(n, std::max<std::size_t>(16, grain / std::max<std::size_t>(1, size(rows))),
              [&](std::size_t, std::size_t first, std::size_t last) {
                  for (std::size_t r = 0; r < size(rows); ++r)
                      rows_.add_to(dtable + size(ids[r]) * n + first, dy + r * n + first, last - first);
              });
    }

    double cross_entropy(float* logits, const std::int32_t* targets, int rows, int vocabulary, float gradient_scale) {
        const std::size_t n = size(vocabulary);
        losses_.assign(size(rows), 0.0);
        split_rows(rows, vocabulary, [&](std::size_t first, std::size_t count) {
            for (std::size_t r = first; r < first + count; ++r) {
                if (targets[r] >= 0)
                    losses_[r] = rows_.cross_entropy(logits + r * n, targets[r], n, gradient_scale);
                else if (gradient_scale != 0.0F)
                    std::fill_n(logits + r * n, n, 0.0F);
            }
        });
        double total = 0.0;
        for (const double loss : losses_) total += loss;
        return total;
    }

 private:
    /// Elements below which another thread costs more than it brings; multiply-adds for the matrix product.
    static constexpr std::size_t grain = 16384;
    static constexpr std::size_t product_grain = 1U << 19U;
    /// Left sides of up to so many rows are multiplied without packing, which would cost as much as the product.
    static constexpr std::size_t few_rows = 4;
    /// Rows whose share in a weight's gradient is summed before it is added: fixed, so that threads change nothing.
    static constexpr std::size_t rows_of_partial_sum = 64;

    static std::size_t size(int n) noexcept { return static_cast<std::size_t>(n); }

    /// work(part, first, last) over [0, count) in at most one part per thread, of about `least` or more.
    template <class Work>
    void split(std::size_t count, std::size_t least, const Work& work) {
        const std::size_t parts = std::clamp<std::size_t>(count / std::max<std::size_t>(least, 1), 1, scratch_.size());
        pool_.parallel_for(parts, [&](std::size_t i) { work(i, count * i / parts, count * (i + 1) / parts); });
    }
    template <class Work>
    void split_elements(std::size_t n, const Work& work) {
        split(n, grain, [&](std::size_t, std::size_t first, std::size_t last) { work(first, last - first); });
    }
    template <class Work>
    void split_rows(int rows, int columns, const Work& work) {
        split(size(rows), grain / std::max<std::size_t>(size(columns), 1),
              [&](std::size_t, std::size_t first, std::size_t last) { work(first, last - first); });
    }

    /// work(batch, kv_head, scratch) for every pair of them.
    template <class Work>
    void split_heads(nn::attention_shape s, std::size_t scratch, const Work& work) {
        reserve_scratch(scratch);
        const std::size_t heads = size(s.kv_heads);
        split(size(s.batch) * heads, 1, [&](std::size_t part, std::size_t first, std::size_t last) {
            for (std::size_t i = first; i < last; ++i) work(i / heads, i % heads, scratch_[part].data());
        });
    }

    /// work(first row, rows, partial) adds the rows' share of each of `totals` (arrays of `columns`, which lie one
    /// after the other in `partial`); the shares of fixed blocks of rows are then added in order.
    template <class Work>
    void sum_over_rows(int rows, int columns, std::initializer_list<float*> totals, const Work& work) {
        const std::size_t n = size(columns), width = n * totals.size();
        const std::size_t blocks = detail::divide_up(size(rows), rows_of_partial_sum);
        if (partial_.size() < blocks * width) partial_ = buffer(blocks * width);
        split(blocks, grain / (rows_of_partial_sum * std::max<std::size_t>(n, 1)),
              [&](std::size_t, std::size_t first, std::size_t last) {
                  std::fill(partial_.data() + first * width, partial_.data() + last * width, 0.0F);
                  for (std::size_t i = first; i < last; ++i) {
                      const std::size_t row = i * rows_of_partial_sum;
                      work(row, std::min(rows_of_partial_sum, size(rows) - row), partial_.data() + i * width);
                  }
              });
        for (std::size_t i = 0; i < blocks; ++i)
            for (std::size_t t = 0; t < totals.size(); ++t)
                rows_.add_to(totals.begin()[t], partial_.data() + i * width + t * n, n);
    }

    void reserve_scratch(std::size_t count) {
        for (buffer& scratch : scratch_)
            if (scratch.size() < count) scratch = buffer(count);
    }

    void multiply_few(float* c, detail::operand a, detail::operand b, std::size_t m, std::size_t n, std::size_t steps,
                      bool accumulate) {
        split(n, product_grain / (m * steps), [&](std::size_t, std::size_t first, std::size_t last) {
            for (std::size_t i = 0; i < m; ++i) {
                const float* const row = a.data + i * a.line_stride;
                float* const to = c + i * n;
                if (b.step_stride == 1) {
                    for (std::size_t j = first; j < last; ++j) {
                        const float product = rows_.dot(row, b.data + j * b.line_stride, steps);
                        to[j] = accumulate ? to[j] + product : product;
                    }
                    continue;
                }
                if (!accumulate) std::fill(to + first, to + last, 0.0F);
                for (std::size_t s = 0; s < steps; ++s)
                    rows_.add_scaled(to + first, b.data + s * b.step_stride + first, row[s], last - first);
            }
        });
    }

    /// Cuts c into a grid of blocks, one per thread, such that little is packed twice.
    void multiply_blocked(detail::tile_target c, detail::operand a, detail::operand b, std::size_t m, std::size_t n,
                          std::size_t steps) {
        const std::size_t threads = std::clamp<std::size_t>(m * n * steps / product_grain, 1, scratch_.size());
        std::size_t down = 1, across = threads;
        for (std::size_t d = 2; d <= threads; ++d) {
            const std::size_t used = d * (threads / d), most = down * across;
            if (used > most || (used == most && m / d + n / (threads / d) < m / down + n / across))
                down = d, across = threads / d;
        }
        const std::size_t rows = detail::round_up(detail::divide_up(m, down), gemm_.rows);
        const std::size_t columns = detail::round_up(detail::divide_up(n, across), gemm_.columns);
        reserve_scratch(detail::gemm_plan(gemm_, rows, columns, steps).scratch_size());
        pool_.parallel_for(down * across, [&](std::size_t part) {
            const std::size_t i = part % down * rows, j = part / down * columns;
            if (i >= m || j >= n) return;
            detail::multiply(gemm_, {c.data + i * c.stride + j, c.stride, c.accumulate}, a.at(i, 0), b.at(j, 0),
                             std::min(rows, m - i), std::min(columns, n - j), steps, scratch_[part].data());
        });
    }

    thread_pool& pool_;
    const detail::gemm_kernels& gemm_;
    const detail::row_kernels& rows_;
    std::vector<buffer> scratch_;  ///< one per thread
    buffer partial_;
    std::vector<double> losses_;
};

static_assert(nn::backend<fast>);

}  // namespace thinwire::cpu

#endif  // THINWIRE_BACKEND_CPU_FAST_HPP

// ---- thinwire/codec/bit_stream.hpp
#ifndef THINWIRE_CODEC_BIT_STREAM_HPP
#define THINWIRE_CODEC_BIT_STREAM_HPP

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace thinwire {

namespace detail {

[[nodiscard]] constexpr std::uint64_t reverse_bytes(std::uint64_t word) noexcept {
    word = ((word & 0x00ff00ff00ff00ffU) << 8U) | ((word >> 8U) & 0x00ff00ff00ff00ffU);
    word = ((word & 0x0000ffff0000ffffU) << 16U) | ((word >> 16U) & 0x0000ffff0000ffffU);
    return (word << 32U) | (word >> 32U);
}

/// The little-endian number in 8 bytes.
[[nodiscard]] inline std::uint64_t load_word(const std::byte* at) noexcept {
    std::uint64_t word = 0;
    std::memcpy(&word, at, sizeof word);
    return std::endian::native == std::endian::little ? word : reverse_bytes(word);
}

inline void store_word(std::byte* at, std::uint64_t word) noexcept {
    if constexpr (std::endian::native != std::endian::little) word = reverse_bytes(word);
    std::memcpy(at, &word, sizeof word);
}

}  // namespace detail

/// Writes fields of up to 32 bits into memory of the caller, lowest bit first. A write past the end changes nothing
/// there and sets failed().
class bit_writer {
 public:
    /// `memory` has room for all bits to come and 8 bytes more, which may be overwritten.
    explicit bit_writer(std::span<std::byte> memory) noexcept : memory_(memory) {}

    /// Precondition: bits <= 32 and value < 2^bits.
    void put(std::uint32_t value, unsigned bits) noexcept {
        if (at_ + 8 > memory_.size()) {
            failed_ = true;
            return;
        }
        pending_ |= static_cast<std::uint64_t>(value) << held_;
        held_ += bits;
        detail::store_word(memory_.data() + at_, pending_);
        at_ += held_ >> 3U;
        pending_ >>= held_ & 0x38U;
        held_ &= 7U;
    }
    /// put(bits of the value, 32) for each.
    void put_floats(std::span<const float> values) noexcept {
        if (std::endian::native != std::endian::little || held_ > 0 || at_ + values.size_bytes() + 8 > memory_.size()) {
            for (const float value : values) put(std::bit_cast<std::uint32_t>(value), 32);
        } else if (!values.empty()) {
            std::memcpy(memory_.data() + at_, values.data(), values.size_bytes());
            at_ += values.size_bytes();
        }
    }
    /// Fills the last byte with zero bits.
    void flush() noexcept {
        if (held_ > 0) ++at_;
        pending_ = 0;
        held_ = 0;
    }
    /// Bytes begun so far.
    [[nodiscard]] std::size_t position() const noexcept { return at_ + (held_ > 0 ? 1 : 0); }
    [[nodiscard]] bool failed() const noexcept { return failed_; }

 private:
    std::span<std::byte> memory_;
    std::size_t at_ = 0;
    std::uint64_t pending_ = 0;
    unsigned held_ = 0;
    bool failed_ = false;
};

/// Reads what bit_writer wrote, from foreign bytes. Total: what lies past the end reads as zero and sets failed().
class bit_reader {
 public:
    explicit bit_reader(std::span<const std::byte> bytes) noexcept : bytes_(bytes) {}

    /// Precondition: bits <= 32.
    [[nodiscard]] std::uint32_t get(unsigned bits) noexcept {
        const std::size_t byte = at_ >> 3U;
        const std::uint64_t word =
            byte + 8 <= bytes_.size() ? detail::load_word(bytes_.data() + byte) : load_tail(byte);
        const auto value = static_cast<std::uint32_t>((word >> (at_ & 7U)) & ((std::uint64_t{1} << bits) - 1));
        at_ += bits;
        return value;
    }
    /// The float that has the bits get(32), for each.
    void get_floats(std::span<float> values) noexcept {
        const std::size_t byte = at_ >> 3U;
        if (std::endian::native != std::endian::little || (at_ & 7U) != 0 ||
            byte + values.size_bytes() > bytes_.size()) {
            for (float& value : values) value = std::bit_cast<float>(get(32));
        } else if (!values.empty()) {
            std::memcpy(values.data(), bytes_.data() + byte, values.size_bytes());
            at_ += 8 * values.size_bytes();
        }
    }
    /// Leaves the byte that was begun; fails when its other bits are not zero.
    void align() noexcept {
        if (const unsigned rest = static_cast<unsigned>(-at_ & 7U); get(rest) != 0) spoiled_ = true;
    }
    /// Bytes begun so far.
    [[nodiscard]] std::size_t position() const noexcept { return (at_ + 7) >> 3U; }
    [[nodiscard]] bool failed() const noexcept { return spoiled_ || position() > bytes_.size(); }

 private:
    [[nodiscard]] std::uint64_t load_tail(std::size_t byte) const noexcept {
        std::uint64_t word = 0;
        for (std::size_t i = 0; i < 8 && byte + i < bytes_.size(); ++i)
            word |= static_cast<std::uint64_t>(std::to_integer<std::uint8_t>(bytes_[byte + i])) << (8 * i);
        return word;
    }

    std::span<const std::byte> bytes_;
    std::size_t at_ = 0;  // bits
    bool spoiled_ = false;
};

}  // namespace thinwire

#endif  // THINWIRE_CODEC_BIT_STREAM_HPP

// ---- thinwire/codec/checksum.hpp
#ifndef THINWIRE_CODEC_CHECKSUM_HPP
#define THINWIRE_CODEC_CHECKSUM_HPP

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

namespace thinwire {

namespace detail {

/// The little-endian number that begins at `at`; what lies past the end is 0.
[[nodiscard]] constexpr std::uint64_t load_u64(std::span<const std::byte> bytes, std::size_t at) noexcept {
    std::uint64_t word = 0;
    if (!std::is_constant_evaluated() && std::endian::native == std::endian::little && bytes.size() - at >= 8) {
        std::memcpy(&word, bytes.data() + at, sizeof word);
        return word;
    }
    for (std::size_t i = 0; i < 8 && at + i < bytes.size(); ++i)
        word |= static_cast<std::uint64_t>(std::to_integer<std::uint8_t>(bytes[at + i])) << (8 * i);
    return word;
}

}  // namespace detail

/// A fast 64-bit checksum against accidents (not against intent: what must resist an attacker is named by SHA-256).
///
/// Four lanes take every fourth little-endian word: lane = rotl((lane ^ word) * odd, 29). Each step maps the lane one
/// to one for a given word and the word one to one for a given lane, and so does the way the lanes are joined; hence
/// any change confined to one aligned word, and so any single byte, always changes the result. The length is joined in.
[[nodiscard]] constexpr std::uint64_t checksum64(std::span<const std::byte> bytes) noexcept {
    constexpr std::uint64_t odd = 0x9E3779B97F4A7C15U;
    std::uint64_t lanes[4] = {0x243F6A8885A308D3U, 0x13198A2E03707344U, 0xA4093822299F31D0U, 0x082EFA98EC4E6C89U};
    std::size_t at = 0;
    for (; at + 32 <= bytes.size(); at += 32)
        for (std::size_t lane = 0; lane < 4; ++lane)
            lanes[lane] = std::rotl((lanes[lane] ^ detail::load_u64(bytes, at + 8 * lane)) * odd, 29);
    for (std::size_t lane = 0; at < bytes.size(); at += 8, ++lane)
        lanes[lane] = std::rotl((lanes[lane] ^ detail::load_u64(bytes, at)) * odd, 29);
    std::uint64_t sum = bytes.size();
    for (const std::uint64_t lane : lanes) {
        sum = (sum ^ lane) * odd;
        sum ^= sum >> 32U;
    }
    return sum;
}

}  // namespace thinwire

#endif  // THINWIRE_CODEC_CHECKSUM_HPP

// ---- thinwire/codec/value_code.hpp
#ifndef THINWIRE_CODEC_VALUE_CODE_HPP
#define THINWIRE_CODEC_VALUE_CODE_HPP

#include <cstdint>
#include <string_view>

namespace thinwire {

/// How the value of a selected coefficient travels. Numbers from 128 on are an integrator's own (value_codec.hpp).
enum class value_code : std::uint8_t {
    f32 = 0,   ///< 32 bits, as the published DeMo sends it
    sign = 1,  ///< one bit; a coefficient that is exactly zero is not sent
    bf16 = 2,  ///< 16 bits: the nearest bfloat16
    q4 = 3,    ///< sign and 8 magnitudes in 4 bits, and a scale of 12 bits a chunk
    q2 = 4,    ///< sign and 2 magnitudes in 2 bits, and a scale of 12 bits a chunk
};

[[nodiscard]] constexpr std::string_view to_string(value_code code) noexcept {
    switch (code) {
        case value_code::f32: return "f32";
        case value_code::sign: return "sign";
        case value_code::bf16: return "bf16";
        case value_code::q4: return "q4";
        case value_code::q2: return "q2";
    }
    return "custom";
}

}  // namespace thinwire

#endif  // THINWIRE_CODEC_VALUE_CODE_HPP

// ---- thinwire/core/half.hpp
#ifndef THINWIRE_CORE_HALF_HPP
#define THINWIRE_CORE_HALF_HPP

#include <bit>
#include <cstdint>

namespace thinwire {

/// The float32 that a bfloat16 stands for: exact.
[[nodiscard]] constexpr float from_bfloat16(std::uint16_t bits) noexcept {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16U);
}

/// The nearest bfloat16, ties to even; beyond the largest one gives infinity, NaN stays NaN (quiet).
[[nodiscard]] constexpr std::uint16_t to_bfloat16(float value) noexcept {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if ((bits & 0x7fffffffU) > 0x7f800000U) return static_cast<std::uint16_t>((bits >> 16U) | 0x40U);
    return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16U) & 1U)) >> 16U);
}

/// The float32 that an IEEE binary16 stands for: exact.
[[nodiscard]] constexpr float from_float16(std::uint16_t bits) noexcept {
    const std::uint32_t sign = (bits & 0x8000U) << 16U;
    const std::uint32_t exponent = (bits >> 10U) & 0x1fU;
    const std::uint32_t fraction = bits & 0x3ffU;
    if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000U | (fraction << 13U));
    if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112U) << 23U) | (fraction << 13U));
    const float magnitude = static_cast<float>(fraction) * 0x1p-24F;  // zero or subnormal
    return sign != 0 ? -magnitude : magnitude;
}

/// The nearest IEEE binary16, ties to even; beyond the largest one gives infinity, NaN stays NaN (quiet).
[[nodiscard]] constexpr std::uint16_t to_float16(float value) noexcept {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    const auto sign = static_cast<std::uint16_t>((bits >> 16U) & 0x8000U);
    const std::uint32_t magnitude = bits & 0x7fffffffU;
    if (magnitude > 0x7f800000U) return static_cast<std::uint16_t>(sign | 0x7e00U);
    if (magnitude >= 0x477ff000U) return static_cast<std::uint16_t>(sign | 0x7c00U);
    const std::uint32_t exponent = magnitude >> 23U;
    // A normal result drops 13 bits of the fraction; a subnormal one drops more, its leading bit made explicit.
    std::uint32_t significand = magnitude - (112U << 23U);
    std::uint32_t drop = 13;
    if (exponent < 113) {
        if (exponent < 102) return sign;
        significand = (magnitude & 0x7fffffU) | 0x800000U;
        drop = 126U - exponent;
    }
    const std::uint32_t half = 1U << (drop - 1U);
    const std::uint32_t odd = (significand >> drop) & 1U;
    return static_cast<std::uint16_t>(sign | ((significand + half - 1U + odd) >> drop));
}

}  // namespace thinwire

#endif  // THINWIRE_CORE_HALF_HPP

// ---- thinwire/core/result.hpp
#ifndef THINWIRE_CORE_RESULT_HPP
#define THINWIRE_CORE_RESULT_HPP

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace thinwire {

/// Why foreign bytes were refused.
enum class errc : std::uint8_t {
    truncated,     ///< the bytes end before what they announce
    trailing,      ///< bytes follow where none belong
    bad_magic,     ///< not this kind of data at all
    bad_version,   ///< a format version this build does not read
    bad_checksum,  ///< altered or damaged
    out_of_range,  ///< a number outside what the format allows
    too_large,     ///< a length above the caller's limit
    not_finite,    ///< NaN or infinity
    mismatch,      ///< well-formed, but of another run, round, peer or shape
    malformed,     ///< anything else that breaks the format
};

/// The name of a code, for messages and metrics.
[[nodiscard]] constexpr std::string_view to_string(errc code) noexcept {
    switch (code) {
        case errc::truncated: return "truncated";
        case errc::trailing: return "trailing";
        case errc::bad_magic: return "bad_magic";
        case errc::bad_version: return "bad_version";
        case errc::bad_checksum: return "bad_checksum";
        case errc::out_of_range: return "out_of_range";
        case errc::too_large: return "too_large";
        case errc::not_finite: return "not_finite";
        case errc::mismatch: return "mismatch";
        case errc::malformed: return "malformed";
    }
    return "unknown";
}

/// A refusal: a code for programs and one line for people.
struct failure {
    errc code{};
    std::string message;
};

/// A value or the reason there is none. What parses foreign bytes returns this and never throws.
template <class T>
class [[nodiscard]] result {
 public:
    using value_type = T;

    result(T value) : value_(std::move(value)) {}
    result(failure why) : why_(std::move(why)) {}

    [[nodiscard]] explicit operator bool() const noexcept { return value_.has_value(); }
    [[nodiscard]] bool has_value() const noexcept { return value_.has_value(); }

    /// Precondition of these four: has_value().
    [[nodiscard]] T& operator*() & noexcept { return *value_; }
    [[nodiscard]] const T& operator*() const& noexcept { return *value_; }
    [[nodiscard]] T* operator->() noexcept { return &*value_; }
    [[nodiscard]] const T* operator->() const noexcept { return &*value_; }

    /// Precondition: !has_value().
    [[nodiscard]] const failure& error() const noexcept { return why_; }

    /// The value, or an exception that carries the refusal's message.
    [[nodiscard]] T& value() & {
        require();
        return **this;
    }
    [[nodiscard]] const T& value() const& {
        require();
        return **this;
    }
    [[nodiscard]] T value() && {
        require();
        return std::move(**this);
    }

 private:
    void require() const {
        if (!has_value()) throw thinwire::error(error().message);
    }

    std::optional<T> value_;
    failure why_{};
};

/// What a check returns when there is nothing to hand over but success.
struct ok {};

}  // namespace thinwire

#endif  // THINWIRE_CORE_RESULT_HPP

// ---- thinwire/codec/value_codec.hpp
#ifndef THINWIRE_CODEC_VALUE_CODEC_HPP
#define THINWIRE_CODEC_VALUE_CODEC_HPP

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace thinwire {

/// Values beyond this magnitude are absurd: the optimizer never makes them and a decoder refuses them.
inline constexpr std::uint32_t largest_value_bits = (127U + 100U) << 23U;  // 2^100

/// How the values of one chunk travel. Stateless: every function may be called from many threads at once.
///
/// An integrator's own code derives from this, takes an id() from 128 on and goes into payload_layout::codec. All peers
/// of a run must have the same one: the layout's fingerprint covers the id, not the meaning.
class value_codec {
 public:
    value_codec() = default;
    value_codec(const value_codec&) = delete;
    value_codec& operator=(const value_codec&) = delete;
    virtual ~value_codec() = default;

    [[nodiscard]] virtual value_code id() const noexcept = 0;
    /// For people, e.g. "sign".
    [[nodiscard]] virtual std::string_view name() const noexcept = 0;
    /// Whether a coefficient that is exactly zero is sent, so that the mean counts its sender. When not, the functions
    /// below are never given a zero and chunks may send fewer coefficients than k.
    [[nodiscard]] virtual bool sends_zero() const noexcept = 0;
    /// Exactly how many bits encode() writes for a chunk of `count` values; 0 for none.
    [[nodiscard]] virtual std::uint64_t bits(std::size_t count) const noexcept = 0;
    /// Replaces the values of one chunk, finite and at most 2^100, by what receivers decode. Changes nothing when
    /// called again.
    virtual void round(std::span<float> values) const noexcept = 0;
    /// Writes the values of one chunk; they need not be rounded.
    virtual void encode(std::span<const float> values, bit_writer& out) const noexcept = 0;
    /// Reads the values of one chunk from foreign bits: bits(values.size()) of them, whatever they are. Refuses what
    /// encode() never writes; must not give numbers that are not finite or above 2^100.
    [[nodiscard]] virtual std::optional<errc> decode(bit_reader& in, std::span<float> values) const noexcept = 0;
};

namespace detail {

[[nodiscard]] inline std::optional<errc> refuse_absurd(std::span<const float> values) noexcept {
    std::uint32_t above = 0;  // the highest bit: whether a magnitude is
    std::size_t i = 0;
#if defined(__SSE2__)
    const __m128i most = _mm_set1_epi32(static_cast<int>(largest_value_bits)), all = _mm_set1_epi32(0x7fffffff);
    __m128i over = _mm_setzero_si128();
    for (; i + 4 <= values.size(); i += 4) {
        const __m128i bits = _mm_castps_si128(_mm_loadu_ps(values.data() + i));
        over = _mm_or_si128(over, _mm_sub_epi32(most, _mm_and_si128(bits, all)));
    }
    above = _mm_movemask_ps(_mm_castsi128_ps(over)) != 0 ? 0x80000000U : 0U;
#endif
    for (; i < values.size(); ++i)
        above |= largest_value_bits - (std::bit_cast<std::uint32_t>(values[i]) & 0x7fffffffU);
    if (above >> 31U == 0) return std::nullopt;
    std::uint32_t largest = 0;
    for (const float value : values) largest = std::max(largest, std::bit_cast<std::uint32_t>(value) & 0x7fffffffU);
    if (largest >= 0x7f800000U) return errc::not_finite;
    return errc::out_of_range;
}

class f32_codec final : public value_codec {
 public:
    [[nodiscard]] value_code id() const noexcept override { return value_code::f32; }
    [[nodiscard]] std::string_view name() const noexcept override { return "f32"; }
    [[nodiscard]] bool sends_zero() const noexcept override { return true; }
    [[nodiscard]] std::uint64_t bits(std::size_t count) const noexcept override { return 32 * std::uint64_t{count}; }
    void round(std::span<float>) const noexcept override {}
    void encode(std::span<const float> values, bit_writer& out) const noexcept override { out.put_floats(values); }
    [[nodiscard]] std::optional<errc> decode(bit_reader& in, std::span<float> values) const noexcept override {
        in.get_floats(values);
        return refuse_absurd(values);
    }
};

class bf16_codec final : public value_codec {
 public:
    [[nodiscard]] value_code id() const noexcept override { return value_code::bf16; }
    [[nodiscard]] std::string_view name() const noexcept override { return "bf16"; }
    [[nodiscard]] bool sends_zero() const noexcept override { return true; }
    [[nodiscard]] std::uint64_t bits(std::size_t count) const noexcept override { return 16 * std::uint64_t{count}; }
    void round(std::span<float> values) const noexcept override {
        for (float& value : values) value = from_bfloat16(to_bfloat16(value));
    }
    void encode(std::span<const float> values, bit_writer& out) const noexcept override {
        for (const float value : values) out.put(to_bfloat16(value), 16);
    }
    [[nodiscard]] std::optional<errc> decode(bit_reader& in, std::span<float> values) const noexcept override {
        for (float& value : values) value = from_bfloat16(static_cast<std::uint16_t>(in.get(16)));
        return refuse_absurd(values);
    }
};

/// 1 or -1.
class sign_codec final : public value_codec {
 public:
    [[nodiscard]] value_code id() const noexcept override { return value_code::sign; }
    [[nodiscard]] std::string_view name() const noexcept override { return "sign"; }
    [[nodiscard]] bool sends_zero() const noexcept override { return false; }
    [[nodiscard]] std::uint64_t bits(std::size_t count) const noexcept override { return count; }
    void round(std::span<float> values) const noexcept override {
        for (float& value : values) value = of_bit(std::bit_cast<std::uint32_t>(value) >> 31U);
    }
    void encode(std::span<const float> values, bit_writer& out) const noexcept override {
        for (std::size_t i = 0; i < values.size(); i += 32) {
            const std::size_t n = std::min<std::size_t>(32, values.size() - i);
            std::uint32_t word = 0;
            std::size_t b = 0;
#if defined(__SSE2__)
            for (; b + 4 <= n; b += 4)
                word |= static_cast<std::uint32_t>(_mm_movemask_ps(_mm_loadu_ps(values.data() + i + b))) << b;
#endif
            for (; b < n; ++b) word |= (std::bit_cast<std::uint32_t>(values[i + b]) >> 31U) << b;
            out.put(word, static_cast<unsigned>(n));
        }
    }
    [[nodiscard]] std::optional<errc> decode(bit_reader& in, std::span<float> values) const noexcept override {
        for (std::size_t i = 0; i < values.size(); i += 32) {
            const std::size_t n = std::min<std::size_t>(32, values.size() - i);
            const std::uint32_t word = in.get(static_cast<unsigned>(n));
            std::size_t b = 0;
#if defined(__SSE2__)
            const __m128i one = _mm_set1_epi32(0x3f800000), sign = _mm_set1_epi32(static_cast<int>(0x80000000U));
            const __m128i places = _mm_set_epi32(8, 4, 2, 1);
            for (; b + 4 <= n; b += 4) {
                const __m128i bits = _mm_and_si128(_mm_set1_epi32(static_cast<int>(word >> b)), places);
                const __m128i minus = _mm_and_si128(_mm_cmpeq_epi32(bits, places), sign);
                _mm_storeu_ps(values.data() + i + b, _mm_castsi128_ps(_mm_or_si128(one, minus)));
            }
#endif
            for (; b < n; ++b) values[i + b] = of_bit((word >> b) & 1U);
        }
        return std::nullopt;
    }

 private:
    [[nodiscard]] static float of_bit(std::uint32_t bit) noexcept {
        return std::bit_cast<float>(0x3f800000U | (bit << 31U));
    }
};

/// Sign and one of 2^LevelBits magnitudes: a level times the chunk's scale, which is (16 + m) 2^(e - 128) with m < 16,
/// sent as 16 e + m in 12 bits. Levels rise by a fixed ratio, because the largest k of many coefficients lie between a
/// threshold and a few times that. Of the scales with which some levels give the same values the smallest is sent, and
/// no other is taken. Every product has at most 11 significant bits and is normal: exact in float32.
template <unsigned LevelBits>
class scaled_codec final : public value_codec {
 public:
    static constexpr std::size_t count_of_levels = std::size_t{1} << LevelBits;
    using level_table = std::array<std::uint8_t, count_of_levels>;

    scaled_codec(value_code id, const level_table& levels) noexcept : id_(id), levels_(levels) {}

    [[nodiscard]] value_code id() const noexcept override { return id_; }
    [[nodiscard]] std::string_view name() const noexcept override { return to_string(id_); }
    [[nodiscard]] bool sends_zero() const noexcept override { return false; }
    [[nodiscard]] std::uint64_t bits(std::size_t count) const noexcept override {
        return count == 0 ? 0 : scale_bits + (LevelBits + 1) * std::uint64_t{count};
    }
    void round(std::span<float> values) const noexcept override {
        if (values.empty()) return;
        const float scale = scale_of(choose_field(values));
        for (float& value : values) value = decoded(scale, code_of(value, scale));
    }
    void encode(std::span<const float> values, bit_writer& out) const noexcept override {
        if (values.empty()) return;
        const float chosen = scale_of(choose_field(values));
        std::uint32_t used = 0;
        for (const float value : values) used |= 1U << (code_of(value, chosen) % count_of_levels);
        const std::uint32_t field = smallest_field(chosen, used);
        const float scale = scale_of(field);
        out.put(field, scale_bits);
        for (const float value : values)
            out.put(code_of(decoded(chosen, code_of(value, chosen)), scale), LevelBits + 1);
    }
    [[nodiscard]] std::optional<errc> decode(bit_reader& in, std::span<float> values) const noexcept override {
        if (values.empty()) return std::nullopt;
        const std::uint32_t field = in.get(scale_bits);
        if (field > largest_field) return errc::out_of_range;
        const float scale = scale_of(field);
        std::uint32_t used = 0;
        for (float& value : values) {
            const std::uint32_t code = in.get(LevelBits + 1);
            used |= 1U << (code % count_of_levels);
            value = decoded(scale, code);
        }
        if (smallest_field(scale, used) != field) return errc::malformed;
        return std::nullopt;
    }

 private:
    static constexpr unsigned scale_bits = 12;
    static constexpr std::uint32_t largest_field = 217 * 16 + 15;  // times the largest level: below 2^100

    [[nodiscard]] static float scale_of(std::uint32_t field) noexcept {
        return std::bit_cast<float>((field + 3 * 16) << 19U);
    }
    /// The nearest one that may be sent.
    [[nodiscard]] static std::uint32_t field_of(float scale) noexcept {
        const std::uint32_t nearest = (std::bit_cast<std::uint32_t>(scale) + (1U << 18U)) >> 19U;
        return std::clamp(nearest, 48U, largest_field + 48U) - 48U;
    }
    [[nodiscard]] float decoded(float scale, std::uint32_t code) const noexcept {
        const float size = static_cast<float>(levels_[code % count_of_levels]) * scale;
        return std::bit_cast<float>(std::bit_cast<std::uint32_t>(size) | (code >> LevelBits) << 31U);
    }
    /// The level nearest to the value, and above it the sign.
    [[nodiscard]] std::uint32_t code_of(float value, float scale) const noexcept {
        const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
        const float twice = 2.0F * std::bit_cast<float>(bits & 0x7fffffffU);
        std::uint32_t level = 0;
        for (std::size_t i = 1; i < count_of_levels; ++i)
            level += twice >= static_cast<float>(levels_[i - 1] + levels_[i]) * scale ? 1U : 0U;
        return level | (bits >> 31U) << LevelBits;
    }

    /// Sum of squared errors in units of 1 / unit; stops when it is not below `bound`.
    [[nodiscard]] double measure(std::span<const float> values, float scale, float unit, double bound) const noexcept {
        double error = 0.0;
        for (const float value : values) {
            const float size = (value < 0.0F ? -value : value) * unit;
            const float level = static_cast<float>(levels_[code_of(value, scale) % count_of_levels]) * scale * unit;
            error += static_cast<double>((size - level) * (size - level));
            if (!(error < bound)) break;
        }
        return error;
    }
    /// The smallest scale of which all values are levels, if there is one: what was rounded before.
    [[nodiscard]] std::optional<std::uint32_t> exact_field(std::span<const float> values,
                                                           float largest) const noexcept {
        for (std::size_t i = count_of_levels; i-- > 0;) {
            const std::uint32_t field = field_of(largest / static_cast<float>(levels_[i]));
            const float scale = scale_of(field);
            if (static_cast<float>(levels_[i]) * scale == largest &&
                std::all_of(values.begin(), values.end(),
                            [&](float value) { return decoded(scale, code_of(value, scale)) == value; }))
                return field;
        }
        return std::nullopt;
    }
    /// The scale with the least sum of squared errors among those that put the mean within the levels.
    [[nodiscard]] std::uint32_t choose_field(std::span<const float> values) const noexcept {
        float largest = 0.0F;
        double sum = 0.0;
        for (const float value : values) {
            const float size = value < 0.0F ? -value : value;
            largest = std::max(largest, size);
            sum += static_cast<double>(size);
        }
        if (!(largest > scale_of(0))) return 0;
        if (const auto exact = exact_field(values, largest)) return *exact;
        const float unit = 1.0F / largest;
        const double mean = sum / static_cast<double>(values.size());
        const std::uint32_t last = field_of(static_cast<float>(mean / static_cast<double>(levels_.front())));
        std::uint32_t best = last;
        double least = 1e300;
        for (std::uint32_t field = field_of(static_cast<float>(mean / static_cast<double>(levels_.back())));
             field <= last; ++field) {
            const double error = measure(values, scale_of(field), unit, least);
            if (error < least) {
                best = field;
                least = error;
            }
        }
        return best;
    }
    /// The smallest scale with which other levels give the same values, `used` being those that occur with `scale`.
    [[nodiscard]] std::uint32_t smallest_field(float scale, std::uint32_t used) const noexcept {
        const auto top = static_cast<std::size_t>(std::bit_width(used) - 1);
        const float largest = static_cast<float>(levels_[top]) * scale;
        for (std::size_t i = count_of_levels - 1; i > top; --i) {
            const std::uint32_t field = field_of(largest / static_cast<float>(levels_[i]));
            const float other = scale_of(field);
            bool same = true;
            for (std::uint32_t level = 0; level <= top && same; ++level)
                if ((used >> level & 1U) != 0) {
                    const float value = static_cast<float>(levels_[level]) * scale;
                    same = decoded(other, code_of(value, other)) == value;
                }
            if (same) return field;
        }
        return field_of(scale);
    }

    value_code id_;
    level_table levels_;
};

}  // namespace detail

/// The built-in code of that number. Throws value_error for any other.
[[nodiscard]] inline const value_codec& codec_of(value_code code) {
    static const detail::f32_codec f32;
    static const detail::sign_codec sign;
    static const detail::bf16_codec bf16;
    static const detail::scaled_codec<3> q4(value_code::q4, {16, 19, 23, 28, 33, 40, 48, 57});
    static const detail::scaled_codec<1> q2(value_code::q2, {5, 7});
    switch (code) {
        case value_code::f32: return f32;
        case value_code::sign: return sign;
        case value_code::bf16: return bf16;
        case value_code::q4: return q4;
        case value_code::q2: return q2;
    }
    throw value_error("value code " + std::to_string(static_cast<int>(code)) + ", expected f32, sign, bf16, q4 or q2");
}

}  // namespace thinwire

#endif  // THINWIRE_CODEC_VALUE_CODEC_HPP

// ---- thinwire/codec/payload_layout.hpp
#ifndef THINWIRE_CODEC_PAYLOAD_LAYOUT_HPP
#define THINWIRE_CODEC_PAYLOAD_LAYOUT_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace thinwire {

/// What a payload carries.
enum class payload_kind : std::uint8_t {
    demo = 0,   ///< selected coefficients of every chunk
    dense = 1,  ///< every element of every gradient, f32
};

/// One tensor as the codec sees it: `chunks` blocks of `chunk_size` elements, `kept` of which are sent.
struct payload_section {
    std::uint64_t chunks = 0;
    std::uint32_t chunk_size = 0;  ///< rows * columns of a chunk: at most 65536
    std::uint32_t kept = 0;        ///< min(k, chunk_size); 1 for dense
    std::uint32_t columns = 0;     ///< of a chunk; 0 where its coefficients are in no order of frequency

    [[nodiscard]] std::uint64_t coefficients() const noexcept { return chunks * kept; }
};

/// What every payload of a run must look like. All peers derive the same one from shapes and options.
struct payload_layout {
    payload_kind kind = payload_kind::demo;
    const value_codec* codec = &codec_of(value_code::f32);  ///< must outlive the layout
    std::uint32_t k = 0;                                    ///< the most that a payload may state; 0 for dense
    std::uint32_t chunk = 0;                                ///< 0 for dense
    std::uint64_t fingerprint = 0;  ///< of the names' shapes, so that other tensors of equal size are told apart
    std::vector<payload_section> sections;

    [[nodiscard]] value_code values() const noexcept { return codec->id(); }
    /// A section of a payload that states `k` in its header, at most that of the layout: a lower one is the most that
    /// any chunk sends.
    [[nodiscard]] payload_section section(std::size_t i, std::uint32_t stated) const noexcept {
        payload_section s = sections[i];
        if (stated < k) s.kept = std::min(s.kept, stated);
        return s;
    }
    [[nodiscard]] std::uint64_t chunks() const noexcept {
        std::uint64_t sum = 0;
        for (const payload_section& s : sections) sum += s.chunks;
        return sum;
    }
    [[nodiscard]] std::uint64_t coefficients() const noexcept {
        std::uint64_t sum = 0;
        for (const payload_section& s : sections) sum += s.coefficients();
        return sum;
    }
};

}  // namespace thinwire

#endif  // THINWIRE_CODEC_PAYLOAD_LAYOUT_HPP

// ---- thinwire/core/aligned.hpp
#ifndef THINWIRE_CORE_ALIGNED_HPP
#define THINWIRE_CORE_ALIGNED_HPP

#include <cstddef>
#include <limits>
#include <new>
#include <vector>

namespace thinwire {

/// Allocates at multiples of 64 bytes: a cache line and the widest vector register.
template <class T>
struct aligned_allocator {
    using value_type = T;

    aligned_allocator() = default;
    template <class U>
    constexpr aligned_allocator(const aligned_allocator<U>&) noexcept {}

    [[nodiscard]] T* allocate(std::size_t count) {
        if (count > std::numeric_limits<std::size_t>::max() / sizeof(T)) throw std::bad_array_new_length();
        return static_cast<T*>(::operator new (count * sizeof(T), std::align_val_t{64}));
    }
    void deallocate(T* memory, std::size_t) noexcept { ::operator delete (memory, std::align_val_t{64}); }

    template <class U>
    [[nodiscard]] bool operator==(const aligned_allocator<U>&) const noexcept {
        return true;
    }
};

template <class T>
using aligned_vector = std::vector<T, aligned_allocator<T>>;

/// Bytes that vectors asked the allocator for; not what their elements hold in turn.
template <class... Vectors>
[[nodiscard]] constexpr std::size_t bytes_held(const Vectors&... vectors) noexcept {
    return (std::size_t{0} + ... + (vectors.capacity() * sizeof(typename Vectors::value_type)));
}

}  // namespace thinwire

#endif  // THINWIRE_CORE_ALIGNED_HPP

// ---- thinwire/codec/detail/split_tables.hpp
#ifndef THINWIRE_CODEC_DETAIL_SPLIT_TABLES_HPP
#define THINWIRE_CODEC_DETAIL_SPLIT_TABLES_HPP

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace thinwire::detail {

inline constexpr unsigned split_bits = 15;

/// How many of the 16 numbers at `at` come before the first that is not below `limit` < 2^16.
[[nodiscard]] THINWIRE_ALWAYS_INLINE std::uint32_t leading_below(const std::uint16_t* at,
                                                                 std::uint32_t limit) noexcept {
#if defined(__SSE2__)
    const __m128i limits = _mm_set1_epi16(static_cast<short>(limit)), zero = _mm_setzero_si128();
    const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
    const __m128i high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at + 8));
    const __m128i low_reach = _mm_cmpeq_epi16(_mm_subs_epu16(limits, low), zero);
    const __m128i high_reach = _mm_cmpeq_epi16(_mm_subs_epu16(limits, high), zero);
    const auto reach = static_cast<unsigned>(_mm_movemask_epi8(_mm_packs_epi16(low_reach, high_reach)));
    return static_cast<std::uint32_t>(std::countr_zero(reach | 0x10000U));
#else
    std::uint32_t count = 0;
    while (count < 16 && at[count] < limit) ++count;
    return count;
#endif
}

/// How many of c chosen places lie in the lower part of a block, as cumulative frequencies that end at 2^15. Made by
/// integer arithmetic alone: every machine has the same.
struct split_table {
    const std::uint16_t* cumulative = nullptr;  ///< symbols + 1 entries, at least 17, filled up with 65535
    std::uint32_t low = 0;                      ///< the smallest count in the window
    std::uint32_t counts = 0;                   ///< how many counts the window holds
    std::uint32_t symbols = 0;                  ///< counts, and one more when a count outside the window can be: it
                                                ///< follows in 16 raw bits. With a single symbol nothing is coded

    /// The symbol whose frequencies hold `slot` < 2^15.
    [[nodiscard]] THINWIRE_ALWAYS_INLINE std::uint32_t find(std::uint32_t slot) const noexcept {
        return symbols <= 16 ? leading_below(cumulative + 1, slot + 1) : find_wide(slot);
    }

 private:
    [[nodiscard]] std::uint32_t find_wide(std::uint32_t slot) const noexcept {
        std::uint32_t symbol = 0;
        for (std::uint32_t step = std::bit_floor(symbols - 1); step > 0; step /= 2) {
            const std::uint32_t next = std::min(symbol + step, symbols - 1);
            symbol = cumulative[next] <= slot ? next : symbol;
        }
        return symbol;
    }
};

/// Appends the cumulative frequencies to `out`; the table's pointer is left to the caller. Weights start with 2^30 at
/// the mode and follow the exact ratio of neighbours, rounded down, while they are at least 2^14.
[[nodiscard]] inline split_table make_split(std::uint64_t size, std::uint64_t half, std::uint64_t c,
                                            std::vector<std::uint64_t>& weights, std::vector<std::uint16_t>& out) {
    const std::uint64_t rest = size - half;
    const std::uint64_t lowest = c > rest ? c - rest : 0, highest = std::min(half, c);
    const std::uint64_t mode = std::clamp((c + 1) * (half + 1) / (size + 2), lowest, highest);
    constexpr std::uint64_t top = std::uint64_t{1} << 30U, least = std::uint64_t{1} << 14U;
    weights.assign(1, top);
    std::uint64_t low = mode;
    for (std::uint64_t w = top; low > lowest; --low) {
        w = w * (low * (rest + low - c)) / ((half - low + 1) * (c - low + 1));
        if (w < least) break;
        weights.push_back(w);
    }
    std::reverse(weights.begin(), weights.end());
    std::uint64_t high = mode;
    for (std::uint64_t w = top; high < highest; ++high) {
        w = w * ((half - high) * (c - high)) / ((high + 1) * (rest + high + 1 - c));
        if (w < least) break;
        weights.push_back(w);
    }
    const bool escape = low > lowest || high < highest;
    const auto counts = static_cast<std::uint32_t>(weights.size()), symbols = counts + (escape ? 1U : 0U);
    std::uint64_t sum = 0;
    for (const std::uint64_t w : weights) sum += w;
    const std::uint64_t spread = (std::uint64_t{1} << split_bits) - symbols;
    std::uint64_t given = symbols;
    for (std::uint64_t& w : weights) {
        w = w * spread / sum;
        given += w;
    }
    weights[mode - low] += (std::uint64_t{1} << split_bits) - given;
    std::uint64_t at = 0;
    out.push_back(0);
    for (const std::uint64_t w : weights) out.push_back(static_cast<std::uint16_t>(at += w + 1));
    if (escape) out.push_back(static_cast<std::uint16_t>(at + 1));
    for (std::size_t i = symbols + 1; i < 17; ++i) out.push_back(0xffffU);
    return {.low = static_cast<std::uint32_t>(low), .counts = counts, .symbols = symbols};
}

/// The tables of all nodes with at most `cached` positions that the chunks of a layout have: blocks of 2^j positions
/// cut in halves, and for chunks whose size is no power of two the blocks at their ends.
class split_tables {
 public:
    static constexpr std::uint32_t cached = 256;

    explicit split_tables(const payload_layout& layout) {
        std::uint32_t most = 0;
        for (const payload_section& s : layout.sections) {
            const unsigned levels = static_cast<unsigned>(std::bit_width(s.chunk_size - 1));
            most = std::max(most, std::min(s.kept, cached));
            for (unsigned j = 4; j <= levels; ++j) add(std::uint32_t{1} << j, most);
            for (unsigned j = 1; j <= levels; ++j) {
                const std::uint32_t end = s.chunk_size & ((std::uint32_t{2} << (j - 1)) - 1);
                if (end > std::uint32_t{1} << (j - 1)) add(end, most);
            }
        }
        for (entry& e : entries_)
            for (std::size_t i = 0; i < e.tables.size(); ++i) e.tables[i].cumulative = numbers_.data() + e.begins[i];
    }
    split_tables(const split_tables&) = delete;
    split_tables& operator=(const split_tables&) = delete;

    /// The tables of blocks of this size for 1, 2, ... positions.
    [[nodiscard]] std::span<const split_table> of(std::uint32_t size) const noexcept {
        for (const entry& e : entries_)
            if (e.size == size) return e.tables;
        return {};
    }
    /// Where a block is cut: the largest power of two below its size.
    [[nodiscard]] static std::uint32_t half_of(std::uint32_t size) noexcept { return std::bit_floor(size - 1); }
    [[nodiscard]] std::size_t memory_bytes() const noexcept {
        std::size_t sum = bytes_held(entries_, numbers_, weights_);
        for (const entry& e : entries_) sum += bytes_held(e.tables, e.begins);
        return sum;
    }

 private:
    struct entry {
        std::uint32_t size;
        std::vector<split_table> tables;
        std::vector<std::size_t> begins;  ///< of their numbers
    };

    void add(std::uint32_t size, std::uint32_t most) {
        auto at = std::find_if(entries_.begin(), entries_.end(), [&](const entry& e) { return e.size == size; });
        if (at == entries_.end()) at = entries_.insert(entries_.end(), {size, {}, {}});
        for (std::uint32_t c = static_cast<std::uint32_t>(at->tables.size()) + 1; c <= std::min(most, size); ++c) {
            at->begins.push_back(numbers_.size());
            at->tables.push_back(make_split(size, half_of(size), c, weights_, numbers_));
        }
    }

    std::vector<entry> entries_;
    std::vector<std::uint16_t> numbers_;
    std::vector<std::uint64_t> weights_;
};

}  // namespace thinwire::detail

#endif  // THINWIRE_CODEC_DETAIL_SPLIT_TABLES_HPP

// ---- thinwire/codec/detail/support_walk.hpp
#ifndef THINWIRE_CODEC_DETAIL_SUPPORT_WALK_HPP
#define THINWIRE_CODEC_DETAIL_SUPPORT_WALK_HPP

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace thinwire::detail {

/// A block of places [base, base + 2^level) of a chunk with the `count` chosen ones among them, which in the batch
/// begin at `place`. One word, as parts written one by one and read at once would wait for each other.
class support_node {
 public:
    support_node() noexcept = default;
    /// What is 2^16 or more of place and base is lost; nodes without chosen places have that, and are never looked at.
    support_node(std::uint32_t place, std::uint32_t base, std::uint32_t count) noexcept
        : word_((place & 0xffffU) | (base & 0xffffU) << 16U | std::uint64_t{count} << 32U) {}

    [[nodiscard]] std::uint32_t place() const noexcept { return static_cast<std::uint32_t>(word_ & 0xffffU); }
    [[nodiscard]] std::uint32_t base() const noexcept { return static_cast<std::uint32_t>(word_ >> 16U & 0xffffU); }
    [[nodiscard]] std::uint32_t count() const noexcept { return static_cast<std::uint32_t>(word_ >> 32U); }

 private:
    std::uint64_t word_ = 0;
};

/// Part of the range of a coded symbol: [start, start + frequency) of 2^15.
struct coded_part {
    std::uint16_t start, frequency;
};

/// From blocks of 2^6 on, two chosen places are 2 j - 1 plain bits, which lose at most 0.023 of a bit.
inline constexpr unsigned pair_level = 6;
/// Blocks of at most 2^3 places are coded at once.
inline constexpr unsigned mask_level = 3;
inline constexpr unsigned top_level = 16;

/// Subsets of up to 8 places as bit masks, in rising order for each number of places and of chosen ones.
class subset_table {
 public:
    subset_table() noexcept {
        for (unsigned j = 0; j <= mask_level; ++j) {
            std::uint8_t at = 0;
            for (int count = 0; count <= 1 << j; ++count) {
                begins_[j][static_cast<std::size_t>(count)] = at;
                std::uint8_t rank = 0;
                for (std::uint32_t mask = 0; mask < 1U << (1U << j); ++mask) {
                    if (std::popcount(mask) != count) continue;
                    ++rank;
                    masks_[j][at++] = static_cast<std::uint8_t>(mask);
                }
                sizes_[j][static_cast<std::size_t>(count)] = rank;
                for (std::uint32_t r = 0; r < rank; ++r) {
                    const std::uint32_t from = (r << split_bits) / rank, to = ((r + 1) << split_bits) / rank;
                    const std::size_t i = begins_[j][static_cast<std::size_t>(count)] + r;
                    parts_[j][i] = {static_cast<std::uint16_t>(from), static_cast<std::uint16_t>(to - from)};
                    part_of_mask_[j][masks_[j][i]] = parts_[j][i];
                }
            }
        }
    }
    [[nodiscard]] std::span<const std::uint8_t> masks(unsigned level, std::uint32_t count) const noexcept {
        return {masks_[level].data() + begins_[level][count], sizes_[level][count]};
    }
    /// The part of 2^15 that each of those masks has: parts of equal size but for rounding.
    [[nodiscard]] const coded_part* parts(unsigned level, std::uint32_t count) const noexcept {
        return parts_[level].data() + begins_[level][count];
    }
    /// That of one mask.
    [[nodiscard]] const coded_part& part(unsigned level, std::uint32_t mask) const noexcept {
        return part_of_mask_[level][mask];
    }

 private:
    std::array<std::array<std::uint8_t, 256>, mask_level + 1> masks_{};
    std::array<std::array<coded_part, 256>, mask_level + 1> parts_{}, part_of_mask_{};
    std::array<std::array<std::uint8_t, 10>, mask_level + 1> begins_{}, sizes_{};
};

/// Visits blocks of 2^j places, widest first, in the order in which they are coded. `Coder` either writes or reads:
/// masks(j, nodes) codes blocks of at most 8 places, singles(j, nodes) and pairs(j, nodes) those with one or two chosen
/// places in plain bits; splitter(size, most) gives an object whose split(node) gives the count of the lower half of up
/// to `most` blocks of that size, and which ends with close(): what it needs is in registers meanwhile.
class support_walk {
 public:
    /// Room for blocks with so many chosen places together, and so many seeds of each size.
    void reserve(std::size_t places, std::size_t seeds) {
        for (lists& side : sides_)
            for (list* each : {&side.blocks, &side.singles, &side.pairs}) each->reserve(places + 2);
        for (list& each : seeds_) each.reserve(seeds);
    }
    /// Adds a block of 2^level places for run(); one without chosen places is nothing.
    void seed(unsigned level, const support_node& node) noexcept {
        list& to = seeds_[level];
        to.nodes[to.size] = node;
        to.size += node.count() > 0 ? 1U : 0U;
    }
    /// Visits the seeds and what they are made of. In blocks of one level those cut from wider ones come first.
    template <class Coder>
    void run(Coder& coder) {
        unsigned top = top_level;
        while (top > 0 && seeds_[top].size == 0) --top;
        lists* here = sides_.data();
        lists* next = here + 1;
        for (lists& side : sides_) side.clear();
        for (unsigned level = top;; --level) {
            for (const support_node& node : seeds_[level].used()) push(*here, level, node);
            seeds_[level].size = 0;
            if (level <= mask_level)
                coder.masks(level, here->blocks.used());
            else
                cut(level, *here, *next, coder);
            coder.singles(level, here->singles.used());
            coder.pairs(level, here->pairs.used());
            if (level == 0) return;
            here->clear();
            std::swap(here, next);
        }
    }
    [[nodiscard]] std::size_t memory_bytes() const noexcept {
        std::size_t sum = 0;
        for (const lists& side : sides_) sum += bytes_held(side.blocks.nodes, side.singles.nodes, side.pairs.nodes);
        for (const list& each : seeds_) sum += bytes_held(each.nodes);
        return sum;
    }

 private:
    struct list {
        std::vector<support_node> nodes;
        std::size_t size = 0;

        void reserve(std::size_t room) {
            if (nodes.size() < room) nodes.resize(room);
        }
        [[nodiscard]] std::span<const support_node> used() const noexcept { return {nodes.data(), size}; }
    };
    struct lists {
        list blocks, singles, pairs;

        void clear() noexcept { blocks.size = singles.size = pairs.size = 0; }
    };

    static void push(lists& to, unsigned level, const support_node& node) noexcept {
        const bool single = node.count() == 1, pair = node.count() == 2 && level >= pair_level;
        list& chosen = single ? to.singles : pair ? to.pairs : to.blocks;
        chosen.nodes[chosen.size++] = node;
    }
    /// The lists' sizes while they grow, 21 bits each: one number, that what comes next need not wait for memory.
    class list_sizes {
     public:
        enum kind : unsigned { blocks = 0, singles = 21, pairs = 42 };

        [[nodiscard]] std::size_t of(kind which) const noexcept { return sizes_ >> which & 0x1fffffU; }
        void count(const support_node& node, const std::array<std::uint64_t, 4>& steps) noexcept {
            const auto over = static_cast<std::int32_t>(node.count() - 3);  // compilers make a branch of std::min
            const std::int32_t step = 3 + (over & over >> 31);
            sizes_ += steps[static_cast<std::size_t>(step)];
        }

     private:
        std::uint64_t sizes_ = 0;
    };
    /// Halves all blocks. Which list a half goes to is as good as random: it is written to all and counted in one, so
    /// that there is no branch to guess.
    template <class Coder>
    static void cut(unsigned level, const lists& from, lists& to, Coder& coder) {
        if (from.blocks.size == 0) return;
        constexpr std::uint64_t block = 1, single = 1U << list_sizes::singles;
        const std::uint64_t two = level - 1 >= pair_level ? std::uint64_t{1} << list_sizes::pairs : block;
        const std::array<std::uint64_t, 4> steps = {0, single, two, block};
        support_node* const blocks = to.blocks.nodes.data();
        support_node* const singles = to.singles.nodes.data();
        support_node* const pairs = to.pairs.nodes.data();
        list_sizes sizes;
        const auto put = [&](const support_node& node) {
            blocks[sizes.of(list_sizes::blocks)] = node;
            singles[sizes.of(list_sizes::singles)] = node;
            pairs[sizes.of(list_sizes::pairs)] = node;
            sizes.count(node, steps);
        };
        const std::uint32_t half = (1U << level) / 2;
        auto splitter = coder.splitter(std::uint32_t{1} << level, from.blocks.size);
        for (const support_node& node : from.blocks.used()) {
            const std::uint32_t lower = splitter.split(node);
            put({node.place(), node.base(), lower});
            put({node.place() + lower, node.base() + half, node.count() - lower});
        }
        splitter.close();
        to.blocks.size = sizes.of(list_sizes::blocks);
        to.singles.size = sizes.of(list_sizes::singles);
        to.pairs.size = sizes.of(list_sizes::pairs);
    }

    std::array<lists, 2> sides_;  // blocks of this level and of the next
    std::array<list, top_level + 1> seeds_;
};

}  // namespace thinwire::detail

#endif  // THINWIRE_CODEC_DETAIL_SUPPORT_WALK_HPP

// ---- thinwire/codec/sparse_content.hpp
#ifndef THINWIRE_CODEC_SPARSE_CONTENT_HPP
#define THINWIRE_CODEC_SPARSE_CONTENT_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace thinwire {

/// The part of a sparse_content that belongs to one section: the coefficients of chunk i begin at i * stride.
struct section_slice {
    std::span<std::uint16_t> positions;
    std::span<float> values;
    std::span<std::uint32_t> counts;
    std::size_t stride = 0;

    /// Some of its chunks.
    [[nodiscard]] section_slice chunks(std::size_t first, std::size_t count) const noexcept {
        return {.positions = positions.subspan(first * stride, count * stride),
                .values = values.subspan(first * stride, count * stride),
                .counts = counts.subspan(first, count),
                .stride = stride};
    }
};

/// Copies as many chunks of as many coefficients. Precondition: `to` is as large.
inline void copy_section(const section_slice& from, const section_slice& to) noexcept {
    std::ranges::copy(from.positions, to.positions.begin());
    std::ranges::copy(from.values, to.values.begin());
    std::ranges::copy(from.counts, to.counts.begin());
}

/// The coefficients of one payload, unpacked: for every chunk of every section `kept` places, of which the first
/// count(chunk) are used, positions rising.
struct sparse_content {
    std::vector<std::uint16_t> positions;
    std::vector<float> values;
    std::vector<std::uint32_t> counts;

    void resize(const payload_layout& layout) {
        positions.resize(layout.coefficients());
        values.resize(layout.coefficients());
        counts.resize(layout.chunks());
    }
    [[nodiscard]] std::size_t memory_bytes() const noexcept { return bytes_held(positions, values, counts); }
    /// The section whose coefficients and chunks begin at these places.
    [[nodiscard]] section_slice slice(const payload_section& section, std::size_t coefficient, std::size_t chunk) {
        return {.positions = std::span(positions).subspan(coefficient, section.coefficients()),
                .values = std::span(values).subspan(coefficient, section.coefficients()),
                .counts = std::span(counts).subspan(chunk, section.chunks),
                .stride = section.kept};
    }
};

}  // namespace thinwire

#endif  // THINWIRE_CODEC_SPARSE_CONTENT_HPP

// ---- thinwire/codec/detail/support_coder.hpp
#ifndef THINWIRE_CODEC_DETAIL_SUPPORT_CODER_HPP
#define THINWIRE_CODEC_DETAIL_SUPPORT_CODER_HPP

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

namespace thinwire::detail {

inline constexpr std::uint32_t coder_floor = std::uint32_t{1} << 16U;  ///< states lie in [2^16, 2^32)
inline constexpr std::uint64_t batch_places = 4096;

/// Four interleaved coders, one where their states would weigh: each costs 16 bits.
[[nodiscard]] inline std::size_t coder_states(std::uint64_t coefficients) noexcept {
    return coefficients < 4096 ? 1 : 4;
}

[[nodiscard]] inline const subset_table& subsets() {
    static const subset_table table;
    return table;
}

[[nodiscard]] inline std::size_t chunks_of_batch(const payload_section& section) noexcept {
    return static_cast<std::size_t>(std::max<std::uint64_t>(1, batch_places / section.kept));
}

/// Symbols that the positions of a section take at most. For the parts that a chunk is cut into down to a power of two:
/// one each but for the last. Then one for every block that neither is empty nor goes in plain bits: on each level from
/// pair_level on those hold three of the coefficients or more, below two or more, and of the levels that are coded at
/// once a coefficient meets one.
[[nodiscard]] inline std::size_t most_symbols(const payload_section& section) noexcept {
    const auto top = static_cast<unsigned>(std::bit_width(section.chunk_size) - 1);
    const std::uint64_t wide = top < pair_level ? 0 : top - pair_level + 1, narrow = pair_level - mask_level;
    const auto cuts = static_cast<std::uint64_t>(std::popcount(section.chunk_size) - 1);
    return static_cast<std::size_t>(section.chunks * cuts + section.coefficients() * (2 * wide + 3 * narrow) / 6);
}

/// How much memory the sections of a layout need at most, in payloads that state `k`.
struct support_needs {
    std::size_t coefficients = 0, symbols = 0, places = 0, chunks = 0;  ///< two of a section, two of a batch
    std::size_t window = 0;                                             ///< of tables made on the way

    support_needs() noexcept = default;
    explicit support_needs(const payload_layout& layout) noexcept : support_needs(layout, layout.k) {}
    support_needs(const payload_layout& layout, std::uint32_t k) noexcept {
        if (layout.kind != payload_kind::demo) return;
        for (std::size_t i = 0; i < layout.sections.size(); ++i) {
            const payload_section s = layout.section(i, k);
            const auto batch = static_cast<std::size_t>(std::min<std::uint64_t>(s.chunks, chunks_of_batch(s)));
            coefficients = std::max(coefficients, static_cast<std::size_t>(s.coefficients()));
            symbols = std::max(symbols, most_symbols(s));
            places = std::max(places, batch * s.kept);
            chunks = std::max(chunks, batch);
            if (s.kept > split_tables::cached) window = 2048;
        }
    }
};

/// What writing and reading the positions of a section have in common.
class support_coder {
 protected:
    support_coder(const split_tables& tables, const support_needs& needs) : tables_(&tables), subsets_(&subsets()) {
        walk_.reserve(needs.places, needs.chunks);
        numbers_.reserve(needs.window);
        weights_.reserve(needs.window);
    }

    /// Room for batches of a section. A payload that sends fewer coefficients than most has larger ones.
    void prepare(std::size_t places, std::size_t chunks) { walk_.reserve(places, chunks); }
    /// Codes the chunks of a batch, whose chosen places begin at multiples of `section.kept`.
    template <class Coder>
    void walk(const payload_section& section, std::span<const std::uint32_t> counts, Coder& coder) {
        for (std::size_t i = 0; i < counts.size(); ++i) {
            support_node node = {static_cast<std::uint32_t>(i * section.kept), 0, counts[i]};
            std::uint32_t size = section.chunk_size;
            for (; (size & (size - 1)) != 0 && node.count() > 0; size -= split_tables::half_of(size)) {
                auto splitter = coder.splitter(size, 1);
                const std::uint32_t half = split_tables::half_of(size), lower = splitter.split(node);
                splitter.close();
                walk_.seed(level_of(half), {node.place(), node.base(), lower});
                node = {node.place() + lower, node.base() + half, node.count() - lower};
            }
            walk_.seed(level_of(size), node);
        }
        walk_.run(coder);
    }
    /// The tables of blocks of one size.
    struct block_tables {
        support_coder* coder;
        std::uint32_t size, half;
        std::span<const split_table> known;

        /// Valid until the next call.
        [[nodiscard]] THINWIRE_ALWAYS_INLINE const split_table& of(std::uint32_t count) const {
            return count <= known.size() ? known[count - 1] : coder->make(size, half, count);
        }
    };
    [[nodiscard]] block_tables tables_of(std::uint32_t size) noexcept {
        return {this, size, split_tables::half_of(size), tables_->of(size)};
    }

    [[nodiscard]] std::size_t walk_bytes() const noexcept {
        return walk_.memory_bytes() + bytes_held(numbers_, weights_);
    }

 private:
    [[nodiscard]] static unsigned level_of(std::uint32_t size) noexcept {
        return static_cast<unsigned>(std::bit_width(size) - 1);
    }
    [[nodiscard]] const split_table& make(std::uint32_t size, std::uint32_t half, std::uint32_t count) {
        numbers_.clear();
        made_ = make_split(size, half, count, weights_, numbers_);
        made_.cumulative = numbers_.data();
        return made_;
    }

    const split_tables* tables_;

 protected:
    const subset_table* subsets_;

 private:
    support_walk walk_;
    split_table made_;
    std::vector<std::uint16_t> numbers_;
    std::vector<std::uint64_t> weights_;
};

/// Writes the positions of a section: the number of 16-bit words (7 bits a byte, lowest first), the words of the coded
/// symbols, the plain bits.
class support_encoder : support_coder {
 public:
    support_encoder(const split_tables& tables, const support_needs& needs)
        : support_coder(tables, needs),
          positions_(needs.places + 16),
          symbols_(needs.symbols + 16),
          words_(symbols_.size() + 8),
          plain_(4 * needs.coefficients + 64) {}
    /// Room for the sections that these are the needs of.
    void reserve(const support_needs& needs) {
        prepare(needs.places, needs.chunks);
        if (positions_.size() < needs.places + 16) positions_.resize(needs.places + 16);
    }
    [[nodiscard]] std::size_t memory_bytes() const noexcept {
        return walk_bytes() + bytes_held(positions_, symbols_, words_, plain_);
    }

    /// Appends to `out`. Precondition: positions of each chunk rise and lie below chunk_size.
    void encode(const payload_section& section, const section_slice& in, std::vector<std::byte>& out) {
        const std::span<const std::uint32_t> counts = in.counts;
        const std::size_t chunks = std::min(chunks_of_batch(section), counts.size());
        prepare(chunks * section.kept, chunks);
        symbol_count_ = 0;
        bits_ = bit_writer(plain_);
        for (std::size_t first = 0; first < counts.size(); first += chunks) {
            const auto batch = counts.subspan(first, std::min(chunks, counts.size() - first));
            take_positions(in, first, batch.size(), section.kept);
            walk(section, batch, *this);
        }
        bits_.flush();
        if (words_.size() < symbol_count_ + 8) words_.resize(symbol_count_ + 8);
        const std::span<const std::uint16_t> words = code(coder_states(section.coefficients()));
        for (std::size_t n = words.size();; n >>= 7U) {
            out.push_back(static_cast<std::byte>((n & 0x7fU) | (n > 0x7fU ? 0x80U : 0U)));
            if (n <= 0x7fU) break;
        }
        std::size_t at = out.size();
        out.resize(at + 2 * words.size());
        if (std::endian::native == std::endian::little && !words.empty())
            std::memcpy(out.data() + at, words.data(), words.size_bytes());
        else
            for (const std::uint16_t word : words) {
                out[at++] = static_cast<std::byte>(word & 0xffU);
                out[at++] = static_cast<std::byte>(word >> 8U);
            }
        out.insert(out.end(), plain_.begin(), plain_.begin() + static_cast<std::ptrdiff_t>(bits_.position()));
    }

 private:
    friend support_coder;
    friend support_walk;

    /// The positions of a batch of chunks, those of each at a multiple of `kept`.
    void take_positions(const section_slice& in, std::size_t first, std::size_t chunks, std::size_t kept) {
        if (positions_.size() < chunks * kept + 16) positions_.resize(chunks * kept + 16);
        const std::uint16_t* from = in.positions.data() + first * in.stride;
        if (kept == in.stride)
            std::copy_n(from, chunks * kept, positions_.begin());
        else
            for (std::size_t i = 0; i < chunks; ++i)
                std::copy_n(from + i * in.stride, kept, positions_.data() + i * kept);
    }

    /// Halves blocks of one size.
    class block_splitter {
     public:
        block_splitter(support_encoder& coder, std::uint32_t size) noexcept
            : tables_(coder.tables_of(size)),
              coder_(&coder),
              positions_(coder.positions_.data()),
              next_(coder.symbols_.data() + coder.symbol_count_) {}
        [[nodiscard]] THINWIRE_ALWAYS_INLINE std::uint32_t split(const support_node& node) {
            const std::uint32_t count = node.count();
            const std::uint32_t lower = below(positions_ + node.place(), count, (node.base() + tables_.half) & 0xffffU);
            const split_table& t = tables_.of(count);
            std::uint32_t which = lower - t.low;
            if (which >= t.counts) [[unlikely]] {
                which = t.counts;
                coder_->bits_.put(lower, 16);
            }
            const std::uint16_t from = t.cumulative[which], to = t.cumulative[which + 1];
            *next_ = {from, static_cast<std::uint16_t>(to - from)};
            next_ += next_->frequency >> split_bits ^ 1U;  // a single symbol is not coded
            return lower;
        }
        void close() noexcept { coder_->symbol_count_ = static_cast<std::size_t>(next_ - coder_->symbols_.data()); }

     private:
        /// How many of `count` positions, which rise, are below the middle; 16 can be read.
        [[nodiscard]] THINWIRE_ALWAYS_INLINE static std::uint32_t below(const std::uint16_t* at, std::uint32_t count,
                                                                        std::uint32_t middle) noexcept {
            if (count <= 16) return std::min(leading_below(at, middle), count);
            std::uint32_t lower = 0;
            if (count <= 64) {
                std::uint32_t more = 16;
                for (; more == 16 && lower < count; lower += more) more = leading_below(at + lower, middle);
                return std::min(lower, count);
            }
            for (std::uint32_t step = std::bit_floor(count); step > 0; step /= 2) {
                const std::uint32_t last = std::min(lower + step, count);
                lower = at[last - 1] < middle ? last : lower;
            }
            return lower;
        }

        block_tables tables_;
        support_encoder* coder_;
        const std::uint16_t* positions_;
        coded_part* next_;
    };
    [[nodiscard]] block_splitter splitter(std::uint32_t size, std::size_t most) {
        make_room(most);
        return {*this, size};
    }
    void masks(unsigned level, std::span<const support_node> nodes) {
        make_room(nodes.size());
        coded_part* next = symbols_.data() + symbol_count_;
        for (const support_node& node : nodes) {
            std::uint32_t bits = 0;
            for (std::uint32_t i = 0; i < node.count(); ++i) bits |= 1U << (positions_[node.place() + i] - node.base());
            *next = subsets_->part(level, bits);
            next += next->frequency >> split_bits ^ 1U;
        }
        symbol_count_ = static_cast<std::size_t>(next - symbols_.data());
    }
    void singles(unsigned level, std::span<const support_node> nodes) noexcept {
        bit_writer bits = bits_;
        for (const support_node& node : nodes)
            bits.put(static_cast<std::uint32_t>(positions_[node.place()] - node.base()), level);
        bits_ = bits;
    }
    /// The one from which the other is nearer when going up and round, and how far that is.
    void pairs(unsigned level, std::span<const support_node> nodes) noexcept {
        const std::uint32_t size = std::uint32_t{1} << level;
        bit_writer bits = bits_;
        for (const support_node& node : nodes) {
            const auto a = static_cast<std::uint32_t>(positions_[node.place()] - node.base());
            const auto b = static_cast<std::uint32_t>(positions_[node.place() + 1U] - node.base());
            const bool near = b - a <= size / 2;
            bits.put((near ? a : b) | ((near ? b - a : size + a - b) - 1) << level, 2 * level - 1);
        }
        bits_ = bits;
    }
    /// For so many symbols more; only a section of another layout has more than there is room for.
    void make_room(std::size_t more) {
        if (symbol_count_ + more >= symbols_.size()) symbols_.resize(2 * (symbol_count_ + more));
    }

    /// Range asymmetric numeral systems, last symbol first: fills words_ from its end and returns what it filled.
    [[nodiscard]] std::span<const std::uint16_t> code(std::size_t states) noexcept {
        std::size_t at = words_.size();
        if (symbol_count_ == 0) return {};
        std::array<std::uint32_t, 4> state{};
        state.fill(coder_floor);
        for (std::size_t i = symbol_count_; i-- > 0;) {
            const coded_part s = symbols_[i];
            std::uint32_t& x = state[i & (states - 1)];
            const std::uint32_t full = x >= std::uint64_t{s.frequency} << (32U - split_bits) ? 1U : 0U;
            words_[at - 1] = static_cast<std::uint16_t>(x & 0xffffU);
            at -= full;
            x >>= 16U * full;
            x = (x / s.frequency << split_bits) + x % s.frequency + s.start;
        }
        for (std::size_t i = states; i-- > 0;) {
            words_[--at] = static_cast<std::uint16_t>(state[i] >> 16U);
            words_[--at] = static_cast<std::uint16_t>(state[i] & 0xffffU);
        }
        return std::span<const std::uint16_t>(words_).subspan(at);
    }

    std::vector<std::uint16_t> positions_;  // of the batch, and 16 more so that 16 can be read anywhere
    std::vector<coded_part> symbols_;
    std::size_t symbol_count_ = 0;
    std::vector<std::uint16_t> words_;
    std::vector<std::byte> plain_;
    bit_writer bits_{std::span<std::byte>{}};
};

/// Reads what support_encoder writes, from foreign bytes. Total; accepts exactly that.
class support_decoder : support_coder {
 public:
    support_decoder(const split_tables& tables, const support_needs& needs) : support_coder(tables, needs) {}

    [[nodiscard]] std::size_t memory_bytes() const noexcept { return walk_bytes(); }
    /// Room for the sections that these are the needs of.
    void reserve(const support_needs& needs) { prepare(needs.places, needs.chunks); }

    /// Takes its part off the front of `bytes`. The positions of chunk i begin at i * section.kept.
    [[nodiscard]] std::optional<errc> decode(std::span<const std::byte>& bytes, const payload_section& section,
                                             std::span<const std::uint32_t> counts,
                                             std::span<std::uint16_t> positions) {
        std::uint64_t words = 0;
        std::size_t prefix = 0;
        for (bool more = true; more; ++prefix) {
            if (prefix == bytes.size()) return errc::truncated;
            const auto byte = std::to_integer<std::uint64_t>(bytes[prefix]);
            if (prefix == 5 || (prefix > 0 && byte == 0)) return errc::malformed;
            words |= (byte & 0x7fU) << (7 * prefix);
            more = byte >= 0x80U;
        }
        if (words > (bytes.size() - prefix) / 2) return errc::truncated;
        begin(bytes.subspan(prefix, 2 * words), coder_states(section.coefficients()));
        const std::size_t chunks = std::min(chunks_of_batch(section), counts.size());
        prepare(chunks * section.kept, chunks);
        bytes = bytes.subspan(prefix + 2 * words);
        bits_ = bit_reader(bytes);
        for (std::size_t first = 0; first < counts.size(); first += chunks) {
            positions_ = positions.data() + first * section.kept;
            walk(section, counts.subspan(first, std::min(chunks, counts.size() - first)), *this);
        }
        bits_.align();
        if (malformed_ || !settled() || bits_.failed()) return errc::malformed;
        bytes = bytes.subspan(bits_.position());
        return std::nullopt;
    }

 private:
    friend support_coder;
    friend support_walk;

    void begin(std::span<const std::byte> words, std::size_t states) noexcept {
        words_ = words;
        at_ = next_ = 0;
        last_state_ = states - 1;
        state_.fill(coder_floor);
        malformed_ = !words.empty() && words.size() < 4 * states;
        for (std::size_t i = 0; i < states && words.size() >= 4 * states; ++i, at_ += 4) {
            state_[i] =
                word(words_, at_) | static_cast<std::uint32_t>(std::to_integer<std::uint32_t>(words_[at_ + 2]) |
                                                               std::to_integer<std::uint32_t>(words_[at_ + 3]) << 8U)
                                        << 16U;
            malformed_ = malformed_ || state_[i] < coder_floor;
        }
    }
    /// All words taken, all states where they began, and words there are exactly where symbols are.
    [[nodiscard]] bool settled() const noexcept {
        bool is = at_ == words_.size() && words_.empty() == (next_ == 0);
        for (const std::uint32_t state : state_) is = is && state == coder_floor;
        return is;
    }
    /// The states and where their next word lies, while symbols are taken.
    class symbol_reader {
     public:
        explicit symbol_reader(support_decoder& coder) noexcept
            : words_(coder.words_),
              at_(coder.at_),
              next_(coder.next_),
              last_(coder.last_state_),
              state_(coder.state_) {}
        [[nodiscard]] std::uint32_t slot() const noexcept {
            return state_[next_ & last_] & ((std::uint32_t{1} << split_bits) - 1);
        }
        THINWIRE_ALWAYS_INLINE void take(std::uint32_t slot, coded_part part, bool counts) noexcept {
            std::uint32_t& state = state_[next_ & last_];
            const std::uint32_t x = part.frequency * (state >> split_bits) + slot - part.start;
            const std::uint32_t low = 0U - (x < coder_floor ? 1U : 0U);  // as a mask: a branch would be hard to guess
            state = x << (low & 16U) | (word(words_, at_) & low);
            at_ += low & 2U;
            next_ += counts ? 1U : 0U;
        }
        void close(support_decoder& coder) const noexcept {
            coder.at_ = at_;
            coder.next_ = next_;
            coder.state_ = state_;
        }

     private:
        std::span<const std::byte> words_;
        std::size_t at_, next_, last_;
        std::array<std::uint32_t, 4> state_;
    };
    /// The word at `at`; past the end any, as then it is refused.
    [[nodiscard]] THINWIRE_ALWAYS_INLINE static std::uint32_t word(std::span<const std::byte> words,
                                                                   std::size_t at) noexcept {
        static constexpr std::byte none[2] = {};
        const std::byte* from = words.empty() ? none : words.data() + std::min(at, words.size() - 2);
        return std::to_integer<std::uint32_t>(from[0]) | std::to_integer<std::uint32_t>(from[1]) << 8U;
    }

    /// Halves blocks of one size.
    class block_splitter {
     public:
        block_splitter(support_decoder& coder, std::uint32_t size) noexcept
            : tables_(coder.tables_of(size)), coder_(&coder), symbols_(coder) {}
        [[nodiscard]] THINWIRE_ALWAYS_INLINE std::uint32_t split(const support_node& node) {
            const split_table& t = tables_.of(node.count());
            const std::uint32_t here = symbols_.slot(), which = t.find(here);
            const std::uint16_t from = t.cumulative[which], to = t.cumulative[which + 1];
            symbols_.take(here, {from, static_cast<std::uint16_t>(to - from)}, t.symbols > 1);
            return which < t.counts ? t.low + which : escaped(t, node);
        }
        void close() const noexcept { symbols_.close(*coder_); }

     private:
        [[nodiscard]] std::uint32_t escaped(const split_table& t, const support_node& node) noexcept {
            const std::uint32_t rest = tables_.size - tables_.half, lower = coder_->bits_.get(16);
            const std::uint32_t lowest = node.count() > rest ? node.count() - rest : 0;
            if (lower >= lowest && lower <= std::min(tables_.half, node.count()) && lower - t.low >= t.counts)
                return lower;
            coder_->malformed_ = true;
            return t.low;
        }

        block_tables tables_;
        support_decoder* coder_;
        symbol_reader symbols_;
    };
    [[nodiscard]] block_splitter splitter(std::uint32_t size, std::size_t) noexcept { return {*this, size}; }
    void masks(unsigned level, std::span<const support_node> nodes) noexcept {
        symbol_reader symbols(*this);
        for (const support_node& node : nodes) {
            const auto masks = subsets_->masks(level, node.count());
            const auto n = static_cast<std::uint32_t>(masks.size());
            const std::uint32_t here = symbols.slot(), rank = ((here + 1) * n - 1) >> split_bits;
            symbols.take(here, subsets_->parts(level, node.count())[rank], n > 1);
            std::uint16_t* to = positions_ + node.place();
            for (std::uint32_t left = masks[rank]; left != 0; left &= left - 1)
                *to++ = static_cast<std::uint16_t>(node.base() + static_cast<unsigned>(std::countr_zero(left)));
        }
        symbols.close(*this);
    }
    void singles(unsigned level, std::span<const support_node> nodes) noexcept {
        bit_reader bits = bits_;
        for (const support_node& node : nodes)
            positions_[node.place()] = static_cast<std::uint16_t>(node.base() + bits.get(level));
        bits_ = bits;
    }
    void pairs(unsigned level, std::span<const support_node> nodes) noexcept {
        const std::uint32_t size = std::uint32_t{1} << level;
        bit_reader bits = bits_;
        for (const support_node& node : nodes) {
            const std::uint32_t both = bits.get(2 * level - 1);
            const std::uint32_t first = both & (size - 1), apart = (both >> level) + 1;
            const std::uint32_t second = (first + apart) & (size - 1);
            malformed_ = malformed_ || (apart == size / 2 && first >= size / 2);
            positions_[node.place()] = static_cast<std::uint16_t>(node.base() + std::min(first, second));
            positions_[node.place() + 1U] = static_cast<std::uint16_t>(node.base() + std::max(first, second));
        }
        bits_ = bits;
    }

    std::span<const std::byte> words_;
    std::size_t at_ = 0;
    std::size_t next_ = 0;  // symbols taken
    std::array<std::uint32_t, 4> state_{};
    std::size_t last_state_ = 0;
    bool malformed_ = false;
    bit_reader bits_{std::span<const std::byte>{}};
    std::uint16_t* positions_ = nullptr;
};

}  // namespace thinwire::detail

#endif  // THINWIRE_CODEC_DETAIL_SUPPORT_CODER_HPP

// ---- thinwire/codec/section_coder.hpp
#ifndef THINWIRE_CODEC_SECTION_CODER_HPP
#define THINWIRE_CODEC_SECTION_CODER_HPP

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace thinwire {

/// Bytes that a demo section never exceeds, nor while it is written: memory of this size need not grow.
///
/// Of n places c are chosen: by an even choice each choice is worth log2 C(n, c) <= c (log2(n / c) + 1.45) bits. What
/// a split costs is its share of them, but for 1. an escape, of 15 + 16 bits: its share is 16 or more, as a count
/// outside the window is less likely than 2^-16; 2. what the coders' states round, at most 0.17 bits of a symbol, of
/// which there are 5.2 c, and 15 that cut a chunk down to a power of two. In all less than 2 c log2(n / c) + 4 c + 4
/// bits, for c < 4 (without escapes for c = 1) too less than 2 c width + 4.
[[nodiscard]] inline std::size_t room_of_section(const payload_section& section, const value_codec& codec) noexcept {
    const auto width = static_cast<std::uint64_t>(std::bit_width(section.chunk_size));
    const std::uint64_t bits =
        section.chunks * (codec.bits(section.kept) + std::uint64_t{2} * section.kept * width + 32);
    return static_cast<std::size_t>(bits / 8 + 128);
}

/// Writes and reads the sections of demo payloads of one layout. Holds the working memory of one thread, about 28 bytes
/// for each coefficient of the largest section, and allocates nothing later; copies share their tables.
class section_coder {
 public:
    /// The layout's codec must outlive it.
    explicit section_coder(const payload_layout& layout)
        : section_coder(layout.codec, std::make_shared<const detail::split_tables>(layout),
                        detail::support_needs(layout)) {}
    /// With working memory of its own.
    section_coder(const section_coder& other) : section_coder(other.codec_, other.tables_, other.needs_) {}
    section_coder& operator=(const section_coder&) = default;
    ~section_coder() = default;

    /// Room for sections of payloads that state `k`, and of those that state that of the layout.
    void reserve(const payload_layout& layout, std::uint32_t k) {
        const detail::support_needs needs(layout, k);
        encoder_.reserve(needs);
        decoder_.reserve(needs);
    }

    /// Appends one section: a byte of flags (1: counts follow), the counts when some chunk sends fewer than `kept`
    /// coefficients, the positions at the entropy of a uniform choice, all values. Each part starts at a byte. Throws
    /// value_error where a custom code writes another number of bits than its bits(). The section is one of
    /// payload_layout::section; the slice has at least its `kept` places a chunk.
    void encode(const payload_section& section, const section_slice& in, std::vector<std::byte>& out) {
        if (const std::size_t room = out.size() + room_of_section(section, *codec_); room > out.capacity())
            out.reserve(std::max(room, 2 * out.capacity()));
        const bool full =
            std::all_of(in.counts.begin(), in.counts.end(), [&](std::uint32_t count) { return count == section.kept; });
        std::uint64_t value_bits = full ? in.counts.size() * codec_->bits(section.kept) : 0;
        if (!full)
            for (const std::uint32_t count : in.counts) value_bits += codec_->bits(count);
        out.push_back(full ? std::byte{0} : std::byte{1});
        if (!full)
            append(out, 4 * in.counts.size(), [&](bit_writer& bits) {
                for (const std::uint32_t count : in.counts)
                    bits.put(count, static_cast<unsigned>(std::bit_width(section.kept)));
            });
        encoder_.encode(section, in, out);
        const std::size_t begin = out.size();
        append(out, (value_bits + 7) / 8, [&](bit_writer& bits) {
            for (std::size_t chunk = 0; chunk < in.counts.size(); ++chunk)
                codec_->encode(in.values.subspan(chunk * in.stride, in.counts[chunk]), bits);
        });
        if (out.size() != begin + (value_bits + 7) / 8)
            throw value_error("value codec '" + std::string(codec_->name()) +
                              "': wrote another number of bits than it announced");
    }

    /// Reads one section of foreign bytes into memory that the caller sized from its own layout. Total; accepts exactly
    /// what encode() writes. What it leaves in `out` when it refuses is unspecified.
    [[nodiscard]] std::optional<errc> decode(std::span<const std::byte> bytes, const payload_section& section,
                                             const section_slice& out) {
        if (bytes.empty()) return errc::truncated;
        if (std::to_integer<unsigned>(bytes[0]) > 1) return errc::malformed;
        const bool listed = bytes[0] == std::byte{1};
        bytes = bytes.subspan(1);
        if (const auto bad = decode_counts(section, listed, bytes, out.counts)) return bad;
        if (const auto bad = decoder_.decode(bytes, section, out.counts, out.positions)) return bad;
        spread(out, section.kept);
        bit_reader bits(bytes);
        for (std::size_t chunk = 0; chunk < out.counts.size(); ++chunk) {
            const auto values = out.values.subspan(chunk * out.stride, out.counts[chunk]);
            if (const auto bad = codec_->decode(bits, values)) return bad;
            if (const auto bad = detail::refuse_absurd(values)) return bad;
        }
        bits.align();
        if (bits.failed()) return errc::malformed;
        if (bits.position() != bytes.size()) return errc::trailing;
        return std::nullopt;
    }
    /// Working memory, without the tables that copies share.
    [[nodiscard]] std::size_t memory_bytes() const noexcept {
        return encoder_.memory_bytes() + decoder_.memory_bytes();
    }
    [[nodiscard]] std::size_t table_bytes() const noexcept { return sizeof *tables_ + tables_->memory_bytes(); }

 private:
    section_coder(const value_codec* codec, std::shared_ptr<const detail::split_tables> tables,
                  const detail::support_needs& needs)
        : codec_(codec),
          tables_(std::move(tables)),
          needs_(needs),
          encoder_(*tables_, needs),
          decoder_(*tables_, needs) {}

    /// Positions that begin at multiples of `apart` go to where those of the chunks belong.
    static void spread(const section_slice& out, std::size_t apart) noexcept {
        if (apart == out.stride) return;
        for (std::size_t chunk = out.counts.size(); chunk-- > 1;) {
            const auto from = out.positions.subspan(chunk * apart, out.counts[chunk]);
            const auto to = out.positions.subspan(chunk * out.stride, out.counts[chunk]);
            std::copy_backward(from.begin(), from.end(), to.end());
        }
    }

    template <class Write>
    static void append(std::vector<std::byte>& out, std::size_t most, const Write& write) {
        const std::size_t begin = out.size();
        out.resize(begin + most + 16);
        bit_writer bits(std::span<std::byte>(out).subspan(begin));
        write(bits);
        bits.flush();
        out.resize(begin + (bits.failed() ? 0 : bits.position()));
    }
    [[nodiscard]] std::optional<errc> decode_counts(const payload_section& section, bool listed,
                                                    std::span<const std::byte>& bytes,
                                                    std::span<std::uint32_t> counts) const noexcept {
        if (!listed) {
            std::fill(counts.begin(), counts.end(), section.kept);
            return std::nullopt;
        }
        if (codec_->sends_zero()) return errc::malformed;
        bit_reader bits(bytes);
        bool full = true;
        for (std::uint32_t& count : counts) {
            count = bits.get(static_cast<unsigned>(std::bit_width(section.kept)));
            if (count > section.kept) return errc::out_of_range;
            full = full && count == section.kept;
        }
        bits.align();
        if (bits.failed()) return errc::truncated;
        if (full) return errc::malformed;
        bytes = bytes.subspan(bits.position());
        return std::nullopt;
    }

    const value_codec* codec_;
    std::shared_ptr<const detail::split_tables> tables_;
    detail::support_needs needs_;
    detail::support_encoder encoder_;
    detail::support_decoder decoder_;
};

}  // namespace thinwire

#endif  // THINWIRE_CODEC_SECTION_CODER_HPP

// ---- thinwire/core/bytes.hpp
#ifndef THINWIRE_CORE_BYTES_HPP
#define THINWIRE_CORE_BYTES_HPP

#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace thinwire {

/// Appends little-endian numbers to a growing buffer, whatever the host's byte order.
class byte_writer {
 public:
    byte_writer() = default;
    /// Continues at the end of a buffer whose capacity is kept.
    explicit byte_writer(std::vector<std::byte>&& reuse) noexcept : bytes_(std::move(reuse)) {}

    template <std::integral T>
    void put(T value) {
        const auto bits = static_cast<std::uint64_t>(static_cast<std::make_unsigned_t<T>>(value));
        std::array<std::byte, sizeof(T)> raw;
        for (std::size_t i = 0; i < sizeof(T); ++i) raw[i] = static_cast<std::byte>((bits >> (8 * i)) & 0xffU);
        bytes_.insert(bytes_.end(), raw.begin(), raw.end());
    }
    void put(float value) { put(std::bit_cast<std::uint32_t>(value)); }
    void put(double value) { put(std::bit_cast<std::uint64_t>(value)); }
    void put(std::span<const std::byte> raw) { bytes_.insert(bytes_.end(), raw.begin(), raw.end()); }
    /// The bits of each.
    void put(std::span<const float> values) {
        if constexpr (std::endian::native == std::endian::little)
            put(std::as_bytes(values));
        else
            for (const float value : values) put(value);
    }
    /// A 32-bit length, then the characters.
    void put(std::string_view text) {
        put(static_cast<std::uint32_t>(text.size()));
        put(std::as_bytes(std::span(text.data(), text.size())));
    }
    /// Overwrites four bytes that were put before, such as a length known only at the end.
    void patch(std::size_t at, std::uint32_t value) noexcept {
        for (std::size_t i = 0; i < 4; ++i) bytes_[at + i] = static_cast<std::byte>((value >> (8 * i)) & 0xffU);
    }

    [[nodiscard]] std::size_t size() const noexcept { return bytes_.size(); }
    [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return bytes_; }
    [[nodiscard]] std::vector<std::byte> take() noexcept { return std::move(bytes_); }

 private:
    std::vector<std::byte> bytes_;
};

/// Reads little-endian numbers from foreign bytes. Total: a read past the end gives zero and sets failed(), and
/// nothing is read after that, so that a parser checks once at the end of a section.
class byte_reader {
 public:
    explicit byte_reader(std::span<const std::byte> bytes) noexcept : bytes_(bytes) {}

    template <std::integral T>
    [[nodiscard]] T get() noexcept {
        const std::span<const std::byte> raw = get_bytes(sizeof(T));
        std::uint64_t value = 0;
        for (std::size_t i = 0; i < raw.size(); ++i)
            value |= static_cast<std::uint64_t>(std::to_integer<std::uint8_t>(raw[i])) << (8 * i);
        return static_cast<T>(value);
    }
    [[nodiscard]] float get_f32() noexcept { return std::bit_cast<float>(get<std::uint32_t>()); }
    /// As many floats, whatever their bits; those past the end are not written.
    void get_floats(std::span<float> out) noexcept {
        const std::span<const std::byte> raw = get_bytes(out.size_bytes());
        if constexpr (std::endian::native == std::endian::little) {
            if (!raw.empty()) std::memcpy(out.data(), raw.data(), raw.size());
        } else {
            byte_reader each(raw);
            for (std::size_t i = 0; i < raw.size() / sizeof(float); ++i) out[i] = each.get_f32();
        }
    }
    [[nodiscard]] double get_f64() noexcept { return std::bit_cast<double>(get<std::uint64_t>()); }

    /// The next `count` bytes, or an empty span with failed() set when there are fewer.
    [[nodiscard]] std::span<const std::byte> get_bytes(std::size_t count) noexcept {
        if (failed_ || count > remaining()) {
            failed_ = true;
            return {};
        }
        const auto raw = bytes_.subspan(at_, count);
        at_ += count;
        return raw;
    }

    /// A string as byte_writer puts it; fails when longer than `limit`.
    [[nodiscard]] std::string get_string(std::size_t limit) {
        const auto length = get<std::uint32_t>();
        if (length > limit) failed_ = true;
        const auto raw = get_bytes(length);
        return {reinterpret_cast<const char*>(raw.data()), raw.size()};
    }

    [[nodiscard]] std::size_t position() const noexcept { return at_; }
    [[nodiscard]] std::size_t remaining() const noexcept { return bytes_.size() - at_; }
    [[nodiscard]] bool failed() const noexcept { return failed_; }

 private:
    std::span<const std::byte> bytes_;
    std::size_t at_ = 0;
    bool failed_ = false;
};

}  // namespace thinwire

#endif  // THINWIRE_CORE_BYTES_HPP

// ---- thinwire/core/detail/sha256_blocks.hpp
#ifndef THINWIRE_CORE_DETAIL_SHA256_BLOCKS_HPP
#define THINWIRE_CORE_DETAIL_SHA256_BLOCKS_HPP

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if THINWIRE_X86_DISPATCH
#include <cpuid.h>
#endif

namespace thinwire::detail {

inline constexpr std::array<std::uint32_t, 64> sha256_k = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

using sha256_state = std::array<std::uint32_t, 8>;

/// Takes `blocks` blocks of 64 bytes into the state (FIPS 180-4, section 6.2.2): runs everywhere.
inline void sha256_blocks_plain(sha256_state& state, const std::byte* data, std::size_t blocks) noexcept {
    for (; blocks > 0; --blocks, data += 64) {
        std::array<std::uint32_t, 64> w{};
        for (std::size_t i = 0; i < 16; ++i)
            for (std::size_t j = 0; j < 4; ++j) w[i] = (w[i] << 8U) | std::to_integer<std::uint32_t>(data[4 * i + j]);
        for (std::size_t i = 16; i < 64; ++i) {
            const std::uint32_t s0 = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ (w[i - 15] >> 3U);
            const std::uint32_t s1 = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ (w[i - 2] >> 10U);
            w[i] = w[i - 16] + s0 + w[i - 7] + s1;
        }
        auto [a, b, c, d, e, f, g, h] = state;
        for (std::size_t i = 0; i < 64; ++i) {
            const std::uint32_t s1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
            const std::uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + sha256_k[i] + w[i];
            const std::uint32_t s0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
            const std::uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
            h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
        }
        const sha256_state add = {a, b, c, d, e, f, g, h};
        for (std::size_t i = 0; i < 8; ++i) state[i] += add[i];
    }
}

#if THINWIRE_X86_DISPATCH

/// Whether the processor has the SHA instructions. Asked once, then remembered.
[[nodiscard]] inline bool has_sha_instructions() noexcept {
    static const bool found = [] {
        unsigned a = 0, b = 0, c = 0, d = 0;
        if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & (1U << 19U)) == 0) return false;  // SSE4.1
        return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (b & (1U << 29U)) != 0;
    }();
    return found;
}

/// The same with the SHA instructions. Precondition: has_sha_instructions().
__attribute__((target("sha,sse4.1,ssse3"))) inline void sha256_blocks_sha(sha256_state& state, const std::byte* data,
                                                                          std::size_t blocks) noexcept {
    typedef int words __attribute__((vector_size(16)));
    typedef std::uint32_t unsigned_words __attribute__((vector_size(16)));
    typedef char bytes __attribute__((vector_size(16)));
    words abcd, efgh;
    std::memcpy(&abcd, state.data(), sizeof abcd);
    std::memcpy(&efgh, state.data() + 4, sizeof efgh);
    words abef = __builtin_shufflevector(efgh, abcd, 1, 0, 5, 4);  // highest element first
    words cdgh = __builtin_shufflevector(efgh, abcd, 3, 2, 7, 6);
    for (; blocks > 0; --blocks, data += 64) {
        const words abef_before = abef, cdgh_before = cdgh;
        words w[4];
        for (int i = 0; i < 4; ++i) {
            bytes raw;
            std::memcpy(&raw, data + std::ptrdiff_t{16} * i, sizeof raw);
            w[i] = (words)__builtin_shufflevector(raw, raw, 3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12);
        }
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i) {
            if (i >= 4) {  // w[i] from the four before it
                const words last = w[(i + 3) % 4], before = w[(i + 2) % 4];
                const words seventh = __builtin_shufflevector(before, last, 1, 2, 3, 4);
                const words first = __builtin_ia32_sha256msg1(w[i % 4], w[(i + 1) % 4]);
                w[i % 4] = __builtin_ia32_sha256msg2((words)((unsigned_words)first + (unsigned_words)seventh), last);
            }
            unsigned_words k;
            std::memcpy(&k, sha256_k.data() + std::ptrdiff_t{4} * i, sizeof k);
            const words low = (words)((unsigned_words)w[i % 4] + k);
            cdgh = __builtin_ia32_sha256rnds2(cdgh, abef, low);
            abef = __builtin_ia32_sha256rnds2(abef, cdgh, __builtin_shufflevector(low, low, 2, 3, 2, 3));
        }
        abef = (words)((unsigned_words)abef + (unsigned_words)abef_before);
        cdgh = (words)((unsigned_words)cdgh + (unsigned_words)cdgh_before);
    }
    abcd = __builtin_shufflevector(abef, cdgh, 3, 2, 7, 6);
    efgh = __builtin_shufflevector(abef, cdgh, 1, 0, 5, 4);
    std::memcpy(state.data(), &abcd, sizeof abcd);
    std::memcpy(state.data() + 4, &efgh, sizeof efgh);
}

#endif

inline void sha256_blocks(sha256_state& state, const std::byte* data, std::size_t blocks) noexcept {
#if THINWIRE_X86_DISPATCH
    if (has_sha_instructions()) {
        sha256_blocks_sha(state, data, blocks);
        return;
    }
#endif
    sha256_blocks_plain(state, data, blocks);
}

}  // namespace thinwire::detail

#endif  // THINWIRE_CORE_DETAIL_SHA256_BLOCKS_HPP

// ---- thinwire/core/digest.hpp
#ifndef THINWIRE_CORE_DIGEST_HPP
#define THINWIRE_CORE_DIGEST_HPP

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace thinwire {

/// 256 bits that identify content: a run, a payload, a replica.
struct digest {
    std::array<std::byte, 32> bytes{};
    [[nodiscard]] bool operator==(const digest&) const noexcept = default;
    [[nodiscard]] auto operator<=>(const digest&) const noexcept = default;
};

/// 64 hexadecimal digits; `digits` of them when a person only needs to compare at a glance.
[[nodiscard]] inline std::string to_string(const digest& d, std::size_t digits = 64) {
    constexpr std::string_view hex = "0123456789abcdef";
    std::string text;
    for (const std::byte b : d.bytes) {
        text += hex[std::to_integer<unsigned>(b) >> 4U];
        text += hex[std::to_integer<unsigned>(b) & 15U];
    }
    text.resize(std::min<std::size_t>(digits, 64));
    return text;
}

/// SHA-256 (FIPS 180-4) of bytes that arrive in pieces.
class sha256 {
 public:
    sha256& update(std::span<const std::byte> bytes) noexcept {
        length_ += bytes.size();
        while (!bytes.empty()) {
            if (filled_ == 0 && bytes.size() >= block_.size()) {
                const std::size_t blocks = bytes.size() / block_.size();
                detail::sha256_blocks(state_, bytes.data(), blocks);
                bytes = bytes.subspan(blocks * block_.size());
                continue;
            }
            const std::size_t take = std::min(bytes.size(), block_.size() - filled_);
            std::copy_n(bytes.begin(), take, block_.begin() + static_cast<std::ptrdiff_t>(filled_));
            filled_ += take;
            bytes = bytes.subspan(take);
            if (filled_ == block_.size()) {
                detail::sha256_blocks(state_, block_.data(), 1);
                filled_ = 0;
            }
        }
        return *this;
    }
    sha256& update(std::string_view text) noexcept {
        return update(std::as_bytes(std::span(text.data(), text.size())));
    }

    /// The digest of everything so far. The object is spent afterwards.
    [[nodiscard]] digest finish() noexcept {
        const std::uint64_t bits = length_ * 8;
        // A one, zeros up to eight bytes before the end of a block, the length in bits.
        std::array<std::byte, 72> tail{std::byte{0x80}};
        const std::size_t padding = filled_ < 56 ? 56 - filled_ : 120 - filled_;
        for (std::size_t i = 0; i < 8; ++i) tail[padding + i] = static_cast<std::byte>((bits >> (56 - 8 * i)) & 0xffU);
        update(std::span(tail).first(padding + 8));
        digest out;
        for (std::size_t i = 0; i < 32; ++i)
            out.bytes[i] = static_cast<std::byte>((state_[i / 4] >> (24 - 8 * (i % 4))) & 0xffU);
        return out;
    }

 private:
    std::array<std::uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                           0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    std::array<std::byte, 64> block_{};
    std::size_t filled_ = 0;
    std::uint64_t length_ = 0;
};

/// The digest of one piece of bytes.
[[nodiscard]] inline digest digest_of(std::span<const std::byte> bytes) noexcept {
    return sha256{}.update(bytes).finish();
}

}  // namespace thinwire

#endif  // THINWIRE_CORE_DIGEST_HPP

// ---- thinwire/codec/payload.hpp
#ifndef THINWIRE_CODEC_PAYLOAD_HPP
#define THINWIRE_CODEC_PAYLOAD_HPP

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace thinwire {

/// Tokens that a payload may state; exact_mean.hpp needs a bound.
inline constexpr std::uint32_t most_tokens = 1U << 24U;

/// What stands at the front of every payload.
struct payload_info {
    payload_kind kind = payload_kind::demo;
    value_code values = value_code::f32;
    digest run{};
    std::uint64_t round = 0;
    std::uint64_t peer = 0;
    std::uint64_t fingerprint = 0;  ///< of the layout
    std::uint32_t k = 0;            ///< the most coefficients that a chunk sends; see payload_layout::section
    std::uint32_t chunk = 0;
    float learning_rate = 0.0F;
    float weight_decay = 0.0F;
    std::uint32_t tokens = 0;  ///< behind the gradients of this payload, at most most_tokens; 0: not stated
    digest replica{};          ///< of the sender's share of weights before it applies this round
    std::uint32_t sections = 0;
    std::uint64_t bytes = 0;  ///< of the whole payload
};

namespace detail {

inline constexpr std::uint32_t payload_magic = 0x4C505754;  // "TWPL"
inline constexpr std::uint16_t payload_version = 2;
inline constexpr std::size_t payload_header_bytes = 120;
inline constexpr std::size_t payload_checksum_bytes = 8;
inline constexpr std::size_t section_length_bytes = 4;

/// Rates that survive every floating-point mode: 0, or normal numbers within 2^-100..2^20.
[[nodiscard]] constexpr bool sane_rate(float rate) noexcept {
    const auto bits = std::bit_cast<std::uint32_t>(rate);
    return bits == 0 || (bits >= (127U - 100U) << 23U && bits <= (127U + 20U) << 23U);
}

[[nodiscard]] inline digest get_digest(byte_reader& in) noexcept {
    digest d;
    const auto raw = in.get_bytes(d.bytes.size());
    for (std::size_t i = 0; i < raw.size(); ++i) d.bytes[i] = raw[i];
    return d;
}

[[nodiscard]] inline failure payload_failure(errc code, const std::string& what) {
    return {code, "payload: " + what + " (" + std::string(to_string(code)) + ")"};
}

}  // namespace detail

/// Bytes that a demo payload of this layout never exceeds.
[[nodiscard]] inline std::size_t room_of_payload(const payload_layout& layout) noexcept {
    std::size_t room = detail::payload_header_bytes + detail::payload_checksum_bytes;
    for (const payload_section& s : layout.sections)
        room += detail::section_length_bytes + room_of_section(s, *layout.codec);
    return room;
}

/// Writes a payload front to back: header, sections, checksum. What stands before unsent()'s end never changes, so that
/// it can be sent while later sections are still being encoded.
class payload_writer {
 public:
    /// Starts over in a buffer whose capacity is kept, and made `room` if it is less.
    payload_writer(const payload_info& info, std::size_t sections, std::vector<std::byte>&& reuse,
                   std::size_t room = 0) {
        reuse.clear();
        reuse.reserve(room);
        byte_writer out(std::move(reuse));
        out.put(detail::payload_magic);
        out.put(detail::payload_version);
        out.put(static_cast<std::uint8_t>(info.kind));
        out.put(static_cast<std::uint8_t>(info.values));
        out.put(std::span<const std::byte>(info.run.bytes));
        out.put(info.round);
        out.put(info.peer);
        out.put(info.fingerprint);
        out.put(info.k);
        out.put(info.chunk);
        out.put(info.learning_rate);
        out.put(info.weight_decay);
        out.put(info.tokens);
        out.put(std::span<const std::byte>(info.replica.bytes));
        out.put(static_cast<std::uint32_t>(sections));
        bytes_ = out.take();
        finished_ = bytes_.size();
    }

    /// Begins a section: the buffer at whose end it is written, until end_section().
    [[nodiscard]] std::vector<std::byte>& begin_section() {
        bytes_.resize(finished_ + detail::section_length_bytes);
        return bytes_;
    }
    /// Ends the section with the buffer of begin_section(), when that was moved away.
    void end_section(std::vector<std::byte>&& buffer) noexcept {
        bytes_ = std::move(buffer);
        end_section();
    }
    /// Ends the section that begin_section() began.
    void end_section() noexcept {
        patch(finished_, detail::section_length_bytes, bytes_.size() - finished_ - detail::section_length_bytes);
        finished_ = bytes_.size();
    }
    /// A section that was encoded elsewhere, for instance by another thread.
    void append_section(std::span<const std::byte> section) {
        std::vector<std::byte>& out = begin_section();
        out.insert(out.end(), section.begin(), section.end());
        end_section();
    }

    /// Notes the checksum: the payload ends.
    void finish() {
        bytes_.resize(finished_ + detail::payload_checksum_bytes);
        patch(finished_, 8, checksum64(std::span(bytes_).first(finished_)));
        finished_ = bytes_.size();
    }
    /// What was finished since the last call, in the order of the payload; valid until the next section.
    [[nodiscard]] std::span<const std::byte> unsent() noexcept {
        const auto range = std::span<const std::byte>(bytes_).subspan(sent_, finished_ - sent_);
        sent_ = finished_;
        return range;
    }
    /// Hands the finished payload over.
    [[nodiscard]] std::vector<std::byte> take() noexcept { return std::move(bytes_); }

 private:
    void patch(std::size_t at, std::size_t size, std::uint64_t value) noexcept {
        for (std::size_t i = 0; i < size; ++i) bytes_[at + i] = static_cast<std::byte>((value >> (8 * i)) & 0xffU);
    }

    std::vector<std::byte> bytes_;
    std::size_t finished_ = 0;
    std::size_t sent_ = 0;
};

/// Reads the front of foreign bytes and proves length, checksum and ranges; not the sections, for which a layout is
/// needed.
[[nodiscard]] inline result<payload_info> inspect_payload(std::span<const std::byte> bytes) {
    using detail::payload_failure;
    constexpr std::size_t frame = detail::payload_header_bytes + detail::payload_checksum_bytes;
    byte_reader in(bytes);
    if (in.get<std::uint32_t>() != detail::payload_magic)
        return payload_failure(bytes.size() < 4 ? errc::truncated : errc::bad_magic, "not a thinwire payload");
    if (const auto version = in.get<std::uint16_t>(); version != detail::payload_version)
        return payload_failure(
            in.failed() ? errc::truncated : errc::bad_version,
            "format version " + std::to_string(version) + ", expected " + std::to_string(detail::payload_version));
    payload_info info;
    const auto kind = in.get<std::uint8_t>();
    info.values = static_cast<value_code>(in.get<std::uint8_t>());
    info.run = detail::get_digest(in);
    info.round = in.get<std::uint64_t>();
    info.peer = in.get<std::uint64_t>();
    info.fingerprint = in.get<std::uint64_t>();
    info.k = in.get<std::uint32_t>();
    info.chunk = in.get<std::uint32_t>();
    info.learning_rate = in.get_f32();
    info.weight_decay = in.get_f32();
    info.tokens = in.get<std::uint32_t>();
    info.replica = detail::get_digest(in);
    info.sections = in.get<std::uint32_t>();
    if (bytes.size() < frame) return payload_failure(errc::truncated, std::to_string(bytes.size()) + " bytes");
    std::uint64_t end = detail::payload_header_bytes;
    for (std::uint32_t i = 0; i < info.sections; ++i) {
        byte_reader prefix(bytes.subspan(end));
        end += detail::section_length_bytes + std::uint64_t{prefix.get<std::uint32_t>()};
        if (prefix.failed() || end > bytes.size() - detail::payload_checksum_bytes)
            return payload_failure(errc::truncated,
                                   "section " + std::to_string(i) + " of " + std::to_string(info.sections));
    }
    info.bytes = end + detail::payload_checksum_bytes;
    if (bytes.size() > info.bytes)
        return payload_failure(errc::trailing, "bytes after the " + std::to_string(info.bytes) + " announced");
    byte_reader tail(bytes.subspan(end));
    if (tail.get<std::uint64_t>() != checksum64(bytes.first(end)))
        return payload_failure(errc::bad_checksum, "checksum differs");
    if (kind > 1) return payload_failure(errc::malformed, "kind " + std::to_string(kind));
    info.kind = static_cast<payload_kind>(kind);
    if (!detail::sane_rate(info.learning_rate) || !detail::sane_rate(info.weight_decay) ||
        static_cast<double>(info.learning_rate) * static_cast<double>(info.weight_decay) > 1.0)
        return payload_failure(errc::out_of_range, "learning rate or weight decay");
    if (info.tokens > most_tokens) return payload_failure(errc::out_of_range, std::to_string(info.tokens) + " tokens");
    return info;
}

/// The tokens that a payload states, of one that was checked before; 0 for bytes that are none.
[[nodiscard]] inline std::uint32_t stated_tokens(std::span<const std::byte> payload) noexcept {
    constexpr std::size_t before = 4 + 2 + 1 + 1 + 32 + 8 + 8 + 8 + 4 + 4 + 4 + 4;
    byte_reader in(payload);
    static_cast<void>(in.get_bytes(before));
    const auto tokens = in.get<std::uint32_t>();
    return in.failed() || tokens > most_tokens ? 0 : tokens;
}

/// What a payload must be for a commit to accept it.
struct payload_expectation {
    digest run{};
    std::uint64_t round = 0;
    std::uint64_t peer = 0;
};

/// A payload whose header fits the layout, cut into its sections. Refers to the bytes it was opened with. One that is
/// opened again allocates only for more sections than before.
class payload_view {
 public:
    /// Checks everything but the insides of the sections. One that is refused is not to be read.
    [[nodiscard]] result<ok> open(std::span<const std::byte> bytes, const payload_layout& layout,
                                  const payload_expectation& expected) {
        using detail::payload_failure;
        const result<payload_info> info = inspect_payload(bytes);
        if (!info) return info.error();
        if (info->run != expected.run) return payload_failure(errc::mismatch, "of another run");
        if (info->round != expected.round)
            return payload_failure(errc::mismatch, "round " + std::to_string(info->round) + ", expected " +
                                                       std::to_string(expected.round));
        if (info->peer != expected.peer)
            return payload_failure(
                errc::mismatch, "peer " + std::to_string(info->peer) + ", expected " + std::to_string(expected.peer));
        const bool fewer = layout.kind == payload_kind::demo && info->k >= 1 && info->k <= layout.k;
        if (info->kind != layout.kind || info->values != layout.values() || (info->k != layout.k && !fewer) ||
            info->chunk != layout.chunk || info->fingerprint != layout.fingerprint ||
            info->sections != layout.sections.size())
            return payload_failure(errc::mismatch, "of other tensors or options");
        info_ = *info;
        sections_.clear();
        byte_reader in(bytes.subspan(detail::payload_header_bytes));
        for (std::uint32_t i = 0; i < info->sections; ++i) sections_.push_back(in.get_bytes(in.get<std::uint32_t>()));
        return ok{};
    }

    [[nodiscard]] const payload_info& info() const noexcept { return info_; }
    /// Precondition: opened, i < layout.sections.size().
    [[nodiscard]] std::span<const std::byte> section(std::size_t i) const noexcept { return sections_[i]; }
    /// Memory for so many sections.
    void reserve(std::size_t sections) { sections_.reserve(sections); }
    [[nodiscard]] std::size_t memory_bytes() const noexcept { return bytes_held(sections_); }

 private:
    payload_info info_;
    std::vector<std::span<const std::byte>> sections_;
};

/// Gradients beyond this magnitude are absurd: their squares, which AdamW keeps as float32, would be infinite.
inline constexpr std::uint32_t largest_gradient_bits = (127U + 60U) << 23U;  // 2^60

/// Opens a dense payload and proves that it holds a finite, sane number for every element.
[[nodiscard]] inline result<ok> open_dense_payload(std::span<const std::byte> bytes, const payload_layout& layout,
                                                   const payload_expectation& expected, payload_view& view) {
    if (auto opened = view.open(bytes, layout, expected); !opened) return opened;
    if (layout.kind != payload_kind::dense) return detail::payload_failure(errc::mismatch, "not dense");
    for (std::size_t i = 0; i < layout.sections.size(); ++i) {
        const auto raw = view.section(i);
        const std::uint64_t elements = layout.sections[i].coefficients();
        if (raw.size() != 4 * elements)
            return detail::payload_failure(
                errc::malformed, "section " + std::to_string(i) + " has " + std::to_string(raw.size()) + " bytes");
        std::uint32_t largest = 0;
        byte_reader in(raw);
        for (std::uint64_t e = 0; e < elements; ++e) largest = std::max(largest, in.get<std::uint32_t>() & 0x7fffffffU);
        if (largest >= 0x7f800000U) return detail::payload_failure(errc::not_finite, "section " + std::to_string(i));
        if (largest > largest_gradient_bits)
            return detail::payload_failure(errc::out_of_range, "section " + std::to_string(i));
    }
    return ok{};
}

/// Reads and checks payloads of one layout, whose codec must outlive it. Holds the working memory of one thread, sized
/// from the layout and never from the bytes: after the first payload, accepting one allocates nothing.
class payload_decoder {
 public:
    explicit payload_decoder(const payload_layout& layout) : layout_(layout), coder_(layout_) {
        view_.reserve(layout.sections.size());
    }
    payload_decoder(const payload_decoder& other) : payload_decoder(other.layout_, other.coder_) {}
    payload_decoder& operator=(const payload_decoder&) = default;
    payload_decoder(payload_decoder&&) = default;
    payload_decoder& operator=(payload_decoder&&) = default;
    ~payload_decoder() = default;

    /// Memory for payloads that state `k`, at most that of the layout: then the first one allocates nothing either.
    void reserve(std::uint32_t k) { coder_.reserve(layout_, k); }
    /// Reads a whole demo payload. What it leaves in `content` when it refuses is unspecified.
    [[nodiscard]] result<payload_info> decode(std::span<const std::byte> bytes, const payload_expectation& expected,
                                              sparse_content& content) {
        if (auto opened = view_.open(bytes, layout_, expected); !opened) return opened.error();
        if (layout_.kind != payload_kind::demo) return detail::payload_failure(errc::mismatch, "not sparse");
        content.resize(layout_);
        std::size_t coefficient = 0, chunk = 0;
        for (std::size_t i = 0; i < layout_.sections.size(); ++i) {
            const payload_section& section = layout_.sections[i];
            const section_slice found = content.slice(section, coefficient, chunk);
            if (const auto bad = coder_.decode(view_.section(i), layout_.section(i, view_.info().k), found))
                return detail::payload_failure(*bad, "section " + std::to_string(i));
            coefficient += section.coefficients();
            chunk += section.chunks;
        }
        return view_.info();
    }
    /// Proves that a replica with this layout will accept the payload. For a sequencer, which has no use for the
    /// content.
    [[nodiscard]] result<ok> validate(std::span<const std::byte> bytes, const payload_expectation& expected) {
        if (layout_.kind == payload_kind::dense) return open_dense_payload(bytes, layout_, expected, view_);
        const auto info = decode(bytes, expected, content_);
        if (!info) return info.error();
        return ok{};
    }
    [[nodiscard]] const payload_layout& layout() const noexcept { return layout_; }
    [[nodiscard]] std::size_t memory_bytes() const noexcept {
        return bytes_held(layout_.sections) + coder_.memory_bytes() + view_.memory_bytes() + content_.memory_bytes();
    }
    /// Of the tables that copies share.
    [[nodiscard]] std::size_t table_bytes() const noexcept { return coder_.table_bytes(); }

 private:
    payload_decoder(const payload_layout& layout, const section_coder& coder) : layout_(layout), coder_(coder) {
        view_.reserve(layout.sections.size());
    }

    payload_layout layout_;
    section_coder coder_;
    payload_view view_;
    sparse_content content_;  ///< of validate()
};

/// What a sequencer asks before a payload may be committed, as node_options::validate wants it:
/// payload_decoder::validate() for the run, and the round and peer that it came for. Not for two threads at once.
[[nodiscard]] inline auto payload_validator(const payload_layout& layout, const digest& run) {
    return [decoder = payload_decoder(layout), run](std::uint64_t round, std::uint64_t peer,
                                                    std::span<const std::byte> payload) mutable {
        return decoder.validate(payload, {.run = run, .round = round, .peer = peer});
    };
}

}  // namespace thinwire

#endif  // THINWIRE_CODEC_PAYLOAD_HPP

// ---- thinwire/codec/payload_size.hpp
#ifndef THINWIRE_CODEC_PAYLOAD_SIZE_HPP
#define THINWIRE_CODEC_PAYLOAD_SIZE_HPP

#include <cmath>
#include <cstddef>
#include <cstdint>

namespace thinwire {

/// About how many bytes a demo payload of this layout has that states `k` and sends all it may: the entropy of a
/// uniform choice of places, which the coder meets within 0.5 %, and what stands around it. Rather too many than too
/// few. Precondition: 1 <= k <= layout.k.
[[nodiscard]] inline std::uint64_t estimated_payload_bytes(const payload_layout& layout, std::uint32_t k) {
    double bits = 8.0 * static_cast<double>(detail::payload_header_bytes + detail::payload_checksum_bytes);
    for (std::size_t i = 0; i < layout.sections.size(); ++i) {
        const payload_section s = layout.section(i, k);
        const double n = s.chunk_size, sent = s.kept;
        const double choice = (std::lgamma(n + 1) - std::lgamma(sent + 1) - std::lgamma(n - sent + 1)) / std::log(2.0);
        const double places = 1.005 * static_cast<double>(s.chunks) * choice;
        const double states = 16.0 * static_cast<double>(detail::coder_states(s.coefficients()));
        // Length and flags of the section, the number of words and the coder's states, two bytes that are not full.
        bits += 8.0 * (detail::section_length_bytes + 2 + 2) + (s.kept < s.chunk_size ? states : 0.0) +
                (places > 16.0 * 128 ? 16.0 : 0.0);
        bits += places + static_cast<double>(s.chunks) * static_cast<double>(layout.codec->bits(s.kept));
    }
    return static_cast<std::uint64_t>(std::ceil(bits / 8.0));
}

/// The largest k whose payloads have about so many bytes at most; 0 when not even k = 1 has.
[[nodiscard]] inline std::uint32_t largest_k(const payload_layout& layout, std::uint64_t bytes) {
    std::uint32_t fits = 0;
    for (std::uint32_t step = std::uint32_t{1} << 16U; step > 0; step /= 2)
        if (fits + step <= layout.k && estimated_payload_bytes(layout, fits + step) <= bytes) fits += step;
    return fits;
}

}  // namespace thinwire

#endif  // THINWIRE_CODEC_PAYLOAD_SIZE_HPP

// ---- thinwire/codec/top_k.hpp
#ifndef THINWIRE_CODEC_TOP_K_HPP
#define THINWIRE_CODEC_TOP_K_HPP

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

namespace thinwire {

/// How many interleaved groups to take the tops of, for n stored coefficients (a multiple of 16) of which k are kept: a
/// multiple of 16; n where each would have few elements.
[[nodiscard]] constexpr std::size_t top_k_groups(std::size_t n, std::size_t k) noexcept {
    std::size_t groups = 64;
    while (groups < 8 * k) groups *= 2;
    return 4 * groups <= n ? groups : n;
}

namespace detail {

/// Calls use(i) for every bit i % 64 that is set in words[i / 64], in rising order, and clears the words.
template <class Use>
void take_marks(std::span<std::uint64_t> words, const Use& use) {
    for (std::size_t first = 0; first < words.size(); first += 64) {
        const std::size_t end = std::min(words.size(), first + 64);
        std::uint64_t used = 0;  // most words are 0: a branch for each would be hard to guess
        for (std::size_t word = first; word < end; ++word) used |= std::uint64_t{words[word] != 0} << (word - first);
        for (; used != 0; used &= used - 1) {
            const std::size_t word = first + static_cast<std::size_t>(std::countr_zero(used));
            for (std::uint64_t left = std::exchange(words[word], 0); left != 0; left &= left - 1)
                use(64 * word + static_cast<std::size_t>(std::countr_zero(left)));
        }
    }
}

/// Leaves the k largest.
inline void keep_largest(std::vector<std::uint64_t>& keys, std::size_t k) {
    if (keys.size() > k + 16) {
        std::nth_element(keys.begin(), keys.begin() + static_cast<std::ptrdiff_t>(k), keys.end(), std::greater<>());
        keys.resize(k);
    }
    for (; keys.size() > k; keys.pop_back()) {
        std::uint64_t* least = keys.data();
        for (std::uint64_t& key : keys) least = key < *least ? &key : least;
        *least = keys.back();
    }
}

}  // namespace detail

/// Chooses the k positions of largest magnitude; ties go to the lowest position. Gives them in rising order.
///
/// `stored` holds coefficients in any order and may hold others that do not count: position_of(i) is the position of
/// stored[i], or at least 2^16. Bit i % 64 of marks[i / 64] tells whether stored[i] is looked at: at least k that count
/// are, and no other is larger or ties with one of the k. `marks` is used up; positions are below 64 * marks.size().
/// `keys` is working memory. Precondition: at least k coefficients count; k = positions.size().
template <class Position>
void select_top_k(std::span<const float> stored, std::span<std::uint64_t> marks, const Position& position_of,
                  std::vector<std::uint64_t>& keys, std::span<std::uint16_t> positions) {
    constexpr std::uint32_t none = 0x10000;
    keys.clear();
    detail::take_marks(marks, [&](std::size_t i) {
        const std::uint32_t position = position_of(i);
        if (position >= none) return;
        const std::uint32_t magnitude = std::bit_cast<std::uint32_t>(stored[i]) & 0x7fffffffU;
        keys.push_back((std::uint64_t{magnitude} << 32U) | (0xffffffffU - position));
    });
    detail::keep_largest(keys, positions.size());
    for (const std::uint64_t key : keys) {  // the marks sort them
        const std::uint32_t position = 0xffffffffU - static_cast<std::uint32_t>(key);
        marks[position / 64] |= std::uint64_t{1} << position % 64;
    }
    std::size_t at = 0;
    detail::take_marks(marks, [&](std::size_t position) { positions[at++] = static_cast<std::uint16_t>(position); });
}

}  // namespace thinwire

#endif  // THINWIRE_CODEC_TOP_K_HPP

// ---- thinwire/comm/transport.hpp
#ifndef THINWIRE_COMM_TRANSPORT_HPP
#define THINWIRE_COMM_TRANSPORT_HPP

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

namespace thinwire {

/// Identifies a peer within a run.
using peer_id = std::uint64_t;

/// What one peer published for a round.
struct contribution {
    peer_id peer = 0;
    std::span<const std::byte> payload;
};

/// What all replicas apply for a round, in this order.
struct commit {
    std::uint64_t round = 0;
    std::span<const contribution> contributions;
};

/// Anything that carries payloads between peers.
///
/// `exchange(round, payload)` publishes this peer's payload for `round`, waits for the commit and returns one or
/// more consecutive commits, the first of which is that of `round`. More than one come when the others went on
/// without this peer: it applies them all and contributes next to the round after the last. The payload may be
/// missing from its commit; its sender then takes it back into its momentum. All peers see equal commits.
/// The returned bytes stay valid until the next call. Called from one thread.
template <class T>
concept transport = requires(T& t, std::uint64_t round, std::span<const std::byte> payload) {
    { t.self() } -> std::convertible_to<peer_id>;
    { t.exchange(round, payload) } -> std::convertible_to<std::span<const commit>>;
};

}  // namespace thinwire

#endif  // THINWIRE_COMM_TRANSPORT_HPP

// ---- thinwire/comm/loopback.hpp
#ifndef THINWIRE_COMM_LOOPBACK_HPP
#define THINWIRE_COMM_LOOPBACK_HPP

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace thinwire {

/// Peers 0..n-1 in one process, each used from its own thread: an all-gather without a network. A round's commit holds
/// the payloads of all present members, ordered by peer. For tests and examples, so it can also misbehave on request:
/// skip() loses a payload, leave() takes a member away; one that left is back with its next exchange(), which
/// gives it all it missed. Rounds that some member has not taken are kept. Thread-safe.
class loopback_group {
    struct closed_round {
        std::vector<std::vector<std::byte>> payloads;
        std::vector<contribution> contributions;  // views of them
    };

 public:
    /// One peer's end; satisfies `transport`.
    class member {
     public:
        member(loopback_group& group, peer_id self) noexcept : group_(&group), self_(self) {}
        [[nodiscard]] peer_id self() const noexcept { return self_; }
        /// Throws value_error for a round that lies ahead of the group or that it no longer keeps.
        [[nodiscard]] std::span<const commit> exchange(std::uint64_t round, std::span<const std::byte> payload) {
            return group_->exchange(*this, round, payload);
        }

     private:
        friend class loopback_group;
        loopback_group* group_;
        peer_id self_;
        bool present_ = true;
        bool arrived_ = false;
        std::uint64_t next_ = 0;  // the first round not taken yet
        std::vector<std::byte> payload_;
        std::vector<std::shared_ptr<const closed_round>> held_;  // what commits_ views
        std::vector<commit> commits_;
    };

    /// Throws value_error unless 1 <= members <= 65536.
    explicit loopback_group(int members) {
        if (members < 1 || members > 65536)
            throw value_error("loopback_group: " + std::to_string(members) + " members, expected 1..65536");
        members_.reserve(static_cast<std::size_t>(members));  // they stay where they are
        for (int i = 0; i < members; ++i) members_.emplace_back(*this, static_cast<peer_id>(i));
    }
    loopback_group(const loopback_group&) = delete;
    loopback_group& operator=(const loopback_group&) = delete;

    [[nodiscard]] std::size_t size() const noexcept { return members_.size(); }
    /// Precondition: i < size().
    [[nodiscard]] member& operator[](std::size_t i) noexcept { return members_[i]; }

    /// The commit of this round will lack the peer's payload, though the peer takes part. To be called before it is
    /// made.
    void skip(peer_id peer, std::uint64_t round) {
        const std::lock_guard lock(mutex_);
        skipped_.emplace(round, peer);
    }
    /// The others go on without this peer, from the round that is open now.
    void leave(peer_id peer) {
        {
            const std::lock_guard lock(mutex_);
            members_.at(peer).present_ = members_.at(peer).arrived_ = false;
            close_round_if_complete();
        }
        changed_.notify_all();
    }

 private:
    std::span<const commit> exchange(member& m, std::uint64_t round, std::span<const std::byte> payload) {
        std::unique_lock lock(mutex_);
        if (round < first_ || round > first_ + rounds_.size())
            throw value_error("loopback exchange: round " + std::to_string(round) + ", expected " +
                              std::to_string(first_) + ".." + std::to_string(first_ + rounds_.size()));
        m.present_ = true;
        if (round == first_ + rounds_.size()) {
            m.payload_.assign(payload.begin(), payload.end());
            m.arrived_ = true;
            close_round_if_complete();
            changed_.notify_all();
            changed_.wait(lock, [&] { return first_ + rounds_.size() > round; });
        }
        take(m, round);
        return m.commits_;
    }

    void close_round_if_complete() {
        bool any = false;
        for (const member& m : members_) {
            if (m.present_ && !m.arrived_) return;
            any = any || m.arrived_;
        }
        if (!any) return;
        const auto closed = std::make_shared<closed_round>();
        closed->payloads.resize(members_.size());
        for (member& m : members_) {
            if (m.arrived_ && !skipped_.contains({first_ + rounds_.size(), m.self_})) {
                closed->payloads[m.self_].swap(m.payload_);
                closed->contributions.push_back({.peer = m.self_, .payload = closed->payloads[m.self_]});
            }
            m.arrived_ = false;
        }
        rounds_.push_back(closed);
    }

    void take(member& m, std::uint64_t round) {
        m.held_.assign(rounds_.begin() + static_cast<std::ptrdiff_t>(round - first_), rounds_.end());
        m.commits_.clear();
        for (const auto& held : m.held_) m.commits_.push_back({.round = round++, .contributions = held->contributions});
        m.next_ = round;
        std::uint64_t oldest = round;
        for (const member& other : members_) oldest = std::min(oldest, other.next_);
        rounds_.erase(rounds_.begin(), rounds_.begin() + static_cast<std::ptrdiff_t>(oldest - first_));
        first_ = oldest;
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<member> members_;
    std::vector<std::shared_ptr<const closed_round>> rounds_;  // from first_ on
    std::uint64_t first_ = 0;
    std::set<std::pair<std::uint64_t, peer_id>> skipped_;  // payloads that are lost
};

static_assert(transport<loopback_group::member>);

}  // namespace thinwire

#endif  // THINWIRE_COMM_LOOPBACK_HPP

// ---- thinwire/core/float_mode.hpp
#ifndef THINWIRE_CORE_FLOAT_MODE_HPP
#define THINWIRE_CORE_FLOAT_MODE_HPP

#include <cfenv>
#include <cstdint>

namespace thinwire {

/// While one lives, the thread that made it computes as IEEE 754 prescribes by default: it rounds to nearest even,
/// keeps subnormal numbers and traps nothing, whatever its caller has set (flush-to-zero, which also comes with a
/// program linked with -ffast-math; a rounding mode; traps). What was set comes back at the end, sticky flags included.
/// No load or store moves across either end, and so nothing that is computed from memory to memory between them.
class standard_float_mode {
 public:
#if defined(__x86_64__) || defined(_M_X64)
    standard_float_mode() noexcept {
        asm volatile("stmxcsr %0" : "=m"(saved_) : : "memory");
        set(0x1f80);
    }
    ~standard_float_mode() {
        set(saved_);
    }
#elif defined(__aarch64__)
    standard_float_mode() noexcept {
        asm volatile("mrs %0, fpcr" : "=r"(saved_) : : "memory");
        set(0);
    }
    ~standard_float_mode() {
        set(saved_);
    }
#else
    standard_float_mode() noexcept {
        std::fegetenv(&saved_);
        std::fesetenv(FE_DFL_ENV);
    }
    ~standard_float_mode() {
        std::fesetenv(&saved_);
    }
#endif
    standard_float_mode(const standard_float_mode&) = delete;
    standard_float_mode& operator=(const standard_float_mode&) = delete;

 private:
#if defined(__x86_64__) || defined(_M_X64)
    static void set(std::uint32_t mode) noexcept {
        asm volatile("ldmxcsr %0" : : "m"(mode) : "memory");
    }
    std::uint32_t saved_;
#elif defined(__aarch64__)
    static void set(std::uint64_t mode) noexcept {
        asm volatile("msr fpcr, %0" : : "r"(mode) : "memory");
    }
    std::uint64_t saved_;
#else
    std::fenv_t saved_;
#endif
};

}  // namespace thinwire

#endif  // THINWIRE_CORE_FLOAT_MODE_HPP

// ---- thinwire/core/shape.hpp
#ifndef THINWIRE_CORE_SHAPE_HPP
#define THINWIRE_CORE_SHAPE_HPP

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>
#include <string>

namespace thinwire {

/// The sides of a row-major tensor, outermost first. At most 8 sides, each at least 1.
class shape {
 public:
    static constexpr std::size_t max_rank = 8;

    shape() = default;

    /// Throws shape_error for more than max_rank sides, a side below 1, or a count beyond 2^62.
    shape(std::initializer_list<std::int64_t> sides)
        : shape(std::span<const std::int64_t>(sides.begin(), sides.size())) {}

    explicit shape(std::span<const std::int64_t> sides) {
        if (sides.size() > max_rank)
            throw shape_error("shape: " + std::to_string(sides.size()) + " dimensions, expected at most 8");
        constexpr std::int64_t limit = std::int64_t{1} << 62;
        std::int64_t total = 1;
        for (const std::int64_t side : sides) {
            if (side < 1) throw shape_error("shape: side " + std::to_string(side) + ", expected at least 1");
            if (total > limit / side) throw shape_error("shape: more than 2^62 elements");
            total *= side;
            sides_[rank_++] = side;
        }
    }

    [[nodiscard]] std::size_t rank() const noexcept { return rank_; }
    [[nodiscard]] std::int64_t operator[](std::size_t i) const noexcept { return sides_[i]; }
    [[nodiscard]] const std::int64_t* begin() const noexcept { return sides_.data(); }
    [[nodiscard]] const std::int64_t* end() const noexcept { return sides_.data() + rank_; }

    /// Number of elements; 1 for a shape without sides.
    [[nodiscard]] std::size_t count() const noexcept {
        std::size_t total = 1;
        for (const std::int64_t side : *this) total *= static_cast<std::size_t>(side);
        return total;
    }

    [[nodiscard]] bool operator==(const shape&) const noexcept = default;

 private:
    std::array<std::int64_t, max_rank> sides_{};
    std::size_t rank_ = 0;
};

/// "[768, 3072]".
[[nodiscard]] inline std::string to_string(const shape& s) {
    std::string text = "[";
    for (const std::int64_t side : s) {
        if (text.size() > 1) text += ", ";
        text += std::to_string(side);
    }
    return text + "]";
}

}  // namespace thinwire

#endif  // THINWIRE_CORE_SHAPE_HPP

// ---- thinwire/core/parameter.hpp
#ifndef THINWIRE_CORE_PARAMETER_HPP
#define THINWIRE_CORE_PARAMETER_HPP

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace thinwire {

/// One trainable tensor: where its weights and their gradient lie. Does not own either.
struct parameter {
    std::string name;
    thinwire::shape shape;
    std::span<float> values;    ///< shape.count() weights, row-major
    std::span<float> gradient;  ///< as many
};

/// Throws shape_error when a span does not have the elements that the shape states.
inline void check(const parameter& p) {
    const std::size_t expected = p.shape.count();
    const auto complain = [&](const char* what, std::size_t found) {
        throw shape_error("parameter '" + p.name + "': " + what + " has " + std::to_string(found) +
                          " elements, expected " + std::to_string(expected) + " for shape " + to_string(p.shape));
    };
    if (p.values.size() != expected) complain("values", p.values.size());
    if (p.gradient.size() != expected) complain("gradient", p.gradient.size());
}

/// The gradient of parameter i lies there from now on. Throws value_error where there is no such parameter, shape_error
/// for another number of elements.
inline void set_gradient(std::span<parameter> parameters, std::size_t i, std::span<float> gradient) {
    if (i >= parameters.size())
        throw value_error("set_gradient: parameter " + std::to_string(i) + ", expected below " +
                          std::to_string(parameters.size()));
    parameter changed = parameters[i];
    changed.gradient = gradient;
    check(changed);
    parameters[i].gradient = gradient;
}

/// Throws value_error when two of them hold the same weights, which would be updated twice: of tied weights one is
/// given.
inline void check_apart(std::span<const parameter> parameters) {
    std::vector<const parameter*> sorted;
    for (const parameter& p : parameters)
        if (!p.values.empty()) sorted.push_back(&p);
    std::ranges::sort(sorted, std::less<>(), [](const parameter* p) { return p->values.data(); });
    for (std::size_t i = 1; i < sorted.size(); ++i) {
        const parameter &before = *sorted[i - 1], &p = *sorted[i];
        if (std::less<>()(p.values.data(), before.values.data() + before.values.size()))
            throw value_error("parameters '" + before.name + "' and '" + p.name +
                              "': the same weights are in both, expected each weight once");
    }
}

}  // namespace thinwire

#endif  // THINWIRE_CORE_PARAMETER_HPP

// ---- thinwire/core/random.hpp
#ifndef THINWIRE_CORE_RANDOM_HPP
#define THINWIRE_CORE_RANDOM_HPP

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace thinwire {

/// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): four 32-bit words that
/// depend only on (key, counter), so that any element of any stream is had without the ones before it.
[[nodiscard]] constexpr std::array<std::uint32_t, 4> philox(std::uint64_t key, std::uint64_t stream,
                                                            std::uint64_t counter) noexcept {
    auto k0 = static_cast<std::uint32_t>(key);
    auto k1 = static_cast<std::uint32_t>(key >> 32U);
    std::array<std::uint32_t, 4> x = {static_cast<std::uint32_t>(counter), static_cast<std::uint32_t>(counter >> 32U),
                                      static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(stream >> 32U)};
    for (int i = 0; i < 10; ++i) {
        const std::uint64_t p0 = std::uint64_t{0xD2511F53U} * x[0];
        const std::uint64_t p1 = std::uint64_t{0xCD9E8D57U} * x[2];
        x = {static_cast<std::uint32_t>(p1 >> 32U) ^ x[1] ^ k0, static_cast<std::uint32_t>(p1),
             static_cast<std::uint32_t>(p0 >> 32U) ^ x[3] ^ k1, static_cast<std::uint32_t>(p0)};
        k0 += 0x9E3779B9U;
        k1 += 0xBB67AE85U;
    }
    return x;
}

/// A sequence of random numbers drawn from one stream of a key. Same (key, stream): same integers everywhere;
/// normal() also depends on the machine's log and cos.
class random_stream {
 public:
    constexpr explicit random_stream(std::uint64_t key, std::uint64_t stream = 0) noexcept
        : key_(key), stream_(stream) {}

    [[nodiscard]] constexpr std::uint32_t bits32() noexcept {
        if (left_ == 0) {
            words_ = philox(key_, stream_, counter_++);
            left_ = 4;
        }
        return words_[--left_];
    }
    [[nodiscard]] constexpr std::uint64_t bits64() noexcept {
        const std::uint64_t high = bits32();
        return (high << 32U) | bits32();
    }
    /// Uniform in [0, 1), 24 bits.
    [[nodiscard]] constexpr float uniform() noexcept { return static_cast<float>(bits32() >> 8U) * 0x1p-24F; }
    /// Uniform in [0, n), without bias worth naming. Precondition: n > 0.
    [[nodiscard]] constexpr std::uint64_t below(std::uint64_t n) noexcept { return bits64() % n; }
    /// Standard normal (Box and Muller).
    [[nodiscard]] float normal() noexcept {
        const float u = (static_cast<float>(bits32() >> 8U) + 1.0F) * 0x1p-24F;
        const float v = uniform();
        return std::sqrt(-2.0F * std::log(u)) * std::cos(2.0F * std::numbers::pi_v<float> * v);
    }

 private:
    std::uint64_t key_;
    std::uint64_t stream_;
    std::uint64_t counter_ = 0;
    std::array<std::uint32_t, 4> words_{};
    std::size_t left_ = 0;
};

}  // namespace thinwire

#endif  // THINWIRE_CORE_RANDOM_HPP

// ---- thinwire/core/permutation.hpp
#ifndef THINWIRE_CORE_PERMUTATION_HPP
#define THINWIRE_CORE_PERMUTATION_HPP

#include <bit>
#include <cstdint>
#include <string>

namespace thinwire {

/// A random order of [0, size) that depends only on (size, key) and is computed one element at a time,
/// without a table: a Feistel network over philox on the next even power of two, walked until it lands inside
/// (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002). Fewer than four steps an
/// element on average.
class permutation {
 public:
    /// Throws value_error unless 1 <= size <= 2^62.
    permutation(std::uint64_t size, std::uint64_t key) : size_(size), key_(key) {
        if (size < 1 || size > (std::uint64_t{1} << 62U))
            throw value_error("permutation: size " + std::to_string(size) + ", expected 1..2^62");
        const auto bits = static_cast<unsigned>(std::bit_width(size - 1));
        half_bits_ = bits < 2 ? 1 : (bits + 1) / 2;
        mask_ = (std::uint64_t{1} << half_bits_) - 1;
    }

    [[nodiscard]] std::uint64_t size() const noexcept { return size_; }

    /// Where element i goes; all i of [0, size) go to different places. Precondition: i < size().
    [[nodiscard]] std::uint64_t operator()(std::uint64_t i) const noexcept {
        do {
            i = encipher(i);
        } while (i >= size_);
        return i;
    }

 private:
    static constexpr std::uint64_t rounds = 6;

    [[nodiscard]] std::uint64_t encipher(std::uint64_t x) const noexcept {
        std::uint64_t left = x >> half_bits_;
        std::uint64_t right = x & mask_;
        for (std::uint64_t r = 0; r < rounds; ++r) {
            const std::uint64_t mixed = left ^ (philox(key_, r, right)[0] & mask_);
            left = right;
            right = mixed;
        }
        return (left << half_bits_) | right;
    }

    std::uint64_t size_;
    std::uint64_t key_;
    unsigned half_bits_ = 1;
    std::uint64_t mask_ = 1;
};

}  // namespace thinwire

#endif  // THINWIRE_CORE_PERMUTATION_HPP

// ---- thinwire/io/batch_sampler.hpp
#ifndef THINWIRE_IO_BATCH_SAMPLER_HPP
#define THINWIRE_IO_BATCH_SAMPLER_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace thinwire {

/// Splits a window of T + 1 bytes into T tokens and, one byte on, their T targets. Precondition: those sizes.
inline void split_window(std::span<const std::byte> window, std::span<std::int32_t> tokens,
                         std::span<std::int32_t> targets) noexcept {
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        tokens[i] = std::to_integer<std::int32_t>(window[i]);
        targets[i] = std::to_integer<std::int32_t>(window[i + 1]);
    }
}

struct batch_sampler_options {
    std::size_t sequence_length = 128;  ///< T, tokens in a window
    std::uint64_t slots_per_round = 1;  ///< windows that all peers together take in a round
    std::uint64_t seed = 0;
};

/// Which windows of a corpus are trained on in which round: a pure function of (corpus size, options, round, slot), so
/// that it has no state, resumes exactly, and gives the same to every peer. The slots of round r are followed by those
/// of r + 1. An epoch visits every window once, in a random order of its own; windows of an epoch do not overlap in
/// their targets, and their boundaries shift from epoch to epoch.
class batch_sampler {
 public:
    /// Views `corpus`. Throws value_error for a length or a number of slots of 0, or a corpus below T + 1 bytes.
    batch_sampler(std::span<const std::byte> corpus, batch_sampler_options options)
        : corpus_(corpus), options_(options) {
        const std::size_t length = options.sequence_length;
        if (length == 0) throw value_error("batch_sampler: sequence_length 0, expected at least 1");
        if (options.slots_per_round == 0) throw value_error("batch_sampler: slots_per_round 0, expected at least 1");
        if (corpus.size() <= length)  // length + 1 may not fit
            throw value_error("batch_sampler: corpus of " + std::to_string(corpus.size()) +
                              " bytes, expected at least " + std::to_string(length + 1));
        // One window fewer than fit leaves room for the shift.
        const std::size_t fit = (corpus.size() - 1) / length;
        windows_ = fit > 1 ? fit - 1 : 1;
        shifts_ = std::min<std::uint64_t>(corpus.size() - windows_ * length, length);
    }

    [[nodiscard]] std::size_t sequence_length() const noexcept { return options_.sequence_length; }
    [[nodiscard]] std::uint64_t slots_per_round() const noexcept { return options_.slots_per_round; }
    [[nodiscard]] std::uint64_t windows_per_epoch() const noexcept { return windows_; }

    /// The T + 1 bytes of a slot. Throws value_error for a slot outside [0, slots_per_round).
    [[nodiscard]] std::span<const std::byte> sample(std::uint64_t round, std::uint64_t slot) const {
        if (slot >= options_.slots_per_round)
            throw value_error("batch_sampler: slot " + std::to_string(slot) + ", expected less than " +
                              std::to_string(options_.slots_per_round));
        const std::uint64_t index = round * options_.slots_per_round + slot;
        const std::uint64_t epoch = index / windows_;
        const auto keys = philox(options_.seed, epoch, 0);
        const std::uint64_t key = keys[0] | (std::uint64_t{keys[1]} << 32U);
        const std::uint64_t shift = keys[2] % shifts_;
        const std::uint64_t window = permutation(windows_, key)(index % windows_);
        return corpus_.subspan(window * options_.sequence_length + shift, options_.sequence_length + 1);
    }

    /// Slots [first_slot, first_slot + rows) as rows of T tokens and T targets. Throws value_error as sample() does,
    /// shape_error unless both spans hold a whole number of rows, and equally many.
    void fill(std::uint64_t round, std::uint64_t first_slot, std::span<std::int32_t> tokens,
              std::span<std::int32_t> targets) const {
        const std::size_t length = options_.sequence_length;
        if (tokens.size() % length != 0 || targets.size() != tokens.size())
            throw shape_error("batch_sampler: " + std::to_string(tokens.size()) + " tokens and " +
                              std::to_string(targets.size()) + " targets, expected rows of " + std::to_string(length));
        for (std::size_t row = 0; row < tokens.size() / length; ++row)
            split_window(sample(round, first_slot + row), tokens.subspan(row * length, length),
                         targets.subspan(row * length, length));
    }

 private:
    std::span<const std::byte> corpus_;
    batch_sampler_options options_;
    std::uint64_t windows_ = 1;
    std::uint64_t shifts_ = 1;
};

}  // namespace thinwire

#endif  // THINWIRE_IO_BATCH_SAMPLER_HPP

// ---- thinwire/io/detail/file_operations.hpp
#ifndef THINWIRE_IO_DETAIL_FILE_OPERATIONS_HPP
#define THINWIRE_IO_DETAIL_FILE_OPERATIONS_HPP

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <system_error>
#include <vector>

#if defined(_WIN32)
#include <fcntl.h>
#include <io.h>
#include <sys/stat.h>
#else
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace thinwire::detail {

enum class file_use : std::uint8_t {
    read,     ///< an existing file
    extend,   ///< to read and write, created when missing
    replace,  ///< to write, created or emptied
};

/// What everything that must survive a crash does to a disk: the seam at which tests put a disk that fails. Numbers are
/// results, or the system's reason (errno) negated. Interrupted calls are repeated.
class file_operations {
 public:
    virtual ~file_operations() = default;

    /// A descriptor.
    [[nodiscard]] virtual int open(const std::filesystem::path& path, file_use use) = 0;
    virtual int close(int file) = 0;
    /// How many bytes were read, from byte `at` on: 0 at the end of the file.
    [[nodiscard]] virtual std::int64_t read(int file, std::span<std::byte> into, std::uint64_t at) = 0;
    /// How many bytes were written, from byte `at` on: at least 1.
    [[nodiscard]] virtual std::int64_t write(int file, std::span<const std::byte> bytes, std::uint64_t at) = 0;
    [[nodiscard]] virtual std::int64_t size(int file) = 0;
    [[nodiscard]] virtual int truncate(int file, std::uint64_t size) = 0;
    /// Waits until the file's content and size are on the device.
    [[nodiscard]] virtual int sync(int file) = 0;
    [[nodiscard]] virtual int rename(const std::filesystem::path& from, const std::filesystem::path& to) = 0;
    [[nodiscard]] virtual int remove(const std::filesystem::path& path) = 0;
    /// Makes what was created, renamed and removed in a folder last.
    [[nodiscard]] virtual int sync_folder(const std::filesystem::path& folder) = 0;
    /// 1 when the folder was made, 0 when it was there.
    [[nodiscard]] virtual int make_folder(const std::filesystem::path& folder) = 0;
    /// Appends the names of what a folder holds.
    [[nodiscard]] virtual int list(const std::filesystem::path& folder, std::vector<std::string>& names) = 0;
};

/// The folder in which a path lies.
[[nodiscard]] inline std::filesystem::path folder_of(const std::filesystem::path& path) {
    return path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
}

/// The operating system's files.
class system_file_operations final : public file_operations {
 public:
    int open(const std::filesystem::path& path, file_use use) override {
#if defined(_WIN32)
        int mode = _O_BINARY | _O_NOINHERIT;
        if (use == file_use::read) mode |= _O_RDONLY;
        if (use == file_use::extend) mode |= _O_RDWR | _O_CREAT;
        if (use == file_use::replace) mode |= _O_RDWR | _O_CREAT | _O_TRUNC;
        const int file = ::_wopen(path.c_str(), mode, _S_IREAD | _S_IWRITE);
        return file < 0 ? -errno : file;
#else
        int mode = O_CLOEXEC;
        if (use == file_use::read) mode |= O_RDONLY;
        if (use == file_use::extend) mode |= O_RDWR | O_CREAT;
        if (use == file_use::replace) mode |= O_WRONLY | O_CREAT | O_TRUNC;
        return static_cast<int>(again([&] { return ::open(path.c_str(), mode, 0666); }));
#endif
    }
    int close(int file) override {
#if defined(_WIN32)
        return ::_close(file) != 0 ? -errno : 0;
#else
        return ::close(file) != 0 && errno != EINTR ? -errno : 0;
#endif
    }
    std::int64_t read(int file, std::span<std::byte> into, std::uint64_t at) override {
#if defined(_WIN32)
        if (::_lseeki64(file, static_cast<std::int64_t>(at), SEEK_SET) < 0) return -errno;
        return again([&] { return ::_read(file, into.data(), static_cast<unsigned>(at_most(into.size()))); });
#else
        return again([&] { return ::pread(file, into.data(), at_most(into.size()), static_cast<off_t>(at)); });
#endif
    }
    std::int64_t write(int file, std::span<const std::byte> bytes, std::uint64_t at) override {
#if defined(_WIN32)
        if (::_lseeki64(file, static_cast<std::int64_t>(at), SEEK_SET) < 0) return -errno;
        return again([&] { return ::_write(file, bytes.data(), static_cast<unsigned>(at_most(bytes.size()))); });
#else
        return again([&] { return ::pwrite(file, bytes.data(), at_most(bytes.size()), static_cast<off_t>(at)); });
#endif
    }
    std::int64_t size(int file) override {
#if defined(_WIN32)
        const auto length = ::_filelengthi64(file);
        return length < 0 ? -errno : length;
#else
        struct stat about {};
        return ::fstat(file, &about) != 0 ? -errno : static_cast<std::int64_t>(about.st_size);
#endif
    }
    int truncate(int file, std::uint64_t size) override {
#if defined(_WIN32)
        return -::_chsize_s(file, static_cast<std::int64_t>(size));
#else
        return static_cast<int>(again([&] { return ::ftruncate(file, static_cast<off_t>(size)); }));
#endif
    }
    int sync(int file) override {
#if defined(_WIN32)
        return ::_commit(file) != 0 ? -errno : 0;
#elif defined(__APPLE__)
        return without_device(again([&] { return ::fsync(file); }));
#else
        return without_device(again([&] { return ::fdatasync(file); }));
#endif
    }
    int rename(const std::filesystem::path& from, const std::filesystem::path& to) override {
        std::error_code failed;
        std::filesystem::rename(from, to, failed);
        return -failed.value();
    }
    int remove(const std::filesystem::path& path) override {
        std::error_code failed;
        std::filesystem::remove(path, failed);
        return -failed.value();
    }
    int sync_folder(const std::filesystem::path& folder) override {
#if defined(_WIN32)
        static_cast<void>(folder);
        return 0;
#else
        const int file = static_cast<int>(again([&] { return ::open(folder.c_str(), O_RDONLY | O_CLOEXEC); }));
        if (file < 0) return file;
        const int outcome = without_device(again([&] { return ::fsync(file); }));
        ::close(file);
        return outcome;
#endif
    }
    int make_folder(const std::filesystem::path& folder) override {
        std::error_code failed;
        const bool made = std::filesystem::create_directory(folder, failed);
        return failed ? -failed.value() : made ? 1 : 0;
    }
    int list(const std::filesystem::path& folder, std::vector<std::string>& names) override {
        std::error_code failed;
        for (std::filesystem::directory_iterator at(folder, failed), end; !failed && at != end; at.increment(failed))
            names.push_back(at->path().filename().string());
        return -failed.value();
    }

 private:
    [[nodiscard]] static std::size_t at_most(std::size_t count) noexcept {
        constexpr std::size_t limit = std::size_t{1} << 30U;
        return count < limit ? count : limit;
    }
    /// What `call` gives, asked again as long as a signal interrupts it.
    template <class Call>
    [[nodiscard]] static std::int64_t again(const Call& call) {
        for (;;) {
            const auto outcome = call();
            if (outcome >= 0) return static_cast<std::int64_t>(outcome);
            if (errno != EINTR) return -errno;
        }
    }
    /// A pipe or a terminal has no device to wait for and says EINVAL.
    [[nodiscard]] static int without_device(std::int64_t outcome) noexcept {
        return outcome == -EINVAL ? 0 : static_cast<int>(outcome);
    }
};

[[nodiscard]] inline file_operations& system_files() noexcept {
    static system_file_operations files;
    return files;
}

}  // namespace thinwire::detail

#endif  // THINWIRE_IO_DETAIL_FILE_OPERATIONS_HPP

// ---- thinwire/io/file.hpp
#ifndef THINWIRE_IO_FILE_HPP
#define THINWIRE_IO_FILE_HPP

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace thinwire {

namespace detail {

struct file_closer {
    void operator()(std::FILE* file) const noexcept { std::fclose(file); }
};
using file_handle = std::unique_ptr<std::FILE, file_closer>;

/// "write 'run/log': No space left on device".
[[noreturn]] inline void throw_io_error(std::string_view operation, const std::filesystem::path& path, int reason) {
    throw io_error(std::string(operation) + " '" + path.string() + "': " + std::generic_category().message(reason));
}

[[nodiscard]] inline file_handle open_file(const std::filesystem::path& path, const char* mode,
                                           std::string_view operation) {
    errno = 0;
    file_handle file(std::fopen(path.string().c_str(), mode));
    if (!file) throw_io_error(operation, path, errno);
    return file;
}

/// A descriptor that is closed with its owner. Every error is thrown as io_error: operation, path, reason.
class descriptor {
 public:
    descriptor(file_operations& files, std::filesystem::path path, file_use use, std::string_view operation)
        : files_(&files), path_(std::move(path)) {
        const int opened = files.open(path_, use);
        if (opened < 0) throw_io_error(operation, path_, -opened);
        file_ = opened;
    }
    descriptor(descriptor&& other) noexcept
        : files_(other.files_), path_(std::move(other.path_)), file_(std::exchange(other.file_, -1)) {}
    descriptor& operator=(descriptor&& other) noexcept {
        std::swap(files_, other.files_);
        std::swap(path_, other.path_);
        std::swap(file_, other.file_);
        return *this;
    }
    ~descriptor() {
        if (file_ >= 0) files_->close(file_);
    }

    [[nodiscard]] file_operations& files() const noexcept { return *files_; }
    [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }

    [[nodiscard]] std::uint64_t size() const {
        return static_cast<std::uint64_t>(checked(files_->size(file_), "size of"));
    }
    /// The bytes from `at` on, as many as `into` takes or the file has.
    std::size_t read(std::span<std::byte> into, std::uint64_t at) const {
        std::size_t filled = 0;
        while (filled < into.size()) {
            const auto got = checked(files_->read(file_, into.subspan(filled), at + filled), "read");
            if (got == 0) break;
            filled += static_cast<std::size_t>(got);
        }
        return filled;
    }
    /// All of `bytes`, beginning at `at`.
    void write(std::span<const std::byte> bytes, std::uint64_t at) {
        for (std::size_t done = 0; done < bytes.size();)
            done += static_cast<std::size_t>(checked(files_->write(file_, bytes.subspan(done), at + done), "write"));
    }
    void truncate(std::uint64_t size) { checked(files_->truncate(file_, size), "cut"); }
    [[nodiscard]] bool try_truncate(std::uint64_t size) { return files_->truncate(file_, size) >= 0; }
    void sync() { checked(files_->sync(file_), "sync"); }
    void close() { checked(files_->close(std::exchange(file_, -1)), "close"); }

 private:
    std::int64_t checked(std::int64_t outcome, std::string_view operation) const {
        if (outcome < 0) throw_io_error(operation, path_, static_cast<int>(-outcome));
        return outcome;
    }

    file_operations* files_;
    std::filesystem::path path_;
    int file_ = -1;
};

inline void sync_folder(file_operations& files, const std::filesystem::path& folder) {
    const int outcome = files.sync_folder(folder);
    if (outcome < 0) throw_io_error("sync folder", folder, -outcome);
}

}  // namespace detail

/// All bytes of a file. Throws io_error when it cannot be read or holds more than `limit` bytes; a pipe or a
/// device is read only up to there.
[[nodiscard]] inline std::vector<std::byte> read_file(const std::filesystem::path& path,
                                                      std::uint64_t limit = std::uint64_t{1} << 40U) {
    const detail::file_handle file = detail::open_file(path, "rb", "read");
    std::setvbuf(file.get(), nullptr, _IONBF, 0);
    std::error_code unknown;
    const std::uintmax_t announced = std::filesystem::file_size(path, unknown);
    const auto too_large = [&] {
        throw io_error("read '" + path.string() + "': more than " + std::to_string(limit) + " bytes");
    };
    if (!unknown && announced > limit) too_large();

    std::vector<std::byte> bytes(unknown ? 0 : static_cast<std::size_t>(announced));
    std::size_t filled = 0;
    for (;;) {
        // One byte more than announced tells the end of the file from a file that grew.
        if (filled == bytes.size()) bytes.resize(filled + (filled == 0 || filled != announced ? 65536 : 1));
        errno = 0;
        const std::size_t got = std::fread(bytes.data() + filled, 1, bytes.size() - filled, file.get());
        filled += got;
        if (filled > limit) too_large();
        if (std::ferror(file.get()) != 0) detail::throw_io_error("read", path, errno);
        if (std::feof(file.get()) != 0) break;
    }
    bytes.resize(filled);
    return bytes;
}

/// Replaces a file whole or not at all: writes `path` + ".tmp", then renames it. `durable` also waits until
/// file and name are on the device; without it a power cut may leave a file that is cut. On io_error the temporary
/// file is gone and the old one as it was; only where the name could not be made durable may the new one be in its
/// place. One writer a path.
inline void write_file_atomically(const std::filesystem::path& path, std::span<const std::byte> bytes,
                                  bool durable = false, detail::file_operations& files = detail::system_files()) {
    std::filesystem::path temporary = path;
    temporary += ".tmp";
    try {
        detail::descriptor file(files, temporary, detail::file_use::replace, "create");
        file.write(bytes, 0);
        if (durable) file.sync();
        file.close();
        const int outcome = files.rename(temporary, path);
        if (outcome < 0) detail::throw_io_error("rename to", path, -outcome);
    } catch (...) {
        static_cast<void>(files.remove(temporary));
        throw;
    }
    if (durable) detail::sync_folder(files, detail::folder_of(path));
}

/// A file that only grows. Used from one thread at a time.
///
/// After a failed sync() nobody knows which of the bytes since the last one are on the device (Linux may call them
/// clean and lose them), and after an append() that failed and could not be cut off the file does not end where it
/// should: then every later change throws io_error, until the file is opened again and looked at.
class append_file {
 public:
    /// Opens or creates; throws io_error.
    explicit append_file(std::filesystem::path path, detail::file_operations& files = detail::system_files())
        : file_(files, std::move(path), detail::file_use::extend, "open"), size_(file_.size()) {}

    [[nodiscard]] const std::filesystem::path& path() const noexcept { return file_.path(); }
    [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
    /// How many bytes are known to be on the device.
    [[nodiscard]] std::uint64_t synced() const noexcept { return synced_; }

    /// Hands all bytes to the operating system. On io_error the file is cut back to its size before the call.
    void append(std::span<const std::byte> bytes) { append(std::span(&bytes, 1)); }
    /// The parts one behind the other, all or none.
    void append(std::span<const std::span<const std::byte>> parts) {
        require_sound();
        std::uint64_t at = size_;
        dirty_ = true;
        try {
            for (const std::span<const std::byte> part : parts) {
                file_.write(part, at);
                at += part.size();
            }
        } catch (...) {
            broken_ = !file_.try_truncate(size_);
            throw;
        }
        size_ = at;
    }

    /// Waits until everything appended is on the device; throws io_error.
    void sync() {
        require_sound();
        if (!dirty_) return;
        broken_ = true;
        file_.sync();
        broken_ = false;
        dirty_ = false;
        synced_ = size_;
    }

    /// Shortens the file to `size` bytes. Precondition: size <= size().
    void cut(std::uint64_t size) {
        require_sound();
        file_.truncate(size);
        size_ = size;
        synced_ = std::min(synced_, size);
        dirty_ = true;
    }

    /// Writes the bytes from `from` to the end again, so that the next sync() covers them even if the sync of an
    /// earlier owner of the file failed.
    void renew(std::uint64_t from) {
        require_sound();
        std::vector<std::byte> block(static_cast<std::size_t>(std::min<std::uint64_t>(size_ - from, 1U << 20U)));
        while (from < size_) {
            const std::size_t got = file_.read(block, from);
            if (got == 0) throw io_error("read '" + path().string() + "': it became shorter");
            file_.write(std::span(block).first(got), from);
            from += got;
        }
        dirty_ = true;
    }

 private:
    void require_sound() const {
        if (broken_)
            throw io_error("write '" + path().string() + "': an earlier failure left it unknown what is on the device");
    }

    detail::descriptor file_;
    std::uint64_t size_ = 0;
    std::uint64_t synced_ = 0;
    bool dirty_ = true;  // what an earlier owner left is not known to be on the device
    bool broken_ = false;
};

}  // namespace thinwire

#endif  // THINWIRE_IO_FILE_HPP

// ---- thinwire/io/corpus.hpp
#ifndef THINWIRE_IO_CORPUS_HPP
#define THINWIRE_IO_CORPUS_HPP

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace thinwire {

/// The parts of a corpus; both view it.
struct corpus_split {
    std::span<const std::byte> train;
    std::span<const std::byte> validation;
};

/// Text whose tokens are its bytes.
class byte_corpus {
 public:
    /// Throws io_error when the file cannot be read or is empty.
    explicit byte_corpus(const std::filesystem::path& path, std::uint64_t limit = std::uint64_t{1} << 36U)
        : byte_corpus(path.string(), read_file(path, limit)) {}

    /// `name` stands in messages. Throws io_error when there are no bytes.
    byte_corpus(std::string name, std::vector<std::byte> bytes) : name_(std::move(name)), bytes_(std::move(bytes)) {
        if (bytes_.empty()) throw io_error("corpus '" + name_ + "': empty, expected text");
    }

    [[nodiscard]] const std::string& name() const noexcept { return name_; }
    [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return bytes_; }

    /// Throws value_error unless there is room for one sequence of `tokens` and the byte that follows it.
    void require_sequence(std::size_t tokens) const { require("", bytes_.size(), tokens); }

    /// The last `fraction` of the bytes (rounded down) for validation, the rest for training. Throws value_error
    /// unless 0 < fraction < 1 and either part has room for a sequence of `tokens` and the byte that follows it.
    [[nodiscard]] corpus_split split(double fraction, std::size_t tokens) const {
        if (!(fraction > 0.0 && fraction < 1.0))
            throw value_error("corpus '" + name_ + "': validation fraction " + std::to_string(fraction) +
                              ", expected more than 0 and less than 1");
        const auto held_out = static_cast<std::size_t>(static_cast<double>(bytes_.size()) * fraction);
        const std::size_t kept = bytes_.size() - held_out;
        require(" for training", kept, tokens);
        require(" for validation", held_out, tokens);
        return {.train = bytes().first(kept), .validation = bytes().subspan(kept)};
    }

 private:
    void require(const char* part, std::size_t found, std::size_t tokens) const {
        if (found <= tokens)  // tokens + 1 may not fit
            throw value_error("corpus '" + name_ + "': " + std::to_string(found) + " bytes" + part +
                              ", expected at least " + std::to_string(tokens + 1) + " (a sequence of " +
                              std::to_string(tokens) + " and the byte after it)");
    }

    std::string name_;
    std::vector<std::byte> bytes_;
};

}  // namespace thinwire

#endif  // THINWIRE_IO_CORPUS_HPP

// ---- thinwire/io/snapshot.hpp
#ifndef THINWIRE_IO_SNAPSHOT_HPP
#define THINWIRE_IO_SNAPSHOT_HPP

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace thinwire {

/// Weights under a name. Does not own the values.
struct named_tensor {
    std::string name;
    thinwire::shape shape;
    std::span<const float> values;  ///< shape.count() of them, row-major
};

/// The state of a replica after `round` commits, and whatever its owner keeps beside it (its momentum, say).
///
/// Bytes, little-endian: "TWSN", version, total length, then the sections head (run, round), manifest, tensors and
/// blobs, each with tag and length, and the SHA-256 of everything before it.
struct snapshot {
    static constexpr std::uint32_t magic = 0x4e535754;  // "TWSN"
    static constexpr std::uint32_t version = 1;

    digest run{};
    std::uint64_t round = 0;
    std::string manifest;
    std::vector<named_tensor> tensors;
    std::map<std::string, std::vector<std::byte>> blobs;
    /// Owns the values of a decoded snapshot; empty when the tensors view memory of the caller.
    std::shared_ptr<const std::vector<float>> storage{};

    /// Throws shape_error when a tensor's span does not have the elements its shape states.
    [[nodiscard]] std::vector<std::byte> encode() const;

    /// Total: refuses every cut and every altered byte; allocates no more than the bytes justify.
    [[nodiscard]] static result<snapshot> decode(std::span<const std::byte> bytes);

    /// Replaces the file at `path` whole or not at all; throws io_error.
    void save(const std::filesystem::path& path, bool durable = true,
              detail::file_operations& files = detail::system_files()) const {
        write_file_atomically(path, encode(), durable, files);
    }

    /// Throws io_error when the file cannot be read; what it holds is refused as decode() does, with the path.
    [[nodiscard]] static result<snapshot> load(const std::filesystem::path& path,
                                               std::uint64_t limit = std::uint64_t{1} << 40U) {
        result<snapshot> loaded = decode(read_file(path, limit));
        if (loaded) return loaded;
        return failure{loaded.error().code, "'" + path.string() + "': " + loaded.error().message};
    }

    /// Copies the weights into `parameters`. Refuses (and then changes nothing) unless names and shapes are the same
    /// in the same order.
    [[nodiscard]] result<ok> copy_to(std::span<const parameter> parameters) const;
};

/// What a snapshot stores of `parameters`: views of their values.
[[nodiscard]] inline std::vector<named_tensor> tensors_of(std::span<const parameter> parameters) {
    std::vector<named_tensor> tensors;
    tensors.reserve(parameters.size());
    for (const parameter& p : parameters) tensors.push_back({.name = p.name, .shape = p.shape, .values = p.values});
    return tensors;
}

namespace detail {

enum class snapshot_section : std::uint32_t { head = 1, manifest = 2, tensors = 3, blobs = 4 };

inline constexpr std::size_t snapshot_header_bytes = 16;
inline constexpr std::size_t snapshot_name_limit = 4096;

[[nodiscard]] inline failure refuse_snapshot(errc code, const std::string& why) {
    return {code, "snapshot: " + why};
}

inline void put_section(byte_writer& out, snapshot_section tag, std::span<const std::byte> body) {
    out.put(static_cast<std::uint32_t>(tag));
    out.put(static_cast<std::uint64_t>(body.size()));
    out.put(body);
}

inline void put_floats(byte_writer& out, std::span<const float> values) {
    if constexpr (std::endian::native == std::endian::little) {
        out.put(std::as_bytes(values));
    } else {
        for (const float value : values) out.put(value);
    }
}

inline void get_floats(std::span<const std::byte> raw, std::span<float> values) noexcept {
    if constexpr (std::endian::native == std::endian::little) {
        if (!values.empty()) std::memcpy(values.data(), raw.data(), values.size_bytes());
    } else {
        byte_reader in(raw);
        for (float& value : values) value = in.get_f32();
    }
}

[[nodiscard]] inline std::vector<std::byte> encode_tensors(std::span<const named_tensor> tensors) {
    byte_writer out;
    out.put(static_cast<std::uint32_t>(tensors.size()));
    for (const named_tensor& t : tensors) {
        if (t.values.size() != t.shape.count())
            throw shape_error("snapshot: tensor '" + t.name + "' has " + std::to_string(t.values.size()) +
                              " values, expected " + std::to_string(t.shape.count()) + " for shape " +
                              to_string(t.shape));
        out.put(std::string_view(t.name));
        out.put(static_cast<std::uint8_t>(t.shape.rank()));
        for (const std::int64_t side : t.shape) out.put(side);
    }
    for (const named_tensor& t : tensors) put_floats(out, t.values);
    return out.take();
}

/// Reads a shape as encode_tensors() puts it; false when it is cut or not a shape.
[[nodiscard]] inline bool get_shape(byte_reader& in, shape& out) {
    const auto rank = in.get<std::uint8_t>();
    if (rank > shape::max_rank) return false;
    std::array<std::int64_t, shape::max_rank> sides{};
    std::int64_t total = 1;
    constexpr std::int64_t limit = std::int64_t{1} << 62;
    for (std::size_t i = 0; i < rank; ++i) {
        sides[i] = in.get<std::int64_t>();
        if (sides[i] < 1 || total > limit / sides[i]) return false;
        total *= sides[i];
    }
    out = shape(std::span<const std::int64_t>(sides.data(), rank));
    return !in.failed();
}

[[nodiscard]] inline result<ok> decode_tensors(std::span<const std::byte> body, snapshot& into) {
    byte_reader in(body);
    const auto count = in.get<std::uint32_t>();
    std::uint64_t elements = 0;
    std::set<std::string> names;
    for (std::uint32_t i = 0; i < count; ++i) {
        named_tensor t;
        t.name = in.get_string(snapshot_name_limit);
        if (in.failed() || !get_shape(in, t.shape))
            return refuse_snapshot(errc::malformed, "tensor " + std::to_string(i) + " has no readable name and shape");
        if (!names.insert(t.name).second)
            return refuse_snapshot(errc::malformed, "two tensors are named '" + t.name + "'");
        elements += t.shape.count();
        if (elements > body.size() / sizeof(float))
            return refuse_snapshot(errc::truncated, "tensor '" + t.name + "' of shape " + to_string(t.shape) +
                                                        " is larger than its section");
        into.tensors.push_back(std::move(t));
    }
    if (in.failed() || in.remaining() != elements * sizeof(float))
        return refuse_snapshot(errc::malformed, "the tensor section does not hold the values that its shapes state");
    auto values = std::make_shared<std::vector<float>>(static_cast<std::size_t>(elements));
    get_floats(in.get_bytes(in.remaining()), *values);
    std::size_t at = 0;
    for (named_tensor& t : into.tensors) {
        t.values = std::span<const float>(*values).subspan(at, t.shape.count());
        at += t.values.size();
    }
    into.storage = std::move(values);
    return ok{};
}

[[nodiscard]] inline std::vector<std::byte> encode_blobs(const std::map<std::string, std::vector<std::byte>>& blobs) {
    byte_writer out;
    out.put(static_cast<std::uint32_t>(blobs.size()));
    for (const auto& [name, bytes] : blobs) {
        out.put(std::string_view(name));
        out.put(static_cast<std::uint64_t>(bytes.size()));
        out.put(std::span<const std::byte>(bytes));
    }
    return out.take();
}

[[nodiscard]] inline result<ok> decode_blobs(std::span<const std::byte> body, snapshot& into) {
    byte_reader in(body);
    const auto count = in.get<std::uint32_t>();
    for (std::uint32_t i = 0; i < count; ++i) {
        std::string name = in.get_string(snapshot_name_limit);
        const auto length = in.get<std::uint64_t>();
        const auto raw = in.get_bytes(length);
        if (in.failed()) return refuse_snapshot(errc::malformed, "blob " + std::to_string(i) + " is cut");
        if (!into.blobs.emplace(std::move(name), std::vector<std::byte>(raw.begin(), raw.end())).second)
            return refuse_snapshot(errc::malformed, "two blobs have one name");
    }
    if (in.failed() || in.remaining() != 0)
        return refuse_snapshot(errc::malformed, "the blob section does not end with its last blob");
    return ok{};
}

/// Checks frame and digest; gives the sections.
[[nodiscard]] inline result<std::span<const std::byte>> open_snapshot(std::span<const std::byte> bytes) {
    byte_reader in(bytes);
    const auto magic = in.get<std::uint32_t>();
    const auto version = in.get<std::uint32_t>();
    const auto length = in.get<std::uint64_t>();
    if (in.failed())
        return refuse_snapshot(errc::truncated, std::to_string(bytes.size()) + " bytes, too few for a header");
    if (magic != snapshot::magic) return refuse_snapshot(errc::bad_magic, "this is not a thinwire snapshot");
    if (version != snapshot::version)
        return refuse_snapshot(errc::bad_version, "format version " + std::to_string(version) + ", this build reads " +
                                                      std::to_string(snapshot::version));
    if (bytes.size() != length)
        return refuse_snapshot(bytes.size() < length ? errc::truncated : errc::trailing,
                               std::to_string(bytes.size()) + " bytes, its header states " + std::to_string(length));
    constexpr std::size_t digest_bytes = sizeof(digest::bytes);
    if (length < snapshot_header_bytes + digest_bytes) return refuse_snapshot(errc::truncated, "no room for a digest");
    const std::size_t covered = bytes.size() - digest_bytes;
    const digest found = digest_of(bytes.first(covered));
    if (!std::equal(found.bytes.begin(), found.bytes.end(), bytes.begin() + static_cast<std::ptrdiff_t>(covered),
                    bytes.end()))
        return refuse_snapshot(errc::bad_checksum, "damaged: the digest does not match the content");
    return bytes.subspan(snapshot_header_bytes, covered - snapshot_header_bytes);
}

}  // namespace detail

inline std::vector<std::byte> snapshot::encode() const {
    using detail::snapshot_section;
    byte_writer out;
    out.put(magic);
    out.put(version);
    out.put(std::uint64_t{0});

    byte_writer head;
    head.put(std::span<const std::byte>(run.bytes));
    head.put(round);
    put_section(out, snapshot_section::head, head.bytes());
    put_section(out, snapshot_section::manifest, std::as_bytes(std::span(manifest.data(), manifest.size())));
    put_section(out, snapshot_section::tensors, detail::encode_tensors(tensors));
    put_section(out, snapshot_section::blobs, detail::encode_blobs(blobs));

    const std::uint64_t length = out.size() + sizeof(digest::bytes);
    out.patch(8, static_cast<std::uint32_t>(length));
    out.patch(12, static_cast<std::uint32_t>(length >> 32U));
    const digest check = digest_of(out.bytes());
    out.put(std::span<const std::byte>(check.bytes));
    return out.take();
}

inline result<snapshot> snapshot::decode(std::span<const std::byte> bytes) {
    using detail::snapshot_section;
    const auto sections = detail::open_snapshot(bytes);
    if (!sections) return sections.error();
    byte_reader in(*sections);
    snapshot out;
    for (const auto tag :
         {snapshot_section::head, snapshot_section::manifest, snapshot_section::tensors, snapshot_section::blobs}) {
        const auto found = in.get<std::uint32_t>();
        const auto length = in.get<std::uint64_t>();
        const auto body = in.get_bytes(length);
        if (in.failed() || found != static_cast<std::uint32_t>(tag))
            return detail::refuse_snapshot(errc::malformed, "a section is missing or out of place");
        result<ok> read = ok{};
        if (tag == snapshot_section::head) {
            byte_reader head(body);
            const auto raw = head.get_bytes(sizeof(digest::bytes));
            std::copy(raw.begin(), raw.end(), out.run.bytes.begin());
            out.round = head.get<std::uint64_t>();
            if (head.failed() || head.remaining() != 0)
                return detail::refuse_snapshot(errc::malformed, "the head section has another length");
        } else if (tag == snapshot_section::manifest) {
            out.manifest.assign(reinterpret_cast<const char*>(body.data()), body.size());
        } else if (tag == snapshot_section::tensors) {
            read = detail::decode_tensors(body, out);
        } else {
            read = detail::decode_blobs(body, out);
        }
        if (!read) return read.error();
    }
    if (in.remaining() != 0) return detail::refuse_snapshot(errc::trailing, "bytes follow the last section");
    return out;
}

inline result<ok> snapshot::copy_to(std::span<const parameter> parameters) const {
    if (tensors.size() != parameters.size())
        return detail::refuse_snapshot(errc::mismatch, std::to_string(tensors.size()) + " tensors, the model has " +
                                                           std::to_string(parameters.size()));
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        const named_tensor& t = tensors[i];
        const parameter& p = parameters[i];
        if (t.name != p.name || t.shape != p.shape || t.values.size() != p.values.size())
            return detail::refuse_snapshot(errc::mismatch, "tensor '" + t.name + "' " + to_string(t.shape) +
                                                               " stands where the model has '" + p.name + "' " +
                                                               to_string(p.shape));
    }
    for (std::size_t i = 0; i < tensors.size(); ++i)
        std::copy(tensors[i].values.begin(), tensors[i].values.end(), parameters[i].values.begin());
    return ok{};
}

}  // namespace thinwire

#endif  // THINWIRE_IO_SNAPSHOT_HPP

// ---- thinwire/nn/config.hpp
#ifndef THINWIRE_NN_CONFIG_HPP
#define THINWIRE_NN_CONFIG_HPP

#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

namespace thinwire::nn {

/// Whose tensor names and weight layout a model uses. gpt2 keeps query, key and value in one matrix and stores
/// matrices as [inputs, outputs]; the others store [outputs, inputs].
enum class model_family : std::uint8_t { llama, qwen3, olmo2, gpt2 };

enum class norm_kind : std::uint8_t {
    rms,    ///< x / rms(x) * weight
    layer,  ///< (x - mean) / deviation * weight + bias
};
enum class norm_placement : std::uint8_t {
    pre,   ///< x + f(norm(x)), and a norm before the output layer
    post,  ///< x + norm(f(x)), and a norm before the output layer (OLMo 2)
};
enum class qk_norm_kind : std::uint8_t {
    none,
    per_head,  ///< RMS norm of every query and key vector (Qwen3)
    full,      ///< RMS norm over all heads of a token at once (OLMo 2)
};
enum class position_kind : std::uint8_t { rope, learned };
enum class mlp_kind : std::uint8_t {
    gated_silu,  ///< down(silu(gate(x)) * up(x))
    gelu_tanh,   ///< down(gelu(up(x))), tanh form: "gelu_new", "gelu_pytorch_tanh"
    gelu,        ///< down(gelu(up(x))), exact
};

/// Stretches the slow frequencies of RoPE for contexts longer than those trained on ("llama3" in Hugging Face files).
struct rope_scaling {
    bool enabled = false;
    double factor = 8.0;
    double low_freq_factor = 1.0;
    double high_freq_factor = 4.0;
    int original_max_position_embeddings = 8192;
    [[nodiscard]] bool operator==(const rope_scaling&) const noexcept = default;
};

/// The shape of a decoder-only transformer. Names are those of Hugging Face configuration files. The defaults of the
/// enumerations describe Llama; hf/config.hpp sets them for the other families.
struct transformer_config {
    model_family family = model_family::llama;
    norm_kind norm = norm_kind::rms;
    norm_placement placement = norm_placement::pre;
    qk_norm_kind qk_norm = qk_norm_kind::none;
    position_kind position = position_kind::rope;
    mlp_kind mlp = mlp_kind::gated_silu;

    int vocab_size = 0;
    int hidden_size = 0;
    int intermediate_size = 0;
    int num_hidden_layers = 0;
    int num_attention_heads = 0;
    int num_key_value_heads = 0;
    int head_dim = 0;
    int max_position_embeddings = 0;

    double rope_theta = 10000.0;
    nn::rope_scaling rope_scaling{};
    float norm_eps = 1e-5F;
    bool tie_word_embeddings = false;
    bool attention_bias = false;  ///< on the query, key, value and output projections
    bool mlp_bias = false;
    float initializer_range = 0.02F;
    int pad_token_id = -1;  ///< a token whose look-ups give its embedding no gradient, as torch's padding_idx; -1: none

    [[nodiscard]] bool operator==(const transformer_config&) const noexcept = default;
};

namespace detail {

inline void require(bool holds, std::string_view field, const char* value, std::string_view expectation) {
    if (!holds)
        throw value_error("transformer_config: " + std::string(field) + " is " + value + ", expected " +
                          std::string(expectation));
}
inline void require(bool holds, std::string_view field, int value, std::string_view expectation) {
    if (!holds) require(false, field, std::to_string(value).c_str(), expectation);
}
inline void require(bool holds, std::string_view field, double value, std::string_view expectation) {
    std::array<char, 32> text{};
    if (holds) return;
    std::snprintf(text.data(), text.size(), "%g", value);
    require(false, field, text.data(), expectation);
}

inline void check_gpt2(const transformer_config& c) {
    require(c.norm == norm_kind::layer, "norm", "rms", "layer for the gpt2 family");
    require(c.placement == norm_placement::pre, "placement", "post", "pre for the gpt2 family");
    require(c.qk_norm == qk_norm_kind::none, "qk_norm", "set", "none for the gpt2 family");
    require(c.position == position_kind::learned, "position", "rope", "learned for the gpt2 family");
    require(c.mlp != mlp_kind::gated_silu, "mlp", "gated_silu", "gelu_tanh or gelu for the gpt2 family");
    require(c.num_key_value_heads == c.num_attention_heads, "num_key_value_heads", c.num_key_value_heads,
            "num_attention_heads for the gpt2 family");
    require(c.attention_bias && c.mlp_bias, "attention_bias or mlp_bias", "false", "true for the gpt2 family");
    require(c.hidden_size == c.num_attention_heads * c.head_dim, "head_dim", c.head_dim,
            "hidden_size / num_attention_heads for the gpt2 family");
}

}  // namespace detail

/// Throws value_error that names the first field that is wrong, its value and what was expected.
inline void check(const transformer_config& c) {
    using detail::require;
    constexpr int limit = 1 << 24;  // products of two sizes stay within 64 bits, and row lengths within int
    const auto size = [](int value, std::string_view field) {
        require(value >= 1 && value <= limit, field, value, "1 to 16777216");
    };
    size(c.vocab_size, "vocab_size");
    size(c.hidden_size, "hidden_size");
    size(c.intermediate_size, "intermediate_size");
    require(c.num_hidden_layers >= 1 && c.num_hidden_layers <= 4096, "num_hidden_layers", c.num_hidden_layers,
            "1 to 4096");
    size(c.num_attention_heads, "num_attention_heads");
    size(c.num_key_value_heads, "num_key_value_heads");
    require(c.num_attention_heads % c.num_key_value_heads == 0, "num_key_value_heads", c.num_key_value_heads,
            "a divisor of num_attention_heads, " + std::to_string(c.num_attention_heads));
    size(c.head_dim, "head_dim");
    require(static_cast<std::int64_t>(c.num_attention_heads) * c.head_dim <= limit, "head_dim", c.head_dim,
            "at most 16777216 / num_attention_heads");
    size(c.max_position_embeddings, "max_position_embeddings");
    require(std::isfinite(c.norm_eps) && c.norm_eps > 0, "norm_eps", c.norm_eps, "a number above 0");
    require(std::isfinite(c.initializer_range) && c.initializer_range >= 0, "initializer_range", c.initializer_range,
            "a number of at least 0");
    require(c.pad_token_id >= -1 && c.pad_token_id < c.vocab_size, "pad_token_id", c.pad_token_id,
            "a token below vocab_size, or -1");
    if (c.position == position_kind::rope) {
        require(c.head_dim % 2 == 0, "head_dim", c.head_dim, "an even number with RoPE");
        require(std::isfinite(c.rope_theta) && c.rope_theta > 0, "rope_theta", c.rope_theta, "a number above 0");
    }
    if (const nn::rope_scaling& s = c.rope_scaling; c.position == position_kind::rope && s.enabled) {
        require(std::isfinite(s.factor) && s.factor >= 1, "rope_scaling.factor", s.factor, "at least 1");
        require(s.low_freq_factor > 0 && std::isfinite(s.low_freq_factor), "rope_scaling.low_freq_factor",
                s.low_freq_factor, "a number above 0");
        require(s.high_freq_factor > s.low_freq_factor && std::isfinite(s.high_freq_factor),
                "rope_scaling.high_freq_factor", s.high_freq_factor, "a number above low_freq_factor");
        size(s.original_max_position_embeddings, "rope_scaling.original_max_position_embeddings");
    }
    if (c.family == model_family::gpt2)
        detail::check_gpt2(c);
    else
        require(c.position == position_kind::rope, "position", "learned", "rope for this family");
}

}  // namespace thinwire::nn

#endif  // THINWIRE_NN_CONFIG_HPP

// ---- thinwire/nn/plan.hpp
#ifndef THINWIRE_NN_PLAN_HPP
#define THINWIRE_NN_PLAN_HPP

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace thinwire::nn {

/// How initialize() fills a tensor.
enum class initial_values : std::uint8_t { normal, residual, ones, zeros };

/// One trainable tensor: its Hugging Face name and its place in the arena.
struct tensor_plan {
    std::string name;
    thinwire::shape shape;
    initial_values initial;
    std::size_t offset;  ///< of the first element; a multiple of 16
};

/// Index of a tensor in the plan, or none.
inline constexpr int no_tensor = -1;

/// y = x W (+ bias), W stored as [outputs, inputs], or as [inputs, outputs] when inputs_first.
struct linear_plan {
    int weight = no_tensor;
    int bias = no_tensor;
    int inputs = 0;
    int outputs = 0;
    bool inputs_first = false;
};

struct norm_plan {
    int weight = no_tensor;
    int bias = no_tensor;  ///< of a LayerNorm
    int width = 0;
};

/// The tensors of one block. With fused query, key and value, `query` stands for all three.
struct layer_plan {
    norm_plan attention_norm, mlp_norm, query_norm, key_norm;
    linear_plan query, key, value, output;
    linear_plan gate, up, down;
};

/// Every tensor of a model, in the order of Hugging Face's named_parameters(), and who uses which. Needs no memory
/// beyond itself, so that a model's size is known before it is made.
class model_plan {
 public:
    /// Throws value_error for a configuration that makes no sense.
    explicit model_plan(const transformer_config& c) : config_(c) {
        check(c);
        if (c.family == model_family::gpt2)
            plan_gpt2();
        else
            plan_llama();
    }

    [[nodiscard]] const std::vector<tensor_plan>& tensors() const noexcept { return tensors_; }
    [[nodiscard]] const std::vector<layer_plan>& layers() const noexcept { return layers_; }
    /// Elements of the arena that holds all tensors, the gaps between them included.
    [[nodiscard]] std::size_t arena_size() const noexcept { return arena_size_; }
    /// Number of weights.
    [[nodiscard]] std::size_t parameter_count() const noexcept {
        std::size_t total = 0;
        for (const tensor_plan& tensor : tensors_) total += tensor.shape.count();
        return total;
    }

    [[nodiscard]] int embedding() const noexcept { return embedding_; }
    [[nodiscard]] int position_embedding() const noexcept { return position_embedding_; }
    [[nodiscard]] const norm_plan& final_norm() const noexcept { return final_norm_; }
    /// The layer that makes logits; its weight is the embedding when they are tied.
    [[nodiscard]] const linear_plan& head() const noexcept { return head_; }

 private:
    int add(std::string name, thinwire::shape sides, initial_values initial) {
        constexpr std::size_t align = 16;
        const std::size_t offset = (arena_size_ + align - 1) / align * align;
        arena_size_ = offset + sides.count();
        tensors_.push_back({std::move(name), sides, initial, offset});
        return static_cast<int>(tensors_.size()) - 1;
    }
    norm_plan add_norm(const std::string& name, int width, bool with_bias) {
        norm_plan norm;
        norm.width = width;
        norm.weight = add(name + ".weight", {width}, initial_values::ones);
        if (with_bias) norm.bias = add(name + ".bias", {width}, initial_values::zeros);
        return norm;
    }
    linear_plan add_linear(const std::string& name, int inputs, int outputs, bool with_bias,
                           initial_values initial = initial_values::normal) {
        linear_plan linear;
        linear.inputs = inputs;
        linear.outputs = outputs;
        linear.inputs_first = config_.family == model_family::gpt2;
        const thinwire::shape sides =
            linear.inputs_first ? thinwire::shape{inputs, outputs} : thinwire::shape{outputs, inputs};
        linear.weight = add(name + ".weight", sides, initial);
        if (with_bias) linear.bias = add(name + ".bias", {outputs}, initial_values::zeros);
        return linear;
    }
    void plan_head(const std::string& name) {
        head_ = {.weight = embedding_, .inputs = config_.hidden_size, .outputs = config_.vocab_size};
        if (!config_.tie_word_embeddings)
            head_.weight = add(name, {config_.vocab_size, config_.hidden_size}, initial_values::normal);
    }

    void plan_llama() {
        const transformer_config& c = config_;
        const bool bias = c.norm == norm_kind::layer;
        embedding_ = add("model.embed_tokens.weight", {c.vocab_size, c.hidden_size}, initial_values::normal);
        for (int i = 0; i < c.num_hidden_layers; ++i) layers_.push_back(plan_llama_layer(i));
        final_norm_ = add_norm("model.norm", c.hidden_size, bias);
        plan_head("lm_head.weight");
    }
    layer_plan plan_llama_layer(int index) {
        const transformer_config& c = config_;
        const std::string prefix = "model.layers." + std::to_string(index) + ".";
        const std::string attention = prefix + "self_attn.";
        const int query_width = c.num_attention_heads * c.head_dim;
        const int key_width = c.num_key_value_heads * c.head_dim;
        const bool bias = c.norm == norm_kind::layer;
        layer_plan layer;
        layer.query = add_linear(attention + "q_proj", c.hidden_size, query_width, c.attention_bias);
        layer.key = add_linear(attention + "k_proj", c.hidden_size, key_width, c.attention_bias);
        layer.value = add_linear(attention + "v_proj", c.hidden_size, key_width, c.attention_bias);
        layer.output =
            add_linear(attention + "o_proj", query_width, c.hidden_size, c.attention_bias, initial_values::residual);
        if (c.qk_norm != qk_norm_kind::none) {
            const bool full = c.qk_norm == qk_norm_kind::full;
            layer.query_norm = add_norm(attention + "q_norm", full ? query_width : c.head_dim, false);
            layer.key_norm = add_norm(attention + "k_norm", full ? key_width : c.head_dim, false);
        }
        if (c.mlp == mlp_kind::gated_silu)
            layer.gate = add_linear(prefix + "mlp.gate_proj", c.hidden_size, c.intermediate_size, c.mlp_bias);
        layer.up = add_linear(prefix + "mlp.up_proj", c.hidden_size, c.intermediate_size, c.mlp_bias);
        layer.down = add_linear(prefix + "mlp.down_proj", c.intermediate_size, c.hidden_size, c.mlp_bias,
                                initial_values::residual);
        const bool pre = c.placement == norm_placement::pre;
        layer.attention_norm =
            add_norm(prefix + (pre ? "input_layernorm" : "post_attention_layernorm"), c.hidden_size, bias);
        layer.mlp_norm =
            add_norm(prefix + (pre ? "post_attention_layernorm" : "post_feedforward_layernorm"), c.hidden_size, bias);
        return layer;
    }

    void plan_gpt2() {
        const transformer_config& c = config_;
        embedding_ = add("transformer.wte.weight", {c.vocab_size, c.hidden_size}, initial_values::normal);
        position_embedding_ =
            add("transformer.wpe.weight", {c.max_position_embeddings, c.hidden_size}, initial_values::normal);
        for (int i = 0; i < c.num_hidden_layers; ++i) {
            const std::string prefix = "transformer.h." + std::to_string(i) + ".";
            layer_plan layer;
            layer.attention_norm = add_norm(prefix + "ln_1", c.hidden_size, true);
            layer.query = add_linear(prefix + "attn.c_attn", c.hidden_size, 3 * c.hidden_size, true);
            layer.output =
                add_linear(prefix + "attn.c_proj", c.hidden_size, c.hidden_size, true, initial_values::residual);
            layer.mlp_norm = add_norm(prefix + "ln_2", c.hidden_size, true);
            layer.up = add_linear(prefix + "mlp.c_fc", c.hidden_size, c.intermediate_size, true);
            layer.down =
                add_linear(prefix + "mlp.c_proj", c.intermediate_size, c.hidden_size, true, initial_values::residual);
            layers_.push_back(layer);
        }
        final_norm_ = add_norm("transformer.ln_f", c.hidden_size, true);
        plan_head("lm_head.weight");
    }

    transformer_config config_;
    std::vector<tensor_plan> tensors_;
    std::vector<layer_plan> layers_;
    std::size_t arena_size_ = 0;
    int embedding_ = no_tensor;
    int position_embedding_ = no_tensor;
    norm_plan final_norm_;
    linear_plan head_;
};

}  // namespace thinwire::nn

#endif  // THINWIRE_NN_PLAN_HPP

// ---- thinwire/nn/layers.hpp
#ifndef THINWIRE_NN_LAYERS_HPP
#define THINWIRE_NN_LAYERS_HPP

#include <cstddef>

namespace thinwire::nn {

/// A back end with the weights and gradients of one model: what the layers below compute with. Backward functions
/// add to the gradients of the weights. Nothing is owned.
template <backend B>
struct layer_context {
    B& backend;
    const transformer_config& config;
    const model_plan& plan;
    float* values;
    float* gradients;

    [[nodiscard]] const float* value(int tensor) const {
        return values + plan.tensors()[static_cast<std::size_t>(tensor)].offset;
    }
    [[nodiscard]] float* gradient(int tensor) const {
        return gradients + plan.tensors()[static_cast<std::size_t>(tensor)].offset;
    }
};

/// y[rows, outputs] = x[rows, inputs] W + bias.
template <backend B>
void linear_forward(const layer_context<B>& c, const linear_plan& l, float* y, const float* x, int rows) {
    c.backend.matmul(y, x, c.value(l.weight), rows, l.outputs, l.inputs, false, !l.inputs_first, false);
    if (l.bias != no_tensor) c.backend.add_bias(y, c.value(l.bias), rows, l.outputs);
}

/// dx = (or += when accumulate) dy W^T.
template <backend B>
void linear_backward(const layer_context<B>& c, const linear_plan& l, float* dx, const float* dy, const float* x,
                     int rows, bool accumulate) {
    if (l.inputs_first)
        c.backend.matmul(c.gradient(l.weight), x, dy, l.inputs, l.outputs, rows, true, false, true);
    else
        c.backend.matmul(c.gradient(l.weight), dy, x, l.outputs, l.inputs, rows, true, false, true);
    if (l.bias != no_tensor) c.backend.bias_backward(c.gradient(l.bias), dy, rows, l.outputs);
    c.backend.matmul(dx, dy, c.value(l.weight), rows, l.inputs, l.outputs, false, l.inputs_first, accumulate);
}

/// Whether `n` is a LayerNorm is told by its bias. `mean` is used by LayerNorm only; both have `rows` entries.
template <backend B>
void norm_forward(const layer_context<B>& c, const norm_plan& n, float* y, float* mean, float* rstd, const float* x,
                  int rows) {
    if (n.bias == no_tensor)
        c.backend.rms_norm(y, rstd, x, c.value(n.weight), rows, n.width, c.config.norm_eps);
    else
        c.backend.layer_norm(y, mean, rstd, x, c.value(n.weight), c.value(n.bias), rows, n.width, c.config.norm_eps);
}

/// Writes dx, which may be dy for an RMS norm only.
template <backend B>
void norm_backward(const layer_context<B>& c, const norm_plan& n, float* dx, const float* dy, const float* x,
                   const float* mean, const float* rstd, int rows) {
    if (n.bias == no_tensor)
        c.backend.rms_norm_backward(dx, c.gradient(n.weight), dy, x, c.value(n.weight), rstd, rows, n.width);
    else
        c.backend.layer_norm_backward(dx, c.gradient(n.weight), c.gradient(n.bias), dy, x, c.value(n.weight), mean,
                                      rstd, rows, n.width);
}

}  // namespace thinwire::nn

#endif  // THINWIRE_NN_LAYERS_HPP

// ---- thinwire/nn/workspace.hpp
#ifndef THINWIRE_NN_WORKSPACE_HPP
#define THINWIRE_NN_WORKSPACE_HPP

#include <cstddef>
#include <tuple>
#include <vector>

namespace thinwire::nn {

/// What one block keeps from its forward for its backward pass; "rows" are tokens of all batch rows. There is no
/// tokens x tokens matrix: the attention's backward pass recomputes it from lse.
struct layer_activations {
    float* input = nullptr;   ///< [rows, hidden]
    float* middle = nullptr;  ///< [rows, hidden]: after attention
    float* normed_1 =
        nullptr;  ///< [rows, hidden]: norm(input); with post-norm the output of attention, before its norm
    float* normed_2 = nullptr;  ///< [rows, hidden]: the same of the MLP
    float *mean_1 = nullptr, *rstd_1 = nullptr, *mean_2 = nullptr, *rstd_2 = nullptr;  ///< [rows]
    float *query = nullptr, *key = nullptr,
          *value = nullptr;                          ///< what attention reads, at the strides of attention_shape
    float *raw_query = nullptr, *raw_key = nullptr;  ///< before their norm
    float *query_rstd = nullptr, *key_rstd = nullptr;
    float* attended = nullptr;                                ///< [rows, heads * head_dim]
    float* lse = nullptr;                                     ///< [rows, heads]
    float *gate = nullptr, *up = nullptr, *active = nullptr;  ///< [rows, intermediate]
};

/// Scratch of the backward pass, shared by all blocks.
struct gradient_scratch {
    float *stream = nullptr, *first = nullptr, *second = nullptr;  ///< [rows, hidden]
    float *query = nullptr, *key = nullptr, *value = nullptr;      ///< as layer_activations
    float* attended = nullptr;
    float *gate = nullptr, *up = nullptr, *active = nullptr;
};

/// All memory of a pass, in one buffer that only ever grows: passes of a size seen before allocate nothing.
template <backend B>
class workspace {
 public:
    struct request {
        int rows = 0;            ///< tokens of all batch rows
        int logit_rows = 0;      ///< rows of logits kept at once
        bool backward = false;   ///< without it the blocks share one set of activations
        bool recompute = false;  ///< with it they share all but their inputs
    };

    void prepare(B& backend, const transformer_config& c, request r) {
        layers_.resize(static_cast<std::size_t>(c.num_hidden_layers));
        used_ = 0;
        base_ = nullptr;
        lay_out(c, r);
        if (used_ > buffer_.size()) buffer_ = backend.allocate(used_);
        used_ = 0;
        base_ = buffer_.data();
        lay_out(c, r);
    }

    [[nodiscard]] layer_activations& layer(std::size_t i) noexcept { return layers_[i]; }
    [[nodiscard]] gradient_scratch& gradient() noexcept { return gradient_; }
    [[nodiscard]] float* output() noexcept { return output_; }  ///< [rows, hidden]: of the last block
    [[nodiscard]] float* normed() noexcept { return normed_; }  ///< [rows, hidden]: after the final norm
    [[nodiscard]] float* mean() noexcept { return mean_; }
    [[nodiscard]] float* rstd() noexcept { return rstd_; }
    [[nodiscard]] float* logits() noexcept { return logits_; }    ///< [logit_rows, vocabulary]
    [[nodiscard]] float* scratch() noexcept { return scratch_; }  ///< [rows, hidden]

 private:
    float* take(int rows, int columns) {
        constexpr std::size_t align = 16;
        float* place = base_ == nullptr ? nullptr : base_ + used_;
        used_ += (static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns) + align - 1) / align * align;
        return place;
    }

    void lay_out(const transformer_config& c, request r) {
        if (r.backward) {
            for (layer_activations& a : layers_) {
                if (r.recompute && &a != &layers_.front()) {
                    a = layers_.front();
                    a.input = take(r.rows, c.hidden_size);
                } else {
                    lay_out(c, r.rows, a);
                }
            }
            gradient_.stream = take(r.rows, c.hidden_size);
            gradient_.first = take(r.rows, c.hidden_size);
            gradient_.second = take(r.rows, c.hidden_size);
            std::tie(gradient_.query, gradient_.key, gradient_.value) = take_heads(c, r.rows);
            gradient_.attended = take(r.rows, c.num_attention_heads * c.head_dim);
            gradient_.gate = take(r.rows, c.intermediate_size);
            gradient_.up = take(r.rows, c.intermediate_size);
            gradient_.active = take(r.rows, c.intermediate_size);
        } else {
            lay_out(c, r.rows, layers_.front());
            for (layer_activations& a : layers_) a = layers_.front();
        }
        output_ = take(r.rows, c.hidden_size);
        normed_ = take(r.rows, c.hidden_size);
        scratch_ = take(r.rows, c.hidden_size);
        mean_ = take(r.rows, 1);
        rstd_ = take(r.rows, 1);
        logits_ = take(r.logit_rows, c.vocab_size);
    }

    void lay_out(const transformer_config& c, int rows, layer_activations& a) {
        a.input = take(rows, c.hidden_size);
        a.middle = take(rows, c.hidden_size);
        a.normed_1 = take(rows, c.hidden_size);
        a.normed_2 = take(rows, c.hidden_size);
        for (float** statistic : {&a.mean_1, &a.rstd_1, &a.mean_2, &a.rstd_2}) *statistic = take(rows, 1);
        std::tie(a.query, a.key, a.value) = take_heads(c, rows);
        if (c.qk_norm != qk_norm_kind::none) {
            a.raw_query = take(rows, c.num_attention_heads * c.head_dim);
            a.raw_key = take(rows, c.num_key_value_heads * c.head_dim);
            a.query_rstd = take(rows, c.num_attention_heads);
            a.key_rstd = take(rows, c.num_key_value_heads);
        }
        a.attended = take(rows, c.num_attention_heads * c.head_dim);
        a.lse = take(rows, c.num_attention_heads);
        if (c.mlp == mlp_kind::gated_silu) a.gate = take(rows, c.intermediate_size);
        a.up = take(rows, c.intermediate_size);
        a.active = take(rows, c.intermediate_size);
    }

    /// Query, key and value: apart, or side by side in every row when one matrix makes all three.
    std::tuple<float*, float*, float*> take_heads(const transformer_config& c, int rows) {
        if (c.family == model_family::gpt2) {
            float* fused = take(rows, 3 * c.hidden_size);
            if (fused == nullptr) return {};
            return {fused, fused + c.hidden_size, fused + std::ptrdiff_t{2} * c.hidden_size};
        }
        float* query = take(rows, c.num_attention_heads * c.head_dim);
        float* key = take(rows, c.num_key_value_heads * c.head_dim);
        return {query, key, take(rows, c.num_key_value_heads * c.head_dim)};
    }

    typename B::buffer buffer_{};
    float* base_ = nullptr;
    std::size_t used_ = 0;
    std::vector<layer_activations> layers_;
    gradient_scratch gradient_;
    float *output_ = nullptr, *normed_ = nullptr, *scratch_ = nullptr;
    float *mean_ = nullptr, *rstd_ = nullptr, *logits_ = nullptr;
};

}  // namespace thinwire::nn

#endif  // THINWIRE_NN_WORKSPACE_HPP

// ---- thinwire/nn/block.hpp
#ifndef THINWIRE_NN_BLOCK_HPP
#define THINWIRE_NN_BLOCK_HPP

#include <cstddef>

namespace thinwire::nn {

/// Where the rows of a pass stand: row r is position first_position + r % tokens. The tables are rope_table's.
struct row_positions {
    int rows = 0;
    int tokens = 0;
    int first_position = 0;
    const float* cosine = nullptr;
    const float* sine = nullptr;
};

/// Sizes and strides of the attention of a model over `batch` rows of `tokens` tokens.
[[nodiscard]] inline attention_shape attention_of(const transformer_config& c, int batch, int tokens) {
    const int query_width = c.num_attention_heads * c.head_dim;
    const bool fused = c.family == model_family::gpt2;
    return {.batch = batch,
            .tokens = tokens,
            .heads = c.num_attention_heads,
            .kv_heads = c.num_key_value_heads,
            .head_dim = c.head_dim,
            .q_stride = fused ? 3 * c.hidden_size : query_width,
            .kv_stride = fused ? 3 * c.hidden_size : c.num_key_value_heads * c.head_dim,
            .o_stride = query_width};
}

namespace detail {

[[nodiscard]] inline std::size_t elements(int rows, int columns) {
    return static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns);
}

/// Rows that a query or key norm sees: tokens, or tokens times heads.
[[nodiscard]] inline int norm_rows(const transformer_config& c, int rows, int heads) {
    return c.qk_norm == qk_norm_kind::per_head ? rows * heads : rows;
}

template <backend B>
void rotate(const layer_context<B>& c, float* query, float* key, const row_positions& at, bool inverse) {
    if (c.config.position != position_kind::rope) return;
    const attention_shape s = attention_of(c.config, 1, at.tokens);
    c.backend.rope(query, at.cosine, at.sine, at.rows, at.tokens, s.heads, s.head_dim, s.q_stride, at.first_position,
                   inverse);
    c.backend.rope(key, at.cosine, at.sine, at.rows, at.tokens, s.kv_heads, s.head_dim, s.kv_stride, at.first_position,
                   inverse);
}

/// Queries, keys and values from x, as attention reads them.
template <backend B>
void heads_forward(const layer_context<B>& c, const layer_plan& l, layer_activations& a, const float* x,
                   const row_positions& at) {
    const bool normed = c.config.qk_norm != qk_norm_kind::none;
    linear_forward(c, l.query, normed ? a.raw_query : a.query, x, at.rows);
    if (l.key.weight != no_tensor) {
        linear_forward(c, l.key, normed ? a.raw_key : a.key, x, at.rows);
        linear_forward(c, l.value, a.value, x, at.rows);
    }
    if (normed) {
        norm_forward(c, l.query_norm, a.query, nullptr, a.query_rstd, a.raw_query,
                     norm_rows(c.config, at.rows, c.config.num_attention_heads));
        norm_forward(c, l.key_norm, a.key, nullptr, a.key_rstd, a.raw_key,
                     norm_rows(c.config, at.rows, c.config.num_key_value_heads));
    }
    rotate(c, a.query, a.key, at, false);
}

/// The gradient of x from those of queries, keys and values, which are used up.
template <backend B>
void heads_backward(const layer_context<B>& c, const layer_plan& l, const layer_activations& a, gradient_scratch& d,
                    float* dx, const float* x, const row_positions& at) {
    rotate(c, d.query, d.key, at, true);
    if (c.config.qk_norm != qk_norm_kind::none) {  // rms_norm_backward may work in place
        norm_backward(c, l.query_norm, d.query, d.query, a.raw_query, nullptr, a.query_rstd,
                      norm_rows(c.config, at.rows, c.config.num_attention_heads));
        norm_backward(c, l.key_norm, d.key, d.key, a.raw_key, nullptr, a.key_rstd,
                      norm_rows(c.config, at.rows, c.config.num_key_value_heads));
    }
    linear_backward(c, l.query, dx, d.query, x, at.rows, false);
    if (l.key.weight == no_tensor) return;
    linear_backward(c, l.key, dx, d.key, x, at.rows, true);
    linear_backward(c, l.value, dx, d.value, x, at.rows, true);
}

template <backend B>
void mlp_forward(const layer_context<B>& c, const layer_plan& l, layer_activations& a, float* y, const float* x,
                 int rows) {
    const std::size_t n = elements(rows, c.config.intermediate_size);
    linear_forward(c, l.up, a.up, x, rows);
    if (c.config.mlp == mlp_kind::gated_silu) {
        linear_forward(c, l.gate, a.gate, x, rows);
        c.backend.silu_mul(a.active, a.gate, a.up, n);
    } else {
        c.backend.gelu(a.active, a.up, n, c.config.mlp == mlp_kind::gelu_tanh);
    }
    linear_forward(c, l.down, y, a.active, rows);
}

template <backend B>
void mlp_backward(const layer_context<B>& c, const layer_plan& l, const layer_activations& a, gradient_scratch& d,
                  float* dx, const float* dy, const float* x, int rows) {
    const std::size_t n = elements(rows, c.config.intermediate_size);
    linear_backward(c, l.down, d.active, dy, a.active, rows, false);
    if (c.config.mlp == mlp_kind::gated_silu) {
        c.backend.silu_mul_backward(d.gate, d.up, d.active, a.gate, a.up, n);
        linear_backward(c, l.up, dx, d.up, x, rows, false);
        linear_backward(c, l.gate, dx, d.gate, x, rows, true);
    } else {
        c.backend.gelu_backward(d.up, d.active, a.up, n, c.config.mlp == mlp_kind::gelu_tanh);
        linear_backward(c, l.up, dx, d.up, x, rows, false);
    }
}

}  // namespace detail

/// One block: a.input to `out` ([rows, hidden], may be a.input). `attend()` computes a.attended from a.query, a.key
/// and a.value. `scratch` is [rows, hidden].
template <backend B, class Attend>
void block_forward(const layer_context<B>& c, const layer_plan& l, layer_activations& a, float* out, float* scratch,
                   const row_positions& at, const Attend& attend) {
    const bool pre = c.config.placement == norm_placement::pre;
    const std::size_t n = detail::elements(at.rows, c.config.hidden_size);
    if (pre) norm_forward(c, l.attention_norm, a.normed_1, a.mean_1, a.rstd_1, a.input, at.rows);
    detail::heads_forward(c, l, a, pre ? a.normed_1 : a.input, at);
    attend();
    linear_forward(c, l.output, pre ? scratch : a.normed_1, a.attended, at.rows);
    if (!pre) norm_forward(c, l.attention_norm, scratch, a.mean_1, a.rstd_1, a.normed_1, at.rows);
    c.backend.copy(a.middle, a.input, n);
    c.backend.add(a.middle, scratch, n);

    if (pre) norm_forward(c, l.mlp_norm, a.normed_2, a.mean_2, a.rstd_2, a.middle, at.rows);
    detail::mlp_forward(c, l, a, pre ? scratch : a.normed_2, pre ? a.normed_2 : a.middle, at.rows);
    if (!pre) norm_forward(c, l.mlp_norm, scratch, a.mean_2, a.rstd_2, a.normed_2, at.rows);
    c.backend.copy(out, a.middle, n);
    c.backend.add(out, scratch, n);
}

/// Turns d.stream from the gradient of a block's output into that of its input, and adds to its weights' gradients.
template <backend B>
void block_backward(const layer_context<B>& c, const layer_plan& l, const layer_activations& a, gradient_scratch& d,
                    const row_positions& at) {
    const bool pre = c.config.placement == norm_placement::pre;
    const std::size_t n = detail::elements(at.rows, c.config.hidden_size);
    if (pre) {
        detail::mlp_backward(c, l, a, d, d.first, d.stream, a.normed_2, at.rows);
        norm_backward(c, l.mlp_norm, d.second, d.first, a.middle, a.mean_2, a.rstd_2, at.rows);
    } else {
        norm_backward(c, l.mlp_norm, d.first, d.stream, a.normed_2, a.mean_2, a.rstd_2, at.rows);
        detail::mlp_backward(c, l, a, d, d.second, d.first, a.middle, at.rows);
    }
    c.backend.add(d.stream, d.second, n);

    const float* dy = d.stream;
    if (!pre) {
        norm_backward(c, l.attention_norm, d.first, d.stream, a.normed_1, a.mean_1, a.rstd_1, at.rows);
        dy = d.first;
    }
    linear_backward(c, l.output, d.attended, dy, a.attended, at.rows, false);
    c.backend.attention_backward(d.query, d.key, d.value, d.attended, a.query, a.key, a.value, a.attended, a.lse,
                                 attention_of(c.config, at.rows / at.tokens, at.tokens));
    if (pre) {
        detail::heads_backward(c, l, a, d, d.first, a.normed_1, at);
        norm_backward(c, l.attention_norm, d.second, d.first, a.input, a.mean_1, a.rstd_1, at.rows);
    } else {
        detail::heads_backward(c, l, a, d, d.second, a.input, at);
    }
    c.backend.add(d.stream, d.second, n);
}

}  // namespace thinwire::nn

#endif  // THINWIRE_NN_BLOCK_HPP

// ---- thinwire/nn/rope.hpp
#ifndef THINWIRE_NN_ROPE_HPP
#define THINWIRE_NN_ROPE_HPP

#include <cmath>
#include <cstddef>
#include <numbers>
#include <vector>

namespace thinwire::nn {

/// The angle per position of each of the head_dim / 2 pairs: theta^(-2i / head_dim) (Su et al., "RoFormer",
/// arXiv:2104.09864), with the slow ones divided by the factor of Llama 3.1's scaling and those between blended.
[[nodiscard]] inline std::vector<double> rope_frequencies(const transformer_config& c) {
    std::vector<double> frequencies;
    for (int i = 0; i < c.head_dim; i += 2) {
        double f = std::pow(c.rope_theta, -static_cast<double>(i) / c.head_dim);
        if (const rope_scaling& s = c.rope_scaling; s.enabled) {
            const double turns = s.original_max_position_embeddings * f / (2.0 * std::numbers::pi);
            if (turns < s.low_freq_factor) {
                f /= s.factor;
            } else if (turns <= s.high_freq_factor) {
                const double smooth = (turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
                f *= (1.0 - smooth) / s.factor + smooth;
            }
        }
        frequencies.push_back(f);
    }
    return frequencies;
}

/// Cosines and sines of positions 0 to positions - 1, head_dim / 2 entries each, computed in double.
struct rope_table {
    std::vector<float> cosine, sine;

    rope_table(const transformer_config& c, int positions) {
        const std::vector<double> frequencies = rope_frequencies(c);
        cosine.reserve(static_cast<std::size_t>(positions) * frequencies.size());
        sine.reserve(cosine.capacity());
        for (int t = 0; t < positions; ++t)
            for (const double f : frequencies) {
                cosine.push_back(static_cast<float>(std::cos(t * f)));
                sine.push_back(static_cast<float>(std::sin(t * f)));
            }
    }
};

}  // namespace thinwire::nn

#endif  // THINWIRE_NN_ROPE_HPP

// ---- thinwire/nn/transformer.hpp
#ifndef THINWIRE_NN_TRANSFORMER_HPP
#define THINWIRE_NN_TRANSFORMER_HPP

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

namespace thinwire::nn {

/// A decoder-only transformer (Llama, Qwen3, OLMo 2, GPT-2) with forward and backward passes written by hand, on any
/// back end. Owns its weights, their gradients and one workspace; a pass of a size seen before allocates nothing.
/// tokens, targets: [batch, tokens_per_row], row-major. Used by one thread at a time.
template <backend B>
class transformer {
 public:
    /// Weights are zero until initialize() or hf::load_weights(). Throws value_error naming the field that is wrong.
    /// The back end outlives the model.
    transformer(B& backend, transformer_config config)
        : backend_(backend),
          config_(config),
          plan_(config_),
          values_(backend.allocate(plan_.arena_size())),
          gradients_(backend.allocate(plan_.arena_size())) {
        for (const tensor_plan& t : plan_.tensors())
            parameters_.push_back({.name = t.name,
                                   .shape = t.shape,
                                   .values = {values_.data() + t.offset, t.shape.count()},
                                   .gradient = {gradients_.data() + t.offset, t.shape.count()}});
    }
    transformer(const transformer&) = delete;
    transformer& operator=(const transformer&) = delete;

    [[nodiscard]] const transformer_config& config() const noexcept { return config_; }
    [[nodiscard]] const model_plan& plan() const noexcept { return plan_; }

    /// All trainable tensors under their Hugging Face names, in named_parameters() order. The spans lie in two arenas
    /// where the back end computes: host memory for a CPU back end. Valid as long as the model.
    [[nodiscard]] std::span<const parameter> parameters() const noexcept { return parameters_; }

    /// Matrices normal(0, initializer_range), those that write into the residual stream narrower by
    /// sqrt(2 * layers) (GPT-2); norms 1, biases 0. A function of the seed and the machine's libm alone.
    void initialize(std::uint64_t seed) {
        std::vector<float> fresh;
        for (std::size_t i = 0; i < parameters_.size(); ++i) {
            const initial_values kind = plan_.tensors()[i].initial;
            fresh.assign(parameters_[i].values.size(), kind == initial_values::ones ? 1.0F : 0.0F);
            if (kind == initial_values::normal || kind == initial_values::residual) {
                const auto depth = static_cast<float>(2 * config_.num_hidden_layers);
                const float scale =
                    config_.initializer_range / (kind == initial_values::residual ? std::sqrt(depth) : 1.0F);
                random_stream random(seed, i);
                for (float& x : fresh) x = scale * random.normal();
            }
            backend_.upload(parameters_[i].values.data(), fresh);
        }
    }

    /// Whether blocks keep only their inputs for the backward pass, which then computes the rest once more: the same
    /// bits, a third more work, and memory for the activations of one block instead of all. For the passes to come.
    void recompute_activations(bool recompute) noexcept { recompute_ = recompute; }

    void zero_gradient() { backend_.fill(gradients_.data(), 0.0F, gradients_.size()); }

    /// Mean cross-entropy over the targets that are not negative (negative ones are ignored), in nats; adds its
    /// gradient to every parameter's. Throws shape_error for sizes that do not fit together or rows longer than
    /// max_position_embeddings, and value_error for a token or target outside the vocabulary or no target at all.
    float loss_and_gradient(std::span<const std::int32_t> tokens, std::span<const std::int32_t> targets, int batch,
                            int tokens_per_row) {
        const int counted = check_targets(targets, tokens.size());
        const row_positions at = forward(tokens, batch, tokens_per_row, true);
        head_forward(at.rows);
        const float scale = 1.0F / static_cast<float>(counted);
        const double sum =
            backend_.cross_entropy(workspace_.logits(), targets.data(), at.rows, config_.vocab_size, scale);
        backward(tokens, at);
        return static_cast<float>(sum / counted);
    }

    /// The same loss without a gradient. Errors as loss_and_gradient.
    [[nodiscard]] float loss(std::span<const std::int32_t> tokens, std::span<const std::int32_t> targets, int batch,
                             int tokens_per_row) {
        const int counted = check_targets(targets, tokens.size());
        const row_positions at = forward(tokens, batch, tokens_per_row, false);
        head_forward(at.rows);
        const double sum =
            backend_.cross_entropy(workspace_.logits(), targets.data(), at.rows, config_.vocab_size, 0.0F);
        return static_cast<float>(sum / counted);
    }

    /// The scores of every next token: out is [batch, tokens_per_row, vocab_size] in host memory.
    void logits(std::span<const std::int32_t> tokens, int batch, int tokens_per_row, std::span<float> out) {
        const std::size_t expected = tokens.size() * static_cast<std::size_t>(config_.vocab_size);
        if (out.size() != expected)
            throw shape_error("logits: out has " + std::to_string(out.size()) + " elements, expected " +
                              std::to_string(expected));
        const row_positions at = forward(tokens, batch, tokens_per_row, false);
        head_forward(at.rows);
        backend_.download(out, workspace_.logits());
    }

    /// What layers and decoders compute with. Valid as long as the model.
    [[nodiscard]] layer_context<B> context() noexcept {
        return {backend_, config_, plan_, values_.data(), gradients_.data()};
    }

    /// Tables for positions below `count`; they move when a later call asks for more. Throws shape_error beyond
    /// max_position_embeddings.
    [[nodiscard]] row_positions positions(int rows, int tokens, int first_position) {
        const int count = first_position + tokens;
        if (count > config_.max_position_embeddings)
            throw shape_error("transformer: " + std::to_string(count) + " tokens in a row, expected at most " +
                              std::to_string(config_.max_position_embeddings) + " (max_position_embeddings)");
        if (config_.position == position_kind::rope && count > table_positions_) grow_tables(count);
        return {rows, tokens, first_position, cosine_.data(), sine_.data()};
    }

    /// out[rows, hidden] = the embeddings of `tokens` at these positions; scratch is as large.
    void embed(float* out, float* scratch, std::span<const std::int32_t> tokens, const row_positions& at) {
        check_tokens(tokens);
        const layer_context<B> c = context();
        backend_.embedding(out, c.value(plan_.embedding()), tokens.data(), at.rows, config_.hidden_size);
        if (plan_.position_embedding() == no_tensor) return;
        position_ids_.resize(static_cast<std::size_t>(at.rows));
        for (int r = 0; r < at.rows; ++r)
            position_ids_[static_cast<std::size_t>(r)] = at.first_position + r % at.tokens;
        backend_.embedding(scratch, c.value(plan_.position_embedding()), position_ids_.data(), at.rows,
                           config_.hidden_size);
        backend_.add(out, scratch, detail::elements(at.rows, config_.hidden_size));
    }

 private:
    void check_tokens(std::span<const std::int32_t> tokens) const {
        for (const std::int32_t token : tokens)
            if (token < 0 || token >= config_.vocab_size)
                throw value_error("transformer: token " + std::to_string(token) + ", expected 0 to " +
                                  std::to_string(config_.vocab_size - 1));
    }

    /// How many targets count.
    int check_targets(std::span<const std::int32_t> targets, std::size_t tokens) const {
        if (targets.size() != tokens)
            throw shape_error("transformer: " + std::to_string(targets.size()) + " targets, expected one for each of " +
                              std::to_string(tokens) + " tokens");
        for (const std::int32_t target : targets)
            if (target >= config_.vocab_size)
                throw value_error("transformer: target " + std::to_string(target) + ", expected below " +
                                  std::to_string(config_.vocab_size) + " (or negative to ignore it)");
        const auto counted = std::count_if(targets.begin(), targets.end(), [](std::int32_t t) { return t >= 0; });
        if (counted == 0) throw value_error("transformer: 0 targets that count, expected at least 1");
        return static_cast<int>(counted);
    }

    void grow_tables(int count) {
        const auto wanted = std::bit_ceil(static_cast<unsigned>(count));
        const int size = std::min(static_cast<int>(wanted), config_.max_position_embeddings);
        const rope_table table(config_, size);
        cosine_ = backend_.allocate(table.cosine.size());
        sine_ = backend_.allocate(table.sine.size());
        backend_.upload(cosine_.data(), table.cosine);
        backend_.upload(sine_.data(), table.sine);
        table_positions_ = size;
    }

    /// From tokens to the output of the final norm.
    row_positions forward(std::span<const std::int32_t> tokens, int batch, int tokens_per_row, bool keep) {
        const auto rows = static_cast<std::int64_t>(batch) * tokens_per_row;
        if (batch < 1 || tokens_per_row < 1 || static_cast<std::uint64_t>(rows) != tokens.size() ||
            rows > std::numeric_limits<int>::max())
            throw shape_error("transformer: " + std::to_string(tokens.size()) + " tokens, expected batch " +
                              std::to_string(batch) + " times tokens_per_row " + std::to_string(tokens_per_row) +
                              ", both at least 1");
        const row_positions at = positions(static_cast<int>(rows), tokens_per_row, 0);
        workspace_.prepare(backend_, config_,
                           {.rows = at.rows, .logit_rows = at.rows, .backward = keep, .recompute = recompute_});
        const layer_context<B> c = context();
        embed(workspace_.layer(0).input, workspace_.scratch(), tokens, at);
        const std::size_t layers = plan_.layers().size();
        for (std::size_t i = 0; i < layers; ++i) {
            float* out = i + 1 < layers ? workspace_.layer(i + 1).input : workspace_.output();
            layer_forward(i, out, at);
        }
        norm_forward(c, plan_.final_norm(), workspace_.normed(), workspace_.mean(), workspace_.rstd(),
                     workspace_.output(), at.rows);
        return at;
    }

    void layer_forward(std::size_t i, float* out, const row_positions& at) {
        layer_activations& a = workspace_.layer(i);
        const attention_shape shape = attention_of(config_, at.rows / at.tokens, at.tokens);
        block_forward(context(), plan_.layers()[i], a, out, workspace_.scratch(), at,
                      [&] { backend_.attention(a.attended, a.lse, a.query, a.key, a.value, shape); });
    }

    void head_forward(int rows) {
        linear_forward(context(), plan_.head(), workspace_.logits(), workspace_.normed(), rows);
    }

    /// From the gradient of the logits, which lies where they lay, to those of all weights.
    void backward(std::span<const std::int32_t> tokens, const row_positions& at) {
        const layer_context<B> c = context();
        gradient_scratch& d = workspace_.gradient();
        linear_backward(c, plan_.head(), d.first, workspace_.logits(), workspace_.normed(), at.rows, false);
        norm_backward(c, plan_.final_norm(), d.stream, d.first, workspace_.output(), workspace_.mean(),
                      workspace_.rstd(), at.rows);
        for (std::size_t i = plan_.layers().size(); i-- > 0;) {
            // those of the last block are still there; its output is nobody's, and goes where the gradient will be
            if (recompute_ && i + 1 < plan_.layers().size()) layer_forward(i, d.first, at);
            block_backward(c, plan_.layers()[i], workspace_.layer(i), d, at);
        }
        if (plan_.position_embedding() != no_tensor)
            backend_.embedding_backward(c.gradient(plan_.position_embedding()), d.stream, position_ids_.data(), at.rows,
                                        config_.hidden_size);
        const auto width = static_cast<std::size_t>(config_.hidden_size);
        for (std::size_t r = 0; r < tokens.size(); ++r)
            if (tokens[r] == config_.pad_token_id) backend_.fill(d.stream + r * width, 0.0F, width);
        backend_.embedding_backward(c.gradient(plan_.embedding()), d.stream, tokens.data(), at.rows,
                                    config_.hidden_size);
    }

    B& backend_;
    transformer_config config_;
    model_plan plan_;
    typename B::buffer values_, gradients_;
    typename B::buffer cosine_{}, sine_{};
    int table_positions_ = 0;
    bool recompute_ = false;
    std::vector<parameter> parameters_;
    std::vector<std::int32_t> position_ids_;
    workspace<B> workspace_;
};

}  // namespace thinwire::nn

#endif  // THINWIRE_NN_TRANSFORMER_HPP

// ---- thinwire/nn/decoder.hpp
#ifndef THINWIRE_NN_DECODER_HPP
#define THINWIRE_NN_DECODER_HPP

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace thinwire::nn {

/// Extends one sequence token by token, keeping the keys and values of what it has seen. Computes with the weights of
/// a model that outlives it; after those change, reset(). Used by one thread at a time.
template <backend B>
class decoder {
 public:
    /// Room for `capacity` tokens. Throws shape_error beyond max_position_embeddings: positions past it were never
    /// trained, so the sequence is refused rather than silently cut.
    decoder(transformer<B>& model, int capacity)
        : model_(model), backend_(model.context().backend), config_(model.config()), capacity_(capacity) {
        (void)model.positions(1, 1, capacity - 1);
        const std::size_t size = cache_offset(config_.num_hidden_layers, 0, 0);
        keys_ = backend_.allocate(size);
        values_ = backend_.allocate(size);
        scores_ = backend_.allocate(detail::elements(group(), capacity));
        weights_.resize(detail::elements(group(), capacity));
        next_.resize(static_cast<std::size_t>(config_.vocab_size));
    }

    /// Forgets everything seen.
    void reset() noexcept { length_ = 0; }
    [[nodiscard]] int length() const noexcept { return length_; }

    /// Appends tokens and returns the scores of the one that comes next, valid until the next call. Throws
    /// shape_error when there is no room or nothing to append, value_error for a token outside the vocabulary.
    std::span<const float> extend(std::span<const std::int32_t> tokens) {
        const auto room = static_cast<std::size_t>(capacity_ - length_);
        if (tokens.empty() || tokens.size() > room)
            throw shape_error("decoder: " + std::to_string(tokens.size()) + " tokens, expected 1 to " +
                              std::to_string(room));
        const int rows = static_cast<int>(tokens.size());
        const row_positions at = model_.positions(rows, rows, length_);
        const layer_context<B> c = model_.context();
        workspace_.prepare(backend_, config_, {.rows = rows, .logit_rows = 1, .backward = false});
        model_.embed(workspace_.layer(0).input, workspace_.scratch(), tokens, at);
        for (int i = 0; i < config_.num_hidden_layers; ++i) {
            layer_activations& a = workspace_.layer(static_cast<std::size_t>(i));
            block_forward(c, c.plan.layers()[static_cast<std::size_t>(i)], a, a.input, workspace_.scratch(), at,
                          [&] { attend(i, a, rows); });
        }
        const float* last = workspace_.layer(0).input + detail::elements(rows - 1, config_.hidden_size);
        norm_forward(c, c.plan.final_norm(), workspace_.normed(), workspace_.mean(), workspace_.rstd(), last, 1);
        linear_forward(c, c.plan.head(), workspace_.logits(), workspace_.normed(), 1);
        backend_.download(next_, workspace_.logits());
        length_ += rows;
        return next_;
    }

 private:
    /// Query heads that share a key head; they lie side by side.
    [[nodiscard]] int group() const noexcept { return config_.num_attention_heads / config_.num_key_value_heads; }

    /// The cache is [layers, key heads, capacity, head_dim].
    [[nodiscard]] std::size_t cache_offset(int layer, int head, int position) const noexcept {
        return detail::elements(layer * config_.num_key_value_heads + head, capacity_) *
                   static_cast<std::size_t>(config_.head_dim) +
               detail::elements(position, config_.head_dim);
    }

    /// Attention of the new rows over the cache and themselves.
    void attend(int layer, layer_activations& a, int rows) {
        const attention_shape s = attention_of(config_, 1, rows);
        const auto width = static_cast<std::size_t>(s.head_dim);
        for (int r = 0; r < rows; ++r)
            for (int h = 0; h < s.kv_heads; ++h) {
                const std::size_t from = detail::elements(r, s.kv_stride) + detail::elements(h, s.head_dim);
                backend_.copy(keys_.data() + cache_offset(layer, h, length_ + r), a.key + from, width);
                backend_.copy(values_.data() + cache_offset(layer, h, length_ + r), a.value + from, width);
            }
        for (int r = 0; r < rows; ++r)
            for (int h = 0; h < s.kv_heads; ++h) {
                const std::size_t head = detail::elements(h * group(), s.head_dim);
                const int seen = length_ + r + 1;
                backend_.matmul(scores_.data(), a.query + detail::elements(r, s.q_stride) + head,
                                keys_.data() + cache_offset(layer, h, 0), group(), seen, s.head_dim, false, true,
                                false);
                softmax(seen);
                backend_.matmul(a.attended + detail::elements(r, s.o_stride) + head, scores_.data(),
                                values_.data() + cache_offset(layer, h, 0), group(), s.head_dim, seen, false, false,
                                false);
            }
    }

    /// softmax(scores / sqrt(head_dim)) of `group` rows of `seen` scores, on the host.
    void softmax(int seen) {
        const std::span<float> all(weights_.data(), detail::elements(group(), seen));
        backend_.download(all, scores_.data());
        const float scale = 1.0F / std::sqrt(static_cast<float>(config_.head_dim));
        for (int g = 0; g < group(); ++g) {
            const std::span<float> row = all.subspan(detail::elements(g, seen), static_cast<std::size_t>(seen));
            const float largest = *std::max_element(row.begin(), row.end());
            float total = 0;
            for (float& x : row) total += x = std::exp((x - largest) * scale);
            for (float& x : row) x /= total;
        }
        backend_.upload(scores_.data(), all);
    }

    transformer<B>& model_;
    B& backend_;
    const transformer_config& config_;
    int capacity_;
    int length_ = 0;
    typename B::buffer keys_{}, values_{}, scores_{};
    std::vector<float> weights_;
    std::vector<float> next_;
    workspace<B> workspace_;
};

}  // namespace thinwire::nn

#endif  // THINWIRE_NN_DECODER_HPP

// ---- thinwire/nn/sampling.hpp
#ifndef THINWIRE_NN_SAMPLING_HPP
#define THINWIRE_NN_SAMPLING_HPP

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <vector>

namespace thinwire::nn {

struct sampling_options {
    float temperature = 0.8F;  ///< 0: always the likeliest token
    int top_k = 0;             ///< only the k likeliest tokens; 0: all
    float top_p = 1.0F;        ///< only the likeliest tokens that together have this probability
    std::uint64_t seed = 0;    ///< same seed, prompt and weights: same text
};

/// Throws value_error naming the option that is wrong.
inline void check(const sampling_options& o) {
    const auto complain = [](const std::string& what, const std::string& expected) {
        throw value_error("sampling_options: " + what + ", expected " + expected);
    };
    if (!(o.temperature >= 0) || !std::isfinite(o.temperature))
        complain("temperature is " + std::to_string(o.temperature), "a number of at least 0");
    if (o.top_k < 0) complain("top_k is " + std::to_string(o.top_k), "at least 0");
    if (!(o.top_p > 0 && o.top_p <= 1)) complain("top_p is " + std::to_string(o.top_p), "above 0 and at most 1");
}

/// One token drawn from softmax(scores / temperature), cut to top_k and then top_p; ties go to the lower token.
/// `uniform` is in [0, 1). Precondition: scores not empty, options checked.
[[nodiscard]] inline std::int32_t choose_token(std::span<const float> scores, const sampling_options& options,
                                               float uniform) {
    if (options.temperature == 0.0F)
        return static_cast<std::int32_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
    std::vector<std::int32_t> order(scores.size());
    std::iota(order.begin(), order.end(), 0);
    const auto score = [&](std::int32_t token) { return scores[static_cast<std::size_t>(token)]; };
    std::sort(order.begin(), order.end(),
              [&](std::int32_t a, std::int32_t b) { return score(a) > score(b) || (score(a) == score(b) && a < b); });
    if (options.top_k > 0) order.resize(std::min(order.size(), static_cast<std::size_t>(options.top_k)));
    std::vector<double> weight;
    weight.reserve(order.size());
    for (const std::int32_t token : order)
        weight.push_back(std::exp((static_cast<double>(score(token)) - static_cast<double>(score(order.front()))) /
                                  static_cast<double>(options.temperature)));
    const double all = std::accumulate(weight.begin(), weight.end(), 0.0);
    std::size_t kept = 0;
    double total = 0;
    while (kept < weight.size() && (kept == 0 || total < static_cast<double>(options.top_p) * all))
        total += weight[kept++];
    double left = static_cast<double>(uniform) * total;
    for (std::size_t i = 0; i < kept; ++i) {
        left -= weight[i];
        if (left < 0) return order[i];
    }
    return order[kept - 1];
}

/// Extends `prompt` by `count` tokens and returns those. Throws value_error for bad options, an empty prompt, a
/// negative count or a token outside the vocabulary, and shape_error when prompt and tokens together are longer than
/// max_position_embeddings.
template <backend B>
[[nodiscard]] std::vector<std::int32_t> generate(transformer<B>& model, std::span<const std::int32_t> prompt, int count,
                                                 sampling_options options) {
    check(options);
    if (prompt.empty()) throw value_error("generate: an empty prompt, expected at least 1 token");
    if (count < 0) throw value_error("generate: count is " + std::to_string(count) + ", expected at least 0");
    const std::size_t length = prompt.size() + static_cast<std::size_t>(count);
    const int limit = model.config().max_position_embeddings;
    if (length > static_cast<std::size_t>(limit))
        throw shape_error("generate: prompt of " + std::to_string(prompt.size()) + " and " + std::to_string(count) +
                          " tokens, expected at most " + std::to_string(limit) + " together (max_position_embeddings)");
    std::vector<std::int32_t> made;
    if (count == 0) return made;
    decoder<B> sequence(model, static_cast<int>(length));
    random_stream random(options.seed);
    std::span<const float> scores = sequence.extend(prompt);
    for (;;) {
        made.push_back(choose_token(scores, options, random.uniform()));
        if (made.size() == static_cast<std::size_t>(count)) return made;
        scores = sequence.extend(std::span(&made.back(), 1));
    }
}

}  // namespace thinwire::nn

#endif  // THINWIRE_NN_SAMPLING_HPP

// ---- thinwire/optim/detail/parallel.hpp
#ifndef THINWIRE_OPTIM_DETAIL_PARALLEL_HPP
#define THINWIRE_OPTIM_DETAIL_PARALLEL_HPP

#include <atomic>
#include <cstddef>
#include <exception>

namespace thinwire::detail {

/// Threads that for_each_item() uses, and so the number of lanes of working memory it needs.
[[nodiscard]] inline std::size_t lane_count(const thread_pool* pool) noexcept {
    return pool == nullptr ? 1 : static_cast<std::size_t>(pool->size());
}

/// Calls task(lane, item) once for every item, in standard_float_mode; no two calls with the same lane run at once.
/// What a call throws passes through when all others are done: the first of several.
template <class Task>
void for_each_item(thread_pool* pool, std::size_t items, const Task& task) {
    std::atomic_flag failed = ATOMIC_FLAG_INIT;
    std::exception_ptr first;
    const auto call = [&](std::size_t lane, std::size_t item) noexcept {
        try {
            task(lane, item);
        } catch (...) {
            if (!failed.test_and_set()) first = std::current_exception();
        }
    };
    if (lane_count(pool) == 1) {
        const standard_float_mode mode;
        for (std::size_t i = 0; i < items; ++i) call(0, i);
    } else {
        std::atomic<std::size_t> next{0};
        pool->parallel_for(lane_count(pool), [&](std::size_t lane) {
            const standard_float_mode mode;
            for (std::size_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < items;) call(lane, i);
        });
    }
    if (first != nullptr) std::rethrow_exception(first);
}

}  // namespace thinwire::detail

#endif  // THINWIRE_OPTIM_DETAIL_PARALLEL_HPP

// ---- thinwire/transform/dct.hpp
#ifndef THINWIRE_TRANSFORM_DCT_HPP
#define THINWIRE_TRANSFORM_DCT_HPP

#include <cstdint>

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
        term = -(((term * square) >> 30U) / (std::int64_t{n} * (n + 1)));
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

namespace detail {

/// sqrt((frequency == 0 ? 1 : 2) / scale_side) * cos(pi * (2 * position + 1) * frequency / (2 * side)), times 2^22,
/// rounded to an integer, magnitudes alike for either sign. With integer arithmetic alone.
[[nodiscard]] constexpr std::int64_t scaled_cosine(std::int64_t scale_side, std::int64_t side, std::int64_t frequency,
                                                   std::int64_t position) noexcept {
    if (scale_side == 1) return std::int64_t{1} << basis_bits;
    const std::uint64_t power =
        (std::uint64_t{1} << (frequency == 0 ? 60U : 61U)) / static_cast<std::uint64_t>(scale_side);
    const auto scale = static_cast<std::int64_t>(integer_sqrt(power));  // 30 fraction bits
    const std::int64_t cosine = integer_cos((2 * position + 1) * frequency, side);
    const std::int64_t product = scale * (cosine < 0 ? -cosine : cosine);
    const std::int64_t rounded = (product + (std::int64_t{1} << (59 - basis_bits))) >> (60 - basis_bits);
    return cosine < 0 ? -rounded : rounded;
}

}  // namespace detail

/// Entry (frequency, position) of the orthonormal DCT-II of a side, times 2^22, rounded to an integer:
/// s * cos(pi * (2 * position + 1) * frequency / (2 * side)), s = sqrt(1/side) for frequency 0, else sqrt(2/side).
/// Computed with integer arithmetic alone, so that every compiler, flag and math library gives the same table.
/// Precondition: frequency, position < side <= 256.
[[nodiscard]] constexpr std::int64_t dct_entry(std::int64_t side, std::int64_t frequency,
                                               std::int64_t position) noexcept {
    return detail::scaled_cosine(side, side, frequency, position);
}

}  // namespace thinwire

#endif  // THINWIRE_TRANSFORM_DCT_HPP

// ---- thinwire/transform/orthogonal.hpp
#ifndef THINWIRE_TRANSFORM_ORTHOGONAL_HPP
#define THINWIRE_TRANSFORM_ORTHOGONAL_HPP

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

// ---- thinwire/transform/basis.hpp
#ifndef THINWIRE_TRANSFORM_BASIS_HPP
#define THINWIRE_TRANSFORM_BASIS_HPP

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace thinwire {

/// Which orthonormal matrix a chunk is multiplied with from either side.
enum class basis_kind : std::uint8_t { dct = 0, hadamard = 1, random_orthogonal = 2, identity = 3, custom = 4 };

[[nodiscard]] constexpr std::string_view to_string(basis_kind kind) noexcept {
    constexpr std::string_view names[] = {"dct", "hadamard", "random_orthogonal", "identity", "custom"};
    return names[static_cast<std::size_t>(kind)];
}

/// Fills the table of a side, side * side entries: table[frequency * side + position] = the entry of the orthonormal
/// matrix times 2^basis_bits, rounded. Must give the same integers on every peer of a run.
using basis_function = std::function<void(std::size_t side, std::span<std::int32_t> table)>;

/// An orthonormal matrix for every side from 1 to 256: the transform of a chunk is rows * chunk * transpose(cols).
///
/// The matrix is DEFINED by its integer table (basis_bits fraction bits), made with integer arithmetic alone, so that
/// replicas agree on it bit for bit; faster ways to multiply with it are chosen by the kind. A plain value; reading it
/// from several threads is safe.
class basis {
 public:
    /// The DCT-II, as the published code uses it.
    basis() noexcept = default;
    [[nodiscard]] static basis dct() noexcept { return {}; }
    /// Walsh-Hadamard in Paley's order, in which a row's number grows with its frequency. A side that is 2^p * q, q
    /// odd: 2^p blocks of the DCT-II of q, joined by a Hadamard matrix (q = side: the DCT).
    [[nodiscard]] static basis hadamard() noexcept { return basis(basis_kind::hadamard, 0, false); }
    /// Drawn uniformly from the orthogonal matrices, one for each side; with `each_round`, a new one for every round,
    /// tensor, axis and side: regions of a tensor share it along an axis where their chunks have equal sides.
    [[nodiscard]] static basis random_orthogonal(std::uint64_t seed, bool each_round = false) noexcept {
        return basis(basis_kind::random_orthogonal, seed, each_round);
    }
    /// No transform: the largest elements of the momentum are sent.
    [[nodiscard]] static basis identity() noexcept { return basis(basis_kind::identity, 0, false); }
    /// The integrator's own. Throws value_error when `fill` is empty.
    [[nodiscard]] static basis custom(basis_function fill) {
        if (!fill) throw value_error("basis::custom: an empty function, expected one that fills the table of a side");
        basis b(basis_kind::custom, 0, false);
        b.fill_ = std::move(fill);
        return b;
    }

    [[nodiscard]] basis_kind kind() const noexcept { return kind_; }
    [[nodiscard]] std::uint64_t seed() const noexcept { return seed_; }
    /// Whether the tables depend on round, tensor and axis.
    [[nodiscard]] bool each_round() const noexcept { return each_round_; }

    /// What a table depends on besides the side, where each_round() is true.
    struct place {
        std::uint64_t round = 0;
        std::uint64_t tensor = 0;
        std::uint32_t axis = 0;  ///< 0: rows of a chunk, 1: columns
    };

    /// The table of a side: entry (frequency, position) at frequency * side + position.
    /// Throws value_error when the side is not within 1..256, or when a custom function's table is not orthonormal.
    [[nodiscard]] std::vector<std::int32_t> table(std::size_t side, const place& at) const {
        std::vector<std::int32_t> out(side <= 256 ? side * side : 0);
        write_table(side, at, out);
        return out;
    }
    [[nodiscard]] std::vector<std::int32_t> table(std::size_t side) const { return table(side, place{}); }
    /// The same into memory of the caller: side * side entries.
    void write_table(std::size_t side, const place& at, std::span<std::int32_t> out) const {
        if (side < 1 || side > 256) throw value_error("basis: side " + std::to_string(side) + ", expected 1..256");
        if (kind_ == basis_kind::random_orthogonal) {
            const std::uint64_t stream = each_round_ ? (2 * at.tensor + at.axis) << 9U | side : side;
            fill_random_orthogonal(seed_ + (each_round_ ? 0x9E3779B97F4A7C15U * (at.round + 1) : 0), stream, side, out);
        } else if (kind_ == basis_kind::custom) {
            fill_(side, out);
            require_orthonormal(side, out);
        } else {
            fill_regular(side, out);
        }
    }

 private:
    basis(basis_kind kind, std::uint64_t seed, bool each_round) noexcept
        : kind_(kind), each_round_(each_round), seed_(seed) {}

    void fill_regular(std::size_t side, std::span<std::int32_t> out) const {
        for (std::size_t f = 0; f < side; ++f)
            for (std::size_t x = 0; x < side; ++x) {
                std::int64_t entry = f == x ? std::int64_t{1} << basis_bits : 0;
                if (kind_ == basis_kind::dct)
                    entry = dct_entry(static_cast<std::int64_t>(side), static_cast<std::int64_t>(f),
                                      static_cast<std::int64_t>(x));
                if (kind_ == basis_kind::hadamard) entry = hadamard_entry(side, f, x);
                out[f * side + x] = static_cast<std::int32_t>(entry);
            }
    }

    /// Rows that are roundings of orthonormal ones pass: their products are off by 2^26 + 64 at most.
    static void require_orthonormal(std::size_t side, std::span<const std::int32_t> table) {
        for (std::size_t f = 0; f < side; ++f) {
            for (std::size_t g = 0; g <= f; ++g) {
                std::int64_t product = f == g ? -(std::int64_t{1} << (2 * basis_bits)) : 0;
                for (std::size_t x = 0; x < side; ++x) {
                    const std::int64_t a = table[f * side + x], b = table[g * side + x];
                    if (a > (1 << basis_bits) || a < -(1 << basis_bits))
                        throw value_error("basis: entry " + std::to_string(a) + " of side " + std::to_string(side) +
                                          ", expected at most 2^22 in magnitude");
                    product += a * b;
                }
                if (product > (1 << 27) || product < -(1 << 27))
                    throw value_error("basis: rows " + std::to_string(g) + " and " + std::to_string(f) + " of side " +
                                      std::to_string(side) + " are " +
                                      std::to_string(static_cast<double>(product) * 0x1p-44) +
                                      " from orthonormal, expected within 2^-17");
            }
        }
    }

    basis_kind kind_ = basis_kind::dct;
    bool each_round_ = false;
    std::uint64_t seed_ = 0;
    basis_function fill_;
};

}  // namespace thinwire

#endif  // THINWIRE_TRANSFORM_BASIS_HPP

// ---- thinwire/transform/basis_tables.hpp
#ifndef THINWIRE_TRANSFORM_BASIS_TABLES_HPP
#define THINWIRE_TRANSFORM_BASIS_TABLES_HPP

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <span>

namespace thinwire {

/// What the kernels multiply with along one side. Of the DCT, row `f`, column `x` mirrors: entry(f, side-1-x) =
/// (-1)^f entry(f, x), so half of each row is enough and halves the work.
class basis_tables {
 public:
    /// Precondition: `table` is what basis::table() gave for this kind and side.
    basis_tables(basis_kind kind, std::size_t side, std::span<const std::int32_t> table)
        : side_(side),
          mirrored_(kind == basis_kind::dct),
          fast_((mirrored_ || kind == basis_kind::hadamard) && (side == 32 || side == 64)),
          identity_(kind == basis_kind::identity),
          half_(round_up((side + 1) / 2)),
          full_(round_up(side)) {
        synthesis_.resize(side * full_);
        exact_.resize(side * full_);
        if (mirrored_) {
            for (auto* t : {&analysis_even_, &analysis_odd_, &rows_even_, &rows_odd_}) t->resize(half_ * half_);
            synthesis_half_.resize(side * half_);
            exact_half_.resize(side * half_);
        } else {
            analysis_.resize(side * full_);
        }
        assign(table);
    }

    /// Takes another matrix of the same kind and side.
    void assign(std::span<const std::int32_t> table) noexcept {
        for (std::size_t f = 0; f < side_; ++f)
            for (std::size_t x = 0; x < side_; ++x) put(f, x, table[f * side_ + x]);
    }

    [[nodiscard]] std::size_t side() const noexcept { return side_; }
    [[nodiscard]] bool mirrored() const noexcept { return mirrored_; }
    /// ceil(side / 2) and side, rounded up to the width of the tables' rows: multiples of 16.
    [[nodiscard]] std::size_t half() const noexcept { return half_; }
    [[nodiscard]] std::size_t full() const noexcept { return full_; }

    /// Whether this is a DCT or Walsh-Hadamard transform with a fast algorithm, used where both sides of a chunk have
    /// one or the chunk is one row.
    [[nodiscard]] bool fast() const noexcept { return fast_; }
    /// Precondition: fast(). The side is 2^shift.
    [[nodiscard]] unsigned shift() const noexcept { return side_ == 64 ? 6 : 5; }
    [[nodiscard]] bool identity() const noexcept { return identity_; }
    /// Numbers that the kernels store for one row of a spectrum.
    [[nodiscard]] std::size_t spectrum_width() const noexcept { return mirrored_ ? 2 * half_ : full_; }

    /// Mirrored: [frequency / 2][position] for even or odd frequencies, position < ceil(side / 2).
    [[nodiscard]] const float* rows(bool odd) const noexcept { return (odd ? rows_odd_ : rows_even_).data(); }
    /// Mirrored: [position][frequency / 2] for even or odd frequencies.
    [[nodiscard]] const float* analysis(bool odd) const noexcept {
        return (odd ? analysis_odd_ : analysis_even_).data();
    }
    /// Not mirrored: [position][frequency].
    [[nodiscard]] const float* analysis() const noexcept { return analysis_.data(); }

    /// [frequency][position], rows of full() and, mirrored, of half() entries; as float32, or as integers times 2^22 in
    /// doubles.
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
    [[nodiscard]] std::size_t memory_bytes() const noexcept {
        return bytes_held(analysis_even_, analysis_odd_, rows_even_, rows_odd_, synthesis_, synthesis_half_, analysis_,
                          exact_, exact_half_);
    }

 private:
    [[nodiscard]] static constexpr std::size_t round_up(std::size_t n) noexcept { return (n + 15) / 16 * 16; }

    void put(std::size_t f, std::size_t x, std::int32_t entry) noexcept {
        const auto exact = static_cast<double>(entry);
        exact_[f * full_ + x] = exact;
        if (!mirrored_) {
            synthesis_[f * full_ + x] = analysis_[x * full_ + f] = static_cast<float>(exact * 0x1p-22);
            return;
        }
        const auto n = static_cast<double>(side_);
        const double angle = std::numbers::pi * static_cast<double>((2 * x + 1) * f) / (2.0 * n);
        const auto value = static_cast<float>(std::sqrt((f == 0 ? 1.0 : 2.0) / n) * std::cos(angle));
        synthesis_[f * full_ + x] = value;
        if (x >= (side_ + 1) / 2) return;
        synthesis_half_[f * half_ + x] = value;
        exact_half_[f * half_ + x] = exact;
        (f % 2 == 0 ? rows_even_ : rows_odd_)[f / 2 * half_ + x] = value;
        (f % 2 == 0 ? analysis_even_ : analysis_odd_)[x * half_ + f / 2] = value;
    }

    std::size_t side_;
    bool mirrored_, fast_, identity_;
    std::size_t half_, full_;
    aligned_vector<float> analysis_even_, analysis_odd_, rows_even_, rows_odd_, synthesis_, synthesis_half_, analysis_;
    aligned_vector<double> exact_, exact_half_;
};

/// Where the forward transform of a chunk leaves its coefficients: by columns after the fast transform of both sides;
/// in order where the chunk is one row of it; else by rows, of the DCT even columns first.
struct spectrum_layout {
    const basis_tables& rows;
    const basis_tables& cols;

    [[nodiscard]] bool fast() const noexcept { return rows.fast() && cols.fast(); }
    /// Whether chunks are single rows that are transformed together.
    [[nodiscard]] bool line() const noexcept { return rows.side() == 1 && cols.fast(); }
    /// Numbers stored, some of which may be no coefficients.
    [[nodiscard]] std::size_t size() const noexcept {
        if (line()) return cols.side();
        return rows.side() * (fast() ? cols.side() : cols.spectrum_width());
    }
    /// Where the coefficient of a position (row * width + column) is stored.
    [[nodiscard]] std::size_t place(std::size_t position) const noexcept {
        if (line()) return position;
        if (fast()) return (position & (cols.side() - 1)) << rows.shift() | position >> cols.shift();
        const std::size_t row = position / cols.side(), column = position % cols.side();
        const std::size_t at = cols.mirrored() ? column % 2 * cols.half() + column / 2 : column;
        return row * cols.spectrum_width() + at;
    }
    /// The position that is stored at a place; 2^16 where there is none.
    [[nodiscard]] std::uint32_t position(std::size_t place) const noexcept {
        if (line()) return static_cast<std::uint32_t>(place);
        if (fast())
            return static_cast<std::uint32_t>((place & (rows.side() - 1)) << cols.shift() | place >> rows.shift());
        const std::size_t width = cols.spectrum_width(), at = place % width, half = cols.half();
        const std::size_t column = !cols.mirrored() ? at : at < half ? 2 * at : 2 * (at - half) + 1;
        return column < cols.side() ? static_cast<std::uint32_t>(place / width * cols.side() + column) : 0x10000U;
    }
};

}  // namespace thinwire

#endif  // THINWIRE_TRANSFORM_BASIS_TABLES_HPP

// ---- thinwire/transform/detail/small_gemm.hpp
#ifndef THINWIRE_TRANSFORM_DETAIL_SMALL_GEMM_HPP
#define THINWIRE_TRANSFORM_DETAIL_SMALL_GEMM_HPP

#include <cstddef>
#include <cstdint>

namespace thinwire::detail {

/// A vector of `Lanes` elements that may lie at any address. One lane is the plain type.
template <class T, int Lanes>
struct vector_of {
    typedef T type __attribute__((vector_size(Lanes * sizeof(T)), aligned(alignof(T)), may_alias));
};
template <class T>
struct vector_of<T, 1> {
    using type = T;
};

/// The same vector as a local variable, aligned as its registers like it.
template <class T, int Lanes>
struct local_vector {
    typedef T type __attribute__((vector_size(Lanes * sizeof(T))));
};

/// One block of gemm(): Rows x (Vectors * Lanes) results held in registers.
template <class T, int Lanes, int Rows, int Vectors>
THINWIRE_ALWAYS_INLINE void gemm_block(const T* a, std::size_t a_row, std::size_t a_depth, const T* b,
                                       const std::uint32_t* b_at, std::size_t depth, T* c, std::size_t c_row) {
    using vec = typename vector_of<T, Lanes>::type;
    vec sum[Rows][Vectors] = {};
    for (std::size_t d = 0; d < depth; ++d) {
        const T* row = b + b_at[d];
#pragma GCC unroll 8
        for (int v = 0; v < Vectors; ++v) {
            const vec entry = *reinterpret_cast<const vec*>(row + v * Lanes);
#pragma GCC unroll 8
            for (int r = 0; r < Rows; ++r) sum[r][v] += a[static_cast<std::size_t>(r) * a_row + d * a_depth] * entry;
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < Vectors; ++v)
            *reinterpret_cast<vec*>(c + static_cast<std::size_t>(r) * c_row + v * Lanes) = sum[r][v];
}

/// c[r][x] = sum over d of a[r * a_row + d * a_depth] * b[b_at[d] + x], for r < rows, x < cols.
/// cols is a multiple of Lanes. c overlaps neither a nor b. Every c[r][x] is summed in the order of d.
template <class T, int Lanes>
THINWIRE_ALWAYS_INLINE void gemm(const T* a, std::size_t a_row, std::size_t a_depth, const T* b,
                                 const std::uint32_t* b_at, std::size_t depth, T* c, std::size_t c_row,
                                 std::size_t rows, std::size_t cols) {
    constexpr std::size_t lanes = Lanes;
    std::size_t x = 0;
    for (; x + 2 * lanes <= cols; x += 2 * lanes) {
        std::size_t r = 0;
        for (; r + 4 <= rows; r += 4)
            gemm_block<T, Lanes, 4, 2>(a + r * a_row, a_row, a_depth, b + x, b_at, depth, c + r * c_row + x, c_row);
        for (; r < rows; ++r)
            gemm_block<T, Lanes, 1, 2>(a + r * a_row, a_row, a_depth, b + x, b_at, depth, c + r * c_row + x, c_row);
    }
    for (; x < cols; x += lanes) {
        std::size_t r = 0;
        for (; r + 4 <= rows; r += 4)
            gemm_block<T, Lanes, 4, 1>(a + r * a_row, a_row, a_depth, b + x, b_at, depth, c + r * c_row + x, c_row);
        for (; r < rows; ++r)
            gemm_block<T, Lanes, 1, 1>(a + r * a_row, a_row, a_depth, b + x, b_at, depth, c + r * c_row + x, c_row);
    }
}

}  // namespace thinwire::detail

#endif  // THINWIRE_TRANSFORM_DETAIL_SMALL_GEMM_HPP

// ---- thinwire/transform/detail/fast_dct.hpp
#ifndef THINWIRE_TRANSFORM_DETAIL_FAST_DCT_HPP
#define THINWIRE_TRANSFORM_DETAIL_FAST_DCT_HPP

#include <array>
#include <cstddef>
#include <cstdint>

namespace thinwire::detail {

/// cos((2 n + 1) pi / (4 M)) and the sine of the same angle, n < M / 2.
template <std::size_t M>
struct rotation_table {
    std::array<float, M / 2> cosine{}, sine{};
    constexpr rotation_table() noexcept {
        for (std::size_t n = 0; n < M / 2; ++n) {
            const auto angle = static_cast<std::int64_t>(2 * n + 1), side = static_cast<std::int64_t>(2 * M);
            cosine[n] = static_cast<float>(static_cast<double>(integer_cos(angle, side)) * 0x1p-30);
            sine[n] = static_cast<float>(static_cast<double>(integer_cos(side - angle, side)) * 0x1p-30);
        }
    }
};
template <std::size_t M>
inline constexpr rotation_table<M> rotations{};

template <std::size_t N, class Vec>
THINWIRE_ALWAYS_INLINE void fast_dct2(Vec (&x)[N]);

/// x[k] <- sum over n of x[n] cos(pi (2 n + 1) (2 k + 1) / (4 M)): rotations by at most a right angle and two DCT-II of
/// half the size (Plonka and Tasche, Linear Algebra Appl. 394, 2005), so that rounding is not amplified.
template <std::size_t M, class Vec>
THINWIRE_ALWAYS_INLINE void fast_dct4(Vec (&x)[M]) {
    if constexpr (M == 1) {
        x[0] *= 0.70710678F;
    } else {
        constexpr std::size_t half = M / 2;
        Vec u[half], v[half];
#pragma GCC unroll 64
        for (std::size_t n = 0; n < half; ++n) {
            const Vec a = x[n], b = x[M - 1 - n];
            const float c = rotations<M>.cosine[n], s = rotations<M>.sine[n];
            u[n] = a * c + b * s;
            v[n] = n % 2 == 0 ? b * c - a * s : a * s - b * c;
        }
        fast_dct2(u);
        fast_dct2(v);
        x[0] = u[0];
        x[M - 1] = -v[0];
#pragma GCC unroll 64
        for (std::size_t j = 1; j < half; ++j) {
            x[2 * j] = u[j] + v[half - j];
            x[2 * j - 1] = u[j] - v[half - j];
        }
    }
}

/// x[f] <- sum over n of x[n] cos(pi (2 n + 1) f / (2 N)), in every lane. N is a power of two.
template <std::size_t N, class Vec>
THINWIRE_ALWAYS_INLINE void fast_dct2(Vec (&x)[N]) {
    if constexpr (N > 1) {
        Vec even[N / 2], odd[N / 2];
#pragma GCC unroll 64
        for (std::size_t n = 0; n < N / 2; ++n) {
            even[n] = x[n] + x[N - 1 - n];
            odd[n] = x[n] - x[N - 1 - n];
        }
        fast_dct2(even);
        fast_dct4(odd);
#pragma GCC unroll 64
        for (std::size_t f = 0; f < N / 2; ++f) {
            x[2 * f] = even[f];
            x[2 * f + 1] = odd[f];
        }
    }
}

/// 1, which the compiler must not know.
inline const volatile float unknown_one = 1.0F;

/// a <- a + b and b <- a - b. Vectors of 512 bits take `one`, ones from unknown_one: a product with it goes to the
/// units that multiply, where it adds as exactly, so that those and the ones that add share the work.
template <class Vec>
THINWIRE_ALWAYS_INLINE void butterfly(Vec& a, Vec& b, const Vec& one) {
    const Vec difference = a - b;
    if constexpr (sizeof(Vec) == 64)
        a = a * one + b;
    else
        a = a + b;
    b = difference;
}

/// x[f] <- sum over n of (-1)^(bits that the bits of n, reversed, share with f) x[n]: Walsh-Hadamard in Paley's order.
template <std::size_t N, class Vec>
THINWIRE_ALWAYS_INLINE void fast_walsh(Vec (&x)[N], const Vec& one) {
    if constexpr (N > 1) {
        Vec even[N / 2], odd[N / 2];
#pragma GCC unroll 64
        for (std::size_t n = 0; n < N / 2; ++n) {
            even[n] = x[n];
            odd[n] = x[n + N / 2];
            butterfly(even[n], odd[n], one);
        }
        fast_walsh(even, one);
        fast_walsh(odd, one);
#pragma GCC unroll 64
        for (std::size_t f = 0; f < N / 2; ++f) {
            x[2 * f] = even[f];
            x[2 * f + 1] = odd[f];
        }
    }
}

/// The orthonormal DCT-II or, with Walsh, the Walsh-Hadamard transform along the N rows of `in`, for as many columns as
/// a vector has lanes. The two may be the same memory.
template <std::size_t N, int Lanes, bool Walsh>
THINWIRE_ALWAYS_INLINE void fast_columns(const float* in, std::size_t in_stride, float* out, std::size_t out_stride) {
    using vec = typename vector_of<float, Lanes>::type;
    using local = typename local_vector<float, Lanes>::type;
    constexpr auto scale =
        static_cast<float>(static_cast<double>(integer_sqrt((std::uint64_t{1} << (Walsh ? 60U : 61U)) / N)) * 0x1p-30);
    constexpr float first = Walsh ? scale : scale * 0.70710678F;
    local even[N / 2], odd[N / 2], one = {};
    if constexpr (Walsh) one += unknown_one;
#pragma GCC unroll 64
    for (std::size_t n = 0; n < N / 2; ++n) {
        even[n] = *reinterpret_cast<const vec*>(in + n * in_stride);
        odd[n] = *reinterpret_cast<const vec*>(in + (Walsh ? n + N / 2 : N - 1 - n) * in_stride);
        if constexpr (Walsh) {
            butterfly(even[n], odd[n], one);
        } else {
            const local sum = even[n] + odd[n];
            odd[n] = even[n] - odd[n];
            even[n] = sum;
        }
    }
    if constexpr (Walsh)
        fast_walsh(even, one);
    else
        fast_dct2(even);
    *reinterpret_cast<vec*>(out) = even[0] * first;
#pragma GCC unroll 64
    for (std::size_t f = 1; f < N / 2; ++f) *reinterpret_cast<vec*>(out + 2 * f * out_stride) = even[f] * scale;
    if constexpr (Walsh)
        fast_walsh(odd, one);
    else
        fast_dct4(odd);
#pragma GCC unroll 64
    for (std::size_t f = 0; f < N / 2; ++f) *reinterpret_cast<vec*>(out + (2 * f + 1) * out_stride) = odd[f] * scale;
}

/// out[x][y] = in[y][x]; rows, cols and both strides are multiples of 4.
THINWIRE_ALWAYS_INLINE void transpose_quads(const float* in, std::size_t in_stride, float* out, std::size_t out_stride,
                                            std::size_t rows, std::size_t cols) {
    using vec = vector_of<float, 4>::type;
    for (std::size_t y = 0; y < rows; y += 4) {
        for (std::size_t x = 0; x < cols; x += 4) {
            const float* from = in + y * in_stride + x;
            const vec a = *reinterpret_cast<const vec*>(from);
            const vec b = *reinterpret_cast<const vec*>(from + in_stride);
            const vec c = *reinterpret_cast<const vec*>(from + 2 * in_stride);
            const vec d = *reinterpret_cast<const vec*>(from + 3 * in_stride);
            const vec ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
            const vec high_ab = __builtin_shufflevector(a, b, 2, 6, 3, 7),
                      high_cd = __builtin_shufflevector(c, d, 2, 6, 3, 7);
            float* to = out + x * out_stride + y;
            *reinterpret_cast<vec*>(to) = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
            *reinterpret_cast<vec*>(to + out_stride) = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
            *reinterpret_cast<vec*>(to + 2 * out_stride) = __builtin_shufflevector(high_ab, high_cd, 0, 1, 4, 5);
            *reinterpret_cast<vec*>(to + 3 * out_stride) = __builtin_shufflevector(high_ab, high_cd, 2, 3, 6, 7);
        }
    }
}

/// The same where rows and cols are multiples of 8. Upper and lower halves are joined as they are loaded, which takes
/// no shuffle.
THINWIRE_ALWAYS_INLINE void transpose_eights(const float* in, std::size_t in_stride, float* out, std::size_t out_stride,
                                             std::size_t rows, std::size_t cols) {
    using quad = vector_of<float, 4>::type;
    using vec = local_vector<float, 8>::type;
    using stored = vector_of<float, 8>::type;
    for (std::size_t y = 0; y < rows; y += 8)
        for (std::size_t x = 0; x < cols; x += 4) {
            vec row[4];  // four columns of rows y + i and y + i + 4
#pragma GCC unroll 4
            for (std::size_t i = 0; i < 4; ++i) {
                const float* from = in + (y + i) * in_stride + x;
                const quad upper = *reinterpret_cast<const quad*>(from);
                const quad lower = *reinterpret_cast<const quad*>(from + 4 * in_stride);
                row[i] = __builtin_shufflevector(upper, lower, 0, 1, 2, 3, 4, 5, 6, 7);
            }
            const vec ab = __builtin_shufflevector(row[0], row[1], 0, 8, 1, 9, 4, 12, 5, 13),
                      cd = __builtin_shufflevector(row[2], row[3], 0, 8, 1, 9, 4, 12, 5, 13),
                      high_ab = __builtin_shufflevector(row[0], row[1], 2, 10, 3, 11, 6, 14, 7, 15),
                      high_cd = __builtin_shufflevector(row[2], row[3], 2, 10, 3, 11, 6, 14, 7, 15);
            float* to = out + x * out_stride + y;
            *reinterpret_cast<stored*>(to) = __builtin_shufflevector(ab, cd, 0, 1, 8, 9, 4, 5, 12, 13);
            *reinterpret_cast<stored*>(to + out_stride) = __builtin_shufflevector(ab, cd, 2, 3, 10, 11, 6, 7, 14, 15);
            *reinterpret_cast<stored*>(to + 2 * out_stride) =
                __builtin_shufflevector(high_ab, high_cd, 0, 1, 8, 9, 4, 5, 12, 13);
            *reinterpret_cast<stored*>(to + 3 * out_stride) =
                __builtin_shufflevector(high_ab, high_cd, 2, 3, 10, 11, 6, 7, 14, 15);
        }
}

/// out[x][y] = in[y][x]; rows, cols and both strides are multiples of 4, with more than 4 lanes of 8.
template <int Lanes>
THINWIRE_ALWAYS_INLINE void transpose(const float* in, std::size_t in_stride, float* out, std::size_t out_stride,
                                      std::size_t rows, std::size_t cols) {
    if constexpr (Lanes == 4)
        transpose_quads(in, in_stride, out, out_stride, rows, cols);
    else
        transpose_eights(in, in_stride, out, out_stride, rows, cols);
}

/// One side of a chunk: `width` columns (a multiple of Level::lanes) of N rows, `stride` apart in `in`. Turned:
/// transposed on the way, rows of `out` have N elements; else as in `in`, which may be the same memory. Turning goes
/// through a few lines of memory, as the first cache does not hold a chunk three times.
template <std::size_t N, class Level, bool Walsh, bool Turned>
THINWIRE_ALWAYS_INLINE void fast_side(const float* in, float* out, std::size_t stride, std::size_t width) {
    constexpr std::size_t lanes = Level::lanes;
    for (std::size_t column = 0; column < width; column += lanes) {
        if constexpr (Turned) {
            alignas(64) float group[N * lanes];
            Level::template fast_columns<N, Walsh>(in + column, stride, group, lanes);
            transpose<Level::lanes>(group, lanes, out + column * N, N, N, lanes);
        } else {
            Level::template fast_columns<N, Walsh>(in + column, stride, out + column, stride);
        }
    }
}

/// fast_side() for tables that are fast().
template <class Level, bool Turned>
THINWIRE_ALWAYS_INLINE void fast_side(const basis_tables& side, const float* in, float* out, std::size_t stride,
                                      std::size_t width) {
    if (side.mirrored() && side.side() == 64)
        fast_side<64, Level, false, Turned>(in, out, stride, width);
    else if (side.mirrored())
        fast_side<32, Level, false, Turned>(in, out, stride, width);
    else if (side.side() == 64)
        fast_side<64, Level, true, Turned>(in, out, stride, width);
    else
        fast_side<32, Level, true, Turned>(in, out, stride, width);
}

}  // namespace thinwire::detail

#endif  // THINWIRE_TRANSFORM_DETAIL_FAST_DCT_HPP

// ---- thinwire/transform/chunk_grid.hpp
#ifndef THINWIRE_TRANSFORM_CHUNK_GRID_HPP
#define THINWIRE_TRANSFORM_CHUNK_GRID_HPP

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace thinwire {

/// The largest divisor of `n` not above `target`: the side of a chunk along a dimension of n elements.
[[nodiscard]] constexpr std::size_t chunk_side(std::size_t n, std::size_t target) noexcept {
    std::size_t best = 1;
    for (std::size_t d = 1; d <= target && d <= n; ++d)
        if (n % d == 0) best = d;
    return best;
}

/// What is done where the largest divisor of a dimension is below half the target.
enum class chunk_cut : std::uint8_t {
    remainder = 0,  ///< chunks have the target's side; what remains at the end has chunks of its own
    divisors = 1,   ///< chunks have that divisor's side, however small, as in the published code
};

/// A dimension as `count` sides of `side` elements and, unless that is 0, one of `rest` at the end.
struct dimension_cut {
    std::size_t side = 1, count = 1, rest = 0;
};
/// How a dimension of n elements is cut.
[[nodiscard]] constexpr dimension_cut cut_dimension(std::size_t n, std::size_t target, chunk_cut how) noexcept {
    const std::size_t side = chunk_side(n, target);
    if (how == chunk_cut::divisors || n <= target || 2 * side >= target) return {side, n / side, 0};
    return {target, n / target, n % target};
}

/// Chunks of equal sides that are transformed one by one: those of a tensor, or of a region of it. The last two
/// dimensions are cut, those before them are a batch; a tensor of one dimension is one row. Chunks are numbered
/// row-major: batch, row, column.
class chunk_grid {
 public:
    static constexpr std::size_t max_target = 256;

    /// The whole tensor, by chunk_cut::divisors. Throws value_error unless 1 <= target <= 256.
    chunk_grid(const shape& s, std::size_t target) : chunk_grid(s) {
        require_target(target);
        rows_ = chunk_side(height_, target);
        cols_ = chunk_side(width_, target);
        down_ = height_ / rows_;
        across_ = width_ / cols_;
    }

    /// Sides of one chunk.
    [[nodiscard]] std::size_t rows() const noexcept { return rows_; }
    [[nodiscard]] std::size_t cols() const noexcept { return cols_; }
    /// Elements of one chunk: at most 65,536.
    [[nodiscard]] std::size_t chunk_size() const noexcept { return rows_ * cols_; }
    /// Chunks of one matrix, from one to the next below and beside it.
    [[nodiscard]] std::size_t down() const noexcept { return down_; }
    [[nodiscard]] std::size_t across() const noexcept { return across_; }
    /// Number of chunks.
    [[nodiscard]] std::size_t count() const noexcept { return batch_ * down_ * across_; }
    /// Rows of the tensor's matrices, and elements from one to the next.
    [[nodiscard]] std::size_t height() const noexcept { return height_; }
    [[nodiscard]] std::size_t stride() const noexcept { return width_; }

    /// Where the first element of a chunk lies in the tensor. Precondition: chunk < count().
    [[nodiscard]] std::size_t offset(std::size_t chunk) const noexcept {
        const std::size_t column = chunk % across_;
        const std::size_t row = chunk / across_ % down_;
        const std::size_t batch = chunk / across_ / down_;
        return first_ + (batch * height_ + row * rows_) * width_ + column * cols_;
    }

 private:
    friend std::vector<chunk_grid> chunk_regions(const shape& s, std::size_t target, chunk_cut how);

    explicit chunk_grid(const shape& s) noexcept {
        const std::size_t rank = s.rank();
        height_ = rank >= 2 ? static_cast<std::size_t>(s[rank - 2]) : 1;
        width_ = rank >= 1 ? static_cast<std::size_t>(s[rank - 1]) : 1;
        batch_ = s.count() / (height_ * width_);
    }
    static void require_target(std::size_t target) {
        if (target < 1 || target > max_target)
            throw value_error("chunk_grid: chunk " + std::to_string(target) + ", expected 1..256");
    }

    std::size_t batch_ = 1, height_ = 1, width_ = 1;
    std::size_t rows_ = 1, cols_ = 1, down_ = 1, across_ = 1;
    std::size_t first_ = 0;  ///< where the first chunk lies in the tensor
};

/// The regions of a tensor, each cut evenly, which cover it: rows and columns are cut by cut_dimension. First the
/// chunks of whole sides, then the columns that remain to their right, then the rows that remain below, then the
/// corner; regions that would be empty are left out. Throws value_error unless 1 <= target <= 256.
[[nodiscard]] inline std::vector<chunk_grid> chunk_regions(const shape& s, std::size_t target, chunk_cut how) {
    chunk_grid::require_target(target);
    const chunk_grid whole(s);
    const dimension_cut down = cut_dimension(whole.height_, target, how);
    const dimension_cut across = cut_dimension(whole.width_, target, how);
    std::vector<chunk_grid> regions;
    for (const bool below : {false, true})
        for (const bool beside : {false, true}) {
            if ((below && down.rest == 0) || (beside && across.rest == 0)) continue;
            chunk_grid& region = regions.emplace_back(whole);
            region.rows_ = below ? down.rest : down.side;
            region.down_ = below ? 1 : down.count;
            region.cols_ = beside ? across.rest : across.side;
            region.across_ = beside ? 1 : across.count;
            region.first_ =
                (below ? down.side * down.count * whole.width_ : 0) + (beside ? across.side * across.count : 0);
        }
    return regions;
}

}  // namespace thinwire

#endif  // THINWIRE_TRANSFORM_CHUNK_GRID_HPP

// ---- thinwire/transform/sparse_chunk.hpp
#ifndef THINWIRE_TRANSFORM_SPARSE_CHUNK_HPP
#define THINWIRE_TRANSFORM_SPARSE_CHUNK_HPP

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace thinwire {

/// The coefficients of one chunk that are not zero, grouped by column: even columns first, then odd ones, because
/// the two halves of the inverse transform take them apart. T is float, or double for exact integers.
template <class T>
class sparse_chunk {
 public:
    explicit sparse_chunk(std::size_t max_coefficients) : rows_(max_coefficients), values_(max_coefficients) {}

    /// Takes coefficients (position = row * cols + column, each position once). Precondition: cols <= 256.
    void assign(std::span<const std::uint16_t> positions, std::span<const T> values, std::size_t cols) noexcept {
        std::array<std::uint32_t, chunk_grid::max_target + 1> at{};
        for (const std::uint16_t p : positions) ++at[p % cols];
        slots_ = even_ = 0;
        std::uint32_t sum = 0;
        for (std::size_t parity = 0; parity < 2; ++parity) {
            for (std::size_t c = parity; c < cols; c += 2) {
                const std::uint32_t count = at[c];
                at[c] = sum;
                if (count == 0) continue;
                columns_[slots_] = static_cast<std::uint32_t>(c);
                begin_[slots_++] = sum;
                sum += count;
            }
            if (parity == 0) even_ = slots_;
        }
        begin_[slots_] = sum;
        for (std::size_t i = 0; i < positions.size(); ++i) {
            const std::uint32_t to = at[positions[i] % cols]++;
            rows_[to] = static_cast<std::uint32_t>(positions[i] / cols);
            values_[to] = values[i];
        }
    }

    /// Columns in use, and how many of them are even (they come first).
    [[nodiscard]] std::size_t slots() const noexcept { return slots_; }
    [[nodiscard]] std::size_t even() const noexcept { return even_; }
    [[nodiscard]] std::uint32_t column(std::size_t slot) const noexcept { return columns_[slot]; }
    /// The coefficients of a slot are numbers begin(slot) to begin(slot + 1).
    [[nodiscard]] std::uint32_t begin(std::size_t slot) const noexcept { return begin_[slot]; }
    [[nodiscard]] std::uint32_t row(std::size_t i) const noexcept { return rows_[i]; }
    [[nodiscard]] T value(std::size_t i) const noexcept { return values_[i]; }
    [[nodiscard]] std::size_t memory_bytes() const noexcept { return bytes_held(rows_, values_); }

 private:
    std::size_t slots_ = 0, even_ = 0;
    std::array<std::uint32_t, chunk_grid::max_target> columns_{};
    std::array<std::uint32_t, chunk_grid::max_target + 1> begin_{};
    std::vector<std::uint32_t> rows_;
    std::vector<T> values_;
};

/// Chunks of one row that are transformed together.
inline constexpr std::size_t line_batch = 64;

/// Working memory of the transforms of one thread, for chunks up to the given sides.
struct transform_scratch {
    transform_scratch(std::size_t rows, std::size_t cols) {
        const std::size_t r = (std::max(rows, line_batch) + 31) / 16 * 16;
        const std::size_t c = (cols + 31) / 16 * 16;
        mirrored.resize(2 * r * c);
        middle.resize(r * c);
        tile.resize(r * c);
        coefficients.resize(2 * r * c);
        pass_float.resize(r * c);
        pass_exact.resize(r * c);
        parts_float.resize(8 * c);
        parts_exact.resize(8 * c);
        at.resize(std::max(r, c));
    }

    aligned_vector<float> mirrored, middle;
    aligned_vector<float> tile;          ///< a chunk in space: rows of basis.full() elements
    aligned_vector<float> coefficients;  ///< a chunk in frequency, in the order of spectrum_position()
    aligned_vector<float> pass_float, parts_float;
    aligned_vector<double> pass_exact, parts_exact;
    std::vector<std::uint32_t> at;

    [[nodiscard]] std::size_t memory_bytes() const noexcept {
        return bytes_held(mirrored, middle, tile, coefficients, pass_float, parts_float, pass_exact, parts_exact, at);
    }
    template <class T>
    [[nodiscard]] T* pass() noexcept {
        if constexpr (sizeof(T) == sizeof(float))
            return pass_float.data();
        else
            return pass_exact.data();
    }
    template <class T>
    [[nodiscard]] T* parts() noexcept {
        if constexpr (sizeof(T) == sizeof(float))
            return parts_float.data();
        else
            return parts_exact.data();
    }
};

}  // namespace thinwire

#endif  // THINWIRE_TRANSFORM_SPARSE_CHUNK_HPP

// ---- thinwire/transform/detail/fast_inverse.hpp
#ifndef THINWIRE_TRANSFORM_DETAIL_FAST_INVERSE_HPP
#define THINWIRE_TRANSFORM_DETAIL_FAST_INVERSE_HPP

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace thinwire::detail {

/// Stores the lanes in reverse order.
template <int Lanes>
THINWIRE_ALWAYS_INLINE void store_reversed(float* out, const typename local_vector<float, Lanes>::type& v) {
    auto& to = *reinterpret_cast<typename vector_of<float, Lanes>::type*>(out);
    if constexpr (Lanes == 2)
        to = __builtin_shufflevector(v, v, 1, 0);
    else if constexpr (Lanes == 4)
        to = __builtin_shufflevector(v, v, 3, 2, 1, 0);
    else if constexpr (Lanes == 8)
        to = __builtin_shufflevector(v, v, 7, 6, 5, 4, 3, 2, 1, 0);
    else
        to = __builtin_shufflevector(v, v, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
}

/// The coefficients of a chunk as products of a column and a row of half length. Both fast bases have even frequencies
/// whose second half repeats the first (mirrored: the DCT) and odd ones where it does so with the other sign: one
/// quarter of the chunk for each of the four parities makes all of it. The class of a coefficient is
/// 2 * (column odd) + (row odd); coefficients of one class and column are added up.
struct quarter_terms {
    std::array<std::size_t, 4> count{};               ///< terms of each class
    std::array<std::array<std::uint32_t, 32>, 4> at;  ///< where the term's row of the basis begins

    /// Fills `down`, which has room for a chunk, with the terms' columns: those of a class follow each other, classes
    /// begin a quarter of the chunk apart. Positions are row * width + column, rising.
    template <class Level>
    THINWIRE_ALWAYS_INLINE void gather(const basis_tables& rows, const basis_tables& cols,
                                       const std::uint16_t* positions, const float* values, std::size_t number,
                                       float* down) noexcept {
        using vec = typename vector_of<float, Level::lanes>::type;
        const std::size_t half = rows.side() / 2, quarter = half * (cols.side() / 2);
        const unsigned shift = cols.shift();
        std::array<std::array<std::uint8_t, 64>, 2> term{};  // of a column and row parity, from 1
        for (std::size_t i = 0; i < number; ++i) {
            const std::size_t row = positions[i] >> shift, column = positions[i] & (cols.side() - 1);
            const std::size_t kind = 2 * (column % 2) + row % 2;
            const float* basis = rows.synthesis<float>() + row * rows.full();
            std::uint8_t& known = term[row % 2][column];
            const bool first = known == 0;
            if (first) {
                at[kind][count[kind]] = static_cast<std::uint32_t>(column * cols.full());
                known = static_cast<std::uint8_t>(++count[kind]);
            }
            float* to = down + kind * quarter + (known - 1U) * half;
            for (std::size_t y = 0; y < half; y += Level::lanes) {
                vec& sum = *reinterpret_cast<vec*>(to + y);
                const vec product = values[i] * *reinterpret_cast<const vec*>(basis + y);
                sum = first ? product : sum + product;
            }
        }
    }
};

/// The inverse of a few coefficients where both sides are fast() -> tile (rows of cols.side() elements). Half of a row
/// is a multiple of Vectors * Level::lanes.
template <class Level, bool Walsh, int Vectors>
THINWIRE_ALWAYS_INLINE void inverse_quarters(const basis_tables& rows, const basis_tables& cols,
                                             const quarter_terms& terms, const float* down, float* tile) {
    constexpr int lanes = Level::lanes, vectors = Vectors, pairs = 2;
    using vec = typename vector_of<float, lanes>::type;
    using local = typename local_vector<float, lanes>::type;
    const std::size_t h = rows.side(), w = cols.side(), half = h / 2;
    for (std::size_t y = 0; y < half; y += pairs) {
        for (std::size_t x = 0; x < w / 2; x += std::size_t{vectors} * lanes) {
            local sum[4][pairs][vectors] = {};
#pragma GCC unroll 4
            for (std::size_t kind = 0; kind < 4; ++kind) {
                const float* u = down + kind * (half * (w / 2)) + y;
                for (std::size_t i = 0; i < terms.count[kind]; ++i, u += half) {
                    const float* basis = cols.synthesis<float>() + terms.at[kind][i] + x;
#pragma GCC unroll 2
                    for (int v = 0; v < vectors; ++v) {
                        const local entry = *reinterpret_cast<const vec*>(basis + std::ptrdiff_t{v} * lanes);
#pragma GCC unroll 2
                        for (int p = 0; p < pairs; ++p) sum[kind][p][v] += u[p] * entry;
                    }
                }
            }
#pragma GCC unroll 2
            for (std::size_t p = 0; p < pairs; ++p)
#pragma GCC unroll 2
                for (std::size_t v = 0; v < vectors; ++v) {
                    const local even = sum[0][p][v] + sum[2][p][v], odd = sum[1][p][v] + sum[3][p][v];
                    const local even_right = sum[0][p][v] - sum[2][p][v], odd_right = sum[1][p][v] - sum[3][p][v];
                    const std::size_t from = x + v * lanes;
                    float* upper = tile + (y + p) * w;
                    float* lower = tile + (Walsh ? y + p + half : h - 1 - y - p) * w;
                    *reinterpret_cast<vec*>(upper + from) = even + odd;
                    *reinterpret_cast<vec*>(lower + from) = even - odd;
                    if constexpr (Walsh) {
                        *reinterpret_cast<vec*>(upper + w / 2 + from) = even_right + odd_right;
                        *reinterpret_cast<vec*>(lower + w / 2 + from) = even_right - odd_right;
                    } else {
                        store_reversed<lanes>(upper + w - lanes - from, even_right + odd_right);
                        store_reversed<lanes>(lower + w - lanes - from, even_right - odd_right);
                    }
                }
        }
    }
}

/// The same from positions (row * width + column, rising) and values.
template <class Level>
THINWIRE_ALWAYS_INLINE void inverse_fast(const basis_tables& rows, const basis_tables& cols,
                                         const std::uint16_t* positions, const float* values, std::size_t number,
                                         float* tile, transform_scratch& s) {
    quarter_terms terms;
    float* down = s.pass<float>();
    terms.gather<Level>(rows, cols, positions, values, number, down);
    constexpr int vectors = Level::lanes == 16 ? 2 : 1;
    const bool wide = cols.side() / 2 % (vectors * Level::lanes) == 0;
    if (rows.mirrored() && wide)
        inverse_quarters<Level, false, vectors>(rows, cols, terms, down, tile);
    else if (rows.mirrored())
        inverse_quarters<Level, false, 1>(rows, cols, terms, down, tile);
    else if (wide)
        inverse_quarters<Level, true, vectors>(rows, cols, terms, down, tile);
    else
        inverse_quarters<Level, true, 1>(rows, cols, terms, down, tile);
}

}  // namespace thinwire::detail

#endif  // THINWIRE_TRANSFORM_DETAIL_FAST_INVERSE_HPP

// ---- thinwire/transform/detail/dct_kernels.hpp
#ifndef THINWIRE_TRANSFORM_DETAIL_DCT_KERNELS_HPP
#define THINWIRE_TRANSFORM_DETAIL_DCT_KERNELS_HPP

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace thinwire::detail {

/// tile -> s.middle -> coefficients by plain products.
template <class Level>
THINWIRE_ALWAYS_INLINE void forward_rows_plain(const basis_tables& rows, std::size_t stride, const float* tile,
                                               transform_scratch& s) {
    const std::size_t h = rows.side();
    for (std::size_t r = 0; r < h; ++r) s.at[r] = static_cast<std::uint32_t>(r * stride);
    Level::gemm(rows.template synthesis<float>(), rows.full(), 1, tile, s.at.data(), h, s.middle.data(), stride, h,
                stride);
}
template <class Level>
THINWIRE_ALWAYS_INLINE void forward_cols_plain(std::size_t h, const basis_tables& cols, transform_scratch& s) {
    const std::size_t w = cols.side(), stride = cols.full();
    for (std::size_t x = 0; x < w; ++x) s.at[x] = static_cast<std::uint32_t>(x * stride);
    Level::gemm(s.middle.data(), stride, 1, cols.analysis(), s.at.data(), w, s.coefficients.data(), stride, h, stride);
}

/// tile -> scratch.coefficients. `Level` supplies the matrix product for its instruction set.
/// The tile has rows of cols.full() elements, zero beyond the chunk's width.
template <class Level>
THINWIRE_ALWAYS_INLINE void forward_transform(const basis_tables& rows, const basis_tables& cols, const float* tile,
                                              transform_scratch& s) {
    using vec = typename vector_of<float, Level::lanes>::type;
    const std::size_t h = rows.side(), w = cols.side(), stride = cols.full();
    if (rows.fast() && cols.fast()) {
        float* const turned = s.coefficients.data();
        fast_side<Level, true>(rows, tile, turned, w, w);
        fast_side<Level, false>(cols, turned, turned, h, h);
        return;
    }
    if (rows.identity()) {
        std::memcpy(s.coefficients.data(), tile, h * stride * sizeof(float));
        return;
    }
    if (!rows.mirrored()) {
        forward_rows_plain<Level>(rows, stride, tile, s);
        forward_cols_plain<Level>(h, cols, s);
        return;
    }
    const std::size_t half_h = (h + 1) / 2, half_w = (w + 1) / 2;
    float* sums = s.mirrored.data();
    float* differences = sums + half_h * stride;
    for (std::size_t r = 0; r < half_h; ++r) {
        s.at[r] = static_cast<std::uint32_t>(r * stride);
        const float once = 2 * r + 1 == h ? 0.0F : 1.0F;  // the middle row has no mirror
        for (std::size_t x = 0; x < stride; x += Level::lanes) {
            const vec a = *reinterpret_cast<const vec*>(tile + r * stride + x);
            const vec b = *reinterpret_cast<const vec*>(tile + (h - 1 - r) * stride + x);
            *reinterpret_cast<vec*>(sums + r * stride + x) = a + once * b;
            *reinterpret_cast<vec*>(differences + r * stride + x) = a - b;
        }
    }
    float* y = s.middle.data();
    Level::gemm(rows.rows(false), rows.half(), 1, sums, s.at.data(), half_h, y, 2 * stride, half_h, stride);
    Level::gemm(rows.rows(true), rows.half(), 1, differences, s.at.data(), half_h, y + stride, 2 * stride, h / 2,
                stride);

    sums = s.mirrored.data();
    differences = sums + h * cols.half();
    for (std::size_t r = 0; r < h; ++r) {
        const float* row = y + r * stride;
        for (std::size_t x = 0; x < half_w; ++x) {
            const float mirror = row[w - 1 - x];
            sums[r * cols.half() + x] = 2 * x + 1 == w ? row[x] : row[x] + mirror;
            differences[r * cols.half() + x] = row[x] - mirror;
        }
    }
    for (std::size_t x = 0; x < half_w; ++x) s.at[x] = static_cast<std::uint32_t>(x * cols.half());
    float* z = s.coefficients.data();
    const std::size_t half = cols.half();
    Level::gemm(sums, half, 1, cols.analysis(false), s.at.data(), half_w, z, 2 * half, h, half);
    Level::gemm(differences, half, 1, cols.analysis(true), s.at.data(), half_w, z + half, 2 * half, h, half);
}

/// The inverse where there is no transform: the coefficients at their places.
template <class T>
inline void inverse_identity(const basis_tables& rows, const basis_tables& cols, const sparse_chunk<T>& chunk,
                             float* tile) {
    constexpr T unit = std::is_same_v<T, double> ? static_cast<T>(0x1p44) : T{1};  // what the exact tables come to
    std::memset(tile, 0, rows.side() * cols.full() * sizeof(float));
    for (std::size_t slot = 0; slot < chunk.slots(); ++slot)
        for (std::uint32_t i = chunk.begin(slot); i < chunk.begin(slot + 1); ++i)
            tile[chunk.row(i) * cols.full() + chunk.column(slot)] = static_cast<float>(chunk.value(i) * unit);
}

/// First pass of the inverse: column `slot` of the chunk, transformed along the rows.
template <class T, class Level>
THINWIRE_ALWAYS_INLINE void inverse_columns(const basis_tables& rows, const sparse_chunk<T>& chunk, T* out) {
    constexpr int lanes = Level::lanes * static_cast<int>(sizeof(float)) / static_cast<int>(sizeof(T));
    using vec = typename vector_of<T, lanes>::type;
    const T* basis = rows.synthesis<T>();
    for (std::size_t slot = 0; slot < chunk.slots(); ++slot) {
        for (std::size_t x = 0; x < rows.full(); x += lanes) {
            vec sum = {};
            for (std::uint32_t i = chunk.begin(slot); i < chunk.begin(slot + 1); ++i)
                sum += chunk.value(i) * *reinterpret_cast<const vec*>(basis + chunk.row(i) * rows.full() + x);
            if constexpr (std::is_same_v<T, double>) {
                // Rounds half up to an integer, exactly and in any rounding mode: see optim/detail/exact_mean.hpp.
                using integers = typename vector_of<std::int32_t, lanes>::type;
                const integers whole = __builtin_convertvector(sum + (0x1p28 + 0.5), integers);
                sum = __builtin_convertvector(whole - (1 << 28), vec);
            }
            *reinterpret_cast<vec*>(out + slot * rows.full() + x) = sum;
        }
    }
}

/// The inverse of a sparse chunk -> tile (rows of cols.full(); elements beyond the width are unspecified).
/// With T = double all arithmetic is on integers and exact; the tile then has the exact signs.
template <class T, class Level>
THINWIRE_ALWAYS_INLINE void inverse_transform(const basis_tables& rows, const basis_tables& cols,
                                              const sparse_chunk<T>& chunk, float* tile, transform_scratch& s) {
    constexpr int lanes = Level::lanes * static_cast<int>(sizeof(float)) / static_cast<int>(sizeof(T));
    using vec = typename vector_of<T, lanes>::type;
    using floats = typename vector_of<float, lanes>::type;
    const std::size_t h = rows.side(), w = cols.side(), half = cols.half();
    if (rows.identity()) return inverse_identity(rows, cols, chunk, tile);
    T* columns = s.pass<T>();
    inverse_columns<T, Level>(rows, chunk, columns);
    if (!cols.mirrored()) {
        for (std::size_t slot = 0; slot < chunk.slots(); ++slot)
            s.at[slot] = static_cast<std::uint32_t>(chunk.column(slot) * cols.full());
        T* const sums = s.parts<T>();
        for (std::size_t r = 0; r < h; r += 4) {
            const std::size_t block = h - r < 4 ? h - r : 4;
            Level::gemm(columns + r, 1, rows.full(), cols.synthesis<T>(), s.at.data(), chunk.slots(), sums, cols.full(),
                        block, cols.full());
            for (std::size_t b = 0; b < block; ++b)
                for (std::size_t x = 0; x < cols.full(); x += lanes)
                    *reinterpret_cast<floats*>(tile + (r + b) * cols.full() + x) =
                        __builtin_convertvector(*reinterpret_cast<const vec*>(sums + b * cols.full() + x), floats);
        }
        return;
    }
    for (std::size_t slot = 0; slot < chunk.slots(); ++slot)
        s.at[slot] = static_cast<std::uint32_t>(chunk.column(slot) * half);
    const std::size_t even = chunk.even(), odd = chunk.slots() - even;
    T* const sums = s.parts<T>();
    T* const differences = sums + 4 * half;
    for (std::size_t r = 0; r < h; r += 4) {
        const std::size_t block = h - r < 4 ? h - r : 4;
        Level::gemm(columns + r, 1, rows.full(), cols.synthesis_half<T>(), s.at.data(), even, sums, half, block, half);
        Level::gemm(columns + even * rows.full() + r, 1, rows.full(), cols.synthesis_half<T>(), s.at.data() + even, odd,
                    differences, half, block, half);
        for (std::size_t b = 0; b < block; ++b) {
            float* out = tile + (r + b) * cols.full();
            if (w / 2 % lanes == 0 && w % 2 == 0) {
                for (std::size_t x = 0; x < w / 2; x += lanes) {
                    const vec e = *reinterpret_cast<const vec*>(sums + b * half + x);
                    const vec o = *reinterpret_cast<const vec*>(differences + b * half + x);
                    *reinterpret_cast<floats*>(out + x) = __builtin_convertvector(e + o, floats);
                    const typename local_vector<float, lanes>::type mirrored = __builtin_convertvector(e - o, floats);
                    store_reversed<lanes>(out + w - lanes - x, mirrored);
                }
                continue;
            }
            alignas(64) float mirror[chunk_grid::max_target / 2];
            alignas(64) float front[chunk_grid::max_target / 2];
            for (std::size_t x = 0; x < half; x += lanes) {
                const vec e = *reinterpret_cast<const vec*>(sums + b * half + x);
                const vec o = *reinterpret_cast<const vec*>(differences + b * half + x);
                *reinterpret_cast<floats*>(front + x) = __builtin_convertvector(e + o, floats);
                *reinterpret_cast<floats*>(mirror + x) = __builtin_convertvector(e - o, floats);
            }
            for (std::size_t x = 0; x < (w + 1) / 2; ++x) out[x] = front[x];
            for (std::size_t x = 0; x < w / 2; ++x) out[w - 1 - x] = mirror[x];
        }
    }
}

}  // namespace thinwire::detail

#endif  // THINWIRE_TRANSFORM_DETAIL_DCT_KERNELS_HPP

// ---- thinwire/transform/detail/element_kernels.hpp
#ifndef THINWIRE_TRANSFORM_DETAIL_ELEMENT_KERNELS_HPP
#define THINWIRE_TRANSFORM_DETAIL_ELEMENT_KERNELS_HPP

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace thinwire::detail {

/// Makes the compiler believe that the memory was read and written here, so that no operation before is fused,
/// reordered or simplified with one after, whatever its flags.
THINWIRE_ALWAYS_INLINE void keep(const void* memory) noexcept {
    asm volatile("" : : "r"(memory) : "memory");
}

/// Asks for n elements that lie `ahead` elements on, into the second cache; there may be nothing.
THINWIRE_ALWAYS_INLINE void ask_ahead(const float* from, std::size_t n, std::ptrdiff_t ahead) noexcept {
    // modulo 2^64: addresses, no pointers
    const auto at = reinterpret_cast<std::uintptr_t>(from) + static_cast<std::uintptr_t>(ahead) * sizeof(float);
    for (std::size_t line = 0; line < n * sizeof(float); line += 64)
        __builtin_prefetch(reinterpret_cast<const void*>(at + line), 0, 2);
}

/// Where a row of chunks lies in a panel that holds them one after the other: `chunks` times `width` elements from
/// `out` on, `apart` elements from one chunk to the next. Elements of a chunk's row from `width` to `full` are set to
/// 0.
struct panel_row {
    float* out;
    std::size_t chunks, width, full, apart;
};

/// m <- decay * (m - taken * out) + gain * g, and a copy to out: one row of a panel's chunks. `taken` 0: out is not
/// read. Asks for m and g `ahead` elements on, where no hardware looks ahead.
template <int Lanes>
THINWIRE_ALWAYS_INLINE void update_momentum(float* m, const float* g, const panel_row& to, float decay, float gain,
                                            float taken, std::ptrdiff_t ahead) {
    using vec = typename vector_of<float, Lanes>::type;
    const std::size_t n = to.width;
    float* out = to.out;
    for (std::size_t chunk = 0; chunk < to.chunks; ++chunk, m += n, g += n, out += to.apart) {
        ask_ahead(m, n, ahead);
        ask_ahead(g, n, ahead);
        std::size_t x = 0;
        if (taken != 0.0F) {
            for (; x + Lanes <= n; x += Lanes) {
                const vec left = *reinterpret_cast<const vec*>(m + x) - taken * *reinterpret_cast<const vec*>(out + x);
                const vec sum = decay * left + gain * *reinterpret_cast<const vec*>(g + x);
                *reinterpret_cast<vec*>(m + x) = sum;
                *reinterpret_cast<vec*>(out + x) = sum;
            }
            for (; x < n; ++x) out[x] = m[x] = decay * (m[x] - taken * out[x]) + gain * g[x];
        } else {
            for (; x + Lanes <= n; x += Lanes) {
                const vec sum =
                    decay * *reinterpret_cast<const vec*>(m + x) + gain * *reinterpret_cast<const vec*>(g + x);
                *reinterpret_cast<vec*>(m + x) = sum;
                *reinterpret_cast<vec*>(out + x) = sum;
            }
            for (; x < n; ++x) out[x] = m[x] = decay * m[x] + gain * g[x];
        }
        for (; x < to.full; ++x) out[x] = 0.0F;
    }
}

/// m <- m + factor * d.
template <int Lanes>
THINWIRE_ALWAYS_INLINE void add_scaled(float* m, const float* d, std::size_t n, float factor) {
    using vec = typename vector_of<float, Lanes>::type;
    std::size_t x = 0;
    for (; x + Lanes <= n; x += Lanes) *reinterpret_cast<vec*>(m + x) += factor * *reinterpret_cast<const vec*>(d + x);
    for (; x < n; ++x) m[x] += factor * d[x];
}

/// The sum of squares of elements whose squares may leave the range of float32.
inline void scan_wide(const float* g, std::size_t n, double& sum) {
    for (std::size_t x = 0; x < n; ++x) sum += static_cast<double>(g[x]) * static_cast<double>(g[x]);
}

/// What scan() does in between, once for every `gradients` of them: work that computes while reading waits. It must not
/// throw.
struct scan_pause {
    static constexpr std::size_t gradients = 512;
    void (*work)(const void* context) = nullptr;
    const void* context = nullptr;
};

/// Adds the squares to `sum` (within 2^-18 of it) and raises `largest` to the bits of the largest magnitude (above
/// 0x7f7fffff: not finite). Squares are summed in float32 for 4096 elements at a time; where the largest of those is
/// not within 2^-40..2^48, in double.
template <int Lanes>
THINWIRE_ALWAYS_INLINE void scan(const float* g, std::size_t n, double& sum, std::uint32_t& largest,
                                 const scan_pause& pause) {
    using floats = typename vector_of<float, Lanes>::type;
    using bits = typename vector_of<std::int32_t, Lanes>::type;
    constexpr std::size_t block = 4096, ways = 4;
    for (std::size_t from = 0; from < n; from += block) {
        const std::size_t end = std::min(n, from + block);
        floats squares[ways] = {};
        bits tops[ways] = {};
        std::size_t x = from;
        while (x + ways * Lanes <= end) {
            const std::size_t stop = std::min(end, x + scan_pause::gradients);
            if (pause.work != nullptr) pause.work(pause.context);
            for (; x + ways * Lanes <= stop; x += ways * Lanes) {
#pragma GCC unroll 4
                for (std::size_t w = 0; w < ways; ++w) {
                    const floats value = *reinterpret_cast<const floats*>(g + x + w * Lanes);
                    squares[w] += value * value;
                    const bits magnitude = *reinterpret_cast<const bits*>(g + x + w * Lanes) & 0x7fffffff;
                    tops[w] = magnitude > tops[w] ? magnitude : tops[w];
                }
            }
        }
        const floats all = (squares[0] + squares[1]) + (squares[2] + squares[3]);
        double total = 0.0;
        std::int32_t top = 0;
        for (std::size_t w = 1; w < ways; ++w) tops[0] = tops[w] > tops[0] ? tops[w] : tops[0];
        for (int i = 0; i < Lanes; ++i) {
            total += static_cast<double>(all[i]);
            top = std::max(top, static_cast<std::int32_t>(tops[0][i]));
        }
        for (; x < end; ++x) {
            total += static_cast<double>(g[x]) * static_cast<double>(g[x]);
            top = std::max(top, std::bit_cast<std::int32_t>(g[x]) & 0x7fffffff);
        }
        largest = std::max(largest, static_cast<std::uint32_t>(top));
        if (top > (127 + 48) << 23 || (top < (127 - 40) << 23 && top > 0))
            scan_wide(g + from, end - from, sum);
        else
            sum += total;
    }
}

/// Replaces what hardware may or may not flush (subnormal numbers, the smallest normal one, -0) by +0, by its bits.
template <int Lanes>
THINWIRE_ALWAYS_INLINE void flush_tiny(float* values, std::size_t n) {
    using bits = typename vector_of<std::int32_t, Lanes>::type;
    for (std::size_t x = 0; x < n; x += Lanes) {
        bits& b = *reinterpret_cast<bits*>(values + x);
        b &= (b & 0x7fffffff) > 0x00800000;
    }
}

/// The same barrier for a vector that may stay in its register.
template <class Vec>
THINWIRE_ALWAYS_INLINE void settle(Vec& v) noexcept {
#if defined(__x86_64__) && !defined(__clang__)  // clang refuses wide registers in what a target function inlines
    asm volatile("" : "+x"(v));
#elif defined(__aarch64__)
    asm volatile("" : "+w"(v));
#else
    keep(&v);
#endif
}

/// flush_tiny() for one vector.
template <int Lanes, class Vec>
THINWIRE_ALWAYS_INLINE void flush_lanes(Vec& v) noexcept {
    using bits = typename local_vector<std::int32_t, Lanes>::type;
    bits b = (bits)v;
    b &= (b & 0x7fffffff) > 0x00800000;
    v = (Vec)b;
}

/// x <- factor * x - rate * sign(d) for one row; sign(0) = 0. One IEEE operation at a time with a barrier between, so
/// that contraction, -ffast-math and flush-to-zero cannot change a bit. `factor` 1 skips the product. Asks for x
/// `ahead` elements on.
template <int Lanes>
THINWIRE_ALWAYS_INLINE void apply_sign(float* x, const float* d, std::size_t n, float rate, float factor,
                                       std::ptrdiff_t ahead) {
    ask_ahead(x, n, ahead);
    using vec = typename local_vector<float, Lanes>::type;
    using bits = typename local_vector<std::int32_t, Lanes>::type;
    const auto up = static_cast<std::int32_t>(std::bit_cast<std::uint32_t>(rate));
    const auto down = static_cast<std::int32_t>(std::bit_cast<std::uint32_t>(rate) | 0x80000000U);
    const bool decay = std::bit_cast<std::uint32_t>(factor) != 0x3f800000U;
    for (std::size_t at = 0; at < n; at += Lanes) {
        const std::size_t bytes = std::min<std::size_t>(Lanes, n - at) * sizeof(float);
        vec value = {}, way = {};
        if (bytes == sizeof value) {
            std::memcpy(&value, x + at, sizeof value);
            std::memcpy(&way, d + at, sizeof way);
        } else {
            std::memcpy(&value, x + at, bytes);
            std::memcpy(&way, d + at, bytes);
        }
        settle(value);
        flush_lanes<Lanes>(value);
        if (decay) {
            value *= factor;
            settle(value);
            flush_lanes<Lanes>(value);
        }
        const bits step = ((way > 0.0F) & up) | ((way < 0.0F) & down);
        value -= (vec)step;
        settle(value);
        flush_lanes<Lanes>(value);
        if (bytes == sizeof value)
            std::memcpy(x + at, &value, sizeof value);
        else
            std::memcpy(x + at, &value, bytes);
    }
}

/// tops[g] = the largest magnitude (as bits) among c[g], c[g + groups], c[g + 2 * groups], ... of n elements.
/// groups and n are multiples of 16.
template <int Lanes>
THINWIRE_ALWAYS_INLINE void group_tops(const float* c, std::size_t n, std::size_t groups, std::uint32_t* tops) {
    using bits = typename vector_of<std::int32_t, Lanes>::type;
    for (std::size_t g = 0; g < groups; g += Lanes) {
        bits top = {};
        for (std::size_t i = g; i < n; i += groups) {
            const bits magnitude = *reinterpret_cast<const bits*>(c + i) & 0x7fffffff;
            top = magnitude > top ? magnitude : top;
        }
        std::memcpy(tops + g, &top, sizeof top);
    }
}

/// The sum of the lanes.
template <int Lanes>
THINWIRE_ALWAYS_INLINE std::int32_t sum_of(const typename local_vector<std::int32_t, Lanes>::type& v) {
    using bits = typename local_vector<std::int32_t, Lanes>::type;
    bits sum = v;
    if constexpr (Lanes == 16)
        sum += __builtin_shufflevector(sum, sum, 8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15);
    if constexpr (Lanes == 16)
        sum += __builtin_shufflevector(sum, sum, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7);
    else if constexpr (Lanes == 8)
        sum += __builtin_shufflevector(sum, sum, 4, 5, 6, 7, 4, 5, 6, 7);
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

/// A number that at least k of the n tops reach, and about k / 16 more at most unless they are within a 64th of it.
/// n is a multiple of 16, k <= n.
template <int Lanes>
THINWIRE_ALWAYS_INLINE std::uint32_t top_floor(const std::uint32_t* tops, std::size_t n, std::size_t k) {
    using bits = typename local_vector<std::int32_t, Lanes>::type;
    using stored = typename vector_of<std::int32_t, Lanes>::type;
    bits top = {};
    for (std::size_t i = 0; i < n; i += Lanes) {
        const bits t = *reinterpret_cast<const stored*>(tops + i);
        top = t > top ? t : top;
    }
    std::int32_t above = 0;
    for (int i = 0; i < Lanes; ++i) above = std::max(above, static_cast<std::int32_t>(top[i]));
    const auto reaching = [&](std::int32_t tried) {
        bits below = {};
        for (std::size_t i = 0; i < n; i += Lanes) below += *reinterpret_cast<const stored*>(tops + i) < tried << 16;
        return static_cast<std::int32_t>(n) + sum_of<Lanes>(below);
    };
    const auto least = static_cast<std::int32_t>(k), most = least + least / 16 + 1;
    above = (above >> 16) + 1;                      // reached by none
    std::int32_t floor = std::max(0, above - 512);  // four octaves below: as a rule reached by more than enough
    if (floor > 0 && reaching(floor) < least) {
        above = floor;
        floor = 0;
    }
    while (above - floor > 1) {
        const std::int32_t tried = floor + (above - floor) / 2;
        const std::int32_t count = reaching(tried);
        (count >= least ? floor : above) = tried;
        if (count >= least && count <= most) break;
    }
    return static_cast<std::uint32_t>(floor) << 16U;
}

/// Bit i % 64 of marks[i / 64] = whether the magnitude (as bits) of c[i] reaches `floor`; floor > 0.
/// n is a multiple of 16; bits beyond it are 0. Level::reached(c, floor) gives those bits for Level::lanes elements.
template <class Level>
THINWIRE_ALWAYS_INLINE void mark_tops(const float* c, std::size_t n, std::uint32_t floor, std::uint64_t* marks) {
    const auto least = static_cast<std::int32_t>(floor);
    for (std::size_t from = 0; from < n; from += 64) {
        std::uint64_t word = 0;
        const std::size_t end = std::min(n, from + 64);
        for (std::size_t i = from; i < end; i += Level::lanes)
            word |= std::uint64_t{Level::reached(c + i, least)} << (i - from);
        marks[from / 64] = word;
    }
}

}  // namespace thinwire::detail

#endif  // THINWIRE_TRANSFORM_DETAIL_ELEMENT_KERNELS_HPP

// ---- thinwire/transform/detail/line_kernels.hpp
#ifndef THINWIRE_TRANSFORM_DETAIL_LINE_KERNELS_HPP
#define THINWIRE_TRANSFORM_DETAIL_LINE_KERNELS_HPP

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

namespace thinwire::detail {

/// `count` chunks of one row, one after the other in `lines` -> s.coefficients, in the same order, and s.middle, by
/// frequency: `count` rounded up to a multiple of 16 for each. cols.fast(); count <= line_batch; `lines` can be read up
/// to the next multiple of 16 chunks.
template <class Level>
THINWIRE_ALWAYS_INLINE void forward_lines(const basis_tables& cols, const float* lines, std::size_t count,
                                          transform_scratch& s) {
    const std::size_t w = cols.side(), whole = (count + 15) / 16 * 16;
    transpose<Level::lanes>(lines, w, s.mirrored.data(), whole, whole, w);
    fast_side<Level, false>(cols, s.mirrored.data(), s.middle.data(), whole, whole);
    transpose<Level::lanes>(s.middle.data(), whole, s.coefficients.data(), w, w, whole);
}

/// The inverse of one row with `count` coefficients -> tile (cols.full() elements). cols.fast().
/// With T = double the values are integers times 2^-22, and the result is exact as in inverse_transform().
template <class T, class Level>
THINWIRE_ALWAYS_INLINE void inverse_line(const basis_tables& cols, const std::uint16_t* positions, const T* values,
                                         std::size_t count, float* tile) {
    constexpr int lanes = Level::lanes * static_cast<int>(sizeof(float)) / static_cast<int>(sizeof(T));
    constexpr std::size_t vectors = 32 / lanes < 4 ? 32 / lanes : 4;
    using vec = typename vector_of<T, lanes>::type;
    using floats = typename vector_of<float, lanes>::type;
    const T* basis = cols.synthesis<T>();
    for (std::size_t x = 0; x < cols.full(); x += vectors * lanes) {
        vec sum[2][vectors] = {};  // two, as each addition waits for the one before
        std::size_t i = 0;
        for (; i + 2 <= count; i += 2)
#pragma GCC unroll 2
            for (std::size_t n = 0; n < 2; ++n) {
                const T* row = basis + positions[i + n] * cols.full() + x;
#pragma GCC unroll 4
                for (std::size_t v = 0; v < vectors; ++v)
                    sum[n][v] += values[i + n] * *reinterpret_cast<const vec*>(row + v * lanes);
            }
        for (; i < count; ++i) {
            const T* row = basis + positions[i] * cols.full() + x;
#pragma GCC unroll 4
            for (std::size_t v = 0; v < vectors; ++v)
                sum[0][v] += values[i] * *reinterpret_cast<const vec*>(row + v * lanes);
        }
        constexpr T unit = std::is_same_v<T, double> ? static_cast<T>(0x1p22) : T{1};
#pragma GCC unroll 4
        for (std::size_t v = 0; v < vectors; ++v)
            *reinterpret_cast<floats*>(tile + x + v * lanes) =
                __builtin_convertvector((sum[0][v] + sum[1][v]) * unit, floats);
    }
}

/// Batcher's odd-even merge sort of N numbers (AFIPS Spring Joint Computing Conference 32, 1968) as pairs to order.
template <std::size_t N>
struct sorting_network {
    struct pair {
        std::size_t low, high;
    };
    std::array<pair, N * 8> pairs{};
    std::size_t count = 0, last_merge = 0;  ///< pairs from last_merge on merge two sorted halves
    constexpr sorting_network() noexcept {
        for (std::size_t p = 1; p < N; p *= 2) {
            last_merge = count;
            for (std::size_t k = p; k > 0; k /= 2)
                for (std::size_t j = k % p; j + k < N; j += 2 * k)
                    for (std::size_t i = 0; i < k && i + j + k < N; ++i)
                        if ((i + j) / (2 * p) == (i + j + k) / (2 * p)) pairs[count++] = {i + j, i + j + k};
        }
    }
};
template <std::size_t N>
inline constexpr sorting_network<N> network{};

/// The smaller goes to the first.
template <class Bits>
THINWIRE_ALWAYS_INLINE void put_in_order(Bits& a, Bits& b) {
    const Bits less = a < b ? a : b;
    b = a < b ? b : a;
    a = less;
}

/// The pairs of network<N> from First on.
template <std::size_t N, std::size_t First, class Bits, std::size_t... I>
THINWIRE_ALWAYS_INLINE void sort_from(Bits* v, std::index_sequence<I...>) {
    (put_in_order(v[network<N>.pairs[First + I].low], v[network<N>.pairs[First + I].high]), ...);
}

/// floors[line] = the k-th largest magnitude (as bits) of c[i * stride + line] over i < n, for `lines` lines, a
/// multiple of 16. n is 32 or 64; 1 <= k <= n.
template <int Lanes>
THINWIRE_ALWAYS_INLINE void line_floors(const float* c, std::size_t n, std::size_t stride, std::size_t lines,
                                        std::size_t k, std::uint32_t* floors) {
    using stored = typename vector_of<std::int32_t, Lanes>::type;
    using bits = typename local_vector<std::int32_t, Lanes>::type;
    for (std::size_t line = 0; line < lines; line += Lanes) {
        bits sorted[64];
        for (std::size_t from = 0; from < n; from += 16) {
            bits v[16];
#pragma GCC unroll 16
            for (std::size_t i = 0; i < 16; ++i)
                v[i] = *reinterpret_cast<const stored*>(c + (from + i) * stride + line) & 0x7fffffff;
            sort_from<16, 0>(v, std::make_index_sequence<network<16>.count>());
#pragma GCC unroll 16
            for (std::size_t i = 0; i < 16; ++i) sorted[from + i] = v[i];
        }
        for (std::size_t from = 0; from < n; from += 32) {
            bits v[32];
#pragma GCC unroll 32
            for (std::size_t i = 0; i < 32; ++i) v[i] = sorted[from + i];
            constexpr std::size_t merge = network<32>.last_merge;
            sort_from<32, merge>(v, std::make_index_sequence<network<32>.count - merge>());
#pragma GCC unroll 32
            for (std::size_t i = 0; i < 32; ++i) sorted[from + i] = v[i];
        }
        // Of two rising halves: the largest number for which i of one and k - i of the other are not below it.
        const bits all = {};
        bits floor = {};
        for (std::size_t i = k > 32 ? k - 32 : 0; i <= k && i <= (n == 64 ? 32U : 0U); ++i) {
            if (k - i > 32) continue;
            const bits a = i == 0 ? all + 0x7fffffff : sorted[64 - i];
            const bits b = i == k ? all + 0x7fffffff : sorted[32 - (k - i)];
            const bits least = a < b ? a : b;
            floor = least > floor ? least : floor;
        }
        *reinterpret_cast<stored*>(floors + line) = floor;
    }
}

/// marks[line]: bit i tells whether the magnitude (as bits) of c[line * n + i] reaches floors[line]; n is 32 or 64.
template <class Level>
THINWIRE_ALWAYS_INLINE void mark_lines(const float* c, std::size_t n, std::size_t lines, const std::uint32_t* floors,
                                       std::uint64_t* marks) {
    for (std::size_t line = 0; line < lines; ++line, c += n) {
        std::uint64_t word = 0;
        for (std::size_t i = 0; i < n; i += Level::lanes)
            word |= std::uint64_t{Level::reached(c + i, static_cast<std::int32_t>(floors[line]))} << i;
        marks[line] = word;
    }
}

}  // namespace thinwire::detail

#endif  // THINWIRE_TRANSFORM_DETAIL_LINE_KERNELS_HPP

// ---- thinwire/transform/kernels.hpp
#ifndef THINWIRE_TRANSFORM_KERNELS_HPP
#define THINWIRE_TRANSFORM_KERNELS_HPP

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace thinwire {

/// What the optimizer computes with, for one instruction set. The contracts are at the functions in detail/.
/// inverse_exact, inverse_line_exact and apply_sign give the same bits at every level; the others may differ in the
/// last one.
struct transform_kernels {
    void (*forward)(const basis_tables& rows, const basis_tables& cols, const float* tile, transform_scratch& s);
    void (*inverse)(const basis_tables& rows, const basis_tables& cols, const sparse_chunk<float>& chunk, float* tile,
                    transform_scratch& s);
    void (*inverse_exact)(const basis_tables& rows, const basis_tables& cols, const sparse_chunk<double>& chunk,
                          float* tile, transform_scratch& s);
    void (*inverse_fast)(const basis_tables& rows, const basis_tables& cols, const std::uint16_t* positions,
                         const float* values, std::size_t count, float* tile, transform_scratch& s);
    void (*forward_lines)(const basis_tables& cols, const float* lines, std::size_t count, transform_scratch& s);
    void (*inverse_line)(const basis_tables& cols, const std::uint16_t* positions, const float* values,
                         std::size_t count, float* tile);
    void (*inverse_line_exact)(const basis_tables& cols, const std::uint16_t* positions, const double* values,
                               std::size_t count, float* tile);
    void (*line_floors)(const float* c, std::size_t n, std::size_t stride, std::size_t lines, std::size_t k,
                        std::uint32_t* floors);
    void (*mark_lines)(const float* c, std::size_t n, std::size_t lines, const std::uint32_t* floors,
                       std::uint64_t* marks);
    void (*update_momentum)(float* m, const float* g, const detail::panel_row& to, float decay, float gain, float taken,
                            std::ptrdiff_t ahead);
    void (*add_scaled)(float* m, const float* d, std::size_t n, float factor);
    void (*apply_sign)(float* x, const float* d, std::size_t n, float rate, float factor, std::ptrdiff_t ahead);
    void (*scan)(const float* g, std::size_t n, double& sum, std::uint32_t& largest, const detail::scan_pause& pause);
    void (*group_tops)(const float* c, std::size_t n, std::size_t groups, std::uint32_t* tops);
    std::uint32_t (*top_floor)(const std::uint32_t* tops, std::size_t n, std::size_t k);
    void (*mark_tops)(const float* c, std::size_t n, std::uint32_t floor, std::uint64_t* marks);
};

namespace detail {

/// Bit i: whether the magnitude (as bits) of c[i] is at least `least`, for as many elements as a level has lanes.
struct lanes_plain {
    static std::uint32_t reached(const float* c, std::int32_t least) noexcept {
        std::uint32_t mask = 0;
        for (unsigned i = 0; i < 4; ++i)
            mask |= ((std::bit_cast<std::int32_t>(c[i]) & 0x7fffffff) >= least ? 1U : 0U) << i;
        return mask;
    }
};
#if THINWIRE_X86_DISPATCH
// The compilers' own vectors and builtins: <immintrin.h> alone would take a sixth of the umbrella's compile time.
struct lanes_avx2 {
    THINWIRE_TARGET_AVX2 static std::uint32_t reached(const float* c, std::int32_t least) noexcept {
        using bits [[gnu::vector_size(32)]] = std::int32_t;
        using numbers [[gnu::vector_size(32)]] = float;
        bits magnitude;
        std::memcpy(&magnitude, c, sizeof magnitude);
        magnitude &= 0x7fffffff;
        return static_cast<std::uint32_t>(__builtin_ia32_movmskps256((numbers)(magnitude >= least)));
    }
};
struct lanes_avx512 {
    THINWIRE_TARGET_AVX512 static std::uint32_t reached(const float* c, std::int32_t least) noexcept {
        using bits [[gnu::vector_size(64)]] = std::int32_t;
        constexpr int at_least = 5;
        constexpr unsigned short every_lane = 0xffff;
        bits magnitude;
        std::memcpy(&magnitude, c, sizeof magnitude);
        magnitude &= 0x7fffffff;
        const bits reach = bits{} + least;
        return __builtin_ia32_cmpd512_mask(magnitude, reach, at_least, every_lane);
    }
};
#endif

// The bodies are the same at every level; only the width of their vectors and the instructions allowed differ.
#define THINWIRE_DETAIL_LEVEL(NAME, BASE, TARGET, LANES)                                                               \
    struct NAME : BASE {                                                                                               \
        static constexpr int lanes = LANES;                                                                            \
        TARGET static void gemm(const float* a, std::size_t a_row, std::size_t a_depth, const float* b,                \
                                const std::uint32_t* b_at, std::size_t depth, float* c, std::size_t c_row,             \
                                std::size_t rows, std::size_t cols) {                                                  \
            detail::gemm<float, LANES>(a, a_row, a_depth, b, b_at, depth, c, c_row, rows, cols);                       \
        }                                                                                                              \
        TARGET static void gemm(const double* a, std::size_t a_row, std::size_t a_depth, const double* b,              \
                                const std::uint32_t* b_at, std::size_t depth, double* c, std::size_t c_row,            \
                                std::size_t rows, std::size_t cols) {                                                  \
            detail::gemm<double, LANES / 2>(a, a_row, a_depth, b, b_at, depth, c, c_row, rows, cols);                  \
        }                                                                                                              \
        /* One copy for all who call it: unrolled as it is, it takes long to compile. */                               \
        template <std::size_t N, bool Walsh>                                                                           \
        [[gnu::noinline]] TARGET static void fast_columns(const float* in, std::size_t in_stride, float* out,          \
                                                          std::size_t out_stride) {                                    \
            detail::fast_columns<N, LANES, Walsh>(in, in_stride, out, out_stride);                                     \
        }                                                                                                              \
        TARGET static void forward(const basis_tables& rows, const basis_tables& cols, const float* tile,              \
                                   transform_scratch& s) {                                                             \
            forward_transform<NAME>(rows, cols, tile, s);                                                              \
        }                                                                                                              \
        TARGET static void inverse(const basis_tables& rows, const basis_tables& cols,                                 \
                                   const sparse_chunk<float>& chunk, float* tile, transform_scratch& s) {              \
            inverse_transform<float, NAME>(rows, cols, chunk, tile, s);                                                \
        }                                                                                                              \
        TARGET static void inverse_exact(const basis_tables& rows, const basis_tables& cols,                           \
                                         const sparse_chunk<double>& chunk, float* tile, transform_scratch& s) {       \
            inverse_transform<double, NAME>(rows, cols, chunk, tile, s);                                               \
        }                                                                                                              \
        TARGET static void inverse_fast(const basis_tables& rows, const basis_tables& cols,                            \
                                        const std::uint16_t* positions, const float* values, std::size_t count,        \
                                        float* tile, transform_scratch& s) {                                           \
            detail::inverse_fast<NAME>(rows, cols, positions, values, count, tile, s);                                 \
        }                                                                                                              \
        TARGET static void forward_lines(const basis_tables& cols, const float* lines, std::size_t count,              \
                                         transform_scratch& s) {                                                       \
            detail::forward_lines<NAME>(cols, lines, count, s);                                                        \
        }                                                                                                              \
        TARGET static void inverse_line(const basis_tables& cols, const std::uint16_t* positions, const float* values, \
                                        std::size_t count, float* tile) {                                              \
            detail::inverse_line<float, NAME>(cols, positions, values, count, tile);                                   \
        }                                                                                                              \
        TARGET static void inverse_line_exact(const basis_tables& cols, const std::uint16_t* positions,                \
                                              const double* values, std::size_t count, float* tile) {                  \
            detail::inverse_line<double, NAME>(cols, positions, values, count, tile);                                  \
        }                                                                                                              \
        TARGET static void line_floors(const float* c, std::size_t n, std::size_t stride, std::size_t lines,           \
                                       std::size_t k, std::uint32_t* floors) {                                         \
            detail::line_floors<LANES>(c, n, stride, lines, k, floors);                                                \
        }                                                                                                              \
        TARGET static void mark_lines(const float* c, std::size_t n, std::size_t lines, const std::uint32_t* floors,   \
                                      std::uint64_t* marks) {                                                          \
            detail::mark_lines<NAME>(c, n, lines, floors, marks);                                                      \
        }                                                                                                              \
        TARGET static void update_momentum(float* m, const float* g, const panel_row& to, float decay, float gain,     \
                                           float taken, std::ptrdiff_t ahead) {                                        \
            detail::update_momentum<LANES>(m, g, to, decay, gain, taken, ahead);                                       \
        }                                                                                                              \
        TARGET static void add_scaled(float* m, const float* d, std::size_t n, float factor) {                         \
            detail::add_scaled<LANES>(m, d, n, factor);                                                                \
        }                                                                                                              \
        TARGET static void apply_sign(float* x, const float* d, std::size_t n, float rate, float factor,               \
                                      std::ptrdiff_t ahead) {                                                          \
            detail::apply_sign<LANES>(x, d, n, rate, factor, ahead);                                                   \
        }                                                                                                              \
        TARGET static void scan(const float* g, std::size_t n, double& sum, std::uint32_t& largest,                    \
                                const scan_pause& pause) {                                                             \
            detail::scan<LANES>(g, n, sum, largest, pause);                                                            \
        }                                                                                                              \
        TARGET static void group_tops(const float* c, std::size_t n, std::size_t groups, std::uint32_t* tops) {        \
            detail::group_tops<LANES>(c, n, groups, tops);                                                             \
        }                                                                                                              \
        TARGET static std::uint32_t top_floor(const std::uint32_t* tops, std::size_t n, std::size_t k) {               \
            return detail::top_floor<LANES>(tops, n, k);                                                               \
        }                                                                                                              \
        TARGET static void mark_tops(const float* c, std::size_t n, std::uint32_t floor, std::uint64_t* marks) {       \
            detail::mark_tops<NAME>(c, n, floor, marks);                                                               \
        }                                                                                                              \
    };

THINWIRE_DETAIL_LEVEL(level_scalar, lanes_plain, , 4)
#if THINWIRE_X86_DISPATCH
THINWIRE_DETAIL_LEVEL(level_avx2, lanes_avx2, THINWIRE_TARGET_AVX2, 8)
THINWIRE_DETAIL_LEVEL(level_avx512, lanes_avx512, THINWIRE_TARGET_AVX512, 16)
#endif
#undef THINWIRE_DETAIL_LEVEL

template <class Level>
inline constexpr transform_kernels kernels_of = {
    &Level::forward,       &Level::inverse,         &Level::inverse_exact,      &Level::inverse_fast,
    &Level::forward_lines, &Level::inverse_line,    &Level::inverse_line_exact, &Level::line_floors,
    &Level::mark_lines,    &Level::update_momentum, &Level::add_scaled,         &Level::apply_sign,
    &Level::scan,          &Level::group_tops,      &Level::top_floor,          &Level::mark_tops};

}  // namespace detail

/// The kernels of a level. Precondition: the processor runs it (level <= best_isa()).
[[nodiscard]] inline const transform_kernels& kernels_for(isa level) noexcept {
#if THINWIRE_X86_DISPATCH
    if (level == isa::avx512) return detail::kernels_of<detail::level_avx512>;
    if (level == isa::avx2) return detail::kernels_of<detail::level_avx2>;
#endif
    static_cast<void>(level);
    return detail::kernels_of<detail::level_scalar>;
}

}  // namespace thinwire

#endif  // THINWIRE_TRANSFORM_KERNELS_HPP

// ---- thinwire/optim/clip.hpp
#ifndef THINWIRE_OPTIM_CLIP_HPP
#define THINWIRE_OPTIM_CLIP_HPP

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace thinwire {

namespace detail {

/// Throws value_error that names tensor and element of the first gradient that is not finite. Precondition: there is
/// one.
[[noreturn]] inline void refuse_gradient(std::span<const parameter> parameters) {
    for (const parameter& p : parameters)
        for (std::size_t i = 0; i < p.gradient.size(); ++i)
            if ((std::bit_cast<std::uint32_t>(p.gradient[i]) & 0x7fffffffU) >= 0x7f800000U)
                throw value_error("gradient of '" + p.name + "': element " + std::to_string(i) + " is " +
                                  std::to_string(p.gradient[i]) + ", expected a finite number");
    throw value_error("gradient: an element is not finite");
}

}  // namespace detail

/// Measures the gradients of the same parameters again and again. Refers to their memory; not thread-safe.
class gradient_meter {
 public:
    explicit gradient_meter(std::span<const parameter> parameters) : parameters_(parameters.begin(), parameters.end()) {
        for (const parameter& p : parameters_)
            for (std::size_t at = 0; at < p.gradient.size(); at += block)
                pieces_.push_back({.values = p.gradient.subspan(at, std::min(block, p.gradient.size() - at))});
    }

    /// The gradient of parameter i, as long as it was, lies elsewhere from now on.
    void move_gradient(std::size_t i, std::span<float> gradient) noexcept {
        std::size_t first = 0;
        for (std::size_t before = 0; before < i; ++before) first += pieces_of(parameters_[before].gradient.size());
        for (std::size_t n = 0; n < pieces_of(gradient.size()); ++n)
            pieces_[first + n].values = gradient.subspan(n * block, pieces_[first + n].values.size());
        parameters_[i].gradient = gradient;
    }

    /// The Euclidean norm of all gradients together; the same for any number of threads. Allocates nothing.
    /// Throws value_error that names tensor and element of the first gradient that is not finite.
    [[nodiscard]] double norm(thread_pool* pool = nullptr, isa level = best_isa()) {
        return norm(pool, level, [](std::size_t) noexcept {});
    }
    /// The same. A single thread gets other work done while it reads: beside(n) does a part of it that fits n
    /// gradients. It must not throw.
    template <class Beside>
    [[nodiscard]] double norm(thread_pool* pool, isa level, const Beside& beside) {
        const transform_kernels& kernels = kernels_for(level);
        const auto work = [](const void* context) {
            (*static_cast<const Beside*>(context))(detail::scan_pause::gradients);
        };
        detail::scan_pause pause;
        if (detail::lane_count(pool) == 1) pause = {.work = work, .context = &beside};
        detail::for_each_item(pool, pieces_.size(), [&](std::size_t, std::size_t i) {
            piece& p = pieces_[i];
            p.sum = 0.0;
            p.largest = 0;
            kernels.scan(p.values.data(), p.values.size(), p.sum, p.largest, pause);
        });
        double sum = 0.0;
        bool finite = true;
        for (const piece& p : pieces_) {
            sum += p.sum;
            finite = finite && p.largest < 0x7f800000U;
        }
        if (!finite) detail::refuse_gradient(parameters_);
        return std::sqrt(sum);
    }
    /// What it holds; the names of the parameters apart.
    [[nodiscard]] std::size_t memory_bytes() const noexcept { return bytes_held(parameters_, pieces_); }

 private:
    static constexpr std::size_t block = 1U << 15U;
    [[nodiscard]] static constexpr std::size_t pieces_of(std::size_t elements) noexcept {
        return (elements + block - 1) / block;
    }

    struct piece {
        std::span<const float> values;
        double sum = 0.0;
        std::uint32_t largest = 0;
    };

    std::vector<parameter> parameters_;
    std::vector<piece> pieces_;
};

/// The norm of all gradients together, once: see gradient_meter.
[[nodiscard]] inline double gradient_norm(std::span<const parameter> parameters, thread_pool* pool = nullptr,
                                          isa level = best_isa()) {
    return gradient_meter(parameters).norm(pool, level);
}

/// What gradients of this norm are multiplied by so that the norm is at most `limit` (0: no limit); as
/// torch.nn.utils.clip_grad_norm_ computes it.
[[nodiscard]] inline double clip_factor(double norm, double limit) noexcept {
    if (limit <= 0.0) return 1.0;
    return std::min(1.0, limit / (norm + 1e-6));
}

}  // namespace thinwire

#endif  // THINWIRE_OPTIM_CLIP_HPP

// ---- thinwire/optim/detail/fixed_point.hpp
#ifndef THINWIRE_OPTIM_DETAIL_FIXED_POINT_HPP
#define THINWIRE_OPTIM_DETAIL_FIXED_POINT_HPP

#include <cstdint>

namespace thinwire::detail {

/// A float32, by its bits, as the integer round(m / 2^(2 + top - e)) with its 24-bit mantissa m and exponent field e <=
/// top: at most 2^22 in magnitude. See exact_mean.hpp. The host and every device compute the mean from these two.
[[nodiscard]] THINWIRE_HOST_DEVICE constexpr std::int64_t fixed_of_bits(std::uint32_t bits,
                                                                        std::uint32_t top) noexcept {
    const std::uint32_t field = (bits >> 23U) & 0xffU;
    const std::uint64_t mantissa = (bits & 0x7fffffU) | (field == 0 ? 0U : 0x800000U);
    const std::uint32_t shift = 2 + top - (field == 0 ? 1U : field);
    if (shift > 25) return 0;
    const auto size = static_cast<std::int64_t>((mantissa + (std::uint64_t{1} << (shift - 1))) >> shift);
    return (bits >> 31U) != 0 ? -size : size;
}

/// sum / n, rounded half away from zero. Precondition: n >= 1.
[[nodiscard]] THINWIRE_HOST_DEVICE constexpr std::int64_t rounded_mean(std::int64_t sum, std::int64_t n) noexcept {
    if (n == 1) return sum;
    const std::int64_t size = sum < 0 ? -sum : sum;
    const std::int64_t rounded = (2 * size + n) / (2 * n);
    return sum < 0 ? -rounded : rounded;
}

}  // namespace thinwire::detail

#endif  // THINWIRE_OPTIM_DETAIL_FIXED_POINT_HPP

// ---- thinwire/optim/contribution_weights.hpp
#ifndef THINWIRE_OPTIM_CONTRIBUTION_WEIGHTS_HPP
#define THINWIRE_OPTIM_CONTRIBUTION_WEIGHTS_HPP

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

// ---- thinwire/optim/detail/update_kernels.hpp
#ifndef THINWIRE_OPTIM_DETAIL_UPDATE_KERNELS_HPP
#define THINWIRE_OPTIM_DETAIL_UPDATE_KERNELS_HPP

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace thinwire::detail {

/// A number that the compiler may not fold into the operation that uses it.
[[nodiscard]] inline double settled(double value) noexcept {
    keep(&value);
    return value;
}

/// As float32, what would be subnormal as 0.
[[nodiscard]] inline float normal_or_zero(double value) noexcept {
    const auto narrow = static_cast<float>(value);
    return (std::bit_cast<std::uint32_t>(narrow) & 0x7fffffffU) > 0x00800000U ? narrow : 0.0F;
}

/// 2^exponent. Precondition: -126 <= exponent <= 127.
[[nodiscard]] constexpr float power_of_two(int exponent) noexcept {
    return std::bit_cast<float>(static_cast<std::uint32_t>(exponent + 127) << 23U);
}

/// A block of floats. Each function does one IEEE operation an element and ends with a barrier, so that neither
/// contraction nor -ffast-math changes a bit; what hardware may flush to zero is zero already.
struct float_block {
    static constexpr std::size_t width = 64;
    using row = float[width];
    using lanes = vector_of<float, 4>::type;

    static void load(row& a, const float* from, std::size_t count) noexcept {
        std::memset(a, 0, sizeof a);
        std::memcpy(a, from, count * sizeof(float));
        flush_tiny<4>(a, width);
        keep(a);
    }
    static void scale(row& a, float factor) noexcept {
        for (std::size_t i = 0; i < width; i += 4) *reinterpret_cast<lanes*>(a + i) *= factor;
        keep(a);
        flush_tiny<4>(a, width);
        keep(a);
    }
    static void subtract(row& a, const row& b) noexcept {
        for (std::size_t i = 0; i < width; i += 4)
            *reinterpret_cast<lanes*>(a + i) -= *reinterpret_cast<const lanes*>(b + i);
        keep(a);
        flush_tiny<4>(a, width);
        keep(a);
    }
};

/// out = d * 2^exponent: the decoded mean of a chunk's row in true units. d are integers up to 2^53 in magnitude, as
/// floats; exponent in -169..57. Exact but for results below 2^-126, which become 0.
inline void scale_decoded(const float* d, float* out, std::size_t n, int exponent) noexcept {
    alignas(64) float_block::row block;
    for (std::size_t at = 0; at < n; at += float_block::width) {
        const std::size_t count = std::min(float_block::width, n - at);
        float_block::load(block, d + at, count);
        float_block::scale(block, power_of_two(-60));
        float_block::scale(block, power_of_two(exponent + 60));
        std::memcpy(out + at, block, count * sizeof(float));
    }
}

/// x <- factor * x - rate * d. `factor` 1 skips the product.
inline void apply_direction(float* x, const float* d, std::size_t n, float rate, float factor) noexcept {
    alignas(64) float_block::row value, step;
    const bool decay = std::bit_cast<std::uint32_t>(factor) != 0x3f800000U;
    for (std::size_t at = 0; at < n; at += float_block::width) {
        const std::size_t count = std::min(float_block::width, n - at);
        float_block::load(value, x + at, count);
        if (decay) float_block::scale(value, factor);
        float_block::load(step, d + at, count);
        float_block::scale(step, rate);
        float_block::subtract(value, step);
        std::memcpy(x + at, value, count * sizeof(float));
    }
}

}  // namespace thinwire::detail

#endif  // THINWIRE_OPTIM_DETAIL_UPDATE_KERNELS_HPP

// ---- thinwire/optim/detail/adamw_kernel.hpp
#ifndef THINWIRE_OPTIM_DETAIL_ADAMW_KERNEL_HPP
#define THINWIRE_OPTIM_DETAIL_ADAMW_KERNEL_HPP

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

// ---- thinwire/optim/update_rule.hpp
#ifndef THINWIRE_OPTIM_UPDATE_RULE_HPP
#define THINWIRE_OPTIM_UPDATE_RULE_HPP

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace thinwire {

/// What an update rule has to see at once of the decoded mean D of a tensor.
enum class update_scope {
    sign,      ///< nothing: the direction is sign(D), sign(0) = 0, and the rule is not called
    elements,  ///< any part: the rule is called with runs of at most 256 elements, from several threads
    matrix,    ///< each matrix of the last two dimensions as a whole
};

/// What a rule of scope matrix works with.
struct update_workspace {
    thread_pool* pool = nullptr;   ///< may be null; a rule uses detail::for_each_item, as the optimizer does
    isa level = isa::scalar;       ///< kernels that the processor runs
    aligned_vector<float> memory;  ///< at least what workspace() asked for; contents unspecified
};

/// The phi of  X <- (1 - rate * weight_decay) X - rate * phi(D):  how the mean of what the peers sent, transformed
/// back, becomes a direction. Given to demo_options or to a parameter_group.
///
/// Replicas stay equal only if every one of them computes the same bits: an own rule must not depend on the machine,
/// the number of threads, or on how a compiler contracts or reorders floating-point operations. Safe are comparisons,
/// choices, single operations from memory to memory, and powers of two. Const calls from several threads at once.
/// direct() and direct_matrix() must not throw: a replica that stopped halfway through a tensor could never go on.
class update_rule {
 public:
    update_rule() = default;
    update_rule(const update_rule&) = delete;
    update_rule& operator=(const update_rule&) = delete;
    virtual ~update_rule() = default;

    /// Name and settings: rules that compute something else have another name. Part of the run's fingerprint.
    [[nodiscard]] virtual std::string name() const = 0;
    /// What the rule does with a tensor of this shape.
    [[nodiscard]] virtual update_scope scope(const shape&) const { return update_scope::elements; }
    /// Multiplies the learning rate of a tensor of this shape; not its weight decay. In 2^-20..2^20.
    [[nodiscard]] virtual float rate(const shape&) const { return 1.0F; }
    /// Scope elements: d <- phi(d). Numbers must stay finite and below 2^100.
    virtual void direct(std::span<float> d) const noexcept { static_cast<void>(d); }
    /// Scope matrix: floats of working memory for one matrix.
    [[nodiscard]] virtual std::size_t workspace(std::size_t rows, std::size_t cols) const { return 0 * rows * cols; }
    /// Scope matrix: d <- phi(d), row-major. Called from one thread.
    virtual void direct_matrix(std::span<float> d, std::size_t rows, std::size_t cols,
                               update_workspace& work) const noexcept {
        static_cast<void>(rows + cols + work.memory.size());
        direct(d);
    }
};

/// phi(D) = sign(D), as the published DeMo has it: every weight moves by the learning rate.
class signum final : public update_rule {
 public:
    [[nodiscard]] std::string name() const override { return "signum"; }
    [[nodiscard]] update_scope scope(const shape&) const override { return update_scope::sign; }
};

/// phi(D) = D: the step is as long as what was sent. With gradients scaled by the learning rate (the default of
/// demo_options::gradient) the rate would enter twice.
class sgd final : public update_rule {
 public:
    [[nodiscard]] std::string name() const override { return "sgd"; }
};

using update_rule_ptr = std::shared_ptr<const update_rule>;

}  // namespace thinwire

#endif  // THINWIRE_OPTIM_UPDATE_RULE_HPP

// ---- thinwire/optim/demo_options.hpp
#ifndef THINWIRE_OPTIM_DEMO_OPTIONS_HPP
#define THINWIRE_OPTIM_DEMO_OPTIONS_HPP

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace thinwire {

/// What is added to the momentum for a gradient g.
enum class gradient_scale : std::uint8_t {
    learning_rate = 0,  ///< learning_rate * g, as the published code does
    none = 1,           ///< g, as the paper's second version writes it
    complement = 2,     ///< (1 - momentum_decay) * g: the momentum is an average
};

[[nodiscard]] constexpr std::string_view to_string(gradient_scale scale) noexcept {
    return scale == gradient_scale::none         ? "none"
           : scale == gradient_scale::complement ? "complement"
                                                 : "learning_rate";
}

/// Settings of some parameters that differ from those of the others. It holds the parameters at the positions listed,
/// and, where prefix or suffix is not empty, those whose name begins and ends so. A parameter belongs to the
/// first group that holds it; a group that holds none is refused. All peers of a run have the same groups.
struct parameter_group {
    std::vector<std::size_t> parameters{};
    std::string prefix{}, suffix{};
    float learning_rate = 1.0F;           ///< multiplies the rate: 0, or 2^-20..2^20
    std::optional<float> weight_decay{};  ///< instead of that of the options
    int k = 0;                            ///< instead of that of the options; 0: the same
    update_rule_ptr rule{};               ///< instead of that of the options; null: the same

    [[nodiscard]] bool holds(std::size_t position, std::string_view name) const noexcept {
        if (std::find(parameters.begin(), parameters.end(), position) != parameters.end()) return true;
        return !(prefix.empty() && suffix.empty()) && name.size() >= prefix.size() + suffix.size() &&
               name.starts_with(prefix) && name.ends_with(suffix);
    }
};

struct demo_options {
    float learning_rate = 1e-3F;
    float momentum_decay = 0.999F;                            ///< beta, in [0, 1)
    float alpha = 1.0F;                                       ///< part of what is sent that leaves the momentum: (0, 1]
    gradient_scale gradient = gradient_scale::learning_rate;  ///< local to each peer, as alpha and momentum_decay are
    int k = 32;                            ///< coefficients sent per chunk: 1..chunk^2; small chunks send all they have
    int chunk = 64;                        ///< side of a chunk: 1..256
    chunk_cut cut = chunk_cut::remainder;  ///< of dimensions without a divisor near `chunk`
    value_code values = value_code::f32;   ///< how a coefficient's value travels
    bool error_feedback = false;  ///< what the value code rounds away stays in the momentum; local to each peer
    std::shared_ptr<const value_codec> codec{};  ///< an own value code in place of `values`; null: none
    thinwire::basis basis{};                     ///< the transform of a chunk; the same on all peers of a run
    update_rule_ptr rule = std::make_shared<const signum>();
    float weight_decay = 0.0F;
    float clip_norm = 0.0F;                      ///< the local gradients are scaled to at most this norm; 0: never
    std::vector<parameter_group> groups{};       ///< parameters in none have the settings above
    mean_weights weights = mean_weights::equal;  ///< what a contribution weighs in the mean
    float contribution_clip = 0.0F;  ///< contributions are scaled to at most so many times the median norm of their
                                     ///< commit: 0 (never), or 1..2^20
    digest run{};                    ///< payloads of another run are refused
    isa level = best_isa();          ///< instruction set to use; replicas need not agree on it
};

/// Bytes of memory that a demo asked the allocator for and holds, itself not included.
struct demo_memory {
    std::size_t momentum = 0;   ///< the private momentum
    std::size_t workspace = 0;  ///< how tensors are cut, tables of the basis, memory of the lanes and of the rules
    std::size_t codec = 0;      ///< what was sent and received, payloads, memory of encoders and decoders

    [[nodiscard]] std::size_t total() const noexcept { return momentum + workspace + codec; }
};

/// The options with which demo computes what the published code does (github.com/bloc97/DeMo, its defaults): DCT,
/// chunks whose sides divide those of the tensor, float32 values, everything that is sent leaves the momentum,
/// gradients scaled by the learning rate, sign of the mean.
[[nodiscard]] inline demo_options reference_compatible(float learning_rate = 1e-3F, float momentum_decay = 0.999F,
                                                       int k = 32, int chunk = 64, float weight_decay = 0.0F) {
    demo_options options;
    options.learning_rate = learning_rate;
    options.momentum_decay = momentum_decay;
    options.alpha = 1.0F;
    options.gradient = gradient_scale::learning_rate;
    options.k = k;
    options.chunk = chunk;
    options.cut = chunk_cut::divisors;
    options.values = value_code::f32;
    options.error_feedback = false;
    options.basis = basis::dct();
    options.rule = std::make_shared<const signum>();
    options.weight_decay = weight_decay;
    return options;
}

namespace detail {

/// Throws value_error with field, value and expectation.
inline void require_option(bool good, const std::string& field, double value, const char* expected) {
    if (!good) throw value_error("demo: " + field + " " + std::to_string(value) + ", expected " + expected);
}

[[nodiscard]] constexpr bool sane_multiplier(float m) noexcept {
    const auto bits = std::bit_cast<std::uint32_t>(m);
    return bits == 0 || (bits >= (127U - 20U) << 23U && bits <= (127U + 20U) << 23U);
}

inline void check_group(const demo_options& o, std::size_t i) {
    const parameter_group& g = o.groups[i];
    const std::string name = "groups[" + std::to_string(i) + "].";
    require_option(sane_multiplier(g.learning_rate), name + "learning_rate", static_cast<double>(g.learning_rate),
                   "0, or 2^-20..2^20");
    require_option(g.k >= 0 && g.k <= o.chunk * o.chunk, name + "k", g.k, "0 (that of the options)..chunk^2");
    const float decay = g.weight_decay.value_or(o.weight_decay);
    require_option(sane_rate(decay), name + "weight_decay", static_cast<double>(decay), "0, or 2^-100..2^20");
    require_option(
        static_cast<double>(o.learning_rate) * static_cast<double>(g.learning_rate) * static_cast<double>(decay) <= 1.0,
        name + "weight_decay", static_cast<double>(decay), "at most 1 / learning rate of the group");
}

/// Throws value_error for what no set of parameters could be trained with.
inline demo_options checked(const demo_options& o) {
    const auto require = [](bool good, const char* field, float value, const char* expected) {
        require_option(good, field, static_cast<double>(value), expected);
    };
    require(sane_rate(o.learning_rate), "learning_rate", o.learning_rate, "0, or 2^-100..2^20");
    require(sane_rate(o.weight_decay), "weight_decay", o.weight_decay, "0, or 2^-100..2^20");
    require(static_cast<double>(o.learning_rate) * static_cast<double>(o.weight_decay) <= 1.0, "weight_decay",
            o.weight_decay, "at most 1 / learning_rate");
    require(o.momentum_decay >= 0.0F && o.momentum_decay < 1.0F, "momentum_decay", o.momentum_decay, "0 <= decay < 1");
    require(o.alpha >= 0x1p-20F && o.alpha <= 1.0F, "alpha", o.alpha, "above 0 (2^-20) and at most 1");
    require(o.clip_norm >= 0.0F && o.clip_norm < 1e30F, "clip_norm", o.clip_norm, "0 (none) or a positive norm");
    if (o.weights > mean_weights::tokens)
        throw value_error("demo: weights " + std::to_string(static_cast<int>(o.weights)) +
                          ", expected equal or tokens");
    require(o.contribution_clip == 0.0F || (o.contribution_clip >= 1.0F && o.contribution_clip <= 0x1p20F),
            "contribution_clip", o.contribution_clip, "0 (never), or 1..2^20");
    if (o.gradient > gradient_scale::complement)
        throw value_error("demo: gradient " + std::to_string(static_cast<int>(o.gradient)) +
                          ", expected learning_rate, none or complement");
    if (o.cut > chunk_cut::divisors)
        throw value_error("demo: cut " + std::to_string(static_cast<int>(o.cut)) + ", expected remainder or divisors");
    if (o.codec == nullptr)
        static_cast<void>(codec_of(o.values));
    else
        require_option(static_cast<int>(o.codec->id()) >= 128, "codec: id", static_cast<double>(o.codec->id()),
                       "128..255 for an own value code");
    if (o.rule == nullptr) throw value_error("demo: rule null, expected an update rule");
    if (o.level > best_isa())
        throw value_error("demo: level " + std::string(to_string(o.level)) + ", expected at most this machine's " +
                          std::string(to_string(best_isa())));
    for (std::size_t i = 0; i < o.groups.size(); ++i) check_group(o, i);
    return o;
}

/// What holds for one parameter.
struct tensor_settings {
    double learning_rate = 1.0;         ///< of the group
    double direction_rate = 1.0;        ///< of the rule, on top
    std::optional<float> weight_decay;  ///< none: that of the payload
    int k = 0;
    const update_rule* rule = nullptr;
    update_scope scope = update_scope::sign;
    bool keeps_rest = false;  ///< what is sent is rounded: its difference to the coefficients stays in the momentum
};

/// The settings of each parameter. Throws value_error for a group that holds none, or one that is not there.
[[nodiscard]] inline std::vector<tensor_settings> settle_groups(std::span<const parameter> parameters,
                                                                const demo_options& o) {
    const standard_float_mode mode;  // what a rule's rate() rounds is part of the fingerprint
    std::vector<tensor_settings> out(parameters.size());
    std::vector<bool> used(o.groups.size());
    for (std::size_t g = 0; g < o.groups.size(); ++g)
        for (const std::size_t position : o.groups[g].parameters)
            if (position >= parameters.size())
                throw value_error("demo: groups[" + std::to_string(g) + "].parameters: " + std::to_string(position) +
                                  ", expected below " + std::to_string(parameters.size()));
    for (std::size_t i = 0; i < parameters.size(); ++i) {
        out[i].k = o.k;
        out[i].rule = o.rule.get();
        out[i].keeps_rest = o.error_feedback;
        for (std::size_t g = 0; g < o.groups.size(); ++g) {
            const parameter_group& group = o.groups[g];
            if (!group.holds(i, parameters[i].name)) continue;
            used[g] = true;
            out[i].learning_rate = static_cast<double>(group.learning_rate);
            out[i].weight_decay = group.weight_decay;
            if (group.k > 0) out[i].k = group.k;
            if (group.rule) out[i].rule = group.rule.get();
            break;
        }
        out[i].scope = out[i].rule->scope(parameters[i].shape);
        const float rate = out[i].rule->rate(parameters[i].shape);
        require_option(sane_multiplier(rate), "rate of rule '" + out[i].rule->name() + "'", static_cast<double>(rate),
                       "0, or 2^-20..2^20");
        out[i].direction_rate = static_cast<double>(rate);
    }
    for (std::size_t g = 0; g < used.size(); ++g)
        if (!used[g])
            throw value_error("demo: groups[" + std::to_string(g) + "] holds no parameter (prefix '" +
                              o.groups[g].prefix + "', suffix '" + o.groups[g].suffix +
                              "'), expected at least one that no earlier group holds");
    return out;
}

}  // namespace detail

}  // namespace thinwire

#endif  // THINWIRE_OPTIM_DEMO_OPTIONS_HPP

// ---- thinwire/optim/detail/basis_cache.hpp
#ifndef THINWIRE_OPTIM_DETAIL_BASIS_CACHE_HPP
#define THINWIRE_OPTIM_DETAIL_BASIS_CACHE_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace thinwire::detail {

/// The tables of every side in use: one set for all tensors, or one for each tensor and round.
class basis_cache {
 public:
    explicit basis_cache(basis of) : basis_(std::move(of)) {}

    /// Stays where it is; set_round() may change what it holds. Throws what basis::table() throws.
    const basis_tables* get(std::size_t side, std::size_t tensor, std::uint32_t axis) {
        const key at = {basis_.each_round() ? tensor : 0, basis_.each_round() ? axis : 0, side};
        for (const auto& known : entries_)
            if (known->at == at) return &known->tables;
        entries_.push_back(std::make_unique<entry>(at, make(at)));
        return &entries_.back()->tables;
    }

    /// The working memory of set_round(): once for all rounds.
    void reserve(thread_pool* pool) {
        if (!basis_.each_round() || lanes_.size() == lane_count(pool)) return;
        std::size_t side = 0;
        for (const auto& e : entries_) side = std::max(side, e->at.side);
        lanes_.assign(lane_count(pool), std::vector<std::int32_t>(side * side));
    }
    /// Brings the tables of a round, where the basis has others for each.
    void set_round(std::uint64_t round, thread_pool* pool) {
        if (!basis_.each_round() || round == round_) return;
        reserve(pool);
        round_ = round;
        for_each_item(pool, entries_.size(), [&](std::size_t lane, std::size_t i) {
            entry& e = *entries_[i];
            const auto memory = std::span(lanes_[lane]).first(e.at.side * e.at.side);
            basis_.write_table(e.at.side, place_of(e.at), memory);
            e.tables.assign(memory);
        });
    }

    /// Differs when the matrices of some side in use do.
    [[nodiscard]] std::uint64_t fingerprint() const {
        byte_writer bytes;
        bytes.put(static_cast<std::uint8_t>(basis_.kind()));
        bytes.put(basis_.seed());
        bytes.put(static_cast<std::uint8_t>(basis_.each_round() ? 1 : 0));
        if (basis_.kind() == basis_kind::custom)
            for (const auto& e : entries_)
                for (const std::int32_t number : basis_.table(e->at.side)) bytes.put(number);
        return checksum64(bytes.bytes());
    }
    /// Without what a custom basis' function holds.
    [[nodiscard]] std::size_t memory_bytes() const noexcept {
        std::size_t sum = bytes_held(entries_, lanes_);
        for (const auto& e : entries_) sum += sizeof(entry) + e->tables.memory_bytes();
        for (const auto& lane : lanes_) sum += bytes_held(lane);
        return sum;
    }

 private:
    struct key {
        std::size_t tensor;
        std::uint32_t axis;
        std::size_t side;
        [[nodiscard]] bool operator==(const key&) const noexcept = default;
    };
    struct entry {
        entry(const key& where, basis_tables&& made) : at(where), tables(std::move(made)) {}
        key at;
        basis_tables tables;
    };

    [[nodiscard]] basis_tables make(const key& at) const {
        return {basis_.kind(), at.side, basis_.table(at.side, place_of(at))};
    }
    [[nodiscard]] basis::place place_of(const key& at) const noexcept {
        return {.round = round_, .tensor = at.tensor, .axis = at.axis};
    }

    basis basis_;
    std::uint64_t round_ = 0;
    std::vector<std::unique_ptr<entry>> entries_;  // in the order of their first use
    std::vector<std::vector<std::int32_t>> lanes_;
};

}  // namespace thinwire::detail

#endif  // THINWIRE_OPTIM_DETAIL_BASIS_CACHE_HPP

// ---- thinwire/optim/detail/chunk_plan.hpp
#ifndef THINWIRE_OPTIM_DETAIL_CHUNK_PLAN_HPP
#define THINWIRE_OPTIM_DETAIL_CHUNK_PLAN_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace thinwire::detail {

/// Appends ranks and sides.
inline void put_shapes(byte_writer& bytes, std::span<const parameter> parameters) {
    for (const parameter& p : parameters) {
        bytes.put(static_cast<std::uint32_t>(p.shape.rank()));
        for (const std::int64_t side : p.shape) bytes.put(side);
    }
}

/// Of dense payloads: a number that differs when ranks, sides or weights differ.
[[nodiscard]] inline std::uint64_t dense_fingerprint(std::span<const parameter> parameters, mean_weights weights) {
    byte_writer bytes;
    put_shapes(bytes, parameters);
    bytes.put(static_cast<std::uint8_t>(weights));
    return checksum64(bytes.bytes());
}

/// A number that differs when shapes differ, or anything else that all replicas must have in common. `remainders`:
/// whether some tensor has more than one region.
[[nodiscard]] inline std::uint64_t replica_fingerprint(std::span<const parameter> parameters, const demo_options& o,
                                                       std::span<const tensor_settings> settings,
                                                       std::uint64_t basis_fingerprint, bool remainders) {
    byte_writer bytes;
    put_shapes(bytes, parameters);
    bytes.put(static_cast<std::uint8_t>(o.codec != nullptr ? o.codec->id() : o.values));
    bytes.put(static_cast<std::uint32_t>(o.chunk));
    bytes.put(basis_fingerprint);
    bytes.put(static_cast<std::uint8_t>(o.weights));
    bytes.put(o.contribution_clip);
    for (const tensor_settings& s : settings) {
        bytes.put(static_cast<float>(s.learning_rate));
        bytes.put(static_cast<float>(s.direction_rate));
        bytes.put(static_cast<std::uint8_t>(s.weight_decay.has_value() ? 1 : 0));
        bytes.put(s.weight_decay.value_or(0.0F));
        bytes.put(static_cast<std::uint32_t>(s.k));
        bytes.put(std::string_view(s.rule->name()));
    }
    if (remainders) bytes.put(std::uint8_t{1});
    return checksum64(bytes.bytes());
}

/// Throws value_error where a section would not fit its 32-bit length.
inline void require_section_fits(const parameter& p, std::uint64_t bytes) {
    if (bytes > 0xffffffffU)
        throw value_error("parameter '" + p.name + "': a payload section of " + std::to_string(bytes) +
                          " bytes, expected at most 2^32 - 1");
}

/// For set_k() of an optimizer with this layout.
[[nodiscard]] inline std::uint32_t checked_k(int k, const payload_layout& layout) {
    if (k < 1 || static_cast<std::uint32_t>(k) > layout.k)
        throw value_error("set_k: " + std::to_string(k) + ", expected 1.." + std::to_string(layout.k) +
                          " (k of the options)");
    return static_cast<std::uint32_t>(k);
}

/// What the tensors of a shard are parts of: for each, the whole tensor's number and what holds for it.
struct plan_origin {
    std::vector<std::size_t> tensors;
    std::vector<tensor_settings> settings;
};

/// How all tensors are cut into regions and those into chunks, their transforms, and pieces of work of about equal
/// size.
class chunk_plan {
 public:
    /// The totals count those of the tensors before it.
    struct tensor {
        std::size_t first_region, last_region;  ///< [first, last)
        std::size_t first_element;
        std::size_t first_direction;  ///< among the tensors whose rule needs whole matrices
        tensor_settings settings;
    };
    /// The chunks of a region of a tensor: a section of every payload. The totals count those of the regions before it.
    struct region {
        std::size_t tensor;
        chunk_grid grid;
        const basis_tables* rows;
        const basis_tables* cols;
        std::size_t kept;
        std::size_t first_chunk;
        std::size_t first_coefficient;
        bool keeps_rest;  ///< tensor_settings::keeps_rest
    };
    /// Chunks [from, to) of a region, all in one row of chunks.
    struct piece {
        std::size_t region;
        std::size_t from, to;
    };

    /// `origin` where the parameters are parts of others.
    chunk_plan(std::span<const parameter> parameters, const demo_options& options, const plan_origin* origin = nullptr)
        : bases_(options.basis) {
        const int k = options.k, chunk = options.chunk;
        if (chunk < 1 || chunk > static_cast<int>(chunk_grid::max_target))
            throw value_error("demo: chunk " + std::to_string(chunk) + ", expected 1..256");
        if (k < 1 || k > chunk * chunk)
            throw value_error("demo: k " + std::to_string(k) + ", expected 1.." + std::to_string(chunk * chunk) +
                              " (the elements of a chunk)");
        layout_ = {.kind = payload_kind::demo,
                   .codec = options.codec != nullptr ? options.codec.get() : &codec_of(options.values),
                   .k = static_cast<std::uint32_t>(k),
                   .chunk = static_cast<std::uint32_t>(chunk),
                   .sections = {}};
        const std::vector<tensor_settings> settings =
            origin != nullptr ? origin->settings : settle_groups(parameters, options);
        for (std::size_t i = 0; i < parameters.size(); ++i)
            add(parameters[i], options, settings[i], origin != nullptr ? origin->tensors[i] : i);
        if (options.contribution_clip > 0.0F && coefficients_ > 0xffffffffU)
            throw value_error("demo: " + std::to_string(coefficients_) +
                              " coefficients in a payload, expected fewer than 2^32 for contribution_clip");
        layout_.fingerprint =
            replica_fingerprint(parameters, options, settings, bases_.fingerprint(), regions_.size() > tensors_.size());
    }
    chunk_plan(const chunk_plan&) = delete;
    chunk_plan& operator=(const chunk_plan&) = delete;
    chunk_plan(chunk_plan&&) = default;
    chunk_plan& operator=(chunk_plan&&) = default;

    /// The working memory of set_round().
    void reserve(thread_pool* pool) { bases_.reserve(pool); }
    /// Brings the bases of a round into the tensors' tables.
    void set_round(std::uint64_t round, thread_pool* pool) { bases_.set_round(round, pool); }

    [[nodiscard]] const payload_layout& layout() const noexcept { return layout_; }
    [[nodiscard]] std::span<const tensor> tensors() const noexcept { return tensors_; }
    /// In the order of the tensors; as many as sections.
    [[nodiscard]] std::span<const region> regions() const noexcept { return regions_; }
    [[nodiscard]] std::span<const piece> pieces() const noexcept { return pieces_; }
    [[nodiscard]] std::size_t elements() const noexcept { return elements_; }
    /// Elements of the tensors whose rule needs whole matrices.
    [[nodiscard]] std::size_t direction_elements() const noexcept { return directions_; }
    [[nodiscard]] std::size_t max_rows() const noexcept { return max_rows_; }
    [[nodiscard]] std::size_t max_cols() const noexcept { return max_cols_; }
    [[nodiscard]] std::size_t max_chunk_size() const noexcept { return max_size_; }

    [[nodiscard]] std::size_t memory_bytes() const noexcept {
        return bases_.memory_bytes() + bytes_held(layout_.sections, tensors_, regions_, pieces_);
    }

    /// The places of one chunk of a region in a content of this layout.
    [[nodiscard]] static std::size_t first_place(const region& r, std::size_t chunk) noexcept {
        return r.first_coefficient + chunk * r.kept;
    }

    /// The part of a content that belongs to one region.
    [[nodiscard]] section_slice slice(sparse_content& content, std::size_t i) const noexcept {
        return content.slice(layout_.sections[i], regions_[i].first_coefficient, regions_[i].first_chunk);
    }

 private:
    /// `number`: of the tensor, in what its bases depend on.
    void add(const parameter& p, const demo_options& options, const tensor_settings& own, std::size_t number) {
        check(p);
        const std::size_t first = regions_.size();
        for (const chunk_grid& grid : chunk_regions(p.shape, static_cast<std::size_t>(options.chunk), options.cut)) {
            const std::size_t kept = std::min(static_cast<std::size_t>(own.k), grid.chunk_size());
            require_section_fits(p, 1024 + 16 * grid.count() * kept);
            cut(grid);
            regions_.push_back({tensors_.size(), grid, bases_.get(grid.rows(), number, 0),
                                bases_.get(grid.cols(), number, 1), kept, chunks_, coefficients_, own.keeps_rest});
            layout_.sections.push_back({.chunks = grid.count(),
                                        .chunk_size = static_cast<std::uint32_t>(grid.chunk_size()),
                                        .kept = static_cast<std::uint32_t>(kept),
                                        .columns = static_cast<std::uint32_t>(grid.cols())});
            chunks_ += grid.count();
            coefficients_ += grid.count() * kept;
            max_rows_ = std::max(max_rows_, grid.rows());
            max_cols_ = std::max(max_cols_, grid.cols());
            max_size_ = std::max(max_size_, grid.chunk_size());
        }
        tensors_.push_back({first, regions_.size(), elements_, directions_, own});
        elements_ += p.shape.count();
        if (own.scope == update_scope::matrix) directions_ += p.shape.count();
    }
    void cut(const chunk_grid& grid) {
        const std::size_t per_piece = std::max<std::size_t>(1, 65536 / grid.chunk_size());
        const std::size_t across = grid.across();
        for (std::size_t row = 0; row < grid.count(); row += across)
            for (std::size_t from = row; from < row + across; from += per_piece)
                pieces_.push_back({regions_.size(), from, std::min(from + per_piece, row + across)});
    }

    payload_layout layout_;
    basis_cache bases_;
    std::vector<tensor> tensors_;
    std::vector<region> regions_;
    std::vector<piece> pieces_;
    std::size_t chunks_ = 0, coefficients_ = 0;
    std::size_t elements_ = 0, directions_ = 0;
    std::size_t max_rows_ = 1, max_cols_ = 1, max_size_ = 1;
};

}  // namespace thinwire::detail

#endif  // THINWIRE_OPTIM_DETAIL_CHUNK_PLAN_HPP

// ---- thinwire/optim/detail/replica_digest.hpp
#ifndef THINWIRE_OPTIM_DETAIL_REPLICA_DIGEST_HPP
#define THINWIRE_OPTIM_DETAIL_REPLICA_DIGEST_HPP

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

namespace thinwire::detail {

inline constexpr std::size_t digest_shares = 16;

/// Adds numbers to a digest as little-endian bytes.
inline void digest_floats(sha256& sum, std::span<const float> values) {
    if constexpr (std::endian::native == std::endian::little) {
        sum.update(std::as_bytes(values));
    } else {
        for (const float value : values) {
            byte_writer bytes;
            bytes.put(value);
            sum.update(bytes.bytes());
        }
    }
}

/// Where share `share` of 16 of a tensor lies: consecutive elements; the shares cover it.
struct share_place {
    std::size_t from, count;
};
[[nodiscard]] constexpr share_place share_of(std::size_t elements, std::size_t share) noexcept {
    const std::size_t from = elements / digest_shares * share + elements % digest_shares * share / digest_shares;
    const std::size_t next = share + 1;
    const std::size_t to = elements / digest_shares * next + elements % digest_shares * next / digest_shares;
    return {from, to - from};
}
[[nodiscard]] inline std::span<const float> digest_share(std::span<const float> values, std::size_t share) noexcept {
    const auto [from, count] = share_of(values.size(), share);
    return values.subspan(from, count);
}

}  // namespace thinwire::detail

#endif  // THINWIRE_OPTIM_DETAIL_REPLICA_DIGEST_HPP

// ---- thinwire/optim/step_report.hpp
#ifndef THINWIRE_OPTIM_STEP_REPORT_HPP
#define THINWIRE_OPTIM_STEP_REPORT_HPP

#include <cstddef>
#include <cstdint>
#include <optional>

namespace thinwire {

/// What a step did. Numbers of contributions are sums over the commits that it applied.
struct step_report {
    std::uint64_t round = 0;          ///< the last round applied
    int contributors = 0;             ///< accepted contributions
    std::uint64_t tokens = 0;         ///< that the accepted contributions state
    int rejected = 0;                 ///< contributions that were skipped: malformed, of another run or round, or made
                                      ///< with other settings, whose replicas drift away from this one
    std::optional<errc> rejection{};  ///< why the first of them; payload_decoder::validate() says it in words
    bool own_included = false;        ///< false: this peer's payload went back into its momentum
    int agreeing = 0;                 ///< contributors whose replica digest equals this replica's
    int disagreeing = 0;              ///< contributors whose replica differs: somebody's weights are wrong
    std::size_t bytes_sent = 0;       ///< this peer's payload
    std::size_t bytes_received = 0;   ///< the payloads of others
    float gradient_norm = 0.0F;       ///< of all gradients of the last begin_step together, before clipping
    float learning_rate = 0.0F;       ///< applied last
};

}  // namespace thinwire

#endif  // THINWIRE_OPTIM_STEP_REPORT_HPP

// ---- thinwire/optim/detail/round_keeper.hpp
#ifndef THINWIRE_OPTIM_DETAIL_ROUND_KEEPER_HPP
#define THINWIRE_OPTIM_DETAIL_ROUND_KEEPER_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace thinwire::detail {

/// Where the coefficients that were last sent are.
enum class sent_state : std::uint8_t {
    none = 0,       ///< nothing was sent, or it came back: it is in the momentum, to stay
    in_flight = 1,  ///< it awaits its commit and is still in the momentum
    committed = 2,  ///< still in the momentum, to be taken out of it next
};

/// Rounds, the own payload in flight and replica shares: what every optimizer keeps in the same way.
class round_keeper {
 public:
    [[nodiscard]] std::uint64_t round() const noexcept { return round_; }
    /// What is in flight for an earlier round was committed.
    void set_round(std::uint64_t round) noexcept {
        round_ = round;
        sent_ = sent();
        forget_share();
    }
    /// The weights have changed.
    void forget_share() noexcept {
        share_known_ = false;
        share_ahead_ = {};
    }
    void next_round() noexcept { set_round(round_ + 1); }

    /// A payload may be restored when the round is set already, or before.
    [[nodiscard]] sent_state sent() const noexcept {
        return sent_ == sent_state::in_flight && pending_round_ < round_ ? sent_state::committed : sent_;
    }
    [[nodiscard]] bool pending() const noexcept { return sent() == sent_state::in_flight; }
    [[nodiscard]] std::span<const std::byte> payload() const noexcept {
        return pending() ? std::span<const std::byte>(payload_) : std::span<const std::byte>();
    }
    [[nodiscard]] std::uint64_t pending_round() const noexcept { return pending_round_; }
    [[nodiscard]] peer_id pending_self() const noexcept { return pending_self_; }

    void require_none_pending() const {
        if (pending())
            throw value_error("begin_step: the payload of round " + std::to_string(pending_round_) +
                              " is still in flight, expected end_step() or abandon() first");
    }
    void require_round(const commit& c) const {
        if (c.round != round_)
            throw value_error("apply: commit of round " + std::to_string(c.round) + ", expected round " +
                              std::to_string(round_));
    }

    /// What the payloads to come state.
    [[nodiscard]] std::uint32_t tokens() const noexcept { return tokens_; }
    void set_tokens(std::uint32_t tokens) {
        if (tokens > most_tokens)
            throw value_error("set_tokens: " + std::to_string(tokens) + ", expected at most " +
                              std::to_string(most_tokens));
        tokens_ = tokens;
    }

    /// Room for a payload of so many bytes; the last one stays.
    void reserve(std::size_t bytes) { payload_.reserve(bytes); }
    /// The buffer of the last payload, to write the next one into.
    [[nodiscard]] std::vector<std::byte> reuse() noexcept { return std::move(payload_); }
    void start(peer_id self, std::uint64_t round, std::vector<std::byte>&& payload) noexcept {
        payload_ = std::move(payload);
        sent_ = sent_state::in_flight;
        pending_self_ = self;
        pending_round_ = round;
    }
    /// A part of what another one started, in bytes of its own.
    void start_as(const round_keeper& whole, std::vector<std::byte>&& payload) noexcept {
        payload_ = std::move(payload);
        sent_ = whole.sent_;
        pending_self_ = whole.pending_self_;
        pending_round_ = whole.pending_round_;
    }
    /// Nothing is in flight any longer.
    void settle(bool committed) noexcept { sent_ = committed ? sent_state::committed : sent_state::none; }
    /// What start() was last given, in flight or settled.
    [[nodiscard]] std::span<const std::byte> last_payload() const noexcept { return payload_; }
    [[nodiscard]] std::size_t memory_bytes() const noexcept { return bytes_held(payload_); }

    /// Whether this is, byte for byte, what is in flight.
    [[nodiscard]] bool is_own(const contribution& c) const noexcept {
        return pending() && c.peer == pending_self_ &&
               std::equal(c.payload.begin(), c.payload.end(), payload_.begin(), payload_.end());
    }

    /// Whether share() has been made for this round.
    [[nodiscard]] bool share_known() const noexcept { return share_known_; }
    /// The digest of this round's share of the weights; `add` adds an optimizer's own replica state to it.
    template <class Add>
    [[nodiscard]] const digest& share(std::span<const parameter> parameters, const Add& add) {
        if (!share_known_) {
            go_on_with_share(parameters, ~std::size_t{0});
            add(share_ahead_.sum, static_cast<std::size_t>(round_ % digest_shares));
            share_ = share_ahead_.sum.finish();
            share_known_ = true;
        }
        return share_;
    }
    /// Takes up to so many elements more into what share() will give: for idle moments before. The weights must not
    /// change in between.
    void go_on_with_share(std::span<const parameter> parameters, std::size_t elements) noexcept {
        if (share_known_) return;
        for (auto& [sum, tensor, at] = share_ahead_; tensor < parameters.size() && elements > 0; ++tensor, at = 0) {
            const auto values = digest_share(parameters[tensor].values, round_ % digest_shares).subspan(at);
            const std::size_t now = std::min(values.size(), elements);
            digest_floats(sum, values.first(now));
            elements -= now;
            at += now;
            if (now < values.size()) return;
        }
    }

    /// Counts an accepted contribution. The numbers of the first are applied.
    void count(step_report& report, const contribution& c, const payload_info& info) const noexcept {
        if (report.contributors++ == 0) report.learning_rate = info.learning_rate;
        if (!pending() || c.peer != pending_self_) report.bytes_received += c.payload.size();
        report.tokens += info.tokens;
        ++(info.replica == share_ ? report.agreeing : report.disagreeing);
        if (is_own(c)) report.own_included = true;
    }

    /// Counts one that is skipped.
    static void reject(step_report& report, errc why) noexcept {
        if (report.rejected++ == 0) report.rejection = why;
    }

    /// Whether an earlier contribution of the commit is from the same peer: only the first counts.
    [[nodiscard]] static bool repeated(const commit& c, std::size_t i) noexcept {
        for (std::size_t j = 0; j < i; ++j)
            if (c.contributions[j].peer == c.contributions[i].peer) return true;
        return false;
    }

    /// Adds the report of one more commit to that of a step.
    static void merge(step_report& total, const step_report& one) noexcept {
        total.round = one.round;
        total.contributors += one.contributors;
        total.tokens += one.tokens;
        if (total.rejected == 0) total.rejection = one.rejection;
        total.rejected += one.rejected;
        total.own_included = total.own_included || one.own_included;
        total.agreeing += one.agreeing;
        total.disagreeing += one.disagreeing;
        total.bytes_received += one.bytes_received;
        if (one.contributors > 0) total.learning_rate = one.learning_rate;
    }

 private:
    std::uint64_t round_ = 0;
    std::uint32_t tokens_ = 0;
    sent_state sent_ = sent_state::none;
    peer_id pending_self_ = 0;
    std::uint64_t pending_round_ = 0;
    std::vector<std::byte> payload_;
    struct {
        sha256 sum;
        std::size_t tensor = 0, at = 0;  ///< the first element of that tensor's share that is missing
    } share_ahead_;
    digest share_;
    bool share_known_ = false;
};

}  // namespace thinwire::detail

#endif  // THINWIRE_OPTIM_DETAIL_ROUND_KEEPER_HPP

// ---- thinwire/optim/detail/private_state.hpp
#ifndef THINWIRE_OPTIM_DETAIL_PRIVATE_STATE_HPP
#define THINWIRE_OPTIM_DETAIL_PRIVATE_STATE_HPP

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace thinwire::detail {

inline constexpr std::uint32_t private_magic = 0x53505754;  // "TWPS"
inline constexpr std::uint16_t private_version = 2;

[[nodiscard]] inline failure private_failure(errc code, const std::string& what) {
    return {code, "private state: " + what + " (" + std::string(to_string(code)) + ")"};
}

/// What a peer's private state consists of, and what it was made with.
struct private_view {
    const payload_layout* layout;
    const digest* run;
    float alpha;
    std::uint8_t gradient;
};

inline void put_private_header(byte_writer& out, const private_view& of, sent_state state) {
    out.put(private_magic);
    out.put(private_version);
    out.put(static_cast<std::uint8_t>(of.layout->values()));
    out.put(static_cast<std::uint8_t>(state));
    out.put(of.layout->fingerprint);
    out.put(of.layout->k);
    out.put(of.layout->chunk);
    out.put(of.alpha);
    out.put(static_cast<std::uint32_t>(of.gradient));
    out.put(std::span<const std::byte>(of.run->bytes));
}

/// Header, momentum, then round, peer, values and payload of what was last sent, then a checksum.
[[nodiscard]] inline std::vector<std::byte> save_private_state(const private_view& of, std::span<const float> momentum,
                                                               const round_keeper& rounds, const sparse_content& own) {
    const sent_state state = rounds.sent();
    std::vector<std::byte> room;
    room.reserve(128 + 4 * (momentum.size() + own.values.size()) + rounds.last_payload().size());
    byte_writer out(std::move(room));
    put_private_header(out, of, state);
    out.put(static_cast<std::uint64_t>(momentum.size()));
    out.put(momentum);
    if (state != sent_state::none) {
        out.put(rounds.pending_round());
        out.put(rounds.pending_self());
        out.put(static_cast<std::uint64_t>(own.values.size()));
        out.put(std::span<const float>(own.values));
        out.put(static_cast<std::uint64_t>(rounds.last_payload().size()));
        out.put(rounds.last_payload());
    }
    out.put(checksum64(out.bytes()));
    return out.take();
}

/// The magnitude of the largest, as bits.
[[nodiscard]] inline std::uint32_t largest_bits(std::span<const float> values) noexcept {
    std::uint32_t largest = 0;
    for (const float value : values) largest = std::max(largest, std::bit_cast<std::uint32_t>(value) & 0x7fffffffU);
    return largest;
}
/// Reads finite floats; false when there are fewer or one is not finite.
[[nodiscard]] inline bool get_floats(byte_reader& in, std::span<float> out) noexcept {
    in.get_floats(out);
    return !in.failed() && largest_bits(out) < 0x7f800000U;
}
/// Of momenta and of what was sent. begin_step() takes gradients of a norm below 2^60 in all, so that a momentum has at
/// most 2^60 / (1 - beta) <= 2^84. With 2^88 a chunk of 2^16 elements, less what was sent of it, has a norm of at most
/// 2^97: what it sends is below the 2^100 that receivers take.
inline constexpr std::uint32_t largest_private_bits = (127U + 88U) << 23U;

/// The part that is there only when something was sent.
[[nodiscard]] inline result<ok> restore_sent(byte_reader& in, const payload_layout& layout, const digest& run,
                                             round_keeper& rounds, sparse_content& own) {
    const auto round = in.get<std::uint64_t>();
    const auto self = in.get<std::uint64_t>();
    std::vector<float> values(layout.coefficients());
    if (in.get<std::uint64_t>() != values.size() || !get_floats(in, values))
        return private_failure(errc::malformed, "values sent");
    if (largest_bits(values) > largest_private_bits) return private_failure(errc::out_of_range, "values sent");
    const auto length = in.get<std::uint64_t>();
    const auto payload = in.get_bytes(length);
    if (in.failed()) return private_failure(errc::truncated, "payload sent");
    const auto info = payload_decoder(layout).decode(payload, {.run = run, .round = round, .peer = self}, own);
    if (!info) return info.error();
    own.values = std::move(values);
    rounds.start(self, round, {payload.begin(), payload.end()});
    return ok{};
}

/// Total; changes nothing when it refuses.
[[nodiscard]] inline result<ok> restore_private_state(std::span<const std::byte> bytes, const private_view& of,
                                                      aligned_vector<float>& momentum, round_keeper& rounds,
                                                      sparse_content& own) {
    constexpr std::size_t frame = 72 + 8;
    byte_reader in(bytes);
    if (in.get<std::uint32_t>() != private_magic) return private_failure(errc::bad_magic, "not one of thinwire");
    if (in.get<std::uint16_t>() != private_version) return private_failure(errc::bad_version, "format version");
    if (bytes.size() < frame) return private_failure(errc::truncated, std::to_string(bytes.size()) + " bytes");
    byte_reader tail(bytes.last(8));
    if (tail.get<std::uint64_t>() != checksum64(bytes.first(bytes.size() - 8)))
        return private_failure(errc::bad_checksum, "checksum differs");
    byte_writer expected;
    const auto flag = std::to_integer<std::uint8_t>(bytes[7]);
    if (flag > static_cast<std::uint8_t>(sent_state::committed)) return private_failure(errc::malformed, "flags");
    put_private_header(expected, of, static_cast<sent_state>(flag));
    expected.put(static_cast<std::uint64_t>(momentum.size()));
    if (bytes.size() < expected.size() || !std::equal(expected.bytes().begin(), expected.bytes().end(), bytes.begin()))
        return private_failure(errc::mismatch, "of other tensors, options or another run");
    in = byte_reader(bytes.subspan(expected.size()));
    if (in.remaining() < 8 + 4 * momentum.size()) return private_failure(errc::truncated, "momentum");
    aligned_vector<float> read(momentum.size());
    if (!get_floats(in, read)) return private_failure(errc::not_finite, "momentum");
    if (largest_bits(read) > largest_private_bits) return private_failure(errc::out_of_range, "momentum");
    round_keeper next = rounds;
    sparse_content sent = own;
    next.settle(false);
    const auto found = static_cast<sent_state>(flag);
    if (found != sent_state::none) {
        if (auto part = restore_sent(in, *of.layout, *of.run, next, sent); !part) return part;
        if (found == sent_state::committed) next.settle(true);
    }
    if (in.remaining() != 8) return private_failure(errc::trailing, "bytes after the end");
    momentum = std::move(read);
    rounds = std::move(next);
    own = std::move(sent);
    return ok{};
}

}  // namespace thinwire::detail

#endif  // THINWIRE_OPTIM_DETAIL_PRIVATE_STATE_HPP

// ---- thinwire/optim/optimizer.hpp
#ifndef THINWIRE_OPTIM_OPTIMIZER_HPP
#define THINWIRE_OPTIM_OPTIMIZER_HPP

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace thinwire {

/// An optimizer whose peers meet once a round: begin_step() turns gradients into a payload, end_step() applies what
/// was committed. demo and adamw are the two here; a training loop written against this takes either.
template <class T>
concept optimizer = requires(T& o, const T& c, peer_id self, std::span<const commit> commits, const commit& one,
                             std::uint64_t round, float rate, std::uint32_t tokens, std::span<const std::byte> bytes) {
    { o.begin_step(self) } -> std::same_as<std::span<const std::byte>>;
    { o.end_step(commits) } -> std::same_as<step_report>;
    { o.apply(one) } -> std::same_as<step_report>;
    {o.set_round(round)};
    {o.set_learning_rate(rate)};
    {o.set_tokens(tokens)};
    { c.round() } -> std::same_as<std::uint64_t>;
    { c.layout() } -> std::same_as<const payload_layout&>;
    { c.in_flight() } -> std::same_as<std::span<const std::byte>>;
    { c.replica_digest() } -> std::same_as<digest>;
    { c.save_private() } -> std::same_as<std::vector<std::byte>>;
    { o.restore_private(bytes) } -> std::same_as<result<ok>>;
    { c.save_replica() } -> std::same_as<std::vector<std::byte>>;
    { o.restore_replica(bytes) } -> std::same_as<result<ok>>;
};

}  // namespace thinwire

#endif  // THINWIRE_OPTIM_OPTIMIZER_HPP

// ---- thinwire/optim/adamw.hpp
#ifndef THINWIRE_OPTIM_ADAMW_HPP
#define THINWIRE_OPTIM_ADAMW_HPP

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace thinwire {

struct adamw_options {
    float learning_rate = 1e-3F;
    double beta1 = 0.9;
    double beta2 = 0.95;
    double epsilon = 1e-8;
    float weight_decay = 0.0F;
    float clip_norm = 0.0F;  ///< the local gradients are scaled to at most this norm before they are sent; 0: never
    mean_weights weights = mean_weights::equal;  ///< what a contribution weighs in the mean
    digest run{};
    isa level = best_isa();
};

/// AdamW (Loshchilov and Hutter, arXiv 1711.05101) on the mean of all peers' gradients: plain data parallelism over the
/// same transports, the baseline that demo is measured against. Payloads are the dense float32 gradients. Both moments
/// are part of the replica. The arithmetic is that of torch.optim.AdamW, in double with the moments and weights
/// rounded to float32, one operation at a time: replicas are bit-equal as with demo. Not thread-safe.
class adamw {
 public:
    /// Throws value_error for an option out of range, shape_error for a parameter whose spans do not fit its shape.
    adamw(std::span<const parameter> parameters, adamw_options options, thread_pool* pool = nullptr)
        : parameters_(parameters.begin(), parameters.end()),
          options_(check_options(options)),
          pool_(pool),
          meter_(parameters),
          weigher_(options_.weights, 0.0F),
          gradients_(detail::lane_count(pool)) {
        layout_ = {.kind = payload_kind::dense,
                   .fingerprint = detail::dense_fingerprint(parameters, options_.weights),
                   .sections = {}};
        std::size_t elements = 0;
        check_apart(parameters);
        for (const parameter& p : parameters) {
            check(p);
            detail::require_section_fits(p, 4 * p.shape.count());
            layout_.sections.push_back({.chunks = p.shape.count(), .chunk_size = 1, .kept = 1});
            first_.push_back(elements);
            elements += p.shape.count();
        }
        mean_.resize(elements);
        square_.resize(elements);
    }
    adamw(const adamw&) = delete;
    adamw& operator=(const adamw&) = delete;

    /// One round over a transport: begin_step, exchange, end_step.
    template <transport T>
    step_report step(T& t) {
        const auto payload = begin_step(static_cast<peer_id>(t.self()));
        return end_step(t.exchange(round(), payload));
    }

    /// The gradients as the payload for round(), valid until the next begin_step. Throws value_error, with nothing
    /// changed, when a gradient is not finite or absurdly large, or when the last payload is still in flight.
    [[nodiscard]] std::span<const std::byte> begin_step(peer_id self) {
        rounds_.require_none_pending();
        const standard_float_mode mode;
        const double norm = meter_.norm(pool_, options_.level);
        if (!(norm < 0x1p60))
            throw value_error("begin_step: gradient norm " + std::to_string(norm) + ", expected below 2^60");
        gradient_norm_ = static_cast<float>(norm);
        const auto factor = static_cast<float>(clip_factor(norm, options_.clip_norm));
        payload_info info = {.kind = payload_kind::dense,
                             .run = options_.run,
                             .round = round(),
                             .peer = self,
                             .fingerprint = layout_.fingerprint,
                             .learning_rate = options_.learning_rate,
                             .weight_decay = options_.weight_decay,
                             .tokens = rounds_.tokens(),
                             .replica = share()};
        payload_writer out(info, layout_.sections.size(), rounds_.reuse());
        for (const parameter& p : parameters_) {
            byte_writer bytes(std::move(out.begin_section()));
            for (const float g : p.gradient) bytes.put(g * factor);
            out.end_section(bytes.take());
        }
        out.finish();
        rounds_.start(self, round(), out.take());
        return rounds_.payload();
    }

    /// Applies commits in order; the first must be that of round() (value_error).
    step_report end_step(std::span<const commit> commits) {
        if (commits.empty())
            throw value_error("end_step: no commit, expected that of round " + std::to_string(round()));
        step_report report{.bytes_sent = rounds_.payload().size(), .gradient_norm = gradient_norm_};
        for (const commit& c : commits) detail::round_keeper::merge(report, apply(c));
        return report;
    }

    /// Applies the commit of round(), own or replayed. Gradients that missed their commit are lost with it.
    step_report apply(const commit& c) {
        rounds_.require_round(c);
        const standard_float_mode mode;
        step_report report{.round = c.round};
        static_cast<void>(share());
        senders_ = 0;
        weigher_.clear();
        for (std::size_t i = 0; i < c.contributions.size(); ++i) {
            const contribution& from = c.contributions[i];
            if (accepted_.size() == senders_) accepted_.emplace_back();
            payload_view& view = accepted_[senders_];
            if (detail::round_keeper::repeated(c, i)) {
                detail::round_keeper::reject(report, errc::malformed);
                continue;
            }
            if (const auto opened = open_dense_payload(
                    from.payload, layout_, {.run = options_.run, .round = c.round, .peer = from.peer}, view);
                !opened) {
                detail::round_keeper::reject(report, opened.error().code);
                continue;
            }
            rounds_.count(report, from, view.info());
            weigher_.add(view.info().tokens, 0);
            ++senders_;
        }
        if (senders_ > 0) update();
        if (rounds_.pending() && rounds_.pending_round() == c.round) rounds_.settle(false);
        rounds_.next_round();
        return report;
    }

    [[nodiscard]] std::uint64_t round() const noexcept { return rounds_.round(); }
    /// After loading a snapshot.
    void set_round(std::uint64_t round) noexcept { rounds_.set_round(round); }
    [[nodiscard]] std::span<const std::byte> in_flight() const noexcept { return rounds_.payload(); }
    /// Forgets the payload in flight.
    void abandon() noexcept { rounds_.settle(false); }

    /// For the payloads to come. Throws value_error unless 0, or 2^-100..2^20.
    void set_learning_rate(float rate) {
        adamw_options changed = options_;
        changed.learning_rate = rate;
        options_ = check_options(changed);
    }

    /// How many tokens the gradients of the payloads to come are means over; 0, as at first: not stated. Throws
    /// value_error above most_tokens.
    void set_tokens(std::uint32_t tokens) { rounds_.set_tokens(tokens); }
    [[nodiscard]] const adamw_options& options() const noexcept { return options_; }
    [[nodiscard]] const payload_layout& layout() const noexcept { return layout_; }

    /// SHA-256 of all weights, then both moments.
    [[nodiscard]] digest replica_digest() const {
        sha256 sum;
        for (const parameter& p : parameters_) detail::digest_floats(sum, p.values);
        detail::digest_floats(sum, mean_);
        detail::digest_floats(sum, square_);
        return sum.finish();
    }

    /// Nothing: gradients in flight are not kept over a restart.
    [[nodiscard]] std::vector<std::byte> save_private() const { return {}; }
    [[nodiscard]] result<ok> restore_private(std::span<const std::byte> bytes) {
        if (!bytes.empty())
            return failure{errc::trailing,
                           "adamw: private state of " + std::to_string(bytes.size()) + " bytes, expected none"};
        return ok{};
    }

    /// Both moments and the number of steps, exactly.
    [[nodiscard]] std::vector<std::byte> save_replica() const {
        byte_writer out;
        out.put(replica_magic);
        out.put(replica_version);
        out.put(layout_.fingerprint);
        out.put(power1_);
        out.put(power2_);
        out.put(static_cast<std::uint64_t>(mean_.size()));
        out.put(std::span<const float>(mean_));
        out.put(std::span<const float>(square_));
        out.put(checksum64(out.bytes()));
        return out.take();
    }
    /// Reads what save_replica() wrote for the same tensors. Total; nothing changes when refused.
    [[nodiscard]] result<ok> restore_replica(std::span<const std::byte> bytes) {
        const auto refuse = [](errc code, const char* what) {
            return failure{code,
                           "adamw replica state: " + std::string(what) + " (" + std::string(to_string(code)) + ")"};
        };
        byte_reader in(bytes);
        if (in.get<std::uint32_t>() != replica_magic) return refuse(errc::bad_magic, "not one of thinwire");
        if (in.get<std::uint32_t>() != replica_version) return refuse(errc::bad_version, "format version");
        if (bytes.size() < 48) return refuse(errc::truncated, "header");
        byte_reader tail(bytes.last(8));
        if (tail.get<std::uint64_t>() != checksum64(bytes.first(bytes.size() - 8)))
            return refuse(errc::bad_checksum, "checksum differs");
        if (in.get<std::uint64_t>() != layout_.fingerprint) return refuse(errc::mismatch, "of other tensors");
        const double power1 = in.get_f64(), power2 = in.get_f64();
        if (!(power1 >= 0.0 && power1 <= 1.0 && power2 >= 0.0 && power2 <= 1.0))
            return refuse(errc::out_of_range, "powers");
        if (in.get<std::uint64_t>() != mean_.size()) return refuse(errc::mismatch, "of other tensors");
        aligned_vector<float> mean(mean_.size()), square(mean_.size());
        if (!detail::get_floats(in, mean) || !detail::get_floats(in, square))
            return refuse(errc::not_finite, "moments");
        if (std::any_of(square.begin(), square.end(), [](float s) { return s < 0.0F; }))
            return refuse(errc::out_of_range, "a negative second moment");
        if (in.remaining() != 8) return refuse(errc::trailing, "bytes after the end");
        mean_ = std::move(mean);
        square_ = std::move(square);
        power1_ = power1;
        power2_ = power2;
        rounds_.forget_share();
        return ok{};
    }

 private:
    static constexpr std::uint32_t replica_magic = 0x52415754;  // "TWAR"
    static constexpr std::uint32_t replica_version = 1;

    static adamw_options check_options(const adamw_options& o) {
        const auto require = [](bool good, const char* name, double value, const char* expected) {
            if (!good)
                throw value_error("adamw: " + std::string(name) + " " + std::to_string(value) + ", expected " +
                                  expected);
        };
        require(detail::sane_rate(o.learning_rate), "learning_rate", o.learning_rate, "0, or 2^-100..2^20");
        require(detail::sane_rate(o.weight_decay), "weight_decay", o.weight_decay, "0, or 2^-100..2^20");
        require(static_cast<double>(o.learning_rate) * static_cast<double>(o.weight_decay) <= 1.0, "weight_decay",
                o.weight_decay, "at most 1 / learning_rate");
        require(o.beta1 >= 0.0 && o.beta1 < 1.0, "beta1", o.beta1, "0 <= beta1 < 1");
        require(o.beta2 >= 0.0 && o.beta2 < 1.0, "beta2", o.beta2, "0 <= beta2 < 1");
        require(o.epsilon >= 1e-30 && o.epsilon <= 1.0, "epsilon", o.epsilon, "1e-30..1");
        require(o.clip_norm >= 0.0F && o.clip_norm < 1e30F, "clip_norm", o.clip_norm, "0 (none) or a positive norm");
        if (o.weights > mean_weights::tokens)
            throw value_error("adamw: weights " + std::to_string(static_cast<int>(o.weights)) +
                              ", expected equal or tokens");
        if (o.level > best_isa())
            throw value_error("adamw: level " + std::string(to_string(o.level)) + ", expected at most this machine's " +
                              std::string(to_string(best_isa())));
        return o;
    }

    const digest& share() {
        return rounds_.share(parameters_, [this](sha256& sum, std::size_t part) {
            detail::digest_floats(sum, detail::digest_share(mean_, part));
            detail::digest_floats(sum, detail::digest_share(square_, part));
        });
    }

    void update() {
        const payload_info& rates = accepted_.front().info();
        power1_ = detail::settled(power1_ * options_.beta1);
        power2_ = detail::settled(power2_ * options_.beta2);
        const double rate = static_cast<double>(rates.learning_rate);
        const std::span<const contribution_weight> weights = weigher_.finish();
        std::uint64_t sum = weights.empty() ? senders_ : 0;
        for (const contribution_weight& w : weights) sum += w.weight;
        const detail::adamw_step step = {
            .gradient_weight = detail::settled(1.0 / static_cast<double>(sum)),
            .beta1_rest = detail::settled(1.0 - options_.beta1),
            .beta2 = options_.beta2,
            .beta2_rest = detail::settled(1.0 - options_.beta2),
            .root_correction = detail::settled(1.0 / detail::settled(std::sqrt(detail::settled(1.0 - power2_)))),
            .epsilon = options_.epsilon,
            .step_size = detail::settled(rate / detail::settled(1.0 - power1_)),
            .decay = detail::settled(1.0 - detail::settled(rate * static_cast<double>(rates.weight_decay)))};
        for (auto& lane : gradients_) lane.resize(senders_);
        constexpr std::size_t piece = 1U << 14U;
        for (std::size_t i = 0; i < parameters_.size(); ++i) {
            const std::span<float> x = parameters_[i].values;
            detail::for_each_item(pool_, (x.size() + piece - 1) / piece, [&](std::size_t lane, std::size_t n) {
                std::vector<const std::byte*>& gradients = gradients_[lane];
                const std::size_t end = std::min(x.size(), (n + 1) * piece);
                for (std::size_t at = n * piece; at < end; at += detail::adamw_block::width) {
                    for (std::size_t r = 0; r < senders_; ++r) gradients[r] = accepted_[r].section(i).data() + 4 * at;
                    detail::adamw_update(step, gradients, weights, x.data() + at, mean_.data() + first_[i] + at,
                                         square_.data() + first_[i] + at,
                                         std::min(detail::adamw_block::width, end - at));
                }
            });
        }
    }

    std::vector<parameter> parameters_;
    adamw_options options_;
    thread_pool* pool_;
    payload_layout layout_;
    std::vector<std::size_t> first_;
    aligned_vector<float> mean_, square_;
    double power1_ = 1.0, power2_ = 1.0;  ///< beta1 and beta2 to the number of steps
    detail::round_keeper rounds_;
    float gradient_norm_ = 0.0F;
    gradient_meter meter_;
    contribution_weights weigher_;
    std::vector<payload_view> accepted_;  ///< of the commit at hand: the first senders_
    std::size_t senders_ = 0;
    std::vector<std::vector<const std::byte*>> gradients_;  ///< of each lane: where it reads what each peer sent
};

static_assert(optimizer<adamw>);

}  // namespace thinwire

#endif  // THINWIRE_OPTIM_ADAMW_HPP

// ---- thinwire/optim/detail/exact_mean.hpp
#ifndef THINWIRE_OPTIM_DETAIL_EXACT_MEAN_HPP
#define THINWIRE_OPTIM_DETAIL_EXACT_MEAN_HPP

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

// ---- thinwire/optim/detail/chunk_worker.hpp
#ifndef THINWIRE_OPTIM_DETAIL_CHUNK_WORKER_HPP
#define THINWIRE_OPTIM_DETAIL_CHUNK_WORKER_HPP

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace thinwire::detail {

/// The working memory of one thread and what it does to chunks.
class chunk_worker {
 public:
    chunk_worker(const chunk_plan& plan, const transform_kernels& kernels)
        : kernels_(&kernels),
          scratch_(plan.max_rows(), plan.max_cols()),
          panel_(std::max(panel_elements, scratch_.tile.size())),
          local_(plan.max_chunk_size()),
          exact_(plan.max_chunk_size()),
          mean_(plan.max_chunk_size()) {
        keys_.reserve(plan.max_chunk_size());
        tops_.reserve(scratch_.coefficients.size());
        marks_.reserve(scratch_.coefficients.size() / 64 + 1);
    }

    /// What encode() does to every chunk.
    struct step {
        float decay, gain;
        float taken;       ///< of what `content` holds
        std::size_t most;  ///< coefficients of a chunk that are sent: at most those that the region keeps
    };

    /// For chunks [from, to), all in one row of chunks, m and g those of chunk `from`:
    /// m <- m - taken * what `content` holds of the chunk, if taken > 0; m <- decay * m + gain * g; the coefficients
    /// to send -> content. They stay in m until the next call, or take_out(): nothing has to be put back if they are
    /// lost.
    void encode(const chunk_plan::region& t, std::size_t from, std::size_t to, float* m, const float* g,
                const step& how, const value_codec& codec, sparse_content& content) {
        const std::size_t tile = t.grid.rows() * t.cols->full(), w = t.grid.cols();
        const bool line = spectrum_layout{*t.rows, *t.cols}.line();
        const std::size_t most = line ? line_batch : std::max<std::size_t>(1, panel_elements / tile);
        for (; from < to; from += most) {
            const std::size_t count = std::min(most, to - from);
            fill_panel(t, from, count, m, g, how, content);
            if (line)
                choose_lines(t, from, count, how.most, codec, content);
            else
                for (std::size_t c = 0; c < count; ++c) {
                    kernels_->forward(*t.rows, *t.cols, panel_.data() + c * tile, scratch_);
                    choose(t, from + c, scratch_.coefficients.data(), how.most, codec, content);
                }
            m += count * w;
            g += count * w;
        }
    }

    /// m <- m - factor * inverse transform of what `content` holds of this chunk.
    void take_out(const chunk_plan::region& t, std::size_t chunk, float* m, const sparse_content& content,
                  float factor) {
        const std::size_t h = t.grid.rows(), w = t.grid.cols();
        if (factor == 1.0F && all_sent(t, chunk, content)) {
            for (std::size_t r = 0; r < h; ++r) std::fill_n(m + r * t.grid.stride(), w, 0.0F);
            return;
        }
        decode(t, chunk, content, scratch_.tile.data());
        for (std::size_t r = 0; r < h; ++r)
            kernels_->add_scaled(m + r * t.grid.stride(), scratch_.tile.data() + r * t.cols->full(), w, -factor);
    }

    /// What the senders of a commit sent, and what each weighs: no weights where all count alike.
    struct senders {
        std::span<const sparse_content* const> contents;
        std::span<const contribution_weight> weights{};
    };

    /// For chunks [from, to), all in one row of chunks, x that of chunk `from`:
    /// x <- factor * x - rate * sign(inverse transform of the mean over the senders).
    void apply(const chunk_plan::region& t, std::size_t from, std::size_t to, float* x, const senders& sent, float rate,
               float factor) {
        const std::size_t h = t.grid.rows(), w = t.grid.cols(), stride = t.grid.stride(), full = t.cols->full();
        const std::size_t most = std::max<std::size_t>(1, panel_elements / (h * full));
        for (; from < to; from += most) {
            const std::size_t count = std::min(most, to - from);
            for (std::size_t c = 0; c < count; ++c) decode_mean(t, from + c, sent, panel_.data() + c * h * full);
            for (std::size_t r = 0; r < h; ++r)
                for (std::size_t c = 0; c < count; ++c)
                    kernels_->apply_sign(x + r * stride + c * w, panel_.data() + (c * h + r) * full, w, rate, factor,
                                         ahead(t, r, count));
            x += count * w;
        }
    }

    /// The inverse transform of the mean over the senders, as apply() uses it: rows of cols->full() elements in units
    /// of 2^exponent().
    const float* decode_mean(const chunk_plan::region& t, std::size_t chunk, const senders& sent) {
        decode_mean(t, chunk, sent, scratch_.tile.data());
        return scratch_.tile.data();
    }
    [[nodiscard]] int exponent() const noexcept { return mean_.scale_exponent(); }
    [[nodiscard]] std::size_t memory_bytes() const noexcept {
        return scratch_.memory_bytes() + local_.memory_bytes() + exact_.memory_bytes() + mean_.memory_bytes() +
               bytes_held(panel_, tops_, marks_, keys_);
    }

 private:
    /// What a panel holds: as much of a row of chunks as stays in the second cache, so that the rows of the matrix are
    /// read in long runs. The rows of one chunk would be far apart, in the same few cache sets.
    static constexpr std::size_t panel_elements = 65536;

    void decode_mean(const chunk_plan::region& t, std::size_t chunk, const senders& sent, float* tile) {
        const std::size_t place = chunk_plan::first_place(t, chunk);
        const auto count = [&](const sparse_content& c) { return c.counts[t.first_chunk + chunk]; };
        mean_.clear();
        if (sent.weights.empty()) {
            for (const sparse_content* c : sent.contents) mean_.measure(std::span(c->values).subspan(place, count(*c)));
            for (const sparse_content* c : sent.contents)
                mean_.add(std::span(c->positions).subspan(place, count(*c)),
                          std::span(c->values).subspan(place, count(*c)));
        } else {
            for (std::size_t i = 0; i < sent.contents.size(); ++i)
                mean_.measure(std::span(sent.contents[i]->values).subspan(place, count(*sent.contents[i])),
                              sent.weights[i].shift);
            for (std::size_t i = 0; i < sent.contents.size(); ++i) {
                const sparse_content& c = *sent.contents[i];
                mean_.add(std::span(c.positions).subspan(place, count(c)), std::span(c.values).subspan(place, count(c)),
                          sent.weights[i]);
            }
        }
        mean_.finish(sent.weights.empty());
        if (spectrum_layout{*t.rows, *t.cols}.line()) {
            kernels_->inverse_line_exact(*t.cols, mean_.positions().data(), mean_.means().data(),
                                         mean_.positions().size(), tile);
            return;
        }
        exact_.assign(mean_.positions(), mean_.means(), t.grid.cols());
        kernels_->inverse_exact(*t.rows, *t.cols, exact_, tile, scratch_);
    }

    /// How far from row r of a panel of `count` chunks lies what is wanted next but one: two rows down, or in the panel
    /// to the right.
    static std::ptrdiff_t ahead(const chunk_plan::region& t, std::size_t r, std::size_t count) noexcept {
        const std::size_t h = t.grid.rows(), row = (r + 2) % h;
        return (static_cast<std::ptrdiff_t>(row) - static_cast<std::ptrdiff_t>(r)) *
                   static_cast<std::ptrdiff_t>(t.grid.stride()) +
               static_cast<std::ptrdiff_t>(r + 2 < h ? 0 : count * t.grid.cols());
    }

    /// Brings the momentum of `count` chunks up to date and a copy of them into panel_, one after the other.
    void fill_panel(const chunk_plan::region& t, std::size_t first, std::size_t count, float* m, const float* g,
                    const step& how, const sparse_content& content) {
        const std::size_t h = t.grid.rows(), w = t.grid.cols(), stride = t.grid.stride();
        const std::size_t full = t.cols->full(), tile = h * full;
        std::size_t whole = 0;  // chunks of which nothing remains
        if (how.taken > 0.0F)
            for (std::size_t c = 0; c < count; ++c) {
                if (how.taken == 1.0F && all_sent(t, first + c, content)) {
                    for (std::size_t r = 0; r < h; ++r) std::fill_n(m + r * stride + c * w, w, 0.0F);
                    std::fill_n(panel_.data() + c * tile, tile, 0.0F);
                    ++whole;
                } else {
                    decode(t, first + c, content, panel_.data() + c * tile);
                }
            }
        for (std::size_t r = 0; r < h; ++r)
            kernels_->update_momentum(
                m + r * stride, g + r * stride,
                {.out = panel_.data() + r * full, .chunks = count, .width = w, .full = full, .apart = tile}, how.decay,
                how.gain, whole == count ? 0.0F : how.taken, ahead(t, r, count));
    }
    /// Whether nothing of a chunk stays in the momentum, not even what rounding would leave.
    static bool all_sent(const chunk_plan::region& t, std::size_t chunk, const sparse_content& content) noexcept {
        return !t.keeps_rest && content.counts[t.first_chunk + chunk] == t.grid.chunk_size();
    }

    /// choose() for at most line_batch chunks in panel_, of one row each.
    void choose_lines(const chunk_plan::region& t, std::size_t first, std::size_t count, std::size_t k,
                      const value_codec& codec, sparse_content& content) {
        const std::size_t w = t.grid.cols(), whole = (count + 15) / 16 * 16;
        kernels_->forward_lines(*t.cols, panel_.data(), count, scratch_);
        const float* c = scratch_.coefficients.data();
        std::array<std::uint32_t, line_batch> floors;
        std::array<std::uint64_t, line_batch> marks;
        kernels_->line_floors(scratch_.middle.data(), w, whole, whole, k, floors.data());
        kernels_->mark_lines(c, w, count, floors.data(), marks.data());
        for (std::size_t line = 0; line < count; ++line, c += w) {
            if (static_cast<std::size_t>(std::popcount(marks[line])) == k && floors[line] != 0)
                take_marked(t, first + line, c, marks[line], content);
            else  // several are as large as the last one that is kept
                choose(t, first + line, c, k, codec, content);
        }
    }
    /// The marked coefficients, none of them 0, of a chunk of one row -> content.
    static void take_marked(const chunk_plan::region& t, std::size_t chunk, const float* c, std::uint64_t marks,
                            sparse_content& content) noexcept {
        const std::size_t place = chunk_plan::first_place(t, chunk);
        std::uint32_t count = 0;
        for (; marks != 0; marks &= marks - 1, ++count) {
            const int position = std::countr_zero(marks);
            content.positions[place + count] = static_cast<std::uint16_t>(position);
            content.values[place + count] = c[position];
        }
        content.counts[t.first_chunk + chunk] = count;
    }

    /// The k largest of a chunk's coefficients -> content.
    void choose(const chunk_plan::region& t, std::size_t chunk, const float* coefficients, std::size_t k,
                const value_codec& codec, sparse_content& content) {
        const spectrum_layout layout = {*t.rows, *t.cols};
        const std::size_t place = chunk_plan::first_place(t, chunk);
        const auto positions = std::span(content.positions).subspan(place, k);
        const auto values = std::span(content.values).subspan(place, k);
        select(t, layout, coefficients, positions);
        std::size_t count = 0;
        for (std::size_t i = 0; i < k; ++i) {
            const float value = coefficients[layout.place(positions[i])];
            if (value == 0.0F && !codec.sends_zero()) continue;
            positions[count] = positions[i];
            values[count++] = value;
        }
        content.counts[t.first_chunk + chunk] = static_cast<std::uint32_t>(count);
    }

    void select(const chunk_plan::region& t, const spectrum_layout& layout, const float* c,
                std::span<std::uint16_t> positions) {
        if (positions.size() == t.grid.chunk_size()) {
            for (std::size_t i = 0; i < positions.size(); ++i) positions[i] = static_cast<std::uint16_t>(i);
            return;
        }
        const std::size_t n = layout.size(), groups = top_k_groups(n, positions.size());
        tops_.resize(groups);
        marks_.resize((n + 63) / 64);
        kernels_->group_tops(c, n, groups, tops_.data());
        const std::uint32_t floor = kernels_->top_floor(tops_.data(), groups, positions.size());
        kernels_->mark_tops(c, n, floor, marks_.data());
        select_top_k(
            std::span(c, n), marks_, [&layout](std::size_t i) { return layout.position(i); }, keys_, positions);
    }

    /// The inverse transform of what `content` holds of a chunk -> tile.
    void decode(const chunk_plan::region& t, std::size_t chunk, const sparse_content& content, float* tile) {
        const std::size_t place = chunk_plan::first_place(t, chunk);
        const std::size_t count = content.counts[t.first_chunk + chunk];
        if (spectrum_layout{*t.rows, *t.cols}.line()) {
            kernels_->inverse_line(*t.cols, content.positions.data() + place, content.values.data() + place, count,
                                   tile);
            return;
        }
        if (t.rows->fast() && t.cols->fast()) {
            kernels_->inverse_fast(*t.rows, *t.cols, content.positions.data() + place, content.values.data() + place,
                                   count, tile, scratch_);
            return;
        }
        local_.assign(std::span(content.positions).subspan(place, count),
                      std::span(content.values).subspan(place, count), t.grid.cols());
        kernels_->inverse(*t.rows, *t.cols, local_, tile, scratch_);
    }

    const transform_kernels* kernels_;
    transform_scratch scratch_;
    aligned_vector<float> panel_;
    sparse_chunk<float> local_;
    sparse_chunk<double> exact_;
    exact_mean mean_;
    std::vector<std::uint32_t> tops_;
    std::vector<std::uint64_t> marks_, keys_;
};

}  // namespace thinwire::detail

#endif  // THINWIRE_OPTIM_DETAIL_CHUNK_WORKER_HPP

// ---- thinwire/optim/detail/payload_lanes.hpp
#ifndef THINWIRE_OPTIM_DETAIL_PAYLOAD_LANES_HPP
#define THINWIRE_OPTIM_DETAIL_PAYLOAD_LANES_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace thinwire::detail {

/// Sections are encoded and contributions decoded by all threads of a pool, wherever the coefficients come from and go
/// to. Refers to the layout and the pool.
class payload_lanes {
 public:
    /// An own value code may throw and encodes on one thread: `own_code`.
    payload_lanes(const payload_layout& layout, thread_pool* pool, bool own_code)
        : layout_(&layout),
          pool_(pool),
          decoders_(lane_count(pool), payload_decoder(layout)),
          coders_(lane_count(pool), section_coder(layout)),
          encoded_(lane_count(pool) > 1 && !own_code ? layout.sections.size() : 0) {}

    /// All memory that encode() needs.
    void reserve() {
        for (std::size_t i = 0; i < encoded_.size(); ++i)
            encoded_[i].reserve(room_of_section(layout_->sections[i], *layout_->codec));
    }
    /// The same for payloads that state `k`.
    void reserve(std::uint32_t k) {
        for (section_coder& coder : coders_) coder.reserve(*layout_, k);
    }

    /// Sections [from, to) -> out, slice_of(i) being what section i holds; calls pass_on() after each.
    template <class Slice, class PassOn>
    void encode(std::size_t from, std::size_t to, std::uint32_t k, const Slice& slice_of, payload_writer& out,
                const PassOn& pass_on) {
        const bool parallel = !encoded_.empty() && to - from > 1;
        if (parallel)
            for_each_item(pool_, to - from, [&](std::size_t lane, std::size_t n) {
                const std::size_t i = from + n;
                encoded_[i].clear();
                coders_[lane].encode(layout_->section(i, k), slice_of(i), encoded_[i]);
            });
        for (std::size_t i = from; i < to; ++i) {
            if (parallel) {
                out.append_section(encoded_[i]);
            } else {
                coders_[0].encode(layout_->section(i, k), slice_of(i), out.begin_section());
                out.end_section();
            }
            pass_on();
        }
    }

    /// Decodes contribution i of a commit into content_of(lane, i), then calls decoded(lane, i), unless it is refused;
    /// and their norms where they are wanted. Beside all that calls beside().
    template <class Content, class Decoded, class Beside>
    void decode(const commit& c, const digest& run, bool with_norms, const Content& content_of, const Decoded& decoded,
                const Beside& beside) {
        const std::size_t n = c.contributions.size();
        headers_.assign(n, std::nullopt);
        refusals_.assign(n, errc::malformed);
        norms_.assign(n, 0);
        for_each_item(pool_, n + 1, [&](std::size_t lane, std::size_t item) {
            if (item == 0) return beside();
            const std::size_t i = item - 1;
            if (round_keeper::repeated(c, i)) return;
            const contribution& from = c.contributions[i];
            sparse_content& content = content_of(lane, i);
            const auto info =
                decoders_[lane].decode(from.payload, {.run = run, .round = c.round, .peer = from.peer}, content);
            if (!info) {
                refusals_[i] = info.error().code;
                return;
            }
            headers_[i] = *info;
            if (with_norms) norms_[i] = norm_of(*layout_, content);
            decoded(lane, i);
        });
    }
    /// Counts what decode() found, and what it weighs; calls accept(i) for each that was accepted, in their order.
    template <class Accept>
    [[nodiscard]] step_report count(const commit& c, const round_keeper& rounds, contribution_weights& weigher,
                                    const Accept& accept) const {
        step_report report{.round = c.round};
        weigher.clear();
        for (std::size_t i = 0; i < c.contributions.size(); ++i) {
            if (!headers_[i]) {
                round_keeper::reject(report, refusals_[i]);
                continue;
            }
            rounds.count(report, c.contributions[i], *headers_[i]);
            weigher.add(headers_[i]->tokens, norms_[i]);
            accept(i);
        }
        return report;
    }
    [[nodiscard]] bool accepted(std::size_t i) const noexcept { return headers_[i].has_value(); }
    /// Whose numbers are applied: the header of the first that was accepted; null when none was.
    [[nodiscard]] const payload_info* first() const noexcept {
        const auto it = std::ranges::find_if(headers_, [](const auto& header) { return header.has_value(); });
        return it == headers_.end() ? nullptr : &**it;
    }

    [[nodiscard]] std::size_t memory_bytes() const noexcept {
        std::size_t held = bytes_held(decoders_, coders_, encoded_, headers_, refusals_, norms_) +
                           decoders_.front().table_bytes() + coders_.front().table_bytes();
        for (const auto& decoder : decoders_) held += decoder.memory_bytes();
        for (const auto& coder : coders_) held += coder.memory_bytes();
        for (const auto& section : encoded_) held += bytes_held(section);
        return held;
    }

 private:
    const payload_layout* layout_;
    thread_pool* pool_;
    std::vector<payload_decoder> decoders_;
    std::vector<section_coder> coders_;
    std::vector<std::vector<std::byte>> encoded_;  ///< sections made by several lanes
    std::vector<std::optional<payload_info>> headers_;
    std::vector<errc> refusals_;        ///< where there is no header
    std::vector<std::uint64_t> norms_;  ///< of the contributions
};

}  // namespace thinwire::detail

#endif  // THINWIRE_OPTIM_DETAIL_PAYLOAD_LANES_HPP

// ---- thinwire/optim/detail/update_rates.hpp
#ifndef THINWIRE_OPTIM_DETAIL_UPDATE_RATES_HPP
#define THINWIRE_OPTIM_DETAIL_UPDATE_RATES_HPP

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <string>

namespace thinwire::detail {

/// The numbers of a tensor's update, the same on every host: x <- factor * x - step * direction.
struct update_rates {
    float step, factor;
};
/// From those of the payload.
[[nodiscard]] inline update_rates rates_of(const tensor_settings& s, const payload_info& info) noexcept {
    const double rate = settled(static_cast<double>(info.learning_rate) * s.learning_rate);
    const double decay = static_cast<double>(s.weight_decay.value_or(info.weight_decay));
    return {.step = normal_or_zero(settled(rate * s.direction_rate)),
            .factor = static_cast<float>(std::max(0.0, settled(1.0 - settled(rate * decay))))};
}

/// What a gradient is multiplied by before it is clipped.
[[nodiscard]] inline double gradient_gain(const demo_options& o) noexcept {
    if (o.gradient == gradient_scale::none) return 1.0;
    if (o.gradient == gradient_scale::complement) return 1.0 - static_cast<double>(o.momentum_decay);
    return static_cast<double>(o.learning_rate);
}
/// The same and clipped, for gradients of this norm together. Throws value_error where they would be absurdly large.
[[nodiscard]] inline double checked_gain(const demo_options& o, double norm) {
    const double gain = gradient_gain(o) * clip_factor(norm, o.clip_norm);
    if (!(norm * gain < 0x1p60))
        throw value_error("begin_step: gradient norm " + std::to_string(norm) + " times " + std::to_string(gain) +
                          " (gradient " + std::string(to_string(o.gradient)) + "), expected below 2^60");
    return gain;
}

/// Replaces what a chunk sends by what receivers decode. A sign has no length: here it is the mean magnitude.
inline void round_sent(std::span<float> values, const value_codec& codec) noexcept {
    if (codec.id() != value_code::sign) return codec.round(values);
    double sum = 0.0;
    for (const float value : values) sum += std::abs(static_cast<double>(value));
    const auto length = static_cast<float>(sum / static_cast<double>(std::max<std::size_t>(1, values.size())));
    for (float& value : values) value = std::copysign(length, value);
}

}  // namespace thinwire::detail

#endif  // THINWIRE_OPTIM_DETAIL_UPDATE_RATES_HPP

// ---- thinwire/optim/demo.hpp
#ifndef THINWIRE_OPTIM_DEMO_HPP
#define THINWIRE_OPTIM_DEMO_HPP

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace thinwire {

class sharded_demo;

/// Decoupled momentum optimization (Peng, Quesnelle, Kingma: arXiv 2411.19870; the second version of the paper adds
/// alpha and the update rules):
///
///   M <- momentum_decay * M + G'                     G': the gradient as demo_options::gradient scales it
///   S <- the k largest of the orthonormal DCT-II of M, per chunk;  M <- M - alpha * inverse(S);  publish S
///   D <- inverse(mean of each coefficient over the peers that sent it)   weighted: see contribution_weights.hpp
///   X <- (1 - learning_rate * weight_decay) * X - learning_rate * phi(D)            phi: the update rule
///
/// M is private, X the replica. reference_compatible() reproduces the published code to float32 rounding. What is
/// applied depends on the committed payloads alone, whose header carries both rates, and is bit-equal on every
/// processor, instruction set, thread count, compiler and optimization flag (see detail/exact_mean.hpp and
/// detail/update_kernels.hpp). Subnormal weights, and -0, become +0 in a round that changes their tensor.
///
/// What is sent leaves M only once it is committed, at the next begin_step: a payload that is lost costs nothing, and M
/// is then exactly what it would be had it not been sent.
///
/// Refers to the parameters' memory, which must outlive it. Not thread-safe; uses the pool's threads within a call.
class demo {
 public:
    /// Throws value_error for an option out of range, shape_error for a parameter whose spans do not fit its shape.
    demo(std::span<const parameter> parameters, const demo_options& options, thread_pool* pool = nullptr)
        : demo(parameters, options, pool, nullptr) {}
    /// A shard, whose parameters are parts of others: see demo_shards.hpp.
    demo(std::span<const parameter> parameters, const demo_options& options, thread_pool* pool,
         const detail::plan_origin* origin)
        : parameters_(parameters.begin(), parameters.end()),
          options_(detail::checked(options)),
          pool_(pool),
          plan_(parameters, options_, origin),
          k_(plan_.layout().k),
          momentum_(plan_.elements()),
          meter_(parameters),
          lanes_(plan_.layout(), pool, options_.codec != nullptr),
          weigher_(options_.weights, options_.contribution_clip) {
        check_apart(parameters);
        workers_.reserve(detail::lane_count(pool));
        for (std::size_t i = 0; i < detail::lane_count(pool); ++i)
            workers_.emplace_back(plan_, kernels_for(options_.level));
        own_.resize(plan_.layout());
        plan_.reserve(pool);
        prepare_matrices();
        prepare_batches();
    }
    demo(const demo&) = delete;
    demo& operator=(const demo&) = delete;

    /// One round over a transport: begin_step, exchange, end_step. What the transport throws passes through; the
    /// payload is then still in flight.
    template <transport T>
    step_report step(T& t) {
        const auto payload = begin_step(static_cast<peer_id>(t.self()));
        return end_step(t.exchange(round(), payload));
    }

    /// Takes the gradients into the momentum and chooses its largest coefficients: the payload for round(), valid
    /// until the next begin_step. Throws value_error when a gradient is not finite or absurdly large, or when the last
    /// payload is still in flight, and std::bad_alloc: nothing has changed then. An own value code that breaks its
    /// word is found when the momentum has changed: value_error, and the rest is as after abandon().
    [[nodiscard]] std::span<const std::byte> begin_step(peer_id self) {
        return begin_step(self, [](std::span<const std::byte>) {});
    }
    /// The same, and calls sink(bytes) with the parts of the payload in their order as soon as each is final, so that
    /// sending starts before the last tensor is encoded. The bytes of a call are valid until it returns. What the sink
    /// throws passes through when the whole payload is made and in flight.
    template <std::invocable<std::span<const std::byte>> Sink>
    std::span<const std::byte> begin_step(peer_id self, Sink&& sink) {
        rounds_.require_none_pending();
        const standard_float_mode mode;
        // The digest that the header needs is one stream. One thread makes it while the gradients come from memory,
        // several beside the first tensors' transforms.
        const double norm = meter_.norm(pool_, options_.level, [&](std::size_t gradients) noexcept {
            rounds_.go_on_with_share(parameters_, std::max<std::size_t>(1, gradients / detail::digest_shares));
        });
        return begin_step(self, norm, sink);
    }
    /// The same for gradients that were measured elsewhere, with others: they are finite, and of this norm in all.
    template <std::invocable<std::span<const std::byte>> Sink>
    std::span<const std::byte> begin_step(peer_id self, double norm, Sink&& sink) {
        rounds_.require_none_pending();
        const standard_float_mode mode;
        const double gain = detail::checked_gain(options_, norm);
        reserve();
        gradient_norm_ = static_cast<float>(norm);
        if (options_.basis.each_round()) take_out_committed();  // its tables are not those of this round
        plan_.set_round(round(), pool_);
        const float taken = rounds_.sent() == detail::sent_state::committed ? options_.alpha : 0.0F;
        choose_first(static_cast<float>(gain), taken);
        payload_writer out(header(self), layout().sections.size(), rounds_.reuse(), room_of_payload(layout()));
        std::exception_ptr thrown, fault;
        const auto pass_on = [&]() noexcept {
            try {
                const std::span<const std::byte> part = out.unsent();
                if (thrown == nullptr && !part.empty()) sink(part);
            } catch (...) {
                thrown = std::current_exception();
            }
        };
        for (const region_batch& batch : batches_) {
            if (&batch != batches_.data()) choose(batch, static_cast<float>(gain), taken);
            try {
                if (fault == nullptr)
                    lanes_.encode(
                        batch.from, batch.to, k_, [this](std::size_t i) { return plan_.slice(own_, i); }, out, pass_on);
            } catch (...) {  // an own value code; the other tensors' gradients are still to come
                fault = std::current_exception();
            }
        }
        if (fault != nullptr) {
            rounds_.settle(false);
            std::rethrow_exception(fault);
        }
        out.finish();
        pass_on();
        rounds_.start(self, round(), out.take());
        if (thrown != nullptr) std::rethrow_exception(thrown);
        return rounds_.payload();
    }

    /// Applies commits in order; the first must be that of round() (value_error). The payload in flight stays in the
    /// momentum when its round's commit does not hold it. Nothing has changed when the first commit throws; those
    /// before another that does are applied, and round() tells which one is wanted.
    step_report end_step(std::span<const commit> commits) {
        if (commits.empty())
            throw value_error("end_step: no commit, expected that of round " + std::to_string(round()));
        step_report report{.bytes_sent = rounds_.payload().size(), .gradient_norm = gradient_norm_};
        for (const commit& c : commits) detail::round_keeper::merge(report, apply(c));
        return report;
    }

    /// Applies the commit of round(): the same for a commit this peer contributed to and one that it replays.
    step_report apply(const commit& c) { return apply_weighted(c, nullptr); }
    /// The same where what the accepted contributions weigh was found from payloads that these are parts of: one for
    /// each of them, or none where all count alike. Throws value_error for another number.
    step_report apply(const commit& c, std::span<const contribution_weight> weights) {
        return apply_weighted(c, &weights);
    }

    /// The next round to contribute to or to apply.
    [[nodiscard]] std::uint64_t round() const noexcept { return rounds_.round(); }
    /// After loading a snapshot of the weights. A payload in flight for a round that the snapshot already holds is
    /// taken as committed.
    void set_round(std::uint64_t round) noexcept { rounds_.set_round(round); }

    /// The payload that awaits its commit; empty when there is none. After restore_private() it may be exchanged again.
    [[nodiscard]] std::span<const std::byte> in_flight() const noexcept { return rounds_.payload(); }
    /// The payload in flight stays in the momentum: its round will never commit it.
    void abandon() noexcept {
        if (rounds_.pending()) rounds_.settle(false);
    }

    /// From the next begin_step on the gradient of parameter i lies there: two buffers in turn, or one that moves.
    /// Throws value_error where there is no such parameter, shape_error for another number of elements.
    void set_gradient(std::size_t i, std::span<float> gradient) {
        thinwire::set_gradient(parameters_, i, gradient);
        meter_.move_gradient(i, gradient);
    }

    /// For the payloads to come. Throws value_error unless 0, or 2^-100..2^20.
    void set_learning_rate(float rate) {
        demo_options changed = options_;
        changed.learning_rate = rate;
        options_ = detail::checked(changed);
    }

    /// How many coefficients a chunk of the payloads to come sends at most: 1..options().k, as at first; a lower one is
    /// a cap for all groups. Local to this peer, as each payload states its own. Throws value_error.
    void set_k(int k) {
        const std::uint32_t checked = detail::checked_k(k, layout());
        lanes_.reserve(checked);
        k_ = checked;
    }
    /// How many tokens the gradients of the payloads to come are means over; 0, as at first: not stated. Throws
    /// value_error above most_tokens.
    void set_tokens(std::uint32_t tokens) { rounds_.set_tokens(tokens); }

    [[nodiscard]] const demo_options& options() const noexcept { return options_; }
    /// What every payload of this run looks like: for a sequencer's payload_decoder.
    [[nodiscard]] const payload_layout& layout() const noexcept { return plan_.layout(); }
    /// The private momentum of parameter i, without what is committed; what is in flight is still in it.
    /// Throws value_error where there is no such parameter.
    [[nodiscard]] std::span<const float> momentum(std::size_t i) {
        if (i >= parameters_.size())
            throw value_error("momentum: parameter " + std::to_string(i) + ", expected below " +
                              std::to_string(parameters_.size()));
        take_out_committed();
        return std::span(momentum_).subspan(plan_.tensors()[i].first_element, parameters_[i].values.size());
    }

    /// What this optimizer holds; grows with the largest commit and payload so far. Without what shared objects of the
    /// options hold (an own rule, codec or basis) and without the pool.
    [[nodiscard]] demo_memory memory_bytes() const noexcept {
        demo_memory held = {.momentum = bytes_held(momentum_)};
        held.workspace = plan_.memory_bytes() + described() + meter_.memory_bytes() +
                         bytes_held(workers_, direction_, work_.memory, batches_, parameters_) +
                         weigher_.memory_bytes();
        for (const auto& worker : workers_) held.workspace += worker.memory_bytes();
        held.codec =
            own_.memory_bytes() + rounds_.memory_bytes() + lanes_.memory_bytes() + bytes_held(contents_, accepted_);
        for (const auto& content : contents_) held.codec += content.memory_bytes();
        return held;
    }

    /// SHA-256 of all weights in the order of the parameters.
    [[nodiscard]] digest replica_digest() const {
        sha256 sum;
        for (const parameter& p : parameters_) detail::digest_floats(sum, p.values);
        return sum.finish();
    }

    /// Momentum and payload in flight, exactly: a peer that restores them goes on bit for bit.
    [[nodiscard]] std::vector<std::byte> save_private() const {
        return detail::save_private_state(private_part(), momentum_, rounds_, own_);
    }
    /// Reads what save_private() wrote for the same tensors, options and run, before or after set_round(): a payload in
    /// flight for a round before round() was committed. Total; nothing changes when refused.
    [[nodiscard]] result<ok> restore_private(std::span<const std::byte> bytes) {
        return detail::restore_private_state(bytes, private_part(), momentum_, rounds_, own_);
    }

    /// The optimizer state that all replicas share besides the weights: none.
    [[nodiscard]] std::vector<std::byte> save_replica() const { return {}; }
    [[nodiscard]] result<ok> restore_replica(std::span<const std::byte> bytes) {
        rounds_.forget_share();
        if (!bytes.empty())
            return failure{errc::trailing,
                           "demo: replica state of " + std::to_string(bytes.size()) + " bytes, expected none"};
        return ok{};
    }

 private:
    friend class sharded_demo;

    template <class Task>
    void for_each_piece(const Task& task) {
        detail::for_each_item(pool_, plan_.pieces().size(), [&](std::size_t lane, std::size_t i) {
            const auto& piece = plan_.pieces()[i];
            task(lane, plan_.regions()[piece.region], piece);
        });
    }

    /// Names of parameters and groups.
    [[nodiscard]] std::size_t described() const noexcept {
        const auto characters = [](const std::string& s) noexcept {
            return s.capacity() > std::string().capacity() ? s.capacity() + 1 : 0;
        };
        std::size_t sum = bytes_held(options_.groups);
        for (const parameter& p : parameters_) sum += 2 * characters(p.name);  // here and in the meter
        for (const parameter_group& g : options_.groups)
            sum += bytes_held(g.parameters) + characters(g.prefix) + characters(g.suffix);
        return sum;
    }

    /// `given`: what the contributions weigh; null: as their payloads say.
    step_report apply_weighted(const commit& c, const std::span<const contribution_weight>* given) {
        const standard_float_mode mode;
        const step_report report = take_in(c, given == nullptr);
        if (given != nullptr && !given->empty() && given->size() != accepted_.size())
            throw value_error("apply: " + std::to_string(given->size()) + " weights, expected one for each of " +
                              std::to_string(accepted_.size()) + " accepted contributions");
        carry_out(report, given != nullptr ? *given : weigher_.finish());
        return report;
    }
    /// Reads and counts what a commit holds, for carry_out(). All that may fail; nothing has changed then.
    step_report take_in(const commit& c, bool weigh) {
        rounds_.require_round(c);
        read(c, weigh && weigher_.needs_norms());
        accepted_.clear();
        return lanes_.count(c, rounds_, weigher_, [&](std::size_t i) { accepted_.push_back(&contents_[i]); });
    }
    void carry_out(const step_report& report, std::span<const contribution_weight> weights) noexcept {
        if (const payload_info* first = lanes_.first()) update(*first, {.contents = accepted_, .weights = weights});
        if (rounds_.pending() && rounds_.pending_round() == report.round) rounds_.settle(report.own_included);
        rounds_.next_round();
    }

    [[nodiscard]] detail::private_view private_part() const noexcept {
        return {.layout = &plan_.layout(),
                .run = &options_.run,
                .alpha = options_.alpha,
                .gradient = static_cast<std::uint8_t>(static_cast<unsigned>(options_.gradient) +
                                                      (options_.error_feedback ? 16U : 0U))};
    }

    void take_out_committed() {
        if (rounds_.sent() != detail::sent_state::committed) return;
        plan_.set_round(rounds_.pending_round(), pool_);
        for_each_piece([&](std::size_t lane, const auto& t, const auto& piece) {
            for (std::size_t chunk = piece.from; chunk < piece.to; ++chunk)
                workers_[lane].take_out(t, chunk, momentum_of(t) + t.grid.offset(chunk), own_, options_.alpha);
        });
        rounds_.settle(false);
    }

    /// All memory that begin_step() needs, before it changes anything.
    void reserve() {
        rounds_.reserve(room_of_payload(layout()));
        lanes_.reserve();
    }

    /// Where the momentum of the region's tensor begins.
    [[nodiscard]] float* momentum_of(const detail::chunk_plan::region& t) noexcept {
        return momentum_.data() + plan_.tensors()[t.tensor].first_element;
    }

    /// Regions [from, to), whose pieces are [first_piece, last_piece): what is encoded between two parts of a payload.
    struct region_batch {
        std::size_t from, to, first_piece, last_piece;
    };
    /// Batches large enough to keep all lanes busy.
    void prepare_batches() {
        const std::size_t least = 16 * workers_.size();
        region_batch next = {0, 0, 0, 0};
        for (std::size_t piece = 0, region = 0; region < plan_.regions().size(); ++region) {
            while (piece < plan_.pieces().size() && plan_.pieces()[piece].region == region) ++piece;
            next.to = region + 1;
            next.last_piece = piece;
            if (piece - next.first_piece < least && next.to < plan_.regions().size()) continue;
            batches_.push_back(next);
            next.from = next.to;
            next.first_piece = piece;
        }
    }

    [[nodiscard]] payload_info header(peer_id self) {
        const payload_layout& shape = layout();
        return {.kind = payload_kind::demo,
                .values = shape.values(),
                .run = options_.run,
                .round = round(),
                .peer = self,
                .fingerprint = shape.fingerprint,
                .k = k_,
                .chunk = shape.chunk,
                .learning_rate = options_.learning_rate,
                .weight_decay = options_.weight_decay,
                .tokens = rounds_.tokens(),
                .replica = replica_share()};
    }
    const digest& replica_share() noexcept {
        return rounds_.share(parameters_, [](sha256&, std::size_t) {});
    }

    /// Gradients into the momentum of a batch's regions, their largest coefficients into own_.
    void choose(const region_batch& batch, float gain, float taken) {
        detail::for_each_item(pool_, batch.last_piece - batch.first_piece, [&](std::size_t lane, std::size_t i) {
            choose_piece(lane, plan_.pieces()[batch.first_piece + i], gain, taken);
        });
    }
    /// The same for the first batch, and beside it the digest that the header needs.
    void choose_first(float gain, float taken) {
        const std::size_t pieces = batches_.empty() ? 0 : batches_.front().last_piece;
        detail::for_each_item(pool_, pieces + 1, [&](std::size_t lane, std::size_t i) {
            if (i == 0) return static_cast<void>(replica_share());
            choose_piece(lane, plan_.pieces()[i - 1], gain, taken);
        });
    }
    void choose_piece(std::size_t lane, const detail::chunk_plan::piece& piece, float gain, float taken) {
        const auto& t = plan_.regions()[piece.region];
        const std::size_t at = t.grid.offset(piece.from);
        workers_[lane].encode(t, piece.from, piece.to, momentum_of(t) + at, parameters_[t.tensor].gradient.data() + at,
                              {.decay = options_.momentum_decay,
                               .gain = gain,
                               .taken = taken,
                               .most = layout().section(piece.region, k_).kept},
                              *layout().codec, own_);
        if (options_.error_feedback)
            for (std::size_t chunk = piece.from; chunk < piece.to; ++chunk)
                detail::round_sent(
                    std::span(own_.values)
                        .subspan(detail::chunk_plan::first_place(t, chunk), own_.counts[t.first_chunk + chunk]),
                    *layout().codec);
    }

    /// Decodes every contribution into contents_, and beside that makes the digest of this round's share of the
    /// weights.
    void read(const commit& c, bool with_norms) {
        const std::size_t n = c.contributions.size();
        if (contents_.size() < n) contents_.resize(n);
        for (std::size_t i = 0; i < n; ++i) contents_[i].resize(layout());
        lanes_.decode(
            c, options_.run, with_norms, [this](std::size_t, std::size_t i) -> sparse_content& { return contents_[i]; },
            [](std::size_t, std::size_t) {}, [this] { static_cast<void>(replica_share()); });
    }

    void update(const payload_info& info, const detail::chunk_worker::senders& sent) {
        plan_.set_round(round(), pool_);
        for_each_piece([&](std::size_t lane, const auto& t, const auto& piece) {
            const auto& of = plan_.tensors()[t.tensor];
            const detail::update_rates r = detail::rates_of(of.settings, info);
            float* const values = parameters_[t.tensor].values.data();
            if (of.settings.scope == update_scope::sign)
                return workers_[lane].apply(t, piece.from, piece.to, values + t.grid.offset(piece.from), sent, r.step,
                                            r.factor);
            for (std::size_t chunk = piece.from; chunk < piece.to; ++chunk) {
                const std::size_t at = t.grid.offset(chunk);
                if (of.settings.scope == update_scope::elements)
                    apply_elements(workers_[lane], t, chunk, sent, values + at, r);
                else
                    decode_rows(workers_[lane], t, chunk, sent, [&](std::size_t row, std::span<const float> d) {
                        std::copy(d.begin(), d.end(),
                                  direction_.begin() +
                                      static_cast<std::ptrdiff_t>(of.first_direction + at + row * t.grid.stride()));
                    });
            }
        });
        for (std::size_t i = 0; i < parameters_.size(); ++i)
            if (plan_.tensors()[i].settings.scope == update_scope::matrix)
                apply_matrices(i, detail::rates_of(plan_.tensors()[i].settings, info));
    }

    /// Calls use(row, D of that row) for the rows of a chunk.
    template <class Use>
    void decode_rows(detail::chunk_worker& worker, const detail::chunk_plan::region& t, std::size_t chunk,
                     const detail::chunk_worker::senders& sent, const Use& use) {
        const float* decoded = worker.decode_mean(t, chunk, sent);
        std::array<float, chunk_grid::max_target> row;
        const std::span<float> d = std::span(row).first(t.grid.cols());
        for (std::size_t r = 0; r < t.grid.rows(); ++r) {
            detail::scale_decoded(decoded + r * t.cols->full(), d.data(), d.size(), worker.exponent());
            use(r, d);
        }
    }

    void apply_elements(detail::chunk_worker& worker, const detail::chunk_plan::region& t, std::size_t chunk,
                        const detail::chunk_worker::senders& sent, float* x, const detail::update_rates& r) {
        decode_rows(worker, t, chunk, sent, [&](std::size_t row, std::span<float> d) {
            plan_.tensors()[t.tensor].settings.rule->direct(d);
            detail::apply_direction(x + row * t.grid.stride(), d.data(), d.size(), r.step, r.factor);
        });
    }

    void apply_matrices(std::size_t i, const detail::update_rates& r) {
        const auto& t = plan_.tensors()[i];
        const chunk_grid& grid = plan_.regions()[t.first_region].grid;
        const std::size_t rows = grid.height(), cols = grid.stride(), size = rows * cols;
        const std::span<float> x = parameters_[i].values;
        const std::span<float> d = std::span(direction_).subspan(t.first_direction, x.size());
        for (std::size_t at = 0; at < d.size(); at += size)
            t.settings.rule->direct_matrix(d.subspan(at, size), rows, cols, work_);
        constexpr std::size_t block = 1U << 14U;
        detail::for_each_item(pool_, (x.size() + block - 1) / block, [&](std::size_t, std::size_t n) {
            const std::size_t at = n * block;
            detail::apply_direction(x.data() + at, d.data() + at, std::min(block, x.size() - at), r.step, r.factor);
        });
    }

    /// Memory for the tensors whose rule needs whole matrices.
    void prepare_matrices() {
        std::size_t memory = 0;
        for (const auto& t : plan_.tensors()) {
            if (t.settings.scope != update_scope::matrix) continue;
            const chunk_grid& grid = plan_.regions()[t.first_region].grid;
            memory = std::max(memory, t.settings.rule->workspace(grid.height(), grid.stride()));
        }
        direction_.resize(plan_.direction_elements());
        work_.pool = pool_;
        work_.level = options_.level;
        work_.memory.resize(memory);
    }

    std::vector<parameter> parameters_;
    demo_options options_;
    thread_pool* pool_;
    detail::chunk_plan plan_;
    std::uint32_t k_;  ///< of the payloads to come
    std::vector<detail::chunk_worker> workers_;
    aligned_vector<float> momentum_;
    gradient_meter meter_;
    sparse_content own_;               ///< what this peer last sent; with sign values, what the signs stand for
    aligned_vector<float> direction_;  ///< D of the tensors whose rule needs whole matrices
    update_workspace work_;
    detail::round_keeper rounds_;
    float gradient_norm_ = 0.0F;
    std::vector<sparse_content> contents_;
    detail::payload_lanes lanes_;
    std::vector<region_batch> batches_;
    std::vector<const sparse_content*> accepted_;
    contribution_weights weigher_;
};

static_assert(optimizer<demo>);

}  // namespace thinwire

#endif  // THINWIRE_OPTIM_DEMO_HPP

// ---- thinwire/optim/detail/fused_gemm.hpp
#ifndef THINWIRE_OPTIM_DETAIL_FUSED_GEMM_HPP
#define THINWIRE_OPTIM_DETAIL_FUSED_GEMM_HPP

#include <math.h>

#include <cmath>
#include <cstddef>
#include <cstring>

namespace thinwire::detail {

/// Matrices of fused_gemm(): columns in panels of 32, each panel row-major: element (r, c) of a matrix with `rows` rows
/// is at (c / 32 * rows + r) * 32 + c % 32. Rows and columns are multiples of 32, filled up with zeros.
inline constexpr std::size_t panel = 32;

[[nodiscard]] constexpr std::size_t round_to_panel(std::size_t n) noexcept {
    return (n + panel - 1) / panel * panel;
}

/// a * b + c, rounded once. Where the target has no instruction for it the C library's function is called through a
/// pointer that the compiler cannot see through: clang++ with -ffast-math makes two roundings of std::fma there.
THINWIRE_ALWAYS_INLINE float fused_multiply_add(float a, float b, float c) noexcept {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    return std::fma(a, b, c);
#else
    static float (*const volatile library)(float, float, float) = &::fmaf;
    return library(a, b, c);
#endif
}

/// c[8 x 32] = sum over d, rising, of a[r][d] * b[d][x]: one fused multiply-add each, in this order whatever the
/// instruction set, so that all give the same bits and no compiler flag can change them. `a` points at row 0 of the
/// tile in panel 0, `b` at row 0 of its panel; a_panel: elements from one panel of a to the next.
inline void fused_tile(const float* a, std::size_t a_panel, const float* b, std::size_t depth, float* c) noexcept {
    for (std::size_t r = 0; r < 8; ++r) {
        float sum[panel] = {};
        for (std::size_t d = 0; d < depth; ++d) {
            const float left = a[d / panel * a_panel + r * panel + d % panel];
            for (std::size_t x = 0; x < panel; ++x) sum[x] = fused_multiply_add(left, b[d * panel + x], sum[x]);
        }
        for (std::size_t x = 0; x < panel; ++x) c[r * panel + x] = sum[x];
    }
}

#if THINWIRE_X86_DISPATCH
// The compilers' own vectors and builtins: <immintrin.h> alone would take a sixth of the umbrella's compile time.
template <int Lanes>
struct fused_lanes {
    using vector [[gnu::vector_size(sizeof(float) * Lanes)]] = float;

    THINWIRE_ALWAYS_INLINE static void load(vector& to, const float* from) noexcept {
        std::memcpy(&to, from, sizeof to);
    }
    THINWIRE_ALWAYS_INLINE static void store(float* to, const vector& from) noexcept {
        std::memcpy(to, &from, sizeof from);
    }
};

THINWIRE_TARGET_AVX2 inline void fused_tile_avx2(const float* a, std::size_t a_panel, const float* b, std::size_t depth,
                                                 float* c) noexcept {
    for (std::size_t part = 0; part < 4; ++part) {  // 4 rows x 16 columns in 8 registers
        const float* rows = a + part / 2 * 4 * panel;
        const float* cols = b + part % 2 * 16;
        using lanes = fused_lanes<8>;
        lanes::vector sum[4][2] = {};
        for (std::size_t d = 0; d < depth; d += panel, rows += a_panel) {
            for (std::size_t i = 0; i < panel; ++i, cols += panel) {
                lanes::vector low, high;
                lanes::load(low, cols);
                lanes::load(high, cols + 8);
#pragma GCC unroll 4
                for (int r = 0; r < 4; ++r) {
                    const float e = rows[static_cast<std::size_t>(r) * panel + i];
                    const lanes::vector left = {e, e, e, e, e, e, e, e};
                    sum[r][0] = __builtin_ia32_vfmaddps256(left, low, sum[r][0]);
                    sum[r][1] = __builtin_ia32_vfmaddps256(left, high, sum[r][1]);
                }
            }
        }
        float* to = c + part / 2 * 4 * panel + part % 2 * 16;
        for (std::size_t r = 0; r < 4; ++r) {
            lanes::store(to + r * panel, sum[r][0]);
            lanes::store(to + r * panel + 8, sum[r][1]);
        }
    }
}

THINWIRE_TARGET_AVX512 inline void fused_tile_avx512(const float* a, std::size_t a_panel, const float* b,
                                                     std::size_t depth, float* c) noexcept {
    using lanes = fused_lanes<16>;
    unsigned short every_lane = 0xffff;  // not constexpr: for nvcc the mask is a short, a constant would change sign
    constexpr int current_rounding = 4;
    lanes::vector sum[8][2] = {};
    for (std::size_t d = 0; d < depth; d += panel, a += a_panel) {
        for (std::size_t i = 0; i < panel; ++i, b += panel) {
            lanes::vector low, high;
            lanes::load(low, b);
            lanes::load(high, b + 16);
#pragma GCC unroll 8
            for (int r = 0; r < 8; ++r) {
                const float e = a[static_cast<std::size_t>(r) * panel + i];
                const lanes::vector left = {e, e, e, e, e, e, e, e, e, e, e, e, e, e, e, e};
                sum[r][0] = __builtin_ia32_vfmaddps512_mask(left, low, sum[r][0], every_lane, current_rounding);
                sum[r][1] = __builtin_ia32_vfmaddps512_mask(left, high, sum[r][1], every_lane, current_rounding);
            }
        }
    }
    for (std::size_t r = 0; r < 8; ++r) {
        lanes::store(c + r * panel, sum[r][0]);
        lanes::store(c + r * panel + 16, sum[r][1]);
    }
}
#endif

using fused_tile_function = void (*)(const float*, std::size_t, const float*, std::size_t, float*) noexcept;

[[nodiscard]] inline fused_tile_function fused_tile_for(isa level) noexcept {
#if THINWIRE_X86_DISPATCH
    if (level == isa::avx512) return &fused_tile_avx512;
    if (level == isa::avx2) return &fused_tile_avx2;
#endif
    static_cast<void>(level);
    return &fused_tile;
}

/// out = transposed 32 x 32 block, both row-major. out is not in.
inline void transpose_block(const float* in, float* out) noexcept {
    for (std::size_t r = 0; r < panel; ++r)
        for (std::size_t c = 0; c < panel; ++c) out[c * panel + r] = in[r * panel + c];
}

/// c = a b, for a: rows x depth, b: depth x cols. With `symmetric` only the blocks on and below the diagonal are
/// computed, those above are their mirror. c is neither a nor b.
inline void fused_gemm(thread_pool* pool, isa level, const float* a, const float* b, float* c, std::size_t rows,
                       std::size_t depth, std::size_t cols, bool symmetric = false) noexcept {
    const fused_tile_function tile = fused_tile_for(level);
    const std::size_t down = rows / panel, across = cols / panel;
    for_each_item(pool, down * across, [&](std::size_t, std::size_t item) {
        const std::size_t i = down - 1 - item / across, j = item % across;  // the longest rows of the triangle first
        if (symmetric && j > i) return;
        float* to = c + (j * rows + i * panel) * panel;
        for (std::size_t r = 0; r < panel; r += 8)
            tile(a + (i * panel + r) * panel, rows * panel, b + j * depth * panel, depth, to + r * panel);
        if (symmetric && j < i) transpose_block(to, c + (i * rows + j * panel) * panel);
    });
}

/// out (cols x rows) = transposed a (rows x cols).
inline void transpose_panels(thread_pool* pool, const float* a, float* out, std::size_t rows,
                             std::size_t cols) noexcept {
    const std::size_t across = cols / panel;
    for_each_item(pool, rows / panel, [&](std::size_t, std::size_t i) {
        for (std::size_t j = 0; j < across; ++j)
            transpose_block(a + (j * rows + i * panel) * panel, out + (i * cols + j * panel) * panel);
    });
}

}  // namespace thinwire::detail

#endif  // THINWIRE_OPTIM_DETAIL_FUSED_GEMM_HPP

// ---- thinwire/optim/muon.hpp
#ifndef THINWIRE_OPTIM_MUON_HPP
#define THINWIRE_OPTIM_MUON_HPP

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

// ---- thinwire/optim/schedule.hpp
#ifndef THINWIRE_OPTIM_SCHEDULE_HPP
#define THINWIRE_OPTIM_SCHEDULE_HPP

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <string_view>

namespace thinwire {

enum class schedule_kind : std::uint8_t {
    constant,  ///< the peak after the warm-up
    cosine,    ///< half a cosine from the peak to the floor, reached at `total`
    wsd,       ///< warm-up, stable, decay: the peak, then a straight line to the floor over the last `decay` rounds
};

[[nodiscard]] constexpr std::string_view to_string(schedule_kind kind) noexcept {
    return kind == schedule_kind::constant ? "constant" : kind == schedule_kind::cosine ? "cosine" : "wsd";
}

/// The learning rate of each round. A peer uses it for its own payloads; replicas apply what the commit says, so a
/// last-bit difference between two machines' cos() is harmless.
struct schedule {
    schedule_kind kind = schedule_kind::constant;
    float peak = 1e-3F;
    std::uint64_t warmup = 0;     ///< rounds of a straight line up to the peak; round 0 already gets one step of it
    std::uint64_t total = 0;      ///< rounds of the whole run; the floor holds after it
    std::uint64_t decay = 0;      ///< wsd: rounds of the final decay
    float floor_fraction = 0.1F;  ///< the floor as a fraction of the peak

    [[nodiscard]] float at(std::uint64_t round) const noexcept {
        if (round < warmup)
            return static_cast<float>(peak * static_cast<double>(round + 1) / static_cast<double>(warmup));
        if (kind == schedule_kind::constant) return peak;
        const std::uint64_t length =
            kind == schedule_kind::cosine ? total - std::min(warmup, total) : std::min(decay, total);
        const std::uint64_t begin = total - length;
        if (round < begin) return peak;
        const double done = round >= total ? 1.0 : static_cast<double>(round - begin) / static_cast<double>(length);
        const double left =
            kind == schedule_kind::cosine ? 0.5 * (1.0 + std::cos(std::numbers::pi * done)) : 1.0 - done;
        const double floor = floor_fraction;
        return static_cast<float>(peak * (floor + (1.0 - floor) * left));
    }
};

}  // namespace thinwire

#endif  // THINWIRE_OPTIM_SCHEDULE_HPP

// ---- thinwire/version.hpp
#ifndef THINWIRE_VERSION_HPP
#define THINWIRE_VERSION_HPP

/// The one place that states the version; CMake, the packages and the wire handshake read it from here.
#define THINWIRE_VERSION_MAJOR 0
#define THINWIRE_VERSION_MINOR 1
#define THINWIRE_VERSION_PATCH 0
#define THINWIRE_VERSION_STRING "0.1.0"

#endif  // THINWIRE_VERSION_HPP

// ---- thinwire/thinwire.hpp
#ifndef THINWIRE_THINWIRE_HPP
#define THINWIRE_THINWIRE_HPP

/// All of the host core that a training program calls. Written by tools/amalgamate.py.

#endif  // THINWIRE_THINWIRE_HPP
