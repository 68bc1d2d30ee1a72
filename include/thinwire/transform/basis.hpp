#ifndef THINWIRE_TRANSFORM_BASIS_HPP
#define THINWIRE_TRANSFORM_BASIS_HPP

#include <thinwire/core/error.hpp>
#include <thinwire/transform/dct.hpp>
#include <thinwire/transform/orthogonal.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace thinwire {

/// Which orthonormal matrix a chunk is multiplied with from either side.
enum class basis_kind : std::uint8_t { dct = 0, hadamard = 1, random_orthogonal = 2, identity = 3, custom = 4 };

[[nodiscard]] constexpr std::string_view to_string(basis_kind kind) noexcept {
    constexpr std::string_view names[] = {"dct", "hadamard", "random_orthogonal", "identity", "custom"};
    return names[static_cast<std::size_t>(kind)];
}

/// Fills the table of a side, side * side entries: table[frequency * side + position] = the entry of the orthonormal
/// matrix times 2^basis_bits, rounded. Must give the same integers on every peer of a run.
using basis_function = std::function<void(std::size_t side, std::span<std::int32_t> table)>;

/// An orthonormal matrix for every side from 1 to 256: the transform of a chunk is rows * chunk * transpose(cols).
///
/// The matrix is DEFINED by its integer table (basis_bits fraction bits), made with integer arithmetic alone, so that
/// replicas agree on it bit for bit; faster ways to multiply with it are chosen by the kind. A plain value; reading it
/// from several threads is safe.
class basis {
 public:
    /// The DCT-II, as the published code uses it.
    basis() noexcept = default;
    [[nodiscard]] static basis dct() noexcept { return {}; }
    /// Walsh-Hadamard in Paley's order, in which a row's number grows with its frequency. A side that is 2^p * q, q
    /// odd: 2^p blocks of the DCT-II of q, joined by a Hadamard matrix (q = side: the DCT).
    [[nodiscard]] static basis hadamard() noexcept { return basis(basis_kind::hadamard, 0, false); }
    /// Drawn uniformly from the orthogonal matrices, one for each side; with `each_round`, a new one for every round,
    /// tensor, axis and side: regions of a tensor share it along an axis where their chunks have equal sides.
    [[nodiscard]] static basis random_orthogonal(std::uint64_t seed, bool each_round = false) noexcept {
        return basis(basis_kind::random_orthogonal, seed, each_round);
    }
    /// No transform: the largest elements of the momentum are sent.
    [[nodiscard]] static basis identity() noexcept { return basis(basis_kind::identity, 0, false); }
    /// The integrator's own. Throws value_error when `fill` is empty.
    [[nodiscard]] static basis custom(basis_function fill) {
        if (!fill) throw value_error("basis::custom: an empty function, expected one that fills the table of a side");
        basis b(basis_kind::custom, 0, false);
        b.fill_ = std::move(fill);
        return b;
    }

    [[nodiscard]] basis_kind kind() const noexcept { return kind_; }
    [[nodiscard]] std::uint64_t seed() const noexcept { return seed_; }
    /// Whether the tables depend on round, tensor and axis.
    [[nodiscard]] bool each_round() const noexcept { return each_round_; }

    /// What a table depends on besides the side, where each_round() is true.
    struct place {
        std::uint64_t round = 0;
        std::uint64_t tensor = 0;
        std::uint32_t axis = 0;  ///< 0: rows of a chunk, 1: columns
    };

    /// The table of a side: entry (frequency, position) at frequency * side + position.
    /// Throws value_error when the side is not within 1..256, or when a custom function's table is not orthonormal.
    [[nodiscard]] std::vector<std::int32_t> table(std::size_t side, const place& at) const {
        std::vector<std::int32_t> out(side <= 256 ? side * side : 0);
        write_table(side, at, out);
        return out;
    }
    [[nodiscard]] std::vector<std::int32_t> table(std::size_t side) const { return table(side, place{}); }
    /// The same into memory of the caller: side * side entries.
    void write_table(std::size_t side, const place& at, std::span<std::int32_t> out) const {
        if (side < 1 || side > 256) throw value_error("basis: side " + std::to_string(side) + ", expected 1..256");
        if (kind_ == basis_kind::random_orthogonal) {
            const std::uint64_t stream = each_round_ ? (2 * at.tensor + at.axis) << 9U | side : side;
            fill_random_orthogonal(seed_ + (each_round_ ? 0x9E3779B97F4A7C15U * (at.round + 1) : 0), stream, side, out);
        } else if (kind_ == basis_kind::custom) {
            fill_(side, out);
            require_orthonormal(side, out);
        } else {
            fill_regular(side, out);
        }
    }

 private:
    basis(basis_kind kind, std::uint64_t seed, bool each_round) noexcept
        : kind_(kind), each_round_(each_round), seed_(seed) {}

    void fill_regular(std::size_t side, std::span<std::int32_t> out) const {
        for (std::size_t f = 0; f < side; ++f)
            for (std::size_t x = 0; x < side; ++x) {
                std::int64_t entry = f == x ? std::int64_t{1} << basis_bits : 0;
                if (kind_ == basis_kind::dct)
                    entry = dct_entry(static_cast<std::int64_t>(side), static_cast<std::int64_t>(f),
                                      static_cast<std::int64_t>(x));
                if (kind_ == basis_kind::hadamard) entry = hadamard_entry(side, f, x);
                out[f * side + x] = static_cast<std::int32_t>(entry);
            }
    }

    /// Rows that are roundings of orthonormal ones pass: their products are off by 2^26 + 64 at most.
    static void require_orthonormal(std::size_t side, std::span<const std::int32_t> table) {
        for (std::size_t f = 0; f < side; ++f) {
            for (std::size_t g = 0; g <= f; ++g) {
                std::int64_t product = f == g ? -(std::int64_t{1} << (2 * basis_bits)) : 0;
                for (std::size_t x = 0; x < side; ++x) {
                    const std::int64_t a = table[f * side + x], b = table[g * side + x];
                    if (a > (1 << basis_bits) || a < -(1 << basis_bits))
                        throw value_error("basis: entry " + std::to_string(a) + " of side " + std::to_string(side) +
                                          ", expected at most 2^22 in magnitude");
                    product += a * b;
                }
                if (product > (1 << 27) || product < -(1 << 27))
                    throw value_error("basis: rows " + std::to_string(g) + " and " + std::to_string(f) + " of side " +
                                      std::to_string(side) + " are " +
                                      std::to_string(static_cast<double>(product) * 0x1p-44) +
                                      " from orthonormal, expected within 2^-17");
            }
        }
    }

    basis_kind kind_ = basis_kind::dct;
    bool each_round_ = false;
    std::uint64_t seed_ = 0;
    basis_function fill_;
};

}  // namespace thinwire

#endif  // THINWIRE_TRANSFORM_BASIS_HPP
