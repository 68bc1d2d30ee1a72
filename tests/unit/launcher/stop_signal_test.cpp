#include "stop_signal.hpp"

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>

using namespace thinwire::launcher;

namespace {

/// The exit code of a process that does this and then lives on to exit with 7.
template <class Body>
int code_after(Body body) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        body();
        _exit(stop_requested() ? 7 : 8);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/// Three stop signals at once: they are held until all are there, so that their handlers run one right after the other,
/// however long this process had to wait for a processor before. What remains is half a second between two handlers.
void three_within_moments() {
    sigset_t held, before;
    sigemptyset(&held);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&held, signal);
    (void)::pthread_sigmask(SIG_BLOCK, &held, &before);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) (void)::raise(signal);
    (void)::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

/// The time in which a second signal counts as the first is over.
void let_half_a_second_pass() {
    const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(501);
    while (std::chrono::steady_clock::now() < until) wait_for_signal(50);
}

}  // namespace

TEST_CASE("stop_signal: the first one asks, a second one ends, and those that come within moments are one") {
    const auto moments = [] {
        (void)::signal(SIGHUP, SIG_DFL);
        watch_stop_signals();
        three_within_moments();
    };
    CHECK(code_after(watch_stop_signals) == 8);
    CHECK(code_after(moments) == 7);
    CHECK(code_after([&] {
              moments();
              let_half_a_second_pass();
              (void)::raise(SIGINT);
          }) == 130);
}

TEST_CASE("stop_signal: a terminal that hangs up asks, too, but not under nohup") {
    const auto hang_up = [](auto before) {
        return code_after([&] {
            (void)::signal(SIGHUP, before);
            watch_stop_signals();
            (void)::raise(SIGHUP);
        });
    };
    CHECK(hang_up(SIG_DFL) == 7);
    CHECK(hang_up(SIG_IGN) == 8);
}
