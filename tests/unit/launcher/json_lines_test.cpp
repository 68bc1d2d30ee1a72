#include "json_lines.hpp"

#include <thinwire/core/error.hpp>

#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

using thinwire::launcher::json_lines_follower;
using thinwire::launcher::json_lines_writer;

namespace {

/// A folder that is gone at the end of the test.
struct scratch {
    std::filesystem::path root =
        std::filesystem::temp_directory_path() / ("thinwire-launcher-" + std::to_string(::getpid()));
    scratch() { std::filesystem::create_directories(root); }
    ~scratch() { std::filesystem::remove_all(root); }
};

}  // namespace

TEST_CASE("what one process writes another follows, each line once") {
    const scratch folder;
    const auto file = folder.root / "metrics.jsonl";
    json_lines_follower follower(file);
    CHECK(follower.poll().empty());
    json_lines_writer writer(file);
    writer.write({{"round", 1}});
    writer.write({{"round", 2}, {"name", "with\nnewline and \xff"}});
    const auto lines = follower.poll();
    REQUIRE(lines.size() == 2);
    CHECK(lines[1]["round"] == 2);
    CHECK(follower.poll().empty());
    writer.write({{"round", 3}});
    CHECK(follower.poll().size() == 1);
}

TEST_CASE("a line that a kill cut off damages no other") {
    const scratch folder;
    const auto file = folder.root / "metrics.jsonl";
    std::ofstream(file) << "{\"round\":1}\n{\"roun";
    json_lines_follower follower(file);
    CHECK(follower.poll().size() == 1);
    json_lines_writer writer(file);
    writer.write({{"round", 3}});
    const auto lines = follower.poll();
    REQUIRE(lines.size() == 1);
    CHECK(lines[0]["round"] == 3);
}

TEST_CASE("a file that cannot be written names itself") {
    CHECK_THROWS_AS(json_lines_writer("/no/such/folder/metrics.jsonl"), thinwire::io_error);
    json_lines_writer full("/dev/full");
    CHECK_THROWS_AS(full.write({{"round", 1}}), thinwire::io_error);
}
