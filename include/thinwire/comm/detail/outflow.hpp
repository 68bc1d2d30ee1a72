#ifndef THINWIRE_COMM_DETAIL_OUTFLOW_HPP
#define THINWIRE_COMM_DETAIL_OUTFLOW_HPP

#include <thinwire/comm/message.hpp>

#include <cstddef>
#include <cstdint>
#include <deque>

namespace thinwire::detail::comm {

/// Where one receiver of commits stands: what was sent, what it took, and how much lies between.
class outflow {
 public:
    outflow() = default;
    explicit outflow(std::uint64_t next) noexcept : next_(next), taken_(next) {}

    /// The round to send next.
    [[nodiscard]] std::uint64_t next() const noexcept { return next_; }
    [[nodiscard]] std::uint64_t taken() const noexcept { return taken_; }

    /// Whether a record of `weight` bytes may be sent without more than `window` lying untaken. One always may.
    [[nodiscard]] bool room(std::size_t weight, std::size_t window) const noexcept {
        return untaken_.empty() || total_ + weight <= window;
    }
    void sent(std::size_t weight) {
        untaken_.push_back(weight);
        total_ += weight;
        ++next_;
    }
    /// The receiver has taken everything below `round`. Precondition: round <= next().
    void take(std::uint64_t round) noexcept {
        for (; taken_ < round; ++taken_) {
            total_ -= untaken_.front();
            untaken_.pop_front();
        }
    }

 private:
    std::uint64_t next_ = 0;
    std::uint64_t taken_ = 0;
    std::deque<std::size_t> untaken_;
    std::size_t total_ = 0;
};

/// What a record weighs in a queue.
[[nodiscard]] inline std::size_t weight(const commit_record& record) noexcept {
    return payload_bytes(record) + 64 * (record.contributions.size() + 1);
}

}  // namespace thinwire::detail::comm

#endif  // THINWIRE_COMM_DETAIL_OUTFLOW_HPP
