#ifndef THINWIRE_RUNTIME_SRC_GATE_HPP
#define THINWIRE_RUNTIME_SRC_GATE_HPP

#include <thinwire/runtime/access.hpp>
#include <thinwire/runtime/node.hpp>

#include "enrol_message.hpp"
#include "handshake.hpp"
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/steady_timer.hpp>

#include <chrono>
#include <cstddef>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>

namespace thinwire::runtime {

/// Where connections become channels: TLS, the list of keys, invites. Everything that a stranger can reach is in here,
/// and all of it is bounded: a number of handshakes, each with a deadline and few bytes. A node without an identity
/// lets every connection pass as plaintext. Used on the node's thread.
class gate {
 public:
    static constexpr std::size_t max_strangers = 64;  ///< handshakes at a time

    /// One line about who was refused (true) or about the list's file (false).
    using reporter = std::function<void(bool refused, const std::string& line)>;
    using opened = std::function<void(channel)>;
    using refused = std::function<void(tls_end end, const std::string& why)>;

    /// Throws io_error when the list cannot be read.
    gate(asio::io_context& io, const node_options& options, reporter report);
    gate(const gate&) = delete;
    gate& operator=(const gate&) = delete;
    ~gate();

    /// A connection that came in. One that finds the gate full takes the place of the oldest that is still shaking
    /// hands.
    void receive(asio::ip::tcp::socket socket, opened done);
    /// A connection that this node made. What is returned names it for abandon(); null: plaintext.
    std::weak_ptr<handshake> dial(asio::ip::tcp::socket socket, opened done, refused failed);
    /// Ends it without a word.
    void abandon(const std::weak_ptr<handshake>& dialled);
    /// Makes room when there are no descriptors left.
    void shed();

    /// The run, for a node that did not know it when it began.
    void of_run(const digest& run) { of_run_ = run; }
    /// What the run has agreed on about a key: in, out, or nothing. Goes before the list, but for keys that the list
    /// itself calls revoked.
    void consult(std::function<std::optional<bool>(const public_key&)> run) { run_ = std::move(run); }
    /// The list as it was read last; null in plaintext.
    [[nodiscard]] const access_rules* rules() const noexcept { return list_ ? &list_->rules() : nullptr; }
    /// Whether the key at the other end of a channel is let in now. A plaintext one has none, and is.
    [[nodiscard]] bool allows(const tls_session* session) const;
    /// Calls `changed` whenever the list's file was changed by someone else, within two seconds; also at other times.
    void watch(std::function<void()> changed);
    /// Ends everything.
    void close();

 private:
    std::weak_ptr<handshake> shake(bool dialled, asio::ip::tcp::socket socket, handshake::plan talk, opened done,
                                   refused failed);
    [[nodiscard]] std::string objection(const public_key& key, tls_purpose purpose, bool dialled);
    [[nodiscard]] bool lets_in(const public_key& key) const;
    [[nodiscard]] bool refresh();
    [[nodiscard]] bool still_allows(const tls_session* session);
    [[nodiscard]] conversation plan(const tls_session& session, const std::string& where);
    [[nodiscard]] std::vector<std::byte> enrol(const tls_session& session, std::span<const std::byte> heard,
                                               const std::string& where);
    void schedule();

    asio::io_context& io_;
    std::shared_ptr<const identity> identity_;
    digest of_run_;
    std::function<std::optional<bool>(const public_key&)> run_;
    std::chrono::milliseconds timeout_;
    reporter report_;
    std::function<void(const public_key&, const std::string&, const std::string&)> enrolled_;
    std::optional<access_list> list_;
    std::string trouble_;  ///< why the list's file could not be read the last time
    std::optional<tls_context> context_;
    std::list<std::shared_ptr<handshake>> strangers_;  ///< oldest first
    std::list<std::shared_ptr<handshake>> dialled_;
    asio::steady_timer timer_;
    std::function<void()> changed_;
};

}  // namespace thinwire::runtime

#endif  // THINWIRE_RUNTIME_SRC_GATE_HPP
