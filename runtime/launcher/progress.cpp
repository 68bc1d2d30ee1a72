#include "progress.hpp"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <utility>

namespace thinwire::launcher {
namespace {

/// A number of an event; 0 when it is missing or null.
double number(const nlohmann::json& event, const char* name) {
    const auto found = event.find(name);
    return found != event.end() && found->is_number() ? found->get<double>() : 0.0;
}

std::uint64_t count(const nlohmann::json& event, const char* name) {
    const double value = number(event, name);
    return value > 0 ? static_cast<std::uint64_t>(value) : 0;
}

std::string human_rate(double per_second) {
    return per_second >= 10000 ? fmt::format("{:.1f}k", per_second / 1000) : fmt::format("{:.0f}", per_second);
}

}  // namespace

void peer_progress::take(const nlohmann::json& event) {
    const std::string kind = event.value("event", "");
    const double time = number(event, "time");
    if (kind == "round" && time > last_time_ && last_time_ > 0) seconds += time - last_time_;
    if (kind == "start" || kind == "round") last_time_ = time;
    if (kind == "start") {
        if (const std::string of = event.value("run", ""); of != run_) {
            if (!run_.empty()) {  // what DIR held before was another run
                peer_progress fresh;
                fresh.name = std::move(name);
                *this = std::move(fresh);
            }
            run_ = of;
            last_time_ = time;
        }
        digest.clear();
        sent_before_ += std::exchange(sent_now_, 0);
        received_before_ += std::exchange(received_now_, 0);
        parameters = count(event, "parameters");
        round = count(event, "round");
        state = "training";
    } else if (kind == "round") {
        round = count(event, "round") + 1;
        if (event.contains("loss") && event["loss"].is_number()) loss = number(event, "loss");
        tokens_per_second = number(event, "tokens_per_second");
        contributors = static_cast<int>(number(event, "contributors"));
        ++rounds_sent;
        payload_bytes += count(event, "payload_bytes");
        tokens += count(event, "tokens");
        disagreeing += count(event, "disagreeing");
        sent_now_ = count(event, "bytes_sent");
        received_now_ = count(event, "bytes_received");
    } else if (kind == "evaluation") {
        last_evaluation = number(event, "loss");
        last_evaluation_round = count(event, "round");
        if (!first_evaluation) first_evaluation = last_evaluation;
    } else if (kind == "end") {
        round = count(event, "round");
        digest = event.value("replica_digest", "");
        sent_now_ = count(event, "bytes_sent");
        received_now_ = count(event, "bytes_received");
    }
}

std::string human_bytes(double bytes) {
    constexpr std::array<const char*, 5> units = {"B", "kB", "MB", "GB", "TB"};
    std::size_t unit = 0;
    while (bytes >= 1000 && unit + 1 < units.size()) {
        bytes /= 1000;
        ++unit;
    }
    return unit == 0 ? fmt::format("{:.0f} B", bytes) : fmt::format("{:.1f} {}", bytes, units[unit]);
}

progress_display::progress_display(bool terminal, std::uint64_t rounds, std::string title)
    : terminal_(terminal), rounds_(rounds), title_(std::move(title)) {}

void progress_display::erase() {
    if (drawn_ > 0) fmt::print("\x1b[{}A\x1b[J", drawn_);
    drawn_ = 0;
}

void progress_display::announce(const std::string& line) {
    erase();
    fmt::print("{}\n", line);
    std::fflush(stdout);
    next_ = {};
}

void progress_display::show(const std::vector<peer_progress>& peers, bool last) {
    const auto now = std::chrono::steady_clock::now();
    if (peers.empty() || (!last && now < next_)) return;
    next_ = now + std::chrono::milliseconds(terminal_ ? 200 : 5000);
    const peer_progress& first = peers.front();
    const auto present = std::count_if(peers.begin(), peers.end(),
                                       [](const auto& p) { return p.state == "training" || p.state == "ended"; });
    const std::string evaluation =
        first.last_evaluation
            ? fmt::format("  validation {:.4f} (round {})", *first.last_evaluation, first.last_evaluation_round)
            : "";
    const std::string pace =
        first.rounds_sent > 0 ? fmt::format("loss {:.4f}  {} tokens/s", first.loss, human_rate(first.tokens_per_second))
                              : "starting";
    const std::string summary = fmt::format("{}: round {}/{}  {}  peers {}/{}{}", title_, first.round, rounds_, pace,
                                            present, peers.size(), evaluation);
    if (!terminal_) {
        double sent = 0;
        double received = 0;
        for (const peer_progress& p : peers) {
            sent += static_cast<double>(p.wire_sent());
            received += static_cast<double>(p.wire_received());
        }
        fmt::print("{}  sent {} received {}\n", summary, human_bytes(sent), human_bytes(received));
        std::fflush(stdout);
        return;
    }
    erase();
    fmt::print("{}\n{:<12} {:>9} {:>9} {:>10} {:>10}  {}\n", summary, "peer", "round", "loss", "sent", "received",
               "state");
    for (const peer_progress& p : peers)
        fmt::print("{:<12} {:>9} {:>9} {:>10} {:>10}  {}\n", p.name, p.round,
                   p.rounds_sent > 0 ? fmt::format("{:.4f}", p.loss) : "-",
                   human_bytes(static_cast<double>(p.wire_sent())), human_bytes(static_cast<double>(p.wire_received())),
                   p.state);
    drawn_ = last ? 0 : static_cast<int>(peers.size()) + 2;
    std::fflush(stdout);
}

}  // namespace thinwire::launcher
