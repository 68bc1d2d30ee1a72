// What survives when the disk fails or the power goes, at every operation of a scenario and every byte of a write.
#include <thinwire/io/run_log.hpp>
#include <thinwire/io/snapshot.hpp>

#include "folder.hpp"
#include "rounds.hpp"
#include <doctest/doctest.h>
#include <support/memory_disk.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

using thinwire::log_vote;
using thinwire::result;
using thinwire::run_log;
using thinwire::snapshot;
using thinwire_test::disk_fault;
using thinwire_test::made;
using thinwire_test::memory_disk;
using thinwire_test::power_cut;
using thinwire_test::survival;
using thinwire_test::told;

namespace {

const std::filesystem::path log_folder = "/peer/log";
const std::filesystem::path snapshot_path = "/peer/replica.snapshot";
constexpr survival all_kinds[] = {survival::nothing, survival::everything, survival::some_first, survival::some};

/// What a peer knows that it has told the disk.
struct memory {
    std::uint64_t dropped_below = 0;  // may have been removed
    std::vector<told> rounds;         // from 0 on
    log_vote vote{};
    std::vector<std::uint64_t> snapshots{0};  // the file is that of one of these rounds; 0: there is none
};

/// A peer that writes a log and snapshots. `possible` is what a power cut now may leave: what was last reported
/// durable, and every later state, of which the last may be under way.
struct log_keeper {
    memory_disk& disk;
    bool durable;
    std::vector<memory> possible = {memory{}};
    std::optional<run_log> log{};

    result<run_log> opened() {
        return run_log::open(log_folder, thinwire_test::run,
                             {.durable = durable, .segment_bytes = 450, .files = &disk});
    }
    /// Opens the log and checks that it holds one of the possible states, which becomes the only one.
    void open(bool after_restart = false) {
        log.reset();
        result<run_log> found = opened();
        REQUIRE_MESSAGE(found.has_value(), found.error().message);
        const memory was = recovered(*found);
        log.emplace(std::move(*found));
        if (durable || after_restart)
            possible = {was};
        else
            possible.push_back(was);
    }
    /// Writes what `next` becomes; `reports` says that it is durable when it returns.
    template <class Write>
    void step(memory next, bool reports, const Write& write) {
        possible.push_back(next);
        write();
        if (reports) possible = {std::move(next)};
    }

    void append(std::uint64_t term) {
        memory next = possible.back();
        next.rounds.push_back(made(next.rounds.size(), term));
        step(next, durable, [&] { thinwire_test::append(*log, next.rounds.back()); });
    }
    void replace(std::uint64_t term) {
        memory next = possible.back();
        next.rounds.back() = made(next.rounds.size() - 1, term);
        step(next, durable, [&] { thinwire_test::append(*log, next.rounds.back()); });
    }
    void vote(log_vote v) {
        memory next = possible.back();
        next.vote = v;
        step(next, durable, [&] { log->vote(v); });
    }
    void mark_final() {
        step(possible.back(), true, [&] { log->mark_final(log->next_round() - 1); });
    }
    void save() {
        memory next = possible.back();
        const std::uint64_t round = next.rounds.size();
        next.snapshots = {round};
        // The log below a snapshot must last as long as the snapshot: a peer syncs before it saves.
        step(possible.back(), true, [&] { log->sync(); });
        step(next, true, [&] {
            snapshot{.run = thinwire_test::run, .round = round, .manifest = "m", .tensors = {}, .blobs = {}}.save(
                snapshot_path, true, disk);
        });
    }
    void drop() {
        memory next = possible.back();
        next.dropped_below = next.snapshots.front();
        step(next, false, [&] { log->drop_before(next.dropped_below); });
    }

 private:
    /// Which of the possible states a log and the disk hold.
    memory recovered(const run_log& found) const {
        std::uint64_t saved = 0;
        if (disk.exists(snapshot_path)) {
            const result<snapshot> read = snapshot::decode(disk.content(snapshot_path));
            REQUIRE_MESSAGE(read.has_value(), read.error().message);
            saved = read->round;
        }
        const std::uint64_t first = found.first_round();
        CHECK(first <= saved);
        const std::vector<told> rounds = thinwire_test::all_of(found, first);
        for (memory m : possible) {
            if (m.rounds.size() < first || first > m.dropped_below || m.vote != found.newest_vote()) continue;
            if (std::ranges::find(m.snapshots, saved) == m.snapshots.end()) continue;
            if (!std::ranges::equal(std::span(m.rounds).subspan(first), rounds)) continue;
            m.snapshots = {saved};
            return m;
        }
        FAIL_CHECK("rounds " << first << " to " << found.next_round() << ", vote in term " << found.newest_vote().term
                             << " and snapshot " << saved << " are nothing that may be left; last reported: rounds to "
                             << possible.front().rounds.size() << ", vote in term " << possible.front().vote.term);
        return possible.back();
    }
};

using scenario = std::vector<std::function<void(log_keeper&)>>;

const scenario& story() {
    static const scenario all = [] {
        const auto append = [](std::uint64_t term) { return [term](log_keeper& p) { p.append(term); }; };
        const auto replace = [](std::uint64_t term) { return [term](log_keeper& p) { p.replace(term); }; };
        const auto vote = [](std::uint64_t term, std::uint64_t whom) {
            return [=](log_keeper& p) { p.vote({.term = term, .peer = whom}); };
        };
        const auto save = [](log_keeper& p) { p.save(); };
        const auto drop = [](log_keeper& p) { p.drop(); };
        const auto final = [](log_keeper& p) { p.mark_final(); };
        return scenario{[](log_keeper& p) { p.open(); },
                        append(1),
                        append(1),
                        vote(2, 0),
                        vote(2, 7),
                        replace(2),
                        append(2),
                        append(2),
                        save,
                        append(2),
                        final,
                        vote(3, 9),
                        append(3),
                        replace(4),
                        save,
                        drop,
                        append(4),
                        append(4),
                        append(5),
                        [](log_keeper& p) { p.open(); },
                        vote(6, 1),
                        append(6),
                        save,
                        drop,
                        drop,
                        append(6),
                        final};
    }();
    return all;
}

void prepare(memory_disk& disk) {
    disk.put_folder("/peer");
}

/// Plays the story from step `from` on until the end or an error of the disk, which it reports as the step's number.
std::size_t play(log_keeper& p, std::size_t from = 0) {
    for (std::size_t i = from; i < story().size(); ++i) {
        try {
            story()[i](p);
        } catch (const thinwire::io_error&) {
            return i;
        }
    }
    return story().size();
}

/// Operations of the story on a disk without faults, and the bytes of each write (0: no write).
std::vector<std::size_t> operations_of_story(bool durable) {
    std::vector<std::size_t> sizes;
    for (std::uint64_t n = 0;; ++n) {
        memory_disk disk;
        prepare(disk);
        disk.set_fault({.operation = n, .what = disk_fault::kind::power, .bytes = 0});
        log_keeper p{disk, durable};
        try {
            if (play(p) == story().size()) return sizes;
            FAIL("a disk without faults refused something");
        } catch (const power_cut&) {
            sizes.push_back(disk.struck_bytes());
        }
    }
}

/// The power goes at an operation; after the restart the peer finds what it was promised and plays on.
void cut_power(bool durable, const disk_fault& fault, survival how, std::uint64_t seed) {
    CAPTURE(durable);
    CAPTURE(fault.operation);
    CAPTURE(fault.bytes);
    CAPTURE(static_cast<int>(how));
    CAPTURE(seed);
    memory_disk disk;
    prepare(disk);
    disk.set_fault(fault);
    log_keeper p{disk, durable};
    CHECK_THROWS_AS(play(p), power_cut);
    p.log.reset();
    CHECK(disk.open_files() == 0);
    disk.restart(how, seed);
    p.open(true);
    p.append(7);
    p.append(7);
    disk.restart(how, seed + 1);
    p.open(true);
    for (int i = 0; i < 4; ++i) p.append(7);
    p.vote({.term = 9, .peer = 1});
    p.mark_final();
    p.open();
    CHECK(disk.open_files() == 1);
}

}  // namespace

TEST_CASE("crash: at every operation and every byte of a write, what was reported durable is found again") {
    for (const bool durable : {true, false}) {
        const std::vector<std::size_t> sizes = operations_of_story(durable);
        CHECK(sizes.size() > 60);
        std::uint64_t seed = 0;
        for (std::uint64_t n = 0; n < sizes.size(); ++n)
            for (std::size_t done = 0; done <= sizes[n]; ++done)
                for (const survival how : all_kinds) {
                    const bool edge = done == 0 || done == sizes[n];
                    if (!edge && how != survival::everything && done % 16 != 0) continue;
                    const bool random = how == survival::some || how == survival::some_first;
                    for (int again = 0; again < (random && edge ? 6 : 1); ++again)
                        cut_power(durable, {.operation = n, .what = disk_fault::kind::power, .bytes = done}, how,
                                  ++seed);
                }
    }
}

TEST_CASE("crash: what a killed process left is on the device once the next one has found it") {
    const std::vector<std::size_t> sizes = operations_of_story(true);
    for (std::uint64_t n = 0; n < sizes.size(); ++n)
        for (const std::size_t done : {std::size_t{0}, sizes[n] / 2, sizes[n]})
            for (const survival how : all_kinds) {
                CAPTURE(n);
                CAPTURE(done);
                memory_disk disk;
                prepare(disk);
                disk.set_fault({.operation = n, .what = disk_fault::kind::power, .bytes = done});
                log_keeper p{disk, true};
                CHECK_THROWS_AS(play(p), power_cut);
                p.log.reset();
                disk.resume();
                p.open();
                disk.restart(how, n);
                p.open();
            }
}

TEST_CASE("crash: after an error of the disk the peer opens again, and a power cut then takes nothing reported") {
    const std::vector<std::size_t> sizes = operations_of_story(true);
    for (std::uint64_t n = 0; n < sizes.size(); ++n)
        for (const std::uint64_t times : {1U, 2U})
            for (const std::size_t done : {std::size_t{0}, sizes[n] / 2, sizes[n]})
                for (const survival how : all_kinds) {
                    CAPTURE(n);
                    CAPTURE(done);
                    memory_disk disk;
                    prepare(disk);
                    disk.set_fault({.operation = n, .what = disk_fault::kind::fail, .bytes = done, .times = times});
                    log_keeper p{disk, true};
                    if (play(p) < story().size()) {  // not so where a file to clean up could not be removed
                        disk.set_fault({});
                        p.open();
                        p.append(7);
                        p.vote({.term = 8, .peer = 3});
                    }
                    disk.restart(how, n);
                    p.open();
                    p.append(8);
                }
}

TEST_CASE("crash: the log that met an error goes on or refuses to, and never loses what it reported") {
    const std::vector<std::size_t> sizes = operations_of_story(true);
    std::size_t went_on = 0, refused = 0;
    for (std::uint64_t n = 0; n < sizes.size(); ++n)
        for (const std::size_t done : {std::size_t{0}, sizes[n] / 2, sizes[n]})
            for (const survival how : all_kinds)
                for (const std::uint64_t times : {1U, 2U}) {
                    CAPTURE(n);
                    CAPTURE(times);
                    CAPTURE(done);
                    memory_disk disk;
                    prepare(disk);
                    disk.set_fault({.operation = n, .what = disk_fault::kind::fail, .bytes = done, .times = times});
                    log_keeper p{disk, true};
                    if (play(p) < story().size() && p.log) {
                        const std::vector<memory> before = p.possible;
                        try {
                            // What failed is not in the log, while a file may have its new name or be gone.
                            memory now = before.front();
                            now.dropped_below = before.back().dropped_below;
                            now.snapshots.push_back(before.back().snapshots.front());
                            p.possible = {now};
                            p.vote({.term = 9, .peer = 2});
                            if (how != survival::everything) p.append(9);
                            ++went_on;
                        } catch (const thinwire::io_error&) {
                            p.possible.insert(p.possible.begin(), before.begin(), before.end());
                            ++refused;
                        }
                    }
                    p.log.reset();
                    disk.restart(how, n);
                    p.open();
                }
    CHECK(went_on > 20);
    CHECK(refused > 20);
}

TEST_CASE("crash: writes that are cut short are continued") {
    const std::vector<std::size_t> sizes = operations_of_story(true);
    for (std::uint64_t n = 0; n < sizes.size(); ++n)
        for (std::size_t done = 1; done < sizes[n]; ++done) {
            CAPTURE(n);
            memory_disk disk;
            prepare(disk);
            disk.set_fault({.operation = n, .what = disk_fault::kind::cut_short, .bytes = done});
            log_keeper p{disk, true};
            CHECK(play(p) == story().size());
            disk.restart(survival::nothing, n);
            p.open();
        }
}

TEST_CASE("crash: a log that begins anew is the old one or the new one, whole, and keeps its vote") {
    // Also right behind its last record, which is tentative.
    std::uint64_t round = 0;
    SUBCASE("far ahead") {
        round = 40;
    }
    SUBCASE("in place of a tentative record") {
        round = 12;
    }
    const auto write = [](memory_disk& disk, bool durable) {
        prepare(disk);
        result<run_log> log =
            run_log::open(log_folder, thinwire_test::run, {.durable = durable, .segment_bytes = 450, .files = &disk});
        REQUIRE(log.has_value());
        for (std::uint64_t r = 0; r < 12; ++r) thinwire_test::append(*log, made(r, 2));
        log->vote({.term = 5, .peer = 3});
        log->sync();
        return std::move(*log);
    };
    const auto check = [&round](const run_log& found) {
        CHECK(found.newest_vote() == log_vote{.term = 5, .peer = 3});
        if (found.first_round() == 0) {
            CHECK(found.next_round() == 12);
            CHECK(thinwire_test::all_of(found, 0) == [] {
                std::vector<told> all;
                for (std::uint64_t r = 0; r < 12; ++r) all.push_back(made(r, 2));
                return all;
            }());
            return false;
        }
        CHECK(found.first_round() == round);
        CHECK(found.next_round() == round);
        CHECK(found.last_term() == 4);
        CHECK(!found.tentative());
        return true;
    };
    std::size_t old = 0, anew = 0;
    for (const bool durable : {true, false})
        for (std::uint64_t n = 0;; ++n) {
            std::size_t bytes = 0;
            {
                memory_disk disk;
                run_log log = write(disk, durable);
                disk.set_fault({.operation = disk.operations() + n, .what = disk_fault::kind::power, .bytes = 0});
                try {
                    log.begin_anew(round, 4);
                    break;
                } catch (const power_cut&) {
                    bytes = disk.struck_bytes();
                }
            }
            for (std::size_t done = 0; done <= bytes; ++done)
                for (const survival how : all_kinds) {
                    CAPTURE(n);
                    CAPTURE(done);
                    memory_disk disk;
                    run_log log = write(disk, durable);
                    disk.set_fault(
                        {.operation = disk.operations() + n, .what = disk_fault::kind::power, .bytes = done});
                    CHECK_THROWS_AS(log.begin_anew(round, 4), power_cut);
                    { const run_log gone = std::move(log); }
                    disk.restart(how, n + done);
                    for (int again = 0; again < 2; ++again) {
                        result<run_log> found = run_log::open(
                            log_folder, thinwire_test::run, {.durable = durable, .segment_bytes = 450, .files = &disk});
                        REQUIRE_MESSAGE(found.has_value(), found.error().message);
                        const bool is_new = check(*found);
                        ++(is_new ? anew : old);
                        if (is_new) continue;
                        found->begin_anew(round, 4);
                    }
                }
        }
    CHECK(old > 10);
    CHECK(anew > 10);
}
