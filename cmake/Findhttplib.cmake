# Finds cpp-httplib and defines httplib::httplib: from its own package configuration (vcpkg, Conan, upstream) where there
# is one, else by pkg-config (Debian's libcpp-httplib-dev, which also says how its library was compiled).
find_package(httplib CONFIG QUIET)
if(TARGET httplib::httplib)
    set(httplib_FOUND TRUE)
    return()
endif()

find_package(PkgConfig QUIET)
if(PKG_CONFIG_FOUND)
    pkg_check_modules(httplib_pc QUIET IMPORTED_TARGET cpp-httplib>=0.11)
endif()
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(httplib REQUIRED_VARS httplib_pc_FOUND VERSION_VAR httplib_pc_VERSION
    REASON_FAILURE_MESSAGE "install libcpp-httplib-dev and pkg-config (Debian) or cpp-httplib (vcpkg, Conan)")
if(httplib_FOUND)
    add_library(httplib::httplib INTERFACE IMPORTED)
    target_link_libraries(httplib::httplib INTERFACE PkgConfig::httplib_pc)
endif()
