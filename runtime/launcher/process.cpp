#include "process.hpp"

#include "exit_code.hpp"
#include "stop_signal.hpp"
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace thinwire::launcher {
namespace {

int decode(int status) {
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/// Makes stop signals wait while it lives. A child born meanwhile inherits that through exec until it calls
/// watch_stop_signals(): one that is interrupted before it can listen neither dies of it nor misses it.
class held_stop_signals {
 public:
    held_stop_signals() noexcept {
        sigset_t held;
        sigemptyset(&held);
        for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&held, signal);
        (void)::pthread_sigmask(SIG_BLOCK, &held, &before_);
    }
    held_stop_signals(const held_stop_signals&) = delete;
    held_stop_signals& operator=(const held_stop_signals&) = delete;
    ~held_stop_signals() { (void)::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
    sigset_t before_{};
};

/// Between fork and exec: only async-signal-safe calls.
[[noreturn]] void become(char* const* arguments, const char* log, pid_t parent) {
    (void)::setpgid(0, 0);
    (void)::prctl(PR_SET_PDEATHSIG, SIGINT);
    if (::getppid() != parent) _exit(static_cast<int>(exit_code::failed));
    const int in = ::open("/dev/null", O_RDONLY);
    const int out = ::open(log, O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (in < 0 || out < 0) _exit(static_cast<int>(exit_code::storage));
    (void)::dup2(in, STDIN_FILENO);
    (void)::dup2(out, STDOUT_FILENO);
    (void)::dup2(out, STDERR_FILENO);
    ::execv("/proc/self/exe", arguments);
    _exit(static_cast<int>(exit_code::failed));
}

}  // namespace

process::process(const std::vector<std::string>& arguments, const std::filesystem::path& log) {
    std::vector<std::string> copies = {"thinwire"};
    copies.insert(copies.end(), arguments.begin(), arguments.end());
    std::vector<char*> pointers;
    for (std::string& argument : copies) pointers.push_back(argument.data());
    pointers.push_back(nullptr);
    const std::string log_name = log.string();
    const pid_t parent = ::getpid();
    const held_stop_signals held;
    const pid_t child = ::fork();
    if (child < 0) throw launcher_error(exit_code::failed, std::string("cannot start a process: ") + strerror(errno));
    if (child == 0) become(pointers.data(), log_name.c_str(), parent);
    pid_ = child;
    end_with_us(pid_);
}

process::process(process&& other) noexcept : pid_(std::exchange(other.pid_, 0)), status_(other.status_) {}

process& process::operator=(process&& other) noexcept {
    if (this != &other) {
        kill();
        pid_ = std::exchange(other.pid_, 0);
        status_ = other.status_;
    }
    return *this;
}

process::~process() {
    kill();
}

std::optional<int> process::ended() {
    int status = 0;
    if (pid_ > 0) {
        // The id stays ours until it is waited for, so the signal handler must forget it first.
        siginfo_t info{};
        if (::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid_) {
            forget_child(pid_);
            (void)::waitpid(pid_, &status, 0);
            status_ = decode(status);
            pid_ = 0;
        }
    }
    return status_;
}

void process::interrupt() noexcept {
    if (pid_ > 0) (void)::kill(pid_, SIGINT);
}

void process::kill() noexcept {
    if (pid_ <= 0) return;
    (void)::kill(pid_, SIGKILL);
    forget_child(pid_);
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    status_ = decode(status);
    pid_ = 0;
}

}  // namespace thinwire::launcher
