#include "stop_signal.hpp"

#include "exit_code.hpp"
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <ctime>

namespace thinwire::launcher {
namespace {

/// Within it a signal is the same one once more: what `timeout` sends to a process and to its group, a terminal's
/// hang-up that a shell passes on.
constexpr std::int64_t same_signal_ms = 500;

std::atomic<std::int64_t> stopped_at{0};  ///< when the first signal came; 0: none did
std::array<std::atomic<int>, 1024> children{};
std::array<int, 2> wake_pipe{-1, -1};

static_assert(std::atomic<int>::is_always_lock_free && std::atomic<std::int64_t>::is_always_lock_free,
              "signal handlers may only touch lock-free atomics");

bool first_or_the_same() {
    timespec time{};
    (void)::clock_gettime(CLOCK_MONOTONIC, &time);
    const std::int64_t now = std::int64_t{time.tv_sec} * 1000 + time.tv_nsec / 1'000'000 + 1;
    std::int64_t first = 0;
    return stopped_at.compare_exchange_strong(first, now) || now - first < same_signal_ms;
}

void on_signal(int signal) {
    const int saved = errno;
    if (signal != SIGCHLD && !first_or_the_same()) {
        for (const std::atomic<int>& child : children)
            if (const int pid = child.load(); pid > 0) (void)::kill(pid, SIGKILL);
        _exit(static_cast<int>(exit_code::interrupted));
    }
    const char byte = 0;
    [[maybe_unused]] const auto written = ::write(wake_pipe[1], &byte, 1);
    errno = saved;
}

}  // namespace

void watch_stop_signals() {
    if (::pipe2(wake_pipe.data(), O_CLOEXEC | O_NONBLOCK) != 0)
        throw launcher_error(exit_code::failed, "cannot create a pipe for signals");
    struct sigaction action {};
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    for (const int signal : {SIGINT, SIGTERM, SIGCHLD}) (void)::sigaction(signal, &action, nullptr);
    struct sigaction before {};
    const bool nohup = ::sigaction(SIGHUP, nullptr, &before) == 0 && before.sa_handler == SIG_IGN;
    if (!nohup) (void)::sigaction(SIGHUP, &action, nullptr);
    action.sa_handler = SIG_IGN;
    (void)::sigaction(SIGPIPE, &action, nullptr);
    // A parent that starts this program holds them until here.
    sigset_t held;
    sigemptyset(&held);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&held, signal);
    (void)::pthread_sigmask(SIG_UNBLOCK, &held, nullptr);
}

bool stop_requested() noexcept {
    return stopped_at.load() != 0;
}

void wait_for_signal(int milliseconds) noexcept {
    pollfd wake{wake_pipe[0], POLLIN, 0};
    if (::poll(&wake, 1, milliseconds) <= 0) return;
    std::array<char, 64> bytes{};
    while (::read(wake_pipe[0], bytes.data(), bytes.size()) > 0) {
    }
}

void end_with_us(int pid) noexcept {
    for (std::atomic<int>& child : children) {
        int free = 0;
        if (child.compare_exchange_strong(free, pid)) return;
    }
}

void forget_child(int pid) noexcept {
    for (std::atomic<int>& child : children) {
        int found = pid;
        if (child.compare_exchange_strong(found, 0)) return;
    }
}

}  // namespace thinwire::launcher
