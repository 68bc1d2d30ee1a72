#ifndef THINWIRE_NN_CONFIG_HPP
#define THINWIRE_NN_CONFIG_HPP

#include <thinwire/core/error.hpp>

#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

namespace thinwire::nn {

/// Whose tensor names and weight layout a model uses. gpt2 keeps query, key and value in one matrix and stores
/// matrices as [inputs, outputs]; the others store [outputs, inputs].
enum class model_family : std::uint8_t { llama, qwen3, olmo2, gpt2 };

enum class norm_kind : std::uint8_t {
    rms,    ///< x / rms(x) * weight
    layer,  ///< (x - mean) / deviation * weight + bias
};
enum class norm_placement : std::uint8_t {
    pre,   ///< x + f(norm(x)), and a norm before the output layer
    post,  ///< x + norm(f(x)), and a norm before the output layer (OLMo 2)
};
enum class qk_norm_kind : std::uint8_t {
    none,
    per_head,  ///< RMS norm of every query and key vector (Qwen3)
    full,      ///< RMS norm over all heads of a token at once (OLMo 2)
};
enum class position_kind : std::uint8_t { rope, learned };
enum class mlp_kind : std::uint8_t {
    gated_silu,  ///< down(silu(gate(x)) * up(x))
    gelu_tanh,   ///< down(gelu(up(x))), tanh form: "gelu_new", "gelu_pytorch_tanh"
    gelu,        ///< down(gelu(up(x))), exact
};

/// Stretches the slow frequencies of RoPE for contexts longer than those trained on ("llama3" in Hugging Face files).
struct rope_scaling {
    bool enabled = false;
    double factor = 8.0;
    double low_freq_factor = 1.0;
    double high_freq_factor = 4.0;
    int original_max_position_embeddings = 8192;
    [[nodiscard]] bool operator==(const rope_scaling&) const noexcept = default;
};

/// The shape of a decoder-only transformer. Names are those of Hugging Face configuration files. The defaults of the
/// enumerations describe Llama; hf/config.hpp sets them for the other families.
struct transformer_config {
    model_family family = model_family::llama;
    norm_kind norm = norm_kind::rms;
    norm_placement placement = norm_placement::pre;
    qk_norm_kind qk_norm = qk_norm_kind::none;
    position_kind position = position_kind::rope;
    mlp_kind mlp = mlp_kind::gated_silu;

    int vocab_size = 0;
    int hidden_size = 0;
    int intermediate_size = 0;
    int num_hidden_layers = 0;
    int num_attention_heads = 0;
    int num_key_value_heads = 0;
    int head_dim = 0;
    int max_position_embeddings = 0;

    double rope_theta = 10000.0;
    nn::rope_scaling rope_scaling{};
    float norm_eps = 1e-5F;
    bool tie_word_embeddings = false;
    bool attention_bias = false;  ///< on the query, key, value and output projections
    bool mlp_bias = false;
    float initializer_range = 0.02F;
    int pad_token_id = -1;  ///< a token whose look-ups give its embedding no gradient, as torch's padding_idx; -1: none

    [[nodiscard]] bool operator==(const transformer_config&) const noexcept = default;
};

namespace detail {

inline void require(bool holds, std::string_view field, const char* value, std::string_view expectation) {
    if (!holds)
        throw value_error("transformer_config: " + std::string(field) + " is " + value + ", expected " +
                          std::string(expectation));
}
inline void require(bool holds, std::string_view field, int value, std::string_view expectation) {
    if (!holds) require(false, field, std::to_string(value).c_str(), expectation);
}
inline void require(bool holds, std::string_view field, double value, std::string_view expectation) {
    std::array<char, 32> text{};
    if (holds) return;
    std::snprintf(text.data(), text.size(), "%g", value);
    require(false, field, text.data(), expectation);
}

inline void check_gpt2(const transformer_config& c) {
    require(c.norm == norm_kind::layer, "norm", "rms", "layer for the gpt2 family");
    require(c.placement == norm_placement::pre, "placement", "post", "pre for the gpt2 family");
    require(c.qk_norm == qk_norm_kind::none, "qk_norm", "set", "none for the gpt2 family");
    require(c.position == position_kind::learned, "position", "rope", "learned for the gpt2 family");
    require(c.mlp != mlp_kind::gated_silu, "mlp", "gated_silu", "gelu_tanh or gelu for the gpt2 family");
    require(c.num_key_value_heads == c.num_attention_heads, "num_key_value_heads", c.num_key_value_heads,
            "num_attention_heads for the gpt2 family");
    require(c.attention_bias && c.mlp_bias, "attention_bias or mlp_bias", "false", "true for the gpt2 family");
    require(c.hidden_size == c.num_attention_heads * c.head_dim, "head_dim", c.head_dim,
            "hidden_size / num_attention_heads for the gpt2 family");
}

}  // namespace detail

/// Throws value_error that names the first field that is wrong, its value and what was expected.
inline void check(const transformer_config& c) {
    using detail::require;
    constexpr int limit = 1 << 24;  // products of two sizes stay within 64 bits, and row lengths within int
    const auto size = [](int value, std::string_view field) {
        require(value >= 1 && value <= limit, field, value, "1 to 16777216");
    };
    size(c.vocab_size, "vocab_size");
    size(c.hidden_size, "hidden_size");
    size(c.intermediate_size, "intermediate_size");
    require(c.num_hidden_layers >= 1 && c.num_hidden_layers <= 4096, "num_hidden_layers", c.num_hidden_layers,
            "1 to 4096");
    size(c.num_attention_heads, "num_attention_heads");
    size(c.num_key_value_heads, "num_key_value_heads");
    require(c.num_attention_heads % c.num_key_value_heads == 0, "num_key_value_heads", c.num_key_value_heads,
            "a divisor of num_attention_heads, " + std::to_string(c.num_attention_heads));
    size(c.head_dim, "head_dim");
    require(static_cast<std::int64_t>(c.num_attention_heads) * c.head_dim <= limit, "head_dim", c.head_dim,
            "at most 16777216 / num_attention_heads");
    size(c.max_position_embeddings, "max_position_embeddings");
    require(std::isfinite(c.norm_eps) && c.norm_eps > 0, "norm_eps", c.norm_eps, "a number above 0");
    require(std::isfinite(c.initializer_range) && c.initializer_range >= 0, "initializer_range", c.initializer_range,
            "a number of at least 0");
    require(c.pad_token_id >= -1 && c.pad_token_id < c.vocab_size, "pad_token_id", c.pad_token_id,
            "a token below vocab_size, or -1");
    if (c.position == position_kind::rope) {
        require(c.head_dim % 2 == 0, "head_dim", c.head_dim, "an even number with RoPE");
        require(std::isfinite(c.rope_theta) && c.rope_theta > 0, "rope_theta", c.rope_theta, "a number above 0");
    }
    if (const nn::rope_scaling& s = c.rope_scaling; c.position == position_kind::rope && s.enabled) {
        require(std::isfinite(s.factor) && s.factor >= 1, "rope_scaling.factor", s.factor, "at least 1");
        require(s.low_freq_factor > 0 && std::isfinite(s.low_freq_factor), "rope_scaling.low_freq_factor",
                s.low_freq_factor, "a number above 0");
        require(s.high_freq_factor > s.low_freq_factor && std::isfinite(s.high_freq_factor),
                "rope_scaling.high_freq_factor", s.high_freq_factor, "a number above low_freq_factor");
        size(s.original_max_position_embeddings, "rope_scaling.original_max_position_embeddings");
    }
    if (c.family == model_family::gpt2)
        detail::check_gpt2(c);
    else
        require(c.position == position_kind::rope, "position", "learned", "rope for this family");
}

}  // namespace thinwire::nn

#endif  // THINWIRE_NN_CONFIG_HPP
