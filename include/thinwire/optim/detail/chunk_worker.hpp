#ifndef THINWIRE_OPTIM_DETAIL_CHUNK_WORKER_HPP
#define THINWIRE_OPTIM_DETAIL_CHUNK_WORKER_HPP

#include <thinwire/codec/top_k.hpp>
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
        if (taken > 0.0F) take_out(t, chunk, m, content, taken);
        for (std::size_t r = 0; r < h; ++r) {
            float* row = scratch_.tile.data() + r * t.cols->full();
            kernels_->update_momentum(m + r * stride, g + r * stride, row, w, decay, gain);
            std::fill(row + w, row + t.cols->full(), 0.0F);
        }
        kernels_->forward(*t.rows, *t.cols, scratch_);
        const std::size_t place = chunk_plan::first_place(t, chunk);
        const auto positions = std::span(content.positions).subspan(place, t.kept);
        const auto values = std::span(content.values).subspan(place, t.kept);
        select(t, positions);
        std::size_t count = 0;
        for (std::size_t i = 0; i < t.kept; ++i) {
            const float value =
                scratch_
                    .coefficients[positions[i] / w * t.cols->spectrum_width() + t.cols->spectrum_at(positions[i] % w)];
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
        const std::size_t place = chunk_plan::first_place(t, chunk);
        const std::size_t count = content.counts[t.first_chunk + chunk];
        add_decoded(t, m, std::span(content.positions).subspan(place, count),
                    std::span(content.values).subspan(place, count), -factor);
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

 private:
    void select(const chunk_plan::tensor& t, std::span<std::uint16_t> positions) {
        const std::size_t w = t.grid.cols(), width = t.cols->spectrum_width();
        if (positions.size() == t.grid.chunk_size()) {
            for (std::size_t i = 0; i < positions.size(); ++i) positions[i] = static_cast<std::uint16_t>(i);
            return;
        }
        const auto stored = std::span<const float>(scratch_.coefficients).first(t.grid.rows() * width);
        tops_.resize(top_k_groups(stored.size(), positions.size()));
        if (!tops_.empty()) kernels_->group_tops(stored.data(), stored.size(), tops_.size(), tops_.data());
        const auto position_of = [w, width, cols = t.cols](std::size_t i) {
            const std::size_t column = cols->frequency_at(i % width);
            return column < w ? static_cast<std::uint32_t>(i / width * w + column) : 0x10000U;
        };
        select_top_k(stored, tops_, position_of, keys_, positions);
    }

    void add_decoded(const chunk_plan::tensor& t, float* m, std::span<const std::uint16_t> positions,
                     std::span<const float> values, float factor) {
        local_.assign(positions, values, t.grid.cols());
        kernels_->inverse(*t.rows, *t.cols, local_, scratch_);
        for (std::size_t r = 0; r < t.grid.rows(); ++r)
            kernels_->add_scaled(m + r * t.grid.stride(), scratch_.tile.data() + r * t.cols->full(), t.grid.cols(),
                                 factor);
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
