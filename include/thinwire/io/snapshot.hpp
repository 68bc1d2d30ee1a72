#ifndef THINWIRE_IO_SNAPSHOT_HPP
#define THINWIRE_IO_SNAPSHOT_HPP

#include <thinwire/core/bytes.hpp>
#include <thinwire/core/digest.hpp>
#include <thinwire/core/parameter.hpp>
#include <thinwire/core/result.hpp>
#include <thinwire/core/shape.hpp>
#include <thinwire/io/file.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace thinwire {

/// Weights under a name. Does not own the values.
struct named_tensor {
    std::string name;
    thinwire::shape shape;
    std::span<const float> values;  ///< shape.count() of them, row-major
};

/// The state of a replica after `round` commits, and whatever its owner keeps beside it (its momentum, say).
///
/// Bytes, little-endian: "TWSN", version, total length, then the sections head (run, round), manifest, tensors and
/// blobs, each with tag and length, and the SHA-256 of everything before it.
struct snapshot {
    static constexpr std::uint32_t magic = 0x4e535754;  // "TWSN"
    static constexpr std::uint32_t version = 1;

    digest run{};
    std::uint64_t round = 0;
    std::string manifest;
    std::vector<named_tensor> tensors;
    std::map<std::string, std::vector<std::byte>> blobs;
    /// Owns the values of a decoded snapshot; empty when the tensors view memory of the caller.
    std::shared_ptr<const std::vector<float>> storage{};

    /// Throws shape_error when a tensor's span does not have the elements its shape states.
    [[nodiscard]] std::vector<std::byte> encode() const;

    /// Total: refuses every cut and every altered byte; allocates no more than the bytes justify.
    [[nodiscard]] static result<snapshot> decode(std::span<const std::byte> bytes);

    /// Replaces the file at `path` whole or not at all; throws io_error.
    void save(const std::filesystem::path& path, bool durable = true,
              detail::file_operations& files = detail::system_files()) const {
        write_file_atomically(path, encode(), durable, files);
    }

    /// Throws io_error when the file cannot be read; what it holds is refused as decode() does, with the path.
    [[nodiscard]] static result<snapshot> load(const std::filesystem::path& path,
                                               std::uint64_t limit = std::uint64_t{1} << 40U) {
        result<snapshot> loaded = decode(read_file(path, limit));
        if (loaded) return loaded;
        return failure{loaded.error().code, "'" + path.string() + "': " + loaded.error().message};
    }

    /// Copies the weights into `parameters`. Refuses (and then changes nothing) unless names and shapes are the same
    /// in the same order.
    [[nodiscard]] result<ok> copy_to(std::span<const parameter> parameters) const;
};

/// What a snapshot stores of `parameters`: views of their values.
[[nodiscard]] inline std::vector<named_tensor> tensors_of(std::span<const parameter> parameters) {
    std::vector<named_tensor> tensors;
    tensors.reserve(parameters.size());
    for (const parameter& p : parameters) tensors.push_back({.name = p.name, .shape = p.shape, .values = p.values});
    return tensors;
}

namespace detail {

enum class snapshot_section : std::uint32_t { head = 1, manifest = 2, tensors = 3, blobs = 4 };

inline constexpr std::size_t snapshot_header_bytes = 16;
inline constexpr std::size_t snapshot_name_limit = 4096;

[[nodiscard]] inline failure refuse_snapshot(errc code, const std::string& why) {
    return {code, "snapshot: " + why};
}

inline void put_section(byte_writer& out, snapshot_section tag, std::span<const std::byte> body) {
    out.put(static_cast<std::uint32_t>(tag));
    out.put(static_cast<std::uint64_t>(body.size()));
    out.put(body);
}

inline void put_floats(byte_writer& out, std::span<const float> values) {
    if constexpr (std::endian::native == std::endian::little) {
        out.put(std::as_bytes(values));
    } else {
        for (const float value : values) out.put(value);
    }
}

inline void get_floats(std::span<const std::byte> raw, std::span<float> values) noexcept {
    if constexpr (std::endian::native == std::endian::little) {
        if (!values.empty()) std::memcpy(values.data(), raw.data(), values.size_bytes());
    } else {
        byte_reader in(raw);
        for (float& value : values) value = in.get_f32();
    }
}

[[nodiscard]] inline std::vector<std::byte> encode_tensors(std::span<const named_tensor> tensors) {
    byte_writer out;
    out.put(static_cast<std::uint32_t>(tensors.size()));
    for (const named_tensor& t : tensors) {
        if (t.values.size() != t.shape.count())
            throw shape_error("snapshot: tensor '" + t.name + "' has " + std::to_string(t.values.size()) +
                              " values, expected " + std::to_string(t.shape.count()) + " for shape " +
                              to_string(t.shape));
        out.put(std::string_view(t.name));
        out.put(static_cast<std::uint8_t>(t.shape.rank()));
        for (const std::int64_t side : t.shape) out.put(side);
    }
    for (const named_tensor& t : tensors) put_floats(out, t.values);
    return out.take();
}

/// Reads a shape as encode_tensors() puts it; false when it is cut or not a shape.
[[nodiscard]] inline bool get_shape(byte_reader& in, shape& out) {
    const auto rank = in.get<std::uint8_t>();
    if (rank > shape::max_rank) return false;
    std::array<std::int64_t, shape::max_rank> sides{};
    std::int64_t total = 1;
    constexpr std::int64_t limit = std::int64_t{1} << 62;
    for (std::size_t i = 0; i < rank; ++i) {
        sides[i] = in.get<std::int64_t>();
        if (sides[i] < 1 || total > limit / sides[i]) return false;
        total *= sides[i];
    }
    out = shape(std::span<const std::int64_t>(sides.data(), rank));
    return !in.failed();
}

[[nodiscard]] inline result<ok> decode_tensors(std::span<const std::byte> body, snapshot& into) {
    byte_reader in(body);
    const auto count = in.get<std::uint32_t>();
    std::uint64_t elements = 0;
    std::set<std::string> names;
    for (std::uint32_t i = 0; i < count; ++i) {
        named_tensor t;
        t.name = in.get_string(snapshot_name_limit);
        if (in.failed() || !get_shape(in, t.shape))
            return refuse_snapshot(errc::malformed, "tensor " + std::to_string(i) + " has no readable name and shape");
        if (!names.insert(t.name).second)
            return refuse_snapshot(errc::malformed, "two tensors are named '" + t.name + "'");
        elements += t.shape.count();
        if (elements > body.size() / sizeof(float))
            return refuse_snapshot(errc::truncated, "tensor '" + t.name + "' of shape " + to_string(t.shape) +
                                                        " is larger than its section");
        into.tensors.push_back(std::move(t));
    }
    if (in.failed() || in.remaining() != elements * sizeof(float))
        return refuse_snapshot(errc::malformed, "the tensor section does not hold the values that its shapes state");
    auto values = std::make_shared<std::vector<float>>(static_cast<std::size_t>(elements));
    get_floats(in.get_bytes(in.remaining()), *values);
    std::size_t at = 0;
    for (named_tensor& t : into.tensors) {
        t.values = std::span<const float>(*values).subspan(at, t.shape.count());
        at += t.values.size();
    }
    into.storage = std::move(values);
    return ok{};
}

[[nodiscard]] inline std::vector<std::byte> encode_blobs(const std::map<std::string, std::vector<std::byte>>& blobs) {
    byte_writer out;
    out.put(static_cast<std::uint32_t>(blobs.size()));
    for (const auto& [name, bytes] : blobs) {
        out.put(std::string_view(name));
        out.put(static_cast<std::uint64_t>(bytes.size()));
        out.put(std::span<const std::byte>(bytes));
    }
    return out.take();
}

[[nodiscard]] inline result<ok> decode_blobs(std::span<const std::byte> body, snapshot& into) {
    byte_reader in(body);
    const auto count = in.get<std::uint32_t>();
    for (std::uint32_t i = 0; i < count; ++i) {
        std::string name = in.get_string(snapshot_name_limit);
        const auto length = in.get<std::uint64_t>();
        const auto raw = in.get_bytes(length);
        if (in.failed()) return refuse_snapshot(errc::malformed, "blob " + std::to_string(i) + " is cut");
        if (!into.blobs.emplace(std::move(name), std::vector<std::byte>(raw.begin(), raw.end())).second)
            return refuse_snapshot(errc::malformed, "two blobs have one name");
    }
    if (in.failed() || in.remaining() != 0)
        return refuse_snapshot(errc::malformed, "the blob section does not end with its last blob");
    return ok{};
}

/// Checks frame and digest; gives the sections.
[[nodiscard]] inline result<std::span<const std::byte>> open_snapshot(std::span<const std::byte> bytes) {
    byte_reader in(bytes);
    const auto magic = in.get<std::uint32_t>();
    const auto version = in.get<std::uint32_t>();
    const auto length = in.get<std::uint64_t>();
    if (in.failed())
        return refuse_snapshot(errc::truncated, std::to_string(bytes.size()) + " bytes, too few for a header");
    if (magic != snapshot::magic) return refuse_snapshot(errc::bad_magic, "this is not a thinwire snapshot");
    if (version != snapshot::version)
        return refuse_snapshot(errc::bad_version, "format version " + std::to_string(version) + ", this build reads " +
                                                      std::to_string(snapshot::version));
    if (bytes.size() != length)
        return refuse_snapshot(bytes.size() < length ? errc::truncated : errc::trailing,
                               std::to_string(bytes.size()) + " bytes, its header states " + std::to_string(length));
    constexpr std::size_t digest_bytes = sizeof(digest::bytes);
    if (length < snapshot_header_bytes + digest_bytes) return refuse_snapshot(errc::truncated, "no room for a digest");
    const std::size_t covered = bytes.size() - digest_bytes;
    const digest found = digest_of(bytes.first(covered));
    if (!std::equal(found.bytes.begin(), found.bytes.end(), bytes.begin() + static_cast<std::ptrdiff_t>(covered),
                    bytes.end()))
        return refuse_snapshot(errc::bad_checksum, "damaged: the digest does not match the content");
    return bytes.subspan(snapshot_header_bytes, covered - snapshot_header_bytes);
}

}  // namespace detail

inline std::vector<std::byte> snapshot::encode() const {
    using detail::snapshot_section;
    byte_writer out;
    out.put(magic);
    out.put(version);
    out.put(std::uint64_t{0});

    byte_writer head;
    head.put(std::span<const std::byte>(run.bytes));
    head.put(round);
    put_section(out, snapshot_section::head, head.bytes());
    put_section(out, snapshot_section::manifest, std::as_bytes(std::span(manifest.data(), manifest.size())));
    put_section(out, snapshot_section::tensors, detail::encode_tensors(tensors));
    put_section(out, snapshot_section::blobs, detail::encode_blobs(blobs));

    const std::uint64_t length = out.size() + sizeof(digest::bytes);
    out.patch(8, static_cast<std::uint32_t>(length));
    out.patch(12, static_cast<std::uint32_t>(length >> 32U));
    const digest check = digest_of(out.bytes());
    out.put(std::span<const std::byte>(check.bytes));
    return out.take();
}

inline result<snapshot> snapshot::decode(std::span<const std::byte> bytes) {
    using detail::snapshot_section;
    const auto sections = detail::open_snapshot(bytes);
    if (!sections) return sections.error();
    byte_reader in(*sections);
    snapshot out;
    for (const auto tag :
         {snapshot_section::head, snapshot_section::manifest, snapshot_section::tensors, snapshot_section::blobs}) {
        const auto found = in.get<std::uint32_t>();
        const auto length = in.get<std::uint64_t>();
        const auto body = in.get_bytes(length);
        if (in.failed() || found != static_cast<std::uint32_t>(tag))
            return detail::refuse_snapshot(errc::malformed, "a section is missing or out of place");
        result<ok> read = ok{};
        if (tag == snapshot_section::head) {
            byte_reader head(body);
            const auto raw = head.get_bytes(sizeof(digest::bytes));
            std::copy(raw.begin(), raw.end(), out.run.bytes.begin());
            out.round = head.get<std::uint64_t>();
            if (head.failed() || head.remaining() != 0)
                return detail::refuse_snapshot(errc::malformed, "the head section has another length");
        } else if (tag == snapshot_section::manifest) {
            out.manifest.assign(reinterpret_cast<const char*>(body.data()), body.size());
        } else if (tag == snapshot_section::tensors) {
            read = detail::decode_tensors(body, out);
        } else {
            read = detail::decode_blobs(body, out);
        }
        if (!read) return read.error();
    }
    if (in.remaining() != 0) return detail::refuse_snapshot(errc::trailing, "bytes follow the last section");
    return out;
}

inline result<ok> snapshot::copy_to(std::span<const parameter> parameters) const {
    if (tensors.size() != parameters.size())
        return detail::refuse_snapshot(errc::mismatch, std::to_string(tensors.size()) + " tensors, the model has " +
                                                           std::to_string(parameters.size()));
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        const named_tensor& t = tensors[i];
        const parameter& p = parameters[i];
        if (t.name != p.name || t.shape != p.shape || t.values.size() != p.values.size())
            return detail::refuse_snapshot(errc::mismatch, "tensor '" + t.name + "' " + to_string(t.shape) +
                                                               " stands where the model has '" + p.name + "' " +
                                                               to_string(p.shape));
    }
    for (std::size_t i = 0; i < tensors.size(); ++i)
        std::copy(tensors[i].values.begin(), tensors[i].values.end(), parameters[i].values.begin());
    return ok{};
}

}  // namespace thinwire

#endif  // THINWIRE_IO_SNAPSHOT_HPP
