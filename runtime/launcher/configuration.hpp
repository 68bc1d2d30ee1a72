#ifndef THINWIRE_LAUNCHER_CONFIGURATION_HPP
#define THINWIRE_LAUNCHER_CONFIGURATION_HPP

#include <cstdint>
#include <filesystem>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace thinwire::launcher {

/// Everything a run and a peer can be told. Each member is a key `section.name` of the TOML file and an option
/// `--section.name VALUE` of the command line; configuration_keys() says which are shared by all peers of a run.
struct configuration {
    struct {
        std::string family = "llama";
        std::int64_t vocab_size = 256;
        std::int64_t hidden_size = 192;
        std::int64_t intermediate_size = 512;
        std::int64_t num_hidden_layers = 4;
        std::int64_t num_attention_heads = 4;
        std::int64_t num_key_value_heads = 0;  ///< 0: as many as num_attention_heads
        std::int64_t head_dim = 0;             ///< 0: hidden_size / num_attention_heads
        double rope_theta = 10000.0;
        double norm_eps = 1e-5;
        double initializer_range = 0.02;
        bool tie_word_embeddings = false;
    } model;
    struct {
        std::string train;
        std::string valid;  ///< empty: the last valid_fraction of train
        double valid_fraction = 0.05;
        std::int64_t sequence_length = 128;
        std::string train_digest;  ///< SHA-256 of the training text; the founder fills it in
    } data;
    struct {
        std::string kind = "demo";
        double learning_rate = 0;
        /// learning_rate; where that is 0, what was best in the table of docs/optim.md.
        [[nodiscard]] double peak_rate() const {
            if (learning_rate > 0) return learning_rate;
            return kind == "demo" && rule == "muon" ? 4e-3 : 1e-3;
        }
        double momentum_decay = 0.999;
        double alpha = 1.0;
        std::string gradient = "learning_rate";
        std::string rule = "muon";
        std::int64_t k = 64;
        std::int64_t chunk = 64;
        std::string values = "sign";
        bool error_feedback = false;
        std::string basis = "dct";
        std::string groups;
        double weight_decay = 0.0;
        double clip_norm = 1.0;
        std::string weights = "equal";
        double contribution_clip = 0.0;
        double beta1 = 0.9;
        double beta2 = 0.95;
        double eps = 1e-8;
    } optimizer;
    struct {
        std::string kind = "cosine";
        std::int64_t warmup = 50;
        std::int64_t decay = 100;
        double floor = 0.1;
    } schedule;
    struct {
        std::int64_t rounds = 600;
        std::string id;
        std::int64_t seed = 1;
        std::int64_t batch_size = 4;
        std::int64_t max_peers = 64;
        std::int64_t min_peers = 1;
        std::int64_t eval_every = 50;
        std::int64_t eval_windows = 128;
        std::int64_t sample_tokens = 96;
        std::int64_t snapshot_every = 100;
        std::string keep_log = "all";
        std::int64_t micro_batches = 1;
        std::int64_t round_ms = 0;
        std::int64_t round_tokens = 0;
        std::int64_t max_staleness = 16;
        bool overlap = false;
        std::int64_t min_round_ms = 0;
    } run;
    struct {
        std::string name;
        std::string address = "127.0.0.1:0";
        std::string listen = "auto";
        std::string advertise;
        std::string directory;
        std::int64_t threads = 0;
        bool contributes = true;
        std::int64_t save_private_every = 1;
        bool durable = true;
        std::int64_t payload_bytes = 0;
        std::int64_t stop_at = 0;
        std::int64_t connect_timeout_ms = 15000;
        std::int64_t reconnect_timeout_ms = 600000;
        std::int64_t takeover_ms = 5000;
        std::int64_t min_deadline_ms = 2000;
        std::int64_t max_deadline_ms = 120000;
        bool plaintext = false;
        std::string status;  ///< host:port; empty: nobody can watch
        bool status_public = false;
        std::string dashboard;  ///< host:port; empty: no page for people
        bool dashboard_public = false;
        std::string place, hardware;  ///< what others are told; empty: nothing
        std::string coordinates;      ///< "latitude, longitude" of place; empty: not on the map
        std::string tensorboard;      ///< folder; empty: no event files
        std::string log_file;         ///< in peer.directory; empty: none
    } peer;

    /// The keys that a file or the command line stated, as opposed to defaults.
    std::set<std::string, std::less<>> stated;
};

/// One row of the registry that files, command line, manifest and documentation are all made from.
struct configuration_key {
    using field = std::variant<std::string*, std::int64_t*, double*, bool*>;

    std::string_view name;        ///< "optimizer.k"
    field (*at)(configuration&);  ///< where its value lies
    bool shared = false;          ///< part of the manifest: equal for all peers of a run
    double low = 0;               ///< numbers: smallest allowed
    double high = 0;              ///< numbers: largest allowed
    std::string_view choices;     ///< strings: "demo|adamw"; empty: any text
    std::string_view help;
};

[[nodiscard]] std::span<const configuration_key> configuration_keys();

/// "an integer in 1..65536", "one of demo|adamw", ...
[[nodiscard]] std::string expectation(const configuration_key& key);

/// The current value as TOML would state it.
[[nodiscard]] std::string value_text(const configuration_key& key, const configuration& settings);

/// The key's default and meaning, one line each, grouped by section: what `thinwire keys` prints.
[[nodiscard]] std::string describe_keys();

/// `--section.name VALUE`. All of these throw launcher_error(usage) with key, value and expectation in one line.
void set_key(configuration& settings, std::string_view name, std::string_view value);

/// Reads TOML text; `source` names it in messages.
void read_toml(configuration& settings, std::string_view text, const std::string& source);

/// Reads a TOML file; launcher_error(usage) when it cannot be read.
void read_toml_file(configuration& settings, const std::filesystem::path& file);

/// The port of "trainer.example.org:4400", "127.0.0.1:0", "[::1]:4400"; nothing for another form, which a host of other
/// than visible ASCII has. Not whether there is one.
[[nodiscard]] std::optional<std::uint16_t> port_of(std::string_view address);
/// Such an address with a port other than 0.
[[nodiscard]] inline bool can_be_dialled(std::string_view address) {
    return port_of(address).value_or(0) != 0;
}

/// Relations between keys: k against chunk, heads against hidden size, ...
void check(const configuration& settings);

/// The shared keys in canonical TOML: same settings, same bytes.
[[nodiscard]] std::string manifest(const configuration& settings);

/// All keys as TOML: what DIR/run.toml holds.
[[nodiscard]] std::string full_toml(const configuration& settings);

/// Takes the shared keys from a run's manifest. Throws launcher_error(mismatch) naming the first key that was
/// stated here with another value, or that this program does not know.
void adopt_manifest(configuration& settings, const std::string& manifest);

/// The name in `known` nearest to `name` by edit distance; empty when none is near.
[[nodiscard]] std::string nearest(std::string_view name, std::span<const std::string_view> known);

/// Takes every `--section.name VALUE` and `--section.name=VALUE` out of the arguments; the rest stays in order.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> extract_overrides(std::vector<std::string>& arguments);

}  // namespace thinwire::launcher

#endif  // THINWIRE_LAUNCHER_CONFIGURATION_HPP
