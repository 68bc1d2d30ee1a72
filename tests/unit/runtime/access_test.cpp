#include <thinwire/runtime/access.hpp>

#include "unit/runtime/fixture.hpp"
#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <atomic>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

using namespace thinwire;
using namespace thinwire::runtime;
using runtime_fixture::folder;

namespace {

public_key key_number(int n) {
    public_key key;
    key.bytes[0] = static_cast<std::byte>(n);
    key.bytes[1] = static_cast<std::byte>(n >> 8);
    return key;
}

auto knows(const invite_secret& secret) {
    return [verifier = verifier_of(secret)](const digest& asked) { return asked == verifier; };
}

std::string text_of(const std::filesystem::path& file) {
    std::ifstream in(file);
    return {std::istreambuf_iterator<char>(in), {}};
}

void place(const std::filesystem::path& file, const std::string& text) {
    const auto other = file.string() + ".new";
    std::ofstream(other) << text;
    REQUIRE(::chmod(other.c_str(), 0600) == 0);
    std::filesystem::rename(other, file);
}

}  // namespace

TEST_CASE("access: rules survive being written, and every line that is none is named") {
    access_rules rules;
    rules.keys = {{key_number(1), "lab two"}, {key_number(2), ""}};
    rules.invites = {{digest_of(key_number(3).bytes), 1234, false}, {digest_of(key_number(4).bytes), 5, true}};
    CHECK(*parse_access(to_text(rules)) == rules);
    CHECK(parse_access("# a comment\n\r\n" + to_text(rules) + "\n")->keys.size() == 2);
    CHECK(parse_access("")->keys.empty());
    const std::string key = to_string(key_number(1));
    const std::string hex = to_string(digest{});
    const std::vector<std::string> wrong = {std::string("hello"),
                                            std::string("ed25519"),
                                            "ed25519 " + key + "A x",
                                            "ed25519  " + key,
                                            "ED25519 " + key,
                                            "ed25519 " + key + " a\tb",
                                            "ed25519 " + key + " " + std::string(65, 'x'),
                                            " ed25519 " + key,
                                            "invite " + hex,
                                            "invite " + hex + " -1",
                                            "invite " + hex + " 1x",
                                            "invite " + hex.substr(1) + " 1",
                                            "invite " + hex + "0 1",
                                            "used x 1",
                                            "invite F" + hex.substr(1) + " 1",
                                            "invite " + hex + " 99999999999999999999"};
    for (const std::string& line : wrong) {
        const auto parsed = parse_access("# first\n" + line + "\n");
        REQUIRE_MESSAGE(!parsed, line);
        CHECK(parsed.error().message.starts_with("line 2: "));
    }
    CHECK(!parse_access("ed25519 " + key + " a\ned25519 " + key + " b\n"));
}

TEST_CASE("access: a list is private, durable, and seen by other processes") {
    const folder dir;
    const auto file = dir.path() / "access";
    access_list one(file), two(file);
    CHECK_FALSE(one.refresh());
    one.allow(key_number(1), "first\nsecond");
    struct stat about {};
    REQUIRE(::stat(file.c_str(), &about) == 0);
    CHECK((about.st_mode & 0777U) == 0600U);
    CHECK(two.refresh());
    CHECK_FALSE(two.refresh());
    REQUIRE(two.rules().find(key_number(1)) != nullptr);
    CHECK(two.rules().find(key_number(1))->name == "first?second");
    two.allow(key_number(2), "other");
    one.allow(key_number(1), "renamed");
    CHECK(one.rules().keys.size() == 2);
    CHECK(one.revoke(key_number(2)));
    CHECK_FALSE(one.revoke(key_number(2)));
    CHECK(text_of(file) ==
          "ed25519 " + to_string(key_number(1)) + " renamed\nrevoked " + to_string(key_number(2)) + "\n");
    CHECK(one.rules().is_revoked(key_number(2)));
    one.allow(key_number(2), "again");
    CHECK_FALSE(one.rules().is_revoked(key_number(2)));
    CHECK_FALSE(std::filesystem::exists(file.string() + ".tmp"));
}

TEST_CASE("access: a list that is damaged or open to others is refused, and a running one stays as it was") {
    const folder dir;
    const auto file = dir.path() / "access";
    access_list list(file);
    list.allow(key_number(1), "a");
    place(file, "nonsense\n");
    CHECK_THROWS_AS(list.refresh(), io_error);
    CHECK(list.rules().find(key_number(1)) != nullptr);
    CHECK_FALSE(list.refresh());
    CHECK_THROWS_AS(list.allow(key_number(2), "b"), io_error);
    CHECK(text_of(file) == "nonsense\n");
    CHECK_THROWS_AS(access_list{file}, io_error);
    place(file, "ed25519 " + to_string(key_number(3)) + "\n");
    REQUIRE(::chmod(file.c_str(), 0640) == 0);
    CHECK_THROWS_AS(list.refresh(), io_error);
    CHECK_THROWS_AS(access_list{file}, io_error);
    REQUIRE(::chmod(file.c_str(), 0600) == 0);
    CHECK(list.refresh());
    CHECK(list.rules().find(key_number(3)) != nullptr);
}

TEST_CASE("access: a list that cannot be opened for a while loses no change") {
    const folder dir;
    const auto file = dir.path() / "access";
    access_list list(file);
    place(file, "ed25519 " + to_string(key_number(1)) + "\n");
    rlimit before{};
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
    const rlimit none{0, before.rlim_max};
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);
    bool refused = false;
    try {
        list.refresh();
    } catch (const io_error&) {
        refused = true;
    }
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
    CHECK(refused);
    CHECK(list.rules().keys.empty());
    CHECK(list.refresh());
    CHECK(list.rules().find(key_number(1)) != nullptr);
}

TEST_CASE("access: a list that is gone or empty for a while stays as it was") {
    const folder dir;
    const auto file = dir.path() / "access";
    access_list list(file);
    list.allow(key_number(1), "a");
    std::filesystem::remove(file);
    for (int twice = 0; twice < 2; ++twice) CHECK_THROWS_AS(list.refresh(), io_error);
    CHECK_THROWS_AS(list.allow(key_number(2), "b"), io_error);
    CHECK_FALSE(std::filesystem::exists(file));
    place(file, "");
    CHECK_THROWS_AS(list.refresh(), io_error);
    CHECK_THROWS_AS(list.revoke(key_number(1)), io_error);
    CHECK(text_of(file).empty());
    CHECK(list.rules().find(key_number(1)) != nullptr);
    place(file, "# nobody\n");
    CHECK(list.refresh());
    CHECK(list.rules().keys.empty());
}

TEST_CASE("access: an invite lets one key in, once, until it expires, and only who proves it") {
    const folder dir;
    const auto file = dir.path() / "access";
    const invite_secret secret = access_list(file).add_invite(1000, 100);
    const invite_secret late = access_list(file).add_invite(500, 100);
    CHECK(text_of(file).find(detail::to_base64(secret.bytes)) == std::string::npos);
    access_list list(file);
    CHECK(list.enrol(key_number(1), "a", knows(invite_secret::draw()), 500) == enrolment::unknown);
    CHECK(list.enrol(key_number(1), "a", knows(late), 499) == enrolment::done);
    CHECK(list.enrol(key_number(2), "b", knows(secret), 1000) == enrolment::expired);
    CHECK(list.enrol(key_number(2), "b", knows(secret), 999) == enrolment::done);
    // Again, after a restart, with a clock that went back: the key stays, the invite is spent.
    access_list again(file);
    CHECK(again.rules().keys.size() == 2);
    CHECK(again.enrol(key_number(2), "b", knows(late), 1) == enrolment::done);
    CHECK(again.enrol(key_number(3), "c", knows(secret), 1) == enrolment::used);
    CHECK(again.enrol(key_number(3), "c", knows(secret), 2000) == enrolment::used);
    CHECK(again.rules().find(key_number(3)) == nullptr);
    // A week later nobody remembers it.
    (void)again.add_invite(2000 + 7 * 86400, 2000 + 7 * 86400);
    CHECK(again.enrol(key_number(3), "c", knows(secret), 2000) == enrolment::unknown);
}

TEST_CASE("access: of many that use one invite at once, one is let in") {
    const folder dir;
    const auto file = dir.path() / "access";
    const invite_secret secret = access_list(file).add_invite(1000, 100);
    std::atomic<int> done{0}, used{0};
    {
        std::vector<std::jthread> threads;
        for (int i = 0; i < 8; ++i)
            threads.emplace_back([&, i] {
                access_list list(file);
                const enrolment outcome = list.enrol(key_number(i), "x", knows(secret), 500);
                ++(outcome == enrolment::done ? done : used);
            });
    }
    CHECK(done == 1);
    CHECK(used == 7);
    CHECK(access_list(file).rules().keys.size() == 1);
}

TEST_CASE("access: limits hold") {
    const folder dir;
    const auto file = dir.path() / "access";
    access_rules rules;
    for (int i = 0; i < 1024; ++i) rules.invites.push_back({digest_of(key_number(i).bytes), 1000, false});
    place(file, to_text(rules));
    CHECK_THROWS_AS((void)access_list(file).add_invite(1000, 100), value_error);
    rules.invites.push_back({digest{}, 1, false});
    CHECK(!parse_access(to_text(rules)));
    rules.invites.clear();
    for (int i = 0; i < 4096; ++i) rules.keys.push_back({key_number(i), ""});
    place(file, to_text(rules));
    CHECK_THROWS_AS(access_list(file).allow(key_number(5000), ""), value_error);
    rules.keys.push_back({key_number(5000), ""});
    CHECK(!parse_access(to_text(rules)));
}
