#ifndef THINWIRE_CORE_DETAIL_SHA256_BLOCKS_HPP
#define THINWIRE_CORE_DETAIL_SHA256_BLOCKS_HPP

#include <thinwire/config.hpp>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if THINWIRE_X86_DISPATCH
#include <cpuid.h>
#endif

namespace thinwire::detail {

inline constexpr std::array<std::uint32_t, 64> sha256_k = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

using sha256_state = std::array<std::uint32_t, 8>;

/// Takes `blocks` blocks of 64 bytes into the state (FIPS 180-4, section 6.2.2): runs everywhere.
inline void sha256_blocks_plain(sha256_state& state, const std::byte* data, std::size_t blocks) noexcept {
    for (; blocks > 0; --blocks, data += 64) {
        std::array<std::uint32_t, 64> w{};
        for (std::size_t i = 0; i < 16; ++i)
            for (std::size_t j = 0; j < 4; ++j) w[i] = (w[i] << 8U) | std::to_integer<std::uint32_t>(data[4 * i + j]);
        for (std::size_t i = 16; i < 64; ++i) {
            const std::uint32_t s0 = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ (w[i - 15] >> 3U);
            const std::uint32_t s1 = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ (w[i - 2] >> 10U);
            w[i] = w[i - 16] + s0 + w[i - 7] + s1;
        }
        auto [a, b, c, d, e, f, g, h] = state;
        for (std::size_t i = 0; i < 64; ++i) {
            const std::uint32_t s1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
            const std::uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + sha256_k[i] + w[i];
            const std::uint32_t s0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
            const std::uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
            h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
        }
        const sha256_state add = {a, b, c, d, e, f, g, h};
        for (std::size_t i = 0; i < 8; ++i) state[i] += add[i];
    }
}

#if THINWIRE_X86_DISPATCH

/// Whether the processor has the SHA instructions. Asked once, then remembered.
[[nodiscard]] inline bool has_sha_instructions() noexcept {
    static const bool found = [] {
        unsigned a = 0, b = 0, c = 0, d = 0;
        if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & (1U << 19U)) == 0) return false;  // SSE4.1
        return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (b & (1U << 29U)) != 0;
    }();
    return found;
}

/// The same with the SHA instructions. Precondition: has_sha_instructions().
__attribute__((target("sha,sse4.1,ssse3"))) inline void sha256_blocks_sha(sha256_state& state, const std::byte* data,
                                                                          std::size_t blocks) noexcept {
    typedef int words __attribute__((vector_size(16)));
    typedef std::uint32_t unsigned_words __attribute__((vector_size(16)));
    typedef char bytes __attribute__((vector_size(16)));
    words abcd, efgh;
    std::memcpy(&abcd, state.data(), sizeof abcd);
    std::memcpy(&efgh, state.data() + 4, sizeof efgh);
    words abef = __builtin_shufflevector(efgh, abcd, 1, 0, 5, 4);  // highest element first
    words cdgh = __builtin_shufflevector(efgh, abcd, 3, 2, 7, 6);
    for (; blocks > 0; --blocks, data += 64) {
        const words abef_before = abef, cdgh_before = cdgh;
        words w[4];
        for (int i = 0; i < 4; ++i) {
            bytes raw;
            std::memcpy(&raw, data + std::ptrdiff_t{16} * i, sizeof raw);
            w[i] = (words)__builtin_shufflevector(raw, raw, 3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12);
        }
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i) {
            if (i >= 4) {  // w[i] from the four before it
                const words last = w[(i + 3) % 4], before = w[(i + 2) % 4];
                const words seventh = __builtin_shufflevector(before, last, 1, 2, 3, 4);
                const words first = __builtin_ia32_sha256msg1(w[i % 4], w[(i + 1) % 4]);
                w[i % 4] = __builtin_ia32_sha256msg2((words)((unsigned_words)first + (unsigned_words)seventh), last);
            }
            unsigned_words k;
            std::memcpy(&k, sha256_k.data() + std::ptrdiff_t{4} * i, sizeof k);
            const words low = (words)((unsigned_words)w[i % 4] + k);
            cdgh = __builtin_ia32_sha256rnds2(cdgh, abef, low);
            abef = __builtin_ia32_sha256rnds2(abef, cdgh, __builtin_shufflevector(low, low, 2, 3, 2, 3));
        }
        abef = (words)((unsigned_words)abef + (unsigned_words)abef_before);
        cdgh = (words)((unsigned_words)cdgh + (unsigned_words)cdgh_before);
    }
    abcd = __builtin_shufflevector(abef, cdgh, 3, 2, 7, 6);
    efgh = __builtin_shufflevector(abef, cdgh, 1, 0, 5, 4);
    std::memcpy(state.data(), &abcd, sizeof abcd);
    std::memcpy(state.data() + 4, &efgh, sizeof efgh);
}

#endif

inline void sha256_blocks(sha256_state& state, const std::byte* data, std::size_t blocks) noexcept {
#if THINWIRE_X86_DISPATCH
    if (has_sha_instructions()) {
        sha256_blocks_sha(state, data, blocks);
        return;
    }
#endif
    sha256_blocks_plain(state, data, blocks);
}

}  // namespace thinwire::detail

#endif  // THINWIRE_CORE_DETAIL_SHA256_BLOCKS_HPP
