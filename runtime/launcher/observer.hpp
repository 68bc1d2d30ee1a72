#ifndef THINWIRE_LAUNCHER_OBSERVER_HPP
#define THINWIRE_LAUNCHER_OBSERVER_HPP

#include <thinwire/comm/transport.hpp>
#include <thinwire/core/digest.hpp>
#include <thinwire/core/result.hpp>
#include <thinwire/optim/step_report.hpp>
#include <thinwire/runtime/node.hpp>

#include "configuration.hpp"
#include "directory.hpp"
#include "energy.hpp"
#include "http.hpp"
#include "run_changes.hpp"
#include "run_status.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>

namespace thinwire::launcher {

class board;

/// What the training thread tells those who watch a peer: a few numbers a round, copied under a lock that nobody holds
/// for longer than such a copy takes. Serves them where peer.status says, and logs who comes and goes
/// and what the run agrees on.
///
/// Thread safety: the check that timed() gives from any thread; everything else from the training thread.
class observer {
 public:
    using payload_check = std::function<result<ok>(std::uint64_t round, peer_id peer, std::span<const std::byte>)>;

    /// Opens peer.log_file where it is set, and takes the ports of peer.status and peer.dashboard, on which it answers
    /// once it has entered(). Throws io_error, launcher_error(network), and (usage) for a peer.status that is no
    /// address, or one beyond this machine without peer.status_public, and likewise for peer.dashboard.
    observer(const configuration& settings, const directory& where, bool founder, peer_id self);
    /// The servers end, and DIR/status.address and DIR/dashboard.address go with them.
    ~observer();
    observer(const observer&) = delete;
    observer& operator=(const observer&) = delete;

    /// A node's check that also notes when each payload comes: who waits for whom. May outlive this object.
    [[nodiscard]] payload_check timed(payload_check check);

    /// The peer is in its run, at `round`; `settings` are the run's now. `node` outlives this observer. Once. Throws
    /// launcher_error(network), io_error.
    void entered(const runtime::node& node, const configuration& settings, std::uint64_t round,
                 std::uint64_t parameters);
    [[nodiscard]] bool serves() const noexcept { return server_ || board_; }

    /// The course of a round: its computation begins, its payload is published, its commit is applied.
    void computing(std::uint64_t round);
    void waiting(std::uint64_t round, std::span<const std::byte> payload);
    /// `loss`: NaN when nothing was computed. `tokens`: that this peer trained on for it.
    void applied(const step_report& step, double loss, double rate, std::size_t tokens, double seconds,
                 const runtime::node_status& node);
    /// Something else begins that takes time: "pacing", "evaluating", "saving".
    void begin(const char* phase);
    void evaluated(std::uint64_t round, double loss, const std::string& sample);
    /// Who contributed to what was applied, and with how many tokens.
    void contributed(std::span<const commit> commits);
    void momentum(std::optional<double> energy);
    /// The digest of all weights.
    void replica(std::uint64_t round, const digest& of);

    /// As it is now.
    [[nodiscard]] run_status status() const;

    static constexpr std::size_t shares_kept = 64;

 private:
    [[nodiscard]] http_page page(const std::string& path) const;
    [[nodiscard]] std::string status_text() const;
    void note_presence(const runtime::node_status& node);
    void tell_changes(const runtime::node_status& node);
    void close_arrivals(std::uint64_t round, const runtime::node_status& node);

    std::optional<http_listener> where_, dashboard_;  ///< until it serves there
    directory files_;
    const runtime::node* node_ = nullptr;
    std::set<peer_id> present_, expected_;  ///< when the last round was applied, and the one before it
    agreed_state agreed_;                   ///< as was told last

    /// Shared with the checks that timed() gave, which may outlive this object.
    struct arrival_book {
        std::mutex mutex;
        arrivals payloads;
    };
    std::shared_ptr<arrival_book> book_ = std::make_shared<arrival_book>();

    mutable std::mutex energy_mutex_;  ///< guards what follows: counters are read with no other lock
    mutable energy_meter energy_;
    mutable std::optional<double> joules_;  ///< as of energy_at_
    mutable steady_time energy_at_{};

    mutable std::mutex mutex_;  ///< guards what follows
    run_status status_;
    std::optional<pace> pace_;
    bool paced_ = false;  ///< pace_ has begun with a round of its own
    steady_time entered_at_, phase_at_;

    std::optional<http_server> server_;  ///< last: their threads use all of the above
    std::unique_ptr<board> board_;
};

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_OBSERVER_HPP
