#include "about.hpp"

#include "configuration.hpp"
#include "exit_code.hpp"
#include <doctest/doctest.h>

#include <string>

using namespace thinwire::launcher;

TEST_CASE("about: what is set comes out at the other side") {
    configuration settings;
    CHECK(about_text(settings).empty());
    settings.peer.place = "Zürich \"Nord\"";
    settings.peer.hardware = "8 × H200";
    settings.peer.coordinates = " 47.37689, 8.54169 ";
    const peer_about back = read_about(about_text(settings));
    CHECK(back.place == settings.peer.place);
    CHECK(back.hardware == settings.peer.hardware);
    CHECK(back.latitude == 47.38);
    CHECK(back.longitude == 8.54);
    CHECK(about_text(settings).size() <= 256);
    settings.peer.place = settings.peer.hardware = std::string(max_about_text, 'x');
    CHECK(about_text(settings).size() <= 256);
}

TEST_CASE("about: settings that cannot be") {
    const auto refused = [](auto set) {
        configuration settings;
        set(settings.peer);
        CHECK_THROWS_AS((void)about_text(settings), launcher_error);
    };
    refused([](auto& p) { p.place = std::string(max_about_text + 1, 'x'); });
    refused([](auto& p) { p.place = "a\nb"; });
    refused([](auto& p) { p.place = p.hardware = std::string(max_about_text, '"'); });
    refused([](auto& p) { p.hardware = "\xff"; });
    refused([](auto& p) { p.hardware = "\u202e"; });
    for (const char* where : {"1", "a,b", "91,0", "0,181", "1,2,3", "nan,0", ",", "1,"})
        refused([&](auto& p) { p.coordinates = where; });
}

TEST_CASE("about: whatever comes from elsewhere is read") {
    for (const char* said : {"", "x", "[]", "{", "null", "{\"place\":7,\"at\":[1]}", "{\"at\":[\"a\",2]}",
                             "{\"at\":[1e9,2]}", "{\"at\":{\"a\":1}}"}) {
        const peer_about about = read_about(said);
        CHECK(about.place.empty());
        CHECK_FALSE(about.latitude);
    }
    CHECK(read_about("{\"place\":\"a\\u0007b\\n\"}").place == "a?b?");
    CHECK(read_about("{\"place\":\"" + std::string(100, 'x') + "\"}").place.size() == max_about_text);
    CHECK(read_about(std::string(200, '[')).place.empty());
}

TEST_CASE("about: text for people is valid UTF-8 on one line, cut between characters") {
    CHECK(clean_text("plain", 64) == "plain");
    CHECK(clean_text("é€𝄞", 64) == "é€𝄞");
    CHECK(clean_text("é€𝄞", 4) == "é");
    CHECK(clean_text("é€𝄞", 5) == "é€");
    CHECK(clean_text("\xc3", 9) == "?");
    CHECK(clean_text("\xc0\x80\xed\xa0\x80\xf5\x80\x80\x80", 64) == "?????????");
    CHECK(clean_text("\xe2\x82", 9) == "??");
    CHECK(clean_text("a\tb\x7f\xc2\x85", 64) == "a?b??");
    CHECK(clean_text("a\nb", 64) == "a?b");
    CHECK(clean_text("a\nb", 64, true) == "a\nb");
    CHECK(clean_text("\u200b\u202e\u2066\ufeff\u061c", 64) == "?????");
}
