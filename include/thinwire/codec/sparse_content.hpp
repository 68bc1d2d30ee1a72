#ifndef THINWIRE_CODEC_SPARSE_CONTENT_HPP
#define THINWIRE_CODEC_SPARSE_CONTENT_HPP

#include <thinwire/codec/bit_stream.hpp>
#include <thinwire/codec/payload_layout.hpp>
#include <thinwire/core/result.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

namespace thinwire {

/// The coefficients of one payload, unpacked: for every chunk of every section `kept` places, of which the first
/// count(chunk) are used, positions rising.
struct sparse_content {
    std::vector<std::uint16_t> positions;
    std::vector<float> values;
    std::vector<std::uint32_t> counts;

    void resize(const payload_layout& layout) {
        positions.resize(layout.coefficients());
        values.resize(layout.coefficients());
        counts.resize(layout.chunks());
    }
};

/// The part of a sparse_content that belongs to one section.
struct section_slice {
    std::span<std::uint16_t> positions;
    std::span<float> values;
    std::span<std::uint32_t> counts;
};

/// Values beyond this magnitude are absurd: the optimizer never makes them and a decoder refuses them.
inline constexpr std::uint32_t largest_value_bits = (127U + 100U) << 23U;  // 2^100

/// Appends one section: a byte of flags (1: counts follow), the counts when some chunk sends fewer than `kept`
/// coefficients, all positions, all values. Each of the three parts starts at a byte.
inline void encode_section(const payload_section& section, value_code code, const section_slice& in,
                           std::vector<std::byte>& out) {
    bool full = true;
    for (const std::uint32_t count : in.counts) full = full && count == section.kept;
    out.push_back(full ? std::byte{0} : std::byte{1});
    bit_writer bits(out);
    const auto each = [&](const auto& put) {
        for (std::size_t chunk = 0; chunk < in.counts.size(); ++chunk)
            for (std::size_t i = 0; i < in.counts[chunk]; ++i) put(chunk * section.kept + i);
    };
    if (!full) {
        const auto width = static_cast<unsigned>(std::bit_width(section.kept));
        for (const std::uint32_t count : in.counts) bits.put(count, width);
        bits.flush();
    }
    const unsigned width = section.position_bits();
    each([&](std::size_t i) { bits.put(in.positions[i], width); });
    bits.flush();
    if (code == value_code::f32)
        each([&](std::size_t i) { bits.put(std::bit_cast<std::uint32_t>(in.values[i]), 32); });
    else
        each([&](std::size_t i) { bits.put(std::bit_cast<std::uint32_t>(in.values[i]) >> 31U, 1); });
    bits.flush();
}

namespace detail {

[[nodiscard]] inline std::optional<errc> decode_counts(const payload_section& section, value_code code, bool listed,
                                                       bit_reader& bits, std::span<std::uint32_t> counts) noexcept {
    if (!listed) {
        for (std::uint32_t& count : counts) count = section.kept;
        return std::nullopt;
    }
    if (code == value_code::f32) return errc::malformed;  // f32 sends zeros as well: the mean counts their senders
    bool full = true;
    for (std::uint32_t& count : counts) {
        count = bits.get(static_cast<unsigned>(std::bit_width(section.kept)));
        if (count > section.kept) return errc::out_of_range;
        full = full && count == section.kept;
    }
    bits.align();
    if (full) return errc::malformed;
    return std::nullopt;
}

[[nodiscard]] inline std::optional<errc> decode_values(const payload_section& section, value_code code,
                                                       bit_reader& bits, const section_slice& out) noexcept {
    for (std::size_t chunk = 0; chunk < out.counts.size(); ++chunk) {
        for (std::size_t i = chunk * section.kept; i < chunk * section.kept + out.counts[chunk]; ++i) {
            if (code == value_code::sign) {
                out.values[i] = bits.get(1) == 0 ? 1.0F : -1.0F;
                continue;
            }
            const std::uint32_t value = bits.get(32);
            const std::uint32_t magnitude = value & 0x7fffffffU;
            if (magnitude >= 0x7f800000U) return errc::not_finite;
            if (magnitude > largest_value_bits) return errc::out_of_range;
            out.values[i] = std::bit_cast<float>(value);
        }
    }
    bits.align();
    return std::nullopt;
}

}  // namespace detail

/// Reads one section of foreign bytes into memory that the caller sized from its own layout. Total; accepts exactly
/// what encode_section() writes. What it leaves in `out` when it refuses is unspecified.
[[nodiscard]] inline std::optional<errc> decode_section(std::span<const std::byte> bytes,
                                                        const payload_section& section, value_code code,
                                                        const section_slice& out) noexcept {
    if (bytes.empty()) return errc::truncated;
    if (std::to_integer<unsigned>(bytes[0]) > 1) return errc::malformed;
    bit_reader bits(bytes.subspan(1));
    if (const auto bad = detail::decode_counts(section, code, bytes[0] == std::byte{1}, bits, out.counts)) return bad;
    const unsigned width = section.position_bits();
    for (std::size_t chunk = 0; chunk < out.counts.size(); ++chunk) {
        std::uint32_t next = 0;
        for (std::size_t i = chunk * section.kept; i < chunk * section.kept + out.counts[chunk]; ++i) {
            const std::uint32_t position = bits.get(width);
            if (bits.failed()) return errc::truncated;
            if (position < next || position >= section.chunk_size) return errc::out_of_range;
            out.positions[i] = static_cast<std::uint16_t>(position);
            next = position + 1;
        }
    }
    bits.align();
    if (bits.failed()) return errc::malformed;
    if (const auto bad = detail::decode_values(section, code, bits, out)) return bad;
    if (bits.failed()) return errc::malformed;
    if (bits.position() + 1 != bytes.size()) return errc::trailing;
    return std::nullopt;
}

}  // namespace thinwire

#endif  // THINWIRE_CODEC_SPARSE_CONTENT_HPP
