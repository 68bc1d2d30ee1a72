#include "commands.hpp"
#include "event_log.hpp"
#include "peer.hpp"
#include "stop_signal.hpp"

#include <iostream>
#include <optional>
#include <string>
#include <utility>

namespace thinwire::launcher {
namespace {

/// False when the replica was behind what any log of the run still holds: it goes on with a newer snapshot then.
bool train_once(const configuration& settings, bool founder, std::optional<runtime::invite> line) {
    try {
        peer one(settings, founder, std::move(line));
        one.train();
    } catch (const runtime::node_error& problem) {
        if (problem.code() != runtime::node_errc::behind) throw;
        log_event(log_level::info, "behind", problem.what());
        return false;
    }
    return true;
}

exit_code run_peer(configuration settings, bool founder, std::optional<runtime::invite> line = std::nullopt) {
    if (settings.peer.directory.empty())
        throw launcher_error(exit_code::usage,
                             "configuration: peer.directory is not set: expected a folder (--dir DIR)");
    try {
        while (!train_once(settings, founder, std::exchange(line, std::nullopt))) {
        }
    } catch (const runtime::node_error& problem) {
        if (problem.code() != runtime::node_errc::run_stopped || !stop_requested()) throw;
        log_event(log_level::info, "stopped", "stopped before it entered the run");
    }
    return exit_code::ok;
}

/// `-`: the first line of the standard input, which unlike an argument stands in no process list and no history.
std::string given(const std::string& where) {
    if (where != "-") return where;
    std::string line;
    if (!std::getline(std::cin, line) || line.empty())
        throw launcher_error(exit_code::usage, "join: nothing on the standard input: expected a line with an invite");
    return line;
}

}  // namespace

exit_code start(configuration settings) {
    return run_peer(std::move(settings), true);
}

exit_code join(configuration settings, const std::string& argument) {
    const std::string where = given(argument);
    if (!runtime::looks_like_invite(where)) {
        set_key(settings, "peer.address", where);
        return run_peer(std::move(settings), false);
    }
    result<runtime::invite> line = runtime::parse_invite(where);
    if (!line) throw launcher_error(exit_code::usage, "join: " + line.error().message);
    if (settings.peer.plaintext)
        throw launcher_error(exit_code::usage, "join: an invite with peer.plaintext = true: expected one of the two");
    return run_peer(std::move(settings), false, std::move(*line));
}

}  // namespace thinwire::launcher
