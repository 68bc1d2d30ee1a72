#include "commands.hpp"
#include "peer.hpp"

namespace thinwire::launcher {
namespace {

exit_code run_peer(configuration settings, bool founder) {
    if (settings.peer.directory.empty())
        throw launcher_error(exit_code::usage,
                             "configuration: peer.directory is not set: expected a folder (--dir DIR)");
    peer one(std::move(settings), founder);
    one.train();
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
