#ifndef THINWIRE_RUNTIME_SRC_LOG_STORE_HPP
#define THINWIRE_RUNTIME_SRC_LOG_STORE_HPP

#include <thinwire/comm/participant.hpp>
#include <thinwire/io/run_log.hpp>
#include <thinwire/runtime/node.hpp>

#include "private_file.hpp"

#include <cstdint>
#include <optional>
#include <utility>

namespace thinwire::runtime {

/// Whose a log is and what the run's state was before a round of it: FOLDER/owner. The file is replaced whole.
struct log_owner {
    digest run{};
    std::uint64_t incarnation = 0;  ///< drawn once per log
    std::uint64_t session = 0;      ///< of the process that wrote it
    std::uint64_t round = 0;
    std::uint64_t term = 0;  ///< of the record before `round`, where the log is to begin with it
    bool begun = false;      ///< there are segments, and none from before a snapshot at `round`
    run_state state;         ///< before `round`

    [[nodiscard]] static std::filesystem::path path_in(const std::filesystem::path& folder) { return folder / "owner"; }
    /// Throws node_error(storage) for one that is damaged; io_error.
    [[nodiscard]] static std::optional<log_owner> load(const std::filesystem::path& folder);
    void save(const std::filesystem::path& folder) const;
    /// Whether the power went between this file and the log, which is to begin with `round`.
    [[nodiscard]] bool begins_anew(const run_log& log) const;
};

/// What a node keeps on the disk: the run log, whose it is, and the snapshot that a log which was not begun here begins
/// with (FOLDER/<round in 20 digits>.snapshot). One at a time may use a folder (FOLDER/lock). Every call throws
/// io_error or value_error when it cannot be done.
class log_store {
 public:
    /// Opens what is there, or for a founder begins it. Throws node_error: storage, run_mismatch, replica_diverged.
    log_store(const node_options& options, bool founder);

    /// What a participant has to know of it. `address`: where this peer is dialled.
    void describe(participant_settings& settings, const std::string& address);

    void append(const commit_record& record);
    void vote(std::uint64_t term, peer_id peer);
    [[nodiscard]] commit_ptr load(std::uint64_t round) const;
    /// Records below `round` are final; whether the last of them changed the state of the run.
    [[nodiscard]] bool finalize(std::uint64_t round);
    /// The log begins anew with a snapshot, which is written first.
    void begin_anew(const snapshot_effect& with, const digest& run);
    /// Zero: not known yet.
    [[nodiscard]] const digest& run() const noexcept { return owner_.run; }
    /// Notes the state before `round`, so that the next start need not read the log from the beginning.
    void note(std::uint64_t round, const run_state& state);
    void drop_before(std::uint64_t round);
    /// Notes what is final, below `round`; everything is on the device when it returns.
    void close(std::uint64_t round);

    [[nodiscard]] std::uint64_t first_round() const noexcept { return log_ ? log_->first_round() : 0; }
    [[nodiscard]] std::uint64_t next_round() const noexcept { return log_ ? log_->next_round() : 0; }
    [[nodiscard]] std::uint64_t bytes() const noexcept { return log_ ? log_->bytes() : 0; }

 private:
    [[nodiscard]] run_log open(std::uint64_t first_round, std::uint64_t first_term) const;
    void require_replica_in_log(bool founder) const;
    [[nodiscard]] bool last_is_final() const;
    [[nodiscard]] commit_ptr read_state(run_state& state) const;
    void note_begun();
    void save_owner(std::uint64_t round, std::uint64_t term, run_state state);

    const node_options& options_;
    std::optional<file_lock> lock_;
    log_owner owner_;
    std::optional<run_log> log_;                                     ///< none: this peer is to get a snapshot first
    log_vote vote_{};                                                ///< while there is no log
    std::optional<std::pair<std::uint64_t, shared_bytes>> control_;  ///< of the tentative record
};

}  // namespace thinwire::runtime

#endif  // THINWIRE_RUNTIME_SRC_LOG_STORE_HPP
