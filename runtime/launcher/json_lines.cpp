#include "json_lines.hpp"

#include <thinwire/core/error.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

namespace thinwire::launcher {

json_lines_writer::json_lines_writer(const std::filesystem::path& file) : name_(file.string()) {
    bool cut = false;
    if (std::ifstream in(file, std::ios::binary | std::ios::ate); in && in.tellg() > 0) {
        in.seekg(-1, std::ios::end);
        cut = in.get() != '\n';
    }
    file_ = ::open(name_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (file_ < 0) throw io_error("open '" + name_ + "': " + strerror(errno) + ", expected a file to append to");
    if (cut && ::write(file_, "\n", 1) != 1) throw io_error("write '" + name_ + "': " + strerror(errno));
}

json_lines_writer::~json_lines_writer() {
    if (file_ >= 0) (void)::close(file_);
}

void json_lines_writer::write(const nlohmann::json& object) {
    const std::string line = object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
    std::string_view rest = line;
    while (!rest.empty()) {
        const ssize_t written = ::write(file_, rest.data(), rest.size());
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) throw io_error("write '" + name_ + "': " + strerror(errno));
        rest.remove_prefix(static_cast<std::size_t>(written));
    }
}

std::vector<nlohmann::json> json_lines_follower::poll(std::size_t bytes) {
    std::vector<nlohmann::json> objects;
    at_end_ = true;
    std::ifstream in(file_, std::ios::binary);
    if (!in || !in.seekg(static_cast<std::streamoff>(at_))) return objects;
    std::vector<char> block(std::min(bytes, std::size_t{1} << 20U));
    for (std::size_t taken = 0; taken < bytes;) {
        in.read(block.data(), static_cast<std::streamsize>(block.size()));
        const auto got = static_cast<std::size_t>(in.gcount());
        if (got == 0) return objects;
        at_ += got;
        taken += got;
        partial_.append(block.data(), got);
        take_lines(objects);
        if (partial_.size() > longest_line) {  // what follows up to its end is damaged as well
            partial_.clear();
            partial_.shrink_to_fit();
        }
    }
    at_end_ = false;
    return objects;
}

void json_lines_follower::take_lines(std::vector<nlohmann::json>& objects) {
    std::size_t begin = 0;
    for (std::size_t end; (end = partial_.find('\n', begin)) != std::string::npos; begin = end + 1) {
        auto object = nlohmann::json::parse(partial_.begin() + static_cast<std::ptrdiff_t>(begin),
                                            partial_.begin() + static_cast<std::ptrdiff_t>(end), nullptr, false);
        if (object.is_object()) objects.push_back(std::move(object));
    }
    partial_.erase(0, begin);
}

}  // namespace thinwire::launcher
