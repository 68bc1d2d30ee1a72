#ifndef THINWIRE_BACKEND_CUDA_DETAIL_EMULATED_MATMUL_HPP
#define THINWIRE_BACKEND_CUDA_DETAIL_EMULATED_MATMUL_HPP

#include <thinwire/backend/cuda/detail/emulated_device.hpp>
#include <thinwire/backend/cuda/detail/matmul_plan.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace thinwire::cuda::detail {

/// In the place of cuBLASLt (cublas_matmul.cuh) in the emulator: refuses what cuBLAS documents as wrong, touches no
/// element outside the matrices, reads none that nobody wrote, and computes with inputs rounded as the precision says
/// and sums in double.
class matmul_library {
 public:
    explicit matmul_library(matmul_precision precision) : precision_(precision) {}

    void run(stream& on, const matmul_plan& p, const void* a, const void* b, float* c) {
        const bool narrow = precision_ == matmul_precision::bf16;
        const std::size_t bytes = narrow ? sizeof(std::uint16_t) : sizeof(float);
        require_device(device_in_use, device_, "cublasLtMatmul: a call with a handle");
        require_device(on.device(), device_, "cublasLtMatmul: a stream");
        require(p.m > 0 && p.n > 0 && p.k > 0, p, "expected no size 0");
        check(p, "a", a, p.a_rows(), p.a_pitch, p.a_align, bytes);
        check(p, "b", b, p.b_rows(), p.b_pitch, p.b_align, bytes);
        check(p, "c", c, p.m, p.c_pitch, p.c_align, sizeof(float));
        const std::size_t a_extent = matmul_plan::extent(p.a_rows(), p.a_columns(), p.a_pitch);
        const std::size_t b_extent = matmul_plan::extent(p.b_rows(), p.b_columns(), p.b_pitch);
        const device_span<float> to(c, matmul_plan::extent(p.m, p.n, p.c_pitch));
        require(apart(c, to.size() * sizeof(float), a, a_extent * bytes), p, "expected c apart from a");
        require(apart(c, to.size() * sizeof(float), b, b_extent * bytes), p, "expected c apart from b");
        if (narrow)
            give<std::uint16_t>(on, p, {static_cast<const std::uint16_t*>(a), a_extent},
                                {static_cast<const std::uint16_t*>(b), b_extent}, to);
        else
            give<float>(on, p, {static_cast<const float*>(a), a_extent}, {static_cast<const float*>(b), b_extent}, to);
    }

 private:
    void require(bool holds, const matmul_plan& p, const std::string& what) const {
        if (!holds)
            throw emulation_error(defect::arguments, "cublasLtMatmul, " + describe(p, precision_) + ": " + what);
    }
    void check(const matmul_plan& p, const std::string& side, const void* address, std::uint64_t rows,
               std::int64_t pitch, std::uint32_t align, std::size_t bytes) const {
        require(
            pitch >= static_cast<std::int64_t>(rows), p,
            side + " at pitch " + std::to_string(pitch) + ", expected its " + std::to_string(rows) + " rows at least");
        require(align >= bytes && reinterpret_cast<std::uintptr_t>(address) % align == 0, p,
                side + " does not lie at a multiple of " + std::to_string(align) + " bytes, as was stated, of " +
                    std::to_string(bytes) + " at least");
    }

    [[nodiscard]] static bool apart(const void* first, std::size_t first_bytes, const void* second,
                                    std::size_t second_bytes) {
        const auto one = reinterpret_cast<std::uintptr_t>(first), other = reinterpret_cast<std::uintptr_t>(second);
        return one + first_bytes <= other || other + second_bytes <= one;
    }

    /// As the tensor cores take an input: TF32 has 10 bits behind the first, ties away from zero as cvt.rna has them.
    [[nodiscard]] double value_of(float value) const {
        if (precision_ != matmul_precision::tf32 || (bits_of(value) & 0x7f800000U) == 0x7f800000U)
            return static_cast<double>(value);
        return static_cast<double>(float_of((bits_of(value) + 0x1000U) & 0xffffe000U));
    }
    [[nodiscard]] double value_of(std::uint16_t value) const {
        return static_cast<double>(float_of(std::uint32_t{value} << 16U));
    }

    /// The elements of a matrix as they will be used: op(x)[row, column] at row * columns + column.
    template <class T>
    [[nodiscard]] std::vector<double> read(const device_span<const T>& from, std::uint64_t rows, std::uint64_t columns,
                                           std::int64_t pitch, bool transposed) const {
        const allocation& memory = copied(from.memory(), device_);
        const std::size_t first = element_of(from, memory);
        std::vector<double> out(rows * columns);
        for (std::uint64_t column = 0; column < columns; ++column)
            for (std::uint64_t row = 0; row < rows; ++row) {
                const std::size_t at = column * static_cast<std::uint64_t>(pitch) + row;
                if (!memory.cells[first + at].written_since(1))
                    throw emulation_error(
                        defect::uninitialised,
                        "cublasLtMatmul reads " + describe(memory, first + at) + ", which nothing has written");
                out[transposed ? column * rows + row : row * columns + column] = value_of(from.data()[at]);
            }
        return out;
    }
    template <class T>
    [[nodiscard]] static std::size_t element_of(const device_span<T>& in, const allocation& memory) {
        return static_cast<std::size_t>(reinterpret_cast<const std::byte*>(in.data()) - memory.base) / sizeof(T);
    }
    [[nodiscard]] static std::string describe(const allocation& memory, std::size_t element) {
        return ::thinwire::cuda::detail::describe(memory, element);
    }
    [[nodiscard]] static std::string describe(const matmul_plan& p, matmul_precision precision) {
        return ::thinwire::cuda::detail::describe(p, precision);
    }

    template <class T>
    void give(stream& on, const matmul_plan& p, const device_span<const T>& a, const device_span<const T>& b,
              const device_span<float>& c) const {
        on.give([*this, p, a, b, c] {
            const std::vector<double> left = read(a, p.a_rows(), p.a_columns(), p.a_pitch, p.transpose_a);
            const std::vector<double> right = read(b, p.b_rows(), p.b_columns(), p.b_pitch, p.transpose_b);
            allocation& memory = copied(c.memory(), device_);
            const std::size_t first = element_of(c, memory);
            std::vector<double> row(p.n);
            for (std::uint64_t i = 0; i < p.m; ++i) {
                row.assign(p.n, 0.0);
                for (std::uint64_t x = 0; x < p.k; ++x)
                    for (std::uint64_t j = 0; j < p.n; ++j) row[j] += left[i * p.k + x] * right[x * p.n + j];
                for (std::uint64_t j = 0; j < p.n; ++j) {
                    const std::size_t at = j * static_cast<std::uint64_t>(p.c_pitch) + i;
                    if (p.accumulate) {
                        if (!memory.cells[first + at].written_since(1))
                            throw emulation_error(defect::uninitialised, "cublasLtMatmul adds to " +
                                                                             describe(memory, first + at) +
                                                                             ", which nothing has written");
                        row[j] += static_cast<double>(c.data()[at]);
                    }
                    c.data()[at] = static_cast<float>(row[j]);
                    memory.cells[first + at].initialise();
                }
            }
        });
    }

    matmul_precision precision_;
    int device_ = device_in_use;
};

}  // namespace thinwire::cuda::detail

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_EMULATED_MATMUL_HPP
