#ifndef THINWIRE_NN_DEVICE_HPP
#define THINWIRE_NN_DEVICE_HPP

#include <thinwire/backend/cuda/demo.cuh>

#include <cuda_runtime.h>

#endif  // THINWIRE_NN_DEVICE_HPP
