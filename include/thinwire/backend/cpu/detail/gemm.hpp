#ifndef THINWIRE_BACKEND_CPU_DETAIL_GEMM_HPP
#define THINWIRE_BACKEND_CPU_DETAIL_GEMM_HPP

#include <thinwire/backend/cpu/detail/packing.hpp>
#include <thinwire/backend/cpu/detail/tile_common.hpp>

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
