#include "directory.hpp"

#include <thinwire/io/file.hpp>

#include "exit_code.hpp"
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <span>

namespace thinwire::launcher {

bool free_name(std::string_view name) {
    if (name.empty() || name == "." || name == ".." || name.find_first_of(std::string_view("/\0", 2)) != name.npos)
        return false;
    const directory here;
    for (const std::filesystem::path& taken :
         {here.snapshot(), here.private_state(), here.run_log(), here.key(), here.access(), here.address(),
          here.status_address(), here.dashboard_address(), here.metrics(), here.report(), here.settings(),
          here.output(), here.control(), here.lock(), here.weights(), here.model(), here.peers(), here.solo()}) {
        const std::string one = taken.string();
        for (const char* ending : {"", ".tmp", ".lock", ".differs"})
            if (name == one + ending) return false;
    }
    return true;
}

void make_directory(const std::filesystem::path& path) {
    std::error_code failed;
    std::filesystem::create_directories(path, failed);
    if (failed || !std::filesystem::is_directory(path))
        throw launcher_error(exit_code::storage, "cannot create the folder '" + path.string() +
                                                     "': " + (failed ? failed.message() : "it is a file"));
}

directory_lock::directory_lock(const directory& where) {
    make_directory(where.root);
    const std::string name = where.lock().string();
    file_ = ::open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (file_ < 0) throw launcher_error(exit_code::storage, "cannot open '" + name + "': " + std::strerror(errno));
    if (::flock(file_, LOCK_EX | LOCK_NB) != 0) {
        (void)::close(file_);
        throw launcher_error(exit_code::usage,
                             "the folder '" + where.root.string() +
                                 "' is used by another thinwire process: expected a folder of its own");
    }
}

directory_lock::~directory_lock() {
    (void)::close(file_);
}

void write_text(const std::filesystem::path& path, const std::string& content) {
    write_file_atomically(path, std::as_bytes(std::span(content.data(), content.size())), true);
}

std::string read_text(const std::filesystem::path& path) {
    std::ifstream in(path, std::ios::binary);
    if (!in) return {};
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

runtime::identity own_identity(const directory& where) {
    const std::filesystem::path owner = where.run_log() / "owner";
    if (!std::filesystem::exists(where.key()) && std::filesystem::exists(owner))
        throw launcher_error(exit_code::storage, "'" + where.key().string() + "' is missing, and '" + owner.string() +
                                                     "' says that a peer was here: expected the key that it had, or "
                                                     "another folder");
    return runtime::identity::load_or_create(where.key());
}

}  // namespace thinwire::launcher
