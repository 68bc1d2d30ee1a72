#ifndef THINWIRE_TRANSFORM_SPARSE_CHUNK_HPP
#define THINWIRE_TRANSFORM_SPARSE_CHUNK_HPP

#include <thinwire/core/aligned.hpp>
#include <thinwire/transform/chunk_grid.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace thinwire {

/// The coefficients of one chunk that are not zero, grouped by column: even columns first, then odd ones, because
/// the two halves of the inverse transform take them apart. T is float, or double for exact integers.
template <class T>
class sparse_chunk {
 public:
    explicit sparse_chunk(std::size_t max_coefficients) : rows_(max_coefficients), values_(max_coefficients) {}

    /// Takes coefficients (position = row * cols + column, each position once). Precondition: cols <= 256.
    void assign(std::span<const std::uint16_t> positions, std::span<const T> values, std::size_t cols) noexcept {
        std::array<std::uint32_t, chunk_grid::max_target + 1> at{};
        for (const std::uint16_t p : positions) ++at[p % cols];
        slots_ = even_ = 0;
        std::uint32_t sum = 0;
        for (std::size_t parity = 0; parity < 2; ++parity) {
            for (std::size_t c = parity; c < cols; c += 2) {
                const std::uint32_t count = at[c];
                at[c] = sum;
                if (count == 0) continue;
                columns_[slots_] = static_cast<std::uint32_t>(c);
                begin_[slots_++] = sum;
                sum += count;
            }
            if (parity == 0) even_ = slots_;
        }
        begin_[slots_] = sum;
        for (std::size_t i = 0; i < positions.size(); ++i) {
            const std::uint32_t to = at[positions[i] % cols]++;
            rows_[to] = static_cast<std::uint32_t>(positions[i] / cols);
            values_[to] = values[i];
        }
    }

    /// Columns in use, and how many of them are even (they come first).
    [[nodiscard]] std::size_t slots() const noexcept { return slots_; }
    [[nodiscard]] std::size_t even() const noexcept { return even_; }
    [[nodiscard]] std::uint32_t column(std::size_t slot) const noexcept { return columns_[slot]; }
    /// The coefficients of a slot are numbers begin(slot) to begin(slot + 1).
    [[nodiscard]] std::uint32_t begin(std::size_t slot) const noexcept { return begin_[slot]; }
    [[nodiscard]] std::uint32_t row(std::size_t i) const noexcept { return rows_[i]; }
    [[nodiscard]] T value(std::size_t i) const noexcept { return values_[i]; }
    [[nodiscard]] std::size_t memory_bytes() const noexcept { return bytes_held(rows_, values_); }

 private:
    std::size_t slots_ = 0, even_ = 0;
    std::array<std::uint32_t, chunk_grid::max_target> columns_{};
    std::array<std::uint32_t, chunk_grid::max_target + 1> begin_{};
    std::vector<std::uint32_t> rows_;
    std::vector<T> values_;
};

/// Chunks of one row that are transformed together.
inline constexpr std::size_t line_batch = 64;

/// Working memory of the transforms of one thread, for chunks up to the given sides.
struct transform_scratch {
    transform_scratch(std::size_t rows, std::size_t cols) {
        const std::size_t r = (std::max(rows, line_batch) + 31) / 16 * 16;
        const std::size_t c = (cols + 31) / 16 * 16;
        mirrored.resize(2 * r * c);
        middle.resize(r * c);
        tile.resize(r * c);
        coefficients.resize(2 * r * c);
        pass_float.resize(r * c);
        pass_exact.resize(r * c);
        parts_float.resize(8 * c);
        parts_exact.resize(8 * c);
        at.resize(std::max(r, c));
    }

    aligned_vector<float> mirrored, middle;
    aligned_vector<float> tile;          ///< a chunk in space: rows of basis.full() elements
    aligned_vector<float> coefficients;  ///< a chunk in frequency, in the order of spectrum_position()
    aligned_vector<float> pass_float, parts_float;
    aligned_vector<double> pass_exact, parts_exact;
    std::vector<std::uint32_t> at;

    [[nodiscard]] std::size_t memory_bytes() const noexcept {
        return bytes_held(mirrored, middle, tile, coefficients, pass_float, parts_float, pass_exact, parts_exact, at);
    }
    template <class T>
    [[nodiscard]] T* pass() noexcept {
        if constexpr (sizeof(T) == sizeof(float))
            return pass_float.data();
        else
            return pass_exact.data();
    }
    template <class T>
    [[nodiscard]] T* parts() noexcept {
        if constexpr (sizeof(T) == sizeof(float))
            return parts_float.data();
        else
            return parts_exact.data();
    }
};

}  // namespace thinwire

#endif  // THINWIRE_TRANSFORM_SPARSE_CHUNK_HPP
