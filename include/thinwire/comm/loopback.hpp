#ifndef THINWIRE_COMM_LOOPBACK_HPP
#define THINWIRE_COMM_LOOPBACK_HPP

#include <thinwire/comm/transport.hpp>
#include <thinwire/core/error.hpp>

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace thinwire {

/// Peers 0..n-1 in one process, each used from its own thread: an all-gather without a network. A round's commit holds
/// the payloads of all present members, ordered by peer. For tests and examples, so it can also misbehave on request:
/// skip() loses a payload, leave() takes a member away; one that left is back with its next exchange(), which
/// gives it all it missed. Rounds that some member has not taken are kept. Thread-safe.
class loopback_group {
    struct closed_round {
        std::vector<std::vector<std::byte>> payloads;
        std::vector<contribution> contributions;  // views of them
    };

 public:
    /// One peer's end; satisfies `transport`.
    class member {
     public:
        member(loopback_group& group, peer_id self) noexcept : group_(&group), self_(self) {}
        [[nodiscard]] peer_id self() const noexcept { return self_; }
        /// Throws value_error for a round that lies ahead of the group or that it no longer keeps.
        [[nodiscard]] std::span<const commit> exchange(std::uint64_t round, std::span<const std::byte> payload) {
            return group_->exchange(*this, round, payload);
        }

     private:
        friend class loopback_group;
        loopback_group* group_;
        peer_id self_;
        bool present_ = true;
        bool arrived_ = false;
        std::uint64_t next_ = 0;  // the first round not taken yet
        std::vector<std::byte> payload_;
        std::vector<std::shared_ptr<const closed_round>> held_;  // what commits_ views
        std::vector<commit> commits_;
    };

    /// Throws value_error unless 1 <= members <= 65536.
    explicit loopback_group(int members) {
        if (members < 1 || members > 65536)
            throw value_error("loopback_group: " + std::to_string(members) + " members, expected 1..65536");
        members_.reserve(static_cast<std::size_t>(members));  // they stay where they are
        for (int i = 0; i < members; ++i) members_.emplace_back(*this, static_cast<peer_id>(i));
    }
    loopback_group(const loopback_group&) = delete;
    loopback_group& operator=(const loopback_group&) = delete;

    [[nodiscard]] std::size_t size() const noexcept { return members_.size(); }
    /// Precondition: i < size().
    [[nodiscard]] member& operator[](std::size_t i) noexcept { return members_[i]; }

    /// The commit of this round will lack the peer's payload, though the peer takes part. To be called before it is
    /// made.
    void skip(peer_id peer, std::uint64_t round) {
        const std::lock_guard lock(mutex_);
        skipped_.emplace(round, peer);
    }
    /// The others go on without this peer, from the round that is open now.
    void leave(peer_id peer) {
        {
            const std::lock_guard lock(mutex_);
            members_.at(peer).present_ = members_.at(peer).arrived_ = false;
            close_round_if_complete();
        }
        changed_.notify_all();
    }

 private:
    std::span<const commit> exchange(member& m, std::uint64_t round, std::span<const std::byte> payload) {
        std::unique_lock lock(mutex_);
        if (round < first_ || round > first_ + rounds_.size())
            throw value_error("loopback exchange: round " + std::to_string(round) + ", expected " +
                              std::to_string(first_) + ".." + std::to_string(first_ + rounds_.size()));
        m.present_ = true;
        if (round == first_ + rounds_.size()) {
            m.payload_.assign(payload.begin(), payload.end());
            m.arrived_ = true;
            close_round_if_complete();
            changed_.notify_all();
            changed_.wait(lock, [&] { return first_ + rounds_.size() > round; });
        }
        take(m, round);
        return m.commits_;
    }

    void close_round_if_complete() {
        bool any = false;
        for (const member& m : members_) {
            if (m.present_ && !m.arrived_) return;
            any = any || m.arrived_;
        }
        if (!any) return;
        const auto closed = std::make_shared<closed_round>();
        closed->payloads.resize(members_.size());
        for (member& m : members_) {
            if (m.arrived_ && !skipped_.contains({first_ + rounds_.size(), m.self_})) {
                closed->payloads[m.self_].swap(m.payload_);
                closed->contributions.push_back({.peer = m.self_, .payload = closed->payloads[m.self_]});
            }
            m.arrived_ = false;
        }
        rounds_.push_back(closed);
    }

    void take(member& m, std::uint64_t round) {
        m.held_.assign(rounds_.begin() + static_cast<std::ptrdiff_t>(round - first_), rounds_.end());
        m.commits_.clear();
        for (const auto& held : m.held_) m.commits_.push_back({.round = round++, .contributions = held->contributions});
        m.next_ = round;
        std::uint64_t oldest = round;
        for (const member& other : members_) oldest = std::min(oldest, other.next_);
        rounds_.erase(rounds_.begin(), rounds_.begin() + static_cast<std::ptrdiff_t>(oldest - first_));
        first_ = oldest;
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<member> members_;
    std::vector<std::shared_ptr<const closed_round>> rounds_;  // from first_ on
    std::uint64_t first_ = 0;
    std::set<std::pair<std::uint64_t, peer_id>> skipped_;  // payloads that are lost
};

static_assert(transport<loopback_group::member>);

}  // namespace thinwire

#endif  // THINWIRE_COMM_LOOPBACK_HPP
