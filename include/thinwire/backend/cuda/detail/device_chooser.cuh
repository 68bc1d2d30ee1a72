#ifndef THINWIRE_BACKEND_CUDA_DETAIL_DEVICE_CHOOSER_CUH
#define THINWIRE_BACKEND_CUDA_DETAIL_DEVICE_CHOOSER_CUH

#include <thinwire/backend/cuda/detail/choose_kernel.cuh>
#include <thinwire/backend/cuda/detail/content.cuh>
#include <thinwire/backend/cuda/detail/device_model.cuh>
#include <thinwire/backend/cuda/detail/measure_kernel.cuh>
#include <thinwire/backend/cuda/detail/optimizer_parts.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace thinwire::cuda::detail {

/// What `part` of a tensor is, as a tensor.
[[nodiscard]] inline parameter part_of(const parameter& whole, const shard_part& part) {
    const std::size_t count = part.shape.count();
    return {.name = whole.name,
            .shape = part.shape,
            .values = whole.values.subspan(part.first, count),
            .gradient = whole.gradient.subspan(part.first, count)};
}

/// The half of demo that makes payloads, on one device: the momentum of some chunks, one after the other, and the
/// choice of what is sent of them. Every call makes the stream's device the one in use for as long as it takes.
class device_chooser {
 public:
    /// Regions of parts whose coefficients are encoded while the device chooses those of the next.
    struct batch {
        std::size_t from = 0, to = 0;  ///< regions
        std::size_t first_coefficient = 0, coefficients = 0;
        std::size_t first_chunk = 0, chunks = 0;
        event chosen{};  ///< their coefficients are on the host
    };

    /// Of the parts of these tensors; `whole` is the plan of the tensors.
    device_chooser(std::vector<shard_part> parts, std::span<const parameter> tensors,
                   const ::thinwire::detail::chunk_plan& whole, const demo_options& options, stream& on)
        : stream_(&on),
          parts_(std::move(parts)),
          held_(views_of(parts_, tensors)),
          plan_(planned(held_, parts_, whole, options)),
          model_(held_, plan_, on, true),
          staged_(plan_.layout(), 1),
          sent_(plan_.layout(), 1),
          numbers_(1, "numbers"),
          staged_numbers_(1) {
        sent_.upload(on, staged_, 1);
        if (!in_shared_memory()) work_ = device_buffer<float>(2 * work_blocks() * model_.view().max_size, "work");
        prepare_batches();
        on.synchronize();
    }

    [[nodiscard]] std::span<const shard_part> parts() const noexcept { return parts_; }
    /// Where the tensors' parts begin in the momentum and in what is staged.
    [[nodiscard]] const ::thinwire::detail::chunk_plan& plan() const noexcept { return plan_; }
    [[nodiscard]] stream& on() const noexcept { return *stream_; }
    [[nodiscard]] device_span<float> momentum() const noexcept { return model_.momentum(); }
    [[nodiscard]] staged_content& staged() noexcept { return staged_; }
    [[nodiscard]] std::span<batch> batches() noexcept { return batches_; }
    [[nodiscard]] device_span<float> gradient(std::size_t part) const noexcept { return held_[part].gradient; }

    void set_gradient(std::size_t part, const device_span<float>& gradient) {
        held_[part].gradient = gradient;
        model_.set_gradient(part, gradient);
    }
    /// Brings the bases of a round to the device.
    void set_round(std::uint64_t round, thread_pool* pool) {
        const device_scope here(stream_->device());
        plan_.set_round(round, pool);
        model_.upload_tables(*stream_);
    }

    /// The blocks of the gradient that are measured: those of this device are `all` from number `first` on, of all
    /// devices.
    [[nodiscard]] std::span<const gradient_piece> pieces() const noexcept { return model_.pieces(); }
    void prepare_measures(std::size_t first, std::size_t all) {
        const device_scope here(stream_->device());
        first_piece_ = first;
        measures_ = device_buffer<piece_measure>(all, "measures");
    }
    [[nodiscard]] device_span<piece_measure> measures(std::size_t first, std::size_t count) const {
        return measures_.span().subspan(first, count);
    }
    void measure() {
        const device_scope here(stream_->device());
        model_.upload(*stream_);
        const std::size_t count = pieces().size();
        if (count == 0) return;
        launch(*stream_,
               measure_kernel{.regions = model_.view().regions,
                              .pieces = model_.device_pieces(),
                              .measures = measures(first_piece_, count)},
               static_cast<unsigned>(count), measure_kernel::shared_bytes());
    }
    /// With the measures of all devices there.
    void decide(double gain, float clip_norm) {
        const device_scope here(stream_->device());
        launch(*stream_,
               decide_kernel{.measures = measures_.span(),
                             .numbers = numbers_.span(),
                             .gain = gain,
                             .clip_norm = static_cast<double>(clip_norm)},
               1, decide_kernel::shared_bytes());
        copy_to_host<step_numbers>(*stream_, numbers_.span(), staged_numbers_.span());
        measured_.record(*stream_);
    }
    /// When it was reached, numbers() are there.
    [[nodiscard]] event& measured() noexcept { return measured_; }
    [[nodiscard]] const step_numbers& numbers() const noexcept { return staged_numbers_.span()[0]; }

    /// Takes the gradient into the momentum, `taken` of what was sent out of it, and chooses up to `most` coefficients
    /// of a chunk, batch by batch.
    void choose(float decay, float taken, std::uint32_t most) {
        const device_scope here(stream_->device());
        for (batch& b : batches_) {
            give(b.first_chunk, b.chunks, decay, taken, most, true);
            sent_.download(*stream_, staged_, b.first_coefficient, b.coefficients, b.first_chunk, b.chunks);
            b.chosen.record(*stream_);
        }
    }
    /// `taken` of what was sent goes out of the momentum.
    void take_out(float taken) {
        const device_scope here(stream_->device());
        model_.upload(*stream_);
        give(0, model_.chunks(), 1.0F, taken, 0, false);
    }
    /// The staged values, changed by the host, or all that is staged.
    void upload_values() {
        const device_scope here(stream_->device());
        sent_.upload_values(*stream_, staged_, 1);
    }
    void upload() {
        const device_scope here(stream_->device());
        sent_.upload(*stream_, staged_, 1);
    }

    /// The staged coefficients of a region.
    [[nodiscard]] section_slice slice(std::size_t region) noexcept {
        const auto& t = plan_.regions()[region];
        const std::size_t coefficients = plan_.layout().sections[region].coefficients();
        return {.positions = staged_.positions().subspan(t.first_coefficient, coefficients),
                .values = staged_.values().subspan(t.first_coefficient, coefficients),
                .counts = staged_.counts().subspan(t.first_chunk, t.grid.count()),
                .stride = t.kept};
    }

 private:
    static constexpr std::size_t most_blocks = 1U << 14U;
    static constexpr std::size_t most_work_blocks = 64;

    [[nodiscard]] static std::vector<parameter> views_of(std::span<const shard_part> parts,
                                                         std::span<const parameter> tensors) {
        std::vector<parameter> out;
        for (const shard_part& part : parts) out.push_back(part_of(tensors[part.tensor], part));
        return out;
    }
    [[nodiscard]] static ::thinwire::detail::chunk_plan planned(std::span<const parameter> held,
                                                                std::span<const shard_part> parts,
                                                                const ::thinwire::detail::chunk_plan& whole,
                                                                const demo_options& options) {
        ::thinwire::detail::plan_origin origin;
        for (const shard_part& part : parts) {
            origin.tensors.push_back(part.tensor);
            origin.settings.push_back(whole.tensors()[part.tensor].settings);
        }
        return {shapes_of(held), options, &origin};
    }

    [[nodiscard]] bool in_shared_memory() const noexcept { return plan_.max_chunk_size() <= shared_chunk; }
    [[nodiscard]] std::size_t work_blocks() const noexcept {
        return std::min<std::size_t>(most_work_blocks, model_.chunks());
    }

    void prepare_batches() {
        const std::size_t least = std::max<std::size_t>(1, model_.chunks() / 8);
        batch next;
        const std::size_t regions = plan_.regions().size();
        for (std::size_t i = 0; i < regions; ++i) {
            const payload_section& section = plan_.layout().sections[i];
            next.to = i + 1;
            next.chunks += section.chunks;
            next.coefficients += section.coefficients();
            if (next.chunks < least && next.to < regions) continue;
            batch rest = {.from = next.to,
                          .to = next.to,
                          .first_coefficient = next.first_coefficient + next.coefficients,
                          .first_chunk = next.first_chunk + next.chunks};
            batches_.push_back(std::exchange(next, std::move(rest)));
        }
    }

    void give(std::size_t first, std::size_t count, float decay, float taken, std::uint32_t most, bool select) {
        if (count == 0) return;
        const auto give_as = [&]<bool Shared>(std::bool_constant<Shared>) {
            const choose_kernel<Shared> kernel = {.model = model_.view(),
                                                  .sent = sent_.view(),
                                                  .numbers = numbers_.span(),
                                                  .work = work_.span(),
                                                  .from = static_cast<std::uint32_t>(first),
                                                  .to = static_cast<std::uint32_t>(first + count),
                                                  .decay = decay,
                                                  .taken = taken,
                                                  .most = most,
                                                  .select = select,
                                                  .sends_zero = plan_.layout().codec->sends_zero()};
            launch(*stream_, kernel, static_cast<unsigned>(std::min(count, Shared ? most_blocks : work_blocks())),
                   kernel.shared_bytes(kernel.model));
        };
        in_shared_memory() ? give_as(std::true_type{}) : give_as(std::false_type{});
    }

    stream* stream_;
    std::vector<shard_part> parts_;
    std::vector<parameter> held_;  ///< the parts as tensors
    ::thinwire::detail::chunk_plan plan_;
    device_model model_;
    staged_content staged_;  ///< what this peer last sent; with sign values, what the signs stand for
    device_content sent_;    ///< the same
    std::size_t first_piece_ = 0;
    device_buffer<piece_measure> measures_;  ///< of the pieces of all devices
    device_buffer<step_numbers> numbers_;
    pinned_buffer<step_numbers> staged_numbers_;
    event measured_;
    device_buffer<float> work_;
    std::vector<batch> batches_;
};

}  // namespace thinwire::cuda::detail

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_DEVICE_CHOOSER_CUH
