#include "log_store.hpp"

#include <thinwire/comm/view.hpp>
#include <thinwire/core/bytes.hpp>

#include "unit/runtime/fixture.hpp"
#include <doctest/doctest.h>

#include <cstdint>
#include <optional>
#include <utility>

using namespace thinwire;
using namespace thinwire::runtime;
using namespace runtime_fixture;

namespace {

commit_record empty_record(std::uint64_t round, std::uint64_t term) {
    commit_record record;
    record.round = round;
    record.term = term;
    return record;
}

}  // namespace

TEST_CASE("log store: a snapshot may take the place of a tentative record, also when the power goes between") {
    const folder dir;
    node_options options = founder_options(dir, 1);
    std::optional<log_store> store;
    store.emplace(options, true);
    store->append(empty_record(0, 1));
    REQUIRE(store->next_round() == 1);
    SUBCASE("it does") {
        const snapshot_effect snapshot{1, share(bytes_of("weights")), encode_state(run_state{}), 3};
        store->begin_anew(snapshot, options.run);
        CHECK(store->first_round() == 1);
    }
    SUBCASE("cut off behind its first step") {
        store.reset();
        std::optional<log_owner> owner = log_owner::load(options.log);
        REQUIRE(owner);
        owner->round = 1;
        owner->term = 3;
        owner->begun = false;
        owner->save(options.log);
        CHECK(rounds_that_fit(options.log) == std::pair<std::uint64_t, std::uint64_t>(1, 1));
    }
    store.reset();
    options.next_round = 1;
    store.emplace(options, true);
    CHECK(store->first_round() == 1);
    CHECK(store->next_round() == 1);
    participant_settings settings;
    store->describe(settings, "");
    CHECK_FALSE(settings.last);
    CHECK(settings.begin_term == 3);
}

TEST_CASE("log store: a folder is used by one at a time") {
    const folder dir;
    const node_options options = founder_options(dir, 1);
    const log_store store(options, true);
    CHECK_THROWS_AS(log_store(options, true), io_error);
    CHECK(code_of([&] { (void)node::found(options); }) == node_errc::storage);
}
