#ifndef THINWIRE_LAUNCHER_PARAMETER_GROUPS_HPP
#define THINWIRE_LAUNCHER_PARAMETER_GROUPS_HPP

#include <thinwire/core/parameter.hpp>
#include <thinwire/optim/demo_options.hpp>

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace thinwire::launcher {

/// One entry of optimizer.groups.
struct group_setting {
    std::string pattern;     ///< a name; one * stands for any characters
    parameter_group values;  ///< without the parameters that it holds
};

/// Reads "PATTERN KEY=VALUE ...; PATTERN ...", keys learning_rate, weight_decay, k, rule. Throws launcher_error(usage)
/// with entry and expectation.
[[nodiscard]] std::vector<group_setting> parse_groups(std::string_view text);

/// The groups of a model's parameters. Throws launcher_error(usage) for a pattern that no name fits. With `by_sign` a
/// last group follows: embeddings and output head, moved by their sign at `by_sign` times the learning rate.
[[nodiscard]] std::vector<parameter_group> groups_of(std::string_view text, std::span<const parameter> parameters,
                                                     float by_sign = 0.0F);

/// "signum", "sgd" or "muon"; null for another name.
[[nodiscard]] update_rule_ptr rule_of(std::string_view name);

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_PARAMETER_GROUPS_HPP
