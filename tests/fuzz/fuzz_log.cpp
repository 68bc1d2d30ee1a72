// A segment of a run log. The first byte says whether the checks are put right, so that what lies behind them is
// reached, the second how: then the rest is a list of frames without marks and checks.
#include <thinwire/io/run_log.hpp>

#include "../support/memory_disk.hpp"
#include "fuzz.hpp"

#include <string>

namespace {

using namespace fuzz;

const std::filesystem::path log_folder = "/log";
const std::filesystem::path segment = "/log/00000000000000000000.log";
const log_vote no_vote{};

std::vector<std::byte> header() {
    return detail::encode_log_header({.first_round = 0, .vote = no_vote});
}

/// Frames around what the input says: kind, length of the head, payload bytes, and how much is said to be synced.
std::vector<std::byte> sealed(std::span<const std::byte> input) {
    byte_writer out(header());
    const auto salt = byte_reader(out.bytes().last(8)).get<std::uint64_t>();
    byte_reader in(input);
    while (in.remaining() > 0) {
        const auto kind = in.get<std::uint8_t>();
        const auto length = std::min<std::size_t>(in.get<std::uint8_t>(), in.remaining());
        const auto payload = std::min<std::size_t>(in.get<std::uint8_t>(), in.remaining());
        const std::uint64_t at = out.size();
        const std::uint64_t synced = kind >= 128 ? at : 0;
        const auto body = in.get_bytes(std::min(length, in.remaining()));
        const auto behind = in.get_bytes(std::min(payload, in.remaining()));
        std::vector<std::byte> head(body.begin(), body.end());
        if (kind % 8 == 1 && head.size() >= 24 && !behind.empty()) {  // a record of one payload, with its digest
            byte_writer record(std::vector<std::byte>(head.begin(), head.begin() + 16));
            record.put(std::uint32_t{0});
            record.put(std::uint32_t{1});
            record.put(std::span<const std::byte>(head).subspan(16, 8));
            record.put(std::span<const std::byte>(digest_of(behind).bytes));
            record.put(std::uint64_t{behind.size()});
            head = record.take();
        }
        detail::put_log_frame(out,
                              {.at = at,
                               .kind = static_cast<detail::log_frame_kind>(kind % 8),
                               .head = static_cast<std::uint32_t>(head.size() + 8),
                               .payload = behind.size(),
                               .synced = synced},
                              salt);
        out.put(std::span<const std::byte>(head));
        out.put(detail::log_check(head));
        out.put(behind);
    }
    return out.take();
}

/// Opens, reads all and goes on.
void use(const std::vector<std::byte>& bytes) {
    thinwire_test::memory_disk disk;
    disk.put_folder(log_folder);
    disk.put(segment, bytes);
    const auto seen = run_log::open_read_only(log_folder, disk);
    auto log = run_log::open(log_folder, {}, {.files = &disk});
    if (!log) {
        require(disk.content(segment) == bytes, "what is refused is left as it was");
        return;
    }
    require(seen.has_value() && seen->next_round() == log->next_round() && seen->cut_bytes() == log->cut_bytes(),
            "who only reads sees the same");
    require(log->bytes() + log->cut_bytes() == bytes.size(), "a cut is counted");
    std::uint64_t rounds = 0;
    const auto read = log->read_records(0, log->next_round(), [&](const log_record& record) {
        require(record.round == rounds++, "rounds come in order");
        for (const logged_payload& part : record.contributions)
            require(digest_of(part.payload) == part.payload_digest, "payloads are what their digests say");
    });
    require(read.has_value() && rounds == log->next_round(), "what opens can be read");
    log->append(log_record{.term = log->last_term(), .round = log->next_round()});
    const auto again = run_log::open(log_folder, {}, {.files = &disk});
    require(again.has_value() && again->next_round() == log->next_round() && again->cut_bytes() == 0 &&
                again->newest_vote() == log->newest_vote(),
            "what is opened and goes on can be opened");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto input = std::as_bytes(std::span(data, size));
    if (input.empty()) return 0;
    if (data[0] % 2 == 0) {
        use(sealed(input.subspan(1)));
        return 0;
    }
    // As it stands; or behind a header that is right.
    std::vector<std::byte> bytes = data[0] % 4 == 1 ? header() : std::vector<std::byte>{};
    bytes.insert(bytes.end(), input.begin() + 1, input.end());
    use(bytes);
    return 0;
}
