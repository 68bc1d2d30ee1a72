#ifndef THINWIRE_BACKEND_CUDA_DETAIL_EMULATED_MEMORY_HPP
#define THINWIRE_BACKEND_CUDA_DETAIL_EMULATED_MEMORY_HPP

#include <thinwire/backend/cuda/detail/emulated_banks.hpp>
#include <thinwire/backend/cuda/detail/shadow.hpp>
#include <thinwire/core/error.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace thinwire::cuda {

/// What the emulator finds wrong with a kernel, or with its use.
enum class defect {
    race,           ///< two threads touch an element, one of them writes, and nothing orders them
    out_of_bounds,  ///< an index outside its array
    uninitialised,  ///< an element is read that nobody has written
    divergence,     ///< threads wait for each other in different places, or for one that has returned
    misaligned,     ///< several elements at once, not at a multiple of their size
    host_access,    ///< device memory is touched outside a kernel
    freed,          ///< memory that was given back, or never came from the device
    limits,         ///< more threads, shared memory or device memory than a device has
    other_device,   ///< memory, a stream or an event of one device, used on another
    hang,           ///< something waits for what never comes
    arguments,      ///< what a library refuses
};

/// Thrown by stream::synchronize() and event::wait() of the emulator; the message names kernel, block, threads, array,
/// element and line.
class emulation_error : public error {
 public:
    emulation_error(defect of, const std::string& what) : error("emulated device: " + what), kind_(of) {}
    [[nodiscard]] defect kind() const noexcept { return kind_; }

 private:
    defect kind_;
};

namespace detail {

/// How many devices the emulated machine has; to be set while nothing of it is in use.
inline int emulated_devices = 1;
/// That of this thread.
inline constinit thread_local int device_in_use = 0;

/// Throws emulation_error unless both are the same device.
inline void require_device(int found, int expected, const std::string& what) {
    if (found != expected)
        throw emulation_error(defect::other_device, what + " of device " + std::to_string(found) +
                                                        ", expected one of device " + std::to_string(expected));
}

/// The thread of a kernel that runs now.
struct running_kernel {
    toucher who;
    std::string_view kernel;
    int device = 0;
    unsigned block = 0;
    std::exception_ptr* deferred = nullptr;  ///< a read of what nobody wrote: a race, if somebody still does
};

/// Null outside kernels.
inline constinit thread_local running_kernel* running = nullptr;

[[nodiscard]] inline std::string place_of(const source_place& at) {
    std::string_view file = at.file;
    file.remove_prefix(file.find_last_of('/') + 1);
    return std::string(file) + ":" + std::to_string(at.line);
}

[[nodiscard]] inline std::string describe(const allocation& memory, std::size_t element) {
    return "element " + std::to_string(element) + " of " + (memory.shared ? "shared" : "global") + " array '" +
           memory.name + "' (" + std::to_string(memory.elements) + " elements)";
}

[[nodiscard]] inline emulation_error found(defect kind, const std::string& what, const source_place& at) {
    std::string where;
    if (running != nullptr)
        where = "kernel '" + std::string(running->kernel) + "', block " + std::to_string(running->block) + ", thread " +
                std::to_string(running->who.thread) + ", ";
    return {kind, where + place_of(at) + ": " + what};
}
[[noreturn]] inline void refuse(defect kind, const std::string& what, const source_place& at) {
    throw found(kind, what, at);
}
/// Reported at the end of the interval, unless something that explains it turns up.
inline void refuse_later(defect kind, const std::string& what, const source_place& at) {
    if (*running->deferred == nullptr) *running->deferred = std::make_exception_ptr(found(kind, what, at));
}

[[noreturn]] inline void refuse_race(const collision& with, const char* does, const allocation& memory,
                                     std::size_t element, const source_place& at) {
    const std::string other =
        with.with.of_other_block(running->who)
            ? "a thread of another block " + std::string(with.did) + " in this launch"
            : "thread " + std::to_string(with.with.thread) + " " + with.did + " since the last barrier";
    refuse(defect::race, std::string(does) + " " + describe(memory, element) + ", which " + other, at);
}

/// Memory of all devices of the process. What was freed stays known, so that spans of it can be told.
class emulated_memory {
 public:
    [[nodiscard]] static emulated_memory& get() {
        static emulated_memory all;
        return all;
    }

    [[nodiscard]] allocation* allocate(std::size_t elements, std::size_t element_bytes, std::string_view name) {
        const std::lock_guard lock(mutex_);
        const std::size_t bytes = elements * element_bytes;
        if (bytes > capacity - std::min(capacity, live_bytes_))
            throw emulation_error(defect::limits, "array '" + std::string(name) + "' of " + std::to_string(bytes) +
                                                      " bytes, where " + std::to_string(live_bytes_) + " of " +
                                                      std::to_string(capacity) + " are in use");
        live_bytes_ += bytes;
        ++allocations_;
        auto made = std::make_unique<allocation>();
        made->name = name;
        made->device = device_in_use;
        made->elements = elements;
        made->element_bytes = element_bytes;
        // never given out twice, so that a span of freed memory cannot become one of other memory
        bytes_.push_back(std::make_unique<std::byte[]>(bytes + 256));
        made->base = bytes_.back().get();
        while (reinterpret_cast<std::uintptr_t>(made->base) % 256 != 0) ++made->base;
        std::memset(made->base, 0xa5, bytes);
        made->cells.resize(elements);
        allocation* out = made.get();
        by_address_[out->base] = std::move(made);
        return out;
    }
    void release(allocation* memory) noexcept {
        const std::lock_guard lock(mutex_);
        memory->alive = false;
        live_bytes_ -= memory->elements * memory->element_bytes;
        memory->cells = {};
    }
    /// The allocation that an address lies in; throws emulation_error where there is none.
    [[nodiscard]] allocation* find(const void* address) {
        if (allocation* found = look_up(address)) return found;
        throw emulation_error(defect::freed, "a span of memory that no device_buffer holds");
    }
    /// The same; null where there is none.
    [[nodiscard]] allocation* look_up(const void* address) {
        const std::lock_guard lock(mutex_);
        const auto* at = static_cast<const std::byte*>(address);
        auto next = by_address_.upper_bound(at);
        if (next != by_address_.begin()) {
            allocation* before = std::prev(next)->second.get();
            if (at < before->base + before->elements * before->element_bytes) return before;
        }
        return nullptr;
    }
    /// A new interval of the clock that accesses are ordered by.
    [[nodiscard]] std::uint64_t next_interval() noexcept {
        return interval_.fetch_add(1, std::memory_order_relaxed) + 1;
    }
    /// How often memory was allocated.
    [[nodiscard]] std::uint64_t allocations() {
        const std::lock_guard lock(mutex_);
        return allocations_;
    }

    /// Bytes that the device has.
    std::size_t capacity = std::numeric_limits<std::size_t>::max();

 private:
    std::mutex mutex_;
    std::map<const std::byte*, std::unique_ptr<allocation>> by_address_;
    std::vector<std::unique_ptr<std::byte[]>> bytes_;
    std::atomic<std::uint64_t> interval_{1};  ///< a thread for each device may run kernels
    std::uint64_t allocations_ = 0;
    std::size_t live_bytes_ = 0;
};

}  // namespace detail

/// Neighbours that are loaded at once.
template <class T, std::size_t N>
struct pack {
    T value[N];
};

/// Elements in memory that a kernel may touch, global or shared, with their number. A plain value. Kernels touch them
/// through load(), store() and the atomic functions alone; the host cannot.
///
/// On a device this is a pointer and a number. Emulated, every access is compared with all others of the launch.
template <class T>
class device_span {
    static_assert(std::is_trivially_copyable_v<T>);
    using value_type = std::remove_const_t<T>;

 public:
    device_span() = default;
    /// Device memory at an address, such as device_buffer::data(). Throws emulation_error for other memory.
    device_span(T* data, std::size_t size) : data_(data), size_(size) {
        if (size == 0) return;
        memory_ = detail::emulated_memory::get().find(data);
        const auto from = static_cast<std::size_t>(reinterpret_cast<const std::byte*>(data) - memory_->base);
        if (memory_->element_bytes != sizeof(T) || from + size * sizeof(T) > memory_->elements * sizeof(T))
            throw emulation_error(defect::out_of_bounds, "a span of " + std::to_string(size) + " elements of " +
                                                             std::to_string(sizeof(T)) +
                                                             " bytes reaches beyond array '" + memory_->name + "'");
    }
    /// Of an array that is known.
    device_span(T* data, std::size_t size, detail::allocation* memory) noexcept
        : data_(data), size_(size), memory_(memory) {}
    template <class U>
    requires std::is_same_v<const U, T> device_span(const device_span<U>& other)
    noexcept  // NOLINT: as std::span
        : data_(other.data()), size_(other.size()), memory_(other.memory()) {}

    /// For the host: an address of the device.
    [[nodiscard]] T* data() const noexcept { return data_; }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    [[nodiscard]] detail::allocation* memory() const noexcept { return memory_; }
    /// Precondition: from + count <= size().
    [[nodiscard]] device_span subspan(std::size_t from, std::size_t count,
                                      const detail::source_place& at = detail::source_place::current()) const {
        if (from > size_ || count > size_ - from)
            detail::refuse(defect::out_of_bounds,
                           "subspan of " + std::to_string(count) + " elements from " + std::to_string(from) +
                               " on, of a span of " + std::to_string(size_),
                           at);
        return device_span(data_ + from, count, memory_);
    }

    [[nodiscard]] value_type load(std::size_t i,
                                  const detail::source_place& at = detail::source_place::current()) const {
        meter(i, 1, at);
        return read(i, at);
    }
    /// Elements i to i + N - 1, which begin at a multiple of N * sizeof(T) bytes; N is 2 or 4.
    template <std::size_t N>
    [[nodiscard]] pack<value_type, N> load_pack(
        std::size_t i, const detail::source_place& at = detail::source_place::current()) const {
        require_aligned(i, N, "reads", at);
        meter(i, N, at);
        pack<value_type, N> out;
        for (std::size_t n = 0; n < N; ++n) out.value[n] = read(i + n, at);
        return out;
    }
    void store(std::size_t i, value_type value,
               const detail::source_place& at = detail::source_place::current()) const {
        meter(i, 1, at);
        touch(i, "writes", false, at);
        data_[i] = value;
    }
    template <std::size_t N>
    void store_pack(std::size_t i, const pack<value_type, N>& values,
                    const detail::source_place& at = detail::source_place::current()) const {
        require_aligned(i, N, "writes", at);
        meter(i, N, at);
        for (std::size_t n = 0; n < N; ++n) {
            touch(i + n, "writes", false, at);
            data_[i + n] = values.value[n];
        }
    }
    /// Each returns what was there before.
    value_type atomic_add(std::size_t i, value_type value,
                          const detail::source_place& at = detail::source_place::current()) const {
        return atomic(i, at, [&](value_type before) { return static_cast<value_type>(before + value); });
    }
    value_type atomic_or(std::size_t i, value_type value,
                         const detail::source_place& at = detail::source_place::current()) const {
        return atomic(i, at, [&](value_type before) { return static_cast<value_type>(before | value); });
    }
    value_type atomic_max(std::size_t i, value_type value,
                          const detail::source_place& at = detail::source_place::current()) const {
        return atomic(i, at, [&](value_type before) { return before < value ? value : before; });
    }
    value_type atomic_min(std::size_t i, value_type value,
                          const detail::source_place& at = detail::source_place::current()) const {
        return atomic(i, at, [&](value_type before) { return value < before ? value : before; });
    }

 private:
    [[nodiscard]] std::size_t number(std::size_t i) const noexcept {
        return static_cast<std::size_t>(reinterpret_cast<const std::byte*>(data_ + i) - memory_->base) / sizeof(T);
    }
    [[nodiscard]] detail::shadow_cell& cell_at(std::size_t i, const char* does, const detail::source_place& at) const {
        if (detail::running == nullptr)
            detail::refuse(defect::host_access, std::string(does) + " device memory outside a kernel", at);
        if (i >= size_)
            detail::refuse(defect::out_of_bounds,
                           std::string(does) + " element " + std::to_string(i) + " of a span of " +
                               std::to_string(size_) + " elements" +
                               (memory_ == nullptr ? std::string() : " in array '" + memory_->name + "'"),
                           at);
        if (!memory_->alive)
            detail::refuse(defect::freed,
                           std::string(does) + " " + detail::describe(*memory_, number(i)) + ", which is freed", at);
        if (!memory_->shared && memory_->device != detail::running->device)
            detail::refuse(defect::other_device,
                           std::string(does) + " " + detail::describe(*memory_, number(i)) + ", which device " +
                               std::to_string(memory_->device) + " has, on device " +
                               std::to_string(detail::running->device),
                           at);
        return memory_->cells[number(i)];
    }
    void require_aligned(std::size_t i, std::size_t count, const char* does, const detail::source_place& at) const {
        if (reinterpret_cast<std::uintptr_t>(data_ + i) % (count * sizeof(T)) != 0)
            detail::refuse(defect::misaligned,
                           std::string(does) + " " + std::to_string(count) + " elements at once from element " +
                               std::to_string(i) + " on",
                           at);
    }
    [[nodiscard]] value_type read(std::size_t i, const detail::source_place& at) const {
        detail::shadow_cell& cell = cell_at(i, "reads", at);
        const detail::collision with = cell.read(detail::running->who);
        if (with.did != nullptr) detail::refuse_race(with, "reads", *memory_, number(i), at);
        if (!cell.written_since(memory_->shared ? detail::running->who.block : 1))
            detail::refuse_later(defect::uninitialised,
                                 "reads " + detail::describe(*memory_, number(i)) + ", which nothing has written", at);
        return data_[i];
    }
    void meter(std::size_t i, std::size_t count, const detail::source_place& at) const {
        if (detail::banks != nullptr && memory_ != nullptr && memory_->shared && detail::running != nullptr)
            detail::banks->touch(detail::running->who, at, reinterpret_cast<std::uintptr_t>(data_ + i),
                                 count * sizeof(T));
    }
    void touch(std::size_t i, const char* does, bool atomic, const detail::source_place& at) const {
        const detail::collision with = cell_at(i, does, at).write(detail::running->who, atomic);
        if (with.did != nullptr) detail::refuse_race(with, does, *memory_, number(i), at);
    }
    template <class Change>
    value_type atomic(std::size_t i, const detail::source_place& at, const Change& change) const {
        if (!cell_at(i, "changes", at).written_since(memory_->shared ? detail::running->who.block : 1))
            detail::refuse_later(defect::uninitialised,
                                 "changes " + detail::describe(*memory_, number(i)) + ", which nothing has written",
                                 at);
        touch(i, "changes", true, at);
        const value_type before = data_[i];
        data_[i] = change(before);
        return before;
    }

    T* data_ = nullptr;
    std::size_t size_ = 0;
    detail::allocation* memory_ = nullptr;
};

}  // namespace thinwire::cuda

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_EMULATED_MEMORY_HPP
