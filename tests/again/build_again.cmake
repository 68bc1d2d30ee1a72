# cmake -D source= -D preset= -D targets=a,b -D tests=REGEX [-D launcher=] -P build_again.cmake
cmake_minimum_required(VERSION 3.24)
string(REPLACE "," ";" targets "${targets}")
include(ProcessorCount)
ProcessorCount(cores)
execute_process(COMMAND ${CMAKE_COMMAND} --preset "${preset}" "-DCMAKE_CXX_COMPILER_LAUNCHER=${launcher}"
                WORKING_DIRECTORY "${source}" COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${CMAKE_COMMAND} --build "${source}/build/${preset}" --parallel ${cores} --target ${targets}
                COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${CMAKE_CTEST_COMMAND} --test-dir "${source}/build/${preset}" --output-on-failure --no-tests=error
                        --parallel ${cores} -R "${tests}"
                COMMAND_ERROR_IS_FATAL ANY)
