# The CUDA backend's compiler and kernels. NITI_CUDA: ON demands them, OFF does without, AUTO takes them where nvcc works
# (a build with sanitizers does without). Sets NITI_HAS_CUDA.
set(NITI_HAS_CUDA OFF)
if(NOT NITI_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "NITI_CUDA is AUTO, ON or OFF, not '${NITI_CUDA}'")
endif()
if(NITI_CUDA STREQUAL "ON" OR (NITI_CUDA STREQUAL "AUTO" AND NOT NITI_SANITIZE))
  find_program(NITI_NVCC nvcc HINTS ENV CUDA_PATH ENV CUDA_HOME PATH_SUFFIXES bin PATHS /usr/local/cuda /opt/cuda
    DOC "the CUDA compiler")
  if(NITI_NVCC AND NOT DEFINED ENV{CUDACXX} AND NOT CMAKE_CUDA_COMPILER)
    set(ENV{CUDACXX} ${NITI_NVCC})
  endif()
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.0)
      set(NITI_HAS_CUDA ON)
    else()
      message(WARNING "CUDA ${CMAKE_CUDA_COMPILER_VERSION} is too old for the CUDA backend: expected 12.0 or later")
    endif()
  endif()
  if(NOT NITI_HAS_CUDA AND NITI_CUDA STREQUAL "ON")
    message(FATAL_ERROR "NITI_CUDA is ON, but there is no CUDA compiler, 12.0 or later, that works with ${CMAKE_C_COMPILER}; set "
      "CUDACXX to nvcc, or NITI_CUDA to OFF")
  endif()
endif()
if(NOT NITI_HAS_CUDA)
  return()
endif()

set(CMAKE_CUDA_ARCHITECTURES OFF) # said below: CMake 3.25 does not know 90a
set(CMAKE_CUDA_STANDARD 14)
find_library(NITI_CUDART cudart_static REQUIRED HINTS ${CMAKE_CUDA_IMPLICIT_LINK_DIRECTORIES})
find_path(NITI_CUDA_INCLUDE cuda_runtime_api.h REQUIRED HINTS ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})

# NCCL connects the GPUs of several ranks. Its header is enough: libnccl.so.2 is loaded where it is needed and there. In the pip
# package nvidia-nccl-cu13 (or -cu12) the header is in nvidia/nccl/include: -DNITI_NCCL_INCLUDE=FOLDER.
if(NOT NITI_NCCL STREQUAL "OFF")
  find_path(NITI_NCCL_INCLUDE nccl.h HINTS ${NITI_CUDA_INCLUDE})
  if(NITI_NCCL_INCLUDE)
    set_source_files_properties(src/backend/cuda/nccl.c PROPERTIES COMPILE_DEFINITIONS NITI_NCCL
      COMPILE_OPTIONS "-isystem;${NITI_NCCL_INCLUDE}")
  elseif(NITI_NCCL STREQUAL "ON")
    message(FATAL_ERROR "NITI_NCCL=ON, but nccl.h is not there; set NITI_NCCL_INCLUDE to its folder")
  endif()
endif()

# sm_80 code runs on every 8.x; wgmma is for 9.0 alone; what comes later compiles compute_80's.
set(NITI_CUDA_CODE "arch=compute_80,code=[sm_80,compute_80]" "arch=compute_90a,code=sm_90a" CACHE STRING
  "what nvcc's -gencode generates, as a list")

# Makes the kernels an object library and adds it, and the runtime it requires, to what everything links.
function(niti_add_cuda)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/backend/cuda/*.cu)
  add_library(niti_cuda_objects OBJECT ${sources})
  set_target_properties(niti_cuda_objects PROPERTIES POSITION_INDEPENDENT_CODE ON CUDA_RUNTIME_LIBRARY None)
  target_include_directories(niti_cuda_objects PRIVATE ${CMAKE_SOURCE_DIR}/include ${CMAKE_SOURCE_DIR}/src)
  set(options --Werror=cross-execution-space-call)
  foreach(code IN LISTS NITI_CUDA_CODE)
    list(APPEND options "SHELL:-gencode \"${code}\"")
  endforeach()
  list(APPEND options "SHELL:-Xcompiler -Wall,-Wextra,-fvisibility=hidden")
  if(NITI_WERROR)
    list(APPEND options "SHELL:-Werror all-warnings" "SHELL:-Xcompiler -Werror")
  endif()
  # The PTX stays, for the tests that read it; also in a build without tests, whose objects a later one with tests then shares.
  file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/ptx)
  list(APPEND options --keep "SHELL:--keep-dir ${CMAKE_BINARY_DIR}/ptx")
  target_compile_options(niti_cuda_objects PRIVATE ${options})
  target_compile_definitions(niti_objects PRIVATE NITI_CUDA)
  target_include_directories(niti_objects SYSTEM PRIVATE ${NITI_CUDA_INCLUDE})
  set(NITI_OBJECTS ${NITI_OBJECTS} $<TARGET_OBJECTS:niti_cuda_objects> PARENT_SCOPE)
  # the host side that nvcc makes of a kernel wants the C++ library
  set(NITI_LIBRARIES ${NITI_LIBRARIES} ${NITI_CUDART} stdc++ rt dl PARENT_SCOPE)
  target_sources(niti_objects INTERFACE $<TARGET_OBJECTS:niti_cuda_objects>)
endfunction()
