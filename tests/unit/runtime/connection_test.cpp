// A connection that was let in, and a member at its other end that keeps to TLS but not to manners.
#include "connection.hpp"

#include "unit/runtime/fixture.hpp"
#include <asio/io_context.hpp>
#include <asio/write.hpp>
#include <doctest/doctest.h>
#include <openssl/err.h>

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

using namespace thinwire;
using namespace thinwire::runtime;
using asio::ip::tcp;

namespace {

struct listening_owner final : connection_owner {
    std::string broken;
    std::size_t received_bytes = 0;
    void on_message(link_id, message) override {}
    void on_broken(link_id, const std::string& why) override { broken = why; }
    void on_other_security(link_id) override { broken = "TLS"; }
    void on_closed(link_id, const std::string& why) override { broken = "closed: " + why; }
    void on_bytes(connection&, std::size_t, std::size_t received) override { received_bytes += received; }
    void on_finished(link_id) override {}
};

/// OpenSSL itself as the member, in memory.
class member_session {
 public:
    explicit member_session(const identity& self) : context_(SSL_CTX_new(TLS_method())) {
        SSL_CTX_use_certificate(context_.get(), certificate_of(self).get());
        SSL_CTX_use_PrivateKey(context_.get(), self.get().key.get());
        const std::string name = "\x0athinwire/1";
        SSL_CTX_set_alpn_protos(context_.get(), reinterpret_cast<const unsigned char*>(name.data()),
                                static_cast<unsigned>(name.size()));
        ssl_.reset(SSL_new(context_.get()));
        SSL_set_bio(ssl_.get(), BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
        SSL_set_connect_state(ssl_.get());
    }
    void shake(tls_session& other) {
        std::vector<std::byte> ignored;
        for (int turn = 0; turn < 4; ++turn) {
            (void)SSL_do_handshake(ssl_.get());
            ERR_clear_error();
            other.feed(take(), ignored);
            const std::vector<std::byte> answer = other.take_output();
            if (!answer.empty()) BIO_write(SSL_get_rbio(ssl_.get()), answer.data(), static_cast<int>(answer.size()));
        }
    }
    /// New keys of its own, and the wish that the other side make new ones too.
    std::vector<std::byte> key_update() {
        REQUIRE(SSL_key_update(ssl_.get(), SSL_KEY_UPDATE_REQUESTED) == 1);
        REQUIRE(SSL_do_handshake(ssl_.get()) == 1);
        return take();
    }

 private:
    std::vector<std::byte> take() {
        std::vector<std::byte> said(BIO_ctrl_pending(SSL_get_wbio(ssl_.get())));
        if (!said.empty()) BIO_read(SSL_get_wbio(ssl_.get()), said.data(), static_cast<int>(said.size()));
        return said;
    }
    std::unique_ptr<SSL_CTX, openssl_free<SSL_CTX_free>> context_;
    std::unique_ptr<SSL, openssl_free<SSL_free>> ssl_;
};

}  // namespace

TEST_CASE("connection: a peer that asks for new keys without end and reads no answer is broken") {
    asio::io_context io;
    tcp::acceptor acceptor(io, {asio::ip::address_v4::loopback(), 0});
    tcp::socket far(io, tcp::v4());
    far.set_option(asio::socket_base::receive_buffer_size(4096));
    far.connect(acceptor.local_endpoint());
    tcp::socket near = acceptor.accept();
    near.set_option(asio::socket_base::send_buffer_size(4096));

    const identity host = identity::make(), guest = identity::make();
    const tls_context context(host);
    auto session = tls_session::server(context, [](const public_key&, tls_purpose) { return std::string(); });
    member_session member(guest);
    member.shake(*session);
    REQUIRE(session->shaken());

    listening_owner owner;
    const auto c = std::make_shared<connection>(channel{std::move(near), std::move(session), 0, 0}, 1, wire_limits{},
                                                std::size_t{64} << 20U, owner);
    c->start({message_type::ping});
    REQUIRE(c->send(std::vector<std::byte>(std::size_t{8} << 20U)));  // more than the system takes

    std::size_t asked = 0;
    constexpr std::size_t most = 200000;  // bytes; the answers have as many
    while (owner.broken.empty() && asked < most) {
        const std::vector<std::byte> question = member.key_update();
        asio::write(far, asio::buffer(question));
        asked += question.size();
        while (owner.broken.empty() && owner.received_bytes < asked) {
            io.restart();
            REQUIRE(io.run_one_for(std::chrono::seconds(60)) > 0);
        }
    }
    CHECK(owner.broken == "it asks and does not read");
    CHECK(asked > 60000);
    CHECK(asked < 100000);
    c->abort();
    io.restart();
    (void)io.poll();
}
