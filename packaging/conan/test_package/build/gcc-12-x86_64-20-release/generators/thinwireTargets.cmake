# Load the debug and release variables
file(GLOB DATA_FILES "${CMAKE_CURRENT_LIST_DIR}/thinwire-*-data.cmake")

foreach(f ${DATA_FILES})
    include(${f})
endforeach()

# Create the targets for all the components
foreach(_COMPONENT ${thinwire_COMPONENT_NAMES} )
    if(NOT TARGET ${_COMPONENT})
        add_library(${_COMPONENT} INTERFACE IMPORTED)
        message(${thinwire_MESSAGE_MODE} "Conan: Component target declared '${_COMPONENT}'")
    endif()
endforeach()

if(NOT TARGET thinwire::thinwire)
    add_library(thinwire::thinwire INTERFACE IMPORTED)
    message(${thinwire_MESSAGE_MODE} "Conan: Target declared 'thinwire::thinwire'")
endif()
# Load the debug and release library finders
file(GLOB CONFIG_FILES "${CMAKE_CURRENT_LIST_DIR}/thinwire-Target-*.cmake")

foreach(f ${CONFIG_FILES})
    include(${f})
endforeach()