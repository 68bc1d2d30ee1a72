#include "configuration.hpp"

#include "exit_code.hpp"
#include "parameter_groups.hpp"
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
    CHECK(names(refusal([&] { read_toml(c, "\"run.rounds\" = 5\n", "a.toml"); }),
                {"a.toml", "'run.rounds'", "'rounds'", "[run]"}));
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
    CHECK(names(with({{"run.min_peers", "65"}}), {"run.min_peers", "65"}));
    CHECK(names(with({{"peer.address", "here"}}), {"peer.address", "here", "host:port"}));
    CHECK(with({{"peer.address", "[::1]:0,example.org:65535"}, {"peer.listen", "none"}}).empty());
    for (const char* name : {"/tmp/x", "../x", "a/b", ".", "..", "access", "access.lock", "log", "report.json.tmp"})
        CHECK(names(with({{"peer.log_file", name}}), {"peer.log_file", name, "a file in DIR"}));
    CHECK(with({{"peer.log_file", "log.jsonl"}}).empty());
    CHECK(names(with({{"peer.min_deadline_ms", "9"}, {"peer.max_deadline_ms", "8"}}), {"min_deadline_ms"}));
    CHECK(names(with({{"peer.name", std::string(65, 'n')}}), {"peer.name", "at most 64 bytes"}));
    CHECK(with({{"peer.name", std::string(64, 'n')}}).empty());
    CHECK(names(with({{"peer.advertise", "none"}}), {"peer.advertise", "none", "host:port"}));
    CHECK(names(with({{"peer.advertise", std::string(255, 'a') + ":1"}}), {"peer.advertise", "256 bytes"}));
    CHECK(names(with({{"peer.advertise", "example.org:0"}}), {"peer.advertise", "example.org:0", "1..65535"}));
    CHECK(with({{"peer.advertise", "example.org:1"}}).empty());
    CHECK(names(with({{"peer.listen", "h\xc3\xb6st:1"}}), {"peer.listen", "host:port"}));
}

TEST_CASE("an address: visible ASCII, a port, brackets around colons; port 0 cannot be dialled") {
    for (const char* address : {"example.org:4400", "127.0.0.1:1", "[::1]:65535", "a:00080"})
        CHECK(can_be_dialled(address));
    for (const char* address : {"a:0", "a:00", "a:000", "[::1]:0"}) {
        CHECK(port_of(address) == 0);
        CHECK_FALSE(can_be_dialled(address));
    }
    for (const char* address : {"", "a", ":1", "a:", "a:65536", "a:-1", "a:+1", "a:1 ", "::1:1", "[]:1", "a b:1",
                                "a,b:1", "a\x1b[2J:1", "a\x7f:1", "h\xc3\xb6st:1"})
        CHECK_FALSE(port_of(address).has_value());
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
    set_key(founder, "run.min_round_ms", "20");
    set_key(founder, "peer.takeover_ms", "900");
    configuration joiner;
    set_key(joiner, "peer.threads", "2");
    set_key(joiner, "optimizer.values", "sign");
    adopt_manifest(joiner, manifest(founder));
    CHECK(joiner.optimizer.k == 8);
    CHECK(joiner.run.min_round_ms == 20);
    CHECK(joiner.peer.takeover_ms == 900);
    CHECK(joiner.peer.threads == 2);
    CHECK(manifest(joiner) == manifest(founder));

    configuration other;
    set_key(other, "optimizer.k", "9");
    CHECK(names(refusal([&] { adopt_manifest(other, manifest(founder)); }, exit_code::mismatch),
                {"optimizer.k = 9", "expected 8"}));
    CHECK(names(refusal([&] { adopt_manifest(joiner, "[model]\nflux = 3\n"); }, exit_code::mismatch), {"model.flux"}));
}

TEST_CASE("run.id: drawn by the founder, so an empty one states nothing") {
    configuration run, own;
    set_key(run, "run.id", "drawn");
    set_key(own, "run.id", "");
    adopt_manifest(own, manifest(run));
    CHECK(own.run.id == "drawn");
    configuration other;
    set_key(other, "run.id", "another");
    CHECK(names(refusal([&] { adopt_manifest(other, manifest(run)); }, exit_code::mismatch),
                {"run.id", "another", "drawn"}));
}

TEST_CASE("optimizer.weights and optimizer.contribution_clip: ranges, and part of the manifest") {
    configuration c;
    CHECK(c.optimizer.weights == "equal");
    CHECK(c.optimizer.contribution_clip == 0.0);
    CHECK(names(refusal([&] { set_key(c, "optimizer.weights", "rows"); }), {"weights", "rows", "equal|tokens"}));
    set_key(c, "optimizer.contribution_clip", "0.5");
    CHECK(names(refusal([&] { check(c); }), {"optimizer.contribution_clip", "0.5", "at least 1"}));
    set_key(c, "optimizer.contribution_clip", "2.5");
    set_key(c, "optimizer.weights", "tokens");
    check(c);
    configuration joined;
    adopt_manifest(joined, manifest(c));
    CHECK(joined.optimizer.weights == "tokens");
    CHECK(joined.optimizer.contribution_clip == 2.5);
    set_key(c, "optimizer.kind", "adamw");
    CHECK(names(refusal([&] { check(c); }), {"optimizer.contribution_clip", "optimizer.kind = demo"}));
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

TEST_CASE("parameter groups: patterns with one star, settings by key; errors quote the entry") {
    const auto refused = [](std::string_view text) { return refusal([&] { static_cast<void>(parse_groups(text)); }); };
    CHECK(parse_groups("").empty());
    const auto groups = parse_groups("*norm.weight weight_decay=0 ; lm_head.* learning_rate=0.5 k=64 rule=sgd");
    REQUIRE(groups.size() == 2);
    CHECK(groups[0].pattern == "*norm.weight");
    CHECK(groups[0].values.weight_decay == 0.0F);
    CHECK(groups[1].values.learning_rate == 0.5F);
    CHECK(groups[1].values.k == 64);
    CHECK(groups[1].values.rule->name() == "sgd");
    CHECK(names(refused("a*b*c k=1"), {"a*b*c k=1", "at most one *"}));
    CHECK(names(refused("a k=0"), {"'a k=0'", "k in 1..65536"}));
    CHECK(names(refused("a k=x"), {"'a k=x'", "k in 1..65536"}));
    CHECK(names(refused("a flux=1"), {"'a flux=1'", "learning_rate, weight_decay, k or rule"}));
    CHECK(names(refused("a rule=best"), {"'a rule=best'", "signum, sgd, muon"}));
    CHECK(names(refused("a k=1;;b k=1"), {"''", "a parameter's name"}));
}

TEST_CASE("parameter groups: of a model's names; for muon, embeddings and head go by sign") {
    std::vector<float> memory(1);
    std::vector<thinwire::parameter> model;
    for (const char* name : {"model.embed_tokens.weight", "model.norm.weight", "model.up.weight", "lm_head.weight"})
        model.push_back({.name = name, .shape = {1}, .values = memory, .gradient = memory});
    const auto groups = groups_of("lm_head.weight k=5; *norm.weight weight_decay=0", model, 0.25F);
    REQUIRE(groups.size() == 3);
    CHECK(groups[0].parameters == std::vector<std::size_t>{3});
    CHECK(groups[1].parameters == std::vector<std::size_t>{1});
    CHECK(groups[2].parameters == std::vector<std::size_t>{0});
    CHECK(groups[2].learning_rate == 0.25F);
    CHECK(groups[2].rule->name() == "signum");
    CHECK(groups_of("", model).empty());
    CHECK(names(refusal([&] { static_cast<void>(groups_of("nose* k=1", model)); }), {"'nose*'", "embed_tokens"}));
}
