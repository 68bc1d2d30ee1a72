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

/// m <- decay * (m - taken * out) + gain * g, and a copy to out: one row of a chunk. `taken` 0: out is not read.
/// Asks for the same row of the chunk to the right, which comes next and lies where no hardware looks ahead.
template <int Lanes>
THINWIRE_ALWAYS_INLINE void update_momentum(float* m, const float* g, float* out, std::size_t n, float decay,
                                            float gain, float taken) {
    using vec = typename vector_of<float, Lanes>::type;
    std::size_t x = 0;
    const auto next_m = reinterpret_cast<std::uintptr_t>(m + n), next_g = reinterpret_cast<std::uintptr_t>(g + n);
    for (std::size_t ahead = 0; ahead < n * sizeof(float); ahead += 64) {  // addresses only: there may be no such chunk
        __builtin_prefetch(reinterpret_cast<const void*>(next_m + ahead), 1, 2);
        __builtin_prefetch(reinterpret_cast<const void*>(next_g + ahead), 0, 2);
    }
    if (taken != 0.0F) {
        for (; x + Lanes <= n; x += Lanes) {
            const vec left = *reinterpret_cast<const vec*>(m + x) - taken * *reinterpret_cast<const vec*>(out + x);
            const vec sum = decay * left + gain * *reinterpret_cast<const vec*>(g + x);
            *reinterpret_cast<vec*>(m + x) = sum;
            *reinterpret_cast<vec*>(out + x) = sum;
        }
        for (; x < n; ++x) out[x] = m[x] = decay * (m[x] - taken * out[x]) + gain * g[x];
        return;
    }
    for (; x + Lanes <= n; x += Lanes) {
        const vec sum = decay * *reinterpret_cast<const vec*>(m + x) + gain * *reinterpret_cast<const vec*>(g + x);
        *reinterpret_cast<vec*>(m + x) = sum;
        *reinterpret_cast<vec*>(out + x) = sum;
    }
    for (; x < n; ++x) out[x] = m[x] = decay * m[x] + gain * g[x];
}

/// m <- m + factor * d.
template <int Lanes>
THINWIRE_ALWAYS_INLINE void add_scaled(float* m, const float* d, std::size_t n, float factor) {
    using vec = typename vector_of<float, Lanes>::type;
    std::size_t x = 0;
    for (; x + Lanes <= n; x += Lanes) *reinterpret_cast<vec*>(m + x) += factor * *reinterpret_cast<const vec*>(d + x);
    for (; x < n; ++x) m[x] += factor * d[x];
}

/// Adds the squares to `sum` and raises `largest` to the bits of the largest magnitude (above 0x7f7fffff: not finite).
template <int Lanes>
THINWIRE_ALWAYS_INLINE void scan(const float* g, std::size_t n, double& sum, std::uint32_t& largest) {
    constexpr int lanes = Lanes / 2;
    using doubles = typename vector_of<double, lanes>::type;
    using floats = typename vector_of<float, lanes>::type;
    using bits = typename vector_of<std::int32_t, lanes>::type;
    doubles squares = {};
    bits top = {};
    std::size_t x = 0;
    for (; x + lanes <= n; x += lanes) {
        const doubles wide = __builtin_convertvector(*reinterpret_cast<const floats*>(g + x), doubles);
        squares += wide * wide;
        const bits magnitude = *reinterpret_cast<const bits*>(g + x) & 0x7fffffff;
        const bits above = magnitude > top;
        top = (magnitude & above) | (top & ~above);
    }
    for (int i = 0; i < lanes; ++i) {
        sum += squares[i];
        largest = std::max(largest, static_cast<std::uint32_t>(top[i]));
    }
    for (; x < n; ++x) {
        sum += static_cast<double>(g[x]) * static_cast<double>(g[x]);
        largest = std::max(largest, std::bit_cast<std::uint32_t>(g[x]) & 0x7fffffffU);
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
/// that contraction, -ffast-math and flush-to-zero cannot change a bit. `factor` 1 skips the product.
template <int Lanes>
THINWIRE_ALWAYS_INLINE void apply_sign(float* x, const float* d, std::size_t n, float rate, float factor) {
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
/// groups is a multiple of 16 and divides n.
template <int Lanes>
THINWIRE_ALWAYS_INLINE void group_tops(const float* c, std::size_t n, std::size_t groups, std::uint32_t* tops) {
    using bits = typename vector_of<std::int32_t, Lanes>::type;
    for (std::size_t g = 0; g < groups; g += Lanes) {
        bits top = {};
        for (std::size_t i = g; i < n; i += groups) {
            const bits magnitude = *reinterpret_cast<const bits*>(c + i) & 0x7fffffff;
            const bits above = magnitude > top;
            top = (magnitude & above) | (top & ~above);
        }
        std::memcpy(tops + g, &top, sizeof top);
    }
}

/// A number that at least k of the n tops reach, and not many more: the k-th largest with its low 16 bits cleared.
/// n is a multiple of 16, k <= n.
template <int Lanes>
THINWIRE_ALWAYS_INLINE std::uint32_t top_floor(const std::uint32_t* tops, std::size_t n, std::size_t k) {
    using bits = typename vector_of<std::int32_t, Lanes>::type;
    std::int32_t floor = 0;
    for (std::int32_t bit = 1 << 30; bit >= 1 << 16; bit >>= 1) {
        const std::int32_t tried = floor | bit;
        bits below = {};
        for (std::size_t i = 0; i < n; i += Lanes) below += *reinterpret_cast<const bits*>(tops + i) < tried;
        std::int32_t count = static_cast<std::int32_t>(n);
        for (int i = 0; i < Lanes; ++i) count += below[i];
        if (count >= static_cast<std::int32_t>(k)) floor = tried;
    }
    return static_cast<std::uint32_t>(floor);
}

}  // namespace thinwire::detail

#endif  // THINWIRE_TRANSFORM_DETAIL_ELEMENT_KERNELS_HPP
