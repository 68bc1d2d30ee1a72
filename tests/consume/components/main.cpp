#include <thinwire/hf/safetensors.hpp>
#include <thinwire/runtime/node.hpp>
#include <thinwire/thinwire.hpp>

int main() {
    return THINWIRE_VERSION_MAJOR == 0 ? 0 : 1;
}
