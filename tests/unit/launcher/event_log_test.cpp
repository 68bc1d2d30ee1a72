#include "event_log.hpp"

#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

using thinwire::launcher::log_level;
using thinwire::launcher::log_line;

TEST_CASE("a line has time, level, run, round and peer in front, then the event and its fields") {
    const std::uint64_t round = 7;
    CHECK(log_line(1.5, log_level::info, "entered", "entered run ab", {{"present", 3}}, "ab", "lab", &round) ==
          R"({"ts":"1970-01-01T00:00:01.500Z","level":"info","run":"ab","round":7,"peer":"lab","event":"entered",)"
          R"("message":"entered run ab","present":3})");
    CHECK(log_line(1764099334.123456, log_level::warning, "x", "", nlohmann::json::object(), "", "", nullptr) ==
          R"({"ts":"2025-11-25T19:35:34.123Z","level":"warning","run":null,"round":null,"peer":null,"event":"x"})");
}

TEST_CASE("a line is one line of ASCII, whatever is in it, and fields do not replace what every line has") {
    const std::string line = log_line(0, log_level::error, "e", "two\nlines \x1b[2J \xff \u202e",
                                      {{"run", "other"}, {"n", "\n"}}, "ab", "l\"ab", nullptr);
    for (const char c : line) CHECK((c >= 0x20 && c < 0x7f));
    const nlohmann::json back = nlohmann::json::parse(line);
    CHECK(back["run"] == "ab");
    CHECK(back["peer"] == "l\"ab");
    CHECK(back["message"] == "two\nlines \x1b[2J \xef\xbf\xbd \u202e");
}

TEST_CASE("an invite in a line is not told") {
    using thinwire::launcher::without_invites;
    CHECK(without_invites("join 'thinwire1_AB-_9': no, nor thinwire1_C") ==
          "join 'thinwire1_...': no, nor thinwire1_...");
    CHECK(without_invites("begins with 'thinwire1_', not thinwire2") == "begins with 'thinwire1_', not thinwire2");
    CHECK(without_invites("").empty());
}

TEST_CASE("a file that is asked for again, as by a peer that starts anew, gets each event once") {
    std::string folder = (std::filesystem::temp_directory_path() / "thinwire-events-XXXXXX").string();
    REQUIRE(::mkdtemp(folder.data()) != nullptr);
    const std::filesystem::path file = std::filesystem::path(folder) / "events.jsonl";
    for (int i = 0; i < 2; ++i) thinwire::launcher::log_to_file(file);
    thinwire::launcher::log_note(log_level::info, "behind", nlohmann::json::object());
    int lines = 0;
    std::ifstream in(file);
    for (std::string line; std::getline(in, line);) ++lines;
    CHECK(lines == 1);
    std::filesystem::remove_all(folder);
}
