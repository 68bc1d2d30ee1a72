#ifndef THINWIRE_TESTS_UNIT_IO_FOLDER_HPP
#define THINWIRE_TESTS_UNIT_IO_FOLDER_HPP

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace thinwire_test {

/// A folder of its own for one test, removed at the end.
class temporary_folder {
 public:
    temporary_folder() {
        std::string pattern = (std::filesystem::temp_directory_path() / "thinwire-XXXXXX").string();
        REQUIRE(::mkdtemp(pattern.data()) != nullptr);
        path_ = pattern;
    }
    temporary_folder(const temporary_folder&) = delete;
    temporary_folder& operator=(const temporary_folder&) = delete;
    ~temporary_folder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    [[nodiscard]] std::filesystem::path operator/(const char* name) const { return path_ / name; }
    [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
    [[nodiscard]] int entries() const {
        int count = 0;
        for (auto at = std::filesystem::directory_iterator(path_); at != std::filesystem::directory_iterator(); ++at)
            ++count;
        return count;
    }

 private:
    std::filesystem::path path_;
};

[[nodiscard]] inline std::vector<std::byte> bytes_of(std::string_view text) {
    std::vector<std::byte> bytes;
    for (const char c : text) bytes.push_back(static_cast<std::byte>(c));
    return bytes;
}

/// Runs `body` in a child process in which no file can grow beyond `limit` bytes, as on a full disk; gives what body
/// returned (0..127), or -1 when the child did not end by itself.
template <class Body>
[[nodiscard]] int with_full_disk(std::size_t limit, const Body& body) {
    std::fflush(nullptr);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        std::signal(SIGXFSZ, SIG_IGN);  // writes then fail with EFBIG
        const rlimit files{.rlim_cur = limit, .rlim_max = limit};
        int code = 127;
        try {
            if (::setrlimit(RLIMIT_FSIZE, &files) == 0) code = body();
        } catch (...) {
            code = 126;
        }
        ::_exit(code);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace thinwire_test

#endif  // THINWIRE_TESTS_UNIT_IO_FOLDER_HPP
