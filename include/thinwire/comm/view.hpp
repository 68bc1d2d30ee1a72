#ifndef THINWIRE_COMM_VIEW_HPP
#define THINWIRE_COMM_VIEW_HPP

#include <thinwire/comm/message.hpp>
#include <thinwire/core/detail/fields.hpp>
#include <thinwire/core/result.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace thinwire {

/// One entry of a view. `incarnation`: a peer that lost its log is another voter than the one that acknowledged.
struct view_member {
    peer_id peer = 0;
    std::uint64_t incarnation = 0;
    bool votes = true;        ///< false: follows, without a say
    bool contributes = true;  ///< false: a witness
    std::string address;      ///< empty: it dials, and cannot be dialled
    std::string key;          ///< its public key, opaque here
    [[nodiscard]] bool operator==(const view_member&) const = default;
};

/// Who takes part: in the order in which they entered, but for those who were promoted to the front.
struct run_view {
    std::vector<view_member> members;
    [[nodiscard]] bool operator==(const run_view&) const = default;

    [[nodiscard]] const view_member* find(peer_id peer) const noexcept {
        const auto it = std::find_if(members.begin(), members.end(), [&](const auto& m) { return m.peer == peer; });
        return it == members.end() ? nullptr : &*it;
    }
    [[nodiscard]] view_member* find(peer_id peer) noexcept {
        return const_cast<view_member*>(std::as_const(*this).find(peer));
    }

    /// Whether the voters for whom `has` holds have more than half of the weight. Each weighs two; among an even number
    /// the first weighs three, so that two halves are never equal and a view of two outlives its second.
    template <class Has>
    [[nodiscard]] bool quorum(Has&& has) const {
        std::size_t voters = 0;
        for (const view_member& m : members) voters += m.votes ? 1 : 0;
        std::size_t total = 2 * voters, weight = 0;
        bool first = true;
        for (const view_member& m : members) {
            if (!m.votes) continue;
            const std::size_t extra = first && voters % 2 == 0 ? 1 : 0;
            total += extra;
            if (has(m)) weight += 2 + extra;
            first = false;
        }
        return 2 * weight > total;
    }
};

/// What the run has agreed on beside the weights. A record that changes it carries the whole of it.
struct run_state {
    run_view view;
    bool paused = false;
    bool stopped = false;
    std::map<std::string, std::string> values;  ///< opaque settings, handed to every replica in the same round
    std::set<peer_id> banned;
    std::map<std::string, bool> keys;  ///< public keys that are let in (true), and those that are not any more
    [[nodiscard]] bool operator==(const run_state&) const = default;

    static constexpr std::size_t max_values = 64;
    static constexpr std::size_t max_banned = 4096;
    static constexpr std::size_t max_keys = 4096;

    /// Whether a key was let in once and is not any more.
    [[nodiscard]] bool revoked(const std::string& key) const noexcept {
        const auto it = keys.find(key);
        return it != keys.end() && !it->second;
    }

    /// Applies a change; one that is over a limit or without an object changes nothing.
    void apply(const control_change& c) {
        using kind = control_change::kind;
        const auto drop = [&] { std::erase_if(view.members, [&](const auto& m) { return m.peer == c.peer; }); };
        const auto decide = [&](bool in) {
            if (c.key.empty() || c.key.size() > wire_limits::max_key) return;
            if (keys.size() < max_keys || keys.contains(c.key)) keys[c.key] = in;
        };
        switch (c.what) {
            case kind::pause: paused = true; break;
            case kind::resume: paused = false; break;
            case kind::stop: stopped = true; break;
            case kind::set:
                if (c.key.size() > wire_limits::max_text || c.value.size() > wire_limits::max_text) break;
                if (c.value.empty())
                    values.erase(c.key);
                else if (values.size() < max_values || values.contains(c.key))
                    values[c.key] = c.value;
                break;
            case kind::remove: drop(); break;
            case kind::ban:
                if (banned.size() < max_banned) banned.insert(c.peer);
                drop();
                break;
            case kind::pardon: banned.erase(c.peer); break;
            case kind::allow: decide(true); break;
            case kind::revoke:
                decide(false);
                std::erase_if(view.members, [&](const auto& m) { return revoked(m.key); });
                break;
            case kind::promote: {
                const auto it = std::find_if(view.members.begin(), view.members.end(),
                                             [&](const view_member& m) { return m.peer == c.peer && m.votes; });
                if (it != view.members.end()) std::rotate(view.members.begin(), it, it + 1);
                break;
            }
        }
    }
};

namespace detail {

/// Two flags in one byte.
template <class Archive>
void two_flags(Archive& a, is_a<bool> auto& low, is_a<bool> auto& high, const char* why) {
    auto bits = static_cast<std::uint8_t>((low ? 1 : 0) | (high ? 2 : 0));
    a(bits);
    a.require(bits <= 3, why);
    if constexpr (Archive::reading) {
        low = (bits & 1U) != 0;
        high = (bits & 2U) != 0;
    }
}

void fields(auto& a, is_a<run_state> auto& s) {
    two_flags(a, s.paused, s.stopped, "flags that are not known");
    a.each(s.view.members, wire_limits::max_members, "more than 1024 members", [&](auto& m) {
        a(m.peer, m.incarnation);
        two_flags(a, m.votes, m.contributes, "a member that cannot be");
        a(bounded{m.address, wire_limits::max_address}, bounded{m.key, wire_limits::max_key});
    });
    a.each(s.values, run_state::max_values, "more than 64 settings", [&](auto& v) {
        a(bounded{v.first, wire_limits::max_text}, bounded{v.second, wire_limits::max_text});
    });
    a.each(s.banned, run_state::max_banned, "more than 4096 bans", [&](auto& peer) { a(peer); });
    a.each(s.keys, run_state::max_keys, "more than 4096 keys", [&](auto& k) {
        a(bounded{k.first, wire_limits::max_key}, k.second);
    });
}

}  // namespace detail

[[nodiscard]] inline shared_bytes encode_state(const run_state& s) {
    detail::field_writer out;
    detail::fields(out, s);
    return share(out.take());
}

/// The state in a record's control bytes. Total.
[[nodiscard]] inline result<run_state> decode_state(std::span<const std::byte> bytes) {
    detail::field_reader in(bytes);
    run_state s;
    detail::fields(in, s);
    std::set<peer_id> seen;
    for (const view_member& m : s.view.members)
        in.require(m.peer != 0 && seen.insert(m.peer).second, "a member that cannot be");
    in.require(!in.whole() || std::ranges::equal(*encode_state(s), bytes), "not in its one form");
    if (!in.whole()) return in.refusal("run state");
    return s;
}

}  // namespace thinwire

#endif  // THINWIRE_COMM_VIEW_HPP
