#ifndef THINWIRE_BACKEND_CUDA_DETAIL_CHOOSE_KERNEL_CUH
#define THINWIRE_BACKEND_CUDA_DETAIL_CHOOSE_KERNEL_CUH

#include <thinwire/backend/cuda/detail/chunk_transform.cuh>
#include <thinwire/backend/cuda/detail/measure_kernel.cuh>
#include <thinwire/backend/cuda/detail/select.cuh>

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace thinwire::cuda::detail {

/// Chunks up to this size are worked on in shared memory, larger ones in a part of global memory for each block.
inline constexpr std::size_t shared_chunk = 4096;

/// What a peer sends, on the device: sparse_content's arrays.
struct content_view {
    device_span<std::uint16_t> positions;
    device_span<float> values;
    device_span<std::uint32_t> counts;
};

/// Of chunks [from, to), counted over all regions, one at a time in each block:
///   m <- m - taken * what `sent` holds of the chunk, where taken > 0
///   m <- decay * m + gain * g, and the largest coefficients of its transform -> `sent`, where select
/// Does nothing where the gradients were refused.
template <bool Shared>
struct choose_kernel {
    static constexpr std::string_view name = "choose";
    static constexpr unsigned threads = 256;
    static constexpr unsigned resident = 3;

    model_view model;
    content_view sent;
    device_span<const step_numbers> numbers;
    device_span<float> work;  ///< not Shared: 2 * max_size for each block
    std::uint32_t from = 0, to = 0;
    float decay = 0.0F, taken = 0.0F;
    std::uint32_t most = 0;  ///< coefficients of a chunk that are sent, where the region does not keep fewer
    bool select = true, sends_zero = true;

    [[nodiscard]] static std::size_t shared_bytes(const model_view& m) {
        return (Shared ? 2 * 4 * std::size_t{m.max_size} : 0) + 4 * column_masks::row_words(m.max_rows, m.max_cols) +
               4 * column_masks::column_words(m.max_cols) + 4 * reduce_room + 4 * 16;
    }

    THINWIRE_KERNEL void operator()(const kernel_thread& self) const {
        float gain = 0.0F;
        if (select) {
            const step_numbers n = numbers.load(0);
            if (n.refused != 0) return;
            gain = n.gain;
        }
        shared_memory area(self);
        device_span<float> tile, middle;
        if constexpr (Shared) {
            tile = area.take<float>(model.max_size, "tile");
            middle = area.take<float>(model.max_size, "middle");
        } else {
            tile = work.subspan(std::size_t{2} * self.block() * model.max_size, model.max_size);
            middle = work.subspan(std::size_t{2} * self.block() * model.max_size + model.max_size, model.max_size);
        }
        column_masks masks;
        masks.rows = area.take<std::uint32_t>(column_masks::row_words(model.max_rows, model.max_cols), "rows");
        masks.columns = area.take<std::uint32_t>(column_masks::column_words(model.max_cols), "columns");
        const device_span<std::uint32_t> room = area.take<std::uint32_t>(reduce_room, "room");
        for (std::uint32_t chunk = from + self.block(); chunk < to; chunk += self.blocks()) {
            const region_view t = model.regions.load(region_of(model.first_chunks, chunk));
            masks.words = (t.rows + 31) / 32;
            update_momentum(self, t, chunk, gain, masks, tile, middle);
            self.barrier();
            if (!select) continue;
            forward_transform(self, t, model, tile, middle);
            self.barrier();
            const std::uint32_t size = t.rows * t.cols;
            unsigned turn = 0;
            const magnitude_bound bound = find_bound(self, tile, size, most < t.kept ? most : t.kept, room, turn);
            const std::uint32_t count = write_chosen(self, tile, size, bound, sends_zero, room, sent.positions,
                                                     sent.values, place_of_chunk(t, chunk));
            if (self.index() == 0) sent.counts.store(chunk, count);
            self.barrier();
        }
    }

 private:
    THINWIRE_KERNEL static std::size_t place_of_chunk(const region_view& t, std::uint32_t chunk) {
        return t.first_coefficient + std::size_t{chunk - t.first_chunk} * t.kept;
    }

    /// The momentum of a chunk, brought up to date, in its place and in `tile`.
    THINWIRE_KERNEL void update_momentum(const kernel_thread& self, const region_view& t, std::uint32_t chunk,
                                         float gain, const column_masks& masks, const device_span<float>& tile,
                                         const device_span<float>& middle) const {
        const std::size_t offset = chunk_offset(t, chunk - t.first_chunk), stride = t.stride;
        const std::uint32_t size = t.rows * t.cols;
        const bool all = taken == 1.0F && t.keeps_rest == 0 && sent.counts.load(chunk) == size;  // nothing remains
        const auto renew = [&](std::uint32_t r, std::uint32_t x, float sent_here) {
            const std::size_t at = offset + r * stride + x;
            const float before = all ? 0.0F : t.momentum.load(at) - taken * sent_here;
            const float now = select ? decay * before + gain * t.gradient.load(at) : before;
            t.momentum.store(at, now);
            tile.store(r * t.cols + x, now);
        };
        if (taken == 0.0F || all) {
            for (std::uint32_t i = self.index(); i < size; i += self.threads()) renew(i / t.cols, i % t.cols, 0.0F);
            return;
        }
        masks.clear(self, t);
        self.barrier();
        const std::size_t place = place_of_chunk(t, chunk);
        const std::uint32_t count = sent.counts.load(chunk);
        for (std::uint32_t i = self.index(); i < count; i += self.threads()) {
            const std::uint32_t position = sent.positions.load(place + i);
            tile.store(position, sent.values.load(place + i));
            masks.mark(position / t.cols, position % t.cols);
        }
        self.barrier();
        inverse_columns<float, float, float>(
            self, t, masks, model.inverse, [&](std::uint32_t at) { return tile.load(at); }, middle,
            [](float sum) { return sum; });
        self.barrier();
        inverse_rows<float>(self, t, masks, model.inverse, middle, renew);
    }
};

}  // namespace thinwire::cuda::detail

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_CHOOSE_KERNEL_CUH
