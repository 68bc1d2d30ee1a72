#ifndef THINWIRE_NN_BLOCK_HPP
#define THINWIRE_NN_BLOCK_HPP

#include <thinwire/nn/layers.hpp>
#include <thinwire/nn/workspace.hpp>

#include <cstddef>

namespace thinwire::nn {

/// Where the rows of a pass stand: row r is position first_position + r % tokens. The tables are rope_table's.
struct row_positions {
    int rows = 0;
    int tokens = 0;
    int first_position = 0;
    const float* cosine = nullptr;
    const float* sine = nullptr;
};

/// Sizes and strides of the attention of a model over `batch` rows of `tokens` tokens.
[[nodiscard]] inline attention_shape attention_of(const transformer_config& c, int batch, int tokens) {
    const int query_width = c.num_attention_heads * c.head_dim;
    const bool fused = c.family == model_family::gpt2;
    return {.batch = batch,
            .tokens = tokens,
            .heads = c.num_attention_heads,
            .kv_heads = c.num_key_value_heads,
            .head_dim = c.head_dim,
            .q_stride = fused ? 3 * c.hidden_size : query_width,
            .kv_stride = fused ? 3 * c.hidden_size : c.num_key_value_heads * c.head_dim,
            .o_stride = query_width};
}

namespace detail {

[[nodiscard]] inline std::size_t elements(int rows, int columns) {
    return static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns);
}

/// Rows that a query or key norm sees: tokens, or tokens times heads.
[[nodiscard]] inline int norm_rows(const transformer_config& c, int rows, int heads) {
    return c.qk_norm == qk_norm_kind::per_head ? rows * heads : rows;
}

template <backend B>
void rotate(const layer_context<B>& c, float* query, float* key, const row_positions& at, bool inverse) {
    if (c.config.position != position_kind::rope) return;
    const attention_shape s = attention_of(c.config, 1, at.tokens);
    c.backend.rope(query, at.cosine, at.sine, at.rows, at.tokens, s.heads, s.head_dim, s.q_stride, at.first_position,
                   inverse);
    c.backend.rope(key, at.cosine, at.sine, at.rows, at.tokens, s.kv_heads, s.head_dim, s.kv_stride, at.first_position,
                   inverse);
}

/// Queries, keys and values from x, as attention reads them.
template <backend B>
void heads_forward(const layer_context<B>& c, const layer_plan& l, layer_activations& a, const float* x,
                   const row_positions& at) {
    const bool normed = c.config.qk_norm != qk_norm_kind::none;
    linear_forward(c, l.query, normed ? a.raw_query : a.query, x, at.rows);
    if (l.key.weight != no_tensor) {
        linear_forward(c, l.key, normed ? a.raw_key : a.key, x, at.rows);
        linear_forward(c, l.value, a.value, x, at.rows);
    }
    if (normed) {
        norm_forward(c, l.query_norm, a.query, nullptr, a.query_rstd, a.raw_query,
                     norm_rows(c.config, at.rows, c.config.num_attention_heads));
        norm_forward(c, l.key_norm, a.key, nullptr, a.key_rstd, a.raw_key,
                     norm_rows(c.config, at.rows, c.config.num_key_value_heads));
    }
    rotate(c, a.query, a.key, at, false);
}

/// The gradient of x from those of queries, keys and values, which are used up.
template <backend B>
void heads_backward(const layer_context<B>& c, const layer_plan& l, const layer_activations& a, gradient_scratch& d,
                    float* dx, const float* x, const row_positions& at) {
    rotate(c, d.query, d.key, at, true);
    if (c.config.qk_norm != qk_norm_kind::none) {  // rms_norm_backward may work in place
        norm_backward(c, l.query_norm, d.query, d.query, a.raw_query, nullptr, a.query_rstd,
                      norm_rows(c.config, at.rows, c.config.num_attention_heads));
        norm_backward(c, l.key_norm, d.key, d.key, a.raw_key, nullptr, a.key_rstd,
                      norm_rows(c.config, at.rows, c.config.num_key_value_heads));
    }
    linear_backward(c, l.query, dx, d.query, x, at.rows, false);
    if (l.key.weight == no_tensor) return;
    linear_backward(c, l.key, dx, d.key, x, at.rows, true);
    linear_backward(c, l.value, dx, d.value, x, at.rows, true);
}

template <backend B>
void mlp_forward(const layer_context<B>& c, const layer_plan& l, layer_activations& a, float* y, const float* x,
                 int rows) {
    const std::size_t n = elements(rows, c.config.intermediate_size);
    linear_forward(c, l.up, a.up, x, rows);
    if (c.config.mlp == mlp_kind::gated_silu) {
        linear_forward(c, l.gate, a.gate, x, rows);
        c.backend.silu_mul(a.active, a.gate, a.up, n);
    } else {
        c.backend.gelu(a.active, a.up, n, c.config.mlp == mlp_kind::gelu_tanh);
    }
    linear_forward(c, l.down, y, a.active, rows);
}

template <backend B>
void mlp_backward(const layer_context<B>& c, const layer_plan& l, const layer_activations& a, gradient_scratch& d,
                  float* dx, const float* dy, const float* x, int rows) {
    const std::size_t n = elements(rows, c.config.intermediate_size);
    linear_backward(c, l.down, d.active, dy, a.active, rows, false);
    if (c.config.mlp == mlp_kind::gated_silu) {
        c.backend.silu_mul_backward(d.gate, d.up, d.active, a.gate, a.up, n);
        linear_backward(c, l.up, dx, d.up, x, rows, false);
        linear_backward(c, l.gate, dx, d.gate, x, rows, true);
    } else {
        c.backend.gelu_backward(d.up, d.active, a.up, n, c.config.mlp == mlp_kind::gelu_tanh);
        linear_backward(c, l.up, dx, d.up, x, rows, false);
    }
}

}  // namespace detail

/// One block: a.input to `out` ([rows, hidden], may be a.input). `attend()` computes a.attended from a.query, a.key
/// and a.value. `scratch` is [rows, hidden].
template <backend B, class Attend>
void block_forward(const layer_context<B>& c, const layer_plan& l, layer_activations& a, float* out, float* scratch,
                   const row_positions& at, const Attend& attend) {
    const bool pre = c.config.placement == norm_placement::pre;
    const std::size_t n = detail::elements(at.rows, c.config.hidden_size);
    if (pre) norm_forward(c, l.attention_norm, a.normed_1, a.mean_1, a.rstd_1, a.input, at.rows);
    detail::heads_forward(c, l, a, pre ? a.normed_1 : a.input, at);
    attend();
    linear_forward(c, l.output, pre ? scratch : a.normed_1, a.attended, at.rows);
    if (!pre) norm_forward(c, l.attention_norm, scratch, a.mean_1, a.rstd_1, a.normed_1, at.rows);
    c.backend.copy(a.middle, a.input, n);
    c.backend.add(a.middle, scratch, n);

    if (pre) norm_forward(c, l.mlp_norm, a.normed_2, a.mean_2, a.rstd_2, a.middle, at.rows);
    detail::mlp_forward(c, l, a, pre ? scratch : a.normed_2, pre ? a.normed_2 : a.middle, at.rows);
    if (!pre) norm_forward(c, l.mlp_norm, scratch, a.mean_2, a.rstd_2, a.normed_2, at.rows);
    c.backend.copy(out, a.middle, n);
    c.backend.add(out, scratch, n);
}

/// Turns d.stream from the gradient of a block's output into that of its input, and adds to its weights' gradients.
template <backend B>
void block_backward(const layer_context<B>& c, const layer_plan& l, const layer_activations& a, gradient_scratch& d,
                    const row_positions& at) {
    const bool pre = c.config.placement == norm_placement::pre;
    const std::size_t n = detail::elements(at.rows, c.config.hidden_size);
    if (pre) {
        detail::mlp_backward(c, l, a, d, d.first, d.stream, a.normed_2, at.rows);
        norm_backward(c, l.mlp_norm, d.second, d.first, a.middle, a.mean_2, a.rstd_2, at.rows);
    } else {
        norm_backward(c, l.mlp_norm, d.first, d.stream, a.normed_2, a.mean_2, a.rstd_2, at.rows);
        detail::mlp_backward(c, l, a, d, d.second, d.first, a.middle, at.rows);
    }
    c.backend.add(d.stream, d.second, n);

    const float* dy = d.stream;
    if (!pre) {
        norm_backward(c, l.attention_norm, d.first, d.stream, a.normed_1, a.mean_1, a.rstd_1, at.rows);
        dy = d.first;
    }
    linear_backward(c, l.output, d.attended, dy, a.attended, at.rows, false);
    c.backend.attention_backward(d.query, d.key, d.value, d.attended, a.query, a.key, a.value, a.attended, a.lse,
                                 attention_of(c.config, at.rows / at.tokens, at.tokens));
    if (pre) {
        detail::heads_backward(c, l, a, d, d.first, a.normed_1, at);
        norm_backward(c, l.attention_norm, d.second, d.first, a.input, a.mean_1, a.rstd_1, at.rows);
    } else {
        detail::heads_backward(c, l, a, d, d.second, a.input, at);
    }
    c.backend.add(d.stream, d.second, n);
}

}  // namespace thinwire::nn

#endif  // THINWIRE_NN_BLOCK_HPP
