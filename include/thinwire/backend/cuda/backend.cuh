#ifndef THINWIRE_BACKEND_CUDA_BACKEND_CUH
#define THINWIRE_BACKEND_CUDA_BACKEND_CUH

#include <thinwire/backend/cuda/detail/attention_kernel.cuh>
#include <thinwire/backend/cuda/detail/bfloat16_tile.cuh>
#include <thinwire/backend/cuda/detail/column_sum_kernel.cuh>
#include <thinwire/backend/cuda/detail/cross_entropy_kernel.cuh>
#include <thinwire/backend/cuda/detail/device_pool.cuh>
#include <thinwire/backend/cuda/detail/embedding_kernel.cuh>
#include <thinwire/backend/cuda/detail/fill_kernel.cuh>
#include <thinwire/backend/cuda/detail/map_kernel.cuh>
#include <thinwire/backend/cuda/detail/matmul.cuh>
#include <thinwire/backend/cuda/detail/norm_kernel.cuh>
#include <thinwire/core/error.hpp>
#include <thinwire/nn/backend.hpp>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

namespace thinwire::cuda {

/// nn::backend on a device: nn::transformer<cuda::backend> trains there, and cuda::demo takes its parameters() as they
/// are. Operations are those of the concept, over device pointers, in the order of one stream; ids and targets lie in
/// host memory and are free on return. The host waits in upload(), download() and cross_entropy(), for the loss, and
/// while memory grows to what a larger call needs; a training step of a size seen before waits once and allocates
/// nothing.
///
/// Results depend on sizes alone: no sum is left to the order of threads. Matrix products are cuBLASLt's.
///
/// Refers to the stream, which must outlive it; its buffers must not. Not thread-safe.
class backend {
 public:
    /// Device memory; goes back to the back end that allocated it, which lives longer.
    class buffer {
     public:
        buffer() = default;
        buffer(buffer&& other) noexcept
            : memory_(std::move(other.memory_)),
              size_(std::exchange(other.size_, 0)),
              pool_(std::exchange(other.pool_, nullptr)) {}
        buffer& operator=(buffer&& other) noexcept {
            std::swap(memory_, other.memory_);
            std::swap(size_, other.size_);
            std::swap(pool_, other.pool_);
            return *this;
        }
        ~buffer() {
            if (pool_ != nullptr) pool_->give_back(std::move(memory_));
        }
        [[nodiscard]] float* data() const noexcept { return size_ == 0 ? nullptr : memory_.data(); }
        [[nodiscard]] std::size_t size() const noexcept { return size_; }

     private:
        friend class backend;
        buffer(detail::device_pool& pool, std::size_t size) : memory_(pool.take(size)), size_(size), pool_(&pool) {}

        device_buffer<float> memory_;
        std::size_t size_ = 0;
        detail::device_pool* pool_ = nullptr;
    };

    /// The stream's device is to be the one in use (device_scope), here and in all calls. Throws device_error where
    /// there is no device or not enough memory for the workspace of cuBLAS, 32 MiB; value_error where another device is
    /// in use, where tf32 or bf16 is asked for and the device is below compute capability 8.0, or, with bf16, these
    /// sources were compiled for one that is.
    backend(stream& on, matmul_precision precision)
        : stream_(&on_current_device(on)),
          precision_(precision),
          pool_(on),
          matmul_(precision),
          total_(1, "total"),
          staged_total_(1) {
        if (precision != matmul_precision::bf16) return;
        const int compiled = compiled_for<detail::attention_kernel<detail::bfloat16_tile<64, 64>>>();
        if (compiled < 80)
            throw value_error("cuda::backend: precision bf16 in code for compute capability " +
                              std::to_string(compiled / 10) + "." + std::to_string(compiled % 10) +
                              ", expected 8.0 at least (nvcc -arch, CMAKE_CUDA_ARCHITECTURES)");
    }
    backend(const backend&) = delete;
    backend& operator=(const backend&) = delete;
    /// Waits: what was given to the stream uses memory that goes here.
    ~backend() { stream_->drain(); }

    /// Zero-filled. Throws device_error when the device has no more memory.
    [[nodiscard]] buffer allocate(std::size_t size) {
        buffer out(pool_, size);
        fill(out.data(), 0.0F, size);
        return out;
    }
    void upload(float* to, std::span<const float> from) {
        copy_to_device<float>(*stream_, from, out(to, from.size()));
        stream_->synchronize();
    }
    void download(std::span<float> to, const float* from) {
        copy_to_host<float>(*stream_, in(from, to.size()), to);
        stream_->synchronize();
    }

    void matmul(float* c, const float* a, const float* b, int m, int n, int k, bool transpose_a, bool transpose_b,
                bool accumulate) {
        if (m == 0 || n == 0) return;
        if (k == 0) {
            if (!accumulate) fill(c, 0.0F, area(m, n));
            return;
        }
        matmul_.run(pool_, c, a, b, wide(m), wide(n), wide(k), transpose_a, transpose_b, accumulate);
    }

    void add_bias(float* y, const float* bias, int rows, int columns) {
        detail::launch_rows(*stream_, detail::add_bias_map{out(y, area(rows, columns)), in(bias, wide(columns))},
                            wide(rows), wide(columns));
    }
    void bias_backward(float* dbias, const float* dy, int rows, int columns) {
        add_columns(dbias, dy, nullptr, nullptr, nullptr, rows, columns);
    }
    void add(float* y, const float* x, std::size_t n) { map(detail::add_map{out(y, n), in(x, n)}, n); }
    void copy(float* y, const float* x, std::size_t n) { map(detail::copy_map{out(y, n), in(x, n)}, n); }
    void fill(float* y, float value, std::size_t n) {
        launch(*stream_, detail::fill_kernel<float>{out(y, n), value}, detail::fill_kernel<float>::blocks(n), 0);
    }

    void rms_norm(float* y, float* rstd, const float* x, const float* weight, int rows, int columns, float eps) {
        norm({.y = out(y, area(rows, columns)),
              .mean = {},
              .rstd = out(rstd, wide(rows)),
              .x = in(x, area(rows, columns)),
              .weight = in(weight, wide(columns)),
              .bias = {},
              .rows = wide(rows),
              .columns = wide(columns),
              .eps = eps,
              .centred = false});
    }
    void layer_norm(float* y, float* mean, float* rstd, const float* x, const float* weight, const float* bias,
                    int rows, int columns, float eps) {
        norm({.y = out(y, area(rows, columns)),
              .mean = out(mean, wide(rows)),
              .rstd = out(rstd, wide(rows)),
              .x = in(x, area(rows, columns)),
              .weight = in(weight, wide(columns)),
              .bias = in(bias, wide(columns)),
              .rows = wide(rows),
              .columns = wide(columns),
              .eps = eps,
              .centred = true});
    }
    void rms_norm_backward(float* dx, float* dweight, const float* dy, const float* x, const float* weight,
                           const float* rstd, int rows, int columns) {
        add_columns(dweight, dy, x, nullptr, rstd, rows, columns);
        norm_backward(dx, dy, x, weight, nullptr, rstd, rows, columns);
    }
    void layer_norm_backward(float* dx, float* dweight, float* dbias, const float* dy, const float* x,
                             const float* weight, const float* mean, const float* rstd, int rows, int columns) {
        add_columns(dweight, dy, x, mean, rstd, rows, columns);
        add_columns(dbias, dy, nullptr, nullptr, nullptr, rows, columns);
        norm_backward(dx, dy, x, weight, mean, rstd, rows, columns);
    }

    void rope(float* x, const float* cosine, const float* sine, int rows, int tokens, int heads, int head_dim,
              int stride, int first_position, bool inverse) {
        const std::size_t half = wide(head_dim / 2), table = (wide(first_position) + wide(tokens)) * half;
        detail::launch_rows(*stream_,
                            detail::rope_map{.x = out(x, strided(rows, stride, heads * head_dim)),
                                             .cosine = in(cosine, table),
                                             .sine = in(sine, table),
                                             .tokens = narrow(tokens),
                                             .half = narrow(head_dim / 2),
                                             .stride = wide(stride),
                                             .first_position = wide(first_position),
                                             .direction = inverse ? -1.0F : 1.0F},
                            wide(rows), wide(heads) * half);
    }

    /// Throws value_error for a head_dim above 128.
    void attention(float* o, float* lse, const float* q, const float* k, const float* v, nn::attention_shape s) {
        by_tile(s.head_dim, [&]<class Tile, class>() {
            using kernel = detail::attention_kernel<Tile>;
            launch_tiles(kernel{.o = out(o, heads_of(s, s.o_stride, s.heads)),
                                .lse = out(lse, lse_of(s)),
                                .q = in(q, heads_of(s, s.q_stride, s.heads)),
                                .k = in(k, heads_of(s, s.kv_stride, s.kv_heads)),
                                .v = in(v, heads_of(s, s.kv_stride, s.kv_heads)),
                                .s = sizes_of(s),
                                .batches = narrow(s.batch)},
                         s, s.heads);
        });
    }
    void attention_backward(float* dq, float* dk, float* dv, const float* dout, const float* q, const float* k,
                            const float* v, const float* o, const float* lse, nn::attention_shape s) {
        const device_span<float> delta = delta_.take(pool_, lse_of(s));
        by_tile(s.head_dim, [&]<class QueryTile, class KeyTile>() {
            const std::size_t queries = heads_of(s, s.q_stride, s.heads), outputs = heads_of(s, s.o_stride, s.heads);
            const std::size_t keys = heads_of(s, s.kv_stride, s.kv_heads);
            launch_tiles(detail::attention_query_kernel<QueryTile>{.dq = out(dq, queries),
                                                                   .delta = delta,
                                                                   .dout = in(dout, outputs),
                                                                   .q = in(q, queries),
                                                                   .k = in(k, keys),
                                                                   .v = in(v, keys),
                                                                   .o = in(o, outputs),
                                                                   .lse = in(lse, lse_of(s)),
                                                                   .s = sizes_of(s),
                                                                   .batches = narrow(s.batch)},
                         s, s.heads);
            launch_tiles(detail::attention_key_kernel<KeyTile>{.dk = out(dk, keys),
                                                               .dv = out(dv, keys),
                                                               .dout = in(dout, outputs),
                                                               .q = in(q, queries),
                                                               .k = in(k, keys),
                                                               .v = in(v, keys),
                                                               .lse = in(lse, lse_of(s)),
                                                               .delta = delta,
                                                               .s = sizes_of(s),
                                                               .batches = narrow(s.batch)},
                         s, s.kv_heads);
        });
    }

    void silu_mul(float* y, const float* gate, const float* up, std::size_t n) {
        map(detail::silu_mul_map{out(y, n), in(gate, n), in(up, n)}, n);
    }
    void silu_mul_backward(float* dgate, float* dup, const float* dy, const float* gate, const float* up,
                           std::size_t n) {
        map(detail::silu_mul_backward_map{out(dgate, n), out(dup, n), in(dy, n), in(gate, n), in(up, n)}, n);
    }
    void gelu(float* y, const float* x, std::size_t n, bool tanh_form) {
        map(detail::gelu_map{out(y, n), in(x, n), tanh_form}, n);
    }
    void gelu_backward(float* dx, const float* dy, const float* x, std::size_t n, bool tanh_form) {
        map(detail::gelu_backward_map{out(dx, n), in(dy, n), in(x, n), tanh_form}, n);
    }

    void embedding(float* y, const float* table, const std::int32_t* ids, int rows, int columns) {
        const std::array parts = {std::span(ids, wide(rows))};
        const std::int32_t last = rows == 0 ? -1 : *std::max_element(ids, ids + rows);
        detail::launch_rows(*stream_,
                            detail::embedding_map{out(y, area(rows, columns)), in(table, area(last + 1, columns)),
                                                  stage_.bring(pool_, parts), wide(columns)},
                            wide(rows), wide(columns));
    }
    void embedding_backward(float* dtable, const float* dy, const std::int32_t* ids, int rows, int columns) {
        if (rows == 0) return;
        by_id_.sort({ids, wide(rows)});
        const std::array parts = {by_id_.rows(), by_id_.ids(), by_id_.ends()};
        const device_span<const std::int32_t> all = stage_.bring(pool_, parts);
        const std::size_t distinct = by_id_.ids().size();
        using kernel = detail::embedding_backward_kernel;
        const std::size_t strips = (wide(columns) + kernel::threads - 1) / kernel::threads;
        launch(*stream_,
               kernel{.dtable = out(dtable, area(by_id_.ids().back() + 1, columns)),
                      .dy = in(dy, area(rows, columns)),
                      .rows = all.subspan(0, wide(rows)),
                      .ids = all.subspan(wide(rows), distinct),
                      .ends = all.subspan(wide(rows) + distinct, distinct),
                      .columns = wide(columns),
                      .strips = strips},
               static_cast<unsigned>(distinct * strips), 0);
    }

    /// Waits for the sum.
    double cross_entropy(float* logits, const std::int32_t* targets, int rows, int vocabulary, float gradient_scale) {
        const std::array parts = {std::span(targets, wide(rows))};
        const device_span<double> losses = losses_.take(pool_, wide(rows));
        using kernel = detail::cross_entropy_kernel;
        launch(*stream_,
               kernel{.logits = out(logits, area(rows, vocabulary)),
                      .targets = stage_.bring(pool_, parts),
                      .losses = losses,
                      .vocabulary = wide(vocabulary),
                      .gradient_scale = gradient_scale},
               narrow(rows), kernel::shared_bytes());
        launch(*stream_, detail::total_kernel{losses, total_.span()}, 1, detail::total_kernel::shared_bytes());
        copy_to_host<double>(*stream_, total_.span(), staged_total_.span());
        stream_->synchronize();
        return staged_total_.span()[0];
    }

 private:
    [[nodiscard]] static stream& on_current_device(stream& on) {
        if (const int used = current_device(), device = on.device(); used != device)
            throw value_error("cuda::backend: a stream of device " + std::to_string(device) + " while device " +
                              std::to_string(used) + " is in use, expected that of the stream (cuda::device_scope)");
        return on;
    }
    [[nodiscard]] static std::size_t wide(int n) noexcept { return static_cast<std::size_t>(n); }
    [[nodiscard]] static unsigned narrow(int n) noexcept { return static_cast<unsigned>(n); }
    [[nodiscard]] static std::size_t area(int rows, int columns) noexcept { return wide(rows) * wide(columns); }
    /// Elements from the first of row 0 to the last of the last row.
    [[nodiscard]] static std::size_t strided(int rows, int stride, int width) noexcept {
        return rows == 0 ? 0 : area(rows - 1, stride) + wide(width);
    }
    [[nodiscard]] static device_span<float> out(float* to, std::size_t size) { return {to, size}; }
    [[nodiscard]] static device_span<const float> in(const float* from, std::size_t size) { return {from, size}; }

    template <class Map>
    void map(const Map& what, std::size_t count) {
        detail::launch_map(*stream_, what, count);
    }

    void norm(const detail::norm_kernel& what) { launch(*stream_, what, detail::norm_kernel::blocks(what.rows), 0); }
    void norm_backward(float* dx, const float* dy, const float* x, const float* weight, const float* mean,
                       const float* rstd, int rows, int columns) {
        using kernel = detail::norm_backward_kernel;
        launch(*stream_,
               kernel{.dx = out(dx, area(rows, columns)),
                      .dy = in(dy, area(rows, columns)),
                      .x = in(x, area(rows, columns)),
                      .weight = in(weight, wide(columns)),
                      .mean = optional(mean, wide(rows)),
                      .rstd = in(rstd, wide(rows)),
                      .rows = wide(rows),
                      .columns = wide(columns),
                      .centred = mean != nullptr},
               kernel::blocks(wide(rows)), 0);
    }
    [[nodiscard]] static device_span<const float> optional(const float* from, std::size_t size) {
        return from == nullptr ? device_span<const float>() : in(from, size);
    }
    /// sums[j] += the column sums that column_sum_kernel describes.
    void add_columns(float* sums, const float* dy, const float* x, const float* mean, const float* rstd, int rows,
                     int columns) {
        if (rows == 0 || columns == 0) return;
        const detail::column_parts cut = {wide(rows), wide(columns)};
        const device_span<float> parts = parts_.take(pool_, cut.elements());
        using kernel = detail::column_sum_kernel;
        launch(*stream_,
               kernel{.parts = parts,
                      .dy = in(dy, area(rows, columns)),
                      .x = optional(x, area(rows, columns)),
                      .mean = optional(mean, wide(rows)),
                      .rstd = optional(rstd, wide(rows)),
                      .rows = wide(rows),
                      .columns = wide(columns),
                      .strips = cut.strips(),
                      .part_rows = (wide(rows) + cut.parts() - 1) / cut.parts()},
               static_cast<unsigned>(cut.parts() * cut.strips()), kernel::shared_bytes());
        launch(*stream_, detail::add_parts_kernel{out(sums, wide(columns)), parts}, static_cast<unsigned>(cut.strips()),
               detail::add_parts_kernel::shared_bytes());
    }

    [[nodiscard]] static std::size_t heads_of(const nn::attention_shape& s, int stride, int heads) noexcept {
        return strided(s.batch * s.tokens, stride, heads * s.head_dim);
    }
    [[nodiscard]] static std::size_t lse_of(const nn::attention_shape& s) noexcept {
        return area(s.batch * s.tokens, s.heads);
    }
    [[nodiscard]] static detail::attention_sizes sizes_of(const nn::attention_shape& s) {
        return {.tokens = narrow(s.tokens),
                .heads = narrow(s.heads),
                .kv_heads = narrow(s.kv_heads),
                .head_dim = narrow(s.head_dim),
                .q_stride = wide(s.q_stride),
                .kv_stride = wide(s.kv_stride),
                .o_stride = wide(s.o_stride),
                .scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(s.head_dim)))};
    }
    /// Calls give<tile of queries, tile of keys>() with those for the size and the precision.
    template <class Give>
    void by_tile(int head_dim, const Give& give) const {
        using detail::bfloat16_tile;
        using detail::float_tile;
        if (head_dim < 1 || head_dim > static_cast<int>(detail::widest_head))
            throw value_error("cuda::backend: attention with head_dim " + std::to_string(head_dim) +
                              ", expected 1 to " + std::to_string(detail::widest_head));
        if (precision_ == matmul_precision::bf16) {
            if (head_dim <= 64)
                give.template operator()<bfloat16_tile<64, 64>, bfloat16_tile<64, 32>>();
            else
                give.template operator()<bfloat16_tile<128, 32>, bfloat16_tile<128, 16>>();
        } else {
            if (head_dim <= 64)
                give.template operator()<float_tile<64>, float_tile<64>>();
            else
                give.template operator()<float_tile<128>, float_tile<128>>();
        }
    }
    template <class Kernel>
    void launch_tiles(const Kernel& kernel, const nn::attention_shape& s, int heads) {
        static_assert(Kernel::shared_bytes() <= most_shared_bytes);
        const std::size_t tiles = (wide(s.tokens) + Kernel::tile::fixed - 1) / Kernel::tile::fixed;
        launch(*stream_, kernel, static_cast<unsigned>(tiles * area(s.batch, heads)), Kernel::shared_bytes());
    }

    stream* stream_;
    matmul_precision precision_;
    detail::device_pool pool_;
    detail::matmul matmul_;
    detail::id_stage stage_;
    detail::rows_by_id by_id_;
    detail::device_scratch<float> parts_, delta_;
    detail::device_scratch<double> losses_;
    device_buffer<double> total_;
    pinned_buffer<double> staged_total_;
};

static_assert(nn::backend<backend>);

}  // namespace thinwire::cuda

#endif  // THINWIRE_BACKEND_CUDA_BACKEND_CUH
