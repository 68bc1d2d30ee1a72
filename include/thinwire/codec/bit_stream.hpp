#ifndef THINWIRE_CODEC_BIT_STREAM_HPP
#define THINWIRE_CODEC_BIT_STREAM_HPP

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace thinwire {

/// Appends fields of up to 32 bits to a byte buffer, lowest bit first.
class bit_writer {
 public:
    explicit bit_writer(std::vector<std::byte>& out) noexcept : out_(out) {}

    /// Precondition: bits <= 32 and value < 2^bits.
    void put(std::uint32_t value, unsigned bits) {
        pending_ |= static_cast<std::uint64_t>(value) << held_;
        held_ += bits;
        for (; held_ >= 8; held_ -= 8, pending_ >>= 8U) out_.push_back(static_cast<std::byte>(pending_ & 0xffU));
    }
    /// Fills the last byte with zero bits.
    void flush() {
        if (held_ > 0) out_.push_back(static_cast<std::byte>(pending_ & 0xffU));
        pending_ = 0;
        held_ = 0;
    }

 private:
    std::vector<std::byte>& out_;
    std::uint64_t pending_ = 0;
    unsigned held_ = 0;
};

/// Reads what bit_writer wrote, from foreign bytes. Total: a read past the end gives zero and sets failed().
class bit_reader {
 public:
    explicit bit_reader(std::span<const std::byte> bytes) noexcept : bytes_(bytes) {}

    /// Precondition: bits <= 32.
    [[nodiscard]] std::uint32_t get(unsigned bits) noexcept {
        while (held_ < bits) {
            if (at_ == bytes_.size()) {
                failed_ = true;
                return 0;
            }
            pending_ |= static_cast<std::uint64_t>(std::to_integer<std::uint8_t>(bytes_[at_++])) << held_;
            held_ += 8;
        }
        const auto value = static_cast<std::uint32_t>(pending_ & ((std::uint64_t{1} << bits) - 1));
        pending_ >>= bits;
        held_ -= bits;
        return value;
    }
    /// Leaves the byte that was begun; fails when its other bits are not zero.
    void align() noexcept {
        if (pending_ != 0) failed_ = true;
        pending_ = 0;
        held_ = 0;
    }
    /// Bytes begun so far.
    [[nodiscard]] std::size_t position() const noexcept { return at_; }
    [[nodiscard]] bool failed() const noexcept { return failed_; }

 private:
    std::span<const std::byte> bytes_;
    std::size_t at_ = 0;
    std::uint64_t pending_ = 0;
    unsigned held_ = 0;
    bool failed_ = false;
};

}  // namespace thinwire

#endif  // THINWIRE_CODEC_BIT_STREAM_HPP
