#include "node.hpp"

#include <thinwire/backend/cuda/backend.cuh>
#include <thinwire/nccl/communicator.cuh>
#include <thinwire/nn/transformer.hpp>
#include <thinwire/optim/demo.hpp>

#include "peer.hpp"
#include <doctest/doctest.h>
#include <support/optim_peer.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace thinwire;
using test::device_peer;
using test::finish;
using test::machine;
using test::node;
using host_peer = test::peer<demo, demo_options>;
using tensors = std::vector<std::vector<float>>;

namespace {

/// Numbers of devices to try, as far as there are so many. On a machine with one device only a group of one is tried.
std::vector<std::size_t> counts() {
    std::vector<std::size_t> out;
    for (const std::size_t n : {1U, 2U, 3U, 4U})
        if (n <= test::devices_here()) out.push_back(n);
    return out;
}
bool too_few_devices(std::size_t needed) {
    if (test::devices_here() >= needed) return false;
    MESSAGE("skipped: needs " << needed << " devices, here are " << test::devices_here());
    return true;
}

tensors normal_numbers(random_stream& random, const std::vector<shape>& shapes) {
    tensors out;
    for (const shape& s : shapes) {
        out.emplace_back();
        for (std::size_t i = 0; i < s.count(); ++i) out.back().push_back(random.normal());
    }
    return out;
}
/// Small integers, of which sums, halves and quarters are exact.
tensors integers(random_stream& random, const std::vector<shape>& shapes) {
    tensors out;
    for (const shape& s : shapes) {
        out.emplace_back();
        for (std::size_t i = 0; i < s.count(); ++i) out.back().push_back(static_cast<float>(random.below(17)) - 8.0F);
    }
    return out;
}

/// The mean gradient as the devices have it after begin_step: each part where its owner is.
tensors mean_of(node& of, const std::vector<shape>& shapes, const demo_options& options) {
    const std::size_t count = of.streams.all.size();
    tensors out;
    std::vector<parameter> views;
    for (const shape& s : shapes) out.emplace_back(s.count());
    for (std::size_t i = 0; i < shapes.size(); ++i)
        views.push_back({.name = of.parameters[0][i].name, .shape = shapes[i], .values = out[i], .gradient = out[i]});
    const auto parts = cut_into_shards(views, options, count);
    for (std::size_t d = 0; d < count; ++d)
        for (const shard_part& part : parts[d]) {
            const auto held = test::on_host(
                *of.streams.all[d], of.gradients[d][part.tensor].span().subspan(part.first, part.shape.count()));
            std::ranges::copy(held, out[part.tensor].begin() + static_cast<std::ptrdiff_t>(part.first));
        }
    return out;
}

/// A node, one device that is given the node's mean gradients, and a host train together, and a host watches. All
/// payloads of the first two have the same bytes, all weights the same bits.
void train_together(std::size_t count, const demo_options& options, const std::vector<shape>& shapes, int rounds,
                    thread_pool* pool = nullptr) {
    CAPTURE(count);
    node many(count, options, shapes, pool);
    device_peer one(0, options, nullptr, shapes);
    host_peer host(1, options, nullptr, shapes), watcher(2, options, nullptr, shapes);
    REQUIRE(many.optimizer->replica_digest() == host.optimizer->replica_digest());
    REQUIRE(many.optimizer->layout().fingerprint == one.optimizer->layout().fingerprint);
    REQUIRE(many.all_equal());
    random_stream random(31);
    for (int r = 0; r < rounds; ++r) {
        const auto round = static_cast<std::uint64_t>(r);
        const bool lost = r == 1;
        tensors expected;
        for (std::size_t d = 0; d < count; ++d) {
            const tensors own = normal_numbers(random, shapes);
            many.upload_gradients(d, own);
            expected.resize(own.size());
            for (std::size_t i = 0; i < own.size(); ++i) {
                expected[i].resize(own[i].size());
                for (std::size_t e = 0; e < own[i].size(); ++e) expected[i][e] += own[i][e] / static_cast<float>(count);
            }
        }
        const int k = r == 2 ? 1 + options.k / 2 : options.k;
        many.optimizer->set_k(k);
        one.optimizer->set_k(k);
        const auto payload = many.optimizer->begin_step(0);
        const std::vector<std::byte> sent(payload.begin(), payload.end());
        one.host_gradients = mean_of(many, shapes, options);
        for (std::size_t i = 0; i < expected.size(); ++i)
            for (std::size_t e = 0; e < expected[i].size(); ++e)
                REQUIRE(std::abs(one.host_gradients[i][e] - expected[i][e]) < 1e-6F);
        one.upload_gradients();
        CHECK(std::ranges::equal(one.optimizer->begin_step(0), sent));
        const auto theirs = host.begin(1);
        std::vector<contribution> list = {{.peer = 1, .payload = theirs}};
        if (!lost) list.push_back({.peer = 0, .payload = sent});
        const step_report a = finish(*many.optimizer, round, list), b = finish(*one.optimizer, round, list);
        finish(*host.optimizer, round, list);
        CHECK(watcher.optimizer->apply({.round = round, .contributions = list}).contributors == list.size());
        CHECK(a.own_included == !lost);
        CHECK(a.contributors == b.contributors);
        CHECK(a.agreeing == list.size());
        CHECK(a.bytes_sent == sent.size());
        CHECK(a.bytes_received == theirs.size());
        CHECK(std::abs(a.gradient_norm - b.gradient_norm) <= 1e-6F * b.gradient_norm);
        CHECK(many.optimizer->replica_digest() == watcher.optimizer->replica_digest());
        CHECK(one.optimizer->replica_digest() == watcher.optimizer->replica_digest());
        CHECK(many.all_equal());
        CHECK(many.optimizer->save_private() == one.optimizer->save_private());
    }
}

}  // namespace

TEST_CASE("node: every basis, value code and rule: the bytes of one device with the mean gradient, and its weights") {
    const machine here(4);
    const std::vector<shape> shapes = {{24, 40}, {30}, {2, 16, 8}, {35, 21}, {3, 19, 6}};  // the last two in regions
    const std::vector<basis> bases = {basis::dct(), basis::hadamard(), basis::random_orthogonal(7, true),
                                      basis::identity()};
    for (const std::size_t count : counts())
        for (const basis& transform : bases)
            for (const value_code values : {value_code::f32, value_code::sign, value_code::q4}) {
                CAPTURE(to_string(transform.kind()));
                CAPTURE(to_string(values));
                demo_options options = {.momentum_decay = 0.9F, .alpha = 0.5F, .k = 6, .values = values};
                options.gradient = gradient_scale::none;
                options.error_feedback = transform.kind() != basis_kind::dct;
                options.basis = transform;
                options.chunk = 16;
                options.weight_decay = 0.1F;
                if (values == value_code::q4) options.rule = std::make_shared<const sgd>();
                train_together(count, options, shapes, 3);
            }
}

TEST_CASE("node: tensors cut between devices, devices with nothing, chunks beyond shared memory, groups, a pool") {
    const machine here(4);
    thread_pool pool(3);
    for (const std::size_t count : counts()) {
        demo_options options = {.learning_rate = 0.01F, .momentum_decay = 0.9F, .k = 32};
        train_together(count, options, {{256, 64}, {64, 128}, {29, 64}, {130}, {1, 64}, {}}, 3, &pool);
        train_together(count, options, {{20, 20}}, 2);  // one chunk
        train_together(count, options, {{131, 67}, {2, 67, 5}}, 2, &pool);
        options.chunk = 128;
        train_together(count, options, {{256, 128}, {13}}, 2);
        options.chunk = 8;
        options.k = 5;
        options.weights = mean_weights::tokens;
        options.groups = {{.prefix = "tensor1",
                           .learning_rate = 0.25F,
                           .weight_decay = 0.5F,
                           .k = 2,
                           .rule = std::make_shared<const sgd>()}};
        train_together(count, options, {{16, 24}, {40, 8}, {9}}, 3, &pool);
    }
}

TEST_CASE("node: where arithmetic is exact the payload is that of a host with the mean gradient, clipped or not") {
    const machine here(4);
    const std::vector<shape> shapes = {{64, 64}, {16, 64}, {64}, {131, 65}};
    for (const std::size_t count : counts()) {
        if (count == 3) continue;  // a third is not exact
        for (const float clip : {0.0F, 8.0F}) {
            demo_options options = {.momentum_decay = 0.5F, .k = 7, .clip_norm = clip};
            options.gradient = gradient_scale::none;
            options.basis = basis::identity();
            node many(count, options, shapes);
            host_peer host(0, options, nullptr, shapes);
            random_stream random(11);
            for (std::uint64_t round = 0; round < 3; ++round) {
                for (auto& g : host.gradients) std::ranges::fill(g, 0.0F);
                for (std::size_t d = 0; d < count; ++d) {
                    const tensors own = integers(random, shapes);
                    many.upload_gradients(d, own);
                    for (std::size_t i = 0; i < own.size(); ++i)
                        for (std::size_t e = 0; e < own[i].size(); ++e)
                            host.gradients[i][e] += own[i][e] / static_cast<float>(count);
                }
                const auto of_host = host.optimizer->begin_step(0), of_node = many.optimizer->begin_step(0);
                REQUIRE(std::ranges::equal(of_node, of_host));
                const std::vector<std::byte> sent(of_host.begin(), of_host.end());
                const std::vector<contribution> list = {{.peer = 0, .payload = sent}};
                const step_report a = finish(*many.optimizer, round, list), b = finish(*host.optimizer, round, list);
                CHECK(a.gradient_norm == b.gradient_norm);
                CHECK(many.optimizer->replica_digest() == host.optimizer->replica_digest());
                CHECK(many.all_equal());
            }
            // what is private goes on elsewhere, and comes back
            host_peer elsewhere(0, options, nullptr, shapes);
            REQUIRE(elsewhere.optimizer->restore_private(many.optimizer->save_private()));
            elsewhere.optimizer->set_round(3);
            CHECK(elsewhere.optimizer->save_private() == host.optimizer->save_private());
            node returned(count, options, shapes);
            REQUIRE(returned.optimizer->restore_private(host.optimizer->save_private()));
            CHECK(returned.optimizer->save_private() == host.optimizer->save_private());
        }
    }
}

TEST_CASE("node: in which order gradients are added may change a payload, and never lets replicas differ") {
    const machine here(4);
    if (too_few_devices(3)) return;
    const std::vector<shape> shapes = {{32, 32}, {20}};
    const demo_options options = {.momentum_decay = 0.9F, .k = 9};
    node first(3, options, shapes), second(3, options, shapes);
    random_stream random(3);
    for (std::uint64_t round = 0; round < 4; ++round) {
        std::vector<std::vector<std::byte>> sent;
        for (node* n : {&first, &second}) {
#if defined(THINWIRE_CUDA_EMULATE)
            const test::ordered as(n == &first ? cuda::thread_order::rising : cuda::thread_order::falling);
#endif
            for (std::size_t d = 0; d < 3; ++d) n->upload_gradients(d, normal_numbers(random, shapes));
            const auto payload = n->optimizer->begin_step(n == &first ? 0 : 1);
            sent.emplace_back(payload.begin(), payload.end());
        }
        const std::vector<contribution> list = {{.peer = 0, .payload = sent[0]}, {.peer = 1, .payload = sent[1]}};
        CHECK(finish(*first.optimizer, round, list).agreeing == 2);
        CHECK(finish(*second.optimizer, round, list).agreeing == 2);
        CHECK(first.optimizer->replica_digest() == second.optimizer->replica_digest());
        CHECK(first.all_equal());
        CHECK(second.all_equal());
    }
}

TEST_CASE("node: a gradient that is not finite is named by its place, and changes nothing") {
    const machine here(4);
    if (too_few_devices(2)) return;
    const std::vector<shape> shapes = {{64, 64}, {257, 64}, {40}};
    const demo_options options = {.momentum_decay = 0.9F, .k = 4};
    node many(2, options, shapes);
    random_stream random(4);
    const tensors good = normal_numbers(random, shapes);
    const auto give = [&](const tensors& of_second) {
        many.upload_gradients(0, good);
        many.upload_gradients(1, of_second);
    };
    give(good);
    const auto payload = many.optimizer->begin_step(0);
    const std::vector<std::byte> sent(payload.begin(), payload.end());
    finish(*many.optimizer, 0, {{.peer = 0, .payload = sent}});
    const std::vector<std::byte> before = many.optimizer->save_private();
    // of the first device's part, of the second's and of the row that remains below
    for (const std::size_t element : {std::size_t{5}, std::size_t{200 * 64 + 3}, std::size_t{256 * 64 + 7}}) {
        tensors bad = good;
        bad[1][element] = std::numeric_limits<float>::infinity();
        give(bad);
        CHECK_THROWS_WITH_AS(static_cast<void>(many.optimizer->begin_step(0)),
                             doctest::Contains(std::string("gradient of 'tensor1': element ")
                                                   .append(std::to_string(element))
                                                   .append(" is inf")
                                                   .c_str()),
                             value_error);
        CHECK(many.optimizer->save_private() == before);
    }
    give(good);
    CHECK(many.optimizer->begin_step(0).size() > 100);
}

TEST_CASE("node: gradients that move, weights that are loaded, momentum by device, and what is refused") {
    const machine here(4);
    if (too_few_devices(2)) return;
    const std::vector<shape> shapes = {{256, 64}, {40}};
    const demo_options options = {.momentum_decay = 0.0F, .k = 4};
    node many(2, options, shapes);
    const std::vector<float> ones(256 * 64, 1.0F);
    const auto moved = [&] {
        const cuda::device_scope second(1);
        return test::on_device(*many.streams.all[1], ones, "moved");
    }();
    many.optimizer->set_gradient(0, moved.span(), 1);
    many.upload_gradients(0, {std::vector<float>(256 * 64), std::vector<float>(40)});
    static_cast<void>(many.optimizer->begin_step(0));
    const tensors mean = mean_of(many, shapes, options);
    CHECK(mean[0].front() == 0.5F);  // the first device's part
    CHECK(test::on_host(*many.streams.all[1], moved.span()).back() == 0.5F);
    many.optimizer->abandon();
    CHECK_THROWS_AS(many.optimizer->set_gradient(2, moved.span(), 1), value_error);
    CHECK_THROWS_AS(many.optimizer->set_gradient(0, moved.span(), 2), value_error);
    CHECK_THROWS_AS(many.optimizer->set_gradient(0, moved.span().subspan(0, 3), 1), shape_error);
    CHECK_THROWS_WITH_AS(static_cast<void>(many.optimizer->momentum(0)), doctest::Contains("is not on one device"),
                         value_error);
    CHECK_THROWS_WITH_AS(static_cast<void>(many.optimizer->momentum(9)),
                         doctest::Contains("parameter 9, expected below"), value_error);
    CHECK(many.optimizer->momentum(1).size() == 40);
    CHECK_THROWS_WITH_AS(many.optimizer->set_gradient(0, moved.span(), 0),
                         doctest::Contains("gradient of 'tensor0' on device 1, expected memory of device 0"),
                         value_error);
    CHECK_THROWS_AS(static_cast<void>(many.optimizer->replica_digest(2)), value_error);

    cuda::copy_to_device<float>(*many.streams.all[0], ones, many.values[0][0].span());
    CHECK_FALSE(many.all_equal());
    many.optimizer->spread_weights();
    CHECK(many.all_equal());

    const auto make = [&](const std::vector<std::vector<cuda::parameter>>& of) {
        cuda::demo(of, options, many.devices);
    };
    CHECK_THROWS_WITH_AS(make({many.parameters[0]}), doctest::Contains("expected those of the group's 2"), value_error);
    CHECK_THROWS_WITH_AS(make({many.parameters[0], {many.parameters[1][0]}}),
                         doctest::Contains("1 parameters of device 1, expected 2"), value_error);
    CHECK_THROWS_WITH_AS(make({many.parameters[0], many.parameters[0]}),
                         doctest::Contains("values of 'tensor0' on device 0, expected memory of device 1"),
                         value_error);
    CHECK_THROWS_WITH_AS(cuda::backend(*many.streams.all[1], cuda::matmul_precision::f32),
                         doctest::Contains("a stream of device 1 while device 0 is in use"), value_error);
    auto turned = many.parameters[1];
    turned[0].shape = {64, 256};
    CHECK_THROWS_WITH_AS(make({many.parameters[0], turned}), doctest::Contains("as on the first"), shape_error);
    CHECK_THROWS_WITH_AS(nccl::communicator(std::vector<cuda::stream*>{}), doctest::Contains("no streams"),
                         value_error);
    const test::device_streams again(1);
    CHECK_THROWS_WITH_AS(nccl::communicator(std::vector<cuda::stream*>{many.streams.all[0], again.all[0]}),
                         doctest::Contains("two streams of device 0"), value_error);
}

TEST_CASE("node: a weight that differs on any device is found within 16 rounds for each device") {
    const machine here(4);
    if (too_few_devices(3)) return;
    const std::vector<shape> shapes = {{64, 64}};
    const demo_options options = {.momentum_decay = 0.9F, .k = 1};
    for (std::size_t broken = 0; broken < 3; ++broken) {
        CAPTURE(broken);
        node many(3, options, shapes);
        host_peer host(1, options, nullptr, shapes);
        const std::vector<float> wrong(1, 3.0F);
        cuda::copy_to_device<float>(*many.streams.all[broken], wrong, many.values[broken][0].span().subspan(777, 1));
        int found = 0;
        for (std::uint64_t round = 0; round < 48; ++round) {
            const auto payload = host.begin(1);
            const std::vector<contribution> list = {{.peer = 1, .payload = payload}};
            found += many.optimizer->apply({.round = round, .contributions = list}).disagreeing;
            finish(*host.optimizer, round, list);
        }
        CHECK(found == 1);
    }
}

TEST_CASE("node: a transformer on each device, each with its part of the batch, learns") {
    const machine here(4);
    if (too_few_devices(2)) return;
    const nn::transformer_config config = {.vocab_size = 32,
                                           .hidden_size = 16,
                                           .intermediate_size = 24,
                                           .num_hidden_layers = 1,
                                           .num_attention_heads = 2,
                                           .num_key_value_heads = 1,
                                           .head_dim = 8,
                                           .max_position_embeddings = 16};
    demo_options options = {.learning_rate = 0.02F, .momentum_decay = 0.9F, .k = 12};
    options.chunk = 16;
    const test::device_streams streams(2);
    std::vector<std::unique_ptr<cuda::backend>> backends;
    std::vector<std::unique_ptr<nn::transformer<cuda::backend>>> models;
    std::vector<std::vector<parameter>> parameters;
    for (std::size_t d = 0; d < 2; ++d) {
        const cuda::device_scope on(static_cast<int>(d));
        backends.push_back(std::make_unique<cuda::backend>(*streams.all[d], cuda::matmul_precision::bf16));
        models.push_back(std::make_unique<nn::transformer<cuda::backend>>(*backends[d], config));
        models[d]->initialize(1 + d);  // the first device's count
        parameters.emplace_back(models[d]->parameters().begin(), models[d]->parameters().end());
    }
    nccl::communicator devices(streams.all);
    cuda::demo optimizer(parameters, options, devices);
    random_stream random(8);
    std::vector<std::int32_t> tokens(4 * 16), targets(4 * 16);
    for (std::int32_t& t : tokens) t = static_cast<std::int32_t>(random.below(32));
    for (std::size_t i = 0; i < targets.size(); ++i) targets[i] = tokens[i / 16 * 16 + (i + 1) % 16];
    std::vector<float> losses;
    for (std::uint64_t round = 0; round < 8; ++round) {
        std::array<float, 2> loss{};
        const auto train = [&](std::size_t d) {
            const cuda::device_scope on(static_cast<int>(d));
            models[d]->zero_gradient();
            loss[d] = models[d]->loss_and_gradient(std::span(tokens).subspan(d * 32, 32),
                                                   std::span(targets).subspan(d * 32, 32), 2, 16);
        };
        std::thread second(train, 1);
        train(0);
        second.join();
        losses.push_back((loss[0] + loss[1]) / 2.0F);
        const auto payload = optimizer.begin_step(0);
        const std::vector<contribution> list = {{.peer = 0, .payload = payload}};
        CHECK(finish(optimizer, round, list).own_included);
        CHECK(optimizer.replica_digest(1) == optimizer.replica_digest());
    }
    CHECK(losses.back() < 0.9F * losses.front());
}

#if defined(THINWIRE_CUDA_EMULATE)

namespace {

const std::vector<shape> small = {{32, 32}, {20}};

/// What is wrong with a device, seen at some step of training.
template <class Fail>
void expect_failure(const char* words, std::chrono::milliseconds patience, const Fail& fail) {
    node many(3, {.momentum_decay = 0.9F, .k = 9}, small, nullptr, patience);
    random_stream random(6);
    const auto step = [&](std::uint64_t round) {
        for (std::size_t d = 0; d < 3; ++d) many.upload_gradients(d, normal_numbers(random, small));
        const auto payload = many.optimizer->begin_step(0);
        const std::vector<std::byte> sent(payload.begin(), payload.end());
        finish(*many.optimizer, round, {{.peer = 0, .payload = sent}});
    };
    step(0);
    fail();
    CHECK_THROWS_WITH_AS(step(1), doctest::Contains(words), nccl::collective_error);
    CHECK(nccl::detail::emulated_nccl::get().alive() == 0);
    CHECK_THROWS_WITH_AS(static_cast<void>(many.optimizer->begin_step(0)),
                         doctest::Contains("aborted after an earlier"), nccl::collective_error);
    for (cuda::stream* s : many.streams.all) s->synchronize();  // no stream hangs
}

}  // namespace

TEST_CASE("node: a device that fails ends in an error that names it, and leaves no stream waiting") {
    const machine here(3);
    using namespace std::chrono_literals;
    // gone before the step, seen by NCCL when the group is handed over
    expect_failure("ncclReduce, device 0 of 0, 1, 2: remote process exited", 60s,
                   [] { nccl::detail::failure = {.device = 2, .reported = true}; });
    nccl::detail::failure = {};
    expect_failure("ncclReduce, device 0 of 0, 1, 2: unhandled cuda error (ncclResult_t 1)", 60s,
                   [] { nccl::detail::failure = {.device = 0, .reported = true}; });
    nccl::detail::failure = {};
    // nobody notices
    expect_failure("wait for the devices: not done after 50 ms on devices 0, 1, 2, aborted", 50ms,
                   [] { nccl::detail::failure = {.device = 1, .reported = false}; });
    // there from the start
    nccl::detail::failure = {.device = 1, .reported = false};
    const test::device_streams streams(3);
    CHECK_THROWS_WITH_AS(nccl::communicator(streams.all, 50ms),
                         doctest::Contains("ncclCommInitRankConfig, device 1 of 0, 1, 2: unhandled cuda error"),
                         nccl::collective_error);
    CHECK(nccl::detail::emulated_nccl::get().alive() == 0);
}

TEST_CASE("node: a gradient on the wrong device is found, and no group stays open") {
    const machine here(2);
    const test::device_streams streams(2);
    const auto array = test::on_device(*streams.all[0], std::vector<float>(8, 1.0F), "array");
    nccl::communicator devices(streams.all);
    const cuda::group_array all = {.owner = 0, .bytes = 32, .on_device = {array.data(), array.data()}};
    try {
        devices.average({&all, 1});
        FAIL("nothing was found");
    } catch (const cuda::emulation_error& e) {
        CHECK(e.kind() == cuda::defect::other_device);
    }
    CHECK(nccl::detail::emulated_nccl::get().depth == 0);
    CHECK(nccl::detail::emulated_nccl::get().alive() == 0);
    CHECK_THROWS_AS(devices.broadcast({&all, 1}), nccl::collective_error);
}

TEST_CASE("node: a communicator that cannot be destroyed takes the others with it, each once") {
    const machine here(3);
    const test::device_streams streams(3);
    {
        const nccl::communicator devices(streams.all);
        nccl::detail::failure.undying = 1;
    }  // aborting what is gone would be an error, and end the program here
    CHECK(nccl::detail::emulated_nccl::get().alive() == 0);
}

TEST_CASE("node: a communicator whose streams hang is gone when its patience is") {
    const machine here(2);
    const test::device_streams streams(2);
    std::vector<cuda::device_buffer<float>> arrays;
    cuda::group_array all = {.owner = 0, .bytes = 32, .on_device = {}};
    for (std::size_t d = 0; d < 2; ++d) {
        const cuda::device_scope on(static_cast<int>(d));
        arrays.push_back(test::on_device(*streams.all[d], std::vector<float>(8, 1.0F), "array"));
        all.on_device.push_back(arrays.back().data());
    }
    {
        nccl::communicator devices(streams.all, std::chrono::milliseconds(20));
        nccl::detail::failure = {.device = 1, .reported = false};
        devices.average({&all, 1});
        CHECK_THROWS_AS(streams.all[0]->synchronize(), cuda::emulation_error);  // who waits by himself, waits
        streams.all[0]->drain();                                                // noexcept, and counted
        CHECK(cuda::detail::endless_drains.exchange(0) == 1);
    }
    CHECK(nccl::detail::emulated_nccl::get().alive() == 0);
    streams.all[0]->synchronize();
}

namespace {

/// Two ranks by NCCL's own functions, for what communicator never does.
struct two_ranks {
    machine here{2};
    test::device_streams streams{2};
    std::vector<cuda::device_buffer<float>> arrays;
    std::array<nccl::ncclComm_t, 2> comms{};

    two_ranks() {
        nccl::ncclUniqueId id;
        CHECK(ncclGetUniqueId(&id) == nccl::ncclSuccess);
        nccl::ncclConfig_t config = nccl::NCCL_CONFIG_INITIALIZER;
        config.blocking = 0;
        CHECK(nccl::ncclGroupStart() == nccl::ncclSuccess);
        for (int d = 0; d < 2; ++d) {
            const cuda::device_scope on(d);
            arrays.push_back(test::on_device(*streams.all[static_cast<std::size_t>(d)],
                                             std::vector<float>{1.0F + static_cast<float>(d), 5.0F, 9.0F}, "array"));
            CHECK(nccl::ncclCommInitRankConfig(&comms[static_cast<std::size_t>(d)], 2, id, d, &config) ==
                  nccl::ncclInProgress);
        }
        CHECK(nccl::ncclGroupEnd() == nccl::ncclInProgress);
    }
    void settle() {
        for (nccl::ncclComm_t comm : comms)
            for (int n = 0; n < 2; ++n) CHECK(state(comm) == (n == 0 ? nccl::ncclInProgress : nccl::ncclSuccess));
    }
    static nccl::ncclResult_t state(nccl::ncclComm_t comm) {
        nccl::ncclResult_t out{};
        CHECK(ncclCommGetAsyncError(comm, &out) == nccl::ncclSuccess);
        return out;
    }
    [[nodiscard]] nccl::ncclResult_t reduce(std::size_t d, std::size_t count = 3, int root = 0) {
        return ncclReduce(arrays[d].data(), arrays[d].data(), count, nccl::ncclFloat32, nccl::ncclAvg, root, comms[d],
                          streams.all[d]);
    }
};
template <class Body>
void expect_defect(cuda::defect kind, const Body& body) {
    two_ranks ranks;
    ranks.settle();
    try {
        CHECK(nccl::ncclGroupStart() == nccl::ncclSuccess);
        body(ranks);
        static_cast<void>(nccl::ncclGroupEnd());
        for (nccl::ncclComm_t comm : ranks.comms)
            for (int n = 0; n < 2; ++n) static_cast<void>(two_ranks::state(comm));
        for (cuda::stream* s : ranks.streams.all) s->synchronize();
        FAIL("nothing was found");
    } catch (const cuda::emulation_error& e) {
        INFO(std::string(e.what()));
        CHECK(e.kind() == kind);
    }
    while (nccl::detail::emulated_nccl::get().depth > 0) static_cast<void>(nccl::ncclGroupEnd());
}

}  // namespace

TEST_CASE("emulated NCCL: a mean that comes when the stream does, in a group that is asked for") {
    two_ranks ranks;
    CHECK(ranks.reduce(0) == nccl::ncclInvalidArgument);  // not ready
    ranks.settle();
    CHECK(nccl::ncclGroupStart() == nccl::ncclSuccess);
    for (std::size_t d = 0; d < 2; ++d) CHECK(ranks.reduce(d) == nccl::ncclSuccess);
    CHECK(nccl::ncclGroupEnd() == nccl::ncclInProgress);
    CHECK(test::on_host(*ranks.streams.all[0], ranks.arrays[0].span())[0] == 1.0F);  // not given to the stream yet
    ranks.settle();
    CHECK(test::on_host(*ranks.streams.all[0], ranks.arrays[0].span()) == std::vector<float>{1.5F, 5.0F, 9.0F});
    CHECK(test::on_host(*ranks.streams.all[1], ranks.arrays[1].span()) == std::vector<float>{2.0F, 5.0F, 9.0F});
    CHECK(nccl::ncclGroupEnd() == nccl::ncclInvalidUsage);
    CHECK(nccl::ncclGroupStart() == nccl::ncclSuccess);
    CHECK(ranks.reduce(0, 3, 2) == nccl::ncclInvalidArgument);
    CHECK(nccl::ncclGroupEnd() == nccl::ncclInvalidArgument);
    for (nccl::ncclComm_t comm : ranks.comms) CHECK(nccl::ncclCommAbort(comm) == nccl::ncclSuccess);
}

TEST_CASE("emulated NCCL: what is undefined, or would wait for ever, is found") {
    using cuda::defect;
    expect_defect(defect::hang, [](two_ranks& r) { static_cast<void>(r.reduce(0)); });  // the other does not call
    expect_defect(defect::hang, [](two_ranks& r) {
        static_cast<void>(r.reduce(0));
        static_cast<void>(r.reduce(1, 2));
    });
    expect_defect(defect::hang, [](two_ranks& r) {
        static_cast<void>(r.reduce(0));
        static_cast<void>(r.reduce(1, 3, 1));
    });
    expect_defect(defect::hang, [](two_ranks& r) {
        static_cast<void>(nccl::ncclGroupEnd());
        static_cast<void>(r.reduce(0));
    });
    expect_defect(defect::out_of_bounds, [](two_ranks& r) { static_cast<void>(r.reduce(0, 4)); });
    expect_defect(defect::other_device, [](two_ranks& r) {
        static_cast<void>(ncclReduce(r.arrays[1].data(), r.arrays[1].data(), 3, nccl::ncclFloat32, nccl::ncclAvg, 0,
                                     r.comms[0], r.streams.all[0]));
    });
    expect_defect(defect::other_device, [](two_ranks& r) {
        static_cast<void>(ncclReduce(r.arrays[0].data(), r.arrays[0].data(), 3, nccl::ncclFloat32, nccl::ncclAvg, 0,
                                     r.comms[0], r.streams.all[1]));
    });
    expect_defect(defect::arguments, [](two_ranks& r) {
        static_cast<void>(ncclReduce(r.arrays[0].data(), r.arrays[0].data() + 1, 2, nccl::ncclFloat32, nccl::ncclAvg, 0,
                                     r.comms[0], r.streams.all[0]));
    });
    expect_defect(defect::freed, [](two_ranks& r) {
        static_cast<void>(r.reduce(0));
        static_cast<void>(r.reduce(1));
        r.arrays[1] = {};
    });
    expect_defect(defect::uninitialised, [](two_ranks& r) {
        r.arrays[0] = cuda::device_buffer<float>(3, "nothing");
        static_cast<void>(r.reduce(0));
        static_cast<void>(r.reduce(1));
    });
    expect_defect(defect::freed, [](two_ranks& r) {
        CHECK(nccl::ncclCommAbort(r.comms[0]) == nccl::ncclSuccess);
        static_cast<void>(r.reduce(0));
    });
}

TEST_CASE("emulator: memory, streams and events of one device are refused on another") {
    const machine here(2);
    CHECK_THROWS_AS(cuda::device_scope(2), cuda::emulation_error);
    const test::device_streams streams(2);
    const auto kind_of = [](const auto& body) {
        try {
            body();
        } catch (const cuda::emulation_error& e) {
            return e.kind();
        }
        return cuda::defect::race;
    };
    const auto array = test::on_device(*streams.all[0], std::vector<float>(8, 1.0F), "array");
    const auto fill = [&](cuda::stream& on) {
        cuda::launch(on, cuda::detail::fill_kernel<float>{array.span(), 2.0F}, 1, 0);
        on.synchronize();
    };
    fill(*streams.all[0]);
    CHECK(kind_of([&] { fill(*streams.all[1]); }) == cuda::defect::other_device);  // the wrong device is in use
    {
        const cuda::device_scope second(1);
        CHECK(kind_of([&] { fill(*streams.all[1]); }) == cuda::defect::other_device);  // it has not this array
        cuda::event e;
        CHECK(kind_of([&] { e.record(*streams.all[0]); }) == cuda::defect::other_device);
        CHECK(kind_of([&] {
                  std::vector<float> to(8);
                  cuda::copy_to_host<float>(*streams.all[1], array.span(), std::span(to));
                  streams.all[1]->synchronize();
              }) == cuda::defect::other_device);
    }
    fill(*streams.all[0]);
}
#endif
