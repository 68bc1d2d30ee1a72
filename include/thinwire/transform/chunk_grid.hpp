#ifndef THINWIRE_TRANSFORM_CHUNK_GRID_HPP
#define THINWIRE_TRANSFORM_CHUNK_GRID_HPP

#include <thinwire/core/error.hpp>
#include <thinwire/core/shape.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace thinwire {

/// The largest divisor of `n` not above `target`: the side of a chunk along a dimension of n elements.
[[nodiscard]] constexpr std::size_t chunk_side(std::size_t n, std::size_t target) noexcept {
    std::size_t best = 1;
    for (std::size_t d = 1; d <= target && d <= n; ++d)
        if (n % d == 0) best = d;
    return best;
}

/// What is done where the largest divisor of a dimension is below half the target.
enum class chunk_cut : std::uint8_t {
    remainder = 0,  ///< chunks have the target's side; what remains at the end has chunks of its own
    divisors = 1,   ///< chunks have that divisor's side, however small, as in the published code
};

/// A dimension as `count` sides of `side` elements and, unless that is 0, one of `rest` at the end.
struct dimension_cut {
    std::size_t side = 1, count = 1, rest = 0;
};
/// How a dimension of n elements is cut.
[[nodiscard]] constexpr dimension_cut cut_dimension(std::size_t n, std::size_t target, chunk_cut how) noexcept {
    const std::size_t side = chunk_side(n, target);
    if (how == chunk_cut::divisors || n <= target || 2 * side >= target) return {side, n / side, 0};
    return {target, n / target, n % target};
}

/// Chunks of equal sides that are transformed one by one: those of a tensor, or of a region of it. The last two
/// dimensions are cut, those before them are a batch; a tensor of one dimension is one row. Chunks are numbered
/// row-major: batch, row, column.
class chunk_grid {
 public:
    static constexpr std::size_t max_target = 256;

    /// The whole tensor, by chunk_cut::divisors. Throws value_error unless 1 <= target <= 256.
    chunk_grid(const shape& s, std::size_t target) : chunk_grid(s) {
        require_target(target);
        rows_ = chunk_side(height_, target);
        cols_ = chunk_side(width_, target);
        down_ = height_ / rows_;
        across_ = width_ / cols_;
    }

    /// Sides of one chunk.
    [[nodiscard]] std::size_t rows() const noexcept { return rows_; }
    [[nodiscard]] std::size_t cols() const noexcept { return cols_; }
    /// Elements of one chunk: at most 65,536.
    [[nodiscard]] std::size_t chunk_size() const noexcept { return rows_ * cols_; }
    /// Chunks of one matrix, from one to the next below and beside it.
    [[nodiscard]] std::size_t down() const noexcept { return down_; }
    [[nodiscard]] std::size_t across() const noexcept { return across_; }
    /// Number of chunks.
    [[nodiscard]] std::size_t count() const noexcept { return batch_ * down_ * across_; }
    /// Rows of the tensor's matrices, and elements from one to the next.
    [[nodiscard]] std::size_t height() const noexcept { return height_; }
    [[nodiscard]] std::size_t stride() const noexcept { return width_; }

    /// Where the first element of a chunk lies in the tensor. Precondition: chunk < count().
    [[nodiscard]] std::size_t offset(std::size_t chunk) const noexcept {
        const std::size_t column = chunk % across_;
        const std::size_t row = chunk / across_ % down_;
        const std::size_t batch = chunk / across_ / down_;
        return first_ + (batch * height_ + row * rows_) * width_ + column * cols_;
    }

 private:
    friend std::vector<chunk_grid> chunk_regions(const shape& s, std::size_t target, chunk_cut how);

    explicit chunk_grid(const shape& s) noexcept {
        const std::size_t rank = s.rank();
        height_ = rank >= 2 ? static_cast<std::size_t>(s[rank - 2]) : 1;
        width_ = rank >= 1 ? static_cast<std::size_t>(s[rank - 1]) : 1;
        batch_ = s.count() / (height_ * width_);
    }
    static void require_target(std::size_t target) {
        if (target < 1 || target > max_target)
            throw value_error("chunk_grid: chunk " + std::to_string(target) + ", expected 1..256");
    }

    std::size_t batch_ = 1, height_ = 1, width_ = 1;
    std::size_t rows_ = 1, cols_ = 1, down_ = 1, across_ = 1;
    std::size_t first_ = 0;  ///< where the first chunk lies in the tensor
};

/// The regions of a tensor, each cut evenly, which cover it: rows and columns are cut by cut_dimension. First the
/// chunks of whole sides, then the columns that remain to their right, then the rows that remain below, then the
/// corner; regions that would be empty are left out. Throws value_error unless 1 <= target <= 256.
[[nodiscard]] inline std::vector<chunk_grid> chunk_regions(const shape& s, std::size_t target, chunk_cut how) {
    chunk_grid::require_target(target);
    const chunk_grid whole(s);
    const dimension_cut down = cut_dimension(whole.height_, target, how);
    const dimension_cut across = cut_dimension(whole.width_, target, how);
    std::vector<chunk_grid> regions;
    for (const bool below : {false, true})
        for (const bool beside : {false, true}) {
            if ((below && down.rest == 0) || (beside && across.rest == 0)) continue;
            chunk_grid& region = regions.emplace_back(whole);
            region.rows_ = below ? down.rest : down.side;
            region.down_ = below ? 1 : down.count;
            region.cols_ = beside ? across.rest : across.side;
            region.across_ = beside ? 1 : across.count;
            region.first_ =
                (below ? down.side * down.count * whole.width_ : 0) + (beside ? across.side * across.count : 0);
        }
    return regions;
}

}  // namespace thinwire

#endif  // THINWIRE_TRANSFORM_CHUNK_GRID_HPP
