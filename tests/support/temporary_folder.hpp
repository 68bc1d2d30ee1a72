#ifndef THINWIRE_TESTS_SUPPORT_TEMPORARY_FOLDER_HPP
#define THINWIRE_TESTS_SUPPORT_TEMPORARY_FOLDER_HPP

#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <system_error>

namespace thinwire::test {

/// A new empty folder that goes away with the object.
class temporary_folder {
 public:
    temporary_folder() {
        std::string pattern = (std::filesystem::temp_directory_path() / "thinwire-test-XXXXXX").string();
        if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp " + pattern);
        path_ = pattern;
    }
    ~temporary_folder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    temporary_folder(const temporary_folder&) = delete;
    temporary_folder& operator=(const temporary_folder&) = delete;

    [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }

 private:
    std::filesystem::path path_;
};

}  // namespace thinwire::test

#endif  // THINWIRE_TESTS_SUPPORT_TEMPORARY_FOLDER_HPP
