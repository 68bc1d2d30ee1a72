#ifndef THINWIRE_BACKEND_CUDA_DETAIL_EMBEDDING_KERNEL_CUH
#define THINWIRE_BACKEND_CUDA_DETAIL_EMBEDDING_KERNEL_CUH

#include <thinwire/backend/cuda/device.cuh>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace thinwire::cuda::detail {

/// The rows that look up each id, so that a block can add them up alone and in their order.
class rows_by_id {
 public:
    /// Stable, in the time of the rows and the largest id. Precondition: no id is negative.
    void sort(std::span<const std::int32_t> ids) {
        const std::int32_t largest = ids.empty() ? -1 : *std::max_element(ids.begin(), ids.end());
        next_.assign(static_cast<std::size_t>(largest + 1), 0);
        for (const std::int32_t id : ids) ++next_[static_cast<std::size_t>(id)];
        ids_.clear();
        ends_.clear();
        std::int32_t total = 0;
        for (std::size_t id = 0; id < next_.size(); ++id) {
            const std::int32_t count = next_[id];
            next_[id] = total;
            total += count;
            if (count == 0) continue;
            ids_.push_back(static_cast<std::int32_t>(id));
            ends_.push_back(total);
        }
        rows_.resize(ids.size());
        for (std::size_t r = 0; r < ids.size(); ++r)
            rows_[static_cast<std::size_t>(next_[static_cast<std::size_t>(ids[r])]++)] = static_cast<std::int32_t>(r);
    }
    [[nodiscard]] std::span<const std::int32_t> rows() const noexcept { return rows_; }  ///< by id, then by number
    [[nodiscard]] std::span<const std::int32_t> ids() const noexcept { return ids_; }    ///< those that occur
    [[nodiscard]] std::span<const std::int32_t> ends() const noexcept { return ends_; }  ///< of their rows

 private:
    std::vector<std::int32_t> next_, rows_, ids_, ends_;
};

/// Adds the rows of dy that looked up an id to its row of the table's gradient: an id and 256 columns a block.
struct embedding_backward_kernel {
    static constexpr std::string_view name = "embedding_backward";
    static constexpr unsigned threads = 256;
    static constexpr unsigned resident = 4;

    device_span<float> dtable;
    device_span<const float> dy;
    device_span<const std::int32_t> rows, ids, ends;
    std::size_t columns = 0, strips = 0;

    THINWIRE_KERNEL void operator()(const kernel_thread& self) const {
        const std::size_t number = self.block() / strips, column = self.block() % strips * threads + self.index();
        if (column >= columns) return;
        const auto from = static_cast<std::size_t>(number == 0 ? 0 : ends.load(number - 1));
        const auto to = static_cast<std::size_t>(ends.load(number));
        float sum = 0.0F;
        for (std::size_t i = from; i < to; ++i)
            sum += dy.load(static_cast<std::size_t>(rows.load(i)) * columns + column);
        const std::size_t at = static_cast<std::size_t>(ids.load(number)) * columns + column;
        dtable.store(at, dtable.load(at) + sum);
    }
};

}  // namespace thinwire::cuda::detail

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_EMBEDDING_KERNEL_CUH
