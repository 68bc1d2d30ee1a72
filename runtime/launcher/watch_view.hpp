#ifndef THINWIRE_LAUNCHER_WATCH_VIEW_HPP
#define THINWIRE_LAUNCHER_WATCH_VIEW_HPP

#include <thinwire/core/result.hpp>

#include <nlohmann/json.hpp>

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace thinwire::launcher {

/// A peer's line in another peer's /status.
struct seen_peer {
    std::string name;  ///< its id where it has none
    bool self = false, present = false, contributed_last = false;
    std::uint64_t last_round = 0, staleness = 0, bytes_sent = 0, bytes_received = 0;
    std::optional<bool> awaited, waited_for_last;
    std::optional<double> arrival_seconds;
    std::optional<std::uint64_t> waited_rounds;
    std::optional<double> waited_seconds;
};

/// A /status as it came from somewhere: every text is safe for a terminal, every number is in range.
struct seen_status {
    std::string run, peer, role, phase;
    std::uint64_t round = 0, rounds = 0, bytes_sent = 0, bytes_received = 0, k = 0, validation_round = 0;
    std::uint64_t contributors = 0, agreeing = 0, disagreeing = 0, disagreeing_total = 0, log_bytes = 0, refused = 0;
    double phase_seconds = 0, rounds_per_second = 0, tokens_per_second = 0, learning_rate = 0;
    double compute_seconds = 0, wait_seconds = 0;
    std::optional<double> loss, validation_loss;
    std::optional<std::pair<std::uint64_t, std::string>> replica;  ///< round, digest of all weights
    std::map<std::uint64_t, std::string> shares;                   ///< round, digest of a part of the weights
    std::vector<seen_peer> peers;
    nlohmann::json document;  ///< all of it, fields unknown here included
};

/// Reads a foreign document: at most 4 MiB, 8 levels, 4096 peers and shares. A field that is missing or of another type
/// counts as not told, so that older and newer peers can be watched; one without run and round is refused.
[[nodiscard]] result<seen_status> read_status(std::string_view text);

/// Visible ASCII, at most `width` of it: other bytes become '?', what is cut ends in '~'.
[[nodiscard]] std::string terminal_text(std::string_view text, std::size_t width);

/// What is watched and what came from there last.
struct watched {
    std::string address;
    std::optional<seen_status> status;  ///< the newest
    std::string problem;                ///< why there is no newer one; empty: there is
};

/// Whether peers hold the same weights: for each pair the digests of the newest round that both told of.
struct agreement {
    enum class verdict : std::uint8_t { unknown, agree, differ, other_runs } is = verdict::unknown;
    std::size_t peers = 0;               ///< that were compared
    std::optional<std::uint64_t> round;  ///< the newest compared, or the first that differs
    [[nodiscard]] std::string text() const;
};
[[nodiscard]] agreement compare(const std::vector<watched>& all);

/// The lines of a screen, at most `height` of at most `width` characters: one peer with all that it knows of the
/// others, or several side by side.
[[nodiscard]] std::vector<std::string> draw(const std::vector<watched>& all, std::size_t width, std::size_t height);

/// A line for output that is no terminal. Equal lines mean that nothing has changed.
[[nodiscard]] std::string change_line(const std::vector<watched>& all);

/// {"watched": [{"address", "status", "error"}], "agreement": {...}}.
[[nodiscard]] nlohmann::ordered_json to_json(const std::vector<watched>& all);

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_WATCH_VIEW_HPP
