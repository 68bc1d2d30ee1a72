#ifndef THINWIRE_OPTIM_DETAIL_FUSED_GEMM_HPP
#define THINWIRE_OPTIM_DETAIL_FUSED_GEMM_HPP

#include <thinwire/config.hpp>
#include <thinwire/core/isa.hpp>
#include <thinwire/core/thread_pool.hpp>
#include <thinwire/optim/detail/parallel.hpp>

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
