#ifndef THINWIRE_LAUNCHER_DASHBOARD_ATTENDANCE_HPP
#define THINWIRE_LAUNCHER_DASHBOARD_ATTENDANCE_HPP

#include "dashboard/told.hpp"
#include <nlohmann/json_fwd.hpp>

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace thinwire::launcher {

/// What stands on the curve at a round.
struct mark {
    std::uint64_t round = 0;
    double time = 0;
    const char* kind = "";
    std::optional<std::size_t> person{};
    std::optional<double> seconds{};  ///< how long what ended now had lasted
};

/// Who took part in a run and when, by what one of the peers tells of all: a bounded number of people, their states
/// now and as of rounds that lie behind, and marks where one joined, was lost, returned or left.
class attendance {
 public:
    /// "peers" of a line or of a status.
    void take(const nlohmann::json& peers, std::uint64_t round, double time);
    /// The process that tells begins, and with it its counts.
    void begin_process();
    /// The process that tells ends, and with it its connections: who went with them was not lost.
    void end_process(std::uint64_t round, double time);
    /// Who went without a goodbye may still turn out to have said one; after a while it is lost.
    void settle(std::uint64_t round, double time);
    /// Marks since the last call.
    [[nodiscard]] std::vector<mark> take_marks();
    /// Whether what the people say of themselves has changed since the last call.
    [[nodiscard]] bool take_changed();

    [[nodiscard]] nlohmann::ordered_json people() const;
    [[nodiscard]] nlohmann::ordered_json states() const;
    [[nodiscard]] nlohmann::ordered_json rosters() const;
    /// What a state's number in states() stands for.
    [[nodiscard]] static nlohmann::ordered_json standings();

    static constexpr std::size_t max_people = 1024, max_rosters = 48;

 private:
    enum class standing : std::uint8_t { present, syncing, late, lost, left };
    /// What changes of a peer while it takes part.
    struct state {
        std::size_t person = 0;
        standing is = standing::left;
        std::uint64_t tokens = 0, sent = 0, received = 0, last_round = 0, staleness = 0;
        std::optional<double> round_trip;
        [[nodiscard]] nlohmann::ordered_json row() const;
    };
    struct person {
        std::string name, place, hardware;
        std::optional<double> latitude, longitude;
        bool self = false, witness = false, was_present = false;
        told::counter tokens, sent, received;
        state now;
        std::optional<double> lost_since;  ///< gone without a goodbye
        std::optional<mark> unsure;        ///< gone, and it may still turn out to have said goodbye
    };
    struct roster {
        std::uint64_t round = 0;
        double time = 0;
        std::vector<state> states;
    };

    void take_person(const nlohmann::json& from, std::uint64_t round, double time, bool first);
    void note_presence(std::size_t index, bool present, bool member, std::uint64_t round, double time, bool first);
    void keep_roster(std::uint64_t round, double time);

    std::map<std::string, std::size_t> known_;
    std::vector<person> people_;
    std::vector<roster> rosters_;
    std::vector<mark> fresh_;
    bool changed_ = false;
};

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_DASHBOARD_ATTENDANCE_HPP
