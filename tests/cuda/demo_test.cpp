#include <thinwire/comm/loopback.hpp>
#include <thinwire/optim/demo.hpp>
#include <thinwire/optim/muon.hpp>

#include "peer.hpp"
#include <doctest/doctest.h>
#include <support/optim_peer.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

using namespace thinwire;
using test::device_peer;
using test::finish;
#if defined(THINWIRE_CUDA_EMULATE)
using test::ordered;
#endif
using host_peer = test::peer<demo, demo_options>;

namespace {

/// The same gradients for both.
void give(device_peer& device, host_peer& host, const std::vector<std::vector<float>>& gradients) {
    for (std::size_t i = 0; i < gradients.size(); ++i) {
        device.host_gradients[i] = gradients[i];
        std::ranges::copy(gradients[i], host.gradients[i].begin());
    }
    device.upload_gradients();
}
/// Small integers: sums of them, and of their halves, are exact in any order.
std::vector<std::vector<float>> integers(random_stream& random, const std::vector<shape>& shapes, std::uint64_t range) {
    std::vector<std::vector<float>> out;
    for (const shape& s : shapes) {
        out.emplace_back();
        for (std::size_t i = 0; i < s.count(); ++i)
            out.back().push_back(static_cast<float>(random.below(2 * range + 1)) - static_cast<float>(range));
    }
    return out;
}

/// A device peer and a host peer train together; a host that sends nothing watches. All three stay equal.
void train_together(const demo_options& options, const std::vector<shape>& shapes, int rounds) {
    device_peer device(0, options, nullptr, shapes);
    host_peer host(1, options, nullptr, shapes), watcher(2, options, nullptr, shapes);
    const digest start = host.optimizer->replica_digest();
    REQUIRE(device.optimizer->replica_digest() == start);
    REQUIRE(device.optimizer->layout().fingerprint == host.optimizer->layout().fingerprint);
    device.optimizer->set_tokens(5);
    host.optimizer->set_tokens(3000);
    for (int r = 0; r < rounds; ++r) {
        const auto round = static_cast<std::uint64_t>(r);
        device.optimizer->set_k(r == 1 ? 1 + options.k / 3 : options.k);
        host.optimizer->set_k(r == 0 ? 1 + options.k / 2 : options.k);
        const auto a = device.begin(0), b = host.begin(1);
        const std::vector<contribution> list = {{.peer = 0, .payload = a}, {.peer = 1, .payload = b}};
        const step_report of_device = finish(*device.optimizer, round, list),
                          of_host = finish(*host.optimizer, round, list);
        const step_report of_watcher = watcher.optimizer->apply({.round = round, .contributions = list});
        CHECK(of_watcher.contributors == 2);
        for (const step_report& report : {of_device, of_host}) {
            CHECK(report.contributors == 2);
            CHECK(report.agreeing == 2);
            CHECK(report.tokens == 3005);
            CHECK(report.own_included);
            CHECK(report.learning_rate == options.learning_rate);
        }
        CHECK(of_device.bytes_sent == a.size());
        CHECK(of_device.bytes_received == b.size());
        const digest now = host.optimizer->replica_digest();
        CHECK(now != start);
        CHECK(watcher.optimizer->replica_digest() == now);
        CHECK(device.optimizer->replica_digest() == now);
    }
}

}  // namespace

TEST_CASE("cuda::demo: every basis, value code and rule: a device and a host hold the same bits in one run") {
    const std::vector<shape> shapes = {{24, 40}, {30}, {2, 16, 8}, {2, 19, 21}};  // the last in regions
    const std::vector<basis> bases = {basis::dct(), basis::hadamard(), basis::random_orthogonal(7),
                                      basis::random_orthogonal(7, true), basis::identity()};
    const std::vector<update_rule_ptr> rules = {std::make_shared<const signum>(), std::make_shared<const sgd>()};
    for (const update_rule_ptr& rule : rules)
        for (const basis& transform : bases)
            for (const value_code values :
                 {value_code::f32, value_code::sign, value_code::bf16, value_code::q4, value_code::q2}) {
                CAPTURE(rule->name());
                CAPTURE(to_string(transform.kind()));
                CAPTURE(to_string(values));
                demo_options options = {.momentum_decay = 0.9F, .alpha = 0.5F, .k = 6, .chunk = 16, .values = values};
                options.gradient = gradient_scale::none;
                options.error_feedback = transform.kind() != basis_kind::dct;
                options.basis = transform;
                options.rule = rule;
                options.weight_decay = 0.1F;
                train_together(options, shapes, 2);
            }
}

TEST_CASE("cuda::demo: chunks of every size, in shared memory and beyond it, all coefficients, groups of parameters") {
    demo_options options = {.learning_rate = 0.01F, .momentum_decay = 0.9F, .k = 32};
    options.weight_decay = 0.1F;
    train_together(options, {{64, 128}, {29, 64}, {42, 60}, {130}, {1, 64}, {64, 1}, {}}, 2);
    train_together(options, {{67, 130}, {131}, {2, 67, 65}}, 2);
    options.chunk = 128;  // 128 x 128 does not fit
    train_together(options, {{128, 128}, {256, 100}, {13}}, 2);
    train_together(options, {{128, 64}, {125, 127}}, 1);  // no row of the second begins at a multiple of 16 bytes
    options.chunk = 256;
    options.k = 3;
    train_together(options, {{16, 256}, {256, 16}, {256}}, 2);  // these do
    options.chunk = 8;
    options.k = 64;
    train_together(options, {{16, 24}, {9}, {7, 7}}, 3);
    options.k = 5;
    options.groups = {{.prefix = "tensor1",
                       .learning_rate = 0.25F,
                       .weight_decay = 0.5F,
                       .k = 2,
                       .rule = std::make_shared<const sgd>()}};
    train_together(options, {{16, 24}, {40, 8}, {9}}, 2);
}

TEST_CASE("cuda::demo: contributions that weigh their tokens, in shared memory and beyond it") {
    for (const update_rule_ptr& rule :
         {update_rule_ptr(std::make_shared<const signum>()), update_rule_ptr(std::make_shared<const sgd>())}) {
        demo_options options = {.momentum_decay = 0.9F, .k = 40, .rule = rule, .weights = mean_weights::tokens};
        train_together(options, {{64, 64}, {29, 64}, {130}}, 2);
        options.k = 4096;
        train_together(options, {{24, 40}, {30}}, 1);
        options.chunk = 128;
        options.k = 32;
        train_together(options, {{128, 128}, {13}}, 1);
    }
}

TEST_CASE("cuda::demo: where arithmetic is exact the payload has the host's bytes: ties, zeros, losses and returns") {
    const std::vector<shape> shapes = {{64, 64}, {16, 64}, {16, 4}, {64}, {65, 65}};  // Hadamard of entries 2^-n
    for (const basis& transform : {basis::identity(), basis::hadamard()})
        for (const value_code values : {value_code::f32, value_code::sign, value_code::bf16, value_code::q4})
            for (const int k : {1, 7, 32, 4096}) {
                CAPTURE(to_string(transform.kind()));
                CAPTURE(to_string(values));
                CAPTURE(k);
                demo_options options = {.momentum_decay = 0.5F, .k = k, .values = values};
                options.gradient = gradient_scale::none;
                options.basis = transform;
                options.error_feedback = transform.kind() == basis_kind::identity && values == value_code::q4;
                device_peer device(0, options, nullptr, shapes);
                host_peer host(0, options, nullptr, shapes);
                random_stream random(11);
                for (std::uint64_t round = 0; round < 3; ++round) {
                    auto gradients = integers(random, shapes, round == 1 ? 3 : 1);
                    if (round == 0) std::ranges::fill(gradients[2], 0.0F);
                    give(device, host, gradients);
                    const auto of_host = host.optimizer->begin_step(0);
                    const auto of_device = device.optimizer->begin_step(0);
                    REQUIRE(of_device.size() == of_host.size());
                    CHECK(std::memcmp(of_device.data(), of_host.data(), of_host.size()) == 0);
                    const std::vector<std::byte> sent(of_host.begin(), of_host.end());
                    std::vector<contribution> list;
                    if (round != 1) list.push_back({.peer = 0, .payload = sent});  // round 1 loses it
                    const step_report a = finish(*device.optimizer, round, list);
                    const step_report b = finish(*host.optimizer, round, list);
                    CHECK(a.own_included == (round != 1));
                    CHECK(a.gradient_norm == b.gradient_norm);
                    CHECK(device.optimizer->replica_digest() == host.optimizer->replica_digest());
                }
                for (std::size_t i = 0; i < shapes.size(); ++i) {
                    const auto expected = host.optimizer->momentum(i);
                    const std::vector<float> found = test::on_host(device.stream, device.optimizer->momentum(i));
                    CHECK(std::ranges::equal(found, expected));
                }
            }
}

TEST_CASE("cuda::demo: with a DCT what is sent is the host's but for rounding, and momenta stay together") {
    const std::vector<shape> shapes = {{64, 64}, {29, 64}, {130}};
    demo_options options = {.momentum_decay = 0.9F, .alpha = 0.7F, .k = 16};
    options.gradient = gradient_scale::complement;
    options.clip_norm = 20.0F;
    device_peer device(0, options, nullptr, shapes);
    host_peer host(0, options, nullptr, shapes);
    const auto read = [&](std::span<const std::byte> payload, std::uint64_t round) {
        sparse_content content;
        REQUIRE(payload_decoder(host.optimizer->layout()).decode(payload, {.round = round, .peer = 0}, content));
        return content;
    };
    for (std::uint64_t round = 0; round < 4; ++round) {
        const auto from_device = device.begin(0), from_host = host.begin(0);
        const sparse_content a = read(from_device, round), b = read(from_host, round);
        CHECK(a.counts == b.counts);
        CHECK(a.positions == b.positions);  // no two magnitudes of these gradients are within rounding of each other
        for (std::size_t i = 0; i < a.values.size(); ++i) CHECK(std::abs(a.values[i] - b.values[i]) < 1e-6F);
        const bool lost = round == 2;
        const step_report of_device =
            finish(*device.optimizer, round,
                   lost ? std::vector<contribution>{} : std::vector<contribution>{{.peer = 0, .payload = from_device}});
        const step_report of_host =
            finish(*host.optimizer, round,
                   lost ? std::vector<contribution>{} : std::vector<contribution>{{.peer = 0, .payload = from_host}});
        CHECK(of_device.gradient_norm == doctest::Approx(of_host.gradient_norm).epsilon(1e-5));
        CHECK(of_device.own_included == !lost);
        for (std::size_t i = 0; i < shapes.size(); ++i) {
            const auto expected = host.optimizer->momentum(i);
            const std::vector<float> found = test::on_host(device.stream, device.optimizer->momentum(i));
            float worst = 0.0F, largest = 0.0F;
            for (std::size_t e = 0; e < found.size(); ++e) {
                worst = std::max(worst, std::abs(found[e] - expected[e]));
                largest = std::max(largest, std::abs(expected[e]));
            }
            CHECK(largest > 0.01F);
            CHECK(worst < 1e-7F);
        }
    }
}

TEST_CASE("cuda::demo: a thread pool, a sink and the order of threads and blocks change no byte") {
    const std::vector<shape> shapes = {{64, 128}, {31, 12}, {130}};
    const demo_options options = {.momentum_decay = 0.9F, .k = 12, .values = value_code::q4};
    std::vector<std::byte> first;
    thread_pool pool(3);
    const auto run = [&](thread_pool* threads) {
        device_peer peer(4, options, threads, shapes);
        peer.new_gradients();
        std::vector<std::byte> parts;
        const auto payload = peer.optimizer->begin_step(
            4, [&](std::span<const std::byte> part) { parts.insert(parts.end(), part.begin(), part.end()); });
        CHECK(std::ranges::equal(parts, payload));
        if (first.empty()) first = parts;
        CHECK(parts == first);
        const std::vector<contribution> list = {{.peer = 4, .payload = parts}};
        CHECK(finish(*peer.optimizer, 0, list).own_included);
        CHECK(peer.begin(4).size() > 100);
    };
    run(nullptr);
    run(&pool);
#if defined(THINWIRE_CUDA_EMULATE)
    for (const cuda::thread_order order : {cuda::thread_order::falling, cuda::thread_order::shuffled}) {
        const ordered as(order);
        run(nullptr);
    }
#endif
}

#if defined(THINWIRE_CUDA_EMULATE)
TEST_CASE("cuda::demo: the next digest waits for the last update alone, not for what was given to the stream since") {
    const std::vector<shape> shapes = {{64, 128}, {130}};
    const demo_options options = {.momentum_decay = 0.9F, .k = 12};
    device_peer device(0, options, nullptr, shapes);
    host_peer host(0, options, nullptr, shapes);
    for (std::uint64_t round = 0; round < 3; ++round) {
        const auto payload = device.begin(0);
        static_cast<void>(host.begin(0));
        const std::vector<contribution> list = {{.peer = 0, .payload = payload}};
        CHECK(finish(*device.optimizer, round, list).agreeing == 1);
        CHECK(finish(*host.optimizer, round, list).agreeing == 1);
        bool backward_ran = false;
        device.stream.give([&] { backward_ran = true; });
        const std::uint64_t given = device.stream.given();
        device.optimizer->digest_ahead();
        CHECK_FALSE(backward_ran);
        CHECK(device.stream.given() == given);
        device.stream.synchronize();
    }
    // What is brought for a round that set_round() leaves is brought anew, from the weights as they are then.
    std::vector<float> weights(64 * 128, 0.25F);
    cuda::copy_to_device<float>(device.stream, weights, device.values[0].span());
    std::ranges::copy(weights, host.values[0].begin());
    for (const std::uint64_t round : {3U, 20U}) {
        device.optimizer->set_round(round);
        host.optimizer->set_round(round);
        const auto payload = host.begin(0);
        const std::vector<contribution> list = {{.peer = 0, .payload = payload}};
        CHECK(device.optimizer->apply({.round = round, .contributions = list}).agreeing == 1);
        CHECK(finish(*host.optimizer, round, list).agreeing == 1);
    }
}

TEST_CASE("cuda::demo: the transform of a chunk leaves no bank of shared memory waiting for another") {
    demo_options options = {.k = 8};
    device_peer peer(0, options, nullptr, {{64, 64}});
    cuda::detail::bank_meter meter;
    cuda::detail::banks = &meter;
    static_cast<void>(peer.begin(0));
    cuda::detail::banks = nullptr;
    const auto found = meter.from("chunk_transform.cuh");
    CAPTURE(found.accesses);
    CAPTURE(found.wavefronts);
    CHECK(found.accesses > 1000);
    CHECK(found.wavefronts <= 2 * found.accesses);  // two rows are read at once where the basis mirrors
}
#endif

TEST_CASE("cuda::demo: many senders, repeated, foreign and damaged payloads: report and bits as on the host") {
    const std::vector<shape> shapes = {{32, 32}, {20}};
    demo_options options = {.momentum_decay = 0.9F, .k = 9};
    SUBCASE("all count alike") {}
    SUBCASE("by their tokens") {
        options.weights = mean_weights::tokens;
    }
    SUBCASE("clipped") {
        options.contribution_clip = 2.0F;
    }
    SUBCASE("by their tokens, clipped") {
        options.weights = mean_weights::tokens;
        options.contribution_clip = 1.0F;
        options.rule = std::make_shared<const sgd>();
    }
    device_peer device(0, options, nullptr, shapes);
    host_peer host(1, options, nullptr, shapes);
    std::vector<std::vector<std::byte>> payloads;
    std::vector<contribution> list;
    for (peer_id peer = 10; peer < 43; ++peer) {
        host_peer sender(peer, options, nullptr, shapes);
        sender.optimizer->set_tokens(static_cast<std::uint32_t>(peer == 14 ? most_tokens : peer * 300));
        sender.new_gradients();
        for (auto& g : sender.gradients)
            for (float& value : g) value *= peer == 20 ? 1000.0F : peer == 30 ? 0x1p50F : 1.0F;
        const auto payload = sender.optimizer->begin_step(peer);
        payloads.emplace_back(payload.begin(), payload.end());
    }
    payloads[3][200] ^= std::byte{1};
    payloads[5].resize(90);
    for (peer_id peer = 10; peer < 43; ++peer) list.push_back({.peer = peer, .payload = payloads[peer - 10]});
    list.push_back({.peer = 12, .payload = payloads[2]});  // the same once more
    list.push_back({.peer = 77, .payload = payloads[4]});  // under another name
    const commit c = {.round = 0, .contributions = list};
    const step_report a = device.optimizer->apply(c), b = host.optimizer->apply(c);
    CHECK(a.contributors == 31);
    CHECK(a.rejected == 4);
    CHECK(a.contributors == b.contributors);
    CHECK(a.tokens == b.tokens);
    CHECK(a.rejected == b.rejected);
    CHECK(a.agreeing == b.agreeing);
    CHECK(a.bytes_received == b.bytes_received);
    CHECK(device.optimizer->replica_digest() == host.optimizer->replica_digest());
    device.optimizer->apply({.round = 1, .contributions = {}});  // nobody: nothing moves
    CHECK(device.optimizer->replica_digest() == host.optimizer->replica_digest());
    CHECK(device.optimizer->round() == 2);
    CHECK_THROWS_AS(device.optimizer->apply(c), value_error);
    CHECK_THROWS_AS(device.optimizer->end_step({}), value_error);
}

TEST_CASE("cuda::demo: numbers at the ends of float32 move weights as on the host") {
    const std::vector<shape> shapes = {{16, 16}, {24}};
    for (const update_rule_ptr& rule :
         {update_rule_ptr(std::make_shared<const signum>()), update_rule_ptr(std::make_shared<const sgd>())})
        for (const float scale : {2e-38F, 1e-30F, 1.0F, 1e13F}) {
            demo_options options = {.momentum_decay = 0.5F, .k = 40, .rule = rule};
            options.gradient = gradient_scale::none;
            options.weight_decay = scale < 1e-31F ? 0.0F : 0.01F;
            options.learning_rate = scale < 1e-31F ? 1.0F : 1e-3F;  // moves as small as the smallest weights
            device_peer device(0, options, nullptr, shapes);
            host_peer host(0, options, nullptr, shapes);
            std::vector<float> odd;
            for (const std::uint32_t bits : {0x00000001U, 0x80000001U, 0x007fffffU, 0x00800000U, 0x80800000U,
                                             0x00800001U, 0x80000000U, 0x7e800000U})
                odd.push_back(std::bit_cast<float>(bits));
            for (std::size_t i = 0; i < odd.size(); ++i) host.values[0][i * 7] = odd[i];
            cuda::copy_to_device<float>(device.stream, host.values[0], device.values[0].span());
            random_stream random(3);
            auto gradients = integers(random, shapes, scale < 1e-31F ? 2 : 1000);
            for (auto& g : gradients)
                for (float& value : g) value *= random.below(4) == 0 ? scale * 1e-12F : scale;
            give(device, host, gradients);
            const auto from_host = host.optimizer->begin_step(0);
            const std::vector<std::byte> payload(from_host.begin(), from_host.end());
            host_peer tiny(1, options, nullptr, shapes);
            for (auto& g : tiny.gradients) std::ranges::fill(g, scale);
            const auto other = tiny.optimizer->begin_step(1);
            const std::vector<contribution> list = {{.peer = 0, .payload = payload}, {.peer = 1, .payload = other}};
            CHECK(device.optimizer->apply({.round = 0, .contributions = list}).contributors == 2);
            CHECK(finish(*host.optimizer, 0, list).contributors == 2);
            CHECK(device.optimizer->replica_digest() == host.optimizer->replica_digest());
        }
}

TEST_CASE("cuda::demo: a gradient that is not finite, or absurd, is refused and changes nothing") {
    const std::vector<shape> shapes = {{64, 64}, {40}};
    const demo_options options = {.momentum_decay = 0.9F, .k = 4};
    device_peer device(0, options, nullptr, shapes);
    host_peer twin(0, options, nullptr, shapes);
    for (std::uint64_t round = 0; round < 2; ++round) {
        const auto payload = device.begin(0);
        finish(*device.optimizer, round, {{.peer = 0, .payload = payload}});
    }
    const std::vector<std::byte> before = device.optimizer->save_private();
    device.new_gradients();
    const std::vector<std::vector<float>> good = device.host_gradients;
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
        device.host_gradients[1][17] = device.host_gradients[1][30] = bad;
        device.upload_gradients();
        CHECK_THROWS_WITH_AS(static_cast<void>(device.optimizer->begin_step(0)),
                             doctest::Contains("gradient of 'tensor1': element 17 is "), value_error);
    }
    device.host_gradients[1][17] = device.host_gradients[1][30] = 3e38F;
    device.upload_gradients();
    CHECK_THROWS_WITH_AS(static_cast<void>(device.optimizer->begin_step(0)), doctest::Contains("expected below 2^60"),
                         value_error);
    CHECK(device.optimizer->in_flight().empty());
    CHECK(device.optimizer->save_private() == before);
    device.host_gradients = good;
    device.upload_gradients();
    CHECK(device.optimizer->begin_step(0).size() > 100);
    CHECK_THROWS_WITH_AS(static_cast<void>(device.optimizer->begin_step(0)), doctest::Contains("still in flight"),
                         value_error);
}

TEST_CASE("cuda::demo: private state goes from device to host and back, bit for bit") {
    const std::vector<shape> shapes = {{64, 64}, {40}, {67, 65}};
    demo_options options = {.momentum_decay = 0.5F, .k = 4, .values = value_code::sign};
    options.gradient = gradient_scale::none;
    options.basis = basis::identity();  // exact: both go on alike
    device_peer device(0, options, nullptr, shapes);
    host_peer host(0, options, nullptr, shapes);
    const auto lost = device.begin(0);
    finish(*device.optimizer, 0, {});
    const auto sent = device.begin(0);
    REQUIRE(host.optimizer->restore_private(device.optimizer->save_private()));
    host.optimizer->set_round(1);
    CHECK(std::ranges::equal(host.optimizer->in_flight(), sent));
    CHECK(host.optimizer->save_private() == device.optimizer->save_private());
    device_peer returned(0, options, nullptr, shapes);
    REQUIRE(returned.optimizer->restore_private(host.optimizer->save_private()));
    returned.optimizer->set_round(1);
    CHECK(std::ranges::equal(returned.optimizer->in_flight(), sent));
    for (auto* peer : {&device, &returned})
        CHECK(finish(*peer->optimizer, 1, {{.peer = 0, .payload = sent}}).own_included);
    CHECK(finish(*host.optimizer, 1, {{.peer = 0, .payload = sent}}).own_included);
    give(device, host, integers(device.random, shapes, 4));
    give(returned, host, device.host_gradients);
    const auto expected = host.optimizer->begin_step(0);
    CHECK(std::ranges::equal(device.optimizer->begin_step(0), expected));
    CHECK(std::ranges::equal(returned.optimizer->begin_step(0), expected));

    std::vector<std::byte> damaged = device.optimizer->save_private();
    const std::vector<std::byte> good = damaged;
    damaged[100] ^= std::byte{1};
    CHECK_FALSE(device.optimizer->restore_private(damaged));
    CHECK(device.optimizer->save_private() == good);
    CHECK(device.optimizer->restore_replica({}));
    CHECK_FALSE(device.optimizer->restore_replica(good));
}

TEST_CASE("cuda::demo: gradients in two buffers in turn, other learning rates, a transport") {
    const std::vector<shape> shapes = {{17, 17}};  // four regions
    const demo_options options = {.momentum_decay = 0.9F, .k = 4, .chunk = 16};
    device_peer device(0, options, nullptr, shapes);
    loopback_group group(1);
    CHECK(device.optimizer->step(group[0]).own_included);
    const std::vector<float> second(17 * 17, 1.0F);
    const auto buffer = test::on_device(device.stream, second, "second");
    device.optimizer->set_gradient(0, buffer.span());
    device.optimizer->set_learning_rate(0.5F);
    const std::vector<float> before = device.weights(0);
    CHECK(device.optimizer->step(group[0]).learning_rate == 0.5F);
    const std::vector<float> after = device.weights(0);
    for (std::size_t i = 0; i < after.size(); ++i) CHECK(after[i] == before[i] - 0.5F);  // only frequency 0 is there
    CHECK_THROWS_AS(device.optimizer->set_gradient(1, buffer.span()), value_error);
    CHECK_THROWS_AS(device.optimizer->set_gradient(0, buffer.span().subspan(0, 288)), shape_error);
    CHECK_THROWS_AS(device.optimizer->set_learning_rate(-1.0F), value_error);
}

TEST_CASE("cuda::demo: what has no kernel is refused") {
    demo_options options;
    options.rule = std::make_shared<const muon>();
    CHECK_THROWS_WITH_AS(device_peer(0, options, nullptr, {{64, 64}}), doctest::Contains("expected signum or sgd"),
                         value_error);
    cuda::stream s;
    const auto values = test::on_device(s, std::vector<float>(7));
    const std::vector<cuda::parameter> wrong = {
        {.name = "w", .shape = {8}, .values = values.span(), .gradient = values.span()}};
    CHECK_THROWS_AS(cuda::demo(wrong, {}, s), shape_error);
}

TEST_CASE("cuda::demo: memory that is not the device's is refused with the tensor's name") {
    cuda::stream s;
    const auto good = test::on_device(s, std::vector<float>(8));
    std::vector<float> host(8);
    const auto make = [&](float* values, float* gradient) {
        const std::vector<parameter> of = {
            {.name = "embedding", .shape = {8}, .values = {values, 8}, .gradient = {gradient, 8}}};
        cuda::demo(of, {}, s);
    };
    CHECK_NOTHROW(make(good.data(), good.data()));
    CHECK_THROWS_WITH_AS(make(host.data(), good.data()),
                         doctest::Contains("values of 'embedding' not in a device's memory"), value_error);
    CHECK_THROWS_WITH_AS(make(good.data(), host.data()),
                         doctest::Contains("gradient of 'embedding' not in a device's memory"), value_error);
}
