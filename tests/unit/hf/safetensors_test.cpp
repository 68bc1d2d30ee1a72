#include <thinwire/core/bytes.hpp>
#include <thinwire/core/random.hpp>
#include <thinwire/hf/safetensors.hpp>

#include <doctest/doctest.h>
#include <support/temporary_folder.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

using namespace thinwire;
using hf::safetensors_file;

namespace {

/// A file from a header's text and that many bytes of data.
std::vector<std::byte> file_of(const std::string& header, std::size_t data) {
    byte_writer writer;
    writer.put(static_cast<std::uint64_t>(header.size()));
    writer.put(std::as_bytes(std::span(header)));
    std::vector<std::byte> bytes = writer.take();
    for (std::size_t i = 0; i < data; ++i) bytes.push_back(static_cast<std::byte>(i));
    return bytes;
}

std::string tensor(const std::string& name, const std::string& dtype, const std::string& sides,
                   const std::string& offsets) {
    return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + sides + ",\"data_offsets\":" + offsets + "}";
}

const std::string two = "{" + tensor("a", "F32", "[2,3]", "[0,24]") + "," + tensor("b", "I64", "[1]", "[24,32]") +
                        ",\"__metadata__\":{\"format\":\"pt\"}}";

}  // namespace

TEST_CASE("safetensors: a small file is read") {
    const auto file = safetensors_file::parse(file_of(two, 32)).value();
    CHECK(file.tensors().size() == 2);
    CHECK(file.metadata().at("format") == "pt");
    CHECK(file.find("c") == nullptr);
    REQUIRE(file.find("a") != nullptr);
    CHECK(file.find("a")->sides == std::vector<std::int64_t>{2, 3});
    CHECK(file.find("a")->count() == 6);
    CHECK(file.integers("b").value() == std::vector<std::int64_t>{0x1f1e1d1c1b1a1918});
    CHECK(file.integers("a").error().code == errc::mismatch);
    CHECK(file.floats("b").error().code == errc::mismatch);
    CHECK(file.floats("none").error().code == errc::mismatch);
}

TEST_CASE("safetensors: every truncation and every longer file is refused") {
    const std::vector<std::byte> whole = file_of(two, 32);
    for (std::size_t n = 0; n < whole.size(); ++n) {
        CAPTURE(n);
        CHECK_FALSE(safetensors_file::parse({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(n)}));
    }
    std::vector<std::byte> longer = whole;
    longer.push_back(std::byte{0});
    CHECK(safetensors_file::parse(longer).error().code == errc::trailing);
}

TEST_CASE("safetensors: a wrong header length is refused") {
    for (const std::uint64_t length :
         {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{two.size() - 1}, std::uint64_t{two.size() + 1},
          std::uint64_t{100'000'000}, std::uint64_t{100'000'001}, std::uint64_t{1} << 63U,
          std::numeric_limits<std::uint64_t>::max()}) {
        CAPTURE(length);
        std::vector<std::byte> bytes = file_of(two, 32);
        for (std::size_t i = 0; i < 8; ++i) bytes[i] = static_cast<std::byte>((length >> (8 * i)) & 0xffU);
        CHECK_FALSE(safetensors_file::parse(bytes));
    }
}

TEST_CASE("safetensors: headers that lie are refused, each with its reason") {
    struct lie {
        std::string header;
        std::size_t data;
        errc code;
    };
    const std::vector<lie> lies = {
        {"[]", 0, errc::bad_magic},
        {"{", 0, errc::malformed},
        {"{\"a\":3}", 0, errc::malformed},
        {"{\"__metadata__\":{\"a\":3}}", 0, errc::malformed},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, errc::malformed},
        {"{" + tensor("a", "F32", "[1]", "[0,4]") + "," + tensor("a", "F32", "[1]", "[0,4]") + "}", 4, errc::malformed},
        {"{" + tensor("a", "F32", "[1]", "[0,4,8]") + "}", 4, errc::malformed},
        {"{" + tensor("a", "F32", "[1]", "[-4,0]") + "}", 4, errc::malformed},
        {"{" + tensor("a", "F32", "[1.0]", "[0,4]") + "}", 4, errc::malformed},
        {"{" + tensor("a", "F32", "[-1]", "[0,4]") + "}", 4, errc::malformed},
        {"{" + tensor("a", "F32", "1", "[0,4]") + "}", 4, errc::malformed},
        {"{" + tensor("a", "F32", "[1]", "[0,8]") + "}", 4, errc::out_of_range},
        {"{" + tensor("a", "F32", "[1]", "[4,0]") + "}", 4, errc::out_of_range},
        {"{" + tensor("a", "F32", "[1]", "[0,18446744073709551615]") + "}", 4, errc::out_of_range},
        {"{" + tensor("a", "F32", "[1]", "[0,18446744073709551616]") + "}", 4, errc::malformed},
        {"{" + tensor("a", "F32", "[2]", "[0,4]") + "}", 4, errc::mismatch},
        {"{" + tensor("a", "F16", "[1]", "[0,4]") + "}", 4, errc::mismatch},
        {"{" + tensor("a", "F32", "[4294967296,4294967296,4294967296]", "[0,4]") + "}", 4, errc::too_large},
        {"{" + tensor("a", "F32", "[0,4294967296,4294967296]", "[0,4]") + "}", 4, errc::too_large},
        {"{" + tensor("a", "F32", "[1]", "[0,4]") + "," + tensor("b", "F32", "[1]", "[0,4]") + "}", 4, errc::malformed},
        {"{" + tensor("a", "F32", "[1]", "[0,4]") + "," + tensor("b", "F32", "[2]", "[2,10]") + "}", 10,
         errc::malformed},
        {"{" + tensor("a", "F32", "[1]", "[0,4]") + "," + tensor("b", "F32", "[1]", "[8,12]") + "}", 12,
         errc::malformed},
        {"{" + tensor("a", "F32", "[1]", "[4,8]") + "}", 8, errc::malformed},
        {"{" + tensor("a", "F32", "[1]", "[0,4]") + "}", 5, errc::trailing},
        {"{\"a\":" + std::string(100'000, '[') + std::string(100'000, ']') + "}", 0, errc::out_of_range},
        {"{\"a\":" + std::string(1'000'000, '['), 0, errc::out_of_range},
        {"{\"\xff\xfe\":1}", 0, errc::malformed},
    };
    for (const lie& l : lies) {
        CAPTURE(l.header.substr(0, 120));
        const auto parsed = safetensors_file::parse(file_of(l.header, l.data));
        REQUIRE_FALSE(parsed);
        CHECK(to_string(parsed.error().code) == to_string(l.code));
        CHECK(parsed.error().message.find('\n') == std::string::npos);
    }
}

TEST_CASE("safetensors: any changed byte of the header gives a file or a failure, never more") {
    const std::vector<std::byte> whole = file_of(two, 32);
    random_stream random(7);
    int accepted = 0;
    for (int i = 0; i < 20'000; ++i) {
        std::vector<std::byte> bytes = whole;
        for (std::uint64_t flips = 1 + random.below(3); flips > 0; --flips)
            bytes[random.below(bytes.size())] = static_cast<std::byte>(random.below(256));
        const auto parsed = safetensors_file::parse(bytes);
        if (!parsed) continue;
        ++accepted;
        for (const auto& [name, entry] : parsed->tensors()) {
            if (parsed->floats(name)) CHECK(parsed->floats(name)->size() == entry.count());
            if (parsed->integers(name)) CHECK(parsed->integers(name)->size() == entry.count());
        }
    }
    CHECK(accepted > 0);  // a changed name or data byte is still a file
    CHECK(accepted < 20'000);
}

TEST_CASE("safetensors: dtypes convert, an unknown one is refused only when asked for") {
    byte_writer data;
    data.put(1.5F);
    data.put(-2.25);
    data.put(static_cast<std::uint16_t>(0x3e00));
    data.put(static_cast<std::uint16_t>(0x3fc0));
    data.put(static_cast<std::int8_t>(-3));
    data.put(static_cast<std::uint8_t>(1));
    data.put(static_cast<std::int16_t>(-300));
    data.put(static_cast<std::int32_t>(-70'000));
    data.put(static_cast<std::uint64_t>(0));
    std::vector<std::byte> bytes =
        file_of("{" + tensor("f32", "F32", "[]", "[0,4]") + "," + tensor("f64", "F64", "[1]", "[4,12]") + "," +
                    tensor("f16", "F16", "[1]", "[12,14]") + "," + tensor("bf16", "BF16", "[1]", "[14,16]") + "," +
                    tensor("i8", "I8", "[1]", "[16,17]") + "," + tensor("bool", "BOOL", "[1]", "[17,18]") + "," +
                    tensor("i16", "I16", "[1]", "[18,20]") + "," + tensor("i32", "I32", "[1,1]", "[20,24]") + "," +
                    tensor("odd", "F8_E4M3", "[5]", "[24,32]") + "," + tensor("none", "F32", "[0,3]", "[24,24]") + "}",
                0);
    const std::vector<std::byte> raw = data.take();
    bytes.insert(bytes.end(), raw.begin(), raw.end());
    const auto file = safetensors_file::parse(bytes).value();
    CHECK(file.floats("f32").value() == std::vector<float>{1.5F});
    CHECK(file.floats("f64").value() == std::vector<float>{-2.25F});
    CHECK(file.floats("f16").value() == std::vector<float>{1.5F});
    CHECK(file.floats("bf16").value() == std::vector<float>{1.5F});
    CHECK(file.floats("none").value().empty());
    CHECK(file.integers("i8").value() == std::vector<std::int64_t>{-3});
    CHECK(file.integers("bool").value() == std::vector<std::int64_t>{1});
    CHECK(file.integers("i16").value() == std::vector<std::int64_t>{-300});
    CHECK(file.integers("i32").value() == std::vector<std::int64_t>{-70'000});
    CHECK(file.floats("odd").error().message.find("F8_E4M3") != std::string::npos);
    CHECK_FALSE(file.integers("odd"));
}

TEST_CASE("safetensors: what is written is read back, sorted, with an aligned header") {
    const test::temporary_folder folder;
    const std::vector<float> a = {1.0F, -0.0F, std::numeric_limits<float>::infinity(), 1e-40F};
    const std::vector<float> b = {3.25F};
    const std::vector<hf::tensor_source> tensors = {{"z", {2, 2}, a}, {"a\"quoted\"", {}, b}};
    hf::write_safetensors(folder.path() / "x.safetensors", tensors, {{"format", "pt"}, {"note", "two\nlines"}});
    const auto file = safetensors_file::load(folder.path() / "x.safetensors").value();
    CHECK(file.tensors().size() == 2);
    CHECK(file.floats("z").value() == a);
    CHECK(std::signbit(file.floats("z").value()[1]));
    CHECK(file.floats("a\"quoted\"").value() == b);
    CHECK(file.metadata().at("note") == "two\nlines");
    CHECK(file.find("a\"quoted\"")->bytes.data() < file.find("z")->bytes.data());
    const auto bytes = hf::detail::read_whole(folder.path() / "x.safetensors");
    byte_reader reader(bytes);
    CHECK(reader.get<std::uint64_t>() % 8 == 0);
    CHECK_FALSE(std::filesystem::exists(folder.path() / "x.safetensors.part"));

    hf::write_safetensors(folder.path() / "empty.safetensors", {});
    CHECK(safetensors_file::load(folder.path() / "empty.safetensors").value().tensors().empty());
}

TEST_CASE("safetensors: what cannot be written is refused") {
    const test::temporary_folder folder;
    const std::vector<float> four(4);
    const auto path = folder.path() / "x.safetensors";
    const auto write = [&](std::vector<hf::tensor_source> tensors) { hf::write_safetensors(path, tensors); };
    CHECK_THROWS_AS(write({{"a", {5}, four}}), shape_error);
    CHECK_THROWS_AS(write({{"a", {4}, four}, {"a", {4}, four}}), value_error);
    CHECK_THROWS_AS(write({{"__metadata__", {4}, four}}), value_error);
    CHECK_FALSE(std::filesystem::exists(path));
    const std::vector<hf::tensor_source> good = {{"a", {4}, four}};
    CHECK_THROWS_AS(hf::write_safetensors(folder.path() / "no" / "such" / "x", good), io_error);
    CHECK_THROWS_AS((void)safetensors_file::load(path), io_error);
    CHECK_THROWS_AS((void)safetensors_file::load(folder.path()), io_error);
    if (std::filesystem::exists("/dev/full")) {
        std::filesystem::create_symlink("/dev/full", folder.path() / "full.part");
        CHECK_THROWS_AS(hf::write_safetensors(folder.path() / "full", good), io_error);
        CHECK_FALSE(std::filesystem::exists(folder.path() / "full"));
    }
}
