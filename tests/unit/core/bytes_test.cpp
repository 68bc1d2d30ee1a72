#include <thinwire/core/bytes.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <string_view>

using namespace thinwire;

TEST_CASE("bytes: numbers are little-endian and come back") {
    byte_writer w;
    w.put(std::uint32_t{0x01020304});
    w.put(std::int16_t{-2});
    w.put(std::uint64_t{0xfedcba9876543210});
    w.put(-0.5F);
    w.put(3.25);
    w.put(std::string_view("run"));
    CHECK(w.bytes()[0] == std::byte{4});
    CHECK(w.bytes()[3] == std::byte{1});

    byte_reader r(w.bytes());
    CHECK(r.get<std::uint32_t>() == 0x01020304);
    CHECK(r.get<std::int16_t>() == -2);
    CHECK(r.get<std::uint64_t>() == 0xfedcba9876543210);
    CHECK(r.get_f32() == -0.5F);
    CHECK(r.get_f64() == 3.25);
    CHECK(r.get_string(3) == "run");
    CHECK(r.remaining() == 0);
    CHECK_FALSE(r.failed());
}

TEST_CASE("bytes: a read past the end fails for good and reads nothing more") {
    byte_writer w;
    w.put(std::uint16_t{7});
    byte_reader r(w.bytes());
    CHECK(r.get<std::uint32_t>() == 0);
    CHECK(r.failed());
    CHECK(r.get<std::uint8_t>() == 0);
    CHECK(r.position() == 0);
}

TEST_CASE("bytes: a string longer than the limit or than the input is refused") {
    byte_writer w;
    w.put(std::string_view("hello"));
    byte_reader limited(w.bytes());
    CHECK(limited.get_string(4).empty());
    CHECK(limited.failed());
    byte_reader cut(w.bytes().first(6));
    CHECK(cut.get_string(100).empty());
    CHECK(cut.failed());
}

TEST_CASE("bytes: patch writes over a number put before") {
    byte_writer w;
    w.put(std::uint32_t{0});
    w.put(std::uint8_t{9});
    w.patch(0, 0xabcdef01);
    byte_reader r(w.bytes());
    CHECK(r.get<std::uint32_t>() == 0xabcdef01);
    CHECK(r.get<std::uint8_t>() == 9);
}
