#include <thinwire/backend/cuda/device.cuh>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

using namespace thinwire;
using namespace thinwire::cuda;

namespace {

template <class T>
device_buffer<T> upload(stream& s, const std::vector<T>& elements, const char* name = "buffer") {
    device_buffer<T> buffer(elements.size(), name);
    copy_to_device<T>(s, elements, buffer.span());
    s.synchronize();
    return buffer;
}
template <class T>
std::vector<T> download(stream& s, const device_buffer<T>& buffer) {
    std::vector<T> out(buffer.size());
    copy_to_host<T>(s, buffer.span(), std::span(out));
    s.synchronize();
    return out;
}

/// A kernel that calls a function with its thread and one span.
template <class Body>
struct probe {
    static constexpr std::string_view name = "probe";
    static constexpr unsigned threads = 64;
    device_span<std::uint32_t> data;
    Body body;
    void operator()(const kernel_thread& self) const { body(self, data); }
};

struct verdict {
    defect kind;
    std::string text;
};
/// What the emulator says of a body, under every order of threads the same kind; none: nothing.
template <class Body>
std::optional<verdict> judge(const Body& body, unsigned blocks = 1, std::size_t shared_bytes = 4096,
                             bool initialised = true) {
    std::optional<verdict> first;
    for (const thread_order order : {thread_order::rising, thread_order::falling, thread_order::shuffled}) {
        detail::order_of_threads = order;
        stream s;
        device_buffer<std::uint32_t> data(256, "data");
        if (initialised) {
            const std::vector<std::uint32_t> zeros(256);
            copy_to_device<std::uint32_t>(s, zeros, data.span());
            s.synchronize();
        }
        std::optional<verdict> found;
        try {
            launch(s, probe<Body>{data.span(), body}, blocks, shared_bytes);
            s.synchronize();
        } catch (const emulation_error& e) {
            found = verdict{e.kind(), e.what()};
        }
        if (order == thread_order::rising) first = found;
        CHECK(first.has_value() == found.has_value());
        if (first && found) CHECK(first->kind == found->kind);
    }
    detail::order_of_threads = thread_order::rising;
    return first;
}
template <class Body>
void expect(defect kind, const char* words, const Body& body, unsigned blocks = 1, std::size_t shared_bytes = 4096,
            bool initialised = true) {
    const auto found = judge(body, blocks, shared_bytes, initialised);
    REQUIRE(found.has_value());
    INFO(found->text);
    CHECK(found->kind == kind);
    CHECK(found->text.find(words) != std::string::npos);
    CHECK(found->text.find("emulator_test.cpp:") != std::string::npos);
}

using words = device_span<std::uint32_t>;

}  // namespace

TEST_CASE("emulator: blocks, threads, warps, shared memory and barriers give what a device gives") {
    stream s;
    for (const thread_order order : {thread_order::rising, thread_order::falling, thread_order::shuffled}) {
        detail::order_of_threads = order;
        const auto data = upload(s, std::vector<std::uint32_t>(192), "data");
        const auto body = [](const kernel_thread& self, const words& out) {
            shared_memory area(self);
            const auto values = area.take<std::uint32_t>(64, "values");
            values.store(self.index(), self.index() * self.index());
            self.barrier();
            out.store(self.block() * 64 + self.index(), values.load(63 - self.index()) + 10000 * self.block());
        };
        launch(s, probe<decltype(body)>{data.span(), body}, 3, 256);
        const auto out = download(s, data);
        for (std::uint32_t i = 0; i < 192; ++i) CHECK(out[i] == (63 - i % 64) * (63 - i % 64) + 10000 * (i / 64));
    }
    detail::order_of_threads = thread_order::rising;
}

TEST_CASE("emulator: shuffles, ballots and reductions of a warp") {
    stream s;
    const auto data = upload(s, std::vector<std::uint32_t>(64 * 6), "data");
    const auto body = [](const kernel_thread& self, const words& out) {
        const std::uint32_t i = self.index();
        out.store(i, self.shuffle(i * 3, 5));
        out.store(64 + i, self.shuffle_xor(i, 16));
        out.store(128 + i, self.ballot(i % 3 == 0));
        out.store(192 + i, self.sum(i));
        out.store(256 + i, self.largest(i ^ 21U));
        out.store(320 + i, static_cast<std::uint32_t>(self.shuffle_xor(static_cast<double>(i), 1)));
    };
    launch(s, probe<decltype(body)>{data.span(), body}, 1, 0);
    const auto out = download(s, data);
    for (std::uint32_t i = 0; i < 64; ++i) {
        const std::uint32_t from = i / 32 * 32;
        std::uint32_t votes = 0, sum = 0;
        for (std::uint32_t lane = 0; lane < 32; ++lane) {
            votes |= ((from + lane) % 3 == 0 ? 1U : 0U) << lane;
            sum += from + lane;
        }
        CHECK(out[i] == (from + 5) * 3);
        CHECK(out[64 + i] == (i ^ 16U));
        CHECK(out[128 + i] == votes);
        CHECK(out[192 + i] == sum);
        CHECK(out[256 + i] == from + 31);
        CHECK(out[320 + i] == (i ^ 1U));
    }
}

TEST_CASE("emulator: races on shared memory are found, whatever the order of threads") {
    expect(defect::race, "shared array 'cell'", [](const kernel_thread& self, const words&) {
        shared_memory area(self);
        area.take<std::uint32_t>(1, "cell").store(0, self.index());  // all write one element
    });
    expect(defect::race, "since the last barrier", [](const kernel_thread& self, const words& out) {
        shared_memory area(self);
        const auto values = area.take<std::uint32_t>(64, "values");
        values.store(self.index(), 1);
        out.store(self.index(), values.load(self.index() ^ 32U));  // no barrier before reading another warp's
    });
    expect(defect::race, "since the last barrier", [](const kernel_thread& self, const words& out) {
        shared_memory area(self);
        const auto values = area.take<std::uint32_t>(64, "values");
        values.store(self.index(), 1);
        self.barrier();
        const std::uint32_t other = values.load(self.index() ^ 1U);
        values.store(self.index(), other);  // the neighbour may not have read it
        out.store(self.index(), other);
    });
    expect(defect::race, "since the last barrier", [](const kernel_thread& self, const words& out) {
        shared_memory area(self);
        const auto sum = area.take<std::uint32_t>(1, "sum");
        if (self.index() == 0) sum.store(0, 0);
        self.barrier();
        sum.atomic_add(0, 1);
        out.store(self.index(), sum.load(0));  // others may still add
    });
}

TEST_CASE("emulator: what barriers, warps and atomic operations order is no race") {
    CHECK_FALSE(judge([](const kernel_thread& self, const words& out) {
                    shared_memory area(self);
                    const auto values = area.take<std::uint32_t>(64, "values");
                    const auto sum = area.take<std::uint32_t>(1, "sum");
                    if (self.index() == 0) sum.store(0, 0);
                    for (int turn = 0; turn < 3; ++turn) {
                        values.store(self.index(), self.index());
                        self.barrier();
                        sum.atomic_add(0, values.load(63 - self.index()));
                        self.barrier();
                    }
                    out.store(self.index(), sum.load(0));
                }).has_value());
    CHECK_FALSE(judge([](const kernel_thread& self, const words& out) {
                    shared_memory area(self);
                    const auto values = area.take<std::uint32_t>(64, "values");
                    values.store(self.index(), self.index());
                    self.sync_warp();
                    out.store(self.index(), values.load(self.index() ^ 1U));  // of the same warp
                }).has_value());
    CHECK_FALSE(
        judge([](const kernel_thread& self, const words& out) { out.atomic_add(0, self.index()); }, 4).has_value());
}

TEST_CASE("emulator: synchronising a warp orders that warp only, and a shuffle orders nothing") {
    expect(defect::race, "thread", [](const kernel_thread& self, const words& out) {
        shared_memory area(self);
        const auto values = area.take<std::uint32_t>(64, "values");
        values.store(self.index(), self.index());
        self.sync_warp();
        out.store(self.index(), values.load(self.index() ^ 32U));
    });
    expect(defect::race, "thread", [](const kernel_thread& self, const words& out) {
        shared_memory area(self);
        const auto values = area.take<std::uint32_t>(64, "values");
        values.store(self.index(), self.index());
        static_cast<void>(self.shuffle(self.index(), 0));
        out.store(self.index(), values.load(self.index() ^ 1U));
    });
    expect(defect::race, "thread", [](const kernel_thread& self, const words& out) {
        const std::uint32_t value = out.load(0);  // of both warps
        self.sync_warp();
        if (self.index() == 0) out.store(0, value + 1);
    });
    CHECK_FALSE(judge([](const kernel_thread& self, const words& out) {
                    const std::uint32_t value = self.warp() == 0 ? out.load(0) : 0U;
                    self.sync_warp();
                    if (self.index() == 0) out.store(0, value + 1);
                }).has_value());
}

TEST_CASE("emulator: blocks of a launch are not ordered, launches are") {
    const auto all_write = [](const kernel_thread& self, const words& out) {
        if (self.index() == 0) out.store(3, self.block());
    };
    expect(defect::race, "another block", all_write, 2);
    CHECK_FALSE(judge(all_write, 1).has_value());
    expect(
        defect::race, "another block",
        [](const kernel_thread& self, const words& out) {
            if (self.index() == 0) out.store(self.block(), 1);
            self.barrier();
            if (self.index() == 1) out.store(100 + self.block(), out.load(1 - self.block()));
        },
        2);
    stream s;
    const auto data = upload(s, std::vector<std::uint32_t>(8), "data");
    for (int turn = 0; turn < 3; ++turn) launch(s, probe<decltype(all_write)>{data.span(), all_write}, 1, 0);
    CHECK_NOTHROW(s.synchronize());
}

TEST_CASE("emulator: indices outside global and shared arrays") {
    expect(defect::out_of_bounds, "writes element 256 of a span of 256 elements in array 'data'",
           [](const kernel_thread& self, const words& out) { out.store(self.index() + 193, 0); });
    expect(defect::out_of_bounds, "array 'values'", [](const kernel_thread& self, const words& out) {
        shared_memory area(self);
        const auto values = area.take<std::uint32_t>(64, "values");
        values.store(self.index(), 0);
        self.barrier();
        out.store(self.index(), values.load(self.index() + 1));
    });
    expect(defect::out_of_bounds, "subspan of 10 elements from 250 on",
           [](const kernel_thread& self, const words& out) { out.subspan(250, 10).store(0, self.index()); });
}

TEST_CASE("emulator: several elements at once, at multiples of their size") {
    CHECK_FALSE(judge([](const kernel_thread& self, const words& out) {
                    const auto four = out.load_pack<4>(4 * self.index());
                    const auto two = out.load_pack<2>(2 * self.index());
                    self.barrier();
                    out.store(self.index(), four.value[3] + two.value[1]);
                }).has_value());
    expect(defect::misaligned, "4 elements at once from element 2 on",
           [](const kernel_thread&, const words& out) { static_cast<void>(out.load_pack<4>(2)); });
    expect(defect::out_of_bounds, "array 'data'", [](const kernel_thread& self, const words& out) {
        static_cast<void>(out.load_pack<2>(256 + 2 * self.index()));
    });
}

TEST_CASE("emulator: writing several elements at once: all of them, aligned, and compared with other accesses") {
    CHECK_FALSE(judge([](const kernel_thread& self, const words& out) {
                    out.store_pack<4>(4 * self.index(), {{1, 2, 3, self.index()}});
                    self.barrier();
                    if (out.load(255 - self.index()) == 9) out.store(0, 1);
                }).has_value());
    expect(defect::misaligned, "writes 2 elements at once from element 3 on",
           [](const kernel_thread&, const words& out) {
               out.store_pack<2>(3, {{1, 2}});
           });
    expect(defect::race, "array 'data'", [](const kernel_thread& self, const words& out) {
        out.store_pack<2>(2 * (self.index() / 2), {{1, 2}});
    });
}

TEST_CASE("emulator: how many turns the banks of shared memory take for the accesses of a warp") {
    struct pattern {
        std::uint64_t accesses, wavefronts;
    };
    const auto count = [](const auto& body) {
        detail::bank_meter meter;
        detail::banks = &meter;
        CHECK_FALSE(judge(body, 2, 64 * 64 * 4).has_value());  // three orders of threads
        detail::banks = nullptr;
        const auto found = meter.from("emulator_test.cpp");
        return pattern{found.accesses / 3, found.wavefronts / 3};
    };
    const auto with = [&](auto place) {
        return count([place](const kernel_thread& self, const words&) {
            shared_memory area(self);
            const auto values = area.take<std::uint32_t>(64 * 64, "values");
            values.store(place(self.index()), self.index());
        });
    };
    const pattern neighbours = with([](unsigned i) { return i; });
    CHECK(neighbours.accesses == 4);  // two blocks of two warps
    CHECK(neighbours.wavefronts == 4);
    CHECK(with([](unsigned i) { return i * 2; }).wavefronts == 4 * 2);
    CHECK(with([](unsigned i) { return i * 33; }).wavefronts == 4);
    CHECK(with([](unsigned i) { return i * 64; }).wavefronts == 4 * 32);
    const pattern reads = count([](const kernel_thread& self, const words&) {
        shared_memory area(self);
        const auto values = area.take<std::uint32_t>(64 * 64, "values");
        for (unsigned i = self.index(); i < 256; i += 64) values.store(i, i);  // 4 accesses of each warp
        self.barrier();
        static_cast<void>(values.load(7));
        static_cast<void>(values.load_pack<4>(8));
        static_cast<void>(values.load_pack<4>(4 * self.index()));
    });
    CHECK(reads.accesses == 4 * (4 + 3));
    CHECK(reads.wavefronts == 4 * (4 + 1 + 1 + 4));
}

TEST_CASE("emulator: reading what nobody wrote") {
    expect(
        defect::uninitialised, "global array 'data'",
        [](const kernel_thread& self, const words& out) { out.store(self.index(), out.load(64 + self.index())); }, 1, 0,
        false);
    const auto of_last_block = [](const kernel_thread& self, const words& out) {
        shared_memory area(self);
        const auto values = area.take<std::uint32_t>(64, "values");
        if (self.block() == 0) values.store(self.index(), 1);
        out.store(64 * self.block() + self.index(), values.load(self.index()));
    };
    expect(defect::uninitialised, "shared array 'values'", of_last_block, 2);
    CHECK_FALSE(judge(of_last_block, 1).has_value());
    stream s;
    const device_buffer<std::uint32_t> empty(4, "empty");
    std::vector<std::uint32_t> out(4);
    copy_to_host<std::uint32_t>(s, empty.span(), std::span(out));
    CHECK_THROWS_AS(s.synchronize(), emulation_error);
}

TEST_CASE("emulator: threads that wait in different places, or for one that has returned") {
    expect(defect::divergence, "wait at the barrier", [](const kernel_thread& self, const words&) {
        if (self.index() < 32) self.barrier();
    });
    expect(defect::divergence, "have returned", [](const kernel_thread& self, const words&) {
        if (self.index() != 40) self.barrier();
    });
    expect(defect::divergence, "wait at the barrier", [](const kernel_thread& self, const words&) {
        if (self.index() % 2 == 0)
            self.barrier();
        else
            self.barrier();
    });
    expect(defect::divergence, "wait for their warp", [](const kernel_thread& self, const words&) {
        if (self.lane() < 8) static_cast<void>(self.ballot(true));
    });
    expect(defect::divergence, "wait for their warp", [](const kernel_thread& self, const words&) {
        if (self.lane() < 8)
            static_cast<void>(self.ballot(true));
        else
            static_cast<void>(self.sum(1));
    });
    CHECK_FALSE(judge([](const kernel_thread& self, const words& out) {
                    if (self.warp() == 0) out.store(self.lane(), self.sum(1));  // whole warps may go their own way
                }).has_value());
}

TEST_CASE("emulator: shared arrays that threads take differently, or that do not fit") {
    const auto too_much = judge([](const kernel_thread& self, const words&) {
        shared_memory area(self);
        area.take<std::uint32_t>(1025, "large").store(self.index(), 0);
    });
    REQUIRE(too_much.has_value());
    CHECK(too_much->kind == defect::limits);
    const auto differently = judge([](const kernel_thread& self, const words&) {
        shared_memory area(self);
        area.take<std::uint32_t>(self.index() < 32 ? 64 : 65, "values").store(self.index(), 0);
    });
    REQUIRE(differently.has_value());
    CHECK(differently->kind == defect::divergence);
    const auto body = [](const kernel_thread&, const words&) {};
    stream s;
    CHECK_THROWS_AS(launch(s, probe<decltype(body)>{{}, body}, 1, most_shared_bytes + 1), emulation_error);
}

TEST_CASE("emulator: device memory that is not there, or not the kernel's to touch") {
    stream s;
    const auto body = [](const kernel_thread& self, const words& out) { out.store(self.index(), 1); };
    words span;
    {
        const auto data = upload(s, std::vector<std::uint32_t>(64), "short-lived");
        span = data.span();
    }
    launch(s, probe<decltype(body)>{span, body}, 1, 0);
    CHECK_THROWS_WITH_AS(s.synchronize(), doctest::Contains("'short-lived' (64 elements), which is freed"),
                         emulation_error);
    std::vector<std::uint32_t> host(64);
    CHECK_THROWS_AS(words(host.data(), host.size()), emulation_error);
    const auto data = upload(s, std::vector<std::uint32_t>(64), "data");
    CHECK_NOTHROW(words(data.data() + 3, 61));
    CHECK_THROWS_AS(words(data.data() + 3, 62), emulation_error);
    CHECK_THROWS_WITH_AS(static_cast<void>(data.span().load(0)), doctest::Contains("outside a kernel"),
                         emulation_error);
}

TEST_CASE("emulator: a stream does nothing before somebody waits, and then in order") {
    stream s;
    const auto add = [](const kernel_thread& self, const words& out) {
        out.store(self.index(), out.load(self.index()) + 1);
    };
    device_buffer<std::uint32_t> data(64, "data");
    std::vector<std::uint32_t> in(64, 5), out(64);
    copy_to_device<std::uint32_t>(s, in, data.span());
    launch(s, probe<decltype(add)>{data.span(), add}, 1, 0);
    copy_to_host<std::uint32_t>(s, data.span(), std::span(out));
    event copied;
    copied.record(s);
    launch(s, probe<decltype(add)>{data.span(), add}, 1, 0);
    CHECK(out[7] == 0);
    copied.wait();
    CHECK(out[7] == 6);
    CHECK(download(s, data)[7] == 7);
}

TEST_CASE("emulator: after an error the block's stacks are unwound and the next launch is clean") {
    stream s;
    struct counted {
        int* alive;
        explicit counted(int* a) : alive(a) { ++*alive; }
        counted(const counted&) = delete;
        counted& operator=(const counted&) = delete;
        ~counted() { --*alive; }
    };
    int alive = 0;
    const auto body = [&alive](const kernel_thread& self, const words& out) {
        const counted one(&alive);
        self.barrier();
        if (self.index() == 63) out.store(1000, 0);
        self.barrier();
    };
    const auto data = upload(s, std::vector<std::uint32_t>(64), "data");
    for (int turn = 0; turn < 3; ++turn) {
        launch(s, probe<decltype(body)>{data.span(), body}, 2, 0);
        CHECK_THROWS_AS(s.synchronize(), emulation_error);
        CHECK(alive == 0);
    }
    const auto good = [](const kernel_thread& self, const words& out) { out.store(self.index(), 9); };
    launch(s, probe<decltype(good)>{data.span(), good}, 1, 0);
    CHECK(download(s, data)[63] == 9);
}
