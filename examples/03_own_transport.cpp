// A transport of one's own: anything with self() and exchange(). This one lays payloads on a table that threads share.

#include <thinwire/thinwire.hpp>

#include <barrier>
#include <iostream>
#include <thread>
#include <vector>

struct table {
    explicit table(std::ptrdiff_t seats) : payloads(static_cast<std::size_t>(seats)), all_here(seats) {}
    std::vector<std::vector<std::byte>> payloads;
    std::barrier<> all_here;
};

class seat {
 public:
    seat(table& shared, thinwire::peer_id self) : table_(&shared), self_(self) {}

    thinwire::peer_id self() const { return self_; }

    std::span<const thinwire::commit> exchange(std::uint64_t round, std::span<const std::byte> payload) {
        table_->all_here.arrive_and_wait();  // everybody is done with the round before
        table_->payloads[self_].assign(payload.begin(), payload.end());
        table_->all_here.arrive_and_wait();  // everybody's payload lies there
        contributions_.clear();
        for (thinwire::peer_id peer = 0; peer < table_->payloads.size(); ++peer)
            contributions_.push_back({.peer = peer, .payload = table_->payloads[peer]});
        commit_ = {.round = round, .contributions = contributions_};
        return {&commit_, 1};
    }

 private:
    table* table_;
    thinwire::peer_id self_;
    std::vector<thinwire::contribution> contributions_;
    thinwire::commit commit_;
};
static_assert(thinwire::transport<seat>);

int main() {
    constexpr std::size_t peers = 3;
    table shared(peers);
    std::vector<thinwire::digest> replicas(peers);
    std::vector<float> weight(peers);
    std::vector<std::thread> threads;
    for (thinwire::peer_id peer = 0; peer < peers; ++peer)
        threads.emplace_back([&, peer] {
            seat transport(shared, peer);
            std::vector<float> values(48 * 32, 1.0F), gradient(48 * 32);
            const std::vector<thinwire::parameter> model = {
                {.name = "layer", .shape = {48, 32}, .values = values, .gradient = gradient}};
            thinwire::demo optimizer(model, {.learning_rate = 0.01F});
            for (int step = 0; step < 100; ++step) {
                gradient = values;
                optimizer.step(transport);
            }
            replicas[peer] = optimizer.replica_digest();
            weight[peer] = values[0];
        });
    for (std::thread& t : threads) t.join();
    std::cout << "a weight went from 1 to " << weight[0] << " on every peer; replica " << to_string(replicas[0], 12)
              << '\n';
    return replicas[0] == replicas[1] && replicas[1] == replicas[2] && weight[0] < 0.1F ? 0 : 1;
}
