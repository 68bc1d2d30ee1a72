#ifndef THINWIRE_LAUNCHER_TEXT_HPP
#define THINWIRE_LAUNCHER_TEXT_HPP

#include <thinwire/core/digest.hpp>
#include <thinwire/io/corpus.hpp>

#include "configuration.hpp"

#include <cstddef>
#include <optional>
#include <span>
#include <string>

namespace thinwire::launcher {

/// The text of a run: what is trained on and what is only measured.
class text {
 public:
    /// Reads data.train and, if it is set, data.valid. Throws launcher_error(data) when one is missing or empty, and
    /// launcher_error(usage) when data.train is not set. A witness needs none.
    explicit text(const configuration& settings);

    /// Takes it apart as data.sequence_length and data.valid_fraction say, which a peer that enters learns from the
    /// run; before there is nothing to train on. Throws launcher_error(data) when a part is shorter than one sequence.
    void divide(const configuration& settings);

    [[nodiscard]] std::span<const std::byte> train() const noexcept { return train_; }
    /// Empty when data.valid_fraction is 0 and there is no data.valid.
    [[nodiscard]] std::span<const std::byte> validation() const noexcept { return validation_; }
    /// SHA-256 of the whole file data.train, in hexadecimal.
    [[nodiscard]] const std::string& train_digest() const noexcept { return digest_; }

    /// Throws launcher_error(data) unless `expected` is the digest of this text.
    void require_digest(const std::string& expected) const;

 private:
    std::optional<byte_corpus> corpus_;
    std::optional<byte_corpus> valid_;
    std::span<const std::byte> train_;
    std::span<const std::byte> validation_;
    std::string digest_;
};

/// A file of text for `thinwire eval`. Throws launcher_error(data) as above.
[[nodiscard]] byte_corpus load_text(const std::string& file, std::int64_t sequence_length, const std::string& key);

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_TEXT_HPP
