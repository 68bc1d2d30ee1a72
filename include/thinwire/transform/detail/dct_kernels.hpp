#ifndef THINWIRE_TRANSFORM_DETAIL_DCT_KERNELS_HPP
#define THINWIRE_TRANSFORM_DETAIL_DCT_KERNELS_HPP

#include <thinwire/transform/basis_tables.hpp>
#include <thinwire/transform/detail/fast_dct.hpp>
#include <thinwire/transform/detail/fast_inverse.hpp>
#include <thinwire/transform/detail/small_gemm.hpp>
#include <thinwire/transform/sparse_chunk.hpp>

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
