#include "handshake.hpp"

#include <asio/buffer.hpp>
#include <asio/post.hpp>
#include <asio/write.hpp>

#include <utility>

namespace thinwire::runtime {

namespace {

constexpr std::size_t longest_handshake = 16384;  ///< bytes from the other side; an honest one sends about 1000
constexpr std::size_t longest_farewell = 65536;   ///< bytes that are thrown away while it takes its leave

}  // namespace

handshake::handshake(asio::ip::tcp::socket socket, std::unique_ptr<tls_session> session, plan talk)
    : socket_(std::move(socket)),
      deadline_(socket_.get_executor()),
      session_(std::move(session)),
      plan_(std::move(talk)) {}

void handshake::start(std::chrono::milliseconds timeout, std::function<void(outcome)> done,
                      std::function<void()> gone) {
    done_ = std::move(done);
    gone_ = std::move(gone);
    asio::error_code ignored;
    socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
    deadline_.expires_after(timeout);
    deadline_.async_wait([self = shared_from_this(), timeout](asio::error_code cancelled) {
        if (cancelled || self->closed_) return;
        if (!self->reported_)
            self->report(
                {tls_end::closed, "no TLS handshake within " + std::to_string(timeout.count()) + " ms", {}, {}});
        self->close();
    });
    asio::post(socket_.get_executor(), [self = shared_from_this()] { self->step(); });
}

void handshake::abort() {
    closed_ = true;
    asio::error_code ignored;
    deadline_.cancel();
    socket_.close(ignored);
}

void handshake::close() {
    if (closed_) return;
    abort();
    gone_();
}

/// A failure is reported before the other side can hear of it; then what is to be said goes first, so that an alert is
/// on its way before the stream ends.
void handshake::step() {
    if (closed_) return;
    // Whoever has said all that is awaited may already have said, too, that nothing follows.
    const bool complete =
        talk_ && !talk_->answer && heard_.size() >= talk_->awaited && session_->end() == tls_end::closed;
    if (!reported_ && session_->end() != tls_end::none && !complete) fail(session_->end(), session_->why());
    if (session_->has_output()) return write();
    if (!reported_) converse();
    if (closed_) return;
    if (session_->has_output()) return write();
    if (reported_ && !shut_) {
        shut_ = true;
        asio::error_code ignored;
        socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
    }
    read();
}

void handshake::converse() {
    if (!session_->shaken()) return;
    if (!talk_) {
        talk_ = plan_(*session_);
        session_->write(talk_->opening);
        if (session_->has_output()) return;  // comes back when it is on its way
    }
    if (heard_.size() < talk_->awaited) return;
    const bool stays = !talk_->answer && talk_->awaited > 0;
    if (heard_.size() > talk_->awaited && !stays) return fail(tls_end::broken, "it speaks before it is let in");
    if (talk_->answer) {
        session_->write(talk_->answer(heard_));
        session_->close();
        return report({tls_end::none, {}, {}, heard_});
    }
    closed_ = true;
    deadline_.cancel();
    gone_();  // first: what is done with the channel may abort every handshake that its owner still knows
    std::vector<std::byte> early(heard_.begin() + static_cast<std::ptrdiff_t>(talk_->awaited), heard_.end());
    heard_.resize(talk_->awaited);
    report({tls_end::none,
            {},
            channel{std::move(socket_), std::move(session_), sent_, received_, std::move(early)},
            heard_});
}

void handshake::read() {
    socket_.async_read_some(asio::buffer(buffer_), [self = shared_from_this()](asio::error_code error, std::size_t n) {
        if (self->closed_) return;
        if (error) {
            if (!self->reported_) self->fail(tls_end::closed, "the connection was closed during the TLS handshake");
            return self->close();
        }
        self->received_ += n;
        if (self->reported_) return self->received_ > longest_farewell ? self->close() : self->read();
        if (self->received_ > longest_handshake)
            self->fail(tls_end::broken,
                       "more than " + std::to_string(longest_handshake) + " bytes before it is let in");
        else
            self->session_->feed(std::span(self->buffer_).first(n), self->heard_);
        self->step();
    });
}

void handshake::write() {
    output_ = session_->take_output();
    asio::async_write(socket_, asio::buffer(output_),
                      [self = shared_from_this()](asio::error_code error, std::size_t n) {
                          if (self->closed_) return;
                          self->sent_ += n;
                          if (!error) return self->step();
                          if (!self->reported_)
                              self->fail(tls_end::closed, "the connection was closed during the TLS handshake");
                          self->close();
                      });
}

void handshake::report(outcome result) {
    reported_ = true;
    std::exchange(done_, nullptr)(std::move(result));
}

void handshake::fail(tls_end end, std::string why) {
    report({end, std::move(why), {}, {}});
}

}  // namespace thinwire::runtime
