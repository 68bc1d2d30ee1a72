#ifndef THINWIRE_CORE_RANDOM_HPP
#define THINWIRE_CORE_RANDOM_HPP

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace thinwire {

/// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): four 32-bit words that
/// depend only on (key, counter), so that any element of any stream is had without the ones before it.
[[nodiscard]] constexpr std::array<std::uint32_t, 4> philox(std::uint64_t key, std::uint64_t stream,
                                                            std::uint64_t counter) noexcept {
    auto k0 = static_cast<std::uint32_t>(key);
    auto k1 = static_cast<std::uint32_t>(key >> 32U);
    std::array<std::uint32_t, 4> x = {static_cast<std::uint32_t>(counter), static_cast<std::uint32_t>(counter >> 32U),
                                      static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(stream >> 32U)};
    for (int i = 0; i < 10; ++i) {
        const std::uint64_t p0 = std::uint64_t{0xD2511F53U} * x[0];
        const std::uint64_t p1 = std::uint64_t{0xCD9E8D57U} * x[2];
        x = {static_cast<std::uint32_t>(p1 >> 32U) ^ x[1] ^ k0, static_cast<std::uint32_t>(p1),
             static_cast<std::uint32_t>(p0 >> 32U) ^ x[3] ^ k1, static_cast<std::uint32_t>(p0)};
        k0 += 0x9E3779B9U;
        k1 += 0xBB67AE85U;
    }
    return x;
}

/// A sequence of random numbers drawn from one stream of a key. Same (key, stream): same integers everywhere;
/// normal() also depends on the machine's log and cos.
class random_stream {
 public:
    constexpr explicit random_stream(std::uint64_t key, std::uint64_t stream = 0) noexcept
        : key_(key), stream_(stream) {}

    [[nodiscard]] constexpr std::uint32_t bits32() noexcept {
        if (left_ == 0) {
            words_ = philox(key_, stream_, counter_++);
            left_ = 4;
        }
        return words_[--left_];
    }
    [[nodiscard]] constexpr std::uint64_t bits64() noexcept {
        const std::uint64_t high = bits32();
        return (high << 32U) | bits32();
    }
    /// Uniform in [0, 1), 24 bits.
    [[nodiscard]] constexpr float uniform() noexcept { return static_cast<float>(bits32() >> 8U) * 0x1p-24F; }
    /// Uniform in [0, n), without bias worth naming. Precondition: n > 0.
    [[nodiscard]] constexpr std::uint64_t below(std::uint64_t n) noexcept { return bits64() % n; }
    /// Standard normal (Box and Muller).
    [[nodiscard]] float normal() noexcept {
        const float u = (static_cast<float>(bits32() >> 8U) + 1.0F) * 0x1p-24F;
        const float v = uniform();
        return std::sqrt(-2.0F * std::log(u)) * std::cos(2.0F * std::numbers::pi_v<float> * v);
    }

 private:
    std::uint64_t key_;
    std::uint64_t stream_;
    std::uint64_t counter_ = 0;
    std::array<std::uint32_t, 4> words_{};
    std::size_t left_ = 0;
};

}  // namespace thinwire

#endif  // THINWIRE_CORE_RANDOM_HPP
