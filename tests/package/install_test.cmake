# Installs a build tree into a temporary prefix and builds separate programs against it.
#   cmake -DBUILD=... -DSOURCE=... -DWORK=... -DVERSION=... -DLAYERS=a|b -DCXX=...
#         -P install_test.cmake
cmake_minimum_required(VERSION 3.25)
string(REPLACE "|" ";" LAYERS "${LAYERS}")
set(consumer ${CMAKE_CURRENT_LIST_DIR}/consumer)
set(prefix ${WORK}/prefix)

function(run)
  execute_process(COMMAND ${ARGV} COMMAND_ECHO STDOUT COMMAND_ERROR_IS_FATAL ANY)
endfunction()

# Nothing that keel compiles itself with may reach who uses it.
function(check_clean what text)
  string(REGEX MATCH "-fsanitize[^ \"]*|-W[a-z][^ \"]*|-fno-omit[^ \"]*|keel_internal" leak
    "${text}")
  if(leak)
    message(FATAL_ERROR "${what} carries keel's own option ${leak}")
  endif()
endfunction()

file(REMOVE_RECURSE ${WORK})
file(MAKE_DIRECTORY ${WORK})
set(ENV{DESTDIR} "")
run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${prefix})
# Moved, to show that no file holds the place it was installed to.
file(RENAME ${prefix} ${WORK}/moved)
set(prefix ${WORK}/moved)

file(GLOB_RECURSE package_files ${prefix}/*.cmake ${prefix}/*.pc)
foreach(file IN LISTS package_files)
  file(READ ${file} text)
  check_clean(${file} "${text}")
  string(FIND "${text}" "${SOURCE}" at)
  if(NOT at EQUAL -1)
    message(FATAL_ERROR "${file} names the source tree")
  endif()
endforeach()

message(STATUS "find_package")
run(${CMAKE_COMMAND} -S ${consumer} -B ${WORK}/cmake -G Ninja -DCMAKE_CXX_COMPILER=${CXX}
  -DCMAKE_PREFIX_PATH=${prefix} -DKEEL_VERSION=${VERSION} "-DKEEL_COMPONENTS=${LAYERS}"
  -DCMAKE_EXPORT_COMPILE_COMMANDS=ON -DCMAKE_FIND_USE_PACKAGE_REGISTRY=OFF)
run(${CMAKE_COMMAND} --build ${WORK}/cmake)
run(${WORK}/cmake/program)
run(${WORK}/cmake/in_c)
run(${WORK}/cmake/beside_jemalloc)
# The README's program: the second run finds what the first one journalled.
set(two_objects ${WORK}/cmake/two_objects)
execute_process(COMMAND ${two_objects} WORKING_DIRECTORY ${WORK} OUTPUT_VARIABLE first
  COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${two_objects} WORKING_DIRECTORY ${WORK} OUTPUT_VARIABLE second
  COMMAND_ERROR_IS_FATAL ANY)
if(NOT first STREQUAL "" OR
   NOT second STREQUAL "recovered object 1: 60\nrecovered object 2: 40\n")
  message(FATAL_ERROR "two_objects printed '${first}', then '${second}'")
endif()
file(READ ${consumer}/two_objects.cc code)
file(READ ${SOURCE}/README.md readme)
string(FIND "${readme}" "${code}" at)
if(at EQUAL -1)
  message(FATAL_ERROR "README.md does not show two_objects.cc as it is")
endif()
file(READ ${WORK}/cmake/compile_commands.json text)
check_clean("the program's compile command" "${text}")

message(STATUS "pkg-config")
file(GLOB_RECURSE pc ${prefix}/keel.pc)
cmake_path(GET pc PARENT_PATH pc_dir)
set(ENV{PKG_CONFIG_PATH} ${pc_dir})
run(pkg-config --exact-version=${VERSION} keel)
execute_process(COMMAND pkg-config --cflags --libs keel OUTPUT_VARIABLE flags
  COMMAND_ERROR_IS_FATAL ANY OUTPUT_STRIP_TRAILING_WHITESPACE)
check_clean("pkg-config" "${flags}")
separate_arguments(flags UNIX_COMMAND "${flags}")
run(${CXX} -std=c++20 ${consumer}/program.cc -o ${WORK}/pc_program ${flags})
run(${WORK}/pc_program)
run(${CXX} -std=c++20 ${consumer}/two_objects.cc -o ${WORK}/pc_two_objects ${flags})
# A jemalloc in the program itself, where each symbol must be the one or the other's.
run(${CXX} -std=c++20 ${consumer}/beside_jemalloc.cc -o ${WORK}/pc_beside_jemalloc ${flags}
  -l:libjemalloc_pic.a)
run(${WORK}/pc_beside_jemalloc)
# A C compiler's driver does not know what C++ needs; --static says it.
execute_process(COMMAND pkg-config --static --cflags --libs keel OUTPUT_VARIABLE flags
  COMMAND_ERROR_IS_FATAL ANY OUTPUT_STRIP_TRAILING_WHITESPACE)
separate_arguments(flags UNIX_COMMAND "${flags}")
run(cc -std=c11 -Wall -Wextra -Wpedantic -Werror ${consumer}/in_c.c -o ${WORK}/pc_in_c ${flags})
run(${WORK}/pc_in_c)

message(STATUS "add_subdirectory")
# Only configured: neither doctest nor benchmark may be looked for, and no option may leak.
file(WRITE ${WORK}/parent/CMakeLists.txt
  "cmake_minimum_required(VERSION 3.25)\nproject(parent LANGUAGES CXX)\n"
  "add_subdirectory(\"${SOURCE}\" keel)\nadd_executable(program \"${consumer}/program.cc\")\n"
  "target_link_libraries(program PRIVATE keel::base)\n")
run(${CMAKE_COMMAND} -S ${WORK}/parent -B ${WORK}/parent/build -G Ninja
  -DCMAKE_CXX_COMPILER=${CXX} -DCMAKE_EXPORT_COMPILE_COMMANDS=ON
  -DCMAKE_DISABLE_FIND_PACKAGE_doctest=ON -DCMAKE_DISABLE_FIND_PACKAGE_benchmark=ON)
file(READ ${WORK}/parent/build/compile_commands.json commands)
string(JSON count LENGTH "${commands}")
math(EXPR last "${count} - 1")
foreach(i RANGE ${last})
  string(JSON entry GET "${commands}" ${i})
  string(JSON file GET "${entry}" file)
  if(file MATCHES "consumer/program.cc$")
    check_clean("a parent project's program" "${entry}")
  endif()
endforeach()
