#include <thinwire/io/run_log.hpp>

#include "driver.hpp"
#include <asio/ip/tcp.hpp>
#include <asio/ip/v6_only.hpp>

#include <optional>
#include <utility>

namespace thinwire::runtime {

namespace {

/// The address to listen on; throws node_error.
asio::ip::tcp::endpoint listening_point(asio::io_context& io, const address& where, bool plaintext) {
    asio::error_code error;
    asio::ip::address host = asio::ip::make_address(where.host, error);
    if (error) {
        asio::ip::tcp::resolver resolver(io);
        const auto found = resolver.resolve(where.host, "", asio::ip::resolver_base::passive, error);
        if (error || found.empty())
            throw node_error(node_errc::unreachable, "cannot listen on " + to_string(where) + ": host '" + where.host +
                                                         "' is not known (" + error.message() + ")");
        host = found.begin()->endpoint().address();
    }
    if (!is_loopback(host) && plaintext)
        throw node_error(node_errc::unreachable,
                         "cannot listen on " + to_string(where) + ": plaintext is for loopback addresses only");
    return {host, where.port};
}

asio::ip::tcp::acceptor listen(asio::io_context& io, const address& where, bool plaintext) {
    const asio::ip::tcp::endpoint point = listening_point(io, where, plaintext);
    asio::ip::tcp::acceptor acceptor(io);
    asio::error_code error;
    acceptor.open(point.protocol(), error);
    if (!error) acceptor.set_option(asio::ip::tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor.bind(point, error);
    if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
    if (error == asio::error::address_in_use)
        throw node_error(node_errc::port_in_use, "cannot listen on " + to_string(where) + ": address already in use");
    if (error)
        throw node_error(node_errc::unreachable, "cannot listen on " + to_string(where) + ": " + error.message());
    return acceptor;
}

run_log open_log(const node_options& options) {
    try {
        result<run_log> log = run_log::open(options.log, options.run,
                                            {.first_round = options.next_round,
                                             .durable = options.log_durable,
                                             .segment_bytes = options.log_segment_bytes});
        if (!log)
            throw node_error(log.error().code == errc::mismatch ? node_errc::run_mismatch : node_errc::storage,
                             log.error().message);
        const std::uint64_t first = log->first_round();
        const std::uint64_t next = log->next_round();
        if (options.next_round < first || options.next_round > next)
            throw node_error(node_errc::replica_diverged,
                             "log '" + options.log.string() + "' has rounds " + std::to_string(first) + " to " +
                                 std::to_string(next) + ", the replica is at round " +
                                 std::to_string(options.next_round) +
                                 (options.next_round > next ? ": the end of the log was lost, as by a power "
                                                              "cut; without the log the run goes on from there"
                                                            : ""));
        return std::move(*log);
    } catch (const io_error& problem) {
        throw node_error(node_errc::storage, problem.what());
    }
}

sequencer_settings settings_of(const node_options& options, const run_log& log) {
    sequencer_settings s;
    s.run = options.run;
    s.self = options.self;
    s.name = options.name;
    s.manifest = options.manifest;
    s.log_begin = log.first_round();
    s.next_round = log.next_round();
    s.local_round = options.next_round;
    s.min_peers = options.min_peers;
    s.validate = options.validate;
    s.min_deadline = to_timestamp(options.min_deadline);
    s.max_deadline = to_timestamp(options.max_deadline);
    s.handshake_timeout = to_timestamp(options.handshake_timeout);
    s.keepalive_interval = to_timestamp(options.keepalive_interval);
    s.keepalive_timeout = to_timestamp(options.keepalive_timeout);
    s.leave_timeout = to_timestamp(options.leave_timeout);
    s.max_links = options.max_connections;
    return s;
}

class founder final : public driver {
 public:
    explicit founder(node_options options)
        : driver(std::move(options)),
          acceptor_(listen(io_, parse_address(options_.address).value(), options_.plaintext)),
          port_(acceptor_.local_endpoint().port()),
          log_(open_log(options_)),
          accept_pause_(io_),
          machine_(settings_of(options_, log_), now()) {
        status_.round = log_.next_round();
        note_log();
        box().announce(log_.next_round());
        post([this] {
            settle();
            accept();
        });
        run();
    }
    ~founder() override { join(); }

    std::uint16_t port() const override { return port_; }

    void payload_ready(std::uint64_t round, shared_bytes payload) override {
        post([this, round, payload = std::move(payload)] {
            machine_.payload_ready(round, payload, now());
            settle();
        });
    }
    void taken(std::uint64_t round) override {
        post([this, round] {
            machine_.taken(round, now());
            settle();
        });
    }
    void publish_snapshot(std::uint64_t round, shared_bytes bytes) override {
        if (const std::string no = objection(round, status().log_begin); !no.empty()) throw value_error(no);
        post([this, round, bytes = std::move(bytes)] {
            // The log may have been cut since the caller asked: nobody can start from there.
            if (const std::string no = objection(round, log_.first_round()); !no.empty()) return report(false, no);
            machine_.snapshot_published(round, bytes, now());
            settle();
        });
    }
    void drop_log_before(std::uint64_t round) override {
        post([this, round] {
            if (over_) return;
            try {
                log_.drop_before(machine_.log_needed_from(round));
            } catch (const thinwire::error& problem) {
                machine_.storage_failed(problem.what(), now());
            }
            machine_.log_begins(log_.first_round());
            note_log();
            settle();
        });
    }
    void leave(bool stop_run) override {
        post([this, stop_run] {
            machine_.leave(stop_run, now());
            settle();
        });
    }

 private:
    static std::string objection(std::uint64_t round, std::uint64_t log_begin) {
        if (round >= log_begin) return {};
        return "publish_snapshot: round " + std::to_string(round) + ", expected at least " + std::to_string(log_begin) +
               ", where the log begins";
    }

    std::vector<effect> take_effects() override { return machine_.take_effects(); }
    std::optional<timestamp> wake_at() const override { return machine_.wake_at(); }
    void tick(timestamp at) override { machine_.tick(at); }
    void link_lost(link_id link, const std::string&, timestamp at) override {
        machine_.link_closed(link, at);
        refresh();
    }

    void on_message(link_id link, message m) override {
        machine_.received(link, std::move(m), now());
        settle();
    }
    void on_broken(link_id link, const std::string& why) override {
        machine_.broken(link, why, now());
        settle();
    }
    void on_bytes(connection& c, std::size_t sent, std::size_t received) override {
        driver::on_bytes(c, sent, received);
        if (received > 0) machine_.heard(c.link(), now());
    }

    using driver::perform_one;
    void perform_one(admit_effect& e) override {
        driver::perform_one(e);
        for (const member_status& m : machine_.members())
            if (m.peer == e.peer) identify(e.link, e.peer, m.name);
    }
    void perform_one(close_effect& e) override {
        driver::perform_one(e);
        refresh();
    }
    void perform_one(store_effect& e) override {
        try {
            std::vector<contribution> parts;
            for (const committed_payload& c : e.record->contributions) parts.push_back({c.peer, *c.payload});
            log_.append(commit{e.record->round, parts});
        } catch (const thinwire::error& problem) {
            return machine_.storage_failed(problem.what(), now());
        }
        note_commit(*e.record);
        box().announce(e.record->round + 1);
        machine_.stored(now());
        refresh();
        note_log();
    }
    void perform_one(load_effect& e) override {
        auto record = std::make_shared<commit_record>();
        try {
            const result<ok> read = log_.read(e.round, e.round + 1, [&](const commit& c) {
                record->round = c.round;
                for (const contribution& part : c.contributions)
                    record->contributions.push_back(
                        {part.peer, digest_of(part.payload), share({part.payload.begin(), part.payload.end()})});
            });
            if (!read) return machine_.storage_failed(read.error().message, now());
        } catch (const thinwire::error& problem) {
            return machine_.storage_failed(problem.what(), now());
        }
        machine_.loaded(std::move(record), now());
    }
    void perform_one(rejected_effect& e) override {
        {
            const std::lock_guard lock(status_mutex_);
            status_.last_refusal = e.text;
        }
        box().reject(e.round, e.text);
    }
    void on_over() override {
        asio::error_code ignored;
        acceptor_.close(ignored);
        accept_pause_.cancel();
        refresh();
        try {
            if (log_.tentative()) log_.mark_final(log_.next_round() - 1);
            log_.sync();
        } catch (const io_error& problem) {
            box().end(node_errc::storage, problem.what());
        }
    }

    void note_log() {
        const std::lock_guard lock(status_mutex_);
        status_.log_begin = log_.first_round();
        status_.log_bytes = log_.bytes();
    }

    /// Who is there, after links came or went.
    void refresh() {
        const auto members = machine_.members();
        const std::lock_guard lock(status_mutex_);
        for (const member_status& m : members) {
            peer_status& p = peers_[m.peer];
            p.peer = m.peer;
            p.name = m.name;
            p.present = m.present && (!over_ || m.peer == options_.self);
        }
    }

    void enter(channel open) {
        if (over_ || lingering() >= options_.max_connections) return;
        const link_id link = ++last_link_;
        adopt(link, std::move(open), {message_type::hello, message_type::ping, message_type::goodbye});
        machine_.link_opened(link, now());
        settle();
    }

    void accept() {
        if (over_) return;
        acceptor_.async_accept([this](asio::error_code error, asio::ip::tcp::socket socket) {
            if (over_ || error == asio::error::operation_aborted) return;
            if (!error) {
                gate_.receive(std::move(socket), [this](channel open) { enter(std::move(open)); });
                return accept();
            }
            // No descriptors or no memory: those who are connected matter more than those who wait.
            gate_.shed();
            accept_pause_.expires_after(std::chrono::milliseconds(100));
            accept_pause_.async_wait([this](asio::error_code cancelled) {
                if (!cancelled) accept();
            });
        });
    }

    asio::ip::tcp::acceptor acceptor_;
    std::uint16_t port_;
    run_log log_;
    asio::steady_timer accept_pause_;
    sequencer machine_;
    link_id last_link_ = 0;
};

}  // namespace

std::unique_ptr<driver> make_founder(node_options options) {
    return std::make_unique<founder>(std::move(options));
}

}  // namespace thinwire::runtime
