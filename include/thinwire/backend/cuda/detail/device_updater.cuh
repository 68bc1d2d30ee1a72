#ifndef THINWIRE_BACKEND_CUDA_DETAIL_DEVICE_UPDATER_CUH
#define THINWIRE_BACKEND_CUDA_DETAIL_DEVICE_UPDATER_CUH

#include <thinwire/backend/cuda/detail/apply_kernel.cuh>
#include <thinwire/backend/cuda/detail/content.cuh>
#include <thinwire/backend/cuda/detail/device_model.cuh>
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

/// The half of demo that applies commits, on one device: the update of all weights with what was decoded. Every call
/// makes the stream's device the one in use for as long as it takes.
class device_updater {
 public:
    /// The plan stays where it is.
    device_updater(std::span<const parameter> tensors, const ::thinwire::detail::chunk_plan& plan, stream& on)
        : stream_(&on), tensors_(tensors.begin(), tensors.end()), plan_(&plan), model_(tensors, plan, on, false) {
        if (!in_shared_memory()) {
            const std::size_t elements = work_blocks() * model_.view().max_size;
            work_sums_ = device_buffer<std::uint64_t>(elements, "work sums");
            work_middle_ = device_buffer<std::int32_t>(elements, "work middle");
        }
        updated_.record(on);
    }

    [[nodiscard]] std::span<const parameter> tensors() const noexcept { return tensors_; }
    [[nodiscard]] stream& on() const noexcept { return *stream_; }
    /// Returns when the last update is done: nothing that was staged for it is needed any more.
    void wait() { updated_.wait(); }

    /// Brings the bases, as they are in the plan, to the device.
    void upload_tables() {
        const device_scope here(stream_->device());
        model_.upload_tables(*stream_);
    }
    /// Gives the update with the payloads of `senders`. `weights`: what they weigh, none where all count alike.
    /// Precondition: waited.
    void update(const payload_info& info, staged_content& received, std::size_t senders,
                std::span<const contribution_weight> weights) {
        const device_scope here(stream_->device());
        if (room_ < received.payloads()) {
            received_ = device_content(plan_->layout(), received.payloads());
            room_ = received.payloads();
        }
        if (weights_.size() < weights.size())
            weights_ = device_buffer<contribution_weight>(weights.size(), "weights of contributions");
        model_.set_rates(info);
        model_.upload(*stream_);
        received_.upload(*stream_, received, senders);
        copy_to_device<contribution_weight>(*stream_, weights, weights_.span().subspan(0, weights.size()));
        const auto give_weighted = [&](auto shared) {
            weights.empty() ? give(shared, std::false_type{}, senders, 0)
                            : give(shared, std::true_type{}, senders, weights.size());
        };
        in_shared_memory() ? give_weighted(std::true_type{}) : give_weighted(std::false_type{});
        updated_.record(*stream_);
    }

    /// Asks for a share of the weights: `to` has as many elements. Returns how many.
    std::size_t stage_share(std::size_t share, std::span<float> to) {
        const device_scope here(stream_->device());
        std::size_t at = 0;
        for (const parameter& p : tensors_) {
            const auto [from, count] = ::thinwire::detail::share_of(p.values.size(), share);
            copy_to_host<float>(*stream_, p.values.subspan(from, count), to.subspan(at, count));
            at += count;
        }
        share_copied_.record(*stream_);
        return at;
    }
    /// Returns when it is there.
    void wait_for_share() { share_copied_.wait(); }

 private:
    static constexpr std::size_t most_blocks = 1U << 14U;
    static constexpr std::size_t most_work_blocks = 64;

    [[nodiscard]] bool in_shared_memory() const noexcept { return plan_->max_chunk_size() <= shared_chunk; }
    [[nodiscard]] std::size_t work_blocks() const noexcept {
        return std::min<std::size_t>(most_work_blocks, model_.chunks());
    }
    template <bool Shared, bool Weighted>
    void give(std::bool_constant<Shared>, std::bool_constant<Weighted>, std::size_t senders, std::size_t weights) {
        const apply_kernel<Shared, Weighted> kernel = {.model = model_.view(),
                                                       .received = received_.view(),
                                                       .weights = weights_.span().subspan(0, weights),
                                                       .senders = static_cast<std::uint32_t>(senders),
                                                       .coefficients = plan_->layout().coefficients(),
                                                       .chunks = model_.chunks(),
                                                       .sums_work = work_sums_.span(),
                                                       .middle_work = work_middle_.span()};
        launch(*stream_, kernel,
               static_cast<unsigned>(std::min<std::size_t>(model_.chunks(), Shared ? most_blocks : work_blocks())),
               kernel.shared_bytes(kernel.model));
    }

    stream* stream_;
    std::vector<parameter> tensors_;
    const ::thinwire::detail::chunk_plan* plan_;
    device_model model_;
    device_content received_;
    std::size_t room_ = 0;  ///< payloads in received_
    device_buffer<contribution_weight> weights_;
    device_buffer<std::uint64_t> work_sums_;
    device_buffer<std::int32_t> work_middle_;
    event updated_, share_copied_;
};

}  // namespace thinwire::cuda::detail

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_DEVICE_UPDATER_CUH
