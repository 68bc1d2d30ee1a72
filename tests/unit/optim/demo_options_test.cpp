#include <thinwire/core/bytes.hpp>
#include <thinwire/optim/adamw.hpp>
#include <thinwire/optim/demo.hpp>
#include <thinwire/optim/demo_shards.hpp>

#include <doctest/doctest.h>
#include <support/optim_peer.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

using namespace thinwire;
using test::finish;
using demo_peer = test::peer<demo, demo_options>;

namespace {

std::vector<std::vector<float>> momentum_of(demo_peer& p) {
    std::vector<std::vector<float>> out;
    for (std::size_t i = 0; i < p.values.size(); ++i)
        out.emplace_back(p.optimizer->momentum(i).begin(), p.optimizer->momentum(i).end());
    return out;
}

/// The message of the value_error that making a peer throws.
std::string refusal(const demo_options& options) {
    try {
        const demo_peer p(0, options);
    } catch (const value_error& e) {
        return e.what();
    }
    return "accepted";
}

bool holds(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

/// Halves what it is given: a rule of an integrator.
class halved final : public update_rule {
 public:
    [[nodiscard]] std::string name() const override { return "halved"; }
    void direct(std::span<float> d) const noexcept override {
        for (float& v : d) v *= 0.5F;
    }
};

/// Sends float32 in one byte a value; breaks its word when told to.
class faulty_code final : public value_codec {
 public:
    bool faulty = false;

    [[nodiscard]] value_code id() const noexcept override { return static_cast<value_code>(200); }
    [[nodiscard]] std::string_view name() const noexcept override { return "faulty"; }
    [[nodiscard]] bool sends_zero() const noexcept override { return true; }
    [[nodiscard]] std::uint64_t bits(std::size_t count) const noexcept override { return 8 * std::uint64_t{count}; }
    void round(std::span<float> values) const noexcept override {
        for (float& v : values) v = std::copysign(0.5F, v);
    }
    void encode(std::span<const float> values, bit_writer& out) const noexcept override {
        for (const float v : values) out.put(v < 0.0F ? 1 : 0, 8);
        if (faulty) out.put(1, 32);
    }
    [[nodiscard]] std::optional<errc> decode(bit_reader& in, std::span<float> values) const noexcept override {
        for (float& v : values) v = in.get(8) == 0 ? 0.5F : -0.5F;
        return std::nullopt;
    }
};

}  // namespace

TEST_CASE("options: errors name field, value and expectation") {
    CHECK(refusal({}) == "accepted");
    CHECK(holds(refusal({.alpha = 0.0F}), "alpha 0.000000, expected above 0"));
    CHECK(holds(refusal({.alpha = 1.5F}), "alpha 1.500000, expected above 0"));
    CHECK(holds(refusal({.alpha = std::numeric_limits<float>::quiet_NaN()}), "alpha"));
    CHECK(holds(refusal({.gradient = static_cast<gradient_scale>(3)}), "gradient 3, expected learning_rate, none"));
    CHECK(holds(refusal({.rule = nullptr}), "rule null, expected an update rule"));
    CHECK(holds(refusal({.groups = {{.prefix = "nothing"}}}), "groups[0] holds no parameter (prefix 'nothing'"));
    CHECK(holds(refusal({.groups = {{.parameters = {0}}, {.parameters = {0}}}}), "groups[1] holds no parameter"));
    CHECK(holds(refusal({.groups = {{.parameters = {0, 3}}}}), "groups[0].parameters: 3, expected below 3"));
    CHECK(holds(refusal({.groups = {{.prefix = "tensor", .learning_rate = -1.0F}}}), "groups[0].learning_rate -1."));
    CHECK(holds(refusal({.groups = {{.prefix = "tensor", .weight_decay = 2000.0F}}}), "groups[0].weight_decay 2000."));
    CHECK(holds(refusal({.groups = {{.prefix = "tensor", .k = 5000}}}), "groups[0].k 5000"));
}

TEST_CASE("gradient scale: lr * g, g, or (1 - beta) * g is added to the momentum") {
    struct {
        gradient_scale scale;
        float gain;
    } const cases[] = {
        {gradient_scale::learning_rate, 0.125F}, {gradient_scale::none, 1.0F}, {gradient_scale::complement, 0.25F}};
    for (const auto& [scale, gain] : cases) {
        demo_peer p(0, {.learning_rate = 0.125F, .momentum_decay = 0.75F, .gradient = scale});
        p.begin(0);
        for (std::size_t i = 0; i < p.values.size(); ++i)
            for (std::size_t e = 0; e < p.values[i].size(); ++e)
                REQUIRE(p.optimizer->momentum(i)[e] == gain * p.gradients[i][e]);
    }
}

TEST_CASE("alpha: that part of what was sent leaves the momentum, once it is committed") {
    demo_peer whole(0, {.gradient = gradient_scale::none, .k = 4096}),
        part(0, {.alpha = 0.25F, .gradient = gradient_scale::none, .k = 4096}),
        small(0, {.alpha = 0.25F, .gradient = gradient_scale::none, .k = 16});
    for (demo_peer* p : {&whole, &part, &small}) p->step();
    for (std::size_t i = 0; i < whole.values.size(); ++i) {
        double before = 0.0, after = 0.0;
        for (std::size_t e = 0; e < whole.values[i].size(); ++e) {
            const float g = part.gradients[i][e];
            REQUIRE(whole.optimizer->momentum(i)[e] == 0.0F);
            REQUIRE(std::abs(part.optimizer->momentum(i)[e] - 0.75F * g) < 1e-5F);
            before += static_cast<double>(g) * static_cast<double>(g);
            after += std::pow(static_cast<double>(small.optimizer->momentum(i)[e]), 2.0);
        }
        CHECK(after < 0.995 * before);  // the transform is orthonormal: a coefficient of c leaves 0.75^2 c^2
        CHECK(after > 0.75 * 0.75 * before);
    }
}

TEST_CASE("a payload that was not committed leaves the momentum exactly as if it had not been sent") {
    for (const value_code values : {value_code::f32, value_code::sign}) {
        for (const float alpha : {1.0F, 0.2F}) {
            CAPTURE(alpha);
            demo_peer p(0, {.momentum_decay = 0.9F, .alpha = alpha, .k = 8, .values = values});
            p.step();
            p.begin(0);
            const auto in_flight = momentum_of(p);
            finish(*p.optimizer, 1, {});
            CHECK(momentum_of(p) == in_flight);
            p.begin(0);
            p.optimizer->abandon();
            const auto abandoned = momentum_of(p);
            for (std::size_t i = 0; i < p.values.size(); ++i)  // nothing left, the new gradients came
                for (std::size_t e = 0; e < p.values[i].size(); ++e)
                    REQUIRE(std::abs(abandoned[i][e] - 0.9F * in_flight[i][e] - 1e-3F * p.gradients[i][e]) < 1e-8F);
        }
    }
}

TEST_CASE("sgd: the step is rate times the mean of what was sent") {
    demo_peer p(0, {.learning_rate = 0.25F,
                    .gradient = gradient_scale::none,
                    .k = 4096,
                    .rule = std::make_shared<const sgd>(),
                    .weight_decay = 0.5F});
    const auto before = p.values;
    p.step();
    for (std::size_t i = 0; i < p.values.size(); ++i)
        for (std::size_t e = 0; e < p.values[i].size(); ++e)
            REQUIRE(std::abs(p.values[i][e] - (0.875F * before[i][e] - 0.25F * p.gradients[i][e])) < 1e-5F);
}

TEST_CASE("sgd: the mean is over the peers that sent a coefficient, for disjoint and for overlapping supports") {
    const demo_options options = {.learning_rate = 1.0F,
                                  .gradient = gradient_scale::none,
                                  .k = 1,
                                  .chunk = 64,
                                  .rule = std::make_shared<const sgd>()};
    const std::vector<shape> one = {{1}};
    const auto update = [&](const std::vector<float>& gradients, const std::vector<shape>& shapes,
                            const std::function<void(demo_peer&, float)>& fill) {
        std::vector<std::unique_ptr<demo_peer>> peers;
        std::vector<contribution> list;
        for (peer_id i = 0; i < gradients.size(); ++i) {
            peers.push_back(std::make_unique<demo_peer>(i, options, nullptr, shapes));
            fill(*peers.back(), gradients[i]);
            list.push_back({.peer = i, .payload = peers.back()->optimizer->begin_step(i)});
        }
        const std::vector<float> before = peers[0]->values[0];
        finish(*peers[0]->optimizer, 0, list);
        std::vector<float> change;
        for (std::size_t e = 0; e < before.size(); ++e) change.push_back(before[e] - peers[0]->values[0][e]);
        return change;
    };
    // One element: all three send the same coefficient.
    const auto same = update({1.0F, 2.0F, 6.0F}, one, [](demo_peer& p, float g) { p.gradients[0][0] = g; });
    CHECK(same[0] == doctest::Approx(3.0));
    // Two chunks of one element would share nothing: as rows of 2, each peer sends the one that is not zero.
    const auto apart = update({4.0F, -4.0F}, {{2}}, [](demo_peer& p, float g) {
        p.gradients[0][0] = g;  // the sum of both for the first peer, their difference for the other
        p.gradients[0][1] = std::abs(g);
    });
    // The first sends only the constant 4, the second only the alternation -4, +4: nothing is halved.
    CHECK(apart[0] == doctest::Approx(0.0).epsilon(1e-5));
    CHECK(apart[1] == doctest::Approx(8.0));
}

TEST_CASE("groups: rate, weight decay, k and rule of their own; a parameter belongs to the first that holds it") {
    demo_options options = {.learning_rate = 0.125F, .k = 8, .weight_decay = 0.5F};
    options.groups = {{.parameters = {0}, .learning_rate = 0.0F},
                      {.prefix = "tensor", .suffix = "1", .learning_rate = 2.0F, .weight_decay = 0.0F, .k = 3},
                      {.prefix = "tensor", .weight_decay = 0.25F, .rule = std::make_shared<const halved>()}};
    demo_peer p(0, options), q(1, options);
    CHECK(p.optimizer->layout().sections[0].kept == 8);
    CHECK(p.optimizer->layout().sections[1].kept == 3);
    const auto before = p.values;
    const auto payload = p.begin(0), other = q.begin(1);
    const std::vector<contribution> list = {{.peer = 0, .payload = payload}, {.peer = 1, .payload = other}};
    CHECK(finish(*p.optimizer, 0, list).contributors == 2);
    CHECK(finish(*q.optimizer, 0, list).contributors == 2);
    CHECK(p.optimizer->replica_digest() == q.optimizer->replica_digest());
    CHECK(p.values[0] == before[0]);  // rate 0: neither step nor decay
    for (std::size_t e = 0; e < before[1].size(); ++e)
        CHECK(std::abs(std::abs(p.values[1][e] - before[1][e]) - 0.25F) < 1e-6F);  // signum, twice the rate, no decay
    demo_options plain = options;
    plain.groups[2].rule = std::make_shared<const sgd>();
    demo_peer unhalved(0, plain), second(1, plain);
    unhalved.begin(0);
    const auto its = unhalved.optimizer->in_flight();
    const auto from_second = second.begin(1);
    finish(*unhalved.optimizer, 0, {{.peer = 0, .payload = its}, {.peer = 1, .payload = from_second}});
    for (std::size_t e = 0; e < before[2].size(); ++e) {
        const float start = before[2][e] * (1.0F - 0.125F * 0.25F);
        CHECK(2.0F * (p.values[2][e] - start) == doctest::Approx(unhalved.values[2][e] - start).epsilon(1e-3));
    }
}

TEST_CASE("peers whose groups, rules or k differ do not accept each other's payloads") {
    const auto accepted = [](const demo_options& one, const demo_options& two) {
        demo_peer a(0, one), b(1, two);
        const auto payload = a.begin(0);
        const contribution from = {.peer = 0, .payload = payload};
        const step_report report = b.optimizer->apply({.round = 0, .contributions = {&from, 1}});
        CHECK(report.rejected == 1 - report.contributors);
        CHECK(report.rejection.has_value() == (report.rejected == 1));
        if (report.rejection) CHECK(*report.rejection == errc::mismatch);
        return report.contributors == 1;
    };
    CHECK(accepted({}, {}));
    CHECK(accepted({.alpha = 0.5F}, {}));  // how a peer chooses is its own affair
    CHECK(accepted({.gradient = gradient_scale::none}, {.momentum_decay = 0.5F}));
    CHECK_FALSE(accepted({.rule = std::make_shared<const sgd>()}, {}));
    CHECK_FALSE(accepted({.k = 8}, {.k = 16}));
    CHECK_FALSE(accepted({.groups = {{.parameters = {1}, .learning_rate = 0.5F}}}, {}));
    CHECK_FALSE(accepted({.groups = {{.parameters = {1}, .weight_decay = 0.0F}}}, {}));
    CHECK_FALSE(accepted({.groups = {{.parameters = {2}, .k = 31}}}, {}));
    CHECK_FALSE(accepted({.groups = {{.parameters = {2}, .rule = std::make_shared<const halved>()}}}, {}));
}

TEST_CASE("cut: divisors for the published code; peers differ only where some tensor has a remainder") {
    CHECK(reference_compatible().cut == chunk_cut::divisors);
    CHECK(demo_options{}.cut == chunk_cut::remainder);
    const demo_options even = {.k = 8, .cut = chunk_cut::divisors}, rest = {.k = 8};
    const std::vector<shape> awkward = {{67, 65}, {131}}, ordinary = {{64, 128}, {61}, {50, 29}};
    for (const std::vector<shape>& shapes : {awkward, ordinary}) {
        demo_peer a(0, even, nullptr, shapes), b(0, rest, nullptr, shapes);
        const bool alike = shapes == ordinary;
        CHECK((a.optimizer->layout().fingerprint == b.optimizer->layout().fingerprint) == alike);
        CHECK((a.begin(0) == b.begin(0)) == alike);
        CHECK(b.optimizer->restore_private(a.optimizer->save_private()).has_value() == alike);
        CHECK(a.optimizer->layout().sections.size() == shapes.size());
        CHECK(b.optimizer->layout().sections.size() == (alike ? 3 : 6));
    }
    const demo_peer a(0, even, nullptr, awkward), b(0, rest, nullptr, awkward);
    const auto chunks = [](const demo_peer& p) {
        std::vector<std::array<std::uint64_t, 3>> out;
        for (const payload_section& s : p.optimizer->layout().sections) out.push_back({s.chunks, s.chunk_size, s.kept});
        return out;
    };
    using list = std::vector<std::array<std::uint64_t, 3>>;
    CHECK(chunks(a) == list{{67 * 5, 13, 8}, {131, 1, 1}});
    CHECK(chunks(b) == list{{1, 64 * 64, 8}, {1, 64, 8}, {1, 3 * 64, 8}, {1, 3, 3}, {2, 64, 8}, {1, 3, 3}});
    demo_options wrong;
    wrong.cut = static_cast<chunk_cut>(2);
    CHECK(holds(refusal(wrong), "cut 2, expected remainder or divisors"));
}

TEST_CASE("private state: made with another alpha or gradient scale it is refused; what is committed is remembered") {
    demo_peer a(0, {.alpha = 0.5F, .k = 8});
    a.step();
    const auto saved = a.optimizer->save_private();
    demo_peer b(0, {.alpha = 0.5F, .k = 8}), other(0, {.alpha = 0.25F, .k = 8}),
        scaled(0, {.alpha = 0.5F, .gradient = gradient_scale::none, .k = 8});
    REQUIRE(b.optimizer->restore_private(saved).has_value());
    CHECK(b.optimizer->save_private() == saved);
    CHECK(b.optimizer->in_flight().empty());
    CHECK(momentum_of(b) == momentum_of(a));
    REQUIRE_FALSE(other.optimizer->restore_private(saved).has_value());
    CHECK(other.optimizer->restore_private(saved).error().code == errc::mismatch);
    CHECK_FALSE(scaled.optimizer->restore_private(saved).has_value());
}

TEST_CASE("a gradient that lies elsewhere is the one that is measured and taken") {
    const std::vector<shape> shapes = {{300, 256}, {7}, {40, 30}};  // the first is measured in several pieces
    const demo_options options = {.k = 8, .clip_norm = 1.0F};
    test::peer<demo, demo_options> here(1, options, nullptr, shapes), there(1, options, nullptr, shapes);
    for (int round = 0; round < 3; ++round) {
        here.new_gradients();
        std::vector<std::vector<float>> moved = here.gradients;
        for (auto& g : there.gradients) std::fill(g.begin(), g.end(), 1e30F);
        for (std::size_t i = 0; i < moved.size(); ++i) there.optimizer->set_gradient(i, moved[i]);
        const auto a = here.optimizer->begin_step(1), b = there.optimizer->begin_step(1);
        CHECK(std::equal(a.begin(), a.end(), b.begin(), b.end()));
        here.optimizer->abandon();
        there.optimizer->abandon();
    }
    CHECK_THROWS_AS(there.optimizer->set_gradient(3, there.gradients[0]), value_error);
    CHECK_THROWS_AS(there.optimizer->set_gradient(1, there.gradients[0]), shape_error);
}

TEST_CASE("an own value code that breaks its word: the gradients are in the momentum, as after abandon()") {
    thread_pool two(2);
    for (thread_pool* pool : {static_cast<thread_pool*>(nullptr), &two}) {
        const auto code = std::make_shared<faulty_code>();
        const demo_options options = {.alpha = 0.5F, .k = 3, .chunk = 4, .error_feedback = true, .codec = code};
        demo_peer told(0, options, pool), abandoned(0, options, pool);
        for (std::uint64_t round = 0; round < 4; ++round) {
            for (demo_peer* p : {&told, &abandoned}) p->new_gradients();
            code->faulty = true;
            CHECK_THROWS_WITH_AS(static_cast<void>(told.optimizer->begin_step(0)),
                                 "value codec 'faulty': wrote another number of bits than it announced", value_error);
            code->faulty = false;
            static_cast<void>(abandoned.optimizer->begin_step(0));
            abandoned.optimizer->abandon();
            CHECK(told.optimizer->in_flight().empty());
            REQUIRE(momentum_of(told) == momentum_of(abandoned));
            const auto payload = told.begin(0);
            REQUIRE(payload == abandoned.begin(0));
            for (demo_peer* p : {&told, &abandoned}) finish(*p->optimizer, round, {{.peer = 0, .payload = payload}});
        }
    }
}

TEST_CASE("for_each_item: what an item throws passes through when all others are done") {
    thread_pool three(3);
    for (thread_pool* pool : {static_cast<thread_pool*>(nullptr), &three}) {
        std::array<int, 50> done{};
        CHECK_THROWS_WITH_AS(detail::for_each_item(pool, done.size(),
                                                   [&](std::size_t, std::size_t i) {
                                                       done[i] = 1;
                                                       if (i == 7) throw value_error("seven");
                                                   }),
                             "seven", value_error);
        CHECK(std::ranges::count(done, 1) == 50);
    }
}

TEST_CASE("private state: numbers from which payloads would follow that nobody takes are refused") {
    demo_peer a(0, {.k = 8});
    a.step();
    static_cast<void>(a.begin(0));
    const auto saved = a.optimizer->save_private();
    constexpr std::size_t header = 64, values_sent = header + 8 + 4 * (64 * 128 + 130 + 31 * 12) + 8 + 8 + 8;
    const auto with = [&](std::size_t at, float value) {
        std::vector<std::byte> altered(saved.begin(), saved.begin() + static_cast<std::ptrdiff_t>(at));
        byte_writer out(std::move(altered));
        out.put(value);
        out.put(std::span(saved).subspan(at + 4, saved.size() - at - 12));
        out.put(checksum64(out.bytes()));
        return a.optimizer->restore_private(out.bytes());
    };
    for (const std::size_t at : {header + 8, values_sent}) {
        REQUIRE(with(at, 0x1p87F).has_value());
        const auto refused = with(at, -0x1p89F);
        REQUIRE_FALSE(refused.has_value());
        CHECK(refused.error().code == errc::out_of_range);
        CHECK_FALSE(with(at, std::numeric_limits<float>::infinity()).has_value());
    }
    // The largest that are taken, all of them: the payload is one that is accepted.
    std::vector<std::byte> most(saved.begin(), saved.begin() + header + 8);
    byte_writer out(std::move(most));
    for (std::size_t e = 0; e < 64 * 128 + 130 + 31 * 12; ++e) out.put(0x1p88F);
    out.put(std::span(saved).subspan(values_sent - 24, saved.size() - values_sent + 24 - 8));
    out.put(checksum64(out.bytes()));
    REQUIRE(a.optimizer->restore_private(out.bytes()).has_value());
    a.optimizer->abandon();
    CHECK(a.step().own_included);
}

TEST_CASE("the same weights in two parameters, or a parameter that is not there, are refused") {
    demo_peer p(0, {});
    CHECK_THROWS_WITH_AS(static_cast<void>(p.optimizer->momentum(3)), "momentum: parameter 3, expected below 3",
                         value_error);
    std::vector<parameter> tied = p.parameters;
    tied[1].values = std::span(p.values[0]).subspan(64, 130);
    const char* text = "parameters 'tensor0' and 'tensor1': the same weights are in both, expected each weight once";
    CHECK_THROWS_WITH_AS(demo(tied, {}), text, value_error);
    CHECK_THROWS_WITH_AS(sharded_demo(tied, {}, 2), text, value_error);
    CHECK_THROWS_WITH_AS(adamw(tied, {}), text, value_error);
    tied[1].values = std::span(p.values[0]).first(130);  // next to each other they may lie
    tied[0] = {.name = "rest", .shape = {10}, .values = std::span(p.values[0]).subspan(130, 10), .gradient = {}};
    tied[0].gradient = std::span(p.gradients[0]).first(10);
    CHECK_NOTHROW(demo(tied, {}));
}
