#ifndef THINWIRE_LAUNCHER_RUN_CHANGES_HPP
#define THINWIRE_LAUNCHER_RUN_CHANGES_HPP

#include <thinwire/comm/view.hpp>
#include <thinwire/runtime/node.hpp>

#include <nlohmann/json.hpp>

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace thinwire::launcher {

/// What a run has agreed on beside the weights, as far as people are told of it.
struct agreed_state {
    std::map<peer_id, std::string> members;  ///< with what else the view says of each; a node's status says nothing
    peer_id first = 0;                       ///< in the view; 0: not known
    bool paused = false, stopped = false;
    std::map<std::string, std::string> settings;
    std::set<peer_id> banned, revoked;
    std::set<peer_id> allowed;  ///< whose keys a record lets in; a node's status does not say
};
[[nodiscard]] agreed_state agreed_state_of(const run_state& state);
[[nodiscard]] agreed_state agreed_state_of(const runtime::node_status& status);

/// One difference. docs/watching.md lists what there is.
struct run_change {
    std::string_view what;
    peer_id peer = 0;        ///< 0: of the run
    std::string key, value;  ///< set; no value: what the run began with
    [[nodiscard]] bool operator==(const run_change&) const = default;
};
[[nodiscard]] std::vector<run_change> changes(const agreed_state& before, const agreed_state& after);

/// "banned 12", "set run.batch_size = 2".
[[nodiscard]] std::string to_text(const run_change& change);
/// Its fields: `peer_id`, or `key` and `value`.
[[nodiscard]] nlohmann::json fields_of(const run_change& change);

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_RUN_CHANGES_HPP
