// One run, many builds. `exact_digest record LOG` trains a few small models with peers of different instruction sets
// and numbers of threads, writes every payload to LOG and prints one digest of all replicas after every round.
// `exact_digest replay LOG` prints the digest that this build gets from LOG. exact_builds.sh compiles this file with
// different compilers, flags and for another processor: all must print the same line. A build also checks itself: every
// instruction set, 1 to 8 threads and every floating-point mode of the caller give the digest that it prints.

#include <thinwire/core/random.hpp>
#include <thinwire/optim/adamw.hpp>
#include <thinwire/optim/demo.hpp>
#include <thinwire/optim/muon.hpp>

#include "support/float_modes.hpp"

#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

using namespace thinwire;

namespace {

[[noreturn]] void fail(const std::string& what) {
    std::printf("%s\n", what.c_str());
    std::exit(1);
}

/// Floats over a wide range of exponents, some of them subnormal or zero, made from bits.
float wide_float(random_stream& random, std::uint32_t low, std::uint32_t high) {
    const std::uint32_t bits = random.bits32();
    if (bits % 61 == 0) return 0.0F;
    if (bits % 67 == 0) return std::bit_cast<float>(bits & 0x807fffffU);
    const std::uint32_t exponent = low + (bits >> 8U) % (high - low);
    return std::bit_cast<float>((bits & 0x80000000U) | (exponent << 23U) | (random.bits32() & 0x7fffffU));
}

struct model {
    std::vector<shape> shapes = {{64, 128}, {130}, {7}, {61, 53}, {2, 12, 40}, {1}, {67, 2}};
    std::vector<std::vector<float>> values, gradients;
    std::vector<parameter> parameters;

    model() {
        random_stream random(11);
        values.resize(shapes.size());
        gradients.resize(shapes.size());
        for (std::size_t i = 0; i < shapes.size(); ++i) {
            for (std::size_t e = 0; e < shapes[i].count(); ++e) values[i].push_back(wide_float(random, 90, 128));
            gradients[i].resize(shapes[i].count());
            parameters.push_back(
                {.name = std::to_string(i), .shape = shapes[i], .values = values[i], .gradient = gradients[i]});
        }
    }
    void new_gradients(std::uint64_t peer, std::uint64_t round) {
        random_stream random(1000 + peer, round);
        for (auto& gradient : gradients)
            for (float& value : gradient) value = wide_float(random, 100, 130);
    }
};

/// What one peer published in a round.
struct published {
    peer_id peer;
    std::vector<std::byte> payload;
};
using round_log = std::vector<published>;
using run_log = std::vector<round_log>;

commit commit_of(std::uint64_t round, const round_log& log, std::vector<contribution>& contributions) {
    contributions.clear();
    for (const published& p : log) contributions.push_back({.peer = p.peer, .payload = p.payload});
    return {.round = round, .contributions = contributions};
}

/// A payload as some peer could have sent it, without any floating-point arithmetic.
std::vector<std::byte> made_up_payload(const payload_layout& layout, std::uint64_t round, peer_id peer) {
    random_stream random(1000 * round + peer);
    payload_writer out({.kind = layout.kind,
                        .values = layout.values(),
                        .round = round,
                        .peer = peer,
                        .fingerprint = layout.fingerprint,
                        .k = layout.k,
                        .chunk = layout.chunk,
                        .learning_rate = 0x1.0624dep-10F,
                        .weight_decay = round % 2 == 0 ? 0.0F : 0.1F,
                        .tokens = static_cast<std::uint32_t>(random.below(most_tokens))},
                       layout.sections.size(), {});
    section_coder coder(layout);
    for (const payload_section& section : layout.sections) {
        std::vector<std::uint16_t> positions;
        std::vector<float> values;
        std::vector<std::uint32_t> counts(section.chunks, section.kept);
        for (std::uint64_t chunk = 0; chunk < section.chunks; ++chunk) {
            for (std::uint32_t p = 0, left = section.kept; left > 0; ++p) {
                if (random.below(section.chunk_size - p) >= left) continue;
                positions.push_back(static_cast<std::uint16_t>(p));
                values.push_back(wide_float(random, 100, 130));
                --left;
            }
        }
        if (layout.kind == payload_kind::demo) {
            coder.encode(section, {.positions = positions, .values = values, .counts = counts}, out.begin_section());
            out.end_section();
        } else {
            byte_writer bytes(std::move(out.begin_section()));
            for (const float value : values) bytes.put(value);
            out.end_section(bytes.take());
        }
    }
    out.finish();
    return out.take();
}

/// Everything that a run's replicas agree on.
struct setting {
    const char* name;
    bool dense = false;  ///< adamw
    demo_options options{};

    [[nodiscard]] std::unique_ptr<demo> make_demo(model& m, isa level, thread_pool* pool) const {
        demo_options o = options;
        o.level = level;
        return std::make_unique<demo>(m.parameters, o, pool);
    }
    [[nodiscard]] std::unique_ptr<adamw> make_adamw(model& m, isa level, thread_pool* pool) const {
        return std::make_unique<adamw>(
            m.parameters, adamw_options{.weight_decay = 0.1F, .weights = options.weights, .level = level}, pool);
    }
};

const std::vector<setting> settings = {
    {.name = "f32", .options = {.k = 32, .weight_decay = 0.1F}},
    {.name = "f32, k = 700", .options = {.k = 700, .clip_norm = 1.0F}},
    {.name = "sign, k = 1", .options = {.k = 1, .values = value_code::sign}},
    {.name = "sign, chunk 16", .options = {.k = 32, .chunk = 16, .values = value_code::sign, .weight_decay = 0.1F}},
    {.name = "sgd, f32", .options = {.alpha = 0.2F, .k = 32, .rule = std::make_shared<const sgd>()}},
    {.name = "sgd, sign, groups",
     .options = {.gradient = gradient_scale::complement,
                 .k = 8,
                 .values = value_code::sign,
                 .rule = std::make_shared<const sgd>(),
                 .groups = {{.parameters = {1, 3}, .learning_rate = 0.3F, .weight_decay = 0.01F, .k = 3},
                            {.parameters = {4}, .rule = std::make_shared<const signum>()}}}},
    {.name = "hadamard, sign", .options = {.k = 16, .values = value_code::sign, .basis = basis::hadamard()}},
    {.name = "random orthogonal, sgd",
     .options = {.k = 5, .basis = basis::random_orthogonal(7), .rule = std::make_shared<const sgd>()}},
    {.name = "random orthogonal each round",
     .options = {.k = 40, .chunk = 32, .basis = basis::random_orthogonal(8, true)}},
    {.name = "identity", .options = {.k = 9, .values = value_code::sign, .basis = basis::identity()}},
    {.name = "bf16", .options = {.k = 20, .values = value_code::bf16, .weight_decay = 0.1F}},
    {.name = "q4, sgd",
     .options = {.alpha = 0.5F, .k = 12, .values = value_code::q4, .rule = std::make_shared<const sgd>()}},
    {.name = "q2, error feedback", .options = {.k = 12, .values = value_code::q2, .error_feedback = true}},
    // Muon on a batch of wide matrices and on a tall one; -O0 and emulators make larger ones slow.
    {.name = "muon, q4",
     .options = {.k = 30,
                 .values = value_code::q4,
                 .weight_decay = 0.1F,
                 .groups = {{.parameters = {2, 4, 6}, .rule = std::make_shared<const muon>()}}}},
    {.name = "tokens, signum", .options = {.k = 32, .weights = mean_weights::tokens}},
    {.name = "tokens, clipped, sgd",
     .options =
         {.k = 12, .rule = std::make_shared<const sgd>(), .weights = mean_weights::tokens, .contribution_clip = 1.5F}},
    {.name = "adamw", .dense = true},
    {.name = "adamw, tokens", .dense = true, .options = {.weights = mean_weights::tokens}},
};

constexpr std::uint64_t live_rounds = 3;
constexpr std::uint64_t rounds = 6;

/// Peers that live through a run: in the first rounds all send their own, one of them in vain now and then.
template <class Make>
run_log live(const setting& s, const Make& make) {
    constexpr int size = 3;
    thread_pool two(2), five(5);
    thread_pool* const pools[size] = {nullptr, &two, &five};
    model models[size];
    std::vector<decltype(make(models[0], isa::scalar, nullptr))> peers;
    for (int i = 0; i < size; ++i)
        peers.push_back(make(models[i], std::min(static_cast<isa>(i), best_isa()), pools[i]));
    run_log log;
    std::vector<contribution> list;
    for (std::uint64_t round = 0; round < rounds; ++round) {
        round_log& sent = log.emplace_back();
        for (peer_id i = 0; round < live_rounds && i < size; ++i) {
            models[i].new_gradients(i, round);
            const auto payload = peers[i]->begin_step(i);
            if ((round + i) % 5 != 4) sent.push_back({i, {payload.begin(), payload.end()}});
        }
        for (peer_id i = 0; round >= live_rounds && i < 2 * (round - live_rounds) + 1; ++i)
            sent.push_back({i, made_up_payload(peers[0]->layout(), round, i)});
        const commit agreed = commit_of(round, sent, list);
        for (auto& peer : peers) {
            const step_report report = peer->end_step({&agreed, 1});
            if (report.rejected != 0) fail(std::string(s.name) + ": a payload is refused");
            if (peer->replica_digest() != peers[0]->replica_digest())
                fail(std::string(s.name) + ": live peers differ in round " + std::to_string(round));
        }
    }
    return log;
}

/// The digest of a replica that applies a log, after every round.
template <class Make>
void replay(const run_log& log, const Make& make, isa level, thread_pool* pool, sha256& sum) {
    model m;
    const auto replica = make(m, level, pool);
    std::vector<contribution> list;
    for (std::uint64_t round = 0; round < log.size(); ++round) {
        if (replica->apply(commit_of(round, log[round], list)).rejected != 0) fail("a payload of the log is refused");
        sum.update(std::span<const std::byte>(replica->replica_digest().bytes));
    }
}

/// Calls use(make) with what makes the optimizer of a setting.
template <class Use>
void with(const setting& s, const Use& use) {
    if (s.dense)
        use([&s](model& m, isa level, thread_pool* pool) { return s.make_adamw(m, level, pool); });
    else
        use([&s](model& m, isa level, thread_pool* pool) { return s.make_demo(m, level, pool); });
}

digest digest_of_all(const std::vector<run_log>& logs, isa level, thread_pool* pool) {
    sha256 sum;
    for (std::size_t i = 0; i < settings.size(); ++i)
        with(settings[i], [&](const auto& make) { replay(logs[i], make, level, pool, sum); });
    return sum.finish();
}

void write(const char* path, const std::vector<run_log>& logs) {
    byte_writer out;
    for (const run_log& log : logs)
        for (const round_log& round : log) {
            out.put(static_cast<std::uint64_t>(round.size()));
            for (const published& p : round) {
                out.put(p.peer);
                out.put(static_cast<std::uint64_t>(p.payload.size()));
                out.put(std::span<const std::byte>(p.payload));
            }
        }
    std::FILE* file = std::fopen(path, "wb");
    if (file == nullptr || std::fwrite(out.bytes().data(), 1, out.bytes().size(), file) != out.bytes().size() ||
        std::fclose(file) != 0)
        fail("cannot write the log");
}

std::vector<run_log> read(const char* path) {
    std::FILE* file = std::fopen(path, "rb");
    if (file == nullptr) fail("cannot read the log");
    std::vector<std::byte> bytes;
    for (std::byte part[4096]; const std::size_t n = std::fread(part, 1, sizeof part, file);)
        bytes.insert(bytes.end(), part, part + n);
    std::fclose(file);
    byte_reader in(bytes);
    std::vector<run_log> logs(settings.size(), run_log(rounds));
    for (run_log& log : logs)
        for (round_log& round : log)
            for (auto left = in.get<std::uint64_t>(); left > 0 && !in.failed(); --left) {
                const auto peer = in.get<std::uint64_t>();
                const auto payload = in.get_bytes(in.get<std::uint64_t>());
                round.push_back({peer, {payload.begin(), payload.end()}});
            }
    if (in.failed() || in.remaining() != 0) fail("the log is of other settings");
    return logs;
}

/// Every level, 1 to 8 threads and every mode that a caller's thread may be in.
void check_this_build(const std::vector<run_log>& logs, const digest& expected) {
    const auto require = [&](isa level, thread_pool* pool, const std::string& how) {
        if (digest_of_all(logs, level, pool) != expected) fail(std::string(to_string(level)) + " differs, " + how);
    };
    for (const isa level : {isa::scalar, isa::avx2, isa::avx512}) {
        if (level > best_isa()) continue;
        for (int threads = 1; threads <= 8; ++threads) {
            thread_pool pool(threads);
            require(level, &pool, std::to_string(threads) + " threads");
        }
        for (const float_mode& mode : float_modes()) {
            const in_float_mode hostile(mode);
            thread_pool pool(2);  // its threads start in the mode of this one
            require(level, &pool, mode.name);
        }
    }
}

}  // namespace

int main(int count, char** words) {
    const std::string task = count == 3 ? words[1] : "";
    if (task != "record" && task != "replay") fail("usage: exact_digest record|replay LOG");
    std::vector<run_log> logs;
    for (const setting& s : settings) with(s, [&](const auto& make) { logs.push_back(live(s, make)); });
    if (task == "record")
        write(words[2], logs);
    else
        logs = read(words[2]);
    const digest found = digest_of_all(logs, isa::scalar, nullptr);
    check_this_build(logs, found);
    std::printf("%s\n", to_string(found).c_str());
    return 0;
}
