#ifndef THINWIRE_TRANSFORM_DETAIL_FAST_INVERSE_HPP
#define THINWIRE_TRANSFORM_DETAIL_FAST_INVERSE_HPP

#include <thinwire/transform/basis_tables.hpp>
#include <thinwire/transform/detail/small_gemm.hpp>
#include <thinwire/transform/sparse_chunk.hpp>

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
