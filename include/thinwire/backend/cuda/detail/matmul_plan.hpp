#ifndef THINWIRE_BACKEND_CUDA_DETAIL_MATMUL_PLAN_HPP
#define THINWIRE_BACKEND_CUDA_DETAIL_MATMUL_PLAN_HPP

#include <algorithm>
#include <bit>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace thinwire::cuda {

/// What a matrix product is computed with. Inputs, outputs and sums are float32 in memory in any case.
enum class matmul_precision : std::uint8_t {
    f32,   ///< float32 throughout
    tf32,  ///< inputs rounded to 11 significant bits by the tensor cores
    bf16,  ///< inputs rounded to bfloat16 (8 significant bits), sums in float32
};

[[nodiscard]] constexpr std::string_view to_string(matmul_precision p) noexcept {
    return p == matmul_precision::f32 ? "f32" : p == matmul_precision::tf32 ? "tf32" : "bf16";
}

namespace detail {

/// A product in the terms of cuBLAS, whose matrices lie column by column: c[m,n] = op(a)[m,k] op(b)[k,n], or +=.
struct matmul_plan {
    std::uint64_t m = 0, n = 0, k = 0;
    bool transpose_a = false, transpose_b = false, accumulate = false;
    std::int64_t a_pitch = 0, b_pitch = 0, c_pitch = 0;   ///< elements from column to column
    std::uint32_t a_align = 0, b_align = 0, c_align = 0;  ///< bytes that the addresses are multiples of
    [[nodiscard]] auto operator<=>(const matmul_plan&) const = default;

    [[nodiscard]] std::uint64_t a_rows() const noexcept { return transpose_a ? k : m; }
    [[nodiscard]] std::uint64_t a_columns() const noexcept { return transpose_a ? m : k; }
    [[nodiscard]] std::uint64_t b_rows() const noexcept { return transpose_b ? n : k; }
    [[nodiscard]] std::uint64_t b_columns() const noexcept { return transpose_b ? k : n; }
    /// From the first element to the one behind the last.
    [[nodiscard]] static std::size_t extent(std::uint64_t rows, std::uint64_t columns, std::int64_t pitch) noexcept {
        return static_cast<std::size_t>((columns - 1) * static_cast<std::uint64_t>(pitch) + rows);
    }
};

/// The largest power of two up to 256 that an address is a multiple of.
[[nodiscard]] inline std::uint32_t alignment_of(const void* address) noexcept {
    const auto bits = reinterpret_cast<std::uintptr_t>(address);
    return static_cast<std::uint32_t>(std::uintptr_t{1} << std::min(8, std::countr_zero(bits)));
}

/// For messages.
[[nodiscard]] inline std::string describe(const matmul_plan& p, matmul_precision precision) {
    const auto side = [](bool transposed, std::int64_t pitch) {
        return std::string(transposed ? "transposed" : "as it lies") + " at pitch " + std::to_string(pitch);
    };
    return std::string(to_string(precision)) + " product of m " + std::to_string(p.m) + ", n " + std::to_string(p.n) +
           ", k " + std::to_string(p.k) + " (column-major; a " + side(p.transpose_a, p.a_pitch) + ", b " +
           side(p.transpose_b, p.b_pitch) + ", c " + side(false, p.c_pitch) + (p.accumulate ? ", added)" : ")");
}

}  // namespace detail
}  // namespace thinwire::cuda

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_MATMUL_PLAN_HPP
