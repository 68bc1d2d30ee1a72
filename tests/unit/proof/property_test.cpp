#include <thinwire/optim/demo.hpp>

#include "support/float_modes.hpp"
#include "support/optimizer_peer.hpp"
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <vector>

using namespace thinwire;

namespace {

using peer = optimizer_peer<demo>;

/// A run that nobody thought of: shapes, options and what happens to the payloads, all from one number.
struct random_case {
    std::vector<shape> shapes;
    demo_options options;
    random_stream random;

    explicit random_case(std::uint64_t seed) : random(900, seed) {
        const std::vector<std::int64_t> sides = {1, 2, 3, 5, 7, 8, 12, 16, 29, 31, 48, 64, 67, 96};
        const std::uint64_t tensors = 1 + random.below(3);
        for (std::uint64_t i = 0; i < tensors; ++i) {
            std::vector<std::int64_t> sizes;
            std::int64_t elements = 1;
            for (std::uint64_t rank = random.below(5); rank > 0; --rank) {
                const std::int64_t side = sides[random.below(sides.size())];
                sizes.push_back(elements * side <= 6000 ? side : 1);
                elements *= sizes.back();
            }
            shapes.emplace_back(sizes);
        }
        const int chunks[] = {1, 7, 16, 32, 64};
        options.chunk = chunks[random.below(5)];
        if (seed % 5 == 0) options.cut = chunk_cut::divisors;
        options.k = 1 + static_cast<int>(random.below(static_cast<std::uint64_t>(
                            std::min(options.chunk * options.chunk, random.below(3) == 0 ? 4096 : 24))));
        const float alphas[] = {1.0F, 0.2F, 0.75F};
        options.alpha = alphas[random.below(3)];
        options.gradient = static_cast<gradient_scale>(random.below(3));
        const float decays[] = {0.0F, 0.5F, 0.999F};
        options.momentum_decay = decays[random.below(3)];
        options.learning_rate = 0.01F;
        options.weight_decay = random.below(2) == 0 ? 0.0F : 0.1F;
        options.values = random.below(2) == 0 ? value_code::f32 : value_code::sign;
        if (random.below(3) == 0) options.rule = std::make_shared<const sgd>();
        const basis bases[] = {basis::dct(), basis::hadamard(), basis::random_orthogonal(seed),
                               basis::random_orthogonal(seed, true), basis::identity()};
        options.basis = bases[random.below(5)];
    }

    [[nodiscard]] double gain() const {
        const double decay = static_cast<double>(options.momentum_decay);
        return options.gradient == gradient_scale::none         ? 1.0
               : options.gradient == gradient_scale::complement ? 1.0 - decay
                                                                : static_cast<double>(options.learning_rate);
    }
};

/// What the momentum of a peer must be, in double and by the definitions: all that was computed, less what was taken
/// out for what was committed.
class ledger {
 public:
    ledger(const random_case& c, const payload_layout& layout) : case_(c), layout_(layout) {
        for (const shape& s : c.shapes) momentum_.emplace_back(s.count());
    }

    void add(const std::vector<std::vector<float>>& gradients) {
        const double decay = static_cast<double>(case_.options.momentum_decay);
        const double gain = static_cast<double>(static_cast<float>(case_.gain()));
        for (std::size_t i = 0; i < momentum_.size(); ++i)
            for (std::size_t e = 0; e < momentum_[i].size(); ++e)
                momentum_[i][e] = decay * momentum_[i][e] + gain * static_cast<double>(gradients[i][e]);
    }

    /// Takes out alpha times the part at the positions of a payload.
    void commit(std::uint64_t round, const sparse_content& sent) {
        std::size_t place = 0, chunk_number = 0, section = 0;
        for (std::size_t i = 0; i < momentum_.size(); ++i)
            for (const chunk_grid& grid :
                 chunk_regions(case_.shapes[i], static_cast<std::size_t>(case_.options.chunk), case_.options.cut)) {
                const auto rows = case_.options.basis.table(grid.rows(), {.round = round, .tensor = i, .axis = 0});
                const auto cols = case_.options.basis.table(grid.cols(), {.round = round, .tensor = i, .axis = 1});
                const std::size_t kept = layout_.sections[section++].kept;
                for (std::size_t chunk = 0; chunk < grid.count(); ++chunk, place += kept) {
                    const std::size_t count = sent.counts[chunk_number++];
                    take_out(i, grid, chunk, rows, cols, std::span(sent.positions).subspan(place, count));
                }
            }
    }

    [[nodiscard]] double worst_error(demo& of) const {
        double worst = 0.0;
        for (std::size_t i = 0; i < momentum_.size(); ++i) {
            double largest = 1e-30;
            for (const double m : momentum_[i]) largest = std::max(largest, std::abs(m));
            largest = std::max(largest, case_.gain());
            const auto found = of.momentum(i);
            for (std::size_t e = 0; e < found.size(); ++e)
                worst = std::max(worst, std::abs(static_cast<double>(found[e]) - momentum_[i][e]) / largest);
        }
        return worst;
    }

 private:
    void take_out(std::size_t i, const chunk_grid& grid, std::size_t chunk, std::span<const std::int32_t> rows,
                  std::span<const std::int32_t> cols, std::span<const std::uint16_t> positions) {
        const std::size_t h = grid.rows(), w = grid.cols();
        double* m = momentum_[i].data() + grid.offset(chunk);
        std::vector<double> values;
        for (const std::uint16_t p : positions) {
            double sum = 0.0;
            for (std::size_t y = 0; y < h; ++y)
                for (std::size_t x = 0; x < w; ++x)
                    sum += m[y * grid.stride() + x] * entry(rows, h, p / w, y) * entry(cols, w, p % w, x);
            values.push_back(sum);
        }
        for (std::size_t n = 0; n < positions.size(); ++n)
            for (std::size_t y = 0; y < h; ++y)
                for (std::size_t x = 0; x < w; ++x)
                    m[y * grid.stride() + x] -= static_cast<double>(case_.options.alpha) * values[n] *
                                                entry(rows, h, positions[n] / w, y) *
                                                entry(cols, w, positions[n] % w, x);
    }
    static double entry(std::span<const std::int32_t> table, std::size_t side, std::size_t f, std::size_t x) {
        return static_cast<double>(table[f * side + x]) * 0x1p-22;
    }

    const random_case& case_;
    const payload_layout& layout_;
    std::vector<std::vector<double>> momentum_;
};

/// Two peers of different instruction sets and a replica that only applies. The first peer's payload is lost or
/// abandoned now and then; in the middle a twin takes its place that knows only what was saved.
class property_run {
 public:
    explicit property_run(std::uint64_t seed) : case_(seed), pool_(3) {
        demo_options o = case_.options;
        first_ = std::make_unique<peer>(case_.shapes, o, nullptr, seed);
        twin_ = std::make_unique<peer>(case_.shapes, o, &pool_, seed);
        o.level = isa::scalar;
        second_ = std::make_unique<peer>(case_.shapes, o, &pool_, seed + 1);
        o.level = std::min(isa::avx2, best_isa());
        watcher_ = std::make_unique<peer>(case_.shapes, o, nullptr, seed + 2);
        ledger_.emplace(case_, first_->optimizer->layout());
    }

    void run() {
        for (std::uint64_t round = 0; round < 7; ++round) {
            if (round == 3) save_and_restore();
            step(round);
        }
    }

 private:
    void step(std::uint64_t round) {
        const bool twin = round >= 3;
        const std::uint64_t fate = case_.random.below(4);  // 0: lost, 1: abandoned and sent again, else committed
        first_->new_gradients();
        second_->new_gradients();
        if (twin) twin_->gradients_from(*first_);
        auto payload = first_->optimizer->begin_step(1);
        ledger_->add(first_->gradients);
        if (twin) {
            const in_float_mode hostile(float_modes()[round % 4]);
            CHECK(std::ranges::equal(twin_->optimizer->begin_step(1), payload));
        }
        if (fate == 1) {
            first_->optimizer->abandon();
            if (twin) twin_->optimizer->abandon();
            CHECK(ledger_->worst_error(*first_->optimizer) < 1e-5);
            first_->new_gradients();
            if (twin) twin_->gradients_from(*first_);
            payload = first_->optimizer->begin_step(1);
            ledger_->add(first_->gradients);
            if (twin) CHECK(std::ranges::equal(twin_->optimizer->begin_step(1), payload));
        }
        sparse_content sent;
        REQUIRE(payload_decoder(first_->optimizer->layout())
                    .decode(payload, {.run = {}, .round = round, .peer = 1}, sent)
                    .has_value());
        std::vector<contribution> list = {{.peer = 2, .payload = second_->optimizer->begin_step(2)}};
        if (fate != 0) list.push_back({.peer = 1, .payload = payload});
        const commit agreed = {.round = round, .contributions = list};
        for (peer* p : {first_.get(), second_.get(), watcher_.get(), twin ? twin_.get() : nullptr}) {
            if (p == nullptr) continue;
            CHECK(p->optimizer->apply(agreed).rejected == 0);
            CHECK(p->optimizer->replica_digest() == first_->optimizer->replica_digest());
        }
        if (fate != 0) ledger_->commit(round, sent);
        if (round % 2 == 0 || fate == 0) CHECK(ledger_->worst_error(*first_->optimizer) < 1e-5);
        if (round % 2 == 0 && twin) static_cast<void>(twin_->optimizer->momentum(0));
        if (twin && fate == 0) static_cast<void>(twin_->optimizer->momentum(0));
        if (twin) CHECK(twin_->optimizer->save_private() == first_->optimizer->save_private());
    }

    void save_and_restore() {
        const auto saved = first_->optimizer->save_private();
        REQUIRE(twin_->optimizer->restore_private(saved).has_value());
        for (std::size_t i = 0; i < first_->values.size(); ++i)
            std::ranges::copy(first_->values[i], twin_->values[i].begin());
        twin_->optimizer->set_round(first_->optimizer->round());
        CHECK(twin_->optimizer->save_private() == saved);
    }

    random_case case_;
    thread_pool pool_;
    std::unique_ptr<peer> first_, twin_, second_, watcher_;
    std::optional<ledger> ledger_;
};

}  // namespace

TEST_CASE("any shapes and options: replicas equal, nothing lost, restored bit for bit") {
    for (std::uint64_t seed = 0; seed < 120; ++seed) {
        INFO("seed ", seed);
        property_run(seed).run();
    }
}
