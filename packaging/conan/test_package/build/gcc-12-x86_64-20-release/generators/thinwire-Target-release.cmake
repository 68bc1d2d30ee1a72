# Avoid multiple calls to find_package to append duplicated properties to the targets
include_guard()########### VARIABLES #######################################################################
#############################################################################################
set(thinwire_FRAMEWORKS_FOUND_RELEASE "") # Will be filled later
conan_find_apple_frameworks(thinwire_FRAMEWORKS_FOUND_RELEASE "${thinwire_FRAMEWORKS_RELEASE}" "${thinwire_FRAMEWORK_DIRS_RELEASE}")

set(thinwire_LIBRARIES_TARGETS "") # Will be filled later


######## Create an interface target to contain all the dependencies (frameworks, system and conan deps)
if(NOT TARGET thinwire_DEPS_TARGET)
    add_library(thinwire_DEPS_TARGET INTERFACE IMPORTED)
endif()

set_property(TARGET thinwire_DEPS_TARGET
             APPEND PROPERTY INTERFACE_LINK_LIBRARIES
             $<$<CONFIG:Release>:${thinwire_FRAMEWORKS_FOUND_RELEASE}>
             $<$<CONFIG:Release>:${thinwire_SYSTEM_LIBS_RELEASE}>
             $<$<CONFIG:Release>:>)

####### Find the libraries declared in cpp_info.libs, create an IMPORTED target for each one and link the
####### thinwire_DEPS_TARGET to all of them
conan_package_library_targets("${thinwire_LIBS_RELEASE}"    # libraries
                              "${thinwire_LIB_DIRS_RELEASE}" # package_libdir
                              "${thinwire_BIN_DIRS_RELEASE}" # package_bindir
                              "${thinwire_LIBRARY_TYPE_RELEASE}"
                              "${thinwire_IS_HOST_WINDOWS_RELEASE}"
                              thinwire_DEPS_TARGET
                              thinwire_LIBRARIES_TARGETS  # out_libraries_targets
                              "_RELEASE"
                              "thinwire"    # package_name
                              "${thinwire_NO_SONAME_MODE_RELEASE}")  # soname

# FIXME: What is the result of this for multi-config? All configs adding themselves to path?
set(CMAKE_MODULE_PATH ${thinwire_BUILD_DIRS_RELEASE} ${CMAKE_MODULE_PATH})

########## COMPONENTS TARGET PROPERTIES Release ########################################

    ########## COMPONENT thinwire::thinwire #############

        set(thinwire_thinwire_thinwire_FRAMEWORKS_FOUND_RELEASE "")
        conan_find_apple_frameworks(thinwire_thinwire_thinwire_FRAMEWORKS_FOUND_RELEASE "${thinwire_thinwire_thinwire_FRAMEWORKS_RELEASE}" "${thinwire_thinwire_thinwire_FRAMEWORK_DIRS_RELEASE}")

        set(thinwire_thinwire_thinwire_LIBRARIES_TARGETS "")

        ######## Create an interface target to contain all the dependencies (frameworks, system and conan deps)
        if(NOT TARGET thinwire_thinwire_thinwire_DEPS_TARGET)
            add_library(thinwire_thinwire_thinwire_DEPS_TARGET INTERFACE IMPORTED)
        endif()

        set_property(TARGET thinwire_thinwire_thinwire_DEPS_TARGET
                     APPEND PROPERTY INTERFACE_LINK_LIBRARIES
                     $<$<CONFIG:Release>:${thinwire_thinwire_thinwire_FRAMEWORKS_FOUND_RELEASE}>
                     $<$<CONFIG:Release>:${thinwire_thinwire_thinwire_SYSTEM_LIBS_RELEASE}>
                     $<$<CONFIG:Release>:${thinwire_thinwire_thinwire_DEPENDENCIES_RELEASE}>
                     )

        ####### Find the libraries declared in cpp_info.component["xxx"].libs,
        ####### create an IMPORTED target for each one and link the 'thinwire_thinwire_thinwire_DEPS_TARGET' to all of them
        conan_package_library_targets("${thinwire_thinwire_thinwire_LIBS_RELEASE}"
                              "${thinwire_thinwire_thinwire_LIB_DIRS_RELEASE}"
                              "${thinwire_thinwire_thinwire_BIN_DIRS_RELEASE}" # package_bindir
                              "${thinwire_thinwire_thinwire_LIBRARY_TYPE_RELEASE}"
                              "${thinwire_thinwire_thinwire_IS_HOST_WINDOWS_RELEASE}"
                              thinwire_thinwire_thinwire_DEPS_TARGET
                              thinwire_thinwire_thinwire_LIBRARIES_TARGETS
                              "_RELEASE"
                              "thinwire_thinwire_thinwire"
                              "${thinwire_thinwire_thinwire_NO_SONAME_MODE_RELEASE}")


        ########## TARGET PROPERTIES #####################################
        set_property(TARGET thinwire::thinwire
                     APPEND PROPERTY INTERFACE_LINK_LIBRARIES
                     $<$<CONFIG:Release>:${thinwire_thinwire_thinwire_OBJECTS_RELEASE}>
                     $<$<CONFIG:Release>:${thinwire_thinwire_thinwire_LIBRARIES_TARGETS}>
                     )

        if("${thinwire_thinwire_thinwire_LIBS_RELEASE}" STREQUAL "")
            # If the component is not declaring any "cpp_info.components['foo'].libs" the system, frameworks etc are not
            # linked to the imported targets and we need to do it to the global target
            set_property(TARGET thinwire::thinwire
                         APPEND PROPERTY INTERFACE_LINK_LIBRARIES
                         thinwire_thinwire_thinwire_DEPS_TARGET)
        endif()

        set_property(TARGET thinwire::thinwire APPEND PROPERTY INTERFACE_LINK_OPTIONS
                     $<$<CONFIG:Release>:${thinwire_thinwire_thinwire_LINKER_FLAGS_RELEASE}>)
        set_property(TARGET thinwire::thinwire APPEND PROPERTY INTERFACE_INCLUDE_DIRECTORIES
                     $<$<CONFIG:Release>:${thinwire_thinwire_thinwire_INCLUDE_DIRS_RELEASE}>)
        set_property(TARGET thinwire::thinwire APPEND PROPERTY INTERFACE_LINK_DIRECTORIES
                     $<$<CONFIG:Release>:${thinwire_thinwire_thinwire_LIB_DIRS_RELEASE}>)
        set_property(TARGET thinwire::thinwire APPEND PROPERTY INTERFACE_COMPILE_DEFINITIONS
                     $<$<CONFIG:Release>:${thinwire_thinwire_thinwire_COMPILE_DEFINITIONS_RELEASE}>)
        set_property(TARGET thinwire::thinwire APPEND PROPERTY INTERFACE_COMPILE_OPTIONS
                     $<$<CONFIG:Release>:${thinwire_thinwire_thinwire_COMPILE_OPTIONS_RELEASE}>)


    ########## AGGREGATED GLOBAL TARGET WITH THE COMPONENTS #####################
    set_property(TARGET thinwire::thinwire APPEND PROPERTY INTERFACE_LINK_LIBRARIES thinwire::thinwire)

########## For the modules (FindXXX)
set(thinwire_LIBRARIES_RELEASE thinwire::thinwire)
