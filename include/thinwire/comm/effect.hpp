#ifndef THINWIRE_COMM_EFFECT_HPP
#define THINWIRE_COMM_EFFECT_HPP

#include <thinwire/comm/message.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

namespace thinwire {

/// Microseconds of any clock that never goes back. The protocol only sees the times that its driver hands in.
using timestamp = std::int64_t;

/// One connection, for as long as it lives. Numbers are never used again.
using link_id = std::uint64_t;

/// How a machine's part in the run ended.
enum class run_end : std::uint8_t {
    left,              ///< this side said goodbye
    stopped,           ///< the sequencer ended the run
    unreachable,       ///< never admitted in time
    lost,              ///< everyone else went away and did not come back in time
    version_mismatch,  ///< another protocol version
    run_mismatch,      ///< another run
    refused,           ///< not wanted: identity in use, banned, removed, its key revoked
    diverged,          ///< this replica is ahead of the run
    storage,           ///< the log could not be written
    protocol,          ///< the other side does not speak this protocol
};

/// Send a message; messages to one link arrive in the order of their effects.
struct send_effect {
    link_id link = 0;
    message what;
};

/// The peer behind a link is admitted: it may send more than a hello from now on.
struct admit_effect {
    link_id link = 0;
    peer_id peer = 0;
};

/// Close a link after what was sent before. The driver reports nothing more about it.
struct close_effect {
    link_id link = 0;
    std::string reason;
    bool fault = false;  ///< for what the other side sent or failed to send
};

/// Append a record to the log, then call stored(). It replaces what the log holds for its round, which is the last one
/// or the next, and must be on the disk before that.
struct store_effect {
    commit_ptr record;
};

/// Make a vote durable, then call voted(). It replaces an earlier one.
struct vote_effect {
    std::uint64_t term = 0;
    peer_id peer = 0;
};

/// Records below `round` are final: for the log to note when it is convenient.
struct final_effect {
    std::uint64_t round = 0;
};

/// Read a record back from the log, then call loaded().
struct load_effect {
    std::uint64_t round = 0;
};

/// Hand a commit to the local replica, then call taken() when it has it.
struct deliver_effect {
    commit_ptr record;
};

/// Try to connect as `link`, then call dialled() or dial_failed().
struct dial_effect {
    link_id link = 0;
    std::string address;
};

/// The snapshot that a fresh peer asked for, or one whose log no other log joins on to, is complete and its digest is
/// right. The log begins anew with it, at once and durably; the newest vote stays.
struct snapshot_effect {
    std::uint64_t round = 0;
    shared_bytes bytes;
    shared_bytes state;      ///< of the run before `round`: where its log begins
    std::uint64_t term = 0;  ///< to be kept with the log's begin, for participant_settings::begin_term
};

/// This peer's payload for a round was refused.
struct rejected_effect {
    std::uint64_t round = 0;
    std::string text;
};

/// The machine is over; nothing follows. `text` is one line for the operator.
struct end_effect {
    run_end code{};
    std::string text;
};

using effect = std::variant<send_effect, admit_effect, close_effect, store_effect, vote_effect, final_effect,
                            load_effect, deliver_effect, dial_effect, snapshot_effect, rejected_effect, end_effect>;

}  // namespace thinwire

#endif  // THINWIRE_COMM_EFFECT_HPP
