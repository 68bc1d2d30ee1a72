#ifndef THINWIRE_CODEC_DETAIL_SUPPORT_WALK_HPP
#define THINWIRE_CODEC_DETAIL_SUPPORT_WALK_HPP

#include <thinwire/codec/detail/split_tables.hpp>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace thinwire::detail {

/// A block of positions [base, base + size) of a chunk with the `count` chosen ones among them, whose places in the
/// batch begin at `place`.
struct support_node {
    std::uint32_t place;
    std::uint32_t base;
    std::uint32_t count;
};

/// From this many positions on, two chosen ones of a block of 2^j are plain bits: 2 j - 1 of them lose at most 0.023.
inline constexpr unsigned pair_level = 6;
/// Blocks of at most 2^3 positions are coded at once.
inline constexpr unsigned mask_level = 3;

/// Subsets of up to 8 positions as bit masks, in rising order for each number of positions and of chosen ones.
class subset_table {
 public:
    subset_table() {
        for (unsigned j = 0; j <= mask_level; ++j)
            for (std::uint32_t mask = 0; mask < std::uint32_t{1} << (1U << j); ++mask) {
                auto& list = masks_[j][static_cast<std::size_t>(std::popcount(mask))];
                rank_[mask] = static_cast<std::uint8_t>(list.size());
                list.push_back(static_cast<std::uint8_t>(mask));
            }
    }
    [[nodiscard]] std::span<const std::uint8_t> masks(unsigned level, std::uint32_t count) const noexcept {
        return masks_[level][count];
    }
    [[nodiscard]] std::uint32_t rank(std::uint32_t mask) const noexcept { return rank_[mask]; }

 private:
    std::array<std::array<std::vector<std::uint8_t>, 9>, mask_level + 1> masks_;
    std::array<std::uint8_t, 256> rank_{};  // the same in every size of block
};

/// Visits the blocks of a batch of chunks, widest first, in the order in which they are coded. `Coder` either writes or
/// reads: split(size, node) gives the count of the lower half, mask(level, node) codes a block of at most 8 positions,
/// leaf(level, node) one with one or two chosen positions in plain bits.
class support_walk {
 public:
    /// `roots`: the chunks, each with base 0; those without chosen positions are skipped.
    template <class Coder>
    void run(std::uint32_t chunk_size, std::span<const support_node> roots, Coder& coder) {
        const auto levels = static_cast<unsigned>(std::bit_width(chunk_size - 1));
        for (auto* lists : {&ends_, &blocks_, &leaves_})
            for (auto& list : *lists) list.clear();
        const bool whole = std::has_single_bit(chunk_size);
        for (const support_node& root : roots) {
            if (whole)
                push(0, levels, root);
            else if (root.count > 0)
                ends_[0].push_back(root);
        }
        for (unsigned level = levels, side = 0;; --level, side ^= 1U) {
            const std::uint32_t size = std::uint32_t{1} << level;
            split_ends(chunk_size & (size - 1), level, side, coder);
            for (const support_node& node : blocks_[side]) {
                if (level <= mask_level) {
                    coder.mask(level, node);
                    continue;
                }
                const std::uint32_t lower = coder.split(size, node);
                push(side ^ 1U, level - 1, {node.place, node.base, lower});
                push(side ^ 1U, level - 1, {node.place + lower, node.base + size / 2, node.count - lower});
            }
            for (const support_node& node : leaves_[side]) coder.leaf(level, node);
            blocks_[side].clear();
            leaves_[side].clear();
            ends_[side].clear();
            if (level == 0) return;
        }
    }

 private:
    void push(unsigned side, unsigned level, const support_node& node) {
        if (node.count == 0) return;
        const bool leaf = node.count == 1 || (node.count == 2 && level >= pair_level);
        (leaf ? leaves_ : blocks_)[side].push_back(node);
    }
    /// The ends of chunks whose size is no power of two: `size` positions in a block of 2^level.
    template <class Coder>
    void split_ends(std::uint32_t size, unsigned level, unsigned side, Coder& coder) {
        const std::uint32_t half = (std::uint32_t{1} << level) / 2;
        for (const support_node& node : ends_[side]) {
            if (size < half) {
                ends_[side ^ 1U].push_back(node);
            } else if (size == half) {
                push(side ^ 1U, level - 1, node);
            } else {
                const std::uint32_t lower = coder.split(size, node);
                push(side ^ 1U, level - 1, {node.place, node.base, lower});
                if (lower < node.count)
                    ends_[side ^ 1U].push_back({node.place + lower, node.base + half, node.count - lower});
            }
        }
    }

    std::array<std::vector<support_node>, 2> ends_, blocks_, leaves_;  // of this level and of the next
};

}  // namespace thinwire::detail

#endif  // THINWIRE_CODEC_DETAIL_SUPPORT_WALK_HPP
