#include <thinwire/core/result.hpp>

#include <doctest/doctest.h>

#include <memory>
#include <string>

using namespace thinwire;

TEST_CASE("result: holds a value or the reason there is none") {
    result<int> good = 3;
    REQUIRE(good);
    CHECK(*good == 3);
    CHECK(good.value() == 3);

    const result<int> bad = failure{errc::truncated, "payload: 3 bytes, expected at least 8"};
    CHECK_FALSE(bad);
    CHECK(bad.error().code == errc::truncated);
    CHECK_THROWS_WITH_AS((void)bad.value(), "payload: 3 bytes, expected at least 8", thinwire::error);
}

TEST_CASE("result: carries types that only move") {
    result<std::unique_ptr<std::string>> r = std::make_unique<std::string>("x");
    CHECK(r->get()->size() == 1);
    const auto taken = std::move(r).value();
    CHECK(*taken == "x");
}

TEST_CASE("result: every code has a name") {
    for (int c = 0; c <= static_cast<int>(errc::malformed); ++c) CHECK(to_string(static_cast<errc>(c)) != "unknown");
}
