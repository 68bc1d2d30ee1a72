#ifndef THINWIRE_LAUNCHER_CONTINUED_TEXT_HPP
#define THINWIRE_LAUNCHER_CONTINUED_TEXT_HPP

#include <thinwire/backend/cpu/fast.hpp>
#include <thinwire/nn/sampling.hpp>
#include <thinwire/nn/transformer.hpp>

#include <cstddef>
#include <string>
#include <string_view>

namespace thinwire::launcher {

/// The `count` bytes with which a model of bytes goes on after a prompt, which is not empty; a token that is no byte
/// becomes '?'. Longer than the model's positions, it goes on from the later half of what there is.
[[nodiscard]] std::string continued_text(nn::transformer<cpu::fast>& model, std::string_view prompt, std::size_t count,
                                         nn::sampling_options sampling);

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_CONTINUED_TEXT_HPP
