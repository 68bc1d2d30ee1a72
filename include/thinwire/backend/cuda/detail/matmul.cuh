#ifndef THINWIRE_BACKEND_CUDA_DETAIL_MATMUL_CUH
#define THINWIRE_BACKEND_CUDA_DETAIL_MATMUL_CUH

#include <thinwire/backend/cuda/detail/device_pool.cuh>
#include <thinwire/backend/cuda/detail/map_kernel.cuh>
#include <thinwire/backend/cuda/detail/matmul_plan.hpp>
#include <thinwire/backend/cuda/device.cuh>
#if defined(THINWIRE_CUDA_EMULATE)
#include <thinwire/backend/cuda/detail/emulated_matmul.hpp>
#else
#include <thinwire/backend/cuda/detail/cublas_matmul.cuh>
#endif

#include <cstddef>
#include <cstdint>
#include <utility>

namespace thinwire::cuda::detail {

/// Products of row-major float32 matrices. A row-major matrix is the transpose of the column-major one in the same
/// memory, so the library is asked for c^T = op(b)^T op(a)^T.
class matmul {
 public:
    explicit matmul(matmul_precision precision) : precision_(precision), library_(precision) {}

    /// c[m,n] = (or +=) op(a)[m,k] op(b)[k,n]. Precondition: no size is 0.
    void run(device_pool& pool, float* c, const float* a, const float* b, std::size_t m, std::size_t n, std::size_t k,
             bool transpose_a, bool transpose_b, bool accumulate) {
        const operand left = of(pool, narrow_a_, a, transpose_a ? k : m, transpose_a ? m : k);
        const operand right = of(pool, narrow_b_, b, transpose_b ? n : k, transpose_b ? k : n);
        const matmul_plan plan = {.m = n,
                                  .n = m,
                                  .k = k,
                                  .transpose_a = transpose_b,
                                  .transpose_b = transpose_a,
                                  .accumulate = accumulate,
                                  .a_pitch = right.pitch,
                                  .b_pitch = left.pitch,
                                  .c_pitch = static_cast<std::int64_t>(n),
                                  .a_align = alignment_of(right.data),
                                  .b_align = alignment_of(left.data),
                                  .c_align = alignment_of(c)};
        library_.run(pool.on(), plan, right.data, left.data, c);
    }

 private:
    struct operand {
        const void* data;
        std::int64_t pitch;  ///< elements from row to row
    };

    /// A row-major matrix as the library takes it: itself, or its bfloat16 with rows at multiples of 16 bytes.
    [[nodiscard]] operand of(device_pool& pool, device_scratch<std::uint16_t>& room, const float* x, std::size_t rows,
                             std::size_t columns) const {
        if (precision_ != matmul_precision::bf16) return {x, static_cast<std::int64_t>(columns)};
        const std::size_t pitch = (columns + 7) / 8 * 8;
        const device_span<std::uint16_t> narrow = room.take(pool, rows * pitch);
        if (pitch == columns)  // as one row
            launch_rows(pool.on(), to_bfloat16_map{narrow, {x, rows * columns}, rows * columns, rows * columns}, 1,
                        rows * columns);
        else
            launch_rows(pool.on(), to_bfloat16_map{narrow, {x, rows * columns}, columns, pitch}, rows, columns);
        return {narrow.data(), static_cast<std::int64_t>(pitch)};
    }

    matmul_precision precision_;
    matmul_library library_;
    device_scratch<std::uint16_t> narrow_a_, narrow_b_;
};

}  // namespace thinwire::cuda::detail

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_MATMUL_CUH
