# Each component has an export set of its own, so that finding the core needs nothing of the others.
include(CMakePackageConfigHelpers)
set(package_folder "${CMAKE_INSTALL_LIBDIR}/cmake/thinwire")

install(DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}/include/thinwire" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(FILES "${CMAKE_CURRENT_SOURCE_DIR}/LICENSE" DESTINATION "${CMAKE_INSTALL_DATADIR}/licenses/thinwire")

install(TARGETS thinwire EXPORT thinwire_core)
install(EXPORT thinwire_core NAMESPACE thinwire:: FILE thinwire_core.cmake DESTINATION "${package_folder}")
if(TARGET thinwire_hf)
    install(TARGETS thinwire_hf EXPORT thinwire_hf)
    install(EXPORT thinwire_hf NAMESPACE thinwire:: FILE thinwire_hf.cmake DESTINATION "${package_folder}")
endif()
if(TARGET thinwire_cuda)
    install(TARGETS thinwire_cuda EXPORT thinwire_cuda)
    install(EXPORT thinwire_cuda NAMESPACE thinwire:: FILE thinwire_cuda.cmake DESTINATION "${package_folder}")
endif()
if(TARGET thinwire_nccl)
    install(TARGETS thinwire_nccl EXPORT thinwire_nccl)
    install(EXPORT thinwire_nccl NAMESPACE thinwire:: FILE thinwire_nccl.cmake DESTINATION "${package_folder}")
    install(FILES "${CMAKE_CURRENT_SOURCE_DIR}/cmake/FindNCCL.cmake" DESTINATION "${package_folder}")
endif()
if(TARGET thinwire_c)
    install(TARGETS thinwire_c EXPORT thinwire_c ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}"
            LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}" RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
    install(EXPORT thinwire_c NAMESPACE thinwire:: FILE thinwire_c.cmake DESTINATION "${package_folder}")
endif()
if(TARGET thinwire_runtime)
    install(DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}/runtime/include/thinwire"
            DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
    install(TARGETS thinwire_runtime EXPORT thinwire_runtime ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}")
    install(EXPORT thinwire_runtime NAMESPACE thinwire:: FILE thinwire_runtime.cmake DESTINATION "${package_folder}")
endif()
if(TARGET thinwire_launcher)
    install(TARGETS thinwire_launcher RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
endif()

configure_package_config_file("${CMAKE_CURRENT_SOURCE_DIR}/cmake/thinwire-config.cmake.in"
    "${CMAKE_CURRENT_BINARY_DIR}/thinwire-config.cmake" INSTALL_DESTINATION "${package_folder}")
if(TARGET thinwire_runtime OR TARGET thinwire_c)
    set(independence "")
else()
    set(independence ARCH_INDEPENDENT)  # headers only
endif()
write_basic_package_version_file("${CMAKE_CURRENT_BINARY_DIR}/thinwire-config-version.cmake"
    VERSION "${PROJECT_VERSION}" COMPATIBILITY SameMinorVersion ${independence})
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/thinwire-config.cmake"
              "${CMAKE_CURRENT_BINARY_DIR}/thinwire-config-version.cmake" DESTINATION "${package_folder}")
