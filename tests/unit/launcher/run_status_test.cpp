#include "run_status.hpp"

#include <doctest/doctest.h>

#include <limits>
#include <string>

using thinwire::launcher::run_status;
using thinwire::launcher::to_json;
using thinwire::launcher::to_metrics;

namespace {

run_status example() {
    run_status s;
    s.run = "ab12";
    s.peer = "lab";
    s.self = 18446744073709551615U;
    s.founder = true;
    s.sees_arrivals = true;
    s.round = 12;
    s.rounds = 100;
    s.loss = 2.5;
    s.k = 8;
    s.tokens = 1000;
    s.shares = {{10, "aa"}, {11, "bb"}};
    s.awaited = {7};
    s.costs[7] = {.seconds = 0.5, .waited_for = true, .waited_rounds = 3, .waited_seconds = 1.5};
    s.node.round = 12;
    s.node.bytes_sent = 12345678901;
    s.node.banned = {9};
    s.node.peers.push_back({.peer = s.self,
                            .name = "lab",
                            .present = true,
                            .member = true,
                            .contributes = true,
                            .contributed_last = true,
                            .last_round = 11});
    s.node.peers.push_back(
        {.peer = 7, .name = "far", .present = true, .member = true, .contributes = true, .last_round = 4});
    return s;
}

bool has_line(const std::string& page, const std::string& line) {
    return ("\n" + page).find("\n" + line + "\n") != std::string::npos;
}

}  // namespace

TEST_CASE("/status holds what docs/watching.md names") {
    const nlohmann::json out = nlohmann::json::parse(to_json(example()).dump());
    CHECK(out["run"] == "ab12");
    CHECK(out["peer_id"] == "18446744073709551615");
    CHECK(out["round"] == 12);
    CHECK(out["loss"] == 2.5);
    CHECK(out["validation_loss"].is_null());
    CHECK(out["validation_round"].is_null());
    CHECK(out["replica"].is_null());
    CHECK(out["shares"][1] == nlohmann::json{{"round", 11}, {"digest", "bb"}});
    CHECK(out["banned"] == nlohmann::json{"9"});
    REQUIRE(out["peers"].size() == 2);
    CHECK(out["peers"][0]["self"] == true);
    CHECK(out["peers"][0]["staleness_rounds"] == 0);
    const nlohmann::json& far = out["peers"][1];
    CHECK(far["id"] == "7");
    CHECK(far["staleness_rounds"] == 7);
    CHECK(far["awaited"] == true);
    CHECK(far["waited_for_last"] == true);
    CHECK(far["arrival_seconds"] == 0.5);
    CHECK(far["waited_rounds"] == 3);
}

TEST_CASE("where arrivals are not seen they are not told, nor is a loss that is no number") {
    run_status s = example();
    s.sees_arrivals = false;
    s.loss = std::numeric_limits<double>::quiet_NaN();
    const nlohmann::json out = nlohmann::json::parse(to_json(s).dump());
    CHECK(out["loss"].is_null());
    for (const char* field : {"awaited", "waited_for_last", "arrival_seconds", "waited_rounds", "waited_seconds"})
        CHECK(out["peers"][1][field].is_null());
    CHECK(to_metrics(s).find("waited") == std::string::npos);
    CHECK(has_line(to_metrics(s), "thinwire_loss NaN"));
}

TEST_CASE("/metrics has help, type and one line a sample") {
    const std::string page = to_metrics(example());
    CHECK(has_line(page, "# TYPE thinwire_sent_bytes_total counter"));
    CHECK(has_line(page, "thinwire_sent_bytes_total 12345678901"));
    CHECK(has_line(page, "# HELP thinwire_loss This peer's training loss in the last round."));
    CHECK(has_line(page, "thinwire_loss 2.5"));
    CHECK(has_line(page, "thinwire_peer_waited_seconds_total{peer_id=\"7\",name=\"far\"} 1.5"));
    CHECK(has_line(page, "thinwire_peer_staleness_rounds{peer_id=\"7\",name=\"far\"} 7"));
    CHECK(page.find("validation") == std::string::npos);
}

TEST_CASE("an alert for who falls behind tells of no witness, nor of who left") {
    run_status s = example();
    s.node.peers.push_back({.peer = 8, .name = "witness", .present = true, .member = true});
    s.node.peers.push_back({.peer = 9, .name = "gone", .last_round = 2});
    const std::string page = to_metrics(s);
    CHECK(has_line(page, "thinwire_peer_present{peer_id=\"8\",name=\"witness\"} 1"));
    for (const char* peer : {"8", "9"})
        CHECK(page.find("peer_staleness_rounds{peer_id=\"" + std::string(peer)) == std::string::npos);
}

TEST_CASE("a peer's name cannot leave its label, nor spoil the encoding") {
    run_status s = example();
    s.node.peers[1].name = "a\"} 1\nthinwire_loss 0\\\xff\x1b[2J";
    const std::string page = to_metrics(s);
    CHECK(has_line(
        page, "thinwire_peer_present{peer_id=\"7\",name=\"a\\\"} 1\\nthinwire_loss 0\\\\\xef\xbf\xbd\x1b[2J\"} 1"));
    CHECK_FALSE(has_line(page, "thinwire_loss 0\\\\"));
    const std::string text = to_json(s).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    CHECK(text.find('\x1b') == std::string::npos);
    CHECK(nlohmann::json::parse(text)["peers"][1]["name"] == "a\"} 1\nthinwire_loss 0\\\xef\xbf\xbd\x1b[2J");
}
