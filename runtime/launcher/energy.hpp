#ifndef THINWIRE_LAUNCHER_ENERGY_HPP
#define THINWIRE_LAUNCHER_ENERGY_HPP

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace thinwire::launcher {

/// What this machine has used by the counters it has: processors and memory by the kernel's (RAPL, powercap; on most
/// systems only root may read them), NVIDIA devices by their driver's (NVML, looked for when the meter is made). Whole
/// machine: all programs on it count, and all devices that the driver shows, also those that nothing here uses. A
/// device without a counter (older than Volta) is left out.
class energy_meter {
 public:
    explicit energy_meter(const std::filesystem::path& powercap = "/sys/class/powercap",
                          const std::string& nvml = "libnvidia-ml.so.1");

    /// Joules since this meter was made; nothing where there is no counter, or while one cannot be read. The kernel's
    /// turn over within minutes to hours: call it at least once a minute. A device's that goes back, as when it was
    /// reset, adds nothing.
    [[nodiscard]] std::optional<double> joules();

 private:
    struct counter {
        std::function<std::optional<std::uint64_t>()> read{};
        double joules = 0;                     ///< of one count
        std::optional<std::uint64_t> range{};  ///< where it turns over; nothing: it does not
        std::uint64_t last = 0;
    };
    void add(counter one);

    std::vector<counter> counters_;
    double joules_ = 0;
};

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_ENERGY_HPP
