#include "dashboard/told.hpp"

#include "about.hpp"
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>

namespace thinwire::launcher::told {

using nlohmann::json;

const json* find(const json& object, const char* name) {
    const auto found = object.find(name);
    return found != object.end() ? &*found : nullptr;
}

std::optional<double> number(const json& object, const char* name) {
    const json* found = find(object, name);
    if (found == nullptr || !found->is_number()) return std::nullopt;
    const double value = found->get<double>();
    return std::isfinite(value) ? std::optional<double>(value) : std::nullopt;
}

std::uint64_t count(const json& object, const char* name) {
    const json* found = find(object, name);
    if (found == nullptr || !found->is_number_integer()) return 0;
    if (!found->is_number_unsigned() && found->get<std::int64_t>() < 0) return 0;
    return std::min(found->get<std::uint64_t>(), std::uint64_t{1} << 53U);
}

bool flag(const json& object, const char* name, bool otherwise) {
    const json* found = find(object, name);
    return found != nullptr && found->is_boolean() ? found->get<bool>() : otherwise;
}

std::string text(const json& object, const char* name, std::size_t bytes, bool lines) {
    const json* found = find(object, name);
    return found != nullptr && found->is_string() ? clean_text(found->get_ref<const std::string&>(), bytes, lines)
                                                  : std::string();
}

void counter::see(std::uint64_t now) {
    if (now < last / 2) {
        before += last;
        last = now;
    } else {
        last = std::max(last, now);
    }
}

}  // namespace thinwire::launcher::told
