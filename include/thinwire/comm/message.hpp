#ifndef THINWIRE_COMM_MESSAGE_HPP
#define THINWIRE_COMM_MESSAGE_HPP

#include <thinwire/comm/transport.hpp>
#include <thinwire/core/detail/fields.hpp>
#include <thinwire/core/digest.hpp>
#include <thinwire/version.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace thinwire {

/// Two peers talk only when they state the same number. Raised by every change of a message's layout or meaning.
inline constexpr std::uint16_t protocol_version = 5;

/// Bytes that several messages, peers or threads share. Never null where a message demands it.
using shared_bytes = std::shared_ptr<const std::vector<std::byte>>;

/// Ed25519 (RFC 8032); zeros where a run has no keys.
using signature_bytes = std::array<std::byte, 64>;

/// One peer's part of a commit. `payload` is null where it is left out because the receiver has it.
struct committed_payload {
    peer_id peer = 0;
    digest payload_digest;
    shared_bytes payload;
    std::uint32_t size = 0;  ///< bytes of the payload, also where it is left out
};

/// The log's entry of a round, in the order in which replicas apply it. `term`: of the sequencer from which the owner
/// of this log accepted it; the same record may lie under different terms in different logs.
struct commit_record {
    std::uint64_t term = 0;
    std::uint64_t round = 0;
    std::vector<committed_payload> contributions;
    shared_bytes control;  ///< the state of the run from the next round on (comm/view.hpp); null: it does not change
};
using commit_ptr = std::shared_ptr<const commit_record>;

/// What a record says, whatever the term it was accepted in: two logs agree about a round when these are equal.
[[nodiscard]] inline digest record_digest(const commit_record& record) {
    detail::field_writer out;
    out(record.round, detail::bounded{record.control, SIZE_MAX});
    for (const committed_payload& c : record.contributions) out(c.peer, c.payload_digest);
    return digest_of(out.bytes());
}

/// What a record weighs in a queue: bytes of its payloads, and a little for the rest.
[[nodiscard]] inline std::size_t queue_weight(const commit_record& record) noexcept {
    std::size_t total = 64 * (record.contributions.size() + 1);
    for (const committed_payload& c : record.contributions) total += c.payload ? c.payload->size() : 0;
    return total;
}

/// Bounds that hold for every message before anything is allocated for it.
struct wire_limits {
    static constexpr std::size_t max_hello = 1024;  ///< all that a stranger may send
    static constexpr std::size_t max_name = 64;
    static constexpr std::size_t max_about = 256;
    static constexpr std::size_t max_text = 512;
    static constexpr std::size_t max_manifest = std::size_t{1} << 20U;
    static constexpr std::size_t max_piece = std::size_t{256} << 10U;
    static constexpr std::size_t max_contributors = 1024;
    static constexpr std::size_t max_members = 1024;
    static constexpr std::size_t max_address = 256;
    static constexpr std::size_t max_key = 64;
    static constexpr std::size_t max_control = std::size_t{1} << 20U;

    std::size_t max_payload = std::size_t{64} << 20U;
    std::size_t max_commit = std::size_t{512} << 20U;  ///< payload bytes of one round; at most 2^31
};

/// Why a connection is refused. Values are on the wire; 5 stood for what nobody says any more.
enum class refusal : std::uint8_t {
    version_mismatch = 1,
    run_mismatch = 2,
    replaced = 3,   ///< another process took part under the same identity
    banned = 4,     ///< too many strikes
    ahead = 6,      ///< the replica is ahead of the run
    malformed = 7,  ///< the hello states what cannot be
    full = 8,       ///< no room for another connection
    removed = 9,    ///< taken out of the run on request
};

/// A peer's first message. The fields up to `library` keep their layout in every protocol version.
struct hello_message {
    std::uint16_t protocol = protocol_version;
    std::string library = THINWIRE_VERSION_STRING;
    digest run;                 ///< zero: any
    peer_id peer = 0;           ///< not 0
    std::uint64_t session = 0;  ///< drawn once per process: tells a reconnection from a second process
    std::string name;
    std::uint64_t next_round = 0;
    bool wants_snapshot = false;
    std::uint64_t incarnation = 0;  ///< drawn once per log: tells a peer that kept its disk from one that lost it
    std::string address;            ///< where others may dial it; empty: nowhere
    std::string key;                ///< its public key, opaque to the protocol
    std::uint64_t log_begin = 0;    ///< the first round that it can serve
    digest last;                    ///< record_digest of round next_round - 1; zero: not known
    bool votes = true;
    bool contributes = true;
    std::string about;  ///< what it tells people of itself; opaque to the protocol
};

/// The answer to a hello that is accepted.
struct welcome_message {
    digest run;
    std::uint64_t term = 0;
    peer_id sequencer = 0;
    std::string name;
    std::string manifest;
    std::uint64_t round = 0;  ///< the next round to be committed
    bool has_snapshot = false;
    std::uint64_t snapshot_round = 0;
    std::uint64_t snapshot_size = 0;
    digest snapshot_digest;
    hello_message self;     ///< who answers, as it would introduce itself
    shared_bytes state;     ///< the state of the run before `round`
    shared_bytes state_at;  ///< and before `snapshot_round`, where there is a snapshot
};

/// The answer to a hello that is not accepted; also ends a connection later. Layout as stable as hello's.
struct refuse_message {
    refusal code{};
    std::string text;
};

/// The payload for `round` will not be committed, and why.
struct reject_message {
    std::uint64_t round = 0;
    std::string text;
};

/// Asks for bytes of a snapshot or payload by its digest.
struct fetch_message {
    digest content;
    std::uint64_t offset = 0;
    std::uint32_t count = 0;
    std::uint64_t round = 0;  ///< where a payload stands in the log
};

/// Bytes of a snapshot or payload; none when the sender does not have them.
struct piece_message {
    digest content;
    std::uint64_t offset = 0;
    shared_bytes bytes;
};

/// Says that the sender lives.
struct ping_message {};

/// The sender leaves; `stop_run`, from the sequencer: for good, the run is over.
struct goodbye_message {
    bool stop_run = false;
    std::string text;
};

/// A payload for a round exists. `bytes`: its beginning, at most a piece; none when the sender is not the author.
struct offer_message {
    std::uint64_t round = 0;
    peer_id author = 0;
    std::uint64_t session = 0;  ///< the author's
    digest content;
    std::uint32_t size = 0;
    bool relay = false;           ///< the author cannot reach the sequencer: tell it
    signature_bytes signature{};  ///< the author's, of the statement below
    shared_bytes bytes;
};
/// What an author says with an offer, whoever passes it on: this payload is mine, for this round of this run.
[[nodiscard]] inline std::vector<std::byte> statement(const digest& run, const offer_message& m) {
    detail::field_writer out;
    out.put(std::string_view("thinwire payload"));
    out(run, m.author, m.session, m.round, m.content, m.size);
    return out.take();
}

/// A record: proposed by the sequencer of `term`, or, `pulled`, as it lies in the log of who was asked. Payloads may be
/// left out; those that are there come to at most a piece.
struct record_message {
    std::uint64_t term = 0;
    bool pulled = false;
    commit_ptr record;
};

/// Where the sender stands. Sent when it changes, and as a sign of life.
struct status_message {
    std::uint64_t term = 0;
    peer_id sequencer = 0;       ///< whom it hears sequence this term; its own id when it does; 0: nobody
    std::uint64_t final = 0;     ///< rounds below lie in its log and are final
    std::uint64_t accepted = 0;  ///< the term of the record of round `final` in its log; 0: there is none
    std::uint64_t taken = 0;     ///< its replica has the rounds below
    bool active = false;         ///< its replica computes for round `taken`: worth waiting for
    std::string address;  ///< where `sequencer` is dialled, when that is another peer; where some peer is, when 0
};

/// Asks for the final record of a round.
struct pull_message {
    std::uint64_t round = 0;
};

/// Asks for a vote. `trial`: whether it would be given; nothing is promised.
struct campaign_message {
    std::uint64_t term = 0;
    std::uint64_t last_term = 0;   ///< of the last record in the candidate's log
    std::uint64_t next_round = 0;  ///< after the last record in the candidate's log
    bool trial = false;
};

struct vote_message {
    std::uint64_t term = 0;  ///< that was asked for; the voter's own when it is not granted
    bool granted = false;
    bool trial = false;
};

/// What a member wants changed, for the sequencer. Values are on the wire.
struct control_change {
    enum class kind : std::uint8_t { pause = 1, resume, stop, set, remove, ban, pardon, allow, revoke, promote };
    static constexpr kind last_kind = kind::promote;
    kind what{};
    peer_id peer = 0;   ///< remove, ban, pardon, promote
    std::string key;    ///< set: its name; allow, revoke: a public key
    std::string value;  ///< set; empty: no longer set
    [[nodiscard]] bool operator==(const control_change&) const = default;
};
struct request_message {
    control_change change;
};

using message = std::variant<hello_message, welcome_message, refuse_message, reject_message, fetch_message,
                             piece_message, ping_message, goodbye_message, offer_message, record_message,
                             status_message, pull_message, campaign_message, vote_message, request_message>;

/// Position in `message` and number on the wire.
enum class message_type : std::uint8_t {
    hello = 0,
    welcome,
    refuse,
    reject,
    fetch,
    piece,
    ping,
    goodbye,
    offer,
    record,
    status,
    pull,
    campaign,
    vote,
    request,
};
inline constexpr std::size_t message_types = std::variant_size_v<message>;
static_assert(static_cast<std::size_t>(message_type::request) + 1 == message_types);

[[nodiscard]] inline message_type type_of(const message& m) noexcept {
    return static_cast<message_type>(m.index());
}

[[nodiscard]] constexpr std::string_view to_string(message_type type) noexcept {
    constexpr std::string_view names[] = {"hello",  "welcome", "refuse",   "reject", "fetch",
                                          "piece",  "ping",    "goodbye",  "offer",  "record",
                                          "status", "pull",    "campaign", "vote",   "request"};
    const auto i = static_cast<std::size_t>(type);
    return i < message_types ? names[i] : "unknown";
}

/// Bytes to share, from a copy or by moving them in.
[[nodiscard]] inline shared_bytes share(std::vector<std::byte> bytes) {
    return std::make_shared<const std::vector<std::byte>>(std::move(bytes));
}

}  // namespace thinwire

#endif  // THINWIRE_COMM_MESSAGE_HPP
