#ifndef THINWIRE_BACKEND_CUDA_DETAIL_NORM_KERNEL_CUH
#define THINWIRE_BACKEND_CUDA_DETAIL_NORM_KERNEL_CUH

#include <thinwire/backend/cuda/detail/block.cuh>

#include <cmath>
#include <cstddef>
#include <string_view>

namespace thinwire::cuda::detail {

/// y = (x - mean) * rstd * weight + bias, a row a warp. An RMS norm, which is not centred, has no mean and no bias.
struct norm_kernel {
    static constexpr std::string_view name = "norm";
    static constexpr unsigned threads = 256;
    static constexpr unsigned resident = 4;
    static constexpr unsigned warps = threads / 32;

    device_span<float> y, mean, rstd;
    device_span<const float> x, weight, bias;
    std::size_t rows = 0, columns = 0;
    float eps = 0.0F;
    bool centred = false;

    [[nodiscard]] static unsigned blocks(std::size_t rows) { return static_cast<unsigned>((rows + warps - 1) / warps); }
    THINWIRE_KERNEL void operator()(const kernel_thread& self) const {
        const auto width = static_cast<float>(columns);
        const std::size_t row = std::size_t{self.block()} * warps + self.warp();
        if (row >= rows) return;  // the whole warp
        const device_span<const float> of = x.subspan(row * columns, columns);
        float centre = 0.0F;
        if (centred) {
            for (std::size_t j = self.lane(); j < columns; j += 32) centre += of.load(j);
            centre = warp_sum(self, centre) / width;
        }
        float squares = 0.0F;
        for (std::size_t j = self.lane(); j < columns; j += 32) {
            const float d = of.load(j) - centre;
            squares += d * d;
        }
        const float scale = 1.0F / sqrtf(warp_sum(self, squares) / width + eps);
        if (self.lane() == 0) {
            rstd.store(row, scale);
            if (centred) mean.store(row, centre);
        }
        for (std::size_t j = self.lane(); j < columns; j += 32) {
            const float normal = (of.load(j) - centre) * scale * weight.load(j);
            y.store(row * columns + j, centred ? normal + bias.load(j) : normal);
        }
    }
};

/// dx, which may be dy: a thread writes what it alone has read.
struct norm_backward_kernel {
    static constexpr std::string_view name = "norm_backward";
    static constexpr unsigned threads = 256;
    static constexpr unsigned resident = 4;
    static constexpr unsigned warps = threads / 32;

    device_span<float> dx;
    device_span<const float> dy, x, weight, mean, rstd;
    std::size_t rows = 0, columns = 0;
    bool centred = false;

    [[nodiscard]] static unsigned blocks(std::size_t rows) { return norm_kernel::blocks(rows); }
    THINWIRE_KERNEL void operator()(const kernel_thread& self) const {
        const auto width = static_cast<float>(columns);
        const std::size_t row = std::size_t{self.block()} * warps + self.warp();
        if (row >= rows) return;  // the whole warp
        const std::size_t from = row * columns;
        const float scale = rstd.load(row), centre = centred ? mean.load(row) : 0.0F;
        float dot = 0.0F, sum = 0.0F;  // of the gradient towards the normalised row: with that row, and alone
        for (std::size_t j = self.lane(); j < columns; j += 32) {
            const float g = dy.load(from + j) * weight.load(j);
            dot += g * ((x.load(from + j) - centre) * scale);
            sum += g;
        }
        dot = warp_sum(self, dot);
        sum = centred ? warp_sum(self, sum) : 0.0F;
        for (std::size_t j = self.lane(); j < columns; j += 32) {
            const float g = dy.load(from + j) * weight.load(j);
            const float normal = (x.load(from + j) - centre) * scale;
            dx.store(from + j, scale * (g - (sum + normal * dot) / width));
        }
    }
};

}  // namespace thinwire::cuda::detail

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_NORM_KERNEL_CUH
