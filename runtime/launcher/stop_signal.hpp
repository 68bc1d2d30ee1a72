#ifndef THINWIRE_LAUNCHER_STOP_SIGNAL_HPP
#define THINWIRE_LAUNCHER_STOP_SIGNAL_HPP

namespace thinwire::launcher {

/// From here on the first SIGINT, SIGTERM or SIGHUP only sets a flag and a second one, half a second later or more,
/// ends the program at once with exit_code::interrupted, after SIGKILL to the processes given to end_with_us(). SIGHUP
/// stays ignored where it is, as under nohup. SIGPIPE becomes an error of the call that met it. Call once, before any
/// thread is started. A command that only reads does not: signals end it at once.
void watch_stop_signals();

/// True after the first signal.
[[nodiscard]] bool stop_requested() noexcept;

/// Sleeps until a stop signal or a child's end wakes it, at most `milliseconds`.
void wait_for_signal(int milliseconds) noexcept;

/// A child that a second signal kills; forget_child() once it has been waited for, before its id can be used again.
void end_with_us(int pid) noexcept;
void forget_child(int pid) noexcept;

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_STOP_SIGNAL_HPP
