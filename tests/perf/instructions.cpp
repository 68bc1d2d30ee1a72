// Does one thing COUNT times for instructions.sh, which counts what that takes. The level is AVX2, which valgrind runs.
// usage: instructions WHAT COUNT

#include <thinwire/core/random.hpp>
#include <thinwire/optim/demo.hpp>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

using namespace thinwire;

namespace {

struct peer {
    std::vector<float> values, gradient;
    demo optimizer;
    random_stream random{1};

    peer(const shape& sides, int k, const basis& b)
        : values(sides.count(), 0.5F),
          gradient(sides.count()),
          optimizer(std::vector<parameter>{{.name = "w", .shape = sides, .values = values, .gradient = gradient}},
                    {.k = k, .basis = b, .level = std::min(isa::avx2, best_isa())}) {
        new_gradient();
    }
    void new_gradient() {
        for (float& g : gradient) g = random.uniform() + random.uniform() - 1.0F;
    }
};

void steps(int count, const shape& sides, int k, const basis& b) {
    peer own(sides, k, b);
    for (int i = 0; i < count; ++i) {
        static_cast<void>(own.optimizer.begin_step(0));
        own.optimizer.set_round(own.optimizer.round() + 1);
    }
}

void applications(int count, const shape& sides) {
    peer own(sides, 8, basis::dct());
    std::vector<std::vector<std::byte>> payloads;
    std::vector<contribution> list;
    for (peer_id p = 0; p < 8; ++p) {
        own.new_gradient();
        const auto payload = own.optimizer.begin_step(p);
        payloads.emplace_back(payload.begin(), payload.end());
        own.optimizer.abandon();
    }
    for (std::size_t p = 0; p < payloads.size(); ++p)
        list.push_back({.peer = static_cast<peer_id>(p), .payload = payloads[p]});
    for (int i = 0; i < count; ++i) {
        own.optimizer.set_round(0);
        static_cast<void>(own.optimizer.apply({.round = 0, .contributions = list}));
    }
}

/// The part of every step that processors with SHA instructions, unlike valgrind's, do in a tenth of the instructions.
void digests(int count, const shape& sides) {
    const std::vector<float> values(sides.count(), 0.5F);
    for (int i = 0; i < count; ++i) {
        sha256 sum;
        detail::digest_floats(sum, detail::digest_share(values, static_cast<std::size_t>(i) % detail::digest_shares));
        if (to_string(sum.finish()).empty()) std::abort();
    }
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 3) return 2;
    const std::string_view what = arguments[1];
    const int times = std::atoi(arguments[2]);
    const shape matrix = {256, 512}, line = {256 * 512};
    if (what == "step_8")
        steps(times, matrix, 8, basis::dct());
    else if (what == "step_32")
        steps(times, matrix, 32, basis::dct());
    else if (what == "hadamard_8")
        steps(times, matrix, 8, basis::hadamard());
    else if (what == "line_8")
        steps(times, line, 8, basis::dct());
    else if (what == "apply_8")
        applications(times, matrix);
    else if (what == "digest")
        digests(times, matrix);
    else
        return 2;
    return 0;
}
