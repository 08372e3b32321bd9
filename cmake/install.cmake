# What `make install` puts where: the tool with its manual pages and shell completions, libniti (shared and static), niti.h, niti.pc,
# a CMake package with the targets niti::niti (shared) and niti::niti_static, models, recipes, documents and the licence. Everything
# finds itself relative to its own place, so --prefix and DESTDIR work.
include(CMakePackageConfigHelpers)

# What a program that links libniti.a needs besides, as pkg-config knows it and as plain libraries.
set(NITI_STATIC_MODULES yaml-0.1 jansson libjpeg libpng libprotobuf-c nettle zlib)
set(NITI_STATIC_PLAIN m)
set(NITI_PC_FOLDERS "")
if(NITI_HAS_CUDA)
  get_filename_component(niti_cudart_folder ${NITI_CUDART} DIRECTORY)
  list(PREPEND NITI_STATIC_PLAIN cudart_static stdc++ rt dl)
  set(NITI_PC_FOLDERS "-L\"${niti_cudart_folder}\" ")
  target_link_directories(niti_static INTERFACE ${niti_cudart_folder})
endif()

foreach(library niti_shared niti_static)
  set_target_properties(${library} PROPERTIES OUTPUT_NAME niti LINKER_LANGUAGE C)
  target_include_directories(${library} INTERFACE $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/include>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
endforeach()
set_target_properties(niti_shared PROPERTIES EXPORT_NAME niti VERSION ${PROJECT_VERSION} SOVERSION 0)
# PkgConfig::NITI_STATIC is made by nitiConfig.cmake
target_link_libraries(niti_static INTERFACE $<INSTALL_INTERFACE:PkgConfig::NITI_STATIC> ${NITI_STATIC_PLAIN} Threads::Threads)

install(TARGETS niti_shared EXPORT nitiTargets)
install(TARGETS niti_static EXPORT nitiStaticTargets)
install(FILES include/niti.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY models recipes DESTINATION ${CMAKE_INSTALL_DATADIR}/niti)
install(FILES README.md LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR})

if(TARGET niti)
  install(TARGETS niti)
  # The tool writes its own pages and completions, so a build whose tool cannot run here goes without.
  if(NOT NITI_SANITIZE AND (NOT CMAKE_CROSSCOMPILING OR CMAKE_CROSSCOMPILING_EMULATOR))
    set(pages ${CMAKE_BINARY_DIR}/share)
    file(MAKE_DIRECTORY ${pages}/man)
    add_custom_command(
      OUTPUT ${pages}/niti ${pages}/_niti ${pages}/niti.fish ${pages}/man/niti.1
      COMMAND niti completion bash >${pages}/niti
      COMMAND niti completion zsh >${pages}/_niti
      COMMAND niti completion fish >${pages}/niti.fish
      COMMAND niti man --all ${pages}/man
      DEPENDS niti
      COMMENT "Writing manual pages and shell completions")
    add_custom_target(niti_pages ALL DEPENDS ${pages}/niti)
    install(DIRECTORY ${pages}/man/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
    install(FILES ${pages}/niti DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
    install(FILES ${pages}/_niti DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
    install(FILES ${pages}/niti.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
  endif()
endif()

list(JOIN NITI_STATIC_MODULES " " NITI_PC_REQUIRES)
set(package ${CMAKE_INSTALL_LIBDIR}/cmake/niti)
install(EXPORT nitiTargets NAMESPACE niti:: DESTINATION ${package})
install(EXPORT nitiStaticTargets NAMESPACE niti:: DESTINATION ${package})
configure_package_config_file(cmake/nitiConfig.cmake.in nitiConfig.cmake INSTALL_DESTINATION ${package})
write_basic_package_version_file(nitiConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/nitiConfig.cmake ${CMAKE_BINARY_DIR}/nitiConfigVersion.cmake DESTINATION ${package})

file(RELATIVE_PATH NITI_PC_PREFIX ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
string(REGEX REPLACE "/$" "" NITI_PC_PREFIX "${NITI_PC_PREFIX}")
list(TRANSFORM NITI_STATIC_PLAIN PREPEND "-l" OUTPUT_VARIABLE NITI_PC_LIBS)
list(JOIN NITI_PC_LIBS " " NITI_PC_LIBS)
string(PREPEND NITI_PC_LIBS "${NITI_PC_FOLDERS}")
configure_file(cmake/niti.pc.in niti.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/niti.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
