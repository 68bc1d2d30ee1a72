#include <thinwire/backend/cpu/fast.hpp>

#include <doctest/doctest.h>
#include <support/backend_golden.hpp>

using namespace thinwire;

TEST_CASE("golden operations: fast back end at every instruction set") {
    for (const isa level : {isa::scalar, isa::avx2, isa::avx512}) {
        if (level > best_isa()) continue;
        CAPTURE(to_string(level));
        thread_pool pool(2);
        cpu::fast backend(pool, level);
        test::check_golden_operations(backend);
    }
}
