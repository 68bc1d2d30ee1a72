# thinwire_developer: warnings and sanitizers of our own sources. Linked privately, never part of what a consumer gets.
add_library(thinwire_developer INTERFACE)
if(PROJECT_IS_TOP_LEVEL)
    target_compile_options(thinwire_developer INTERFACE -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror)
endif()

if(THINWIRE_SANITIZE)
    if(NOT THINWIRE_SANITIZE MATCHES "^(address|undefined|thread|address,undefined|thread,undefined)$")
        message(FATAL_ERROR "THINWIRE_SANITIZE is '${THINWIRE_SANITIZE}', expected 'address,undefined' or 'thread,undefined'")
    endif()
    set(sanitize -fsanitize=${THINWIRE_SANITIZE} -fno-omit-frame-pointer)
    if(THINWIRE_SANITIZE MATCHES "undefined")
        # Loops over vectors of registers take these four ten times as long to compile, with either compiler.
        # AddressSanitizer finds what null and object-size would; the fuzzers keep all four for the parsers.
        list(APPEND sanitize -fno-sanitize-recover=undefined -fno-sanitize=null,object-size,pointer-overflow,alignment)
        if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
            # clang's checks of calls through function pointers and of virtual ones need type information that C
            # callbacks and std::error_category do not have.
            list(APPEND sanitize -fno-sanitize=function,vptr)
        endif()
    endif()
    target_compile_options(thinwire_developer INTERFACE ${sanitize})
    target_link_options(thinwire_developer INTERFACE ${sanitize})
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
        # With instrumentation GCC 12 warns of uninitialised and out-of-bounds values in the standard library that are
        # not there; the plain builds keep these warnings.
        target_compile_options(thinwire_developer INTERFACE -Wno-maybe-uninitialized -Wno-array-bounds
                                                            -Wno-stringop-overflow -Wno-restrict)
        if(THINWIRE_SANITIZE MATCHES "thread")
            # asio has fences that this sanitizer does not follow; the locks beside them are what it checks.
            target_compile_options(thinwire_developer INTERFACE -Wno-tsan)
        endif()
    endif()
endif()
