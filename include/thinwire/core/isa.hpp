#ifndef THINWIRE_CORE_ISA_HPP
#define THINWIRE_CORE_ISA_HPP

#include <thinwire/config.hpp>

#include <string_view>

namespace thinwire {

/// Instruction sets that kernels are written for, in rising order.
enum class isa { scalar, avx2, avx512 };

[[nodiscard]] constexpr std::string_view to_string(isa level) noexcept {
    return level == isa::avx512 ? "avx512" : level == isa::avx2 ? "avx2" : "scalar";
}

/// The highest level that this processor and operating system run. Asked once, then remembered.
[[nodiscard]] inline isa best_isa() noexcept {
#if THINWIRE_X86_DISPATCH
    static const isa found = [] {
        __builtin_cpu_init();
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
            return isa::avx512;
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return isa::avx2;
        return isa::scalar;
    }();
    return found;
#else
    return isa::scalar;
#endif
}

}  // namespace thinwire

#endif  // THINWIRE_CORE_ISA_HPP
