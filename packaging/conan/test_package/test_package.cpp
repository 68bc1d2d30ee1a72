#include <thinwire/thinwire.hpp>

int main() {
    std::vector<float> weights(12, 1.0F), gradients(12, 0.5F);
    const std::vector<thinwire::parameter> model = {{"weights", {3, 4}, weights, gradients}};
    thinwire::demo optimizer(model, {});
    thinwire::loopback_group peers(1);
    optimizer.step(peers[0]);
    return weights[0] < 1.0F ? 0 : 1;
}
