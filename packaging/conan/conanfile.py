"""thinwire for Conan 2, built from the working tree that this recipe stands in: conan create packaging/conan"""

import os
import re

from conan import ConanFile
from conan.tools.build import check_min_cppstd
from conan.tools.cmake import CMake, CMakeDeps, CMakeToolchain, cmake_layout
from conan.tools.files import copy, load, rmdir

required_conan_version = ">=2.0"


class ThinwireConan(ConanFile):
    name = "thinwire"
    description = "Train one transformer from many places over ordinary links"
    license = "MIT"
    topics = ("machine-learning", "distributed-training", "optimizer", "header-only")
    package_type = "header-library"
    settings = "os", "arch", "compiler", "build_type"
    options = {"with_c": [True, False], "with_hf": [True, False], "with_runtime": [True, False], "shared": [True, False],
               "fPIC": [True, False]}
    default_options = {"with_c": False, "with_hf": False, "with_runtime": False, "shared": False, "fPIC": True}
    no_copy_source = True

    @property
    def _root(self):
        return os.path.normpath(os.path.join(self.recipe_folder, "..", ".."))

    def set_version(self):
        header = load(self, os.path.join(self._root, "include", "thinwire", "version.hpp"))
        self.version = re.search(r'THINWIRE_VERSION_STRING "([^"]+)"', header)[1]

    def export_sources(self):
        for pattern in ["CMakeLists.txt", "LICENSE", "c/*", "cmake/*", "include/*", "runtime/CMakeLists.txt",
                        "runtime/include/*", "runtime/src/*"]:
            copy(self, pattern, self._root, self.export_sources_folder)

    def configure(self):
        if not self.options.with_c:
            self.options.rm_safe("shared")  # of thinwire::c; thinwire::runtime is always static
        if self.options.get_safe("shared"):
            self.options.rm_safe("fPIC")
            self.package_type = "shared-library"
        elif self.options.with_runtime or self.options.with_c:
            self.package_type = "static-library"

    def layout(self):
        cmake_layout(self)

    def requirements(self):
        if self.options.with_hf:
            self.requires("nlohmann_json/[>=3.11 <4]", transitive_headers=True)
        if self.options.with_runtime:
            self.requires("asio/[>=1.22 <2]", headers=True, libs=False, visible=False)
            self.requires("openssl/[>=3.0 <4]")

    def package_id(self):
        if not self.info.options.with_runtime and not self.info.options.with_c:
            self.info.clear()

    def validate(self):
        check_min_cppstd(self, 20)

    def generate(self):
        toolchain = CMakeToolchain(self)
        for option, on in {"C": bool(self.options.with_c), "HF": bool(self.options.with_hf), "RUNTIME": bool(self.options.with_runtime),
                           "INSTALL": True, "LAUNCHER": False, "TESTS": False, "EXAMPLES": False,
                           "BENCHMARKS": False}.items():
            toolchain.cache_variables[f"THINWIRE_{option}"] = on
        toolchain.generate()
        CMakeDeps(self).generate()

    def build(self):
        cmake = CMake(self)
        cmake.configure()
        cmake.build()

    def package(self):
        CMake(self).install()
        copy(self, "LICENSE", self.source_folder, os.path.join(self.package_folder, "licenses"))
        rmdir(self, os.path.join(self.package_folder, "lib", "cmake"))  # CMakeDeps writes the consumer's
        rmdir(self, os.path.join(self.package_folder, "share"))

    def package_info(self):
        self.cpp_info.set_property("cmake_file_name", "thinwire")
        core = self.cpp_info.components["thinwire"]
        core.set_property("cmake_target_name", "thinwire::thinwire")
        core.bindirs = core.libdirs = []
        if self.settings.os in ["Linux", "FreeBSD"]:
            core.system_libs = ["pthread"]
        if self.options.with_c:
            c = self.cpp_info.components["c"]
            c.set_property("cmake_target_name", "thinwire::c")
            c.libs = ["thinwire_c"]
            if self.options.get_safe("shared"):
                c.defines = ["THINWIRE_C_SHARED"]
            elif self.settings.os in ["Linux", "FreeBSD"]:
                c.system_libs = ["stdc++", "m", "pthread"]  # a program in C is not linked with them by itself
        if self.options.with_hf:
            hf = self.cpp_info.components["hf"]
            hf.set_property("cmake_target_name", "thinwire::hf")
            hf.bindirs = hf.libdirs = []
            hf.requires = ["thinwire", "nlohmann_json::nlohmann_json"]
        if self.options.with_runtime:
            runtime = self.cpp_info.components["runtime"]
            runtime.set_property("cmake_target_name", "thinwire::runtime")
            runtime.libs = ["thinwire_runtime"]
            runtime.requires = ["thinwire", "asio::asio", "openssl::ssl", "openssl::crypto"]
