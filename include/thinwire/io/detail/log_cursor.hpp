#ifndef THINWIRE_IO_DETAIL_LOG_CURSOR_HPP
#define THINWIRE_IO_DETAIL_LOG_CURSOR_HPP

#include <thinwire/io/detail/log_format.hpp>
#include <thinwire/io/file.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace thinwire::detail {

/// A part of a file in memory, which follows what is asked for.
class file_window {
 public:
    /// Reads at least `ahead` bytes at a time, none from `end` on.
    file_window(descriptor file, std::uint64_t end, std::size_t ahead)
        : file_(std::move(file)), end_(end), ahead_(ahead) {}

    [[nodiscard]] std::uint64_t end() const noexcept { return end_; }
    [[nodiscard]] const std::filesystem::path& path() const noexcept { return file_.path(); }

    /// `count` bytes from `at` on, fewer where the file ends; valid until the next call. Throws io_error.
    [[nodiscard]] std::span<const std::byte> view(std::uint64_t at, std::uint64_t count) {
        count = at < end_ ? std::min(count, end_ - at) : 0;
        if (at < begin_ || at + count > begin_ + filled_) {
            const std::uint64_t wanted = std::min<std::uint64_t>(std::max<std::uint64_t>(count, ahead_), end_ - at);
            if (buffer_.size() < wanted) buffer_.resize(static_cast<std::size_t>(wanted));
            begin_ = at;
            filled_ = file_.read(std::span(buffer_).first(static_cast<std::size_t>(wanted)), at);
            count = std::min<std::uint64_t>(count, filled_);
        }
        return std::span<const std::byte>(buffer_).subspan(static_cast<std::size_t>(at - begin_),
                                                           static_cast<std::size_t>(count));
    }

 private:
    descriptor file_;
    std::uint64_t end_;
    std::size_t ahead_;
    std::uint64_t begin_ = 0;
    std::uint64_t filled_ = 0;
    std::vector<std::byte> buffer_;
};

/// Goes through the frames of a segment. Throws io_error when the file cannot be read.
class log_cursor {
 public:
    /// `segment`: the check of its header. Begins at byte `at`, where a frame must begin.
    log_cursor(file_window window, std::uint64_t segment, std::uint64_t at = log_header_bytes)
        : window_(std::move(window)), segment_(segment), at_(at) {}

    /// Reads the frame at position() with its head and steps behind it; stays there when it is no frame.
    [[nodiscard]] log_step next() {
        if (at_ == window_.end()) return log_step::end;
        const auto found = decode_log_frame(window_.view(at_, log_frame_bytes), segment_, at_);
        if (!found) return log_step::broken;
        const std::uint64_t left = window_.end() - at_ - log_frame_bytes;
        if (found->head > left || found->payload > left - found->head) return log_step::broken;
        const log_step step = decode_log_head(window_.view(at_ + log_frame_bytes, found->head), *found, head_);
        if (step != log_step::frame) return step;
        frame_ = *found;
        at_ = frame_.end();
        return step;
    }

    /// Reads the payloads of the frame that next() gave; false when they are not what its head says.
    [[nodiscard]] bool load() {
        const auto bytes = window_.view(frame_.end() - frame_.payload, frame_.payload);
        if (bytes.size() != frame_.payload) return false;
        std::size_t from = 0;
        for (std::size_t i = 0; i < head_.lengths.size(); ++i) {
            logged_payload& part = head_.contributions[i];
            part.payload = bytes.subspan(from, static_cast<std::size_t>(head_.lengths[i]));
            from += part.payload.size();
            if (digest_of(part.payload) != part.payload_digest) return false;
        }
        return true;
    }

    /// Of the last frame; valid until the next call.
    [[nodiscard]] const log_frame& frame() const noexcept { return frame_; }
    [[nodiscard]] const log_head& head() const noexcept { return head_; }
    /// What load() read.
    [[nodiscard]] log_record record() const noexcept {
        return {
            .term = head_.term, .round = head_.round, .control = head_.control, .contributions = head_.contributions};
    }

    /// Where the next frame begins.
    [[nodiscard]] std::uint64_t position() const noexcept { return at_; }
    void go_to(std::uint64_t at) noexcept { at_ = at; }

    /// Whether a frame behind `at` says that the bytes at `at` were on the device when it was written: then what is
    /// wrong there is damage, and not a write that did not finish.
    [[nodiscard]] bool was_synced(std::uint64_t at) {
        constexpr std::uint64_t block = 1U << 18U;
        constexpr std::array mark = {std::byte{'T'}, std::byte{'W'}, std::byte{'L'}, std::byte{'F'}};
        for (std::uint64_t from = at + 1; from + log_frame_bytes <= window_.end(); from += block) {
            // Overlapping by a frame, so that none is missed that begins at the end of a block.
            const auto bytes = window_.view(from, block + log_frame_bytes);
            for (auto found = bytes.begin();; ++found) {
                found = std::search(found, bytes.end(), mark.begin(), mark.end());
                if (found == bytes.end()) break;
                const auto offset = static_cast<std::size_t>(found - bytes.begin());
                const std::size_t count = std::min(log_frame_bytes, bytes.size() - offset);
                const auto frame = decode_log_frame(bytes.subspan(offset, count), segment_, from + offset);
                if (frame && frame->synced > at) return true;
            }
        }
        return false;
    }

 private:
    file_window window_;
    std::uint64_t segment_;
    std::uint64_t at_;
    log_frame frame_;
    log_head head_;
};

}  // namespace thinwire::detail

#endif  // THINWIRE_IO_DETAIL_LOG_CURSOR_HPP
