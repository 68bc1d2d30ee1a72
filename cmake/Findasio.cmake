# Finds standalone asio and defines asio::asio: from its own package configuration (vcpkg, Conan) where there is one,
# else by its header (Debian's libasio-dev).
find_package(asio CONFIG QUIET)
if(TARGET asio::asio)
    set(asio_FOUND TRUE)
    return()
endif()

find_path(asio_INCLUDE_DIR asio.hpp)
mark_as_advanced(asio_INCLUDE_DIR)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(asio REQUIRED_VARS asio_INCLUDE_DIR
    REASON_FAILURE_MESSAGE "install libasio-dev (Debian) or asio (vcpkg, Conan), or set asio_INCLUDE_DIR")
if(asio_FOUND)
    add_library(asio::asio INTERFACE IMPORTED)
    target_include_directories(asio::asio INTERFACE "${asio_INCLUDE_DIR}")
    target_compile_definitions(asio::asio INTERFACE ASIO_STANDALONE)
endif()
