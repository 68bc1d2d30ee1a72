#include <thinwire/backend/cpu/reference.hpp>
#include <thinwire/backend/cuda/backend.cuh>
#include <thinwire/nn/decoder.hpp>
#include <thinwire/nn/transformer.hpp>
#include <thinwire/optim/demo.hpp>

#include "peer.hpp"
#include <doctest/doctest.h>
#include <support/backend_checks.hpp>
#include <support/models.hpp>
#include <support/optim_peer.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

using namespace thinwire;
using cuda::matmul_precision;
using host_model = nn::transformer<cpu::reference>;
using device_model = nn::transformer<cuda::backend>;

namespace {

struct token_batch {
    int rows = 2, length = 7;
    std::vector<std::int32_t> tokens, targets;

    token_batch(const nn::transformer_config& c, std::uint64_t seed) {
        random_stream random(seed);
        const auto vocabulary = static_cast<std::uint64_t>(c.vocab_size);
        for (int i = 0; i < rows * length; ++i) {
            tokens.push_back(static_cast<std::int32_t>(random.below(vocabulary)));
            targets.push_back(i % 5 == 2 ? -100 : static_cast<std::int32_t>(random.below(vocabulary)));
        }
    }
};

template <class Model>
float loss_of(Model& model, const token_batch& b) {
    model.zero_gradient();
    return model.loss_and_gradient(b.tokens, b.targets, b.rows, b.length);
}

std::vector<float> fetch(cuda::backend& backend, std::span<const float> device) {
    std::vector<float> host(device.size());
    backend.download(host, device.data());
    return host;
}

/// The same weights in both, away from ones and zeros.
void start(host_model& host, device_model& device, cuda::backend& backend) {
    host.initialize(1);
    for (std::size_t i = 0; i < host.parameters().size(); ++i) {
        const parameter& p = host.parameters()[i];
        random_stream random(17, i);
        for (float& x : p.values) x += 0.1F * random.normal();
        backend.upload(device.parameters()[i].values.data(), p.values);
    }
}

/// The largest difference of a gradient, over the largest entry of all gradients of the model: rounding passes from
/// tensor to tensor, so a tensor of small gradients has no less of it.
double compare_step(const test::small_model& small, matmul_precision precision) {
    CAPTURE(small.name);
    cpu::reference reference;
    host_model host(reference, small.config);
    cuda::stream stream;
    cuda::backend backend(stream, precision);
    device_model device(backend, small.config);
    start(host, device, backend);
    const token_batch b(small.config, 3);
    const float expected = loss_of(host, b), found = loss_of(device, b);
    double worst = std::abs(static_cast<double>(found) - static_cast<double>(expected));
    float largest = 0.0F;
    for (const parameter& p : host.parameters())
        for (const float g : p.gradient) largest = std::max(largest, std::abs(g));
    for (std::size_t i = 0; i < host.parameters().size(); ++i) {
        const parameter& p = host.parameters()[i];
        worst = std::max(worst, test::relative_difference(fetch(backend, device.parameters()[i].gradient),
                                                          std::vector<float>(p.gradient.begin(), p.gradient.end()),
                                                          static_cast<double>(largest)));
    }
    const float without_gradient = device.loss(b.tokens, b.targets, b.rows, b.length);
    if (cuda::is_emulated) CHECK(without_gradient == found);
    CHECK(without_gradient == doctest::Approx(found).epsilon(0.001));
    std::vector<std::vector<float>> kept;
    for (const parameter& p : device.parameters()) kept.push_back(fetch(backend, p.gradient));
    device.recompute_activations(true);
    const float again = loss_of(device, b);
    // cuBLASLt may take another algorithm for memory that begins at other multiples
    const double most = cuda::is_emulated ? 0.0 : precision == matmul_precision::f32 ? 1e-5 : 0.02;
    CHECK(std::abs(static_cast<double>(again) - static_cast<double>(found)) <= most);
    for (std::size_t i = 0; i < kept.size(); ++i)
        CHECK(test::relative_difference(fetch(backend, device.parameters()[i].gradient), kept[i],
                                        static_cast<double>(largest)) <= most);
    return worst;
}

}  // namespace

TEST_CASE("cuda::backend: a step of every family has the loss and the gradients of the plain definition") {
    for (const test::small_model& small : test::small_models()) {
        CAPTURE(small.name);
        CHECK(compare_step(small, matmul_precision::f32) < 1e-5);
        const double narrow = compare_step(small, matmul_precision::bf16);
        CHECK(narrow < 0.05);
        CHECK(narrow > 1e-4);
        CHECK(compare_step(small, matmul_precision::tf32) < 0.01);
    }
}

TEST_CASE("cuda::backend: logits, and what a decoder continues with, are those of the plain definition") {
    for (const test::small_model& small : test::small_models()) {
        CAPTURE(small.name);
        cpu::reference reference;
        host_model host(reference, small.config);
        cuda::stream stream;
        cuda::backend backend(stream, matmul_precision::f32);
        device_model device(backend, small.config);
        start(host, device, backend);
        const token_batch b(small.config, 5);
        std::vector<float> expected(b.tokens.size() * static_cast<std::size_t>(small.config.vocab_size));
        std::vector<float> found(expected.size());
        host.logits(b.tokens, b.rows, b.length, expected);
        device.logits(b.tokens, b.rows, b.length, found);
        CHECK(test::relative_difference(found, expected) < 1e-5);
        nn::decoder<cpu::reference> host_decoder(host, 8);
        nn::decoder<cuda::backend> device_decoder(device, 8);
        for (const std::size_t from : {std::size_t{0}, std::size_t{3}, std::size_t{4}}) {
            const auto more = std::span(b.tokens).subspan(from, from == 0 ? 3 : 1);
            const auto next = host_decoder.extend(more), same = device_decoder.extend(more);
            CHECK(test::relative_difference(std::vector<float>(same.begin(), same.end()),
                                            std::vector<float>(next.begin(), next.end())) < 1e-5);
        }
    }
}

TEST_CASE("cuda::demo trains a model where its back end keeps it, bit-equal with a host in one run") {
    demo_options options = {.learning_rate = 0.02F, .momentum_decay = 0.9F, .k = 12};
    options.chunk = 16;
    for (const test::small_model& small : test::small_models()) {
        CAPTURE(small.name);
        cpu::reference reference;
        host_model host(reference, small.config);
        cuda::stream stream;
        cuda::backend backend(stream, matmul_precision::bf16);
        device_model device(backend, small.config);
        start(host, device, backend);
        demo on_host(host.parameters(), options);
        cuda::demo on_device(device.parameters(), options, stream);
        REQUIRE(on_device.replica_digest() == on_host.replica_digest());
        const token_batch mine(small.config, 7), yours(small.config, 8);
        std::vector<float> losses;
        for (std::uint64_t round = 0; round < 6; ++round) {
            losses.push_back(loss_of(host, mine) + loss_of(device, yours));
            const auto a = on_host.begin_step(0), b = on_device.begin_step(1);
            const std::vector<contribution> list = {{.peer = 0, .payload = a}, {.peer = 1, .payload = b}};
            const step_report of_host = test::finish(on_host, round, list),
                              of_device = test::finish(on_device, round, list);
            CHECK(of_host.contributors == 2);
            CHECK(of_device.contributors == 2);
            CHECK(of_device.agreeing == 2);
            CHECK(on_device.replica_digest() == on_host.replica_digest());
        }
        CHECK(losses.back() < losses.front());
        for (std::size_t i = 0; i < host.parameters().size(); ++i) {
            const parameter& p = host.parameters()[i];
            CHECK(fetch(backend, device.parameters()[i].values) ==
                  std::vector<float>(p.values.begin(), p.values.end()));
        }
    }
}

#if defined(THINWIRE_CUDA_EMULATE)
TEST_CASE("cuda::backend: a step of a size seen before waits once and allocates nothing, also after a larger one") {
    for (const test::small_model& small : test::small_models()) {
        CAPTURE(small.name);
        cuda::stream stream;
        cuda::backend backend(stream, matmul_precision::bf16);
        device_model model(backend, small.config);
        model.initialize(1);
        const token_batch b(small.config, 9);
        const auto step = [&](std::size_t rows) {
            const std::size_t tokens = rows * static_cast<std::size_t>(b.length);
            model.zero_gradient();
            return model.loss_and_gradient(std::span(b.tokens).first(tokens), std::span(b.targets).first(tokens),
                                           static_cast<int>(rows), b.length);
        };
        const float small_loss = step(1), large_loss = step(2);
        const std::uint64_t before = cuda::detail::emulated_memory::get().allocations(), waits = stream.waits();
        CHECK(step(2) == large_loss);
        CHECK(step(1) == small_loss);
        CHECK(step(2) == large_loss);
        CHECK(cuda::detail::emulated_memory::get().allocations() == before);
        CHECK(stream.waits() == waits + 3);
    }
}
#endif
