#include <thinwire/comm/frame.hpp>
#include <thinwire/core/random.hpp>

#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <vector>

using namespace thinwire;

namespace {

shared_bytes bytes_of(std::string_view text) {
    const auto raw = std::as_bytes(std::span(text.data(), text.size()));
    return share({raw.begin(), raw.end()});
}

/// One of each type.
std::vector<message> samples() {
    const digest d = sha256{}.update("x").finish();
    auto proposed = std::make_shared<commit_record>();
    proposed->term = 2;
    proposed->round = 10;
    proposed->control = bytes_of("state");
    proposed->contributions = {{3, digest_of(*bytes_of("abc")), bytes_of("abc"), 3}, {7, d, nullptr, 12}};
    hello_message hello;
    hello.run = d;
    hello.peer = 7;
    hello.incarnation = 3;
    hello.address = "peer.example:4411";
    hello.key = "a key";
    hello.last = d;
    hello.session = 99;
    hello.name = "seven";
    hello.about = "{\"place\":\"Bern\"}";
    hello.next_round = 12;
    hello.wants_snapshot = true;
    welcome_message welcome;
    welcome.run = d;
    welcome.manifest = "model = tiny";
    welcome.has_snapshot = true;
    welcome.snapshot_size = 5;
    welcome.self = hello;
    welcome.state = bytes_of("state");
    welcome.state_at = bytes_of("earlier");
    return {hello,
            welcome,
            refuse_message{refusal::banned, "three strikes"},
            reject_message{4, "not finite"},
            fetch_message{d, 10, 20},
            piece_message{d, 30, bytes_of("piece")},
            ping_message{},
            goodbye_message{true, "done"},
            offer_message{5, 7, 99, d, 9, true, {std::byte{3}}, bytes_of("beginning")},
            record_message{2, true, proposed},
            status_message{3, 7, 9, 2, 8, true, "peer.example:4411"},
            pull_message{4},
            campaign_message{6, 5, 11, true},
            vote_message{6, true, false},
            request_message{{control_change::kind::set, 3, "learning-rate", "0.5"}}};
}

frame_decoder open_decoder(wire_limits limits = {}) {
    frame_decoder decoder(limits);
    decoder.allow({message_type::hello, message_type::welcome, message_type::refuse, message_type::reject,
                   message_type::fetch, message_type::piece, message_type::ping, message_type::goodbye,
                   message_type::offer, message_type::record, message_type::status, message_type::pull,
                   message_type::campaign, message_type::vote, message_type::request});
    return decoder;
}

}  // namespace

TEST_CASE("frame: every message comes back as it was, wherever the stream is cut") {
    for (const message& m : samples()) {
        const std::vector<std::byte> frame = encode_frame(m);
        for (std::size_t cut = 0; cut <= frame.size(); ++cut) {
            frame_decoder decoder = open_decoder();
            decoder.feed(std::span(frame).first(cut));
            auto got = decoder.next();
            REQUIRE(got);
            REQUIRE(got->has_value() == (cut == frame.size()));
            if (!*got) {
                decoder.feed(std::span(frame).subspan(cut));
                got = decoder.next();
                REQUIRE(got);
                REQUIRE(got->has_value());
            }
            CHECK(encode_frame(**got) == frame);
            CHECK(decoder.buffered() == 0);
        }
    }
}

TEST_CASE("frame: a flipped bit is always refused or waited for, never believed") {
    for (const message& m : samples()) {
        const std::vector<std::byte> frame = encode_frame(m);
        for (std::size_t bit = 0; bit < frame.size() * 8; ++bit) {
            std::vector<std::byte> damaged = frame;
            damaged[bit / 8] ^= std::byte{1} << static_cast<int>(bit % 8);
            frame_decoder decoder = open_decoder();
            decoder.feed(damaged);
            CHECK_FALSE(decoder.next());
        }
    }
}

TEST_CASE("message: bodies of any length and content are parsed to the end or refused") {
    random_stream random(5);
    for (std::size_t type = 0; type < message_types; ++type) {
        const auto what = static_cast<message_type>(type);
        const std::vector<std::byte> whole = encode_frame(samples()[type]);
        const auto body = std::span(whole).subspan(frame_header_size);
        for (std::size_t cut = 0; cut < body.size(); ++cut)
            CHECK_FALSE(detail::comm::decode_body(what, body.first(cut), {}));
        std::vector<std::byte> longer(body.begin(), body.end());
        longer.push_back(std::byte{0});
        CHECK_FALSE(detail::comm::decode_body(what, longer, {}));
        for (int i = 0; i < 3000; ++i) {
            std::vector<std::byte> noise(body.begin(), body.end());
            noise.resize(random.below(body.size() + 8));
            for (std::uint64_t n = 1 + random.below(6); n > 0 && !noise.empty(); --n)
                noise[random.below(noise.size())] = static_cast<std::byte>(random.bits32() & 0xffU);
            (void)detail::comm::decode_body(what, noise, {});
        }
    }
}

TEST_CASE("frame: what is not allowed is refused at its header, before it is kept") {
    frame_decoder decoder{wire_limits{}};
    decoder.allow({message_type::hello});
    decoder.feed(encode_frame(ping_message{}));
    CHECK_FALSE(decoder.next());
    frame_decoder tight = open_decoder();
    const auto frame = encode_frame(piece_message{{}, 0, bytes_of(std::string(wire_limits::max_piece + 1, 'x'))});
    tight.feed(std::span(frame).first(frame_header_size));
    const auto got = tight.next();
    REQUIRE_FALSE(got);
    CHECK(got.error().code == errc::too_large);
}

TEST_CASE("hello: of another protocol version it is read as far as is needed to say so") {
    hello_message hello;
    hello.protocol = protocol_version + 1;
    hello.library = "9.9.9";
    hello.peer = 5;
    frame_decoder decoder = open_decoder();
    decoder.feed(encode_frame(hello));
    const auto got = decoder.next();
    REQUIRE(got);
    const auto& back = std::get<hello_message>(**got);
    CHECK(back.protocol == protocol_version + 1);
    CHECK(back.library == "9.9.9");
    CHECK(back.peer == 0);
}
