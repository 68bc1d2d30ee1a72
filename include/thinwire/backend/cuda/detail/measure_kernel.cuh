#ifndef THINWIRE_BACKEND_CUDA_DETAIL_MEASURE_KERNEL_CUH
#define THINWIRE_BACKEND_CUDA_DETAIL_MEASURE_KERNEL_CUH

#include <thinwire/backend/cuda/detail/block.cuh>
#include <thinwire/backend/cuda/detail/tensor_view.cuh>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace thinwire::cuda::detail {

inline constexpr std::uint32_t no_element = 0xffffffffU;

enum class refusal : std::uint32_t { none = 0, not_finite = 1, absurd = 2 };

/// What is known of the gradients once all were measured.
struct step_numbers {
    double norm = 0.0;
    float gain = 0.0F;          ///< what gradients are multiplied by
    std::uint32_t refused = 0;  ///< a refusal
    std::uint32_t piece = 0;    ///< not finite: in which piece, and which element of it
    std::uint32_t element = no_element;
};

/// Part of a tensor's gradient that one block measures.
struct gradient_piece {
    std::uint64_t from = 0;
    std::uint32_t region = 0;  ///< the first of the tensor
    std::uint32_t count = 0;
};
struct piece_measure {
    double squares = 0.0;
    std::uint32_t first_bad = no_element;  ///< the first element that is not finite
    std::uint32_t unused = 0;
};

/// The sum of squares of each piece, and where it is not finite. One piece a block.
struct measure_kernel {
    static constexpr std::string_view name = "measure";
    static constexpr unsigned threads = 256;
    static constexpr unsigned resident = 4;

    device_span<const region_view> regions;
    device_span<const gradient_piece> pieces;
    device_span<piece_measure> measures;

    [[nodiscard]] static constexpr std::size_t shared_bytes() { return 4 * reduce_room + 8 * 32; }

    THINWIRE_KERNEL void operator()(const kernel_thread& self) const {
        shared_memory area(self);
        const device_span<std::uint32_t> room = area.take<std::uint32_t>(reduce_room, "room");
        const device_span<double> sums = area.take<double>(32, "sums");
        const gradient_piece piece = pieces.load(self.block());
        const device_span<float> gradient = regions.load(piece.region).gradient;
        double squares = 0.0;
        std::uint32_t good = 0;  // ~ of the first that is not finite
        for (std::uint32_t i = self.index(); i < piece.count; i += self.threads()) {
            const float value = gradient.load(piece.from + i);
            squares += static_cast<double>(value) * static_cast<double>(value);
            if ((bits_of(value) & 0x7fffffffU) >= 0x7f800000U && good < ~i) good = ~i;
        }
        unsigned turn = 0;
        const std::uint32_t first_bad = ~block_largest(self, good, room, turn);
        const double total = block_sum(self, squares, sums);
        if (self.index() == 0) measures.store(self.block(), {total, first_bad, 0U});
    }
};

/// From the pieces' measures, in one block: norm, gain and whether the gradients are refused.
struct decide_kernel {
    static constexpr std::string_view name = "decide";
    static constexpr unsigned threads = 256;
    static constexpr unsigned resident = 4;

    device_span<const piece_measure> measures;
    device_span<step_numbers> numbers;
    double gain = 1.0, clip_norm = 0.0;

    [[nodiscard]] static constexpr std::size_t shared_bytes() { return measure_kernel::shared_bytes(); }

    THINWIRE_KERNEL void operator()(const kernel_thread& self) const {
        shared_memory area(self);
        const device_span<std::uint32_t> room = area.take<std::uint32_t>(reduce_room, "room");
        const device_span<double> sums = area.take<double>(32, "sums");
        double squares = 0.0;
        std::uint32_t good = 0;
        for (std::uint32_t i = self.index(); i < measures.size(); i += self.threads()) {
            const piece_measure measure = measures.load(i);
            squares += measure.squares;
            if (measure.first_bad != no_element && good < ~i) good = ~i;
        }
        unsigned turn = 0;
        const std::uint32_t bad_piece = ~block_largest(self, good, room, turn);
        const double total = block_sum(self, squares, sums);
        if (self.index() != 0) return;
        step_numbers n;
        n.norm = sqrt(total);
        double factor = gain;
        if (clip_norm > 0.0 && clip_norm < n.norm + 1e-6) factor *= clip_norm / (n.norm + 1e-6);
        n.gain = static_cast<float>(factor);
        if (bad_piece != no_element) {
            n.refused = static_cast<std::uint32_t>(refusal::not_finite);
            n.piece = bad_piece;
            n.element = measures.load(bad_piece).first_bad;
        } else if (!(n.norm * factor < 0x1p60)) {
            n.refused = static_cast<std::uint32_t>(refusal::absurd);
        }
        numbers.store(0, n);
    }
};

}  // namespace thinwire::cuda::detail

#endif  // THINWIRE_BACKEND_CUDA_DETAIL_MEASURE_KERNEL_CUH
