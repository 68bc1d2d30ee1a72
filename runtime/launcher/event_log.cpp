#include "event_log.hpp"

#include <thinwire/runtime/invite.hpp>

#include "about.hpp"
#include "exit_code.hpp"
#include <spdlog/formatter.h>
#include <spdlog/sinks/rotating_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <memory>
#include <mutex>
#include <optional>
#include <set>

namespace thinwire::launcher {
namespace {

constexpr std::size_t file_bytes = 16'000'000;
constexpr std::size_t old_files = 4;

spdlog::level::level_enum spdlog_level(log_level level) {
    switch (level) {
        case log_level::debug: return spdlog::level::debug;
        case log_level::info: return spdlog::level::info;
        case log_level::warning: return spdlog::level::warn;
        case log_level::error: break;
    }
    return spdlog::level::err;
}

std::string_view name_of(log_level level) {
    switch (level) {
        case log_level::debug: return "debug";
        case log_level::info: return "info";
        case log_level::warning: return "warning";
        case log_level::error: break;
    }
    return "error";
}

log_level level_of(spdlog::level::level_enum level) {
    if (level <= spdlog::level::debug) return log_level::debug;
    if (level == spdlog::level::info) return log_level::info;
    return level == spdlog::level::warn ? log_level::warning : log_level::error;
}

/// "2026-11-25T19:35:34.123Z".
std::string utc(double time) {
    const auto milliseconds = static_cast<std::int64_t>(std::floor(time * 1000));
    const std::time_t seconds = milliseconds / 1000;
    std::tm parts{};
    (void)::gmtime_r(&seconds, &parts);
    return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", parts.tm_year + 1900, parts.tm_mon + 1,
                       parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec, milliseconds % 1000);
}

/// The one log of this process.
struct state {
    std::mutex mutex;
    std::string run, peer;
    std::optional<std::uint64_t> round;
    spdlog::level::level_enum least = spdlog::level::info;
    bool json_on_stderr = false;
    std::shared_ptr<spdlog::logger> json;   ///< none: nobody wants JSON lines
    std::set<std::filesystem::path> files;  ///< that they go to

    std::string line(double time, log_level level, std::string_view event, const std::string& message,
                     const nlohmann::json& fields) {
        const std::lock_guard lock(mutex);
        return log_line(time, level, event, message, fields, run, peer, round ? &*round : nullptr);
    }
};

state& log() {
    static state one;
    return one;
}

/// Lines that the rest of the program hands to spdlog itself, as JSON.
class json_formatter : public spdlog::formatter {
 public:
    void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
        const double time = std::chrono::duration<double>(message.time.time_since_epoch()).count();
        const std::string line =
            log().line(time, level_of(message.level), "message",
                       std::string(message.payload.data(), message.payload.size()), nlohmann::json::object());
        out.append(line.data(), line.data() + line.size());
        out.push_back('\n');
    }
    [[nodiscard]] std::unique_ptr<spdlog::formatter> clone() const override {
        return std::make_unique<json_formatter>();
    }
};

void add_json_sink(spdlog::sink_ptr sink, spdlog::level::level_enum least) {
    sink->set_pattern("%v");
    sink->set_level(least);
    state& one = log();
    if (!one.json) {
        one.json = std::make_shared<spdlog::logger>("json");
        one.json->set_level(spdlog::level::trace);
        one.json->flush_on(spdlog::level::trace);
        // A disk that is full must not end the run; people are told, once a second at most.
        one.json->set_error_handler([](const std::string& problem) {
            static std::mutex mutex;
            static std::chrono::steady_clock::time_point next;
            const std::lock_guard lock(mutex);
            const auto now = std::chrono::steady_clock::now();
            if (now < next) return;
            next = now + std::chrono::seconds(1);
            spdlog::warn("peer.log_file: {}", printable(problem));
        });
    }
    one.json->sinks().push_back(std::move(sink));
}

void write_json(log_level level, std::string_view event, const std::string& message, const nlohmann::json& fields) {
    state& one = log();
    if (!one.json) return;
    const std::string line = one.line(unix_seconds(), level, event, message, fields);
    one.json->log(spdlog_level(level), spdlog::string_view_t(line.data(), line.size()));
}

}  // namespace

void set_up_log() {
    auto logger = spdlog::stderr_color_mt("thinwire");  // the node's thread has notices
    logger->set_pattern("thinwire: %^%l%$: %v");
    logger->set_level(spdlog::level::info);
    spdlog::set_default_logger(logger);
}

void configure_log(std::string_view least, bool json) {
    state& one = log();
    one.least = spdlog::level::from_str(std::string(least));
    spdlog::set_level(one.least);
    if (!json) return;
    one.json_on_stderr = true;
    spdlog::default_logger()->set_formatter(std::make_unique<json_formatter>());
    add_json_sink(std::make_shared<spdlog::sinks::stderr_sink_mt>(), one.least);
}

void log_to_file(const std::filesystem::path& file) {
    if (log().files.contains(file)) return;
    try {
        add_json_sink(std::make_shared<spdlog::sinks::rotating_file_sink_mt>(file.string(), file_bytes, old_files),
                      std::min(log().least, spdlog::level::info));
        log().files.insert(file);
    } catch (const spdlog::spdlog_ex& problem) {
        throw io_error("peer.log_file = '" + file.string() + "': " + problem.what() + ": expected a file to append to");
    }
}

double unix_seconds() {
    return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

void log_identity(const std::string& run, const std::string& peer) {
    const std::lock_guard lock(log().mutex);
    log().run = run;
    log().peer = peer;
}

void log_round(std::uint64_t round) {
    const std::lock_guard lock(log().mutex);
    log().round = round;
}

void log_event(log_level level, std::string_view event, const std::string& message, const nlohmann::json& fields) {
    const std::string told = without_invites(message);
    if (!log().json_on_stderr) {
        const std::string visible = printable(told);
        const std::string line = clean_text(visible, visible.size());  // names of peers may turn a terminal's direction
        spdlog::log(spdlog_level(level), spdlog::string_view_t(line.data(), line.size()));
    }
    write_json(level, event, told, fields);
}

std::string without_invites(std::string text) {
    constexpr std::string_view prefix = runtime::invite::prefix;
    for (std::size_t at = text.find(prefix); at != std::string::npos; at = text.find(prefix, at)) {
        at += prefix.size();
        const std::size_t end = std::min(text.find_first_not_of(detail::base64_digits, at), text.size());
        if (end > at) text.replace(at, end - at, "...");
    }
    return text;
}

void log_note(log_level level, std::string_view event, const nlohmann::json& fields) {
    write_json(level, event, "", fields);
}

std::string log_line(double time, log_level level, std::string_view event, const std::string& message,
                     const nlohmann::json& fields, const std::string& run, const std::string& peer,
                     const std::uint64_t* round) {
    const auto text_or_null = [](const std::string& text) {
        return text.empty() ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(text);
    };
    nlohmann::ordered_json line;
    line["ts"] = utc(time);
    line["level"] = name_of(level);
    line["run"] = text_or_null(run);
    line["round"] = round != nullptr ? nlohmann::ordered_json(*round) : nlohmann::ordered_json(nullptr);
    line["peer"] = text_or_null(peer);
    line["event"] = event;
    if (!message.empty()) line["message"] = message;
    for (const auto& [name, value] : fields.items())
        if (!line.contains(name)) line[name] = value;
    return line.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}

}  // namespace thinwire::launcher
