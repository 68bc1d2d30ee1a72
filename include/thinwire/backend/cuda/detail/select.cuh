#ifndef THINWIRE_BACKEND_CUDA_DETAIL_SELECT_CUH
#define THINWIRE_BACKEND_CUDA_DETAIL_SELECT_CUH

#include <thinwire/backend/cuda/detail/block.cuh>

#include <cstddef>
#include <cstdint>

namespace thinwire::cuda::detail {

/// What the k largest magnitudes are: those above a bound, and of those that are equal to it the first few.
struct magnitude_bound {
    std::uint32_t above = 0;  ///< bits of a float without its sign: larger ones are chosen
    std::uint32_t ties = 0;   ///< so many of those that are equal
};

THINWIRE_KERNEL std::uint32_t magnitude_of(float value) {
    return bits_of(value) & 0x7fffffffU;
}

/// Elements of `values` whose magnitude is at least `least`, counted over the block.
THINWIRE_KERNEL std::uint32_t count_reaching(const kernel_thread& self, const device_span<float>& values,
                                             std::uint32_t size, std::uint32_t least,
                                             const device_span<std::uint32_t>& room, unsigned& turn) {
    std::uint32_t own = 0;
    for (std::uint32_t i = self.index(); i < size; i += self.threads())
        own += magnitude_of(values.load(i)) >= least ? 1U : 0U;
    return block_sum(self, own, room, turn);
}

/// For the k largest of `size` values; 1 <= k <= size. The bits of the k-th magnitude are found from the highest down:
/// no sorting, no atomics, the same for any order of threads.
THINWIRE_KERNEL magnitude_bound find_bound(const kernel_thread& self, const device_span<float>& values,
                                           std::uint32_t size, std::uint32_t k, const device_span<std::uint32_t>& room,
                                           unsigned& turn) {
    if (k == size) return {0U, size};
    std::uint32_t reached = 0,
                  over = 0;  // at least k reach `reached`, `over` (< k) exceed all that was tried and failed
    for (std::uint32_t bit = 1U << 30U; bit != 0; bit >>= 1U) {
        const std::uint32_t count = count_reaching(self, values, size, reached | bit, room, turn);
        if (count == k) return {(reached | bit) - 1U, 0U};
        if (count > k)
            reached |= bit;
        else
            over = count;
    }
    return {reached, k - over};
}

/// Writes the chosen ones in rising order of their position: positions[place + n], chosen[place + n]. Zeros are left
/// out unless `zeros`. Returns how many there are, the same for all threads. `room` has 64 elements.
THINWIRE_KERNEL std::uint32_t write_chosen(const kernel_thread& self, const device_span<float>& values,
                                           std::uint32_t size, const magnitude_bound& bound, bool zeros,
                                           const device_span<std::uint32_t>& room,
                                           const device_span<std::uint16_t>& positions,
                                           const device_span<float>& chosen, std::size_t place) {
    const std::uint32_t warps = self.warps(), each = (size + warps * 32 - 1) / (warps * 32) * 32;
    const std::uint32_t from = self.warp() * each, to = from + each;  // of this warp; may lie beyond the end
    const std::uint32_t ties = bound.above == 0 && !zeros ? 0U : bound.ties;
    std::uint32_t larger = 0, equal = 0;
    for (std::uint32_t i = from + self.lane(); i < to; i += 32) {
        const std::uint32_t magnitude = i < size ? magnitude_of(values.load(i)) : 0U;
        larger += i < size && magnitude > bound.above ? 1U : 0U;
        equal += i < size && magnitude == bound.above ? 1U : 0U;
    }
    larger = self.sum(larger);
    equal = self.sum(equal);
    self.barrier();
    if (self.lane() == 0) {
        room.store(self.warp(), larger);
        room.store(32 + self.warp(), equal);
    }
    self.barrier();
    std::uint32_t at = 0, tie = 0, total = 0, all_ties = 0;  // of the warps before this one; of all
    for (std::uint32_t warp = 0; warp < warps; ++warp) {
        const std::uint32_t of_larger = room.load(warp), of_equal = room.load(32 + warp);
        if (warp == self.warp()) {
            at = total;
            tie = all_ties;
        }
        total += of_larger;
        all_ties += of_equal;
    }
    at += tie < ties ? tie : ties;
    total += all_ties < ties ? all_ties : ties;
    const std::uint32_t below = (1U << self.lane()) - 1U;
    for (std::uint32_t step = from; step < to; step += 32) {
        const std::uint32_t i = step + self.lane();
        const float value = i < size ? values.load(i) : 0.0F;
        const bool tied = i < size && magnitude_of(value) == bound.above;
        const std::uint32_t tied_lanes = self.ballot(tied);
        const bool taken =
            i < size && (magnitude_of(value) > bound.above || (tied && tie + count_ones(tied_lanes & below) < ties));
        const std::uint32_t taken_lanes = self.ballot(taken);
        if (taken) {
            const std::size_t to_place = place + at + count_ones(taken_lanes & below);
            positions.store(to_place, static_cast<std::uint16_t>(i));
            chosen.store(to_place, value);
        }
        tie += count_ones(tied_lanes);
        at += count_ones(taken_lanes);
    }
    return total;
}

}  // namespace thinwire::cuda::detail

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_SELECT_CUH
