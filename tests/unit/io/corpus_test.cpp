#include <thinwire/io/corpus.hpp>

#include "folder.hpp"
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <string>

using thinwire::byte_corpus;
using thinwire_test::bytes_of;
using thinwire_test::temporary_folder;

TEST_CASE("corpus: reads a file and splits off its end") {
    const temporary_folder folder;
    thinwire::write_file_atomically(folder / "text", bytes_of("abcdefghijklmnopqrst"));
    const byte_corpus corpus(folder / "text");
    CHECK(corpus.bytes().size() == 20);
    const auto parts = corpus.split(0.25, 4);
    CHECK(std::vector(parts.train.begin(), parts.train.end()) == bytes_of("abcdefghijklmno"));
    CHECK(std::vector(parts.validation.begin(), parts.validation.end()) == bytes_of("pqrst"));
}

TEST_CASE("corpus: a missing and an empty file are refused with their name") {
    const temporary_folder folder;
    const std::string missing = (folder / "missing").string();
    CHECK_THROWS_WITH_AS(byte_corpus{std::filesystem::path(missing)},
                         ("read '" + missing + "': No such file or directory").c_str(), thinwire::io_error);
    thinwire::write_file_atomically(folder / "empty", {});
    const std::string empty = (folder / "empty").string();
    CHECK_THROWS_WITH_AS(byte_corpus{std::filesystem::path(empty)},
                         ("corpus '" + empty + "': empty, expected text").c_str(), thinwire::io_error);
    CHECK_THROWS_AS(byte_corpus(folder.path()), thinwire::io_error);
}

TEST_CASE("corpus: a sequence and the byte after it must fit, in every part") {
    const byte_corpus corpus("text", bytes_of("0123456789"));
    corpus.require_sequence(9);
    CHECK_THROWS_WITH_AS(corpus.require_sequence(10),
                         "corpus 'text': 10 bytes, expected at least 11 (a sequence of 10 and the byte after it)",
                         thinwire::value_error);
    CHECK(corpus.split(0.5, 4).validation.size() == 5);
    CHECK_THROWS_WITH_AS(
        (void)corpus.split(0.4, 4),
        "corpus 'text': 4 bytes for validation, expected at least 5 (a sequence of 4 and the byte after it)",
        thinwire::value_error);
    CHECK_THROWS_WITH_AS(
        (void)corpus.split(0.6, 4),
        "corpus 'text': 4 bytes for training, expected at least 5 (a sequence of 4 and the byte after it)",
        thinwire::value_error);
}

TEST_CASE("corpus: a fraction outside (0, 1) is refused") {
    const byte_corpus corpus("text", bytes_of("0123456789"));
    for (const double fraction : {0.0, 1.0, -0.1, 1.5, std::nan("")})
        CHECK_THROWS_AS((void)corpus.split(fraction, 1), thinwire::value_error);
}

TEST_CASE("corpus: the longest sequence that can be written is refused, not wrapped around") {
    const byte_corpus text("text", std::vector<std::byte>(100));
    CHECK_THROWS_AS(text.require_sequence(std::numeric_limits<std::size_t>::max()), thinwire::value_error);
}
