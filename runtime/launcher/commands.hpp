#ifndef THINWIRE_LAUNCHER_COMMANDS_HPP
#define THINWIRE_LAUNCHER_COMMANDS_HPP

#include "configuration.hpp"
#include "exit_code.hpp"

#include <cstdint>
#include <filesystem>
#include <string>

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

/// `thinwire join`: enters the run whose founder listens on peer.address.
[[nodiscard]] exit_code join(configuration settings);

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
    std::int64_t sequence_length = 0;  ///< 0: what the run was trained with, or the model's longest
    std::int64_t windows = 0;          ///< 0: the whole text
    int threads = 0;
    bool json = false;
};
[[nodiscard]] exit_code evaluate(const evaluate_options& options);

/// `thinwire inspect`: says what a file is.
[[nodiscard]] exit_code inspect(const std::filesystem::path& file);

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_COMMANDS_HPP
