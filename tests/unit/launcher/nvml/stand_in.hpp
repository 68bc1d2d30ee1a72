#ifndef THINWIRE_TESTS_LAUNCHER_NVML_STAND_IN_HPP
#define THINWIRE_TESTS_LAUNCHER_NVML_STAND_IN_HPP

#include <array>

/// What the library stand_in.cpp tells instead of a driver. A test opens that library too and finds the one object of
/// this type under the name "stand_in".
struct nvml_stand_in {
    struct device {
        unsigned long long millijoules = 0;
        int answer = 0;  ///< of the energy counter; 0: success
    };
    int answer = 0;  ///< of nvmlInit_v2
    unsigned count = 0;
    std::array<device, 4> devices{};
    int users = 0;  ///< nvmlInit_v2 without nvmlShutdown
};

#endif  // THINWIRE_TESTS_LAUNCHER_NVML_STAND_IN_HPP
