// A snapshot, whose digest is put right so that what lies behind it is reached.
#include <thinwire/io/snapshot.hpp>

#include "fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace fuzz;
    const auto given = std::as_bytes(std::span(data, size));
    std::vector<std::byte> bytes(given.begin(), given.end());
    if (bytes.size() >= 32) {
        const digest found = digest_of(std::span<const std::byte>(bytes).first(bytes.size() - 32));
        std::copy(found.bytes.begin(), found.bytes.end(), bytes.end() - 32);
    }
    const auto decoded = snapshot::decode(bytes);
    if (!decoded) return 0;
    std::size_t elements = 0;
    for (const named_tensor& tensor : decoded->tensors) {
        require(tensor.values.size() == tensor.shape.count(), "tensors have the elements of their shapes");
        elements += tensor.values.size();
    }
    require(4 * elements <= bytes.size(), "no more elements than bytes justify");
    require(snapshot::decode(decoded->encode()).has_value(), "what is read can be written and read");
    return 0;
}
