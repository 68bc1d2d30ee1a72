#include <thinwire/backend/cpu/fast.hpp>
#include <thinwire/core/aligned.hpp>

#include <doctest/doctest.h>
#include <support/backend_checks.hpp>

#include <cstddef>
#include <limits>
#include <new>

using namespace thinwire;

namespace {

std::vector<isa> available() {
    std::vector<isa> levels;
    for (const isa level : {isa::scalar, isa::avx2, isa::avx512})
        if (level <= best_isa()) levels.push_back(level);
    return levels;
}

/// Calls large enough to be cut among threads.
template <class Visit>
void for_each_threaded_operation(const Visit& visit) {
    visit(test::matmul_op{200, 130, 300, false, true, false}, "matmul, three blocks of rows");
    visit(test::matmul_op{97, 403, 513, true, false, true}, "matmul, three blocks of steps");
    visit(test::matmul_op{3, 900, 700, false, true, true}, "matmul of few rows");
    visit(test::matmul_op{2, 900, 1100, false, false, false}, "matmul of few rows, b as it lies");
    visit(test::add_bias_op{300, 193}, "add_bias");
    visit(test::rms_norm_op{300, 193, true}, "rms_norm");
    visit(test::layer_norm_op{300, 193}, "layer_norm");
    visit(test::rope_op{300, 100, 4, 48, 200, 3}, "rope");
    visit(test::attention_op{{2, 70, 6, 3, 12, 72, 36, 72}}, "attention");
    visit(test::silu_mul_op{100'003}, "silu_mul");
    visit(test::gelu_op{100'003, true, false}, "gelu, tanh form");
    visit(test::gelu_op{100'003, false, true}, "gelu, exact");
    visit(test::embedding_op{1000, 100, 300}, "embedding");
    visit(test::cross_entropy_op{200, 300}, "cross_entropy");
}

}  // namespace

TEST_CASE("fast back end: every operation against the reference and finite differences") {
    for (const isa level : available()) {
        CAPTURE(to_string(level));
        thread_pool pool(1);
        cpu::fast backend(pool, level);
        test::check_backend(backend);
    }
}

TEST_CASE("fast back end: operations cut among threads against the reference") {
    for (const isa level : available()) {
        CAPTURE(to_string(level));
        thread_pool pool(3);
        cpu::fast backend(pool, level);
        for_each_threaded_operation(
            [&](const auto& op, const std::string& name) { test::check_against_reference(backend, op, name); });
    }
}

TEST_CASE("fast back end: the number of threads changes no bit") {
    for (const isa level : available()) {
        thread_pool alone(1);
        cpu::fast expected(alone, level);
        for (const int threads : {2, 3, 6}) {
            CAPTURE(to_string(level));
            CAPTURE(threads);
            thread_pool pool(threads);
            cpu::fast found(pool, level);
            for_each_threaded_operation([&](const auto& op, const std::string& name) {
                CAPTURE(name);
                random_stream random(53);
                const test::arrays<float> in = op.inputs(random);
                const test::arrays<float> out = op.forward(expected, in);
                CHECK(op.forward(found, in) == out);
                const std::vector<float> dout = test::random_values(random, out[0].size());
                CHECK(op.backward(found, in, dout) == op.backward(expected, in, dout));
            });
        }
    }
}

TEST_CASE("fast back end: work space of a large call does not leak into a small one") {
    thread_pool pool(2);
    cpu::fast used(pool);
    for_each_threaded_operation([&](const auto& op, const std::string&) {
        random_stream random(59);
        const test::arrays<float> in = op.inputs(random);
        static_cast<void>(op.forward(used, in));
    });
    test::for_each_small_operation([&](const auto& op, const std::string& name) {
        CAPTURE(name);
        cpu::fast fresh(pool);
        random_stream random(61);
        const test::arrays<float> in = op.inputs(random);
        CHECK(op.forward(used, in) == op.forward(fresh, in));
    });
}

TEST_CASE("fast back end: an instruction set that the machine lacks is refused") {
    thread_pool pool(1);
    if (best_isa() == isa::avx512) return;
    CHECK_THROWS_AS(cpu::fast(pool, isa::avx512), value_error);
}

TEST_CASE("aligned_buffer: a size whose bytes cannot be counted is refused, not wrapped around") {
    const std::size_t wraps = std::numeric_limits<std::size_t>::max() / sizeof(float) + 2;
    CHECK_THROWS_AS(cpu::aligned_buffer<float>{wraps}, std::bad_array_new_length);
    CHECK_THROWS_AS((void)aligned_allocator<float>{}.allocate(wraps), std::bad_array_new_length);
}
