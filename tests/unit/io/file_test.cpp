#include <thinwire/io/file.hpp>

#include "folder.hpp"
#include <doctest/doctest.h>

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

using thinwire::append_file;
using thinwire::read_file;
using thinwire::write_file_atomically;
using thinwire_test::bytes_of;
using thinwire_test::temporary_folder;
using thinwire_test::with_full_disk;

namespace {

std::string message_of(const auto& call) {
    try {
        call();
    } catch (const thinwire::io_error& failed) {
        return failed.what();
    }
    return "no io_error";
}

}  // namespace

TEST_CASE("file: what is written is read, also nothing and more than a buffer") {
    const temporary_folder folder;
    for (const std::size_t size : {0U, 1U, 65535U, 65536U, 65537U, 1000000U}) {
        CAPTURE(size);
        std::vector<std::byte> bytes(size);
        for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 131 % 251);
        write_file_atomically(folder / "data", bytes, size == 1);
        CHECK(read_file(folder / "data") == bytes);
        CHECK(folder.entries() == 1);
    }
}

TEST_CASE("file: a limit is exact") {
    const temporary_folder folder;
    write_file_atomically(folder / "data", bytes_of("12345678"));
    CHECK(read_file(folder / "data", 8).size() == 8);
    const std::string path = (folder / "data").string();
    CHECK(message_of([&] { (void)read_file(path, 7); }) == "read '" + path + "': more than 7 bytes");
    CHECK_THROWS_AS((void)read_file("/dev/zero", 100000), thinwire::io_error);
}

TEST_CASE("file: a file that states no size is read whole") {
    CHECK(read_file("/proc/self/status").size() > 100);
}

TEST_CASE("file: errors name operation, path and reason") {
    const temporary_folder folder;
    const std::string missing = (folder / "missing").string();
    CHECK(message_of([&] { (void)read_file(missing); }) == "read '" + missing + "': No such file or directory");
    CHECK(message_of([&] { (void)read_file(folder.path()); }) ==
          "read '" + folder.path().string() + "': Is a directory");
    const std::string nowhere = (folder / "none/data").string();
    CHECK(message_of([&] { write_file_atomically(nowhere, {}); }) ==
          "create '" + nowhere + ".tmp': No such file or directory");
    CHECK(message_of([&] { append_file file(folder.path()); }) ==
          "open '" + folder.path().string() + "': Is a directory");
}

TEST_CASE("file: a name that is taken by a folder leaves no temporary file") {
    const temporary_folder folder;
    std::filesystem::create_directories(folder / "taken/inside");
    CHECK_THROWS_AS(write_file_atomically(folder / "taken", bytes_of("x")), thinwire::io_error);
    CHECK(folder.entries() == 1);
}

TEST_CASE("file: a full disk leaves the old file and no temporary one") {
    const temporary_folder folder;
    const auto old = bytes_of("the old content");
    write_file_atomically(folder / "data", old);
    const std::vector<std::byte> larger(20000, std::byte{1});
    const int code = with_full_disk(10000, [&] {
        const std::string said = message_of([&] { write_file_atomically(folder / "data", larger); });
        return said == "write '" + (folder / "data").string() + ".tmp': File too large" ? 0 : 1;
    });
    CHECK(code == 0);
    CHECK(read_file(folder / "data") == old);
    CHECK(folder.entries() == 1);
}

TEST_CASE("file: a device without room says so") {
    if (!std::filesystem::exists("/dev/full")) return;
    const temporary_folder folder;
    std::filesystem::create_symlink("/dev/full", folder / "data.tmp");
    CHECK(message_of([&] { write_file_atomically(folder / "data", bytes_of("x")); }) ==
          "write '" + (folder / "data.tmp").string() + "': No space left on device");
    CHECK_FALSE(std::filesystem::exists(folder / "data"));
    CHECK(std::filesystem::exists("/dev/full"));
}

TEST_CASE("append_file: grows, is found again, and is cut") {
    const temporary_folder folder;
    {
        append_file file(folder / "log");
        file.append(bytes_of("one"));
        file.append(bytes_of("two"));
        file.sync();
        CHECK(file.size() == 6);
    }
    append_file file(folder / "log");
    CHECK(file.size() == 6);
    file.append(bytes_of("three"));
    CHECK(read_file(folder / "log") == bytes_of("onetwothree"));
    file.cut(3);
    file.append(bytes_of("!"));
    CHECK(read_file(folder / "log") == bytes_of("one!"));
}

TEST_CASE("append_file: an append that does not fit leaves the file as it was, and later ones work") {
    const temporary_folder folder;
    const int code = with_full_disk(100, [&] {
        append_file file(folder / "log");
        file.append(bytes_of(std::string(60, 'a')));
        const std::string said = message_of([&] { file.append(bytes_of(std::string(60, 'b'))); });
        if (said != "write '" + (folder / "log").string() + "': File too large") return 1;
        if (read_file(folder / "log") != bytes_of(std::string(60, 'a'))) return 2;
        file.append(bytes_of(std::string(40, 'c')));
        return file.size() == 100 ? 0 : 3;
    });
    CHECK(code == 0);
    CHECK(read_file(folder / "log") == bytes_of(std::string(60, 'a') + std::string(40, 'c')));
}
