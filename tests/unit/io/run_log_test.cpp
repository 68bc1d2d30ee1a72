#include <thinwire/core/random.hpp>
#include <thinwire/io/run_log.hpp>

#include "folder.hpp"
#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

using thinwire::commit;
using thinwire::contribution;
using thinwire::digest;
using thinwire::digest_of;
using thinwire::errc;
using thinwire::read_file;
using thinwire::run_log;
using thinwire::write_file_atomically;
using thinwire_test::bytes_of;
using thinwire_test::temporary_folder;
using thinwire_test::with_full_disk;

namespace {

const digest run = digest_of(bytes_of("a run"));

/// What a commit says, owned.
struct told {
    std::uint64_t round = 0;
    std::vector<std::pair<std::uint64_t, std::vector<std::byte>>> parts;
    bool operator==(const told&) const = default;
};

/// A commit that depends on the round only; round 2 has none, others up to three contributions.
told made(std::uint64_t round) {
    told out{.round = round, .parts = {}};
    for (std::uint64_t p = 0; p < (round + 1) % 4; ++p)
        out.parts.emplace_back(p * 1000 + round, bytes_of(std::string(p * 7, static_cast<char>('a' + round % 26))));
    if (round == 2) out.parts.clear();
    return out;
}

void append(run_log& log, const told& what) {
    std::vector<contribution> parts;
    for (const auto& [peer, payload] : what.parts) parts.push_back({.peer = peer, .payload = payload});
    log.append({.round = what.round, .contributions = parts});
}

std::vector<told> all_of(const run_log& log, std::uint64_t from) {
    std::vector<told> out;
    const auto read = log.read(from, [&](const commit& c) {
        told one{.round = c.round, .parts = {}};
        for (const contribution& part : c.contributions)
            one.parts.emplace_back(part.peer, std::vector<std::byte>(part.payload.begin(), part.payload.end()));
        out.push_back(std::move(one));
    });
    REQUIRE(read);
    return out;
}

std::vector<told> made_range(std::uint64_t from, std::uint64_t to) {
    std::vector<told> out;
    for (std::uint64_t r = from; r < to; ++r) out.push_back(made(r));
    return out;
}

/// A log of rounds [0, rounds) and where each frame ends.
std::vector<std::uint64_t> write_log(const std::filesystem::path& path, std::uint64_t rounds) {
    std::filesystem::remove(path);
    auto log = run_log::open(path, run);
    REQUIRE(log);
    std::vector<std::uint64_t> ends = {log->bytes()};
    for (std::uint64_t r = 0; r < rounds; ++r) {
        append(*log, made(r));
        ends.push_back(log->bytes());
    }
    return ends;
}

}  // namespace

TEST_CASE("run_log: rounds come back in order, from any round, also after reopening") {
    const temporary_folder folder;
    {
        auto log = run_log::open(folder / "log", run, {.durable = true});
        REQUIRE(log);
        CHECK(log->next_round() == 0);
        for (std::uint64_t r = 0; r < 9; ++r) append(*log, made(r));
        CHECK(all_of(*log, 0) == made_range(0, 9));
    }
    auto log = run_log::open(folder / "log", run, {.first_round = 77});
    REQUIRE(log);
    CHECK(log->first_round() == 0);
    CHECK(log->next_round() == 9);
    CHECK(log->cut_bytes() == 0);
    for (std::uint64_t r = 9; r < 12; ++r) append(*log, made(r));
    for (std::uint64_t from = 0; from <= 12; ++from) CHECK(all_of(*log, from) == made_range(from, 12));
    CHECK(all_of(*log, 100).empty());
    std::vector<std::uint64_t> middle;
    REQUIRE(log->read(3, 6, [&](const commit& c) { middle.push_back(c.round); }));
    CHECK(middle == std::vector<std::uint64_t>{3, 4, 5});
}

TEST_CASE("run_log: begins at the round it is told to") {
    const temporary_folder folder;
    {
        auto log = run_log::open(folder / "log", run, {.first_round = 40});
        REQUIRE(log);
        append(*log, made(40));
    }
    const auto log = run_log::open(folder / "log", run);
    REQUIRE(log);
    CHECK(log->first_round() == 40);
    CHECK(all_of(*log, 40) == made_range(40, 41));
    const auto early = log->read(39, [](const commit&) {});
    REQUIRE_FALSE(early);
    CHECK(early.error().message ==
          "log '" + (folder / "log").string() + "': round 39 asked for, it begins with round 40");
}

TEST_CASE("run_log: a gap and a round twice are refused, and the log stays usable") {
    const temporary_folder folder;
    auto log = run_log::open(folder / "log", run);
    REQUIRE(log);
    append(*log, made(0));
    const std::string wanted = "log '" + (folder / "log").string() + "': round 2 to append, expected 1";
    CHECK_THROWS_WITH_AS(append(*log, made(2)), wanted.c_str(), thinwire::value_error);
    CHECK_THROWS_AS(append(*log, made(0)), thinwire::value_error);
    append(*log, made(1));
    CHECK(all_of(*log, 0) == made_range(0, 2));
}

TEST_CASE("run_log: a tail torn at any byte is cut, and the log goes on from there") {
    const temporary_folder folder;
    const auto ends = write_log(folder / "whole", 6);
    const auto bytes = read_file(folder / "whole");
    for (std::size_t size = 0; size <= bytes.size(); ++size) {
        CAPTURE(size);
        write_file_atomically(folder / "log", std::span(bytes).first(size));
        auto log = run_log::open(folder / "log", run);
        REQUIRE(log);
        std::uint64_t kept = 0;
        while (kept < 6 && ends[kept + 1] <= size) ++kept;
        CHECK(log->next_round() == kept);
        CHECK(log->cut_bytes() == (size < ends[0] ? size : size - ends[kept]));
        CHECK(log->bytes() == ends[kept]);
        append(*log, made(kept));
        CHECK(all_of(*log, 0) == made_range(0, kept + 1));
    }
}

TEST_CASE("run_log: a tail of zeros, or a last frame whose bytes did not arrive, is cut") {
    const temporary_folder folder;
    const auto ends = write_log(folder / "whole", 6);
    const auto bytes = read_file(folder / "whole");
    for (std::size_t from = ends[5]; from < bytes.size(); ++from) {
        CAPTURE(from);
        auto torn = bytes;
        for (std::size_t i = from; i < torn.size(); ++i) torn[i] = std::byte{0};
        if (torn == bytes) continue;
        write_file_atomically(folder / "log", torn);
        const auto log = run_log::open(folder / "log", run);
        REQUIRE(log);
        CHECK(log->next_round() == 5);
    }
}

TEST_CASE("run_log: any altered bit is cut off with the last round or refused, never read") {
    const temporary_folder folder;
    const auto ends = write_log(folder / "whole", 5);
    const auto bytes = read_file(folder / "whole");
    for (std::size_t at = 0; at < bytes.size(); ++at) {
        CAPTURE(at);
        auto altered = bytes;
        altered[at] ^= static_cast<std::byte>(1U << (at % 8));
        write_file_atomically(folder / "log", altered);
        const auto log = run_log::open(folder / "log", run);
        if (log) {
            CHECK(at >= ends[4]);
            CHECK(all_of(*log, 0) == made_range(0, 4));
        } else {
            CHECK(read_file(folder / "log") == altered);  // refused: left as it was
        }
    }
}

TEST_CASE("run_log: damage before the end is named and not cut") {
    const temporary_folder folder;
    const auto ends = write_log(folder / "log", 5);
    auto bytes = read_file(folder / "log");
    bytes[ends[3] - 1] ^= std::byte{1};
    write_file_atomically(folder / "log", bytes);
    const auto log = run_log::open(folder / "log", run);
    REQUIRE_FALSE(log);
    CHECK(log.error().code == errc::bad_checksum);
    CHECK(log.error().message == "log '" + (folder / "log").string() + "': damaged at byte " + std::to_string(ends[2]) +
                                     ", where round 2 should begin");
    CHECK(read_file(folder / "log") == bytes);
}

TEST_CASE("run_log: damage after opening is refused when it is read") {
    const temporary_folder folder;
    const auto ends = write_log(folder / "log", 5);
    const auto log = run_log::open(folder / "log", run);
    REQUIRE(log);
    auto bytes = read_file(folder / "log");
    bytes[ends[4] - 1] ^= std::byte{1};
    write_file_atomically(folder / "log", bytes);
    int seen = 0;
    const auto read = log->read(0, [&](const commit&) { ++seen; });
    REQUIRE_FALSE(read);
    CHECK(read.error().code == errc::bad_checksum);
    CHECK(seen == 3);
}

TEST_CASE("run_log: rounds that are missing in the file are refused") {
    const temporary_folder folder;
    const auto ends = write_log(folder / "log", 5);
    auto bytes = read_file(folder / "log");
    bytes.erase(bytes.begin() + static_cast<std::ptrdiff_t>(ends[1]),
                bytes.begin() + static_cast<std::ptrdiff_t>(ends[2]));
    write_file_atomically(folder / "log", bytes);
    const auto log = run_log::open(folder / "log", run);
    REQUIRE_FALSE(log);
    CHECK(log.error().message == "log '" + (folder / "log").string() + "': round 2 stands where round 1 should");
}

TEST_CASE("run_log: another run, another version and another kind of file are refused and left alone") {
    const temporary_folder folder;
    write_log(folder / "log", 2);
    const digest other = digest_of(bytes_of("another run"));
    const auto refused = run_log::open(folder / "log", other);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == errc::mismatch);
    CHECK(refused.error().message == "log '" + (folder / "log").string() + "': it belongs to run " +
                                         to_string(run, 12) + ", this is run " + to_string(other, 12));

    auto bytes = read_file(folder / "log");
    bytes[4] = std::byte{9};
    write_file_atomically(folder / "log", bytes);
    CHECK(run_log::open(folder / "log", run).error().code == errc::bad_version);

    const auto text = bytes_of("In the beginning God created the heaven and the earth.\n");
    write_file_atomically(folder / "text", text);
    CHECK(run_log::open(folder / "text", run).error().code == errc::bad_magic);
    CHECK(read_file(folder / "text") == text);
    write_file_atomically(folder / "short", bytes_of("In"));
    CHECK(run_log::open(folder / "short", run).error().code == errc::bad_magic);
    CHECK_THROWS_AS((void)run_log::open(folder / "none/log", run), thinwire::io_error);
}

TEST_CASE("run_log: sealed nonsense is refused or read, never more") {
    const temporary_folder folder;
    write_log(folder / "whole", 1);
    const auto header = std::vector(read_file(folder / "whole"));
    thinwire::random_stream random(5);
    for (int trial = 0; trial < 2000; ++trial) {
        thinwire::byte_writer body;
        body.put(std::uint64_t{0});
        body.put(static_cast<std::uint32_t>(random.below(4)));
        const auto rest = random.below(40);
        for (std::uint64_t i = 0; i < rest; ++i) body.put(static_cast<std::uint8_t>(random.below(3) == 0 ? 8 : 0));
        thinwire::byte_writer frame;
        frame.put(static_cast<std::uint32_t>(body.size()));
        frame.put(thinwire::detail::log_check(frame.bytes()));
        frame.put(thinwire::detail::log_check(body.bytes()));
        frame.put(body.bytes());
        auto bytes = std::vector(header.begin(), header.begin() + thinwire::detail::log_header_bytes);
        bytes.insert(bytes.end(), frame.bytes().begin(), frame.bytes().end());
        write_file_atomically(folder / "log", bytes);
        const auto log = run_log::open(folder / "log", run);
        if (log) {
            CHECK(all_of(*log, 0).size() == 1);
        } else {
            CHECK(log.error().code == errc::malformed);
        }
    }
}

TEST_CASE("run_log: a full disk loses only the round that did not fit, and says so") {
    const temporary_folder folder;
    const int code = with_full_disk(400, [&] {
        auto log = run_log::open(folder / "log", run);
        if (!log) return 1;
        const std::vector<std::byte> payload(150, std::byte{7});
        const std::vector<contribution> parts = {{.peer = 1, .payload = payload}};
        log->append({.round = 0, .contributions = parts});
        try {
            log->append({.round = 1, .contributions = parts});
            return 2;
        } catch (const thinwire::io_error& failed) {
            if (std::string(failed.what()) != "write '" + (folder / "log").string() + "': File too large") return 3;
        }
        if (log->next_round() != 1) return 4;
        log->append({.round = 1, .contributions = {}});
        return 0;
    });
    CHECK(code == 0);
    const auto log = run_log::open(folder / "log", run);
    REQUIRE(log);
    CHECK(log->next_round() == 2);
    CHECK(log->cut_bytes() == 0);
}
