#include "unit/comm/simulator.hpp"
#include <doctest/doctest.h>

#include <cstdlib>
#include <string>

namespace {

/// Runs one seed; the message of a failure says how to run it again.
void check_seed(std::uint64_t seed, std::size_t& rounds, std::size_t& faults, std::size_t& returned) {
    simulation::world::options options;
    options.peers = 2 + static_cast<int>(seed % 4);
    simulation::world world(seed, options);
    try {
        world.run();
    } catch (const simulation::violation& broken) {
        FAIL_CHECK("seed " << seed << ": " << std::string(broken.what()) << "\n  again: THINWIRE_SIM_SEED=" << seed
                           << " thinwire_test_comm -tc='simulation*'");
    }
    rounds += world.rounds();
    faults += world.faults();
    returned += world.returned();
}

}  // namespace

TEST_CASE("simulation: no commit is doubled, no payload lost, no replica differs, whatever breaks") {
    std::size_t rounds = 0, faults = 0, returned = 0;
    if (const char* one = std::getenv("THINWIRE_SIM_SEED")) {
        check_seed(std::strtoull(one, nullptr, 10), rounds, faults, returned);
        return;
    }
    const char* many = std::getenv("THINWIRE_SIM_SEEDS");
    const std::uint64_t seeds = many != nullptr ? std::strtoull(many, nullptr, 10) : 100;
    for (std::uint64_t seed = 1; seed <= seeds; ++seed) check_seed(seed, rounds, faults, returned);
    MESSAGE(seeds << " seeds: " << rounds << " rounds, " << faults << " faults, " << returned << " payloads returned");
    CHECK(rounds > 40 * seeds);
    CHECK(faults > 10 * seeds);
    CHECK(returned > 0);
}
