#include "commands.hpp"

#include <thinwire/runtime/access.hpp>

#include "directory.hpp"
#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

using namespace thinwire::launcher;

TEST_CASE("allow: a key keeps its name when none is given, and takes one of at most 64 bytes") {
    std::string folder = (std::filesystem::temp_directory_path() / "thinwire-allow-XXXXXX").string();
    REQUIRE(::mkdtemp(folder.data()) != nullptr);
    const directory here{folder}, there{here.root / "there"};
    make_directory(there.root);
    (void)own_identity(here);
    const auto key = own_identity(there).key();
    const auto name = [&] { return thinwire::runtime::access_list(here.access()).rules().find(key)->name; };
    CHECK(allow(folder, to_string(key), "") == exit_code::ok);
    CHECK(name().empty());
    CHECK(allow(folder, to_string(key), "lab") == exit_code::ok);
    CHECK(allow(folder, to_string(key), "") == exit_code::ok);
    CHECK(name() == "lab");
    CHECK(allow(folder, to_string(key), std::string(64, 'n')) == exit_code::ok);
    CHECK(name() == std::string(64, 'n'));
    std::string line;
    try {
        (void)allow(folder, to_string(key), std::string(65, 'm'));
    } catch (const launcher_error& problem) {
        CHECK(problem.code() == exit_code::usage);
        line = problem.what();
    }
    CHECK(line == "allow: --name of 65 bytes: expected at most 64");
    CHECK(name() == std::string(64, 'n'));
    std::filesystem::remove_all(folder);
}
