#include "text.hpp"

#include "exit_code.hpp"

namespace thinwire::launcher {

byte_corpus load_text(const std::string& file, std::int64_t sequence_length, const std::string& key) {
    if (file.empty())
        throw launcher_error(exit_code::usage, "configuration: " + key + " is not set: expected a file of text");
    try {
        byte_corpus corpus{std::filesystem::path(file)};
        corpus.require_sequence(static_cast<std::size_t>(sequence_length));
        return corpus;
    } catch (const error& problem) {
        throw launcher_error(exit_code::data, "data: " + key + ": " + problem.what());
    }
}

text::text(const configuration& settings) {
    if (!settings.peer.contributes && settings.data.train.empty()) return;
    corpus_ = load_text(settings.data.train, settings.data.sequence_length, "data.train");
    train_ = corpus_->bytes();
    if (!settings.data.valid.empty()) {
        valid_.emplace(load_text(settings.data.valid, settings.data.sequence_length, "data.valid"));
        validation_ = valid_->bytes();
    } else if (settings.data.valid_fraction > 0) {
        try {
            const corpus_split parts =
                corpus_->split(settings.data.valid_fraction, static_cast<std::size_t>(settings.data.sequence_length));
            train_ = parts.train;
            validation_ = parts.validation;
        } catch (const error& problem) {
            throw launcher_error(exit_code::data, std::string("data: data.valid_fraction: ") + problem.what());
        }
    }
    digest_ = to_string(digest_of(corpus_->bytes()));
}

void text::require_digest(const std::string& expected) const {
    if (!digest_.empty() && expected != digest_)
        throw launcher_error(exit_code::data, "data: data.train: '" + corpus_->name() + "' has SHA-256 " +
                                                  digest_.substr(0, 16) + "..., expected that of the run's text, " +
                                                  expected.substr(0, 16) + "...");
}

}  // namespace thinwire::launcher
