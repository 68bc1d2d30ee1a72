#ifndef THINWIRE_LAUNCHER_HTTP_HPP
#define THINWIRE_LAUNCHER_HTTP_HPP

#include <thinwire/core/result.hpp>

#include "descriptor.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>

namespace thinwire::launcher {

/// "HOST:PORT" where HOST is an IPv4 address, an IPv6 address in brackets, localhost, or another name.
struct http_address {
    std::string host;  ///< without brackets; localhost is 127.0.0.1
    std::uint16_t port = 0;

    [[nodiscard]] bool numeric() const;  ///< an IP address, no name
    [[nodiscard]] bool loopback() const;
    [[nodiscard]] std::string text() const;
};
[[nodiscard]] result<http_address> parse_http_address(std::string_view text);

/// Where a server of this process may listen, as the setting `key` says. Throws launcher_error(usage) for what is no IP
/// address with a port, and for one beyond this machine unless `open`; `opens` says what sets that.
[[nodiscard]] http_address server_address(const std::string& key, const std::string& text, bool open,
                                          const std::string& opens);

/// A port that is taken, where whoever connects waits until an http_server answers.
class http_listener {
 public:
    /// On an IP address, with port 0 on any port; `key` names the setting in errors. Throws launcher_error(network).
    http_listener(http_address where, const std::string& key = "peer.status");

    [[nodiscard]] const http_address& address() const noexcept { return where_; }
    [[nodiscard]] int socket() const noexcept { return socket_.get(); }

 private:
    http_address where_;
    descriptor socket_;
};

struct http_request {
    std::string path;
    std::string last_event;  ///< the header Last-Event-ID: where a reader of a stream goes on; empty: none
};

struct http_page {
    int status = 200;
    std::string type = "text/plain; charset=utf-8";
    std::string body;
    std::string policy = "default-src 'none'; frame-ancestors 'none'";  ///< Content-Security-Policy
    /// A stream begins with this page, which has no end: what publish() is given with a greater number follows. An
    /// error of it, above all 503 when there is no room, is a page like any other.
    std::optional<std::uint64_t> stream_after{};
};

/// What clients may cost a server.
struct http_server_limits {
    std::size_t connections = 64;
    std::size_t request_bytes = 8192;                  ///< of a request's line and headers
    std::chrono::milliseconds patience{5000};          ///< from a connection's first moment to its last
    std::size_t streams = 0;                           ///< readers of streams beside the connections
    std::size_t stream_pieces = 8;                     ///< that may wait for a reader: one that is slower is dropped
    std::chrono::milliseconds stream_patience{30000};  ///< how long nothing of what waits may be taken by a reader
};

/// Serves pages that change nothing: GET only, one request a connection. One thread of its own answers all. When all
/// connections are taken the oldest makes room for the newest, so that idle ones keep nobody out. Readers of streams
/// stay; when all their places are taken the newest is refused.
class http_server {
 public:
    /// The page that is asked for, called on the server's thread; status 404 for those that there are not.
    using page_source = std::function<http_page(const http_request& request)>;

    /// On a loopback address, requests whose Host is not an IP address or localhost are refused: no page of another
    /// site reads this one by pointing its name here. Throws launcher_error(network).
    http_server(http_listener where, page_source pages, const http_server_limits& limits = {});
    ~http_server();
    http_server(const http_server&) = delete;
    http_server& operator=(const http_server&) = delete;

    /// Where it listens.
    [[nodiscard]] const http_address& address() const noexcept;

    /// Sends a piece to all readers of streams; numbers rise. Never waits for one. From any thread.
    void publish(std::uint64_t number, std::string piece);
    [[nodiscard]] std::size_t readers() const noexcept;

 private:
    class implementation;
    std::unique_ptr<implementation> impl_;
};

struct http_limits {
    std::size_t body_bytes = std::size_t{4} << 20U;
    std::chrono::milliseconds patience{3000};  ///< from the beginning to the last byte
};

/// The body of a page of status 200. The error's message says what went wrong, without bytes of the other side.
[[nodiscard]] result<std::string> http_get(const http_address& where, const std::string& path,
                                           const http_limits& limits, const std::stop_token& stop);

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_HTTP_HPP
