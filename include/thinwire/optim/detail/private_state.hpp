#ifndef THINWIRE_OPTIM_DETAIL_PRIVATE_STATE_HPP
#define THINWIRE_OPTIM_DETAIL_PRIVATE_STATE_HPP

#include <thinwire/codec/payload.hpp>
#include <thinwire/core/aligned.hpp>
#include <thinwire/core/bytes.hpp>
#include <thinwire/optim/detail/round_keeper.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace thinwire::detail {

inline constexpr std::uint32_t private_magic = 0x53505754;  // "TWPS"
inline constexpr std::uint16_t private_version = 2;

[[nodiscard]] inline failure private_failure(errc code, const std::string& what) {
    return {code, "private state: " + what + " (" + std::string(to_string(code)) + ")"};
}

/// What a peer's private state consists of, and what it was made with.
struct private_view {
    const payload_layout* layout;
    const digest* run;
    float alpha;
    std::uint8_t gradient;
};

inline void put_private_header(byte_writer& out, const private_view& of, sent_state state) {
    out.put(private_magic);
    out.put(private_version);
    out.put(static_cast<std::uint8_t>(of.layout->values()));
    out.put(static_cast<std::uint8_t>(state));
    out.put(of.layout->fingerprint);
    out.put(of.layout->k);
    out.put(of.layout->chunk);
    out.put(of.alpha);
    out.put(static_cast<std::uint32_t>(of.gradient));
    out.put(std::span<const std::byte>(of.run->bytes));
}

/// Header, momentum, then round, peer, values and payload of what was last sent, then a checksum.
[[nodiscard]] inline std::vector<std::byte> save_private_state(const private_view& of, std::span<const float> momentum,
                                                               const round_keeper& rounds, const sparse_content& own) {
    const sent_state state = rounds.sent();
    std::vector<std::byte> room;
    room.reserve(128 + 4 * (momentum.size() + own.values.size()) + rounds.last_payload().size());
    byte_writer out(std::move(room));
    put_private_header(out, of, state);
    out.put(static_cast<std::uint64_t>(momentum.size()));
    out.put(momentum);
    if (state != sent_state::none) {
        out.put(rounds.pending_round());
        out.put(rounds.pending_self());
        out.put(static_cast<std::uint64_t>(own.values.size()));
        out.put(std::span<const float>(own.values));
        out.put(static_cast<std::uint64_t>(rounds.last_payload().size()));
        out.put(rounds.last_payload());
    }
    out.put(checksum64(out.bytes()));
    return out.take();
}

/// The magnitude of the largest, as bits.
[[nodiscard]] inline std::uint32_t largest_bits(std::span<const float> values) noexcept {
    std::uint32_t largest = 0;
    for (const float value : values) largest = std::max(largest, std::bit_cast<std::uint32_t>(value) & 0x7fffffffU);
    return largest;
}
/// Reads finite floats; false when there are fewer or one is not finite.
[[nodiscard]] inline bool get_floats(byte_reader& in, std::span<float> out) noexcept {
    in.get_floats(out);
    return !in.failed() && largest_bits(out) < 0x7f800000U;
}
/// Of momenta and of what was sent. begin_step() takes gradients of a norm below 2^60 in all, so that a momentum has at
/// most 2^60 / (1 - beta) <= 2^84. With 2^88 a chunk of 2^16 elements, less what was sent of it, has a norm of at most
/// 2^97: what it sends is below the 2^100 that receivers take.
inline constexpr std::uint32_t largest_private_bits = (127U + 88U) << 23U;

/// The part that is there only when something was sent.
[[nodiscard]] inline result<ok> restore_sent(byte_reader& in, const payload_layout& layout, const digest& run,
                                             round_keeper& rounds, sparse_content& own) {
    const auto round = in.get<std::uint64_t>();
    const auto self = in.get<std::uint64_t>();
    std::vector<float> values(layout.coefficients());
    if (in.get<std::uint64_t>() != values.size() || !get_floats(in, values))
        return private_failure(errc::malformed, "values sent");
    if (largest_bits(values) > largest_private_bits) return private_failure(errc::out_of_range, "values sent");
    const auto length = in.get<std::uint64_t>();
    const auto payload = in.get_bytes(length);
    if (in.failed()) return private_failure(errc::truncated, "payload sent");
    const auto info = payload_decoder(layout).decode(payload, {.run = run, .round = round, .peer = self}, own);
    if (!info) return info.error();
    own.values = std::move(values);
    rounds.start(self, round, {payload.begin(), payload.end()});
    return ok{};
}

/// Total; changes nothing when it refuses.
[[nodiscard]] inline result<ok> restore_private_state(std::span<const std::byte> bytes, const private_view& of,
                                                      aligned_vector<float>& momentum, round_keeper& rounds,
                                                      sparse_content& own) {
    constexpr std::size_t frame = 72 + 8;
    byte_reader in(bytes);
    if (in.get<std::uint32_t>() != private_magic) return private_failure(errc::bad_magic, "not one of thinwire");
    if (in.get<std::uint16_t>() != private_version) return private_failure(errc::bad_version, "format version");
    if (bytes.size() < frame) return private_failure(errc::truncated, std::to_string(bytes.size()) + " bytes");
    byte_reader tail(bytes.last(8));
    if (tail.get<std::uint64_t>() != checksum64(bytes.first(bytes.size() - 8)))
        return private_failure(errc::bad_checksum, "checksum differs");
    byte_writer expected;
    const auto flag = std::to_integer<std::uint8_t>(bytes[7]);
    if (flag > static_cast<std::uint8_t>(sent_state::committed)) return private_failure(errc::malformed, "flags");
    put_private_header(expected, of, static_cast<sent_state>(flag));
    expected.put(static_cast<std::uint64_t>(momentum.size()));
    if (bytes.size() < expected.size() || !std::equal(expected.bytes().begin(), expected.bytes().end(), bytes.begin()))
        return private_failure(errc::mismatch, "of other tensors, options or another run");
    in = byte_reader(bytes.subspan(expected.size()));
    if (in.remaining() < 8 + 4 * momentum.size()) return private_failure(errc::truncated, "momentum");
    aligned_vector<float> read(momentum.size());
    if (!get_floats(in, read)) return private_failure(errc::not_finite, "momentum");
    if (largest_bits(read) > largest_private_bits) return private_failure(errc::out_of_range, "momentum");
    round_keeper next = rounds;
    sparse_content sent = own;
    next.settle(false);
    const auto found = static_cast<sent_state>(flag);
    if (found != sent_state::none) {
        if (auto part = restore_sent(in, *of.layout, *of.run, next, sent); !part) return part;
        if (found == sent_state::committed) next.settle(true);
    }
    if (in.remaining() != 8) return private_failure(errc::trailing, "bytes after the end");
    momentum = std::move(read);
    rounds = std::move(next);
    own = std::move(sent);
    return ok{};
}

}  // namespace thinwire::detail

#endif  // THINWIRE_OPTIM_DETAIL_PRIVATE_STATE_HPP
