#include "dashboard/history.hpp"

#include "about.hpp"
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <utility>

namespace thinwire::launcher {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

// Fields of foreign objects: what is missing, of another type or out of range is not told.

const json* find(const json& object, const char* name) {
    const auto found = object.find(name);
    return found != object.end() ? &*found : nullptr;
}

std::optional<double> number(const json& object, const char* name) {
    const json* found = find(object, name);
    if (found == nullptr || !found->is_number()) return std::nullopt;
    const double value = found->get<double>();
    return std::isfinite(value) ? std::optional<double>(value) : std::nullopt;
}

/// Below 2^53, what a page can count to.
std::uint64_t count(const json& object, const char* name) {
    const json* found = find(object, name);
    if (found == nullptr || !found->is_number_integer()) return 0;
    if (!found->is_number_unsigned() && found->get<std::int64_t>() < 0) return 0;
    return std::min(found->get<std::uint64_t>(), std::uint64_t{1} << 53U);
}

bool flag(const json& object, const char* name, bool otherwise = false) {
    const json* found = find(object, name);
    return found != nullptr && found->is_boolean() ? found->get<bool>() : otherwise;
}

std::string text(const json& object, const char* name, std::size_t bytes, bool lines = false) {
    const json* found = find(object, name);
    return found != nullptr && found->is_string() ? clean_text(found->get_ref<const std::string&>(), bytes, lines)
                                                  : std::string();
}

ordered_json or_null(const std::optional<double>& value) {
    return value ? ordered_json(*value) : ordered_json(nullptr);
}

/// Short in JSON: six digits are more than a screen shows.
ordered_json rounded(double value) {
    if (!std::isfinite(value)) return nullptr;
    if (value == 0) return 0;
    const double scale = std::pow(10.0, 5 - std::floor(std::log10(std::abs(value))));
    return std::round(value * scale) / scale;
}

double ratio(double of, double to) {
    return to > 0 ? of / to : 0;
}

std::uint64_t width(const round_span& span) {
    return span.last - span.first + 1;
}

/// Tokens of the rounds that were told of.
double seen_tokens(const round_span& span) {
    return static_cast<double>(span.tokens) * static_cast<double>(span.seen) / static_cast<double>(width(span));
}

round_span sum(const std::vector<round_span>& spans) {
    round_span all = spans.front();
    for (std::size_t i = 1; i < spans.size(); ++i) all.append(spans[i]);
    return all;
}

/// Of a list by rounds that is too long the one goes whose neighbours are nearest to each other, so that what stays
/// is spread evenly; first and last stay.
template <class T>
void thin(std::vector<T>& list, std::size_t most) {
    while (list.size() > most) {
        std::size_t least = 1;
        for (std::size_t i = 2; i + 1 < list.size(); ++i)
            if (list[i + 1].round - list[i - 1].round < list[least + 1].round - list[least - 1].round) least = i;
        list.erase(list.begin() + static_cast<std::ptrdiff_t>(least));
    }
}

ordered_json row(const round_span& s) {
    ordered_json loss = nullptr, low = nullptr, high = nullptr;
    if (s.loss.count > 0) {
        loss = rounded(s.loss.sum / static_cast<double>(s.loss.count));
        low = rounded(s.loss.low);
        high = rounded(s.loss.high);
    }
    return {s.first,
            s.last,
            std::round(s.time * 10) / 10,
            s.seen,
            s.tokens,
            rounded(s.seconds),
            rounded(s.waited),
            s.sent,
            s.received,
            s.contributions,
            s.disagreeing,
            loss,
            low,
            high};
}

const char* const row_columns[] = {"first", "last",     "time",          "seen",        "tokens", "seconds", "waited",
                                   "sent",  "received", "contributions", "disagreeing", "loss",   "low",     "high"};

constexpr std::uint64_t sure_after_rounds = 4;
constexpr double sure_after_seconds = 8;
constexpr std::uint64_t late_after = 2;  ///< rounds without it

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

/// A line may be a little older than the status before it, and another peer that answers instead has counts of its own:
/// only a count that fell by more than half began again.
void history::counter::see(std::uint64_t now) {
    if (now < last / 2) {
        before += last;
        last = now;
    } else {
        last = std::max(last, now);
    }
}

void history::begin_run(const std::string& run) {
    if (run.empty() || run == run_) return;
    const bool other = !run_.empty();
    if (other) {
        *this = history();
        reset_ = true;
    }
    run_ = run;
    changed_ = true;
}

void history::take_line(const json& line) {
    const json* event = find(line, "event");
    if (event == nullptr || !event->is_string()) return;
    const auto& kind = event->get_ref<const std::string&>();
    const std::uint64_t round = count(line, "round");
    const double time = number(line, "time").value_or(last_time_);
    if (kind == "start") {
        begin_run(text(line, "run", 64));
        ended_ = false;
        if (const auto rounds = count(line, "rounds"); rounds > 0) rounds_ = rounds;
        if (const auto parameters = count(line, "parameters"); parameters > 0) parameters_ = parameters;
        // A process counts from here on.
        sent_.see(0);
        received_.see(0);
        last_waited_ = 0;
        joules_before_ += std::exchange(joules_, 0.0);
        for (person& p : people_) {
            p.tokens.see(0);
            p.sent.see(0);
            p.received.see(0);
        }
        counting_ = true;
        changed_ = true;
    } else if (kind == "round") {
        take_round(line);
    } else if (kind == "evaluation") {
        if (const auto loss = number(line, "loss"))
            take_evaluation(round, *loss, text(line, "sample", max_sample_bytes, true));
    } else if (kind == "peers") {
        if (const json* peers = find(line, "peers")) take_peers(*peers, round, time);
        if (const auto joules = number(line, "energy_joules")) {
            joules_ = std::max(joules_, *joules);
            joule_tokens_ = own_tokens_;
            energy_known_ = true;
        }
    } else if (kind == "end") {
        round_ = std::max(round_, round);
        replica_ = text(line, "replica_digest", 64);
        replica_round_ = round;
        ended_ = true;
        changed_ = true;
    }
    last_time_ = std::max(last_time_, time);
}

/// `looked`: how many rounds the line tells of, itself the last.
void history::take_round(const json& line, std::uint64_t looked) {
    const std::uint64_t round = count(line, "round");
    round_span one{.first = round, .last = round, .time = number(line, "time").value_or(last_time_), .seen = looked};
    const std::uint64_t sent = sent_.total(), received = received_.total();
    sent_.see(count(line, "bytes_sent"));
    received_.see(count(line, "bytes_received"));
    const double waited = number(line, "wait_seconds").value_or(last_waited_);
    if (counting_) {
        one.sent = sent_.total() - sent;
        one.received = received_.total() - received;
        one.waited = std::max(0.0, waited - last_waited_);
    }
    counting_ = true;
    last_waited_ = waited;
    one.tokens = count(line, "round_tokens");
    one.seconds = number(line, "seconds").value_or(0);
    contributors_ = count(line, "contributors");
    one.contributions = contributors_ * looked;
    agreeing_ = count(line, "agreeing");
    one.disagreeing = disagreeing_ = count(line, "disagreeing");
    if (const auto loss = number(line, "loss")) {
        one.loss.add(*loss);
        own_tokens_ += count(line, "tokens");
    }
    add_span(one);
    if (const std::uint64_t term = count(line, "term"); term > 0) {
        // Who orders the rounds has changed: this round took as long as it took to choose.
        if (term_ && term > *term_)
            add_mark({.round = round, .time = one.time, .kind = "takeover", .seconds = one.seconds});
        term_ = std::max(term_.value_or(0), term);
    }
    settle_unsure(round, one.time);
}

/// Rounds that were not told of lie before `span`; they had as many tokens.
void history::add_span(round_span span) {
    const std::uint64_t from = last_round_ ? *last_round_ + 1 : 0;
    if (last_round_ && span.last < from) return;  // told twice, as by a peer that was restored from an older state
    span.tokens *= span.last - from + 1;
    span.first = from;
    if (total_.seen == 0)
        total_ = span;
    else
        total_.append(span);
    spans_.add(span);
    last_round_ = span.last;
    round_ = std::max(round_, span.last + 1);
    changed_ = true;
    if (fresh_spans_.size() >= max_update_rows) {
        reset_ = true;
        fresh_spans_.clear();
    }
    fresh_spans_.push_back(span);
}

void history::take_evaluation(std::uint64_t round, double loss, const std::string& sample_text) {
    if (!evaluations_.empty() && round <= evaluations_.back().round) return;
    evaluations_.push_back({round, loss});
    if (!reset_) fresh_evaluations_.push_back({round, loss});
    thin(evaluations_, max_evaluations);
    changed_ = true;
    if (sample_text.empty()) return;
    samples_.push_back({round, loss, sample_text});
    if (!reset_) fresh_samples_.push_back(samples_.back());
    thin(samples_, max_samples);
}

void history::take_peers(const json& peers, std::uint64_t round, double time) {
    if (!peers.is_array()) return;
    const bool first = people_.empty();
    for (std::size_t i = 0; i < std::min(peers.size(), max_people); ++i)
        if (peers[i].is_object()) take_person(peers[i], round, time, first);
    settle_unsure(round, time);
    keep_roster(round, time);
    changed_ = true;
}

void history::take_person(const json& from, std::uint64_t round, double time, bool first) {
    const std::string id = text(from, "id", 32);
    if (id.empty()) return;
    auto known = known_.find(id);
    if (known == known_.end()) {
        if (people_.size() >= max_people) return;
        known = known_.emplace(id, people_.size()).first;
        people_.emplace_back().now.person = known->second;
        people_changed_ = true;
    }
    person& p = people_[known->second];
    const auto keep = [&](auto& held, auto now) {
        if (held == now) return;
        held = std::move(now);
        people_changed_ = true;
    };
    keep(p.name, text(from, "name", 64));
    keep(p.place, text(from, "place", max_about_text));
    keep(p.hardware, text(from, "hardware", max_about_text));
    keep(p.latitude, number(from, "latitude"));
    keep(p.longitude, number(from, "longitude"));
    keep(p.self, flag(from, "self"));
    keep(p.witness, flag(from, "witness"));
    p.tokens.see(count(from, "tokens"));
    p.sent.see(count(from, "bytes_sent"));
    p.received.see(count(from, "bytes_received"));
    state& s = p.now;
    s.tokens = p.tokens.total();
    s.sent = p.sent.total();
    s.received = p.received.total();
    s.last_round = count(from, "last_round");
    s.staleness = count(from, "staleness_rounds");
    s.round_trip = number(from, "round_trip_seconds");
    const bool present = flag(from, "present"), member = flag(from, "member", true);
    const bool in_time = flag(from, "contributed_last") || (s.last_round > 0 && s.staleness <= late_after);
    s.is = !present                       ? member || p.lost_since ? standing::lost : standing::left
           : p.witness || in_time         ? standing::present
           : !member || s.last_round == 0 ? standing::syncing
                                          : standing::late;
    note_presence(known->second, present, member, round, time, first);
}

void history::note_presence(std::size_t index, bool present, bool member, std::uint64_t round, double time,
                            bool first) {
    person& p = people_[index];
    const bool was = std::exchange(p.was_present, present);
    if (present && !was) {
        if (p.unsure) add_mark(*std::exchange(p.unsure, std::nullopt));  // sure by now: who says goodbye stays away
        const std::optional<double> since = std::exchange(p.lost_since, std::nullopt);
        if (since)
            add_mark({round, time, "returned", index, time - *since});
        else if (!first)
            add_mark({round, time, "joined", index, std::nullopt});
    } else if (!present && was) {
        p.unsure = mark{round, time, "lost", index, std::nullopt};
        p.lost_since = time;
    }
    // A goodbye takes the peer out of the view within a round or two; a loss only after a while.
    if (!present && !member && p.unsure) {
        mark goodbye = *std::exchange(p.unsure, std::nullopt);
        goodbye.kind = "left";
        p.lost_since.reset();
        p.now.is = standing::left;
        add_mark(goodbye);
    }
}

void history::settle_unsure(std::uint64_t round, double time) {
    for (person& p : people_)
        if (p.unsure && (round >= p.unsure->round + sure_after_rounds || time >= p.unsure->time + sure_after_seconds))
            add_mark(*std::exchange(p.unsure, std::nullopt));
}

void history::keep_roster(std::uint64_t round, double time) {
    if (!rosters_.empty() && rosters_.back().round == round) rosters_.pop_back();
    roster& kept = rosters_.emplace_back();
    kept.round = round;
    kept.time = time;
    for (const person& p : people_) kept.states.push_back(p.now);
    thin(rosters_, max_rosters);
}

void history::add_mark(const mark& one) {
    marks_.push_back(one);
    if (!reset_) fresh_marks_.push_back(one);
    if (marks_.size() > max_marks) marks_.erase(marks_.begin());
    changed_ = true;
}

void history::take_status(const json& status, double now, bool rounds) {
    if (!status.is_object()) return;
    const std::string run = text(status, "run", 64);
    if (!rounds && run != run_) return;
    begin_run(run);
    const std::uint64_t round = count(status, "round");
    if (const auto length = count(status, "rounds"); length > 0) rounds_ = length;
    if (const auto parameters = count(status, "parameters"); parameters > 0) parameters_ = parameters;
    if (std::string phase = text(status, "phase", 32); phase != phase_) {
        phase_ = std::move(phase);
        changed_ = true;
    }
    const bool paused = flag(status, "paused");
    if (paused != std::exchange(paused_, paused))
        add_mark({.round = round, .time = now, .kind = paused ? "paused" : "resumed"});
    ended_ = false;
    momentum_ = number(status, "momentum_energy");
    if (const json* replica = find(status, "replica"); replica != nullptr && replica->is_object()) {
        replica_ = text(*replica, "digest", 64);
        replica_round_ = count(*replica, "round");
    }
    if (rounds && round > 0 && (!last_round_ || round > *last_round_ + 1)) {
        json line = {{"round", round - 1},
                     {"time", now},
                     {"round_tokens", count(status, "round_tokens")},
                     {"contributors", count(status, "contributors")},
                     {"agreeing", count(status, "agreeing")},
                     {"disagreeing", count(status, "disagreeing")},
                     {"bytes_sent", count(status, "bytes_sent")},
                     {"bytes_received", count(status, "bytes_received")},
                     {"term", count(status, "term")}};
        if (const auto loss = number(status, "loss")) line["loss"] = *loss;
        if (const auto waited = number(status, "wait_seconds")) line["wait_seconds"] = *waited;
        // What was counted since the last look is of all rounds since then.
        const std::uint64_t looked = last_round_ ? round - 1 - *last_round_ : 1;
        const double pace = number(status, "rounds_per_second_minute").value_or(0);
        line["seconds"] = last_round_ ? std::max(0.0, now - last_time_) : ratio(1, pace);
        take_round(line, looked);
        if (const auto joules = number(status, "energy_joules")) {
            joules_ = *joules;
            own_tokens_ = joule_tokens_ = count(status, "tokens");
            energy_known_ = true;
        }
        last_time_ = now;
    }
    if (rounds)
        if (const auto loss = number(status, "validation_loss"))
            take_evaluation(count(status, "validation_round"), *loss, text(status, "sample", max_sample_bytes, true));
    if (const json* peers = find(status, "peers")) take_peers(*peers, round, now);
}

void history::take_silence() {
    if (std::exchange(phase_, {}).empty()) return;
    changed_ = true;
}

ordered_json history::progress() const {
    const std::vector<round_span> recent = spans_.newest(240), few = spans_.newest(16);
    ordered_json out;
    out["round"] = round_;
    out["rounds"] = rounds_;
    out["tokens"] = total_.tokens;
    const std::uint64_t left = rounds_ > round_ ? rounds_ - round_ : 0;
    if (recent.empty()) return out;
    const round_span newest = sum(recent), now = sum(few);
    const double each = ratio(seen_tokens(newest), static_cast<double>(newest.seen));
    out["tokens_total"] = std::round(static_cast<double>(total_.tokens) + each * static_cast<double>(left));
    out["tokens_per_second"] = rounded(ratio(seen_tokens(now), now.seconds));
    out["tokens_per_second_run"] = rounded(ratio(seen_tokens(total_), total_.seconds));
    if (const auto time = estimate(recent, left); time && !ended_ && left > 0) {
        out["left_seconds"] = rounded(time->seconds);
        out["left_low"] = rounded(time->low);
        out["left_high"] = rounded(time->high);
    }
    return out;
}

/// Why the run works, and what it costs.
ordered_json history::reasons() const {
    ordered_json out;
    const std::vector<round_span> recent = spans_.newest(240);
    if (!recent.empty()) {
        const round_span all = sum(recent);
        const auto rounds = static_cast<double>(all.seen);
        out["sent_a_round"] = std::round(static_cast<double>(all.sent) / rounds);
        out["received_a_round"] = std::round(static_cast<double>(all.received) / rounds);
        const double peers = static_cast<double>(all.contributions) / rounds;
        // A ring: each peer sends 2 (n - 1) / n times the gradient, in float32.
        out["dense_a_round"] = peers > 1 ? std::round(8 * static_cast<double>(parameters_) * (peers - 1) / peers) : 0.0;
        out["seconds"] = rounded(total_.seconds);
        out["waited"] = rounded(total_.waited);
        out["seconds_recent"] = rounded(all.seconds);
        out["waited_recent"] = rounded(all.waited);
    }
    out["parameters"] = parameters_;
    out["contributors"] = contributors_;
    out["agreeing"] = agreeing_;
    out["disagreeing"] = disagreeing_;
    out["disagreeing_total"] = total_.disagreeing;
    out["replica"] = replica_.substr(0, 16);
    out["replica_round"] = replica_round_;
    out["momentum_energy"] = momentum_ ? rounded(*momentum_) : ordered_json(nullptr);
    const double joules = joules_before_ + joules_;
    out["joules"] = energy_known_ ? rounded(joules) : ordered_json(nullptr);
    out["joules_per_token"] = energy_known_ && joule_tokens_ > 0 ? rounded(joules / static_cast<double>(joule_tokens_))
                                                                 : ordered_json(nullptr);
    return out;
}

ordered_json history::head() const {
    ordered_json out;
    out["run"] = run_.substr(0, 16);
    out["ended"] = ended_;
    out["paused"] = paused_;
    out["phase"] = phase_;
    out["time"] = std::round(last_time_ * 10) / 10;
    out["progress"] = progress();
    out["reasons"] = reasons();
    return out;
}

ordered_json history::people() const {
    ordered_json all = ordered_json::array();
    for (const person& p : people_)
        all.push_back({{"name", p.name.empty() ? "peer " + std::to_string(p.now.person) : p.name},
                       {"place", p.place},
                       {"hardware", p.hardware},
                       {"latitude", or_null(p.latitude)},
                       {"longitude", or_null(p.longitude)},
                       {"self", p.self},
                       {"witness", p.witness}});
    return all;
}

namespace {

/// What stands for a peer's state, in this order: "states" of a snapshot.
const char* const standings[] = {"present", "syncing", "late", "lost", "left"};

template <class State>
ordered_json state_row(const State& s) {
    return {s.person,    static_cast<int>(s.is),
            s.tokens,    s.sent,
            s.received,  s.last_round,
            s.staleness, s.round_trip ? rounded(*s.round_trip * 1000) : ordered_json(nullptr)};
}

template <class Marks>
ordered_json mark_rows(const Marks& marks) {
    ordered_json all = ordered_json::array();
    for (const auto& m : marks)
        all.push_back({{"round", m.round},
                       {"time", std::round(m.time * 10) / 10},
                       {"kind", m.kind},
                       {"person", m.person ? ordered_json(*m.person) : ordered_json(nullptr)},
                       {"seconds", m.seconds ? rounded(*m.seconds) : ordered_json(nullptr)}});
    return all;
}

template <class Samples>
ordered_json sample_rows(const Samples& samples) {
    ordered_json all = ordered_json::array();
    for (const auto& s : samples) all.push_back({{"round", s.round}, {"loss", rounded(s.loss)}, {"text", s.text}});
    return all;
}

template <class Evaluations>
ordered_json evaluation_rows(const Evaluations& evaluations) {
    ordered_json all = ordered_json::array();
    for (const auto& e : evaluations) all.push_back({e.round, rounded(e.loss)});
    return all;
}

}  // namespace

ordered_json history::states() const {
    ordered_json all = ordered_json::array();
    for (const person& p : people_) all.push_back(state_row(p.now));
    return all;
}

ordered_json history::snapshot() const {
    ordered_json out = head();
    out["columns"] = row_columns;
    out["standings"] = standings;
    out["rows"] = ordered_json::array();
    for (const round_span& span : spans_.all()) out["rows"].push_back(row(span));
    out["evaluations"] = evaluation_rows(evaluations_);
    out["samples"] = sample_rows(samples_);
    out["marks"] = mark_rows(marks_);
    out["people"] = people();
    out["states"] = states();
    out["rosters"] = ordered_json::array();
    for (const roster& one : rosters_) {
        ordered_json rows = ordered_json::array();
        for (const state& s : one.states) rows.push_back(state_row(s));
        out["rosters"].push_back({{"round", one.round}, {"time", one.time}, {"states", std::move(rows)}});
    }
    return out;
}

ordered_json history::take_update() {
    const bool reset = std::exchange(reset_, false);
    ordered_json out;
    if (reset) {
        out["reset"] = true;
    } else if (changed_) {
        out = head();
        out["rows"] = ordered_json::array();
        for (const round_span& span : fresh_spans_) out["rows"].push_back(row(span));
        out["evaluations"] = evaluation_rows(fresh_evaluations_);
        out["samples"] = sample_rows(fresh_samples_);
        out["marks"] = mark_rows(fresh_marks_);
        if (people_changed_) out["people"] = people();
        out["states"] = states();
    }
    fresh_spans_.clear();
    fresh_evaluations_.clear();
    fresh_samples_.clear();
    fresh_marks_.clear();
    people_changed_ = changed_ = false;
    return out;
}

}  // namespace thinwire::launcher
