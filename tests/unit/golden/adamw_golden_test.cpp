#include <thinwire/hf/safetensors.hpp>
#include <thinwire/optim/adamw.hpp>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

using namespace thinwire;

TEST_CASE("golden: torch.optim.AdamW") {
    const char* folder = std::getenv("THINWIRE_GOLDEN");
    const auto path =
        std::filesystem::path(folder != nullptr ? folder : THINWIRE_GOLDEN_DEFAULT) / "nn" / "adamw.safetensors";
    const auto file = hf::safetensors_file::load(path).value();
    const auto number = [&](const char* key) { return std::stod(file.metadata().find(key)->second); };
    std::string betas = file.metadata().find("betas")->second;
    std::replace(betas.begin(), betas.end(), '(', '[');
    std::replace(betas.begin(), betas.end(), ')', ']');
    const auto beta = nlohmann::json::parse(betas).get<std::vector<double>>();

    std::vector<std::vector<float>> values, gradients;
    std::vector<shape> shapes;
    for (std::size_t i = 0; file.find(std::string("x.").append(std::to_string(i)).append(".0")) != nullptr; ++i) {
        const std::string name = std::string("x.").append(std::to_string(i)).append(".0");
        values.push_back(file.floats(name).value());
        gradients.emplace_back(values.back().size());
        shapes.emplace_back(file.find(name)->sides);
    }
    REQUIRE(!values.empty());
    std::vector<parameter> parameters;
    for (std::size_t i = 0; i < values.size(); ++i)
        parameters.push_back(
            {.name = std::to_string(i), .shape = shapes[i], .values = values[i], .gradient = gradients[i]});
    adamw optimizer(parameters, {.learning_rate = static_cast<float>(number("lr")),
                                 .beta1 = beta.at(0),
                                 .beta2 = beta.at(1),
                                 .epsilon = number("eps"),
                                 .weight_decay = static_cast<float>(number("weight_decay"))});
    std::size_t steps = 0;
    for (std::size_t t = 1; file.find("x.0." + std::to_string(t)) != nullptr; ++t, ++steps) {
        const auto key = [&](const char* what, std::size_t i) {
            return std::string(what) + "." + std::to_string(i) + "." + std::to_string(t);
        };
        for (std::size_t i = 0; i < values.size(); ++i)
            std::ranges::copy(file.floats(key("grad", i)).value(), gradients[i].begin());
        const std::vector<contribution> own = {{.peer = 7, .payload = optimizer.begin_step(7)}};
        const commit agreed = {.round = t - 1, .contributions = own};
        CHECK(optimizer.end_step({&agreed, 1}).own_included);
        for (std::size_t i = 0; i < values.size(); ++i) {
            const auto expected = file.floats(key("x", i)).value();
            float worst = 0.0F;
            for (std::size_t e = 0; e < expected.size(); ++e)
                worst = std::max(worst, std::abs(values[i][e] - expected[e]));
            INFO("tensor ", i, " step ", t);
            CHECK(worst <= 1e-6F);
        }
    }
    CHECK(steps > 0);
}
