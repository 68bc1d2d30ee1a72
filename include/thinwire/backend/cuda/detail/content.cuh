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

/// The unpacked coefficients of some payloads of one layout, one after the other, on the host, where devices copy them
/// from and to.
class staged_content {
 public:
    staged_content() = default;
    staged_content(const payload_layout& layout, std::size_t payloads)
        : coefficients_(layout.coefficients()),
          chunks_(layout.chunks()),
          positions_(payloads * coefficients_),
          values_(payloads * coefficients_),
          counts_(payloads * chunks_) {}

    [[nodiscard]] std::size_t payloads() const noexcept { return chunks_ == 0 ? 0 : counts_.size() / chunks_; }
    [[nodiscard]] std::size_t coefficients() const noexcept { return coefficients_; }
    [[nodiscard]] std::size_t chunks() const noexcept { return chunks_; }

    [[nodiscard]] std::span<std::uint16_t> positions() noexcept { return positions_.span(); }
    [[nodiscard]] std::span<float> values() noexcept { return values_.span(); }
    [[nodiscard]] std::span<std::uint32_t> counts() noexcept { return counts_.span(); }

    /// Payload n.
    [[nodiscard]] section_slice operator[](std::size_t n) noexcept {
        return {.positions = positions().subspan(n * coefficients_, coefficients_),
                .values = values().subspan(n * coefficients_, coefficients_),
                .counts = counts().subspan(n * chunks_, chunks_)};
    }
    void stage(std::size_t n, const sparse_content& from) noexcept {
        const section_slice to = (*this)[n];
        std::copy(from.positions.begin(), from.positions.end(), to.positions.begin());
        std::copy(from.values.begin(), from.values.end(), to.values.begin());
        std::copy(from.counts.begin(), from.counts.end(), to.counts.begin());
    }
    /// Payload n sends nothing.
    void stage_nothing(std::size_t n) noexcept { std::ranges::fill((*this)[n].counts, 0U); }

 private:
    std::size_t coefficients_ = 0, chunks_ = 0;
    pinned_buffer<std::uint16_t> positions_;
    pinned_buffer<float> values_;
    pinned_buffer<std::uint32_t> counts_;
};

/// The same on the device that is in use when it is made. Copies are given to a stream; staged memory stays as it is
/// until then.
class device_content {
 public:
    device_content() = default;
    device_content(const payload_layout& layout, std::size_t payloads)
        : positions_(payloads * layout.coefficients(), "positions"),
          values_(payloads * layout.coefficients(), "values"),
          counts_(payloads * layout.chunks(), "counts") {}

    [[nodiscard]] content_view view() const noexcept {
        return {.positions = positions_.span(), .values = values_.span(), .counts = counts_.span()};
    }

    /// The first `payloads` of them.
    void upload(stream& on, staged_content& from, std::size_t payloads) {
        upload_values(on, from, payloads);
        part_up<std::uint16_t>(on, from.positions(), positions_, payloads * from.coefficients());
        part_up<std::uint32_t>(on, from.counts(), counts_, payloads * from.chunks());
    }
    void upload_values(stream& on, staged_content& from, std::size_t payloads) {
        part_up<float>(on, from.values(), values_, payloads * from.coefficients());
    }
    /// Some chunks of the first payload and their coefficients.
    void download(stream& on, staged_content& to, std::size_t first_coefficient, std::size_t coefficients,
                  std::size_t first_chunk, std::size_t chunks) {
        part_down<std::uint16_t>(on, positions_, to.positions(), first_coefficient, coefficients);
        part_down<float>(on, values_, to.values(), first_coefficient, coefficients);
        part_down<std::uint32_t>(on, counts_, to.counts(), first_chunk, chunks);
    }

 private:
    template <class T>
    static void part_up(stream& on, std::span<const T> from, const device_buffer<T>& to, std::size_t count) {
        copy_to_device<T>(on, from.first(count), to.span().subspan(0, count));
    }
    template <class T>
    static void part_down(stream& on, const device_buffer<T>& from, std::span<T> to, std::size_t first,
                          std::size_t count) {
        copy_to_host<T>(on, from.span().subspan(first, count), to.subspan(first, count));
    }

    device_buffer<std::uint16_t> positions_;
    device_buffer<float> values_;
    device_buffer<std::uint32_t> counts_;
};

}  // namespace thinwire::cuda::detail

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_CONTENT_CUH
