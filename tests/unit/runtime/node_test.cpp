#include <thinwire/comm/message.hpp>
#include <thinwire/io/file.hpp>
#include <thinwire/runtime/node.hpp>

#include "unit/runtime/strangers.hpp"
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

using namespace thinwire;
using namespace thinwire::runtime;
using namespace runtime_fixture;

TEST_CASE("node: four nodes see equal commits with everyone in them") {
    folder dir;
    const auto founder = node::found(founder_options(dir, 4));
    founder->publish_snapshot(0, bytes_of("weights"));
    std::vector<std::unique_ptr<node>> nodes;
    for (peer_id p = 2; p <= 4; ++p) nodes.push_back(node::join(joiner_options(dir, *founder, p)));
    for (auto& n : nodes) {
        CHECK(n->run() == founder->run());
        CHECK(n->manifest() == "model = tiny");
        CHECK(n->snapshot_round() == 0);
        CHECK(n->take_snapshot() == bytes_of("weights"));
        CHECK(n->take_snapshot().empty());
    }
    std::vector<ledger> ledgers(4);
    std::vector<std::jthread> threads;
    threads.emplace_back([&] { take_part(*founder, 0, 50, ledgers[0]); });
    for (std::size_t i = 0; i < 3; ++i) threads.emplace_back([&, i] { take_part(*nodes[i], 0, 50, ledgers[i + 1]); });
    threads.clear();
    for (const ledger& l : ledgers) {
        CHECK(l.rounds == 50);
        CHECK(l.contributions == 200);
        CHECK(l.own_included == 50);
        CHECK(l.told_late == 0);
        CHECK(l.state == ledgers[0].state);
    }
    const node_status status = founder->status();
    CHECK(status.round == 50);
    REQUIRE(status.peers.size() == 4);
    for (const peer_status& p : status.peers) {
        CHECK(p.present);
        CHECK(p.contributed_last);
        CHECK(p.last_round == 49);
        CHECK((p.bytes_received > 0) == (p.peer != 1));
    }
    founder->leave(true);
    // The commit that stops the run is the last.
    for (std::size_t i = 0; i < 3; ++i) {
        CHECK(code_of([&] { take_part(*nodes[i], 50, 99, ledgers[i + 1]); }) == node_errc::run_stopped);
        CHECK(ledgers[i + 1].state == ledgers[1].state);
    }
}

TEST_CASE("node: one peer leaves without a word, the rest go on, it returns and catches up") {
    folder dir;
    node_options options = founder_options(dir, 3);
    const auto founder = node::found(options);
    founder->publish_snapshot(0, bytes_of("weights"));
    auto second = node::join(joiner_options(dir, *founder, 2));
    auto third = node::join(joiner_options(dir, *founder, 3));
    std::vector<ledger> ledgers(3);
    const auto together = [&](std::uint64_t from, std::uint64_t to, bool all) {
        std::vector<std::jthread> threads;
        threads.emplace_back([&, from, to] { take_part(*founder, from, to, ledgers[0]); });
        threads.emplace_back([&, from, to] { take_part(*second, from, to, ledgers[1]); });
        if (all) threads.emplace_back([&, from, to] { take_part(*third, from, to, ledgers[2]); });
    };
    together(0, 10, true);
    third.reset();
    together(10, 20, false);
    CHECK(ledgers[0].contributions == 10 * 3 + 10 * 2);

    node_options again = joiner_options(dir, *founder, 3);
    again.fresh = false;
    again.next_round = 10;
    again.about = R"({"place":"Bern"})";
    third = node::join(again);
    CHECK(third->take_snapshot().empty());
    CHECK(catch_up(*third, 10, ledgers[2]) == 20);
    CHECK(ledgers[2].state == ledgers[0].state);
    // Nobody waits for the returned peer before it sends: go on until a commit holds it, which all see in the same one.
    std::array<std::uint64_t, 3> ends{};
    {
        std::vector<std::jthread> threads;
        threads.emplace_back([&] { ends[0] = take_part_until(*founder, 20, 3, ledgers[0]); });
        threads.emplace_back([&] { ends[1] = take_part_until(*second, 20, 3, ledgers[1]); });
        threads.emplace_back([&] { ends[2] = take_part_until(*third, 20, 3, ledgers[2]); });
    }
    const std::uint64_t end = ends[0];
    CHECK(ends == std::array{end, end, end});
    CHECK(ledgers[2].own_included == 11);
    for (const ledger& l : ledgers) CHECK(l.state == ledgers[0].state);
    for (const peer_status& p : founder->status().peers) {
        CHECK(p.about == (p.peer == 3 ? again.about : ""));
        CHECK(p.round_trip_seconds.has_value() == (p.peer != 1));
        CHECK(p.contributes);
    }

    node_options late = joiner_options(dir, *founder, 4);
    founder->publish_snapshot(15, bytes_of("weights at 15"));
    const auto fourth = node::join(late);
    CHECK(fourth->snapshot_round() == 15);
    CHECK(fourth->take_snapshot() == bytes_of("weights at 15"));
    ledger tail;
    CHECK(catch_up(*fourth, 15, tail) == end);
    CHECK(tail.rounds == end - 15);
}

TEST_CASE("node: the founder restarts from its log and the others go on with it") {
    folder dir;
    node_options options = founder_options(dir, 2);
    auto founder = node::found(options);
    founder->publish_snapshot(0, bytes_of("weights"));
    options.listen = "127.0.0.1:" + std::to_string(founder->port());
    const auto second = node::join(joiner_options(dir, *founder, 2));
    ledger first_ledger, second_ledger;
    {
        std::jthread other([&] { take_part(*second, 0, 5, second_ledger); });
        take_part(*founder, 0, 5, first_ledger);
    }
    founder.reset();
    founder = node::found(options);
    ledger replayed;
    // What was not known to be final when the process died is once the two agree on it again.
    CHECK(catch_up(*founder, 0, replayed) >= 4);
    {
        std::jthread other([&] { take_part(*second, 5, 10, second_ledger); });
        take_part(*founder, replayed.rounds, 10, replayed);
    }
    CHECK(replayed.state == second_ledger.state);
    CHECK(second_ledger.own_included == 10);

    options.next_round = 50;
    founder->leave(false);
    founder.reset();
    CHECK(code_of([&] { (void)node::found(options); }) == node_errc::replica_diverged);
    options.run = sha256{}.update("another run").finish();
    CHECK(code_of([&] { (void)node::found(options); }) == node_errc::run_mismatch);
}

TEST_CASE("node: of three the first to order dies, then one of the others leaves, and the last goes on alone") {
    folder dir;
    auto founder = node::found(founder_options(dir, 3));
    founder->publish_snapshot(0, bytes_of("weights"));
    std::unique_ptr<node> nodes[] = {node::join(joiner_options(dir, *founder, 2)),
                                     node::join(joiner_options(dir, *founder, 3))};
    std::vector<ledger> ledgers(3);
    const auto both = [&](std::uint64_t from, std::uint64_t to) {
        std::jthread other([&, from, to] { take_part(*nodes[1], from, to, ledgers[2]); });
        take_part(*nodes[0], from, to, ledgers[1]);
    };
    {
        std::jthread first([&] { take_part(*founder, 0, 10, ledgers[0]); });
        both(0, 10);
    }
    SUBCASE("the one that dies is the founder, first in the view") {
        founder.reset();
        both(10, 15);
        // Whichever of the two orders the rounds now: one leaves while the view still holds the dead founder.
        SUBCASE("the second leaves") {
            nodes[0]->leave(false);
            take_part(*nodes[1], 15, 20, ledgers[2]);
            CHECK(ledgers[2].rounds == 20);
        }
        SUBCASE("the third leaves") {
            nodes[1]->leave(false);
            take_part(*nodes[0], 15, 20, ledgers[1]);
            CHECK(ledgers[1].rounds == 20);
        }
    }
    SUBCASE("the one that dies is the last") {
        nodes[1].reset();
        {
            std::jthread first([&] { take_part(*founder, 10, 15, ledgers[0]); });
            take_part(*nodes[0], 10, 15, ledgers[1]);
        }
        nodes[0]->leave(false);
        take_part(*founder, 15, 20, ledgers[0]);
        CHECK(ledgers[0].rounds == 20);
    }
}

TEST_CASE("node: what cannot start says why") {
    folder dir;
    folder other_dir;
    const auto founder = node::found(founder_options(dir, 1));
    founder->publish_snapshot(0, bytes_of("weights"));
    SUBCASE("port in use") {
        node_options o = founder_options(other_dir, 1);
        o.listen = "127.0.0.1:" + std::to_string(founder->port());
        const std::string line = "cannot listen on " + o.listen + ": address already in use";
        CHECK_THROWS_WITH_AS((void)node::found(o), line.c_str(), node_error);
        CHECK(code_of([&] { (void)node::found(o); }) == node_errc::port_in_use);
        CHECK_THROWS_WITH_AS(node::check(o, true), line.c_str(), node_error);
        CHECK(code_of([&] { node::check(o, true); }) == node_errc::port_in_use);
    }
    SUBCASE("which check() tells, as of an address that is none, and changes nothing") {
        node_options o = founder_options(other_dir, 1);
        const auto same_line = [&](std::string listen) {
            o.listen = std::move(listen);
            std::string line;
            try {
                node::check(o, true);
            } catch (const thinwire::error& problem) {
                line = problem.what();
            }
            CAPTURE(o.listen);
            CHECK_FALSE(line.empty());
            CHECK_THROWS_WITH_AS((void)node::found(o), line.c_str(), thinwire::error);
        };
        same_line("127.0.0.1:" + std::to_string(founder->port()));
        same_line("192.0.2.1:0");
        same_line("nobody.invalid:0");
        same_line("127.0.0.1");
        o.plaintext = false;
        same_line("127.0.0.1:0");
        o = founder_options(other_dir, 1);
        node::check(o, true);
        CHECK_FALSE(std::filesystem::exists(o.log));
        o = joiner_options(dir, *founder, 2);
        node::check(o, false);
        o.name = std::string(65, 'n');
        CHECK_THROWS_AS(node::check(o, false), thinwire::value_error);
        o = joiner_options(dir, *founder, 2);
        o.reconnect_timeout = std::chrono::milliseconds::max();
        CHECK_THROWS_AS(node::check(o, false), thinwire::value_error);
        o = joiner_options(dir, *founder, 2);
        o.manifest = "model = another";
        CHECK_THROWS_AS(node::check(o, false), thinwire::value_error);
        o.fresh = false;
        node::check(o, false);
    }
    SUBCASE("a founder without a vote, alone in the view") {
        node_options o = founder_options(other_dir, 1);
        o.votes = false;
        CHECK_THROWS_AS((void)node::found(o), thinwire::value_error);
    }
    SUBCASE("segments that hold nothing") {
        node_options o = founder_options(other_dir, 1);
        o.log_segment_rounds = 0;
        CHECK_THROWS_WITH_AS((void)node::found(o), "node_options: log_segment_rounds 0, expected at least 1",
                             thinwire::value_error);
        CHECK_FALSE(std::filesystem::exists(o.log));
    }
    SUBCASE("unreachable") {
        node_options o = joiner_options(dir, *founder, 2);
        {
            const auto gone = node::found(founder_options(other_dir, 1));
            o.address = "127.0.0.1:" + std::to_string(gone->port());
        }
        o.connect_timeout = std::chrono::milliseconds(300);
        CHECK(code_of([&] { (void)node::join(o); }) == node_errc::unreachable);
    }
    SUBCASE("another run") {
        node_options o = joiner_options(dir, *founder, 2);
        o.run = sha256{}.update("another run").finish();
        CHECK(code_of([&] { (void)node::join(o); }) == node_errc::run_mismatch);
    }
    SUBCASE("a replica that its log does not reach") {
        node_options o = joiner_options(dir, *founder, 2);
        CHECK(node::join(o)->snapshot_round() == 0);
        o.fresh = false;
        o.next_round = 7;
        CHECK(code_of([&] { (void)node::join(o); }) == node_errc::replica_diverged);
    }
    SUBCASE("a log without the file that says whose it is") {
        node_options o = joiner_options(dir, *founder, 2);
        CHECK(node::join(o)->snapshot_round() == 0);
        std::filesystem::remove(o.log / "owner");
        o.fresh = false;
        CHECK(code_of([&] { (void)node::join(o); }) == node_errc::storage);
    }
    SUBCASE("a log of another run") {
        node_options o = joiner_options(dir, *founder, 2);
        CHECK(node::join(o)->snapshot_round() == 0);
        o.fresh = false;
        o.run = sha256{}.update("another run").finish();
        CHECK(code_of([&] { (void)node::join(o); }) == node_errc::run_mismatch);
    }
    SUBCASE("the founder's own identity") {
        CHECK(code_of([&] { (void)node::join(joiner_options(dir, *founder, 1)); }) == node_errc::refused);
    }
    SUBCASE("plaintext beyond loopback") {
        node_options o = joiner_options(dir, *founder, 2);
        o.address = "192.0.2.1:4411";
        CHECK(code_of([&] { (void)node::join(o); }) == node_errc::unreachable);
        o = founder_options(other_dir, 1);
        o.listen = "0.0.0.0:0";
        CHECK(code_of([&] { (void)node::found(o); }) == node_errc::unreachable);
    }
    SUBCASE("addresses that are none") {
        for (const char* text :
             {"", "4411", "127.0.0.1", "127.0.0.1:", ":1", "::1:5", "[::1]", "[::1:5", "a:65536", "a:-1"}) {
            node_options o = joiner_options(dir, *founder, 2);
            o.address = text;
            CHECK_THROWS_AS((void)node::join(o), value_error);
        }
    }
    SUBCASE("no identity, no log") {
        node_options o = joiner_options(dir, *founder, 0);
        CHECK_THROWS_AS((void)node::join(o), value_error);
        o = joiner_options(dir, *founder, 2);
        o.plaintext = false;
        CHECK_THROWS_WITH_AS((void)node::join(o),
                             "node_options: identity none, expected one, or plaintext on loopback addresses",
                             value_error);
        o = founder_options(other_dir, 1);
        o.log.clear();
        CHECK_THROWS_AS((void)node::found(o), value_error);
    }
}

TEST_CASE("node: a second process with the same identity takes the place of the first") {
    folder dir;
    const auto founder = node::found(founder_options(dir, 1));
    founder->publish_snapshot(0, bytes_of("weights"));
    const auto first = node::join(joiner_options(dir, *founder, 2));
    node_options again = joiner_options(dir, *founder, 2);
    again.log = dir.path() / "another log";
    const auto second = node::join(again);
    CHECK(code_of([&] { (void)first->exchange(0, bytes_of("x")); }) == node_errc::refused);
    ledger mine, theirs;
    std::jthread other([&] { take_part(*second, 0, 3, theirs); });
    take_part(*founder, 0, 3, mine);
    other.join();
    CHECK(mine.state == theirs.state);
}

TEST_CASE("node: a payload that fails its check is refused and never committed") {
    folder dir;
    node_options options = founder_options(dir, 2);
    options.validate = [](std::uint64_t, peer_id, std::span<const std::byte> payload) -> result<ok> {
        if (payload[0] == std::byte{'!'}) return failure{errc::not_finite, "the values are not finite"};
        return ok{};
    };
    const auto founder = node::found(options);
    founder->publish_snapshot(0, bytes_of("weights"));
    const auto second = node::join(joiner_options(dir, *founder, 2));
    ledger theirs;
    std::jthread other([&] {
        for (const commit& c : second->exchange(0, bytes_of("!bad"))) theirs.apply(c, 2);
    });
    ledger mine;
    take_part(*founder, 0, 1, mine);
    other.join();
    CHECK(mine.contributions == 1);
    CHECK(theirs.state == mine.state);
    CHECK(second->status().last_refusal == "the values are not finite");
    CHECK(code_of([&] { (void)founder->exchange(1, bytes_of("!bad")); }) == node_errc::refused);
}

TEST_CASE("node: strangers on the port are shown out and the run goes on") {
    folder dir;
    node_options options = founder_options(dir, 2);
    options.handshake_timeout = std::chrono::milliseconds(200);
    const auto founder = node::found(options);
    founder->publish_snapshot(0, bytes_of("weights"));
    const auto second = node::join(joiner_options(dir, *founder, 2));
    const std::uint64_t before = founder->status().refused;  // it may have been too slow at first
    const std::vector<std::string> visits = {"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", std::string(4096, '\xff'),
                                             std::string(4096, '\0'), std::string("\x16\x03\x01\x02\x00\x01", 6), ""};
    for (const std::string& visit : visits) CHECK(visit_port(founder->port(), visit));
    CHECK(founder->status().refused == before + visits.size());
    ledger mine, theirs;
    std::jthread other([&] { take_part(*second, 0, 20, theirs); });
    take_part(*founder, 0, 20, mine);
    other.join();
    CHECK(mine.contributions == 40);
    CHECK(mine.state == theirs.state);
}

TEST_CASE("node: stop ends a call that waits, and a lost founder is given up") {
    folder dir;
    auto founder = node::found(founder_options(dir, 2));
    founder->publish_snapshot(0, bytes_of("weights"));
    node_options options = joiner_options(dir, *founder, 2);
    options.reconnect_timeout = std::chrono::milliseconds(300);
    const auto second = node::join(options);
    std::promise<node_errc> ended;
    std::jthread waiting(
        [&] { ended.set_value(code_of([&] { take_part(*second, 0, 9, *std::make_unique<ledger>()); }).value()); });
    founder->stop();
    CHECK(code_of([&] { (void)founder->exchange(0, bytes_of("x")); }) == node_errc::run_stopped);
    founder.reset();
    CHECK(ended.get_future().get() == node_errc::peers_lost);
}

TEST_CASE("node: old rounds leave the log once a snapshot covers them") {
    folder dir;
    node_options options = founder_options(dir, 1);
    options.log_segment_bytes = 1000;
    const auto founder = node::found(options);
    founder->publish_snapshot(0, bytes_of("weights"));
    node_options early = joiner_options(dir, *founder, 2);
    CHECK(node::join(early)->snapshot_round() == 0);
    ledger l;
    take_part(*founder, 0, 40, l);
    founder->drop_log_before(30);
    take_part(*founder, 40, 41, l);
    const node_status before = founder->status();
    CHECK(before.log_begin == 0);
    founder->publish_snapshot(41, bytes_of("newer weights"));
    founder->drop_log_before(30);
    take_part(*founder, 41, 42, l);
    const node_status after = founder->status();
    CHECK(after.log_begin > 20);
    CHECK(after.log_begin <= 30);
    CHECK(after.log_bytes < before.log_bytes);

    // Who was away when the rounds went that it lacks goes on with the snapshot that then lies beside its log.
    early.fresh = false;
    {
        const auto back = node::join(early);
        ledger nothing;
        CHECK(code_of([&] { take_part(*back, 0, 50, nothing); }) == node_errc::behind);
        CHECK(nothing.rounds == 0);
    }
    CHECK(read_file(early.log / "00000000000000000041.snapshot") == bytes_of("newer weights"));
    early.next_round = 41;
    {
        const auto second = node::join(early);
        ledger behind;
        CHECK(catch_up(*second, 41, behind) == 42);
        CHECK(second->status().log_begin == 41);
    }
    CHECK(node::join(joiner_options(dir, *founder, 3))->snapshot_round() == 41);
    // No snapshot from before the log's begin, whether the caller can know it already or not.
    CHECK_THROWS_AS(founder->publish_snapshot(after.log_begin - 1, bytes_of("old weights")), value_error);
    CHECK_THROWS_AS(founder->publish_snapshot(42, {}), value_error);
    founder->publish_snapshot(42, bytes_of("newest weights"));
    founder->drop_log_before(42);
    try {
        founder->publish_snapshot(after.log_begin, bytes_of("old weights"));
    } catch (const value_error&) {
        MESSAGE("the log was cut before the call");
    }
    CHECK(node::join(joiner_options(dir, *founder, 4))->snapshot_round() == 42);
    founder->leave(true);
}

TEST_CASE("node: the founder dies, the others go on without it, and it comes back") {
    folder dir;
    node_options options = founder_options(dir, 3);
    options.keepalive_interval = std::chrono::milliseconds(300);
    options.takeover = std::chrono::milliseconds(1500);
    auto founder = node::found(options);
    founder->publish_snapshot(0, bytes_of("weights"));
    std::vector<std::unique_ptr<node>> nodes;
    for (peer_id p = 2; p <= 3; ++p) {
        node_options o = joiner_options(dir, *founder, p);
        o.keepalive_interval = options.keepalive_interval;
        o.takeover = options.takeover;
        nodes.push_back(node::join(o));
    }
    std::vector<ledger> ledgers(3);
    // Each goes on from where it is: a commit that only changes the view may come at any time.
    const auto together = [&](std::uint64_t to, bool all) {
        std::vector<std::jthread> threads;
        if (all) threads.emplace_back([&, to] { take_part(*founder, ledgers[0].rounds, to, ledgers[0]); });
        for (std::size_t i = 0; i < 2; ++i)
            threads.emplace_back([&, i, to] { take_part(*nodes[i], ledgers[i + 1].rounds, to, ledgers[i + 1]); });
    };
    together(10, true);
    founder.reset();
    together(30, false);
    CHECK(ledgers[1].own_included > 10);
    CHECK(ledgers[2].own_included > 10);
    const node_status status = nodes[0]->status();
    CHECK(status.term > 1);
    CHECK(status.sequencer != 1);

    options.next_round = ledgers[0].rounds;
    founder = node::found(options);
    std::array<std::uint64_t, 3> ends{};
    {
        std::vector<std::jthread> threads;
        threads.emplace_back([&] {
            const std::uint64_t at = catch_up(*founder, ledgers[0].rounds, ledgers[0]);
            ends[0] = take_part_until(*founder, at, 1, ledgers[0]);
        });
        for (std::size_t i = 0; i < 2; ++i)
            threads.emplace_back(
                [&, i] { ends[i + 1] = take_part_until(*nodes[i], ledgers[i + 1].rounds, 1, ledgers[i + 1]); });
    }
    CHECK(ends == std::array{ends[0], ends[0], ends[0]});
    for (const ledger& l : ledgers) CHECK(l.state == ledgers[0].state);
    nodes[1]->leave(true);
    CHECK(code_of([&] { take_part(*founder, ends[0], ends[0] + 1'000'000, ledgers[0]); }) == node_errc::run_stopped);
}

TEST_CASE("node: a round that was stored and not final is finished with what it held, whatever is given for it later") {
    folder dir;
    node_options options = founder_options(dir, 3);
    auto founder = node::found(options);
    founder->publish_snapshot(0, bytes_of("weights"));
    std::array<ledger, 3> ledgers;
    {
        const auto second = node::join(joiner_options(dir, *founder, 2));
        const auto third = node::join(joiner_options(dir, *founder, 3));
        std::vector<std::jthread> threads;
        threads.emplace_back([&] { take_part(*founder, 0, 5, ledgers[0]); });
        threads.emplace_back([&] { take_part(*second, 0, 5, ledgers[1]); });
        threads.emplace_back([&] { take_part(*third, 0, 5, ledgers[2]); });
    }
    // Alone it closes the round and stores its record, which no quorum has.
    std::thread waits([&] { CHECK_THROWS_AS((void)founder->exchange(5, bytes_of("first")), node_error); });
    const auto stored = [&] { return rounds_that_fit(options.log)->second == 6; };
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!stored() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    REQUIRE(stored());
    founder->stop();
    waits.join();
    founder.reset();

    options.next_round = 5;
    founder = node::found(options);
    CHECK(founder->catch_up(5).empty());
    node_options again = joiner_options(dir, *founder, 2);
    again.fresh = false;
    again.next_round = 5;
    const auto second = node::join(again);
    const auto commits = founder->exchange(5, bytes_of("another"));
    REQUIRE(commits.front().contributions.size() == 1);
    CHECK(std::ranges::equal(commits.front().contributions[0].payload, bytes_of("first")));
}

TEST_CASE("node: a peer enters through any member, and one that cannot be dialled takes part in full") {
    folder dir;
    const auto founder = node::found(founder_options(dir, 2));
    founder->publish_snapshot(0, bytes_of("weights"));
    const auto second = node::join(joiner_options(dir, *founder, 2));
    std::array<ledger, 3> ledgers;
    {
        std::jthread other([&] { take_part(*second, 0, 5, ledgers[1]); });
        take_part(*founder, 0, 5, ledgers[0]);
    }
    second->publish_snapshot(5, bytes_of("weights of the second"));
    node_options options = joiner_options(dir, *second, 3);
    options.listen.clear();
    const auto third = node::join(options);
    CHECK(third->port() == 0);
    CHECK(third->snapshot_round() == 5);
    CHECK(third->take_snapshot() == bytes_of("weights of the second"));
    CHECK(third->manifest() == "model = tiny");
    std::array<std::uint64_t, 3> ends{};
    {
        std::vector<std::jthread> threads;
        threads.emplace_back([&] { ends[0] = take_part_until(*founder, 5, 3, ledgers[0]); });
        threads.emplace_back([&] { ends[1] = take_part_until(*second, 5, 3, ledgers[1]); });
        threads.emplace_back([&] { ends[2] = take_part_until(*third, 5, 3, ledgers[2]); });
    }
    CHECK(ends == std::array{ends[0], ends[0], ends[0]});
    CHECK(ledgers[0].state == ledgers[1].state);
    CHECK(ledgers[2].own_included == 1);
}

TEST_CASE("node: two that only dial take part in full, each heard by the other over a third") {
    folder dir;
    const auto founder = node::found(founder_options(dir, 3));
    founder->publish_snapshot(0, bytes_of("weights"));
    std::vector<std::unique_ptr<node>> nodes;
    for (peer_id p = 2; p <= 3; ++p) {
        node_options options = joiner_options(dir, *founder, p);
        options.listen.clear();
        nodes.push_back(node::join(options));
    }
    std::vector<ledger> ledgers(3);
    {
        std::vector<std::jthread> threads;
        threads.emplace_back([&] { take_part(*founder, 0, 10, ledgers[0]); });
        for (std::size_t i = 0; i < 2; ++i)
            threads.emplace_back([&, i] { take_part(*nodes[i], 0, 10, ledgers[i + 1]); });
    }
    for (const ledger& l : ledgers) {
        CHECK(l.contributions == 30);
        CHECK(l.own_included == 10);
        CHECK(l.state == ledgers[0].state);
    }
    for (std::size_t i = 0; i < 2; ++i) {
        CHECK(nodes[i]->port() == 0);
        for (const peer_status& p : nodes[i]->status().peers) {
            CHECK(p.member);
            CHECK(p.contributed_last);
            CHECK(p.present == (p.peer == 1 || p.peer == nodes[i]->self()));
        }
    }
}

TEST_CASE("node: what one asks for happens to all in one round") {
    folder dir;
    const auto founder = node::found(founder_options(dir, 2));
    founder->publish_snapshot(0, bytes_of("weights"));
    const auto second = node::join(joiner_options(dir, *founder, 2));
    ledger mine, theirs;
    {
        std::jthread other([&] { take_part(*second, 0, 5, theirs); });
        take_part(*founder, 0, 5, mine);
    }
    CHECK_THROWS_AS(second->request({static_cast<control_change::kind>(11), 7, "", ""}), value_error);
    second->request({control_change::kind::ban, 7, "", ""});
    second->request({control_change::kind::remove, 2, "", ""});
    std::jthread other([&] { CHECK(code_of([&] { take_part(*second, 5, 999, theirs); }) == node_errc::refused); });
    std::uint64_t round = 5;
    while (founder->status().members == 2) round = take_part(*founder, round, round + 1, mine);
    other.join();
    CHECK(founder->status().members == 1);
    CHECK(mine.rounds >= theirs.rounds);
}

TEST_CASE("node: a founder that comes back from before all logs goes on with a snapshot, as anyone does") {
    folder dir;
    node_options options = founder_options(dir, 3);
    options.keepalive_interval = std::chrono::milliseconds(300);
    options.takeover = std::chrono::milliseconds(1500);
    auto founder = node::found(options);
    founder->publish_snapshot(0, bytes_of("weights"));
    std::vector<std::unique_ptr<node>> nodes;
    for (peer_id p = 2; p <= 3; ++p) {
        node_options o = joiner_options(dir, *founder, p);
        o.keepalive_interval = options.keepalive_interval;
        o.takeover = options.takeover;
        o.log_segment_bytes = 1000;
        nodes.push_back(node::join(o));
    }
    std::vector<ledger> ledgers(3);
    const auto together = [&](std::uint64_t to, bool all) {
        std::vector<std::jthread> threads;
        if (all) threads.emplace_back([&, to] { take_part(*founder, ledgers[0].rounds, to, ledgers[0]); });
        for (std::size_t i = 0; i < 2; ++i)
            threads.emplace_back([&, i, to] { take_part(*nodes[i], ledgers[i + 1].rounds, to, ledgers[i + 1]); });
    };
    together(5, true);
    founder.reset();
    together(60, false);
    for (std::size_t i = 0; i < 2; ++i) {
        nodes[i]->publish_snapshot(ledgers[i + 1].rounds, bytes_of("later weights"));
        nodes[i]->drop_log_before(50);
    }
    together(65, false);  // the drop is done before the next round
    for (const auto& n : nodes) CHECK(n->status().log_begin > 5);
    options.next_round = ledgers[0].rounds;
    {
        founder = node::found(options);
        CHECK(code_of([&] { take_part(*founder, ledgers[0].rounds, 999, ledgers[0]); }) == node_errc::behind);
        founder.reset();
    }
    const auto fits = rounds_that_fit(options.log);
    REQUIRE(fits);
    CHECK(fits->first >= 60);
    CHECK(std::filesystem::exists(options.log / "owner"));
    options.next_round = fits->first;
    founder = node::found(options);
    CHECK(founder->status().log_begin == fits->first);
    for (const auto& file : std::filesystem::directory_iterator(options.log))
        if (file.path().extension() == ".log") std::filesystem::remove(file.path());
    founder.reset();
    CHECK(code_of([&] { (void)node::found(options); }) == node_errc::storage);  // a voter does not forget by accident
}

TEST_CASE("node: a call that finds nothing new tells of the end") {
    folder dir;
    const auto founder = node::found(founder_options(dir, 2));
    CHECK(founder->catch_up(0).empty());
    founder->request({control_change::kind::stop, 0, "", ""});
    CHECK(eventually([&] { return founder->status().ended; }));
    CHECK(founder->catch_up(0).size() == 1);
    CHECK(code_of([&] { (void)founder->catch_up(1); }) == node_errc::run_stopped);
}
