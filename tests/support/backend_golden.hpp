#ifndef THINWIRE_TESTS_SUPPORT_BACKEND_GOLDEN_HPP
#define THINWIRE_TESTS_SUPPORT_BACKEND_GOLDEN_HPP

#include <thinwire/hf/safetensors.hpp>

#include <support/backend_checks.hpp>
#include <support/golden.hpp>

namespace thinwire::test {

/// [batch, heads, tokens, head_dim], as PyTorch's attention takes it, to rows of tokens; or back.
[[nodiscard]] inline std::vector<float> swap_heads_and_tokens(const std::vector<float>& in, std::size_t batch,
                                                              std::size_t outer, std::size_t inner,
                                                              std::size_t head_dim) {
    std::vector<float> out(in.size());
    for (std::size_t b = 0; b < batch; ++b)
        for (std::size_t i = 0; i < outer; ++i)
            for (std::size_t j = 0; j < inner; ++j)
                for (std::size_t d = 0; d < head_dim; ++d)
                    out[((b * inner + j) * outer + i) * head_dim + d] =
                        in[((b * outer + i) * inner + j) * head_dim + d];
    return out;
}

/// One operation of nn/ops.safetensors: inputs, output, and the gradients that PyTorch computed.
class golden_operation {
 public:
    golden_operation(const hf::safetensors_file& file, std::string name) : file_(file), name_(std::move(name)) {}

    [[nodiscard]] std::vector<float> get(const std::string& what) const {
        return file_.floats(name_ + "." + what).value();
    }
    [[nodiscard]] int side(const std::string& what, std::size_t i) const {
        const hf::tensor_entry* entry = file_.find(name_ + "." + what);
        REQUIRE(entry != nullptr);
        REQUIRE(i < entry->sides.size());
        return static_cast<int>(entry->sides[i]);
    }

    /// Runs `op`, whose inputs are this operation's as they lie in the file.
    template <nn::backend B, class Op>
    void check(B& backend, const Op& op) const {
        CAPTURE(name_);
        arrays<float> in;
        while (file_.find(name_ + ".in." + std::to_string(in.size())) != nullptr)
            in.push_back(get("in." + std::to_string(in.size())));
        CHECK(relative_difference(op.forward(backend, in)[0], get("out")) < 1e-5);
        const arrays<float> gradient = op.backward(backend, in, get("dout"));
        REQUIRE(gradient.size() == in.size());
        for (std::size_t j = 0; j < in.size(); ++j)
            CHECK(relative_difference(gradient[j], get("din." + std::to_string(j))) < 1e-5);
    }

    /// The same for attention, whose layout differs.
    template <nn::backend B>
    void check_attention(B& backend) const {
        CAPTURE(name_);
        nn::attention_shape s{side("in.0", 0), side("in.0", 2), side("in.0", 1), side("in.1", 1), side("in.0", 3)};
        s.q_stride = s.o_stride = s.heads * s.head_dim;
        s.kv_stride = s.kv_heads * s.head_dim;
        const auto size = [](int n) { return static_cast<std::size_t>(n); };
        const auto rows = [&](const std::string& what, int heads) {
            return swap_heads_and_tokens(get(what), size(s.batch), size(heads), size(s.tokens), size(s.head_dim));
        };
        const attention_op op{s};
        const arrays<float> in = {rows("in.0", s.heads), rows("in.1", s.kv_heads), rows("in.2", s.kv_heads)};
        CHECK(relative_difference(op.forward(backend, in)[0], rows("out", s.heads)) < 1e-5);
        const arrays<float> gradient = op.backward(backend, in, rows("dout", s.heads));
        CHECK(relative_difference(gradient[0], rows("din.0", s.heads)) < 1e-5);
        CHECK(relative_difference(gradient[1], rows("din.1", s.kv_heads)) < 1e-5);
        CHECK(relative_difference(gradient[2], rows("din.2", s.kv_heads)) < 1e-5);
    }

 private:
    const hf::safetensors_file& file_;
    std::string name_;
};

/// y = x w^T + bias, as a layer computes it.
struct linear_bias_op {
    int rows, inputs, outputs;

    template <class B>
    [[nodiscard]] auto forward(B& backend, const arrays<float>& in) const {
        device_array<B> x(backend, in[0]), w(backend, in[1]), bias(backend, in[2]), y(backend, area(rows, outputs));
        backend.matmul(y, x, w, rows, outputs, inputs, false, true, false);
        backend.add_bias(y, bias, rows, outputs);
        return arrays<float>{y.fetch()};
    }
    template <class B>
    [[nodiscard]] auto backward(B& backend, const arrays<float>& in, const std::vector<float>& dout) const {
        const matmul_op product{rows, outputs, inputs, false, true, false};
        const add_bias_op sum{rows, outputs};
        const arrays<float> d = product.backward(backend, in, dout);
        return arrays<float>{d[0], d[1], sum.backward(backend, {dout, in[2]}, dout)[1]};
    }
};

/// softmax, had from the gradient of cross-entropy: softmax(x) minus one at the target.
struct softmax_op {
    int rows, columns;

    template <class B>
    [[nodiscard]] auto forward(B& backend, const arrays<float>& in) const {
        const std::vector<std::int32_t> targets(area(rows, 1), 0);
        device_array<B> logits(backend, in[0]);
        (void)backend.cross_entropy(logits, targets.data(), rows, columns, 1.0F);
        std::vector<float> p = logits.fetch();
        for (std::size_t i = 0; i < p.size(); i += area(1, columns)) p[i] += 1.0F;
        return arrays<float>{p};
    }
    template <class B>
    [[nodiscard]] auto backward(B& backend, const arrays<float>& in, const std::vector<float>& dout) const {
        std::vector<float> dx = forward(backend, in)[0];
        for (std::size_t row = 0; row < dx.size(); row += area(1, columns)) {
            double dot = 0;
            for (std::size_t i = row; i < row + area(1, columns); ++i)
                dot += static_cast<double>(dx[i]) * static_cast<double>(dout[i]);
            for (std::size_t i = row; i < row + area(1, columns); ++i) dx[i] *= dout[i] - static_cast<float>(dot);
        }
        return arrays<float>{dx};
    }
};

/// Every operation of nn/ops.safetensors, within the 1e-5 of its README.
template <nn::backend B>
void check_golden_operations(B& backend) {
    const auto file = hf::safetensors_file::load(golden_folder() / "nn" / "ops.safetensors").value();
    std::set<std::string> names;
    for (const auto& [key, entry] : file.tensors()) names.insert(key.substr(0, key.find('.')));
    REQUIRE(!names.empty());
    for (const std::string& name : names) {
        const golden_operation op(file, name);
        const int rows = op.side("in.0", 0);
        const int columns = op.side("in.0", 1);
        const auto n = area(rows, columns);
        if (name == "rms_norm") {
            op.check(backend, rms_norm_op{rows, columns, false});
        } else if (name == "layer_norm") {
            op.check(backend, layer_norm_op{rows, columns});
        } else if (name == "gelu" || name == "gelu_tanh") {
            op.check(backend, gelu_op{n, name == "gelu_tanh", false});
        } else if (name == "silu_mul") {
            op.check(backend, silu_mul_op{n});
        } else if (name == "softmax") {
            op.check(backend, softmax_op{rows, columns});
        } else if (name == "linear_bias") {
            op.check(backend, linear_bias_op{rows, columns, op.side("in.1", 0)});
        } else if (name.starts_with("attention")) {
            op.check_attention(backend);
        } else {
            FAIL("an operation that this test does not know: " << name);
        }
    }
}

}  // namespace thinwire::test

#endif  // THINWIRE_TESTS_SUPPORT_BACKEND_GOLDEN_HPP
