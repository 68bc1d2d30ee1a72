#ifndef THINWIRE_BACKEND_CUDA_DETAIL_DEVICE_MODEL_CUH
#define THINWIRE_BACKEND_CUDA_DETAIL_DEVICE_MODEL_CUH

#include <thinwire/backend/cuda/detail/fill_kernel.cuh>
#include <thinwire/backend/cuda/detail/measure_kernel.cuh>
#include <thinwire/backend/cuda/detail/optimizer_parts.hpp>
#include <thinwire/backend/cuda/detail/tensor_view.cuh>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace thinwire::cuda {

/// One trainable tensor on the device: where its weights and their gradient lie. Does not own either.
struct parameter {
    std::string name;
    thinwire::shape shape;
    device_span<float> values;    ///< shape.count() weights, row-major
    device_span<float> gradient;  ///< as many
};

namespace detail {

/// The same with spans that the host must not read: for what needs shapes only.
[[nodiscard]] inline std::vector<thinwire::parameter> shapes_of(std::span<const parameter> parameters) {
    std::vector<thinwire::parameter> out;
    for (const parameter& p : parameters)
        out.push_back({.name = p.name,
                       .shape = p.shape,
                       .values = {p.values.data(), p.values.size()},
                       .gradient = {p.gradient.data(), p.gradient.size()}});
    return out;
}

/// Throws value_error unless first and last of these elements of parameter `name`, which may lie anywhere, are in
/// memory that the device has, or that is managed.
template <class Elements>
void require_on_device(const Elements& elements, const char* what, const std::string& name, int device) {
    if (elements.size() == 0) return;
    for (const float* at : {elements.data(), elements.data() + elements.size() - 1}) {
        const memory_place place = place_of_memory(at);
        if (place.on_device && (place.managed || place.device == device)) continue;
        throw value_error(std::string("cuda::demo: ") + what + " of '" + name + "' " +
                          (place.on_device ? "on device " + std::to_string(place.device) : "not in a device's memory") +
                          ", expected memory of device " + std::to_string(device) + ", as the stream");
    }
}

/// Of spans that lie in the memory of that device; throws value_error where they do not.
[[nodiscard]] inline std::vector<parameter> on_device(std::span<const thinwire::parameter> parameters, int device) {
    std::vector<parameter> out;
    for (const thinwire::parameter& p : parameters) {
        require_on_device(p.values, "values", p.name, device);
        require_on_device(p.gradient, "gradient", p.name, device);
        out.push_back({.name = p.name,
                       .shape = p.shape,
                       .values = {p.values.data(), p.values.size()},
                       .gradient = {p.gradient.data(), p.gradient.size()}});
    }
    return out;
}

/// How the tensors are cut, their bases and addresses, on the device that is in use when it is made, and their momentum
/// where the device has one of them.
class device_model {
 public:
    device_model(std::span<const parameter> parameters, const ::thinwire::detail::chunk_plan& plan, stream& on,
                 bool with_momentum)
        : plan_(&plan), momentum_(with_momentum ? plan.elements() : 0, "momentum") {
        launch(on, fill_kernel<float>{momentum_.span(), 0.0F}, fill_kernel<float>::blocks(momentum_.size()), 0);
        const std::size_t count = plan.regions().size();
        views_ = pinned_buffer<region_view>(count);
        device_views_ = device_buffer<region_view>(count, "regions");
        pinned_buffer<std::uint32_t> first(count);
        first_chunks_ = device_buffer<std::uint32_t>(count, "first chunks");
        for (std::size_t i = 0; i < count; ++i) {
            const auto& t = plan.regions()[i];
            const auto& of = plan.tensors()[t.tensor];
            const parameter& tensor = parameters[t.tensor];
            views_.span()[i] = {.values = tensor.values,
                                .gradient = tensor.gradient,
                                .momentum = with_momentum
                                                ? momentum_.span().subspan(of.first_element, tensor.values.size())
                                                : device_span<float>(),
                                .first_element = t.grid.offset(0),
                                .stride = t.grid.stride(),
                                .matrix = t.grid.height() * t.grid.stride(),
                                .first_coefficient = t.first_coefficient,
                                .first_chunk = narrow(t.first_chunk),
                                .rows = narrow(t.grid.rows()),
                                .cols = narrow(t.grid.cols()),
                                .down = narrow(t.grid.down()),
                                .across = narrow(t.grid.across()),
                                .kept = narrow(t.kept),
                                .row_table = place_of_table(t.rows),
                                .column_table = place_of_table(t.cols),
                                .row_half = half_of_table(t.rows),
                                .column_half = half_of_table(t.cols),
                                .mirrored = folds(t.rows) && folds(t.cols) ? 1U : 0U,
                                .keeps_rest = t.keeps_rest ? 1U : 0U,
                                .by_sign = of.settings.scope == update_scope::sign ? 1U : 0U};
            first.span()[i] = narrow(t.first_chunk);
            chunks_ += t.grid.count();
        }
        if (chunks_ > most_chunks)
            throw value_error("cuda::demo: " + std::to_string(chunks_) + " chunks, expected below 2^31");
        copy_to_device<std::uint32_t>(on, std::as_const(first).span(), first_chunks_.span());
        prepare_tables();
        prepare_pieces(parameters);
        copy_to_device<gradient_piece>(on, std::as_const(pieces_).span(), device_pieces_.span());
        upload_tables(on);
        on.synchronize();  // `first` goes
    }

    [[nodiscard]] model_view view() const noexcept {
        return {.regions = device_views_.span(),
                .first_chunks = first_chunks_.span(),
                .forward = device_forward_.span(),
                .halves = device_halves_.span(),
                .inverse = device_inverse_.span(),
                .exact = device_exact_.span(),
                .max_size = narrow((plan_->max_chunk_size() + 3) / 4 * 4),
                .max_rows = narrow(plan_->max_rows()),
                .max_cols = narrow(plan_->max_cols())};
    }
    [[nodiscard]] device_span<float> momentum() const noexcept { return momentum_.span(); }
    [[nodiscard]] std::uint32_t chunks() const noexcept { return narrow(chunks_); }
    [[nodiscard]] std::span<const gradient_piece> pieces() const noexcept { return pieces_.span(); }
    [[nodiscard]] device_span<const gradient_piece> device_pieces() const noexcept { return device_pieces_.span(); }

    void set_gradient(std::size_t i, const device_span<float>& gradient) {
        wait();
        const auto& t = plan_->tensors()[i];
        for (std::size_t r = t.first_region; r < t.last_region; ++r) views_.span()[r].gradient = gradient;
        stale_ = true;
    }
    /// The numbers of an update.
    void set_rates(const payload_info& info) {
        wait();
        for (std::size_t i = 0; i < views_.size(); ++i) {
            const auto rates =
                ::thinwire::detail::rates_of(plan_->tensors()[plan_->regions()[i].tensor].settings, info);
            views_.span()[i].step = rates.step;
            views_.span()[i].factor = rates.factor;
        }
        stale_ = true;
    }
    /// Brings what was set to the device.
    void upload(stream& on) {
        if (!std::exchange(stale_, false)) return;
        copy_to_device<region_view>(on, std::as_const(views_).span(), device_views_.span());
        uploaded_.record(on);
        uploading_ = true;
    }
    /// The bases, as they are in the plan.
    void upload_tables(stream& on) {
        wait();
        for (const auto& [table, at] : tables_) {
            const std::size_t side = table->side();
            for (std::size_t f = 0; f < side; ++f)
                for (std::size_t x = 0; x < side; ++x) {
                    const float value = table->template synthesis<float>()[f * table->full() + x];
                    inverse_.span()[at + f * side + x] = forward_.span()[at + x * side + f] = value;
                    exact_.span()[at + f * side + x] =
                        static_cast<std::int32_t>(table->template synthesis<double>()[f * table->full() + x]);
                    if (x < side / 2) halves_.span()[at / 2 + x * side + (f % 2 == 0 ? f / 2 : (side + f) / 2)] = value;
                }
        }
        copy_to_device<float>(on, std::as_const(halves_).span(), device_halves_.span());
        copy_to_device<float>(on, std::as_const(forward_).span(), device_forward_.span());
        copy_to_device<float>(on, std::as_const(inverse_).span(), device_inverse_.span());
        copy_to_device<std::int32_t>(on, std::as_const(exact_).span(), device_exact_.span());
        uploaded_.record(on);
        uploading_ = true;
    }

 private:
    static constexpr std::size_t most_chunks = (std::size_t{1} << 31U) - 1;

    [[nodiscard]] static std::uint32_t narrow(std::size_t n) noexcept { return static_cast<std::uint32_t>(n); }

    /// Before staged memory is written again.
    void wait() {
        if (std::exchange(uploading_, false)) uploaded_.wait();
    }
    [[nodiscard]] std::uint32_t place_of_table(const basis_tables* table) {
        for (const auto& [known, at] : tables_)
            if (known == table) return narrow(at);
        tables_.emplace_back(table, table_elements_);
        table_elements_ +=
            (table->side() * table->side() + 7) / 8 * 8;  // each begins at a multiple of 16 bytes, its half too
        return narrow(tables_.back().second);
    }
    [[nodiscard]] std::uint32_t half_of_table(const basis_tables* table) { return place_of_table(table) / 2; }
    [[nodiscard]] static bool folds(const basis_tables* table) noexcept {
        return table->mirrored() && table->side() % 16 == 0;
    }
    void prepare_tables() {
        halves_ = pinned_buffer<float>(table_elements_ / 2);
        device_halves_ = device_buffer<float>(table_elements_ / 2, "halves of bases");
        forward_ = pinned_buffer<float>(table_elements_);
        inverse_ = pinned_buffer<float>(table_elements_);
        exact_ = pinned_buffer<std::int32_t>(table_elements_);
        device_forward_ = device_buffer<float>(table_elements_, "forward bases");
        device_inverse_ = device_buffer<float>(table_elements_, "inverse bases");
        device_exact_ = device_buffer<std::int32_t>(table_elements_, "exact bases");
    }
    void prepare_pieces(std::span<const parameter> parameters) {
        constexpr std::size_t most = 1U << 15U;
        std::vector<gradient_piece> pieces;
        for (std::size_t i = 0; i < parameters.size(); ++i)
            for (std::size_t from = 0; from < parameters[i].values.size(); from += most)
                pieces.push_back({.from = from,
                                  .region = narrow(plan_->tensors()[i].first_region),
                                  .count = narrow(std::min(most, parameters[i].values.size() - from))});
        pieces_ = pinned_buffer<gradient_piece>(pieces.size());
        device_pieces_ = device_buffer<gradient_piece>(pieces.size(), "pieces");
        std::copy(pieces.begin(), pieces.end(), pieces_.span().begin());
    }

    const ::thinwire::detail::chunk_plan* plan_;
    device_buffer<float> momentum_;
    std::size_t chunks_ = 0;
    pinned_buffer<region_view> views_;
    device_buffer<region_view> device_views_;
    device_buffer<std::uint32_t> first_chunks_;
    std::vector<std::pair<const basis_tables*, std::size_t>> tables_;
    std::size_t table_elements_ = 0;
    pinned_buffer<float> forward_, halves_, inverse_;
    pinned_buffer<std::int32_t> exact_;
    device_buffer<float> device_forward_, device_halves_, device_inverse_;
    device_buffer<std::int32_t> device_exact_;
    pinned_buffer<gradient_piece> pieces_;
    device_buffer<gradient_piece> device_pieces_;
    event uploaded_;
    bool uploading_ = false;
    bool stale_ = true;
};

}  // namespace detail

}  // namespace thinwire::cuda

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_DEVICE_MODEL_CUH
