#ifndef THINWIRE_HF_CONFIG_HPP
#define THINWIRE_HF_CONFIG_HPP

#include <thinwire/core/error.hpp>
#include <thinwire/core/result.hpp>
#include <thinwire/hf/detail/file.hpp>
#include <thinwire/hf/detail/json.hpp>
#include <thinwire/nn/config.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace thinwire::hf {

namespace detail {

/// Takes typed values out of a JSON object and remembers the first thing that was wrong. A key that is null counts as
/// missing, as in Python.
class config_reader {
 public:
    config_reader(const json& object, std::string where) : object_(object), where_(std::move(where)) {}

    [[nodiscard]] const json* find(const char* key) const {
        const auto found = object_.find(key);
        return found == object_.end() || found->is_null() ? nullptr : &*found;
    }
    int integer(const char* key, std::optional<int> otherwise = std::nullopt) {
        const json* value = find(key);
        if (value == nullptr) return missing(key, otherwise, "an integer");
        constexpr std::int64_t limit = std::numeric_limits<int>::max();
        if (!value->is_number_integer() || (value->is_number_unsigned() && value->get<std::uint64_t>() > limit) ||
            value->get<std::int64_t>() < -limit)
            return wrong(key, *value, "an integer of 32 bits"), 0;
        return static_cast<int>(value->get<std::int64_t>());
    }
    double number(const char* key, std::optional<double> otherwise = std::nullopt) {
        const json* value = find(key);
        if (value == nullptr) return missing(key, otherwise, "a number");
        if (!value->is_number()) return wrong(key, *value, "a number"), 0.0;
        return value->get<double>();
    }
    bool boolean(const char* key, bool otherwise) {
        const json* value = find(key);
        if (value == nullptr) return otherwise;
        if (!value->is_boolean()) return wrong(key, *value, "true or false"), false;
        return value->get<bool>();
    }
    std::string text(const char* key, const std::optional<std::string>& otherwise = std::nullopt) {
        const json* value = find(key);
        if (value == nullptr) return missing(key, otherwise, "a string");
        if (!value->is_string()) return wrong(key, *value, "a string"), std::string();
        return value->get<std::string>();
    }
    /// A setting this library supports with one value only.
    void only(const char* key, const json& supported) {
        const json* value = find(key);
        if (value != nullptr && *value != supported) wrong(key, *value, "only " + print(supported));
    }
    void wrong(const std::string& key, const json& value, const std::string& expectation) {
        refuse(key + " is " + print(value) + ", expected " + expectation);
    }
    void refuse(const std::string& why) {
        if (!failure_) failure_ = failure{errc::malformed, where_ + ": " + why};
    }
    [[nodiscard]] const std::optional<failure>& failed() const noexcept { return failure_; }

 private:
    [[nodiscard]] static std::string print(const json& value) {
        std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
        if (text.size() > 60) text = text.substr(0, 57) + "...";
        return text;
    }
    template <class T>
    T missing(const char* key, const std::optional<T>& otherwise, const char* expectation) {
        if (otherwise) return *otherwise;
        refuse(std::string(key) + " is missing, expected " + expectation);
        return T{};
    }

    const json& object_;
    std::string where_;
    std::optional<failure> failure_;
};

/// From rope_parameters, or rope_theta and rope_scaling of older files.
inline void read_rope(config_reader& in, nn::transformer_config& c, const std::string& where) {
    const json* parameters = in.find("rope_parameters");
    const json* scaling = parameters != nullptr ? parameters : in.find("rope_scaling");
    if (parameters == nullptr) c.rope_theta = in.number("rope_theta", 10000.0);
    if (scaling == nullptr) return;
    const char* key = parameters != nullptr ? "rope_parameters" : "rope_scaling";
    if (!scaling->is_object()) return in.wrong(key, *scaling, "an object");
    config_reader rope(*scaling, where + ": " + key);
    if (parameters != nullptr) c.rope_theta = rope.number("rope_theta", in.number("rope_theta", 10000.0));
    rope.only("partial_rotary_factor", 1.0);
    const std::string type = rope.text("rope_type", rope.text("type", "default"));
    if (type == "llama3") {
        c.rope_scaling.enabled = true;
        c.rope_scaling.factor = rope.number("factor");
        c.rope_scaling.low_freq_factor = rope.number("low_freq_factor");
        c.rope_scaling.high_freq_factor = rope.number("high_freq_factor");
        c.rope_scaling.original_max_position_embeddings = rope.integer("original_max_position_embeddings");
    } else if (type != "default") {
        rope.wrong("rope_type", type, "\"default\" or \"llama3\"");
    }
    if (rope.failed()) in.refuse(rope.failed()->message.substr(where.size() + 2));
}

inline void read_gpt2(config_reader& in, nn::transformer_config& c) {
    c.family = nn::model_family::gpt2;
    c.norm = nn::norm_kind::layer;
    c.position = nn::position_kind::learned;
    c.attention_bias = c.mlp_bias = true;
    c.vocab_size = in.integer("vocab_size");
    c.hidden_size = in.integer("n_embd");
    c.num_hidden_layers = in.integer("n_layer");
    c.num_attention_heads = c.num_key_value_heads = in.integer("n_head");
    c.max_position_embeddings = in.integer("n_positions");
    if (in.failed()) return;
    if (c.hidden_size > std::numeric_limits<int>::max() / 4 || c.hidden_size < 1 || c.num_attention_heads < 1 ||
        c.hidden_size % c.num_attention_heads != 0)
        return in.refuse("n_embd is " + std::to_string(c.hidden_size) + ", expected a multiple of n_head, " +
                         std::to_string(c.num_attention_heads));
    c.intermediate_size = in.integer("n_inner", 4 * c.hidden_size);
    c.head_dim = c.hidden_size / c.num_attention_heads;
    c.norm_eps = static_cast<float>(in.number("layer_norm_epsilon", 1e-5));
    c.tie_word_embeddings = in.boolean("tie_word_embeddings", true);
    const std::string activation = in.text("activation_function", "gelu_new");
    if (activation == "gelu")
        c.mlp = nn::mlp_kind::gelu;
    else if (activation == "gelu_new" || activation == "gelu_pytorch_tanh")
        c.mlp = nn::mlp_kind::gelu_tanh;
    else
        in.wrong("activation_function", activation, "\"gelu_new\", \"gelu_pytorch_tanh\" or \"gelu\"");
    in.only("scale_attn_weights", true);
    in.only("scale_attn_by_inverse_layer_idx", false);
    in.only("add_cross_attention", false);
}

inline void read_llama_like(config_reader& in, nn::transformer_config& c, const std::string& where) {
    c.vocab_size = in.integer("vocab_size");
    c.hidden_size = in.integer("hidden_size");
    c.intermediate_size = in.integer("intermediate_size");
    c.num_hidden_layers = in.integer("num_hidden_layers");
    c.num_attention_heads = in.integer("num_attention_heads");
    c.num_key_value_heads = in.integer("num_key_value_heads", c.num_attention_heads);
    c.max_position_embeddings = in.integer("max_position_embeddings");
    if (in.find("head_dim") != nullptr) {
        c.head_dim = in.integer("head_dim");
    } else if (c.family == nn::model_family::qwen3) {
        c.head_dim = 128;  // Qwen3Config's default
    } else if (!in.failed()) {
        if (c.num_attention_heads < 1 || c.hidden_size % c.num_attention_heads != 0)
            return in.refuse("hidden_size is " + std::to_string(c.hidden_size) +
                             ", expected a multiple of num_attention_heads, " + std::to_string(c.num_attention_heads));
        c.head_dim = c.hidden_size / c.num_attention_heads;
    }
    c.norm_eps = static_cast<float>(in.number("rms_norm_eps", c.family == nn::model_family::olmo2 ? 1e-5 : 1e-6));
    c.tie_word_embeddings = in.boolean("tie_word_embeddings", false);
    c.attention_bias = in.boolean("attention_bias", false);
    if (c.family == nn::model_family::llama) c.mlp_bias = in.boolean("mlp_bias", false);
    c.pad_token_id = in.integer("pad_token_id", -1);
    if (in.find("pad_token_id") != nullptr && c.pad_token_id < 0) c.pad_token_id += c.vocab_size;  // as torch counts
    in.only("hidden_act", "silu");
    in.only("use_sliding_window", false);
    if (const json* types = in.find("layer_types"); types != nullptr && types->is_array())
        for (const json& type : *types)
            if (type != "full_attention") in.wrong("layer_types", type, "only \"full_attention\"");
    read_rope(in, c, where);
}

}  // namespace detail

/// Reads the text of a Hugging Face config.json of a Llama, Qwen3, OLMo 2 or GPT-2 model. Anything that would make
/// another model than the file describes is a failure that names key, value and expectation; `where` begins it.
[[nodiscard]] inline result<nn::transformer_config> parse_config(std::string_view text,
                                                                 const std::string& where = "config.json") {
    const result<detail::json> object = detail::parse_object(text, 32, where);
    if (!object) return object.error();
    detail::config_reader in(*object, where);
    nn::transformer_config c;
    const std::string type = in.text("model_type");
    c.initializer_range = static_cast<float>(in.number("initializer_range", 0.02));
    if (type == "gpt2") {
        detail::read_gpt2(in, c);
    } else if (type == "llama" || type == "qwen3" || type == "olmo2") {
        if (type == "qwen3") {
            c.family = nn::model_family::qwen3;
            c.qk_norm = nn::qk_norm_kind::per_head;
        } else if (type == "olmo2") {
            c.family = nn::model_family::olmo2;
            c.qk_norm = nn::qk_norm_kind::full;
            c.placement = nn::norm_placement::post;
        }
        detail::read_llama_like(in, c, where);
    } else {
        in.wrong("model_type", type, "\"llama\", \"qwen3\", \"olmo2\" or \"gpt2\"");
    }
    if (in.failed()) return *in.failed();
    try {
        nn::check(c);
    } catch (const value_error& e) {
        return failure{errc::out_of_range, where + ": " + e.what()};
    }
    return c;
}

/// Reads a config.json, or the one in a folder. Throws io_error when there is no such file.
[[nodiscard]] inline result<nn::transformer_config> load_config(std::filesystem::path path) {
    if (detail::is_folder(path)) path /= "config.json";
    const std::vector<std::byte> bytes = detail::read_whole(path);
    return parse_config({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, "'" + path.string() + "'");
}

namespace detail {

inline void require_expressible(bool holds, const char* family, const char* what) {
    if (!holds)
        throw value_error(std::string("save_config: ") + what + ", expected what model_type \"" + family +
                          "\" can express");
}

[[nodiscard]] inline json gpt2_config(const nn::transformer_config& c) {
    return {{"model_type", "gpt2"},
            {"architectures", {"GPT2LMHeadModel"}},
            {"vocab_size", c.vocab_size},
            {"n_embd", c.hidden_size},
            {"n_layer", c.num_hidden_layers},
            {"n_head", c.num_attention_heads},
            {"n_positions", c.max_position_embeddings},
            {"n_inner", c.intermediate_size},
            {"layer_norm_epsilon", c.norm_eps},
            {"activation_function", c.mlp == nn::mlp_kind::gelu ? "gelu" : "gelu_new"},
            {"resid_pdrop", 0.0},
            {"embd_pdrop", 0.0},
            {"attn_pdrop", 0.0}};
}

[[nodiscard]] inline json llama_like_config(const nn::transformer_config& c) {
    const bool qwen3 = c.family == nn::model_family::qwen3;
    const bool olmo2 = c.family == nn::model_family::olmo2;
    const char* family = qwen3 ? "qwen3" : olmo2 ? "olmo2" : "llama";
    const auto qk_norm = qwen3 ? nn::qk_norm_kind::per_head : olmo2 ? nn::qk_norm_kind::full : nn::qk_norm_kind::none;
    require_expressible(c.norm == nn::norm_kind::rms, family, "LayerNorm");
    require_expressible(c.mlp == nn::mlp_kind::gated_silu, family, "an MLP without gate");
    require_expressible(c.qk_norm == qk_norm, family, "another qk_norm");
    require_expressible((c.placement == nn::norm_placement::post) == olmo2, family, "another norm placement");
    require_expressible(!c.mlp_bias || family == std::string_view("llama"), family, "mlp_bias");
    require_expressible(!olmo2 || c.hidden_size == c.num_attention_heads * c.head_dim, family, "head_dim");
    json rope = {{"rope_type", "default"}};
    if (const nn::rope_scaling& s = c.rope_scaling; s.enabled)
        rope = {{"rope_type", "llama3"},
                {"factor", s.factor},
                {"low_freq_factor", s.low_freq_factor},
                {"high_freq_factor", s.high_freq_factor},
                {"original_max_position_embeddings", s.original_max_position_embeddings}};
    json out = {{"model_type", family},
                {"architectures",
                 {qwen3   ? "Qwen3ForCausalLM"
                  : olmo2 ? "Olmo2ForCausalLM"
                          : "LlamaForCausalLM"}},
                {"vocab_size", c.vocab_size},
                {"hidden_size", c.hidden_size},
                {"intermediate_size", c.intermediate_size},
                {"num_hidden_layers", c.num_hidden_layers},
                {"num_attention_heads", c.num_attention_heads},
                {"num_key_value_heads", c.num_key_value_heads},
                {"max_position_embeddings", c.max_position_embeddings},
                {"rms_norm_eps", c.norm_eps},
                {"hidden_act", "silu"},
                {"attention_bias", c.attention_bias},
                {"attention_dropout", 0.0}};
    // The older pair of keys as well, for readers before transformers 5.
    out["rope_theta"] = c.rope_theta;
    out["rope_scaling"] = c.rope_scaling.enabled ? rope : json();
    rope["rope_theta"] = c.rope_theta;
    out["rope_parameters"] = rope;
    if (!olmo2) out["head_dim"] = c.head_dim;
    if (!qwen3 && !olmo2) out["mlp_bias"] = c.mlp_bias;
    return out;
}

}  // namespace detail

/// The text of a config.json that Hugging Face's transformers reads. Throws value_error for a configuration that
/// makes no sense or that no known model_type expresses.
[[nodiscard]] inline std::string format_config(const nn::transformer_config& c) {
    nn::check(c);
    detail::json out = c.family == nn::model_family::gpt2 ? detail::gpt2_config(c) : detail::llama_like_config(c);
    out["tie_word_embeddings"] = c.tie_word_embeddings;
    out["initializer_range"] = c.initializer_range;
    out["dtype"] = "float32";
    out["torch_dtype"] = "float32";
    for (const char* token : {"bos_token_id", "eos_token_id", "pad_token_id"}) out[token] = nullptr;
    if (c.pad_token_id >= 0) out["pad_token_id"] = c.pad_token_id;
    return out.dump(2) + "\n";
}

/// Writes config.json; the file appears whole or not at all. Throws io_error, and as format_config.
inline void save_config(const nn::transformer_config& c, const std::filesystem::path& path) {
    const std::string text = format_config(c);
    const std::span<const std::byte> piece = std::as_bytes(std::span(text.data(), text.size()));
    detail::replace_file(path, std::span(&piece, 1));
}

}  // namespace thinwire::hf

#endif  // THINWIRE_HF_CONFIG_HPP
