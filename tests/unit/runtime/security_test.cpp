// Nodes under TLS, and strangers at their ports.
#include <thinwire/comm/frame.hpp>
#include <thinwire/core/random.hpp>
#include <thinwire/runtime/access.hpp>
#include <thinwire/runtime/node.hpp>

#include "enrol_message.hpp"
#include "gate.hpp"
#include "tls.hpp"
#include "unit/runtime/strangers.hpp"
#include <doctest/doctest.h>
#include <poll.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <ctime>
#include <future>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

using namespace thinwire;
using namespace thinwire::runtime;
using namespace runtime_fixture;
using std::chrono::milliseconds;

TEST_CASE("security: four nodes under TLS see equal commits, known by their keys") {
    const member first;
    std::vector<member> others(3);
    for (const member& m : others) {
        first.lets_in(m);
        m.lets_in(first);
    }
    const auto founder = node::found(founder_of(first, 4));
    CHECK(founder->self() == first.self->peer());
    founder->publish_snapshot(0, std::vector<std::byte>(1000000, std::byte{9}));
    std::vector<std::unique_ptr<node>> nodes;
    for (const member& m : others) nodes.push_back(node::join(joiner_of(m, *founder)));
    for (auto& n : nodes) CHECK(n->take_snapshot() == std::vector<std::byte>(1000000, std::byte{9}));
    std::vector<ledger> ledgers(4);
    {
        std::vector<std::jthread> threads;
        threads.emplace_back([&] { take_part(*founder, 0, 30, ledgers[0]); });
        for (std::size_t i = 0; i < 3; ++i)
            threads.emplace_back([&, i] { take_part(*nodes[i], 0, 30, ledgers[i + 1]); });
    }
    for (const ledger& l : ledgers) {
        CHECK(l.contributions == 120);
        CHECK(l.own_included == 30);
        CHECK(l.state == ledgers[0].state);
    }
    std::vector<peer_id> ids = {first.self->peer()};
    for (const member& m : others) ids.push_back(m.self->peer());
    std::sort(ids.begin(), ids.end());
    std::vector<peer_id> seen;
    for (const peer_status& p : founder->status().peers) seen.push_back(p.peer);
    CHECK(seen == ids);
    CHECK(founder->status().refused == 0);
    // Large payloads, both ways at once, and a founder that says goodbye.
    const std::vector<std::byte> large(5000000, std::byte{5});
    {
        std::vector<std::jthread> threads;
        for (node* n : {founder.get(), nodes[0].get(), nodes[1].get(), nodes[2].get()})
            threads.emplace_back([n, &large] { CHECK(n->exchange(30, large).front().contributions.size() == 4); });
    }
    founder->leave(true);
    CHECK(code_of([&] { take_part(*nodes[0], 31, 99, ledgers[1]); }) == node_errc::run_stopped);
}

TEST_CASE("security: a founder that comes back is known again by its key") {
    const member first, second;
    first.lets_in(second);
    second.lets_in(first);
    node_options options = founder_of(first, 2);
    auto founder = node::found(options);
    founder->publish_snapshot(0, bytes_of("weights"));
    options.listen = "127.0.0.1:" + std::to_string(founder->port());
    const auto joined = node::join(joiner_of(second, *founder));
    ledger mine, theirs;
    {
        std::jthread other([&] { take_part(*joined, 0, 5, theirs); });
        take_part(*founder, 0, 5, mine);
    }
    founder.reset();
    options.next_round = 5;
    founder = node::found(options);
    {
        std::jthread other([&] { take_part(*joined, 5, 9, theirs); });
        take_part(*founder, 5, 9, mine);
    }
    CHECK(mine.state == theirs.state);
    CHECK(theirs.own_included == 9);
}

TEST_CASE("security: a peer that returns through one that it does not know goes on to those that its log names") {
    const member first, second, stranger;
    first.lets_in(second);
    second.lets_in(first);
    const auto founder = node::found(founder_of(first, 1));
    founder->publish_snapshot(0, bytes_of("weights"));
    node_options options = joiner_of(second, *founder);
    auto joined = node::join(options);
    REQUIRE(joined->take_snapshot() == bytes_of("weights"));
    ledger mine, theirs;
    {
        std::jthread other([&] { take_part_until(*founder, 0, second.self->peer(), mine); });
        options.next_round = take_part_until(*joined, 0, second.self->peer(), theirs);
    }
    options.fresh = false;
    joined.reset();
    const auto elsewhere = node::found(founder_of(stranger, 1));
    options.address = "127.0.0.1:" + std::to_string(elsewhere->port());
    joined = node::join(options);
    CHECK(eventually([&] { return founder->status().connections == 2; }));
}

TEST_CASE("security: a key that is not on the list is refused in the handshake, with a line on both sides") {
    const member first, stranger;
    stranger.lets_in(first);
    notices lines;
    const auto founder = node::found(founder_of(first, 1, &lines));
    founder->publish_snapshot(0, bytes_of("weights"));
    const node_error told = failure_of([&] { (void)node::join(joiner_of(stranger, *founder)); });
    CHECK(told.code() == node_errc::refused);
    CHECK(std::string(told.what()).find("does not know this key, " + to_string(stranger.self->key())) !=
          std::string::npos);
    CHECK(lines.hold("its key " + to_string(stranger.self->key())));
    CHECK(lines.hold("is not on the list '" + first.access().string() + "'"));
    CHECK(founder->status().refused == 1);
    CHECK(founder->status().connections == 0);
    // Nothing of the run went out: only what the handshake itself says.
    tls_visitor visit(founder->port(), *stranger.self, tls_purpose::run);
    CHECK(visit.hear(1).empty());
    CHECK(visit.session().end() == tls_end::refused_there);
}

TEST_CASE("security: a founder with another key is not trusted") {
    const member first, expected, second;
    first.lets_in(second);
    second.lets_in(expected);
    const auto founder = node::found(founder_of(first, 1));
    founder->publish_snapshot(0, bytes_of("weights"));
    const node_error told = failure_of([&] { (void)node::join(joiner_of(second, *founder)); });
    CHECK(told.code() == node_errc::untrusted);
    CHECK(std::string(told.what()).find("it has key " + to_string(first.self->key())) != std::string::npos);
}

TEST_CASE("security: a peer is who its key says, not who it says") {
    const member first, second;
    first.lets_in(second);
    const auto founder = node::found(founder_of(first, 1));
    founder->publish_snapshot(0, bytes_of("weights"));
    tls_visitor visit(founder->port(), *second.self, tls_purpose::run);
    CHECK(visit.hear(1) == std::vector{let_in});
    hello_message hello;
    hello.peer = second.self->peer() + 1;
    hello.key = {reinterpret_cast<const char*>(second.self->key().bytes.data()), 32};
    hello.session = 1;
    hello.wants_snapshot = true;
    visit.say(encode_frame(hello));
    CHECK(visit.closed());
    CHECK(founder->status().refused == 1);
    CHECK(founder->status().peers.size() == 1);
}

TEST_CASE("security: an altered record ends a connection that was let in") {
    const member first, second;
    first.lets_in(second);
    node_options options = founder_of(first, 1);
    options.handshake_timeout = std::chrono::minutes(10);
    const auto founder = node::found(options);
    founder->publish_snapshot(0, bytes_of("weights"));
    tls_visitor visit(founder->port(), *second.self, tls_purpose::run);
    CHECK(visit.hear(1) == std::vector{let_in});
    visit.session().write(encode_frame(ping_message{}));
    std::vector<std::byte> record = visit.session().take_output();
    record.back() ^= std::byte{1};
    visit.say_raw(record);
    CHECK(visit.closed());
    CHECK(founder->status().refused == 0);
}

TEST_CASE("security: what is altered on the way is held against nobody") {
    const member first, second;
    first.lets_in(second);
    const auto founder = node::found(founder_of(first, 1));
    founder->publish_snapshot(0, bytes_of("weights"));
    for (std::uint64_t session = 1; session <= 6; ++session) {  // twice as many as are a ban
        tls_visitor visit(founder->port(), *second.self, tls_purpose::run);
        REQUIRE(visit.hear(1) == std::vector{let_in});
        hello_message hello;
        hello.peer = second.self->peer();
        hello.key = {reinterpret_cast<const char*>(second.self->key().bytes.data()), 32};
        hello.session = hello.incarnation = session;
        hello.run = founder->run();
        visit.say(encode_frame(hello));
        visit.session().write(encode_frame(ping_message{}));
        std::vector<std::byte> record = visit.session().take_output();
        record[record.size() / 2] ^= std::byte{1};
        visit.say_raw(record);
        const std::vector<std::byte> heard = visit.hear(std::numeric_limits<std::size_t>::max());  // to the end
        frame_decoder answers{wire_limits{}};
        answers.allow({message_type::welcome, message_type::refuse, message_type::status});
        answers.feed(std::span(heard).subspan(1));
        const auto answer = answers.next();
        REQUIRE(answer);
        REQUIRE(*answer);
        CHECK(std::holds_alternative<welcome_message>(**answer));
    }
}

TEST_CASE("security: plaintext and TLS do not mix") {
    const member first, second;
    first.lets_in(second);
    second.lets_in(first);
    const auto founder = node::found(founder_of(first, 1));
    founder->publish_snapshot(0, bytes_of("weights"));
    const folder dir;
    node_options plain = joiner_options(dir, *founder, 2);
    CHECK(code_of([&] { (void)node::join(plain); }) == node_errc::protocol);  // which is told, not waited for
    plain.connect_timeout = milliseconds(500);
    const auto open = node::found(founder_options(dir, 1));
    open->publish_snapshot(0, bytes_of("weights"));
    node_options secret = joiner_of(second, *open);
    secret.connect_timeout = milliseconds(500);
    CHECK(code_of([&] { (void)node::join(secret); }) == node_errc::unreachable);
    CHECK(open->status().peers.size() == 1);
    plain.identity = second.self;
    CHECK_THROWS_WITH_AS((void)node::join(plain), "node_options: identity beside plaintext, expected one of the two",
                         value_error);
    plain.plaintext = false;
    CHECK_THROWS_AS((void)node::join(plain), value_error);
    plain.access = second.access();
    CHECK_THROWS_AS((void)node::join(plain), value_error);  // peer 2 with the key of another
}

TEST_CASE("security: strangers are shown out and the run goes on") {
    const member first, second;
    first.lets_in(second);
    second.lets_in(first);
    notices lines;
    node_options options = founder_of(first, 2, &lines);
    options.handshake_timeout = milliseconds(300);
    const auto founder = node::found(options);
    founder->publish_snapshot(0, bytes_of("weights"));
    const auto joined = node::join(joiner_of(second, *founder));
    const std::uint64_t before = founder->status().refused;  // it may have been too slow at first
    random_stream random(5);
    std::string noise(6000, '\0');
    for (char& c : noise) c = static_cast<char>(random.below(256));
    // A client hello of 124 KiB, which OpenSSL would wait for.
    const std::string record("\x16\x03\x01\x40\x00", 5);
    const std::string endless =
        record + std::string("\x01\x01\xf0\x00", 4) + std::string(16380, 'x') + record + std::string(16384, 'x');
    const std::vector<std::string> visits = {
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", noise,   std::string(4096, '\0'),
        std::string("\x16\x03\x01\x02\x00\x01", 6),  endless, ""};
    for (const std::string& words : visits) {
        const visitor visit(founder->port());
        visit.say(bytes_of(words));
        CHECK(visit.hear_all() < 100);
    }
    CHECK(eventually([&] { return founder->status().refused == before + visits.size(); }));
    CHECK(lines.hold("no TLS handshake within 300 ms"));
    CHECK(lines.hold("http request"));
    CHECK(lines.hold("more than 16384 bytes before it is let in"));
    ledger mine, theirs;
    {
        std::jthread other([&] { take_part(*joined, 0, 20, theirs); });
        take_part(*founder, 0, 20, mine);
    }
    CHECK(mine.contributions == 40);
    CHECK(mine.state == theirs.state);
}

TEST_CASE("security: a handshake that comes byte by byte ends at the deadline") {
    const member first;
    node_options options = founder_of(first, 1);
    options.handshake_timeout = milliseconds(200);
    const auto founder = node::found(options);
    const identity self = identity::make();
    const tls_context context(self);
    const auto session =
        tls_session::client(context, tls_purpose::run, [](const public_key&, tls_purpose) { return std::string(); });
    const std::vector<std::byte> hello = session->take_output();
    const visitor visit(founder->port());
    std::size_t said = 0;
    const auto begin = std::chrono::steady_clock::now();
    while (said < hello.size() && !visit.closed_within(milliseconds(10)))
        visit.say(std::span(hello).subspan(said++, 1));
    CHECK(said < hello.size());
    CHECK(std::chrono::steady_clock::now() - begin >= milliseconds(190));
}

TEST_CASE("security: silent connections in any number do not keep a peer out") {
    const member first, second;
    first.lets_in(second);
    second.lets_in(first);
    node_options options = founder_of(first, 1);
    options.handshake_timeout = std::chrono::minutes(10);
    const auto founder = node::found(options);
    founder->publish_snapshot(0, bytes_of("weights"));
    std::vector<visitor> silent;
    for (std::size_t i = 0; i < gate::max_strangers + 40; ++i) silent.emplace_back(founder->port());
    for (std::size_t i = 0; i < 40; ++i) CHECK(silent[i].hear_all() == 0);  // the oldest make room
    const auto joined = node::join(joiner_of(second, *founder));
    CHECK(joined->take_snapshot() == bytes_of("weights"));
    CHECK(silent[40].hear_all() == 0);
    CHECK_FALSE(silent.back().closed_within(milliseconds(0)));
    CHECK(founder->status().refused >= 41);
}

TEST_CASE("security: lines for the operator are bounded") {
    const member first;
    notices lines;
    const auto founder = node::found(founder_of(first, 1, &lines));
    for (int i = 0; i < 50; ++i) {
        const visitor visit(founder->port());
        visit.say(bytes_of("GET / HTTP/1.1\r\n\r\n"));
        visit.end();
        visit.hear_all();
    }
    CHECK(eventually([&] { return founder->status().refused == 50; }));
    CHECK(lines.count() == 20);
    // What matters is told all the same.
    const member second;
    second.lets_in(first);
    founder->publish_snapshot(0, bytes_of("weights"));
    enrol(invite_of(first, *founder, tomorrow), *second.self, {.name = "lab"});
    CHECK(lines.hold("enrolled 'lab'"));
    const auto joined = node::join(joiner_of(second, *founder));
    access_list(first.access()).revoke(second.self->key());
    CHECK(eventually([&] { return lines.hold("its key is no longer on the list"); }));
}

TEST_CASE("security: a revoked key loses its connection, and a new one is let in, while the run goes on") {
    const member first, second, third;
    first.lets_in(second, "second");
    second.lets_in(first);
    third.lets_in(first);
    notices lines;
    node_options options = founder_of(first, 1, &lines);
    const auto founder = node::found(options);
    founder->publish_snapshot(0, bytes_of("weights"));
    const auto joined = node::join(joiner_of(second, *founder));
    CHECK(code_of([&] { (void)node::join(joiner_of(third, *founder)); }) == node_errc::refused);
    first.lets_in(third);
    const auto late = node::join(joiner_of(third, *founder));
    access_list(first.access()).revoke(second.self->key());
    CHECK(code_of([&] { (void)joined->exchange(0, bytes_of("x")); }) == node_errc::refused);
    CHECK(lines.hold("its key is no longer on the list"));
    ledger mine, theirs;
    std::jthread other([&] { take_part(*late, 0, 3, theirs); });
    take_part(*founder, 0, 3, mine);
    other.join();
    CHECK(mine.state == theirs.state);
    // A list that cannot be read changes nothing.
    REQUIRE(std::filesystem::remove(first.access()));
    std::filesystem::create_directory(first.access());
    CHECK(eventually([&] { return lines.hold("stays as it was"); }));
    {
        std::jthread another([&] { take_part(*late, 3, 6, theirs); });
        take_part(*founder, 3, 6, mine);
    }
    CHECK(mine.state == theirs.state);
}

TEST_CASE("security: an invite enrols one key, and the line works again for that key only") {
    const member first, second, third;
    notices lines;
    const auto founder = node::found(founder_of(first, 1, &lines));
    founder->publish_snapshot(0, bytes_of("weights"));
    const invite line = invite_of(first, *founder, tomorrow);
    CHECK(enrol(line, *second.self, {.name = "lab"}) == line.addresses.front());
    CHECK(lines.hold("enrolled 'lab' from 127.0.0.1:"));
    CHECK(lines.hold(" as " + to_string(second.self->key())));
    CHECK(access_list(first.access()).rules().find(second.self->key())->name == "lab");
    const node_error used = failure_of([&] { enrol(line, *third.self, {}); });
    CHECK(used.code() == node_errc::refused);
    CHECK(std::string(used.what()).find("the invite was used before") != std::string::npos);
    CHECK(enrol(line, *second.self, {}) == line.addresses.front());
    second.lets_in(first);
    const auto joined = node::join(joiner_of(second, *founder));
    CHECK(joined->take_snapshot() == bytes_of("weights"));
}

TEST_CASE("security: an invite's other addresses are tried after one that is silent and one that turns it away") {
    const member first, second;
    const auto founder = node::found(founder_of(first, 1));
    const listener silent, rude;
    std::jthread turning_away([&] { rude.answer(bytes_of(std::string("\x15\x03\x03\x00\x02\x02\x30", 7))); });
    invite line = invite_of(first, *founder, tomorrow);
    const std::string good = line.addresses.front();
    line.addresses = {silent.where(), rude.where(), good};
    // A third of it goes by at the silent one; the good one has as much for a handshake and what it writes.
    CHECK(enrol(line, *second.self, {.timeout = milliseconds(9000)}) == good);
}

TEST_CASE("security: of two that use one invite at once, one enters") {
    const member first;
    const auto founder = node::found(founder_of(first, 1));
    for (int turn = 0; turn < 5; ++turn) {
        const invite line = invite_of(first, *founder, tomorrow);
        std::atomic<int> entered{0}, refused{0};
        {
            std::vector<std::jthread> threads;
            for (int i = 0; i < 4; ++i)
                threads.emplace_back([&] {
                    const auto code = code_of([&] { enrol(line, identity::make(), {}); });
                    ++(!code ? entered : refused);
                    CHECK((!code || code == node_errc::refused));
                });
        }
        CHECK(entered == 1);
        CHECK(refused == 3);
    }
    CHECK(access_list(first.access()).rules().keys.size() == 5);
}

TEST_CASE("security: invites that do not fit are refused, each with its reason") {
    const member first, second;
    auto options = founder_of(first, 1);
    const auto founder = node::found(options);
    const auto refusal = [&](const invite& line) {
        return failure_of([&] { enrol(line, *second.self, {.timeout = milliseconds(2000)}); });
    };
    const auto says = [](const node_error& told, node_errc code, const char* part) {
        CHECK(told.code() == code);
        CHECK_MESSAGE(std::string(told.what()).find(part) != std::string::npos, told.what());
    };
    invite good = invite_of(first, *founder, tomorrow);
    invite line = good;
    line.secret.bytes[3] ^= std::byte{1};
    says(refusal(line), node_errc::refused, "not known here");
    line = good;
    line.run = digest{};
    says(refusal(line), node_errc::run_mismatch, "this is run");
    line = good;
    line.key = second.self->key();
    says(refusal(line), node_errc::untrusted, "it has key");
    says(refusal(invite_of(first, *founder, 1000)), node_errc::refused, "has expired");
    line = good;
    line.addresses = {"127.0.0.1:1"};
    says(refusal(line), node_errc::unreachable, "nobody to enrol with at 127.0.0.1:1");
    CHECK(access_list(first.access()).rules().keys.empty());
    // Addresses are tried in turn, and Ctrl-C ends it.
    line.addresses = {"127.0.0.1:1", good.addresses.front()};
    CHECK(enrol(line, *second.self, {}) == good.addresses.front());
    std::stop_source stop;
    line.addresses = {"127.0.0.1:1"};
    std::jthread asks([&] { stop.request_stop(); });
    CHECK(code_of([&] { enrol(line, *second.self, {.stop = stop.get_token()}); }) == node_errc::run_stopped);
}

TEST_CASE("security: nobody enrols without an invite, by a replayed proof, or with words that are none") {
    const member first, second, third;
    const auto founder = node::found(founder_of(first, 1));
    tls_visitor early(founder->port(), *second.self, tls_purpose::enrol);
    CHECK(early.hear(1).empty());
    CHECK(early.session().end() == tls_end::refused_there);
    const invite line = invite_of(first, *founder, tomorrow);
    const auto ask = [&](const member& who, auto&& proof_of) {
        tls_visitor visit(founder->port(), *who.self, tls_purpose::enrol);
        visit.shake();
        visit.say(encode(enrol_request{line.run, proof_of(visit.session()), "x"}));
        return decode_enrol_reply(visit.hear(enrol_reply::size))->verdict;
    };
    digest recorded;
    const auto honest = [&](const tls_session& session) {
        return recorded =
                   enrol_proof(verifier_of(line.secret), session.exporter(), third.self->key(), line.key, line.run);
    };
    CHECK(ask(second, honest) == enrol_verdict::unknown);                                       // another's key
    CHECK(ask(third, [&](const tls_session&) { return recorded; }) == enrol_verdict::unknown);  // another session
    tls_visitor odd(founder->port(), *second.self, tls_purpose::enrol);
    odd.shake();
    odd.say(std::vector<std::byte>(enrol_request::size, std::byte{7}));
    CHECK(decode_enrol_reply(odd.hear(enrol_reply::size))->verdict == enrol_verdict::unknown);
    tls_visitor longer(founder->port(), *second.self, tls_purpose::enrol);
    longer.shake();
    longer.say(std::vector<std::byte>(enrol_request::size + 1, std::byte{7}));
    CHECK(longer.closed());
    CHECK(access_list(first.access()).rules().keys.empty());
    CHECK(ask(third, honest) == enrol_verdict::enrolled);
    CHECK(access_list(first.access()).rules().keys.size() == 1);
}

TEST_CASE("security: a founder that cannot write its list enrols nobody and keeps the invite") {
    const member first, second;
    const auto founder = node::found(founder_of(first, 1));
    const invite line = invite_of(first, *founder, tomorrow);
    // The lock's name is taken by a folder, so that no change can begin.
    const std::filesystem::path lock = first.access().string() + ".lock";
    std::filesystem::remove(lock);
    std::filesystem::create_directory(lock);
    const node_error told = failure_of([&] { enrol(line, *second.self, {}); });
    CHECK(told.code() == node_errc::refused);
    CHECK(std::string(told.what()).find("cannot be changed there") != std::string::npos);
    std::filesystem::remove(lock);
    CHECK(enrol(line, *second.self, {}) == line.addresses.front());
}

TEST_CASE("security: messages of enrolment are read whole or not at all") {
    const enrol_request request{sha256{}.update("a").finish(), sha256{}.update("b").finish(), "name"};
    const auto bytes = encode(request);
    CHECK(bytes.size() == enrol_request::size);
    CHECK(decode_enrol_request(bytes)->name == "name");
    CHECK(decode_enrol_request(bytes)->proof == request.proof);
    CHECK(!decode_enrol_request(std::span(bytes).first(bytes.size() - 1)));
    auto altered = bytes;
    altered.back() = std::byte{1};
    CHECK(!decode_enrol_request(altered));
    auto reply = encode(enrol_reply{enrol_verdict::used, std::string(300, 'x')});
    CHECK(decode_enrol_reply(reply)->text.size() == 255);
    reply[0] = std::byte{6};
    CHECK(!decode_enrol_reply(reply));
}
