#ifndef THINWIRE_CODEC_PAYLOAD_LAYOUT_HPP
#define THINWIRE_CODEC_PAYLOAD_LAYOUT_HPP

#include <thinwire/codec/value_codec.hpp>

#include <algorithm>
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
    std::uint32_t chunk_size = 0;  ///< rows * columns of a chunk: at most 65536
    std::uint32_t kept = 0;        ///< min(k, chunk_size); 1 for dense
    std::uint32_t columns = 0;     ///< of a chunk; 0 where its coefficients are in no order of frequency

    [[nodiscard]] std::uint64_t coefficients() const noexcept { return chunks * kept; }
};

/// What every payload of a run must look like. All peers derive the same one from shapes and options.
struct payload_layout {
    payload_kind kind = payload_kind::demo;
    const value_codec* codec = &codec_of(value_code::f32);  ///< must outlive the layout
    std::uint32_t k = 0;                                    ///< the most that a payload may state; 0 for dense
    std::uint32_t chunk = 0;                                ///< 0 for dense
    std::uint64_t fingerprint = 0;  ///< of the names' shapes, so that other tensors of equal size are told apart
    std::vector<payload_section> sections;

    [[nodiscard]] value_code values() const noexcept { return codec->id(); }
    /// A section of a payload that states `k` in its header, at most that of the layout: a lower one is the most that
    /// any chunk sends.
    [[nodiscard]] payload_section section(std::size_t i, std::uint32_t stated) const noexcept {
        payload_section s = sections[i];
        if (stated < k) s.kept = std::min(s.kept, stated);
        return s;
    }
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
