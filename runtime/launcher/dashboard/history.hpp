#ifndef THINWIRE_LAUNCHER_DASHBOARD_HISTORY_HPP
#define THINWIRE_LAUNCHER_DASHBOARD_HISTORY_HPP

#include "dashboard/attendance.hpp"
#include "dashboard/course.hpp"
#include "dashboard/rounds.hpp"
#include <nlohmann/json_fwd.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace thinwire::launcher {

/// What a run did, in bounded memory whatever is told and however long it lasts: rounds as curves, evaluations with
/// their samples, who was there when. It is told by lines of metrics.jsonl and by documents of /status, both foreign:
/// fields that are missing or of another type count as not told. No peer's number, address or path is kept for showing.
/// Not thread safe.
class history {
 public:
    /// A line of metrics.jsonl.
    void take_line(const nlohmann::json& line);
    /// A document of /status, at `now`. `rounds`: what it says of the last round is a point of the curve, because
    /// nobody tells all rounds.
    /// Without `rounds`, one of another run than the lines is left out.
    void take_status(const nlohmann::json& status, double now, bool rounds);
    /// Nobody tells how the run does now.
    void take_silence();

    /// Everything, for a viewer who comes.
    [[nodiscard]] nlohmann::ordered_json snapshot() const;
    /// What is new since the last call, for those who are there; {"reset": true} when they do better to begin again.
    /// Null: nothing.
    [[nodiscard]] nlohmann::ordered_json take_update();
    /// The round, for those who only want to know whether something moved.
    [[nodiscard]] std::uint64_t round() const noexcept { return course_.round(); }

    static constexpr std::size_t max_evaluations = 1024, max_samples = 64, max_marks = 512, max_update = 1024,
                                 max_sample_bytes = 4096;

 private:
    struct evaluation {
        std::uint64_t round = 0;
        double loss = 0;
    };
    struct sample {
        std::uint64_t round = 0;
        double loss = 0;
        std::string text;
    };
    /// Beside the rounds, what stands on the curve.
    struct points {
        std::vector<evaluation> evaluations{};
        std::vector<sample> samples{};
        std::vector<mark> marks{};
    };

    void begin_run(const std::string& run);
    void take_round(const nlohmann::json& line, double time, std::uint64_t looked);
    void take_polled_round(const nlohmann::json& status, std::uint64_t round, double now);
    void take_evaluation(std::uint64_t round, const nlohmann::json& from, const char* loss_name);
    void take_peers(const nlohmann::json& from, std::uint64_t round, double time);
    void take_marks();
    void take_pause(double seconds, std::uint64_t round, double time);
    void mark_pause(bool begins, std::uint64_t round, double time);
    void add_mark(const mark& one);
    template <class T>
    void note(std::vector<T>& fresh, const T& one);
    [[nodiscard]] nlohmann::ordered_json head() const;
    static void write(nlohmann::ordered_json& to, const std::vector<round_span>& spans, const points& of);

    std::string run_, phase_;
    double last_time_ = 0;
    double paused_at_ = 0;  ///< or resumed
    bool ended_ = false, paused_ = false, changed_ = false, reset_ = false;
    course course_;
    attendance attendance_;
    points points_;
    std::optional<std::uint64_t> term_;
    std::vector<round_span> fresh_spans_;  ///< since the last update; nothing of an update that will be a reset
    points fresh_;
};

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_DASHBOARD_HISTORY_HPP
