#include "connection.hpp"

#include <asio/buffer.hpp>
#include <asio/post.hpp>
#include <asio/write.hpp>
#ifdef __linux__
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#endif

#include <algorithm>
#include <chrono>
#include <optional>
#include <span>
#include <string>
#include <utility>

namespace thinwire::runtime {

namespace {

constexpr std::size_t stranger_bite = 512;
constexpr std::size_t member_bite = 65536;
constexpr std::size_t sealed_bite = std::size_t{256} << 10U;  ///< bytes of a frame that TLS is given at a time
constexpr std::size_t longest_answers = 65536;  ///< bytes by which TLS itself answers, as to KeyUpdate, not yet sent
constexpr std::chrono::seconds linger_time{2};

}  // namespace

connection::connection(channel open, link_id link, wire_limits limits, std::size_t max_queue, connection_owner& owner)
    : bytes_sent(open.sent),
      bytes_received(open.received),
      socket_(std::move(open.socket)),
      tls_(std::move(open.tls)),
      timer_(socket_.get_executor()),
      link_(link),
      owner_(owner),
      max_queue_(max_queue),
      decoder_(limits),
      plain_(std::move(open.early)) {}

void connection::start(std::initializer_list<message_type> allowed) {
    asio::error_code ignored;
    socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
    decoder_.allow(allowed);
    buffer_.resize(stranger_bite);
    if (plain_.empty()) return read();
    asio::post(socket_.get_executor(), [self = shared_from_this()] {
        if (self->closed_) return;
        self->understand(self->plain_);
        if (!self->closed_) self->read();
    });
}

void connection::admit(std::initializer_list<message_type> allowed) {
    decoder_.allow(allowed);
}

void connection::read() {
    socket_.async_read_some(asio::buffer(buffer_), [self = shared_from_this()](asio::error_code error, std::size_t n) {
        if (self->closed_) return;
        if (error) {
            if (self->finishing_) return self->close();
            self->closed_ = true;
            self->socket_.close(error);
            return self->owner_.on_closed(self->link_, "the connection was closed by the other side");
        }
        self->take(n);
        if (!self->closed_) self->read();
    });
}

void connection::take(std::size_t count) {
    owner_.on_bytes(*this, 0, count);
    if (finishing_) return;
    std::span<const std::byte> bytes = std::span(buffer_).first(count);
    if (tls_) {
        plain_.clear();
        tls_->feed(bytes, plain_);
        bytes = plain_;
        if (tls_->has_output() && !writing_) write();
        if (tls_->pending_output() > longest_answers) return owner_.on_broken(link_, "it asks and does not read");
    } else if (!std::exchange(begun_, true) && std::ranges::equal(bytes, std::as_bytes(std::span(speaks_tls)))) {
        return owner_.on_other_security(link_);
    }
    understand(bytes);
}

void connection::understand(std::span<const std::byte> bytes) {
    decoder_.feed(bytes);
    while (!closed_ && !finishing_) {
        result<std::optional<message>> next = decoder_.next();
        if (!next) return owner_.on_broken(link_, next.error().message);
        if (!*next) break;
        if (std::string no = objection(**next); !no.empty()) return owner_.on_broken(link_, no);
        owner_.on_message(link_, std::move(**next));
    }
    if (peer != 0 && buffer_.size() < member_bite) buffer_.resize(member_bite);
    if (!tls_ || tls_->end() != tls_end::broken || closed_ || finishing_) return;
    // Anyone on the path can alter bytes, which says nothing of the peer: only what it said itself is a breach.
    const std::string why = tls_->why();
    abort();
    owner_.on_closed(link_, why);
}

std::string connection::objection(const message& m) const {
    if (!tls_) return {};
    const auto* welcome = std::get_if<welcome_message>(&m);
    const hello_message* stated = welcome != nullptr ? &welcome->self : std::get_if<hello_message>(&m);
    if (stated == nullptr) return {};
    const public_key& key = tls_->peer();
    const peer_id proven = peer_id_of(key);
    if (stated->peer != proven)
        return "it calls itself peer " + std::to_string(stated->peer) + ", but its key is that of peer " +
               std::to_string(proven);
    if (!std::ranges::equal(std::as_bytes(std::span(stated->key)), key.bytes))
        return "it states another key than its own";
    return {};
}

std::string connection::remote_host() const {
    asio::error_code error;
    const auto point = socket_.remote_endpoint(error);
    if (error) return {};
    asio::ip::address host = point.address();
    if (host.is_v6() && host.to_v6().is_v4_mapped())
        host = asio::ip::make_address_v4(asio::ip::v4_mapped, host.to_v6());
    if (host.is_v6() && host.to_v6().scope_id() != 0) return {};  // of one link of this machine
    return host.is_v6() ? "[" + host.to_string() + "]" : host.to_string();
}

std::optional<double> connection::round_trip_seconds() {
#ifdef __linux__
    tcp_info info{};
    socklen_t size = sizeof info;
    if (socket_.is_open() && ::getsockopt(socket_.native_handle(), IPPROTO_TCP, TCP_INFO, &info, &size) == 0)
        return static_cast<double>(info.tcpi_rtt) * 1e-6;
#endif
    return std::nullopt;
}

bool connection::send(std::vector<std::byte> frame) {
    if (closed_ || finishing_) return true;
    queued_ += frame.size();
    queue_.push_back(std::move(frame));
    if (queued_ > max_queue_) return false;
    if (!writing_) write();
    return true;
}

void connection::write() {
    writing_ = true;
    std::span<const std::byte> bytes;
    if (tls_) {
        if (!queue_.empty()) {
            const auto rest = std::span(queue_.front()).subspan(said_);
            const auto piece = rest.first(std::min(rest.size(), sealed_bite));
            tls_->write(piece);
            said_ += piece.size();
        }
        output_ = tls_->take_output();
        bytes = output_;
    } else {
        bytes = queue_.front();
        said_ = bytes.size();
    }
    asio::async_write(socket_, asio::buffer(bytes.data(), bytes.size()),
                      [self = shared_from_this()](asio::error_code error, std::size_t n) {
                          self->writing_ = false;
                          if (self->closed_) return;
                          if (error) return self->give_up();
                          self->written(n);
                      });
}

/// The read that is pending reports the loss; a finishing connection has no one to tell.
void connection::give_up() {
    if (finishing_) return close();
    asio::error_code ignored;
    socket_.shutdown(asio::ip::tcp::socket::shutdown_both, ignored);
}

void connection::written(std::size_t count) {
    if (!queue_.empty() && said_ == queue_.front().size()) {
        queued_ -= said_;
        said_ = 0;
        queue_.pop_front();
    }
    owner_.on_bytes(*this, count, 0);
    if (!queue_.empty() || (tls_ && tls_->has_output())) return write();
    if (finishing_) linger();
}

void connection::finish() {
    if (closed_ || finishing_) return;
    finishing_ = true;
    timer_.expires_after(linger_time);
    timer_.async_wait([self = shared_from_this()](asio::error_code error) {
        if (!error) self->close();
    });
    if (!writing_) linger();
}

/// Closing with unread bytes would make the system throw away what the other side has not read yet: so wait for its
/// end of the stream, which read() sees.
void connection::linger() {
    if (tls_ && !farewell_) {
        farewell_ = true;
        tls_->close();
        if (tls_->has_output()) return write();
    }
    asio::error_code ignored;
    socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
}

void connection::abort() {
    closed_ = true;
    asio::error_code ignored;
    timer_.cancel();
    socket_.close(ignored);
}

void connection::close() {
    if (closed_) return;
    abort();
    owner_.on_finished(link_);
}

}  // namespace thinwire::runtime
