#ifndef THINWIRE_TRANSFORM_CHUNK_GRID_HPP
#define THINWIRE_TRANSFORM_CHUNK_GRID_HPP

#include <thinwire/core/error.hpp>
#include <thinwire/core/shape.hpp>

#include <cstddef>
#include <string>

namespace thinwire {

/// The largest divisor of `n` not above `target`: the side of a chunk along a dimension of n elements.
[[nodiscard]] constexpr std::size_t chunk_side(std::size_t n, std::size_t target) noexcept {
    std::size_t best = 1;
    for (std::size_t d = 1; d <= target && d <= n; ++d)
        if (n % d == 0) best = d;
    return best;
}

/// How a tensor is cut into chunks that are transformed one by one. The last two dimensions are cut, those before
/// them are a batch; a tensor of one dimension is one row. Chunks are numbered row-major: batch, row, column.
class chunk_grid {
 public:
    static constexpr std::size_t max_target = 256;

    /// Throws value_error unless 1 <= target <= 256.
    chunk_grid(const shape& s, std::size_t target) {
        if (target < 1 || target > max_target)
            throw value_error("chunk_grid: chunk " + std::to_string(target) + ", expected 1..256");
        const std::size_t rank = s.rank();
        height_ = rank >= 2 ? static_cast<std::size_t>(s[rank - 2]) : 1;
        width_ = rank >= 1 ? static_cast<std::size_t>(s[rank - 1]) : 1;
        batch_ = s.count() / (height_ * width_);
        rows_ = chunk_side(height_, target);
        cols_ = chunk_side(width_, target);
    }

    /// Sides of one chunk.
    [[nodiscard]] std::size_t rows() const noexcept { return rows_; }
    [[nodiscard]] std::size_t cols() const noexcept { return cols_; }
    /// Elements of one chunk: at most 65,536.
    [[nodiscard]] std::size_t chunk_size() const noexcept { return rows_ * cols_; }
    /// Number of chunks.
    [[nodiscard]] std::size_t count() const noexcept { return batch_ * (height_ / rows_) * (width_ / cols_); }
    /// Elements from one row of a chunk to the next.
    [[nodiscard]] std::size_t stride() const noexcept { return width_; }

    /// Where the first element of a chunk lies in the tensor. Precondition: chunk < count().
    [[nodiscard]] std::size_t offset(std::size_t chunk) const noexcept {
        const std::size_t across = width_ / cols_;
        const std::size_t down = height_ / rows_;
        const std::size_t column = chunk % across;
        const std::size_t row = chunk / across % down;
        const std::size_t batch = chunk / across / down;
        return (batch * height_ + row * rows_) * width_ + column * cols_;
    }

 private:
    std::size_t batch_ = 1, height_ = 1, width_ = 1;
    std::size_t rows_ = 1, cols_ = 1;
};

}  // namespace thinwire

#endif  // THINWIRE_TRANSFORM_CHUNK_GRID_HPP
