#include <thinwire/core/random.hpp>
#include <thinwire/io/run_log.hpp>

#include "folder.hpp"
#include "rounds.hpp"
#include <doctest/doctest.h>
#include <support/memory_disk.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

using thinwire::commit;
using thinwire::contribution;
using thinwire::digest;
using thinwire::digest_of;
using thinwire::errc;
using thinwire::log_record;
using thinwire::log_vote;
using thinwire::read_file;
using thinwire::run_log;
using thinwire::run_log_options;
using thinwire::write_file_atomically;
using thinwire_test::all_of;
using thinwire_test::append;
using thinwire_test::bytes_of;
using thinwire_test::made;
using thinwire_test::made_range;
using thinwire_test::memory_disk;
using thinwire_test::run;
using thinwire_test::temporary_folder;
using thinwire_test::told;
using thinwire_test::with_full_disk;

namespace {

std::filesystem::path segment(const std::filesystem::path& log, std::uint64_t first = 0) {
    std::string name = std::to_string(first);
    return log / (std::string(20 - name.size(), '0') + name + ".log");
}

/// A log of rounds [0, rounds) in one segment, and where each frame ends.
std::vector<std::uint64_t> write_log(const std::filesystem::path& path, std::uint64_t rounds, bool durable = false) {
    std::filesystem::remove_all(path);
    auto log = run_log::open(path, run, {.durable = durable});
    REQUIRE(log);
    std::vector<std::uint64_t> ends = {log->bytes()};
    for (std::uint64_t r = 0; r < rounds; ++r) {
        append(*log, made(r));
        ends.push_back(log->bytes());
    }
    return ends;
}

/// Segments of about 500 bytes.
std::uint64_t write_segments(const std::filesystem::path& path, std::uint64_t rounds) {
    auto log = run_log::open(path, run, {.segment_bytes = 500});
    REQUIRE(log);
    for (std::uint64_t r = 0; r < rounds; ++r) append(*log, made(r));
    std::uint64_t segments = 0;
    for (const auto& entry : std::filesystem::directory_iterator(path)) segments += entry.is_regular_file() ? 1 : 0;
    return segments;
}

void write_segment(const std::filesystem::path& path, std::span<const std::byte> bytes) {
    std::filesystem::create_directories(path);
    write_file_atomically(segment(path), bytes);
}

/// A disk that holds one segment, for tests that open thousands of logs.
struct small_disk {
    memory_disk files;
    std::filesystem::path log = "/log";

    small_disk() { files.put_folder(log); }
    thinwire::result<run_log> open(std::span<const std::byte> bytes) {
        files.put(segment(log), bytes);
        return run_log::open(log, run, {.files = &files});
    }
};

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
    CHECK(all_of(*log, 3, 6) == made_range(3, 6));
    CHECK(all_of(*log, 6, 3).empty());
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
    const std::string wanted = "log '" + (folder / "log").string() + "': round 2 stands where round 1 should";
    CHECK_THROWS_WITH_AS(append(*log, made(2)), wanted.c_str(), thinwire::value_error);
    CHECK_THROWS_AS(append(*log, made(0)), thinwire::value_error);
    append(*log, made(1));
    CHECK(all_of(*log, 0) == made_range(0, 2));
}

TEST_CASE("run_log: a tail torn at any byte is cut, and the log goes on from there") {
    const temporary_folder folder;
    const auto ends = write_log(folder / "whole", 6);
    const auto bytes = read_file(segment(folder / "whole"));
    small_disk disk;
    for (std::size_t size = ends[0]; size <= bytes.size(); ++size) {
        CAPTURE(size);
        auto log = disk.open(std::span(bytes).first(size));
        REQUIRE(log);
        std::uint64_t kept = 0;
        while (kept < 6 && ends[kept + 1] <= size) ++kept;
        CHECK(log->next_round() == kept);
        CHECK(log->cut_bytes() == size - ends[kept]);
        CHECK(log->bytes() == ends[kept]);
        append(*log, made(kept));
        CHECK(all_of(*log, 0) == made_range(0, kept + 1));
    }
}

TEST_CASE("run_log: a tail of zeros, or a last frame whose bytes did not arrive, is cut") {
    const temporary_folder folder;
    const auto ends = write_log(folder / "whole", 6);
    const auto bytes = read_file(segment(folder / "whole"));
    small_disk disk;
    for (std::size_t from = ends[5]; from < bytes.size(); ++from) {
        CAPTURE(from);
        auto torn = bytes;
        for (std::size_t i = from; i < torn.size(); ++i) torn[i] = std::byte{0};
        if (torn == bytes) continue;
        const auto log = disk.open(torn);
        REQUIRE(log);
        CHECK(log->next_round() == 5);
    }
}

TEST_CASE("run_log: in a durable log any altered bit is refused, in the last round cut off, never read") {
    const temporary_folder folder;
    const auto ends = write_log(folder / "log", 5, true);
    const auto bytes = read_file(segment(folder / "log"));
    small_disk disk;
    for (std::size_t at = 0; at < bytes.size(); ++at) {
        CAPTURE(at);
        auto altered = bytes;
        altered[at] ^= static_cast<std::byte>(1U << (at % 8));
        const auto log = disk.open(altered);
        if (log) {
            CHECK(at >= ends[4]);
            CHECK(all_of(*log, 0) == made_range(0, 4));
        } else {
            CHECK(at < ends[4]);
            CHECK(disk.files.content(segment(disk.log)) == altered);  // refused: left as it was
        }
    }
}

TEST_CASE("run_log: in a log without syncs an altered bit cuts what nobody was promised, and mark_final promises") {
    const temporary_folder folder;
    const auto ends = write_log(folder / "log", 5);
    const auto bytes = read_file(segment(folder / "log"));
    small_disk disk;
    for (std::size_t at = ends[0]; at < bytes.size(); ++at) {
        CAPTURE(at);
        auto altered = bytes;
        altered[at] ^= static_cast<std::byte>(1U << (at % 8));
        const auto log = disk.open(altered);
        REQUIRE(log);
        const auto whole = std::ranges::upper_bound(ends, at) - ends.begin() - 1;
        CHECK(all_of(*log, 0) == made_range(0, static_cast<std::uint64_t>(whole)));
    }
    write_segment(folder / "log", bytes);
    {
        auto log = run_log::open(folder / "log", run);
        REQUIRE(log);
        log->mark_final(4);
    }
    const auto closed = read_file(segment(folder / "log"));
    for (std::size_t at = 0; at < bytes.size(); ++at) {
        CAPTURE(at);
        auto altered = closed;
        altered[at] ^= static_cast<std::byte>(1U << (at % 8));
        CHECK_FALSE(disk.open(altered));
    }
}

TEST_CASE("run_log: damage before the end is named and not cut") {
    const temporary_folder folder;
    const auto ends = write_log(folder / "log", 5, true);
    auto bytes = read_file(segment(folder / "log"));
    bytes[ends[3] - 1] ^= std::byte{1};
    bytes[ends[2] - 1] ^= std::byte{1};
    write_segment(folder / "log", bytes);
    const std::string wanted = "log '" + segment(folder / "log").string() + "': damaged at byte " +
                               std::to_string(ends[1]) + ", where round 1 should begin";
    const auto log = run_log::open(folder / "log", run);
    REQUIRE_FALSE(log);
    CHECK(log.error().code == errc::bad_checksum);
    CHECK(log.error().message == wanted);
    CHECK(run_log::open_read_only(folder / "log").error().message == wanted);
    CHECK(read_file(segment(folder / "log")) == bytes);
}

TEST_CASE("run_log: damage after opening is refused when it is read") {
    const temporary_folder folder;
    const auto ends = write_log(folder / "log", 5);
    const auto log = run_log::open(folder / "log", run);
    REQUIRE(log);
    const auto whole = read_file(segment(folder / "log"));
    const auto seen_with_damage_at = [&](std::uint64_t at) {
        auto bytes = whole;
        bytes[at] ^= std::byte{1};
        write_segment(folder / "log", bytes);
        std::uint64_t seen = 0;
        const auto read = log->read(0, [&](const commit&) { ++seen; });
        REQUIRE_FALSE(read);
        CHECK(read.error().code == errc::bad_checksum);
        return seen;
    };
    CHECK(seen_with_damage_at(ends[2] - 1) == 1);  // in a payload of round 1
    CHECK(seen_with_damage_at(ends[3]) == 2);      // whatever stands there might have replaced round 2
}

TEST_CASE("run_log: a round that is missing in the file is no gap that anybody reads over") {
    const temporary_folder folder;
    const auto ends = write_log(folder / "log", 5, true);
    auto bytes = read_file(segment(folder / "log"));
    bytes.erase(bytes.begin() + static_cast<std::ptrdiff_t>(ends[1]),
                bytes.begin() + static_cast<std::ptrdiff_t>(ends[2]));
    write_segment(folder / "log", bytes);
    const auto log = run_log::open(folder / "log", run);
    REQUIRE(log);  // no frame behind stands where it was written: a tail that nobody finished
    CHECK(log->next_round() == 1);
}

TEST_CASE("run_log: another run, another version and another kind of file are refused and left alone") {
    const temporary_folder folder;
    write_log(folder / "log", 2);
    const std::string name = "log '" + segment(folder / "log").string() + "': ";
    const digest other = digest_of(bytes_of("another run"));
    const auto refused = run_log::open(folder / "log", other);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == errc::mismatch);
    CHECK(refused.error().message ==
          name + "it belongs to run " + to_string(run, 12) + ", this is run " + to_string(other, 12));

    auto bytes = read_file(segment(folder / "log"));
    std::filesystem::rename(segment(folder / "log"), segment(folder / "log", 7));
    CHECK(run_log::open(folder / "log", run).error().message ==
          "log '" + segment(folder / "log", 7).string() + "': it begins with round 0");
    std::filesystem::remove(segment(folder / "log", 7));
    bytes[4] = std::byte{9};
    write_segment(folder / "log", bytes);
    CHECK(run_log::open(folder / "log", run).error().message == name + "format version 9, this build reads 2");
    bytes.resize(50);
    write_segment(folder / "log", bytes);
    CHECK(run_log::open(folder / "log", run).error().code == errc::truncated);

    const auto text = bytes_of("In the beginning God created the heaven and the earth.\n");
    write_segment(folder / "log", text);
    CHECK(run_log::open(folder / "log", run).error().code == errc::bad_magic);
    CHECK(read_file(segment(folder / "log")) == text);
    write_segment(folder / "log", {});
    CHECK(run_log::open(folder / "log", run).error().code == errc::bad_magic);
    write_file_atomically(folder / "text", text);
    CHECK_THROWS_AS((void)run_log::open(folder / "text", run), thinwire::io_error);
    CHECK_THROWS_AS((void)run_log::open(folder / "none/log", run), thinwire::io_error);
    CHECK_THROWS_AS((void)run_log::open_read_only(folder / "none"), thinwire::io_error);
    CHECK(run_log::open_read_only(folder.path()).error().code == errc::bad_magic);
}

TEST_CASE("run_log: sealed nonsense is refused or read, never more") {
    const temporary_folder folder;
    const auto ends = write_log(folder / "whole", 1);
    auto header = read_file(segment(folder / "whole"));
    header.resize(ends[0]);
    const auto salt = thinwire::byte_reader(std::span(header).last(8)).get<std::uint64_t>();
    thinwire::random_stream random(5);
    small_disk disk;
    int refused = 0, opened = 0;
    for (int trial = 0; trial < 2000; ++trial) {
        thinwire::byte_writer head;
        const auto kind = static_cast<thinwire::detail::log_frame_kind>(random.below(5));
        for (std::uint64_t i = 0, words = random.below(5); i < words; ++i)
            head.put(random.below(5) == 0 ? random.below(5) : 0);
        if (random.below(2) == 0) {
            const auto rest = random.below(80);
            for (std::uint64_t i = 0; i < rest; ++i) head.put(static_cast<std::uint8_t>(random.below(9) == 0 ? 1 : 0));
        }
        head.put(thinwire::detail::log_check(head.bytes()));
        const thinwire::detail::log_frame frame{.at = header.size(),
                                                .kind = kind,
                                                .head = static_cast<std::uint32_t>(head.size()),
                                                .payload = random.below(4) / 3,
                                                .synced = random.below(header.size() + 20)};
        thinwire::byte_writer bytes;
        bytes.put(std::span<const std::byte>(header));
        thinwire::byte_writer behind;
        thinwire::detail::put_log_frame(behind, frame, salt);
        bytes.put(behind.bytes());
        bytes.put(head.bytes());
        for (std::uint64_t i = 0; i < frame.payload; ++i) bytes.put(std::uint8_t{3});
        const auto log = disk.open(bytes.bytes());
        if (log) {
            ++opened;
            (void)all_of(*log, 0);
        } else {
            ++refused;
            CHECK(log.error().code == errc::malformed);
        }
    }
    CHECK(refused > 100);
    CHECK(opened > 20);
}

TEST_CASE("run_log: a record of a higher term replaces the last one while that is tentative") {
    const temporary_folder folder;
    {
        auto log = run_log::open(folder / "log", run, {.durable = true});
        REQUIRE(log);
        CHECK_FALSE(log->tentative());
        append(*log, made(0, 1));
        append(*log, made(1, 1));
        CHECK(log->tentative());
        append(*log, made(1, 2));
        append(*log, made(1, 5));
        CHECK(log->next_round() == 2);
        CHECK(log->last_term() == 5);
        CHECK(all_of(*log, 0) == std::vector{made(0, 1), made(1, 5)});
        CHECK_THROWS_AS(append(*log, made(1, 5)), thinwire::value_error);
        CHECK_THROWS_AS(append(*log, made(1, 4)), thinwire::value_error);
        CHECK_THROWS_AS(append(*log, made(0, 6)), thinwire::value_error);
        CHECK_THROWS_AS(append(*log, made(2, 4)), thinwire::value_error);
    }
    {
        auto log = run_log::open(folder / "log", run);
        REQUIRE(log);
        CHECK(log->tentative());
        CHECK(log->last_term() == 5);
        append(*log, made(1, 6));
        append(*log, made(2, 6));
        for (std::uint64_t from = 0; from < 3; ++from)
            CHECK(all_of(*log, from, from + 1) == std::vector{from == 0 ? made(0, 1) : made(from, 6)});
        log->mark_final(2);
        CHECK_FALSE(log->tentative());
        CHECK_THROWS_AS(append(*log, made(2, 7)), thinwire::value_error);
        CHECK_THROWS_AS(log->mark_final(3), thinwire::value_error);
        const auto size = log->bytes();
        log->mark_final(1);
        CHECK(log->bytes() == size);
    }
    auto log = run_log::open(folder / "log", run);
    REQUIRE(log);
    CHECK_FALSE(log->tentative());
    CHECK_THROWS_AS(append(*log, made(2, 7)), thinwire::value_error);
    CHECK(all_of(*log, 0) == std::vector{made(0, 1), made(1, 6), made(2, 6)});
}

TEST_CASE("run_log: votes only move forward and are found again, also behind new segments") {
    const temporary_folder folder;
    const auto last = log_vote{.term = 4, .peer = 9};
    {
        auto log = run_log::open(folder / "log", run, {.durable = true, .segment_bytes = 300});
        REQUIRE(log);
        CHECK(log->newest_vote() == log_vote{});
        log->vote({.term = 3, .peer = 0});
        log->vote({.term = 3, .peer = 7});
        const auto size = log->bytes();
        log->vote({.term = 3, .peer = 7});
        CHECK(log->bytes() == size);
        CHECK_THROWS_AS(log->vote({.term = 3, .peer = 8}), thinwire::value_error);
        CHECK_THROWS_AS(log->vote({.term = 2, .peer = 7}), thinwire::value_error);
        log->vote(last);
        for (std::uint64_t r = 0; r < 6; ++r) append(*log, made(r));
        log->drop_before(5);
        CHECK(log->first_round() > 1);
    }
    const auto log = run_log::open(folder / "log", run);
    REQUIRE(log);
    CHECK(log->newest_vote() == last);
    CHECK(all_of(*log, log->first_round()) == made_range(log->first_round(), 6));
}

TEST_CASE("run_log: a segment ends after so many rounds, however small they are") {
    const temporary_folder folder;
    for (int opened = 0; opened < 2; ++opened) {  // it goes on counting where it was closed
        auto log = run_log::open(folder / "log", run, {.segment_rounds = 6});
        REQUIRE(log);
        for (int i = 0; i < 10; ++i) append(*log, made(log->next_round()));
    }
    auto log = run_log::open(folder / "log", run);
    REQUIRE(log);
    log->drop_before(17);
    CHECK(log->first_round() == 12);
    CHECK(all_of(*log, 12) == made_range(12, 20));
}

TEST_CASE("run_log: segments are one log, and the oldest can go") {
    const temporary_folder folder;
    REQUIRE(write_segments(folder / "log", 40) > 8);
    auto log = run_log::open(folder / "log", run, {.segment_bytes = 500});
    REQUIRE(log);
    CHECK(log->next_round() == 40);
    for (std::uint64_t from = 0; from < 40; ++from)
        for (const std::uint64_t count : {1U, 3U, 40U}) {
            CAPTURE(from);
            CHECK(all_of(*log, from, from + count) == made_range(from, std::min<std::uint64_t>(from + count, 40)));
        }
    const auto before = log->bytes();
    CHECK(log->drop_before(0) == 0);
    const auto freed = log->drop_before(20);
    CHECK(freed > 0);
    CHECK(log->bytes() == before - freed);
    const auto first = log->first_round();
    CHECK(first > 10);
    CHECK(first <= 20);
    CHECK(all_of(*log, first) == made_range(first, 40));
    CHECK_FALSE(log->read(first - 1, [](const commit&) {}));
    log->drop_before(1000);
    CHECK(log->next_round() == 40);
    CHECK(all_of(*log, 39) == made_range(39, 40));
    append(*log, made(40));
    const auto again = run_log::open_read_only(folder / "log");
    REQUIRE(again);
    CHECK(again->run() == run);
    CHECK(again->first_round() == log->first_round());
    CHECK(all_of(*again, again->first_round()) == made_range(again->first_round(), 41));
}

TEST_CASE(
    "run_log: a segment that is missing, cut or longer is refused without reading it, damage inside when it is read") {
    const temporary_folder folder;
    REQUIRE(write_segments(folder / "log", 12) >= 4);
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(folder / "log")) files.push_back(entry.path());
    std::ranges::sort(files);
    const auto second = read_file(files[1]);
    std::filesystem::remove(files[1]);
    const auto missing = run_log::open(folder / "log", run);
    REQUIRE_FALSE(missing);
    CHECK(missing.error().code == errc::truncated);
    CHECK(missing.error().message.find("is missing") != std::string::npos);
    write_file_atomically(files[1], std::span(second).first(second.size() - 1));
    CHECK(run_log::open(folder / "log", run).error().code == errc::bad_checksum);
    auto longer = second;
    longer.push_back({});
    write_file_atomically(files[1], longer);
    CHECK(run_log::open(folder / "log", run).error().code == errc::bad_checksum);
    auto altered = second;
    altered.back() ^= std::byte{4};
    write_file_atomically(files[1], altered);
    const auto log = run_log::open(folder / "log", run);
    REQUIRE(log);
    std::uint64_t seen = 0;
    const auto read = log->read(0, [&](const commit&) { ++seen; });
    REQUIRE_FALSE(read);
    CHECK(read.error().message.starts_with("log '" + files[1].string() + "': damaged at byte "));
    CHECK(read.error().message.ends_with("where round " + std::to_string(seen) + " should begin"));
}

TEST_CASE("run_log: reading only changes nothing, and an unfinished end is passed over") {
    const temporary_folder folder;
    const auto ends = write_log(folder / "log", 3);
    auto bytes = read_file(segment(folder / "log"));
    bytes.pop_back();
    write_segment(folder / "log", bytes);
    write_file_atomically(folder / "log/00000000000000000003.log.tmp", bytes);
    auto log = run_log::open_read_only(folder / "log");
    REQUIRE(log);
    CHECK(log->cut_bytes() == ends[3] - 1 - ends[2]);
    CHECK(all_of(*log, 0) == made_range(0, 2));
    CHECK(read_file(segment(folder / "log")) == bytes);
    CHECK(std::filesystem::exists(folder / "log/00000000000000000003.log.tmp"));
    CHECK_THROWS_AS(append(*log, made(2)), thinwire::value_error);
    CHECK_THROWS_AS(log->drop_before(9), thinwire::value_error);
    CHECK(run_log::open(folder / "log", run));
    CHECK_FALSE(std::filesystem::exists(folder / "log/00000000000000000003.log.tmp"));
}

TEST_CASE("run_log: payloads of every size, digests of the caller, large ones without a copy") {
    const temporary_folder folder;
    std::vector<told> all;
    auto log = run_log::open(folder / "log", run);
    REQUIRE(log);
    for (const std::size_t size : {0U, 1U, 32767U, 32768U, 32769U, 300000U}) {
        told one{.term = 1, .round = all.size(), .control = {}, .parts = {}};
        for (const std::size_t other : {std::size_t{5}, size, std::size_t{40000}, std::size_t{9}}) {
            std::vector<std::byte> payload(other);
            for (std::size_t i = 0; i < other; ++i) payload[i] = static_cast<std::byte>((i * 7 + size) % 251);
            one.parts.emplace_back(one.parts.size(), std::move(payload));
        }
        append(*log, one);
        all.push_back(std::move(one));
    }
    CHECK(all_of(*log, 0) == all);
    const auto again = run_log::open(folder / "log", run);
    REQUIRE(again);
    CHECK(all_of(*again, 0) == all);
    const std::vector<std::byte> payload = bytes_of("payload");
    const std::vector<thinwire::logged_payload> wrong = {
        {.peer = 1, .payload_digest = digest_of(bytes_of("another")), .payload = payload}};
    log->append(log_record{.term = 1, .round = all.size(), .control = {}, .contributions = wrong});
    CHECK_FALSE(log->read(all.size(), [](const commit&) {}));
}

TEST_CASE("run_log: a full disk loses only the round that did not fit, and says so") {
    const temporary_folder folder;
    const int code = with_full_disk(500, [&] {
        auto log = run_log::open(folder / "log", run);
        if (!log) return 1;
        const std::vector<std::byte> payload(200, std::byte{7});
        const std::vector<contribution> parts = {{.peer = 1, .payload = payload}};
        log->append(commit{.round = 0, .contributions = parts});
        try {
            log->append(commit{.round = 1, .contributions = parts});
            return 2;
        } catch (const thinwire::io_error& failed) {
            if (std::string(failed.what()) != "write '" + segment(folder / "log").string() + "': File too large")
                return 3;
        }
        if (log->next_round() != 1) return 4;
        log->append(commit{.round = 1, .contributions = {}});
        return 0;
    });
    CHECK(code == 0);
    const auto log = run_log::open(folder / "log", run);
    REQUIRE(log);
    CHECK(log->next_round() == 2);
    CHECK(log->cut_bytes() == 0);
}
