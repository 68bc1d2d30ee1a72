#ifndef THINWIRE_RUNTIME_SRC_TLS_HPP
#define THINWIRE_RUNTIME_SRC_TLS_HPP

#include <thinwire/core/digest.hpp>
#include <thinwire/runtime/identity.hpp>

#include "identity_secret.hpp"
#include <openssl/ssl.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace thinwire::runtime {

/// What a connection is for: the protocol of a run, or being entered on the list first. The client says so in its first
/// message (ALPN, RFC 7301), so that the server knows before it looks at a key.
enum class tls_purpose : std::uint8_t { run, enrol };

/// What a side that is dialled answers to what is no TLS: the alert protocol_version. No frame begins like it, as none
/// of its type is that long, so a peer in plaintext knows whom it met.
inline constexpr std::array<std::uint8_t, 7> speaks_tls = {0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x46};

/// What all sessions of one identity share: TLS 1.3 only, X25519, Ed25519 certificates on both sides, two ciphers, no
/// tickets, no resumption, no early data. Used by one thread at a time.
class tls_context {
 public:
    /// Throws thinwire::error when OpenSSL refuses a setting.
    explicit tls_context(const identity& self);

    [[nodiscard]] const public_key& key() const noexcept { return key_; }
    [[nodiscard]] SSL_CTX* get() const noexcept { return context_.get(); }

 private:
    public_key key_;
    std::unique_ptr<SSL_CTX, openssl_free<SSL_CTX_free>> context_;
};

/// Why a session ended.
enum class tls_end : std::uint8_t {
    none,
    closed,         ///< the other side said that nothing follows
    refused_here,   ///< our objection to its key
    refused_there,  ///< it does not accept our key; to a client only the holder of the server's key can say so
    broken,         ///< what came is not TLS as it is spoken here, or was altered
};

/// One side of a TLS connection without the connection: bytes of the network go in and come out, and so do those of the
/// program. No clock, no sockets. Memory: OpenSSL's state, one record, and what was not taken out yet.
class tls_session {
 public:
    /// Why the peer with this key is not wanted; empty: it is.
    using judge = std::function<std::string(const public_key& key, tls_purpose purpose)>;

    /// The side that dials; its first bytes are ready.
    [[nodiscard]] static std::unique_ptr<tls_session> client(const tls_context& context, tls_purpose purpose,
                                                             judge objection);
    /// The side that is dialled.
    [[nodiscard]] static std::unique_ptr<tls_session> server(const tls_context& context, judge objection);

    tls_session(const tls_session&) = delete;
    tls_session& operator=(const tls_session&) = delete;

    /// Takes bytes of the network; appends what they say to `plain`. False once the session has ended.
    bool feed(std::span<const std::byte> network, std::vector<std::byte>& plain);
    /// Bytes of the program. Precondition: shaken() and no end.
    void write(std::span<const std::byte> plain);
    /// Says that nothing follows.
    void close();
    /// What is to be sent: moved out, empty when there is nothing.
    [[nodiscard]] std::vector<std::byte> take_output();
    [[nodiscard]] std::size_t pending_output() const noexcept;  ///< bytes
    [[nodiscard]] bool has_output() const noexcept { return pending_output() > 0; }

    /// Both sides have shown their keys.
    [[nodiscard]] bool shaken() const noexcept;
    [[nodiscard]] tls_end end() const noexcept { return end_; }
    /// One line; empty while there is no end.
    [[nodiscard]] const std::string& why() const noexcept { return why_; }

    /// Preconditions of these: shaken().
    [[nodiscard]] const public_key& peer() const noexcept { return peer_; }
    [[nodiscard]] tls_purpose purpose() const noexcept { return purpose_; }
    /// A value that only the two ends of this session know (RFC 8446, section 7.5).
    [[nodiscard]] digest exporter() const;

 private:
    tls_session(const tls_context& context, tls_purpose purpose, judge objection);
    void advance();
    void fail(int code);
    static int verify(X509_STORE_CTX* chain, void*);
    static int select(SSL*, const unsigned char** out, unsigned char* out_size, const unsigned char* in,
                      unsigned in_size, void*);
    friend class tls_context;

    std::unique_ptr<SSL, openssl_free<SSL_free>> ssl_;
    judge objection_;
    tls_purpose purpose_;
    std::optional<tls_purpose> asked_;  ///< server: what the client's first message says
    public_key peer_{};
    std::string refusal_;
    bool met_ = false;  ///< the other side has proven its key
    tls_end end_ = tls_end::none;
    std::string why_;
};

/// Proof of knowing an invite's secret, good for one session, one pair of keys and one run: HMAC-SHA-256 under the
/// secret's verifier.
[[nodiscard]] digest enrol_proof(const digest& verifier, const digest& exporter, const public_key& joiner,
                                 const public_key& inviter, const digest& run);

/// Compares in a time that does not depend on where they differ.
[[nodiscard]] bool equal_secrets(const digest& a, const digest& b) noexcept;

}  // namespace thinwire::runtime

#endif  // THINWIRE_RUNTIME_SRC_TLS_HPP
