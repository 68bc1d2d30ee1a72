#ifndef THINWIRE_CORE_DIGEST_HPP
#define THINWIRE_CORE_DIGEST_HPP

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace thinwire {

/// 256 bits that identify content: a run, a payload, a replica.
struct digest {
    std::array<std::byte, 32> bytes{};
    [[nodiscard]] bool operator==(const digest&) const noexcept = default;
    [[nodiscard]] auto operator<=>(const digest&) const noexcept = default;
};

/// 64 hexadecimal digits; `digits` of them when a person only needs to compare at a glance.
[[nodiscard]] inline std::string to_string(const digest& d, std::size_t digits = 64) {
    constexpr std::string_view hex = "0123456789abcdef";
    std::string text;
    for (const std::byte b : d.bytes) {
        text += hex[std::to_integer<unsigned>(b) >> 4U];
        text += hex[std::to_integer<unsigned>(b) & 15U];
    }
    text.resize(std::min<std::size_t>(digits, 64));
    return text;
}

/// SHA-256 (FIPS 180-4) of bytes that arrive in pieces.
class sha256 {
 public:
    sha256& update(std::span<const std::byte> bytes) noexcept {
        length_ += bytes.size();
        while (!bytes.empty()) {
            if (filled_ == 0 && bytes.size() >= block_.size()) {
                compress(bytes.data());
                bytes = bytes.subspan(block_.size());
                continue;
            }
            const std::size_t take = std::min(bytes.size(), block_.size() - filled_);
            std::copy_n(bytes.begin(), take, block_.begin() + static_cast<std::ptrdiff_t>(filled_));
            filled_ += take;
            bytes = bytes.subspan(take);
            if (filled_ == block_.size()) {
                compress(block_.data());
                filled_ = 0;
            }
        }
        return *this;
    }
    sha256& update(std::string_view text) noexcept {
        return update(std::as_bytes(std::span(text.data(), text.size())));
    }

    /// The digest of everything so far. The object is spent afterwards.
    [[nodiscard]] digest finish() noexcept {
        const std::uint64_t bits = length_ * 8;
        const std::array<std::byte, 1> one{std::byte{0x80}};
        const std::array<std::byte, 1> zero{};
        update(one);
        while (filled_ != 56) update(zero);
        std::array<std::byte, 8> tail{};
        for (std::size_t i = 0; i < 8; ++i) tail[i] = static_cast<std::byte>((bits >> (56 - 8 * i)) & 0xffU);
        update(tail);
        digest out;
        for (std::size_t i = 0; i < 32; ++i)
            out.bytes[i] = static_cast<std::byte>((state_[i / 4] >> (24 - 8 * (i % 4))) & 0xffU);
        return out;
    }

 private:
    void compress(const std::byte* block) noexcept {
        static constexpr std::array<std::uint32_t, 64> k = {
            0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
            0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
            0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
            0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
            0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
            0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
            0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
            0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
        std::array<std::uint32_t, 64> w{};
        for (std::size_t i = 0; i < 16; ++i)
            for (std::size_t j = 0; j < 4; ++j) w[i] = (w[i] << 8U) | std::to_integer<std::uint32_t>(block[4 * i + j]);
        for (std::size_t i = 16; i < 64; ++i) {
            const std::uint32_t s0 = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ (w[i - 15] >> 3U);
            const std::uint32_t s1 = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ (w[i - 2] >> 10U);
            w[i] = w[i - 16] + s0 + w[i - 7] + s1;
        }
        auto [a, b, c, d, e, f, g, h] = state_;
        for (std::size_t i = 0; i < 64; ++i) {
            const std::uint32_t s1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
            const std::uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + k[i] + w[i];
            const std::uint32_t s0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
            const std::uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
            h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
        }
        const std::array<std::uint32_t, 8> add = {a, b, c, d, e, f, g, h};
        for (std::size_t i = 0; i < 8; ++i) state_[i] += add[i];
    }

    std::array<std::uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                           0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    std::array<std::byte, 64> block_{};
    std::size_t filled_ = 0;
    std::uint64_t length_ = 0;
};

/// The digest of one piece of bytes.
[[nodiscard]] inline digest digest_of(std::span<const std::byte> bytes) noexcept {
    return sha256{}.update(bytes).finish();
}

}  // namespace thinwire

#endif  // THINWIRE_CORE_DIGEST_HPP
