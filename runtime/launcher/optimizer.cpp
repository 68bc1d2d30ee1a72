#include <thinwire/optim/adamw.hpp>
#include <thinwire/optim/demo.hpp>
#include <thinwire/optim/muon.hpp>

#include "parameter_groups.hpp"
#include "replica.hpp"

namespace thinwire::launcher {
namespace {

template <class Optimizer>
class optimizer_of final : public any_optimizer {
 public:
    template <class Options>
    optimizer_of(std::span<const parameter> parameters, const Options& options, thread_pool& pool)
        : tensors_(parameters.size()), optimizer_(parameters, options, &pool) {}

    std::span<const std::byte> begin_step(peer_id self) override { return optimizer_.begin_step(self); }
    step_report end_step(std::span<const commit> commits) override { return optimizer_.end_step(commits); }
    step_report apply(const commit& one) override { return optimizer_.apply(one); }
    [[nodiscard]] std::uint64_t round() const override { return optimizer_.round(); }
    void set_round(std::uint64_t round) override { optimizer_.set_round(round); }
    void set_learning_rate(float rate) override { optimizer_.set_learning_rate(rate); }
    void set_tokens(std::uint32_t tokens) override { optimizer_.set_tokens(tokens); }
    void set_k([[maybe_unused]] int k) override {
        if constexpr (requires { optimizer_.set_k(k); }) optimizer_.set_k(k);
    }
    [[nodiscard]] digest replica_digest() const override { return optimizer_.replica_digest(); }
    [[nodiscard]] payload_layout layout() const override { return optimizer_.layout(); }
    [[nodiscard]] std::span<const std::byte> in_flight() const override { return optimizer_.in_flight(); }
    [[nodiscard]] std::optional<double> momentum_energy() override {
        if constexpr (requires { optimizer_.momentum(0); }) {
            double sum = 0;
            std::size_t count = 0;
            for (std::size_t i = 0; i < tensors_; ++i) {
                for (const float m : optimizer_.momentum(i)) sum += static_cast<double>(m) * static_cast<double>(m);
                count += optimizer_.momentum(i).size();
            }
            return count > 0 ? sum / static_cast<double>(count) : 0.0;
        } else {
            return std::nullopt;
        }
    }
    [[nodiscard]] std::vector<std::byte> save_private() const override { return optimizer_.save_private(); }
    result<ok> restore_private(std::span<const std::byte> bytes) override { return optimizer_.restore_private(bytes); }
    [[nodiscard]] std::vector<std::byte> save_replica() const override { return optimizer_.save_replica(); }
    result<ok> restore_replica(std::span<const std::byte> bytes) override { return optimizer_.restore_replica(bytes); }

 private:
    std::size_t tensors_;
    Optimizer optimizer_;
};

basis basis_of(std::string_view name, std::uint64_t seed) {
    if (name == "hadamard") return basis::hadamard();
    if (name == "identity") return basis::identity();
    if (name == "random_orthogonal") return basis::random_orthogonal(seed);
    if (name == "resampled_orthogonal") return basis::random_orthogonal(seed, true);
    return basis::dct();
}

mean_weights weights_of(std::string_view name) {
    return name == to_string(mean_weights::tokens) ? mean_weights::tokens : mean_weights::equal;
}

demo_options demo_options_of(const configuration& settings, const digest& run, std::span<const parameter> parameters) {
    const auto& o = settings.optimizer;
    demo_options options;
    options.learning_rate = static_cast<float>(o.peak_rate());
    options.momentum_decay = static_cast<float>(o.momentum_decay);
    options.k = static_cast<int>(o.k);
    options.chunk = static_cast<int>(o.chunk);
    options.alpha = static_cast<float>(o.alpha);
    options.gradient = o.gradient == "none"         ? gradient_scale::none
                       : o.gradient == "complement" ? gradient_scale::complement
                                                    : gradient_scale::learning_rate;
    options.basis = basis_of(o.basis, static_cast<std::uint64_t>(settings.run.seed));
    options.rule = rule_of(o.rule);
    options.groups = groups_of(o.groups, parameters, o.rule == "muon" ? muon_options{}.fallback : 0.0F);
    for (const value_code code : {value_code::sign, value_code::bf16, value_code::q4, value_code::q2})
        if (o.values == to_string(code)) options.values = code;
    options.error_feedback = o.error_feedback;
    options.weight_decay = static_cast<float>(o.weight_decay);
    options.clip_norm = static_cast<float>(o.clip_norm);
    options.weights = weights_of(o.weights);
    options.contribution_clip = static_cast<float>(o.contribution_clip);
    options.run = run;
    return options;
}

adamw_options adamw_options_of(const configuration& settings, const digest& run) {
    const auto& o = settings.optimizer;
    adamw_options options;
    options.learning_rate = static_cast<float>(o.peak_rate());
    options.beta1 = o.beta1;
    options.beta2 = o.beta2;
    options.epsilon = o.eps;
    options.weights = weights_of(o.weights);
    options.weight_decay = static_cast<float>(o.weight_decay);
    options.clip_norm = static_cast<float>(o.clip_norm);
    options.run = run;
    return options;
}

}  // namespace

std::unique_ptr<any_optimizer> make_optimizer(const configuration& settings, const digest& run,
                                              std::span<const parameter> parameters, thread_pool& pool) {
    if (settings.optimizer.kind == "adamw")
        return std::make_unique<optimizer_of<adamw>>(parameters, adamw_options_of(settings, run), pool);
    return std::make_unique<optimizer_of<demo>>(parameters, demo_options_of(settings, run, parameters), pool);
}

}  // namespace thinwire::launcher
