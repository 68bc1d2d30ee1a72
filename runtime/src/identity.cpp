#include <thinwire/core/error.hpp>

#include "identity_secret.hpp"
#include "private_file.hpp"
#include <openssl/asn1.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>

#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

namespace thinwire::runtime {

namespace {

using openssl_bio = std::unique_ptr<BIO, openssl_free<BIO_free_all>>;
using digest_context = std::unique_ptr<EVP_MD_CTX, openssl_free<EVP_MD_CTX_free>>;

constexpr std::size_t largest_key_file = 16384;

std::optional<public_key> raw_key(const EVP_PKEY* key) noexcept {
    public_key out;
    std::size_t size = out.bytes.size();
    if (key == nullptr || EVP_PKEY_get_id(key) != EVP_PKEY_ED25519 ||
        EVP_PKEY_get_raw_public_key(key, reinterpret_cast<unsigned char*>(out.bytes.data()), &size) != 1 ||
        size != out.bytes.size())
        return std::nullopt;
    return out;
}

/// Keeps OpenSSL from asking a terminal for the password of an encrypted key.
int no_password(char*, int, int, void*) {
    return -1;
}

evp_key from_pem(std::string_view pem) {
    const openssl_bio in(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
    require_openssl(in != nullptr, "read a key");
    return evp_key(PEM_read_bio_PrivateKey(in.get(), nullptr, no_password, nullptr));
}

std::string to_pem(EVP_PKEY* key) {
    const openssl_bio out(BIO_new(BIO_s_secmem()));
    require_openssl(
        out != nullptr && PEM_write_bio_PKCS8PrivateKey(out.get(), key, nullptr, nullptr, 0, nullptr, nullptr) == 1,
        "write a key");
    char* begin = nullptr;
    const long size = BIO_get_mem_data(out.get(), &begin);
    return {begin, static_cast<std::size_t>(size)};
}

}  // namespace

std::string openssl_reason() {
    const unsigned long code = ERR_get_error();
    ERR_clear_error();
    const char* reason = ERR_reason_error_string(code);
    return reason == nullptr ? "unknown reason" : reason;
}

void require_openssl(bool holds, const char* operation) {
    if (!holds) throw thinwire::error(std::string("OpenSSL: ") + operation + ": " + openssl_reason());
}

std::optional<public_key> key_of(X509* certificate) noexcept {
    return certificate == nullptr ? std::nullopt : raw_key(X509_get0_pubkey(certificate));
}

x509_certificate certificate_of(const identity& self) {
    EVP_PKEY* const key = self.get().key.get();
    x509_certificate made(X509_new());
    require_openssl(made != nullptr, "make a certificate");
    X509_NAME* const name = X509_get_subject_name(made.get());
    const bool filled =
        X509_set_version(made.get(), 2) == 1 && ASN1_INTEGER_set(X509_get_serialNumber(made.get()), 1) == 1 &&
        ASN1_TIME_set_string_X509(X509_getm_notBefore(made.get()), "19700101000000Z") == 1 &&
        ASN1_TIME_set_string_X509(X509_getm_notAfter(made.get()), "99991231235959Z") == 1 &&
        X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>("thinwire"), -1, -1,
                                   0) == 1 &&
        X509_set_issuer_name(made.get(), name) == 1 && X509_set_pubkey(made.get(), key) == 1 &&
        X509_sign(made.get(), key, nullptr) > 0;
    require_openssl(filled, "make a certificate");
    return made;
}

identity::identity(std::unique_ptr<secret> from) : secret_(std::move(from)) {
    const auto key = raw_key(secret_->key.get());
    require_openssl(key.has_value(), "take the public part of a key");
    key_ = *key;
}
identity::identity(identity&&) noexcept = default;
identity& identity::operator=(identity&&) noexcept = default;
identity::~identity() = default;

identity identity::make() {
    evp_key key(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
    require_openssl(key != nullptr, "make a key");
    return identity(std::make_unique<secret>(secret{std::move(key)}));
}

identity identity::load(const std::filesystem::path& file) {
    std::optional<std::string> found = read_private_file(file, largest_key_file);
    if (!found) throw io_error("read '" + file.string() + "': no such file");
    std::string pem = std::move(*found);
    evp_key key = from_pem(pem);
    OPENSSL_cleanse(pem.data(), pem.size());
    ERR_clear_error();
    if (!raw_key(key.get()))
        throw io_error("'" + file.string() +
                       "' holds no Ed25519 private key in PEM, expected the one that thinwire wrote");
    return identity(std::make_unique<secret>(secret{std::move(key)}));
}

signature_bytes identity::sign(std::span<const std::byte> message) const {
    const digest_context context(EVP_MD_CTX_new());
    signature_bytes out;
    std::size_t size = out.size();
    require_openssl(context != nullptr &&
                        EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr, secret_->key.get()) == 1 &&
                        EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(out.data()), &size,
                                       reinterpret_cast<const unsigned char*>(message.data()), message.size()) == 1,
                    "sign");
    return out;
}

bool verify(const public_key& key, std::span<const std::byte> message, const signature_bytes& made) {
    const evp_key raw(EVP_PKEY_new_raw_public_key(
        EVP_PKEY_ED25519, nullptr, reinterpret_cast<const unsigned char*>(key.bytes.data()), key.bytes.size()));
    const digest_context context(EVP_MD_CTX_new());
    const bool holds = raw != nullptr && context != nullptr &&
                       EVP_DigestVerifyInit(context.get(), nullptr, nullptr, nullptr, raw.get()) == 1 &&
                       EVP_DigestVerify(context.get(), reinterpret_cast<const unsigned char*>(made.data()), made.size(),
                                        reinterpret_cast<const unsigned char*>(message.data()), message.size()) == 1;
    ERR_clear_error();
    return holds;
}

identity identity::load_or_create(const std::filesystem::path& file) {
    std::error_code problem;
    const std::filesystem::file_status found = std::filesystem::symlink_status(file, problem);
    if (found.type() == std::filesystem::file_type::none)
        throw io_error("look for '" + file.string() + "': " + problem.message());
    if (std::filesystem::exists(found)) return load(file);
    identity fresh = make();
    std::string pem = to_pem(fresh.get().key.get());
    const bool created = create_private_file(file, pem);
    OPENSSL_cleanse(pem.data(), pem.size());
    return created ? std::move(fresh) : load(file);
}

}  // namespace thinwire::runtime
