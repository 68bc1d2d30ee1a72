# An overlay port: builds the working tree that it stands in (--overlay-ports=packaging/vcpkg/ports). For the registry,
# replace the next line by vcpkg_from_github() with the release's REF and SHA512.
get_filename_component(SOURCE_PATH "${CMAKE_CURRENT_LIST_DIR}/../../../.." ABSOLUTE)

vcpkg_check_features(OUT_FEATURE_OPTIONS FEATURE_OPTIONS
    FEATURES
        c THINWIRE_C
        hf THINWIRE_HF
        runtime THINWIRE_RUNTIME
)
if(NOT "runtime" IN_LIST FEATURES AND NOT "c" IN_LIST FEATURES)
    set(VCPKG_BUILD_TYPE release) # header-only
endif()

vcpkg_cmake_configure(
    SOURCE_PATH "${SOURCE_PATH}"
    OPTIONS
        ${FEATURE_OPTIONS}
        -DTHINWIRE_INSTALL=ON
        -DTHINWIRE_LAUNCHER=OFF
        -DTHINWIRE_TESTS=OFF
        -DTHINWIRE_EXAMPLES=OFF
        -DTHINWIRE_BENCHMARKS=OFF
)
vcpkg_cmake_install()
vcpkg_cmake_config_fixup(CONFIG_PATH lib/cmake/thinwire)

file(REMOVE_RECURSE "${CURRENT_PACKAGES_DIR}/debug/include" "${CURRENT_PACKAGES_DIR}/debug/share")
if(NOT "runtime" IN_LIST FEATURES AND NOT "c" IN_LIST FEATURES)
    file(REMOVE_RECURSE "${CURRENT_PACKAGES_DIR}/debug" "${CURRENT_PACKAGES_DIR}/lib")
endif()
file(REMOVE_RECURSE "${CURRENT_PACKAGES_DIR}/share/licenses")

file(INSTALL "${CMAKE_CURRENT_LIST_DIR}/usage" DESTINATION "${CURRENT_PACKAGES_DIR}/share/${PORT}")
vcpkg_install_copyright(FILE_LIST "${SOURCE_PATH}/LICENSE")
