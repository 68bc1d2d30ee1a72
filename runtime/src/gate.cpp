#include "gate.hpp"

#include "address.hpp"
#include <asio/post.hpp>

#include <algorithm>
#include <ctime>
#include <exception>
#include <utility>

namespace thinwire::runtime {

namespace {

constexpr std::chrono::seconds watch_interval{2};
constexpr const char* revoked_meanwhile = " was taken off the list during the handshake";

std::string text_of(const asio::ip::tcp::socket& socket) {
    asio::error_code error;
    const auto point = socket.remote_endpoint(error);
    return error ? "a connection" : to_string(address{point.address().to_string(), point.port()});
}

std::string described(const public_key& key) {
    return "key " + to_string(key) + " (fingerprint " + to_string(fingerprint(key), 16) + ")";
}

}  // namespace

gate::gate(asio::io_context& io, const node_options& options, reporter report)
    : io_(io),
      identity_(options.identity),
      of_run_(options.run),
      timeout_(options.handshake_timeout),
      report_(std::move(report)),
      enrolled_(options.enrolled),
      timer_(io) {
    if (!identity_) return;
    list_.emplace(options.access);
    context_.emplace(*identity_);
}

gate::~gate() = default;

/// True when the list is another than before. A file that cannot be read any more leaves the list as it was, and is
/// tried again; the operator hears of one cause once.
bool gate::refresh() {
    try {
        const bool another = list_->refresh();
        trouble_.clear();
        return another;
    } catch (const thinwire::error& problem) {
        if (trouble_ != problem.what())
            report_(false, std::string("the list of keys stays as it was: ") + problem.what());
        trouble_ = problem.what();
        return false;
    }
}

/// Whether the key is on the list as its file is at this moment; between the look at a certificate and the end of a
/// handshake, which the other side sets, the list may change.
bool gate::still_allows(const tls_session* session) {
    if (list_ && refresh() && changed_) asio::post(io_, changed_);
    return allows(session);
}

std::string gate::objection(const public_key& key, tls_purpose purpose, bool dialled) {
    if (refresh() && changed_) asio::post(io_, changed_);
    if (lets_in(key)) return {};
    if (purpose == tls_purpose::enrol)
        return list_->rules().invites.empty() ? "it asks to enrol, but there is no invite" : "";
    return (dialled ? "it has " : "its ") + described(key) +
           (dialled ? ", which is not on the list '" : " is not on the list '") + list_->file().string() + "'";
}

void gate::receive(asio::ip::tcp::socket socket, opened done) {
    if (strangers_.size() >= max_strangers) shed();
    const std::string where = text_of(socket);
    shake(
        false, std::move(socket), [this, where](const tls_session& s) { return plan(s, where); }, std::move(done),
        [this, where](tls_end, const std::string& why) { report_(true, "refused " + where + ": " + why); });
}

void gate::shed() {
    if (strangers_.empty()) return;
    strangers_.front()->abort();
    strangers_.pop_front();
    report_(true, "refused the connection that had been shaking hands for longest: there are too many");
}

std::weak_ptr<handshake> gate::dial(asio::ip::tcp::socket socket, opened done, refused failed) {
    const auto talk = [](const tls_session&) { return conversation{{}, 1, {}}; };
    return shake(true, std::move(socket), talk, std::move(done), std::move(failed));
}

/// A stranger's connection may cost no more than itself, whatever goes wrong.
std::weak_ptr<handshake> gate::shake(bool dialled, asio::ip::tcp::socket socket, handshake::plan talk, opened done,
                                     refused failed) {
    if (!context_) {
        done({std::move(socket), nullptr, 0, 0});
        return {};
    }
    std::unique_ptr<tls_session> session;
    try {
        const auto judge = [this, dialled](const public_key& key, tls_purpose purpose) {
            return objection(key, purpose, dialled);
        };
        session =
            dialled ? tls_session::client(*context_, tls_purpose::run, judge) : tls_session::server(*context_, judge);
    } catch (const std::exception& problem) {
        failed(tls_end::closed, problem.what());
        return {};
    }
    auto& among = dialled ? dialled_ : strangers_;
    auto one = std::make_shared<handshake>(std::move(socket), std::move(session), std::move(talk));
    const auto at = among.insert(among.end(), one);
    one->start(
        timeout_,
        [this, done = std::move(done), failed = std::move(failed)](handshake::outcome result) {
            if (result.end != tls_end::none) return failed(result.end, result.why);
            if (!result.open) return;  // it was answered, and is closed
            if (!result.heard.empty() && result.heard.front() != let_in)
                return failed(tls_end::broken, "it does not answer as thinwire does");
            if (still_allows(result.open->tls.get())) return done(std::move(*result.open));
            failed(tls_end::refused_here, "its " + described(result.open->tls->peer()) + revoked_meanwhile);
        },
        [&among, at] { among.erase(at); });
    return one;
}

void gate::abandon(const std::weak_ptr<handshake>& dialled) {
    const auto one = dialled.lock();
    if (!one || std::erase(dialled_, one) == 0) return;
    one->abort();
}

conversation gate::plan(const tls_session& session, const std::string& where) {
    if (session.purpose() == tls_purpose::run) return {{let_in}, 0, {}};
    return {{}, enrol_request::size, [this, &session, where](std::span<const std::byte> heard) {
                return enrol(session, heard, where);
            }};
}

std::vector<std::byte> gate::enrol(const tls_session& session, std::span<const std::byte> heard,
                                   const std::string& where) {
    const auto no = [&](enrol_verdict verdict, const std::string& text) {
        report_(true, "refused " + where + ": " + described(session.peer()) + " asks to enrol: " + text);
        return encode(enrol_reply{verdict, text});
    };
    const result<enrol_request> request = decode_enrol_request(heard);
    if (!request) return no(enrol_verdict::unknown, request.error().message);
    // The list may read its file again, and what another process took off it is then known to nobody else.
    if (changed_) asio::post(io_, changed_);
    const bool known = list_->rules().find(session.peer()) != nullptr;
    bool proven = false;
    try {
        const auto proves = [&, exported = session.exporter()](const digest& verifier) {
            const bool fits = equal_secrets(
                request->proof, enrol_proof(verifier, exported, session.peer(), context_->key(), request->run));
            proven = proven || fits;
            return fits && request->run == of_run_;
        };
        switch (list_->enrol(session.peer(), request->name, proves, std::time(nullptr))) {
            case enrolment::done: break;
            case enrolment::used: return no(enrol_verdict::used, "the invite was used before");
            case enrolment::expired: return no(enrol_verdict::expired, "the invite has expired");
            case enrolment::unknown:
                return proven ? no(enrol_verdict::other_run, "the invite is for run " + to_string(request->run, 16) +
                                                                 ", this is run " + to_string(of_run_, 16))
                              : no(enrol_verdict::unknown, "the invite is not known here");
        }
    } catch (const std::exception& problem) {
        report_(true, "cannot enrol " + described(session.peer()) + ": " + problem.what());
        return encode(enrol_reply{enrol_verdict::unable, "the list of keys cannot be changed there"});
    }
    if (!known && enrolled_) enrolled_(session.peer(), as_name(request->name), where);
    return encode(enrol_reply{});
}

bool gate::allows(const tls_session* session) const {
    return session == nullptr || !list_ || lets_in(session->peer());
}

bool gate::lets_in(const public_key& key) const {
    const access_rules& rules = list_->rules();
    if (rules.is_revoked(key)) return false;
    if (run_)
        if (const std::optional<bool> agreed = run_(key)) return *agreed;
    return rules.find(key) != nullptr;
}

void gate::watch(std::function<void()> changed) {
    if (!list_) return;
    changed_ = std::move(changed);
    schedule();
}

void gate::schedule() {
    timer_.expires_after(watch_interval);
    timer_.async_wait([this](asio::error_code cancelled) {
        if (cancelled) return;
        if (refresh()) changed_();
        schedule();
    });
}

void gate::close() {
    timer_.cancel();
    for (auto* all : {&strangers_, &dialled_}) {
        for (const auto& one : *all) one->abort();
        all->clear();
    }
}

}  // namespace thinwire::runtime
