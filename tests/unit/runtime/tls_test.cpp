#include "tls.hpp"

#include <thinwire/core/random.hpp>

#include "unit/runtime/fixture.hpp"
#include <doctest/doctest.h>
#include <openssl/err.h>

#include <algorithm>
#include <string>
#include <vector>

using namespace thinwire;
using namespace thinwire::runtime;
using runtime_fixture::bytes_of;

namespace {

const auto welcome = [](const public_key&, tls_purpose) { return std::string(); };

struct pair_of_sessions {
    identity one = identity::make(), two = identity::make();
    tls_context dialling{one}, dialled{two};
    std::unique_ptr<tls_session> client, server;
    std::vector<std::byte> client_heard, server_heard;

    explicit pair_of_sessions(tls_session::judge by_client = welcome, tls_session::judge by_server = welcome,
                              tls_purpose purpose = tls_purpose::run)
        : client(tls_session::client(dialling, purpose, std::move(by_client))),
          server(tls_session::server(dialled, std::move(by_server))) {}

    /// Carries bytes over, `bite` at a time, until neither side has more to say.
    void talk(std::size_t bite = 100000) {
        while (client->has_output() || server->has_output()) {
            carry(*client, *server, server_heard, bite);
            carry(*server, *client, client_heard, bite);
        }
    }
    static void carry(tls_session& from, tls_session& to, std::vector<std::byte>& heard, std::size_t bite) {
        const std::vector<std::byte> bytes = from.take_output();
        for (std::size_t at = 0; at < bytes.size(); at += bite)
            to.feed(std::span(bytes).subspan(at, std::min(bite, bytes.size() - at)), heard);
    }
};

/// An OpenSSL client or server as others make them.
struct foreign {
    std::unique_ptr<SSL_CTX, openssl_free<SSL_CTX_free>> context{SSL_CTX_new(TLS_method())};
    std::unique_ptr<SSL, openssl_free<SSL_free>> ssl;

    void begin(bool client) {
        ssl.reset(SSL_new(context.get()));
        SSL_set_bio(ssl.get(), BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
        client ? SSL_set_connect_state(ssl.get()) : SSL_set_accept_state(ssl.get());
    }
    void use(const identity& self) const {
        SSL_CTX_use_certificate(context.get(), certificate_of(self).get());
        SSL_CTX_use_PrivateKey(context.get(), self.get().key.get());
    }
    void name(std::string_view protocol) const {
        std::string list(1, static_cast<char>(protocol.size()));
        list += protocol;
        SSL_CTX_set_alpn_protos(context.get(), reinterpret_cast<const unsigned char*>(list.data()),
                                static_cast<unsigned>(list.size()));
    }
    /// Shakes hands with `other` as far as both go.
    void shake(tls_session& other) const {
        std::vector<std::byte> ignored;
        for (int turn = 0; turn < 10; ++turn) {
            (void)SSL_do_handshake(ssl.get());
            ERR_clear_error();
            char* begin = nullptr;
            const long size = BIO_get_mem_data(SSL_get_wbio(ssl.get()), &begin);
            const auto said = std::as_bytes(std::span(begin, static_cast<std::size_t>(size)));
            other.feed(std::vector(said.begin(), said.end()), ignored);
            (void)BIO_reset(SSL_get_wbio(ssl.get()));
            const std::vector<std::byte> answer = other.take_output();
            if (!answer.empty()) BIO_write(SSL_get_rbio(ssl.get()), answer.data(), static_cast<int>(answer.size()));
        }
    }
};

}  // namespace

TEST_CASE("tls: two that know each other agree on keys and a secret, and talk") {
    for (const std::size_t bite : {std::size_t{1}, std::size_t{100}, std::size_t{100000}}) {
        pair_of_sessions p;
        p.talk(bite);
        REQUIRE(p.client->shaken());
        REQUIRE(p.server->shaken());
        CHECK(p.client->peer() == p.two.key());
        CHECK(p.server->peer() == p.one.key());
        CHECK(p.server->purpose() == tls_purpose::run);
        CHECK(p.client->exporter() == p.server->exporter());
        CHECK(p.client->exporter() != digest{});
        random_stream random(1);
        std::vector<std::byte> large(bite == 1 ? 40000 : 3000000);
        for (std::byte& b : large) b = static_cast<std::byte>(random.below(256));
        p.client->write(large);
        p.server->write(bytes_of("short"));
        p.talk(bite);
        CHECK(p.server_heard == large);
        CHECK(p.client_heard == bytes_of("short"));
        p.client->close();
        p.talk();
        CHECK(p.server->end() == tls_end::closed);
        CHECK(p.client->end() == tls_end::none);
    }
    pair_of_sessions other;
    other.talk();
    pair_of_sessions third;
    third.talk();
    CHECK(other.client->exporter() != third.client->exporter());
}

TEST_CASE("tls: what is spoken is TLS 1.3 with the fixed cipher, without tickets") {
    pair_of_sessions p;
    foreign f;
    f.use(p.one);
    f.name("thinwire/1");
    SSL_CTX_set_ciphersuites(f.context.get(),
                             "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256");
    f.begin(true);
    f.shake(*p.server);
    REQUIRE(p.server->shaken());
    CHECK(SSL_version(f.ssl.get()) == TLS1_3_VERSION);
    CHECK(std::string(SSL_get_cipher_name(f.ssl.get())) == "TLS_AES_128_GCM_SHA256");
    CHECK_FALSE(p.server->has_output());
    CHECK(SSL_SESSION_is_resumable(SSL_get_session(f.ssl.get())) == 0);
    CHECK(SSL_renegotiate(f.ssl.get()) == 0);
}

TEST_CASE("tls: a key that is not wanted is refused on both sides, each saying why") {
    std::vector<public_key> asked;
    pair_of_sessions p(welcome, [&](const public_key& key, tls_purpose) {
        asked.push_back(key);
        return std::string("not on the list");
    });
    p.talk();
    CHECK(asked == std::vector{p.one.key()});
    CHECK(p.server->end() == tls_end::refused_here);
    CHECK(p.server->why() == "not on the list");
    CHECK(p.client->end() == tls_end::refused_there);
    CHECK(p.client->why() == "it does not know this key");

    pair_of_sessions q([](const public_key&, tls_purpose) { return std::string("another key"); });
    q.talk();
    CHECK(q.client->end() == tls_end::refused_here);
    CHECK(q.client->why() == "another key");
    CHECK(q.server->end() == tls_end::refused_there);
    CHECK_FALSE(q.server->shaken());

    pair_of_sessions r(welcome, [](const public_key&, tls_purpose) -> std::string { throw io_error("no list"); });
    r.talk();
    CHECK(r.server->end() == tls_end::refused_here);
    CHECK(r.server->why() == "cannot decide about its key: no list");
}

TEST_CASE("tls: the server knows what a connection is for before it is asked about the key") {
    std::vector<tls_purpose> asked;
    pair_of_sessions p(
        welcome,
        [&](const public_key&, tls_purpose purpose) {
            asked.push_back(purpose);
            return std::string();
        },
        tls_purpose::enrol);
    p.talk();
    CHECK(asked == std::vector{tls_purpose::enrol});
    CHECK(p.server->purpose() == tls_purpose::enrol);
}

TEST_CASE("tls: clients that speak something else are refused") {
    pair_of_sessions p;
    foreign f;
    bool with_key = true;
    std::string_view protocol = "thinwire/1";
    std::string expected;
    SUBCASE("TLS 1.2") {
        SSL_CTX_set_max_proto_version(f.context.get(), TLS1_2_VERSION);
        expected = "unsupported protocol";
    }
    SUBCASE("another cipher") {
        SSL_CTX_set_ciphersuites(f.context.get(), "TLS_AES_256_GCM_SHA384");
        expected = "no shared cipher";
    }
    SUBCASE("another group") {
        SSL_CTX_set1_groups_list(f.context.get(), "P-256");
        expected = "no suitable key share";
    }
    SUBCASE("no key") {
        with_key = false;
        expected = "peer did not return a certificate";
    }
    SUBCASE("another protocol") {
        protocol = "h2";
        expected = "no application protocol";
    }
    SUBCASE("no protocol") {
        protocol = "";
        expected = "it names no protocol";
    }
    if (with_key) f.use(p.one);
    if (!protocol.empty()) f.name(protocol);
    f.begin(true);
    f.shake(*p.server);
    CHECK_FALSE(p.server->shaken());
    CHECK(p.server->end() != tls_end::none);
    CHECK_MESSAGE(p.server->why().find(expected) != std::string::npos, p.server->why());
}

TEST_CASE("tls: servers that speak something else are refused") {
    pair_of_sessions p;
    foreign f;
    f.use(p.two);
    std::string expected = "another protocol";
    SUBCASE("TLS 1.2") {
        SSL_CTX_set_max_proto_version(f.context.get(), TLS1_2_VERSION);
        expected = "TLS: ";
    }
    SUBCASE("no protocol chosen") {}
    f.begin(false);
    f.shake(*p.client);
    CHECK(p.client->end() == tls_end::broken);
    CHECK_MESSAGE(p.client->why().find(expected) != std::string::npos, p.client->why());
}

TEST_CASE("tls: a certificate with another kind of key is refused") {
    pair_of_sessions p;
    const evp_key key(EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256"));
    const x509_certificate certificate(X509_new());
    ASN1_INTEGER_set(X509_get_serialNumber(certificate.get()), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate.get()), 0);
    X509_gmtime_adj(X509_getm_notAfter(certificate.get()), 3600);
    X509_set_pubkey(certificate.get(), key.get());
    REQUIRE(X509_sign(certificate.get(), key.get(), EVP_sha256()) > 0);
    foreign f;
    SSL_CTX_use_certificate(f.context.get(), certificate.get());
    SSL_CTX_use_PrivateKey(f.context.get(), key.get());
    f.name("thinwire/1");
    f.begin(true);
    f.shake(*p.server);
    CHECK_FALSE(p.server->shaken());
    CHECK(p.server->end() != tls_end::none);
}

TEST_CASE("tls: what is no TLS ends the session and nothing else") {
    random_stream random(2);
    std::string noise(5000, '\0');
    for (char& c : noise) c = static_cast<char>(random.below(256));
    for (const std::string& words :
         {std::string("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), std::string(200, '\0'), std::string(200, '\xff'),
          noise, std::string("TWIR and more words in plaintext"), std::string("\x15\x03\x01\x00\x02\x02\x28", 7)}) {
        pair_of_sessions p;
        CHECK_FALSE(p.server->feed(bytes_of(words), p.server_heard));
        CHECK(p.server->end() == tls_end::broken);
        CHECK(p.server->why().starts_with("TLS: "));
        CHECK_FALSE(p.client->feed(bytes_of(words), p.client_heard));
        CHECK(p.client->end() == tls_end::broken);
        CHECK_FALSE(p.client->feed(bytes_of("more"), p.client_heard));
        CHECK(p.client_heard.empty());
        CHECK(p.server_heard.empty());
    }
}

TEST_CASE("tls: nobody but the server itself tells a client that its key is not known") {
    const std::vector<std::byte> alert = bytes_of(std::string("\x15\x03\x03\x00\x02\x02\x30", 7));
    pair_of_sessions p;
    CHECK_FALSE(p.client->feed(alert, p.client_heard));
    CHECK(p.client->end() == tls_end::broken);
    // Who is on the path may wait for the server's hello, too.
    pair_of_sessions q;
    q.server->feed(q.client->take_output(), q.server_heard);
    std::vector<std::byte> flight = q.server->take_output();
    flight.resize(5 + (std::to_integer<std::size_t>(flight[3]) << 8U) + std::to_integer<std::size_t>(flight[4]));
    q.client->feed(flight, q.client_heard);
    CHECK_FALSE(q.client->feed(alert, q.client_heard));
    CHECK(q.client->end() == tls_end::broken);
}

TEST_CASE("tls: no altered, repeated or dropped record is taken for a message") {
    random_stream random(3);
    for (int i = 0; i < 200; ++i) {
        pair_of_sessions p;
        p.talk();
        p.client->write(bytes_of("the first words"));
        std::vector<std::byte> first = p.client->take_output();
        p.client->write(bytes_of("and the second"));
        const std::vector<std::byte> second = p.client->take_output();
        if (i == 0) {  // repeated
            CHECK(p.server->feed(first, p.server_heard));
            CHECK_FALSE(p.server->feed(first, p.server_heard));
            CHECK(p.server_heard == bytes_of("the first words"));
        } else if (i == 1) {  // dropped
            CHECK_FALSE(p.server->feed(second, p.server_heard));
            CHECK(p.server_heard.empty());
        } else {
            const std::size_t at = random.below(first.size());
            first[at] ^= static_cast<std::byte>(1U << random.below(8));
            p.server->feed(first, p.server_heard);
            p.server->feed(second, p.server_heard);
            CHECK(p.server_heard.empty());
        }
    }
}

TEST_CASE("tls: random bytes after a random part of a handshake never get in") {
    random_stream random(4);
    for (int i = 0; i < 500; ++i) {
        pair_of_sessions p;
        std::vector<std::byte> flight = p.client->take_output();
        if (random.below(2) == 0) {
            p.server->feed(flight, p.server_heard);
            p.client->feed(p.server->take_output(), p.client_heard);
            flight = p.client->take_output();
        }
        flight.resize(random.below(flight.size()));
        for (std::uint64_t n = random.below(300) + 1; n > 0; --n)
            flight.push_back(static_cast<std::byte>(random.below(256)));
        p.server->feed(flight, p.server_heard);
        CHECK_FALSE(p.server->shaken());
        CHECK(p.server_heard.empty());
    }
}

TEST_CASE("tls: a proof of an invite is good for one secret, session, pair of keys and run") {
    const auto some = [](const char* text) { return sha256{}.update(text).finish(); };
    const public_key a{some("a").bytes}, b{some("b").bytes};
    const digest proof = enrol_proof(some("secret"), some("session"), a, b, some("run"));
    CHECK(equal_secrets(proof, enrol_proof(some("secret"), some("session"), a, b, some("run"))));
    CHECK_FALSE(equal_secrets(proof, enrol_proof(some("other"), some("session"), a, b, some("run"))));
    CHECK_FALSE(equal_secrets(proof, enrol_proof(some("secret"), some("other"), a, b, some("run"))));
    CHECK_FALSE(equal_secrets(proof, enrol_proof(some("secret"), some("session"), b, a, some("run"))));
    CHECK_FALSE(equal_secrets(proof, enrol_proof(some("secret"), some("session"), a, a, some("run"))));
    CHECK_FALSE(equal_secrets(proof, enrol_proof(some("secret"), some("session"), a, b, some("other"))));
    // Python: hmac.new(H(b"secret"), H(b"session") + H(b"a") + H(b"b") + H(b"run"), "sha256"), H = SHA-256
    CHECK(to_string(proof) == "a12c722fa9f1db5276ceebe99e2948b2dbc0cd5375e71c023a36b3d1a24204d7");
}
