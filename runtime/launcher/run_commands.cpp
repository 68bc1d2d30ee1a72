#include "commands.hpp"
#include "event_log.hpp"
#include "exit_code.hpp"
#include "log_keeper.hpp"
#include "peer.hpp"
#include "stop_signal.hpp"
#include <spdlog/fmt/fmt.h>
#include <spdlog/fmt/ranges.h>

#include <cstdint>
#include <filesystem>
#include <iostream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace thinwire::launcher {
namespace {

/// How a peer goes on after what it cannot train through: from what lies on the disk and in the log.
class second_start {
 public:
    /// False: it does not, the error stands.
    [[nodiscard]] bool after(const runtime::node_error& problem) const {
        if (problem.code() != runtime::node_errc::behind) return false;
        // A newer snapshot, fetched from the others, lies beside the log now.
        log_event(log_level::info, "behind", problem.what());
        return true;
    }
    /// A replica that differs goes back to its last snapshot and replays the log; when that differs too, to the one
    /// that the log began with.
    [[nodiscard]] bool after(const launcher_error& problem, std::uint64_t round, const directory& where) {
        if (problem.code() != exit_code::diverged) return false;
        again_ = round < differed_ + once_around ? again_ + 1 : 1;
        differed_ = round;
        if (again_ > 2) return false;
        if (again_ == 2) {
            auto aside = where.snapshot();
            aside += ".differs";
            std::filesystem::rename(where.snapshot(), aside);
            // Later ones beside the log are this replica's own, too.
            const std::vector<std::uint64_t> beside = log_snapshots(where.run_log());
            for (std::size_t i = 1; i < beside.size(); ++i)
                std::filesystem::remove(log_snapshot(where.run_log(), beside[i]));
        }
        log_event(log_level::warning, "resync",
                  std::string(problem.what()) +
                      (again_ == 1 ? "; going back to the last snapshot" : "; going back to the log's first snapshot"));
        return true;
    }

 private:
    static constexpr std::uint64_t once_around = 64;  ///< rounds: four times those in which every weight is looked at
    std::uint64_t differed_ = 0;
    int again_ = 0;
};

exit_code run_peer(configuration settings, bool founder, std::optional<runtime::invite> line = std::nullopt) {
    if (settings.peer.directory.empty())
        throw launcher_error(exit_code::usage,
                             "configuration: peer.directory is not set: expected a folder (--dir DIR)");
    second_start next;
    for (;;) {
        std::uint64_t round = 0;
        try {
            peer one(settings, founder, std::exchange(line, std::nullopt));
            try {
                one.train();
            } catch (const launcher_error&) {
                round = one.round();
                throw;
            }
            return exit_code::ok;
        } catch (const runtime::node_error& problem) {
            if (problem.code() == runtime::node_errc::run_stopped && stop_requested()) {
                log_event(log_level::info, "stopped", "stopped before it entered the run");
                return exit_code::ok;
            }
            if (!next.after(problem)) throw;
        } catch (const launcher_error& problem) {
            if (!next.after(problem, round, directory{settings.peer.directory})) throw;
        }
    }
}

}  // namespace

exit_code start(configuration settings) {
    return run_peer(std::move(settings), true);
}

std::string place_to_join(const std::string& argument) {
    const auto trimmed = [](const std::string& text) {
        constexpr const char* blanks = " \t\r\n";
        const std::size_t begin = text.find_first_not_of(blanks);
        return begin == std::string::npos ? "" : text.substr(begin, text.find_last_not_of(blanks) + 1 - begin);
    };
    std::string where = trimmed(argument);
    if (where != "-") return where;
    where.clear();
    for (std::string line; where.empty() && std::getline(std::cin, line);) where = trimmed(line);
    if (where.empty())
        throw launcher_error(exit_code::usage, "join: nothing on the standard input: expected a line with an invite");
    return where;
}

exit_code join(configuration settings, const std::string& where) {
    if (!runtime::looks_like_invite(where)) {
        if (where.find(runtime::invite::prefix) != std::string::npos)
            throw launcher_error(exit_code::usage,
                                 "join: an invite with something before it: expected the line that `thinwire invite` "
                                 "prints, alone");
        if (where.find(',') == std::string::npos && !can_be_dialled(where))
            throw launcher_error(
                exit_code::usage,
                "join: '" + printable(where) + "': expected the line that `thinwire invite` prints, or host:port");
        set_key(settings, "peer.address", where);
        return run_peer(std::move(settings), false);
    }
    result<runtime::invite> line = runtime::parse_invite(where);
    if (!line) throw launcher_error(exit_code::usage, "join: " + line.error().message);
    if (settings.peer.plaintext)
        throw launcher_error(exit_code::usage, "join: an invite with peer.plaintext = true: expected one of the two");
    // For a second start, which has no use for the line.
    settings.peer.address = fmt::format("{}", fmt::join(line->addresses, ","));
    return run_peer(std::move(settings), false, std::move(*line));
}

}  // namespace thinwire::launcher
