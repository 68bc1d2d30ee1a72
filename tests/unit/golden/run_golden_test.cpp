#include <thinwire/backend/cpu/fast.hpp>
#include <thinwire/comm/transport.hpp>
#include <thinwire/hf/model.hpp>
#include <thinwire/nn/transformer.hpp>
#include <thinwire/optim/adamw.hpp>
#include <thinwire/optim/demo.hpp>

#include <doctest/doctest.h>
#include <support/golden.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

using namespace thinwire;

namespace {

/// The whole run of the reference data: who trained on what in which step.
struct recorded_training {
    std::filesystem::path folder = test::golden_folder() / "run";
    hf::safetensors_file file = hf::safetensors_file::load(folder / "run.safetensors").value();
    std::vector<std::int64_t> tokens = file.integers("tokens").value();
    std::size_t steps = side(0), workers = side(1), rows = side(2), length = side(3) - 1;

    [[nodiscard]] std::size_t side(std::size_t i) const {
        return static_cast<std::size_t>(file.find("tokens")->sides.at(i));
    }
    /// One worker's windows of a step, beginning at token `shift` of each.
    [[nodiscard]] std::vector<std::int32_t> windows(std::size_t step, std::size_t worker, std::size_t shift) const {
        std::vector<std::int32_t> out;
        for (std::size_t r = 0; r < rows; ++r) {
            const std::size_t begin = ((step * workers + worker) * rows + r) * (length + 1) + shift;
            for (std::size_t t = 0; t < length; ++t) out.push_back(static_cast<std::int32_t>(tokens[begin + t]));
        }
        return out;
    }
};

/// One peer: a replica and its optimizer.
template <class Optimizer, class Options>
struct worker {
    nn::transformer<cpu::fast> model;
    std::unique_ptr<Optimizer> optimizer;

    worker(cpu::fast& backend, const recorded_training& run, const Options& options)
        : model(backend, hf::load_config(run.folder).value()) {
        (void)hf::load_weights(run.folder, model.parameters()).value();
        optimizer = std::make_unique<Optimizer>(model.parameters(), options);
    }
};

/// Repeats the run; losses [step, worker] within 2e-3 for the first 10 steps and 3e-2 after, the tolerances of the
/// reference data's README, and all replicas equal in every step.
template <class Optimizer, class Options>
void check_run(const Options& options, const std::string& losses) {
    const recorded_training run;
    const std::vector<float> expected = run.file.floats(losses).value();
    REQUIRE(expected.size() == run.steps * run.workers);
    thread_pool pool(2);
    cpu::fast backend(pool);
    std::vector<std::unique_ptr<worker<Optimizer, Options>>> workers;
    for (std::size_t w = 0; w < run.workers; ++w)
        workers.push_back(std::make_unique<worker<Optimizer, Options>>(backend, run, options));
    for (std::size_t step = 0; step < run.steps; ++step) {
        CAPTURE(step);
        std::vector<contribution> payloads;
        for (std::size_t w = 0; w < run.workers; ++w) {
            CAPTURE(w);
            worker<Optimizer, Options>& self = *workers[w];
            self.model.zero_gradient();
            const float loss = self.model.loss_and_gradient(run.windows(step, w, 0), run.windows(step, w, 1),
                                                            static_cast<int>(run.rows), static_cast<int>(run.length));
            CHECK(std::abs(loss - expected[step * run.workers + w]) < (step < 10 ? 2e-3F : 3e-2F));
            payloads.push_back({.peer = w, .payload = self.optimizer->begin_step(w)});
        }
        const commit agreed{.round = step, .contributions = payloads};
        for (const auto& self : workers) {
            const step_report report = self->optimizer->end_step(std::span(&agreed, 1));
            CHECK(report.contributors == static_cast<int>(run.workers));
            CHECK(report.agreeing == static_cast<int>(run.workers));
            CHECK(report.own_included);
        }
    }
    for (const auto& self : workers)
        CHECK(to_string(self->optimizer->replica_digest()) == to_string(workers.front()->optimizer->replica_digest()));
}

}  // namespace

TEST_CASE("golden run: the published optimizer, four workers, model and optimizer together") {
    check_run<demo>(reference_compatible(1e-3F, 0.999F, 8), "loss");
}

TEST_CASE("golden run: AdamW on averaged gradients") {
    check_run<adamw>(adamw_options{.learning_rate = 3e-3F, .beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8}, "adamw_loss");
}
