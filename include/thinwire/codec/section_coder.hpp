#ifndef THINWIRE_CODEC_SECTION_CODER_HPP
#define THINWIRE_CODEC_SECTION_CODER_HPP

#include <thinwire/codec/bit_stream.hpp>
#include <thinwire/codec/payload_layout.hpp>
#include <thinwire/codec/sparse_content.hpp>
#include <thinwire/core/error.hpp>
#include <thinwire/core/result.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace thinwire {

/// Writes and reads the sections of demo payloads of one layout. Holds the working memory of one thread; after the
/// first payload it allocates nothing.
class section_coder {
 public:
    /// The layout's codec must outlive it.
    explicit section_coder(const payload_layout& layout) : codec_(layout.codec) {}

    /// Appends one section: a byte of flags (1: counts follow), the counts when some chunk sends fewer than `kept`
    /// coefficients, all positions, all values. Each of the three parts starts at a byte. Throws value_error where a
    /// custom code writes more than its bits() or skips a zero that it says it sends.
    void encode(const payload_section& section, const section_slice& in, std::vector<std::byte>& out) {
        bool full = true;
        std::uint64_t coefficients = 0, value_bits = 0;
        for (const std::uint32_t count : in.counts) {
            full = full && count == section.kept;
            coefficients += count;
            value_bits += codec_->bits(count);
        }
        const unsigned width = position_bits(section);
        const std::size_t begin = out.size();
        out.resize(begin + 1 + 4 * in.counts.size() + (coefficients * width + value_bits) / 8 + 16);
        out[begin] = full ? std::byte{0} : std::byte{1};
        bit_writer bits(std::span<std::byte>(out).subspan(begin + 1));
        if (!full) {
            for (const std::uint32_t count : in.counts)
                bits.put(count, static_cast<unsigned>(std::bit_width(section.kept)));
            bits.flush();
        }
        for (std::size_t chunk = 0; chunk < in.counts.size(); ++chunk)
            for (std::size_t i = 0; i < in.counts[chunk]; ++i) bits.put(in.positions[chunk * section.kept + i], width);
        bits.flush();
        const std::size_t values_begin = bits.position();
        for (std::size_t chunk = 0; chunk < in.counts.size(); ++chunk)
            codec_->encode(in.values.subspan(chunk * section.kept, in.counts[chunk]), bits);
        if (bits.failed() || bits.position() != values_begin + (value_bits + 7) / 8)
            throw value_error("value codec '" + std::string(codec_->name()) +
                              "': wrote another number of bits than it announced");
        out.resize(begin + 1 + bits.position());
    }

    /// Reads one section of foreign bytes into memory that the caller sized from its own layout. Total; accepts exactly
    /// what encode() writes. What it leaves in `out` when it refuses is unspecified.
    [[nodiscard]] std::optional<errc> decode(std::span<const std::byte> bytes, const payload_section& section,
                                             const section_slice& out) {
        if (bytes.empty()) return errc::truncated;
        if (std::to_integer<unsigned>(bytes[0]) > 1) return errc::malformed;
        bit_reader bits(bytes.subspan(1));
        if (const auto bad = decode_counts(section, bytes[0] == std::byte{1}, bits, out.counts)) return bad;
        const unsigned width = position_bits(section);
        for (std::size_t chunk = 0; chunk < out.counts.size(); ++chunk) {
            std::uint32_t next = 0;
            for (std::size_t i = chunk * section.kept; i < chunk * section.kept + out.counts[chunk]; ++i) {
                const std::uint32_t position = bits.get(width);
                if (position < next || position >= section.chunk_size) return errc::out_of_range;
                out.positions[i] = static_cast<std::uint16_t>(position);
                next = position + 1;
            }
        }
        bits.align();
        if (bits.failed()) return errc::truncated;
        for (std::size_t chunk = 0; chunk < out.counts.size(); ++chunk) {
            const auto values = out.values.subspan(chunk * section.kept, out.counts[chunk]);
            if (const auto bad = codec_->decode(bits, values)) return bad;
            if (const auto bad = detail::refuse_absurd(values)) return bad;
        }
        bits.align();
        if (bits.failed()) return errc::malformed;
        if (bits.position() + 1 != bytes.size()) return errc::trailing;
        return std::nullopt;
    }
    [[nodiscard]] static constexpr std::size_t memory_bytes() noexcept { return 0; }

 private:
    [[nodiscard]] static unsigned position_bits(const payload_section& section) noexcept {
        return static_cast<unsigned>(std::bit_width(section.chunk_size - 1));
    }
    [[nodiscard]] std::optional<errc> decode_counts(const payload_section& section, bool listed, bit_reader& bits,
                                                    std::span<std::uint32_t> counts) const noexcept {
        if (!listed) {
            for (std::uint32_t& count : counts) count = section.kept;
            return std::nullopt;
        }
        if (codec_->sends_zero()) return errc::malformed;
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

    const value_codec* codec_;
};

}  // namespace thinwire

#endif  // THINWIRE_CODEC_SECTION_CODER_HPP
