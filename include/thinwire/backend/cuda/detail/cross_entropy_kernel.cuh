#ifndef THINWIRE_BACKEND_CUDA_DETAIL_CROSS_ENTROPY_KERNEL_CUH
#define THINWIRE_BACKEND_CUDA_DETAIL_CROSS_ENTROPY_KERNEL_CUH

#include <thinwire/backend/cuda/detail/block.cuh>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string_view>

namespace thinwire::cuda::detail {

inline constexpr float lowest_float = -std::numeric_limits<float>::max();

/// The largest of some numbers, and the sum of exp(number - largest).
struct softmax_sum {
    float largest = lowest_float;  // not -inf, whose difference to a logit of -inf is no number
    float sum = 0.0F;

    THINWIRE_KERNEL void take(float x) {
        if (x > largest) {
            sum = sum * expf(largest - x) + 1.0F;
            largest = x;
        } else {
            sum += expf(x - largest);
        }
    }
    /// Of both; the same bits whichever is named first.
    THINWIRE_KERNEL void take(float other_largest, float other_sum) {
        const float most = other_largest > largest ? other_largest : largest;
        sum = (largest == most ? sum : sum * expf(largest - most)) +
              (other_largest == most ? other_sum : other_sum * expf(other_largest - most));
        largest = most;
    }
};

/// The loss of each row, and the gradient in the place of its logits where gradient_scale is not 0. One row a
/// block: the row is read once for the loss, and once more, from the cache, for the gradient.
struct cross_entropy_kernel {
    static constexpr std::string_view name = "cross_entropy";
    static constexpr unsigned threads = 256;
    static constexpr unsigned resident = 4;
    static constexpr unsigned warps = threads / 32;

    device_span<float> logits;
    device_span<const std::int32_t> targets;
    device_span<double> losses;
    std::size_t vocabulary = 0;
    float gradient_scale = 0.0F;

    [[nodiscard]] static constexpr std::size_t shared_bytes() { return sizeof(float) * 2 * warps; }

    THINWIRE_KERNEL void operator()(const kernel_thread& self) const {
        shared_memory area(self);
        const device_span<float> room = area.take<float>(std::size_t{2} * warps, "sums of the warps");
        const std::size_t row = self.block();
        const device_span<float> of = logits.subspan(row * vocabulary, vocabulary);
        const std::int32_t target = targets.load(row);
        if (target < 0) {
            if (self.index() == 0) losses.store(row, 0.0);
            if (gradient_scale != 0.0F)
                for (std::size_t j = self.index(); j < vocabulary; j += threads) of.store(j, 0.0F);
            return;
        }
        softmax_sum all;
        for (std::size_t j = self.index(); j < vocabulary; j += threads) all.take(of.load(j));
        const float chosen = of.load(static_cast<std::size_t>(target));
        merge(self, room, all);
        if (self.index() == 0)
            losses.store(row, static_cast<double>(all.largest - chosen) + static_cast<double>(logf(all.sum)));
        if (gradient_scale == 0.0F) return;
        const float share = 1.0F / all.sum;
        for (std::size_t j = self.index(); j < vocabulary; j += threads) {
            const float probability = expf(of.load(j) - all.largest) * share;
            of.store(j, gradient_scale * (j == static_cast<std::size_t>(target) ? probability - 1.0F : probability));
        }
    }

 private:
    /// Of the whole block, for all its threads. Orders the block's memory.
    THINWIRE_KERNEL static void merge(const kernel_thread& self, const device_span<float>& room, softmax_sum& all) {
        for (unsigned mask = 16; mask > 0; mask /= 2) {
            const float largest = self.shuffle_xor(all.largest, mask), sum = self.shuffle_xor(all.sum, mask);
            all.take(largest, sum);
        }
        if (self.lane() == 0) {
            room.store(2 * self.warp(), all.largest);
            room.store(2 * self.warp() + 1, all.sum);
        }
        self.barrier();
        all = softmax_sum{};
        for (unsigned warp = 0; warp < warps; ++warp) all.take(room.load(2 * warp), room.load(2 * warp + 1));
    }
};

/// The sum of doubles, in one block.
struct total_kernel {
    static constexpr std::string_view name = "total";
    static constexpr unsigned threads = 256;
    static constexpr unsigned resident = 4;

    device_span<const double> values;
    device_span<double> total;

    [[nodiscard]] static constexpr std::size_t shared_bytes() { return sizeof(double) * 32; }

    THINWIRE_KERNEL void operator()(const kernel_thread& self) const {
        shared_memory area(self);
        const device_span<double> room = area.take<double>(32, "sums");
        double sum = 0.0;
        for (std::size_t i = self.index(); i < values.size(); i += threads) sum += values.load(i);
        sum = block_sum(self, sum, room);
        if (self.index() == 0) total.store(0, sum);
    }
};

}  // namespace thinwire::cuda::detail

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_CROSS_ENTROPY_KERNEL_CUH
