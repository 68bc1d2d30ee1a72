#ifndef THINWIRE_OPTIM_DETAIL_PRIVATE_STATE_HPP
#define THINWIRE_OPTIM_DETAIL_PRIVATE_STATE_HPP

#include <thinwire/codec/payload.hpp>
#include <thinwire/core/aligned.hpp>
#include <thinwire/core/bytes.hpp>
#include <thinwire/optim/detail/round_keeper.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace thinwire::detail {

inline constexpr std::uint32_t private_magic = 0x53505754;  // "TWPS"
inline constexpr std::uint16_t private_version = 1;

[[nodiscard]] inline failure private_failure(errc code, const std::string& what) {
    return {code, "private state: " + what + " (" + std::string(to_string(code)) + ")"};
}

/// Header, momentum, then round, peer, values and payload when one is in flight, then a checksum.
[[nodiscard]] inline std::vector<std::byte> save_private_state(const payload_layout& layout, const digest& run,
                                                               std::span<const float> momentum,
                                                               const round_keeper& rounds, const sparse_content& own) {
    byte_writer out;
    out.put(private_magic);
    out.put(private_version);
    out.put(static_cast<std::uint8_t>(layout.values()));
    out.put(static_cast<std::uint8_t>(rounds.pending() ? 1 : 0));
    out.put(layout.fingerprint);
    out.put(layout.k);
    out.put(layout.chunk);
    out.put(std::span<const std::byte>(run.bytes));
    out.put(static_cast<std::uint64_t>(momentum.size()));
    for (const float value : momentum) out.put(value);
    if (rounds.pending()) {
        out.put(rounds.pending_round());
        out.put(rounds.pending_self());
        out.put(static_cast<std::uint64_t>(own.values.size()));
        for (const float value : own.values) out.put(value);
        out.put(static_cast<std::uint64_t>(rounds.payload().size()));
        out.put(rounds.payload());
    }
    out.put(checksum64(out.bytes()));
    return out.take();
}

/// Reads `count` finite floats; false when there are fewer or one is not finite.
[[nodiscard]] inline bool get_floats(byte_reader& in, std::span<float> out) noexcept {
    for (float& value : out) {
        const auto bits = in.get<std::uint32_t>();
        if ((bits & 0x7fffffffU) >= 0x7f800000U) return false;
        value = std::bit_cast<float>(bits);
    }
    return !in.failed();
}

/// The part that is there only while a payload is in flight.
[[nodiscard]] inline result<ok> restore_in_flight(byte_reader& in, const payload_layout& layout, const digest& run,
                                                  round_keeper& rounds, sparse_content& own) {
    const auto round = in.get<std::uint64_t>();
    const auto self = in.get<std::uint64_t>();
    std::vector<float> values(layout.coefficients());
    if (in.get<std::uint64_t>() != values.size() || !get_floats(in, values))
        return private_failure(errc::malformed, "values in flight");
    const auto length = in.get<std::uint64_t>();
    const auto payload = in.get_bytes(length);
    if (in.failed()) return private_failure(errc::truncated, "payload in flight");
    const auto info = payload_decoder(layout).decode(payload, {.run = run, .round = round, .peer = self}, own);
    if (!info) return info.error();
    own.values = std::move(values);
    rounds.start(self, round, {payload.begin(), payload.end()});
    return ok{};
}

/// Total; changes nothing when it refuses.
[[nodiscard]] inline result<ok> restore_private_state(std::span<const std::byte> bytes, const payload_layout& layout,
                                                      const digest& run, aligned_vector<float>& momentum,
                                                      round_keeper& rounds, sparse_content& own) {
    constexpr std::size_t frame = 64 + 8;
    byte_reader in(bytes);
    if (in.get<std::uint32_t>() != private_magic) return private_failure(errc::bad_magic, "not one of thinwire");
    if (in.get<std::uint16_t>() != private_version) return private_failure(errc::bad_version, "format version");
    if (bytes.size() < frame) return private_failure(errc::truncated, std::to_string(bytes.size()) + " bytes");
    byte_reader tail(bytes.last(8));
    if (tail.get<std::uint64_t>() != checksum64(bytes.first(bytes.size() - 8)))
        return private_failure(errc::bad_checksum, "checksum differs");
    const auto values = in.get<std::uint8_t>();
    const auto flag = in.get<std::uint8_t>();
    const bool same = values == static_cast<std::uint8_t>(layout.values()) &&
                      in.get<std::uint64_t>() == layout.fingerprint && in.get<std::uint32_t>() == layout.k &&
                      in.get<std::uint32_t>() == layout.chunk && get_digest(in) == run &&
                      in.get<std::uint64_t>() == momentum.size();
    if (!same) return private_failure(errc::mismatch, "of other tensors, options or another run");
    if (in.remaining() < 8 + 4 * momentum.size()) return private_failure(errc::truncated, "momentum");
    aligned_vector<float> read(momentum.size());
    if (!get_floats(in, read)) return private_failure(errc::not_finite, "momentum");
    if (flag > 1) return private_failure(errc::malformed, "flags");
    round_keeper next = rounds;
    sparse_content sent = own;
    next.settle();
    if (flag == 1)
        if (const auto part = restore_in_flight(in, layout, run, next, sent); !part) return part;
    if (in.remaining() != 8) return private_failure(errc::trailing, "bytes after the end");
    momentum = std::move(read);
    rounds = std::move(next);
    own = std::move(sent);
    return ok{};
}

}  // namespace thinwire::detail

#endif  // THINWIRE_OPTIM_DETAIL_PRIVATE_STATE_HPP
