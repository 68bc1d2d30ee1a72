#ifndef THINWIRE_BACKEND_CUDA_DETAIL_CONTENT_CUH
#define THINWIRE_BACKEND_CUDA_DETAIL_CONTENT_CUH

#include <thinwire/backend/cuda/detail/choose_kernel.cuh>
#include <thinwire/backend/cuda/detail/optimizer_parts.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace thinwire::cuda::detail {

/// The unpacked coefficients of some payloads of one layout, one after the other: on the device, and staged on the
/// host.
class content {
 public:
    content() = default;
    content(const payload_layout& layout, std::size_t payloads)
        : coefficients_(layout.coefficients()),
          chunks_(layout.chunks()),
          positions_(payloads * coefficients_),
          values_(payloads * coefficients_),
          counts_(payloads * chunks_),
          device_positions_(payloads * coefficients_, "positions"),
          device_values_(payloads * coefficients_, "values"),
          device_counts_(payloads * chunks_, "counts") {}

    [[nodiscard]] std::size_t payloads() const noexcept { return chunks_ == 0 ? 0 : counts_.size() / chunks_; }
    [[nodiscard]] content_view view() const noexcept {
        return {
            .positions = device_positions_.span(), .values = device_values_.span(), .counts = device_counts_.span()};
    }

    /// Staged memory of payload n.
    [[nodiscard]] section_slice staged(std::size_t n) noexcept {
        return {.positions = positions_.span().subspan(n * coefficients_, coefficients_),
                .values = values_.span().subspan(n * coefficients_, coefficients_),
                .counts = counts_.span().subspan(n * chunks_, chunks_)};
    }
    void stage(std::size_t n, const sparse_content& from) noexcept {
        const section_slice to = staged(n);
        std::copy(from.positions.begin(), from.positions.end(), to.positions.begin());
        std::copy(from.values.begin(), from.values.end(), to.values.begin());
        std::copy(from.counts.begin(), from.counts.end(), to.counts.begin());
    }
    /// Payload n sends nothing.
    void stage_nothing(std::size_t n) noexcept { std::ranges::fill(staged(n).counts, 0U); }
    void unstage(std::size_t n, sparse_content& to) {
        const section_slice from = staged(n);
        to.positions.assign(from.positions.begin(), from.positions.end());
        to.values.assign(from.values.begin(), from.values.end());
        to.counts.assign(from.counts.begin(), from.counts.end());
    }

    /// The first `payloads` of them. Staged memory must stay as it is until that is done.
    void upload(stream& on, std::size_t payloads) {
        upload_values(on, payloads);
        part_up(on, positions_, device_positions_, payloads * coefficients_);
        part_up(on, counts_, device_counts_, payloads * chunks_);
    }
    void upload_values(stream& on, std::size_t payloads) {
        part_up(on, values_, device_values_, payloads * coefficients_);
    }
    /// Some chunks of the first payload and their coefficients, to staged memory.
    void download(stream& on, std::size_t first_coefficient, std::size_t coefficients, std::size_t first_chunk,
                  std::size_t chunks) {
        part_down(on, device_positions_, positions_, first_coefficient, coefficients);
        part_down(on, device_values_, values_, first_coefficient, coefficients);
        part_down(on, device_counts_, counts_, first_chunk, chunks);
    }

 private:
    template <class T>
    static void part_up(stream& on, const pinned_buffer<T>& from, const device_buffer<T>& to, std::size_t count) {
        copy_to_device<T>(on, from.span().first(count), to.span().subspan(0, count));
    }
    template <class T>
    static void part_down(stream& on, const device_buffer<T>& from, pinned_buffer<T>& to, std::size_t first,
                          std::size_t count) {
        copy_to_host<T>(on, from.span().subspan(first, count), to.span().subspan(first, count));
    }

    std::size_t coefficients_ = 0, chunks_ = 0;
    pinned_buffer<std::uint16_t> positions_;
    pinned_buffer<float> values_;
    pinned_buffer<std::uint32_t> counts_;
    device_buffer<std::uint16_t> device_positions_;
    device_buffer<float> device_values_;
    device_buffer<std::uint32_t> device_counts_;
};

}  // namespace thinwire::cuda::detail

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_CONTENT_CUH
