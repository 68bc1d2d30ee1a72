#include "dashboard/rounds.hpp"

#include <algorithm>
#include <cmath>

namespace thinwire::launcher {

void value_range::add(double value) {
    if (!std::isfinite(value)) return;
    low = std::min(low, value);
    high = std::max(high, value);
    sum += value;
    ++count;
}

void value_range::add(const value_range& other) {
    low = std::min(low, other.low);
    high = std::max(high, other.high);
    sum += other.sum;
    count += other.count;
}

void round_span::append(const round_span& next) {
    last = next.last;
    time = next.time;
    seen += next.seen;
    tokens += next.tokens;
    seconds += next.seconds;
    computed += next.computed;
    waited += next.waited;
    sent += next.sent;
    received += next.received;
    contributions += next.contributions;
    disagreeing += next.disagreeing;
    loss.add(next.loss);
}

void round_history::add(const round_span& next) {
    if (levels_.empty()) levels_.emplace_back();
    levels_[0].push_back(next);
    // 64 levels hold any number of rounds.
    for (std::size_t i = 0; i < levels_.size() && i < 63 && levels_[i].size() > capacity_; ++i) {
        if (i + 1 == levels_.size()) levels_.emplace_back();
        std::deque<round_span>& older = levels_[i + 1];
        // By where they begin: of a block of the next level, its second half joins its first.
        const round_span& oldest = levels_[i].front();
        if (!older.empty() && older.back().first >> (i + 1) == oldest.first >> (i + 1))
            older.back().append(oldest);
        else
            older.push_back(oldest);
        levels_[i].pop_front();
    }
}

bool round_history::empty() const {
    return levels_.empty();  // whatever was added left its newest in level 0
}

std::size_t round_history::size() const {
    std::size_t count = 0;
    for (const auto& level : levels_) count += level.size();
    return count;
}

std::vector<round_span> round_history::all() const {
    std::vector<round_span> spans;
    spans.reserve(size());
    for (auto level = levels_.rbegin(); level != levels_.rend(); ++level)
        spans.insert(spans.end(), level->begin(), level->end());
    return spans;
}

std::vector<round_span> round_history::newest(std::size_t count) const {
    std::vector<round_span> spans;
    for (const auto& level : levels_)
        for (auto one = level.rbegin(); one != level.rend() && spans.size() < count; ++one) spans.push_back(*one);
    std::reverse(spans.begin(), spans.end());
    return spans;
}

}  // namespace thinwire::launcher
