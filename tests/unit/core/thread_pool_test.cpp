#include <thinwire/core/thread_pool.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <system_error>
#include <vector>

// A sanitizer reserves far more address space than the limit below.
#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define THINWIRE_TEST_LIMITS_MEMORY 1
#include <sys/resource.h>
#endif
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#undef THINWIRE_TEST_LIMITS_MEMORY
#endif
#endif

using namespace thinwire;

TEST_CASE("thread_pool: every index once, whatever the number of threads") {
    for (const int threads : {1, 2, 3, 8}) {
        thread_pool pool(threads);
        CHECK(pool.size() == threads);
        for (const std::size_t count : {0U, 1U, 2U, 7U, 1000U}) {
            std::vector<std::atomic<int>> hits(count);
            pool.parallel_for(count, [&](std::size_t i) { hits[i].fetch_add(1); });
            for (const auto& h : hits) CHECK(h.load() == 1);
        }
    }
}

TEST_CASE("thread_pool: what a task wrote is seen after parallel_for, call after call") {
    thread_pool pool(4);
    std::vector<int> values(64, 0);
    for (int round = 0; round < 500; ++round) pool.parallel_for(values.size(), [&](std::size_t i) { values[i] += 1; });
    for (const int v : values) CHECK(v == 500);
}

TEST_CASE("thread_pool: refuses sizes that make no sense") {
    CHECK_THROWS_WITH_AS(thread_pool(0), "thread_pool: threads 0, expected 1..1024", value_error);
    CHECK_THROWS_AS(thread_pool(5000), value_error);
}

#if defined(THINWIRE_TEST_LIMITS_MEMORY)
TEST_CASE("thread_pool: a system without room for the threads gives an exception, not an abort") {
    rlimit before{};
    REQUIRE(getrlimit(RLIMIT_AS, &before) == 0);
    rlimit tight = before;
    tight.rlim_cur = std::size_t{1} << 30U;  // 1023 stacks of 8 MB do not fit
    REQUIRE(setrlimit(RLIMIT_AS, &tight) == 0);
    CHECK_THROWS_AS(thread_pool(1024), std::system_error);
    REQUIRE(setrlimit(RLIMIT_AS, &before) == 0);
}
#endif
