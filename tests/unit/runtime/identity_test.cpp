#include <thinwire/runtime/identity.hpp>

#include "private_file.hpp"
#include "unit/runtime/fixture.hpp"
#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <future>
#include <optional>
#include <string>
#include <thread>
#include <vector>

using namespace thinwire;
using namespace thinwire::runtime;
using runtime_fixture::folder;

namespace {

void write_key(const std::filesystem::path& file, const std::string& content, mode_t mode = 0600) {
    std::ofstream(file, std::ios::binary) << content;
    REQUIRE(::chmod(file.c_str(), mode) == 0);
}

unsigned mode_of(const std::filesystem::path& file) {
    struct stat about {};
    REQUIRE(::stat(file.c_str(), &about) == 0);
    return about.st_mode & 0777U;
}

std::string loading_fails(const std::filesystem::path& file) {
    try {
        (void)identity::load_or_create(file);
    } catch (const io_error& problem) {
        return problem.what();
    }
    return {};
}

#ifdef __linux__
/// Lets link(2) and linkat(2) of this thread fail as on a file system that has none.
bool without_hard_links() {
    std::vector<sock_filter> program = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
#ifdef __NR_link
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_link, 1, 0),
#endif
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_linkat, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog all{static_cast<unsigned short>(program.size()), program.data()};
    return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &all) == 0;
}
#endif

}  // namespace

TEST_CASE("base64: the vectors of RFC 4648 without padding, and nothing else is read") {
    const std::vector<std::pair<std::string, std::string>> vectors = {
        {"", ""},           {"f", "Zg"},          {"fo", "Zm8"},         {"foo", "Zm9v"},
        {"foob", "Zm9vYg"}, {"fooba", "Zm9vYmE"}, {"foobar", "Zm9vYmFy"}};
    for (const auto& [plain, text] : vectors) {
        CHECK(detail::to_base64(runtime_fixture::bytes_of(plain)) == text);
        CHECK(detail::from_base64(text) == runtime_fixture::bytes_of(plain));
    }
    CHECK(detail::to_base64(std::vector{std::byte{0xfb}, std::byte{0xff}}) == "-_8");
    for (const char* text : {"Z", "Zh", "Zm9=", "Zm 8", "Zm9v\n", "Zm+v", "Zm/v", "Zm9vY"})
        CHECK(!detail::from_base64(text));
}

TEST_CASE("identity: a key file is made once, for its owner only, and holds the same key ever after") {
    const folder dir;
    const auto file = dir.path() / "identity.key";
    const identity made = identity::load_or_create(file);
    CHECK(mode_of(file) == 0600);
    CHECK(identity::load_or_create(file).key() == made.key());
    CHECK(identity::load(file).key() == made.key());
    CHECK(identity::make().key() != made.key());
    CHECK(std::distance(std::filesystem::directory_iterator(dir.path()), {}) == 1);
    std::string pem;
    std::getline(std::ifstream(file), pem);
    CHECK(pem == "-----BEGIN PRIVATE KEY-----");
}

#ifdef __linux__
TEST_CASE("identity: a key file is made where there are no hard links") {
    const folder dir;
    const auto file = dir.path() / "identity.key";
    std::optional<public_key> made, found;
    bool linked = true;
    std::async(std::launch::async, [&] {
        linked = !without_hard_links() || ::link("/proc/self/exe", (dir.path() / "x").c_str()) == 0 || errno != EPERM;
        made = identity::load_or_create(file).key();
        found = identity::load_or_create(file).key();
        CHECK_FALSE(create_private_file(file, "other"));
    }).get();
    CHECK_FALSE(linked);
    CHECK(mode_of(file) == 0600);
    CHECK(made == found);
    CHECK(identity::load(file).key() == made);
    CHECK(std::distance(std::filesystem::directory_iterator(dir.path()), {}) == 1);
}
#endif

TEST_CASE("identity: of several that make the key at once, all get the same") {
    const folder dir;
    std::vector<public_key> keys(8);
    {
        std::vector<std::jthread> threads;
        for (public_key& key : keys)
            threads.emplace_back([&dir, &key] { key = identity::load_or_create(dir.path() / "key").key(); });
    }
    CHECK(std::count(keys.begin(), keys.end(), keys.front()) == 8);
}

TEST_CASE("identity: a file that others may read, or that holds no key, is refused and left as it is") {
    const folder dir;
    const auto file = dir.path() / "identity.key";
    (void)identity::load_or_create(file);
    for (const mode_t mode : {0640U, 0604U, 0620U, 0602U, 0610U}) {
        REQUIRE(::chmod(file.c_str(), mode) == 0);
        CHECK(loading_fails(file).find("expected mode 600") != std::string::npos);
    }
    const auto broken = dir.path() / "broken.key";
    const std::vector<std::string> contents = {
        "", "-----BEGIN PRIVATE KEY-----\n", std::string(20000, 'x'),
        // An elliptic-curve key, and an encrypted one: a password is never asked for.
        "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgevZzL1gdAFr88hb2\n"
        "OF/2NxApJCzGCEDdfSp6VQO30hyhRANCAAQRWz+jn65BtOMvdyHKcvjBeBSDZH2r\n"
        "1RTwjmYSi9R/zpBnuQ4EiMnCqfMPWiZqB4QdbAd0E7oH50VpuZ1P087G\n-----END PRIVATE KEY-----\n",
        // X25519, whose keys have 32 bytes too.
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VuBCIEILi6NSCgkH7BvUWOcxXj72OZEAqZ0qFuOYIBb14+AilT\n-----END "
        "PRIVATE KEY-----\n",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGjMF8GCSqGSIb3DQEFDTBSMDEGCSqGSIb3DQEFDDAkBBA=\n"
        "-----END ENCRYPTED PRIVATE KEY-----\n"};
    for (const std::string& content : contents) {
        write_key(broken, content);
        CHECK(loading_fails(broken).find("broken.key") != std::string::npos);
        CHECK(std::filesystem::file_size(broken) == content.size());
    }
    CHECK(loading_fails(dir.path()).find("no regular file") != std::string::npos);
    CHECK(loading_fails(dir.path() / std::string(300, 'x')).find("File name too long") != std::string::npos);
    CHECK(loading_fails(dir.path() / "none" / "key").find("No such file") != std::string::npos);
    std::filesystem::create_symlink(dir.path() / "nowhere", dir.path() / "link");
    CHECK_FALSE(loading_fails(dir.path() / "link").empty());
}

TEST_CASE("identity: a signature is of one message, by one key") {
    const auto bytes_of = [](std::string_view text) { return std::as_bytes(std::span(text)); };
    const identity self = identity::make();
    const signature_bytes made = self.sign(bytes_of("a statement"));
    CHECK(verify(self.key(), bytes_of("a statement"), made));
    CHECK_FALSE(verify(self.key(), bytes_of("b statement"), made));
    CHECK_FALSE(verify(identity::make().key(), bytes_of("a statement"), made));
    CHECK_FALSE(verify(public_key{}, bytes_of("a statement"), made));
    for (std::size_t i = 0; i < made.size(); ++i) {
        signature_bytes other = made;
        other[i] ^= std::byte{1};
        CHECK_FALSE(verify(self.key(), bytes_of("a statement"), other));
    }
    CHECK(verify(self.key(), {}, self.sign({})));
}

TEST_CASE("identity: the peer's number is the beginning of the fingerprint") {
    public_key key;
    for (std::size_t i = 0; i < 32; ++i) key.bytes[i] = static_cast<std::byte>(i);
    // Python: hashlib.sha256(bytes(range(32)))
    CHECK(to_string(fingerprint(key)) == "630dcd2966c4336691125448bbb25b4ff412a49c732db2c8abc1b8581bd710dd");
    CHECK(peer_id_of(key) == 0x6633c46629cd0d63U);
    CHECK(to_string(key) == "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8");
    CHECK(*parse_public_key(to_string(key)) == key);
    for (const char* text :
         {"", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9",
          "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8A", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh="})
        CHECK(!parse_public_key(text));
}
