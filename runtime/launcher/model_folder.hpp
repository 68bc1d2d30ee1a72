#ifndef THINWIRE_LAUNCHER_MODEL_FOLDER_HPP
#define THINWIRE_LAUNCHER_MODEL_FOLDER_HPP

#include <thinwire/backend/cpu/fast.hpp>
#include <thinwire/core/thread_pool.hpp>
#include <thinwire/nn/transformer.hpp>

#include <filesystem>

namespace thinwire::launcher {

/// A model for use, from a folder with config.json and model.safetensors.
class model_folder {
 public:
    /// Throws launcher_error(storage) when a file is missing, damaged, or the two do not fit together, and
    /// launcher_error(usage) when the model does not read bytes.
    model_folder(const std::filesystem::path& folder, int threads);

    [[nodiscard]] nn::transformer<cpu::fast>& model() noexcept { return model_; }

 private:
    thread_pool pool_;
    cpu::fast backend_;
    nn::transformer<cpu::fast> model_;
};

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_MODEL_FOLDER_HPP
