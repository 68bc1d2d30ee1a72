#ifndef THINWIRE_LAUNCHER_PROCESS_HPP
#define THINWIRE_LAUNCHER_PROCESS_HPP

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace thinwire::launcher {

/// A child process: this program again, with other arguments. It has a process group of its own, so that Ctrl-C
/// reaches it only through interrupt(), and is interrupted by the kernel when its parent dies. The destructor kills
/// and waits for a child that still runs.
class process {
 public:
    /// Starts it with stdout and stderr appended to `log`. Throws launcher_error(failed).
    process(const std::vector<std::string>& arguments, const std::filesystem::path& log);
    process(process&& other) noexcept;
    process& operator=(process&& other) noexcept;
    ~process();

    [[nodiscard]] int pid() const noexcept { return pid_; }
    /// How it ended: its exit code, or 128 + the signal that killed it. Nothing while it runs. Never waits.
    [[nodiscard]] std::optional<int> ended();
    /// As Ctrl-C would.
    void interrupt() noexcept;
    /// SIGKILL, and waits until the child is gone.
    void kill() noexcept;

 private:
    int pid_ = 0;  ///< 0: nothing to wait for
    std::optional<int> status_;
};

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_PROCESS_HPP
