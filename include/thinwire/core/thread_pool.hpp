#ifndef THINWIRE_CORE_THREAD_POOL_HPP
#define THINWIRE_CORE_THREAD_POOL_HPP

#include <thinwire/core/error.hpp>

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

namespace thinwire {

/// Threads that a caller asked for. `threads` counts the caller: thread_pool(1) starts none, and every
/// parallel_for then runs on the spot. One parallel_for at a time; not to be called from within its own tasks.
class thread_pool {
 public:
    /// Throws value_error unless 1 <= threads <= 1024, std::system_error when the system starts no more of them.
    explicit thread_pool(int threads = 1) {
        if (threads < 1 || threads > 1024)
            throw value_error("thread_pool: threads " + std::to_string(threads) + ", expected 1..1024");
        workers_.reserve(static_cast<std::size_t>(threads) - 1);
        try {
            for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { work(); });
        } catch (...) {
            stop();
            throw;
        }
    }
    thread_pool(const thread_pool&) = delete;
    thread_pool& operator=(const thread_pool&) = delete;
    ~thread_pool() { stop(); }

    [[nodiscard]] int size() const noexcept { return static_cast<int>(workers_.size()) + 1; }

    /// Calls task(i) once for every i in [0, count), in any order, on any thread; returns when all are done.
    /// `task` must not throw.
    template <class Task>
    void parallel_for(std::size_t count, const Task& task) noexcept {
        if (workers_.empty() || count <= 1) {
            for (std::size_t i = 0; i < count; ++i) task(i);
            return;
        }
        {
            const std::lock_guard lock(mutex_);
            context_ = &task;
            call_ = [](const void* context, std::size_t i) { (*static_cast<const Task*>(context))(i); };
            count_ = count;
            next_.store(0, std::memory_order_relaxed);
            busy_ = workers_.size();
            ++generation_;
        }
        wake_.notify_all();
        drain();
        std::unique_lock lock(mutex_);
        done_.wait(lock, [this] { return busy_ == 0; });
    }

 private:
    void stop() noexcept {
        {
            const std::lock_guard lock(mutex_);
            stopping_ = true;
        }
        wake_.notify_all();
        for (std::thread& worker : workers_) worker.join();
    }

    void drain() noexcept {
        for (std::size_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) call_(context_, i);
    }

    void work() noexcept {
        std::uint64_t seen = 0;
        for (;;) {
            {
                std::unique_lock lock(mutex_);
                wake_.wait(lock, [&] { return stopping_ || generation_ != seen; });
                if (stopping_) return;
                seen = generation_;
            }
            drain();
            const std::lock_guard lock(mutex_);
            if (--busy_ == 0) done_.notify_one();
        }
    }

    std::vector<std::thread> workers_;
    std::mutex mutex_;
    std::condition_variable wake_, done_;
    std::atomic<std::size_t> next_{0};
    const void* context_ = nullptr;
    void (*call_)(const void*, std::size_t) = nullptr;
    std::size_t count_ = 0;
    std::size_t busy_ = 0;
    std::uint64_t generation_ = 0;
    bool stopping_ = false;
};

}  // namespace thinwire

#endif  // THINWIRE_CORE_THREAD_POOL_HPP
