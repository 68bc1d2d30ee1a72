#ifndef THINWIRE_CODEC_CHECKSUM_HPP
#define THINWIRE_CODEC_CHECKSUM_HPP

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

namespace thinwire {

namespace detail {

/// The little-endian number that begins at `at`; what lies past the end is 0.
[[nodiscard]] constexpr std::uint64_t load_u64(std::span<const std::byte> bytes, std::size_t at) noexcept {
    std::uint64_t word = 0;
    if (!std::is_constant_evaluated() && std::endian::native == std::endian::little && bytes.size() - at >= 8) {
        std::memcpy(&word, bytes.data() + at, sizeof word);
        return word;
    }
    for (std::size_t i = 0; i < 8 && at + i < bytes.size(); ++i)
        word |= static_cast<std::uint64_t>(std::to_integer<std::uint8_t>(bytes[at + i])) << (8 * i);
    return word;
}

}  // namespace detail

/// A fast 64-bit checksum against accidents (not against intent: what must resist an attacker is named by SHA-256).
///
/// Four lanes take every fourth little-endian word: lane = rotl((lane ^ word) * odd, 29). Each step maps the lane one
/// to one for a given word and the word one to one for a given lane, and so does the way the lanes are joined; hence
/// any change confined to one aligned word, and so any single byte, always changes the result. The length is joined in.
[[nodiscard]] constexpr std::uint64_t checksum64(std::span<const std::byte> bytes) noexcept {
    constexpr std::uint64_t odd = 0x9E3779B97F4A7C15U;
    std::uint64_t lanes[4] = {0x243F6A8885A308D3U, 0x13198A2E03707344U, 0xA4093822299F31D0U, 0x082EFA98EC4E6C89U};
    std::size_t at = 0;
    for (; at + 32 <= bytes.size(); at += 32)
        for (std::size_t lane = 0; lane < 4; ++lane)
            lanes[lane] = std::rotl((lanes[lane] ^ detail::load_u64(bytes, at + 8 * lane)) * odd, 29);
    for (std::size_t lane = 0; at < bytes.size(); at += 8, ++lane)
        lanes[lane] = std::rotl((lanes[lane] ^ detail::load_u64(bytes, at)) * odd, 29);
    std::uint64_t sum = bytes.size();
    for (const std::uint64_t lane : lanes) {
        sum = (sum ^ lane) * odd;
        sum ^= sum >> 32U;
    }
    return sum;
}

}  // namespace thinwire

#endif  // THINWIRE_CODEC_CHECKSUM_HPP
