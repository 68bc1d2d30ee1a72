#ifndef THINWIRE_OPTIM_DETAIL_PAYLOAD_LANES_HPP
#define THINWIRE_OPTIM_DETAIL_PAYLOAD_LANES_HPP

#include <thinwire/codec/payload.hpp>
#include <thinwire/comm/transport.hpp>
#include <thinwire/core/bytes.hpp>
#include <thinwire/core/thread_pool.hpp>
#include <thinwire/optim/contribution_weights.hpp>
#include <thinwire/optim/detail/parallel.hpp>
#include <thinwire/optim/detail/round_keeper.hpp>
#include <thinwire/optim/step_report.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace thinwire::detail {

/// Sections are encoded and contributions decoded by all threads of a pool, wherever the coefficients come from and go
/// to. Refers to the layout and the pool.
class payload_lanes {
 public:
    /// An own value code may throw and encodes on one thread: `own_code`.
    payload_lanes(const payload_layout& layout, thread_pool* pool, bool own_code)
        : layout_(&layout),
          pool_(pool),
          decoders_(lane_count(pool), payload_decoder(layout)),
          coders_(lane_count(pool), section_coder(layout)),
          encoded_(lane_count(pool) > 1 && !own_code ? layout.sections.size() : 0) {}

    /// All memory that encode() needs.
    void reserve() {
        for (std::size_t i = 0; i < encoded_.size(); ++i)
            encoded_[i].reserve(room_of_section(layout_->sections[i], *layout_->codec));
    }
    /// The same for payloads that state `k`.
    void reserve(std::uint32_t k) {
        for (section_coder& coder : coders_) coder.reserve(*layout_, k);
    }

    /// Sections [from, to) -> out, slice_of(i) being what section i holds; calls pass_on() after each.
    template <class Slice, class PassOn>
    void encode(std::size_t from, std::size_t to, std::uint32_t k, const Slice& slice_of, payload_writer& out,
                const PassOn& pass_on) {
        const bool parallel = !encoded_.empty() && to - from > 1;
        if (parallel)
            for_each_item(pool_, to - from, [&](std::size_t lane, std::size_t n) {
                const std::size_t i = from + n;
                encoded_[i].clear();
                coders_[lane].encode(layout_->section(i, k), slice_of(i), encoded_[i]);
            });
        for (std::size_t i = from; i < to; ++i) {
            if (parallel) {
                out.append_section(encoded_[i]);
            } else {
                coders_[0].encode(layout_->section(i, k), slice_of(i), out.begin_section());
                out.end_section();
            }
            pass_on();
        }
    }

    /// Decodes contribution i of a commit into content_of(lane, i), then calls decoded(lane, i), unless it is refused;
    /// and their norms where they are wanted. Beside all that calls beside().
    template <class Content, class Decoded, class Beside>
    void decode(const commit& c, const digest& run, bool with_norms, const Content& content_of, const Decoded& decoded,
                const Beside& beside) {
        const std::size_t n = c.contributions.size();
        headers_.assign(n, std::nullopt);
        refusals_.assign(n, errc::malformed);
        norms_.assign(n, 0);
        for_each_item(pool_, n + 1, [&](std::size_t lane, std::size_t item) {
            if (item == 0) return beside();
            const std::size_t i = item - 1;
            if (round_keeper::repeated(c, i)) return;
            const contribution& from = c.contributions[i];
            sparse_content& content = content_of(lane, i);
            const auto info =
                decoders_[lane].decode(from.payload, {.run = run, .round = c.round, .peer = from.peer}, content);
            if (!info) {
                refusals_[i] = info.error().code;
                return;
            }
            headers_[i] = *info;
            if (with_norms) norms_[i] = norm_of(*layout_, content);
            decoded(lane, i);
        });
    }
    /// Counts what decode() found, and what it weighs; calls accept(i) for each that was accepted, in their order.
    template <class Accept>
    [[nodiscard]] step_report count(const commit& c, const round_keeper& rounds, contribution_weights& weigher,
                                    const Accept& accept) const {
        step_report report{.round = c.round};
        weigher.clear();
        for (std::size_t i = 0; i < c.contributions.size(); ++i) {
            if (!headers_[i]) {
                round_keeper::reject(report, refusals_[i]);
                continue;
            }
            rounds.count(report, c.contributions[i], *headers_[i]);
            weigher.add(headers_[i]->tokens, norms_[i]);
            accept(i);
        }
        return report;
    }
    [[nodiscard]] bool accepted(std::size_t i) const noexcept { return headers_[i].has_value(); }
    /// Whose numbers are applied: the header of the first that was accepted; null when none was.
    [[nodiscard]] const payload_info* first() const noexcept {
        const auto it = std::ranges::find_if(headers_, [](const auto& header) { return header.has_value(); });
        return it == headers_.end() ? nullptr : &**it;
    }

    [[nodiscard]] std::size_t memory_bytes() const noexcept {
        std::size_t held = bytes_held(decoders_, coders_, encoded_, headers_, refusals_, norms_) +
                           decoders_.front().table_bytes() + coders_.front().table_bytes();
        for (const auto& decoder : decoders_) held += decoder.memory_bytes();
        for (const auto& coder : coders_) held += coder.memory_bytes();
        for (const auto& section : encoded_) held += bytes_held(section);
        return held;
    }

 private:
    const payload_layout* layout_;
    thread_pool* pool_;
    std::vector<payload_decoder> decoders_;
    std::vector<section_coder> coders_;
    std::vector<std::vector<std::byte>> encoded_;  ///< sections made by several lanes
    std::vector<std::optional<payload_info>> headers_;
    std::vector<errc> refusals_;        ///< where there is no header
    std::vector<std::uint64_t> norms_;  ///< of the contributions
};

}  // namespace thinwire::detail

#endif  // THINWIRE_OPTIM_DETAIL_PAYLOAD_LANES_HPP
