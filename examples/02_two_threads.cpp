// Two peers on two threads with data of their own, one model: y = W x. Only payloads pass between them.

#include <thinwire/thinwire.hpp>

#include <array>
#include <iostream>
#include <thread>
#include <vector>

constexpr std::size_t side = 64;

struct outcome {
    double first_loss = 0.0, last_loss = 0.0;
    thinwire::digest replica;
    std::size_t bytes_sent = 0;
};

// Squared error of W against the teacher 2 * identity on one random input; adds nothing, overwrites the gradient.
double loss_and_gradient(const std::vector<float>& w, std::vector<float>& gradient, thinwire::random_stream& random) {
    std::array<float, side> x{};
    for (float& value : x) value = random.normal();
    double loss = 0.0;
    for (std::size_t i = 0; i < side; ++i) {
        float error = -2.0F * x[i];
        for (std::size_t j = 0; j < side; ++j) error += w[i * side + j] * x[j];
        for (std::size_t j = 0; j < side; ++j) gradient[i * side + j] = error * x[j];
        loss += 0.5 * static_cast<double>(error) * static_cast<double>(error);
    }
    return loss;
}

outcome train(thinwire::loopback_group::member& transport) {
    std::vector<float> w(side * side), gradient(side * side);
    const std::vector<thinwire::parameter> model = {
        {.name = "w", .shape = {side, side}, .values = w, .gradient = gradient}};
    thinwire::demo optimizer(model, {.momentum_decay = 0.9F, .values = thinwire::value_code::sign});
    const thinwire::schedule rate = {
        .kind = thinwire::schedule_kind::cosine, .peak = 0.02F, .warmup = 20, .total = 600, .floor_fraction = 0.01F};
    thinwire::random_stream random(1, transport.self());
    outcome result;
    for (std::uint64_t round = 0; round < 600; ++round) {
        result.last_loss = loss_and_gradient(w, gradient, random);
        if (round == 0) result.first_loss = result.last_loss;
        optimizer.set_learning_rate(rate.at(round));
        result.bytes_sent += optimizer.step(transport).bytes_sent;
    }
    result.replica = optimizer.replica_digest();
    return result;
}

int main() {
    thinwire::loopback_group peers(2);
    std::array<outcome, 2> results;
    std::thread other([&] { results[1] = train(peers[1]); });
    results[0] = train(peers[0]);
    other.join();
    for (const outcome& r : results)
        std::cout << "loss " << r.first_loss << " -> " << r.last_loss << ", " << r.bytes_sent / 600
                  << " bytes a round (dense: " << 4 * side * side << "), replica " << to_string(r.replica, 12) << '\n';
    return results[0].replica == results[1].replica && results[0].last_loss < results[0].first_loss ? 0 : 1;
}
