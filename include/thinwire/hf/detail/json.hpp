#ifndef THINWIRE_HF_DETAIL_JSON_HPP
#define THINWIRE_HF_DETAIL_JSON_HPP

#include <thinwire/core/result.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstddef>
#include <set>
#include <string>
#include <string_view>

namespace thinwire::hf::detail {

using json = nlohmann::json;

/// How many arrays and objects lie within one another at the deepest point of a JSON text.
[[nodiscard]] inline int nesting(std::string_view text) noexcept {
    int depth = 0;
    int deepest = 0;
    bool in_string = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (in_string) {
            if (c == '\\') ++i;
            if (c == '"') in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '[' || c == '{') {
            deepest = std::max(deepest, ++depth);
        } else if (c == ']' || c == '}') {
            --depth;
        }
    }
    return deepest;
}

/// Parses foreign text into an object. Refuses what is not JSON, not an object, nested deeper than `max_nesting`, or
/// an object whose own keys are not distinct. Never throws.
[[nodiscard]] inline result<json> parse_object(std::string_view text, int max_nesting, const std::string& what) {
    if (nesting(text) > max_nesting)
        return failure{errc::out_of_range,
                       what + ": JSON nested deeper than " + std::to_string(max_nesting) + " levels"};
    std::set<std::string> keys;
    std::string twice;
    const auto watch = [&](int depth, json::parse_event_t event, json& parsed) {
        if (event == json::parse_event_t::key && depth == 1) {
            const auto& key = parsed.template get_ref<const std::string&>();
            if (!keys.insert(key).second) twice = key;
        }
        return true;
    };
    json parsed = json::parse(text.begin(), text.end(), watch, false);
    if (parsed.is_discarded()) return failure{errc::malformed, what + ": not valid JSON"};
    if (!parsed.is_object()) return failure{errc::malformed, what + ": expected a JSON object"};
    if (!twice.empty()) return failure{errc::malformed, what + ": key '" + twice + "' appears twice"};
    return parsed;
}

}  // namespace thinwire::hf::detail

#endif  // THINWIRE_HF_DETAIL_JSON_HPP
