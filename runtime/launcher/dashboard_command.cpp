#include "commands.hpp"
#include "dashboard/board.hpp"
#include "directory.hpp"
#include "event_log.hpp"
#include "stop_signal.hpp"
#include <spdlog/fmt/fmt.h>

#include <cstdio>
#include <filesystem>
#include <utility>

namespace thinwire::launcher {

exit_code dashboard(const dashboard_options& options) {
    board_source source;
    for (const std::string& where : options.where) {
        const result<http_address> address = parse_http_address(where);
        if (std::filesystem::is_directory(where)) {
            if (options.where.size() > 1)
                throw launcher_error(exit_code::usage, "dashboard: '" + printable(where) +
                                                           "': expected one folder, or addresses of peers");
            if (!std::filesystem::exists(directory{where}.metrics()))
                throw launcher_error(exit_code::usage,
                                     "dashboard: '" + printable(where) +
                                         "' holds no metrics.jsonl: expected the folder of a peer that has trained");
            source.folder = where;
        } else if (address) {
            source.peers.push_back(*address);
        } else {
            throw launcher_error(exit_code::usage, "dashboard: '" + printable(where) +
                                                       "': expected the folder of a peer, or HOST:PORT that a peer was "
                                                       "given as --status");
        }
    }
    const http_address where = server_address("--listen", options.listen, options.open, "--public");
    const board page(http_listener(where, "--listen"), std::move(source));
    fmt::print("http://{}/\n", page.address().text());
    std::fflush(stdout);
    while (!stop_requested()) wait_for_signal(1000);
    return exit_code::ok;
}

}  // namespace thinwire::launcher
