#ifndef THINWIRE_TESTS_CUDA_PEER_HPP
#define THINWIRE_TESTS_CUDA_PEER_HPP

#include <thinwire/backend/cuda/demo.cuh>
#include <thinwire/comm/transport.hpp>
#include <thinwire/core/random.hpp>
#include <thinwire/core/thread_pool.hpp>
#include <thinwire/optim/demo_options.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace thinwire::test {

#if defined(THINWIRE_CUDA_EMULATE)
/// Runs whole blocks and threads in another order while it lives.
struct ordered {
    explicit ordered(cuda::thread_order order) { cuda::detail::order_of_threads = order; }
    ordered(const ordered&) = delete;
    ordered& operator=(const ordered&) = delete;
    ~ordered() { cuda::detail::order_of_threads = cuda::thread_order::rising; }
};
#endif

/// Device memory that holds these elements.
template <class T>
[[nodiscard]] cuda::device_buffer<T> on_device(cuda::stream& s, const std::vector<T>& elements,
                                               const char* name = "buffer") {
    cuda::device_buffer<T> buffer(elements.size(), name);
    cuda::copy_to_device<T>(s, elements, buffer.span());
    s.synchronize();
    return buffer;
}
template <class T>
[[nodiscard]] std::vector<std::remove_const_t<T>> on_host(cuda::stream& s, const cuda::device_span<T>& elements) {
    std::vector<std::remove_const_t<T>> out(elements.size());
    cuda::copy_to_host<std::remove_const_t<T>>(s, elements, std::span(out));
    s.synchronize();
    return out;
}

/// test::peer (support/optim_peer.hpp) with its weights on a device: the same weights and gradients for the same
/// number.
struct device_peer {
    cuda::stream stream;
    std::vector<std::vector<float>> host_gradients;
    std::vector<cuda::device_buffer<float>> values, gradients;
    std::vector<cuda::parameter> parameters;
    std::unique_ptr<cuda::demo> optimizer;
    random_stream random;

    device_peer(peer_id self, const demo_options& options, thread_pool* pool, const std::vector<shape>& shapes)
        : random(77, self) {
        random_stream start(5);
        for (std::size_t i = 0; i < shapes.size(); ++i) {
            std::vector<float> weights;
            for (std::size_t e = 0; e < shapes[i].count(); ++e) weights.push_back(start.normal());
            values.push_back(on_device(stream, weights, "weights"));
            host_gradients.emplace_back(weights.size());
            gradients.push_back(on_device(stream, host_gradients.back(), "gradient"));
            parameters.push_back({.name = std::string("tensor").append(std::to_string(i)),
                                  .shape = shapes[i],
                                  .values = values.back().span(),
                                  .gradient = gradients.back().span()});
        }
        optimizer = std::make_unique<cuda::demo>(parameters, options, stream, pool);
    }
    void upload_gradients() {
        for (std::size_t i = 0; i < gradients.size(); ++i)
            cuda::copy_to_device<float>(stream, host_gradients[i], gradients[i].span());
        stream.synchronize();
    }
    void new_gradients() {
        for (auto& g : host_gradients)
            for (float& value : g) value = random.normal();
        upload_gradients();
    }
    std::vector<std::byte> begin(peer_id self) {
        new_gradients();
        const auto payload = optimizer->begin_step(self);
        return {payload.begin(), payload.end()};
    }
    [[nodiscard]] std::vector<float> weights(std::size_t i) { return on_host(stream, values[i].span()); }
};

}  // namespace thinwire::test

#endif  // THINWIRE_TESTS_CUDA_PEER_HPP
