#ifndef THINWIRE_OPTIM_DETAIL_REPLICA_DIGEST_HPP
#define THINWIRE_OPTIM_DETAIL_REPLICA_DIGEST_HPP

#include <thinwire/core/bytes.hpp>
#include <thinwire/core/digest.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

namespace thinwire::detail {

inline constexpr std::size_t digest_shares = 16;

/// Adds numbers to a digest as little-endian bytes.
inline void digest_floats(sha256& sum, std::span<const float> values) {
    if constexpr (std::endian::native == std::endian::little) {
        sum.update(std::as_bytes(values));
    } else {
        for (const float value : values) {
            byte_writer bytes;
            bytes.put(value);
            sum.update(bytes.bytes());
        }
    }
}

/// Where share `share` of 16 of a tensor lies: consecutive elements; the shares cover it.
struct share_place {
    std::size_t from, count;
};
[[nodiscard]] constexpr share_place share_of(std::size_t elements, std::size_t share) noexcept {
    const std::size_t from = elements / digest_shares * share + elements % digest_shares * share / digest_shares;
    const std::size_t next = share + 1;
    const std::size_t to = elements / digest_shares * next + elements % digest_shares * next / digest_shares;
    return {from, to - from};
}
[[nodiscard]] inline std::span<const float> digest_share(std::span<const float> values, std::size_t share) noexcept {
    const auto [from, count] = share_of(values.size(), share);
    return values.subspan(from, count);
}

}  // namespace thinwire::detail

#endif  // THINWIRE_OPTIM_DETAIL_REPLICA_DIGEST_HPP
