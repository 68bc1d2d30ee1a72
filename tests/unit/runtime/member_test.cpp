// What a peer says falsely whose key is on the list, and what comes of it.
#include <thinwire/comm/frame.hpp>
#include <thinwire/comm/view.hpp>
#include <thinwire/runtime/node.hpp>

#include "handshake.hpp"
#include "unit/runtime/strangers.hpp"
#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>
#include <future>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

using namespace thinwire;
using namespace thinwire::runtime;
using namespace runtime_fixture;

namespace {

std::string raw(const public_key& key) {
    return {reinterpret_cast<const char*>(key.bytes.data()), key.bytes.size()};
}

hello_message hello_of(const member& m, const digest& run) {
    hello_message hello;
    hello.run = run;
    hello.peer = m.self->peer();
    hello.key = raw(m.self->key());
    hello.session = hello.incarnation = 1;
    return hello;
}

/// A connection of a member that was let in and has said hello.
std::unique_ptr<tls_visitor> greeted(const node& at, const member& m, const hello_message& hello) {
    auto visit = std::make_unique<tls_visitor>(at.port(), *m.self, tls_purpose::run);
    REQUIRE(visit->hear(1) == std::vector{let_in});
    visit->say(encode_frame(hello));
    return visit;
}

}  // namespace

TEST_CASE("members: rounds that one claims are not waited for when a quorum is no further") {
    const member first, liar;
    first.lets_in(liar);
    const auto founder = node::found(founder_of(first, 1));
    hello_message hello = hello_of(liar, founder->run());
    hello.next_round = std::uint64_t{1} << 60U;
    hello.contributes = false;  // nobody waits for its payload
    const auto visit = greeted(*founder, liar, hello);
    REQUIRE(visit->hear(100).size() >= 100);  // the welcome
    auto caught_up = std::async(std::launch::async, [&] { return founder->catch_up(0).size(); });
    const bool returned = caught_up.wait_for(std::chrono::minutes(1)) == std::future_status::ready;
    CHECK(returned);
    if (!returned) founder->stop();
    std::size_t commits = 1;
    CHECK_NOTHROW(commits = caught_up.get());
    CHECK(commits == 0);
    ledger mine;
    CHECK(take_part(*founder, 0, 3, mine) >= 3);
}

TEST_CASE("members: an address that the run's state cannot hold ends the connection, not the run") {
    const member first, other;
    first.lets_in(other);
    const auto founder = node::found(founder_of(first, 1));
    for (const std::string& address : {":" + std::string(255, '1'), std::string("nowhere"), std::string("a:70000")}) {
        hello_message hello = hello_of(other, founder->run());
        hello.address = address;
        CHECK(greeted(*founder, other, hello)->closed());
    }
    ledger mine;
    CHECK(take_part(*founder, 0, 3, mine) == 3);
    for (const peer_status& p : founder->status().peers) CHECK(p.peer == founder->self());
}

TEST_CASE("members: one that says that the run has revoked every key shuts nobody out") {
    const member first, liar, third;
    first.lets_in(liar);
    first.lets_in(third);
    node_options options = founder_of(first, 1);
    const digest run = node::found(options)->run();
    const listener door;
    options.fresh = false;
    options.address = door.where();
    auto joining = std::async(std::launch::async, [&] { return node::join(options); });
    tls_visitor host(door.take(), *liar.self);
    host.shake();
    host.say(std::vector{let_in});
    REQUIRE(host.hear(100).size() >= 100);
    run_state state;
    state.view.members = {{first.self->peer(), 1, true, true, "", raw(first.self->key())}};
    state.keys[raw(third.self->key())] = false;
    welcome_message lie;
    lie.run = run;
    lie.self = hello_of(liar, run);
    lie.self.next_round = lie.round = std::uint64_t{1} << 62U;
    lie.state = lie.state_at = encode_state(state);
    host.say(encode_frame(lie));
    const auto returned = joining.get();
    // Nothing was contributed, so the key of the third is in no state of the run yet.
    tls_visitor guest(returned->port(), *third.self, tls_purpose::run);
    CHECK(guest.hear(1) == std::vector{let_in});
}

TEST_CASE("members: of the connections on which a key says nothing the newest two stay") {
    const member first, other;
    first.lets_in(other);
    node_options options = founder_of(first, 1);
    options.handshake_timeout = std::chrono::minutes(10);
    const auto founder = node::found(options);
    std::vector<std::unique_ptr<tls_visitor>> visits;
    for (int i = 0; i < 6; ++i) {
        visits.push_back(std::make_unique<tls_visitor>(founder->port(), *other.self, tls_purpose::run));
        REQUIRE(visits.back()->hear(1) == std::vector{let_in});
    }
    for (std::size_t i = 0; i < 4; ++i) CHECK(visits[i]->closed_within(std::chrono::minutes(1)));
    visits[4]->say(encode_frame(hello_of(other, founder->run())));
    CHECK(visits[4]->hear(100).size() >= 100);
}

TEST_CASE("members: a word that comes with the one that lets in is heard") {
    const member first, other;
    first.lets_in(other);
    other.lets_in(first);
    const listener door;
    node_options options = founder_of(other, 1);
    options.address = door.where();
    options.manifest.clear();
    options.connect_timeout = std::chrono::minutes(5);
    std::stop_source stop;
    options.stop = stop.get_token();
    auto joining = std::async(std::launch::async, [&] { return failure_of([&] { (void)node::join(options); }); });
    tls_visitor host(door.take(), *first.self);
    host.shake();
    std::vector<std::byte> both = encode_frame(refuse_message{refusal::full, "no room for another connection"});
    both.insert(both.begin(), let_in);
    host.say(both);
    const visitor again = door.take();  // there may be room later
    stop.request_stop();
    CHECK(joining.get().code() == node_errc::run_stopped);
}
