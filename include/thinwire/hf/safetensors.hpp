#ifndef THINWIRE_HF_SAFETENSORS_HPP
#define THINWIRE_HF_SAFETENSORS_HPP

#include <thinwire/core/bytes.hpp>
#include <thinwire/core/half.hpp>
#include <thinwire/core/result.hpp>
#include <thinwire/core/shape.hpp>
#include <thinwire/hf/detail/file.hpp>
#include <thinwire/hf/detail/json.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace thinwire::hf {

/// One tensor of a safetensors file, as its header describes it.
struct tensor_entry {
    std::string dtype;                ///< "F32", "BF16", ...; may be one that this build cannot convert
    std::vector<std::int64_t> sides;  ///< outermost first; a side may be 0
    std::span<const std::byte> bytes;

    [[nodiscard]] std::size_t count() const noexcept {
        std::size_t total = 1;
        for (const std::int64_t side : sides) total *= static_cast<std::size_t>(side);
        return total;
    }
};

namespace detail {

/// Bytes an element takes; nothing for a dtype this build does not know.
[[nodiscard]] inline std::optional<std::size_t> element_size(std::string_view dtype) noexcept {
    using known = std::pair<std::string_view, std::size_t>;
    constexpr std::array<known, 12> table = {known{"F64", 8}, known{"F32", 4}, known{"F16", 2}, known{"BF16", 2},
                                             known{"I64", 8}, known{"I32", 4}, known{"I16", 2}, known{"I8", 1},
                                             known{"U8", 1},  known{"U16", 2}, known{"U32", 4}, known{"BOOL", 1}};
    for (const auto& [name, size] : table)
        if (name == dtype) return size;
    return std::nullopt;
}

}  // namespace detail

/// A safetensors file in memory (github.com/huggingface/safetensors, "Format"): an 8-byte little-endian header
/// length, a JSON header, the tensors' bytes. Parsing is total: anything malformed is a failure, never an exception
/// and never a read outside the bytes. Immutable once made, so any number of threads may read it.
class safetensors_file {
 public:
    static constexpr std::size_t max_header = 100'000'000;

    /// Checks the whole structure: the header's length and JSON, and that the tensors' bytes cover the data exactly
    /// once, without overlap or hole. Takes over the bytes.
    [[nodiscard]] static result<safetensors_file> parse(std::vector<std::byte> bytes);

    /// Reads and parses a file. Throws io_error when it cannot be read at all.
    [[nodiscard]] static result<safetensors_file> load(const std::filesystem::path& path) {
        result<safetensors_file> file = parse(detail::read_whole(path));
        if (!file) return failure{file.error().code, "'" + path.string() + "': " + file.error().message};
        return file;
    }

    [[nodiscard]] const std::map<std::string, tensor_entry, std::less<>>& tensors() const noexcept { return tensors_; }
    [[nodiscard]] const std::map<std::string, std::string, std::less<>>& metadata() const noexcept { return metadata_; }
    [[nodiscard]] const tensor_entry* find(std::string_view name) const noexcept {
        const auto found = tensors_.find(name);
        return found == tensors_.end() ? nullptr : &found->second;
    }

    /// A tensor of F32, F16, BF16 or F64 as float32 (F64 is rounded). Fails for a missing name or another dtype.
    [[nodiscard]] result<std::vector<float>> floats(std::string_view name) const;

    /// A tensor of I64, I32, I16, I8, U8, U16, U32 or BOOL. Fails for a missing name or another dtype.
    [[nodiscard]] result<std::vector<std::int64_t>> integers(std::string_view name) const;

 private:
    safetensors_file() = default;

    [[nodiscard]] result<ok> take_entry(const std::string& name, const detail::json& entry,
                                        std::span<const std::byte> data);
    [[nodiscard]] result<ok> check_coverage(std::span<const std::byte> data) const;

    std::vector<std::byte> bytes_;  // its heap block stays where it is when the object moves: entries point into it
    std::map<std::string, tensor_entry, std::less<>> tensors_;
    std::map<std::string, std::string, std::less<>> metadata_;

 public:
    safetensors_file(safetensors_file&&) noexcept = default;
    safetensors_file& operator=(safetensors_file&&) noexcept = default;
    safetensors_file(const safetensors_file&) = delete;
    safetensors_file& operator=(const safetensors_file&) = delete;
};

inline result<safetensors_file> safetensors_file::parse(std::vector<std::byte> bytes) {
    safetensors_file file;
    file.bytes_ = std::move(bytes);
    byte_reader reader(file.bytes_);
    const auto length = reader.get<std::uint64_t>();
    if (reader.failed()) return failure{errc::truncated, "safetensors: shorter than its 8-byte header length"};
    if (length > max_header)
        return failure{errc::too_large, "safetensors: header of " + std::to_string(length) +
                                            " bytes, expected at most " + std::to_string(max_header)};
    const auto raw = reader.get_bytes(static_cast<std::size_t>(length));
    if (reader.failed())
        return failure{errc::truncated,
                       "safetensors: header of " + std::to_string(length) + " bytes, but the file ends before its end"};
    const std::string_view text(reinterpret_cast<const char*>(raw.data()), raw.size());
    if (!text.starts_with('{')) return failure{errc::bad_magic, "safetensors: the header does not begin with '{'"};
    const result<detail::json> header = detail::parse_object(text, 4, "safetensors header");
    if (!header) return header.error();

    const auto data = reader.get_bytes(reader.remaining());
    for (const auto& [name, entry] : header->items()) {
        const result<ok> taken = file.take_entry(name, entry, data);
        if (!taken) return taken.error();
    }
    const result<ok> covered = file.check_coverage(data);
    if (!covered) return covered.error();
    return file;
}

inline result<ok> safetensors_file::take_entry(const std::string& name, const detail::json& entry,
                                               std::span<const std::byte> data) {
    const auto refuse = [&](errc code, const std::string& why) {
        return failure{code, "safetensors: '" + name + "': " + why};
    };
    if (!entry.is_object()) return refuse(errc::malformed, "expected an object");
    if (name == "__metadata__") {
        for (const auto& [key, value] : entry.items()) {
            if (!value.is_string()) return refuse(errc::malformed, "value of '" + key + "' is not a string");
            metadata_[key] = value.get_ref<const std::string&>();
        }
        return ok{};
    }
    const auto dtype = entry.find("dtype");
    const auto sides = entry.find("shape");
    const auto offsets = entry.find("data_offsets");
    if (entry.size() != 3 || dtype == entry.end() || sides == entry.end() || offsets == entry.end())
        return refuse(errc::malformed, "expected exactly dtype, shape and data_offsets");
    if (!dtype->is_string()) return refuse(errc::malformed, "dtype is not a string");
    if (!sides->is_array()) return refuse(errc::malformed, "shape is not an array");
    if (!offsets->is_array() || offsets->size() != 2 || !(*offsets)[0].is_number_unsigned() ||
        !(*offsets)[1].is_number_unsigned())
        return refuse(errc::malformed, "data_offsets is not a pair of non-negative integers");

    tensor_entry tensor{.dtype = dtype->get_ref<const std::string&>(), .sides = {}, .bytes = {}};
    constexpr std::uint64_t limit = std::uint64_t{1} << 60U;
    std::uint64_t count = 1;  // of the sides that are not 0, so that a 0 hides no overflow
    bool none = false;
    for (const detail::json& side : *sides) {
        if (!side.is_number_unsigned()) return refuse(errc::malformed, "a side is not a non-negative integer");
        const auto n = side.get<std::uint64_t>();
        none = none || n == 0;
        if (n != 0 && count > limit / n) return refuse(errc::too_large, "more than 2^60 elements");
        count *= std::max<std::uint64_t>(n, 1);
        tensor.sides.push_back(static_cast<std::int64_t>(n));
    }
    const auto begin = (*offsets)[0].get<std::uint64_t>();
    const auto end = (*offsets)[1].get<std::uint64_t>();
    if (begin > end || end > data.size())
        return refuse(errc::out_of_range, "data_offsets [" + std::to_string(begin) + ", " + std::to_string(end) +
                                              "] outside the " + std::to_string(data.size()) + " bytes of data");
    const std::optional<std::size_t> size = detail::element_size(tensor.dtype);
    if (size && end - begin != (none ? 0 : count) * *size)
        return refuse(errc::mismatch, "shape and dtype need " + std::to_string((none ? 0 : count) * *size) +
                                          " bytes, data_offsets give " + std::to_string(end - begin));
    tensor.bytes = data.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
    tensors_.emplace(name, std::move(tensor));
    return ok{};
}

inline result<ok> safetensors_file::check_coverage(std::span<const std::byte> data) const {
    std::vector<std::pair<const std::byte*, const std::byte*>> ranges;
    for (const auto& [name, tensor] : tensors_)
        ranges.emplace_back(tensor.bytes.data(), tensor.bytes.data() + tensor.bytes.size());
    std::sort(ranges.begin(), ranges.end());
    const std::byte* at = data.data();
    for (const auto& [begin, end] : ranges) {
        if (begin < at) return failure{errc::malformed, "safetensors: two tensors overlap"};
        if (begin > at) return failure{errc::malformed, "safetensors: bytes that belong to no tensor"};
        at = end;
    }
    if (at != data.data() + data.size())
        return failure{errc::trailing, "safetensors: " + std::to_string(data.data() + data.size() - at) +
                                           " bytes after the last tensor"};
    return ok{};
}

inline result<std::vector<float>> safetensors_file::floats(std::string_view name) const {
    const tensor_entry* tensor = find(name);
    if (tensor == nullptr) return failure{errc::mismatch, "safetensors: no tensor '" + std::string(name) + "'"};
    std::vector<float> out(tensor->bytes.size() / detail::element_size(tensor->dtype).value_or(1));
    byte_reader reader(tensor->bytes);
    if (tensor->dtype == "F32") {
        for (float& x : out) x = reader.get_f32();
    } else if (tensor->dtype == "BF16") {
        for (float& x : out) x = from_bfloat16(reader.get<std::uint16_t>());
    } else if (tensor->dtype == "F16") {
        for (float& x : out) x = from_float16(reader.get<std::uint16_t>());
    } else if (tensor->dtype == "F64") {
        for (float& x : out) x = static_cast<float>(reader.get_f64());
    } else {
        return failure{errc::mismatch, "safetensors: '" + std::string(name) + "' has dtype " + tensor->dtype +
                                           ", expected F32, F16, BF16 or F64"};
    }
    return out;
}

inline result<std::vector<std::int64_t>> safetensors_file::integers(std::string_view name) const {
    const tensor_entry* tensor = find(name);
    if (tensor == nullptr) return failure{errc::mismatch, "safetensors: no tensor '" + std::string(name) + "'"};
    std::vector<std::int64_t> out(tensor->bytes.size() / detail::element_size(tensor->dtype).value_or(1));
    byte_reader reader(tensor->bytes);
    const std::string_view type = tensor->dtype;
    for (std::int64_t& x : out) {
        if (type == "I64") x = reader.get<std::int64_t>();
        if (type == "I32") x = reader.get<std::int32_t>();
        if (type == "I16") x = reader.get<std::int16_t>();
        if (type == "I8") x = reader.get<std::int8_t>();
        if (type == "U32") x = reader.get<std::uint32_t>();
        if (type == "U16") x = reader.get<std::uint16_t>();
        if (type == "U8" || type == "BOOL") x = reader.get<std::uint8_t>();
    }
    if (type.starts_with('F') || type.starts_with("BF") || !detail::element_size(type))
        return failure{errc::mismatch, "safetensors: '" + std::string(name) + "' has dtype " + tensor->dtype +
                                           ", expected an integer type"};
    return out;
}

/// A tensor to be written, as F32.
struct tensor_source {
    std::string name;
    thinwire::shape shape;
    std::span<const float> values;
};

namespace detail {

/// The 8-byte length and the JSON header of a file with these tensors in this order, padded with spaces to a
/// multiple of 8 bytes. Throws shape_error or value_error for what no reader would accept.
[[nodiscard]] inline std::vector<std::byte> safetensors_header(
    std::span<const tensor_source> sorted, const std::map<std::string, std::string, std::less<>>& metadata) {
    json header = json::object();
    if (!metadata.empty()) header["__metadata__"] = metadata;
    std::uint64_t at = 0;
    for (const tensor_source& tensor : sorted) {
        if (tensor.values.size() != tensor.shape.count())
            throw shape_error("write_safetensors: '" + tensor.name + "' has " + std::to_string(tensor.values.size()) +
                              " values, expected " + std::to_string(tensor.shape.count()) + " for shape " +
                              to_string(tensor.shape));
        if (tensor.name == "__metadata__" || header.contains(tensor.name))
            throw value_error("write_safetensors: tensor name '" + tensor.name + "' is taken, expected distinct names");
        const std::uint64_t end = at + tensor.values.size_bytes();
        header[tensor.name] = {{"dtype", "F32"},
                               {"shape", std::vector<std::int64_t>(tensor.shape.begin(), tensor.shape.end())},
                               {"data_offsets", {at, end}}};
        at = end;
    }
    std::string text = header.dump(-1, ' ', false, json::error_handler_t::replace);
    text.resize((text.size() + 7) / 8 * 8, ' ');
    byte_writer writer;
    writer.put(static_cast<std::uint64_t>(text.size()));
    writer.put(std::as_bytes(std::span(text.data(), text.size())));
    return writer.take();
}

}  // namespace detail

/// Writes tensors as F32 in the order of their names; the file appears whole or not at all. Throws io_error,
/// shape_error (values that do not fill their shape) or value_error (a name used twice).
inline void write_safetensors(const std::filesystem::path& path, std::span<const tensor_source> tensors,
                              const std::map<std::string, std::string, std::less<>>& metadata = {}) {
    static_assert(std::endian::native == std::endian::little, "tensor bytes are written as they lie in memory");
    std::vector<tensor_source> sorted(tensors.begin(), tensors.end());
    std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
    const std::vector<std::byte> header = detail::safetensors_header(sorted, metadata);
    std::vector<std::span<const std::byte>> pieces = {header};
    for (const tensor_source& tensor : sorted) pieces.push_back(std::as_bytes(tensor.values));
    detail::replace_file(path, pieces);
}

}  // namespace thinwire::hf

#endif  // THINWIRE_HF_SAFETENSORS_HPP
