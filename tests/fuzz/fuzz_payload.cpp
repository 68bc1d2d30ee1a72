// A whole payload: the first byte chooses the layout, the others are the payload, whose checksum is put right so that
// what lies behind it is reached. A sequencer (validate) and a replica (decode) must agree.
#include "fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace fuzz;
    if (size == 0) return 0;
    const std::size_t which = data[0] % layouts().size();
    const payload_layout& layout = layouts()[which];
    const auto given = std::as_bytes(std::span(data, size)).subspan(1);
    static_cast<void>(inspect_payload(given));
    std::vector<std::byte> bytes(given.begin(), given.end());
    if (bytes.size() >= 8) {
        const auto covered = std::span<const std::byte>(bytes).first(bytes.size() - 8);
        detail::store_word(bytes.data() + covered.size(), checksum64(covered));
    }
    payload_decoder& decoder = decoders()[which];
    static sparse_content content;
    const bool valid = decoder.validate(bytes, expected).has_value();
    if (layout.kind == payload_kind::dense) return 0;
    const auto info = decoder.decode(bytes, expected, content);
    require(valid == info.has_value(), "validate and decode agree");
    if (!info) return 0;
    payload_view view;
    require(view.open(bytes, layout, expected).has_value(), "what is decoded can be opened");
    std::size_t at = 0, chunk = 0;
    for (std::size_t i = 0; i < layout.sections.size(); ++i) {
        const payload_section& section = layout.sections[i];
        check_section(coders()[which], layout.section(i, info->k), content.slice(section, at, chunk), view.section(i));
        at += section.coefficients();
        chunk += section.chunks;
    }
    return 0;
}
