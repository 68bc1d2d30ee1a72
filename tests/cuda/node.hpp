#ifndef THINWIRE_TESTS_CUDA_NODE_HPP
#define THINWIRE_TESTS_CUDA_NODE_HPP

#include <thinwire/backend/cuda/demo.cuh>
#include <thinwire/nccl/communicator.cuh>

#include "peer.hpp"
#include <doctest/doctest.h>

#include <chrono>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace thinwire::test {

/// As many devices as the machine has; emulated, as many as were asked for.
[[nodiscard]] inline std::size_t devices_here() {
#if defined(THINWIRE_CUDA_EMULATE)
    return static_cast<std::size_t>(cuda::detail::emulated_devices);
#else
    int count = 0;
    return cudaGetDeviceCount(&count) == cudaSuccess ? static_cast<std::size_t>(count) : 0;
#endif
}

/// Has so many emulated devices while it lives, none of which fails, and all communicators gone after it. No destructor
/// may have waited for a device that does not come.
struct machine {
    explicit machine([[maybe_unused]] int devices) {
#if defined(THINWIRE_CUDA_EMULATE)
        cuda::detail::emulated_devices = devices;
#endif
    }
    machine(const machine&) = delete;
    machine& operator=(const machine&) = delete;
#if defined(THINWIRE_CUDA_EMULATE)
    ~machine() {
        cuda::detail::emulated_devices = 1;
        nccl::detail::failure = {};
        CHECK(cuda::detail::endless_drains.exchange(0) == 0);
    }
#endif
};

/// One stream of each of the first devices.
struct device_streams {
    std::vector<std::unique_ptr<cuda::stream>> owned;
    std::vector<cuda::stream*> all;

    explicit device_streams(std::size_t devices) {
        for (std::size_t d = 0; d < devices; ++d) {
            const cuda::device_scope here(static_cast<int>(d));
            owned.push_back(std::make_unique<cuda::stream>());
            all.push_back(owned.back().get());
        }
    }
};

/// A peer with several devices: test::device_peer's weights, on the first device only, and gradients of each.
struct node {
    device_streams streams;
    std::vector<std::vector<cuda::device_buffer<float>>> values, gradients;  ///< by device
    std::vector<std::vector<cuda::parameter>> parameters;                    ///< likewise
    nccl::communicator devices;
    std::unique_ptr<cuda::demo> optimizer;

    node(std::size_t count, const demo_options& options, const std::vector<shape>& shapes, thread_pool* pool = nullptr,
         std::chrono::milliseconds patience = std::chrono::minutes(1))
        : streams(count), values(count), gradients(count), parameters(count), devices(streams.all, patience) {
        random_stream start(5);
        for (const shape& s : shapes) {
            std::vector<float> weights;
            for (std::size_t e = 0; e < s.count(); ++e) weights.push_back(start.normal());
            const std::string name = std::string("tensor").append(std::to_string(parameters[0].size()));
            for (std::size_t d = 0; d < count; ++d) {
                const cuda::device_scope here(static_cast<int>(d));
                cuda::stream& on = *streams.all[d];
                values[d].push_back(
                    on_device(on, d == 0 ? weights : std::vector<float>(weights.size(), 7.0F), "weights"));
                gradients[d].push_back(on_device(on, std::vector<float>(weights.size()), "gradient"));
                parameters[d].push_back({.name = name,
                                         .shape = s,
                                         .values = values[d].back().span(),
                                         .gradient = gradients[d].back().span()});
            }
        }
        optimizer = std::make_unique<cuda::demo>(parameters, options, devices, pool);
    }
    void upload_gradients(std::size_t device, const std::vector<std::vector<float>>& from) {
        for (std::size_t i = 0; i < from.size(); ++i)
            cuda::copy_to_device<float>(*streams.all[device], from[i], gradients[device][i].span());
        streams.all[device]->synchronize();
    }
    [[nodiscard]] bool all_equal() const {
        for (std::size_t d = 1; d < streams.all.size(); ++d)
            if (optimizer->replica_digest(d) != optimizer->replica_digest()) return false;
        return true;
    }
};

}  // namespace thinwire::test

#endif  // THINWIRE_TESTS_CUDA_NODE_HPP
