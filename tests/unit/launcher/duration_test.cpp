#include "commands.hpp"
#include <doctest/doctest.h>

#include <string>

using namespace thinwire::launcher;

TEST_CASE("how long an invite lasts is a number and a unit, and nothing else") {
    CHECK(parse_duration("1s") == 1);
    CHECK(parse_duration("30m") == 1800);
    CHECK(parse_duration("24h") == 86400);
    CHECK(parse_duration("365d") == 365 * 86400);
    for (const char* text : {"", "s", "24", "24 h", " 24h", "24hh", "24H", "1w", "0h", "-1h", "+1h", "1.5h", "366d",
                             "99999999999999999999d", "9223372036854775807s"}) {
        std::string line;
        try {
            (void)parse_duration(text);
        } catch (const launcher_error& problem) {
            CHECK(problem.code() == exit_code::usage);
            line = problem.what();
        }
        CHECK(line.find(std::string("--expires ") + text + ": expected a number and a unit") != std::string::npos);
    }
}
