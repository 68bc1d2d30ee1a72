#ifndef THINWIRE_OPTIM_DETAIL_CHUNK_PLAN_HPP
#define THINWIRE_OPTIM_DETAIL_CHUNK_PLAN_HPP

#include <thinwire/codec/checksum.hpp>
#include <thinwire/codec/payload_layout.hpp>
#include <thinwire/codec/sparse_content.hpp>
#include <thinwire/core/aligned.hpp>
#include <thinwire/core/bytes.hpp>
#include <thinwire/core/parameter.hpp>
#include <thinwire/optim/demo_options.hpp>
#include <thinwire/optim/detail/basis_cache.hpp>
#include <thinwire/transform/chunk_grid.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace thinwire::detail {

/// Appends ranks and sides.
inline void put_shapes(byte_writer& bytes, std::span<const parameter> parameters) {
    for (const parameter& p : parameters) {
        bytes.put(static_cast<std::uint32_t>(p.shape.rank()));
        for (const std::int64_t side : p.shape) bytes.put(side);
    }
}

/// Of dense payloads: a number that differs when ranks, sides or weights differ.
[[nodiscard]] inline std::uint64_t dense_fingerprint(std::span<const parameter> parameters, mean_weights weights) {
    byte_writer bytes;
    put_shapes(bytes, parameters);
    bytes.put(static_cast<std::uint8_t>(weights));
    return checksum64(bytes.bytes());
}

/// A number that differs when shapes differ, or anything else that all replicas must have in common. `remainders`:
/// whether some tensor has more than one region.
[[nodiscard]] inline std::uint64_t replica_fingerprint(std::span<const parameter> parameters, const demo_options& o,
                                                       std::span<const tensor_settings> settings,
                                                       std::uint64_t basis_fingerprint, bool remainders) {
    byte_writer bytes;
    put_shapes(bytes, parameters);
    bytes.put(static_cast<std::uint8_t>(o.codec != nullptr ? o.codec->id() : o.values));
    bytes.put(static_cast<std::uint32_t>(o.chunk));
    bytes.put(basis_fingerprint);
    bytes.put(static_cast<std::uint8_t>(o.weights));
    bytes.put(o.contribution_clip);
    for (const tensor_settings& s : settings) {
        bytes.put(static_cast<float>(s.learning_rate));
        bytes.put(static_cast<float>(s.direction_rate));
        bytes.put(static_cast<std::uint8_t>(s.weight_decay.has_value() ? 1 : 0));
        bytes.put(s.weight_decay.value_or(0.0F));
        bytes.put(static_cast<std::uint32_t>(s.k));
        bytes.put(std::string_view(s.rule->name()));
    }
    if (remainders) bytes.put(std::uint8_t{1});
    return checksum64(bytes.bytes());
}

/// Throws value_error where a section would not fit its 32-bit length.
inline void require_section_fits(const parameter& p, std::uint64_t bytes) {
    if (bytes > 0xffffffffU)
        throw value_error("parameter '" + p.name + "': a payload section of " + std::to_string(bytes) +
                          " bytes, expected at most 2^32 - 1");
}

/// For set_k() of an optimizer with this layout.
[[nodiscard]] inline std::uint32_t checked_k(int k, const payload_layout& layout) {
    if (k < 1 || static_cast<std::uint32_t>(k) > layout.k)
        throw value_error("set_k: " + std::to_string(k) + ", expected 1.." + std::to_string(layout.k) +
                          " (k of the options)");
    return static_cast<std::uint32_t>(k);
}

/// What the tensors of a shard are parts of: for each, the whole tensor's number and what holds for it.
struct plan_origin {
    std::vector<std::size_t> tensors;
    std::vector<tensor_settings> settings;
};

/// How all tensors are cut into regions and those into chunks, their transforms, and pieces of work of about equal
/// size.
class chunk_plan {
 public:
    /// The totals count those of the tensors before it.
    struct tensor {
        std::size_t first_region, last_region;  ///< [first, last)
        std::size_t first_element;
        std::size_t first_direction;  ///< among the tensors whose rule needs whole matrices
        tensor_settings settings;
    };
    /// The chunks of a region of a tensor: a section of every payload. The totals count those of the regions before it.
    struct region {
        std::size_t tensor;
        chunk_grid grid;
        const basis_tables* rows;
        const basis_tables* cols;
        std::size_t kept;
        std::size_t first_chunk;
        std::size_t first_coefficient;
        bool keeps_rest;  ///< tensor_settings::keeps_rest
    };
    /// Chunks [from, to) of a region, all in one row of chunks.
    struct piece {
        std::size_t region;
        std::size_t from, to;
    };

    /// `origin` where the parameters are parts of others.
    chunk_plan(std::span<const parameter> parameters, const demo_options& options, const plan_origin* origin = nullptr)
        : bases_(options.basis) {
        const int k = options.k, chunk = options.chunk;
        if (chunk < 1 || chunk > static_cast<int>(chunk_grid::max_target))
            throw value_error("demo: chunk " + std::to_string(chunk) + ", expected 1..256");
        if (k < 1 || k > chunk * chunk)
            throw value_error("demo: k " + std::to_string(k) + ", expected 1.." + std::to_string(chunk * chunk) +
                              " (the elements of a chunk)");
        layout_ = {.kind = payload_kind::demo,
                   .codec = options.codec != nullptr ? options.codec.get() : &codec_of(options.values),
                   .k = static_cast<std::uint32_t>(k),
                   .chunk = static_cast<std::uint32_t>(chunk),
                   .sections = {}};
        const std::vector<tensor_settings> settings =
            origin != nullptr ? origin->settings : settle_groups(parameters, options);
        for (std::size_t i = 0; i < parameters.size(); ++i)
            add(parameters[i], options, settings[i], origin != nullptr ? origin->tensors[i] : i);
        if (options.contribution_clip > 0.0F && coefficients_ > 0xffffffffU)
            throw value_error("demo: " + std::to_string(coefficients_) +
                              " coefficients in a payload, expected fewer than 2^32 for contribution_clip");
        layout_.fingerprint =
            replica_fingerprint(parameters, options, settings, bases_.fingerprint(), regions_.size() > tensors_.size());
    }
    chunk_plan(const chunk_plan&) = delete;
    chunk_plan& operator=(const chunk_plan&) = delete;
    chunk_plan(chunk_plan&&) = default;
    chunk_plan& operator=(chunk_plan&&) = default;

    /// The working memory of set_round().
    void reserve(thread_pool* pool) { bases_.reserve(pool); }
    /// Brings the bases of a round into the tensors' tables.
    void set_round(std::uint64_t round, thread_pool* pool) { bases_.set_round(round, pool); }

    [[nodiscard]] const payload_layout& layout() const noexcept { return layout_; }
    [[nodiscard]] std::span<const tensor> tensors() const noexcept { return tensors_; }
    /// In the order of the tensors; as many as sections.
    [[nodiscard]] std::span<const region> regions() const noexcept { return regions_; }
    [[nodiscard]] std::span<const piece> pieces() const noexcept { return pieces_; }
    [[nodiscard]] std::size_t elements() const noexcept { return elements_; }
    /// Elements of the tensors whose rule needs whole matrices.
    [[nodiscard]] std::size_t direction_elements() const noexcept { return directions_; }
    [[nodiscard]] std::size_t max_rows() const noexcept { return max_rows_; }
    [[nodiscard]] std::size_t max_cols() const noexcept { return max_cols_; }
    [[nodiscard]] std::size_t max_chunk_size() const noexcept { return max_size_; }

    [[nodiscard]] std::size_t memory_bytes() const noexcept {
        return bases_.memory_bytes() + bytes_held(layout_.sections, tensors_, regions_, pieces_);
    }

    /// The places of one chunk of a region in a content of this layout.
    [[nodiscard]] static std::size_t first_place(const region& r, std::size_t chunk) noexcept {
        return r.first_coefficient + chunk * r.kept;
    }

    /// The part of a content that belongs to one region.
    [[nodiscard]] section_slice slice(sparse_content& content, std::size_t i) const noexcept {
        return content.slice(layout_.sections[i], regions_[i].first_coefficient, regions_[i].first_chunk);
    }

 private:
    /// `number`: of the tensor, in what its bases depend on.
    void add(const parameter& p, const demo_options& options, const tensor_settings& own, std::size_t number) {
        check(p);
        const std::size_t first = regions_.size();
        for (const chunk_grid& grid : chunk_regions(p.shape, static_cast<std::size_t>(options.chunk), options.cut)) {
            const std::size_t kept = std::min(static_cast<std::size_t>(own.k), grid.chunk_size());
            require_section_fits(p, 1024 + 16 * grid.count() * kept);
            cut(grid);
            regions_.push_back({tensors_.size(), grid, bases_.get(grid.rows(), number, 0),
                                bases_.get(grid.cols(), number, 1), kept, chunks_, coefficients_, own.keeps_rest});
            layout_.sections.push_back({.chunks = grid.count(),
                                        .chunk_size = static_cast<std::uint32_t>(grid.chunk_size()),
                                        .kept = static_cast<std::uint32_t>(kept),
                                        .columns = static_cast<std::uint32_t>(grid.cols())});
            chunks_ += grid.count();
            coefficients_ += grid.count() * kept;
            max_rows_ = std::max(max_rows_, grid.rows());
            max_cols_ = std::max(max_cols_, grid.cols());
            max_size_ = std::max(max_size_, grid.chunk_size());
        }
        tensors_.push_back({first, regions_.size(), elements_, directions_, own});
        elements_ += p.shape.count();
        if (own.scope == update_scope::matrix) directions_ += p.shape.count();
    }
    void cut(const chunk_grid& grid) {
        const std::size_t per_piece = std::max<std::size_t>(1, 65536 / grid.chunk_size());
        const std::size_t across = grid.across();
        for (std::size_t row = 0; row < grid.count(); row += across)
            for (std::size_t from = row; from < row + across; from += per_piece)
                pieces_.push_back({regions_.size(), from, std::min(from + per_piece, row + across)});
    }

    payload_layout layout_;
    basis_cache bases_;
    std::vector<tensor> tensors_;
    std::vector<region> regions_;
    std::vector<piece> pieces_;
    std::size_t chunks_ = 0, coefficients_ = 0;
    std::size_t elements_ = 0, directions_ = 0;
    std::size_t max_rows_ = 1, max_cols_ = 1, max_size_ = 1;
};

}  // namespace thinwire::detail

#endif  // THINWIRE_OPTIM_DETAIL_CHUNK_PLAN_HPP
