#ifndef THINWIRE_COMM_DETAIL_MESSAGE_CODEC_HPP
#define THINWIRE_COMM_DETAIL_MESSAGE_CODEC_HPP

#include <thinwire/comm/message.hpp>
#include <thinwire/core/detail/fields.hpp>
#include <thinwire/core/result.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <variant>

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

/// A field_writer or field_reader, with the limits that this side keeps to.
template <class Archive>
struct limited : Archive {
    wire_limits limits{};
};

/// Text for people, cut where it is longer.
[[nodiscard]] inline auto text(auto& value) {
    return bounded{value, wire_limits::max_text, true};
}

// The fields of each message, in the order of its bytes. `a`: a limited field_writer or field_reader.

void fields(auto& a, is_a<hello_message> auto& m) {
    std::uint32_t magic = hello_magic;
    a(magic, m.protocol, bounded{m.library, wire_limits::max_name});
    a.require(magic == hello_magic, "no introduction");
    a(m.run, m.peer, m.session, bounded{m.name, wire_limits::max_name}, m.next_round, m.wants_snapshot, m.incarnation);
    a(bounded{m.address, wire_limits::max_address}, bounded{m.key, wire_limits::max_key}, m.log_begin, m.last, m.votes);
    a(m.contributes, bounded{m.about, wire_limits::max_about});
}
void fields(auto& a, is_a<welcome_message> auto& m) {
    a(m.run, m.term, m.sequencer, bounded{m.name, wire_limits::max_name});
    a(bounded{m.manifest, wire_limits::max_manifest}, m.round);
    a(m.has_snapshot, m.snapshot_round, m.snapshot_size, m.snapshot_digest);
    fields(a, m.self);
    a(bounded{m.state, wire_limits::max_control}, bounded{m.state_at, wire_limits::max_control});
}
void fields(auto& a, is_a<refuse_message> auto& m) {
    a(m.code, text(m.text));
    a.require(m.code >= refusal{1} && m.code <= refusal::removed, "a code that is not known");
}
void fields(auto& a, is_a<reject_message> auto& m) {
    a(m.round, text(m.text));
}
void fields(auto& a, is_a<fetch_message> auto& m) {
    a(m.content, m.offset, m.count, m.round);
    a.require(m.count > 0 && m.count <= wire_limits::max_piece, "a count outside 1..262144");
}
void fields(auto& a, is_a<piece_message> auto& m) {
    a(m.content, m.offset, bounded{m.bytes, wire_limits::max_piece});
}
void fields(auto&, is_a<ping_message> auto&) {}
void fields(auto& a, is_a<goodbye_message> auto& m) {
    a(m.stop_run, text(m.text));
}
void fields(auto& a, is_a<offer_message> auto& m) {
    a(m.round, m.author, m.session, m.content, m.size, m.relay, m.signature, bounded{m.bytes, wire_limits::max_piece});
    a.require(m.size > 0 && m.size <= a.limits.max_payload, "a size outside the limit");
    a.require(!m.bytes || m.bytes->size() <= m.size, "more bytes than the payload has");
}
void fields(auto& a, is_a<commit_record> auto& r) {
    a(r.term, r.round, bounded{r.control, wire_limits::max_control});
    std::size_t total = 0;
    a.each(r.contributions, wire_limits::max_contributors, "more than 1024 contributions", [&](auto& c) {
        bool there = c.payload != nullptr;
        a(c.peer, c.payload_digest, c.size);
        total += c.size;
        a.require(c.size > 0 && c.size <= a.limits.max_payload && total <= a.limits.max_commit,
                  "a size above its limit");
        a(there);
        if (there) a.raw(c.payload, c.size);
    });
    const auto disorder =
        std::ranges::adjacent_find(r.contributions, std::ranges::greater_equal{}, &committed_payload::peer);
    a.require(disorder == r.contributions.end(), "peers that are not in ascending order");
}
template <class Archive>
void fields(Archive& a, is_a<record_message> auto& m) {
    a(m.term, m.pulled);
    if constexpr (Archive::reading) {
        auto record = std::make_shared<commit_record>();
        fields(a, *record);
        if (record->control->empty()) record->control = nullptr;
        m.record = std::move(record);
    } else {
        fields(a, *m.record);
    }
}
void fields(auto& a, is_a<status_message> auto& m) {
    a(m.term, m.sequencer, m.final, m.accepted, m.taken, m.active, bounded{m.address, wire_limits::max_address, true});
    a.require(m.taken <= m.final, "more taken than final");
    a.require(m.accepted <= m.term, "a record of a later term");
}
void fields(auto& a, is_a<pull_message> auto& m) {
    a(m.round);
}
void fields(auto& a, is_a<campaign_message> auto& m) {
    a(m.term, m.last_term, m.next_round, m.trial);
}
void fields(auto& a, is_a<vote_message> auto& m) {
    a(m.term, m.granted, m.trial);
}
void fields(auto& a, is_a<request_message> auto& m) {
    using kind = control_change::kind;
    a(m.change.what, m.change.peer, text(m.change.key), text(m.change.value));
    a.require(m.change.what >= kind{1} && m.change.what <= control_change::last_kind, "a change not known");
}

/// An empty message of a type.
template <std::size_t Type = 0>
[[nodiscard]] message blank_message(message_type type) {
    if constexpr (Type + 1 < message_types) {
        if (type != static_cast<message_type>(Type)) return blank_message<Type + 1>(type);
    }
    return message(std::in_place_index<Type>);
}

/// The message in a body whose length is within max_body and whose checksum was right. Total.
[[nodiscard]] inline result<message> decode_body(message_type type, std::span<const std::byte> body,
                                                 const wire_limits& limits) {
    if (type == message_type::hello) {  // of another protocol version no more can be read than that it is one
        hello_message m;
        std::uint32_t magic = 0;
        field_reader front(body);
        front(magic, m.protocol, bounded{m.library, wire_limits::max_name});
        if (magic != hello_magic) return failure{errc::bad_magic, "message hello: not a thinwire peer"};
        if (!front.failed() && m.protocol != protocol_version) return message(std::move(m));
    }
    limited<field_reader> in{field_reader(body), limits};
    message out = blank_message(type);
    std::visit([&](auto& m) { fields(in, m); }, out);
    if (!in.whole()) return in.refusal("message " + std::string(to_string(type)));
    return out;
}

}  // namespace thinwire::detail::comm

#endif  // THINWIRE_COMM_DETAIL_MESSAGE_CODEC_HPP
