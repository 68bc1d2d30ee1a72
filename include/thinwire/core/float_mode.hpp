#ifndef THINWIRE_CORE_FLOAT_MODE_HPP
#define THINWIRE_CORE_FLOAT_MODE_HPP

#include <cfenv>
#include <cstdint>

namespace thinwire {

/// While one lives, the thread that made it computes as IEEE 754 prescribes by default: it rounds to nearest even,
/// keeps subnormal numbers and traps nothing, whatever its caller has set (flush-to-zero, which also comes with a
/// program linked with -ffast-math; a rounding mode; traps). What was set comes back at the end, sticky flags included.
/// No load or store moves across either end, and so nothing that is computed from memory to memory between them.
class standard_float_mode {
 public:
#if defined(__x86_64__) || defined(_M_X64)
    standard_float_mode() noexcept {
        asm volatile("stmxcsr %0" : "=m"(saved_) : : "memory");
        set(0x1f80);
    }
    ~standard_float_mode() {
        set(saved_);
    }
#elif defined(__aarch64__)
    standard_float_mode() noexcept {
        asm volatile("mrs %0, fpcr" : "=r"(saved_) : : "memory");
        set(0);
    }
    ~standard_float_mode() {
        set(saved_);
    }
#else
    standard_float_mode() noexcept {
        std::fegetenv(&saved_);
        std::fesetenv(FE_DFL_ENV);
    }
    ~standard_float_mode() {
        std::fesetenv(&saved_);
    }
#endif
    standard_float_mode(const standard_float_mode&) = delete;
    standard_float_mode& operator=(const standard_float_mode&) = delete;

 private:
#if defined(__x86_64__) || defined(_M_X64)
    static void set(std::uint32_t mode) noexcept {
        asm volatile("ldmxcsr %0" : : "m"(mode) : "memory");
    }
    std::uint32_t saved_;
#elif defined(__aarch64__)
    static void set(std::uint64_t mode) noexcept {
        asm volatile("msr fpcr, %0" : : "r"(mode) : "memory");
    }
    std::uint64_t saved_;
#else
    std::fenv_t saved_;
#endif
};

}  // namespace thinwire

#endif  // THINWIRE_CORE_FLOAT_MODE_HPP
