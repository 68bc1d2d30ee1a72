#ifndef THINWIRE_COMM_DETAIL_MESSAGE_CODEC_HPP
#define THINWIRE_COMM_DETAIL_MESSAGE_CODEC_HPP

#include <thinwire/comm/message.hpp>
#include <thinwire/core/bytes.hpp>
#include <thinwire/core/digest.hpp>
#include <thinwire/core/result.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace thinwire::detail::comm {

inline constexpr std::uint32_t hello_magic = 0x52495754;  // "TWIR"

/// The largest body of a type.
[[nodiscard]] constexpr std::size_t max_body(message_type type) noexcept {
    constexpr std::size_t entry = 8 + 32 + 4 + 1;
    switch (type) {
        case message_type::hello: return wire_limits::max_hello;
        case message_type::welcome:
            return wire_limits::max_manifest + wire_limits::max_hello + 2 * wire_limits::max_control + 256;
        case message_type::refuse: return wire_limits::max_text + 8;
        case message_type::reject: return wire_limits::max_text + 16;
        case message_type::fetch: return 52;
        case message_type::piece: return wire_limits::max_piece + 44;
        case message_type::ping: return 0;
        case message_type::goodbye: return wire_limits::max_text + 8;
        case message_type::offer: return wire_limits::max_piece + 129;
        case message_type::record:
            return wire_limits::max_piece + wire_limits::max_contributors * entry + wire_limits::max_control + 33;
        case message_type::status: return 41 + 4 + wire_limits::max_address;
        case message_type::pull: return 8;
        case message_type::campaign: return 25;
        case message_type::vote: return 10;
        case message_type::request: return 9 + 2 * (4 + wire_limits::max_text);
    }
    return 0;
}

inline void put_digest(byte_writer& out, const digest& d) {
    out.put(std::span<const std::byte>(d.bytes));
}
inline void put_bytes(byte_writer& out, const shared_bytes& bytes) {
    out.put(static_cast<std::uint32_t>(bytes ? bytes->size() : 0));
    if (bytes) out.put(std::span<const std::byte>(*bytes));
}
inline void put_flag(byte_writer& out, bool flag) {
    out.put(static_cast<std::uint8_t>(flag ? 1 : 0));
}
inline void put_text(byte_writer& out, const std::string& text) {
    out.put(std::string_view(text).substr(0, wire_limits::max_text));
}

inline void encode_body(byte_writer& out, const hello_message& m) {
    out.put(hello_magic);
    out.put(m.protocol);
    out.put(std::string_view(m.library));
    put_digest(out, m.run);
    out.put(m.peer);
    out.put(m.session);
    out.put(std::string_view(m.name));
    out.put(m.next_round);
    put_flag(out, m.wants_snapshot);
    out.put(m.incarnation);
    out.put(std::string_view(m.address));
    out.put(std::string_view(m.key));
    out.put(m.log_begin);
    put_digest(out, m.last);
    put_flag(out, m.votes);
    put_flag(out, m.contributes);
    out.put(std::string_view(m.about));
}
inline void encode_body(byte_writer& out, const welcome_message& m) {
    put_digest(out, m.run);
    out.put(m.term);
    out.put(m.sequencer);
    out.put(std::string_view(m.name));
    out.put(std::string_view(m.manifest));
    out.put(m.round);
    put_flag(out, m.has_snapshot);
    out.put(m.snapshot_round);
    out.put(m.snapshot_size);
    put_digest(out, m.snapshot_digest);
    encode_body(out, m.self);
    put_bytes(out, m.state);
    put_bytes(out, m.state_at);
}
inline void encode_body(byte_writer& out, const refuse_message& m) {
    out.put(static_cast<std::uint8_t>(m.code));
    put_text(out, m.text);
}
inline void encode_body(byte_writer& out, const reject_message& m) {
    out.put(m.round);
    put_text(out, m.text);
}
inline void encode_body(byte_writer& out, const fetch_message& m) {
    put_digest(out, m.content);
    out.put(m.offset);
    out.put(m.count);
    out.put(m.round);
}
inline void encode_body(byte_writer& out, const piece_message& m) {
    put_digest(out, m.content);
    out.put(m.offset);
    put_bytes(out, m.bytes);
}
inline void encode_body(byte_writer&, const ping_message&) {}
inline void encode_body(byte_writer& out, const goodbye_message& m) {
    put_flag(out, m.stop_run);
    put_text(out, m.text);
}
inline void encode_body(byte_writer& out, const offer_message& m) {
    out.put(m.round);
    out.put(m.author);
    out.put(m.session);
    put_digest(out, m.content);
    out.put(m.size);
    put_flag(out, m.relay);
    out.put(std::span<const std::byte>(m.signature));
    put_bytes(out, m.bytes);
}
inline void encode_body(byte_writer& out, const record_message& m) {
    out.put(m.term);
    put_flag(out, m.pulled);
    out.put(m.record->term);
    out.put(m.record->round);
    put_bytes(out, m.record->control);
    out.put(static_cast<std::uint32_t>(m.record->contributions.size()));
    for (const committed_payload& c : m.record->contributions) {
        out.put(c.peer);
        put_digest(out, c.payload_digest);
        out.put(c.size);
        put_flag(out, c.payload != nullptr);
        if (c.payload) out.put(std::span<const std::byte>(*c.payload));
    }
}
inline void encode_body(byte_writer& out, const status_message& m) {
    out.put(m.term);
    out.put(m.sequencer);
    out.put(m.final);
    out.put(m.accepted);
    out.put(m.taken);
    put_flag(out, m.active);
    out.put(std::string_view(m.address).substr(0, wire_limits::max_address));
}
inline void encode_body(byte_writer& out, const pull_message& m) {
    out.put(m.round);
}
inline void encode_body(byte_writer& out, const campaign_message& m) {
    out.put(m.term);
    out.put(m.last_term);
    out.put(m.next_round);
    put_flag(out, m.trial);
}
inline void encode_body(byte_writer& out, const vote_message& m) {
    out.put(m.term);
    put_flag(out, m.granted);
    put_flag(out, m.trial);
}
inline void encode_body(byte_writer& out, const request_message& m) {
    out.put(static_cast<std::uint8_t>(m.change.what));
    out.put(m.change.peer);
    put_text(out, m.change.key);
    put_text(out, m.change.value);
}

/// A reader that also remembers a value outside its range.
class body_reader : public byte_reader {
 public:
    using byte_reader::byte_reader;

    [[nodiscard]] digest get_digest() noexcept {
        digest d;
        const auto raw = get_bytes(d.bytes.size());
        for (std::size_t i = 0; i < raw.size(); ++i) d.bytes[i] = raw[i];
        return d;
    }
    [[nodiscard]] bool get_flag() noexcept {
        const auto value = get<std::uint8_t>();
        if (value > 1) refuse("a flag that is neither 0 nor 1");
        return value == 1;
    }
    [[nodiscard]] shared_bytes get_shared(std::size_t limit) {
        const auto length = get<std::uint32_t>();
        if (length > limit) refuse("a length above its limit");
        const auto raw = why_ == nullptr ? get_bytes(length) : std::span<const std::byte>{};
        return share({raw.begin(), raw.end()});
    }
    void refuse(const char* why) noexcept { why_ = why_ == nullptr ? why : why_; }
    [[nodiscard]] bool refused() const noexcept { return failed() || why_ != nullptr; }

    /// Everything read, in range, and nothing left over: otherwise the reason.
    [[nodiscard]] result<ok> finish(message_type type) const {
        const std::string prefix = "message " + std::string(to_string(type)) + ": ";
        if (failed()) return failure{errc::truncated, prefix + "ends before what it announces"};
        if (why_ != nullptr) return failure{errc::out_of_range, prefix + why_};
        if (remaining() != 0) return failure{errc::trailing, prefix + "bytes follow its end"};
        return ok{};
    }

 private:
    const char* why_ = nullptr;
};

/// What follows a hello's version.
inline void read_identity(body_reader& in, hello_message& m) {
    m.run = in.get_digest();
    m.peer = in.get<peer_id>();
    m.session = in.get<std::uint64_t>();
    m.name = in.get_string(wire_limits::max_name);
    m.next_round = in.get<std::uint64_t>();
    m.wants_snapshot = in.get_flag();
    m.incarnation = in.get<std::uint64_t>();
    m.address = in.get_string(wire_limits::max_address);
    m.key = in.get_string(wire_limits::max_key);
    m.log_begin = in.get<std::uint64_t>();
    m.last = in.get_digest();
    m.votes = in.get_flag();
    m.contributes = in.get_flag();
    m.about = in.get_string(wire_limits::max_about);
}

inline result<message> decode_hello(body_reader& in) {
    hello_message m;
    if (in.get<std::uint32_t>() != hello_magic) return failure{errc::bad_magic, "message hello: not a thinwire peer"};
    m.protocol = in.get<std::uint16_t>();
    m.library = in.get_string(wire_limits::max_name);
    if (!in.failed() && m.protocol != protocol_version) return message(std::move(m));
    read_identity(in, m);
    if (const auto end = in.finish(message_type::hello); !end) return end.error();
    return message(std::move(m));
}

inline welcome_message decode_welcome(body_reader& in) {
    welcome_message m;
    m.run = in.get_digest();
    m.term = in.get<std::uint64_t>();
    m.sequencer = in.get<peer_id>();
    m.name = in.get_string(wire_limits::max_name);
    m.manifest = in.get_string(wire_limits::max_manifest);
    m.round = in.get<std::uint64_t>();
    m.has_snapshot = in.get_flag();
    m.snapshot_round = in.get<std::uint64_t>();
    m.snapshot_size = in.get<std::uint64_t>();
    m.snapshot_digest = in.get_digest();
    if (in.get<std::uint32_t>() != hello_magic) in.refuse("no introduction");
    m.self.protocol = in.get<std::uint16_t>();
    m.self.library = in.get_string(wire_limits::max_name);
    read_identity(in, m.self);
    m.state = in.get_shared(wire_limits::max_control);
    m.state_at = in.get_shared(wire_limits::max_control);
    return m;
}

inline offer_message decode_offer(body_reader& in, const wire_limits& limits) {
    offer_message m;
    m.round = in.get<std::uint64_t>();
    m.author = in.get<peer_id>();
    m.session = in.get<std::uint64_t>();
    m.content = in.get_digest();
    m.size = in.get<std::uint32_t>();
    m.relay = in.get_flag();
    const auto raw = in.get_bytes(m.signature.size());
    std::copy(raw.begin(), raw.end(), m.signature.begin());
    m.bytes = in.get_shared(wire_limits::max_piece);
    if (m.size == 0 || m.size > limits.max_payload) in.refuse("a size outside the limit");
    if (m.bytes->size() > m.size) in.refuse("more bytes than the payload has");
    return m;
}

inline record_message decode_record(body_reader& in, const wire_limits& limits) {
    record_message m;
    auto record = std::make_shared<commit_record>();
    m.term = in.get<std::uint64_t>();
    m.pulled = in.get_flag();
    record->term = in.get<std::uint64_t>();
    record->round = in.get<std::uint64_t>();
    record->control = in.get_shared(wire_limits::max_control);
    if (record->control->empty()) record->control = nullptr;
    const auto count = in.get<std::uint32_t>();
    if (count > wire_limits::max_contributors) in.refuse("more than 1024 contributions");
    std::size_t total = 0;
    for (std::uint32_t i = 0; i < count && !in.refused(); ++i) {
        committed_payload c;
        c.peer = in.get<peer_id>();
        c.payload_digest = in.get_digest();
        c.size = in.get<std::uint32_t>();
        total += c.size;
        if (c.size == 0 || c.size > limits.max_payload || total > limits.max_commit)
            in.refuse("a size above its limit");
        if (i > 0 && record->contributions.back().peer >= c.peer) in.refuse("peers that are not in ascending order");
        if (in.get_flag() && !in.refused()) {
            const auto raw = in.get_bytes(c.size);
            c.payload = share({raw.begin(), raw.end()});
        }
        record->contributions.push_back(std::move(c));
    }
    m.record = std::move(record);
    return m;
}

inline status_message decode_status(body_reader& in) {
    status_message m;
    m.term = in.get<std::uint64_t>();
    m.sequencer = in.get<peer_id>();
    m.final = in.get<std::uint64_t>();
    m.accepted = in.get<std::uint64_t>();
    m.taken = in.get<std::uint64_t>();
    m.active = in.get_flag();
    m.address = in.get_string(wire_limits::max_address);
    if (m.taken > m.final) in.refuse("more taken than final");
    if (m.accepted > m.term) in.refuse("a record of a later term");
    return m;
}

inline request_message decode_request(body_reader& in) {
    request_message m;
    const auto what = in.get<std::uint8_t>();
    if (what < 1 || what > static_cast<std::uint8_t>(control_change::last_kind)) in.refuse("a change not known");
    m.change.what = static_cast<control_change::kind>(what);
    m.change.peer = in.get<peer_id>();
    m.change.key = in.get_string(wire_limits::max_text);
    m.change.value = in.get_string(wire_limits::max_text);
    return m;
}

/// The message in a body whose length is within max_body and whose checksum was right. Total.
[[nodiscard]] inline result<message> decode_body(message_type type, std::span<const std::byte> body,
                                                 const wire_limits& limits) {
    body_reader in(body);
    message out;
    switch (type) {
        case message_type::hello: return decode_hello(in);
        case message_type::welcome: out = decode_welcome(in); break;
        case message_type::refuse: {
            const auto code = in.get<std::uint8_t>();
            if (code < 1 || code > static_cast<std::uint8_t>(refusal::removed)) in.refuse("a code that is not known");
            out = refuse_message{static_cast<refusal>(code), in.get_string(wire_limits::max_text)};
            break;
        }
        case message_type::reject: {
            const auto round = in.get<std::uint64_t>();
            out = reject_message{round, in.get_string(wire_limits::max_text)};
            break;
        }
        case message_type::fetch: {
            fetch_message m;
            m.content = in.get_digest();
            m.offset = in.get<std::uint64_t>();
            m.count = in.get<std::uint32_t>();
            m.round = in.get<std::uint64_t>();
            if (m.count == 0 || m.count > wire_limits::max_piece) in.refuse("a count outside 1..262144");
            out = m;
            break;
        }
        case message_type::piece: {
            piece_message m;
            m.content = in.get_digest();
            m.offset = in.get<std::uint64_t>();
            m.bytes = in.get_shared(wire_limits::max_piece);
            out = std::move(m);
            break;
        }
        case message_type::ping: out = ping_message{}; break;
        case message_type::goodbye: {
            const bool stop = in.get_flag();
            out = goodbye_message{stop, in.get_string(wire_limits::max_text)};
            break;
        }
        case message_type::offer: out = decode_offer(in, limits); break;
        case message_type::record: out = decode_record(in, limits); break;
        case message_type::status: out = decode_status(in); break;
        case message_type::pull: out = pull_message{in.get<std::uint64_t>()}; break;
        case message_type::campaign: {
            campaign_message m;
            m.term = in.get<std::uint64_t>();
            m.last_term = in.get<std::uint64_t>();
            m.next_round = in.get<std::uint64_t>();
            m.trial = in.get_flag();
            out = m;
            break;
        }
        case message_type::vote: {
            vote_message m;
            m.term = in.get<std::uint64_t>();
            m.granted = in.get_flag();
            m.trial = in.get_flag();
            out = m;
            break;
        }
        case message_type::request: out = decode_request(in); break;
    }
    if (const auto end = in.finish(type); !end) return end.error();
    return out;
}

}  // namespace thinwire::detail::comm

#endif  // THINWIRE_COMM_DETAIL_MESSAGE_CODEC_HPP
