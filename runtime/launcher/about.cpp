#include "about.hpp"

#include <thinwire/comm/message.hpp>

#include "configuration.hpp"
#include "exit_code.hpp"
#include <nlohmann/json.hpp>

#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <utility>

namespace thinwire::launcher {
namespace {

constexpr std::uint32_t no_character = 0xffffffffU;

/// The code point at the front, which it takes off; `no_character` for a byte that begins no valid sequence.
std::uint32_t take_code_point(std::string_view& text) {
    const auto byte = [&](std::size_t i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(text[i])); };
    const std::uint32_t first = byte(0);
    const std::size_t size = first < 0x80        ? 1
                             : first >> 5U == 6  ? 2
                             : first >> 4U == 14 ? 3
                             : first >> 3U == 30 ? 4
                                                 : 0;
    static constexpr std::array<std::uint32_t, 5> least = {0, 0, 0x80, 0x800, 0x10000};
    std::uint32_t code = size == 1 ? first : first & (0x7fU >> size);
    bool good = size != 0 && size <= text.size();
    for (std::size_t i = 1; good && i < size; ++i) {
        good = byte(i) >> 6U == 2;
        code = code << 6U | (byte(i) & 0x3fU);
    }
    good = good && code >= least[size] && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff);
    text.remove_prefix(good ? size : 1);
    return good ? code : no_character;
}

bool shown(std::uint32_t code) {
    const bool control =
        code < 0x20 || (code >= 0x7f && code < 0xa0) || code == no_character || (code & 0xfffeU) == 0xfffeU;
    const bool layout = (code >= 0x200b && code <= 0x200f) || (code >= 0x2028 && code <= 0x202e) ||
                        (code >= 0x2060 && code <= 0x206f) || code == 0xfeff || code == 0x061c || code >= 0xe0000;
    return !control && !layout;
}

std::optional<double> number(std::string_view text) {
    while (text.starts_with(' ')) text.remove_prefix(1);
    while (text.ends_with(' ')) text.remove_suffix(1);
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || !std::isfinite(value)) return std::nullopt;
    return value;
}

bool on_globe(double latitude, double longitude) {
    return std::abs(latitude) <= 90 && std::abs(longitude) <= 180;
}

[[noreturn]] void refuse(const char* key, const std::string& value, const std::string& expected) {
    throw launcher_error(exit_code::usage, std::string("configuration: ") + key + " = \"" + printable(value) +
                                               "\": expected " + expected);
}

void require_short(const char* key, const std::string& value) {
    if (value.size() > max_about_text || clean_text(value, max_about_text) != value)
        refuse(key, value, "at most " + std::to_string(max_about_text) + " bytes of printable UTF-8");
}

}  // namespace

std::string clean_text(std::string_view foreign, std::size_t bytes, bool lines) {
    std::string out;
    while (!foreign.empty()) {
        const std::string_view before = foreign;
        const std::uint32_t code = take_code_point(foreign);
        const bool stays = shown(code) || (lines && code == '\n');
        const std::string_view piece = stays ? before.substr(0, before.size() - foreign.size()) : std::string_view("?");
        if (out.size() + piece.size() > bytes) break;
        out += piece;
    }
    return out;
}

std::string about_text(const configuration& settings) {
    const auto& p = settings.peer;
    require_short("peer.place", p.place);
    require_short("peer.hardware", p.hardware);
    nlohmann::ordered_json about;
    if (!p.place.empty()) about["place"] = p.place;
    if (!p.hardware.empty()) about["hardware"] = p.hardware;
    if (!p.coordinates.empty()) {
        const std::size_t comma = p.coordinates.find(',');
        const auto latitude = number(std::string_view(p.coordinates).substr(0, comma));
        const auto longitude =
            number(comma == std::string::npos ? "" : std::string_view(p.coordinates).substr(comma + 1));
        if (!latitude || !longitude || !on_globe(*latitude, *longitude))
            refuse("peer.coordinates", p.coordinates, "latitude in -90..90, a comma, longitude in -180..180");
        // A hundredth of a degree, about a kilometre, is enough for a map of the world.
        about["at"] = {std::round(*latitude * 100) / 100, std::round(*longitude * 100) / 100};
    }
    std::string text = about.is_null() ? std::string() : about.dump();
    if (text.size() > wire_limits::max_about)  // quotes and backslashes take two bytes each
        refuse("peer.place", p.place, "less of place and hardware together");
    return text;
}

peer_about read_about(std::string_view foreign) {
    peer_about about;
    if (foreign.empty()) return about;
    int depth = 0;
    const auto flat = [&](int, nlohmann::json::parse_event_t event, nlohmann::json&) {
        if (event == nlohmann::json::parse_event_t::object_start || event == nlohmann::json::parse_event_t::array_start)
            ++depth;
        return depth <= 4;
    };
    const nlohmann::json said = nlohmann::json::parse(foreign, flat, false);
    if (!said.is_object()) return about;
    const auto text = [&](const char* name) {
        const auto found = said.find(name);
        return found != said.end() && found->is_string()
                   ? clean_text(found->get_ref<const std::string&>(), max_about_text)
                   : std::string();
    };
    about.place = text("place");
    about.hardware = text("hardware");
    const auto at = said.find("at");
    if (at == said.end() || !at->is_array() || at->size() != 2 || !(*at)[0].is_number() || !(*at)[1].is_number())
        return about;
    const double latitude = (*at)[0].get<double>(), longitude = (*at)[1].get<double>();
    if (!on_globe(latitude, longitude)) return about;
    about.latitude = latitude;
    about.longitude = longitude;
    return about;
}

}  // namespace thinwire::launcher
