#include <thinwire/comm/loopback.hpp>
#include <thinwire/optim/demo_shards.hpp>
#include <thinwire/optim/muon.hpp>

#include "support/optimizer_peer.hpp"
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <limits>
#include <memory>
#include <string>
#include <vector>

using namespace thinwire;

namespace {

// Sides without a divisor near 16 among them: matrices with a strip below, beside, both, in a batch, and a vector.
const std::vector<shape> shapes = {{64, 48}, {130},    {61, 53}, {3, 14, 40}, {1},
                                   {67, 2},  {26, 30}, {131},    {5, 19, 23}, {34, 48}};

std::vector<std::byte> copy(std::span<const std::byte> bytes) {
    return {bytes.begin(), bytes.end()};
}

/// A peer in shards beside one that is whole; two more send too, and every third round the first sends in vain.
void compare(const demo_options& options, std::size_t count, thread_pool* pool) {
    optimizer_peer<demo> whole(shapes, options, nullptr, 1), other(shapes, options, nullptr, 2),
        more(shapes, options, nullptr, 3), memory(shapes, options, nullptr, 1);
    sharded_demo sharded(memory.parameters, options, count, pool);
    for (std::uint64_t round = 0; round < 6; ++round) {
        whole.new_gradients();
        other.new_gradients();
        whole.optimizer->set_tokens(static_cast<std::uint32_t>(100 * round));
        sharded.set_tokens(static_cast<std::uint32_t>(100 * round));
        const int k = round % 2 == 0 ? options.k : 1 + options.k / 2;
        whole.optimizer->set_k(k);
        sharded.set_k(k);
        other.optimizer->set_tokens(77);
        if (options.contribution_clip > 0.0F)
            for (auto& gradient : other.gradients)
                for (float& value : gradient) value *= 50.0F;
        more.new_gradients();
        memory.gradients_from(whole);
        const auto expected = copy(whole.optimizer->begin_step(1));
        const auto found = copy(sharded.begin_step(1));
        REQUIRE(found == expected);
        const auto second = copy(other.optimizer->begin_step(2));
        const auto third = copy(more.optimizer->begin_step(5));
        const std::vector<std::byte> noise(200, std::byte{7});
        std::array<contribution, 5> list = {{{.peer = 2, .payload = second},
                                             {.peer = 3, .payload = noise},
                                             {.peer = 1, .payload = expected},
                                             {.peer = 2, .payload = second},
                                             {.peer = 5, .payload = third}}};
        if (round % 3 == 2) list[2] = {.peer = 4, .payload = expected};
        const commit agreed = {.round = round, .contributions = list};
        const step_report a = whole.optimizer->end_step({&agreed, 1});
        const step_report b = sharded.end_step({&agreed, 1});
        other.optimizer->end_step({&agreed, 1});
        more.optimizer->end_step({&agreed, 1});
        CHECK(a.contributors == (round % 3 == 2 ? 2 : 3));
        CHECK(a.tokens == (round % 3 == 2 ? 77 : 77 + 100 * round));
        CHECK(b.tokens == a.tokens);
        CHECK(b.contributors == a.contributors);
        CHECK(b.rejected == a.rejected);
        CHECK(b.rejection == a.rejection);
        CHECK(b.own_included == a.own_included);
        CHECK(b.agreeing == a.agreeing);
        CHECK(b.disagreeing == a.disagreeing);
        CHECK(b.bytes_sent == a.bytes_sent);
        CHECK(b.bytes_received == a.bytes_received);
        CHECK(b.gradient_norm == a.gradient_norm);
        CHECK(b.learning_rate == a.learning_rate);
        REQUIRE(memory.values == whole.values);
        CHECK(sharded.round() == round + 1);
        REQUIRE(sharded.save_private() == whole.optimizer->save_private());
        CHECK(sharded.replica_digest() == whole.optimizer->replica_digest());
    }
}

}  // namespace

TEST_CASE("shards send and apply what one demo does: every value code") {
    thread_pool three(3);
    for (const value_code values :
         {value_code::f32, value_code::sign, value_code::bf16, value_code::q4, value_code::q2})
        for (const std::size_t count : {1U, 2U, 3U, 8U}) {
            CAPTURE(to_string(values));
            CAPTURE(count);
            compare({.alpha = 0.5F, .k = 6, .chunk = 16, .values = values, .weight_decay = 0.1F, .clip_norm = 0.5F},
                    count, count % 2 == 0 ? nullptr : &three);
        }
}

TEST_CASE("shards send and apply what one demo does: rules, bases, groups, weights") {
    const std::vector<demo_options> all = {
        {.k = 6, .chunk = 16, .values = value_code::q4, .error_feedback = true, .basis = basis::hadamard()},
        {.k = 6, .chunk = 12, .basis = basis::random_orthogonal(7, true), .rule = std::make_shared<const sgd>()},
        {.k = 6, .chunk = 16, .values = value_code::sign, .rule = std::make_shared<const muon>()},
        {.k = 6,
         .chunk = 16,
         .rule = std::make_shared<const sgd>(),
         .groups = {{.parameters = {2, 6}, .learning_rate = 0.5F, .weight_decay = 0.2F, .k = 3},
                    {.prefix = "3", .rule = std::make_shared<const muon>()}}},
        {.k = 4096, .values = value_code::bf16},
        {.k = 6, .chunk = 16, .cut = chunk_cut::divisors},
        {.k = 6, .chunk = 16, .rule = std::make_shared<const sgd>(), .weights = mean_weights::tokens},
        {.k = 6,
         .chunk = 16,
         .rule = std::make_shared<const sgd>(),
         .weights = mean_weights::tokens,
         .contribution_clip = 1.5F},
        {.k = 6, .chunk = 16, .contribution_clip = 1.0F},
    };
    thread_pool two(2);
    for (std::size_t i = 0; i < all.size(); ++i)
        for (const std::size_t count : {2U, 5U, 40U}) {
            CAPTURE(i);
            CAPTURE(count);
            compare(all[i], count, &two);
        }
}

TEST_CASE("shards cover every element once, whole rows of chunks, and every chunk of a section") {
    const demo_options options = {.chunk = 16};
    optimizer_peer<demo> peer(shapes, options, nullptr, 1);
    const payload_layout& whole = peer.optimizer->layout();
    for (const std::size_t count : {1U, 2U, 3U, 8U, 100U}) {
        std::vector<std::size_t> next(shapes.size());
        std::vector<std::uint64_t> chunks(whole.sections.size());
        for (const auto& shard : cut_into_shards(peer.parameters, options, count))
            for (const shard_part& part : shard) {
                CHECK(part.first == next[part.tensor]);
                next[part.tensor] += part.shape.count();
                const auto regions = chunk_regions(part.shape, 16, options.cut);
                REQUIRE(regions.size() == part.sections);
                for (std::size_t i = 0; i < regions.size(); ++i) {
                    chunks.at(part.first_section + i) += regions[i].count();
                    CHECK(regions[i].chunk_size() == whole.sections[part.first_section + i].chunk_size);
                    CHECK(regions[i].cols() == whole.sections[part.first_section + i].columns);
                }
            }
        for (std::size_t i = 0; i < chunks.size(); ++i) CHECK(chunks[i] == whole.sections[i].chunks);
        for (std::size_t i = 0; i < shapes.size(); ++i) CHECK(next[i] == shapes[i].count());
    }
    CHECK_THROWS_AS(static_cast<void>(cut_into_shards(peer.parameters, options, 0)), value_error);
}

TEST_CASE("a bad gradient in one shard changes none") {
    const demo_options options = {.k = 6, .chunk = 16};
    optimizer_peer<demo> peer(shapes, options, nullptr, 1);
    sharded_demo sharded(peer.parameters, options, 3);
    peer.new_gradients();
    const auto before = sharded.save_private();
    peer.gradients[6][5] = std::numeric_limits<float>::quiet_NaN();
    CHECK_THROWS_WITH_AS(static_cast<void>(sharded.begin_step(1)),
                         "gradient of '6': element 5 is nan, expected a finite number", value_error);
    CHECK(sharded.save_private() == before);
    peer.gradients[6][5] = 1e30F;
    CHECK_THROWS_AS(static_cast<void>(sharded.begin_step(1)), value_error);
    CHECK(sharded.save_private() == before);
    peer.gradients[6][5] = 0.0F;
    static_cast<void>(sharded.begin_step(1));
    CHECK_THROWS_AS(static_cast<void>(sharded.begin_step(1)), value_error);
    sharded.abandon();
    static_cast<void>(sharded.begin_step(1));
}

// A peer that is whole, one in shards, and two that are saved and restored as the other form between any two calls.
TEST_CASE("shards: saved and restored with a payload in flight or committed, as one demo or in others, bit for bit") {
    thread_pool two(2);
    const std::vector<demo_options> all = {
        {.alpha = 0.5F, .k = 6, .chunk = 16, .values = value_code::sign},
        {.k = 6, .chunk = 16, .values = value_code::q4, .error_feedback = true},
        {.k = 6, .chunk = 12, .basis = basis::random_orthogonal(7, true), .rule = std::make_shared<const muon>()},
    };
    for (const demo_options& options : all) {
        optimizer_peer<demo> whole(shapes, options, nullptr, 1), other(shapes, options, nullptr, 2),
            to_whole(shapes, options, nullptr, 1), to_shards(shapes, options, nullptr, 1);
        auto shards = std::make_unique<sharded_demo>(to_shards.parameters, options, 3, &two);
        std::uint64_t round = 0;
        // Each goes on as what the other was, with a number of shards that differs each time; set_round() before or
        // after.
        const auto swap = [&](bool first) {
            const auto one = to_whole.optimizer->save_private(), three = shards->save_private();
            REQUIRE(one == whole.optimizer->save_private());
            REQUIRE(three == one);
            to_whole.optimizer = std::make_unique<demo>(to_whole.parameters, options);
            shards = std::make_unique<sharded_demo>(to_shards.parameters, options, 1 + round % 5, &two);
            if (first) to_whole.optimizer->set_round(round);
            if (first) shards->set_round(round);
            REQUIRE(to_whole.optimizer->restore_private(three).has_value());
            REQUIRE(shards->restore_private(one).has_value());
            if (!first) to_whole.optimizer->set_round(round);
            if (!first) shards->set_round(round);
            REQUIRE(shards->save_private() == one);
            REQUIRE(std::ranges::equal(shards->in_flight(), whole.optimizer->in_flight()));
        };
        for (; round < 8; ++round) {
            whole.new_gradients();
            other.new_gradients();
            to_whole.gradients_from(whole);
            to_shards.gradients_from(whole);
            swap(round % 2 == 0);
            const int k = round < 5 ? options.k : 2;  // which is no part of the state
            for (auto* p : {whole.optimizer.get(), to_whole.optimizer.get()}) p->set_k(k);
            shards->set_k(k);
            const auto payload = copy(whole.optimizer->begin_step(1));
            REQUIRE(copy(to_whole.optimizer->begin_step(1)) == payload);
            REQUIRE(copy(shards->begin_step(1)) == payload);
            swap(round % 3 == 0);
            const auto second = copy(other.optimizer->begin_step(2));
            const std::array<contribution, 2> list = {
                {{.peer = 2, .payload = second}, {.peer = 1, .payload = payload}}};
            const commit agreed = {.round = round, .contributions = std::span(list).first(round % 4 == 3 ? 1 : 2)};
            const bool held = whole.optimizer->end_step({&agreed, 1}).own_included;
            CHECK(held == (round % 4 != 3));
            CHECK(to_whole.optimizer->end_step({&agreed, 1}).own_included == held);
            CHECK(shards->end_step({&agreed, 1}).own_included == held);
            other.optimizer->end_step({&agreed, 1});
            REQUIRE(to_whole.values == whole.values);
            REQUIRE(to_shards.values == whole.values);
        }
        const auto saved = shards->save_private();
        for (std::size_t at = 0; at < saved.size(); at += 101) {
            auto altered = saved;
            altered[at] ^= std::byte{0x10};
            CHECK_FALSE(shards->restore_private(altered).has_value());
            CHECK_FALSE(shards->restore_private(std::span(saved).first(at)).has_value());
        }
        CHECK(shards->save_private() == saved);
    }
}

TEST_CASE("shards: a snapshot that is newer than the payload in flight, a gradient that moved, a transport") {
    const demo_options options = {.k = 6, .chunk = 16};
    optimizer_peer<demo> whole(shapes, options, nullptr, 1), memory(shapes, options, nullptr, 1);
    sharded_demo sharded(memory.parameters, options, 3);
    whole.new_gradients();
    for (std::size_t i = 0; i < shapes.size(); ++i) sharded.set_gradient(i, whole.gradients[i]);
    CHECK_THROWS_AS(sharded.set_gradient(shapes.size(), whole.gradients[0]), value_error);
    CHECK_THROWS_AS(sharded.set_gradient(1, whole.gradients[0]), shape_error);
    for (const std::uint64_t round : {0U, 4U}) {
        REQUIRE(copy(sharded.begin_step(1)) == copy(whole.optimizer->begin_step(1)));
        sharded.set_round(round + 4);  // it was committed
        whole.optimizer->set_round(round + 4);
        CHECK(sharded.in_flight().empty());
        CHECK(sharded.save_private() == whole.optimizer->save_private());
    }
    loopback_group one(1), another(1);
    sharded.set_round(0);
    whole.optimizer->set_round(0);
    CHECK(sharded.step(one[0]).own_included);
    CHECK(whole.optimizer->step(another[0]).own_included);
    CHECK(memory.values == whole.values);
    CHECK(sharded.layout().fingerprint == whole.optimizer->layout().fingerprint);
    CHECK(sharded.memory_bytes().momentum == whole.optimizer->memory_bytes().momentum);
    std::vector<std::byte> parts;
    sharded.begin_step(1,
                       [&](std::span<const std::byte> part) { parts.insert(parts.end(), part.begin(), part.end()); });
    CHECK(parts == copy(whole.optimizer->begin_step(1)));
}
