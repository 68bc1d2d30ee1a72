#ifndef THINWIRE_LAUNCHER_DASHBOARD_HISTORY_HPP
#define THINWIRE_LAUNCHER_DASHBOARD_HISTORY_HPP

#include "dashboard/rounds.hpp"
#include <nlohmann/json_fwd.hpp>

#include <cstddef>
#include <cstdint>
#include <map>
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
    [[nodiscard]] std::uint64_t round() const noexcept { return round_; }

    static constexpr std::size_t max_evaluations = 1024, max_samples = 64, max_marks = 512, max_people = 1024,
                                 max_rosters = 48, max_update_rows = 1024, max_sample_bytes = 4096;

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
    struct mark {
        std::uint64_t round = 0;
        double time = 0;
        const char* kind = "";
        std::optional<std::size_t> person{};
        std::optional<double> seconds{};  ///< how long what ended now had lasted
    };
    /// A count that begins again, near 0, when its process does.
    struct counter {
        std::uint64_t before = 0, last = 0;
        void see(std::uint64_t now);
        [[nodiscard]] std::uint64_t total() const { return before + last; }
    };
    enum class standing : std::uint8_t { present, syncing, late, lost, left };
    /// What changes of a peer while it takes part.
    struct state {
        std::size_t person = 0;
        standing is = standing::left;
        std::uint64_t tokens = 0, sent = 0, received = 0, last_round = 0, staleness = 0;
        std::optional<double> round_trip;
    };
    struct person {
        std::string name, place, hardware;
        std::optional<double> latitude, longitude;
        bool self = false, witness = false, was_present = false;
        counter tokens, sent, received;
        state now;
        std::optional<double> lost_since;  ///< gone without a goodbye
        std::optional<mark> unsure;        ///< gone, and it may still turn out to have said goodbye
    };
    struct roster {
        std::uint64_t round = 0;
        double time = 0;
        std::vector<state> states;
    };

    void begin_run(const std::string& run);
    void take_round(const nlohmann::json& line, std::uint64_t looked = 1);
    void take_evaluation(std::uint64_t round, double loss, const std::string& text);
    void take_peers(const nlohmann::json& peers, std::uint64_t round, double time);
    void take_person(const nlohmann::json& from, std::uint64_t round, double time, bool first);
    void note_presence(std::size_t index, bool present, bool member, std::uint64_t round, double time, bool first);
    void settle_unsure(std::uint64_t round, double time);
    void keep_roster(std::uint64_t round, double time);
    void add_span(round_span span);
    void add_mark(const mark& one);
    [[nodiscard]] nlohmann::ordered_json head() const;
    [[nodiscard]] nlohmann::ordered_json progress() const;
    [[nodiscard]] nlohmann::ordered_json reasons() const;
    [[nodiscard]] nlohmann::ordered_json people() const;
    [[nodiscard]] nlohmann::ordered_json states() const;

    std::string run_;
    std::uint64_t round_ = 0, rounds_ = 0, parameters_ = 0;
    std::optional<std::uint64_t> last_round_;  ///< in the curve
    double last_time_ = 0;
    bool ended_ = false, paused_ = false, changed_ = false, reset_ = false;
    std::string phase_;
    round_history spans_;
    std::vector<round_span> fresh_spans_;
    round_span total_;
    counter sent_, received_;
    double last_waited_ = 0;
    bool counting_ = false;  ///< the counts of the process that tells are known from its beginning, or from one look on
    std::uint64_t own_tokens_ = 0;
    double joules_before_ = 0, joules_ = 0;
    std::uint64_t joule_tokens_ = 0;  ///< own tokens when joules_ was told
    bool energy_known_ = false;
    std::vector<evaluation> evaluations_;
    std::vector<sample> samples_;
    std::vector<mark> marks_;
    std::vector<evaluation> fresh_evaluations_;
    std::vector<sample> fresh_samples_;
    std::vector<mark> fresh_marks_;
    std::map<std::string, std::size_t> known_;
    std::vector<person> people_;
    bool people_changed_ = false;
    std::vector<roster> rosters_;
    std::optional<std::uint64_t> term_;
    std::uint64_t agreeing_ = 0, disagreeing_ = 0, contributors_ = 0, replica_round_ = 0;
    std::string replica_;
    std::optional<double> momentum_;
};

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_DASHBOARD_HISTORY_HPP
