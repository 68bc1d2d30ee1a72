#ifndef THINWIRE_OPTIM_DETAIL_PARALLEL_HPP
#define THINWIRE_OPTIM_DETAIL_PARALLEL_HPP

#include <thinwire/core/float_mode.hpp>
#include <thinwire/core/thread_pool.hpp>

#include <atomic>
#include <cstddef>
#include <exception>

namespace thinwire::detail {

/// Threads that for_each_item() uses, and so the number of lanes of working memory it needs.
[[nodiscard]] inline std::size_t lane_count(const thread_pool* pool) noexcept {
    return pool == nullptr ? 1 : static_cast<std::size_t>(pool->size());
}

/// Calls task(lane, item) once for every item, in standard_float_mode; no two calls with the same lane run at once.
/// What a call throws passes through when all others are done: the first of several.
template <class Task>
void for_each_item(thread_pool* pool, std::size_t items, const Task& task) {
    std::atomic_flag failed = ATOMIC_FLAG_INIT;
    std::exception_ptr first;
    const auto call = [&](std::size_t lane, std::size_t item) noexcept {
        try {
            task(lane, item);
        } catch (...) {
            if (!failed.test_and_set()) first = std::current_exception();
        }
    };
    if (lane_count(pool) == 1) {
        const standard_float_mode mode;
        for (std::size_t i = 0; i < items; ++i) call(0, i);
    } else {
        std::atomic<std::size_t> next{0};
        pool->parallel_for(lane_count(pool), [&](std::size_t lane) {
            const standard_float_mode mode;
            for (std::size_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < items;) call(lane, i);
        });
    }
    if (first != nullptr) std::rethrow_exception(first);
}

}  // namespace thinwire::detail

#endif  // THINWIRE_OPTIM_DETAIL_PARALLEL_HPP
