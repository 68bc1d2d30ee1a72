#ifndef THINWIRE_OPTIM_DEMO_OPTIONS_HPP
#define THINWIRE_OPTIM_DEMO_OPTIONS_HPP

#include <thinwire/codec/payload.hpp>
#include <thinwire/core/digest.hpp>
#include <thinwire/core/error.hpp>
#include <thinwire/core/float_mode.hpp>
#include <thinwire/core/isa.hpp>
#include <thinwire/core/parameter.hpp>
#include <thinwire/optim/contribution_weights.hpp>
#include <thinwire/optim/update_rule.hpp>
#include <thinwire/transform/basis.hpp>
#include <thinwire/transform/chunk_grid.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace thinwire {

/// What is added to the momentum for a gradient g.
enum class gradient_scale : std::uint8_t {
    learning_rate = 0,  ///< learning_rate * g, as the published code does
    none = 1,           ///< g, as the paper's second version writes it
    complement = 2,     ///< (1 - momentum_decay) * g: the momentum is an average
};

[[nodiscard]] constexpr std::string_view to_string(gradient_scale scale) noexcept {
    return scale == gradient_scale::none         ? "none"
           : scale == gradient_scale::complement ? "complement"
                                                 : "learning_rate";
}

/// Settings of some parameters that differ from those of the others. It holds the parameters at the positions listed,
/// and, where prefix or suffix is not empty, those whose name begins and ends so. A parameter belongs to the
/// first group that holds it; a group that holds none is refused. All peers of a run have the same groups.
struct parameter_group {
    std::vector<std::size_t> parameters{};
    std::string prefix{}, suffix{};
    float learning_rate = 1.0F;           ///< multiplies the rate: 0, or 2^-20..2^20
    std::optional<float> weight_decay{};  ///< instead of that of the options
    int k = 0;                            ///< instead of that of the options; 0: the same
    update_rule_ptr rule{};               ///< instead of that of the options; null: the same

    [[nodiscard]] bool holds(std::size_t position, std::string_view name) const noexcept {
        if (std::find(parameters.begin(), parameters.end(), position) != parameters.end()) return true;
        return !(prefix.empty() && suffix.empty()) && name.size() >= prefix.size() + suffix.size() &&
               name.starts_with(prefix) && name.ends_with(suffix);
    }
};

struct demo_options {
    float learning_rate = 1e-3F;
    float momentum_decay = 0.999F;                            ///< beta, in [0, 1)
    float alpha = 1.0F;                                       ///< part of what is sent that leaves the momentum: (0, 1]
    gradient_scale gradient = gradient_scale::learning_rate;  ///< local to each peer, as alpha and momentum_decay are
    int k = 32;                            ///< coefficients sent per chunk: 1..chunk^2; small chunks send all they have
    int chunk = 64;                        ///< side of a chunk: 1..256
    chunk_cut cut = chunk_cut::remainder;  ///< of dimensions without a divisor near `chunk`
    value_code values = value_code::f32;   ///< how a coefficient's value travels
    bool error_feedback = false;  ///< what the value code rounds away stays in the momentum; local to each peer
    std::shared_ptr<const value_codec> codec{};  ///< an own value code in place of `values`; null: none
    thinwire::basis basis{};                     ///< the transform of a chunk; the same on all peers of a run
    update_rule_ptr rule = std::make_shared<const signum>();
    float weight_decay = 0.0F;
    float clip_norm = 0.0F;                      ///< the local gradients are scaled to at most this norm; 0: never
    std::vector<parameter_group> groups{};       ///< parameters in none have the settings above
    mean_weights weights = mean_weights::equal;  ///< what a contribution weighs in the mean
    float contribution_clip = 0.0F;  ///< contributions are scaled to at most so many times the median norm of their
                                     ///< commit: 0 (never), or 1..2^20
    digest run{};                    ///< payloads of another run are refused
    isa level = best_isa();          ///< instruction set to use; replicas need not agree on it
};

/// Bytes of memory that a demo asked the allocator for and holds, itself not included.
struct demo_memory {
    std::size_t momentum = 0;   ///< the private momentum
    std::size_t workspace = 0;  ///< how tensors are cut, tables of the basis, memory of the lanes and of the rules
    std::size_t codec = 0;      ///< what was sent and received, payloads, memory of encoders and decoders

    [[nodiscard]] std::size_t total() const noexcept { return momentum + workspace + codec; }
};

/// The options with which demo computes what the published code does (github.com/bloc97/DeMo, its defaults): DCT,
/// chunks whose sides divide those of the tensor, float32 values, everything that is sent leaves the momentum,
/// gradients scaled by the learning rate, sign of the mean.
[[nodiscard]] inline demo_options reference_compatible(float learning_rate = 1e-3F, float momentum_decay = 0.999F,
                                                       int k = 32, int chunk = 64, float weight_decay = 0.0F) {
    demo_options options;
    options.learning_rate = learning_rate;
    options.momentum_decay = momentum_decay;
    options.alpha = 1.0F;
    options.gradient = gradient_scale::learning_rate;
    options.k = k;
    options.chunk = chunk;
    options.cut = chunk_cut::divisors;
    options.values = value_code::f32;
    options.error_feedback = false;
    options.basis = basis::dct();
    options.rule = std::make_shared<const signum>();
    options.weight_decay = weight_decay;
    return options;
}

namespace detail {

/// Throws value_error with field, value and expectation.
inline void require_option(bool good, const std::string& field, double value, const char* expected) {
    if (!good) throw value_error("demo: " + field + " " + std::to_string(value) + ", expected " + expected);
}

[[nodiscard]] constexpr bool sane_multiplier(float m) noexcept {
    const auto bits = std::bit_cast<std::uint32_t>(m);
    return bits == 0 || (bits >= (127U - 20U) << 23U && bits <= (127U + 20U) << 23U);
}

inline void check_group(const demo_options& o, std::size_t i) {
    const parameter_group& g = o.groups[i];
    const std::string name = "groups[" + std::to_string(i) + "].";
    require_option(sane_multiplier(g.learning_rate), name + "learning_rate", static_cast<double>(g.learning_rate),
                   "0, or 2^-20..2^20");
    require_option(g.k >= 0 && g.k <= o.chunk * o.chunk, name + "k", g.k, "0 (that of the options)..chunk^2");
    const float decay = g.weight_decay.value_or(o.weight_decay);
    require_option(sane_rate(decay), name + "weight_decay", static_cast<double>(decay), "0, or 2^-100..2^20");
    require_option(
        static_cast<double>(o.learning_rate) * static_cast<double>(g.learning_rate) * static_cast<double>(decay) <= 1.0,
        name + "weight_decay", static_cast<double>(decay), "at most 1 / learning rate of the group");
}

/// Throws value_error for what no set of parameters could be trained with.
inline demo_options checked(const demo_options& o) {
    const auto require = [](bool good, const char* field, float value, const char* expected) {
        require_option(good, field, static_cast<double>(value), expected);
    };
    require(sane_rate(o.learning_rate), "learning_rate", o.learning_rate, "0, or 2^-100..2^20");
    require(sane_rate(o.weight_decay), "weight_decay", o.weight_decay, "0, or 2^-100..2^20");
    require(static_cast<double>(o.learning_rate) * static_cast<double>(o.weight_decay) <= 1.0, "weight_decay",
            o.weight_decay, "at most 1 / learning_rate");
    require(o.momentum_decay >= 0.0F && o.momentum_decay < 1.0F, "momentum_decay", o.momentum_decay, "0 <= decay < 1");
    require(o.alpha >= 0x1p-20F && o.alpha <= 1.0F, "alpha", o.alpha, "above 0 (2^-20) and at most 1");
    require(o.clip_norm >= 0.0F && o.clip_norm < 1e30F, "clip_norm", o.clip_norm, "0 (none) or a positive norm");
    if (o.weights > mean_weights::tokens)
        throw value_error("demo: weights " + std::to_string(static_cast<int>(o.weights)) +
                          ", expected equal or tokens");
    require(o.contribution_clip == 0.0F || (o.contribution_clip >= 1.0F && o.contribution_clip <= 0x1p20F),
            "contribution_clip", o.contribution_clip, "0 (never), or 1..2^20");
    if (o.gradient > gradient_scale::complement)
        throw value_error("demo: gradient " + std::to_string(static_cast<int>(o.gradient)) +
                          ", expected learning_rate, none or complement");
    if (o.cut > chunk_cut::divisors)
        throw value_error("demo: cut " + std::to_string(static_cast<int>(o.cut)) + ", expected remainder or divisors");
    if (o.codec == nullptr)
        static_cast<void>(codec_of(o.values));
    else
        require_option(static_cast<int>(o.codec->id()) >= 128, "codec: id", static_cast<double>(o.codec->id()),
                       "128..255 for an own value code");
    if (o.rule == nullptr) throw value_error("demo: rule null, expected an update rule");
    if (o.level > best_isa())
        throw value_error("demo: level " + std::string(to_string(o.level)) + ", expected at most this machine's " +
                          std::string(to_string(best_isa())));
    for (std::size_t i = 0; i < o.groups.size(); ++i) check_group(o, i);
    return o;
}

/// What holds for one parameter.
struct tensor_settings {
    double learning_rate = 1.0;         ///< of the group
    double direction_rate = 1.0;        ///< of the rule, on top
    std::optional<float> weight_decay;  ///< none: that of the payload
    int k = 0;
    const update_rule* rule = nullptr;
    update_scope scope = update_scope::sign;
    bool keeps_rest = false;  ///< what is sent is rounded: its difference to the coefficients stays in the momentum
};

/// The settings of each parameter. Throws value_error for a group that holds none, or one that is not there.
[[nodiscard]] inline std::vector<tensor_settings> settle_groups(std::span<const parameter> parameters,
                                                                const demo_options& o) {
    const standard_float_mode mode;  // what a rule's rate() rounds is part of the fingerprint
    std::vector<tensor_settings> out(parameters.size());
    std::vector<bool> used(o.groups.size());
    for (std::size_t g = 0; g < o.groups.size(); ++g)
        for (const std::size_t position : o.groups[g].parameters)
            if (position >= parameters.size())
                throw value_error("demo: groups[" + std::to_string(g) + "].parameters: " + std::to_string(position) +
                                  ", expected below " + std::to_string(parameters.size()));
    for (std::size_t i = 0; i < parameters.size(); ++i) {
        out[i].k = o.k;
        out[i].rule = o.rule.get();
        out[i].keeps_rest = o.error_feedback;
        for (std::size_t g = 0; g < o.groups.size(); ++g) {
            const parameter_group& group = o.groups[g];
            if (!group.holds(i, parameters[i].name)) continue;
            used[g] = true;
            out[i].learning_rate = static_cast<double>(group.learning_rate);
            out[i].weight_decay = group.weight_decay;
            if (group.k > 0) out[i].k = group.k;
            if (group.rule) out[i].rule = group.rule.get();
            break;
        }
        out[i].scope = out[i].rule->scope(parameters[i].shape);
        const float rate = out[i].rule->rate(parameters[i].shape);
        require_option(sane_multiplier(rate), "rate of rule '" + out[i].rule->name() + "'", static_cast<double>(rate),
                       "0, or 2^-20..2^20");
        out[i].direction_rate = static_cast<double>(rate);
    }
    for (std::size_t g = 0; g < used.size(); ++g)
        if (!used[g])
            throw value_error("demo: groups[" + std::to_string(g) + "] holds no parameter (prefix '" +
                              o.groups[g].prefix + "', suffix '" + o.groups[g].suffix +
                              "'), expected at least one that no earlier group holds");
    return out;
}

}  // namespace detail

}  // namespace thinwire

#endif  // THINWIRE_OPTIM_DEMO_OPTIONS_HPP
