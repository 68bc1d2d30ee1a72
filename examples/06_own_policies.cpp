// An own update rule and an own basis, each a few lines: demo takes them as it takes those built in.

#include <thinwire/thinwire.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iostream>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace {

/// Steps as long as what was sent, but never above 1: comparisons only, so the same bits on every machine.
class capped final : public thinwire::update_rule {
 public:
    [[nodiscard]] std::string name() const override { return "capped 1"; }
    void direct(std::span<float> d) const override {
        for (float& v : d) v = std::clamp(v, -1.0F, 1.0F);
    }
};

/// The Haar wavelets of a side, in integers times 2^22; sides that are no power of two are not transformed.
void haar(std::size_t side, std::span<std::int32_t> table) {
    const auto entry = [](std::size_t length) {
        return static_cast<std::int32_t>(std::lround(4194304.0 / std::sqrt(static_cast<double>(length))));
    };
    std::ranges::fill(table, 0);
    if (!std::has_single_bit(side)) {
        for (std::size_t i = 0; i < side; ++i) table[i * side + i] = entry(1);
        return;
    }
    std::fill_n(table.begin(), side, entry(side));
    std::size_t row = 1;
    for (std::size_t length = side; length > 1; length /= 2)
        for (std::size_t from = 0; from < side; from += length, ++row)
            for (std::size_t x = 0; x < length; ++x)
                table[row * side + from + x] = x < length / 2 ? entry(length) : -entry(length);
}

}  // namespace

int main() {
    std::vector<float> weights(4096, 1.0F), gradient(4096);
    const std::vector<thinwire::parameter> model = {{"layer", {64, 64}, weights, gradient}};
    thinwire::demo_options options = {.learning_rate = 0.05F, .momentum_decay = 0.9F, .k = 16};
    options.gradient = thinwire::gradient_scale::none;
    options.basis = thinwire::basis::custom(haar);
    options.rule = std::make_shared<const capped>();
    thinwire::demo optimizer(model, options);
    thinwire::loopback_group peers(1);
    for (int step = 0; step < 100; ++step) {
        gradient = weights;
        optimizer.step(peers[0]);
    }
    const float largest = std::abs(*std::ranges::max_element(weights, {}, [](float w) { return std::abs(w); }));
    std::cout << "weights went from 1 to at most " << largest << " in " << optimizer.round() << " rounds\n";
    return largest < 0.05F ? 0 : 1;
}
