#ifndef THINWIRE_BACKEND_CUDA_DEVICE_CUH
#define THINWIRE_BACKEND_CUDA_DEVICE_CUH

/// The thin layer that kernels are written against: device_span, kernel_thread, shared_memory, and for the host
/// device_scope, stream, event, device_buffer, pinned_buffer, copies and launch(). Compiled by nvcc they are CUDA's.
/// Where THINWIRE_CUDA_EMULATE is defined the same source runs on the host, one thread at a time, and what the
/// programming model leaves undefined is an emulation_error: races, accesses out of bounds, reads of what nobody wrote,
/// barriers that not all threads reach, memory of another device.
#if defined(THINWIRE_CUDA_EMULATE)
#include <thinwire/backend/cuda/detail/emulated_device.hpp>
#elif defined(__CUDACC__)
#include <thinwire/backend/cuda/detail/real_device.cuh>
#else
#error "thinwire/backend/cuda: compile with nvcc, or define THINWIRE_CUDA_EMULATE to run kernels on the host."
#endif

#endif  // THINWIRE_BACKEND_CUDA_DEVICE_CUH
