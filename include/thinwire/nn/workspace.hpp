#ifndef THINWIRE_NN_WORKSPACE_HPP
#define THINWIRE_NN_WORKSPACE_HPP

#include <thinwire/nn/backend.hpp>
#include <thinwire/nn/config.hpp>

#include <cstddef>
#include <tuple>
#include <vector>

namespace thinwire::nn {

/// What one block keeps from its forward for its backward pass; "rows" are tokens of all batch rows. There is no
/// tokens x tokens matrix: the attention's backward pass recomputes it from lse.
struct layer_activations {
    float* input = nullptr;   ///< [rows, hidden]
    float* middle = nullptr;  ///< [rows, hidden]: after attention
    float* normed_1 =
        nullptr;  ///< [rows, hidden]: norm(input); with post-norm the output of attention, before its norm
    float* normed_2 = nullptr;  ///< [rows, hidden]: the same of the MLP
    float *mean_1 = nullptr, *rstd_1 = nullptr, *mean_2 = nullptr, *rstd_2 = nullptr;  ///< [rows]
    float *query = nullptr, *key = nullptr,
          *value = nullptr;                          ///< what attention reads, at the strides of attention_shape
    float *raw_query = nullptr, *raw_key = nullptr;  ///< before their norm
    float *query_rstd = nullptr, *key_rstd = nullptr;
    float* attended = nullptr;                                ///< [rows, heads * head_dim]
    float* lse = nullptr;                                     ///< [rows, heads]
    float *gate = nullptr, *up = nullptr, *active = nullptr;  ///< [rows, intermediate]
};

/// Scratch of the backward pass, shared by all blocks.
struct gradient_scratch {
    float *stream = nullptr, *first = nullptr, *second = nullptr;  ///< [rows, hidden]
    float *query = nullptr, *key = nullptr, *value = nullptr;      ///< as layer_activations
    float* attended = nullptr;
    float *gate = nullptr, *up = nullptr, *active = nullptr;
};

/// All memory of a pass, in one buffer that only ever grows: passes of a size seen before allocate nothing.
template <backend B>
class workspace {
 public:
    struct request {
        int rows = 0;            ///< tokens of all batch rows
        int logit_rows = 0;      ///< rows of logits kept at once
        bool backward = false;   ///< without it the blocks share one set of activations
        bool recompute = false;  ///< with it they share all but their inputs
    };

    void prepare(B& backend, const transformer_config& c, request r) {
        layers_.resize(static_cast<std::size_t>(c.num_hidden_layers));
        used_ = 0;
        base_ = nullptr;
        lay_out(c, r);
        if (used_ > buffer_.size()) buffer_ = backend.allocate(used_);
        used_ = 0;
        base_ = buffer_.data();
        lay_out(c, r);
    }

    [[nodiscard]] layer_activations& layer(std::size_t i) noexcept { return layers_[i]; }
    [[nodiscard]] gradient_scratch& gradient() noexcept { return gradient_; }
    [[nodiscard]] float* output() noexcept { return output_; }  ///< [rows, hidden]: of the last block
    [[nodiscard]] float* normed() noexcept { return normed_; }  ///< [rows, hidden]: after the final norm
    [[nodiscard]] float* mean() noexcept { return mean_; }
    [[nodiscard]] float* rstd() noexcept { return rstd_; }
    [[nodiscard]] float* logits() noexcept { return logits_; }    ///< [logit_rows, vocabulary]
    [[nodiscard]] float* scratch() noexcept { return scratch_; }  ///< [rows, hidden]

 private:
    float* take(int rows, int columns) {
        constexpr std::size_t align = 16;
        float* place = base_ == nullptr ? nullptr : base_ + used_;
        used_ += (static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns) + align - 1) / align * align;
        return place;
    }

    void lay_out(const transformer_config& c, request r) {
        if (r.backward) {
            for (layer_activations& a : layers_) {
                if (r.recompute && &a != &layers_.front()) {
                    a = layers_.front();
                    a.input = take(r.rows, c.hidden_size);
                } else {
                    lay_out(c, r.rows, a);
                }
            }
            gradient_.stream = take(r.rows, c.hidden_size);
            gradient_.first = take(r.rows, c.hidden_size);
            gradient_.second = take(r.rows, c.hidden_size);
            std::tie(gradient_.query, gradient_.key, gradient_.value) = take_heads(c, r.rows);
            gradient_.attended = take(r.rows, c.num_attention_heads * c.head_dim);
            gradient_.gate = take(r.rows, c.intermediate_size);
            gradient_.up = take(r.rows, c.intermediate_size);
            gradient_.active = take(r.rows, c.intermediate_size);
        } else {
            lay_out(c, r.rows, layers_.front());
            for (layer_activations& a : layers_) a = layers_.front();
        }
        output_ = take(r.rows, c.hidden_size);
        normed_ = take(r.rows, c.hidden_size);
        scratch_ = take(r.rows, c.hidden_size);
        mean_ = take(r.rows, 1);
        rstd_ = take(r.rows, 1);
        logits_ = take(r.logit_rows, c.vocab_size);
    }

    void lay_out(const transformer_config& c, int rows, layer_activations& a) {
        a.input = take(rows, c.hidden_size);
        a.middle = take(rows, c.hidden_size);
        a.normed_1 = take(rows, c.hidden_size);
        a.normed_2 = take(rows, c.hidden_size);
        for (float** statistic : {&a.mean_1, &a.rstd_1, &a.mean_2, &a.rstd_2}) *statistic = take(rows, 1);
        std::tie(a.query, a.key, a.value) = take_heads(c, rows);
        if (c.qk_norm != qk_norm_kind::none) {
            a.raw_query = take(rows, c.num_attention_heads * c.head_dim);
            a.raw_key = take(rows, c.num_key_value_heads * c.head_dim);
            a.query_rstd = take(rows, c.num_attention_heads);
            a.key_rstd = take(rows, c.num_key_value_heads);
        }
        a.attended = take(rows, c.num_attention_heads * c.head_dim);
        a.lse = take(rows, c.num_attention_heads);
        if (c.mlp == mlp_kind::gated_silu) a.gate = take(rows, c.intermediate_size);
        a.up = take(rows, c.intermediate_size);
        a.active = take(rows, c.intermediate_size);
    }

    /// Query, key and value: apart, or side by side in every row when one matrix makes all three.
    std::tuple<float*, float*, float*> take_heads(const transformer_config& c, int rows) {
        if (c.family == model_family::gpt2) {
            float* fused = take(rows, 3 * c.hidden_size);
            if (fused == nullptr) return {};
            return {fused, fused + c.hidden_size, fused + std::ptrdiff_t{2} * c.hidden_size};
        }
        float* query = take(rows, c.num_attention_heads * c.head_dim);
        float* key = take(rows, c.num_key_value_heads * c.head_dim);
        return {query, key, take(rows, c.num_key_value_heads * c.head_dim)};
    }

    typename B::buffer buffer_{};
    float* base_ = nullptr;
    std::size_t used_ = 0;
    std::vector<layer_activations> layers_;
    gradient_scratch gradient_;
    float *output_ = nullptr, *normed_ = nullptr, *scratch_ = nullptr;
    float *mean_ = nullptr, *rstd_ = nullptr, *logits_ = nullptr;
};

}  // namespace thinwire::nn

#endif  // THINWIRE_NN_WORKSPACE_HPP
