#include "stop_signal.hpp"

#include "exit_code.hpp"
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>

namespace thinwire::launcher {
namespace {

std::atomic<int> signals_seen{0};
std::array<std::atomic<int>, 1024> children{};
std::array<int, 2> wake_pipe{-1, -1};

static_assert(std::atomic<int>::is_always_lock_free, "signal handlers may only touch lock-free atomics");

void on_signal(int signal) {
    const int saved = errno;
    if (signal != SIGCHLD && signals_seen.fetch_add(1) > 0) {
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
    action.sa_handler = SIG_IGN;
    (void)::sigaction(SIGPIPE, &action, nullptr);
    // A parent that starts this program holds them until here.
    sigset_t held;
    sigemptyset(&held);
    for (const int signal : {SIGINT, SIGTERM}) sigaddset(&held, signal);
    (void)::pthread_sigmask(SIG_UNBLOCK, &held, nullptr);
}

bool stop_requested() noexcept {
    return signals_seen.load() > 0;
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
