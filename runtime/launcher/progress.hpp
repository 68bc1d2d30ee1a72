#ifndef THINWIRE_LAUNCHER_PROGRESS_HPP
#define THINWIRE_LAUNCHER_PROGRESS_HPP

#include <nlohmann/json.hpp>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace thinwire::launcher {

/// What the parent knows of one peer from the JSON lines that the peer writes.
struct peer_progress {
    std::string name;
    std::string state = "starting";  ///< starting, training, killed, ended, failed
    std::uint64_t round = 0;         ///< rounds applied
    double loss = 0;
    double tokens_per_second = 0;  ///< of the whole run, as this peer saw the last round
    int contributors = 0;
    std::uint64_t rounds_sent = 0;    ///< payloads published
    std::uint64_t payload_bytes = 0;  ///< of them
    std::uint64_t tokens = 0;         ///< trained on
    std::uint64_t disagreeing = 0;    ///< contributions that carried another replica digest, over all rounds
    std::optional<double> first_evaluation, last_evaluation;
    std::uint64_t last_evaluation_round = 0;
    std::uint64_t parameters = 0;
    std::string digest;  ///< of the replica when it ended; empty: it has not
    double seconds = 0;  ///< from each start of its process to the last round after it, summed

    /// Takes in one line of metrics.jsonl.
    void take(const nlohmann::json& event);

    [[nodiscard]] std::uint64_t wire_sent() const noexcept { return sent_before_ + sent_now_; }
    [[nodiscard]] std::uint64_t wire_received() const noexcept { return received_before_ + received_now_; }

 private:
    std::string run_;
    double last_time_ = 0;
    std::uint64_t sent_before_ = 0, sent_now_ = 0, received_before_ = 0, received_now_ = 0;
};

/// "1.2 kB", "3.4 MB".
[[nodiscard]] std::string human_bytes(double bytes);

/// Shows peers while they train: a table that is redrawn in place on a terminal, otherwise a line every few seconds.
class progress_display {
 public:
    progress_display(bool terminal, std::uint64_t rounds, std::string title);

    void show(const std::vector<peer_progress>& peers, bool last = false);
    /// A line of its own, above the table.
    void announce(const std::string& line);

 private:
    void erase();

    bool terminal_;
    std::uint64_t rounds_;
    std::string title_;
    int drawn_ = 0;
    std::chrono::steady_clock::time_point next_{};
};

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_PROGRESS_HPP
