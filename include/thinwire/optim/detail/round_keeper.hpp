#ifndef THINWIRE_OPTIM_DETAIL_ROUND_KEEPER_HPP
#define THINWIRE_OPTIM_DETAIL_ROUND_KEEPER_HPP

#include <thinwire/codec/payload.hpp>
#include <thinwire/comm/transport.hpp>
#include <thinwire/core/aligned.hpp>
#include <thinwire/core/parameter.hpp>
#include <thinwire/optim/detail/replica_digest.hpp>
#include <thinwire/optim/step_report.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace thinwire::detail {

/// Where the coefficients that were last sent are.
enum class sent_state : std::uint8_t {
    none = 0,       ///< nothing was sent, or it came back: it is in the momentum, to stay
    in_flight = 1,  ///< it awaits its commit and is still in the momentum
    committed = 2,  ///< still in the momentum, to be taken out of it next
};

/// Rounds, the own payload in flight and replica shares: what every optimizer keeps in the same way.
class round_keeper {
 public:
    [[nodiscard]] std::uint64_t round() const noexcept { return round_; }
    /// What is in flight for an earlier round was committed.
    void set_round(std::uint64_t round) noexcept {
        round_ = round;
        sent_ = sent();
        forget_share();
    }
    /// The weights have changed.
    void forget_share() noexcept {
        share_known_ = false;
        share_ahead_ = {};
    }
    void next_round() noexcept { set_round(round_ + 1); }

    /// A payload may be restored when the round is set already, or before.
    [[nodiscard]] sent_state sent() const noexcept {
        return sent_ == sent_state::in_flight && pending_round_ < round_ ? sent_state::committed : sent_;
    }
    [[nodiscard]] bool pending() const noexcept { return sent() == sent_state::in_flight; }
    [[nodiscard]] std::span<const std::byte> payload() const noexcept {
        return pending() ? std::span<const std::byte>(payload_) : std::span<const std::byte>();
    }
    [[nodiscard]] std::uint64_t pending_round() const noexcept { return pending_round_; }
    [[nodiscard]] peer_id pending_self() const noexcept { return pending_self_; }

    void require_none_pending() const {
        if (pending())
            throw value_error("begin_step: the payload of round " + std::to_string(pending_round_) +
                              " is still in flight, expected end_step() or abandon() first");
    }
    void require_round(const commit& c) const {
        if (c.round != round_)
            throw value_error("apply: commit of round " + std::to_string(c.round) + ", expected round " +
                              std::to_string(round_));
    }

    /// What the payloads to come state.
    [[nodiscard]] std::uint32_t tokens() const noexcept { return tokens_; }
    void set_tokens(std::uint32_t tokens) {
        if (tokens > most_tokens)
            throw value_error("set_tokens: " + std::to_string(tokens) + ", expected at most " +
                              std::to_string(most_tokens));
        tokens_ = tokens;
    }

    /// Room for a payload of so many bytes; the last one stays.
    void reserve(std::size_t bytes) { payload_.reserve(bytes); }
    /// The buffer of the last payload, to write the next one into.
    [[nodiscard]] std::vector<std::byte> reuse() noexcept { return std::move(payload_); }
    void start(peer_id self, std::uint64_t round, std::vector<std::byte>&& payload) noexcept {
        payload_ = std::move(payload);
        sent_ = sent_state::in_flight;
        pending_self_ = self;
        pending_round_ = round;
    }
    /// A part of what another one started, in bytes of its own.
    void start_as(const round_keeper& whole, std::vector<std::byte>&& payload) noexcept {
        payload_ = std::move(payload);
        sent_ = whole.sent_;
        pending_self_ = whole.pending_self_;
        pending_round_ = whole.pending_round_;
    }
    /// Nothing is in flight any longer.
    void settle(bool committed) noexcept { sent_ = committed ? sent_state::committed : sent_state::none; }
    /// What start() was last given, in flight or settled.
    [[nodiscard]] std::span<const std::byte> last_payload() const noexcept { return payload_; }
    [[nodiscard]] std::size_t memory_bytes() const noexcept { return bytes_held(payload_); }

    /// Whether this is, byte for byte, what is in flight.
    [[nodiscard]] bool is_own(const contribution& c) const noexcept {
        return pending() && c.peer == pending_self_ &&
               std::equal(c.payload.begin(), c.payload.end(), payload_.begin(), payload_.end());
    }

    /// Whether share() has been made for this round.
    [[nodiscard]] bool share_known() const noexcept { return share_known_; }
    /// The digest of this round's share of the weights; `add` adds an optimizer's own replica state to it.
    template <class Add>
    [[nodiscard]] const digest& share(std::span<const parameter> parameters, const Add& add) {
        if (!share_known_) {
            go_on_with_share(parameters, ~std::size_t{0});
            add(share_ahead_.sum, static_cast<std::size_t>(round_ % digest_shares));
            share_ = share_ahead_.sum.finish();
            share_known_ = true;
        }
        return share_;
    }
    /// Takes up to so many elements more into what share() will give: for idle moments before. The weights must not
    /// change in between.
    void go_on_with_share(std::span<const parameter> parameters, std::size_t elements) noexcept {
        if (share_known_) return;
        for (auto& [sum, tensor, at] = share_ahead_; tensor < parameters.size() && elements > 0; ++tensor, at = 0) {
            const auto values = digest_share(parameters[tensor].values, round_ % digest_shares).subspan(at);
            const std::size_t now = std::min(values.size(), elements);
            digest_floats(sum, values.first(now));
            elements -= now;
            at += now;
            if (now < values.size()) return;
        }
    }

    /// Counts an accepted contribution. The numbers of the first are applied.
    void count(step_report& report, const contribution& c, const payload_info& info) const noexcept {
        if (report.contributors++ == 0) report.learning_rate = info.learning_rate;
        if (!pending() || c.peer != pending_self_) report.bytes_received += c.payload.size();
        report.tokens += info.tokens;
        ++(info.replica == share_ ? report.agreeing : report.disagreeing);
        if (is_own(c)) report.own_included = true;
    }

    /// Counts one that is skipped.
    static void reject(step_report& report, errc why) noexcept {
        if (report.rejected++ == 0) report.rejection = why;
    }

    /// Whether an earlier contribution of the commit is from the same peer: only the first counts.
    [[nodiscard]] static bool repeated(const commit& c, std::size_t i) noexcept {
        for (std::size_t j = 0; j < i; ++j)
            if (c.contributions[j].peer == c.contributions[i].peer) return true;
        return false;
    }

    /// Adds the report of one more commit to that of a step.
    static void merge(step_report& total, const step_report& one) noexcept {
        total.round = one.round;
        total.contributors += one.contributors;
        total.tokens += one.tokens;
        if (total.rejected == 0) total.rejection = one.rejection;
        total.rejected += one.rejected;
        total.own_included = total.own_included || one.own_included;
        total.agreeing += one.agreeing;
        total.disagreeing += one.disagreeing;
        total.bytes_received += one.bytes_received;
        if (one.contributors > 0) total.learning_rate = one.learning_rate;
    }

 private:
    std::uint64_t round_ = 0;
    std::uint32_t tokens_ = 0;
    sent_state sent_ = sent_state::none;
    peer_id pending_self_ = 0;
    std::uint64_t pending_round_ = 0;
    std::vector<std::byte> payload_;
    struct {
        sha256 sum;
        std::size_t tensor = 0, at = 0;  ///< the first element of that tensor's share that is missing
    } share_ahead_;
    digest share_;
    bool share_known_ = false;
};

}  // namespace thinwire::detail

#endif  // THINWIRE_OPTIM_DETAIL_ROUND_KEEPER_HPP
