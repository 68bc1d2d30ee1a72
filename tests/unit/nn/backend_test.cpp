#include <thinwire/backend/cpu/reference.hpp>

#include <doctest/doctest.h>
#include <support/backend_checks.hpp>

namespace {

using namespace thinwire;

/// A back end with one slip, to show that the checks find it.
struct careless : cpu::reference {
    void bias_backward(float* dbias, const float* dy, int rows, int columns) {
        fill(dbias, 0.0F, static_cast<std::size_t>(columns));
        cpu::reference::bias_backward(dbias, dy, rows, columns);
    }
};

}  // namespace

TEST_CASE("reference back end: every operation against finite differences and in double") {
    cpu::reference backend;
    test::check_backend(backend);
}

TEST_CASE("reference back end: an accumulating operation that overwrites is noticed") {
    careless backend;
    random_stream random(5);
    const test::add_bias_op op{3, 4};
    const auto in = op.inputs(random);
    const auto dout = test::random_values(random, 12);
    cpu::reference honest;
    CHECK(test::relative_difference(op.backward(backend, in, dout)[1], op.backward(honest, in, dout)[1]) > 1e-2);
}
