// The local step of DeMo (scan, decay, add, transform, top-k, take out, encode, replica digest) and decode + apply, in
// million parameters a second, beside a copy of as much memory, taken in turn with it, and beside what is to be
// reached. usage: benchmark_optimizer [--json FILE]

#include <thinwire/core/random.hpp>
#include <thinwire/optim/demo.hpp>
#include <thinwire/optim/muon.hpp>
#include <thinwire/transform/chunk_grid.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

using namespace thinwire;

namespace {

constexpr int repeats = 15;

/// Of the processor while one thread works, which other programs disturb less; of the clock while several do.
template <class Work>
double seconds_of(int threads, const Work& work) {
    const auto start = std::chrono::steady_clock::now();
    const std::clock_t used = std::clock();
    work();
    if (threads == 1) return static_cast<double>(std::clock() - used) / CLOCKS_PER_SEC;
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Seconds of a repetition.
struct timing {
    double best, median;

    explicit timing(std::vector<double> all) {
        std::sort(all.begin(), all.end());
        best = all.front();
        median = all[all.size() / 2];
    }
};

struct setting {
    shape sides;
    int k = 8;
    std::string basis_name = "dct";
    int threads = 1;
    int peers = 0;     ///< 0: the local step, else decode + apply of a commit of so many payloads
    double reach = 0;  ///< Mparam/s that is to be reached on one thread; 0: none
    value_code values = value_code::f32;
    std::string rule = "signum";
    chunk_cut cut = chunk_cut::remainder;
};

update_rule_ptr rule_of(const std::string& name) {
    if (name == "muon") return std::make_shared<const muon>();
    if (name == "sgd") return std::make_shared<const sgd>();
    return std::make_shared<const signum>();
}

basis basis_of(const std::string& name) {
    if (name == "hadamard") return basis::hadamard();
    if (name == "random_orthogonal") return basis::random_orthogonal(1);
    return name == "identity" ? basis::identity() : basis::dct();
}

struct peer {
    std::vector<float> values, gradient;
    std::unique_ptr<demo> optimizer;
    random_stream random{1};

    peer(const setting& s, thread_pool& pool) : values(s.sides.count(), 0.5F), gradient(s.sides.count()) {
        new_gradient();
        const std::vector<parameter> model = {{.name = "w", .shape = s.sides, .values = values, .gradient = gradient}};
        optimizer = std::make_unique<demo>(
            model,
            demo_options{
                .k = s.k, .cut = s.cut, .values = s.values, .basis = basis_of(s.basis_name), .rule = rule_of(s.rule)},
            &pool);
    }
    void new_gradient() {
        for (float& g : gradient) g = random.uniform() + random.uniform() + random.uniform() - 1.5F;
    }
};

/// What a setting repeats.
std::function<void()> work_of(const setting& s, peer& own, std::vector<std::vector<std::byte>>& payloads) {
    if (s.peers == 0)
        return [&own] {
            static_cast<void>(own.optimizer->begin_step(0));
            own.optimizer->set_round(own.optimizer->round() + 1);  // settles the payload; the weights stay
        };
    std::vector<contribution> list;
    for (int p = 0; p < s.peers; ++p) {
        own.new_gradient();
        const auto payload = own.optimizer->begin_step(static_cast<peer_id>(p));
        payloads.emplace_back(payload.begin(), payload.end());
        own.optimizer->abandon();
    }
    for (std::size_t p = 0; p < payloads.size(); ++p)
        list.push_back({.peer = static_cast<peer_id>(p), .payload = payloads[p]});
    return [&own, list] {
        own.optimizer->set_round(0);
        static_cast<void>(own.optimizer->apply({.round = 0, .contributions = list}));
    };
}

struct result_row {
    timing step, pass;
};

/// A step and a copy of as many floats as the tensor has, in turn: what disturbs one disturbs the other.
result_row measure(const setting& s) {
    thread_pool pool(s.threads);
    peer own(s, pool);
    std::vector<std::vector<std::byte>> payloads;
    const std::function<void()> work = work_of(s, own, payloads);
    const std::vector<float> from(s.sides.count(), 1.0F);
    std::vector<float> to(s.sides.count());
    std::vector<double> steps, passes;
    for (int i = 0; i < repeats; ++i) {
        passes.push_back(seconds_of(1, [&] { std::memcpy(to.data(), from.data(), to.size() * sizeof(float)); }));
        steps.push_back(seconds_of(s.threads, work));
    }
    return {timing(steps), timing(passes)};
}

std::vector<setting> settings() {
    const shape large = {2048, 8192}, middle = {768, 3072};
    std::vector<setting> all;
    for (const shape& sides : {large, middle})
        for (const int k : {8, 32})
            for (const int threads : {1, 2})
                all.push_back({.sides = sides, .k = k, .threads = threads, .reach = k == 8 ? 700.0 : 600.0});
    for (const int k : {8, 32})
        all.push_back({.sides = middle, .k = k, .basis_name = "hadamard", .reach = k == 8 ? 900.0 : 0.0});
    for (const char* name : {"identity", "random_orthogonal"})
        for (const int k : {8, 32}) all.push_back({.sides = middle, .k = k, .basis_name = name});
    // chunks of 29 x 64, 42 x 60 and one row of 64: half of what 64 x 64 is to reach
    for (const shape& sides : {shape{29 * 67, 2048}, shape{42 * 13, 60 * 47}, shape{1 << 20}})
        for (const int k : {8, 32})
            all.push_back({.sides = sides, .k = k, .reach = k == 8 ? 350.0 : 300.0, .cut = chunk_cut::divisors});
    for (const shape& sides : {middle, large})
        for (const int peers : {2, 8, 32})
            all.push_back({.sides = sides, .k = 8, .peers = peers, .reach = peers == 8 ? 500.0 : 0.0});
    all.push_back({.sides = middle, .k = 8, .basis_name = "hadamard", .peers = 8});
    all.push_back({.sides = middle, .k = 8, .threads = 2, .peers = 8});
    for (const value_code code : {value_code::sign, value_code::bf16, value_code::q4, value_code::q2})
        for (const int k : {8, 32, 64}) all.push_back({.sides = middle, .k = k, .values = code});
    for (const char* rule : {"sgd", "muon"})
        all.push_back({.sides = middle, .k = 8, .peers = 8, .values = value_code::sign, .rule = rule});
    all.push_back({.sides = middle, .k = 64, .threads = 2, .peers = 4, .values = value_code::sign, .rule = "muon"});
    // sides without a divisor near 64: chunks of 64 x 64 and strips of what remains, beside a neighbour without
    for (const shape& sides :
         {shape{8191, 768}, shape{8192, 768}, shape{514, 1028}, shape{509, 1021}, shape{512, 1024}})
        for (const int peers : {0, 8}) all.push_back({.sides = sides, .k = 8, .peers = peers});
    all.push_back({.sides = {509, 1021}, .k = 8, .cut = chunk_cut::divisors});
    return all;
}

/// Of the chunks, and of the last where the others have another.
std::string chunk_of(const setting& s) {
    const std::vector<chunk_grid> regions = chunk_regions(s.sides, 64, s.cut);
    const auto sides = [](const chunk_grid& g) { return std::to_string(g.rows()) + "x" + std::to_string(g.cols()); };
    return sides(regions.front()) + (regions.size() > 1 ? ".." + sides(regions.back()) : "");
}

}  // namespace

int main(int count, char** arguments) {
    std::FILE* json = nullptr;
    if (count == 3 && std::string_view(arguments[1]) == "--json") json = std::fopen(arguments[2], "w");
    if (count != 1 && json == nullptr) {
        std::fputs("usage: benchmark_optimizer [--json FILE]\n", stderr);
        return 2;
    }
    std::printf(
        "level %s; best of %d (median) by the processor's time, with 2 threads by the clock;\n"
        "a copy of the tensor on one thread in between\n",
        std::string(to_string(best_isa())).c_str(), repeats);
    std::printf("%-11s %-13s %-12s %-18s %-6s %-6s %3s %7s %16s %6s %14s %7s %9s\n", "what", "tensor", "chunk", "basis",
                "values", "rule", "k", "threads", "Mparam/s", "reach", "copy Mparam/s", "copies", "ns/peer");
    bool first = true;
    for (const setting& s : settings()) {
        const result_row found = measure(s);
        const auto n = static_cast<double>(s.sides.count());
        const auto speed = [n](double t) { return n / t / 1e6; };
        const std::string what = s.peers == 0 ? "local step" : "apply R=" + std::to_string(s.peers);
        const double copies = found.step.best / found.pass.best;
        std::printf("%-11s %-13s %-12s %-18s %-6s %-6s %3d %7d %8.1f (%5.0f) %6.0f %14.0f %7.1f %9.3f\n", what.c_str(),
                    to_string(s.sides).c_str(), chunk_of(s).c_str(), s.basis_name.c_str(),
                    std::string(to_string(s.values)).c_str(), s.rule.c_str(), s.k, s.threads, speed(found.step.best),
                    speed(found.step.median), s.reach, speed(found.pass.best), copies,
                    found.step.best / n * 1e9 / std::max(1, s.peers));
        std::fflush(stdout);
        if (json != nullptr)
            std::fprintf(
                json,
                "%s{\"what\": \"%s\", \"tensor\": %s, \"chunk\": \"%s\", \"basis\": \"%s\", \"values\": \"%s\", "
                "\"rule\": \"%s\", \"k\": %d, "
                "\"threads\": %d, \"mparam_per_second\": %.1f, \"median_mparam_per_second\": %.1f, "
                "\"reach\": %.0f, \"copy_mparam_per_second\": %.1f, \"copies\": %.3f}",
                first ? "[\n" : ",\n", what.c_str(), to_string(s.sides).c_str(), chunk_of(s).c_str(),
                s.basis_name.c_str(), std::string(to_string(s.values)).c_str(), s.rule.c_str(), s.k, s.threads,
                speed(found.step.best), speed(found.step.median), s.reach, speed(found.pass.best), copies);
        first = false;
    }
    if (json != nullptr) {
        std::fputs("\n]\n", json);
        std::fclose(json);
    }
}
