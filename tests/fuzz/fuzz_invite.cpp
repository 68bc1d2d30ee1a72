// What a person or a stranger may hand over before a peer is let in: the line of an invite, the two messages of
// enrolment, and the list of keys. The first byte chooses; an invite's check is put right so that what lies behind it
// is reached.
#include <thinwire/runtime/access.hpp>
#include <thinwire/runtime/invite.hpp>

#include "enrol_message.hpp"
#include "fuzz.hpp"

#include <string>

namespace {

using namespace thinwire;
using namespace thinwire::runtime;

void read_line(std::string_view text) {
    if (const auto line = parse_invite(text)) fuzz::require(to_string(*line) == text, "only what is written is read");
}

void read_sealed(std::span<const std::byte> body) {
    std::vector<std::byte> bytes(body.begin(), body.end());
    const digest check = digest_of(body);
    bytes.insert(bytes.end(), check.bytes.begin(), check.bytes.begin() + 4);
    read_line(std::string(invite::prefix) + detail::to_base64(bytes));
}

void read_list(std::string_view text) {
    const auto rules = parse_access(text);
    if (!rules) return;
    fuzz::require(rules->keys.size() <= access_rules::max_keys && rules->invites.size() <= access_rules::max_invites,
                  "bounded");
    const auto again = parse_access(to_text(*rules));
    fuzz::require(again && *again == *rules, "a list survives being written");
}

void read_messages(std::span<const std::byte> bytes) {
    const auto same = [&](const std::vector<std::byte>& written) {
        return written.size() == bytes.size() && std::equal(written.begin(), written.end(), bytes.begin());
    };
    if (const auto request = decode_enrol_request(bytes))
        fuzz::require(same(encode(*request)), "only what is written is read");
    if (const auto reply = decode_enrol_reply(bytes))
        fuzz::require(same(encode(*reply)), "only what is written is read");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const auto bytes = std::as_bytes(std::span(data, size)).subspan(1);
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    switch (data[0] % 4) {
        case 0: read_line(text); break;
        case 1: read_sealed(bytes); break;
        case 2: read_list(text); break;
        default: read_messages(bytes);
    }
    return 0;
}
