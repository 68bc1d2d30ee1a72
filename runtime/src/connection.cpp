#include "connection.hpp"

#include <asio/buffer.hpp>
#include <asio/write.hpp>

#include <chrono>
#include <optional>
#include <span>
#include <utility>

namespace thinwire::runtime {

namespace {

constexpr std::size_t stranger_bite = 512;
constexpr std::size_t member_bite = 65536;
constexpr std::chrono::seconds linger_time{2};

}  // namespace

connection::connection(asio::ip::tcp::socket socket, link_id link, wire_limits limits, std::size_t max_queue,
                       connection_owner& owner)
    : socket_(std::move(socket)),
      timer_(socket_.get_executor()),
      link_(link),
      owner_(owner),
      max_queue_(max_queue),
      decoder_(limits) {}

void connection::start(std::initializer_list<message_type> allowed) {
    asio::error_code ignored;
    socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
    decoder_.allow(allowed);
    buffer_.resize(stranger_bite);
    read();
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
    decoder_.feed(std::span(buffer_).first(count));
    while (!closed_ && !finishing_) {
        result<std::optional<message>> next = decoder_.next();
        if (!next) return owner_.on_broken(link_, next.error().message);
        if (!*next) break;
        owner_.on_message(link_, std::move(**next));
    }
    if (peer != 0 && buffer_.size() < member_bite) buffer_.resize(member_bite);
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
    asio::async_write(socket_, asio::buffer(queue_.front()),
                      [self = shared_from_this()](asio::error_code error, std::size_t) {
                          self->writing_ = false;
                          if (self->closed_) return;
                          if (error) {
                              // The read that is pending reports the loss; a finishing connection has no one to tell.
                              if (self->finishing_)
                                  self->close();
                              else
                                  self->socket_.shutdown(asio::ip::tcp::socket::shutdown_both, error);
                              return;
                          }
                          const std::size_t n = self->queue_.front().size();
                          self->queued_ -= n;
                          self->queue_.pop_front();
                          self->owner_.on_bytes(*self, n, 0);
                          if (!self->queue_.empty()) return self->write();
                          if (self->finishing_) self->linger();
                      });
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
