#ifndef THINWIRE_TRANSFORM_DETAIL_FAST_DCT_HPP
#define THINWIRE_TRANSFORM_DETAIL_FAST_DCT_HPP

#include <thinwire/transform/basis_tables.hpp>
#include <thinwire/transform/dct.hpp>
#include <thinwire/transform/detail/small_gemm.hpp>

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
