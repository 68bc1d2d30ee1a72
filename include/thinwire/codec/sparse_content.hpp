#ifndef THINWIRE_CODEC_SPARSE_CONTENT_HPP
#define THINWIRE_CODEC_SPARSE_CONTENT_HPP

#include <thinwire/codec/payload_layout.hpp>
#include <thinwire/core/aligned.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace thinwire {

/// The part of a sparse_content that belongs to one section: the coefficients of chunk i begin at i * stride.
struct section_slice {
    std::span<std::uint16_t> positions;
    std::span<float> values;
    std::span<std::uint32_t> counts;
    std::size_t stride = 0;

    /// Some of its chunks.
    [[nodiscard]] section_slice chunks(std::size_t first, std::size_t count) const noexcept {
        return {.positions = positions.subspan(first * stride, count * stride),
                .values = values.subspan(first * stride, count * stride),
                .counts = counts.subspan(first, count),
                .stride = stride};
    }
};

/// Copies as many chunks of as many coefficients. Precondition: `to` is as large.
inline void copy_section(const section_slice& from, const section_slice& to) noexcept {
    std::ranges::copy(from.positions, to.positions.begin());
    std::ranges::copy(from.values, to.values.begin());
    std::ranges::copy(from.counts, to.counts.begin());
}

/// The coefficients of one payload, unpacked: for every chunk of every section `kept` places, of which the first
/// count(chunk) are used, positions rising.
struct sparse_content {
    std::vector<std::uint16_t> positions;
    std::vector<float> values;
    std::vector<std::uint32_t> counts;

    void resize(const payload_layout& layout) {
        positions.resize(layout.coefficients());
        values.resize(layout.coefficients());
        counts.resize(layout.chunks());
    }
    [[nodiscard]] std::size_t memory_bytes() const noexcept { return bytes_held(positions, values, counts); }
    /// The section whose coefficients and chunks begin at these places.
    [[nodiscard]] section_slice slice(const payload_section& section, std::size_t coefficient, std::size_t chunk) {
        return {.positions = std::span(positions).subspan(coefficient, section.coefficients()),
                .values = std::span(values).subspan(coefficient, section.coefficients()),
                .counts = std::span(counts).subspan(chunk, section.chunks),
                .stride = section.kept};
    }
};

}  // namespace thinwire

#endif  // THINWIRE_CODEC_SPARSE_CONTENT_HPP
