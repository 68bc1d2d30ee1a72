// A round travels while the gradient of the next is computed: a link of 20 ms costs nothing where the gradient takes
// as long. Two peers on two threads, each with a second thread that carries its payloads.

#include <thinwire/thinwire.hpp>

#include <chrono>
#include <future>
#include <iostream>
#include <span>
#include <thread>
#include <vector>

using namespace std::chrono_literals;
using steady = std::chrono::steady_clock;

constexpr int rounds = 50;

// Stands for a model's backward pass: 20 ms, and the gradient of half the squared distance to a target.
void backward(const std::vector<float>& weights, std::vector<float>& gradient, float target) {
    std::this_thread::sleep_for(20ms);
    for (std::size_t i = 0; i < weights.size(); ++i) gradient[i] = weights[i] - target;
}

// Stands for a link: 20 ms there and back.
std::span<const thinwire::commit> carry(thinwire::loopback_group::member& peer, std::uint64_t round,
                                        std::span<const std::byte> payload) {
    std::this_thread::sleep_for(20ms);
    return peer.exchange(round, payload);
}

struct outcome {
    thinwire::digest replica;
    float weight = 0;
};

outcome train(thinwire::loopback_group::member& peer, bool overlapped) {
    std::vector<float> weights(4096), gradient(4096);
    const std::vector<thinwire::parameter> model = {{"layer", {64, 64}, weights, gradient}};
    thinwire::demo optimizer(model, {.learning_rate = 0.02F, .momentum_decay = 0.9F, .k = 64});
    const float target = peer.self() == 0 ? 0.4F : 0.6F;
    backward(weights, gradient, target);
    while (optimizer.round() < rounds) {
        // The payload stays valid, and weights and gradient are ours, until end_step() and the next begin_step().
        const std::span<const std::byte> payload = optimizer.begin_step(peer.self());
        const auto policy = overlapped ? std::launch::async : std::launch::deferred;
        auto commits = std::async(policy, carry, std::ref(peer), optimizer.round(), payload);
        if (!overlapped) commits.wait();
        backward(weights, gradient, target);  // overlapped: on weights that lack the round under way
        optimizer.end_step(commits.get());
    }
    return {optimizer.replica_digest(), weights[0]};
}

int main() {
    bool equal = true;
    for (const bool overlapped : {false, true}) {
        thinwire::loopback_group peers(2);
        const auto start = steady::now();
        auto other = std::async(std::launch::async, train, std::ref(peers[1]), overlapped);
        const outcome own = train(peers[0], overlapped);
        equal = equal && own.replica == other.get().replica;
        const auto each = std::chrono::duration<double, std::milli>(steady::now() - start) / rounds;
        std::cout << (overlapped ? "overlapped: " : "in turn:    ") << each.count() << " ms a round, weight "
                  << own.weight << ", replica " << to_string(own.replica, 12) << '\n';
    }
    return equal ? 0 : 1;
}
