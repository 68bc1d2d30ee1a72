#include "arrivals.hpp"

#include <algorithm>
#include <iterator>

namespace thinwire::launcher {
namespace {

double seconds(std::chrono::steady_clock::duration span) {
    return std::chrono::duration<double>(span).count();
}

}  // namespace

void arrivals::note(std::uint64_t round, peer_id peer, steady_time at) {
    if (round < next_) return;
    if (rounds_.size() >= rounds_ahead && !rounds_.contains(round)) {
        if (round > rounds_.rbegin()->first) return;
        rounds_.erase(std::prev(rounds_.end()));
    }
    payloads& here = rounds_[round];
    if (std::none_of(here.begin(), here.end(), [&](const auto& p) { return p.first == peer; }))
        here.emplace_back(peer, at);
}

void arrivals::close(std::uint64_t round, std::span<const peer_id> expected) {
    for (auto& [peer, one] : costs_) {
        one.seconds.reset();
        one.waited_for = false;
    }
    const std::vector<peer_id> absent = missing(round, expected);
    for (const peer_id peer : absent) {
        cost& one = costs_[peer];
        one.waited_for = true;
        ++one.waited_rounds;
    }
    if (const auto found = rounds_.find(round); found != rounds_.end()) {
        payloads& here = found->second;
        std::sort(here.begin(), here.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
        for (const auto& [peer, at] : here) costs_[peer].seconds = seconds(at - here.front().second);
        if (absent.empty() && here.size() > 1) {
            cost& last = costs_[here.back().first];
            last.waited_for = true;
            ++last.waited_rounds;
            last.waited_seconds += seconds(here.back().second - here[here.size() - 2].second);
        }
    }
    rounds_.erase(rounds_.begin(), rounds_.upper_bound(round));
    next_ = round + 1;
}

std::vector<peer_id> arrivals::missing(std::uint64_t round, std::span<const peer_id> expected) const {
    std::vector<peer_id> absent;
    const auto found = rounds_.find(round);
    for (const peer_id peer : expected)
        if (found == rounds_.end() ||
            std::none_of(found->second.begin(), found->second.end(), [&](const auto& p) { return p.first == peer; }))
            absent.push_back(peer);
    return absent;
}

void pace::note(std::uint64_t round, steady_time now) {
    last_ = {now, round};
    if (now - recent_.back().at >= std::chrono::seconds(1)) recent_.push_back(last_);
    // The newest that is older than a minute stays, as where the minute begins.
    while (recent_.size() > 1 && now - recent_[1].at >= std::chrono::minutes(1)) recent_.pop_front();
}

double pace::rate(const sample& from, const sample& to, steady_time now) {
    const double span = seconds(now - from.at);
    return span > 0 ? static_cast<double>(to.round - from.round) / span : 0.0;
}

double pace::whole(steady_time now) const {
    return rate(first_, last_, now);
}

double pace::minute(steady_time now) const {
    const sample* from = &recent_.front();
    for (const sample& one : recent_)
        if (now - one.at >= std::chrono::minutes(1)) from = &one;
    if (now - last_.at >= std::chrono::minutes(1)) return 0.0;
    return rate(*from, last_, now);
}

}  // namespace thinwire::launcher
