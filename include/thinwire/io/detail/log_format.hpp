#ifndef THINWIRE_IO_DETAIL_LOG_FORMAT_HPP
#define THINWIRE_IO_DETAIL_LOG_FORMAT_HPP

#include <thinwire/comm/transport.hpp>
#include <thinwire/core/bytes.hpp>
#include <thinwire/core/digest.hpp>
#include <thinwire/core/error.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace thinwire {

/// One peer's part of a logged round.
struct logged_payload {
    peer_id peer = 0;
    digest payload_digest{};  ///< SHA-256 of the payload
    std::span<const std::byte> payload{};
};

/// What the log holds of a round. Owns nothing.
struct log_record {
    std::uint64_t term = 0;
    std::uint64_t round = 0;
    std::span<const std::byte> control{};  ///< opaque to the log
    std::span<const logged_payload> contributions{};
};

/// In `term` this peer voted for `peer`; 0: it saw the term and voted for nobody.
struct log_vote {
    std::uint64_t term = 0;
    peer_id peer = 0;
    bool operator==(const log_vote&) const = default;
};

}  // namespace thinwire

namespace thinwire::detail {

// A segment, little-endian: header (log_header), then frames. A frame: mark "TWLF", kind (u32), bytes of its head
// (u32), bytes of the payloads behind the head (u64), bytes of the segment known to be on the device (u64), check
// (u64); then the head, closed by its check; then the payloads. A check is the first 8 bytes of a SHA-256; that of a
// frame also covers the segment's check and the frame's place, so that no bytes pass for a frame elsewhere. Payloads
// are covered by their digests in the head.

inline constexpr std::uint32_t log_magic = 0x474c5754;  // "TWLG"
inline constexpr std::uint32_t log_version = 2;
inline constexpr std::uint32_t log_frame_mark = 0x464c5754;  // "TWLF"
inline constexpr std::size_t log_header_bytes = 4 + 4 + 32 + 6 * 8 + 8;
inline constexpr std::size_t log_frame_bytes = 4 + 4 + 4 + 8 + 8 + 8;
inline constexpr std::size_t log_contribution_bytes = 8 + 32 + 8;

[[nodiscard]] inline std::uint64_t log_check(std::span<const std::byte> bytes) noexcept {
    return byte_reader(digest_of(bytes).bytes).get<std::uint64_t>();
}

/// What a segment begins with: enough to go on without the segments before it, and to miss one that is gone or cut.
struct log_header {
    digest run{};
    std::uint64_t first_round = 0;
    std::uint64_t previous_first = 0;  ///< first round of the segment before
    std::uint64_t previous_bytes = 0;  ///< and its size; 0: none came before
    std::uint64_t previous_term = 0;   ///< term of the record before first_round
    log_vote vote{};
};

[[nodiscard]] inline std::vector<std::byte> encode_log_header(const log_header& header) {
    byte_writer out;
    out.put(log_magic);
    out.put(log_version);
    out.put(std::span<const std::byte>(header.run.bytes));
    for (const std::uint64_t number : {header.first_round, header.previous_first, header.previous_bytes,
                                       header.previous_term, header.vote.term, header.vote.peer})
        out.put(number);
    out.put(log_check(out.bytes()));
    return out.take();
}

enum class log_frame_kind : std::uint32_t { record = 1, vote = 2, final = 3 };

struct log_frame {
    std::uint64_t at = 0;  ///< where it begins in its segment
    log_frame_kind kind{};
    std::uint32_t head = 0;
    std::uint64_t payload = 0;
    std::uint64_t synced = 0;
    [[nodiscard]] std::uint64_t end() const noexcept { return at + log_frame_bytes + head + payload; }
};

[[nodiscard]] inline std::uint64_t log_frame_check(std::span<const std::byte> covered, std::uint64_t segment,
                                                   std::uint64_t at) {
    byte_writer place;
    place.put(segment);
    place.put(at);
    return byte_reader(sha256{}.update(place.bytes()).update(covered).finish().bytes).get<std::uint64_t>();
}

/// `segment` is the check that closes the segment's header.
inline void put_log_frame(byte_writer& out, const log_frame& frame, std::uint64_t segment) {
    const std::size_t begin = out.size();
    out.put(log_frame_mark);
    out.put(static_cast<std::uint32_t>(frame.kind));
    out.put(frame.head);
    out.put(frame.payload);
    out.put(frame.synced);
    out.put(log_frame_check(out.bytes().subspan(begin), segment, frame.at));
}

/// Nothing when these bytes are not a frame written at `at`.
[[nodiscard]] inline std::optional<log_frame> decode_log_frame(std::span<const std::byte> bytes, std::uint64_t segment,
                                                               std::uint64_t at) {
    byte_reader in(bytes);
    if (in.get<std::uint32_t>() != log_frame_mark) return std::nullopt;
    log_frame frame{.at = at};
    frame.kind = static_cast<log_frame_kind>(in.get<std::uint32_t>());
    frame.head = in.get<std::uint32_t>();
    frame.payload = in.get<std::uint64_t>();
    frame.synced = in.get<std::uint64_t>();
    const std::size_t covered = in.position();
    const auto check = in.get<std::uint64_t>();
    if (in.failed() || check != log_frame_check(bytes.first(covered), segment, at)) return std::nullopt;
    return frame;
}

/// Appends frame and head of a record, not the payloads. Throws value_error when the head is too long for a frame.
inline void put_log_record(byte_writer& out, const log_record& record, log_frame frame, std::uint64_t segment) {
    const std::uint64_t head =
        8 + 8 + 4 + record.control.size() + 4 + log_contribution_bytes * record.contributions.size() + 8;
    if (head > std::numeric_limits<std::uint32_t>::max())
        throw value_error("log: round " + std::to_string(record.round) + " has " + std::to_string(head) +
                          " bytes beside its payloads, expected less than 4 GiB");
    frame.kind = log_frame_kind::record;
    frame.head = static_cast<std::uint32_t>(head);
    frame.payload = 0;
    for (const logged_payload& part : record.contributions) frame.payload += part.payload.size();
    put_log_frame(out, frame, segment);
    const std::size_t begin = out.size();
    out.put(record.term);
    out.put(record.round);
    out.put(static_cast<std::uint32_t>(record.control.size()));
    out.put(record.control);
    out.put(static_cast<std::uint32_t>(record.contributions.size()));
    for (const logged_payload& part : record.contributions) {
        out.put(part.peer);
        out.put(std::span<const std::byte>(part.payload_digest.bytes));
        out.put(static_cast<std::uint64_t>(part.payload.size()));
    }
    out.put(log_check(out.bytes().subspan(begin)));
}

/// Appends a frame whose head is a few numbers.
inline void put_log_numbers(byte_writer& out, log_frame frame, std::span<const std::uint64_t> numbers,
                            std::uint64_t segment) {
    frame.head = static_cast<std::uint32_t>(8 * numbers.size() + 8);
    put_log_frame(out, frame, segment);
    const std::size_t begin = out.size();
    for (const std::uint64_t number : numbers) out.put(number);
    out.put(log_check(out.bytes().subspan(begin)));
}

/// The head of a frame, decoded: for a record also its control and what it says of its payloads.
struct log_head {
    std::uint64_t term = 0;   ///< record, vote
    std::uint64_t round = 0;  ///< record, final
    peer_id peer = 0;         ///< vote
    std::vector<std::byte> control;
    std::vector<logged_payload> contributions;  ///< payloads empty until they are read
    std::vector<std::uint64_t> lengths;
};

/// What a reader finds where a frame should be.
enum class log_step : std::uint8_t {
    frame,
    end,
    broken,     ///< bytes that fail a check, or too few
    malformed,  ///< every check holds, but this is nothing that this format knows
};

/// Reads the head behind a frame, without its payloads. Allocates no more than the bytes justify.
[[nodiscard]] inline log_step decode_log_head(std::span<const std::byte> bytes, const log_frame& frame, log_head& out) {
    if (bytes.size() < 8) return log_step::broken;
    byte_reader in(bytes.first(bytes.size() - 8));
    if (byte_reader(bytes.last(8)).get<std::uint64_t>() != log_check(bytes.first(bytes.size() - 8)))
        return log_step::broken;
    out.contributions.clear();
    out.lengths.clear();
    out.control.clear();
    std::uint64_t total = 0;
    if (frame.kind == log_frame_kind::vote) {
        out.term = in.get<std::uint64_t>();
        out.peer = in.get<std::uint64_t>();
    } else if (frame.kind == log_frame_kind::final) {
        out.round = in.get<std::uint64_t>();
    } else if (frame.kind == log_frame_kind::record) {
        out.term = in.get<std::uint64_t>();
        out.round = in.get<std::uint64_t>();
        const auto control = in.get_bytes(in.get<std::uint32_t>());
        out.control.assign(control.begin(), control.end());
        const auto count = in.get<std::uint32_t>();
        if (in.failed() || in.remaining() != count * log_contribution_bytes) return log_step::malformed;
        for (std::uint32_t i = 0; i < count; ++i) {
            logged_payload part{.peer = in.get<std::uint64_t>()};
            std::ranges::copy(in.get_bytes(part.payload_digest.bytes.size()), part.payload_digest.bytes.begin());
            out.contributions.push_back(part);
            out.lengths.push_back(in.get<std::uint64_t>());
            if (out.lengths.back() > frame.payload - total) return log_step::malformed;
            total += out.lengths.back();
        }
    } else {
        return log_step::malformed;
    }
    const bool whole = !in.failed() && in.remaining() == 0 && total == frame.payload;
    return whole ? log_step::frame : log_step::malformed;
}

}  // namespace thinwire::detail

#endif  // THINWIRE_IO_DETAIL_LOG_FORMAT_HPP
