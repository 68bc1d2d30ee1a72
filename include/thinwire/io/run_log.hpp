#ifndef THINWIRE_IO_RUN_LOG_HPP
#define THINWIRE_IO_RUN_LOG_HPP

#include <thinwire/comm/transport.hpp>
#include <thinwire/core/bytes.hpp>
#include <thinwire/core/digest.hpp>
#include <thinwire/core/error.hpp>
#include <thinwire/core/result.hpp>
#include <thinwire/io/file.hpp>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace thinwire {

struct run_log_options {
    std::uint64_t first_round = 0;  ///< of a log that does not exist yet
    bool durable = false;           ///< every append waits until it is on the device
};

/// The commits of a run with their payloads, in order without a gap, in a file that only grows.
///
/// Bytes, little-endian: "TWLG", version, run digest, first round, check; then a frame for each round: body length
/// (u32), check of the length, check of the body, body = round, number of contributions, and for each peer, payload
/// length, payload. A check is the first 8 bytes of a SHA-256.
///
/// Used from one thread at a time.
class run_log {
 public:
    /// Opens or creates. A frame that the last writer did not finish (it ends past the file, it is the last one and
    /// fails its check, or only zeros follow its header) is cut. Anything else that is not right is refused, and the
    /// file left as it is: another run, damage before the end, a gap. Throws io_error when the file cannot be read or
    /// written.
    [[nodiscard]] static result<run_log> open(std::filesystem::path path, const digest& run,
                                              run_log_options options = {});

    [[nodiscard]] std::uint64_t first_round() const noexcept { return first_round_; }
    /// The round that append() takes next.
    [[nodiscard]] std::uint64_t next_round() const noexcept { return first_round_ + frames_.size(); }
    /// How many bytes of an unfinished frame open() cut.
    [[nodiscard]] std::uint64_t cut_bytes() const noexcept { return cut_bytes_; }
    /// Size of the file.
    [[nodiscard]] std::uint64_t bytes() const noexcept { return file_.size(); }
    [[nodiscard]] const std::filesystem::path& path() const noexcept { return file_.path(); }

    /// Throws value_error unless c.round == next_round(), io_error when it cannot be written whole; then the log is
    /// as before.
    void append(const commit& c);

    /// Calls visit(const commit&) for the rounds [from, to) that the log has; the payloads are valid during the call.
    /// Refuses a range that begins before first_round(), or damage since open(); throws io_error.
    template <class Visitor>
    [[nodiscard]] result<ok> read(std::uint64_t from, std::uint64_t to, Visitor&& visit) const;

    /// From `from` to the end.
    template <class Visitor>
    [[nodiscard]] result<ok> read(std::uint64_t from, Visitor&& visit) const {
        return read(from, next_round(), std::forward<Visitor>(visit));
    }

    /// Waits until everything is on the device; throws io_error.
    void sync() { file_.sync(); }

 private:
    struct frame {
        std::uint64_t at = 0;
        std::uint32_t length = 0;  // of the body
    };

    explicit run_log(append_file file) : file_(std::move(file)) {}

    [[nodiscard]] result<ok> read_header(std::span<const std::byte> bytes, const digest& run);
    [[nodiscard]] result<ok> scan(std::FILE* file);
    [[nodiscard]] failure refuse(errc code, const std::string& why) const {
        return {code, "log '" + path().string() + "': " + why};
    }

    append_file file_;
    std::uint64_t first_round_ = 0;
    std::uint64_t cut_bytes_ = 0;
    bool durable_ = false;
    std::vector<frame> frames_;
};

namespace detail {

inline constexpr std::uint32_t log_magic = 0x474c5754;  // "TWLG"
inline constexpr std::uint32_t log_version = 1;
inline constexpr std::size_t log_header_bytes = 4 + 4 + 32 + 8 + 8;
inline constexpr std::size_t log_frame_bytes = 4 + 8 + 8;

[[nodiscard]] inline std::uint64_t log_check(std::span<const std::byte> bytes) noexcept {
    const digest d = digest_of(bytes);
    return byte_reader(d.bytes).get<std::uint64_t>();
}

[[nodiscard]] inline std::vector<std::byte> encode_log_header(const digest& run, std::uint64_t first_round) {
    byte_writer out;
    out.put(log_magic);
    out.put(log_version);
    out.put(std::span<const std::byte>(run.bytes));
    out.put(first_round);
    out.put(log_check(out.bytes()));
    return out.take();
}

/// The frame of a commit; throws value_error when it is too long for one.
[[nodiscard]] inline std::vector<std::byte> encode_log_frame(const commit& c) {
    byte_writer body;
    body.put(c.round);
    body.put(static_cast<std::uint32_t>(c.contributions.size()));
    for (const contribution& part : c.contributions) {
        body.put(part.peer);
        body.put(static_cast<std::uint64_t>(part.payload.size()));
        body.put(part.payload);
    }
    if (body.size() > std::numeric_limits<std::uint32_t>::max())
        throw value_error("log: round " + std::to_string(c.round) + " has " + std::to_string(body.size()) +
                          " bytes, expected less than 4 GiB");
    byte_writer out;
    out.put(static_cast<std::uint32_t>(body.size()));
    out.put(log_check(out.bytes()));
    out.put(log_check(body.bytes()));
    out.put(body.bytes());
    return out.take();
}

/// What precedes the body of a frame.
struct log_frame_header {
    std::uint32_t length = 0;
    std::uint64_t body_check = 0;
    bool holds = false;  ///< the length passes its check
};

[[nodiscard]] inline log_frame_header decode_log_frame_header(std::span<const std::byte> bytes) {
    byte_reader in(bytes);
    log_frame_header out;
    out.length = in.get<std::uint32_t>();
    const auto length_check = in.get<std::uint64_t>();
    out.body_check = in.get<std::uint64_t>();
    out.holds = !in.failed() && length_check == log_check(bytes.first(4));
    return out;
}

/// Fills `parts` with views of the body; false when the body is not a commit.
[[nodiscard]] inline bool decode_log_body(std::span<const std::byte> body, std::uint64_t& round,
                                          std::vector<contribution>& parts) {
    byte_reader in(body);
    round = in.get<std::uint64_t>();
    const auto count = in.get<std::uint32_t>();
    parts.clear();
    for (std::uint32_t i = 0; i < count && !in.failed(); ++i) {
        const auto peer = in.get<std::uint64_t>();
        const auto length = in.get<std::uint64_t>();
        parts.push_back({.peer = peer, .payload = in.get_bytes(length)});
    }
    return !in.failed() && in.remaining() == 0;
}

/// The next `count` bytes of a file, fewer at its end. Throws io_error.
inline std::span<const std::byte> read_some(std::FILE* file, std::size_t count, std::vector<std::byte>& buffer,
                                            const std::filesystem::path& path) {
    buffer.resize(count);
    errno = 0;
    const std::size_t got = std::fread(buffer.data(), 1, count, file);
    if (std::ferror(file) != 0) throw_io_error("read", path, errno);
    return std::span<const std::byte>(buffer).first(got);
}

/// Whether only zeros follow: what a file system may leave of bytes that it had no time to write.
[[nodiscard]] inline bool only_zeros_follow(std::FILE* file, const std::filesystem::path& path) {
    std::vector<std::byte> buffer;
    for (;;) {
        const auto bytes = read_some(file, 65536, buffer, path);
        if (bytes.empty()) return true;
        if (!std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; })) return false;
    }
}

}  // namespace detail

inline result<run_log> run_log::open(std::filesystem::path path, const digest& run, run_log_options options) {
    run_log log{append_file(std::move(path))};
    log.durable_ = options.durable;
    const std::vector<std::byte> fresh = detail::encode_log_header(run, options.first_round);
    const detail::file_handle file = detail::open_file(log.path(), "rb", "read");
    std::vector<std::byte> buffer;
    const auto header = detail::read_some(file.get(), fresh.size(), buffer, log.path());
    if (header.size() < fresh.size() && std::ranges::equal(header, std::span(fresh).first(header.size()))) {
        log.cut_bytes_ = header.size();
        log.file_.cut(0);
        log.file_.append(fresh);
        if (options.durable) {
            log.file_.sync();
            detail::sync_folder_of(log.path());
        }
        log.first_round_ = options.first_round;
        return log;
    }
    if (const result<ok> read = log.read_header(header, run); !read) return read.error();
    if (const result<ok> read = log.scan(file.get()); !read) return read.error();
    return log;
}

inline result<ok> run_log::read_header(std::span<const std::byte> bytes, const digest& run) {
    byte_reader in(bytes);
    if (in.get<std::uint32_t>() != detail::log_magic) return refuse(errc::bad_magic, "this is not a thinwire log");
    const auto version = in.get<std::uint32_t>();
    digest found;
    std::ranges::copy(in.get_bytes(found.bytes.size()), found.bytes.begin());
    first_round_ = in.get<std::uint64_t>();
    const auto check = in.get<std::uint64_t>();
    if (in.failed()) return refuse(errc::truncated, "the header is cut");
    if (version != detail::log_version)
        return refuse(errc::bad_version, "format version " + std::to_string(version) + ", this build reads " +
                                             std::to_string(detail::log_version));
    if (check != detail::log_check(bytes.first(detail::log_header_bytes - 8)))
        return refuse(errc::bad_checksum, "the header is damaged");
    if (found != run)
        return refuse(errc::mismatch,
                      "it belongs to run " + to_string(found, 12) + ", this is run " + to_string(run, 12));
    return ok{};
}

inline result<ok> run_log::scan(std::FILE* file) {
    std::vector<std::byte> buffer;
    std::vector<contribution> parts;
    const std::uint64_t end = file_.size();
    for (std::uint64_t at = detail::log_header_bytes; at < end;) {
        const auto head = detail::decode_log_frame_header(
            detail::read_some(file, std::min<std::uint64_t>(detail::log_frame_bytes, end - at), buffer, path()));
        const std::uint64_t next = at + detail::log_frame_bytes + head.length;
        const bool whole = head.holds && next <= end;
        const auto body = whole ? detail::read_some(file, head.length, buffer, path()) : std::span<const std::byte>();
        if (!whole || detail::log_check(body) != head.body_check) {
            // Torn, if nothing whole can follow; damage, if something can.
            bool torn = end - at < detail::log_frame_bytes || (head.holds && next >= end);
            if (!torn) {
                detail::seek(file, at + detail::log_frame_bytes, path());
                torn = detail::only_zeros_follow(file, path());
            }
            if (!torn)
                return refuse(errc::bad_checksum, "damaged at byte " + std::to_string(at) + ", where round " +
                                                      std::to_string(next_round()) + " should begin");
            cut_bytes_ = end - at;
            file_.cut(at);
            return ok{};
        }
        std::uint64_t round = 0;
        if (!detail::decode_log_body(body, round, parts))
            return refuse(errc::malformed, "the frame at byte " + std::to_string(at) + " is not a commit");
        if (round != next_round())
            return refuse(errc::malformed, "round " + std::to_string(round) + " stands where round " +
                                               std::to_string(next_round()) + " should");
        frames_.push_back({.at = at, .length = head.length});
        at = next;
    }
    return ok{};
}

inline void run_log::append(const commit& c) {
    if (c.round != next_round())
        throw value_error("log '" + path().string() + "': round " + std::to_string(c.round) + " to append, expected " +
                          std::to_string(next_round()));
    const std::vector<std::byte> bytes = detail::encode_log_frame(c);
    const std::uint64_t at = file_.size();
    if (frames_.size() == frames_.capacity()) frames_.reserve(2 * frames_.size() + 16);
    file_.append(bytes);
    if (durable_) {
        try {
            file_.sync();
        } catch (...) {
            file_.cut(at);
            throw;
        }
    }
    frames_.push_back({.at = at, .length = static_cast<std::uint32_t>(bytes.size() - detail::log_frame_bytes)});
}

template <class Visitor>
result<ok> run_log::read(std::uint64_t from, std::uint64_t to, Visitor&& visit) const {
    to = std::min(to, next_round());
    if (from < first_round_)
        return refuse(errc::out_of_range, "round " + std::to_string(from) + " asked for, it begins with round " +
                                              std::to_string(first_round_));
    if (from >= to) return ok{};
    const detail::file_handle file = detail::open_file(path(), "rb", "read");
    std::vector<std::byte> buffer;
    std::vector<contribution> parts;
    detail::seek(file.get(), frames_[from - first_round_].at, path());
    for (std::uint64_t r = from; r < to; ++r) {
        const auto head =
            detail::decode_log_frame_header(detail::read_some(file.get(), detail::log_frame_bytes, buffer, path()));
        const std::uint32_t length = frames_[r - first_round_].length;
        const auto body = detail::read_some(file.get(), length, buffer, path());
        std::uint64_t round = 0;
        if (!head.holds || head.length != length || detail::log_check(body) != head.body_check ||
            !detail::decode_log_body(body, round, parts) || round != r)
            return refuse(errc::bad_checksum, "round " + std::to_string(r) + " was damaged after the log was opened");
        visit(commit{.round = round, .contributions = parts});
    }
    return ok{};
}

}  // namespace thinwire

#endif  // THINWIRE_IO_RUN_LOG_HPP
