#ifndef THINWIRE_LAUNCHER_JSON_LINES_HPP
#define THINWIRE_LAUNCHER_JSON_LINES_HPP

#include <nlohmann/json.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace thinwire::launcher {

/// Appends one JSON object a line. A line that a crash cut off before is closed first, so that it stays the only
/// damaged one. Throws io_error.
class json_lines_writer {
 public:
    explicit json_lines_writer(const std::filesystem::path& file);
    json_lines_writer(const json_lines_writer&) = delete;
    json_lines_writer& operator=(const json_lines_writer&) = delete;
    ~json_lines_writer();

    void write(const nlohmann::json& object);

 private:
    std::string name_;
    int file_ = -1;
};

/// Follows a file that another process appends to.
class json_lines_follower {
 public:
    explicit json_lines_follower(std::filesystem::path file) : file_(std::move(file)) {}

    /// The objects of the lines completed since the last call, of at most about `bytes` of the file; a damaged line and
    /// one above a megabyte are left out. Empty while there is no such file, and at its end.
    [[nodiscard]] std::vector<nlohmann::json> poll(std::size_t bytes = SIZE_MAX);
    /// Whether the last call left nothing that was there.
    [[nodiscard]] bool at_end() const noexcept { return at_end_; }

 private:
    static constexpr std::size_t longest_line = std::size_t{1} << 20U;
    void take_lines(std::vector<nlohmann::json>& objects);

    std::filesystem::path file_;
    std::uintmax_t at_ = 0;
    std::string partial_;
    bool at_end_ = false;
};

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_JSON_LINES_HPP
