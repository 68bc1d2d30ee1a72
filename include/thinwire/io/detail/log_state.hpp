#ifndef THINWIRE_IO_DETAIL_LOG_STATE_HPP
#define THINWIRE_IO_DETAIL_LOG_STATE_HPP

#include <thinwire/io/detail/log_format.hpp>

#include <algorithm>
#include <cstdint>
#include <string>

namespace thinwire::detail {

/// Where a log stands, and what may come next: the rules of its order, the same for who writes and who reads.
struct log_state {
    std::uint64_t next_round = 0;
    std::uint64_t term = 0;         ///< of the last record
    std::uint64_t final_below = 0;  ///< rounds known to be final
    log_vote vote;

    [[nodiscard]] static log_state at_begin_of(const log_header& header) {
        return {.next_round = header.first_round,
                .term = header.previous_term,
                .final_below = header.first_round,
                .vote = header.vote};
    }
    /// The last record may still be replaced; then it lies in the newest segment.
    [[nodiscard]] bool tentative() const noexcept { return next_round > final_below; }
    [[nodiscard]] bool replaces(std::uint64_t round) const noexcept { return tentative() && round + 1 == next_round; }

    /// Why a frame may not come next; empty when it may.
    [[nodiscard]] std::string refuse_record(std::uint64_t of_term, std::uint64_t round) const {
        const std::string what = "round " + std::to_string(round);
        if (round != next_round && !replaces(round))
            return what + " stands where round " + std::to_string(next_round) + " should";
        if (of_term < term || (of_term == term && round != next_round))
            return what + " of term " + std::to_string(of_term) + " comes after term " + std::to_string(term);
        return {};
    }
    [[nodiscard]] std::string refuse_vote(const log_vote& v) const {
        if (v.term > vote.term || (v.term == vote.term && (vote.peer == 0 || v.peer == vote.peer))) return {};
        return "a vote for " + std::to_string(v.peer) + " in term " + std::to_string(v.term) + " comes after one for " +
               std::to_string(vote.peer) + " in term " + std::to_string(vote.term);
    }
    [[nodiscard]] std::string refuse_final(std::uint64_t round) const {
        if (round < next_round) return {};
        return "round " + std::to_string(round) + " is called final before round " + std::to_string(next_round) +
               " is there";
    }

    void take_record(std::uint64_t of_term, std::uint64_t round) noexcept {
        final_below = std::max(final_below, round);
        next_round = round + 1;
        term = of_term;
    }
    void take_final(std::uint64_t round) noexcept { final_below = std::max(final_below, round + 1); }

    /// Takes what a frame says, or tells why it may not stand there.
    [[nodiscard]] std::string take(const log_frame& frame, const log_head& head) {
        std::string why;
        if (frame.kind == log_frame_kind::record) {
            why = refuse_record(head.term, head.round);
            if (why.empty()) take_record(head.term, head.round);
        } else if (frame.kind == log_frame_kind::vote) {
            why = refuse_vote({head.term, head.peer});
            if (why.empty()) vote = {head.term, head.peer};
        } else {
            why = refuse_final(head.round);
            if (why.empty()) take_final(head.round);
        }
        return why;
    }
};

}  // namespace thinwire::detail

#endif  // THINWIRE_IO_DETAIL_LOG_STATE_HPP
