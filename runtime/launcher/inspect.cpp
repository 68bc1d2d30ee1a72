#include <thinwire/codec/payload.hpp>
#include <thinwire/hf/safetensors.hpp>
#include <thinwire/io/file.hpp>
#include <thinwire/io/run_log.hpp>
#include <thinwire/io/snapshot.hpp>

#include "commands.hpp"
#include <spdlog/fmt/fmt.h>

#include <cstdio>
#include <span>
#include <string>
#include <string_view>

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
        "{0}rates     learning rate {8}, weight decay {9}\n{0}bytes     {10}\n{0}replica   {11}\n",
        indent, info.peer, info.round, info.kind == payload_kind::demo ? "demo" : "dense", info.sections, info.k,
        info.chunk, to_string(info.values), info.learning_rate, info.weight_decay, info.bytes, to_string(info.replica));
}

void show_payload(const std::filesystem::path& file, bytes_view bytes) {
    const result<payload_info> info = inspect_payload(bytes);
    if (!info) refuse(file, info.error().message);
    fmt::print("kind      thinwire payload\nrun       {}\n", to_string(info->run));
    show_payload_info(*info, "");
}

/// Reads the log without opening it as its owner would, who cuts a torn tail.
void show_log(const std::filesystem::path& file, bytes_view bytes) {
    byte_reader in(bytes);
    (void)in.get<std::uint32_t>();
    const auto version = in.get<std::uint32_t>();
    digest run;
    const bytes_view raw = in.get_bytes(run.bytes.size());
    std::copy(raw.begin(), raw.end(), run.bytes.begin());
    const auto first = in.get<std::uint64_t>();
    (void)in.get<std::uint64_t>();
    if (in.failed()) refuse(file, "log: truncated in its header");
    std::uint64_t rounds = 0;
    std::uint64_t payload_bytes = 0;
    std::uint64_t contributions = 0;
    std::vector<contribution> parts;
    bool torn = false;
    while (in.remaining() > 0 && !torn) {
        const auto header =
            detail::decode_log_frame_header(in.get_bytes(std::min(in.remaining(), detail::log_frame_bytes)));
        const bytes_view body = header.holds ? in.get_bytes(header.length) : bytes_view{};
        std::uint64_t round = 0;
        torn = !header.holds || in.failed() || detail::log_check(body) != header.body_check ||
               !detail::decode_log_body(body, round, parts) || round != first + rounds;
        if (torn) break;
        ++rounds;
        contributions += parts.size();
        for (const contribution& part : parts) payload_bytes += part.payload.size();
    }
    fmt::print(
        "kind      thinwire run log, format {}, {} bytes\nrun       {}\nrounds    {} from {} on\n"
        "payloads  {} with {} bytes\n",
        version, bytes.size(), to_string(run), rounds, first, contributions, payload_bytes);
    if (rounds > 0) {
        fmt::print("last round\n");
        for (const contribution& part : parts)
            if (const auto info = inspect_payload(part.payload)) show_payload_info(*info, "  ");
    }
    if (torn) refuse(file, "log: unfinished or damaged after round " + std::to_string(first + rounds));
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
    if (std::filesystem::is_directory(file)) refuse(file, "this is a folder: expected a file");
    std::vector<std::byte> bytes = read_file(file);
    if (bytes.empty()) refuse(file, "the file is empty");
    if (begins_with(bytes, "TWSN"))
        show_snapshot(file, bytes);
    else if (begins_with(bytes, "TWPL"))
        show_payload(file, bytes);
    else if (begins_with(bytes, "TWLG"))
        show_log(file, bytes);
    else if (begins_with(bytes, "TWPSTAT1"))
        fmt::print("kind      private state of a peer, {} bytes\n", bytes.size());
    else
        show_safetensors(file, std::move(bytes));
    std::fflush(stdout);
    return exit_code::ok;
}

}  // namespace thinwire::launcher
