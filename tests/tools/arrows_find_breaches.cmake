# Runs check_arrows.py on a copy of tests/arrows/breaches, with a mark of unfinished work added (which must not stand in
# this tree), and compares what it says with expected.txt.
cmake_minimum_required(VERSION 3.24)
string(CONCAT mark "TO" "DO")
file(REMOVE_RECURSE breaches)
file(COPY "${root}/tests/arrows/breaches" DESTINATION .)
file(WRITE breaches/runtime/launcher/main.cpp "// ${mark}: later\nint main() {}\n")
execute_process(COMMAND "${python}" "${root}/tools/check_arrows.py" breaches RESULT_VARIABLE code OUTPUT_VARIABLE found)
file(READ "${root}/tests/arrows/expected.txt" expected)
string(REPLACE "@mark@" "${mark}" expected "${expected}")
if(NOT code EQUAL 1 OR NOT found STREQUAL expected)
    message(FATAL_ERROR "check_arrows.py ended with ${code} and said\n${found}\nexpected 1 and\n${expected}")
endif()
