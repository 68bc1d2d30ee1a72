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
THINWIRE_KERNEL void inverse_columns(const kernel_thread& self, const tensor_view& t, const column_masks& masks,
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
THINWIRE_KERNEL void inverse_rows(const kernel_thread& self, const tensor_view& t, const column_masks& masks,
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

/// tile <- the chunk's transform, both row-major; `middle` is working memory. A barrier before and after.
THINWIRE_KERNEL void forward_transform(const kernel_thread& self, const tensor_view& t,
                                       const device_span<const float>& basis, const device_span<float>& tile,
                                       const device_span<float>& middle) {
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
