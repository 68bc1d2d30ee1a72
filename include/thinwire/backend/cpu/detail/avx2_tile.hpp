#ifndef THINWIRE_BACKEND_CPU_DETAIL_AVX2_TILE_HPP
#define THINWIRE_BACKEND_CPU_DETAIL_AVX2_TILE_HPP

#include <thinwire/backend/cpu/detail/tile_common.hpp>
#include <thinwire/config.hpp>

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
