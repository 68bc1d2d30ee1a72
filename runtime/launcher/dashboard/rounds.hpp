#ifndef THINWIRE_LAUNCHER_DASHBOARD_ROUNDS_HPP
#define THINWIRE_LAUNCHER_DASHBOARD_ROUNDS_HPP

#include <cstddef>
#include <cstdint>
#include <deque>
#include <limits>
#include <vector>

namespace thinwire::launcher {

/// Values of some rounds: of `count` of them the least, the greatest and the sum.
struct value_range {
    double low = std::numeric_limits<double>::infinity(), high = -std::numeric_limits<double>::infinity(), sum = 0;
    std::uint64_t count = 0;

    /// A value that is not finite is none.
    void add(double value);
    void add(const value_range& other);
};

/// Consecutive rounds, seen by one peer, as one point of a curve. Everything but `first`, `last` and `time` is a sum.
struct round_span {
    std::uint64_t first = 0, last = 0;     ///< rounds, both in it
    double time = 0;                       ///< seconds since 1970, at the end
    std::uint64_t seen = 0;                ///< rounds that were told of; others lie between them
    std::uint64_t tokens = 0;              ///< of all peers; of rounds that were not told of as many as of the next
    double seconds = 0;                    ///< that the rounds seen took, pauses of the run left out
    double computed = 0, waited = 0;       ///< of them, by that peer: in gradients, in the exchange with others
    std::uint64_t sent = 0, received = 0;  ///< bytes of that peer on the wire
    std::uint64_t contributions = 0, disagreeing = 0;
    value_range loss{};

    /// Precondition: `next` lies after this.
    void append(const round_span& next);
};

/// The rounds of a run in bounded memory: the newest one by one, older ones in spans of 2, 4, 8, ... rounds, a few
/// hundred of each. What is summed stays exact, and so do least and greatest.
class round_history {
 public:
    explicit round_history(std::size_t spans_a_level = 512) : capacity_(spans_a_level) {}

    /// Precondition: `next.first` lies after all that is here.
    void add(const round_span& next);
    void clear() { levels_.clear(); }

    [[nodiscard]] bool empty() const;
    /// From the first round to the last.
    [[nodiscard]] std::vector<round_span> all() const;
    [[nodiscard]] std::size_t size() const;
    /// The newest spans, at most `count`, in their order.
    [[nodiscard]] std::vector<round_span> newest(std::size_t count) const;

 private:
    std::size_t capacity_;
    std::vector<std::deque<round_span>> levels_;  ///< spans of level i lie in one block of 2^i rounds
};

/// Of a list by rounds that is too long the one goes whose neighbours are nearest to each other, so that what stays is
/// spread evenly; first and last stay. For what is kept beside the curve: T has a `round`.
template <class T>
void thin(std::vector<T>& list, std::size_t most) {
    while (list.size() > most) {
        std::size_t least = 1;
        for (std::size_t i = 2; i + 1 < list.size(); ++i)
            if (list[i + 1].round - list[i - 1].round < list[least + 1].round - list[least - 1].round) least = i;
        list.erase(list.begin() + static_cast<std::ptrdiff_t>(least));
    }
}

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_DASHBOARD_ROUNDS_HPP
