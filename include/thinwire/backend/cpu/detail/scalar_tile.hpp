#ifndef THINWIRE_BACKEND_CPU_DETAIL_SCALAR_TILE_HPP
#define THINWIRE_BACKEND_CPU_DETAIL_SCALAR_TILE_HPP

#include <thinwire/backend/cpu/detail/tile_common.hpp>

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
