#ifndef THINWIRE_OPTIM_DETAIL_CHUNK_WORKER_HPP
#define THINWIRE_OPTIM_DETAIL_CHUNK_WORKER_HPP

#include <thinwire/codec/top_k.hpp>
#include <thinwire/core/aligned.hpp>
#include <thinwire/optim/detail/chunk_plan.hpp>
#include <thinwire/optim/detail/exact_mean.hpp>
#include <thinwire/transform/kernels.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace thinwire::detail {

/// The working memory of one thread and what it does to chunks.
class chunk_worker {
 public:
    chunk_worker(const chunk_plan& plan, const transform_kernels& kernels)
        : kernels_(&kernels),
          scratch_(plan.max_rows(), plan.max_cols()),
          panel_(std::max(panel_elements, scratch_.tile.size())),
          local_(plan.max_chunk_size()),
          exact_(plan.max_chunk_size()),
          mean_(plan.max_chunk_size()) {
        keys_.reserve(plan.max_chunk_size());
        tops_.reserve(scratch_.coefficients.size());
        marks_.reserve(scratch_.coefficients.size() / 64 + 1);
    }

    /// What encode() does to every chunk.
    struct step {
        float decay, gain;
        float taken;       ///< of what `content` holds
        std::size_t most;  ///< coefficients of a chunk that are sent: at most those that the region keeps
    };

    /// For chunks [from, to), all in one row of chunks, m and g those of chunk `from`:
    /// m <- m - taken * what `content` holds of the chunk, if taken > 0; m <- decay * m + gain * g; the coefficients
    /// to send -> content. They stay in m until the next call, or take_out(): nothing has to be put back if they are
    /// lost.
    void encode(const chunk_plan::region& t, std::size_t from, std::size_t to, float* m, const float* g,
                const step& how, const value_codec& codec, sparse_content& content) {
        const std::size_t tile = t.grid.rows() * t.cols->full(), w = t.grid.cols();
        const bool line = spectrum_layout{*t.rows, *t.cols}.line();
        const std::size_t most = line ? line_batch : std::max<std::size_t>(1, panel_elements / tile);
        for (; from < to; from += most) {
            const std::size_t count = std::min(most, to - from);
            fill_panel(t, from, count, m, g, how, content);
            if (line)
                choose_lines(t, from, count, how.most, codec, content);
            else
                for (std::size_t c = 0; c < count; ++c) {
                    kernels_->forward(*t.rows, *t.cols, panel_.data() + c * tile, scratch_);
                    choose(t, from + c, scratch_.coefficients.data(), how.most, codec, content);
                }
            m += count * w;
            g += count * w;
        }
    }

    /// m <- m - factor * inverse transform of what `content` holds of this chunk.
    void take_out(const chunk_plan::region& t, std::size_t chunk, float* m, const sparse_content& content,
                  float factor) {
        const std::size_t h = t.grid.rows(), w = t.grid.cols();
        if (factor == 1.0F && all_sent(t, chunk, content)) {
            for (std::size_t r = 0; r < h; ++r) std::fill_n(m + r * t.grid.stride(), w, 0.0F);
            return;
        }
        decode(t, chunk, content, scratch_.tile.data());
        for (std::size_t r = 0; r < h; ++r)
            kernels_->add_scaled(m + r * t.grid.stride(), scratch_.tile.data() + r * t.cols->full(), w, -factor);
    }

    /// What the senders of a commit sent, and what each weighs: no weights where all count alike.
    struct senders {
        std::span<const sparse_content* const> contents;
        std::span<const contribution_weight> weights{};
    };

    /// For chunks [from, to), all in one row of chunks, x that of chunk `from`:
    /// x <- factor * x - rate * sign(inverse transform of the mean over the senders).
    void apply(const chunk_plan::region& t, std::size_t from, std::size_t to, float* x, const senders& sent, float rate,
               float factor) {
        const std::size_t h = t.grid.rows(), w = t.grid.cols(), stride = t.grid.stride(), full = t.cols->full();
        const std::size_t most = std::max<std::size_t>(1, panel_elements / (h * full));
        for (; from < to; from += most) {
            const std::size_t count = std::min(most, to - from);
            for (std::size_t c = 0; c < count; ++c) decode_mean(t, from + c, sent, panel_.data() + c * h * full);
            for (std::size_t r = 0; r < h; ++r)
                for (std::size_t c = 0; c < count; ++c)
                    kernels_->apply_sign(x + r * stride + c * w, panel_.data() + (c * h + r) * full, w, rate, factor,
                                         ahead(t, r, count));
            x += count * w;
        }
    }

    /// The inverse transform of the mean over the senders, as apply() uses it: rows of cols->full() elements in units
    /// of 2^exponent().
    const float* decode_mean(const chunk_plan::region& t, std::size_t chunk, const senders& sent) {
        decode_mean(t, chunk, sent, scratch_.tile.data());
        return scratch_.tile.data();
    }
    [[nodiscard]] int exponent() const noexcept { return mean_.scale_exponent(); }
    [[nodiscard]] std::size_t memory_bytes() const noexcept {
        return scratch_.memory_bytes() + local_.memory_bytes() + exact_.memory_bytes() + mean_.memory_bytes() +
               bytes_held(panel_, tops_, marks_, keys_);
    }

 private:
    /// What a panel holds: as much of a row of chunks as stays in the second cache, so that the rows of the matrix are
    /// read in long runs. The rows of one chunk would be far apart, in the same few cache sets.
    static constexpr std::size_t panel_elements = 65536;

    void decode_mean(const chunk_plan::region& t, std::size_t chunk, const senders& sent, float* tile) {
        const std::size_t place = chunk_plan::first_place(t, chunk);
        const auto count = [&](const sparse_content& c) { return c.counts[t.first_chunk + chunk]; };
        mean_.clear();
        if (sent.weights.empty()) {
            for (const sparse_content* c : sent.contents) mean_.measure(std::span(c->values).subspan(place, count(*c)));
            for (const sparse_content* c : sent.contents)
                mean_.add(std::span(c->positions).subspan(place, count(*c)),
                          std::span(c->values).subspan(place, count(*c)));
        } else {
            for (std::size_t i = 0; i < sent.contents.size(); ++i)
                mean_.measure(std::span(sent.contents[i]->values).subspan(place, count(*sent.contents[i])),
                              sent.weights[i].shift);
            for (std::size_t i = 0; i < sent.contents.size(); ++i) {
                const sparse_content& c = *sent.contents[i];
                mean_.add(std::span(c.positions).subspan(place, count(c)), std::span(c.values).subspan(place, count(c)),
                          sent.weights[i]);
            }
        }
        mean_.finish(sent.weights.empty());
        if (spectrum_layout{*t.rows, *t.cols}.line()) {
            kernels_->inverse_line_exact(*t.cols, mean_.positions().data(), mean_.means().data(),
                                         mean_.positions().size(), tile);
            return;
        }
        exact_.assign(mean_.positions(), mean_.means(), t.grid.cols());
        kernels_->inverse_exact(*t.rows, *t.cols, exact_, tile, scratch_);
    }

    /// How far from row r of a panel of `count` chunks lies what is wanted next but one: two rows down, or in the panel
    /// to the right.
    static std::ptrdiff_t ahead(const chunk_plan::region& t, std::size_t r, std::size_t count) noexcept {
        const std::size_t h = t.grid.rows(), row = (r + 2) % h;
        return (static_cast<std::ptrdiff_t>(row) - static_cast<std::ptrdiff_t>(r)) *
                   static_cast<std::ptrdiff_t>(t.grid.stride()) +
               static_cast<std::ptrdiff_t>(r + 2 < h ? 0 : count * t.grid.cols());
    }

    /// Brings the momentum of `count` chunks up to date and a copy of them into panel_, one after the other.
    void fill_panel(const chunk_plan::region& t, std::size_t first, std::size_t count, float* m, const float* g,
                    const step& how, const sparse_content& content) {
        const std::size_t h = t.grid.rows(), w = t.grid.cols(), stride = t.grid.stride();
        const std::size_t full = t.cols->full(), tile = h * full;
        std::size_t whole = 0;  // chunks of which nothing remains
        if (how.taken > 0.0F)
            for (std::size_t c = 0; c < count; ++c) {
                if (how.taken == 1.0F && all_sent(t, first + c, content)) {
                    for (std::size_t r = 0; r < h; ++r) std::fill_n(m + r * stride + c * w, w, 0.0F);
                    std::fill_n(panel_.data() + c * tile, tile, 0.0F);
                    ++whole;
                } else {
                    decode(t, first + c, content, panel_.data() + c * tile);
                }
            }
        for (std::size_t r = 0; r < h; ++r)
            kernels_->update_momentum(
                m + r * stride, g + r * stride,
                {.out = panel_.data() + r * full, .chunks = count, .width = w, .full = full, .apart = tile}, how.decay,
                how.gain, whole == count ? 0.0F : how.taken, ahead(t, r, count));
    }
    /// Whether nothing of a chunk stays in the momentum, not even what rounding would leave.
    static bool all_sent(const chunk_plan::region& t, std::size_t chunk, const sparse_content& content) noexcept {
        return !t.keeps_rest && content.counts[t.first_chunk + chunk] == t.grid.chunk_size();
    }

    /// choose() for at most line_batch chunks in panel_, of one row each.
    void choose_lines(const chunk_plan::region& t, std::size_t first, std::size_t count, std::size_t k,
                      const value_codec& codec, sparse_content& content) {
        const std::size_t w = t.grid.cols(), whole = (count + 15) / 16 * 16;
        kernels_->forward_lines(*t.cols, panel_.data(), count, scratch_);
        const float* c = scratch_.coefficients.data();
        std::array<std::uint32_t, line_batch> floors;
        std::array<std::uint64_t, line_batch> marks;
        kernels_->line_floors(scratch_.middle.data(), w, whole, whole, k, floors.data());
        kernels_->mark_lines(c, w, count, floors.data(), marks.data());
        for (std::size_t line = 0; line < count; ++line, c += w) {
            if (static_cast<std::size_t>(std::popcount(marks[line])) == k && floors[line] != 0)
                take_marked(t, first + line, c, marks[line], content);
            else  // several are as large as the last one that is kept
                choose(t, first + line, c, k, codec, content);
        }
    }
    /// The marked coefficients, none of them 0, of a chunk of one row -> content.
    static void take_marked(const chunk_plan::region& t, std::size_t chunk, const float* c, std::uint64_t marks,
                            sparse_content& content) noexcept {
        const std::size_t place = chunk_plan::first_place(t, chunk);
        std::uint32_t count = 0;
        for (; marks != 0; marks &= marks - 1, ++count) {
            const int position = std::countr_zero(marks);
            content.positions[place + count] = static_cast<std::uint16_t>(position);
            content.values[place + count] = c[position];
        }
        content.counts[t.first_chunk + chunk] = count;
    }

    /// The k largest of a chunk's coefficients -> content.
    void choose(const chunk_plan::region& t, std::size_t chunk, const float* coefficients, std::size_t k,
                const value_codec& codec, sparse_content& content) {
        const spectrum_layout layout = {*t.rows, *t.cols};
        const std::size_t place = chunk_plan::first_place(t, chunk);
        const auto positions = std::span(content.positions).subspan(place, k);
        const auto values = std::span(content.values).subspan(place, k);
        select(t, layout, coefficients, positions);
        std::size_t count = 0;
        for (std::size_t i = 0; i < k; ++i) {
            const float value = coefficients[layout.place(positions[i])];
            if (value == 0.0F && !codec.sends_zero()) continue;
            positions[count] = positions[i];
            values[count++] = value;
        }
        content.counts[t.first_chunk + chunk] = static_cast<std::uint32_t>(count);
    }

    void select(const chunk_plan::region& t, const spectrum_layout& layout, const float* c,
                std::span<std::uint16_t> positions) {
        if (positions.size() == t.grid.chunk_size()) {
            for (std::size_t i = 0; i < positions.size(); ++i) positions[i] = static_cast<std::uint16_t>(i);
            return;
        }
        const std::size_t n = layout.size(), groups = top_k_groups(n, positions.size());
        tops_.resize(groups);
        marks_.resize((n + 63) / 64);
        kernels_->group_tops(c, n, groups, tops_.data());
        const std::uint32_t floor = kernels_->top_floor(tops_.data(), groups, positions.size());
        kernels_->mark_tops(c, n, floor, marks_.data());
        select_top_k(
            std::span(c, n), marks_, [&layout](std::size_t i) { return layout.position(i); }, keys_, positions);
    }

    /// The inverse transform of what `content` holds of a chunk -> tile.
    void decode(const chunk_plan::region& t, std::size_t chunk, const sparse_content& content, float* tile) {
        const std::size_t place = chunk_plan::first_place(t, chunk);
        const std::size_t count = content.counts[t.first_chunk + chunk];
        if (spectrum_layout{*t.rows, *t.cols}.line()) {
            kernels_->inverse_line(*t.cols, content.positions.data() + place, content.values.data() + place, count,
                                   tile);
            return;
        }
        if (t.rows->fast() && t.cols->fast()) {
            kernels_->inverse_fast(*t.rows, *t.cols, content.positions.data() + place, content.values.data() + place,
                                   count, tile, scratch_);
            return;
        }
        local_.assign(std::span(content.positions).subspan(place, count),
                      std::span(content.values).subspan(place, count), t.grid.cols());
        kernels_->inverse(*t.rows, *t.cols, local_, tile, scratch_);
    }

    const transform_kernels* kernels_;
    transform_scratch scratch_;
    aligned_vector<float> panel_;
    sparse_chunk<float> local_;
    sparse_chunk<double> exact_;
    exact_mean mean_;
    std::vector<std::uint32_t> tops_;
    std::vector<std::uint64_t> marks_, keys_;
};

}  // namespace thinwire::detail

#endif  // THINWIRE_OPTIM_DETAIL_CHUNK_WORKER_HPP
