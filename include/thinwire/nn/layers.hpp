#ifndef THINWIRE_NN_LAYERS_HPP
#define THINWIRE_NN_LAYERS_HPP

#include <thinwire/nn/backend.hpp>
#include <thinwire/nn/plan.hpp>

#include <cstddef>

namespace thinwire::nn {

/// A back end with the weights and gradients of one model: what the layers below compute with. Backward functions
/// add to the gradients of the weights. Nothing is owned.
template <backend B>
struct layer_context {
    B& backend;
    const transformer_config& config;
    const model_plan& plan;
    float* values;
    float* gradients;

    [[nodiscard]] const float* value(int tensor) const {
        return values + plan.tensors()[static_cast<std::size_t>(tensor)].offset;
    }
    [[nodiscard]] float* gradient(int tensor) const {
        return gradients + plan.tensors()[static_cast<std::size_t>(tensor)].offset;
    }
};

/// y[rows, outputs] = x[rows, inputs] W + bias.
template <backend B>
void linear_forward(const layer_context<B>& c, const linear_plan& l, float* y, const float* x, int rows) {
    c.backend.matmul(y, x, c.value(l.weight), rows, l.outputs, l.inputs, false, !l.inputs_first, false);
    if (l.bias != no_tensor) c.backend.add_bias(y, c.value(l.bias), rows, l.outputs);
}

/// dx = (or += when accumulate) dy W^T.
template <backend B>
void linear_backward(const layer_context<B>& c, const linear_plan& l, float* dx, const float* dy, const float* x,
                     int rows, bool accumulate) {
    if (l.inputs_first)
        c.backend.matmul(c.gradient(l.weight), x, dy, l.inputs, l.outputs, rows, true, false, true);
    else
        c.backend.matmul(c.gradient(l.weight), dy, x, l.outputs, l.inputs, rows, true, false, true);
    if (l.bias != no_tensor) c.backend.bias_backward(c.gradient(l.bias), dy, rows, l.outputs);
    c.backend.matmul(dx, dy, c.value(l.weight), rows, l.inputs, l.outputs, false, l.inputs_first, accumulate);
}

/// Whether `n` is a LayerNorm is told by its bias. `mean` is used by LayerNorm only; both have `rows` entries.
template <backend B>
void norm_forward(const layer_context<B>& c, const norm_plan& n, float* y, float* mean, float* rstd, const float* x,
                  int rows) {
    if (n.bias == no_tensor)
        c.backend.rms_norm(y, rstd, x, c.value(n.weight), rows, n.width, c.config.norm_eps);
    else
        c.backend.layer_norm(y, mean, rstd, x, c.value(n.weight), c.value(n.bias), rows, n.width, c.config.norm_eps);
}

/// Writes dx, which may be dy for an RMS norm only.
template <backend B>
void norm_backward(const layer_context<B>& c, const norm_plan& n, float* dx, const float* dy, const float* x,
                   const float* mean, const float* rstd, int rows) {
    if (n.bias == no_tensor)
        c.backend.rms_norm_backward(dx, c.gradient(n.weight), dy, x, c.value(n.weight), rstd, rows, n.width);
    else
        c.backend.layer_norm_backward(dx, c.gradient(n.weight), c.gradient(n.bias), dy, x, c.value(n.weight), mean,
                                      rstd, rows, n.width);
}

}  // namespace thinwire::nn

#endif  // THINWIRE_NN_LAYERS_HPP
