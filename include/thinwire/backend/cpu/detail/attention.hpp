#ifndef THINWIRE_BACKEND_CPU_DETAIL_ATTENTION_HPP
#define THINWIRE_BACKEND_CPU_DETAIL_ATTENTION_HPP

#include <thinwire/backend/cpu/detail/gemm.hpp>
#include <thinwire/backend/cpu/detail/kernels.hpp>
#include <thinwire/nn/backend.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace thinwire::cpu::detail {

/// Causal attention of one (batch entry, key/value head) at a time with the micro-kernels of the matrix product: keys
/// and values are packed once, then every block of queries of each head that reads them makes a tile of scores,
/// [query_block, tokens], of which the part right of the diagonal is skipped.
class attention_block {
 public:
    /// Queries of a tile: a multiple of every micro-kernel's rows.
    static constexpr std::size_t query_block = 48;

    attention_block(const gemm_kernels& gemm, const row_kernels& rows, nn::attention_shape s) noexcept
        : gemm_(gemm),
          rows_(rows),
          tokens_(static_cast<std::size_t>(s.tokens)),
          heads_(static_cast<std::size_t>(s.heads)),
          kv_heads_(static_cast<std::size_t>(s.kv_heads)),
          dim_(static_cast<std::size_t>(s.head_dim)),
          q_stride_(static_cast<std::size_t>(s.q_stride)),
          kv_stride_(static_cast<std::size_t>(s.kv_stride)),
          o_stride_(static_cast<std::size_t>(s.o_stride)),
          tile_stride_(round_up(tokens_, gemm.columns)),
          padded_dim_(round_up(dim_, gemm.columns)),
          scale_(1.0F / std::sqrt(static_cast<float>(s.head_dim))) {}

    struct forward_arguments {
        float* o;
        float* lse;
        const float *q, *k, *v;
    };
    struct backward_arguments {
        float *dq, *dk, *dv;
        const float *dout, *q, *k, *v, *lse;
    };

    [[nodiscard]] std::size_t forward_scratch() const noexcept {
        return tile_stride_ * dim_ + tokens_ * padded_dim_ + 2 * tile_size() + left_size();
    }
    [[nodiscard]] std::size_t backward_scratch() const noexcept {
        return 2 * tile_stride_ * dim_ + tokens_ * padded_dim_ + 3 * tile_size() + left_size() +
               query_block * padded_dim_;
    }

    void forward(const forward_arguments& x, std::size_t batch, std::size_t kv_head, float* scratch) const noexcept {
        float* const keys = scratch;
        float* const values = keys + tile_stride_ * dim_;
        float* const score = values + tokens_ * padded_dim_;
        float* const packed_score = score + tile_size();
        float* const packed_q = packed_score + tile_size();
        const std::size_t kv = key_offset(batch, kv_head);
        gemm_.pack_right(keys, {x.k + kv, kv_stride_, 1}, tokens_, dim_);
        gemm_.pack_right(values, {x.v + kv, 1, kv_stride_}, dim_, tokens_);
        for_each_block(batch, kv_head, [&](const query_tile& t) {
            gemm_.pack_left(packed_q, {x.q + t.q, q_stride_, 1}, t.rows, dim_);
            scores(score, packed_q, keys, t);
            for (std::size_t i = 0; i < t.rows; ++i)
                x.lse[t.lse + i] = rows_.softmax(score + i * tile_stride_, t.first + i + 1, t.keys, scale_);
            gemm_.pack_left(packed_score, {score, tile_stride_, 1}, t.rows, t.keys);
            multiply_packed(gemm_, {x.o + t.o, o_stride_, false},
                            {.a = packed_score,
                             .b = values,
                             .m = t.rows,
                             .n = dim_,
                             .steps = t.keys,
                             .b_panel_stride = tokens_ * gemm_.columns});
        });
    }

    void backward(const backward_arguments& x, std::size_t batch, std::size_t kv_head, float* scratch) const noexcept {
        float* const keys = scratch;                           // [dim] x tokens, right side of q k^T
        float* const values = keys + tile_stride_ * dim_;      // [dim] x tokens, right side of dout v^T
        float* const key_rows = values + tile_stride_ * dim_;  // [tokens] x dim, right side of dscore k
        float* const score = key_rows + tokens_ * padded_dim_;
        float* const dscore = score + tile_size();
        float* const packed = dscore + tile_size();
        float* const left = packed + tile_size();
        float* const right = left + left_size();
        const std::size_t kv = key_offset(batch, kv_head);
        gemm_.pack_right(keys, {x.k + kv, kv_stride_, 1}, tokens_, dim_);
        gemm_.pack_right(values, {x.v + kv, kv_stride_, 1}, tokens_, dim_);
        gemm_.pack_right(key_rows, {x.k + kv, 1, kv_stride_}, dim_, tokens_);
        bool accumulate = false;
        for_each_block(batch, kv_head, [&](const query_tile& t) {
            gemm_.pack_left(left, {x.q + t.q, q_stride_, 1}, t.rows, dim_);
            scores(score, left, keys, t);
            gemm_.pack_left(left, {x.dout + t.o, o_stride_, 1}, t.rows, dim_);
            scores(dscore, left, values, t);
            for (std::size_t i = 0; i < t.rows; ++i)
                rows_.softmax_backward(score + i * tile_stride_, dscore + i * tile_stride_, t.first + i + 1, t.keys,
                                       scale_, x.lse[t.lse + i]);
            gemm_.pack_left(packed, {dscore, tile_stride_, 1}, t.rows, t.keys);
            multiply_packed(gemm_, {x.dq + t.q, q_stride_, false},
                            {.a = packed,
                             .b = key_rows,
                             .m = t.rows,
                             .n = dim_,
                             .steps = t.keys,
                             .b_panel_stride = tokens_ * gemm_.columns});
            add_transposed({x.dv + kv, kv_stride_, accumulate}, score, {x.dout + t.o, 1, o_stride_}, t, packed, right);
            add_transposed({x.dk + kv, kv_stride_, accumulate}, dscore, {x.q + t.q, 1, q_stride_}, t, packed, right);
            accumulate = true;
        });
    }

 private:
    /// Queries [first, first + rows) of one head, which read the keys [0, keys); offsets of their first elements.
    struct query_tile {
        std::size_t first, rows, keys, q, o, lse;
    };

    /// Also enough for the tile or its transpose packed as a left side.
    [[nodiscard]] std::size_t tile_size() const noexcept { return query_block * (tile_stride_ + 16); }
    [[nodiscard]] std::size_t left_size() const noexcept { return round_up(query_block * dim_, 16); }
    [[nodiscard]] std::size_t key_offset(std::size_t batch, std::size_t kv_head) const noexcept {
        return batch * tokens_ * kv_stride_ + kv_head * dim_;
    }

    /// From the last queries to the first: the first call covers all keys, so that it can write what others add to.
    template <class Work>
    void for_each_block(std::size_t batch, std::size_t kv_head, const Work& work) const noexcept {
        const std::size_t group = heads_ / kv_heads_;
        for (std::size_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
            for (std::size_t block = divide_up(tokens_, query_block); block-- > 0;) {
                const std::size_t first = block * query_block;
                const std::size_t rows = std::min(query_block, tokens_ - first);
                const std::size_t row = batch * tokens_ + first;
                work(query_tile{.first = first,
                                .rows = rows,
                                .keys = first + rows,
                                .q = row * q_stride_ + head * dim_,
                                .o = row * o_stride_ + head * dim_,
                                .lse = (batch * heads_ + head) * tokens_ + first});
            }
        }
    }

    /// tile = left right^T, in whole micro-kernels; what lies right of the diagonal is left unspecified.
    void scores(float* tile, const float* left, const float* right, const query_tile& t) const noexcept {
        multiply_packed(gemm_, {tile, tile_stride_, false},
                        {.a = left,
                         .b = right,
                         .m = round_up(t.rows, gemm_.rows),
                         .n = round_up(t.keys, gemm_.columns / 2),
                         .steps = dim_,
                         .b_panel_stride = dim_ * gemm_.columns,
                         .diagonal = t.first});
    }

    /// c[keys, dim] = (or +=) tile^T b.
    void add_transposed(tile_target c, const float* tile, operand b, const query_tile& t, float* packed,
                        float* right) const noexcept {
        gemm_.pack_left(packed, {tile, 1, tile_stride_}, t.keys, t.rows);
        gemm_.pack_right(right, b, dim_, t.rows);
        multiply_packed(gemm_, c,
                        {.a = packed,
                         .b = right,
                         .m = t.keys,
                         .n = dim_,
                         .steps = t.rows,
                         .b_panel_stride = t.rows * gemm_.columns});
    }

    const gemm_kernels& gemm_;
    const row_kernels& rows_;
    std::size_t tokens_, heads_, kv_heads_, dim_, q_stride_, kv_stride_, o_stride_;
    std::size_t tile_stride_;  ///< columns of a tile of scores
    std::size_t padded_dim_;
    float scale_;
};

}  // namespace thinwire::cpu::detail

#endif  // THINWIRE_BACKEND_CPU_DETAIL_ATTENTION_HPP
