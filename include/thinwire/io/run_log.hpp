#ifndef THINWIRE_IO_RUN_LOG_HPP
#define THINWIRE_IO_RUN_LOG_HPP

#include <thinwire/comm/transport.hpp>
#include <thinwire/core/bytes.hpp>
#include <thinwire/core/digest.hpp>
#include <thinwire/core/error.hpp>
#include <thinwire/core/result.hpp>
#include <thinwire/io/detail/log_cursor.hpp>
#include <thinwire/io/detail/log_format.hpp>
#include <thinwire/io/detail/log_segments.hpp>
#include <thinwire/io/detail/log_state.hpp>
#include <thinwire/io/file.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace thinwire {

struct run_log_options {
    std::uint64_t first_round = 0;  ///< of a log that does not exist yet
    std::uint64_t first_term = 0;   ///< of the record before first_round, for the same
    /// Every append and vote waits until it is on the device. Otherwise only sync(), mark_final() and a new segment do.
    bool durable = false;
    std::uint64_t segment_bytes = std::uint64_t{64} << 20U;  ///< a segment that has grown so far is closed
    std::uint64_t segment_rounds = UINT64_MAX;               ///< as is one that holds so many rounds
    detail::file_operations* files = nullptr;                ///< the operating system's, unless a test says otherwise
};

/// The rounds of a run with their payloads, in order without a gap, and this peer's votes: a folder of segments, each
/// a file that only grows until the next is begun. Format: io/detail/log_format.hpp.
///
/// The last record is tentative until the next one is appended or mark_final() says so: one of a higher term for the
/// same round replaces it.
///
/// Opening reads the newest segment and the headers of the others. Memory: a few bytes for every 64 KiB of a segment,
/// for two segments, and the largest round. Used from one thread at a time.
class run_log {
 public:
    /// Opens or creates. What the last writer did not finish is cut: bytes at the end that fail a check and that no
    /// later frame knows to have been on the device. Anything else that is not right is refused, and the files left as
    /// they are: another run, damage, a segment missing or cut. With `durable`, all that it finds is on the device when
    /// it returns. Throws io_error when a file cannot be read or written.
    [[nodiscard]] static result<run_log> open(std::filesystem::path folder, const digest& run,
                                              run_log_options options = {});

    /// Opens a log of any run to read it, and changes nothing on the disk. Refuses a folder that holds no log.
    [[nodiscard]] static result<run_log> open_read_only(std::filesystem::path folder,
                                                        detail::file_operations& files = detail::system_files());

    [[nodiscard]] const digest& run() const noexcept { return segments_.run(); }
    [[nodiscard]] std::uint64_t first_round() const noexcept { return segments_.front().first_round; }
    /// The round after the last record.
    [[nodiscard]] std::uint64_t next_round() const noexcept { return state_.next_round; }
    /// Of the last record; 0 when there is none.
    [[nodiscard]] std::uint64_t last_term() const noexcept { return state_.term; }
    /// Whether the last record is not known to be final.
    [[nodiscard]] bool tentative() const noexcept { return state_.tentative(); }
    [[nodiscard]] log_vote newest_vote() const noexcept { return state_.vote; }
    /// How many bytes of unfinished frames open() cut, or open_read_only() passed over.
    [[nodiscard]] std::uint64_t cut_bytes() const noexcept { return cut_bytes_; }
    /// Size of all segments.
    [[nodiscard]] std::uint64_t bytes() const noexcept { return segments_.bytes(); }
    [[nodiscard]] const std::filesystem::path& path() const noexcept { return segments_.folder(); }

    /// Takes round next_round(), or replaces the tentative last record by one of a higher term. The digests are those
    /// of the payloads: one that is not makes the round unreadable. Throws value_error for any other round and for a
    /// term below last_term(); io_error when it cannot be written whole: the log then stands as before, or, when it is
    /// unknown what reached the device, throws at every later change until it is opened again.
    void append(const log_record& record);
    /// The same in term 0 without control, whose digests it computes.
    void append(const commit& c);

    /// Notes this peer's vote, or with peer 0 that it saw a term. Throws value_error when the term is below that of
    /// newest_vote(), or the same and the vote another; io_error as append().
    void vote(log_vote v);

    /// Notes that `round` and what lies before are final. Waits until everything before the note is on the device,
    /// from which a later open() tells damage from an unfinished write. Throws value_error unless round < next_round();
    /// io_error as append().
    void mark_final(std::uint64_t round);

    /// Waits until everything is on the device; throws io_error.
    void sync();

    /// Forgets all rounds and begins anew with `round`, whose predecessor was of `term`; the newest vote stays. On the
    /// device when it returns: afterwards, and after a crash, the log is either the old or the new one. Throws
    /// value_error unless round > next_round(), or next_round() after a tentative record, and for a term below
    /// last_term(); io_error as append().
    void begin_anew(std::uint64_t round, std::uint64_t term);

    /// Removes the oldest segments as far as all their rounds lie before `round`; the newest rounds always stay. Says
    /// how many bytes that freed. Throws io_error.
    std::uint64_t drop_before(std::uint64_t round);

    /// Calls visit(const log_record&) for the rounds [from, to) that the log has; what it views is valid during the
    /// call. Refuses a range that begins before first_round(), and damage; throws io_error.
    template <class Visitor>
    [[nodiscard]] result<ok> read_records(std::uint64_t from, std::uint64_t to, Visitor&& visit) const;

    /// The same with visit(const commit&).
    template <class Visitor>
    [[nodiscard]] result<ok> read(std::uint64_t from, std::uint64_t to, Visitor&& visit) const;
    /// From `from` to the end.
    template <class Visitor>
    [[nodiscard]] result<ok> read(std::uint64_t from, Visitor&& visit) const {
        return read(from, next_round(), std::forward<Visitor>(visit));
    }

 private:
    explicit run_log(detail::log_segments segments) : segments_(std::move(segments)) {}

    [[nodiscard]] result<ok> scan_newest();
    void repair();
    void require_writable() const;
    void begin_segment();
    void begin_segment(const detail::log_header& header);
    void write_frame();
    void put_payloads(std::span<const logged_payload> parts);
    template <class Visitor>
    [[nodiscard]] result<ok> read_segment(std::size_t which, std::uint64_t from, std::uint64_t to,
                                          Visitor& visit) const;

    detail::log_segments segments_;
    detail::log_state state_;
    std::optional<append_file> file_;  // the newest segment; none when only read
    std::uint64_t segment_bytes_ = 0;
    std::uint64_t segment_rounds_ = UINT64_MAX;
    std::uint64_t cut_bytes_ = 0;
    std::uint64_t known_synced_ = 0;  // what the newest segment itself says of its bytes
    bool durable_ = false;
    bool broken_ = false;
    mutable detail::log_index newest_;
    mutable detail::log_index older_;  // of the older segment that was read last
    std::vector<std::byte> buffer_;    // of a frame: head, and small payloads
    std::vector<std::span<const std::byte>> parts_;
    std::vector<logged_payload> digested_;
};

}  // namespace thinwire

#include <thinwire/io/detail/run_log_impl.hpp>

#endif  // THINWIRE_IO_RUN_LOG_HPP
