#ifndef THINWIRE_CORE_UPWARD_HPP
#define THINWIRE_CORE_UPWARD_HPP
#include <thinwire/optim/demo.hpp>

#include "thinwire/core/error.hpp"
#endif
