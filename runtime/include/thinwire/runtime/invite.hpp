#ifndef THINWIRE_RUNTIME_INVITE_HPP
#define THINWIRE_RUNTIME_INVITE_HPP

#include <thinwire/core/detail/fields.hpp>
#include <thinwire/core/digest.hpp>
#include <thinwire/core/result.hpp>
#include <thinwire/runtime/detail/base64.hpp>
#include <thinwire/runtime/identity.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace thinwire::runtime {

/// 128 random bits that let one key in, once.
struct invite_secret {
    std::array<std::byte, 16> bytes{};
    [[nodiscard]] bool operator==(const invite_secret&) const noexcept = default;

    [[nodiscard]] static invite_secret draw();
};

/// What the inviting side keeps of a secret; also the key of the proof that a joiner knows it.
[[nodiscard]] inline digest verifier_of(const invite_secret& secret) noexcept {
    return sha256{}.update("thinwire invite 1").update(secret.bytes).finish();
}

/// Everything that a new machine needs to enter a run, as one line of text.
struct invite {
    static constexpr std::size_t max_addresses = 8;
    static constexpr std::size_t max_address = 255;
    static constexpr std::string_view prefix = "thinwire1_";

    std::vector<std::string> addresses;  ///< "host:port", at least one; tried in this order
    digest run{};
    public_key key{};  ///< of the peer that invites: whoever answers must have it
    invite_secret secret{};
    [[nodiscard]] bool operator==(const invite&) const = default;
};

/// Whether a word was meant as an invite, whatever its version: anything else is an address.
[[nodiscard]] inline bool looks_like_invite(std::string_view text) noexcept {
    return text.starts_with("thinwire") && text.find(':') == std::string_view::npos;
}

/// The prefix, then in base 64: number of addresses (8 bits), each with its length (8), run, key, secret, and the first
/// four bytes of the SHA-256 of all that.
[[nodiscard]] inline std::string to_string(const invite& line) {
    detail::field_writer out;
    out.put(static_cast<std::uint8_t>(line.addresses.size()));
    for (const std::string& address : line.addresses) {
        out.put(static_cast<std::uint8_t>(address.size()));
        out.put(std::as_bytes(std::span(address.data(), address.size())));
    }
    out(line.run, line.key.bytes, line.secret.bytes);
    const digest check = digest_of(out.bytes());
    out.put(std::span(check.bytes).first(4));
    return std::string(invite::prefix) + detail::to_base64(out.bytes());
}

/// Total: refuses every cut, every altered character, and whatever to_string() would write otherwise. The messages
/// never hold the line, which is a secret.
[[nodiscard]] inline result<invite> parse_invite(std::string_view text) {
    constexpr std::size_t longest = 1 + invite::max_addresses * (1 + invite::max_address) + 32 + 32 + 16 + 4;
    if (!text.starts_with(invite::prefix))
        return failure{errc::bad_version, "invite: begins with '" +
                                              std::string(text.substr(0, std::min(text.find('_'), std::size_t{12}))) +
                                              "', expected a line that begins with '" + std::string(invite::prefix) +
                                              "'"};
    text.remove_prefix(invite::prefix.size());
    if (text.size() > (longest * 8 + 5) / 6)
        return failure{errc::too_large, "invite: " + std::to_string(text.size()) + " characters, longer than any"};
    const auto bytes = detail::from_base64(text);
    if (!bytes || bytes->size() < 4)
        return failure{errc::malformed, "invite: the line is damaged or not whole, expected all of it, without blanks"};
    const auto body = std::span(*bytes).first(bytes->size() - 4);
    const digest check = digest_of(body);
    if (!std::equal(check.bytes.begin(), check.bytes.begin() + 4, bytes->end() - 4))
        return failure{errc::bad_checksum,
                       "invite: the line is damaged or not whole, expected all of it as it was printed"};
    detail::field_reader in(body);
    invite out;
    const auto count = in.get<std::uint8_t>();
    for (std::size_t i = 0; i < count && !in.failed(); ++i) {
        const auto raw = in.get_bytes(in.get<std::uint8_t>());
        out.addresses.emplace_back(reinterpret_cast<const char*>(raw.data()), raw.size());
        const bool plain = std::all_of(out.addresses.back().begin(), out.addresses.back().end(),
                                       [](char c) { return c > ' ' && c < 0x7f; });
        if (!plain || raw.empty()) return failure{errc::malformed, "invite: an address that is none"};
    }
    in(out.run, out.key.bytes, out.secret.bytes);
    if (!in.whole() || count == 0 || count > invite::max_addresses)
        return failure{errc::malformed, "invite: not of the form that this version reads"};
    return out;
}

struct enrol_options {
    std::string name{};                        ///< what the inviting side's list calls this peer; at most 64 bytes
    std::chrono::milliseconds timeout{15000};  ///< for all addresses together
    std::stop_token stop{};
};

/// Has `self` entered on the list of the peer that wrote the line; does nothing there when it is on it already. Returns
/// the address that answered. Throws node_error: unreachable, run_stopped (`stop`), untrusted (another key answers),
/// run_mismatch, refused (the invite is used, has expired, or is not known there), protocol.
std::string enrol(const invite& line, const identity& self, const enrol_options& options);

}  // namespace thinwire::runtime

#endif  // THINWIRE_RUNTIME_INVITE_HPP
