#ifndef THINWIRE_LAUNCHER_DIRECTORY_HPP
#define THINWIRE_LAUNCHER_DIRECTORY_HPP

#include <thinwire/runtime/identity.hpp>

#include <filesystem>
#include <string>
#include <string_view>

namespace thinwire::launcher {

/// The names inside a peer's folder DIR. docs/launcher.md says what each file holds.
struct directory {
    std::filesystem::path root;

    [[nodiscard]] std::filesystem::path snapshot() const { return root / "replica.snapshot"; }
    [[nodiscard]] std::filesystem::path private_state() const { return root / "private.state"; }
    [[nodiscard]] std::filesystem::path run_log() const { return root / "log"; }
    [[nodiscard]] std::filesystem::path key() const { return root / "identity.key"; }
    [[nodiscard]] std::filesystem::path access() const { return root / "access"; }
    [[nodiscard]] std::filesystem::path address() const { return root / "address"; }
    [[nodiscard]] std::filesystem::path status_address() const { return root / "status.address"; }
    [[nodiscard]] std::filesystem::path dashboard_address() const { return root / "dashboard.address"; }
    [[nodiscard]] std::filesystem::path metrics() const { return root / "metrics.jsonl"; }
    [[nodiscard]] std::filesystem::path report() const { return root / "report.json"; }
    [[nodiscard]] std::filesystem::path settings() const { return root / "run.toml"; }
    [[nodiscard]] std::filesystem::path output() const { return root / "output.txt"; }
    [[nodiscard]] std::filesystem::path control() const { return root / "control"; }
    [[nodiscard]] std::filesystem::path lock() const { return root / "lock"; }
    [[nodiscard]] std::filesystem::path weights() const { return root / "model.safetensors"; }
    [[nodiscard]] std::filesystem::path model() const { return root / "config.json"; }
    [[nodiscard]] std::filesystem::path peers() const { return root / "peers"; }  ///< `train`: the other peers'
    [[nodiscard]] std::filesystem::path solo() const { return root / "solo"; }    ///< `train`: the comparison's
};

/// Whether a file of this name in DIR may be the operator's own: a plain name, that nothing else in DIR has.
[[nodiscard]] bool free_name(std::string_view name);

/// Creates the folder if needed and keeps other processes of this program out of it while it lives.
class directory_lock {
 public:
    /// Throws launcher_error(storage) when the folder cannot be made, (usage) when another process uses it.
    explicit directory_lock(const directory& where);
    directory_lock(const directory_lock&) = delete;
    directory_lock& operator=(const directory_lock&) = delete;
    ~directory_lock();

 private:
    int file_ = -1;
};

/// Creates a folder and those above it; throws launcher_error(storage).
void make_directory(const std::filesystem::path& path);

/// Replaces a small text file whole; it is on the device when this returns. Throws io_error.
void write_text(const std::filesystem::path& path, const std::string& content);

/// A small text file; empty when there is none.
[[nodiscard]] std::string read_text(const std::filesystem::path& path);

/// Who the peer of a folder is: its key, which is made where there is none. Beside a log it must be there: others know
/// the peer by its key, and another one would be another member beside a lost one. Throws launcher_error(storage),
/// io_error.
[[nodiscard]] runtime::identity own_identity(const directory& where);

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_DIRECTORY_HPP
