#ifndef THINWIRE_CORE_SHAPE_HPP
#define THINWIRE_CORE_SHAPE_HPP

#include <thinwire/core/error.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>
#include <string>

namespace thinwire {

/// The sides of a row-major tensor, outermost first. At most 8 sides, each at least 1.
class shape {
 public:
    static constexpr std::size_t max_rank = 8;

    shape() = default;

    /// Throws shape_error for more than max_rank sides, a side below 1, or a count beyond 2^62.
    shape(std::initializer_list<std::int64_t> sides)
        : shape(std::span<const std::int64_t>(sides.begin(), sides.size())) {}

    explicit shape(std::span<const std::int64_t> sides) {
        if (sides.size() > max_rank)
            throw shape_error("shape: " + std::to_string(sides.size()) + " dimensions, expected at most 8");
        constexpr std::int64_t limit = std::int64_t{1} << 62;
        std::int64_t total = 1;
        for (const std::int64_t side : sides) {
            if (side < 1) throw shape_error("shape: side " + std::to_string(side) + ", expected at least 1");
            if (total > limit / side) throw shape_error("shape: more than 2^62 elements");
            total *= side;
            sides_[rank_++] = side;
        }
    }

    [[nodiscard]] std::size_t rank() const noexcept { return rank_; }
    [[nodiscard]] std::int64_t operator[](std::size_t i) const noexcept { return sides_[i]; }
    [[nodiscard]] const std::int64_t* begin() const noexcept { return sides_.data(); }
    [[nodiscard]] const std::int64_t* end() const noexcept { return sides_.data() + rank_; }

    /// Number of elements; 1 for a shape without sides.
    [[nodiscard]] std::size_t count() const noexcept {
        std::size_t total = 1;
        for (const std::int64_t side : *this) total *= static_cast<std::size_t>(side);
        return total;
    }

    [[nodiscard]] bool operator==(const shape&) const noexcept = default;

 private:
    std::array<std::int64_t, max_rank> sides_{};
    std::size_t rank_ = 0;
};

/// "[768, 3072]".
[[nodiscard]] inline std::string to_string(const shape& s) {
    std::string text = "[";
    for (const std::int64_t side : s) {
        if (text.size() > 1) text += ", ";
        text += std::to_string(side);
    }
    return text + "]";
}

}  // namespace thinwire

#endif  // THINWIRE_CORE_SHAPE_HPP
