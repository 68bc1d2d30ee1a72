#include <thinwire/backend/cuda/backend.cuh>
#include <thinwire/backend/cuda/demo.cuh>
#include <thinwire/nn/transformer.hpp>

#include <cstdio>
#include <string_view>

using namespace thinwire;

namespace {

/// One model on the device, one step of training.
float train() {
    cuda::stream stream;
    cuda::backend backend(stream, cuda::matmul_precision::bf16);
    nn::transformer model(backend, {.vocab_size = 256,
                                    .hidden_size = 64,
                                    .intermediate_size = 128,
                                    .num_hidden_layers = 2,
                                    .num_attention_heads = 2,
                                    .num_key_value_heads = 1,
                                    .head_dim = 32,
                                    .max_position_embeddings = 64});
    model.initialize(1);
    cuda::demo optimizer(model.parameters(), {.learning_rate = 0.01F}, stream);
    const std::vector<std::int32_t> tokens(64, 7), targets(64, 9);
    const float loss = model.loss_and_gradient(tokens, targets, 1, 64);
    const auto payload = optimizer.begin_step(0);
    const contribution own = {.peer = 0, .payload = payload};
    const commit agreed = {.round = 0, .contributions = {&own, 1}};
    optimizer.end_step({&agreed, 1});
    return loss;
}

}  // namespace

int main() {
    int devices = 0;
    const bool has_device = cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0;
    try {
        const float loss = train();
        std::printf("a step on the device, loss %.3f\n", static_cast<double>(loss));
        return has_device && loss > 0.0F ? 0 : 1;
    } catch (const cuda::device_error& e) {
        std::printf("%s\n", e.what());
        return !has_device && std::string_view(e.what()).find("cuda") == 0 ? 0 : 1;
    }
}
