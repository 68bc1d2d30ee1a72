#ifndef THINWIRE_BACKEND_CPU_REFERENCE_HPP
#define THINWIRE_BACKEND_CPU_REFERENCE_HPP

#include <thinwire/backend/cpu/buffer.hpp>
#include <thinwire/nn/backend.hpp>

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
