#include "http.hpp"

#include "exit_code.hpp"
#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

using namespace thinwire::launcher;
using std::chrono::milliseconds;

namespace {

const http_address any{"127.0.0.1", 0};

http_page pages(const http_request& request) {
    const std::string& path = request.path;
    if (path == "/events") {
        http_page page{.type = "text/event-stream", .body = "begin " + request.last_event + "\n"};
        page.stream_after = request.last_event.empty() ? 10 : std::stoull(request.last_event);
        return page;
    }
    if (path == "/policy") return {.body = "own\n", .policy = "default-src 'self'"};
    if (path == "/a") return {.body = "page a\n"};
    if (path == "/large") return {.body = std::string(std::size_t{8} << 20U, 'x')};
    return {.status = 404, .body = "none\n"};
}

/// A client that speaks bytes.
class client {
 public:
    explicit client(const http_address& to) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        sockaddr_in where{};
        where.sin_family = AF_INET;
        where.sin_port = htons(to.port);
        where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        REQUIRE(::connect(fd_, reinterpret_cast<const sockaddr*>(&where), sizeof where) == 0);
    }
    client(client&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    client& operator=(client&&) = delete;
    ~client() {
        if (fd_ >= 0) (void)::close(fd_);
    }

    /// False once the server has closed.
    bool send(std::string_view bytes) const {
        return ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size());
    }
    /// So many bytes, or what there is until the server closes.
    [[nodiscard]] std::string next(std::size_t bytes) const {
        std::string all(bytes, '\0');
        std::size_t had = 0;
        for (ssize_t got = 0; had < bytes && (got = ::recv(fd_, all.data() + had, bytes - had, 0)) > 0;)
            had += static_cast<std::size_t>(got);
        all.resize(had);
        return all;
    }
    /// Up to and with these words.
    [[nodiscard]] std::string until(std::string_view words) const {
        std::string all;
        while (!all.ends_with(words)) {
            const std::string one = next(1);
            if (one.empty()) return all;
            all += one;
        }
        return all;
    }
    /// Everything until the server closes.
    [[nodiscard]] std::string rest() const {
        std::string all;
        std::array<char, 4096> some{};
        for (ssize_t got = 0; (got = ::recv(fd_, some.data(), some.size(), 0)) > 0;)
            all.append(some.data(), static_cast<std::size_t>(got));
        return all;
    }

 private:
    int fd_;
};

std::string ask(const http_server& server, std::string_view request) {
    const client one(server.address());
    CHECK(one.send(request));
    return one.rest();
}

bool holds(const std::string& text, const char* part) {
    return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("addresses of a status server") {
    CHECK(parse_http_address("127.0.0.1:9400")->text() == "127.0.0.1:9400");
    CHECK(parse_http_address("localhost:0")->host == "127.0.0.1");
    CHECK(parse_http_address("[::1]:80")->text() == "[::1]:80");
    CHECK(parse_http_address("[::1]:80")->loopback());
    CHECK(parse_http_address("127.9.9.9:1")->loopback());
    CHECK(parse_http_address("[::1]:80")->numeric());
    CHECK_FALSE(parse_http_address("example.org:80")->numeric());
    for (const char* far : {"0.0.0.0:1", "10.0.0.7:1", "[::]:1", "127.evil.example:1", "example.org:1"})
        CHECK_FALSE(parse_http_address(far)->loopback());
    for (const char* bad : {"", ":", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "[::1]", "::1", ":80",
                            "a b:80", "a/b:80", "[::1:80", "\x1b[2J:1", "127.0.0.1:-1"})
        CHECK_FALSE(parse_http_address(bad));
}

TEST_CASE("a page, and what is none") {
    const http_server server(any, pages);
    const std::string page = ask(server, "GET /a HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    CHECK(page.find("HTTP/1.1 200 OK\r\n") == 0);
    for (const char* header : {"X-Content-Type-Options: nosniff\r\n", "Cache-Control: no-store\r\n",
                               "X-Frame-Options: DENY\r\n", "Connection: close\r\n", "\r\n\r\npage a\n",
                               "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n"})
        CHECK_MESSAGE(holds(page, header), header);
    CHECK(holds(ask(server, "GET /a?x=1 HTTP/1.0\r\n\r\n"), "page a"));
    CHECK(holds(ask(server, "GET /b HTTP/1.1\r\n\r\n"), " 404 "));
    CHECK(holds(ask(server, "GET /../etc/passwd HTTP/1.1\r\n\r\n"), " 404 "));
    for (const char* method : {"POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT"}) {
        const std::string answer =
            ask(server, std::string(method) + " /a HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello");
        CHECK_MESSAGE(holds(answer, "HTTP/1.1 405 "), answer);
        CHECK(holds(answer, "Allow: GET\r\n"));
    }
    CHECK_FALSE(holds(ask(server, "\x16\x03\x01 hello\r\n\r\n"), "page"));
    CHECK_FALSE(holds(ask(server, "\r\n\r\n"), "page"));
    CHECK(holds(ask(server, "GET /a HTTP/1.1\r\nRange: bytes=0-1\r\nAccept-Encoding: gzip\r\n\r\n"), "page a"));
}

TEST_CASE("another site's name in front of this machine's address is refused") {
    const http_server server(any, pages);
    CHECK(holds(ask(server, "GET /a HTTP/1.1\r\nHost: evil.example:9400\r\n\r\n"), " 421 "));
    for (const char* host : {"localhost:9400", "[::1]:9400", "127.0.0.1"})
        CHECK(holds(ask(server, "GET /a HTTP/1.1\r\nHost: " + std::string(host) + "\r\n\r\n"), "page a"));
}

TEST_CASE("requests are bounded in size") {
    const http_server server(any, pages);
    const std::string open = "GET /a HTTP/1.1\r\nX: ";
    const std::string end = "\r\n\r\n";
    const std::size_t room = http_server_limits{}.request_bytes - open.size();
    CHECK(holds(ask(server, open + std::string(room, 'x') + end), "page a"));
    CHECK(holds(ask(server, open + std::string(room + 1, 'x') + end), " 431 "));
    CHECK(holds(ask(server, open + std::string(100000, 'x')), " 431 "));
    std::string ranges = "GET /a HTTP/1.1\r\nRange: bytes=0-0";
    while (ranges.size() < 8000) ranges += ",0-0";
    CHECK(ask(server, ranges + end).find("HTTP/1.1 ") == 0);
}

TEST_CASE("clients that are slow, silent or do not read are let go of") {
    const http_server server(any, pages, {.patience = milliseconds(200)});
    CHECK(client(server.address()).rest().empty());
    const client slow(server.address());
    while (slow.send("x")) std::this_thread::sleep_for(milliseconds(5));  // its pace is what is tested
    const client deaf(server.address());
    CHECK(deaf.send("GET /large HTTP/1.1\r\n\r\n"));
    CHECK(client(server.address()).rest().empty());  // another 200 ms
    CHECK(deaf.rest().size() < std::size_t{8} << 20U);
}

TEST_CASE("nobody waits for clients that are silent or do not read") {
    const http_server server(any, pages, {.patience = std::chrono::minutes(10)});
    const client silent(server.address());
    const client deaf(server.address());
    CHECK(deaf.send("GET /large HTTP/1.1\r\n\r\n"));
    CHECK_FALSE(deaf.next(1).empty());  // its answer is under way, and stays so
    CHECK(holds(ask(server, "GET /a HTTP/1.1\r\n\r\n"), "page a"));
}

TEST_CASE("idle connections make room") {
    const http_server server(any, pages, {.connections = 8, .patience = std::chrono::minutes(10)});
    std::vector<client> idle;
    for (int i = 0; i < 100; ++i) idle.emplace_back(server.address());
    CHECK(holds(ask(server, "GET /a HTTP/1.1\r\n\r\n"), "page a"));
    CHECK(idle.front().rest().empty());
}

TEST_CASE("a port that is taken is an error with its address") {
    const http_server server(any, pages);
    try {
        const http_server second(server.address(), pages);
        FAIL("listens twice");
    } catch (const launcher_error& problem) {
        CHECK(problem.code() == exit_code::network);
        CHECK(holds(problem.what(), server.address().text().c_str()));
    }
}

TEST_CASE("the client side is bounded too") {
    auto server = std::make_unique<http_server>(any, pages);
    const http_address where = server->address();
    CHECK(*http_get(where, "/a", {}, {}) == "page a\n");
    CHECK(http_get(where, "/b", {}, {}).error().message == "answers with HTTP status 404");
    CHECK(http_get(where, "/large", {.body_bytes = 1000}, {}).error().message ==
          "no whole answer in time, or too large a one");
    CHECK(http_get(where, "/large", {.body_bytes = std::size_t{8} << 20U}, {})->size() == std::size_t{8} << 20U);
    server.reset();
    CHECK(http_get(where, "/a", {}, {}).error().message == "no answer");
}

TEST_CASE("a server that never ends its answer is given up, and at once when asked") {
    const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in where{};
    where.sin_family = AF_INET;
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof where;
    REQUIRE(::bind(listener, reinterpret_cast<const sockaddr*>(&where), size) == 0);
    REQUIRE(::listen(listener, 8) == 0);
    REQUIRE(::getsockname(listener, reinterpret_cast<sockaddr*>(&where), &size) == 0);
    std::jthread drip([&](const std::stop_token& end) {
        for (int i = 0; i < 2; ++i) {
            const int one = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
            for (std::string_view bytes = "HTTP/1.1 200 OK\r\nX: "; !end.stop_requested(); bytes = "x") {
                if (::send(one, bytes.data(), bytes.size(), MSG_NOSIGNAL) < 0) break;
                std::this_thread::sleep_for(milliseconds(2));
            }
            (void)::close(one);
        }
    });
    const http_address at{"127.0.0.1", ntohs(where.sin_port)};
    CHECK_FALSE(http_get(at, "/a", {.patience = milliseconds(200)}, {}));
    std::stop_source stop;
    stop.request_stop();
    CHECK_FALSE(http_get(at, "/a", {.patience = std::chrono::minutes(10)}, stop.get_token()));
    drip.request_stop();
    drip.join();
    (void)::close(listener);
}

TEST_CASE("a page may have a policy of its own") {
    const http_server server(any, pages);
    CHECK(holds(ask(server, "GET /policy HTTP/1.1\r\n\r\n"), "Content-Security-Policy: default-src 'self'\r\n"));
}

TEST_CASE("streams: what is published follows, in order, once, to each from where it begins") {
    http_server server(any, pages, {.streams = 8});
    const client first(server.address());
    CHECK(first.send("GET /events HTTP/1.1\r\nLast-Event-ID: 10\r\n\r\n"));
    const std::string head = first.until("begin 10\n");
    CHECK(holds(head, "HTTP/1.1 200 OK\r\n"));
    CHECK(holds(head, "Content-Type: text/event-stream\r\n"));
    CHECK_FALSE(holds(head, "Content-Length"));
    server.publish(9, "nine\n");  // before it
    server.publish(11, "eleven\n");
    server.publish(12, "twelve\n");
    CHECK(first.until("twelve\n") == "eleven\ntwelve\n");
    const client second(server.address());
    CHECK(second.send("GET /events HTTP/1.1\r\n\r\n"));
    (void)second.until("begin \n");
    server.publish(13, "thirteen\n");
    CHECK(first.until("thirteen\n") == "thirteen\n");
    CHECK(second.until("thirteen\n") == "thirteen\n");
    CHECK(server.readers() == 2);
    CHECK(holds(ask(server, "GET /a HTTP/1.1\r\n\r\n"), "page a"));
}

TEST_CASE("streams: places are bounded, those who come too late are told, those who go make room") {
    http_server server(any, pages, {.streams = 2});
    const auto reader = [&] {
        client one(server.address());
        CHECK(one.send("GET /events HTTP/1.1\r\n\r\n"));
        return one;
    };
    const client first = reader();
    (void)first.until("begin \n");
    {
        const client second = reader();
        (void)second.until("begin \n");
        const std::string refused = reader().rest();
        CHECK(holds(refused, "HTTP/1.1 503 "));
        CHECK(holds(refused, "Retry-After"));
        CHECK(server.readers() == 2);
    }
    // Its end is seen before a later connection is: the server looks at all that is ready, then accepts.
    (void)ask(server, "GET /a HTTP/1.1\r\n\r\n");
    const client third = reader();
    CHECK(holds(third.until("begin \n"), " 200 OK"));
}

TEST_CASE("streams: a reader that does not read is dropped, the others lose nothing, and memory stays") {
    http_server server(any, pages, {.streams = 8, .stream_pieces = 4});
    const client deaf(server.address()), good(server.address());
    for (const client* one : {&deaf, &good}) {
        CHECK(one->send("GET /events HTTP/1.1\r\n\r\n"));
        (void)one->until("begin \n");
    }
    const std::string piece((std::size_t{1} << 20U) - 1, 'x');
    for (std::uint64_t number = 11; number < 11 + 40; ++number) {
        server.publish(number, piece + "\n");
        CHECK(good.next(piece.size() + 1).size() == piece.size() + 1);
    }
    CHECK(server.readers() == 1);
    // What the kernel had taken of its pieces, and its end.
    CHECK(deaf.rest().size() < 40 * piece.size());
}

TEST_CASE("streams: a reader that takes nothing for long is dropped, and one with nothing to take stays") {
    http_server server(any, pages, {.patience = milliseconds(300), .streams = 8, .stream_patience = milliseconds(100)});
    const client deaf(server.address());
    CHECK(deaf.send("GET /events HTTP/1.1\r\n\r\n"));
    (void)deaf.until("begin \n");
    const client idle(server.address());
    CHECK(idle.send("GET /events HTTP/1.1\r\nLast-Event-ID: 11\r\n\r\n"));  // which the large piece is not for
    (void)idle.until("begin 11\n");
    server.publish(11, std::string(std::size_t{32} << 20U, 'x'));
    CHECK(client(server.address()).rest().empty());  // a connection that says nothing: 300 ms
    CHECK(server.readers() == 1);
    server.publish(12, "still here\n");
    CHECK(idle.until("here\n") == "still here\n");
}

TEST_CASE("streams: many readers and the end of the server") {
    auto server = std::make_unique<http_server>(any, pages, http_server_limits{.streams = 400});
    std::vector<client> readers;
    for (int i = 0; i < 300; ++i) {
        readers.emplace_back(server->address());
        CHECK(readers.back().send("GET /events HTTP/1.1\r\n\r\n"));
        (void)readers.back().until("begin \n");
    }
    server->publish(11, "all\n");
    for (const client& one : readers) CHECK(one.until("all\n") == "all\n");
    server.reset();
    for (const client& one : readers) CHECK(one.rest().empty());
}
