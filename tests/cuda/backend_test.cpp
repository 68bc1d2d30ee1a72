#include <thinwire/backend/cuda/backend.cuh>

#include "peer.hpp"
#include <doctest/doctest.h>
#include <support/backend_checks.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

using namespace thinwire;
using cuda::matmul_precision;

namespace {

/// Sizes around the tiles and parts of the kernels, beside those of every back end.
template <class Visit>
void for_each_device_operation(const Visit& visit) {
    test::for_each_large_operation(visit);
    test::for_each_attention(visit, {1, 7, 33, 65, 130}, {1, 5, 40, 64});
    test::for_each_attention(visit, {2, 33, 70}, {66, 128});
    visit(test::add_bias_op{300, 193}, "add_bias, parts of rows");
    visit(test::add_bias_op{4225, 3}, "add_bias, so many parts of 65 rows that the last has none");
    visit(test::rms_norm_op{300, 193, true}, "rms_norm, parts of rows");
    visit(test::layer_norm_op{129, 65}, "layer_norm, parts of rows");
    visit(test::embedding_op{300, 600, 50}, "embedding, strips of columns");
    visit(test::embedding_op{5, 1540, 4}, "embedding, rows of several warps, four columns at once");
    visit(test::embedding_op{5, 1541, 4}, "embedding, rows of several warps, column by column");
    visit(test::add_bias_op{3, 2052}, "add_bias, rows of several warps, four columns at once");
    visit(test::rope_op{12, 6, 3, 16, 60, 2}, "rope, four pairs at once");
    visit(test::rope_op{12, 6, 3, 12, 60, 2}, "rope, pair by pair");
    visit(test::cross_entropy_op{20, 1100}, "cross_entropy of many words");
}

/// The bits of a bfloat16, for numbers that are one and others cut off.
[[nodiscard]] std::uint32_t bfloat16_bits(float x) {
    return std::bit_cast<std::uint32_t>(x) >> 16U;
}
[[nodiscard]] float as_bfloat16(float x) {
    return std::bit_cast<float>(bfloat16_bits(x) << 16U);
}

/// Attention whose inputs are bfloat16 already.
struct narrow_attention_op : test::attention_op {
    [[nodiscard]] test::arrays<float> inputs(random_stream& random) const {
        test::arrays<float> in = test::attention_op::inputs(random);
        for (auto& array : in) std::ranges::transform(array, array.begin(), as_bfloat16);
        return in;
    }
};

/// The fragments of one product, a word or a number a lane after the other.
struct matrix_probe {
    static constexpr std::string_view name = "matrix_probe";
    static constexpr unsigned threads = 32;
    [[maybe_unused]] static constexpr unsigned resident = 1;
    cuda::device_span<const std::uint32_t> a, b;
    cuda::device_span<float> c;
    THINWIRE_KERNEL void operator()(const cuda::kernel_thread& self) const {
        const unsigned i = self.lane();
        float c0 = c.load(4 * i), c1 = c.load(4 * i + 1), c2 = c.load(4 * i + 2), c3 = c.load(4 * i + 3);
        self.multiply_add(c0, c1, c2, c3, {{a.load(4 * i), a.load(4 * i + 1), a.load(4 * i + 2), a.load(4 * i + 3)}},
                          {{b.load(2 * i), b.load(2 * i + 1)}});
        c.store(4 * i, c0);
        c.store(4 * i + 1, c1);
        c.store(4 * i + 2, c2);
        c.store(4 * i + 3, c3);
    }
};

/// A few of each kind.
template <class Visit>
void for_each_kind(const Visit& visit) {
    test::for_each_small_operation(visit);
    test::for_each_attention(visit, {70}, {40, 66});
    visit(test::layer_norm_op{200, 65}, "layer_norm, parts of rows");
    visit(test::rms_norm_op{200, 65, true}, "rms_norm, parts of rows");
    visit(test::embedding_op{30, 300, 5}, "embedding, strips of columns");
    visit(test::cross_entropy_op{5, 700}, "cross_entropy of many words");
}

/// The largest error of a product's element, over the sum of its terms' magnitudes.
double product_error(cuda::backend& backend, int m, int n, int k, int flags) {
    random_stream random(71);
    const test::matmul_op op = {m, n, k, (flags & 1) != 0, (flags & 2) != 0, (flags & 4) != 0};
    const test::arrays<float> in = op.inputs(random);
    test::arrays<float> magnitudes = in;
    for (auto& array : magnitudes)
        for (float& x : array) x = std::abs(x);
    cpu::basic_reference<double> exact;
    const std::vector<double> expected = op.forward(exact, test::convert<double>(in))[0];
    const std::vector<double> magnitude = op.forward(exact, test::convert<double>(magnitudes))[0];
    const std::vector<float> found = op.forward(backend, in)[0];
    double worst = 0.0;
    for (std::size_t i = 0; i < found.size(); ++i)
        worst = std::max(worst, std::abs(static_cast<double>(found[i]) - expected[i]) / magnitude[i]);
    return worst;
}

}  // namespace

// The gradient of a score is the difference of two sums of head_dim rounded terms, and gets multiplied by queries of
// the order of 8 and more: hosts, which sum in wider registers or take the mean of their own numbers off, stay below
// 1e-5.
TEST_CASE("cuda::backend: every operation against the plain definition and finite differences") {
    cuda::stream stream;
    cuda::backend backend(stream, matmul_precision::f32);
    test::check_exact_operations(backend);
    test::for_each_small_operation([&](const auto& op, const std::string& name) {
        test::check_against_reference(backend, op, name);
        test::check_finite_differences(backend, op, name);
    });
    for_each_device_operation([&](const auto& op, const std::string& name) {
        constexpr bool is_attention = std::is_same_v<std::remove_cvref_t<decltype(op)>, test::attention_op>;
        test::check_against_reference(backend, op, name, is_attention ? 1e-4 : 1e-5);
    });
}

// Places as the PTX manual has them for mma.m16n8k16 of .bf16: element i of a lane's fragment, two to a register.
TEST_CASE("cuda: a product of a warp's matrices, of numbers whose sums are exact") {
    random_stream random(79);
    std::array<std::array<float, 16>, 16> a{};
    std::array<std::array<float, 8>, 16> b{}, c{};
    const auto fill = [&](auto& matrix, std::uint64_t range) {
        for (auto& row : matrix)
            for (float& x : row) x = static_cast<float>(random.below(range)) - static_cast<float>(range / 2);
    };
    fill(a, 200);
    fill(b, 200);
    fill(c, 1000);
    std::vector<std::uint32_t> words_of_a(128), words_of_b(64);
    std::vector<float> sums(128), expected(128);
    for (unsigned lane = 0; lane < 32; ++lane) {
        const unsigned group = lane / 4, thread = lane % 4;
        for (unsigned i = 0; i < 8; ++i) {
            const unsigned row = i < 2 || (i >= 4 && i < 6) ? group : group + 8;
            const unsigned column = thread * 2 + (i & 1U) + (i < 4 ? 0 : 8);
            words_of_a[lane * 4 + i / 2] |= bfloat16_bits(a[row][column]) << (i % 2 * 16);
        }
        for (unsigned i = 0; i < 4; ++i) {
            const unsigned row = thread * 2 + (i & 1U) + (i < 2 ? 0 : 8);
            words_of_b[lane * 2 + i / 2] |= bfloat16_bits(b[row][group]) << (i % 2 * 16);
        }
        for (unsigned i = 0; i < 4; ++i) {
            const unsigned row = i < 2 ? group : group + 8, column = thread * 2 + (i & 1U);
            sums[lane * 4 + i] = expected[lane * 4 + i] = c[row][column];
            for (unsigned k = 0; k < 16; ++k) expected[lane * 4 + i] += a[row][k] * b[k][column];
        }
    }
    cuda::stream stream;
    const auto left = test::on_device(stream, words_of_a), right = test::on_device(stream, words_of_b);
    const auto out = test::on_device(stream, sums);
    cuda::launch(stream, matrix_probe{left.span(), right.span(), out.span()}, 1, 0);
    CHECK(test::on_host(stream, out.span()) == expected);
}

// Scores are sums of exact products; what is rounded are the weights, before they multiply values or slopes: by 2^-9 of
// each, and differences of slopes get multiplied by queries of the order of 8.
TEST_CASE("cuda::backend: attention by tensor cores loses no more than its weights are rounded by") {
    cuda::stream stream;
    cuda::backend backend(stream, matmul_precision::bf16);
    const auto check = [&](const test::attention_op& wide, const std::string& name) {
        const narrow_attention_op op = {wide};
        CAPTURE(name);
        test::check_against_reference(backend, op, name, 0.02);
        random_stream random(73);
        const test::arrays<float> in = op.inputs(random);
        cpu::basic_reference<double> exact;
        CHECK(test::relative_difference(op.forward(backend, in)[1], op.forward(exact, test::convert<double>(in))[1]) <
              (cuda::is_emulated ? 1e-6 : 1e-5));  // tensor cores cut off where the emulator sums in double
    };
    test::for_each_attention(check, {1, 7, 33, 65, 130}, {1, 5, 18, 40, 64});
    test::for_each_attention(check, {2, 33, 70}, {66, 100, 128});
    check({{1, 9, 6, 1, 8, 48, 8, 48}, 100.0F}, "one key head, far scores");
}

TEST_CASE("cuda::backend: the same call gives the same bits, whatever ran before and in whatever order threads run") {
    for (const matmul_precision precision : {matmul_precision::f32, matmul_precision::bf16}) {
        CAPTURE(to_string(precision));
        cuda::stream stream;
        cuda::backend used(stream, precision);
        std::vector<test::arrays<float>> results;
        const auto run = [&](cuda::backend& backend, const auto& visit) {
            for_each_kind([&](const auto& op, const std::string& name) {
                CAPTURE(name);
                random_stream random(53);
                const test::arrays<float> in = op.inputs(random);
                visit(op.forward(backend, in));
                const std::vector<float> dout = test::random_values(random, op.forward(backend, in)[0].size());
                visit(op.backward(backend, in, dout));
            });
        };
        run(used, [&](test::arrays<float> found) { results.push_back(std::move(found)); });
        const auto compare = [&](cuda::backend& backend) {
            std::size_t next = 0;
            run(backend, [&](const test::arrays<float>& found) { CHECK(found == results[next++]); });
            CHECK(next == results.size());
        };
        compare(used);
        cuda::backend fresh(stream, precision);
        compare(fresh);
#if defined(THINWIRE_CUDA_EMULATE)
        for (const cuda::thread_order order : {cuda::thread_order::falling, cuda::thread_order::shuffled}) {
            const test::ordered as(order);
            compare(used);
        }
#endif
    }
}

// An input that is rounded to p bits is off by at most 2^-p of itself, a product of two by twice that, and a little for
// the float32 of the sum; twice as much where a device cuts off instead of rounding to TF32. That bfloat16 and TF32 are
// used at all shows where the error is not that of float32.
TEST_CASE("cuda::backend: products are as precise as their inputs are said to be") {
    struct expectation {
        matmul_precision precision;
        double least, most;
    };
    for (const expectation& expected : {expectation{matmul_precision::f32, 0.0, 0x1p-20},
                                        {matmul_precision::tf32, 0x1p-16, cuda::is_emulated ? 0x1.1p-10 : 0x1.1p-9},
                                        {matmul_precision::bf16, 0x1p-13, 0x1.1p-7}}) {
        CAPTURE(to_string(expected.precision));
        cuda::stream stream;
        cuda::backend backend(stream, expected.precision);
        for (int flags = 0; flags < 8; ++flags) {
            CAPTURE(flags);
            for (const auto& [m, n, k] : {std::array{33, 17, 50}, {8, 64, 24}, {1, 5, 9}, {70, 1, 3}}) {
                const double error = product_error(backend, m, n, k, flags);
                // a device may take an odd product in float32 where it was allowed TF32
                if (cuda::is_emulated || expected.precision == matmul_precision::bf16) CHECK(error >= expected.least);
                CHECK(error <= expected.most);
            }
        }
        test::device_array<cuda::backend> c(backend, 6, 3.0F), side(backend, 6, 1.0F);
        backend.matmul(c, side, side, 2, 3, 0, false, false, true);
        backend.matmul(c, side, side, 0, 3, 2, false, true, false);
        CHECK(c.fetch() == std::vector<float>(6, 3.0F));
        backend.matmul(c, side, side, 2, 3, 0, true, false, false);
        CHECK(c.fetch() == std::vector<float>(6, 0.0F));
        constexpr float infinity = std::numeric_limits<float>::infinity();
        const std::vector<float> left = {1, std::nanf(""), 2, infinity};
        test::device_array<cuda::backend> a(backend, left), b(backend, std::vector<float>{1, 1}), d(backend, 2);
        backend.matmul(d, a, b, 2, 1, 2, false, false, false);
        const std::vector<float> found = d.fetch();
        CHECK(std::isnan(found[0]));
        CHECK(found[1] == infinity);
    }
}

TEST_CASE("cuda::backend: logits without end, and rows that have none that counts") {
    cuda::stream stream;
    cuda::backend backend(stream, matmul_precision::f32);
    constexpr float infinity = std::numeric_limits<float>::infinity();
    test::device_array<cuda::backend> logits(backend, std::vector<float>{-infinity, 1, 1, -infinity, 5, 6, 7, 8});
    const std::vector<std::int32_t> targets = {2, -1};
    CHECK(backend.cross_entropy(logits, targets.data(), 2, 4, 0.5F) == doctest::Approx(std::log(2.0)));
    CHECK(logits.fetch() == std::vector<float>{0, 0.25F, -0.25F, 0, 0, 0, 0, 0});
    test::device_array<cuda::backend> bad(backend, std::vector<float>{1, std::nanf(""), 2});
    CHECK(std::isnan(backend.cross_entropy(bad, targets.data(), 1, 3, 0.0F)));
}

TEST_CASE("cuda::backend: heads that are too wide are refused") {
    cuda::stream stream;
    cuda::backend backend(stream, matmul_precision::f32);
    test::device_array<cuda::backend> x(backend, 300);
    const nn::attention_shape wide = {1, 1, 1, 1, 129, 129, 129, 129};
    CHECK_THROWS_WITH_AS(backend.attention(x, x, x, x, x, wide),
                         "cuda::backend: attention with head_dim 129, expected 1 to 128", value_error);
    CHECK_THROWS_AS(backend.attention_backward(x, x, x, x, x, x, x, x, x, wide), value_error);
}

TEST_CASE("cuda::backend: numbers of the host may go as soon as a call has returned") {
    cuda::stream stream;
    cuda::backend backend(stream, matmul_precision::f32);
    constexpr int rows = 40, calls = 30;  // more calls than there are places to wait in
    std::vector<float> table(rows);
    for (int i = 0; i < rows; ++i) table[static_cast<std::size_t>(i)] = static_cast<float>(i);
    test::device_array<cuda::backend> from(backend, table), to(backend, test::area(rows, calls)), sums(backend, rows);
    std::vector<float> expected, expected_sums(rows);
    for (int call = 0; call < calls; ++call) {
        std::vector<std::int32_t> ids(static_cast<std::size_t>(call % 7 + rows - 7));
        for (std::size_t i = 0; i < ids.size(); ++i)
            ids[i] = static_cast<std::int32_t>((i * 7 + static_cast<std::size_t>(call)) % rows);
        float* const place = static_cast<float*>(to) + expected.size();
        backend.embedding(place, from, ids.data(), static_cast<int>(ids.size()), 1);
        backend.embedding_backward(sums, place, ids.data(), static_cast<int>(ids.size()), 1);
        for (const std::int32_t id : ids) {
            expected.push_back(static_cast<float>(id));
            expected_sums[static_cast<std::size_t>(id)] += static_cast<float>(id);
        }
        std::ranges::fill(ids, -5);
    }
    std::vector<float> found = to.fetch();
    found.resize(expected.size());
    CHECK(found == expected);
    CHECK(sums.fetch() == expected_sums);
}

#if defined(THINWIRE_CUDA_EMULATE)
using cuda::defect;
using cuda::emulation_error;
using cuda::detail::emulated_memory;

namespace {

template <class Call>
void check_defect(defect kind, const std::string& message, const Call& call) {
    try {
        call();
        FAIL("nothing was thrown");
    } catch (const emulation_error& e) {
        CHECK(e.kind() == kind);
        CHECK_MESSAGE(std::string(e.what()).find(message) != std::string::npos, e.what());
    }
}

}  // namespace

TEST_CASE("cuda::backend: memory that was given back is used again, and a full device is emptied of it first") {
    cuda::stream stream;
    cuda::backend backend(stream, matmul_precision::f32);
    { const auto first = backend.allocate(1000), second = backend.allocate(3000); }
    const std::uint64_t before = emulated_memory::get().allocations();
    {
        const auto small = backend.allocate(900), large = backend.allocate(2500);
        CHECK(emulated_memory::get().allocations() == before);
        const auto third = backend.allocate(900);
        CHECK(emulated_memory::get().allocations() == before + 1);
        std::vector<float> fresh(2500, 1.0F);
        backend.download(fresh, large.data());
        CHECK(fresh == std::vector<float>(2500));
    }
    emulated_memory::get().capacity = std::size_t{4} * 40'000;
    {
        const auto wide = backend.allocate(30'000);  // fits only without what lies idle
        CHECK(wide.size() == 30'000);
        check_defect(defect::limits, "are in use", [&] { static_cast<void>(backend.allocate(30'000)); });
    }
    emulated_memory::get().capacity = std::numeric_limits<std::size_t>::max();
    CHECK(backend.allocate(30'000).size() == 30'000);
}

TEST_CASE("cuda::backend: what lies idle makes room for the working memory of an operation") {
    cuda::stream stream;
    cuda::backend backend(stream, matmul_precision::bf16);
    const auto a = backend.allocate(64 * 64), b = backend.allocate(64 * 64), c = backend.allocate(64 * 64);
    { const auto idle = backend.allocate(1 << 17); }
    // The narrow copies of the operands do not fit into what is left.
    emulated_memory::get().capacity = sizeof(float) * (3 * 64 * 64 + (1 << 17)) + 1000;
    backend.matmul(c.data(), a.data(), b.data(), 64, 64, 64, false, false, false);
    stream.synchronize();
    emulated_memory::get().capacity = std::numeric_limits<std::size_t>::max();
}

TEST_CASE("emulated cuBLAS: what the library refuses is refused, and no element outside a matrix is touched") {
    cuda::stream stream;
    for (const matmul_precision precision : {matmul_precision::f32, matmul_precision::bf16}) {
        cuda::detail::matmul_library library(precision);
        const std::size_t bytes = precision == matmul_precision::bf16 ? 2 : 4;
        auto narrow = test::on_device(stream, std::vector<std::uint16_t>(64), "narrow");
        auto floats = test::on_device(stream, std::vector<float>(64), "floats");
        auto out = test::on_device(stream, std::vector<float>(64), "out");
        const cuda::device_buffer<float> empty(64, "empty");
        const void* in = bytes == 2 ? static_cast<const void*>(narrow.data()) : floats.data();
        const cuda::detail::matmul_plan good = {.m = 4,
                                                .n = 5,
                                                .k = 6,
                                                .transpose_b = true,
                                                .a_pitch = 8,
                                                .b_pitch = 5,
                                                .c_pitch = 4,
                                                .a_align = 16,
                                                .b_align = 16,
                                                .c_align = 16};
        const auto run = [&](const cuda::detail::matmul_plan& plan, const void* a, const void* b, float* c) {
            library.run(stream, plan, a, b, c);
            stream.synchronize();
        };
        CHECK_NOTHROW(run(good, in, in, out.data()));
        const auto with = [&](auto member, auto value) {
            cuda::detail::matmul_plan plan = good;
            plan.*member = value;
            return plan;
        };
        using plan = cuda::detail::matmul_plan;
        check_defect(defect::arguments, "expected no size 0", [&] { run(with(&plan::k, 0U), in, in, out.data()); });
        check_defect(defect::arguments, "a at pitch 3, expected its 4 rows",
                     [&] { run(with(&plan::a_pitch, 3), in, in, out.data()); });
        check_defect(defect::arguments, "b at pitch 5, expected its 6 rows",
                     [&] { run(with(&plan::transpose_b, false), in, in, out.data()); });
        check_defect(defect::arguments, "c at pitch 2", [&] { run(with(&plan::c_pitch, 2), in, in, out.data()); });
        check_defect(defect::arguments, "multiple of 16 bytes", [&] { run(good, in, in, out.data() + 1); });
        check_defect(defect::arguments, "multiple of 1 bytes",
                     [&] { run(with(&plan::a_align, 1U), in, in, out.data()); });
        check_defect(defect::out_of_bounds, "reaches beyond array 'out'",
                     [&] { run(with(&plan::c_pitch, 16), in, in, out.data()); });
        if (bytes == 4) {
            check_defect(defect::arguments, "expected c apart from a",
                         [&] { run(good, out.data(), in, out.data() + 32); });
            check_defect(defect::arguments, "expected c apart from b",
                         [&] { run(good, in, out.data() + 16, out.data()); });
            check_defect(defect::uninitialised, "reads element 0 of global array 'empty'",
                         [&] { run(good, empty.data(), in, out.data()); });
            check_defect(defect::uninitialised, "adds to element 0 of global array 'empty'",
                         [&] { run(with(&plan::accumulate, true), in, in, empty.data()); });
            check_defect(defect::freed, "no device_buffer holds", [&] {
                const std::vector<float> host(64);
                run(good, host.data(), in, out.data());
            });
        }
    }
}

TEST_CASE("emulator: what goes wrong while a destructor waits is thrown by the next wait") {
    cuda::stream stream;
    const cuda::device_buffer<float> empty(8, "empty");
    std::vector<float> host(8);
    cuda::copy_to_host<float>(stream, empty.span(), std::span(host));
    stream.drain();
    check_defect(defect::uninitialised, "'empty'", [&] { stream.synchronize(); });
    CHECK_NOTHROW(stream.synchronize());
}
#endif
