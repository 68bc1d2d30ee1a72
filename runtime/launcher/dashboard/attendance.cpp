#include "dashboard/attendance.hpp"

#include "about.hpp"
#include "dashboard/rounds.hpp"
#include "dashboard/shown.hpp"
#include <nlohmann/json.hpp>

#include <algorithm>
#include <utility>

namespace thinwire::launcher {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr std::uint64_t sure_after_rounds = 4;
constexpr double sure_after_seconds = 8;
constexpr std::uint64_t late_after = 2;  ///< rounds without it

}  // namespace

void attendance::take(const json& peers, std::uint64_t round, double time) {
    if (!peers.is_array()) return;
    const bool first = people_.empty();
    for (std::size_t i = 0; i < std::min(peers.size(), max_people); ++i)
        if (peers[i].is_object()) take_person(peers[i], round, time, first);
    settle(round, time);
    keep_roster(round, time);
}

void attendance::take_person(const json& from, std::uint64_t round, double time, bool first) {
    const std::string id = told::text(from, "id", 32);
    if (id.empty()) return;
    auto known = known_.find(id);
    if (known == known_.end()) {
        if (people_.size() >= max_people) return;
        known = known_.emplace(id, people_.size()).first;
        people_.emplace_back().now.person = known->second;
        changed_ = true;
    }
    person& p = people_[known->second];
    const auto keep = [&](auto& held, auto now) {
        if (held == now) return;
        held = std::move(now);
        changed_ = true;
    };
    keep(p.name, told::text(from, "name", 64));
    keep(p.place, told::text(from, "place", max_about_text));
    keep(p.hardware, told::text(from, "hardware", max_about_text));
    keep(p.latitude, told::number(from, "latitude"));
    keep(p.longitude, told::number(from, "longitude"));
    keep(p.self, told::flag(from, "self"));
    keep(p.witness, told::flag(from, "witness"));
    p.tokens.see(told::count(from, "tokens"));
    p.sent.see(told::count(from, "bytes_sent"));
    p.received.see(told::count(from, "bytes_received"));
    state& s = p.now;
    s.tokens = p.tokens.total();
    s.sent = p.sent.total();
    s.received = p.received.total();
    s.last_round = told::count(from, "last_round");
    s.staleness = told::count(from, "staleness_rounds");
    s.round_trip = told::number(from, "round_trip_seconds");
    const bool present = told::flag(from, "present"), member = told::flag(from, "member", true);
    const bool in_time = told::flag(from, "contributed_last") || (s.last_round > 0 && s.staleness <= late_after);
    s.is = !present                             ? member || p.lost_since ? standing::lost : standing::left
           : p.witness || in_time || round == 0 ? standing::present
           : !member || s.last_round == 0       ? standing::syncing
                                                : standing::late;
    note_presence(known->second, present, member, round, time, first);
}

void attendance::note_presence(std::size_t index, bool present, bool member, std::uint64_t round, double time,
                               bool first) {
    person& p = people_[index];
    const bool was = std::exchange(p.was_present, present);
    if (present && !was) {
        if (p.unsure) fresh_.push_back(*std::exchange(p.unsure, std::nullopt));  // who says goodbye stays away
        const std::optional<double> since = std::exchange(p.lost_since, std::nullopt);
        if (since)
            fresh_.push_back({round, time, "returned", index, time - *since});
        else if (!first)
            fresh_.push_back({round, time, "joined", index, std::nullopt});
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
        fresh_.push_back(goodbye);
    }
}

void attendance::begin_process() {
    for (person& p : people_) {
        p.tokens.see(0);
        p.sent.see(0);
        p.received.see(0);
    }
}

void attendance::end_process(std::uint64_t round, double time) {
    for (person& p : people_) {
        if (!std::exchange(p.unsure, std::nullopt)) continue;
        p.now.is = standing::present;
        p.was_present = true;
        p.lost_since.reset();
    }
    keep_roster(round, time);
}

void attendance::settle(std::uint64_t round, double time) {
    for (person& p : people_)
        if (p.unsure && (round >= p.unsure->round + sure_after_rounds || time >= p.unsure->time + sure_after_seconds))
            fresh_.push_back(*std::exchange(p.unsure, std::nullopt));
}

void attendance::keep_roster(std::uint64_t round, double time) {
    if (!rosters_.empty() && rosters_.back().round == round) rosters_.pop_back();
    roster& kept = rosters_.emplace_back();
    kept.round = round;
    kept.time = time;
    for (const person& p : people_) kept.states.push_back(p.now);
    thin(rosters_, max_rosters);
}

std::vector<mark> attendance::take_marks() {
    return std::exchange(fresh_, {});
}

bool attendance::take_changed() {
    return std::exchange(changed_, false);
}

ordered_json attendance::people() const {
    ordered_json all = ordered_json::array();
    for (const person& p : people_)
        all.push_back({{"name", p.name.empty() ? "peer " + std::to_string(p.now.person) : p.name},
                       {"place", p.place},
                       {"hardware", p.hardware},
                       {"latitude", shown::rounded(p.latitude)},
                       {"longitude", shown::rounded(p.longitude)},
                       {"self", p.self},
                       {"witness", p.witness}});
    return all;
}

ordered_json attendance::state::row() const {
    ordered_json milliseconds;
    if (round_trip) milliseconds = shown::rounded(*round_trip * 1000);
    return {person, static_cast<int>(is), tokens, sent, received, last_round, staleness, milliseconds};
}

ordered_json attendance::standings() {
    return {"present", "syncing", "late", "lost", "left"};
}

ordered_json attendance::states() const {
    ordered_json all = ordered_json::array();
    for (const person& p : people_) all.push_back(p.now.row());
    return all;
}

ordered_json attendance::rosters() const {
    ordered_json all = ordered_json::array();
    for (const roster& one : rosters_) {
        ordered_json rows = ordered_json::array();
        for (const state& s : one.states) rows.push_back(s.row());
        all.push_back({{"round", one.round}, {"time", one.time}, {"states", std::move(rows)}});
    }
    return all;
}

}  // namespace thinwire::launcher
