// Matrix products of the fast back end beside the peak of the machine's multiply-add units, measured in the same run.
// usage: benchmark_gemm [seconds a measurement]

#include <thinwire/backend/cpu/fast.hpp>
#include <thinwire/core/random.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <vector>

namespace {

using namespace thinwire;

using clock_type = std::chrono::steady_clock;

double seconds_since(clock_type::time_point start) {
    return std::chrono::duration<double>(clock_type::now() - start).count();
}

/// Median and least seconds of a call, over calls that together take about `budget` seconds.
struct timing {
    double median, least;
};
timing measure(double budget, const std::function<void()>& call) {
    call();
    std::vector<double> times;
    for (const auto start = clock_type::now(); times.size() < 5 || seconds_since(start) < budget;) {
        const auto begin = clock_type::now();
        call();
        times.push_back(seconds_since(begin));
    }
    std::sort(times.begin(), times.end());
    return {times[times.size() / 2], times.front()};
}

constexpr int chains = 12;  // independent sums: more than latency times throughput of the multiply-add units
constexpr int peak_rounds = 50'000;

#if !THINWIRE_X86_DISPATCH
/// What plain code reaches, not a peak.
float plain_chains() {
    volatile float start = 0.5F;
    float sum[chains];
    THINWIRE_UNROLL
    for (int i = 0; i < chains; ++i) sum[i] = start + static_cast<float>(i);
    const float f = start, g = start;
    for (int r = 0; r < peak_rounds; ++r) {
        THINWIRE_UNROLL
        for (int i = 0; i < chains; ++i) sum[i] = sum[i] * f + g;
    }
    float total = 0;
    for (const float x : sum) total += x;
    return total;
}
#endif

#if THINWIRE_X86_DISPATCH
THINWIRE_TARGET_AVX2 float avx2_chains() {
    volatile float start = 0.5F;
    __m256 sum[chains];
    THINWIRE_UNROLL
    for (int i = 0; i < chains; ++i) sum[i] = _mm256_set1_ps(start + static_cast<float>(i));
    const __m256 f = _mm256_set1_ps(start), g = _mm256_set1_ps(start);
    for (int r = 0; r < peak_rounds; ++r) {
        THINWIRE_UNROLL
        for (int i = 0; i < chains; ++i) sum[i] = _mm256_fmadd_ps(sum[i], f, g);
    }
    __m256 total = sum[0];
    THINWIRE_UNROLL
    for (int i = 1; i < chains; ++i) total = _mm256_add_ps(total, sum[i]);
    return _mm256_cvtss_f32(total);
}
THINWIRE_TARGET_AVX512 float avx512_chains() {
    volatile float start = 0.5F;
    __m512 sum[chains];
    THINWIRE_UNROLL
    for (int i = 0; i < chains; ++i) sum[i] = _mm512_set1_ps(start + static_cast<float>(i));
    const __m512 f = _mm512_set1_ps(start), g = _mm512_set1_ps(start);
    for (int r = 0; r < peak_rounds; ++r) {
        THINWIRE_UNROLL
        for (int i = 0; i < chains; ++i) sum[i] = _mm512_fmadd_ps(sum[i], f, g);
    }
    __m512 total = sum[0];
    THINWIRE_UNROLL
    for (int i = 1; i < chains; ++i) total = _mm512_add_ps(total, sum[i]);
    return _mm512_cvtss_f32(total);
}
#endif

/// Lanes of one multiply-add, for GF/s; the plain code of `scalar` is compared with the best vector unit.
struct peak_kernel {
    float (*chains_of)();
    double lanes;
};
peak_kernel peak_kernel_of(isa level) {
#if THINWIRE_X86_DISPATCH
    if ((level == isa::scalar ? best_isa() : level) == isa::avx512) return {avx512_chains, 16};
    return {avx2_chains, 8};
#else
    static_cast<void>(level);
    return {plain_chains, 1};
#endif
}

/// Multiply-adds of the vector units in GF/s, one chain of dependent ones per register: the best that each thread of
/// the pool reaches while all run, added up.
double peak_of(isa level, thread_pool& pool, double budget) {
    const peak_kernel kernel = peak_kernel_of(level);
    std::vector<float> sink(static_cast<std::size_t>(pool.size()));
    std::vector<double> rate(sink.size());
    pool.parallel_for(sink.size(), [&](std::size_t i) {
        const double least = measure(budget, [&] { sink[i] = kernel.chains_of(); }).least;
        rate[i] = 2.0 * kernel.lanes * chains * peak_rounds / least / 1e9;
    });
    return std::accumulate(rate.begin(), rate.end(), 0.0);
}

struct product {
    int m, n, k;
    bool transpose_a, transpose_b;
};

void run(const product& p, isa level, thread_pool& pool, double peak, double budget) {
    cpu::fast backend(pool, level);
    const auto area = [](int a, int b) { return static_cast<std::size_t>(a) * static_cast<std::size_t>(b); };
    cpu::fast::buffer a = backend.allocate(area(p.m, p.k)), b = backend.allocate(area(p.k, p.n)),
                      c = backend.allocate(area(p.m, p.n));
    random_stream random(7);
    for (std::size_t i = 0; i < a.size(); ++i) a.data()[i] = random.uniform() - 0.5F;
    for (std::size_t i = 0; i < b.size(); ++i) b.data()[i] = random.uniform() - 0.5F;
    const timing t = measure(budget, [&] {
        backend.matmul(c.data(), a.data(), b.data(), p.m, p.n, p.k, p.transpose_a, p.transpose_b, false);
    });
    const double work = 2.0 * p.m * p.n * p.k / 1e9;
    const int threads = pool.size();
    std::printf("%-7s %7d  %5d %5d %5d  %c%c  %8.1f %6.2f  %8.1f %6.2f\n", to_string(level).data(), threads, p.m, p.n,
                p.k, p.transpose_a ? 't' : '-', p.transpose_b ? 't' : '-', work / t.median, work / t.median / peak,
                work / t.least, work / t.least / peak);
    std::printf(
        "{\"benchmark\":\"gemm\",\"isa\":\"%s\",\"threads\":%d,\"m\":%d,\"n\":%d,\"k\":%d,\"transpose_a\":%s,"
        "\"transpose_b\":%s,\"peak_gflops\":%.1f,\"median_gflops\":%.1f,\"best_gflops\":%.1f}\n",
        to_string(level).data(), threads, p.m, p.n, p.k, p.transpose_a ? "true" : "false",
        p.transpose_b ? "true" : "false", peak, work / t.median, work / t.least);
}

}  // namespace

int main(int count, char** arguments) {
    const double budget = count > 1 ? std::atof(arguments[1]) : 0.3;
    // Forward (b transposed), towards the inputs (neither) and towards the weights (a transposed) of a small Llama.
    constexpr product products[] = {
        {1024, 192, 192, false, true}, {1024, 512, 192, false, true},  {1024, 192, 512, false, true},
        {1024, 256, 192, false, true}, {1024, 192, 512, false, false}, {192, 512, 1024, true, false},
        {512, 768, 768, false, true},  {768, 768, 512, true, false},   {1024, 1024, 1024, false, false},
    };
    for (const int threads : {1, 2}) {
        for (const isa level : {isa::avx512, isa::avx2, isa::scalar}) {
            if (level > best_isa()) continue;
            thread_pool pool(threads);
            const double peak = peak_of(level, pool, budget);
            std::printf("%s, %d threads: multiply-add peak %.1f GF/s\n", to_string(level).data(), threads, peak);
            std::printf("isa     threads      m     n     k  ab    median  ratio      best  ratio\n");
            for (const product& p : products) run(p, level, pool, peak, budget);
        }
    }
}
