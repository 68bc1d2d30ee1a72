#ifndef THINWIRE_TESTS_SUPPORT_GOLDEN_HPP
#define THINWIRE_TESTS_SUPPORT_GOLDEN_HPP

#include <cstdlib>
#include <filesystem>

namespace thinwire::test {

/// The folder of reference data: THINWIRE_GOLDEN of the environment, else the copy in the repository.
[[nodiscard]] inline std::filesystem::path golden_folder() {
    const char* chosen = std::getenv("THINWIRE_GOLDEN");
    return chosen != nullptr && *chosen != '\0' ? chosen : THINWIRE_GOLDEN_DEFAULT;
}

}  // namespace thinwire::test

#endif  // THINWIRE_TESTS_SUPPORT_GOLDEN_HPP
