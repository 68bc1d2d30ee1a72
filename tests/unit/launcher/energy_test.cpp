#include "energy.hpp"

#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

using namespace thinwire::launcher;

namespace {

class counters {
 public:
    counters() : path_(std::filesystem::temp_directory_path() / ("thinwire-energy-" + std::to_string(::getpid()))) {}
    ~counters() { std::filesystem::remove_all(path_); }
    counters(const counters&) = delete;
    counters& operator=(const counters&) = delete;

    void set(const std::string& zone, const std::string& name, std::uint64_t microjoules) const {
        std::filesystem::create_directories(path_ / zone);
        std::ofstream(path_ / zone / "name") << name << "\n";
        std::ofstream(path_ / zone / "energy_uj") << microjoules << "\n";
        std::ofstream(path_ / zone / "max_energy_range_uj") << 10'000'000 << "\n";
    }
    [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
    std::filesystem::path path_;
};

}  // namespace

TEST_CASE("energy: packages and memory count, cores do not twice, counters turn over") {
    const counters files;
    CHECK_FALSE(energy_meter(files.path()).joules());
    files.set("intel-rapl:0", "package-0", 9'000'000);
    files.set("intel-rapl:0:0", "core", 1'000'000);
    files.set("intel-rapl:0:1", "dram", 2'000'000);
    energy_meter meter(files.path());
    CHECK(meter.joules() == 0.0);
    files.set("intel-rapl:0", "package-0", 9'500'000);
    files.set("intel-rapl:0:0", "core", 4'000'000);
    CHECK(*meter.joules() == doctest::Approx(0.5));
    files.set("intel-rapl:0", "package-0", 500'000);
    files.set("intel-rapl:0:1", "dram", 2'250'000);
    CHECK(*meter.joules() == doctest::Approx(1.75));
    std::filesystem::remove_all(files.path());
    CHECK_FALSE(meter.joules());
}
