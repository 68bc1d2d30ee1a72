// Bits a position beside log2 C(n, k) / k and million coefficients a second of the support coder and of the value
// codes, beside a copy and plain 12-bit packing.
//
//     benchmark_codec [--json FILE]

#include <thinwire/codec/section_coder.hpp>
#include <thinwire/core/random.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <vector>

using namespace thinwire;

namespace {

constexpr int repeats = 15;

/// By the processor's time, which other programs disturb less than the clock's; short work is done again and again.
template <class Work>
double best_seconds(const Work& work) {
    double best = 1e9;
    for (int i = 0; i < repeats; ++i) {
        const std::clock_t start = std::clock();
        std::clock_t used = 0;
        int done = 0;
        for (; used < CLOCKS_PER_SEC / 1000; used = std::clock() - start) {
            work();
            ++done;
        }
        best = std::min(best, static_cast<double>(used) / CLOCKS_PER_SEC / done);
    }
    return best;
}

/// What is fast and wrong is not to be measured.
void require(bool good) {
    if (good) return;
    std::fprintf(stderr, "benchmark_codec: what was decoded is not what was encoded\n");
    std::exit(1);
}

struct row {
    std::string name;
    double bits, bound, encode, decode;
};

double bound_of(double n, double k) {
    return (std::lgamma(n + 1) - std::lgamma(k + 1) - std::lgamma(n - k + 1)) / std::log(2.0) / k;
}

sparse_content random_content(const payload_layout& layout) {
    random_stream random(1);
    sparse_content content;
    content.resize(layout);
    const payload_section& s = layout.sections[0];
    std::fill(content.counts.begin(), content.counts.end(), s.kept);
    std::vector<std::uint8_t> taken(s.chunk_size);
    for (std::size_t chunk = 0; chunk < s.chunks; ++chunk) {
        std::fill(taken.begin(), taken.end(), std::uint8_t{0});
        for (std::uint32_t n = 0; n < s.kept;)
            if (auto& place = taken[random.below(s.chunk_size)]; place == 0) {
                place = 1;
                ++n;
            }
        std::size_t at = chunk * s.kept;
        for (std::uint32_t p = 0; p < s.chunk_size; ++p)
            if (taken[p] != 0) content.positions[at++] = static_cast<std::uint16_t>(p);
        const auto values = std::span(content.values).subspan(chunk * s.kept, s.kept);
        for (float& value : values) value = (random.below(2) == 0 ? 1.0F : -1.0F) * (2.0F + std::abs(random.normal()));
        layout.codec->round(values);
    }
    return content;
}

row measure(std::uint32_t n, std::uint32_t k, std::uint64_t chunks, value_code code) {
    const payload_layout layout = {
        .codec = &codec_of(code), .k = k, .sections = {{.chunks = chunks, .chunk_size = n, .kept = k}}};
    sparse_content content = random_content(layout), found;
    found.resize(layout);
    section_coder coder(layout);
    std::vector<std::byte> bytes;
    const payload_section& section = layout.sections[0];
    const double encode = best_seconds([&] {
        bytes.clear();
        coder.encode(section, content.slice(section, 0, 0), bytes);
    });
    bool good = true;
    const double decode =
        best_seconds([&] { good = good && !coder.decode(bytes, section, found.slice(section, 0, 0)); });
    require(good && found.positions == content.positions && found.values == content.values);
    const double coefficients = static_cast<double>(section.coefficients());
    const double value_bits = static_cast<double>(layout.codec->bits(k)) / k;
    return {"n " + std::to_string(n) + " k " + std::to_string(k) + " " + std::string(to_string(code)),
            8.0 * static_cast<double>(bytes.size()) / coefficients - value_bits, bound_of(n, k),
            coefficients / encode / 1e6, coefficients / decode / 1e6};
}

/// The positions alone.
row measure_supports(std::uint32_t n, std::uint32_t k, std::uint64_t chunks) {
    const payload_layout layout = {
        .codec = &codec_of(value_code::sign), .k = k, .sections = {{.chunks = chunks, .chunk_size = n, .kept = k}}};
    sparse_content content = random_content(layout);
    const section_slice places = content.slice(layout.sections[0], 0, 0);
    const detail::split_tables tables(layout);
    const detail::support_needs needs(layout);
    detail::support_encoder encoder(tables, needs);
    detail::support_decoder decoder(tables, needs);
    std::vector<std::uint16_t> found(content.positions.size());
    std::vector<std::byte> bytes;
    const double encode = best_seconds([&] {
        bytes.clear();
        encoder.encode(layout.sections[0], places, bytes);
    });
    const double decode = best_seconds([&] {
        std::span<const std::byte> rest = bytes;
        require(!decoder.decode(rest, layout.sections[0], content.counts, found));
    });
    require(found == content.positions);
    const auto coefficients = static_cast<double>(layout.coefficients());
    return {"n " + std::to_string(n) + " k " + std::to_string(k) + " positions",
            8.0 * static_cast<double>(bytes.size()) / coefficients, bound_of(n, k), coefficients / encode / 1e6,
            coefficients / decode / 1e6};
}

void show(const row& r) {
    std::printf("%-24s %8.3f %8.3f %8.4f %9.0f %9.0f\n", r.name.c_str(), r.bits, r.bound, r.bits / r.bound, r.encode,
                r.decode);
}

}  // namespace

int main(int count, char** arguments) {
    std::printf("one thread, random supports\n%-24s %8s %8s %8s %9s %9s\n", "", "bits", "bound", "ratio", "enc M/s",
                "dec M/s");
    std::vector<row> rows;
    for (const std::uint32_t k : {2U, 8U, 32U, 64U}) {
        rows.push_back(measure_supports(4096, k, (1U << 17U) / k));
        show(rows.back());
    }
    for (const auto& [n, k, chunks] :
         {std::array{4096U, 2U, 4096U}, std::array{4096U, 8U, 4096U}, std::array{4096U, 32U, 4096U},
          std::array{4096U, 64U, 4096U}, std::array{4096U, 256U, 1024U}, std::array{4096U, 1024U, 256U},
          std::array{3072U, 32U, 4096U}, std::array{1856U, 32U, 4096U}, std::array{64U, 32U, 64U},
          std::array{65536U, 512U, 256U}, std::array{65536U, 4096U, 32U}}) {
        rows.push_back(measure(n, k, chunks, value_code::sign));
        show(rows.back());
    }
    for (const value_code code : {value_code::f32, value_code::bf16, value_code::q4, value_code::q2}) {
        rows.push_back(measure(4096, 32, 4096, code));
        show(rows.back());
    }
    constexpr std::size_t places = 4096 * 32;
    std::vector<std::uint16_t> from(places, 7), to(places);
    std::vector<std::byte> packed(2 * places + 8);
    const double copy = best_seconds([&] { std::memcpy(to.data(), from.data(), 2 * places); });
    const double pack = best_seconds([&] {
        bit_writer out(packed);
        for (const std::uint16_t p : from) out.put(p, 12);
    });
    std::printf("%-24s %44.0f\n%-24s %44.0f\n", "copy of positions", places / copy / 1e6, "12-bit packing",
                places / pack / 1e6);
    if (count == 3 && std::string(arguments[1]) == "--json") {
        std::FILE* file = std::fopen(arguments[2], "w");
        if (file == nullptr) return 1;
        std::fprintf(file, "[\n");
        for (const row& r : rows)
            std::fprintf(file,
                         "  {\"name\": \"%s\", \"bits\": %.4f, \"bound\": %.4f, \"encode_millions_per_second\": %.1f, "
                         "\"decode_millions_per_second\": %.1f},\n",
                         r.name.c_str(), r.bits, r.bound, r.encode, r.decode);
        std::fprintf(file,
                     "  {\"name\": \"copy of positions\", \"bits\": 16, \"encode_millions_per_second\": %.1f},\n"
                     "  {\"name\": \"12-bit packing\", \"bits\": 12, \"encode_millions_per_second\": %.1f}\n]\n",
                     places / copy / 1e6, places / pack / 1e6);
        if (std::fclose(file) != 0) return 1;
    }
    return 0;
}
