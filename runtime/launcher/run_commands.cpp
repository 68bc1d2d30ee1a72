#include "commands.hpp"
#include "peer.hpp"
#include "stop_signal.hpp"
#include <spdlog/spdlog.h>

namespace thinwire::launcher {
namespace {

exit_code run_peer(configuration settings, bool founder) {
    if (settings.peer.directory.empty())
        throw launcher_error(exit_code::usage,
                             "configuration: peer.directory is not set: expected a folder (--dir DIR)");
    try {
        peer one(std::move(settings), founder);
        one.train();
    } catch (const runtime::node_error& problem) {
        if (problem.code() != runtime::node_errc::run_stopped || !stop_requested()) throw;
        spdlog::info("stopped before it entered the run");
    }
    return exit_code::ok;
}

}  // namespace

exit_code start(configuration settings) {
    return run_peer(std::move(settings), true);
}

exit_code join(configuration settings) {
    return run_peer(std::move(settings), false);
}

}  // namespace thinwire::launcher
