#ifndef THINWIRE_BACKEND_CUDA_DETAIL_ATTENTION_TILE_CUH
#define THINWIRE_BACKEND_CUDA_DETAIL_ATTENTION_TILE_CUH

#include <thinwire/backend/cuda/device.cuh>
#include <thinwire/nn/backend.hpp>

#include <cstddef>

namespace thinwire::cuda::detail {

/// The largest head_dim that there are kernels for.
inline constexpr unsigned widest_head = 128;

/// How the kernels of attention cut their work. Of each product one side is a tile of `fixed` rows that a block keeps,
/// the other tiles of `moving` rows that pass by; a row is a head of one token, filled up with zeros to `Width`. 16
/// groups of 8 threads: a group has `rows` rows of the fixed tile, and its threads share them by columns.
///
/// Registers: a thread holds rows x columns of a product of heads, and rows x dims of a sum of heads. Shared memory is
/// read four floats at a time; rows are 4 floats apart from a multiple of 32 banks, so that the 8 threads of a group
/// read 8 rows without a conflict.
template <unsigned Width>
struct attention_tile {
    static constexpr unsigned threads = 128;
    static constexpr unsigned fixed = Width == 64 ? 64 : 32;
    static constexpr unsigned moving = Width == 64 ? 32 : 16;
    static constexpr unsigned groups = 16, members = threads / groups;
    static constexpr unsigned rows = fixed / groups;
    static constexpr unsigned columns = moving / members;
    static constexpr unsigned dims = Width / members;
    static constexpr unsigned pitch = Width + 4;          ///< floats from row to row of a tile
    static constexpr unsigned weight_pitch = moving + 4;  ///< of a fixed x moving matrix
    static constexpr std::size_t fixed_floats = std::size_t{fixed} * pitch;
    static constexpr std::size_t moving_floats = std::size_t{moving} * pitch;
    static constexpr std::size_t weight_floats = std::size_t{fixed} * weight_pitch;

    using products = float[rows][columns];
    using sums = float[rows][dims];
    using span = device_span<float>;

    /// Where the heads of one query or key head lie: token t begins at element first + t * stride.
    struct place {
        std::size_t first = 0, stride = 0;
    };

    unsigned group, member;

    THINWIRE_KERNEL explicit attention_tile(const kernel_thread& self)
        : group(self.index() / members), member(self.index() % members) {}

    /// The row of the fixed tile, and the row of the moving one, that products[i][j] belongs to.
    [[nodiscard]] THINWIRE_KERNEL unsigned row(unsigned i) const { return i * groups + group; }
    [[nodiscard]] THINWIRE_KERNEL unsigned column(unsigned j) const { return j * members + member; }
    /// Which element of a head sums[i][n] belongs to.
    [[nodiscard]] THINWIRE_KERNEL unsigned dim(unsigned n) const { return n / 4 * 4 * members + member * 4 + n % 4; }

    /// Tokens from..from + count - 1 into a tile; zeros for those at or beyond `tokens` and for elements beyond
    /// head_dim.
    THINWIRE_KERNEL static void read(const kernel_thread& self, const span& tile, unsigned count,
                                     const device_span<const float>& from, const place& at, unsigned first,
                                     unsigned tokens, unsigned head_dim) {
        for (unsigned e = self.index(); e < count * Width; e += threads) {
            const unsigned r = e / Width, d = e % Width;
            const bool is_there = first + r < tokens && d < head_dim;
            tile.store(std::size_t{r} * pitch + d, is_there ? from.load(at.first + (first + r) * at.stride + d) : 0.0F);
        }
    }

    /// out[i][j] = row(i) of a times row(j) of b, over `width` elements, a multiple of 4 up to Width.
    THINWIRE_KERNEL void multiply(products& out, const span& a, const span& b, unsigned width) const {
        THINWIRE_UNROLL
        for (unsigned i = 0; i < rows; ++i) {
            THINWIRE_UNROLL
            for (unsigned j = 0; j < columns; ++j) out[i][j] = 0.0F;
        }
        for (unsigned d = 0; d < width; d += 4) {
            pack<float, 4> x[rows], y[columns];
            THINWIRE_UNROLL
            for (unsigned i = 0; i < rows; ++i) x[i] = a.template load_pack<4>(std::size_t{row(i)} * pitch + d);
            THINWIRE_UNROLL
            for (unsigned j = 0; j < columns; ++j) y[j] = b.template load_pack<4>(std::size_t{column(j)} * pitch + d);
            THINWIRE_UNROLL
            for (unsigned i = 0; i < rows; ++i) {
                THINWIRE_UNROLL
                for (unsigned j = 0; j < columns; ++j) {
                    THINWIRE_UNROLL
                    for (unsigned e = 0; e < 4; ++e) out[i][j] += x[i].value[e] * y[j].value[e];
                }
            }
        }
    }

    /// Shows the group what its threads have; the rows of a group are nobody else's. What was shown before is read.
    THINWIRE_KERNEL void show(const kernel_thread& self, const products& weights, const span& shown) const {
        self.sync_warp();
        THINWIRE_UNROLL
        for (unsigned i = 0; i < rows; ++i) {
            THINWIRE_UNROLL
            for (unsigned j = 0; j < columns; ++j)
                shown.store(std::size_t{row(i)} * weight_pitch + column(j), weights[i][j]);
        }
        self.sync_warp();
    }

    /// sum[i] += the rows of b, each times what row(i) shows for it.
    THINWIRE_KERNEL void add(sums& sum, const span& shown, const span& b) const {
        for (unsigned j = 0; j < moving; j += 4) {
            pack<float, 4> weight[rows];
            THINWIRE_UNROLL
            for (unsigned i = 0; i < rows; ++i)
                weight[i] = shown.template load_pack<4>(std::size_t{row(i)} * weight_pitch + j);
            THINWIRE_UNROLL
            for (unsigned n = 0; n < 4; ++n) {
                THINWIRE_UNROLL
                for (unsigned d = 0; d < dims; d += 4) {
                    const pack<float, 4> x = b.template load_pack<4>(std::size_t{j + n} * pitch + dim(d));
                    THINWIRE_UNROLL
                    for (unsigned i = 0; i < rows; ++i) {
                        THINWIRE_UNROLL
                        for (unsigned e = 0; e < 4; ++e) sum[i][d + e] += weight[i].value[n] * x.value[e];
                    }
                }
            }
        }
    }

    /// The rows of the fixed tile that are tokens, to memory.
    THINWIRE_KERNEL void write(const sums& sum, const device_span<float>& to, const place& at, unsigned first,
                               unsigned tokens, unsigned head_dim) const {
        THINWIRE_UNROLL
        for (unsigned i = 0; i < rows; ++i) {
            THINWIRE_UNROLL
            for (unsigned n = 0; n < dims; ++n)
                if (first + row(i) < tokens && dim(n) < head_dim)
                    to.store(at.first + (first + row(i)) * at.stride + dim(n), sum[i][n]);
        }
    }

    THINWIRE_KERNEL static void clear(sums& sum) {
        THINWIRE_UNROLL
        for (unsigned i = 0; i < rows; ++i) {
            THINWIRE_UNROLL
            for (unsigned n = 0; n < dims; ++n) sum[i][n] = 0.0F;
        }
    }

    /// Over the threads of a group, for all of them.
    [[nodiscard]] THINWIRE_KERNEL static float group_sum(const kernel_thread& self, float value) {
        for (unsigned mask = members / 2; mask > 0; mask /= 2) value += self.shuffle_xor(value, mask);
        return value;
    }
    [[nodiscard]] THINWIRE_KERNEL static float group_largest(const kernel_thread& self, float value) {
        for (unsigned mask = members / 2; mask > 0; mask /= 2) {
            const float other = self.shuffle_xor(value, mask);
            value = other > value ? other : value;
        }
        return value;
    }
};

/// Sizes of a call, as kernels want them.
struct attention_sizes {
    unsigned tokens = 0, heads = 0, kv_heads = 0, head_dim = 0;
    std::size_t q_stride = 0, kv_stride = 0, o_stride = 0;
    float scale = 0.0F;  ///< 1 / sqrt(head_dim)

    /// What products run over: head_dim, filled up with zeros.
    [[nodiscard]] THINWIRE_KERNEL unsigned width() const { return (head_dim + 3) / 4 * 4; }
    [[nodiscard]] THINWIRE_KERNEL unsigned group() const { return heads / kv_heads; }
};

}  // namespace thinwire::cuda::detail

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_ATTENTION_TILE_CUH
