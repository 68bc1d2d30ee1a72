#include "dashboard/board.hpp"

#include "directory.hpp"
#include "event_log.hpp"
#include "watch_view.hpp"
#include <nlohmann/json.hpp>
#include <sys/resource.h>

#include <algorithm>
#include <charconv>
#include <stop_token>
#include <utility>

namespace thinwire::launcher {
namespace {

constexpr std::chrono::seconds look_every{1};
constexpr std::size_t bite = std::size_t{4} << 20U;  ///< of a file between two looks at the clock
constexpr std::size_t events_kept = 4;               ///< each reader that comes back gets a copy of what it missed
constexpr int comment_every = 15;  ///< looks without news until viewers are told that somebody is here

std::string text_of(const nlohmann::ordered_json& object) {
    return object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string framed(std::uint64_t number, const std::string& data) {
    return "id: " + std::to_string(number) + "\ndata: " + data + "\n\n";
}

std::optional<std::uint64_t> whole_number(const std::string& text) {
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return value;
}

}  // namespace

std::size_t make_room_for_viewers() {
    constexpr rlim_t others = 1024;  // files and connections of a peer
    rlimit room{};
    if (::getrlimit(RLIMIT_NOFILE, &room) != 0) return board::max_viewers / 8;
    const rlim_t wanted = board::max_viewers + others;
    if (room.rlim_cur < wanted) {
        rlimit more = room;
        more.rlim_cur = std::min(wanted, room.rlim_max);
        if (::setrlimit(RLIMIT_NOFILE, &more) == 0) room = more;
    }
    const rlim_t left = room.rlim_cur > 2 * others ? room.rlim_cur - others : room.rlim_cur / 4;
    return static_cast<std::size_t>(std::min<rlim_t>(left, board::max_viewers));
}

board::board(http_listener where, board_source source)
    : source_(std::move(source)), number_(static_cast<std::uint64_t>(unix_seconds() * 1000)) {
    if (!source_.folder.empty()) lines_.emplace(directory{source_.folder}.metrics());
    loading_ = lines_.has_value();
    http_server_limits limits;
    limits.streams = make_room_for_viewers();
    server_ = std::make_unique<http_server>(
        std::move(where), [this](const http_request& request) { return answer(request); }, limits);
    thread_ = std::jthread([this](const std::stop_token& stop) { work(stop); });
}

board::~board() {
    thread_.request_stop();
    thread_.join();
    server_.reset();  // before what it looks at
}

void board::work(const std::stop_token& stop) {
    int quiet = 0;
    while (!stop.stop_requested()) {
        const bool whole = read_folder(stop);
        if (whole) ask(stop);
        std::uint64_t before = 0;
        {
            const std::lock_guard lock(mutex_);
            before = number_;
        }
        tell();
        std::unique_lock lock(mutex_);
        quiet = number_ == before ? quiet + 1 : 0;
        if (quiet >= comment_every) {
            quiet = 0;
            const std::uint64_t number = number_;
            lock.unlock();
            server_->publish(number + 1, ": nothing new\n\n");
            lock.lock();
            number_ = number + 1;
        }
        (void)wake_.wait_for(lock, stop, look_every, [] { return false; });
    }
}

/// False when the board ends before the file does.
bool board::read_folder(const std::stop_token& stop) {
    if (!lines_) return true;
    while (!stop.stop_requested()) {
        const std::vector<nlohmann::json> lines = lines_->poll(bite);
        const std::lock_guard lock(mutex_);
        for (const nlohmann::json& line : lines) history_.take_line(line);
        if (!lines_->at_end()) continue;
        loading_ = false;
        return true;
    }
    return false;
}

void board::ask(const std::stop_token& stop) {
    std::optional<nlohmann::json> status;
    if (source_.own) {
        status = nlohmann::json::parse(source_.own(), nullptr, false);
    } else {
        std::vector<http_address> where = source_.peers;
        if (where.empty()) {
            // A peer that runs in the folder, where it says so.
            std::string line = read_text(directory{source_.folder}.status_address());
            while (!line.empty() && line.back() == '\n') line.pop_back();
            if (const auto found = parse_http_address(line)) where.push_back(*found);
        }
        for (const http_address& one : where) {
            const result<std::string> body = http_get(one, "/status", {}, stop);
            if (!body) continue;
            result<seen_status> seen = read_status(*body);
            if (!seen) continue;
            status = std::move(seen->document);
            break;
        }
    }
    const std::lock_guard lock(mutex_);
    reached_ = status.has_value() || source_.peers.empty();
    if (status)
        history_.take_status(*status, unix_seconds(), !lines_);
    else
        history_.take_silence();
}

void board::tell() {
    std::string piece;
    std::uint64_t number = 0;
    {
        const std::lock_guard lock(mutex_);
        nlohmann::ordered_json update = history_.take_update();
        if (update.is_null()) return;
        number = ++number_;
        update["reached"] = reached_;
        update["loading"] = loading_;
        piece = framed(number, text_of(update));
        recent_.emplace_back(number, piece);
        if (recent_.size() > events_kept) recent_.pop_front();
    }
    server_->publish(number, std::move(piece));
}

/// Where the reader was, as far as that is still known; else it begins again.
http_page board::events(const std::string& last) {
    const std::lock_guard lock(mutex_);
    http_page page{.type = "text/event-stream; charset=utf-8", .body = "retry: 2000\n\n"};
    page.stream_after = number_;
    const std::optional<std::uint64_t> from = whole_number(last);
    if (from && *from == number_) return page;
    const bool known = from && *from < number_ && !recent_.empty() && *from + 1 >= recent_.front().first;
    if (!known) {
        page.body += framed(number_, R"({"reset":true})");
        return page;
    }
    for (const auto& [number, piece] : recent_)
        if (number > *from) page.body += piece;
    return page;
}

http_page board::snapshot() {
    const std::lock_guard lock(mutex_);
    if (snapshot_number_ != number_) {
        nlohmann::ordered_json all = history_.snapshot();
        all["id"] = number_;
        all["loading"] = loading_;
        all["reached"] = reached_;
        snapshot_ = text_of(all) + "\n";
        snapshot_number_ = number_;
    }
    return {.type = "application/json", .body = snapshot_};
}

http_page board::answer(const http_request& request) {
    if (request.path == "/") {
        const embedded_page& page = dashboard_page();
        return {.type = "text/html; charset=utf-8", .body = page.html, .policy = page.policy};
    }
    if (request.path == "/snapshot") return snapshot();
    if (request.path == "/events") return events(request.last_event);
    if (source_.pages) return source_.pages(request.path);
    if (request.path == "/healthz") return {.body = "ok\n"};
    return {.status = 404, .body = "there are /, /snapshot and /events\n"};
}

}  // namespace thinwire::launcher
