// What a device trains: tokens per second of forward and backward pass and the share of its peak that these are, for
// models of the shapes of GPT-2 (124 M) and Llama 3.2 (1.2 B); and the time of an optimizer step: what the device does in
// it, beside a copy of the memory that it has to move, the whole as the host sees it, and both behind a backward pass,
// beside which the host makes its digest. pytorch_gpu.py times the same models in PyTorch; tools/gpu_check.sh builds and runs both.
// usage: benchmark_gpu [steps [124M|1B|tiny ...]]
//
// Work of a token, forward and backward: 6 for each weight of a matrix product (the output layer is one, the look-up is
// none), and 6 x layers x tokens_per_row x heads x head_dim for causal attention. Recomputed work is not counted.

#include <thinwire/backend/cuda/backend.cuh>
#include <thinwire/backend/cuda/demo.cuh>
#include <thinwire/core/random.hpp>
#include <thinwire/core/thread_pool.hpp>
#include <thinwire/nn/transformer.hpp>
#include <thinwire/optim/demo_cut.hpp>

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
    if (has("GB200") || has("H100 NVL") || has("H200 NVL")) return {.name = name};  // others of that name
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

/// The same between two events of the stream, so that what the host does meanwhile does not count.
template <class Work>
std::vector<double> device_seconds_of(cuda::stream& stream, int repetitions, const Work& work) {
#if defined(THINWIRE_CUDA_EMULATE)
    return seconds_of(stream, repetitions, work);
#else
    struct timed_event {
        cudaEvent_t handle = nullptr;
        timed_event() { cuda::detail::require(cudaEventCreate(&handle), "cudaEventCreate"); }
        timed_event(const timed_event&) = delete;
        timed_event& operator=(const timed_event&) = delete;
        ~timed_event() { cudaEventDestroy(handle); }
        void record(cuda::stream& s) { cuda::detail::require(cudaEventRecord(handle, s.handle()), "cudaEventRecord"); }
    } begin, end;
    std::vector<double> all;
    for (int i = -2; i < repetitions; ++i) {
        stream.synchronize();
        begin.record(stream);
        work();
        end.record(stream);
        stream.synchronize();
        float milliseconds = 0.0F;
        cuda::detail::require(cudaEventElapsedTime(&milliseconds, begin.handle, end.handle), "cudaEventElapsedTime");
        if (i >= 0) all.push_back(static_cast<double>(milliseconds) * 1e-3);
    }
    std::sort(all.begin(), all.end());
    return all;
#endif
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

/// A batch of random tokens.
struct token_batch {
    std::vector<std::int32_t> input, targets;
    int rows, length;

    explicit token_batch(const workload& w) : rows(w.batch), length(w.tokens_per_row) {
        random_stream random(2);
        for (auto* ids : {&input, &targets})
            for (int i = 0; i < rows * length; ++i)
                ids->push_back(
                    static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(w.config.vocab_size))));
    }
    template <class Model>
    float train(Model& model) const {
        model.zero_gradient();
        return model.loss_and_gradient(input, targets, rows, length);
    }
};

void train(const workload& w, cuda::matmul_precision precision, int steps, const device_peak& peak) {
    cuda::stream stream;
    cuda::backend backend(stream, precision);
    nn::transformer model(backend, w.config);
    model.initialize(1);
    const token_batch batch(w);
    const int tokens = w.batch * w.tokens_per_row;
    float loss = 0;
    const double seconds = median(seconds_of(stream, steps, [&] { loss = batch.train(model); }));
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

/// Seconds of the parts of an optimizer step of one peer.
struct optimizer_times {
    double choose = 0, apply = 0;  ///< on the device, from the first kernel to the last copy
    double digest = 0;             ///< on the host: of a 16th of the weights
    double step = 0;               ///< begin_step() and end_step(), as the host sees them
    double training = 0;           ///< the same behind forward and backward pass
};

void one_round(cuda::demo& optimizer) {
    const auto payload = optimizer.begin_step(0);
    const contribution own = {.peer = 0, .payload = payload};
    const commit agreed = {.round = optimizer.round(), .contributions = {&own, 1}};
    optimizer.end_step({&agreed, 1});
}

/// The kernels and copies that begin_step() and end_step() give, without what the host does between them.
void time_device(optimizer_times& times, std::span<const parameter> parameters, const demo_options& options,
                 cuda::stream& stream, int steps) {
    const std::vector<cuda::parameter> tensors = cuda::detail::on_device(parameters, stream.device());
    const std::vector<parameter> shapes = cuda::detail::shapes_of(tensors);
    const detail::chunk_plan plan(shapes, options);
    cuda::detail::device_chooser chooser(cut_into_shards(shapes, options, 1)[0], tensors, plan, options, stream);
    chooser.prepare_measures(0, chooser.pieces().size());
    times.choose = median(device_seconds_of(stream, steps, [&] {
        chooser.measure();
        chooser.decide(detail::gradient_gain(options), options.clip_norm);
        chooser.choose(options.momentum_decay, options.alpha, ~std::uint32_t{0});
    }));
    cuda::detail::device_updater updater(tensors, plan, stream);
    cuda::detail::staged_content received(plan.layout(), 1);
    cuda::detail::staged_content& chosen = chooser.staged();
    std::ranges::copy(chosen.positions(), received.positions().begin());
    std::ranges::copy(chosen.values(), received.values().begin());
    std::ranges::copy(chosen.counts(), received.counts().begin());
    const payload_info info = {.learning_rate = options.learning_rate, .weight_decay = options.weight_decay};
    times.apply = median(device_seconds_of(stream, steps, [&] {
        updater.wait();
        updater.update(info, received, 1, {});
    }));
}

void optimize(const workload& w, int steps) {
    cuda::stream stream;
    cuda::backend backend(stream, cuda::matmul_precision::bf16);
    nn::transformer model(backend, w.config);
    model.initialize(1);
    std::vector<float> gradient;
    random_stream random(3);
    for (const parameter& p : model.parameters()) {
        gradient.resize(p.gradient.size());
        for (float& g : gradient) g = 0.01F * random.normal();
        backend.upload(p.gradient.data(), gradient);
    }
    const demo_options options = {.learning_rate = 1e-4F, .k = 8};
    const auto weights = static_cast<double>(model.plan().parameter_count());
    const token_batch batch(w);
    optimizer_times times;
    time_device(times, model.parameters(), options, stream, steps);
    {
        thread_pool pool;
        cuda::demo optimizer(model.parameters(), options, stream, &pool);
        times.step = median(seconds_of(stream, steps, [&] { one_round(optimizer); }));
        times.training = median(seconds_of(stream, steps, [&] {
            batch.train(model);
            one_round(optimizer);
        }));
    }
    const std::vector<float> share(static_cast<std::size_t>(weights) / detail::digest_shares, 1.0F);
    times.digest = median(seconds_of(stream, steps, [&] {
        sha256 sum;
        detail::digest_floats(sum, share);
        static_cast<void>(sum.finish());
    }));
    const double copied = copy_speed(stream, backend, std::min<std::size_t>(model.plan().arena_size(), 1U << 28U));
    const double chosen = 12.0 * weights / times.choose;  // gradient, momentum twice
    const double applied = 8.0 * weights / times.apply;   // weights twice
    const double device = 20.0 * weights / (times.choose + times.apply);
    std::printf("%-5s optimizer, k = 8, on the device: choose %.3f ms, 12 bytes a weight at %.0f GB/s; apply %.3f ms, 8 at "
                "%.0f GB/s; both at %.0f GB/s, a copy at %.0f GB/s\n%-5s optimizer step of one peer: %.3f ms, of which the "
                "host's digest %.3f ms; %.3f ms with forward and backward pass\n{\"benchmark\":\"gpu_optimizer\","
                "\"shape\":\"%s\",\"choose_ms\":%.3f,\"apply_ms\":%.3f,\"digest_ms\":%.3f,\"ms\":%.3f,"
                "\"training_ms\":%.3f,\"gb_per_s\":%.1f,\"copy_gb_per_s\":%.1f}\n",
                w.name.c_str(), times.choose * 1e3, chosen * 1e-9, times.apply * 1e3, applied * 1e-9, device * 1e-9,
                copied * 1e-9, w.name.c_str(), times.step * 1e3, times.digest * 1e3, times.training * 1e3,
                w.name.c_str(), times.choose * 1e3, times.apply * 1e3, times.digest * 1e3, times.step * 1e3,
                times.training * 1e3, device * 1e-9, copied * 1e-9);
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
