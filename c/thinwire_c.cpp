// thinwire/c.h over class demo. Every entry point catches everything: no exception crosses into the caller.

#include <thinwire/c.h>
#include <thinwire/optim/demo.hpp>
#include <thinwire/optim/muon.hpp>
#include <thinwire/version.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

using thinwire::value_error;

struct thinwire_demo {
    std::unique_ptr<thinwire::thread_pool> pool;
    std::vector<thinwire::parameter> parameters;
    std::unique_ptr<thinwire::demo> optimizer;
    std::unique_ptr<thinwire::payload_decoder> validator;  // made by the first thinwire_validate()
    std::vector<std::byte> saved;
    std::vector<thinwire::contribution> contributions;  // of the current end_step
};

namespace {

// Fixed memory: an error can be told when there is no memory left.
thread_local char last_error[1024];

thinwire_status fail(thinwire_status status, std::string_view text) noexcept {
    const std::size_t length = std::min(text.size(), sizeof last_error - 1);
    std::memcpy(last_error, text.data(), length);
    last_error[length] = '\0';
    return status;
}

// Foreign bytes that were refused.
class refused : public thinwire::error {
    using error::error;
};

// Runs the body of an entry point; what it throws becomes a status and an error text that begins with `function`.
template <class Body>
thinwire_status guarded(const char* function, const Body& body) noexcept {
    const auto tell = [function](thinwire_status status, const char* what) noexcept {
        try {
            std::string_view text = what;
            const std::string own = std::string(function).substr(std::string_view("thinwire_").size()) + ": ";
            if (text.starts_with(own)) text.remove_prefix(own.size());
            return fail(status, std::string(function).append(": ").append(text));
        } catch (...) {
            return fail(status, what);
        }
    };
    try {
        body();
        return THINWIRE_OK;
    } catch (const refused& e) {
        return tell(THINWIRE_REFUSED, e.what());
    } catch (const thinwire::error& e) {
        return tell(THINWIRE_INVALID, e.what());
    } catch (const std::bad_alloc&) {
        return tell(THINWIRE_NO_MEMORY, "out of memory");
    } catch (const std::length_error&) {
        return tell(THINWIRE_NO_MEMORY, "out of memory");
    } catch (const std::system_error& e) {
        return tell(THINWIRE_NO_MEMORY, e.what());
    } catch (const std::exception& e) {
        return tell(THINWIRE_INTERNAL, e.what());
    } catch (...) {
        return tell(THINWIRE_INTERNAL, "unknown exception");
    }
}

void require(const void* pointer, const std::string& what) {
    if (pointer == nullptr) throw value_error(what + " is null");
}
// A list may be null only when it is empty.
void require_list(const void* pointer, std::size_t count, const std::string& what) {
    if (pointer == nullptr && count != 0)
        throw value_error(what + " is null, expected " + std::to_string(count) + " elements");
}
void require_size(std::size_t found, std::size_t expected, const std::string& what) {
    if (found != expected)
        throw value_error(what + " " + std::to_string(found) + ", expected " + std::to_string(expected) +
                          " (begin with the _init function; header and library must be of one version)");
}
[[noreturn]] void unknown(const char* what, int found, const char* expected) {
    throw value_error(std::string(what) + " " + std::to_string(found) + ", expected " + expected);
}

thinwire::update_rule_ptr rule_of(int rule, bool inherits) {
    if (rule == THINWIRE_RULE_INHERIT && inherits) return nullptr;
    if (rule == THINWIRE_RULE_SIGNUM) return std::make_shared<const thinwire::signum>();
    if (rule == THINWIRE_RULE_SGD) return std::make_shared<const thinwire::sgd>();
    if (rule == THINWIRE_RULE_MUON) return std::make_shared<const thinwire::muon>();
    unknown("rule", rule, "a THINWIRE_RULE_ constant");
}

thinwire::basis basis_of(int kind, std::uint64_t seed) {
    if (kind == THINWIRE_BASIS_DCT) return thinwire::basis::dct();
    if (kind == THINWIRE_BASIS_HADAMARD) return thinwire::basis::hadamard();
    if (kind == THINWIRE_BASIS_IDENTITY) return thinwire::basis::identity();
    if (kind == THINWIRE_BASIS_RANDOM) return thinwire::basis::random_orthogonal(seed, false);
    if (kind == THINWIRE_BASIS_RANDOM_EACH_ROUND) return thinwire::basis::random_orthogonal(seed, true);
    unknown("basis", kind, "a THINWIRE_BASIS_ constant");
}

thinwire::parameter_group group_of(const thinwire_group& g, std::size_t i) {
    const std::string name = "groups[" + std::to_string(i) + "].";
    require_size(g.struct_size, sizeof g, name + "struct_size");
    require_list(g.positions, g.position_count, name + "positions");
    thinwire::parameter_group out;
    if (g.position_count != 0) out.parameters.assign(g.positions, g.positions + g.position_count);
    if (g.prefix != nullptr) out.prefix = g.prefix;
    if (g.suffix != nullptr) out.suffix = g.suffix;
    out.learning_rate = g.learning_rate;
    if (g.own_weight_decay != 0) out.weight_decay = g.weight_decay;
    out.k = g.k;
    out.rule = rule_of(g.rule, true);
    return out;
}

thinwire::demo_options options_of(const thinwire_options& from) {
    require_list(from.groups, from.group_count, "options.groups");
    if (from.cut < THINWIRE_CUT_REMAINDER || from.cut > THINWIRE_CUT_DIVISORS)
        unknown("cut", from.cut, "a THINWIRE_CUT_ constant");
    if (from.values < THINWIRE_VALUES_F32 || from.values > THINWIRE_VALUES_Q2)
        unknown("values", from.values, "a THINWIRE_VALUES_ constant");
    if (from.gradient < THINWIRE_GRADIENT_LEARNING_RATE || from.gradient > THINWIRE_GRADIENT_COMPLEMENT)
        unknown("gradient", from.gradient, "a THINWIRE_GRADIENT_ constant");
    if (from.weights < THINWIRE_WEIGHTS_EQUAL || from.weights > THINWIRE_WEIGHTS_TOKENS)
        unknown("weights", from.weights, "a THINWIRE_WEIGHTS_ constant");
    thinwire::demo_options out;
    out.learning_rate = from.learning_rate;
    out.momentum_decay = from.momentum_decay;
    out.alpha = from.alpha;
    out.weight_decay = from.weight_decay;
    out.clip_norm = from.clip_norm;
    out.k = from.k;
    out.chunk = from.chunk;
    out.cut = static_cast<thinwire::chunk_cut>(from.cut);
    out.values = static_cast<thinwire::value_code>(from.values);
    out.error_feedback = from.error_feedback != 0;
    out.basis = basis_of(from.basis, from.basis_seed);
    out.rule = rule_of(from.rule, false);
    out.gradient = static_cast<thinwire::gradient_scale>(from.gradient);
    out.weights = static_cast<thinwire::mean_weights>(from.weights);
    out.contribution_clip = from.contribution_clip;
    std::memcpy(out.run.bytes.data(), from.run, sizeof from.run);
    for (std::size_t i = 0; i < from.group_count; ++i) out.groups.push_back(group_of(from.groups[i], i));
    return out;
}

thinwire::parameter parameter_of(const thinwire_tensor& t, std::size_t i) {
    const std::string at = "tensors[" + std::to_string(i) + "].";
    require_list(t.shape, t.rank, at + "shape");
    require(t.values, at + "values");
    if (t.rank > thinwire::shape::max_rank)
        throw value_error(at + "rank " + std::to_string(t.rank) + ", expected at most 8");
    thinwire::parameter p;
    p.name = t.name != nullptr ? std::string(t.name) : "tensor" + std::to_string(i);
    p.shape = thinwire::shape(std::span<const std::int64_t>(t.shape, t.rank));
    p.values = {t.values, t.count};
    p.gradient = p.values;  // takes the place until the first begin_step, which brings the gradients
    check(p);
    return p;
}

std::span<const std::byte> bytes_of(const thinwire_bytes& b, const std::string& what) {
    require_list(b.data, b.size, what);
    return std::as_bytes(std::span(b.data, b.size));
}
thinwire_bytes handed_out(std::span<const std::byte> bytes) noexcept {
    return {reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()};
}

void take_gradients(thinwire_demo& peer, std::span<const thinwire_floats> gradients) {
    for (std::size_t i = 0; i < gradients.size(); ++i) {
        const std::string& name = peer.parameters[i].name;
        require(gradients[i].data, "gradient of '" + name + "'");
        if (gradients[i].count != peer.parameters[i].values.size())
            throw value_error("gradient of '" + name + "': " + std::to_string(gradients[i].count) +
                              " elements, expected " + std::to_string(peer.parameters[i].values.size()));
    }
    // demo only reads gradients; parameter has no const in it because training programs write them through it.
    for (std::size_t i = 0; i < gradients.size(); ++i)
        peer.optimizer->set_gradient(i, {const_cast<float*>(gradients[i].data), gradients[i].count});
}

thinwire_report report_of(const thinwire::step_report& r) noexcept {
    return {.round = r.round,
            .bytes_sent = r.bytes_sent,
            .bytes_received = r.bytes_received,
            .tokens = r.tokens,
            .contributors = static_cast<std::uint32_t>(r.contributors),
            .rejected = static_cast<std::uint32_t>(r.rejected),
            .agreeing = static_cast<std::uint32_t>(r.agreeing),
            .disagreeing = static_cast<std::uint32_t>(r.disagreeing),
            .own_included = r.own_included ? 1 : 0,
            .gradient_norm = r.gradient_norm,
            .learning_rate = r.learning_rate};
}

thinwire_options default_options() {
    const thinwire::demo_options defaults;
    thinwire_options out{};
    out.struct_size = sizeof out;
    out.learning_rate = defaults.learning_rate;
    out.momentum_decay = defaults.momentum_decay;
    out.alpha = defaults.alpha;
    out.k = defaults.k;
    out.chunk = defaults.chunk;
    out.rule = THINWIRE_RULE_SIGNUM;
    out.threads = 1;
    return out;
}

void create(std::span<const thinwire_tensor> tensors, const thinwire_options* options, thinwire_demo** out) {
    // An older caller's struct may be smaller: nothing but its size is read before that is known.
    if (options != nullptr) require_size(options->struct_size, sizeof *options, "options.struct_size");
    const thinwire_options chosen = options != nullptr ? *options : default_options();
    auto peer = std::make_unique<thinwire_demo>();
    const thinwire::demo_options translated = options_of(chosen);
    for (std::size_t i = 0; i < tensors.size(); ++i) peer->parameters.push_back(parameter_of(tensors[i], i));
    if (chosen.threads != 1) peer->pool = std::make_unique<thinwire::thread_pool>(chosen.threads);
    peer->optimizer = std::make_unique<thinwire::demo>(peer->parameters, translated, peer->pool.get());
    *out = peer.release();
}

}  // namespace

extern "C" {

const char* thinwire_version(void) {
    return THINWIRE_VERSION_STRING;
}

const char* thinwire_last_error(void) {
    return last_error;
}

thinwire_status thinwire_options_init(thinwire_options* options, size_t size) {
    return guarded("thinwire_options_init", [&] {
        require(options, "options");
        require_size(size, sizeof *options, "size");
        *options = default_options();
    });
}

thinwire_status thinwire_group_init(thinwire_group* group, size_t size) {
    return guarded("thinwire_group_init", [&] {
        require(group, "group");
        require_size(size, sizeof *group, "size");
        *group = thinwire_group{};
        group->struct_size = size;
        group->learning_rate = 1.0F;
    });
}

thinwire_status thinwire_demo_create(const thinwire_tensor* tensors, size_t tensor_count,
                                     const thinwire_options* options, thinwire_demo** out) {
    return guarded("thinwire_demo_create", [&] {
        require(out, "out");
        *out = nullptr;
        require(tensors, "tensors");
        if (tensor_count == 0) throw value_error("tensor_count 0, expected at least 1");
        create({tensors, tensor_count}, options, out);
    });
}

void thinwire_demo_destroy(thinwire_demo* demo) {
    delete demo;
}

thinwire_status thinwire_begin_step(thinwire_demo* demo, uint64_t self, const thinwire_floats* gradients,
                                    size_t gradient_count, thinwire_bytes* payload) {
    return guarded("thinwire_begin_step", [&] {
        require(demo, "demo");
        require(gradients, "gradients");
        require(payload, "payload");
        if (gradient_count != demo->parameters.size())
            throw value_error("gradient_count " + std::to_string(gradient_count) + ", expected " +
                              std::to_string(demo->parameters.size()));
        take_gradients(*demo, {gradients, gradient_count});
        *payload = handed_out(demo->optimizer->begin_step(self));
    });
}

thinwire_status thinwire_end_step(thinwire_demo* demo, uint64_t round, const thinwire_payload* payloads,
                                  size_t payload_count, thinwire_report* report) {
    return guarded("thinwire_end_step", [&] {
        require(demo, "demo");
        require_list(payloads, payload_count, "payloads");
        demo->contributions.clear();
        for (std::size_t i = 0; i < payload_count; ++i)
            demo->contributions.push_back(
                {.peer = payloads[i].peer,
                 .payload = bytes_of(payloads[i].bytes, "payloads[" + std::to_string(i) + "].bytes")});
        const thinwire::commit agreed = {.round = round, .contributions = demo->contributions};
        const thinwire_report found = report_of(demo->optimizer->end_step({&agreed, 1}));
        if (report != nullptr) *report = found;
    });
}

thinwire_status thinwire_abandon(thinwire_demo* demo) {
    return guarded("thinwire_abandon", [&] {
        require(demo, "demo");
        demo->optimizer->abandon();
    });
}

thinwire_status thinwire_in_flight(const thinwire_demo* demo, thinwire_bytes* payload) {
    return guarded("thinwire_in_flight", [&] {
        require(demo, "demo");
        require(payload, "payload");
        *payload = handed_out(demo->optimizer->in_flight());
    });
}

thinwire_status thinwire_validate(thinwire_demo* demo, const thinwire_payload* payload, uint64_t round) {
    return guarded("thinwire_validate", [&] {
        require(demo, "demo");
        require(payload, "payload");
        const auto bytes = bytes_of(payload->bytes, "payload.bytes");
        const thinwire::demo& optimizer = *demo->optimizer;
        if (!demo->validator) demo->validator = std::make_unique<thinwire::payload_decoder>(optimizer.layout());
        const auto valid =
            demo->validator->validate(bytes, {.run = optimizer.options().run, .round = round, .peer = payload->peer});
        if (!valid) throw refused(valid.error().message);
    });
}

thinwire_status thinwire_round(const thinwire_demo* demo, uint64_t* round) {
    return guarded("thinwire_round", [&] {
        require(demo, "demo");
        require(round, "round");
        *round = demo->optimizer->round();
    });
}

thinwire_status thinwire_set_round(thinwire_demo* demo, uint64_t round) {
    return guarded("thinwire_set_round", [&] {
        require(demo, "demo");
        demo->optimizer->set_round(round);
    });
}

thinwire_status thinwire_set_learning_rate(thinwire_demo* demo, float learning_rate) {
    return guarded("thinwire_set_learning_rate", [&] {
        require(demo, "demo");
        demo->optimizer->set_learning_rate(learning_rate);
    });
}

thinwire_status thinwire_set_k(thinwire_demo* demo, int32_t k) {
    return guarded("thinwire_set_k", [&] {
        require(demo, "demo");
        demo->optimizer->set_k(k);
    });
}

thinwire_status thinwire_set_tokens(thinwire_demo* demo, uint32_t tokens) {
    return guarded("thinwire_set_tokens", [&] {
        require(demo, "demo");
        demo->optimizer->set_tokens(tokens);
    });
}

thinwire_status thinwire_replica_digest(const thinwire_demo* demo, uint8_t digest[32]) {
    return guarded("thinwire_replica_digest", [&] {
        require(demo, "demo");
        require(digest, "digest");
        const thinwire::digest found = demo->optimizer->replica_digest();
        std::memcpy(digest, found.bytes.data(), found.bytes.size());
    });
}

thinwire_status thinwire_save(thinwire_demo* demo, thinwire_bytes* state) {
    return guarded("thinwire_save", [&] {
        require(demo, "demo");
        require(state, "state");
        demo->saved = demo->optimizer->save_private();
        *state = handed_out(demo->saved);
    });
}

thinwire_status thinwire_restore(thinwire_demo* demo, const uint8_t* state, size_t size) {
    return guarded("thinwire_restore", [&] {
        require(demo, "demo");
        require(state, "state");
        const auto restored = demo->optimizer->restore_private(std::as_bytes(std::span(state, size)));
        if (!restored) throw refused(restored.error().message);
    });
}

thinwire_status thinwire_memory_bytes(const thinwire_demo* demo, thinwire_memory* memory) {
    return guarded("thinwire_memory_bytes", [&] {
        require(demo, "demo");
        require(memory, "memory");
        const thinwire::demo_memory found = demo->optimizer->memory_bytes();
        std::size_t kept = thinwire::bytes_held(demo->saved, demo->contributions);
        if (demo->validator) kept += sizeof *demo->validator + demo->validator->memory_bytes();
        *memory = {.momentum = found.momentum, .workspace = found.workspace, .codec = found.codec + kept};
    });
}

}  // extern "C"
