#ifndef THINWIRE_RUNTIME_SRC_ENROL_MESSAGE_HPP
#define THINWIRE_RUNTIME_SRC_ENROL_MESSAGE_HPP

#include <thinwire/core/detail/fields.hpp>
#include <thinwire/core/digest.hpp>
#include <thinwire/core/result.hpp>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
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

/// Text up to the first zero; it is cut where it is longer.
template <std::size_t Size, class Archive>
void padded(Archive& a, thinwire::detail::is_a<std::string> auto& text) {
    std::array<std::byte, Size> raw{};
    if constexpr (!Archive::reading) std::memcpy(raw.data(), text.data(), std::min(text.size(), Size));
    a(raw);
    const auto end = std::find(raw.begin(), raw.end(), std::byte{0});
    a.require(std::count(end, raw.end(), std::byte{0}) == raw.end() - end, "something follows a text");
    if constexpr (Archive::reading)
        text.assign(reinterpret_cast<const char*>(raw.data()), static_cast<std::size_t>(end - raw.begin()));
}

void fields(auto& a, thinwire::detail::is_a<enrol_request> auto& r) {
    a(r.run, r.proof);
    padded<enrol_request::name_size>(a, r.name);
}
void fields(auto& a, thinwire::detail::is_a<enrol_reply> auto& r) {
    a(r.verdict);
    a.require(r.verdict <= enrol_verdict::unable, "a verdict that is not known");
    padded<enrol_reply::text_size>(a, r.text);
}

template <class Message>
[[nodiscard]] result<Message> decode(std::span<const std::byte> bytes, const char* why) {
    thinwire::detail::field_reader in(bytes);
    Message m;
    fields(in, m);
    if (!in.whole()) return failure{errc::malformed, why};
    return m;
}

}  // namespace enrol_detail

template <class Message>
requires std::same_as<Message, enrol_request> || std::same_as<Message, enrol_reply>
[[nodiscard]] std::vector<std::byte> encode(const Message& message) {
    thinwire::detail::field_writer out;
    enrol_detail::fields(out, message);
    return out.take();
}

/// Total.
[[nodiscard]] inline result<enrol_request> decode_enrol_request(std::span<const std::byte> bytes) {
    return enrol_detail::decode<enrol_request>(bytes, "a request to enrol that is none");
}

/// Total.
[[nodiscard]] inline result<enrol_reply> decode_enrol_reply(std::span<const std::byte> bytes) {
    return enrol_detail::decode<enrol_reply>(bytes, "an answer to a request to enrol that is none");
}

}  // namespace thinwire::runtime

#endif  // THINWIRE_RUNTIME_SRC_ENROL_MESSAGE_HPP
