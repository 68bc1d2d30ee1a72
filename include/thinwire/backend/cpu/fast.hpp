#ifndef THINWIRE_BACKEND_CPU_FAST_HPP
#define THINWIRE_BACKEND_CPU_FAST_HPP

#include <thinwire/backend/cpu/buffer.hpp>
#include <thinwire/backend/cpu/detail/attention.hpp>
#include <thinwire/backend/cpu/detail/gemm.hpp>
#include <thinwire/backend/cpu/detail/kernels.hpp>
#include <thinwire/core/error.hpp>
#include <thinwire/core/isa.hpp>
#include <thinwire/core/thread_pool.hpp>
#include <thinwire/nn/backend.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

namespace thinwire::cpu {

/// The back end for training on processors: packed and blocked matrix products with a micro-kernel per instruction
/// set, vectorised row operations, and the threads of a pool. Results do not depend on the number of threads; they do
/// on the instruction set, within rounding. Work space grows to what the largest call needed and is then reused.
/// One object serves one thread at a time; the pool must outlive it.
class fast {
 public:
    using buffer = aligned_buffer<float>;

    /// Throws value_error when this machine does not run `level`.
    explicit fast(thread_pool& pool, isa level = best_isa())
        : pool_(pool),
          gemm_(detail::gemm_kernels_for(level)),
          rows_(detail::row_kernels_for(level)),
          scratch_(static_cast<std::size_t>(pool.size())) {
        if (level > best_isa())
            throw value_error("cpu::fast: instruction set " + std::string(to_string(level)) +
                              ", expected at most this machine's " + std::string(to_string(best_isa())));
    }

    [[nodiscard]] buffer allocate(std::size_t size) { return buffer(size); }
    void upload(float* to, std::span<const float> from) { std::copy(from.begin(), from.end(), to); }
    void download(std::span<float> to, const float* from) { std::copy_n(from, to.size(), to.begin()); }

    void matmul(float* c, const float* a, const float* b, int m, int n, int k, bool transpose_a, bool transpose_b,
                bool accumulate) {
        const std::size_t rows = size(m), columns = size(n), steps = size(k);
        const detail::operand left = transpose_a ? detail::operand{a, 1, rows} : detail::operand{a, steps, 1};
        const detail::operand right = transpose_b ? detail::operand{b, steps, 1} : detail::operand{b, 1, columns};
        if (rows == 0 || columns == 0) return;
        if (steps == 0) {
            if (!accumulate) fill(c, 0.0F, rows * columns);
        } else if (rows <= few_rows && !transpose_a) {
            multiply_few(c, left, right, rows, columns, steps, accumulate);
        } else {
            multiply_blocked({c, columns, accumulate}, left, right, rows, columns, steps);
        }
    }

    void add_bias(float* y, const float* bias, int rows, int columns) {
        split_rows(rows, columns, [&](std::size_t first, std::size_t count) {
            for (std::size_t r = first; r < first + count; ++r)
                rows_.add_to(y + r * size(columns), bias, size(columns));
        });
    }
    void bias_backward(float* dbias, const float* dy, int rows, int columns) {
        const std::size_t n = size(columns);
        sum_over_rows(rows, columns, {dbias}, [&](std::size_t first, std::size_t count, float* partial) {
            for (std::size_t r = first; r < first + count; ++r) rows_.add_to(partial, dy + r * n, n);
        });
    }

    void add(float* y, const float* x, std::size_t n) {
        split_elements(n, [&](std::size_t i, std::size_t count) { rows_.add_to(y + i, x + i, count); });
    }
    void copy(float* y, const float* x, std::size_t n) {
        split_elements(n, [&](std::size_t i, std::size_t count) { std::copy_n(x + i, count, y + i); });
    }
    void fill(float* y, float value, std::size_t n) {
        split_elements(n, [&](std::size_t i, std::size_t count) { std::fill_n(y + i, count, value); });
    }

    void rms_norm(float* y, float* rstd, const float* x, const float* weight, int rows, int columns, float eps) {
        const std::size_t n = size(columns);
        split_rows(rows, columns, [&](std::size_t r, std::size_t count) {
            rows_.rms_norm(y + r * n, rstd + r, x + r * n, weight, count, n, eps);
        });
    }
    void rms_norm_backward(float* dx, float* dweight, const float* dy, const float* x, const float* weight,
                           const float* rstd, int rows, int columns) {
        const std::size_t n = size(columns);
        sum_over_rows(rows, columns, {dweight}, [&](std::size_t r, std::size_t count, float* partial) {
            rows_.rms_norm_backward(dx + r * n, partial, dy + r * n, x + r * n, weight, rstd + r, count, n);
        });
    }

    void layer_norm(float* y, float* mean, float* rstd, const float* x, const float* weight, const float* bias,
                    int rows, int columns, float eps) {
        const std::size_t n = size(columns);
        split_rows(rows, columns, [&](std::size_t r, std::size_t count) {
            rows_.layer_norm(y + r * n, mean + r, rstd + r, x + r * n, weight, bias, count, n, eps);
        });
    }
    void layer_norm_backward(float* dx, float* dweight, float* dbias, const float* dy, const float* x,
                             const float* weight, const float* mean, const float* rstd, int rows, int columns) {
        const std::size_t n = size(columns);
        sum_over_rows(rows, columns, {dweight, dbias}, [&](std::size_t r, std::size_t count, float* partial) {
            rows_.layer_norm_backward(dx + r * n, partial, partial + n, dy + r * n, x + r * n, weight, mean + r,
                                      rstd + r, count, n);
        });
    }

    void rope(float* x, const float* cosine, const float* sine, int rows, int tokens, int heads, int head_dim,
              int stride, int first_position, bool inverse) {
        const std::size_t half = size(head_dim) / 2;
        split_rows(rows, heads * head_dim, [&](std::size_t first, std::size_t count) {
            for (std::size_t r = first; r < first + count; ++r) {
                const std::size_t table = (size(first_position) + r % size(tokens)) * half;
                for (std::size_t h = 0; h < size(heads); ++h) {
                    float* const head = x + r * size(stride) + h * size(head_dim);
                    rows_.rotate_pairs(head, head + half, cosine + table, sine + table, half, inverse);
                }
            }
        });
    }

    void attention(float* o, float* lse, const float* q, const float* k, const float* v, nn::attention_shape s) {
        const detail::attention_block block(gemm_, rows_, s);
        split_heads(s, block.forward_scratch(), [&](std::size_t batch, std::size_t kv_head, float* scratch) {
            block.forward({o, lse, q, k, v}, batch, kv_head, scratch);
        });
    }
    void attention_backward(float* dq, float* dk, float* dv, const float* dout, const float* q, const float* k,
                            const float* v, const float* /*o*/, const float* lse, nn::attention_shape s) {
        const detail::attention_block block(gemm_, rows_, s);
        split_heads(s, block.backward_scratch(), [&](std::size_t batch, std::size_t kv_head, float* scratch) {
            block.backward({dq, dk, dv, dout, q, k, v, lse}, batch, kv_head, scratch);
        });
    }

    void silu_mul(float* y, const float* gate, const float* up, std::size_t n) {
        split_elements(n, [&](std::size_t i, std::size_t count) { rows_.silu_mul(y + i, gate + i, up + i, count); });
    }
    void silu_mul_backward(float* dgate, float* dup, const float* dy, const float* gate, const float* up,
                           std::size_t n) {
        split_elements(n, [&](std::size_t i, std::size_t count) {
            rows_.silu_mul_backward(dgate + i, dup + i, dy + i, gate + i, up + i, count);
        });
    }
    void gelu(float* y, const float* x, std::size_t n, bool tanh_form) {
        split_elements(n, [&](std::size_t i, std::size_t count) { rows_.gelu(y + i, x + i, count, tanh_form); });
    }
    void gelu_backward(float* dx, const float* dy, const float* x, std::size_t n, bool tanh_form) {
        split_elements(
            n, [&](std::size_t i, std::size_t count) { rows_.gelu_backward(dx + i, dy + i, x + i, count, tanh_form); });
    }

    void embedding(float* y, const float* table, const std::int32_t* ids, int rows, int columns) {
        const std::size_t n = size(columns);
        split_rows(rows, columns, [&](std::size_t first, std::size_t count) {
            for (std::size_t r = first; r < first + count; ++r) std::copy_n(table + size(ids[r]) * n, n, y + r * n);
        });
    }
    /// Rows in order within a range of columns, so that equal ids add up in one order.
    void embedding_backward(float* dtable, const float* dy, const std::int32_t* ids, int rows, int columns) {
        const std::size_t n = size(columns);
        split(n, std::max<std::size_t>(16, grain / std::max<std::size_t>(1, size(rows))),
              [&](std::size_t, std::size_t first, std::size_t last) {
                  for (std::size_t r = 0; r < size(rows); ++r)
                      rows_.add_to(dtable + size(ids[r]) * n + first, dy + r * n + first, last - first);
              });
    }

    double cross_entropy(float* logits, const std::int32_t* targets, int rows, int vocabulary, float gradient_scale) {
        const std::size_t n = size(vocabulary);
        losses_.assign(size(rows), 0.0);
        split_rows(rows, vocabulary, [&](std::size_t first, std::size_t count) {
            for (std::size_t r = first; r < first + count; ++r) {
                if (targets[r] >= 0)
                    losses_[r] = rows_.cross_entropy(logits + r * n, targets[r], n, gradient_scale);
                else if (gradient_scale != 0.0F)
                    std::fill_n(logits + r * n, n, 0.0F);
            }
        });
        double total = 0.0;
        for (const double loss : losses_) total += loss;
        return total;
    }

 private:
    /// Elements below which another thread costs more than it brings; multiply-adds for the matrix product.
    static constexpr std::size_t grain = 16384;
    static constexpr std::size_t product_grain = 1U << 19U;
    /// Left sides of up to so many rows are multiplied without packing, which would cost as much as the product.
    static constexpr std::size_t few_rows = 4;
    /// Rows whose share in a weight's gradient is summed before it is added: fixed, so that threads change nothing.
    static constexpr std::size_t rows_of_partial_sum = 64;

    static std::size_t size(int n) noexcept { return static_cast<std::size_t>(n); }

    /// work(part, first, last) over [0, count) in at most one part per thread, of about `least` or more.
    template <class Work>
    void split(std::size_t count, std::size_t least, const Work& work) {
        const std::size_t parts = std::clamp<std::size_t>(count / std::max<std::size_t>(least, 1), 1, scratch_.size());
        pool_.parallel_for(parts, [&](std::size_t i) { work(i, count * i / parts, count * (i + 1) / parts); });
    }
    template <class Work>
    void split_elements(std::size_t n, const Work& work) {
        split(n, grain, [&](std::size_t, std::size_t first, std::size_t last) { work(first, last - first); });
    }
    template <class Work>
    void split_rows(int rows, int columns, const Work& work) {
        split(size(rows), grain / std::max<std::size_t>(size(columns), 1),
              [&](std::size_t, std::size_t first, std::size_t last) { work(first, last - first); });
    }

    /// work(batch, kv_head, scratch) for every pair of them.
    template <class Work>
    void split_heads(nn::attention_shape s, std::size_t scratch, const Work& work) {
        reserve_scratch(scratch);
        const std::size_t heads = size(s.kv_heads);
        split(size(s.batch) * heads, 1, [&](std::size_t part, std::size_t first, std::size_t last) {
            for (std::size_t i = first; i < last; ++i) work(i / heads, i % heads, scratch_[part].data());
        });
    }

    /// work(first row, rows, partial) adds the rows' share of each of `totals` (arrays of `columns`, which lie one
    /// after the other in `partial`); the shares of fixed blocks of rows are then added in order.
    template <class Work>
    void sum_over_rows(int rows, int columns, std::initializer_list<float*> totals, const Work& work) {
        const std::size_t n = size(columns), width = n * totals.size();
        const std::size_t blocks = detail::divide_up(size(rows), rows_of_partial_sum);
        if (partial_.size() < blocks * width) partial_ = buffer(blocks * width);
        split(blocks, grain / (rows_of_partial_sum * std::max<std::size_t>(n, 1)),
              [&](std::size_t, std::size_t first, std::size_t last) {
                  std::fill(partial_.data() + first * width, partial_.data() + last * width, 0.0F);
                  for (std::size_t i = first; i < last; ++i) {
                      const std::size_t row = i * rows_of_partial_sum;
                      work(row, std::min(rows_of_partial_sum, size(rows) - row), partial_.data() + i * width);
                  }
              });
        for (std::size_t i = 0; i < blocks; ++i)
            for (std::size_t t = 0; t < totals.size(); ++t)
                rows_.add_to(totals.begin()[t], partial_.data() + i * width + t * n, n);
    }

    void reserve_scratch(std::size_t count) {
        for (buffer& scratch : scratch_)
            if (scratch.size() < count) scratch = buffer(count);
    }

    void multiply_few(float* c, detail::operand a, detail::operand b, std::size_t m, std::size_t n, std::size_t steps,
                      bool accumulate) {
        split(n, product_grain / (m * steps), [&](std::size_t, std::size_t first, std::size_t last) {
            for (std::size_t i = 0; i < m; ++i) {
                const float* const row = a.data + i * a.line_stride;
                float* const to = c + i * n;
                if (b.step_stride == 1) {
                    for (std::size_t j = first; j < last; ++j) {
                        const float product = rows_.dot(row, b.data + j * b.line_stride, steps);
                        to[j] = accumulate ? to[j] + product : product;
                    }
                    continue;
                }
                if (!accumulate) std::fill(to + first, to + last, 0.0F);
                for (std::size_t s = 0; s < steps; ++s)
                    rows_.add_scaled(to + first, b.data + s * b.step_stride + first, row[s], last - first);
            }
        });
    }

    /// Cuts c into a grid of blocks, one per thread, such that little is packed twice.
    void multiply_blocked(detail::tile_target c, detail::operand a, detail::operand b, std::size_t m, std::size_t n,
                          std::size_t steps) {
        const std::size_t threads = std::clamp<std::size_t>(m * n * steps / product_grain, 1, scratch_.size());
        std::size_t down = 1, across = threads;
        for (std::size_t d = 2; d <= threads; ++d) {
            const std::size_t used = d * (threads / d), most = down * across;
            if (used > most || (used == most && m / d + n / (threads / d) < m / down + n / across))
                down = d, across = threads / d;
        }
        const std::size_t rows = detail::round_up(detail::divide_up(m, down), gemm_.rows);
        const std::size_t columns = detail::round_up(detail::divide_up(n, across), gemm_.columns);
        reserve_scratch(detail::gemm_plan(gemm_, rows, columns, steps).scratch_size());
        pool_.parallel_for(down * across, [&](std::size_t part) {
            const std::size_t i = part % down * rows, j = part / down * columns;
            if (i >= m || j >= n) return;
            detail::multiply(gemm_, {c.data + i * c.stride + j, c.stride, c.accumulate}, a.at(i, 0), b.at(j, 0),
                             std::min(rows, m - i), std::min(columns, n - j), steps, scratch_[part].data());
        });
    }

    thread_pool& pool_;
    const detail::gemm_kernels& gemm_;
    const detail::row_kernels& rows_;
    std::vector<buffer> scratch_;  ///< one per thread
    buffer partial_;
    std::vector<double> losses_;
};

static_assert(nn::backend<fast>);

}  // namespace thinwire::cpu

#endif  // THINWIRE_BACKEND_CPU_FAST_HPP
