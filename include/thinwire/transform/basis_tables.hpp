#ifndef THINWIRE_TRANSFORM_BASIS_TABLES_HPP
#define THINWIRE_TRANSFORM_BASIS_TABLES_HPP

#include <thinwire/core/aligned.hpp>
#include <thinwire/transform/basis.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <span>

namespace thinwire {

/// What the kernels multiply with along one side. Of the DCT, row `f`, column `x` mirrors: entry(f, side-1-x) =
/// (-1)^f entry(f, x), so half of each row is enough and halves the work.
class basis_tables {
 public:
    /// Precondition: `table` is what basis::table() gave for this kind and side.
    basis_tables(basis_kind kind, std::size_t side, std::span<const std::int32_t> table)
        : side_(side),
          mirrored_(kind == basis_kind::dct),
          fast_((mirrored_ || kind == basis_kind::hadamard) && (side == 32 || side == 64)),
          identity_(kind == basis_kind::identity),
          half_(round_up((side + 1) / 2)),
          full_(round_up(side)) {
        synthesis_.resize(side * full_);
        exact_.resize(side * full_);
        if (mirrored_) {
            for (auto* t : {&analysis_even_, &analysis_odd_, &rows_even_, &rows_odd_}) t->resize(half_ * half_);
            synthesis_half_.resize(side * half_);
            exact_half_.resize(side * half_);
        } else {
            analysis_.resize(side * full_);
        }
        assign(table);
    }

    /// Takes another matrix of the same kind and side.
    void assign(std::span<const std::int32_t> table) noexcept {
        for (std::size_t f = 0; f < side_; ++f)
            for (std::size_t x = 0; x < side_; ++x) put(f, x, table[f * side_ + x]);
    }

    [[nodiscard]] std::size_t side() const noexcept { return side_; }
    [[nodiscard]] bool mirrored() const noexcept { return mirrored_; }
    /// ceil(side / 2) and side, rounded up to the width of the tables' rows: multiples of 16.
    [[nodiscard]] std::size_t half() const noexcept { return half_; }
    [[nodiscard]] std::size_t full() const noexcept { return full_; }

    /// Whether this is a DCT or Walsh-Hadamard transform with a fast algorithm, used where both sides of a chunk have
    /// one or the chunk is one row.
    [[nodiscard]] bool fast() const noexcept { return fast_; }
    /// Precondition: fast(). The side is 2^shift.
    [[nodiscard]] unsigned shift() const noexcept { return side_ == 64 ? 6 : 5; }
    [[nodiscard]] bool identity() const noexcept { return identity_; }
    /// Numbers that the kernels store for one row of a spectrum.
    [[nodiscard]] std::size_t spectrum_width() const noexcept { return mirrored_ ? 2 * half_ : full_; }

    /// Mirrored: [frequency / 2][position] for even or odd frequencies, position < ceil(side / 2).
    [[nodiscard]] const float* rows(bool odd) const noexcept { return (odd ? rows_odd_ : rows_even_).data(); }
    /// Mirrored: [position][frequency / 2] for even or odd frequencies.
    [[nodiscard]] const float* analysis(bool odd) const noexcept {
        return (odd ? analysis_odd_ : analysis_even_).data();
    }
    /// Not mirrored: [position][frequency].
    [[nodiscard]] const float* analysis() const noexcept { return analysis_.data(); }

    /// [frequency][position], rows of full() and, mirrored, of half() entries; as float32, or as integers times 2^22 in
    /// doubles.
    template <class T>
    [[nodiscard]] const T* synthesis() const noexcept {
        if constexpr (sizeof(T) == sizeof(float))
            return synthesis_.data();
        else
            return exact_.data();
    }
    template <class T>
    [[nodiscard]] const T* synthesis_half() const noexcept {
        if constexpr (sizeof(T) == sizeof(float))
            return synthesis_half_.data();
        else
            return exact_half_.data();
    }
    [[nodiscard]] std::size_t memory_bytes() const noexcept {
        return bytes_held(analysis_even_, analysis_odd_, rows_even_, rows_odd_, synthesis_, synthesis_half_, analysis_,
                          exact_, exact_half_);
    }

 private:
    [[nodiscard]] static constexpr std::size_t round_up(std::size_t n) noexcept { return (n + 15) / 16 * 16; }

    void put(std::size_t f, std::size_t x, std::int32_t entry) noexcept {
        const auto exact = static_cast<double>(entry);
        exact_[f * full_ + x] = exact;
        if (!mirrored_) {
            synthesis_[f * full_ + x] = analysis_[x * full_ + f] = static_cast<float>(exact * 0x1p-22);
            return;
        }
        const auto n = static_cast<double>(side_);
        const double angle = std::numbers::pi * static_cast<double>((2 * x + 1) * f) / (2.0 * n);
        const auto value = static_cast<float>(std::sqrt((f == 0 ? 1.0 : 2.0) / n) * std::cos(angle));
        synthesis_[f * full_ + x] = value;
        if (x >= (side_ + 1) / 2) return;
        synthesis_half_[f * half_ + x] = value;
        exact_half_[f * half_ + x] = exact;
        (f % 2 == 0 ? rows_even_ : rows_odd_)[f / 2 * half_ + x] = value;
        (f % 2 == 0 ? analysis_even_ : analysis_odd_)[x * half_ + f / 2] = value;
    }

    std::size_t side_;
    bool mirrored_, fast_, identity_;
    std::size_t half_, full_;
    aligned_vector<float> analysis_even_, analysis_odd_, rows_even_, rows_odd_, synthesis_, synthesis_half_, analysis_;
    aligned_vector<double> exact_, exact_half_;
};

/// Where the forward transform of a chunk leaves its coefficients: by columns after the fast transform of both sides;
/// in order where the chunk is one row of it; else by rows, of the DCT even columns first.
struct spectrum_layout {
    const basis_tables& rows;
    const basis_tables& cols;

    [[nodiscard]] bool fast() const noexcept { return rows.fast() && cols.fast(); }
    /// Whether chunks are single rows that are transformed together.
    [[nodiscard]] bool line() const noexcept { return rows.side() == 1 && cols.fast(); }
    /// Numbers stored, some of which may be no coefficients.
    [[nodiscard]] std::size_t size() const noexcept {
        if (line()) return cols.side();
        return rows.side() * (fast() ? cols.side() : cols.spectrum_width());
    }
    /// Where the coefficient of a position (row * width + column) is stored.
    [[nodiscard]] std::size_t place(std::size_t position) const noexcept {
        if (line()) return position;
        if (fast()) return (position & (cols.side() - 1)) << rows.shift() | position >> cols.shift();
        const std::size_t row = position / cols.side(), column = position % cols.side();
        const std::size_t at = cols.mirrored() ? column % 2 * cols.half() + column / 2 : column;
        return row * cols.spectrum_width() + at;
    }
    /// The position that is stored at a place; 2^16 where there is none.
    [[nodiscard]] std::uint32_t position(std::size_t place) const noexcept {
        if (line()) return static_cast<std::uint32_t>(place);
        if (fast())
            return static_cast<std::uint32_t>((place & (rows.side() - 1)) << cols.shift() | place >> rows.shift());
        const std::size_t width = cols.spectrum_width(), at = place % width, half = cols.half();
        const std::size_t column = !cols.mirrored() ? at : at < half ? 2 * at : 2 * (at - half) + 1;
        return column < cols.side() ? static_cast<std::uint32_t>(place / width * cols.side() + column) : 0x10000U;
    }
};

}  // namespace thinwire

#endif  // THINWIRE_TRANSFORM_BASIS_TABLES_HPP
