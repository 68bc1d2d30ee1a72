#ifndef THINWIRE_LAUNCHER_TENSORBOARD_HPP
#define THINWIRE_LAUNCHER_TENSORBOARD_HPP

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

namespace thinwire::launcher {

/// An event file that TensorBoard reads (TFRecord of tensorflow.Event, written by hand): a new one for each process, so
/// that a peer which returns goes on where it stopped. A value that cannot be written, as on a full disk, is told of
/// once and ends nothing.
class tensorboard_writer {
 public:
    /// Makes the folder where there is none. Throws io_error.
    explicit tensorboard_writer(const std::filesystem::path& folder);
    tensorboard_writer(const tensorboard_writer&) = delete;
    tensorboard_writer& operator=(const tensorboard_writer&) = delete;
    ~tensorboard_writer();

    /// Values of a step; what is not finite is left out.
    void scalars(std::uint64_t step, std::initializer_list<std::pair<std::string_view, double>> values);
    void text(std::uint64_t step, std::string_view tag, std::string_view value);

 private:
    void write(const std::string& event);

    std::string name_;
    int file_ = -1;
};

/// CRC-32C (Castagnoli) of bytes.
[[nodiscard]] std::uint32_t crc32c(std::string_view bytes) noexcept;

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_TENSORBOARD_HPP
