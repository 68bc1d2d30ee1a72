#ifndef THINWIRE_NCCL_DETAIL_LIBRARY_CUH
#define THINWIRE_NCCL_DETAIL_LIBRARY_CUH

#include <thinwire/backend/cuda/device.cuh>

/// NCCL, or, where kernels are emulated, what checks and computes in its place under the same names.
#if defined(THINWIRE_CUDA_EMULATE)
#include <thinwire/nccl/detail/emulated_nccl.hpp>
#else
#include <nccl.h>
#if NCCL_VERSION_CODE < NCCL_VERSION(2, 14, 0)
#error "thinwire/nccl: NCCL 2.14 or later is needed, whose communicators need not block."
#endif
#endif

#endif  // THINWIRE_NCCL_DETAIL_LIBRARY_CUH
