#include "energy.hpp"

#include <dlfcn.h>

#include <fstream>
#include <memory>
#include <system_error>
#include <utility>

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

/// The part of NVIDIA's management library (NVML, of the driver) that counts energy. Its functions may be called from
/// any thread. Names, types and numbers as its reference manual declares them.
class nvml {
 public:
    /// Nothing where there is no such library, one too old to count energy, or no driver behind it.
    static std::shared_ptr<const nvml> load(const std::string& library) {
        auto self = std::shared_ptr<nvml>(new nvml);
        self->library_.reset(::dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL));
        if (!self->library_) return nullptr;
        int (*init)() = nullptr;
        const bool whole = self->find(init, "nvmlInit_v2") &&
                           self->find(self->device_count_, "nvmlDeviceGetCount_v2") &&
                           self->find(self->device_, "nvmlDeviceGetHandleByIndex_v2") &&
                           self->find(self->energy_, "nvmlDeviceGetTotalEnergyConsumption") &&
                           self->find(self->shutdown_, "nvmlShutdown");
        if (!whole || init() != success) return nullptr;
        self->running_ = true;
        return self;
    }
    ~nvml() {
        if (running_) shutdown_();
    }
    nvml(const nvml&) = delete;
    nvml& operator=(const nvml&) = delete;

    [[nodiscard]] unsigned devices() const {
        unsigned found = 0;
        return device_count_(&found) == success ? found : 0;
    }
    /// Since the driver was loaded.
    [[nodiscard]] std::optional<std::uint64_t> millijoules(unsigned index) const {
        device_handle device = nullptr;
        unsigned long long used = 0;
        if (device_(index, &device) != success || energy_(device, &used) != success) return std::nullopt;
        return used;
    }

 private:
    using device_handle = struct nvmlDevice_st*;
    static constexpr int success = 0;  // NVML_SUCCESS of the enumeration nvmlReturn_t

    nvml() = default;
    template <class Function>
    bool find(Function& function, const char* name) const {
        function = reinterpret_cast<Function>(::dlsym(library_.get(), name));
        return function != nullptr;
    }

    struct closer {
        void operator()(void* library) const { ::dlclose(library); }
    };
    std::unique_ptr<void, closer> library_;
    int (*device_count_)(unsigned* count) = nullptr;
    int (*device_)(unsigned index, device_handle* device) = nullptr;
    int (*energy_)(device_handle device, unsigned long long* millijoules) = nullptr;
    int (*shutdown_)() = nullptr;
    bool running_ = false;
};

}  // namespace

energy_meter::energy_meter(const std::filesystem::path& powercap, const std::string& nvml_library) {
    std::error_code none;
    for (const auto& entry : std::filesystem::directory_iterator(powercap, none)) {
        const std::string name = word_in(entry.path() / "name");
        // A package holds its cores; memory stands beside it.
        if (!name.starts_with("package") && name != "dram") continue;
        if (const auto range = number_in(entry.path() / "max_energy_range_uj"))
            add({.read = [file = entry.path() / "energy_uj"] { return number_in(file); },
                 .joules = 1e-6,
                 .range = *range});
    }
    if (const auto library = nvml::load(nvml_library))
        for (unsigned i = 0; i < library->devices(); ++i)
            add({.read = [library, i] { return library->millijoules(i); }, .joules = 1e-3});
}

void energy_meter::add(counter one) {
    const std::optional<std::uint64_t> now = one.read();
    if (!now) return;
    one.last = *now;
    counters_.push_back(std::move(one));
}

std::optional<double> energy_meter::joules() {
    bool whole = !counters_.empty();
    for (counter& one : counters_) {
        const std::optional<std::uint64_t> now = one.read();
        if (!now) {
            whole = false;
            continue;
        }
        std::uint64_t used = 0;
        if (*now >= one.last)
            used = *now - one.last;
        else if (one.range)
            used = *one.range - one.last + *now;
        joules_ += static_cast<double>(used) * one.joules;
        one.last = *now;
    }
    return whole ? std::optional(joules_) : std::nullopt;
}

}  // namespace thinwire::launcher
