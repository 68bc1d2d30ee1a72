#ifndef THINWIRE_BACKEND_CUDA_DETAIL_SHADOW_HPP
#define THINWIRE_BACKEND_CUDA_DETAIL_SHADOW_HPP

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace thinwire::cuda::detail {

inline constexpr unsigned warp_threads = 32;

/// A line of source. clang++ 14 has no std::source_location.
struct source_place {
    const char* file = "";
    unsigned line = 0;
    /// That of the caller, also as a default argument of what it calls.
    [[nodiscard]] static constexpr source_place current(const char* file = __builtin_FILE(),
                                                        unsigned line = __builtin_LINE()) noexcept {
        return {file, line};
    }
};

/// Who touches memory, and when. Intervals count up over everything that is emulated: a launch, a block and a barrier
/// each begin a new one.
struct toucher {
    std::uint64_t launch = 0;     ///< the first interval of this launch
    std::uint64_t block = 0;      ///< the first interval of this block
    std::uint64_t interval = 0;   ///< since the last barrier
    std::uint16_t thread = 0;     ///< of the block
    std::uint16_t warp_sync = 0;  ///< how often the warp has synchronised since the last barrier
};

/// A past access to one element. Interval 0: none.
struct access {
    std::uint64_t interval = 0;
    std::uint16_t thread = 0;
    std::uint16_t warp_sync = 0;
    bool atomic = false;
    bool several = false;  ///< atomically by other threads as well

    [[nodiscard]] static access of(const toucher& who, bool atomic = false) noexcept {
        return {.interval = who.interval, .thread = who.thread, .warp_sync = who.warp_sync, .atomic = atomic};
    }
    /// Whether the programming model promises that it was over before what `who` does now.
    [[nodiscard]] bool before(const toucher& who) const noexcept {
        if (interval < who.launch) return true;
        if (interval < who.block) return false;  // another block of this launch
        if (interval < who.interval) return true;
        if (several) return false;
        if (thread == who.thread) return true;
        return warp() == who.thread / warp_threads && warp_sync < who.warp_sync;
    }
    /// In its block.
    [[nodiscard]] unsigned warp() const noexcept { return thread / warp_threads; }
    [[nodiscard]] bool of_other_block(const toucher& who) const noexcept { return interval < who.block; }
};

/// What an access collides with.
struct collision {
    const char* did = nullptr;  ///< null: with nothing
    access with;
};

/// The accesses to one element that later ones are compared with: the last write and two unordered reads, of two warps
/// if more than one has read: so that for every thread there is one by another, and for every warp one by another, if
/// there was any.
class shadow_cell {
 public:
    [[nodiscard]] bool written_since(std::uint64_t interval) const noexcept {
        return write_.interval != 0 && write_.interval >= interval;
    }
    [[nodiscard]] collision read(const toucher& who) noexcept {
        if (!write_.before(who)) return {write_.atomic ? "changed atomically" : "wrote", write_};
        for (access& r : reads_)
            if (r.before(who)) {
                r = access::of(who);
                return {};
            }
        if (reads_[0].warp() == reads_[1].warp() && reads_[0].warp() != who.thread / warp_threads)
            reads_[1] = access::of(who);
        return {};
    }
    [[nodiscard]] collision write(const toucher& who, bool atomic) noexcept {
        for (const access& r : reads_)
            if (!r.before(who)) return {"read", r};
        const bool ordered = write_.before(who);
        if (!ordered && !(atomic && write_.atomic)) return {write_.atomic ? "changed atomically" : "wrote", write_};
        write_ = access::of(who, atomic);
        write_.several = !ordered;
        return {};
    }
    /// By the host, or by a copy.
    void initialise() noexcept { write_ = {.interval = 1}; }

 private:
    access write_;
    std::array<access, 2> reads_;
};

/// Memory that kernels touch: one allocation of a device's memory, or one array of a block's shared memory.
struct allocation {
    std::string name;
    std::byte* base = nullptr;
    std::size_t elements = 0;
    std::size_t element_bytes = 0;
    bool shared = false;
    bool alive = true;
    int device = 0;
    std::vector<shadow_cell> cells;  ///< one for each element
};

}  // namespace thinwire::cuda::detail

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_SHADOW_HPP
