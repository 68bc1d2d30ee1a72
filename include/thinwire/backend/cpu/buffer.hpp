#ifndef THINWIRE_BACKEND_CPU_BUFFER_HPP
#define THINWIRE_BACKEND_CPU_BUFFER_HPP

#include <algorithm>
#include <cstddef>
#include <limits>
#include <memory>
#include <new>
#include <utility>

namespace thinwire::cpu {

/// Owns numbers in host memory that begin at a multiple of 64 bytes, a cache line. Zero-filled when made.
template <class T>
class aligned_buffer {
 public:
    static constexpr std::size_t alignment = 64;

    aligned_buffer() = default;
    explicit aligned_buffer(std::size_t size)
        : data_(size == 0 ? nullptr : static_cast<T*>(::operator new (bytes(size), std::align_val_t{alignment}))),
          size_(size) {
        std::fill_n(data_.get(), size, T{});
    }
    aligned_buffer(aligned_buffer&& other) noexcept : data_(std::move(other.data_)), size_(other.size_) {
        other.size_ = 0;
    }
    aligned_buffer& operator=(aligned_buffer&& other) noexcept {
        data_ = std::move(other.data_);
        size_ = std::exchange(other.size_, 0);
        return *this;
    }

    [[nodiscard]] T* data() noexcept { return data_.get(); }
    [[nodiscard]] const T* data() const noexcept { return data_.get(); }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }

 private:
    static std::size_t bytes(std::size_t size) {
        if (size > std::numeric_limits<std::size_t>::max() / sizeof(T)) throw std::bad_array_new_length();
        return size * sizeof(T);
    }

    struct release {
        void operator()(T* p) const noexcept { ::operator delete (p, std::align_val_t{alignment}); }
    };
    std::unique_ptr<T[], release> data_;
    std::size_t size_ = 0;
};

}  // namespace thinwire::cpu

#endif  // THINWIRE_BACKEND_CPU_BUFFER_HPP
