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

/// The time in which a second signal counts as the first is over.
void let_half_a_second_pass() {
    const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(501);
    while (std::chrono::steady_clock::now() < until) wait_for_signal(50);
}

}  // namespace

TEST_CASE("stop_signal: the first one asks, a second one ends, and one that comes twice within moments is one") {
    const auto twice = [] {
        watch_stop_signals();
        (void)::raise(SIGTERM);
        (void)::raise(SIGTERM);
        (void)::raise(SIGINT);
    };
    CHECK(code_after(watch_stop_signals) == 8);
    CHECK(code_after(twice) == 7);
    CHECK(code_after([&] {
              twice();
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
