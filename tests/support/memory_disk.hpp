#ifndef THINWIRE_TESTS_SUPPORT_MEMORY_DISK_HPP
#define THINWIRE_TESTS_SUPPORT_MEMORY_DISK_HPP

#include <thinwire/core/random.hpp>
#include <thinwire/io/detail/file_operations.hpp>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace thinwire_test {

/// Thrown by the operation during which the power goes.
struct power_cut {};

/// What goes wrong, and at which of the operations that change something or open a file; they count from 0.
struct disk_fault {
    enum class kind {
        fail,       ///< it fails with `reason`; of a write, `bytes` are done first; a sync forgets what it should write
        cut_short,  ///< a write does only `bytes`, at least 1, and says so
        power,      ///< the power goes; of a write, `bytes` are done
    };
    std::uint64_t operation = std::numeric_limits<std::uint64_t>::max();
    kind what = kind::fail;
    int reason = EIO;
    std::size_t bytes = 0;
    std::uint64_t times = 1;  ///< so many operations from that one on fail
};

/// What survives a power cut of the changes that no sync waited for.
enum class survival {
    nothing,
    everything,
    some_first,  ///< a random number of the first ones, the last of them to a random byte
    some,        ///< random ones, of writes random pieces
};

/// A disk in memory that tells what is on the device from what the system only remembers, and fails when it is told
/// to. A sync of a file makes its content last, a sync of a folder the names in it, as POSIX has it; a sync that fails
/// leaves its changes remembered but never to be written, as Linux has it.
class memory_disk final : public thinwire::detail::file_operations {
    using path = std::filesystem::path;

 public:
    /// So many operations were counted so far.
    [[nodiscard]] std::uint64_t operations() const noexcept { return operations_; }
    void set_fault(const disk_fault& fault) { fault_ = fault; }
    /// Bytes of the write at which the fault struck.
    [[nodiscard]] std::size_t struck_bytes() const noexcept { return struck_bytes_; }

    /// What is there after a power cut and a restart: only what is on the device, and of the rest what `how` says.
    void restart(survival how, std::uint64_t seed) {
        thinwire::random_stream random(seed);
        const auto kept = survivors(pending_names_.size(), how, random);
        for (std::size_t i = 0; i < pending_names_.size(); ++i)
            if (kept[i]) apply(pending_names_[i], device_names_);
        pending_names_.clear();
        for (inode& node : nodes_) {
            const auto lasting = survivors(node.pending.size(), how, random);
            for (std::size_t i = 0; i < node.pending.size(); ++i) {
                if (!lasting[i]) continue;
                const bool last = i + 1 == node.pending.size() || !lasting[i + 1];
                apply_torn(node.pending[i], node.device, how, last, random);
            }
            node.pending.clear();
            node.now = node.device;
        }
        drop_orphans();
        names_ = device_names_;
        resume();
    }
    /// What is there when not the power went but the process was killed: the system remembers what is not on the
    /// device.
    void resume() {
        open_.clear();
        off_ = false;
        fault_ = {};
        operations_ = 0;
    }

    /// The content of a file as a reader sees it, and without a reader's trace; empty when there is none.
    [[nodiscard]] std::vector<std::byte> content(const path& name) const {
        const auto found = names_.find(name.string());
        return found == names_.end() || found->second == folder ? std::vector<std::byte>{} : nodes_[found->second].now;
    }
    [[nodiscard]] bool exists(const path& name) const { return names_.contains(name.string()); }
    /// Puts a file there, on the device.
    void put(const path& name, std::span<const std::byte> bytes) {
        nodes_.push_back({.now = {bytes.begin(), bytes.end()}, .device = {bytes.begin(), bytes.end()}, .pending = {}});
        names_[name.string()] = device_names_[name.string()] = nodes_.size() - 1;
    }
    void put_folder(const path& name) { names_[name.string()] = device_names_[name.string()] = folder; }
    [[nodiscard]] std::size_t open_files() const noexcept {
        return static_cast<std::size_t>(std::ranges::count_if(open_, [](std::size_t node) { return node != closed; }));
    }

    int open(const path& name, thinwire::detail::file_use use) override {
        if (const int reason = begin_operation()) return reason;
        const auto found = names_.find(name.string());
        if (found != names_.end() && found->second == folder) return -EISDIR;
        if (found == names_.end()) {
            if (use == thinwire::detail::file_use::read || !is_folder(thinwire::detail::folder_of(name)))
                return -ENOENT;
            nodes_.push_back({});
            change_names({.from = {}, .to = name.string(), .node = nodes_.size() - 1});
        } else if (use == thinwire::detail::file_use::replace) {
            change(nodes_[found->second], {.truncate = true, .at = 0, .bytes = {}});
        }
        open_.push_back(names_.at(name.string()));
        return static_cast<int>(open_.size()) - 1;
    }
    int close(int file) override {
        if (static_cast<std::size_t>(file) < open_.size()) open_[static_cast<std::size_t>(file)] = closed;
        return off_ ? -EIO : 0;
    }
    std::int64_t read(int file, std::span<std::byte> into, std::uint64_t at) override {
        if (off_) return -EIO;
        const std::vector<std::byte>& bytes = node_of(file).now;
        if (at >= bytes.size()) return 0;
        const std::size_t count = std::min<std::size_t>(into.size(), bytes.size() - static_cast<std::size_t>(at));
        std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), count, into.begin());
        return static_cast<std::int64_t>(count);
    }
    std::int64_t write(int file, std::span<const std::byte> bytes, std::uint64_t at) override {
        if (off_) return -EIO;
        const bool struck = strikes();
        if (struck) struck_bytes_ = bytes.size();
        if (struck) bytes = bytes.first(std::min(bytes.size(), fault_.bytes));
        if (!bytes.empty()) change(node_of(file), {.truncate = false, .at = at, .bytes = {bytes.begin(), bytes.end()}});
        if (struck && fault_.what == disk_fault::kind::power) go_off();
        if (struck && fault_.what == disk_fault::kind::fail) return -fault_.reason;
        return static_cast<std::int64_t>(bytes.size());
    }
    std::int64_t size(int file) override { return off_ ? -EIO : static_cast<std::int64_t>(node_of(file).now.size()); }
    int truncate(int file, std::uint64_t size) override {
        if (const int reason = begin_operation()) return reason;
        change(node_of(file), {.truncate = true, .at = size, .bytes = {}});
        return 0;
    }
    int sync(int file) override {
        const int reason = begin_operation();
        if (off_) return reason;
        inode& node = node_of(file);
        if (reason == 0)
            for (const edit& e : node.pending) apply(e, node.device);
        node.pending.clear();
        return reason;
    }
    int rename(const path& from, const path& to) override {
        if (const int reason = begin_operation()) return reason;
        if (!names_.contains(from.string())) return -ENOENT;
        change_names({.from = from.string(), .to = to.string(), .node = names_.at(from.string())});
        return 0;
    }
    int remove(const path& name) override {
        if (const int reason = begin_operation()) return reason;
        if (names_.contains(name.string())) change_names({.from = name.string(), .to = {}, .node = folder});
        return 0;
    }
    int sync_folder(const path& name) override {
        if (const int reason = begin_operation()) return reason;
        std::vector<name_edit> others;
        for (const name_edit& e : pending_names_) {
            const path changed = e.to.empty() ? e.from : e.to;
            if (thinwire::detail::folder_of(changed) == name)
                apply(e, device_names_);
            else
                others.push_back(e);
        }
        pending_names_ = std::move(others);
        return 0;
    }
    int make_folder(const path& name) override {
        if (const int reason = begin_operation()) return reason;
        if (is_folder(name)) return 0;
        if (exists(name)) return -ENOTDIR;
        if (!is_folder(thinwire::detail::folder_of(name))) return -ENOENT;
        change_names({.from = {}, .to = name.string(), .node = folder});
        return 1;
    }
    int list(const path& name, std::vector<std::string>& names) override {
        if (off_) return -EIO;
        if (!is_folder(name)) return -ENOENT;
        for (const auto& [there, node] : names_)
            if (thinwire::detail::folder_of(there) == name) names.push_back(path(there).filename().string());
        return 0;
    }

 private:
    static constexpr std::size_t folder = std::numeric_limits<std::size_t>::max();
    static constexpr std::size_t closed = folder - 1;

    struct edit {
        bool truncate = false;
        std::uint64_t at = 0;  // a write's place, or the new size
        std::vector<std::byte> bytes;
    };
    struct inode {
        std::vector<std::byte> now;     // what readers see
        std::vector<std::byte> device;  // what a power cut leaves at least
        std::vector<edit> pending;      // what lies between
    };
    /// A name that is made (no `from`), removed (no `to`) or changed.
    struct name_edit {
        std::string from;
        std::string to;
        std::size_t node = folder;
    };
    using name_map = std::map<std::string, std::size_t>;

    /// Counts the operation; whether it is to go wrong.
    [[nodiscard]] bool strikes() {
        const std::uint64_t n = operations_++;
        return n >= fault_.operation && n - fault_.operation < fault_.times;
    }
    /// 0, or why the operation fails.
    [[nodiscard]] int begin_operation() {
        if (off_) return -EIO;
        if (!strikes() || fault_.what == disk_fault::kind::cut_short) return 0;
        if (fault_.what == disk_fault::kind::power) go_off();
        return -fault_.reason;
    }
    [[noreturn]] void go_off() {
        off_ = true;
        throw power_cut{};
    }
    [[nodiscard]] bool is_folder(const path& name) const {
        const auto found = names_.find(name.string());
        return name == "/" || (found != names_.end() && found->second == folder);
    }
    [[nodiscard]] inode& node_of(int file) { return nodes_.at(open_.at(static_cast<std::size_t>(file))); }

    static void apply(const edit& e, std::vector<std::byte>& bytes) {
        if (e.truncate) return bytes.resize(static_cast<std::size_t>(e.at));
        const auto at = static_cast<std::size_t>(e.at);
        if (bytes.size() < at + e.bytes.size()) bytes.resize(at + e.bytes.size());
        std::ranges::copy(e.bytes, bytes.begin() + static_cast<std::ptrdiff_t>(at));
    }
    static void apply_torn(edit e, std::vector<std::byte>& bytes, survival how, bool last,
                           thinwire::random_stream& random) {
        if (how == survival::some_first && last && !e.truncate)
            e.bytes.resize(static_cast<std::size_t>(random.below(e.bytes.size() + 1)));
        if (how != survival::some || e.truncate) return apply(e, bytes);
        // Pieces arrive in any order, and the size may arrive without them.
        const std::size_t end = static_cast<std::size_t>(e.at) + e.bytes.size();
        if (random.below(2) == 0 && bytes.size() < end) bytes.resize(end);
        const std::size_t piece = std::size_t{1} << random.below(10);
        for (std::size_t at = 0; at < e.bytes.size(); at += piece) {
            edit one{.truncate = false, .at = e.at + at, .bytes = {}};
            const std::size_t count = std::min(piece, e.bytes.size() - at);
            one.bytes.assign(e.bytes.begin() + static_cast<std::ptrdiff_t>(at),
                             e.bytes.begin() + static_cast<std::ptrdiff_t>(at + count));
            if (random.below(2) == 0) apply(one, bytes);
        }
    }
    static void apply(const name_edit& e, name_map& names) {
        if (!e.from.empty()) names.erase(e.from);
        if (!e.to.empty()) names[e.to] = e.node;
    }
    static std::vector<bool> survivors(std::size_t count, survival how, thinwire::random_stream& random) {
        std::vector<bool> kept(count, how == survival::everything);
        const std::size_t first = how == survival::some_first ? static_cast<std::size_t>(random.below(count + 1)) : 0;
        for (std::size_t i = 0; i < count; ++i)
            if (how == survival::some ? random.below(2) == 0 : i < first) kept[i] = true;
        return kept;
    }
    void change(inode& node, edit e) {
        apply(e, node.now);
        node.pending.push_back(std::move(e));
    }
    void change_names(name_edit e) {
        apply(e, names_);
        pending_names_.push_back(std::move(e));
    }
    /// What lies in a folder whose own name was lost is lost with it.
    void drop_orphans() {
        std::erase_if(device_names_, [&](const auto& entry) {
            const path above = thinwire::detail::folder_of(entry.first);
            return above != "/" && !device_names_.contains(above.string());
        });
    }

    std::vector<inode> nodes_;
    name_map names_;
    name_map device_names_;
    std::vector<name_edit> pending_names_;
    std::vector<std::size_t> open_;
    disk_fault fault_;
    std::uint64_t operations_ = 0;
    std::size_t struck_bytes_ = 0;
    bool off_ = false;
};

}  // namespace thinwire_test

#endif  // THINWIRE_TESTS_SUPPORT_MEMORY_DISK_HPP
