#ifndef THINWIRE_RUNTIME_SRC_LISTENING_HPP
#define THINWIRE_RUNTIME_SRC_LISTENING_HPP

#include <thinwire/runtime/node.hpp>

#include "address.hpp"
#include <asio/ip/tcp.hpp>

#include <string>

namespace thinwire::runtime {

/// Has an acceptor listen at an address. Throws node_error.
inline void listen_at(asio::ip::tcp::acceptor& acceptor, const address& where, bool plaintext) {
    const auto refuse = [&](node_errc code, const std::string& why) {
        throw node_error(code, "cannot listen on " + to_string(where) + ": " + why);
    };
    asio::error_code error;
    asio::ip::address host = asio::ip::make_address(where.host, error);
    if (error) {
        asio::ip::tcp::resolver resolver(acceptor.get_executor());
        const auto found = resolver.resolve(where.host, "", asio::ip::resolver_base::passive, error);
        if (error || found.empty())
            refuse(node_errc::unreachable, "host '" + where.host + "' is not known (" + error.message() + ")");
        host = found.begin()->endpoint().address();
    }
    if (!is_loopback(host) && plaintext) refuse(node_errc::unreachable, "plaintext is for loopback addresses only");
    const asio::ip::tcp::endpoint point(host, where.port);
    acceptor.open(point.protocol(), error);
    if (!error) acceptor.set_option(asio::ip::tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor.bind(point, error);
    if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
    if (error == asio::error::address_in_use) refuse(node_errc::port_in_use, "address already in use");
    if (error) refuse(node_errc::unreachable, error.message());
}

}  // namespace thinwire::runtime

#endif  // THINWIRE_RUNTIME_SRC_LISTENING_HPP
