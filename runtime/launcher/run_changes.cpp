#include "run_changes.hpp"

#include <thinwire/runtime/identity.hpp>

#include "about.hpp"
#include <spdlog/fmt/fmt.h>

#include <cstdint>

namespace thinwire::launcher {

agreed_state agreed_state_of(const run_state& state) {
    agreed_state out;
    for (const view_member& m : state.view.members)
        out.members[m.peer] = fmt::format("{} {} {} {} {}", m.incarnation, m.votes, m.contributes, m.key, m.address);
    if (!state.view.members.empty()) out.first = state.view.members.front().peer;
    out.paused = state.paused;
    out.stopped = state.stopped;
    out.settings = state.values;
    out.banned = state.banned;
    for (const auto& [key, in] : state.keys)
        if (const peer_id peer = runtime::peer_id_of(std::string_view(key)); peer != 0)
            (in ? out.allowed : out.revoked).insert(peer);
    return out;
}

agreed_state agreed_state_of(const runtime::node_status& status) {
    agreed_state out;
    for (const runtime::peer_status& p : status.peers)
        if (p.member) out.members[p.peer] = "";
    out.paused = status.paused;
    out.settings = status.settings;
    out.banned = {status.banned.begin(), status.banned.end()};
    out.revoked = {status.revoked.begin(), status.revoked.end()};
    return out;
}

std::vector<run_change> changes(const agreed_state& before, const agreed_state& after) {
    std::vector<run_change> all;
    const auto each = [&](std::string_view what, const std::set<peer_id>& in, const std::set<peer_id>& not_in) {
        for (const peer_id peer : in)
            if (!not_in.contains(peer)) all.push_back({what, peer, "", ""});
    };
    for (const auto& [peer, as] : after.members) {
        const auto was = before.members.find(peer);
        if (was == before.members.end())
            all.push_back({"member_added", peer, "", ""});
        else if (was->second != as)
            all.push_back({"member_changed", peer, "", ""});
    }
    for (const auto& [peer, as] : before.members)
        if (!after.members.contains(peer)) all.push_back({"member_removed", peer, "", ""});
    if (after.first != before.first && after.members.contains(before.first))
        all.push_back({"promoted", after.first, "", ""});
    each("banned", after.banned, before.banned);
    each("pardoned", before.banned, after.banned);
    each("revoked", after.revoked, before.revoked);
    std::set<peer_id> let_in = before.revoked;
    let_in.insert(after.allowed.begin(), after.allowed.end());
    std::set<peer_id> not_new = before.allowed;
    not_new.insert(after.revoked.begin(), after.revoked.end());
    each("allowed", let_in, not_new);
    for (const auto& [key, value] : after.settings)
        if (const auto was = before.settings.find(key); was == before.settings.end() || was->second != value)
            all.push_back({"set", 0, key, value});
    for (const auto& [key, value] : before.settings)
        if (!after.settings.contains(key)) all.push_back({"set", 0, key, ""});
    if (after.paused != before.paused) all.push_back({after.paused ? "paused" : "resumed", 0, "", ""});
    if (after.stopped && !before.stopped) all.push_back({"stopped", 0, "", ""});
    return all;
}

std::string to_text(const run_change& change) {
    const std::string what(change.what);
    if (change.peer != 0) return what + " " + std::to_string(change.peer);
    if (change.key.empty()) return what;
    const std::string line = what + " " + change.key + (change.value.empty() ? " as it began" : " = " + change.value);
    return clean_text(line, line.size());
}

nlohmann::json fields_of(const run_change& change) {
    if (change.peer != 0) return {{"peer_id", std::to_string(change.peer)}};
    if (change.key.empty()) return nlohmann::json::object();
    return {{"key", change.key}, {"value", change.value.empty() ? nlohmann::json() : nlohmann::json(change.value)}};
}

}  // namespace thinwire::launcher
