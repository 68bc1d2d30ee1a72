#include <thinwire/runtime/access.hpp>

#include "commands.hpp"
#include "directory.hpp"
#include "http.hpp"
#include "json_lines.hpp"
#include "process.hpp"
#include "progress.hpp"
#include "replica.hpp"
#include "stop_signal.hpp"
#include "text.hpp"
#include <spdlog/fmt/fmt.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string_view>
#include <thread>
#include <utility>

namespace thinwire::launcher {
namespace {

using clock = std::chrono::steady_clock;

constexpr int poll_ms = 50;
constexpr std::chrono::seconds too_late_after{10};

/// A peer as its parent handles it.
struct child {
    std::size_t index = 0;
    directory where;
    std::unique_ptr<json_lines_follower> metrics;
    std::unique_ptr<process> running;
    std::uint64_t killed_at = 0, returned_at = 0;
    bool killed = false, returned = false;
    bool too_late = false;          ///< it came back when the others had ended
    bool began = false;             ///< its process takes part
    bool trained = false;           ///< it has had a round in this part of the run
    std::uint64_t sent_before = 0;  ///< rounds, in an earlier part of the run
    int code = 0;
};

/// The last line that a child wrote: what it died of.
std::string last_line(const std::filesystem::path& file) {
    std::string content = read_text(file);
    while (!content.empty() && content.back() == '\n') content.pop_back();
    const std::size_t begin = content.rfind('\n');
    if (begin != std::string::npos) content.erase(0, begin + 1);
    constexpr std::string_view prefix = "thinwire: error: ";
    return content.starts_with(prefix) ? content.substr(prefix.size()) : content;
}

/// The peers of one run, from their start to their end.
class crew {
 public:
    crew(const configuration& settings, std::int64_t peers, std::string title);

    /// Starts founder and joiners. Returns once all were started.
    void launch();
    /// Follows them until all have ended. `kill_and_return`: SIGKILL for the last one after a third of the rounds,
    /// and its return after half of them.
    void follow(bool kill_and_return);

    [[nodiscard]] const std::vector<peer_progress>& peers() const noexcept { return progress_; }
    [[nodiscard]] const std::vector<child>& children() const noexcept { return children_; }
    /// ok, or the code of the first peer that failed.
    [[nodiscard]] exit_code outcome() const noexcept { return outcome_; }
    /// What went wrong first; empty: nothing.
    [[nodiscard]] const std::string& failure() const noexcept { return failure_; }
    /// Of all parts of the run, up to the founder's last round.
    [[nodiscard]] double seconds() const noexcept { return progress_.front().seconds; }

 private:
    void introduce();
    void start_founder();
    void start_joiner(std::size_t index);
    [[nodiscard]] std::vector<std::string> common_arguments(std::size_t index) const;
    void collect();
    void reap(std::size_t index);
    [[nodiscard]] bool pointless_without(std::size_t index) const;
    void interrupt_all();
    void kill_or_return();
    void end_who_is_too_late();

    configuration settings_;
    std::vector<child> children_;
    std::vector<peer_progress> progress_;
    progress_display display_;
    std::string address_;
    exit_code outcome_ = exit_code::ok;
    std::string failure_;
    bool interrupted_ = false;
    std::uint64_t alone_in_ = 0;  ///< the round of a peer that came back, and since when it is alone there
    clock::time_point alone_since_{};
};

crew::crew(const configuration& settings, std::int64_t peers, std::string title)
    : settings_(settings),
      display_(::isatty(STDOUT_FILENO) == 1, static_cast<std::uint64_t>(settings.run.rounds), std::move(title)) {
    for (std::size_t i = 0; i < static_cast<std::size_t>(peers); ++i) {
        child one;
        one.index = i;
        one.where.root = settings.peer.directory;
        if (i > 0) one.where.root = one.where.peers() / std::to_string(i);
        make_directory(one.where.root);
        one.metrics = std::make_unique<json_lines_follower>(one.where.metrics());
        children_.push_back(std::move(one));
        progress_.emplace_back().name = fmt::format("peer{}", i);
    }
    // An earlier part of the same run counts.
    for (std::size_t i = 0; i < children_.size(); ++i) {
        for (const auto& event : children_[i].metrics->poll()) progress_[i].take(event);
        children_[i].sent_before = progress_[i].rounds_sent;
        progress_[i].state = "starting";
    }
    if (!settings_.peer.plaintext) introduce();
}

/// Makes the peers' keys and puts them on each other's lists: here they need no invites.
void crew::introduce() {
    const auto let_in = [](const directory& where, const runtime::public_key& key, const std::string& name) {
        runtime::access_list list(where.access());
        if (list.rules().find(key) == nullptr) list.allow(key, name);
    };
    const directory& founder = children_.front().where;
    const auto founder_key = own_identity(founder).key();
    for (std::size_t i = 1; i < children_.size(); ++i) {
        const directory& joiner = children_[i].where;
        let_in(founder, own_identity(joiner).key(), progress_[i].name);
        let_in(joiner, founder_key, progress_.front().name);
    }
}

std::vector<std::string> crew::common_arguments(std::size_t index) const {
    std::vector<std::string> arguments = {"--peer.name",      progress_[index].name,
                                          "--peer.threads",   std::to_string(settings_.peer.threads),
                                          "--peer.directory", children_[index].where.root.string()};
    // One port serves one peer: the founder's is peer.status, the others take any. One page shows them all.
    if (const auto status = parse_http_address(settings_.peer.status); status && index > 0)
        arguments.insert(arguments.end(), {"--peer.status", http_address{status->host, 0}.text()});
    if (index > 0) arguments.insert(arguments.end(), {"--peer.dashboard", "", "--peer.tensorboard", ""});
    return arguments;
}

void crew::start_founder() {
    child& founder = children_.front();
    std::error_code ignored;
    std::filesystem::remove(founder.where.address(), ignored);
    std::vector<std::string> arguments = {"start", founder.where.settings().string()};
    for (auto& argument : common_arguments(0)) arguments.push_back(std::move(argument));
    founder.running = std::make_unique<process>(arguments, founder.where.output());
    while (address_.empty()) {
        wait_for_signal(poll_ms);
        reap(0);
        if (!founder.running || stop_requested()) return;
        address_ = read_text(founder.where.address());
    }
    while (!address_.empty() && address_.back() == '\n') address_.pop_back();
}

void crew::start_joiner(std::size_t index) {
    std::vector<std::string> arguments = {"join", address_, "--config", children_.front().where.settings().string()};
    for (auto& argument : common_arguments(index)) arguments.push_back(std::move(argument));
    children_[index].running = std::make_unique<process>(arguments, children_[index].where.output());
    progress_[index].state = "starting";
}

void crew::launch() {
    start_founder();
    if (address_.empty()) return;
    for (std::size_t i = 1; i < children_.size(); ++i) start_joiner(i);
}

void crew::reap(std::size_t index) {
    child& one = children_[index];
    if (!one.running) return;
    const std::optional<int> code = one.running->ended();
    if (!code) return;
    one.running.reset();
    one.code = *code;
    progress_[index].state = *code == 0 ? "ended" : "failed";
    if (*code == 0) return;
    const std::string line =
        fmt::format("{} failed with exit code {}: {}", progress_[index].name, *code, last_line(one.where.output()));
    display_.announce(line);
    const bool ours = *code > 0 && *code <= static_cast<int>(exit_code::not_finite);
    if (outcome_ == exit_code::ok) {
        outcome_ = ours ? static_cast<exit_code>(*code) : exit_code::failed;
        failure_ = line;
    }
    if (pointless_without(index)) interrupt_all();
}

/// Without the founder the others would only look for it; before its first round it waits for each of them.
bool crew::pointless_without(std::size_t index) const {
    return index == 0 || (children_.front().running && !children_.front().trained);
}

/// Once: a second signal would end them at once.
void crew::interrupt_all() {
    if (std::exchange(interrupted_, true)) return;
    for (child& one : children_)
        if (one.running) one.running->interrupt();
}

void crew::collect() {
    for (std::size_t i = 0; i < children_.size(); ++i) {
        reap(i);
        for (const auto& event : children_[i].metrics->poll()) {
            progress_[i].take(event);
            children_[i].began = true;
            children_[i].trained = children_[i].trained || event.value("event", "") == "round";
            if (!children_[i].running) progress_[i].state = children_[i].code == 0 ? "ended" : "failed";
        }
    }
}

void crew::kill_or_return() {
    const std::size_t index = children_.size() - 1;
    child& one = children_[index];
    const std::uint64_t now = progress_.front().round;
    const auto rounds = static_cast<std::uint64_t>(settings_.run.rounds);
    if (!one.killed && one.running && now >= rounds / 3 && progress_[index].rounds_sent > one.sent_before) {
        one.running->kill();
        one.running.reset();
        one.killed = true;
        one.killed_at = now;
        for (const auto& event : one.metrics->poll()) progress_[index].take(event);
        progress_[index].state = "killed";
        display_.announce(fmt::format("{}: SIGKILL in round {}", progress_[index].name, now));
    } else if (one.killed && !one.returned && children_.front().running && now >= rounds / 2) {
        start_joiner(index);
        one.returned = true;
        one.returned_at = now;
        display_.announce(fmt::format("{}: started again in round {}", progress_[index].name, now));
    }
}

/// Who comes back when the others have ended would look for them for peer.reconnect_timeout_ms.
void crew::end_who_is_too_late() {
    child& one = children_.back();
    const bool alone = one.returned && one.running &&
                       std::none_of(children_.begin(), children_.end() - 1,
                                    [](const child& other) { return other.running != nullptr; });
    const std::uint64_t round = progress_.back().round;
    if (!alone || round != alone_in_) {
        alone_in_ = round;
        alone_since_ = clock::now();
    } else if (!one.too_late && clock::now() - alone_since_ > too_late_after) {
        one.too_late = true;
        one.running->interrupt();
        display_.announce(fmt::format("{}: came back when the others had ended, and ends too", progress_.back().name));
    }
}

void crew::follow(bool kill_and_return) {
    const auto running = [](const child& one) { return one.running != nullptr; };
    while (std::any_of(children_.begin(), children_.end(), running)) {
        wait_for_signal(poll_ms);
        collect();
        if (stop_requested() && !interrupted_) {
            display_.announce("stopping after this round; Ctrl-C again stops at once");
            interrupt_all();
        }
        if (kill_and_return && !interrupted_) kill_or_return();
        end_who_is_too_late();
        display_.show(progress_);
    }
    collect();
    display_.show(progress_, true);
}

nlohmann::json peer_report(const crew& run, std::size_t index) {
    const peer_progress& p = run.peers()[index];
    const child& one = run.children()[index];
    return {{"name", p.name},
            {"round", p.round},
            {"rounds_sent", p.rounds_sent},
            {"tokens", p.tokens},
            {"payload_bytes", p.payload_bytes},
            {"wire_bytes_sent", p.wire_sent()},
            {"wire_bytes_received", p.wire_received()},
            {"replica_digest", p.digest},
            {"exit_code", one.code}};
}

nlohmann::json optional_number(const std::optional<double>& value) {
    return value ? nlohmann::json(*value) : nlohmann::json(nullptr);
}

nlohmann::json make_report(const crew& run, const configuration& settings) {
    nlohmann::json report;
    std::uint64_t payload_bytes = 0;
    std::uint64_t dense_bytes = 0;
    std::uint64_t disagreeing = 0;
    double tokens = 0;
    bool equal = true;
    bool diverged = false;
    const auto& peers = run.peers();
    for (std::size_t i = 0; i < peers.size(); ++i) {
        report["peers"].push_back(peer_report(run, i));
        payload_bytes += peers[i].payload_bytes;
        dense_bytes += peers[i].rounds_sent * peers.front().parameters * 4;
        disagreeing += peers[i].disagreeing;
        tokens += static_cast<double>(peers[i].tokens);
        const bool same = !peers[i].digest.empty() && peers[i].digest == peers.front().digest;
        equal = equal && same;
        // A peer that ended in another round is only behind.
        diverged = diverged || (!same && !peers[i].digest.empty() && peers[i].round == peers.front().round);
    }
    report["parameters"] = peers.front().parameters;
    report["rounds"] = settings.run.rounds;
    report["rounds_done"] = peers.front().round;
    report["seconds"] = run.seconds();
    report["tokens_per_second"] = run.seconds() > 0 ? tokens / run.seconds() : 0.0;
    report["validation_loss"] = {{"start", optional_number(peers.front().first_evaluation)},
                                 {"final", optional_number(peers.front().last_evaluation)},
                                 {"solo", nullptr}};
    report["bytes"] = {
        {"payloads", payload_bytes},
        {"dense_float32", dense_bytes},
        {"ratio", payload_bytes > 0 ? static_cast<double>(dense_bytes) / static_cast<double>(payload_bytes) : 0.0}};
    report["digests_equal"] = equal;
    report["diverged"] = diverged;
    report["disagreeing"] = disagreeing;
    const child& last = run.children().back();
    if (last.killed)
        report["kill_and_return"] = {{"peer", peers.back().name},
                                     {"killed_in_round", last.killed_at},
                                     {"returned", last.returned},
                                     {"returned_in_round", last.returned_at},
                                     {"too_late", last.too_late}};
    return report;
}

std::string loss_text(const nlohmann::json& value) {
    return value.is_number() ? fmt::format("{:.4f}", value.get<double>()) : "not measured";
}

void print_report(const nlohmann::json& report) {
    const auto& loss = report["validation_loss"];
    const auto& bytes = report["bytes"];
    fmt::print("\nrounds             {} of {} in {:.1f} s, {:.0f} tokens/s, {} parameters\n",
               report["rounds_done"].get<std::uint64_t>(), report["rounds"].get<std::uint64_t>(),
               report["seconds"].get<double>(), report["tokens_per_second"].get<double>(),
               report["parameters"].get<std::uint64_t>());
    fmt::print("validation loss    start {}, now {}; one peer alone on as many tokens a peer: {}\n",
               loss_text(loss["start"]), loss_text(loss["final"]), loss_text(loss["solo"]));
    fmt::print("bytes sent         {} in payloads; dense float32 gradients: {}, {:.0f} times as many\n",
               human_bytes(bytes["payloads"].get<double>()), human_bytes(bytes["dense_float32"].get<double>()),
               bytes["ratio"].get<double>());
    if (report.contains("kill_and_return")) {
        const auto& event = report["kill_and_return"];
        fmt::print("kill and return    {} killed in round {}, {}\n", event["peer"].get<std::string>(),
                   event["killed_in_round"].get<std::uint64_t>(),
                   event["returned"].get<bool>()
                       ? fmt::format("started again in round {}", event["returned_in_round"].get<std::uint64_t>())
                       : "not started again");
    }
    for (const auto& peer : report["peers"])
        fmt::print("replica digest     {} {}\n", peer["replica_digest"].get<std::string>(),
                   peer["name"].get<std::string>());
    fmt::print("replicas           {}\n", report["digests_equal"].get<bool>() ? "equal"
                                          : report["diverged"].get<bool>()    ? "NOT EQUAL"
                                                                              : "not all in the same round");
    if (report.contains("sample"))
        fmt::print("sample\n{}{}\n", report["sample"]["prompt"].get<std::string>(),
                   report["sample"]["text"].get<std::string>());
    std::fflush(stdout);
}

/// The file that the children of a run read: everything that the parent was told.
void write_settings(const configuration& settings) {
    make_directory(settings.peer.directory);
    write_text(directory{settings.peer.directory}.settings(), full_toml(settings));
}

/// One peer alone, on the rows that peer 0 of the run trained on.
std::pair<exit_code, std::string> train_alone(configuration settings, nlohmann::json& report) {
    settings.peer.directory = directory{settings.peer.directory}.solo().string();
    settings.peer.dashboard.clear();
    settings.peer.tensorboard.clear();
    settings.run.id.clear();  // a run of its own, which draws it or goes on with what it drew
    settings.run.min_peers = 1;
    settings.peer.threads = 0;  // all processors, which the peers of the run shared; results do not depend on it
    write_settings(settings);
    crew alone(settings, 1, "alone");
    alone.launch();
    alone.follow(false);
    if (alone.outcome() == exit_code::ok && !stop_requested())
        report["validation_loss"]["solo"] = optional_number(alone.peers().front().last_evaluation);
    return {alone.outcome(), alone.failure()};
}

void add_sample(const configuration& settings, const std::string& prompt, nlohmann::json& report) {
    generate_options options;
    options.model = settings.peer.directory;
    options.prompt = prompt;
    options.seed = static_cast<std::uint64_t>(settings.run.seed);
    std::string sample = generated_text(options);
    // A model that has not learned much may write what a terminal takes for a command.
    std::replace_if(
        sample.begin(), sample.end(),
        [](char c) { return (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t') || c == 0x7f; }, '?');
    report["sample"] = {{"prompt", prompt}, {"text", sample}};
}

/// Fills in what the number of peers, the machine, the text and a run that is already in DIR decide.
void complete_settings(configuration& settings, const train_options& options) {
    const auto processors = static_cast<std::int64_t>(std::max(1U, std::thread::hardware_concurrency()));
    if (!settings.peer.contributes)
        throw launcher_error(exit_code::usage,
                             "train: peer.contributes = false: expected true, as a round here needs every peer's "
                             "gradient; `thinwire witness` follows a run");
    if (!settings.stated.contains("run.max_peers")) settings.run.max_peers = options.peers;
    if (settings.peer.threads == 0) settings.peer.threads = std::max<std::int64_t>(1, processors / options.peers);
    settings.peer.name.clear();
    const directory where{settings.peer.directory};
    if (std::filesystem::exists(where.lock())) {
        // Another run there must keep its settings and report; from here on the founder's process holds the lock.
        const directory_lock free(where);
    }
    const bool goes_on = std::filesystem::exists(where.snapshot());
    if (goes_on) adopt_manifest(settings, load_snapshot(where).manifest);
    if (settings.run.max_peers < options.peers)
        throw launcher_error(exit_code::usage,
                             "train: --peers " + std::to_string(options.peers) +
                                 ": expected at most run.max_peers = " + std::to_string(settings.run.max_peers));
    settings.run.min_peers = options.peers;
    check(settings);
    text corpus(settings);
    if (goes_on) corpus.require_digest(settings.data.train_digest);
    corpus.divide(settings);
    settings.data.train = std::filesystem::absolute(settings.data.train).string();
    if (!settings.data.valid.empty()) settings.data.valid = std::filesystem::absolute(settings.data.valid).string();
    settings.data.train_digest = corpus.train_digest();
}

}  // namespace

exit_code train(configuration settings, const train_options& options) {
    if (options.kill_and_return && options.peers < 2)
        throw launcher_error(exit_code::usage, "command line: --kill-and-return with --peers " +
                                                   std::to_string(options.peers) + ": expected at least 2 peers");
    if (options.prompt.empty())
        throw launcher_error(exit_code::usage, "train: --prompt is empty: expected at least one character");
    complete_settings(settings, options);
    write_settings(settings);

    crew run(settings, options.peers, "training");
    run.launch();
    run.follow(options.kill_and_return);
    // A run that never began leaves the report of an earlier part as it is.
    if (!run.children().front().began && run.outcome() != exit_code::ok)
        throw launcher_error(run.outcome(), "train: " + run.failure());
    nlohmann::json report = make_report(run, settings);
    exit_code code = run.outcome();
    std::string failure = run.failure();
    const bool complete = code == exit_code::ok && !stop_requested();
    if (complete && options.solo) {
        const auto [outcome, why] = train_alone(settings, report);
        code = outcome;
        failure = why;
    }
    if (run.outcome() == exit_code::ok) add_sample(settings, options.prompt, report);
    if (code == exit_code::ok && report["diverged"].get<bool>()) {
        code = exit_code::diverged;
        failure = "peers that ended in the same round have different replicas";
    } else if (code == exit_code::ok && complete && !report["digests_equal"].get<bool>()) {
        code = exit_code::failed;
        failure = run.children().back().killed
                      ? "the peer that was killed did not come back before the run was over: expected more rounds, or "
                        "longer ones (--run.min_round_ms)"
                      : "not all peers reached the last round";
    }
    report["exit_code"] = static_cast<int>(code);
    const directory where{settings.peer.directory};
    write_text(where.report(), report.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
    print_report(report);
    if (code != exit_code::ok) throw launcher_error(code, "train: " + failure);
    return code;
}

}  // namespace thinwire::launcher
