#ifndef THINWIRE_OPTIM_DETAIL_CHUNK_WORKER_HPP
#define THINWIRE_OPTIM_DETAIL_CHUNK_WORKER_HPP

#include <thinwire/codec/top_k.hpp>
#include <thinwire/core/aligned.hpp>
#include <thinwire/optim/detail/chunk_plan.hpp>
#include <thinwire/optim/detail/exact_mean.hpp>
#include <thinwire/transform/kernels.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace thinwire::detail {

/// The working memory of one thread and what it does to one chunk.
class chunk_worker {
 public:
    chunk_worker(const chunk_plan& plan, const transform_kernels& kernels)
        : kernels_(&kernels),
          scratch_(plan.max_rows(), plan.max_cols()),
          local_(plan.max_chunk_size()),
          exact_(plan.max_chunk_size()),
          mean_(plan.max_chunk_size()) {
        keys_.reserve(plan.max_chunk_size());
        tops_.reserve(plan.max_chunk_size());
    }

    /// m <- m - taken * what `content` holds of this chunk, if taken > 0; m <- decay * m + gain * g; the coefficients
    /// to send -> content. They stay in m until the next call, or take_out(): nothing has to be put back if they are
    /// lost.
    void encode(const chunk_plan::tensor& t, std::size_t chunk, float* m, const float* g, float decay, float gain,
                const value_codec& codec, sparse_content& content, float taken) {
        const std::size_t h = t.grid.rows(), w = t.grid.cols(), stride = t.grid.stride();
        const bool all = t.kept == h * w && taken == 1.0F && !t.settings.keeps_rest;
        if (taken > 0.0F && !all) decode(t, chunk, content);
        for (std::size_t r = 0; r < h; ++r) {
            float* row = scratch_.tile.data() + r * t.cols->full();
            if (all) std::fill_n(m + r * stride, w, 0.0F);  // not even what rounding would leave remains
            kernels_->update_momentum(m + r * stride, g + r * stride, row, w, decay, gain, all ? 0.0F : taken);
            std::fill(row + w, row + t.cols->full(), 0.0F);
        }
        kernels_->forward(*t.rows, *t.cols, scratch_);
        const spectrum_layout layout = {*t.rows, *t.cols};
        const std::size_t place = chunk_plan::first_place(t, chunk);
        const auto positions = std::span(content.positions).subspan(place, t.kept);
        const auto values = std::span(content.values).subspan(place, t.kept);
        select(t, positions);
        std::size_t count = 0;
        for (std::size_t i = 0; i < t.kept; ++i) {
            const float value = scratch_.coefficients[layout.place(positions[i])];
            if (value == 0.0F && !codec.sends_zero()) continue;
            positions[count] = positions[i];
            values[count++] = value;
        }
        content.counts[t.first_chunk + chunk] = static_cast<std::uint32_t>(count);
    }

    /// m <- m - factor * inverse transform of what `content` holds of this chunk.
    void take_out(const chunk_plan::tensor& t, std::size_t chunk, float* m, const sparse_content& content,
                  float factor) {
        const std::size_t h = t.grid.rows(), w = t.grid.cols();
        if (t.kept == h * w && factor == 1.0F &&
            !t.settings.keeps_rest) {  // all of it was sent: not even what rounding would leave remains
            for (std::size_t r = 0; r < h; ++r) std::fill_n(m + r * t.grid.stride(), w, 0.0F);
            return;
        }
        decode(t, chunk, content);
        for (std::size_t r = 0; r < h; ++r)
            kernels_->add_scaled(m + r * t.grid.stride(), scratch_.tile.data() + r * t.cols->full(), w, -factor);
    }

    /// x <- factor * x - rate * sign(inverse transform of the mean over the senders). `Each` is called with a function
    /// for each content in turn.
    void apply(const chunk_plan::tensor& t, std::size_t chunk, float* x,
               std::span<const sparse_content* const> contents, float rate, float factor) {
        decode_mean(t, chunk, contents);
        for (std::size_t r = 0; r < t.grid.rows(); ++r)
            kernels_->apply_sign(x + r * t.grid.stride(), scratch_.tile.data() + r * t.cols->full(), t.grid.cols(),
                                 rate, factor);
    }

    /// The inverse transform of the mean over the senders, as apply() uses it: rows of cols->full() elements in units
    /// of 2^exponent().
    const float* decode_mean(const chunk_plan::tensor& t, std::size_t chunk,
                             std::span<const sparse_content* const> contents) {
        const std::size_t place = chunk_plan::first_place(t, chunk);
        const auto count = [&](const sparse_content& c) { return c.counts[t.first_chunk + chunk]; };
        mean_.clear();
        for (const sparse_content* c : contents) mean_.measure(std::span(c->values).subspan(place, count(*c)));
        for (const sparse_content* c : contents)
            mean_.add(std::span(c->positions).subspan(place, count(*c)),
                      std::span(c->values).subspan(place, count(*c)));
        mean_.finish();
        exact_.assign(mean_.positions(), mean_.means(), t.grid.cols());
        kernels_->inverse_exact(*t.rows, *t.cols, exact_, scratch_);
        return scratch_.tile.data();
    }
    [[nodiscard]] int exponent() const noexcept { return mean_.scale_exponent(); }
    [[nodiscard]] std::size_t memory_bytes() const noexcept {
        return scratch_.memory_bytes() + local_.memory_bytes() + exact_.memory_bytes() + mean_.memory_bytes() +
               bytes_held(tops_, keys_);
    }

 private:
    void select(const chunk_plan::tensor& t, std::span<std::uint16_t> positions) {
        if (positions.size() == t.grid.chunk_size()) {
            for (std::size_t i = 0; i < positions.size(); ++i) positions[i] = static_cast<std::uint16_t>(i);
            return;
        }
        const spectrum_layout layout = {*t.rows, *t.cols};
        const auto stored = std::span<const float>(scratch_.coefficients).first(layout.size());
        tops_.resize(top_k_groups(stored.size(), positions.size()));
        std::uint32_t floor = 0;
        if (!tops_.empty()) {
            kernels_->group_tops(stored.data(), stored.size(), tops_.size(), tops_.data());
            floor = kernels_->top_floor(tops_.data(), tops_.size(), positions.size());
        }
        select_top_k(
            stored, tops_, floor, [&layout](std::size_t i) { return layout.position(i); }, keys_, positions);
    }

    /// The inverse transform of what `content` holds of a chunk -> scratch_.tile.
    void decode(const chunk_plan::tensor& t, std::size_t chunk, const sparse_content& content) {
        const std::size_t place = chunk_plan::first_place(t, chunk);
        const std::size_t count = content.counts[t.first_chunk + chunk];
        local_.assign(std::span(content.positions).subspan(place, count),
                      std::span(content.values).subspan(place, count), t.grid.cols());
        kernels_->inverse(*t.rows, *t.cols, local_, scratch_);
    }

    const transform_kernels* kernels_;
    transform_scratch scratch_;
    sparse_chunk<float> local_;
    sparse_chunk<double> exact_;
    exact_mean mean_;
    std::vector<std::uint32_t> tops_;
    std::vector<std::uint64_t> keys_;
};

}  // namespace thinwire::detail

#endif  // THINWIRE_OPTIM_DETAIL_CHUNK_WORKER_HPP
