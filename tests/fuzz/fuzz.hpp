#ifndef THINWIRE_TESTS_FUZZ_FUZZ_HPP
#define THINWIRE_TESTS_FUZZ_FUZZ_HPP

#include <thinwire/codec/payload.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <vector>

namespace fuzz {

using namespace thinwire;

/// A broken promise: the fuzzer keeps the input.
inline void require(bool holds, const char* promise) {
    if (holds) return;
    std::fprintf(stderr, "broken: %s\n", promise);
    std::abort();
}

inline constexpr value_code codes[] = {value_code::f32, value_code::sign, value_code::bf16, value_code::q4,
                                       value_code::q2};
inline constexpr payload_expectation expected = {.run = {}, .round = 7, .peer = 3};

/// Layouts that the first byte of an input chooses from: each value code with sections of many shapes.
inline const std::vector<payload_layout>& layouts() {
    static const std::vector<payload_layout> all = [] {
        const std::vector<std::vector<payload_section>> shapes = {
            {{.chunks = 3, .chunk_size = 40, .kept = 4}, {.chunks = 2, .chunk_size = 1, .kept = 1}},
            {{.chunks = 5, .chunk_size = 4096, .kept = 8}},
            {{.chunks = 2, .chunk_size = 1856, .kept = 100}, {.chunks = 1, .chunk_size = 3, .kept = 3}},
            {{.chunks = 1, .chunk_size = 65536, .kept = 90}, {.chunks = 3, .chunk_size = 64, .kept = 32}},
            {{.chunks = 2, .chunk_size = 4096, .kept = 2100}},
        };
        std::vector<payload_layout> made;
        for (const value_code code : codes)
            for (const auto& sections : shapes)
                made.push_back(
                    {.codec = &codec_of(code), .k = 8, .chunk = 64, .fingerprint = 99, .sections = sections});
        made.push_back({.kind = payload_kind::dense, .sections = {{.chunks = 5, .chunk_size = 1, .kept = 1}}});
        return made;
    }();
    return all;
}

/// Their decoders and coders, made once: working memory is part of what is tested.
inline std::vector<payload_decoder>& decoders() {
    static std::vector<payload_decoder> all = [] {
        std::vector<payload_decoder> made;
        for (const payload_layout& layout : layouts()) made.emplace_back(layout);
        return made;
    }();
    return all;
}
inline std::vector<section_coder>& coders() {
    static std::vector<section_coder> all = [] {
        std::vector<section_coder> made;
        for (const payload_layout& layout : layouts()) made.emplace_back(layout);
        return made;
    }();
    return all;
}

/// Places rise and lie within the chunk, and writing the section again gives its bytes.
inline void check_section(section_coder& coder, const payload_section& section, const section_slice& found,
                          std::span<const std::byte> bytes) {
    for (std::size_t chunk = 0; chunk < found.counts.size(); ++chunk) {
        require(found.counts[chunk] <= section.kept, "no more coefficients than kept");
        for (std::size_t i = 0; i < found.counts[chunk]; ++i) {
            const std::size_t at = chunk * found.stride + i;
            require(found.positions[at] < section.chunk_size, "positions within the chunk");
            require(i == 0 || found.positions[at - 1] < found.positions[at], "positions rise");
        }
    }
    static std::vector<std::byte> again;
    again.clear();
    coder.encode(section, found, again);
    require(again.size() == bytes.size() && std::equal(again.begin(), again.end(), bytes.begin()),
            "only what the encoder writes is accepted");
}

}  // namespace fuzz

#endif  // THINWIRE_TESTS_FUZZ_FUZZ_HPP
