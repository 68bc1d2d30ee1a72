#ifndef THINWIRE_LAUNCHER_DESCRIPTOR_HPP
#define THINWIRE_LAUNCHER_DESCRIPTOR_HPP

#include <unistd.h>

#include <utility>

namespace thinwire::launcher {

/// A file descriptor that is closed with its owner; -1: none.
class descriptor {
 public:
    explicit descriptor(int fd = -1) noexcept : fd_(fd) {}
    descriptor(descriptor&& other) noexcept : fd_(other.release()) {}
    descriptor& operator=(descriptor&& other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
    ~descriptor() {
        if (fd_ >= 0) (void)::close(fd_);
    }
    [[nodiscard]] int get() const noexcept { return fd_; }
    int release() noexcept { return std::exchange(fd_, -1); }

 private:
    int fd_;
};

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_DESCRIPTOR_HPP
