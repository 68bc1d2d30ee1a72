#ifndef THINWIRE_LAUNCHER_DASHBOARD_BOARD_HPP
#define THINWIRE_LAUNCHER_DASHBOARD_BOARD_HPP

#include "dashboard/history.hpp"
#include "http.hpp"
#include "json_lines.hpp"

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace thinwire::launcher {

/// What a board tells of.
struct board_source {
    std::filesystem::path folder{};      ///< of a peer: its metrics.jsonl is read and followed; empty: none
    std::vector<http_address> peers{};   ///< asked for /status, the first that answers
    std::function<std::string()> own{};  ///< /status of this process
    /// Pages beside the board's own.
    std::function<http_page(const std::string& path)> pages{};
};

/// A page that shows a run to people. Two threads of its own: one reads and asks, once a second; one serves.
class board {
 public:
    /// Throws launcher_error(network).
    board(http_listener where, board_source source);
    ~board();
    board(const board&) = delete;
    board& operator=(const board&) = delete;

    [[nodiscard]] const http_address& address() const noexcept { return server_->address(); }

    static constexpr std::size_t max_viewers = 2048;

 private:
    void work(const std::stop_token& stop);
    [[nodiscard]] bool read_folder(const std::stop_token& stop);
    void ask(const std::stop_token& stop);
    void tell();
    [[nodiscard]] http_page answer(const http_request& request);
    [[nodiscard]] http_page events(const std::string& last);
    [[nodiscard]] http_page snapshot();

    board_source source_;
    std::optional<json_lines_follower> lines_;
    std::vector<bool> answered_;

    std::mutex mutex_;  ///< guards what follows
    std::condition_variable_any wake_;
    history history_;
    bool loading_ = false;                                      ///< a file is not read to its end yet
    bool reached_ = false;                                      ///< somebody answers, or nobody has to
    std::uint64_t number_ = 0;                                  ///< of the newest event
    std::deque<std::pair<std::uint64_t, std::string>> recent_;  ///< events for those who lost the connection
    std::string snapshot_;                                      ///< as of snapshot_number_
    std::optional<std::uint64_t> snapshot_number_;

    std::unique_ptr<http_server> server_;
    std::jthread thread_;  ///< last: uses all of the above
};

/// The page itself: HTML with style and script in it, and the policy under which a browser may run just these.
struct embedded_page {
    std::string html, policy;
};
[[nodiscard]] const embedded_page& dashboard_page();

/// Room for as many sockets as a board may have viewers, as far as this process may ask for it; how many there are for
/// viewers, so that the peer's own files and connections find room, too.
[[nodiscard]] std::size_t make_room_for_viewers();

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_DASHBOARD_BOARD_HPP
