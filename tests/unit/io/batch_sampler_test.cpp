#include <thinwire/core/random.hpp>
#include <thinwire/io/batch_sampler.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <set>
#include <vector>

using thinwire::batch_sampler;

namespace {

std::vector<std::byte> text(std::size_t size) {
    std::vector<std::byte> bytes(size);
    thinwire::random_stream random(3);
    for (std::byte& b : bytes) b = static_cast<std::byte>(random.below(256));
    return bytes;
}

}  // namespace

TEST_CASE("batch_sampler: an epoch takes every window once, across slots and rounds") {
    const auto corpus = text(10007);
    for (const std::uint64_t slots : {1ULL, 3ULL, 16ULL, 1000ULL}) {
        CAPTURE(slots);
        const batch_sampler sampler(corpus, {.sequence_length = 64, .slots_per_round = slots, .seed = 9});
        const std::uint64_t windows = sampler.windows_per_epoch();
        REQUIRE(windows == 155);
        for (std::uint64_t epoch = 0; epoch < 3; ++epoch) {
            std::set<std::ptrdiff_t> starts;
            for (std::uint64_t i = epoch * windows; i < (epoch + 1) * windows; ++i) {
                const auto window = sampler.sample(i / slots, i % slots);
                REQUIRE(window.size() == 65);
                const std::ptrdiff_t start = window.data() - corpus.data();
                REQUIRE(start >= 0);
                REQUIRE(start + 65 <= 10007);
                starts.insert(start);
            }
            REQUIRE(starts.size() == windows);
            std::ptrdiff_t before = -64;
            for (const std::ptrdiff_t start : starts) {
                REQUIRE(start - before >= 64);  // targets do not overlap
                before = start;
            }
        }
    }
}

TEST_CASE("batch_sampler: a pure function of its arguments; seeds and epochs differ") {
    const auto corpus = text(5000);
    const batch_sampler a(corpus, {.sequence_length = 32, .slots_per_round = 8, .seed = 1});
    const batch_sampler again(corpus, {.sequence_length = 32, .slots_per_round = 8, .seed = 1});
    const batch_sampler other(corpus, {.sequence_length = 32, .slots_per_round = 8, .seed = 2});
    int equal = 0;
    for (std::uint64_t i = 400; i-- > 0;) {
        CHECK(a.sample(i / 8, i % 8).data() == again.sample(i / 8, i % 8).data());
        equal += a.sample(i / 8, i % 8).data() == other.sample(i / 8, i % 8).data() ? 1 : 0;
    }
    CHECK(equal < 20);
    std::set<std::ptrdiff_t> offsets;
    for (std::uint64_t epoch = 0; epoch < 50; ++epoch) {
        const std::uint64_t i = epoch * a.windows_per_epoch();
        offsets.insert((a.sample(i / 8, i % 8).data() - corpus.data()) % 32);
    }
    CHECK(offsets.size() > 15);  // boundaries shift
}

TEST_CASE("batch_sampler: the order is fixed for ever") {
    const auto corpus = text(100000);
    const batch_sampler sampler(corpus, {.sequence_length = 128, .slots_per_round = 4, .seed = 42});
    std::vector<std::ptrdiff_t> starts;
    for (std::uint64_t slot = 0; slot < 4; ++slot) starts.push_back(sampler.sample(1000, slot).data() - corpus.data());
    CHECK(starts == std::vector<std::ptrdiff_t>{30373, 67877, 87973, 40613});
}

TEST_CASE("batch_sampler: rows of tokens and the targets one byte on") {
    const auto corpus = text(1000);
    const batch_sampler sampler(corpus, {.sequence_length = 10, .slots_per_round = 6, .seed = 4});
    std::vector<std::int32_t> tokens(20);
    std::vector<std::int32_t> targets(20);
    sampler.fill(5, 2, tokens, targets);
    for (std::size_t row = 0; row < 2; ++row) {
        const auto window = sampler.sample(5, 2 + row);
        for (std::size_t i = 0; i < 10; ++i) {
            CHECK(tokens[row * 10 + i] == std::to_integer<std::int32_t>(window[i]));
            CHECK(targets[row * 10 + i] == std::to_integer<std::int32_t>(window[i + 1]));
        }
    }
    CHECK_THROWS_WITH_AS(sampler.fill(5, 5, tokens, targets), "batch_sampler: slot 6, expected less than 6",
                         thinwire::value_error);
    targets.resize(10);
    CHECK_THROWS_AS(sampler.fill(5, 2, tokens, targets), thinwire::shape_error);
}

TEST_CASE("batch_sampler: the smallest corpus is one window, a smaller one is refused") {
    const auto corpus = text(11);
    const batch_sampler sampler(corpus, {.sequence_length = 10, .slots_per_round = 2, .seed = 4});
    CHECK(sampler.windows_per_epoch() == 1);
    for (std::uint64_t round = 0; round < 20; ++round) CHECK(sampler.sample(round, 1).data() == corpus.data());
    CHECK_THROWS_WITH_AS(batch_sampler(corpus, {.sequence_length = 11}),
                         "batch_sampler: corpus of 11 bytes, expected at least 12", thinwire::value_error);
    CHECK_THROWS_AS(batch_sampler(corpus, {.sequence_length = 0}), thinwire::value_error);
    CHECK_THROWS_AS(batch_sampler(corpus, {.sequence_length = 1, .slots_per_round = 0}), thinwire::value_error);
}

TEST_CASE("batch_sampler: every corpus size keeps windows inside") {
    for (std::size_t size = 9; size < 60; ++size) {
        const auto corpus = text(size);
        const batch_sampler sampler(corpus, {.sequence_length = 8, .slots_per_round = 1, .seed = size});
        for (std::uint64_t round = 0; round < 200; ++round) {
            const auto window = sampler.sample(round, 0);
            REQUIRE(window.data() >= corpus.data());
            REQUIRE(window.data() + window.size() <= corpus.data() + corpus.size());
        }
    }
}

TEST_CASE("batch_sampler: the longest sequence that can be written is refused, not wrapped around") {
    const std::vector<std::byte> text(100);
    CHECK_THROWS_AS(batch_sampler(text, {.sequence_length = std::numeric_limits<std::size_t>::max()}),
                    thinwire::value_error);
}
