#ifndef THINWIRE_BACKEND_CUDA_DETAIL_TENSOR_VIEW_CUH
#define THINWIRE_BACKEND_CUDA_DETAIL_TENSOR_VIEW_CUH

#include <thinwire/backend/cuda/device.cuh>
#include <thinwire/config.hpp>

#include <cstddef>
#include <cstdint>

namespace thinwire::cuda::detail {

/// A region of a tensor as kernels see it: the tensor's memory, and how the region is cut into chunks (chunk_grid).
struct region_view {
    device_span<float> values, gradient, momentum;
    std::uint64_t first_element = 0;      ///< of the tensor, where the first chunk begins
    std::uint64_t stride = 1;             ///< elements from one row of the tensor to the next
    std::uint64_t matrix = 1;             ///< elements from one matrix of the tensor to the next
    std::uint64_t first_coefficient = 0;  ///< those of the regions before it: places of coefficients that are sent
    std::uint32_t first_chunk = 0;        ///< likewise
    std::uint32_t rows = 1, cols = 1;     ///< of a chunk
    std::uint32_t down = 1, across = 1;   ///< chunks of one matrix
    std::uint32_t kept = 1;               ///< coefficients of a chunk that are sent
    std::uint32_t row_table = 0, column_table = 0;  ///< where their bases begin in the tables
    std::uint32_t row_half = 0, column_half = 0;    ///< likewise in `halves`, where mirrored
    std::uint32_t mirrored = 0;                     ///< 1: both bases mirror, their sides are multiples of 16
    std::uint32_t keeps_rest = 0;                   ///< not 0: what is sent is rounded, the difference stays
    std::uint32_t by_sign = 1;                      ///< 1: moves by the sign of the decoded mean; 0: by that itself
    float step = 0.0F, factor = 1.0F;               ///< x <- factor * x - step * direction
};

/// Where element (0, 0) of a chunk lies in its tensor.
THINWIRE_KERNEL std::size_t chunk_offset(const region_view& t, std::uint32_t chunk) {
    const std::uint32_t column = chunk % t.across, row = chunk / t.across;
    return t.first_element + row / t.down * t.matrix + row % t.down * t.rows * t.stride + std::size_t{column} * t.cols;
}

/// The region that a chunk, counted over all regions, belongs to.
THINWIRE_KERNEL std::size_t region_of(const device_span<const std::uint32_t>& first_chunks, std::uint32_t chunk) {
    std::size_t from = 0, to = first_chunks.size();
    while (to - from > 1) {
        const std::size_t middle = (from + to) / 2;
        if (first_chunks.load(middle) <= chunk)
            from = middle;
        else
            to = middle;
    }
    return from;
}

/// What kernels know of all regions of the tensors.
struct model_view {
    device_span<const region_view> regions;
    device_span<const std::uint32_t> first_chunks;
    device_span<const float> forward;  ///< bases by [position][frequency]
    /// Of mirrored bases of even sides, the first half of the positions: [position][frequency], even frequencies first.
    device_span<const float> halves;
    device_span<const float> inverse;       ///< bases by [frequency][position]
    device_span<const std::int32_t> exact;  ///< the same times 2^22: the integers that define them
    std::uint32_t max_size = 1;             ///< elements of the largest chunk, rounded up to a multiple of 4
    std::uint32_t max_rows = 1, max_cols = 1;
};

/// Which coefficients of a chunk are there: of each column the rows, 32 to a word, and the columns.
struct column_masks {
    device_span<std::uint32_t> rows, columns;
    std::uint32_t words = 1;  ///< of one column

    [[nodiscard]] THINWIRE_HOST_DEVICE static constexpr std::size_t row_words(std::uint32_t max_rows,
                                                                              std::uint32_t max_cols) {
        return static_cast<std::size_t>(max_cols) * ((max_rows + 31) / 32);
    }
    [[nodiscard]] THINWIRE_HOST_DEVICE static constexpr std::size_t column_words(std::uint32_t max_cols) {
        return (max_cols + 31) / 32;
    }
    /// All none; a barrier must follow.
    THINWIRE_KERNEL void clear(const kernel_thread& self, const region_view& t) const {
        for (unsigned i = self.index(); i < t.cols * words; i += self.threads()) rows.store(i, 0U);
        for (unsigned i = self.index(); i < (t.cols + 31) / 32; i += self.threads()) columns.store(i, 0U);
    }
    THINWIRE_KERNEL void mark(std::uint32_t row, std::uint32_t column) const {
        rows.atomic_or(column * words + row / 32, 1U << row % 32);
        columns.atomic_or(column / 32, 1U << column % 32);
    }
    [[nodiscard]] THINWIRE_KERNEL bool has_column(std::uint32_t column) const {
        return (columns.load(column / 32) >> column % 32 & 1U) != 0;
    }
};

/// Calls use(i) for the bits that are set in `count` words from the first on, rising; i counts from 0.
template <class Use>
THINWIRE_KERNEL void for_each_bit(const device_span<std::uint32_t>& words, std::uint32_t first, std::uint32_t count,
                                  const Use& use) {
    for (std::uint32_t word = 0; word < count; ++word)
        for (std::uint32_t left = words.load(first + word); left != 0; left &= left - 1)
            use(word * 32 + lowest_one(left));
}

}  // namespace thinwire::cuda::detail

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_TENSOR_VIEW_CUH
