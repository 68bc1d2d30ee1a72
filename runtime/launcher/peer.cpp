#include "peer.hpp"

#include "about.hpp"
#include "control.hpp"
#include "event_log.hpp"
#include "exit_code.hpp"
#include "stop_signal.hpp"
#include <spdlog/fmt/fmt.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <functional>
#include <limits>
#include <mutex>
#include <random>
#include <stop_token>
#include <thread>
#include <utility>

namespace thinwire::launcher {
namespace {

using clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

/// How long a stop signal waits for a round that does not end, such as one whose founder is gone.
constexpr std::chrono::seconds stop_grace{10};

/// Ends a waiting call some time after a stop signal. What it waited with is on disk by then.
class stop_watch {
 public:
    /// `hopeless`: that it cannot end by itself.
    stop_watch(clock::duration grace, std::function<void()> give_up, std::function<bool()> hopeless = nullptr)
        : grace_(grace),
          give_up_(std::move(give_up)),
          hopeless_(std::move(hopeless)),
          thread_([this](const std::stop_token& end) { watch(end); }) {}

 private:
    void watch(const std::stop_token& end) {
        std::optional<clock::time_point> asked;
        std::unique_lock lock(mutex_);
        while (!end.stop_requested()) {
            wake_.wait_for(lock, end, milliseconds(200), [] { return false; });
            if (stop_requested() && !asked) asked = clock::now();
            if (asked && (clock::now() - *asked >= grace_ || (hopeless_ && hopeless_()))) return give_up_();
        }
    }

    clock::duration grace_;
    std::function<void()> give_up_;
    std::function<bool()> hopeless_;
    std::mutex mutex_;
    std::condition_variable_any wake_;
    std::jthread thread_;
};

/// The host of "host:port".
std::string host_of(const std::string& address) {
    const std::size_t colon = address.rfind(':');
    return colon == std::string::npos ? address : address.substr(0, colon);
}

/// 128 random bits.
std::string fresh_id() {
    std::random_device random;
    std::string id;
    for (int i = 0; i < 4; ++i) id += fmt::format("{:08x}", random());
    return id;
}

/// Options that the node refuses are the operator's.
template <class Open>
auto configured(const configuration& settings, const Open& open) {
    try {
        return open();
    } catch (const value_error& problem) {
        throw launcher_error(exit_code::usage, std::string("configuration: peer: ") + problem.what());
    } catch (const runtime::node_error& problem) {
        if (problem.code() != runtime::node_errc::protocol || !settings.peer.plaintext) throw;
        throw launcher_error(exit_code::mismatch, std::string(problem.what()) + " (here peer.plaintext = true)");
    }
}

}  // namespace

schedule schedule_of(const configuration& settings) {
    schedule plan;
    plan.kind = settings.schedule.kind == "constant" ? schedule_kind::constant
                : settings.schedule.kind == "wsd"    ? schedule_kind::wsd
                                                     : schedule_kind::cosine;
    plan.peak = static_cast<float>(settings.optimizer.peak_rate());
    plan.warmup = static_cast<std::uint64_t>(settings.schedule.warmup);
    plan.total = static_cast<std::uint64_t>(settings.run.rounds);
    plan.decay = static_cast<std::uint64_t>(settings.schedule.decay);
    plan.floor_fraction = static_cast<float>(settings.schedule.floor);
    return plan;
}

peer::peer(configuration settings, bool founder, std::optional<runtime::invite> line)
    : settings_(std::move(settings)),
      founder_(founder),
      where_{settings_.peer.directory},
      lock_(where_),
      identity_(std::make_shared<const runtime::identity>(own_identity(where_))),
      self_(identity_->peer()),
      invite_(std::move(line)),
      text_(settings_),
      keeper_(where_.run_log(), parse_keep_log(settings_.run.keep_log)) {
    // What the operator can have got wrong shows here, before an invite is used and before the run has a member more.
    check(settings_);
    if (!settings_.data.train_digest.empty()) text_.require_digest(settings_.data.train_digest);
    if (settings_.peer.name.empty()) settings_.peer.name = "peer" + std::to_string(self_ % 10000);
    observer_ = std::make_unique<observer>(settings_, where_, founder_, self_);
    if (!settings_.peer.tensorboard.empty()) tensorboard_.emplace(settings_.peer.tensorboard);
    try {
        if (founder_)
            open_founder();
        else
            open_joiner();
        begin_training();
    } catch (...) {
        if (node_) node_->leave(false);
        throw;
    }
}

void peer::begin_training() {
    tuned_ = settings_;
    prepare_rounds();
    metrics_.emplace(where_.metrics());
    control_.emplace(where_, [this](const nlohmann::json& request) { return control(*node_, settings_, request); });
    announce_start();
    observer_->entered(*node_, settings_, replica_->optimizer().round(), replica_->parameter_count());
    if (observer_->serves()) observer_->replica(replica_->optimizer().round(), replica_->optimizer().replica_digest());
}

peer::~peer() = default;

/// Where a peer that enters listens.
std::string listening_of(const configuration& settings) {
    const auto& peer = settings.peer;
    if (peer.listen == "none") return {};
    if (peer.listen != "auto") return peer.listen;
    return peer.plaintext || host_of(peer.address).starts_with("127.") ? "127.0.0.1:0" : "0.0.0.0:0";
}

runtime::node_options peer::node_options() {
    runtime::node_options options;
    options.self = self_;
    options.plaintext = settings_.peer.plaintext;
    if (!options.plaintext) {
        options.identity = identity_;
        options.access = where_.access();
    }
    options.notice = [](const std::string& line) { log_event(log_level::warning, "notice", line); };
    options.enrolled = [](const runtime::public_key& key, const std::string& name, const std::string& from) {
        log_event(log_level::info, "enrolled",
                  fmt::format("enrolled '{}' from {}: key {} (fingerprint {})", name, from, to_string(key),
                              to_string(runtime::fingerprint(key), 16)),
                  {{"peer_id", std::to_string(runtime::peer_id_of(key))}, {"name", name}});
    };
    options.name = settings_.peer.name;
    options.about = about_text(settings_);
    options.advertise = settings_.peer.advertise;
    options.log = where_.run_log();
    options.log_durable = settings_.peer.durable;
    options.log_segment_bytes = keeper_.policy().segment_bytes();
    options.log_segment_rounds = keeper_.policy().segment_rounds();
    if (replica_) {
        options.run = replica_->run();
        options.manifest = manifest(settings_);
        options.next_round = replica_->optimizer().round();
        options.validate = observer_->timed(replica_->payload_check());
    }
    options.awaits_check = !replica_;
    options.takeover = milliseconds(settings_.peer.takeover_ms);
    options.keepalive_interval = std::min(options.keepalive_interval, options.takeover / 4);
    options.contributes = settings_.peer.contributes;
    options.max_contributors = static_cast<std::size_t>(settings_.run.max_peers);
    options.min_peers = static_cast<int>(settings_.run.min_peers);
    options.connect_timeout = milliseconds(settings_.peer.connect_timeout_ms);
    options.reconnect_timeout = milliseconds(settings_.peer.reconnect_timeout_ms);
    options.min_deadline = milliseconds(settings_.peer.min_deadline_ms);
    options.max_deadline = milliseconds(settings_.peer.max_deadline_ms);
    return options;
}

void peer::take_manifest_of(const snapshot& stored) {
    adopt_manifest(settings_, stored.manifest);
    compare_text();
}

void peer::compare_text() {
    check(settings_);
    text_.require_digest(settings_.data.train_digest);
    text_.divide(settings_);
}

void peer::build(const snapshot* from) {
    replica_.emplace(settings_);
    if (from != nullptr) {
        replica_->restore(*from);
        replica_->restore_private(where_);
    } else {
        replica_->begin();
    }
    tuned_ = settings_;
    if (settings_.peer.contributes) static_cast<void>(coefficients());  // before the run is founded or entered
    log_identity(to_string(replica_->run()), settings_.peer.name);
    log_round(replica_->optimizer().round());
}

/// The replica that DIR holds: the newest that its log joins on to, of its snapshot and of those beside the log. False
/// when there is none.
bool peer::restore() {
    std::optional<snapshot> stored;
    if (std::filesystem::exists(where_.snapshot())) stored = load_snapshot(where_);
    const auto fits = runtime::rounds_that_fit(where_.run_log());
    const auto joins_on = [&](std::uint64_t round) { return !fits || (round >= fits->first && round <= fits->second); };
    std::vector<std::uint64_t> beside;
    if (std::filesystem::exists(where_.run_log())) beside = log_snapshots(where_.run_log());
    std::erase_if(beside, [&](std::uint64_t round) { return !joins_on(round); });
    // One ahead of a log that holds rounds: the log lost its end, which the node refuses.
    const bool ahead = stored && fits && fits->first < fits->second && stored->round > fits->second;
    const bool own = stored && (joins_on(stored->round) || beside.empty() || ahead);
    if (!beside.empty() && (!own || beside.back() > stored->round)) {
        result<snapshot> other = snapshot::load(log_snapshot(where_.run_log(), beside.back()));
        if (!other) throw launcher_error(exit_code::storage, other.error().message);
        stored = std::move(*other);
    }
    if (!stored) return false;
    take_manifest_of(*stored);
    build(&*stored);
    return true;
}

void peer::open_founder() {
    const bool returns = restore();
    if (!returns) {
        text_.divide(settings_);
        if (text_.train().empty())
            throw launcher_error(
                exit_code::usage,
                "configuration: data.train is not set: expected a file of text, as this peer founds the run");
        settings_.data.train_digest = text_.train_digest();
        if (settings_.run.id.empty()) settings_.run.id = fresh_id();
        build(nullptr);
    }
    runtime::node_options options = node_options();
    options.listen = settings_.peer.address;
    configured(settings_, [&] { runtime::node::check(options, true); });
    if (!returns) replica_->save(where_);
    node_ = configured(settings_, [&] { return runtime::node::found(std::move(options)); });
    begin_log();
    const std::string address = read_text(where_.address());
    fmt::print("{}", address);
    std::fflush(stdout);
    const std::string_view shown = std::string_view(address).substr(0, address.find('\n'));
    const std::string how =
        settings_.peer.plaintext
            ? fmt::format(
                  " in plaintext; others enter with: thinwire join {} --peer.plaintext true --dir DIR --data FILE",
                  shown)
            : fmt::format("; `thinwire invite {}` prints the line with which another machine enters",
                          where_.root.string());
    log_event(log_level::info, "listening",
              fmt::format("run {} listens on {}{}", to_string(replica_->run(), 16), shown, how),
              {{"address", std::string(shown)}});
}

/// What makes this peer as good as any other: a log that can be replayed, a snapshot for those who enter, an address.
void peer::begin_log() {
    const stop_watch watch(clock::duration::zero(), [this] { node_->stop(); });
    keeper_.begin(node_->status().log_begin, replica_->optimizer().round(),
                  [this] { return replica_->make_snapshot(); });
    try {
        replay();
    } catch (const runtime::node_error& problem) {
        // A run that is stopped meanwhile ends this peer in order: train() meets it again.
        if (problem.code() != runtime::node_errc::run_stopped || stop_requested()) throw;
    }
    log_round(replica_->optimizer().round());
    node_->publish_snapshot(replica_->optimizer().round(), replica_->make_snapshot().encode());
    const std::string& listening = founder_ ? settings_.peer.address : listening_of(settings_);
    if (node_->port() != 0)
        return write_text(where_.address(), host_of(listening) + ":" + std::to_string(node_->port()) + "\n");
    std::error_code ignored;
    std::filesystem::remove(where_.address(), ignored);  // of an earlier start, which listened
}

/// Has this peer entered on the list of the one that invited, and that one on its own.
void peer::use_invite(runtime::node_options& options, const std::stop_token& stop) {
    if (options.run != digest{} && options.run != invite_->run)
        throw launcher_error(exit_code::mismatch, "join: '" + where_.root.string() + "' belongs to run " +
                                                      to_string(options.run, 16) + ", the invite is for run " +
                                                      to_string(invite_->run, 16) + ": expected another folder");
    options.run = invite_->run;
    runtime::access_list list(where_.access());
    options.address = runtime::enrol(*invite_, *identity_,
                                     {.name = settings_.peer.name, .timeout = options.connect_timeout, .stop = stop});
    if (list.rules().find(invite_->key) == nullptr) list.allow(invite_->key, "inviter");
}

void peer::require_known_peer() const {
    if (settings_.peer.plaintext || !runtime::access_list(where_.access()).rules().keys.empty()) return;
    throw launcher_error(exit_code::usage, "join: '" + where_.access().string() +
                                               "' names no key of a peer: expected the line that `thinwire invite` "
                                               "prints instead of an address, or `thinwire allow` first");
}

void peer::open_joiner() {
    const bool returns = restore();
    runtime::node_options options = node_options();
    options.fresh = !returns;
    options.address = settings_.peer.address;
    options.listen = listening_of(settings_);
    if (!invite_) require_known_peer();
    configured(settings_, [&] { runtime::node::check(options, false); });
    std::stop_source stop;
    options.stop = stop.get_token();
    {
        // Nothing has changed yet that would have to be saved, so a signal ends the wait for the others at once.
        const stop_watch watch(clock::duration::zero(), [&stop] { stop.request_stop(); });
        if (invite_) {
            use_invite(options, stop.get_token());
            settings_.peer.address = options.address;
        }
        options.listen = listening_of(settings_);
        node_ = configured(settings_, [&] { return runtime::node::join(std::move(options)); });
    }
    if (!returns) enter_fresh();
    begin_log();
    log_event(log_level::info, "entered",
              fmt::format("entered run {} in round {}", to_string(replica_->run(), 16), replica_->optimizer().round()));
}

void peer::enter_fresh() {
    adopt_manifest(settings_, node_->manifest());
    compare_text();
    const std::vector<std::byte> bytes = node_->take_snapshot();
    const result<snapshot> received = snapshot::decode(bytes);
    if (!received) throw launcher_error(exit_code::mismatch, "the run's snapshot: " + received.error().message);
    if (received->run != node_->run() || received->manifest != node_->manifest())
        throw launcher_error(exit_code::mismatch, "the run's snapshot is of another run than was announced");
    build(&*received);
    if (received->round == 0 && run_digest(received->manifest, replica_->parameters()) != node_->run())
        throw launcher_error(exit_code::mismatch,
                             "the run's first weights do not have the digest of run " + to_string(node_->run(), 16));
    node_->check_payloads_with(observer_->timed(replica_->payload_check()));
    node_->set_max_contributors(static_cast<std::size_t>(settings_.run.max_peers));
    node_->set_takeover(milliseconds(settings_.peer.takeover_ms));
    replica_->save(where_);
}

void peer::replay() {
    any_optimizer& optimizer = replica_->optimizer();
    while (!ended_) {
        const std::span<const commit> missed = node_->catch_up(optimizer.round());
        if (missed.empty()) return;
        for (const commit& one : missed) {
            // The commit that stops a run which is over is no round of it, and the last one.
            ended_ = one.round >= static_cast<std::uint64_t>(settings_.run.rounds);
            if (ended_) return;
            plan(optimizer.apply(one), 1);
            observer_->contributed({&one, 1});
        }
    }
}

nlohmann::json peer::event(const char* kind) const {
    return {{"event", kind}, {"time", unix_seconds()}, {"peer", settings_.peer.name}};
}

void peer::announce_start() {
    nlohmann::json line = event("start");
    line["round"] = replica_->optimizer().round();
    line["rounds"] = settings_.run.rounds;
    line["parameters"] = replica_->parameter_count();
    line["run"] = to_string(replica_->run());
    line["pid"] = static_cast<std::int64_t>(::getpid());
    metrics_->write(line);
}

void peer::gather() {
    if (!founder_) return;
    const auto present = [this] {
        const auto peers = node_->status().peers;
        return std::count_if(peers.begin(), peers.end(), [](const auto& p) { return p.present; });
    };
    if (const auto here = present(); here < settings_.run.min_peers)
        log_event(log_level::info, "gathering",
                  fmt::format("waiting for run.min_peers = {} peers, {} present", settings_.run.min_peers, here),
                  {{"present", here}, {"min_peers", settings_.run.min_peers}});
    while (present() < settings_.run.min_peers && !stop_requested()) {
        wait_for_signal(20);
        replay();  // which also tells of the node's end
    }
}

/// A payload in flight for a later round than the log is known to be final up to: the rounds before it are, and come.
void peer::finish_logged() {
    const result<payload_info> sent = inspect_payload(replica_->optimizer().in_flight());
    while (sent && replica_->optimizer().round() < sent->round && !finished()) {
        wait_for_signal(20);
        replay();
    }
}

void peer::train() {
    try {
        const stop_watch watch(
            stop_grace, [this] { node_->stop(); },
            [this] {
                const runtime::node_status status = node_->status();
                return status.paused || !status.ordered;
            });
        gather();
        finish_logged();
        train_rounds();
    } catch (const std::exception& problem) {
        if (!cut_short(problem)) throw;
        log_event(log_level::info, "stopped",
                  fmt::format("stopped in round {}, saved in '{}': {}", replica_->optimizer().round(),
                              where_.root.string(), problem.what()));
        return;
    }
    const bool whole = replica_->optimizer().round() >= static_cast<std::uint64_t>(settings_.run.rounds);
    save();
    const bool last = evaluates();
    node_->leave(whole);
    if (last && !stop_requested()) evaluate();
    announce_end();
    if (whole)
        return log_event(
            log_level::info, "finished",
            fmt::format("finished the run's {} rounds, saved in '{}'", settings_.run.rounds, where_.root.string()));
    log_event(log_level::info, "left",
              fmt::format("left in round {}, saved in '{}'", replica_->optimizer().round(), where_.root.string()));
}

/// Leaves in order what an exception ended. True when the run was only stopped; throws when that could not be saved.
bool peer::cut_short(const std::exception& problem) {
    const auto* node = dynamic_cast<const runtime::node_error*>(&problem);
    const auto* own = dynamic_cast<const launcher_error*>(&problem);
    const bool stopped = node != nullptr && node->code() == runtime::node_errc::run_stopped;
    bool spoilt = own != nullptr && (own->code() == exit_code::not_finite || own->code() == exit_code::diverged);
    // What was not sent yet is not sent; what travels has as long as a stop signal gives it.
    if (under_way_ && under_way_->commits.wait_for(stop_grace) == std::future_status::deferred) under_way_.reset();
    if (under_way_ && under_way_->commits.wait_for(std::chrono::seconds(0)) == std::future_status::timeout)
        node_->stop();
    try {
        finish_round();
    } catch (const launcher_error& second) {  // the first problem is the one to be told
        spoilt = spoilt || second.code() == exit_code::not_finite || second.code() == exit_code::diverged;
    } catch (const std::exception& second) {
        log_event(log_level::debug, "not_finished", fmt::format("after an error: {}", second.what()));
    }
    // Weights that are not worth going on with do not replace the last good ones.
    node_->leave(false);
    try {
        if (!spoilt) save();
        announce_end();
    } catch (const std::exception& second) {
        if (stopped) throw;
        log_event(log_level::debug, "not_saved", fmt::format("while saving after an error: {}", second.what()));
    }
    return stopped;
}

/// Joiners enter from the snapshot that was just saved; what run.keep_log lets go leaves the log.
void peer::keep_log(std::uint64_t round) {
    node_->publish_snapshot(round, replica_->make_snapshot().encode());
    node_->drop_log_before(
        keeper_.advance(round, node_->status().log_bytes, [this] { return replica_->make_snapshot(); }));
}

/// The private state first: with an older snapshot it goes on from the log, but a newer snapshot would take a payload
/// that is still under way in an older private state for one that was committed.
void peer::save() {
    observer_->begin("saving");
    replica_->save_private(where_);
    replica_->save(where_);
    if (!observer_->serves()) return;
    observer_->replica(replica_->optimizer().round(), replica_->optimizer().replica_digest());
    observer_->momentum(replica_->optimizer().momentum_energy());
}

void peer::announce_end() {
    report_peers(observer_->status(), true);
    const runtime::node_status status = node_->status();
    nlohmann::json line = event("end");
    line["round"] = replica_->optimizer().round();
    line["replica_digest"] = to_string(replica_->optimizer().replica_digest());
    line["bytes_sent"] = status.bytes_sent;
    line["bytes_received"] = status.bytes_received;
    metrics_->write(line);
}

}  // namespace thinwire::launcher
