// Million parameters a second of each part of a DeMo round, beside one pass over the same memory.

#include <thinwire/core/random.hpp>
#include <thinwire/optim/demo.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

using namespace thinwire;

namespace {

constexpr std::int64_t rows = 1024, cols = 2048;
constexpr int repeats = 8;

template <class Work>
double best_seconds(const Work& work) {
    double best = 1e9;
    for (int i = 0; i < repeats; ++i) {
        const auto start = std::chrono::steady_clock::now();
        work();
        best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    return best;
}

struct peer {
    std::vector<float> values, gradient;
    std::unique_ptr<demo> optimizer;

    peer(std::uint64_t seed, isa level) : values(rows * cols, 0.5F), gradient(rows * cols) {
        random_stream random(seed);
        for (float& g : gradient) g = random.normal();
        const std::vector<parameter> model = {
            {.name = "w", .shape = {rows, cols}, .values = values, .gradient = gradient}};
        optimizer = std::make_unique<demo>(model, demo_options{.k = 32, .level = level});
    }
};

void row(const std::string& name, double seconds, double pass) {
    std::printf("%-28s %8.0f Mparam/s   %5.1f memory passes\n", name.c_str(), rows * cols / seconds / 1e6,
                seconds / pass);
}

}  // namespace

int main() {
    std::vector<float> from(rows * cols, 1.0F), to(rows * cols);
    const double pass = best_seconds([&] { std::memcpy(to.data(), from.data(), from.size() * sizeof(float)); });
    std::printf("%lld parameters, chunk 64, k 32, f32 values, one thread\n", static_cast<long long>(rows * cols));
    row("memory pass (copy)", pass, pass);
    for (const isa level : {isa::scalar, isa::avx2, isa::avx512}) {
        if (level > best_isa()) continue;
        const std::string name(to_string(level));
        peer own(1, level);
        row(name + " begin_step", best_seconds([&] {
                static_cast<void>(own.optimizer->begin_step(0));
                own.optimizer->set_round(own.optimizer->round() + 1);  // settles the payload; the weights stay
            }),
            pass);
        for (const std::size_t peers : {1U, 4U, 8U}) {
            peer receiver(0, level);
            std::vector<std::vector<std::byte>> payloads;
            std::vector<contribution> list;
            for (peer_id p = 0; p < peers; ++p) {
                peer sender(p + 1, level);
                const auto payload = sender.optimizer->begin_step(p);
                payloads.emplace_back(payload.begin(), payload.end());
            }
            for (peer_id p = 0; p < peers; ++p) list.push_back({.peer = p, .payload = payloads[p]});
            row(name + " decode+apply R=" + std::to_string(peers), best_seconds([&] {
                    receiver.optimizer->set_round(0);
                    receiver.optimizer->apply({.round = 0, .contributions = list});
                }),
                pass);
        }
    }
}
