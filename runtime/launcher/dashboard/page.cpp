#include <thinwire/core/digest.hpp>
#include <thinwire/runtime/detail/base64.hpp>

#include "dashboard/board.hpp"

#include <algorithm>
#include <span>
#include <string_view>

namespace thinwire::launcher {

// Of page.html, page.css and page.js, made into a source by embed.cmake.
extern const std::string_view page_html, page_css, page_js;

namespace {

std::string hash_of(std::string_view text) {
    const digest sum = sha256{}.update(text).finish();
    std::string base64 = thinwire::detail::to_base64(std::span<const std::byte>(sum.bytes));
    std::replace(base64.begin(), base64.end(), '-', '+');
    std::replace(base64.begin(), base64.end(), '_', '/');
    return "'sha256-" + base64 + "='";
}

embedded_page assemble() {
    embedded_page page{.html = std::string(page_html), .policy = {}};
    const auto put = [&](std::string_view mark, std::string_view text) {
        page.html.replace(page.html.find(mark), mark.size(), text);
    };
    put("/*page.css*/", page_css);
    put("/*page.js*/", page_js);
    page.policy = "default-src 'none'; script-src " + hash_of(page_js) + "; style-src " + hash_of(page_css) +
                  "; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    return page;
}

}  // namespace

const embedded_page& dashboard_page() {
    static const embedded_page page = assemble();
    return page;
}

}  // namespace thinwire::launcher
