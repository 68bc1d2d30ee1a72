#ifndef THINWIRE_BACKEND_CUDA_DETAIL_GATHERED_SECTIONS_CUH
#define THINWIRE_BACKEND_CUDA_DETAIL_GATHERED_SECTIONS_CUH

#include <thinwire/backend/cuda/detail/device_chooser.cuh>
#include <thinwire/backend/cuda/detail/optimizer_parts.hpp>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <vector>

namespace thinwire::cuda::detail {

/// The staged coefficients of whole tensors: where a device staged them, or put together where several have a part.
class gathered_sections {
 public:
    /// Tensors [from, to).
    struct range {
        std::size_t from, to;
    };

    gathered_sections() = default;
    gathered_sections(std::span<const std::unique_ptr<device_chooser>> devices,
                      const ::thinwire::detail::chunk_plan& plan)
        : sections_(plan.tensors().size()) {
        std::vector<std::size_t> parts(sections_.size());
        for (const auto& d : devices)
            for (const shard_part& part : d->parts()) ++parts[part.tensor];
        for (std::size_t i = 0; i < sections_.size(); ++i) {
            const payload_section& section = plan.layout().sections[i];
            sections_[i].chunk_size = section.chunk_size;
            if (parts[i] < 2) continue;
            sections_[i].memory.positions.resize(section.coefficients());
            sections_[i].memory.values.resize(section.coefficients());
            sections_[i].memory.counts.resize(section.chunks);
            sections_[i].slice = sections_[i].memory.slice(section, 0, 0);
            sections_[i].cut = true;
        }
    }

    /// Takes the next batch, in the order of devices and batches. Returns the tensors that are complete with it and
    /// were not before.
    [[nodiscard]] range take(device_chooser& device, const device_chooser::batch& batch) {
        const std::span<const shard_part> parts = device.parts();
        if (parts[batch.from].tensor == 0 && parts[batch.from].first == 0) complete_ = 0;
        const std::size_t before = complete_;
        for (std::size_t p = batch.from; p < batch.to; ++p) {
            gathered& to = sections_[parts[p].tensor];
            const section_slice from = device.slice(p);
            if (!to.cut) {
                to.slice = from;
            } else {
                const std::size_t chunk = parts[p].first / to.chunk_size, place = chunk * to.slice.stride;
                std::ranges::copy(from.positions, to.slice.positions.subspan(place).begin());
                std::ranges::copy(from.values, to.slice.values.subspan(place).begin());
                std::ranges::copy(from.counts, to.slice.counts.subspan(chunk).begin());
                if (chunk + from.counts.size() < to.slice.counts.size()) continue;
            }
            complete_ = parts[p].tensor + 1;
        }
        return {before, complete_};
    }
    /// Of a tensor that is complete.
    [[nodiscard]] section_slice section(std::size_t tensor) const noexcept { return sections_[tensor].slice; }

 private:
    struct gathered {
        section_slice slice{};
        sparse_content memory{};
        std::size_t chunk_size = 1;
        bool cut = false;
    };
    std::vector<gathered> sections_;
    std::size_t complete_ = 0;
};

}  // namespace thinwire::cuda::detail

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_GATHERED_SECTIONS_CUH
