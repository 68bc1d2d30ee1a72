#ifndef THINWIRE_BACKEND_CUDA_DETAIL_EMULATED_DEVICE_HPP
#define THINWIRE_BACKEND_CUDA_DETAIL_EMULATED_DEVICE_HPP

#include <thinwire/backend/cuda/detail/emulated_block.hpp>
#include <thinwire/backend/cuda/detail/emulated_memory.hpp>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <exception>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// What follows a function that kernels call, and stands before it.
#define THINWIRE_KERNEL inline
/// Before a loop whose counter picks elements of a thread's own array: they are registers only if it is unrolled.
#define THINWIRE_UNROLL

namespace thinwire::cuda {

inline constexpr bool is_emulated = true;

/// Shared memory that one block may have: what the smallest device that CUDA 13 supports grants.
inline constexpr std::size_t most_shared_bytes = 64 * 1024;

/// The device that this thread allocates on and launches on.
[[nodiscard]] inline int current_device() noexcept {
    return detail::device_in_use;
}

/// Makes a device the one that this thread allocates on and launches on, until it goes.
class device_scope {
 public:
    /// Throws emulation_error where there is no such device.
    explicit device_scope(int device) : before_(detail::device_in_use) {
        if (device < 0 || device >= detail::emulated_devices)
            throw emulation_error(defect::arguments, "device " + std::to_string(device) + ", where there are " +
                                                         std::to_string(detail::emulated_devices));
        detail::device_in_use = device;
    }
    device_scope(const device_scope&) = delete;
    device_scope& operator=(const device_scope&) = delete;
    ~device_scope() { detail::device_in_use = before_; }

 private:
    int before_;
};

namespace detail {

/// How often a destructor waited for a stream that waits for ever; a device would never have come back.
inline std::atomic<int> endless_drains{0};

}  // namespace detail

/// Work that is done in the order in which it was given, later than the call, on the device that was in use when it was
/// made. Emulated, nothing happens before synchronize() or event::wait(), so that a host that does not wait is found
/// out. Belongs to one thread.
class stream {
 public:
    stream() = default;
    stream(const stream&) = delete;
    stream& operator=(const stream&) = delete;

    /// What a library takes.
    [[nodiscard]] stream* handle() noexcept { return this; }
    [[nodiscard]] int device() const noexcept { return device_; }
    /// Returns when everything is done. Throws emulation_error for what a kernel did wrong; the rest is then dropped.
    void synchronize() { run_until(given_); }
    /// The same, for destructors: what went wrong is thrown by the next synchronize() instead.
    void drain() noexcept {
        try {
            run_until(given_);
        } catch (const emulation_error& e) {
            if (e.kind() == defect::hang) ++detail::endless_drains;
            kept_ = std::current_exception();
        } catch (...) {
            kept_ = std::current_exception();
        }
    }

    /// For event: how much was given, and to get it done.
    [[nodiscard]] std::uint64_t given() const noexcept { return given_; }
    /// How often somebody waited for what was not done.
    [[nodiscard]] std::uint64_t waits() const noexcept { return waits_; }
    void run_until(std::uint64_t count) {
        if (done_ < count) ++waits_;
        if (!try_until(count))
            throw emulation_error(defect::hang, "the host waits for a stream of device " + std::to_string(device_) +
                                                    " that waits for ever");
    }
    /// False where the stream cannot get there: something before waits for another stream that does not come.
    [[nodiscard]] bool try_until(std::uint64_t count) {
        if (kept_ != nullptr) std::rethrow_exception(std::exchange(kept_, nullptr));
        if (running_) return done_ >= count;
        const guard here(*this);
        while (done_ < count) {
            bool ran = false;
            try {
                ran = waiting_.front()();
            } catch (...) {
                waiting_.clear();
                done_ = given_;
                throw;
            }
            if (!ran) return false;
            waiting_.pop_front();
            ++done_;
        }
        return true;
    }
    void give(std::function<void()> work) {
        give_when([work = std::move(work)] {
            work();
            return true;
        });
    }
    /// Work that returns false as long as it cannot be done.
    void give_when(std::function<bool()> work) {
        waiting_.push_back(std::move(work));
        ++given_;
    }

 private:
    struct guard {
        explicit guard(stream& s) : of(s) { of.running_ = true; }
        guard(const guard&) = delete;
        guard& operator=(const guard&) = delete;
        ~guard() { of.running_ = false; }
        stream& of;
    };

    std::deque<std::function<bool()>> waiting_;
    std::uint64_t given_ = 0, done_ = 0, waits_ = 0;
    std::exception_ptr kept_;
    int device_ = detail::device_in_use;
    bool running_ = false;
};

/// A point in a stream of the device that was in use when it was made.
class event {
 public:
    /// What was given to the stream so far.
    void record(stream& s) {
        detail::require_device(device_, s.device(), "cudaEventRecord: an event");
        stream_ = &s;
        at_ = s.given();
    }
    /// Returns when that is done. Precondition: recorded.
    void wait() { stream_->run_until(at_); }
    /// Whether it is done, without waiting. Precondition: recorded.
    [[nodiscard]] bool reached() { return stream_->try_until(at_); }

 private:
    stream* stream_ = nullptr;
    std::uint64_t at_ = 0;
    int device_ = detail::device_in_use;
};

/// Memory of its own, on the device that was in use when it was made.
template <class T>
class device_buffer {
 public:
    device_buffer() = default;
    /// Not initialised. `name` is for messages.
    explicit device_buffer(std::size_t elements, std::string_view name = "buffer")
        : memory_(detail::emulated_memory::get().allocate(elements, sizeof(T), name)) {}
    device_buffer(device_buffer&& other) noexcept : memory_(std::exchange(other.memory_, nullptr)) {}
    device_buffer& operator=(device_buffer&& other) noexcept {
        std::swap(memory_, other.memory_);
        return *this;
    }
    ~device_buffer() {
        if (memory_ != nullptr) detail::emulated_memory::get().release(memory_);
    }
    [[nodiscard]] std::size_t size() const noexcept { return memory_ == nullptr ? 0 : memory_->elements; }
    [[nodiscard]] T* data() const noexcept {
        return memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_->base);
    }
    [[nodiscard]] device_span<T> span() const noexcept { return {data(), size(), memory_}; }

 private:
    detail::allocation* memory_ = nullptr;
};

/// Host memory that the device copies from and to beside other work.
template <class T>
class pinned_buffer {
 public:
    pinned_buffer() = default;
    explicit pinned_buffer(std::size_t elements) : memory_(elements) {}
    [[nodiscard]] std::size_t size() const noexcept { return memory_.size(); }
    [[nodiscard]] std::span<T> span() noexcept { return memory_; }
    [[nodiscard]] std::span<const T> span() const noexcept { return memory_; }

 private:
    std::vector<T> memory_;
};

namespace detail {

[[nodiscard]] inline allocation& alive(allocation* memory) {
    if (!memory->alive)
        throw emulation_error(defect::freed, "a copy to or from array '" + memory->name + "', which is freed");
    return *memory;
}
/// What a stream copies to or from: of its own device, so that its order is what keeps uses apart.
[[nodiscard]] inline allocation& copied(allocation* memory, int device) {
    allocation& out = alive(memory);
    require_device(out.device, device, "a copy of array '" + out.name + "',");
    return out;
}

}  // namespace detail

/// Where memory lies.
struct memory_place {
    bool on_device = false;  ///< else in host memory, or nowhere
    bool managed = false;    ///< moves to whoever touches it
    int device = 0;          ///< whose it is
};
[[nodiscard]] inline memory_place place_of_memory(const void* address) {
    const detail::allocation* memory = detail::emulated_memory::get().look_up(address);
    if (memory == nullptr || !memory->alive) return {};
    return {.on_device = true, .device = memory->device};
}

/// Copies of equal size, at their turn in the stream. Host memory stays as it is until then.
template <class T>
void copy_to_device(stream& s, std::span<const T> from, device_span<T> to) {
    s.give([from, to, device = s.device()] {
        if (from.empty()) return;
        detail::allocation& memory = detail::copied(to.memory(), device);
        std::memcpy(memory.base + (reinterpret_cast<std::byte*>(to.data()) - memory.base), from.data(),
                    from.size_bytes());
        const std::size_t first =
            static_cast<std::size_t>(reinterpret_cast<std::byte*>(to.data()) - memory.base) / sizeof(T);
        for (std::size_t i = 0; i < from.size(); ++i) memory.cells[first + i].initialise();
    });
}
template <class T>
void copy_to_host(stream& s, device_span<const T> from, std::span<T> to) {
    s.give([from, to, device = s.device()] {
        if (to.empty()) return;
        detail::allocation& memory = detail::copied(from.memory(), device);
        const std::size_t first =
            static_cast<std::size_t>(reinterpret_cast<const std::byte*>(from.data()) - memory.base) / sizeof(T);
        for (std::size_t i = 0; i < to.size(); ++i)
            if (!memory.cells[first + i].written_since(1))
                throw emulation_error(
                    defect::uninitialised,
                    "a copy to the host reads " + detail::describe(memory, first + i) + ", which nothing has written");
        std::memcpy(to.data(), from.data(), to.size_bytes());
    });
}

/// The compute capability, times ten, whose instructions a kernel may use.
template <class Kernel>
[[nodiscard]] int compiled_for() noexcept {
    return 100;
}

/// Runs kernel(thread) for `blocks` blocks of Kernel::threads threads with so much shared memory each. A kernel is a
/// plain struct whose members are its arguments, with `name`, `threads` and `resident`: how many blocks a
/// multiprocessor shall have registers for.
template <class Kernel>
void launch(stream& s, const Kernel& kernel, unsigned blocks, std::size_t shared_bytes) {
    if (shared_bytes > most_shared_bytes)
        throw emulation_error(
            defect::limits, "kernel '" + std::string(Kernel::name) + "': " + std::to_string(shared_bytes) +
                                " bytes of shared memory, expected " + std::to_string(most_shared_bytes) + " at most");
    detail::require_device(detail::device_in_use, s.device(), "kernel '" + std::string(Kernel::name) + "': a launch");
    s.give([kernel, blocks, shared_bytes, device = s.device()] {
        detail::running_kernel as;
        as.kernel = Kernel::name;
        as.device = device;
        as.who.launch = detail::emulated_memory::get().next_interval();
        for (unsigned n = 0; n < blocks; ++n) {
            const unsigned block = detail::order_of_threads == thread_order::rising ? n : blocks - 1 - n;
            as.block = block;
            as.who.block = as.who.interval = detail::emulated_memory::get().next_interval();
            detail::emulated_block::get().run(as, Kernel::threads, shared_bytes, [&](unsigned thread) {
                kernel(kernel_thread(thread, block, blocks, Kernel::threads));
            });
        }
    });
}

/// Single operations, rounded to nearest once each, that no compiler joins with another.
[[nodiscard]] inline float multiply(float a, float b) noexcept {
    float result = a * b;
    asm volatile("" : : "r"(&result) : "memory");
    return result;
}
[[nodiscard]] inline float subtract(float a, float b) noexcept {
    float result = a - b;
    asm volatile("" : : "r"(&result) : "memory");
    return result;
}
/// The nearest float.
[[nodiscard]] inline float to_float(std::int64_t value) noexcept {
    return static_cast<float>(value);
}
[[nodiscard]] inline std::uint32_t bits_of(float value) noexcept {
    return std::bit_cast<std::uint32_t>(value);
}
[[nodiscard]] inline float float_of(std::uint32_t bits) noexcept {
    return std::bit_cast<float>(bits);
}
[[nodiscard]] inline unsigned count_ones(std::uint32_t bits) noexcept {
    return static_cast<unsigned>(std::popcount(bits));
}
/// The lowest bit that is set. Precondition: there is one.
[[nodiscard]] inline unsigned lowest_one(std::uint32_t bits) noexcept {
    return static_cast<unsigned>(std::countr_zero(bits));
}

}  // namespace thinwire::cuda

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_EMULATED_DEVICE_HPP
