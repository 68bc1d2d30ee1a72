// Validation loss at equal tokens, beside the bytes sent: the launcher's model, text, optimizer and schedule, all peers
// in one process in lockstep, so that a busy machine cannot change the result. usage: benchmark_quality --data.train
// FILE [--peers N] [--json FILE] [--KEY VALUE ...]   (keys: thinwire keys)

#include <thinwire/io/batch_sampler.hpp>

#include "exit_code.hpp"
#include "json_lines.hpp"
#include "peer.hpp"
#include "replica.hpp"
#include "text.hpp"

#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace thinwire;

struct arguments {
    launcher::configuration settings;
    int peers = 4;
    std::string json;
};

arguments parse(int count, char** words) {
    arguments parsed;
    parsed.settings.peer.threads = 1;
    for (int i = 1; i < count; i += 2) {
        const std::string_view name(words[i]);
        if (i + 1 == count || !name.starts_with("--"))
            throw launcher::launcher_error(launcher::exit_code::usage,
                                           "'" + std::string(name) + "': expected --KEY VALUE");
        if (name == "--peers")
            parsed.peers = std::stoi(words[i + 1]);
        else if (name == "--json")
            parsed.json = words[i + 1];
        else
            launcher::set_key(parsed.settings, name.substr(2), words[i + 1]);
    }
    return parsed;
}

/// One round of all peers: their mean training loss; adds the bytes of their payloads.
double step(std::vector<std::unique_ptr<launcher::replica>>& peers, const launcher::configuration& settings,
            const batch_sampler& sampler, std::uint64_t round, std::size_t& bytes) {
    const auto rows = static_cast<std::uint64_t>(settings.run.batch_size);
    std::vector<std::int32_t> tokens(rows * sampler.sequence_length()), targets(tokens.size());
    std::vector<contribution> contributions;
    double loss = 0;
    for (std::size_t p = 0; p < peers.size(); ++p) {
        sampler.fill(round, p * rows, tokens, targets);
        peers[p]->zero_gradient();
        loss += static_cast<double>(peers[p]->loss_and_gradient(tokens, targets, static_cast<int>(rows)));
        peers[p]->optimizer().set_learning_rate(launcher::schedule_of(settings).at(round));
        contributions.push_back({.peer = p, .payload = peers[p]->optimizer().begin_step(p)});
        bytes += contributions.back().payload.size();
    }
    const commit agreed = {.round = round, .contributions = contributions};
    for (const auto& peer : peers) peer->optimizer().end_step({&agreed, 1});
    return loss / static_cast<double>(peers.size());
}

void run(const arguments& asked) {
    const launcher::configuration& settings = asked.settings;
    const launcher::text text(settings);
    std::vector<std::unique_ptr<launcher::replica>> peers;
    for (int p = 0; p < asked.peers; ++p) {
        peers.push_back(std::make_unique<launcher::replica>(settings));
        peers.back()->begin();
    }
    const batch_sampler sampler(text.train(),
                                {.sequence_length = static_cast<std::size_t>(settings.data.sequence_length),
                                 .slots_per_round = static_cast<std::uint64_t>(asked.peers * settings.run.batch_size),
                                 .seed = static_cast<std::uint64_t>(settings.run.seed)});
    std::optional<launcher::json_lines_writer> lines;
    if (!asked.json.empty()) lines.emplace(asked.json);
    const double dense = 4.0 * static_cast<double>(peers[0]->parameter_count());
    std::size_t bytes = 0;
    const auto rounds = static_cast<std::uint64_t>(settings.run.rounds);
    for (std::uint64_t round = 0; round < rounds; ++round) {
        const double loss = step(peers, settings, sampler, round, bytes);
        if ((round + 1) % static_cast<std::uint64_t>(settings.run.eval_every) != 0 && round + 1 != rounds) continue;
        const double validation = peers[0]->evaluate(text.validation(), settings.run.eval_windows);
        const double sent = static_cast<double>(bytes) / static_cast<double>((round + 1) * peers.size());
        std::printf("round %5llu  loss %.4f  validation %.4f  %9.0f bytes a peer and round, dense/sent %6.1f\n",
                    static_cast<unsigned long long>(round + 1), loss, validation, sent, dense / sent);
        std::fflush(stdout);
        if (lines)
            lines->write({{"round", round + 1},
                          {"loss", loss},
                          {"validation", validation},
                          {"bytes", sent},
                          {"dense_over_sent", dense / sent}});
    }
    for (const auto& peer : peers)
        if (peer->optimizer().replica_digest() != peers[0]->optimizer().replica_digest())
            throw launcher::launcher_error(launcher::exit_code::diverged, "benchmark_quality: replicas differ");
}

}  // namespace

int main(int count, char** words) {
    try {
        run(parse(count, words));
    } catch (const std::exception& problem) {
        std::fprintf(stderr, "benchmark_quality: %s\n", problem.what());
        return 1;
    }
}
