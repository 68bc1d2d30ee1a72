#ifndef THINWIRE_TESTS_UNIT_RUNTIME_STRANGERS_HPP
#define THINWIRE_TESTS_UNIT_RUNTIME_STRANGERS_HPP

// Nodes under TLS, and those who speak to them without being one.
#include <thinwire/core/random.hpp>
#include <thinwire/runtime/access.hpp>
#include <thinwire/runtime/node.hpp>

#include "tls.hpp"
#include "unit/runtime/fixture.hpp"
#include <doctest/doctest.h>
#include <poll.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace runtime_fixture {

using std::chrono::milliseconds;

/// A peer's folder: its key and its list.
struct member {
    folder dir;
    std::shared_ptr<const identity> self = std::make_shared<const identity>(identity::make());
    [[nodiscard]] std::filesystem::path access() const { return dir.path() / "access"; }
    void lets_in(const member& other, const std::string& name = "x") const {
        access_list(access()).allow(other.self->key(), name);
    }
};

/// The lines that a node has for its operator.
class notices {
 public:
    std::function<void(const std::string&)> taker() {
        return [this](const std::string& line) {
            const std::lock_guard lock(mutex_);
            lines_.push_back(line);
        };
    }
    [[nodiscard]] bool hold(const std::string& part) {
        const std::lock_guard lock(mutex_);
        return std::any_of(lines_.begin(), lines_.end(),
                           [&](const std::string& line) { return line.find(part) != std::string::npos; });
    }
    [[nodiscard]] std::size_t count() {
        const std::lock_guard lock(mutex_);
        return lines_.size();
    }

 private:
    std::mutex mutex_;
    std::vector<std::string> lines_;
};

inline node_options founder_of(const member& m, int min_peers, notices* lines = nullptr) {
    node_options o = founder_options(m.dir, min_peers);
    o.self = 0;
    o.plaintext = false;
    o.identity = m.self;
    o.access = m.access();
    if (lines == nullptr) return o;
    o.notice = lines->taker();
    o.enrolled = [told = lines->taker()](const public_key& key, const std::string& name, const std::string& from) {
        told("enrolled '" + name + "' from " + from + " as " + to_string(key));
    };
    return o;
}

inline node_options joiner_of(const member& m, const node& founder) {
    node_options o = joiner_options(m.dir, founder, 1);
    o.self = 0;
    o.plaintext = false;
    o.identity = m.self;
    o.access = m.access();
    return o;
}

/// What `action` throws as node_error.
template <class Action>
node_error failure_of(Action&& action) {
    try {
        action();
    } catch (const node_error& problem) {
        return problem;
    }
    FAIL("nothing was thrown");
    return {node_errc::protocol, ""};
}

/// A blocking connection of a stranger.
class visitor {
 public:
    explicit visitor(std::uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
        sockaddr_in where{};
        where.sin_family = AF_INET;
        where.sin_port = htons(port);
        where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        REQUIRE(::connect(fd_, reinterpret_cast<const sockaddr*>(&where), sizeof where) == 0);
    }
    /// One that was accepted.
    [[nodiscard]] static visitor of(int fd) {
        REQUIRE(fd >= 0);
        return visitor(accepted{fd});
    }
    visitor(visitor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    visitor(const visitor&) = delete;
    visitor& operator=(const visitor&) = delete;
    ~visitor() {
        if (fd_ >= 0) ::close(fd_);
    }
    /// False once the other side does not want more.
    bool say(std::span<const std::byte> bytes) const {
        return ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size());
    }
    /// What comes next; empty: the end.
    [[nodiscard]] std::vector<std::byte> hear() const {
        std::vector<std::byte> bytes(4096);
        const ssize_t n = ::recv(fd_, bytes.data(), bytes.size(), 0);
        bytes.resize(static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
        return bytes;
    }
    /// Waits for the end of the stream; the bytes before it.
    std::size_t hear_all() const {
        std::size_t total = 0;
        for (auto bytes = hear(); !bytes.empty(); bytes = hear()) total += bytes.size();
        return total;
    }
    /// Whether the other side has closed, looking for at most `time`.
    [[nodiscard]] bool closed_within(milliseconds time) const {
        pollfd one{fd_, POLLIN, 0};
        return ::poll(&one, 1, static_cast<int>(time.count())) > 0;
    }
    void end() const { ::shutdown(fd_, SHUT_WR); }

 private:
    struct accepted {
        int fd;
    };
    explicit visitor(accepted one) : fd_(one.fd) {}

    int fd_;
};

/// A port that takes connections and says nothing by itself.
class listener {
 public:
    listener() : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
        sockaddr_in at{};
        at.sin_family = AF_INET;
        at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof at;
        auto* const raw = reinterpret_cast<sockaddr*>(&at);
        REQUIRE(::bind(fd_, raw, size) == 0);
        REQUIRE(::listen(fd_, 8) == 0);
        const timeval limit{10, 0};  // so that answer() ends when nobody comes
        REQUIRE(::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0);
        REQUIRE(::getsockname(fd_, raw, &size) == 0);
        port_ = ntohs(at.sin_port);
    }
    listener(const listener&) = delete;
    listener& operator=(const listener&) = delete;
    ~listener() { ::close(fd_); }
    [[nodiscard]] std::string where() const { return "127.0.0.1:" + std::to_string(port_); }
    [[nodiscard]] visitor take() const { return visitor::of(::accept(fd_, nullptr, nullptr)); }
    /// Hears the beginning of one connection, says `words`, closes.
    void answer(std::span<const std::byte> words) const {
        const int fd = ::accept(fd_, nullptr, nullptr);
        std::vector<std::byte> heard(4096);
        (void)::recv(fd, heard.data(), heard.size(), 0);
        (void)::send(fd, words.data(), words.size(), MSG_NOSIGNAL);
        ::close(fd);
    }

 private:
    int fd_;
    std::uint16_t port_ = 0;
};

/// Speaks TLS, with any key and any words.
class tls_visitor {
 public:
    tls_visitor(std::uint16_t port, const identity& self, tls_purpose purpose)
        : context_(self),
          session_(
              tls_session::client(context_, purpose, [](const public_key&, tls_purpose) { return std::string(); })),
          socket_(port) {}
    /// The one that was dialled.
    tls_visitor(visitor from, const identity& self)
        : context_(self),
          session_(tls_session::server(context_, [](const public_key&, tls_purpose) { return std::string(); })),
          socket_(std::move(from)) {}
    tls_session& session() { return *session_; }
    void say(std::span<const std::byte> plain) {
        session_->write(plain);
        flush();
    }
    void say_raw(std::span<const std::byte> network) const { socket_.say(network); }
    /// Shakes hands and reads until `count` bytes were heard or the stream ends.
    std::vector<std::byte> hear(std::size_t count) {
        flush();
        while (heard_.size() < count) {
            const auto bytes = socket_.hear();
            if (bytes.empty()) break;
            session_->feed(bytes, heard_);
            flush();
        }
        return heard_;
    }
    void shake() {
        flush();
        while (!session_->shaken() && session_->end() == tls_end::none) {
            const auto bytes = socket_.hear();
            if (bytes.empty()) break;
            session_->feed(bytes, heard_);
            flush();
        }
    }
    bool closed() { return socket_.hear_all() < 100; }
    [[nodiscard]] bool closed_within(milliseconds time) const { return socket_.closed_within(time); }

 private:
    void flush() {
        if (session_->has_output()) socket_.say(session_->take_output());
    }
    tls_context context_;
    std::unique_ptr<tls_session> session_;
    visitor socket_;
    std::vector<std::byte> heard_;
};

/// Waits for something that the node's thread does.
template <class Holds>
bool eventually(Holds&& holds) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!holds()) {
        if (std::chrono::steady_clock::now() > end) return false;
        std::this_thread::yield();
    }
    return true;
}

inline invite invite_of(const member& m, const node& founder, unix_time expires) {
    invite line;
    line.addresses = {"127.0.0.1:" + std::to_string(founder.port())};
    line.run = founder.run();
    line.key = m.self->key();
    line.secret = access_list(m.access()).add_invite(expires, 0);
    return line;
}

inline const unix_time tomorrow = std::time(nullptr) + 86400;

}  // namespace runtime_fixture

#endif  // THINWIRE_TESTS_UNIT_RUNTIME_STRANGERS_HPP
