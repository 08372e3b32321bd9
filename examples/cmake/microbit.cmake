# The toolchain of a Cortex-M0 without an operating system or a C library: Debian's gcc-arm-none-eabi.
set(CMAKE_SYSTEM_NAME Generic)
set(CMAKE_SYSTEM_PROCESSOR cortex-m0)
set(CMAKE_C_COMPILER arm-none-eabi-gcc)
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
set(CMAKE_C_FLAGS_INIT "-mcpu=cortex-m0 -mthumb -ffreestanding -ffunction-sections -fdata-sections")
set(CMAKE_BUILD_TYPE MinSizeRel CACHE STRING "")
