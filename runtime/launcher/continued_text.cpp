#include "continued_text.hpp"

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace thinwire::launcher {

std::string continued_text(nn::transformer<cpu::fast>& model, std::string_view prompt, std::size_t count,
                           nn::sampling_options sampling) {
    std::vector<std::int32_t> tokens;
    for (const char c : prompt) tokens.push_back(static_cast<unsigned char>(c));
    const auto limit = static_cast<std::size_t>(model.config().max_position_embeddings);
    const std::size_t begin = tokens.size(), end = begin + count;
    while (tokens.size() < end) {
        const std::size_t keep = tokens.size() < limit ? tokens.size() : std::max<std::size_t>(1, limit / 2);
        const std::size_t more = std::min(end - tokens.size(), limit - keep);
        const std::vector<std::int32_t> from(tokens.end() - static_cast<std::ptrdiff_t>(keep), tokens.end());
        const auto made = nn::generate(model, from, static_cast<int>(more), sampling);
        tokens.insert(tokens.end(), made.begin(), made.end());
        ++sampling.seed;
    }
    std::string text;
    for (const std::int32_t token : std::span(tokens).subspan(begin))
        text += token < 256 ? static_cast<char>(token) : '?';
    return text;
}

}  // namespace thinwire::launcher
