#include <thinwire/io/run_log.hpp>

#include "commands.hpp"
#include "directory.hpp"
#include "log_keeper.hpp"
#include "replica.hpp"
#include "run_changes.hpp"
#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace thinwire::launcher {
namespace {

[[noreturn]] void refuse(exit_code code, const std::string& why) {
    throw launcher_error(code, "log: " + why);
}

struct snapshot_file {
    std::filesystem::path path;
    std::uint64_t round = 0;
};

/// A log on disk and what lies beside it. Changes nothing.
struct stored_log {
    std::filesystem::path folder;
    run_log log;
    std::vector<snapshot_file> snapshots;  ///< in the log's folder, that the log goes on from; ascending
    std::filesystem::path replica_path{};
    std::optional<snapshot> replica{};  ///< the peer's own, when its folder was named and it has one
};

void require_run(const std::filesystem::path& path, const snapshot& found, const digest& run) {
    if (found.run != run)
        refuse(exit_code::mismatch,
               "'" + path.string() + "' is of run " + to_string(found.run, 16) + ", the log of " + to_string(run, 16));
}

snapshot load_checked(const std::filesystem::path& path) {
    result<snapshot> loaded = snapshot::load(path);
    if (!loaded) refuse(exit_code::storage, loaded.error().message);
    return std::move(*loaded);
}

snapshot load_checked(const std::filesystem::path& path, const digest& run) {
    snapshot loaded = load_checked(path);
    require_run(path, loaded, run);
    return loaded;
}

run_log open_log(const std::filesystem::path& folder) {
    if (!std::filesystem::is_directory(folder))
        refuse(exit_code::storage, "'" + folder.string() + "' is no folder: expected that of a peer, or of its log");
    result<run_log> log = run_log::open_read_only(folder);
    if (!log) refuse(exit_code::storage, log.error().message);
    return std::move(*log);
}

stored_log open_stored(const log_options& options) {
    const directory peer{options.folder};
    const bool of_peer = std::filesystem::is_directory(peer.run_log());
    const std::filesystem::path folder = of_peer ? peer.run_log() : options.folder;
    // Before the log: a peer that runs writes its log first.
    std::optional<snapshot> replica;
    if (of_peer && std::filesystem::exists(peer.snapshot())) replica = load_checked(peer.snapshot());
    stored_log found{.folder = folder,
                     .log = open_log(folder),
                     .snapshots = {},
                     .replica_path = peer.snapshot(),
                     .replica = std::move(replica)};
    if (found.replica) require_run(found.replica_path, *found.replica, found.log.run());
    for (const std::uint64_t round : log_snapshots(folder))
        if (round >= found.log.first_round() && round <= found.log.next_round())
            found.snapshots.push_back({log_snapshot(folder, round), round});
    return found;
}

void require_read(const result<ok>& read) {
    if (!read) refuse(exit_code::storage, read.error().message);
}

/// Weights that are moved forward along a log.
class replayer {
 public:
    replayer(const snapshot_file& from, const digest& run, int threads)
        : from_(from.path.string()), start_(load_checked(from.path, run)), replica_(settings_of(start_, threads)) {
        replica_.restore(start_);
        if (start_.round == 0 && run_digest(start_.manifest, replica_.parameters()) != run)
            refuse(exit_code::diverged, "'" + from_ + "': the weights that the run began with do not have its digest");
        start_ = {};
    }

    [[nodiscard]] replica& at() noexcept { return replica_; }
    [[nodiscard]] std::uint64_t round() { return replica_.optimizer().round(); }
    [[nodiscard]] std::uint64_t proved() const noexcept { return proved_; }
    [[nodiscard]] std::uint64_t strays() const noexcept { return strays_; }
    [[nodiscard]] std::uint64_t first_stray() const noexcept { return first_stray_; }
    [[nodiscard]] std::uint64_t skipped() const noexcept { return skipped_; }

    /// Applies the next round. Refuses one of which as many contributions come from other weights as from these.
    void apply(const log_record& record) {
        parts_.clear();
        for (const logged_payload& part : record.contributions)
            parts_.push_back({.peer = part.peer, .payload = part.payload});
        const step_report step = replica_.optimizer().apply(commit{.round = record.round, .contributions = parts_});
        if (step.disagreeing > 0 && step.disagreeing >= step.agreeing)
            refuse(
                exit_code::diverged,
                fmt::format("round {} does not fit: {} of {} contributions come from other weights than '{}' and the "
                            "rounds after it give",
                            record.round, step.disagreeing, step.contributors, from_));
        if (step.disagreeing > 0 && strays_ == 0) first_stray_ = record.round;
        proved_ += static_cast<std::uint64_t>(step.agreeing);
        strays_ += static_cast<std::uint64_t>(step.disagreeing);
        skipped_ += static_cast<std::uint64_t>(step.rejected);
    }

    /// Compares with what a file holds of this round, bit for bit.
    void compare(const std::filesystem::path& path, const snapshot& theirs) {
        const snapshot mine = replica_.make_snapshot();
        const auto differs = [&](const std::string& what) {
            refuse(exit_code::diverged,
                   fmt::format("'{}' of round {}: {} is not what the log gives", path.string(), mine.round, what));
        };
        if (theirs.round != mine.round) differs("its round");
        if (theirs.manifest != mine.manifest) differs("the manifest");
        if (theirs.tensors.size() != mine.tensors.size()) differs("the number of tensors");
        for (std::size_t i = 0; i < mine.tensors.size(); ++i) {
            const auto a = mine.tensors[i].values;
            const auto b = theirs.tensors[i].values;
            if (mine.tensors[i].name != theirs.tensors[i].name || a.size() != b.size()) differs("the list of tensors");
            for (std::size_t j = 0; j < a.size(); ++j)
                if (std::memcmp(&a[j], &b[j], sizeof(float)) != 0)
                    differs(fmt::format("weight {} of tensor '{}'", j, printable(mine.tensors[i].name)));
        }
        if (theirs.blobs != mine.blobs) differs("the optimizer's state");
    }

 private:
    static configuration settings_of(const snapshot& from, int threads) {
        configuration settings;
        adopt_manifest(settings, from.manifest);
        check(settings);
        settings.peer.threads = threads;
        return settings;
    }

    std::string from_;
    snapshot start_;
    replica replica_;
    std::vector<contribution> parts_;
    std::uint64_t proved_ = 0;
    std::uint64_t strays_ = 0;
    std::uint64_t first_stray_ = 0;
    std::uint64_t skipped_ = 0;
};

std::uint64_t payload_bytes(const log_record& record) {
    std::uint64_t total = 0;
    for (const logged_payload& part : record.contributions) total += part.payload.size();
    return total;
}

/// The run's state as records hand it on: one that changes it holds the whole of it.
class state_reader {
 public:
    /// `known`: the first record is the run's first.
    explicit state_reader(bool known) {
        if (known) state_.emplace();
    }
    /// What the record changed; all that holds after it when the state before is not known. Nothing: it holds none.
    std::vector<run_change> next(const log_record& record) {
        whole_ = !state_;
        if (record.control.empty()) return {};
        result<run_state> after = decode_state(record.control);
        if (!after) refuse(exit_code::storage, fmt::format("round {}: {}", record.round, after.error().message));
        std::vector<run_change> all =
            changes(state_ ? agreed_state_of(*state_) : agreed_state{}, agreed_state_of(*after));
        state_ = std::move(*after);
        return all;
    }
    /// Whether next() told all that holds.
    [[nodiscard]] bool whole() const noexcept { return whole_; }

 private:
    std::optional<run_state> state_;
    bool whole_ = false;
};

nlohmann::json json_of(const log_record& record, state_reader& states, bool tentative) {
    nlohmann::json parts = nlohmann::json::array();
    for (const logged_payload& part : record.contributions)
        parts.push_back({{"peer", std::to_string(part.peer)},  // JSON readers keep 53 bits of a number
                         {"bytes", part.payload.size()},
                         {"payload_digest", to_string(part.payload_digest)}});
    nlohmann::json changed = nlohmann::json::array();
    for (const run_change& change : states.next(record)) {
        changed.push_back(fields_of(change));
        changed.back()["what"] = change.what;
    }
    return {{"round", record.round},  {"term", record.term}, {"bytes", payload_bytes(record)},
            {"contributions", parts}, {"changes", changed},  {"whole", !changed.empty() && states.whole()},
            {"tentative", tentative}};
}

void show_record(const log_record& record, state_reader& states, bool tentative) {
    std::string peers;
    for (const logged_payload& part : record.contributions) peers += fmt::format(" {}", part.peer);
    std::string changed;
    for (const run_change& change : states.next(record)) changed += (changed.empty() ? "; " : ", ") + to_text(change);
    if (!changed.empty() && states.whole()) changed.insert(2, "now in all: ");
    fmt::print("{:>10} {:>6} {:>12} {}{}{}\n", record.round, record.term, payload_bytes(record),
               peers.empty() ? " nobody" : peers, tentative ? ", tentative" : "", changed);
}

/// One line about what a power cut or a running peer left at the end.
void say_unfinished(const run_log& log) {
    if (log.cut_bytes() != 0)
        fmt::print("unfinished {} bytes at the end, which nobody was promised; the peer cuts them when it starts\n",
                   log.cut_bytes());
}

/// Compares with every snapshot of the round that the weights are at; notes those that are equal.
void compare_all(replayer& weights, const stored_log& stored, std::vector<snapshot_file>& equal) {
    const std::uint64_t round = weights.round();
    for (const snapshot_file& one : std::span(stored.snapshots).subspan(1)) {
        if (one.round != round) continue;
        weights.compare(one.path, load_checked(one.path, stored.log.run()));
        equal.push_back(one);
    }
    if (!stored.replica || stored.replica->round != round) return;
    weights.compare(stored.replica_path, *stored.replica);
    equal.push_back({stored.replica_path, round});
}

/// What a replay from `begin` on has proved.
void say_proved(const stored_log& stored, std::uint64_t begin, const replayer& weights,
                const std::vector<snapshot_file>& equal) {
    fmt::print("replayed   rounds {} to {} from '{}': {} contributions come from the weights that the log gives\n",
               begin, stored.log.next_round(), stored.snapshots.front().path.string(), weights.proved());
    if (weights.strays() != 0)
        fmt::print("strays     {} contributions come from other weights, the first in round {}\n", weights.strays(),
                   weights.first_stray());
    if (weights.skipped() != 0)
        fmt::print("skipped    {} contributions, which no replica could read\n", weights.skipped());
    for (const snapshot_file& one : equal)
        fmt::print("equal      '{}' at round {}, bit for bit\n", one.path.string(), one.round);
}

}  // namespace

exit_code show_log(const log_options& options) {
    const stored_log stored = open_stored(options);
    const run_log& log = stored.log;
    const std::uint64_t from = std::max(options.from, log.first_round());
    const std::uint64_t to = std::min(options.to, log.next_round());
    if (from > to || (options.from != 0 && options.from < log.first_round()))
        refuse(exit_code::usage, fmt::format("--from {} --to {}: expected rounds within {} to {}", options.from, to,
                                             log.first_round(), log.next_round()));
    if (!options.json)
        fmt::print("{:>10} {:>6} {:>12}  {}\n", "round", "term", "bytes", "contributors; changes of the run");
    state_reader states(from == 0);
    require_read(log.read_records(from, to, [&](const log_record& record) {
        const bool tentative = record.round + 1 == log.next_round() && log.tentative();
        if (options.json)
            fmt::print("{}\n", json_of(record, states, tentative).dump());
        else
            show_record(record, states, tentative);
    }));
    if (!options.json) say_unfinished(log);
    std::fflush(stdout);
    return exit_code::ok;
}

exit_code verify_log(const log_options& options) {
    const stored_log stored = open_stored(options);
    const run_log& log = stored.log;
    if (stored.replica && stored.replica->round > log.next_round())
        refuse(exit_code::diverged, fmt::format("'{}' is at round {}, the log ends at round {}: its end was lost",
                                                stored.replica_path.string(), stored.replica->round, log.next_round()));
    std::optional<replayer> weights;
    std::vector<snapshot_file> equal;
    if (!stored.snapshots.empty()) {
        weights.emplace(stored.snapshots.front(), log.run(), options.threads);
        compare_all(*weights, stored, equal);
    }
    const std::uint64_t begin = weights ? weights->round() : log.next_round();
    std::uint64_t contributions = 0;
    std::uint64_t bytes = 0;
    require_read(log.read_records(log.first_round(), log.next_round(), [&](const log_record& record) {
        contributions += record.contributions.size();
        bytes += payload_bytes(record);
        if (record.round < begin) return;
        weights->apply(record);
        compare_all(*weights, stored, equal);
    }));
    fmt::print("run        {}\nread       rounds {} to {}: {} payloads with {} bytes have their digests\n",
               to_string(log.run()), log.first_round(), log.next_round(), contributions, bytes);
    if (weights)
        say_proved(stored, begin, *weights, equal);
    else
        fmt::print("replayed   nothing: there is no snapshot in '{}' to begin with\n", stored.folder.string());
    say_unfinished(log);
    std::fflush(stdout);
    return exit_code::ok;
}

exit_code rebuild_from_log(const log_options& options) {
    const stored_log stored = open_stored(options);
    const run_log& log = stored.log;
    const directory out{options.out};
    if (stored.snapshots.empty())
        refuse(exit_code::storage, "'" + stored.folder.string() + "' holds no snapshot to begin with");
    if (options.round < stored.snapshots.front().round || options.round > log.next_round())
        refuse(exit_code::usage, fmt::format("--round {}: expected {} to {}, what '{}' can give", options.round,
                                             stored.snapshots.front().round, log.next_round(), stored.folder.string()));
    if (std::filesystem::exists(out.root) &&
        !(std::filesystem::is_directory(out.root) && std::filesystem::is_empty(out.root)))
        refuse(exit_code::usage, "--out '" + out.root.string() + "' is not empty: expected another folder");
    const auto after = std::ranges::upper_bound(stored.snapshots, options.round, {}, &snapshot_file::round);
    replayer weights(*(after - 1), log.run(), options.threads);
    require_read(
        log.read_records(weights.round(), options.round, [&](const log_record& record) { weights.apply(record); }));
    make_directory(out.root);
    weights.at().save(out);
    fmt::print("round      {}\nreplica    {}\nwritten    '{}'\n", options.round,
               to_string(weights.at().optimizer().replica_digest()), out.root.string());
    std::fflush(stdout);
    return exit_code::ok;
}

}  // namespace thinwire::launcher
