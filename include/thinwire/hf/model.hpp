#ifndef THINWIRE_HF_MODEL_HPP
#define THINWIRE_HF_MODEL_HPP

#include <thinwire/core/error.hpp>
#include <thinwire/core/parameter.hpp>
#include <thinwire/core/result.hpp>
#include <thinwire/hf/config.hpp>
#include <thinwire/hf/safetensors.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace thinwire::hf {

namespace detail {

/// A tensor's name without the prefix that a file may or may not have.
[[nodiscard]] inline std::string_view bare_name(std::string_view name) noexcept {
    for (const std::string_view prefix : {"model.", "transformer."})
        if (name.starts_with(prefix)) return name.substr(prefix.size());
    return name;
}

/// Tensors that files carry and no weight comes from: masks of old GPT-2 files, tables of old Llama files, and the
/// output matrix of a model that ties it to the embedding.
[[nodiscard]] inline bool is_surplus(std::string_view bare) noexcept {
    return bare.ends_with(".attn.bias") || bare.ends_with(".attn.masked_bias") ||
           bare.ends_with(".rotary_emb.inv_freq") || bare == "lm_head.weight";
}

/// The files that hold the weights of a folder: model.safetensors, or those its index names.
[[nodiscard]] inline result<std::vector<std::filesystem::path>> weight_files(const std::filesystem::path& path) {
    if (!is_folder(path)) return std::vector{path};
    const std::filesystem::path index = path / "model.safetensors.index.json";
    std::error_code ignored;
    if (std::filesystem::exists(path / "model.safetensors", ignored) || !std::filesystem::exists(index, ignored))
        return std::vector{path / "model.safetensors"};
    const std::vector<std::byte> bytes = read_whole(index);
    const std::string where = "'" + index.string() + "'";
    const result<json> object = parse_object({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, 8, where);
    if (!object) return object.error();
    const auto map = object->find("weight_map");
    if (map == object->end() || !map->is_object() || map->empty())
        return failure{errc::malformed, where + ": weight_map is missing or empty, expected tensor to file names"};
    std::set<std::filesystem::path> files;
    for (const auto& [tensor, file] : map->items()) {
        if (!file.is_string()) return failure{errc::malformed, where + ": a file name is not a string"};
        const std::filesystem::path name = file.get<std::string>();
        if (name.empty() || name != name.filename() || name == ".." || name == ".")
            return failure{errc::malformed, where + ": '" + name.string() + "' is not a plain file name"};
        files.insert(path / name);
    }
    return std::vector(files.begin(), files.end());
}

}  // namespace detail

/// Fills the values of all parameters, in host memory, from a safetensors file or a Hugging Face model folder (one
/// file or several with an index). Names match with or without `model.` or `transformer.` in front; F16, BF16 and F64
/// are converted. All or nothing: on failure, which names the first tensor that is missing, unexpected or of another
/// shape, no value has changed. Throws io_error when a file cannot be read.
[[nodiscard]] inline result<ok> load_weights(const std::filesystem::path& path, std::span<const parameter> parameters) {
    const auto files = detail::weight_files(path);
    if (!files) return files.error();
    const auto refuse = [&](const std::string& why) {
        return failure{errc::mismatch, "load_weights '" + path.string() + "': " + why};
    };
    std::map<std::string, const parameter*, std::less<>> wanted;
    for (const parameter& p : parameters) wanted.emplace(detail::bare_name(p.name), &p);
    std::map<const parameter*, std::vector<float>> found;
    for (const std::filesystem::path& file : *files) {
        const result<safetensors_file> tensors = safetensors_file::load(file);
        if (!tensors) return tensors.error();
        for (const auto& [name, entry] : tensors->tensors()) {
            const auto target = wanted.find(detail::bare_name(name));
            if (target == wanted.end()) {
                if (detail::is_surplus(detail::bare_name(name))) continue;
                return refuse("unexpected tensor '" + name + "'");
            }
            const thinwire::shape& expected = target->second->shape;
            if (!std::equal(entry.sides.begin(), entry.sides.end(), expected.begin(), expected.end())) {
                std::string sides;
                for (const std::int64_t side : entry.sides) sides += (sides.empty() ? "" : ", ") + std::to_string(side);
                return refuse("tensor '" + name + "' has shape [" + sides + "], expected " + to_string(expected));
            }
            result<std::vector<float>> values = tensors->floats(name);
            if (!values) return values.error();
            if (!found.emplace(target->second, std::move(*values)).second)
                return refuse("tensor '" + name + "' appears twice");
        }
    }
    for (const parameter& p : parameters)
        if (!found.contains(&p)) return refuse("tensor '" + p.name + "' is missing");
    for (const auto& [target, values] : found) std::copy(values.begin(), values.end(), target->values.begin());
    return ok{};
}

/// Writes config.json and model.safetensors, as save_pretrained does; each file appears whole or not at all. Values
/// are in host memory. Makes the folder. Throws io_error, value_error or shape_error.
inline void save_model(const std::filesystem::path& folder, const nn::transformer_config& config,
                       std::span<const parameter> parameters) {
    std::error_code code;
    std::filesystem::create_directories(folder, code);
    if (code) throw io_error("save_model '" + folder.string() + "': " + code.message());
    std::vector<tensor_source> tensors;
    for (const parameter& p : parameters) tensors.push_back({p.name, p.shape, p.values});
    save_config(config, folder / "config.json");
    write_safetensors(folder / "model.safetensors", tensors, {{"format", "pt"}});
}

}  // namespace thinwire::hf

#endif  // THINWIRE_HF_MODEL_HPP
