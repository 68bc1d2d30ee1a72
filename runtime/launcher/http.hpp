#ifndef THINWIRE_LAUNCHER_HTTP_HPP
#define THINWIRE_LAUNCHER_HTTP_HPP

#include <thinwire/core/result.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
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

struct http_page {
    int status = 200;
    std::string type = "text/plain; charset=utf-8";
    std::string body;
};

/// What clients may cost a server.
struct http_server_limits {
    std::size_t connections = 64;
    std::size_t request_bytes = 8192;          ///< of a request's line and headers
    std::chrono::milliseconds patience{5000};  ///< from a connection's first moment to its last
};

/// Serves pages that change nothing: GET only, one request a connection. One thread of its own answers all. When all
/// connections are taken the oldest makes room for the newest, so that idle ones keep nobody out.
class http_server {
 public:
    /// The page of a path, called on the server's thread; status 404 for those that there are not.
    using page_source = std::function<http_page(const std::string& path)>;

    /// Listens on an IP address, with port 0 on any port. On a loopback address, requests whose Host is not an IP
    /// address or localhost are refused: no page of another site reads this one by pointing its name here. Throws
    /// launcher_error(network).
    http_server(const http_address& where, page_source pages, const http_server_limits& limits = {});
    ~http_server();
    http_server(const http_server&) = delete;
    http_server& operator=(const http_server&) = delete;

    /// Where it listens.
    [[nodiscard]] const http_address& address() const noexcept;

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
