#ifndef THINWIRE_TESTS_SUPPORT_BACKEND_OPS_HPP
#define THINWIRE_TESTS_SUPPORT_BACKEND_OPS_HPP

#include <thinwire/core/random.hpp>
#include <thinwire/nn/backend.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

/// Every operation of nn::backend as a small object: its inputs, its forward and its backward pass on any back end,
/// float or double. backend_checks.hpp runs them against the plain definitions and against finite differences.
namespace thinwire::test {

template <class B>
using number_of = std::remove_cvref_t<decltype(*std::declval<typename B::buffer&>().data())>;

template <class Number>
using arrays = std::vector<std::vector<Number>>;

/// An array where the back end computes, with untouchable entries behind its end.
template <class B>
class device_array {
 public:
    using number = number_of<B>;

    device_array(B& backend, std::span<const number> values) : backend_(backend), size_(values.size()) {
        std::vector<number> padded(values.begin(), values.end());
        padded.resize(size_ + guard, number{-77});
        buffer_ = backend_.allocate(padded.size());
        backend_.upload(buffer_.data(), padded);
    }
    device_array(B& backend, std::size_t size, number value = 0)
        : device_array(backend, std::vector<number>(size, value)) {}

    operator number*() noexcept { return buffer_.data(); }

    /// The values; fails the test when an operation wrote behind them.
    [[nodiscard]] std::vector<number> fetch() {
        std::vector<number> values(size_ + guard);
        backend_.download(values, buffer_.data());
        for (std::size_t i = size_; i < values.size(); ++i) REQUIRE(values[i] == number{-77});
        values.resize(size_);
        return values;
    }

 private:
    static constexpr std::size_t guard = 19;
    B& backend_;
    typename B::buffer buffer_;
    std::size_t size_;
};

[[nodiscard]] inline std::size_t area(int rows, int columns) {
    return static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns);
}

[[nodiscard]] inline std::vector<float> random_values(random_stream& random, std::size_t count, float scale = 1.0F) {
    std::vector<float> values(count);
    for (float& x : values) x = scale * random.normal();
    return values;
}

/// Takes the prefill of an accumulator off again; the backward operations that add must leave it in the sum.
template <class Number>
[[nodiscard]] std::vector<Number> without_prefill(std::vector<Number> values, Number prefill) {
    for (Number& x : values) x -= prefill;
    return values;
}

// Each operation has: inputs(random) -> arrays<float>; forward(backend, in) -> outputs, of which the first is
// differentiated; backward(backend, in, dout) -> the gradient of sum(dout * outputs[0]) for every input.

struct matmul_op {
    int m, n, k;
    bool transpose_a, transpose_b, accumulate;

    [[nodiscard]] arrays<float> inputs(random_stream& random) const {
        return {random_values(random, area(m, k)), random_values(random, area(k, n)),
                random_values(random, area(m, n))};
    }
    template <class B>
    [[nodiscard]] auto forward(B& backend, const arrays<number_of<B>>& in) const {
        device_array<B> a(backend, in[0]), b(backend, in[1]), c(backend, in[2]);
        backend.matmul(c, a, b, m, n, k, transpose_a, transpose_b, accumulate);
        return arrays<number_of<B>>{c.fetch()};
    }
    template <class B>
    [[nodiscard]] auto backward(B& backend, const arrays<number_of<B>>& in,
                                const std::vector<number_of<B>>& dout) const {
        device_array<B> a(backend, in[0]), b(backend, in[1]), dc(backend, dout);
        device_array<B> da(backend, in[0].size()), db(backend, in[1].size());
        if (transpose_a)
            backend.matmul(da, b, dc, k, m, n, transpose_b, true, false);
        else
            backend.matmul(da, dc, b, m, k, n, false, !transpose_b, false);
        if (transpose_b)
            backend.matmul(db, dc, a, n, k, m, true, transpose_a, false);
        else
            backend.matmul(db, a, dc, k, n, m, !transpose_a, false, false);
        const std::vector<number_of<B>> nothing(dout.size());
        return arrays<number_of<B>>{da.fetch(), db.fetch(), accumulate ? dout : nothing};
    }
};

struct add_bias_op {
    int rows, columns;

    [[nodiscard]] arrays<float> inputs(random_stream& random) const {
        return {random_values(random, area(rows, columns)), random_values(random, area(1, columns))};
    }
    template <class B>
    [[nodiscard]] auto forward(B& backend, const arrays<number_of<B>>& in) const {
        device_array<B> y(backend, in[0]), bias(backend, in[1]);
        backend.add_bias(y, bias, rows, columns);
        return arrays<number_of<B>>{y.fetch()};
    }
    template <class B>
    [[nodiscard]] auto backward(B& backend, const arrays<number_of<B>>& in,
                                const std::vector<number_of<B>>& dout) const {
        device_array<B> dy(backend, dout), db(backend, in[1].size(), 1);
        backend.bias_backward(db, dy, rows, columns);
        return arrays<number_of<B>>{dout, without_prefill<number_of<B>>(db.fetch(), 1)};
    }
};

struct rms_norm_op {
    int rows, columns;
    bool in_place;  // dx is dy

    [[nodiscard]] arrays<float> inputs(random_stream& random) const {
        return {random_values(random, area(rows, columns), 2.0F), random_values(random, area(1, columns))};
    }
    template <class B>
    [[nodiscard]] auto forward(B& backend, const arrays<number_of<B>>& in) const {
        device_array<B> x(backend, in[0]), weight(backend, in[1]), y(backend, in[0].size());
        device_array<B> rstd(backend, area(rows, 1));
        backend.rms_norm(y, rstd, x, weight, rows, columns, static_cast<number_of<B>>(1e-5F));
        return arrays<number_of<B>>{y.fetch(), rstd.fetch()};
    }
    template <class B>
    [[nodiscard]] auto backward(B& backend, const arrays<number_of<B>>& in,
                                const std::vector<number_of<B>>& dout) const {
        device_array<B> x(backend, in[0]), weight(backend, in[1]), dy(backend, dout), dx(backend, dout.size());
        device_array<B> rstd(backend, forward(backend, in)[1]), dweight(backend, in[1].size(), 1);
        number_of<B>* out = in_place ? dy : dx;
        backend.rms_norm_backward(out, dweight, dy, x, weight, rstd, rows, columns);
        return arrays<number_of<B>>{(in_place ? dy : dx).fetch(), without_prefill<number_of<B>>(dweight.fetch(), 1)};
    }
};

struct layer_norm_op {
    int rows, columns;

    [[nodiscard]] arrays<float> inputs(random_stream& random) const {
        return {random_values(random, area(rows, columns), 2.0F), random_values(random, area(1, columns)),
                random_values(random, area(1, columns))};
    }
    template <class B>
    [[nodiscard]] auto forward(B& backend, const arrays<number_of<B>>& in) const {
        device_array<B> x(backend, in[0]), weight(backend, in[1]), bias(backend, in[2]), y(backend, in[0].size());
        device_array<B> mean(backend, area(rows, 1)), rstd(backend, area(rows, 1));
        backend.layer_norm(y, mean, rstd, x, weight, bias, rows, columns, static_cast<number_of<B>>(1e-5F));
        return arrays<number_of<B>>{y.fetch(), mean.fetch(), rstd.fetch()};
    }
    template <class B>
    [[nodiscard]] auto backward(B& backend, const arrays<number_of<B>>& in,
                                const std::vector<number_of<B>>& dout) const {
        const arrays<number_of<B>> kept = forward(backend, in);
        device_array<B> x(backend, in[0]), weight(backend, in[1]), dy(backend, dout), dx(backend, dout.size());
        device_array<B> mean(backend, kept[1]), rstd(backend, kept[2]);
        device_array<B> dweight(backend, in[1].size(), 1), dbias(backend, in[2].size(), 1);
        backend.layer_norm_backward(dx, dweight, dbias, dy, x, weight, mean, rstd, rows, columns);
        return arrays<number_of<B>>{dx.fetch(), without_prefill<number_of<B>>(dweight.fetch(), 1),
                                    without_prefill<number_of<B>>(dbias.fetch(), 1)};
    }
};

struct rope_op {
    int rows, tokens, heads, head_dim, stride, first_position;

    [[nodiscard]] arrays<float> inputs(random_stream& random) const {
        return {random_values(random, area(rows, stride))};
    }
    template <class B>
    [[nodiscard]] auto rotate(B& backend, const std::vector<number_of<B>>& in, bool inverse) const {
        using number = number_of<B>;
        std::vector<number> cosine, sine;
        for (int i = 0; i < (first_position + tokens) * (head_dim / 2); ++i) {
            const double angle = 0.37 * i;
            cosine.push_back(static_cast<number>(static_cast<float>(std::cos(angle))));
            sine.push_back(static_cast<number>(static_cast<float>(std::sin(angle))));
        }
        device_array<B> x(backend, in), c(backend, cosine), s(backend, sine);
        backend.rope(x, c, s, rows, tokens, heads, head_dim, stride, first_position, inverse);
        return arrays<number>{x.fetch()};
    }
    template <class B>
    [[nodiscard]] auto forward(B& backend, const arrays<number_of<B>>& in) const {
        return rotate(backend, in[0], false);
    }
    template <class B>
    [[nodiscard]] auto backward(B& backend, const arrays<number_of<B>>&, const std::vector<number_of<B>>& dout) const {
        return rotate(backend, dout, true);
    }
};

struct attention_op {
    nn::attention_shape shape;
    float spread = 1.0F;  // of the queries; large ones make the softmax sharp

    [[nodiscard]] arrays<float> inputs(random_stream& random) const {
        const int rows = shape.batch * shape.tokens;
        return {random_values(random, area(rows, shape.q_stride), spread),
                random_values(random, area(rows, shape.kv_stride)), random_values(random, area(rows, shape.kv_stride))};
    }
    template <class B>
    [[nodiscard]] auto forward(B& backend, const arrays<number_of<B>>& in) const {
        const int rows = shape.batch * shape.tokens;
        device_array<B> q(backend, in[0]), k(backend, in[1]), v(backend, in[2]);
        device_array<B> o(backend, area(rows, shape.o_stride)), lse(backend, area(rows, shape.heads));
        backend.attention(o, lse, q, k, v, shape);
        return arrays<number_of<B>>{o.fetch(), lse.fetch()};
    }
    template <class B>
    [[nodiscard]] auto backward(B& backend, const arrays<number_of<B>>& in,
                                const std::vector<number_of<B>>& dout) const {
        const arrays<number_of<B>> kept = forward(backend, in);
        device_array<B> q(backend, in[0]), k(backend, in[1]), v(backend, in[2]);
        device_array<B> o(backend, kept[0]), lse(backend, kept[1]), d_o(backend, dout);
        device_array<B> dq(backend, in[0].size()), dk(backend, in[1].size()), dv(backend, in[2].size());
        backend.attention_backward(dq, dk, dv, d_o, q, k, v, o, lse, shape);
        return arrays<number_of<B>>{dq.fetch(), dk.fetch(), dv.fetch()};
    }
};

struct silu_mul_op {
    std::size_t n;

    [[nodiscard]] arrays<float> inputs(random_stream& random) const {
        return {random_values(random, n, 3.0F), random_values(random, n)};
    }
    template <class B>
    [[nodiscard]] auto forward(B& backend, const arrays<number_of<B>>& in) const {
        device_array<B> gate(backend, in[0]), up(backend, in[1]), y(backend, n);
        backend.silu_mul(y, gate, up, n);
        return arrays<number_of<B>>{y.fetch()};
    }
    template <class B>
    [[nodiscard]] auto backward(B& backend, const arrays<number_of<B>>& in,
                                const std::vector<number_of<B>>& dout) const {
        device_array<B> gate(backend, in[0]), up(backend, in[1]), dy(backend, dout);
        device_array<B> dgate(backend, n), dup(backend, n);
        backend.silu_mul_backward(dgate, dup, dy, gate, up, n);
        return arrays<number_of<B>>{dgate.fetch(), dup.fetch()};
    }
};

struct gelu_op {
    std::size_t n;
    bool tanh_form;
    bool in_place;  // dx is dy

    [[nodiscard]] arrays<float> inputs(random_stream& random) const { return {random_values(random, n, 3.0F)}; }
    template <class B>
    [[nodiscard]] auto forward(B& backend, const arrays<number_of<B>>& in) const {
        device_array<B> x(backend, in[0]), y(backend, n);
        backend.gelu(y, x, n, tanh_form);
        return arrays<number_of<B>>{y.fetch()};
    }
    template <class B>
    [[nodiscard]] auto backward(B& backend, const arrays<number_of<B>>& in,
                                const std::vector<number_of<B>>& dout) const {
        device_array<B> x(backend, in[0]), dy(backend, dout), dx(backend, n);
        number_of<B>* out = in_place ? dy : dx;
        backend.gelu_backward(out, dy, x, n, tanh_form);
        return arrays<number_of<B>>{(in_place ? dy : dx).fetch()};
    }
};

struct embedding_op {
    int rows, columns, vocabulary;

    [[nodiscard]] std::vector<std::int32_t> ids() const {
        std::vector<std::int32_t> chosen;  // with repeats, so that the backward pass has to add
        for (int r = 0; r < rows; ++r) chosen.push_back(r * r % vocabulary);
        return chosen;
    }
    [[nodiscard]] arrays<float> inputs(random_stream& random) const {
        return {random_values(random, area(vocabulary, columns))};
    }
    template <class B>
    [[nodiscard]] auto forward(B& backend, const arrays<number_of<B>>& in) const {
        device_array<B> table(backend, in[0]), y(backend, area(rows, columns));
        backend.embedding(y, table, ids().data(), rows, columns);
        return arrays<number_of<B>>{y.fetch()};
    }
    template <class B>
    [[nodiscard]] auto backward(B& backend, const arrays<number_of<B>>& in,
                                const std::vector<number_of<B>>& dout) const {
        device_array<B> dy(backend, dout), dtable(backend, in[0].size(), 1);
        backend.embedding_backward(dtable, dy, ids().data(), rows, columns);
        return arrays<number_of<B>>{without_prefill<number_of<B>>(dtable.fetch(), 1)};
    }
};

struct cross_entropy_op {
    int rows, vocabulary;
    float spread = 3.0F;  // of the logits

    [[nodiscard]] std::vector<std::int32_t> targets() const {
        std::vector<std::int32_t> chosen;
        for (int r = 0; r < rows; ++r) chosen.push_back(r % 3 == 1 ? -100 : r * 7 % vocabulary);
        return chosen;
    }
    [[nodiscard]] arrays<float> inputs(random_stream& random) const {
        return {random_values(random, area(rows, vocabulary), spread)};
    }
    template <class B>
    [[nodiscard]] auto forward(B& backend, const arrays<number_of<B>>& in) const {
        device_array<B> logits(backend, in[0]);
        const double loss = backend.cross_entropy(logits, targets().data(), rows, vocabulary, 0);
        REQUIRE(logits.fetch() == in[0]);
        return arrays<number_of<B>>{{static_cast<number_of<B>>(loss)}};
    }
    template <class B>
    [[nodiscard]] auto backward(B& backend, const arrays<number_of<B>>& in,
                                const std::vector<number_of<B>>& dout) const {
        device_array<B> logits(backend, in[0]);
        (void)backend.cross_entropy(logits, targets().data(), rows, vocabulary, dout[0]);
        return arrays<number_of<B>>{logits.fetch()};
    }
};

}  // namespace thinwire::test

#endif  // THINWIRE_TESTS_SUPPORT_BACKEND_OPS_HPP
