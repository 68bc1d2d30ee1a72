#ifndef THINWIRE_TESTS_UNIT_COMM_MESH_PARTS_HPP
#define THINWIRE_TESTS_UNIT_COMM_MESH_PARTS_HPP

#include <thinwire/comm/participant.hpp>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace mesh {

using namespace thinwire;

/// What a broken invariant throws.
class violation : public std::logic_error {
    using std::logic_error::logic_error;
};
inline void require(bool holds, const std::string& what) {
    if (!holds) throw violation(what);
}

enum class fault : std::uint8_t {
    cut,          ///< a connection breaks, both ends learn of it
    silence,      ///< a connection carries nothing any more, nobody is told
    one_way,      ///< a connection carries nothing in one direction
    stall,        ///< a connection stands still for a while
    corrupt,      ///< a bit of a frame flips
    split,        ///< two groups of peers cannot reach each other for a while
    kill,         ///< a process dies: of what it was writing a part is lost
    kill_leader,  ///< the same for the one that sequences
    pause,        ///< a process stands still
    leave,        ///< a process says goodbye
    lose_disk,    ///< a process dies and with it its disk
    vanish,       ///< the same, and the peer never comes back
    attack,       ///< a process hands in a payload that is refused, sends what is no message or a forged one
    change,       ///< not a fault: somebody asks for a setting, a pause or a resumption
    count
};
inline constexpr std::size_t fault_kinds = static_cast<std::size_t>(fault::count);

/// A driver or peer that breaks the rules, to see that the checks notice.
enum class bug : std::uint8_t { none, acknowledges_before_storing, forgets_votes, claims_any_log };

/// What a peer keeps across the death of its process.
struct disk {
    bool used = false;
    std::uint64_t incarnation = 0;
    std::uint64_t log_begin = 0;
    std::uint64_t begin_term = 0;
    std::vector<commit_ptr> log;
    std::uint64_t final = 0;
    run_state base;
    std::uint64_t voted_term = 0;
    peer_id voted_for = 0;
    std::uint64_t replica_round = 0;
    digest replica;
    std::pair<std::uint64_t, shared_bytes> sent;  ///< the newest payload and its round
};

struct process {
    peer_id peer = 0;
    std::uint64_t number = 0;
    bool alive = true;
    bool ended = false;
    std::unique_ptr<participant> machine;
    timestamp offset = 0;  ///< its clock shows offset + now * rate / 1000
    timestamp rate = 1000;
    timestamp paused_until = 0;
    std::deque<std::function<void()>> deferred;  ///< what happened to it while it stood still, in order
    std::optional<timestamp> armed;
    std::map<std::uint64_t, commit_ptr> held;  ///< what its machine believes to have stored
    std::deque<commit_ptr> writing;
    std::optional<std::pair<std::uint64_t, peer_id>> voting;

    bool ready = false;
    std::uint64_t round = 0;
    digest state;
    std::deque<commit_ptr> queue;
    bool computing = false;
    bool hostile = false;  ///< its next payload is to be refused
    shared_bytes offered;
};
using process_ptr = std::shared_ptr<process>;

/// Whether a payload may be committed: it begins with its author.
[[nodiscard]] inline bool acceptable(peer_id author, std::span<const std::byte> payload) {
    return byte_reader(payload).get<std::uint64_t>() == author;
}

/// Stands for a signature: what nobody else would write.
[[nodiscard]] inline signature_bytes sign(std::string_view key, std::span<const std::byte> what) {
    signature_bytes out{};
    const digest d = sha256{}.update(key).update(what).finish();
    std::ranges::copy(d.bytes, out.begin());
    return out;
}

[[nodiscard]] inline digest apply(const digest& state, const commit_record& record) {
    byte_writer out;
    out.put(record.round);
    if (record.control) out.put(std::span<const std::byte>(*record.control));
    for (const committed_payload& c : record.contributions) {
        out.put(c.peer);
        out.put(std::span<const std::byte>(*c.payload));
    }
    return sha256{}.update(state.bytes).update(out.bytes()).finish();
}

}  // namespace mesh

#endif  // THINWIRE_TESTS_UNIT_COMM_MESH_PARTS_HPP
