#include "progress.hpp"

#include <doctest/doctest.h>

using nlohmann::json;
using thinwire::launcher::human_bytes;
using thinwire::launcher::peer_progress;

TEST_CASE("bytes of a killed process and of the one after it are added up") {
    peer_progress peer;
    const auto round = [](int number, int sent) {
        return json{{"event", "round"},   {"round", number},     {"loss", 2.5},       {"payload_bytes", 10},
                    {"bytes_sent", sent}, {"bytes_received", 7}, {"contributors", 3}, {"tokens", 64}};
    };
    peer.take({{"event", "start"}, {"round", 0}, {"parameters", 1000}});
    peer.take(round(0, 100));
    peer.take(round(1, 200));
    peer.take({{"event", "start"}, {"round", 4}, {"parameters", 1000}});
    peer.take(round(4, 50));
    CHECK(peer.wire_sent() == 250);
    CHECK(peer.wire_received() == 14);
    CHECK(peer.payload_bytes == 30);
    CHECK(peer.rounds_sent == 3);
    CHECK(peer.tokens == 192);
    CHECK(peer.round == 5);
}

TEST_CASE("parts of one run are added up, another run begins anew") {
    peer_progress peer;
    peer.name = "peer0";
    const auto part = [&](const char* run, double time) {
        peer.take({{"event", "start"}, {"time", time}, {"round", 0}, {"run", run}, {"parameters", 9}});
        peer.take({{"event", "round"}, {"time", time + 2}, {"round", 0}, {"payload_bytes", 10}, {"tokens", 64}});
        peer.take({{"event", "end"}, {"time", time + 3}, {"round", 1}, {"replica_digest", "ab"}});
    };
    part("first", 100);
    CHECK(peer.digest == "ab");
    part("first", 500);
    CHECK(peer.seconds == 4);
    CHECK(peer.tokens == 128);
    peer.take({{"event", "start"}, {"time", 900}, {"round", 1}, {"run", "first"}});
    CHECK(peer.digest.empty());
    CHECK(peer.tokens == 128);
    part("second", 1000);
    CHECK(peer.name == "peer0");
    CHECK(peer.seconds == 2);
    CHECK(peer.tokens == 64);
}

TEST_CASE("the first evaluation stays, the last one moves") {
    peer_progress peer;
    peer.take({{"event", "evaluation"}, {"round", 0}, {"loss", 5.5}});
    peer.take({{"event", "evaluation"}, {"round", 50}, {"loss", 2.5}});
    CHECK(peer.first_evaluation == 5.5);
    CHECK(peer.last_evaluation == 2.5);
    CHECK(peer.last_evaluation_round == 50);
}

TEST_CASE("lines with nothing, null or unknown events in them are taken") {
    peer_progress peer;
    peer.take(json::object());
    peer.take({{"event", "round"}, {"loss", nullptr}});
    peer.take({{"event", "something later"}});
    CHECK(peer.loss == 0.0);
    CHECK(peer.rounds_sent == 1);
}

TEST_CASE("bytes for people") {
    CHECK(human_bytes(0) == "0 B");
    CHECK(human_bytes(999) == "999 B");
    CHECK(human_bytes(1500) == "1.5 kB");
    CHECK(human_bytes(34.4e6) == "34.4 MB");
    CHECK(human_bytes(2e15) == "2000.0 TB");
}
