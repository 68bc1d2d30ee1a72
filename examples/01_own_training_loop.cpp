#include <thinwire/thinwire.hpp>

#include <iostream>
int main() {
    std::vector<float> weights(4096, 1.0F), gradient(4096);
    const std::vector<thinwire::parameter> model = {{"layer", {64, 64}, weights, gradient}};
    thinwire::demo optimizer(model, {.learning_rate = 0.01F});
    thinwire::loopback_group peers(1);  // or any other transport, such as TCP
    for (int step = 0; step < 100; ++step) {
        gradient = weights;  // your model's backward pass; here that of half the sum of squares
        optimizer.step(peers[0]);
    }
    std::cout << "a weight went from 1 to " << weights[0] << " in " << optimizer.round() << " rounds\n";
}
