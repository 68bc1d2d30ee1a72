#ifndef THINWIRE_CODEC_VALUE_CODE_HPP
#define THINWIRE_CODEC_VALUE_CODE_HPP

#include <cstdint>
#include <string_view>

namespace thinwire {

/// How the value of a selected coefficient travels.
enum class value_code : std::uint8_t {
    f32 = 0,   ///< 32 bits, as the published DeMo sends it
    sign = 1,  ///< one bit; a coefficient that is exactly zero is not sent
};

[[nodiscard]] constexpr std::string_view to_string(value_code code) noexcept {
    return code == value_code::sign ? "sign" : "f32";
}

}  // namespace thinwire

#endif  // THINWIRE_CODEC_VALUE_CODE_HPP
