#include "control.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

using thinwire::launcher::peers_meant;

TEST_CASE("ctl: a peer is meant by its number, whatever others are called, or by its name") {
    const nlohmann::json status = {{"peers",
                                    {{{"id", "12"}, {"name", "34"}},
                                     {{"id", "34"}, {"name", "12"}},
                                     {{"id", "56"}, {"name", "lab"}},
                                     {{"id", "78"}, {"name", "lab"}},
                                     {{"id", "90"}, {"name", "99"}}}}};
    const auto numbers = [&](const std::string& peer) {
        std::vector<std::string> all;
        for (const nlohmann::json* one : peers_meant(status, peer)) all.push_back((*one)["id"]);
        return all;
    };
    CHECK(numbers("12") == std::vector<std::string>{"12"});
    CHECK(numbers("34") == std::vector<std::string>{"34"});
    CHECK(numbers("0012") == std::vector<std::string>{"12"});
    CHECK(numbers("lab") == std::vector<std::string>{"56", "78"});
    CHECK(numbers("99").empty());
    CHECK(numbers("nobody").empty());
}
