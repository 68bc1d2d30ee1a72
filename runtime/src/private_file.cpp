#include "private_file.hpp"

#include <thinwire/core/error.hpp>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string>
#include <system_error>
#include <utility>

namespace thinwire::runtime {

namespace {

[[noreturn]] void fail(const char* operation, const std::filesystem::path& path, int reason) {
    throw io_error(std::string(operation) + " '" + path.string() + "': " + std::generic_category().message(reason));
}

/// A file descriptor that closes itself.
class descriptor {
 public:
    explicit descriptor(int number) noexcept : number_(number) {}
    descriptor(const descriptor&) = delete;
    descriptor& operator=(const descriptor&) = delete;
    ~descriptor() {
        if (number_ >= 0) (void)::close(number_);
    }
    [[nodiscard]] int get() const noexcept { return number_; }

 private:
    int number_;
};

/// Writes all of it and waits for the device; the errno of what failed, or 0.
int write_out(int file, std::string_view content) {
    while (!content.empty()) {
        const ssize_t n = ::write(file, content.data(), content.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno;
        content.remove_prefix(static_cast<std::size_t>(n));
    }
    return ::fsync(file) == 0 ? 0 : errno;
}

void sync_folder_of(const std::filesystem::path& path) {
    const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
    const descriptor file(::open(folder.c_str(), O_RDONLY | O_CLOEXEC));
    if (file.get() < 0) fail("open folder", folder, errno);
    if (::fsync(file.get()) != 0 && errno != EINVAL) fail("sync folder", folder, errno);
}

}  // namespace

std::optional<std::string> read_private_file(const std::filesystem::path& path, std::size_t limit) {
    const descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (file.get() < 0) {
        if (errno == ENOENT) return std::nullopt;
        fail("read", path, errno);
    }
    struct stat about {};
    if (::fstat(file.get(), &about) != 0) fail("read", path, errno);
    if (!S_ISREG(about.st_mode)) throw io_error("read '" + path.string() + "': no regular file");
    if ((about.st_mode & 077U) != 0)
        throw io_error("'" + path.string() +
                       "' can be read or written by others than its owner, expected mode 600: chmod 600 '" +
                       path.string() + "'");
    if (static_cast<std::uintmax_t>(about.st_size) > limit)
        throw io_error("read '" + path.string() + "': more than " + std::to_string(limit) + " bytes");
    std::string content(limit + 1, '\0');
    std::size_t filled = 0;
    while (filled < content.size()) {
        const ssize_t n = ::read(file.get(), content.data() + filled, content.size() - filled);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) fail("read", path, errno);
        if (n == 0) break;
        filled += static_cast<std::size_t>(n);
    }
    if (filled > limit) throw io_error("read '" + path.string() + "': more than " + std::to_string(limit) + " bytes");
    content.resize(filled);
    return content;
}

namespace {

/// 0, or the errno: EEXIST, and nothing changed, when the file is there.
int create_in_place(const std::filesystem::path& path, std::string_view content) {
    const descriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (file.get() < 0) return errno;
    const int reason = write_out(file.get(), content);
    if (reason != 0) (void)::unlink(path.c_str());
    return reason;
}

}  // namespace

bool create_private_file(const std::filesystem::path& path, std::string_view content) {
    // Whole under a name of its own first, then linked to where it belongs: nobody ever sees a part of it there.
    std::string temporary = path.string() + ".XXXXXX";
    const descriptor file(::mkostemp(temporary.data(), O_CLOEXEC));  // mode 0600
    if (file.get() < 0) fail("create", path, errno);
    int reason = write_out(file.get(), content);
    if (reason == 0 && ::link(temporary.c_str(), path.c_str()) != 0) reason = errno;
    (void)::unlink(temporary.c_str());
    if (reason == EPERM || reason == ENOTSUP || reason == EOPNOTSUPP) reason = create_in_place(path, content);
    if (reason == EEXIST) return false;
    if (reason != 0) fail("create", path, reason);
    sync_folder_of(path);
    return true;
}

void replace_private_file(const std::filesystem::path& path, std::string_view content) {
    std::filesystem::path temporary = path;
    temporary += ".tmp";
    (void)::unlink(temporary.c_str());  // of a process that died while it wrote
    const descriptor file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (file.get() < 0) fail("create", temporary, errno);
    int reason = write_out(file.get(), content);
    if (reason == 0 && ::rename(temporary.c_str(), path.c_str()) != 0) reason = errno;
    if (reason != 0) {
        (void)::unlink(temporary.c_str());
        fail("write", path, reason);
    }
    sync_folder_of(path);
}

file_lock::file_lock(const std::filesystem::path& path, bool waits)
    : file_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)) {
    if (file_ < 0) fail("open", path, errno);
    while (::flock(file_, waits ? LOCK_EX : LOCK_EX | LOCK_NB) != 0) {
        if (errno == EINTR) continue;
        const int reason = errno;
        (void)::close(file_);
        if (reason == EWOULDBLOCK) throw io_error("'" + path.string() + "' is locked: it is used already");
        fail("lock", path, reason);
    }
}

file_lock::~file_lock() {
    (void)::close(file_);
}

}  // namespace thinwire::runtime
