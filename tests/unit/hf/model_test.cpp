#include <thinwire/backend/cpu/reference.hpp>
#include <thinwire/hf/model.hpp>
#include <thinwire/nn/transformer.hpp>

#include <doctest/doctest.h>
#include <support/models.hpp>
#include <support/temporary_folder.hpp>

#include <algorithm>
#include <fstream>
#include <string>
#include <vector>

using namespace thinwire;

namespace {

using model = nn::transformer<cpu::reference>;

std::vector<hf::tensor_source> sources(const model& m) {
    std::vector<hf::tensor_source> tensors;
    for (const parameter& p : m.parameters()) tensors.push_back({p.name, p.shape, p.values});
    return tensors;
}

bool equal(const model& a, const model& b) {
    for (std::size_t i = 0; i < a.parameters().size(); ++i)
        if (!std::equal(a.parameters()[i].values.begin(), a.parameters()[i].values.end(),
                        b.parameters()[i].values.begin()))
            return false;
    return true;
}

}  // namespace

TEST_CASE("model: a saved folder loads into an equal model") {
    for (const test::small_model& small : test::small_models()) {
        CAPTURE(small.name);
        const nn::transformer_config& config = small.config;
        const test::temporary_folder folder;
        cpu::reference backend;
        model saved(backend, config);
        saved.initialize(1);
        hf::save_model(folder.path() / "new" / "folder", config, saved.parameters());
        model loaded(backend, hf::load_config(folder.path() / "new" / "folder").value());
        (void)hf::load_weights(folder.path() / "new" / "folder", loaded.parameters()).value();
        CHECK(equal(saved, loaded));
    }
}

TEST_CASE("model: names with or without prefix, surplus tensors, several files") {
    const test::temporary_folder folder;
    cpu::reference backend;
    for (const std::size_t which : {std::size_t{0}, std::size_t{4}}) {
        const auto config = test::small_models()[which].config;
        model saved(backend, config), loaded(backend, config);
        saved.initialize(1);
        auto tensors = sources(saved);
        for (auto& t : tensors) t.name = hf::detail::bare_name(t.name);
        const std::vector<float> mask(9);
        tensors.push_back({"h.0.attn.bias", {9}, mask});
        hf::write_safetensors(folder.path() / "bare.safetensors", tensors);
        (void)hf::load_weights(folder.path() / "bare.safetensors", loaded.parameters()).value();
        CHECK(equal(saved, loaded));
    }
    const auto config = test::small_models().front().config;
    model saved(backend, config), loaded(backend, config);
    saved.initialize(2);
    const auto tensors = sources(saved);
    hf::write_safetensors(folder.path() / "model-1.safetensors", std::span(tensors).first(5));
    hf::write_safetensors(folder.path() / "model-2.safetensors", std::span(tensors).subspan(5));
    std::ofstream(folder.path() / "model.safetensors.index.json")
        << R"({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}})";
    (void)hf::load_weights(folder.path(), loaded.parameters()).value();
    CHECK(equal(saved, loaded));
    std::ofstream(folder.path() / "model.safetensors.index.json") << R"({"weight_map": {"a": "../x.safetensors"}})";
    CHECK_FALSE(hf::load_weights(folder.path(), loaded.parameters()));
}

TEST_CASE("model: a file that does not fit is refused in one line and changes nothing") {
    const test::temporary_folder folder;
    const auto path = folder.path() / "model.safetensors";
    cpu::reference backend;
    const auto config = test::small_models().front().config;
    model saved(backend, config), untouched(backend, config), target(backend, config);
    saved.initialize(1);
    untouched.initialize(2), target.initialize(2);
    const auto refused = [&](const std::vector<hf::tensor_source>& tensors, const std::string& part) {
        hf::write_safetensors(path, tensors);
        const auto loaded = hf::load_weights(folder.path(), target.parameters());
        REQUIRE_FALSE(loaded);
        CAPTURE(loaded.error().message);
        CHECK(loaded.error().message.find(part) != std::string::npos);
        CHECK(loaded.error().message.find('\n') == std::string::npos);
        CHECK(equal(target, untouched));
    };
    const auto whole = sources(saved);
    auto tensors = whole;
    tensors.pop_back();
    refused(tensors, "tensor 'lm_head.weight' is missing");
    tensors = whole;
    const std::vector<float> extra(2);
    tensors.push_back({"model.layers.9.q.weight", {2}, extra});
    refused(tensors, "unexpected tensor 'model.layers.9.q.weight'");
    tensors = whole;
    tensors[0].shape = {12, 23};
    refused(tensors, "tensor 'model.embed_tokens.weight' has shape [12, 23], expected [23, 12]");
    tensors = whole;
    tensors.push_back({"embed_tokens.weight", tensors[0].shape, tensors[0].values});
    refused(tensors, "appears twice");
    std::ofstream(path) << "not a safetensors file";
    CHECK_FALSE(hf::load_weights(path, target.parameters()));
    CHECK(equal(target, untouched));
    CHECK_THROWS_AS((void)hf::load_weights(folder.path() / "none", target.parameters()), io_error);
}
