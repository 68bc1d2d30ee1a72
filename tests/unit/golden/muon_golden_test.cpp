#include <thinwire/hf/safetensors.hpp>
#include <thinwire/optim/muon.hpp>

#include <doctest/doctest.h>
#include <support/golden.hpp>

#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

using namespace thinwire;

TEST_CASE("golden: torch.optim.Muon, whose iteration runs in bfloat16") {
    const auto file = hf::safetensors_file::load(test::golden_folder() / "nn" / "muon.safetensors").value();
    const auto meta = [&](const char* key) { return std::stof(file.metadata().find(key)->second); };
    const float rate = meta("lr"), decay = meta("weight_decay"), beta = meta("momentum");
    REQUIRE(meta("ns_steps") == 5.0F);
    const muon rule;
    for (const std::string tensor : {"0", "1"}) {
        std::vector<float> x = file.floats("x." + tensor + ".0").value(), momentum(x.size());
        const auto& sides = file.find("x." + tensor + ".0")->sides;
        const auto rows = static_cast<std::size_t>(sides[0]), cols = static_cast<std::size_t>(sides[1]);
        const float adjusted = rate * std::sqrt(std::max(1.0F, static_cast<float>(rows) / static_cast<float>(cols)));
        update_workspace work{.level = best_isa(), .memory = aligned_vector<float>(rule.workspace(rows, cols))};
        for (int t = 1; t <= 3; ++t) {
            const std::string step = tensor + "." + std::to_string(t);
            const std::vector<float> gradient = file.floats("grad." + step).value();
            const std::vector<float> expected = file.floats("x." + step).value();
            for (std::size_t e = 0; e < x.size(); ++e) momentum[e] += (1.0F - beta) * (gradient[e] - momentum[e]);
            std::vector<float> d = momentum;
            rule.direct_matrix(d, rows, cols, work);
            double difference = 0.0, length = 0.0;
            for (std::size_t e = 0; e < x.size(); ++e) {
                x[e] = (1.0F - rate * decay) * x[e] - adjusted * d[e];
                difference += std::pow(static_cast<double>(x[e] - expected[e]), 2.0);
                length += std::pow(static_cast<double>(adjusted * d[e]), 2.0);
                CHECK(std::abs(x[e] - expected[e]) < 1e-3F);
            }
            x = expected;
            CAPTURE(step);
            CHECK(std::sqrt(difference / length) < 2e-2);  // of the length of one step
        }
    }
}
