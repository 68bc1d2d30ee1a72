#ifndef THINWIRE_IO_FILE_HPP
#define THINWIRE_IO_FILE_HPP

#include <thinwire/core/error.hpp>

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

#if defined(_WIN32)
#include <io.h>
#else
#include <fcntl.h>
#include <unistd.h>
#endif

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

/// Hands every byte to the operating system, or throws.
inline void write_all(std::FILE* file, std::span<const std::byte> bytes, const std::filesystem::path& path) {
    if (bytes.empty()) return;
    errno = 0;
    if (std::fwrite(bytes.data(), 1, bytes.size(), file) != bytes.size() || std::fflush(file) != 0)
        throw_io_error("write", path, errno);
}

/// Moves the next read to byte `at`, or throws.
inline void seek(std::FILE* file, std::uint64_t at, const std::filesystem::path& path) {
    errno = 0;
#if defined(_WIN32)
    const bool failed = ::_fseeki64(file, static_cast<std::int64_t>(at), SEEK_SET) != 0;
#else
    const bool failed = ::fseeko(file, static_cast<off_t>(at), SEEK_SET) != 0;
#endif
    if (failed) throw_io_error("seek", path, errno);
}

/// Waits until the file's bytes are on the device, or throws.
inline void sync_file(std::FILE* file, const std::filesystem::path& path) {
#if defined(_WIN32)
    if (_commit(_fileno(file)) != 0) throw_io_error("sync", path, errno);
#else
    // A pipe or a terminal has no device to wait for and says EINVAL.
    if (::fsync(::fileno(file)) != 0 && errno != EINVAL) throw_io_error("sync", path, errno);
#endif
}

/// Makes a rename inside the folder of `path` last.
inline void sync_folder_of(const std::filesystem::path& path) {
#if !defined(_WIN32)
    const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
    const int descriptor = ::open(folder.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) throw_io_error("open folder", folder, errno);
    const int failed = ::fsync(descriptor) != 0 && errno != EINVAL ? errno : 0;
    ::close(descriptor);
    if (failed != 0) throw_io_error("sync folder", folder, failed);
#else
    static_cast<void>(path);
#endif
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
/// file and name are on the device. On io_error the old file is as it was and the temporary one is gone. One
/// writer a path.
inline void write_file_atomically(const std::filesystem::path& path, std::span<const std::byte> bytes,
                                  bool durable = false) {
    std::filesystem::path temporary = path;
    temporary += ".tmp";
    detail::file_handle file = detail::open_file(temporary, "wb", "create");
    try {
        std::setvbuf(file.get(), nullptr, _IONBF, 0);
        detail::write_all(file.get(), bytes, temporary);
        if (durable) detail::sync_file(file.get(), temporary);
        errno = 0;
        if (std::fclose(file.release()) != 0) detail::throw_io_error("close", temporary, errno);
        std::error_code failed;
        std::filesystem::rename(temporary, path, failed);
        if (failed) throw io_error("rename to '" + path.string() + "': " + failed.message());
    } catch (...) {
        file.reset();
        std::error_code ignored;
        std::filesystem::remove(temporary, ignored);
        throw;
    }
    if (durable) detail::sync_folder_of(path);
}

/// A file that only grows. Used from one thread at a time.
class append_file {
 public:
    /// Opens or creates; throws io_error.
    explicit append_file(std::filesystem::path path)
        : path_(std::move(path)), file_(detail::open_file(path_, "ab", "open")) {
        std::setvbuf(file_.get(), nullptr, _IONBF, 0);
        std::error_code failed;
        size_ = std::filesystem::file_size(path_, failed);
        if (failed) throw io_error("size of '" + path_.string() + "': " + failed.message());
    }

    [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
    [[nodiscard]] std::uint64_t size() const noexcept { return size_; }

    /// Hands all bytes to the operating system. On io_error the file is cut back to its size before the call.
    void append(std::span<const std::byte> bytes) {
        try {
            detail::write_all(file_.get(), bytes, path_);
        } catch (...) {
            std::clearerr(file_.get());
            std::error_code ignored;
            std::filesystem::resize_file(path_, size_, ignored);
            throw;
        }
        size_ += bytes.size();
    }

    /// Waits until everything appended is on the device; throws io_error.
    void sync() { detail::sync_file(file_.get(), path_); }

    /// Shortens the file to `size` bytes. Precondition: size <= size().
    void cut(std::uint64_t size) {
        std::error_code failed;
        std::filesystem::resize_file(path_, size, failed);
        if (failed) throw io_error("cut '" + path_.string() + "': " + failed.message());
        size_ = size;
    }

 private:
    std::filesystem::path path_;
    detail::file_handle file_;
    std::uint64_t size_ = 0;
};

}  // namespace thinwire

#endif  // THINWIRE_IO_FILE_HPP
