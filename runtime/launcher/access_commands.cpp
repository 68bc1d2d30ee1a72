#include <thinwire/runtime/access.hpp>

#include "about.hpp"
#include "commands.hpp"
#include "control_socket.hpp"
#include "directory.hpp"
#include "replica.hpp"
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <spdlog/fmt/fmt.h>
#include <spdlog/spdlog.h>

#include <array>
#include <charconv>
#include <cstdio>
#include <ctime>
#include <memory>
#include <utility>

namespace thinwire::launcher {
namespace {

/// The folder of a peer that exists.
directory known_folder(const std::filesystem::path& folder, const std::string& command) {
    directory where{folder};
    if (!std::filesystem::exists(where.key()))
        throw launcher_error(exit_code::usage, command + ": '" + folder.string() +
                                                   "' holds no identity.key: expected the folder of a peer");
    return where;
}

/// The addresses of this machine that others may reach, each with `port`.
std::vector<std::string> own_addresses(const std::string& port, bool version_6) {
    ifaddrs* list = nullptr;
    if (::getifaddrs(&list) != 0) return {};
    const std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> owned(list, ::freeifaddrs);
    std::vector<std::string> all;
    for (const ifaddrs* one = list; one != nullptr; one = one->ifa_next) {
        if (one->ifa_addr == nullptr || (one->ifa_flags & IFF_UP) == 0 || (one->ifa_flags & IFF_LOOPBACK) != 0)
            continue;
        std::array<char, INET6_ADDRSTRLEN> text{};
        if (one->ifa_addr->sa_family == AF_INET) {
            const auto* point = reinterpret_cast<const sockaddr_in*>(one->ifa_addr);
            if (::inet_ntop(AF_INET, &point->sin_addr, text.data(), text.size()) == nullptr) continue;
            all.push_back(std::string(text.data()) + ":" + port);
        } else if (version_6 && one->ifa_addr->sa_family == AF_INET6) {
            const auto* point = reinterpret_cast<const sockaddr_in6*>(one->ifa_addr);
            if (IN6_IS_ADDR_LINKLOCAL(&point->sin6_addr)) continue;  // means nothing on another machine
            if (::inet_ntop(AF_INET6, &point->sin6_addr, text.data(), text.size()) == nullptr) continue;
            all.push_back("[" + std::string(text.data()) + "]:" + port);
        }
    }
    if (all.size() > runtime::invite::max_addresses) all.resize(runtime::invite::max_addresses);
    return all;
}

/// Where the peer of a folder is reached, as far as this machine can tell.
std::vector<std::string> listening_addresses(const directory& where) {
    std::string address = read_text(where.address());
    while (!address.empty() && address.back() == '\n') address.pop_back();
    const std::size_t colon = address.rfind(':');
    if (colon == std::string::npos)
        throw launcher_error(exit_code::usage, "invite: '" + where.root.string() +
                                                   "' holds no address: expected the folder of a peer that was "
                                                   "started, or --address HOST:PORT");
    const std::string host = address.substr(0, colon);
    if (host != "0.0.0.0" && host != "[::]") {
        if (host.starts_with("127.") || host == "localhost" || host == "[::1]")
            spdlog::warn("the peer listens on {}: the line works on this machine only", address);
        return {address};
    }
    std::vector<std::string> all = own_addresses(address.substr(colon + 1), host == "[::]");
    if (all.empty())
        throw launcher_error(exit_code::usage,
                             "invite: the peer listens on " + address +
                                 ", and this machine has no address for others: expected --address HOST:PORT");
    return all;
}

/// An address says nothing of whether anybody is there.
void warn_unless_running(const directory& where) {
    try {
        static_cast<void>(ask_peer(where, {{"command", "status"}}));
    } catch (const launcher_error&) {
        spdlog::warn("no peer runs in '{}': the line lets nobody in until one does, at an address that it holds",
                     where.root.string());
    }
}

void require_addresses(const std::vector<std::string>& all) {
    if (all.size() > runtime::invite::max_addresses)
        throw launcher_error(exit_code::usage,
                             "invite: " + std::to_string(all.size()) + " addresses, expected at most 8");
    for (const std::string& one : all)
        if (!can_be_dialled(one) || one.size() > runtime::invite::max_address)
            throw launcher_error(exit_code::usage, "invite: --address " + one +
                                                       ": expected host:port or [ipv6]:port, with a port in 1..65535");
}

std::string time_text(runtime::unix_time time) {
    const std::time_t seconds = time;
    std::tm parts{};
    std::array<char, 32> text{};
    if (::gmtime_r(&seconds, &parts) == nullptr) return std::to_string(time);
    return {text.data(), std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S UTC", &parts)};
}

}  // namespace

std::int64_t parse_duration(const std::string& text) {
    constexpr std::string_view expected = ": expected a number and a unit, such as 90s, 30m, 24h or 7d, up to 365d";
    std::int64_t number = 0;
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
    const std::string unit(end, text.data() + text.size());
    const std::int64_t seconds = unit == "s" ? 1 : unit == "m" ? 60 : unit == "h" ? 3600 : unit == "d" ? 86400 : 0;
    constexpr std::int64_t longest = std::int64_t{365} * 86400;
    if (problem != std::errc{} || seconds == 0 || number < 1 || number > longest / seconds)
        throw launcher_error(exit_code::usage, "invite: --expires " + text + std::string(expected));
    return number * seconds;
}

exit_code print_invite(const invite_options& options) {
    const std::int64_t lifetime = parse_duration(options.expires);
    const directory where = known_folder(options.folder, "invite");
    runtime::invite line;
    line.addresses = options.addresses.empty() ? listening_addresses(where) : options.addresses;
    require_addresses(line.addresses);
    if (!std::filesystem::exists(where.snapshot()))
        throw launcher_error(exit_code::usage, "invite: '" + options.folder.string() +
                                                   "' holds no run: expected the folder of a peer that was started");
    line.run = load_snapshot(where).run;
    line.key = runtime::identity::load(where.key()).key();
    const runtime::unix_time now = std::time(nullptr);
    line.secret = runtime::access_list(where.access()).add_invite(now + lifetime, now);
    warn_unless_running(where);
    fmt::print("{}\n", to_string(line));
    std::fflush(stdout);
    spdlog::info("lets one machine in until {}: thinwire join LINE --dir DIR --data FILE", time_text(now + lifetime));
    return exit_code::ok;
}

exit_code show_key(const std::filesystem::path& folder) {
    make_directory(folder);
    const directory where{folder};
    const runtime::identity self = own_identity(where);
    const runtime::access_list list(where.access());
    fmt::print("key          {}\nfingerprint  {}\npeer         {}\n", to_string(self.key()),
               to_string(runtime::fingerprint(self.key())), self.peer());
    for (const runtime::allowed_key& known : list.rules().keys)
        fmt::print("lets in      {} fingerprint {} {}\n", to_string(known.key),
                   to_string(runtime::fingerprint(known.key), 16), clean_text(known.name, known.name.size()));
    const runtime::unix_time now = std::time(nullptr);
    for (const runtime::invite_record& one : list.rules().invites)
        if (!one.used && one.expires > now) fmt::print("open invite  until {}\n", time_text(one.expires));
    return exit_code::ok;
}

exit_code allow(const std::filesystem::path& folder, const std::string& key, const std::string& name) {
    const directory where = known_folder(folder, "allow");
    const result<runtime::public_key> parsed = runtime::parse_public_key(key);
    if (!parsed) throw launcher_error(exit_code::usage, "allow: " + parsed.error().message);
    if (name.size() > runtime::access_rules::max_name)
        throw launcher_error(exit_code::usage,
                             "allow: --name of " + std::to_string(name.size()) + " bytes: expected at most 64");
    runtime::access_list list(where.access());
    const runtime::allowed_key* known = list.rules().find(*parsed);
    const std::string kept = known != nullptr ? known->name : std::string();
    list.allow(*parsed, name.empty() ? kept : name);
    return exit_code::ok;
}

exit_code revoke(const std::filesystem::path& folder, const std::string& key_or_name) {
    const directory where = known_folder(folder, "revoke");
    runtime::access_list list(where.access());
    const result<runtime::public_key> parsed = runtime::parse_public_key(key_or_name);
    std::vector<runtime::public_key> meant;
    for (const runtime::allowed_key& known : list.rules().keys)
        if (parsed ? known.key == *parsed : known.name == key_or_name) meant.push_back(known.key);
    if (meant.size() != 1)
        throw launcher_error(exit_code::usage, "revoke: " + std::to_string(meant.size()) +
                                                   " keys on the list are meant by '" + key_or_name +
                                                   "', expected one: give its key");
    (void)list.revoke(meant.front());
    return exit_code::ok;
}

}  // namespace thinwire::launcher
