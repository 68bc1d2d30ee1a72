#ifndef THINWIRE_RUNTIME_SRC_ENROL_MESSAGE_HPP
#define THINWIRE_RUNTIME_SRC_ENROL_MESSAGE_HPP

#include <thinwire/core/bytes.hpp>
#include <thinwire/core/digest.hpp>
#include <thinwire/core/result.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace thinwire::runtime {

/// What a joiner says to be entered on the list, and what it hears. Both have one size, so that nothing about them has
/// to be believed before all of it is there; text is padded with zeros.
struct enrol_request {
    static constexpr std::size_t name_size = 64;
    static constexpr std::size_t size = 32 + 32 + name_size;

    digest run{};
    digest proof{};
    std::string name;
};

enum class enrol_verdict : std::uint8_t { enrolled = 0, unknown, used, expired, other_run, unable };

struct enrol_reply {
    static constexpr std::size_t text_size = 255;
    static constexpr std::size_t size = 1 + text_size;

    enrol_verdict verdict{};
    std::string text;  ///< one line, where it was refused
};

namespace enrol_detail {

inline void put_padded(byte_writer& out, std::string_view text, std::size_t size) {
    text = text.substr(0, size);
    out.put(std::as_bytes(std::span(text.data(), text.size())));
    for (std::size_t i = text.size(); i < size; ++i) out.put(std::uint8_t{0});
}

/// Up to the first zero; nothing when something follows it.
[[nodiscard]] inline std::optional<std::string> get_padded(byte_reader& in, std::size_t size) {
    const auto raw = in.get_bytes(size);
    const auto end = std::find(raw.begin(), raw.end(), std::byte{0});
    if (std::any_of(end, raw.end(), [](std::byte b) { return b != std::byte{0}; })) return std::nullopt;
    return std::string(reinterpret_cast<const char*>(raw.data()), static_cast<std::size_t>(end - raw.begin()));
}

[[nodiscard]] inline digest get_digest(byte_reader& in) {
    digest out;
    const auto raw = in.get_bytes(out.bytes.size());
    std::copy(raw.begin(), raw.end(), out.bytes.begin());
    return out;
}

}  // namespace enrol_detail

[[nodiscard]] inline std::vector<std::byte> encode(const enrol_request& r) {
    byte_writer out;
    out.put(r.run.bytes);
    out.put(r.proof.bytes);
    enrol_detail::put_padded(out, r.name, enrol_request::name_size);
    return out.take();
}

/// Total.
[[nodiscard]] inline result<enrol_request> decode_enrol_request(std::span<const std::byte> bytes) {
    byte_reader in(bytes);
    enrol_request r;
    r.run = enrol_detail::get_digest(in);
    r.proof = enrol_detail::get_digest(in);
    const auto name = enrol_detail::get_padded(in, enrol_request::name_size);
    if (bytes.size() != enrol_request::size || !name)
        return failure{errc::malformed, "a request to enrol that is none"};
    r.name = *name;
    return r;
}

[[nodiscard]] inline std::vector<std::byte> encode(const enrol_reply& r) {
    byte_writer out;
    out.put(static_cast<std::uint8_t>(r.verdict));
    enrol_detail::put_padded(out, r.text, enrol_reply::text_size);
    return out.take();
}

/// Total.
[[nodiscard]] inline result<enrol_reply> decode_enrol_reply(std::span<const std::byte> bytes) {
    byte_reader in(bytes);
    const auto code = in.get<std::uint8_t>();
    const auto text = enrol_detail::get_padded(in, enrol_reply::text_size);
    if (bytes.size() != enrol_reply::size || code > static_cast<std::uint8_t>(enrol_verdict::unable) || !text)
        return failure{errc::malformed, "an answer to a request to enrol that is none"};
    return enrol_reply{static_cast<enrol_verdict>(code), *text};
}

}  // namespace thinwire::runtime

#endif  // THINWIRE_RUNTIME_SRC_ENROL_MESSAGE_HPP
