#ifndef THINWIRE_BACKEND_CUDA_DETAIL_CHUNK_TRANSFORM_CUH
#define THINWIRE_BACKEND_CUDA_DETAIL_CHUNK_TRANSFORM_CUH

#include <thinwire/backend/cuda/detail/tensor_view.cuh>

#include <cstddef>
#include <cstdint>

namespace thinwire::cuda::detail {

/// Rows that one thread computes together, so that each number of the other side is read once for all of them.
inline constexpr std::uint32_t strip = 8;

/// First pass of the inverse: middle[column * rows + r] = finish(sum over the column's coefficients f of
/// coefficient(f * cols + column) * basis[f][r]), for the columns that are there. A barrier before and after.
template <class Sum, class Entry, class Number, class Middle, class Coefficient, class Finish>
THINWIRE_KERNEL void inverse_columns(const kernel_thread& self, const region_view& t, const column_masks& masks,
                                     const device_span<const Entry>& basis, const Coefficient& coefficient,
                                     const device_span<Middle>& middle, const Finish& finish) {
    const std::uint32_t h = t.rows;
    for (std::uint32_t item = self.index(); item < t.cols * h; item += self.threads()) {
        const std::uint32_t column = item / h, r = item % h;
        if (!masks.has_column(column)) continue;
        Sum sum = 0;
        for_each_bit(masks.rows, column * masks.words, masks.words, [&](std::uint32_t f) {
            sum += static_cast<Sum>(static_cast<Number>(coefficient(f * t.cols + column))) *
                   static_cast<Sum>(basis.load(t.row_table + f * h + r));
        });
        middle.store(item, finish(sum));
    }
}

/// Second pass: calls use(r, x, sum over columns c of middle[c * rows + r] * basis[c][x]) for every element of the
/// chunk, once.
template <class Sum, class Entry, class Middle, class Use>
THINWIRE_KERNEL void inverse_rows(const kernel_thread& self, const region_view& t, const column_masks& masks,
                                  const device_span<const Entry>& basis, const device_span<Middle>& middle,
                                  const Use& use) {
    const std::uint32_t h = t.rows, w = t.cols;
    for (std::uint32_t item = self.index(); item < (h + strip - 1) / strip * w; item += self.threads()) {
        const std::uint32_t from = item / w * strip, x = item % w;
        Sum sums[strip] = {};
        for_each_bit(masks.columns, 0, (w + 31) / 32, [&](std::uint32_t column) {
            const Sum entry = static_cast<Sum>(basis.load(t.column_table + column * w + x));
            for (std::uint32_t j = 0; j < strip; ++j) {
                const std::uint32_t r = from + j < h ? from + j : h - 1;
                sums[j] += static_cast<Sum>(middle.load(column * h + r)) * entry;
            }
        });
        for (std::uint32_t j = 0; j < strip; ++j)
            if (from + j < h) use(from + j, x, sums[j]);
    }
}

/// The first half of `rows` rows <- their sums with their mirror images, the second half, in reverse, the differences.
THINWIRE_KERNEL void fold_rows(const kernel_thread& self, std::uint32_t rows, std::uint32_t cols,
                               const device_span<float>& matrix) {
    for (std::uint32_t item = self.index(); item < rows / 2 * cols; item += self.threads()) {
        const std::uint32_t mirror = (rows - 1 - item / cols) * cols + item % cols;
        const float first = matrix.load(item), second = matrix.load(mirror);
        matrix.store(item, first + second);
        matrix.store(mirror, first - second);
    }
}

/// A matrix of `rows` rows of `cols` times a basis of that many positions, by columns: to[c * rows + n-th frequency] =
/// sum over d < depth of from[d * cols + c] * basis[table + d * rows + n], where `place` says which the n-th is.
/// Folded, depth is half of the rows, and the second half of the frequencies takes the second half of the rows in
/// reverse. Sides are multiples of 8. A thread takes 8 columns x 2 frequencies, three reads for 16 products; the lanes
/// of a warp go along the frequencies, which are neighbours where the table and the result lie, and share the columns.
template <class Place>
THINWIRE_KERNEL void transform_columns(const kernel_thread& self, std::uint32_t rows, std::uint32_t cols, bool fold,
                                       const device_span<float>& from, const device_span<const float>& basis,
                                       std::uint32_t table, const device_span<float>& to, const Place& place) {
    const std::uint32_t pairs = rows / 2, depth = fold ? rows / 2 : rows;
    for (std::uint32_t item = self.index(); item < cols / strip * pairs; item += self.threads()) {
        const std::uint32_t i = item / pairs * strip, j = item % pairs * 2;
        const bool reversed = fold && j >= rows / 2;
        float sums[strip][2] = {};
        for (std::uint32_t d = 0; d < depth; ++d) {
            const std::uint32_t at = (reversed ? rows - 1 - d : d) * cols + i;
            const auto low = from.template load_pack<4>(at), high = from.template load_pack<4>(at + 4);
            const auto entries = basis.template load_pack<2>(table + d * rows + j);
            for (std::uint32_t n = 0; n < 4; ++n)
                for (std::uint32_t m = 0; m < 2; ++m) {
                    sums[n][m] += low.value[n] * entries.value[m];
                    sums[n + 4][m] += high.value[n] * entries.value[m];
                }
        }
        for (std::uint32_t n = 0; n < strip; ++n)
            for (std::uint32_t m = 0; m < 2; ++m) to.store((i + n) * rows + place(j + m, rows), sums[n][m]);
    }
}

/// forward_transform() for sides that are multiples of 8, and 16 where both bases mirror: then half of the products.
THINWIRE_KERNEL void forward_blocks(const kernel_thread& self, const region_view& t, const model_view& model,
                                    const device_span<float>& tile, const device_span<float>& middle) {
    const bool fold = t.mirrored != 0;
    const device_span<const float> basis = fold ? model.halves : model.forward;
    const auto place = [fold](std::uint32_t n, std::uint32_t side) {  // of the n-th frequency of the table
        return !fold ? n : n < side / 2 ? 2 * n : 2 * n - side + 1;
    };
    const auto pass = [&](std::uint32_t rows, std::uint32_t cols, std::uint32_t table, const device_span<float>& from,
                          const device_span<float>& to) {
        if (fold) {
            fold_rows(self, rows, cols, from);
            self.barrier();
        }
        transform_columns(self, rows, cols, fold, from, basis, table, to, place);
    };
    pass(t.rows, t.cols, fold ? t.row_half : t.row_table, tile, middle);
    self.barrier();
    pass(t.cols, t.rows, fold ? t.column_half : t.column_table, middle, tile);
}

/// tile <- the chunk's transform, both row-major; `middle` is working memory. A barrier before and after.
THINWIRE_KERNEL void forward_transform(const kernel_thread& self, const region_view& t, const model_view& model,
                                       const device_span<float>& tile, const device_span<float>& middle) {
    if (t.rows % strip == 0 && t.cols % strip == 0) return forward_blocks(self, t, model, tile, middle);
    const device_span<const float> basis = model.forward;
    const std::uint32_t h = t.rows, w = t.cols, items = (h + strip - 1) / strip * w;
    for (std::uint32_t item = self.index(); item < items; item += self.threads()) {
        const std::uint32_t from = item / w * strip, x = item % w;
        float sums[strip] = {};
        for (std::uint32_t r = 0; r < h; ++r) {
            const float value = tile.load(r * w + x);
            for (std::uint32_t j = 0; j < strip; ++j)
                sums[j] += basis.load(t.row_table + r * h + (from + j < h ? from + j : h - 1)) * value;
        }
        for (std::uint32_t j = 0; j < strip; ++j)
            if (from + j < h) middle.store((from + j) * w + x, sums[j]);
    }
    self.barrier();
    for (std::uint32_t item = self.index(); item < items; item += self.threads()) {
        const std::uint32_t from = item / w * strip, f = item % w;
        float sums[strip] = {};
        for (std::uint32_t x = 0; x < w; ++x) {
            const float entry = basis.load(t.column_table + x * w + f);
            for (std::uint32_t j = 0; j < strip; ++j)
                sums[j] += middle.load((from + j < h ? from + j : h - 1) * w + x) * entry;
        }
        for (std::uint32_t j = 0; j < strip; ++j)
            if (from + j < h) tile.store((from + j) * w + f, sums[j]);
    }
}

}  // namespace thinwire::cuda::detail

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_CHUNK_TRANSFORM_CUH
