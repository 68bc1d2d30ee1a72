#ifndef THINWIRE_TRANSFORM_DETAIL_LINE_KERNELS_HPP
#define THINWIRE_TRANSFORM_DETAIL_LINE_KERNELS_HPP

#include <thinwire/transform/basis_tables.hpp>
#include <thinwire/transform/detail/fast_dct.hpp>
#include <thinwire/transform/detail/small_gemm.hpp>
#include <thinwire/transform/sparse_chunk.hpp>

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
