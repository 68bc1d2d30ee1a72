#ifndef THINWIRE_NN_DECODER_HPP
#define THINWIRE_NN_DECODER_HPP

#include <thinwire/nn/block.hpp>
#include <thinwire/nn/transformer.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace thinwire::nn {

/// Extends one sequence token by token, keeping the keys and values of what it has seen. Computes with the weights of
/// a model that outlives it; after those change, reset(). Used by one thread at a time.
template <backend B>
class decoder {
 public:
    /// Room for `capacity` tokens. Throws shape_error beyond max_position_embeddings: positions past it were never
    /// trained, so the sequence is refused rather than silently cut.
    decoder(transformer<B>& model, int capacity)
        : model_(model), backend_(model.context().backend), config_(model.config()), capacity_(capacity) {
        (void)model.positions(1, 1, capacity - 1);
        const std::size_t size = cache_offset(config_.num_hidden_layers, 0, 0);
        keys_ = backend_.allocate(size);
        values_ = backend_.allocate(size);
        scores_ = backend_.allocate(detail::elements(group(), capacity));
        weights_.resize(detail::elements(group(), capacity));
        next_.resize(static_cast<std::size_t>(config_.vocab_size));
    }

    /// Forgets everything seen.
    void reset() noexcept { length_ = 0; }
    [[nodiscard]] int length() const noexcept { return length_; }

    /// Appends tokens and returns the scores of the one that comes next, valid until the next call. Throws
    /// shape_error when there is no room or nothing to append, value_error for a token outside the vocabulary.
    std::span<const float> extend(std::span<const std::int32_t> tokens) {
        const auto room = static_cast<std::size_t>(capacity_ - length_);
        if (tokens.empty() || tokens.size() > room)
            throw shape_error("decoder: " + std::to_string(tokens.size()) + " tokens, expected 1 to " +
                              std::to_string(room));
        const int rows = static_cast<int>(tokens.size());
        const row_positions at = model_.positions(rows, rows, length_);
        const layer_context<B> c = model_.context();
        workspace_.prepare(backend_, config_, {.rows = rows, .logit_rows = 1, .backward = false});
        model_.embed(workspace_.layer(0).input, workspace_.scratch(), tokens, at);
        for (int i = 0; i < config_.num_hidden_layers; ++i) {
            layer_activations& a = workspace_.layer(static_cast<std::size_t>(i));
            block_forward(c, c.plan.layers()[static_cast<std::size_t>(i)], a, a.input, workspace_.scratch(), at,
                          [&] { attend(i, a, rows); });
        }
        const float* last = workspace_.layer(0).input + detail::elements(rows - 1, config_.hidden_size);
        norm_forward(c, c.plan.final_norm(), workspace_.normed(), workspace_.mean(), workspace_.rstd(), last, 1);
        linear_forward(c, c.plan.head(), workspace_.logits(), workspace_.normed(), 1);
        backend_.download(next_, workspace_.logits());
        length_ += rows;
        return next_;
    }

 private:
    /// Query heads that share a key head; they lie side by side.
    [[nodiscard]] int group() const noexcept { return config_.num_attention_heads / config_.num_key_value_heads; }

    /// The cache is [layers, key heads, capacity, head_dim].
    [[nodiscard]] std::size_t cache_offset(int layer, int head, int position) const noexcept {
        return detail::elements(layer * config_.num_key_value_heads + head, capacity_) *
                   static_cast<std::size_t>(config_.head_dim) +
               detail::elements(position, config_.head_dim);
    }

    /// Attention of the new rows over the cache and themselves.
    void attend(int layer, layer_activations& a, int rows) {
        const attention_shape s = attention_of(config_, 1, rows);
        const auto width = static_cast<std::size_t>(s.head_dim);
        for (int r = 0; r < rows; ++r)
            for (int h = 0; h < s.kv_heads; ++h) {
                const std::size_t from = detail::elements(r, s.kv_stride) + detail::elements(h, s.head_dim);
                backend_.copy(keys_.data() + cache_offset(layer, h, length_ + r), a.key + from, width);
                backend_.copy(values_.data() + cache_offset(layer, h, length_ + r), a.value + from, width);
            }
        for (int r = 0; r < rows; ++r)
            for (int h = 0; h < s.kv_heads; ++h) {
                const std::size_t head = detail::elements(h * group(), s.head_dim);
                const int seen = length_ + r + 1;
                backend_.matmul(scores_.data(), a.query + detail::elements(r, s.q_stride) + head,
                                keys_.data() + cache_offset(layer, h, 0), group(), seen, s.head_dim, false, true,
                                false);
                softmax(seen);
                backend_.matmul(a.attended + detail::elements(r, s.o_stride) + head, scores_.data(),
                                values_.data() + cache_offset(layer, h, 0), group(), s.head_dim, seen, false, false,
                                false);
            }
    }

    /// softmax(scores / sqrt(head_dim)) of `group` rows of `seen` scores, on the host.
    void softmax(int seen) {
        const std::span<float> all(weights_.data(), detail::elements(group(), seen));
        backend_.download(all, scores_.data());
        const float scale = 1.0F / std::sqrt(static_cast<float>(config_.head_dim));
        for (int g = 0; g < group(); ++g) {
            const std::span<float> row = all.subspan(detail::elements(g, seen), static_cast<std::size_t>(seen));
            const float largest = *std::max_element(row.begin(), row.end());
            float total = 0;
            for (float& x : row) total += x = std::exp((x - largest) * scale);
            for (float& x : row) x /= total;
        }
        backend_.upload(scores_.data(), all);
    }

    transformer<B>& model_;
    B& backend_;
    const transformer_config& config_;
    int capacity_;
    int length_ = 0;
    typename B::buffer keys_{}, values_{}, scores_{};
    std::vector<float> weights_;
    std::vector<float> next_;
    workspace<B> workspace_;
};

}  // namespace thinwire::nn

#endif  // THINWIRE_NN_DECODER_HPP
