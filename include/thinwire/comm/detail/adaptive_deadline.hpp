#ifndef THINWIRE_COMM_DETAIL_ADAPTIVE_DEADLINE_HPP
#define THINWIRE_COMM_DETAIL_ADAPTIVE_DEADLINE_HPP

#include <thinwire/comm/effect.hpp>

#include <algorithm>
#include <array>
#include <cstddef>

namespace thinwire::detail::comm {

/// How long to wait for the others after a round's first payload: three times the 95th percentile of how long the
/// last rounds' payloads were apart, within bounds. Until it has seen a few rounds, the upper bound.
class adaptive_deadline {
 public:
    void add(timestamp spread, timestamp upper) noexcept {
        samples_[next_] = std::clamp<timestamp>(spread, 0, upper);
        next_ = (next_ + 1) % samples_.size();
        count_ = std::min(count_ + 1, samples_.size());
    }

    [[nodiscard]] timestamp wait(timestamp lower, timestamp upper) const noexcept {
        if (count_ < 3) return upper;
        auto sorted = samples_;
        const auto end = sorted.begin() + static_cast<std::ptrdiff_t>(count_);
        std::sort(sorted.begin(), end);
        return std::clamp(3 * sorted[(count_ * 95 + 99) / 100 - 1], lower, upper);
    }

 private:
    std::array<timestamp, 32> samples_{};
    std::size_t next_ = 0;
    std::size_t count_ = 0;
};

}  // namespace thinwire::detail::comm

#endif  // THINWIRE_COMM_DETAIL_ADAPTIVE_DEADLINE_HPP
