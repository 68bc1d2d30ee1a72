#ifndef THINWIRE_CODEC_PAYLOAD_HPP
#define THINWIRE_CODEC_PAYLOAD_HPP

#include <thinwire/codec/checksum.hpp>
#include <thinwire/codec/payload_layout.hpp>
#include <thinwire/codec/section_coder.hpp>
#include <thinwire/codec/sparse_content.hpp>
#include <thinwire/core/aligned.hpp>
#include <thinwire/core/bytes.hpp>
#include <thinwire/core/digest.hpp>
#include <thinwire/core/result.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace thinwire {

/// Tokens that a payload may state; exact_mean.hpp needs a bound.
inline constexpr std::uint32_t most_tokens = 1U << 24U;

/// What stands at the front of every payload.
struct payload_info {
    payload_kind kind = payload_kind::demo;
    value_code values = value_code::f32;
    digest run{};
    std::uint64_t round = 0;
    std::uint64_t peer = 0;
    std::uint64_t fingerprint = 0;  ///< of the layout
    std::uint32_t k = 0;            ///< the most coefficients that a chunk sends; see payload_layout::section
    std::uint32_t chunk = 0;
    float learning_rate = 0.0F;
    float weight_decay = 0.0F;
    std::uint32_t tokens = 0;  ///< behind the gradients of this payload, at most most_tokens; 0: not stated
    digest replica{};          ///< of the sender's share of weights before it applies this round
    std::uint32_t sections = 0;
    std::uint64_t bytes = 0;  ///< of the whole payload
};

namespace detail {

inline constexpr std::uint32_t payload_magic = 0x4C505754;  // "TWPL"
inline constexpr std::uint16_t payload_version = 2;
inline constexpr std::size_t payload_header_bytes = 120;
inline constexpr std::size_t payload_checksum_bytes = 8;
inline constexpr std::size_t section_length_bytes = 4;

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

/// Bytes that a demo payload of this layout never exceeds.
[[nodiscard]] inline std::size_t room_of_payload(const payload_layout& layout) noexcept {
    std::size_t room = detail::payload_header_bytes + detail::payload_checksum_bytes;
    for (const payload_section& s : layout.sections)
        room += detail::section_length_bytes + room_of_section(s, *layout.codec);
    return room;
}

/// Writes a payload front to back: header, sections, checksum. What stands before unsent()'s end never changes, so that
/// it can be sent while later sections are still being encoded.
class payload_writer {
 public:
    /// Starts over in a buffer whose capacity is kept, and made `room` if it is less.
    payload_writer(const payload_info& info, std::size_t sections, std::vector<std::byte>&& reuse,
                   std::size_t room = 0) {
        reuse.clear();
        reuse.reserve(room);
        byte_writer out(std::move(reuse));
        out.put(detail::payload_magic);
        out.put(detail::payload_version);
        out.put(static_cast<std::uint8_t>(info.kind));
        out.put(static_cast<std::uint8_t>(info.values));
        out.put(std::span<const std::byte>(info.run.bytes));
        out.put(info.round);
        out.put(info.peer);
        out.put(info.fingerprint);
        out.put(info.k);
        out.put(info.chunk);
        out.put(info.learning_rate);
        out.put(info.weight_decay);
        out.put(info.tokens);
        out.put(std::span<const std::byte>(info.replica.bytes));
        out.put(static_cast<std::uint32_t>(sections));
        bytes_ = out.take();
        finished_ = bytes_.size();
    }

    /// Begins a section: the buffer at whose end it is written, until end_section().
    [[nodiscard]] std::vector<std::byte>& begin_section() {
        bytes_.resize(finished_ + detail::section_length_bytes);
        return bytes_;
    }
    /// Ends the section with the buffer of begin_section(), when that was moved away.
    void end_section(std::vector<std::byte>&& buffer) noexcept {
        bytes_ = std::move(buffer);
        end_section();
    }
    /// Ends the section that begin_section() began.
    void end_section() noexcept {
        patch(finished_, detail::section_length_bytes, bytes_.size() - finished_ - detail::section_length_bytes);
        finished_ = bytes_.size();
    }
    /// A section that was encoded elsewhere, for instance by another thread.
    void append_section(std::span<const std::byte> section) {
        std::vector<std::byte>& out = begin_section();
        out.insert(out.end(), section.begin(), section.end());
        end_section();
    }

    /// Notes the checksum: the payload ends.
    void finish() {
        bytes_.resize(finished_ + detail::payload_checksum_bytes);
        patch(finished_, 8, checksum64(std::span(bytes_).first(finished_)));
        finished_ = bytes_.size();
    }
    /// What was finished since the last call, in the order of the payload; valid until the next section.
    [[nodiscard]] std::span<const std::byte> unsent() noexcept {
        const auto range = std::span<const std::byte>(bytes_).subspan(sent_, finished_ - sent_);
        sent_ = finished_;
        return range;
    }
    /// Hands the finished payload over.
    [[nodiscard]] std::vector<std::byte> take() noexcept { return std::move(bytes_); }

 private:
    void patch(std::size_t at, std::size_t size, std::uint64_t value) noexcept {
        for (std::size_t i = 0; i < size; ++i) bytes_[at + i] = static_cast<std::byte>((value >> (8 * i)) & 0xffU);
    }

    std::vector<std::byte> bytes_;
    std::size_t finished_ = 0;
    std::size_t sent_ = 0;
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
        return payload_failure(
            in.failed() ? errc::truncated : errc::bad_version,
            "format version " + std::to_string(version) + ", expected " + std::to_string(detail::payload_version));
    payload_info info;
    const auto kind = in.get<std::uint8_t>();
    info.values = static_cast<value_code>(in.get<std::uint8_t>());
    info.run = detail::get_digest(in);
    info.round = in.get<std::uint64_t>();
    info.peer = in.get<std::uint64_t>();
    info.fingerprint = in.get<std::uint64_t>();
    info.k = in.get<std::uint32_t>();
    info.chunk = in.get<std::uint32_t>();
    info.learning_rate = in.get_f32();
    info.weight_decay = in.get_f32();
    info.tokens = in.get<std::uint32_t>();
    info.replica = detail::get_digest(in);
    info.sections = in.get<std::uint32_t>();
    if (bytes.size() < frame) return payload_failure(errc::truncated, std::to_string(bytes.size()) + " bytes");
    std::uint64_t end = detail::payload_header_bytes;
    for (std::uint32_t i = 0; i < info.sections; ++i) {
        byte_reader prefix(bytes.subspan(end));
        end += detail::section_length_bytes + std::uint64_t{prefix.get<std::uint32_t>()};
        if (prefix.failed() || end > bytes.size() - detail::payload_checksum_bytes)
            return payload_failure(errc::truncated,
                                   "section " + std::to_string(i) + " of " + std::to_string(info.sections));
    }
    info.bytes = end + detail::payload_checksum_bytes;
    if (bytes.size() > info.bytes)
        return payload_failure(errc::trailing, "bytes after the " + std::to_string(info.bytes) + " announced");
    byte_reader tail(bytes.subspan(end));
    if (tail.get<std::uint64_t>() != checksum64(bytes.first(end)))
        return payload_failure(errc::bad_checksum, "checksum differs");
    if (kind > 1) return payload_failure(errc::malformed, "kind " + std::to_string(kind));
    info.kind = static_cast<payload_kind>(kind);
    if (!detail::sane_rate(info.learning_rate) || !detail::sane_rate(info.weight_decay) ||
        static_cast<double>(info.learning_rate) * static_cast<double>(info.weight_decay) > 1.0)
        return payload_failure(errc::out_of_range, "learning rate or weight decay");
    if (info.tokens > most_tokens) return payload_failure(errc::out_of_range, std::to_string(info.tokens) + " tokens");
    return info;
}

/// The tokens that a payload states, of one that was checked before; 0 for bytes that are none.
[[nodiscard]] inline std::uint32_t stated_tokens(std::span<const std::byte> payload) noexcept {
    constexpr std::size_t before = 4 + 2 + 1 + 1 + 32 + 8 + 8 + 8 + 4 + 4 + 4 + 4;
    byte_reader in(payload);
    static_cast<void>(in.get_bytes(before));
    const auto tokens = in.get<std::uint32_t>();
    return in.failed() || tokens > most_tokens ? 0 : tokens;
}

/// What a payload must be for a commit to accept it.
struct payload_expectation {
    digest run{};
    std::uint64_t round = 0;
    std::uint64_t peer = 0;
};

/// A payload whose header fits the layout, cut into its sections. Refers to the bytes it was opened with. One that is
/// opened again allocates only for more sections than before.
class payload_view {
 public:
    /// Checks everything but the insides of the sections. One that is refused is not to be read.
    [[nodiscard]] result<ok> open(std::span<const std::byte> bytes, const payload_layout& layout,
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
        const bool fewer = layout.kind == payload_kind::demo && info->k >= 1 && info->k <= layout.k;
        if (info->kind != layout.kind || info->values != layout.values() || (info->k != layout.k && !fewer) ||
            info->chunk != layout.chunk || info->fingerprint != layout.fingerprint ||
            info->sections != layout.sections.size())
            return payload_failure(errc::mismatch, "of other tensors or options");
        info_ = *info;
        sections_.clear();
        byte_reader in(bytes.subspan(detail::payload_header_bytes));
        for (std::uint32_t i = 0; i < info->sections; ++i) sections_.push_back(in.get_bytes(in.get<std::uint32_t>()));
        return ok{};
    }

    [[nodiscard]] const payload_info& info() const noexcept { return info_; }
    /// Precondition: opened, i < layout.sections.size().
    [[nodiscard]] std::span<const std::byte> section(std::size_t i) const noexcept { return sections_[i]; }
    /// Memory for so many sections.
    void reserve(std::size_t sections) { sections_.reserve(sections); }
    [[nodiscard]] std::size_t memory_bytes() const noexcept { return bytes_held(sections_); }

 private:
    payload_info info_;
    std::vector<std::span<const std::byte>> sections_;
};

/// Gradients beyond this magnitude are absurd: their squares, which AdamW keeps as float32, would be infinite.
inline constexpr std::uint32_t largest_gradient_bits = (127U + 60U) << 23U;  // 2^60

/// Opens a dense payload and proves that it holds a finite, sane number for every element.
[[nodiscard]] inline result<ok> open_dense_payload(std::span<const std::byte> bytes, const payload_layout& layout,
                                                   const payload_expectation& expected, payload_view& view) {
    if (auto opened = view.open(bytes, layout, expected); !opened) return opened;
    if (layout.kind != payload_kind::dense) return detail::payload_failure(errc::mismatch, "not dense");
    for (std::size_t i = 0; i < layout.sections.size(); ++i) {
        const auto raw = view.section(i);
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
    return ok{};
}

/// Reads and checks payloads of one layout, whose codec must outlive it. Holds the working memory of one thread, sized
/// from the layout and never from the bytes: after the first payload, accepting one allocates nothing.
class payload_decoder {
 public:
    explicit payload_decoder(const payload_layout& layout) : layout_(layout), coder_(layout_) {
        view_.reserve(layout.sections.size());
    }
    payload_decoder(const payload_decoder& other) : payload_decoder(other.layout_, other.coder_) {}
    payload_decoder& operator=(const payload_decoder&) = default;
    payload_decoder(payload_decoder&&) = default;
    payload_decoder& operator=(payload_decoder&&) = default;
    ~payload_decoder() = default;

    /// Memory for payloads that state `k`, at most that of the layout: then the first one allocates nothing either.
    void reserve(std::uint32_t k) { coder_.reserve(layout_, k); }
    /// Reads a whole demo payload. What it leaves in `content` when it refuses is unspecified.
    [[nodiscard]] result<payload_info> decode(std::span<const std::byte> bytes, const payload_expectation& expected,
                                              sparse_content& content) {
        if (auto opened = view_.open(bytes, layout_, expected); !opened) return opened.error();
        if (layout_.kind != payload_kind::demo) return detail::payload_failure(errc::mismatch, "not sparse");
        content.resize(layout_);
        std::size_t coefficient = 0, chunk = 0;
        for (std::size_t i = 0; i < layout_.sections.size(); ++i) {
            const payload_section& section = layout_.sections[i];
            const section_slice found = content.slice(section, coefficient, chunk);
            if (const auto bad = coder_.decode(view_.section(i), layout_.section(i, view_.info().k), found))
                return detail::payload_failure(*bad, "section " + std::to_string(i));
            coefficient += section.coefficients();
            chunk += section.chunks;
        }
        return view_.info();
    }
    /// Proves that a replica with this layout will accept the payload. For a sequencer, which has no use for the
    /// content.
    [[nodiscard]] result<ok> validate(std::span<const std::byte> bytes, const payload_expectation& expected) {
        if (layout_.kind == payload_kind::dense) return open_dense_payload(bytes, layout_, expected, view_);
        const auto info = decode(bytes, expected, content_);
        if (!info) return info.error();
        return ok{};
    }
    [[nodiscard]] const payload_layout& layout() const noexcept { return layout_; }
    [[nodiscard]] std::size_t memory_bytes() const noexcept {
        return bytes_held(layout_.sections) + coder_.memory_bytes() + view_.memory_bytes() + content_.memory_bytes();
    }
    /// Of the tables that copies share.
    [[nodiscard]] std::size_t table_bytes() const noexcept { return coder_.table_bytes(); }

 private:
    payload_decoder(const payload_layout& layout, const section_coder& coder) : layout_(layout), coder_(coder) {
        view_.reserve(layout.sections.size());
    }

    payload_layout layout_;
    section_coder coder_;
    payload_view view_;
    sparse_content content_;  ///< of validate()
};

/// What a sequencer asks before a payload may be committed, as node_options::validate wants it:
/// payload_decoder::validate() for the run, and the round and peer that it came for. Not for two threads at once.
[[nodiscard]] inline auto payload_validator(const payload_layout& layout, const digest& run) {
    return [decoder = payload_decoder(layout), run](std::uint64_t round, std::uint64_t peer,
                                                    std::span<const std::byte> payload) mutable {
        return decoder.validate(payload, {.run = run, .round = round, .peer = peer});
    };
}

}  // namespace thinwire

#endif  // THINWIRE_CODEC_PAYLOAD_HPP
