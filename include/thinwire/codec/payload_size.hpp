#ifndef THINWIRE_CODEC_PAYLOAD_SIZE_HPP
#define THINWIRE_CODEC_PAYLOAD_SIZE_HPP

#include <thinwire/codec/payload.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>

namespace thinwire {

/// About how many bytes a demo payload of this layout has that states `k` and sends all it may: the entropy of a
/// uniform choice of places, which the coder meets within 0.5 %, and what stands around it. Rather too many than too
/// few. Precondition: 1 <= k <= layout.k.
[[nodiscard]] inline std::uint64_t estimated_payload_bytes(const payload_layout& layout, std::uint32_t k) {
    double bits = 8.0 * static_cast<double>(detail::payload_header_bytes + detail::payload_checksum_bytes);
    for (std::size_t i = 0; i < layout.sections.size(); ++i) {
        const payload_section s = layout.section(i, k);
        const double n = s.chunk_size, sent = s.kept;
        const double choice = (std::lgamma(n + 1) - std::lgamma(sent + 1) - std::lgamma(n - sent + 1)) / std::log(2.0);
        const double places = 1.005 * static_cast<double>(s.chunks) * choice;
        const double states = 16.0 * static_cast<double>(detail::coder_states(s.coefficients()));
        // Length and flags of the section, the number of words and the coder's states, two bytes that are not full.
        bits += 8.0 * (detail::section_length_bytes + 2 + 2) + (s.kept < s.chunk_size ? states : 0.0) +
                (places > 16.0 * 128 ? 16.0 : 0.0);
        bits += places + static_cast<double>(s.chunks) * static_cast<double>(layout.codec->bits(s.kept));
    }
    return static_cast<std::uint64_t>(std::ceil(bits / 8.0));
}

/// The largest k whose payloads have about so many bytes at most; 0 when not even k = 1 has.
[[nodiscard]] inline std::uint32_t largest_k(const payload_layout& layout, std::uint64_t bytes) {
    std::uint32_t fits = 0;
    for (std::uint32_t step = std::uint32_t{1} << 16U; step > 0; step /= 2)
        if (fits + step <= layout.k && estimated_payload_bytes(layout, fits + step) <= bytes) fits += step;
    return fits;
}

}  // namespace thinwire

#endif  // THINWIRE_CODEC_PAYLOAD_SIZE_HPP
