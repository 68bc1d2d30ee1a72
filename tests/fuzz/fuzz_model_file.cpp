// Files of others: safetensors, and config.json when the first byte is a brace.
#include <thinwire/hf/config.hpp>
#include <thinwire/hf/safetensors.hpp>

#include "fuzz.hpp"

#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace fuzz;
    const auto given = std::as_bytes(std::span(data, size));
    if (size > 0 && data[0] == '{') {
        static_cast<void>(hf::parse_config(std::string_view(reinterpret_cast<const char*>(data), size)));
        return 0;
    }
    const auto file = hf::safetensors_file::parse({given.begin(), given.end()});
    if (!file) return 0;
    for (const auto& [name, entry] : file->tensors()) {
        const auto floats = file->floats(name);
        require(!floats || floats->size() <= size, "no more elements than bytes");
        static_cast<void>(file->integers(name));
    }
    return 0;
}
