#include <thinwire/nn/config.hpp>
#include <thinwire/nn/plan.hpp>
#include <thinwire/nn/rope.hpp>

#include <doctest/doctest.h>
#include <support/models.hpp>

#include <cmath>
#include <functional>
#include <numbers>
#include <string>
#include <vector>

using namespace thinwire;

TEST_CASE("transformer_config: the test models are valid") {
    for (const test::small_model& small : test::small_models()) {
        CAPTURE(small.name);
        const nn::transformer_config& config = small.config;
        CHECK_NOTHROW(nn::check(config));
    }
}

TEST_CASE("transformer_config: what is wrong is named with its value and the expectation") {
    struct bad {
        std::function<void(nn::transformer_config&)> spoil;
        std::vector<std::string> says;
    };
    const std::vector<bad> cases = {
        {[](auto& c) { c.vocab_size = 0; }, {"vocab_size", "0", "1 to"}},
        {[](auto& c) { c.hidden_size = -4; }, {"hidden_size", "-4"}},
        {[](auto& c) { c.num_hidden_layers = 5000; }, {"num_hidden_layers", "5000", "1 to 4096"}},
        {[](auto& c) { c.num_key_value_heads = 3; }, {"num_key_value_heads", "3", "divisor", "4"}},
        {[](auto& c) { c.head_dim = 7; }, {"head_dim", "7", "even"}},
        {[](auto& c) { c.norm_eps = 0; }, {"norm_eps", "above 0"}},
        {[](auto& c) { c.norm_eps = std::nanf(""); }, {"norm_eps", "nan"}},
        {[](auto& c) { c.rope_theta = -1; }, {"rope_theta", "-1"}},
        {[](auto& c) { c.initializer_range = -0.5F; }, {"initializer_range", "-0.5"}},
        {[](auto& c) { c.pad_token_id = 1000; }, {"pad_token_id", "1000"}},
        {[](auto& c) { c.rope_scaling = {.enabled = true, .factor = 0.5}; }, {"rope_scaling.factor", "0.5"}},
        {[](auto& c) { c.rope_scaling = {.enabled = true, .low_freq_factor = 4, .high_freq_factor = 4}; },
         {"high_freq_factor", "4", "above low_freq_factor"}},
        {[](auto& c) { c.position = nn::position_kind::learned; }, {"position", "rope"}},
        {[](auto& c) { c.family = nn::model_family::gpt2; }, {"norm", "layer"}},
        {[](auto& c) { c.num_attention_heads = 1 << 24, c.head_dim = 1 << 20; }, {"head_dim", "1048576"}},
    };
    for (const bad& b : cases) {
        nn::transformer_config config = test::small_models().front().config;
        b.spoil(config);
        try {
            nn::check(config);
            FAIL_CHECK("accepted: " << b.says.front());
        } catch (const value_error& e) {
            const std::string message = e.what();
            CAPTURE(message);
            for (const std::string& part : b.says) CHECK(message.find(part) != std::string::npos);
        }
    }
}

TEST_CASE("model_plan: tensors do not overlap, begin at cache lines, and count what the formula says") {
    for (const test::small_model& small : test::small_models()) {
        CAPTURE(small.name);
        const nn::transformer_config& config = small.config;
        const nn::model_plan plan(config);
        std::size_t end = 0;
        for (const nn::tensor_plan& t : plan.tensors()) {
            CHECK(t.offset % 16 == 0);
            CHECK(t.offset >= end);
            CHECK(t.offset < end + 16);
            end = t.offset + t.shape.count();
        }
        CHECK(plan.arena_size() == end);
    }
    // Llama, untied: 2 V H + L (2 H Q + 2 H K + 3 H I + 2 H) + H.
    const nn::transformer_config c = test::small_models().front().config;
    const int query = c.num_attention_heads * c.head_dim;
    const int key = c.num_key_value_heads * c.head_dim;
    const int layer = c.hidden_size * (2 * query + 2 * key + 3 * c.intermediate_size + 2);
    const int total = 2 * c.vocab_size * c.hidden_size + c.num_hidden_layers * layer + c.hidden_size;
    CHECK(nn::model_plan(c).parameter_count() == static_cast<std::size_t>(total));
}

TEST_CASE("rope: the first pair turns by one radian a position, the last almost by 1 / theta") {
    nn::transformer_config c;
    c.head_dim = 8;
    c.rope_theta = 10000;
    const std::vector<double> f = nn::rope_frequencies(c);
    REQUIRE(f.size() == 4);
    for (std::size_t i = 0; i < 4; ++i) CHECK(f[i] == doctest::Approx(std::pow(10.0, -static_cast<double>(i))));
    const nn::rope_table table(c, 3);
    REQUIRE(table.cosine.size() == 12);
    CHECK(table.cosine[0] == 1.0F);
    CHECK(table.sine[4] == doctest::Approx(std::sin(1.0)));
    CHECK(table.cosine[9] == doctest::Approx(std::cos(0.2)));
}

TEST_CASE("rope: llama3 scaling keeps fast frequencies, divides slow ones and blends between") {
    nn::transformer_config c;
    c.head_dim = 64;
    c.rope_theta = 500000;
    const std::vector<double> plain = nn::rope_frequencies(c);
    c.rope_scaling = {.enabled = true,
                      .factor = 8,
                      .low_freq_factor = 1,
                      .high_freq_factor = 4,
                      .original_max_position_embeddings = 8192};
    const std::vector<double> scaled = nn::rope_frequencies(c);
    int kept = 0, divided = 0, blended = 0;
    for (std::size_t i = 0; i < plain.size(); ++i) {
        const double wavelength = 2 * std::numbers::pi / plain[i];
        if (wavelength < 8192.0 / 4) {
            CHECK(scaled[i] == plain[i]);
            ++kept;
        } else if (wavelength > 8192.0) {
            CHECK(scaled[i] == doctest::Approx(plain[i] / 8).epsilon(1e-12));
            ++divided;
        } else {
            CHECK(scaled[i] < plain[i]);
            CHECK(scaled[i] > plain[i] / 8);
            ++blended;
        }
        if (i > 0) CHECK(scaled[i] < scaled[i - 1]);
    }
    CHECK(kept > 0);
    CHECK(divided > 0);
    CHECK(blended > 0);
}
