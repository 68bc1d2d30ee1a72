#include <thinwire/hf/config.hpp>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>
#include <support/models.hpp>
#include <support/temporary_folder.hpp>

#include <fstream>
#include <string>
#include <vector>

using namespace thinwire;
using nlohmann::json;

namespace {

json llama() {
    return json::parse(R"({"model_type": "llama", "vocab_size": 128256, "hidden_size": 2048,
        "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
        "max_position_embeddings": 131072, "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "head_dim": 64,
        "tie_word_embeddings": true, "hidden_act": "silu", "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0,
        "low_freq_factor": 1.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"}})");
}

json gpt2() {
    return json::parse(R"({"model_type": "gpt2", "vocab_size": 50257, "n_embd": 768, "n_head": 12, "n_layer": 12,
        "n_positions": 1024, "layer_norm_epsilon": 1e-05, "activation_function": "gelu_new"})");
}

}  // namespace

TEST_CASE("config: an older Llama 3.2 file with rope_theta and rope_scaling") {
    const auto c = hf::parse_config(llama().dump()).value();
    CHECK(c.family == nn::model_family::llama);
    CHECK(c.head_dim == 64);
    CHECK(c.rope_theta == 500000.0);
    CHECK(c.rope_scaling.enabled);
    CHECK(c.rope_scaling.factor == 32.0);
    CHECK(c.rope_scaling.original_max_position_embeddings == 8192);
    CHECK(c.tie_word_embeddings);
    CHECK(c.norm_eps == 1e-5F);
}

TEST_CASE("config: rope_parameters of transformers 5 say the same") {
    json j = llama();
    j["rope_parameters"] = j["rope_scaling"];
    j["rope_parameters"]["rope_theta"] = j["rope_theta"];
    j.erase("rope_scaling");
    j.erase("rope_theta");
    CHECK(hf::parse_config(j.dump()).value() == hf::parse_config(llama().dump()).value());
}

TEST_CASE("config: defaults of keys that files leave out") {
    json j = llama();
    for (const char* key : {"num_key_value_heads", "head_dim", "rope_theta", "rope_scaling", "tie_word_embeddings"})
        j.erase(key);
    auto c = hf::parse_config(j.dump()).value();
    CHECK(c.num_key_value_heads == 32);
    CHECK(c.head_dim == 64);
    CHECK(c.rope_theta == 10000.0);
    CHECK_FALSE(c.rope_scaling.enabled);
    CHECK_FALSE(c.tie_word_embeddings);
    j["model_type"] = "qwen3";
    c = hf::parse_config(j.dump()).value();
    CHECK(c.head_dim == 128);
    CHECK(c.qk_norm == nn::qk_norm_kind::per_head);
    j["model_type"] = "olmo2";
    j["pad_token_id"] = -1;
    c = hf::parse_config(j.dump()).value();
    CHECK(c.placement == nn::norm_placement::post);
    CHECK(c.qk_norm == nn::qk_norm_kind::full);
    CHECK(c.pad_token_id == 128255);
    c = hf::parse_config(gpt2().dump()).value();
    CHECK(c.intermediate_size == 3072);
    CHECK(c.tie_word_embeddings);
    CHECK(c.mlp == nn::mlp_kind::gelu_tanh);
}

TEST_CASE("config: what cannot be honoured is refused with key, value and expectation") {
    struct bad {
        std::string pointer;  // into the Llama file; "gpt2:" in front for GPT-2's
        json value;           // discarded: erase
        std::vector<std::string> says;
    };
    const json erase(json::value_t::discarded);
    const std::vector<bad> cases = {
        {"/model_type", "mamba", {"model_type", "\"mamba\"", "\"llama\""}},
        {"/model_type", 7, {"model_type", "7", "a string"}},
        {"/model_type", erase, {"model_type is missing"}},
        {"/hidden_size", erase, {"hidden_size is missing"}},
        {"/hidden_size", nullptr, {"hidden_size is missing"}},
        {"/hidden_size", "2048", {"hidden_size", "\"2048\"", "an integer"}},
        {"/hidden_size", 2048.5, {"hidden_size", "an integer"}},
        {"/hidden_size", 99999999999, {"hidden_size", "99999999999", "32 bits"}},
        {"/hidden_size", -99999999999, {"hidden_size", "-99999999999", "32 bits"}},
        {"/hidden_size", 18446744073709551615U, {"hidden_size", "18446744073709551615", "32 bits"}},
        {"/hidden_size", -2048, {"hidden_size", "-2048"}},
        {"/num_attention_heads", 0, {"num_attention_heads"}},
        {"/num_key_value_heads", 5, {"num_key_value_heads", "5", "divisor"}},
        {"/rms_norm_eps", "small", {"rms_norm_eps", "a number"}},
        {"/tie_word_embeddings", 1, {"tie_word_embeddings", "true or false"}},
        {"/hidden_act", "gelu", {"hidden_act", "\"gelu\"", "only \"silu\""}},
        {"/rope_scaling/rope_type", "yarn", {"rope_scaling", "\"yarn\"", "\"llama3\""}},
        {"/rope_scaling/factor", erase, {"rope_scaling", "factor is missing"}},
        {"/rope_scaling", 3, {"rope_scaling", "an object"}},
        {"/rope_scaling/partial_rotary_factor", 0.5, {"partial_rotary_factor", "0.5"}},
        {"/use_sliding_window", true, {"use_sliding_window", "true"}},
        {"/layer_types", json::array({"sliding_attention"}), {"layer_types", "sliding_attention"}},
        {"gpt2:/n_head", 7, {"n_embd", "768", "n_head, 7"}},
        {"gpt2:/n_head", 0, {"n_embd"}},
        {"gpt2:/n_embd", 2147483647, {"n_embd"}},
        {"gpt2:/activation_function", "relu", {"activation_function", "\"relu\""}},
        {"gpt2:/scale_attn_by_inverse_layer_idx", true, {"scale_attn_by_inverse_layer_idx"}},
    };
    for (const bad& b : cases) {
        const bool is_gpt2 = b.pointer.starts_with("gpt2:");
        json j = is_gpt2 ? gpt2() : llama();
        const json::json_pointer at(b.pointer.substr(is_gpt2 ? 5 : 0));
        if (b.value.is_discarded())
            j.at(at.parent_pointer()).erase(at.back());
        else
            j[at] = b.value;
        const auto parsed = hf::parse_config(j.dump(), "'some/config.json'");
        CAPTURE(b.pointer);
        REQUIRE_FALSE(parsed);
        CAPTURE(parsed.error().message);
        CHECK(parsed.error().message.starts_with("'some/config.json': "));
        CHECK(parsed.error().message.find('\n') == std::string::npos);
        for (const std::string& part : b.says) CHECK(parsed.error().message.find(part) != std::string::npos);
    }
}

TEST_CASE("config: what is no JSON object is refused") {
    for (const std::string& text : {std::string(), std::string("{"), std::string("[]"), std::string("nonsense"),
                                    std::string(100'000, '['), "{\"a\":" + std::string(50'000, '{')})
        CHECK_FALSE(hf::parse_config(text));
    const std::string whole = llama().dump();
    for (std::size_t n = 0; n < whole.size(); ++n) CHECK_FALSE(hf::parse_config(whole.substr(0, n)));
}

TEST_CASE("config: what is written is read back equal") {
    const test::temporary_folder folder;
    for (const test::small_model& small : test::small_models()) {
        CAPTURE(small.name);
        const nn::transformer_config& config = small.config;
        hf::save_config(config, folder.path() / "config.json");
        CHECK(hf::load_config(folder.path()).value() == config);
        CHECK(hf::load_config(folder.path() / "config.json").value() == config);
    }
    CHECK_THROWS_AS((void)hf::load_config(folder.path() / "none.json"), io_error);
}

TEST_CASE("config: a model that no model_type describes is not written") {
    auto c = test::small_models().front().config;
    c.qk_norm = nn::qk_norm_kind::full;
    CHECK_THROWS_AS((void)hf::format_config(c), value_error);
    c = test::small_models().front().config;
    c.norm = nn::norm_kind::layer;
    CHECK_THROWS_AS((void)hf::format_config(c), value_error);
    c = test::small_models()[2].config;
    c.mlp_bias = true;
    CHECK_THROWS_AS((void)hf::format_config(c), value_error);
    c.mlp_bias = false;
    c.head_dim = 3;
    CHECK_THROWS_AS((void)hf::format_config(c), value_error);
}
