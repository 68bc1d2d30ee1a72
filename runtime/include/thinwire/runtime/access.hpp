#ifndef THINWIRE_RUNTIME_ACCESS_HPP
#define THINWIRE_RUNTIME_ACCESS_HPP

#include <thinwire/core/digest.hpp>
#include <thinwire/core/result.hpp>
#include <thinwire/runtime/identity.hpp>
#include <thinwire/runtime/invite.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace thinwire::runtime {

/// Seconds since 1970. Functions that compare with an expiry are handed the time.
using unix_time = std::int64_t;

/// A key that may connect, and be connected to.
struct allowed_key {
    public_key key{};
    std::string name;  ///< for people; at most 64 bytes, no control characters
    [[nodiscard]] bool operator==(const allowed_key&) const = default;
};

/// An invite as the inviting side keeps it. Who knows the verifier can enrol with it, so the file is its owner's alone.
struct invite_record {
    digest verifier{};
    unix_time expires = 0;
    bool used = false;  ///< kept for a while, so that a second use is told apart from a foreign line
    [[nodiscard]] bool operator==(const invite_record&) const = default;
};

/// Who may take part. Text, a line each, in any order:
///     ed25519 KEY NAME        a key that is let in
///     revoked KEY             one that is not any more, whatever the run says
///     invite VERIFIER EXPIRES an open invite (64 hexadecimal digits, seconds since 1970)
///     used VERIFIER EXPIRES   one that was used
/// Empty lines and lines that begin with # are left out when it is written again.
struct access_rules {
    static constexpr std::size_t max_keys = 4096;
    static constexpr std::size_t max_invites = 1024;
    static constexpr std::size_t max_name = 64;

    std::vector<allowed_key> keys;
    std::vector<public_key> revoked;  ///< at most max_keys; none of them in `keys`
    std::vector<invite_record> invites;
    [[nodiscard]] bool operator==(const access_rules&) const = default;

    /// The entry of a key; null: there is none.
    [[nodiscard]] const allowed_key* find(const public_key& key) const noexcept;
    [[nodiscard]] bool is_revoked(const public_key& key) const noexcept;
};

[[nodiscard]] std::string to_text(const access_rules& rules);
/// Total; names the line that it refuses.
[[nodiscard]] result<access_rules> parse_access(std::string_view text);
/// `text` as a name: control characters become '?', what is too long is cut.
[[nodiscard]] std::string as_name(std::string_view text);

/// How an attempt to use an invite ended.
enum class enrolment : std::uint8_t { done, unknown, used, expired };

/// The file that access_rules are kept in, readable by its owner only, changed whole or not at all and on the device
/// before a call returns. Several processes may use one file: a change takes a lock (FILE.lock) and begins with what
/// the others wrote. Not thread-safe. Every call but rules() throws io_error: unreadable, damaged, gone meanwhile,
/// readable or writable by others, not writable.
class access_list {
 public:
    /// A file that does not exist is an empty list.
    explicit access_list(std::filesystem::path file);
    access_list(access_list&&) noexcept;
    ~access_list();

    /// Reads the file again if it is another than before; true when it was. After an io_error the rules are as before;
    /// a file that could not be read, or that is gone or empty and was not, is tried again by the next call, a damaged
    /// one when it has changed.
    bool refresh();
    [[nodiscard]] const access_rules& rules() const noexcept { return rules_; }
    [[nodiscard]] const std::filesystem::path& file() const noexcept { return file_; }

    /// Adds a key, or renames it; it is not revoked then. Throws value_error when the list is full or another key has
    /// the same peer_id.
    void allow(const public_key& key, std::string_view name);
    /// Takes a key off the list and remembers that. False when it was not on the list. Throws value_error when too many
    /// are remembered.
    bool revoke(const public_key& key);
    /// An invite for one key until `expires`. Forgets those that expired a week before `now`. Throws value_error when
    /// too many are open.
    [[nodiscard]] invite_secret add_invite(unix_time expires, unix_time now);
    /// Lets `key` in if an invite proves right: uses it up and adds the key in one change. `proves` is asked for each
    /// verifier. A key that is on the list already needs no proof. Throws as allow() does.
    [[nodiscard]] enrolment enrol(const public_key& key, std::string_view name,
                                  const std::function<bool(const digest& verifier)>& proves, unix_time now);

 private:
    struct stamp;
    template <class Change>
    void change(Change&& apply);
    void read();

    std::filesystem::path file_;
    access_rules rules_;
    std::unique_ptr<stamp> seen_;
};

}  // namespace thinwire::runtime

#endif  // THINWIRE_RUNTIME_ACCESS_HPP
