#include "control_socket.hpp"

#include <thinwire/core/error.hpp>

#include "descriptor.hpp"
#include "exit_code.hpp"
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <exception>
#include <optional>
#include <string>
#include <utility>

namespace thinwire::launcher {
namespace {

constexpr std::size_t longest_line = 4096;
constexpr std::size_t longest_answer = std::size_t{1} << 20U;
constexpr timeval patience{2, 0};

io_error failed(const directory& where, const char* what) {
    return io_error(std::string(what) + " '" + where.control().string() + "': " + std::strerror(errno));
}

/// A socket's name holds 107 bytes, a folder's any number: it goes by way of the open folder.
class short_name {
 public:
    explicit short_name(const directory& where) : folder_(::open(where.root.c_str(), O_PATH | O_CLOEXEC)) {
        const std::string path = "/proc/self/fd/" + std::to_string(folder_.get()) + "/control";
        name_.sun_family = AF_UNIX;
        std::copy(path.begin(), path.end(), std::begin(name_.sun_path));
    }
    [[nodiscard]] bool valid() const noexcept { return folder_.get() >= 0; }
    [[nodiscard]] const sockaddr* get() const noexcept { return reinterpret_cast<const sockaddr*>(&name_); }

 private:
    descriptor folder_;
    sockaddr_un name_{};
};

void limit_time(int fd) {
    ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
}

/// The bytes before the first line end; none when it does not come in time or within `longest`.
std::optional<std::string> read_line(int fd, std::size_t longest) {
    std::string line;
    std::array<char, 4096> bytes{};
    const auto end_of_patience = std::chrono::steady_clock::now() + std::chrono::seconds(patience.tv_sec);
    while (line.size() <= longest && std::chrono::steady_clock::now() < end_of_patience) {
        const ssize_t count = ::recv(fd, bytes.data(), bytes.size(), 0);
        if (count <= 0) return std::nullopt;
        line.append(bytes.data(), static_cast<std::size_t>(count));
        if (const std::size_t end = line.find('\n'); end != std::string::npos) return line.substr(0, end);
    }
    return std::nullopt;
}

bool write_all(int fd, std::string_view text) {
    while (!text.empty()) {
        const ssize_t count = ::send(fd, text.data(), text.size(), MSG_NOSIGNAL);
        if (count <= 0) return false;
        text.remove_prefix(static_cast<std::size_t>(count));
    }
    return true;
}

bool of_same_user(int fd) {
    ucred other{};
    socklen_t size = sizeof other;
    return ::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &other, &size) == 0 &&
           (other.uid == ::geteuid() || other.uid == 0);
}

std::string line_of(const nlohmann::json& value) {
    return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace

control_socket::control_socket(directory where, handler answer) : where_(std::move(where)), answer_(std::move(answer)) {
    descriptor listening(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    descriptor ended(::eventfd(0, EFD_CLOEXEC));
    if (listening.get() < 0 || ended.get() < 0) throw failed(where_, "cannot open");
    ::unlink(where_.control().c_str());  // of a process that was killed: the folder's lock says that none lives
    const short_name name(where_);
    if (!name.valid() || ::bind(listening.get(), name.get(), sizeof(sockaddr_un)) != 0)
        throw failed(where_, "cannot make");
    if (::chmod(where_.control().c_str(), 0600) != 0 || ::listen(listening.get(), 8) != 0)
        throw failed(where_, "cannot listen on");
    listening_ = listening.release();
    ended_ = ended.release();
    thread_ = std::thread([this] { serve(); });
}

control_socket::~control_socket() {
    const std::uint64_t one = 1;
    if (::write(ended_, &one, sizeof one) == sizeof one) thread_.join();
    ::unlink(where_.control().c_str());
    ::close(listening_);
    ::close(ended_);
}

void control_socket::serve() {
    for (;;) {
        std::array<pollfd, 2> wait{pollfd{listening_, POLLIN, 0}, pollfd{ended_, POLLIN, 0}};
        if (::poll(wait.data(), wait.size(), -1) < 0 && errno != EINTR) return;
        if (wait[1].revents != 0) return;
        if ((wait[0].revents & POLLIN) == 0) continue;
        const descriptor connection(::accept4(listening_, nullptr, nullptr, SOCK_CLOEXEC));
        if (connection.get() < 0) ::poll(&wait[1], 1, 100);  // no descriptors left
        if (connection.get() >= 0 && of_same_user(connection.get())) talk(connection.get());
    }
}

void control_socket::talk(int connection) const {
    limit_time(connection);
    const std::optional<std::string> line = read_line(connection, longest_line);
    if (!line) return;
    nlohmann::json answer;
    try {
        const auto request = nlohmann::json::parse(*line, nullptr, false);
        if (!request.is_object()) throw value_error("a request is a JSON object in a line");
        answer = answer_(request);
    } catch (const std::exception& problem) {
        answer = {{"error", problem.what()}};
    }
    static_cast<void>(write_all(connection, line_of(answer)));  // who asked may be gone
}

nlohmann::json ask_peer(const directory& where, const nlohmann::json& request) {
    const descriptor connection(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const short_name name(where);
    limit_time(connection.get());
    if (!name.valid() || ::connect(connection.get(), name.get(), sizeof(sockaddr_un)) != 0)
        throw launcher_error(exit_code::network, "no peer runs in '" + where.root.string() + "' (" +
                                                     std::strerror(errno) + "): expected the folder of one that does");
    std::optional<std::string> line;
    if (write_all(connection.get(), line_of(request))) line = read_line(connection.get(), longest_answer);
    const auto answer = line ? nlohmann::json::parse(*line, nullptr, false) : nlohmann::json();
    if (!answer.is_object())
        throw launcher_error(exit_code::failed, "the peer in '" + where.root.string() + "' does not answer");
    return answer;
}

}  // namespace thinwire::launcher
