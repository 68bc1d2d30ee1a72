#ifndef THINWIRE_CORE_BYTES_HPP
#define THINWIRE_CORE_BYTES_HPP

#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace thinwire {

/// Appends little-endian numbers to a growing buffer, whatever the host's byte order.
class byte_writer {
 public:
    byte_writer() = default;
    /// Continues at the end of a buffer whose capacity is kept.
    explicit byte_writer(std::vector<std::byte>&& reuse) noexcept : bytes_(std::move(reuse)) {}

    template <std::integral T>
    void put(T value) {
        const auto bits = static_cast<std::uint64_t>(static_cast<std::make_unsigned_t<T>>(value));
        std::array<std::byte, sizeof(T)> raw;
        for (std::size_t i = 0; i < sizeof(T); ++i) raw[i] = static_cast<std::byte>((bits >> (8 * i)) & 0xffU);
        bytes_.insert(bytes_.end(), raw.begin(), raw.end());
    }
    void put(float value) { put(std::bit_cast<std::uint32_t>(value)); }
    void put(double value) { put(std::bit_cast<std::uint64_t>(value)); }
    void put(std::span<const std::byte> raw) { bytes_.insert(bytes_.end(), raw.begin(), raw.end()); }
    /// The bits of each.
    void put(std::span<const float> values) {
        if constexpr (std::endian::native == std::endian::little)
            put(std::as_bytes(values));
        else
            for (const float value : values) put(value);
    }
    /// A 32-bit length, then the characters.
    void put(std::string_view text) {
        put(static_cast<std::uint32_t>(text.size()));
        put(std::as_bytes(std::span(text.data(), text.size())));
    }
    /// Overwrites four bytes that were put before, such as a length known only at the end.
    void patch(std::size_t at, std::uint32_t value) noexcept {
        for (std::size_t i = 0; i < 4; ++i) bytes_[at + i] = static_cast<std::byte>((value >> (8 * i)) & 0xffU);
    }

    [[nodiscard]] std::size_t size() const noexcept { return bytes_.size(); }
    [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return bytes_; }
    [[nodiscard]] std::vector<std::byte> take() noexcept { return std::move(bytes_); }

 private:
    std::vector<std::byte> bytes_;
};

/// Reads little-endian numbers from foreign bytes. Total: a read past the end gives zero and sets failed(), and
/// nothing is read after that, so that a parser checks once at the end of a section.
class byte_reader {
 public:
    explicit byte_reader(std::span<const std::byte> bytes) noexcept : bytes_(bytes) {}

    template <std::integral T>
    [[nodiscard]] T get() noexcept {
        const std::span<const std::byte> raw = get_bytes(sizeof(T));
        std::uint64_t value = 0;
        for (std::size_t i = 0; i < raw.size(); ++i)
            value |= static_cast<std::uint64_t>(std::to_integer<std::uint8_t>(raw[i])) << (8 * i);
        return static_cast<T>(value);
    }
    [[nodiscard]] float get_f32() noexcept { return std::bit_cast<float>(get<std::uint32_t>()); }
    /// As many floats, whatever their bits; those past the end are not written.
    void get_floats(std::span<float> out) noexcept {
        const std::span<const std::byte> raw = get_bytes(out.size_bytes());
        if constexpr (std::endian::native == std::endian::little) {
            if (!raw.empty()) std::memcpy(out.data(), raw.data(), raw.size());
        } else {
            byte_reader each(raw);
            for (std::size_t i = 0; i < raw.size() / sizeof(float); ++i) out[i] = each.get_f32();
        }
    }
    [[nodiscard]] double get_f64() noexcept { return std::bit_cast<double>(get<std::uint64_t>()); }

    /// The next `count` bytes, or an empty span with failed() set when there are fewer.
    [[nodiscard]] std::span<const std::byte> get_bytes(std::size_t count) noexcept {
        if (failed_ || count > remaining()) {
            failed_ = true;
            return {};
        }
        const auto raw = bytes_.subspan(at_, count);
        at_ += count;
        return raw;
    }

    /// A string as byte_writer puts it; fails when longer than `limit`.
    [[nodiscard]] std::string get_string(std::size_t limit) {
        const auto length = get<std::uint32_t>();
        if (length > limit) failed_ = true;
        const auto raw = get_bytes(length);
        return {reinterpret_cast<const char*>(raw.data()), raw.size()};
    }

    [[nodiscard]] std::size_t position() const noexcept { return at_; }
    [[nodiscard]] std::size_t remaining() const noexcept { return bytes_.size() - at_; }
    [[nodiscard]] bool failed() const noexcept { return failed_; }

 private:
    std::span<const std::byte> bytes_;
    std::size_t at_ = 0;
    bool failed_ = false;
};

}  // namespace thinwire

#endif  // THINWIRE_CORE_BYTES_HPP
