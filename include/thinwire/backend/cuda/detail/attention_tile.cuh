#ifndef THINWIRE_BACKEND_CUDA_DETAIL_ATTENTION_TILE_CUH
#define THINWIRE_BACKEND_CUDA_DETAIL_ATTENTION_TILE_CUH

#include <thinwire/backend/cuda/device.cuh>

#include <cstddef>

namespace thinwire::cuda::detail {

/// The largest head_dim that there are kernels for.
inline constexpr unsigned widest_head = 128;

/// Where the heads of one query or key head lie: token t begins at element first + t * stride.
struct head_place {
    std::size_t first = 0, stride = 0;
};

/// Heads that a block works with: `first` is the first token of its tile, and what is not there counts as zeros.
struct head_source {
    device_span<const float> from;
    head_place at;
    unsigned tokens = 0, head_dim = 0;

    [[nodiscard]] THINWIRE_KERNEL float load(unsigned token, unsigned d) const {
        return token < tokens && d < head_dim ? from.load(at.first + token * at.stride + d) : 0.0F;
    }
};

// How the kernels of attention cut their work. Of each product one side is a tile of `fixed` rows that a block keeps,
// the other tiles of `moving` rows that pass by; a row is a head of one token, filled up with zeros to `Width`. Threads
// form groups: a group has `rows` rows of the fixed tile, which are nobody else's, and its threads share them by
// columns. A thread holds products[i][j], of row(i) with column(j), and sums[i][n], element dim(n) of row(i).
//
// There are two such cuts: float_tile here, and bfloat16_tile for the tensor cores.

/// Over the threads of a group, for all of them.
template <class Tile>
[[nodiscard]] THINWIRE_KERNEL float group_sum(const kernel_thread& self, float value) {
    for (unsigned mask = Tile::members / 2; mask > 0; mask /= 2) value += self.shuffle_xor(value, mask);
    return value;
}
template <class Tile>
[[nodiscard]] THINWIRE_KERNEL float group_largest(const kernel_thread& self, float value) {
    for (unsigned mask = Tile::members / 2; mask > 0; mask /= 2) {
        const float other = self.shuffle_xor(value, mask);
        value = other > value ? other : value;
    }
    return value;
}

template <class Tile>
THINWIRE_KERNEL void clear_sums(typename Tile::sums& sum) {
    THINWIRE_UNROLL
    for (unsigned i = 0; i < Tile::rows; ++i) {
        THINWIRE_UNROLL
        for (unsigned n = 0; n < Tile::dims; ++n) sum[i][n] = 0.0F;
    }
}

/// The rows of the fixed tile that are tokens, to memory.
template <class Tile>
THINWIRE_KERNEL void write_sums(const Tile& t, const typename Tile::sums& sum, const device_span<float>& to,
                                const head_place& at, unsigned first, unsigned tokens, unsigned head_dim) {
    THINWIRE_UNROLL
    for (unsigned i = 0; i < Tile::rows; ++i) {
        THINWIRE_UNROLL
        for (unsigned n = 0; n < Tile::dims; ++n)
            if (first + t.row(i) < tokens && t.dim(n) < head_dim)
                to.store(at.first + (first + t.row(i)) * at.stride + t.dim(n), sum[i][n]);
    }
}

/// Float32 throughout: 16 groups of 8 threads. Shared memory is read four floats at a time; rows are 4 floats apart
/// from a multiple of 32 banks, so that the 8 threads of a group read 8 rows without a conflict.
template <unsigned Width>
class float_tile {
 public:
    static constexpr unsigned threads = 128, resident = 3;
    static constexpr unsigned fixed = Width == 64 ? 64 : 32;
    static constexpr unsigned moving = Width == 64 ? 32 : 16;
    static constexpr unsigned groups = 16, members = threads / groups;
    static constexpr unsigned rows = fixed / groups;
    static constexpr unsigned columns = moving / members;
    static constexpr unsigned dims = Width / members;

    using products = float[rows][columns];
    using sums = float[rows][dims];

 private:
    static constexpr unsigned pitch = Width + 4;         // floats from row to row of a tile
    static constexpr unsigned shown_pitch = moving + 4;  // of a fixed x moving matrix

    template <unsigned Rows>
    class side {
     public:
        static constexpr std::size_t bytes = sizeof(float) * Rows * pitch;
        THINWIRE_KERNEL side(shared_memory& area, const char* name)
            : heads(area.take<float>(std::size_t{Rows} * pitch, name)) {}
        /// Tokens first..first + Rows - 1.
        THINWIRE_KERNEL void read(const kernel_thread& self, const head_source& from, unsigned first) const {
            for (unsigned e = self.index(); e < Rows * Width; e += threads)
                heads.store(std::size_t{e / Width} * pitch + e % Width, from.load(first + e / Width, e % Width));
        }
        device_span<float> heads;
    };

 public:
    using fixed_side = side<fixed>;
    /// Multiplied: for multiply(). Added: for add().
    template <bool Multiplied, bool Added>
    using moving_side = side<moving>;

    /// Where the threads of a group show each other what they have.
    class room {
     public:
        static constexpr std::size_t bytes = sizeof(float) * fixed * shown_pitch;
        THINWIRE_KERNEL explicit room(shared_memory& area)
            : shown(area.take<float>(std::size_t{fixed} * shown_pitch, "weights")) {}
        device_span<float> shown;
    };

    THINWIRE_KERNEL explicit float_tile(const kernel_thread& self)
        : group_(self.index() / members), member_(self.index() % members) {}

    [[nodiscard]] THINWIRE_KERNEL unsigned row(unsigned i) const { return i * groups + group_; }
    [[nodiscard]] THINWIRE_KERNEL unsigned column(unsigned j) const { return j * members + member_; }
    [[nodiscard]] THINWIRE_KERNEL unsigned dim(unsigned n) const { return n / 4 * 4 * members + member_ * 4 + n % 4; }
    /// One thread of each group.
    [[nodiscard]] THINWIRE_KERNEL bool leads() const { return member_ == 0; }
    /// A number as multiply() takes it.
    [[nodiscard]] THINWIRE_KERNEL static float rounded(float x) { return x; }

    /// out[i][j] = row(i) of a times row column(j) of b, over so many elements at least.
    THINWIRE_KERNEL void multiply(const kernel_thread&, products& out, const fixed_side& a, const side<moving>& b,
                                  unsigned width) const {
        THINWIRE_UNROLL
        for (unsigned i = 0; i < rows; ++i) {
            THINWIRE_UNROLL
            for (unsigned j = 0; j < columns; ++j) out[i][j] = 0.0F;
        }
        for (unsigned d = 0; d < width; d += 4) {
            pack<float, 4> x[rows], y[columns];
            THINWIRE_UNROLL
            for (unsigned i = 0; i < rows; ++i) x[i] = a.heads.template load_pack<4>(std::size_t{row(i)} * pitch + d);
            THINWIRE_UNROLL
            for (unsigned j = 0; j < columns; ++j)
                y[j] = b.heads.template load_pack<4>(std::size_t{column(j)} * pitch + d);
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

    /// sum[i] += the rows of b, each times the weight that row(i) has for it.
    THINWIRE_KERNEL void add(const kernel_thread& self, sums& sum, const products& weights, const side<moving>& b,
                             const room& by) const {
        self.sync_warp();  // what was shown before is read
        THINWIRE_UNROLL
        for (unsigned i = 0; i < rows; ++i) {
            THINWIRE_UNROLL
            for (unsigned j = 0; j < columns; ++j)
                by.shown.store(std::size_t{row(i)} * shown_pitch + column(j), weights[i][j]);
        }
        self.sync_warp();
        for (unsigned j = 0; j < moving; j += 4) {
            pack<float, 4> weight[rows];
            THINWIRE_UNROLL
            for (unsigned i = 0; i < rows; ++i)
                weight[i] = by.shown.template load_pack<4>(std::size_t{row(i)} * shown_pitch + j);
            THINWIRE_UNROLL
            for (unsigned n = 0; n < 4; ++n) {
                THINWIRE_UNROLL
                for (unsigned d = 0; d < dims; d += 4) {
                    const pack<float, 4> x = b.heads.template load_pack<4>(std::size_t{j + n} * pitch + dim(d));
                    THINWIRE_UNROLL
                    for (unsigned i = 0; i < rows; ++i) {
                        THINWIRE_UNROLL
                        for (unsigned e = 0; e < 4; ++e) sum[i][d + e] += weight[i].value[n] * x.value[e];
                    }
                }
            }
        }
    }

 private:
    unsigned group_, member_;
};

}  // namespace thinwire::cuda::detail

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_ATTENTION_TILE_CUH
