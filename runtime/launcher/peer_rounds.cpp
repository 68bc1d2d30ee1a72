// The rounds of a peer: gradient, payload, commit.
#include <thinwire/codec/payload_size.hpp>

#include "about.hpp"
#include "control.hpp"
#include "event_log.hpp"
#include "exit_code.hpp"
#include "peer.hpp"
#include "stop_signal.hpp"
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace thinwire::launcher {
namespace {

using clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

/// JSON has no NaN.
nlohmann::json finite_or_null(double value) {
    return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json(nullptr);
}

constexpr milliseconds look_every{100};          ///< for what the run decided meanwhile
constexpr std::uint64_t peers_line_every = 100;  ///< rounds
constexpr int peers_lines_most = 20;             ///< in so many rounds: somebody may come and go all the time

}  // namespace

std::uint64_t peer::next_round() const {
    return replica_->optimizer().round() + (under_way_ ? 1 : 0);
}

bool peer::finished() const {
    const auto stop_at = static_cast<std::uint64_t>(settings_.peer.stop_at);
    return stop_requested() || next_round() >= static_cast<std::uint64_t>(settings_.run.rounds) ||
           (stop_at > 0 && next_round() >= stop_at);
}

void peer::train_rounds() {
    const auto every = static_cast<std::uint64_t>(settings_.run.snapshot_every);
    const auto evaluate_every = static_cast<std::uint64_t>(settings_.run.eval_every);
    if (!finished() && next_round() == 0 && evaluates()) evaluate();
    while (!finished()) {
        const std::uint64_t before = replica_->optimizer().round();
        if (evaluate_every > 0 && before % evaluate_every == 0 && evaluates()) evaluate();
        tune();
        if (settings_.peer.contributes)
            contribute();
        else
            follow();
        if (replica_->optimizer().round() / every == before / every) continue;
        finish_round();
        save();
        keep_log(replica_->optimizer().round());
    }
    finish_round();
}

/// A gradient on the newest weights, but for the round whose payload travels meanwhile; then its payload, for the round
/// that is open by then.
void peer::contribute() {
    any_optimizer& optimizer = replica_->optimizer();
    if (!under_way_) replay();
    if (!under_way_ && !optimizer.in_flight().empty()) {  // as this peer was killed
        round_began_ = clock::now();
        send({.round = optimizer.round(), .loss = std::numeric_limits<float>::quiet_NaN()}, optimizer.in_flight());
        return finish_round();
    }
    if (finished()) return;
    const gradient made = compute();
    pace();
    finish_round();
    if (optimizer.round() >= static_cast<std::uint64_t>(settings_.run.rounds)) return;
    replay();
    if (ended_ || optimizer.round() >= static_cast<std::uint64_t>(settings_.run.rounds)) return;
    if (optimizer.round() > made.round + static_cast<std::uint64_t>(settings_.run.max_staleness)) {
        log_event(log_level::warning, "stale",
                  fmt::format("the gradient of round {} is not used in round {}: run.max_staleness = {}", made.round,
                              optimizer.round(), settings_.run.max_staleness));
        return;
    }
    optimizer.set_tokens(static_cast<std::uint32_t>(std::min<std::size_t>(made.tokens, most_tokens)));
    const float rate = schedule_of(tuned_).at(optimizer.round());
    optimizer.set_learning_rate(rate < 0x1p-100F ? 0.0F : rate);  // the smallest that a payload states
    std::span<const std::byte> payload;
    try {
        payload = optimizer.begin_step(self_);
    } catch (const value_error& problem) {
        throw launcher_error(exit_code::not_finite, std::string("training: ") + problem.what());
    }
    if (optimizer.round() % static_cast<std::uint64_t>(settings_.peer.save_private_every) == 0)
        replica_->save_private(where_);
    send(made, payload);
    if (!settings_.run.overlap) finish_round();
}

/// How long a round's computation may last; nothing: as long as it takes.
std::optional<clock::duration> peer::budget() const {
    if (tuned_.run.round_ms > 0) return milliseconds(tuned_.run.round_ms);
    return planned_;
}

/// With run.round_tokens: a round's time follows from what the last one brought. All peers see the same commits, so
/// they change their plans alike.
void peer::plan(const step_report& step, std::size_t commits) {
    const auto before = std::exchange(applied_at_, clock::now());
    if (tuned_.run.round_tokens == 0) return planned_.reset();
    if (!before || step.tokens == 0) return;
    const double wanted =
        static_cast<double>(tuned_.run.round_tokens) * static_cast<double>(commits) / static_cast<double>(step.tokens);
    const std::chrono::duration<double> last = planned_.value_or(*applied_at_ - *before);
    const std::chrono::duration<double> next = last * std::clamp(wanted, 0.5, 2.0);
    planned_ = std::chrono::duration_cast<clock::duration>(
        std::clamp<std::chrono::duration<double>>(next, milliseconds(1), std::chrono::hours(1)));
    set_deadlines();
}

/// Which rows of a round's are this peer's: those of no other while the view is the same.
std::int64_t peer::place() const {
    return static_cast<std::int64_t>(node_->status().place) % settings_.run.max_peers;
}

/// Whether what a round computes or waits for by itself has become pointless: a stop of this peer or of the run, other
/// settings.
bool peer::interrupted() const {
    if (stop_requested()) return true;
    const runtime::node_status now = node_->status();
    return now.ended || now.settings != tuned_by_;
}

/// All micro-batches of a round, or those that are done when its time is over or it is interrupted.
peer::gradient peer::compute() {
    round_began_ = clock::now();
    gradient made{.round = next_round()};
    observer_->computing(made.round);
    const std::int64_t rows = tuned_.run.batch_size, limit = tuned_.run.micro_batches;
    const std::int64_t first = place() * limit;
    const std::optional<clock::duration> time = budget();
    clock::duration longest{};
    double sum = 0;
    std::int64_t count = 0;
    replica_->zero_gradient();
    do {
        const auto began = clock::now();
        sampler_->fill(made.round, static_cast<std::uint64_t>((first + count) * rows), tokens_, targets_);
        const float loss = replica_->loss_and_gradient(tokens_, targets_, static_cast<int>(rows));
        if (!std::isfinite(loss))
            throw launcher_error(exit_code::not_finite,
                                 "training: loss of round " + std::to_string(made.round) + " is " +
                                     std::to_string(loss) +
                                     ": expected a finite number; another run may begin with a lower "
                                     "optimizer.learning_rate or model.initializer_range");
        sum += static_cast<double>(loss);
        ++count;
        longest = std::max(longest, clock::now() - began);
    } while (count < limit && (!time || clock::now() + longest <= round_began_ + *time) && !interrupted());
    replica_->average_gradient(static_cast<int>(count));
    made.loss = static_cast<float>(sum / static_cast<double>(count));
    made.tokens = static_cast<std::size_t>(count) * tokens_.size();
    return made;
}

/// Until the round's time is over, so that all send at about the same time.
void peer::pace() const {
    const clock::duration least =
        std::max<clock::duration>(milliseconds(settings_.run.min_round_ms), budget().value_or(clock::duration::zero()));
    if (least == clock::duration::zero()) return;
    observer_->begin("pacing");
    const auto end = round_began_ + least;
    while (!interrupted()) {
        const auto left = std::chrono::ceil<milliseconds>(end - clock::now());
        if (left <= milliseconds(0)) return;
        wait_for_signal(static_cast<int>(std::min(left, look_every).count()));
    }
}

/// The payload goes out: with run.overlap at once, else when finish_round() waits for the commit.
void peer::send(const gradient& made, std::span<const std::byte> payload) {
    const std::uint64_t round = replica_->optimizer().round();
    observer_->waiting(round, payload);
    const auto how = settings_.run.overlap ? std::launch::async : std::launch::deferred;
    under_way_ = exchange_under_way{
        made, round_began_, std::async(how, [this, round, payload] { return node_->exchange(round, payload); })};
}

/// Waits for the commit of the payload under way, if there is one, and applies it.
void peer::finish_round() {
    if (!under_way_) return;
    exchange_under_way done = std::move(*std::exchange(under_way_, std::nullopt));
    std::span<const commit> commits = done.commits.get();
    // The commit that stops a run which is over is no round of it.
    while (commits.size() > 1 && commits.back().round >= static_cast<std::uint64_t>(settings_.run.rounds)) {
        commits = commits.first(commits.size() - 1);
        ended_ = true;
    }
    const step_report step = replica_->optimizer().end_step(commits);
    plan(step, commits.size());
    observer_->contributed(commits);
    report(step, done.made, done.began);
}

void peer::follow() {
    round_began_ = clock::now();
    observer_->begin("waiting");
    for (const commit& one : node_->follow(replica_->optimizer().round())) {
        ended_ = one.round >= static_cast<std::uint64_t>(settings_.run.rounds);
        if (ended_) return;
        const gradient none{.round = one.round, .loss = std::numeric_limits<float>::quiet_NaN()};
        const step_report step = replica_->optimizer().apply(one);
        observer_->contributed({&one, 1});
        report(step, none, std::exchange(round_began_, clock::now()));
    }
}

/// Takes over what `thinwire ctl DIR set` changed.
void peer::tune() {
    std::map<std::string, std::string> wanted = node_->status().settings;
    if (wanted == tuned_by_) return;
    std::map<std::string, std::string> taken;
    for (const auto& [key, value] : wanted) {
        const auto before = tuned_by_.find(key);
        const bool told = before != tuned_by_.end() && before->second == value;
        taken[key] = value;
        try {
            tuned_ = tuned(settings_, taken);
            if (told) continue;
            log_event(log_level::info, "set", fmt::format("{} = {}", key, value), {{"key", key}, {"value", value}});
        } catch (const launcher_error& problem) {
            taken.erase(key);
            if (told) continue;
            log_event(log_level::warning, "not_set", fmt::format("{} is not taken over: {}", key, problem.what()));
        }
    }
    for (const auto& [key, value] : tuned_by_)
        if (!wanted.contains(key))
            log_event(log_level::info, "set", fmt::format("{} is again what the run began with", key),
                      {{"key", key}, {"value", nullptr}});
    tuned_ = tuned(settings_, taken);
    tuned_by_ = std::move(wanted);
    prepare_rounds();
}

void peer::prepare_rounds() {
    if (tuned_.run.round_tokens == 0) planned_.reset();
    set_deadlines();
    if (!settings_.peer.contributes) return;
    replica_->optimizer().set_k(coefficients());
    const auto length = static_cast<std::size_t>(settings_.data.sequence_length);
    const std::int64_t rows = tuned_.run.batch_size;
    const auto slots = static_cast<std::uint64_t>(settings_.run.max_peers * tuned_.run.micro_batches * rows);
    sampler_.emplace(text_.train(), batch_sampler_options{.sequence_length = length,
                                                          .slots_per_round = slots,
                                                          .seed = static_cast<std::uint64_t>(settings_.run.seed)});
    tokens_.resize(static_cast<std::size_t>(rows) * length);
    targets_.resize(tokens_.size());
}

/// optimizer.k, or fewer that peer.payload_bytes has room for.
int peer::coefficients() const {
    const auto k = static_cast<int>(tuned_.optimizer.k);
    if (settings_.peer.payload_bytes == 0 || settings_.optimizer.kind != "demo") return k;
    const payload_layout layout = replica_->optimizer().layout();
    const std::uint32_t fits = largest_k(layout, static_cast<std::uint64_t>(settings_.peer.payload_bytes));
    if (fits == 0)
        throw launcher_error(exit_code::usage,
                             fmt::format("configuration: peer.payload_bytes = {}: expected at least {}, or 0",
                                         settings_.peer.payload_bytes, estimated_payload_bytes(layout, 1)));
    return std::min(k, static_cast<int>(fits));
}

/// In rounds by time all send at about the same time.
void peer::set_deadlines() {
    const std::optional<clock::duration> time = budget();
    const auto window = std::chrono::ceil<milliseconds>(std::clamp<clock::duration>(
        time.value_or(clock::duration::zero()) / 2, milliseconds(200), std::chrono::hours(1)));
    if (time)
        node_->set_deadlines(window, window, false);
    else
        node_->set_deadlines(milliseconds(settings_.peer.min_deadline_ms), milliseconds(settings_.peer.max_deadline_ms),
                             true);
}

void peer::report(const step_report& step, const gradient& made, clock::time_point began) {
    const double seconds = std::chrono::duration<double>(clock::now() - began).count();
    const runtime::node_status status = node_->status();
    const double rate = static_cast<double>(step.learning_rate);
    observer_->applied(step, made.loss, rate, made.tokens, seconds, status);
    const run_status now = observer_->status();
    nlohmann::json line = event("round");
    line["round"] = step.round;
    line["loss"] = finite_or_null(made.loss);
    line["learning_rate"] = rate;
    line["gradient_norm"] = finite_or_null(step.gradient_norm);
    line["tokens"] = made.tokens;
    line["round_tokens"] = step.tokens;
    line["seconds"] = seconds;
    line["tokens_per_second"] = static_cast<double>(step.tokens) / std::max(seconds, 1e-9);
    line["contributors"] = step.contributors;
    line["own_included"] = step.own_included;
    line["agreeing"] = step.agreeing;
    line["disagreeing"] = step.disagreeing;
    line["rejected"] = step.rejected;
    line["payload_bytes"] = step.bytes_sent;
    line["bytes_sent"] = status.bytes_sent;
    line["bytes_received"] = status.bytes_received;
    line["compute_seconds"] = now.compute_seconds;
    line["wait_seconds"] = status.wait_seconds;
    line["paused_seconds"] = status.paused_seconds;
    line["term"] = status.term;
    line["members"] = status.members;
    line["present"] = nlohmann::json::array();
    for (const auto& other : status.peers)
        if (other.present) line["present"].push_back(other.name);
    metrics_->write(line);
    if (tensorboard_)
        tensorboard_->scalars(step.round,
                              {{"loss/train", made.loss},
                               {"learning_rate", rate},
                               {"gradient_norm", step.gradient_norm},
                               {"tokens_per_second", static_cast<double>(step.tokens) / std::max(seconds, 1e-9)},
                               {"contributors", step.contributors},
                               {"payload_bytes", static_cast<double>(step.bytes_sent)}});
    report_peers(now, false);
    if (step.disagreeing == 0 || step.disagreeing < step.agreeing) return;
    throw launcher_error(exit_code::diverged, "replica: round " + std::to_string(step.round) + ": " +
                                                  std::to_string(step.disagreeing) + " of " +
                                                  std::to_string(step.contributors) +
                                                  " contributions come from other weights than these: expected equal "
                                                  "digests");
}

/// The founder, whose table shows it; a witness, which has the time; and whoever orders the rounds, so that somebody
/// does when both are gone.
bool peer::evaluates() const {
    if (text_.validation().empty()) return false;
    return founder_ || !settings_.peer.contributes || node_->status().sequencer == self_;
}

void peer::evaluate() {
    const std::uint64_t now = replica_->optimizer().round();
    if (last_evaluated_ == now) return;
    last_evaluated_ = now;
    nlohmann::json line = event("evaluation");
    line["round"] = now;
    observer_->begin("evaluating");
    const double loss = replica_->evaluate(text_.validation(), settings_.run.eval_windows);
    std::string sample;
    if (const std::int64_t bytes = settings_.run.sample_tokens; bytes > 0)
        sample = clean_text(replica_->sample(bytes), static_cast<std::size_t>(bytes), true);
    observer_->evaluated(now, loss, sample);
    line["loss"] = finite_or_null(loss);
    if (!sample.empty()) line["sample"] = sample;
    if (tensorboard_) tensorboard_->scalars(now, {{"loss/validation", loss}});
    if (tensorboard_ && !sample.empty()) tensorboard_->text(now, "sample", sample);
    metrics_->write(line);
}

/// Who is there, when that changes, and at times so that counts of bytes and tokens can be followed.
void peer::report_peers(const run_status& now, bool always) {
    const auto again = now.round / peers_line_every != peers_line_round_ / peers_line_every;
    auto roster = now.roster();
    if (again) peers_lines_ = 0;
    if (!always && !again && (roster == roster_ || peers_lines_ >= peers_lines_most)) return;
    ++peers_lines_;
    roster_ = std::move(roster);
    peers_line_round_ = now.round;
    nlohmann::json line = event("peers");
    line["round"] = now.round;
    line["energy_joules"] = now.energy_joules ? nlohmann::json(*now.energy_joules) : nlohmann::json(nullptr);
    line["momentum_energy"] = now.momentum_energy ? nlohmann::json(*now.momentum_energy) : nlohmann::json(nullptr);
    line["peers"] = to_json(now).at("peers");
    metrics_->write(line);
}

}  // namespace thinwire::launcher
