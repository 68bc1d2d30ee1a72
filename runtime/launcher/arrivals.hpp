#ifndef THINWIRE_LAUNCHER_ARRIVALS_HPP
#define THINWIRE_LAUNCHER_ARRIVALS_HPP

#include <thinwire/comm/transport.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace thinwire::launcher {

using steady_time = std::chrono::steady_clock::time_point;

/// Who waits for whom: when the payloads of each round reached this process. Only the peer that orders the rounds sees
/// them all; elsewhere there is nothing to tell. Not thread safe.
class arrivals {
 public:
    /// What one peer cost the others.
    struct cost {
        std::optional<double> seconds;    ///< last round: after its first payload; none: no payload of it
        bool waited_for = false;          ///< last round: came last, or did not come though it was there
        std::uint64_t waited_rounds = 0;  ///< how often so far
        double waited_seconds = 0;        ///< how long the others lay idle for it so far; of rounds where it came last
    };

    /// A payload of `peer` for `round` is here; only the first counts. Of rounds that are not over the `rounds_ahead`
    /// nearest are kept: payloads for later ones displace nothing.
    void note(std::uint64_t round, peer_id peer, steady_time at);

    /// The round is over. `expected`: who was there before it began and is there now.
    void close(std::uint64_t round, std::span<const peer_id> expected);

    /// Of `expected`, those whose payload of `round` is not here.
    [[nodiscard]] std::vector<peer_id> missing(std::uint64_t round, std::span<const peer_id> expected) const;

    [[nodiscard]] const std::map<peer_id, cost>& costs() const noexcept { return costs_; }

    static constexpr std::size_t rounds_ahead = 8;

 private:
    using payloads = std::vector<std::pair<peer_id, steady_time>>;  ///< in the order in which they came

    std::map<std::uint64_t, payloads> rounds_;
    std::uint64_t next_ = 0;
    std::map<peer_id, cost> costs_;
};

/// Rounds a second, over the last minute and over all.
class pace {
 public:
    pace(std::uint64_t round, steady_time now) : first_{now, round}, last_{now, round} { recent_.push_back(first_); }

    void note(std::uint64_t round, steady_time now);
    [[nodiscard]] double whole(steady_time now) const;
    /// A run that stands still falls to 0 within a minute.
    [[nodiscard]] double minute(steady_time now) const;

 private:
    struct sample {
        steady_time at;
        std::uint64_t round;
    };
    [[nodiscard]] static double rate(const sample& from, const sample& to, steady_time now);

    sample first_, last_;
    std::deque<sample> recent_;  ///< at most one for each second
};

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_ARRIVALS_HPP
