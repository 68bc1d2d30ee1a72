// What every consumer builds: the umbrella, a round of two peers, and a zero exit code when it works.
#include <thinwire/thinwire.hpp>

#include <thread>
#include <vector>

int main() {
    thinwire::loopback_group group(2);
    std::vector<std::vector<float>> weights(2, std::vector<float>(12, 1.0F));
    const auto run = [&](std::size_t i) {
        std::vector<float> gradients(12, 0.5F);
        const std::vector<thinwire::parameter> model = {{"weights", {3, 4}, weights[i], gradients}};
        thinwire::demo optimizer(model, {});
        optimizer.step(group[i]);
    };
    std::thread other([&] { run(1); });
    run(0);
    other.join();
    return weights[0] == weights[1] && weights[0][0] < 1.0F ? 0 : 1;
}
