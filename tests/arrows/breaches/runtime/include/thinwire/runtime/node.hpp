#ifndef THINWIRE_RUNTIME_NODE_HPP
#define THINWIRE_RUNTIME_NODE_HPP
#include <thinwire/nn/transformer.hpp>

#include <asio/ip/tcp.hpp>
#endif
