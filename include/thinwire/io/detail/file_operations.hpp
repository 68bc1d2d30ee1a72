#ifndef THINWIRE_IO_DETAIL_FILE_OPERATIONS_HPP
#define THINWIRE_IO_DETAIL_FILE_OPERATIONS_HPP

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <system_error>
#include <vector>

#if defined(_WIN32)
#include <fcntl.h>
#include <io.h>
#include <sys/stat.h>
#else
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace thinwire::detail {

enum class file_use : std::uint8_t {
    read,     ///< an existing file
    extend,   ///< to read and write, created when missing
    replace,  ///< to write, created or emptied
};

/// What everything that must survive a crash does to a disk: the seam at which tests put a disk that fails. Numbers are
/// results, or the system's reason (errno) negated. Interrupted calls are repeated.
class file_operations {
 public:
    virtual ~file_operations() = default;

    /// A descriptor.
    [[nodiscard]] virtual int open(const std::filesystem::path& path, file_use use) = 0;
    virtual int close(int file) = 0;
    /// How many bytes were read, from byte `at` on: 0 at the end of the file.
    [[nodiscard]] virtual std::int64_t read(int file, std::span<std::byte> into, std::uint64_t at) = 0;
    /// How many bytes were written, from byte `at` on: at least 1.
    [[nodiscard]] virtual std::int64_t write(int file, std::span<const std::byte> bytes, std::uint64_t at) = 0;
    [[nodiscard]] virtual std::int64_t size(int file) = 0;
    [[nodiscard]] virtual int truncate(int file, std::uint64_t size) = 0;
    /// Waits until the file's content and size are on the device.
    [[nodiscard]] virtual int sync(int file) = 0;
    [[nodiscard]] virtual int rename(const std::filesystem::path& from, const std::filesystem::path& to) = 0;
    [[nodiscard]] virtual int remove(const std::filesystem::path& path) = 0;
    /// Makes what was created, renamed and removed in a folder last.
    [[nodiscard]] virtual int sync_folder(const std::filesystem::path& folder) = 0;
    /// 1 when the folder was made, 0 when it was there.
    [[nodiscard]] virtual int make_folder(const std::filesystem::path& folder) = 0;
    /// Appends the names of what a folder holds.
    [[nodiscard]] virtual int list(const std::filesystem::path& folder, std::vector<std::string>& names) = 0;
};

/// The folder in which a path lies.
[[nodiscard]] inline std::filesystem::path folder_of(const std::filesystem::path& path) {
    return path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
}

/// The operating system's files.
class system_file_operations final : public file_operations {
 public:
    int open(const std::filesystem::path& path, file_use use) override {
#if defined(_WIN32)
        int mode = _O_BINARY | _O_NOINHERIT;
        if (use == file_use::read) mode |= _O_RDONLY;
        if (use == file_use::extend) mode |= _O_RDWR | _O_CREAT;
        if (use == file_use::replace) mode |= _O_RDWR | _O_CREAT | _O_TRUNC;
        const int file = ::_wopen(path.c_str(), mode, _S_IREAD | _S_IWRITE);
        return file < 0 ? -errno : file;
#else
        int mode = O_CLOEXEC;
        if (use == file_use::read) mode |= O_RDONLY;
        if (use == file_use::extend) mode |= O_RDWR | O_CREAT;
        if (use == file_use::replace) mode |= O_WRONLY | O_CREAT | O_TRUNC;
        return static_cast<int>(again([&] { return ::open(path.c_str(), mode, 0666); }));
#endif
    }
    int close(int file) override {
#if defined(_WIN32)
        return ::_close(file) != 0 ? -errno : 0;
#else
        return ::close(file) != 0 && errno != EINTR ? -errno : 0;
#endif
    }
    std::int64_t read(int file, std::span<std::byte> into, std::uint64_t at) override {
#if defined(_WIN32)
        if (::_lseeki64(file, static_cast<std::int64_t>(at), SEEK_SET) < 0) return -errno;
        return again([&] { return ::_read(file, into.data(), static_cast<unsigned>(at_most(into.size()))); });
#else
        return again([&] { return ::pread(file, into.data(), at_most(into.size()), static_cast<off_t>(at)); });
#endif
    }
    std::int64_t write(int file, std::span<const std::byte> bytes, std::uint64_t at) override {
#if defined(_WIN32)
        if (::_lseeki64(file, static_cast<std::int64_t>(at), SEEK_SET) < 0) return -errno;
        return again([&] { return ::_write(file, bytes.data(), static_cast<unsigned>(at_most(bytes.size()))); });
#else
        return again([&] { return ::pwrite(file, bytes.data(), at_most(bytes.size()), static_cast<off_t>(at)); });
#endif
    }
    std::int64_t size(int file) override {
#if defined(_WIN32)
        const auto length = ::_filelengthi64(file);
        return length < 0 ? -errno : length;
#else
        struct stat about {};
        return ::fstat(file, &about) != 0 ? -errno : static_cast<std::int64_t>(about.st_size);
#endif
    }
    int truncate(int file, std::uint64_t size) override {
#if defined(_WIN32)
        return -::_chsize_s(file, static_cast<std::int64_t>(size));
#else
        return static_cast<int>(again([&] { return ::ftruncate(file, static_cast<off_t>(size)); }));
#endif
    }
    int sync(int file) override {
#if defined(_WIN32)
        return ::_commit(file) != 0 ? -errno : 0;
#elif defined(__APPLE__)
        return without_device(again([&] { return ::fsync(file); }));
#else
        return without_device(again([&] { return ::fdatasync(file); }));
#endif
    }
    int rename(const std::filesystem::path& from, const std::filesystem::path& to) override {
        std::error_code failed;
        std::filesystem::rename(from, to, failed);
        return -failed.value();
    }
    int remove(const std::filesystem::path& path) override {
        std::error_code failed;
        std::filesystem::remove(path, failed);
        return -failed.value();
    }
    int sync_folder(const std::filesystem::path& folder) override {
#if defined(_WIN32)
        static_cast<void>(folder);
        return 0;
#else
        const int file = static_cast<int>(again([&] { return ::open(folder.c_str(), O_RDONLY | O_CLOEXEC); }));
        if (file < 0) return file;
        const int outcome = without_device(again([&] { return ::fsync(file); }));
        ::close(file);
        return outcome;
#endif
    }
    int make_folder(const std::filesystem::path& folder) override {
        std::error_code failed;
        const bool made = std::filesystem::create_directory(folder, failed);
        return failed ? -failed.value() : made ? 1 : 0;
    }
    int list(const std::filesystem::path& folder, std::vector<std::string>& names) override {
        std::error_code failed;
        for (std::filesystem::directory_iterator at(folder, failed), end; !failed && at != end; at.increment(failed))
            names.push_back(at->path().filename().string());
        return -failed.value();
    }

 private:
    [[nodiscard]] static std::size_t at_most(std::size_t count) noexcept {
        constexpr std::size_t limit = std::size_t{1} << 30U;
        return count < limit ? count : limit;
    }
    /// What `call` gives, asked again as long as a signal interrupts it.
    template <class Call>
    [[nodiscard]] static std::int64_t again(const Call& call) {
        for (;;) {
            const auto outcome = call();
            if (outcome >= 0) return static_cast<std::int64_t>(outcome);
            if (errno != EINTR) return -errno;
        }
    }
    /// A pipe or a terminal has no device to wait for and says EINVAL.
    [[nodiscard]] static int without_device(std::int64_t outcome) noexcept {
        return outcome == -EINVAL ? 0 : static_cast<int>(outcome);
    }
};

[[nodiscard]] inline file_operations& system_files() noexcept {
    static system_file_operations files;
    return files;
}

}  // namespace thinwire::detail

#endif  // THINWIRE_IO_DETAIL_FILE_OPERATIONS_HPP
