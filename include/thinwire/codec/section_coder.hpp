#ifndef THINWIRE_CODEC_SECTION_CODER_HPP
#define THINWIRE_CODEC_SECTION_CODER_HPP

#include <thinwire/codec/bit_stream.hpp>
#include <thinwire/codec/detail/support_coder.hpp>
#include <thinwire/codec/payload_layout.hpp>
#include <thinwire/codec/sparse_content.hpp>
#include <thinwire/core/error.hpp>
#include <thinwire/core/result.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace thinwire {

/// Bytes that a demo section never exceeds, nor while it is written: memory of this size need not grow.
///
/// Of n places c are chosen: by an even choice each choice is worth log2 C(n, c) <= c (log2(n / c) + 1.45) bits. What
/// a split costs is its share of them, but for 1. an escape, of 15 + 16 bits: its share is 16 or more, as a count
/// outside the window is less likely than 2^-16; 2. what the coders' states round, at most 0.17 bits of a symbol, of
/// which there are 5.2 c, and 15 that cut a chunk down to a power of two. In all less than 2 c log2(n / c) + 4 c + 4
/// bits, for c < 4 (without escapes for c = 1) too less than 2 c width + 4.
[[nodiscard]] inline std::size_t room_of_section(const payload_section& section, const value_codec& codec) noexcept {
    const auto width = static_cast<std::uint64_t>(std::bit_width(section.chunk_size));
    const std::uint64_t bits =
        section.chunks * (codec.bits(section.kept) + std::uint64_t{2} * section.kept * width + 32);
    return static_cast<std::size_t>(bits / 8 + 128);
}

/// Writes and reads the sections of demo payloads of one layout. Holds the working memory of one thread, about 28 bytes
/// for each coefficient of the largest section, and allocates nothing later; copies share their tables.
class section_coder {
 public:
    /// The layout's codec must outlive it.
    explicit section_coder(const payload_layout& layout)
        : section_coder(layout.codec, std::make_shared<const detail::split_tables>(layout),
                        detail::support_needs(layout)) {}
    /// With working memory of its own.
    section_coder(const section_coder& other) : section_coder(other.codec_, other.tables_, other.needs_) {}
    section_coder& operator=(const section_coder&) = default;
    ~section_coder() = default;

    /// Room for sections of payloads that state `k`, and of those that state that of the layout.
    void reserve(const payload_layout& layout, std::uint32_t k) {
        const detail::support_needs needs(layout, k);
        encoder_.reserve(needs);
        decoder_.reserve(needs);
    }

    /// Appends one section: a byte of flags (1: counts follow), the counts when some chunk sends fewer than `kept`
    /// coefficients, the positions at the entropy of a uniform choice, all values. Each part starts at a byte. Throws
    /// value_error where a custom code writes another number of bits than its bits(). The section is one of
    /// payload_layout::section; the slice has at least its `kept` places a chunk.
    void encode(const payload_section& section, const section_slice& in, std::vector<std::byte>& out) {
        if (const std::size_t room = out.size() + room_of_section(section, *codec_); room > out.capacity())
            out.reserve(std::max(room, 2 * out.capacity()));
        const bool full =
            std::all_of(in.counts.begin(), in.counts.end(), [&](std::uint32_t count) { return count == section.kept; });
        std::uint64_t value_bits = full ? in.counts.size() * codec_->bits(section.kept) : 0;
        if (!full)
            for (const std::uint32_t count : in.counts) value_bits += codec_->bits(count);
        out.push_back(full ? std::byte{0} : std::byte{1});
        if (!full)
            append(out, 4 * in.counts.size(), [&](bit_writer& bits) {
                for (const std::uint32_t count : in.counts)
                    bits.put(count, static_cast<unsigned>(std::bit_width(section.kept)));
            });
        encoder_.encode(section, in, out);
        const std::size_t begin = out.size();
        append(out, (value_bits + 7) / 8, [&](bit_writer& bits) {
            for (std::size_t chunk = 0; chunk < in.counts.size(); ++chunk)
                codec_->encode(in.values.subspan(chunk * in.stride, in.counts[chunk]), bits);
        });
        if (out.size() != begin + (value_bits + 7) / 8)
            throw value_error("value codec '" + std::string(codec_->name()) +
                              "': wrote another number of bits than it announced");
    }

    /// Reads one section of foreign bytes into memory that the caller sized from its own layout. Total; accepts exactly
    /// what encode() writes. What it leaves in `out` when it refuses is unspecified.
    [[nodiscard]] std::optional<errc> decode(std::span<const std::byte> bytes, const payload_section& section,
                                             const section_slice& out) {
        if (bytes.empty()) return errc::truncated;
        if (std::to_integer<unsigned>(bytes[0]) > 1) return errc::malformed;
        const bool listed = bytes[0] == std::byte{1};
        bytes = bytes.subspan(1);
        if (const auto bad = decode_counts(section, listed, bytes, out.counts)) return bad;
        if (const auto bad = decoder_.decode(bytes, section, out.counts, out.positions)) return bad;
        spread(out, section.kept);
        bit_reader bits(bytes);
        for (std::size_t chunk = 0; chunk < out.counts.size(); ++chunk) {
            const auto values = out.values.subspan(chunk * out.stride, out.counts[chunk]);
            if (const auto bad = codec_->decode(bits, values)) return bad;
            if (const auto bad = detail::refuse_absurd(values)) return bad;
        }
        bits.align();
        if (bits.failed()) return errc::malformed;
        if (bits.position() != bytes.size()) return errc::trailing;
        return std::nullopt;
    }
    /// Working memory, without the tables that copies share.
    [[nodiscard]] std::size_t memory_bytes() const noexcept {
        return encoder_.memory_bytes() + decoder_.memory_bytes();
    }
    [[nodiscard]] std::size_t table_bytes() const noexcept { return sizeof *tables_ + tables_->memory_bytes(); }

 private:
    section_coder(const value_codec* codec, std::shared_ptr<const detail::split_tables> tables,
                  const detail::support_needs& needs)
        : codec_(codec),
          tables_(std::move(tables)),
          needs_(needs),
          encoder_(*tables_, needs),
          decoder_(*tables_, needs) {}

    /// Positions that begin at multiples of `apart` go to where those of the chunks belong.
    static void spread(const section_slice& out, std::size_t apart) noexcept {
        if (apart == out.stride) return;
        for (std::size_t chunk = out.counts.size(); chunk-- > 1;) {
            const auto from = out.positions.subspan(chunk * apart, out.counts[chunk]);
            const auto to = out.positions.subspan(chunk * out.stride, out.counts[chunk]);
            std::copy_backward(from.begin(), from.end(), to.end());
        }
    }

    template <class Write>
    static void append(std::vector<std::byte>& out, std::size_t most, const Write& write) {
        const std::size_t begin = out.size();
        out.resize(begin + most + 16);
        bit_writer bits(std::span<std::byte>(out).subspan(begin));
        write(bits);
        bits.flush();
        out.resize(begin + (bits.failed() ? 0 : bits.position()));
    }
    [[nodiscard]] std::optional<errc> decode_counts(const payload_section& section, bool listed,
                                                    std::span<const std::byte>& bytes,
                                                    std::span<std::uint32_t> counts) const noexcept {
        if (!listed) {
            std::fill(counts.begin(), counts.end(), section.kept);
            return std::nullopt;
        }
        if (codec_->sends_zero()) return errc::malformed;
        bit_reader bits(bytes);
        bool full = true;
        for (std::uint32_t& count : counts) {
            count = bits.get(static_cast<unsigned>(std::bit_width(section.kept)));
            if (count > section.kept) return errc::out_of_range;
            full = full && count == section.kept;
        }
        bits.align();
        if (bits.failed()) return errc::truncated;
        if (full) return errc::malformed;
        bytes = bytes.subspan(bits.position());
        return std::nullopt;
    }

    const value_codec* codec_;
    std::shared_ptr<const detail::split_tables> tables_;
    detail::support_needs needs_;
    detail::support_encoder encoder_;
    detail::support_decoder decoder_;
};

}  // namespace thinwire

#endif  // THINWIRE_CODEC_SECTION_CODER_HPP
