#ifndef THINWIRE_RUNTIME_IDENTITY_HPP
#define THINWIRE_RUNTIME_IDENTITY_HPP

#include <thinwire/comm/message.hpp>
#include <thinwire/core/digest.hpp>
#include <thinwire/core/result.hpp>
#include <thinwire/runtime/detail/base64.hpp>

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace thinwire::runtime {

/// Who a peer is: an Ed25519 public key (RFC 8032).
struct public_key {
    std::array<std::byte, 32> bytes{};
    [[nodiscard]] bool operator==(const public_key&) const noexcept = default;
    [[nodiscard]] auto operator<=>(const public_key&) const noexcept = default;
};

/// 43 characters of base 64 for URLs.
[[nodiscard]] inline std::string to_string(const public_key& key) {
    return detail::to_base64(key.bytes);
}

/// Total: only what to_string() writes is a key.
[[nodiscard]] inline result<public_key> parse_public_key(std::string_view text) {
    if (const auto bytes = detail::fixed_from_base64<32>(text)) return public_key{*bytes};
    return failure{errc::malformed,
                   "key of " + std::to_string(text.size()) + " characters, expected 43 of base 64 for URLs"};
}

/// What two people compare: SHA-256 of the key.
[[nodiscard]] inline digest fingerprint(const public_key& key) noexcept {
    return digest_of(key.bytes);
}

/// The number that stands for a key on the wire and in commits: the first eight bytes of its fingerprint,
/// little-endian; 1 where they are all zero.
[[nodiscard]] inline peer_id peer_id_of(const public_key& key) noexcept {
    const digest d = fingerprint(key);
    std::uint64_t id = 0;
    for (std::size_t i = 0; i < 8; ++i) id |= std::to_integer<std::uint64_t>(d.bytes[i]) << (8 * i);
    return id == 0 ? 1 : id;
}

/// Likewise of a key's bytes, as a run's state holds them; 0: they are no key.
[[nodiscard]] inline peer_id peer_id_of(std::string_view bytes) noexcept {
    public_key key;
    if (bytes.size() != key.bytes.size()) return 0;
    std::memcpy(key.bytes.data(), bytes.data(), bytes.size());
    return peer_id_of(key);
}

/// A private key. Immutable; may be used from several threads.
class identity {
 public:
    /// A new one, in memory only.
    [[nodiscard]] static identity make();
    /// Reads a key file: PKCS #8 in PEM. Throws io_error when it cannot be read, holds no Ed25519 key, or when anyone
    /// but its owner may read or write it.
    [[nodiscard]] static identity load(const std::filesystem::path& file);
    /// Reads the key file, or makes it: readable by its owner only, never over a file that is there. Of several
    /// processes that call this at once, all get the key of the first. Throws io_error.
    [[nodiscard]] static identity load_or_create(const std::filesystem::path& file);

    identity(identity&&) noexcept;
    identity& operator=(identity&&) noexcept;
    ~identity();

    [[nodiscard]] const public_key& key() const noexcept { return key_; }
    [[nodiscard]] peer_id peer() const noexcept { return peer_id_of(key_); }

    /// Ed25519 of a message.
    [[nodiscard]] signature_bytes sign(std::span<const std::byte> message) const;

    struct secret;  ///< OpenSSL's key
    [[nodiscard]] const secret& get() const noexcept { return *secret_; }

 private:
    explicit identity(std::unique_ptr<secret> from);

    std::unique_ptr<secret> secret_;
    public_key key_{};
};

/// Whether a signature of a message was made with the private part of a key.
[[nodiscard]] bool verify(const public_key& key, std::span<const std::byte> message, const signature_bytes& made);

}  // namespace thinwire::runtime

#endif  // THINWIRE_RUNTIME_IDENTITY_HPP
