#ifndef THINWIRE_BACKEND_CUDA_DETAIL_MAP_KERNEL_CUH
#define THINWIRE_BACKEND_CUDA_DETAIL_MAP_KERNEL_CUH

#include <thinwire/backend/cuda/device.cuh>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace thinwire::cuda::detail {

/// What is done to each of `count` elements, or pairs of them, apart from all others: map(i) for every i.
template <class Map>
struct map_kernel {
    static constexpr std::string_view name = Map::name;
    static constexpr unsigned threads = 256;
    static constexpr unsigned resident = 4;

    Map map;
    std::size_t count = 0;

    static constexpr unsigned at_once = 4;  ///< elements of a thread, so that loads need not wait for each other

    [[nodiscard]] static unsigned blocks(std::size_t count) {
        return static_cast<unsigned>((count + std::size_t{at_once} * threads - 1) / (std::size_t{at_once} * threads));
    }
    THINWIRE_KERNEL void operator()(const kernel_thread& self) const {
        const std::size_t first = std::size_t{self.block()} * at_once * threads + self.index();
        THINWIRE_UNROLL
        for (unsigned n = 0; n < at_once; ++n)
            if (first + n * threads < count) map(first + n * threads);
    }
};

template <class Map>
void launch_map(stream& on, const Map& map, std::size_t count) {
    launch(on, map_kernel<Map>{map, count}, map_kernel<Map>::blocks(count), 0);
}

/// y += x
struct add_map {
    static constexpr std::string_view name = "add";
    device_span<float> y;
    device_span<const float> x;
    THINWIRE_KERNEL void operator()(std::size_t i) const { y.store(i, y.load(i) + x.load(i)); }
};

struct copy_map {
    static constexpr std::string_view name = "copy";
    device_span<float> y;
    device_span<const float> x;
    THINWIRE_KERNEL void operator()(std::size_t i) const { y.store(i, x.load(i)); }
};

/// Every row of y += bias.
struct add_bias_map {
    static constexpr std::string_view name = "add_bias";
    device_span<float> y;
    device_span<const float> bias;
    THINWIRE_KERNEL void operator()(std::size_t i) const { y.store(i, y.load(i) + bias.load(i % bias.size())); }
};

/// One pair (i, i + head_dim / 2) of a head each.
struct rope_map {
    static constexpr std::string_view name = "rope";
    device_span<float> x;
    device_span<const float> cosine, sine;
    unsigned tokens = 0, heads = 0, half = 0, stride = 0, first_position = 0;
    float direction = 1.0F;

    THINWIRE_KERNEL void operator()(std::size_t i) const {
        const auto pair = static_cast<unsigned>(i % half);
        const std::size_t head = i / half, row = head / heads;
        const std::size_t entry = (first_position + row % tokens) * half + pair;
        const std::size_t at = row * stride + head % heads * 2 * half + pair;
        const float c = cosine.load(entry), s = direction * sine.load(entry);
        const float first = x.load(at), second = x.load(at + half);
        x.store(at, first * c - second * s);
        x.store(at + half, second * c + first * s);
    }
};

THINWIRE_KERNEL float sigmoid(float x) {
    return 1.0F / (1.0F + expf(-x));
}

struct silu_mul_map {
    static constexpr std::string_view name = "silu_mul";
    device_span<float> y;
    device_span<const float> gate, up;
    THINWIRE_KERNEL void operator()(std::size_t i) const {
        const float g = gate.load(i);
        y.store(i, g * sigmoid(g) * up.load(i));
    }
};
struct silu_mul_backward_map {
    static constexpr std::string_view name = "silu_mul_backward";
    device_span<float> dgate, dup;
    device_span<const float> dy, gate, up;
    THINWIRE_KERNEL void operator()(std::size_t i) const {
        const float g = gate.load(i), d = dy.load(i), s = sigmoid(g);
        dgate.store(i, d * up.load(i) * (s * (1.0F + g * (1.0F - s))));
        dup.store(i, d * g * s);
    }
};

inline constexpr float gelu_cubic = 0.044715F;
inline constexpr float gelu_scale = 0.797884560802865356F;      // sqrt(2 / pi)
inline constexpr float half_root = 0.707106781186547524F;       // sqrt(1 / 2)
inline constexpr float normal_density = 0.398942280401432678F;  // 1 / sqrt(2 pi)

THINWIRE_KERNEL float gelu_inner(float x) {
    return gelu_scale * (x + gelu_cubic * x * x * x);
}
THINWIRE_KERNEL float normal_cdf(float x) {
    return 0.5F * (1.0F + erff(x * half_root));
}

struct gelu_map {
    static constexpr std::string_view name = "gelu";
    device_span<float> y;
    device_span<const float> x;
    bool tanh_form = false;
    THINWIRE_KERNEL void operator()(std::size_t i) const {
        const float v = x.load(i);
        y.store(i, v * (tanh_form ? 0.5F * (1.0F + tanhf(gelu_inner(v))) : normal_cdf(v)));
    }
};
struct gelu_backward_map {
    static constexpr std::string_view name = "gelu_backward";
    device_span<float> dx;
    device_span<const float> dy, x;
    bool tanh_form = false;
    THINWIRE_KERNEL void operator()(std::size_t i) const {
        const float v = x.load(i);
        float slope = 0.0F;
        if (tanh_form) {
            const float t = tanhf(gelu_inner(v));
            const float inner_slope = gelu_scale * (1.0F + 3.0F * gelu_cubic * v * v);
            slope = 0.5F * (1.0F + t) + 0.5F * v * (1.0F - t * t) * inner_slope;
        } else {
            slope = normal_cdf(v) + v * normal_density * expf(-0.5F * v * v);
        }
        dx.store(i, dy.load(i) * slope);
    }
};

/// Row r of y is row ids[r] of the table. Precondition: there is one.
struct embedding_map {
    static constexpr std::string_view name = "embedding";
    device_span<float> y;
    device_span<const float> table;
    device_span<const std::int32_t> ids;
    unsigned columns = 0;
    THINWIRE_KERNEL void operator()(std::size_t i) const {
        const auto row = static_cast<std::size_t>(ids.load(i / columns));
        y.store(i, table.load(row * columns + i % columns));
    }
};

/// The nearest bfloat16, ties to even; a NaN stays one.
THINWIRE_KERNEL std::uint16_t to_bfloat16(float value) {
    const std::uint32_t bits = bits_of(value);
    if ((bits & 0x7fffffffU) > 0x7f800000U) return static_cast<std::uint16_t>((bits >> 16U) | 0x40U);
    return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16U) & 1U)) >> 16U);
}

/// A matrix as bfloat16, each row begun at a multiple of `pitch` elements.
struct to_bfloat16_map {
    static constexpr std::string_view name = "to_bfloat16";
    device_span<std::uint16_t> y;
    device_span<const float> x;
    std::size_t columns = 0, pitch = 0;
    THINWIRE_KERNEL void operator()(std::size_t i) const {
        y.store(i / columns * pitch + i % columns, to_bfloat16(x.load(i)));
    }
};

}  // namespace thinwire::cuda::detail

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_MAP_KERNEL_CUH
