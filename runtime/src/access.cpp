#include <thinwire/core/error.hpp>
#include <thinwire/runtime/access.hpp>

#include "private_file.hpp"
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

namespace thinwire::runtime {

namespace {

constexpr std::size_t largest_file = std::size_t{1} << 20U;
constexpr unix_time remembered = 7 * 24 * 3600;  ///< seconds that a closed invite stays on the list

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
        if (rules.find(*key) != nullptr) return "a key that is on the list already";
        if (rules.keys.size() >= access_rules::max_keys) return "more than 4096 keys";
        rules.keys.push_back({*key, std::string(line)});
        return {};
    }
    if (kind != "invite" && kind != "used") return "expected a line that begins with ed25519, invite, used or #";
    const auto verifier = parse_digest(take_word(line));
    const auto expires = parse_time(line);
    if (!verifier || !expires) return "expected 64 hexadecimal digits and the seconds since 1970 when it expires";
    if (rules.invites.size() >= access_rules::max_invites) return "more than 1024 invites";
    rules.invites.push_back({*verifier, *expires, kind == "used"});
    return {};
}

void insert(access_rules& rules, const public_key& key, std::string_view name) {
    for (allowed_key& known : rules.keys) {
        if (known.key == key) {
            known.name = as_name(name);
            return;
        }
        if (peer_id_of(known.key) == peer_id_of(key))
            throw value_error("allow: key " + to_string(key) + " has the peer number of another key, " +
                              to_string(known.key) + ": expected a new key");
    }
    if (rules.keys.size() >= access_rules::max_keys)
        throw value_error("allow: 4096 keys are on the list, expected fewer");
    rules.keys.push_back({key, as_name(name)});
}

}  // namespace

const allowed_key* access_rules::find(const public_key& key) const noexcept {
    const auto found =
        std::find_if(keys.begin(), keys.end(), [&](const allowed_key& known) { return known.key == key; });
    return found == keys.end() ? nullptr : &*found;
}

std::string to_text(const access_rules& rules) {
    std::string out;
    for (const allowed_key& known : rules.keys) {
        out += "ed25519 " + to_string(known.key);
        if (!known.name.empty()) out += " " + known.name;
        out += "\n";
    }
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

/// What tells a file from the one that was there before.
struct access_list::stamp {
    bool exists = false;
    dev_t device = 0;
    ino_t inode = 0;
    off_t size = 0;
    timespec changed{};

    static stamp of(const std::filesystem::path& file) {
        struct stat about {};
        if (::stat(file.c_str(), &about) != 0) return {};
        return {true, about.st_dev, about.st_ino, about.st_size, about.st_ctim};
    }
    bool operator==(const stamp& other) const noexcept {
        return exists == other.exists && device == other.device && inode == other.inode && size == other.size &&
               changed.tv_sec == other.changed.tv_sec && changed.tv_nsec == other.changed.tv_nsec;
    }
};

access_list::access_list(std::filesystem::path file) : file_(std::move(file)), seen_(std::make_unique<stamp>()) {
    read();
}
access_list::access_list(access_list&&) noexcept = default;
access_list::~access_list() = default;

void access_list::read() {
    // The stamp first: a change in between is then seen the next time.
    *seen_ = stamp::of(file_);
    const std::optional<std::string> text = read_private_file(file_, largest_file);
    result<access_rules> rules = parse_access(text ? std::string_view(*text) : std::string_view());
    if (!rules) throw io_error("'" + file_.string() + "': " + rules.error().message);
    rules_ = std::move(*rules);
}

bool access_list::refresh() {
    if (stamp::of(file_) == *seen_) return false;
    read();
    return true;
}

template <class Change>
void access_list::change(Change&& apply) {
    std::filesystem::path name = file_;
    name += ".lock";
    const file_lock lock(name);
    read();
    access_rules next = rules_;
    if (!apply(next)) return;
    replace_private_file(file_, to_text(next));
    rules_ = std::move(next);
    *seen_ = stamp::of(file_);
}

void access_list::allow(const public_key& key, std::string_view name) {
    change([&](access_rules& rules) {
        insert(rules, key, name);
        return true;
    });
}

bool access_list::revoke(const public_key& key) {
    bool found = false;
    change([&](access_rules& rules) {
        found = std::erase_if(rules.keys, [&](const allowed_key& known) { return known.key == key; }) > 0;
        return found;
    });
    return found;
}

invite_secret access_list::add_invite(unix_time expires, unix_time now) {
    const invite_secret secret = invite_secret::draw();
    change([&](access_rules& rules) {
        std::erase_if(rules.invites, [&](const invite_record& one) { return one.expires + remembered < now; });
        if (rules.invites.size() >= access_rules::max_invites)
            throw value_error("invite: 1024 invites are on the list, expected fewer: wait, or remove lines from '" +
                              file_.string() + "'");
        rules.invites.push_back({verifier_of(secret), expires, false});
        return true;
    });
    return secret;
}

enrolment access_list::enrol(const public_key& key, std::string_view name,
                             const std::function<bool(const digest& verifier)>& proves, unix_time now) {
    refresh();
    if (rules_.find(key) != nullptr) return enrolment::done;
    // Without the lock and without writing: what a stranger may cost.
    const bool fits = std::any_of(rules_.invites.begin(), rules_.invites.end(),
                                  [&](const invite_record& one) { return proves(one.verifier); });
    if (!fits) return enrolment::unknown;
    enrolment outcome = enrolment::unknown;
    change([&](access_rules& rules) {
        for (invite_record& one : rules.invites) {
            if (!proves(one.verifier)) continue;
            outcome = one.used ? enrolment::used : one.expires <= now ? enrolment::expired : enrolment::done;
            if (outcome != enrolment::done) return false;
            one.used = true;
            insert(rules, key, name);
            return true;
        }
        return false;
    });
    return outcome;
}

}  // namespace thinwire::runtime
