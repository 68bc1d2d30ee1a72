#ifndef THINWIRE_IO_BATCH_SAMPLER_HPP
#define THINWIRE_IO_BATCH_SAMPLER_HPP

#include <thinwire/core/error.hpp>
#include <thinwire/core/permutation.hpp>
#include <thinwire/core/random.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace thinwire {

/// Splits a window of T + 1 bytes into T tokens and, one byte on, their T targets. Precondition: those sizes.
inline void split_window(std::span<const std::byte> window, std::span<std::int32_t> tokens,
                         std::span<std::int32_t> targets) noexcept {
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        tokens[i] = std::to_integer<std::int32_t>(window[i]);
        targets[i] = std::to_integer<std::int32_t>(window[i + 1]);
    }
}

struct batch_sampler_options {
    std::size_t sequence_length = 128;  ///< T, tokens in a window
    std::uint64_t slots_per_round = 1;  ///< windows that all peers together take in a round
    std::uint64_t seed = 0;
};

/// Which windows of a corpus are trained on in which round: a pure function of (corpus size, options, round, slot), so
/// that it has no state, resumes exactly, and gives the same to every peer. The slots of round r are followed by those
/// of r + 1. An epoch visits every window once, in a random order of its own; windows of an epoch do not overlap in
/// their targets, and their boundaries shift from epoch to epoch.
class batch_sampler {
 public:
    /// Views `corpus`. Throws value_error for a length or a number of slots of 0, or a corpus below T + 1 bytes.
    batch_sampler(std::span<const std::byte> corpus, batch_sampler_options options)
        : corpus_(corpus), options_(options) {
        const std::size_t length = options.sequence_length;
        if (length == 0) throw value_error("batch_sampler: sequence_length 0, expected at least 1");
        if (options.slots_per_round == 0) throw value_error("batch_sampler: slots_per_round 0, expected at least 1");
        if (corpus.size() <= length)  // length + 1 may not fit
            throw value_error("batch_sampler: corpus of " + std::to_string(corpus.size()) +
                              " bytes, expected at least " + std::to_string(length + 1));
        // One window fewer than fit leaves room for the shift.
        const std::size_t fit = (corpus.size() - 1) / length;
        windows_ = fit > 1 ? fit - 1 : 1;
        shifts_ = std::min<std::uint64_t>(corpus.size() - windows_ * length, length);
    }

    [[nodiscard]] std::size_t sequence_length() const noexcept { return options_.sequence_length; }
    [[nodiscard]] std::uint64_t slots_per_round() const noexcept { return options_.slots_per_round; }
    [[nodiscard]] std::uint64_t windows_per_epoch() const noexcept { return windows_; }

    /// The T + 1 bytes of a slot. Throws value_error for a slot outside [0, slots_per_round).
    [[nodiscard]] std::span<const std::byte> sample(std::uint64_t round, std::uint64_t slot) const {
        if (slot >= options_.slots_per_round)
            throw value_error("batch_sampler: slot " + std::to_string(slot) + ", expected less than " +
                              std::to_string(options_.slots_per_round));
        const std::uint64_t index = round * options_.slots_per_round + slot;
        const std::uint64_t epoch = index / windows_;
        const auto keys = philox(options_.seed, epoch, 0);
        const std::uint64_t key = keys[0] | (std::uint64_t{keys[1]} << 32U);
        const std::uint64_t shift = keys[2] % shifts_;
        const std::uint64_t window = permutation(windows_, key)(index % windows_);
        return corpus_.subspan(window * options_.sequence_length + shift, options_.sequence_length + 1);
    }

    /// Slots [first_slot, first_slot + rows) as rows of T tokens and T targets. Throws value_error as sample() does,
    /// shape_error unless both spans hold a whole number of rows, and equally many.
    void fill(std::uint64_t round, std::uint64_t first_slot, std::span<std::int32_t> tokens,
              std::span<std::int32_t> targets) const {
        const std::size_t length = options_.sequence_length;
        if (tokens.size() % length != 0 || targets.size() != tokens.size())
            throw shape_error("batch_sampler: " + std::to_string(tokens.size()) + " tokens and " +
                              std::to_string(targets.size()) + " targets, expected rows of " + std::to_string(length));
        for (std::size_t row = 0; row < tokens.size() / length; ++row)
            split_window(sample(round, first_slot + row), tokens.subspan(row * length, length),
                         targets.subspan(row * length, length));
    }

 private:
    std::span<const std::byte> corpus_;
    batch_sampler_options options_;
    std::uint64_t windows_ = 1;
    std::uint64_t shifts_ = 1;
};

}  // namespace thinwire

#endif  // THINWIRE_IO_BATCH_SAMPLER_HPP
