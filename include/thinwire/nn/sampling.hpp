#ifndef THINWIRE_NN_SAMPLING_HPP
#define THINWIRE_NN_SAMPLING_HPP

#include <thinwire/core/error.hpp>
#include <thinwire/core/random.hpp>
#include <thinwire/nn/decoder.hpp>
#include <thinwire/nn/transformer.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <vector>

namespace thinwire::nn {

struct sampling_options {
    float temperature = 0.8F;  ///< 0: always the likeliest token
    int top_k = 0;             ///< only the k likeliest tokens; 0: all
    float top_p = 1.0F;        ///< only the likeliest tokens that together have this probability
    std::uint64_t seed = 0;    ///< same seed, prompt and weights: same text
};

/// Throws value_error naming the option that is wrong.
inline void check(const sampling_options& o) {
    const auto complain = [](const std::string& what, const std::string& expected) {
        throw value_error("sampling_options: " + what + ", expected " + expected);
    };
    if (!(o.temperature >= 0) || !std::isfinite(o.temperature))
        complain("temperature is " + std::to_string(o.temperature), "a number of at least 0");
    if (o.top_k < 0) complain("top_k is " + std::to_string(o.top_k), "at least 0");
    if (!(o.top_p > 0 && o.top_p <= 1)) complain("top_p is " + std::to_string(o.top_p), "above 0 and at most 1");
}

/// One token drawn from softmax(scores / temperature), cut to top_k and then top_p; ties go to the lower token.
/// `uniform` is in [0, 1). Precondition: scores not empty, options checked.
[[nodiscard]] inline std::int32_t choose_token(std::span<const float> scores, const sampling_options& options,
                                               float uniform) {
    if (options.temperature == 0.0F)
        return static_cast<std::int32_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
    std::vector<std::int32_t> order(scores.size());
    std::iota(order.begin(), order.end(), 0);
    const auto score = [&](std::int32_t token) { return scores[static_cast<std::size_t>(token)]; };
    std::sort(order.begin(), order.end(),
              [&](std::int32_t a, std::int32_t b) { return score(a) > score(b) || (score(a) == score(b) && a < b); });
    if (options.top_k > 0) order.resize(std::min(order.size(), static_cast<std::size_t>(options.top_k)));
    std::vector<double> weight;
    weight.reserve(order.size());
    for (const std::int32_t token : order)
        weight.push_back(std::exp((static_cast<double>(score(token)) - static_cast<double>(score(order.front()))) /
                                  static_cast<double>(options.temperature)));
    const double all = std::accumulate(weight.begin(), weight.end(), 0.0);
    std::size_t kept = 0;
    double total = 0;
    while (kept < weight.size() && (kept == 0 || total < static_cast<double>(options.top_p) * all))
        total += weight[kept++];
    double left = static_cast<double>(uniform) * total;
    for (std::size_t i = 0; i < kept; ++i) {
        left -= weight[i];
        if (left < 0) return order[i];
    }
    return order[kept - 1];
}

/// Extends `prompt` by `count` tokens and returns those. Throws value_error for bad options, an empty prompt, a
/// negative count or a token outside the vocabulary, and shape_error when prompt and tokens together are longer than
/// max_position_embeddings.
template <backend B>
[[nodiscard]] std::vector<std::int32_t> generate(transformer<B>& model, std::span<const std::int32_t> prompt, int count,
                                                 sampling_options options) {
    check(options);
    if (prompt.empty()) throw value_error("generate: an empty prompt, expected at least 1 token");
    if (count < 0) throw value_error("generate: count is " + std::to_string(count) + ", expected at least 0");
    const std::size_t length = prompt.size() + static_cast<std::size_t>(count);
    const int limit = model.config().max_position_embeddings;
    if (length > static_cast<std::size_t>(limit))
        throw shape_error("generate: prompt of " + std::to_string(prompt.size()) + " and " + std::to_string(count) +
                          " tokens, expected at most " + std::to_string(limit) + " together (max_position_embeddings)");
    std::vector<std::int32_t> made;
    if (count == 0) return made;
    decoder<B> sequence(model, static_cast<int>(length));
    random_stream random(options.seed);
    std::span<const float> scores = sequence.extend(prompt);
    for (;;) {
        made.push_back(choose_token(scores, options, random.uniform()));
        if (made.size() == static_cast<std::size_t>(count)) return made;
        scores = sequence.extend(std::span(&made.back(), 1));
    }
}

}  // namespace thinwire::nn

#endif  // THINWIRE_NN_SAMPLING_HPP
