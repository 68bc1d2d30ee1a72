#ifndef THINWIRE_OPTIM_DETAIL_UPDATE_RATES_HPP
#define THINWIRE_OPTIM_DETAIL_UPDATE_RATES_HPP

#include <thinwire/codec/payload.hpp>
#include <thinwire/core/error.hpp>
#include <thinwire/optim/clip.hpp>
#include <thinwire/optim/demo_options.hpp>
#include <thinwire/optim/detail/update_kernels.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <string>

namespace thinwire::detail {

/// The numbers of a tensor's update, the same on every host: x <- factor * x - step * direction.
struct update_rates {
    float step, factor;
};
/// From those of the payload.
[[nodiscard]] inline update_rates rates_of(const tensor_settings& s, const payload_info& info) noexcept {
    const double rate = settled(static_cast<double>(info.learning_rate) * s.learning_rate);
    const double decay = static_cast<double>(s.weight_decay.value_or(info.weight_decay));
    return {.step = normal_or_zero(settled(rate * s.direction_rate)),
            .factor = static_cast<float>(std::max(0.0, settled(1.0 - settled(rate * decay))))};
}

/// What a gradient is multiplied by before it is clipped.
[[nodiscard]] inline double gradient_gain(const demo_options& o) noexcept {
    if (o.gradient == gradient_scale::none) return 1.0;
    if (o.gradient == gradient_scale::complement) return 1.0 - static_cast<double>(o.momentum_decay);
    return static_cast<double>(o.learning_rate);
}
/// The same and clipped, for gradients of this norm together. Throws value_error where they would be absurdly large.
[[nodiscard]] inline double checked_gain(const demo_options& o, double norm) {
    const double gain = gradient_gain(o) * clip_factor(norm, o.clip_norm);
    if (!(norm * gain < 0x1p60))
        throw value_error("begin_step: gradient norm " + std::to_string(norm) + " times " + std::to_string(gain) +
                          " (gradient " + std::string(to_string(o.gradient)) + "), expected below 2^60");
    return gain;
}

/// Replaces what a chunk sends by what receivers decode. A sign has no length: here it is the mean magnitude.
inline void round_sent(std::span<float> values, const value_codec& codec) noexcept {
    if (codec.id() != value_code::sign) return codec.round(values);
    double sum = 0.0;
    for (const float value : values) sum += std::abs(static_cast<double>(value));
    const auto length = static_cast<float>(sum / static_cast<double>(std::max<std::size_t>(1, values.size())));
    for (float& value : values) value = std::copysign(length, value);
}

}  // namespace thinwire::detail

#endif  // THINWIRE_OPTIM_DETAIL_UPDATE_RATES_HPP
