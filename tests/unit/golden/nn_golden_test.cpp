#include <thinwire/backend/cpu/reference.hpp>

#include <doctest/doctest.h>
#include <support/backend_golden.hpp>

using namespace thinwire;

TEST_CASE("golden operations: reference back end") {
    cpu::reference backend;
    test::check_golden_operations(backend);
}
