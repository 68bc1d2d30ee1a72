#ifndef THINWIRE_CODEC_DETAIL_SUPPORT_WALK_HPP
#define THINWIRE_CODEC_DETAIL_SUPPORT_WALK_HPP

#include <thinwire/codec/detail/split_tables.hpp>
#include <thinwire/core/aligned.hpp>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace thinwire::detail {

/// A block of places [base, base + 2^level) of a chunk with the `count` chosen ones among them, which in the batch
/// begin at `place`. One word, as parts written one by one and read at once would wait for each other.
class support_node {
 public:
    support_node() noexcept = default;
    /// What is 2^16 or more of place and base is lost; nodes without chosen places have that, and are never looked at.
    support_node(std::uint32_t place, std::uint32_t base, std::uint32_t count) noexcept
        : word_((place & 0xffffU) | (base & 0xffffU) << 16U | std::uint64_t{count} << 32U) {}

    [[nodiscard]] std::uint32_t place() const noexcept { return static_cast<std::uint32_t>(word_ & 0xffffU); }
    [[nodiscard]] std::uint32_t base() const noexcept { return static_cast<std::uint32_t>(word_ >> 16U & 0xffffU); }
    [[nodiscard]] std::uint32_t count() const noexcept { return static_cast<std::uint32_t>(word_ >> 32U); }

 private:
    std::uint64_t word_ = 0;
};

/// Part of the range of a coded symbol: [start, start + frequency) of 2^15.
struct coded_part {
    std::uint16_t start, frequency;
};

/// From blocks of 2^6 on, two chosen places are 2 j - 1 plain bits, which lose at most 0.023 of a bit.
inline constexpr unsigned pair_level = 6;
/// Blocks of at most 2^3 places are coded at once.
inline constexpr unsigned mask_level = 3;
inline constexpr unsigned top_level = 16;

/// Subsets of up to 8 places as bit masks, in rising order for each number of places and of chosen ones.
class subset_table {
 public:
    subset_table() noexcept {
        for (unsigned j = 0; j <= mask_level; ++j) {
            std::uint8_t at = 0;
            for (int count = 0; count <= 1 << j; ++count) {
                begins_[j][static_cast<std::size_t>(count)] = at;
                std::uint8_t rank = 0;
                for (std::uint32_t mask = 0; mask < 1U << (1U << j); ++mask) {
                    if (std::popcount(mask) != count) continue;
                    ++rank;
                    masks_[j][at++] = static_cast<std::uint8_t>(mask);
                }
                sizes_[j][static_cast<std::size_t>(count)] = rank;
                for (std::uint32_t r = 0; r < rank; ++r) {
                    const std::uint32_t from = (r << split_bits) / rank, to = ((r + 1) << split_bits) / rank;
                    const std::size_t i = begins_[j][static_cast<std::size_t>(count)] + r;
                    parts_[j][i] = {static_cast<std::uint16_t>(from), static_cast<std::uint16_t>(to - from)};
                    part_of_mask_[j][masks_[j][i]] = parts_[j][i];
                }
            }
        }
    }
    [[nodiscard]] std::span<const std::uint8_t> masks(unsigned level, std::uint32_t count) const noexcept {
        return {masks_[level].data() + begins_[level][count], sizes_[level][count]};
    }
    /// The part of 2^15 that each of those masks has: parts of equal size but for rounding.
    [[nodiscard]] const coded_part* parts(unsigned level, std::uint32_t count) const noexcept {
        return parts_[level].data() + begins_[level][count];
    }
    /// That of one mask.
    [[nodiscard]] const coded_part& part(unsigned level, std::uint32_t mask) const noexcept {
        return part_of_mask_[level][mask];
    }

 private:
    std::array<std::array<std::uint8_t, 256>, mask_level + 1> masks_{};
    std::array<std::array<coded_part, 256>, mask_level + 1> parts_{}, part_of_mask_{};
    std::array<std::array<std::uint8_t, 10>, mask_level + 1> begins_{}, sizes_{};
};

/// Visits blocks of 2^j places, widest first, in the order in which they are coded. `Coder` either writes or reads:
/// masks(j, nodes) codes blocks of at most 8 places, singles(j, nodes) and pairs(j, nodes) those with one or two chosen
/// places in plain bits; splitter(size, most) gives an object whose split(node) gives the count of the lower half of up
/// to `most` blocks of that size, and which ends with close(): what it needs is in registers meanwhile.
class support_walk {
 public:
    /// Room for blocks with so many chosen places together, and so many seeds of each size.
    void reserve(std::size_t places, std::size_t seeds) {
        for (lists& side : sides_)
            for (list* each : {&side.blocks, &side.singles, &side.pairs}) each->reserve(places + 2);
        for (list& each : seeds_) each.reserve(seeds);
    }
    /// Adds a block of 2^level places for run(); one without chosen places is nothing.
    void seed(unsigned level, const support_node& node) noexcept {
        list& to = seeds_[level];
        to.nodes[to.size] = node;
        to.size += node.count() > 0 ? 1U : 0U;
    }
    /// Visits the seeds and what they are made of. In blocks of one level those cut from wider ones come first.
    template <class Coder>
    void run(Coder& coder) {
        unsigned top = top_level;
        while (top > 0 && seeds_[top].size == 0) --top;
        lists* here = sides_.data();
        lists* next = here + 1;
        for (lists& side : sides_) side.clear();
        for (unsigned level = top;; --level) {
            for (const support_node& node : seeds_[level].used()) push(*here, level, node);
            seeds_[level].size = 0;
            if (level <= mask_level)
                coder.masks(level, here->blocks.used());
            else
                cut(level, *here, *next, coder);
            coder.singles(level, here->singles.used());
            coder.pairs(level, here->pairs.used());
            if (level == 0) return;
            here->clear();
            std::swap(here, next);
        }
    }
    [[nodiscard]] std::size_t memory_bytes() const noexcept {
        std::size_t sum = 0;
        for (const lists& side : sides_) sum += bytes_held(side.blocks.nodes, side.singles.nodes, side.pairs.nodes);
        for (const list& each : seeds_) sum += bytes_held(each.nodes);
        return sum;
    }

 private:
    struct list {
        std::vector<support_node> nodes;
        std::size_t size = 0;

        void reserve(std::size_t room) {
            if (nodes.size() < room) nodes.resize(room);
        }
        [[nodiscard]] std::span<const support_node> used() const noexcept { return {nodes.data(), size}; }
    };
    struct lists {
        list blocks, singles, pairs;

        void clear() noexcept { blocks.size = singles.size = pairs.size = 0; }
    };

    static void push(lists& to, unsigned level, const support_node& node) noexcept {
        const bool single = node.count() == 1, pair = node.count() == 2 && level >= pair_level;
        list& chosen = single ? to.singles : pair ? to.pairs : to.blocks;
        chosen.nodes[chosen.size++] = node;
    }
    /// The lists' sizes while they grow, 21 bits each: one number, that what comes next need not wait for memory.
    class list_sizes {
     public:
        enum kind : unsigned { blocks = 0, singles = 21, pairs = 42 };

        [[nodiscard]] std::size_t of(kind which) const noexcept { return sizes_ >> which & 0x1fffffU; }
        void count(const support_node& node, const std::array<std::uint64_t, 4>& steps) noexcept {
            const auto over = static_cast<std::int32_t>(node.count() - 3);  // compilers make a branch of std::min
            const std::int32_t step = 3 + (over & over >> 31);
            sizes_ += steps[static_cast<std::size_t>(step)];
        }

     private:
        std::uint64_t sizes_ = 0;
    };
    /// Halves all blocks. Which list a half goes to is as good as random: it is written to all and counted in one, so
    /// that there is no branch to guess.
    template <class Coder>
    static void cut(unsigned level, const lists& from, lists& to, Coder& coder) {
        if (from.blocks.size == 0) return;
        constexpr std::uint64_t block = 1, single = 1U << list_sizes::singles;
        const std::uint64_t two = level - 1 >= pair_level ? std::uint64_t{1} << list_sizes::pairs : block;
        const std::array<std::uint64_t, 4> steps = {0, single, two, block};
        support_node* const blocks = to.blocks.nodes.data();
        support_node* const singles = to.singles.nodes.data();
        support_node* const pairs = to.pairs.nodes.data();
        list_sizes sizes;
        const auto put = [&](const support_node& node) {
            blocks[sizes.of(list_sizes::blocks)] = node;
            singles[sizes.of(list_sizes::singles)] = node;
            pairs[sizes.of(list_sizes::pairs)] = node;
            sizes.count(node, steps);
        };
        const std::uint32_t half = (1U << level) / 2;
        auto splitter = coder.splitter(std::uint32_t{1} << level, from.blocks.size);
        for (const support_node& node : from.blocks.used()) {
            const std::uint32_t lower = splitter.split(node);
            put({node.place(), node.base(), lower});
            put({node.place() + lower, node.base() + half, node.count() - lower});
        }
        splitter.close();
        to.blocks.size = sizes.of(list_sizes::blocks);
        to.singles.size = sizes.of(list_sizes::singles);
        to.pairs.size = sizes.of(list_sizes::pairs);
    }

    std::array<lists, 2> sides_;  // blocks of this level and of the next
    std::array<list, top_level + 1> seeds_;
};

}  // namespace thinwire::detail

#endif  // THINWIRE_CODEC_DETAIL_SUPPORT_WALK_HPP
