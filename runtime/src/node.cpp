#include <thinwire/runtime/node.hpp>

#include "driver.hpp"
#include "listening.hpp"
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <functional>
#include <iterator>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>

namespace thinwire::runtime {

namespace {

constexpr std::size_t hand_out_limit = std::size_t{64} << 20U;
constexpr std::chrono::hours longest_time{24 * 365};

void check_seeds(const node_options& o) {
    const result<std::vector<address>> where = parse_addresses(o.address);
    if (!where) throw value_error(where.error().message);
    for (const address& one : *where) {
        asio::error_code error;
        const asio::ip::address literal = asio::ip::make_address(one.host, error);
        if (!error && !is_loopback(literal) && o.plaintext)
            throw node_error(node_errc::unreachable,
                             "cannot connect to " + o.address + ": plaintext is for loopback addresses only");
    }
}

void check_options(node_options& o, bool founder) {
    const auto refuse = [](const std::string& key, const std::string& value, const std::string& expected) {
        throw value_error("node_options: " + key + " " + value + ", expected " + expected);
    };
    if (!o.identity && !o.plaintext) refuse("identity", "none", "one, or plaintext on loopback addresses");
    if (o.identity && o.plaintext) refuse("identity", "beside plaintext", "one of the two");
    if (o.identity && o.access.empty()) refuse("access", "empty", "the file of the keys that are let in");
    if (o.identity && o.self != 0 && o.self != o.identity->peer())
        refuse("self", std::to_string(o.self), "0 or " + std::to_string(o.identity->peer()) + ", the identity's");
    if (o.identity) o.self = o.identity->peer();
    if (o.self == 0) refuse("self", "0", "an identity that is not 0");
    if (o.name.size() > wire_limits::max_name)
        refuse("name", "of " + std::to_string(o.name.size()) + " bytes", "at most 64");
    if (o.about.size() > wire_limits::max_about)
        refuse("about", "of " + std::to_string(o.about.size()) + " bytes", "at most 256");
    if (o.manifest.size() > wire_limits::max_manifest)
        refuse("manifest", "of " + std::to_string(o.manifest.size()) + " bytes", "at most 1 MiB");
    if (!founder && o.fresh && !o.manifest.empty())
        refuse("manifest", "of " + std::to_string(o.manifest.size()) + " bytes", "none, a fresh joiner gets the run's");
    if (o.min_peers < 1 || o.min_peers > 1024) refuse("min_peers", std::to_string(o.min_peers), "1..1024");
    if (o.max_payload < 1 || o.max_payload > (std::size_t{256} << 20U))
        refuse("max_payload", std::to_string(o.max_payload), "1 byte to 256 MiB");
    if (o.max_connections < 1) refuse("max_connections", "0", "at least 1");
    if (o.min_deadline.count() < 1 || o.max_deadline < o.min_deadline)
        refuse("min_deadline", std::to_string(o.min_deadline.count()) + " ms", "1 ms to max_deadline");
    if (o.keepalive_interval.count() < 1 || o.keepalive_timeout <= o.keepalive_interval)
        refuse("keepalive_interval", std::to_string(o.keepalive_interval.count()) + " ms",
               "1 ms to less than keepalive_timeout");
    for (const auto& [key, time] :
         {std::pair("connect_timeout", o.connect_timeout), std::pair("reconnect_timeout", o.reconnect_timeout),
          std::pair("takeover", o.takeover), std::pair("absence", o.absence), std::pair("max_deadline", o.max_deadline),
          std::pair("handshake_timeout", o.handshake_timeout), std::pair("keepalive_timeout", o.keepalive_timeout),
          std::pair("leave_timeout", o.leave_timeout)})
        if (time.count() < 1 || time > longest_time)
            refuse(key, std::to_string(time.count()) + " ms", "1 ms to a year");
    if (o.takeover < 2 * o.keepalive_interval)
        refuse("takeover", std::to_string(o.takeover.count()) + " ms", "at least twice keepalive_interval");
    if (founder && !o.votes) refuse("votes", "false", "true for the founder");
    if (!o.contributes && !o.votes) refuse("votes", "false", "true for a node that does not contribute");
    if (!o.listen.empty())
        if (const result<address> where = parse_address(o.listen); !where) throw value_error(where.error().message);
    if (!o.advertise.empty())
        if (const result<address> where = parse_address(o.advertise); !where) throw value_error(where.error().message);
    if (o.advertise.size() > wire_limits::max_address) refuse("advertise", o.advertise, "at most 256 characters");
    if (!founder) check_seeds(o);
    if (o.log.empty()) refuse("log", "empty", "a folder for the run log");
    if (o.log_segment_bytes == 0 || o.log_segment_rounds == 0)
        refuse(o.log_segment_bytes == 0 ? "log_segment_bytes" : "log_segment_rounds", "0", "at least 1");
    if (founder && o.run == digest{}) refuse("run", "zero", "the digest of the run");
}

}  // namespace

std::string_view to_string(node_errc code) noexcept {
    constexpr std::string_view names[] = {"port_in_use",      "unreachable", "version_mismatch", "run_mismatch",
                                          "refused",          "untrusted",   "peers_lost",       "run_stopped",
                                          "replica_diverged", "behind",      "storage",          "protocol"};
    static_assert(std::size(names) == 1 + static_cast<std::size_t>(node_errc::protocol));
    const auto i = static_cast<std::size_t>(code);
    return i < std::size(names) ? names[i] : "unknown";
}

/// The caller's side: what was handed out, and where the replica stands.
class node::implementation {
 public:
    implementation(std::unique_ptr<driver> with, bool founder)
        : driver_(std::move(with)), stopped_(driver_->options().stop, [&box = driver_->box()] { box.stop(); }) {
        next_ = driver_->options().next_round;
        if (founder) return;
        driver_->box().wait_admitted(driver_->options().fresh);
        if (driver_->options().fresh) next_ = driver_->box().snapshot_round();
    }

    driver& get() noexcept { return *driver_; }

    std::span<const commit> take(std::uint64_t round, bool always) {
        std::vector<commit_ptr> records = driver_->box().take(round, always, hand_out_limit);
        records_ = std::move(records);
        parts_.clear();
        commits_.clear();
        for (const commit_ptr& record : records_) {
            auto& parts = parts_.emplace_back();
            for (const committed_payload& c : record->contributions) parts.push_back({c.peer, *c.payload});
        }
        for (std::size_t i = 0; i < records_.size(); ++i) commits_.push_back({records_[i]->round, parts_[i]});
        if (!records_.empty()) {
            next_ = records_.back()->round + 1;
            driver_->tell([next = next_](participant& m, timestamp now) { m.taken(next, now); });
        }
        return commits_;
    }
    void check_round(const char* what, std::uint64_t round) const {
        if (round != next_)
            throw value_error(std::string(what) + ": round " + std::to_string(round) + ", expected " +
                              std::to_string(next_));
    }

 private:
    std::unique_ptr<driver> driver_;
    std::stop_callback<std::function<void()>> stopped_;
    std::uint64_t next_ = 0;
    std::vector<commit_ptr> records_;
    std::vector<std::vector<contribution>> parts_;
    std::vector<commit> commits_;
};

node::node(std::unique_ptr<implementation> impl) noexcept : impl_(std::move(impl)) {}
node::~node() = default;

std::unique_ptr<node> node::open(node_options options, bool founder) {
    check_options(options, founder);
    try {
        auto with = std::make_unique<driver>(std::move(options), founder);
        return std::unique_ptr<node>(new node(std::make_unique<implementation>(std::move(with), founder)));
    } catch (const io_error& problem) {
        throw node_error(node_errc::storage, problem.what());
    } catch (const std::filesystem::filesystem_error& problem) {
        throw node_error(node_errc::storage,
                         "'" + problem.path1().string() + "' cannot be used: " + problem.code().message());
    }
}

void node::check(node_options options, bool founder) {
    check_options(options, founder);
    if (options.listen.empty()) return;
    asio::io_context io;
    asio::ip::tcp::acceptor acceptor(io);
    listen_at(acceptor, parse_address(options.listen).value(), options.plaintext);
}

std::unique_ptr<node> node::found(node_options options) {
    return open(std::move(options), true);
}

std::unique_ptr<node> node::join(node_options options) {
    return open(std::move(options), false);
}

peer_id node::self() const noexcept {
    return impl_->get().options().self;
}

digest node::run() const {
    const auto met = impl_->get().box().met();
    return met ? met->first : impl_->get().options().run;
}

std::string node::manifest() const {
    const auto met = impl_->get().box().met();
    return met ? met->second : impl_->get().options().manifest;
}

std::uint16_t node::port() const {
    return impl_->get().port();
}

std::vector<std::byte> node::take_snapshot() {
    const shared_bytes bytes = impl_->get().box().take_snapshot().first;
    return bytes ? *bytes : std::vector<std::byte>{};
}

std::uint64_t node::snapshot_round() const {
    return impl_->get().box().snapshot_round();
}

std::span<const commit> node::catch_up(std::uint64_t next_round) {
    impl_->check_round("catch_up", next_round);
    return impl_->take(next_round, false);
}

std::span<const commit> node::exchange(std::uint64_t round, std::span<const std::byte> payload) {
    impl_->check_round("exchange", round);
    if (payload.empty() || payload.size() > impl_->get().options().max_payload)
        throw value_error("exchange: a payload of " + std::to_string(payload.size()) + " bytes, expected 1 to " +
                          std::to_string(impl_->get().options().max_payload));
    const auto start = std::chrono::steady_clock::now();
    impl_->get().payload_ready(round, share({payload.begin(), payload.end()}));
    const auto commits = impl_->take(round, true);
    impl_->get().add_wait(std::chrono::steady_clock::now() - start);
    if (round < impl_->get().stored()) return commits;
    for (const contribution& part : commits.front().contributions)
        if (part.peer == self() && !std::ranges::equal(part.payload, payload))
            throw node_error(node_errc::refused, "round " + std::to_string(round) + " holds another payload of peer " +
                                                     std::to_string(self()) +
                                                     ": another process takes part under this identity");
    return commits;
}

std::span<const commit> node::follow(std::uint64_t round) {
    impl_->check_round("follow", round);
    return impl_->take(round, true);
}

void node::publish_snapshot(std::uint64_t round, std::vector<std::byte> bytes) {
    if (bytes.empty()) throw value_error("publish_snapshot: 0 bytes, expected a snapshot");
    impl_->get().publish_snapshot(round, share(std::move(bytes)));
}

void node::drop_log_before(std::uint64_t round) {
    impl_->get().drop_log_before(round);
}

void node::check_payloads_with(
    std::function<result<ok>(std::uint64_t round, peer_id peer, std::span<const std::byte> payload)> check) {
    impl_->get().tune([check = std::move(check)](participant_settings& s) { s.validate = check; });
}

void node::set_max_contributors(std::size_t most) {
    impl_->get().tune([most](participant_settings& s) { s.max_contributors = most; });
}

void node::set_deadlines(std::chrono::milliseconds least, std::chrono::milliseconds most, bool waits_for_slow) {
    if (least.count() < 1 || most < least || most > longest_time)
        throw value_error("set_deadlines: " + std::to_string(least.count()) + " ms to " + std::to_string(most.count()) +
                          " ms, expected 1 ms <= least <= most <= a year");
    impl_->get().tune([least, most, waits_for_slow](participant_settings& s) {
        s.min_deadline = to_timestamp(least);
        s.max_deadline = to_timestamp(most);
        s.waits_for_slow = waits_for_slow;
    });
}

void node::set_takeover(std::chrono::milliseconds takeover) {
    if (takeover.count() < 4 || takeover > longest_time)
        throw value_error("set_takeover: " + std::to_string(takeover.count()) + " ms, expected 4 ms to a year");
    const std::chrono::milliseconds alive = std::min(impl_->get().options().keepalive_interval, takeover / 4);
    impl_->get().tune([takeover, alive](participant_settings& s) {
        s.takeover = to_timestamp(takeover);
        s.keepalive_interval = to_timestamp(alive);
    });
}

void node::request(const control_change& change) {
    if (change.what < control_change::kind::pause || change.what > control_change::last_kind)
        throw value_error("request: kind " + std::to_string(static_cast<int>(change.what)) + ", expected 1 to " +
                          std::to_string(static_cast<int>(control_change::last_kind)));
    if (change.key.size() > wire_limits::max_text || change.value.size() > wire_limits::max_text)
        throw value_error("request: key or value of " +
                          std::to_string(std::max(change.key.size(), change.value.size())) +
                          " bytes, expected at most " + std::to_string(wire_limits::max_text));
    impl_->get().tell([change](participant& m, timestamp now) { m.request(change, now); });
}

void node::leave(bool stop_run) {
    driver& d = impl_->get();
    d.leave(stop_run);
    d.box().wait_quiet(d.options().leave_timeout + std::chrono::seconds(3));
}

void node::stop() noexcept {
    impl_->get().box().stop();
}

node_status node::status() const {
    node_status now = impl_->get().status();
    now.ended = impl_->get().box().ended();
    return now;
}

}  // namespace thinwire::runtime
