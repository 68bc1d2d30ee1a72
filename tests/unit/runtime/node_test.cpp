#include <thinwire/runtime/node.hpp>

#include "unit/runtime/fixture.hpp"
#include <doctest/doctest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <future>
#include <map>
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
    for (peer_id p = 2; p <= 4; ++p) nodes.push_back(node::join(joiner_options(*founder, p)));
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
    for (auto& n : nodes) {
        CHECK(code_of([&] { (void)n->exchange(50, bytes_of("late")); }) == node_errc::run_stopped);
    }
}
