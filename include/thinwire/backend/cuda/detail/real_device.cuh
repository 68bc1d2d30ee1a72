#ifndef THINWIRE_BACKEND_CUDA_DETAIL_REAL_DEVICE_CUH
#define THINWIRE_BACKEND_CUDA_DETAIL_REAL_DEVICE_CUH

#include <thinwire/core/error.hpp>

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

/// What follows a function that kernels call, and stands before it.
#define THINWIRE_KERNEL __device__ __forceinline__
/// Before a loop whose counter picks elements of a thread's own array: they are registers only if it is unrolled.
#define THINWIRE_UNROLL _Pragma("unroll")

namespace thinwire::cuda {

inline constexpr bool is_emulated = false;

/// Shared memory that one block may have: what the smallest device that CUDA 13 supports grants.
inline constexpr std::size_t most_shared_bytes = 64 * 1024;

/// What the CUDA runtime refused, with its words.
class device_error : public error {
    using error::error;
};

namespace detail {

inline void require(cudaError_t status, const char* operation) {
    if (status == cudaSuccess) return;
    static_cast<void>(cudaGetLastError());  // else who asks for the last error next would take it for its own
    throw device_error(std::string(operation) + ": " + cudaGetErrorString(status) + " (" + cudaGetErrorName(status) +
                       ")");
}

extern __shared__ __align__(16) unsigned char shared_bytes_of_block[];

}  // namespace detail

/// Neighbours that are loaded at once.
template <class T, std::size_t N>
struct alignas(N * sizeof(T)) pack {
    T value[N];
};

/// Elements in memory that a kernel may touch, global or shared, with their number. A plain value. Kernels touch them
/// through load(), store() and the atomic functions alone; the host cannot.
template <class T>
class device_span {
    static_assert(std::is_trivially_copyable_v<T>);
    using value_type = std::remove_const_t<T>;

 public:
    device_span() = default;
    /// Device memory at an address.
    __host__ __device__ device_span(T* data, std::size_t size) : data_(data), size_(size) {}
    template <class U>
    requires std::is_same_v<const U, T> __host__ __device__ device_span(const device_span<U>& other)
    noexcept : data_(other.data()), size_(other.size()) {}

    [[nodiscard]] __host__ __device__ T* data() const noexcept { return data_; }
    [[nodiscard]] __host__ __device__ std::size_t size() const noexcept { return size_; }
    [[nodiscard]] __host__ __device__ device_span subspan(std::size_t from, std::size_t count) const noexcept {
        return device_span(data_ + from, count);
    }

    [[nodiscard]] __device__ __forceinline__ value_type load(std::size_t i) const { return data_[i]; }
    /// Elements i to i + N - 1, which begin at a multiple of N * sizeof(T) bytes; N is 2 or 4.
    template <std::size_t N>
    [[nodiscard]] __device__ __forceinline__ pack<value_type, N> load_pack(std::size_t i) const {
        return *reinterpret_cast<const pack<value_type, N>*>(data_ + i);
    }
    __device__ __forceinline__ void store(std::size_t i, value_type value) const { data_[i] = value; }
    template <std::size_t N>
    __device__ __forceinline__ void store_pack(std::size_t i, const pack<value_type, N>& values) const {
        *reinterpret_cast<pack<value_type, N>*>(data_ + i) = values;
    }
    /// Each returns what was there before.
    __device__ __forceinline__ value_type atomic_add(std::size_t i, value_type value) const {
        return static_cast<value_type>(atomicAdd(word(i), static_cast<word_type>(value)));
    }
    __device__ __forceinline__ value_type atomic_or(std::size_t i, value_type value) const {
        return static_cast<value_type>(atomicOr(word(i), static_cast<word_type>(value)));
    }
    __device__ __forceinline__ value_type atomic_max(std::size_t i, value_type value) const {
        return static_cast<value_type>(atomicMax(word(i), static_cast<word_type>(value)));
    }
    __device__ __forceinline__ value_type atomic_min(std::size_t i, value_type value) const {
        return static_cast<value_type>(atomicMin(word(i), static_cast<word_type>(value)));
    }

 private:
    using word_type = std::conditional_t<sizeof(T) == 8, unsigned long long, unsigned>;
    __device__ __forceinline__ word_type* word(std::size_t i) const { return reinterpret_cast<word_type*>(data_ + i); }

    T* data_ = nullptr;
    std::size_t size_ = 0;
};

/// One thread of a kernel: who it is, and what it does together with others. All functions that wait, wait for every
/// thread of the block, or of the warp of 32, at the same place of the source.
class kernel_thread {
    static constexpr unsigned all = 0xffffffffU;

 public:
    [[nodiscard]] __device__ unsigned index() const { return threadIdx.x; }
    [[nodiscard]] __device__ unsigned threads() const { return blockDim.x; }
    [[nodiscard]] __device__ unsigned block() const { return blockIdx.x; }
    [[nodiscard]] __device__ unsigned blocks() const { return gridDim.x; }
    [[nodiscard]] __device__ unsigned lane() const { return threadIdx.x % 32U; }
    [[nodiscard]] __device__ unsigned warp() const { return threadIdx.x / 32U; }
    [[nodiscard]] __device__ unsigned warps() const { return blockDim.x / 32U; }

    /// The whole block; orders its memory.
    __device__ __forceinline__ void barrier() const { __syncthreads(); }
    /// The warp; orders its memory.
    __device__ __forceinline__ void sync_warp() const { __syncwarp(all); }
    /// The value of another lane, below 32.
    template <class T>
    [[nodiscard]] __device__ __forceinline__ T shuffle(T value, unsigned from) const {
        return __shfl_sync(all, value, static_cast<int>(from));
    }
    /// That of the lane whose number differs by these bits.
    template <class T>
    [[nodiscard]] __device__ __forceinline__ T shuffle_xor(T value, unsigned mask) const {
        return __shfl_xor_sync(all, value, static_cast<int>(mask));
    }
    /// Bit i: what lane i says.
    [[nodiscard]] __device__ __forceinline__ std::uint32_t ballot(bool vote) const { return __ballot_sync(all, vote); }
    /// Matrices of the warp, on its tensor cores: c[16,8] += a[16,16] b[16,8], of bfloat16, two in a word, the first in
    /// the low half; c is float32. With g = lane / 4 and n = 2 (lane % 4) a lane has c0, c1 = c[g, n], c[g, n + 1] and
    /// c2, c3 the same of row g + 8; words of a begin at [g, n], [g + 8, n], [g, n + 8], [g + 8, n + 8] and go along
    /// the row; words of b begin at [n, g], [n + 8, g] and go down the column. Needs compute capability 8.0.
    __device__ __forceinline__ void multiply_add(float& c0, float& c1, float& c2, float& c3,
                                                 const pack<std::uint32_t, 4>& a,
                                                 const pack<std::uint32_t, 2>& b) const {
#if __CUDA_ARCH__ >= 800
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, "
            "%1, %2, %3};"
            : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3)
            : "r"(a.value[0]), "r"(a.value[1]), "r"(a.value[2]), "r"(a.value[3]), "r"(b.value[0]), "r"(b.value[1]));
#else
        asm volatile("trap;");  // cuda::backend refuses such a device, and such code
#endif
    }
    /// Over the warp. By shuffles where there is no instruction for it, below compute capability 8.0.
    [[nodiscard]] __device__ __forceinline__ std::uint32_t sum(std::uint32_t value) const {
#if __CUDA_ARCH__ >= 800
        return __reduce_add_sync(all, value);
#else
        for (unsigned mask = 16; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
        return value;
#endif
    }
    [[nodiscard]] __device__ __forceinline__ std::uint32_t largest(std::uint32_t value) const {
#if __CUDA_ARCH__ >= 800
        return __reduce_max_sync(all, value);
#else
        for (unsigned mask = 16; mask > 0; mask /= 2) value = max(value, shuffle_xor(value, mask));
        return value;
#endif
    }
};

/// Cuts the shared memory of a block into arrays. Every thread makes one and takes the same arrays in the same order.
class shared_memory {
 public:
    __device__ explicit shared_memory(const kernel_thread&) {}
    /// Not initialised; begins at a multiple of 16 bytes.
    template <class T>
    [[nodiscard]] __device__ __forceinline__ device_span<T> take(std::size_t elements, const char*) {
        const std::size_t from = (used_ + 15) / 16 * 16;
        used_ = from + elements * sizeof(T);
        return {reinterpret_cast<T*>(detail::shared_bytes_of_block + from), elements};
    }

 private:
    std::size_t used_ = 0;
};

/// The device that this thread allocates on and launches on. Throws device_error.
[[nodiscard]] inline int current_device() {
    int device = 0;
    detail::require(cudaGetDevice(&device), "cudaGetDevice");
    return device;
}

/// Makes a device the one that this thread allocates on and launches on, until it goes.
class device_scope {
 public:
    /// Throws device_error where there is no such device.
    explicit device_scope(int device) {
        before_ = current_device();
        changes_ = device != before_;
        if (changes_) detail::require(cudaSetDevice(device), "cudaSetDevice");
    }
    device_scope(const device_scope&) = delete;
    device_scope& operator=(const device_scope&) = delete;
    ~device_scope() {
        if (changes_) cudaSetDevice(before_);
    }

 private:
    int before_ = 0;
    bool changes_ = false;
};

/// Work that is done in the order in which it was given, later than the call, on the device that was in use when it was
/// made.
class stream {
 public:
    /// One of its own. Throws device_error.
    stream() : owned_(true) {
        detail::require(cudaStreamCreateWithFlags(&handle_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    }
    /// One that stays the caller's.
    explicit stream(cudaStream_t handle) noexcept : handle_(handle) {}
    stream(const stream&) = delete;
    stream& operator=(const stream&) = delete;
    ~stream() {
        if (owned_) cudaStreamDestroy(handle_);
    }
    [[nodiscard]] cudaStream_t handle() const noexcept { return handle_; }
    /// Throws device_error.
    [[nodiscard]] int device() const {
        int device = 0;
        detail::require(cudaStreamGetDevice(handle_, &device), "cudaStreamGetDevice");
        return device;
    }
    /// Returns when everything is done. Throws device_error, also for what an earlier kernel did wrong.
    void synchronize() { detail::require(cudaStreamSynchronize(handle_), "cudaStreamSynchronize"); }
    /// The same, for destructors: what a kernel did wrong is thrown by the next synchronize() as well.
    void drain() noexcept { static_cast<void>(cudaStreamSynchronize(handle_)); }

 private:
    cudaStream_t handle_ = nullptr;
    bool owned_ = false;
};

/// A point in a stream of the device that was in use when it was made.
class event {
 public:
    event() { detail::require(cudaEventCreateWithFlags(&handle_, cudaEventDisableTiming), "cudaEventCreateWithFlags"); }
    event(event&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    event& operator=(event&& other) noexcept {
        std::swap(handle_, other.handle_);
        return *this;
    }
    ~event() {
        if (handle_ != nullptr) cudaEventDestroy(handle_);
    }
    /// What was given to the stream so far.
    void record(stream& s) { detail::require(cudaEventRecord(handle_, s.handle()), "cudaEventRecord"); }
    /// Returns when that is done. Precondition: recorded.
    void wait() { detail::require(cudaEventSynchronize(handle_), "cudaEventSynchronize"); }
    /// Whether it is done, without waiting. Precondition: recorded. Throws device_error as wait() does.
    [[nodiscard]] bool reached() {
        const cudaError_t status = cudaEventQuery(handle_);
        if (status == cudaErrorNotReady) {
            static_cast<void>(cudaGetLastError());  // no error, but who asks for the last one would take it for that
            return false;
        }
        detail::require(status, "cudaEventQuery");
        return true;
    }

 private:
    cudaEvent_t handle_ = nullptr;
};

/// Memory of its own, on the device that was in use when it was made.
template <class T>
class device_buffer {
 public:
    device_buffer() = default;
    /// Not initialised. Throws device_error.
    explicit device_buffer(std::size_t elements, std::string_view = {}) : size_(elements) {
        if (elements > 0)
            detail::require(cudaMalloc(reinterpret_cast<void**>(&data_), elements * sizeof(T)), "cudaMalloc");
    }
    device_buffer(device_buffer&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    device_buffer& operator=(device_buffer&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        return *this;
    }
    ~device_buffer() { cudaFree(data_); }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    [[nodiscard]] T* data() const noexcept { return data_; }
    [[nodiscard]] device_span<T> span() const noexcept { return {data_, size_}; }

 private:
    T* data_ = nullptr;
    std::size_t size_ = 0;
};

/// Host memory that the device copies from and to beside other work.
template <class T>
class pinned_buffer {
 public:
    pinned_buffer() = default;
    /// Zeros. Throws device_error.
    explicit pinned_buffer(std::size_t elements) : size_(elements) {
        if (elements == 0) return;
        detail::require(cudaHostAlloc(reinterpret_cast<void**>(&data_), elements * sizeof(T), cudaHostAllocDefault),
                        "cudaHostAlloc");
        std::memset(static_cast<void*>(data_), 0, elements * sizeof(T));
    }
    pinned_buffer(pinned_buffer&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    pinned_buffer& operator=(pinned_buffer&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        return *this;
    }
    ~pinned_buffer() { cudaFreeHost(data_); }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    [[nodiscard]] std::span<T> span() noexcept { return {data_, size_}; }
    [[nodiscard]] std::span<const T> span() const noexcept { return {data_, size_}; }

 private:
    T* data_ = nullptr;
    std::size_t size_ = 0;
};

/// Where memory lies.
struct memory_place {
    bool on_device = false;  ///< else in host memory, or nowhere
    bool managed = false;    ///< moves to whoever touches it
    int device = 0;          ///< whose it is
};
/// Throws device_error where there is no device.
[[nodiscard]] inline memory_place place_of_memory(const void* address) {
    cudaPointerAttributes at{};
    detail::require(cudaPointerGetAttributes(&at, address), "cudaPointerGetAttributes");
    return {.on_device = at.type == cudaMemoryTypeDevice || at.type == cudaMemoryTypeManaged,
            .managed = at.type == cudaMemoryTypeManaged,
            .device = at.device};
}

/// Copies of equal size, at their turn in the stream. Host memory stays as it is until then.
template <class T>
void copy_to_device(stream& s, std::span<const T> from, device_span<T> to) {
    if (!from.empty())
        detail::require(cudaMemcpyAsync(to.data(), from.data(), from.size_bytes(), cudaMemcpyHostToDevice, s.handle()),
                        "cudaMemcpyAsync to the device");
}
template <class T>
void copy_to_host(stream& s, device_span<const T> from, std::span<T> to) {
    if (!to.empty())
        detail::require(cudaMemcpyAsync(to.data(), from.data(), to.size_bytes(), cudaMemcpyDeviceToHost, s.handle()),
                        "cudaMemcpyAsync to the host");
}

namespace detail {

template <class Kernel>
__global__ void __launch_bounds__(Kernel::threads, Kernel::resident) run_kernel(const Kernel kernel) {
    kernel(kernel_thread());
}

}  // namespace detail

/// The compute capability, times ten, whose instructions the code has that the device in use would run of a kernel:
/// that of nvcc's -arch, the device's own or an older one. Throws device_error, also where there is no such code.
template <class Kernel>
[[nodiscard]] int compiled_for() {
    cudaFuncAttributes code{};
    detail::require(cudaFuncGetAttributes(&code, detail::run_kernel<Kernel>), "cudaFuncGetAttributes");
    return code.ptxVersion;
}

/// Runs kernel(thread) for `blocks` blocks of Kernel::threads threads with so much shared memory each. A kernel is a
/// plain struct whose members are its arguments, with `name`, `threads` and `resident`: how many blocks a
/// multiprocessor shall have registers for. Throws device_error.
template <class Kernel>
void launch(stream& s, const Kernel& kernel, unsigned blocks, std::size_t shared_bytes) {
    if (blocks == 0) return;
    if (shared_bytes > most_shared_bytes)
        throw device_error("kernel '" + std::string(Kernel::name) + "': " + std::to_string(shared_bytes) +
                           " bytes of shared memory, expected " + std::to_string(most_shared_bytes) + " at most");
    if (shared_bytes > 48 * 1024)
        detail::require(cudaFuncSetAttribute(detail::run_kernel<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                             static_cast<int>(shared_bytes)),
                        "cudaFuncSetAttribute");
    void* arguments[] = {const_cast<Kernel*>(&kernel)};
    const cudaError_t status =
        cudaLaunchKernel(reinterpret_cast<const void*>(&detail::run_kernel<Kernel>), dim3(blocks),
                         dim3(Kernel::threads), arguments, shared_bytes, s.handle());
    if (status != cudaSuccess)
        detail::require(status, ("launch of kernel '" + std::string(Kernel::name) + "'").c_str());
}

/// Single operations, rounded to nearest once each, that no compiler joins with another.
[[nodiscard]] __device__ __forceinline__ float multiply(float a, float b) {
    return __fmul_rn(a, b);
}
[[nodiscard]] __device__ __forceinline__ float subtract(float a, float b) {
    return __fsub_rn(a, b);
}
/// The nearest float.
[[nodiscard]] __device__ __forceinline__ float to_float(std::int64_t value) {
    return __ll2float_rn(value);
}
[[nodiscard]] __device__ __forceinline__ std::uint32_t bits_of(float value) {
    return __float_as_uint(value);
}
[[nodiscard]] __device__ __forceinline__ float float_of(std::uint32_t bits) {
    return __uint_as_float(bits);
}
[[nodiscard]] __device__ __forceinline__ unsigned count_ones(std::uint32_t bits) {
    return static_cast<unsigned>(__popc(bits));
}
/// The lowest bit that is set. Precondition: there is one.
[[nodiscard]] __device__ __forceinline__ unsigned lowest_one(std::uint32_t bits) {
    return static_cast<unsigned>(__ffs(static_cast<int>(bits)) - 1);
}

}  // namespace thinwire::cuda

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_REAL_DEVICE_CUH
