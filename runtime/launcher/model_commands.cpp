#include <thinwire/hf/config.hpp>
#include <thinwire/hf/model.hpp>
#include <thinwire/nn/sampling.hpp>

#include "about.hpp"
#include "commands.hpp"
#include "continued_text.hpp"
#include "event_log.hpp"
#include "model_folder.hpp"
#include "replica.hpp"
#include "text.hpp"
#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numbers>

namespace thinwire::launcher {
namespace {

nn::transformer_config config_of(const std::filesystem::path& folder) {
    const std::filesystem::path file = folder / "config.json";
    const auto refuse = [&](const std::string& why, exit_code code = exit_code::storage) {
        throw launcher_error(code, "model '" + folder.string() + "': " + why);
    };
    if (!std::filesystem::exists(file))
        refuse("there is no config.json: expected a folder that `thinwire train` wrote");
    const result<nn::transformer_config> config = hf::load_config(file);
    if (!config) refuse("config.json: " + config.error().message);
    if (config->vocab_size < 256)
        refuse("vocab_size is " + std::to_string(config->vocab_size) + ": expected at least 256, one for each byte",
               exit_code::usage);
    return *config;
}

}  // namespace

model_folder::model_folder(const std::filesystem::path& folder, int threads)
    : pool_(thread_count(threads)), backend_(pool_), model_(backend_, config_of(folder)) {
    const std::filesystem::path file = folder / "model.safetensors";
    if (!std::filesystem::exists(file))
        throw launcher_error(exit_code::storage, "model '" + folder.string() + "': there is no model.safetensors");
    if (const result<ok> loaded = hf::load_weights(file, model_.parameters()); !loaded)
        throw launcher_error(exit_code::storage, "model '" + folder.string() + "': " + loaded.error().message);
}

std::string generated_text(const generate_options& options) {
    if (options.prompt.empty())
        throw launcher_error(exit_code::usage, "generate: --prompt is empty: expected at least one character");
    if (!std::isfinite(options.temperature))
        throw launcher_error(exit_code::usage, "generate: --temperature is " + std::to_string(options.temperature) +
                                                   ": expected a number in 0..100");
    model_folder folder(options.model, options.threads);
    nn::sampling_options sampling;
    sampling.temperature = static_cast<float>(options.temperature);
    sampling.top_k = options.top_k;
    sampling.seed = options.seed;
    const auto limit = static_cast<std::size_t>(folder.model().config().max_position_embeddings);
    if (options.prompt.size() >= limit)
        log_event(log_level::warning, "prompt",
                  fmt::format("the prompt has {} bytes: the model, made for {}, goes on from its last {}",
                              options.prompt.size(), limit, std::max<std::size_t>(1, limit / 2)));
    return continued_text(folder.model(), options.prompt, static_cast<std::size_t>(options.count), sampling);
}

exit_code generate(const generate_options& options) {
    std::string text = options.prompt + generated_text(options);
    // A model that has not learned much may write what a terminal takes for a command.
    if (::isatty(STDOUT_FILENO) == 1) text = clean_text(text, text.size(), true);
    fmt::print("{}\n", text);
    return exit_code::ok;
}

exit_code evaluate(const evaluate_options& options) {
    model_folder folder(options.model, options.threads);
    const std::int64_t longest = folder.model().config().max_position_embeddings;
    const std::int64_t length =
        options.sequence_length > 0 ? options.sequence_length : std::min(longest, evaluate_options::longest_unasked);
    if (length > longest)
        throw launcher_error(exit_code::usage, "eval: --sequence-length is " + std::to_string(length) +
                                                   ": expected at most " + std::to_string(longest) +
                                                   ", the model's max_position_embeddings");
    const byte_corpus corpus = load_text(options.data, length, "--data");
    const double loss = mean_loss(folder.model(), corpus.bytes(), length, options.windows);
    const std::int64_t fit = (static_cast<std::int64_t>(corpus.bytes().size()) - 1) / length;
    const std::int64_t rows = options.windows > 0 ? std::min(options.windows, fit) : fit;
    if (options.json)
        fmt::print("{}\n", nlohmann::json{{"loss", loss},
                                          {"bits_per_byte", loss / std::numbers::ln2},
                                          {"tokens", rows * length},
                                          {"sequence_length", length}}
                               .dump());
    else
        fmt::print("loss {:.4f} nats a byte ({:.4f} bits) over {} bytes in rows of {}\n", loss,
                   loss / std::numbers::ln2, rows * length, length);
    return exit_code::ok;
}

}  // namespace thinwire::launcher
