#include "driver.hpp"
#include <asio/connect.hpp>
#include <asio/ip/tcp.hpp>

#include <algorithm>
#include <optional>
#include <random>
#include <utility>

namespace thinwire::runtime {

namespace {

std::uint64_t draw_session() {
    std::random_device device;
    return (static_cast<std::uint64_t>(device()) << 32U) | device();
}

follower_settings settings_of(const node_options& options) {
    follower_settings s;
    s.self = options.self;
    s.session = draw_session();
    s.name = options.name;
    s.where = "the founder at " + options.address;
    s.run = options.run;
    s.next_round = options.next_round;
    s.fresh = options.fresh;
    s.connect_timeout = to_timestamp(options.connect_timeout);
    s.reconnect_timeout = to_timestamp(options.reconnect_timeout);
    s.keepalive_interval = to_timestamp(options.keepalive_interval);
    s.keepalive_timeout = to_timestamp(options.keepalive_timeout);
    return s;
}

std::string plaintext_refusal(const std::string& where) {
    return "cannot connect to " + where + ": plaintext is for loopback addresses only";
}

class joiner final : public driver {
 public:
    joiner(node_options options, std::vector<address> where)
        : driver(std::move(options)), where_(std::move(where)), resolver_(io_), machine_(settings_of(options_), now()) {
        status_.round = options_.fresh ? 0 : options_.next_round;
        post([this] { settle(); });
        run();
    }
    ~joiner() override { join(); }

    std::uint16_t port() const override { return where_.front().port; }

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
    void drop_log_before(std::uint64_t) override {
        throw value_error("drop_log_before: this node is a joiner, expected the founder");
    }
    void publish_snapshot(std::uint64_t, shared_bytes) override {
        throw value_error("publish_snapshot: this node is a joiner, expected the founder");
    }
    void leave(bool) override {
        post([this] {
            machine_.leave(now());
            settle();
        });
    }

 private:
    std::vector<effect> take_effects() override { return machine_.take_effects(); }
    std::optional<timestamp> wake_at() const override { return machine_.wake_at(); }
    void tick(timestamp at) override { machine_.tick(at); }
    void link_lost(link_id link, const std::string& why, timestamp at) override {
        founder_present(false);
        machine_.link_closed(link, why, at);
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
    void perform_one(dial_effect& e) override {
        const address& where = where_[attempts_++ % where_.size()];
        asio::error_code error;
        const asio::ip::address literal = asio::ip::make_address(where.host, error);
        if (!error) return connect(e.link, {asio::ip::tcp::endpoint(literal, where.port)});
        resolver_.async_resolve(where.host, std::to_string(where.port),
                                [this, link = e.link](asio::error_code problem, const auto& found) {
                                    if (problem) return dial_failed(link, "host not known: " + problem.message());
                                    std::vector<asio::ip::tcp::endpoint> points;
                                    for (const auto& entry : found) points.push_back(entry.endpoint());
                                    connect(link, std::move(points));
                                });
    }
    void connect(link_id link, std::vector<asio::ip::tcp::endpoint> points) {
        if (options_.plaintext) std::erase_if(points, [](const auto& point) { return !is_loopback(point.address()); });
        if (points.empty()) return post([this, link] { dial_failed(link, plaintext_refusal(options_.address)); });
        dialling_ = link;
        auto socket = std::make_shared<asio::ip::tcp::socket>(io_);
        dial_socket_ = socket;
        asio::async_connect(
            *socket, points, [this, link, socket](asio::error_code problem, const asio::ip::tcp::endpoint&) {
                if (dialling_ != link) return;
                dialling_ = 0;
                dial_socket_.reset();
                if (problem) return dial_failed(link, problem.message());
                dialling_ = link;
                handshake_ = gate_.dial(
                    std::move(*socket), [this, link](channel open) { connected(link, std::move(open)); },
                    [this, link](tls_end end, const std::string& why) { refused(link, end, why); });
            });
    }
    void connected(link_id link, channel open) {
        dialling_ = 0;
        adopt(link, std::move(open),
              {message_type::welcome, message_type::refuse, message_type::reject, message_type::commit,
               message_type::piece, message_type::ping, message_type::goodbye});
        machine_.dialled(link, now());
        settle();
    }
    /// No handshake. Who was never let in has a wrong address or a wrong key; later the cause may pass.
    void refused(link_id link, tls_end end, const std::string& why) {
        dialling_ = 0;
        const bool first = founder_ == 0 && where_.size() == 1;
        const std::string founder = "the founder at " + options_.address;
        if (end == tls_end::refused_there)
            return give_up(node_errc::refused,
                           founder + " refused: " + why + ", " + to_string(options_.identity->key()));
        if (end == tls_end::refused_here && first)
            return give_up(node_errc::untrusted, founder + " is not trusted: " + why);
        if (end == tls_end::broken && first)
            return give_up(node_errc::protocol, founder + " does not answer as a thinwire founder: " + why);
        dial_failed(link, why);
    }
    void give_up(node_errc code, const std::string& line) {
        box().end(code, line);
        machine_.leave(now());
        settle();
    }
    void dial_failed(link_id link, const std::string& why) {
        machine_.dial_failed(link, why, now());
        settle();
    }
    void close_unconnected(link_id link) override {
        if (link != dialling_) return;
        dialling_ = 0;
        gate_.abandon(std::exchange(handshake_, {}));
        asio::error_code ignored;
        if (dial_socket_) dial_socket_->close(ignored);
        dial_socket_.reset();
    }

    void perform_one(welcomed_effect& e) override {
        founder_ = e.welcome.sequencer;
        if (!connections_.empty()) identify(connections_.begin()->first, founder_, e.welcome.name);
        box().admit(e.welcome);
    }
    void perform_one(close_effect& e) override {
        driver::perform_one(e);
        founder_present(false);
    }
    void perform_one(snapshot_effect& e) override {
        {
            const std::lock_guard lock(status_mutex_);
            status_.round = std::max(status_.round, e.round);
        }
        box().put_snapshot(e.bytes, e.round);
    }
    void perform_one(deliver_effect& e) override {
        note_commit(*e.record);
        driver::perform_one(e);
    }
    void perform_one(rejected_effect& e) override {
        const std::lock_guard lock(status_mutex_);
        status_.last_refusal = e.text;
    }
    void on_over() override { resolver_.cancel(); }

    void founder_present(bool present) {
        const std::lock_guard lock(status_mutex_);
        if (founder_ != 0) peers_[founder_].present = present;
    }

    std::vector<address> where_;
    std::size_t attempts_ = 0;
    asio::ip::tcp::resolver resolver_;
    link_id dialling_ = 0;
    std::shared_ptr<asio::ip::tcp::socket> dial_socket_;
    std::weak_ptr<handshake> handshake_;
    peer_id founder_ = 0;
    follower machine_;
};

}  // namespace

std::unique_ptr<driver> make_joiner(node_options options) {
    result<std::vector<address>> where = parse_addresses(options.address);
    if (!where) throw value_error(where.error().message);
    for (const address& one : *where) {
        asio::error_code error;
        const asio::ip::address literal = asio::ip::make_address(one.host, error);
        if (!error && !is_loopback(literal) && options.plaintext)
            throw node_error(node_errc::unreachable, plaintext_refusal(options.address));
    }
    return std::make_unique<joiner>(std::move(options), std::move(*where));
}

}  // namespace thinwire::runtime
