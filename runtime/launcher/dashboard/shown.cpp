#include "dashboard/shown.hpp"

#include <nlohmann/json.hpp>

#include <cmath>

namespace thinwire::launcher::shown {

using nlohmann::ordered_json;

ordered_json rounded(const std::optional<double>& value) {
    if (!value || !std::isfinite(*value)) return nullptr;
    if (*value == 0) return 0;
    const double scale = std::pow(10.0, 5 - std::floor(std::log10(std::abs(*value))));
    return std::round(*value * scale) / scale;
}

ordered_json moment(double time) {
    return std::round(time * 10) / 10;
}

ordered_json row(const round_span& s) {
    std::optional<double> mean, low, high;
    if (s.loss.count > 0) {
        mean = s.loss.sum / static_cast<double>(s.loss.count);
        low = s.loss.low;
        high = s.loss.high;
    }
    return {s.first,
            s.last,
            moment(s.time),
            s.seen,
            s.tokens,
            rounded(s.seconds),
            rounded(s.computed),
            rounded(s.waited),
            s.sent,
            s.received,
            s.contributions,
            s.disagreeing,
            rounded(mean),
            rounded(low),
            rounded(high)};
}

ordered_json columns() {
    return {"first", "last",     "time",          "seen",        "tokens", "seconds", "computed", "waited",
            "sent",  "received", "contributions", "disagreeing", "loss",   "low",     "high"};
}

}  // namespace thinwire::launcher::shown
