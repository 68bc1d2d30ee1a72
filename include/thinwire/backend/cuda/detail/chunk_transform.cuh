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

/// use(i, j, sums) for blocks of 8 x 2 of the matrix whose element (i, j) is the sum over d < depth of a[d][i] *
/// b[d][j], row d of a beginning at row_a(d, j), row d of b at row_b(d, i). rows is a multiple of 8, cols of 2; rows of
/// a begin at multiples of 4, those of b at multiples of 2. Three reads for 16 products.
template <class RowA, class RowB, class Use>
THINWIRE_KERNEL void product_blocks(const kernel_thread& self, std::uint32_t rows, std::uint32_t cols,
                                    std::uint32_t depth, const device_span<const float>& a, const RowA& row_a,
                                    const device_span<const float>& b, const RowB& row_b, const Use& use) {
    const std::uint32_t pairs = cols / 2;
    for (std::uint32_t item = self.index(); item < rows / strip * pairs; item += self.threads()) {
        const std::uint32_t i = item / pairs * strip, j = item % pairs * 2;
        float sums[strip][2] = {};
        for (std::uint32_t d = 0; d < depth; ++d) {
            const std::uint32_t at = row_a(d, j) + i;
            const auto low = a.template load_pack<4>(at), high = a.template load_pack<4>(at + 4);
            const auto right = b.template load_pack<2>(row_b(d, i) + j);
            for (std::uint32_t n = 0; n < 4; ++n)
                for (std::uint32_t m = 0; m < 2; ++m) {
                    sums[n][m] += low.value[n] * right.value[m];
                    sums[n + 4][m] += high.value[n] * right.value[m];
                }
        }
        use(i, j, sums);
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

/// forward_transform() for sides that are multiples of 8, and 16 where both bases mirror: then half of the products.
THINWIRE_KERNEL void forward_blocks(const kernel_thread& self, const region_view& t, const model_view& model,
                                    const device_span<float>& tile, const device_span<float>& middle) {
    const std::uint32_t h = t.rows, w = t.cols;
    const bool fold = t.mirrored != 0;
    const device_span<const float> basis = fold ? model.halves : model.forward;
    const std::uint32_t row_table = fold ? t.row_half : t.row_table,
                        column_table = fold ? t.column_half : t.column_table;
    const auto place = [fold](std::uint32_t n, std::uint32_t side) {  // of the n-th frequency of the table
        return !fold ? n : n < side / 2 ? 2 * n : 2 * n - side + 1;
    };
    if (fold) {
        fold_rows(self, h, w, tile);
        self.barrier();
    }
    product_blocks(
        self, h, w, fold ? h / 2 : h, basis, [&](std::uint32_t d, std::uint32_t) { return row_table + d * h; },
        device_span<const float>(tile),
        [&](std::uint32_t d, std::uint32_t i) { return (fold && i >= h / 2 ? h - 1 - d : d) * w; },
        [&](std::uint32_t i, std::uint32_t j, const float(&sums)[strip][2]) {
            for (std::uint32_t n = 0; n < strip; ++n)
                for (std::uint32_t m = 0; m < 2; ++m) middle.store((j + m) * h + place(i + n, h), sums[n][m]);
        });
    self.barrier();
    if (fold) {
        fold_rows(self, w, h, middle);
        self.barrier();
    }
    product_blocks(
        self, h, w, fold ? w / 2 : w, device_span<const float>(middle),
        [&](std::uint32_t d, std::uint32_t j) { return (fold && j >= w / 2 ? w - 1 - d : d) * h; }, basis,
        [&](std::uint32_t d, std::uint32_t) { return column_table + d * w; },
        [&](std::uint32_t i, std::uint32_t j, const float(&sums)[strip][2]) {
            for (std::uint32_t n = 0; n < strip; ++n)
                for (std::uint32_t m = 0; m < 2; ++m) tile.store((i + n) * w + place(j + m, w), sums[n][m]);
        });
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
