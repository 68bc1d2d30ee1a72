// What a device trains: tokens per second of forward and backward pass and the share of its peak that these are, for
// models of the shapes of GPT-2 (124 M) and Llama 3.2 (1.2 B); and the time of an optimizer step beside a copy of the memory
// that it has to move. pytorch_gpu.py times the same models in PyTorch; tools/gpu_check.sh builds and runs both.
// usage: benchmark_gpu [steps [124M|1B|tiny ...]]
//
// Work of a token, forward and backward: 6 for each weight of a matrix product (the output layer is one, the look-up is
// none), and 6 x layers x tokens_per_row x heads x head_dim for causal attention. Recomputed work is not counted.

#include <thinwire/backend/cuda/backend.cuh>
#include <thinwire/backend/cuda/demo.cuh>
#include <thinwire/core/random.hpp>
#include <thinwire/core/thread_pool.hpp>
#include <thinwire/nn/transformer.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace thinwire;
using clock_type = std::chrono::steady_clock;

struct workload {
    std::string name;
    nn::transformer_config config;
    int batch, tokens_per_row;
};

workload workload_named(std::string_view name) {
    nn::transformer_config c;
    if (name == "124M") {
        c.family = nn::model_family::gpt2;
        c.norm = nn::norm_kind::layer;
        c.position = nn::position_kind::learned;
        c.mlp = nn::mlp_kind::gelu_tanh;
        c.attention_bias = c.mlp_bias = c.tie_word_embeddings = true;
        c.vocab_size = 50257;
        c.hidden_size = 768;
        c.intermediate_size = 3072;
        c.num_hidden_layers = c.num_attention_heads = c.num_key_value_heads = 12;
        c.head_dim = 64;
        c.max_position_embeddings = 1024;
        return {"124M", c, 16, 1024};
    }
    c.tie_word_embeddings = true;
    if (name == "1B") {
        c.vocab_size = 128256;
        c.hidden_size = 2048;
        c.intermediate_size = 8192;
        c.num_hidden_layers = 16;
        c.num_attention_heads = 32;
        c.num_key_value_heads = 8;
        c.head_dim = 64;
        c.max_position_embeddings = 2048;
        c.rope_theta = 500000.0;
        return {"1B", c, 4, 2048};
    }
    if (name == "tiny") {  // to see that this program works
        c.vocab_size = 96;
        c.hidden_size = 32;
        c.intermediate_size = 64;
        c.num_hidden_layers = c.num_attention_heads = 2;
        c.num_key_value_heads = 1;
        c.head_dim = 16;
        c.max_position_embeddings = 32;
        return {"tiny", c, 2, 32};
    }
    std::fprintf(stderr, "benchmark_gpu: no shape '%s'; expected 124M, 1B or tiny\n", std::string(name).c_str());
    std::exit(2);
}

double work_of_token(const workload& w) {
    const nn::transformer_config& c = w.config;
    const nn::model_plan plan(c);
    double weights = 0;
    const auto count = [&](const nn::linear_plan& l) {
        if (l.weight != nn::no_tensor) weights += static_cast<double>(l.inputs) * l.outputs;
    };
    for (const nn::layer_plan& l : plan.layers())
        for (const nn::linear_plan* p : {&l.query, &l.key, &l.value, &l.output, &l.gate, &l.up, &l.down}) count(*p);
    count(plan.head());
    return 6.0 * weights +
           6.0 * c.num_hidden_layers * w.tokens_per_row * static_cast<double>(c.num_attention_heads * c.head_dim);
}

/// Dense peaks that NVIDIA states, in 10^12 operations a second; 0 where this program knows none.
struct device_peak {
    std::string name;
    double bf16 = 0, tf32 = 0, f32 = 0;
    [[nodiscard]] double of(cuda::matmul_precision p) const {
        return p == cuda::matmul_precision::bf16 ? bf16 : p == cuda::matmul_precision::tf32 ? tf32 : f32;
    }
};

device_peak device_here() {
#if defined(THINWIRE_CUDA_EMULATE)
    return {.name = "emulator, whose times say nothing"};
#else
    cudaDeviceProp properties{};
    cuda::detail::require(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
    const std::string name = properties.name;
    const auto has = [&](const char* part) { return name.find(part) != std::string::npos; };
    if (has("B200")) return {name, 2250, 1125, 75};
    if (has("H100 PCIe")) return {name, 756, 378, 51};
    if (has("H100") || has("H200") || has("H800")) return {name, 989, 494, 67};
    if (has("A100") || has("A800")) return {name, 312, 156, 19.5};
    return {.name = name};
#endif
}

/// Seconds of each repetition, sorted, after two that are not counted. Waits for the stream around each.
template <class Work>
std::vector<double> seconds_of(cuda::stream& stream, int repetitions, const Work& work) {
    std::vector<double> all;
    for (int i = -2; i < repetitions; ++i) {
        stream.synchronize();
        const auto start = clock_type::now();
        work();
        stream.synchronize();
        if (i >= 0) all.push_back(std::chrono::duration<double>(clock_type::now() - start).count());
    }
    std::sort(all.begin(), all.end());
    return all;
}

double median(const std::vector<double>& sorted) {
    return sorted[sorted.size() / 2];
}

/// Bytes a second that are read and written by a copy of as many floats.
double copy_speed(cuda::stream& stream, cuda::backend& backend, std::size_t floats) {
    const auto from = backend.allocate(floats), to = backend.allocate(floats);
    return 8.0 * static_cast<double>(floats) /
           median(seconds_of(stream, 5, [&] { backend.copy(to.data(), from.data(), floats); }));
}

void train(const workload& w, cuda::matmul_precision precision, int steps, const device_peak& peak) {
    cuda::stream stream;
    cuda::backend backend(stream, precision);
    nn::transformer model(backend, w.config);
    model.initialize(1);
    const int tokens = w.batch * w.tokens_per_row;
    std::vector<std::int32_t> input(static_cast<std::size_t>(tokens)), targets(input.size());
    random_stream random(2);
    for (auto* ids : {&input, &targets})
        for (std::int32_t& id : *ids)
            id = static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(w.config.vocab_size)));
    float loss = 0;
    const double seconds = median(seconds_of(stream, steps, [&] {
        model.zero_gradient();
        loss = model.loss_and_gradient(input, targets, w.batch, w.tokens_per_row);
    }));
    const double rate = work_of_token(w) * tokens / seconds * 1e-12;
    const double share = peak.of(precision) > 0 ? rate / peak.of(precision) : 0.0;
    std::printf("%-5s %-5s %5d tokens a step: %10.0f tokens/s, %9.3f ms, %8.2f TFLOP/s", w.name.c_str(),
                to_string(precision).data(), tokens, tokens / seconds, seconds * 1e3, rate);
    if (share > 0) std::printf(", %.1f %% of the device's peak", share * 100);
    std::printf(", loss %.3f\n{\"benchmark\":\"gpu_training\",\"what\":\"thinwire\",\"shape\":\"%s\",\"precision\":\"%s\","
                "\"tokens_per_s\":%.0f,\"ms\":%.3f,\"tflops\":%.3f,\"share_of_peak\":%.4f}\n",
                static_cast<double>(loss), w.name.c_str(), to_string(precision).data(), tokens / seconds, seconds * 1e3,
                rate, share);
}

void optimize(const workload& w, int steps) {
    cuda::stream stream;
    cuda::backend backend(stream, cuda::matmul_precision::bf16);
    nn::transformer model(backend, w.config);
    model.initialize(1);
    thread_pool pool;
    cuda::demo optimizer(model.parameters(), {.learning_rate = 1e-4F, .k = 8}, stream, &pool);
    std::vector<float> gradient;
    random_stream random(3);
    for (const parameter& p : model.parameters()) {
        gradient.resize(p.gradient.size());
        for (float& g : gradient) g = 0.01F * random.normal();
        backend.upload(p.gradient.data(), gradient);
    }
    const double seconds = median(seconds_of(stream, steps, [&] {
        const auto payload = optimizer.begin_step(0);
        const contribution own = {.peer = 0, .payload = payload};
        const commit agreed = {.round = optimizer.round(), .contributions = {&own, 1}};
        optimizer.end_step({&agreed, 1});
    }));
    const auto weights = static_cast<double>(model.plan().parameter_count());
    const double copied = copy_speed(stream, backend, std::min<std::size_t>(model.plan().arena_size(), 1U << 28U));
    const double moved = 20.0 * weights / seconds;  // gradient, momentum twice, weights twice
    std::printf("%-5s optimizer step of one peer, k = 8: %9.3f ms, %.0f Mparam/s, 20 bytes a weight at %.0f GB/s, a copy "
                "at %.0f GB/s\n{\"benchmark\":\"gpu_optimizer\",\"shape\":\"%s\",\"ms\":%.3f,\"gb_per_s\":%.1f,"
                "\"copy_gb_per_s\":%.1f}\n",
                w.name.c_str(), seconds * 1e3, weights / seconds * 1e-6, moved * 1e-9, copied * 1e-9, w.name.c_str(),
                seconds * 1e3, moved * 1e-9, copied * 1e-9);
}

}  // namespace

int main(int count, char** arguments) {
    const int steps = count > 1 ? std::atoi(arguments[1]) : 20;
    if (steps < 1) {
        std::fprintf(stderr, "benchmark_gpu: %s steps, expected at least 1\nusage: benchmark_gpu [steps [124M|1B|tiny ...]]\n",
                     arguments[1]);
        return 2;
    }
    std::vector<workload> workloads;
    for (int i = 2; i < count; ++i) workloads.push_back(workload_named(arguments[i]));
    if (workloads.empty()) workloads = {workload_named("124M"), workload_named("1B")};
    try {
        const device_peak peak = device_here();
        std::printf("%s\n", peak.name.c_str());
        for (const workload& w : workloads) {
            for (const auto precision : {cuda::matmul_precision::bf16, cuda::matmul_precision::tf32})
                train(w, precision, steps, peak);
            optimize(w, steps);
        }
    } catch (const std::exception& e) {
        std::fprintf(stderr, "benchmark_gpu: %s\n", e.what());
        return 1;
    }
}
