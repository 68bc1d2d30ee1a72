#ifndef THINWIRE_NN_PLAN_HPP
#define THINWIRE_NN_PLAN_HPP

#include <thinwire/core/shape.hpp>
#include <thinwire/nn/config.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace thinwire::nn {

/// How initialize() fills a tensor.
enum class initial_values : std::uint8_t { normal, residual, ones, zeros };

/// One trainable tensor: its Hugging Face name and its place in the arena.
struct tensor_plan {
    std::string name;
    thinwire::shape shape;
    initial_values initial;
    std::size_t offset;  ///< of the first element; a multiple of 16
};

/// Index of a tensor in the plan, or none.
inline constexpr int no_tensor = -1;

/// y = x W (+ bias), W stored as [outputs, inputs], or as [inputs, outputs] when inputs_first.
struct linear_plan {
    int weight = no_tensor;
    int bias = no_tensor;
    int inputs = 0;
    int outputs = 0;
    bool inputs_first = false;
};

struct norm_plan {
    int weight = no_tensor;
    int bias = no_tensor;  ///< of a LayerNorm
    int width = 0;
};

/// The tensors of one block. With fused query, key and value, `query` stands for all three.
struct layer_plan {
    norm_plan attention_norm, mlp_norm, query_norm, key_norm;
    linear_plan query, key, value, output;
    linear_plan gate, up, down;
};

/// Every tensor of a model, in the order of Hugging Face's named_parameters(), and who uses which. Needs no memory
/// beyond itself, so that a model's size is known before it is made.
class model_plan {
 public:
    /// Throws value_error for a configuration that makes no sense.
    explicit model_plan(const transformer_config& c) : config_(c) {
        check(c);
        if (c.family == model_family::gpt2)
            plan_gpt2();
        else
            plan_llama();
    }

    [[nodiscard]] const std::vector<tensor_plan>& tensors() const noexcept { return tensors_; }
    [[nodiscard]] const std::vector<layer_plan>& layers() const noexcept { return layers_; }
    /// Elements of the arena that holds all tensors, the gaps between them included.
    [[nodiscard]] std::size_t arena_size() const noexcept { return arena_size_; }
    /// Number of weights.
    [[nodiscard]] std::size_t parameter_count() const noexcept {
        std::size_t total = 0;
        for (const tensor_plan& tensor : tensors_) total += tensor.shape.count();
        return total;
    }

    [[nodiscard]] int embedding() const noexcept { return embedding_; }
    [[nodiscard]] int position_embedding() const noexcept { return position_embedding_; }
    [[nodiscard]] const norm_plan& final_norm() const noexcept { return final_norm_; }
    /// The layer that makes logits; its weight is the embedding when they are tied.
    [[nodiscard]] const linear_plan& head() const noexcept { return head_; }

 private:
    int add(std::string name, thinwire::shape sides, initial_values initial) {
        constexpr std::size_t align = 16;
        const std::size_t offset = (arena_size_ + align - 1) / align * align;
        arena_size_ = offset + sides.count();
        tensors_.push_back({std::move(name), sides, initial, offset});
        return static_cast<int>(tensors_.size()) - 1;
    }
    norm_plan add_norm(const std::string& name, int width, bool with_bias) {
        norm_plan norm;
        norm.width = width;
        norm.weight = add(name + ".weight", {width}, initial_values::ones);
        if (with_bias) norm.bias = add(name + ".bias", {width}, initial_values::zeros);
        return norm;
    }
    linear_plan add_linear(const std::string& name, int inputs, int outputs, bool with_bias,
                           initial_values initial = initial_values::normal) {
        linear_plan linear;
        linear.inputs = inputs;
        linear.outputs = outputs;
        linear.inputs_first = config_.family == model_family::gpt2;
        const thinwire::shape sides =
            linear.inputs_first ? thinwire::shape{inputs, outputs} : thinwire::shape{outputs, inputs};
        linear.weight = add(name + ".weight", sides, initial);
        if (with_bias) linear.bias = add(name + ".bias", {outputs}, initial_values::zeros);
        return linear;
    }
    void plan_head(const std::string& name) {
        head_ = {.weight = embedding_, .inputs = config_.hidden_size, .outputs = config_.vocab_size};
        if (!config_.tie_word_embeddings)
            head_.weight = add(name, {config_.vocab_size, config_.hidden_size}, initial_values::normal);
    }

    void plan_llama() {
        const transformer_config& c = config_;
        const bool bias = c.norm == norm_kind::layer;
        embedding_ = add("model.embed_tokens.weight", {c.vocab_size, c.hidden_size}, initial_values::normal);
        for (int i = 0; i < c.num_hidden_layers; ++i) layers_.push_back(plan_llama_layer(i));
        final_norm_ = add_norm("model.norm", c.hidden_size, bias);
        plan_head("lm_head.weight");
    }
    layer_plan plan_llama_layer(int index) {
        const transformer_config& c = config_;
        const std::string prefix = "model.layers." + std::to_string(index) + ".";
        const std::string attention = prefix + "self_attn.";
        const int query_width = c.num_attention_heads * c.head_dim;
        const int key_width = c.num_key_value_heads * c.head_dim;
        const bool bias = c.norm == norm_kind::layer;
        layer_plan layer;
        layer.query = add_linear(attention + "q_proj", c.hidden_size, query_width, c.attention_bias);
        layer.key = add_linear(attention + "k_proj", c.hidden_size, key_width, c.attention_bias);
        layer.value = add_linear(attention + "v_proj", c.hidden_size, key_width, c.attention_bias);
        layer.output =
            add_linear(attention + "o_proj", query_width, c.hidden_size, c.attention_bias, initial_values::residual);
        if (c.qk_norm != qk_norm_kind::none) {
            const bool full = c.qk_norm == qk_norm_kind::full;
            layer.query_norm = add_norm(attention + "q_norm", full ? query_width : c.head_dim, false);
            layer.key_norm = add_norm(attention + "k_norm", full ? key_width : c.head_dim, false);
        }
        if (c.mlp == mlp_kind::gated_silu)
            layer.gate = add_linear(prefix + "mlp.gate_proj", c.hidden_size, c.intermediate_size, c.mlp_bias);
        layer.up = add_linear(prefix + "mlp.up_proj", c.hidden_size, c.intermediate_size, c.mlp_bias);
        layer.down = add_linear(prefix + "mlp.down_proj", c.intermediate_size, c.hidden_size, c.mlp_bias,
                                initial_values::residual);
        const bool pre = c.placement == norm_placement::pre;
        layer.attention_norm =
            add_norm(prefix + (pre ? "input_layernorm" : "post_attention_layernorm"), c.hidden_size, bias);
        layer.mlp_norm =
            add_norm(prefix + (pre ? "post_attention_layernorm" : "post_feedforward_layernorm"), c.hidden_size, bias);
        return layer;
    }

    void plan_gpt2() {
        const transformer_config& c = config_;
        embedding_ = add("transformer.wte.weight", {c.vocab_size, c.hidden_size}, initial_values::normal);
        position_embedding_ =
            add("transformer.wpe.weight", {c.max_position_embeddings, c.hidden_size}, initial_values::normal);
        for (int i = 0; i < c.num_hidden_layers; ++i) {
            const std::string prefix = "transformer.h." + std::to_string(i) + ".";
            layer_plan layer;
            layer.attention_norm = add_norm(prefix + "ln_1", c.hidden_size, true);
            layer.query = add_linear(prefix + "attn.c_attn", c.hidden_size, 3 * c.hidden_size, true);
            layer.output =
                add_linear(prefix + "attn.c_proj", c.hidden_size, c.hidden_size, true, initial_values::residual);
            layer.mlp_norm = add_norm(prefix + "ln_2", c.hidden_size, true);
            layer.up = add_linear(prefix + "mlp.c_fc", c.hidden_size, c.intermediate_size, true);
            layer.down =
                add_linear(prefix + "mlp.c_proj", c.intermediate_size, c.hidden_size, true, initial_values::residual);
            layers_.push_back(layer);
        }
        final_norm_ = add_norm("transformer.ln_f", c.hidden_size, true);
        plan_head("lm_head.weight");
    }

    transformer_config config_;
    std::vector<tensor_plan> tensors_;
    std::vector<layer_plan> layers_;
    std::size_t arena_size_ = 0;
    int embedding_ = no_tensor;
    int position_embedding_ = no_tensor;
    norm_plan final_norm_;
    linear_plan head_;
};

}  // namespace thinwire::nn

#endif  // THINWIRE_NN_PLAN_HPP
