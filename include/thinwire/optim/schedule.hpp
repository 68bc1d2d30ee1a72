#ifndef THINWIRE_OPTIM_SCHEDULE_HPP
#define THINWIRE_OPTIM_SCHEDULE_HPP

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <string_view>

namespace thinwire {

enum class schedule_kind : std::uint8_t {
    constant,  ///< the peak after the warm-up
    cosine,    ///< half a cosine from the peak to the floor, reached at `total`
    wsd,       ///< warm-up, stable, decay: the peak, then a straight line to the floor over the last `decay` rounds
};

[[nodiscard]] constexpr std::string_view to_string(schedule_kind kind) noexcept {
    return kind == schedule_kind::constant ? "constant" : kind == schedule_kind::cosine ? "cosine" : "wsd";
}

/// The learning rate of each round. A peer uses it for its own payloads; replicas apply what the commit says, so a
/// last-bit difference between two machines' cos() is harmless.
struct schedule {
    schedule_kind kind = schedule_kind::constant;
    float peak = 1e-3F;
    std::uint64_t warmup = 0;     ///< rounds of a straight line up to the peak; round 0 already gets one step of it
    std::uint64_t total = 0;      ///< rounds of the whole run; the floor holds after it
    std::uint64_t decay = 0;      ///< wsd: rounds of the final decay
    float floor_fraction = 0.1F;  ///< the floor as a fraction of the peak

    [[nodiscard]] float at(std::uint64_t round) const noexcept {
        if (round < warmup)
            return static_cast<float>(peak * static_cast<double>(round + 1) / static_cast<double>(warmup));
        if (kind == schedule_kind::constant) return peak;
        const std::uint64_t length =
            kind == schedule_kind::cosine ? total - std::min(warmup, total) : std::min(decay, total);
        const std::uint64_t begin = total - length;
        if (round < begin) return peak;
        const double done = round >= total ? 1.0 : static_cast<double>(round - begin) / static_cast<double>(length);
        const double left =
            kind == schedule_kind::cosine ? 0.5 * (1.0 + std::cos(std::numbers::pi * done)) : 1.0 - done;
        const double floor = floor_fraction;
        return static_cast<float>(peak * (floor + (1.0 - floor) * left));
    }
};

}  // namespace thinwire

#endif  // THINWIRE_OPTIM_SCHEDULE_HPP
