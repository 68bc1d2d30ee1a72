#ifndef THINWIRE_RUNTIME_SRC_MAILBOX_HPP
#define THINWIRE_RUNTIME_SRC_MAILBOX_HPP

#include <thinwire/comm/effect.hpp>
#include <thinwire/comm/message.hpp>
#include <thinwire/runtime/node.hpp>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace thinwire::runtime {

/// What the node's thread has for its caller's thread: commits, the snapshot, the end of the run. Thread-safe.
class mailbox {
 public:
    void deliver(commit_ptr record) {
        change([&] { ready_.push_back(std::move(record)); });
    }
    /// Commits below `round` exist, as far as can be told now.
    void announce(std::uint64_t round) {
        change([&] { known_ = round; });
    }
    /// Somebody of the run was met: which it is, and its manifest.
    void enter(const digest& run, const std::string& manifest) {
        change([&] { met_.emplace(run, manifest); });
    }
    void put_snapshot(shared_bytes bytes, std::uint64_t round) {
        change([&] {
            snapshot_ = std::move(bytes);
            snapshot_round_ = round;
        });
    }
    void reject(std::uint64_t round, std::string text) {
        change([&] { rejected_ = {round, std::move(text)}; });
    }
    /// The first reason stays.
    void end(node_errc code, const std::string& line) {
        change([&] {
            if (!end_) end_ = node_error(code, line);
        });
    }
    void stop() {
        change([&] { stopped_ = true; });
    }
    /// Nothing more happens on the wire.
    void quiet() {
        change([&] { quiet_ = true; });
    }

    /// Waits until somebody of the run was met and, where one is wanted, the snapshot is there; throws the end.
    void wait_admitted(bool snapshot) {
        wait([&] { return snapshot ? snapshot_ != nullptr : met_.has_value(); });
    }
    /// Commits in order, about `limit` bytes; waits for one as long as commits below the announced round are due, and
    /// with `always` for the next one. Throws the end, and with `always` also when the payload for `round` is refused.
    [[nodiscard]] std::vector<commit_ptr> take(std::uint64_t round, bool always, std::size_t limit) {
        std::vector<commit_ptr> out;
        const auto lock = wait([&] {
            if (!ready_.empty() || (!always && round >= known_)) return true;
            return always && rejected_ && rejected_->first == round;
        });
        for (std::size_t total = 0; !ready_.empty() && (out.empty() || total < limit);) {
            total += queue_weight(*ready_.front());
            out.push_back(std::move(ready_.front()));
            ready_.pop_front();
        }
        if (out.empty() && end_) throw *end_;
        if (out.empty() && always)
            throw node_error(node_errc::refused, "the payload for round " + std::to_string(round) +
                                                     " was refused: " + std::exchange(rejected_, {})->second);
        return out;
    }
    /// Whether everything was sent and closed within `time`.
    bool wait_quiet(std::chrono::milliseconds time) {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, time, [&] { return quiet_; });
    }

    [[nodiscard]] std::pair<shared_bytes, std::uint64_t> take_snapshot() {
        const std::lock_guard lock(mutex_);
        return {std::exchange(snapshot_, nullptr), snapshot_round_};
    }
    [[nodiscard]] std::uint64_t snapshot_round() {
        const std::lock_guard lock(mutex_);
        return snapshot_round_;
    }
    [[nodiscard]] bool ended() {
        const std::lock_guard lock(mutex_);
        return stopped_ || end_.has_value();
    }
    /// The run that was met, and its manifest.
    [[nodiscard]] std::optional<std::pair<digest, std::string>> met() {
        const std::lock_guard lock(mutex_);
        return met_;
    }

 private:
    template <class Change>
    void change(Change&& apply) {
        {
            const std::lock_guard lock(mutex_);
            apply();
        }
        changed_.notify_all();
    }
    /// What is ready is handed out even after the end.
    template <class Ready>
    std::unique_lock<std::mutex> wait(Ready&& ready) {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return stopped_ || ready() || end_.has_value(); });
        if (stopped_) throw node_error(node_errc::run_stopped, "this node was stopped");
        if (!ready()) throw *end_;
        return lock;
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<commit_ptr> ready_;
    std::uint64_t known_ = 0;
    std::optional<std::pair<digest, std::string>> met_;
    shared_bytes snapshot_;
    std::uint64_t snapshot_round_ = 0;
    std::optional<std::pair<std::uint64_t, std::string>> rejected_;
    std::optional<node_error> end_;
    bool stopped_ = false;
    bool quiet_ = false;
};

}  // namespace thinwire::runtime

#endif  // THINWIRE_RUNTIME_SRC_MAILBOX_HPP
