#ifndef THINWIRE_LAUNCHER_EXIT_CODE_HPP
#define THINWIRE_LAUNCHER_EXIT_CODE_HPP

#include <thinwire/core/error.hpp>

#include <string>
#include <string_view>

namespace thinwire::launcher {

/// What the program `thinwire` answers to the shell. docs/launcher.md explains each to an operator.
enum class exit_code : int {
    ok = 0,            ///< done, or stopped by Ctrl-C with everything saved
    failed = 1,        ///< something that has no code of its own
    usage = 2,         ///< the command line or the configuration
    data = 3,          ///< the training or validation text
    network = 4,       ///< a port in use, nobody of the run that can be reached
    mismatch = 5,      ///< another protocol version, run, configuration or key: trying again does not help
    storage = 6,       ///< a file that cannot be read, is damaged, or cannot be written
    diverged = 7,      ///< this replica differs from the majority's
    run_lost = 8,      ///< all others went away and none came back in time
    not_finite = 9,    ///< the loss or a gradient became NaN or infinite
    interrupted = 130  ///< a second Ctrl-C
};

/// An error whose message is the one line that the operator reads and that knows its exit code.
class launcher_error : public error {
 public:
    launcher_error(exit_code code, const std::string& line) : error(line), code_(code) {}
    [[nodiscard]] exit_code code() const noexcept { return code_; }

 private:
    exit_code code_;
};

/// For a terminal: bytes below space and DEL, which names in foreign files may hold, become \xNN; line ends stay when
/// `lines` says so.
[[nodiscard]] inline std::string printable(std::string_view text, bool lines = false) {
    constexpr std::string_view digits = "0123456789abcdef";
    std::string out;
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if ((byte >= 0x20 && byte != 0x7f) || (lines && c == '\n')) {
            out += c;
        } else {
            out += "\\x";
            out += digits[byte >> 4U];
            out += digits[byte & 15U];
        }
    }
    return out;
}

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_EXIT_CODE_HPP
