# Whether a layer's own sources see HEADER of this tree.
#   cmake -DCXX=... -DINCLUDES=a|b -DHEADER=keel/alloc/pool.h -DLAYER=alloc -DTREE=...
#         -DEXPECT=hidden|visible -DWORK=... -P layering_test.cmake
cmake_minimum_required(VERSION 3.25)
string(REPLACE "|" ";" INCLUDES "${INCLUDES}")
list(REMOVE_DUPLICATES INCLUDES)
if(INCLUDES STREQUAL "")
  message(FATAL_ERROR "the layer has no include folders: nothing was tested")
endif()
list(TRANSFORM INCLUDES PREPEND -I)

file(WRITE ${WORK}.cc "#include \"${HEADER}\"\n")
# -H lists where each header was found: a keel installed on this machine may offer the header too,
# and says nothing about the tree.
execute_process(COMMAND ${CXX} -std=c++20 -fsyntax-only -H ${INCLUDES} ${WORK}.cc
  RESULT_VARIABLE result ERROR_VARIABLE messages)
string(FIND "${messages}" "${TREE}/${LAYER}/include/${HEADER}" at)
if(EXPECT STREQUAL visible AND (NOT result EQUAL 0 OR at EQUAL -1))
  message(FATAL_ERROR "does not see ${HEADER}, which it stands on:\n${messages}")
elseif(EXPECT STREQUAL hidden AND NOT at EQUAL -1)
  message(FATAL_ERROR "sees ${HEADER}, which lies above it")
elseif(EXPECT STREQUAL hidden AND result EQUAL 0 AND NOT messages MATCHES "/${HEADER}")
  message(FATAL_ERROR "compiled without the header: the test is broken\n${messages}")
endif()
