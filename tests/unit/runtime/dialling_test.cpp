#include "dialling.hpp"

#include <doctest/doctest.h>
#include <sys/socket.h>

#include <chrono>
#include <cstdint>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

using namespace thinwire::runtime;
using asio::ip::tcp;

namespace {

const tcp::endpoint somewhere(asio::ip::address_v4::loopback(), 4711);

}  // namespace

TEST_CASE("name look-up: addresses, names, and names that nobody knows") {
    asio::io_context io;
    const auto work = asio::make_work_guard(io);
    name_lookup names(io, [](const address& where, asio::error_code& problem) {
        if (where.host == "known") return name_lookup::endpoints{somewhere};
        if (where.host == "throws") throw std::runtime_error("no memory");
        problem = asio::error::host_not_found;
        return name_lookup::endpoints{};
    });
    std::string why;
    name_lookup::endpoints found;
    const auto look_up = [&](const address& where) {
        bool done = false;
        names.look_up(where, [&](const std::string& problem, const name_lookup::endpoints& points) {
            done = true;
            why = problem;
            found = points;
        });
        CHECK_FALSE(done);
        while (!done) REQUIRE(io.run_one_for(std::chrono::minutes(1)) == 1);
    };
    look_up({"127.0.0.1", 4711});
    CHECK(found == name_lookup::endpoints{somewhere});
    look_up({"known", 4711});
    CHECK(why.empty());
    CHECK(found == name_lookup::endpoints{somewhere});
    look_up({"unknown", 4711});
    CHECK_FALSE(why.empty());
    CHECK(found.empty());
    look_up({"throws", 4711});
    CHECK(why == "no memory");
}

TEST_CASE("name look-up: one that hangs holds up neither others nor the end") {
    std::promise<void> release;
    const std::shared_future<void> released = release.get_future().share();
    int answers = 0;
    {
        asio::io_context io;
        const auto work = asio::make_work_guard(io);
        name_lookup names(io, [released](const address& where, asio::error_code&) {
            if (where.host == "hangs") released.wait();
            return name_lookup::endpoints{somewhere};
        });
        const auto count = [&](const std::string&, const name_lookup::endpoints&) { ++answers; };
        // However often one name is asked for, it is looked up once.
        for (int i = 0; i < 1000; ++i) names.look_up({"hangs", 1}, count);
        for (std::uint16_t port = 2; port < name_lookup::most_at_once; ++port) names.look_up({"hangs", port}, count);
        for (int twice = 1; twice <= 2; ++twice) {
            names.look_up({"known", 1}, count);
            REQUIRE(io.run_one_for(std::chrono::minutes(1)) == 1);
            CHECK(answers == twice);
        }
        names.look_up({"hangs", 99}, count);
        std::string why;
        names.look_up({"known", 1}, [&](const std::string& problem, const name_lookup::endpoints&) { why = problem; });
        REQUIRE(io.run_one_for(std::chrono::minutes(1)) == 1);
        CHECK(why == "too many names are being looked up");
    }
    release.set_value();
    CHECK(answers == 2);
}

TEST_CASE("connecting: an endpoint that swallows what is sent to it has its share of the time") {
    asio::io_context io;
    // A queue that is full: the system answers nobody any more.
    tcp::acceptor full(io, tcp::v4());
    full.bind({asio::ip::address_v4::loopback(), 0});
    full.listen(0);
    std::vector<tcp::socket> waiting;
    for (int i = 0; i < 4; ++i) {
        waiting.emplace_back(io, tcp::v4()).native_non_blocking(true);
        const tcp::endpoint there = full.local_endpoint();
        (void)::connect(waiting.back().native_handle(), there.data(), static_cast<socklen_t>(there.size()));
    }
    tcp::acceptor open(io, {asio::ip::address_v4::loopback(), 0});
    const auto one = std::make_shared<connection_try>(io);
    const auto ends_with = [&](const name_lookup::endpoints& points) {
        std::string end = "never";
        thinwire::runtime::connect(one, points, std::chrono::milliseconds(150),
                                   [&](const std::string& why) { end = why; });
        io.restart();
        io.run_for(std::chrono::minutes(1));
        CHECK(one.use_count() == 1);
        return end;
    };
    CHECK(ends_with({full.local_endpoint(), full.local_endpoint()}) == "no answer");
    CHECK(ends_with({full.local_endpoint(), open.local_endpoint()}).empty());
    CHECK(one->socket.remote_endpoint() == open.local_endpoint());
}
