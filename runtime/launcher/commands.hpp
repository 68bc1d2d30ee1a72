#ifndef THINWIRE_LAUNCHER_COMMANDS_HPP
#define THINWIRE_LAUNCHER_COMMANDS_HPP

#include "configuration.hpp"
#include "exit_code.hpp"

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace thinwire::launcher {

/// `thinwire train`: spawns the peers of a run, shows them, compares with one peer alone, writes DIR/report.json.
struct train_options {
    std::int64_t peers = 4;
    bool kill_and_return = false;
    bool solo = true;
    std::string prompt = "In the beginning";
};
[[nodiscard]] exit_code train(configuration settings, const train_options& options);

/// `thinwire start`: founds the run of `settings`, or goes on with the one in peer.directory.
[[nodiscard]] exit_code start(configuration settings);

/// What `thinwire join` was given, without blanks around it; "-": the first line of the standard input that holds
/// something, which unlike an argument stands in no process list and no history.
[[nodiscard]] std::string place_to_join(const std::string& argument);

/// `thinwire join`: enters a run with the line of an invite, or goes back to a peer of it at an address.
[[nodiscard]] exit_code join(configuration settings, const std::string& where);

/// `thinwire key`: the key of a peer's folder, made where there is none, and who may connect to it.
[[nodiscard]] exit_code show_key(const std::filesystem::path& folder);
/// `thinwire allow`, `thinwire revoke`: changes that list, also while the peer runs. An empty name keeps the one that
/// the key has there.
[[nodiscard]] exit_code allow(const std::filesystem::path& folder, const std::string& key, const std::string& name);
[[nodiscard]] exit_code revoke(const std::filesystem::path& folder, const std::string& key_or_name);

struct ctl_options {
    std::filesystem::path folder;  ///< of a peer that runs on this machine
    std::string command;           ///< status, pause, resume, stop, set, remove, ban, pardon, promote
    std::string object;            ///< set: a key; the last four: a peer's number or name
    std::string value;             ///< set: empty takes back what was set
    bool json = false;
};
/// `thinwire ctl`: shows or changes the run that a peer on this machine takes part in, for all peers in one round.
[[nodiscard]] exit_code ctl(const ctl_options& options);

struct watch_options {
    std::vector<std::string> where;  ///< host:port, or the folder of a peer on this machine
    bool once = false;
    bool json = false;
};
/// `thinwire watch`: shows what peers serve at peer.status until Ctrl-C.
[[nodiscard]] exit_code watch(const watch_options& options);

struct dashboard_options {
    std::vector<std::string> where;  ///< addresses as for watch, or one folder of a peer
    std::string listen = "127.0.0.1:0";
    bool open = false;  ///< listen may be an address that other machines reach
};
/// `thinwire dashboard`: serves a page that shows a run, live or finished, until Ctrl-C.
[[nodiscard]] exit_code dashboard(const dashboard_options& options);

struct invite_options {
    std::filesystem::path folder;
    std::string expires = "24h";
    std::vector<std::string> addresses;  ///< none: where the peer listens
};
/// `thinwire invite`: prints the line with which one new machine enters.
[[nodiscard]] exit_code print_invite(const invite_options& options);

/// "90s", "30m", "24h", "7d" in seconds; launcher_error(usage) for anything else and beyond 1 s to 365 d.
[[nodiscard]] std::int64_t parse_duration(const std::string& text);

struct generate_options {
    std::filesystem::path model;
    std::string prompt;
    int count = 200;
    double temperature = 0.8;
    int top_k = 0;
    std::uint64_t seed = 0;
    int threads = 0;
};
/// The text that the model in a folder goes on with after the prompt.
[[nodiscard]] std::string generated_text(const generate_options& options);
[[nodiscard]] exit_code generate(const generate_options& options);

struct evaluate_options {
    std::filesystem::path model;
    std::string data;
    std::int64_t sequence_length = 0;  ///< 0: the model's longest, at most longest_unasked
    std::int64_t windows = 0;          ///< 0: the whole text
    int threads = 0;
    bool json = false;

    static constexpr std::int64_t longest_unasked = 1024;  ///< bytes a row, for the memory that one takes
};
[[nodiscard]] exit_code evaluate(const evaluate_options& options);

struct log_options {
    std::filesystem::path folder;  ///< of a peer, or of its log
    std::uint64_t from = 0;
    std::uint64_t to = UINT64_MAX;  ///< rounds [from, to)
    bool json = false;
    std::uint64_t round = 0;
    std::filesystem::path out;
    int threads = 0;
};
/// `thinwire log show`: one line for each round.
[[nodiscard]] exit_code show_log(const log_options& options);
/// `thinwire log verify`: reads every byte and replays every round from the log's snapshot on.
[[nodiscard]] exit_code verify_log(const log_options& options);
/// `thinwire log rebuild`: the weights after `round` commits.
[[nodiscard]] exit_code rebuild_from_log(const log_options& options);

/// `thinwire inspect`: says what a file is.
[[nodiscard]] exit_code inspect(const std::filesystem::path& file);

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_COMMANDS_HPP
