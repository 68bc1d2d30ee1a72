#ifndef THINWIRE_BACKEND_CUDA_DETAIL_EMULATED_BANKS_HPP
#define THINWIRE_BACKEND_CUDA_DETAIL_EMULATED_BANKS_HPP

#include <thinwire/backend/cuda/detail/shadow.hpp>

#include <algorithm>
#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string_view>
#include <vector>

namespace thinwire::cuda::detail {

/// Counts how well warps use the 32 banks of shared memory, each of which gives one word of four bytes at a time: an
/// access of a warp takes as many turns (wavefronts) as the busiest bank has different words to give. What threads of a
/// warp touch for the n-th time from a line of source since the block began counts as one access.
class bank_meter {
 public:
    struct turns {
        std::uint64_t accesses = 0;  ///< of warps
        std::uint64_t wavefronts = 0;
    };

    /// Some bytes of the block's shared memory, from this address of it on.
    void touch(const toucher& who, const source_place& at, std::uintptr_t address, std::size_t bytes) {
        if (who.block != block_) {
            settle();
            block_ = who.block;
        }
        const std::uint32_t turn = turns_of_threads_[{who.thread, place_of_code(at)}]++;
        auto& words = accesses_[{static_cast<std::uint16_t>(who.thread / warp_threads), place_of_code(at), turn}];
        for (std::size_t b = 0; b < bytes; b += 4) words.push_back((address + b) / 4);
    }
    /// All accesses from files whose names end so.
    [[nodiscard]] turns from(std::string_view file) {
        settle();
        turns sum;
        for (std::size_t i = 0; i < places_.size(); ++i)
            if (std::string_view(places_[i].file).ends_with(file)) {
                sum.accesses += counts_[i].accesses;
                sum.wavefronts += counts_[i].wavefronts;
            }
        return sum;
    }

 private:
    struct thread_key {
        std::uint16_t thread;
        std::uint32_t place;
        [[nodiscard]] auto operator<=>(const thread_key&) const = default;
    };
    struct access_key {
        std::uint16_t warp;
        std::uint32_t place;
        std::uint32_t turn;
        [[nodiscard]] auto operator<=>(const access_key&) const = default;
    };

    [[nodiscard]] std::uint32_t place_of_code(const source_place& at) {
        std::size_t i = 0;
        while (i < places_.size() && (places_[i].line != at.line || std::string_view(places_[i].file) != at.file)) ++i;
        if (i == places_.size()) {
            places_.push_back(at);
            counts_.emplace_back();
        }
        return static_cast<std::uint32_t>(i);
    }
    /// Counts what the last block did.
    void settle() {
        for (auto& [key, words] : accesses_) {
            std::ranges::sort(words);
            words.erase(std::unique(words.begin(), words.end()), words.end());
            std::array<std::uint64_t, 32> of_bank{};
            for (const std::uintptr_t word : words) ++of_bank[word % 32];
            ++counts_[key.place].accesses;
            counts_[key.place].wavefronts += *std::ranges::max_element(of_bank);
        }
        accesses_.clear();
        turns_of_threads_.clear();
    }

    std::uint64_t block_ = 0;
    std::vector<source_place> places_;
    std::vector<turns> counts_;  ///< by place
    std::map<thread_key, std::uint32_t> turns_of_threads_;
    std::map<access_key, std::vector<std::uintptr_t>> accesses_;
};

/// What counts in this thread; null: nothing does.
inline constinit thread_local bank_meter* banks = nullptr;

}  // namespace thinwire::cuda::detail

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_EMULATED_BANKS_HPP
