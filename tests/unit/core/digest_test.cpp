#include <thinwire/core/digest.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace thinwire;

TEST_CASE("sha256: the vectors of FIPS 180-4") {
    CHECK(to_string(sha256{}.update("abc").finish()) ==
          "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CHECK(to_string(sha256{}.finish()) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK(to_string(sha256{}.update("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq").finish()) ==
          "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

TEST_CASE("sha256: pieces give the digest of the whole") {
    const std::string text(1000, 'x');
    const digest whole = sha256{}.update(text).finish();
    for (const std::size_t cut : {1U, 55U, 56U, 63U, 64U, 65U, 999U})
        CHECK(sha256{}.update(text.substr(0, cut)).update(text.substr(cut)).finish() == whole);
}

TEST_CASE("sha256: the SHA instructions give the bits of the plain code, for any number of blocks") {
#if THINWIRE_X86_DISPATCH
    if (!detail::has_sha_instructions()) return;
    std::vector<std::byte> data(64 * 9);
    for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i * i * 7 + i / 3);
    detail::sha256_state plain = {1, 2, 3, 4, 5, 6, 7, 0xffffffff}, fast = plain;
    for (std::size_t blocks = 0; blocks <= 9; ++blocks) {
        detail::sha256_blocks_plain(plain, data.data(), blocks);
        detail::sha256_blocks_sha(fast, data.data(), blocks);
        CHECK(plain == fast);
    }
#endif
}
