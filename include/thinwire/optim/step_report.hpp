#ifndef THINWIRE_OPTIM_STEP_REPORT_HPP
#define THINWIRE_OPTIM_STEP_REPORT_HPP

#include <thinwire/core/result.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>

namespace thinwire {

/// What a step did. Numbers of contributions are sums over the commits that it applied.
struct step_report {
    std::uint64_t round = 0;          ///< the last round applied
    int contributors = 0;             ///< accepted contributions
    std::uint64_t tokens = 0;         ///< that the accepted contributions state
    int rejected = 0;                 ///< contributions that were skipped: malformed, of another run or round, or made
                                      ///< with other settings, whose replicas drift away from this one
    std::optional<errc> rejection{};  ///< why the first of them; payload_decoder::validate() says it in words
    bool own_included = false;        ///< false: this peer's payload went back into its momentum
    int agreeing = 0;                 ///< contributors whose replica digest equals this replica's
    int disagreeing = 0;              ///< contributors whose replica differs: somebody's weights are wrong
    std::size_t bytes_sent = 0;       ///< this peer's payload
    std::size_t bytes_received = 0;   ///< the payloads of others
    float gradient_norm = 0.0F;       ///< of all gradients of the last begin_step together, before clipping
    float learning_rate = 0.0F;       ///< applied last
};

}  // namespace thinwire

#endif  // THINWIRE_OPTIM_STEP_REPORT_HPP
