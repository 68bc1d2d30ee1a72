#ifndef THINWIRE_LAUNCHER_ENERGY_HPP
#define THINWIRE_LAUNCHER_ENERGY_HPP

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

namespace thinwire::launcher {

/// What the processors and the memory of this machine have used, by the kernel's counters (RAPL, powercap). All
/// programs of the machine count. On most systems only root may read them.
class energy_meter {
 public:
    explicit energy_meter(const std::filesystem::path& powercap = "/sys/class/powercap");

    /// Joules since this meter was made; nothing where no counter can be read. Counters turn over within minutes to
    /// hours: call it at least once a minute.
    [[nodiscard]] std::optional<double> joules();

 private:
    struct zone {
        std::filesystem::path file;
        std::uint64_t range = 0, last = 0;
    };
    std::vector<zone> zones_;
    double joules_ = 0;
};

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_ENERGY_HPP
