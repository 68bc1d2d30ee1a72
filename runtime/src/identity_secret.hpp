#ifndef THINWIRE_RUNTIME_SRC_IDENTITY_SECRET_HPP
#define THINWIRE_RUNTIME_SRC_IDENTITY_SECRET_HPP

#include <thinwire/runtime/identity.hpp>

#include <openssl/evp.h>
#include <openssl/x509.h>

#include <memory>
#include <string>

namespace thinwire::runtime {

template <auto Free>
struct openssl_free {
    template <class T>
    void operator()(T* object) const noexcept {
        Free(object);
    }
};
using evp_key = std::unique_ptr<EVP_PKEY, openssl_free<EVP_PKEY_free>>;
using x509_certificate = std::unique_ptr<X509, openssl_free<X509_free>>;

struct identity::secret {
    evp_key key;
};

/// The first reason in OpenSSL's queue of errors, which is empty afterwards; "unknown reason" where there is none.
[[nodiscard]] std::string openssl_reason();

/// Throws thinwire::error with the first reason in OpenSSL's queue unless `holds`.
void require_openssl(bool holds, const char* operation);

/// The key of a certificate; nothing when it is no Ed25519 key.
[[nodiscard]] std::optional<public_key> key_of(X509* certificate) noexcept;

/// A certificate that carries the key and is signed with it. It states no name, and no date that ever passes: who is at
/// the other end is decided by the key alone.
[[nodiscard]] x509_certificate certificate_of(const identity& self);

}  // namespace thinwire::runtime

#endif  // THINWIRE_RUNTIME_SRC_IDENTITY_SECRET_HPP
