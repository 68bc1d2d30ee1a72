// The programs that benchmarks/slow_links.py runs in network namespaces. Each prints one line of JSON.
//   keys DIR PEERS                       makes the peers' keys and lists of keys in DIR
//   payload K                            bytes of a payload of GPT-2 small, 64x64 chunks, sign values, random gradients
//   peer DIR INDEX PEERS BYTES ROUNDS COMPUTE_MS overlap|turn
//                                        a peer at 10.77.0.INDEX + 1; payloads of random bytes, compute by a timer
//   ring INDEX PEERS BYTES REPEATS       a ring all-reduce of so many bytes of float32
//   network MBIT DELAY_MS QUEUE_MS NAMESPACE...
//                                        carries packets between the tun devices "wan" of the namespaces: a delay,
//                                        then the receiver's link, of so many Mbit/s with a queue that drops its tail

#include <thinwire/core/random.hpp>
#include <thinwire/optim/demo.hpp>
#include <thinwire/runtime/access.hpp>
#include <thinwire/runtime/node.hpp>

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <filesystem>
#include <future>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

using namespace thinwire;
using runtime::node;

namespace {

constexpr std::uint16_t port = 7070;

double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}
void need(bool holds, const std::string& what) {
    if (!holds) throw std::runtime_error(what + ": " + std::strerror(errno));
}
std::string host(int index) {
    return "10.77.0." + std::to_string(index + 1);
}
double median(std::vector<double> all) {
    if (all.empty()) return 0;
    std::sort(all.begin(), all.end());
    return all[all.size() / 2];
}

int keys(const std::string& folder, int peers) {
    std::vector<runtime::public_key> all;
    for (int i = 0; i < peers; ++i)
        all.push_back(runtime::identity::load_or_create(folder + "/" + std::to_string(i) + ".key").key());
    for (int i = 0; i < peers; ++i) {
        runtime::access_list list(folder + "/" + std::to_string(i) + ".access");
        for (int j = 0; j < peers; ++j)
            if (j != i) list.allow(all[static_cast<std::size_t>(j)], "peer" + std::to_string(j));
    }
    std::printf("{\"peers\": %d}\n", peers);
    return 0;
}

/// GPT-2 small: 124,439,808 parameters.
std::vector<shape> gpt2_small() {
    constexpr std::size_t d = 768;
    std::vector<shape> all = {{50257, d}, {1024, d}};
    for (int block = 0; block < 12; ++block)
        for (const shape& s : std::vector<shape>{
                 {d}, {d}, {d, 3 * d}, {3 * d}, {d, d}, {d}, {d}, {d}, {d, 4 * d}, {4 * d}, {4 * d, d}, {d}})
            all.push_back(s);
    all.push_back({d});
    all.push_back({d});
    return all;
}

int payload(int k) {
    const std::vector<shape> shapes = gpt2_small();
    std::vector<std::vector<float>> values, gradients;
    std::vector<parameter> model;
    random_stream random(1);
    std::size_t count = 0;
    for (const shape& s : shapes) {
        values.emplace_back(s.count(), 0.0F);
        gradients.emplace_back(s.count());
        for (float& g : gradients.back()) g = random.uniform() - 0.5F;
        count += s.count();
    }
    for (std::size_t i = 0; i < shapes.size(); ++i)
        model.push_back(
            {.name = "t" + std::to_string(i), .shape = shapes[i], .values = values[i], .gradient = gradients[i]});
    demo optimizer(model, {.k = k, .values = value_code::sign});
    const std::size_t bytes = optimizer.begin_step(1).size();
    std::printf("{\"k\": %d, \"parameters\": %zu, \"bytes\": %zu}\n", k, count, bytes);
    return 0;
}

// --------------------------------------------------------------------------------------------------------------- a
// peer

struct part {
    std::string folder;
    int index = 0, peers = 4;
    std::size_t bytes = 0;
    std::uint64_t rounds = 10;
    int compute_ms = 1000;
    bool overlap = false;
};

std::unique_ptr<node> enter(const part& p) {
    const std::string own = p.folder + "/" + std::to_string(p.index);
    runtime::node_options o;
    o.identity = std::make_shared<const runtime::identity>(runtime::identity::load_or_create(own + ".key"));
    o.access = own + ".access";
    o.name = "peer" + std::to_string(p.index);
    o.listen = host(p.index) + ":" + std::to_string(port);
    o.log = own + ".log";
    o.min_peers = p.peers;
    o.connect_timeout = std::chrono::seconds(60);
    if (p.index > 0) {
        o.address = host(0) + ":" + std::to_string(port);
        return node::join(o);
    }
    o.run = sha256{}.update("benchmark_slow_links").finish();
    auto founder = node::found(o);
    founder->publish_snapshot(0, {std::byte{0}});
    return founder;
}

int run_peer(const part& p) {
    const auto peer = enter(p);
    std::uint64_t round = peer->snapshot_round();
    random_stream random(static_cast<std::uint64_t>(p.index) + 1);
    std::vector<std::byte> payload(p.bytes);
    std::vector<double> exchanges;
    std::uint64_t counted = 0, missing = 0;
    double begin = 0, end = 0;
    runtime::node_status before;
    const auto take = [&](std::span<const commit> commits) {
        for (const commit& c : commits) {
            round = c.round + 1;
            const bool whole = c.contributions.size() == static_cast<std::size_t>(p.peers);
            if (begin == 0) {
                if (!whole) continue;
                begin = end = now();
                before = peer->status();
                continue;
            }
            if (counted == p.rounds) continue;
            ++counted;
            if (!whole) ++missing;
            end = now();
        }
    };
    const auto exchange = [&] {
        const double start = now();
        const auto commits = peer->exchange(round, payload);
        if (begin > 0) exchanges.push_back(now() - start);
        return commits;
    };
    const auto compute = [&] { std::this_thread::sleep_for(std::chrono::milliseconds(p.compute_ms)); };
    runtime::node_status after;
    try {
        for (auto missed = peer->catch_up(round); !missed.empty(); missed = peer->catch_up(round)) take(missed);
        compute();
        while (counted < p.rounds) {
            for (std::size_t i = 0; i + 8 <= payload.size(); i += 8) {
                const std::uint64_t word = random.bits64();
                std::memcpy(payload.data() + i, &word, 8);
            }
            auto commits = std::async(p.overlap ? std::launch::async : std::launch::deferred, exchange);
            if (!p.overlap) commits.wait();
            compute();
            take(commits.get());
        }
    } catch (const runtime::node_error& over) {
        if (over.code() != runtime::node_errc::run_stopped || counted < p.rounds) throw;
    }
    after = peer->status();
    peer->leave(true);
    const auto each = static_cast<double>(std::max<std::uint64_t>(counted, 1));
    std::printf(
        "{\"index\": %d, \"rounds\": %llu, \"missing\": %llu, \"round_s\": %.4f, \"exchange_s\": %.4f, "
        "\"sent\": %.0f, \"received\": %.0f}\n",
        p.index, static_cast<unsigned long long>(counted), static_cast<unsigned long long>(missing),
        (end - begin) / each, median(exchanges), static_cast<double>(after.bytes_sent - before.bytes_sent) / each,
        static_cast<double>(after.bytes_received - before.bytes_received) / each);
    return 0;
}

// ----------------------------------------------------------------------------------------------- a dense ring
// all-reduce

sockaddr_in at(int index) {
    sockaddr_in where{};
    where.sin_family = AF_INET;
    where.sin_port = htons(port);
    need(::inet_pton(AF_INET, host(index).c_str(), &where.sin_addr) == 1, "inet_pton");
    return where;
}

void send_all(int socket, std::span<const float> part) {
    const auto* from = reinterpret_cast<const char*>(part.data());
    for (std::size_t left = part.size_bytes(); left > 0;) {
        const ssize_t n = ::send(socket, from, left, MSG_NOSIGNAL);
        need(n > 0, "send");
        from += n;
        left -= static_cast<std::size_t>(n);
    }
}
void receive_all(int socket, std::span<float> part) {
    auto* to = reinterpret_cast<char*>(part.data());
    for (std::size_t left = part.size_bytes(); left > 0;) {
        const ssize_t n = ::recv(socket, to, left, 0);
        need(n > 0, "recv");
        to += n;
        left -= static_cast<std::size_t>(n);
    }
}

int ring(int index, int peers, std::size_t bytes, int repeats) {
    const int listening = ::socket(AF_INET, SOCK_STREAM, 0);
    const int on = 1;
    ::setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    const sockaddr_in own = at(index), next = at((index + 1) % peers);
    need(::bind(listening, reinterpret_cast<const sockaddr*>(&own), sizeof own) == 0, "bind");
    need(::listen(listening, 1) == 0, "listen");
    int to = -1;
    for (const double until = now() + 30; to < 0;) {  // the next process may not listen yet
        to = ::socket(AF_INET, SOCK_STREAM, 0);
        if (::connect(to, reinterpret_cast<const sockaddr*>(&next), sizeof next) == 0) break;
        need(now() < until, "connect");
        ::close(std::exchange(to, -1));
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    const int from = ::accept(listening, nullptr, nullptr);
    need(from >= 0, "accept");
    const auto parts = static_cast<std::size_t>(peers);
    std::vector<float> data(bytes / sizeof(float) / parts * parts, static_cast<float>(index + 1));
    const std::size_t each = data.size() / parts;
    std::vector<float> incoming(each);
    const auto slice = [&](int i) {
        return std::span(data).subspan(static_cast<std::size_t>((i + 2 * peers) % peers) * each, each);
    };
    const auto step = [&](std::span<float> out, std::span<float> in) {
        auto sending = std::async(std::launch::async, [&] { send_all(to, out); });
        receive_all(from, in);
        sending.get();
    };
    float token = 0;
    std::vector<double> times;
    for (int i = 0; i < repeats; ++i) {
        for (int lap = 0; lap < 2; ++lap) step({&token, 1}, {&token, 1});  // all are here
        std::fill(data.begin(), data.end(), static_cast<float>(index + 1));
        const double start = now();
        for (int s = 0; s < peers - 1; ++s) {
            step(slice(index - s), incoming);
            const auto sum = slice(index - s - 1);
            for (std::size_t j = 0; j < each; ++j) sum[j] += incoming[j];
        }
        for (int s = 0; s < peers - 1; ++s) step(slice(index + 1 - s), slice(index - s));
        times.push_back(now() - start);
        const float expected = static_cast<float>(peers * (peers + 1)) / 2;
        if (!std::all_of(data.begin(), data.end(), [&](float x) { return x == expected; }))
            throw std::runtime_error("the sum is wrong");
    }
    std::printf("{\"index\": %d, \"seconds\": %.3f}\n", index, median(times));
    return 0;
}

// ---------------------------------------------------------------------------------------------------------- the
// network

int open_link(const char* space) {
    const int inside = ::open((std::string("/run/netns/") + space).c_str(), O_RDONLY | O_CLOEXEC);
    need(inside >= 0, space);
    need(::setns(inside, CLONE_NEWNET) == 0, "setns");
    ::close(inside);
    const int link = ::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    need(link >= 0, "/dev/net/tun");
    ifreq request{};
    request.ifr_flags = IFF_TUN | IFF_NO_PI;
    std::strcpy(request.ifr_name, "wan");
    need(::ioctl(link, TUNSETIFF, &request) == 0, "TUNSETIFF");
    return link;
}

int network(double mbit, double delay, double longest, std::span<char*> spaces) {
    struct packet {
        double due = 0;
        std::vector<std::byte> bytes;
    };
    struct way {
        int link = -1;
        double free = 0;  ///< when the receiver's link has carried what waits for it
        std::deque<packet> waiting;
    };
    std::vector<way> ways;
    std::vector<pollfd> polled;
    for (const char* space : spaces) {
        ways.push_back({open_link(space), 0, {}});
        polled.push_back({ways.back().link, POLLIN, 0});
    }
    std::puts("{\"ready\": true}");
    std::fflush(stdout);
    const double byte_time = 8.0 / (mbit * 1e6);
    std::vector<std::byte> buffer(65536);
    for (;;) {
        double first = now() + 1;
        for (const way& w : ways)
            if (!w.waiting.empty()) first = std::min(first, w.waiting.front().due);
        const auto wait = static_cast<long>(std::max(0.0, first - now()) * 1e9);
        const timespec timeout{wait / 1'000'000'000, wait % 1'000'000'000};
        need(::ppoll(polled.data(), polled.size(), &timeout, nullptr) >= 0 || errno == EINTR, "ppoll");
        for (const pollfd& p : polled)
            for (ssize_t n = 0; (p.revents & POLLIN) != 0 && (n = ::read(p.fd, buffer.data(), buffer.size())) > 0;) {
                if (n < 20 || (std::to_integer<unsigned>(buffer[0]) >> 4U) != 4) continue;
                const std::size_t to = std::to_integer<std::size_t>(buffer[19]) - 1;  // 10.77.0.(index + 1)
                if (to >= ways.size()) continue;
                way& w = ways[to];
                const double arrives = now() + delay;
                const double begins = std::max(w.free, arrives);
                if (begins > arrives + longest) continue;  // the queue is full
                w.free = begins + static_cast<double>(n) * byte_time;
                w.waiting.push_back({w.free, {buffer.begin(), buffer.begin() + n}});
            }
        for (way& w : ways)
            for (; !w.waiting.empty() && w.waiting.front().due <= now(); w.waiting.pop_front())
                if (::write(w.link, w.waiting.front().bytes.data(), w.waiting.front().bytes.size()) < 0)
                    need(errno == EIO || errno == EAGAIN, "write");  // the other side is going down, or full
    }
}

int usage() {
    std::fputs("usage: benchmark_slow_links keys|payload|peer|ring|network ...; see benchmarks/slow_links.py\n",
               stderr);
    return 2;
}

}  // namespace

int main(int count, char** arguments) {
    const auto number = [&](int i) { return std::atoi(arguments[i]); };
    const std::string_view what = count > 1 ? arguments[1] : "";
    try {
        if (what == "keys" && count == 4) return keys(arguments[2], number(3));
        if (what == "payload" && count == 3) return payload(number(2));
        if (what == "peer" && count == 9)
            return run_peer({arguments[2], number(3), number(4), std::strtoull(arguments[5], nullptr, 10),
                             std::strtoull(arguments[6], nullptr, 10), number(7),
                             std::string_view(arguments[8]) == "overlap"});
        if (what == "ring" && count == 6)
            return ring(number(2), number(3), std::strtoull(arguments[4], nullptr, 10), number(5));
        if (what == "network" && count > 6)
            return network(std::atof(arguments[2]), std::atof(arguments[3]) / 1e3, std::atof(arguments[4]) / 1e3,
                           std::span(arguments + 5, static_cast<std::size_t>(count - 5)));
        return usage();
    } catch (const std::exception& problem) {
        std::fprintf(stderr, "benchmark_slow_links: %s\n", problem.what());
        return 1;
    }
}
