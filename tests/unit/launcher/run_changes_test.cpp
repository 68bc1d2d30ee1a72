#include "run_changes.hpp"

#include <thinwire/runtime/identity.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <string>
#include <vector>

using namespace thinwire;
using namespace thinwire::launcher;

namespace {

std::string raw_key(char c) {
    std::string key(32, '\0');
    key[0] = c;
    return key;
}

run_state of_two() {
    run_state s;
    s.view.members = {{.peer = 1, .address = "a:1", .key = ""}, {.peer = 2, .address = "b:1", .key = ""}};
    return s;
}

std::vector<std::string> changes_told(const run_state& before, const run_state& after) {
    std::vector<std::string> all;
    for (const run_change& change : changes(agreed_state_of(before), agreed_state_of(after)))
        all.push_back(to_text(change));
    return all;
}

/// What a change makes of a state.
std::vector<std::string> changes_told(const run_state& before, const control_change& change) {
    run_state after = before;
    after.apply(change);
    return changes_told(before, after);
}

using change_lines = std::vector<std::string>;
using kind = control_change::kind;

}  // namespace

TEST_CASE("run changes: each that a record can hold is changes_told, with who or what it is of") {
    const run_state two = of_two();
    CHECK(changes_told(two, two).empty());
    CHECK(changes_told({}, two) == change_lines{"member_added 1", "member_added 2"});
    CHECK(changes_told(two, {kind::pause, 0, "", ""}) == change_lines{"paused"});
    CHECK(changes_told(two, {kind::stop, 0, "", ""}) == change_lines{"stopped"});
    CHECK(changes_told(two, {kind::remove, 1, "", ""}) == change_lines{"member_removed 1"});
    CHECK(changes_told(two, {kind::ban, 2, "", ""}) == change_lines{"member_removed 2", "banned 2"});
    CHECK(changes_told(two, {kind::promote, 2, "", ""}) == change_lines{"promoted 2"});
    CHECK(changes_told(two, {kind::set, 0, "optimizer.k", "4"}) == change_lines{"set optimizer.k = 4"});
    CHECK(changes_told(two, {kind::set, 0, "\u202e", "\x1b"}) == change_lines{"set ? = ?"});

    run_state other = two;
    other.view.members[1].address = "c:1";
    CHECK(changes_told(two, other) == change_lines{"member_changed 2"});
    other = two;
    other.paused = true;
    other.banned = {3};
    other.values = {{"optimizer.k", "4"}};
    CHECK(changes_told(other, {kind::resume, 0, "", ""}) == change_lines{"resumed"});
    CHECK(changes_told(other, {kind::pardon, 3, "", ""}) == change_lines{"pardoned 3"});
    CHECK(changes_told(other, {kind::set, 0, "optimizer.k", ""}) == change_lines{"set optimizer.k as it began"});
    CHECK(changes_told(other, {kind::set, 0, "optimizer.k", "5"}) == change_lines{"set optimizer.k = 5"});

    const std::string number = std::to_string(runtime::peer_id_of(raw_key('a')));
    CHECK(changes_told(two, {kind::allow, 0, raw_key('a'), ""}) == change_lines{"allowed " + number});
    CHECK(changes_told(two, {kind::revoke, 0, raw_key('a'), ""}) == change_lines{"revoked " + number});
    other.keys = {{raw_key('a'), false}, {"short", false}};
    CHECK(changes_told(other, {kind::allow, 0, raw_key('a'), ""}) == change_lines{"allowed " + number});
    other.keys = {{raw_key('a'), true}};
    CHECK(changes_told(other, {kind::revoke, 0, raw_key('a'), ""}) == change_lines{"revoked " + number});
}

TEST_CASE("run changes: a node's status tells them, too") {
    runtime::node_status before;
    before.peers = {{.peer = 1, .name = "a", .member = true}, {.peer = 2, .name = "b", .member = true}};
    runtime::node_status after = before;
    after.peers[1].member = false;
    after.banned = {2};
    after.paused = true;
    const auto found = changes(agreed_state_of(before), agreed_state_of(after));
    REQUIRE(found.size() == 3);
    CHECK(found[0] == run_change{"member_removed", 2, "", ""});
    CHECK(found[1] == run_change{"banned", 2, "", ""});
    CHECK(found[2] == run_change{"paused", 0, "", ""});
    before = after;
    before.revoked = {7};
    after.banned = {};
    CHECK(changes(agreed_state_of(before), agreed_state_of(after)) ==
          std::vector<run_change>{{"pardoned", 2, "", ""}, {"allowed", 7, "", ""}});
}

TEST_CASE("run changes: fields for programs") {
    CHECK(fields_of({"banned", 18446744073709551615U, "", ""}).dump() == R"({"peer_id":"18446744073709551615"})");
    CHECK(fields_of({"set", 0, "optimizer.k", "4"}).dump() == R"({"key":"optimizer.k","value":"4"})");
    CHECK(fields_of({"set", 0, "optimizer.k", ""}).dump() == R"({"key":"optimizer.k","value":null})");
    CHECK(fields_of({"paused", 0, "", ""}).dump() == "{}");
}
