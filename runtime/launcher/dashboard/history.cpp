#include "dashboard/history.hpp"

#include "dashboard/shown.hpp"
#include "dashboard/told.hpp"
#include <nlohmann/json.hpp>

#include <algorithm>
#include <utility>

namespace thinwire::launcher {

using nlohmann::json;
using nlohmann::ordered_json;

void history::begin_run(const std::string& run) {
    if (run.empty() || run == run_) return;
    if (!run_.empty()) {
        *this = history();
        reset_ = true;
    }
    run_ = run;
    changed_ = true;
}

void history::take_line(const json& line) {
    const json* event = told::find(line, "event");
    if (event == nullptr || !event->is_string()) return;
    const auto& kind = event->get_ref<const std::string&>();
    const std::uint64_t round = told::count(line, "round");
    const double time = told::number(line, "time").value_or(last_time_);
    if (kind == "start") {
        begin_run(told::text(line, "run", 64));
        ended_ = false;
        course_.take_size(line);
        course_.begin_process();
        attendance_.begin_process();
        changed_ = true;
    } else if (kind == "round") {
        take_round(line, time, 1);
    } else if (kind == "evaluation") {
        take_evaluation(round, line, "loss");
    } else if (kind == "peers") {
        take_peers(line, round, time);
        if (const auto joules = told::number(line, "energy_joules")) course_.take_energy(*joules);
        if (const auto energy = told::number(line, "momentum_energy")) course_.take_momentum(energy);
    } else if (kind == "end") {
        course_.reach(round);
        course_.take_replica(line, "replica_digest");
        attendance_.end_process(round, time);
        ended_ = true;
        changed_ = true;
    }
    last_time_ = std::max(last_time_, time);
}

/// The line is the last of the `looked` rounds that it tells of.
void history::take_round(const json& line, double time, std::uint64_t looked) {
    if (const std::optional<round_span> span = course_.take_round(line, time, looked)) note(fresh_spans_, *span);
    if (const std::uint64_t term = told::count(line, "term"); term > 0) {
        // Who orders the rounds has changed: this round took as long as it took to choose.
        if (term_ && term > *term_)
            add_mark({.round = told::count(line, "round"),
                      .time = time,
                      .kind = "takeover",
                      .seconds = told::number(line, "seconds").value_or(0)});
        term_ = std::max(term_.value_or(0), term);
    }
    take_pause(course_.newest_pause(), told::count(line, "round"), time);
    attendance_.settle(told::count(line, "round"), time);
    take_marks();
}

void history::take_evaluation(std::uint64_t round, const json& from, const char* loss_name) {
    const std::optional<double> loss = told::number(from, loss_name);
    if (!loss || (!points_.evaluations.empty() && round <= points_.evaluations.back().round)) return;
    const evaluation one{round, *loss};
    points_.evaluations.push_back(one);
    thin(points_.evaluations, max_evaluations);
    note(fresh_.evaluations, one);
    const sample written{round, *loss, told::text(from, "sample", max_sample_bytes, true)};
    if (written.text.empty()) return;
    points_.samples.push_back(written);
    thin(points_.samples, max_samples);
    note(fresh_.samples, written);
}

void history::take_peers(const json& from, std::uint64_t round, double time) {
    const json* peers = told::find(from, "peers");
    if (peers == nullptr || !peers->is_array()) return;
    attendance_.take(*peers, round, time);
    take_marks();
    changed_ = true;
}

void history::take_marks() {
    for (const mark& one : attendance_.take_marks()) add_mark(one);
}

void history::add_mark(const mark& one) {
    points_.marks.push_back(one);
    if (points_.marks.size() > max_marks) points_.marks.erase(points_.marks.begin());
    note(fresh_.marks, one);
}

/// A round, at `time`, in which the run was paused: marked unless a status told of it while it lasted.
void history::take_pause(double seconds, std::uint64_t round, double time) {
    constexpr double least = 0.5;
    if (seconds < least) return;
    if (!paused_ && time - seconds < paused_at_) return;
    if (!paused_) mark_pause(true, round, time - seconds);
    mark_pause(false, round, time);
}

void history::mark_pause(bool begins, std::uint64_t round, double time) {
    mark one{.round = round, .time = time, .kind = begins ? "paused" : "resumed"};
    if (!begins) one.seconds = time - paused_at_;
    paused_ = begins;
    paused_at_ = time;
    add_mark(one);
}

/// For the next update. Viewers who would get too much at once do better to begin again.
template <class T>
void history::note(std::vector<T>& fresh, const T& one) {
    changed_ = true;
    if (reset_) return;
    fresh.push_back(one);
    if (fresh.size() <= max_update) return;
    reset_ = true;
    fresh_spans_.clear();
    fresh_ = {};
}

void history::take_status(const json& status, double now, bool rounds) {
    if (!status.is_object()) return;
    const std::string run = told::text(status, "run", 64);
    if (!rounds && run != run_) return;
    begin_run(run);
    course_.take_size(status);
    const std::uint64_t round = told::count(status, "round");
    if (std::string phase = told::text(status, "phase", 32); phase != phase_) {
        phase_ = std::move(phase);
        changed_ = true;
    }
    if (const bool paused = told::flag(status, "paused"); paused != paused_) mark_pause(paused, round, now);
    ended_ = false;
    course_.take_momentum(told::number(status, "momentum_energy"));
    if (const json* replica = told::find(status, "replica"); replica != nullptr && replica->is_object())
        course_.take_replica(*replica, "digest");
    if (rounds) {
        take_polled_round(status, round, now);
        take_evaluation(told::count(status, "validation_round"), status, "validation_loss");
    }
    take_peers(status, round, now);
}

/// What was counted since the last look is of all rounds since then.
void history::take_polled_round(const json& status, std::uint64_t round, double now) {
    const std::optional<std::uint64_t> last = course_.last_round();
    if (round == 0 || (last && round <= *last + 1)) return;
    json line = status;
    line["round"] = round - 1;
    line["tokens"] = 0;  // take_energy() brings them
    const double pace = told::number(status, "rounds_per_second_minute").value_or(0);
    line["seconds"] = last ? std::max(0.0, now - last_time_) : pace > 0 ? 1 / pace : 0.0;
    take_round(line, now, last ? round - 1 - *last : 1);
    if (const auto joules = told::number(status, "energy_joules"))
        course_.take_energy(*joules, told::count(status, "tokens"));
    last_time_ = now;
}

void history::take_silence() {
    if (std::exchange(phase_, {}).empty()) return;
    changed_ = true;
}

ordered_json history::head() const {
    ordered_json out;
    out["run"] = run_.substr(0, 16);
    out["ended"] = ended_;
    out["paused"] = paused_;
    out["phase"] = phase_;
    out["time"] = shown::moment(last_time_);
    out["progress"] = course_.progress(ended_);
    out["reasons"] = course_.reasons();
    return out;
}

void history::write(ordered_json& to, const std::vector<round_span>& spans, const points& of) {
    ordered_json rows = ordered_json::array(), evaluations = rows, samples = rows, marks = rows;
    for (const round_span& span : spans) rows.push_back(shown::row(span));
    for (const evaluation& e : of.evaluations) evaluations.push_back({e.round, shown::rounded(e.loss)});
    for (const sample& s : of.samples)
        samples.push_back({{"round", s.round}, {"loss", shown::rounded(s.loss)}, {"text", s.text}});
    for (const mark& m : of.marks)
        marks.push_back({{"round", m.round},
                         {"time", shown::moment(m.time)},
                         {"kind", m.kind},
                         {"person", m.person ? ordered_json(*m.person) : ordered_json(nullptr)},
                         {"seconds", shown::rounded(m.seconds)}});
    to["rows"] = std::move(rows);
    to["evaluations"] = std::move(evaluations);
    to["samples"] = std::move(samples);
    to["marks"] = std::move(marks);
}

ordered_json history::snapshot() const {
    ordered_json out = head();
    out["columns"] = shown::columns();
    out["standings"] = attendance::standings();
    write(out, course_.curve(), points_);
    out["people"] = attendance_.people();
    out["states"] = attendance_.states();
    out["rosters"] = attendance_.rosters();
    return out;
}

ordered_json history::take_update() {
    const bool people_changed = attendance_.take_changed();
    ordered_json out;
    if (std::exchange(reset_, false)) {
        out["reset"] = true;
    } else if (changed_) {
        out = head();
        write(out, fresh_spans_, fresh_);
        if (people_changed) out["people"] = attendance_.people();
        out["states"] = attendance_.states();
    }
    fresh_spans_.clear();
    fresh_ = {};
    changed_ = false;
    return out;
}

}  // namespace thinwire::launcher
