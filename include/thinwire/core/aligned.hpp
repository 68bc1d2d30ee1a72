#ifndef THINWIRE_CORE_ALIGNED_HPP
#define THINWIRE_CORE_ALIGNED_HPP

#include <cstddef>
#include <limits>
#include <new>
#include <vector>

namespace thinwire {

/// Allocates at multiples of 64 bytes: a cache line and the widest vector register.
template <class T>
struct aligned_allocator {
    using value_type = T;

    aligned_allocator() = default;
    template <class U>
    constexpr aligned_allocator(const aligned_allocator<U>&) noexcept {}

    [[nodiscard]] T* allocate(std::size_t count) {
        if (count > std::numeric_limits<std::size_t>::max() / sizeof(T)) throw std::bad_array_new_length();
        return static_cast<T*>(::operator new (count * sizeof(T), std::align_val_t{64}));
    }
    void deallocate(T* memory, std::size_t) noexcept { ::operator delete (memory, std::align_val_t{64}); }

    template <class U>
    [[nodiscard]] bool operator==(const aligned_allocator<U>&) const noexcept {
        return true;
    }
};

template <class T>
using aligned_vector = std::vector<T, aligned_allocator<T>>;

/// Bytes that vectors asked the allocator for; not what their elements hold in turn.
template <class... Vectors>
[[nodiscard]] constexpr std::size_t bytes_held(const Vectors&... vectors) noexcept {
    return (std::size_t{0} + ... + (vectors.capacity() * sizeof(typename Vectors::value_type)));
}

}  // namespace thinwire

#endif  // THINWIRE_CORE_ALIGNED_HPP
