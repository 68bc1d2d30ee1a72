#include "configuration.hpp"

#include "exit_code.hpp"
#include <doctest/doctest.h>

#include <array>

using namespace thinwire::launcher;

namespace {

/// The message of the launcher_error that `action` throws; empty when it throws none.
template <class Action>
std::string refusal(const Action& action, exit_code expected = exit_code::usage) {
    try {
        action();
    } catch (const launcher_error& problem) {
        CHECK(problem.code() == expected);
        return problem.what();
    }
    return {};
}

bool names(const std::string& line, std::initializer_list<std::string_view> parts) {
    CHECK(line.find('\n') == std::string::npos);
    for (const auto part : parts)
        if (line.find(part) == std::string::npos) return false;
    return true;
}

}  // namespace

TEST_CASE("every default lies in its own range and survives a round trip through TOML") {
    configuration defaults;
    check(defaults);
    configuration read;
    read_toml(read, full_toml(defaults), "defaults");
    CHECK(full_toml(read) == full_toml(defaults));
    CHECK(read.stated.size() == configuration_keys().size());
}

TEST_CASE("the command line overrides what a file says") {
    configuration c;
    read_toml(c, "[optimizer]\nk = 8\nlearning_rate = 2\n[model]\ntie_word_embeddings = true\n", "file.toml");
    set_key(c, "optimizer.k", "16");
    CHECK(c.optimizer.k == 16);
    CHECK(c.optimizer.learning_rate == 2.0);
    CHECK(c.model.tie_word_embeddings);
}

TEST_CASE("errors name key, value and expectation") {
    configuration c;
    CHECK(names(refusal([&] { set_key(c, "optimizer.k", "0"); }), {"optimizer.k", "= 0", "an integer in 1..65536"}));
    CHECK(names(refusal([&] { set_key(c, "optimizer.k", "many"); }), {"optimizer.k", "many", "an integer"}));
    CHECK(names(refusal([&] { set_key(c, "optimizer.kind", "sgd"); }), {"optimizer.kind", "sgd", "demo|adamw"}));
    CHECK(names(refusal([&] { set_key(c, "optimizer.learning_rate", "nan"); }), {"learning_rate", "nan", "a number"}));
    CHECK(names(refusal([&] { set_key(c, "model.tie_word_embeddings", "yes"); }), {"yes", "true or false"}));
    CHECK(names(refusal([&] { read_toml(c, "[run]\nrounds = \"ten\"\n", "a.toml"); }),
                {"a.toml", "run.rounds", "ten", "an integer of at least 1"}));
    CHECK(names(refusal([&] { read_toml(c, "[run]\nrounds = 1.5\n", "a.toml"); }), {"run.rounds", "1.5"}));
    CHECK(names(refusal([&] { read_toml(c, "[run\nrounds = 1\n", "a.toml"); }), {"a.toml:1"}));
    CHECK(names(refusal([&] { read_toml_file(c, "/no/such/file.toml"); }), {"/no/such/file.toml"}));
}

TEST_CASE("an unknown key is told the nearest known one") {
    configuration c;
    CHECK(names(refusal([&] { set_key(c, "model.hiden_size", "3"); }), {"model.hiden_size", "model.hidden_size"}));
    CHECK(names(refusal([&] { read_toml(c, "[optimizer]\nlearning_rte = 1.0\n", "a.toml"); }),
                {"a.toml", "optimizer.learning_rte", "optimizer.learning_rate"}));
    CHECK(names(refusal([&] { read_toml(c, "rounds = 3\n", "a.toml"); }), {"'rounds'", "run.rounds"}));
    CHECK(
        names(refusal([&] { read_toml(c, "[nothing]\nat_all_like_a_key_here = 3\n", "a.toml"); }), {"thinwire keys"}));
    CHECK(names(refusal([&] { read_toml(c, "[modl]\n", "a.toml"); }), {"[modl]", "model"}));
}

TEST_CASE("relations between keys are checked") {
    const auto with = [](std::initializer_list<std::pair<std::string_view, std::string_view>> changes) {
        configuration c;
        for (const auto& [key, value] : changes) set_key(c, key, value);
        return refusal([&] { check(c); });
    };
    CHECK(names(with({{"optimizer.chunk", "4"}, {"optimizer.k", "17"}}), {"optimizer.k", "17", "16"}));
    CHECK(with({{"optimizer.chunk", "4"}, {"optimizer.k", "16"}}).empty());
    CHECK(names(with({{"model.hidden_size", "30"}}), {"model.hidden_size", "30", "num_attention_heads = 4"}));
    CHECK(names(with({{"model.num_key_value_heads", "3"}}), {"num_key_value_heads", "3", "divisor"}));
    CHECK(names(with({{"model.head_dim", "7"}}), {"model.head_dim", "7", "even"}));
    CHECK(names(with({{"peer.index", "64"}}), {"peer.index", "64"}));
    CHECK(names(with({{"run.min_peers", "65"}}), {"run.min_peers", "65"}));
    CHECK(names(with({{"peer.min_deadline_ms", "9"}, {"peer.max_deadline_ms", "8"}}), {"min_deadline_ms"}));
}

TEST_CASE("the manifest holds what is shared and nothing local") {
    configuration one;
    configuration two;
    set_key(two, "peer.name", "west");
    set_key(two, "data.train", "/somewhere/else.txt");
    set_key(two, "peer.threads", "3");
    CHECK(manifest(one) == manifest(two));
    set_key(two, "optimizer.learning_rate", "0.0010000000000000002");
    CHECK(manifest(one) != manifest(two));
}

TEST_CASE("who joins takes the manifest unless it stated something else") {
    configuration founder;
    set_key(founder, "optimizer.k", "8");
    configuration joiner;
    set_key(joiner, "peer.threads", "2");
    set_key(joiner, "optimizer.values", "sign");
    adopt_manifest(joiner, manifest(founder));
    CHECK(joiner.optimizer.k == 8);
    CHECK(joiner.peer.threads == 2);
    CHECK(manifest(joiner) == manifest(founder));

    configuration other;
    set_key(other, "optimizer.k", "9");
    CHECK(names(refusal([&] { adopt_manifest(other, manifest(founder)); }, exit_code::mismatch),
                {"optimizer.k = 9", "expected 8"}));
    CHECK(names(refusal([&] { adopt_manifest(joiner, "[model]\nflux = 3\n"); }, exit_code::mismatch), {"model.flux"}));
}

TEST_CASE("text with quotes, backslashes and control characters survives") {
    configuration c;
    set_key(c, "peer.name", "a \"b\" \\c\n\x01 d");
    configuration read;
    read_toml(read, full_toml(c), "text");
    CHECK(read.peer.name == c.peer.name);
}

TEST_CASE("overrides are taken out of the arguments wherever they stand") {
    std::vector<std::string> arguments = {"start", "--run.rounds", "5", "config.toml", "--peer.name=a=b", "--quiet"};
    const auto overrides = extract_overrides(arguments);
    REQUIRE(overrides.size() == 2);
    CHECK(overrides[0] == std::pair<std::string, std::string>("run.rounds", "5"));
    CHECK(overrides[1] == std::pair<std::string, std::string>("peer.name", "a=b"));
    CHECK(arguments == std::vector<std::string>{"start", "config.toml", "--quiet"});

    arguments = {"generate", "--prompt", "--", "--run.rounds"};
    CHECK(extract_overrides(arguments).empty());
    arguments = {"start", "--run.rounds"};
    CHECK(names(refusal([&] { (void)extract_overrides(arguments); }), {"run.rounds", "no value"}));
}
