#ifndef THINWIRE_OPTIM_FOREIGN_HPP
#define THINWIRE_OPTIM_FOREIGN_HPP
#include <thinwire/comm/loopback.hpp>
#include <thinwire/comm/transport.hpp>

#include <nlohmann/json.hpp>
inline void say() {
    std::printf("exit(1)\n");
}  // abort()
#endif
