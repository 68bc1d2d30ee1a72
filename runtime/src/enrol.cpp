#include <thinwire/runtime/access.hpp>
#include <thinwire/runtime/node.hpp>

#include "address.hpp"
#include "dialling.hpp"
#include "enrol_message.hpp"
#include "handshake.hpp"
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

namespace thinwire::runtime {

namespace {

/// One run through the addresses of an invite after the other, until one of them has an answer.
class enroller {
 public:
    enroller(const invite& line, const identity& self, const enrol_options& options)
        : line_(line), self_(self), options_(options), context_(self), names_(io_), pause_(io_), limit_(io_) {}

    std::string run() {
        const std::stop_callback stopped(options_.stop, [this] {
            asio::post(io_, [this] { finish(node_error(node_errc::run_stopped, "this node was stopped")); });
        });
        limit_.expires_after(options_.timeout);
        limit_.async_wait([this](asio::error_code cancelled) {
            if (cancelled) return;
            const std::string why = trouble_.empty() ? "no answer" : trouble_;
            finish(node_error(node_errc::unreachable, "nobody to enrol with at " + all() + " within " +
                                                          std::to_string(options_.timeout.count()) + " ms: " + why));
        });
        attempt();
        io_.run();
        if (failure_) throw node_error(*failure_);
        return line_.addresses[tried_ - 1];
    }

 private:
    [[nodiscard]] std::string all() const {
        std::string text;
        for (const std::string& one : line_.addresses) text += (text.empty() ? "" : ", ") + one;
        return text;
    }

    void finish(std::optional<node_error> failure) {
        failure_ = std::move(failure);
        io_.stop();
    }

    void attempt() {
        if (tried_ == line_.addresses.size()) {
            tried_ = 0;
            pause_.expires_after(std::chrono::milliseconds(300));
            pause_.async_wait([this](asio::error_code cancelled) {
                if (!cancelled) attempt();
            });
            return;
        }
        const result<address> where = parse_address(line_.addresses[tried_++]);
        if (!where) return next(where.error().message);
        const std::uint64_t turn = ++turn_;
        pause_.expires_after(share());
        pause_.async_wait([this, turn](asio::error_code cancelled) {
            if (cancelled || turn != turn_) return;
            if (try_) try_->close();
            next("no connection within " + std::to_string(share().count()) + " ms");
        });
        names_.look_up(*where, [this, turn](const std::string& why, const name_lookup::endpoints& points) {
            if (turn != turn_) return;
            if (!why.empty()) return next("host not known: " + why);
            connect(points, turn);
        });
    }

    /// Of several addresses one may swallow what is sent to it, or be silent: each gets its share of the time.
    [[nodiscard]] std::chrono::milliseconds share() const {
        return options_.timeout / static_cast<int>(line_.addresses.size());
    }

    void next(const std::string& trouble) {
        ++turn_;
        trouble_ = trouble;
        attempt();
    }

    void connect(const name_lookup::endpoints& points, std::uint64_t turn) {
        try_ = std::make_shared<connection_try>(io_);
        runtime::connect(try_, points, share(), [this, turn, one = try_](const std::string& why) {
            if (turn != turn_) return;
            if (!why.empty()) return next(why);
            ++turn_;
            pause_.cancel();
            speak(std::move(one->socket));
        });
    }

    void speak(asio::ip::tcp::socket socket) {
        const auto objection = [this](const public_key& key, tls_purpose) {
            return key == line_.key ? std::string()
                                    : "it has key " + to_string(key) + ", expected " + to_string(line_.key);
        };
        auto session = tls_session::client(context_, tls_purpose::enrol, objection);
        const auto talk = [this](const tls_session& s) {
            const digest proof =
                enrol_proof(verifier_of(line_.secret), s.exporter(), self_.key(), line_.key, line_.run);
            return conversation{encode(enrol_request{line_.run, proof, as_name(options_.name)}), enrol_reply::size, {}};
        };
        const auto shake = std::make_shared<handshake>(std::move(socket), std::move(session), talk);
        shake->start(
            share(), [this](const handshake::outcome& result) { heard(result); }, [] {});
    }

    void heard(const handshake::outcome& answer) {
        const std::string where = line_.addresses[tried_ - 1];
        const bool only = line_.addresses.size() == 1;
        if (answer.end == tls_end::refused_there)
            return finish(node_error(node_errc::refused, "the peer at " + where + " has no invite open"));
        if (answer.end == tls_end::refused_here && only)
            return finish(node_error(node_errc::untrusted, "the peer at " + where + " is not trusted: " + answer.why));
        if (answer.end == tls_end::broken && only)
            return finish(node_error(node_errc::protocol,
                                     "the peer at " + where + " does not answer as thinwire does: " + answer.why));
        if (answer.end != tls_end::none) return next(answer.why);
        const result<enrol_reply> reply = decode_enrol_reply(answer.heard);
        if (!reply)
            return finish(node_error(node_errc::protocol, "the peer at " + where + " sent " + reply.error().message));
        if (reply->verdict == enrol_verdict::enrolled) return finish(std::nullopt);
        finish(node_error(reply->verdict == enrol_verdict::other_run ? node_errc::run_mismatch : node_errc::refused,
                          "the peer at " + where + " refused: " + reply->text));
    }

    const invite& line_;
    const identity& self_;
    const enrol_options& options_;
    tls_context context_;
    asio::io_context io_{1};
    name_lookup names_;
    std::shared_ptr<connection_try> try_;
    asio::steady_timer pause_;
    asio::steady_timer limit_;
    std::size_t tried_ = 0;   ///< addresses of this run through them
    std::uint64_t turn_ = 0;  ///< what was begun in an earlier one comes too late
    std::string trouble_;
    std::optional<node_error> failure_;
};

}  // namespace

std::string enrol(const invite& line, const identity& self, const enrol_options& options) {
    return enroller(line, self, options).run();
}

}  // namespace thinwire::runtime
