#ifndef THINWIRE_CODEC_VALUE_CODEC_HPP
#define THINWIRE_CODEC_VALUE_CODEC_HPP

#include <thinwire/codec/bit_stream.hpp>
#include <thinwire/codec/value_code.hpp>
#include <thinwire/core/error.hpp>
#include <thinwire/core/half.hpp>
#include <thinwire/core/result.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace thinwire {

/// Values beyond this magnitude are absurd: the optimizer never makes them and a decoder refuses them.
inline constexpr std::uint32_t largest_value_bits = (127U + 100U) << 23U;  // 2^100

/// How the values of one chunk travel. Stateless: every function may be called from many threads at once.
///
/// An integrator's own code derives from this, takes an id() from 128 on and goes into payload_layout::codec. All peers
/// of a run must have the same one: the layout's fingerprint covers the id, not the meaning.
class value_codec {
 public:
    value_codec() = default;
    value_codec(const value_codec&) = delete;
    value_codec& operator=(const value_codec&) = delete;
    virtual ~value_codec() = default;

    [[nodiscard]] virtual value_code id() const noexcept = 0;
    /// For people, e.g. "sign".
    [[nodiscard]] virtual std::string_view name() const noexcept = 0;
    /// Whether a coefficient that is exactly zero is sent, so that the mean counts its sender. When not, the functions
    /// below are never given a zero and chunks may send fewer coefficients than k.
    [[nodiscard]] virtual bool sends_zero() const noexcept = 0;
    /// Exactly how many bits encode() writes for a chunk of `count` values; 0 for none.
    [[nodiscard]] virtual std::uint64_t bits(std::size_t count) const noexcept = 0;
    /// Replaces the values of one chunk, finite and at most 2^100, by what receivers decode. Changes nothing when
    /// called again.
    virtual void round(std::span<float> values) const noexcept = 0;
    /// Writes the values of one chunk; they need not be rounded.
    virtual void encode(std::span<const float> values, bit_writer& out) const noexcept = 0;
    /// Reads the values of one chunk from foreign bits: bits(values.size()) of them, whatever they are. Refuses what
    /// encode() never writes; must not give numbers that are not finite or above 2^100.
    [[nodiscard]] virtual std::optional<errc> decode(bit_reader& in, std::span<float> values) const noexcept = 0;
};

namespace detail {

[[nodiscard]] inline std::optional<errc> refuse_absurd(std::span<const float> values) noexcept {
    std::uint32_t above = 0;  // the highest bit: whether a magnitude is
    std::size_t i = 0;
#if defined(__SSE2__)
    const __m128i most = _mm_set1_epi32(static_cast<int>(largest_value_bits)), all = _mm_set1_epi32(0x7fffffff);
    __m128i over = _mm_setzero_si128();
    for (; i + 4 <= values.size(); i += 4) {
        const __m128i bits = _mm_castps_si128(_mm_loadu_ps(values.data() + i));
        over = _mm_or_si128(over, _mm_sub_epi32(most, _mm_and_si128(bits, all)));
    }
    above = _mm_movemask_ps(_mm_castsi128_ps(over)) != 0 ? 0x80000000U : 0U;
#endif
    for (; i < values.size(); ++i)
        above |= largest_value_bits - (std::bit_cast<std::uint32_t>(values[i]) & 0x7fffffffU);
    if (above >> 31U == 0) return std::nullopt;
    std::uint32_t largest = 0;
    for (const float value : values) largest = std::max(largest, std::bit_cast<std::uint32_t>(value) & 0x7fffffffU);
    if (largest >= 0x7f800000U) return errc::not_finite;
    return errc::out_of_range;
}

class f32_codec final : public value_codec {
 public:
    [[nodiscard]] value_code id() const noexcept override { return value_code::f32; }
    [[nodiscard]] std::string_view name() const noexcept override { return "f32"; }
    [[nodiscard]] bool sends_zero() const noexcept override { return true; }
    [[nodiscard]] std::uint64_t bits(std::size_t count) const noexcept override { return 32 * std::uint64_t{count}; }
    void round(std::span<float>) const noexcept override {}
    void encode(std::span<const float> values, bit_writer& out) const noexcept override { out.put_floats(values); }
    [[nodiscard]] std::optional<errc> decode(bit_reader& in, std::span<float> values) const noexcept override {
        in.get_floats(values);
        return refuse_absurd(values);
    }
};

class bf16_codec final : public value_codec {
 public:
    [[nodiscard]] value_code id() const noexcept override { return value_code::bf16; }
    [[nodiscard]] std::string_view name() const noexcept override { return "bf16"; }
    [[nodiscard]] bool sends_zero() const noexcept override { return true; }
    [[nodiscard]] std::uint64_t bits(std::size_t count) const noexcept override { return 16 * std::uint64_t{count}; }
    void round(std::span<float> values) const noexcept override {
        for (float& value : values) value = from_bfloat16(to_bfloat16(value));
    }
    void encode(std::span<const float> values, bit_writer& out) const noexcept override {
        for (const float value : values) out.put(to_bfloat16(value), 16);
    }
    [[nodiscard]] std::optional<errc> decode(bit_reader& in, std::span<float> values) const noexcept override {
        for (float& value : values) value = from_bfloat16(static_cast<std::uint16_t>(in.get(16)));
        return refuse_absurd(values);
    }
};

/// 1 or -1.
class sign_codec final : public value_codec {
 public:
    [[nodiscard]] value_code id() const noexcept override { return value_code::sign; }
    [[nodiscard]] std::string_view name() const noexcept override { return "sign"; }
    [[nodiscard]] bool sends_zero() const noexcept override { return false; }
    [[nodiscard]] std::uint64_t bits(std::size_t count) const noexcept override { return count; }
    void round(std::span<float> values) const noexcept override {
        for (float& value : values) value = of_bit(std::bit_cast<std::uint32_t>(value) >> 31U);
    }
    void encode(std::span<const float> values, bit_writer& out) const noexcept override {
        for (std::size_t i = 0; i < values.size(); i += 32) {
            const std::size_t n = std::min<std::size_t>(32, values.size() - i);
            std::uint32_t word = 0;
            std::size_t b = 0;
#if defined(__SSE2__)
            for (; b + 4 <= n; b += 4)
                word |= static_cast<std::uint32_t>(_mm_movemask_ps(_mm_loadu_ps(values.data() + i + b))) << b;
#endif
            for (; b < n; ++b) word |= (std::bit_cast<std::uint32_t>(values[i + b]) >> 31U) << b;
            out.put(word, static_cast<unsigned>(n));
        }
    }
    [[nodiscard]] std::optional<errc> decode(bit_reader& in, std::span<float> values) const noexcept override {
        for (std::size_t i = 0; i < values.size(); i += 32) {
            const std::size_t n = std::min<std::size_t>(32, values.size() - i);
            const std::uint32_t word = in.get(static_cast<unsigned>(n));
            std::size_t b = 0;
#if defined(__SSE2__)
            const __m128i one = _mm_set1_epi32(0x3f800000), sign = _mm_set1_epi32(static_cast<int>(0x80000000U));
            const __m128i places = _mm_set_epi32(8, 4, 2, 1);
            for (; b + 4 <= n; b += 4) {
                const __m128i bits = _mm_and_si128(_mm_set1_epi32(static_cast<int>(word >> b)), places);
                const __m128i minus = _mm_and_si128(_mm_cmpeq_epi32(bits, places), sign);
                _mm_storeu_ps(values.data() + i + b, _mm_castsi128_ps(_mm_or_si128(one, minus)));
            }
#endif
            for (; b < n; ++b) values[i + b] = of_bit((word >> b) & 1U);
        }
        return std::nullopt;
    }

 private:
    [[nodiscard]] static float of_bit(std::uint32_t bit) noexcept {
        return std::bit_cast<float>(0x3f800000U | (bit << 31U));
    }
};

/// Sign and one of 2^LevelBits magnitudes: a level times the chunk's scale, which is (16 + m) 2^(e - 128) with m < 16,
/// sent as 16 e + m in 12 bits. Levels rise by a fixed ratio, because the largest k of many coefficients lie between a
/// threshold and a few times that. Of the scales with which some levels give the same values the smallest is sent, and
/// no other is taken. Every product has at most 11 significant bits and is normal: exact in float32.
template <unsigned LevelBits>
class scaled_codec final : public value_codec {
 public:
    static constexpr std::size_t count_of_levels = std::size_t{1} << LevelBits;
    using level_table = std::array<std::uint8_t, count_of_levels>;

    scaled_codec(value_code id, const level_table& levels) noexcept : id_(id), levels_(levels) {}

    [[nodiscard]] value_code id() const noexcept override { return id_; }
    [[nodiscard]] std::string_view name() const noexcept override { return to_string(id_); }
    [[nodiscard]] bool sends_zero() const noexcept override { return false; }
    [[nodiscard]] std::uint64_t bits(std::size_t count) const noexcept override {
        return count == 0 ? 0 : scale_bits + (LevelBits + 1) * std::uint64_t{count};
    }
    void round(std::span<float> values) const noexcept override {
        if (values.empty()) return;
        const float scale = scale_of(choose_field(values));
        for (float& value : values) value = decoded(scale, code_of(value, scale));
    }
    void encode(std::span<const float> values, bit_writer& out) const noexcept override {
        if (values.empty()) return;
        const float chosen = scale_of(choose_field(values));
        std::uint32_t used = 0;
        for (const float value : values) used |= 1U << (code_of(value, chosen) % count_of_levels);
        const std::uint32_t field = smallest_field(chosen, used);
        const float scale = scale_of(field);
        out.put(field, scale_bits);
        for (const float value : values)
            out.put(code_of(decoded(chosen, code_of(value, chosen)), scale), LevelBits + 1);
    }
    [[nodiscard]] std::optional<errc> decode(bit_reader& in, std::span<float> values) const noexcept override {
        if (values.empty()) return std::nullopt;
        const std::uint32_t field = in.get(scale_bits);
        if (field > largest_field) return errc::out_of_range;
        const float scale = scale_of(field);
        std::uint32_t used = 0;
        for (float& value : values) {
            const std::uint32_t code = in.get(LevelBits + 1);
            used |= 1U << (code % count_of_levels);
            value = decoded(scale, code);
        }
        if (smallest_field(scale, used) != field) return errc::malformed;
        return std::nullopt;
    }

 private:
    static constexpr unsigned scale_bits = 12;
    static constexpr std::uint32_t largest_field = 217 * 16 + 15;  // times the largest level: below 2^100

    [[nodiscard]] static float scale_of(std::uint32_t field) noexcept {
        return std::bit_cast<float>((field + 3 * 16) << 19U);
    }
    /// The nearest one that may be sent.
    [[nodiscard]] static std::uint32_t field_of(float scale) noexcept {
        const std::uint32_t nearest = (std::bit_cast<std::uint32_t>(scale) + (1U << 18U)) >> 19U;
        return std::clamp(nearest, 48U, largest_field + 48U) - 48U;
    }
    [[nodiscard]] float decoded(float scale, std::uint32_t code) const noexcept {
        const float size = static_cast<float>(levels_[code % count_of_levels]) * scale;
        return std::bit_cast<float>(std::bit_cast<std::uint32_t>(size) | (code >> LevelBits) << 31U);
    }
    /// The level nearest to the value, and above it the sign.
    [[nodiscard]] std::uint32_t code_of(float value, float scale) const noexcept {
        const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
        const float twice = 2.0F * std::bit_cast<float>(bits & 0x7fffffffU);
        std::uint32_t level = 0;
        for (std::size_t i = 1; i < count_of_levels; ++i)
            level += twice >= static_cast<float>(levels_[i - 1] + levels_[i]) * scale ? 1U : 0U;
        return level | (bits >> 31U) << LevelBits;
    }

    /// Sum of squared errors in units of 1 / unit; stops when it is not below `bound`.
    [[nodiscard]] double measure(std::span<const float> values, float scale, float unit, double bound) const noexcept {
        double error = 0.0;
        for (const float value : values) {
            const float size = (value < 0.0F ? -value : value) * unit;
            const float level = static_cast<float>(levels_[code_of(value, scale) % count_of_levels]) * scale * unit;
            error += static_cast<double>((size - level) * (size - level));
            if (!(error < bound)) break;
        }
        return error;
    }
    /// The smallest scale of which all values are levels, if there is one: what was rounded before.
    [[nodiscard]] std::optional<std::uint32_t> exact_field(std::span<const float> values,
                                                           float largest) const noexcept {
        for (std::size_t i = count_of_levels; i-- > 0;) {
            const std::uint32_t field = field_of(largest / static_cast<float>(levels_[i]));
            const float scale = scale_of(field);
            if (static_cast<float>(levels_[i]) * scale == largest &&
                std::all_of(values.begin(), values.end(),
                            [&](float value) { return decoded(scale, code_of(value, scale)) == value; }))
                return field;
        }
        return std::nullopt;
    }
    /// The scale with the least sum of squared errors among those that put the mean within the levels.
    [[nodiscard]] std::uint32_t choose_field(std::span<const float> values) const noexcept {
        float largest = 0.0F;
        double sum = 0.0;
        for (const float value : values) {
            const float size = value < 0.0F ? -value : value;
            largest = std::max(largest, size);
            sum += static_cast<double>(size);
        }
        if (!(largest > scale_of(0))) return 0;
        if (const auto exact = exact_field(values, largest)) return *exact;
        const float unit = 1.0F / largest;
        const double mean = sum / static_cast<double>(values.size());
        const std::uint32_t last = field_of(static_cast<float>(mean / static_cast<double>(levels_.front())));
        std::uint32_t best = last;
        double least = 1e300;
        for (std::uint32_t field = field_of(static_cast<float>(mean / static_cast<double>(levels_.back())));
             field <= last; ++field) {
            const double error = measure(values, scale_of(field), unit, least);
            if (error < least) {
                best = field;
                least = error;
            }
        }
        return best;
    }
    /// The smallest scale with which other levels give the same values, `used` being those that occur with `scale`.
    [[nodiscard]] std::uint32_t smallest_field(float scale, std::uint32_t used) const noexcept {
        const auto top = static_cast<std::size_t>(std::bit_width(used) - 1);
        const float largest = static_cast<float>(levels_[top]) * scale;
        for (std::size_t i = count_of_levels - 1; i > top; --i) {
            const std::uint32_t field = field_of(largest / static_cast<float>(levels_[i]));
            const float other = scale_of(field);
            bool same = true;
            for (std::uint32_t level = 0; level <= top && same; ++level)
                if ((used >> level & 1U) != 0) {
                    const float value = static_cast<float>(levels_[level]) * scale;
                    same = decoded(other, code_of(value, other)) == value;
                }
            if (same) return field;
        }
        return field_of(scale);
    }

    value_code id_;
    level_table levels_;
};

}  // namespace detail

/// The built-in code of that number. Throws value_error for any other.
[[nodiscard]] inline const value_codec& codec_of(value_code code) {
    static const detail::f32_codec f32;
    static const detail::sign_codec sign;
    static const detail::bf16_codec bf16;
    static const detail::scaled_codec<3> q4(value_code::q4, {16, 19, 23, 28, 33, 40, 48, 57});
    static const detail::scaled_codec<1> q2(value_code::q2, {5, 7});
    switch (code) {
        case value_code::f32: return f32;
        case value_code::sign: return sign;
        case value_code::bf16: return bf16;
        case value_code::q4: return q4;
        case value_code::q2: return q2;
    }
    throw value_error("value code " + std::to_string(static_cast<int>(code)) + ", expected f32, sign, bf16, q4 or q2");
}

}  // namespace thinwire

#endif  // THINWIRE_CODEC_VALUE_CODEC_HPP
