#include "observer.hpp"

#include <thinwire/codec/payload.hpp>

#include "dashboard/board.hpp"
#include "event_log.hpp"
#include "exit_code.hpp"
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <system_error>
#include <utility>
#include <vector>

namespace thinwire::launcher {
namespace {

using clock = std::chrono::steady_clock;

/// What people are told of a change; of `who` where it is a peer's. Empty: somebody else tells it.
std::string sentence(const run_change& change, const std::string& who) {
    if (change.what == "member_added") return who + " is a member of the run";
    if (change.what == "member_removed") return who + " is no member of the run any more";
    if (change.what == "banned") return who + " is banned from the run";
    if (change.what == "pardoned") return who + " is no longer banned from the run";
    if (change.what == "revoked") return "the key of " + who + " is revoked";
    if (change.what == "allowed") return "the key of " + who + " is let in again";
    if (change.what == "paused") return "the run is paused: `thinwire ctl DIR resume` of any peer has it go on";
    if (change.what == "resumed") return "the run goes on";
    return {};
}

double seconds_since(steady_time from, steady_time to) {
    return std::chrono::duration<double>(to - from).count();
}

}  // namespace

observer::observer(const configuration& settings, const directory& where, bool founder, peer_id self)
    : files_(where), entered_at_(clock::now()), phase_at_(entered_at_) {
    for (const std::filesystem::path& file : {files_.status_address(), files_.dashboard_address(), files_.control()}) {
        std::error_code none;
        std::filesystem::remove(file, none);  // of a process that was killed
    }
    if (!settings.peer.log_file.empty()) log_to_file(where.root / settings.peer.log_file);
    log_identity("", settings.peer.name);
    if (!settings.peer.status.empty())
        where_.emplace(server_address("peer.status", settings.peer.status, settings.peer.status_public,
                                      "peer.status_public = true"));
    if (!settings.peer.dashboard.empty())
        dashboard_.emplace(server_address("peer.dashboard", settings.peer.dashboard, settings.peer.dashboard_public,
                                          "peer.dashboard_public = true"),
                           "peer.dashboard");
    status_.peer = settings.peer.name;
    status_.self = self;
    status_.founder = founder;
}

observer::~observer() {
    const auto forget = [](const std::filesystem::path& file) {
        std::error_code failed;
        std::filesystem::remove(file, failed);
        if (failed) log_event(log_level::warning, "message", "remove '" + file.string() + "': " + failed.message());
    };
    if (board_) forget(files_.dashboard_address());
    board_.reset();
    if (server_) forget(files_.status_address());
    server_.reset();
}

observer::payload_check observer::timed(payload_check check) {
    return [book = book_, check = std::move(check)](std::uint64_t round, peer_id peer,
                                                    std::span<const std::byte> payload) {
        result<ok> verdict = check(round, peer, payload);
        if (verdict) {
            const std::lock_guard lock(book->mutex);
            book->payloads.note(round, peer, clock::now());
        }
        return verdict;
    };
}

void observer::entered(const runtime::node& node, const configuration& settings, std::uint64_t round,
                       std::uint64_t parameters) {
    node_ = &node;
    // Who enters a run that is paused sees nothing move.
    const runtime::node_status now = node.status();
    agreed_ = agreed_state_of(now);
    agreed_.paused = false;
    tell_changes(now);
    {
        const std::lock_guard lock(mutex_);
        entered_at_ = phase_at_ = clock::now();
        status_.run = to_string(node.run());
        status_.round = round;
        status_.parameters = parameters;
        status_.rounds = static_cast<std::uint64_t>(settings.run.rounds);
        status_.k = settings.optimizer.k;
        pace_.emplace(round, entered_at_);
    }
    if (where_) {
        server_.emplace(std::move(*where_), [this](const http_request& request) { return page(request.path); });
        const std::string address = server_->address().text();
        write_text(files_.status_address(), address + "\n");
        log_event(
            log_level::info, "status",
            fmt::format("status on http://{}/status and /metrics; `thinwire watch {}` shows it", address, address),
            {{"address", address}});
    }
    if (!dashboard_) return;
    board_source source;
    source.folder = files_.root;
    source.own = [this] { return status_text(); };
    source.pages = [this](const std::string& path) { return page(path); };
    board_ = std::make_unique<board>(std::move(*dashboard_), std::move(source));
    const std::string address = board_->address().text();
    write_text(files_.dashboard_address(), address + "\n");
    log_event(log_level::info, "dashboard", fmt::format("dashboard on http://{}/", address), {{"address", address}});
}

void observer::computing(std::uint64_t round) {
    log_round(round);
    begin("computing");
}

void observer::begin(const char* phase) {
    const std::lock_guard lock(mutex_);
    const steady_time now = clock::now();
    if (status_.phase == "computing") status_.compute_seconds += seconds_since(phase_at_, now);
    status_.phase = phase;
    phase_at_ = now;
}

void observer::waiting(std::uint64_t round, std::span<const std::byte> payload) {
    begin("waiting");
    {
        const std::lock_guard lock(book_->mutex);
        book_->payloads.note(round, status_.self, clock::now());
    }
    // Its checksum is what this costs: 17 us for a payload of 31 kB.
    const result<payload_info> info = serves() ? inspect_payload(payload) : failure{};
    const std::lock_guard lock(mutex_);
    status_.payload_bytes += payload.size();
    if (!info || info->round != round) return;
    status_.k = info->k;
    status_.shares.push_back({round, to_string(info->replica)});
    while (status_.shares.size() > shares_kept) status_.shares.pop_front();
}

void observer::applied(const step_report& step, double loss, double rate, std::size_t tokens, double seconds,
                       const runtime::node_status& node) {
    note_presence(node);
    log_round(step.round + 1);
    tell_changes(node);
    begin("computing");
    close_arrivals(step.round, node);
    const std::lock_guard lock(mutex_);
    status_.round = step.round + 1;
    status_.sees_arrivals = node.sequencer == status_.self;
    // Rounds of before it came, or that it lacked, are no pace.
    if (std::exchange(paced_, true) && status_.round + 1 >= node.round)
        pace_->note(status_.round, clock::now());
    else
        pace_.emplace(status_.round, clock::now());
    if (std::isfinite(loss)) {
        status_.loss = loss;
        status_.tokens += tokens;
    }
    status_.learning_rate = rate;
    status_.tokens_per_second = static_cast<double>(step.tokens) / std::max(seconds, 1e-9);
    status_.contributors = step.contributors;
    status_.agreeing = step.agreeing;
    status_.disagreeing = step.disagreeing;
    status_.own_included = step.own_included;
    status_.contributions_total += static_cast<std::uint64_t>(step.contributors);
    status_.disagreeing_total += static_cast<std::uint64_t>(step.disagreeing);
    status_.rejected_total += static_cast<std::uint64_t>(step.rejected);
    if (!step.own_included) ++status_.missed_total;
}

/// A peer that came during the round was not waited for.
void observer::close_arrivals(std::uint64_t round, const runtime::node_status& node) {
    std::vector<peer_id> there;
    for (const runtime::peer_status& p : node.peers)
        if (p.present && expected_.contains(p.peer)) there.push_back(p.peer);
    expected_ = present_;
    const std::lock_guard lock(book_->mutex);
    book_->payloads.close(round, there);
}

void observer::note_presence(const runtime::node_status& node) {
    for (const runtime::peer_status& p : node.peers) {
        const bool was = present_.contains(p.peer);
        if (p.present == was) continue;
        if (p.present)
            present_.insert(p.peer);
        else
            present_.erase(p.peer);
        log_note(log_level::info, p.present ? "peer_entered" : "peer_left",
                 {{"peer_id", std::to_string(p.peer)}, {"name", p.name}});
    }
}

void observer::tell_changes(const runtime::node_status& node) {
    agreed_state now = agreed_state_of(node);
    for (const run_change& change : changes(agreed_, now)) {
        nlohmann::json fields = fields_of(change);
        std::string who = "peer " + std::to_string(change.peer);
        for (const runtime::peer_status& p : node.peers) {
            if (p.peer != change.peer) continue;
            fields["name"] = p.name;
            if (!p.name.empty()) who = fmt::format("{} ({})", p.name, p.peer);
        }
        const bool against = change.what == "banned" || change.what == "revoked";
        if (const std::string line = sentence(change, who); !line.empty())
            log_event(against ? log_level::warning : log_level::info, change.what, line, fields);
    }
    agreed_ = std::move(now);
}

void observer::contributed(std::span<const commit> commits) {
    const std::lock_guard lock(mutex_);
    for (const commit& one : commits) {
        status_.round_tokens = 0;
        for (const contribution& part : one.contributions) {
            const std::uint64_t tokens = stated_tokens(part.payload);
            status_.tokens_of[part.peer] += tokens;
            status_.round_tokens += tokens;
        }
        status_.run_tokens += status_.round_tokens;
    }
}

void observer::momentum(std::optional<double> energy) {
    const std::lock_guard lock(mutex_);
    status_.momentum_energy = energy;
}

void observer::evaluated(std::uint64_t round, double loss, const std::string& sample) {
    const std::lock_guard lock(mutex_);
    status_.validation_loss = loss;
    status_.sample = sample;
    status_.validation_round = round;
}

void observer::replica(std::uint64_t round, const digest& of) {
    const std::lock_guard lock(mutex_);
    status_.replica = {round, to_string(of)};
}

run_status observer::status() const {
    runtime::node_status node = node_ != nullptr ? node_->status() : runtime::node_status{};
    std::unique_lock energy_lock(energy_mutex_);
    // A device may take milliseconds to tell, and some ask after every round.
    if (const steady_time asked = clock::now(); seconds_since(energy_at_, asked) >= 0.1) {
        joules_ = energy_.joules();
        energy_at_ = asked;
    }
    const std::optional<double> joules = joules_;
    energy_lock.unlock();
    const std::lock_guard lock(mutex_);
    const steady_time now = clock::now();
    run_status copy = status_;
    copy.phase_seconds = seconds_since(phase_at_, now);
    copy.uptime_seconds = seconds_since(entered_at_, now);
    if (pace_) {
        copy.rounds_per_second = pace_->whole(now);
        copy.rounds_per_second_minute = pace_->minute(now);
    }
    copy.wait_seconds = node.wait_seconds;
    copy.energy_joules = joules;
    const std::lock_guard book_lock(book_->mutex);
    copy.costs = book_->payloads.costs();
    copy.sees_arrivals = node.sequencer == status_.self;
    if (copy.sees_arrivals && status_.phase == "waiting") {
        std::vector<peer_id> there;
        for (const runtime::peer_status& p : node.peers)
            if (p.present) there.push_back(p.peer);
        copy.awaited = book_->payloads.missing(node.round, there);
    }
    copy.node = std::move(node);
    return copy;
}

std::string observer::status_text() const {
    return to_json(status()).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

http_page observer::page(const std::string& path) const {
    if (path == "/healthz") return {.body = "ok\n"};
    if (path == "/metrics") return {.type = "text/plain; version=0.0.4; charset=utf-8", .body = to_metrics(status())};
    if (path == "/status") return {.type = "application/json", .body = status_text() + "\n"};
    return {.status = 404, .body = "there are /status, /metrics and /healthz\n"};
}

}  // namespace thinwire::launcher
