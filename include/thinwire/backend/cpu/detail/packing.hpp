#ifndef THINWIRE_BACKEND_CPU_DETAIL_PACKING_HPP
#define THINWIRE_BACKEND_CPU_DETAIL_PACKING_HPP

#include <thinwire/config.hpp>

#include <algorithm>
#include <cstddef>

#if THINWIRE_X86_DISPATCH
#include <xmmintrin.h>
#endif

namespace thinwire::cpu::detail {

/// One side of a matrix product: `line` runs over its rows (left side) or columns (right side), `step` over the
/// summed index. Element (line, step) is data[line * line_stride + step * step_stride].
struct operand {
    const float* data;
    std::size_t line_stride;
    std::size_t step_stride;

    [[nodiscard]] operand at(std::size_t line, std::size_t step) const noexcept {
        return {data + line * line_stride + step * step_stride, line_stride, step_stride};
    }
};

/// Writes up to `Width` lines as a panel: element (line, step) to to[step * Width + line], missing lines as zeros.
template <std::size_t Width>
void pack_panel_plain(float* to, operand from, std::size_t lines, std::size_t first, std::size_t steps) noexcept {
    for (std::size_t s = first; s < steps; ++s) {
        for (std::size_t i = 0; i < lines; ++i)
            to[s * Width + i] = from.data[i * from.line_stride + s * from.step_stride];
        for (std::size_t i = lines; i < Width; ++i) to[s * Width + i] = 0.0F;
    }
}

#if THINWIRE_X86_DISPATCH

/// Full panel of lines that are contiguous along the step: transposed four by four. Returns the steps done.
template <std::size_t Width>
std::size_t pack_panel_transposed(float* to, operand from, std::size_t steps) noexcept {
    const std::size_t stride = from.line_stride;
    std::size_t s = 0;
    for (; s + 4 <= steps; s += 4) {
        for (std::size_t i = 0; i + 4 <= Width; i += 4) {
            const float* p = from.data + i * stride + s;
            __m128 a = _mm_loadu_ps(p);
            __m128 b = _mm_loadu_ps(p + stride);
            __m128 c = _mm_loadu_ps(p + 2 * stride);
            __m128 d = _mm_loadu_ps(p + 3 * stride);
            _MM_TRANSPOSE4_PS(a, b, c, d);
            float* q = to + s * Width + i;
            _mm_storeu_ps(q, a);
            _mm_storeu_ps(q + Width, b);
            _mm_storeu_ps(q + 2 * Width, c);
            _mm_storeu_ps(q + 3 * Width, d);
        }
        for (std::size_t i = Width / 4 * 4; i < Width; ++i)
            for (std::size_t j = 0; j < 4; ++j) to[(s + j) * Width + i] = from.data[i * stride + s + j];
    }
    return s;
}

/// Full panel whose lines lie beside each other at every step: rows copied.
template <std::size_t Width>
std::size_t pack_panel_copied(float* to, operand from, std::size_t steps) noexcept {
    constexpr std::size_t ahead = 12;  // steps: rows lie far apart, where the hardware does not look ahead
    for (std::size_t s = 0; s < steps; ++s) {
        const float* p = from.data + s * from.step_stride;
        float* q = to + s * Width;
        for (std::size_t i = 0; i < Width && s + ahead < steps; i += 16)
            _mm_prefetch(reinterpret_cast<const char*>(p + ahead * from.step_stride + i), _MM_HINT_T0);
        std::size_t i = 0;
        for (; i + 4 <= Width; i += 4) _mm_storeu_ps(q + i, _mm_loadu_ps(p + i));
        for (; i < Width; ++i) q[i] = p[i];
    }
    return steps;
}

#endif

/// Packs `lines` lines of `steps` steps as consecutive panels of `Width` lines, the last one filled up with zeros.
template <std::size_t Width>
void pack(float* to, operand from, std::size_t lines, std::size_t steps) noexcept {
    for (std::size_t line = 0; line < lines; line += Width) {
        const operand panel = from.at(line, 0);
        const std::size_t count = std::min(Width, lines - line);
        std::size_t done = 0;
#if THINWIRE_X86_DISPATCH
        if (count == Width && from.step_stride == 1)
            done = pack_panel_transposed<Width>(to, panel, steps);
        else if (count == Width && from.line_stride == 1)
            done = pack_panel_copied<Width>(to, panel, steps);
#endif
        pack_panel_plain<Width>(to, panel, count, done, steps);
        to += Width * steps;
    }
}

}  // namespace thinwire::cpu::detail

#endif  // THINWIRE_BACKEND_CPU_DETAIL_PACKING_HPP
