#include <thinwire/backend/cpu/fast.hpp>
#include <thinwire/backend/cpu/reference.hpp>
#include <thinwire/io/corpus.hpp>
#include <thinwire/io/snapshot.hpp>
#include <thinwire/nn/sampling.hpp>
#include <thinwire/nn/transformer.hpp>
#include <thinwire/thinwire.hpp>

#include <cstdint>

std::uint64_t second(std::uint64_t i);
const void* second_address();

int main() {
    // One definition: the same result, and the same object behind an inline function's address.
    const auto* here = reinterpret_cast<const void*>(&thinwire::digest_of);
    return second(3) == thinwire::permutation(10, 1)(3) && second_address() == here ? 0 : 1;
}
