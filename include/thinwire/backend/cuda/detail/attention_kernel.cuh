#ifndef THINWIRE_BACKEND_CUDA_DETAIL_ATTENTION_KERNEL_CUH
#define THINWIRE_BACKEND_CUDA_DETAIL_ATTENTION_KERNEL_CUH

#include <thinwire/backend/cuda/detail/attention_tile.cuh>

#include <cmath>
#include <cstddef>
#include <limits>
#include <string_view>

namespace thinwire::cuda::detail {

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

/// o and log-sum-exp: 64 or 32 queries a block, over tiles of keys and values, with the softmax as it goes (Dao et al.,
/// "FlashAttention", arXiv:2205.14135, algorithm 1).
template <unsigned Width>
struct attention_kernel {
    using tile = attention_tile<Width>;
    static constexpr std::string_view name = "attention";
    static constexpr unsigned threads = tile::threads;
    static constexpr unsigned resident = 3;

    device_span<float> o, lse;
    device_span<const float> q, k, v;
    attention_sizes s;
    unsigned batches = 0;

    [[nodiscard]] static constexpr std::size_t shared_bytes() {
        return sizeof(float) * (tile::fixed_floats + 2 * tile::moving_floats + tile::weight_floats);
    }

    THINWIRE_KERNEL void operator()(const kernel_thread& self) const {
        shared_memory area(self);
        const device_span<float> queries = area.take<float>(tile::fixed_floats, "queries");
        const device_span<float> keys = area.take<float>(tile::moving_floats, "keys");
        const device_span<float> values = area.take<float>(tile::moving_floats, "values");
        const device_span<float> shown = area.take<float>(tile::weight_floats, "weights");
        const tile t(self);
        const attention_job job = attention_job::of(self.block(), s.heads, batches, s.tokens, tile::fixed, true);
        const std::size_t row = std::size_t{job.batch} * s.tokens;
        const typename tile::place query = {row * s.q_stride + std::size_t{job.head} * s.head_dim, s.q_stride};
        const typename tile::place key = {row * s.kv_stride + std::size_t{job.head / s.group()} * s.head_dim,
                                          s.kv_stride};
        tile::read(self, queries, tile::fixed, q, query, job.first, s.tokens, s.head_dim);

        typename tile::sums sum;
        tile::clear(sum);
        float largest[tile::rows], total[tile::rows];
        THINWIRE_UNROLL
        for (unsigned i = 0; i < tile::rows; ++i) {
            largest[i] = no_score;
            total[i] = 0.0F;
        }
        const unsigned end = job.first + tile::fixed < s.tokens ? job.first + tile::fixed : s.tokens;
        for (unsigned from = 0; from < end; from += tile::moving) {
            self.barrier();
            tile::read(self, keys, tile::moving, k, key, from, s.tokens, s.head_dim);
            tile::read(self, values, tile::moving, v, key, from, s.tokens, s.head_dim);
            self.barrier();
            typename tile::products score;
            t.multiply(score, queries, keys, s.width());
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
                most = tile::group_largest(self, most);  // a number: the first tile has key 0, which all queries see
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
            t.show(self, score, shown);
            t.add(sum, shown, values);
        }
        const std::size_t lse_row = (std::size_t{job.batch} * s.heads + job.head) * s.tokens;
        THINWIRE_UNROLL
        for (unsigned i = 0; i < tile::rows; ++i) {
            const float all = tile::group_sum(self, total[i]);
            THINWIRE_UNROLL
            for (unsigned n = 0; n < tile::dims; ++n) sum[i][n] /= all;
            if (t.member == 0 && job.first + t.row(i) < s.tokens)
                lse.store(lse_row + job.first + t.row(i), largest[i] + logf(all));
        }
        t.write(sum, o, {row * s.o_stride + std::size_t{job.head} * s.head_dim, s.o_stride}, job.first, s.tokens,
                s.head_dim);
    }
};

/// dq, and the products of dout and o that the keys' gradients also need: as the forward kernel.
template <unsigned Width>
struct attention_query_kernel {
    using tile = attention_tile<Width>;
    static constexpr std::string_view name = "attention_query_gradient";
    static constexpr unsigned threads = tile::threads;
    static constexpr unsigned resident = 3;

    device_span<float> dq, delta;
    device_span<const float> dout, q, k, v, o, lse;
    attention_sizes s;
    unsigned batches = 0;

    [[nodiscard]] static constexpr std::size_t shared_bytes() {
        return sizeof(float) * (2 * tile::fixed_floats + 2 * tile::moving_floats + tile::weight_floats + tile::fixed);
    }

    THINWIRE_KERNEL void operator()(const kernel_thread& self) const {
        shared_memory area(self);
        const device_span<float> queries = area.take<float>(tile::fixed_floats, "queries");
        const device_span<float> out = area.take<float>(tile::fixed_floats, "output gradients");
        const device_span<float> keys = area.take<float>(tile::moving_floats, "keys");
        const device_span<float> values = area.take<float>(tile::moving_floats, "values");
        const device_span<float> shown = area.take<float>(tile::weight_floats, "weights");
        const device_span<float> deltas = area.take<float>(tile::fixed, "deltas");
        const tile t(self);
        const attention_job job = attention_job::of(self.block(), s.heads, batches, s.tokens, tile::fixed, true);
        const std::size_t row = std::size_t{job.batch} * s.tokens;
        const std::size_t lse_row = (std::size_t{job.batch} * s.heads + job.head) * s.tokens;
        const typename tile::place query = {row * s.q_stride + std::size_t{job.head} * s.head_dim, s.q_stride};
        const typename tile::place output = {row * s.o_stride + std::size_t{job.head} * s.head_dim, s.o_stride};
        const typename tile::place key = {row * s.kv_stride + std::size_t{job.head / s.group()} * s.head_dim,
                                          s.kv_stride};
        tile::read(self, queries, tile::fixed, q, query, job.first, s.tokens, s.head_dim);
        tile::read(self, out, tile::fixed, dout, output, job.first, s.tokens, s.head_dim);
        self.barrier();
        if (self.index() < tile::fixed) {
            const unsigned token = job.first + self.index();
            float sum = 0.0F;
            if (token < s.tokens) {
                // in the order of multiply(): where one key has all the weight, o is its value, and what is
                // subtracted below must be what it is subtracted from
                for (unsigned d = 0; d < s.head_dim; ++d)
                    sum += out.load(std::size_t{self.index()} * tile::pitch + d) *
                           o.load(output.first + token * output.stride + d);
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
        tile::clear(sum);
        const unsigned end = job.first + tile::fixed < s.tokens ? job.first + tile::fixed : s.tokens;
        for (unsigned from = 0; from < end; from += tile::moving) {
            self.barrier();
            tile::read(self, keys, tile::moving, k, key, from, s.tokens, s.head_dim);
            tile::read(self, values, tile::moving, v, key, from, s.tokens, s.head_dim);
            self.barrier();
            typename tile::products score, slope;
            t.multiply(score, queries, keys, s.width());
            t.multiply(slope, out, values, s.width());
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
            t.show(self, slope, shown);
            t.add(sum, shown, keys);
        }
        t.write(sum, dq, query, job.first, s.tokens, s.head_dim);
    }
};

/// dk and dv: 64 or 32 keys a block, over the tiles of all queries that see them, of all heads that share them.
template <unsigned Width>
struct attention_key_kernel {
    using tile = attention_tile<Width>;
    static constexpr std::string_view name = "attention_key_gradient";
    static constexpr unsigned threads = tile::threads;
    static constexpr unsigned resident = 3;

    device_span<float> dk, dv;
    device_span<const float> dout, q, k, v, lse, delta;
    attention_sizes s;
    unsigned batches = 0;

    [[nodiscard]] static constexpr std::size_t shared_bytes() {
        return sizeof(float) * (2 * tile::fixed_floats + 2 * tile::moving_floats + tile::weight_floats);
    }

    THINWIRE_KERNEL void operator()(const kernel_thread& self) const {
        shared_memory area(self);
        const device_span<float> keys = area.take<float>(tile::fixed_floats, "keys");
        const device_span<float> values = area.take<float>(tile::fixed_floats, "values");
        const device_span<float> queries = area.take<float>(tile::moving_floats, "queries");
        const device_span<float> out = area.take<float>(tile::moving_floats, "output gradients");
        const device_span<float> shown = area.take<float>(tile::weight_floats, "weights");
        const tile t(self);
        const attention_job job = attention_job::of(self.block(), s.kv_heads, batches, s.tokens, tile::fixed, false);
        const std::size_t row = std::size_t{job.batch} * s.tokens;
        const typename tile::place key = {row * s.kv_stride + std::size_t{job.head} * s.head_dim, s.kv_stride};
        tile::read(self, keys, tile::fixed, k, key, job.first, s.tokens, s.head_dim);
        tile::read(self, values, tile::fixed, v, key, job.first, s.tokens, s.head_dim);
        typename tile::sums key_sum, value_sum;
        tile::clear(key_sum);
        tile::clear(value_sum);
        for (unsigned n = 0; n < s.group(); ++n) {
            const unsigned head = job.head * s.group() + n;
            const std::size_t lse_row = (std::size_t{job.batch} * s.heads + head) * s.tokens;
            const typename tile::place query = {row * s.q_stride + std::size_t{head} * s.head_dim, s.q_stride};
            const typename tile::place output = {row * s.o_stride + std::size_t{head} * s.head_dim, s.o_stride};
            for (unsigned from = job.first; from < s.tokens; from += tile::moving) {
                self.barrier();
                tile::read(self, queries, tile::moving, q, query, from, s.tokens, s.head_dim);
                tile::read(self, out, tile::moving, dout, output, from, s.tokens, s.head_dim);
                self.barrier();
                typename tile::products weight, slope;
                t.multiply(weight, keys, queries, s.width());
                t.multiply(slope, values, out, s.width());
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
                t.show(self, weight, shown);
                t.add(value_sum, shown, out);
                t.show(self, slope, shown);
                t.add(key_sum, shown, queries);
            }
        }
        t.write(key_sum, dk, key, job.first, s.tokens, s.head_dim);
        t.write(value_sum, dv, key, job.first, s.tokens, s.head_dim);
    }
};

}  // namespace thinwire::cuda::detail

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_ATTENTION_KERNEL_CUH
