#include "dashboard/rounds.hpp"

#include <thinwire/core/random.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

using namespace thinwire;
using namespace thinwire::launcher;

namespace {

round_span one_round(std::uint64_t round, double loss) {
    round_span span{.first = round, .last = round, .time = static_cast<double>(round), .seen = 1};
    span.tokens = 10 + round % 7;
    span.seconds = 0.5;
    span.sent = round % 5;
    span.contributions = 3;
    span.loss.add(loss);
    return span;
}

}  // namespace

TEST_CASE("rounds: what is not finite is no value") {
    value_range range;
    range.add(std::numeric_limits<double>::quiet_NaN());
    range.add(std::numeric_limits<double>::infinity());
    CHECK(range.count == 0);
    range.add(2);
    range.add(-1);
    CHECK(range.low == -1);
    CHECK(range.high == 2);
    CHECK(range.sum == 1);
}

TEST_CASE("rounds: sums, least and greatest stay exact however many are added, and memory is bounded") {
    constexpr std::size_t capacity = 32;
    random_stream random(7);
    round_history history(capacity);
    std::vector<round_span> told;
    std::uint64_t round = 0;
    for (int i = 0; i < 20000; ++i) {
        round += 1 + (random.below(10) == 0 ? random.below(40) : 0);  // gaps, as of a peer that was away
        told.push_back(one_round(round, 5.0 - random.uniform()));
        history.add(told.back());
        if (i % 997 != 0 && i != 19999) continue;
        const std::vector<round_span> spans = history.all();
        CHECK(spans.size() == history.size());
        // As many levels as there are doublings of the rounds.
        CHECK(spans.size() <= (capacity + 1) * (2 + static_cast<std::size_t>(std::log2(round + 1))));
        std::size_t at = 0;
        for (std::size_t s = 0; s < spans.size(); ++s) {
            const round_span& span = spans[s];
            if (s > 0) CHECK(span.first > spans[s - 1].last);
            round_span expected = told[at++];
            while (at < told.size() && told[at].last <= span.last) expected.append(told[at++]);
            CHECK(span.first == expected.first);
            CHECK(span.last == expected.last);
            CHECK(span.time == expected.time);
            CHECK(span.seen == expected.seen);
            CHECK(span.tokens == expected.tokens);
            CHECK(span.sent == expected.sent);
            CHECK(span.contributions == expected.contributions);
            CHECK(span.loss.count == expected.loss.count);
            CHECK(span.loss.low == expected.loss.low);
            CHECK(span.loss.high == expected.loss.high);
            CHECK(std::abs(span.loss.sum - expected.loss.sum) < 1e-6);
            CHECK(span.seconds == expected.seconds);
        }
        CHECK(at == told.size());
        const std::vector<round_span> newest = history.newest(capacity);
        for (std::size_t k = 1; k <= std::min(newest.size(), told.size()); ++k)
            CHECK(newest[newest.size() - k].last == told[told.size() - k].last);
    }
}

TEST_CASE(
    "rounds: a million of them are some thousand points, the newest one by one, older ones never coarser than their "
    "age") {
    round_history history;
    constexpr std::uint64_t rounds = 1'000'000;
    for (std::uint64_t i = 0; i < rounds; ++i) history.add(one_round(i, 1));
    const std::vector<round_span> spans = history.all();
    CHECK(spans.size() < 7000);
    CHECK(spans.front().first == 0);
    CHECK(spans.back().last == rounds - 1);
    for (const round_span& span : spans) {
        const std::uint64_t age = rounds - span.first;
        CHECK(span.last - span.first + 1 <= std::max<std::uint64_t>(1, age / 256));
    }
    CHECK(history.newest(1000).size() == 1000);
    history.clear();
    CHECK(history.empty());
    CHECK(history.all().empty());
    CHECK(history.newest(3).empty());
}
