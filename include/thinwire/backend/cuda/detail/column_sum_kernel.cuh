#ifndef THINWIRE_BACKEND_CUDA_DETAIL_COLUMN_SUM_KERNEL_CUH
#define THINWIRE_BACKEND_CUDA_DETAIL_COLUMN_SUM_KERNEL_CUH

#include <thinwire/backend/cuda/device.cuh>

#include <algorithm>
#include <cstddef>
#include <string_view>

namespace thinwire::cuda::detail {

/// Sums over the rows of a matrix in two stages without atomics: parts of the rows, then the parts in their order. The
/// order depends on nothing but the sizes.
struct column_parts {
    std::size_t rows = 0, columns = 0;

    static constexpr unsigned width = 32;  ///< columns of a block
    static constexpr unsigned depth = 8;   ///< rows that it takes at once

    [[nodiscard]] std::size_t parts() const { return std::clamp<std::size_t>(rows / 64, 1, 128); }
    [[nodiscard]] std::size_t strips() const { return (columns + width - 1) / width; }
    [[nodiscard]] std::size_t elements() const { return parts() * columns; }

    /// The sums of what the warps of a block have for their lane's column, for the first of them. `room` has one for
    /// each thread and is used once.
    THINWIRE_KERNEL static float of_block(const kernel_thread& self, float sum, const device_span<float>& room) {
        room.store(self.index(), sum);
        self.barrier();
        if (self.warp() == 0)
            for (unsigned i = 1; i < depth; ++i) sum += room.load(i * width + self.lane());
        return sum;
    }
};

/// parts[p, j]: the sum over part p of the rows of dy[r, j], or with x of dy[r, j] (x[r, j] - mean[r]) rstd[r], or,
/// with no mean, of dy[r, j] x[r, j] rstd[r].
struct column_sum_kernel {
    static constexpr std::string_view name = "column_sum";
    static constexpr unsigned threads = column_parts::width * column_parts::depth;
    static constexpr unsigned resident = 4;

    device_span<float> parts;
    device_span<const float> dy, x, mean, rstd;
    std::size_t rows = 0, columns = 0, strips = 0, part_rows = 0;

    [[nodiscard]] static constexpr std::size_t shared_bytes() { return sizeof(float) * threads; }

    THINWIRE_KERNEL void operator()(const kernel_thread& self) const {
        shared_memory area(self);
        const device_span<float> room = area.take<float>(threads, "sums");
        const std::size_t part = self.block() / strips;
        const std::size_t column = self.block() % strips * column_parts::width + self.lane();
        const std::size_t from = part * part_rows, to = from + part_rows < rows ? from + part_rows : rows;
        float sum = 0.0F;
        if (column < columns)
            for (std::size_t row = from + self.warp(); row < to; row += column_parts::depth) {
                const float g = dy.load(row * columns + column);
                sum += x.size() == 0 ? g : g * normal(row, column);
            }
        sum = column_parts::of_block(self, sum, room);
        if (self.warp() == 0 && column < columns) parts.store(part * columns + column, sum);
    }

 private:
    THINWIRE_KERNEL float normal(std::size_t row, std::size_t column) const {
        const float value = x.load(row * columns + column);
        return (mean.size() == 0 ? value : value - mean.load(row)) * rstd.load(row);
    }
};

/// sums[j] += all parts of column j. A block for every 32 columns.
struct add_parts_kernel {
    static constexpr std::string_view name = "add_parts";
    static constexpr unsigned threads = column_parts::width * column_parts::depth;
    static constexpr unsigned resident = 4;

    device_span<float> sums;
    device_span<const float> parts;

    [[nodiscard]] static constexpr std::size_t shared_bytes() { return sizeof(float) * threads; }

    THINWIRE_KERNEL void operator()(const kernel_thread& self) const {
        shared_memory area(self);
        const device_span<float> room = area.take<float>(threads, "sums");
        const std::size_t columns = sums.size();
        const std::size_t column = std::size_t{self.block()} * column_parts::width + self.lane();
        float sum = 0.0F;
        if (column < columns)
            for (std::size_t at = self.warp() * columns + column; at < parts.size();
                 at += column_parts::depth * columns)
                sum += parts.load(at);
        sum = column_parts::of_block(self, sum, room);
        if (self.warp() == 0 && column < columns) sums.store(column, sums.load(column) + sum);
    }
};

}  // namespace thinwire::cuda::detail

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_COLUMN_SUM_KERNEL_CUH
