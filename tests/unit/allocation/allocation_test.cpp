#include <thinwire/c.h>
#include <thinwire/optim/adamw.hpp>
#include <thinwire/optim/demo.hpp>
#include <thinwire/optim/demo_shards.hpp>
#include <thinwire/optim/muon.hpp>

#include "support/optimizer_peer.hpp"
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <vector>

namespace {

std::atomic<std::size_t> allocations{0};
std::atomic<std::size_t> live_bytes{0};  ///< asked for and not given back
constexpr std::int64_t never = std::numeric_limits<std::int64_t>::max();
std::atomic<std::int64_t> until_failure{never};  ///< so many allocations succeed, then one fails

/// Memory with `alignment` bytes before it, which hold its size.
void* count_and_allocate(std::size_t size, std::size_t alignment) {
    allocations.fetch_add(1, std::memory_order_relaxed);
    if (until_failure.load(std::memory_order_relaxed) != never && until_failure.fetch_sub(1) == 0)
        throw std::bad_alloc();
    live_bytes.fetch_add(size, std::memory_order_relaxed);
    const std::size_t rounded = (size + alignment - 1) / alignment * alignment;
    void* memory = std::aligned_alloc(alignment, alignment + rounded);
    if (memory == nullptr) throw std::bad_alloc();
    std::memcpy(memory, &size, sizeof size);
    return static_cast<std::byte*>(memory) + alignment;
}

void count_and_free(void* memory, std::size_t alignment) noexcept {
    if (memory == nullptr) return;
    void* begin = static_cast<std::byte*>(memory) - alignment;
    std::size_t size = 0;
    std::memcpy(&size, begin, sizeof size);
    live_bytes.fetch_sub(size, std::memory_order_relaxed);
    std::free(begin);
}

}  // namespace

// All other forms of new and delete end in these, except that AddressSanitizer keeps its own for arrays. Not inlined,
// as g++ takes a pair of which only one half is inlined for a mismatch (-Wmismatched-new-delete).
[[gnu::noinline]] void* operator new(std::size_t size) {
    return count_and_allocate(size, alignof(std::max_align_t));
}
[[gnu::noinline]] void* operator new(std::size_t size, std::align_val_t alignment) {
    return count_and_allocate(size, static_cast<std::size_t>(alignment));
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
    count_and_free(memory, alignof(std::max_align_t));
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept {
    count_and_free(memory, alignof(std::max_align_t));
}
[[gnu::noinline]] void operator delete(void* memory, std::align_val_t alignment) noexcept {
    count_and_free(memory, static_cast<std::size_t>(alignment));
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t, std::align_val_t alignment) noexcept {
    count_and_free(memory, static_cast<std::size_t>(alignment));
}

using namespace thinwire;

namespace {

const std::vector<std::vector<shape>> models = {
    {{128, 192}, {64}, {1000}},                    // matrices in whole chunks, vectors
    {{61, 53}, {2, 12, 40}, {7}, {1}, {29, 130}},  // odd sides, a batch
    {{67, 65}, {131}, {2, 67, 5}},                 // strips on all sides
};

/// Three peers and a replica that only watches, driven for `rounds`; every fourth round only the first is committed.
template <class Optimizer>
class small_run {
 public:
    template <class Options>
    small_run(const std::vector<shape>& shapes, const Options& options, thread_pool* pool)
        : first_(shapes, options, pool, 1),
          second_(shapes, options, pool, 2),
          third_(shapes, options, pool, 4),
          watcher_(shapes, options, pool, 3) {
        first_.optimizer->set_tokens(3);
        second_.optimizer->set_tokens(5);
    }

    void advance(int rounds) {
        for (int i = 0; i < rounds; ++i) {
            first_.new_gradients();
            second_.new_gradients();
            third_.new_gradients();
            const std::array<contribution, 3> list = {{{.peer = 1, .payload = first_.optimizer->begin_step(1)},
                                                       {.peer = 2, .payload = second_.optimizer->begin_step(2)},
                                                       {.peer = 4, .payload = third_.optimizer->begin_step(4)}}};
            const std::uint64_t round = watcher_.optimizer->round();
            const commit agreed = {.round = round, .contributions = std::span(list).first(round % 4 == 3 ? 1 : 3)};
            first_.optimizer->end_step({&agreed, 1});
            second_.optimizer->end_step({&agreed, 1});
            third_.optimizer->end_step({&agreed, 1});
            watcher_.optimizer->apply(agreed);
        }
    }

 private:
    optimizer_peer<Optimizer> first_, second_, third_, watcher_;
};

/// Allocations in 24 rounds, after 8 that may.
template <class Optimizer, class Options>
std::size_t steady_allocations(const std::vector<shape>& shapes, const Options& options, thread_pool* pool) {
    small_run<Optimizer> run(shapes, options, pool);
    run.advance(8);
    const std::size_t before = allocations.load();
    run.advance(24);
    return allocations.load() - before;
}

}  // namespace

// By name: what new-expressions ask for a compiler may leave out.
TEST_CASE("the counter counts") {
    const std::size_t before = allocations.load();
    ::operator delete(::operator new(3));
    constexpr std::align_val_t line{64};
    void* aligned = ::operator new(8, line);
    ::operator delete(aligned, line);
    CHECK(allocations.load() == before + 2);
}

namespace {

std::vector<demo_options> many_options() {
    return {
        {.k = 32, .weight_decay = 0.1F},
        {.k = 700, .clip_norm = 1.0F},
        {.k = 8, .values = value_code::sign},
        {.k = 1, .chunk = 16, .values = value_code::sign},
        {.alpha = 0.2F, .gradient = gradient_scale::none, .k = 8, .rule = std::make_shared<const sgd>()},
        {.k = 8, .groups = {{.parameters = {0, 2}, .learning_rate = 0.5F, .k = 3}}},
        {.k = 8, .values = value_code::sign, .basis = basis::hadamard()},
        {.k = 8, .basis = basis::random_orthogonal(3)},
        {.k = 8, .basis = basis::random_orthogonal(3, true)},
        {.k = 8, .basis = basis::identity()},
        {.k = 8, .rule = std::make_shared<const muon>()},
        {.k = 16, .values = value_code::bf16, .rule = std::make_shared<const sgd>()},
        {.k = 16, .values = value_code::q4, .rule = std::make_shared<const muon>()},
        {.k = 16, .values = value_code::q2, .error_feedback = true},
        {.k = 16, .weights = mean_weights::tokens, .contribution_clip = 1.0F},
    };
}

/// Calls use(shapes, options, pool) with all models and options, without a pool and with one of so many threads.
template <class Use>
void for_many_settings(int threads, const Use& use) {
    const std::vector<demo_options> all = many_options();
    thread_pool threaded(threads);
    for (thread_pool* pool : {static_cast<thread_pool*>(nullptr), &threaded})
        for (const std::vector<shape>& shapes : models)
            for (std::size_t i = 0; i < all.size(); ++i) {
                INFO("options ", i, ", tensors ", shapes.size(), ", pool ", pool != nullptr);
                use(shapes, all[i], pool);
            }
}

}  // namespace

TEST_CASE("demo allocates nothing once it runs") {
    for_many_settings(3, [](const std::vector<shape>& shapes, const demo_options& options, thread_pool* pool) {
        CHECK(steady_allocations<demo>(shapes, options, pool) == 0);
    });
}

namespace {

/// For optimizer_peer, which gives it what it gives a demo.
struct three_shards : sharded_demo {
    three_shards(std::span<const parameter> parameters, const demo_options& options, thread_pool* pool)
        : sharded_demo(parameters, options, 3, pool) {}
};

}  // namespace

TEST_CASE("shards allocate nothing once they run, and know what they hold") {
    for_many_settings(2, [](const std::vector<shape>& shapes, const demo_options& options, thread_pool* pool) {
        CHECK(steady_allocations<three_shards>(shapes, options, pool) == 0);
        optimizer_peer<three_shards> peer(shapes, options, pool, 1);
        peer.optimizer.reset();
        const std::size_t before = live_bytes.load();
        peer.optimizer = std::make_unique<three_shards>(peer.parameters, options, pool);
        static_cast<void>(peer.optimizer->begin_step(1));
        const std::size_t held = live_bytes.load() - before - sizeof(three_shards);
        const std::size_t told = peer.optimizer->memory_bytes().total();
        CHECK(told <= held);
        CHECK(told + 4096 >= held);  // names, reference counts
    });
}

TEST_CASE("memory_bytes() is what the allocator gave") {
    thread_pool three(3);
    // Tables that last as long as the program are made once; two that coders share have reference counts beside them.
    steady_allocations<demo>(models[1], demo_options{.k = 8}, nullptr);
    const std::size_t empty = live_bytes.load();
    const auto shared = std::make_shared<const std::array<std::size_t, 8>>();
    const std::size_t counts = 2 * (live_bytes.load() - empty - sizeof *shared);
    CHECK(counts <= 64);
    for (thread_pool* pool : {static_cast<thread_pool*>(nullptr), &three})
        for (const std::vector<shape>& shapes : models)
            for (demo_options options : many_options()) {
                options.groups.clear();
                optimizer_peer<demo> peer(shapes, options, pool, 1);
                peer.parameters[0].name = "a name that is too long for the string itself to hold";
                peer.optimizer.reset();
                options.groups = {{.prefix = "1", .k = 2},
                                  {.prefix = "a name that is too long for the string itself"},
                                  {.parameters = {2}, .learning_rate = 0.5F}};
                const std::size_t before = live_bytes.load();
                peer.optimizer = std::make_unique<demo>(peer.parameters, options, pool);
                const auto held = [&] { return live_bytes.load() - before - sizeof(demo) - counts; };
                CHECK(peer.optimizer->memory_bytes().total() == held());
                std::size_t elements = 0;
                for (const shape& s : shapes) elements += s.count();
                CHECK(peer.optimizer->memory_bytes().momentum == 4 * elements);
                for (std::uint64_t round = 0; round < 3; ++round) {
                    peer.new_gradients();
                    const contribution own = {.peer = 1, .payload = peer.optimizer->begin_step(1)};
                    CHECK(peer.optimizer->memory_bytes().total() == held());
                    const std::array<contribution, 2> list = {own, {.peer = 2, .payload = own.payload}};
                    const commit agreed = {.round = round, .contributions = std::span(list).first(round < 2 ? 1 : 2)};
                    peer.optimizer->end_step({&agreed, 1});
                    CHECK(peer.optimizer->memory_bytes().total() == held());
                }
            }
}

TEST_CASE("adamw allocates nothing once it runs") {
    thread_pool three(3);
    for (thread_pool* pool : {static_cast<thread_pool*>(nullptr), &three})
        for (const std::vector<shape>& shapes : models) {
            INFO("tensors ", shapes.size(), ", pool ", pool != nullptr);
            for (const mean_weights weights : {mean_weights::equal, mean_weights::tokens})
                CHECK(steady_allocations<adamw>(shapes, adamw_options{.weight_decay = 0.1F, .weights = weights},
                                                pool) == 0);
        }
}

namespace {

/// Calls attempt() with one allocation that fails, first its first one, then its second, until none is left to fail;
/// after every failure, check(). Returns how many failed.
template <class Attempt, class Check>
int fail_every_allocation(const Attempt& attempt, const Check& check) {
    for (int n = 0;; ++n) {
        bool done = false;
        until_failure = n;
        try {
            attempt();
            done = true;
        } catch (const std::bad_alloc&) {
        }
        until_failure = never;
        if (done) return n;
        check();
    }
}

/// A peer whose allocations fail beside one whose do not; the others of the run send fewer coefficients, of which
/// larger batches are made, and noise.
template <class Optimizer>
void compare_with_failures(const std::vector<shape>& shapes, const demo_options& options, thread_pool* pool) {
    optimizer_peer<Optimizer> shaky(shapes, options, pool, 1), steady(shapes, options, pool, 1);
    optimizer_peer<demo> other(shapes, options, nullptr, 2);
    int failures = 0;
    for (std::uint64_t round = 0; round < 4; ++round) {
        for (auto* p : {&shaky, &steady}) p->new_gradients();
        other.new_gradients();
        const int k = round == 2 ? 1 : options.k;
        fail_every_allocation([&] { shaky.optimizer->set_k(k); }, [] {});
        steady.optimizer->set_k(k);
        other.optimizer->set_k(round == 1 ? 1 : options.k);
        std::vector<std::byte> before = shaky.optimizer->save_private();
        const digest replica = shaky.optimizer->replica_digest();
        std::span<const std::byte> found;
        const auto unchanged = [&] {
            REQUIRE(shaky.optimizer->save_private() == before);
            REQUIRE(shaky.optimizer->replica_digest() == replica);
            REQUIRE(shaky.optimizer->round() == round);
        };
        failures += fail_every_allocation([&] { found = shaky.optimizer->begin_step(1); }, unchanged);
        const auto expected = steady.optimizer->begin_step(1);
        REQUIRE(std::ranges::equal(found, expected));
        before = shaky.optimizer->save_private();
        const std::vector<std::byte> noise(300, std::byte{9});
        const std::array<contribution, 3> list = {{{.peer = 2, .payload = other.optimizer->begin_step(2)},
                                                   {.peer = 3, .payload = noise},
                                                   {.peer = 1, .payload = expected}}};
        const commit agreed = {.round = round, .contributions = std::span(list).first(round == 3 ? 2 : 3)};
        failures += fail_every_allocation([&] { shaky.optimizer->end_step({&agreed, 1}); }, unchanged);
        steady.optimizer->end_step({&agreed, 1});
        other.optimizer->end_step({&agreed, 1});
        REQUIRE(shaky.values == steady.values);
        REQUIRE(shaky.optimizer->save_private() == steady.optimizer->save_private());
    }
    CHECK(failures > 0);
}

}  // namespace

TEST_CASE("a step that has no memory changes nothing") {
    for_many_settings(3, [](const std::vector<shape>& shapes, const demo_options& options, thread_pool* pool) {
        compare_with_failures<demo>(shapes, options, pool);
        compare_with_failures<three_shards>(shapes, options, pool);
    });
}

TEST_CASE("a C caller that has no memory is told so, and nothing has changed") {
    const std::array<std::int64_t, 2> sides = {40, 50};
    std::vector<float> x(2000), y(2000), gradient(2000);
    for (const int threads : {1, 2}) {
        thinwire_options options;
        REQUIRE(thinwire_options_init(&options, sizeof options) == THINWIRE_OK);
        options.k = 5;
        options.chunk = 8;
        options.threads = threads;
        options.values = THINWIRE_VALUES_Q4;
        const std::array<thinwire_tensor, 2> tensors = {
            {{.name = "first of all", .shape = sides.data(), .rank = 2, .values = x.data(), .count = x.size()},
             {.name = nullptr, .shape = sides.data(), .rank = 2, .values = y.data(), .count = y.size()}}};
        const thinwire_floats given = {.data = gradient.data(), .count = gradient.size()};
        const std::array<thinwire_floats, 2> gradients = {given, given};
        thinwire_demo* handle = nullptr;
        const auto until_done = [&](const auto& call, const auto& check) {
            int failures = 0;
            for (thinwire_status status = THINWIRE_NO_MEMORY; status != THINWIRE_OK; ++failures) {
                until_failure = failures;
                status = call();
                until_failure = never;
                if (status == THINWIRE_OK) break;
                REQUIRE(status == THINWIRE_NO_MEMORY);
                REQUIRE(std::string(thinwire_last_error()).find("out of memory") != std::string::npos);
                check();
            }
            return failures;
        };
        const auto state = [&] {
            thinwire_bytes found;
            REQUIRE(thinwire_save(handle, &found) == THINWIRE_OK);
            return std::vector<std::uint8_t>(found.data, found.data + found.size);
        };
        CHECK(until_done([&] { return thinwire_demo_create(tensors.data(), 2, &options, &handle); },
                         [&] { REQUIRE(handle == nullptr); }) > 0);
        thinwire_demo* plain = nullptr;
        CHECK(until_done([&] { return thinwire_demo_create(tensors.data(), 2, nullptr, &plain); },
                         [&] { REQUIRE(plain == nullptr); }) > 0);
        thinwire_demo_destroy(plain);
        random_stream random(3);
        for (std::uint64_t round = 0; round < 3; ++round) {
            for (float& g : gradient) g = random.normal();
            std::vector<std::uint8_t> before = state();
            const std::vector<float> weights = x;
            const auto unchanged = [&] {
                REQUIRE(state() == before);
                REQUIRE(x == weights);
            };
            thinwire_payload payload = {.peer = 1, .bytes = {}};
            until_done(
                [&] { return thinwire_begin_step(handle, 1, gradients.data(), gradients.size(), &payload.bytes); },
                unchanged);
            before = state();
            until_done([&] { return thinwire_end_step(handle, round, &payload, 1, nullptr); }, unchanged);
            thinwire_bytes saved;
            const std::vector<std::uint8_t> after = state();
            CHECK(until_done([&] { return thinwire_save(handle, &saved); }, [] {}) > 0);
            CHECK(until_done([&] { return thinwire_restore(handle, after.data(), after.size()); },
                             [&] { REQUIRE(state() == after); }) > 0);
        }
        thinwire_demo_destroy(handle);
    }
}
