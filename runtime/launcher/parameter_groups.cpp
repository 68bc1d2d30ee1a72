#include "parameter_groups.hpp"

#include <thinwire/optim/muon.hpp>

#include "exit_code.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <memory>

namespace thinwire::launcher {
namespace {

[[noreturn]] void refuse_entry(std::string_view entry, const std::string& expected) {
    throw launcher_error(exit_code::usage,
                         "configuration: optimizer.groups: '" + std::string(entry) + "': expected " + expected);
}

/// Cuts the text before the next `end` off.
std::string_view take(std::string_view& text, char end) {
    const std::size_t at = std::min(text.find(end), text.size());
    const std::string_view piece = text.substr(0, at);
    text.remove_prefix(std::min(at + 1, text.size()));
    return piece;
}

bool fits(std::string_view pattern, std::string_view name) {
    const std::size_t star = pattern.find('*');
    if (star == std::string_view::npos) return name == pattern;
    const std::string_view front = pattern.substr(0, star), back = pattern.substr(star + 1);
    return name.size() >= front.size() + back.size() && name.starts_with(front) && name.ends_with(back);
}

template <class T>
T number(std::string_view text, std::string_view entry, double low, double high) {
    T value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() ||
        !(static_cast<double>(value) >= low && static_cast<double>(value) <= high))
        refuse_entry(entry, "learning_rate in 0..1000, weight_decay in 0..1000, k in 1..65536");
    return value;
}

void set(parameter_group& group, std::string_view setting, std::string_view entry) {
    std::string_view value = setting;
    const std::string_view key = take(value, '=');
    if (key == "learning_rate")
        group.learning_rate = number<float>(value, entry, 0.0, 1000.0);
    else if (key == "weight_decay")
        group.weight_decay = number<float>(value, entry, 0.0, 1000.0);
    else if (key == "k")
        group.k = number<int>(value, entry, 1.0, 65536.0);
    else if (key == "rule" && rule_of(value) != nullptr)
        group.rule = rule_of(value);
    else
        refuse_entry(entry, "KEY=VALUE with key learning_rate, weight_decay, k or rule (signum, sgd, muon)");
}

}  // namespace

update_rule_ptr rule_of(std::string_view name) {
    if (name == "signum") return std::make_shared<const signum>();
    if (name == "sgd") return std::make_shared<const sgd>();
    if (name == "muon") return std::make_shared<const muon>();
    return nullptr;
}

std::vector<group_setting> parse_groups(std::string_view text) {
    std::vector<group_setting> groups;
    while (!text.empty()) {
        const std::string_view entry = take(text, ';');
        group_setting group;
        for (std::string_view rest = entry; !rest.empty();) {
            const std::string_view word = take(rest, ' ');
            if (word.empty()) continue;
            if (group.pattern.empty())
                group.pattern = word;
            else
                set(group.values, word, entry);
        }
        if (group.pattern.empty() || std::ranges::count(group.pattern, '*') > 1)
            refuse_entry(entry, "a parameter's name with at most one *, then KEY=VALUE");
        groups.push_back(std::move(group));
    }
    return groups;
}

std::vector<parameter_group> groups_of(std::string_view text, std::span<const parameter> parameters, float by_sign) {
    std::vector<parameter_group> groups;
    std::vector<bool> held(parameters.size());
    const auto add = [&](std::string_view pattern, parameter_group group) {
        bool any = false;
        for (std::size_t i = 0; i < parameters.size(); ++i) {
            if (!fits(pattern, parameters[i].name)) continue;
            any = true;
            if (!held[i]) group.parameters.push_back(i);
            held[i] = true;
        }
        if (!group.parameters.empty()) groups.push_back(std::move(group));
        return any;
    };
    for (group_setting& group : parse_groups(text))
        if (!add(group.pattern, std::move(group.values)))
            refuse_entry(group.pattern, "a pattern that a parameter's name fits, such as '" +
                                            (parameters.empty() ? std::string() : parameters.front().name) + "'");
    if (by_sign > 0.0F)
        for (const std::string_view pattern : {"*embed_tokens.weight", "*lm_head.weight", "*wte.weight", "*wpe.weight"})
            add(pattern, {.learning_rate = by_sign, .rule = rule_of("signum")});
    return groups;
}

}  // namespace thinwire::launcher
