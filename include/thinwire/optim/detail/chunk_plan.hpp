#ifndef THINWIRE_OPTIM_DETAIL_CHUNK_PLAN_HPP
#define THINWIRE_OPTIM_DETAIL_CHUNK_PLAN_HPP

#include <thinwire/codec/checksum.hpp>
#include <thinwire/codec/payload_layout.hpp>
#include <thinwire/codec/sparse_content.hpp>
#include <thinwire/core/bytes.hpp>
#include <thinwire/core/parameter.hpp>
#include <thinwire/transform/chunk_grid.hpp>
#include <thinwire/transform/dct.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace thinwire::detail {

/// A number that differs when ranks or sides differ.
[[nodiscard]] inline std::uint64_t shapes_fingerprint(std::span<const parameter> parameters) {
    byte_writer bytes;
    for (const parameter& p : parameters) {
        bytes.put(static_cast<std::uint32_t>(p.shape.rank()));
        for (const std::int64_t side : p.shape) bytes.put(side);
    }
    return checksum64(bytes.bytes());
}

/// Throws value_error where a section would not fit its 32-bit length.
inline void require_section_fits(const parameter& p, std::uint64_t bytes) {
    if (bytes > 0xffffffffU)
        throw value_error("parameter '" + p.name + "': a payload section of " + std::to_string(bytes) +
                          " bytes, expected at most 2^32 - 1");
}

/// How all tensors are cut into chunks, their transforms, and pieces of work of about equal size.
class chunk_plan {
 public:
    /// A tensor's chunks. The totals count those of the tensors before it.
    struct tensor {
        chunk_grid grid;
        const dct_basis* rows;
        const dct_basis* cols;
        std::size_t kept;
        std::size_t first_chunk;
        std::size_t first_coefficient;
        std::size_t first_element;
    };
    /// Chunks [from, to) of a tensor.
    struct piece {
        std::size_t tensor;
        std::size_t from, to;
    };

    chunk_plan(std::span<const parameter> parameters, int k, int chunk, value_code values) {
        if (chunk < 1 || chunk > static_cast<int>(chunk_grid::max_target))
            throw value_error("demo: chunk " + std::to_string(chunk) + ", expected 1..256");
        if (k < 1 || k > chunk * chunk)
            throw value_error("demo: k " + std::to_string(k) + ", expected 1.." + std::to_string(chunk * chunk) +
                              " (the elements of a chunk)");
        layout_ = {.kind = payload_kind::demo,
                   .codec = &codec_of(values),
                   .k = static_cast<std::uint32_t>(k),
                   .chunk = static_cast<std::uint32_t>(chunk),
                   .fingerprint = shapes_fingerprint(parameters),
                   .sections = {}};
        std::size_t chunks = 0, coefficients = 0;
        for (const parameter& p : parameters) {
            check(p);
            const chunk_grid grid(p.shape, static_cast<std::size_t>(chunk));
            const std::size_t kept = std::min(static_cast<std::size_t>(k), grid.chunk_size());
            require_section_fits(p, 1024 + 16 * grid.count() * kept);
            const std::size_t per_piece = std::max<std::size_t>(1, 32768 / grid.chunk_size());
            for (std::size_t from = 0; from < grid.count(); from += per_piece)
                pieces_.push_back({tensors_.size(), from, std::min(from + per_piece, grid.count())});
            tensors_.push_back({grid, basis(grid.rows()), basis(grid.cols()), kept, chunks, coefficients, elements_});
            layout_.sections.push_back({.chunks = grid.count(),
                                        .chunk_size = static_cast<std::uint32_t>(grid.chunk_size()),
                                        .kept = static_cast<std::uint32_t>(kept),
                                        .columns = static_cast<std::uint32_t>(grid.cols())});
            chunks += grid.count();
            coefficients += grid.count() * kept;
            elements_ += p.shape.count();
            max_rows_ = std::max(max_rows_, grid.rows());
            max_cols_ = std::max(max_cols_, grid.cols());
            max_size_ = std::max(max_size_, grid.chunk_size());
        }
    }
    chunk_plan(const chunk_plan&) = delete;
    chunk_plan& operator=(const chunk_plan&) = delete;
    chunk_plan(chunk_plan&&) = default;
    chunk_plan& operator=(chunk_plan&&) = default;

    [[nodiscard]] const payload_layout& layout() const noexcept { return layout_; }
    [[nodiscard]] std::span<const tensor> tensors() const noexcept { return tensors_; }
    [[nodiscard]] std::span<const piece> pieces() const noexcept { return pieces_; }
    [[nodiscard]] std::size_t elements() const noexcept { return elements_; }
    [[nodiscard]] std::size_t max_rows() const noexcept { return max_rows_; }
    [[nodiscard]] std::size_t max_cols() const noexcept { return max_cols_; }
    [[nodiscard]] std::size_t max_chunk_size() const noexcept { return max_size_; }

    /// The places of one chunk of tensor t in a content of this layout.
    [[nodiscard]] static std::size_t first_place(const tensor& t, std::size_t chunk) noexcept {
        return t.first_coefficient + chunk * t.kept;
    }

    /// The part of a content that belongs to one tensor.
    [[nodiscard]] section_slice slice(sparse_content& content, std::size_t i) const noexcept {
        const tensor& t = tensors_[i];
        return {.positions = std::span(content.positions).subspan(t.first_coefficient, t.grid.count() * t.kept),
                .values = std::span(content.values).subspan(t.first_coefficient, t.grid.count() * t.kept),
                .counts = std::span(content.counts).subspan(t.first_chunk, t.grid.count())};
    }

 private:
    const dct_basis* basis(std::size_t side) { return &bases_.try_emplace(side, side).first->second; }

    payload_layout layout_;
    std::map<std::size_t, dct_basis> bases_;
    std::vector<tensor> tensors_;
    std::vector<piece> pieces_;
    std::size_t elements_ = 0;
    std::size_t max_rows_ = 1, max_cols_ = 1, max_size_ = 1;
};

}  // namespace thinwire::detail

#endif  // THINWIRE_OPTIM_DETAIL_CHUNK_PLAN_HPP
