#ifndef THINWIRE_BACKEND_CUDA_DETAIL_DEVICE_POOL_CUH
#define THINWIRE_BACKEND_CUDA_DETAIL_DEVICE_POOL_CUH

#include <thinwire/backend/cuda/device.cuh>
#include <thinwire/core/error.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace thinwire::cuda::detail {

/// Device memory that is used again when its owner is done with it, so that what was had once is had without a call of
/// the driver. All users work on one stream, whose order keeps the old and the new owner apart.
class device_pool {
 public:
    explicit device_pool(stream& on) : stream_(&on) {}

    /// At least so many floats, not initialised. Throws device_error when the device has no more, even after everything
    /// that lies idle was given back to it.
    [[nodiscard]] device_buffer<float> take(std::size_t elements) {
        const std::size_t wanted = rounded(elements);
        auto best = idle_.end();
        for (auto it = idle_.begin(); it != idle_.end(); ++it)
            if (it->size() >= wanted && it->size() / 2 <= wanted && (best == idle_.end() || it->size() < best->size()))
                best = it;
        if (best != idle_.end()) {
            std::swap(*best, idle_.back());
            device_buffer<float> out = std::move(idle_.back());
            idle_.pop_back();
            return out;
        }
        idle_.reserve(++made_);  // so that give_back() needs no memory
        return make<float>(wanted, "pool");
    }
    void give_back(device_buffer<float>&& buffer) noexcept { idle_.push_back(std::move(buffer)); }

    /// Memory that does not come back here. What lies idle makes room for it, too.
    template <class T>
    [[nodiscard]] device_buffer<T> make(std::size_t elements, const char* what) {
        try {
            return device_buffer<T>(elements, what);
        } catch (const error&) {
            if (idle_.empty()) throw;
            stream_->synchronize();
            idle_.clear();
            return device_buffer<T>(elements, what);
        }
    }
    [[nodiscard]] stream& on() const noexcept { return *stream_; }

 private:
    /// Small ones by powers of two, large ones by two million floats: sizes that come again meet.
    [[nodiscard]] static std::size_t rounded(std::size_t elements) {
        constexpr std::size_t step = std::size_t{1} << 21U;
        if (elements <= step) return std::max<std::size_t>(64, std::bit_ceil(elements));
        return (elements + step - 1) / step * step;
    }

    stream* stream_;
    std::vector<device_buffer<float>> idle_;
    std::size_t made_ = 0;
};

/// Device memory for what one operation leaves to its next kernel; grows to what the largest needed.
template <class T>
class device_scratch {
 public:
    /// Not initialised; the last one that was handed out is void.
    [[nodiscard]] device_span<T> take(device_pool& pool, std::size_t elements) {
        if (elements > buffer_.size()) {
            pool.on().synchronize();  // the old one may be in use
            buffer_ = {};
            buffer_ = pool.make<T>(elements + elements / 8, "scratch");
        }
        return buffer_.span().subspan(0, elements);
    }

 private:
    device_buffer<T> buffer_;
};

/// Numbers of the host on their way to the device: through pinned memory that is written again only when its copy has
/// run, in so many places that a training step finds those of the last step free.
class id_stage {
 public:
    /// The numbers of all parts, one after the other, at their turn in the stream; `ids` itself is free on return.
    [[nodiscard]] device_span<const std::int32_t> bring(device_pool& pool,
                                                        std::span<const std::span<const std::int32_t>> parts) {
        stream& on = pool.on();
        std::size_t count = 0;
        for (const auto& part : parts) count += part.size();
        if (count > room_) {
            on.synchronize();  // all places are free, and no kernel reads what they brought
            const std::size_t room = count + count / 8;
            pinned_buffer<std::int32_t> pinned(room * places);  // both, or nothing has changed
            device_buffer<std::int32_t> ids = pool.make<std::int32_t>(room * places, "ids");
            pinned_ = std::move(pinned);
            ids_ = std::move(ids);
            room_ = room;
            used_ = 0;
        }
        const std::size_t place = used_++ % places;
        if (used_ > places) copied_[place].wait();
        const std::span<std::int32_t> from = pinned_.span().subspan(place * room_, count);
        auto to = from.begin();
        for (const auto& part : parts) to = std::copy(part.begin(), part.end(), to);
        const device_span<std::int32_t> ids = ids_.span().subspan(place * room_, count);
        copy_to_device<std::int32_t>(on, from, ids);
        copied_[place].record(on);
        return ids;
    }

 private:
    static constexpr std::size_t places = 8;
    pinned_buffer<std::int32_t> pinned_{};
    device_buffer<std::int32_t> ids_{};
    std::array<event, places> copied_{};
    std::size_t room_ = 0;  ///< numbers in a place
    std::size_t used_ = 0;  ///< places taken since there is this room, again and again
};

}  // namespace thinwire::cuda::detail

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_DEVICE_POOL_CUH
