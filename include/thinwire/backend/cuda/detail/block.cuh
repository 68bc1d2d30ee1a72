#ifndef THINWIRE_BACKEND_CUDA_DETAIL_BLOCK_CUH
#define THINWIRE_BACKEND_CUDA_DETAIL_BLOCK_CUH

#include <thinwire/backend/cuda/device.cuh>

#include <cstddef>
#include <cstdint>

namespace thinwire::cuda::detail {

/// Elements of the shared array that block_sum() and block_largest() work with.
inline constexpr unsigned reduce_room = 64;

/// The sum over the block's threads, for all of them. `turn` is 0 at first and counts calls that use the same room:
/// two sets of numbers in turn save a barrier. Orders the block's memory.
THINWIRE_KERNEL std::uint32_t block_sum(const kernel_thread& self, std::uint32_t value,
                                        const device_span<std::uint32_t>& room, unsigned& turn) {
    const unsigned from = turn++ % 2 * 32;
    const std::uint32_t of_warp = self.sum(value);
    if (self.lane() == 0) room.store(from + self.warp(), of_warp);
    self.barrier();
    return self.sum(self.lane() < self.warps() ? room.load(from + self.lane()) : 0U);
}
/// The same for the largest.
THINWIRE_KERNEL std::uint32_t block_largest(const kernel_thread& self, std::uint32_t value,
                                            const device_span<std::uint32_t>& room, unsigned& turn) {
    const unsigned from = turn++ % 2 * 32;
    const std::uint32_t of_warp = self.largest(value);
    if (self.lane() == 0) room.store(from + self.warp(), of_warp);
    self.barrier();
    return self.largest(self.lane() < self.warps() ? room.load(from + self.lane()) : 0U);
}
/// The sum over the warp, the same bits for all of it.
THINWIRE_KERNEL float warp_sum(const kernel_thread& self, float value) {
    for (unsigned mask = 16; mask > 0; mask /= 2) value += self.shuffle_xor(value, mask);
    return value;
}
/// The sum of doubles, in an order that depends on nothing but the number of threads; `room` has one for each warp and
/// is used once. Orders the block's memory.
THINWIRE_KERNEL double block_sum(const kernel_thread& self, double value, const device_span<double>& room) {
    for (unsigned mask = 16; mask > 0; mask /= 2) value += self.shuffle_xor(value, mask);
    if (self.lane() == 0) room.store(self.warp(), value);
    self.barrier();
    double total = 0.0;
    for (unsigned warp = 0; warp < self.warps(); ++warp) total += room.load(warp);
    return total;
}

}  // namespace thinwire::cuda::detail

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_BLOCK_CUH
