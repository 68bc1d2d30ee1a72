#ifndef THINWIRE_BACKEND_CUDA_DETAIL_ATTENTION_KERNEL_CUH
#define THINWIRE_BACKEND_CUDA_DETAIL_ATTENTION_KERNEL_CUH

#include <thinwire/backend/cuda/detail/attention_tile.cuh>

#include <cmath>
#include <cstddef>
#include <limits>
#include <string_view>

namespace thinwire::cuda::detail {

/// Sizes of a call, as kernels want them.
struct attention_sizes {
    unsigned tokens = 0, heads = 0, kv_heads = 0, head_dim = 0;
    std::size_t q_stride = 0, kv_stride = 0, o_stride = 0;
    float scale = 0.0F;  ///< 1 / sqrt(head_dim)

    [[nodiscard]] THINWIRE_KERNEL unsigned group() const { return heads / kv_heads; }
    /// Where one head of a batch row lies.
    [[nodiscard]] THINWIRE_KERNEL head_place place(unsigned batch, unsigned head, std::size_t stride) const {
        return {std::size_t{batch} * tokens * stride + std::size_t{head} * head_dim, stride};
    }
    [[nodiscard]] THINWIRE_KERNEL head_source source(const device_span<const float>& from, unsigned batch,
                                                     unsigned head, std::size_t stride) const {
        return {from, place(batch, head, stride), tokens, head_dim};
    }
    /// The entry of token 0 in lse.
    [[nodiscard]] THINWIRE_KERNEL std::size_t lse_row(unsigned batch, unsigned head) const {
        return (std::size_t{batch} * heads + head) * tokens;
    }
};

inline constexpr float no_score = -std::numeric_limits<float>::infinity();

/// Which head and which tile of its tokens a block has: of all heads of a batch the tiles with the most work first.
struct attention_job {
    unsigned batch = 0, head = 0, first = 0;

    /// Work grows with the tokens before a query (rising), and falls with those before a key.
    THINWIRE_KERNEL static attention_job of(unsigned block, unsigned heads, unsigned batches, unsigned tokens,
                                            unsigned tile, bool rising) {
        const unsigned turn = block / (heads * batches), which = block % (heads * batches);
        const unsigned tiles = (tokens + tile - 1) / tile;
        return {which / heads, which % heads, (rising ? tiles - 1 - turn : turn) * tile};
    }
};

/// o and log-sum-exp: a fixed tile of queries a block, over tiles of keys and values, with the softmax as it goes (Dao
/// et al., "FlashAttention", arXiv:2205.14135, algorithm 1).
template <class Tile>
struct attention_kernel {
    using tile = Tile;
    static constexpr std::string_view name = "attention";
    static constexpr unsigned threads = tile::threads;
    static constexpr unsigned resident = tile::resident;

    device_span<float> o, lse;
    device_span<const float> q, k, v;
    attention_sizes s;
    unsigned batches = 0;

    using key_side = typename tile::template moving_side<true, false>;
    using value_side = typename tile::template moving_side<false, true>;
    [[nodiscard]] static constexpr std::size_t shared_bytes() {
        return tile::fixed_side::bytes + key_side::bytes + value_side::bytes + tile::room::bytes;
    }

    THINWIRE_KERNEL void operator()(const kernel_thread& self) const {
        shared_memory area(self);
        const typename tile::fixed_side queries(area, "queries");
        const key_side keys(area, "keys");
        const value_side values(area, "values");
        const typename tile::room room(area);
        const tile t(self);
        const attention_job job = attention_job::of(self.block(), s.heads, batches, s.tokens, tile::fixed, true);
        const head_source key = s.source(k, job.batch, job.head / s.group(), s.kv_stride);
        const head_source value = s.source(v, job.batch, job.head / s.group(), s.kv_stride);
        queries.read(self, s.source(q, job.batch, job.head, s.q_stride), job.first);

        typename tile::sums sum;
        clear_sums<tile>(sum);
        float largest[tile::rows], total[tile::rows];
        THINWIRE_UNROLL
        for (unsigned i = 0; i < tile::rows; ++i) {
            largest[i] = no_score;
            total[i] = 0.0F;
        }
        const unsigned end = job.first + tile::fixed < s.tokens ? job.first + tile::fixed : s.tokens;
        for (unsigned from = 0; from < end; from += tile::moving) {
            self.barrier();
            keys.read(self, key, from);
            values.read(self, value, from);
            self.barrier();
            typename tile::products score;
            t.multiply(self, score, queries, keys, s.head_dim);
            THINWIRE_UNROLL
            for (unsigned i = 0; i < tile::rows; ++i) {
                const unsigned token = job.first + t.row(i);
                float most = largest[i];
                THINWIRE_UNROLL
                for (unsigned j = 0; j < tile::columns; ++j) {
                    const unsigned other = from + t.column(j);
                    score[i][j] = other > token || other >= s.tokens ? no_score : score[i][j] * s.scale;
                    most = score[i][j] > most ? score[i][j] : most;
                }
                most = group_largest<tile>(self, most);  // a number: the first tile has key 0, which all queries see
                const float shrink = expf(largest[i] - most);
                largest[i] = most;
                total[i] *= shrink;
                THINWIRE_UNROLL
                for (unsigned j = 0; j < tile::columns; ++j) {
                    score[i][j] = expf(score[i][j] - most);
                    total[i] += score[i][j];
                }
                THINWIRE_UNROLL
                for (unsigned n = 0; n < tile::dims; ++n) sum[i][n] *= shrink;
            }
            t.add(self, sum, score, values, room);
        }
        THINWIRE_UNROLL
        for (unsigned i = 0; i < tile::rows; ++i) {
            const float all = group_sum<tile>(self, total[i]);
            THINWIRE_UNROLL
            for (unsigned n = 0; n < tile::dims; ++n) sum[i][n] /= all;
            if (t.leads() && job.first + t.row(i) < s.tokens)
                lse.store(s.lse_row(job.batch, job.head) + job.first + t.row(i), largest[i] + logf(all));
        }
        write_sums(t, sum, o, s.place(job.batch, job.head, s.o_stride), job.first, s.tokens, s.head_dim);
    }
};

/// dq, and the products of dout and o that the keys' gradients also need: as the forward kernel.
template <class Tile>
struct attention_query_kernel {
    using tile = Tile;
    static constexpr std::string_view name = "attention_query_gradient";
    static constexpr unsigned threads = tile::threads;
    static constexpr unsigned resident = tile::resident;

    device_span<float> dq, delta;
    device_span<const float> dout, q, k, v, o, lse;
    attention_sizes s;
    unsigned batches = 0;

    using key_side = typename tile::template moving_side<true, true>;
    using value_side = typename tile::template moving_side<true, false>;
    [[nodiscard]] static constexpr std::size_t shared_bytes() {
        return 2 * tile::fixed_side::bytes + key_side::bytes + value_side::bytes + tile::room::bytes +
               sizeof(float) * tile::fixed;
    }

    THINWIRE_KERNEL void operator()(const kernel_thread& self) const {
        shared_memory area(self);
        const typename tile::fixed_side queries(area, "queries"), out(area, "output gradients");
        const key_side keys(area, "keys");
        const value_side values(area, "values");
        const typename tile::room room(area);
        const device_span<float> deltas = area.take<float>(tile::fixed, "deltas");
        const tile t(self);
        const attention_job job = attention_job::of(self.block(), s.heads, batches, s.tokens, tile::fixed, true);
        const std::size_t lse_row = s.lse_row(job.batch, job.head);
        const head_source key = s.source(k, job.batch, job.head / s.group(), s.kv_stride);
        const head_source value = s.source(v, job.batch, job.head / s.group(), s.kv_stride);
        const head_source slope_of_output = s.source(dout, job.batch, job.head, s.o_stride);
        const head_source output = s.source(o, job.batch, job.head, s.o_stride);
        queries.read(self, s.source(q, job.batch, job.head, s.q_stride), job.first);
        out.read(self, slope_of_output, job.first);
        if (self.index() < tile::fixed) {
            const unsigned token = job.first + self.index();
            float sum = 0.0F;
            if (token < s.tokens) {
                // in the order of multiply(): where one key has all the weight, o is its value, and what is
                // subtracted below must be what it is subtracted from
                for (unsigned d = 0; d < s.head_dim; ++d)
                    sum += tile::rounded(slope_of_output.load(token, d)) * output.load(token, d);
                delta.store(lse_row + token, sum);
            }
            deltas.store(self.index(), sum);
        }
        self.barrier();
        float log_sum[tile::rows], mean[tile::rows];
        THINWIRE_UNROLL
        for (unsigned i = 0; i < tile::rows; ++i) {
            const unsigned token = job.first + t.row(i);
            log_sum[i] = token < s.tokens ? lse.load(lse_row + token) : 0.0F;
            mean[i] = deltas.load(t.row(i));
        }
        typename tile::sums sum;
        clear_sums<tile>(sum);
        const unsigned end = job.first + tile::fixed < s.tokens ? job.first + tile::fixed : s.tokens;
        for (unsigned from = 0; from < end; from += tile::moving) {
            self.barrier();
            keys.read(self, key, from);
            values.read(self, value, from);
            self.barrier();
            typename tile::products score, slope;
            t.multiply(self, score, queries, keys, s.head_dim);
            t.multiply(self, slope, out, values, s.head_dim);
            THINWIRE_UNROLL
            for (unsigned i = 0; i < tile::rows; ++i) {
                THINWIRE_UNROLL
                for (unsigned j = 0; j < tile::columns; ++j) {
                    const unsigned token = job.first + t.row(i), other = from + t.column(j);
                    const bool seen = other <= token && token < s.tokens;
                    const float weight = expf(score[i][j] * s.scale - log_sum[i]);
                    slope[i][j] = seen ? weight * (slope[i][j] - mean[i]) * s.scale : 0.0F;
                }
            }
            t.add(self, sum, slope, keys, room);
        }
        write_sums(t, sum, dq, s.place(job.batch, job.head, s.q_stride), job.first, s.tokens, s.head_dim);
    }
};

/// dk and dv: a fixed tile of keys a block, over the tiles of all queries that see them, of all heads that share them.
template <class Tile>
struct attention_key_kernel {
    using tile = Tile;
    static constexpr std::string_view name = "attention_key_gradient";
    static constexpr unsigned threads = tile::threads;
    static constexpr unsigned resident = tile::resident;

    device_span<float> dk, dv;
    device_span<const float> dout, q, k, v, lse, delta;
    attention_sizes s;
    unsigned batches = 0;

    using query_side = typename tile::template moving_side<true, true>;
    [[nodiscard]] static constexpr std::size_t shared_bytes() {
        return 2 * tile::fixed_side::bytes + 2 * query_side::bytes + tile::room::bytes;
    }

    THINWIRE_KERNEL void operator()(const kernel_thread& self) const {
        shared_memory area(self);
        const typename tile::fixed_side keys(area, "keys"), values(area, "values");
        const query_side queries(area, "queries"), out(area, "output gradients");
        const typename tile::room room(area);
        const tile t(self);
        const attention_job job = attention_job::of(self.block(), s.kv_heads, batches, s.tokens, tile::fixed, false);
        keys.read(self, s.source(k, job.batch, job.head, s.kv_stride), job.first);
        values.read(self, s.source(v, job.batch, job.head, s.kv_stride), job.first);
        typename tile::sums key_sum, value_sum;
        clear_sums<tile>(key_sum);
        clear_sums<tile>(value_sum);
        for (unsigned n = 0; n < s.group(); ++n) {
            const unsigned head = job.head * s.group() + n;
            const std::size_t lse_row = s.lse_row(job.batch, head);
            const head_source query = s.source(q, job.batch, head, s.q_stride);
            const head_source slope_of_output = s.source(dout, job.batch, head, s.o_stride);
            for (unsigned from = job.first; from < s.tokens; from += tile::moving) {
                self.barrier();
                queries.read(self, query, from);
                out.read(self, slope_of_output, from);
                self.barrier();
                typename tile::products weight, slope;
                t.multiply(self, weight, keys, queries, s.head_dim);
                t.multiply(self, slope, values, out, s.head_dim);
                THINWIRE_UNROLL
                for (unsigned j = 0; j < tile::columns; ++j) {
                    const unsigned token = from + t.column(j);
                    const float log_sum = token < s.tokens ? lse.load(lse_row + token) : 0.0F;
                    const float mean = token < s.tokens ? delta.load(lse_row + token) : 0.0F;
                    THINWIRE_UNROLL
                    for (unsigned i = 0; i < tile::rows; ++i) {
                        const bool seen = job.first + t.row(i) <= token && token < s.tokens;
                        weight[i][j] = seen ? expf(weight[i][j] * s.scale - log_sum) : 0.0F;
                        slope[i][j] = seen ? weight[i][j] * (slope[i][j] - mean) * s.scale : 0.0F;
                    }
                }
                t.add(self, value_sum, weight, out, room);
                t.add(self, key_sum, slope, queries, room);
            }
        }
        const head_place to = s.place(job.batch, job.head, s.kv_stride);
        write_sums(t, key_sum, dk, to, job.first, s.tokens, s.head_dim);
        write_sums(t, value_sum, dv, to, job.first, s.tokens, s.head_dim);
    }
};

}  // namespace thinwire::cuda::detail

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_ATTENTION_KERNEL_CUH
