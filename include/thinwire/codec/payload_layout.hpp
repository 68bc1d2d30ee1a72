#ifndef THINWIRE_CODEC_PAYLOAD_LAYOUT_HPP
#define THINWIRE_CODEC_PAYLOAD_LAYOUT_HPP

#include <thinwire/codec/value_code.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace thinwire {

/// What a payload carries.
enum class payload_kind : std::uint8_t {
    demo = 0,   ///< selected coefficients of every chunk
    dense = 1,  ///< every element of every gradient, f32
};

/// One tensor as the codec sees it: `chunks` blocks of `chunk_size` elements, `kept` of which are sent.
struct payload_section {
    std::uint64_t chunks = 0;
    std::uint32_t chunk_size = 0;
    std::uint32_t kept = 0;  ///< min(k, chunk_size); chunk_size for dense

    [[nodiscard]] std::uint64_t coefficients() const noexcept { return chunks * kept; }
    /// Bits of one position: enough for chunk_size values.
    [[nodiscard]] unsigned position_bits() const noexcept {
        return static_cast<unsigned>(std::bit_width(chunk_size - 1));
    }
};

/// What every payload of a run must look like. All peers derive the same one from shapes and options.
struct payload_layout {
    payload_kind kind = payload_kind::demo;
    value_code values = value_code::f32;
    std::uint32_t k = 0;            ///< 0 for dense
    std::uint32_t chunk = 0;        ///< 0 for dense
    std::uint64_t fingerprint = 0;  ///< of the names' shapes, so that other tensors of equal size are told apart
    std::vector<payload_section> sections;

    [[nodiscard]] std::uint64_t chunks() const noexcept {
        std::uint64_t sum = 0;
        for (const payload_section& s : sections) sum += s.chunks;
        return sum;
    }
    [[nodiscard]] std::uint64_t coefficients() const noexcept {
        std::uint64_t sum = 0;
        for (const payload_section& s : sections) sum += s.coefficients();
        return sum;
    }
};

}  // namespace thinwire

#endif  // THINWIRE_CODEC_PAYLOAD_LAYOUT_HPP
