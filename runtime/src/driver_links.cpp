#include "driver.hpp"
#include "listening.hpp"

#include <algorithm>
#include <utility>

namespace thinwire::runtime {

namespace {

std::string plaintext_refusal(const std::string& where) {
    return "cannot connect to " + where + ": plaintext is for loopback addresses only";
}

}  // namespace

/// A connection on its way.
struct driver::dial : connection_try {
    explicit dial(asio::io_context& io, std::string to) : connection_try(io), address(std::move(to)) {}

    std::string address;
    std::weak_ptr<handshake> shaking;
};

std::uint16_t driver::listen() {
    if (options_.listen.empty()) return 0;
    listen_at(acceptor_, parse_address(options_.listen).value(), options_.plaintext);
    return acceptor_.local_endpoint().port();
}

void driver::accept() {
    if (over_ || port_ == 0) return;
    acceptor_.async_accept([this](asio::error_code error, asio::ip::tcp::socket socket) {
        if (over_ || error == asio::error::operation_aborted) return;
        if (!error) {
            gate_.receive(std::move(socket), [this](channel open) { enter(std::move(open)); });
            return accept();
        }
        // No descriptors or no memory: those who are connected matter more than those who wait.
        gate_.shed();
        accept_pause_.expires_after(std::chrono::milliseconds(100));
        accept_pause_.async_wait([this](asio::error_code cancelled) {
            if (!cancelled) accept();
        });
    });
}

void driver::enter(channel open) {
    if (over_ || lingering_.size() >= options_.max_connections) return;
    if (open.tls) keep_strangers_few(open.tls->peer());
    const link_id link = machine_.link_opened(now());
    adopt(link, std::move(open), {message_type::hello, message_type::ping, message_type::goodbye});
    settle();
}

/// A key has two connections at most on which nobody has said hello: the oldest goes.
void driver::keep_strangers_few(const public_key& key) {
    std::vector<link_id> same;
    for (const auto& [link, c] : connections_)
        if (c->peer == 0 && c->tls() != nullptr && c->tls()->peer() == key) same.push_back(link);
    if (same.size() >= 2) lose(same.front(), "its peer connects again and again");
}

void driver::lose(link_id link, const std::string& why) {
    const auto it = connections_.find(link);
    if (it == connections_.end()) return;
    it->second->abort();
    connections_.erase(it);
    roster_changed_ = true;
    machine_.link_closed(link, why, now());
}

void driver::adopt(link_id link, channel open, std::initializer_list<message_type> allowed) {
    const std::size_t queue = 2 * options_.max_payload + (std::size_t{256} << 20U);
    connection_owner& owner = *this;
    auto c = std::make_shared<connection>(std::move(open), link, limits_, queue, owner);
    connections_.emplace(link, c);
    {
        const std::lock_guard lock(status_mutex_);
        ++status_.connections;
        status_.bytes_sent += c->bytes_sent;
        status_.bytes_received += c->bytes_received;
    }
    c->start(allowed);
}

// ------------------------------------------------------------------------------------------------------- dialling

void driver::perform(dial_effect& e) {
    if (over_) return;
    dials_.emplace(e.link, std::make_shared<dial>(io_, e.address));
    const result<address> where = parse_address(e.address);
    if (!where) return post([this, link = e.link, why = where.error().message] { dial_failed(link, why); });
    names_.look_up(*where, [this, link = e.link](const std::string& why, const name_lookup::endpoints& points) {
        if (!dials_.contains(link)) return;
        if (!why.empty()) return dial_failed(link, "host not known: " + why);
        connect(link, points);
    });
}

void driver::connect(link_id link, name_lookup::endpoints points) {
    const std::shared_ptr<dial> d = dials_.at(link);
    if (options_.plaintext) std::erase_if(points, [](const auto& point) { return !is_loopback(point.address()); });
    if (points.empty()) return post([this, link, d] { dial_failed(link, plaintext_refusal(d->address)); });
    runtime::connect(d, points, options_.handshake_timeout, [this, link, d](const std::string& trouble) {
        if (!dials_.contains(link)) return;
        if (!trouble.empty()) return dial_failed(link, trouble);
        d->shaking = gate_.dial(
            std::move(d->socket), [this, link](channel open) { connected(link, std::move(open)); },
            [this, link](tls_end end, const std::string& why) { refused(link, end, why); });
    });
}

void driver::connected(link_id link, channel open) {
    const auto it = dials_.find(link);
    if (it == dials_.end()) return;
    refused_at_.erase(it->second->address);
    dials_.erase(it);
    adopt(link, std::move(open),
          {message_type::welcome, message_type::refuse, message_type::ping, message_type::goodbye});
    machine_.dialled(link, now());
    settle();
}

/// No handshake. Who meets nobody of the run has a wrong address or a wrong key; otherwise the cause may pass.
void driver::refused(link_id link, tls_end end, const std::string& why) {
    const auto it = dials_.find(link);
    if (it == dials_.end()) return;
    const std::string who = "the peer at " + it->second->address;
    const bool first = knows_one_address();
    if (end == tls_end::refused_there) refused_at_.insert(it->second->address);
    if (end == tls_end::refused_there && refused_everywhere())
        return give_up(node_errc::refused, who + " refused: " + why + ", " + to_string(options_.identity->key()));
    if (end == tls_end::refused_here && first) return give_up(node_errc::untrusted, who + " is not trusted: " + why);
    if (end == tls_end::broken && first)
        return give_up(node_errc::protocol, who + " does not answer as a thinwire peer: " + why);
    dial_failed(link, why);
}

/// Whether all that this node knows of the run is one address: what it meets there is its mistake, or its operator's.
bool driver::knows_one_address() const {
    const auto& members = machine_.newest_state().view.members;
    return !entered_ && seeds_.size() == 1 && std::none_of(members.begin(), members.end(), [&](const view_member& m) {
        return m.peer != options_.self && !m.address.empty();
    });
}

/// Whether nobody of the run that this node knows takes its key. What it was only told of the run's members can name
/// more of them, not fewer, and is not all that it knows.
bool driver::refused_everywhere() const {
    if (!connections_.empty()) return false;
    const auto refused = [&](const std::string& address) { return refused_at_.contains(address); };
    bool known = !seeds_.empty();
    for (const run_state* state : {&machine_.state(), &machine_.newest_state()})
        for (const view_member& m : state->view.members) {
            if (m.peer == options_.self || m.address.empty()) continue;
            if (!refused(m.address)) return false;
            known = known || state == &machine_.state();
        }
    return known && std::all_of(seeds_.begin(), seeds_.end(), refused);
}

void driver::give_up(node_errc code, const std::string& line) {
    box_.end(code, line);
    machine_.leave(now());
    settle();
}

void driver::dial_failed(link_id link, const std::string& why) {
    if (dials_.erase(link) == 0) return;
    machine_.dial_failed(link, why, now());
    settle();
}

/// The machine no longer wants a connection that is on its way.
void driver::abandon(link_id link) {
    const auto it = dials_.find(link);
    if (it == dials_.end()) return;
    const std::shared_ptr<dial> d = it->second;
    dials_.erase(it);
    gate_.abandon(d->shaking);
    d->close();
}

// ------------------------------------------------------------------------------------------------------ connections

/// A peer that listens on all its addresses states a port alone; the host is where it was met. What is wrong with the
/// address that it states, as it will stand in the run's state; nothing.
std::string driver::complete_address(link_id link, std::string& address) const {
    const auto it = connections_.find(link);
    if (address.starts_with(':') && it != connections_.end()) address = it->second->remote_host() + address;
    if (address.empty()) return {};
    if (address.size() > wire_limits::max_address)
        return "an address of " + std::to_string(address.size()) + " bytes, expected at most " +
               std::to_string(wire_limits::max_address);
    const result<runtime::address> where = parse_address(address.starts_with(':') ? "host" + address : address);
    return where ? std::string() : where.error().message;
}

void driver::on_message(link_id link, message m) {
    auto* const welcome = std::get_if<welcome_message>(&m);
    if (auto* const said = welcome != nullptr ? &welcome->self : std::get_if<hello_message>(&m); said != nullptr)
        if (const std::string no = complete_address(link, said->address); !no.empty()) return on_broken(link, no);
    machine_.received(link, std::move(m), now());
    settle();
}

void driver::on_broken(link_id link, const std::string& why) {
    machine_.broken(link, why, now());
    settle();
}

/// Trying again would not help; who has met peers of the run in plaintext has other addresses for them.
void driver::on_other_security(link_id link) {
    const std::string line = "speaks TLS, this node plaintext: expected the same on both sides";
    if (!knows_one_address()) return on_broken(link, "it " + line);
    give_up(node_errc::protocol, "the peer at " + *seeds_.begin() + " " + line);
}

void driver::on_bytes(connection& c, std::size_t sent, std::size_t received) {
    {
        const std::lock_guard lock(status_mutex_);
        status_.bytes_sent += sent;
        status_.bytes_received += received;
        if (c.peer == 0) {
            c.bytes_sent += sent;
            c.bytes_received += received;
        } else {
            peer_status& p = peers_[c.peer];
            p.bytes_sent += sent;
            p.bytes_received += received;
        }
    }
    if (received > 0) machine_.heard(c.link(), now());
}

void driver::on_finished(link_id link) {
    lingering_.erase(link);
    check_quiet();
}

void driver::on_closed(link_id link, const std::string& why) {
    lose(link, why);
    settle();
}

}  // namespace thinwire::runtime
