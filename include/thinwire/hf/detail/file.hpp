#ifndef THINWIRE_HF_DETAIL_FILE_HPP
#define THINWIRE_HF_DETAIL_FILE_HPP

#include <thinwire/core/error.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <system_error>
#include <vector>

namespace thinwire::hf::detail {

/// Whether a path names a folder; what cannot be asked about is none, and reading it will say why.
[[nodiscard]] inline bool is_folder(const std::filesystem::path& path) noexcept {
    std::error_code ignored;
    return std::filesystem::is_directory(path, ignored);
}

/// The whole content of a file. Throws io_error when it cannot be read.
[[nodiscard]] inline std::vector<std::byte> read_whole(const std::filesystem::path& path) {
    const auto complain = [&](const std::string& why) { throw io_error("read '" + path.string() + "': " + why); };
    std::error_code code;
    const std::uintmax_t size = std::filesystem::file_size(path, code);
    if (code) complain(code.message());
    std::ifstream in(path, std::ios::binary);
    if (!in) complain("cannot be opened");
    std::vector<std::byte> bytes(static_cast<std::size_t>(size));
    in.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    if (static_cast<std::uintmax_t>(in.gcount()) != size) complain("the file ended early");
    return bytes;
}

/// Writes pieces one after the other to a temporary name beside `path` and renames it, so that a reader sees the old
/// file or the whole new one. Throws io_error, and leaves no temporary file, when that fails.
inline void replace_file(const std::filesystem::path& path, std::span<const std::span<const std::byte>> pieces) {
    const std::filesystem::path temporary = path.string() + ".part";
    const auto complain = [&](const std::string& why) {
        std::error_code ignored;
        std::filesystem::remove(temporary, ignored);
        throw io_error("write '" + path.string() + "': " + why);
    };
    {
        std::ofstream out(temporary, std::ios::binary | std::ios::trunc);
        if (!out) complain("cannot be created");
        for (const std::span<const std::byte> piece : pieces)
            out.write(reinterpret_cast<const char*>(piece.data()), static_cast<std::streamsize>(piece.size()));
        out.flush();
        if (!out) complain("not everything could be written");
    }
    std::error_code code;
    std::filesystem::rename(temporary, path, code);
    if (code) complain(code.message());
}

}  // namespace thinwire::hf::detail

#endif  // THINWIRE_HF_DETAIL_FILE_HPP
