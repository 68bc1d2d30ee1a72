#include "exit_code.hpp"
#include "peer.hpp"

namespace thinwire::launcher {

std::int64_t seat::place(std::int64_t max_peers) const {
    if (index >= 0 || max_peers < 2) return std::max<std::int64_t>(index, 0);
    return 1 + static_cast<std::int64_t>(peer % static_cast<std::uint64_t>(max_peers - 1));
}

seat seat_of(const directory& where, const configuration& settings, peer_id peer, bool founder) {
    const std::int64_t asked = settings.peer.index < 0 && founder ? 0 : settings.peer.index;
    const std::string stored = read_text(where.seat());
    if (stored.empty()) {
        write_text(where.seat(), nlohmann::json{{"index", asked}}.dump() + "\n");
        return {.peer = peer, .index = asked};
    }
    const auto json = nlohmann::json::parse(stored, nullptr, false);
    if (!json.is_object() || !json.contains("index") || !json["index"].is_number_integer())
        throw launcher_error(exit_code::storage, "'" + where.seat().string() + "' is damaged: expected an index");
    const seat found{.peer = peer, .index = json["index"].get<std::int64_t>()};
    if (asked >= 0 && asked != found.index)
        throw launcher_error(exit_code::usage, "peer.index = " + std::to_string(asked) + ": expected " +
                                                   std::to_string(found.index) + ", the one that '" +
                                                   where.root.string() + "' belongs to");
    return found;
}

}  // namespace thinwire::launcher
