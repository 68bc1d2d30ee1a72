// A shared library with the functions of NVIDIA's management library that count energy, for machines without a device.

#include "stand_in.hpp"

extern "C" {

nvml_stand_in stand_in;

// The names and types are NVIDIA's.
using nvmlDevice_t = struct nvmlDevice_st*;
using nvmlReturn_t = int;
constexpr nvmlReturn_t invalid_argument = 2;

nvmlReturn_t nvmlInit_v2() {
    if (stand_in.answer == 0) ++stand_in.users;
    return stand_in.answer;
}

nvmlReturn_t nvmlShutdown() {
    --stand_in.users;
    return 0;
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned* count) {
    *count = stand_in.count;
    return 0;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t* device) {
    if (index >= stand_in.count) return invalid_argument;
    *device = reinterpret_cast<nvmlDevice_t>(&stand_in.devices[index]);
    return 0;
}

nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long* millijoules) {
    const auto* one = reinterpret_cast<const nvml_stand_in::device*>(device);
    if (one->answer == 0) *millijoules = one->millijoules;
    return one->answer;
}
}
