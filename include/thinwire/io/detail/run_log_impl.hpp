#ifndef THINWIRE_IO_DETAIL_RUN_LOG_IMPL_HPP
#define THINWIRE_IO_DETAIL_RUN_LOG_IMPL_HPP

#include <thinwire/io/run_log.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace thinwire {

namespace detail {

inline constexpr std::size_t log_read_ahead = std::size_t{256} << 10U;
/// Where only heads are read.
inline constexpr std::size_t log_head_ahead = std::size_t{16} << 10U;
/// Payloads below this are copied behind the head, so that they cost no call of their own.
inline constexpr std::size_t log_small_payload = std::size_t{32} << 10U;

}  // namespace detail

inline result<run_log> run_log::open(std::filesystem::path folder, const digest& run, run_log_options options) {
    detail::file_operations& files = options.files != nullptr ? *options.files : detail::system_files();
    const int made = files.make_folder(folder);
    if (made < 0) detail::throw_io_error("create folder", folder, -made);
    result<detail::log_segments> segments = detail::log_segments::list(files, std::move(folder), &run);
    if (!segments) return segments.error();
    run_log log(std::move(*segments));
    log.durable_ = options.durable;
    log.segment_bytes_ = options.segment_bytes;
    log.segment_rounds_ = options.segment_rounds;
    log.segments_.remove_leftovers();
    const bool created = log.segments_.empty();
    if (created)
        log.segments_.begin({.run = run, .first_round = options.first_round, .previous_term = options.first_term});
    if (const result<ok> read = log.scan_newest(); !read) return read.error();
    log.file_.emplace(log.segments_.path_of(log.segments_.back().first_round), files);
    log.repair();
    if (created || options.durable) {
        log.segments_.sync_names();
        detail::sync_folder(files, detail::folder_of(log.path()));
    }
    return log;
}

inline result<run_log> run_log::open_read_only(std::filesystem::path folder, detail::file_operations& files) {
    result<detail::log_segments> segments = detail::log_segments::list(files, std::move(folder), nullptr);
    if (!segments) return segments.error();
    if (segments->empty())
        return failure{errc::bad_magic, "log '" + segments->folder().string() + "': no segment of a log lies there"};
    run_log log(std::move(*segments));
    if (const result<ok> read = log.scan_newest(); !read) return read.error();
    return log;
}

inline result<ok> run_log::scan_newest() {
    const std::size_t newest = segments_.size() - 1;
    const std::uint64_t end = segments_.back().bytes;
    state_ = detail::log_state::at_begin_of(segments_.newest_header());
    newest_ = detail::log_index(state_.next_round);
    detail::log_cursor frames = segments_.cursor(newest, detail::log_read_ahead);
    for (;;) {
        const std::uint64_t at = frames.position();
        const detail::log_step step = frames.next();
        if (step == detail::log_step::end) return ok{};
        if (step == detail::log_step::malformed)
            return segments_.refuse(newest, errc::malformed,
                                    "the frame at byte " + std::to_string(at) + " is nothing that a log holds");
        if (step == detail::log_step::broken || !frames.load()) {
            if (frames.was_synced(at)) return segments_.damaged(newest, at, state_.next_round);
            cut_bytes_ = end - at;
            segments_.back().bytes = at;
            return ok{};
        }
        const detail::log_frame& frame = frames.frame();
        const std::uint64_t expected = state_.next_round;
        if (const std::string why = state_.take(frame, frames.head()); !why.empty())
            return segments_.refuse(newest, errc::malformed, why);
        if (state_.next_round != expected) newest_.note(expected, at);
        if (frame.synced > at)
            return segments_.refuse(newest, errc::malformed,
                                    "the frame at byte " + std::to_string(at) + " says that what follows it was there");
        known_synced_ = std::max(known_synced_, frame.synced);
    }
}

/// After a cut the file must end there for certain before anything is written behind it. What may only lie in the
/// system's memory since an earlier sync failed is written again.
inline void run_log::repair() {
    if (cut_bytes_ != 0) file_->cut(segments_.back().bytes);
    if (durable_) file_->renew(known_synced_);
    if (durable_ || cut_bytes_ != 0) file_->sync();
}

inline void run_log::require_writable() const {
    if (broken_)
        throw io_error("write '" + path().string() + "': an earlier failure left it unknown which segment is the last");
    if (!file_) throw value_error("log '" + path().string() + "': opened only to be read");
}

inline void run_log::begin_segment() {
    file_->sync();
    begin_segment({.run = run(),
                   .first_round = state_.next_round,
                   .previous_first = segments_.back().first_round,
                   .previous_bytes = segments_.back().bytes,
                   .previous_term = state_.term,
                   .vote = state_.vote});
}

/// A failure leaves it unknown which segment is the newest, unless there is certainly no new one.
inline void run_log::begin_segment(const detail::log_header& header) {
    const std::filesystem::path next = segments_.path_of(header.first_round);
    broken_ = true;
    try {
        segments_.begin(header);
    } catch (...) {
        // Without the new segment the old one goes on.
        const int there = segments_.files().open(next, detail::file_use::read);
        if (there >= 0) segments_.files().close(there);
        broken_ = there != -ENOENT;
        throw;
    }
    file_.emplace(next, segments_.files());
    newest_ = detail::log_index(header.first_round);
    state_ = detail::log_state::at_begin_of(header);
    broken_ = false;
}

inline void run_log::begin_anew(std::uint64_t round, std::uint64_t term) {
    require_writable();
    const std::uint64_t least = tentative() ? state_.next_round : state_.next_round + 1;
    if (round < least || term < state_.term)
        throw value_error("log '" + path().string() + "': to begin anew with round " + std::to_string(round) +
                          " after term " + std::to_string(term) + ", expected a round of at least " +
                          std::to_string(least) + " and a term of at least " + std::to_string(state_.term));
    begin_segment({.run = run(), .first_round = round, .previous_term = term, .vote = state_.vote});
    while (segments_.size() > 1) segments_.drop_oldest();
    segments_.sync_names();
}

inline void run_log::write_frame() {
    file_->append(parts_);
    if (durable_) file_->sync();
    segments_.back().bytes = file_->size();
}

/// Makes parts_ of the head in buffer_ and of the payloads.
inline void run_log::put_payloads(std::span<const logged_payload> parts) {
    std::size_t small = 0;
    for (const logged_payload& part : parts)
        if (part.payload.size() < detail::log_small_payload) small += part.payload.size();
    buffer_.reserve(buffer_.size() + small);
    std::size_t begin = 0;
    const auto flush = [&] {
        parts_.push_back(std::span<const std::byte>(buffer_).subspan(begin));
        begin = buffer_.size();
    };
    for (const logged_payload& part : parts) {
        if (part.payload.size() < detail::log_small_payload) {
            buffer_.insert(buffer_.end(), part.payload.begin(), part.payload.end());
        } else {
            flush();
            parts_.push_back(part.payload);
        }
    }
    flush();
}

inline void run_log::append(const log_record& record) {
    require_writable();
    if (const std::string why = state_.refuse_record(record.term, record.round); !why.empty())
        throw value_error("log '" + path().string() + "': " + why);
    const bool replaces = state_.replaces(record.round);
    const std::uint64_t held = state_.next_round - segments_.back().first_round;
    if (!replaces && held > 0 && (held >= segment_rounds_ || segments_.back().bytes >= segment_bytes_)) begin_segment();
    buffer_.clear();
    parts_.clear();
    byte_writer out(std::move(buffer_));
    const std::uint64_t at = file_->size();
    detail::put_log_record(out, record, {.at = at, .synced = file_->synced()}, segments_.back().check);
    buffer_ = out.take();
    put_payloads(record.contributions);
    write_frame();
    if (!replaces) newest_.note(record.round, at);
    state_.take_record(record.term, record.round);
}

inline void run_log::append(const commit& c) {
    digested_.clear();
    for (const contribution& part : c.contributions)
        digested_.push_back({.peer = part.peer, .payload_digest = digest_of(part.payload), .payload = part.payload});
    append(log_record{.term = 0, .round = c.round, .control = {}, .contributions = digested_});
}

inline void run_log::vote(log_vote v) {
    require_writable();
    if (const std::string why = state_.refuse_vote(v); !why.empty())
        throw value_error("log '" + path().string() + "': " + why);
    if (v == state_.vote) return;
    const std::array<std::uint64_t, 2> numbers = {v.term, v.peer};
    byte_writer out;
    detail::put_log_numbers(out, {.at = file_->size(), .kind = detail::log_frame_kind::vote, .synced = file_->synced()},
                            numbers, segments_.back().check);
    const std::span<const std::byte> bytes = out.bytes();
    parts_.assign(1, bytes);
    write_frame();
    state_.vote = v;
}

inline void run_log::mark_final(std::uint64_t round) {
    require_writable();
    if (const std::string why = state_.refuse_final(round); !why.empty())
        throw value_error("log '" + path().string() + "': " + why);
    if (round < state_.final_below) return;
    file_->sync();
    const std::array<std::uint64_t, 1> numbers = {round};
    byte_writer out;
    detail::put_log_numbers(out,
                            {.at = file_->size(), .kind = detail::log_frame_kind::final, .synced = file_->synced()},
                            numbers, segments_.back().check);
    file_->append(out.bytes());
    segments_.back().bytes = file_->size();
    state_.take_final(round);
}

inline void run_log::sync() {
    require_writable();
    file_->sync();
}

inline std::uint64_t run_log::drop_before(std::uint64_t round) {
    require_writable();
    const std::uint64_t before = bytes();
    // The segment that follows must hold a round: the last record must stay readable.
    while (segments_.size() > 1 && segments_[1].first_round <= round && segments_[1].first_round < state_.next_round)
        segments_.drop_oldest();
    segments_.sync_names();
    return before - bytes();
}

template <class Visitor>
result<ok> run_log::read_records(std::uint64_t from, std::uint64_t to, Visitor&& visit) const {
    to = std::min(to, next_round());
    if (from < first_round())
        return failure{errc::out_of_range, "log '" + path().string() + "': round " + std::to_string(from) +
                                               " asked for, it begins with round " + std::to_string(first_round())};
    for (std::size_t i = 0; i < segments_.size() && from < to; ++i) {
        const std::uint64_t end = i + 1 < segments_.size() ? segments_[i + 1].first_round : next_round();
        if (end <= from || segments_[i].first_round >= to) continue;
        const std::uint64_t begin = std::max(from, segments_[i].first_round);
        const result<ok> read = read_segment(i, begin, std::min(to, end), visit);
        if (!read) return read.error();
    }
    return ok{};
}

template <class Visitor>
result<ok> run_log::read_segment(std::size_t which, std::uint64_t from, std::uint64_t to, Visitor& visit) const {
    using detail::log_step;
    const bool newest = which + 1 == segments_.size();
    if (!newest && older_.segment_first() != segments_[which].first_round) older_ = segments_.index_of(which);
    const detail::log_index::entry start = (newest ? newest_ : older_).before(from);
    detail::log_cursor heads = segments_.cursor(which, detail::log_head_ahead, start.at);
    detail::log_cursor whole = segments_.cursor(which, detail::log_read_ahead, start.at);
    std::uint64_t next = start.round;
    std::uint64_t held = 0;  // where round next - 1 lies, until it is known that nothing replaces it; 0: not asked for
    for (;;) {
        const log_step step = heads.next();
        if (step == log_step::broken || step == log_step::malformed)
            return segments_.damaged(which, heads.position(), next);
        if (step == log_step::frame && heads.frame().kind != detail::log_frame_kind::record) continue;
        const std::uint64_t round = step == log_step::frame ? heads.head().round : next;
        if (round != next && round + 1 != next)
            return segments_.refuse(
                which, errc::malformed,
                "round " + std::to_string(round) + " stands where round " + std::to_string(next) + " should");
        if (held != 0 && round == next) {
            whole.go_to(held);
            if (whole.next() != log_step::frame || !whole.load()) return segments_.damaged(which, held, next - 1);
            visit(whole.record());
            held = 0;
        }
        if (next == to && round == next) return ok{};
        if (step == log_step::end) return segments_.damaged(which, heads.position(), next);
        if (round >= from) held = heads.frame().at;
        next = round + 1;
    }
}

template <class Visitor>
result<ok> run_log::read(std::uint64_t from, std::uint64_t to, Visitor&& visit) const {
    std::vector<contribution> parts;
    return read_records(from, to, [&](const log_record& record) {
        parts.clear();
        for (const logged_payload& part : record.contributions)
            parts.push_back({.peer = part.peer, .payload = part.payload});
        visit(commit{.round = record.round, .contributions = parts});
    });
}

}  // namespace thinwire

#endif  // THINWIRE_IO_DETAIL_RUN_LOG_IMPL_HPP
