#ifndef THINWIRE_LAUNCHER_CONTROL_HPP
#define THINWIRE_LAUNCHER_CONTROL_HPP

#include <thinwire/runtime/node.hpp>

#include <nlohmann/json.hpp>

#include <string>
#include <string_view>

namespace thinwire::launcher {

/// Whether `thinwire ctl DIR set` may change a key: one of how rounds are made, which no replica depends on.
[[nodiscard]] bool can_be_set(std::string_view key) noexcept;
/// Those keys, for people.
[[nodiscard]] std::string keys_that_can_be_set();

/// Does what a request over DIR/control says: {"command": "status"}, {"command": "pause"}, ..., {"command": "ban",
/// "peer": "123"}, {"command": "set", "key": "run.batch_size", "value": "8"}. Gives {"status": ...} or {}. Throws
/// value_error for anything else. May be called beside the thread that trains.
[[nodiscard]] nlohmann::json control(runtime::node& node, const nlohmann::json& request);

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_CONTROL_HPP
