#ifndef THINWIRE_BACKEND_CUDA_DETAIL_CUBLAS_MATMUL_CUH
#define THINWIRE_BACKEND_CUDA_DETAIL_CUBLAS_MATMUL_CUH

#include <thinwire/backend/cuda/detail/matmul_plan.hpp>
#include <thinwire/backend/cuda/device.cuh>

#include <cublasLt.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>

namespace thinwire::cuda::detail {

/// Matrix products by cuBLASLt: one handle, one workspace, and for each shape the algorithm that the library's
/// heuristic names first, asked for once.
class matmul_library {
 public:
    /// Throws device_error, value_error for a precision that the device has no tensor cores for.
    explicit matmul_library(matmul_precision precision)
        : precision_(precision), workspace_(workspace_bytes, "cuBLAS workspace") {
        int device = 0, major = 0;
        require(cudaGetDevice(&device), "cudaGetDevice");
        require(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
        if (precision != matmul_precision::f32 && major < 8)
            throw value_error("cuda::backend: precision " + std::string(to_string(precision)) +
                              " on a device of compute capability " + std::to_string(major) +
                              ".x, expected 8.0 at least");
        check(cublasLtCreate(&handle_), "cublasLtCreate", nullptr);
    }
    matmul_library(const matmul_library&) = delete;
    matmul_library& operator=(const matmul_library&) = delete;
    ~matmul_library() {
        plans_.clear();
        cublasLtDestroy(handle_);
    }

    /// a and b: float32, or bfloat16 for that precision. Throws device_error naming call, shape and status.
    void run(stream& on, const matmul_plan& p, const void* a, const void* b, float* c) {
        auto found = plans_.find(p);
        if (found == plans_.end()) found = plans_.emplace(p, prepare(p)).first;
        const prepared& how = found->second;
        const float one = 1.0F, beta = p.accumulate ? 1.0F : 0.0F;
        check(cublasLtMatmul(handle_, how.operation.get(), &one, a, how.a.get(), b, how.b.get(), &beta, c, how.c.get(),
                             c, how.c.get(), &how.algorithm, workspace_.data(), workspace_bytes, on.handle()),
              "cublasLtMatmul", &p);
    }

 private:
    static constexpr std::size_t workspace_bytes = std::size_t{32} << 20U;  // what NVIDIA advises for Hopper

    /// A descriptor of the library.
    template <class T, cublasStatus_t (*Destroy)(T)>
    class owned {
     public:
        owned() = default;
        owned(owned&& other) noexcept : made_(std::exchange(other.made_, nullptr)) {}
        owned& operator=(owned&& other) noexcept {
            std::swap(made_, other.made_);
            return *this;
        }
        ~owned() {
            if (made_ != nullptr) Destroy(made_);
        }
        [[nodiscard]] T get() const noexcept { return made_; }
        [[nodiscard]] T* put() noexcept { return &made_; }

     private:
        T made_ = nullptr;
    };
    using layout = owned<cublasLtMatrixLayout_t, &cublasLtMatrixLayoutDestroy>;

    struct prepared {
        owned<cublasLtMatmulDesc_t, &cublasLtMatmulDescDestroy> operation;
        layout a, b, c;
        cublasLtMatmulAlgo_t algorithm{};
    };

    void check(cublasStatus_t status, const char* call, const matmul_plan* p) const {
        if (status != CUBLAS_STATUS_SUCCESS)
            throw device_error(std::string(call) + (p == nullptr ? "" : ", " + describe(*p, precision_)) + ": " +
                               cublasLtGetStatusString(status) + " (" + cublasLtGetStatusName(status) + ")");
    }

    void make(layout& made, cudaDataType_t type, std::uint64_t rows, std::uint64_t columns, std::int64_t pitch,
              const matmul_plan& p) const {
        check(cublasLtMatrixLayoutCreate(made.put(), type, rows, columns, pitch), "cublasLtMatrixLayoutCreate", &p);
    }

    [[nodiscard]] prepared prepare(const matmul_plan& p) const {
        prepared out;
        check(cublasLtMatmulDescCreate(
                  out.operation.put(),
                  precision_ == matmul_precision::tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F),
              "cublasLtMatmulDescCreate", &p);
        const auto set = [&](cublasLtMatmulDescAttributes_t which, bool transposed) {
            const cublasOperation_t value = transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
            check(cublasLtMatmulDescSetAttribute(out.operation.get(), which, &value, sizeof value),
                  "cublasLtMatmulDescSetAttribute", &p);
        };
        set(CUBLASLT_MATMUL_DESC_TRANSA, p.transpose_a);
        set(CUBLASLT_MATMUL_DESC_TRANSB, p.transpose_b);
        const cudaDataType_t inputs = precision_ == matmul_precision::bf16 ? CUDA_R_16BF : CUDA_R_32F;
        make(out.a, inputs, p.a_rows(), p.a_columns(), p.a_pitch, p);
        make(out.b, inputs, p.b_rows(), p.b_columns(), p.b_pitch, p);
        make(out.c, CUDA_R_32F, p.m, p.n, p.c_pitch, p);
        choose(out, p);
        return out;
    }

    void choose(prepared& out, const matmul_plan& p) const {
        owned<cublasLtMatmulPreference_t, &cublasLtMatmulPreferenceDestroy> preference;
        check(cublasLtMatmulPreferenceCreate(preference.put()), "cublasLtMatmulPreferenceCreate", &p);
        const auto set = [&](cublasLtMatmulPreferenceAttributes_t which, const auto& value) {
            check(cublasLtMatmulPreferenceSetAttribute(preference.get(), which, &value, sizeof value),
                  "cublasLtMatmulPreferenceSetAttribute", &p);
        };
        set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes);
        set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, p.a_align);
        set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, p.b_align);
        set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, p.c_align);
        set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, p.c_align);
        cublasLtMatmulHeuristicResult_t result{};
        int results = 0;
        check(cublasLtMatmulAlgoGetHeuristic(handle_, out.operation.get(), out.a.get(), out.b.get(), out.c.get(),
                                             out.c.get(), preference.get(), 1, &result, &results),
              "cublasLtMatmulAlgoGetHeuristic", &p);
        if (results == 0) check(CUBLAS_STATUS_NOT_SUPPORTED, "cublasLtMatmulAlgoGetHeuristic", &p);
        check(result.state, "cublasLtMatmulAlgoGetHeuristic", &p);
        out.algorithm = result.algo;
    }

    matmul_precision precision_;
    device_buffer<std::byte> workspace_;
    cublasLtHandle_t handle_ = nullptr;
    std::map<matmul_plan, prepared> plans_;
};

}  // namespace thinwire::cuda::detail

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_CUBLAS_MATMUL_CUH
