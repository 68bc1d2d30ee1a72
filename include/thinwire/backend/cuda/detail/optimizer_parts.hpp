#ifndef THINWIRE_BACKEND_CUDA_DETAIL_OPTIMIZER_PARTS_HPP
#define THINWIRE_BACKEND_CUDA_DETAIL_OPTIMIZER_PARTS_HPP

/// What cuda::demo has in common with demo. The front end of nvcc does not know GCC's unroll pragma, which it need not:
/// what follows it runs on the host.
#if defined(__CUDACC__)
#pragma nv_diagnostic push
#pragma nv_diag_suppress 1675
#endif

#include <thinwire/codec/payload.hpp>
#include <thinwire/comm/transport.hpp>
#include <thinwire/core/float_mode.hpp>
#include <thinwire/core/thread_pool.hpp>
#include <thinwire/optim/demo_cut.hpp>
#include <thinwire/optim/demo_options.hpp>
#include <thinwire/optim/detail/chunk_plan.hpp>
#include <thinwire/optim/detail/parallel.hpp>
#include <thinwire/optim/detail/payload_lanes.hpp>
#include <thinwire/optim/detail/private_state.hpp>
#include <thinwire/optim/detail/round_keeper.hpp>
#include <thinwire/optim/detail/update_rates.hpp>
#include <thinwire/optim/optimizer.hpp>

#if defined(__CUDACC__)
#pragma nv_diagnostic pop
#endif

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_OPTIMIZER_PARTS_HPP
