########### AGGREGATED COMPONENTS AND DEPENDENCIES FOR THE MULTI CONFIG #####################
#############################################################################################

list(APPEND thinwire_COMPONENT_NAMES thinwire::thinwire)
list(REMOVE_DUPLICATES thinwire_COMPONENT_NAMES)
if(DEFINED thinwire_FIND_DEPENDENCY_NAMES)
  list(APPEND thinwire_FIND_DEPENDENCY_NAMES )
  list(REMOVE_DUPLICATES thinwire_FIND_DEPENDENCY_NAMES)
else()
  set(thinwire_FIND_DEPENDENCY_NAMES )
endif()

########### VARIABLES #######################################################################
#############################################################################################
set(thinwire_PACKAGE_FOLDER_RELEASE "/work/wt/build/build/tests/again/conan/home/p/b/thinwf3057dca70ea3/p")
set(thinwire_BUILD_MODULES_PATHS_RELEASE )


set(thinwire_INCLUDE_DIRS_RELEASE "${thinwire_PACKAGE_FOLDER_RELEASE}/include")
set(thinwire_RES_DIRS_RELEASE )
set(thinwire_DEFINITIONS_RELEASE )
set(thinwire_SHARED_LINK_FLAGS_RELEASE )
set(thinwire_EXE_LINK_FLAGS_RELEASE )
set(thinwire_OBJECTS_RELEASE )
set(thinwire_COMPILE_DEFINITIONS_RELEASE )
set(thinwire_COMPILE_OPTIONS_C_RELEASE )
set(thinwire_COMPILE_OPTIONS_CXX_RELEASE )
set(thinwire_LIB_DIRS_RELEASE )
set(thinwire_BIN_DIRS_RELEASE )
set(thinwire_LIBRARY_TYPE_RELEASE UNKNOWN)
set(thinwire_IS_HOST_WINDOWS_RELEASE 0)
set(thinwire_LIBS_RELEASE )
set(thinwire_SYSTEM_LIBS_RELEASE pthread)
set(thinwire_FRAMEWORK_DIRS_RELEASE )
set(thinwire_FRAMEWORKS_RELEASE )
set(thinwire_BUILD_DIRS_RELEASE )
set(thinwire_NO_SONAME_MODE_RELEASE FALSE)


# COMPOUND VARIABLES
set(thinwire_COMPILE_OPTIONS_RELEASE)
if (NOT "${thinwire_COMPILE_OPTIONS_CXX_RELEASE}" STREQUAL "")
    list(APPEND thinwire_COMPILE_OPTIONS_RELEASE
        "$<$<COMPILE_LANGUAGE:CXX>:${thinwire_COMPILE_OPTIONS_CXX_RELEASE}>")
endif ()
if (NOT "${thinwire_COMPILE_OPTIONS_C_RELEASE}" STREQUAL "")
    list(APPEND thinwire_COMPILE_OPTIONS_RELEASE
        "$<$<COMPILE_LANGUAGE:C>:${thinwire_COMPILE_OPTIONS_C_RELEASE}>")
endif ()
set(thinwire_LINKER_FLAGS_RELEASE)
if (NOT "${thinwire_SHARED_LINK_FLAGS_RELEASE}" STREQUAL "")
    list(APPEND thinwire_LINKER_FLAGS_RELEASE
        "$<$<OR:$<STREQUAL:$<TARGET_PROPERTY:TYPE>,SHARED_LIBRARY>,$<STREQUAL:$<TARGET_PROPERTY:TYPE>,MODULE_LIBRARY>>:${thinwire_SHARED_LINK_FLAGS_RELEASE}>")
endif ()
if (NOT "${thinwire_EXE_LINK_FLAGS_RELEASE}" STREQUAL "")
    list(APPEND thinwire_LINKER_FLAGS_RELEASE
        "$<$<STREQUAL:$<TARGET_PROPERTY:TYPE>,EXECUTABLE>:${thinwire_EXE_LINK_FLAGS_RELEASE}>")
endif ()


set(thinwire_COMPONENTS_RELEASE thinwire::thinwire)
########### COMPONENT thinwire::thinwire VARIABLES ############################################

set(thinwire_thinwire_thinwire_INCLUDE_DIRS_RELEASE "${thinwire_PACKAGE_FOLDER_RELEASE}/include")
set(thinwire_thinwire_thinwire_LIB_DIRS_RELEASE )
set(thinwire_thinwire_thinwire_BIN_DIRS_RELEASE )
set(thinwire_thinwire_thinwire_LIBRARY_TYPE_RELEASE UNKNOWN)
set(thinwire_thinwire_thinwire_IS_HOST_WINDOWS_RELEASE 0)
set(thinwire_thinwire_thinwire_RES_DIRS_RELEASE )
set(thinwire_thinwire_thinwire_DEFINITIONS_RELEASE )
set(thinwire_thinwire_thinwire_OBJECTS_RELEASE )
set(thinwire_thinwire_thinwire_COMPILE_DEFINITIONS_RELEASE )
set(thinwire_thinwire_thinwire_COMPILE_OPTIONS_C_RELEASE "")
set(thinwire_thinwire_thinwire_COMPILE_OPTIONS_CXX_RELEASE "")
set(thinwire_thinwire_thinwire_LIBS_RELEASE )
set(thinwire_thinwire_thinwire_SYSTEM_LIBS_RELEASE pthread)
set(thinwire_thinwire_thinwire_FRAMEWORK_DIRS_RELEASE )
set(thinwire_thinwire_thinwire_FRAMEWORKS_RELEASE )
set(thinwire_thinwire_thinwire_DEPENDENCIES_RELEASE )
set(thinwire_thinwire_thinwire_SHARED_LINK_FLAGS_RELEASE )
set(thinwire_thinwire_thinwire_EXE_LINK_FLAGS_RELEASE )
set(thinwire_thinwire_thinwire_NO_SONAME_MODE_RELEASE FALSE)

# COMPOUND VARIABLES
set(thinwire_thinwire_thinwire_LINKER_FLAGS_RELEASE)
if (NOT "${thinwire_thinwire_thinwire_SHARED_LINK_FLAGS_RELEASE}" STREQUAL "")
    list(APPEND thinwire_thinwire_thinwire_LINKER_FLAGS_RELEASE
        $<$<OR:$<STREQUAL:$<TARGET_PROPERTY:TYPE>,SHARED_LIBRARY>,$<STREQUAL:$<TARGET_PROPERTY:TYPE>,MODULE_LIBRARY>>:${thinwire_thinwire_thinwire_SHARED_LINK_FLAGS_RELEASE}>)
endif ()
if (NOT "${thinwire_thinwire_thinwire_EXE_LINK_FLAGS_RELEASE}" STREQUAL "")
    list(APPEND thinwire_thinwire_thinwire_LINKER_FLAGS_RELEASE
        $<$<STREQUAL:$<TARGET_PROPERTY:TYPE>,EXECUTABLE>:${thinwire_thinwire_thinwire_EXE_LINK_FLAGS_RELEASE}>)
endif ()
set(thinwire_thinwire_thinwire_COMPILE_OPTIONS_RELEASE)
if (NOT "${thinwire_thinwire_thinwire_COMPILE_OPTIONS_CXX_RELEASE}" STREQUAL "")
    list(APPEND thinwire_thinwire_thinwire_COMPILE_OPTIONS_RELEASE
        "$<$<COMPILE_LANGUAGE:CXX>:${thinwire_thinwire_thinwire_COMPILE_OPTIONS_CXX_RELEASE}>")
endif ()
if (NOT "${thinwire_thinwire_thinwire_COMPILE_OPTIONS_C_RELEASE}" STREQUAL "")
    list(APPEND thinwire_thinwire_thinwire_COMPILE_OPTIONS_RELEASE
        "$<$<COMPILE_LANGUAGE:C>:${thinwire_thinwire_thinwire_COMPILE_OPTIONS_C_RELEASE}>")
endif ()