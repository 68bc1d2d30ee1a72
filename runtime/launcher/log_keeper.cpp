#include "log_keeper.hpp"

#include "exit_code.hpp"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <limits>
#include <string>
#include <system_error>

namespace thinwire::launcher {
namespace {

constexpr std::string_view suffix = ".snapshot";
constexpr std::size_t name_digits = 20;

void remove_snapshot(const std::filesystem::path& path) {
    std::error_code failed;
    std::filesystem::remove(path, failed);
    if (failed) throw io_error("remove '" + path.string() + "': " + failed.message());
}

}  // namespace

std::uint64_t log_policy::segment_bytes() const noexcept {
    constexpr std::uint64_t largest = std::uint64_t{64} << 20U;
    return bytes == 0 ? largest : std::clamp<std::uint64_t>(bytes / 16, std::uint64_t{64} << 10U, largest);
}

std::uint64_t log_policy::segment_rounds() const noexcept {
    return rounds == 0 ? UINT64_MAX : std::max<std::uint64_t>(rounds / 16, 16);  // a file more costs some syncs
}

log_policy parse_keep_log(std::string_view text) {
    const auto refuse = [&] {
        throw launcher_error(exit_code::usage, "configuration: run.keep_log = " + printable(text) +
                                                   ": expected all, a number of rounds such as 5000 rounds, or a size "
                                                   "of at least 1 MB such as 200 MB or 10 GB");
    };
    if (text == "all") return {};
    std::uint64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc{} || number == 0) refuse();
    const std::string_view unit = text.substr(static_cast<std::size_t>(end - text.data()));
    if (unit == " rounds" || unit == " round") return {.rounds = number};
    const std::uint64_t size = unit == " MB" ? 1'000'000 : unit == " GB" ? 1'000'000'000 : 0;
    if (size == 0 || number > std::numeric_limits<std::uint64_t>::max() / size) refuse();
    return {.bytes = number * size};
}

std::filesystem::path log_snapshot(const std::filesystem::path& log, std::uint64_t round) {
    std::string name = std::to_string(round);
    name.insert(0, name_digits - name.size(), '0');
    return log / (name + std::string(suffix));
}

std::vector<std::uint64_t> log_snapshots(const std::filesystem::path& log) {
    std::vector<std::uint64_t> rounds;
    std::error_code failed;
    for (std::filesystem::directory_iterator at(log, failed), end; !failed && at != end; at.increment(failed)) {
        const std::string name = at->path().filename().string();
        std::uint64_t round = 0;
        const auto [rest, error] = std::from_chars(name.data(), name.data() + name.size(), round);
        if (error == std::errc{} && name.substr(static_cast<std::size_t>(rest - name.data())) == suffix &&
            log_snapshot(log, round).filename() == name)
            rounds.push_back(round);
    }
    if (failed) throw io_error("list '" + log.string() + "': " + failed.message());
    std::sort(rounds.begin(), rounds.end());
    return rounds;
}

void log_keeper::begin(std::uint64_t first_round, std::uint64_t round, const std::function<snapshot()>& replica) {
    bool there = false;
    for (const std::uint64_t r : log_snapshots(log_)) {
        there = there || (r >= first_round && r <= round);
        if (r < first_round) remove_snapshot(log_snapshot(log_, r));
    }
    if (!there) replica().save(log_snapshot(log_, round));
}

std::uint64_t log_keeper::advance(std::uint64_t round, std::uint64_t log_bytes,
                                  const std::function<snapshot()>& replica) {
    std::vector<std::uint64_t> at = log_snapshots(log_);
    const auto grown = [&](std::uint64_t from, std::uint64_t bytes) {
        return keep_.rounds > 0 ? round - std::min(from, round) >= keep_.rounds : log_bytes >= bytes;
    };
    if (at.empty() || keep_.all()) return 0;
    if (at.size() > 1 && grown(at[1], keep_.bytes)) {
        remove_snapshot(log_snapshot(log_, at.front()));
        at.erase(at.begin());
    }
    if (at.size() == 1 && at.front() < round && grown(at.front(), keep_.bytes / 2))
        replica().save(log_snapshot(log_, round));
    return at.front();
}

}  // namespace thinwire::launcher
