#ifndef THINWIRE_RUNTIME_SRC_DIALLING_HPP
#define THINWIRE_RUNTIME_SRC_DIALLING_HPP

#include "address.hpp"
#include <asio/connect.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace thinwire::runtime {

/// Looks names up without waiting for it: the system's look-up cannot be ended and may take a minute, so each name has
/// a thread of its own, which is left to itself. Used on the io_context's thread, which ends before this does.
class name_lookup {
 public:
    static constexpr std::size_t most_at_once = 16;

    using endpoints = std::vector<asio::ip::tcp::endpoint>;
    /// `why` is empty where it went well.
    using found = std::function<void(const std::string& why, const endpoints& points)>;
    using question = std::function<endpoints(const address& where, asio::error_code& problem)>;

    explicit name_lookup(asio::io_context& io, question ask = ask_system)
        : io_(io), ask_(std::move(ask)), alive_(std::make_shared<alive>()) {}
    name_lookup(const name_lookup&) = delete;
    name_lookup& operator=(const name_lookup&) = delete;
    ~name_lookup() {
        const std::lock_guard lock(alive_->mutex);
        alive_->still = false;
    }

    /// `done` is called once, later. A host that is an address needs no look-up, and one that is looked up no second.
    void look_up(const address& where, found done) {
        asio::error_code error;
        const asio::ip::address literal = asio::ip::make_address(where.host, error);
        if (!error) return later(std::move(done), "", {{literal, where.port}});
        const std::string name = to_string(where);
        if (const auto under_way = asked_.find(name); under_way != asked_.end())
            return under_way->second.push_back(std::move(done));
        if (asked_.size() >= most_at_once) return later(std::move(done), "too many names are being looked up", {});
        try {
            std::thread([this, name, where, ask = ask_, living = alive_] {
                const auto heard = asked(ask, where);
                const std::lock_guard lock(living->mutex);
                if (living->still) asio::post(io_, [this, name, heard] { answer(name, heard.first, heard.second); });
            }).detach();
        } catch (const std::system_error& failed) {
            return later(std::move(done), failed.what(), {});
        }
        asked_[name].push_back(std::move(done));
    }

 private:
    struct alive {
        std::mutex mutex;
        bool still = true;
    };

    static std::pair<std::string, endpoints> asked(const question& ask, const address& where) {
        try {
            asio::error_code problem;
            endpoints points = ask(where, problem);
            return {problem ? problem.message() : std::string(), std::move(points)};
        } catch (const std::exception& problem) {
            return {problem.what(), {}};
        }
    }
    static endpoints ask_system(const address& where, asio::error_code& problem) {
        asio::io_context io;
        asio::ip::tcp::resolver resolver(io);
        endpoints points;
        for (const auto& entry : resolver.resolve(where.host, std::to_string(where.port), problem))
            points.push_back(entry.endpoint());
        return points;
    }
    void answer(const std::string& name, const std::string& why, const endpoints& points) {
        const auto waited = asked_.extract(name);
        for (const found& done : waited.mapped()) done(why, points);
    }
    void later(found done, std::string why, endpoints points) {
        asio::post(io_,
                   [done = std::move(done), why = std::move(why), points = std::move(points)] { done(why, points); });
    }

    asio::io_context& io_;
    question ask_;
    std::shared_ptr<alive> alive_;
    std::map<std::string, std::vector<found>> asked_;  ///< by name, who waits for it
};

/// A connection that is tried at one endpoint after the other.
struct connection_try {
    explicit connection_try(asio::io_context& io) : socket(io), patience(io) {}

    void close() {
        asio::error_code ignored;
        ++turn;
        patience.cancel();
        socket.close(ignored);
    }

    asio::ip::tcp::socket socket;
    asio::steady_timer patience;
    std::uint64_t turn = 0;  ///< which endpoint has its share of the time
};

/// Connects to the first endpoint that answers, and calls `done(why)`, empty where it did. Of several one may swallow
/// what is sent to it: each gets its share of `time`, and as much is left over.
template <class Try, class Done>
void connect(const std::shared_ptr<Try>& one, const name_lookup::endpoints& points, std::chrono::milliseconds time,
             Done done) {
    const std::chrono::milliseconds share = time / static_cast<int>(points.size() + 1);
    const auto begin = [one, share, several = points.size() > 1](const asio::error_code&,
                                                                 const asio::ip::tcp::endpoint&) {
        if (!several) return true;
        one->patience.expires_after(share);
        one->patience.async_wait([one, turn = ++one->turn](asio::error_code cancelled) {
            asio::error_code ignored;
            if (!cancelled && turn == one->turn) one->socket.cancel(ignored);  // which goes on to the next
        });
        return true;
    };
    asio::async_connect(
        one->socket, points, begin,
        [one, done = std::move(done)](asio::error_code problem, const asio::ip::tcp::endpoint&) mutable {
            ++one->turn;
            one->patience.cancel();
            if (problem) one->close();
            done(problem == asio::error::operation_aborted ? "no answer" : problem ? problem.message() : std::string());
        });
}

}  // namespace thinwire::runtime

#endif  // THINWIRE_RUNTIME_SRC_DIALLING_HPP
