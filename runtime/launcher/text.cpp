#include "text.hpp"

#include "exit_code.hpp"

namespace thinwire::launcher {

namespace {

/// What a text is refused for is its operator's to correct.
template <class Work>
auto of_text(const std::string& key, const Work& work) {
    try {
        return work();
    } catch (const error& problem) {
        throw launcher_error(exit_code::data, "data: " + key + ": " + problem.what());
    }
}

byte_corpus read_text_file(const std::string& file, const std::string& key) {
    if (file.empty())
        throw launcher_error(exit_code::usage, "configuration: " + key + " is not set: expected a file of text");
    return of_text(key, [&] { return byte_corpus{std::filesystem::path(file)}; });
}

void require_row(const byte_corpus& corpus, std::int64_t sequence_length, const std::string& key) {
    of_text(key, [&] { corpus.require_sequence(static_cast<std::size_t>(sequence_length)); });
}

}  // namespace

byte_corpus load_text(const std::string& file, std::int64_t sequence_length, const std::string& key) {
    byte_corpus corpus = read_text_file(file, key);
    require_row(corpus, sequence_length, key);
    return corpus;
}

text::text(const configuration& settings) {
    if (!settings.peer.contributes && settings.data.train.empty()) return;
    corpus_ = read_text_file(settings.data.train, "data.train");
    if (!settings.data.valid.empty()) valid_ = read_text_file(settings.data.valid, "data.valid");
    digest_ = to_string(digest_of(corpus_->bytes()));
}

void text::divide(const configuration& settings) {
    if (!corpus_) return;
    const std::int64_t length = settings.data.sequence_length;
    require_row(*corpus_, length, "data.train");
    train_ = corpus_->bytes();
    if (valid_) {
        require_row(*valid_, length, "data.valid");
        validation_ = valid_->bytes();
    } else if (settings.data.valid_fraction > 0) {
        const corpus_split parts = of_text("data.valid_fraction", [&] {
            return corpus_->split(settings.data.valid_fraction, static_cast<std::size_t>(length));
        });
        train_ = parts.train;
        validation_ = parts.validation;
    }
}

void text::require_digest(const std::string& expected) const {
    if (!digest_.empty() && expected != digest_)
        throw launcher_error(exit_code::data, "data: data.train: '" + corpus_->name() + "' has SHA-256 " +
                                                  digest_.substr(0, 16) + "..., expected that of the run's text, " +
                                                  expected.substr(0, 16) + "...");
}

}  // namespace thinwire::launcher
