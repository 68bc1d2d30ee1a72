#ifndef THINWIRE_LAUNCHER_RUN_STATUS_HPP
#define THINWIRE_LAUNCHER_RUN_STATUS_HPP

#include <thinwire/comm/transport.hpp>
#include <thinwire/runtime/node.hpp>

#include "arrivals.hpp"
#include <nlohmann/json.hpp>

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace thinwire::launcher {

/// A digest of weights after so many rounds.
struct digest_at {
    std::uint64_t round = 0;
    std::string digest;
};

/// A peer's standing: what changes when it comes, goes or is given up.
struct roster_entry {
    peer_id peer = 0;
    bool present = false, member = false;
    [[nodiscard]] bool operator==(const roster_entry&) const = default;
};

/// What a peer says of itself and its run. docs/watching.md explains each as a field of /status.
struct run_status {
    std::string run;   ///< digest, in hexadecimal
    std::string peer;  ///< peer.name
    peer_id self = 0;
    bool founder = false;
    std::string phase = "starting";  ///< starting, computing, waiting, ended
    double phase_seconds = 0;
    double uptime_seconds = 0;
    std::uint64_t round = 0;   ///< applied
    std::uint64_t rounds = 0;  ///< length of the run
    double rounds_per_second = 0, rounds_per_second_minute = 0;
    std::optional<double> loss, validation_loss;
    std::uint64_t validation_round = 0;
    std::string sample;  ///< written by the model at that evaluation; empty: none
    double learning_rate = 0;
    std::int64_t k = 0;
    std::uint64_t tokens = 0;  ///< this peer, this process
    double tokens_per_second = 0;
    double compute_seconds = 0, wait_seconds = 0;
    std::uint64_t payload_bytes = 0;                 ///< published by this process
    std::uint64_t parameters = 0;                    ///< of the model
    std::uint64_t round_tokens = 0, run_tokens = 0;  ///< of all contributors: last round; since this process entered
    std::optional<double> energy_joules;             ///< of this machine since then; none: it does not tell
    std::optional<double> momentum_energy;           ///< mean square, with each snapshot

    int contributors = 0, agreeing = 0, disagreeing = 0;  ///< last round
    bool own_included = false;
    std::uint64_t contributions_total = 0, disagreeing_total = 0, rejected_total = 0;
    std::uint64_t missed_total = 0;  ///< rounds without this peer's payload

    digest_at replica;             ///< all weights
    std::deque<digest_at> shares;  ///< a rotating sixteenth, one for each of the last rounds
    std::vector<peer_id> awaited;  ///< now
    std::map<peer_id, arrivals::cost> costs;
    std::map<peer_id, std::uint64_t> tokens_of;  ///< of each contributor, since this process entered
    bool sees_arrivals = false;                  ///< this peer orders the rounds now, so it knows `awaited` and `costs`
    runtime::node_status node;

    /// Who is there now.
    [[nodiscard]] std::vector<roster_entry> roster() const;
};

/// The document of /status.
[[nodiscard]] nlohmann::ordered_json to_json(const run_status& status);

/// The page of /metrics: Prometheus text format 0.0.4.
[[nodiscard]] std::string to_metrics(const run_status& status);

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_RUN_STATUS_HPP
