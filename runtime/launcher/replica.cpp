#include "replica.hpp"

#include <thinwire/codec/checksum.hpp>
#include <thinwire/core/bytes.hpp>
#include <thinwire/hf/model.hpp>
#include <thinwire/io/batch_sampler.hpp>
#include <thinwire/io/file.hpp>

#include "continued_text.hpp"
#include "exit_code.hpp"

#include <algorithm>
#include <filesystem>
#include <thread>

namespace thinwire::launcher {
namespace {

constexpr const char* replica_blob = "optimizer";
constexpr std::uint64_t private_magic = 0x3154415453505754;  // "TWPSTAT1"

/// Settings that the model refuses are the operator's.
template <class Make>
auto configured(const Make& make) {
    try {
        return make();
    } catch (const launcher_error&) {
        throw;
    } catch (const error& problem) {
        throw launcher_error(exit_code::usage, std::string("configuration: ") + problem.what());
    }
}

}  // namespace

int thread_count(std::int64_t asked) {
    return asked > 0 ? static_cast<int>(asked)
                     : static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1U, 1024U));
}

digest run_digest(const std::string& manifest, std::span<const parameter> parameters) {
    sha256 hash;
    hash.update(manifest);
    for (const parameter& one : parameters) hash.update(std::as_bytes(one.values));
    return hash.finish();
}

snapshot load_snapshot(const directory& where) {
    result<snapshot> loaded = snapshot::load(where.snapshot());
    if (!loaded) throw launcher_error(exit_code::storage, loaded.error().message);
    return std::move(*loaded);
}

nn::transformer_config transformer_of(const configuration& settings) {
    const auto& m = settings.model;
    nn::transformer_config shape;
    shape.vocab_size = static_cast<int>(m.vocab_size);
    shape.hidden_size = static_cast<int>(m.hidden_size);
    shape.intermediate_size = static_cast<int>(m.intermediate_size);
    shape.num_hidden_layers = static_cast<int>(m.num_hidden_layers);
    shape.num_attention_heads = static_cast<int>(m.num_attention_heads);
    shape.num_key_value_heads =
        static_cast<int>(m.num_key_value_heads > 0 ? m.num_key_value_heads : m.num_attention_heads);
    shape.head_dim = static_cast<int>(m.head_dim > 0 ? m.head_dim : m.hidden_size / m.num_attention_heads);
    shape.max_position_embeddings = static_cast<int>(std::max<std::int64_t>(settings.data.sequence_length, 2));
    shape.rope_theta = m.rope_theta;
    shape.norm_eps = static_cast<float>(m.norm_eps);
    shape.tie_word_embeddings = m.tie_word_embeddings;
    shape.initializer_range = static_cast<float>(m.initializer_range);
    if (m.family == "qwen3") {
        shape.family = nn::model_family::qwen3;
        shape.qk_norm = nn::qk_norm_kind::per_head;
    } else if (m.family == "olmo2") {
        shape.family = nn::model_family::olmo2;
        shape.placement = nn::norm_placement::post;
        shape.qk_norm = nn::qk_norm_kind::full;
    } else if (m.family == "gpt2") {
        shape.family = nn::model_family::gpt2;
        shape.norm = nn::norm_kind::layer;
        shape.position = nn::position_kind::learned;
        shape.mlp = nn::mlp_kind::gelu_tanh;
        shape.attention_bias = true;
        shape.mlp_bias = true;
    }
    return shape;
}

replica::replica(const configuration& settings)
    : settings_(settings),
      shape_(configured([&] { return transformer_of(settings); })),
      pool_(thread_count(settings.peer.threads)),
      backend_(pool_),
      model_(configured([&] { return nn::transformer<cpu::fast>(backend_, shape_); })) {}

void replica::begin() {
    model_.initialize(static_cast<std::uint64_t>(settings_.run.seed));
    run_ = run_digest(manifest(settings_), model_.parameters());
    optimizer_ = configured([&] { return make_optimizer(settings_, run_, model_.parameters(), pool_); });
}

void replica::restore(const snapshot& from) {
    const auto require = [](const result<ok>& done) {
        if (!done) throw launcher_error(exit_code::storage, "snapshot: " + done.error().message);
    };
    require(from.copy_to(model_.parameters()));
    run_ = from.run;
    optimizer_ = configured([&] { return make_optimizer(settings_, run_, model_.parameters(), pool_); });
    optimizer_->set_round(from.round);
    const auto state = from.blobs.find(replica_blob);
    if (state != from.blobs.end()) require(optimizer_->restore_replica(state->second));
}

std::size_t replica::parameter_count() {
    std::size_t total = 0;
    for (const parameter& one : model_.parameters()) total += one.values.size();
    return total;
}

std::function<result<ok>(std::uint64_t, peer_id, std::span<const std::byte>)> replica::payload_check() const {
    return payload_validator(optimizer_->layout(), run_);
}

float replica::loss_and_gradient(std::span<const std::int32_t> tokens, std::span<const std::int32_t> targets,
                                 int rows) {
    return model_.loss_and_gradient(tokens, targets, rows, static_cast<int>(settings_.data.sequence_length));
}

void replica::average_gradient(int count) {
    if (count == 1) return;
    const float part = 1.0F / static_cast<float>(count);
    for (const parameter& one : model_.parameters())
        for (float& g : one.gradient) g *= part;
}

double replica::evaluate(std::span<const std::byte> validation, std::int64_t windows) {
    return mean_loss(model_, validation, settings_.data.sequence_length, windows);
}

std::string replica::sample(std::int64_t count) {
    return continued_text(model_, "\n", static_cast<std::size_t>(count), {.temperature = 0.7F, .top_k = 40, .seed = 1});
}

snapshot replica::make_snapshot() {
    snapshot made;
    made.run = run_;
    made.round = optimizer_->round();
    made.manifest = manifest(settings_);
    made.tensors = tensors_of(model_.parameters());
    made.blobs[replica_blob] = optimizer_->save_replica();
    return made;
}

void replica::save(const directory& where) {
    make_snapshot().save(where.snapshot());
    hf::save_model(where.root, shape_, model_.parameters());
}

void replica::save_private(const directory& where) {
    const std::vector<std::byte> state = optimizer_->save_private();
    byte_writer out;
    out.put(private_magic);
    out.put(std::span<const std::byte>(run_.bytes));
    out.put(checksum64(state));
    out.put(std::span<const std::byte>(state));
    // Before the payload is published: a momentum from before it would hold again what others then have committed.
    write_file_atomically(where.private_state(), out.bytes(), settings_.peer.durable);
}

void replica::restore_private(const directory& where) {
    const std::filesystem::path file = where.private_state();
    if (!std::filesystem::exists(file)) return;
    const auto refuse = [&](const std::string& why) {
        throw launcher_error(exit_code::storage, "'" + file.string() + "': " + why);
    };
    const std::vector<std::byte> bytes = read_file(file);
    byte_reader in(bytes);
    const auto magic = in.get<std::uint64_t>();
    digest run;
    const auto raw = in.get_bytes(run.bytes.size());
    std::copy(raw.begin(), raw.end(), run.bytes.begin());
    const auto sum = in.get<std::uint64_t>();
    const auto state = in.get_bytes(in.remaining());
    if (magic != private_magic) refuse("this is not a peer's private state");
    if (in.failed() || sum != checksum64(state)) refuse("damaged: the checksum differs");
    if (run != run_) refuse("of run " + to_string(run, 16) + ", expected " + to_string(run_, 16));
    const std::uint64_t round = optimizer_->round();
    if (const result<ok> taken = optimizer_->restore_private(state); !taken) refuse(taken.error().message);
    // A payload in flight for a round that the weights already hold was in its commit.
    optimizer_->set_round(round);
}

double mean_loss(nn::transformer<cpu::fast>& model, std::span<const std::byte> text, std::int64_t sequence_length,
                 std::int64_t windows) {
    const auto length = static_cast<std::size_t>(sequence_length);
    const std::size_t fit = (text.size() - 1) / length;
    const std::size_t count = windows > 0 ? std::min(fit, static_cast<std::size_t>(windows)) : fit;
    constexpr std::size_t rows_at_once = 8;
    std::vector<std::int32_t> tokens(rows_at_once * length);
    std::vector<std::int32_t> targets(rows_at_once * length);
    double sum = 0;
    for (std::size_t done = 0; done < count;) {
        const std::size_t rows = std::min(rows_at_once, count - done);
        for (std::size_t row = 0; row < rows; ++row) {
            const std::size_t window = (done + row) * fit / count;
            split_window(text.subspan(window * length, length + 1), std::span(tokens).subspan(row * length, length),
                         std::span(targets).subspan(row * length, length));
        }
        const float loss = model.loss(std::span(tokens).first(rows * length), std::span(targets).first(rows * length),
                                      static_cast<int>(rows), static_cast<int>(length));
        sum += static_cast<double>(loss) * static_cast<double>(rows);
        done += rows;
    }
    return count > 0 ? sum / static_cast<double>(count) : 0.0;
}

}  // namespace thinwire::launcher
