#include <thinwire/core/random.hpp>
#include <thinwire/optim/adamw.hpp>
#include <thinwire/optim/contribution_weights.hpp>
#include <thinwire/optim/demo.hpp>
#include <thinwire/optim/muon.hpp>

#include <doctest/doctest.h>
#include <support/optim_peer.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

using namespace thinwire;
using test::finish;
using demo_peer = test::peer<demo, demo_options>;

namespace {

const std::vector<shape> tensors = {{64, 48}, {70}, {31, 12}};

payload_layout one_chunk(std::uint32_t kept) {
    return {.sections = {{.chunks = 1, .chunk_size = kept, .kept = kept}}};
}

/// The norm of one chunk of these values.
std::uint64_t norm(const std::vector<float>& values) {
    const auto n = static_cast<std::uint32_t>(values.size());
    sparse_content content = {.positions = std::vector<std::uint16_t>(n), .values = values, .counts = {n}};
    return norm_of(one_chunk(n), content);
}
double number(std::uint64_t norm) {
    return std::ldexp(static_cast<double>(norm & 0xffffffffU), static_cast<int>(norm >> 32U) - 127 - 46);
}

std::vector<contribution_weight> weigh(mean_weights by, float clip, const std::vector<std::uint32_t>& tokens,
                                       const std::vector<std::uint64_t>& norms = {}) {
    contribution_weights all(by, clip);
    all.clear();
    for (std::size_t i = 0; i < tokens.size(); ++i) all.add(tokens[i], norms.empty() ? 0 : norms[i]);
    const auto found = all.finish();
    return {found.begin(), found.end()};
}
std::vector<std::uint32_t> weights_of(const std::vector<std::uint32_t>& tokens) {
    std::vector<std::uint32_t> out;
    for (const contribution_weight& w : weigh(mean_weights::tokens, 0.0F, tokens)) {
        CHECK(w.factor == 256);
        CHECK(w.shift == 0);
        out.push_back(w.weight);
    }
    return out;
}
double factor_of(const contribution_weight& w) {
    return std::ldexp(static_cast<double>(w.factor) / 256.0, -static_cast<int>(w.shift));
}

/// Payloads of peers that state tokens; one may send gradients that are so many times too large.
struct senders {
    std::vector<std::vector<std::byte>> payloads;
    std::vector<contribution> list;

    senders(const demo_options& options, const std::vector<std::uint32_t>& tokens, std::size_t bad = ~std::size_t{0},
            float times = 1.0F) {
        for (std::size_t i = 0; i < tokens.size(); ++i) {
            demo_peer p(i, options, nullptr, tensors);
            p.optimizer->set_tokens(tokens[i]);
            p.new_gradients();
            if (i == bad)
                for (auto& g : p.gradients)
                    for (float& value : g) value *= times;
            const auto payload = p.optimizer->begin_step(i);
            payloads.emplace_back(payload.begin(), payload.end());
        }
        for (std::size_t i = 0; i < tokens.size(); ++i) list.push_back({.peer = i, .payload = payloads[i]});
    }
};

std::vector<std::vector<float>> applied(const demo_options& options, const std::vector<contribution>& list,
                                        thread_pool* pool = nullptr) {
    demo_peer p(99, options, pool, tensors);
    const step_report report = p.optimizer->apply({.round = 0, .contributions = list});
    CHECK(static_cast<std::size_t>(report.contributors) == list.size());
    return p.values;
}

double distance(const std::vector<std::vector<float>>& a, const std::vector<std::vector<float>>& b) {
    double sum = 0.0;
    for (std::size_t i = 0; i < a.size(); ++i)
        for (std::size_t e = 0; e < a[i].size(); ++e)
            sum += std::pow(static_cast<double>(a[i][e]) - static_cast<double>(b[i][e]), 2.0);
    return std::sqrt(sum);
}

/// Options with which the weights move by minus the decoded mean.
demo_options plain(int k, value_code values = value_code::f32) {
    demo_options options = {.learning_rate = 1.0F, .k = k, .chunk = 16, .values = values};
    options.gradient = gradient_scale::none;
    options.rule = std::make_shared<const sgd>();
    return options;
}

}  // namespace

TEST_CASE("tokens travel in the payload; the report has their sum over the accepted contributions") {
    const senders sent({.k = 4}, {5, 0, most_tokens});
    CHECK(inspect_payload(sent.payloads[0])->tokens == 5);
    CHECK(inspect_payload(sent.payloads[2])->tokens == most_tokens);
    demo_peer p(9, {.k = 4}, nullptr, tensors);
    std::vector<contribution> list = sent.list;
    list.push_back({.peer = 7, .payload = sent.payloads[0]});  // under another name: refused
    const commit c = {.round = 0, .contributions = list};
    p.begin(9);
    const step_report report = p.optimizer->end_step({&c, 1});
    CHECK(report.contributors == 3);
    CHECK(report.rejected == 1);
    CHECK(report.tokens == 5 + std::uint64_t{most_tokens});
    CHECK_THROWS_WITH_AS(p.optimizer->set_tokens(most_tokens + 1), "set_tokens: 16777217, expected at most 16777216",
                         value_error);
    p.optimizer->set_tokens(7);
    CHECK(inspect_payload(p.begin(9))->tokens == 7);
    p.optimizer->abandon();
    CHECK(inspect_payload(p.begin(9))->tokens == 7);  // until another number is set
}

TEST_CASE("weights: tokens over their greatest common divisor, 0 as 1; none where all are alike") {
    CHECK(weights_of({4096, 8192, 12288}) == std::vector<std::uint32_t>{1, 2, 3});
    CHECK(weights_of({0, 6, 4}) == std::vector<std::uint32_t>{1, 6, 4});
    CHECK(weights_of({7}).empty());
    CHECK(weights_of({7, 7, 7}).empty());
    CHECK(weights_of({0, 1, 1}).empty());
    CHECK(weights_of({}).empty());
    CHECK(weigh(mean_weights::equal, 0.0F, {1, 2, 3}).empty());
    for (const std::size_t peers : {127U, 128U, 129U, 1000U}) {
        std::vector<std::uint32_t> tokens(peers, most_tokens);
        tokens.back() = most_tokens - 1;
        const auto found = weights_of(tokens);
        const std::uint64_t sum = std::accumulate(found.begin(), found.end(), std::uint64_t{0});
        CHECK(sum < std::uint64_t{1} << 31U);
        CHECK(sum > (std::uint64_t{1} << 30U) - peers);
        CHECK(found.front() == most_tokens >> (peers < 129 ? 0U : peers < 1000 ? 1U : 3U));
        tokens.back() = 1;
        CHECK(weights_of(tokens).back() == 1);
    }
}

TEST_CASE("norm_of: the length, in integers whose order is that of the lengths") {
    random_stream random(8);
    CHECK(norm({0.0F, -0.0F}) == 0);
    CHECK(norm({1.0F}) == norm({-1.0F}));
    CHECK(number(norm({1.0F})) == 1.0);
    CHECK(number(norm({3.0F, -4.0F, 0.0F})) == doctest::Approx(5.0).epsilon(1e-4));
    CHECK(number(norm({0x1p100F, 0x1p100F})) == doctest::Approx(std::sqrt(2.0) * 0x1p100).epsilon(1e-4));
    CHECK(number(norm({0x1p-126F})) == 0x1p-126);
    CHECK(norm(std::vector<float>(65535, 0x1.fffffeP99F)) > norm(std::vector<float>(65534, 0x1.fffffeP99F)));
    for (int i = 0; i < 300; ++i) {
        std::vector<float> values(1 + random.below(400));
        const float scale = std::ldexp(1.0F, static_cast<int>(random.below(180)) - 100);
        double sum = 0.0;
        for (float& value : values) {
            value = random.normal() * scale * (random.below(3) == 0 ? 1e-3F : 1.0F);
            sum += static_cast<double>(value) * static_cast<double>(value);
        }
        const std::uint64_t found = norm(values);
        CHECK((found >> 31U & 1U) == 1);
        CHECK(std::abs(number(found) / std::sqrt(sum) - 1.0) < 20.0 / 65536);
        std::vector<float> twice = values;
        for (float& value : twice) value *= 2.0F;
        CHECK(norm(twice) == found + (std::uint64_t{1} << 32U));
        std::ranges::reverse(values);
        CHECK(norm(values) == found);
    }
}

TEST_CASE("clip: to so many times the lower median, never above it, at most 1/128 below; fewer than three: nothing") {
    const auto length = [](float value) { return norm({value}); };
    const auto clipped = [&](float c, const std::vector<float>& lengths) {
        std::vector<std::uint64_t> norms;
        for (const float l : lengths) norms.push_back(length(l));
        return weigh(mean_weights::equal, c, std::vector<std::uint32_t>(lengths.size(), 1), norms);
    };
    CHECK(clipped(1.0F, {1.0F, 1000.0F}).empty());
    CHECK(clipped(2.0F, {1.0F, 2.0F, 1.0F}).empty());  // exactly the limit
    CHECK(clipped(0.0F, {1.0F, 1000.0F, 1.0F}).empty());
    const auto four = clipped(1.0F, {1.0F, 2.0F, 3.0F, 4.0F});  // the lower of 2 and 3
    REQUIRE(four.size() == 4);
    CHECK(factor_of(four[1]) == 1.0);
    CHECK(factor_of(four[2]) == std::floor(256.0 * 2.0 / 3.0) / 256.0);
    CHECK(factor_of(four[3]) == 0.5);
    const auto silent = clipped(4.0F, {0.0F, 0.0F, 1.0F});  // most send nothing but zeros
    REQUIRE(silent.size() == 3);
    CHECK(silent[0].factor == 256);
    CHECK(silent[2].factor == 0);
    random_stream random(9);
    for (int i = 0; i < 2000; ++i) {
        const float c = 1.0F + static_cast<float>(random.below(1000)) / 64.0F;
        std::vector<float> lengths(3 + random.below(6));
        for (float& l : lengths)
            l = (1.0F + random.uniform()) *
                std::ldexp(1.0F, static_cast<int>(random.below(random.below(2) == 0 ? 4 : 60)));
        const auto found = clipped(c, lengths);
        std::vector<double> sorted;
        for (const float l : lengths) sorted.push_back(number(length(l)));
        std::ranges::sort(sorted);
        const double limit = static_cast<double>(c) * sorted[(sorted.size() - 1) / 2];
        for (std::size_t p = 0; p < found.size(); ++p) {
            const double ideal = std::min(1.0, limit / number(length(lengths[p])));
            CHECK(factor_of(found[p]) <= ideal);
            CHECK(factor_of(found[p]) > ideal * (1.0 - 1.0 / 127.0));
            CHECK(found[p].factor <= 256);
        }
        if (found.empty()) CHECK(sorted.back() <= limit);
    }
}

TEST_CASE("weighted: a contribution of three tokens is one of one token three times") {
    for (const int k : {5, 256}) {
        demo_options options = plain(k), weighted = options;
        weighted.weights = mean_weights::tokens;
        const senders once(weighted, {3, 1, 2}), all(options, {3, 1, 2});
        // The same coefficients in payloads of as many peers as there are tokens.
        std::vector<std::vector<std::byte>> payloads;
        std::vector<contribution> list;
        const std::size_t from[] = {0, 0, 0, 1, 2, 2};
        for (std::size_t i = 0; i < 6; ++i) {
            demo_peer p(from[i], options, nullptr, tensors);
            p.new_gradients();
            const auto payload = p.optimizer->begin_step(i);
            payloads.emplace_back(payload.begin(), payload.end());
        }
        for (std::size_t i = 0; i < 6; ++i) list.push_back({.peer = i, .payload = payloads[i]});
        const auto expected = applied(options, list);
        CHECK(applied(weighted, once.list) == expected);
        CHECK(applied(options, all.list) != expected);
    }
}

TEST_CASE("weighted: equal tokens, and norms within the limit, change no bit") {
    for (const value_code values : {value_code::f32, value_code::sign}) {
        demo_options options = plain(9, values), same = options;
        same.weights = mean_weights::tokens;
        same.contribution_clip = 4.0F;
        const senders a(options, {2048, 2048, 2048, 2048}), b(same, {2048, 2048, 2048, 2048});
        CHECK(applied(options, a.list) == applied(same, b.list));
        // They tell the payloads apart all the same.
        demo_peer p(0, options, nullptr, tensors);
        CHECK(p.optimizer->apply({.round = 0, .contributions = b.list}).rejected == 4);
    }
}

TEST_CASE("weighted and clipped: order, instruction set and threads change no bit") {
    thread_pool two(2), three(3);
    const std::vector<update_rule_ptr> rules = {std::make_shared<const signum>(), std::make_shared<const sgd>(),
                                                std::make_shared<const muon>()};
    for (const update_rule_ptr& rule : rules)
        for (const value_code values : {value_code::f32, value_code::q4}) {
            demo_options options = plain(9, values);
            options.rule = rule;
            options.weights = mean_weights::tokens;
            options.contribution_clip = 1.5F;
            senders sent(options, {1000, 3, 0, most_tokens, 77}, 1, 1000.0F);
            options.level = isa::scalar;
            const auto expected = applied(options, sent.list);
            demo_options without = options;
            without.contribution_clip = 0.0F;
            CHECK(applied(without, senders(without, {1000, 3, 0, most_tokens, 77}, 1, 1000.0F).list) != expected);
            for (const isa level : {isa::scalar, isa::avx2, isa::avx512})
                for (thread_pool* pool : {static_cast<thread_pool*>(nullptr), &two, &three}) {
                    if (level > best_isa()) continue;
                    options.level = level;
                    std::ranges::next_permutation(sent.list, {}, &contribution::peer);
                    CHECK(applied(options, sent.list, pool) == expected);
                }
        }
}

TEST_CASE("contribution_clip: of five peers one sends a thousand times too much: the mean moves by c medians at most") {
    constexpr float c = 2.0F;
    for (const float times : {1000.0F, 0x1p50F}) {
        demo_options open = plain(256), closed = open;  // all coefficients: every place has five senders
        closed.contribution_clip = c;
        const auto start = applied(open, {});
        std::vector<double> lengths;
        const senders honest(open, std::vector<std::uint32_t>(5));
        for (const contribution& one : honest.list)
            if (one.peer != 2) lengths.push_back(distance(applied(open, {one}), start));
        std::ranges::sort(lengths);
        // The honest four, and a fifth that sends nothing.
        const auto without = applied(open, senders(open, std::vector<std::uint32_t>(5), 2, 0.0F).list);
        const auto with_open = applied(open, senders(open, std::vector<std::uint32_t>(5), 2, times).list);
        const auto with_closed = applied(closed, senders(closed, std::vector<std::uint32_t>(5), 2, times).list);
        const double limit = static_cast<double>(c) * lengths[2] / 5.0;
        CHECK(distance(with_open, without) > 50.0 * limit);
        CHECK(distance(with_closed, without) < 1.001 * limit);
        CHECK(distance(with_closed, without) > 0.98 * limit);
    }
}

TEST_CASE("contribution_clip: with two contributions nothing is scaled") {
    demo_options options = plain(9), clipped = options;
    clipped.contribution_clip = 1.0F;
    CHECK(applied(options, senders(options, {1, 1}, 1, 1000.0F).list) ==
          applied(clipped, senders(clipped, {1, 1}, 1, 1000.0F).list));
}

TEST_CASE("weights and contribution_clip: values out of range are refused") {
    const auto refusal = [](const demo_options& options) -> std::string {
        try {
            const demo_peer p(0, options, nullptr, tensors);
        } catch (const value_error& e) {
            return e.what();
        }
        return "accepted";
    };
    demo_options options;
    for (const float c : {0.5F, -1.0F, 0x1p21F, std::nanf("")}) {
        options.contribution_clip = c;
        CHECK(
            refusal(options).starts_with("demo: contribution_clip " + std::to_string(c) + ", expected 0 (never), or"));
    }
    options.contribution_clip = 1.0F;
    CHECK(refusal(options) == "accepted");
    options.weights = static_cast<mean_weights>(2);
    CHECK(refusal(options) == "demo: weights 2, expected equal or tokens");
    demo_peer p(0, {}, nullptr, tensors);
    const contribution_weight one;
    CHECK_THROWS_WITH_AS(p.optimizer->apply({.round = 0, .contributions = {}}, {&one, 1}),
                         "apply: 1 weights, expected one for each of 0 accepted contributions", value_error);
    CHECK(p.optimizer->round() == 0);
}

TEST_CASE("adamw: gradients weigh their tokens, exactly where sums of them are exact") {
    using peer = test::peer<adamw, adamw_options>;
    const auto payload_of = [](adamw_options options, std::size_t number, std::uint32_t tokens, peer_id self) {
        peer p(number, options, nullptr, tensors);
        p.optimizer->set_tokens(tokens);
        for (auto& g : p.gradients)
            for (float& value : g) value = static_cast<float>(p.random.below(2001)) - 1000.0F;
        const auto payload = p.optimizer->begin_step(self);
        return std::vector<std::byte>(payload.begin(), payload.end());
    };
    adamw_options weighted;
    weighted.weights = mean_weights::tokens;
    const auto a = payload_of(weighted, 0, 3 * 512, 0), b = payload_of(weighted, 1, 512, 1);
    peer p(5, weighted, nullptr, tensors), q(5, {}, nullptr, tensors), equal(5, {}, nullptr, tensors);
    const step_report report =
        p.optimizer->apply({.round = 0, .contributions = std::vector<contribution>{{0, a}, {1, b}}});
    CHECK(report.tokens == 2048);
    CHECK(report.contributors == 2);
    std::vector<std::vector<std::byte>> payloads;
    for (peer_id i = 0; i < 4; ++i) payloads.push_back(payload_of({}, i < 3 ? 0 : 1, 0, i));
    const std::vector<contribution> list = {{0, payloads[0]}, {1, payloads[1]}, {2, payloads[2]}, {3, payloads[3]}};
    CHECK(q.optimizer->apply({.round = 0, .contributions = list}).contributors == 4);
    CHECK(p.values == q.values);
    CHECK(p.optimizer->replica_digest() == q.optimizer->replica_digest());
    CHECK(equal.optimizer->apply({.round = 0, .contributions = list}).contributors == 4);
    CHECK(equal.optimizer->apply({.round = 1, .contributions = std::vector<contribution>{{0, a}}}).rejected == 1);
}
