// An own update rule, an own basis and an own value code, each a few lines: demo takes them as it takes those built in.

#include <thinwire/thinwire.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iostream>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace {

/// Steps as long as what was sent, but never above 1: comparisons only, so the same bits on every machine.
class capped final : public thinwire::update_rule {
 public:
    [[nodiscard]] std::string name() const override { return "capped 1"; }
    void direct(std::span<float> d) const noexcept override {
        for (float& v : d) v = std::clamp(v, -1.0F, 1.0F);
    }
};

/// The Haar wavelets of a side, in integers times 2^22; sides that are no power of two are not transformed.
void haar(std::size_t side, std::span<std::int32_t> table) {
    const auto entry = [](std::size_t length) {
        return static_cast<std::int32_t>(std::lround(4194304.0 / std::sqrt(static_cast<double>(length))));
    };
    std::ranges::fill(table, 0);
    if (!std::has_single_bit(side)) {
        for (std::size_t i = 0; i < side; ++i) table[i * side + i] = entry(1);
        return;
    }
    std::fill_n(table.begin(), side, entry(side));
    std::size_t row = 1;
    for (std::size_t length = side; length > 1; length /= 2)
        for (std::size_t from = 0; from < side; from += length, ++row)
            for (std::size_t x = 0; x < length; ++x)
                table[row * side + from + x] = x < length / 2 ? entry(length) : -entry(length);
}

/// A value in 8 bits: a level of -127..127 times a power of two that the chunk's values share, sent in 8 bits before
/// them.
class byte_code final : public thinwire::value_codec {
 public:
    [[nodiscard]] thinwire::value_code id() const noexcept override { return static_cast<thinwire::value_code>(128); }
    [[nodiscard]] std::string_view name() const noexcept override { return "byte"; }
    [[nodiscard]] bool sends_zero() const noexcept override { return true; }
    [[nodiscard]] std::uint64_t bits(std::size_t count) const noexcept override { return 8 + 8 * std::uint64_t{count}; }
    void round(std::span<float> values) const noexcept override {
        const float unit = unit_of(exponent_of(values));
        for (float& v : values) v = static_cast<float>(level_of(v, unit)) * unit;
    }
    void encode(std::span<const float> values, thinwire::bit_writer& out) const noexcept override {
        const std::uint32_t exponent = exponent_of(values);
        out.put(exponent, 8);
        for (const float v : values) out.put(static_cast<std::uint32_t>(level_of(v, unit_of(exponent))) & 0xffU, 8);
    }
    [[nodiscard]] std::optional<thinwire::errc> decode(thinwire::bit_reader& in,
                                                       std::span<float> values) const noexcept override {
        const std::uint32_t exponent = in.get(8);
        if (exponent < lowest || exponent > highest) return thinwire::errc::out_of_range;
        for (float& v : values) v = static_cast<float>(static_cast<std::int8_t>(in.get(8))) * unit_of(exponent);
        return std::nullopt;
    }

 private:
    static constexpr std::uint32_t lowest = 7, highest = 226;  // units are normal, values stay below 2^100

    /// The exponent of the largest value: it has a level of 64 or more.
    static std::uint32_t exponent_of(std::span<const float> values) noexcept {
        std::uint32_t largest = 0;
        for (const float v : values) largest = std::max(largest, std::bit_cast<std::uint32_t>(v) & 0x7fffffffU);
        return std::clamp(largest >> 23U, lowest, highest);
    }
    static float unit_of(std::uint32_t exponent) noexcept { return std::bit_cast<float>((exponent - 6U) << 23U); }
    static int level_of(float value, float unit) noexcept {
        return static_cast<int>(std::clamp(std::lround(value / unit), -127L, 127L));
    }
};

}  // namespace

int main() {
    std::vector<float> weights(4096, 1.0F), gradient(4096);
    const std::vector<thinwire::parameter> model = {{"layer", {64, 64}, weights, gradient}};
    thinwire::demo_options options = {.learning_rate = 0.05F, .momentum_decay = 0.9F, .k = 16};
    options.gradient = thinwire::gradient_scale::none;
    options.basis = thinwire::basis::custom(haar);
    options.rule = std::make_shared<const capped>();
    options.codec = std::make_shared<const byte_code>();
    options.error_feedback = true;  // what the bytes round away is sent later
    thinwire::demo optimizer(model, options);
    thinwire::loopback_group peers(1);
    for (int step = 0; step < 100; ++step) {
        gradient = weights;
        optimizer.step(peers[0]);
    }
    const float largest = std::abs(*std::ranges::max_element(weights, {}, [](float w) { return std::abs(w); }));
    std::cout << "weights went from 1 to at most " << largest << " in " << optimizer.round() << " rounds\n";
    return largest < 0.05F ? 0 : 1;
}
