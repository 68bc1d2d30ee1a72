#ifndef THINWIRE_OPTIM_DETAIL_BASIS_CACHE_HPP
#define THINWIRE_OPTIM_DETAIL_BASIS_CACHE_HPP

#include <thinwire/codec/checksum.hpp>
#include <thinwire/core/aligned.hpp>
#include <thinwire/core/bytes.hpp>
#include <thinwire/optim/detail/parallel.hpp>
#include <thinwire/transform/basis.hpp>
#include <thinwire/transform/basis_tables.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace thinwire::detail {

/// The tables of every side in use: one set for all tensors, or one for each tensor and round.
class basis_cache {
 public:
    explicit basis_cache(basis of) : basis_(std::move(of)) {}

    /// Stays where it is; set_round() may change what it holds. Throws what basis::table() throws.
    const basis_tables* get(std::size_t side, std::size_t tensor, std::uint32_t axis) {
        const key at = {basis_.each_round() ? tensor : 0, basis_.each_round() ? axis : 0, side};
        for (const auto& known : entries_)
            if (known->at == at) return &known->tables;
        entries_.push_back(std::make_unique<entry>(at, make(at)));
        return &entries_.back()->tables;
    }

    /// The working memory of set_round(): once for all rounds.
    void reserve(thread_pool* pool) {
        if (!basis_.each_round() || lanes_.size() == lane_count(pool)) return;
        std::size_t side = 0;
        for (const auto& e : entries_) side = std::max(side, e->at.side);
        lanes_.assign(lane_count(pool), std::vector<std::int32_t>(side * side));
    }
    /// Brings the tables of a round, where the basis has others for each.
    void set_round(std::uint64_t round, thread_pool* pool) {
        if (!basis_.each_round() || round == round_) return;
        reserve(pool);
        round_ = round;
        for_each_item(pool, entries_.size(), [&](std::size_t lane, std::size_t i) {
            entry& e = *entries_[i];
            const auto memory = std::span(lanes_[lane]).first(e.at.side * e.at.side);
            basis_.write_table(e.at.side, place_of(e.at), memory);
            e.tables.assign(memory);
        });
    }

    /// Differs when the matrices of some side in use do.
    [[nodiscard]] std::uint64_t fingerprint() const {
        byte_writer bytes;
        bytes.put(static_cast<std::uint8_t>(basis_.kind()));
        bytes.put(basis_.seed());
        bytes.put(static_cast<std::uint8_t>(basis_.each_round() ? 1 : 0));
        if (basis_.kind() == basis_kind::custom)
            for (const auto& e : entries_)
                for (const std::int32_t number : basis_.table(e->at.side)) bytes.put(number);
        return checksum64(bytes.bytes());
    }
    /// Without what a custom basis' function holds.
    [[nodiscard]] std::size_t memory_bytes() const noexcept {
        std::size_t sum = bytes_held(entries_, lanes_);
        for (const auto& e : entries_) sum += sizeof(entry) + e->tables.memory_bytes();
        for (const auto& lane : lanes_) sum += bytes_held(lane);
        return sum;
    }

 private:
    struct key {
        std::size_t tensor;
        std::uint32_t axis;
        std::size_t side;
        [[nodiscard]] bool operator==(const key&) const noexcept = default;
    };
    struct entry {
        entry(const key& where, basis_tables&& made) : at(where), tables(std::move(made)) {}
        key at;
        basis_tables tables;
    };

    [[nodiscard]] basis_tables make(const key& at) const {
        return {basis_.kind(), at.side, basis_.table(at.side, place_of(at))};
    }
    [[nodiscard]] basis::place place_of(const key& at) const noexcept {
        return {.round = round_, .tensor = at.tensor, .axis = at.axis};
    }

    basis basis_;
    std::uint64_t round_ = 0;
    std::vector<std::unique_ptr<entry>> entries_;  // in the order of their first use
    std::vector<std::vector<std::int32_t>> lanes_;
};

}  // namespace thinwire::detail

#endif  // THINWIRE_OPTIM_DETAIL_BASIS_CACHE_HPP
