#include <thinwire/backend/cpu/fast.hpp>
#include <thinwire/backend/cpu/reference.hpp>
#include <thinwire/io/corpus.hpp>
#include <thinwire/io/snapshot.hpp>
#include <thinwire/nn/sampling.hpp>
#include <thinwire/nn/transformer.hpp>
#include <thinwire/thinwire.hpp>

#include <cstdint>

std::uint64_t second(std::uint64_t i) {
    return thinwire::permutation(10, 1)(i);
}

const void* second_address() {
    return reinterpret_cast<const void*>(&thinwire::digest_of);
}
