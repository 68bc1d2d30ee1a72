#include <thinwire/backend/cpu/fast.hpp>
#include <thinwire/backend/cpu/reference.hpp>
#include <thinwire/hf/model.hpp>
#include <thinwire/nn/sampling.hpp>
#include <thinwire/nn/transformer.hpp>

#include <doctest/doctest.h>
#include <support/backend_golden.hpp>
#include <support/golden.hpp>

#include <filesystem>
#include <string>
#include <vector>

using namespace thinwire;

namespace {

std::vector<std::filesystem::path> model_folders() {
    std::vector<std::filesystem::path> folders;
    for (const auto& entry : std::filesystem::directory_iterator(test::golden_folder() / "nn"))
        if (entry.is_directory()) folders.push_back(entry.path());
    REQUIRE_MESSAGE(!folders.empty(), "no model under " << test::golden_folder() / "nn");
    return folders;
}

std::vector<std::int32_t> ids(const hf::safetensors_file& file, const std::string& name) {
    const std::vector<std::int64_t> wide = file.integers(name).value();
    return {wide.begin(), wide.end()};
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
    REQUIRE(a.size() == b.size());
    double largest = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        REQUIRE(std::isfinite(a[i]));
        largest = std::max(largest, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
    }
    return largest;
}

/// Logits within 2e-5, loss within 1e-6, every gradient within 1e-4 of the tensor's largest entry, greedy tokens
/// equal: the tolerances of the reference data's README.
template <nn::backend B>
void check_model(B& backend, const std::filesystem::path& folder) {
    CAPTURE(folder);
    const auto golden = hf::safetensors_file::load(folder / "golden.safetensors").value();
    nn::transformer<B> model(backend, hf::load_config(folder).value());
    (void)hf::load_weights(folder, model.parameters()).value();
    const auto tokens = ids(golden, "input_ids");
    const auto labels = ids(golden, "labels");
    const int batch = static_cast<int>(golden.find("input_ids")->sides.at(0));
    const int length = static_cast<int>(golden.find("input_ids")->sides.at(1));

    const std::vector<float> expected_logits = golden.floats("logits").value();
    std::vector<float> logits(expected_logits.size());
    model.logits(tokens, batch, length, logits);
    CHECK(largest_difference(logits, expected_logits) < 2e-5);

    const double expected_loss = static_cast<double>(golden.floats("loss").value().at(0));
    CHECK(std::abs(static_cast<double>(model.loss(tokens, labels, batch, length)) - expected_loss) < 1e-6);
    model.zero_gradient();
    const float loss = model.loss_and_gradient(tokens, labels, batch, length);
    CHECK(std::abs(static_cast<double>(loss) - expected_loss) < 1e-6);
    std::size_t gradients = 0;
    for (const parameter& p : model.parameters()) {
        CAPTURE(p.name);
        const std::vector<float> found(p.gradient.begin(), p.gradient.end());
        CHECK(test::relative_difference(found, golden.floats("grad." + p.name).value(), 1e-12) < 1e-4);
        ++gradients;
    }
    for (const auto& [name, entry] : golden.tensors())
        if (name.starts_with("grad.")) --gradients;
    CHECK(gradients == 0);

    const auto greedy = ids(golden, "greedy");
    const std::size_t prompt = 5;
    const auto made = nn::generate(model, std::span(greedy).first(prompt), static_cast<int>(greedy.size() - prompt),
                                   {.temperature = 0.0F});
    CHECK(made == std::vector(greedy.begin() + prompt, greedy.end()));
}

}  // namespace

TEST_CASE("golden operations: reference back end") {
    cpu::reference backend;
    test::check_golden_operations(backend);
}

TEST_CASE("golden models: reference back end") {
    cpu::reference backend;
    for (const std::filesystem::path& folder : model_folders()) check_model(backend, folder);
}

TEST_CASE("golden models: fast back end at every instruction set") {
    for (const isa level : {isa::scalar, isa::avx2, isa::avx512}) {
        if (level > best_isa()) continue;
        CAPTURE(to_string(level));
        thread_pool pool(2);
        cpu::fast backend(pool, level);
        for (const std::filesystem::path& folder : model_folders()) check_model(backend, folder);
    }
}
