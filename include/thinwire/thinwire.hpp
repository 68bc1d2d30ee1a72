#ifndef THINWIRE_THINWIRE_HPP
#define THINWIRE_THINWIRE_HPP

/// What an own training loop calls: the optimizers and what carries payloads. Written by tools/amalgamate.py.
#include <thinwire/codec/bit_stream.hpp>
#include <thinwire/codec/checksum.hpp>
#include <thinwire/codec/payload.hpp>
#include <thinwire/codec/payload_layout.hpp>
#include <thinwire/codec/section_coder.hpp>
#include <thinwire/codec/sparse_content.hpp>
#include <thinwire/codec/top_k.hpp>
#include <thinwire/codec/value_code.hpp>
#include <thinwire/codec/value_codec.hpp>
#include <thinwire/comm/loopback.hpp>
#include <thinwire/comm/transport.hpp>
#include <thinwire/config.hpp>
#include <thinwire/core/aligned.hpp>
#include <thinwire/core/bytes.hpp>
#include <thinwire/core/digest.hpp>
#include <thinwire/core/error.hpp>
#include <thinwire/core/float_mode.hpp>
#include <thinwire/core/half.hpp>
#include <thinwire/core/isa.hpp>
#include <thinwire/core/parameter.hpp>
#include <thinwire/core/permutation.hpp>
#include <thinwire/core/random.hpp>
#include <thinwire/core/result.hpp>
#include <thinwire/core/shape.hpp>
#include <thinwire/core/thread_pool.hpp>
#include <thinwire/optim/adamw.hpp>
#include <thinwire/optim/clip.hpp>
#include <thinwire/optim/demo.hpp>
#include <thinwire/optim/demo_options.hpp>
#include <thinwire/optim/muon.hpp>
#include <thinwire/optim/optimizer.hpp>
#include <thinwire/optim/schedule.hpp>
#include <thinwire/optim/step_report.hpp>
#include <thinwire/optim/update_rule.hpp>
#include <thinwire/transform/basis.hpp>
#include <thinwire/transform/basis_tables.hpp>
#include <thinwire/transform/chunk_grid.hpp>
#include <thinwire/transform/dct.hpp>
#include <thinwire/transform/kernels.hpp>
#include <thinwire/transform/orthogonal.hpp>
#include <thinwire/transform/sparse_chunk.hpp>
#include <thinwire/version.hpp>

#endif  // THINWIRE_THINWIRE_HPP
