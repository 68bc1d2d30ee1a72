#ifndef THINWIRE_TRANSFORM_DETAIL_ELEMENT_KERNELS_HPP
#define THINWIRE_TRANSFORM_DETAIL_ELEMENT_KERNELS_HPP

#include <thinwire/transform/detail/small_gemm.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace thinwire::detail {

/// Makes the compiler believe that the memory was read and written here, so that no operation before is fused,
/// reordered or simplified with one after, whatever its flags.
THINWIRE_ALWAYS_INLINE void keep(const void* memory) noexcept {
    asm volatile("" : : "r"(memory) : "memory");
}

/// Asks for n elements that lie `ahead` elements on, into the second cache; there may be nothing.
THINWIRE_ALWAYS_INLINE void ask_ahead(const float* from, std::size_t n, std::ptrdiff_t ahead) noexcept {
    // modulo 2^64: addresses, no pointers
    const auto at = reinterpret_cast<std::uintptr_t>(from) + static_cast<std::uintptr_t>(ahead) * sizeof(float);
    for (std::size_t line = 0; line < n * sizeof(float); line += 64)
        __builtin_prefetch(reinterpret_cast<const void*>(at + line), 0, 2);
}

/// Where a row of chunks lies in a panel that holds them one after the other: `chunks` times `width` elements from
/// `out` on, `apart` elements from one chunk to the next. Elements of a chunk's row from `width` to `full` are set to
/// 0.
struct panel_row {
    float* out;
    std::size_t chunks, width, full, apart;
};

/// m <- decay * (m - taken * out) + gain * g, and a copy to out: one row of a panel's chunks. `taken` 0: out is not
/// read. Asks for m and g `ahead` elements on, where no hardware looks ahead.
template <int Lanes>
THINWIRE_ALWAYS_INLINE void update_momentum(float* m, const float* g, const panel_row& to, float decay, float gain,
                                            float taken, std::ptrdiff_t ahead) {
    using vec = typename vector_of<float, Lanes>::type;
    const std::size_t n = to.width;
    float* out = to.out;
    for (std::size_t chunk = 0; chunk < to.chunks; ++chunk, m += n, g += n, out += to.apart) {
        ask_ahead(m, n, ahead);
        ask_ahead(g, n, ahead);
        std::size_t x = 0;
        if (taken != 0.0F) {
            for (; x + Lanes <= n; x += Lanes) {
                const vec left = *reinterpret_cast<const vec*>(m + x) - taken * *reinterpret_cast<const vec*>(out + x);
                const vec sum = decay * left + gain * *reinterpret_cast<const vec*>(g + x);
                *reinterpret_cast<vec*>(m + x) = sum;
                *reinterpret_cast<vec*>(out + x) = sum;
            }
            for (; x < n; ++x) out[x] = m[x] = decay * (m[x] - taken * out[x]) + gain * g[x];
        } else {
            for (; x + Lanes <= n; x += Lanes) {
                const vec sum =
                    decay * *reinterpret_cast<const vec*>(m + x) + gain * *reinterpret_cast<const vec*>(g + x);
                *reinterpret_cast<vec*>(m + x) = sum;
                *reinterpret_cast<vec*>(out + x) = sum;
            }
            for (; x < n; ++x) out[x] = m[x] = decay * m[x] + gain * g[x];
        }
        for (; x < to.full; ++x) out[x] = 0.0F;
    }
}

/// m <- m + factor * d.
template <int Lanes>
THINWIRE_ALWAYS_INLINE void add_scaled(float* m, const float* d, std::size_t n, float factor) {
    using vec = typename vector_of<float, Lanes>::type;
    std::size_t x = 0;
    for (; x + Lanes <= n; x += Lanes) *reinterpret_cast<vec*>(m + x) += factor * *reinterpret_cast<const vec*>(d + x);
    for (; x < n; ++x) m[x] += factor * d[x];
}

/// The sum of squares of elements whose squares may leave the range of float32.
inline void scan_wide(const float* g, std::size_t n, double& sum) {
    for (std::size_t x = 0; x < n; ++x) sum += static_cast<double>(g[x]) * static_cast<double>(g[x]);
}

/// What scan() does in between, once for every `gradients` of them: work that computes while reading waits. It must not
/// throw.
struct scan_pause {
    static constexpr std::size_t gradients = 512;
    void (*work)(const void* context) = nullptr;
    const void* context = nullptr;
};

/// Adds the squares to `sum` (within 2^-18 of it) and raises `largest` to the bits of the largest magnitude (above
/// 0x7f7fffff: not finite). Squares are summed in float32 for 4096 elements at a time; where the largest of those is
/// not within 2^-40..2^48, in double.
template <int Lanes>
THINWIRE_ALWAYS_INLINE void scan(const float* g, std::size_t n, double& sum, std::uint32_t& largest,
                                 const scan_pause& pause) {
    using floats = typename vector_of<float, Lanes>::type;
    using bits = typename vector_of<std::int32_t, Lanes>::type;
    constexpr std::size_t block = 4096, ways = 4;
    for (std::size_t from = 0; from < n; from += block) {
        const std::size_t end = std::min(n, from + block);
        floats squares[ways] = {};
        bits tops[ways] = {};
        std::size_t x = from;
        while (x + ways * Lanes <= end) {
            const std::size_t stop = std::min(end, x + scan_pause::gradients);
            if (pause.work != nullptr) pause.work(pause.context);
            for (; x + ways * Lanes <= stop; x += ways * Lanes) {
#pragma GCC unroll 4
                for (std::size_t w = 0; w < ways; ++w) {
                    const floats value = *reinterpret_cast<const floats*>(g + x + w * Lanes);
                    squares[w] += value * value;
                    const bits magnitude = *reinterpret_cast<const bits*>(g + x + w * Lanes) & 0x7fffffff;
                    tops[w] = magnitude > tops[w] ? magnitude : tops[w];
                }
            }
        }
        const floats all = (squares[0] + squares[1]) + (squares[2] + squares[3]);
        double total = 0.0;
        std::int32_t top = 0;
        for (std::size_t w = 1; w < ways; ++w) tops[0] = tops[w] > tops[0] ? tops[w] : tops[0];
        for (int i = 0; i < Lanes; ++i) {
            total += static_cast<double>(all[i]);
            top = std::max(top, static_cast<std::int32_t>(tops[0][i]));
        }
        for (; x < end; ++x) {
            total += static_cast<double>(g[x]) * static_cast<double>(g[x]);
            top = std::max(top, std::bit_cast<std::int32_t>(g[x]) & 0x7fffffff);
        }
        largest = std::max(largest, static_cast<std::uint32_t>(top));
        if (top > (127 + 48) << 23 || (top < (127 - 40) << 23 && top > 0))
            scan_wide(g + from, end - from, sum);
        else
            sum += total;
    }
}

/// Replaces what hardware may or may not flush (subnormal numbers, the smallest normal one, -0) by +0, by its bits.
template <int Lanes>
THINWIRE_ALWAYS_INLINE void flush_tiny(float* values, std::size_t n) {
    using bits = typename vector_of<std::int32_t, Lanes>::type;
    for (std::size_t x = 0; x < n; x += Lanes) {
        bits& b = *reinterpret_cast<bits*>(values + x);
        b &= (b & 0x7fffffff) > 0x00800000;
    }
}

/// The same barrier for a vector that may stay in its register.
template <class Vec>
THINWIRE_ALWAYS_INLINE void settle(Vec& v) noexcept {
#if defined(__x86_64__) && !defined(__clang__)  // clang refuses wide registers in what a target function inlines
    asm volatile("" : "+x"(v));
#elif defined(__aarch64__)
    asm volatile("" : "+w"(v));
#else
    keep(&v);
#endif
}

/// flush_tiny() for one vector.
template <int Lanes, class Vec>
THINWIRE_ALWAYS_INLINE void flush_lanes(Vec& v) noexcept {
    using bits = typename local_vector<std::int32_t, Lanes>::type;
    bits b = (bits)v;
    b &= (b & 0x7fffffff) > 0x00800000;
    v = (Vec)b;
}

/// x <- factor * x - rate * sign(d) for one row; sign(0) = 0. One IEEE operation at a time with a barrier between, so
/// that contraction, -ffast-math and flush-to-zero cannot change a bit. `factor` 1 skips the product. Asks for x
/// `ahead` elements on.
template <int Lanes>
THINWIRE_ALWAYS_INLINE void apply_sign(float* x, const float* d, std::size_t n, float rate, float factor,
                                       std::ptrdiff_t ahead) {
    ask_ahead(x, n, ahead);
    using vec = typename local_vector<float, Lanes>::type;
    using bits = typename local_vector<std::int32_t, Lanes>::type;
    const auto up = static_cast<std::int32_t>(std::bit_cast<std::uint32_t>(rate));
    const auto down = static_cast<std::int32_t>(std::bit_cast<std::uint32_t>(rate) | 0x80000000U);
    const bool decay = std::bit_cast<std::uint32_t>(factor) != 0x3f800000U;
    for (std::size_t at = 0; at < n; at += Lanes) {
        const std::size_t bytes = std::min<std::size_t>(Lanes, n - at) * sizeof(float);
        vec value = {}, way = {};
        if (bytes == sizeof value) {
            std::memcpy(&value, x + at, sizeof value);
            std::memcpy(&way, d + at, sizeof way);
        } else {
            std::memcpy(&value, x + at, bytes);
            std::memcpy(&way, d + at, bytes);
        }
        settle(value);
        flush_lanes<Lanes>(value);
        if (decay) {
            value *= factor;
            settle(value);
            flush_lanes<Lanes>(value);
        }
        const bits step = ((way > 0.0F) & up) | ((way < 0.0F) & down);
        value -= (vec)step;
        settle(value);
        flush_lanes<Lanes>(value);
        if (bytes == sizeof value)
            std::memcpy(x + at, &value, sizeof value);
        else
            std::memcpy(x + at, &value, bytes);
    }
}

/// tops[g] = the largest magnitude (as bits) among c[g], c[g + groups], c[g + 2 * groups], ... of n elements.
/// groups and n are multiples of 16.
template <int Lanes>
THINWIRE_ALWAYS_INLINE void group_tops(const float* c, std::size_t n, std::size_t groups, std::uint32_t* tops) {
    using bits = typename vector_of<std::int32_t, Lanes>::type;
    for (std::size_t g = 0; g < groups; g += Lanes) {
        bits top = {};
        for (std::size_t i = g; i < n; i += groups) {
            const bits magnitude = *reinterpret_cast<const bits*>(c + i) & 0x7fffffff;
            top = magnitude > top ? magnitude : top;
        }
        std::memcpy(tops + g, &top, sizeof top);
    }
}

/// The sum of the lanes.
template <int Lanes>
THINWIRE_ALWAYS_INLINE std::int32_t sum_of(const typename local_vector<std::int32_t, Lanes>::type& v) {
    using bits = typename local_vector<std::int32_t, Lanes>::type;
    bits sum = v;
    if constexpr (Lanes == 16)
        sum += __builtin_shufflevector(sum, sum, 8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15);
    if constexpr (Lanes == 16)
        sum += __builtin_shufflevector(sum, sum, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7);
    else if constexpr (Lanes == 8)
        sum += __builtin_shufflevector(sum, sum, 4, 5, 6, 7, 4, 5, 6, 7);
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

/// A number that at least k of the n tops reach, and about k / 16 more at most unless they are within a 64th of it.
/// n is a multiple of 16, k <= n.
template <int Lanes>
THINWIRE_ALWAYS_INLINE std::uint32_t top_floor(const std::uint32_t* tops, std::size_t n, std::size_t k) {
    using bits = typename local_vector<std::int32_t, Lanes>::type;
    using stored = typename vector_of<std::int32_t, Lanes>::type;
    bits top = {};
    for (std::size_t i = 0; i < n; i += Lanes) {
        const bits t = *reinterpret_cast<const stored*>(tops + i);
        top = t > top ? t : top;
    }
    std::int32_t above = 0;
    for (int i = 0; i < Lanes; ++i) above = std::max(above, static_cast<std::int32_t>(top[i]));
    const auto reaching = [&](std::int32_t tried) {
        bits below = {};
        for (std::size_t i = 0; i < n; i += Lanes) below += *reinterpret_cast<const stored*>(tops + i) < tried << 16;
        return static_cast<std::int32_t>(n) + sum_of<Lanes>(below);
    };
    const auto least = static_cast<std::int32_t>(k), most = least + least / 16 + 1;
    above = (above >> 16) + 1;                      // reached by none
    std::int32_t floor = std::max(0, above - 512);  // four octaves below: as a rule reached by more than enough
    if (floor > 0 && reaching(floor) < least) {
        above = floor;
        floor = 0;
    }
    while (above - floor > 1) {
        const std::int32_t tried = floor + (above - floor) / 2;
        const std::int32_t count = reaching(tried);
        (count >= least ? floor : above) = tried;
        if (count >= least && count <= most) break;
    }
    return static_cast<std::uint32_t>(floor) << 16U;
}

/// Bit i % 64 of marks[i / 64] = whether the magnitude (as bits) of c[i] reaches `floor`; floor > 0.
/// n is a multiple of 16; bits beyond it are 0. Level::reached(c, floor) gives those bits for Level::lanes elements.
template <class Level>
THINWIRE_ALWAYS_INLINE void mark_tops(const float* c, std::size_t n, std::uint32_t floor, std::uint64_t* marks) {
    const auto least = static_cast<std::int32_t>(floor);
    for (std::size_t from = 0; from < n; from += 64) {
        std::uint64_t word = 0;
        const std::size_t end = std::min(n, from + 64);
        for (std::size_t i = from; i < end; i += Level::lanes)
            word |= std::uint64_t{Level::reached(c + i, least)} << (i - from);
        marks[from / 64] = word;
    }
}

}  // namespace thinwire::detail

#endif  // THINWIRE_TRANSFORM_DETAIL_ELEMENT_KERNELS_HPP
