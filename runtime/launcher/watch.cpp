#include "commands.hpp"
#include "directory.hpp"
#include "http.hpp"
#include "stop_signal.hpp"
#include "watch_view.hpp"
#include <spdlog/fmt/fmt.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <mutex>
#include <stop_token>
#include <thread>
#include <utility>

namespace thinwire::launcher {
namespace {

constexpr std::chrono::seconds interval{1};
constexpr std::size_t most_watched = 16;

/// Asks one peer once a second, on a thread of its own: one that answers slowly holds up no other.
class follower {
 public:
    explicit follower(const std::string& where) : where_(where) {
        if (const auto address = parse_http_address(where); address && !std::filesystem::is_directory(where))
            address_ = *address;
        else if (!std::filesystem::is_directory(where))
            throw launcher_error(exit_code::usage, "watch: '" + printable(where) +
                                                       "': expected HOST:PORT, or the folder of a peer whose "
                                                       "peer.status is set");
        seen_.address = terminal_text(where, 60);
        seen_.problem = "not asked yet";
        thread_ = std::jthread([this](const std::stop_token& stop) { follow(stop); });
    }

    [[nodiscard]] watched seen() const {
        const std::lock_guard lock(mutex_);
        return seen_;
    }
    [[nodiscard]] bool asked() const {
        const std::lock_guard lock(mutex_);
        return asked_;
    }
    void stop() { thread_.request_stop(); }

 private:
    void follow(const std::stop_token& stop) {
        while (!stop.stop_requested()) {
            result<seen_status> got = ask(stop);
            std::unique_lock lock(mutex_);
            asked_ = true;
            seen_.problem = got ? "" : got.error().message;
            if (got) seen_.status = std::move(*got);
            (void)wake_.wait_for(lock, stop, interval, [] { return false; });
        }
    }

    [[nodiscard]] result<seen_status> ask(const std::stop_token& stop) const {
        std::optional<http_address> address = address_;
        if (!address) {
            // Asked each time: a peer that is started again may have another port.
            std::string line = read_text(directory{where_}.status_address());
            while (!line.empty() && line.back() == '\n') line.pop_back();
            if (line.empty())
                return failure{errc::malformed, "no status.address there: not running, or without --status"};
            const result<http_address> found = parse_http_address(line);
            if (!found) return failure{errc::malformed, "status.address there is damaged"};
            address = *found;
        }
        const result<std::string> body = http_get(*address, "/status", {}, stop);
        if (!body) return body.error();
        return read_status(*body);
    }

    std::string where_;
    std::optional<http_address> address_;  ///< none: in the folder
    mutable std::mutex mutex_;
    std::condition_variable_any wake_;
    watched seen_;
    bool asked_ = false;
    std::jthread thread_;
};

std::vector<watched> all_of(const std::vector<std::unique_ptr<follower>>& followers) {
    std::vector<watched> all;
    all.reserve(followers.size());
    for (const auto& one : followers) all.push_back(one->seen());
    return all;
}

struct screen {
    std::size_t width = 80;
    std::size_t height = 24;
};

screen screen_size() {
    winsize size{};
    if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0) return {};
    return {std::max<std::size_t>(size.ws_col, 20), std::max<std::size_t>(size.ws_row, 4)};
}

/// Writes each look at the peers in the form that was asked for.
class output {
 public:
    output(bool json, bool redraw, bool table) : json_(json), redraw_(redraw), table_(table) {}

    void show(const std::vector<watched>& all) {
        if (json_)
            fmt::print("{}\n", to_json(all).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace));
        else if (table_)
            show_table(all);
        else
            show_change(all);
        std::fflush(stdout);
    }

 private:
    void show_table(const std::vector<watched>& all) {
        const screen size = redraw_ ? screen_size() : screen{.width = 80, .height = 4096 + 8};
        // A line as wide as the screen would wrap on some terminals, a last line scroll.
        const std::vector<std::string> lines = draw(all, std::min<std::size_t>(size.width, 80) - 1, size.height - 1);
        if (drawn_ > 0) fmt::print("\x1b[{}A\x1b[J", drawn_);
        for (const std::string& line : lines) fmt::print("{}\n", line);
        drawn_ = redraw_ ? lines.size() : 0;
    }
    void show_change(const std::vector<watched>& all) {
        std::string line = change_line(all);
        if (line == said_) return;
        fmt::print("{}\n", line);
        said_ = std::move(line);
    }

    bool json_, redraw_, table_;
    std::size_t drawn_ = 0;
    std::string said_;
};

}  // namespace

exit_code watch(const watch_options& options) {
    if (options.where.size() > most_watched)
        throw launcher_error(exit_code::usage, "watch: " + std::to_string(options.where.size()) +
                                                   " peers: expected at most " + std::to_string(most_watched));
    std::vector<std::unique_ptr<follower>> followers;
    for (const std::string& where : options.where) followers.push_back(std::make_unique<follower>(where));
    const bool terminal = ::isatty(STDOUT_FILENO) == 1;
    output to(options.json, terminal && !options.once, terminal || options.once);
    const auto all_asked = [&] {
        return std::all_of(followers.begin(), followers.end(), [](const auto& one) { return one->asked(); });
    };
    while (!stop_requested() && !all_asked()) wait_for_signal(10);
    while (!stop_requested()) {
        const std::vector<watched> all = all_of(followers);
        to.show(all);
        if (options.once) {
            const auto answered = [](const watched& one) { return one.problem.empty(); };
            return std::all_of(all.begin(), all.end(), answered) ? exit_code::ok : exit_code::network;
        }
        wait_for_signal(static_cast<int>(std::chrono::milliseconds(interval).count()));
    }
    for (const auto& one : followers) one->stop();
    return exit_code::ok;
}

}  // namespace thinwire::launcher
