// Tokens per second of the forward and backward pass (no optimizer step) of a 1.9 M parameter byte-level Llama: hidden
// 192, 4 layers, 4 heads, intermediate 512, vocabulary 256, 8 rows of 128 tokens, float32. pytorch_training.py times
// the same model in PyTorch.
// usage: benchmark_training [threads] [steps] [scalar|avx2|avx512]

#include <thinwire/backend/cpu/fast.hpp>
#include <thinwire/core/random.hpp>
#include <thinwire/nn/transformer.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <vector>

namespace {

using namespace thinwire;
using clock_type = std::chrono::steady_clock;

double seconds_since(clock_type::time_point start) {
    return std::chrono::duration<double>(clock_type::now() - start).count();
}

/// The fast back end with a clock on the operations that take the most.
class timed : public cpu::fast {
 public:
    using cpu::fast::fast;

    void matmul(float* c, const float* a, const float* b, int m, int n, int k, bool transpose_a, bool transpose_b,
                bool accumulate) {
        const auto start = clock_type::now();
        cpu::fast::matmul(c, a, b, m, n, k, transpose_a, transpose_b, accumulate);
        matmul_seconds += seconds_since(start);
        matmul_work += 2.0 * m * n * k;
    }
    void attention(float* o, float* lse, const float* q, const float* k, const float* v, nn::attention_shape s) {
        const auto start = clock_type::now();
        cpu::fast::attention(o, lse, q, k, v, s);
        attention_seconds += seconds_since(start);
    }
    void attention_backward(float* dq, float* dk, float* dv, const float* dout, const float* q, const float* k,
                            const float* v, const float* o, const float* lse, nn::attention_shape s) {
        const auto start = clock_type::now();
        cpu::fast::attention_backward(dq, dk, dv, dout, q, k, v, o, lse, s);
        attention_seconds += seconds_since(start);
    }

    double matmul_seconds = 0, matmul_work = 0, attention_seconds = 0;
};

constexpr int batch = 8, tokens_per_row = 128, tokens = batch * tokens_per_row;

constexpr nn::transformer_config model_config() {
    nn::transformer_config c;
    c.vocab_size = 256;
    c.hidden_size = 192;
    c.intermediate_size = 512;
    c.num_hidden_layers = 4;
    c.num_attention_heads = c.num_key_value_heads = 4;
    c.head_dim = 48;
    c.max_position_embeddings = tokens_per_row;
    return c;
}

isa level_named(std::string_view name) {
    for (const isa level : {isa::scalar, isa::avx2, isa::avx512})
        if (name == to_string(level)) return level;
    std::fprintf(stderr, "unknown instruction set; expected scalar, avx2 or avx512\n");
    std::exit(2);
}

}  // namespace

int main(int count, char** arguments) {
    const int threads = count > 1 ? std::atoi(arguments[1]) : 2;
    const int steps = count > 2 ? std::max(1, std::atoi(arguments[2])) : 60;
    const isa level = count > 3 ? level_named(arguments[3]) : best_isa();
    thread_pool pool(threads);
    timed backend(pool, level);
    nn::transformer model(backend, model_config());
    model.initialize(1);
    std::vector<std::int32_t> input(tokens), targets(tokens);
    random_stream random(2);
    for (std::int32_t& t : input) t = static_cast<std::int32_t>(random.below(256));
    for (std::int32_t& t : targets) t = static_cast<std::int32_t>(random.below(256));
    const auto step = [&] {
        model.zero_gradient();
        return model.loss_and_gradient(input, targets, batch, tokens_per_row);
    };
    for (int i = 0; i < 3; ++i) step();

    struct sample {
        double total, matmul, attention;
    };
    std::vector<sample> samples;
    float loss = 0;
    double work = 0;
    for (int i = 0; i < steps; ++i) {
        backend.matmul_seconds = backend.matmul_work = backend.attention_seconds = 0;
        const auto start = clock_type::now();
        loss = step();
        samples.push_back({seconds_since(start), backend.matmul_seconds, backend.attention_seconds});
        work = backend.matmul_work;
    }
    std::sort(samples.begin(), samples.end(), [](const sample& a, const sample& b) { return a.total < b.total; });
    std::size_t weights = 0;
    for (const parameter& p : model.parameters()) weights += p.values.size();
    std::printf("%s, %d threads, %zu parameters, loss %.4f\n", to_string(level).data(), threads, weights,
                static_cast<double>(loss));
    std::printf("          tokens/s   ms a step   products    attention   the rest   GF/s of the products\n");
    const auto print = [&](const char* name, const sample& s) {
        std::printf("%-7s %10.0f %11.2f %10.2f %12.2f %10.2f %10.1f\n", name, tokens / s.total, s.total * 1e3,
                    s.matmul * 1e3, s.attention * 1e3, (s.total - s.matmul - s.attention) * 1e3, work / s.matmul / 1e9);
    };
    const sample median = samples[samples.size() / 2], best = samples.front();
    print("median", median);
    print("best", best);
    std::printf(
        "{\"benchmark\":\"training\",\"what\":\"thinwire\",\"isa\":\"%s\",\"threads\":%d,"
        "\"median_tokens_per_s\":%.0f,\"best_tokens_per_s\":%.0f,\"median_ms\":%.3f,\"matmul_ms\":%.3f,"
        "\"attention_ms\":%.3f}\n",
        to_string(level).data(), threads, tokens / median.total, tokens / best.total, median.total * 1e3,
        median.matmul * 1e3, median.attention * 1e3);
}
