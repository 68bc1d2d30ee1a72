// An existing training loop becomes a peer that survives kill -9: `shared_training` below is all that it takes.
//   example_09_survives_kill                      three processes here; each is killed once, and comes back
//   example_09_survives_kill DIR ID [ADDRESS]     one peer: founds a run (no ADDRESS) or enters it, or goes on in DIR
// In plaintext, which needs loopback addresses: docs/runtime.md says what TLS asks for instead.
#include <thinwire/codec/payload.hpp>
#include <thinwire/io/file.hpp>
#include <thinwire/io/snapshot.hpp>
#include <thinwire/optim/demo.hpp>
#include <thinwire/runtime/node.hpp>

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

namespace {

namespace fs = std::filesystem;

class shared_training {
 public:
    shared_training(fs::path folder, thinwire::peer_id self, const std::string& address,
                    std::span<const thinwire::parameter> model)
        : folder_(std::move(folder)), model_(model), demo_(model, {.learning_rate = 0.02F, .run = run}) {
        const bool fresh = !fs::exists(folder_ / "weights");
        if (!fresh) restore(thinwire::snapshot::load(folder_ / "weights"));
        thinwire::runtime::node_options options{.self = self, .address = address, .run = run, .log = folder_ / "log"};
        options.fresh = fresh;
        options.next_round = demo_.round();
        options.plaintext = true;
        options.validate = thinwire::payload_validator(demo_.layout(), run);
        node_ = address.empty() ? thinwire::runtime::node::found(options) : thinwire::runtime::node::join(options);
        if (fresh && !address.empty()) restore(thinwire::snapshot::decode(node_->take_snapshot()));
        for (auto missed = node_->catch_up(round()); !missed.empty(); missed = node_->catch_up(round()))
            for (const thinwire::commit& one : missed) demo_.apply(one);
        save();
    }
    /// Call it when the gradient is there.
    void step() {
        auto payload = demo_.in_flight();  // of before the kill
        if (payload.empty()) payload = demo_.begin_step(node_->self());
        thinwire::write_file_atomically(folder_ / "momentum", demo_.save_private());
        demo_.end_step(node_->exchange(round(), payload));
        if (round() % 25 == 0) save();
    }
    [[nodiscard]] std::uint64_t round() const { return demo_.round(); }
    [[nodiscard]] thinwire::runtime::node& node() { return *node_; }
    [[nodiscard]] std::string replica() const { return to_string(demo_.replica_digest(), 16); }

 private:
    static inline const thinwire::digest run = thinwire::sha256{}.update("example 09").finish();

    void restore(const thinwire::result<thinwire::snapshot>& from) {
        if (!from || !from->copy_to(model_)) throw thinwire::io_error("no weights to go on from");
        if (fs::exists(folder_ / "momentum") && !demo_.restore_private(thinwire::read_file(folder_ / "momentum")))
            throw thinwire::io_error("'momentum' is damaged");
        demo_.set_round(from->round);
    }
    void save() {  // momentum first: it may be newer than the weights, not older
        thinwire::write_file_atomically(folder_ / "momentum", demo_.save_private());
        const thinwire::snapshot now{run, round(), "", thinwire::tensors_of(model_), {}};
        now.save(folder_ / "weights");
        node_->publish_snapshot(round(), now.encode());
    }

    fs::path folder_;
    std::span<const thinwire::parameter> model_;
    thinwire::demo demo_;
    std::unique_ptr<thinwire::runtime::node> node_;
};

// -------------------------------------------------------------------------------------- the loop that was there before

constexpr std::uint64_t rounds = 1500;

int train(const fs::path& folder, thinwire::peer_id self, const std::string& address) {
    std::vector<float> values(4096, 0.0F), gradient(4096);
    const std::array model = {thinwire::parameter{"w", {64, 64}, values, gradient}};
    shared_training training(folder, self, address, model);
    std::ofstream(folder / "address.new") << "127.0.0.1:" << training.node().port() << std::flush;
    fs::rename(folder / "address.new", folder / "address");
    while (training.round() < rounds) {
        for (std::size_t i = 0; i < values.size(); ++i) {
            const float noise = static_cast<float>((i * 31 + self * 7 + training.round()) % 11) / 11.0F - 0.45F;
            gradient[i] = values[i] - static_cast<float>(i % 17) / 17.0F + noise;
        }
        training.step();
        std::ofstream(folder / "round") << training.round();
    }
    std::printf("peer %u: round %u, replica %s\n", static_cast<unsigned>(self), static_cast<unsigned>(training.round()),
                training.replica().c_str());
    std::fflush(stdout);
    std::ofstream(folder / "replica") << training.replica() << std::flush;
    training.node().leave(true);
    return 0;
}

// --------------------------------------------------------------------------------------------- three of them, killed

std::string read_word(const fs::path& file) {
    std::string word;
    std::ifstream(file) >> word;
    return word;
}

/// Waits for something that another process does.
template <class Holds>
void wait_for(const Holds& holds) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(2);
    while (!holds()) {
        if (std::chrono::steady_clock::now() > end) throw thinwire::error("a peer hangs");
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
}

int spawn_all() {
    std::string root = (fs::temp_directory_path() / "thinwire_09_XXXXXX").string();
    if (::mkdtemp(root.data()) == nullptr) throw thinwire::io_error("mkdtemp: " + root);
    const auto folder = [&](int peer) { return fs::path(root) / std::to_string(peer); };
    const auto begin = [&](int peer) {
        fs::create_directories(folder(peer));
        const std::string address = peer == 1 ? "" : read_word(folder(1) / "address");
        const pid_t child = ::fork();
        if (child != 0) return child;
        try {
            ::_exit(train(folder(peer), static_cast<thinwire::peer_id>(peer), address));
        } catch (const thinwire::error& problem) {
            std::fprintf(stderr, "peer %d: %s\n", peer, problem.what());
            ::_exit(1);
        }
    };
    std::array<pid_t, 4> pids{};
    const auto at_least = [&](int peer, unsigned long round) {
        return [&folder, peer, round] {
            return std::strtoul(read_word(folder(peer) / "round").c_str(), nullptr, 10) >= round;
        };
    };
    int failed = 0;
    for (int peer = 1; peer <= 3; ++peer) {
        pids[static_cast<std::size_t>(peer)] = begin(peer);
        wait_for([&] { return fs::exists(folder(peer) / "address"); });
    }
    for (int peer = 3; peer >= 1; --peer) {  // the founder last
        wait_for(at_least(peer, 90UL * static_cast<unsigned long>(4 - peer)));
        pid_t& pid = pids[static_cast<std::size_t>(peer)];
        ::kill(pid, SIGKILL);
        ::waitpid(pid, nullptr, 0);
        std::printf("peer %d: killed in round %s\n", peer, read_word(folder(peer) / "round").c_str());
        std::fflush(stdout);
        pid = begin(peer);
    }
    for (int peer = 1; peer <= 3; ++peer) {
        int status = 0;
        ::waitpid(pids[static_cast<std::size_t>(peer)], &status, 0);
        failed |= status;
    }
    const std::string replica = read_word(folder(1) / "replica");
    if (replica.empty() || read_word(folder(2) / "replica") != replica || read_word(folder(3) / "replica") != replica)
        failed = 1;
    fs::remove_all(root);
    return failed == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        if (argc == 3 || argc == 4)
            return train(argv[1], std::strtoull(argv[2], nullptr, 10), argc == 4 ? argv[3] : "");
        return spawn_all();
    } catch (const std::exception& problem) {
        std::fprintf(stderr, "%s\n", problem.what());
        return 1;
    }
}
