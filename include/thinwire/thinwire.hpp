#ifndef THINWIRE_THINWIRE_HPP
#define THINWIRE_THINWIRE_HPP

/// Everything of thinwire::thinwire. Written by tools/amalgamate.py.
#include <thinwire/backend/cpu/buffer.hpp>
#include <thinwire/backend/cpu/reference.hpp>
#include <thinwire/comm/transport.hpp>
#include <thinwire/config.hpp>
#include <thinwire/core/bytes.hpp>
#include <thinwire/core/digest.hpp>
#include <thinwire/core/error.hpp>
#include <thinwire/core/half.hpp>
#include <thinwire/core/isa.hpp>
#include <thinwire/core/parameter.hpp>
#include <thinwire/core/permutation.hpp>
#include <thinwire/core/random.hpp>
#include <thinwire/core/result.hpp>
#include <thinwire/core/shape.hpp>
#include <thinwire/core/thread_pool.hpp>
#include <thinwire/io/batch_sampler.hpp>
#include <thinwire/io/corpus.hpp>
#include <thinwire/io/file.hpp>
#include <thinwire/io/run_log.hpp>
#include <thinwire/io/snapshot.hpp>
#include <thinwire/nn/backend.hpp>
#include <thinwire/version.hpp>

#endif  // THINWIRE_THINWIRE_HPP
