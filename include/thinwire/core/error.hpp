#ifndef THINWIRE_CORE_ERROR_HPP
#define THINWIRE_CORE_ERROR_HPP

#include <stdexcept>

namespace thinwire {

/// Base of everything that thinwire throws. A message names the operation, the value and what was expected.
class error : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// Shapes or sizes that do not fit together.
class shape_error : public error {
    using error::error;
};

/// A setting or a number outside its range, or not finite.
class value_error : public error {
    using error::error;
};

/// A file or a device that could not be read or written.
class io_error : public error {
    using error::error;
};

}  // namespace thinwire

#endif  // THINWIRE_CORE_ERROR_HPP
