#include "dashboard/history.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

using namespace thinwire::launcher;
using nlohmann::json;

namespace {

json start(std::uint64_t round = 0, const char* run = "aa") {
    return {{"event", "start"}, {"time", 100.0},      {"round", round},
            {"rounds", 1000},   {"parameters", 1000}, {"run", run}};
}

json round_line(std::uint64_t round, double loss = 3.0) {
    return {{"event", "round"},
            {"time", 100.0 + static_cast<double>(round)},
            {"round", round},
            {"loss", loss},
            {"tokens", 10},
            {"round_tokens", 20},
            {"seconds", 1.0},
            {"contributors", 2},
            {"agreeing", 2},
            {"disagreeing", 0},
            {"bytes_sent", 1000 + 50 * (round + 1)},
            {"bytes_received", 70 * (round + 1)},
            {"compute_seconds", 0.5 * static_cast<double>(round + 1)},
            {"wait_seconds", 0.25 * static_cast<double>(round + 1)},
            {"term", 1}};
}

json peer(const char* id, bool present, bool member, std::uint64_t last_round, std::uint64_t tokens = 0) {
    return {{"id", id},
            {"name", std::string("peer ") + id},
            {"present", present},
            {"member", member},
            {"contributed_last", present && last_round > 0},
            {"last_round", last_round},
            {"tokens", tokens},
            {"bytes_sent", tokens},
            {"bytes_received", tokens},
            {"staleness_rounds", 0}};
}

json peers_line(std::uint64_t round, json peers) {
    return {{"event", "peers"},
            {"time", 100.0 + static_cast<double>(round)},
            {"round", round},
            {"peers", std::move(peers)}};
}

std::vector<std::string> marks_of(const history& h) {
    std::vector<std::string> kinds;
    const auto all = h.snapshot();
    for (const auto& mark : all["marks"])
        kinds.push_back(mark["kind"].get<std::string>() + "@" + std::to_string(mark["round"].get<int>()));
    return kinds;
}

double value(const nlohmann::ordered_json& snapshot, std::size_t row, const char* column) {
    const auto& columns = snapshot["columns"];
    const auto at = std::find(columns.begin(), columns.end(), column) - columns.begin();
    return snapshot["rows"][row][static_cast<std::size_t>(at)].get<double>();
}

}  // namespace

TEST_CASE("history: rounds become rows, and an update has what is new") {
    history h;
    h.take_line(start());
    for (std::uint64_t i = 0; i < 20; ++i) h.take_line(round_line(i, 4.0 - 0.1 * static_cast<double>(i)));
    auto first = h.take_update();
    CHECK(first["rows"].size() == 20);
    CHECK(first["progress"]["round"] == 20);
    CHECK(first["progress"]["tokens"] == 400);
    CHECK(first["progress"]["tokens_total"] == 20000);
    CHECK(first["progress"]["tokens_per_second"] == 20);
    CHECK(first["progress"]["left_seconds"] == 980);
    CHECK(first["reasons"]["sent_a_round"] == 100);  // the first one counts the handshakes
    CHECK(first["reasons"]["dense_a_round"] == 4000);
    CHECK(first["reasons"]["waited"] == 5);
    CHECK(first["reasons"]["computed_recent"] == 10);
    CHECK(h.take_update().is_null());
    h.take_line(round_line(20));
    h.take_line(round_line(20));  // told twice
    const auto second = h.take_update();
    CHECK(second["rows"].size() == 1);
    CHECK(h.snapshot()["rows"].size() == 21);
    // As many columns as a row has values.
    CHECK(h.snapshot()["columns"].size() == second["rows"][0].size());
}

TEST_CASE("history: rounds that nobody told of have as many tokens as the next one") {
    history h;
    h.take_line(start(10));
    h.take_line(round_line(10));
    h.take_line(round_line(14));
    const auto rows = h.snapshot()["rows"];
    CHECK(rows[0][0] == 0);
    CHECK(rows[0][4] == 11 * 20);
    CHECK(rows[1][0] == 11);
    CHECK(rows[1][4] == 4 * 20);
}

TEST_CASE("history: a process that starts anew counts from nothing") {
    history h;
    h.take_line(start());
    for (std::uint64_t i = 0; i < 3; ++i) h.take_line(round_line(i));
    h.take_line(start(3));
    json line = round_line(3);
    line["bytes_sent"] = 40;
    line["wait_seconds"] = 0.5;
    line["compute_seconds"] = 0.25;
    h.take_line(line);
    CHECK(value(h.snapshot(), 3, "sent") == 40);
    CHECK(value(h.snapshot(), 3, "waited") == 0.5);
    CHECK(value(h.snapshot(), 3, "computed") == 0.25);
    h.take_line(peers_line(4, json::array({peer("1", true, true, 3, 500)})));
    h.take_line(start(4));
    h.take_line(peers_line(5, json::array({peer("1", true, true, 4, 20)})));
    CHECK(h.snapshot()["states"][0][2] == 520);
}

TEST_CASE("history: a line that is a little older than what was told, or of another peer, counts nothing twice") {
    history h;
    h.take_line(start());
    for (const std::uint64_t tokens : {1000U, 990U, 1010U, 900U, 1020U})
        h.take_line(peers_line(1, json::array({peer("1", true, true, 1, tokens)})));
    CHECK(h.snapshot()["states"][0][2] == 1020);
    h.take_line(peers_line(2, json::array({peer("1", true, true, 1, 30)})));  // its process began again
    CHECK(h.snapshot()["states"][0][2] == 1050);
}

TEST_CASE("history: a goodbye, a loss and a return are told apart") {
    history h;
    h.take_line(start());
    h.take_line(peers_line(1, json::array({peer("1", true, true, 1), peer("2", true, true, 1)})));
    CHECK(marks_of(h).empty());  // who is there from the beginning
    h.take_line(
        peers_line(5, json::array({peer("1", true, true, 4), peer("2", true, true, 4), peer("3", true, false, 0)})));
    CHECK(marks_of(h) == std::vector<std::string>{"joined@5"});
    CHECK(h.snapshot()["states"][2][1] == 1);  // syncing
    // The second says goodbye: away, and a round later out of the view.
    h.take_line(
        peers_line(7, json::array({peer("1", true, true, 6), peer("2", false, true, 6), peer("3", true, true, 6)})));
    CHECK(h.snapshot()["states"][1][1] == 3);
    h.take_line(
        peers_line(8, json::array({peer("1", true, true, 7), peer("2", false, false, 6), peer("3", true, true, 7)})));
    CHECK(marks_of(h) == std::vector<std::string>{"joined@5", "left@7"});
    CHECK(h.snapshot()["states"][1][1] == 4);
    // The third is lost, is given up, and returns.
    h.take_line(peers_line(10, json::array({peer("1", true, true, 9), peer("3", false, true, 8)})));
    for (std::uint64_t i = 10; i < 16; ++i) h.take_line(round_line(i));
    CHECK(marks_of(h) == std::vector<std::string>{"joined@5", "left@7", "lost@10"});
    h.take_line(peers_line(70, json::array({peer("1", true, true, 69), peer("3", false, false, 8)})));
    CHECK(h.snapshot()["states"][2][1] == 3);
    h.take_line(peers_line(80, json::array({peer("1", true, true, 79), peer("3", true, true, 79)})));
    CHECK(marks_of(h) == std::vector<std::string>{"joined@5", "left@7", "lost@10", "returned@80"});
    CHECK(h.snapshot()["marks"].back()["seconds"] == 70);
    // Back before it was sure that it was lost.
    h.take_line(peers_line(90, json::array({peer("1", true, true, 89), peer("3", false, true, 88)})));
    h.take_line(peers_line(91, json::array({peer("1", true, true, 90), peer("3", true, true, 90)})));
    CHECK(marks_of(h).size() == 6);
    CHECK(marks_of(h)[4] == "lost@90");
    CHECK(marks_of(h)[5] == "returned@91");
    CHECK(h.snapshot()["people"].size() == 3);
    CHECK(h.snapshot()["people"][2]["name"] == "peer 3");
}

TEST_CASE("history: who goes with the end of the run was there until then") {
    history h;
    h.take_line(start());
    h.take_line(
        peers_line(1, json::array({peer("1", true, true, 1), peer("2", true, true, 1), peer("3", true, true, 1)})));
    h.take_line(
        peers_line(5, json::array({peer("1", true, true, 4), peer("2", true, true, 4), peer("3", false, true, 4)})));
    h.take_line(round_line(9));
    h.take_line(
        peers_line(10, json::array({peer("1", true, true, 9), peer("2", false, true, 9), peer("3", false, true, 4)})));
    CHECK(h.snapshot()["states"][1][1] == 3);
    h.take_line({{"event", "end"}, {"time", 110.0}, {"round", 10}, {"replica_digest", "ab"}});
    const auto all = h.snapshot();
    CHECK(all["states"][1][1] == 0);
    CHECK(all["states"][2][1] == 3);
    CHECK(all["rosters"].back()["states"][1][1] == 0);
    CHECK(marks_of(h) == std::vector<std::string>{"lost@5"});
    h.take_line(start(10));
    h.take_line(peers_line(11, json::array({peer("1", true, true, 10), peer("2", true, true, 10)})));
    CHECK(marks_of(h) == std::vector<std::string>{"lost@5"});
}

TEST_CASE("history: another who orders the rounds is marked") {
    history h;
    h.take_line(start());
    h.take_line(round_line(0));
    json line = round_line(1);
    line["term"] = 3;
    line["seconds"] = 7.5;
    h.take_line(line);
    CHECK(marks_of(h) == std::vector<std::string>{"takeover@1"});
    CHECK(h.snapshot()["marks"][0]["seconds"] == 7.5);
}

TEST_CASE("history: a pause is no time of its round; it is marked once, by whoever tells of it first") {
    const auto paused_round = [](std::uint64_t round, double time, double took, double paused) {
        json one = round_line(round);
        one["time"] = time;
        one["seconds"] = took;
        one["wait_seconds"] = 0.25 * static_cast<double>(round + 1) + paused;
        one["paused_seconds"] = paused;
        return one;
    };
    const std::vector<std::string> both{"paused@2", "resumed@2"};
    history read;  // as from a folder
    read.take_line(start());
    read.take_line(paused_round(0, 101, 1, 0));
    read.take_line(paused_round(1, 102, 1, 0.1));  // less than what is worth a mark
    CHECK(marks_of(read).empty());
    read.take_line(paused_round(2, 163, 61, 60.1));
    read.take_line(paused_round(3, 164, 1, 60.1));
    CHECK(marks_of(read) == both);
    CHECK(read.snapshot()["marks"][0]["time"] == 103);
    CHECK(read.snapshot()["marks"][1]["seconds"] == 60);
    CHECK(value(read.snapshot(), 2, "seconds") == 1);
    CHECK(value(read.snapshot(), 2, "waited") == 0.25);

    // Beside it a status, which sees the pause begin; its end is seen first by one or by the other.
    for (const bool status_first : {true, false}) {
        history h;
        json status = {{"run", "aa"}, {"round", 2}, {"paused", true}};
        h.take_line(start());
        h.take_line(paused_round(0, 101, 1, 0));
        h.take_line(paused_round(1, 102, 1, 0));
        h.take_status(status, 103.5, false);
        CHECK(marks_of(h) == std::vector<std::string>{"paused@2"});
        CHECK(h.snapshot()["paused"] == true);
        status["paused"] = false;
        if (status_first) h.take_status(status, 163.5, false);
        h.take_line(paused_round(2, 163, 61, 60));
        h.take_status(status, 164, false);
        CHECK(marks_of(h) == both);
        CHECK(h.snapshot()["marks"][1]["seconds"] == (status_first ? 60 : 59.5));
        CHECK(h.snapshot()["paused"] == false);
    }
}

TEST_CASE("history: where the loss began is known when the first point is a mean of many rounds") {
    history h;
    h.take_line(start());
    for (std::uint64_t i = 0; i < 3000; ++i) h.take_line(round_line(i, i == 0 ? 5.0 : 3.0));
    CHECK(value(h.snapshot(), 0, "loss") < 4.5);
    CHECK(h.snapshot()["progress"]["first_loss"] == 5);
}

TEST_CASE("history: nobody is behind before the first round") {
    history h;
    h.take_line(start());
    h.take_line(peers_line(0, json::array({peer("1", true, true, 0)})));
    CHECK(h.snapshot()["states"][0][1] == 0);
    h.take_line(peers_line(1, json::array({peer("1", true, true, 0)})));
    CHECK(h.snapshot()["states"][0][1] == 1);
}

TEST_CASE("history: energy of each process counts, by the tokens that it was told for") {
    history h;
    const auto told = [&](std::uint64_t round, double joules) {
        json line = peers_line(round, json::array());
        line["energy_joules"] = joules;
        line["momentum_energy"] = joules / 1000;
        h.take_line(line);
    };
    h.take_line(start());
    CHECK(h.snapshot()["reasons"]["joules_per_token"].is_null());
    for (std::uint64_t i = 0; i < 4; ++i) h.take_line(round_line(i));
    told(4, 100);
    h.take_line(round_line(4));  // not told of yet
    CHECK(h.snapshot()["reasons"]["joules_per_token"] == 2.5);
    h.take_line(start(5));
    for (std::uint64_t i = 5; i < 10; ++i) h.take_line(round_line(i));
    told(10, 20);
    CHECK(h.snapshot()["reasons"]["joules"] == 120);
    CHECK(h.snapshot()["reasons"]["momentum_energy"] == 0.02);
    CHECK(h.snapshot()["reasons"]["joules_per_token"] == 1.2);
}

TEST_CASE("history: everything is bounded, whatever is told") {
    history h;
    h.take_line(start());
    json many = json::array();
    for (int i = 0; i < 3000; ++i) many.push_back(peer(std::to_string(i).c_str(), i % 2 == 0, true, 1));
    h.take_line(peers_line(1, many));
    for (std::uint64_t i = 0; i < 6000; ++i) {
        h.take_line({{"event", "evaluation"}, {"round", i + 1}, {"loss", 2.0}, {"sample", std::string(100000, 'x')}});
        if (i % 10 == 0) h.take_line(peers_line(10 + i, json::array({peer("1", i % 20 == 0, true, i)})));
    }
    CHECK(h.take_update()["rows"].empty());
    for (std::uint64_t i = 0; i < history::max_update + 5; ++i) h.take_line(round_line(i));
    CHECK(h.take_update() == nlohmann::ordered_json{{"reset", true}});
    const auto all = h.snapshot();
    CHECK(all["evaluations"].size() <= history::max_evaluations);
    CHECK(all["evaluations"].back()[0] == 6000);
    CHECK(all["samples"].size() <= history::max_samples);
    CHECK(all["samples"].back()["text"].get<std::string>().size() == history::max_sample_bytes);
    CHECK(all["marks"].size() == history::max_marks);
    CHECK(all["people"].size() == attendance::max_people);
    CHECK(all["rosters"].size() <= attendance::max_rosters);
    CHECK(all.dump().size() < (std::size_t{4} << 20U));
}

TEST_CASE("history: foreign fields of any type do no harm, and no address or number of a peer is shown") {
    history h;
    const std::vector<json> values = {nullptr,       true, -1, 1e300, "x", json::array({1, "2", json::object()}),
                                      json::object()};
    for (const json& value : values) {
        const json good = round_line(1);
        for (const auto& [name, was] : good.items()) {
            json line = good;
            line[name] = value;
            h.take_line(line);
            json status = {{"run", "bb"}, {"round", 3}, {"rounds", 5}, {"peers", value}, {"replica", value}};
            status[name] = value;
            h.take_status(status, 5, true);
        }
        const json known = peer("7", true, true, 1);
        for (const auto& [name, was] : known.items()) {
            json strange = known;
            strange[name] = value;
            h.take_line(peers_line(3, json::array({strange, value})));
        }
        h.take_line({{"event", value}});
        h.take_line(value.is_object() ? value : json::object());
    }
    json hostile = peer("123456789012345", true, true, 1);
    hostile["name"] = "<img src=x>\x1b[2J\xff\u202e";
    hostile["address"] = "10.0.0.7:4400";
    h.take_line(peers_line(9, json::array({hostile})));
    const std::string text = h.snapshot().dump();
    CHECK(text.find("123456789012345") == std::string::npos);
    CHECK(text.find("10.0.0.7") == std::string::npos);
    CHECK(text.find("<img src=x>?[2J??") != std::string::npos);
}

TEST_CASE("history: the status of another run begins a new history; polled rounds are points of the curve") {
    history h;
    json status = {{"run", "cc"},
                   {"round", 10},
                   {"rounds", 100},
                   {"round_tokens", 30},
                   {"loss", 2.5},
                   {"contributors", 3},
                   {"bytes_sent", 500},
                   {"wait_seconds", 2.0},
                   {"phase", "computing"},
                   {"rounds_per_second_minute", 2.0},
                   {"peers", json::array({peer("1", true, true, 9)})}};
    h.take_status(status, 1000, true);
    status["round"] = 14;
    status["bytes_sent"] = 900;
    h.take_status(status, 1002, true);
    h.take_status(status, 1003, true);
    auto all = h.snapshot();
    CHECK(all["rows"].size() == 2);
    CHECK(value(all, 1, "first") == 10);
    CHECK(value(all, 1, "last") == 13);
    CHECK(value(all, 1, "seen") == 4);
    CHECK(value(all, 1, "tokens") == 120);
    CHECK(value(all, 1, "seconds") == 2);
    CHECK(value(all, 1, "sent") == 400);
    CHECK(all["progress"]["tokens"] == 420);
    status["paused"] = true;
    h.take_status(status, 1004, true);
    CHECK(marks_of(h) == std::vector<std::string>{"paused@14"});
    CHECK_FALSE(h.take_update().contains("reset"));
    h.take_silence();
    CHECK(h.take_update()["phase"] == "");
    h.take_silence();
    CHECK(h.take_update().is_null());
    status["run"] = "dd";
    h.take_status(status, 1005, false);  // beside a folder of another run
    CHECK(h.take_update().is_null());
    status["round"] = 1;
    h.take_status(status, 1005, true);
    CHECK(h.take_update() == nlohmann::ordered_json{{"reset", true}});
    CHECK(h.snapshot()["progress"]["round"] == 1);
}

TEST_CASE("history: the time that is left, with its spread") {
    std::vector<round_span> recent;
    CHECK_FALSE(estimate(recent, 10));
    for (std::uint64_t i = 0; i < 200; ++i)
        recent.push_back({.first = i, .last = i, .seen = 1, .seconds = i % 100 < 50 ? 1.0 : 3.0});
    const auto left = estimate(recent, 100);
    REQUIRE(left);
    CHECK(left->seconds == doctest::Approx(200));
    CHECK(left->low == doctest::Approx(100));
    CHECK(left->high == doctest::Approx(300));
    for (round_span& span : recent) span.seconds = 2;
    const auto steady = estimate(recent, 7);
    REQUIRE(steady);
    CHECK(steady->low == doctest::Approx(14));
    CHECK(steady->high == doctest::Approx(14));
    recent.resize(7);
    CHECK_FALSE(estimate(recent, 7));
}
