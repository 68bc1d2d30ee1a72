#ifndef THINWIRE_LAUNCHER_LOG_KEEPER_HPP
#define THINWIRE_LAUNCHER_LOG_KEEPER_HPP

#include <thinwire/io/snapshot.hpp>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string_view>
#include <utility>
#include <vector>

namespace thinwire::launcher {

/// What run.keep_log says: how much of the log can be replayed. 0 and 0: all of it.
struct log_policy {
    std::uint64_t rounds = 0;  ///< at least so many of the newest, and about twice as many at most
    std::uint64_t bytes = 0;   ///< about so much at most, and half of it at least

    [[nodiscard]] bool all() const noexcept { return rounds == 0 && bytes == 0; }
    /// How far a segment of the log grows, so that a few make up what is kept.
    [[nodiscard]] std::uint64_t segment_bytes() const noexcept;
    [[nodiscard]] std::uint64_t segment_rounds() const noexcept;
};

/// "all", "5000 rounds", "200 MB", "10 GB"; launcher_error(usage) for anything else.
[[nodiscard]] log_policy parse_keep_log(std::string_view text);

/// Rounds of the snapshots that lie beside the segments in the folder of a log, ascending.
[[nodiscard]] std::vector<std::uint64_t> log_snapshots(const std::filesystem::path& log);
[[nodiscard]] std::filesystem::path log_snapshot(const std::filesystem::path& log, std::uint64_t round);

/// A peer's log that can be replayed: a snapshot where it begins, and another one under way to become
/// that beginning when the log has grown beyond what run.keep_log says. Both lie in the log's folder.
class log_keeper {
 public:
    log_keeper(std::filesystem::path log, log_policy keep) : log_(std::move(log)), keep_(keep) {}

    [[nodiscard]] const log_policy& policy() const noexcept { return keep_; }

    /// Makes sure that there is a snapshot in [first_round, round], from which a log that begins with first_round can
    /// be replayed; `round` is the replica's. Throws io_error.
    void begin(std::uint64_t first_round, std::uint64_t round, const std::function<snapshot()>& replica);

    /// To be called when a snapshot of `round` is on the device elsewhere too. Gives the round before which the log
    /// is no longer needed. Throws io_error.
    [[nodiscard]] std::uint64_t advance(std::uint64_t round, std::uint64_t log_bytes,
                                        const std::function<snapshot()>& replica);

 private:
    std::filesystem::path log_;
    log_policy keep_;
};

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_LOG_KEEPER_HPP
