#ifndef THINWIRE_BACKEND_CUDA_DETAIL_FILL_KERNEL_CUH
#define THINWIRE_BACKEND_CUDA_DETAIL_FILL_KERNEL_CUH

#include <thinwire/backend/cuda/device.cuh>

#include <algorithm>
#include <cstddef>
#include <string_view>

namespace thinwire::cuda::detail {

/// Sets all elements.
template <class T>
struct fill_kernel {
    static constexpr std::string_view name = "fill";
    static constexpr unsigned threads = 256;
    static constexpr unsigned resident = 4;

    device_span<T> out;
    T value{};

    [[nodiscard]] static unsigned blocks(std::size_t elements) {
        return static_cast<unsigned>(std::min<std::size_t>(1024, (elements + threads - 1) / threads));
    }
    THINWIRE_KERNEL void operator()(const kernel_thread& self) const {
        for (std::size_t i = std::size_t{self.block()} * threads + self.index(); i < out.size();
             i += std::size_t{self.blocks()} * threads)
            out.store(i, value);
    }
};

}  // namespace thinwire::cuda::detail

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_FILL_KERNEL_CUH
