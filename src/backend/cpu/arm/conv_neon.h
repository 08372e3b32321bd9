/* What the ARM kernels share: packing, rounding and storing by plain NEON. Contracts: NitiConvKernels. */
#ifndef NITI_BACKEND_CPU_ARM_CONV_NEON_H
#define NITI_BACKEND_CPU_ARM_CONV_NEON_H

#include "backend/cpu/microkernel.h"

void niti_convert_neon(void *out, const int8_t *in, size_t count);
void niti_zero_neon(void *out, size_t count);
void niti_transpose_neon(void *out, size_t plane_stride, const int8_t *in, const size_t *offset, size_t positions, int channels);
void niti_panel_across_8x4_neon(void *out, const int8_t *in, const size_t *offset, size_t rows, int columns, int padded);
void niti_panel_across_8x8_neon(void *out, const int8_t *in, const size_t *offset, size_t rows, int columns, int padded);
void niti_panel_along_8x4_neon(void *out, const int8_t *in, size_t stride, size_t rows, int columns, int padded);
void niti_panel_along_8x8_neon(void *out, const int8_t *in, size_t stride, size_t rows, int columns, int padded);
void niti_gradient_store_neon(void *gradient, int bits, bool add, size_t stride, const int32_t *acc, size_t acc_stride, int rows,
                              int columns);
uint32_t niti_requantise_tile_neon(int8_t *tensor, const size_t *offset, size_t first, const int32_t *acc, size_t stride,
                                   int rows, int columns, const NitiRounder *, uint32_t max);

#endif
