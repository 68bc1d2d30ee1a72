#ifndef THINWIRE_COMM_FRAME_HPP
#define THINWIRE_COMM_FRAME_HPP

#include <thinwire/comm/detail/crc32.hpp>
#include <thinwire/comm/detail/message_codec.hpp>
#include <thinwire/comm/message.hpp>
#include <thinwire/core/bytes.hpp>
#include <thinwire/core/result.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace thinwire {

/// A frame: body length (32 bits), type (8), check of these two (24: the high bits of their CRC-32), CRC-32 of the
/// body (32), body. All numbers little-endian. The check of the header keeps a damaged length from being waited for.
inline constexpr std::size_t frame_header_size = 12;

namespace detail::comm {

/// Type and check as they stand in a header.
[[nodiscard]] inline std::uint32_t typed_check(std::uint32_t length, std::uint32_t type) noexcept {
    std::array<std::byte, 8> header{};
    for (unsigned i = 0; i < 4; ++i) {
        header[i] = static_cast<std::byte>((length >> (8 * i)) & 0xffU);
        header[4 + i] = static_cast<std::byte>((type >> (8 * i)) & 0xffU);
    }
    return (type & 0xffU) | (crc32(0, header) & 0xffffff00U);
}

}  // namespace detail::comm

/// The frame that carries a message. The message must keep the limits that the receiver checks.
[[nodiscard]] inline std::vector<std::byte> encode_frame(const message& m) {
    std::vector<std::byte> room;
    room.reserve(128);  // most are shorter
    room.resize(frame_header_size);
    detail::comm::limited<detail::field_writer> out{detail::field_writer(std::move(room))};
    std::visit([&](const auto& body) { detail::comm::fields(out, body); }, m);
    const auto length = static_cast<std::uint32_t>(out.size() - frame_header_size);
    out.patch(0, length);
    out.patch(4, detail::comm::typed_check(length, static_cast<std::uint32_t>(m.index())));
    out.patch(8, detail::comm::crc32(0, out.bytes().subspan(frame_header_size)));
    return out.take();
}

/// Cuts a stream of foreign bytes into messages. Memory: never more than one frame of an allowed type, and no more
/// of it than has arrived. After a refusal the stream is dead: close it.
class frame_decoder {
 public:
    explicit frame_decoder(wire_limits limits) noexcept : limits_(limits) {}

    /// Which types may come from now on; none at first. Everything else is refused at its header.
    void allow(std::initializer_list<message_type> types) noexcept {
        allowed_ = 0;
        for (const message_type type : types) allowed_ |= 1U << static_cast<unsigned>(type);
    }

    /// Takes the next bytes of the stream.
    void feed(std::span<const std::byte> bytes) {
        if (at_ == buffer_.size()) {
            buffer_.clear();
            at_ = 0;
        }
        buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
    }

    /// The next whole message, nothing when more bytes are needed, or why the stream is refused.
    [[nodiscard]] result<std::optional<message>> next() {
        const std::span<const std::byte> rest = std::span(buffer_).subspan(at_);
        if (rest.size() < frame_header_size) return compact();
        byte_reader header(rest);
        const auto length = header.get<std::uint32_t>();
        const auto typed = header.get<std::uint32_t>();
        const auto crc = header.get<std::uint32_t>();
        const std::uint32_t type = typed & 0xffU;
        if (typed != detail::comm::typed_check(length, type))
            return failure{errc::bad_checksum, "frame: a header with a wrong checksum"};
        if (type >= message_types)
            return failure{errc::malformed, "frame: type " + std::to_string(type) + " is not known"};
        const auto what = static_cast<message_type>(type);
        const auto name = std::string(to_string(what));
        if ((allowed_ & (1U << type)) == 0) return failure{errc::malformed, "frame: no " + name + " expected here"};
        const std::size_t limit = detail::comm::max_body(what);
        if (length > limit)
            return failure{errc::too_large, "frame: " + name + " of " + std::to_string(length) + " bytes, at most " +
                                                std::to_string(limit) + " allowed"};
        if (rest.size() - frame_header_size < length) return compact();
        const auto body = rest.subspan(frame_header_size, length);
        if (detail::comm::crc32(0, body) != crc)
            return failure{errc::bad_checksum, "frame: " + name + " with a wrong checksum"};
        at_ += frame_header_size + length;
        result<message> decoded = detail::comm::decode_body(what, body, limits_);
        if (!decoded) return decoded.error();
        return std::optional<message>(std::move(*decoded));
    }

    /// Bytes held.
    [[nodiscard]] std::size_t buffered() const noexcept { return buffer_.size() - at_; }

 private:
    /// Frees what was read, so that a long stream does not grow the buffer.
    [[nodiscard]] std::optional<message> compact() {
        if (at_ > 0) buffer_.erase(buffer_.begin(), buffer_.begin() + static_cast<std::ptrdiff_t>(at_));
        at_ = 0;
        return std::nullopt;
    }

    wire_limits limits_;
    std::uint32_t allowed_ = 0;
    std::vector<std::byte> buffer_;
    std::size_t at_ = 0;
};

}  // namespace thinwire

#endif  // THINWIRE_COMM_FRAME_HPP
