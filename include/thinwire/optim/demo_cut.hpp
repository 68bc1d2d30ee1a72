#ifndef THINWIRE_OPTIM_DEMO_CUT_HPP
#define THINWIRE_OPTIM_DEMO_CUT_HPP

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

/// What one shard holds of a tensor: whole rows of chunks, which are contiguous in memory.
struct shard_part {
    std::size_t tensor = 0;  ///< position of the parameter
    std::size_t first = 0;   ///< its first element here
    thinwire::shape shape{};
};

/// Cuts the parameters into `count` shards of about equal size, in order. A vector, and a tensor whose update rule
/// needs whole matrices, stays in one piece; a shard may hold nothing. Throws what demo's constructor throws, and
/// value_error for a count of 0.
[[nodiscard]] inline std::vector<std::vector<shard_part>> cut_into_shards(std::span<const parameter> parameters,
                                                                          const demo_options& options,
                                                                          std::size_t count) {
    if (count == 0) throw value_error("shards: count 0, expected at least 1");
    const std::vector<detail::tensor_settings> settings = detail::settle_groups(parameters, options);
    std::size_t total = 0, before = 0;
    for (const parameter& p : parameters) total += p.shape.count();
    std::vector<std::vector<shard_part>> shards(count);
    const auto shard_at = [&](std::size_t element) {
        return static_cast<std::size_t>(static_cast<double>(element) / static_cast<double>(total) *
                                        static_cast<double>(count));
    };
    for (std::size_t i = 0; i < parameters.size(); ++i) {
        const shape& sides = parameters[i].shape;
        const chunk_grid grid(sides, static_cast<std::size_t>(options.chunk));
        const std::size_t row = grid.rows() * grid.stride(), rows = sides.count() / row;
        if (rows == 1 || settings[i].scope == update_scope::matrix) {
            shards[shard_at(before)].push_back({.tensor = i, .first = 0, .shape = sides});
        } else {
            for (std::size_t from = 0, to = 0; from < rows; from = to) {
                const std::size_t shard = shard_at(before + from * row);
                while (to < rows && shard_at(before + to * row) == shard) ++to;
                shards[shard].push_back(
                    {.tensor = i,
                     .first = from * row,
                     .shape = {static_cast<std::int64_t>(to - from), static_cast<std::int64_t>(grid.rows()),
                               static_cast<std::int64_t>(grid.stride())}});
            }
        }
        before += sides.count();
    }
    return shards;
}

}  // namespace thinwire

#endif  // THINWIRE_OPTIM_DEMO_CUT_HPP
