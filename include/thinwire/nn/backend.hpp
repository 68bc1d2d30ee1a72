#ifndef THINWIRE_NN_BACKEND_HPP
#define THINWIRE_NN_BACKEND_HPP

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

namespace thinwire::nn {

/// Sizes of one causal attention call. Token (b, t) is row b * tokens + t. Row r of q begins at q + r * q_stride and
/// holds `heads` vectors of `head_dim`; k and v hold `kv_heads` vectors at their strides; query head h reads
/// key/value head h / (heads / kv_heads). Rows of o and its gradient begin at multiples of o_stride.
struct attention_shape {
    int batch = 0;
    int tokens = 0;
    int heads = 0;
    int kv_heads = 0;
    int head_dim = 0;
    int q_stride = 0;
    int kv_stride = 0;
    int o_stride = 0;
};

/// What a transformer asks of the thing that computes. All tensors are float32, row-major and contiguous unless a
/// stride is named; sizes are in elements. "Adds" means accumulates into what is there. Outputs may alias inputs only
/// where said. ids and targets lie in host memory. Calls take effect in order. Every operation has its plain definition
/// in backend/cpu/reference.hpp, against which each back end is checked by the same tests.
template <class B>
concept backend = requires(B& b, float* y, const float* x, const std::int32_t* ids, int n, float a, bool flag,
                           attention_shape s, std::span<float> out, std::span<const float> in) {
    typename B::buffer;  // owns floats where the back end computes; default-constructible, movable; data(), size()
    { b.allocate(std::size_t{}) } -> std::same_as<typename B::buffer>;  // zero-filled
    // matmul(c, a, b, m, n, k, transpose_a, transpose_b, accumulate): c[m,n] = (or +=) op(a)[m,k] op(b)[k,n].
    b.matmul(y, x, x, n, n, n, flag, flag, flag);
    // add_bias(y, bias, rows, columns): every row of y += bias.  bias_backward(db, dy, rows, columns): adds column
    // sums.
    b.add_bias(y, x, n, n);
    b.bias_backward(y, x, n, n);
    // add(y, x, n): y += x.   copy(y, x, n).   fill(y, value, n).
    b.add(y, x, std::size_t{});
    b.copy(y, x, std::size_t{});
    b.fill(y, a, std::size_t{});
    // rms_norm(y, rstd, x, weight, rows, columns, eps): rstd has `rows` entries, kept for the backward pass.
    // rms_norm_backward(dx, dweight, dy, x, weight, rstd, rows, columns): writes dx (may be dy), adds dweight.
    b.rms_norm(y, y, x, x, n, n, a);
    b.rms_norm_backward(y, y, x, x, x, x, n, n);
    // layer_norm(y, mean, rstd, x, weight, bias, rows, columns, eps) and its backward:
    // layer_norm_backward(dx, dweight, dbias, dy, x, weight, mean, rstd, rows, columns): writes dx, adds the others.
    b.layer_norm(y, y, y, x, x, x, n, n, a);
    b.layer_norm_backward(y, y, y, x, x, x, x, x, n, n);
    // rope(x, cosine, sine, rows, tokens, heads, head_dim, stride, first_position, inverse): rotates in place the pairs
    // (i, i + head_dim/2) of every head; row r has position first_position + r % tokens; the tables hold head_dim/2
    // entries a position; inverse rotates back (the backward pass).
    b.rope(y, x, x, n, n, n, n, n, n, flag);
    // attention(o, lse, q, k, v, shape): o = softmax(q k^T / sqrt(head_dim), causal) v; lse[(b*heads+h)*tokens+t] is
    // the log-sum-exp of a row's scaled scores, kept for the backward pass.
    // attention_backward(dq, dk, dv, do, q, k, v, o, lse, shape): writes dq, dk, dv (strides as q, k, v).
    b.attention(y, y, x, x, x, s);
    b.attention_backward(y, y, y, x, x, x, x, x, x, s);
    // silu_mul(y, gate, up, n): y = silu(gate) * up.  silu_mul_backward(dgate, dup, dy, gate, up, n): writes both.
    b.silu_mul(y, x, x, std::size_t{});
    b.silu_mul_backward(y, y, x, x, x, std::size_t{});
    // gelu(y, x, n, tanh_form) and gelu_backward(dx, dy, x, n, tanh_form): dx may be dy.
    b.gelu(y, x, std::size_t{}, flag);
    b.gelu_backward(y, x, x, std::size_t{}, flag);
    // embedding(y, table, ids, rows, columns): row lookup.  embedding_backward(dtable, dy, ids, rows, columns): adds.
    b.embedding(y, x, ids, n, n);
    b.embedding_backward(y, x, ids, n, n);
    // cross_entropy(logits, targets, rows, vocabulary, gradient_scale) -> double: the sum over rows with target >= 0
    // of -log softmax(logits)[target]; overwrites logits with gradient_scale * d(sum)/d(logits) (rows with a negative
    // target get zeros) when gradient_scale != 0, and leaves logits alone otherwise.
    { b.cross_entropy(y, ids, n, n, a) } -> std::convertible_to<double>;
    // upload(to, from) and download(to, from): between host memory and the back end's.
    b.upload(y, in);
    b.download(out, x);
};

}  // namespace thinwire::nn

#endif  // THINWIRE_NN_BACKEND_HPP
