#ifndef THINWIRE_IO_DETAIL_LOG_SEGMENTS_HPP
#define THINWIRE_IO_DETAIL_LOG_SEGMENTS_HPP

#include <thinwire/core/result.hpp>
#include <thinwire/io/detail/log_cursor.hpp>
#include <thinwire/io/detail/log_format.hpp>
#include <thinwire/io/file.hpp>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace thinwire::detail {

/// Where rounds begin in a segment, for one in every 64 KiB.
class log_index {
 public:
    struct entry {
        std::uint64_t round = 0;
        std::uint64_t at = 0;
    };
    static constexpr std::uint64_t none = std::numeric_limits<std::uint64_t>::max();

    explicit log_index(std::uint64_t segment_first = none) : segment_first_(segment_first) {}

    /// First round of the segment that it tells of.
    [[nodiscard]] std::uint64_t segment_first() const noexcept { return segment_first_; }
    /// The first frame of `round` begins at `at`. Rounds come in order.
    void note(std::uint64_t round, std::uint64_t at) {
        constexpr std::uint64_t spacing = 1U << 16U;
        if (at >= (entries_.empty() ? log_header_bytes : entries_.back().at) + spacing) entries_.push_back({round, at});
    }
    /// The nearest known place not behind the beginning of `round`.
    [[nodiscard]] entry before(std::uint64_t round) const {
        const auto after = std::ranges::upper_bound(entries_, round, {}, &entry::round);
        return after == entries_.begin() ? entry{segment_first_, log_header_bytes} : *std::prev(after);
    }

 private:
    std::uint64_t segment_first_;
    std::vector<entry> entries_;
};

/// The files of a log, oldest first: FOLDER/<first round in 20 digits>.log. Their headers form a chain, so that a
/// segment that is missing or has another size is found without reading it.
class log_segments {
 public:
    struct segment {
        std::uint64_t first_round = 0;
        std::uint64_t bytes = 0;
        std::uint64_t check = 0;  ///< that of its header
    };

    /// What lies in the folder, of run `wanted` or of any. Empty when there is no segment.
    [[nodiscard]] static result<log_segments> list(file_operations& files, std::filesystem::path folder,
                                                   const digest* wanted);

    [[nodiscard]] const digest& run() const noexcept { return newest_.run; }
    [[nodiscard]] const log_header& newest_header() const noexcept { return newest_; }
    [[nodiscard]] const std::filesystem::path& folder() const noexcept { return folder_; }
    [[nodiscard]] file_operations& files() const noexcept { return *files_; }
    [[nodiscard]] bool empty() const noexcept { return segments_.empty(); }
    [[nodiscard]] std::size_t size() const noexcept { return segments_.size(); }
    [[nodiscard]] const segment& operator[](std::size_t i) const noexcept { return segments_[i]; }
    [[nodiscard]] const segment& front() const noexcept { return segments_.front(); }
    [[nodiscard]] segment& back() noexcept { return segments_.back(); }
    [[nodiscard]] const segment& back() const noexcept { return segments_.back(); }
    [[nodiscard]] std::uint64_t bytes() const noexcept {
        std::uint64_t total = 0;
        for (const segment& s : segments_) total += s.bytes;
        return total;
    }
    [[nodiscard]] std::filesystem::path path_of(std::uint64_t first_round) const {
        std::string name = std::to_string(first_round);
        name.insert(0, digits - name.size(), '0');
        return folder_ / (name + ".log");
    }
    [[nodiscard]] log_cursor cursor(std::size_t which, std::size_t ahead, std::uint64_t at = log_header_bytes) const {
        const segment& s = segments_[which];
        return {{{*files_, path_of(s.first_round), file_use::read, "read"}, s.bytes, ahead}, s.check, at};
    }
    [[nodiscard]] failure refuse(std::size_t which, errc code, const std::string& why) const {
        return refuse(path_of(segments_[which].first_round), code, why);
    }
    [[nodiscard]] failure damaged(std::size_t which, std::uint64_t at, std::uint64_t round) const {
        return refuse(
            which, errc::bad_checksum,
            "damaged at byte " + std::to_string(at) + ", where round " + std::to_string(round) + " should begin");
    }
    /// The rounds of an older segment, as far as its heads can be read.
    [[nodiscard]] log_index index_of(std::size_t which) const;

    /// Creates the next segment; it is on the device when this returns. Throws io_error.
    void begin(const log_header& header);
    /// Removes the oldest segment. The removals reach the device in order: a gap would be taken for damage.
    void drop_oldest();
    /// Waits until the names of the segments are on the device.
    void sync_names();
    /// Removes what an unfinished begin() left, and what lay before a log that began anew.
    void remove_leftovers();

 private:
    static constexpr std::size_t digits = 20;
    static constexpr std::string_view suffix = ".log";

    log_segments(file_operations& files, std::filesystem::path folder) : files_(&files), folder_(std::move(folder)) {}

    [[nodiscard]] static failure refuse(const std::filesystem::path& path, errc code, const std::string& why) {
        return {code, "log '" + path.string() + "': " + why};
    }
    [[nodiscard]] result<ok> add(std::uint64_t first_round, const digest* wanted);
    [[nodiscard]] result<ok> check_chain(const log_header& header) const;

    file_operations* files_;
    std::filesystem::path folder_;
    std::vector<segment> segments_;
    std::vector<std::string> temporaries_;
    std::vector<std::string> forgotten_;
    log_header newest_;
    bool names_dirty_ = true;  // what an earlier owner did is not known to be on the device
};

inline result<log_segments> log_segments::list(file_operations& files, std::filesystem::path folder,
                                               const digest* wanted) {
    log_segments found(files, std::move(folder));
    std::vector<std::string> names;
    const int outcome = files.list(found.folder_, names);
    if (outcome < 0) throw_io_error("list", found.folder_, -outcome);
    std::vector<std::uint64_t> rounds;
    for (const std::string& name : names) {
        if (name.ends_with(".log.tmp")) found.temporaries_.push_back(name);
        if (name.size() != digits + suffix.size() || !name.ends_with(suffix)) continue;
        std::uint64_t round = 0;
        const auto [end, failed] = std::from_chars(name.data(), name.data() + digits, round);
        if (failed == std::errc{} && end == name.data() + digits) rounds.push_back(round);
    }
    std::ranges::sort(rounds);
    for (const std::uint64_t round : rounds)
        if (const result<ok> added = found.add(round, wanted); !added) return added.error();
    return found;
}

inline result<ok> log_segments::add(std::uint64_t first_round, const digest* wanted) {
    const std::filesystem::path path = path_of(first_round);
    const descriptor file(*files_, path, file_use::read, "read");
    std::vector<std::byte> bytes(log_header_bytes);
    bytes.resize(file.read(bytes, 0));
    byte_reader in(bytes);
    if (in.get<std::uint32_t>() != log_magic) return refuse(path, errc::bad_magic, "this is not a thinwire log");
    const auto version = in.get<std::uint32_t>();
    if (in.failed() || bytes.size() < log_header_bytes) return refuse(path, errc::truncated, "the header is cut");
    if (version != log_version)
        return refuse(
            path, errc::bad_version,
            "format version " + std::to_string(version) + ", this build reads " + std::to_string(log_version));
    log_header header;
    std::ranges::copy(in.get_bytes(header.run.bytes.size()), header.run.bytes.begin());
    for (std::uint64_t* number : {&header.first_round, &header.previous_first, &header.previous_bytes,
                                  &header.previous_term, &header.vote.term, &header.vote.peer})
        *number = in.get<std::uint64_t>();
    const auto check = in.get<std::uint64_t>();
    if (check != log_check(std::span<const std::byte>(bytes).first(log_header_bytes - 8)))
        return refuse(path, errc::bad_checksum, "the header is damaged");
    if (wanted != nullptr && header.run != *wanted)
        return refuse(path, errc::mismatch,
                      "it belongs to run " + to_string(header.run, 12) + ", this is run " + to_string(*wanted, 12));
    if (header.first_round != first_round)
        return refuse(path, errc::mismatch, "it begins with round " + std::to_string(header.first_round));
    if (header.previous_bytes == 0) {
        // The log began anew here; what was before it had not been removed yet.
        for (const segment& old : segments_) forgotten_.push_back(path_of(old.first_round).filename().string());
        segments_.clear();
    }
    if (!segments_.empty())
        if (const result<ok> follows = check_chain(header); !follows) return follows.error();
    segments_.push_back({.first_round = first_round, .bytes = file.size(), .check = check});
    newest_ = header;
    return ok{};
}

inline result<ok> log_segments::check_chain(const log_header& header) const {
    const std::filesystem::path path = path_of(header.first_round);
    if (header.run != newest_.run) return refuse(path, errc::mismatch, "it belongs to another run than the one before");
    if (header.previous_first != back().first_round)
        return refuse(path, errc::truncated,
                      "the segment before it, of round " + std::to_string(header.previous_first) + ", is missing");
    if (header.previous_bytes != back().bytes)
        return refuse(path_of(back().first_round), errc::bad_checksum,
                      "damaged: it has " + std::to_string(back().bytes) + " bytes, the next segment says " +
                          std::to_string(header.previous_bytes));
    return ok{};
}

inline log_index log_segments::index_of(std::size_t which) const {
    log_index index(segments_[which].first_round);
    log_cursor frames = cursor(which, 1U << 14U);
    std::uint64_t next = segments_[which].first_round;
    while (frames.next() == log_step::frame) {
        if (frames.frame().kind != log_frame_kind::record || frames.head().round != next) continue;
        index.note(next, frames.frame().at);
        ++next;
    }
    return index;
}

inline void log_segments::begin(const log_header& header) {
    const std::vector<std::byte> bytes = encode_log_header(header);
    write_file_atomically(path_of(header.first_round), bytes, true, *files_);
    segments_.push_back({.first_round = header.first_round,
                         .bytes = bytes.size(),
                         .check = byte_reader(std::span(bytes).last(8)).get<std::uint64_t>()});
    newest_ = header;
}

inline void log_segments::drop_oldest() {
    sync_names();
    const std::filesystem::path path = path_of(front().first_round);
    const int outcome = files_->remove(path);
    if (outcome < 0) throw_io_error("remove", path, -outcome);
    names_dirty_ = true;
    segments_.erase(segments_.begin());
}

inline void log_segments::sync_names() {
    if (!names_dirty_) return;
    sync_folder(*files_, folder_);
    names_dirty_ = false;
}

inline void log_segments::remove_leftovers() {
    for (auto* names : {&temporaries_, &forgotten_})
        for (const std::string& name : std::exchange(*names, {})) {
            const int outcome = files_->remove(folder_ / name);
            if (outcome < 0) throw_io_error("remove", folder_ / name, -outcome);
            names_dirty_ = true;
        }
}

}  // namespace thinwire::detail

#endif  // THINWIRE_IO_DETAIL_LOG_SEGMENTS_HPP
