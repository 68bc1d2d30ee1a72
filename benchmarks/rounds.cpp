// What a round costs beyond its payloads, and how long a newcomer takes: real processes over loopback, plaintext, an
// empty model (payloads of 16 bytes), beside one TCP round trip and one fdatasync of the same disk and run.
// usage: benchmark_rounds [overhead|joins] [--peers 4,16,64] [--rounds N] [--json FILE]

#include <thinwire/core/digest.hpp>
#include <thinwire/runtime/node.hpp>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
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

using seconds = std::chrono::duration<double>;
constexpr double patience = 300;  ///< seconds that a peer may be silent

double now() {
    return seconds(std::chrono::steady_clock::now().time_since_epoch()).count();
}

[[noreturn]] void fail(const std::string& what) {
    throw std::runtime_error(what);
}
void need(bool holds, const char* what) {
    if (!holds) fail(std::string(what) + ": " + std::strerror(errno));
}

struct spread {
    double median = 0, p99 = 0;

    spread() = default;
    explicit spread(std::vector<double> all) {
        if (all.empty()) return;
        std::sort(all.begin(), all.end());
        median = all[all.size() / 2];
        p99 =
            all[std::min(all.size() - 1, static_cast<std::size_t>(std::ceil(0.99 * static_cast<double>(all.size()))))];
    }
};

/// A folder that goes with its owner.
struct folder {
    std::string path = (std::filesystem::temp_directory_path() / "thinwire_rounds_XXXXXX").string();
    folder() { need(::mkdtemp(path.data()) != nullptr, "mkdtemp"); }
    folder(const folder&) = delete;
    folder& operator=(const folder&) = delete;
    ~folder() {
        std::error_code ignored;
        std::filesystem::remove_all(path, ignored);
    }
};

// ---------------------------------------------------------------------------------------------------- a peer's process

/// What a peer tells the process that started it, in this order: where it listens, when it first contributed, at its
/// end how it went and `rounds` times.
struct begun {
    std::uint16_t port = 0;
};
struct entered {
    double at = 0;
};
struct ended {
    std::uint64_t rounds = 0;
    double bytes_sent = 0, bytes_received = 0;  ///< during those rounds
    double resident = 0, peak = 0;              ///< KiB
    double leaving = 0, gone = 0;               ///< when it began to leave, and when nothing was left of the node
};

template <class T>
void tell(int out, const T* what, std::size_t count = 1) {
    const auto* at = reinterpret_cast<const char*>(what);
    for (std::size_t left = count * sizeof(T); left > 0;) {
        const ssize_t n = ::write(out, at, left);
        need(n > 0, "write to the starting process");
        at += n;
        left -= static_cast<std::size_t>(n);
    }
}

double from_proc(std::string_view key) {
    std::ifstream in("/proc/self/status");
    for (std::string line; std::getline(in, line);)
        if (line.starts_with(key)) return std::strtod(line.c_str() + key.size() + 1, nullptr);
    return 0;
}

struct part {
    peer_id self = 1;
    int port = 0;  ///< of the founder; 0: this is it
    int peers = 4;
    std::uint64_t rounds = 100;  ///< measured ones; 0: until it is told to stop
    bool durable = true;
    int compute_ms = 0;
    std::string log{};
    int out = -1;   ///< told what is above
    int stop = -1;  ///< its end says that it is time to stop
};

bool told_to_stop(int in) {
    pollfd p{in, POLLIN, 0};
    return ::poll(&p, 1, 0) > 0;
}

int run_peer(const part& p) {
    runtime::node_options o;
    o.self = p.self;
    o.name = "peer" + std::to_string(p.self);
    o.log = p.log;
    o.log_durable = p.durable;
    o.plaintext = true;
    o.min_peers = p.peers;
    o.max_deadline = std::chrono::minutes(5);
    o.takeover = std::chrono::seconds(60);  // slow when 64 processes share two cores, not dead
    o.keepalive_timeout = std::chrono::seconds(120);
    o.connect_timeout = std::chrono::seconds(120);
    if (p.port == 0)
        o.run = sha256{}.update("benchmark_rounds").finish();
    else
        o.address = "127.0.0.1:" + std::to_string(p.port);
    const bool founder = p.port == 0;
    const auto peer = founder ? node::found(o) : node::join(o);
    std::uint64_t round = 0;
    if (founder)
        peer->publish_snapshot(0, {std::byte{0}});
    else
        round = peer->snapshot_round();
    const begun listening{peer->port()};
    tell(p.out, &listening);

    bool counting = false, contributed = false;
    std::vector<double> times;
    runtime::node_status before;
    ended result;
    const auto take = [&](std::span<const commit> commits) {
        for (const commit& c : commits) {
            for (const contribution& one : c.contributions)
                if (one.peer == p.self && !std::exchange(contributed, true)) {
                    const entered mark{now()};
                    tell(p.out, &mark);
                }
            round = c.round + 1;
            if (!counting && c.contributions.size() == static_cast<std::size_t>(p.peers)) {
                counting = true;
                before = peer->status();
            } else if (counting) {
                ++result.rounds;
            }
        }
    };
    try {
        for (auto missed = peer->catch_up(round); !missed.empty(); missed = peer->catch_up(round)) take(missed);
        std::array<std::uint64_t, 2> payload{p.self, 0};
        while (p.rounds == 0 ? !(founder && told_to_stop(p.stop)) : result.rounds < p.rounds) {
            if (p.compute_ms > 0) std::this_thread::sleep_for(std::chrono::milliseconds(p.compute_ms));
            payload[1] = round;
            const double start = now();
            const bool counts = counting;
            take(peer->exchange(round, std::as_bytes(std::span(payload))));
            if (counts) times.push_back(now() - start);
            if (p.rounds == 0 && round % 50 == 0) peer->publish_snapshot(round, {std::byte{0}});
        }
    } catch (const runtime::node_error& over) {
        if (over.code() != runtime::node_errc::run_stopped) throw;
    }
    const runtime::node_status after = peer->status();
    result.bytes_sent = static_cast<double>(after.bytes_sent - before.bytes_sent);
    result.bytes_received = static_cast<double>(after.bytes_received - before.bytes_received);
    result.resident = from_proc("VmRSS");
    result.peak = from_proc("VmHWM");
    result.leaving = now();
    peer->leave(true);
    result.gone = now();
    result.rounds = times.size();
    tell(p.out, &result);
    tell(p.out, times.data(), times.size());
    return 0;
}

part parse_part(char** arguments, int count) {
    if (count != 9) fail("a peer's part has 9 words");
    part p;
    p.self = std::strtoull(arguments[0], nullptr, 10);
    p.port = std::atoi(arguments[1]);
    p.peers = std::atoi(arguments[2]);
    p.rounds = std::strtoull(arguments[3], nullptr, 10);
    p.durable = std::string_view(arguments[4]) == "durable";
    p.compute_ms = std::atoi(arguments[5]);
    p.log = arguments[6];
    p.out = std::atoi(arguments[7]);
    p.stop = std::atoi(arguments[8]);
    return p;
}

/// This program again, as a peer of a run.
class child {
 public:
    child(part p, const std::string& in) : name_("peer " + std::to_string(p.self)), started_(now()) {
        int told[2], stop[2];
        need(::pipe2(told, O_CLOEXEC) == 0 && ::pipe2(stop, O_CLOEXEC) == 0, "pipe");
        const std::vector<std::string> words = {"benchmark_rounds",
                                                "peer",
                                                std::to_string(p.self),
                                                std::to_string(p.port),
                                                std::to_string(p.peers),
                                                std::to_string(p.rounds),
                                                p.durable ? "durable" : "volatile",
                                                std::to_string(p.compute_ms),
                                                in + "/" + std::to_string(p.self),
                                                std::to_string(told[1]),
                                                std::to_string(stop[0])};
        std::vector<char*> list;
        for (const std::string& word : words) list.push_back(const_cast<char*>(word.c_str()));
        list.push_back(nullptr);
        id_ = ::fork();
        need(id_ >= 0, "fork");
        if (id_ == 0) {
            ::fcntl(told[1], F_SETFD, 0);
            ::fcntl(stop[0], F_SETFD, 0);
            ::execv("/proc/self/exe", list.data());
            ::_exit(127);
        }
        ::close(told[1]);
        ::close(stop[0]);
        from_ = told[0];
        stop_ = stop[1];
    }
    child(const child&) = delete;
    child& operator=(const child&) = delete;
    ~child() {
        ::close(from_);
        if (stop_ >= 0) ::close(stop_);
        if (id_ <= 0) return;
        ::kill(id_, SIGKILL);
        ::waitpid(id_, nullptr, 0);
    }

    template <class T>
    std::vector<T> hear(std::size_t count = 1) {
        std::vector<T> out(count);
        auto* at = reinterpret_cast<char*>(out.data());
        for (std::size_t left = count * sizeof(T); left > 0;) {
            pollfd p{from_, POLLIN, 0};
            if (::poll(&p, 1, static_cast<int>(patience * 1000)) == 0) fail(name_ + " says nothing");
            const ssize_t n = ::read(from_, at, left);
            if (n <= 0) fail(name_ + " ended early");
            at += n;
            left -= static_cast<std::size_t>(n);
        }
        return out;
    }
    void stop() {
        ::close(stop_);
        stop_ = -1;
    }
    void wait() {
        int status = 0;
        ::waitpid(id_, &status, 0);
        id_ = 0;
        if (status != 0) fail(name_ + " failed");
    }
    [[nodiscard]] double started() const noexcept { return started_; }

 private:
    std::string name_;
    double started_ = 0;
    pid_t id_ = 0;
    int from_ = -1, stop_ = -1;
};

// ---------------------------------------------------------------------------------------------------------- the limits

spread fdatasync_time(const std::string& in) {
    const int file = ::open((in + "/limit").c_str(), O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
    need(file >= 0, "open");
    const std::array<char, 256> bytes{};
    std::vector<double> times;
    for (int i = 0; i < 100; ++i) {
        const double start = now();
        need(::write(file, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()), "write");
        need(::fdatasync(file) == 0, "fdatasync");
        times.push_back(now() - start);
    }
    ::close(file);
    return spread(times);
}

/// 64 bytes there and back, over TCP on loopback, to another process that answers.
spread round_trip() {
    const int listening = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in where{};
    where.sin_family = AF_INET;
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof where;
    auto* address = reinterpret_cast<sockaddr*>(&where);
    need(::bind(listening, address, size) == 0 && ::listen(listening, 1) == 0, "listen");
    need(::getsockname(listening, address, &size) == 0, "getsockname");
    std::array<char, 64> bytes{};
    const int on = 1;
    const auto carry = [&](int socket, bool first) {
        ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        std::vector<double> times;
        for (int i = 0; i < 2000; ++i) {
            const double start = now();
            if (first && ::send(socket, bytes.data(), bytes.size(), 0) != 64) break;
            if (::recv(socket, bytes.data(), bytes.size(), MSG_WAITALL) != 64) break;
            if (!first && ::send(socket, bytes.data(), bytes.size(), 0) != 64) break;
            times.push_back(now() - start);
        }
        return times;
    };
    const pid_t other = ::fork();
    need(other >= 0, "fork");
    if (other == 0) ::_exit(carry(::accept(listening, nullptr, nullptr), false).size() == 2000 ? 0 : 1);
    const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    need(::connect(socket, address, size) == 0, "connect");
    const std::vector<double> times = carry(socket, true);
    int status = 0;
    ::waitpid(other, &status, 0);
    ::close(socket);
    ::close(listening);
    if (status != 0 || times.size() != 2000) fail("the ping-pong broke off");
    return spread(times);
}

// --------------------------------------------------------------------------------------------------------- the parts

class table {
 public:
    explicit table(const std::string& file) {
        if (!file.empty()) need((json_ = std::fopen(file.c_str(), "w")) != nullptr, "--json");
    }
    table(const table&) = delete;
    table& operator=(const table&) = delete;
    ~table() {
        if (json_ == nullptr) return;
        std::fputs(rows_ == 0 ? "[]\n" : "\n]\n", json_);
        std::fclose(json_);
    }
    void row(const std::string& json) {
        if (json_ != nullptr) std::fprintf(json_, "%s%s", rows_ == 0 ? "[\n" : ",\n", json.c_str());
        ++rows_;
    }

 private:
    std::FILE* json_ = nullptr;
    int rows_ = 0;
};

template <class... Values>
std::string text(const char* format, Values... values) {
    std::array<char, 1024> out{};
    std::snprintf(out.data(), out.size(), format, values...);
    return out.data();
}

using children = std::vector<std::unique_ptr<child>>;

/// Starts the founder, then the others; `p` becomes the part of one more.
children start(int peers, part& p, const std::string& in) {
    children all;
    all.push_back(std::make_unique<child>(p, in));
    p.port = all.front()->hear<begun>()[0].port;
    for (int i = 2; i <= peers; ++i) {
        p.self = static_cast<peer_id>(i);
        all.push_back(std::make_unique<child>(p, in));
    }
    ++p.self;
    for (std::size_t i = 1; i < all.size(); ++i) static_cast<void>(all[i]->hear<begun>());
    return all;
}

void overhead(int peers, bool durable, std::uint64_t rounds, table& json) {
    const folder in;
    const spread trip = round_trip();
    const spread sync = fdatasync_time(in.path);
    const double start_time = now();
    part p{.peers = peers, .rounds = rounds, .durable = durable};
    const children all = start(peers, p, in.path);
    double entered_last = start_time;
    for (const auto& one : all) entered_last = std::max(entered_last, one->hear<entered>()[0].at);
    std::vector<double> times;
    double sent = 0, received = 0, resident = 0, peak = 0, counted = 0;
    double leaving = 0, gone = 0;
    for (const auto& one : all) {
        const ended e = one->hear<ended>()[0];
        const std::vector<double> own = one->hear<double>(e.rounds);
        times.insert(times.end(), own.begin(), own.end());
        sent += e.bytes_sent;
        received += e.bytes_received;
        counted += static_cast<double>(e.rounds);
        resident = std::max(resident, e.resident);
        peak = std::max(peak, e.peak);
        leaving = leaving == 0 ? e.leaving : std::min(leaving, e.leaving);
        gone = std::max(gone, e.gone);
    }
    for (const auto& one : all) one->wait();
    const spread round(times);
    const double payloads = 16.0 * (peers - 1);
    const double out = sent / counted - payloads, in_bytes = received / counted - payloads;
    const double limit = 2 * trip.median + (durable ? sync.median : 0);
    std::printf("%5d %-8s %6.1f %8.2f %8.2f %9.3f %8.2f %7.1f %9.0f %9.0f %7.1f %7.1f %6.2f\n", peers,
                durable ? "durable" : "volatile", entered_last - start_time, round.median * 1e3, round.p99 * 1e3,
                trip.median * 1e3, sync.median * 1e3, round.median / limit, out, in_bytes, resident / 1024, peak / 1024,
                gone - leaving);
    std::fflush(stdout);
    json.row(
        text("{\"part\": \"overhead\", \"peers\": %d, \"durable\": %s, \"rounds\": %llu, \"start_s\": %.3f, "
             "\"round_median_ms\": %.4f, \"round_p99_ms\": %.4f, \"round_trip_median_ms\": %.4f, "
             "\"round_trip_p99_ms\": %.4f, \"fdatasync_median_ms\": %.4f, \"fdatasync_p99_ms\": %.4f, "
             "\"sent_beyond_payloads\": %.0f, \"received_beyond_payloads\": %.0f, \"rss_mib\": %.2f, "
             "\"peak_mib\": %.2f, \"stop_s\": %.3f}",
             peers, durable ? "true" : "false", static_cast<unsigned long long>(rounds), entered_last - start_time,
             round.median * 1e3, round.p99 * 1e3, trip.median * 1e3, trip.p99 * 1e3, sync.median * 1e3, sync.p99 * 1e3,
             out, in_bytes, resident / 1024, peak / 1024, gone - leaving));
}

/// A run of four that goes on, and newcomers.
void joins(int newcomers, bool at_once, table& json) {
    const folder in;
    constexpr int compute_ms = 20;
    part p{.peers = 4, .rounds = 0, .compute_ms = compute_ms};
    children all = start(4, p, in.path);
    for (const auto& one : all) static_cast<void>(one->hear<entered>());
    // The limit: a process that founds a run of its own, to its first commit.
    std::vector<double> alone;
    for (int i = 0; i < 5; ++i) {
        const folder own;
        child one({.peers = 1, .rounds = 1}, own.path);
        static_cast<void>(one.hear<begun>());
        alone.push_back(one.hear<entered>()[0].at - one.started());
        static_cast<void>(one.hear<double>(one.hear<ended>()[0].rounds));
        one.wait();
    }
    std::vector<double> times;
    const double begin = now();
    double last = begin;
    const auto take = [&](child& one) {
        const double at = one.hear<entered>()[0].at;
        last = std::max(last, at);
        times.push_back(at - one.started());
    };
    for (int i = 0; i < newcomers; ++i) {
        all.push_back(std::make_unique<child>(p, in.path));
        ++p.self;
        if (at_once) continue;
        static_cast<void>(all.back()->hear<begun>());
        take(*all.back());
    }
    if (at_once)
        for (std::size_t i = 4; i < all.size(); ++i) {
            static_cast<void>(all[i]->hear<begun>());
            take(*all[i]);
        }
    all.front()->stop();
    for (const auto& one : all) {
        static_cast<void>(one->hear<double>(one->hear<ended>()[0].rounds));
        one->wait();
    }
    const spread join(times);
    const double per_minute = 60.0 * newcomers / (last - begin);
    const double alone_median = spread(alone).median;
    std::printf("%-12s %9d %10.1f %10.1f %11.1f %14.1f\n", at_once ? "at once" : "in turn", newcomers,
                join.median * 1e3, join.p99 * 1e3, per_minute, alone_median * 1e3);
    std::fflush(stdout);
    json.row(
        text("{\"part\": \"joins\", \"at_once\": %s, \"newcomers\": %d, \"median_ms\": %.2f, \"longest_ms\": %.2f, "
             "\"per_minute\": %.1f, \"alone_ms\": %.2f}",
             at_once ? "true" : "false", newcomers, join.median * 1e3, join.p99 * 1e3, per_minute, alone_median * 1e3));
}

int measure(int count, char** arguments) {
    bool all = true, do_overhead = false, do_joins = false;
    std::vector<int> sizes = {4, 16, 64};
    std::uint64_t rounds = 0;
    std::string json_file;
    for (int i = 1; i < count; ++i) {
        const std::string_view word = arguments[i];
        const bool more = i + 1 < count;
        if (word == "overhead" || word == "joins") {
            (word == "joins" ? do_joins : do_overhead) = true;
            all = false;
        } else if (word == "--peers" && more) {
            sizes.clear();
            for (char* at = arguments[++i]; *at != '\0'; at += *at == ',' ? 1 : 0)
                sizes.push_back(static_cast<int>(std::strtol(at, &at, 10)));
        } else if (word == "--rounds" && more) {
            rounds = std::strtoull(arguments[++i], nullptr, 10);
        } else if (word == "--json" && more) {
            json_file = arguments[++i];
        } else {
            std::fputs("usage: benchmark_rounds [overhead|joins] [--peers 4,16,64] [--rounds N] [--json FILE]\n",
                       stderr);
            return 2;
        }
    }
    table json(json_file);
    if (all || do_overhead) {
        std::printf(
            "a round: milliseconds, beside a TCP round trip and an fdatasync; 'times': two round trips and, durable,\n"
            "one fdatasync; bytes a peer and round beyond the payloads; MiB of the largest peer; seconds\n");
        std::printf("%5s %-8s %6s %8s %8s %9s %8s %7s %9s %9s %7s %7s %6s\n", "peers", "", "start", "median", "p99",
                    "trip", "sync", "times", "sent", "received", "rss", "peak", "stop");
        for (const int peers : sizes)
            for (const bool durable : {true, false})
                overhead(peers, durable, rounds != 0 ? rounds : peers > 32 ? 30 : 200, json);
    }
    if (all || do_joins) {
        std::printf(
            "joins into a run of 4 with 20 ms of compute a round: ms from the process's start to the commit of its\n"
            "first payload, beside those of a process that founds a run of its own\n");
        std::printf("%-12s %9s %10s %10s %11s %14s\n", "", "newcomers", "median", "longest", "a minute", "founding");
        joins(8, false, json);
        joins(8, true, json);
    }
    return 0;
}

}  // namespace

int main(int count, char** arguments) {
    try {
        if (count > 2 && std::string_view(arguments[1]) == "peer")
            return run_peer(parse_part(arguments + 2, count - 2));
        return measure(count, arguments);
    } catch (const std::exception& problem) {
        std::fprintf(stderr, "benchmark_rounds: %s\n", problem.what());
        return 1;
    }
}
