#ifndef THINWIRE_TESTS_UNIT_IO_ROUNDS_HPP
#define THINWIRE_TESTS_UNIT_IO_ROUNDS_HPP

#include <thinwire/io/run_log.hpp>

#include "folder.hpp"
#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace thinwire_test {

inline const thinwire::digest run = thinwire::digest_of(bytes_of("a run"));

/// What a record says, owned.
struct told {
    std::uint64_t term = 0;
    std::uint64_t round = 0;
    std::vector<std::byte> control;
    std::vector<std::pair<std::uint64_t, std::vector<std::byte>>> parts;
    bool operator==(const told&) const = default;
};

/// A record that depends on round and term only; round 2 has no contribution, others up to three. Terms 1 to 9 have
/// records of one size.
inline told made(std::uint64_t round, std::uint64_t term = 0) {
    told out{.term = term, .round = round, .control = {}, .parts = {}};
    for (std::uint64_t p = 0; p < (round + 1) % 4; ++p)
        out.parts.emplace_back(p * 1000 + round,
                               bytes_of(std::string(p * 7, static_cast<char>('a' + (round + term) % 26))));
    if (round == 2) out.parts.clear();
    if (term > 0) out.control = bytes_of("control of term " + std::to_string(term));
    return out;
}

inline void append(thinwire::run_log& log, const told& what) {
    std::vector<thinwire::logged_payload> parts;
    for (const auto& [peer, payload] : what.parts)
        parts.push_back({.peer = peer, .payload_digest = thinwire::digest_of(payload), .payload = payload});
    log.append(
        thinwire::log_record{.term = what.term, .round = what.round, .control = what.control, .contributions = parts});
}

inline told told_by(const thinwire::log_record& record) {
    told one{.term = record.term,
             .round = record.round,
             .control = {record.control.begin(), record.control.end()},
             .parts = {}};
    for (const thinwire::logged_payload& part : record.contributions) {
        CHECK(part.payload_digest == thinwire::digest_of(part.payload));
        one.parts.emplace_back(part.peer, std::vector<std::byte>(part.payload.begin(), part.payload.end()));
    }
    return one;
}

inline std::vector<told> all_of(const thinwire::run_log& log, std::uint64_t from, std::uint64_t to) {
    std::vector<told> out;
    const auto read =
        log.read_records(from, to, [&](const thinwire::log_record& record) { out.push_back(told_by(record)); });
    REQUIRE_MESSAGE(read.has_value(), read.error().message);
    return out;
}
inline std::vector<told> all_of(const thinwire::run_log& log, std::uint64_t from) {
    return all_of(log, from, log.next_round());
}

inline std::vector<told> made_range(std::uint64_t from, std::uint64_t to) {
    std::vector<told> out;
    for (std::uint64_t r = from; r < to; ++r) out.push_back(made(r));
    return out;
}

}  // namespace thinwire_test

#endif  // THINWIRE_TESTS_UNIT_IO_ROUNDS_HPP
