#include <thinwire/c.h>
#include <thinwire/optim/demo.hpp>
#include <thinwire/optim/muon.hpp>
#include <thinwire/version.hpp>

#include "support/optimizer_peer.hpp"
#include <doctest/doctest.h>

#include <array>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#if defined(__unix__)
#include <sys/mman.h>
#include <unistd.h>
#endif

using namespace thinwire;

namespace {

const std::vector<shape> shapes = {{24, 40}, {2, 6, 10}, {131}};

thinwire_options default_options() {
    thinwire_options options;
    REQUIRE(thinwire_options_init(&options, sizeof options) == THINWIRE_OK);
    options.k = 8;
    return options;
}

bool said(const std::string& part) {
    const std::string text = thinwire_last_error();
    const bool found = text.find(part) != std::string::npos;
    if (!found) MESSAGE("said: ", text);
    return found;
}

/// A peer behind the C interface, with weights and gradients as those of optimizer_peer.
struct c_peer {
    optimizer_peer<demo> memory;
    std::vector<thinwire_tensor> tensors;
    std::vector<thinwire_floats> gradients;
    thinwire_demo* handle = nullptr;

    explicit c_peer(const thinwire_options& options, std::uint64_t seed = 1)
        : memory(shapes, demo_options{}, nullptr, seed) {
        for (std::size_t i = 0; i < shapes.size(); ++i) {
            tensors.push_back({.name = memory.parameters[i].name.c_str(),
                               .shape = shapes[i].begin(),
                               .rank = shapes[i].rank(),
                               .values = memory.values[i].data(),
                               .count = memory.values[i].size()});
            gradients.push_back({.data = memory.gradients[i].data(), .count = memory.gradients[i].size()});
        }
        REQUIRE(thinwire_demo_create(tensors.data(), tensors.size(), &options, &handle) == THINWIRE_OK);
    }
    c_peer(const c_peer&) = delete;
    c_peer& operator=(const c_peer&) = delete;
    ~c_peer() { thinwire_demo_destroy(handle); }

    thinwire_payload begin(std::uint64_t self) {
        memory.new_gradients();
        thinwire_payload p = {.peer = self, .bytes = {}};
        REQUIRE(thinwire_begin_step(handle, self, gradients.data(), gradients.size(), &p.bytes) == THINWIRE_OK);
        return p;
    }
    std::array<std::uint8_t, 32> digest() const {
        std::array<std::uint8_t, 32> out{};
        REQUIRE(thinwire_replica_digest(handle, out.data()) == THINWIRE_OK);
        return out;
    }
    std::uint64_t round() const {
        std::uint64_t out = 0;
        REQUIRE(thinwire_round(handle, &out) == THINWIRE_OK);
        return out;
    }
};

std::vector<std::uint8_t> copy(const thinwire_bytes& bytes) {
    return {bytes.data, bytes.data + bytes.size};
}

}  // namespace

TEST_CASE("what the C interface computes is what demo computes") {
    thinwire_options options = default_options();
    options.values = THINWIRE_VALUES_Q4;
    options.alpha = 0.5F;
    options.basis = THINWIRE_BASIS_HADAMARD;
    options.gradient = THINWIRE_GRADIENT_COMPLEMENT;
    options.rule = THINWIRE_RULE_MUON;
    options.cut = THINWIRE_CUT_DIVISORS;
    options.weight_decay = 0.1F;
    options.clip_norm = 2.0F;
    options.weights = THINWIRE_WEIGHTS_TOKENS;
    options.contribution_clip = 1.5F;
    options.error_feedback = 1;
    options.threads = 2;
    options.run[31] = 7;
    thinwire_group group;
    REQUIRE(thinwire_group_init(&group, sizeof group) == THINWIRE_OK);
    const std::size_t position = 1;
    group.positions = &position;
    group.position_count = 1;
    group.learning_rate = 0.5F;
    group.own_weight_decay = 1;
    group.weight_decay = 0.01F;
    group.k = 3;
    group.rule = THINWIRE_RULE_SGD;
    options.groups = &group;
    options.group_count = 1;
    demo_options same = {.alpha = 0.5F,
                         .gradient = gradient_scale::complement,
                         .k = 8,
                         .cut = chunk_cut::divisors,
                         .values = value_code::q4,
                         .error_feedback = true,
                         .basis = basis::hadamard(),
                         .rule = std::make_shared<const muon>(),
                         .weight_decay = 0.1F,
                         .clip_norm = 2.0F,
                         .groups = {{.parameters = {1},
                                     .learning_rate = 0.5F,
                                     .weight_decay = 0.01F,
                                     .k = 3,
                                     .rule = std::make_shared<const sgd>()}},
                         .weights = mean_weights::tokens,
                         .contribution_clip = 1.5F};
    same.run.bytes[31] = std::byte{7};

    c_peer foreign(options, 9);
    optimizer_peer<demo> own(shapes, same, nullptr, 9);
    for (std::uint64_t round = 0; round < 5; ++round) {
        REQUIRE(thinwire_set_tokens(foreign.handle, 500) == THINWIRE_OK);
        own.optimizer->set_tokens(500);
        REQUIRE(thinwire_set_k(foreign.handle, 3) == THINWIRE_OK);
        own.optimizer->set_k(3);
        const thinwire_payload payload = foreign.begin(4);
        own.new_gradients();
        const auto expected = own.optimizer->begin_step(4);
        REQUIRE(copy(payload.bytes) == copy({reinterpret_cast<const std::uint8_t*>(expected.data()), expected.size()}));
        thinwire_report report;
        REQUIRE(thinwire_end_step(foreign.handle, round, &payload, 1, &report) == THINWIRE_OK);
        const contribution list = {.peer = 4, .payload = expected};
        const commit agreed = {.round = round, .contributions = {&list, 1}};
        const step_report other = own.optimizer->end_step({&agreed, 1});
        CHECK(report.round == round);
        CHECK(report.contributors == 1);
        CHECK(report.rejected == 0);
        CHECK(report.agreeing == 1);
        CHECK(report.disagreeing == 0);
        CHECK(report.own_included == 1);
        CHECK(report.bytes_sent == payload.bytes.size);
        CHECK(report.bytes_received == 0);
        CHECK(report.tokens == 500);
        CHECK(report.gradient_norm == other.gradient_norm);
        CHECK(report.learning_rate == 1e-3F);
    }
    const digest expected = own.optimizer->replica_digest();
    const auto found = foreign.digest();
    CHECK(std::equal(found.begin(), found.end(), reinterpret_cast<const std::uint8_t*>(expected.bytes.data())));
}

TEST_CASE("a lost payload stays in the momentum, an abandoned one too") {
    c_peer lost(default_options()), abandoned(default_options());
    for (c_peer* p : {&lost, &abandoned}) {
        const std::vector<std::uint8_t> first = copy(p->begin(1).bytes);
        thinwire_bytes flying;
        REQUIRE(thinwire_in_flight(p->handle, &flying) == THINWIRE_OK);
        CHECK(copy(flying) == first);
        if (p == &lost) {
            thinwire_report report;
            REQUIRE(thinwire_end_step(p->handle, 0, nullptr, 0, &report) == THINWIRE_OK);
            CHECK(report.own_included == 0);
            CHECK(p->round() == 1);
        } else {
            REQUIRE(thinwire_abandon(p->handle) == THINWIRE_OK);
            CHECK(p->round() == 0);
        }
        REQUIRE(thinwire_in_flight(p->handle, &flying) == THINWIRE_OK);
        CHECK(flying.size == 0);
        // No gradient, nothing sent so far: what is sent now is what was sent then, but for the decay.
        for (auto& g : p->memory.gradients) std::fill(g.begin(), g.end(), 0.0F);
        thinwire_bytes again;
        REQUIRE(thinwire_begin_step(p->handle, 1, p->gradients.data(), 3, &again) == THINWIRE_OK);
        CHECK(again.size == first.size());
        REQUIRE(thinwire_abandon(p->handle) == THINWIRE_OK);
        REQUIRE(thinwire_set_round(p->handle, 5) == THINWIRE_OK);
    }
    thinwire_bytes one, other;
    REQUIRE(thinwire_save(lost.handle, &one) == THINWIRE_OK);
    REQUIRE(thinwire_save(abandoned.handle, &other) == THINWIRE_OK);
    CHECK(copy(one) == copy(other));
}

TEST_CASE("saved and restored, a peer goes on bit for bit") {
    c_peer first(default_options()), second(default_options());
    for (std::uint64_t round = 0; round < 3; ++round) {
        const thinwire_payload p = first.begin(1);
        REQUIRE(thinwire_end_step(first.handle, round, &p, 1, nullptr) == THINWIRE_OK);
    }
    const thinwire_payload flying = first.begin(1);
    const std::vector<std::uint8_t> sent = copy(flying.bytes);
    thinwire_bytes state;
    REQUIRE(thinwire_save(first.handle, &state) == THINWIRE_OK);
    for (std::size_t i = 0; i < shapes.size(); ++i)
        second.memory.values[i].assign(first.memory.values[i].begin(), first.memory.values[i].end());
    REQUIRE(thinwire_restore(second.handle, state.data, state.size) == THINWIRE_OK);
    REQUIRE(thinwire_set_round(second.handle, 3) == THINWIRE_OK);
    thinwire_payload again = {.peer = 1, .bytes = {}};
    REQUIRE(thinwire_in_flight(second.handle, &again.bytes) == THINWIRE_OK);
    CHECK(copy(again.bytes) == sent);
    REQUIRE(thinwire_end_step(first.handle, 3, &flying, 1, nullptr) == THINWIRE_OK);
    REQUIRE(thinwire_end_step(second.handle, 3, &again, 1, nullptr) == THINWIRE_OK);
    CHECK(first.digest() == second.digest());
    for (std::size_t i = 0; i < shapes.size(); ++i)
        for (c_peer* p : {&first, &second})
            std::fill(p->memory.gradients[i].begin(), p->memory.gradients[i].end(), 0.25F);
    thinwire_bytes a, b;
    REQUIRE(thinwire_begin_step(first.handle, 1, first.gradients.data(), 3, &a) == THINWIRE_OK);
    REQUIRE(thinwire_begin_step(second.handle, 1, second.gradients.data(), 3, &b) == THINWIRE_OK);
    CHECK(copy(a) == copy(b));

    REQUIRE(thinwire_save(first.handle, &state) == THINWIRE_OK);
    std::vector<std::uint8_t> damaged = copy(state);
    damaged[damaged.size() / 2] ^= 1U;
    CHECK(thinwire_restore(second.handle, damaged.data(), damaged.size()) == THINWIRE_REFUSED);
    CHECK(said("thinwire_restore: private state: checksum differs (bad_checksum)"));
    CHECK(thinwire_restore(second.handle, damaged.data(), 3) == THINWIRE_REFUSED);
}

TEST_CASE("payloads are validated") {
    c_peer one(default_options());
    thinwire_payload p = one.begin(3);
    CHECK(thinwire_validate(one.handle, &p, 0) == THINWIRE_OK);
    CHECK(thinwire_validate(one.handle, &p, 1) == THINWIRE_REFUSED);
    CHECK(said("thinwire_validate: payload: round 0, expected 1 (mismatch)"));
    p.peer = 4;
    CHECK(thinwire_validate(one.handle, &p, 0) == THINWIRE_REFUSED);
    CHECK(said("peer 3, expected 4"));
    p.peer = 3;
    p.bytes.size -= 1;
    CHECK(thinwire_validate(one.handle, &p, 0) == THINWIRE_REFUSED);
    CHECK(said("truncated"));
    p.bytes = {};
    CHECK(thinwire_validate(one.handle, &p, 0) == THINWIRE_REFUSED);
    std::vector<std::uint8_t> damaged = {1, 2, 3, 4, 5};
    p.bytes = {damaged.data(), damaged.size()};
    CHECK(thinwire_validate(one.handle, &p, 0) == THINWIRE_REFUSED);
    CHECK(said("not a thinwire payload"));
    // A replica skips the same bytes, and goes on.
    thinwire_report report;
    CHECK(thinwire_end_step(one.handle, 0, &p, 1, &report) == THINWIRE_OK);
    CHECK(report.rejected == 1);
    CHECK(report.contributors == 0);
    CHECK(one.round() == 1);
}

TEST_CASE("every null pointer is reported") {
    thinwire_options options = default_options();
    c_peer p(options);
    thinwire_demo* made = nullptr;
    thinwire_bytes bytes;
    const thinwire_payload payload = {.peer = 1, .bytes = {}};
    const auto null = [](thinwire_status status, const char* what) {
        CHECK(status == THINWIRE_INVALID);
        CHECK(said(what));
    };
    null(thinwire_options_init(nullptr, sizeof options), "thinwire_options_init: options is null");
    null(thinwire_group_init(nullptr, sizeof(thinwire_group)), "thinwire_group_init: group is null");
    null(thinwire_demo_create(nullptr, 1, &options, &made), "thinwire_demo_create: tensors is null");
    null(thinwire_demo_create(p.tensors.data(), 1, &options, nullptr), "thinwire_demo_create: out is null");
    null(thinwire_begin_step(nullptr, 1, p.gradients.data(), 3, &bytes), "thinwire_begin_step: demo is null");
    null(thinwire_begin_step(p.handle, 1, nullptr, 3, &bytes), "gradients is null");
    null(thinwire_begin_step(p.handle, 1, p.gradients.data(), 3, nullptr), "payload is null");
    null(thinwire_end_step(nullptr, 0, &payload, 1, nullptr), "thinwire_end_step: demo is null");
    null(thinwire_end_step(p.handle, 0, nullptr, 1, nullptr), "payloads is null, expected 1 elements");
    null(thinwire_abandon(nullptr), "thinwire_abandon: demo is null");
    null(thinwire_in_flight(nullptr, &bytes), "demo is null");
    null(thinwire_in_flight(p.handle, nullptr), "payload is null");
    null(thinwire_validate(nullptr, &payload, 0), "demo is null");
    null(thinwire_validate(p.handle, nullptr, 0), "payload is null");
    std::uint64_t round;
    null(thinwire_round(nullptr, &round), "demo is null");
    null(thinwire_round(p.handle, nullptr), "round is null");
    null(thinwire_set_round(nullptr, 0), "demo is null");
    null(thinwire_set_learning_rate(nullptr, 0.1F), "demo is null");
    null(thinwire_set_tokens(nullptr, 1), "demo is null");
    null(thinwire_set_k(nullptr, 1), "demo is null");
    std::uint8_t digest[32];
    null(thinwire_replica_digest(nullptr, digest), "demo is null");
    null(thinwire_replica_digest(p.handle, nullptr), "digest is null");
    null(thinwire_save(nullptr, &bytes), "demo is null");
    null(thinwire_save(p.handle, nullptr), "state is null");
    null(thinwire_restore(nullptr, digest, 32), "demo is null");
    null(thinwire_restore(p.handle, nullptr, 0), "state is null");
    thinwire_memory memory;
    null(thinwire_memory_bytes(nullptr, &memory), "demo is null");
    null(thinwire_memory_bytes(p.handle, nullptr), "memory is null");

    thinwire_floats holed[3] = {p.gradients[0], {.data = nullptr, .count = 120}, p.gradients[2]};
    null(thinwire_begin_step(p.handle, 1, holed, 3, &bytes), "gradient of '1' is null");
    thinwire_payload empty = {.peer = 1, .bytes = {.data = nullptr, .size = 5}};
    null(thinwire_end_step(p.handle, 0, &empty, 1, nullptr), "payloads[0].bytes is null, expected 5 elements");
    null(thinwire_validate(p.handle, &empty, 0), "payload.bytes is null, expected 5 elements");
    std::vector<thinwire_tensor> tensors = p.tensors;
    tensors[1].values = nullptr;
    null(thinwire_demo_create(tensors.data(), 3, &options, &made), "tensors[1].values is null");
    tensors = p.tensors;
    tensors[2].shape = nullptr;
    null(thinwire_demo_create(tensors.data(), 3, &options, &made), "tensors[2].shape is null, expected 1 elements");
    options.group_count = 2;
    null(thinwire_demo_create(p.tensors.data(), 3, &options, &made), "options.groups is null, expected 2 elements");
    thinwire_group group;
    REQUIRE(thinwire_group_init(&group, sizeof group) == THINWIRE_OK);
    group.position_count = 1;
    options.groups = &group;
    options.group_count = 1;
    null(thinwire_demo_create(p.tensors.data(), 3, &options, &made), "groups[0].positions is null");
    CHECK(made == nullptr);
    thinwire_demo_destroy(nullptr);
    CHECK(p.round() == 0);
}

TEST_CASE("every option out of range is reported with its value") {
    c_peer p(default_options());
    const auto bad = [&](auto change, const char* what) {
        thinwire_options options = default_options();
        change(options);
        auto* made = reinterpret_cast<thinwire_demo*>(&options);  // becomes null
        CHECK(thinwire_demo_create(p.tensors.data(), 3, &options, &made) == THINWIRE_INVALID);
        CHECK(made == nullptr);
        CHECK(said(what));
    };
    constexpr float nan = std::numeric_limits<float>::quiet_NaN();
    bad([](thinwire_options& o) { o.learning_rate = nan; }, "learning_rate nan");
    bad([](thinwire_options& o) { o.momentum_decay = 1.0F; }, "momentum_decay 1.0");
    bad([](thinwire_options& o) { o.alpha = 0.0F; }, "alpha 0.0");
    bad([](thinwire_options& o) { o.weight_decay = -1.0F; }, "weight_decay -1.0");
    bad([](thinwire_options& o) { o.clip_norm = nan; }, "clip_norm nan");
    bad([](thinwire_options& o) { o.k = 0; }, "k 0, expected 1..4096");
    bad([](thinwire_options& o) { o.chunk = 257; }, "chunk 257, expected 1..256");
    bad([](thinwire_options& o) { o.cut = 2; }, "cut 2, expected a THINWIRE_CUT_ constant");
    bad([](thinwire_options& o) { o.values = 5; }, "values 5, expected a THINWIRE_VALUES_ constant");
    bad([](thinwire_options& o) { o.values = -1; }, "values -1");
    bad([](thinwire_options& o) { o.basis = 4; }, "basis 4, expected a THINWIRE_BASIS_ constant");
    bad([](thinwire_options& o) { o.rule = THINWIRE_RULE_INHERIT; }, "rule 0, expected a THINWIRE_RULE_ constant");
    bad([](thinwire_options& o) { o.gradient = 3; }, "gradient 3");
    bad([](thinwire_options& o) { o.weights = 2; }, "weights 2, expected a THINWIRE_WEIGHTS_ constant");
    bad([](thinwire_options& o) { o.contribution_clip = 0.5F; }, "contribution_clip 0.5");
    bad([](thinwire_options& o) { o.threads = 0; }, "threads 0, expected 1..1024");
    bad([](thinwire_options& o) { o.struct_size = 8; }, "options.struct_size 8, expected ");

    thinwire_group group;
    REQUIRE(thinwire_group_init(&group, sizeof group) == THINWIRE_OK);
    group.prefix = "nothing";
    const auto with = [&group](thinwire_options& o) {
        o.groups = &group;
        o.group_count = 1;
    };
    bad(with, "groups[0] holds no parameter (prefix 'nothing'");
    group.rule = 9;
    bad(with, "rule 9");
    group.struct_size = 1;
    bad(with, "groups[0].struct_size 1");

    thinwire_options options;
    CHECK(thinwire_options_init(&options, 4) == THINWIRE_INVALID);
    CHECK(said("size 4, expected "));
    CHECK(thinwire_group_init(&group, 4) == THINWIRE_INVALID);
    CHECK(thinwire_set_learning_rate(p.handle, nan) == THINWIRE_INVALID);
    CHECK(said("thinwire_set_learning_rate: demo: learning_rate nan"));
    CHECK(thinwire_set_k(p.handle, 0) == THINWIRE_INVALID);
    CHECK(said("thinwire_set_k: 0, expected 1.."));
    CHECK(thinwire_set_tokens(p.handle, (1U << 24U) + 1) == THINWIRE_INVALID);
    CHECK(said("thinwire_set_tokens: 16777217, expected at most 16777216"));
}

TEST_CASE("wrong sizes, bad gradients and calls out of turn are reported and change nothing") {
    c_peer p(default_options());
    thinwire_demo* made = nullptr;
    CHECK(thinwire_demo_create(p.tensors.data(), 0, nullptr, &made) == THINWIRE_INVALID);
    CHECK(said("tensor_count 0"));
    std::vector<thinwire_tensor> tensors = p.tensors;
    tensors[0].count = 959;
    CHECK(thinwire_demo_create(tensors.data(), 3, nullptr, &made) == THINWIRE_INVALID);
    CHECK(said("values has 959 elements, expected 960 for shape [24, 40]"));
    tensors[0].rank = 9;
    CHECK(thinwire_demo_create(tensors.data(), 3, nullptr, &made) == THINWIRE_INVALID);
    CHECK(said("tensors[0].rank 9, expected at most 8"));
    const std::int64_t negative[] = {24, -40};
    tensors = p.tensors;
    tensors[0].shape = negative;
    CHECK(thinwire_demo_create(tensors.data(), 3, nullptr, &made) == THINWIRE_INVALID);
    CHECK(said("side -40"));

    thinwire_bytes before, after, payload;
    REQUIRE(thinwire_save(p.handle, &before) == THINWIRE_OK);
    const std::vector<std::uint8_t> untouched = copy(before);
    CHECK(thinwire_begin_step(p.handle, 1, p.gradients.data(), 2, &payload) == THINWIRE_INVALID);
    CHECK(said("gradient_count 2, expected 3"));
    thinwire_floats gradients[3] = {p.gradients[0], p.gradients[1], p.gradients[2]};
    gradients[2].count = 32;
    CHECK(thinwire_begin_step(p.handle, 1, gradients, 3, &payload) == THINWIRE_INVALID);
    CHECK(said("gradient of '2': 32 elements, expected 131"));
    p.memory.gradients[1][7] = std::numeric_limits<float>::quiet_NaN();
    CHECK(thinwire_begin_step(p.handle, 1, p.gradients.data(), 3, &payload) == THINWIRE_INVALID);
    CHECK(said("thinwire_begin_step: gradient of '1': element 7 is nan, expected a finite number"));
    REQUIRE(thinwire_save(p.handle, &after) == THINWIRE_OK);
    CHECK(copy(after) == untouched);

    const thinwire_payload sent = p.begin(1);
    CHECK(thinwire_begin_step(p.handle, 1, p.gradients.data(), 3, &payload) == THINWIRE_INVALID);
    CHECK(said("thinwire_begin_step: the payload of round 0 is still in flight"));
    CHECK(thinwire_end_step(p.handle, 1, &sent, 1, nullptr) == THINWIRE_INVALID);
    CHECK(said("commit of round 1, expected round 0"));
    CHECK(thinwire_end_step(p.handle, 0, &sent, 1, nullptr) == THINWIRE_OK);
}

TEST_CASE("names, version and memory") {
    CHECK(std::string(thinwire_version()) == THINWIRE_VERSION_STRING);
    c_peer p(default_options());
    std::vector<thinwire_tensor> tensors = p.tensors;
    tensors[1].name = nullptr;
    thinwire_demo* made = nullptr;
    REQUIRE(thinwire_demo_create(tensors.data(), 3, nullptr, &made) == THINWIRE_OK);
    p.memory.gradients[1][0] = std::numeric_limits<float>::infinity();
    thinwire_bytes payload;
    CHECK(thinwire_begin_step(made, 1, p.gradients.data(), 3, &payload) == THINWIRE_INVALID);
    CHECK(said("gradient of 'tensor1': element 0 is inf"));
    thinwire_memory memory;
    REQUIRE(thinwire_memory_bytes(made, &memory) == THINWIRE_OK);
    CHECK(memory.momentum == 4 * (24 * 40 + 2 * 6 * 10 + 131));
    CHECK(memory.workspace > 0);
    CHECK(memory.codec > 0);
    thinwire_bytes saved;
    REQUIRE(thinwire_save(made, &saved) == THINWIRE_OK);
    thinwire_memory more;
    REQUIRE(thinwire_memory_bytes(made, &more) == THINWIRE_OK);
    CHECK(more.codec >= memory.codec + saved.size);
    std::swap(tensors[1].values, tensors[0].values);
    tensors[2].values = tensors[1].values + 100;
    thinwire_demo* tied = nullptr;
    CHECK(thinwire_demo_create(tensors.data(), 3, nullptr, &tied) == THINWIRE_INVALID);
    CHECK(said("parameters 'tensor1' and '2': the same weights are in both, expected each weight once"));
    tensors = p.tensors;
    thinwire_demo_destroy(made);

    // A name longer than the error text is cut, not written past its end.
    const std::string long_name(5000, 'n');
    tensors[0].name = long_name.c_str();
    tensors[0].count = 1;
    CHECK(thinwire_demo_create(tensors.data(), 3, nullptr, &made) == THINWIRE_INVALID);
    CHECK(std::string(thinwire_last_error()).size() == 1023);
}

#if defined(__unix__)
TEST_CASE("the options of an older caller, which are smaller, are refused and not read past their end") {
    c_peer p(default_options());
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    void* memory = mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory != MAP_FAILED);
    REQUIRE(mprotect(static_cast<char*>(memory) + page, page, PROT_NONE) == 0);
    const std::size_t size = 64;
    void* options = static_cast<char*>(memory) + page - size;
    std::memcpy(options, &size, sizeof size);
    thinwire_demo* made = nullptr;
    CHECK(thinwire_demo_create(p.tensors.data(), 3, static_cast<const thinwire_options*>(options), &made) ==
          THINWIRE_INVALID);
    CHECK(said("options.struct_size 64, expected "));
    munmap(memory, 2 * page);
}
#endif
