#ifndef THINWIRE_RUNTIME_SRC_ADDRESS_HPP
#define THINWIRE_RUNTIME_SRC_ADDRESS_HPP

#include <thinwire/core/result.hpp>

#include <asio/ip/address.hpp>
#include <asio/ip/tcp.hpp>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace thinwire::runtime {

/// Host and port as an operator writes them.
struct address {
    std::string host;  ///< without brackets
    std::uint16_t port = 0;
};

/// "127.0.0.1:4411", "[::1]:4411".
[[nodiscard]] inline std::string to_string(const address& a) {
    const bool bare = a.host.find(':') == std::string::npos;
    return (bare ? a.host : "[" + a.host + "]") + ":" + std::to_string(a.port);
}

/// Takes "host:port" apart; an IPv6 host stands in brackets. Checks form, not existence.
[[nodiscard]] inline result<address> parse_address(std::string_view text) {
    const auto no = [&](const char* why) {
        return failure{errc::malformed,
                       "address '" + std::string(text) + "': " + why + ", expected host:port or [ipv6]:port"};
    };
    const std::size_t colon = text.rfind(':');
    if (colon == std::string_view::npos) return no("no port");
    std::string_view host = text.substr(0, colon);
    const std::string_view digits = text.substr(colon + 1);
    if (!host.empty() && host.front() == '[') {
        if (host.size() < 3 || host.back() != ']') return no("brackets that do not close");
        host = host.substr(1, host.size() - 2);
    } else if (host.find(':') != std::string_view::npos) {
        return no("an IPv6 host without brackets");
    }
    if (host.empty()) return no("no host");
    std::uint16_t port = 0;
    const auto [end, problem] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
    if (problem != std::errc{} || end != digits.data() + digits.size()) return no("a port outside 0..65535");
    return address{std::string(host), port};
}

/// One or several of these, separated by commas.
[[nodiscard]] inline result<std::vector<address>> parse_addresses(std::string_view text) {
    std::vector<address> all;
    for (std::size_t at = 0; at <= text.size();) {
        const std::size_t end = std::min(text.find(',', at), text.size());
        result<address> one = parse_address(text.substr(at, end - at));
        if (!one) return one.error();
        all.push_back(std::move(*one));
        at = end + 1;
    }
    return all;
}

/// Whether traffic to or from it never leaves the machine.
[[nodiscard]] inline bool is_loopback(const asio::ip::address& a) {
    if (a.is_v6() && a.to_v6().is_v4_mapped())
        return asio::ip::make_address_v4(asio::ip::v4_mapped, a.to_v6()).is_loopback();
    return a.is_loopback();
}

}  // namespace thinwire::runtime

#endif  // THINWIRE_RUNTIME_SRC_ADDRESS_HPP
