# Runs wrong_use under Valgrind: with right use it must say nothing, with wrong use where the buffer
# was misused, made and freed.
#
#   cmake -DPROGRAM=... -DWITH=TRUE|FALSE -P valgrind_test.cmake
find_program(VALGRIND valgrind)
if(NOT VALGRIND)
  message("SKIPPED: there is no valgrind here")
  return()
endif()
if(NOT WITH)
  message("SKIPPED: keel was built without valgrind/memcheck.h, or with a sanitizer")
  return()
endif()

# Runs the program, expects the exit code, and each text in the report.
function(expect code use)
  separate_arguments(arguments UNIX_COMMAND "${use}")
  execute_process(
    COMMAND ${VALGRIND} --tool=memcheck --error-exitcode=7 --quiet ${PROGRAM} ${arguments}
    RESULT_VARIABLE result ERROR_VARIABLE report OUTPUT_VARIABLE output)
  if(NOT result EQUAL code)
    message(FATAL_ERROR "wrong_use ${use}: exit code ${result}, not ${code}\n${output}${report}")
  endif()
  foreach(text IN LISTS ARGN)
    if(NOT report MATCHES "${text}")
      message(FATAL_ERROR "wrong_use ${use}: '${text}' is not in the report\n${report}")
    endif()
  endforeach()
  if(code EQUAL 0 AND NOT report STREQUAL "")
    message(FATAL_ERROR "wrong_use ${use}: a report of nothing\n${report}")
  endif()
endfunction()

foreach(tier "" " mapped")
  expect(0 "ok${tier}")
  expect(7 "after-free${tier}" "Invalid write of size 1.*: main " "free'd.*free_the_buffer"
    "alloc'd.*make_the_buffer")
  expect(7 "overrun${tier}" "Invalid write of size 1.*: main "
    "0 bytes after a block of size 5,000 alloc'd.*make_the_buffer")
endforeach()
message("reported as it should be")
