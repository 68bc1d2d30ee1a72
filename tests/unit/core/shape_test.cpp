#include <thinwire/core/shape.hpp>

#include <doctest/doctest.h>

using thinwire::shape;

TEST_CASE("shape: sides, rank and count") {
    const shape s{2, 3, 4};
    CHECK(s.rank() == 3);
    CHECK(s[1] == 3);
    CHECK(s.count() == 24);
    CHECK(to_string(s) == "[2, 3, 4]");
    CHECK(shape{}.count() == 1);
    CHECK(s == shape{2, 3, 4});
    CHECK_FALSE(s == shape{2, 3});
}

TEST_CASE("shape: refuses sides that are not sizes") {
    CHECK_THROWS_WITH_AS(shape({4, 0}), "shape: side 0, expected at least 1", thinwire::shape_error);
    CHECK_THROWS_AS(shape({-1}), thinwire::shape_error);
    CHECK_THROWS_AS(shape({1LL << 40, 1LL << 40}), thinwire::shape_error);
    CHECK_THROWS_AS(shape({1, 1, 1, 1, 1, 1, 1, 1, 1}), thinwire::shape_error);
}
