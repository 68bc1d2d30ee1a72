#ifndef THINWIRE_CODEC_BIT_STREAM_HPP
#define THINWIRE_CODEC_BIT_STREAM_HPP

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace thinwire {

namespace detail {

[[nodiscard]] constexpr std::uint64_t reverse_bytes(std::uint64_t word) noexcept {
    word = ((word & 0x00ff00ff00ff00ffU) << 8U) | ((word >> 8U) & 0x00ff00ff00ff00ffU);
    word = ((word & 0x0000ffff0000ffffU) << 16U) | ((word >> 16U) & 0x0000ffff0000ffffU);
    return (word << 32U) | (word >> 32U);
}

/// The little-endian number in 8 bytes.
[[nodiscard]] inline std::uint64_t load_word(const std::byte* at) noexcept {
    std::uint64_t word = 0;
    std::memcpy(&word, at, sizeof word);
    return std::endian::native == std::endian::little ? word : reverse_bytes(word);
}

inline void store_word(std::byte* at, std::uint64_t word) noexcept {
    if constexpr (std::endian::native != std::endian::little) word = reverse_bytes(word);
    std::memcpy(at, &word, sizeof word);
}

}  // namespace detail

/// Writes fields of up to 32 bits into memory of the caller, lowest bit first. A write past the end changes nothing
/// there and sets failed().
class bit_writer {
 public:
    /// `memory` has room for all bits to come and 8 bytes more, which may be overwritten.
    explicit bit_writer(std::span<std::byte> memory) noexcept : memory_(memory) {}

    /// Precondition: bits <= 32 and value < 2^bits.
    void put(std::uint32_t value, unsigned bits) noexcept {
        if (at_ + 8 > memory_.size()) {
            failed_ = true;
            return;
        }
        pending_ |= static_cast<std::uint64_t>(value) << held_;
        held_ += bits;
        detail::store_word(memory_.data() + at_, pending_);
        at_ += held_ >> 3U;
        pending_ >>= held_ & 0x38U;
        held_ &= 7U;
    }
    /// put(bits of the value, 32) for each.
    void put_floats(std::span<const float> values) noexcept {
        if (std::endian::native != std::endian::little || held_ > 0 || at_ + values.size_bytes() + 8 > memory_.size()) {
            for (const float value : values) put(std::bit_cast<std::uint32_t>(value), 32);
        } else if (!values.empty()) {
            std::memcpy(memory_.data() + at_, values.data(), values.size_bytes());
            at_ += values.size_bytes();
        }
    }
    /// Fills the last byte with zero bits.
    void flush() noexcept {
        if (held_ > 0) ++at_;
        pending_ = 0;
        held_ = 0;
    }
    /// Bytes begun so far.
    [[nodiscard]] std::size_t position() const noexcept { return at_ + (held_ > 0 ? 1 : 0); }
    [[nodiscard]] bool failed() const noexcept { return failed_; }

 private:
    std::span<std::byte> memory_;
    std::size_t at_ = 0;
    std::uint64_t pending_ = 0;
    unsigned held_ = 0;
    bool failed_ = false;
};

/// Reads what bit_writer wrote, from foreign bytes. Total: what lies past the end reads as zero and sets failed().
class bit_reader {
 public:
    explicit bit_reader(std::span<const std::byte> bytes) noexcept : bytes_(bytes) {}

    /// Precondition: bits <= 32.
    [[nodiscard]] std::uint32_t get(unsigned bits) noexcept {
        const std::size_t byte = at_ >> 3U;
        const std::uint64_t word =
            byte + 8 <= bytes_.size() ? detail::load_word(bytes_.data() + byte) : load_tail(byte);
        const auto value = static_cast<std::uint32_t>((word >> (at_ & 7U)) & ((std::uint64_t{1} << bits) - 1));
        at_ += bits;
        return value;
    }
    /// The float that has the bits get(32), for each.
    void get_floats(std::span<float> values) noexcept {
        const std::size_t byte = at_ >> 3U;
        if (std::endian::native != std::endian::little || (at_ & 7U) != 0 ||
            byte + values.size_bytes() > bytes_.size()) {
            for (float& value : values) value = std::bit_cast<float>(get(32));
        } else if (!values.empty()) {
            std::memcpy(values.data(), bytes_.data() + byte, values.size_bytes());
            at_ += 8 * values.size_bytes();
        }
    }
    /// Leaves the byte that was begun; fails when its other bits are not zero.
    void align() noexcept {
        if (const unsigned rest = static_cast<unsigned>(-at_ & 7U); get(rest) != 0) spoiled_ = true;
    }
    /// Bytes begun so far.
    [[nodiscard]] std::size_t position() const noexcept { return (at_ + 7) >> 3U; }
    [[nodiscard]] bool failed() const noexcept { return spoiled_ || position() > bytes_.size(); }

 private:
    [[nodiscard]] std::uint64_t load_tail(std::size_t byte) const noexcept {
        std::uint64_t word = 0;
        for (std::size_t i = 0; i < 8 && byte + i < bytes_.size(); ++i)
            word |= static_cast<std::uint64_t>(std::to_integer<std::uint8_t>(bytes_[byte + i])) << (8 * i);
        return word;
    }

    std::span<const std::byte> bytes_;
    std::size_t at_ = 0;  // bits
    bool spoiled_ = false;
};

}  // namespace thinwire

#endif  // THINWIRE_CODEC_BIT_STREAM_HPP
