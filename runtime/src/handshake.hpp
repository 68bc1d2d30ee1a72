#ifndef THINWIRE_RUNTIME_SRC_HANDSHAKE_HPP
#define THINWIRE_RUNTIME_SRC_HANDSHAKE_HPP

#include "tls.hpp"
#include <asio/ip/tcp.hpp>
#include <asio/steady_timer.hpp>

#include <array>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace thinwire::runtime {

/// A TCP connection whose other end is known, ready for messages.
struct channel {
    asio::ip::tcp::socket socket;
    std::unique_ptr<tls_session> tls;  ///< null: plaintext
    std::size_t sent = 0;              ///< bytes on the wire so far
    std::size_t received = 0;
    std::vector<std::byte> early{};  ///< what was said already to whom the channel goes
};

/// What is said under TLS before a connection carries messages.
struct conversation {
    std::vector<std::byte> opening{};  ///< said once both keys are known
    std::size_t awaited = 0;           ///< bytes that the other side then says
    /// Said to those bytes before the connection is closed. None: it stays open, and what follows them is for it.
    std::function<std::vector<std::byte>(std::span<const std::byte> heard)> answer{};
};

/// The server's word that the key is accepted; the client says nothing before it.
inline constexpr std::byte let_in{1};

/// From an open socket to a channel, or to the reason why not. A stranger costs one of these: at most 16 KiB received,
/// a buffer of 2 KiB, OpenSSL's state, until the deadline. Used on one thread.
class handshake : public std::enable_shared_from_this<handshake> {
 public:
    struct outcome {
        tls_end end = tls_end::none;     ///< none: it went well
        std::string why{};               ///< one line, where it did not
        std::optional<channel> open{};   ///< where it went well and no answer closed it
        std::vector<std::byte> heard{};  ///< the awaited bytes
    };
    using plan = std::function<conversation(const tls_session& session)>;

    handshake(asio::ip::tcp::socket socket, std::unique_ptr<tls_session> session, plan talk);

    /// `done` is called once; `gone` once as well, before it when the socket is handed on, after it when the socket is
    /// closed. Neither after abort(). Both on the socket's thread, never from within this call.
    void start(std::chrono::milliseconds timeout, std::function<void(outcome)> done, std::function<void()> gone);
    /// Closes at once, without a word to anyone.
    void abort();

 private:
    void step();
    void converse();
    void read();
    void write();
    void report(outcome result);
    void fail(tls_end end, std::string why);
    void close();

    asio::ip::tcp::socket socket_;
    asio::steady_timer deadline_;
    std::unique_ptr<tls_session> session_;
    plan plan_;
    std::optional<conversation> talk_;
    std::function<void(outcome)> done_;
    std::function<void()> gone_;
    std::array<std::byte, 2048> buffer_{};
    std::vector<std::byte> output_;
    std::vector<std::byte> heard_;
    std::size_t sent_ = 0;
    std::size_t received_ = 0;
    bool reported_ = false;  ///< only the end of the stream is waited for
    bool shut_ = false;
    bool closed_ = false;
};

}  // namespace thinwire::runtime

#endif  // THINWIRE_RUNTIME_SRC_HANDSHAKE_HPP
