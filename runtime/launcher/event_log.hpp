#ifndef THINWIRE_LAUNCHER_EVENT_LOG_HPP
#define THINWIRE_LAUNCHER_EVENT_LOG_HPP

#include <nlohmann/json.hpp>

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace thinwire::launcher {

// What a process says of itself: lines for people on stderr, and the same events as JSON objects, one a line, for
// programs. Every JSON line has ts (UTC), level, run, round, peer, event and, where there is one, message; what is not
// known yet is null. A process is one peer, so there is one log. Everything here is thread safe, except that the three
// set-up calls come before other threads.

enum class log_level : std::uint8_t { debug, info, warning, error };

/// Lines for people on stderr, from "info" on.
void set_up_log();

/// The least level that is said: "debug", "info", "warning" or "error". `json`: stderr gets JSON lines instead.
void configure_log(std::string_view least, bool json);

/// JSON lines also go to this file, from "info" on, or from "debug" on where that was asked for. It is appended to; at
/// 16 MB it is renamed, with four older ones kept. A file that they go to already gets them once. Throws io_error.
void log_to_file(const std::filesystem::path& file);

/// Seconds since 1970.
[[nodiscard]] double unix_seconds();

/// What the next lines are of.
void log_identity(const std::string& run, const std::string& peer);
void log_round(std::uint64_t round);

/// An event that people and programs are told of. `fields` is an object; members that every line has are left out. An
/// invite in the message, which is a password, is not told.
void log_event(log_level level, std::string_view event, const std::string& message,
               const nlohmann::json& fields = nlohmann::json::object());

/// An event for the JSON lines only.
void log_note(log_level level, std::string_view event, const nlohmann::json& fields);

/// A text in which "..." stands for what follows the prefix of each invite.
[[nodiscard]] std::string without_invites(std::string text);

/// The JSON line of an event, without its end. `run`, `peer`: empty is null.
[[nodiscard]] std::string log_line(double time, log_level level, std::string_view event, const std::string& message,
                                   const nlohmann::json& fields, const std::string& run, const std::string& peer,
                                   const std::uint64_t* round);

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_EVENT_LOG_HPP
