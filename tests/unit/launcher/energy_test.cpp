#include "energy.hpp"

#include "unit/launcher/nvml/stand_in.hpp"
#include <dlfcn.h>
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

/// The stand-in for the driver's library, as it was when it was loaded; nvml.name() for a meter.
class driver {
 public:
    driver() : library_(::dlopen(name(), RTLD_NOW)) {
        REQUIRE(library_ != nullptr);
        *operator->() = {};
    }
    ~driver() {
        CHECK((*this)->users == 0);
        ::dlclose(library_);
    }
    driver(const driver&) = delete;
    driver& operator=(const driver&) = delete;

    [[nodiscard]] static const char* name() { return THINWIRE_NVML_STAND_IN; }
    [[nodiscard]] nvml_stand_in* operator->() const {
        return static_cast<nvml_stand_in*>(::dlsym(library_, "stand_in"));
    }

 private:
    void* library_;
};

const char* const no_library = "libthinwire-no-such-library.so";
constexpr int not_supported = 3, gpu_is_lost = 15;  // of nvmlReturn_t

}  // namespace

TEST_CASE("energy: packages and memory count, cores do not twice, counters turn over") {
    const counters files;
    CHECK_FALSE(energy_meter(files.path(), no_library).joules());
    files.set("intel-rapl:0", "package-0", 9'000'000);
    files.set("intel-rapl:0:0", "core", 1'000'000);
    files.set("intel-rapl:0:1", "dram", 2'000'000);
    energy_meter meter(files.path(), no_library);
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

TEST_CASE("energy: devices count beside processors, those without a counter do not") {
    const counters files;
    const driver nvml;
    nvml->count = 3;
    nvml->devices[0].millijoules = 7'000'000'000'000;  // since the driver was loaded: years
    nvml->devices[1].answer = not_supported;
    nvml->devices[2].millijoules = 500;
    {
        energy_meter devices(files.path(), driver::name());
        CHECK(nvml->users == 1);
        CHECK(devices.joules() == 0.0);
        nvml->devices[0].millijoules += 1'250;
        nvml->devices[1].millijoules += 1'000'000;
        nvml->devices[2].millijoules += 250;
        CHECK(*devices.joules() == doctest::Approx(1.5));

        files.set("intel-rapl:0", "package-0", 1'000'000);
        energy_meter both(files.path(), driver::name());
        files.set("intel-rapl:0", "package-0", 3'000'000);
        nvml->devices[2].millijoules += 4'000;
        CHECK(*both.joules() == doctest::Approx(6));
        CHECK(*devices.joules() == doctest::Approx(5.5));
        CHECK(nvml->users == 2);
    }
    CHECK(nvml->users == 0);
}

TEST_CASE("energy: a device that cannot be read for a while, and one whose counter goes back") {
    const counters files;
    const driver nvml;
    nvml->count = 2;
    nvml->devices[0].millijoules = nvml->devices[1].millijoules = 10'000;
    energy_meter meter(files.path(), driver::name());
    nvml->devices[0].millijoules += 1'000;
    nvml->devices[1].answer = gpu_is_lost;
    CHECK_FALSE(meter.joules());
    nvml->devices[1].answer = 0;
    nvml->devices[1].millijoules += 2'000;
    CHECK(*meter.joules() == doctest::Approx(3));
    nvml->devices[0].millijoules = 200;
    CHECK(*meter.joules() == doctest::Approx(3));
    nvml->devices[0].millijoules += 500;
    CHECK(*meter.joules() == doctest::Approx(3.5));
}

TEST_CASE("energy: no driver, no device, none with a counter, and a library that counts none") {
    const counters files;
    const driver nvml;
    nvml->count = 1;
    nvml->answer = 9;  // the driver is not loaded
    CHECK_FALSE(energy_meter(files.path(), driver::name()).joules());
    nvml->answer = 0;
    CHECK(energy_meter(files.path(), driver::name()).joules() == 0.0);
    nvml->devices[0].answer = not_supported;
    CHECK_FALSE(energy_meter(files.path(), driver::name()).joules());
    nvml->count = 0;
    CHECK_FALSE(energy_meter(files.path(), driver::name()).joules());
    CHECK_FALSE(energy_meter(files.path(), "libc.so.6").joules());
    CHECK_FALSE(energy_meter(files.path(), no_library).joules());
}
