#ifndef THINWIRE_CODEC_PAYLOAD_HPP
#define THINWIRE_CODEC_PAYLOAD_HPP

#include <thinwire/codec/checksum.hpp>
#include <thinwire/codec/payload_layout.hpp>
#include <thinwire/codec/sparse_content.hpp>
#include <thinwire/core/bytes.hpp>
#include <thinwire/core/digest.hpp>
#include <thinwire/core/result.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace thinwire {

/// What stands at the front of every payload.
struct payload_info {
    payload_kind kind = payload_kind::demo;
    value_code values = value_code::f32;
    digest run{};
    std::uint64_t round = 0;
    std::uint64_t peer = 0;
    std::uint64_t fingerprint = 0;  ///< of the layout
    std::uint32_t k = 0;
    std::uint32_t chunk = 0;
    float learning_rate = 0.0F;
    float weight_decay = 0.0F;
    digest replica{};  ///< of the sender's share of weights before it applies this round
    std::uint32_t sections = 0;
    std::uint64_t bytes = 0;  ///< of the whole payload
};

namespace detail {

inline constexpr std::uint32_t payload_magic = 0x4C505754;  // "TWPL"
inline constexpr std::uint16_t payload_version = 1;
inline constexpr std::size_t payload_header_bytes = 128;
inline constexpr std::size_t payload_checksum_bytes = 8;

/// Rates that survive every floating-point mode: 0, or normal numbers within 2^-100..2^20.
[[nodiscard]] constexpr bool sane_rate(float rate) noexcept {
    const auto bits = std::bit_cast<std::uint32_t>(rate);
    return bits == 0 || (bits >= (127U - 100U) << 23U && bits <= (127U + 20U) << 23U);
}

[[nodiscard]] inline digest get_digest(byte_reader& in) noexcept {
    digest d;
    const auto raw = in.get_bytes(d.bytes.size());
    for (std::size_t i = 0; i < raw.size(); ++i) d.bytes[i] = raw[i];
    return d;
}

[[nodiscard]] inline failure payload_failure(errc code, const std::string& what) {
    return {code, "payload: " + what + " (" + std::string(to_string(code)) + ")"};
}

}  // namespace detail

/// Writes the header and room for the section lengths; the caller then appends each section and ends it.
class payload_writer {
 public:
    /// Starts over in a buffer whose capacity is kept.
    payload_writer(const payload_info& info, std::size_t sections, std::vector<std::byte>&& reuse) {
        reuse.clear();
        byte_writer out(std::move(reuse));
        out.put(detail::payload_magic);
        out.put(detail::payload_version);
        out.put(static_cast<std::uint8_t>(info.kind));
        out.put(static_cast<std::uint8_t>(info.values));
        out.put(std::uint64_t{0});
        out.put(std::span<const std::byte>(info.run.bytes));
        out.put(info.round);
        out.put(info.peer);
        out.put(info.fingerprint);
        out.put(info.k);
        out.put(info.chunk);
        out.put(info.learning_rate);
        out.put(info.weight_decay);
        out.put(std::span<const std::byte>(info.replica.bytes));
        out.put(static_cast<std::uint32_t>(sections));
        out.put(std::uint32_t{0});
        for (std::size_t i = 0; i < sections; ++i) out.put(std::uint32_t{0});
        bytes_ = out.take();
        section_begin_ = bytes_.size();
    }

    /// Where the next section is appended.
    [[nodiscard]] std::vector<std::byte>& bytes() noexcept { return bytes_; }

    /// Ends a section: notes its length.
    void end_section() noexcept {
        patch(detail::payload_header_bytes + 4 * ended_++, 4, bytes_.size() - section_begin_);
        section_begin_ = bytes_.size();
    }

    /// Notes the total, appends the checksum and hands the payload over.
    [[nodiscard]] std::vector<std::byte> finish() {
        const std::size_t body = bytes_.size();
        bytes_.resize(body + detail::payload_checksum_bytes);
        patch(8, 8, bytes_.size());
        patch(body, 8, checksum64(std::span(bytes_).first(body)));
        return std::move(bytes_);
    }

 private:
    void patch(std::size_t at, std::size_t size, std::uint64_t value) noexcept {
        for (std::size_t i = 0; i < size; ++i) bytes_[at + i] = static_cast<std::byte>((value >> (8 * i)) & 0xffU);
    }

    std::vector<std::byte> bytes_;
    std::size_t section_begin_ = 0;
    std::size_t ended_ = 0;
};

/// Reads the front of foreign bytes and proves length, checksum and ranges; not the sections, for which a layout is
/// needed.
[[nodiscard]] inline result<payload_info> inspect_payload(std::span<const std::byte> bytes) {
    using detail::payload_failure;
    constexpr std::size_t frame = detail::payload_header_bytes + detail::payload_checksum_bytes;
    byte_reader in(bytes);
    if (in.get<std::uint32_t>() != detail::payload_magic)
        return payload_failure(bytes.size() < 4 ? errc::truncated : errc::bad_magic, "not a thinwire payload");
    if (const auto version = in.get<std::uint16_t>(); version != detail::payload_version)
        return payload_failure(in.failed() ? errc::truncated : errc::bad_version,
                               "format version " + std::to_string(version) + ", expected 1");
    payload_info info;
    const auto kind = in.get<std::uint8_t>();
    const auto values = in.get<std::uint8_t>();
    info.bytes = in.get<std::uint64_t>();
    if (bytes.size() < frame || bytes.size() < info.bytes)
        return payload_failure(errc::truncated, std::to_string(bytes.size()) + " bytes");
    if (bytes.size() > info.bytes)
        return payload_failure(errc::trailing, "bytes after the " + std::to_string(info.bytes) + " announced");
    byte_reader tail(bytes.last(detail::payload_checksum_bytes));
    if (tail.get<std::uint64_t>() != checksum64(bytes.first(bytes.size() - detail::payload_checksum_bytes)))
        return payload_failure(errc::bad_checksum, "checksum differs");
    info.run = detail::get_digest(in);
    info.round = in.get<std::uint64_t>();
    info.peer = in.get<std::uint64_t>();
    info.fingerprint = in.get<std::uint64_t>();
    info.k = in.get<std::uint32_t>();
    info.chunk = in.get<std::uint32_t>();
    info.learning_rate = in.get_f32();
    info.weight_decay = in.get_f32();
    info.replica = detail::get_digest(in);
    info.sections = in.get<std::uint32_t>();
    if (kind > 1 || values > 1 || in.get<std::uint32_t>() != 0) return payload_failure(errc::malformed, "header");
    info.kind = static_cast<payload_kind>(kind);
    info.values = static_cast<value_code>(values);
    if (!detail::sane_rate(info.learning_rate) || !detail::sane_rate(info.weight_decay) ||
        static_cast<double>(info.learning_rate) * static_cast<double>(info.weight_decay) > 1.0)
        return payload_failure(errc::out_of_range, "learning rate or weight decay");
    if (info.sections > (bytes.size() - frame) / 4) return payload_failure(errc::truncated, "section table");
    return info;
}

/// What a payload must be for a commit to accept it.
struct payload_expectation {
    digest run{};
    std::uint64_t round = 0;
    std::uint64_t peer = 0;
};

/// A payload whose header fits the layout, cut into its sections. Refers to the bytes it was made from.
class payload_view {
 public:
    /// Checks everything but the insides of the sections.
    [[nodiscard]] static result<payload_view> open(std::span<const std::byte> bytes, const payload_layout& layout,
                                                   const payload_expectation& expected) {
        using detail::payload_failure;
        const result<payload_info> info = inspect_payload(bytes);
        if (!info) return info.error();
        if (info->run != expected.run) return payload_failure(errc::mismatch, "of another run");
        if (info->round != expected.round)
            return payload_failure(errc::mismatch, "round " + std::to_string(info->round) + ", expected " +
                                                       std::to_string(expected.round));
        if (info->peer != expected.peer)
            return payload_failure(
                errc::mismatch, "peer " + std::to_string(info->peer) + ", expected " + std::to_string(expected.peer));
        if (info->kind != layout.kind || info->values != layout.values || info->k != layout.k ||
            info->chunk != layout.chunk || info->fingerprint != layout.fingerprint ||
            info->sections != layout.sections.size())
            return payload_failure(errc::mismatch, "of other tensors or options");
        payload_view view;
        view.info_ = *info;
        view.bytes_ = bytes;
        byte_reader table(bytes.subspan(detail::payload_header_bytes));
        std::uint64_t at = detail::payload_header_bytes + 4 * std::uint64_t{info->sections};
        const std::uint64_t end = bytes.size() - detail::payload_checksum_bytes;
        for (std::size_t i = 0; i < layout.sections.size(); ++i) {
            const auto length = table.get<std::uint32_t>();
            if (length > end - at) return payload_failure(errc::truncated, "section " + std::to_string(i));
            at += length;
        }
        if (at != end) return payload_failure(errc::trailing, "bytes after the last section");
        return view;
    }

    [[nodiscard]] const payload_info& info() const noexcept { return info_; }
    /// Adds up the lengths of those before it.
    [[nodiscard]] std::span<const std::byte> section(std::size_t i) const noexcept {
        byte_reader table(bytes_.subspan(detail::payload_header_bytes));
        std::uint64_t at = detail::payload_header_bytes + 4 * std::uint64_t{info_.sections};
        for (; i > 0; --i) at += table.get<std::uint32_t>();
        return bytes_.subspan(at, table.get<std::uint32_t>());
    }

 private:
    payload_view() = default;
    payload_info info_;
    std::span<const std::byte> bytes_;
};

/// Reads a whole demo payload. `content` is sized from the layout, never from the bytes.
[[nodiscard]] inline result<payload_info> decode_payload(std::span<const std::byte> bytes, const payload_layout& layout,
                                                         const payload_expectation& expected, sparse_content& content) {
    const result<payload_view> view = payload_view::open(bytes, layout, expected);
    if (!view) return view.error();
    if (layout.kind != payload_kind::demo) return detail::payload_failure(errc::mismatch, "not sparse");
    content.resize(layout);
    std::size_t coefficient = 0, chunk = 0;
    for (std::size_t i = 0; i < layout.sections.size(); ++i) {
        const payload_section& section = layout.sections[i];
        const std::size_t coefficients = section.coefficients();
        const section_slice out = {.positions = std::span(content.positions).subspan(coefficient, coefficients),
                                   .values = std::span(content.values).subspan(coefficient, coefficients),
                                   .counts = std::span(content.counts).subspan(chunk, section.chunks)};
        if (const auto bad = decode_section(view->section(i), section, layout.values, out))
            return detail::payload_failure(*bad, "section " + std::to_string(i));
        coefficient += coefficients;
        chunk += section.chunks;
    }
    return view->info();
}

/// Gradients beyond this magnitude are absurd: their squares, which AdamW keeps as float32, would be infinite.
inline constexpr std::uint32_t largest_gradient_bits = (127U + 60U) << 23U;  // 2^60

/// Proves that a dense payload holds a finite, sane number for every element.
[[nodiscard]] inline result<payload_view> open_dense_payload(std::span<const std::byte> bytes,
                                                             const payload_layout& layout,
                                                             const payload_expectation& expected) {
    result<payload_view> view = payload_view::open(bytes, layout, expected);
    if (!view) return view;
    if (layout.kind != payload_kind::dense) return detail::payload_failure(errc::mismatch, "not dense");
    for (std::size_t i = 0; i < layout.sections.size(); ++i) {
        const auto raw = view->section(i);
        const std::uint64_t elements = layout.sections[i].coefficients();
        if (raw.size() != 4 * elements)
            return detail::payload_failure(
                errc::malformed, "section " + std::to_string(i) + " has " + std::to_string(raw.size()) + " bytes");
        std::uint32_t largest = 0;
        byte_reader in(raw);
        for (std::uint64_t e = 0; e < elements; ++e) largest = std::max(largest, in.get<std::uint32_t>() & 0x7fffffffU);
        if (largest >= 0x7f800000U) return detail::payload_failure(errc::not_finite, "section " + std::to_string(i));
        if (largest > largest_gradient_bits)
            return detail::payload_failure(errc::out_of_range, "section " + std::to_string(i));
    }
    return view;
}

/// Proves that a replica with this layout will accept the payload. For a sequencer, which has no use for the content.
[[nodiscard]] inline result<ok> validate_payload(std::span<const std::byte> bytes, const payload_layout& layout,
                                                 const payload_expectation& expected) {
    if (layout.kind == payload_kind::dense) {
        const auto view = open_dense_payload(bytes, layout, expected);
        if (!view) return view.error();
        return ok{};
    }
    sparse_content content;
    const auto info = decode_payload(bytes, layout, expected, content);
    if (!info) return info.error();
    return ok{};
}

}  // namespace thinwire

#endif  // THINWIRE_CODEC_PAYLOAD_HPP
