#ifndef THINWIRE_VERSION_HPP
#define THINWIRE_VERSION_HPP

/// The one place that states the version; CMake, the packages and the wire handshake read it from here.
#define THINWIRE_VERSION_MAJOR 0
#define THINWIRE_VERSION_MINOR 1
#define THINWIRE_VERSION_PATCH 0
#define THINWIRE_VERSION_STRING "0.1.0"

#endif  // THINWIRE_VERSION_HPP
