#ifndef THINWIRE_NN_ROPE_HPP
#define THINWIRE_NN_ROPE_HPP

#include <thinwire/nn/config.hpp>

#include <cmath>
#include <cstddef>
#include <numbers>
#include <vector>

namespace thinwire::nn {

/// The angle per position of each of the head_dim / 2 pairs: theta^(-2i / head_dim) (Su et al., "RoFormer",
/// arXiv:2104.09864), with the slow ones divided by the factor of Llama 3.1's scaling and those between blended.
[[nodiscard]] inline std::vector<double> rope_frequencies(const transformer_config& c) {
    std::vector<double> frequencies;
    for (int i = 0; i < c.head_dim; i += 2) {
        double f = std::pow(c.rope_theta, -static_cast<double>(i) / c.head_dim);
        if (const rope_scaling& s = c.rope_scaling; s.enabled) {
            const double turns = s.original_max_position_embeddings * f / (2.0 * std::numbers::pi);
            if (turns < s.low_freq_factor) {
                f /= s.factor;
            } else if (turns <= s.high_freq_factor) {
                const double smooth = (turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
                f *= (1.0 - smooth) / s.factor + smooth;
            }
        }
        frequencies.push_back(f);
    }
    return frequencies;
}

/// Cosines and sines of positions 0 to positions - 1, head_dim / 2 entries each, computed in double.
struct rope_table {
    std::vector<float> cosine, sine;

    rope_table(const transformer_config& c, int positions) {
        const std::vector<double> frequencies = rope_frequencies(c);
        cosine.reserve(static_cast<std::size_t>(positions) * frequencies.size());
        sine.reserve(cosine.capacity());
        for (int t = 0; t < positions; ++t)
            for (const double f : frequencies) {
                cosine.push_back(static_cast<float>(std::cos(t * f)));
                sine.push_back(static_cast<float>(std::sin(t * f)));
            }
    }
};

}  // namespace thinwire::nn

#endif  // THINWIRE_NN_ROPE_HPP
