#include <thinwire/runtime/access.hpp>

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

namespace thinwire::runtime {

namespace {

bool is_name(std::string_view text) {
    return text.size() <= access_rules::max_name && std::none_of(text.begin(), text.end(), [](char c) {
               return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
           });
}

std::optional<digest> parse_digest(std::string_view text) {
    digest out;
    if (text.size() != 2 * out.bytes.size()) return std::nullopt;
    for (std::size_t i = 0; i < out.bytes.size(); ++i) {
        unsigned value = 0;
        const char* const at = text.data() + 2 * i;
        const auto [end, problem] = std::from_chars(at, at + 2, value, 16);
        if (problem != std::errc{} || end != at + 2) return std::nullopt;
        out.bytes[i] = static_cast<std::byte>(value);
    }
    return to_string(out) == text ? std::optional(out) : std::nullopt;
}

std::optional<unix_time> parse_time(std::string_view text) {
    unix_time out = 0;
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), out);
    if (problem != std::errc{} || end != text.data() + text.size() || out < 0) return std::nullopt;
    return out;
}

/// The text before the first space, which is taken away with it.
std::string_view take_word(std::string_view& text) {
    const std::size_t space = std::min(text.find(' '), text.size());
    const std::string_view word = text.substr(0, space);
    text.remove_prefix(std::min(space + 1, text.size()));
    return word;
}

/// Adds what a line says; why it cannot, or nothing.
std::string take_line(std::string_view line, access_rules& rules) {
    const std::string_view kind = take_word(line);
    if (kind == "ed25519") {
        const result<public_key> key = parse_public_key(take_word(line));
        if (!key) return key.error().message;
        if (!is_name(line)) return "a name of more than 64 bytes or with control characters";
        if (rules.find(*key) != nullptr || rules.is_revoked(*key)) return "a key that is on the list already";
        if (rules.keys.size() >= access_rules::max_keys) return "more than 4096 keys";
        rules.keys.push_back({*key, std::string(line)});
        return {};
    }
    if (kind == "revoked") {
        const result<public_key> key = parse_public_key(line);
        if (!key) return key.error().message;
        if (rules.is_revoked(*key) || rules.find(*key) != nullptr) return "a key that is on the list already";
        if (rules.revoked.size() >= access_rules::max_keys) return "more than 4096 revoked keys";
        rules.revoked.push_back(*key);
        return {};
    }
    if (kind != "invite" && kind != "used")
        return "expected a line that begins with ed25519, revoked, invite, used or #";
    const auto verifier = parse_digest(take_word(line));
    const auto expires = parse_time(line);
    if (!verifier || !expires) return "expected 64 hexadecimal digits and the seconds since 1970 when it expires";
    if (rules.invites.size() >= access_rules::max_invites) return "more than 1024 invites";
    rules.invites.push_back({*verifier, *expires, kind == "used"});
    return {};
}

}  // namespace

const allowed_key* access_rules::find(const public_key& key) const noexcept {
    const auto found =
        std::find_if(keys.begin(), keys.end(), [&](const allowed_key& known) { return known.key == key; });
    return found == keys.end() ? nullptr : &*found;
}

bool access_rules::is_revoked(const public_key& key) const noexcept {
    return std::find(revoked.begin(), revoked.end(), key) != revoked.end();
}

std::string to_text(const access_rules& rules) {
    std::string out;
    for (const allowed_key& known : rules.keys) {
        out += "ed25519 " + to_string(known.key);
        if (!known.name.empty()) out += " " + known.name;
        out += "\n";
    }
    for (const public_key& key : rules.revoked) out += "revoked " + to_string(key) + "\n";
    for (const invite_record& one : rules.invites)
        out += std::string(one.used ? "used " : "invite ") + to_string(one.verifier) + " " +
               std::to_string(one.expires) + "\n";
    return out;
}

result<access_rules> parse_access(std::string_view text) {
    access_rules rules;
    for (std::size_t number = 1; !text.empty(); ++number) {
        const std::size_t end = std::min(text.find('\n'), text.size());
        std::string_view line = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        if (line.ends_with('\r')) line.remove_suffix(1);
        if (line.empty() || line.front() == '#') continue;
        if (const std::string why = take_line(line, rules); !why.empty())
            return failure{errc::malformed, "line " + std::to_string(number) + ": " + why};
    }
    return rules;
}

std::string as_name(std::string_view text) {
    std::string out(text.substr(0, access_rules::max_name));
    std::replace_if(
        out.begin(), out.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, '?');
    return out;
}

}  // namespace thinwire::runtime
