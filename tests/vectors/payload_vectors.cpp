// Writes payloads of every value code and of many shapes of supports, each with what a reader must find in it, as
// docs/payload-format.md describes: the test vectors of the format, and with another seed fresh ones.
//
//     payload_vectors FOLDER [SEED]

#include <thinwire/codec/payload.hpp>
#include <thinwire/core/random.hpp>

#include <bit>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

using namespace thinwire;

namespace {

/// Where the chosen places are: the first two make the coder leave the window of likely counts.
enum class place { front, back, anywhere };

struct vector_writer {
    std::string folder;
    random_stream random;

    void save(const std::string& name, const void* data, std::size_t size) const {
        std::FILE* file = std::fopen((folder + "/" + name).c_str(), "wb");
        if (file == nullptr || std::fwrite(data, 1, size, file) != size || std::fclose(file) != 0) {
            std::fprintf(stderr, "payload_vectors: cannot write %s/%s\n", folder.c_str(), name.c_str());
            std::exit(1);
        }
    }
    /// For q4 and q2 levels, so that nothing is rounded and every machine writes the same.
    [[nodiscard]] float number(value_code code) {
        constexpr std::uint8_t q4[] = {16, 19, 23, 28, 33, 40, 48, 57}, q2[] = {5, 7};
        if (code == value_code::q4) return q4[random.below(8)];
        if (code == value_code::q2) return q2[random.below(2)];
        return 1.0F + random.uniform();
    }
    void fill(const payload_layout& layout, bool full, place where, bool tiny, sparse_content& content) {
        content.resize(layout);
        std::size_t at = 0, chunk_number = 0;
        for (const payload_section& s : layout.sections)
            for (std::uint64_t chunk = 0; chunk < s.chunks; ++chunk, at += s.kept) {
                const auto count = full ? s.kept : static_cast<std::uint32_t>(random.below(s.kept + 1));
                content.counts[chunk_number++] = count;
                const float scale =
                    tiny ? 0x1p-130F
                         : static_cast<float>(16 + random.below(16)) * (random.below(2) == 0 ? 0x1p-9F : 0x1p3F);
                for (std::uint32_t p = 0, n = 0; n < count; ++p) {
                    const bool taken = where == place::anywhere ? random.below(s.chunk_size - p) < count - n
                                       : where == place::front  ? true
                                                                : s.chunk_size - p == count - n;
                    if (!taken) continue;
                    content.positions[at + n] = static_cast<std::uint16_t>(p);
                    content.values[at + n++] = (random.below(2) == 0 ? 1.0F : -1.0F) * number(layout.values()) * scale;
                }
                layout.codec->round(std::span(content.values).subspan(at, count));
            }
    }
    [[nodiscard]] static digest contents_of(const payload_layout& layout, const sparse_content& content) {
        byte_writer out;
        std::size_t at = 0, chunk_number = 0;
        for (const payload_section& s : layout.sections)
            for (std::uint64_t chunk = 0; chunk < s.chunks; ++chunk, at += s.kept) {
                const std::uint32_t count = content.counts[chunk_number++];
                out.put(count);
                for (std::uint32_t i = 0; i < count; ++i) out.put(content.positions[at + i]);
                for (std::uint32_t i = 0; i < count; ++i) out.put(std::bit_cast<std::uint32_t>(content.values[at + i]));
            }
        return sha256().update(out.bytes()).finish();
    }
    void describe(const std::string& name, const payload_layout& layout, const payload_info& info,
                  const digest& contents) const {
        std::string text = "{\n  ";
        if (info.k != layout.k) text += "\"k\": " + std::to_string(layout.k) + ",\n  ";
        text += "\"sections\": [";
        for (std::size_t i = 0; i < layout.sections.size(); ++i) {
            const payload_section& s = layout.sections[i];
            text += std::string(i == 0 ? "" : ", ") + "[\"" + std::to_string(i) + "\", " + std::to_string(s.chunks) +
                    ", " + std::to_string(s.chunk_size) + ", " + std::to_string(s.kept) + "]";
        }
        text += "],\n  \"header\": {\"kind\": " + std::to_string(static_cast<int>(info.kind)) + ", \"values\": \"" +
                std::string(to_string(info.values)) + "\", \"run\": \"" + to_string(info.run) +
                "\", \"round\": " + std::to_string(info.round) + ", \"peer\": " + std::to_string(info.peer) +
                ", \"fingerprint\": " + std::to_string(info.fingerprint) + ", \"k\": " + std::to_string(info.k) +
                ", \"chunk\": " + std::to_string(info.chunk) +
                ",\n    \"learning_rate\": " + std::to_string(std::bit_cast<std::uint32_t>(info.learning_rate)) +
                ", \"weight_decay\": " + std::to_string(std::bit_cast<std::uint32_t>(info.weight_decay)) +
                ", \"tokens\": " + std::to_string(info.tokens) + "},\n  \"contents\": \"" + to_string(contents) +
                "\"\n}\n";
        save(name + ".json", text.data(), text.size());
    }
    [[nodiscard]] static payload_info info_of(const payload_layout& layout) {
        payload_info info = {.kind = layout.kind,
                             .values = layout.values(),
                             .round = 7,
                             .peer = 3,
                             .fingerprint = layout.fingerprint,
                             .k = layout.k,
                             .chunk = layout.chunk,
                             .learning_rate = 1e-3F,
                             .weight_decay = 0.1F,
                             .tokens = 70000};
        for (std::size_t i = 0; i < 32; ++i) {
            info.run.bytes[i] = static_cast<std::byte>(i);
            info.replica.bytes[i] = static_cast<std::byte>(255 - i);
        }
        return info;
    }
    void demo(const std::string& name, value_code code, const std::vector<payload_section>& sections, bool full,
              place where = place::anywhere, std::uint32_t stated = 8, bool tiny = false) {
        const payload_layout layout = {
            .codec = &codec_of(code), .k = 8, .chunk = 64, .fingerprint = 0x1234567890abcdefU, .sections = sections};
        payload_layout sent = layout;
        sent.k = stated;
        for (std::size_t i = 0; i < sections.size(); ++i) sent.sections[i] = layout.section(i, stated);
        sparse_content content;
        fill(sent, full, where, tiny, content);
        const payload_info info = info_of(sent);
        payload_writer out(info, sections.size(), {}, room_of_payload(layout));
        section_coder coder(layout);
        std::size_t at = 0, chunk = 0;
        for (const payload_section& s : sent.sections) {
            coder.encode(s, content.slice(s, at, chunk), out.begin_section());
            out.end_section();
            at += s.coefficients();
            chunk += s.chunks;
        }
        out.finish();
        const std::vector<std::byte> bytes = out.take();
        save(name + ".payload", bytes.data(), bytes.size());
        describe(name, layout, info, contents_of(sent, content));
    }
    void dense(const std::string& name) {
        const payload_layout layout = {
            .kind = payload_kind::dense,
            .fingerprint = 5,
            .sections = {{.chunks = 7, .chunk_size = 1, .kept = 1}, {.chunks = 3, .chunk_size = 1, .kept = 1}}};
        const payload_info info = info_of(layout);
        payload_writer out(info, 2, {});
        byte_writer all;
        for (const payload_section& s : layout.sections) {
            byte_writer section;
            for (std::uint64_t i = 0; i < s.chunks; ++i) {
                const auto bits = std::bit_cast<std::uint32_t>(random.uniform() - 0.5F);
                section.put(bits);
                all.put(bits);
            }
            out.append_section(section.bytes());
        }
        out.finish();
        const std::vector<std::byte> bytes = out.take();
        save(name + ".payload", bytes.data(), bytes.size());
        describe(name, layout, info, sha256().update(all.bytes()).finish());
    }
};

}  // namespace

int main(int count, char** words) {
    if (count < 2) {
        std::fprintf(stderr, "payload_vectors FOLDER [SEED]\n");
        return 2;
    }
    vector_writer write{words[1], random_stream(count > 2 ? std::strtoull(words[2], nullptr, 10) : 1)};
    const auto section = [](std::uint64_t chunks, std::uint32_t size, std::uint32_t kept) {
        return payload_section{.chunks = chunks, .chunk_size = size, .kept = kept};
    };
    const std::vector<payload_section> small = {section(3, 40, 4), section(1, 3, 3), section(2, 1, 1),
                                                section(5, 4096, 8)};
    for (const value_code code :
         {value_code::f32, value_code::sign, value_code::bf16, value_code::q4, value_code::q2}) {
        const std::string name(to_string(code));
        write.demo(name, code, small, true);
        if (!codec_of(code).sends_zero()) write.demo(name + "_counts", code, small, false);
    }
    write.demo("one_chunk", value_code::sign, {section(1, 4096, 4)}, true);
    write.demo(
        "shapes", value_code::sign,
        {section(4, 64, 32), section(3, 1856, 32), section(2, 2520, 70), section(1, 127, 127), section(2, 65536, 100),
         section(1, 65535, 3), section(9, 8, 5), section(6, 16, 2), section(4, 4095, 64)},
        true);
    write.demo("four_states", value_code::sign, {section(140, 4096, 32)}, true);
    write.demo("batches", value_code::q2, {section(1300, 64, 4), section(9, 4096, 1000)}, false);
    write.demo("front", value_code::sign, {section(4, 4096, 64), section(2, 65536, 300), section(3, 1000, 90)}, true,
               place::front);
    write.demo("back", value_code::sign, {section(4, 4096, 64), section(2, 65536, 300), section(3, 1000, 90)}, true,
               place::back);
    write.dense("dense");
    write.demo("fewer", value_code::f32, small, true, place::anywhere, 3);
    write.demo("fewer_counts", value_code::q4, {section(1300, 64, 40), section(9, 4096, 8), section(2, 5, 5)}, false,
               place::anywhere, 2);
    // Values at or below the smallest scale that can be stated.
    for (const value_code code : {value_code::q4, value_code::q2})
        write.demo(std::string(to_string(code)) + "_tiny", code, small, true, place::anywhere, 8, true);
    return 0;
}
