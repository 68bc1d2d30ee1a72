#include <thinwire/codec/payload.hpp>
#include <thinwire/hf/safetensors.hpp>
#include <thinwire/io/file.hpp>
#include <thinwire/io/run_log.hpp>
#include <thinwire/io/snapshot.hpp>

#include "commands.hpp"
#include "directory.hpp"
#include <spdlog/fmt/fmt.h>

#include <cstdio>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace thinwire::launcher {
namespace {

using bytes_view = std::span<const std::byte>;

bool begins_with(bytes_view bytes, std::string_view magic) {
    if (bytes.size() < magic.size()) return false;
    return std::string_view(reinterpret_cast<const char*>(bytes.data()), magic.size()) == magic;
}

[[noreturn]] void refuse(const std::filesystem::path& file, const std::string& why) {
    throw launcher_error(exit_code::storage, "inspect '" + file.string() + "': " + why);
}

void show_snapshot(const std::filesystem::path& file, bytes_view bytes) {
    const result<snapshot> found = snapshot::decode(bytes);
    if (!found) refuse(file, found.error().message);
    std::size_t weights = 0;
    for (const named_tensor& tensor : found->tensors) weights += tensor.values.size();
    fmt::print("kind      thinwire snapshot, {} bytes\nrun       {}\nround     {}\ntensors   {} with {} weights\n",
               bytes.size(), to_string(found->run), found->round, found->tensors.size(), weights);
    for (const auto& [name, blob] : found->blobs) fmt::print("blob      {}: {} bytes\n", printable(name), blob.size());
    for (const named_tensor& tensor : found->tensors)
        fmt::print("tensor    {} {}\n", printable(tensor.name), to_string(tensor.shape));
    fmt::print("manifest\n{}", printable(found->manifest, true));
}

void show_payload_info(const payload_info& info, std::string_view indent) {
    fmt::print(
        "{0}peer      {1}\n{0}round     {2}\n{0}content   {3}, {4} sections, k {5}, chunk {6}, values {7}\n"
        "{0}rates     learning rate {8}, weight decay {9}\n{0}tokens    {10}\n{0}bytes     {11}\n{0}replica   {12}\n",
        indent, info.peer, info.round, info.kind == payload_kind::demo ? "demo" : "dense", info.sections, info.k,
        info.chunk, to_string(info.values), info.learning_rate, info.weight_decay, info.tokens, info.bytes,
        to_string(info.replica));
}

void show_payload(const std::filesystem::path& file, bytes_view bytes) {
    const result<payload_info> info = inspect_payload(bytes);
    if (!info) refuse(file, info.error().message);
    fmt::print("kind      thinwire payload\nrun       {}\n", to_string(info->run));
    show_payload_info(*info, "");
}

/// Proves every round and changes nothing: an unfinished end is its owner's to cut.
void show_log(const std::filesystem::path& folder) {
    const result<run_log> log = run_log::open_read_only(folder);
    if (!log) refuse(folder, log.error().message);
    std::uint64_t payload_bytes = 0;
    std::uint64_t contributions = 0;
    std::vector<payload_info> last;
    const result<ok> read = log->read_records(log->first_round(), log->next_round(), [&](const log_record& record) {
        if (!record.contributions.empty()) last.clear();
        contributions += record.contributions.size();
        for (const logged_payload& part : record.contributions) {
            payload_bytes += part.payload.size();
            if (const auto info = inspect_payload(part.payload); info) last.push_back(*info);
        }
    });
    if (!read) refuse(folder, read.error().message);
    fmt::print(
        "kind      thinwire run log, format {}, {} bytes\nrun       {}\nrounds    {} from {} on\n"
        "payloads  {} with {} bytes\n",
        detail::log_version, log->bytes(), to_string(log->run()), log->next_round() - log->first_round(),
        log->first_round(), contributions, payload_bytes);
    if (!last.empty()) fmt::print("last round with payloads\n");
    for (const payload_info& info : last) show_payload_info(info, "  ");
    if (log->cut_bytes() != 0)
        fmt::print("unfinished {} bytes of round {}, which the peer writes, or cuts when it starts\n", log->cut_bytes(),
                   log->next_round());
}

void show_safetensors(const std::filesystem::path& file, std::vector<std::byte> bytes) {
    const std::size_t size = bytes.size();
    const auto found = hf::safetensors_file::parse(std::move(bytes));
    if (!found)
        refuse(file, "neither a thinwire snapshot, payload, run log or private state nor safetensors (" +
                         found.error().message + ")");
    fmt::print("kind      safetensors, {} bytes\n", size);
    for (const auto& [key, value] : found->metadata())
        fmt::print("metadata  {}: {}\n", printable(key), printable(value));
    for (const auto& [name, tensor] : found->tensors()) {
        std::string sides;
        for (const std::int64_t side : tensor.sides) sides += (sides.empty() ? "" : ", ") + std::to_string(side);
        fmt::print("tensor    {} {} [{}]\n", printable(name), tensor.dtype, sides);
    }
}

}  // namespace

exit_code inspect(const std::filesystem::path& file) {
    if (std::filesystem::is_directory(file)) {
        const std::filesystem::path of_peer = directory{file}.run_log();
        show_log(std::filesystem::is_directory(of_peer) ? of_peer : file);
        std::fflush(stdout);
        return exit_code::ok;
    }
    std::vector<std::byte> bytes = read_file(file);
    if (bytes.empty()) refuse(file, "the file is empty");
    if (begins_with(bytes, "TWSN"))
        show_snapshot(file, bytes);
    else if (begins_with(bytes, "TWPL"))
        show_payload(file, bytes);
    else if (begins_with(bytes, "TWLG"))
        refuse(file, "a segment of a run log: expected the folder in which it lies");
    else if (begins_with(bytes, "TWPSTAT1"))
        fmt::print("kind      private state of a peer, {} bytes\n", bytes.size());
    else
        show_safetensors(file, std::move(bytes));
    std::fflush(stdout);
    return exit_code::ok;
}

}  // namespace thinwire::launcher
