#ifndef THINWIRE_TESTS_SUPPORT_BACKEND_CHECKS_HPP
#define THINWIRE_TESTS_SUPPORT_BACKEND_CHECKS_HPP

#include <thinwire/backend/cpu/reference.hpp>

#include <support/backend_ops.hpp>

namespace thinwire::test {

template <class To, class From>
[[nodiscard]] arrays<To> convert(const arrays<From>& from) {
    arrays<To> to;
    for (const std::vector<From>& array : from) to.emplace_back(array.begin(), array.end());
    return to;
}

/// The largest difference between two arrays over the largest entry of the second. `floor` is what that entry is taken
/// to be at least: operands are of order one, so where terms cancel to nearly nothing their rounding is what remains.
template <class A, class B>
[[nodiscard]] double relative_difference(const std::vector<A>& found, const std::vector<B>& expected,
                                         double floor = 0.25) {
    REQUIRE(found.size() == expected.size());
    double largest = floor;
    double difference = 0;
    for (std::size_t i = 0; i < found.size(); ++i) {
        largest = std::max(largest, std::abs(static_cast<double>(expected[i])));
        const double d = std::abs(static_cast<double>(found[i]) - static_cast<double>(expected[i]));
        difference = std::isnan(d) ? HUGE_VAL : std::max(difference, d);
    }
    return difference / largest;
}

/// One operation, forward and backward, on `backend` and on the plain definition in double, from the same inputs.
/// 1e-5 of an array's largest entry leaves room for float32 sums of about a thousand terms in any order.
template <nn::backend B, class Op>
void check_against_reference(B& backend, const Op& op, const std::string& name, double tolerance = 1e-5) {
    CAPTURE(name);
    random_stream random(41);
    cpu::basic_reference<double> exact;
    const arrays<float> in = op.inputs(random);
    const arrays<double> wide = convert<double>(in);
    const arrays<float> found = op.forward(backend, in);
    const arrays<double> expected = op.forward(exact, wide);
    for (std::size_t i = 0; i < expected.size(); ++i) {
        CAPTURE(i);
        CHECK(relative_difference(found[i], expected[i]) < tolerance);
    }
    const std::vector<float> dout = random_values(random, found[0].size());
    const arrays<float> gradient = op.backward(backend, in, dout);
    const arrays<double> exact_gradient = op.backward(exact, wide, {dout.begin(), dout.end()});
    for (std::size_t i = 0; i < exact_gradient.size(); ++i) {
        CAPTURE(i);
        CHECK(relative_difference(gradient[i], exact_gradient[i]) < tolerance);
    }
}

/// The gradient of sum(dout * output) as `backend` computes it, against central differences of the plain forward
/// definition in double. Step 1e-4: the error of the difference is about 1e-8 (third derivative) plus 1e-12
/// (rounding), so that the 2e-5 allowed, of the largest entry, is all for the float32 of the gradient.
template <nn::backend B, class Op>
void check_finite_differences(B& backend, const Op& op, const std::string& name) {
    CAPTURE(name);
    random_stream random(43);
    cpu::basic_reference<double> exact;
    const arrays<float> in = op.inputs(random);
    arrays<double> wide = convert<double>(in);
    const std::vector<float> dout = random_values(random, op.forward(exact, wide)[0].size());
    const arrays<float> gradient = op.backward(backend, in, dout);
    const auto objective = [&] {
        const std::vector<double> out = op.forward(exact, wide)[0];
        double sum = 0;
        for (std::size_t i = 0; i < out.size(); ++i) sum += out[i] * static_cast<double>(dout[i]);
        return sum;
    };
    constexpr double step = 1e-4;
    for (std::size_t array = 0; array < in.size(); ++array) {
        CAPTURE(array);
        std::vector<double> difference;
        for (double& x : wide[array]) {
            const double at = x;
            x = at + step;
            const double above = objective();
            x = at - step;
            difference.push_back((above - objective()) / (2 * step));
            x = at;
        }
        CHECK(relative_difference(gradient[array], difference) < 2e-5);
    }
}

/// Shapes small enough to take every element's finite difference.
template <class Visit>
void for_each_small_operation(const Visit& visit) {
    for (int flags = 0; flags < 8; ++flags)
        visit(matmul_op{5, 3, 7, (flags & 1) != 0, (flags & 2) != 0, (flags & 4) != 0}, "matmul");
    visit(add_bias_op{4, 9}, "add_bias");
    visit(rms_norm_op{3, 11, false}, "rms_norm");
    visit(rms_norm_op{3, 8, true}, "rms_norm in place");
    visit(layer_norm_op{3, 11}, "layer_norm");
    visit(rope_op{6, 3, 2, 6, 17, 2}, "rope");
    visit(attention_op{{2, 5, 4, 2, 3, 12, 6, 12}}, "attention, grouped");
    visit(attention_op{{1, 6, 3, 3, 4, 36, 36, 13}}, "attention, strided");
    visit(silu_mul_op{19}, "silu_mul");
    visit(gelu_op{23, true, false}, "gelu, tanh form");
    visit(gelu_op{23, false, true}, "gelu, exact, in place");
    visit(embedding_op{7, 3, 5}, "embedding");
    visit(cross_entropy_op{5, 13}, "cross_entropy");
}

/// Sizes around the widths and blocks of fast implementations, odd ones, ones, and strides.
template <class Visit>
void for_each_large_operation(const Visit& visit) {
    constexpr int sizes[][3] = {{1, 1, 1},    {1, 17, 33},  {17, 1, 5},    {3, 2, 1},      {16, 16, 16},  {31, 33, 29},
                                {64, 48, 96}, {65, 97, 63}, {7, 129, 257}, {128, 192, 64}, {100, 1, 300}, {6, 16, 512}};
    for (const auto& [m, n, k] : sizes)
        for (int flags = 0; flags < 8; ++flags)
            visit(matmul_op{m, n, k, (flags & 1) != 0, (flags & 2) != 0, (flags & 4) != 0},
                  "matmul " + std::to_string(m) + " " + std::to_string(n) + " " + std::to_string(k) + " flags " +
                      std::to_string(flags));
    for (const int columns : {1, 2, 7, 8, 9, 15, 16, 31, 64, 100, 257}) {
        for (const int rows : {1, 3, 37}) {
            const std::string size = std::string(" ") + std::to_string(rows) + "x" + std::to_string(columns);
            visit(add_bias_op{rows, columns}, "add_bias" + size);
            visit(rms_norm_op{rows, columns, columns % 2 == 0}, "rms_norm" + size);
            // Two columns normalise to -1 and 1: the gradient is nothing but cancelled rounding.
            if (columns > 2) visit(layer_norm_op{rows, columns}, "layer_norm" + size);
            visit(embedding_op{rows, columns, 11}, "embedding" + size);
            visit(cross_entropy_op{rows, columns}, "cross_entropy" + size);
        }
        const auto n = static_cast<std::size_t>(columns) * 7;
        visit(silu_mul_op{n}, "silu_mul " + std::to_string(n));
        visit(gelu_op{n, true, true}, "gelu, tanh form " + std::to_string(n));
        visit(gelu_op{n, false, false}, "gelu, exact " + std::to_string(n));
    }
    visit(cross_entropy_op{4, 50, 60.0F}, "cross_entropy of far logits");
    visit(silu_mul_op{40'003}, "silu_mul long");
    visit(gelu_op{40'003, true, false}, "gelu long");
    for (const int head_dim : {2, 6, 8, 16, 18, 64})
        visit(rope_op{34, 17, 3, head_dim, 3 * head_dim + 5, 4}, "rope " + std::to_string(head_dim));
    visit(attention_op{{1, 9, 6, 1, 8, 48, 8, 48}, 100.0F}, "attention, one key head, far scores");
}

/// Attention of these lengths with heads of these sizes: grouped, and with rows that hold other things too.
template <class Visit>
void for_each_attention(const Visit& visit, const std::vector<int>& all_tokens, const std::vector<int>& head_dims) {
    for (const int tokens : all_tokens)
        for (const int head_dim : head_dims) {
            const std::string size = std::string(" T ") + std::to_string(tokens) + " d " + std::to_string(head_dim);
            const int width = head_dim * 4;
            visit(attention_op{{2, tokens, 4, 2, head_dim, width, head_dim * 2, width}}, "attention grouped" + size);
            visit(attention_op{{1, tokens, 2, 2, head_dim, 6 * head_dim, 6 * head_dim, 2 * head_dim + 3}, 8.0F},
                  "attention strided" + size);
        }
}

/// add, copy, fill, upload, download: exact.
template <nn::backend B>
void check_exact_operations(B& backend) {
    random_stream random(47);
    for (const std::size_t n : {std::size_t{1}, std::size_t{7}, std::size_t{8}, std::size_t{33}, std::size_t{10'007}}) {
        CAPTURE(n);
        const std::vector<float> a = random_values(random, n);
        const std::vector<float> b = random_values(random, n);
        device_array<B> y(backend, a), x(backend, b);
        CHECK(y.fetch() == a);
        backend.add(y, x, n);
        std::vector<float> sum(n);
        for (std::size_t i = 0; i < n; ++i) sum[i] = a[i] + b[i];
        CHECK(y.fetch() == sum);
        backend.copy(y, x, n);
        CHECK(y.fetch() == b);
        backend.fill(y, 0.25F, n);
        CHECK(y.fetch() == std::vector<float>(n, 0.25F));
        CHECK(x.fetch() == b);
    }
    typename B::buffer buffer = backend.allocate(37);
    std::vector<float> fresh(37, 1.0F);
    backend.download(fresh, buffer.data());
    CHECK(fresh == std::vector<float>(37));
    CHECK(buffer.size() == 37);
}

/// Everything above on one back end.
template <nn::backend B>
void check_backend(B& backend) {
    check_exact_operations(backend);
    for_each_small_operation([&](const auto& op, const std::string& name) {
        check_against_reference(backend, op, name);
        check_finite_differences(backend, op, name);
    });
    for_each_large_operation(
        [&](const auto& op, const std::string& name) { check_against_reference(backend, op, name); });
    for_each_attention([&](const auto& op, const std::string& name) { check_against_reference(backend, op, name); },
                       {1, 2, 7, 16, 33, 65, 130}, {1, 5, 8, 16, 40, 64});
}

}  // namespace thinwire::test

#endif  // THINWIRE_TESTS_SUPPORT_BACKEND_CHECKS_HPP
