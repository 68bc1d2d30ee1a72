#ifndef THINWIRE_BACKEND_CUDA_DETAIL_EMULATED_BLOCK_HPP
#define THINWIRE_BACKEND_CUDA_DETAIL_EMULATED_BLOCK_HPP

#include <thinwire/backend/cuda/detail/emulated_memory.hpp>
#include <thinwire/backend/cuda/detail/fiber.hpp>
#include <thinwire/core/aligned.hpp>
#include <thinwire/core/random.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace thinwire::cuda {

/// In which order the emulator lets the threads of a block, and the blocks of a launch, run between barriers. A right
/// kernel gives the same under all.
enum class thread_order { rising, falling, shuffled };

namespace detail {

inline thread_local thread_order order_of_threads = thread_order::rising;

/// The threads of one block at a time, each on a fiber.
class emulated_block {
 public:
    enum class state : std::uint8_t { ready, at_barrier, at_warp, returned };
    struct member {
        fiber stack;
        running_kernel now;
        state waits = state::ready;
        source_place site;
        bool begun = false;
        std::uint32_t warp_operations = 0;
    };
    /// 32 numbers that the threads of a warp show each other; two sets, as one may be written before all have read.
    struct warp {
        std::array<std::array<std::uint64_t, warp_threads>, 2> shown{};
        unsigned waiting = 0;
    };

    [[nodiscard]] static emulated_block& get() {
        static thread_local emulated_block one;
        return one;
    }

    /// Runs body(thread) for all threads of a block. Throws what a thread threw, or emulation_error.
    template <class Body>
    void run(const running_kernel& as, unsigned threads, std::size_t shared_bytes, const Body& body) {
        prepare(as, threads, shared_bytes);
        call_ = [](const void* context, unsigned thread) { (*static_cast<const Body*>(context))(thread); };
        body_ = &body;
        while (!sweep()) {
        }
    }

    void barrier(unsigned thread, const source_place& at) {
        member& self = *members_[thread];
        wait(self, state::at_barrier, at);
    }
    /// Shows `value` to the warp and returns what all of it show.
    const std::array<std::uint64_t, warp_threads>& exchange(unsigned thread, std::uint64_t value,
                                                            const source_place& at) {
        member& self = *members_[thread];
        auto& shown = warps_[thread / warp_threads].shown[self.warp_operations++ % 2];
        shown[thread % warp_threads] = value;
        wait(self, state::at_warp, at);
        return shown;
    }
    /// Also orders memory, as __syncwarp does and a shuffle does not.
    void sync_warp(unsigned thread, const source_place& at) {
        static_cast<void>(exchange(thread, 0, at));
        ++members_[thread]->now.who.warp_sync;
    }

    /// The next array of the block's shared memory: the same for every thread, which all have to ask alike.
    [[nodiscard]] allocation* take_shared(std::size_t turn, std::size_t& used, std::size_t elements,
                                          std::size_t element_bytes, const char* name) {
        const std::size_t from = (used + 15) / 16 * 16, bytes = elements * element_bytes;
        used = from + bytes;
        if (used > shared_bytes_)
            refuse(defect::limits,
                   "shared array '" + std::string(name) + "' ends at byte " + std::to_string(used) + " of the " +
                       std::to_string(shared_bytes_) + " that the launch asked for",
                   source_place::current());
        if (turn == arrays_.size()) arrays_.emplace_back();
        allocation& array = arrays_[turn];
        if (array.base == nullptr) {
            array.name = name;
            array.base = shared_.data() + from;
            array.elements = elements;
            array.element_bytes = element_bytes;
            array.shared = true;
            array.cells.assign(elements, {});  // what another block did here is no matter
        } else if (array.elements != elements || array.element_bytes != element_bytes ||
                   array.base != shared_.data() + from) {
            refuse(defect::divergence,
                   "takes shared array '" + std::string(name) + "' where another thread took '" + array.name +
                       "' or one of another size",
                   source_place::current());
        }
        return &array;
    }

 private:
    struct cancelled {};

    void prepare(const running_kernel& as, unsigned threads, std::size_t shared_bytes) {
        if (threads == 0 || threads > 1024 || threads % warp_threads != 0)
            throw emulation_error(defect::limits, "kernel '" + std::string(as.kernel) +
                                                      "': " + std::to_string(threads) +
                                                      " threads in a block, expected a multiple of 32 up to 1024");
        while (members_.size() < threads) members_.push_back(std::make_unique<member>());
        threads_ = threads;
        warps_.assign(threads / warp_threads, {});
        at_barrier_ = returned_ = 0;
        cancel_ = false;
        thrown_ = deferred_ = nullptr;
        if (shared_bytes > room_) {
            room_ = shared_bytes;
            shared_.resize(room_);
        }
        shared_bytes_ = shared_bytes;
        if (shared_bytes > 0) std::memset(shared_.data(), 0xa5, shared_bytes);
        for (allocation& array : arrays_) array.base = nullptr;
        order_.resize(threads);
        for (unsigned i = 0; i < threads; ++i)
            order_[i] = order_of_threads == thread_order::falling ? threads - 1 - i : i;
        if (order_of_threads == thread_order::shuffled) {
            random_stream random(as.who.block);
            for (unsigned i = threads; i > 1; --i) std::swap(order_[i - 1], order_[random.below(i)]);
        }
        for (unsigned i = 0; i < threads; ++i) {
            member& m = *members_[i];
            m.now = as;
            m.now.deferred = &deferred_;
            m.now.who.thread = static_cast<std::uint16_t>(i);
            m.waits = state::ready;
            m.begun = false;
            m.warp_operations = 0;
            m.stack.start(&emulated_block::thread_main, &m);
        }
    }

    static void thread_main(void* argument) {
        emulated_block& block = get();
        member& self = *static_cast<member*>(argument);
        try {
            block.call_(block.body_, self.now.who.thread);
        } catch (const cancelled&) {  // NOLINT: another thread has failed
        } catch (...) {
            block.thrown_ = std::current_exception();
        }
        self.waits = state::returned;
        ++block.returned_;
    }

    /// Lets every thread run that can. True when all have returned.
    bool sweep() {
        bool moved = false;
        for (const unsigned i : order_) {
            member& m = *members_[i];
            if (m.waits != state::ready) continue;
            moved = m.begun = true;
            running = &m.now;
            m.stack.resume();
            running = nullptr;
            if (thrown_ != nullptr) fail(deferred_ == nullptr || is_race(thrown_) ? thrown_ : deferred_);
        }
        if ((returned_ == threads_ || !moved || at_barrier_ == threads_) && deferred_ != nullptr) fail(deferred_);
        if (returned_ == threads_) return true;
        if (at_barrier_ == threads_) {
            release_barrier();
            return false;
        }
        if (!moved) fail(std::make_exception_ptr(emulation_error(defect::divergence, describe_wait())));
        return false;
    }

    void wait(member& self, state how, const source_place& at) {
        if (cancel_) throw cancelled{};
        self.site = at;
        self.waits = how;
        if (how == state::at_barrier)
            ++at_barrier_;
        else if (++warps_[self.now.who.thread / warp_threads].waiting == warp_threads)
            release_warp(self.now.who.thread / warp_threads);
        if (self.waits != state::ready) self.stack.pause();
        if (cancel_) throw cancelled{};
    }

    void release_warp(unsigned number) {
        const unsigned from = number * warp_threads;
        for (unsigned i = from + 1; i < from + warp_threads; ++i)
            if (!same(members_[i]->site, members_[from]->site)) return;  // found when nothing moves
        warps_[number].waiting = 0;
        for (unsigned i = from; i < from + warp_threads; ++i) members_[i]->waits = state::ready;
    }
    void release_barrier() {
        for (unsigned i = 1; i < threads_; ++i)
            if (!same(members_[i]->site, members_[0]->site))
                fail(std::make_exception_ptr(emulation_error(defect::divergence, describe_wait())));
        at_barrier_ = 0;
        const std::uint64_t interval = emulated_memory::get().next_interval();
        for (unsigned i = 0; i < threads_; ++i) {
            members_[i]->waits = state::ready;
            members_[i]->now.who.interval = interval;
            members_[i]->now.who.warp_sync = 0;
        }
    }
    [[nodiscard]] static bool same(const source_place& a, const source_place& b) noexcept {
        return a.line == b.line && std::strcmp(a.file, b.file) == 0;
    }

    [[nodiscard]] static bool is_race(const std::exception_ptr& what) {
        try {
            std::rethrow_exception(what);
        } catch (const emulation_error& e) {
            return e.kind() == defect::race;
        } catch (...) {
            return false;
        }
    }

    /// Ends all threads, so that what lies on their stacks is destroyed, and throws.
    [[noreturn]] void fail(std::exception_ptr what) {
        cancel_ = true;
        for (unsigned i = 0; i < threads_; ++i) {
            member& m = *members_[i];
            if (m.waits == state::returned || !m.begun) continue;
            running = &m.now;
            m.stack.resume();
            running = nullptr;
        }
        std::rethrow_exception(what);
    }

    [[nodiscard]] std::string describe_wait() const {
        std::string text = "kernel '" + std::string(members_[0]->now.kernel) + "', block " +
                           std::to_string(members_[0]->now.block) + ": ";
        for (unsigned from = 0; from < threads_;) {
            const member& m = *members_[from];
            unsigned to = from + 1;
            while (to < threads_ && members_[to]->waits == m.waits &&
                   (m.waits == state::returned || same(members_[to]->site, m.site)))
                ++to;
            text += (from == 0 ? "threads " : "; threads ") + std::to_string(from) + ".." + std::to_string(to - 1);
            text += m.waits == state::returned     ? " have returned"
                    : m.waits == state::at_barrier ? " wait at the barrier in " + place_of(m.site)
                                                   : " wait for their warp in " + place_of(m.site);
            from = to;
        }
        return text;
    }

    std::vector<std::unique_ptr<member>> members_;
    std::vector<warp> warps_;
    std::vector<unsigned> order_;
    std::deque<allocation> arrays_;
    aligned_vector<std::byte> shared_;
    std::size_t room_ = 0, shared_bytes_ = 0;
    unsigned threads_ = 0, at_barrier_ = 0, returned_ = 0;
    bool cancel_ = false;
    std::exception_ptr thrown_, deferred_;
    void (*call_)(const void*, unsigned) = nullptr;
    const void* body_ = nullptr;
};

}  // namespace detail

/// One thread of a kernel: who it is, and what it does together with others. All functions that wait, wait for every
/// thread of the block, or of the warp of 32, at the same place of the source.
class kernel_thread {
    using site = detail::source_place;

 public:
    kernel_thread(unsigned thread, unsigned block, unsigned blocks, unsigned threads) noexcept
        : thread_(thread), block_(block), blocks_(blocks), threads_(threads) {}

    [[nodiscard]] unsigned index() const noexcept { return thread_; }
    [[nodiscard]] unsigned threads() const noexcept { return threads_; }
    [[nodiscard]] unsigned block() const noexcept { return block_; }
    [[nodiscard]] unsigned blocks() const noexcept { return blocks_; }
    [[nodiscard]] unsigned lane() const noexcept { return thread_ % detail::warp_threads; }
    [[nodiscard]] unsigned warp() const noexcept { return thread_ / detail::warp_threads; }
    [[nodiscard]] unsigned warps() const noexcept { return threads_ / detail::warp_threads; }

    /// The whole block; orders its memory.
    void barrier(const site& at = site::current()) const { detail::emulated_block::get().barrier(thread_, at); }
    /// The warp; orders its memory.
    void sync_warp(const site& at = site::current()) const { detail::emulated_block::get().sync_warp(thread_, at); }
    /// The value of another lane, below 32.
    template <class T>
    [[nodiscard]] T shuffle(T value, unsigned from, const site& at = site::current()) const {
        static_assert(sizeof(T) == 4 || sizeof(T) == 8);
        std::uint64_t bits = 0;
        std::memcpy(&bits, &value, sizeof value);
        const std::uint64_t shown = show(bits, at)[from % detail::warp_threads];
        std::memcpy(&value, &shown, sizeof value);
        return value;
    }
    /// That of the lane whose number differs by these bits.
    template <class T>
    [[nodiscard]] T shuffle_xor(T value, unsigned mask, const site& at = site::current()) const {
        return shuffle(value, lane() ^ mask, at);
    }
    /// Bit i: what lane i says.
    [[nodiscard]] std::uint32_t ballot(bool vote, const site& at = site::current()) const {
        std::uint32_t bits = 0;
        const auto& all = show(vote ? 1 : 0, at);
        for (unsigned i = 0; i < detail::warp_threads; ++i) bits |= static_cast<std::uint32_t>(all[i]) << i;
        return bits;
    }
    /// Matrices of the warp, on its tensor cores: c[16,8] += a[16,16] b[16,8], of bfloat16, two in a word, the first in
    /// the low half; c is float32. With g = lane / 4 and n = 2 (lane % 4) a lane has c0, c1 = c[g, n], c[g, n + 1] and
    /// c2, c3 the same of row g + 8; words of a begin at [g, n], [g + 8, n], [g, n + 8], [g + 8, n + 8] and go along
    /// the row; words of b begin at [n, g], [n + 8, g] and go down the column.
    void multiply_add(float& c0, float& c1, float& c2, float& c3, const pack<std::uint32_t, 4>& a,
                      const pack<std::uint32_t, 2>& b, const site& at = site::current()) const {
        const auto two = [](std::uint32_t low, std::uint32_t high) { return std::uint64_t{high} << 32U | low; };
        const auto upper = show(two(a.value[0], a.value[2]), at), lower = show(two(a.value[1], a.value[3]), at);
        const auto& right = show(two(b.value[0], b.value[1]), at);
        // element k of what a lane's row or column holds: 4 lanes, each with k = 2n, 2n + 1, 2n + 8, 2n + 9
        const auto element = [](const auto& shown, unsigned of, unsigned k) {
            const std::uint64_t words = shown[of * 4 + k % 8 / 2];
            const auto word = static_cast<std::uint32_t>(k < 8 ? words : words >> 32U);
            return static_cast<double>(std::bit_cast<float>(k % 2 == 0 ? word << 16U : word & 0xffff0000U));
        };
        const unsigned row = lane() / 4, column = lane() % 4 * 2;
        double sums[4] = {static_cast<double>(c0), static_cast<double>(c1), static_cast<double>(c2),
                          static_cast<double>(c3)};
        for (unsigned k = 0; k < 16; ++k) {
            const double first = element(right, column, k), second = element(right, column + 1, k);
            sums[0] += element(upper, row, k) * first;
            sums[1] += element(upper, row, k) * second;
            sums[2] += element(lower, row, k) * first;
            sums[3] += element(lower, row, k) * second;
        }
        c0 = static_cast<float>(sums[0]);
        c1 = static_cast<float>(sums[1]);
        c2 = static_cast<float>(sums[2]);
        c3 = static_cast<float>(sums[3]);
    }
    /// Over the warp.
    [[nodiscard]] std::uint32_t sum(std::uint32_t value, const site& at = site::current()) const {
        std::uint32_t total = 0;
        for (const std::uint64_t shown : show(value, at)) total += static_cast<std::uint32_t>(shown);
        return total;
    }
    [[nodiscard]] std::uint32_t largest(std::uint32_t value, const site& at = site::current()) const {
        std::uint32_t most = 0;
        for (const std::uint64_t shown : show(value, at)) most = std::max(most, static_cast<std::uint32_t>(shown));
        return most;
    }

 private:
    [[nodiscard]] const std::array<std::uint64_t, detail::warp_threads>& show(std::uint64_t value,
                                                                              const site& at) const {
        return detail::emulated_block::get().exchange(thread_, value, at);
    }
    unsigned thread_, block_, blocks_, threads_;
};

/// Cuts the shared memory of a block into arrays. Every thread makes one and takes the same arrays in the same order.
class shared_memory {
 public:
    explicit shared_memory(const kernel_thread&) noexcept {}
    /// Not initialised; begins at a multiple of 16 bytes.
    template <class T>
    [[nodiscard]] device_span<T> take(std::size_t elements, const char* name) {
        detail::allocation* array =
            detail::emulated_block::get().take_shared(turn_++, used_, elements, sizeof(T), name);
        return {reinterpret_cast<T*>(array->base), elements, array};
    }

 private:
    std::size_t turn_ = 0, used_ = 0;
};

}  // namespace thinwire::cuda

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_EMULATED_BLOCK_HPP
