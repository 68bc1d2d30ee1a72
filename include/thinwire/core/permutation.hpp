#ifndef THINWIRE_CORE_PERMUTATION_HPP
#define THINWIRE_CORE_PERMUTATION_HPP

#include <thinwire/core/error.hpp>
#include <thinwire/core/random.hpp>

#include <bit>
#include <cstdint>
#include <string>

namespace thinwire {

/// A random order of [0, size) that depends only on (size, key) and is computed one element at a time,
/// without a table: a Feistel network over philox on the next even power of two, walked until it lands inside
/// (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002). Fewer than four steps an
/// element on average.
class permutation {
 public:
    /// Throws value_error unless 1 <= size <= 2^62.
    permutation(std::uint64_t size, std::uint64_t key) : size_(size), key_(key) {
        if (size < 1 || size > (std::uint64_t{1} << 62U))
            throw value_error("permutation: size " + std::to_string(size) + ", expected 1..2^62");
        const auto bits = static_cast<unsigned>(std::bit_width(size - 1));
        half_bits_ = bits < 2 ? 1 : (bits + 1) / 2;
        mask_ = (std::uint64_t{1} << half_bits_) - 1;
    }

    [[nodiscard]] std::uint64_t size() const noexcept { return size_; }

    /// Where element i goes; all i of [0, size) go to different places. Precondition: i < size().
    [[nodiscard]] std::uint64_t operator()(std::uint64_t i) const noexcept {
        do {
            i = encipher(i);
        } while (i >= size_);
        return i;
    }

 private:
    static constexpr std::uint64_t rounds = 6;

    [[nodiscard]] std::uint64_t encipher(std::uint64_t x) const noexcept {
        std::uint64_t left = x >> half_bits_;
        std::uint64_t right = x & mask_;
        for (std::uint64_t r = 0; r < rounds; ++r) {
            const std::uint64_t mixed = left ^ (philox(key_, r, right)[0] & mask_);
            left = right;
            right = mixed;
        }
        return (left << half_bits_) | right;
    }

    std::uint64_t size_;
    std::uint64_t key_;
    unsigned half_bits_ = 1;
    std::uint64_t mask_ = 1;
};

}  // namespace thinwire

#endif  // THINWIRE_CORE_PERMUTATION_HPP
