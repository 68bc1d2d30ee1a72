#ifndef THINWIRE_LAUNCHER_CONTROL_SOCKET_HPP
#define THINWIRE_LAUNCHER_CONTROL_SOCKET_HPP

#include "directory.hpp"
#include <nlohmann/json.hpp>

#include <functional>
#include <thread>

namespace thinwire::launcher {

/// Where the operator of a running peer is heard: the Unix socket DIR/control, open to processes of the same user. A
/// connection brings one request, a JSON object in a line of at most 4 KiB, and takes one answer. One at a time, two
/// seconds for each.
class control_socket {
 public:
    /// `answer` is called on this object's thread; what it throws becomes {"error": message}.
    using handler = std::function<nlohmann::json(const nlohmann::json& request)>;

    /// Precondition: this process holds the folder's lock. Throws io_error.
    control_socket(directory where, handler answer);
    control_socket(const control_socket&) = delete;
    control_socket& operator=(const control_socket&) = delete;
    /// Ends the thread and removes the socket.
    ~control_socket();

 private:
    void serve();
    void talk(int connection) const;

    directory where_;
    handler answer_;
    int listening_ = -1;
    int ended_ = -1;
    std::thread thread_;
};

/// Asks the peer that runs in a folder. Throws launcher_error(network) when none runs there or it does not answer.
[[nodiscard]] nlohmann::json ask_peer(const directory& where, const nlohmann::json& request);

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_CONTROL_SOCKET_HPP
