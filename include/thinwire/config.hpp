#ifndef THINWIRE_CONFIG_HPP
#define THINWIRE_CONFIG_HPP

#if defined(_MSVC_LANG) ? (_MSVC_LANG < 202002L) : (__cplusplus < 202002L)
#error "thinwire needs C++20: compile with -std=c++20 or later (target_link_libraries(... thinwire::thinwire) does it)."
#endif

#if (defined(__x86_64__) || defined(_M_X64)) && (defined(__GNUC__) || defined(__clang__))
/// 1 where functions can be compiled for an instruction set of their own and chosen at run time.
#define THINWIRE_X86_DISPATCH 1
#define THINWIRE_TARGET_AVX2 __attribute__((target("avx2,fma")))
#define THINWIRE_TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#else
#define THINWIRE_X86_DISPATCH 0
#endif

#if defined(__GNUC__) || defined(__clang__)
#define THINWIRE_RESTRICT __restrict__
#define THINWIRE_ALWAYS_INLINE inline __attribute__((always_inline))
#else
#define THINWIRE_RESTRICT
#define THINWIRE_ALWAYS_INLINE inline
#endif

/// Stands before the few functions that kernels of a device share with the host.
#if defined(__CUDACC__)
#define THINWIRE_HOST_DEVICE __host__ __device__
#else
#define THINWIRE_HOST_DEVICE
#endif

#endif  // THINWIRE_CONFIG_HPP
