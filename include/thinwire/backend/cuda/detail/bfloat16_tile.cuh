#ifndef THINWIRE_BACKEND_CUDA_DETAIL_BFLOAT16_TILE_CUH
#define THINWIRE_BACKEND_CUDA_DETAIL_BFLOAT16_TILE_CUH

#include <thinwire/backend/cuda/detail/attention_tile.cuh>
#include <thinwire/backend/cuda/detail/map_kernel.cuh>

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace thinwire::cuda::detail {

/// The nearest bfloat16 of each, side by side, the first in the low half.
[[nodiscard]] THINWIRE_KERNEL std::uint32_t two_bfloat16(float low, float high) {
    return std::uint32_t{to_bfloat16(high)} << 16U | to_bfloat16(low);
}

/// For the tensor cores: inputs and weights are rounded to bfloat16, sums are float32. A warp has 16 rows of the fixed
/// tile; its groups of 4 threads are those of the fragments of kernel_thread::multiply_add, so that what a thread holds
/// of a product is what it has to hold of the left side of the next one.
template <unsigned Width, unsigned Moving>
class bfloat16_tile {
 public:
    static constexpr unsigned threads = 128, resident = Width == 64 && Moving == 64 ? 3 : 2;
    static constexpr unsigned fixed = 64, moving = Moving, members = 4;
    static constexpr unsigned rows = 2;
    static constexpr unsigned columns = moving / members;
    static constexpr unsigned dims = Width / members;

    using products = float[rows][columns];
    using sums = float[rows][dims];

 private:
    static constexpr unsigned pitch =
        Width / 2 + 4;                             // words of two elements from row to row: 8 rows, 4 words, 32 banks
    static constexpr unsigned pairs = moving / 2;  // words from element to element, when two rows make a word

    template <unsigned Rows>
    class row_side {
     public:
        static constexpr std::size_t bytes = sizeof(std::uint32_t) * Rows * pitch;
        THINWIRE_KERNEL row_side(shared_memory& area, const char* name)
            : heads(area.take<std::uint32_t>(std::size_t{Rows} * pitch, name)) {}
        /// Tokens first..first + Rows - 1.
        THINWIRE_KERNEL void read(const kernel_thread& self, const head_source& from, unsigned first) const {
            constexpr unsigned words = Width / 2;
            for (unsigned e = self.index(); e < Rows * words; e += threads) {
                const unsigned token = first + e / words, d = e % words * 2;
                heads.store(std::size_t{e / words} * pitch + e % words,
                            two_bfloat16(from.load(token, d), from.load(token, d + 1)));
            }
        }
        device_span<std::uint32_t> heads;
    };

    /// Two tokens a word, for sums over tokens. Words of a row are exchanged so that 8 rows of 4 words, in which they
    /// are written and read, lie in 32 banks.
    class token_side {
     public:
        static constexpr std::size_t bytes = sizeof(std::uint32_t) * Width * pairs;
        THINWIRE_KERNEL token_side(shared_memory& area, const char* name)
            : heads(area.take<std::uint32_t>(std::size_t{Width} * pairs, name)) {}
        [[nodiscard]] THINWIRE_KERNEL static std::size_t place(unsigned d, unsigned pair) {
            constexpr unsigned rows_of_banks = 32 / pairs;
            return std::size_t{d} * pairs + (pair ^ (d / rows_of_banks % (pairs / 4) * 4));
        }
        THINWIRE_KERNEL void read(const kernel_thread& self, const head_source& from, unsigned first) const {
            for (unsigned e = self.index(); e < Width * pairs; e += threads) {
                const unsigned block = e / 32, d = block % (Width / 8) * 8 + e % 8;
                const unsigned pair = block / (Width / 8) * 4 + e % 32 / 8;
                heads.store(place(d, pair),
                            two_bfloat16(from.load(first + 2 * pair, d), from.load(first + 2 * pair + 1, d)));
            }
        }
        device_span<std::uint32_t> heads;
    };

    class both_sides {
     public:
        static constexpr std::size_t bytes = row_side<moving>::bytes + token_side::bytes;
        THINWIRE_KERNEL both_sides(shared_memory& area, const char* name) : rows(area, name), tokens(area, name) {}
        THINWIRE_KERNEL void read(const kernel_thread& self, const head_source& from, unsigned first) const {
            rows.read(self, from, first);
            tokens.read(self, from, first);
        }
        row_side<moving> rows;
        token_side tokens;
    };

 public:
    using fixed_side = row_side<fixed>;
    template <bool Multiplied, bool Added>
    using moving_side =
        std::conditional_t<Multiplied && Added, both_sides, std::conditional_t<Added, token_side, row_side<moving>>>;

    /// Threads need not show each other anything.
    struct room {
        static constexpr std::size_t bytes = 0;
        THINWIRE_KERNEL explicit room(shared_memory&) {}
    };

    THINWIRE_KERNEL explicit bfloat16_tile(const kernel_thread& self)
        : first_row_(self.warp() * 16), group_(self.lane() / members), member_(self.lane() % members) {}

    [[nodiscard]] THINWIRE_KERNEL unsigned row(unsigned i) const { return first_row_ + i * 8 + group_; }
    [[nodiscard]] THINWIRE_KERNEL unsigned column(unsigned j) const { return j / 2 * 8 + member_ * 2 + j % 2; }
    [[nodiscard]] THINWIRE_KERNEL unsigned dim(unsigned n) const { return n / 2 * 8 + member_ * 2 + n % 2; }
    [[nodiscard]] THINWIRE_KERNEL bool leads() const { return member_ == 0; }
    [[nodiscard]] THINWIRE_KERNEL static float rounded(float x) {
        return float_of(std::uint32_t{to_bfloat16(x)} << 16U);
    }

    THINWIRE_KERNEL void multiply(const kernel_thread& self, products& out, const fixed_side& a, const both_sides& b,
                                  unsigned width) const {
        multiply(self, out, a, b.rows, width);
    }
    THINWIRE_KERNEL void multiply(const kernel_thread& self, products& out, const fixed_side& a,
                                  const row_side<moving>& b, unsigned width) const {
        THINWIRE_UNROLL
        for (unsigned i = 0; i < rows; ++i) {
            THINWIRE_UNROLL
            for (unsigned j = 0; j < columns; ++j) out[i][j] = 0.0F;
        }
        for (unsigned d = 0; d < width; d += 16) {
            const std::size_t upper = std::size_t{row(0)} * pitch + d / 2 + member_,
                              lower = upper + std::size_t{8} * pitch;
            const pack<std::uint32_t, 4> left = {
                {a.heads.load(upper), a.heads.load(lower), a.heads.load(upper + 4), a.heads.load(lower + 4)}};
            THINWIRE_UNROLL
            for (unsigned j = 0; j < columns; j += 2) {
                const std::size_t at = std::size_t{j / 2 * 8 + group_} * pitch + d / 2 + member_;
                const pack<std::uint32_t, 2> right = {{b.heads.load(at), b.heads.load(at + 4)}};
                self.multiply_add(out[0][j], out[0][j + 1], out[1][j], out[1][j + 1], left, right);
            }
        }
    }

    THINWIRE_KERNEL void add(const kernel_thread& self, sums& sum, const products& weights, const both_sides& b,
                             const room& by) const {
        add(self, sum, weights, b.tokens, by);
    }
    THINWIRE_KERNEL void add(const kernel_thread& self, sums& sum, const products& weights, const token_side& b,
                             const room&) const {
        THINWIRE_UNROLL
        for (unsigned j = 0; j < columns; j += 4) {
            const pack<std::uint32_t, 4> left = {{two_bfloat16(weights[0][j], weights[0][j + 1]),
                                                  two_bfloat16(weights[1][j], weights[1][j + 1]),
                                                  two_bfloat16(weights[0][j + 2], weights[0][j + 3]),
                                                  two_bfloat16(weights[1][j + 2], weights[1][j + 3])}};
            THINWIRE_UNROLL
            for (unsigned n = 0; n < dims; n += 2) {
                const unsigned d = n / 2 * 8 + group_, pair = j / 4 * 8 + member_;
                const pack<std::uint32_t, 2> right = {
                    {b.heads.load(token_side::place(d, pair)), b.heads.load(token_side::place(d, pair + 4))}};
                self.multiply_add(sum[0][n], sum[0][n + 1], sum[1][n], sum[1][n + 1], left, right);
            }
        }
    }

 private:
    unsigned first_row_, group_, member_;
};

}  // namespace thinwire::cuda::detail

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_BFLOAT16_TILE_CUH
