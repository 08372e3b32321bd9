/* Packing by AVX2, which the AVX-512 and AMX kernels use as well. Contracts: NitiConvKernels. */
#ifndef NITI_BACKEND_CPU_X86_CONV_AVX2_H
#define NITI_BACKEND_CPU_X86_CONV_AVX2_H

#include "backend/cpu/microkernel.h"

void niti_transpose_8_avx2(void *out, size_t plane_stride, const int8_t *in, const size_t *offset, size_t positions,
                           int channels);
void niti_transpose_s8_avx2(void *out, size_t plane_stride, const int8_t *in, const size_t *offset, size_t positions,
                            int channels);
void niti_transpose_16_avx2(void *out, size_t plane_stride, const int8_t *in, const size_t *offset, size_t positions,
                            int channels);
void niti_panel_across_8x4_avx2(void *out, const int8_t *in, const size_t *offset, size_t rows, int columns, int padded);
void niti_panel_across_16x2_avx2(void *out, const int8_t *in, const size_t *offset, size_t rows, int columns, int padded);
void niti_panel_along_8x4_avx2(void *out, const int8_t *in, size_t stride, size_t rows, int columns, int padded);
void niti_panel_along_16x2_avx2(void *out, const int8_t *in, size_t stride, size_t rows, int columns, int padded);
void niti_convert_8_avx2(void *out, const int8_t *in, size_t count);
void niti_convert_s8_avx2(void *out, const int8_t *in, size_t count);
void niti_convert_16_avx2(void *out, const int8_t *in, size_t count);
void niti_zero_8_avx2(void *out, size_t count);
void niti_zero_s8_avx2(void *out, size_t count);
void niti_zero_16_avx2(void *out, size_t count);
void niti_gradient_store_avx2(void *gradient, int bits, bool add, size_t stride, const int32_t *acc, size_t acc_stride, int rows,
                              int columns);
void niti_gradient_store_avx512(void *gradient, int bits, bool add, size_t stride, const int32_t *acc, size_t acc_stride,
                                int rows, int columns);
uint32_t niti_requantise_tile_avx2(int8_t *tensor, const size_t *offset, size_t first, const int32_t *acc, size_t stride,
                                   int rows, int columns, const NitiRounder *, uint32_t max);
uint32_t niti_requantise_tile_avx512(int8_t *tensor, const size_t *offset, size_t first, const int32_t *acc, size_t stride,
                                     int rows, int columns, const NitiRounder *, uint32_t max);

#endif
