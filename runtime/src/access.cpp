#include <thinwire/core/error.hpp>
#include <thinwire/runtime/access.hpp>

#include "private_file.hpp"
#include <sys/stat.h>

#include <algorithm>
#include <optional>
#include <utility>

namespace thinwire::runtime {

namespace {

constexpr std::size_t largest_file = std::size_t{1} << 20U;
constexpr unix_time remembered = unix_time{7} * 24 * 3600;  ///< seconds that a closed invite stays on the list

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
    std::erase(rules.revoked, key);
    rules.keys.push_back({key, as_name(name)});
}

}  // namespace

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
    // The stamp first: a change in between is then seen the next time. It counts once the file was read, so that one
    // that could not be opened is tried again; one that is damaged stays so until it changes.
    const stamp found = stamp::of(file_);
    const std::optional<std::string> text = read_private_file(file_, largest_file);
    // What an editor does for a moment, or somebody by mistake, shuts nobody out.
    if (seen_->size > 0 && (!text || text->empty()))
        throw io_error("'" + file_.string() + "' is gone or empty: expected the list of keys that was there");
    *seen_ = found;
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
        if (rules.is_revoked(key)) return found;
        if (rules.revoked.size() >= access_rules::max_keys)
            throw value_error("revoke: 4096 revoked keys are on the list, expected fewer: remove lines from '" +
                              file_.string() + "'");
        rules.revoked.push_back(key);
        return true;
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
