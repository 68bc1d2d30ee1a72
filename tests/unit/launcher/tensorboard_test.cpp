#include "tensorboard.hpp"

#include <thinwire/core/error.hpp>

#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

using namespace thinwire::launcher;

namespace {

std::uint64_t number(std::string_view bytes, std::size_t size) {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < size; ++i)
        value |= static_cast<std::uint64_t>(static_cast<unsigned char>(bytes[i])) << (8 * i);
    return value;
}

std::uint32_t unmasked(std::uint64_t sum) {
    const auto turned = static_cast<std::uint32_t>(sum) - 0xa282ead8U;
    return turned >> 17U | turned << 15U;
}

}  // namespace

TEST_CASE("tensorboard: CRC-32C by the vectors of RFC 3720") {
    CHECK(crc32c(std::string(32, '\0')) == 0x8a9136aaU);
    CHECK(crc32c(std::string(32, '\xff')) == 0x62a8ab43U);
    std::string rising;
    for (char c = 0; c < 32; ++c) rising += c;
    CHECK(crc32c(rising) == 0x46dd794eU);
    CHECK(crc32c("123456789") == 0xe3069283U);
}

TEST_CASE("tensorboard: records with length, sums and the fields of an event") {
    const auto folder = std::filesystem::temp_directory_path() / ("thinwire-events-" + std::to_string(::getpid()));
    {
        tensorboard_writer writer(folder / "deep");
        writer.scalars(300, {{"a", 0.5}, {"left out", std::numeric_limits<double>::quiet_NaN()}});
        writer.text(301, "b", "said");
    }
    const auto file = std::filesystem::directory_iterator(folder / "deep")->path();
    CHECK(file.filename().string().find("tfevents") != std::string::npos);
    std::ifstream in(file, std::ios::binary);
    const std::string all((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    std::vector<std::string> events;
    for (std::string_view rest = all; !rest.empty();) {
        const std::size_t size = number(rest, 8);
        REQUIRE(rest.size() >= size + 16);
        CHECK(unmasked(number(rest.substr(8), 4)) == crc32c(rest.substr(0, 8)));
        events.emplace_back(rest.substr(12, size));
        CHECK(unmasked(number(rest.substr(12 + size), 4)) == crc32c(events.back()));
        rest.remove_prefix(size + 16);
    }
    REQUIRE(events.size() == 3);
    CHECK(events[0].find("\x1a\x0d"
                         "brain.Event:2") != std::string::npos);
    // step 300; summary of one value: tag a, 0.5 as float32.
    CHECK(events[1].substr(9) == std::string("\x10\xac\x02\x2a\x0a\x0a\x08\x0a\x01"
                                             "a"
                                             "\x15\x00\x00\x00\x3f",
                                             15));
    CHECK(events[2].find("said") != std::string::npos);
    std::filesystem::remove_all(folder);
    CHECK_THROWS_AS(tensorboard_writer("/dev/null/x"), thinwire::io_error);
}
