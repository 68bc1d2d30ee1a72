#include <thinwire/comm/sequencer.hpp>

#include <doctest/doctest.h>

#include <string>

using namespace thinwire;

namespace {

hello_message hello(peer_id peer, std::uint64_t next_round, bool wants_snapshot) {
    hello_message m;
    m.peer = peer;
    m.session = peer;
    m.name = "p";
    m.next_round = next_round;
    m.wants_snapshot = wants_snapshot;
    return m;
}

/// A run at round 100 whose log begins at round 0, with a snapshot of round 80.
sequencer at_round_100() {
    sequencer_settings s;
    s.self = 1;
    s.next_round = s.local_round = 100;
    sequencer machine(s, 0);
    machine.snapshot_published(80, share({std::byte{1}}), 0);
    return machine;
}

void enter(sequencer& machine, link_id link, const hello_message& m) {
    machine.link_opened(link, 0);
    machine.received(link, m, 0);
}

bool refused(sequencer& machine) {
    for (const effect& e : machine.take_effects())
        if (const auto* sent = std::get_if<send_effect>(&e))
            if (const auto* no = std::get_if<refuse_message>(&sent->what)) return no->code == refusal::unavailable;
    return false;
}

}  // namespace

TEST_CASE("sequencer: the log is needed from the newest snapshot on, and by whoever is present") {
    sequencer machine = at_round_100();
    CHECK(machine.log_needed_from(50) == 50);
    CHECK(machine.log_needed_from(95) == 80);
    enter(machine, 5, hello(7, 60, false));
    CHECK(machine.log_needed_from(70) == 60);
    machine.link_closed(5, 0);
    CHECK(machine.log_needed_from(70) == 70);
    enter(machine, 6, hello(8, 0, true));
    machine.snapshot_published(100, share({std::byte{2}}), 0);
    CHECK(machine.log_needed_from(100) == 80);  // it fetches the one that it was offered
    machine.received(6, progress_message{0, 80, 80, false}, 0);
    CHECK(machine.log_needed_from(100) == 80);  // and waits for round 80 to be loaded
}

TEST_CASE("sequencer: who is behind the log's begin is refused") {
    sequencer machine = at_round_100();
    enter(machine, 5, hello(7, 60, false));
    CHECK_FALSE(refused(machine));
    machine.link_closed(5, 0);
    machine.log_begins(61);
    enter(machine, 6, hello(7, 60, false));
    CHECK(refused(machine));
    enter(machine, 7, hello(7, 61, false));
    CHECK_FALSE(refused(machine));
}
