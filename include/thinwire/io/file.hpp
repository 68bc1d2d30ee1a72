#ifndef THINWIRE_IO_FILE_HPP
#define THINWIRE_IO_FILE_HPP

#include <thinwire/core/error.hpp>
#include <thinwire/io/detail/file_operations.hpp>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace thinwire {

namespace detail {

struct file_closer {
    void operator()(std::FILE* file) const noexcept { std::fclose(file); }
};
using file_handle = std::unique_ptr<std::FILE, file_closer>;

/// "write 'run/log': No space left on device".
[[noreturn]] inline void throw_io_error(std::string_view operation, const std::filesystem::path& path, int reason) {
    throw io_error(std::string(operation) + " '" + path.string() + "': " + std::generic_category().message(reason));
}

[[nodiscard]] inline file_handle open_file(const std::filesystem::path& path, const char* mode,
                                           std::string_view operation) {
    errno = 0;
    file_handle file(std::fopen(path.string().c_str(), mode));
    if (!file) throw_io_error(operation, path, errno);
    return file;
}

/// A descriptor that is closed with its owner. Every error is thrown as io_error: operation, path, reason.
class descriptor {
 public:
    descriptor(file_operations& files, std::filesystem::path path, file_use use, std::string_view operation)
        : files_(&files), path_(std::move(path)) {
        const int opened = files.open(path_, use);
        if (opened < 0) throw_io_error(operation, path_, -opened);
        file_ = opened;
    }
    descriptor(descriptor&& other) noexcept
        : files_(other.files_), path_(std::move(other.path_)), file_(std::exchange(other.file_, -1)) {}
    descriptor& operator=(descriptor&& other) noexcept {
        std::swap(files_, other.files_);
        std::swap(path_, other.path_);
        std::swap(file_, other.file_);
        return *this;
    }
    ~descriptor() {
        if (file_ >= 0) files_->close(file_);
    }

    [[nodiscard]] file_operations& files() const noexcept { return *files_; }
    [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }

    [[nodiscard]] std::uint64_t size() const {
        return static_cast<std::uint64_t>(checked(files_->size(file_), "size of"));
    }
    /// The bytes from `at` on, as many as `into` takes or the file has.
    std::size_t read(std::span<std::byte> into, std::uint64_t at) const {
        std::size_t filled = 0;
        while (filled < into.size()) {
            const auto got = checked(files_->read(file_, into.subspan(filled), at + filled), "read");
            if (got == 0) break;
            filled += static_cast<std::size_t>(got);
        }
        return filled;
    }
    /// All of `bytes`, beginning at `at`.
    void write(std::span<const std::byte> bytes, std::uint64_t at) {
        for (std::size_t done = 0; done < bytes.size();)
            done += static_cast<std::size_t>(checked(files_->write(file_, bytes.subspan(done), at + done), "write"));
    }
    void truncate(std::uint64_t size) { checked(files_->truncate(file_, size), "cut"); }
    [[nodiscard]] bool try_truncate(std::uint64_t size) { return files_->truncate(file_, size) >= 0; }
    void sync() { checked(files_->sync(file_), "sync"); }
    void close() { checked(files_->close(std::exchange(file_, -1)), "close"); }

 private:
    std::int64_t checked(std::int64_t outcome, std::string_view operation) const {
        if (outcome < 0) throw_io_error(operation, path_, static_cast<int>(-outcome));
        return outcome;
    }

    file_operations* files_;
    std::filesystem::path path_;
    int file_ = -1;
};

inline void sync_folder(file_operations& files, const std::filesystem::path& folder) {
    const int outcome = files.sync_folder(folder);
    if (outcome < 0) throw_io_error("sync folder", folder, -outcome);
}

}  // namespace detail

/// All bytes of a file. Throws io_error when it cannot be read or holds more than `limit` bytes; a pipe or a
/// device is read only up to there.
[[nodiscard]] inline std::vector<std::byte> read_file(const std::filesystem::path& path,
                                                      std::uint64_t limit = std::uint64_t{1} << 40U) {
    const detail::file_handle file = detail::open_file(path, "rb", "read");
    std::setvbuf(file.get(), nullptr, _IONBF, 0);
    std::error_code unknown;
    const std::uintmax_t announced = std::filesystem::file_size(path, unknown);
    const auto too_large = [&] {
        throw io_error("read '" + path.string() + "': more than " + std::to_string(limit) + " bytes");
    };
    if (!unknown && announced > limit) too_large();

    std::vector<std::byte> bytes(unknown ? 0 : static_cast<std::size_t>(announced));
    std::size_t filled = 0;
    for (;;) {
        // One byte more than announced tells the end of the file from a file that grew.
        if (filled == bytes.size()) bytes.resize(filled + (filled == 0 || filled != announced ? 65536 : 1));
        errno = 0;
        const std::size_t got = std::fread(bytes.data() + filled, 1, bytes.size() - filled, file.get());
        filled += got;
        if (filled > limit) too_large();
        if (std::ferror(file.get()) != 0) detail::throw_io_error("read", path, errno);
        if (std::feof(file.get()) != 0) break;
    }
    bytes.resize(filled);
    return bytes;
}

/// Replaces a file whole or not at all: writes `path` + ".tmp", then renames it. `durable` also waits until
/// file and name are on the device; without it a power cut may leave a file that is cut. On io_error the temporary
/// file is gone and the old one as it was; only where the name could not be made durable may the new one be in its
/// place. One writer a path.
inline void write_file_atomically(const std::filesystem::path& path, std::span<const std::byte> bytes,
                                  bool durable = false, detail::file_operations& files = detail::system_files()) {
    std::filesystem::path temporary = path;
    temporary += ".tmp";
    try {
        detail::descriptor file(files, temporary, detail::file_use::replace, "create");
        file.write(bytes, 0);
        if (durable) file.sync();
        file.close();
        const int outcome = files.rename(temporary, path);
        if (outcome < 0) detail::throw_io_error("rename to", path, -outcome);
    } catch (...) {
        static_cast<void>(files.remove(temporary));
        throw;
    }
    if (durable) detail::sync_folder(files, detail::folder_of(path));
}

/// A file that only grows. Used from one thread at a time.
///
/// After a failed sync() nobody knows which of the bytes since the last one are on the device (Linux may call them
/// clean and lose them), and after an append() that failed and could not be cut off the file does not end where it
/// should: then every later change throws io_error, until the file is opened again and looked at.
class append_file {
 public:
    /// Opens or creates; throws io_error.
    explicit append_file(std::filesystem::path path, detail::file_operations& files = detail::system_files())
        : file_(files, std::move(path), detail::file_use::extend, "open"), size_(file_.size()) {}

    [[nodiscard]] const std::filesystem::path& path() const noexcept { return file_.path(); }
    [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
    /// How many bytes are known to be on the device.
    [[nodiscard]] std::uint64_t synced() const noexcept { return synced_; }

    /// Hands all bytes to the operating system. On io_error the file is cut back to its size before the call.
    void append(std::span<const std::byte> bytes) { append(std::span(&bytes, 1)); }
    /// The parts one behind the other, all or none.
    void append(std::span<const std::span<const std::byte>> parts) {
        require_sound();
        std::uint64_t at = size_;
        dirty_ = true;
        try {
            for (const std::span<const std::byte> part : parts) {
                file_.write(part, at);
                at += part.size();
            }
        } catch (...) {
            broken_ = !file_.try_truncate(size_);
            throw;
        }
        size_ = at;
    }

    /// Waits until everything appended is on the device; throws io_error.
    void sync() {
        require_sound();
        if (!dirty_) return;
        broken_ = true;
        file_.sync();
        broken_ = false;
        dirty_ = false;
        synced_ = size_;
    }

    /// Shortens the file to `size` bytes. Precondition: size <= size().
    void cut(std::uint64_t size) {
        require_sound();
        file_.truncate(size);
        size_ = size;
        synced_ = std::min(synced_, size);
        dirty_ = true;
    }

    /// Writes the bytes from `from` to the end again, so that the next sync() covers them even if the sync of an
    /// earlier owner of the file failed.
    void renew(std::uint64_t from) {
        require_sound();
        std::vector<std::byte> block(static_cast<std::size_t>(std::min<std::uint64_t>(size_ - from, 1U << 20U)));
        while (from < size_) {
            const std::size_t got = file_.read(block, from);
            if (got == 0) throw io_error("read '" + path().string() + "': it became shorter");
            file_.write(std::span(block).first(got), from);
            from += got;
        }
        dirty_ = true;
    }

 private:
    void require_sound() const {
        if (broken_)
            throw io_error("write '" + path().string() + "': an earlier failure left it unknown what is on the device");
    }

    detail::descriptor file_;
    std::uint64_t size_ = 0;
    std::uint64_t synced_ = 0;
    bool dirty_ = true;  // what an earlier owner left is not known to be on the device
    bool broken_ = false;
};

}  // namespace thinwire

#endif  // THINWIRE_IO_FILE_HPP
