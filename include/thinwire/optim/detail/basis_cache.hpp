#ifndef THINWIRE_OPTIM_DETAIL_BASIS_CACHE_HPP
#define THINWIRE_OPTIM_DETAIL_BASIS_CACHE_HPP

#include <thinwire/codec/checksum.hpp>
#include <thinwire/core/bytes.hpp>
#include <thinwire/optim/detail/parallel.hpp>
#include <thinwire/transform/basis.hpp>
#include <thinwire/transform/basis_tables.hpp>

#include <cstddef>
#include <cstdint>
#include <map>
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
        const auto known = tables_.find(at);
        if (known != tables_.end()) return &known->second;
        return &tables_.emplace(at, make(at)).first->second;
    }

    /// Brings the tables of a round, where the basis has others for each.
    void set_round(std::uint64_t round, thread_pool* pool) {
        if (!basis_.each_round() || round == round_) return;
        round_ = round;
        std::vector<std::pair<const key, basis_tables>*> all;
        for (auto& entry : tables_) all.push_back(&entry);
        for_each_item(pool, all.size(), [&](std::size_t, std::size_t i) { all[i]->second = make(all[i]->first); });
    }

    /// Differs when the matrices of some side in use do.
    [[nodiscard]] std::uint64_t fingerprint() const {
        byte_writer bytes;
        bytes.put(static_cast<std::uint8_t>(basis_.kind()));
        bytes.put(basis_.seed());
        bytes.put(static_cast<std::uint8_t>(basis_.each_round() ? 1 : 0));
        if (basis_.kind() == basis_kind::custom)
            for (const auto& [at, tables] : tables_)
                for (const std::int32_t entry : basis_.table(at.side)) bytes.put(entry);
        return checksum64(bytes.bytes());
    }

 private:
    struct key {
        std::size_t tensor;
        std::uint32_t axis;
        std::size_t side;
        [[nodiscard]] auto operator<=>(const key&) const noexcept = default;
    };

    [[nodiscard]] basis_tables make(const key& at) const {
        return {basis_.kind(), at.side, basis_.table(at.side, {.round = round_, .tensor = at.tensor, .axis = at.axis})};
    }

    basis basis_;
    std::uint64_t round_ = 0;
    std::map<key, basis_tables> tables_;
};

}  // namespace thinwire::detail

#endif  // THINWIRE_OPTIM_DETAIL_BASIS_CACHE_HPP
