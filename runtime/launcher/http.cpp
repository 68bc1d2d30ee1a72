#include "http.hpp"

#include "descriptor.hpp"
#include "exit_code.hpp"
#include <arpa/inet.h>
#include <fcntl.h>
#include <httplib.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace thinwire::launcher {
namespace {

using clock = std::chrono::steady_clock;

constexpr std::chrono::seconds goodbye{1};  ///< how long an answered client may take to close its side

bool numeric(const std::string& host) {
    std::array<unsigned char, 16> bytes{};
    return ::inet_pton(AF_INET, host.c_str(), bytes.data()) == 1 ||
           ::inet_pton(AF_INET6, host.c_str(), bytes.data()) == 1;
}

/// HOST and PORT of "HOST:PORT"; the host without brackets.
std::pair<std::string, std::string> split(std::string_view text) {
    const std::size_t colon = text.rfind(':');
    const bool has_port = colon != std::string_view::npos && text.find(']', colon) == std::string_view::npos;
    std::string host(text.substr(0, has_port ? colon : text.size()));
    if (host.size() > 1 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
    return {host, std::string(has_port ? text.substr(colon + 1) : std::string_view())};
}

/// A request that is here whole, and the answer to it: no socket that could make a reader or writer wait.
class memory_stream : public httplib::Stream {
 public:
    explicit memory_stream(std::string_view in) : in_(in) {}

    [[nodiscard]] std::string take() { return std::move(out_); }

    // NOLINTBEGIN(modernize-use-override): versions of httplib differ in which of these they ask for.
    using httplib::Stream::write;
    bool is_readable() const { return true; }
    bool is_writable() const { return true; }
    ssize_t read(char* to, std::size_t size) {
        const std::size_t taken = in_.copy(to, size);
        in_.remove_prefix(taken);
        return static_cast<ssize_t>(taken);
    }
    ssize_t write(const char* from, std::size_t size) {
        out_.append(from, size);
        return static_cast<ssize_t>(size);
    }
    void get_remote_ip_and_port(std::string&, int&) const {}
    void get_local_ip_and_port(std::string&, int&) const {}
    socket_t socket() const { return INVALID_SOCKET; }
    bool wait_readable() const { return true; }
    bool wait_writable() const { return true; }
    time_t duration() const { return 0; }
    // NOLINTEND(modernize-use-override)

 private:
    std::string_view in_;
    std::string out_;
};

/// httplib reads the request and writes the answer; the sockets are ours.
class responder : public httplib::Server {
 public:
    responder(bool loopback, http_server::page_source pages) : loopback_(loopback), pages_(std::move(pages)) {
        set_default_headers({{"Cache-Control", "no-store"},
                             {"Cross-Origin-Resource-Policy", "same-origin"},
                             {"Referrer-Policy", "no-referrer"},
                             {"X-Content-Type-Options", "nosniff"},
                             {"X-Frame-Options", "DENY"}});
        set_pre_routing_handler([this](const httplib::Request& request, httplib::Response& answer) {
            http_page page = answer_to(request);
            answer.status = page.status;
            answer.set_header("Content-Security-Policy", page.policy);
            if (page.status == 405) answer.set_header("Allow", "GET");
            stream_after_ = page.stream_after;
            stream_begin_ = page.stream_after ? std::exchange(page.body, {}) : std::string();
            answer.set_content(page.body, page.type.c_str());
            return HandlerResponse::Handled;
        });
    }

    struct answered {
        std::string bytes;
        std::optional<std::uint64_t> stream_after;  ///< of a stream: the rest follows
    };

    /// The answer to a request, given its line and headers.
    answered answer(std::string_view head) {
        memory_stream stream(head);
        stream_after_.reset();
        respond(*this, stream);
        std::string bytes = stream.take();
        if (stream_after_) {
            // A body without a stated length ends with the connection.
            constexpr std::string_view length = "Content-Length: 0\r\n";
            if (const std::size_t at = bytes.find(length); at != std::string::npos) bytes.erase(at, length.size());
            bytes += stream_begin_;
        }
        return {std::move(bytes), stream_after_};
    }

 private:
    http_page answer_to(const httplib::Request& request) const {
        if (request.method != "GET") return {.status = 405, .body = "only GET\n"};
        const std::string host = split(request.get_header_value("Host")).first;
        if (loopback_ && !host.empty() && host != "localhost" && !numeric(host))
            return {.status = 421, .body = "expected an address or localhost as Host\n"};
        return pages_({request.path, request.get_header_value("Last-Event-ID")});
    }

    template <class Self>
    static void respond(Self& self, httplib::Stream& stream) {
        bool closed = false;
        const auto simplify = [](httplib::Request& request) {
            request.ranges.clear();  // whole pages only, as they are
            for (const char* name : {"Accept-Encoding", "Expect"}) request.headers.erase(name);
        };
        if constexpr (requires { self.process_request(stream, true, closed, simplify); })
            (void)self.process_request(stream, true, closed, simplify);
        else  // since httplib 0.16
            (void)self.process_request(stream, std::string(), 0, std::string(), 0, true, closed, simplify);
    }

    bool loopback_;
    http_server::page_source pages_;
    std::optional<std::uint64_t> stream_after_;  ///< of the request that is being answered
    std::string stream_begin_;
};

using shared_piece = std::shared_ptr<const std::string>;

struct connection {
    descriptor socket;
    clock::time_point until;
    std::string request, answer{};
    std::size_t sent = 0;
    enum class state : std::uint8_t { reading, writing, leaving, streaming, over } now = state::reading;
    std::uint64_t stream_after = 0;
    std::deque<shared_piece> pieces{};  ///< of a stream, after `answer`; of the first, `sent` bytes are gone

    [[nodiscard]] bool has_output() const {
        return now == state::writing || (now == state::streaming && (!answer.empty() || !pieces.empty()));
    }
};

constexpr const char* no_room =
    "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n";
constexpr const char* too_large =
    "HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

bool would_block() {
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

}  // namespace

bool http_address::numeric() const {
    return launcher::numeric(host);
}

bool http_address::loopback() const {
    return host == "::1" || (host.starts_with("127.") && numeric());
}

std::string http_address::text() const {
    return (host.find(':') == std::string::npos ? host : "[" + host + "]") + ":" + std::to_string(port);
}

result<http_address> parse_http_address(std::string_view text) {
    auto [host, port] = split(text);
    http_address where;
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), where.port);
    const bool plain = std::all_of(host.begin(), host.end(), [](char c) {
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' || c == '-';
    });
    if (port.empty() || error != std::errc{} || end != port.data() + port.size() || host.empty() ||
        (!plain && !numeric(host)))
        return failure{errc::malformed, "'" + printable(text) + "': expected HOST:PORT, such as 127.0.0.1:9400"};
    where.host = host == "localhost" ? "127.0.0.1" : std::move(host);
    return where;
}

http_address server_address(const std::string& key, const std::string& text, bool open, const std::string& opens) {
    const result<http_address> where = parse_http_address(text);
    const std::string line = "configuration: " + key + " = \"" + printable(text) + "\": expected ";
    if (!where || !where->numeric())
        throw launcher_error(exit_code::usage, line + "HOST:PORT with an IP address, such as 127.0.0.1:9400");
    if (where->loopback() || open) return *where;
    throw launcher_error(exit_code::usage, line +
                                               "a loopback address, such as 127.0.0.1:" + std::to_string(where->port) +
                                               ", or " + opens + ": whoever reaches that address can read it");
}

http_listener::http_listener(http_address where, const std::string& key) : where_(std::move(where)) {
    const bool six = where_.host.find(':') != std::string::npos;
    sockaddr_in6 v6{};
    sockaddr_in v4{};
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(where_.port);
    v4.sin_family = AF_INET;
    v4.sin_port = htons(where_.port);
    const int parsed = six ? ::inet_pton(AF_INET6, where_.host.c_str(), &v6.sin6_addr)
                           : ::inet_pton(AF_INET, where_.host.c_str(), &v4.sin_addr);
    auto* const address = six ? reinterpret_cast<sockaddr*>(&v6) : reinterpret_cast<sockaddr*>(&v4);
    socklen_t size = six ? sizeof v6 : sizeof v4;
    socket_ = descriptor(::socket(six ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    const int on = 1;
    if (parsed != 1 || socket_.get() < 0 ||
        ::setsockopt(socket_.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        ::bind(socket_.get(), address, size) != 0 || ::listen(socket_.get(), 64) != 0 ||
        ::getsockname(socket_.get(), address, &size) != 0)
        throw launcher_error(exit_code::network, key + " = \"" + where_.text() + "\": " + strerror(errno) +
                                                     ": expected an address of this machine and a free port");
    where_.port = ntohs(six ? v6.sin6_port : v4.sin_port);
}

/// One thread and one poll() for all connections.
class http_server::implementation {
 public:
    implementation(http_listener where, page_source pages, const http_server_limits& limits)
        : limits_(limits), listener_(std::move(where)), responder_(listener_.address().loopback(), std::move(pages)) {
        std::array<int, 2> ends{};
        if (::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0)
            throw launcher_error(exit_code::network, std::string("cannot serve pages: pipe: ") + strerror(errno));
        wake_read_ = descriptor(ends[0]);
        wake_write_ = descriptor(ends[1]);
        thread_ = std::thread([this] { serve(); });
    }
    ~implementation() {
        wake_write_ = descriptor();  // the read end sees its end
        thread_.join();
    }
    implementation(const implementation&) = delete;
    implementation& operator=(const implementation&) = delete;

    [[nodiscard]] const http_address& address() const noexcept { return listener_.address(); }
    [[nodiscard]] std::size_t readers() const noexcept { return readers_.load(); }

    void publish(std::uint64_t number, std::string piece) {
        {
            const std::lock_guard lock(mutex_);
            published_.push_back({number, std::make_shared<const std::string>(std::move(piece))});
        }
        // A full pipe wakes as well.
        const char one = 0;
        [[maybe_unused]] const ssize_t written = ::write(wake_write_.get(), &one, 1);
    }

 private:
    struct numbered {
        std::uint64_t number;
        shared_piece piece;
    };

    void serve() {
        std::vector<pollfd> watched;
        for (;;) {
            const bool accepting = clock::now() >= accept_again_;
            watched.clear();
            watched.push_back({wake_read_.get(), POLLIN, 0});
            watched.push_back({listener_.socket(), static_cast<short>(accepting ? POLLIN : 0), 0});
            for (const connection& one : open_) watched.push_back(poll_of(one));
            for (const connection& one : streams_) watched.push_back(poll_of(one));
            if (::poll(watched.data(), watched.size(), wait_ms()) < 0 && errno != EINTR) return;
            if (watched[0].revents != 0 && !distribute()) return;
            std::size_t at = 2;
            const auto now = clock::now();
            for (auto* all : {&open_, &streams_})
                for (connection& one : *all) {
                    if (watched[at++].revents != 0) advance(one);
                    if (now >= one.until) one.now = connection::state::over;
                }
            settle();
            if (watched[1].revents != 0) accept();
        }
    }

    static pollfd poll_of(const connection& one) {
        const bool reads = one.now == connection::state::streaming || !one.has_output();
        return {one.socket.get(), static_cast<short>((reads ? POLLIN : 0) | (one.has_output() ? POLLOUT : 0)), 0};
    }

    /// What was published since, to every reader. False when the server ends.
    bool distribute() {
        std::array<char, 256> bytes{};
        const ssize_t got = ::read(wake_read_.get(), bytes.data(), bytes.size());
        if (got == 0) return false;
        std::vector<numbered> fresh;
        {
            const std::lock_guard lock(mutex_);
            fresh.swap(published_);
        }
        for (connection& reader : streams_)
            for (const numbered& one : fresh)
                if (one.number > reader.stream_after) queue(reader, one);
        return true;
    }

    void queue(connection& reader, const numbered& one) const {
        reader.stream_after = one.number;
        if (reader.pieces.size() >= limits_.stream_pieces) {
            reader.now = connection::state::over;  // it comes back and says where it was
            return;
        }
        if (!reader.has_output()) reader.until = clock::now() + limits_.stream_patience;
        reader.pieces.push_back(one.piece);
        if (reader.now == connection::state::streaming) stream(reader);
    }

    /// Connections that became streams move to those; those that are over go.
    void settle() {
        for (connection& one : open_) {
            if (one.now != connection::state::streaming) continue;
            streams_.push_back(std::move(one));
            one.now = connection::state::over;
        }
        const auto over = [](const connection& one) { return one.now == connection::state::over; };
        std::erase_if(open_, over);
        std::erase_if(streams_, over);
        readers_ = streams_.size();
    }

    [[nodiscard]] int wait_ms() const {
        auto until = clock::time_point::max();
        if (accept_again_ > clock::now()) until = accept_again_;
        for (const auto* all : {&open_, &streams_})
            for (const connection& one : *all) until = std::min(until, one.until);
        if (until == clock::time_point::max()) return -1;
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - clock::now());
        return static_cast<int>(std::max<std::int64_t>(0, left.count()));
    }

    void accept() {
        for (int i = 0; i < 16; ++i) {  // those who are here have their turn between
            descriptor socket(::accept4(listener_.socket(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
            if (socket.get() < 0) {
                // No descriptors or no memory: an old connection goes, else those who knock wait a little.
                if (would_block() || errno == ECONNABORTED) return;
                if (open_.empty()) accept_again_ = clock::now() + std::chrono::milliseconds(100);
                if (!open_.empty()) open_.pop_front();
                return;
            }
            if (open_.size() >= limits_.connections) open_.pop_front();
            open_.push_back({.socket = std::move(socket), .until = clock::now() + limits_.patience, .request = {}});
        }
    }

    void advance(connection& one) {
        switch (one.now) {
            case connection::state::reading: return read(one);
            case connection::state::writing: return write(one);
            case connection::state::leaving: return drain(one);
            case connection::state::streaming:
                drain(one);  // readers say nothing; what is told here is that one has gone
                if (one.now == connection::state::streaming) stream(one);
                return;
            case connection::state::over: return;
        }
    }

    void read(connection& one) {
        std::array<char, 4096> bytes{};
        const ssize_t got = ::recv(one.socket.get(), bytes.data(), bytes.size(), 0);
        if (got <= 0) {
            if (got == 0 || !would_block()) one.now = connection::state::over;
            return;
        }
        const std::size_t searched = one.request.size() < 3 ? 0 : one.request.size() - 3;
        one.request.append(bytes.data(), static_cast<std::size_t>(got));
        const std::size_t end = one.request.find("\r\n\r\n", searched);
        if (std::min(end, one.request.size()) > limits_.request_bytes)
            one.answer = too_large;
        else if (end == std::string::npos)
            return;
        else
            answer(one, std::string_view(one.request).substr(0, end + 4));
        if (one.now == connection::state::streaming) return stream(one);
        one.now = connection::state::writing;
        write(one);
    }

    void answer(connection& one, std::string_view head) {
        responder::answered answered = responder_.answer(head);
        one.answer = std::move(answered.bytes);
        if (!answered.stream_after) return;
        if (streams_.size() + streams_beginning() >= limits_.streams) {
            one.answer = no_room;
            return;
        }
        one.request = {};
        one.stream_after = *answered.stream_after;
        one.until = clock::now() + limits_.stream_patience;
        one.now = connection::state::streaming;
    }

    [[nodiscard]] std::size_t streams_beginning() const {
        return static_cast<std::size_t>(std::count_if(
            open_.begin(), open_.end(), [](const connection& one) { return one.now == connection::state::streaming; }));
    }

    void write(connection& one) {
        const ssize_t put =
            ::send(one.socket.get(), one.answer.data() + one.sent, one.answer.size() - one.sent, MSG_NOSIGNAL);
        if (put < 0) {
            if (!would_block()) one.now = connection::state::over;
            return;
        }
        one.sent += static_cast<std::size_t>(put);
        if (one.sent < one.answer.size()) return;
        // Closed with something unread, the socket would be reset and the answer lost.
        (void)::shutdown(one.socket.get(), SHUT_WR);
        one.until = std::min(one.until, clock::now() + goodbye);
        one.now = connection::state::leaving;
    }

    /// As much as the reader takes now.
    void stream(connection& one) const {
        while (one.has_output()) {
            const std::string& front = one.answer.empty() ? *one.pieces.front() : one.answer;
            const ssize_t put =
                ::send(one.socket.get(), front.data() + one.sent, front.size() - one.sent, MSG_NOSIGNAL);
            if (put < 0) {
                if (!would_block()) one.now = connection::state::over;
                return;
            }
            one.until = clock::now() + limits_.stream_patience;
            one.sent += static_cast<std::size_t>(put);
            if (one.sent < front.size()) return;
            one.sent = 0;
            if (one.answer.empty())
                one.pieces.pop_front();
            else
                one.answer = {};
        }
        one.until = clock::time_point::max();  // nothing waits
    }

    static void drain(connection& one) {
        std::array<char, 4096> bytes{};
        const ssize_t got = ::recv(one.socket.get(), bytes.data(), bytes.size(), 0);
        if (got == 0 || (got < 0 && !would_block())) one.now = connection::state::over;
    }

    http_server_limits limits_;
    http_listener listener_;
    descriptor wake_read_, wake_write_;
    responder responder_;
    std::deque<connection> open_;  ///< in the order in which they came
    std::deque<connection> streams_;
    clock::time_point accept_again_{};
    std::atomic<std::size_t> readers_ = 0;
    std::mutex mutex_;  ///< guards what follows
    std::vector<numbered> published_;
    std::thread thread_;
};

http_server::http_server(http_listener where, page_source pages, const http_server_limits& limits)
    : impl_(std::make_unique<implementation>(std::move(where), std::move(pages), limits)) {}

http_server::~http_server() = default;

const http_address& http_server::address() const noexcept {
    return impl_->address();
}

void http_server::publish(std::uint64_t number, std::string piece) {
    impl_->publish(number, std::move(piece));
}

std::size_t http_server::readers() const noexcept {
    return impl_->readers();
}

result<std::string> http_get(const http_address& where, const std::string& path, const http_limits& limits,
                             const std::stop_token& stop) {
    const auto until = clock::now() + limits.patience;
    httplib::Client client(where.host, where.port);
    client.set_connection_timeout(limits.patience);
    client.set_read_timeout(limits.patience);
    client.set_write_timeout(limits.patience);
    client.set_decompress(false);
    bool done = false;
    std::mutex mutex;
    std::condition_variable_any wake;
    // httplib's timeouts begin anew with every byte; this one does not.
    std::jthread guard([&] {
        std::unique_lock lock(mutex);
        (void)wake.wait_until(lock, stop, until, [&] { return done; });
        while (!done) {
            client.stop();
            (void)wake.wait_for(lock, std::chrono::milliseconds(20), [&] { return done; });
        }
    });
    std::string body;
    const httplib::Result answer =
        client.Get(path, {{"Accept-Encoding", "identity"}}, [&](const char* data, std::size_t size) {
            if (size > limits.body_bytes - body.size() || clock::now() >= until) return false;
            body.append(data, size);
            return true;
        });
    {
        const std::lock_guard lock(mutex);
        done = true;
    }
    wake.notify_all();
    guard.join();
    if (!answer)
        return failure{errc::truncated, clock::now() >= until || answer.error() == httplib::Error::Canceled
                                            ? "no whole answer in time, or too large a one"
                                            : "no answer"};
    if (answer->status != 200)
        return failure{errc::malformed, "answers with HTTP status " + std::to_string(answer->status)};
    return body;
}

}  // namespace thinwire::launcher
