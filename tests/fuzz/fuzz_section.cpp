// One demo section: the first byte chooses the layout, the others are the section.
#include "fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace fuzz;
    if (size == 0) return 0;
    const std::size_t which = data[0] % (layouts().size() - 1);  // the last is dense
    const payload_layout& layout = layouts()[which];
    const payload_section& section = layout.sections[0];
    const auto bytes = std::as_bytes(std::span(data, size)).subspan(1);
    static sparse_content content;
    content.resize(layout);
    const section_slice found = content.slice(section, 0, 0);
    if (!coders()[which].decode(bytes, section, found)) check_section(coders()[which], section, found, bytes);
    return 0;
}
