#ifndef THINWIRE_COMM_MACHINE_HPP
#define THINWIRE_COMM_MACHINE_HPP

/// The protocol of a run as two pure state machines, without sockets, clock, files or threads. Events go in by member
/// functions, each with the time; effects come out of take_effects(); tick() is to be called at wake_at().
/// docs/protocol.md tells the rules; the runtime drives them over TCP, tests/unit/comm/simulator.hpp in virtual time.
#include <thinwire/comm/effect.hpp>
#include <thinwire/comm/follower.hpp>
#include <thinwire/comm/frame.hpp>
#include <thinwire/comm/sequencer.hpp>

#endif  // THINWIRE_COMM_MACHINE_HPP
