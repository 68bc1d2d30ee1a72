#ifndef THINWIRE_COMM_DETAIL_CRC32_HPP
#define THINWIRE_COMM_DETAIL_CRC32_HPP

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace thinwire::detail::comm {

/// tables[k][b]: the CRC of byte b followed by k zero bytes (polynomial of IEEE 802.3, reflected).
inline constexpr auto crc32_tables = [] {
    std::array<std::array<std::uint32_t, 256>, 4> tables{};
    for (std::uint32_t b = 0; b < 256; ++b) {
        std::uint32_t crc = b;
        for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1U) ^ ((crc & 1U) != 0 ? 0xEDB88320U : 0U);
        tables[0][b] = crc;
    }
    for (std::size_t k = 1; k < 4; ++k)
        for (std::size_t b = 0; b < 256; ++b)
            tables[k][b] = (tables[k - 1][b] >> 8U) ^ tables[0][tables[k - 1][b] & 0xffU];
    return tables;
}();

/// CRC-32 of bytes that arrive in pieces: start with 0, hand the last result in again.
[[nodiscard]] inline std::uint32_t crc32(std::uint32_t crc, std::span<const std::byte> bytes) noexcept {
    const auto byte = [&](std::size_t i) { return std::to_integer<std::uint32_t>(bytes[i]); };
    const auto& t = crc32_tables;
    crc = ~crc;
    std::size_t i = 0;
    for (; i + 4 <= bytes.size(); i += 4) {
        crc ^= byte(i) | (byte(i + 1) << 8U) | (byte(i + 2) << 16U) | (byte(i + 3) << 24U);
        crc = t[3][crc & 0xffU] ^ t[2][(crc >> 8U) & 0xffU] ^ t[1][(crc >> 16U) & 0xffU] ^ t[0][crc >> 24U];
    }
    for (; i < bytes.size(); ++i) crc = (crc >> 8U) ^ t[0][(crc ^ byte(i)) & 0xffU];
    return ~crc;
}

}  // namespace thinwire::detail::comm

#endif  // THINWIRE_COMM_DETAIL_CRC32_HPP
