#ifndef THINWIRE_NN_TRANSFORMER_HPP
#define THINWIRE_NN_TRANSFORMER_HPP

#include <thinwire/core/error.hpp>
#include <thinwire/core/parameter.hpp>
#include <thinwire/core/random.hpp>
#include <thinwire/nn/backend.hpp>
#include <thinwire/nn/block.hpp>
#include <thinwire/nn/config.hpp>
#include <thinwire/nn/layers.hpp>
#include <thinwire/nn/plan.hpp>
#include <thinwire/nn/rope.hpp>
#include <thinwire/nn/workspace.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

namespace thinwire::nn {

/// A decoder-only transformer (Llama, Qwen3, OLMo 2, GPT-2) with forward and backward passes written by hand, on any
/// back end. Owns its weights, their gradients and one workspace; a pass of a size seen before allocates nothing.
/// tokens, targets: [batch, tokens_per_row], row-major. Used by one thread at a time.
template <backend B>
class transformer {
 public:
    /// Weights are zero until initialize() or hf::load_weights(). Throws value_error naming the field that is wrong.
    /// The back end outlives the model.
    transformer(B& backend, transformer_config config)
        : backend_(backend),
          config_(config),
          plan_(config_),
          values_(backend.allocate(plan_.arena_size())),
          gradients_(backend.allocate(plan_.arena_size())) {
        for (const tensor_plan& t : plan_.tensors())
            parameters_.push_back({.name = t.name,
                                   .shape = t.shape,
                                   .values = {values_.data() + t.offset, t.shape.count()},
                                   .gradient = {gradients_.data() + t.offset, t.shape.count()}});
    }
    transformer(const transformer&) = delete;
    transformer& operator=(const transformer&) = delete;

    [[nodiscard]] const transformer_config& config() const noexcept { return config_; }
    [[nodiscard]] const model_plan& plan() const noexcept { return plan_; }

    /// All trainable tensors under their Hugging Face names, in named_parameters() order. The spans lie in two arenas
    /// where the back end computes: host memory for a CPU back end. Valid as long as the model.
    [[nodiscard]] std::span<const parameter> parameters() const noexcept { return parameters_; }

    /// Matrices normal(0, initializer_range), those that write into the residual stream narrower by
    /// sqrt(2 * layers) (GPT-2); norms 1, biases 0. A function of the seed and the machine's libm alone.
    void initialize(std::uint64_t seed) {
        std::vector<float> fresh;
        for (std::size_t i = 0; i < parameters_.size(); ++i) {
            const initial_values kind = plan_.tensors()[i].initial;
            fresh.assign(parameters_[i].values.size(), kind == initial_values::ones ? 1.0F : 0.0F);
            if (kind == initial_values::normal || kind == initial_values::residual) {
                const auto depth = static_cast<float>(2 * config_.num_hidden_layers);
                const float scale =
                    config_.initializer_range / (kind == initial_values::residual ? std::sqrt(depth) : 1.0F);
                random_stream random(seed, i);
                for (float& x : fresh) x = scale * random.normal();
            }
            backend_.upload(parameters_[i].values.data(), fresh);
        }
    }

    /// Whether blocks keep only their inputs for the backward pass, which then computes the rest once more: the same
    /// bits, a third more work, and memory for the activations of one block instead of all. For the passes to come.
    void recompute_activations(bool recompute) noexcept { recompute_ = recompute; }

    void zero_gradient() { backend_.fill(gradients_.data(), 0.0F, gradients_.size()); }

    /// Mean cross-entropy over the targets that are not negative (negative ones are ignored), in nats; adds its
    /// gradient to every parameter's. Throws shape_error for sizes that do not fit together or rows longer than
    /// max_position_embeddings, and value_error for a token or target outside the vocabulary or no target at all.
    float loss_and_gradient(std::span<const std::int32_t> tokens, std::span<const std::int32_t> targets, int batch,
                            int tokens_per_row) {
        const int counted = check_targets(targets, tokens.size());
        const row_positions at = forward(tokens, batch, tokens_per_row, true);
        head_forward(at.rows);
        const float scale = 1.0F / static_cast<float>(counted);
        const double sum =
            backend_.cross_entropy(workspace_.logits(), targets.data(), at.rows, config_.vocab_size, scale);
        backward(tokens, at);
        return static_cast<float>(sum / counted);
    }

    /// The same loss without a gradient. Errors as loss_and_gradient.
    [[nodiscard]] float loss(std::span<const std::int32_t> tokens, std::span<const std::int32_t> targets, int batch,
                             int tokens_per_row) {
        const int counted = check_targets(targets, tokens.size());
        const row_positions at = forward(tokens, batch, tokens_per_row, false);
        head_forward(at.rows);
        const double sum =
            backend_.cross_entropy(workspace_.logits(), targets.data(), at.rows, config_.vocab_size, 0.0F);
        return static_cast<float>(sum / counted);
    }

    /// The scores of every next token: out is [batch, tokens_per_row, vocab_size] in host memory.
    void logits(std::span<const std::int32_t> tokens, int batch, int tokens_per_row, std::span<float> out) {
        const std::size_t expected = tokens.size() * static_cast<std::size_t>(config_.vocab_size);
        if (out.size() != expected)
            throw shape_error("logits: out has " + std::to_string(out.size()) + " elements, expected " +
                              std::to_string(expected));
        const row_positions at = forward(tokens, batch, tokens_per_row, false);
        head_forward(at.rows);
        backend_.download(out, workspace_.logits());
    }

    /// What layers and decoders compute with. Valid as long as the model.
    [[nodiscard]] layer_context<B> context() noexcept {
        return {backend_, config_, plan_, values_.data(), gradients_.data()};
    }

    /// Tables for positions below `count`; they move when a later call asks for more. Throws shape_error beyond
    /// max_position_embeddings.
    [[nodiscard]] row_positions positions(int rows, int tokens, int first_position) {
        const int count = first_position + tokens;
        if (count > config_.max_position_embeddings)
            throw shape_error("transformer: " + std::to_string(count) + " tokens in a row, expected at most " +
                              std::to_string(config_.max_position_embeddings) + " (max_position_embeddings)");
        if (config_.position == position_kind::rope && count > table_positions_) grow_tables(count);
        return {rows, tokens, first_position, cosine_.data(), sine_.data()};
    }

    /// out[rows, hidden] = the embeddings of `tokens` at these positions; scratch is as large.
    void embed(float* out, float* scratch, std::span<const std::int32_t> tokens, const row_positions& at) {
        check_tokens(tokens);
        const layer_context<B> c = context();
        backend_.embedding(out, c.value(plan_.embedding()), tokens.data(), at.rows, config_.hidden_size);
        if (plan_.position_embedding() == no_tensor) return;
        position_ids_.resize(static_cast<std::size_t>(at.rows));
        for (int r = 0; r < at.rows; ++r)
            position_ids_[static_cast<std::size_t>(r)] = at.first_position + r % at.tokens;
        backend_.embedding(scratch, c.value(plan_.position_embedding()), position_ids_.data(), at.rows,
                           config_.hidden_size);
        backend_.add(out, scratch, detail::elements(at.rows, config_.hidden_size));
    }

 private:
    void check_tokens(std::span<const std::int32_t> tokens) const {
        for (const std::int32_t token : tokens)
            if (token < 0 || token >= config_.vocab_size)
                throw value_error("transformer: token " + std::to_string(token) + ", expected 0 to " +
                                  std::to_string(config_.vocab_size - 1));
    }

    /// How many targets count.
    int check_targets(std::span<const std::int32_t> targets, std::size_t tokens) const {
        if (targets.size() != tokens)
            throw shape_error("transformer: " + std::to_string(targets.size()) + " targets, expected one for each of " +
                              std::to_string(tokens) + " tokens");
        for (const std::int32_t target : targets)
            if (target >= config_.vocab_size)
                throw value_error("transformer: target " + std::to_string(target) + ", expected below " +
                                  std::to_string(config_.vocab_size) + " (or negative to ignore it)");
        const auto counted = std::count_if(targets.begin(), targets.end(), [](std::int32_t t) { return t >= 0; });
        if (counted == 0) throw value_error("transformer: 0 targets that count, expected at least 1");
        return static_cast<int>(counted);
    }

    void grow_tables(int count) {
        const auto wanted = std::bit_ceil(static_cast<unsigned>(count));
        const int size = std::min(static_cast<int>(wanted), config_.max_position_embeddings);
        const rope_table table(config_, size);
        cosine_ = backend_.allocate(table.cosine.size());
        sine_ = backend_.allocate(table.sine.size());
        backend_.upload(cosine_.data(), table.cosine);
        backend_.upload(sine_.data(), table.sine);
        table_positions_ = size;
    }

    /// From tokens to the output of the final norm.
    row_positions forward(std::span<const std::int32_t> tokens, int batch, int tokens_per_row, bool keep) {
        const auto rows = static_cast<std::int64_t>(batch) * tokens_per_row;
        if (batch < 1 || tokens_per_row < 1 || static_cast<std::uint64_t>(rows) != tokens.size() ||
            rows > std::numeric_limits<int>::max())
            throw shape_error("transformer: " + std::to_string(tokens.size()) + " tokens, expected batch " +
                              std::to_string(batch) + " times tokens_per_row " + std::to_string(tokens_per_row) +
                              ", both at least 1");
        const row_positions at = positions(static_cast<int>(rows), tokens_per_row, 0);
        workspace_.prepare(backend_, config_,
                           {.rows = at.rows, .logit_rows = at.rows, .backward = keep, .recompute = recompute_});
        const layer_context<B> c = context();
        embed(workspace_.layer(0).input, workspace_.scratch(), tokens, at);
        const std::size_t layers = plan_.layers().size();
        for (std::size_t i = 0; i < layers; ++i) {
            float* out = i + 1 < layers ? workspace_.layer(i + 1).input : workspace_.output();
            layer_forward(i, out, at);
        }
        norm_forward(c, plan_.final_norm(), workspace_.normed(), workspace_.mean(), workspace_.rstd(),
                     workspace_.output(), at.rows);
        return at;
    }

    void layer_forward(std::size_t i, float* out, const row_positions& at) {
        layer_activations& a = workspace_.layer(i);
        const attention_shape shape = attention_of(config_, at.rows / at.tokens, at.tokens);
        block_forward(context(), plan_.layers()[i], a, out, workspace_.scratch(), at,
                      [&] { backend_.attention(a.attended, a.lse, a.query, a.key, a.value, shape); });
    }

    void head_forward(int rows) {
        linear_forward(context(), plan_.head(), workspace_.logits(), workspace_.normed(), rows);
    }

    /// From the gradient of the logits, which lies where they lay, to those of all weights.
    void backward(std::span<const std::int32_t> tokens, const row_positions& at) {
        const layer_context<B> c = context();
        gradient_scratch& d = workspace_.gradient();
        linear_backward(c, plan_.head(), d.first, workspace_.logits(), workspace_.normed(), at.rows, false);
        norm_backward(c, plan_.final_norm(), d.stream, d.first, workspace_.output(), workspace_.mean(),
                      workspace_.rstd(), at.rows);
        for (std::size_t i = plan_.layers().size(); i-- > 0;) {
            // those of the last block are still there; its output is nobody's, and goes where the gradient will be
            if (recompute_ && i + 1 < plan_.layers().size()) layer_forward(i, d.first, at);
            block_backward(c, plan_.layers()[i], workspace_.layer(i), d, at);
        }
        if (plan_.position_embedding() != no_tensor)
            backend_.embedding_backward(c.gradient(plan_.position_embedding()), d.stream, position_ids_.data(), at.rows,
                                        config_.hidden_size);
        const auto width = static_cast<std::size_t>(config_.hidden_size);
        for (std::size_t r = 0; r < tokens.size(); ++r)
            if (tokens[r] == config_.pad_token_id) backend_.fill(d.stream + r * width, 0.0F, width);
        backend_.embedding_backward(c.gradient(plan_.embedding()), d.stream, tokens.data(), at.rows,
                                    config_.hidden_size);
    }

    B& backend_;
    transformer_config config_;
    model_plan plan_;
    typename B::buffer values_, gradients_;
    typename B::buffer cosine_{}, sine_{};
    int table_positions_ = 0;
    bool recompute_ = false;
    std::vector<parameter> parameters_;
    std::vector<std::int32_t> position_ids_;
    workspace<B> workspace_;
};

}  // namespace thinwire::nn

#endif  // THINWIRE_NN_TRANSFORMER_HPP
