#include <thinwire/runtime/invite.hpp>

#include <doctest/doctest.h>

#include <set>
#include <string>

using namespace thinwire;
using namespace thinwire::runtime;

namespace {

invite sample() {
    invite line;
    line.addresses = {"10.0.0.7:4400", "[2001:db8::1]:4400"};
    line.run = sha256{}.update("a run").finish();
    for (std::size_t i = 0; i < 32; ++i) line.key.bytes[i] = static_cast<std::byte>(i);
    for (std::size_t i = 0; i < 16; ++i) line.secret.bytes[i] = static_cast<std::byte>(200 + i);
    return line;
}

/// The line of bytes that end with the right check.
std::string sealed(byte_writer& body) {
    const digest check = digest_of(body.bytes());
    body.put(std::span(check.bytes).first(4));
    return std::string(invite::prefix) + detail::to_base64(body.bytes());
}

}  // namespace

TEST_CASE("invite: what is written is read, as one word") {
    const invite line = sample();
    const std::string text = to_string(line);
    CHECK(*parse_invite(text) == line);
    CHECK(text.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") ==
          std::string::npos);
    CHECK(looks_like_invite(text));
    CHECK(looks_like_invite("thinwire9_x"));
    CHECK_FALSE(looks_like_invite("thinwire.example.org:4400"));
    CHECK_FALSE(looks_like_invite("10.0.0.7:4400"));
}

TEST_CASE("invite: every cut and every altered character is refused, and no message holds the line") {
    const std::string text = to_string(sample());
    for (std::size_t size = 0; size < text.size(); ++size) CHECK(!parse_invite(text.substr(0, size)));
    for (std::size_t at = 0; at < text.size(); ++at) {
        std::string altered = text;
        altered[at] = altered[at] == 'A' ? 'B' : 'A';
        const auto parsed = parse_invite(altered);
        REQUIRE(!parsed);
        CHECK(parsed.error().message.size() < 120);
    }
    CHECK(!parse_invite(text + "A"));
    CHECK(!parse_invite(text + "\n"));
    CHECK(!parse_invite(" " + text));
    CHECK(parse_invite(std::string(invite::prefix) + std::string(100000, 'A')).error().code == errc::too_large);
    CHECK(parse_invite("thinwire2_AAAA").error().code == errc::bad_version);
}

TEST_CASE("invite: a right check does not make a wrong form right") {
    const auto body = [](std::uint8_t count, const std::vector<std::string>& addresses, std::size_t rest) {
        byte_writer out;
        out.put(count);
        for (const std::string& address : addresses) {
            out.put(static_cast<std::uint8_t>(address.size()));
            out.put(std::as_bytes(std::span(address.data(), address.size())));
        }
        for (std::size_t i = 0; i < rest; ++i) out.put(std::uint8_t{7});
        return sealed(out);
    };
    CHECK(parse_invite(body(1, {"a:1"}, 80)).has_value());
    CHECK(!parse_invite(body(0, {}, 80)));
    CHECK(!parse_invite(body(1, {"a:1"}, 79)));
    CHECK(!parse_invite(body(1, {"a:1"}, 81)));
    CHECK(!parse_invite(body(1, {""}, 80)));
    CHECK(!parse_invite(body(1, {"a b:1"}, 80)));
    CHECK(!parse_invite(body(1, {"a\n:1"}, 80)));
    CHECK(!parse_invite(body(2, {"a:1"}, 80)));
    const std::vector<std::string> nine(9, "a:1");
    CHECK(!parse_invite(body(9, nine, 80)));
    CHECK(parse_invite(body(8, {nine.begin(), nine.begin() + 8}, 80)).has_value());
    CHECK(!parse_invite(body(255, nine, 80)));
}

TEST_CASE("invite: no secret is drawn twice, and its verifier does not hold it") {
    std::set<std::string> seen;
    for (int i = 0; i < 1000; ++i) seen.insert(detail::to_base64(invite_secret::draw().bytes));
    CHECK(seen.size() == 1000);
    // Python: hashlib.sha256(b"thinwire invite 1" + bytes(16))
    CHECK(to_string(verifier_of(invite_secret{})) ==
          "de32e08816757adbf2af08a83d80be25ac22279c557352f5f9181c6cd2a38b62");
}
