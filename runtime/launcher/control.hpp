#ifndef THINWIRE_LAUNCHER_CONTROL_HPP
#define THINWIRE_LAUNCHER_CONTROL_HPP

#include <thinwire/runtime/node.hpp>

#include "configuration.hpp"
#include <nlohmann/json.hpp>

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace thinwire::launcher {

/// Whether `thinwire ctl DIR set` may change a key: one of how rounds are made, which no replica depends on.
[[nodiscard]] bool can_be_set(std::string_view key) noexcept;
/// Those keys, for people.
[[nodiscard]] std::string keys_that_can_be_set();

/// `settings` with what the run has set since. Throws launcher_error(usage) for what a peer of that run cannot do: a
/// key that is not one of those, a value out of range, a batch above 16 times the run's.
[[nodiscard]] configuration tuned(const configuration& settings, const std::map<std::string, std::string>& values);

/// Does what a request over DIR/control says: {"command": "status"}, {"command": "pause"}, ..., {"command": "ban",
/// "peer": "123"}, {"command": "set", "key": "run.batch_size", "value": "8"}. Gives {"status": ...} or {}. Throws
/// value_error for anything else. May be called beside the thread that trains.
[[nodiscard]] nlohmann::json control(runtime::node& node, const configuration& settings, const nlohmann::json& request);

/// Of the peers of such a status, those that are meant. A number wins over names, and a number is never a name: each
/// peer chooses its own.
[[nodiscard]] std::vector<const nlohmann::json*> peers_meant(const nlohmann::json& status, const std::string& peer);

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_CONTROL_HPP
