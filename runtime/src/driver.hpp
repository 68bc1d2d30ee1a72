#ifndef THINWIRE_RUNTIME_SRC_DRIVER_HPP
#define THINWIRE_RUNTIME_SRC_DRIVER_HPP

#include <thinwire/comm/participant.hpp>
#include <thinwire/runtime/node.hpp>

#include "address.hpp"
#include "connection.hpp"
#include "dialling.hpp"
#include "gate.hpp"
#include "log_store.hpp"
#include "mailbox.hpp"
#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace thinwire::runtime {

/// Drives a participant: its clock, connections, log and thread. What is not marked otherwise belongs to that thread.
class driver final : private connection_owner {
 public:
    /// Listens, opens the log and begins. Throws node_error.
    driver(node_options options, bool founder);
    driver(const driver&) = delete;
    driver& operator=(const driver&) = delete;
    ~driver();

    // For the caller's thread.
    mailbox& box() noexcept { return box_; }
    const node_options& options() const noexcept { return options_; }
    /// Where it listens; 0: nowhere.
    std::uint16_t port() const noexcept { return port_; }
    node_status status() const;
    /// Below it every round had a record in the log when this node began, which may hold an earlier payload of this
    /// peer than the one that is sent now.
    std::uint64_t stored() const noexcept { return stored_; }
    void payload_ready(std::uint64_t round, shared_bytes payload);
    void publish_snapshot(std::uint64_t round, shared_bytes bytes);
    void drop_log_before(std::uint64_t round);
    /// Has `say(machine, now)` called, on the node's thread.
    template <class Say>
    void tell(Say say) {
        post([this, say = std::move(say)] {
            say(machine_, now());
            settle();
        });
    }
    void tune(std::function<void(participant_settings&)> change) {
        tell([change = std::move(change)](participant& m, timestamp at) { m.tune(change, at); });
    }
    /// Begins to leave; box().wait_quiet() says when that is done.
    void leave(bool stop_run);
    void add_wait(std::chrono::duration<double> time);

 private:
    struct dial;
    struct notice_budget {
        static constexpr int lines_a_minute = 20;
        std::chrono::steady_clock::time_point since{};
        int spent = 0;
        [[nodiscard]] bool take();
    };

    // The machine.
    [[nodiscard]] participant begin();
    void thread_main() noexcept;
    [[nodiscard]] timestamp now() const;
    template <class Work>
    void post(Work&& work) {
        asio::post(io_, std::forward<Work>(work));
    }
    /// Performs what the machine asks for until it asks for nothing, then sets the timer.
    void settle();
    /// Tells the caller up to where commits exist.
    void announce();
    void arm();
    void check_quiet();
    void perform(send_effect& e);
    void perform(admit_effect& e);
    void perform(close_effect& e);
    void perform(store_effect& e);
    void perform(vote_effect& e);
    void perform(final_effect& e);
    void perform(load_effect& e);
    void perform(deliver_effect& e);
    void perform(dial_effect& e);
    void perform(snapshot_effect& e);
    void perform(rejected_effect& e);
    void perform(end_effect& e);
    /// Calls a piece of work of the log; when that fails, the machine is told and false comes back.
    template <class Work>
    bool with_log(Work&& work);

    // Connections: driver_links.cpp.
    /// The port; throws node_error.
    [[nodiscard]] std::uint16_t listen();
    void accept();
    void enter(channel open);
    void keep_strangers_few(const public_key& key);
    /// Ends a connection at once.
    void lose(link_id link, const std::string& why);
    void adopt(link_id link, channel open, std::initializer_list<message_type> allowed);
    void connect(link_id link, name_lookup::endpoints points);
    void connected(link_id link, channel open);
    void refused(link_id link, tls_end end, const std::string& why);
    void dial_failed(link_id link, const std::string& why);
    void abandon(link_id link);
    [[nodiscard]] bool knows_one_address() const;
    [[nodiscard]] bool refused_everywhere() const;
    void give_up(node_errc code, const std::string& line);
    [[nodiscard]] std::string complete_address(link_id link, std::string& address) const;
    void on_message(link_id link, message m) override;
    void on_broken(link_id link, const std::string& why) override;
    void on_other_security(link_id link) override;
    void on_bytes(connection& c, std::size_t sent, std::size_t received) override;
    void on_finished(link_id link) override;
    void on_closed(link_id link, const std::string& why) override;

    // Who is let in.
    [[nodiscard]] std::optional<bool> agreed(const public_key& key) const;
    void list_begun();
    void list_changed();
    void drop_revoked();
    void report(bool refused, const std::string& line);
    void report_refused(notice_budget& budget, const std::string& line);

    // What the caller's thread may look at.
    void note_commit(const commit_record& record);
    void note_log();
    void refresh();
    void tell_of_order();

    node_options options_;
    wire_limits limits_;
    std::vector<std::string> seeds_;
    const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
    mailbox box_;
    asio::io_context io_{1};
    asio::executor_work_guard<asio::io_context::executor_type> work_;
    asio::steady_timer timer_;
    asio::steady_timer accept_pause_;
    asio::steady_timer leave_timer_;
    asio::ip::tcp::acceptor acceptor_;
    std::uint16_t port_ = 0;
    name_lookup names_;
    gate gate_;
    log_store store_;
    std::uint64_t stored_;  ///< where the log ended when this node began
    participant machine_;
    std::map<link_id, std::shared_ptr<connection>> connections_;
    std::map<link_id, std::shared_ptr<connection>> lingering_;
    std::map<link_id, std::shared_ptr<dial>> dials_;
    std::vector<link_id> too_slow_;
    std::set<public_key> listed_;
    std::set<std::string> refused_at_;  ///< addresses where the newest try was refused for this node's key
    bool wants_snapshot_;               ///< the caller waits for its first
    bool entered_ = false;              ///< somebody of the run was met
    std::uint64_t claimed_ = 0;         ///< how far those who were met said to be then, until it is reached or refuted
    bool roster_changed_ = true;
    timestamp paused_at_ = 0;  ///< since when the run is paused, where it is; guarded by status_mutex_
    bool over_ = false;
    notice_budget stranger_notices_;
    notice_budget revoked_notices_;
    bool unordered_told_ = false;

    mutable std::mutex status_mutex_;
    node_status status_;  ///< without its peers
    std::map<peer_id, peer_status> peers_;

    std::thread thread_;
};

[[nodiscard]] constexpr timestamp to_timestamp(std::chrono::milliseconds time) {
    return time.count() * 1000;
}

}  // namespace thinwire::runtime

#endif  // THINWIRE_RUNTIME_SRC_DRIVER_HPP
