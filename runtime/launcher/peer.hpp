#ifndef THINWIRE_LAUNCHER_PEER_HPP
#define THINWIRE_LAUNCHER_PEER_HPP

#include <thinwire/core/digest.hpp>
#include <thinwire/io/batch_sampler.hpp>
#include <thinwire/optim/schedule.hpp>
#include <thinwire/runtime/access.hpp>
#include <thinwire/runtime/node.hpp>

#include "configuration.hpp"
#include "control_socket.hpp"
#include "directory.hpp"
#include "json_lines.hpp"
#include "log_keeper.hpp"
#include "observer.hpp"
#include "replica.hpp"
#include "tensorboard.hpp"
#include "text.hpp"

#include <chrono>
#include <cstdint>
#include <exception>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

namespace thinwire::launcher {

/// Learning rate of each round.
[[nodiscard]] schedule schedule_of(const configuration& settings);

/// One peer of a run, from its folder to its last round.
class peer {
 public:
    /// Founds the run or goes on with it (`founder`), or enters it, with an invite where there is one. Returns when
    /// ready to train.
    peer(configuration settings, bool founder, std::optional<runtime::invite> line = std::nullopt);
    ~peer();
    peer(const peer&) = delete;
    peer& operator=(const peer&) = delete;

    /// Trains until the run's last round, peer.stop_at, or a stop signal, and saves. A run that was stopped is saved,
    /// too. Throws launcher_error and runtime::node_error; what was learned is on disk then, except that weights which
    /// diverged or are not finite do not replace the last good snapshot. After node_errc::behind and
    /// launcher_error(diverged) another peer made from the same settings goes on.
    void train();

    [[nodiscard]] std::uint16_t port() const { return node_->port(); }
    /// That its replica is to apply next.
    [[nodiscard]] std::uint64_t round() const { return replica_->optimizer().round(); }

 private:
    void open_founder();
    void open_joiner();
    void begin_training();
    [[nodiscard]] bool restore();
    void enter_fresh();
    void begin_log();
    void use_invite(runtime::node_options& options, const std::stop_token& stop);
    void require_known_peer() const;
    void take_manifest_of(const snapshot& stored);
    void compare_text();
    void build(const snapshot* from);
    void replay();
    void gather();
    void finish_logged();
    void announce_start();
    void announce_end();

    // Rounds: peer_rounds.cpp.
    /// A gradient lies in the replica, begun in `round`.
    struct gradient {
        std::uint64_t round = 0;
        float loss = 0;
        std::size_t tokens = 0;
    };
    struct exchange_under_way {
        gradient made;
        std::chrono::steady_clock::time_point began;
        std::future<std::span<const commit>> commits;
    };
    void train_rounds();
    [[nodiscard]] bool finished() const;
    [[nodiscard]] std::uint64_t next_round() const;
    void contribute();
    [[nodiscard]] std::int64_t place() const;
    [[nodiscard]] gradient compute();
    [[nodiscard]] bool interrupted() const;
    [[nodiscard]] std::optional<std::chrono::steady_clock::duration> budget() const;
    void plan(const step_report& step, std::size_t commits);
    void set_deadlines();
    void pace() const;
    void send(const gradient& made, std::span<const std::byte> payload);
    void finish_round();
    void follow();
    void tune();
    void prepare_rounds();
    [[nodiscard]] int coefficients() const;
    void report(const step_report& step, const gradient& made, std::chrono::steady_clock::time_point began);
    void report_peers(const run_status& now, bool always);
    [[nodiscard]] bool evaluates() const;
    void evaluate();
    void save();
    void keep_log(std::uint64_t round);
    [[nodiscard]] bool cut_short(const std::exception& problem);
    [[nodiscard]] runtime::node_options node_options();
    [[nodiscard]] nlohmann::json event(const char* kind) const;

    configuration settings_;
    bool founder_;
    directory where_;
    directory_lock lock_;
    std::shared_ptr<const runtime::identity> identity_;
    peer_id self_;
    std::optional<runtime::invite> invite_;
    text text_;
    log_keeper keeper_;
    std::optional<replica> replica_;
    std::unique_ptr<runtime::node> node_;
    std::unique_ptr<observer> observer_;     ///< after node_, which it looks at until it ends
    std::optional<control_socket> control_;  ///< as well
    std::optional<json_lines_writer> metrics_;
    std::optional<tensorboard_writer> tensorboard_;
    std::optional<batch_sampler> sampler_;
    std::vector<std::int32_t> tokens_, targets_;
    std::uint64_t last_evaluated_ = UINT64_MAX;
    std::vector<roster_entry> roster_;  ///< as metrics.jsonl told it last
    std::uint64_t peers_line_round_ = 0;
    int peers_lines_ = 0;
    std::chrono::steady_clock::time_point round_began_{};
    std::optional<std::chrono::steady_clock::time_point> applied_at_;  ///< the last commit
    std::optional<std::chrono::steady_clock::duration> planned_;       ///< with run.round_tokens: a round's computation
    bool ended_ = false;                                               ///< the commit that ends the run was seen
    configuration tuned_;                                              ///< settings_ with what the run has set since
    std::map<std::string, std::string> tuned_by_;
    std::optional<exchange_under_way> under_way_;  ///< last: it waits in node_
};

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_PEER_HPP
