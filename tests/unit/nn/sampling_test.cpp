#include <thinwire/backend/cpu/reference.hpp>
#include <thinwire/nn/sampling.hpp>

#include <doctest/doctest.h>
#include <support/models.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <vector>

using namespace thinwire;

namespace {

const std::vector<float> scores = {0.0F, 2.0F, 1.0F, 2.0F, -1.0F};

std::map<std::int32_t, int> draw(const nn::sampling_options& options, int count) {
    random_stream random(5);
    std::map<std::int32_t, int> seen;
    for (int i = 0; i < count; ++i) ++seen[nn::choose_token(scores, options, random.uniform())];
    return seen;
}

}  // namespace

TEST_CASE("choose_token: temperature 0 takes the likeliest, the lower of equals") {
    CHECK(nn::choose_token(scores, {.temperature = 0}, 0.99F) == 1);
}

TEST_CASE("choose_token: frequencies follow the softmax") {
    const int count = 20000;
    const auto seen = draw({.temperature = 1}, count);
    double total = 0;
    for (const float s : scores) total += std::exp(static_cast<double>(s));
    for (std::int32_t t = 0; t < 5; ++t) {
        const double p = std::exp(static_cast<double>(scores[static_cast<std::size_t>(t)])) / total;
        // Five standard deviations of a count of this size.
        CHECK(std::abs(seen.at(t) - count * p) < 5 * std::sqrt(count * p * (1 - p)));
    }
}

TEST_CASE("choose_token: top_k and top_p cut the tail") {
    const auto two = draw({.temperature = 1, .top_k = 2}, 500);
    CHECK(two.size() == 2);
    CHECK(two.contains(1));
    CHECK(two.contains(3));
    CHECK(draw({.temperature = 5, .top_k = 99}, 2000).size() == 5);
    CHECK(draw({.temperature = 1, .top_p = 0.01F}, 200).size() == 1);
    // The two likeliest have 0.41 each: 0.5 needs both, 0.85 a third.
    CHECK(draw({.temperature = 1, .top_p = 0.5F}, 500).size() == 2);
    CHECK(draw({.temperature = 1, .top_p = 0.85F}, 500).size() == 3);
    CHECK(draw({.temperature = 0.01F}, 200).size() == 2);
}

TEST_CASE("choose_token: the ends of the unit interval give a token") {
    for (const float u : {0.0F, 0x1.fffffep-1F}) {
        const std::int32_t token = nn::choose_token(scores, {.temperature = 1}, u);
        CHECK(token >= 0);
        CHECK(token < 5);
    }
}

TEST_CASE("decoder: one token at a time gives the scores of the whole pass") {
    for (const test::small_model& small : test::small_models()) {
        CAPTURE(small.name);
        const nn::transformer_config& config = small.config;
        cpu::reference backend;
        nn::transformer<cpu::reference> model(backend, config);
        model.initialize(3);
        for (const parameter& p : model.parameters())
            for (float& x : p.values) x *= 5;
        const std::vector<std::int32_t> tokens = {1, 7, 3, 3, 0, 12, 9, 22, 5};
        const auto width = static_cast<std::size_t>(config.vocab_size);
        std::vector<float> whole(tokens.size() * width);
        model.logits(tokens, 1, static_cast<int>(tokens.size()), whole);
        for (const std::size_t prefill : {std::size_t{1}, std::size_t{4}}) {
            nn::decoder<cpu::reference> sequence(model, static_cast<int>(tokens.size()));
            std::span<const float> next = sequence.extend(std::span(tokens).first(prefill));
            for (std::size_t t = prefill;; ++t) {
                for (std::size_t i = 0; i < width; ++i)
                    REQUIRE(next[i] == doctest::Approx(whole[(t - 1) * width + i]).epsilon(1e-4));
                if (t == tokens.size()) break;
                next = sequence.extend(std::span(tokens).subspan(t, 1));
            }
            CHECK(sequence.length() == 9);
            CHECK_THROWS_AS((void)sequence.extend(std::span(tokens).first(1)), shape_error);
            sequence.reset();
            CHECK(sequence.length() == 0);
        }
    }
}

TEST_CASE("generate: seeds repeat, options and sizes are checked") {
    cpu::reference backend;
    const auto config = test::small_models()[2].config;
    nn::transformer<cpu::reference> model(backend, config);
    model.initialize(4);
    const std::vector<std::int32_t> prompt = {1, 2};
    const auto text = nn::generate(model, prompt, 20, {.temperature = 1, .seed = 1});
    CHECK(text.size() == 20);
    CHECK(std::all_of(text.begin(), text.end(), [](auto t) { return t >= 0 && t < 23; }));
    CHECK(nn::generate(model, prompt, 20, {.temperature = 1, .seed = 1}) == text);
    CHECK(nn::generate(model, prompt, 20, {.temperature = 1, .seed = 2}) != text);
    CHECK(nn::generate(model, prompt, 0, {}).empty());
    CHECK(nn::generate(model, prompt, 30, {}).size() == 30);
    CHECK_THROWS_WITH_AS((void)nn::generate(model, prompt, 31, {}),
                         "generate: prompt of 2 and 31 tokens, expected at most 32 together (max_position_embeddings)",
                         shape_error);
    CHECK_THROWS_AS((void)nn::generate(model, {}, 3, {}), value_error);
    CHECK_THROWS_AS((void)nn::generate(model, prompt, -1, {}), value_error);
    CHECK_THROWS_AS((void)nn::generate(model, prompt, 1, {.temperature = -1}), value_error);
    CHECK_THROWS_AS((void)nn::generate(model, prompt, 1, {.top_k = -1}), value_error);
    CHECK_THROWS_AS((void)nn::generate(model, prompt, 1, {.top_p = 0}), value_error);
    CHECK_THROWS_AS((void)nn::generate(model, std::vector<std::int32_t>{99}, 1, {}), value_error);
}
