# protoc-c turns TensorBoard's event format into C in the build folder -> NITI_PROTO_SOURCES, NITI_PROTO_INCLUDE
set(NITI_PROTO_INCLUDE ${CMAKE_BINARY_DIR}/proto)
set(NITI_PROTO_SOURCES ${NITI_PROTO_INCLUDE}/tensorboard.pb-c.c)
file(MAKE_DIRECTORY ${NITI_PROTO_INCLUDE})
add_custom_command(
  OUTPUT ${NITI_PROTO_SOURCES} ${NITI_PROTO_INCLUDE}/tensorboard.pb-c.h
  COMMAND ${PROTOC_C} --c_out=${NITI_PROTO_INCLUDE} --proto_path=${CMAKE_SOURCE_DIR}/src/io tensorboard.proto
  DEPENDS ${CMAKE_SOURCE_DIR}/src/io/tensorboard.proto
  VERBATIM)
set_source_files_properties(${NITI_PROTO_SOURCES} PROPERTIES COMPILE_OPTIONS "-w") # not our code
# events.c includes the generated header, so it must wait for it
set_source_files_properties(${CMAKE_SOURCE_DIR}/src/io/events.c PROPERTIES
  OBJECT_DEPENDS ${NITI_PROTO_INCLUDE}/tensorboard.pb-c.h
  INCLUDE_DIRECTORIES ${NITI_PROTO_INCLUDE})
