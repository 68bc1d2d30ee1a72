#ifndef THINWIRE_CORE_DIGEST_HPP
#define THINWIRE_CORE_DIGEST_HPP

#include <thinwire/core/detail/sha256_blocks.hpp>

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
                const std::size_t blocks = bytes.size() / block_.size();
                detail::sha256_blocks(state_, bytes.data(), blocks);
                bytes = bytes.subspan(blocks * block_.size());
                continue;
            }
            const std::size_t take = std::min(bytes.size(), block_.size() - filled_);
            std::copy_n(bytes.begin(), take, block_.begin() + static_cast<std::ptrdiff_t>(filled_));
            filled_ += take;
            bytes = bytes.subspan(take);
            if (filled_ == block_.size()) {
                detail::sha256_blocks(state_, block_.data(), 1);
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
        // A one, zeros up to eight bytes before the end of a block, the length in bits.
        std::array<std::byte, 72> tail{std::byte{0x80}};
        const std::size_t padding = filled_ < 56 ? 56 - filled_ : 120 - filled_;
        for (std::size_t i = 0; i < 8; ++i) tail[padding + i] = static_cast<std::byte>((bits >> (56 - 8 * i)) & 0xffU);
        update(std::span(tail).first(padding + 8));
        digest out;
        for (std::size_t i = 0; i < 32; ++i)
            out.bytes[i] = static_cast<std::byte>((state_[i / 4] >> (24 - 8 * (i % 4))) & 0xffU);
        return out;
    }

 private:
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
