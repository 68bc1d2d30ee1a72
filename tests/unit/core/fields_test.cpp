#include <thinwire/core/detail/fields.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

using namespace thinwire;
using detail::bounded, detail::field_reader, detail::field_writer, detail::is_a;

namespace {

enum class colour : std::uint8_t { red = 1, green };

struct parcel {
    std::uint16_t number = 0;
    bool flag = false;
    colour paint{};
    digest sum;
    std::array<std::byte, 2> two{};
    std::string name;
    detail::shared_vector bytes;
    std::map<std::string, bool> switches;
    std::set<std::uint32_t> odd;
};

void fields(auto& a, is_a<parcel> auto& p) {
    a(p.number, p.flag, p.paint, p.sum, p.two, bounded{p.name, 4, true}, bounded{p.bytes, 3});
    a.require(p.paint == colour::red || p.paint == colour::green, "a colour that is not known");
    a.each(p.switches, 2, "more than 2 switches", [&](auto& s) { a(bounded{s.first, 3}, s.second); });
    a.each(p.odd, 3, "more than 3 numbers", [&](auto& number) { a(number); });
}

parcel sample() {
    parcel p;
    p.number = 0x0102;
    p.flag = true;
    p.paint = colour::green;
    p.sum.bytes.fill(std::byte{9});
    p.two = {std::byte{5}, std::byte{6}};
    p.name = "name";
    p.bytes = std::make_shared<const std::vector<std::byte>>(3, std::byte{7});
    p.switches = {{"a", true}, {"b", false}};
    p.odd = {1, 3};
    return p;
}

std::vector<std::byte> written(const parcel& p) {
    field_writer out;
    fields(out, p);
    return out.take();
}

/// Where the fields of a sample stand.
constexpr std::size_t flag_at = 2, paint_at = 3, name_at = 38, bytes_at = 46, switches_at = 53;

std::string refused(const std::vector<std::byte>& bytes) {
    field_reader in(bytes);
    parcel p;
    fields(in, p);
    return in.whole() ? std::string() : in.refusal("parcel").message;
}

std::string altered(std::size_t at, int value) {
    std::vector<std::byte> bytes = written(sample());
    bytes[at] = static_cast<std::byte>(value);
    return refused(bytes);
}

}  // namespace

TEST_CASE("fields: what one list writes it also reads, in the order of the list") {
    const std::vector<std::byte> bytes = written(sample());
    CHECK(bytes[0] == std::byte{2});
    CHECK(bytes[flag_at] == std::byte{1});
    CHECK(bytes[paint_at] == std::byte{2});
    CHECK(bytes[name_at] == std::byte{4});
    field_reader in(bytes);
    parcel back;
    fields(in, back);
    REQUIRE(in.whole());
    CHECK(written(back) == bytes);
    CHECK(back.number == 0x0102);
    CHECK(back.name == "name");
    CHECK(back.switches == sample().switches);
    CHECK(back.odd == sample().odd);
}

TEST_CASE("fields: a text that may be cut is, and bytes that are none count none") {
    parcel p = sample();
    p.name = "names";
    CHECK(written(p) == written(sample()));
    p.bytes = nullptr;
    CHECK(refused(written(p)).empty());
    const std::string text = "long";
    field_writer whole;
    whole(bounded{text, 2});
    CHECK(whole.size() == 8);
}

TEST_CASE("fields: the first thing that is wrong is told") {
    CHECK(altered(flag_at, 2) == "parcel: a flag that is neither 0 nor 1");
    CHECK(altered(paint_at, 0) == "parcel: a colour that is not known");
    CHECK(altered(paint_at, 3) == "parcel: a colour that is not known");
    CHECK(altered(bytes_at, 4) == "parcel: a length above its limit");
    CHECK(altered(bytes_at + 3, 255) == "parcel: a length above its limit");
    CHECK(altered(switches_at, 3) == "parcel: more than 2 switches");
    CHECK(altered(name_at + 3, 255) == "parcel: ends before what it announces");
    std::vector<std::byte> bytes = written(sample());
    bytes.push_back({});
    CHECK(refused(bytes) == "parcel: bytes follow its end");
    for (std::size_t size = bytes.size() - 2; size > 0; --size) {
        bytes.resize(size);
        CHECK(refused(bytes) == "parcel: ends before what it announces");
    }
}

TEST_CASE("fields: shared bytes that are refused or not there are empty, not null") {
    const std::vector<std::byte> bytes = {std::byte{3}, {}, {}, {}, std::byte{1}};
    detail::shared_vector there;
    field_reader in(bytes);
    in(bounded{there, 3});
    CHECK(in.failed());
    REQUIRE(there);
    CHECK(there->empty());
}
