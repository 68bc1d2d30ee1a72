#ifndef THINWIRE_TESTS_SUPPORT_OPTIMIZER_PEER_HPP
#define THINWIRE_TESTS_SUPPORT_OPTIMIZER_PEER_HPP

#include <thinwire/core/parameter.hpp>
#include <thinwire/core/random.hpp>
#include <thinwire/core/thread_pool.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace thinwire {

/// An optimizer with weights and gradients of its own. All that are made with the same shapes start from equal weights.
template <class Optimizer>
struct optimizer_peer {
    std::vector<std::vector<float>> values, gradients;
    std::vector<parameter> parameters;
    std::unique_ptr<Optimizer> optimizer;
    random_stream random;  ///< of the gradients

    template <class Options>
    optimizer_peer(std::span<const shape> shapes, const Options& options, thread_pool* pool, std::uint64_t seed)
        : values(shapes.size()), gradients(shapes.size()), random(seed) {
        random_stream start(5);
        for (std::size_t i = 0; i < shapes.size(); ++i) {
            for (std::size_t e = 0; e < shapes[i].count(); ++e) values[i].push_back(start.normal());
            gradients[i].resize(values[i].size());
            parameters.push_back(
                {.name = std::to_string(i), .shape = shapes[i], .values = values[i], .gradient = gradients[i]});
        }
        optimizer = std::make_unique<Optimizer>(parameters, options, pool);
    }

    void new_gradients() {
        for (auto& gradient : gradients)
            for (float& value : gradient) value = random.normal();
    }
    void gradients_from(const optimizer_peer& other) {
        for (std::size_t i = 0; i < gradients.size(); ++i) std::ranges::copy(other.gradients[i], gradients[i].begin());
    }
};

}  // namespace thinwire

#endif  // THINWIRE_TESTS_SUPPORT_OPTIMIZER_PEER_HPP
