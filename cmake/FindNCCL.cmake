# Finds NCCL and defines NCCL::nccl: by nccl.h and libnccl, beside the CUDA toolkit or where the system has them (Debian's
# libnccl-dev of NVIDIA's repository). Installed with thinwire, as NCCL brings no package configuration of its own.
find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
find_library(NCCL_LIBRARY nccl HINTS ${CUDAToolkit_LIBRARY_DIR})
mark_as_advanced(NCCL_INCLUDE_DIR NCCL_LIBRARY)
set(NCCL_VERSION "")
if(NCCL_INCLUDE_DIR)
    file(STRINGS "${NCCL_INCLUDE_DIR}/nccl.h" nccl_numbers REGEX "^#define NCCL_(MAJOR|MINOR|PATCH) +[0-9]+$")
    foreach(part IN ITEMS MAJOR MINOR PATCH)
        if("${nccl_numbers}" MATCHES "NCCL_${part} +([0-9]+)")
            list(APPEND NCCL_VERSION "${CMAKE_MATCH_1}")
        endif()
    endforeach()
    list(JOIN NCCL_VERSION "." NCCL_VERSION)
endif()
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(NCCL REQUIRED_VARS NCCL_LIBRARY NCCL_INCLUDE_DIR VERSION_VAR NCCL_VERSION
    REASON_FAILURE_MESSAGE "install libnccl-dev of NVIDIA's repository, or set NCCL_INCLUDE_DIR and NCCL_LIBRARY")
if(NCCL_FOUND AND NOT TARGET NCCL::nccl)
    add_library(NCCL::nccl UNKNOWN IMPORTED)
    set_target_properties(NCCL::nccl PROPERTIES IMPORTED_LOCATION "${NCCL_LIBRARY}"
                          INTERFACE_INCLUDE_DIRECTORIES "${NCCL_INCLUDE_DIR}")
endif()
