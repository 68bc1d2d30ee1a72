#include "dashboard/course.hpp"

#include "dashboard/shown.hpp"
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <utility>

namespace thinwire::launcher {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr std::size_t recent_points = 240, few_points = 16;

double ratio(double of, double to) {
    return to > 0 ? of / to : 0;
}

/// Tokens of the rounds that were told of.
double seen_tokens(const round_span& span) {
    return static_cast<double>(span.tokens) * static_cast<double>(span.seen) /
           static_cast<double>(span.last - span.first + 1);
}

/// Precondition: not empty.
round_span sum(const std::vector<round_span>& spans) {
    round_span all = spans.front();
    for (std::size_t i = 1; i < spans.size(); ++i) all.append(spans[i]);
    return all;
}

}  // namespace

std::optional<time_left> estimate(const std::vector<round_span>& recent, std::uint64_t rounds_left) {
    constexpr std::size_t windows = 20;
    std::vector<double> means;
    double seconds = 0, seen = 0;
    const std::size_t each = std::max<std::size_t>(1, recent.size() / windows);
    for (std::size_t from = recent.size() % each; from < recent.size(); from += each) {
        double part = 0, rounds = 0;
        for (std::size_t i = from; i < from + each; ++i) {
            part += recent[i].seconds;
            rounds += static_cast<double>(recent[i].seen);
        }
        if (rounds > 0) means.push_back(part / rounds);
        seconds += part;
        seen += rounds;
    }
    if (seen < 8) return std::nullopt;
    std::sort(means.begin(), means.end());
    const auto at = [&](double part) {
        return means[static_cast<std::size_t>(std::lround(part * static_cast<double>(means.size() - 1)))];
    };
    const auto left = static_cast<double>(rounds_left);
    const double mean = seconds / seen;
    return time_left{left * mean, left * std::min(mean, at(0.1)), left * std::max(mean, at(0.9))};
}

void course::take_size(const json& from) {
    if (const auto rounds = told::count(from, "rounds"); rounds > 0) rounds_ = rounds;
    if (const auto parameters = told::count(from, "parameters"); parameters > 0) parameters_ = parameters;
}

void course::begin_process() {
    sent_.see(0);
    received_.see(0);
    last_computed_ = last_waited_ = last_paused_ = 0;
    if (joules_) joules_before_ += std::exchange(*joules_, 0.0);
    counting_ = true;
}

std::optional<round_span> course::take_round(const json& line, double time, std::uint64_t looked) {
    const std::uint64_t round = told::count(line, "round");
    round_span one{.first = round, .last = round, .time = time, .seen = looked};
    const std::uint64_t sent = sent_.total(), received = received_.total();
    sent_.see(told::count(line, "bytes_sent"));
    received_.see(told::count(line, "bytes_received"));
    const double computed = told::number(line, "compute_seconds").value_or(last_computed_);
    const double waited = told::number(line, "wait_seconds").value_or(last_waited_);
    const double paused = told::number(line, "paused_seconds").value_or(last_paused_);
    newest_pause_ = counting_ ? std::max(0.0, paused - last_paused_) : 0;
    if (counting_) {
        one.sent = sent_.total() - sent;
        one.received = received_.total() - received;
        one.computed = std::max(0.0, computed - last_computed_);
        one.waited = std::max(0.0, waited - last_waited_ - newest_pause_);
    }
    counting_ = true;
    last_computed_ = computed;
    last_waited_ = waited;
    last_paused_ = paused;
    one.tokens = told::count(line, "round_tokens");
    one.seconds = std::max(0.0, told::number(line, "seconds").value_or(0) - newest_pause_);
    contributors_ = told::count(line, "contributors");
    one.contributions = contributors_ * looked;
    agreeing_ = told::count(line, "agreeing");
    one.disagreeing = disagreeing_ = told::count(line, "disagreeing");
    if (const auto loss = told::number(line, "loss")) {
        one.loss.add(*loss);
        if (!first_loss_) first_loss_ = loss;
        own_tokens_ += told::count(line, "tokens");
    }
    return add(one);
}

/// Rounds that were not told of lie before `span`; they had as many tokens.
std::optional<round_span> course::add(round_span span) {
    const std::uint64_t from = last_round_ ? *last_round_ + 1 : 0;
    if (last_round_ && span.last < from) return std::nullopt;
    span.tokens *= span.last - from + 1;
    span.first = from;
    if (total_.seen == 0)
        total_ = span;
    else
        total_.append(span);
    spans_.add(span);
    last_round_ = span.last;
    reach(span.last + 1);
    return span;
}

void course::take_replica(const json& from, const char* digest) {
    replica_ = told::text(from, digest, 64);
    replica_round_ = told::count(from, "round");
}

void course::take_energy(double joules, std::optional<std::uint64_t> tokens) {
    if (tokens) own_tokens_ = *tokens;
    joules_ = joules;
    joule_tokens_ = own_tokens_;
}

void course::reach(std::uint64_t round) {
    round_ = std::max(round_, round);
}

ordered_json course::progress(bool ended) const {
    const std::vector<round_span> recent = spans_.newest(recent_points), few = spans_.newest(few_points);
    ordered_json out;
    out["round"] = round_;
    out["rounds"] = rounds_;
    out["tokens"] = total_.tokens;
    out["first_loss"] = shown::rounded(first_loss_);
    const std::uint64_t left = rounds_ > round_ ? rounds_ - round_ : 0;
    if (recent.empty()) return out;
    const round_span newest = sum(recent), now = sum(few);
    const double each = ratio(seen_tokens(newest), static_cast<double>(newest.seen));
    out["tokens_total"] = std::round(static_cast<double>(total_.tokens) + each * static_cast<double>(left));
    out["tokens_per_second"] = shown::rounded(ratio(seen_tokens(now), now.seconds));
    out["tokens_per_second_run"] = shown::rounded(ratio(seen_tokens(total_), total_.seconds));
    if (const auto time = estimate(recent, left); time && !ended && left > 0) {
        out["left_seconds"] = shown::rounded(time->seconds);
        out["left_low"] = shown::rounded(time->low);
        out["left_high"] = shown::rounded(time->high);
    }
    return out;
}

ordered_json course::reasons() const {
    ordered_json out;
    const std::vector<round_span> recent = spans_.newest(recent_points);
    if (!recent.empty()) {
        const round_span all = sum(recent);
        const auto rounds = static_cast<double>(all.seen);
        out["sent_a_round"] = std::round(static_cast<double>(all.sent) / rounds);
        out["received_a_round"] = std::round(static_cast<double>(all.received) / rounds);
        const double peers = static_cast<double>(all.contributions) / rounds;
        // A ring: each peer sends 2 (n - 1) / n times the gradient, in float32.
        out["dense_a_round"] = peers > 1 ? std::round(8 * static_cast<double>(parameters_) * (peers - 1) / peers) : 0.0;
        out["seconds"] = shown::rounded(total_.seconds);
        out["waited"] = shown::rounded(total_.waited);
        out["seconds_recent"] = shown::rounded(all.seconds);
        out["computed_recent"] = shown::rounded(all.computed);
        out["waited_recent"] = shown::rounded(all.waited);
    }
    out["parameters"] = parameters_;
    out["contributors"] = contributors_;
    out["agreeing"] = agreeing_;
    out["disagreeing"] = disagreeing_;
    out["disagreeing_total"] = total_.disagreeing;
    out["replica"] = replica_.substr(0, 16);
    out["replica_round"] = replica_round_;
    out["momentum_energy"] = shown::rounded(momentum_);
    std::optional<double> joules, each;
    if (joules_) joules = joules_before_ + *joules_;
    if (joules && joule_tokens_ > 0) each = *joules / static_cast<double>(joule_tokens_);
    out["joules"] = shown::rounded(joules);
    out["joules_per_token"] = shown::rounded(each);
    return out;
}

}  // namespace thinwire::launcher
