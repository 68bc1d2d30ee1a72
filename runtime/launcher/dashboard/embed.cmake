# cmake -DFROM=FOLDER -DTO=FILE -P embed.cmake: page.html, page.css and page.js as C++ strings.
set(source "// Made by embed.cmake.\n#include <string_view>\n\nnamespace thinwire::launcher {\n")
foreach(kind IN ITEMS html css js)
    file(READ "${FROM}/page.${kind}" text)
    string(FIND "${text}" ")embedded\"" found)
    if(NOT found EQUAL -1)
        message(FATAL_ERROR "page.${kind} holds the end mark of a raw string")
    endif()
    string(APPEND source "extern const std::string_view page_${kind};\n"
                         "const std::string_view page_${kind} = R\"embedded(${text})embedded\";\n")
endforeach()
file(WRITE "${TO}" "${source}}  // namespace thinwire::launcher\n")
