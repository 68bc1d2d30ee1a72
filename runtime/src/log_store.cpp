#include "log_store.hpp"

#include <thinwire/core/detail/fields.hpp>
#include <thinwire/io/file.hpp>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <random>
#include <system_error>
#include <utility>
#include <vector>

namespace thinwire::runtime {

namespace {

constexpr std::uint64_t owner_magic = 0x3152454e574f5754;  // "TWOWNER1"

std::uint64_t draw() {
    std::random_device device;
    std::uint64_t drawn = 0;
    while (drawn == 0) drawn = (static_cast<std::uint64_t>(device()) << 32U) | device();
    return drawn;
}

std::uint64_t microseconds_since_1970() {
    const auto time = std::chrono::system_clock::now().time_since_epoch();
    return static_cast<std::uint64_t>(
        std::max<std::int64_t>(0, std::chrono::duration_cast<std::chrono::microseconds>(time).count()));
}

std::filesystem::path snapshot_path(const std::filesystem::path& folder, std::uint64_t round) {
    constexpr std::size_t digits = 20;
    std::string name = std::to_string(round);
    name.insert(0, digits - name.size(), '0');
    return folder / (name + ".snapshot");
}

/// Files of a log in a folder: its segments alone, or all.
std::vector<std::filesystem::path> files_of(const std::filesystem::path& folder, bool segments) {
    std::vector<std::filesystem::path> found;
    std::error_code failed;
    for (std::filesystem::directory_iterator at(folder, failed), end; !failed && at != end; at.increment(failed)) {
        const std::string name = at->path().filename().string();
        const bool numbered = name.size() > 20 &&
                              std::all_of(name.begin(), name.begin() + 20, [](char c) { return c >= '0' && c <= '9'; });
        const std::string rest = numbered ? name.substr(20) : std::string();
        const bool other = rest == ".snapshot" || rest == ".log.tmp" || rest == ".snapshot.tmp" || name == "owner" ||
                           name == "owner.tmp";
        if (rest == ".log" || (!segments && other)) found.push_back(at->path());
    }
    return found;
}

/// What the file says before the state of the run.
void fields(auto& a, thinwire::detail::is_a<log_owner> auto& owner) {
    a(owner.run, owner.incarnation, owner.session, owner.round, owner.term, owner.begun);
}

commit_ptr to_record(const log_record& r) {
    auto record = std::make_shared<commit_record>();
    record->term = r.term;
    record->round = r.round;
    if (!r.control.empty()) record->control = share({r.control.begin(), r.control.end()});
    for (const logged_payload& p : r.contributions)
        record->contributions.push_back({p.peer, p.payload_digest, share({p.payload.begin(), p.payload.end()}),
                                         static_cast<std::uint32_t>(p.payload.size())});
    return record;
}

}  // namespace

std::optional<log_owner> log_owner::load(const std::filesystem::path& folder) {
    const std::filesystem::path path = path_in(folder);
    if (!std::filesystem::exists(path)) return std::nullopt;
    const std::vector<std::byte> bytes = read_file(path);
    const auto refuse = [&](const std::string& why) -> node_error {
        return {node_errc::storage, "'" + path.string() + "': " + why};
    };
    thinwire::detail::field_reader in(bytes);
    std::uint64_t magic = 0;
    digest sum;
    in(magic, sum);
    if (magic != owner_magic) throw refuse("this does not say whose a log is");
    const auto rest = std::span<const std::byte>(bytes).last(in.remaining());
    if (in.failed() || digest_of(rest) != sum) throw refuse("damaged: its digest differs");
    log_owner found;
    fields(in, found);
    result<run_state> state = decode_state(in.get_bytes(in.remaining()));
    if (in.refused() || !state) throw refuse("damaged: its state of the run cannot be read");
    found.state = std::move(*state);
    return found;
}

bool log_owner::begins_anew(const run_log& log) const {
    return round > log.next_round() || (!begun && round == log.next_round() && log.tentative());
}

void log_owner::save(const std::filesystem::path& folder) const {
    thinwire::detail::field_writer body;
    fields(body, *this);
    body.put(*encode_state(state));
    thinwire::detail::field_writer out;
    out(owner_magic, digest_of(body.bytes()));
    out.put(body.bytes());
    write_file_atomically(path_in(folder), out.bytes(), true);
}

std::optional<std::pair<std::uint64_t, std::uint64_t>> rounds_that_fit(const std::filesystem::path& log) {
    if (files_of(log, true).empty()) return std::nullopt;
    const result<run_log> found = run_log::open_read_only(log);
    if (!found) return std::nullopt;
    const std::optional<log_owner> owner = log_owner::load(log);
    if (owner && owner->begins_anew(*found)) return std::pair(owner->round, owner->round);
    return std::pair(found->first_round(), found->next_round());
}

log_store::log_store(const node_options& options, bool founder) : options_(options) {
    std::error_code failed;
    std::filesystem::create_directories(options_.log, failed);
    if (failed)
        throw node_error(node_errc::storage,
                         "cannot create the folder '" + options_.log.string() + "': " + failed.message());
    lock_.emplace(options_.log / "lock", false);
    const bool fresh = !founder && options_.fresh;
    const bool there = !files_of(options_.log, true).empty();
    std::optional<log_owner> owner = fresh ? std::nullopt : log_owner::load(options_.log);
    if (!owner && there && !fresh)
        throw node_error(node_errc::storage, "log '" + options_.log.string() +
                                                 "': the file 'owner' is missing, which says what this peer promised: "
                                                 "expected it beside the segments, or none of them");
    if (fresh && there)
        // A log without the replica that it belongs to: as good as lost, and its owner another voter from now on.
        for (const auto& file : files_of(options_.log, false)) std::filesystem::remove(file);
    const bool begins = !owner;
    if (owner && options_.run != digest{} && options_.run != owner->run)
        throw node_error(node_errc::run_mismatch, "log '" + options_.log.string() + "' belongs to run " +
                                                      to_string(owner->run, 12) + ", this is run " +
                                                      to_string(options_.run, 12));
    if (owner && owner->begun && !there)
        throw node_error(node_errc::storage,
                         "log '" + options_.log.string() +
                             "': its segments are missing, of which the file 'owner' tells: expected "
                             "them, or no 'owner' either, which makes this peer another voter");
    if (owner) owner_ = std::move(*owner);
    if (begins) owner_.run = options_.run;
    if (begins) owner_.incarnation = draw();
    owner_.session = std::max(owner_.session + 1, microseconds_since_1970());
    if (begins) owner_.round = options_.next_round;
    if (fresh || (begins && !founder)) return;
    if (begins) owner_.state.view.members = {{options_.self, owner_.incarnation, true, true, "", ""}};
    owner_.save(options_.log);
    log_.emplace(open(owner_.round, owner_.term));
    if (owner_.begins_anew(*log_)) log_->begin_anew(owner_.round, std::max(owner_.term, log_->last_term()));
    note_begun();
    require_replica_in_log(founder);
}

run_log log_store::open(std::uint64_t first_round, std::uint64_t first_term) const {
    result<run_log> log = run_log::open(options_.log, owner_.run,
                                        {.first_round = first_round,
                                         .first_term = first_term,
                                         .durable = options_.log_durable,
                                         .segment_bytes = options_.log_segment_bytes,
                                         .segment_rounds = options_.log_segment_rounds});
    if (!log)
        throw node_error(log.error().code == errc::mismatch ? node_errc::run_mismatch : node_errc::storage,
                         log.error().message);
    return std::move(*log);
}

void log_store::require_replica_in_log(bool founder) const {
    const std::uint64_t first = log_->first_round();
    const std::uint64_t next = log_->next_round();
    if (options_.next_round >= first && options_.next_round <= next) return;
    const char* advice = founder ? "without the log the run goes on from there, if nobody else of it lives"
                                 : "without the log this peer enters anew";
    throw node_error(
        node_errc::replica_diverged,
        "log '" + options_.log.string() + "' has rounds " + std::to_string(first) + " to " + std::to_string(next) +
            ", the replica is at round " + std::to_string(options_.next_round) +
            (options_.next_round > next ? std::string(": the end of the log was lost, as by a power cut; ") + advice
                                        : std::string()));
}

bool log_store::last_is_final() const {
    const std::uint64_t next = log_->next_round();
    return !log_->tentative() || options_.next_round >= next || owner_.round >= next;
}

/// Takes `state` on from owner_.round through the records that are final. Gives the last record.
commit_ptr log_store::read_state(run_state& state) const {
    commit_ptr last = std::make_shared<commit_record>();
    const std::uint64_t next = log_->next_round();
    const bool final = last_is_final();
    const std::uint64_t from = std::max(log_->first_round(), std::min(owner_.round, next - 1));
    bool sound = true;
    const result<ok> read = log_->read_records(from, next, [&](const log_record& r) {
        const bool newest = r.round + 1 == next;
        if (!r.control.empty() && r.round >= owner_.round && (!newest || final)) {
            result<run_state> changed = decode_state(r.control);
            sound = sound && changed.has_value();
            if (changed) state = std::move(*changed);
        }
        if (newest) last = to_record(r);
    });
    if (!read) throw node_error(node_errc::storage, read.error().message);
    if (!sound)
        throw node_error(node_errc::storage,
                         "log '" + options_.log.string() + "': a state of the run in it cannot be read");
    return last;
}

void log_store::describe(participant_settings& settings, const std::string& address) {
    settings.session = owner_.session;
    settings.incarnation = owner_.incarnation;
    settings.fresh = !log_;
    if (!log_) return;
    settings.log_begin = log_->first_round();
    settings.begin_term = log_->last_term();
    settings.local_round = options_.next_round;
    settings.voted_term = log_->newest_vote().term;
    settings.voted_for = log_->newest_vote().peer;
    settings.state = owner_.state;
    if (log_->next_round() > log_->first_round()) {
        settings.last = read_state(settings.state);
        settings.last_final = last_is_final();
        if (settings.last->control && !settings.last_final) control_ = {settings.last->round, settings.last->control};
    }
    // Its own entry says where it is dialled now; the run hears of it with the next record.
    if (view_member* self = settings.state.view.find(options_.self);
        self != nullptr && self->address.empty() && settings.state.view.members.size() == 1) {
        self->address = address;
        self->key = settings.key;
    }
}

void log_store::append(const commit_record& record) {
    std::vector<logged_payload> parts;
    for (const committed_payload& c : record.contributions)
        parts.push_back({.peer = c.peer, .payload_digest = c.payload_digest, .payload = *c.payload});
    const std::span<const std::byte> control =
        record.control ? std::span<const std::byte>(*record.control) : std::span<const std::byte>{};
    log_->append(log_record{.term = record.term, .round = record.round, .control = control, .contributions = parts});
    control_.reset();
    if (record.control) control_ = {record.round, record.control};
}

void log_store::vote(std::uint64_t term, peer_id peer) {
    vote_ = {.term = term, .peer = peer};
    if (log_) log_->vote(vote_);
    if (log_ && !options_.log_durable) log_->sync();  // a vote is a promise whatever the setting
}

commit_ptr log_store::load(std::uint64_t round) const {
    commit_ptr record = std::make_shared<commit_record>();
    const result<ok> read = log_->read_records(round, round + 1, [&](const log_record& r) { record = to_record(r); });
    if (!read) throw io_error(read.error().message);
    return record;
}

void log_store::save_owner(std::uint64_t round, std::uint64_t term, run_state state) {
    owner_.round = round;
    owner_.term = term;
    owner_.state = std::move(state);
    owner_.save(options_.log);
}

void log_store::note_begun() {
    if (std::exchange(owner_.begun, true)) return;
    owner_.save(options_.log);
}

bool log_store::finalize(std::uint64_t round) {
    if (!control_ || control_->first + 1 != round) return false;
    result<run_state> state = decode_state(*std::exchange(control_, std::nullopt)->second);
    if (state) note(round, *state);
    return true;
}

void log_store::note(std::uint64_t round, const run_state& state) {
    if (!log_ || round < owner_.round || round > log_->next_round()) return;
    log_->sync();  // what the note makes the next start pass over must be there then
    save_owner(round, owner_.term, state);
}

void log_store::begin_anew(const snapshot_effect& with, const digest& run) {
    owner_.run = run;
    write_file_atomically(snapshot_path(options_.log, with.round), *with.bytes, true);
    result<run_state> state = decode_state(*with.state);
    if (!state) throw io_error("the snapshot's state of the run cannot be read: " + state.error().message);
    owner_.begun = false;
    save_owner(with.round, with.term, std::move(*state));
    control_.reset();
    const bool goes_on = log_.has_value();
    if (goes_on)
        log_->begin_anew(with.round, std::max(with.term, log_->last_term()));
    else
        log_.emplace(open(with.round, with.term));
    note_begun();
    if (!goes_on && vote_.term > 0) vote(vote_.term, vote_.peer);
}

void log_store::drop_before(std::uint64_t round) {
    if (log_) log_->drop_before(round);
}

void log_store::close(std::uint64_t round) {
    if (!log_) return;
    if (log_->tentative() && round == log_->next_round()) log_->mark_final(round - 1);
    log_->sync();
}

}  // namespace thinwire::runtime
