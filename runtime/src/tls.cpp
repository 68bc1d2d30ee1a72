#include "tls.hpp"

#include <thinwire/core/error.hpp>
#include <thinwire/runtime/invite.hpp>

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <openssl/x509_vfy.h>

#include <algorithm>
#include <array>
#include <exception>
#include <string_view>
#include <utility>

namespace thinwire::runtime {

namespace {

constexpr long largest_certificate = 2048;  ///< ours have about 300 bytes
constexpr std::string_view ciphers = "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256";
constexpr std::string_view exporter_label = "EXPORTER-thinwire-1";

constexpr std::string_view protocol_name(tls_purpose purpose) {
    return purpose == tls_purpose::run ? "thinwire/1" : "thinwire-enrol/1";
}

unsigned char* raw(std::byte* bytes) {
    return reinterpret_cast<unsigned char*>(bytes);
}

/// An alert about our key, as verify() on the other side sends it.
bool says_unknown_key(unsigned long code) {
    return ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) == SSL_R_TLSV1_ALERT_UNKNOWN_CA;
}

}  // namespace

tls_context::tls_context(const identity& self) : key_(self.key()), context_(SSL_CTX_new(TLS_method())) {
    require_openssl(context_ != nullptr, "make a context");
    SSL_CTX* const c = context_.get();
    const x509_certificate certificate = certificate_of(self);
    const bool set =
        SSL_CTX_set_min_proto_version(c, TLS1_3_VERSION) == 1 &&
        SSL_CTX_set_max_proto_version(c, TLS1_3_VERSION) == 1 && SSL_CTX_set_ciphersuites(c, ciphers.data()) == 1 &&
        SSL_CTX_set1_groups_list(c, "X25519") == 1 && SSL_CTX_set1_sigalgs_list(c, "ed25519") == 1 &&
        SSL_CTX_use_certificate(c, certificate.get()) == 1 && SSL_CTX_use_PrivateKey(c, self.get().key.get()) == 1 &&
        SSL_CTX_set_num_tickets(c, 0) == 1 && SSL_CTX_set_max_early_data(c, 0) == 1;
    require_openssl(set, "set up a context");
    SSL_CTX_set_options(c, SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_AUTO_RETRY);
    SSL_CTX_set_read_ahead(c, 0);
    SSL_CTX_set_max_cert_list(c, largest_certificate);
    SSL_CTX_set_verify(c, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
    SSL_CTX_set_cert_verify_callback(c, tls_session::verify, nullptr);
    SSL_CTX_set_alpn_select_cb(c, tls_session::select, nullptr);
}

tls_session::tls_session(const tls_context& context, tls_purpose purpose, judge objection)
    : ssl_(SSL_new(context.get())), objection_(std::move(objection)), purpose_(purpose) {
    require_openssl(ssl_ != nullptr, "make a session");
    BIO* const in = BIO_new(BIO_s_mem());
    BIO* const out = BIO_new(BIO_s_mem());
    SSL_set_bio(ssl_.get(), in, out);  // owns both from here on
    require_openssl(in != nullptr && out != nullptr, "make a session");
    BIO_set_mem_eof_return(in, -1);
    BIO_set_mem_eof_return(out, -1);
    SSL_set_app_data(ssl_.get(), this);
}

std::unique_ptr<tls_session> tls_session::client(const tls_context& context, tls_purpose purpose, judge objection) {
    std::unique_ptr<tls_session> session(new tls_session(context, purpose, std::move(objection)));
    const std::string_view name = protocol_name(purpose);
    std::vector<unsigned char> list = {static_cast<unsigned char>(name.size())};
    list.insert(list.end(), name.begin(), name.end());
    require_openssl(SSL_set_alpn_protos(session->ssl_.get(), list.data(), static_cast<unsigned>(list.size())) == 0,
                    "name the protocol");
    SSL_set_connect_state(session->ssl_.get());
    session->advance();
    return session;
}

std::unique_ptr<tls_session> tls_session::server(const tls_context& context, judge objection) {
    std::unique_ptr<tls_session> session(new tls_session(context, tls_purpose::run, std::move(objection)));
    SSL_set_accept_state(session->ssl_.get());
    return session;
}

/// Server: the first of the names that the client offers and we know.
int tls_session::select(SSL* ssl, const unsigned char** out, unsigned char* out_size, const unsigned char* in,
                        unsigned in_size, void*) {
    auto& session = *static_cast<tls_session*>(SSL_get_app_data(ssl));
    const std::string_view offered(reinterpret_cast<const char*>(in), in_size);
    for (std::size_t at = 0; at < offered.size(); at += 1 + static_cast<unsigned char>(offered[at])) {
        const std::string_view name = offered.substr(at + 1, static_cast<unsigned char>(offered[at]));
        for (const tls_purpose purpose : {tls_purpose::run, tls_purpose::enrol}) {
            if (name != protocol_name(purpose)) continue;
            session.asked_ = purpose;
            *out = in + at + 1;
            *out_size = static_cast<unsigned char>(name.size());
            return SSL_TLSEXT_ERR_OK;
        }
    }
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/// The only check of a certificate: its key. That the other side has the private one, TLS proves next.
int tls_session::verify(X509_STORE_CTX* chain, void*) {
    auto* const ssl = static_cast<SSL*>(X509_STORE_CTX_get_ex_data(chain, SSL_get_ex_data_X509_STORE_CTX_idx()));
    auto& session = *static_cast<tls_session*>(SSL_get_app_data(ssl));
    const std::optional<public_key> key = key_of(X509_STORE_CTX_get0_cert(chain));
    if (!key) {
        session.refusal_ = "its certificate holds no Ed25519 key";
        X509_STORE_CTX_set_error(chain, X509_V_ERR_EE_KEY_TOO_SMALL);
        return 0;
    }
    if (SSL_is_server(ssl) != 0) {
        if (!session.asked_) {
            session.refusal_ = "it names no protocol";
            X509_STORE_CTX_set_error(chain, X509_V_ERR_APPLICATION_VERIFICATION);
            return 0;
        }
        session.purpose_ = *session.asked_;
    }
    session.peer_ = *key;
    try {
        session.refusal_ = session.objection_(*key, session.purpose_);
    } catch (const std::exception& problem) {  // may not pass through OpenSSL
        session.refusal_ = std::string("cannot decide about its key: ") + problem.what();
    }
    if (session.refusal_.empty()) return 1;
    X509_STORE_CTX_set_error(chain, X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY);  // sent as the alert unknown_ca
    return 0;
}

bool tls_session::shaken() const noexcept {
    return SSL_is_init_finished(ssl_.get()) == 1;
}

void tls_session::advance() {
    ERR_clear_error();
    if (const int code = SSL_do_handshake(ssl_.get()); code != 1) return fail(code);
    met_ = true;
    if (SSL_is_server(ssl_.get()) == 0) {
        // A server that does not answer the offer is none of ours.
        const unsigned char* name = nullptr;
        unsigned size = 0;
        SSL_get0_alpn_selected(ssl_.get(), &name, &size);
        if (std::string_view(reinterpret_cast<const char*>(name), size) == protocol_name(purpose_)) return;
        end_ = tls_end::broken;
        why_ = "TLS: it speaks another protocol than thinwire";
    }
}

void tls_session::fail(int code) {
    const int kind = SSL_get_error(ssl_.get(), code);
    if (kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE) return;
    if (kind == SSL_ERROR_ZERO_RETURN) {
        end_ = tls_end::closed;
        why_ = "the connection was closed by the other side";
        return;
    }
    const unsigned long first = ERR_peek_error();
    if (!refusal_.empty()) {
        end_ = tls_end::refused_here;
        why_ = refusal_;
        ERR_clear_error();
    } else if (says_unknown_key(first) && (met_ || SSL_is_server(ssl_.get()) != 0)) {
        // A client has met its server by the time that its own key is looked at; before, anyone on the path may say so.
        end_ = tls_end::refused_there;
        why_ = "it does not know this key";
        ERR_clear_error();
    } else {
        // OpenSSL says nothing to a client that does not speak TLS, which may be a peer in plaintext.
        if (SSL_is_server(ssl_.get()) != 0 && ERR_GET_REASON(first) == SSL_R_WRONG_VERSION_NUMBER && !has_output())
            BIO_write(SSL_get_wbio(ssl_.get()), speaks_tls.data(), static_cast<int>(speaks_tls.size()));
        end_ = tls_end::broken;
        why_ = "TLS: " + openssl_reason();
    }
}

bool tls_session::feed(std::span<const std::byte> network, std::vector<std::byte>& plain) {
    if (end_ != tls_end::none) return false;
    if (!network.empty() &&
        BIO_write(SSL_get_rbio(ssl_.get()), network.data(), static_cast<int>(network.size())) <= 0) {
        end_ = tls_end::broken;
        why_ = "TLS: no memory";
        return false;
    }
    if (!shaken()) advance();
    constexpr std::size_t record = 16384;
    while (end_ == tls_end::none && shaken()) {
        const std::size_t before = plain.size();
        // No more than what is waiting, so that a stranger's few bytes do not take a whole record's room.
        const std::size_t waiting =
            BIO_ctrl_pending(SSL_get_rbio(ssl_.get())) + static_cast<std::size_t>(SSL_pending(ssl_.get()));
        if (waiting == 0) break;
        plain.resize(before + std::min(record, waiting));
        ERR_clear_error();
        const int n = SSL_read(ssl_.get(), plain.data() + before, static_cast<int>(plain.size() - before));
        plain.resize(before + static_cast<std::size_t>(std::max(n, 0)));
        if (n > 0) continue;
        fail(n);
        break;
    }
    return end_ == tls_end::none;
}

void tls_session::write(std::span<const std::byte> plain) {
    while (!plain.empty() && end_ == tls_end::none) {
        const std::size_t piece = std::min(plain.size(), std::size_t{1} << 20U);
        ERR_clear_error();
        const int n = SSL_write(ssl_.get(), plain.data(), static_cast<int>(piece));
        if (n <= 0) {
            fail(n);
            if (end_ == tls_end::none) end_ = tls_end::broken, why_ = "TLS: cannot write";
            return;
        }
        plain = plain.subspan(static_cast<std::size_t>(n));
    }
}

void tls_session::close() {
    ERR_clear_error();
    if (end_ == tls_end::none && shaken()) (void)SSL_shutdown(ssl_.get());
    ERR_clear_error();
}

std::size_t tls_session::pending_output() const noexcept {
    return BIO_ctrl_pending(SSL_get_wbio(ssl_.get()));
}

std::vector<std::byte> tls_session::take_output() {
    BIO* const out = SSL_get_wbio(ssl_.get());
    char* begin = nullptr;
    const long size = BIO_get_mem_data(out, &begin);
    const auto bytes = std::as_bytes(std::span(begin, static_cast<std::size_t>(std::max(size, 0L))));
    std::vector<std::byte> taken(bytes.begin(), bytes.end());
    (void)BIO_reset(out);
    return taken;
}

digest tls_session::exporter() const {
    digest out;
    require_openssl(SSL_export_keying_material(ssl_.get(), raw(out.bytes.data()), out.bytes.size(),
                                               exporter_label.data(), exporter_label.size(), nullptr, 0, 0) == 1,
                    "export a value of the session");
    return out;
}

digest enrol_proof(const digest& verifier, const digest& exporter, const public_key& joiner, const public_key& inviter,
                   const digest& run) {
    std::array<std::byte, 128> bound{};
    auto at = bound.begin();
    for (const auto* part : {&exporter.bytes, &joiner.bytes, &inviter.bytes, &run.bytes})
        at = std::copy(part->begin(), part->end(), at);
    digest out;
    unsigned size = 0;
    const unsigned char* const made = HMAC(EVP_sha256(), verifier.bytes.data(), static_cast<int>(verifier.bytes.size()),
                                           raw(bound.data()), bound.size(), raw(out.bytes.data()), &size);
    require_openssl(made != nullptr && size == out.bytes.size(), "prove a secret");
    return out;
}

bool equal_secrets(const digest& a, const digest& b) noexcept {
    return CRYPTO_memcmp(a.bytes.data(), b.bytes.data(), a.bytes.size()) == 0;
}

invite_secret invite_secret::draw() {
    invite_secret out;
    require_openssl(RAND_bytes(raw(out.bytes.data()), static_cast<int>(out.bytes.size())) == 1, "draw random bytes");
    return out;
}

}  // namespace thinwire::runtime
