#ifndef THINWIRE_IO_CORPUS_HPP
#define THINWIRE_IO_CORPUS_HPP

#include <thinwire/core/error.hpp>
#include <thinwire/io/file.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace thinwire {

/// The parts of a corpus; both view it.
struct corpus_split {
    std::span<const std::byte> train;
    std::span<const std::byte> validation;
};

/// Text whose tokens are its bytes.
class byte_corpus {
 public:
    /// Throws io_error when the file cannot be read or is empty.
    explicit byte_corpus(const std::filesystem::path& path, std::uint64_t limit = std::uint64_t{1} << 36U)
        : byte_corpus(path.string(), read_file(path, limit)) {}

    /// `name` stands in messages. Throws io_error when there are no bytes.
    byte_corpus(std::string name, std::vector<std::byte> bytes) : name_(std::move(name)), bytes_(std::move(bytes)) {
        if (bytes_.empty()) throw io_error("corpus '" + name_ + "': empty, expected text");
    }

    [[nodiscard]] const std::string& name() const noexcept { return name_; }
    [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return bytes_; }

    /// Throws value_error unless there is room for one sequence of `tokens` and the byte that follows it.
    void require_sequence(std::size_t tokens) const { require("", bytes_.size(), tokens); }

    /// The last `fraction` of the bytes (rounded down) for validation, the rest for training. Throws value_error
    /// unless 0 < fraction < 1 and either part has room for a sequence of `tokens` and the byte that follows it.
    [[nodiscard]] corpus_split split(double fraction, std::size_t tokens) const {
        if (!(fraction > 0.0 && fraction < 1.0))
            throw value_error("corpus '" + name_ + "': validation fraction " + std::to_string(fraction) +
                              ", expected more than 0 and less than 1");
        const auto held_out = static_cast<std::size_t>(static_cast<double>(bytes_.size()) * fraction);
        const std::size_t kept = bytes_.size() - held_out;
        require(" for training", kept, tokens);
        require(" for validation", held_out, tokens);
        return {.train = bytes().first(kept), .validation = bytes().subspan(kept)};
    }

 private:
    void require(const char* part, std::size_t found, std::size_t tokens) const {
        if (found <= tokens)  // tokens + 1 may not fit
            throw value_error("corpus '" + name_ + "': " + std::to_string(found) + " bytes" + part +
                              ", expected at least " + std::to_string(tokens + 1) + " (a sequence of " +
                              std::to_string(tokens) + " and the byte after it)");
    }

    std::string name_;
    std::vector<std::byte> bytes_;
};

}  // namespace thinwire

#endif  // THINWIRE_IO_CORPUS_HPP
