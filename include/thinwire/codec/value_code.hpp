#ifndef THINWIRE_CODEC_VALUE_CODE_HPP
#define THINWIRE_CODEC_VALUE_CODE_HPP

#include <cstdint>
#include <string_view>

namespace thinwire {

/// How the value of a selected coefficient travels. Numbers from 128 on are an integrator's own (value_codec.hpp).
enum class value_code : std::uint8_t {
    f32 = 0,   ///< 32 bits, as the published DeMo sends it
    sign = 1,  ///< one bit; a coefficient that is exactly zero is not sent
    bf16 = 2,  ///< 16 bits: the nearest bfloat16
    q4 = 3,    ///< sign and 8 magnitudes in 4 bits, and a scale of 12 bits a chunk
    q2 = 4,    ///< sign and 2 magnitudes in 2 bits, and a scale of 12 bits a chunk
};

[[nodiscard]] constexpr std::string_view to_string(value_code code) noexcept {
    switch (code) {
        case value_code::f32: return "f32";
        case value_code::sign: return "sign";
        case value_code::bf16: return "bf16";
        case value_code::q4: return "q4";
        case value_code::q2: return "q2";
    }
    return "custom";
}

}  // namespace thinwire

#endif  // THINWIRE_CODEC_VALUE_CODE_HPP
