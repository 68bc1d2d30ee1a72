#ifndef THINWIRE_RUNTIME_DETAIL_BASE64_HPP
#define THINWIRE_RUNTIME_DETAIL_BASE64_HPP

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace thinwire::detail {

inline constexpr std::string_view base64_digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Base 64 for URLs without padding (RFC 4648, section 5): text that no shell and no mail changes.
[[nodiscard]] inline std::string to_base64(std::span<const std::byte> bytes) {
    std::string text;
    std::uint32_t bits = 0;
    unsigned held = 0;
    for (const std::byte b : bytes) {
        bits = (bits << 8U) | std::to_integer<std::uint32_t>(b);
        for (held += 8; held >= 6; held -= 6) text += base64_digits[(bits >> (held - 6)) & 63U];
    }
    if (held > 0) text += base64_digits[(bits << (6 - held)) & 63U];
    return text;
}

/// Total: nothing for a character that is no digit, and for any text but the one that to_base64() makes.
[[nodiscard]] inline std::optional<std::vector<std::byte>> from_base64(std::string_view text) {
    std::vector<std::byte> bytes;
    bytes.reserve(text.size() * 3 / 4);
    std::uint32_t bits = 0;
    unsigned held = 0;
    for (const char c : text) {
        const std::size_t digit = base64_digits.find(c);
        if (digit == std::string_view::npos) return std::nullopt;
        bits = (bits << 6U) | static_cast<std::uint32_t>(digit);
        held += 6;
        if (held < 8) continue;
        held -= 8;
        bytes.push_back(static_cast<std::byte>((bits >> held) & 0xffU));
    }
    if (held >= 6 || (bits & ((1U << held) - 1)) != 0) return std::nullopt;
    return bytes;
}

/// As from_base64(), for exactly N bytes.
template <std::size_t N>
[[nodiscard]] std::optional<std::array<std::byte, N>> fixed_from_base64(std::string_view text) {
    if (text.size() != (N * 8 + 5) / 6) return std::nullopt;
    const auto bytes = from_base64(text);
    if (!bytes || bytes->size() != N) return std::nullopt;
    std::array<std::byte, N> out{};
    for (std::size_t i = 0; i < N; ++i) out[i] = (*bytes)[i];
    return out;
}

}  // namespace thinwire::detail

#endif  // THINWIRE_RUNTIME_DETAIL_BASE64_HPP
