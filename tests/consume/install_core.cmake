# Configures and installs thinwire without any component, as a package of headers; then asks for the package as another machine would.
cmake_minimum_required(VERSION 3.24)
file(REMOVE_RECURSE "${prefix}")
execute_process(COMMAND ${CMAKE_COMMAND} -S "${source}" -B "${build}" -G "${generator}"
    "-DCMAKE_CXX_COMPILER=${compiler}" "-DCMAKE_INSTALL_PREFIX=${prefix}" -DCMAKE_INSTALL_LIBDIR=lib -DTHINWIRE_HF=OFF -DTHINWIRE_C=OFF
    -DTHINWIRE_RUNTIME=OFF -DTHINWIRE_LAUNCHER=OFF -DTHINWIRE_TESTS=OFF -DTHINWIRE_EXAMPLES=OFF
    -DTHINWIRE_BENCHMARKS=OFF COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${CMAKE_COMMAND} --install "${build}" COMMAND_ERROR_IS_FATAL ANY)

# A consumer with other pointers than ours, asking for our version.
set(CMAKE_SIZEOF_VOID_P 1)
set(PACKAGE_FIND_VERSION 0.1)
set(PACKAGE_FIND_VERSION_MAJOR 0)
set(PACKAGE_FIND_VERSION_MINOR 1)
include("${prefix}/lib/cmake/thinwire/thinwire-config-version.cmake")
if(NOT PACKAGE_VERSION_COMPATIBLE OR PACKAGE_VERSION_UNSUITABLE)
    message(FATAL_ERROR "a package of headers refuses another architecture")
endif()
