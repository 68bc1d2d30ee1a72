// What every consumer builds: the umbrella, a little of several rooms, and a zero exit code when they work.
#include <thinwire/thinwire.hpp>

#include <cstdint>
#include <vector>

int main() {
    const std::vector<float> weights = {1.0F, 2.0F, 3.0F};
    const thinwire::snapshot stored{
        .round = 7, .tensors = {{.name = "weights", .shape = {3}, .values = weights}}, .blobs = {}};
    const auto read = thinwire::snapshot::decode(stored.encode());
    const thinwire::permutation order(10, 1);
    thinwire::thread_pool pool(2);
    std::vector<std::uint64_t> places(10);
    pool.parallel_for(places.size(), [&](std::size_t i) { places[i] = order(i); });
    return read && read->round == 7 && places[3] == order(3) ? 0 : 1;
}
