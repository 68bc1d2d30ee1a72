#ifndef THINWIRE_TRANSFORM_KERNELS_HPP
#define THINWIRE_TRANSFORM_KERNELS_HPP

#include <thinwire/core/isa.hpp>
#include <thinwire/transform/detail/dct_kernels.hpp>
#include <thinwire/transform/detail/element_kernels.hpp>
#include <thinwire/transform/detail/line_kernels.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace thinwire {

/// What the optimizer computes with, for one instruction set. The contracts are at the functions in detail/.
/// inverse_exact, inverse_line_exact and apply_sign give the same bits at every level; the others may differ in the
/// last one.
struct transform_kernels {
    void (*forward)(const basis_tables& rows, const basis_tables& cols, const float* tile, transform_scratch& s);
    void (*inverse)(const basis_tables& rows, const basis_tables& cols, const sparse_chunk<float>& chunk, float* tile,
                    transform_scratch& s);
    void (*inverse_exact)(const basis_tables& rows, const basis_tables& cols, const sparse_chunk<double>& chunk,
                          float* tile, transform_scratch& s);
    void (*inverse_fast)(const basis_tables& rows, const basis_tables& cols, const std::uint16_t* positions,
                         const float* values, std::size_t count, float* tile, transform_scratch& s);
    void (*forward_lines)(const basis_tables& cols, const float* lines, std::size_t count, transform_scratch& s);
    void (*inverse_line)(const basis_tables& cols, const std::uint16_t* positions, const float* values,
                         std::size_t count, float* tile);
    void (*inverse_line_exact)(const basis_tables& cols, const std::uint16_t* positions, const double* values,
                               std::size_t count, float* tile);
    void (*line_floors)(const float* c, std::size_t n, std::size_t stride, std::size_t lines, std::size_t k,
                        std::uint32_t* floors);
    void (*mark_lines)(const float* c, std::size_t n, std::size_t lines, const std::uint32_t* floors,
                       std::uint64_t* marks);
    void (*update_momentum)(float* m, const float* g, const detail::panel_row& to, float decay, float gain, float taken,
                            std::ptrdiff_t ahead);
    void (*add_scaled)(float* m, const float* d, std::size_t n, float factor);
    void (*apply_sign)(float* x, const float* d, std::size_t n, float rate, float factor, std::ptrdiff_t ahead);
    void (*scan)(const float* g, std::size_t n, double& sum, std::uint32_t& largest, const detail::scan_pause& pause);
    void (*group_tops)(const float* c, std::size_t n, std::size_t groups, std::uint32_t* tops);
    std::uint32_t (*top_floor)(const std::uint32_t* tops, std::size_t n, std::size_t k);
    void (*mark_tops)(const float* c, std::size_t n, std::uint32_t floor, std::uint64_t* marks);
};

namespace detail {

/// Bit i: whether the magnitude (as bits) of c[i] is at least `least`, for as many elements as a level has lanes.
struct lanes_plain {
    static std::uint32_t reached(const float* c, std::int32_t least) noexcept {
        std::uint32_t mask = 0;
        for (unsigned i = 0; i < 4; ++i)
            mask |= ((std::bit_cast<std::int32_t>(c[i]) & 0x7fffffff) >= least ? 1U : 0U) << i;
        return mask;
    }
};
#if THINWIRE_X86_DISPATCH
// The compilers' own vectors and builtins: <immintrin.h> alone would take a sixth of the umbrella's compile time.
struct lanes_avx2 {
    THINWIRE_TARGET_AVX2 static std::uint32_t reached(const float* c, std::int32_t least) noexcept {
        using bits [[gnu::vector_size(32)]] = std::int32_t;
        using numbers [[gnu::vector_size(32)]] = float;
        bits magnitude;
        std::memcpy(&magnitude, c, sizeof magnitude);
        magnitude &= 0x7fffffff;
        return static_cast<std::uint32_t>(__builtin_ia32_movmskps256((numbers)(magnitude >= least)));
    }
};
struct lanes_avx512 {
    THINWIRE_TARGET_AVX512 static std::uint32_t reached(const float* c, std::int32_t least) noexcept {
        using bits [[gnu::vector_size(64)]] = std::int32_t;
        constexpr int at_least = 5;
        constexpr unsigned short every_lane = 0xffff;
        bits magnitude;
        std::memcpy(&magnitude, c, sizeof magnitude);
        magnitude &= 0x7fffffff;
        const bits reach = bits{} + least;
        return __builtin_ia32_cmpd512_mask(magnitude, reach, at_least, every_lane);
    }
};
#endif

// The bodies are the same at every level; only the width of their vectors and the instructions allowed differ.
#define THINWIRE_DETAIL_LEVEL(NAME, BASE, TARGET, LANES)                                                               \
    struct NAME : BASE {                                                                                               \
        static constexpr int lanes = LANES;                                                                            \
        TARGET static void gemm(const float* a, std::size_t a_row, std::size_t a_depth, const float* b,                \
                                const std::uint32_t* b_at, std::size_t depth, float* c, std::size_t c_row,             \
                                std::size_t rows, std::size_t cols) {                                                  \
            detail::gemm<float, LANES>(a, a_row, a_depth, b, b_at, depth, c, c_row, rows, cols);                       \
        }                                                                                                              \
        TARGET static void gemm(const double* a, std::size_t a_row, std::size_t a_depth, const double* b,              \
                                const std::uint32_t* b_at, std::size_t depth, double* c, std::size_t c_row,            \
                                std::size_t rows, std::size_t cols) {                                                  \
            detail::gemm<double, LANES / 2>(a, a_row, a_depth, b, b_at, depth, c, c_row, rows, cols);                  \
        }                                                                                                              \
        /* One copy for all who call it: unrolled as it is, it takes long to compile. */                               \
        template <std::size_t N, bool Walsh>                                                                           \
        [[gnu::noinline]] TARGET static void fast_columns(const float* in, std::size_t in_stride, float* out,          \
                                                          std::size_t out_stride) {                                    \
            detail::fast_columns<N, LANES, Walsh>(in, in_stride, out, out_stride);                                     \
        }                                                                                                              \
        TARGET static void forward(const basis_tables& rows, const basis_tables& cols, const float* tile,              \
                                   transform_scratch& s) {                                                             \
            forward_transform<NAME>(rows, cols, tile, s);                                                              \
        }                                                                                                              \
        TARGET static void inverse(const basis_tables& rows, const basis_tables& cols,                                 \
                                   const sparse_chunk<float>& chunk, float* tile, transform_scratch& s) {              \
            inverse_transform<float, NAME>(rows, cols, chunk, tile, s);                                                \
        }                                                                                                              \
        TARGET static void inverse_exact(const basis_tables& rows, const basis_tables& cols,                           \
                                         const sparse_chunk<double>& chunk, float* tile, transform_scratch& s) {       \
            inverse_transform<double, NAME>(rows, cols, chunk, tile, s);                                               \
        }                                                                                                              \
        TARGET static void inverse_fast(const basis_tables& rows, const basis_tables& cols,                            \
                                        const std::uint16_t* positions, const float* values, std::size_t count,        \
                                        float* tile, transform_scratch& s) {                                           \
            detail::inverse_fast<NAME>(rows, cols, positions, values, count, tile, s);                                 \
        }                                                                                                              \
        TARGET static void forward_lines(const basis_tables& cols, const float* lines, std::size_t count,              \
                                         transform_scratch& s) {                                                       \
            detail::forward_lines<NAME>(cols, lines, count, s);                                                        \
        }                                                                                                              \
        TARGET static void inverse_line(const basis_tables& cols, const std::uint16_t* positions, const float* values, \
                                        std::size_t count, float* tile) {                                              \
            detail::inverse_line<float, NAME>(cols, positions, values, count, tile);                                   \
        }                                                                                                              \
        TARGET static void inverse_line_exact(const basis_tables& cols, const std::uint16_t* positions,                \
                                              const double* values, std::size_t count, float* tile) {                  \
            detail::inverse_line<double, NAME>(cols, positions, values, count, tile);                                  \
        }                                                                                                              \
        TARGET static void line_floors(const float* c, std::size_t n, std::size_t stride, std::size_t lines,           \
                                       std::size_t k, std::uint32_t* floors) {                                         \
            detail::line_floors<LANES>(c, n, stride, lines, k, floors);                                                \
        }                                                                                                              \
        TARGET static void mark_lines(const float* c, std::size_t n, std::size_t lines, const std::uint32_t* floors,   \
                                      std::uint64_t* marks) {                                                          \
            detail::mark_lines<NAME>(c, n, lines, floors, marks);                                                      \
        }                                                                                                              \
        TARGET static void update_momentum(float* m, const float* g, const panel_row& to, float decay, float gain,     \
                                           float taken, std::ptrdiff_t ahead) {                                        \
            detail::update_momentum<LANES>(m, g, to, decay, gain, taken, ahead);                                       \
        }                                                                                                              \
        TARGET static void add_scaled(float* m, const float* d, std::size_t n, float factor) {                         \
            detail::add_scaled<LANES>(m, d, n, factor);                                                                \
        }                                                                                                              \
        TARGET static void apply_sign(float* x, const float* d, std::size_t n, float rate, float factor,               \
                                      std::ptrdiff_t ahead) {                                                          \
            detail::apply_sign<LANES>(x, d, n, rate, factor, ahead);                                                   \
        }                                                                                                              \
        TARGET static void scan(const float* g, std::size_t n, double& sum, std::uint32_t& largest,                    \
                                const scan_pause& pause) {                                                             \
            detail::scan<LANES>(g, n, sum, largest, pause);                                                            \
        }                                                                                                              \
        TARGET static void group_tops(const float* c, std::size_t n, std::size_t groups, std::uint32_t* tops) {        \
            detail::group_tops<LANES>(c, n, groups, tops);                                                             \
        }                                                                                                              \
        TARGET static std::uint32_t top_floor(const std::uint32_t* tops, std::size_t n, std::size_t k) {               \
            return detail::top_floor<LANES>(tops, n, k);                                                               \
        }                                                                                                              \
        TARGET static void mark_tops(const float* c, std::size_t n, std::uint32_t floor, std::uint64_t* marks) {       \
            detail::mark_tops<NAME>(c, n, floor, marks);                                                               \
        }                                                                                                              \
    };

THINWIRE_DETAIL_LEVEL(level_scalar, lanes_plain, , 4)
#if THINWIRE_X86_DISPATCH
THINWIRE_DETAIL_LEVEL(level_avx2, lanes_avx2, THINWIRE_TARGET_AVX2, 8)
THINWIRE_DETAIL_LEVEL(level_avx512, lanes_avx512, THINWIRE_TARGET_AVX512, 16)
#endif
#undef THINWIRE_DETAIL_LEVEL

template <class Level>
inline constexpr transform_kernels kernels_of = {
    &Level::forward,       &Level::inverse,         &Level::inverse_exact,      &Level::inverse_fast,
    &Level::forward_lines, &Level::inverse_line,    &Level::inverse_line_exact, &Level::line_floors,
    &Level::mark_lines,    &Level::update_momentum, &Level::add_scaled,         &Level::apply_sign,
    &Level::scan,          &Level::group_tops,      &Level::top_floor,          &Level::mark_tops};

}  // namespace detail

/// The kernels of a level. Precondition: the processor runs it (level <= best_isa()).
[[nodiscard]] inline const transform_kernels& kernels_for(isa level) noexcept {
#if THINWIRE_X86_DISPATCH
    if (level == isa::avx512) return detail::kernels_of<detail::level_avx512>;
    if (level == isa::avx2) return detail::kernels_of<detail::level_avx2>;
#endif
    static_cast<void>(level);
    return detail::kernels_of<detail::level_scalar>;
}

}  // namespace thinwire

#endif  // THINWIRE_TRANSFORM_KERNELS_HPP
