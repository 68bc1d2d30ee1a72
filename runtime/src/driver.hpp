#ifndef THINWIRE_RUNTIME_SRC_DRIVER_HPP
#define THINWIRE_RUNTIME_SRC_DRIVER_HPP

#include <thinwire/comm/machine.hpp>
#include <thinwire/runtime/node.hpp>

#include "address.hpp"
#include "connection.hpp"
#include "gate.hpp"
#include "mailbox.hpp"
#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace thinwire::runtime {

/// What founder and joiner share: the thread, the clock, the connections, the counters. The machine and everything
/// that is not marked otherwise belongs to the node's thread.
class driver : protected connection_owner {
 public:
    driver(const driver&) = delete;
    driver& operator=(const driver&) = delete;
    virtual ~driver() = default;

    /// For the caller's thread.
    mailbox& box() noexcept { return box_; }
    const node_options& options() const noexcept { return options_; }
    node_status status() const;
    virtual std::uint16_t port() const = 0;
    virtual void payload_ready(std::uint64_t round, shared_bytes payload) = 0;
    virtual void taken(std::uint64_t round) = 0;
    virtual void publish_snapshot(std::uint64_t round, shared_bytes bytes) = 0;
    virtual void drop_log_before(std::uint64_t round) = 0;
    /// Begins to leave; box().wait_quiet() says when that is done.
    virtual void leave(bool stop_run) = 0;
    void add_wait(std::chrono::duration<double> time);

 protected:
    explicit driver(node_options options);

    /// The first thing that a derived constructor does last, and the last thing that its destructor does first.
    void run();
    void join();

    [[nodiscard]] timestamp now() const;
    template <class Work>
    void post(Work&& work) {
        asio::post(io_, std::forward<Work>(work));
    }
    /// Performs what the machine asks for until it asks for nothing, then sets the timer.
    void settle();
    virtual std::vector<effect> take_effects() = 0;
    virtual std::optional<timestamp> wake_at() const = 0;
    virtual void tick(timestamp at) = 0;
    virtual void link_lost(link_id link, const std::string& why, timestamp at) = 0;

    void perform(effect& e);
    virtual void perform_one(send_effect& e);
    virtual void perform_one(admit_effect& e);
    virtual void perform_one(close_effect& e);
    virtual void perform_one(deliver_effect& e);
    virtual void perform_one(end_effect& e);
    virtual void perform_one(store_effect&) {}
    void perform_one(vote_effect&) {}
    void perform_one(final_effect&) {}
    virtual void perform_one(load_effect&) {}
    virtual void perform_one(dial_effect&) {}
    virtual void perform_one(welcomed_effect&) {}
    virtual void perform_one(snapshot_effect&) {}
    virtual void perform_one(rejected_effect& e) = 0;
    /// A link that the machine closes before it is a connection.
    virtual void close_unconnected(link_id) {}
    virtual void on_over() {}

    void adopt(link_id link, channel open, std::initializer_list<message_type> allowed);
    void identify(link_id link, peer_id peer, const std::string& name);
    void note_commit(const commit_record& record);
    /// A line for the operator; `refused`: one that strangers can cause.
    void report(bool refused, const std::string& line);
    [[nodiscard]] std::size_t lingering() const noexcept { return lingering_.size(); }

    void on_bytes(connection& c, std::size_t sent, std::size_t received) override;
    void on_finished(link_id link) override;
    void on_closed(link_id link, const std::string& why) override;

    node_options options_;
    wire_limits limits_;
    asio::io_context io_{1};
    asio::executor_work_guard<asio::io_context::executor_type> work_;
    asio::steady_timer timer_;
    gate gate_;
    std::map<link_id, std::shared_ptr<connection>> connections_;
    std::map<link_id, std::shared_ptr<connection>> lingering_;
    std::vector<link_id> too_slow_;
    bool over_ = false;

    mutable std::mutex status_mutex_;
    node_status status_;  ///< without its peers
    std::map<peer_id, peer_status> peers_;

 private:
    void thread_main() noexcept;
    void arm();
    void check_quiet();
    void drop_revoked();

    struct notice_budget {
        static constexpr int lines_a_minute = 20;
        std::chrono::steady_clock::time_point since{};
        int spent = 0;
        [[nodiscard]] bool take();
    };
    void report_refused(notice_budget& budget, const std::string& line);

    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
    mailbox box_;
    std::thread thread_;
    notice_budget stranger_notices_;
    notice_budget revoked_notices_;
};

[[nodiscard]] std::unique_ptr<driver> make_founder(node_options options);
[[nodiscard]] std::unique_ptr<driver> make_joiner(node_options options);

[[nodiscard]] constexpr timestamp to_timestamp(std::chrono::milliseconds time) {
    return time.count() * 1000;
}
[[nodiscard]] node_errc to_node_errc(run_end end) noexcept;

}  // namespace thinwire::runtime

#endif  // THINWIRE_RUNTIME_SRC_DRIVER_HPP
