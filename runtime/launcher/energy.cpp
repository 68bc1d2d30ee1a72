#include "energy.hpp"

#include <fstream>
#include <string>
#include <system_error>

namespace thinwire::launcher {
namespace {

std::optional<std::uint64_t> number_in(const std::filesystem::path& file) {
    std::ifstream in(file);
    std::uint64_t value = 0;
    if (!(in >> value)) return std::nullopt;
    return value;
}

std::string word_in(const std::filesystem::path& file) {
    std::ifstream in(file);
    std::string word;
    in >> word;
    return word;
}

}  // namespace

energy_meter::energy_meter(const std::filesystem::path& powercap) {
    std::error_code none;
    for (const auto& entry : std::filesystem::directory_iterator(powercap, none)) {
        const std::string name = word_in(entry.path() / "name");
        // A package holds its cores; memory stands beside it.
        if (!name.starts_with("package") && name != "dram") continue;
        const auto last = number_in(entry.path() / "energy_uj"),
                   range = number_in(entry.path() / "max_energy_range_uj");
        if (last && range) zones_.push_back({entry.path() / "energy_uj", *range, *last});
    }
}

std::optional<double> energy_meter::joules() {
    if (zones_.empty()) return std::nullopt;
    for (zone& one : zones_) {
        const std::optional<std::uint64_t> now = number_in(one.file);
        if (!now) return std::nullopt;
        const std::uint64_t used = *now >= one.last ? *now - one.last : one.range - one.last + *now;
        joules_ += static_cast<double>(used) * 1e-6;
        one.last = *now;
    }
    return joules_;
}

}  // namespace thinwire::launcher
