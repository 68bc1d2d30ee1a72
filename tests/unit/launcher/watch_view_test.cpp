#include "watch_view.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

using namespace thinwire::launcher;
using nlohmann::json;

namespace {

json example(int round) {
    return {{"run", "ab12cd34ab12cd34ab12"},
            {"peer", "lab"},
            {"role", "founder"},
            {"phase", "waiting"},
            {"phase_seconds", 3.5},
            {"round", round},
            {"rounds", 100},
            {"loss", 2.5},
            {"contributors", 2},
            {"agreeing", 2},
            {"shares",
             {{{"round", round - 1}, {"digest", "d" + std::to_string(round - 1)}},
              {{"round", round}, {"digest", "d" + std::to_string(round)}}}},
            {"peers",
             {{{"id", "1"}, {"name", "lab"}, {"self", true}, {"present", true}, {"contributed_last", true}},
              {{"id", "2"}, {"name", "far"}, {"present", true}, {"awaited", true}, {"staleness_rounds", 3}}}}};
}

watched at(const char* address, const json& document) {
    auto status = read_status(document.dump());
    REQUIRE(status);
    return {.address = address, .status = *status, .problem = {}};
}

bool safe(const std::string& text) {
    return std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c < 0x7f; });
}

}  // namespace

TEST_CASE("a status is drawn with whom it waits for") {
    const auto lines = draw({at("a", example(7))}, 79, 24);
    REQUIRE(lines.size() == 8);
    CHECK(lines[0].find("run ab12cd34ab12cd34  round 7/100") == 0);
    CHECK(lines[4] == "lab (founder) is waiting for 4 s, until far sends");
    CHECK(lines[6].find("lab *          in round") == 0);
    CHECK(lines[7].find("far            awaited") == 0);
    for (const std::string& line : lines) CHECK(line.size() <= 79);
    CHECK(change_line({at("a", example(7))}) == "lab: round 7/100 loss 2.5000 agree 2/2 present lab,far waits for far");
}

TEST_CASE("who died after it contributed is away") {
    json document = example(7);
    document["peers"].push_back({{"name", "dead"}, {"present", false}, {"contributed_last", true}});
    document["peers"].push_back({{"name", "slow"}, {"present", true}, {"contributed_last", false}});
    const auto lines = draw({at("a", document)}, 79, 24);
    CHECK(lines[8].find("dead           away") == 0);
    CHECK(lines[9].find("slow           behind") == 0);
}

TEST_CASE("a screen keeps to its size") {
    json document = example(7);
    for (int i = 0; i < 100; ++i)
        document["peers"].push_back(
            {{"name", std::string(500, 'x')}, {"last_round", UINT64_MAX}, {"bytes_sent", UINT64_MAX}});
    for (const std::size_t height : {4U, 10U, 23U}) {
        const auto lines = draw({at("a", document)}, 79, height);
        CHECK(lines.size() == height);
        for (const std::string& line : lines) CHECK(line.size() <= 79);
        CHECK(lines.back().find("... and ") == 0);
    }
    const auto two = draw({at("a", document), at("b", document)}, 79, 3);
    CHECK(two.size() == 3);
    CHECK(two.back().find("weights agree") == 0);
}

TEST_CASE("no byte of a foreign document reaches the terminal but visible ASCII") {
    const std::string evil = "\x1b]0;owned\x07\x1b[2J\r\n\u202e\u009b31m\x7f";
    json document = example(7);
    for (const char* field : {"run", "peer", "role", "phase"}) document[field] = evil;
    document["peers"][1]["name"] = evil;
    document["replica"] = {{"round", 5}, {"digest", evil}};
    document["shares"][0]["digest"] = evil;
    const std::vector<watched> all = {at("a", document), at("b", document)};
    for (const auto& lines : {draw({all[0]}, 79, 24), draw(all, 79, 24)})
        for (const std::string& line : lines) CHECK(safe(line));
    CHECK(safe(change_line(all)));
    CHECK(safe(to_json(all).dump(-1, ' ', true, json::error_handler_t::replace)));
}

TEST_CASE("fields of other types, ranges and amounts count as not told") {
    json document = example(7);
    document["rounds"] = -5;
    document["loss"] = "low";
    document["phase_seconds"] = nullptr;
    document["peers"].push_back(3);
    document["peers"][1]["staleness_rounds"] = 1.5;
    document["peers"][1]["waited_rounds"] = -1;
    document["peers"][1]["present"] = "yes";
    document["shares"] = {{"round", 1}};
    document["later"] = {{"field", 1}};
    const auto status = read_status(document.dump());
    REQUIRE(status);
    CHECK(status->rounds == 0);
    CHECK_FALSE(status->loss);
    CHECK(status->peers.size() == 2);
    CHECK(status->peers[1].staleness == 0);
    CHECK_FALSE(status->peers[1].waited_rounds);
    CHECK_FALSE(status->peers[1].present);
    CHECK(status->shares.empty());
    CHECK(status->document["later"]["field"] == 1);
}

TEST_CASE("what is no status is refused") {
    for (const std::string& text :
         {std::string(), std::string("[]"), std::string("{"), std::string("{\"round\": 1}"),
          std::string("{\"run\": \"a\", \"round\": \"1\"}"), std::string("{\"run\": \"a\", \"round\": 1e999}"),
          std::string("{\"run\": \"\", \"round\": 1}"), std::string("\xff\xfe{}"),
          "{\"run\": \"a\", \"round\": 1, \"x\": " + std::string(100000, '[') + std::string(100000, ']') + "}",
          std::string(200000, '['), "{\"run\": \"" + std::string(5 << 20, 'a') + "\", \"round\": 1}"}) {
        const auto status = read_status(text);
        REQUIRE_FALSE(status);
        CHECK(safe(status.error().message));
    }
    json many = example(7);
    many["peers"] = json::array();
    for (int i = 0; i < 5000; ++i) many["peers"].push_back({{"name", "p"}});
    CHECK(read_status(many.dump())->peers.size() == 4096);
}

TEST_CASE("weights are compared where two told of the same round") {
    const watched a = at("a", example(7));
    CHECK(compare({a, at("b", example(8))}).text() == "weights agree: 2 peers in round 7");
    CHECK(compare({a, at("b", example(9))}).is == agreement::verdict::unknown);
    CHECK(compare({a}).is == agreement::verdict::unknown);
    CHECK(compare({a, {.address = "b", .status = {}, .problem = "no answer"}}).is == agreement::verdict::unknown);

    json other = example(7);
    other["shares"][0]["digest"] = "another";
    const agreement differ = compare({a, at("b", example(7)), at("c", other)});
    CHECK(differ.is == agreement::verdict::differ);
    CHECK(differ.round == 6U);
    CHECK(differ.text() == "WEIGHTS DIFFER in round 6");

    json whole = example(9);
    whole["replica"] = {{"round", 5}, {"digest", "w"}};
    json mine = example(7);
    mine["replica"] = {{"round", 5}, {"digest", "v"}};
    CHECK(compare({at("a", mine), at("b", whole)}).is == agreement::verdict::differ);

    json foreign = example(7);
    foreign["run"] = "ff";
    CHECK(compare({a, at("b", foreign)}).text() == "peers of different runs");
}

TEST_CASE("JSON of what is watched") {
    const auto out = to_json({at("a", example(7)), {.address = "b", .status = {}, .problem = "no answer"}});
    CHECK(out["watched"][0]["status"]["round"] == 7);
    CHECK(out["watched"][0]["error"].is_null());
    CHECK(out["watched"][1]["status"].is_null());
    CHECK(out["watched"][1]["error"] == "no answer");
    CHECK(out["agreement"]["verdict"] == "unknown");
}
