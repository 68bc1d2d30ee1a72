// The gate and what stands in it, step by step, without a node around it.
#include "gate.hpp"

#include "unit/runtime/fixture.hpp"
#include <asio/write.hpp>
#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

using namespace thinwire;
using namespace thinwire::runtime;
using namespace runtime_fixture;
using asio::ip::tcp;

namespace {

const auto anyone = [](const public_key&, tls_purpose) { return std::string(); };

/// Two ends of a TCP connection.
std::pair<tcp::socket, tcp::socket> connected(asio::io_context& io) {
    tcp::acceptor acceptor(io, {asio::ip::address_v4::loopback(), 0});
    tcp::socket one(io);
    one.connect(acceptor.local_endpoint());
    return {std::move(one), acceptor.accept()};
}

/// Runs what is ready, and what becomes so, until `holds`; false after a minute.
template <class Holds>
bool run_until(asio::io_context& io, Holds&& holds) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    while (!holds()) {
        if (std::chrono::steady_clock::now() > end) return false;
        io.restart();
        (void)io.run_one_for(std::chrono::milliseconds(100));
    }
    return true;
}

/// A founder's gate, and a client at it whose every byte the test sends.
struct scene {
    folder dir;
    std::shared_ptr<const identity> host = std::make_shared<const identity>(identity::make());
    identity guest = identity::make();
    std::filesystem::path file = dir.path() / "access";
    std::vector<std::string> lines;
    int let_in_count = 0;
    int changes = 0;
    asio::io_context io;
    std::optional<gate> door;
    tls_context context{guest};
    std::unique_ptr<tls_session> client;
    std::optional<tcp::socket> socket;
    std::vector<std::byte> heard;

    explicit scene(tls_purpose purpose) : client(tls_session::client(context, purpose, anyone)) {}

    void open() {
        node_options options;
        options.identity = host;
        options.access = file;
        options.run = digest_of(bytes_of("run"));
        options.handshake_timeout = std::chrono::minutes(1);
        door.emplace(io, options, [this](bool, const std::string& line) { lines.push_back(line); });
        door->watch([this] { ++changes; });
        auto [mine, theirs] = connected(io);
        socket.emplace(std::move(mine));
        socket->non_blocking(true);
        door->receive(std::move(theirs), [this](channel) { ++let_in_count; });
    }
    void say(std::span<const std::byte> bytes) { asio::write(*socket, asio::buffer(bytes.data(), bytes.size())); }
    /// Takes what has come; false at the end of the stream.
    bool hear() {
        std::vector<std::byte> bytes(4096);
        asio::error_code error;
        bytes.resize(socket->read_some(asio::buffer(bytes), error));
        client->feed(bytes, heard);
        return !error || error == asio::error::would_block;
    }
    [[nodiscard]] bool told(const std::string& part) const {
        return std::any_of(lines.begin(), lines.end(),
                           [&](const std::string& line) { return line.find(part) != std::string::npos; });
    }
};

}  // namespace

TEST_CASE("gate: a key that is revoked while its handshake waits for the last byte is not let in") {
    scene s(tls_purpose::run);
    access_list list(s.file);
    list.allow(s.guest.key(), "guest");
    s.open();
    s.say(s.client->take_output());
    REQUIRE(run_until(s.io, [&] {
        s.hear();
        return s.client->shaken();
    }));
    const std::vector<std::byte> flight = s.client->take_output();  // certificate, its proof, Finished
    list.allow(identity::make().key(), "another");                  // so that the gate tells when it looks at the list
    s.say(std::span(flight).first(flight.size() - 1));
    REQUIRE(run_until(s.io, [&] { return s.changes > 0; }));
    bool revoked = true;
    SUBCASE("revoked") {
        list.revoke(s.guest.key());
    }
    SUBCASE("not revoked") {
        revoked = false;
    }
    s.say(std::span(flight).last(1));
    CHECK(run_until(s.io, [&] { return s.let_in_count > 0 || !s.lines.empty(); }));
    CHECK(s.let_in_count == (revoked ? 0 : 1));
    CHECK(s.told("taken off the list during the handshake") == revoked);
    s.door->close();
}

TEST_CASE("gate: a change of the list that an enrolment comes upon is told to those who watch") {
    scene s(tls_purpose::enrol);
    access_list list(s.file);
    const invite_secret secret = list.add_invite(std::time(nullptr) + 3600, 0);
    const public_key other = identity::make().key();
    list.allow(other, "other");
    s.open();
    s.say(s.client->take_output());
    REQUIRE(run_until(s.io, [&] {
        s.hear();
        return s.client->shaken();
    }));
    const digest run = digest_of(bytes_of("run"));
    const digest proof = enrol_proof(verifier_of(secret), s.client->exporter(), s.guest.key(), s.host->key(), run);
    list.allow(identity::make().key(), "another");  // so that the gate tells when it looks at the list
    s.say(s.client->take_output());
    REQUIRE(run_until(s.io, [&] { return s.changes > 0; }));
    s.changes = 0;
    REQUIRE(list.revoke(other));
    s.client->write(encode(enrol_request{run, proof, "guest"}));
    s.say(s.client->take_output());
    REQUIRE(run_until(s.io, [&] {
        s.hear();
        return s.heard.size() == enrol_reply::size;
    }));
    CHECK(decode_enrol_reply(s.heard)->verdict == enrol_verdict::enrolled);
    s.io.restart();
    (void)s.io.poll();
    CHECK(s.changes > 0);
    s.door->close();
}

TEST_CASE("gate: a list that cannot be read is told once for each cause, and read when it can be") {
    scene s(tls_purpose::run);
    access_list(s.file).allow(s.guest.key(), "guest");
    s.open();
    std::filesystem::permissions(s.file, std::filesystem::perms::group_read, std::filesystem::perm_options::add);
    s.say(s.client->take_output());
    // Looks at the list twice: at the certificate, and at the end.
    REQUIRE(run_until(s.io, [&] {
        s.hear();
        if (s.client->has_output()) s.say(s.client->take_output());
        return s.let_in_count > 0;
    }));
    CHECK(s.lines.size() == 1);
    CHECK(s.told("stays as it was"));
    CHECK(s.changes == 0);
    std::filesystem::permissions(s.file, std::filesystem::perms::group_read, std::filesystem::perm_options::remove);
    CHECK(run_until(s.io, [&] { return s.changes > 0; }));
    s.door->close();
}

TEST_CASE("gate: a handshake that is aborted by what is done with its channel says nothing more") {
    asio::io_context io;
    const identity one = identity::make(), two = identity::make();
    const tls_context dialling(one), dialled(two);
    auto [near, far] = connected(io);
    const auto talk = [](const tls_session&) { return conversation{{let_in}, 1, {}}; };
    const auto a =
        std::make_shared<handshake>(std::move(near), tls_session::client(dialling, tls_purpose::run, anyone), talk);
    const auto b = std::make_shared<handshake>(std::move(far), tls_session::server(dialled, anyone), talk);
    bool over = false, gone = false, other = false;
    a->start(
        std::chrono::minutes(1),
        [&](const handshake::outcome& result) {
            CHECK(result.open.has_value());
            CHECK(gone);
            a->abort();
            over = true;
        },
        [&] {
            CHECK_FALSE(over);
            gone = true;
        });
    b->start(
        std::chrono::minutes(1), [&](const handshake::outcome&) { other = true; }, [] {});
    CHECK(run_until(io, [&] { return over && other; }));
}
