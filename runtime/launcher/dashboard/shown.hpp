#ifndef THINWIRE_LAUNCHER_DASHBOARD_SHOWN_HPP
#define THINWIRE_LAUNCHER_DASHBOARD_SHOWN_HPP

#include "dashboard/rounds.hpp"
#include <nlohmann/json_fwd.hpp>

#include <optional>

/// How values stand in what the page reads.
namespace thinwire::launcher::shown {

/// Short in JSON: six digits are more than a screen shows. Null when it is not finite, or not there.
[[nodiscard]] nlohmann::ordered_json rounded(const std::optional<double>& value);
/// Unix time to a tenth of a second.
[[nodiscard]] nlohmann::ordered_json moment(double time);
/// A point of the curve; its fields have the names of columns().
[[nodiscard]] nlohmann::ordered_json row(const round_span& span);
[[nodiscard]] nlohmann::ordered_json columns();

}  // namespace thinwire::launcher::shown

#endif  // THINWIRE_LAUNCHER_DASHBOARD_SHOWN_HPP
