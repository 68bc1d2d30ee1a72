#ifndef THINWIRE_COMM_DETAIL_CRC32_HPP
#define THINWIRE_COMM_DETAIL_CRC32_HPP

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace thinwire::detail::comm {

/// tables[k][b]: the CRC of byte b followed by k zero bytes (polynomial of IEEE 802.3, reflected).
inline constexpr auto crc32_tables = [] {
    std::array<std::array<std::uint32_t, 256>, 8> tables{};
    for (std::uint32_t b = 0; b < 256; ++b) {
        std::uint32_t crc = b;
        for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1U) ^ ((crc & 1U) != 0 ? 0xEDB88320U : 0U);
        tables[0][b] = crc;
    }
    for (std::size_t k = 1; k < 8; ++k)
        for (std::size_t b = 0; b < 256; ++b)
            tables[k][b] = (tables[k - 1][b] >> 8U) ^ tables[0][tables[k - 1][b] & 0xffU];
    return tables;
}();

/// CRC-32 of bytes that arrive in pieces: start with 0, hand the last result in again.
[[nodiscard]] inline std::uint32_t crc32(std::uint32_t crc, std::span<const std::byte> bytes) noexcept {
    const auto byte = [&](std::size_t i) { return std::to_integer<std::uint32_t>(bytes[i]); };
    const auto word = [&](std::size_t i) {
        return byte(i) | (byte(i + 1) << 8U) | (byte(i + 2) << 16U) | (byte(i + 3) << 24U);
    };
    const auto& t = crc32_tables;
    crc = ~crc;
    std::size_t i = 0;
    for (; i + 8 <= bytes.size(); i += 8) {
        const std::uint32_t low = crc ^ word(i), high = word(i + 4);
        crc = t[7][low & 0xffU] ^ t[6][(low >> 8U) & 0xffU] ^ t[5][(low >> 16U) & 0xffU] ^ t[4][low >> 24U] ^
              t[3][high & 0xffU] ^ t[2][(high >> 8U) & 0xffU] ^ t[1][(high >> 16U) & 0xffU] ^ t[0][high >> 24U];
    }
    for (; i < bytes.size(); ++i) crc = (crc >> 8U) ^ t[0][(crc ^ byte(i)) & 0xffU];
    return ~crc;
}

}  // namespace thinwire::detail::comm

#endif  // THINWIRE_COMM_DETAIL_CRC32_HPP
