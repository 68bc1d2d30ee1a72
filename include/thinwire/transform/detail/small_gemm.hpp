#ifndef THINWIRE_TRANSFORM_DETAIL_SMALL_GEMM_HPP
#define THINWIRE_TRANSFORM_DETAIL_SMALL_GEMM_HPP

#include <thinwire/config.hpp>

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
