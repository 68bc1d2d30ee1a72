#ifndef THINWIRE_LAUNCHER_DASHBOARD_COURSE_HPP
#define THINWIRE_LAUNCHER_DASHBOARD_COURSE_HPP

#include "dashboard/rounds.hpp"
#include "dashboard/told.hpp"
#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace thinwire::launcher {

/// How long the rounds that are left will take: as the recent ones did on average, and as in the fastest and slowest
/// tenths of what was recent.
struct time_left {
    double seconds = 0, low = 0, high = 0;
};
/// Nothing when too few rounds are known.
[[nodiscard]] std::optional<time_left> estimate(const std::vector<round_span>& recent, std::uint64_t rounds_left);

/// How far a run is, and what its rounds came to: the curve, sums over all rounds, and the figures that follow.
class course {
 public:
    /// Length of the run and size of its model, where `from` tells them.
    void take_size(const nlohmann::json& from);
    /// The process that tells begins, and with it its counts.
    void begin_process();
    /// A line of a round at `time`, which tells of `looked` rounds up to its own. What the curve has new; nothing where
    /// the round was told before, as by a peer that was restored from an older state.
    std::optional<round_span> take_round(const nlohmann::json& line, double time, std::uint64_t looked);
    void take_replica(const nlohmann::json& from, const char* digest);
    void take_momentum(std::optional<double> energy) { momentum_ = energy; }
    /// Joules that the process has used; its tokens until then, where they do not follow from its rounds.
    void take_energy(double joules, std::optional<std::uint64_t> tokens = std::nullopt);
    /// So many rounds are applied.
    void reach(std::uint64_t round);

    [[nodiscard]] std::uint64_t round() const noexcept { return round_; }
    /// For how many seconds the run was paused in what the last take_round() told of.
    [[nodiscard]] double newest_pause() const noexcept { return newest_pause_; }
    /// The last of the curve.
    [[nodiscard]] std::optional<std::uint64_t> last_round() const noexcept { return last_round_; }
    [[nodiscard]] std::vector<round_span> curve() const { return spans_.all(); }
    /// How far, how fast, how long. `ended`: nothing is left to wait for.
    [[nodiscard]] nlohmann::ordered_json progress(bool ended) const;
    /// Why the run works, and what it costs.
    [[nodiscard]] nlohmann::ordered_json reasons() const;

 private:
    std::optional<round_span> add(round_span span);

    std::uint64_t round_ = 0, rounds_ = 0, parameters_ = 0;
    std::optional<std::uint64_t> last_round_;
    round_history spans_;
    round_span total_;
    std::optional<double> first_loss_;  ///< the curve's first point is soon a mean of many rounds
    told::counter sent_, received_;
    double last_computed_ = 0, last_waited_ = 0, last_paused_ = 0, newest_pause_ = 0;
    bool counting_ = false;  ///< the counts of the process that tells are known from its beginning, or from one look on
    std::uint64_t own_tokens_ = 0;
    double joules_before_ = 0;
    std::optional<double> joules_;
    std::uint64_t joule_tokens_ = 0;  ///< own tokens when joules_ was told
    std::uint64_t agreeing_ = 0, disagreeing_ = 0, contributors_ = 0, replica_round_ = 0;
    std::string replica_;
    std::optional<double> momentum_;
};

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_DASHBOARD_COURSE_HPP
