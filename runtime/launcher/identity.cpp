#include "exit_code.hpp"
#include "peer.hpp"

#include <random>

namespace thinwire::launcher {
namespace {

/// Places given by peer.index have small ids; ids by chance keep out of their way.
constexpr peer_id by_chance = peer_id{1} << 62U;

peer_id random_id() {
    std::random_device device;
    const std::uint64_t high = device();
    return by_chance | (((high << 32U) | device()) & (by_chance - 1));
}

identity fresh_identity(std::int64_t index, bool founder) {
    if (index < 0 && founder) index = 0;
    return {.peer = index < 0 ? random_id() : static_cast<peer_id>(index) + 1, .index = index};
}

}  // namespace

std::int64_t identity::place(std::int64_t max_peers) const {
    if (index >= 0 || max_peers < 2) return std::max<std::int64_t>(index, 0);
    return 1 + static_cast<std::int64_t>(peer % static_cast<std::uint64_t>(max_peers - 1));
}

identity identity_of(const directory& where, const configuration& settings, bool founder) {
    const std::string stored = read_text(where.identity());
    if (stored.empty()) {
        const identity made = fresh_identity(settings.peer.index, founder);
        write_text(where.identity(), nlohmann::json{{"peer", made.peer}, {"index", made.index}}.dump() + "\n");
        return made;
    }
    const auto json = nlohmann::json::parse(stored, nullptr, false);
    if (!json.is_object() || !json.contains("peer") || !json["peer"].is_number_unsigned() || !json.contains("index") ||
        !json["index"].is_number_integer())
        throw launcher_error(exit_code::storage,
                             "'" + where.identity().string() + "' is damaged: expected peer and index");
    const identity found{.peer = json["peer"].get<peer_id>(), .index = json["index"].get<std::int64_t>()};
    const std::int64_t asked = settings.peer.index < 0 && founder ? 0 : settings.peer.index;
    if (asked >= 0 && asked != found.index)
        throw launcher_error(exit_code::usage, "peer.index = " + std::to_string(asked) + ": expected " +
                                                   std::to_string(found.index) + ", the one that '" +
                                                   where.root.string() + "' belongs to");
    return found;
}

}  // namespace thinwire::launcher
