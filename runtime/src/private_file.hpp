#ifndef THINWIRE_RUNTIME_SRC_PRIVATE_FILE_HPP
#define THINWIRE_RUNTIME_SRC_PRIVATE_FILE_HPP

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace thinwire::runtime {

/// Files that only their owner may read and write (mode 0600). All throw io_error.

/// The whole of it; nothing when there is no such file. Refused when group or others may read or write it, when it is
/// no regular file, and above `limit` bytes.
[[nodiscard]] std::optional<std::string> read_private_file(const std::filesystem::path& path, std::size_t limit);

/// Makes a file that is not there yet, on the device when this returns. False, and nothing changed, when it is there.
/// It appears whole; on a file system without hard links, others may see it while it is written.
[[nodiscard]] bool create_private_file(const std::filesystem::path& path, std::string_view content);

/// Replaces a file whole or not at all, on the device when this returns. One writer a path.
void replace_private_file(const std::filesystem::path& path, std::string_view content);

/// Keeps other processes, and other objects of this one, out while it lives. The file stays.
class file_lock {
 public:
    /// `waits` for whoever holds it; otherwise that is an io_error.
    explicit file_lock(const std::filesystem::path& path, bool waits = true);
    file_lock(const file_lock&) = delete;
    file_lock& operator=(const file_lock&) = delete;
    ~file_lock();

 private:
    int file_;
};

}  // namespace thinwire::runtime

#endif  // THINWIRE_RUNTIME_SRC_PRIVATE_FILE_HPP
