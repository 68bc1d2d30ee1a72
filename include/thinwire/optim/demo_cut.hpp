#ifndef THINWIRE_OPTIM_DEMO_CUT_HPP
#define THINWIRE_OPTIM_DEMO_CUT_HPP

#include <thinwire/codec/payload_layout.hpp>
#include <thinwire/core/error.hpp>
#include <thinwire/core/parameter.hpp>
#include <thinwire/core/shape.hpp>
#include <thinwire/optim/demo_options.hpp>
#include <thinwire/transform/chunk_grid.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace thinwire {

/// What one shard holds of a tensor, contiguous in memory: whole rows of chunks, or whole matrices.
struct shard_part {
    std::size_t tensor = 0;  ///< position of the parameter
    std::size_t first = 0;   ///< its first element here
    thinwire::shape shape{};
    /// Sections of a payload of all parameters that its coefficients belong to; one for each region of the part.
    std::size_t first_section = 0, sections = 1;
};

namespace detail {

/// Consecutive equal pieces of a tensor between which it may be cut.
struct cut_run {
    std::size_t pieces, rows;  ///< rows of one piece
    std::size_t first_section, sections;
};

/// Of a tensor with these regions, the first of which has that section. Rows of chunks; where some rows remain below
/// them in every matrix of a batch, matrices: only so are pieces consecutive whose chunks have equal sides.
[[nodiscard]] inline std::vector<cut_run> cut_runs(std::span<const chunk_grid> regions, std::size_t batch,
                                                   std::size_t first_section) {
    const chunk_grid& main = regions.front();
    const std::size_t below = main.height() - main.down() * main.rows();
    if (below == 0) return {{batch * main.down(), main.rows(), first_section, regions.size()}};
    if (batch > 1) return {{batch, main.height(), first_section, regions.size()}};
    const std::size_t half = regions.size() / 2;
    return {{main.down(), main.rows(), first_section, half}, {1, below, first_section + half, half}};
}

/// Where a section of a shard's payload lies in that of the peer.
struct section_place {
    std::size_t section, chunk;  ///< its first chunk there
};

/// Of all sections of all shards. `layouts`: those of the shards.
[[nodiscard]] inline std::vector<std::vector<section_place>> section_places(
    std::span<const std::vector<shard_part>> parts, std::span<const payload_layout> layouts, std::size_t sections) {
    std::vector<std::vector<section_place>> places(parts.size());
    std::vector<std::size_t> next(sections);
    for (std::size_t s = 0; s < parts.size(); ++s)
        for (const shard_part& part : parts[s])
            for (std::size_t i = part.first_section; i < part.first_section + part.sections; ++i) {
                const std::uint64_t chunks = layouts[s].sections[places[s].size()].chunks;
                places[s].push_back({.section = i, .chunk = next[i]});
                next[i] += chunks;
            }
    return places;
}

}  // namespace detail

/// Cuts the parameters into `count` shards of about equal size, in order. A vector, and a tensor whose update rule
/// needs whole matrices, stays in one piece; a shard may hold nothing. Throws what demo's constructor throws, and
/// value_error for a count of 0.
[[nodiscard]] inline std::vector<std::vector<shard_part>> cut_into_shards(std::span<const parameter> parameters,
                                                                          const demo_options& options,
                                                                          std::size_t count) {
    if (count == 0) throw value_error("shards: count 0, expected at least 1");
    const std::vector<detail::tensor_settings> settings = detail::settle_groups(parameters, options);
    std::size_t total = 0, before = 0, section = 0;
    for (const parameter& p : parameters) total += p.shape.count();
    std::vector<std::vector<shard_part>> shards(count);
    const auto shard_at = [&](std::size_t element) {
        return static_cast<std::size_t>(static_cast<double>(element) / static_cast<double>(total) *
                                        static_cast<double>(count));
    };
    for (std::size_t i = 0; i < parameters.size(); ++i) {
        const shape& sides = parameters[i].shape;
        const std::vector<chunk_grid> regions =
            chunk_regions(sides, static_cast<std::size_t>(options.chunk), options.cut);
        const std::size_t width = regions.front().stride();
        const std::vector<detail::cut_run> runs =
            detail::cut_runs(regions, sides.count() / (regions.front().height() * width), section);
        const bool together =
            runs.size() > 1 && shard_at(before) == shard_at(before + sides.count() - runs.back().rows * width);
        if (together || (runs.size() == 1 && runs[0].pieces == 1) || settings[i].scope == update_scope::matrix) {
            shards[shard_at(before)].push_back(
                {.tensor = i, .first = 0, .shape = sides, .first_section = section, .sections = regions.size()});
        } else {
            std::size_t first = 0;
            for (const detail::cut_run& run : runs) {
                const std::size_t size = run.rows * width;
                for (std::size_t from = 0, to = 0; from < run.pieces; from = to) {
                    const std::size_t shard = shard_at(before + first + from * size);
                    while (to < run.pieces && shard_at(before + first + to * size) == shard) ++to;
                    shards[shard].push_back(
                        {.tensor = i,
                         .first = first + from * size,
                         .shape = {static_cast<std::int64_t>(to - from), static_cast<std::int64_t>(run.rows),
                                   static_cast<std::int64_t>(width)},
                         .first_section = run.first_section,
                         .sections = run.sections});
                }
                first += run.pieces * size;
            }
        }
        before += sides.count();
        section += regions.size();
    }
    return shards;
}

}  // namespace thinwire

#endif  // THINWIRE_OPTIM_DEMO_CUT_HPP
