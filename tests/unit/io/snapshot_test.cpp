#include <thinwire/core/random.hpp>
#include <thinwire/io/snapshot.hpp>

#include "folder.hpp"
#include <doctest/doctest.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

using thinwire::digest_of;
using thinwire::errc;
using thinwire::named_tensor;
using thinwire::parameter;
using thinwire::snapshot;
using thinwire_test::bytes_of;
using thinwire_test::temporary_folder;
using thinwire_test::with_full_disk;

namespace {

const std::vector<float> embedding = {1.0F, -2.5F, 0.0F, -0.0F, std::numeric_limits<float>::denorm_min(), 3e38F};
const std::vector<float> scale = {0.5F};

snapshot sample() {
    return {.run = digest_of(bytes_of("a run")),
            .round = 0x0102030405060708ULL,
            .manifest = "k = 32\nname = \"first light\"\n",
            .tensors = {{.name = "model.embed", .shape = {2, 3}, .values = embedding},
                        {.name = "norm.weight", .shape = {1}, .values = scale}},
            .blobs = {{"private", bytes_of("momentum")}, {"empty", {}}}};
}

void check_equal(const snapshot& a, const snapshot& b) {
    CHECK(a.run == b.run);
    CHECK(a.round == b.round);
    CHECK(a.manifest == b.manifest);
    CHECK(a.blobs == b.blobs);
    REQUIRE(a.tensors.size() == b.tensors.size());
    for (std::size_t i = 0; i < a.tensors.size(); ++i) {
        CHECK(a.tensors[i].name == b.tensors[i].name);
        CHECK(a.tensors[i].shape == b.tensors[i].shape);
        REQUIRE(a.tensors[i].values.size() == b.tensors[i].values.size());
        for (std::size_t j = 0; j < a.tensors[i].values.size(); ++j)
            CHECK(std::bit_cast<std::uint32_t>(a.tensors[i].values[j]) ==
                  std::bit_cast<std::uint32_t>(b.tensors[i].values[j]));
    }
}

/// Puts the right digest behind altered content, as a hostile writer would.
std::vector<std::byte> sealed(std::vector<std::byte> bytes) {
    bytes.resize(bytes.size() - 32);
    const auto check = digest_of(bytes);
    bytes.insert(bytes.end(), check.bytes.begin(), check.bytes.end());
    return bytes;
}

}  // namespace

TEST_CASE("snapshot: comes back bit for bit, and encodes to the same bytes again") {
    const std::vector<std::byte> bytes = sample().encode();
    const auto back = snapshot::decode(bytes);
    REQUIRE(back);
    check_equal(*back, sample());
    CHECK(back->encode() == bytes);
}

TEST_CASE("snapshot: an empty one comes back") {
    const auto back = snapshot::decode(snapshot{}.encode());
    REQUIRE(back);
    check_equal(*back, snapshot{});
}

TEST_CASE("snapshot: a copy keeps the values alive") {
    snapshot copy;
    {
        const auto back = snapshot::decode(sample().encode());
        REQUIRE(back);
        copy = *back;
    }
    check_equal(copy, sample());
}

TEST_CASE("snapshot: the first bytes are fixed by the format") {
    const auto bytes = sample().encode();
    CHECK(std::vector(bytes.begin(), bytes.begin() + 8) == bytes_of(std::string("TWSN\1\0\0\0", 8)));
    CHECK(bytes.size() == 16 + (12 + 40) + (12 + 28) + (12 + 4 + (4 + 11 + 1 + 16) + (4 + 11 + 1 + 8) + 28) +
                              (12 + 4 + (4 + 5 + 8) + (4 + 7 + 8 + 8)) + 32);
}

TEST_CASE("snapshot: every truncation and every longer file is refused") {
    const auto bytes = sample().encode();
    for (std::size_t size = 0; size < bytes.size(); ++size) {
        CAPTURE(size);
        const auto read = snapshot::decode(std::span(bytes).first(size));
        REQUIRE_FALSE(read);
        CHECK(read.error().code == errc::truncated);
    }
    auto longer = bytes;
    longer.push_back(std::byte{0});
    CHECK(snapshot::decode(longer).error().code == errc::trailing);
}

TEST_CASE("snapshot: every altered bit is refused") {
    const auto bytes = sample().encode();
    for (std::size_t at = 0; at < bytes.size(); ++at)
        for (unsigned bit = 0; bit < 8; ++bit) {
            auto altered = bytes;
            altered[at] ^= static_cast<std::byte>(1U << bit);
            CAPTURE(at);
            CAPTURE(bit);
            REQUIRE_FALSE(snapshot::decode(altered));
        }
    auto altered = bytes;
    altered[0] = std::byte{'X'};
    CHECK(snapshot::decode(altered).error().code == errc::bad_magic);
    altered = bytes;
    altered[4] = std::byte{9};
    CHECK(snapshot::decode(altered).error().message == "snapshot: format version 9, this build reads 1");
    altered = bytes;
    altered[60] ^= std::byte{1};
    CHECK(snapshot::decode(altered).error().code == errc::bad_checksum);
}

TEST_CASE("snapshot: content that is sealed but malformed is refused or read, never more") {
    const auto bytes = sample().encode();
    thinwire::random_stream random(11);
    int refused = 0;
    for (int trial = 0; trial < 20000; ++trial) {
        auto altered = bytes;
        const auto edits = 1 + random.below(3);
        for (std::uint64_t i = 0; i < edits; ++i)
            altered[16 + random.below(altered.size() - 48)] =
                static_cast<std::byte>(random.below(4) == 0 ? 0xff : random.below(256));
        if (const auto read = snapshot::decode(sealed(altered)); !read)
            ++refused;
        else
            for (const named_tensor& t : read->tensors) REQUIRE(t.values.size() == t.shape.count());
    }
    CHECK(refused > 5000);
    CHECK(refused < 20000);
}

TEST_CASE("snapshot: random bytes and sealed cuts are refused") {
    const auto bytes = sample().encode();
    for (std::size_t size = 48; size < bytes.size(); ++size) {
        auto cut = std::vector(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
        cut[8] = static_cast<std::byte>(size & 0xffU);
        cut[9] = static_cast<std::byte>(size >> 8U);
        const auto read = snapshot::decode(sealed(cut));
        REQUIRE_FALSE(read);
        CHECK(read.error().code != errc::bad_checksum);
    }
}

TEST_CASE("snapshot: a span that does not fit its shape is the caller's error") {
    snapshot wrong = sample();
    wrong.tensors[1].values = embedding;
    CHECK_THROWS_WITH_AS((void)wrong.encode(), "snapshot: tensor 'norm.weight' has 6 values, expected 1 for shape [1]",
                         thinwire::shape_error);
}

TEST_CASE("snapshot: copy_to fills parameters of the same names and shapes, and no others") {
    std::vector<float> a(6, 9.0F);
    std::vector<float> b(1, 9.0F);
    std::vector<parameter> model = {{.name = "model.embed", .shape = {2, 3}, .values = a, .gradient = {}},
                                    {.name = "norm.weight", .shape = {1}, .values = b, .gradient = {}}};
    const snapshot stored = sample();
    REQUIRE(stored.copy_to(model));
    CHECK(a == embedding);
    CHECK(b == scale);
    CHECK(thinwire::tensors_of(model)[1].name == "norm.weight");
    CHECK(thinwire::tensors_of(model)[0].values.data() == a.data());

    a.assign(6, 9.0F);
    model[1].name = "norm.bias";
    const auto refused = stored.copy_to(model);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == errc::mismatch);
    CHECK(refused.error().message == "snapshot: tensor 'norm.weight' [1] stands where the model has 'norm.bias' [1]");
    CHECK(a == std::vector<float>(6, 9.0F));
    model[1].name = "norm.weight";
    model[0].shape = {3, 2};
    CHECK_FALSE(stored.copy_to(model));
    model.pop_back();
    CHECK(stored.copy_to(model).error().message == "snapshot: 2 tensors, the model has 1");
}

TEST_CASE("snapshot: files") {
    const temporary_folder folder;
    sample().save(folder / "snapshot");
    const auto back = snapshot::load(folder / "snapshot");
    REQUIRE(back);
    check_equal(*back, sample());
    CHECK(folder.entries() == 1);

    const auto bytes = sample().encode();
    thinwire::write_file_atomically(folder / "cut", std::span(bytes).first(100));
    const auto cut = snapshot::load(folder / "cut");
    REQUIRE_FALSE(cut);
    CHECK(cut.error().message == "'" + (folder / "cut").string() + "': snapshot: 100 bytes, its header states " +
                                     std::to_string(bytes.size()));
    CHECK_THROWS_AS((void)snapshot::load(folder / "missing"), thinwire::io_error);
    CHECK_THROWS_AS((void)snapshot::load(folder / "snapshot", 10), thinwire::io_error);
}

TEST_CASE("snapshot: a full disk leaves the older snapshot") {
    const temporary_folder folder;
    sample().save(folder / "snapshot");
    const int code = with_full_disk(100, [&] {
        snapshot next = sample();
        ++next.round;
        try {
            next.save(folder / "snapshot");
        } catch (const thinwire::io_error&) {
            return 0;
        }
        return 1;
    });
    CHECK(code == 0);
    const auto back = snapshot::load(folder / "snapshot");
    REQUIRE(back);
    check_equal(*back, sample());
    CHECK(folder.entries() == 1);
}
