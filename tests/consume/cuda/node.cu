#include <thinwire/backend/cuda/backend.cuh>
#include <thinwire/backend/cuda/demo.cuh>
#include <thinwire/nccl/communicator.cuh>
#include <thinwire/nn/transformer.hpp>

#include <cstdio>
#include <memory>
#include <string_view>
#include <vector>

using namespace thinwire;

namespace {

/// What one device has of the peer.
struct replica {
    cuda::stream stream;
    cuda::backend backend{stream, cuda::matmul_precision::bf16};
    nn::transformer<cuda::backend> model{backend,
                                         {.vocab_size = 256,
                                          .hidden_size = 64,
                                          .intermediate_size = 128,
                                          .num_hidden_layers = 2,
                                          .num_attention_heads = 2,
                                          .num_key_value_heads = 1,
                                          .head_dim = 32,
                                          .max_position_embeddings = 64}};
};

/// All devices of the machine as one peer, one step of training.
bool train(int devices) {
    std::vector<std::unique_ptr<replica>> replicas;
    std::vector<cuda::stream*> streams;
    std::vector<std::vector<parameter>> parameters;
    for (int d = 0; d < devices; ++d) {
        const cuda::device_scope here(d);
        replica& r = *replicas.emplace_back(std::make_unique<replica>());
        r.model.initialize(1);
        streams.push_back(&r.stream);
        parameters.emplace_back(r.model.parameters().begin(), r.model.parameters().end());
    }
    nccl::communicator node(streams);
    cuda::demo optimizer(parameters, {.learning_rate = 0.01F}, node);
    const std::vector<std::int32_t> tokens(64, 7), targets(64, 9);
    for (int d = 0; d < devices; ++d) {
        const cuda::device_scope here(d);
        replicas[static_cast<std::size_t>(d)]->model.zero_gradient();
        std::printf("device %d: loss %.3f\n", d,
                    static_cast<double>(
                        replicas[static_cast<std::size_t>(d)]->model.loss_and_gradient(tokens, targets, 1, 64)));
    }
    const auto payload = optimizer.begin_step(0);
    const contribution own = {.peer = 0, .payload = payload};
    const commit agreed = {.round = 0, .contributions = {&own, 1}};
    optimizer.end_step({&agreed, 1});
    for (std::size_t d = 1; d < replicas.size(); ++d)
        if (optimizer.replica_digest(d) != optimizer.replica_digest()) return false;
    return true;
}

}  // namespace

int main() {
    int devices = 0, version = 0;
    const bool has_device = cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0;
    if (ncclGetVersion(&version) != ncclSuccess) return 1;
    std::printf("NCCL %d, headers of %d, %d devices\n", version, NCCL_VERSION_CODE, has_device ? devices : 0);
    try {
        return train(has_device ? devices : 1) && has_device ? 0 : 1;
    } catch (const cuda::device_error& e) {
        std::printf("%s\n", e.what());
        return !has_device && std::string_view(e.what()).find("cuda") == 0 ? 0 : 1;
    }
}
