#ifndef THINWIRE_BACKEND_CUDA_DETAIL_APPLY_KERNEL_CUH
#define THINWIRE_BACKEND_CUDA_DETAIL_APPLY_KERNEL_CUH

#include <thinwire/backend/cuda/detail/block.cuh>
#include <thinwire/backend/cuda/detail/choose_kernel.cuh>
#include <thinwire/backend/cuda/detail/chunk_transform.cuh>
#include <thinwire/optim/contribution_weights.hpp>
#include <thinwire/optim/detail/fixed_point.hpp>

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace thinwire::cuda::detail {

/// Replaces what hardware may flush (subnormal numbers, the smallest normal one, -0) by +0.
THINWIRE_KERNEL float without_tiny(float value) {
    return (bits_of(value) & 0x7fffffffU) > 0x00800000U ? value : 0.0F;
}

/// value * 2^exponent, in two exact steps, as scale_decoded() of the host does. exponent in -169..57.
THINWIRE_KERNEL float scale_exactly(float value, int exponent) {
    const float first =
        without_tiny(multiply(without_tiny(value), float_of(static_cast<std::uint32_t>(127 - 60) << 23U)));
    return without_tiny(multiply(first, float_of(static_cast<std::uint32_t>(exponent + 60 + 127) << 23U)));
}

/// For every chunk: the mean of its coefficients over the senders, transformed back, and the update of the weights with
/// it. Integers up to the last conversion, so that the bits are the host's: bounds and reasons stand in
/// optim/detail/exact_mean.hpp, whose doubles hold the same integers.
///
/// A sum of up to 2^20 - 1 senders is kept with their number in one word: the number in the 20 low bits, the sum, below
/// 2^42 in magnitude, above. A mean is at most 2^22, a basis entry too; sums of both passes stay below 2^53.
///
/// Weighted: contributions do not count alike. The sum then has a word of its own, the sum of the weights, below 2^31,
/// the place where the first pass of the inverse will put its results.
template <bool Shared, bool Weighted>
struct apply_kernel {
    static constexpr std::string_view name = Weighted ? "apply weighted" : "apply";
    static constexpr unsigned threads = 256;
    static constexpr unsigned resident = 3;
    static constexpr std::size_t most_senders = (std::size_t{1} << 20U) - 1;

    model_view model;
    content_view received;                           ///< of the senders, one after the other
    device_span<const contribution_weight> weights;  ///< of the senders; none unless Weighted
    std::uint32_t senders = 0;
    std::uint64_t coefficients = 0;         ///< of one sender
    std::uint32_t chunks = 0;               ///< likewise
    device_span<std::uint64_t> sums_work;   ///< not Shared: max_size for each block
    device_span<std::int32_t> middle_work;  ///< likewise

    [[nodiscard]] static std::size_t shared_bytes(const model_view& m) {
        return (Shared ? 12 * std::size_t{m.max_size} : 0) + 4 * column_masks::row_words(m.max_rows, m.max_cols) +
               4 * column_masks::column_words(m.max_cols) + 4 * reduce_room + 4 * 16;
    }

    THINWIRE_KERNEL void operator()(const kernel_thread& self) const {
        shared_memory area(self);
        device_span<std::uint64_t> sums;
        device_span<std::int32_t> middle;
        if constexpr (Shared) {
            sums = area.take<std::uint64_t>(model.max_size, "sums");
            middle = area.take<std::int32_t>(model.max_size, "middle");
        } else {
            sums = sums_work.subspan(std::size_t{self.block()} * model.max_size, model.max_size);
            middle = middle_work.subspan(std::size_t{self.block()} * model.max_size, model.max_size);
        }
        column_masks masks;
        masks.rows = area.take<std::uint32_t>(column_masks::row_words(model.max_rows, model.max_cols), "rows");
        masks.columns = area.take<std::uint32_t>(column_masks::column_words(model.max_cols), "columns");
        const device_span<std::uint32_t> room = area.take<std::uint32_t>(reduce_room, "room");
        for (std::uint32_t chunk = self.block(); chunk < chunks; chunk += self.blocks()) {
            const region_view t = model.regions.load(region_of(model.first_chunks, chunk));
            masks.words = (t.rows + 31) / 32;
            masks.clear(self, t);
            const std::uint32_t top = add_up(self, t, chunk, masks, sums, middle, room);
            inverse_columns<std::int64_t, std::int32_t, std::int64_t>(
                self, t, masks, model.exact, [&](std::uint32_t at) { return static_cast<std::int64_t>(sums.load(at)); },
                middle,
                // the nearest integer, half upwards
                [](std::int64_t sum) { return static_cast<std::int32_t>((sum + (1 << 21)) >> 22); });
            self.barrier();
            const std::size_t offset = chunk_offset(t, chunk - t.first_chunk), stride = t.stride;
            inverse_rows<std::int64_t>(self, t, masks, model.exact, middle,
                                       [&](std::uint32_t r, std::uint32_t x, std::int64_t decoded) {
                                           move_weight(t, offset + r * stride + x, decoded, top);
                                       });
            self.barrier();
        }
    }

 private:
    /// sums[position] <- the mean of that coefficient, for all that somebody sent, which `masks` then tells. Returns
    /// the largest exponent. Barriers all around.
    THINWIRE_KERNEL std::uint32_t add_up(const kernel_thread& self, const region_view& t, std::uint32_t chunk,
                                         const column_masks& masks, const device_span<std::uint64_t>& sums,
                                         const device_span<std::int32_t>& weight_sums,
                                         const device_span<std::uint32_t>& room) const {
        const std::uint32_t size = t.rows * t.cols;
        const std::uint64_t place = t.first_coefficient + std::uint64_t{chunk - t.first_chunk} * t.kept;
        const std::uint32_t items = senders * t.kept;
        for (std::uint32_t i = self.index(); i < size; i += self.threads()) {
            sums.store(i, 0U);
            if constexpr (Weighted) weight_sums.store(i, 0);
        }
        const auto for_each_sent = [&](const auto& use) {
            for (std::uint32_t item = self.index(); item < items; item += self.threads()) {
                const std::uint32_t sender = item / t.kept, n = item % t.kept;
                if (n < received.counts.load(std::size_t{sender} * chunks + chunk))
                    use(sender, sender * coefficients + place + n);
            }
        };
        std::uint32_t largest = 0;
        for_each_sent([&](std::uint32_t sender, std::uint64_t at) {
            std::uint32_t field = (bits_of(received.values.load(at)) & 0x7fffffffU) >> 23U;
            if constexpr (Weighted) {
                const std::uint32_t shift = weights.load(sender).shift;
                field = field > shift ? field - shift : 0;
            }
            largest = field > largest ? field : largest;
        });
        unsigned turn = 0;
        const std::uint32_t field = block_largest(self, largest, room, turn);
        const std::uint32_t top = field < 1 ? 1 : field;
        for_each_sent([&](std::uint32_t sender, std::uint64_t at) {
            const std::uint32_t position = received.positions.load(at), bits = bits_of(received.values.load(at));
            if constexpr (Weighted) {
                const contribution_weight as = weights.load(sender);
                const std::int64_t value = ::thinwire::detail::fixed_of_bits(bits, top + as.shift);
                sums.atomic_add(position, static_cast<std::uint64_t>(value) * as.weight * as.factor);
                weight_sums.atomic_add(position, static_cast<std::int32_t>(as.weight));
            } else {
                const std::int64_t value = ::thinwire::detail::fixed_of_bits(bits, top);
                sums.atomic_add(position, (static_cast<std::uint64_t>(value) << 20U) + 1U);
            }
            masks.mark(position / t.cols, position % t.cols);
        });
        self.barrier();
        for (std::uint32_t i = self.index(); i < size; i += self.threads()) {
            const auto packed = static_cast<std::int64_t>(sums.load(i));
            const std::int64_t n = Weighted ? std::int64_t{256} * weight_sums.load(i) : packed & 0xfffff;
            if (n == 0) continue;
            const std::int64_t mean = ::thinwire::detail::rounded_mean(Weighted ? packed : packed >> 20, n);
            sums.store(i, static_cast<std::uint64_t>(mean));
        }
        self.barrier();
        return top;
    }

    /// x <- factor * x - step * direction, one rounding each, as update_kernels.hpp and element_kernels.hpp have it.
    THINWIRE_KERNEL static void move_weight(const region_view& t, std::size_t at, std::int64_t decoded,
                                            std::uint32_t top) {
        float value = without_tiny(t.values.load(at));
        if (t.factor != 1.0F) value = without_tiny(multiply(value, t.factor));
        float move = decoded > 0 ? t.step : decoded < 0 ? -t.step : 0.0F;
        if (t.by_sign == 0) {
            const float d = scale_exactly(to_float(decoded), static_cast<int>(top) - 148 - 22);
            move = without_tiny(multiply(d, t.step));
        }
        t.values.store(at, without_tiny(subtract(value, move)));
    }
};

}  // namespace thinwire::cuda::detail

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_APPLY_KERNEL_CUH
