#ifndef THINWIRE_LAUNCHER_CONTROL_HPP
#define THINWIRE_LAUNCHER_CONTROL_HPP

#include <thinwire/runtime/node.hpp>

#include <nlohmann/json.hpp>

namespace thinwire::launcher {

/// Does what a request over DIR/control says: {"command": "status"}, {"command": "pause"}, ..., {"command": "ban",
/// "peer": "123"}. Gives {"status": ...} or {}. Throws value_error for anything else. May be called beside the thread
/// that trains.
[[nodiscard]] nlohmann::json control(runtime::node& node, const nlohmann::json& request);

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_CONTROL_HPP
