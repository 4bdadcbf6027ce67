# Package files: find_package(keel COMPONENTS ...) and pkg-config, for the layers that were built.
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/keel)
install(EXPORT keelTargets NAMESPACE keel:: DESTINATION ${package_dir})
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/keelConfig.cmake.in
  ${PROJECT_BINARY_DIR}/keelConfig.cmake INSTALL_DESTINATION ${package_dir}
  NO_SET_AND_CHECK_MACRO)
# Before 1.0 a minor version may change the interface.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/keelConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/keelConfig.cmake ${PROJECT_BINARY_DIR}/keelConfigVersion.cmake
  DESTINATION ${package_dir})

# A static linker reads libraries from left to right: users first, what they use after them.
get_property(layers GLOBAL PROPERTY KEEL_LAYERS)
list(REVERSE layers)
list(TRANSFORM layers PREPEND -lkeel_)
list(JOIN layers " " KEEL_PC_LIBS)
set(KEEL_PC_CFLAGS "")
if(KEEL_DEBUG_CHECKS)
  string(APPEND KEEL_PC_CFLAGS " -DKEEL_DEBUG")
endif()
if(KEEL_AUDITS)
  string(APPEND KEEL_PC_CFLAGS " -DKEEL_AUDITS")
endif()
# The prefix follows from where the file lies, so that an installed tree can be moved.
set(pc_dir ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
file(RELATIVE_PATH KEEL_PC_TO_PREFIX /${pc_dir} /)
string(REGEX REPLACE "/$" "" KEEL_PC_TO_PREFIX "${KEEL_PC_TO_PREFIX}")
configure_file(${CMAKE_CURRENT_LIST_DIR}/keel.pc.in ${PROJECT_BINARY_DIR}/keel.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/keel.pc DESTINATION ${pc_dir})
