// Writes the inputs from which the fuzzers start, one folder for each: fuzz_seeds FOLDER
#include <thinwire/comm/frame.hpp>
#include <thinwire/core/random.hpp>
#include <thinwire/io/run_log.hpp>
#include <thinwire/io/snapshot.hpp>
#include <thinwire/runtime/invite.hpp>

#include "../support/memory_disk.hpp"
#include "enrol_message.hpp"
#include "fuzz.hpp"

#include <filesystem>
#include <string>

namespace {

using namespace fuzz;

std::string folder;

void save(const std::string& target, const std::string& name, std::span<const std::byte> bytes, int first = -1) {
    const std::filesystem::path path = std::filesystem::path(folder) / target;
    std::filesystem::create_directories(path);
    std::FILE* file = std::fopen((path / name).c_str(), "wb");
    require(file != nullptr, "the folder can be written");
    if (first >= 0) std::fputc(first, file);
    std::fwrite(bytes.data(), 1, bytes.size(), file);
    std::fclose(file);
}

void fill(const payload_layout& layout, bool full, sparse_content& content) {
    random_stream random(3);
    content.resize(layout);
    std::size_t at = 0, chunk_number = 0;
    for (const payload_section& s : layout.sections)
        for (std::size_t chunk = 0; chunk < s.chunks; ++chunk, at += s.kept) {
            const std::uint32_t count = full ? s.kept : static_cast<std::uint32_t>(random.below(s.kept + 1));
            content.counts[chunk_number++] = count;
            for (std::uint32_t p = 0, n = 0; n < count; ++p) {
                if (random.below(s.chunk_size - p) >= count - n) continue;
                content.positions[at + n] = static_cast<std::uint16_t>(p);
                content.values[at + n++] = random.below(2) == 0 ? 1.0F : -1.0F;
            }
            layout.codec->round(std::span(content.values).subspan(at, count));
        }
}

/// `fewer`: one that states a lower k than the layout.
void save_payload(std::size_t which, bool fewer) {
    payload_layout layout = layouts()[which];
    if (fewer) {
        for (std::size_t i = 0; i < layout.sections.size(); ++i) layout.sections[i] = layout.section(i, 3);
        layout.k = 3;
    }
    sparse_content content;
    fill(layout, which % 2 == 0 || layout.codec->sends_zero(), content);
    payload_writer out({.kind = layout.kind,
                        .values = layout.values(),
                        .round = expected.round,
                        .peer = expected.peer,
                        .fingerprint = layout.fingerprint,
                        .k = layout.k,
                        .chunk = layout.chunk,
                        .learning_rate = 1e-3F,
                        .weight_decay = 0.1F,
                        .tokens = 4096},
                       layout.sections.size(), {});
    std::size_t at = 0, chunk = 0;
    for (const payload_section& s : layout.sections) {
        std::vector<std::byte> section;
        if (layout.kind == payload_kind::dense)
            section.resize(4 * s.coefficients());
        else
            coders()[which].encode(s, content.slice(s, at, chunk), section);
        out.append_section(section);
        if (at == 0 && !fewer && layout.kind == payload_kind::demo)
            save("section", std::to_string(which), section, static_cast<int>(which));
        at += s.coefficients();
        chunk += s.chunks;
    }
    out.finish();
    save("payload", std::to_string(which) + (fewer ? "_fewer" : ""), out.take(), static_cast<int>(which));
}

void save_messages() {
    const shared_bytes some = share(std::vector<std::byte>(40, std::byte{7}));
    commit_record record;
    record.round = 5;
    record.contributions = {{.peer = 1, .payload = some, .size = 40}, {.peer = 2, .payload = some, .size = 40}};
    const std::vector<message> all = {hello_message{.peer = 4, .session = 9, .name = "a", .about = "{}"},
                                      welcome_message{.name = "b", .manifest = "key = 1\n", .round = 3},
                                      refuse_message{refusal::full, "full"},
                                      reject_message{7, "late"},
                                      fetch_message{.offset = 4, .count = 100},
                                      piece_message{.offset = 4, .bytes = some},
                                      ping_message{},
                                      goodbye_message{true, "over"},
                                      offer_message{.round = 3, .author = 4, .size = 40, .bytes = some},
                                      record_message{2, true, std::make_shared<const commit_record>(record)},
                                      status_message{.term = 2, .sequencer = 4, .final = 9, .address = "a:1"},
                                      pull_message{4},
                                      campaign_message{.term = 3, .last_term = 2, .next_round = 9, .trial = true},
                                      vote_message{.term = 3, .granted = true},
                                      request_message{{control_change::kind::allow, 0, "key", ""}}};
    for (const message& m : all) {
        const std::vector<std::byte> frame = encode_frame(m);
        const std::string name(to_string(type_of(m)));
        save("message", name, std::span(frame).subspan(frame_header_size), static_cast<int>(m.index()));
        save("message", name + "_frame", frame);
    }
}

/// A whole segment, and the same frames as fuzz_log seals them.
void save_log() {
    thinwire_test::memory_disk disk;
    disk.put_folder("/log");
    auto log = run_log::open("/log", {}, {.durable = true, .files = &disk});
    require(log.has_value(), "a log can be made");
    const std::vector<std::byte> payload(20, std::byte{7}), control(3, std::byte{5});
    const logged_payload part{.peer = 4, .payload_digest = digest_of(payload), .payload = payload};
    log->append(log_record{.term = 1, .round = 0, .contributions = std::span(&part, 1)});
    log->vote({.term = 2, .peer = 9});
    log->append(log_record{.term = 2, .round = 0, .control = control});
    log->append(log_record{.term = 2, .round = 1, .contributions = std::span(&part, 1)});
    log->mark_final(1);
    const std::vector<std::byte> bytes = disk.content("/log/00000000000000000000.log");
    save("log", "whole", bytes, 3);
    save("log", "behind_header", std::span(bytes).subspan(detail::log_header_bytes), 1);
    byte_writer frames;
    const auto record = [&](std::uint8_t kind, std::uint64_t term, std::uint64_t round) {
        frames.put(kind);
        frames.put(std::uint8_t{24});
        frames.put(std::uint8_t{20});
        for (const std::uint64_t number : {term, round, std::uint64_t{4}}) frames.put(number);
        frames.put(std::span<const std::byte>(payload));
    };
    record(1, 1, 0);
    record(129, 2, 0);
    for (const std::uint8_t number : {130, 16, 0}) frames.put(number);
    for (const std::uint64_t number : {2, 9}) frames.put(number);
    record(129, 2, 1);
    for (const std::uint8_t number : {131, 8, 0}) frames.put(number);
    frames.put(std::uint64_t{1});
    save("log", "sealed", frames.bytes(), 0);
}

void save_files() {
    const std::vector<float> values = {1.0F, -2.0F, 0.5F, 4.0F, 0.0F, 3.0F};
    snapshot s;
    s.round = 12;
    s.manifest = "key = \"value\"\n";
    s.tensors = {{"a", shape{2, 2}, std::span(values).first(4)}, {"b", shape{2}, std::span(values).subspan(4)}};
    s.blobs["adamw"] = std::vector<std::byte>(9, std::byte{1});
    save("snapshot", "small", s.encode());
    s.tensors.clear();
    s.blobs.clear();
    save("snapshot", "empty", s.encode());
    const std::string header =
        R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
        R"("b":{"dtype":"I64","shape":[1,1],"data_offsets":[8,16]},)"
        R"("c":{"dtype":"BF16","shape":[],"data_offsets":[16,18]}})";
    byte_writer file;
    file.put(std::uint64_t{header.size()});
    file.put(std::as_bytes(std::span(header.data(), header.size())));
    for (int i = 0; i < 18; ++i) file.put(static_cast<std::uint8_t>(i));
    save("model_file", "three.safetensors", file.bytes());
    const std::string config =
        R"({"model_type":"llama","hidden_size":64,"intermediate_size":128,"num_hidden_layers":2,)"
        R"("num_attention_heads":4,"num_key_value_heads":2,"vocab_size":256,"rms_norm_eps":1e-5,)"
        R"("rope_theta":10000.0,"max_position_embeddings":128,"tie_word_embeddings":false})";
    save("model_file", "config.json", std::as_bytes(std::span(config.data(), config.size())));
}

void save_text(const std::string& name, const std::string& text, int first) {
    save("invite", name, std::as_bytes(std::span(text.data(), text.size())), first);
}

void save_invites() {
    runtime::invite line;
    line.addresses = {"10.0.0.7:4400", "[::1]:4400"};
    for (std::size_t i = 0; i < 32; ++i) line.key.bytes[i] = static_cast<std::byte>(i);
    const std::string text = to_string(line);
    save_text("line", text, 0);
    const auto body = detail::from_base64(std::string_view(text).substr(runtime::invite::prefix.size()));
    save("invite", "body", std::span(*body).first(body->size() - 4), 1);
    save_text("list",
              "# who may enter\ned25519 " + to_string(line.key) + " lab two\ninvite " + to_string(digest{}) +
                  " 1900000000\nused " + to_string(digest{}) + " 5\n",
              2);
    save("invite", "request", encode(runtime::enrol_request{digest{}, digest{}, "lab"}), 3);
    save("invite", "reply", encode(runtime::enrol_reply{runtime::enrol_verdict::used, "the invite was used before"}),
         3);
}

}  // namespace

int main(int count, char** words) {
    require(count == 2, "usage: fuzz_seeds FOLDER");
    folder = words[1];
    for (std::size_t i = 0; i < layouts().size(); ++i) save_payload(i, false);
    save_messages();
    save_files();
    save_log();
    save_invites();
    for (std::size_t i = 0; i + 1 < layouts().size(); ++i) save_payload(i, true);  // the last is dense
    return 0;
}
