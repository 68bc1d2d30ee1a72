#include "driver.hpp"

#include <exception>
#include <utility>

namespace thinwire::runtime {

node_errc to_node_errc(run_end end) noexcept {
    switch (end) {
        case run_end::left:
        case run_end::stopped: return node_errc::run_stopped;
        case run_end::unreachable: return node_errc::unreachable;
        case run_end::lost: return node_errc::founder_lost;
        case run_end::version_mismatch: return node_errc::version_mismatch;
        case run_end::run_mismatch: return node_errc::run_mismatch;
        case run_end::refused: return node_errc::refused;
        case run_end::diverged: return node_errc::replica_diverged;
        case run_end::storage: return node_errc::storage;
        case run_end::protocol: return node_errc::protocol;
    }
    return node_errc::protocol;
}

driver::driver(node_options options)
    : options_(std::move(options)),
      work_(asio::make_work_guard(io_)),
      timer_(io_),
      gate_(io_, options_, [this](bool refused, const std::string& line) { report(refused, line); }) {
    limits_.max_payload = options_.max_payload;
    peers_[options_.self] = peer_status{options_.self, options_.name, true, false, 0, 0, 0};
}

void driver::run() {
    post([this] { gate_.watch([this] { drop_revoked(); }); });
    thread_ = std::thread([this] { thread_main(); });
}

void driver::thread_main() noexcept {
    try {
        io_.run();
    } catch (const std::exception& problem) {
        box_.end(node_errc::protocol, std::string("the node's thread failed: ") + problem.what());
        box_.quiet();
    }
}

void driver::join() {
    io_.stop();
    if (thread_.joinable()) thread_.join();
}

timestamp driver::now() const {
    return std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start_).count();
}

void driver::settle() {
    for (;;) {
        std::vector<effect> effects = take_effects();
        for (effect& e : effects) perform(e);
        for (const link_id link : std::exchange(too_slow_, {})) {
            const auto it = connections_.find(link);
            if (it == connections_.end()) continue;
            it->second->abort();
            connections_.erase(it);
            link_lost(link, "it reads too slowly", now());
        }
        if (effects.empty()) break;
    }
    arm();
    check_quiet();
}

void driver::arm() {
    const auto at = wake_at();
    if (!at) {
        timer_.cancel();
        return;
    }
    timer_.expires_at(start_ + std::chrono::microseconds(*at));
    timer_.async_wait([this](asio::error_code error) {
        if (error) return;
        tick(now());
        settle();
    });
}

void driver::check_quiet() {
    if (over_ && connections_.empty() && lingering_.empty()) box_.quiet();
}

void driver::perform(effect& e) {
    std::visit([this](auto& what) { perform_one(what); }, e);
}

void driver::perform_one(send_effect& e) {
    const auto it = connections_.find(e.link);
    if (it != connections_.end() && !it->second->send(encode_frame(e.what))) too_slow_.push_back(e.link);
}

void driver::perform_one(admit_effect& e) {
    const auto it = connections_.find(e.link);
    if (it == connections_.end()) return;
    it->second->admit(
        {message_type::submit, message_type::progress, message_type::fetch, message_type::ping, message_type::goodbye});
}

void driver::perform_one(close_effect& e) {
    const auto it = connections_.find(e.link);
    if (it == connections_.end()) return close_unconnected(e.link);
    {
        const std::lock_guard lock(status_mutex_);
        if (e.fault) ++status_.refused;
    }
    const std::shared_ptr<connection> c = it->second;
    connections_.erase(it);
    if (lingering_.size() >= options_.max_connections) return c->abort();
    lingering_.emplace(e.link, c);
    c->finish();
}

void driver::perform_one(deliver_effect& e) {
    box_.deliver(e.record);
}

void driver::perform_one(end_effect& e) {
    over_ = true;
    on_over();
    gate_.close();
    box_.end(to_node_errc(e.code), e.text);
}

void driver::adopt(link_id link, channel open, std::initializer_list<message_type> allowed) {
    const std::size_t queue = 2 * options_.max_payload + (std::size_t{256} << 20U);
    connection_owner& owner = *this;
    auto c = std::make_shared<connection>(std::move(open), link, limits_, queue, owner);
    connections_.emplace(link, c);
    {
        const std::lock_guard lock(status_mutex_);
        ++status_.connections;
        status_.bytes_sent += c->bytes_sent;
        status_.bytes_received += c->bytes_received;
    }
    c->start(allowed);
}

void driver::identify(link_id link, peer_id peer, const std::string& name) {
    const auto it = connections_.find(link);
    const std::lock_guard lock(status_mutex_);
    peer_status& p = peers_[peer];
    p.peer = peer;
    p.name = name;
    p.present = true;
    if (it == connections_.end()) return;
    connection& c = *it->second;
    c.peer = peer;
    p.bytes_sent += std::exchange(c.bytes_sent, 0);
    p.bytes_received += std::exchange(c.bytes_received, 0);
}

void driver::on_bytes(connection& c, std::size_t sent, std::size_t received) {
    const std::lock_guard lock(status_mutex_);
    status_.bytes_sent += sent;
    status_.bytes_received += received;
    if (c.peer == 0) {
        c.bytes_sent += sent;
        c.bytes_received += received;
        return;
    }
    peer_status& p = peers_[c.peer];
    p.bytes_sent += sent;
    p.bytes_received += received;
}

void driver::on_finished(link_id link) {
    lingering_.erase(link);
    check_quiet();
}

void driver::on_closed(link_id link, const std::string& why) {
    connections_.erase(link);
    link_lost(link, why, now());
    settle();
}

bool driver::notice_budget::take() {
    const auto time = std::chrono::steady_clock::now();
    if (time - since >= std::chrono::minutes(1)) {
        since = time;
        spent = 0;
    }
    return spent++ < lines_a_minute;
}

/// Lines that strangers can cause are bounded, and take no room from others.
void driver::report(bool refused, const std::string& line) {
    if (refused) return report_refused(stranger_notices_, line);
    if (options_.notice) options_.notice(line);
}

void driver::report_refused(notice_budget& budget, const std::string& line) {
    {
        const std::lock_guard lock(status_mutex_);
        ++status_.refused;
    }
    if (options_.notice && budget.take()) options_.notice(line);
}

/// The list of keys has changed.
void driver::drop_revoked() {
    std::vector<link_id> revoked;
    for (const auto& [link, c] : connections_)
        if (!gate_.allows(c->tls())) revoked.push_back(link);
    for (const link_id link : revoked) {
        const auto it = connections_.find(link);
        if (it == connections_.end()) continue;
        report_refused(revoked_notices_, "closed the connection of peer " +
                                             std::to_string(peer_id_of(it->second->tls()->peer())) +
                                             ": its key is no longer on the list");
        it->second->abort();
        connections_.erase(it);
        link_lost(link, "its key is no longer on the list", now());
        settle();
    }
}

void driver::note_commit(const commit_record& record) {
    const std::lock_guard lock(status_mutex_);
    status_.round = std::max(status_.round, record.round + 1);
    for (auto& [peer, p] : peers_) p.contributed_last = false;
    for (const committed_payload& c : record.contributions) {
        peer_status& p = peers_[c.peer];
        p.peer = c.peer;
        p.contributed_last = true;
        p.last_round = record.round;
    }
}

node_status driver::status() const {
    const std::lock_guard lock(status_mutex_);
    node_status out = status_;
    for (const auto& [peer, p] : peers_) out.peers.push_back(p);
    return out;
}

void driver::add_wait(std::chrono::duration<double> time) {
    const std::lock_guard lock(status_mutex_);
    status_.wait_seconds += time.count();
}

}  // namespace thinwire::runtime
