#include <thinwire/backend/cpu/reference.hpp>
#include <thinwire/nn/transformer.hpp>

#include <doctest/doctest.h>
#include <support/backend_checks.hpp>
#include <support/models.hpp>

#include <cmath>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

using namespace thinwire;

namespace {

using model = nn::transformer<cpu::reference>;

/// Counts what a model asks for.
struct counting : cpu::reference {
    int allocations = 0;
    std::size_t largest = 0;
    buffer allocate(std::size_t size) {
        ++allocations;
        largest = std::max(largest, size);
        return cpu::reference::allocate(size);
    }
};

struct batch {
    int rows = 2;
    int length = 7;
    std::vector<std::int32_t> tokens, targets;

    explicit batch(const nn::transformer_config& c, std::uint64_t seed = 3) {
        random_stream random(seed);
        const auto vocabulary = static_cast<std::uint64_t>(c.vocab_size);
        for (int i = 0; i < rows * length; ++i) {
            tokens.push_back(static_cast<std::int32_t>(random.below(vocabulary)));
            targets.push_back(i % 5 == 2 ? -100 : static_cast<std::int32_t>(random.below(vocabulary)));
        }
    }
};

/// Away from ones and zeros, so that every gradient says something.
void shake(model& m, float scale) {
    std::uint64_t stream = 0;
    for (const parameter& p : m.parameters()) {
        random_stream random(17, stream++);
        for (float& x : p.values) x += scale * random.normal();
    }
}

std::vector<std::vector<float>> gradients(model& m) {
    std::vector<std::vector<float>> all;
    for (const parameter& p : m.parameters()) all.emplace_back(p.gradient.begin(), p.gradient.end());
    return all;
}

}  // namespace

// The loss is float32 work, so a single entry's difference would drown in rounding: the derivative along a whole
// tensor's gradient is large and smooth. Step 1e-2 / |g| moves the loss by 1e-2; the rounding of two losses, 2e-7
// each, is 2e-5 of that, and the even terms of the curve cancel in the central difference. 2 % is allowed.
TEST_CASE("transformer: the gradient of every tensor agrees with the slope of the loss along it") {
    for (const test::small_model& small : test::small_models()) {
        CAPTURE(small.name);
        const nn::transformer_config& config = small.config;
        cpu::reference backend;
        model m(backend, config);
        m.initialize(1);
        shake(m, 0.15F);
        nn::transformer_config padless = config;
        padless.pad_token_id = -1;
        batch b(padless);
        if (config.pad_token_id >= 0)  // a padded look-up is meant to give no gradient, so none in this batch
            for (std::int32_t& token : b.tokens) token = token == config.pad_token_id ? 0 : token;
        m.zero_gradient();
        (void)m.loss_and_gradient(b.tokens, b.targets, b.rows, b.length);
        for (const parameter& p : m.parameters()) {
            CAPTURE(p.name);
            const std::vector<float> g(p.gradient.begin(), p.gradient.end());
            const std::vector<float> at(p.values.begin(), p.values.end());
            double square = 0;
            for (const float x : g) square += static_cast<double>(x) * static_cast<double>(x);
            REQUIRE(square > 1e-8);
            const double step = 1e-2 / square;
            const auto loss_at = [&](double along) {
                for (std::size_t i = 0; i < g.size(); ++i)
                    p.values[i] = static_cast<float>(static_cast<double>(at[i]) + along * static_cast<double>(g[i]));
                const double loss = static_cast<double>(m.loss(b.tokens, b.targets, b.rows, b.length));
                std::copy(at.begin(), at.end(), p.values.begin());
                return loss;
            };
            const double slope = (loss_at(step) - loss_at(-step)) / (2 * step);
            CHECK(slope == doctest::Approx(square).epsilon(0.02));
        }
    }
}

TEST_CASE("transformer: loss, loss_and_gradient and logits tell the same") {
    for (const test::small_model& small : test::small_models()) {
        CAPTURE(small.name);
        const nn::transformer_config& config = small.config;
        cpu::reference backend;
        model m(backend, config);
        m.initialize(2);
        const batch b(config);
        const float loss = m.loss(b.tokens, b.targets, b.rows, b.length);
        CHECK(m.loss_and_gradient(b.tokens, b.targets, b.rows, b.length) == loss);
        std::vector<float> logits(b.tokens.size() * static_cast<std::size_t>(config.vocab_size));
        m.logits(b.tokens, b.rows, b.length, logits);
        const int rows = static_cast<int>(b.tokens.size());
        const double sum = backend.cross_entropy(logits.data(), b.targets.data(), rows, config.vocab_size, 0);
        const auto counted = std::count_if(b.targets.begin(), b.targets.end(), [](auto t) { return t >= 0; });
        CHECK(static_cast<double>(loss) == doctest::Approx(sum / static_cast<double>(counted)).epsilon(1e-6));
        // Fresh weights guess: the loss is near that of a uniform choice.
        CHECK(loss == doctest::Approx(std::log(config.vocab_size)).epsilon(0.1));
    }
}

TEST_CASE("transformer: activations that are computed anew give the same bits in less memory") {
    for (const test::small_model& small : test::small_models()) {
        CAPTURE(small.name);
        nn::transformer_config config = small.config;
        config.num_hidden_layers = 5;
        config.vocab_size = 23;
        const batch b(config);
        const auto step = [&](auto& m) { return m.loss_and_gradient(b.tokens, b.targets, b.rows, b.length); };
        counting keeping, recomputing;
        nn::transformer<counting> keeper(keeping, config), recomputer(recomputing, config);
        keeper.initialize(2);
        recomputer.initialize(2);
        recomputer.recompute_activations(true);
        keeping.largest = recomputing.largest = 0;
        CHECK(step(keeper) == step(recomputer));
        for (std::size_t i = 0; i < keeper.parameters().size(); ++i) {
            const parameter &kept = keeper.parameters()[i], &anew = recomputer.parameters()[i];
            CAPTURE(kept.name);
            CHECK(std::equal(kept.gradient.begin(), kept.gradient.end(), anew.gradient.begin(), anew.gradient.end()));
        }
        CHECK(recomputing.largest * 2 < keeping.largest);
        CHECK(keeper.loss(b.tokens, b.targets, b.rows, b.length) ==
              recomputer.loss(b.tokens, b.targets, b.rows, b.length));
        recomputer.recompute_activations(false);
        recomputer.zero_gradient();
        (void)step(recomputer);
        CHECK(std::equal(keeper.parameters()[0].gradient.begin(), keeper.parameters()[0].gradient.end(),
                         recomputer.parameters()[0].gradient.begin()));
    }
}

TEST_CASE("transformer: gradients add up until zero_gradient") {
    cpu::reference backend;
    const auto config = test::small_models()[1].config;
    model m(backend, config);
    m.initialize(3);
    const batch one(config, 1), two(config, 2);
    (void)m.loss_and_gradient(one.tokens, one.targets, one.rows, one.length);
    const auto first = gradients(m);
    m.zero_gradient();
    (void)m.loss_and_gradient(two.tokens, two.targets, two.rows, two.length);
    const auto second = gradients(m);
    (void)m.loss_and_gradient(one.tokens, one.targets, one.rows, one.length);
    const auto both = gradients(m);
    for (std::size_t i = 0; i < both.size(); ++i) {
        std::vector<float> sum = first[i];
        for (std::size_t j = 0; j < sum.size(); ++j) sum[j] += second[i][j];
        CHECK(test::relative_difference(both[i], sum, 1e-6) < 1e-5);
    }
}

TEST_CASE("transformer: a token sees what is before it in its own row and nothing else") {
    for (const test::small_model& small : test::small_models()) {
        CAPTURE(small.name);
        const nn::transformer_config& config = small.config;
        cpu::reference backend;
        model m(backend, config);
        m.initialize(4);
        shake(m, 0.1F);
        batch b(config);
        const auto width = static_cast<std::size_t>(config.vocab_size);
        std::vector<float> before(b.tokens.size() * width), after(before.size());
        m.logits(b.tokens, b.rows, b.length, before);
        b.tokens[4] = (b.tokens[4] + 1) % config.vocab_size;  // row 0, position 4
        m.logits(b.tokens, b.rows, b.length, after);
        for (std::size_t r = 0; r < b.tokens.size(); ++r) {
            const bool touched = r >= 4 && r < 7;
            const bool same = std::equal(before.begin() + static_cast<std::ptrdiff_t>(r * width),
                                         before.begin() + static_cast<std::ptrdiff_t>((r + 1) * width),
                                         after.begin() + static_cast<std::ptrdiff_t>(r * width));
            CHECK(same == !touched);
        }
    }
}

TEST_CASE("transformer: a padding token's look-up gives its embedding no gradient") {
    auto config = test::small_models().front().config;
    config.pad_token_id = 5;
    cpu::reference backend;
    model m(backend, config);
    m.initialize(5);
    batch b(config);
    b.tokens[0] = b.tokens[6] = 5;
    (void)m.loss_and_gradient(b.tokens, b.targets, b.rows, b.length);
    const auto row = m.parameters().front().gradient.subspan(5 * 12, 12);
    CHECK(std::all_of(row.begin(), row.end(), [](float x) { return x == 0; }));
}

TEST_CASE("transformer: passes of sizes seen before allocate nothing") {
    for (const test::small_model& small : test::small_models()) {
        CAPTURE(small.name);
        const nn::transformer_config& config = small.config;
        counting backend;
        nn::transformer<counting> m(backend, config);
        m.initialize(6);
        const batch b(config);
        (void)m.loss_and_gradient(b.tokens, b.targets, b.rows, b.length);
        const int before = backend.allocations;
        (void)m.loss(b.tokens, b.targets, b.rows, b.length);
        (void)m.loss_and_gradient(b.tokens, b.targets, b.rows, b.length);
        (void)m.loss_and_gradient(std::span(b.tokens).first(5), std::span(b.targets).first(5), 1, 5);
        CHECK(backend.allocations == before);
    }
}

TEST_CASE("transformer: initialize follows its seed and its scales") {
    auto config = test::small_models().front().config;
    config.hidden_size = 96;
    config.intermediate_size = 128;
    config.initializer_range = 0.05F;
    cpu::reference backend;
    model m(backend, config), same(backend, config), other(backend, config);
    m.initialize(7), same.initialize(7), other.initialize(8);
    for (std::size_t i = 0; i < m.parameters().size(); ++i) {
        const parameter& p = m.parameters()[i];
        CAPTURE(p.name);
        CHECK(std::equal(p.values.begin(), p.values.end(), same.parameters()[i].values.begin()));
        if (p.shape.rank() == 1) {
            CHECK(std::all_of(p.values.begin(), p.values.end(), [](float x) { return x == 1.0F; }));
            continue;
        }
        CHECK_FALSE(std::equal(p.values.begin(), p.values.end(), other.parameters()[i].values.begin()));
        double square = 0;
        for (const float x : p.values) square += static_cast<double>(x) * static_cast<double>(x);
        const double deviation = std::sqrt(square / static_cast<double>(p.values.size()));
        const bool residual = p.name.ends_with("o_proj.weight") || p.name.ends_with("down_proj.weight");
        CHECK(deviation == doctest::Approx(residual ? 0.05 / 2 : 0.05).epsilon(0.08));  // 2 layers: sqrt(4)
    }
}

TEST_CASE("transformer: parameters lie at cache lines and check out") {
    cpu::reference backend;
    model m(backend, test::small_models()[4].config);
    for (const parameter& p : m.parameters()) {
        CHECK_NOTHROW(check(p));
        CHECK(reinterpret_cast<std::uintptr_t>(p.values.data()) % 64 == 0);
        CHECK(reinterpret_cast<std::uintptr_t>(p.gradient.data()) % 64 == 0);
    }
}

TEST_CASE("transformer: bad input is refused before anything is touched") {
    cpu::reference backend;
    const auto config = test::small_models().front().config;
    model m(backend, config);
    m.initialize(9);
    batch b(config);
    const auto run = [&] { return m.loss_and_gradient(b.tokens, b.targets, b.rows, b.length); };
    CHECK_THROWS_AS((void)m.loss(b.tokens, b.targets, 3, b.length), shape_error);
    CHECK_THROWS_AS((void)m.loss(b.tokens, b.targets, -2, -7), shape_error);
    CHECK_THROWS_AS((void)m.loss(b.tokens, std::span(b.targets).first(3), b.rows, b.length), shape_error);
    std::vector<float> small(3);
    CHECK_THROWS_AS(m.logits(b.tokens, b.rows, b.length, small), shape_error);
    b.tokens[3] = 23;
    CHECK_THROWS_WITH_AS((void)run(), "transformer: token 23, expected 0 to 22", value_error);
    b.tokens[3] = -1;
    CHECK_THROWS_AS((void)run(), value_error);
    b.tokens[3] = 0;
    b.targets[1] = 23;
    CHECK_THROWS_AS((void)run(), value_error);
    b.targets.assign(b.targets.size(), -100);
    CHECK_THROWS_AS((void)run(), value_error);
    const std::vector<std::int32_t> many(33, 1);
    CHECK_THROWS_WITH_AS((void)m.loss(many, many, 1, 33),
                         "transformer: 33 tokens in a row, expected at most 32 (max_position_embeddings)", shape_error);
    for (const std::vector<float>& g : gradients(m))
        CHECK(std::all_of(g.begin(), g.end(), [](float x) { return x == 0; }));
}
