#ifndef THINWIRE_THINWIRE_HPP
#define THINWIRE_THINWIRE_HPP

/// Everything of thinwire::thinwire. Written by tools/amalgamate.py.
#include <thinwire/backend/cpu/buffer.hpp>
#include <thinwire/backend/cpu/fast.hpp>
#include <thinwire/backend/cpu/reference.hpp>
#include <thinwire/comm/effect.hpp>
#include <thinwire/comm/follower.hpp>
#include <thinwire/comm/frame.hpp>
#include <thinwire/comm/machine.hpp>
#include <thinwire/comm/message.hpp>
#include <thinwire/comm/sequencer.hpp>
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
#include <thinwire/nn/block.hpp>
#include <thinwire/nn/config.hpp>
#include <thinwire/nn/decoder.hpp>
#include <thinwire/nn/layers.hpp>
#include <thinwire/nn/plan.hpp>
#include <thinwire/nn/rope.hpp>
#include <thinwire/nn/sampling.hpp>
#include <thinwire/nn/transformer.hpp>
#include <thinwire/nn/workspace.hpp>
#include <thinwire/version.hpp>

#endif  // THINWIRE_THINWIRE_HPP
