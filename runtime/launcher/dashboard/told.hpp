#ifndef THINWIRE_LAUNCHER_DASHBOARD_TOLD_HPP
#define THINWIRE_LAUNCHER_DASHBOARD_TOLD_HPP

#include <nlohmann/json_fwd.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

/// Fields of foreign objects, lines of metrics.jsonl and documents of /status: what is missing, of another type or out
/// of range is not told. Precondition everywhere: an object, or nothing that has members.
namespace thinwire::launcher::told {

[[nodiscard]] const nlohmann::json* find(const nlohmann::json& object, const char* name);
/// Finite.
[[nodiscard]] std::optional<double> number(const nlohmann::json& object, const char* name);
/// At most 2^53, what a page can count to; 0 when it is not told.
[[nodiscard]] std::uint64_t count(const nlohmann::json& object, const char* name);
[[nodiscard]] bool flag(const nlohmann::json& object, const char* name, bool otherwise = false);
/// As clean_text() leaves it.
[[nodiscard]] std::string text(const nlohmann::json& object, const char* name, std::size_t bytes, bool lines = false);

/// A count that begins again, near 0, when its process does. A line may be a little older than the status before it,
/// and another peer that answers instead has counts of its own: only one that fell by more than half began again.
struct counter {
    std::uint64_t before = 0, last = 0;
    void see(std::uint64_t now);
    [[nodiscard]] std::uint64_t total() const { return before + last; }
};

}  // namespace thinwire::launcher::told

#endif  // THINWIRE_LAUNCHER_DASHBOARD_TOLD_HPP
