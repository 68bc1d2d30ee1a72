#ifndef THINWIRE_LAUNCHER_ABOUT_HPP
#define THINWIRE_LAUNCHER_ABOUT_HPP

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace thinwire::launcher {

struct configuration;

/// What a peer chose to tell of itself. Nothing here is proven.
struct peer_about {
    std::string place, hardware;  ///< empty: not told
    std::optional<double> latitude, longitude;
};

/// For node_options::about: the keys peer.place, peer.hardware and peer.coordinates; empty where none is set. Throws
/// launcher_error(usage) for one that is too long, not printable UTF-8, or no place on the globe.
[[nodiscard]] std::string about_text(const configuration& settings);

/// What another peer tells. Total: whatever does not fit counts as not told.
[[nodiscard]] peer_about read_about(std::string_view foreign);

/// Foreign text for people: valid UTF-8 of at most `bytes`, one line, without control characters and without those that
/// turn the direction of what follows; each such character becomes '?'. `lines`: '\n' stays.
[[nodiscard]] std::string clean_text(std::string_view foreign, std::size_t bytes, bool lines = false);

inline constexpr std::size_t max_about_text = 64;  ///< bytes of place, and of hardware

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_ABOUT_HPP
