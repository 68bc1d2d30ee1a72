// Prints one digest of everything that replicas apply, for inputs made of integers alone. exact_builds.sh compiles it
// with different compilers and flags; every build, instruction set and number of threads must print the same line.

#include <thinwire/core/random.hpp>
#include <thinwire/optim/adamw.hpp>
#include <thinwire/optim/demo.hpp>

#include <bit>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

using namespace thinwire;

namespace {

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
            for (std::size_t e = 0; e < shapes[i].count(); ++e) gradients[i].push_back(wide_float(random, 100, 130));
            parameters.push_back(
                {.name = std::to_string(i), .shape = shapes[i], .values = values[i], .gradient = gradients[i]});
        }
    }
};

/// A payload as some peer could have sent it, without any floating-point arithmetic.
std::vector<std::byte> made_up_payload(const payload_layout& layout, std::uint64_t round, peer_id peer,
                                       float weight_decay) {
    random_stream random(1000 * round + peer);
    payload_writer out({.kind = layout.kind,
                        .values = layout.values(),
                        .round = round,
                        .peer = peer,
                        .fingerprint = layout.fingerprint,
                        .k = layout.k,
                        .chunk = layout.chunk,
                        .learning_rate = 0x1.0624dep-10F,
                        .weight_decay = weight_decay},
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

template <class Optimizer>
void run_rounds(Optimizer& optimizer, sha256& sum, float weight_decay) {
    for (std::uint64_t round = 0; round < 3; ++round) {
        std::vector<std::vector<std::byte>> payloads;
        std::vector<contribution> contributions;
        for (peer_id peer = 0; peer < 1 + 2 * round; ++peer)
            payloads.push_back(made_up_payload(optimizer.layout(), round, peer, weight_decay));
        for (peer_id peer = 0; peer < payloads.size(); ++peer)
            contributions.push_back({.peer = peer, .payload = payloads[peer]});
        const step_report report = optimizer.apply({.round = round, .contributions = contributions});
        if (report.rejected != 0) std::printf("rejected ");
        const digest state = optimizer.replica_digest();
        sum.update(std::span<const std::byte>(state.bytes));
    }
}

digest digest_of_all(isa level, thread_pool* pool) {
    sha256 sum;
    struct setting {
        value_code values;
        int k;
        float weight_decay;
    };
    for (const setting& s : {setting{value_code::f32, 32, 0.1F}, setting{value_code::f32, 700, 0.0F},
                             setting{value_code::sign, 1, 0.1F}, setting{value_code::sign, 32, 0.0F}}) {
        model m;
        demo optimizer(m.parameters, {.k = s.k, .values = s.values, .level = level}, pool);
        run_rounds(optimizer, sum, s.weight_decay);
    }
    model m;
    adamw optimizer(m.parameters, {.level = level}, pool);
    run_rounds(optimizer, sum, 0.1F);
    return sum.finish();
}

}  // namespace

int main() {
    const digest first = digest_of_all(isa::scalar, nullptr);
    std::printf("%s\n", to_string(first).c_str());
    for (const isa level : {isa::scalar, isa::avx2, isa::avx512}) {
        if (level > best_isa()) continue;
        for (const int threads : {1, 3}) {
            thread_pool pool(threads);
            if (digest_of_all(level, &pool) == first) continue;
            std::printf("%s with %d threads differs\n", std::string(to_string(level)).c_str(), threads);
            return 1;
        }
    }
    return 0;
}
