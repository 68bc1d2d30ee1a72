#ifndef THINWIRE_TESTS_UNIT_RUNTIME_FIXTURE_HPP
#define THINWIRE_TESTS_UNIT_RUNTIME_FIXTURE_HPP

#include <thinwire/core/digest.hpp>
#include <thinwire/runtime/node.hpp>

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace runtime_fixture {

using namespace thinwire;
using namespace thinwire::runtime;

/// A folder of its own that goes away with the test.
class folder {
 public:
    folder() {
        std::string pattern = (std::filesystem::temp_directory_path() / "thinwire_node_XXXXXX").string();
        if (::mkdtemp(pattern.data()) == nullptr) throw io_error("mkdtemp: " + pattern);
        path_ = pattern;
    }
    folder(const folder&) = delete;
    folder& operator=(const folder&) = delete;
    ~folder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }

 private:
    std::filesystem::path path_;
};

[[nodiscard]] inline std::vector<std::byte> bytes_of(std::string_view text) {
    const auto raw = std::as_bytes(std::span(text.data(), text.size()));
    return {raw.begin(), raw.end()};
}

[[nodiscard]] inline node_options founder_options(const folder& dir, int min_peers) {
    node_options o;
    o.self = 1;
    o.plaintext = true;
    o.name = "founder";
    o.run = sha256{}.update("a run").finish();
    o.manifest = "model = tiny";
    o.log = dir.path() / "log";
    o.min_peers = min_peers;
    o.min_deadline = std::chrono::minutes(1);  // who is here is waited for, however busy the machine and its disk are
    return o;
}

[[nodiscard]] inline node_options joiner_options(const folder& dir, const node& founder, peer_id self) {
    node_options o;
    o.self = self;
    o.plaintext = true;
    o.name = "joiner " + std::to_string(self);
    o.address = "127.0.0.1:" + std::to_string(founder.port());
    o.log = dir.path() / ("log of " + std::to_string(self));
    o.min_deadline = std::chrono::minutes(1);
    return o;
}

/// What a replica would be: the digest of everything applied, in order.
struct ledger {
    digest state;
    std::uint64_t rounds = 0;
    std::uint64_t contributions = 0;
    std::uint64_t own_included = 0;
    std::uint64_t told_late = 0;  ///< commits that the node's status did not know of yet

    void apply(const commit& c, peer_id self) {
        sha256 sum;
        sum.update(state.bytes);
        const auto number = [&](std::uint64_t n) {
            std::array<std::byte, 8> raw{};
            for (std::size_t i = 0; i < 8; ++i) raw[i] = static_cast<std::byte>(n >> (8 * i));
            sum.update(raw);
        };
        number(c.round);
        for (const contribution& part : c.contributions) {
            number(part.peer);
            sum.update(part.payload);
            ++contributions;
            own_included += part.peer == self ? 1 : 0;
        }
        state = sum.finish();
        ++rounds;
    }
};

[[nodiscard]] inline std::vector<std::byte> payload_of(peer_id peer, std::uint64_t round) {
    return bytes_of("payload of " + std::to_string(peer) + " for " + std::to_string(round));
}

/// Contributes to every round from `round` until `end`, applying what comes. Returns the next round.
inline std::uint64_t take_part(node& n, std::uint64_t round, std::uint64_t end, ledger& l) {
    while (round < end)
        for (const commit& c : n.exchange(round, payload_of(n.self(), round))) {
            l.apply(c, n.self());
            round = c.round + 1;
            if (n.status().round < round) ++l.told_late;
        }
    return round;
}

/// Takes part from `round` on until a commit holds a payload of `peer`. Returns the round after it.
inline std::uint64_t take_part_until(node& n, std::uint64_t round, peer_id peer, ledger& l) {
    for (bool found = false; !found;)
        for (const commit& c : n.exchange(round, payload_of(n.self(), round))) {
            l.apply(c, n.self());
            round = c.round + 1;
            for (const contribution& part : c.contributions) found = found || part.peer == peer;
        }
    return round;
}

/// Applies everything that is there from `round` on. Returns the next round.
inline std::uint64_t catch_up(node& n, std::uint64_t round, ledger& l) {
    for (;;) {
        const auto commits = n.catch_up(round);
        if (commits.empty()) return round;
        for (const commit& c : commits) {
            l.apply(c, n.self());
            round = c.round + 1;
        }
    }
}

/// Connects like a foreign program, says its piece, and waits for the port's owner to close; true when it did.
[[nodiscard]] inline bool visit_port(std::uint16_t port, const std::string& words) {
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in where{};
    where.sin_family = AF_INET;
    where.sin_port = htons(port);
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    bool closed = false;
    if (::connect(fd, reinterpret_cast<const sockaddr*>(&where), sizeof where) == 0) {
        (void)::send(fd, words.data(), words.size(), MSG_NOSIGNAL);
        std::array<char, 64> answer{};
        closed = ::recv(fd, answer.data(), answer.size(), 0) <= 0;
    }
    ::close(fd);
    return closed;
}

/// The code of the node_error that `action` throws; nothing when it throws none.
template <class Action>
[[nodiscard]] std::optional<node_errc> code_of(Action&& action) {
    try {
        action();
    } catch (const node_error& e) {
        return e.code();
    }
    return std::nullopt;
}

}  // namespace runtime_fixture

#endif  // THINWIRE_TESTS_UNIT_RUNTIME_FIXTURE_HPP
