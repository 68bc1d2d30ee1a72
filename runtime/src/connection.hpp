#ifndef THINWIRE_RUNTIME_SRC_CONNECTION_HPP
#define THINWIRE_RUNTIME_SRC_CONNECTION_HPP

#include <thinwire/comm/effect.hpp>
#include <thinwire/comm/frame.hpp>

#include "handshake.hpp"
#include <asio/ip/tcp.hpp>
#include <asio/steady_timer.hpp>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace thinwire::runtime {

class connection;

/// What a connection tells its owner, always on the node's thread and never from within a call of the owner.
class connection_owner {
 public:
    virtual void on_message(link_id link, message m) = 0;
    /// The other side sent something that is no message.
    virtual void on_broken(link_id link, const std::string& why) = 0;
    /// Plaintext: the other side speaks TLS.
    virtual void on_other_security(link_id link) = 0;
    /// The other side is gone, or what came was altered on its way.
    virtual void on_closed(link_id link, const std::string& why) = 0;
    virtual void on_bytes(connection& c, std::size_t sent, std::size_t received) = 0;
    /// A connection that was told to finish is closed.
    virtual void on_finished(link_id link) = 0;

 protected:
    ~connection_owner() = default;
};

/// One connection that carries frames, under TLS or in plaintext. Used on the node's thread only.
///
/// Under TLS a peer is who its key says: a hello or a welcome that states another key, or another number than
/// peer_id_of() its key, is on_broken().
class connection : public std::enable_shared_from_this<connection> {
 public:
    /// `max_queue`: bytes that may wait to be sent.
    connection(channel open, link_id link, wire_limits limits, std::size_t max_queue, connection_owner& owner);

    /// Begins to read; at first a stranger's share of memory.
    void start(std::initializer_list<message_type> allowed);
    /// From now on these types may come, and are read in larger bites.
    void admit(std::initializer_list<message_type> allowed);

    /// Queues a frame; false when the other side reads too slowly for that.
    [[nodiscard]] bool send(std::vector<std::byte> frame);
    /// Sends what is queued and says that nothing follows, as far as two seconds allow, waits within them for the other
    /// side to read it, closes. The owner hears nothing more but on_finished().
    void finish();
    /// Closes at once, without a word to the owner.
    void abort();

    [[nodiscard]] link_id link() const noexcept { return link_; }
    /// Of the other side, as it stands before a port; empty where that says nothing to others.
    [[nodiscard]] std::string remote_host() const;
    /// As the kernel smooths it; nothing where it does not tell.
    [[nodiscard]] std::optional<double> round_trip_seconds();
    /// Null: plaintext.
    [[nodiscard]] const tls_session* tls() const noexcept { return tls_.get(); }

    peer_id peer = 0;              ///< who it is, once known
    std::uint64_t bytes_sent = 0;  ///< before it was known
    std::uint64_t bytes_received = 0;

 private:
    void read();
    void take(std::size_t count);
    void understand(std::span<const std::byte> bytes);
    [[nodiscard]] std::string objection(const message& m) const;
    void write();
    void written(std::size_t count);
    void give_up();
    void linger();
    void close();

    asio::ip::tcp::socket socket_;
    std::unique_ptr<tls_session> tls_;
    asio::steady_timer timer_;
    link_id link_;
    connection_owner& owner_;
    std::size_t max_queue_;
    frame_decoder decoder_;
    std::vector<std::byte> buffer_;
    std::vector<std::byte> plain_;   ///< what TLS made of it; at first, what came with the handshake
    std::vector<std::byte> output_;  ///< what TLS made of a part of the queue's front
    std::size_t said_ = 0;           ///< bytes of the front that TLS has taken
    std::deque<std::vector<std::byte>> queue_;
    std::size_t queued_ = 0;
    bool writing_ = false;
    bool finishing_ = false;
    bool begun_ = false;     ///< plaintext: something has come
    bool farewell_ = false;  ///< TLS has said that nothing follows
    bool closed_ = false;
};

}  // namespace thinwire::runtime

#endif  // THINWIRE_RUNTIME_SRC_CONNECTION_HPP
