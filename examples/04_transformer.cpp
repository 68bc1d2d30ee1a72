// Two peers train one small transformer on a text, each on its own parts of it, and exchange two kilobytes a step
// instead of all gradients. Then the first of them writes a line.
//
// usage: example_04_transformer [TEXT_FILE]

#include <thinwire/backend/cpu/fast.hpp>
#include <thinwire/comm/loopback.hpp>
#include <thinwire/core/random.hpp>
#include <thinwire/core/thread_pool.hpp>
#include <thinwire/nn/sampling.hpp>
#include <thinwire/nn/transformer.hpp>
#include <thinwire/optim/demo.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr int steps = 200;
constexpr int batch = 4;
constexpr int length = 32;

const thinwire::nn::transformer_config shape{.vocab_size = 256,
                                             .hidden_size = 64,
                                             .intermediate_size = 160,
                                             .num_hidden_layers = 2,
                                             .num_attention_heads = 4,
                                             .num_key_value_heads = 2,
                                             .head_dim = 16,
                                             .max_position_embeddings = 128};

void train(const std::string& text, thinwire::loopback_group::member& transport) {
    thinwire::thread_pool pool(1);
    thinwire::cpu::fast backend(pool);
    thinwire::nn::transformer model(backend, shape);
    model.initialize(1);  // the same seed everywhere: replicas begin equal, and stay so
    thinwire::demo optimizer(model.parameters(), {.learning_rate = 2e-3F, .k = 8});
    thinwire::random_stream where(2, transport.self());

    for (int step = 0; step < steps; ++step) {
        std::vector<std::int32_t> tokens, targets;
        for (int row = 0; row < batch; ++row) {
            const std::size_t begin = where.below(text.size() - length);
            for (std::size_t t = begin; t < begin + length; ++t) {
                tokens.push_back(static_cast<unsigned char>(text[t]));
                targets.push_back(static_cast<unsigned char>(text[t + 1]));
            }
        }
        model.zero_gradient();
        const float loss = model.loss_and_gradient(tokens, targets, batch, length);
        const thinwire::step_report report = optimizer.step(transport);
        if (transport.self() == 0 && (step % 50 == 0 || step == steps - 1))
            std::printf("step %3d  loss %.3f  sent %zu bytes of %zu\n", step, static_cast<double>(loss),
                        report.bytes_sent, model.plan().parameter_count() * sizeof(float));
    }
    if (transport.self() != 0) return;
    std::string line = text.substr(0, 8);
    std::vector<std::int32_t> prompt;
    for (const char c : line) prompt.push_back(static_cast<unsigned char>(c));
    for (const std::int32_t byte : thinwire::nn::generate(model, prompt, 80, {.temperature = 0.5F}))
        line += static_cast<char>(byte);
    std::printf("%s\n", line.c_str());
}

}  // namespace

int main(int count, char** arguments) {
    std::string text;
    if (count > 1) {
        std::ifstream file(arguments[1], std::ios::binary);
        text.assign(std::istreambuf_iterator<char>(file), {});
    } else {
        for (int i = 0; i < 50; ++i) text += "The sum of the parts is what each part sends to the others. ";
    }
    if (text.size() <= length + 1) {
        std::fprintf(stderr, "the text has %zu bytes, expected more than %d\n", text.size(), length + 1);
        return 1;
    }
    thinwire::loopback_group group(2);
    std::thread other([&] { train(text, group[1]); });
    train(text, group[0]);
    other.join();
}
