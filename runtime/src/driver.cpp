#include "driver.hpp"

#include <algorithm>
#include <exception>
#include <iterator>
#include <utility>

namespace thinwire::runtime {

namespace {

node_errc to_node_errc(run_end end) noexcept {
    using enum node_errc;
    constexpr node_errc codes[] = {run_stopped,  run_stopped, unreachable,      peers_lost, version_mismatch,
                                   run_mismatch, refused,     replica_diverged, storage,    protocol};
    static_assert(std::size(codes) == 1 + static_cast<std::size_t>(run_end::protocol));
    return codes[static_cast<std::size_t>(end)];
}

std::vector<std::string> split(const std::string& addresses) {
    std::vector<std::string> all;
    const std::vector<address> parts = parse_addresses(addresses).value();
    for (const address& one : parts) all.push_back(to_string(one));
    return all;
}

double seconds_of(timestamp time) {
    return static_cast<double>(time) * 1e-6;
}

std::string raw(const public_key& key) {
    return {reinterpret_cast<const char*>(key.bytes.data()), key.bytes.size()};
}

/// What others say in it cannot make two lines of one.
std::string one_line(std::string text) {
    std::replace_if(
        text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, '?');
    return text;
}

std::vector<peer_id> revoked_peers(const run_state& state) {
    std::vector<peer_id> all;
    for (const auto& [key, in] : state.keys)
        if (!in) all.push_back(peer_id_of(std::string_view(key)));
    std::erase(all, 0);
    return all;
}

}  // namespace

driver::driver(node_options options, bool founder)
    : options_(std::move(options)),
      seeds_(founder ? std::vector<std::string>{} : split(options_.address)),
      work_(asio::make_work_guard(io_)),
      timer_(io_),
      accept_pause_(io_),
      leave_timer_(io_),
      acceptor_(io_),
      port_(listen()),
      names_(io_),
      gate_(io_, options_, [this](bool refused, const std::string& line) { report(refused, line); }),
      store_(options_, founder),
      stored_(store_.next_round()),
      machine_(begin()),
      wants_snapshot_(!founder && options_.fresh) {
    limits_.max_payload = options_.max_payload;
    peer_status& self = peers_[options_.self];
    self.peer = options_.self;
    self.name = options_.name;
    self.about = options_.about;
    self.present = true;
    gate_.consult([this](const public_key& key) { return agreed(key); });
    box_.announce(machine_.round());
    note_log();
    post([this] {
        list_begun();
        settle();
        accept();
    });
    thread_ = std::thread([this] { thread_main(); });
}

driver::~driver() {
    io_.stop();
    if (thread_.joinable()) thread_.join();
}

participant driver::begin() {
    participant_settings s;
    s.run = store_.run();
    s.self = options_.self;
    s.name = options_.name;
    s.about = options_.about;
    if (options_.identity) {
        s.key = raw(options_.identity->key());
        s.sign = [self = options_.identity](std::span<const std::byte> what) { return self->sign(what); };
        s.verify = [](std::string_view key, std::span<const std::byte> what, const signature_bytes& made) {
            public_key holder;
            if (key.size() != holder.bytes.size()) return false;
            std::ranges::copy(std::as_bytes(std::span(key)), holder.bytes.begin());
            return runtime::verify(holder, what, made);
        };
    }
    s.manifest = options_.manifest;
    s.votes = options_.votes;
    s.contributes = options_.contributes;
    s.seeds = seeds_;
    if (!options_.advertise.empty()) {
        s.address = options_.advertise;
    } else if (port_ != 0) {
        const asio::ip::address host = acceptor_.local_endpoint().address();
        // ":port": those whom it meets know the host.
        s.address =
            host.is_unspecified() ? ":" + std::to_string(port_) : runtime::to_string(address{host.to_string(), port_});
    }
    s.max_contributors = options_.max_contributors;
    s.min_peers = options_.min_peers;
    s.validate = options_.validate;
    s.checks = options_.awaits_check;
    s.waits_for_slow = options_.waits_for_slow;
    s.min_deadline = to_timestamp(options_.min_deadline);
    s.max_deadline = to_timestamp(options_.max_deadline);
    s.handshake_timeout = to_timestamp(options_.handshake_timeout);
    s.attempt_timeout = to_timestamp(options_.handshake_timeout);
    s.keepalive_interval = to_timestamp(options_.keepalive_interval);
    s.keepalive_timeout = to_timestamp(options_.keepalive_timeout);
    s.takeover = to_timestamp(options_.takeover);
    s.absence = to_timestamp(options_.absence);
    s.leave_timeout = to_timestamp(options_.leave_timeout) / 2;
    s.connect_timeout = to_timestamp(options_.connect_timeout);
    s.reconnect_timeout = to_timestamp(options_.reconnect_timeout);
    s.max_links = options_.max_connections;
    store_.describe(s, s.address);
    return {std::move(s), now()};
}

void driver::thread_main() noexcept {
    try {
        io_.run();
    } catch (const std::exception& problem) {
        box_.end(node_errc::protocol, std::string("the node's thread failed: ") + problem.what());
        // The others need not wait for their timeouts.
        asio::error_code ignored;
        acceptor_.close(ignored);
        for (const auto* all : {&connections_, &lingering_})
            for (const auto& [link, c] : *all) c->abort();
        box_.quiet();
    }
}

timestamp driver::now() const {
    return std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start_).count();
}

// ---------------------------------------------------------------------------------------------- the caller's thread

void driver::payload_ready(std::uint64_t round, shared_bytes payload) {
    post([this, round, payload = std::move(payload)] {
        // After a restart it may be that of the round after; then the commit is only waited for.
        if (round < stored_ && options_.validate && !options_.validate(round, options_.self, *payload)) return;
        machine_.payload_ready(round, payload, now());
        settle();
    });
}

void driver::publish_snapshot(std::uint64_t round, shared_bytes bytes) {
    const auto objection = [round](std::uint64_t log_begin) {
        return round >= log_begin ? std::string()
                                  : "publish_snapshot: round " + std::to_string(round) + ", expected at least " +
                                        std::to_string(log_begin) + ", where the log begins";
    };
    if (const std::string no = objection(status().log_begin); !no.empty()) throw value_error(no);
    post([this, round, objection, bytes = std::move(bytes)] {
        // The log may have been cut since the caller asked: nobody can start from there.
        if (const std::string no = objection(store_.first_round()); !no.empty()) return report(false, no);
        if (over_ || !with_log([&] { store_.note(machine_.round(), machine_.state()); })) return;
        machine_.snapshot_published(round, bytes, now());
        settle();
    });
}

void driver::drop_log_before(std::uint64_t round) {
    post([this, round] {
        if (over_) return;
        with_log([&] {
            store_.note(machine_.round(), machine_.state());
            store_.drop_before(machine_.log_needed_from(round));
        });
        machine_.log_begins(store_.first_round());
        note_log();
        settle();
    });
}

/// A run that is to stop stops by a record that a majority stores. Without one, or in time for the caller, this peer
/// just leaves.
void driver::leave(bool stop_run) {
    post([this, stop_run] {
        if (over_) return;
        if (!stop_run) {
            machine_.leave(now());
            return settle();
        }
        machine_.request({control_change::kind::stop, 0, "", ""}, now());
        leave_timer_.expires_after(options_.leave_timeout / 2);
        leave_timer_.async_wait([this](asio::error_code cancelled) {
            if (cancelled) return;
            machine_.leave(now());
            settle();
        });
        settle();
    });
}

void driver::add_wait(std::chrono::duration<double> time) {
    const std::lock_guard lock(status_mutex_);
    status_.wait_seconds += time.count();
}

node_status driver::status() const {
    const std::lock_guard lock(status_mutex_);
    node_status out = status_;
    if (out.paused) out.paused_seconds += seconds_of(now() - paused_at_);
    for (const auto& [peer, p] : peers_) out.peers.push_back(p);
    return out;
}

// ------------------------------------------------------------------------------------------------------- effects

void driver::settle() {
    for (;;) {
        std::vector<effect> effects = machine_.take_effects();
        for (effect& e : effects) std::visit([this](auto& what) { perform(what); }, e);
        for (const link_id link : std::exchange(too_slow_, {})) lose(link, "it reads too slowly");
        if (effects.empty()) break;
    }
    announce();
    refresh();
    tell_of_order();
    arm();
    check_quiet();
}

void driver::announce() {
    if (claimed_ <= machine_.round() || machine_.none_further()) claimed_ = 0;
    box_.announce(std::max(claimed_, machine_.round()));
}

void driver::arm() {
    const auto at = machine_.wake_at();
    if (!at) {
        timer_.cancel();
        return;
    }
    timer_.expires_at(start_ + std::chrono::microseconds(*at));
    timer_.async_wait([this](asio::error_code error) {
        if (error) return;
        machine_.tick(now());
        settle();
    });
}

void driver::check_quiet() {
    if (over_ && connections_.empty() && lingering_.empty()) box_.quiet();
}

void driver::perform(send_effect& e) {
    const auto it = connections_.find(e.link);
    if (it != connections_.end() && !it->second->send(encode_frame(e.what))) too_slow_.push_back(e.link);
}

void driver::perform(admit_effect& e) {
    const auto it = connections_.find(e.link);
    if (it == connections_.end()) return;
    connection& c = *it->second;
    c.admit({message_type::welcome, message_type::refuse, message_type::reject, message_type::fetch,
             message_type::piece, message_type::ping, message_type::goodbye, message_type::offer, message_type::record,
             message_type::status, message_type::pull, message_type::campaign, message_type::vote,
             message_type::request});
    roster_changed_ = true;
    if (!std::exchange(entered_, true)) {
        claimed_ = machine_.newest_round();
        announce();
        gate_.of_run(machine_.run());
        box_.enter(machine_.run(), machine_.manifest());
    }
    const std::lock_guard lock(status_mutex_);
    peer_status& p = peers_[e.peer];
    p.peer = e.peer;
    c.peer = e.peer;
    p.bytes_sent += std::exchange(c.bytes_sent, 0);
    p.bytes_received += std::exchange(c.bytes_received, 0);
}

void driver::perform(close_effect& e) {
    const auto it = connections_.find(e.link);
    if (it == connections_.end()) return abandon(e.link);
    roster_changed_ = true;
    {
        const std::lock_guard lock(status_mutex_);
        if (e.fault) ++status_.refused;
    }
    const std::shared_ptr<connection> c = it->second;
    connections_.erase(it);
    // A peer that connects again and again leaves one queue behind, not many.
    std::erase_if(lingering_, [&](const auto& older) {
        const bool same = c->peer != 0 && older.second->peer == c->peer;
        if (same) older.second->abort();
        return same;
    });
    if (lingering_.size() >= options_.max_connections) return c->abort();
    lingering_.emplace(e.link, c);
    c->finish();
}

template <class Work>
bool driver::with_log(Work&& work) {
    try {
        work();
        return true;
    } catch (const thinwire::error& problem) {
        machine_.storage_failed(problem.what(), now());
        settle();
        return false;
    }
}

void driver::perform(store_effect& e) {
    if (!with_log([&] { store_.append(*e.record); })) return;
    machine_.stored(now());
    note_log();
}

void driver::perform(vote_effect& e) {
    if (with_log([&] { store_.vote(e.term, e.peer); })) machine_.voted(now());
}

void driver::perform(final_effect& e) {
    roster_changed_ = true;
    bool changed = false;
    if (with_log([&] { changed = store_.finalize(e.round); }) && changed) drop_revoked();
}

void driver::perform(load_effect& e) {
    commit_ptr record;
    if (with_log([&] { record = store_.load(e.round); })) machine_.loaded(std::move(record), now());
}

/// Whoever takes the record finds the status that it led to.
void driver::perform(deliver_effect& e) {
    note_commit(*e.record);
    roster_changed_ = true;
    refresh();
    box_.deliver(e.record);
}

/// The caller of a fresh node gets the snapshot. Any other holds a replica that no log in the run reaches back to: it
/// begins again, with what lies in the log's folder now.
void driver::perform(snapshot_effect& e) {
    if (!with_log([&] { store_.begin_anew(e, machine_.run()); })) return;
    note_log();
    drop_revoked();
    if (std::exchange(wants_snapshot_, false)) return box_.put_snapshot(e.bytes, e.round);
    box_.end(node_errc::behind, "this replica is behind all logs of the run: it goes on with the snapshot of round " +
                                    std::to_string(e.round) + " in '" + options_.log.string() + "'");
    machine_.leave(now());
}

void driver::perform(rejected_effect& e) {
    {
        const std::lock_guard lock(status_mutex_);
        status_.last_refusal = e.text;
    }
    // Elsewhere the round goes on without it; the one that closes rounds has nobody to wait for.
    if (machine_.leading()) box_.reject(e.round, e.text);
}

void driver::perform(end_effect& e) {
    over_ = true;
    roster_changed_ = true;
    asio::error_code ignored;
    acceptor_.close(ignored);
    accept_pause_.cancel();
    leave_timer_.cancel();
    while (!dials_.empty()) abandon(dials_.begin()->first);
    gate_.close();
    // Those that the machine had no word for any more.
    for (auto& [link, c] : std::exchange(connections_, {})) {
        lingering_.emplace(link, c);
        c->finish();
    }
    try {
        store_.close(machine_.round());
    } catch (const io_error& problem) {
        box_.end(node_errc::storage, problem.what());
    }
    box_.end(to_node_errc(e.code), one_line(e.text));
}

// --------------------------------------------------------------------------------------------- who is let in

/// What the run itself says of a key: members are in, revoked ones out. A state that was only heard of is one peer's
/// word: it lets in whom nothing else shows out, as a joiner has no other, and shows nobody out.
std::optional<bool> driver::agreed(const public_key& key) const {
    const std::string bytes = raw(key);
    const auto says = [&](const run_state& state) -> std::optional<bool> {
        if (const auto it = state.keys.find(bytes); it != state.keys.end()) return it->second;
        for (const view_member& m : state.view.members)
            if (m.key == bytes) return true;
        return std::nullopt;
    };
    const std::optional<bool> own = says(machine_.state());
    if (!says(machine_.newest_state()).value_or(false)) return own;
    return own.value_or(true) ? std::optional(true) : std::nullopt;
}

/// What this peer's list says and the run does not, the run is told.
void driver::list_begun() {
    const access_rules* rules = gate_.rules();
    if (rules == nullptr) return;
    gate_.watch([this] { list_changed(); });
    for (const allowed_key& one : rules->keys) {
        listed_.insert(one.key);
        if (!agreed(one.key)) machine_.request({control_change::kind::allow, 0, raw(one.key), ""}, now());
    }
    for (const public_key& key : rules->revoked)
        if (agreed(key).value_or(false)) machine_.request({control_change::kind::revoke, 0, raw(key), ""}, now());
}

void driver::list_changed() {
    std::set<public_key> listed;
    for (const allowed_key& one : gate_.rules()->keys) listed.insert(one.key);
    for (const public_key& key : listed)
        if (!listed_.contains(key)) machine_.request({control_change::kind::allow, 0, raw(key), ""}, now());
    for (const public_key& key : listed_)
        if (!listed.contains(key)) machine_.request({control_change::kind::revoke, 0, raw(key), ""}, now());
    for (const public_key& key : gate_.rules()->revoked)
        if (agreed(key).value_or(false)) machine_.request({control_change::kind::revoke, 0, raw(key), ""}, now());
    listed_ = std::move(listed);
    drop_revoked();
    settle();
}

void driver::drop_revoked() {
    const auto all = connections_;
    for (const auto& [link, c] : all) {
        if (gate_.allows(c->tls())) continue;
        const std::string peer = std::to_string(peer_id_of(c->tls()->peer()));
        report_refused(revoked_notices_,
                       "closed the connection of peer " + peer + ": its key is no longer on the list");
        lose(link, "its key is no longer on the list");
    }
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
    if (options_.notice) options_.notice(one_line(line));
}

void driver::report_refused(notice_budget& budget, const std::string& line) {
    {
        const std::lock_guard lock(status_mutex_);
        ++status_.refused;
    }
    if (options_.notice && budget.take()) options_.notice(one_line(line));
}

// ------------------------------------------------------------------------------------------------------- status

void driver::note_commit(const commit_record& record) {
    const std::lock_guard lock(status_mutex_);
    for (auto& [peer, p] : peers_) p.contributed_last = false;
    for (const committed_payload& c : record.contributions) {
        peer_status& p = peers_[c.peer];
        p.peer = c.peer;
        p.contributed_last = true;
        p.last_round = record.round;
    }
    for (const auto& [link, one] : connections_)
        if (const auto known = peers_.find(one->peer); known != peers_.end())
            known->second.round_trip_seconds = one->round_trip_seconds();
}

void driver::note_log() {
    const std::lock_guard lock(status_mutex_);
    status_.log_begin = store_.first_round();
    status_.log_bytes = store_.bytes();
}

/// Says when nobody orders the rounds, and when somebody does again.
void driver::tell_of_order() {
    const timestamp since = machine_.ordered();
    if (over_ || !options_.notice || machine_.state().view.members.empty()) return;
    if (unordered_told_ == (now() > since + 2 * to_timestamp(options_.takeover))) return;
    unordered_told_ = !unordered_told_;
    const auto named = [](const member_status& m) {
        return m.name.empty() ? "peer " + std::to_string(m.peer) : m.name;
    };
    const std::vector<member_status> all = machine_.members();
    if (!unordered_told_) {
        const peer_id by = machine_.leading() ? options_.self : machine_.sequencer();
        const auto who = std::find_if(all.begin(), all.end(), [&](const member_status& m) { return m.peer == by; });
        return report(false, "the rounds are ordered again" + (who == all.end() ? "" : ", by " + named(*who)));
    }
    std::string away;
    std::size_t here = 0;
    for (const member_status& m : all) {
        if (machine_.state().view.find(m.peer) == nullptr) continue;
        if (m.present)
            ++here;
        else
            away += (away.empty() ? "" : ", ") + named(m);
    }
    report(false, "nobody orders the rounds: " + std::to_string(here) + " of the " +
                      std::to_string(machine_.state().view.members.size()) + " members are here" +
                      (away.empty() ? "" : ", away: " + away) + "; waiting for a majority");
}

/// Who is there, after links came or went or a record became final.
void driver::refresh() {
    const bool changed = std::exchange(roster_changed_, false);
    const std::lock_guard lock(status_mutex_);
    status_.term = machine_.term();
    status_.sequencer = machine_.leading() ? options_.self : machine_.sequencer();
    status_.ordered = now() <= machine_.ordered() + to_timestamp(options_.takeover);
    if (!changed) return;
    status_.round = machine_.round();
    status_.members = machine_.state().view.members.size();
    status_.place = machine_.place();
    if (const bool paused = machine_.state().paused; paused != std::exchange(status_.paused, paused)) {
        if (paused)
            paused_at_ = now();
        else
            status_.paused_seconds += seconds_of(now() - paused_at_);
    }
    status_.settings = machine_.state().values;
    status_.banned.assign(machine_.state().banned.begin(), machine_.state().banned.end());
    status_.revoked = revoked_peers(machine_.state());
    for (const member_status& m : machine_.members()) {
        peer_status& p = peers_[m.peer];
        p.peer = m.peer;
        if (!m.name.empty()) p.name = m.name;
        if (!m.name.empty()) p.about = m.about;
        const view_member* const in_view = machine_.state().view.find(m.peer);
        p.member = in_view != nullptr;
        p.contributes = in_view != nullptr && in_view->contributes;
        p.present = m.present && (!over_ || m.peer == options_.self);
    }
}

}  // namespace thinwire::runtime
