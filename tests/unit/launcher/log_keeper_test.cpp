#include "log_keeper.hpp"

#include "exit_code.hpp"
#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

using namespace thinwire::launcher;

namespace {

using rounds = std::vector<std::uint64_t>;

struct folder {
    folder() {
        std::string pattern = (std::filesystem::temp_directory_path() / "thinwire-keeper-XXXXXX").string();
        REQUIRE(::mkdtemp(pattern.data()) != nullptr);
        path = pattern;
    }
    folder(const folder&) = delete;
    folder& operator=(const folder&) = delete;
    ~folder() {
        std::error_code ignored;
        std::filesystem::remove_all(path, ignored);
    }
    std::filesystem::path path;
};

thinwire::snapshot at(std::uint64_t round) {
    thinwire::snapshot made;
    made.round = round;
    return made;
}

std::string keep_refused(std::string_view text) {
    try {
        (void)parse_keep_log(text);
    } catch (const launcher_error& problem) {
        CHECK(problem.code() == exit_code::usage);
        return problem.what();
    }
    return {};
}

}  // namespace

TEST_CASE("log_keeper: what run.keep_log says") {
    CHECK(parse_keep_log("all").all());
    CHECK(parse_keep_log("5000 rounds").rounds == 5000);
    CHECK(parse_keep_log("1 round").rounds == 1);
    CHECK(parse_keep_log("200 MB").bytes == 200'000'000);
    CHECK(parse_keep_log("10 GB").bytes == 10'000'000'000);
    for (const char* text : {"", "none", "0 rounds", "0 MB", "5000", "-3 rounds", "10 TB", "1.5 GB", "10 GB ", "10  GB",
                             "99999999999999999999 GB", "18446744074 GB"}) {
        CAPTURE(text);
        CHECK(keep_refused(text).find("run.keep_log = " + std::string(text) + ": expected all, ") != std::string::npos);
    }
    CHECK(parse_keep_log("all").segment_bytes() == 64U << 20U);
    CHECK(parse_keep_log("9 rounds").segment_bytes() == 64U << 20U);
    CHECK(parse_keep_log("1 MB").segment_bytes() == 64U << 10U);
    CHECK(parse_keep_log("160 MB").segment_bytes() == 10'000'000);
    CHECK(parse_keep_log("900 GB").segment_bytes() == 64U << 20U);
    CHECK(parse_keep_log("all").segment_rounds() == UINT64_MAX);
    CHECK(parse_keep_log("10 GB").segment_rounds() == UINT64_MAX);
    CHECK(parse_keep_log("5000 rounds").segment_rounds() == 312);
    CHECK(parse_keep_log("9 rounds").segment_rounds() == 16);
}

TEST_CASE("log_keeper: there is a snapshot from which the log can be replayed") {
    const folder log;
    std::ofstream(log.path / "7.snapshot") << "not one of ours";
    std::ofstream(log.path / "00000000000000000007.log") << "a segment";
    log_keeper keeper(log.path, {});
    keeper.begin(0, 3, [] { return at(3); });
    CHECK(log_snapshots(log.path) == rounds{3});
    CHECK(thinwire::snapshot::load(log_snapshot(log.path, 3))->round == 3);
    SUBCASE("it stays") {
        keeper.begin(0, 9, [] { return at(9); });
        CHECK(log_snapshots(log.path) == rounds{3});
        keeper.begin(3, 9, [] { return at(9); });
        CHECK(log_snapshots(log.path) == rounds{3});
    }
    SUBCASE("the log begins later") {
        keeper.begin(4, 9, [] { return at(9); });
        CHECK(log_snapshots(log.path) == rounds{9});
    }
    SUBCASE("all is kept, however long the log") {
        CHECK(keeper.advance(1'000'000, UINT64_MAX, [] { return at(0); }) == 0);
        CHECK(log_snapshots(log.path) == rounds{3});
    }
}

TEST_CASE("log_keeper: by rounds, the newest can always be replayed, and no more than twice as many") {
    const folder log;
    log_keeper keeper(log.path, {.rounds = 50});
    keeper.begin(0, 0, [] { return at(0); });
    std::uint64_t last = 0;
    for (std::uint64_t round = 20; round <= 2000; round += 20) {
        const std::uint64_t needed = keeper.advance(round, 0, [&] { return at(round); });
        CAPTURE(round);
        CHECK(needed >= last);
        last = needed;
        CHECK(needed == log_snapshots(log.path).front());
        CHECK(log_snapshots(log.path).size() <= 2);
        if (round >= 50) CHECK(round - needed >= 50);
        CHECK(round - needed < 2 * (50 + 20));
        // A founder that was killed and came back.
        keeper = log_keeper(log.path, {.rounds = 50});
        keeper.begin(needed, round, [&] { return at(round); });
    }
    CHECK(last > 1800);
}

TEST_CASE("log_keeper: by bytes, between half and all of them stay") {
    const folder log;
    constexpr std::uint64_t limit = 1'000'000;
    constexpr std::uint64_t a_round = 3000;
    log_keeper keeper(log.path, {.bytes = limit});
    keeper.begin(0, 0, [] { return at(0); });
    std::uint64_t begins = 0;
    for (std::uint64_t round = 10; round <= 5000; round += 10) {
        const std::uint64_t held = (round - begins) * a_round;
        CHECK(held < limit + 10 * a_round + 1);
        begins = keeper.advance(round, held, [&] { return at(round); });
        if (round * a_round > limit) CHECK((round - begins) * a_round >= limit / 2 - 10 * a_round);
    }
    CHECK(begins > 4600);
}
