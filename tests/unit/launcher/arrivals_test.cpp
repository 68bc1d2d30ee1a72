#include "arrivals.hpp"

#include <doctest/doctest.h>

#include <array>
#include <chrono>
#include <vector>

using std::chrono::milliseconds;
using std::chrono::seconds;
using thinwire::peer_id;
using thinwire::launcher::arrivals;
using thinwire::launcher::pace;
using thinwire::launcher::steady_time;

namespace {

const steady_time origin{};
const std::array<peer_id, 3> everyone = {1, 2, 3};

}  // namespace

TEST_CASE("the peer that came last was waited for, by as much as it came after the one before it") {
    arrivals book;
    book.note(0, 2, origin + milliseconds(100));
    book.note(0, 1, origin + milliseconds(400));
    book.note(0, 3, origin + milliseconds(150));
    book.note(0, 3, origin + milliseconds(900));  // sent again
    book.close(0, everyone);
    CHECK(book.costs().at(1).waited_for);
    CHECK(book.costs().at(1).waited_rounds == 1);
    CHECK(book.costs().at(1).waited_seconds == doctest::Approx(0.25));
    CHECK(book.costs().at(1).seconds == doctest::Approx(0.3));
    CHECK_FALSE(book.costs().at(3).waited_for);
    CHECK(book.costs().at(3).waited_rounds == 0);
    CHECK(book.costs().at(2).seconds == doctest::Approx(0.0));
}

TEST_CASE("a peer that is there and sends nothing was waited for, and nobody else") {
    arrivals book;
    book.note(0, 1, origin);
    book.note(0, 2, origin + seconds(1));
    CHECK(book.missing(0, everyone) == std::vector<peer_id>{3});
    book.close(0, everyone);
    CHECK(book.costs().at(3).waited_for);
    CHECK_FALSE(book.costs().at(3).seconds);
    CHECK_FALSE(book.costs().at(2).waited_for);
    book.note(1, 3, origin + seconds(2));
    book.close(1, std::array<peer_id, 1>{3});
    CHECK_FALSE(book.costs().at(3).waited_for);
    CHECK(book.costs().at(3).waited_rounds == 1);
    CHECK_FALSE(book.costs().at(1).seconds);
}

TEST_CASE("a round that is closed takes no more, and few rounds ahead are kept") {
    arrivals book;
    book.close(4, {});
    book.note(4, 1, origin);
    CHECK(book.missing(4, std::array<peer_id, 1>{1}).size() == 1);
    for (std::uint64_t round = 5; round < 5 + arrivals::rounds_ahead; ++round) book.note(round, 1, origin);
    book.note(5 + arrivals::rounds_ahead, 1, origin);
    CHECK(book.missing(5 + arrivals::rounds_ahead, std::array<peer_id, 1>{1}).size() == 1);
    CHECK(book.missing(4 + arrivals::rounds_ahead, std::array<peer_id, 1>{1}).empty());
}

TEST_CASE("payloads for rounds far ahead do not hide those of this round") {
    arrivals book;
    for (std::uint64_t round = 1000; round < 1100; ++round) book.note(round, 3, origin);
    book.note(0, 1, origin);
    book.note(0, 2, origin + seconds(1));
    CHECK(book.missing(0, everyone) == std::vector<peer_id>{3});
}

TEST_CASE("rounds a second over a minute and over all") {
    pace run(100, origin);
    CHECK(run.whole(origin) == 0.0);
    for (int second = 1; second <= 100; ++second)
        run.note(100 + static_cast<std::uint64_t>(second) * 2, origin + seconds(second));
    for (int second = 101; second <= 200; ++second)
        run.note(300 + static_cast<std::uint64_t>(second - 100) * 5, origin + seconds(second));
    CHECK(run.whole(origin + seconds(200)) == doctest::Approx(3.5));
    CHECK(run.minute(origin + seconds(200)) == doctest::Approx(5.0));
    SUBCASE("one that stands still comes to rest") {
        CHECK(run.minute(origin + seconds(230)) < 5.0);
        CHECK(run.minute(origin + seconds(230)) > 0.0);
        CHECK(run.minute(origin + seconds(260)) == 0.0);
        run.note(801, origin + milliseconds(260500));
        CHECK(run.minute(origin + milliseconds(320400)) > 0.0);
        CHECK(run.minute(origin + milliseconds(320500)) == 0.0);
    }
}
