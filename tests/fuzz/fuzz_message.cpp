// What another peer may send: bytes of a connection, and the body of one message, of the type that the first byte
// chooses, whose frame's checksums are put right so that what lies behind them is reached.
#include <thinwire/comm/frame.hpp>

#include "fuzz.hpp"

namespace {

using namespace thinwire;

bool accepts(std::span<const std::byte> frame) {
    frame_decoder decoder({.max_payload = 1U << 16U, .max_commit = 1U << 18U});
    decoder.allow({message_type::hello, message_type::welcome, message_type::refuse, message_type::reject,
                   message_type::fetch, message_type::piece, message_type::ping, message_type::goodbye,
                   message_type::offer, message_type::record, message_type::status, message_type::pull,
                   message_type::campaign, message_type::vote, message_type::request});
    decoder.feed(frame.first(frame.size() / 2));
    if (!decoder.next()) return false;
    decoder.feed(frame.subspan(frame.size() / 2));
    const auto found = decoder.next();
    if (!found || !*found) return false;
    static bool again = false;
    if (again) return true;
    again = true;
    fuzz::require(accepts(encode_frame(**found)), "what is read can be written and read");
    again = false;
    return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto given = std::as_bytes(std::span(data, size));
    static_cast<void>(accepts(given));
    if (size == 0) return 0;
    const auto body = given.subspan(1);
    byte_writer frame;
    const auto length = static_cast<std::uint32_t>(body.size());
    frame.put(length);
    frame.put(detail::comm::typed_check(length, data[0] % static_cast<std::uint32_t>(message_types)));
    frame.put(detail::comm::crc32(0, body));
    frame.put(body);
    static_cast<void>(accepts(frame.bytes()));
    return 0;
}
