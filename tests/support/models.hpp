#ifndef THINWIRE_TESTS_SUPPORT_MODELS_HPP
#define THINWIRE_TESTS_SUPPORT_MODELS_HPP

#include <thinwire/nn/config.hpp>

#include <string>
#include <vector>

namespace thinwire::test {

struct small_model {
    std::string name;
    nn::transformer_config config;
};

/// Small models of every family and option, those without reference data included.
[[nodiscard]] inline std::vector<small_model> small_models() {
    const nn::transformer_config llama{.vocab_size = 23,
                                       .hidden_size = 12,
                                       .intermediate_size = 20,
                                       .num_hidden_layers = 2,
                                       .num_attention_heads = 4,
                                       .num_key_value_heads = 2,
                                       .head_dim = 6,
                                       .max_position_embeddings = 32};
    std::vector<small_model> models = {{"llama", llama}};
    nn::transformer_config c = llama;
    c.attention_bias = c.mlp_bias = c.tie_word_embeddings = true;
    c.rope_scaling = {.enabled = true, .factor = 4, .original_max_position_embeddings = 8};
    c.pad_token_id = 3;
    models.push_back({"llama with biases, tied, scaled, padded", c});
    c = llama;
    c.family = nn::model_family::qwen3;
    c.qk_norm = nn::qk_norm_kind::per_head;
    c.tie_word_embeddings = true;
    models.push_back({"qwen3", c});
    c = llama;
    c.family = nn::model_family::olmo2;
    c.qk_norm = nn::qk_norm_kind::full;
    c.placement = nn::norm_placement::post;
    c.head_dim = 4;
    c.num_attention_heads = 3;
    c.num_key_value_heads = 1;
    models.push_back({"olmo2", c});
    c = llama;
    c.family = nn::model_family::gpt2;
    c.norm = nn::norm_kind::layer;
    c.position = nn::position_kind::learned;
    c.mlp = nn::mlp_kind::gelu_tanh;
    c.attention_bias = c.mlp_bias = c.tie_word_embeddings = true;
    c.num_attention_heads = c.num_key_value_heads = 4;
    c.head_dim = 3;
    models.push_back({"gpt2", c});
    c.tie_word_embeddings = false;
    c.mlp = nn::mlp_kind::gelu;
    models.push_back({"gpt2, untied, exact gelu", c});
    return models;
}

}  // namespace thinwire::test

#endif  // THINWIRE_TESTS_SUPPORT_MODELS_HPP
