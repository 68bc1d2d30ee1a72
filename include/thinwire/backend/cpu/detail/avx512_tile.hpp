#ifndef THINWIRE_BACKEND_CPU_DETAIL_AVX512_TILE_HPP
#define THINWIRE_BACKEND_CPU_DETAIL_AVX512_TILE_HPP

#include <thinwire/backend/cpu/detail/tile_common.hpp>
#include <thinwire/config.hpp>

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
