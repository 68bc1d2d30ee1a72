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

/// What is done to each element of a matrix, apart from all others: map(row, column), or, where map.may_pack() says so
/// of its memory, map.four(row, column) for it and the three behind it, from a multiple of four on. Warps take rows,
/// their lanes neighbouring columns, so that no element costs a division by a size.
template <class Map>
struct rows_kernel {
    static constexpr std::string_view name = Map::name;
    static constexpr unsigned threads = 256;
    static constexpr unsigned resident = 4;

    Map map;
    std::size_t rows = 0, columns = 0;
    std::size_t strips = 1;  ///< warps of a row
    bool packs = false;

    [[nodiscard]] static std::size_t strips_of(std::size_t columns) { return columns < 1024 ? 1 : columns / 512; }
    [[nodiscard]] unsigned blocks() const {
        return static_cast<unsigned>((rows * strips + threads / 32 - 1) / (threads / 32));
    }
    THINWIRE_KERNEL void operator()(const kernel_thread& self) const {
        const std::size_t item = std::size_t{self.block()} * self.warps() + self.warp();
        const std::size_t row = item / strips, first = (item - row * strips) * 32 + self.lane();
        if (row >= rows) return;
        const std::size_t packed = packs ? columns / 4 * 4 : 0;
        for (std::size_t column = 4 * first; column < packed; column += 128 * strips) map.four(row, column);
        for (std::size_t column = packed + first; column < columns; column += 32 * strips) map(row, column);
    }
};

template <class Map>
void launch_rows(stream& on, const Map& map, std::size_t rows, std::size_t columns) {
    const rows_kernel<Map> kernel = {map, rows, columns, rows_kernel<Map>::strips_of(columns), map.may_pack()};
    launch(on, kernel, kernel.blocks(), 0);
}

/// Whether packs of four floats may be taken from rows that begin at multiples of `pitch` elements.
[[nodiscard]] inline bool takes_packs(const void* address, std::size_t pitch) {
    return pitch % 4 == 0 && reinterpret_cast<std::uintptr_t>(address) % (4 * sizeof(float)) == 0;
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

    [[nodiscard]] bool may_pack() const { return takes_packs(y.data(), bias.size()) && takes_packs(bias.data(), 4); }
    THINWIRE_KERNEL void operator()(std::size_t row, std::size_t column) const {
        const std::size_t at = row * bias.size() + column;
        y.store(at, y.load(at) + bias.load(column));
    }
    THINWIRE_KERNEL void four(std::size_t row, std::size_t column) const {
        const std::size_t at = row * bias.size() + column;
        auto sums = y.template load_pack<4>(at);
        const auto added = bias.template load_pack<4>(column);
        for (unsigned n = 0; n < 4; ++n) sums.value[n] += added.value[n];
        y.template store_pack<4>(at, sums);
    }
};

/// Of a matrix with a column for each pair (i, i + head_dim / 2) of every head.
struct rope_map {
    static constexpr std::string_view name = "rope";
    device_span<float> x;
    device_span<const float> cosine, sine;
    unsigned tokens = 0, half = 0;
    std::size_t stride = 0, first_position = 0;
    float direction = 1.0F;

    [[nodiscard]] bool may_pack() const {
        return half % 4 == 0 && takes_packs(x.data(), stride) && takes_packs(cosine.data(), 4) &&
               takes_packs(sine.data(), 4);
    }
    THINWIRE_KERNEL void operator()(std::size_t row, std::size_t column) const {
        const place p = place_of(row, column);
        const float c = cosine.load(p.entry), s = direction * sine.load(p.entry);
        const float first = x.load(p.at), second = x.load(p.at + half);
        x.store(p.at, first * c - second * s);
        x.store(p.at + half, second * c + first * s);
    }
    THINWIRE_KERNEL void four(std::size_t row, std::size_t column) const {
        const place p = place_of(row, column);
        const auto c = cosine.template load_pack<4>(p.entry), s = sine.template load_pack<4>(p.entry);
        const auto first = x.template load_pack<4>(p.at), second = x.template load_pack<4>(p.at + half);
        pack<float, 4> low, high;
        for (unsigned n = 0; n < 4; ++n) {
            low.value[n] = first.value[n] * c.value[n] - second.value[n] * (direction * s.value[n]);
            high.value[n] = second.value[n] * c.value[n] + first.value[n] * (direction * s.value[n]);
        }
        x.template store_pack<4>(p.at, low);
        x.template store_pack<4>(p.at + half, high);
    }

 private:
    struct place {
        std::size_t entry;  ///< of the tables
        std::size_t at;     ///< of the pair's first
    };
    THINWIRE_KERNEL place place_of(std::size_t row, std::size_t column) const {
        const auto pair = static_cast<unsigned>(column);  // 32 bits: 64 are divided by a long sequence of instructions
        const unsigned head = pair / half, position = static_cast<unsigned>(row) % tokens;
        return {(first_position + position) * half + pair % half, row * stride + head * half + pair};
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
    std::size_t columns = 0;

    [[nodiscard]] bool may_pack() const { return takes_packs(y.data(), columns) && takes_packs(table.data(), columns); }
    THINWIRE_KERNEL void operator()(std::size_t row, std::size_t column) const {
        y.store(row * columns + column, table.load(entry(row) + column));
    }
    THINWIRE_KERNEL void four(std::size_t row, std::size_t column) const {
        y.template store_pack<4>(row * columns + column, table.template load_pack<4>(entry(row) + column));
    }

 private:
    THINWIRE_KERNEL std::size_t entry(std::size_t row) const {
        return static_cast<std::size_t>(ids.load(row)) * columns;
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

    [[nodiscard]] bool may_pack() const { return pitch % 4 == 0 && takes_packs(x.data(), columns); }
    THINWIRE_KERNEL void operator()(std::size_t row, std::size_t column) const {
        y.store(row * pitch + column, to_bfloat16(x.load(row * columns + column)));
    }
    THINWIRE_KERNEL void four(std::size_t row, std::size_t column) const {
        const auto wide = x.template load_pack<4>(row * columns + column);
        pack<std::uint16_t, 4> narrow;
        for (unsigned n = 0; n < 4; ++n) narrow.value[n] = to_bfloat16(wide.value[n]);
        y.template store_pack<4>(row * pitch + column, narrow);
    }
};

}  // namespace thinwire::cuda::detail

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_MAP_KERNEL_CUH
