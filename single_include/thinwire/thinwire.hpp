// thinwire 0.1.0 in one file, written by tools/amalgamate.py from include/thinwire. Change those instead.
//
// MIT License
//
// Copyright (c) 2026 thinwire contributors
//
// Permission is hereby granted, free of charge, to any person obtaining a copy
// of this software and associated documentation files (the "Software"), to deal
// in the Software without restriction, including without limitation the rights
// to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
// copies of the Software, and to permit persons to whom the Software is
// furnished to do so, subject to the following conditions:
//
// The above copyright notice and this permission notice shall be included in all
// copies or substantial portions of the Software.
//
// THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
// IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
// FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
// AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
// LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
// OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
// SOFTWARE.

// ---- thinwire/backend/cpu/buffer.hpp
#ifndef THINWIRE_BACKEND_CPU_BUFFER_HPP
#define THINWIRE_BACKEND_CPU_BUFFER_HPP

#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>
#include <utility>

namespace thinwire::cpu {

/// Owns numbers in host memory that begin at a multiple of 64 bytes, a cache line. Zero-filled when made.
template <class T>
class aligned_buffer {
 public:
    static constexpr std::size_t alignment = 64;

    aligned_buffer() = default;
    explicit aligned_buffer(std::size_t size)
        : data_(size == 0 ? nullptr : static_cast<T*>(::operator new (size * sizeof(T), std::align_val_t{alignment}))),
          size_(size) {
        std::fill_n(data_.get(), size, T{});
    }
    aligned_buffer(aligned_buffer&& other) noexcept : data_(std::move(other.data_)), size_(other.size_) {
        other.size_ = 0;
    }
    aligned_buffer& operator=(aligned_buffer&& other) noexcept {
        data_ = std::move(other.data_);
        size_ = std::exchange(other.size_, 0);
        return *this;
    }

    [[nodiscard]] T* data() noexcept { return data_.get(); }
    [[nodiscard]] const T* data() const noexcept { return data_.get(); }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }

 private:
    struct release {
        void operator()(T* p) const noexcept { ::operator delete (p, std::align_val_t{alignment}); }
    };
    std::unique_ptr<T[], release> data_;
    std::size_t size_ = 0;
};

}  // namespace thinwire::cpu

#endif  // THINWIRE_BACKEND_CPU_BUFFER_HPP

// ---- thinwire/nn/backend.hpp
#ifndef THINWIRE_NN_BACKEND_HPP
#define THINWIRE_NN_BACKEND_HPP

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

namespace thinwire::nn {

/// Sizes of one causal attention call. Token (b, t) is row b * tokens + t. Row r of q begins at q + r * q_stride and
/// holds `heads` vectors of `head_dim`; k and v hold `kv_heads` vectors at their strides; query head h reads
/// key/value head h / (heads / kv_heads). Rows of o and its gradient begin at multiples of o_stride.
struct attention_shape {
    int batch = 0;
    int tokens = 0;
    int heads = 0;
    int kv_heads = 0;
    int head_dim = 0;
    int q_stride = 0;
    int kv_stride = 0;
    int o_stride = 0;
};

/// What a transformer asks of the thing that computes. All tensors are float32, row-major and contiguous unless a
/// stride is named; sizes are in elements. "Adds" means accumulates into what is there. Outputs may alias inputs only
/// where said. ids and targets lie in host memory. Calls take effect in order. Every operation has its plain definition
/// in backend/cpu/reference.hpp, against which each back end is checked by the same tests.
template <class B>
concept backend = requires(B& b, float* y, const float* x, const std::int32_t* ids, int n, float a, bool flag,
                           attention_shape s, std::span<float> out, std::span<const float> in) {
    typename B::buffer;  // owns floats where the back end computes; default-constructible, movable; data(), size()
    { b.allocate(std::size_t{}) } -> std::same_as<typename B::buffer>;  // zero-filled
    // matmul(c, a, b, m, n, k, transpose_a, transpose_b, accumulate): c[m,n] = (or +=) op(a)[m,k] op(b)[k,n].
    b.matmul(y, x, x, n, n, n, flag, flag, flag);
    // add_bias(y, bias, rows, columns): every row of y += bias.  bias_backward(db, dy, rows, columns): adds column
    // sums.
    b.add_bias(y, x, n, n);
    b.bias_backward(y, x, n, n);
    // add(y, x, n): y += x.   copy(y, x, n).   fill(y, value, n).
    b.add(y, x, std::size_t{});
    b.copy(y, x, std::size_t{});
    b.fill(y, a, std::size_t{});
    // rms_norm(y, rstd, x, weight, rows, columns, eps): rstd has `rows` entries, kept for the backward pass.
    // rms_norm_backward(dx, dweight, dy, x, weight, rstd, rows, columns): writes dx (may be dy), adds dweight.
    b.rms_norm(y, y, x, x, n, n, a);
    b.rms_norm_backward(y, y, x, x, x, x, n, n);
    // layer_norm(y, mean, rstd, x, weight, bias, rows, columns, eps) and its backward:
    // layer_norm_backward(dx, dweight, dbias, dy, x, weight, mean, rstd, rows, columns): writes dx, adds the others.
    b.layer_norm(y, y, y, x, x, x, n, n, a);
    b.layer_norm_backward(y, y, y, x, x, x, x, x, n, n);
    // rope(x, cosine, sine, rows, tokens, heads, head_dim, stride, first_position, inverse): rotates in place the pairs
    // (i, i + head_dim/2) of every head; row r has position first_position + r % tokens; the tables hold head_dim/2
    // entries a position; inverse rotates back (the backward pass).
    b.rope(y, x, x, n, n, n, n, n, n, flag);
    // attention(o, lse, q, k, v, shape): o = softmax(q k^T / sqrt(head_dim), causal) v; lse[(b*heads+h)*tokens+t] is
    // the log-sum-exp of a row's scaled scores, kept for the backward pass.
    // attention_backward(dq, dk, dv, do, q, k, v, o, lse, shape): writes dq, dk, dv (strides as q, k, v).
    b.attention(y, y, x, x, x, s);
    b.attention_backward(y, y, y, x, x, x, x, x, x, s);
    // silu_mul(y, gate, up, n): y = silu(gate) * up.  silu_mul_backward(dgate, dup, dy, gate, up, n): writes both.
    b.silu_mul(y, x, x, std::size_t{});
    b.silu_mul_backward(y, y, x, x, x, std::size_t{});
    // gelu(y, x, n, tanh_form) and gelu_backward(dx, dy, x, n, tanh_form): dx may be dy.
    b.gelu(y, x, std::size_t{}, flag);
    b.gelu_backward(y, x, x, std::size_t{}, flag);
    // embedding(y, table, ids, rows, columns): row lookup.  embedding_backward(dtable, dy, ids, rows, columns): adds.
    b.embedding(y, x, ids, n, n);
    b.embedding_backward(y, x, ids, n, n);
    // cross_entropy(logits, targets, rows, vocabulary, gradient_scale) -> double: the sum over rows with target >= 0
    // of -log softmax(logits)[target]; overwrites logits with gradient_scale * d(sum)/d(logits) (rows with a negative
    // target get zeros) when gradient_scale != 0, and leaves logits alone otherwise.
    { b.cross_entropy(y, ids, n, n, a) } -> std::convertible_to<double>;
    // upload(to, from) and download(to, from): between host memory and the back end's.
    b.upload(y, in);
    b.download(out, x);
};

}  // namespace thinwire::nn

#endif  // THINWIRE_NN_BACKEND_HPP

// ---- thinwire/backend/cpu/reference.hpp
#ifndef THINWIRE_BACKEND_CPU_REFERENCE_HPP
#define THINWIRE_BACKEND_CPU_REFERENCE_HPP

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <span>
#include <vector>

namespace thinwire::cpu {

/// The plain definition of every operation of nn::backend: loops in the order of the formula, sums in double.
/// Every other back end is tested against it. `Number` is float where it serves as a back end, and double where a
/// test wants finite differences. One object serves one thread at a time.
template <class Number>
class basic_reference {
 public:
    using buffer = aligned_buffer<Number>;

    [[nodiscard]] buffer allocate(std::size_t size) { return buffer(size); }
    void upload(Number* to, std::span<const Number> from) { std::copy(from.begin(), from.end(), to); }
    void download(std::span<Number> to, const Number* from) { std::copy_n(from, to.size(), to.begin()); }

    void matmul(Number* c, const Number* a, const Number* b, int m, int n, int k, bool transpose_a, bool transpose_b,
                bool accumulate) {
        for (int i = 0; i < m; ++i) {
            for (int j = 0; j < n; ++j) {
                double sum = 0;
                for (int p = 0; p < k; ++p) {
                    const Number left = transpose_a ? a[at(p, m, i)] : a[at(i, k, p)];
                    const Number right = transpose_b ? b[at(j, k, p)] : b[at(p, n, j)];
                    sum += static_cast<double>(left) * static_cast<double>(right);
                }
                Number& out = c[at(i, n, j)];
                out = accumulate ? static_cast<Number>(static_cast<double>(out) + sum) : static_cast<Number>(sum);
            }
        }
    }

    void add_bias(Number* y, const Number* bias, int rows, int columns) {
        for (int r = 0; r < rows; ++r)
            for (int j = 0; j < columns; ++j) y[at(r, columns, j)] += bias[j];
    }
    void bias_backward(Number* dbias, const Number* dy, int rows, int columns) {
        for (int j = 0; j < columns; ++j) {
            double sum = 0;
            for (int r = 0; r < rows; ++r) sum += static_cast<double>(dy[at(r, columns, j)]);
            dbias[j] = static_cast<Number>(static_cast<double>(dbias[j]) + sum);
        }
    }

    void add(Number* y, const Number* x, std::size_t n) {
        for (std::size_t i = 0; i < n; ++i) y[i] += x[i];
    }
    void copy(Number* y, const Number* x, std::size_t n) { std::copy_n(x, n, y); }
    void fill(Number* y, Number value, std::size_t n) { std::fill_n(y, n, value); }

    void rms_norm(Number* y, Number* rstd, const Number* x, const Number* weight, int rows, int columns, Number eps) {
        for (int r = 0; r < rows; ++r) {
            const Number* row = x + at(r, columns);
            double square = 0;
            for (int j = 0; j < columns; ++j) square += wide(row[j]) * wide(row[j]);
            const double scale = 1.0 / std::sqrt(square / columns + wide(eps));
            rstd[r] = static_cast<Number>(scale);
            for (int j = 0; j < columns; ++j)
                y[at(r, columns, j)] = static_cast<Number>(wide(row[j]) * scale * wide(weight[j]));
        }
    }
    void rms_norm_backward(Number* dx, Number* dweight, const Number* dy, const Number* x, const Number* weight,
                           const Number* rstd, int rows, int columns) {
        std::vector<double> dw(static_cast<std::size_t>(columns), 0.0);
        for (int r = 0; r < rows; ++r) {
            const double scale = wide(rstd[r]);
            double dot = 0;  // of the gradient towards the normalised row with that row
            for (int j = 0; j < columns; ++j) {
                const double normal = wide(x[at(r, columns, j)]) * scale;
                const double g = wide(dy[at(r, columns, j)]);
                dot += g * wide(weight[j]) * normal;
                dw[static_cast<std::size_t>(j)] += g * normal;
            }
            for (int j = 0; j < columns; ++j) {
                const double normal = wide(x[at(r, columns, j)]) * scale;
                const double g = wide(dy[at(r, columns, j)]) * wide(weight[j]);
                dx[at(r, columns, j)] = static_cast<Number>(scale * (g - normal * dot / columns));
            }
        }
        add_to(dweight, dw);
    }

    void layer_norm(Number* y, Number* mean, Number* rstd, const Number* x, const Number* weight, const Number* bias,
                    int rows, int columns, Number eps) {
        for (int r = 0; r < rows; ++r) {
            const Number* row = x + at(r, columns);
            double sum = 0;
            for (int j = 0; j < columns; ++j) sum += wide(row[j]);
            const double centre = sum / columns;
            double variance = 0;
            for (int j = 0; j < columns; ++j) variance += (wide(row[j]) - centre) * (wide(row[j]) - centre);
            const double scale = 1.0 / std::sqrt(variance / columns + wide(eps));
            mean[r] = static_cast<Number>(centre);
            rstd[r] = static_cast<Number>(scale);
            for (int j = 0; j < columns; ++j)
                y[at(r, columns, j)] =
                    static_cast<Number>((wide(row[j]) - centre) * scale * wide(weight[j]) + wide(bias[j]));
        }
    }
    void layer_norm_backward(Number* dx, Number* dweight, Number* dbias, const Number* dy, const Number* x,
                             const Number* weight, const Number* mean, const Number* rstd, int rows, int columns) {
        std::vector<double> dw(static_cast<std::size_t>(columns), 0.0);
        std::vector<double> db(static_cast<std::size_t>(columns), 0.0);
        for (int r = 0; r < rows; ++r) {
            const double centre = wide(mean[r]);
            const double scale = wide(rstd[r]);
            double dot = 0;  // of the gradient towards the normalised row with that row
            double sum = 0;  // of that gradient
            for (int j = 0; j < columns; ++j) {
                const double normal = (wide(x[at(r, columns, j)]) - centre) * scale;
                const double g = wide(dy[at(r, columns, j)]);
                dot += g * wide(weight[j]) * normal;
                sum += g * wide(weight[j]);
                dw[static_cast<std::size_t>(j)] += g * normal;
                db[static_cast<std::size_t>(j)] += g;
            }
            for (int j = 0; j < columns; ++j) {
                const double normal = (wide(x[at(r, columns, j)]) - centre) * scale;
                const double g = wide(dy[at(r, columns, j)]) * wide(weight[j]);
                dx[at(r, columns, j)] = static_cast<Number>(scale * (g - (sum + normal * dot) / columns));
            }
        }
        add_to(dweight, dw);
        add_to(dbias, db);
    }

    void rope(Number* x, const Number* cosine, const Number* sine, int rows, int tokens, int heads, int head_dim,
              int stride, int first_position, bool inverse) {
        const int half = head_dim / 2;
        for (int r = 0; r < rows; ++r) {
            const int position = first_position + r % tokens;
            for (int h = 0; h < heads; ++h) {
                Number* head = x + at(r, stride, h * head_dim);
                for (int i = 0; i < half; ++i) {
                    const Number c = cosine[at(position, half, i)];
                    const Number s = inverse ? -sine[at(position, half, i)] : sine[at(position, half, i)];
                    const Number first = head[i];
                    const Number second = head[i + half];
                    head[i] = first * c - second * s;
                    head[i + half] = second * c + first * s;
                }
            }
        }
    }

    void attention(Number* o, Number* lse, const Number* q, const Number* k, const Number* v, nn::attention_shape s) {
        std::vector<double> score(static_cast<std::size_t>(s.tokens));
        std::vector<double> out(static_cast<std::size_t>(s.head_dim));
        for_each_query(s, [&](const query_place& p) {
            double largest = -HUGE_VAL;
            for (int j = 0; j <= p.token; ++j) {
                const double x = scaled_score(q + p.query, k + p.key(j), s.head_dim);
                score[static_cast<std::size_t>(j)] = x;
                largest = std::max(largest, x);
            }
            double total = 0;
            std::fill(out.begin(), out.end(), 0.0);
            for (int j = 0; j <= p.token; ++j) {
                const double weight = std::exp(score[static_cast<std::size_t>(j)] - largest);
                total += weight;
                for (int i = 0; i < s.head_dim; ++i)
                    out[static_cast<std::size_t>(i)] += weight * wide(v[p.key(j) + static_cast<std::size_t>(i)]);
            }
            for (int i = 0; i < s.head_dim; ++i)
                o[p.output + static_cast<std::size_t>(i)] =
                    static_cast<Number>(out[static_cast<std::size_t>(i)] / total);
            lse[p.row] = static_cast<Number>(largest + std::log(total));
        });
    }
    void attention_backward(Number* dq, Number* dk, Number* dv, const Number* dout, const Number* q, const Number* k,
                            const Number* v, const Number* o, const Number* lse, nn::attention_shape s) {
        clear_heads(dq, s.batch * s.tokens, s.q_stride, s.heads * s.head_dim);
        clear_heads(dk, s.batch * s.tokens, s.kv_stride, s.kv_heads * s.head_dim);
        clear_heads(dv, s.batch * s.tokens, s.kv_stride, s.kv_heads * s.head_dim);
        const double scale = 1.0 / std::sqrt(static_cast<double>(s.head_dim));
        const auto width = static_cast<std::size_t>(s.head_dim);
        for_each_query(s, [&](const query_place& p) {
            double delta = 0;
            for (std::size_t i = 0; i < width; ++i) delta += wide(dout[p.output + i]) * wide(o[p.output + i]);
            for (int j = 0; j <= p.token; ++j) {
                const std::size_t key = p.key(j);
                const double weight = std::exp(scaled_score(q + p.query, k + key, s.head_dim) - wide(lse[p.row]));
                double dweight = 0;
                for (std::size_t i = 0; i < width; ++i) dweight += wide(dout[p.output + i]) * wide(v[key + i]);
                const double dscore = weight * (dweight - delta) * scale;
                for (std::size_t i = 0; i < width; ++i) {
                    dv[key + i] += static_cast<Number>(weight * wide(dout[p.output + i]));
                    dq[p.query + i] += static_cast<Number>(dscore * wide(k[key + i]));
                    dk[key + i] += static_cast<Number>(dscore * wide(q[p.query + i]));
                }
            }
        });
    }

    void silu_mul(Number* y, const Number* gate, const Number* up, std::size_t n) {
        for (std::size_t i = 0; i < n; ++i)
            y[i] = static_cast<Number>(wide(gate[i]) * sigmoid(wide(gate[i])) * wide(up[i]));
    }
    void silu_mul_backward(Number* dgate, Number* dup, const Number* dy, const Number* gate, const Number* up,
                           std::size_t n) {
        for (std::size_t i = 0; i < n; ++i) {
            const double g = wide(gate[i]);
            const double s = sigmoid(g);
            const double d = wide(dy[i]);
            const double slope = s * (1.0 + g * (1.0 - s));
            dup[i] = static_cast<Number>(d * g * s);
            dgate[i] = static_cast<Number>(d * wide(up[i]) * slope);
        }
    }

    void gelu(Number* y, const Number* x, std::size_t n, bool tanh_form) {
        for (std::size_t i = 0; i < n; ++i) {
            const double v = wide(x[i]);
            const double gate = tanh_form ? 0.5 * (1.0 + std::tanh(gelu_inner(v))) : normal_cdf(v);
            y[i] = static_cast<Number>(v * gate);
        }
    }
    void gelu_backward(Number* dx, const Number* dy, const Number* x, std::size_t n, bool tanh_form) {
        for (std::size_t i = 0; i < n; ++i) {
            const double v = wide(x[i]);
            double slope = 0;
            if (tanh_form) {
                const double t = std::tanh(gelu_inner(v));
                const double inner_slope = gelu_scale * (1.0 + 3.0 * gelu_cubic * v * v);
                slope = 0.5 * (1.0 + t) + 0.5 * v * (1.0 - t * t) * inner_slope;
            } else {
                const double density = std::exp(-0.5 * v * v) / std::sqrt(2.0 * std::numbers::pi);
                slope = normal_cdf(v) + v * density;
            }
            dx[i] = static_cast<Number>(wide(dy[i]) * slope);
        }
    }

    void embedding(Number* y, const Number* table, const std::int32_t* ids, int rows, int columns) {
        for (int r = 0; r < rows; ++r)
            for (int j = 0; j < columns; ++j) y[at(r, columns, j)] = table[at(ids[r], columns, j)];
    }
    void embedding_backward(Number* dtable, const Number* dy, const std::int32_t* ids, int rows, int columns) {
        for (int r = 0; r < rows; ++r)
            for (int j = 0; j < columns; ++j) dtable[at(ids[r], columns, j)] += dy[at(r, columns, j)];
    }

    double cross_entropy(Number* logits, const std::int32_t* targets, int rows, int vocabulary, Number gradient_scale) {
        double loss = 0;
        for (int r = 0; r < rows; ++r) {
            Number* row = logits + at(r, vocabulary);
            const std::int32_t target = targets[r];
            if (target < 0) {
                if (gradient_scale != Number{0}) std::fill_n(row, vocabulary, Number{0});
                continue;
            }
            const double largest = wide(*std::max_element(row, row + vocabulary));
            double total = 0;
            for (int j = 0; j < vocabulary; ++j) total += std::exp(wide(row[j]) - largest);
            loss += largest + std::log(total) - wide(row[target]);
            if (gradient_scale == Number{0}) continue;
            for (int j = 0; j < vocabulary; ++j) {
                const double probability = std::exp(wide(row[j]) - largest) / total;
                row[j] = static_cast<Number>(wide(gradient_scale) * (probability - (j == target ? 1.0 : 0.0)));
            }
        }
        return loss;
    }

 private:
    static constexpr double gelu_cubic = 0.044715;
    static constexpr double gelu_scale = 0.79788456080286535588;  // sqrt(2 / pi)

    /// Where one query vector, its output and its keys lie.
    struct query_place {
        std::size_t row;     // of lse
        std::size_t query;   // first element of q
        std::size_t output;  // first element of o
        std::size_t first_key;
        std::size_t key_stride;
        int token;
        [[nodiscard]] std::size_t key(int j) const { return first_key + static_cast<std::size_t>(j) * key_stride; }
    };

    template <class Visit>
    static void for_each_query(nn::attention_shape s, const Visit& visit) {
        for (int b = 0; b < s.batch; ++b)
            for (int h = 0; h < s.heads; ++h)
                for (int t = 0; t < s.tokens; ++t) {
                    const int row = b * s.tokens + t;
                    const int kv_head = h / (s.heads / s.kv_heads);
                    visit(query_place{.row = at(b * s.heads + h, s.tokens, t),
                                      .query = at(row, s.q_stride, h * s.head_dim),
                                      .output = at(row, s.o_stride, h * s.head_dim),
                                      .first_key = at(b * s.tokens, s.kv_stride, kv_head * s.head_dim),
                                      .key_stride = static_cast<std::size_t>(s.kv_stride),
                                      .token = t});
                }
    }

    static double scaled_score(const Number* query, const Number* key, int head_dim) {
        double sum = 0;
        for (int i = 0; i < head_dim; ++i) sum += wide(query[i]) * wide(key[i]);
        return sum / std::sqrt(static_cast<double>(head_dim));
    }
    static void clear_heads(Number* x, int rows, int stride, int width) {
        for (int r = 0; r < rows; ++r) std::fill_n(x + at(r, stride), width, Number{0});
    }
    static void add_to(Number* y, const std::vector<double>& x) {
        for (std::size_t i = 0; i < x.size(); ++i) y[i] = static_cast<Number>(static_cast<double>(y[i]) + x[i]);
    }

    static double wide(Number x) { return static_cast<double>(x); }
    static double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }
    static double normal_cdf(double x) { return 0.5 * (1.0 + std::erf(x / std::numbers::sqrt2)); }
    static double gelu_inner(double x) { return gelu_scale * (x + gelu_cubic * x * x * x); }

    /// Offset of (row, column) in a matrix of `width` columns.
    static std::size_t at(int row, int width, int column = 0) {
        return static_cast<std::size_t>(row) * static_cast<std::size_t>(width) + static_cast<std::size_t>(column);
    }
};

using reference = basic_reference<float>;

static_assert(nn::backend<reference>);

}  // namespace thinwire::cpu

#endif  // THINWIRE_BACKEND_CPU_REFERENCE_HPP

// ---- thinwire/comm/transport.hpp
#ifndef THINWIRE_COMM_TRANSPORT_HPP
#define THINWIRE_COMM_TRANSPORT_HPP

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

namespace thinwire {

/// Identifies a peer within a run.
using peer_id = std::uint64_t;

/// What one peer published for a round.
struct contribution {
    peer_id peer = 0;
    std::span<const std::byte> payload;
};

/// What all replicas apply for a round, in this order.
struct commit {
    std::uint64_t round = 0;
    std::span<const contribution> contributions;
};

/// Anything that carries payloads between peers.
///
/// `exchange(round, payload)` publishes this peer's payload for `round`, waits for the commit and returns one or
/// more consecutive commits, the first of which is that of `round`. More than one come when the others went on
/// without this peer: it applies them all and contributes next to the round after the last. The payload may be
/// missing from its commit; its sender then takes it back into its momentum. All peers see equal commits.
/// The returned bytes stay valid until the next call. Called from one thread.
template <class T>
concept transport = requires(T& t, std::uint64_t round, std::span<const std::byte> payload) {
    { t.self() } -> std::convertible_to<peer_id>;
    { t.exchange(round, payload) } -> std::convertible_to<std::span<const commit>>;
};

}  // namespace thinwire

#endif  // THINWIRE_COMM_TRANSPORT_HPP

// ---- thinwire/config.hpp
#ifndef THINWIRE_CONFIG_HPP
#define THINWIRE_CONFIG_HPP

#if defined(_MSVC_LANG) ? (_MSVC_LANG < 202002L) : (__cplusplus < 202002L)
#error "thinwire needs C++20: compile with -std=c++20 or later (target_link_libraries(... thinwire::thinwire) does it)."
#endif

#if (defined(__x86_64__) || defined(_M_X64)) && (defined(__GNUC__) || defined(__clang__))
/// 1 where functions can be compiled for an instruction set of their own and chosen at run time.
#define THINWIRE_X86_DISPATCH 1
#define THINWIRE_TARGET_AVX2 __attribute__((target("avx2,fma")))
#define THINWIRE_TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#else
#define THINWIRE_X86_DISPATCH 0
#endif

#if defined(__GNUC__) || defined(__clang__)
#define THINWIRE_RESTRICT __restrict__
#define THINWIRE_ALWAYS_INLINE inline __attribute__((always_inline))
#else
#define THINWIRE_RESTRICT
#define THINWIRE_ALWAYS_INLINE inline
#endif

#endif  // THINWIRE_CONFIG_HPP

// ---- thinwire/core/bytes.hpp
#ifndef THINWIRE_CORE_BYTES_HPP
#define THINWIRE_CORE_BYTES_HPP

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace thinwire {

/// Appends little-endian numbers to a growing buffer, whatever the host's byte order.
class byte_writer {
 public:
    byte_writer() = default;
    /// Continues at the end of a buffer whose capacity is kept.
    explicit byte_writer(std::vector<std::byte>&& reuse) noexcept : bytes_(std::move(reuse)) {}

    template <std::integral T>
    void put(T value) {
        auto bits = static_cast<std::make_unsigned_t<T>>(value);
        for (std::size_t i = 0; i < sizeof(T); ++i)
            bytes_.push_back(static_cast<std::byte>((static_cast<std::uint64_t>(bits) >> (8 * i)) & 0xffU));
    }
    void put(float value) { put(std::bit_cast<std::uint32_t>(value)); }
    void put(double value) { put(std::bit_cast<std::uint64_t>(value)); }
    void put(std::span<const std::byte> raw) { bytes_.insert(bytes_.end(), raw.begin(), raw.end()); }
    /// A 32-bit length, then the characters.
    void put(std::string_view text) {
        put(static_cast<std::uint32_t>(text.size()));
        put(std::as_bytes(std::span(text.data(), text.size())));
    }
    /// Overwrites four bytes that were put before, such as a length known only at the end.
    void patch(std::size_t at, std::uint32_t value) noexcept {
        for (std::size_t i = 0; i < 4; ++i) bytes_[at + i] = static_cast<std::byte>((value >> (8 * i)) & 0xffU);
    }

    [[nodiscard]] std::size_t size() const noexcept { return bytes_.size(); }
    [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return bytes_; }
    [[nodiscard]] std::vector<std::byte> take() noexcept { return std::move(bytes_); }

 private:
    std::vector<std::byte> bytes_;
};

/// Reads little-endian numbers from foreign bytes. Total: a read past the end gives zero and sets failed(), and
/// nothing is read after that, so that a parser checks once at the end of a section.
class byte_reader {
 public:
    explicit byte_reader(std::span<const std::byte> bytes) noexcept : bytes_(bytes) {}

    template <std::integral T>
    [[nodiscard]] T get() noexcept {
        const std::span<const std::byte> raw = get_bytes(sizeof(T));
        std::uint64_t value = 0;
        for (std::size_t i = 0; i < raw.size(); ++i)
            value |= static_cast<std::uint64_t>(std::to_integer<std::uint8_t>(raw[i])) << (8 * i);
        return static_cast<T>(value);
    }
    [[nodiscard]] float get_f32() noexcept { return std::bit_cast<float>(get<std::uint32_t>()); }
    [[nodiscard]] double get_f64() noexcept { return std::bit_cast<double>(get<std::uint64_t>()); }

    /// The next `count` bytes, or an empty span with failed() set when there are fewer.
    [[nodiscard]] std::span<const std::byte> get_bytes(std::size_t count) noexcept {
        if (failed_ || count > remaining()) {
            failed_ = true;
            return {};
        }
        const auto raw = bytes_.subspan(at_, count);
        at_ += count;
        return raw;
    }

    /// A string as byte_writer puts it; fails when longer than `limit`.
    [[nodiscard]] std::string get_string(std::size_t limit) {
        const auto length = get<std::uint32_t>();
        if (length > limit) failed_ = true;
        const auto raw = get_bytes(length);
        return {reinterpret_cast<const char*>(raw.data()), raw.size()};
    }

    [[nodiscard]] std::size_t position() const noexcept { return at_; }
    [[nodiscard]] std::size_t remaining() const noexcept { return bytes_.size() - at_; }
    [[nodiscard]] bool failed() const noexcept { return failed_; }

 private:
    std::span<const std::byte> bytes_;
    std::size_t at_ = 0;
    bool failed_ = false;
};

}  // namespace thinwire

#endif  // THINWIRE_CORE_BYTES_HPP

// ---- thinwire/core/digest.hpp
#ifndef THINWIRE_CORE_DIGEST_HPP
#define THINWIRE_CORE_DIGEST_HPP

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace thinwire {

/// 256 bits that identify content: a run, a payload, a replica.
struct digest {
    std::array<std::byte, 32> bytes{};
    [[nodiscard]] bool operator==(const digest&) const noexcept = default;
    [[nodiscard]] auto operator<=>(const digest&) const noexcept = default;
};

/// 64 hexadecimal digits; `digits` of them when a person only needs to compare at a glance.
[[nodiscard]] inline std::string to_string(const digest& d, std::size_t digits = 64) {
    constexpr std::string_view hex = "0123456789abcdef";
    std::string text;
    for (const std::byte b : d.bytes) {
        text += hex[std::to_integer<unsigned>(b) >> 4U];
        text += hex[std::to_integer<unsigned>(b) & 15U];
    }
    text.resize(std::min<std::size_t>(digits, 64));
    return text;
}

/// SHA-256 (FIPS 180-4) of bytes that arrive in pieces.
class sha256 {
 public:
    sha256& update(std::span<const std::byte> bytes) noexcept {
        length_ += bytes.size();
        while (!bytes.empty()) {
            if (filled_ == 0 && bytes.size() >= block_.size()) {
                compress(bytes.data());
                bytes = bytes.subspan(block_.size());
                continue;
            }
            const std::size_t take = std::min(bytes.size(), block_.size() - filled_);
            std::copy_n(bytes.begin(), take, block_.begin() + static_cast<std::ptrdiff_t>(filled_));
            filled_ += take;
            bytes = bytes.subspan(take);
            if (filled_ == block_.size()) {
                compress(block_.data());
                filled_ = 0;
            }
        }
        return *this;
    }
    sha256& update(std::string_view text) noexcept {
        return update(std::as_bytes(std::span(text.data(), text.size())));
    }

    /// The digest of everything so far. The object is spent afterwards.
    [[nodiscard]] digest finish() noexcept {
        const std::uint64_t bits = length_ * 8;
        const std::array<std::byte, 1> one{std::byte{0x80}};
        const std::array<std::byte, 1> zero{};
        update(one);
        while (filled_ != 56) update(zero);
        std::array<std::byte, 8> tail{};
        for (std::size_t i = 0; i < 8; ++i) tail[i] = static_cast<std::byte>((bits >> (56 - 8 * i)) & 0xffU);
        update(tail);
        digest out;
        for (std::size_t i = 0; i < 32; ++i)
            out.bytes[i] = static_cast<std::byte>((state_[i / 4] >> (24 - 8 * (i % 4))) & 0xffU);
        return out;
    }

 private:
    void compress(const std::byte* block) noexcept {
        static constexpr std::array<std::uint32_t, 64> k = {
            0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
            0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
            0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
            0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
            0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
            0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
            0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
            0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
        std::array<std::uint32_t, 64> w{};
        for (std::size_t i = 0; i < 16; ++i)
            for (std::size_t j = 0; j < 4; ++j) w[i] = (w[i] << 8U) | std::to_integer<std::uint32_t>(block[4 * i + j]);
        for (std::size_t i = 16; i < 64; ++i) {
            const std::uint32_t s0 = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ (w[i - 15] >> 3U);
            const std::uint32_t s1 = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ (w[i - 2] >> 10U);
            w[i] = w[i - 16] + s0 + w[i - 7] + s1;
        }
        auto [a, b, c, d, e, f, g, h] = state_;
        for (std::size_t i = 0; i < 64; ++i) {
            const std::uint32_t s1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
            const std::uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + k[i] + w[i];
            const std::uint32_t s0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
            const std::uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
            h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
        }
        const std::array<std::uint32_t, 8> add = {a, b, c, d, e, f, g, h};
        for (std::size_t i = 0; i < 8; ++i) state_[i] += add[i];
    }

    std::array<std::uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                           0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    std::array<std::byte, 64> block_{};
    std::size_t filled_ = 0;
    std::uint64_t length_ = 0;
};

/// The digest of one piece of bytes.
[[nodiscard]] inline digest digest_of(std::span<const std::byte> bytes) noexcept {
    return sha256{}.update(bytes).finish();
}

}  // namespace thinwire

#endif  // THINWIRE_CORE_DIGEST_HPP

// ---- thinwire/core/error.hpp
#ifndef THINWIRE_CORE_ERROR_HPP
#define THINWIRE_CORE_ERROR_HPP

#include <stdexcept>

namespace thinwire {

/// Base of everything that thinwire throws. A message names the operation, the value and what was expected.
class error : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// Shapes or sizes that do not fit together.
class shape_error : public error {
    using error::error;
};

/// A setting or a number outside its range, or not finite.
class value_error : public error {
    using error::error;
};

/// A file or a device that could not be read or written.
class io_error : public error {
    using error::error;
};

}  // namespace thinwire

#endif  // THINWIRE_CORE_ERROR_HPP

// ---- thinwire/core/half.hpp
#ifndef THINWIRE_CORE_HALF_HPP
#define THINWIRE_CORE_HALF_HPP

#include <bit>
#include <cstdint>

namespace thinwire {

/// The float32 that a bfloat16 stands for: exact.
[[nodiscard]] constexpr float from_bfloat16(std::uint16_t bits) noexcept {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16U);
}

/// The nearest bfloat16, ties to even; beyond the largest one gives infinity, NaN stays NaN (quiet).
[[nodiscard]] constexpr std::uint16_t to_bfloat16(float value) noexcept {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if ((bits & 0x7fffffffU) > 0x7f800000U) return static_cast<std::uint16_t>((bits >> 16U) | 0x40U);
    return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16U) & 1U)) >> 16U);
}

/// The float32 that an IEEE binary16 stands for: exact.
[[nodiscard]] constexpr float from_float16(std::uint16_t bits) noexcept {
    const std::uint32_t sign = (bits & 0x8000U) << 16U;
    const std::uint32_t exponent = (bits >> 10U) & 0x1fU;
    const std::uint32_t fraction = bits & 0x3ffU;
    if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000U | (fraction << 13U));
    if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112U) << 23U) | (fraction << 13U));
    const float magnitude = static_cast<float>(fraction) * 0x1p-24F;  // zero or subnormal
    return sign != 0 ? -magnitude : magnitude;
}

/// The nearest IEEE binary16, ties to even; beyond the largest one gives infinity, NaN stays NaN (quiet).
[[nodiscard]] constexpr std::uint16_t to_float16(float value) noexcept {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    const auto sign = static_cast<std::uint16_t>((bits >> 16U) & 0x8000U);
    const std::uint32_t magnitude = bits & 0x7fffffffU;
    if (magnitude > 0x7f800000U) return static_cast<std::uint16_t>(sign | 0x7e00U);
    if (magnitude >= 0x477ff000U) return static_cast<std::uint16_t>(sign | 0x7c00U);
    const std::uint32_t exponent = magnitude >> 23U;
    // A normal result drops 13 bits of the fraction; a subnormal one drops more, its leading bit made explicit.
    std::uint32_t significand = magnitude - (112U << 23U);
    std::uint32_t drop = 13;
    if (exponent < 113) {
        if (exponent < 102) return sign;
        significand = (magnitude & 0x7fffffU) | 0x800000U;
        drop = 126U - exponent;
    }
    const std::uint32_t half = 1U << (drop - 1U);
    const std::uint32_t odd = (significand >> drop) & 1U;
    return static_cast<std::uint16_t>(sign | ((significand + half - 1U + odd) >> drop));
}

}  // namespace thinwire

#endif  // THINWIRE_CORE_HALF_HPP

// ---- thinwire/core/isa.hpp
#ifndef THINWIRE_CORE_ISA_HPP
#define THINWIRE_CORE_ISA_HPP

#include <string_view>

namespace thinwire {

/// Instruction sets that kernels are written for, in rising order.
enum class isa { scalar, avx2, avx512 };

[[nodiscard]] constexpr std::string_view to_string(isa level) noexcept {
    return level == isa::avx512 ? "avx512" : level == isa::avx2 ? "avx2" : "scalar";
}

/// The highest level that this processor and operating system run. Asked once, then remembered.
[[nodiscard]] inline isa best_isa() noexcept {
#if THINWIRE_X86_DISPATCH
    static const isa found = [] {
        __builtin_cpu_init();
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
            return isa::avx512;
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return isa::avx2;
        return isa::scalar;
    }();
    return found;
#else
    return isa::scalar;
#endif
}

}  // namespace thinwire

#endif  // THINWIRE_CORE_ISA_HPP

// ---- thinwire/core/shape.hpp
#ifndef THINWIRE_CORE_SHAPE_HPP
#define THINWIRE_CORE_SHAPE_HPP

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

// ---- thinwire/core/parameter.hpp
#ifndef THINWIRE_CORE_PARAMETER_HPP
#define THINWIRE_CORE_PARAMETER_HPP

#include <cmath>
#include <cstddef>
#include <span>
#include <string>

namespace thinwire {

/// One trainable tensor: where its weights and their gradient lie. Does not own either.
struct parameter {
    std::string name;
    thinwire::shape shape;
    std::span<float> values;    ///< shape.count() weights, row-major
    std::span<float> gradient;  ///< as many
};

/// Throws shape_error when a span does not have the elements that the shape states.
inline void check(const parameter& p) {
    const std::size_t expected = p.shape.count();
    const auto complain = [&](const char* what, std::size_t found) {
        throw shape_error("parameter '" + p.name + "': " + what + " has " + std::to_string(found) +
                          " elements, expected " + std::to_string(expected) + " for shape " + to_string(p.shape));
    };
    if (p.values.size() != expected) complain("values", p.values.size());
    if (p.gradient.size() != expected) complain("gradient", p.gradient.size());
}

}  // namespace thinwire

#endif  // THINWIRE_CORE_PARAMETER_HPP

// ---- thinwire/core/random.hpp
#ifndef THINWIRE_CORE_RANDOM_HPP
#define THINWIRE_CORE_RANDOM_HPP

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace thinwire {

/// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): four 32-bit words that
/// depend only on (key, counter), so that any element of any stream is had without the ones before it.
[[nodiscard]] constexpr std::array<std::uint32_t, 4> philox(std::uint64_t key, std::uint64_t stream,
                                                            std::uint64_t counter) noexcept {
    auto k0 = static_cast<std::uint32_t>(key);
    auto k1 = static_cast<std::uint32_t>(key >> 32U);
    std::array<std::uint32_t, 4> x = {static_cast<std::uint32_t>(counter), static_cast<std::uint32_t>(counter >> 32U),
                                      static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(stream >> 32U)};
    for (int i = 0; i < 10; ++i) {
        const std::uint64_t p0 = std::uint64_t{0xD2511F53U} * x[0];
        const std::uint64_t p1 = std::uint64_t{0xCD9E8D57U} * x[2];
        x = {static_cast<std::uint32_t>(p1 >> 32U) ^ x[1] ^ k0, static_cast<std::uint32_t>(p1),
             static_cast<std::uint32_t>(p0 >> 32U) ^ x[3] ^ k1, static_cast<std::uint32_t>(p0)};
        k0 += 0x9E3779B9U;
        k1 += 0xBB67AE85U;
    }
    return x;
}

/// A sequence of random numbers drawn from one stream of a key. Same (key, stream): same integers everywhere;
/// normal() also depends on the machine's log and cos.
class random_stream {
 public:
    constexpr explicit random_stream(std::uint64_t key, std::uint64_t stream = 0) noexcept
        : key_(key), stream_(stream) {}

    [[nodiscard]] constexpr std::uint32_t bits32() noexcept {
        if (left_ == 0) {
            words_ = philox(key_, stream_, counter_++);
            left_ = 4;
        }
        return words_[--left_];
    }
    [[nodiscard]] constexpr std::uint64_t bits64() noexcept {
        const std::uint64_t high = bits32();
        return (high << 32U) | bits32();
    }
    /// Uniform in [0, 1), 24 bits.
    [[nodiscard]] constexpr float uniform() noexcept { return static_cast<float>(bits32() >> 8U) * 0x1p-24F; }
    /// Uniform in [0, n), without bias worth naming. Precondition: n > 0.
    [[nodiscard]] constexpr std::uint64_t below(std::uint64_t n) noexcept { return bits64() % n; }
    /// Standard normal (Box and Muller).
    [[nodiscard]] float normal() noexcept {
        const float u = (static_cast<float>(bits32() >> 8U) + 1.0F) * 0x1p-24F;
        const float v = uniform();
        return std::sqrt(-2.0F * std::log(u)) * std::cos(2.0F * std::numbers::pi_v<float> * v);
    }

 private:
    std::uint64_t key_;
    std::uint64_t stream_;
    std::uint64_t counter_ = 0;
    std::array<std::uint32_t, 4> words_{};
    std::size_t left_ = 0;
};

}  // namespace thinwire

#endif  // THINWIRE_CORE_RANDOM_HPP

// ---- thinwire/core/permutation.hpp
#ifndef THINWIRE_CORE_PERMUTATION_HPP
#define THINWIRE_CORE_PERMUTATION_HPP

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

// ---- thinwire/core/result.hpp
#ifndef THINWIRE_CORE_RESULT_HPP
#define THINWIRE_CORE_RESULT_HPP

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace thinwire {

/// Why foreign bytes were refused.
enum class errc : std::uint8_t {
    truncated,     ///< the bytes end before what they announce
    trailing,      ///< bytes follow where none belong
    bad_magic,     ///< not this kind of data at all
    bad_version,   ///< a format version this build does not read
    bad_checksum,  ///< altered or damaged
    out_of_range,  ///< a number outside what the format allows
    too_large,     ///< a length above the caller's limit
    not_finite,    ///< NaN or infinity
    mismatch,      ///< well-formed, but of another run, round, peer or shape
    malformed,     ///< anything else that breaks the format
};

/// The name of a code, for messages and metrics.
[[nodiscard]] constexpr std::string_view to_string(errc code) noexcept {
    switch (code) {
        case errc::truncated: return "truncated";
        case errc::trailing: return "trailing";
        case errc::bad_magic: return "bad_magic";
        case errc::bad_version: return "bad_version";
        case errc::bad_checksum: return "bad_checksum";
        case errc::out_of_range: return "out_of_range";
        case errc::too_large: return "too_large";
        case errc::not_finite: return "not_finite";
        case errc::mismatch: return "mismatch";
        case errc::malformed: return "malformed";
    }
    return "unknown";
}

/// A refusal: a code for programs and one line for people.
struct failure {
    errc code{};
    std::string message;
};

/// A value or the reason there is none. What parses foreign bytes returns this and never throws.
template <class T>
class [[nodiscard]] result {
 public:
    using value_type = T;

    result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
    result(failure why) : state_(std::in_place_index<1>, std::move(why)) {}

    [[nodiscard]] explicit operator bool() const noexcept { return state_.index() == 0; }
    [[nodiscard]] bool has_value() const noexcept { return state_.index() == 0; }

    /// Precondition of these four: has_value().
    [[nodiscard]] T& operator*() & noexcept { return *std::get_if<0>(&state_); }
    [[nodiscard]] const T& operator*() const& noexcept { return *std::get_if<0>(&state_); }
    [[nodiscard]] T* operator->() noexcept { return std::get_if<0>(&state_); }
    [[nodiscard]] const T* operator->() const noexcept { return std::get_if<0>(&state_); }

    /// Precondition: !has_value().
    [[nodiscard]] const failure& error() const noexcept { return *std::get_if<1>(&state_); }

    /// The value, or an exception that carries the refusal's message.
    [[nodiscard]] T& value() & {
        require();
        return **this;
    }
    [[nodiscard]] const T& value() const& {
        require();
        return **this;
    }
    [[nodiscard]] T value() && {
        require();
        return std::move(**this);
    }

 private:
    void require() const {
        if (!has_value()) throw thinwire::error(error().message);
    }

    std::variant<T, failure> state_;
};

/// What a check returns when there is nothing to hand over but success.
struct ok {};

}  // namespace thinwire

#endif  // THINWIRE_CORE_RESULT_HPP

// ---- thinwire/core/thread_pool.hpp
#ifndef THINWIRE_CORE_THREAD_POOL_HPP
#define THINWIRE_CORE_THREAD_POOL_HPP

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

namespace thinwire {

/// Threads that a caller asked for. `threads` counts the caller: thread_pool(1) starts none, and every
/// parallel_for then runs on the spot. One parallel_for at a time; not to be called from within its own tasks.
class thread_pool {
 public:
    /// Throws value_error unless 1 <= threads <= 1024.
    explicit thread_pool(int threads = 1) {
        if (threads < 1 || threads > 1024)
            throw value_error("thread_pool: threads " + std::to_string(threads) + ", expected 1..1024");
        for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { work(); });
    }
    thread_pool(const thread_pool&) = delete;
    thread_pool& operator=(const thread_pool&) = delete;
    ~thread_pool() {
        {
            const std::lock_guard lock(mutex_);
            stopping_ = true;
        }
        wake_.notify_all();
        for (std::thread& worker : workers_) worker.join();
    }

    [[nodiscard]] int size() const noexcept { return static_cast<int>(workers_.size()) + 1; }

    /// Calls task(i) once for every i in [0, count), in any order, on any thread; returns when all are done.
    /// `task` must not throw.
    template <class Task>
    void parallel_for(std::size_t count, const Task& task) noexcept {
        if (workers_.empty() || count <= 1) {
            for (std::size_t i = 0; i < count; ++i) task(i);
            return;
        }
        {
            const std::lock_guard lock(mutex_);
            context_ = &task;
            call_ = [](const void* context, std::size_t i) { (*static_cast<const Task*>(context))(i); };
            count_ = count;
            next_.store(0, std::memory_order_relaxed);
            busy_ = workers_.size();
            ++generation_;
        }
        wake_.notify_all();
        drain();
        std::unique_lock lock(mutex_);
        done_.wait(lock, [this] { return busy_ == 0; });
    }

 private:
    void drain() noexcept {
        for (std::size_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) call_(context_, i);
    }

    void work() noexcept {
        std::uint64_t seen = 0;
        for (;;) {
            {
                std::unique_lock lock(mutex_);
                wake_.wait(lock, [&] { return stopping_ || generation_ != seen; });
                if (stopping_) return;
                seen = generation_;
            }
            drain();
            const std::lock_guard lock(mutex_);
            if (--busy_ == 0) done_.notify_one();
        }
    }

    std::vector<std::thread> workers_;
    std::mutex mutex_;
    std::condition_variable wake_, done_;
    std::atomic<std::size_t> next_{0};
    const void* context_ = nullptr;
    void (*call_)(const void*, std::size_t) = nullptr;
    std::size_t count_ = 0;
    std::size_t busy_ = 0;
    std::uint64_t generation_ = 0;
    bool stopping_ = false;
};

}  // namespace thinwire

#endif  // THINWIRE_CORE_THREAD_POOL_HPP

// ---- thinwire/io/batch_sampler.hpp
#ifndef THINWIRE_IO_BATCH_SAMPLER_HPP
#define THINWIRE_IO_BATCH_SAMPLER_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace thinwire {

/// Splits a window of T + 1 bytes into T tokens and, one byte on, their T targets. Precondition: those sizes.
inline void split_window(std::span<const std::byte> window, std::span<std::int32_t> tokens,
                         std::span<std::int32_t> targets) noexcept {
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        tokens[i] = std::to_integer<std::int32_t>(window[i]);
        targets[i] = std::to_integer<std::int32_t>(window[i + 1]);
    }
}

struct batch_sampler_options {
    std::size_t sequence_length = 128;  ///< T, tokens in a window
    std::uint64_t slots_per_round = 1;  ///< windows that all peers together take in a round
    std::uint64_t seed = 0;
};

/// Which windows of a corpus are trained on in which round: a pure function of (corpus size, options, round, slot), so
/// that it has no state, resumes exactly, and gives the same to every peer. The slots of round r are followed by those
/// of r + 1. An epoch visits every window once, in a random order of its own; windows of an epoch do not overlap in
/// their targets, and their boundaries shift from epoch to epoch.
class batch_sampler {
 public:
    /// Views `corpus`. Throws value_error for a length or a number of slots of 0, or a corpus below T + 1 bytes.
    batch_sampler(std::span<const std::byte> corpus, batch_sampler_options options)
        : corpus_(corpus), options_(options) {
        const std::size_t length = options.sequence_length;
        if (length == 0) throw value_error("batch_sampler: sequence_length 0, expected at least 1");
        if (options.slots_per_round == 0) throw value_error("batch_sampler: slots_per_round 0, expected at least 1");
        if (corpus.size() < length + 1)
            throw value_error("batch_sampler: corpus of " + std::to_string(corpus.size()) +
                              " bytes, expected at least " + std::to_string(length + 1));
        // One window fewer than fit leaves room for the shift.
        const std::size_t fit = (corpus.size() - 1) / length;
        windows_ = fit > 1 ? fit - 1 : 1;
        shifts_ = std::min<std::uint64_t>(corpus.size() - windows_ * length, length);
    }

    [[nodiscard]] std::size_t sequence_length() const noexcept { return options_.sequence_length; }
    [[nodiscard]] std::uint64_t slots_per_round() const noexcept { return options_.slots_per_round; }
    [[nodiscard]] std::uint64_t windows_per_epoch() const noexcept { return windows_; }

    /// The T + 1 bytes of a slot. Throws value_error for a slot outside [0, slots_per_round).
    [[nodiscard]] std::span<const std::byte> sample(std::uint64_t round, std::uint64_t slot) const {
        if (slot >= options_.slots_per_round)
            throw value_error("batch_sampler: slot " + std::to_string(slot) + ", expected less than " +
                              std::to_string(options_.slots_per_round));
        const std::uint64_t index = round * options_.slots_per_round + slot;
        const std::uint64_t epoch = index / windows_;
        const auto keys = philox(options_.seed, epoch, 0);
        const std::uint64_t key = keys[0] | (std::uint64_t{keys[1]} << 32U);
        const std::uint64_t shift = keys[2] % shifts_;
        const std::uint64_t window = permutation(windows_, key)(index % windows_);
        return corpus_.subspan(window * options_.sequence_length + shift, options_.sequence_length + 1);
    }

    /// Slots [first_slot, first_slot + rows) as rows of T tokens and T targets. Throws value_error as sample() does,
    /// shape_error unless both spans hold a whole number of rows, and equally many.
    void fill(std::uint64_t round, std::uint64_t first_slot, std::span<std::int32_t> tokens,
              std::span<std::int32_t> targets) const {
        const std::size_t length = options_.sequence_length;
        if (tokens.size() % length != 0 || targets.size() != tokens.size())
            throw shape_error("batch_sampler: " + std::to_string(tokens.size()) + " tokens and " +
                              std::to_string(targets.size()) + " targets, expected rows of " + std::to_string(length));
        for (std::size_t row = 0; row < tokens.size() / length; ++row)
            split_window(sample(round, first_slot + row), tokens.subspan(row * length, length),
                         targets.subspan(row * length, length));
    }

 private:
    std::span<const std::byte> corpus_;
    batch_sampler_options options_;
    std::uint64_t windows_ = 1;
    std::uint64_t shifts_ = 1;
};

}  // namespace thinwire

#endif  // THINWIRE_IO_BATCH_SAMPLER_HPP

// ---- thinwire/io/file.hpp
#ifndef THINWIRE_IO_FILE_HPP
#define THINWIRE_IO_FILE_HPP

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#if defined(_WIN32)
#include <io.h>
#else
#include <fcntl.h>
#include <unistd.h>
#endif

namespace thinwire {

namespace detail {

struct file_closer {
    void operator()(std::FILE* file) const noexcept { std::fclose(file); }
};
using file_handle = std::unique_ptr<std::FILE, file_closer>;

/// "write 'run/log': No space left on device".
[[noreturn]] inline void throw_io_error(std::string_view operation, const std::filesystem::path& path, int reason) {
    throw io_error(std::string(operation) + " '" + path.string() + "': " + std::generic_category().message(reason));
}

[[nodiscard]] inline file_handle open_file(const std::filesystem::path& path, const char* mode,
                                           std::string_view operation) {
    errno = 0;
    file_handle file(std::fopen(path.string().c_str(), mode));
    if (!file) throw_io_error(operation, path, errno);
    return file;
}

/// Hands every byte to the operating system, or throws.
inline void write_all(std::FILE* file, std::span<const std::byte> bytes, const std::filesystem::path& path) {
    if (bytes.empty()) return;
    errno = 0;
    if (std::fwrite(bytes.data(), 1, bytes.size(), file) != bytes.size() || std::fflush(file) != 0)
        throw_io_error("write", path, errno);
}

/// Moves the next read to byte `at`, or throws.
inline void seek(std::FILE* file, std::uint64_t at, const std::filesystem::path& path) {
    errno = 0;
#if defined(_WIN32)
    const bool failed = ::_fseeki64(file, static_cast<std::int64_t>(at), SEEK_SET) != 0;
#else
    const bool failed = ::fseeko(file, static_cast<off_t>(at), SEEK_SET) != 0;
#endif
    if (failed) throw_io_error("seek", path, errno);
}

/// Waits until the file's bytes are on the device, or throws.
inline void sync_file(std::FILE* file, const std::filesystem::path& path) {
#if defined(_WIN32)
    if (_commit(_fileno(file)) != 0) throw_io_error("sync", path, errno);
#else
    // A pipe or a terminal has no device to wait for and says EINVAL.
    if (::fsync(::fileno(file)) != 0 && errno != EINVAL) throw_io_error("sync", path, errno);
#endif
}

/// Makes a rename inside the folder of `path` last.
inline void sync_folder_of(const std::filesystem::path& path) {
#if !defined(_WIN32)
    const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
    const int descriptor = ::open(folder.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) throw_io_error("open folder", folder, errno);
    const int failed = ::fsync(descriptor) != 0 && errno != EINVAL ? errno : 0;
    ::close(descriptor);
    if (failed != 0) throw_io_error("sync folder", folder, failed);
#else
    static_cast<void>(path);
#endif
}

}  // namespace detail

/// All bytes of a file. Throws io_error when it cannot be read or holds more than `limit` bytes; a pipe or a
/// device is read only up to there.
[[nodiscard]] inline std::vector<std::byte> read_file(const std::filesystem::path& path,
                                                      std::uint64_t limit = std::uint64_t{1} << 40U) {
    const detail::file_handle file = detail::open_file(path, "rb", "read");
    std::setvbuf(file.get(), nullptr, _IONBF, 0);
    std::error_code unknown;
    const std::uintmax_t announced = std::filesystem::file_size(path, unknown);
    const auto too_large = [&] {
        throw io_error("read '" + path.string() + "': more than " + std::to_string(limit) + " bytes");
    };
    if (!unknown && announced > limit) too_large();

    std::vector<std::byte> bytes(unknown ? 0 : static_cast<std::size_t>(announced));
    std::size_t filled = 0;
    for (;;) {
        // One byte more than announced tells the end of the file from a file that grew.
        if (filled == bytes.size()) bytes.resize(filled + (filled == 0 || filled != announced ? 65536 : 1));
        errno = 0;
        const std::size_t got = std::fread(bytes.data() + filled, 1, bytes.size() - filled, file.get());
        filled += got;
        if (filled > limit) too_large();
        if (std::ferror(file.get()) != 0) detail::throw_io_error("read", path, errno);
        if (std::feof(file.get()) != 0) break;
    }
    bytes.resize(filled);
    return bytes;
}

/// Replaces a file whole or not at all: writes `path` + ".tmp", then renames it. `durable` also waits until
/// file and name are on the device. On io_error the old file is as it was and the temporary one is gone. One
/// writer a path.
inline void write_file_atomically(const std::filesystem::path& path, std::span<const std::byte> bytes,
                                  bool durable = false) {
    std::filesystem::path temporary = path;
    temporary += ".tmp";
    detail::file_handle file = detail::open_file(temporary, "wb", "create");
    try {
        std::setvbuf(file.get(), nullptr, _IONBF, 0);
        detail::write_all(file.get(), bytes, temporary);
        if (durable) detail::sync_file(file.get(), temporary);
        errno = 0;
        if (std::fclose(file.release()) != 0) detail::throw_io_error("close", temporary, errno);
        std::error_code failed;
        std::filesystem::rename(temporary, path, failed);
        if (failed) throw io_error("rename to '" + path.string() + "': " + failed.message());
    } catch (...) {
        file.reset();
        std::error_code ignored;
        std::filesystem::remove(temporary, ignored);
        throw;
    }
    if (durable) detail::sync_folder_of(path);
}

/// A file that only grows. Used from one thread at a time.
class append_file {
 public:
    /// Opens or creates; throws io_error.
    explicit append_file(std::filesystem::path path)
        : path_(std::move(path)), file_(detail::open_file(path_, "ab", "open")) {
        std::setvbuf(file_.get(), nullptr, _IONBF, 0);
        std::error_code failed;
        size_ = std::filesystem::file_size(path_, failed);
        if (failed) throw io_error("size of '" + path_.string() + "': " + failed.message());
    }

    [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
    [[nodiscard]] std::uint64_t size() const noexcept { return size_; }

    /// Hands all bytes to the operating system. On io_error the file is cut back to its size before the call.
    void append(std::span<const std::byte> bytes) {
        try {
            detail::write_all(file_.get(), bytes, path_);
        } catch (...) {
            std::clearerr(file_.get());
            std::error_code ignored;
            std::filesystem::resize_file(path_, size_, ignored);
            throw;
        }
        size_ += bytes.size();
    }

    /// Waits until everything appended is on the device; throws io_error.
    void sync() { detail::sync_file(file_.get(), path_); }

    /// Shortens the file to `size` bytes. Precondition: size <= size().
    void cut(std::uint64_t size) {
        std::error_code failed;
        std::filesystem::resize_file(path_, size, failed);
        if (failed) throw io_error("cut '" + path_.string() + "': " + failed.message());
        size_ = size;
    }

 private:
    std::filesystem::path path_;
    detail::file_handle file_;
    std::uint64_t size_ = 0;
};

}  // namespace thinwire

#endif  // THINWIRE_IO_FILE_HPP

// ---- thinwire/io/corpus.hpp
#ifndef THINWIRE_IO_CORPUS_HPP
#define THINWIRE_IO_CORPUS_HPP

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace thinwire {

/// The parts of a corpus; both view it.
struct corpus_split {
    std::span<const std::byte> train;
    std::span<const std::byte> validation;
};

/// Text whose tokens are its bytes.
class byte_corpus {
 public:
    /// Throws io_error when the file cannot be read or is empty.
    explicit byte_corpus(const std::filesystem::path& path, std::uint64_t limit = std::uint64_t{1} << 36U)
        : byte_corpus(path.string(), read_file(path, limit)) {}

    /// `name` stands in messages. Throws io_error when there are no bytes.
    byte_corpus(std::string name, std::vector<std::byte> bytes) : name_(std::move(name)), bytes_(std::move(bytes)) {
        if (bytes_.empty()) throw io_error("corpus '" + name_ + "': empty, expected text");
    }

    [[nodiscard]] const std::string& name() const noexcept { return name_; }
    [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return bytes_; }

    /// Throws value_error unless there is room for one sequence of `tokens` and the byte that follows it.
    void require_sequence(std::size_t tokens) const { require("", bytes_.size(), tokens); }

    /// The last `fraction` of the bytes (rounded down) for validation, the rest for training. Throws value_error
    /// unless 0 < fraction < 1 and either part has room for a sequence of `tokens` and the byte that follows it.
    [[nodiscard]] corpus_split split(double fraction, std::size_t tokens) const {
        if (!(fraction > 0.0 && fraction < 1.0))
            throw value_error("corpus '" + name_ + "': validation fraction " + std::to_string(fraction) +
                              ", expected more than 0 and less than 1");
        const auto held_out = static_cast<std::size_t>(static_cast<double>(bytes_.size()) * fraction);
        const std::size_t kept = bytes_.size() - held_out;
        require(" for training", kept, tokens);
        require(" for validation", held_out, tokens);
        return {.train = bytes().first(kept), .validation = bytes().subspan(kept)};
    }

 private:
    void require(const char* part, std::size_t found, std::size_t tokens) const {
        if (found < tokens + 1)
            throw value_error("corpus '" + name_ + "': " + std::to_string(found) + " bytes" + part +
                              ", expected at least " + std::to_string(tokens + 1) + " (a sequence of " +
                              std::to_string(tokens) + " and the byte after it)");
    }

    std::string name_;
    std::vector<std::byte> bytes_;
};

}  // namespace thinwire

#endif  // THINWIRE_IO_CORPUS_HPP

// ---- thinwire/io/run_log.hpp
#ifndef THINWIRE_IO_RUN_LOG_HPP
#define THINWIRE_IO_RUN_LOG_HPP

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace thinwire {

struct run_log_options {
    std::uint64_t first_round = 0;  ///< of a log that does not exist yet
    bool durable = false;           ///< every append waits until it is on the device
};

/// The commits of a run with their payloads, in order without a gap, in a file that only grows.
///
/// Bytes, little-endian: "TWLG", version, run digest, first round, check; then a frame for each round: body length
/// (u32), check of the length, check of the body, body = round, number of contributions, and for each peer, payload
/// length, payload. A check is the first 8 bytes of a SHA-256.
///
/// Used from one thread at a time.
class run_log {
 public:
    /// Opens or creates. A frame that the last writer did not finish (it ends past the file, it is the last one and
    /// fails its check, or only zeros follow its header) is cut. Anything else that is not right is refused, and the
    /// file left as it is: another run, damage before the end, a gap. Throws io_error when the file cannot be read or
    /// written.
    [[nodiscard]] static result<run_log> open(std::filesystem::path path, const digest& run,
                                              run_log_options options = {});

    [[nodiscard]] std::uint64_t first_round() const noexcept { return first_round_; }
    /// The round that append() takes next.
    [[nodiscard]] std::uint64_t next_round() const noexcept { return first_round_ + frames_.size(); }
    /// How many bytes of an unfinished frame open() cut.
    [[nodiscard]] std::uint64_t cut_bytes() const noexcept { return cut_bytes_; }
    /// Size of the file.
    [[nodiscard]] std::uint64_t bytes() const noexcept { return file_.size(); }
    [[nodiscard]] const std::filesystem::path& path() const noexcept { return file_.path(); }

    /// Throws value_error unless c.round == next_round(), io_error when it cannot be written whole; then the log is
    /// as before.
    void append(const commit& c);

    /// Calls visit(const commit&) for the rounds [from, to) that the log has; the payloads are valid during the call.
    /// Refuses a range that begins before first_round(), or damage since open(); throws io_error.
    template <class Visitor>
    [[nodiscard]] result<ok> read(std::uint64_t from, std::uint64_t to, Visitor&& visit) const;

    /// From `from` to the end.
    template <class Visitor>
    [[nodiscard]] result<ok> read(std::uint64_t from, Visitor&& visit) const {
        return read(from, next_round(), std::forward<Visitor>(visit));
    }

    /// Waits until everything is on the device; throws io_error.
    void sync() { file_.sync(); }

 private:
    struct frame {
        std::uint64_t at = 0;
        std::uint32_t length = 0;  // of the body
    };

    explicit run_log(append_file file) : file_(std::move(file)) {}

    [[nodiscard]] result<ok> read_header(std::span<const std::byte> bytes, const digest& run);
    [[nodiscard]] result<ok> scan(std::FILE* file);
    [[nodiscard]] failure refuse(errc code, const std::string& why) const {
        return {code, "log '" + path().string() + "': " + why};
    }

    append_file file_;
    std::uint64_t first_round_ = 0;
    std::uint64_t cut_bytes_ = 0;
    bool durable_ = false;
    std::vector<frame> frames_;
};

namespace detail {

inline constexpr std::uint32_t log_magic = 0x474c5754;  // "TWLG"
inline constexpr std::uint32_t log_version = 1;
inline constexpr std::size_t log_header_bytes = 4 + 4 + 32 + 8 + 8;
inline constexpr std::size_t log_frame_bytes = 4 + 8 + 8;

[[nodiscard]] inline std::uint64_t log_check(std::span<const std::byte> bytes) noexcept {
    const digest d = digest_of(bytes);
    return byte_reader(d.bytes).get<std::uint64_t>();
}

[[nodiscard]] inline std::vector<std::byte> encode_log_header(const digest& run, std::uint64_t first_round) {
    byte_writer out;
    out.put(log_magic);
    out.put(log_version);
    out.put(std::span<const std::byte>(run.bytes));
    out.put(first_round);
    out.put(log_check(out.bytes()));
    return out.take();
}

/// The frame of a commit; throws value_error when it is too long for one.
[[nodiscard]] inline std::vector<std::byte> encode_log_frame(const commit& c) {
    byte_writer body;
    body.put(c.round);
    body.put(static_cast<std::uint32_t>(c.contributions.size()));
    for (const contribution& part : c.contributions) {
        body.put(part.peer);
        body.put(static_cast<std::uint64_t>(part.payload.size()));
        body.put(part.payload);
    }
    if (body.size() > std::numeric_limits<std::uint32_t>::max())
        throw value_error("log: round " + std::to_string(c.round) + " has " + std::to_string(body.size()) +
                          " bytes, expected less than 4 GiB");
    byte_writer out;
    out.put(static_cast<std::uint32_t>(body.size()));
    out.put(log_check(out.bytes()));
    out.put(log_check(body.bytes()));
    out.put(body.bytes());
    return out.take();
}

/// What precedes the body of a frame.
struct log_frame_header {
    std::uint32_t length = 0;
    std::uint64_t body_check = 0;
    bool holds = false;  ///< the length passes its check
};

[[nodiscard]] inline log_frame_header decode_log_frame_header(std::span<const std::byte> bytes) {
    byte_reader in(bytes);
    log_frame_header out;
    out.length = in.get<std::uint32_t>();
    const auto length_check = in.get<std::uint64_t>();
    out.body_check = in.get<std::uint64_t>();
    out.holds = !in.failed() && length_check == log_check(bytes.first(4));
    return out;
}

/// Fills `parts` with views of the body; false when the body is not a commit.
[[nodiscard]] inline bool decode_log_body(std::span<const std::byte> body, std::uint64_t& round,
                                          std::vector<contribution>& parts) {
    byte_reader in(body);
    round = in.get<std::uint64_t>();
    const auto count = in.get<std::uint32_t>();
    parts.clear();
    for (std::uint32_t i = 0; i < count && !in.failed(); ++i) {
        const auto peer = in.get<std::uint64_t>();
        const auto length = in.get<std::uint64_t>();
        parts.push_back({.peer = peer, .payload = in.get_bytes(length)});
    }
    return !in.failed() && in.remaining() == 0;
}

/// The next `count` bytes of a file, fewer at its end. Throws io_error.
inline std::span<const std::byte> read_some(std::FILE* file, std::size_t count, std::vector<std::byte>& buffer,
                                            const std::filesystem::path& path) {
    buffer.resize(count);
    errno = 0;
    const std::size_t got = std::fread(buffer.data(), 1, count, file);
    if (std::ferror(file) != 0) throw_io_error("read", path, errno);
    return std::span<const std::byte>(buffer).first(got);
}

/// Whether only zeros follow: what a file system may leave of bytes that it had no time to write.
[[nodiscard]] inline bool only_zeros_follow(std::FILE* file, const std::filesystem::path& path) {
    std::vector<std::byte> buffer;
    for (;;) {
        const auto bytes = read_some(file, 65536, buffer, path);
        if (bytes.empty()) return true;
        if (!std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; })) return false;
    }
}

}  // namespace detail

inline result<run_log> run_log::open(std::filesystem::path path, const digest& run, run_log_options options) {
    run_log log{append_file(std::move(path))};
    log.durable_ = options.durable;
    const std::vector<std::byte> fresh = detail::encode_log_header(run, options.first_round);
    const detail::file_handle file = detail::open_file(log.path(), "rb", "read");
    std::vector<std::byte> buffer;
    const auto header = detail::read_some(file.get(), fresh.size(), buffer, log.path());
    if (header.size() < fresh.size() && std::ranges::equal(header, std::span(fresh).first(header.size()))) {
        log.cut_bytes_ = header.size();
        log.file_.cut(0);
        log.file_.append(fresh);
        if (options.durable) {
            log.file_.sync();
            detail::sync_folder_of(log.path());
        }
        log.first_round_ = options.first_round;
        return log;
    }
    if (const result<ok> read = log.read_header(header, run); !read) return read.error();
    if (const result<ok> read = log.scan(file.get()); !read) return read.error();
    return log;
}

inline result<ok> run_log::read_header(std::span<const std::byte> bytes, const digest& run) {
    byte_reader in(bytes);
    if (in.get<std::uint32_t>() != detail::log_magic) return refuse(errc::bad_magic, "this is not a thinwire log");
    const auto version = in.get<std::uint32_t>();
    digest found;
    std::ranges::copy(in.get_bytes(found.bytes.size()), found.bytes.begin());
    first_round_ = in.get<std::uint64_t>();
    const auto check = in.get<std::uint64_t>();
    if (in.failed()) return refuse(errc::truncated, "the header is cut");
    if (version != detail::log_version)
        return refuse(errc::bad_version, "format version " + std::to_string(version) + ", this build reads " +
                                             std::to_string(detail::log_version));
    if (check != detail::log_check(bytes.first(detail::log_header_bytes - 8)))
        return refuse(errc::bad_checksum, "the header is damaged");
    if (found != run)
        return refuse(errc::mismatch,
                      "it belongs to run " + to_string(found, 12) + ", this is run " + to_string(run, 12));
    return ok{};
}

inline result<ok> run_log::scan(std::FILE* file) {
    std::vector<std::byte> buffer;
    std::vector<contribution> parts;
    const std::uint64_t end = file_.size();
    for (std::uint64_t at = detail::log_header_bytes; at < end;) {
        const auto head = detail::decode_log_frame_header(
            detail::read_some(file, std::min<std::uint64_t>(detail::log_frame_bytes, end - at), buffer, path()));
        const std::uint64_t next = at + detail::log_frame_bytes + head.length;
        const bool whole = head.holds && next <= end;
        const auto body = whole ? detail::read_some(file, head.length, buffer, path()) : std::span<const std::byte>();
        if (!whole || detail::log_check(body) != head.body_check) {
            // Torn, if nothing whole can follow; damage, if something can.
            bool torn = end - at < detail::log_frame_bytes || (head.holds && next >= end);
            if (!torn) {
                detail::seek(file, at + detail::log_frame_bytes, path());
                torn = detail::only_zeros_follow(file, path());
            }
            if (!torn)
                return refuse(errc::bad_checksum, "damaged at byte " + std::to_string(at) + ", where round " +
                                                      std::to_string(next_round()) + " should begin");
            cut_bytes_ = end - at;
            file_.cut(at);
            return ok{};
        }
        std::uint64_t round = 0;
        if (!detail::decode_log_body(body, round, parts))
            return refuse(errc::malformed, "the frame at byte " + std::to_string(at) + " is not a commit");
        if (round != next_round())
            return refuse(errc::malformed, "round " + std::to_string(round) + " stands where round " +
                                               std::to_string(next_round()) + " should");
        frames_.push_back({.at = at, .length = head.length});
        at = next;
    }
    return ok{};
}

inline void run_log::append(const commit& c) {
    if (c.round != next_round())
        throw value_error("log '" + path().string() + "': round " + std::to_string(c.round) + " to append, expected " +
                          std::to_string(next_round()));
    const std::vector<std::byte> bytes = detail::encode_log_frame(c);
    const std::uint64_t at = file_.size();
    frames_.reserve(frames_.size() + 1);
    file_.append(bytes);
    if (durable_) file_.sync();
    frames_.push_back({.at = at, .length = static_cast<std::uint32_t>(bytes.size() - detail::log_frame_bytes)});
}

template <class Visitor>
result<ok> run_log::read(std::uint64_t from, std::uint64_t to, Visitor&& visit) const {
    to = std::min(to, next_round());
    if (from < first_round_)
        return refuse(errc::out_of_range, "round " + std::to_string(from) + " asked for, it begins with round " +
                                              std::to_string(first_round_));
    if (from >= to) return ok{};
    const detail::file_handle file = detail::open_file(path(), "rb", "read");
    std::vector<std::byte> buffer;
    std::vector<contribution> parts;
    detail::seek(file.get(), frames_[from - first_round_].at, path());
    for (std::uint64_t r = from; r < to; ++r) {
        const auto head =
            detail::decode_log_frame_header(detail::read_some(file.get(), detail::log_frame_bytes, buffer, path()));
        const std::uint32_t length = frames_[r - first_round_].length;
        const auto body = detail::read_some(file.get(), length, buffer, path());
        std::uint64_t round = 0;
        if (!head.holds || head.length != length || detail::log_check(body) != head.body_check ||
            !detail::decode_log_body(body, round, parts) || round != r)
            return refuse(errc::bad_checksum, "round " + std::to_string(r) + " was damaged after the log was opened");
        visit(commit{.round = round, .contributions = parts});
    }
    return ok{};
}

}  // namespace thinwire

#endif  // THINWIRE_IO_RUN_LOG_HPP

// ---- thinwire/io/snapshot.hpp
#ifndef THINWIRE_IO_SNAPSHOT_HPP
#define THINWIRE_IO_SNAPSHOT_HPP

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace thinwire {

/// Weights under a name. Does not own the values.
struct named_tensor {
    std::string name;
    thinwire::shape shape;
    std::span<const float> values;  ///< shape.count() of them, row-major
};

/// The state of a replica after `round` commits, and whatever its owner keeps beside it (its momentum, say).
///
/// Bytes, little-endian: "TWSN", version, total length, then the sections head (run, round), manifest, tensors and
/// blobs, each with tag and length, and the SHA-256 of everything before it.
struct snapshot {
    static constexpr std::uint32_t magic = 0x4e535754;  // "TWSN"
    static constexpr std::uint32_t version = 1;

    digest run{};
    std::uint64_t round = 0;
    std::string manifest;
    std::vector<named_tensor> tensors;
    std::map<std::string, std::vector<std::byte>> blobs;
    /// Owns the values of a decoded snapshot; empty when the tensors view memory of the caller.
    std::shared_ptr<const std::vector<float>> storage{};

    /// Throws shape_error when a tensor's span does not have the elements its shape states.
    [[nodiscard]] std::vector<std::byte> encode() const;

    /// Total: refuses every cut and every altered byte; allocates no more than the bytes justify.
    [[nodiscard]] static result<snapshot> decode(std::span<const std::byte> bytes);

    /// Replaces the file at `path` whole or not at all; throws io_error.
    void save(const std::filesystem::path& path, bool durable = true) const {
        write_file_atomically(path, encode(), durable);
    }

    /// Throws io_error when the file cannot be read; what it holds is refused as decode() does, with the path.
    [[nodiscard]] static result<snapshot> load(const std::filesystem::path& path,
                                               std::uint64_t limit = std::uint64_t{1} << 40U) {
        result<snapshot> loaded = decode(read_file(path, limit));
        if (loaded) return loaded;
        return failure{loaded.error().code, "'" + path.string() + "': " + loaded.error().message};
    }

    /// Copies the weights into `parameters`. Refuses (and then changes nothing) unless names and shapes are the same
    /// in the same order.
    [[nodiscard]] result<ok> copy_to(std::span<const parameter> parameters) const;
};

/// What a snapshot stores of `parameters`: views of their values.
[[nodiscard]] inline std::vector<named_tensor> tensors_of(std::span<const parameter> parameters) {
    std::vector<named_tensor> tensors;
    tensors.reserve(parameters.size());
    for (const parameter& p : parameters) tensors.push_back({.name = p.name, .shape = p.shape, .values = p.values});
    return tensors;
}

namespace detail {

enum class snapshot_section : std::uint32_t { head = 1, manifest = 2, tensors = 3, blobs = 4 };

inline constexpr std::size_t snapshot_header_bytes = 16;
inline constexpr std::size_t snapshot_name_limit = 4096;

[[nodiscard]] inline failure refuse_snapshot(errc code, const std::string& why) {
    return {code, "snapshot: " + why};
}

inline void put_section(byte_writer& out, snapshot_section tag, std::span<const std::byte> body) {
    out.put(static_cast<std::uint32_t>(tag));
    out.put(static_cast<std::uint64_t>(body.size()));
    out.put(body);
}

inline void put_floats(byte_writer& out, std::span<const float> values) {
    if constexpr (std::endian::native == std::endian::little) {
        out.put(std::as_bytes(values));
    } else {
        for (const float value : values) out.put(value);
    }
}

inline void get_floats(std::span<const std::byte> raw, std::span<float> values) noexcept {
    if constexpr (std::endian::native == std::endian::little) {
        if (!values.empty()) std::memcpy(values.data(), raw.data(), values.size_bytes());
    } else {
        byte_reader in(raw);
        for (float& value : values) value = in.get_f32();
    }
}

[[nodiscard]] inline std::vector<std::byte> encode_tensors(std::span<const named_tensor> tensors) {
    byte_writer out;
    out.put(static_cast<std::uint32_t>(tensors.size()));
    for (const named_tensor& t : tensors) {
        if (t.values.size() != t.shape.count())
            throw shape_error("snapshot: tensor '" + t.name + "' has " + std::to_string(t.values.size()) +
                              " values, expected " + std::to_string(t.shape.count()) + " for shape " +
                              to_string(t.shape));
        out.put(std::string_view(t.name));
        out.put(static_cast<std::uint8_t>(t.shape.rank()));
        for (const std::int64_t side : t.shape) out.put(side);
    }
    for (const named_tensor& t : tensors) put_floats(out, t.values);
    return out.take();
}

/// Reads a shape as encode_tensors() puts it; false when it is cut or not a shape.
[[nodiscard]] inline bool get_shape(byte_reader& in, shape& out) {
    const auto rank = in.get<std::uint8_t>();
    if (rank > shape::max_rank) return false;
    std::array<std::int64_t, shape::max_rank> sides{};
    std::int64_t total = 1;
    constexpr std::int64_t limit = std::int64_t{1} << 62;
    for (std::size_t i = 0; i < rank; ++i) {
        sides[i] = in.get<std::int64_t>();
        if (sides[i] < 1 || total > limit / sides[i]) return false;
        total *= sides[i];
    }
    out = shape(std::span<const std::int64_t>(sides.data(), rank));
    return !in.failed();
}

[[nodiscard]] inline result<ok> decode_tensors(std::span<const std::byte> body, snapshot& into) {
    byte_reader in(body);
    const auto count = in.get<std::uint32_t>();
    std::uint64_t elements = 0;
    std::set<std::string> names;
    for (std::uint32_t i = 0; i < count; ++i) {
        named_tensor t;
        t.name = in.get_string(snapshot_name_limit);
        if (in.failed() || !get_shape(in, t.shape))
            return refuse_snapshot(errc::malformed, "tensor " + std::to_string(i) + " has no readable name and shape");
        if (!names.insert(t.name).second)
            return refuse_snapshot(errc::malformed, "two tensors are named '" + t.name + "'");
        elements += t.shape.count();
        if (elements > body.size() / sizeof(float))
            return refuse_snapshot(errc::truncated, "tensor '" + t.name + "' of shape " + to_string(t.shape) +
                                                        " is larger than its section");
        into.tensors.push_back(std::move(t));
    }
    if (in.failed() || in.remaining() != elements * sizeof(float))
        return refuse_snapshot(errc::malformed, "the tensor section does not hold the values that its shapes state");
    auto values = std::make_shared<std::vector<float>>(static_cast<std::size_t>(elements));
    get_floats(in.get_bytes(in.remaining()), *values);
    std::size_t at = 0;
    for (named_tensor& t : into.tensors) {
        t.values = std::span<const float>(*values).subspan(at, t.shape.count());
        at += t.values.size();
    }
    into.storage = std::move(values);
    return ok{};
}

[[nodiscard]] inline std::vector<std::byte> encode_blobs(const std::map<std::string, std::vector<std::byte>>& blobs) {
    byte_writer out;
    out.put(static_cast<std::uint32_t>(blobs.size()));
    for (const auto& [name, bytes] : blobs) {
        out.put(std::string_view(name));
        out.put(static_cast<std::uint64_t>(bytes.size()));
        out.put(std::span<const std::byte>(bytes));
    }
    return out.take();
}

[[nodiscard]] inline result<ok> decode_blobs(std::span<const std::byte> body, snapshot& into) {
    byte_reader in(body);
    const auto count = in.get<std::uint32_t>();
    for (std::uint32_t i = 0; i < count; ++i) {
        std::string name = in.get_string(snapshot_name_limit);
        const auto length = in.get<std::uint64_t>();
        const auto raw = in.get_bytes(length);
        if (in.failed()) return refuse_snapshot(errc::malformed, "blob " + std::to_string(i) + " is cut");
        if (!into.blobs.emplace(std::move(name), std::vector<std::byte>(raw.begin(), raw.end())).second)
            return refuse_snapshot(errc::malformed, "two blobs have one name");
    }
    if (in.failed() || in.remaining() != 0)
        return refuse_snapshot(errc::malformed, "the blob section does not end with its last blob");
    return ok{};
}

/// Checks frame and digest; gives the sections.
[[nodiscard]] inline result<std::span<const std::byte>> open_snapshot(std::span<const std::byte> bytes) {
    byte_reader in(bytes);
    const auto magic = in.get<std::uint32_t>();
    const auto version = in.get<std::uint32_t>();
    const auto length = in.get<std::uint64_t>();
    if (in.failed())
        return refuse_snapshot(errc::truncated, std::to_string(bytes.size()) + " bytes, too few for a header");
    if (magic != snapshot::magic) return refuse_snapshot(errc::bad_magic, "this is not a thinwire snapshot");
    if (version != snapshot::version)
        return refuse_snapshot(errc::bad_version, "format version " + std::to_string(version) + ", this build reads " +
                                                      std::to_string(snapshot::version));
    if (bytes.size() != length)
        return refuse_snapshot(bytes.size() < length ? errc::truncated : errc::trailing,
                               std::to_string(bytes.size()) + " bytes, its header states " + std::to_string(length));
    constexpr std::size_t digest_bytes = sizeof(digest::bytes);
    if (length < snapshot_header_bytes + digest_bytes) return refuse_snapshot(errc::truncated, "no room for a digest");
    const std::size_t covered = bytes.size() - digest_bytes;
    const digest found = digest_of(bytes.first(covered));
    if (!std::ranges::equal(found.bytes, bytes.subspan(covered)))
        return refuse_snapshot(errc::bad_checksum, "damaged: the digest does not match the content");
    return bytes.subspan(snapshot_header_bytes, covered - snapshot_header_bytes);
}

}  // namespace detail

inline std::vector<std::byte> snapshot::encode() const {
    using detail::snapshot_section;
    byte_writer out;
    out.put(magic);
    out.put(version);
    out.put(std::uint64_t{0});

    byte_writer head;
    head.put(std::span<const std::byte>(run.bytes));
    head.put(round);
    put_section(out, snapshot_section::head, head.bytes());
    put_section(out, snapshot_section::manifest, std::as_bytes(std::span(manifest.data(), manifest.size())));
    put_section(out, snapshot_section::tensors, detail::encode_tensors(tensors));
    put_section(out, snapshot_section::blobs, detail::encode_blobs(blobs));

    const std::uint64_t length = out.size() + sizeof(digest::bytes);
    out.patch(8, static_cast<std::uint32_t>(length));
    out.patch(12, static_cast<std::uint32_t>(length >> 32U));
    const digest check = digest_of(out.bytes());
    out.put(std::span<const std::byte>(check.bytes));
    return out.take();
}

inline result<snapshot> snapshot::decode(std::span<const std::byte> bytes) {
    using detail::snapshot_section;
    const auto sections = detail::open_snapshot(bytes);
    if (!sections) return sections.error();
    byte_reader in(*sections);
    snapshot out;
    for (const auto tag :
         {snapshot_section::head, snapshot_section::manifest, snapshot_section::tensors, snapshot_section::blobs}) {
        const auto found = in.get<std::uint32_t>();
        const auto length = in.get<std::uint64_t>();
        const auto body = in.get_bytes(length);
        if (in.failed() || found != static_cast<std::uint32_t>(tag))
            return detail::refuse_snapshot(errc::malformed, "a section is missing or out of place");
        result<ok> read = ok{};
        if (tag == snapshot_section::head) {
            byte_reader head(body);
            const auto raw = head.get_bytes(sizeof(digest::bytes));
            std::ranges::copy(raw, out.run.bytes.begin());
            out.round = head.get<std::uint64_t>();
            if (head.failed() || head.remaining() != 0)
                return detail::refuse_snapshot(errc::malformed, "the head section has another length");
        } else if (tag == snapshot_section::manifest) {
            out.manifest.assign(reinterpret_cast<const char*>(body.data()), body.size());
        } else if (tag == snapshot_section::tensors) {
            read = detail::decode_tensors(body, out);
        } else {
            read = detail::decode_blobs(body, out);
        }
        if (!read) return read.error();
    }
    if (in.remaining() != 0) return detail::refuse_snapshot(errc::trailing, "bytes follow the last section");
    return out;
}

inline result<ok> snapshot::copy_to(std::span<const parameter> parameters) const {
    if (tensors.size() != parameters.size())
        return detail::refuse_snapshot(errc::mismatch, std::to_string(tensors.size()) + " tensors, the model has " +
                                                           std::to_string(parameters.size()));
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        const named_tensor& t = tensors[i];
        const parameter& p = parameters[i];
        if (t.name != p.name || t.shape != p.shape || t.values.size() != p.values.size())
            return detail::refuse_snapshot(errc::mismatch, "tensor '" + t.name + "' " + to_string(t.shape) +
                                                               " stands where the model has '" + p.name + "' " +
                                                               to_string(p.shape));
    }
    for (std::size_t i = 0; i < tensors.size(); ++i) std::ranges::copy(tensors[i].values, parameters[i].values.begin());
    return ok{};
}

}  // namespace thinwire

#endif  // THINWIRE_IO_SNAPSHOT_HPP

// ---- thinwire/version.hpp
#ifndef THINWIRE_VERSION_HPP
#define THINWIRE_VERSION_HPP

/// The one place that states the version; CMake, the packages and the wire handshake read it from here.
#define THINWIRE_VERSION_MAJOR 0
#define THINWIRE_VERSION_MINOR 1
#define THINWIRE_VERSION_PATCH 0
#define THINWIRE_VERSION_STRING "0.1.0"

#endif  // THINWIRE_VERSION_HPP

// ---- thinwire/thinwire.hpp
#ifndef THINWIRE_THINWIRE_HPP
#define THINWIRE_THINWIRE_HPP

/// Everything of thinwire::thinwire. Written by tools/amalgamate.py.

#endif  // THINWIRE_THINWIRE_HPP
