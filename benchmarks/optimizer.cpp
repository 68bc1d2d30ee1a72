// The local step of DeMo (scan, decay, add, transform, top-k, take out, encode, replica digest) and decode + apply, in
// million parameters a second, beside one copy of the same memory taken in the same run.
// usage: benchmark_optimizer [--json FILE]

#include <thinwire/core/random.hpp>
#include <thinwire/optim/demo.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

using namespace thinwire;

namespace {

constexpr int repeats = 7;

template <class Work>
double best_seconds(const Work& work) {
    double best = 1e9;
    for (int i = 0; i < repeats; ++i) {
        const auto start = std::chrono::steady_clock::now();
        work();
        best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    return best;
}

struct setting {
    shape sides;
    int k = 8;
    std::string basis_name = "dct";
    int threads = 1;
    int peers = 0;  ///< 0: the local step, else decode + apply of a commit of so many payloads
};

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
        optimizer = std::make_unique<demo>(model, demo_options{.k = s.k, .basis = basis_of(s.basis_name)}, &pool);
    }
    void new_gradient() {
        for (float& g : gradient) g = random.uniform() + random.uniform() + random.uniform() - 1.5F;
    }
};

double local_step(const setting& s, thread_pool& pool) {
    peer own(s, pool);
    return best_seconds([&] {
        static_cast<void>(own.optimizer->begin_step(0));
        own.optimizer->set_round(own.optimizer->round() + 1);  // settles the payload; the weights stay
    });
}

double decode_and_apply(const setting& s, thread_pool& pool) {
    peer own(s, pool);
    std::vector<std::vector<std::byte>> payloads;
    std::vector<contribution> list;
    for (int p = 0; p < s.peers; ++p) {
        own.new_gradient();
        const auto payload = own.optimizer->begin_step(static_cast<peer_id>(p));
        payloads.emplace_back(payload.begin(), payload.end());
        own.optimizer->abandon();
    }
    for (std::size_t p = 0; p < payloads.size(); ++p)
        list.push_back({.peer = static_cast<peer_id>(p), .payload = payloads[p]});
    return best_seconds([&] {
        own.optimizer->set_round(0);
        static_cast<void>(own.optimizer->apply({.round = 0, .contributions = list}));
    });
}

/// Seconds to copy as many floats as the tensor has.
double copy_pass(std::size_t count) {
    const std::vector<float> from(count, 1.0F);
    std::vector<float> to(count);
    return best_seconds([&] { std::memcpy(to.data(), from.data(), count * sizeof(float)); });
}

std::vector<setting> settings() {
    const shape large = {2048, 8192}, middle = {768, 3072};
    std::vector<setting> all;
    for (const shape& sides : {large, middle})
        for (const int k : {8, 32})
            for (const int threads : {1, 2}) all.push_back({.sides = sides, .k = k, .threads = threads});
    for (const char* name : {"hadamard", "identity", "random_orthogonal"})
        for (const int k : {8, 32}) all.push_back({.sides = middle, .k = k, .basis_name = name});
    for (const shape& sides : {shape{29 * 32, 2048}, shape{42 * 24, 60 * 32}, shape{1 << 20}})
        for (const int k : {8, 32}) all.push_back({.sides = sides, .k = k});
    for (const int peers : {2, 8, 32}) all.push_back({.sides = middle, .k = 8, .peers = peers});
    all.push_back({.sides = large, .k = 8, .peers = 8});
    all.push_back({.sides = middle, .k = 8, .basis_name = "hadamard", .peers = 8});
    all.push_back({.sides = middle, .k = 8, .threads = 2, .peers = 8});
    return all;
}

}  // namespace

int main(int count, char** arguments) {
    std::FILE* json = nullptr;
    if (count == 3 && std::string_view(arguments[1]) == "--json") json = std::fopen(arguments[2], "w");
    if (count != 1 && json == nullptr) {
        std::fputs("usage: benchmark_optimizer [--json FILE]\n", stderr);
        return 2;
    }
    std::printf("level %s, chunk 64, f32 values; a pass = one copy of the tensor on one thread\n",
                std::string(to_string(best_isa())).c_str());
    std::printf("%-14s %-14s %-18s %3s %7s %10s %12s %8s %14s\n", "what", "tensor", "basis", "k", "threads", "Mparam/s",
                "pass Mparam/s", "passes", "ns/param/peer");
    bool first = true;
    for (const setting& s : settings()) {
        thread_pool pool(s.threads);
        const std::size_t n = s.sides.count();
        const double pass = copy_pass(n);
        const double seconds = s.peers == 0 ? local_step(s, pool) : decode_and_apply(s, pool);
        const auto speed = [n](double t) { return static_cast<double>(n) / t / 1e6; };
        const std::string what = s.peers == 0 ? "local step" : "apply R=" + std::to_string(s.peers);
        const double each = seconds / static_cast<double>(n) * 1e9 / std::max(1, s.peers);
        std::printf("%-14s %-14s %-18s %3d %7d %10.0f %12.0f %8.1f %14.3f\n", what.c_str(), to_string(s.sides).c_str(),
                    s.basis_name.c_str(), s.k, s.threads, speed(seconds), speed(pass), seconds / pass, each);
        std::fflush(stdout);
        if (json != nullptr)
            std::fprintf(json,
                         "%s{\"what\": \"%s\", \"tensor\": %s, \"basis\": \"%s\", \"k\": %d, \"threads\": %d, "
                         "\"mparam_per_second\": %.1f, \"pass_mparam_per_second\": %.1f, \"passes\": %.3f}",
                         first ? "[\n" : ",\n", what.c_str(), to_string(s.sides).c_str(), s.basis_name.c_str(), s.k,
                         s.threads, speed(seconds), speed(pass), seconds / pass);
        first = false;
    }
    if (json != nullptr) {
        std::fputs("\n]\n", json);
        std::fclose(json);
    }
}
