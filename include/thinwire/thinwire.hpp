#ifndef THINWIRE_THINWIRE_HPP
#define THINWIRE_THINWIRE_HPP

/// Everything that needs no other library: thinwire/hf and thinwire/runtime are included by those who use them.

#include <thinwire/codec/payload.hpp>
#include <thinwire/comm/loopback.hpp>
#include <thinwire/comm/transport.hpp>
#include <thinwire/config.hpp>
#include <thinwire/core/parameter.hpp>
#include <thinwire/core/thread_pool.hpp>
#include <thinwire/optim/adamw.hpp>
#include <thinwire/optim/demo.hpp>
#include <thinwire/optim/schedule.hpp>
#include <thinwire/version.hpp>

#endif  // THINWIRE_THINWIRE_HPP
