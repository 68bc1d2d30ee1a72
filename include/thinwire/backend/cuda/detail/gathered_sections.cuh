#ifndef THINWIRE_BACKEND_CUDA_DETAIL_GATHERED_SECTIONS_CUH
#define THINWIRE_BACKEND_CUDA_DETAIL_GATHERED_SECTIONS_CUH

#include <thinwire/backend/cuda/detail/device_chooser.cuh>
#include <thinwire/backend/cuda/detail/optimizer_parts.hpp>

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

namespace thinwire::cuda::detail {

/// The staged coefficients of whole sections: where a device staged them, or put together where several parts are
/// staged.
class gathered_sections {
 public:
    /// Sections [from, to).
    struct range {
        std::size_t from, to;
    };

    gathered_sections() = default;
    gathered_sections(std::span<const std::unique_ptr<device_chooser>> devices,
                      const ::thinwire::detail::chunk_plan& plan)
        : sections_(plan.regions().size()) {
        std::vector<std::vector<shard_part>> parts;
        std::vector<payload_layout> layouts;
        for (const auto& d : devices) {
            parts.emplace_back(d->parts().begin(), d->parts().end());
            layouts.push_back(d->plan().layout());
        }
        places_ = ::thinwire::detail::section_places(parts, layouts, sections_.size());
        std::vector<std::size_t> pieces(sections_.size());
        for (const auto& of_device : places_)
            for (const auto& place : of_device) ++pieces[place.section];
        for (std::size_t i = 0; i < sections_.size(); ++i) {
            if (pieces[i] < 2) continue;
            const payload_section& section = plan.layout().sections[i];
            sections_[i].memory.positions.resize(section.coefficients());
            sections_[i].memory.values.resize(section.coefficients());
            sections_[i].memory.counts.resize(section.chunks);
            sections_[i].slice = sections_[i].memory.slice(section, 0, 0);
            sections_[i].cut = true;
        }
    }

    /// Takes the next batch of device number `number`, in the order of devices and batches. Returns the sections that
    /// are complete with it and were not before.
    [[nodiscard]] range take(std::size_t number, device_chooser& device, const device_chooser::batch& batch) {
        if (places_[number][batch.from].section == 0 && places_[number][batch.from].chunk == 0) complete_ = 0;
        const std::size_t before = complete_;
        for (std::size_t r = batch.from; r < batch.to; ++r) {
            const auto& [section, chunk] = places_[number][r];
            gathered& to = sections_[section];
            const section_slice from = device.slice(r);
            if (!to.cut) {
                to.slice = from;
            } else {
                copy_section(from, to.slice.chunks(chunk, from.counts.size()));
                if (chunk + from.counts.size() < to.slice.counts.size()) continue;
            }
            complete_ = section + 1;
        }
        return {before, complete_};
    }
    /// Of one that is complete.
    [[nodiscard]] section_slice section(std::size_t i) const noexcept { return sections_[i].slice; }
    /// Where the sections of a device lie.
    [[nodiscard]] std::span<const ::thinwire::detail::section_place> places(std::size_t device) const noexcept {
        return places_[device];
    }

 private:
    struct gathered {
        section_slice slice{};
        sparse_content memory{};
        bool cut = false;
    };
    std::vector<gathered> sections_;
    std::vector<std::vector<::thinwire::detail::section_place>> places_;  ///< of the devices
    std::size_t complete_ = 0;
};

}  // namespace thinwire::cuda::detail

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_GATHERED_SECTIONS_CUH
