#include <thinwire/thinwire.hpp>

int main() {
    const auto read = thinwire::snapshot::decode(thinwire::snapshot{.round = 7}.encode());
    return read && read->round == 7 ? 0 : 1;
}
