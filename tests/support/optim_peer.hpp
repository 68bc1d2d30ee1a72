#ifndef THINWIRE_TESTS_SUPPORT_OPTIM_PEER_HPP
#define THINWIRE_TESTS_SUPPORT_OPTIM_PEER_HPP

#include <thinwire/comm/transport.hpp>
#include <thinwire/core/random.hpp>
#include <thinwire/core/thread_pool.hpp>
#include <thinwire/optim/step_report.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace thinwire::test {

/// A peer with memory of its own; all start from equal weights and have gradients of their own.
template <class Optimizer, class Options>
struct peer {
    std::vector<std::vector<float>> values, gradients;
    std::vector<parameter> parameters;
    std::unique_ptr<Optimizer> optimizer;
    random_stream random;

    peer(peer_id self, const Options& options, thread_pool* pool = nullptr,
         const std::vector<shape>& shapes = {{64, 128}, {130}, {31, 12}})
        : random(77, self) {
        random_stream start(5);
        values.resize(shapes.size());
        gradients.resize(shapes.size());
        for (std::size_t i = 0; i < shapes.size(); ++i) {
            for (std::size_t e = 0; e < shapes[i].count(); ++e) values[i].push_back(start.normal());
            gradients[i].resize(values[i].size());
            parameters.push_back({.name = std::string("tensor").append(std::to_string(i)),
                                  .shape = shapes[i],
                                  .values = values[i],
                                  .gradient = gradients[i]});
        }
        optimizer = std::make_unique<Optimizer>(parameters, options, pool);
    }
    void new_gradients() {
        for (auto& g : gradients)
            for (float& value : g) value = random.normal();
    }
    std::vector<std::byte> begin(peer_id self) {
        new_gradients();
        const auto payload = optimizer->begin_step(self);
        return {payload.begin(), payload.end()};
    }
    /// A round of this peer alone.
    step_report step(peer_id self = 0) {
        const auto payload = begin(self);
        const contribution own = {.peer = self, .payload = payload};
        const commit agreed = {.round = optimizer->round(), .contributions = {&own, 1}};
        return optimizer->end_step({&agreed, 1});
    }
};

inline step_report finish(auto& optimizer, std::uint64_t round, const std::vector<contribution>& list) {
    const commit c = {.round = round, .contributions = list};
    return optimizer.end_step({&c, 1});
}

}  // namespace thinwire::test

#endif  // THINWIRE_TESTS_SUPPORT_OPTIM_PEER_HPP
