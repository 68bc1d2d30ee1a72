// Four processes train one small model over TCP.
//   example_05_four_processes               starts a founder and three joiners here, and waits for them
//   example_05_four_processes found ADDR    founds the run at ADDR ("127.0.0.1:0": any free port)
//   example_05_four_processes join ADDR ID  joins it as peer ID
// In plaintext, which needs loopback addresses: docs/runtime.md says what TLS asks for instead.
#include <thinwire/optim/demo.hpp>
#include <thinwire/runtime/node.hpp>

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace {

constexpr int rounds = 100;
constexpr int peers = 4;

// Every peer sees its own noisy idea of the same target; together they find it.
int train(thinwire::runtime::node& node) {
    std::vector<float> values(4096, 0.0F);
    std::vector<float> gradient(4096);
    const std::array parameters = {thinwire::parameter{"w", {64, 64}, values, gradient}};
    thinwire::demo demo(parameters, {.learning_rate = 0.02F, .run = node.run()});
    float off = 0;
    while (demo.round() < rounds) {
        off = 0;
        for (std::size_t i = 0; i < values.size(); ++i) {
            const float target = static_cast<float>(i % 17) / 17.0F;
            const float noise = static_cast<float>((i * 31 + node.self() * 7 + demo.round()) % 11) / 11.0F - 0.45F;
            gradient[i] = values[i] - target + noise;
            off += (values[i] - target) * (values[i] - target) / 4096.0F;
        }
        demo.step(node);
    }
    std::printf("peer %u: error %.4f, replica %s\n", static_cast<unsigned>(node.self()), static_cast<double>(off),
                to_string(demo.replica_digest(), 16).c_str());
    std::fflush(stdout);
    node.leave(true);
    return 0;
}

/// A folder for the run log, which every peer keeps.
std::string make_folder() {
    std::string folder = (std::filesystem::temp_directory_path() / "thinwire_05_XXXXXX").string();
    if (::mkdtemp(folder.data()) == nullptr) throw thinwire::io_error("mkdtemp: " + folder);
    return folder;
}

int found(const std::string& address, int port_to) {
    const std::string folder = make_folder();
    const auto node = thinwire::runtime::node::found({.self = 1,
                                                      .name = "founder",
                                                      .listen = address,
                                                      .run = thinwire::sha256{}.update("example 05").finish(),
                                                      .log = folder + "/log",
                                                      .min_peers = peers,
                                                      .plaintext = true});
    node->publish_snapshot(0, {std::byte{0}});  // all weights start at zero
    const std::uint16_t port = node->port();
    if (port_to < 0)
        std::printf("listening on port %u\n", static_cast<unsigned>(port));
    else if (::write(port_to, &port, sizeof port) != sizeof port)
        return 1;
    const int code = train(*node);
    std::filesystem::remove_all(folder);
    return code;
}

int join(const std::string& address, thinwire::peer_id self) {
    const std::string folder = make_folder();
    const auto node = thinwire::runtime::node::join(
        {.self = self, .name = "joiner", .address = address, .log = folder + "/log", .plaintext = true});
    const int code = train(*node);
    std::filesystem::remove_all(folder);
    return code;
}

int spawn_all() {
    int pipe_ends[2];
    if (::pipe(pipe_ends) != 0) return 1;
    if (::fork() == 0) return found("127.0.0.1:0", pipe_ends[1]);
    ::close(pipe_ends[1]);
    std::uint16_t port = 0;
    const bool told = ::read(pipe_ends[0], &port, sizeof port) == sizeof port;
    for (int i = 2; told && i <= peers; ++i)
        if (::fork() == 0) return join("127.0.0.1:" + std::to_string(port), static_cast<thinwire::peer_id>(i));
    int failed = told ? 0 : 1;
    for (int status = 0; ::wait(&status) > 0;) failed |= status;
    return failed == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        const std::string_view command = argc > 1 ? argv[1] : "";
        if (command == "found" && argc == 3) return found(argv[2], -1);
        if (command == "join" && argc == 4) return join(argv[2], std::strtoull(argv[3], nullptr, 10));
        return spawn_all();
    } catch (const thinwire::error& problem) {
        std::fprintf(stderr, "%s\n", problem.what());
        return 1;
    }
}
