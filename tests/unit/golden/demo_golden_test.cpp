#include <thinwire/codec/payload.hpp>
#include <thinwire/hf/safetensors.hpp>
#include <thinwire/optim/demo.hpp>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

using namespace thinwire;

namespace {

std::vector<std::filesystem::path> demo_cases() {
    const char* folder = std::getenv("THINWIRE_GOLDEN");
    std::vector<std::filesystem::path> files;
    const auto root = std::filesystem::path(folder != nullptr ? folder : THINWIRE_GOLDEN_DEFAULT) / "demo";
    if (std::filesystem::is_directory(root))
        for (const auto& entry : std::filesystem::directory_iterator(root))
            if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    return files;
}

/// One case of tools/golden_demo.py.
struct recorded_run {
    hf::safetensors_file file;
    std::vector<shape> shapes;
    std::size_t workers = 0, steps = 0;
    demo_options options;

    explicit recorded_run(const std::filesystem::path& path) : file(hf::safetensors_file::load(path).value()) {
        const auto meta = [&](const char* key) { return nlohmann::json::parse(file.metadata().find(key)->second); };
        for (const auto& sides : meta("shapes")) shapes.emplace_back(sides.get<std::vector<std::int64_t>>());
        workers = meta("R").get<std::size_t>();
        steps = meta("steps").get<std::size_t>();
        const int chunk = meta("chunk").get<int>();
        options = reference_compatible(meta("lr").get<float>(), meta("decay").get<float>(),
                                       std::min(meta("k").get<int>(), chunk * chunk), chunk, meta("wd").get<float>());
    }
    [[nodiscard]] std::vector<float> floats(const std::string& name) const { return file.floats(name).value(); }
};

std::string key(const char* what, std::size_t i, std::size_t t) {
    return std::string(what) + "." + std::to_string(i) + "." + std::to_string(t);
}
std::string key(const char* what, std::size_t i, std::size_t t, std::size_t r) {
    return key(what, i, t) + "." + std::to_string(r);
}

float largest(const std::vector<float>& values) {
    float top = 0.0F;
    for (const float v : values) top = std::max(top, std::abs(v));
    return top;
}

/// All workers of a case, driven with the recorded gradients.
class replay {
 public:
    replay(const recorded_run& run, isa level) : run_(run), values_(run.workers), gradients_(run.workers) {
        for (std::size_t r = 0; r < run.workers; ++r) {
            std::vector<parameter> parameters;
            values_[r].resize(run.shapes.size());
            gradients_[r].resize(run.shapes.size());
            for (std::size_t i = 0; i < run.shapes.size(); ++i) {
                values_[r][i] = run.floats(key("x", i, 0));
                gradients_[r][i].resize(values_[r][i].size());
                parameters.push_back({.name = std::to_string(i),
                                      .shape = run.shapes[i],
                                      .values = values_[r][i],
                                      .gradient = gradients_[r][i]});
            }
            demo_options options = run.options;
            options.level = level;
            peers_.push_back(std::make_unique<demo>(parameters, options));
        }
    }

    void step(std::size_t t) {
        std::vector<contribution> contributions;
        for (std::size_t r = 0; r < run_.workers; ++r) {
            for (std::size_t i = 0; i < run_.shapes.size(); ++i)
                std::ranges::copy(run_.floats(key("grad", i, t, r)), gradients_[r][i].begin());
            before_.clear();
            for (std::size_t i = 0; i < run_.shapes.size(); ++i)
                before_.emplace_back(peers_[r]->momentum(i).begin(), peers_[r]->momentum(i).end());
            contributions.push_back({.peer = r, .payload = peers_[r]->begin_step(r)});
            check_payload(t, r, contributions.back().payload);
        }
        const commit agreed = {.round = t - 1, .contributions = contributions};
        for (const auto& peer : peers_) {
            const step_report report = peer->end_step({&agreed, 1});
            CHECK(report.contributors == static_cast<int>(run_.workers));
            CHECK(report.agreeing == static_cast<int>(run_.workers));
            CHECK(report.own_included);
            CHECK(peer->replica_digest() == peers_[0]->replica_digest());
        }
        for (std::size_t i = 0; i < run_.shapes.size(); ++i) check_weights(t, i);
    }

    void check_momentum() const {
        for (std::size_t r = 0; r < run_.workers; ++r) {
            for (std::size_t i = 0; i < run_.shapes.size(); ++i) {
                const std::vector<float> expected = run_.floats(key("momentum", i, run_.steps, r));
                const chunk_grid grid(run_.shapes[i], static_cast<std::size_t>(run_.options.chunk));
                const float tolerance = std::max(1e-5F * largest(expected), 1e-8F);
                std::size_t wrong = 0;
                for (std::size_t chunk = 0; chunk < grid.count(); ++chunk) {
                    if (near_ties_.contains({r, i, chunk})) continue;
                    for (std::size_t e = 0; e < grid.chunk_size(); ++e) {
                        const std::size_t at = grid.offset(chunk) + e / grid.cols() * grid.stride() + e % grid.cols();
                        wrong += !(std::abs(peers_[r]->momentum(i)[at] - expected[at]) <= tolerance);
                    }
                }
                INFO("parameter ", i, " worker ", r);
                CHECK(wrong == 0);
            }
        }
    }

 private:
    void check_payload(std::size_t t, std::size_t r, std::span<const std::byte> payload) {
        sparse_content sent;
        const auto info =
            payload_decoder(peers_[r]->layout()).decode(payload, {.run = {}, .round = t - 1, .peer = r}, sent);
        REQUIRE(info.has_value());
        std::size_t place = 0;
        for (std::size_t i = 0; i < run_.shapes.size(); ++i) {
            const payload_section& section = peers_[r]->layout().sections[i];
            const auto index = run_.file.integers(key("index", i, t, r)).value();
            const std::vector<float> value = run_.floats(key("value", i, t, r));
            REQUIRE(index.size() == section.coefficients());
            const float tolerance = std::max(1e-5F * largest(value), 1e-8F);
            for (std::size_t chunk = 0; chunk < section.chunks; ++chunk, place += section.kept) {
                std::map<std::int64_t, float> ours, theirs;
                for (std::size_t n = 0; n < section.kept; ++n) {
                    ours[sent.positions[place + n]] = sent.values[place + n];
                    theirs[index[chunk * section.kept + n]] = value[chunk * section.kept + n];
                }
                REQUIRE(theirs.size() == section.kept);
                INFO("parameter ", i, " step ", t, " worker ", r, " chunk ", chunk);
                compare(ours, theirs, tolerance, {r, i, chunk});
            }
        }
    }

    struct chunk_key {
        std::size_t worker, parameter, chunk;
        auto operator<=>(const chunk_key&) const = default;
    };

    /// The coefficient that a worker has at a position of a chunk, by the definition.
    double coefficient(const chunk_key& where, std::int64_t position) const {
        const chunk_grid grid(run_.shapes[where.parameter], static_cast<std::size_t>(run_.options.chunk));
        const auto h = static_cast<std::int64_t>(grid.rows()), w = static_cast<std::int64_t>(grid.cols());
        double sum = 0.0;
        for (std::int64_t y = 0; y < h; ++y)
            for (std::int64_t x = 0; x < w; ++x) {
                const std::size_t at = grid.offset(where.chunk) + static_cast<std::size_t>(y) * grid.stride() +
                                       static_cast<std::size_t>(x);
                const double momentum = static_cast<double>(run_.options.momentum_decay) *
                                            static_cast<double>(before_[where.parameter][at]) +
                                        static_cast<double>(run_.options.learning_rate) *
                                            static_cast<double>(gradients_[where.worker][where.parameter][at]);
                sum += momentum * static_cast<double>(dct_entry(h, position / w, y)) *
                       static_cast<double>(dct_entry(w, position % w, x)) * 0x1p-44;
            }
        return sum;
    }
    /// Positions that only one side chose must be near ties with the smallest that both could have chosen.
    void compare(const std::map<std::int64_t, float>& ours, const std::map<std::int64_t, float>& theirs,
                 float tolerance, const chunk_key& where) {
        if (near_ties_.contains(where)) return;
        std::vector<float> contested;
        for (const auto& [position, value] : ours) {
            const auto match = theirs.find(position);
            if (match == theirs.end())
                contested.push_back(std::abs(value));
            else
                CHECK(std::abs(match->second - value) <= tolerance);
        }
        for (const auto& [position, value] : theirs) {
            if (ours.contains(position)) continue;
            contested.push_back(std::abs(value));
            CHECK(std::abs(coefficient(where, position) - static_cast<double>(value)) <= tolerance);
        }
        if (contested.empty()) return;
        const auto [low, high] = std::minmax_element(contested.begin(), contested.end());
        CHECK(*high - *low <= 1e-6F * *high);
        near_ties_.insert(where);  // the two trajectories part here, by right
    }

    /// Then goes on from the recorded weights, so that an update near zero counts once and not for ever.
    void check_weights(std::size_t t, std::size_t i) {
        const std::vector<float> expected = run_.floats(key("x", i, t));
        const std::vector<float> update = run_.floats(key("update", i, t));
        const float rate = run_.options.learning_rate;
        const chunk_grid grid(run_.shapes[i], static_cast<std::size_t>(run_.options.chunk));
        std::set<std::size_t> skipped;
        for (const chunk_key& tie : near_ties_)
            if (tie.parameter == i) skipped.insert(tie.chunk);
        std::size_t wrong = 0;
        for (std::size_t chunk = 0; chunk < grid.count(); ++chunk) {
            if (skipped.contains(chunk)) continue;
            for (std::size_t e = 0; e < grid.chunk_size(); ++e) {
                const std::size_t at = grid.offset(chunk) + e / grid.cols() * grid.stride() + e % grid.cols();
                const float allowed = std::abs(update[at]) > 1e-6F ? 1e-6F : 2.0F * rate + 1e-6F;
                wrong += !(std::abs(values_[0][i][at] - expected[at]) <= allowed);
            }
        }
        INFO("parameter ", i, " step ", t);
        CHECK(wrong == 0);
        for (auto& replica : values_) std::copy(expected.begin(), expected.end(), replica[i].begin());
    }

    const recorded_run& run_;
    std::vector<std::vector<std::vector<float>>> values_, gradients_;
    std::vector<std::unique_ptr<demo>> peers_;
    std::vector<std::vector<float>> before_;  ///< momentum of the worker at hand before its step
    std::set<chunk_key> near_ties_;
};

}  // namespace

TEST_CASE("golden: the published DeMo, every recorded case") {
    const auto files = demo_cases();
    REQUIRE_MESSAGE(!files.empty(), "no case in folder demo");
    for (const auto& path : files) {
        INFO(path.filename().string());
        const recorded_run run(path);
        for (const isa level : {isa::scalar, isa::avx2, isa::avx512}) {
            if (level > best_isa()) continue;
            INFO("isa ", to_string(level));
            replay workers(run, level);
            for (std::size_t t = 1; t <= run.steps; ++t) workers.step(t);
            workers.check_momentum();
        }
    }
}
