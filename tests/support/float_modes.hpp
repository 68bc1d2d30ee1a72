#ifndef THINWIRE_TESTS_SUPPORT_FLOAT_MODES_HPP
#define THINWIRE_TESTS_SUPPORT_FLOAT_MODES_HPP

#include <cfenv>
#include <cstdint>
#include <vector>

namespace thinwire {

/// A state that a caller may have put its thread in: how it rounds, and whether subnormal numbers count as zero.
struct float_mode {
    const char* name;
    int rounding;
    bool flush;
};

[[nodiscard]] inline std::vector<float_mode> float_modes() {
    return {{"flush to zero", FE_TONEAREST, true},
            {"rounding up", FE_UPWARD, false},
            {"rounding down", FE_DOWNWARD, true},
            {"rounding toward zero", FE_TOWARDZERO, false}};
}

/// The calling thread is in a mode while this lives.
class in_float_mode {
 public:
    explicit in_float_mode(const float_mode& mode) {
        std::fegetenv(&before_);
        std::fesetround(mode.rounding);
        if (mode.flush) flush();
    }
    ~in_float_mode() { std::fesetenv(&before_); }
    in_float_mode(const in_float_mode&) = delete;
    in_float_mode& operator=(const in_float_mode&) = delete;

 private:
    static void flush() {
#if defined(__x86_64__)
        std::uint32_t mode = 0;
        asm volatile("stmxcsr %0" : "=m"(mode));
        mode |= 0x8040U;  // FTZ, DAZ
        asm volatile("ldmxcsr %0" : : "m"(mode));
#elif defined(__aarch64__)
        std::uint64_t mode = 0;
        asm volatile("mrs %0, fpcr" : "=r"(mode));
        mode |= std::uint64_t{1} << 24U;  // FZ
        asm volatile("msr fpcr, %0" : : "r"(mode));
#endif
    }
    std::fenv_t before_;
};

}  // namespace thinwire

#endif  // THINWIRE_TESTS_SUPPORT_FLOAT_MODES_HPP
