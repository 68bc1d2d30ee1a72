#ifndef THINWIRE_LAUNCHER_CONTROL_HPP
#define THINWIRE_LAUNCHER_CONTROL_HPP

#include <thinwire/runtime/node.hpp>

#include "configuration.hpp"
#include <nlohmann/json.hpp>

#include <map>
#include <string>
#include <string_view>

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

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_CONTROL_HPP
